//! Extent pages that were durable and are damaged. With a page it is lost which blocks its extent holds and where they are; no
//! read may take that for an extent of zeros, or an older page for the newest. Its copy is *incomplete* from then on, as one
//! that has been away (replication.md §1, "resync"): the store reads no more of it for an owner, S goes on without it, and an
//! owner elsewhere compares all of it and sends what it lacks. It costs a copy of one segment, and not the disk.
//!
//! That the copy is incomplete is durable before any page is written: a page written in place of the damaged one leaves nothing
//! by which a later run would find out.

use crate::api::{StoreEvent, StoreOutput};
use crate::batch::Urgent;
use crate::disk::Disk;
use crate::format::page::{Page, Remains};
use crate::replay::Found;
use alloc::{boxed::Box, vec::Vec};
use holdfast_types::{ExtentIndex, Lsn, SegmentKey};

impl Disk {
    /// A page was found damaged while the disk is opened. Of no living copy it is waste; so is one of nothing but tombstones
    /// that the segment's floor stands for, which was being erased.
    pub(crate) fn page_lost_before(
        &mut self,
        page: u32,
        lost: &Remains,
        found: &mut Vec<Found>,
        out: &mut Vec<StoreOutput>,
    ) {
        let Remains { key, life, extent, sequence, .. } = *lost;
        let Some(s) = self.segments.get(&key).filter(|s| s.life == life) else { return };
        let is_replaced = found.iter().any(|f| f.is_of(key, life, extent) && f.sequence() > sequence);
        if is_replaced || (!lost.has_blocks && lost.newest <= s.floor) {
            return;
        }
        found.retain(|f| !f.is_of(key, life, extent));
        self.make_incomplete(key, life);
        if self.pages.take_this(page) {
            self.lost_pages.push(page);
        }
        out.push(StoreOutput::Event(StoreEvent::PageDamaged { page, segment: key, extent }));
    }

    /// A page was found damaged, or could not be read. The empty one that takes its place, with the extent of the disk that it
    /// had: the next round writes it. None: the copy was given up meanwhile.
    pub(crate) fn page_lost(
        &mut self,
        key: SegmentKey,
        life: u64,
        extent: ExtentIndex,
        out: &mut Vec<StoreOutput>,
    ) -> Option<Box<Page>> {
        let s = self.living(key, life)?;
        let entry = s.extents.get_mut(&extent.0)?;
        entry.is_lost = true;
        let entry = *entry;
        s.hollow.insert(extent.0);
        let mut empty = Page::empty(key, life, extent);
        empty.location = entry.location;
        self.cache.put(entry.page, empty.clone());
        self.dirty.insert(key);
        self.make_incomplete(key, life);
        out.push(StoreOutput::Event(StoreEvent::PageDamaged { page: entry.page, segment: key, extent }));
        Some(empty)
    }

    fn make_incomplete(&mut self, key: SegmentKey, life: u64) {
        let next = self.ring.next().sequence;
        let Some(s) = self.living(key, life).filter(|s| s.incomplete_since != Some(Lsn(0))) else { return };
        s.incomplete_since = Some(Lsn(0));
        s.state_queued = true;
        self.journal.urgent.push_back(Urgent::State { key, life, hold: None });
        self.unrecorded.push((key, life, next));
    }
}
