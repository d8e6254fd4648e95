//! An open disk: its segments, and what is under way on it. Here orders come in; the journal ([`crate::batch`]),
//! reading ([`crate::read`]) and writing in place ([`crate::writeback`]) are beside it.
//!
//! An order changes the log in memory at once and queues what must become durable; its outcome follows when it
//! is. Thus orders for one segment take effect in the order given.

use crate::api::{DiskActivity, StoreConfig, StoreEvent, StoreOutput, Usage};
use crate::batch::{Completion, Journal, Queued, QueuedEntry};
use crate::format::journal::SegmentState;
use crate::format::superblock::Superblock;
use crate::pages::PageCache;
use crate::read::{Job, JobKind};
use crate::ring::{Place, Ring};
use crate::segment::{LogEntry, Segment, written_extents};
use crate::space::Slots;
use crate::writeback::Round;
use alloc::{collections::BTreeMap, collections::BTreeSet, vec::Vec};
use bytes::Bytes;
use holdfast_checksum::crc32c;
use holdfast_types::{
    BLOCK_BYTES, BlockIndex, DiskDone, DiskFault, DiskOrder, DiskOrderKind, DiskToken, Epoch, ImageBlock,
    LogPosition, Lsn, MAX_RECORD_BYTES, OrderToken, Record, RecordBody, RepeatState, SegmentKey, StoreOrder,
    StoreOutcome, StoreRefusal, Time,
};

/// What an order to the disk was for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// The journal batch in flight.
    Batch,
    /// A superblock.
    Superblock { hint: Place, page_limit: u32 },
    /// A page that jobs wait for.
    Page { key: SegmentKey, life: u64, extent: u32, sequence: u64 },
    /// Blocks for a job.
    Blocks { job: u64, read: u64 },
    /// Something of the round in progress.
    Round(crate::writeback::RoundOrder),
}

/// An open disk.
#[derive(Debug)]
pub(crate) struct Disk {
    pub config: StoreConfig,
    /// As it was written last, or is being written.
    pub superblock: Superblock,
    /// Pages below this may be written: the durable superblock says so.
    pub page_limit: u32,
    pub superblock_in_flight: bool,
    pub superblock_wanted: bool,
    pub ring: Ring,
    pub journal: Journal,
    pub segments: BTreeMap<SegmentKey, Segment>,
    pub next_life: u64,
    pub extents: Slots,
    pub pages: Slots,
    /// Extents kept free for writes in the log.
    pub promised: u64,
    pub page_sequence: u64,
    pub cache: PageCache,
    pub purposes: BTreeMap<DiskToken, Purpose>,
    pub next_token: u64,
    pub jobs: BTreeMap<u64, Job>,
    pub next_job: u64,
    /// Jobs that wait for an extent's page.
    pub page_waiters: BTreeMap<(SegmentKey, u32), Vec<u64>>,
    /// Jobs that wait for an extent to be written back.
    pub extent_waiters: BTreeMap<(SegmentKey, u32), Vec<u64>>,
    pub round: Option<Round>,
    /// Write everything back, until nothing is left.
    pub checkpoint: bool,
    /// Write back: the timer fired.
    pub writeback_due: bool,
    pub last_commit: Time,
    /// Segments with something to write back.
    pub dirty: BTreeSet<SegmentKey>,
    /// Bytes of data in memory that logs hold.
    pub log_memory: u64,
    /// Journal bytes of records that are not committed.
    pub uncommitted: u64,
    pub failed: bool,
}

/// The most that a record takes in the journal: a batch of its own.
pub(crate) fn journal_cost(record: &Record) -> u64 {
    let data = match &record.body {
        RecordBody::Write(w) => w.range.bytes(),
        _ => 0,
    };
    (data + BLOCK_BYTES) as u64
}

impl Disk {
    /// An order to the disk; what it is for comes back with it.
    pub(crate) fn begin(&mut self, kind: DiskOrderKind, purpose: Purpose, out: &mut Vec<StoreOutput>) {
        let token = DiskToken(self.next_token);
        self.next_token += 1;
        self.purposes.insert(token, purpose);
        out.push(StoreOutput::Disk(DiskOrder { token, kind }));
    }

