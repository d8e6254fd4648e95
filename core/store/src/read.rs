//! Reading. A job resolves each block's state once its extent's page is here: absent, in memory, or somewhere on
//! the disk with a checksum. What does not pass its checksum is resolved again: when its state has changed
//! meanwhile, the new one is read; when not, the block is bad. Thus a read that races with writing in place
//! reports nothing false.

use crate::api::StoreOutput;
use crate::batch::Copy;
use crate::disk::{Disk, Purpose, bad_image_blocks, refuse};
use crate::format::page::Page;
use crate::layout::BLOCK;
use crate::segment::by_extent;
use crate::slot::{Slot, SlotState, Source, digests, image, pieces, runs, slots_above, view};
use alloc::{boxed::Box, collections::BTreeMap, collections::BTreeSet, vec, vec::Vec};
use bytes::Bytes;
use holdfast_checksum::crc32c;
use holdfast_types::{
    BLOCK_BYTES, BlockIndex, BlockRange, DiskFault, DiskOrderKind, EXTENT_BLOCKS, ExtentIndex, ImageBlock,
    Lsn, OrderToken, Record, SegmentKey, StoreOutcome, StoreRefusal,
};

/// What a job is for.
#[derive(Debug)]
pub(crate) enum JobKind {
    Read {
        range: BlockRange,
    },
    Status {
        range: BlockRange,
        present: BTreeMap<u32, [u64; EXTENT_BLOCKS as usize / 64]>,
    },
    Image {
        extent: ExtentIndex,
        since: Lsn,
    },
    Digest {
        extent: ExtentIndex,
        forced: bool,
    },
    Heal {
        block: ImageBlock,
        placed: bool,
    },
    Install {
        extents: Vec<u32>,
    },
    Log {
        records: Vec<Record>,
    },
    /// Records that are to be copied forward in the journal.
    Copy {
        first: Lsn,
        records: Vec<Record>,
    },
}

impl JobKind {
    pub(crate) fn status(range: BlockRange) -> Self {
        JobKind::Status { range, present: BTreeMap::new() }
    }
    /// Whether an owner wants to know what the copy holds: an incomplete one does not know.
    fn is_of_owner(&self) -> bool {
        matches!(self, JobKind::Read { .. } | JobKind::Status { .. })
    }
}

/// Something under way that ends in an outcome.
#[derive(Debug)]
pub(crate) struct Job {
    pub key: SegmentKey,
    pub life: u64,
    pub token: Option<OrderToken>,
    pub kind: JobKind,
    pub slots: Vec<Slot>,
    /// Disk orders and pages and extents that it waits for.
    pub waiting: u32,
    /// Which slots, or which record, a disk order reads for.
    pub reads: BTreeMap<u64, Vec<usize>>,
    pub next_read: u64,
    /// The committed position when the blocks were listed: each shows that state or a later one. It stays when some are
    /// looked at again, as the others are not.
    pub at: Lsn,
}

impl Disk {
    pub(crate) fn new_job(
        &mut self,
        key: SegmentKey,
        token: Option<OrderToken>,
        kind: JobKind,
    ) -> Option<u64> {
        let life = self.segments.get(&key)?.life;
        let id = self.next_job;
        self.next_job += 1;
        let job = Job {
            key,
            life,
            token,
            kind,
            slots: Vec::new(),
            waiting: 1,
            reads: BTreeMap::new(),
            next_read: 0,
            at: Lsn(0),
        };
        self.jobs.insert(id, job);
        Some(id)
    }

    /// Begins a job that resolves blocks.
    pub(crate) fn start_job(
        &mut self,
        key: SegmentKey,
        token: OrderToken,
        kind: JobKind,
        out: &mut Vec<StoreOutput>,
    ) {
        let range = match &kind {
            JobKind::Read { range } | JobKind::Status { range, .. } => *range,
            JobKind::Image { extent, .. } | JobKind::Digest { extent, .. } => {
                BlockRange::new(extent.first_block(), EXTENT_BLOCKS)
            }
            JobKind::Heal { block, .. } => BlockRange::new(block.block, 1),
            JobKind::Install { .. } | JobKind::Log { .. } | JobKind::Copy { .. } => return,
        };
        assert!(range.in_segment(), "a range lies in its segment");
        if let JobKind::Heal { block, .. } = &kind
            && !bad_image_blocks(core::slice::from_ref(block)).is_empty()
        {
            let outcome = StoreOutcome::BadBlocks { blocks: vec![block.block] };
            return out.push(StoreOutput::Done { segment: key, token, outcome });
        }
        if kind.is_of_owner() && self.segments.get(&key).is_some_and(|s| s.incomplete_since.is_some()) {
            return refuse(key, token, StoreRefusal::Incomplete, out);
        }
        let force = match &kind {
            JobKind::Digest { extent, .. } => {
                self.segments.get(&key).and_then(|s| s.overlay.extent(*extent)).map(|_| extent.0)
            }
            _ => None,
        };
        let slots = match &kind {
            JobKind::Read { range } => range.blocks().map(Slot::new).collect(),
            _ => Vec::new(),
        };
        let Some(id) = self.new_job(key, Some(token), kind) else { return };
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.slots = slots;
        if let Some(extent) = force {
            self.extent_waiters.entry((key, extent)).or_default().push(id);
            return;
        }
        for extent in range.extents() {
            self.resolve(id, extent, out);
        }
        self.job_step(id, out);
    }

