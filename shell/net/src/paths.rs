//! The paths to other nodes, for all that dial them: what the heartbeats found out is told here once, and whoever has
//! a connection that went the other way lets go of it and dials again. And how much this node relays for others.

use crate::Purpose;
use holdfast_types::{NodeId, PeerPath};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

/// How often a node that is not heard is looked for by a detour.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How many connections a node relays at a time. One more is refused.
pub const RELAYS_MOST: usize = 256;

/// See the module's text. Cheap to clone; the clones are one.
#[derive(Clone)]
pub struct Paths(Arc<Inner>);

/// What the heartbeats say of each node that they were sent to. None: it is not heard by any way.
type Known = BTreeMap<NodeId, Option<PeerPath>>;

struct Inner {
    known: watch::Sender<Known>,
    /// When a node that is not heard was last looked for by a detour.
    looked_for: Mutex<BTreeMap<(NodeId, Purpose), Instant>>,
    /// How many connections to each node make a detour.
    detours: Mutex<BTreeMap<NodeId, usize>>,
    relays: Arc<Semaphore>,
}

/// A connection that makes a detour, for as long as it does.
pub(crate) struct Detour {
    paths: Paths,
    to: NodeId,
}

impl Drop for Detour {
    fn drop(&mut self) {
        let mut detours = self.paths.0.detours.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(count) = detours.get_mut(&self.to) {
            *count -= 1;
        }
        detours.retain(|_, count| *count > 0);
    }
}

/// The way that a connection goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The node that relays it, if it does not go directly.
    pub relay: Option<NodeId>,
    /// It goes through a relay although the heartbeats know of no broken path.
    pub is_detour: bool,
}

impl Route {
    /// Directly or not.
    pub fn path(self) -> PeerPath {
        if self.relay.is_some() { PeerPath::Relayed } else { PeerPath::Direct }
    }
}

impl Default for Paths {
    fn default() -> Self {
        let relays = Arc::new(Semaphore::new(RELAYS_MOST));
        Self(Arc::new(Inner {
            known: watch::channel(Known::new()).0,
            looked_for: Mutex::default(),
            detours: Mutex::default(),
            relays,
        }))
    }
}

impl Paths {
    /// This way leads to the node, or none does.
    pub fn set(&self, to: NodeId, path: Option<PeerPath>) {
        self.0.known.send_modify(|known| {
            known.insert(to, path);
        });
    }

    /// There are no other nodes than these.
    pub fn keep(&self, nodes: &BTreeSet<NodeId>) {
        self.0.known.send_if_modified(|known| {
            let before = known.len();
            known.retain(|node, _| nodes.contains(node));
            known.len() != before
        });
        self.0
            .looked_for
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .retain(|(node, _), _| nodes.contains(node));
    }

    /// The way to the node, if its heartbeats show one.
    pub fn get(&self, to: NodeId) -> Option<PeerPath> {
        self.0.known.borrow().get(&to).copied().flatten()
    }

    /// Whether a connection that comes about in no direct way may make a detour. To a node that is not heard, seldom: it
    /// is most likely gone. It may also be one that has just started and sends no heartbeats yet.
    pub(crate) fn may_make_detour(&self, to: NodeId, purpose: Purpose) -> bool {
        let is_heard = self.0.known.borrow().get(&to).is_none_or(Option::is_some);
        if is_heard {
            return true;
        }
        let now = Instant::now();
        let mut looked_for = self.0.looked_for.lock().unwrap_or_else(|e| e.into_inner());
        let is_due = looked_for.get(&(to, purpose)).is_none_or(|at| now - *at >= LOOK_EVERY);
        if is_due {
            looked_for.insert((to, purpose), now);
        }
        is_due
    }

    /// The nodes that are not reached directly, or not for every purpose.
    pub fn relayed(&self) -> Vec<NodeId> {
        let known = self.0.known.borrow();
        let broken =
            known.iter().filter(|(_, path)| **path == Some(PeerPath::Relayed)).map(|(node, _)| *node);
        let detours = self.0.detours.lock().unwrap_or_else(|e| e.into_inner());
        broken.chain(detours.keys().copied()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// To be held by who has a connection that makes a detour.
    pub(crate) fn detour(&self, to: NodeId) -> Detour {
        *self.0.detours.lock().unwrap_or_else(|e| e.into_inner()).entry(to).or_default() += 1;
        Detour { paths: self.clone(), to }
    }

    /// Returns once the heartbeats find that another path than that of a connection leads to the node. Safe to cancel.
    pub(crate) async fn other_than(&self, used: PeerPath, to: NodeId) {
        let is_other = |known: &Known| known.get(&to).copied().flatten().is_some_and(|path| path != used);
        let mut known = self.0.known.subscribe();
        // `self` holds the sender.
        let _ = known.wait_for(is_other).await;
    }

    /// Returns once the heartbeats do not reach the relay of a route any more that they did reach. Safe to cancel.
    pub async fn relay_lost(&self, route: Route) {
        let Some(relay) = route.relay else { return std::future::pending().await };
        let mut was_reached = false;
        let is_lost = |known: &Known| {
            let is_reached = known.get(&relay) == Some(&Some(PeerPath::Direct));
            was_reached |= is_reached;
            was_reached && !is_reached
        };
        let mut known = self.0.known.subscribe();
        let _ = known.wait_for(is_lost).await;
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
