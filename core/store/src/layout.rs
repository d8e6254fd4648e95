//! Where things lie on a disk: superblocks, journal ring, extent pages, extents, in that order. The ranges are
//! computed once, when the disk is formatted, and kept in the superblock. A device that was found larger than that
//! gets further pages and extents behind what it has, as a piece: nothing that is there moves.

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
/// Of the pages, what is written once before a file becomes a disk.
const PREWRITTEN_PAGES_MOST: u64 = 1 << 30;
/// Each page has two slots.
pub(crate) const PAGE_BYTES: u64 = 2 * BLOCK;
/// Pages beyond one for each extent on the disk, for tombstones of extents that hold no space.
const SPARE_PAGES_MIN: u64 = 64;

/// A device that is larger by less is left as it is.
pub const GROWTH_MIN_BYTES: u64 = 64 << 20;
/// So often a device can grow.
pub const GROWTHS_MAX: usize = 32;

/// Pages, then the extents that they are for: what a larger device added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Extent pages, numbered on from those before.
    pub metadata: Range<u64>,
    /// Extents, numbered on from those before.
    pub extents: Range<u64>,
}

impl Piece {
    /// So many extents from `begin` on. There is a page for each, an eighth more, and `spare`.
    fn of(begin: u64, extents: u64, spare: u64) -> Piece {
        let pages_end = begin + (extents + extents / 8 + spare) * PAGE_BYTES;
        let first = pages_end.next_multiple_of(EXTENT);
        Piece { metadata: begin..pages_end, extents: first..first + extents * EXTENT }
    }

    /// As many as fit before `end`, where one does.
    fn filling(begin: u64, end: u64, spare: u64) -> Piece {
        let mut extents = ((end - begin) / (EXTENT + PAGE_BYTES)).max(1);
        while Piece::of(begin, extents, spare).extents.end > end {
            extents -= 1;
        }
        Piece::of(begin, extents, spare)
    }
}

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
    /// What was added since, at most [`GROWTHS_MAX`].
    pub grown: Vec<Piece>,
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
    fn metadata_parts(&self) -> impl Iterator<Item = &Range<u64>> {
        core::iter::once(&self.metadata).chain(self.grown.iter().map(|p| &p.metadata))
    }
    fn extent_parts(&self) -> impl Iterator<Item = &Range<u64>> {
        core::iter::once(&self.extents).chain(self.grown.iter().map(|p| &p.extents))
    }
    /// How many pages there are.
    pub fn pages(&self) -> u32 {
        self.metadata_parts().map(|part| (part.end - part.start) / PAGE_BYTES).sum::<u64>() as u32
    }
    /// How many extents there are.
    pub fn extent_count(&self) -> u32 {
        self.extent_parts().map(|part| (part.end - part.start) / EXTENT).sum::<u64>() as u32
    }
    /// Takes the rest of a device that has grown to `size`. Whether anything was added.
    pub fn grow(&mut self, size: u64) -> bool {
        let size = size.min(MOST) / BLOCK * BLOCK;
        if size < self.size + GROWTH_MIN_BYTES || self.grown.len() == GROWTHS_MAX {
            return false;
        }
        let begin = self.extent_parts().last().map_or(0, |part| part.end);
        self.grown.push(Piece::filling(begin, size, 0));
        self.size = size;
        true
    }
    /// What a shell writes once, with anything, before a file becomes a disk: a write to it later then changes no metadata
    /// of the file system's. Pages are many on a large disk, and written in rounds that nobody waits for.
    pub fn prewrite(&self) -> Vec<Range<u64>> {
        let all = 0..self.metadata.end.min(self.metadata.start + PREWRITTEN_PAGES_MOST);
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
            && self.grown.len() <= GROWTHS_MAX
            && self.pieces_are_sound()
    }
    fn pieces_are_sound(&self) -> bool {
        let mut end = self.extents.end;
        self.grown.iter().all(|Piece { metadata, extents }| {
            let bounds = [end, metadata.start, metadata.end, extents.start, extents.end, self.size];
            end = extents.end;
            bounds.is_sorted()
                && metadata.start.is_multiple_of(BLOCK)
                && (metadata.end - metadata.start).is_multiple_of(PAGE_BYTES)
                && extents.start.is_multiple_of(EXTENT)
                && (extents.end - extents.start).is_multiple_of(EXTENT)
        })
    }
    /// Where slot `slot` of page `page` lies.
    pub(crate) fn page_offset(&self, page: u32, slot: bool) -> u64 {
        self.page_place(page).0 + if slot { BLOCK } else { 0 }
    }
    /// Where a page lies, and how many pages from it on follow each other without a gap.
    pub(crate) fn page_place(&self, page: u32) -> (u64, u64) {
        place(self.metadata_parts(), PAGE_BYTES, page).unwrap_or((self.size, 0))
    }
    /// Which extent starts at byte `offset`.
    pub(crate) fn location_at(&self, offset: u64) -> Option<u32> {
        let mut before = 0;
        for part in self.extent_parts() {
            if part.contains(&offset) && (offset - part.start).is_multiple_of(EXTENT) {
                return u32::try_from(before + (offset - part.start) / EXTENT).ok();
            }
            before += (part.end - part.start) / EXTENT;
        }
        None
    }
    /// Where extent `location` starts.
    pub(crate) fn extent_offset(&self, location: u32) -> u64 {
        place(self.extent_parts(), EXTENT, location).map_or(self.size, |(offset, _)| offset)
    }
}

