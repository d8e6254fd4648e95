//! Which extents a round of writing back takes, when one starts, and which tombstones give their pages back.

use crate::api::StoreOutput;
use crate::batch::Urgent;
use crate::disk::Disk;
use crate::overlay::OverlayBlock;
use crate::segment::Segment;
use crate::writeback::{Round, RoundExtent, Stage};
use alloc::{collections::BTreeMap, collections::BTreeSet, collections::VecDeque, vec::Vec};
use holdfast_types::{ExtentIndex, SegmentKey, Time};

/// The most blocks of a round.
const ROUND_BLOCKS: usize = 4096;
/// The most extents of a round: each costs a page.
pub(crate) const ROUND_EXTENTS: usize = 1024;

impl Disk {
    /// Starts a round if there is a reason and none is in progress.
    pub(crate) fn start_round(&mut self, now: Time, out: &mut Vec<StoreOutput>) {
        let segments = &self.segments;
        self.unrecorded.retain(|(key, life, _)| segments.get(key).is_some_and(|s| s.life == *life));
        if self.round.is_some() || !self.unrecorded.is_empty() {
            return;
        }
        self.advance_checkpoint();
        let half = self.config.dirty_limit_bytes as u64 / 2;
        let full = self.ring.used() > self.ring.capacity() / 2;
        let all = self.writeback_due
            || !self.checkpoint.is_empty()
            || !self.lost_pages.is_empty()
            || (!self.dirty.is_empty() && (full || self.dirty_bytes() > half || self.log_memory > half));
        if !all && self.extent_waiters.is_empty() {
            return;
        }
        if all {
            // What was left out may be left out again: the timer is not to turn in circles over it.
            self.last_commit = now;
            for (extent, jobs) in core::mem::take(&mut self.postponed) {
                self.extent_waiters.entry(extent).or_default().extend(jobs);
            }
        }
        let extents = if all { self.select_all() } else { self.select_waited_for() };
        self.writeback_due &= !all;
        let mut waiters = BTreeMap::new();
        for extent in extents.iter().map(|e| (e.key, e.extent.0)) {
            waiters.extend(self.extent_waiters.remove_entry(&extent));
        }
        if extents.is_empty() && self.lost_pages.is_empty() {
            self.last_commit = now;
            self.checkpoint.clear();
            // Nothing of these extents waits any more, or their segments are gone.
            let waiting = core::mem::take(&mut self.extent_waiters);
            waiting.into_values().flatten().for_each(|id| self.extent_written(id, out));
            return;
        }
        let marks = self.marks_needed(&extents);
        for key in &marks {
            if let Some(s) = self.segments.get(key) {
                self.journal.urgent.push_back(Urgent::Mark { key: *key, life: s.life });
            }
        }
        let next = self.ring.next().sequence;
        let erased = self.fold_tombstones();
        self.round = Some(Round {
            states: erased.keys().map(|key| (*key, next)).collect(),
            erased: erased.into_values().flatten().chain(core::mem::take(&mut self.lost_pages)).collect(),
            dropped: Vec::new(),
            stage: Stage::LoadingPages,
            extents,
            queued: VecDeque::new(),
            outstanding: 0,
            marks,
            waiters,
            allocated: 0,
            wrote_data: false,
        });
        self.load_pages();
        self.advance_round(out);
    }

    /// What jobs wait for goes first. Then it goes on where the last round ended, or extents that are written all the
    /// time would keep others from their turn, and these the tail of the journal.
    fn select_all(&mut self) -> Vec<RoundExtent> {
        let segments = &self.segments;
        self.dirty.retain(|k| segments.get(k).is_some_and(|s| !s.overlay.is_empty() || !s.hollow.is_empty()));
        let waited: Vec<(SegmentKey, u32)> = self.extent_waiters.keys().copied().collect();
        let dirty = self.dirty.iter().filter_map(|k| Some((*k, self.segments.get(k)?)));
        let all = dirty.flat_map(|(k, s)| s.overlay.extents.keys().chain(&s.hollow).map(move |e| (k, *e)));
        let last = self.last_selected;
        let in_turn = all.clone().filter(|e| Some(*e) > last).chain(all.filter(|e| Some(*e) <= last));
        let mut seen = BTreeSet::new();
        let mut extents = Vec::new();
        let mut blocks = 0;
        // What is still being filled is soon whole; what a record is in the way of is due when it is not.
        let patient = !self.writeback_due && self.checkpoint.is_empty();
        let waits = |s: &Segment, extent: &u32| s.is_filling(*extent) || s.held.contains(extent);
        let waits = |key: &SegmentKey, extent: &u32| segments.get(key).is_some_and(|s| waits(s, extent));
        let in_turn = in_turn.filter(|(key, extent)| !patient || !waits(key, extent));
        for (key, extent) in waited.into_iter().chain(in_turn) {
            if extents.len() >= ROUND_EXTENTS || blocks >= ROUND_BLOCKS {
                break;
            }
            if seen.insert((key, extent))
                && let Some(part) = self.select(key, extent)
            {
                blocks += part.blocks.len();
                extents.push(part);
            }
        }
        self.last_selected = extents.last().map(|e| (e.key, e.extent.0));
        extents
    }

