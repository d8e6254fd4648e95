//! Group commit. What must become durable waits in two queues: orders in the order given, and the store's own
//! entries, which go first because they free room. One batch is in flight at a time; the next takes all that
//! gathered meanwhile. A write of one block thus costs two blocks in the journal when it is alone: one for the
//! header, one for the data.
//!
//! The tail moves when what the oldest batches hold is in place or was written again: states and uncommitted
//! records are copied forward, records that are in place are trimmed.

use crate::api::{JournalTimes, StoreOutput};
use crate::disk::{Disk, Purpose};
use crate::format::journal::{
    BATCH_HEADER_BYTES, Entry, MAX_BATCH_BYTES, MAX_ENTRIES_BYTES, SegmentState, encode_batch, encode_entry,
};
use crate::layout::{BLOCK, MIN_JOURNAL_BYTES};
use crate::read::JobKind;
use crate::ring::Place;
use crate::segment::{ExtentEntry, LogEntry, RecordPlace};
use alloc::{collections::BTreeMap, collections::VecDeque, vec::Vec};
use bytes::Bytes;
use holdfast_types::{
    BLOCK_BYTES, DiskOrderKind, Epoch, LogPosition, Lsn, MAX_RECORD_BYTES, OrderToken, Record, RecordBody,
    SegmentKey, StoreOutcome, Time,
};

/// A ring holds at least so many of its longest batches.
const MIN_BATCHES: u64 = 14;
/// Batches of room that orders leave for the store's own entries, and copies for states and marks.
const LEFT_BY_ORDERS: u64 = 3;
const LEFT_BY_COPIES: u64 = 1;
/// One in so many bytes of the ring may be neither free nor uncommitted records when these are copied no more.
const WASTE_SHARE: u64 = 8;
const _: () = assert!(MIN_JOURNAL_BYTES / MIN_BATCHES > MAX_RECORD_BYTES as u64 + 4 * BLOCK);
const _: () = assert!(MIN_BATCHES > MIN_BATCHES / WASTE_SHARE + 2 * (LEFT_BY_ORDERS + 1) + 2);

/// Something of an order's that must become durable.
#[derive(Debug)]
pub(crate) enum QueuedEntry {
    Record(Record),
    Seal(Epoch),
    Cut(Lsn),
    State(SegmentState),
}

#[derive(Debug)]
pub(crate) struct Queued {
    pub key: SegmentKey,
    pub life: u64,
    pub entry: QueuedEntry,
    pub done: Option<Completion>,
}

/// Something of the store's own. What it says is decided when its batch is made.
#[derive(Clone, Debug)]
pub(crate) enum Urgent {
    /// A segment's state, with what it releases.
    State { key: SegmentKey, life: u64, hold: Option<u64> },
    /// A segment's commit position.
    Mark { key: SegmentKey, life: u64 },
}

/// A record that would pin the ring and is to be written again.
#[derive(Debug)]
pub(crate) struct Copy {
    pub key: SegmentKey,
    pub life: u64,
    pub record: Record,
}

/// What follows when a batch is durable.
#[derive(Debug)]
pub(crate) enum Completion {
    Order { key: SegmentKey, token: OrderToken, outcome: StoreOutcome },
    Release { hold: u64 },
    State { key: SegmentKey, life: u64, hold: Option<u64> },
    Mark { key: SegmentKey, life: u64, lsn: Lsn },
    Dropped { key: SegmentKey, hold: Option<u64>, extents: Vec<ExtentEntry> },
}

/// A record of the batch in flight.
#[derive(Debug)]
struct InFlightRecord {
    key: SegmentKey,
    life: u64,
    position: LogPosition,
    data_block: u32,
    copy: bool,
}

#[derive(Debug)]
struct InFlight {
    place: Place,
    data_offset: u64,
    records: Vec<InFlightRecord>,
    completions: Vec<Completion>,
    ordered: Time,
}

