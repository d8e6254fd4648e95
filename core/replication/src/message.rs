//! The messages between the owner of a segment, its copies and the gateways: plain data. What they mean is
//! replication.md §1; how they look on the wire is [`crate::wire`]. Every message of replication names the
//! segment with its incarnation, the epoch, and the copy with its disk's incarnation, so that none is ever
//! taken for another's (replication.md H5, H19).

use crate::index::LogIndex;
use crate::repeats::RepeatTable;
use alloc::vec::Vec;
use bytes::Bytes;
use holdfast_types::{
    BlockDigest, BlockError, BlockIndex, BlockReply, Duration, Epoch, ExtentIndex, ImageBlock, LogPosition,
    Lsn, Record, RepeatState, ReplicaRef, RequestId, SegmentKey, SessionId,
};
use serde::{Deserialize, Serialize};

/// Anything that nodes say to each other about a segment.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Between the owner and a copy.
    Replication(Envelope),
    /// From a gateway to the owner.
    Request(SegmentRequest),
    /// From the owner to a gateway.
    Reply(SegmentReply),
}

impl Message {
    /// Whether it belongs to a bulk copy, which must never delay client I/O.
    pub fn is_bulk(&self) -> bool {
        match self {
            Message::Replication(e) => {
                matches!(
                    e.body,
                    Body::Image { .. }
                        | Body::ImageReply { .. }
                        | Body::Digest { .. }
                        | Body::DigestReply { .. }
                )
            }
            Message::Request(_) | Message::Reply(_) => false,
        }
    }
}

/// A message between an owner and a copy.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// Which segment.
    pub segment: SegmentKey,
    /// The owner's epoch, in both directions.
    pub epoch: Epoch,
    /// The copy concerned: addressee of the owner's messages, sender of the replies.
    pub replica: ReplicaRef,
    /// What is said.
    pub body: Body,
}

/// What an owner and a copy say to each other. `number` pairs a reply with what it answers. Those that carry data
/// are put on the wire by hand and stand last: serde numbers the variants that it knows in order, without the
/// skipped ones when it reads and with them when it writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// Promise the envelope's epoch.
    Seal {
        /// Whether the reply is to carry the repeats: asked of the owner's own copy only.
        repeats: bool,
    },
    /// The promise is durable.
    SealReply(SealState),
    /// The copy's log is durable and equal to the owner's up to `matched`.
    Appended {
        /// The last LSN that is.
        matched: Lsn,
        /// The store was told that everything up to here is committed.
        committed: Lsn,
    },
    /// The copy has no record at the position that the append follows.
    Need {
        /// What it has.
        index: LogIndex,
    },
    /// The copy has promised a higher epoch, or refuses to go on.
    Rejected {
        /// The epoch promised.
        sealed: Epoch,
    },
    /// The copy could not store an append. Sent again later, it may pass.
    Refused {
        /// Why.
        reason: holdfast_types::StoreRefusal,
    },
    /// Grant a read lease.
    Lease {
        /// Pairs.
        number: u64,
    },
    /// The lease is granted, or another owner's is still running.
    LeaseReply {
        /// Pairs.
        number: u64,
        /// Whether it is granted.
        granted: bool,
    },
    /// Is this epoch still the highest promised?
    Probe {
        /// Pairs.
        number: u64,
    },
    /// It is.
    ProbeReply {
        /// Pairs.
        number: u64,
    },
    /// Records after `after` are wanted.
    Fetch {
        /// Pairs.
        number: u64,
        /// The record before the first one wanted.
        after: Lsn,
        /// About how many bytes at most.
        max_bytes: u32,
    },
    /// One block's committed content and version are wanted.
    Read {
        /// Pairs.
        number: u64,
        /// Which block.
        block: BlockIndex,
        /// Not before everything up to here is committed at the copy.
        min_lsn: Lsn,
    },
    /// What came of it.
    HealReply {
        /// Pairs.
        number: u64,
        /// Whether the block was replaced; it may have moved on instead.
        replaced: bool,
    },
    /// Start the log anew after `base`, as a learner.
    Learn {
        /// The position before the first record to come.
        base: LogPosition,
    },
    /// The log starts anew.
    LearnReply {
        /// After what.
        base: LogPosition,
        /// The LSN up to which the copy was complete.
        since: Lsn,
    },
    /// The blocks are in place and durable, or the disk is full.
    ImageReply {
        /// Pairs.
        number: u64,
        /// Whether they are in place.
        installed: bool,
    },
    /// What the disk holds of an extent is wanted.
    Digest {
        /// Pairs.
        number: u64,
        /// Which extent.
        extent: ExtentIndex,
    },
    /// What the disk holds.
    DigestReply {
        /// Pairs.
        number: u64,
        /// The committed LSN of which this is the state.
        at: Lsn,
        /// Block by block, in order.
        blocks: Vec<BlockDigest>,
    },
    /// Keep room for records after `after` that put data into the extent.
    Room {
        /// Pairs.
        number: u64,
        /// Which extent.
        extent: ExtentIndex,
        /// The owner's last record.
        after: Lsn,
    },
    /// It is kept, or why not.
    RoomReply {
        /// Pairs.
        number: u64,
        /// None: it is kept.
        refusal: Option<holdfast_types::StoreRefusal>,
        /// How many extents the disk has left for new data.
        spare: u64,
    },
    /// Every image is in place and compared: the copy is complete.
    Finish {
        /// The repeats of everything committed.
        repeats: RepeatState,
    },
    /// The copy counts as complete, durably.
    FinishReply,
    /// The owner reads under no lease any more that was asked for by this number or an earlier one.
    Release {
        /// The last number that it asked with.
        number: u64,
    },
    /// Records that follow `prev`. Carried with the data in the payload.
    #[serde(skip)]
    Append {
        /// The record before the first one.
        prev: LogPosition,
        /// What follows; may be empty.
        records: Vec<Record>,
        /// Everything up to here is committed.
        commit: Lsn,
    },
    /// Records, or none when the first one is not in the log any more.
    #[serde(skip)]
    FetchReply {
        /// Pairs.
        number: u64,
        /// They follow each other.
        records: Vec<Record>,
    },
    /// The block, or nothing when the copy cannot vouch for it.
    #[serde(skip)]
    ReadReply {
        /// Pairs.
        number: u64,
        /// The block.
        block: Option<ImageBlock>,
    },
    /// Replace a damaged block if it still has this LSN.
    #[serde(skip)]
    Heal {
        /// Pairs.
        number: u64,
        /// The good copy.
        block: ImageBlock,
    },
    /// Blocks of an extent, to be put in place where they are newer.
    #[serde(skip)]
    Image {
        /// Pairs.
        number: u64,
        /// The blocks, of one extent.
        blocks: Vec<ImageBlock>,
    },
}