    /// The segment, in the life in which something was begun for it.
    pub(crate) fn living(&mut self, key: SegmentKey, life: u64) -> Option<&mut Segment> {
        self.segments.get_mut(&key).filter(|s| s.life == life)
    }

    /// Takes an order for a segment's copy.
    pub(crate) fn order(
        &mut self,
        now: Time,
        key: SegmentKey,
        token: OrderToken,
        order: StoreOrder,
        out: &mut Vec<StoreOutput>,
    ) {
        let refusal = if self.failed {
            Some(StoreRefusal::Failed)
        } else if !self.segments.contains_key(&key) {
            Some(StoreRefusal::Unknown)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            if !matches!(order, StoreOrder::Commit { .. }) {
                refuse(key, token, refusal, out);
            }
            return;
        }
        match order {
            StoreOrder::Seal { epoch } => self.seal(key, token, epoch),
            StoreOrder::Append { cut_after, records, sealed } => {
                if let Err(outcome) = self.append(key, token, cut_after, records, sealed) {
                    out.push(StoreOutput::Done { segment: key, token, outcome });
                }
            }
            StoreOrder::Commit { lsn } => self.commit(now, key, lsn),
            StoreOrder::Reset { base, sealed } => self.reset(key, token, base, sealed),
            StoreOrder::Complete { repeats } => self.complete(key, token, repeats),
            StoreOrder::Changed { since } => {
                let extents = self.changed(key, since);
                out.push(StoreOutput::Done {
                    segment: key,
                    token,
                    outcome: StoreOutcome::Changed { extents },
                });
            }
            StoreOrder::InstallImage { blocks } => self.install(key, token, blocks, out),
            StoreOrder::Read { range } => self.start_job(key, token, JobKind::Read { range }, out),
            StoreOrder::Status { range } => self.start_job(key, token, JobKind::status(range), out),
            StoreOrder::ReadLog { after, max_bytes } => self.read_log(key, token, after, max_bytes, out),
            StoreOrder::ReadImage { extent, since } => {
                self.start_job(key, token, JobKind::Image { extent, since }, out);
            }
            StoreOrder::Digest { extent } => {
                self.start_job(key, token, JobKind::Digest { extent, forced: false }, out);
            }
            StoreOrder::Heal { block } => {
                self.start_job(key, token, JobKind::Heal { block, placed: false }, out)
            }
        }
    }

    /// A copy's first durable order is preceded by its state.
    pub(crate) fn ensure_stated(&mut self, key: SegmentKey) {
        let Some(s) = self.segments.get_mut(&key) else { return };
        if s.stated.is_none() && !s.state_queued {
            s.state_queued = true;
            let (life, state) = (s.life, s.state(false));
            let done = Completion::State { key, life, hold: None };
            self.queue(key, life, QueuedEntry::State(state), Some(done));
        }
    }

    pub(crate) fn queue(&mut self, key: SegmentKey, life: u64, entry: QueuedEntry, done: Option<Completion>) {
        self.journal.normal.push_back(Queued { key, life, entry, done });
    }

    fn seal(&mut self, key: SegmentKey, token: OrderToken, epoch: Epoch) {
        self.ensure_stated(key);
        let Some(s) = self.segments.get_mut(&key) else { return };
        s.sealed = s.sealed.max(epoch);
        let (life, epoch) = (s.life, s.sealed);
        let done = Completion::Order { key, token, outcome: StoreOutcome::Sealed };
        self.queue(key, life, QueuedEntry::Seal(epoch), Some(done));
    }