/// What waits for the journal, and what keeps its tail.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub urgent: VecDeque<Urgent>,
    pub copies: VecDeque<Copy>,
    pub normal: VecDeque<Queued>,
    in_flight: Option<InFlight>,
    /// Batches that must stay until something later is durable.
    holds: BTreeMap<u64, u64>,
    next_hold: u64,
    /// An entry waits for room.
    pub blocked: bool,
    /// How much was written when the tail was last looked after.
    relieved_at: u64,
    /// Something happened that may let the tail move.
    pub relief_due: bool,
    pub times: JournalTimes,
}

impl Journal {
    /// The tail stays at or before `sequence` until released.
    pub(crate) fn hold(&mut self, sequence: u64) -> u64 {
        self.next_hold += 1;
        self.holds.insert(self.next_hold, sequence);
        self.next_hold
    }
    /// The copies whose end waits to become durable.
    pub(crate) fn dropping(&self) -> impl Iterator<Item = SegmentKey> {
        let in_flight = self.in_flight.iter().flat_map(|b| &b.completions);
        let queued = self.normal.iter().filter_map(|q| q.done.as_ref()).chain(in_flight);
        queued.filter_map(|c| if let Completion::Dropped { key, .. } = c { Some(*key) } else { None })
    }
    /// The orders that have no outcome yet.
    pub(crate) fn waiting_orders(&self) -> Vec<(SegmentKey, OrderToken)> {
        let in_flight = self.in_flight.iter().flat_map(|b| &b.completions);
        let queued = self.normal.iter().filter_map(|q| q.done.as_ref());
        let order = |c: &Completion| match c {
            Completion::Order { key, token, .. } => Some((*key, *token)),
            _ => None,
        };
        in_flight.chain(queued).filter_map(order).collect()
    }
    pub(crate) fn clear(&mut self) {
        self.urgent.clear();
        self.copies.clear();
        self.normal.clear();
        self.in_flight = None;
    }
}

/// A batch in the making.
#[derive(Default)]
struct Builder {
    entries: Vec<u8>,
    data: Vec<Bytes>,
    data_blocks: u32,
    count: u32,
    records: Vec<InFlightRecord>,
    completions: Vec<Completion>,
}

impl Builder {
    fn len(&self) -> u64 {
        let header = (BATCH_HEADER_BYTES + self.entries.len()).div_ceil(BLOCK_BYTES);
        (header as u64 + u64::from(self.data_blocks)) * BLOCK_BYTES as u64
    }

    /// Adds an entry if the batch stays within `limit` bytes. Whether it was added.
    fn push(&mut self, key: SegmentKey, entry: &Entry, limit: u64) -> bool {
        let before = self.entries.len();
        encode_entry(&mut self.entries, key, entry);
        let data = match entry {
            Entry::Record { record: Record { body: RecordBody::Write(w), .. }, .. } => Some(w),
            _ => None,
        };
        let blocks = data.map_or(0, |w| w.range.count);
        self.data_blocks += blocks;
        let too_many_entries = before > 0 && self.entries.len() > MAX_ENTRIES_BYTES;
        if too_many_entries || self.len() > limit {
            self.data_blocks -= blocks;
            self.entries.truncate(before);
            return false;
        }
        if let Some(w) = data {
            self.data.push(w.data.clone());
        }
        self.count += 1;
        true
    }
}

impl Disk {
    /// The longest batch that this ring takes.
    fn max_batch(&self) -> u64 {
        MAX_BATCH_BYTES.min(self.ring.capacity() / MIN_BATCHES)
    }

    /// How much of the ring uncommitted records may take. Whatever lies in the ring, what is free is in at most
    /// two parts; the larger one must then hold a batch beside what orders leave.
    pub(crate) fn uncommitted_limit(&self) -> u64 {
        let capacity = self.ring.capacity();
        capacity - capacity / WASTE_SHARE - 2 * (LEFT_BY_ORDERS + 1) * self.max_batch()
    }

