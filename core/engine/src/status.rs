//! The node as an operator sees it: a plain value, made on request.

use crate::Engine;
use crate::route::copies::CopyTimes;
use crate::route::disks::Phase;
use crate::route::sessions::SessionStatus;
use alloc::vec::Vec;
use holdfast_replication::{OwnerStatus, ReplicaStatus};
use holdfast_store::Usage;
use holdfast_types::{DiskId, NodeId, ProcessIncarnation, SegmentKey};

/// See the module's text.
#[derive(Clone, Debug)]
pub struct EngineStatus {
    /// This node.
    pub node: NodeId,
    /// Its run; None while control has not numbered it.
    pub incarnation: Option<ProcessIncarnation>,
    /// Peers with a link.
    pub links: Vec<NodeId>,
    /// Disks.
    pub disks: Vec<(DiskId, Phase, Usage)>,
    /// Segments that this node owns.
    pub owned: Vec<(SegmentKey, OwnerStatus)>,
    /// Copies on this node's disks.
    pub replicas: Vec<(SegmentKey, DiskId, ReplicaStatus)>,
    /// What they counted.
    pub times: CopyTimes,
    /// Initiators.
    pub sessions: Vec<SessionStatus>,
    /// Requests that wait for an answer at the gateway.
    pub waiting: usize,
}

impl Engine {
    /// How the node is now.
    pub fn status(&self) -> EngineStatus {
        EngineStatus {
            node: self.config.node,
            incarnation: self.incarnation,
            links: self.links.iter().copied().filter(|n| *n != self.config.node).collect(),
            disks: self.disk_usage(),
            owned: self.copies.owners.iter().map(|(key, o)| (*key, o.owner.status())).collect(),
            replicas: self.copies.replicas.iter().map(|((key, disk), r)| (*key, *disk, r.status())).collect(),
            times: self.copies.times(),
            sessions: self.session_status(),
            waiting: self.gateway.in_flight(),
        }
    }

    /// How many segments this node owns.
    pub fn owned(&self) -> usize {
        self.copies.owners.len()
    }
}