    fn append(
        &mut self,
        key: SegmentKey,
        token: OrderToken,
        cut_after: Option<Lsn>,
        records: Vec<Record>,
        sealed: Epoch,
    ) -> Result<(), StoreOutcome> {
        let bad = bad_record_blocks(&records);
        if !bad.is_empty() {
            return Err(StoreOutcome::BadBlocks { blocks: bad });
        }
        if !self.has_room(key, &records) {
            return Err(StoreOutcome::Refused(StoreRefusal::Full));
        }
        self.ensure_stated(key);
        if let Some(after) = cut_after {
            self.cut(key, after);
        }
        let Some(s) = self.segments.get_mut(&key) else { return Ok(()) };
        let life = s.life;
        if sealed > s.sealed || records.is_empty() {
            s.sealed = s.sealed.max(sealed);
            let epoch = s.sealed;
            self.queue(key, life, QueuedEntry::Seal(epoch), None);
        }
        for record in records {
            self.log_record(key, life, record);
        }
        let last = self.segments.get(&key).map(Segment::last).unwrap_or_default();
        if let Some(queued) = self.journal.normal.back_mut() {
            debug_assert!(queued.done.is_none());
            queued.done = Some(Completion::Order { key, token, outcome: StoreOutcome::Appended { last } });
        }
        Ok(())
    }

    fn log_record(&mut self, key: SegmentKey, life: u64, record: Record) {
        let Some(s) = self.segments.get_mut(&key) else { return };
        assert_eq!(record.position.lsn, s.last().lsn.next(), "records follow each other");
        assert!(record.data_bytes() <= MAX_RECORD_BYTES, "a longer request is split by the gateway");
        assert!(record.range().is_none_or(|r| r.in_segment()), "a record lies in its segment");
        self.log_memory += record.data_bytes() as u64;
        self.uncommitted += journal_cost(&record);
        s.log.push_back(LogEntry { record: record.clone(), place: None });
        for extent in written_extents(&record) {
            self.pending_add(key, extent.0);
        }
        self.queue(key, life, QueuedEntry::Record(record), None);
    }

    /// One more write waits to be put into the extent.
    pub(crate) fn pending_add(&mut self, key: SegmentKey, extent: u32) {
        let Some(s) = self.segments.get_mut(&key) else { return };
        let count = s.pending.entry(extent).or_insert(0);
        *count += 1;
        if *count == 1 && s.extents.get(&extent).is_none_or(|e| e.location.is_none()) {
            self.promised += 1;
        }
        s.hollow.remove(&extent);
    }

    /// A write of the extent is in place, or gone.
    pub(crate) fn pending_remove(&mut self, key: SegmentKey, extent: u32) {
        let Some(s) = self.segments.get_mut(&key) else { return };
        let Some(count) = s.pending.get_mut(&extent) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        s.pending.remove(&extent);
        match s.extents.get(&extent) {
            Some(e) if e.location.is_some() => {
                if e.present == 0 {
                    s.hollow.insert(extent);
                    self.dirty.insert(key);
                }
            }
            _ => self.promised -= 1,
        }
    }

    /// Extents that nobody holds and nobody was promised.
    pub(crate) fn available_extents(&self) -> u64 {
        let taken_for_promises = self.round.as_ref().map_or(0, Round::allocated);
        (u64::from(self.extents.free()) + taken_for_promises).saturating_sub(self.promised)
    }

    fn has_room(&self, key: SegmentKey, records: &[Record]) -> bool {
        let Some(s) = self.segments.get(&key) else { return false };
        let fresh: BTreeSet<u32> = records
            .iter()
            .flat_map(written_extents)
            .map(|e| e.0)
            .filter(|e| !s.pending.contains_key(e) && s.extents.get(e).is_none_or(|x| x.location.is_none()))
            .collect();
        if fresh.len() as u64 > self.available_extents() {
            return false;
        }
        // Uncommitted records may have to be copied forward while the ring is full, so they may never hold most
        // of it. Records without data go on longer: they are what frees space.
        let cost: u64 = records.iter().map(journal_cost).sum();
        let limit = self.uncommitted_limit();
        let is_small = records.iter().all(|r| r.data_bytes() == 0);
        self.uncommitted + cost <= if is_small { limit + self.ring.capacity() / 16 } else { limit }
    }

    /// Removes records after `after` from the log.
    fn cut(&mut self, key: SegmentKey, after: Lsn) {
        let Some(s) = self.segments.get_mut(&key) else { return };
        if after >= s.last().lsn {
            return;
        }
        assert!(after >= s.commit, "a committed record is never cut");
        let life = s.life;
        s.durable = s.durable.min(after);
        let keep = (after.0 - s.trim.lsn.0) as usize;
        let gone: Vec<LogEntry> = s.log.drain(keep..).collect();
        let oldest = gone.iter().filter_map(|e| e.place).map(|p| p.batch.sequence).min();
        self.forget_entries(key, &gone, Lsn(0), Lsn(0));
        let hold = oldest.map(|sequence| self.journal.hold(sequence));
        self.queue(key, life, QueuedEntry::Cut(after), hold.map(|hold| Completion::Release { hold }));
    }