impl Body {
    /// Whether it goes from a copy to the owner.
    pub fn is_for_owner(&self) -> bool {
        match self {
            Body::SealReply(_)
            | Body::Appended { .. }
            | Body::Need { .. }
            | Body::Rejected { .. }
            | Body::Refused { .. }
            | Body::LeaseReply { .. }
            | Body::ProbeReply { .. }
            | Body::FetchReply { .. }
            | Body::ReadReply { .. }
            | Body::HealReply { .. }
            | Body::LearnReply { .. }
            | Body::ImageReply { .. }
            | Body::DigestReply { .. }
            | Body::RoomReply { .. }
            | Body::FinishReply => true,
            Body::Seal { .. }
            | Body::Append { .. }
            | Body::Lease { .. }
            | Body::Probe { .. }
            | Body::Fetch { .. }
            | Body::Read { .. }
            | Body::Heal { .. }
            | Body::Learn { .. }
            | Body::Image { .. }
            | Body::Digest { .. }
            | Body::Room { .. }
            | Body::Finish { .. }
            | Body::Release { .. } => false,
        }
    }
}

/// What a copy says of itself when it has promised an epoch (replication.md §1, SEAL).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SealState {
    /// Its log.
    pub index: LogIndex,
    /// Everything up to here is committed, as far as it knows.
    pub applied: Lsn,
    /// How long another owner may still read under a lease of this copy's.
    pub lease_left: Duration,
    /// None: complete. Else an unfinished learner, and the LSN up to which it was complete.
    pub incomplete_since: Option<Lsn>,
    /// The repeats of its whole log, when asked for.
    pub repeats: Option<RepeatTable>,
}

/// A gateway's request to the owner of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRequest {
    /// The same through all repeats.
    pub id: RequestId,
    /// The initiator's session.
    pub session: SessionId,
    /// Everything below was answered to the gateway and is not repeated.
    pub low: u64,
    /// Which segment.
    pub segment: SegmentKey,
    /// What to do.
    pub op: SegmentOp,
}

/// What to do with a segment. Offsets are bytes within it; offsets and lengths are multiples of a sector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentOp {
    /// Read.
    Read {
        /// From here.
        offset: u64,
        /// How many bytes.
        len: u32,
    },
    /// Write; the pieces follow each other.
    Write {
        /// From here.
        offset: u64,
        /// The content.
        data: Vec<Bytes>,
    },
    /// The range reads as zeros afterwards.
    Zero {
        /// From here.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// Write if the content is as given; never across a block's end.
    CompareAndWrite {
        /// From here.
        offset: u64,
        /// What must be there.
        compare: Bytes,
        /// What to write, as long.
        data: Bytes,
    },
    /// Which parts hold data.
    Status {
        /// From here.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
}

impl SegmentOp {
    /// How many bytes of data it carries.
    pub fn data_bytes(&self) -> usize {
        match self {
            SegmentOp::Write { data, .. } => data.iter().map(Bytes::len).sum(),
            SegmentOp::CompareAndWrite { compare, data, .. } => compare.len() + data.len(),
            SegmentOp::Read { .. } | SegmentOp::Zero { .. } | SegmentOp::Status { .. } => 0,
        }
    }
    /// Whether it leaves everything as it is.
    pub fn is_read(&self) -> bool {
        matches!(self, SegmentOp::Read { .. } | SegmentOp::Status { .. })
    }
    /// First byte and length.
    pub fn span(&self) -> (u64, u64) {
        match self {
            SegmentOp::Read { offset, len } => (*offset, u64::from(*len)),
            SegmentOp::Write { offset, .. } => (*offset, self.data_bytes() as u64),
            SegmentOp::Zero { offset, len } | SegmentOp::Status { offset, len } => (*offset, *len),
            SegmentOp::CompareAndWrite { offset, data, .. } => (*offset, data.len() as u64),
        }
    }
}

/// The owner's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReply {
    /// The request's.
    pub id: RequestId,
    /// Which segment.
    pub segment: SegmentKey,
    /// The owner's.
    pub epoch: Epoch,
    /// The answer.
    pub result: SegmentResult,
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentResult {
    /// Done.
    Ok(BlockReply),
    /// Failed for good.
    Failed(BlockError),
    /// Another node owns the segment by now. Ask there.
    NotOwner,
    /// Too much waits here already. Ask again a little later.
    Busy,
    /// The gateway's run is fenced: the request is not in the log and never will be under this id. (That its
    /// session is fenced is an answer to the initiator, if there still is one: [`BlockError::Fenced`].)
    Fenced,
}
