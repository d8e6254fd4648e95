//! Committed content that is not in place yet, by extent and block. The state of a block is what the highest
//! LSN gave it, here or in the extent's page; thus content may be added in any order.

use alloc::collections::BTreeMap;
use bytes::Bytes;
use holdfast_types::{BLOCK_BYTES, BlockIndex, ExtentIndex, Lsn};

/// Where content that is not in place lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nowhere: the block is absent.
    Absent,
    /// In memory.
    Memory(Bytes),
    /// In the journal, at this byte of the disk.
    Journal(u64),
}

/// A block's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OverlayBlock {
    /// The record that gave it.
    pub lsn: Lsn,
    /// The content's checksum.
    pub crc: u32,
    /// The content.
    pub content: Content,
    /// Written even where the page says that the same record is in place already: what is there is damaged.
    pub heal: bool,
    /// It came by an image or a heal and is in no log.
    pub image: bool,
    /// Where the disk has it already, in its extent's shadow.
    pub direct: Option<u64>,
}

/// One extent's part.
#[derive(Debug, Default)]
pub(crate) struct ExtentOverlay {
    /// All blocks are absent since this record, but for those in `blocks`.
    pub whole: Option<Lsn>,
    /// Blocks by their place in the extent.
    pub blocks: BTreeMap<u32, OverlayBlock>,
}

/// A segment's part.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    pub extents: BTreeMap<u32, ExtentOverlay>,
    /// Bytes of content in memory.
    pub bytes: u64,
}

fn memory_bytes(block: &OverlayBlock) -> u64 {
    if matches!(block.content, Content::Memory(_)) { BLOCK_BYTES as u64 } else { 0 }
}

impl Overlay {
    pub(crate) fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }
    pub(crate) fn extent(&self, extent: ExtentIndex) -> Option<&ExtentOverlay> {
        self.extents.get(&extent.0)
    }

    /// Adds a block's state, unless a newer one is here. Whether it was added.
    pub(crate) fn insert(&mut self, extent: ExtentIndex, index: u32, block: OverlayBlock) -> bool {
        let part = self.extents.entry(extent.0).or_default();
        let newest = part.blocks.get(&index).map_or(Lsn(0), |b| b.lsn).max(part.whole.unwrap_or_default());
        if block.lsn < newest {
            return false;
        }
        if let Some(same) = part.blocks.get_mut(&index).filter(|b| b.lsn == block.lsn) {
            // The same record's content, come twice: it counts as the log's where it is in the log. What came is known to be
            // good, what is in the journal may be what it is to replace.
            same.heal |= block.heal;
            same.image &= block.image;
            same.direct = same.direct.filter(|_| !block.heal);
            if matches!((&same.content, &block.content), (Content::Journal(_), Content::Memory(_))) {
                self.bytes += memory_bytes(&block);
                same.content = block.content;
            }
            return true;
        }
        self.bytes += memory_bytes(&block);
        if let Some(old) = part.blocks.insert(index, block) {
            self.bytes -= memory_bytes(&old);
        }
        true
    }

    /// What record `lsn` gave a block is no more kept in memory: the journal has it at byte `at` of the disk.
    pub(crate) fn leave_to_journal(&mut self, block: BlockIndex, lsn: Lsn, at: u64) {
        let part = self.extents.get_mut(&block.extent().0);
        let Some(found) = part.and_then(|p| p.blocks.get_mut(&block.in_extent())).filter(|b| b.lsn == lsn)
        else {
            return;
        };
        self.bytes -= memory_bytes(found);
        found.content = Content::Journal(at);
    }

    /// All blocks of an extent are absent since `lsn`, but for those that are newer.
    pub(crate) fn clear_extent(&mut self, extent: ExtentIndex, lsn: Lsn) {
        let part = self.extents.entry(extent.0).or_default();
        part.whole = Some(part.whole.map_or(lsn, |w| w.max(lsn)));
        let bytes = &mut self.bytes;
        part.blocks.retain(|_, b| {
            let stays = b.lsn > lsn;
            *bytes -= if stays { 0 } else { memory_bytes(b) };
            stays
        });
    }

    /// Removes what `gone` says, given each block's place in the extent and state.
    pub(crate) fn remove(
        &mut self,
        extent: ExtentIndex,
        whole_up_to: Lsn,
        mut gone: impl FnMut(u32, &OverlayBlock) -> bool,
    ) {
        let Some(part) = self.extents.get_mut(&extent.0) else { return };
        let bytes = &mut self.bytes;
        part.blocks.retain(|i, b| {
            let stays = !gone(*i, b);
            *bytes -= if stays { 0 } else { memory_bytes(b) };
            stays
        });
        part.whole = part.whole.filter(|w| *w > whole_up_to);
        if part.blocks.is_empty() && part.whole.is_none() {
            self.extents.remove(&extent.0);
        }
    }

    /// The oldest LSN of anything that came from the log.
    pub(crate) fn oldest(&self) -> Option<Lsn> {
        self.extents
            .values()
            .flat_map(|e| {
                let blocks = e.blocks.values().filter(|b| !b.image).map(|b| b.lsn);
                blocks.chain(e.whole)
            })
            .min()
    }
}

impl ExtentOverlay {
    /// The state of block `index`, as far as it is decided here: LSN and, when it is not absent as a whole,
    /// the block.
    pub(crate) fn block(&self, index: u32) -> Option<(Lsn, Option<&OverlayBlock>)> {
        match (self.blocks.get(&index), self.whole) {
            (Some(b), _) => Some((b.lsn, Some(b))),
            (None, Some(lsn)) => Some((lsn, None)),
            (None, None) => None,
        }
    }
    /// Whether blocks that may be in place are absent from now on.
    pub(crate) fn takes_data_away(&self) -> bool {
        self.whole.is_some() || self.blocks.values().any(|b| matches!(b.content, Content::Absent))
    }
    /// The newest LSN of anything here.
    pub(crate) fn newest(&self) -> Lsn {
        self.blocks.values().map(|b| b.lsn).chain(self.whole).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(lsn: u64) -> OverlayBlock {
        let content = Content::Memory(Bytes::from_static(&[0; BLOCK_BYTES]));
        OverlayBlock { lsn: Lsn(lsn), crc: 0, content, heal: false, image: false, direct: None }
    }
    const E: ExtentIndex = ExtentIndex(3);

    #[test]
    fn the_highest_lsn_decides_whatever_comes_first() {
        let mut o = Overlay::default();
        assert!(o.insert(E, 1, data(5)));
        assert!(!o.insert(E, 1, data(4)));
        o.clear_extent(E, Lsn(4));
        assert_eq!(o.extent(E).and_then(|e| e.block(1)).map(|b| b.0), Some(Lsn(5)));
        o.clear_extent(E, Lsn(6));
        assert_eq!(o.extent(E).and_then(|e| e.block(1)), Some((Lsn(6), None)));
        assert!(!o.insert(E, 1, data(5)));
        assert_eq!(o.bytes, 0);
    }

    #[test]
    fn bytes_in_memory_are_counted_once() {
        let mut o = Overlay::default();
        o.insert(E, 1, data(1));
        o.insert(E, 1, data(2));
        o.insert(E, 2, data(3));
        assert_eq!((o.bytes, o.oldest()), (2 * BLOCK_BYTES as u64, Some(Lsn(2))));
        o.remove(E, Lsn(0), |i, _| i == 1);
        assert_eq!(o.bytes, BLOCK_BYTES as u64);
        o.remove(E, Lsn(0), |_, _| true);
        assert!(o.is_empty() && o.bytes == 0);
    }
}