    fn select_waited_for(&self) -> Vec<RoundExtent> {
        let parts = self.extent_waiters.keys().filter_map(|(key, extent)| self.select(*key, *extent));
        parts.take(ROUND_EXTENTS).collect()
    }

    /// What of an extent may be written in place: committed, and durable in the journal, or from an image.
    fn select(&self, key: SegmentKey, extent: u32) -> Option<RoundExtent> {
        let s = self.segments.get(&key)?;
        let ready = s.commit.min(s.durable);
        let overlay = s.overlay.extents.get(&extent);
        let whole = overlay.and_then(|o| o.whole).filter(|w| *w <= ready);
        let blocks: Vec<(u32, OverlayBlock)> = overlay
            .into_iter()
            .flat_map(|o| &o.blocks)
            .filter(|(_, b)| b.image || b.lsn <= ready)
            .map(|(i, b)| (*i, b.clone()))
            .collect();
        if whole.is_none() && blocks.is_empty() && !s.hollow.contains(&extent) {
            return None;
        }
        let taken = blocks.iter().map(|(i, b)| (*i, b.lsn, b.heal)).collect();
        Some(RoundExtent {
            key,
            life: s.life,
            extent: ExtentIndex(extent),
            old: s.extents.get(&extent).copied(),
            whole,
            blocks,
            taken,
            page: None,
            page_number: None,
            shadow: None,
            new_location: None,
            unpromised: false,
            freed_location: None,
            replaced: None,
            left_some: false,
        })
    }

    fn marks_needed(&self, extents: &[RoundExtent]) -> BTreeSet<SegmentKey> {
        let needs = |e: &&RoundExtent| {
            let newest = e.blocks.iter().filter(|(_, b)| !b.image).map(|(_, b)| b.lsn).chain(e.whole).max();
            self.segments.get(&e.key).is_some_and(|s| newest > Some(s.marked))
        };
        extents.iter().filter(needs).map(|e| e.key).collect()
    }

    /// When pages run short, tombstones of complete copies give theirs back: an extent without a page counts as
    /// changed at the segment's floor. Those of incomplete copies keep late images out; they go only when data would
    /// have no page without it, and what then comes late is found when the copy is compared.
    fn fold_tombstones(&mut self) -> BTreeMap<SegmentKey, Vec<u32>> {
        let mut folded: BTreeMap<SegmentKey, Vec<u32>> = BTreeMap::new();
        let spare = self.pages.total() - self.extents.total();
        if self.pages.free() >= self.extents.free() + spare / 2 {
            return folded;
        }
        let is_urgent = self.pages.free() < self.extents.free();
        let mut left = ROUND_EXTENTS;
        let folding = |(_, s): &(&SegmentKey, &mut Segment)| is_urgent || s.incomplete_since.is_none();
        for (key, s) in self.segments.iter_mut().filter(folding) {
            let (settled, overlay, pending) = (s.settled, &s.overlay, &s.pending);
            let floor = &mut s.floor;
            s.extents.retain(|extent, e| {
                let folds = left > 0
                    && e.location.is_none()
                    && e.present == 0
                    && e.newest <= settled
                    && !overlay.extents.contains_key(extent)
                    && !pending.contains_key(extent);
                if folds {
                    left -= 1;
                    *floor = (*floor).max(e.newest);
                    folded.entry(*key).or_default().push(e.page);
                }
                !folds
            });
            if folded.contains_key(key) {
                let life = s.life;
                self.journal.urgent.push_back(Urgent::State { key: *key, life, hold: None });
            }
        }
        folded.values().flatten().for_each(|page| self.cache.remove(*page));
        folded
    }
}
