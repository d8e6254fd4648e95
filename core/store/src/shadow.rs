//! Writing bulk once. Data of a long write does not go through the journal where it can go to a place of its own at once:
//! its extent's *shadow*, an extent of the disk that no page names yet. Its batch has the record without the data, and where it
//! lies; one flush makes both durable, so that only the data of the last batch can be torn, as in any batch.
//! A round of writing back then has nothing to write but the page, which names the shadow as the extent's place: of an extent
//! that had no place, or whose blocks the shadow replaces, all of them. Otherwise the blocks are written in place, as what is
//! only in the journal is.
//!
//! A shadow is filled from its front without a gap, by writes that follow each other. As long as a record of the log, or of one
//! that a crash may bring back, points to a block, the block is not written again, wherever it has come to lie. What is to go
//! there is left for a later round, and the record's data is copied to the journal first (`clear_the_way`). A place that is not
//! needed any more is given back when no record points to it.

use crate::api::StoreOutput;
use crate::disk::Disk;
use crate::format::page::Page;
use crate::layout::Layout;
use crate::overlay::{Content, OverlayBlock};
use crate::segment::Segment;
use crate::writeback::RoundExtent;
use alloc::{collections::BTreeSet, vec::Vec};
use holdfast_types::{
    BLOCK_BYTES, BlockRange, EXTENT_BLOCKS, ExtentIndex, LogPosition, Lsn, Record, RecordBody, SegmentKey,
};

/// Shadows of a disk at most: as many streams may write at once.
const SHADOWS_MOST: usize = 64;
/// The part of the disk that must be left for new data when one is taken.
const LEFT_PART: u64 = 16;

/// An extent's place to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shadow {
    pub location: u32,
    /// Blocks from its front on that were written, or ordered.
    pub filled: u32,
}

/// Blocks of a place on the disk that a record of the log points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    start: u32,
    count: u32,
    record: LogPosition,
}

impl Disk {
    /// Whether another shadow can be begun. What records are promised is not touched.
    fn has_room_for_a_shadow(&self, promised: u64) -> bool {
        let taken: usize = self.segments.values().map(|s| s.shadows.len()).sum();
        taken < SHADOWS_MOST && self.spare_extents() > promised + u64::from(self.extents.total()) / LEFT_PART
    }

    /// Where in its extent's shadow a record's data goes, if it is of that kind. Its append is promised `fresh` extents.
    pub(crate) fn place_directly(&mut self, key: SegmentKey, record: &Record, fresh: u64) -> Option<u64> {
        let RecordBody::Write(w) = &record.body else { return None };
        let (extent, start) = (w.range.start.extent(), w.range.start.in_extent());
        if w.range.count < self.config.direct_from_blocks || start + w.range.count > EXTENT_BLOCKS {
            return None;
        }
        let s = self.segments.get(&key).filter(|s| s.incomplete_since.is_none())?;
        let location = match s.shadows.get(&extent.0) {
            Some(shadow) if shadow.filled == start => shadow.location,
            None if start == 0 && self.has_room_for_a_shadow(fresh) => self.extents.take()?,
            _ => return None,
        };
        let s = self.segments.get_mut(&key)?;
        s.shadows.insert(extent.0, Shadow { location, filled: start + w.range.count });
        s.point_to(location, w.range, record.position);
        let at = self.superblock.layout.extent_offset(location) + u64::from(start) * BLOCK_BYTES as u64;
        Some(at)
    }

    /// Nothing of an extent waits any more: its shadow is not needed.
    pub(crate) fn retire_shadow(&mut self, key: SegmentKey, extent: u32) {
        let Some(s) = self.segments.get_mut(&key) else { return };
        let Some(shadow) = s.shadows.remove(&extent) else { return };
        self.leaving.push((key, s.life, shadow.location));
        self.let_go();
    }

    /// Gives places back that no record points to any more.
    pub(crate) fn let_go(&mut self) {
        let segments = &self.segments;
        let is_free = |(key, life, location): &mut (SegmentKey, u64, u32)| {
            segments.get(key).is_none_or(|s| s.life != *life || !s.pointing.contains_key(location))
        };
        let free: Vec<u32> = self.leaving.extract_if(.., is_free).map(|of| of.2).collect();
        free.into_iter().for_each(|location| self.extents.release(location));
    }

