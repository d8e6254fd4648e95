//! The paths to other nodes, for all that dial them: what the heartbeats found out is told here once, and whoever has
//! a connection that went the other way lets go of it and dials again. And how much this node relays for others.

use holdfast_types::{NodeId, PeerPath};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// How many connections a node relays at a time. One more is refused.
pub const RELAYS_MOST: usize = 256;

/// See the module's text. Cheap to clone; the clones are one.
#[derive(Clone)]
pub struct Paths(Arc<Inner>);

struct Inner {
    known: watch::Sender<BTreeMap<NodeId, PeerPath>>,
    relays: Arc<Semaphore>,
}

impl Default for Paths {
    fn default() -> Self {
        let relays = Arc::new(Semaphore::new(RELAYS_MOST));
        Self(Arc::new(Inner { known: watch::channel(BTreeMap::new()).0, relays }))
    }
}

impl Paths {
    /// This way leads to the node, or none is known.
    pub fn set(&self, to: NodeId, path: Option<PeerPath>) {
        self.0.known.send_modify(|known| {
            match path {
                Some(path) => known.insert(to, path),
                None => known.remove(&to),
            };
        });
    }

    /// The way to the node, if its heartbeats show one.
    pub fn get(&self, to: NodeId) -> Option<PeerPath> {
        self.0.known.borrow().get(&to).copied()
    }

    /// The nodes that are not reached directly.
    pub fn relayed(&self) -> Vec<NodeId> {
        let known = self.0.known.borrow();
        known.iter().filter(|(_, path)| **path == PeerPath::Relayed).map(|(node, _)| *node).collect()
    }

    /// Returns once another way than `used` leads to the node. Safe to cancel.
    pub async fn other_than(&self, used: PeerPath, to: NodeId) {
        let mut known = self.0.known.subscribe();
        let is_other = |known: &BTreeMap<NodeId, PeerPath>| known.get(&to).is_some_and(|path| *path != used);
        // `self` holds the sender.
        let _ = known.wait_for(is_other).await;
    }

    /// How many connections this node relays for others now.
    pub fn relays(&self) -> usize {
        RELAYS_MOST - self.0.relays.available_permits()
    }

    /// The right to relay one, if there are not too many.
    pub(crate) fn relay(&self) -> Option<OwnedSemaphorePermit> {
        self.0.relays.clone().try_acquire_owned().ok()
    }
}
