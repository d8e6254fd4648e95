//! Reading. A job resolves each block's state once its extent's page is here: absent, in memory, or somewhere on
//! the disk with a checksum. What does not pass its checksum is resolved again: when its state has changed
//! meanwhile, the new one is read; when not, the block is bad. Thus a read that races with writing in place
//! reports nothing false.

use crate::api::{StoreEvent, StoreOutput};
use crate::batch::Copy;
use crate::disk::{Disk, Purpose, bad_image_blocks, refuse};
use crate::format::page::Page;
use crate::layout::BLOCK;
use crate::overlay::{Content, OverlayBlock};
use crate::segment::{Segment, by_extent};
use alloc::{boxed::Box, collections::BTreeMap, collections::BTreeSet, vec, vec::Vec};
use bytes::Bytes;
use holdfast_checksum::crc32c;
use holdfast_types::{
    BLOCK_BYTES, BlockContent, BlockDigest, BlockIndex, BlockRange, DiskFault, DiskOrderKind, EXTENT_BLOCKS,
    ExtentIndex, ImageBlock, Lsn, OrderToken, Record, RecordBody, SEGMENT_EXTENTS, SegmentKey, StoreOutcome,
    StoreRefusal,
};

/// What absent blocks read as, shared.
pub(crate) static ZEROS: [u8; 16 * BLOCK_BYTES] = [0; 16 * BLOCK_BYTES];

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
        records: Vec<Record>,
    },
}

impl JobKind {
    pub(crate) fn status(range: BlockRange) -> Self {
        JobKind::Status { range, present: BTreeMap::new() }
    }
}

/// Something under way that ends in an outcome.
#[derive(Debug)]
pub(crate) struct Job {
    pub key: SegmentKey,
    pub life: u64,
    pub token: Option<OrderToken>,
    pub kind: JobKind,
    slots: Vec<Slot>,
    /// Disk orders and pages and extents that it waits for.
    waiting: u32,
    /// Which slots, or which record, a disk order reads for.
    reads: BTreeMap<u64, Vec<usize>>,
    next_read: u64,
    /// The committed position when a block was resolved last.
    at: Lsn,
}

#[derive(Debug)]
struct Slot {
    block: BlockIndex,
    lsn: Lsn,
    crc: u32,
    state: SlotState,
    /// What was read and did not pass: LSN, place and sum.
    failed: Option<(Lsn, u64, u32)>,
}

