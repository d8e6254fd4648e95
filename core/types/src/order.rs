//! Orders between the parts of one node. Replication tells a store what to do with a segment's copy
//! ([`StoreOrder`]) and hears what came of it ([`StoreOutcome`]); a store tells the shell what to do with a
//! disk ([`DiskOrder`]) and hears what came of that ([`DiskDone`]). Defined here so that replication and store
//! know nothing of each other.

use crate::{BlockIndex, BlockRange, Epoch, ExtentIndex, GatewayId, LogPosition, Lsn, Record, SessionId};
use alloc::{collections::BTreeMap, vec::Vec};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Which part of the node an order's outcome goes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OrderSource {
    /// The segment's replica on this disk.
    Replica,
    /// The segment's owner on this node in that epoch. The next one draws the same numbers, perhaps while the disk is
    /// not done with what this one ordered.
    Owner(Epoch),
}

/// Names an order until its outcome comes back. The giver draws the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderToken {
    /// Who gave it.
    pub source: OrderSource,
    /// The giver's number for it.
    pub number: u64,
}

/// What a store is to do with one segment's copy. Each but `Commit` is answered by exactly one outcome.
/// Orders for one segment take effect in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOrder {
    /// Make the promise of `epoch` durable. Outcome: `Sealed`.
    Seal {
        /// Never falls.
        epoch: Epoch,
    },
    /// First cut the log after `cut_after`, when given (never below what was applied), then add `records`, which
    /// follow the log's end gap-free, and promise `sealed`; all durable before the outcome `Appended`.
    Append {
        /// The last record that stays.
        cut_after: Option<Lsn>,
        /// What to add.
        records: Vec<Record>,
        /// The epoch promised with them.
        sealed: Epoch,
    },
    /// Records up to here are committed: they may be read and applied. No outcome.
    Commit {
        /// Never falls, never beyond the log's end.
        lsn: Lsn,
    },
    /// Keep room free for records after `after` that put data into this extent. In memory only, and not for long:
    /// what is not used within seconds is given back. Outcome: `RoomKept`, or `Refused` as `Full` when there is no
    /// room, as `Later` when room is about to be given back.
    KeepRoom {
        /// Which extent.
        extent: ExtentIndex,
        /// The giver's last record: what the copy gets up to there does not use the room up.
        after: Lsn,
    },
    /// Committed content of whole blocks, each checked. Outcome: `Read` or `BadBlocks`.
    Read {
        /// Which blocks.
        range: BlockRange,
    },
    /// Which blocks of the range are present in the committed state. Outcome: `Status`.
    Status {
        /// Which blocks.
        range: BlockRange,
    },
    /// Records after `after`, as far as they are still in the log, at most about `max_bytes` of data but at
    /// least one record. Outcome: `Log`.
    ReadLog {
        /// The record before the first one wanted.
        after: Lsn,
        /// Where to stop.
        max_bytes: usize,
    },
    /// Which extents have blocks with an LSN above `since` in the committed state, absent ones included.
    /// Outcome: `Changed`.
    Changed {
        /// Only what is newer.
        since: Lsn,
    },
    /// The blocks of one extent whose LSN is above `since`, in the committed state, each checked.
    /// Outcome: `Image` or `BadBlocks`.
    ReadImage {
        /// Which extent.
        extent: ExtentIndex,
        /// Only what is newer.
        since: Lsn,
    },
    /// Put blocks of an image in place, each where it is newer than what is there. Durable before the outcome
    /// `Installed`.
    InstallImage {
        /// The blocks, all of one extent.
        blocks: Vec<ImageBlock>,
    },
    /// For each block of the extent that was ever written: its LSN and the checksum of what the disk holds, read
    /// from the disk and not from a cache. Outcome: `Digest`.
    Digest {
        /// Which extent.
        extent: ExtentIndex,
    },
    /// Replace a damaged block by a good copy if its LSN is still the same. Outcome: `Healed`.
    Heal {
        /// The good copy.
        block: ImageBlock,
    },
    /// Start the log anew after `base` as a learner: drop every record, keep what was applied, and note durably
    /// that the copy is incomplete, with the LSN up to which it was complete. Outcome: `Reset`.
    Reset {
        /// The position before the first record to come.
        base: LogPosition,
        /// The epoch promised with it.
        sealed: Epoch,
    },
    /// The learner is complete: it holds everything up to its log's end. Repeats and fences as of `base` come
    /// with it. Outcome: `Completed`.
    Complete {
        /// The state of repeats at the base.
        repeats: RepeatState,
    },
}

/// What came of a [`StoreOrder`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOutcome {
    /// The promise is durable.
    Sealed,
    /// The records are durable.
    Appended {
        /// The log's new end.
        last: LogPosition,
    },
    /// The room is kept.
    RoomKept {
        /// How many extents are left for new data.
        spare: u64,
    },
    /// The content, in pieces that follow each other.
    Read {
        /// Whole blocks.
        data: Vec<Bytes>,
    },
    /// Presence, as runs of (blocks, present) that cover the range.
    Status {
        /// The runs.
        runs: Vec<(u32, bool)>,
    },
    /// Records that follow each other. Empty when the first one wanted is not in the log any more.
    Log {
        /// The records.
        records: Vec<Record>,
    },
    /// The extents that changed, in order.
    Changed {
        /// Which.
        extents: Vec<ExtentIndex>,
    },
    /// The blocks of an image.
    Image {
        /// The committed LSN of which this is the state.
        at: Lsn,
        /// The blocks.
        blocks: Vec<ImageBlock>,
    },
    /// The image's blocks are in place and durable.
    Installed,
    /// What the disk holds.
    Digest {
        /// The committed LSN of which this is the state.
        at: Lsn,
        /// Block by block, in order.
        blocks: Vec<BlockDigest>,
    },
    /// Whether the block was replaced (its LSN may have moved on).
    Healed {
        /// Whether it was.
        replaced: bool,
    },
    /// The log starts anew.
    Reset {
        /// Up to where the copy is complete: what is newer has to come as images, also if it was committed here.
        since: Lsn,
    },
    /// The copy counts as complete.
    Completed,
    /// These blocks do not pass their checksum. The rest was not delivered.
    BadBlocks {
        /// Which.
        blocks: Vec<BlockIndex>,
    },
    /// The order was not carried out, and nothing of it is in the log.
    Refused(StoreRefusal),
}

