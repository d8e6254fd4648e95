//! What control's nodes say to each other: openraft's messages, and proposals on their way to the leader. Each
//! is one request and one response, written by codec.rs.

use crate::raft_types::{TypeConfig, Vote};
use holdfast_cluster::{Command, CommandError, CommandResult};
use openraft::error::SnapshotMismatch;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

/// The longest request or response that is read. Entries per append, the size of a command and the chunks of a
/// snapshot are bounded so that none is longer.
pub(crate) const MAX_MESSAGE_BYTES: usize = 8 << 20;
/// The longest command.
pub(crate) const MAX_COMMAND_BYTES: usize = 256 << 10;
/// The most entries of an append.
pub(crate) const MAX_APPEND_ENTRIES: u64 = 16;
/// The length of a snapshot's chunks.
pub(crate) const SNAPSHOT_CHUNK_BYTES: u64 = 1 << 20;

const _: () = assert!(MAX_APPEND_ENTRIES as usize * MAX_COMMAND_BYTES * 3 / 2 < MAX_MESSAGE_BYTES);
const _: () = assert!(SNAPSHOT_CHUNK_BYTES as usize * 2 < MAX_MESSAGE_BYTES);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<u64>),
    Snapshot(InstallSnapshotRequest<TypeConfig>),
    /// For the leader.
    Propose(Command),
    /// For the leader: the log index that a reader must have applied to miss nothing answered before.
    ReadIndex,
    /// For the leader: make the node a member of the group, a voter if there is room for one.
    AddMember {
        node: u64,
        address: String,
    },
    /// For the leader: the node leaves the group.
    RemoveMember {
        node: u64,
    },
    /// From the leader, which is about to stop: ask for an election, my lease has run out.
    Elect,
    /// From the leader, of whose group the node is no member: it may take part again in that run, and votes for nobody
    /// else in the leader's term.
    Readmit {
        nonce: u64,
        vote: Vote,
    },
    /// For the leader: its map, if it is newer than that, for a node that cannot write what makes it.
    Map {
        than: u64,
    },
}

impl Request {
    /// The vote of a message that only its leader or candidate may send.
    pub(crate) fn vote(&self) -> Option<&Vote> {
        match self {
            Request::Append(rpc) => Some(&rpc.vote),
            Request::Vote(rpc) => Some(&rpc.vote),
            Request::Snapshot(rpc) => Some(&rpc.vote),
            Request::Readmit { vote, .. } => Some(vote),
            _ => None,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Append(AppendEntriesResponse<u64>),
    Vote(VoteResponse<u64>),
    Snapshot(InstallSnapshotResponse<u64>),
    SnapshotMismatch(SnapshotMismatch),
    Proposed(Result<CommandResult, CommandError>),
    ReadIndex(Option<u64>),
    MemberChanged,
    /// Ask the leader; nothing was done.
    NotLeader,
    /// It may have been done or not.
    Unknown,
    Fault(Fault),
    /// An election is asked for.
    Electing,
    /// The leader's map, as a snapshot has it. None: there is no newer one.
    Map(Option<Vec<u8>>),
}

/// Why a request was not even tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fault {
    /// It cannot be read.
    Malformed,
    /// It was sent by another node than it says.
    Impostor,
    /// This node's control has stopped.
    Stopped,
    /// The group has another change under way.
    Busy,
    /// Who asks was removed from the cluster.
    Removed,
    /// Who asks is of another group; this is the one of the node that answers.
    OtherGroup { generation: u64 },
    /// The node that answers has forgotten what it promised; it says so in each run under another number.
    Forgot { nonce: u64 },
}
