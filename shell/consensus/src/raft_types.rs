//! openraft's types, filled in with ours. They do not leave this crate.

use holdfast_cluster::{Command, CommandError, CommandResult};
use holdfast_types::NodeId;
use std::io::Cursor;

openraft::declare_raft_types!(
    /// What our group agrees on.
    pub(crate) TypeConfig:
        D = Command,
        R = Result<CommandResult, CommandError>,
        NodeId = u64,
        Node = openraft::BasicNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Cursor<Vec<u8>>,
);

pub(crate) type Raft = openraft::Raft<TypeConfig>;
pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, openraft::BasicNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<u64, openraft::BasicNode>;

/// openraft's number of a node.
pub(crate) fn raft_id(node: NodeId) -> u64 {
    u64::from(node.0)
}

/// Our number of a node. Every number in the group came from [`raft_id`]; another one is nobody's.
pub(crate) fn node_id(id: u64) -> NodeId {
    NodeId(u16::try_from(id).unwrap_or(0))
}