    /// Writes the next batch, if none is in flight and something waits.
    pub(crate) fn write_batch(&mut self, now: Time, out: &mut Vec<StoreOutput>) {
        if self.journal.in_flight.is_some() {
            return;
        }
        let room = self.ring.room();
        let limit = self.max_batch().min(room);
        // What the store writes to free room must find room itself, and what frees most goes first.
        let left_by = |batches: u64| limit.min(room.saturating_sub(batches * self.max_batch()));
        let (copy_limit, order_limit) = (left_by(LEFT_BY_COPIES), left_by(LEFT_BY_ORDERS));
        let mut builder = Builder::default();
        self.take_urgent(&mut builder, limit);
        self.take_copies(&mut builder, copy_limit);
        self.take_orders(&mut builder, order_limit);
        let waiting = self.journal.urgent.len() + self.journal.copies.len() + self.journal.normal.len();
        self.journal.blocked = waiting > 0;
        if builder.count == 0 {
            return;
        }
        let len = builder.len();
        let Some(place) = self.ring.place(len) else { unreachable!("a batch is made for the room there is") };
        let nonce = self.superblock.format_nonce;
        let tail = self.ring.tail();
        let header = Bytes::from(encode_batch(
            nonce,
            place,
            tail,
            self.pages_durable,
            &builder.entries,
            builder.count,
            builder.data_blocks,
        ));
        self.ring.take(place, len);
        self.journal.in_flight = Some(InFlight {
            place,
            data_offset: place.offset + header.len() as u64,
            records: builder.records,
            completions: builder.completions,
            ordered: now,
        });
        let mut data = Vec::with_capacity(builder.data.len() + 1);
        data.push(header);
        data.append(&mut builder.data);
        self.begin(DiskOrderKind::Write { offset: place.offset, data, durable: true }, Purpose::Batch, out);
    }

    fn take_urgent(&mut self, builder: &mut Builder, limit: u64) {
        while let Some(urgent) = self.journal.urgent.front().cloned() {
            let added = match urgent {
                Urgent::State { key, life, hold } => self.living(key, life).is_none_or(|s| {
                    let entry = Entry::State(s.state(false));
                    builder.push(key, &entry, limit) && {
                        builder.completions.push(Completion::State { key, life, hold });
                        true
                    }
                }),
                Urgent::Mark { key, life } => self.living(key, life).is_none_or(|s| {
                    let lsn = s.commit.min(s.durable);
                    builder.push(key, &Entry::Mark(lsn), limit) && {
                        builder.completions.push(Completion::Mark { key, life, lsn });
                        true
                    }
                }),
            };
            if !added {
                break;
            }
            self.journal.urgent.pop_front();
        }
    }

    /// A copy of a record that has left the log meanwhile, or was committed, is not needed.
    fn take_copies(&mut self, builder: &mut Builder, limit: u64) {
        while let Some(Copy { key, life, record }) = self.journal.copies.pop_front() {
            let position = record.position;
            let data_block = builder.data_blocks;
            let Some(s) = self.living(key, life) else { continue };
            let is_current = s.entry(position.lsn).is_some_and(|e| e.record.position == position);
            if !is_current || position.lsn <= s.commit {
                continue;
            }
            let entry = Entry::Record { record, commit: s.commit, data_block };
            if builder.push(key, &entry, limit) {
                builder.records.push(InFlightRecord { key, life, position, data_block, copy: true });
            } else if let Entry::Record { record, .. } = entry {
                self.journal.copies.push_front(Copy { key, life, record });
                return;
            }
        }
    }

    fn take_orders(&mut self, builder: &mut Builder, limit: u64) {
        while let Some(queued) = self.journal.normal.pop_front() {
            let Queued { key, life, entry, done } = queued;
            let data_block = builder.data_blocks;
            let entry = match entry {
                QueuedEntry::Record(record) => {
                    let commit = self.living(key, life).map_or(Lsn(0), |s| s.commit);
                    Entry::Record { record, commit, data_block }
                }
                QueuedEntry::Seal(epoch) => Entry::Seal(epoch),
                QueuedEntry::Cut(lsn) => Entry::Cut(lsn),
                QueuedEntry::State(state) => Entry::State(state),
            };
            if !builder.push(key, &entry, limit) {
                let entry = match entry {
                    Entry::Record { record, .. } => QueuedEntry::Record(record),
                    Entry::Seal(epoch) => QueuedEntry::Seal(epoch),
                    Entry::Cut(lsn) | Entry::Mark(lsn) => QueuedEntry::Cut(lsn),
                    Entry::State(state) => QueuedEntry::State(state),
                };
                self.journal.normal.push_front(Queued { key, life, entry, done });
                return;
            }
            if let Entry::Record { record, .. } = &entry {
                let position = record.position;
                builder.records.push(InFlightRecord { key, life, position, data_block, copy: false });
            }
            builder.completions.extend(done);
        }
    }

