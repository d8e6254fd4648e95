//! A block on its way to a reader: where its committed state lies, what was read, and the answers that blocks
//! add up to. No I/O.

use crate::format::page::Page;
use crate::layout::BLOCK;
use crate::overlay::Content;
use crate::segment::Segment;
use alloc::{collections::BTreeMap, vec::Vec};
use bytes::Bytes;
use holdfast_types::{
    BLOCK_BYTES, BlockContent, BlockDigest, BlockIndex, BlockRange, EXTENT_BLOCKS, ExtentIndex, ImageBlock,
    Lsn,
};

/// What absent blocks read as, shared.
pub(crate) static ZEROS: [u8; 16 * BLOCK_BYTES] = [0; 16 * BLOCK_BYTES];

#[derive(Debug)]
pub(crate) struct Slot {
    pub block: BlockIndex,
    pub lsn: Lsn,
    pub crc: u32,
    pub state: SlotState,
    /// What was read and did not pass: LSN, place and sum.
    pub failed: Option<(Lsn, u64, u32)>,
}

#[derive(Debug)]
pub(crate) enum SlotState {
    Pending,
    Reading(u64),
    Absent,
    Data(Bytes),
    /// Part of what a disk order brought.
    Piece {
        read: u64,
        at: usize,
        all: Bytes,
    },
    Bad(u32),
}

/// A block's committed state.
pub(crate) struct View {
    pub lsn: Lsn,
    pub crc: u32,
    pub source: Source,
}

pub(crate) enum Source {
    Absent,
    Memory(Bytes),
    At(u64),
    /// The page says that there is data and not where.
    Lost,
}

pub(crate) fn view(
    segment: &Segment,
    page: Option<&Page>,
    extent_at: Option<u64>,
    extent: ExtentIndex,
    i: u32,
) -> View {
    let of_page = page.map_or(Lsn(0), |p| p.lsns[i as usize]);
    if let Some((lsn, block)) =
        segment.overlay.extent(extent).and_then(|e| e.block(i)).filter(|o| o.0 >= of_page)
    {
        let source = match block.map(|b| &b.content) {
            None | Some(Content::Absent) => Source::Absent,
            Some(Content::Memory(data)) => Source::Memory(data.clone()),
            Some(Content::Journal(at)) => Source::At(*at),
        };
        return View { lsn, crc: block.map_or(0, |b| b.crc), source };
    }
    let Some(page) = page.filter(|p| p.is_present(i)) else {
        return View { lsn: of_page, crc: 0, source: Source::Absent };
    };
    let source = extent_at.map_or(Source::Lost, |at| Source::At(at + u64::from(i) * BLOCK));
    View { lsn: of_page, crc: page.crcs[i as usize], source }
}

impl Slot {
    pub(crate) fn new(block: BlockIndex) -> Self {
        Self { block, lsn: Lsn(0), crc: 0, state: SlotState::Pending, failed: None }
    }

    pub(crate) fn take(&mut self, view: View) {
        // An absent block keeps the LSN of its extent's floor.
        self.lsn = view.lsn.max(if matches!(view.source, Source::Absent) { self.lsn } else { Lsn(0) });
        self.crc = view.crc;
        self.state = match view.source {
            Source::Absent => SlotState::Absent,
            Source::Memory(data) => SlotState::Data(data),
            Source::Lost => SlotState::Bad(0),
            Source::At(at) => match self.failed {
                Some((lsn, place, sum)) if (lsn, place) == (view.lsn, at) => SlotState::Bad(sum),
                _ => SlotState::Reading(at),
            },
        };
    }
}

/// A slot for each block whose LSN is above `since`; blocks of an extent without a page count as of `floor`.
pub(crate) fn slots_above(
    segment: &Segment,
    page: Option<&Page>,
    extent: ExtentIndex,
    since: Lsn,
    floor: Lsn,
) -> Vec<Slot> {
    let blocks = BlockRange::new(extent.first_block(), EXTENT_BLOCKS).blocks();
    let lsn = |b: BlockIndex| view(segment, page, None, extent, b.in_extent()).lsn.max(floor);
    blocks.filter(|b| lsn(*b) > since).map(|block| Slot { lsn: lsn(block), ..Slot::new(block) }).collect()
}

/// The slots' content, with as few pieces as can be without copying.
pub(crate) fn pieces(slots: Vec<Slot>) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut slots = slots.into_iter().peekable();
    while let Some(slot) = slots.next() {
        match slot.state {
            SlotState::Data(data) => pieces.push(data),
            SlotState::Piece { read, at, all } => {
                let mut end = at + BLOCK_BYTES;
                let follows = |s: &Slot, end: usize| matches!(s.state, SlotState::Piece { read: r, at, .. } if r == read && at == end);
                while slots.next_if(|s| follows(s, end)).is_some() {
                    end += BLOCK_BYTES;
                }
                pieces.push(all.slice(at..end));
            }
            SlotState::Absent | SlotState::Pending | SlotState::Reading(_) | SlotState::Bad(_) => {
                debug_assert!(
                    matches!(slot.state, SlotState::Absent),
                    "a job ends when every block is resolved"
                );
                let mut len = BLOCK_BYTES;
                while len < ZEROS.len() && slots.next_if(|s| matches!(s.state, SlotState::Absent)).is_some() {
                    len += BLOCK_BYTES;
                }
                pieces.push(Bytes::from_static(&ZEROS[..len]));
            }
        }
    }
    pieces
}

pub(crate) fn image(slots: Vec<Slot>) -> Vec<ImageBlock> {
    let block = |s: Slot| {
        let data = match s.state {
            SlotState::Data(data) => Some(data),
            SlotState::Piece { at, all, .. } => Some(all.slice(at..at + BLOCK_BYTES)),
            _ => None,
        };
        ImageBlock { block: s.block, lsn: s.lsn, crc: s.crc, data }
    };
    slots.into_iter().map(block).collect()
}

pub(crate) fn digests(slots: &[Slot]) -> Vec<BlockDigest> {
    let digest = |s: &Slot| {
        let content = match &s.state {
            SlotState::Data(_) | SlotState::Piece { .. } => BlockContent::Good(s.crc),
            SlotState::Bad(sum) => BlockContent::Bad(*sum),
            SlotState::Absent | SlotState::Pending | SlotState::Reading(_) => BlockContent::Absent,
        };
        BlockDigest { block: s.block, lsn: s.lsn, content }
    };
    slots.iter().map(digest).collect()
}

pub(crate) fn runs(
    range: BlockRange,
    present: &BTreeMap<u32, [u64; EXTENT_BLOCKS as usize / 64]>,
) -> Vec<(u32, bool)> {
    let mut runs: Vec<(u32, bool)> = Vec::new();
    for block in range.blocks() {
        let i = block.in_extent();
        let is =
            present.get(&block.extent().0).is_some_and(|bits| bits[i as usize / 64] >> (i % 64) & 1 == 1);
        match runs.last_mut() {
            Some((count, value)) if *value == is => *count += 1,
            _ => runs.push((1, is)),
        }
    }
    runs
}
