//! What is worth keeping of a segment's replication: evidence for the event log, without any decision in it.

use core::fmt;
use holdfast_types::{BlockIndex, Duration, Epoch, LogPosition, Lsn, ReplicaRef};

/// Something that an operator may want to know of later.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplicationEvent {
    /// The owner went on to another phase.
    Phase {
        /// Its epoch.
        epoch: Epoch,
        /// Which.
        phase: &'static str,
    },
    /// Control recorded the epoch as active; requests are served.
    Activated {
        /// Its epoch.
        epoch: Epoch,
        /// The position of its START record.
        tail: LogPosition,
        /// How long it took since the grant came.
        took: Duration,
    },
    /// Another grant took the segment away.
    Superseded {
        /// The epoch that ended.
        epoch: Epoch,
    },
    /// This copy's log is behind what the others have trimmed: it cannot become the owner's.
    OwnCopyTooOld {
        /// The log's end.
        last: LogPosition,
    },
    /// This copy lost part of what it held: it cannot become the owner's before another one has mended it.
    OwnCopyIncomplete,
    /// A copy is to leave S.
    Dropping {
        /// Which.
        replica: ReplicaRef,
        /// How many records it is behind.
        behind: u64,
        /// Why.
        why: DropReason,
    },
    /// S has only one copy: one more lost disk loses data.
    OneCopyLeft {
        /// The last one.
        replica: ReplicaRef,
    },
    /// A learner is complete and is to enter S.
    Adding {
        /// Which.
        replica: ReplicaRef,
    },
    /// A resync began.
    ResyncStarted {
        /// Of which copy.
        replica: ReplicaRef,
        /// How many extents it compares or copies; zero: the log's tail is enough.
        extents: u32,
        /// What the copy has already.
        since: Lsn,
    },
    /// A resync ended; the copy was compared.
    ResyncFinished {
        /// Of which copy.
        replica: ReplicaRef,
        /// How many images went over.
        images: u64,
        /// How many bytes of data they held.
        bytes: u64,
        /// How long it took.
        took: Duration,
    },
    /// Blocks of a learner did not compare equal; they are copied again.
    ResyncDiffers {
        /// Of which copy.
        replica: ReplicaRef,
        /// How many blocks.
        blocks: u32,
    },
    /// A block does not pass its checksum.
    BadBlock {
        /// On which copy.
        replica: ReplicaRef,
        /// Which.
        block: BlockIndex,
    },
    /// A damaged block was replaced by a good copy.
    Healed {
        /// On which copy.
        replica: ReplicaRef,
        /// Which.
        block: BlockIndex,
        /// From which copy.
        from: ReplicaRef,
    },
    /// No copy of the block is good.
    Unreadable {
        /// Which.
        block: BlockIndex,
    },
    /// Requests wait and nothing was committed for a while.
    Stalled {
        /// How many wait.
        requests: u64,
        /// For how long.
        since: Duration,
    },
    /// What was stalled goes on.
    Resumed,
    /// A copy lost what it had acknowledged (replication.md H20).
    Regressed {
        /// Which.
        replica: ReplicaRef,
        /// What it acknowledged.
        acknowledged: Lsn,
        /// Where its log ends now.
        last: LogPosition,
    },
    /// A copy was told to cut what it applied. It refuses everything from now on.
    Diverged {
        /// Which.
        replica: ReplicaRef,
        /// What it applied.
        applied: Lsn,
        /// Where the owner's log parts from it.
        at: Lsn,
    },
    /// A copy's disk has no room for new data.
    NoRoom {
        /// Which copy's.
        replica: ReplicaRef,
    },
    /// A copy's disk that was full has room again.
    RoomAgain {
        /// Which copy's.
        replica: ReplicaRef,
    },
    /// A copy's store refused an order.
    StoreRefused {
        /// Which.
        replica: ReplicaRef,
        /// Why.
        reason: holdfast_types::StoreRefusal,
    },
}

/// Why a copy leaves S.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Its node is not reachable.
    Unreachable,
    /// It acknowledges nothing.
    Stuck,
    /// Its disk has no room for what the others have.
    Full,
    /// What it needs is not in the log any more.
    TooFarBehind,
    /// It lost what it had acknowledged.
    Regressed,
    /// It lost a part of what it held.
    Incomplete,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DropReason::Unreachable => "its node is not reachable",
            DropReason::Stuck => "it acknowledges nothing",
            DropReason::Full => "its disk is full",
            DropReason::TooFarBehind => "it is too far behind",
            DropReason::Regressed => "it lost what it had acknowledged",
            DropReason::Incomplete => "it lost a part of what it held",
        })
    }
}

impl fmt::Display for ReplicationEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use ReplicationEvent as E;
        let on = |r: &ReplicaRef| r.node;
        match self {
            E::Phase { epoch, phase } => write!(f, "epoch {epoch}: {phase}"),
            E::Activated { epoch, tail, took } => {
                write!(f, "epoch {epoch} active at {tail} after {} ms", took.as_millis())
            }
            E::Superseded { epoch } => write!(f, "epoch {epoch} ended: another grant came"),
            E::OwnCopyTooOld { last } => write!(f, "own copy ends at {last}, before the others' logs begin"),
            E::OwnCopyIncomplete => {
                f.write_str("own copy lost a part: another node's has to serve and mend it")
            }
            E::Dropping { replica, behind, why } => {
                write!(f, "copy on node {} leaves the set ({why}), {behind} records behind", on(replica))
            }
            E::OneCopyLeft { replica } => write!(f, "only the copy on node {} is left", on(replica)),
            E::Adding { replica } => write!(f, "copy on node {} is complete and enters the set", on(replica)),
            E::ResyncStarted { replica, extents, since } => {
                write!(f, "resync of the copy on node {}: {extents} extents newer than {since}", on(replica))
            }
            E::ResyncFinished { replica, images, bytes, took } => write!(
                f,
                "resync of the copy on node {} done: {images} images, {bytes} bytes, {:.1} s",
                on(replica),
                took.as_secs_f64()
            ),
            E::ResyncDiffers { replica, blocks } => {
                write!(f, "{blocks} blocks on node {} do not compare equal; copied again", on(replica))
            }
            E::BadBlock { replica, block } => {
                write!(f, "block {} on node {} is damaged", block.0, on(replica))
            }
            E::Healed { replica, block, from } => {
                write!(f, "block {} on node {} healed from node {}", block.0, on(replica), on(from))
            }
            E::Unreadable { block } => write!(f, "no copy of block {} is readable", block.0),
            E::Stalled { requests, since } => {
                write!(f, "{requests} requests wait, nothing committed for {} ms", since.as_millis())
            }
            E::Resumed => f.write_str("requests go on"),
            E::Regressed { replica, acknowledged, last } => {
                write!(f, "copy on node {} acknowledged {acknowledged} and now ends at {last}", on(replica))
            }
            E::Diverged { replica, applied, at } => {
                write!(f, "copy on node {} applied {applied}, the owner's log parts at {at}", on(replica))
            }
            E::NoRoom { replica } => write!(
                f,
                "disk of node {} is full: new data is refused with \"no space\"; discard data (fstrim) or delete volumes",
                on(replica)
            ),
            E::RoomAgain { replica } => write!(f, "disk of node {} has room again", on(replica)),
            E::StoreRefused { replica, reason } => write!(f, "store of node {}: {reason}", on(replica)),
        }
    }
}