/// Why a store did not carry out an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum StoreRefusal {
    /// No extent is free. It passes when data is discarded, or a copy leaves the disk.
    #[error("the disk is full")]
    Full,
    /// The disk failed a write or a flush, or is gone. It does not pass.
    #[error("the disk has failed")]
    Failed,
    /// The segment has no copy on this disk.
    #[error("no such segment on this disk")]
    Unknown,
    /// Not at this moment: the journal holds too much that is not committed, extents are about to be given back, or
    /// what was given does not follow the log or is damaged.
    #[error("the disk cannot take it yet")]
    Later,
    /// The copy lost a part of what it held, and is mended by an owner elsewhere.
    #[error("the copy lost a part")]
    Incomplete,
}

/// A block as it goes from one copy to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageBlock {
    /// Which block.
    pub block: BlockIndex,
    /// The record that gave it this state.
    pub lsn: Lsn,
    /// Its checksum; without meaning where `data` is None.
    pub crc: u32,
    /// Its content, one block long; None: absent, a tombstone.
    pub data: Option<Bytes>,
}

/// What a copy holds of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockDigest {
    /// Which block.
    pub block: BlockIndex,
    /// The record that gave it this state.
    pub lsn: Lsn,
    /// What was found.
    pub content: BlockContent,
}

/// What a copy's disk holds in a block's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlockContent {
    /// Nothing: the block is absent and reads as zeros.
    Absent,
    /// Data that passes its checksum, and that checksum.
    Good(u32),
    /// Data that does not, and what it sums to.
    Bad(u32),
}

impl BlockDigest {
    /// Whether two copies hold the same. Of a block that holds nothing, copies may tell by different records since when:
    /// a discard is noted only where there was something, and such notes are summed up when they become many.
    pub fn agrees(&self, other: &BlockDigest) -> bool {
        let both_absent = self.content == BlockContent::Absent && other.content == BlockContent::Absent;
        self == other || (both_absent && self.block == other.block)
    }
}

/// Repeats and fences as far as the log was trimmed (replication.md H12, R9).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepeatState {
    /// Per gateway run.
    pub gateways: BTreeMap<GatewayId, GatewayRepeats>,
}

/// What one gateway run asked of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayRepeats {
    /// Everything below was answered and is not repeated.
    pub low: u64,
    /// Numbers at or above `low` that are in the log, with the LSN of their record. All of them succeeded: a
    /// request that fails leaves no record.
    pub done: BTreeMap<u64, Lsn>,
    /// The whole gateway is fenced.
    pub fenced: bool,
    /// Sessions that are fenced.
    pub fenced_sessions: Vec<SessionId>,
}

/// A segment's copy as a store found it when it opened the disk, or made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaState {
    /// The highest epoch promised.
    pub sealed: Epoch,
    /// The position up to which the log was trimmed: what is before it is in the extents.
    pub trim: LogPosition,
    /// Every record up to here is in the extents or ready to be read.
    pub applied: Lsn,
    /// The log after `trim`: for each run of one epoch the first LSN and the epoch, in order.
    pub epochs: Vec<(Lsn, Epoch)>,
    /// The last record's position, `trim` when the log is empty.
    pub last: LogPosition,
    /// None: complete. Else an unfinished learner, and the LSN up to which it was complete.
    pub incomplete_since: Option<Lsn>,
    /// Repeats as of `trim`; the records after it carry their own.
    pub repeats: RepeatState,
    /// The tags of records after `trim`, oldest first, so that the owner can rebuild the repeats.
    pub tags: Vec<(Lsn, crate::RequestTag)>,
    /// Fences after `trim`, oldest first.
    pub fences: Vec<(Lsn, GatewayId, Option<SessionId>)>,
}

/// Names an order to a disk until it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskToken(pub u64);

/// What the shell is to do with a disk. Orders may be carried out in any order and at once; a store that
/// needs one before another waits for the first to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOrder {
    /// Comes back with what was done.
    pub token: DiskToken,
    /// What to do.
    pub kind: DiskOrderKind,
}

/// What the shell is to do with a disk. Offsets and lengths are multiples of [`crate::BLOCK_BYTES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskOrderKind {
    /// Write the pieces one after the other.
    Write {
        /// Where, in bytes.
        offset: u64,
        /// What. Each piece's length is a multiple of a block; its memory need not be aligned.
        data: Vec<Bytes>,
        /// Whether this, and nothing else, must be on stable storage when it is done.
        durable: bool,
    },
    /// Read.
    Read {
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        len: usize,
    },
    /// All writes that were done before this was ordered must be on stable storage when it is done.
    Flush,
}

/// What came of a [`DiskOrder`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskDone {
    /// The order's.
    pub token: DiskToken,
    /// For a read, its data; for the others, empty.
    pub result: Result<Bytes, DiskFault>,
}

/// How a disk failed an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DiskFault {
    /// The device reported an error.
    #[error("input/output error (errno {0})")]
    Io(i32),
    /// A read or write reached past the end of the device.
    #[error("the device is shorter than its superblock says")]
    Short,
}
