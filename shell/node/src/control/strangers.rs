//! Tells the event log who was not let in and who does not let this node in: an expired certificate, a host of
//! another cluster, another version. At once when it begins, and then seldom, for what dials does so many times a
//! second. What merely is no peer (a port scan, a probe that hangs up) is a number on the page of metrics.

use super::Shared;
use super::events::Events;
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

/// When something was last told.
struct Seldom<K>(BTreeMap<K, Instant>);

// Derived, it would ask for a default of K.
impl<K> Default for Seldom<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Seldom<K> {
    /// Whether it may be told now; it is then taken for told.
    fn is_due(&mut self, now: Instant, what: K) -> bool {
        let due = self.0.get(&what).is_none_or(|at| now - *at >= AGAIN_AFTER);
        if due {
            self.0.insert(what, now);
        }
        due
    }
}

/// What the event log was told of refused connections.
#[derive(Default)]
struct Told {
    when: Seldom<Refusal>,
    /// How many it knows of.
    known: BTreeMap<Refusal, u64>,
}

impl Told {
    /// How many connections the log does not know of, if it is to be told now.
    fn news(&mut self, now: Instant, refusal: Refusal, refused: Refused) -> Option<u64> {
        if matches!(refusal, Refusal::NotHoldfast | Refusal::TooSlow | Refusal::Closed) {
            return None;
        }
        let known = self.known.entry(refusal).or_default();
        let more = refused.count - *known;
        if more == 0 || !self.when.is_due(now, refusal) {
            return None;
        }
        *known = refused.count;
        Some(more)
    }
}

/// Tells the event log of nodes that do not let this one in, or are not the nodes that were meant.
pub struct Unreachable {
    events: Events,
    told: Mutex<Seldom<NodeId>>,
}

impl Unreachable {
    /// Nothing was told yet.
    pub fn new(events: Events) -> Self {
        Self { events, told: Mutex::default() }
    }

    /// A connection did not come about. That a node is silent is the failure detector's to say.
    pub fn tell(&self, to: NodeId, error: &ConnectError) {
        let refused = matches!(error, ConnectError::NotThePeer { .. } | ConnectError::PeerRefuses { .. });
        let mut told = self.told.lock().unwrap_or_else(|e| e.into_inner());
        if refused && told.is_due(Instant::now(), to) {
            self.events.not_let_in(to, error);
        }
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
