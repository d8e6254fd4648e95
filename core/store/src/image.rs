//! Blocks that come from another copy: images of a resync, and good copies of damaged blocks. They go through
//! the overlay like committed records, and are answered when their extents were written back.

use crate::api::StoreOutput;
use crate::disk::{Disk, bad_image_blocks, refuse};
use crate::overlay::{Content, OverlayBlock};
use crate::read::JobKind;
use alloc::{collections::BTreeSet, vec::Vec};
use holdfast_types::{
    BlockRange, ExtentIndex, ImageBlock, Lsn, OrderToken, SEGMENT_EXTENTS, SegmentKey, StoreOutcome,
};

impl Disk {
    /// The extents with anything newer than `since`.
    pub(crate) fn changed(&self, key: SegmentKey, since: Lsn) -> Vec<ExtentIndex> {
        let Some(s) = self.segments.get(&key) else { return Vec::new() };
        let of_pages = s.extents.iter().filter(|(_, e)| e.newest > since).map(|(i, _)| *i);
        let of_overlay = s.overlay.extents.iter().filter(|(_, e)| e.newest() > since).map(|(i, _)| *i);
        let mut changed: BTreeSet<u32> = of_pages.chain(of_overlay).collect();
        if s.floor > since {
            changed.extend((0..SEGMENT_EXTENTS).filter(|i| !s.extents.contains_key(i)));
        }
        changed.into_iter().map(ExtentIndex).collect()
    }

    /// Takes an image's blocks; they are in place when their extents were written back.
    pub(crate) fn install(
        &mut self,
        key: SegmentKey,
        token: OrderToken,
        blocks: Vec<ImageBlock>,
        out: &mut Vec<StoreOutput>,
    ) {
        assert!(
            blocks.iter().all(|b| BlockRange::new(b.block, 1).in_segment()),
            "an image lies in its segment"
        );
        let bad = bad_image_blocks(&blocks);
        if !bad.is_empty() {
            let outcome = StoreOutcome::BadBlocks { blocks: bad };
            return out.push(StoreOutput::Done { segment: key, token, outcome });
        }
        let Some(s) = self.segments.get(&key) else { return };
        let extents: BTreeSet<u32> = blocks.iter().map(|b| b.block.extent().0).collect();
        let with_data: BTreeSet<u32> =
            blocks.iter().filter(|b| b.data.is_some()).map(|b| b.block.extent().0).collect();
        let fresh = with_data.iter().filter(|e| s.needs_place(**e)).count() as u64;
        let placeless = with_data.iter().any(|e| !s.has_place(*e));
        if fresh > self.spare_extents() || (placeless && self.has_unbacked_promises()) {
            let refusal = self.no_room();
            return refuse(key, token, refusal, out);
        }
        // The pages carry the copy's life: its state must be in the journal before they count.
        self.ensure_stated(key);
        let Some(s) = self.segments.get_mut(&key) else { return };
        for b in blocks {
            let content = b.data.map_or(Content::Absent, Content::Memory);
            let state =
                OverlayBlock { lsn: b.lsn, crc: b.crc, content, heal: false, image: true, direct: None };
            s.overlay.insert(b.block.extent(), b.block.in_extent(), state);
        }
        for extent in &with_data {
            self.pending_add(key, *extent);
        }
        self.dirty.insert(key);
        let kind = JobKind::Install { extents: with_data.into_iter().collect() };
        let Some(id) = self.new_job(key, Some(token), kind) else { return };
        if let Some(job) = self.jobs.get_mut(&id) {
            job.waiting += extents.len() as u32;
        }
        for extent in extents {
            self.extent_waiters.entry((key, extent)).or_default().push(id);
        }
        self.job_step(id, out);
    }

    /// Puts a good copy over a damaged block, in place or in the journal, if the block's state is still the copy's.
    pub(crate) fn place_heal(&mut self, id: u64, extent: ExtentIndex) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let JobKind::Heal { block, placed } = &mut job.kind else { return };
        let Some(s) = self.segments.get_mut(&job.key) else { return };
        let i = block.block.in_extent();
        let page = s.extents.get(&extent.0).and_then(|e| self.cache.get(e.page));
        let in_place = page.is_some_and(|p| p.lsns[i as usize] == block.lsn && p.is_present(i));
        let waits = s.overlay.extent(extent).and_then(|o| o.blocks.get(&i)).filter(|b| b.lsn == block.lsn);
        let in_journal = waits.is_some_and(|b| matches!(b.content, Content::Journal(_)));
        let Some(data) = block.data.clone().filter(|_| in_place || in_journal) else { return };
        let content = Content::Memory(data);
        let state =
            OverlayBlock { lsn: block.lsn, crc: block.crc, content, heal: true, image: true, direct: None };
        if s.overlay.insert(extent, i, state) {
            *placed = true;
            job.waiting += 1;
            let key = job.key;
            self.dirty.insert(key);
            self.extent_waiters.entry((key, extent.0)).or_default().push(id);
        }
    }
}