    /// One thing that a job waited for is there.
    pub(crate) fn job_step(&mut self, id: u64, out: &mut Vec<StoreOutput>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.waiting -= 1;
        if job.waiting == 0 {
            self.finish_job(id, out);
        }
    }

    /// The extent that a job waited for was written back.
    pub(crate) fn extent_written(&mut self, id: u64, out: &mut Vec<StoreOutput>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if let JobKind::Digest { extent, forced } = &mut job.kind {
            *forced = true;
            let extent = *extent;
            self.resolve(id, extent, out);
        }
        self.job_step(id, out);
    }

    /// Resolves what a job has pending in an extent, or has it wait for the extent's page.
    fn resolve(&mut self, id: u64, extent: ExtentIndex, out: &mut Vec<StoreOutput>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(segment) = self.segments.get(&job.key).filter(|s| s.life == job.life) else { return };
        let entry = segment.extents.get(&extent.0).copied();
        let page = entry.and_then(|e| self.cache.get(e.page));
        if let (Some(e), None) = (entry, page) {
            job.waiting += 1;
            let (key, life) = (job.key, job.life);
            let waiters = self.page_waiters.entry((key, extent.0)).or_default();
            waiters.push(id);
            if waiters.len() == 1 {
                self.read_page(key, life, extent.0, e.page, e.slot, e.sequence, out);
            }
            return;
        }
        let at = entry.and_then(|e| e.location).map(|l| self.superblock.layout.extent_offset(l));
        match &mut job.kind {
            JobKind::Status { range, present } => {
                let part = by_extent(*range).find(|(e, _)| *e == extent).map(|(_, p)| p);
                let bits = present.entry(extent.0).or_default();
                for i in part.into_iter().flat_map(BlockRange::blocks).map(BlockIndex::in_extent) {
                    let absent = matches!(view(segment, page, at, extent, i).source, Source::Absent);
                    bits[i as usize / 64] |= u64::from(!absent) << (i % 64);
                }
                return;
            }
            JobKind::Image { since, .. } if job.slots.is_empty() => {
                let floor = if entry.is_none() { segment.floor } else { Lsn(0) };
                job.at = segment.commit;
                job.slots = slots_above(segment, page, extent, *since, floor);
            }
            JobKind::Digest { .. } if job.slots.is_empty() => {
                job.at = segment.commit;
                job.slots = slots_above(segment, page, extent, Lsn(0), Lsn(0));
            }
            JobKind::Heal { .. } => return self.place_heal(id, extent),
            _ => {}
        }
        for slot in job.slots.iter_mut().filter(|s| s.block.extent() == extent) {
            if matches!(slot.state, SlotState::Pending) {
                slot.take(view(segment, page, at, extent, slot.block.in_extent()));
            }
        }
        self.order_reads(id, extent, out);
    }

