//! A segment as control knows it, and what may be proposed to control about it. Two configurations suffice:
//! the last one that was activated, and the one granted since (replication.md §1).

use crate::{Epoch, LogPosition, NodeId, ProcessIncarnation, ReplicaRef, SegmentKey};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The configuration that was last activated. It decides until the next one is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveConfig {
    /// Its epoch; zero for a new segment, whose copies are empty.
    pub epoch: Epoch,
    /// S: the copies whose acknowledgements count.
    pub set: Vec<ReplicaRef>,
    /// The position of its START record.
    pub tail: LogPosition,
}

/// The configuration that was last granted. One that is never activated acknowledged nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its epoch.
    pub epoch: Epoch,
    /// The node that may order writes in it.
    pub owner: NodeId,
    /// In this run of its daemon only: a restarted owner needs a new epoch (replication.md H4).
    pub owner_incarnation: ProcessIncarnation,
    /// S', which holds a copy on the owner's node.
    pub set: Vec<ReplicaRef>,
}

/// Everything that control keeps of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentInfo {
    /// Which segment, in which incarnation.
    pub key: SegmentKey,
    /// The configuration that decides.
    pub active: ActiveConfig,
    /// The configuration granted last; equal to `active` in epoch when it was activated.
    pub granted: Grant,
    /// Every copy, learners included: those that are not in S are to be resynced.
    pub members: Vec<ReplicaRef>,
    /// With fewer copies in S than this, reads go on and writes wait.
    pub min_copies: u8,
}

/// How many of S make a write quorum: 3 of 5, 2 of 3, 2 of 2, 1 of 1.
pub const fn write_quorum(set: usize) -> usize {
    set / 2 + 1
}

/// How many of S make a seal quorum, which meets every write quorum: 2 of 3, 1 of 2, 1 of 1.
pub const fn seal_quorum(set: usize) -> usize {
    set - write_quorum(set) + 1
}

/// What may be proposed to control about a segment. Each is a compare-and-set on the granted epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SegmentCommand {
    /// Grant epoch `expect` + 1.
    Grant {
        /// Which segment.
        segment: SegmentKey,
        /// The granted epoch that this follows; refused when another one came between.
        expect: Epoch,
        /// The new owner.
        owner: NodeId,
        /// The run of its daemon.
        owner_incarnation: ProcessIncarnation,
        /// The new S.
        set: Vec<ReplicaRef>,
        /// Why, for the event log.
        reason: GrantReason,
    },
    /// Record that the granted configuration is active.
    Activated {
        /// Which segment.
        segment: SegmentKey,
        /// The epoch; refused when it is not the granted one.
        epoch: Epoch,
        /// The position of its START record.
        tail: LogPosition,
    },
}

/// Why a configuration is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrantReason {
    /// The segment is new.
    Create,
    /// The owner's node or process is gone.
    Takeover,
    /// A copy fell behind or its node is gone.
    Drop,
    /// A copy was resynced.
    Add,
    /// The I/O comes from another node.
    FollowIo,
    /// The owner's node is to stop.
    Handover,
    /// The owner's disk is slow, and another copy's is not.
    SlowDisk,
}

/// What control answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SegmentCommandResult {
    /// It is so.
    Done,
    /// The granted epoch is another one by now.
    Stale {
        /// The granted epoch.
        granted: Epoch,
    },
    /// It breaks a rule, or the segment does not exist in that incarnation.
    Refused,
    /// No answer: it may have happened or not. Ask again.
    Unknown,
}