    /// Records do not point anywhere any more, and no crash can have them do so.
    pub(crate) fn forget_pointers(&mut self, key: SegmentKey, life: u64, gone: impl Fn(LogPosition) -> bool) {
        let Some(s) = self.living(key, life).filter(|s| !s.pointing.is_empty()) else { return };
        s.pointing.retain(|_, pointers| {
            pointers.retain(|p| !gone(p.record));
            !pointers.is_empty()
        });
        self.way_is_clear(key);
        self.let_go();
    }

    /// What was in the way of a segment's blocks may be there no more.
    pub(crate) fn way_is_clear(&mut self, key: SegmentKey) {
        let held = self.segments.get_mut(&key).map(|s| core::mem::take(&mut s.held));
        self.writeback_due |= held.is_some_and(|held| !held.is_empty());
    }

    /// Has record `lsn`, which is in place, and some that follow it copied to the journal, so that they point nowhere else.
    pub(crate) fn clear_the_way(&mut self, key: SegmentKey, lsn: Lsn, out: &mut Vec<StoreOutput>) {
        if !self.is_copying(key) {
            self.start_copy(key, Lsn(lsn.0 - 1), self.max_batch() as usize, out);
        }
    }

    /// Nothing of a copy's records from `lsn` on could be read. Data that is damaged is of no use to anybody: if the record is in
    /// place, it leaves the log.
    pub(crate) fn copy_is_damaged(&mut self, key: SegmentKey, lsn: Lsn) {
        let Some(s) = self.segments.get(&key).filter(|s| lsn <= s.settled) else { return };
        if s.entry(lsn).is_some_and(|e| e.direct.is_some()) {
            self.state_anew(key, Some(lsn));
        }
    }

    /// As long as places are short, has those given back that only records keep.
    pub(crate) fn free_places(&mut self, out: &mut Vec<StoreOutput>) {
        self.places_wanted = self.places_wanted && self.spare_extents() == 0;
        if !self.places_wanted {
            return;
        }
        let oldest = |(key, life, location): &(SegmentKey, u64, u32)| {
            let s = self.segments.get(key).filter(|s| s.life == *life)?;
            let lsn = s.pointing.get(location)?.iter().map(|p| p.record.lsn).min()?;
            (lsn <= s.settled).then_some((*key, lsn))
        };
        let records: Vec<(SegmentKey, Lsn)> = self.leaving.iter().filter_map(oldest).collect();
        records.into_iter().for_each(|(key, lsn)| self.clear_the_way(key, lsn, out));
    }

    /// Finds the shadows of a disk that is opened: where records point to and no page does. Of an extent's places the one with
    /// the newest record is its shadow.
    pub(crate) fn adopt_shadows(&mut self) {
        let layout = &self.superblock.layout;
        for (key, s) in &mut self.segments {
            let mut pointing: Vec<(LogPosition, u32, BlockRange)> = Vec::new();
            for entry in &s.log {
                let (Some(at), Some(range)) = (entry.direct, entry.record.range()) else { continue };
                let front = at.saturating_sub(u64::from(range.start.in_extent()) * BLOCK_BYTES as u64);
                let location = layout.location_at(front);
                pointing.extend(location.map(|location| (entry.record.position, location, range)));
            }
            for (record, location, range) in pointing.into_iter().rev() {
                let extent = range.start.extent().0;
                let is_place = s.extents.get(&extent).is_some_and(|e| e.location == Some(location));
                let is_new =
                    !s.pointing.contains_key(&location) && !is_place && self.extents.take_this(location);
                if is_new && !s.shadows.contains_key(&extent) {
                    s.shadows.insert(extent, Shadow { location, filled: EXTENT_BLOCKS });
                } else if is_new {
                    self.leaving.push((*key, s.life, location));
                }
                s.point_to(location, range, record);
            }
        }
    }
}

impl Segment {
    /// The place of an extent's shadow.
    pub(crate) fn shadow_of(&self, extent: ExtentIndex) -> Option<u32> {
        self.shadows.get(&extent.0).map(|s| s.location)
    }

    /// Whether it is worth waiting for the rest of what goes to an extent's shadow.
    pub(crate) fn is_filling(&self, extent: u32) -> bool {
        self.shadows.get(&extent).is_some_and(|s| s.filled < EXTENT_BLOCKS || !self.is_committed(s.location))
    }

    /// Whether everything that was written there stays: what is not committed may be cut, and else it would be in the way of
    /// older content until it is committed.
    fn is_committed(&self, location: u32) -> bool {
        self.pointed_to_by(location) <= Some(self.commit.min(self.durable))
    }