    /// Orders reads for the slots that were resolved to places on the disk; adjacent blocks go together.
    fn order_reads(&mut self, id: u64, extent: ExtentIndex, out: &mut Vec<StoreOutput>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let busy: BTreeSet<usize> = job.reads.values().flatten().copied().collect();
        let mut runs: Vec<(u64, Vec<usize>)> = Vec::new();
        for (i, slot) in job.slots.iter().enumerate() {
            let SlotState::Reading(at) = slot.state else { continue };
            if slot.block.extent() != extent || busy.contains(&i) {
                continue;
            }
            match runs.last_mut() {
                Some((start, run)) if *start + run.len() as u64 * BLOCK == at => run.push(i),
                _ => runs.push((at, vec![i])),
            }
        }
        let mut orders = Vec::new();
        for (offset, run) in runs {
            let read = job.next_read;
            job.next_read += 1;
            job.waiting += 1;
            orders.push((read, offset, run.len() * BLOCK_BYTES));
            job.reads.insert(read, run);
        }
        for (read, offset, len) in orders {
            self.begin(DiskOrderKind::Read { offset, len }, Purpose::Blocks { job: id, read }, out);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all of them name one page")]
    fn read_page(
        &mut self,
        key: SegmentKey,
        life: u64,
        extent: u32,
        page: u32,
        slot: bool,
        sequence: u64,
        out: &mut Vec<StoreOutput>,
    ) {
        let offset = self.superblock.layout.page_offset(page, slot);
        let purpose = Purpose::Page { key, life, extent, sequence };
        self.begin(DiskOrderKind::Read { offset, len: BLOCK_BYTES }, purpose, out);
    }

    /// A page was read for the jobs that wait for it.
    pub(crate) fn page_read(
        &mut self,
        key: SegmentKey,
        life: u64,
        extent: u32,
        sequence: u64,
        result: Result<Bytes, DiskFault>,
        out: &mut Vec<StoreOutput>,
    ) {
        let jobs = self.page_waiters.remove(&(key, extent)).unwrap_or_default();
        let nonce = self.superblock.format_nonce;
        let entry = self.living(key, life).and_then(|s| s.extents.get(&extent)).copied();
        let current = entry.filter(|e| e.sequence == sequence);
        let mut damaged = false;
        if let Some(e) = current.filter(|e| self.cache.get(e.page).is_none()) {
            match decode_current(result, nonce, sequence, key, extent) {
                Some(page) => self.cache.put(e.page, page),
                None => {
                    damaged = true;
                    self.page_lost(key, life, ExtentIndex(extent), out);
                }
            }
        }
        for id in jobs {
            if damaged {
                self.extent_unreadable(id, ExtentIndex(extent));
            } else {
                self.resolve(id, ExtentIndex(extent), out);
            }
            self.job_step(id, out);
        }
    }

    /// Nothing is known of an extent: its page cannot be read.
    fn extent_unreadable(&mut self, id: u64, extent: ExtentIndex) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if matches!(job.kind, JobKind::Image { .. } | JobKind::Digest { .. } | JobKind::Status { .. }) {
            job.slots =
                BlockRange::new(extent.first_block(), EXTENT_BLOCKS).blocks().map(Slot::new).collect();
        }
        for slot in job.slots.iter_mut().filter(|s| s.block.extent() == extent) {
            slot.state = SlotState::Bad(0);
        }
    }

    /// Blocks were read for a job.
    pub(crate) fn blocks_read(
        &mut self,
        id: u64,
        read: u64,
        result: Result<Bytes, DiskFault>,
        out: &mut Vec<StoreOutput>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(slots) = job.reads.remove(&read) else { return };
        if matches!(job.kind, JobKind::Log { .. } | JobKind::Copy { .. }) {
            let index = slots.first().copied().unwrap_or(0);
            self.record_read(id, index, result);
            return self.job_step(id, out);
        }
        let data = result.unwrap_or_default();
        let mut again = BTreeSet::new();
        for (n, i) in slots.into_iter().enumerate() {
            let slot = &mut job.slots[i];
            let SlotState::Reading(offset) = slot.state else { continue };
            let block = data.get(n * BLOCK_BYTES..(n + 1) * BLOCK_BYTES);
            let sum = block.map_or(0, crc32c);
            if block.is_some() && sum == slot.crc {
                slot.state = SlotState::Piece { read, at: n * BLOCK_BYTES, all: data.clone() };
            } else {
                slot.failed = Some((slot.lsn, offset, sum));
                slot.state = SlotState::Pending;
                again.insert(slot.block.extent());
            }
        }
        for extent in again {
            self.resolve(id, extent, out);
        }
        self.job_step(id, out);
    }

    fn finish_job(&mut self, id: u64, out: &mut Vec<StoreOutput>) {
        let Some(job) = self.jobs.remove(&id) else { return };
        let (key, life, token) = (job.key, job.life, job.token);
        let alive = self.living(key, life).is_some();
        let is_bad = |s: &Slot| matches!(s.state, SlotState::Bad(_));
        let of_owner = job.kind.is_of_owner();
        let lost_part = self.living(key, life).is_some_and(|s| s.incomplete_since.is_some());
        let outcome = match job.kind {
            JobKind::Copy { first, records } => {
                if records.is_empty() && alive {
                    self.copy_is_damaged(key, first);
                }
                for record in records {
                    self.journal.copies.push_back(Copy { key, life, record });
                }
                return;
            }
            _ if !alive => StoreOutcome::Refused(StoreRefusal::Unknown),
            JobKind::Log { records } => StoreOutcome::Log { records },
            JobKind::Install { extents } => {
                extents.into_iter().for_each(|e| self.pending_remove(key, e));
                StoreOutcome::Installed
            }
            JobKind::Digest { .. } => StoreOutcome::Digest { at: job.at, blocks: digests(&job.slots) },
            // The page was found to be damaged: of no block is it known what it was, not even whether it ever was written.
            _ if of_owner && lost_part && job.slots.iter().any(is_bad) => {
                StoreOutcome::Refused(StoreRefusal::Incomplete)
            }
            _ if job.slots.iter().any(is_bad) => {
                let bad = job.slots.iter().filter(|s| is_bad(s));
                StoreOutcome::BadBlocks { blocks: bad.map(|s| s.block).collect() }
            }
            JobKind::Heal { placed, .. } => StoreOutcome::Healed { replaced: placed },
            JobKind::Read { .. } => StoreOutcome::Read { data: pieces(job.slots) },
            JobKind::Status { range, present } => StoreOutcome::Status { runs: runs(range, &present) },
            JobKind::Image { .. } => StoreOutcome::Image { at: job.at, blocks: image(job.slots) },
        };
        if let Some(token) = token {
            out.push(StoreOutput::Done { segment: key, token, outcome });
        }
    }
}

fn decode_current(
    result: Result<Bytes, DiskFault>,
    nonce: u64,
    sequence: u64,
    key: SegmentKey,
    extent: u32,
) -> Option<Box<Page>> {
    let page = Page::decode(&result.ok()?, nonce)?;
    (page.sequence == sequence && page.key == key && page.extent.0 == extent).then_some(page)
}