    /// The batch in flight is durable.
    pub(crate) fn batch_done(&mut self, now: Time, out: &mut Vec<StoreOutput>) {
        let Some(batch) = self.journal.in_flight.take() else { return };
        let times = &mut self.journal.times;
        times.batches += 1;
        times.records += batch.records.len() as u64;
        times.flush = times.flush + now.since(batch.ordered);
        // The newest go: what is oldest is soon in place.
        let excess = self.log_memory.saturating_sub(self.config.log_memory_bytes as u64);
        let mut freed = 0;
        for r in batch.records {
            let data = batch.data_offset + u64::from(r.data_block) * BLOCK_BYTES as u64;
            let Some(s) = self.living(r.key, r.life) else { continue };
            if r.copy && r.position.lsn <= s.commit {
                // Committed meanwhile: its content may be read from where it was first.
                continue;
            }
            let Some(entry) = s.entry_mut(r.position.lsn).filter(|e| e.record.position == r.position) else {
                continue;
            };
            entry.place = Some(RecordPlace { batch: batch.place, data });
            if freed < excess {
                freed += s.leave_to_journal(r.position.lsn, data);
            }
            if !r.copy {
                s.durable = s.durable.max(r.position.lsn);
            }
        }
        self.log_memory -= freed;
        for completion in batch.completions {
            self.complete_entry(batch.place.sequence, completion, out);
        }
        if self.ring.used() > self.ring_target() {
            self.journal.relief_due = true;
        }
    }

    fn complete_entry(&mut self, sequence: u64, completion: Completion, out: &mut Vec<StoreOutput>) {
        match completion {
            Completion::Order { key, token, outcome } => {
                out.push(StoreOutput::Done { segment: key, token, outcome });
            }
            Completion::Release { hold } => {
                self.journal.holds.remove(&hold);
            }
            Completion::State { key, life, hold } => {
                if let Some(s) = self.living(key, life) {
                    s.stated = Some(sequence);
                    s.state_queued = false;
                }
                hold.map(|h| self.journal.holds.remove(&h));
                self.unrecorded.retain(|of| (of.0, of.1) != (key, life) || of.2 > sequence);
                self.round_stated(key, sequence, out);
            }
            Completion::Mark { key, life, lsn } => {
                if let Some(s) = self.living(key, life) {
                    s.marked = s.marked.max(lsn);
                }
                self.round_marked(key, out);
            }
            Completion::Dropped { key, hold, extents } => {
                hold.map(|h| self.journal.holds.remove(&h));
                for entry in extents {
                    self.pages.release(entry.page);
                    if let Some(location) = entry.location {
                        self.extents.release(location);
                    }
                }
                out.push(StoreOutput::Dropped { segment: key });
            }
        }
    }

    /// How much of the ring is kept in use when nothing presses.
    fn ring_target(&self) -> u64 {
        // Not less than what makes writing the states again rare.
        self.config.log_retain_bytes.clamp(self.ring.capacity() / 8, self.ring.capacity() / 2)
    }

