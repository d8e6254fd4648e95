//! Where things lie on a disk: superblocks, journal ring, extent pages, extents, in that order. The ranges are
//! computed once, when the disk is formatted, and kept in the superblock.

use crate::api::StoreConfig;
use alloc::{vec, vec::Vec};
use core::ops::Range;
use holdfast_types::{BLOCK_BYTES, EXTENT_BYTES};
use thiserror::Error;

/// One block, as a byte offset's unit.
pub(crate) const BLOCK: u64 = BLOCK_BYTES as u64;
const EXTENT: u64 = EXTENT_BYTES as u64;
/// Bytes before the journal: two superblocks, and room for what a later version may want there.
pub const HEADER_BYTES: u64 = 64 << 10;
/// The smallest journal ring: it has to hold several of the longest records.
pub const MIN_JOURNAL_BYTES: u64 = 16 << 20;
/// The smallest ring that is chosen by itself.
const DEFAULT_JOURNAL_MIN: u64 = 64 << 20;
/// The largest ring that is chosen by itself.
const DEFAULT_JOURNAL_MAX: u64 = 4 << 30;
/// Each page has two slots that are written in turn.
pub(crate) const PAGE_BYTES: u64 = 2 * BLOCK;
/// Pages beyond one for each extent on the disk, for tombstones of extents that hold no space.
const SPARE_PAGES_MIN: u64 = 64;

/// Where things lie, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// How much of the device is used at all.
    pub size: u64,
    /// The journal ring.
    pub journal: Range<u64>,
    /// Extent pages, two slots each.
    pub metadata: Range<u64>,
    /// The extents.
    pub extents: Range<u64>,
}

/// Why a disk cannot be formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FormatError {
    /// There is no room for a journal and some extents.
    #[error("{size} bytes are too few: at least {needed} are needed")]
    TooSmall {
        /// What there is.
        size: u64,
        /// What is needed.
        needed: u64,
    },
    /// The ring asked for is too small.
    #[error("a journal of {asked} bytes is too small: at least {needed} are needed")]
    JournalTooSmall {
        /// What was asked for.
        asked: u64,
        /// What is needed.
        needed: u64,
    },
    /// There are more extents than an extent's number can tell.
    #[error("{size} bytes are too many: at most {most} can be used")]
    TooLarge {
        /// What there is.
        size: u64,
        /// What can be used.
        most: u64,
    },
}

impl Layout {
    /// How many pages there are.
    pub fn pages(&self) -> u32 {
        ((self.metadata.end - self.metadata.start) / PAGE_BYTES) as u32
    }
    /// How many extents there are.
    pub fn extent_count(&self) -> u32 {
        ((self.extents.end - self.extents.start) / EXTENT) as u32
    }
    /// What a shell writes once, with anything, when it makes a file for the disk: a write to it later then
    /// changes no metadata of the file system's.
    pub fn prewrite(&self) -> Vec<Range<u64>> {
        let all = 0..self.metadata.end;
        vec![all]
    }
    /// Whether the parts follow each other inside the size.
    pub(crate) fn is_sound(&self) -> bool {
        let bounds =
            [HEADER_BYTES, self.journal.start, self.journal.end, self.metadata.start, self.metadata.end];
        bounds.is_sorted()
            && self.metadata.end <= self.extents.start
            && self.extents.start < self.extents.end
            && self.extents.end <= self.size
            && self.journal.end - self.journal.start >= MIN_JOURNAL_BYTES
            && bounds.iter().all(|b| b.is_multiple_of(BLOCK))
            && self.extents.start.is_multiple_of(EXTENT)
            && self.extents.end <= 1 << 52
    }
    /// Where slot `slot` of page `page` lies.
    pub(crate) fn page_offset(&self, page: u32, slot: bool) -> u64 {
        self.metadata.start + u64::from(page) * PAGE_BYTES + if slot { BLOCK } else { 0 }
    }
    /// Where extent `location` starts.
    pub(crate) fn extent_offset(&self, location: u32) -> u64 {
        self.extents.start + u64::from(location) * EXTENT
    }
}

/// Divides a device of `size` bytes.
pub fn layout(size: u64, config: &StoreConfig) -> Result<Layout, FormatError> {
    const MOST: u64 = 1 << 51;
    if size > MOST {
        return Err(FormatError::TooLarge { size, most: MOST });
    }
    let usable = size / BLOCK * BLOCK;
    let journal = match config.journal_bytes {
        Some(asked) if asked < MIN_JOURNAL_BYTES => {
            return Err(FormatError::JournalTooSmall { asked, needed: MIN_JOURNAL_BYTES });
        }
        Some(asked) => asked / BLOCK * BLOCK,
        None => (usable / 16).clamp(DEFAULT_JOURNAL_MIN, DEFAULT_JOURNAL_MAX) / BLOCK * BLOCK,
    };
    let metadata_start = HEADER_BYTES + journal;
    let fit = |extents: u64| {
        let metadata_end = metadata_start + pages_for(extents) * PAGE_BYTES;
        let start = metadata_end.next_multiple_of(EXTENT);
        (metadata_end, start, start + extents * EXTENT)
    };
    let needed = fit(1).2;
    if usable < needed {
        return Err(FormatError::TooSmall { size, needed });
    }
    let mut extents = ((usable - metadata_start) / (EXTENT + PAGE_BYTES)).max(1);
    while fit(extents).2 > usable {
        extents -= 1;
    }
    let (metadata_end, start, end) = fit(extents);
    Ok(Layout {
        size: usable,
        journal: HEADER_BYTES..metadata_start,
        metadata: metadata_start..metadata_end,
        extents: start..end,
    })
}

fn pages_for(extents: u64) -> u64 {
    extents + extents / 8 + SPARE_PAGES_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_follow_each_other_and_fill_the_disk() {
        for size in [70 << 20, 6 << 30, 1 << 40, 8 << 40] {
            let l = layout(size, &StoreConfig::default()).expect("fits");
            assert!(l.journal.start >= HEADER_BYTES && l.journal.end == l.metadata.start);
            assert!(l.metadata.end <= l.extents.start && l.extents.end <= size);
            assert!(l.extents.start.is_multiple_of(EXTENT));
            assert!(u64::from(l.pages()) > u64::from(l.extent_count()));
            assert!(size - l.extents.end < 3 * EXTENT + l.metadata.end / 8, "space is wasted");
        }
    }

    #[test]
    fn the_ring_is_a_sixteenth_within_bounds() {
        let ring = |size| layout(size, &StoreConfig::default()).map(|l| l.journal.end - l.journal.start);
        assert_eq!(ring(100 << 20), Ok(64 << 20));
        assert_eq!(ring(6 << 30), Ok(384 << 20));
        assert_eq!(ring(1 << 40), Ok(4 << 30));
    }

    #[test]
    fn a_disk_or_a_ring_that_is_too_small_is_refused_with_the_numbers() {
        assert!(matches!(
            layout(1 << 20, &StoreConfig::default()),
            Err(FormatError::TooSmall { size: 1048576, .. })
        ));
        let config = StoreConfig { journal_bytes: Some(4096), ..StoreConfig::default() };
        assert!(matches!(layout(1 << 30, &config), Err(FormatError::JournalTooSmall { asked: 4096, .. })));
        assert!(matches!(layout(u64::MAX, &config), Err(FormatError::TooLarge { .. })));
    }
}
