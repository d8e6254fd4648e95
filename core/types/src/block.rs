//! Block requests: what a front end (iSCSI, NBD) asks of a volume, and what comes back. Offsets and lengths
//! are bytes, multiples of a sector.

use alloc::vec::Vec;
use bytes::Bytes;
use thiserror::Error;

/// A request to a volume. A completed write is on stable storage on a write quorum, always (WCE=0).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockRequest {
    /// Read `len` bytes.
    Read {
        /// From this byte of the volume.
        offset: u64,
        /// How many bytes.
        len: u32,
    },
    /// Write. The pieces follow each other; what they add up to is a multiple of a sector.
    Write {
        /// To this byte of the volume.
        offset: u64,
        /// The content.
        data: Vec<Bytes>,
    },
    /// The range reads as zeros afterwards; its space is given back where whole extents are covered.
    Zero {
        /// From this byte of the volume.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// Write if the content is as given. At most one block, never across two.
    CompareAndWrite {
        /// To this byte of the volume.
        offset: u64,
        /// What must be there.
        compare: Bytes,
        /// What to write, as long as `compare`.
        data: Bytes,
    },
    /// Wait until every earlier write of this session that is not complete is complete.
    Flush,
    /// Which parts of the range hold data.
    Status {
        /// From this byte of the volume.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
}

/// What a request brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockReply {
    /// Done.
    Done,
    /// The content, in pieces that follow each other.
    Data(Vec<Bytes>),
    /// From the start of the range on, runs that cover it.
    Status(Vec<StatusRange>),
}

/// A run of a volume that holds data throughout, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    /// How many bytes.
    pub len: u64,
    /// Whether data is there; what is absent reads as zeros.
    pub allocated: bool,
}

/// Why a request failed. Loss of peers or of quorum is not among these: such a request waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BlockError {
    /// COMPARE AND WRITE found another content; the first differing byte.
    #[error("content differs at byte {at} of the compared range")]
    Miscompare {
        /// Offset in the compared range.
        at: u32,
    },
    /// The range does not lie in the volume.
    #[error("the range lies outside the volume")]
    OutOfRange,
    /// No room left on the disks of a write quorum.
    #[error("no space is left on the disks of this volume's copies")]
    NoSpace,
    /// No copy of the data passes its checksum.
    #[error("no copy of this data is readable")]
    Unreadable,
    /// The volume was deleted.
    #[error("the volume no longer exists")]
    Gone,
    /// The request was fenced: its initiator goes on through another gateway.
    #[error("the session was taken over by another gateway")]
    Fenced,
    /// The request is not one that a volume carries out.
    #[error("the request is not valid")]
    Invalid,
}

/// What a request came to.
pub type BlockResult = Result<BlockReply, BlockError>;