#[derive(Debug)]
enum SlotState {
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
struct View {
    lsn: Lsn,
    crc: u32,
    source: Source,
}

enum Source {
    Absent,
    Memory(Bytes),
    At(u64),
    /// The page says that there is data and not where.
    Lost,
}

fn view(segment: &Segment, page: Option<&Page>, extent_at: Option<u64>, extent: ExtentIndex, i: u32) -> View {
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

impl Disk {
    fn new_job(&mut self, key: SegmentKey, token: Option<OrderToken>, kind: JobKind) -> Option<u64> {
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
        for (extent, _) in by_extent(range) {
            self.resolve(id, extent, out);
        }
        self.job_step(id, out);
    }

    /// One thing that a job waited for is there.
    fn job_step(&mut self, id: u64, out: &mut Vec<StoreOutput>) {
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
        job.at = job.at.max(segment.commit);
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
                job.slots = slots_above(segment, page, extent, *since, floor);
            }
            JobKind::Digest { .. } if job.slots.is_empty() => {
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
                    let extent = Some((key, ExtentIndex(extent)));
                    out.push(StoreOutput::Event(StoreEvent::PageDamaged { page: e.page, extent }));
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
        let outcome = match job.kind {
            JobKind::Copy { records } => {
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
            _ if job.slots.iter().any(|s| matches!(s.state, SlotState::Bad(_))) => {
                let bad = job.slots.iter().filter(|s| matches!(s.state, SlotState::Bad(_)));
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
        let Some(s) = self.segments.get_mut(&key) else { return };
        let extents: BTreeSet<u32> = blocks.iter().map(|b| b.block.extent().0).collect();
        let with_data: BTreeSet<u32> =
            blocks.iter().filter(|b| b.data.is_some()).map(|b| b.block.extent().0).collect();
        let is_fresh =
            |e: &&u32| !s.pending.contains_key(*e) && s.extents.get(*e).is_none_or(|x| x.location.is_none());
        let fresh = with_data.iter().filter(is_fresh).count() as u64;
        if fresh > self.available_extents() {
            return refuse(key, token, StoreRefusal::Full, out);
        }
        // The pages carry the copy's life: its state must be in the journal before they count.
        self.ensure_stated(key);
        let Some(s) = self.segments.get_mut(&key) else { return };
        for b in blocks {
            let content = b.data.map_or(Content::Absent, Content::Memory);
            let state = OverlayBlock { lsn: b.lsn, crc: b.crc, content, heal: false, image: true };
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

    /// Puts a good copy over a damaged block, if the block's state is still the copy's.
    fn place_heal(&mut self, id: u64, extent: ExtentIndex) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let JobKind::Heal { block, placed } = &mut job.kind else { return };
        let Some(s) = self.segments.get_mut(&job.key) else { return };
        let i = block.block.in_extent();
        let page = s.extents.get(&extent.0).and_then(|e| self.cache.get(e.page));
        let in_place = page.is_some_and(|p| p.lsns[i as usize] == block.lsn && p.is_present(i));
        let Some(data) = block.data.clone().filter(|_| in_place) else { return };
        let content = Content::Memory(data);
        let state = OverlayBlock { lsn: block.lsn, crc: block.crc, content, heal: true, image: true };
        if s.overlay.insert(extent, i, state) {
            *placed = true;
            job.waiting += 1;
            let key = job.key;
            self.dirty.insert(key);
            self.extent_waiters.entry((key, extent.0)).or_default().push(id);
        }
    }

    /// Collects records after `after`.
    pub(crate) fn read_log(
        &mut self,
        key: SegmentKey,
        token: OrderToken,
        after: Lsn,
        max_bytes: usize,
        out: &mut Vec<StoreOutput>,
    ) {
        let records = self.collect_records(key, after, max_bytes);
        let Some(id) = self.new_job(key, Some(token), JobKind::Log { records }) else { return };
        self.order_record_reads(id, out);
        self.job_step(id, out);
    }

    /// Has uncommitted records read that are only in the journal, to copy them forward.
    pub(crate) fn start_copy(
        &mut self,
        key: SegmentKey,
        after: Lsn,
        max_bytes: usize,
        out: &mut Vec<StoreOutput>,
    ) {
        let records = self.collect_records(key, after, max_bytes);
        let Some(id) = self.new_job(key, None, JobKind::Copy { records }) else { return };
        self.order_record_reads(id, out);
        self.job_step(id, out);
    }

    fn collect_records(&self, key: SegmentKey, after: Lsn, max_bytes: usize) -> Vec<Record> {
        let mut records = Vec::new();
        let Some(s) = self.segments.get(&key) else { return records };
        let (mut at, mut bytes) = (after.next(), 0);
        while let Some(entry) = s.entry(at) {
            let size = match &entry.record.body {
                RecordBody::Write(w) => w.range.bytes(),
                _ => 0,
            };
            if !records.is_empty() && bytes + size > max_bytes {
                break;
            }
            bytes += size;
            records.push(entry.record.clone());
            at = at.next();
        }
        records
    }

    fn order_record_reads(&mut self, id: u64, out: &mut Vec<StoreOutput>) {
        let Some(job) = self.jobs.get(&id) else { return };
        let (JobKind::Log { records } | JobKind::Copy { records }) = &job.kind else { return };
        let missing: Vec<usize> = (0..records.len()).filter(|i| is_missing(&records[*i])).collect();
        for index in missing {
            self.order_record_read(id, index, out);
        }
    }

    /// Orders the data of one of a job's records, or ends the job's list before it when it is gone.
    fn order_record_read(&mut self, id: u64, index: usize, out: &mut Vec<StoreOutput>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let (JobKind::Log { records } | JobKind::Copy { records }) = &mut job.kind else { return };
        let Some(record) = records.get(index) else { return };
        let segment = self.segments.get(&job.key).filter(|s| s.life == job.life);
        let entry = segment.and_then(|s| s.entry(record.position.lsn));
        let place = entry.filter(|e| e.record.position == record.position).and_then(|e| e.place);
        let (Some(place), Some(range)) = (place, record.range()) else {
            records.truncate(index);
            return;
        };
        let read = job.next_read;
        job.next_read += 1;
        job.waiting += 1;
        job.reads.insert(read, vec![index]);
        let kind = DiskOrderKind::Read { offset: place.data, len: range.bytes() };
        self.begin(kind, Purpose::Blocks { job: id, read }, out);
    }

    fn record_read(&mut self, id: u64, index: usize, result: Result<Bytes, DiskFault>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let (JobKind::Log { records } | JobKind::Copy { records }) = &mut job.kind else { return };
        let Some(Record { body: RecordBody::Write(w), .. }) = records.get_mut(index) else { return };
        let data = result.unwrap_or_default();
        let holds = data.len() == w.range.bytes()
            && data.chunks_exact(BLOCK_BYTES).zip(w.crcs.iter()).all(|(b, crc)| crc32c(b) == *crc);
        if holds {
            w.data = data;
        } else {
            // Damaged, or trimmed and overwritten meanwhile: either way it is not in the log any more.
            records.truncate(index);
        }
    }
}

fn is_missing(record: &Record) -> bool {
    matches!(&record.body, RecordBody::Write(w) if w.data.is_empty() && w.range.count > 0)
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

/// A slot for each block whose LSN is above `since`; blocks of an extent without a page count as of `floor`.
fn slots_above(
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

impl Slot {
    fn new(block: BlockIndex) -> Self {
        Self { block, lsn: Lsn(0), crc: 0, state: SlotState::Pending, failed: None }
    }

    fn take(&mut self, view: View) {
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

/// The slots' content, with as few pieces as can be without copying.
fn pieces(slots: Vec<Slot>) -> Vec<Bytes> {
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

fn image(slots: Vec<Slot>) -> Vec<ImageBlock> {
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

fn digests(slots: &[Slot]) -> Vec<BlockDigest> {
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

fn runs(range: BlockRange, present: &BTreeMap<u32, [u64; EXTENT_BLOCKS as usize / 64]>) -> Vec<(u32, bool)> {
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