    /// Takes entries that left the log out of every count.
    fn forget_entries(&mut self, key: SegmentKey, gone: &[LogEntry], commit: Lsn, settled: Lsn) {
        for entry in gone {
            self.log_memory -= entry.record.data_bytes() as u64;
            if entry.record.position.lsn > commit {
                self.uncommitted -= journal_cost(&entry.record);
            }
            if entry.record.position.lsn > settled {
                for extent in written_extents(&entry.record) {
                    self.pending_remove(key, extent.0);
                }
            }
        }
    }

    pub(crate) fn commit(&mut self, now: Time, key: SegmentKey, lsn: Lsn) {
        let Some(s) = self.segments.get_mut(&key) else { return };
        let mut at = s.commit;
        while at < lsn.min(s.last().lsn) {
            at = at.next();
            self.uncommitted -= s.entry(at).map_or(0, |e| journal_cost(&e.record));
        }
        s.commit_up_to(lsn);
        if s.overlay.is_empty() {
            self.settle(key);
        } else {
            self.dirty.insert(key);
            self.last_commit = now;
        }
    }

    /// Moves the settled position to where everything is in place.
    pub(crate) fn settle(&mut self, key: SegmentKey) {
        let Some(s) = self.segments.get_mut(&key) else { return };
        let oldest = s.overlay.oldest().map_or(u64::MAX, |l| l.0 - 1);
        let to = s.commit.min(s.durable).min(Lsn(oldest));
        let mut extents = Vec::new();
        while s.settled < to {
            let next = s.settled.next();
            s.settled = next;
            let Some(entry) = s.entry_mut(next) else { continue };
            extents.extend(written_extents(&entry.record).map(|e| e.0));
            if let RecordBody::Write(w) = &mut entry.record.body {
                self.log_memory -= w.data.len() as u64;
                w.data = Bytes::new();
            }
        }
        for extent in extents {
            self.pending_remove(key, extent);
        }
    }

    fn reset(&mut self, key: SegmentKey, token: OrderToken, base: LogPosition, sealed: Epoch) {
        let Some(s) = self.segments.get_mut(&key) else { return };
        let (life, commit, settled) = (s.life, s.commit, s.settled);
        let mut oldest = s.oldest_batch();
        if let (Some(stated), oldest) = (s.stated, &mut oldest) {
            *oldest = Some(oldest.map_or(stated, |o| o.min(stated)));
        }
        let gone: Vec<LogEntry> = s.log.drain(..).collect();
        s.sealed = s.sealed.max(sealed);
        s.incomplete_since = Some(s.incomplete_since.unwrap_or(settled));
        s.trim = base;
        (s.commit, s.durable, s.settled, s.marked) = (base.lsn, base.lsn, base.lsn, base.lsn);
        s.repeats = RepeatState::default();
        // Committed content that is not in place would be lost with its records by a crash; it is newer than
        // `incomplete_since`, so that it comes back with the images.
        let extents: Vec<u32> = s.overlay.extents.keys().copied().collect();
        for extent in extents {
            s.overlay.remove(holdfast_types::ExtentIndex(extent), Lsn(u64::MAX), |_, b| !b.image);
        }
        s.state_queued = true;
        let state = s.state(true);
        self.forget_entries(key, &gone, commit, settled);
        let hold = oldest.map(|sequence| self.journal.hold(sequence));
        self.queue(key, life, QueuedEntry::State(state), Some(Completion::State { key, life, hold }));
        let done = Completion::Order { key, token, outcome: StoreOutcome::Reset };
        self.queue(key, life, QueuedEntry::Seal(sealed), Some(done));
    }