    /// Lets the tail move where the ring is too full, and has the superblock follow.
    pub(crate) fn relieve(&mut self, out: &mut Vec<StoreOutput>) {
        // When an order waits for room, what is kept for convenience has to go.
        let blocked = self.journal.blocked;
        let target = if blocked { self.ring.capacity() / 8 } else { self.ring_target() };
        let written = self.ring.total() - self.journal.relieved_at;
        let due = blocked || (self.journal.relief_due && written >= target / 16);
        if !due {
            return;
        }
        self.journal.relief_due = false;
        self.journal.relieved_at = self.ring.total();
        if self.ring.used() > target {
            let keep_from = self.ring.within(target / 4 * 3);
            let keys: Vec<SegmentKey> = self.segments.keys().copied().collect();
            for key in &keys {
                self.relieve_segment(*key, keep_from);
            }
            self.advance_tail();
            // Copying helps only as long as something else than uncommitted records takes room.
            let pressed = blocked || self.ring.used() > self.ring.capacity() / 4 * 3;
            let waste = self.ring.used().saturating_sub(self.uncommitted);
            if pressed && waste > self.ring.capacity() / WASTE_SHARE && self.journal.copies.is_empty() {
                let oldest = self.ring.used().saturating_sub(self.max_batch());
                let before = self.ring.within(oldest);
                keys.into_iter().for_each(|key| self.copy_forward(key, before, out));
            }
        }
        let reclaimable = self.ring.reclaimable();
        if reclaimable > 0 && (blocked || reclaimable > self.ring.capacity() / 8) {
            self.superblock_wanted = true;
        }
    }

    fn advance_tail(&mut self) {
        let of_segments = self.segments.values().flat_map(|s| [s.stated, s.oldest_batch()]);
        let holds = self.journal.holds.values().copied().map(Some);
        let oldest = of_segments.chain(holds).flatten().min().unwrap_or(u64::MAX);
        // The superblock may come to name the tail: it has to be a batch that is durable.
        let durable = self.journal.in_flight.as_ref().map_or(u64::MAX, |b| b.place.sequence - 1);
        self.ring.advance_tail(oldest.min(durable));
    }

    /// Has a segment need nothing before batch `keep_from`, as far as that goes.
    fn relieve_segment(&mut self, key: SegmentKey, keep_from: u64) {
        let Some(s) = self.segments.get_mut(&key) else { return };
        let is_old = |e: &&LogEntry| e.place.is_some_and(|p| p.batch.sequence < keep_from);
        if s.log
            .iter()
            .any(|e| is_old(&e) && e.record.position.lsn > s.settled && e.record.position.lsn <= s.commit)
        {
            self.writeback_due = true;
        }
        if s.stated.is_none() || s.state_queued {
            return;
        }
        let old = s.log.iter().take_while(is_old).map(|e| e.record.position.lsn);
        let trim = old.take_while(|l| *l <= s.settled).last();
        let oldest = [s.oldest_batch(), s.stated].into_iter().flatten().min();
        if let Some(lsn) = trim {
            s.trim_to(lsn);
        }
        if trim.is_some() || s.stated.is_some_and(|b| b < keep_from) {
            s.state_queued = true;
            let life = s.life;
            let hold = oldest.map(|b| self.journal.hold(b));
            self.journal.urgent.push_back(Urgent::State { key, life, hold });
        }
    }

    /// Writes uncommitted records again that lie before batch `before` (replication.md H14).
    fn copy_forward(&mut self, key: SegmentKey, before: u64, out: &mut Vec<StoreOutput>) {
        let Some(s) = self.segments.get(&key) else { return };
        let life = s.life;
        let is_old = |e: &&LogEntry| e.place.is_some_and(|p| p.batch.sequence < before);
        let mut missing = None;
        for entry in s.log.iter().filter(|e| e.record.position.lsn > s.commit).filter(is_old) {
            if entry.is_only_in_journal() {
                missing = missing.or(Some(entry.record.position.lsn));
            } else {
                self.journal.copies.push_back(Copy { key, life, record: entry.record.clone() });
            }
        }
        let is_copying = self.jobs.values().any(|j| j.key == key && matches!(j.kind, JobKind::Copy { .. }));
        if let Some(lsn) = missing.filter(|_| !is_copying) {
            self.start_copy(key, Lsn(lsn.0 - 1), self.max_batch() as usize, out);
        }
    }
}