/// Where a thing of `bytes` lies, by its number throughout the parts, and how many there are from it to its part's end.
/// One that is in no part lies behind the device's end for its callers, where the disk refuses every order.
fn place<'a>(parts: impl Iterator<Item = &'a Range<u64>>, bytes: u64, number: u32) -> Option<(u64, u64)> {
    let mut number = u64::from(number);
    for part in parts {
        let count = (part.end - part.start) / bytes;
        if number < count {
            return Some((part.start + number * bytes, count - number));
        }
        number -= count;
    }
    None
}

/// The largest device that is used throughout.
const MOST: u64 = 1 << 51;

/// Divides a device of `size` bytes.
pub fn layout(size: u64, config: &StoreConfig) -> Result<Layout, FormatError> {
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
    let needed = Piece::of(metadata_start, 1, SPARE_PAGES_MIN).extents.end;
    if usable < needed {
        return Err(FormatError::TooSmall { size, needed });
    }
    let Piece { metadata, extents } = Piece::filling(metadata_start, usable, SPARE_PAGES_MIN);
    Ok(Layout { size: usable, journal: HEADER_BYTES..metadata_start, metadata, extents, grown: Vec::new() })
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
    fn a_device_that_grows_gets_pages_and_extents_behind_those_that_it_has() {
        let mut l = layout(1 << 30, &StoreConfig::default()).expect("fits");
        let before = l.clone();
        assert!(!l.grow((1 << 30) + GROWTH_MIN_BYTES - 1) && l == before, "a little is left alone");
        for (n, size) in [2 << 30, (2 << 30) + GROWTH_MIN_BYTES, 900 << 30].into_iter().enumerate() {
            let (pages, extents) = (l.pages(), l.extent_count());
            assert!(l.grow(size) && l.is_sound() && l.grown.len() == n + 1);
            assert!(l.pages() - pages >= l.extent_count() - extents, "a page for each extent");
            let last = l.extent_offset(l.extent_count() - 1) + EXTENT;
            assert!(last <= size && size - last < 2 * EXTENT, "space is wasted");
            // What was there lies where it lay, and what is new lies behind it.
            assert_eq!(
                l.extent_offset(before.extent_count() - 1),
                before.extent_offset(before.extent_count() - 1)
            );
            assert_eq!(l.page_offset(before.pages() - 1, true), before.page_offset(before.pages() - 1, true));
            assert!(l.page_offset(pages, false) >= l.extent_offset(extents - 1) + EXTENT);
            assert_eq!(l.page_place(pages - 1).1, 1, "reading pages stops at the end of a part");
        }
        assert_eq!((l.page_offset(l.pages(), false), l.extent_offset(l.extent_count())), (l.size, l.size));
        (0..GROWTHS_MAX as u64).for_each(|n| _ = l.grow((1000 << 30) + n * GROWTH_MIN_BYTES));
        assert!(l.grown.len() == GROWTHS_MAX && !l.grow(2000 << 30) && l.is_sound());
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