    fn complete(&mut self, key: SegmentKey, token: OrderToken, repeats: RepeatState) {
        let Some(s) = self.segments.get_mut(&key) else { return };
        s.incomplete_since = None;
        let since_base = core::mem::replace(&mut s.repeats, repeats);
        merge_repeats(&mut s.repeats, since_base);
        s.state_queued = true;
        let (life, state, sealed) = (s.life, s.state(false), s.sealed);
        let done = Completion::State { key, life, hold: None };
        self.queue(key, life, QueuedEntry::State(state), Some(done));
        let done = Completion::Order { key, token, outcome: StoreOutcome::Completed };
        self.queue(key, life, QueuedEntry::Seal(sealed), Some(done));
    }

    /// Makes an empty copy.
    pub(crate) fn create(&mut self, key: SegmentKey) {
        let life = self.next_life;
        if let alloc::collections::btree_map::Entry::Vacant(place) = self.segments.entry(key) {
            place.insert(Segment::new(life));
            self.next_life += 1;
        }
    }

    /// Gives up a copy. Its space is free once that is durable.
    pub(crate) fn drop_segment(&mut self, key: SegmentKey) {
        let Some(s) = self.segments.get_mut(&key) else { return };
        let (commit, settled) = (s.commit, s.settled);
        let mut oldest = s.oldest_batch();
        oldest = [oldest, s.stated].into_iter().flatten().min();
        let gone: Vec<LogEntry> = s.log.drain(..).collect();
        self.forget_entries(key, &gone, commit, settled);
        let Some(mut s) = self.segments.remove(&key) else { return };
        // Images that wait to be installed hold promises of their own.
        for extent in s.pending.keys() {
            if s.extents.get(extent).is_none_or(|e| e.location.is_none()) {
                self.promised -= 1;
            }
        }
        self.dirty.remove(&key);
        if let Some(round) = &mut self.round {
            round.forget_segment(key);
        }
        let extents: Vec<_> = core::mem::take(&mut s.extents).into_values().collect();
        for entry in &extents {
            self.cache.remove(entry.page);
        }
        if s.stated.is_some() || s.state_queued {
            let state = SegmentState { life: s.life, dropped: true, ..SegmentState::default() };
            let hold = oldest.map(|sequence| self.journal.hold(sequence));
            let done = Completion::Dropped { hold, extents };
            self.queue(key, s.life, QueuedEntry::State(state), Some(done));
        } else {
            assert!(extents.is_empty(), "a copy without a durable state has nothing in place");
        }
    }

    /// Takes what came of an order to the disk.
    pub(crate) fn disk_done(&mut self, done: DiskDone, out: &mut Vec<StoreOutput>) {
        let Some(purpose) = self.purposes.remove(&done.token) else { return };
        if self.failed {
            return;
        }
        match purpose {
            Purpose::Batch => match done.result {
                Ok(_) => self.batch_done(out),
                Err(fault) => self.fail(DiskActivity::Journal, Some(fault), out),
            },
            Purpose::Superblock { hint, page_limit } => match done.result {
                Ok(_) => {
                    self.superblock_in_flight = false;
                    self.ring.advance_hint(hint);
                    self.page_limit = page_limit;
                    self.advance_round(out);
                }
                Err(fault) => self.fail(DiskActivity::Superblock, Some(fault), out),
            },
            Purpose::Page { key, life, extent, sequence } => {
                self.page_read(key, life, extent, sequence, done.result, out);
            }
            Purpose::Blocks { job, read } => self.blocks_read(job, read, done.result, out),
            Purpose::Round(order) => self.round_done(order, done.result, out),
        }
    }

    /// The disk is failed for good: everything that waits is refused.
    pub(crate) fn fail(
        &mut self,
        activity: DiskActivity,
        fault: Option<DiskFault>,
        out: &mut Vec<StoreOutput>,
    ) {
        if self.failed {
            return;
        }
        self.failed = true;
        out.push(StoreOutput::Event(StoreEvent::DiskFailed { activity, fault }));
        for (key, token) in self.journal.waiting_orders() {
            refuse(key, token, StoreRefusal::Failed, out);
        }
        for job in core::mem::take(&mut self.jobs).into_values() {
            if let Some(token) = job.token {
                refuse(job.key, token, StoreRefusal::Failed, out);
            }
        }
        self.journal.clear();
        self.round = None;
        self.page_waiters.clear();
        self.extent_waiters.clear();
    }

