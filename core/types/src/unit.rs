//! Units of size. One block is the unit of checksums, of the log and of a replica's state; one sector is what
//! initiators may address; one extent is the unit of allocation on a disk; one segment the unit of placement.

use serde::{Deserialize, Serialize};

/// Bytes in a block: the unit of checksums, of log records and of versions.
pub const BLOCK_BYTES: usize = 4096;
/// Bytes in a sector: the smallest piece an initiator may address. The owner merges sectors into blocks.
pub const SECTOR_BYTES: usize = 512;
/// Bytes in an extent: the unit of allocation on a disk, 256 blocks.
pub const EXTENT_BYTES: usize = 1 << 20;
/// Bytes in a segment: the unit of placement, replication, ownership and recovery.
pub const SEGMENT_BYTES: u64 = 1 << 30;
/// Blocks in an extent.
pub const EXTENT_BLOCKS: u32 = (EXTENT_BYTES / BLOCK_BYTES) as u32;
/// Blocks in a segment.
pub const SEGMENT_BLOCKS: u32 = (SEGMENT_BYTES / BLOCK_BYTES as u64) as u32;
/// Extents in a segment.
pub const SEGMENT_EXTENTS: u32 = (SEGMENT_BYTES / EXTENT_BYTES as u64) as u32;
/// The longest data that one log record carries. A longer request is split by the gateway.
pub const MAX_RECORD_BYTES: usize = 1 << 20;

const _: () = assert!(BLOCK_BYTES.is_multiple_of(SECTOR_BYTES));
const _: () = assert!(EXTENT_BYTES.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(SEGMENT_BYTES.is_multiple_of(EXTENT_BYTES as u64));

/// A block's place in its segment, 0 to [`SEGMENT_BLOCKS`] - 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockIndex(pub u32);

impl BlockIndex {
    /// The extent that holds this block.
    pub const fn extent(self) -> ExtentIndex {
        ExtentIndex(self.0 / EXTENT_BLOCKS)
    }
    /// The block's place in its extent.
    pub const fn in_extent(self) -> u32 {
        self.0 % EXTENT_BLOCKS
    }
    /// The block `count` further on.
    pub const fn plus(self, count: u32) -> BlockIndex {
        BlockIndex(self.0 + count)
    }
    /// Where the block starts, in bytes from the segment's start.
    pub const fn byte_offset(self) -> u64 {
        self.0 as u64 * BLOCK_BYTES as u64
    }
}

/// An extent's place in its segment, 0 to [`SEGMENT_EXTENTS`] - 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExtentIndex(pub u32);

impl ExtentIndex {
    /// The extent's first block.
    pub const fn first_block(self) -> BlockIndex {
        BlockIndex(self.0 * EXTENT_BLOCKS)
    }
}

/// A run of blocks in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRange {
    /// The first block.
    pub start: BlockIndex,
    /// How many blocks.
    pub count: u32,
}

impl BlockRange {
    /// The run of `count` blocks from `start`.
    pub const fn new(start: BlockIndex, count: u32) -> Self {
        Self { start, count }
    }
    /// The first block after the run.
    pub const fn end(self) -> BlockIndex {
        BlockIndex(self.start.0 + self.count)
    }
    /// Whether both runs hold a block in common.
    pub const fn overlaps(self, other: BlockRange) -> bool {
        self.start.0 < other.end().0 && other.start.0 < self.end().0
    }
    /// The run's length in bytes.
    pub const fn bytes(self) -> usize {
        self.count as usize * BLOCK_BYTES
    }
    /// Every block of the run.
    pub fn blocks(self) -> impl Iterator<Item = BlockIndex> {
        (self.start.0..self.end().0).map(BlockIndex)
    }
    /// Every extent that holds a block of the run.
    pub fn extents(self) -> impl Iterator<Item = ExtentIndex> {
        let first = self.start.extent().0;
        let end = if self.count == 0 { first } else { self.end().0.div_ceil(EXTENT_BLOCKS) };
        (first..end).map(ExtentIndex)
    }
    /// Whether the run lies inside a segment.
    pub const fn in_segment(self) -> bool {
        self.start.0 <= SEGMENT_BLOCKS && self.count <= SEGMENT_BLOCKS - self.start.0
    }
    /// The smallest run of blocks that covers `len` bytes from byte `offset` of the segment.
    pub const fn covering(offset: u64, len: u64) -> BlockRange {
        let first = offset / BLOCK_BYTES as u64;
        let end = (offset + len).div_ceil(BLOCK_BYTES as u64);
        BlockRange { start: BlockIndex(first as u32), count: (end - first) as u32 }
    }
}
