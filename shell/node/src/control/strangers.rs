//! Tells the event log who was not let in and who does not let this node in: an expired certificate, a host of
//! another cluster, another version. At once when it begins, and then seldom, for what dials does so many times a
//! second. What merely is no peer (a port scan, a probe that hangs up) is a number on the page of metrics.

use super::Shared;
use holdfast_net::{ConnectError, Refusal, Refused};
use holdfast_types::NodeId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// Between two events about the same thing.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// Runs for ever.
pub async fn report(shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut told = Told::default();
    loop {
        shared.refusals.more().await;
        let now = Instant::now();
        for (refusal, refused) in shared.refusals.seen() {
            if let Some(count) = told.news(now, refusal, refused) {
                shared.events.refused(refusal, count, refused.last.ip());
            }
        }
    }
}

/// What the event log was told.
#[derive(Default)]
struct Told(BTreeMap<Refusal, (Instant, u64)>);

impl Told {
    /// How many connections the log does not know of, if it is to be told now.
    fn news(&mut self, now: Instant, refusal: Refusal, refused: Refused) -> Option<u64> {
        if matches!(refusal, Refusal::NotHoldfast | Refusal::TooSlow | Refusal::Closed) {
            return None;
        }
        let known = match self.0.get(&refusal) {
            Some((at, known)) if *known == refused.count || now - *at < AGAIN_AFTER => return None,
            Some((_, known)) => *known,
            None => 0,
        };
        self.0.insert(refusal, (now, refused.count));
        Some(refused.count - known)
    }
}

/// When the event log was last told that a node does not answer as it should.
#[derive(Default)]
pub struct Unreachable(Mutex<BTreeMap<NodeId, Instant>>);

impl Unreachable {
    /// Whether this error is to be told now. That a node is silent is the failure detector's to say.
    pub fn news(&self, now: Instant, to: NodeId, error: &ConnectError) -> bool {
        if !matches!(error, ConnectError::NotThePeer { .. } | ConnectError::PeerRefuses { .. }) {
            return false;
        }
        let mut told = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let due = told.get(&to).is_none_or(|at| now - *at >= AGAIN_AFTER);
        if due {
            told.insert(to, now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_refused_is_told_at_once_and_then_seldom_with_how_often_it_was() {
        let (mut told, start) = (Told::default(), Instant::now());
        let refused = |count| Refused { count, last: "192.0.2.7:40000".parse().unwrap() };
        assert_eq!(told.news(start, Refusal::Expired, refused(1)), Some(1));
        assert_eq!(told.news(start + AGAIN_AFTER / 2, Refusal::Expired, refused(300)), None);
        assert_eq!(told.news(start + AGAIN_AFTER / 2, Refusal::OtherCluster, refused(2)), Some(2));
        assert_eq!(told.news(start + AGAIN_AFTER, Refusal::Expired, refused(301)), Some(300));
        assert_eq!(told.news(start + AGAIN_AFTER * 3, Refusal::Expired, refused(301)), None, "none since");
        assert_eq!(told.news(start, Refusal::NotHoldfast, refused(9)), None, "a port scan");
    }
}