    /// Starts what gathered: a batch, a superblock, a round of writing back.
    pub(crate) fn pump(&mut self, now: Time, out: &mut Vec<StoreOutput>) {
        if self.failed {
            return;
        }
        self.advance_round(out);
        self.relieve(out);
        self.start_round(now, out);
        self.write_batch(out);
        self.write_superblock(out);
    }

    fn write_superblock(&mut self, out: &mut Vec<StoreOutput>) {
        if !self.superblock_wanted || self.superblock_in_flight {
            return;
        }
        (self.superblock_wanted, self.superblock_in_flight) = (false, true);
        self.superblock.generation += 1;
        self.superblock.tail = self.ring.tail();
        let offset = (self.superblock.generation % 2) * BLOCK_BYTES as u64;
        let data = Bytes::from(self.superblock.encode());
        let (hint, page_limit) = (self.superblock.tail, self.superblock.page_limit);
        let kind = DiskOrderKind::Write { offset, data: alloc::vec![data], durable: true };
        self.begin(kind, Purpose::Superblock { hint, page_limit }, out);
    }

    /// Bytes that wait in memory to be written in place.
    pub(crate) fn dirty_bytes(&self) -> u64 {
        self.dirty.iter().filter_map(|k| self.segments.get(k)).map(|s| s.overlay.bytes).sum()
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage {
            extents_total: self.extents.total().into(),
            extents_free: self.extents.free().into(),
            pages_used: u64::from(self.pages.total() - self.pages.free()),
            journal_bytes: self.ring.capacity(),
            journal_used: self.ring.used(),
            dirty_bytes: self.dirty_bytes(),
            cached_bytes: self.cache.bytes(),
        }
    }

    pub(crate) fn is_quiescent(&self) -> bool {
        self.failed
            || (self.purposes.is_empty()
                && self.journal.is_idle()
                && self.round.is_none()
                && self.jobs.is_empty()
                && self.dirty.is_empty())
    }
}

/// Says that an order is not carried out.
pub(crate) fn refuse(
    segment: SegmentKey,
    token: OrderToken,
    refusal: StoreRefusal,
    out: &mut Vec<StoreOutput>,
) {
    out.push(StoreOutput::Done { segment, token, outcome: StoreOutcome::Refused(refusal) });
}

/// Blocks whose data does not pass the checksum that came with it. A wrong one in the journal would look like a
/// torn batch when the disk is opened.
fn bad_record_blocks(records: &[Record]) -> Vec<BlockIndex> {
    let mut bad = Vec::new();
    for record in records {
        let RecordBody::Write(w) = &record.body else { continue };
        assert_eq!(w.data.len(), w.range.bytes(), "a write's data covers its range");
        assert_eq!(w.crcs.len(), w.range.count as usize, "a write has a checksum for each block");
        let blocks = w.range.blocks().zip(w.data.chunks_exact(BLOCK_BYTES).zip(w.crcs.iter()));
        bad.extend(blocks.filter(|(_, (data, crc))| crc32c(data) != **crc).map(|(block, _)| block));
    }
    bad
}

/// Blocks of an image whose data does not pass the checksum that came with it.
pub(crate) fn bad_image_blocks(blocks: &[ImageBlock]) -> Vec<BlockIndex> {
    let is_bad =
        |b: &&ImageBlock| b.data.as_ref().is_some_and(|d| d.len() != BLOCK_BYTES || crc32c(d) != b.crc);
    blocks.iter().filter(is_bad).map(|b| b.block).collect()
}

fn merge_repeats(into: &mut RepeatState, later: RepeatState) {
    for (gateway, mut repeats) in later.gateways {
        let of = into.gateways.entry(gateway).or_default();
        of.low = of.low.max(repeats.low);
        of.done.append(&mut repeats.done);
        of.done = of.done.split_off(&of.low);
        of.fenced |= repeats.fenced;
        for session in repeats.fenced_sessions {
            if !of.fenced_sessions.contains(&session) {
                of.fenced_sessions.push(session);
            }
        }
    }
}
