//! A node whose database cannot be written, or not now, hears of nothing more: openraft waits for each flush, as a leader and
//! as a follower. To lead it is of no use then, and says so to whoever asks. For itself it asks the others, in turn, which of
//! them leads, has that one decide what it proposes, and takes over the map that the leader has: what is decided is decided,
//! whether this node has written it or not. Its vote and its log are as they were when the database goes on.

use crate::Control;
use crate::codec;
use crate::control::Verdict;
use crate::wire::{MAX_MESSAGE_BYTES, Request, Response};
use futures::future::{BoxFuture, FutureExt};
use holdfast_cluster::ClusterMap;
use holdfast_types::NodeId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// A write that takes longer is not waited for where another node can do without.
const STILL_AFTER: Duration = Duration::from_secs(1);
/// Between looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Room for what surrounds a map in a response.
const ENVELOPE_BYTES: usize = 1024;

/// Shows a map to whoever watches, unless a newer one was shown.
pub(crate) fn show(shown: &watch::Sender<Arc<ClusterMap>>, map: &Arc<ClusterMap>) {
    shown.send_if_modified(|now| {
        let is_newer = map.version > now.version;
        if is_newer {
            *now = Arc::clone(map);
        }
        is_newer
    });
}

impl Control {
    /// Whether others should do without this node, if there are any.
    pub(crate) fn stands_still(&self) -> bool {
        self.writing.trouble(STILL_AFTER).is_some()
            && self.raft.metrics().borrow().membership_config.voter_ids().count() > 1
    }

    pub(crate) async fn until_still(&self) {
        while !self.stands_still() {
            sleep(LOOK_EVERY).await;
        }
    }

    /// The leader as far as this node knows, or, if it cannot know, whose turn it is to be asked.
    pub(crate) fn whom_to_ask(&self, turn: usize) -> Option<NodeId> {
        if !self.stands_still() {
            return self.leader();
        }
        let voters = self.metrics().voters;
        let others: Vec<NodeId> = voters.into_iter().filter(|n| *n != self.node()).collect();
        others.get(turn % others.len().max(1)).copied()
    }

    /// The map, for a node that stands still and has that version of it.
    pub(crate) fn lead_map(&self, than: u64) -> Response {
        let map = self.peers.map.borrow().clone();
        let bytes = (map.version > than).then(|| codec::encode(&*map).unwrap_or_default());
        let is_too_long = bytes.as_ref().is_some_and(|b| b.len() + ENVELOPE_BYTES > MAX_MESSAGE_BYTES);
        if is_too_long { Response::Unknown } else { Response::Map(bytes) }
    }

    /// Leads no more, and takes over the leader's map, for as long as this node cannot write. Runs until it is dropped.
    pub fn follow_elsewhere(&self) -> BoxFuture<'_, ()> {
        async move {
            loop {
                self.until_still().await;
                // What it waits for need not be what openraft waits for: as a leader it would lead on.
                self.raft.runtime_config().heartbeat(false);
                while self.stands_still() {
                    self.fetch_map().await;
                    sleep(LOOK_EVERY).await;
                }
                self.raft.runtime_config().heartbeat(true);
            }
        }
        .boxed()
    }

    async fn fetch_map(&self) {
        let (wait, than) = (self.timings().propose, self.shown.borrow().version);
        let answer = self.with_leader(wait, Request::Map { than }, |response| match response {
            Some(Response::Map(map)) => Verdict::Answer(map),
            _ => Verdict::Again,
        });
        let map = answer.await.flatten().and_then(|bytes| codec::decode::<ClusterMap>(&bytes).ok());
        if let Some(map) = map {
            show(&self.shown, &Arc::new(map));
        }
    }
}