    /// Notes that a record of this range has its data in a place on the disk.
    fn point_to(&mut self, location: u32, range: BlockRange, record: LogPosition) {
        let pointer = Pointer { start: range.start.in_extent(), count: range.count, record };
        self.pointing.entry(location).or_default().push(pointer);
    }

    /// The last record that points to a place.
    fn pointed_to_by(&self, location: u32) -> Option<Lsn> {
        self.pointing.get(&location)?.iter().map(|p| p.record.lsn).max()
    }

    /// The last record that points to block `i` of a place.
    fn block_pointed_to_by(&self, location: u32, i: u32) -> Option<Lsn> {
        let holds = |p: &&Pointer| (p.start..p.start + p.count).contains(&i);
        self.pointing.get(&location)?.iter().filter(holds).map(|p| p.record.lsn).max()
    }
}

/// What a round is to do with an extent.
#[derive(Default)]
pub(crate) struct Choice {
    /// Where its blocks go. None: where it is to get its place.
    pub target: Option<Target>,
    /// The first record in the way that is in place.
    pub in_place: Option<Lsn>,
    /// Another one is not, and what is older than it has to be written first, wherever it lies.
    pub later: bool,
}

impl RoundExtent {
    /// Decides where the extent's blocks go, its page being known, and leaves those that something is in the way of.
    pub(crate) fn choose(&mut self, s: &mut Segment, layout: &Layout) -> Choice {
        let Some(page) = &self.page else { return Choice::default() };
        let shadow = s.shadow_of(self.extent).filter(|location| s.is_committed(*location));
        let shadow = shadow.map(|location| Target::new(location, layout));
        let moves = |t: &Target| page.location.is_none() || t.takes_over(s, page, self.whole, &self.blocks);
        let shadow = shadow.filter(moves);
        self.shadow = shadow.map(|t| t.location);
        let target = shadow.or(page.location.map(|location| Target::new(location, layout)));
        let mut choice = Choice { target, ..Choice::default() };
        let mut left = BTreeSet::new();
        for (i, b) in &self.blocks {
            let Some(lsn) = target.and_then(|t| t.record_in_the_way(s, *i, b)) else { continue };
            left.insert(*i);
            if lsn <= s.settled {
                choice.in_place = Some(choice.in_place.map_or(lsn, |first| lsn.min(first)));
            } else {
                choice.later = true;
            }
        }
        self.blocks.retain(|(i, _)| !left.contains(i));
        self.taken.retain(|(i, ..)| !left.contains(i));
        self.left_some = !left.is_empty();
        if let (Some(_), Some(shadow)) = (self.shadow, s.shadows.get_mut(&self.extent.0)) {
            // It becomes the extent's place: no more is written to it.
            shadow.filled = EXTENT_BLOCKS;
        }
        // Once is enough, until something changes.
        let is_new = self.left_some && s.held.insert(self.extent.0);
        choice.later &= is_new;
        choice
    }
}

/// Where an extent's blocks are to be written in place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub location: u32,
    /// Its first byte on the disk.
    pub start: u64,
}

impl Target {
    fn new(location: u32, layout: &Layout) -> Self {
        Self { location, start: layout.extent_offset(location) }
    }

    /// Whether it has block `i` already.
    pub(crate) fn has(&self, i: u32, block: &OverlayBlock) -> bool {
        block.direct == Some(self.start + u64::from(i) * BLOCK_BYTES as u64)
    }

    /// The record that points to what this block would be written over, unless it says the same.
    fn record_in_the_way(&self, s: &Segment, i: u32, block: &OverlayBlock) -> Option<Lsn> {
        let is_written = !matches!(block.content, Content::Absent) && !self.has(i, block);
        s.block_pointed_to_by(self.location, i).filter(|lsn| is_written && *lsn != block.lsn)
    }

    /// Whether an extent that has a place can move here with what there is to write: the shadow has something of it, and no
    /// block that stays is left behind.
    fn takes_over(
        &self,
        s: &Segment,
        page: &Page,
        whole: Option<Lsn>,
        blocks: &[(u32, OverlayBlock)],
    ) -> bool {
        let can_come = |(i, b): &&(u32, OverlayBlock)| self.record_in_the_way(s, *i, b).is_none();
        let coming: BTreeSet<u32> = blocks.iter().filter(can_come).map(|(i, _)| *i).collect();
        let is_cleared = |i: u32| whole.is_some_and(|lsn| page.lsns[i as usize] < lsn);
        blocks.iter().any(|(i, b)| self.has(*i, b))
            && (0..EXTENT_BLOCKS).all(|i| !page.is_present(i) || coming.contains(&i) || is_cleared(i))
    }
}
