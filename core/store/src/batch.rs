//! Group commit. What must become durable waits in two queues: orders in the order given, and the store's own
//! entries, which go first because they free room. One batch is in flight at a time; the next takes all that
//! gathered meanwhile. A write of one block thus costs two blocks in the journal when it is alone: one for the
//! header, one for the data.

use crate::api::{JournalTimes, StoreOutput};
use crate::disk::{Disk, Purpose};
use crate::format::journal::{
    BATCH_HEADER_BYTES, Entry, MAX_BATCH_BYTES, MAX_ENTRIES_BYTES, SegmentState, encode_batch, encode_entry,
};
use crate::layout::{BLOCK, MIN_JOURNAL_BYTES};
use crate::read_log::is_missing;
use crate::relief::WASTE_SHARE;
use crate::ring::Place;
use crate::segment::{ExtentEntry, RecordPlace};
use alloc::{collections::BTreeMap, collections::BTreeSet, collections::VecDeque, vec, vec::Vec};
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
const _: () = assert!(MIN_JOURNAL_BYTES / MIN_BATCHES > MAX_RECORD_BYTES as u64 + 4 * BLOCK);
const _: () = assert!(MIN_BATCHES > MIN_BATCHES / WASTE_SHARE + 2 * (LEFT_BY_ORDERS + 1) + 2);

/// Something of an order's that must become durable.
#[derive(Debug)]
pub(crate) enum QueuedEntry {
    /// A record, with where its data is to go, if not to its batch.
    Record {
        record: Record,
        direct: Option<u64>,
    },
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

impl Queued {
    fn holds_the_tail(&self) -> bool {
        use Completion::{Cut, Dropped, State};
        matches!(&self.done, Some(Cut { hold, .. } | State { hold, .. } | Dropped { hold, .. }) if hold.is_some())
    }
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
    Order {
        key: SegmentKey,
        token: OrderToken,
        outcome: StoreOutcome,
    },
    /// Records that were cut off do not come back: those that have data elsewhere.
    Cut {
        key: SegmentKey,
        life: u64,
        gone: Vec<LogPosition>,
        hold: Option<u64>,
    },
    /// Nor do those up to `trim`.
    State {
        key: SegmentKey,
        life: u64,
        trim: Lsn,
        hold: Option<u64>,
    },
    Mark {
        key: SegmentKey,
        life: u64,
        lsn: Lsn,
    },
    Dropped {
        key: SegmentKey,
        hold: Option<u64>,
        extents: Vec<ExtentEntry>,
        shadows: Vec<u32>,
    },
}

/// A record of the batch in flight.
#[derive(Debug)]
struct InFlightRecord {
    key: SegmentKey,
    life: u64,
    position: LogPosition,
    data_block: u32,
    direct: Option<u64>,
    copy: bool,
}

#[derive(Debug)]
struct InFlight {
    place: Place,
    data_offset: u64,
    records: Vec<InFlightRecord>,
    completions: Vec<Completion>,
    ordered: Time,
    /// Orders to the disk that it waits for, and whether a flush comes then.
    outstanding: usize,
    flush: bool,
}

/// What waits for the journal, and what keeps its tail.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub urgent: VecDeque<Urgent>,
    pub copies: VecDeque<Copy>,
    pub normal: VecDeque<Queued>,
    in_flight: Option<InFlight>,
    /// Batches that must stay until something later is durable.
    pub holds: BTreeMap<u64, u64>,
    next_hold: u64,
    /// An entry waits for room.
    pub blocked: bool,
    /// How much was written when the tail was last looked after.
    pub relieved_at: u64,
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
    /// What it was held for is durable.
    fn release(&mut self, hold: Option<u64>) {
        hold.map(|h| self.holds.remove(&h));
    }
    /// The batch that is not durable yet.
    pub(crate) fn writing(&self) -> Option<u64> {
        self.in_flight.as_ref().map(|b| b.place.sequence)
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
    /// Data that goes elsewhere, where contiguous as one piece, and how much.
    direct: Vec<(u64, Vec<Bytes>)>,
    direct_bytes: u64,
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
            Entry::Record { record: Record { body: RecordBody::Write(w), .. }, direct: None, .. } => Some(w),
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

    /// Whether this much more data can go elsewhere with this batch.
    fn has_room_for_direct(&self, bytes: usize) -> bool {
        self.direct_bytes == 0 || self.direct_bytes + bytes as u64 <= MAX_BATCH_BYTES
    }

    /// Has data written to byte `at` of the disk.
    fn write_directly(&mut self, at: u64, data: Bytes) {
        self.direct_bytes += data.len() as u64;
        let end =
            |(start, pieces): &(u64, Vec<Bytes>)| start + pieces.iter().map(Bytes::len).sum::<usize>() as u64;
        match self.direct.last_mut() {
            Some(last) if end(last) == at => last.1.push(data),
            _ => self.direct.push((at, vec![data])),
        }
    }
}

impl Disk {
    /// The longest batch that this ring takes.
    pub(crate) fn max_batch(&self) -> u64 {
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
        // What holds the tail until it is durable must come through, or there would never be more room.
        let is_short = order_limit < self.max_batch();
        let is_pressed = is_short && self.journal.normal.iter().any(Queued::holds_the_tail);
        self.take_orders(&mut builder, if is_pressed { copy_limit } else { order_limit });
        let waiting = self.journal.urgent.len() + self.journal.copies.len() + self.journal.normal.len();
        // What only waits for the next batch lacks no room.
        self.journal.blocked = waiting > 0 && is_short;
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
        self.ring.tells_of(builder.direct_bytes);
        self.journal.in_flight = Some(InFlight {
            place,
            data_offset: place.offset + header.len() as u64,
            records: builder.records,
            completions: builder.completions,
            ordered: now,
            outstanding: 1 + builder.direct.len(),
            flush: !builder.direct.is_empty(),
        });
        let mut data = Vec::with_capacity(builder.data.len() + 1);
        data.push(header);
        data.append(&mut builder.data);
        // Alone it is made durable as it is written; with data elsewhere, one flush is for all.
        let durable = builder.direct.is_empty();
        for (offset, data) in builder.direct {
            self.begin(DiskOrderKind::Write { offset, data, durable: false }, Purpose::Batch, out);
        }
        self.begin(DiskOrderKind::Write { offset: place.offset, data, durable }, Purpose::Batch, out);
    }

    /// An order of the batch in flight is done.
    pub(crate) fn batch_step(&mut self, now: Time, out: &mut Vec<StoreOutput>) {
        let Some(batch) = &mut self.journal.in_flight else { return };
        batch.outstanding -= 1;
        if batch.outstanding > 0 {
            return;
        }
        if core::mem::take(&mut batch.flush) {
            batch.outstanding = 1;
            return self.begin(DiskOrderKind::Flush, Purpose::Batch, out);
        }
        self.batch_done(now, out);
    }

    fn take_urgent(&mut self, builder: &mut Builder, limit: u64) {
        while let Some(urgent) = self.journal.urgent.front().cloned() {
            let added = match urgent {
                Urgent::State { key, life, hold } => self.living(key, life).is_none_or(|s| {
                    let (state, trim) = (s.state(false), s.trim.lsn);
                    builder.push(key, &Entry::State(state), limit) && {
                        builder.completions.push(Completion::State { key, life, trim, hold });
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
            let Some(current) = s.entry(position.lsn).filter(|e| e.record.position == position) else {
                self.way_is_clear(key);
                continue;
            };
            let direct = match current.direct {
                direct if position.lsn > s.commit => direct,
                // In place, and in the way.
                Some(_) if position.lsn <= s.settled && !is_missing(&record) => None,
                _ => {
                    self.way_is_clear(key);
                    continue;
                }
            };
            let entry = Entry::Record { record, commit: s.commit, data_block, direct };
            if builder.push(key, &entry, limit) {
                builder.records.push(InFlightRecord { key, life, position, data_block, direct, copy: true });
            } else if let Entry::Record { record, .. } = entry {
                self.journal.copies.push_front(Copy { key, life, record });
                return;
            }
        }
    }

    fn take_orders(&mut self, builder: &mut Builder, limit: u64) {
        while let Some(queued) = self.journal.normal.pop_front() {
            if let QueuedEntry::Record { record, direct: Some(_) } = &queued.entry
                && !builder.has_room_for_direct(record.data_bytes())
            {
                self.journal.normal.push_front(queued);
                return;
            }
            let Queued { key, life, entry, done } = queued;
            let data_block = builder.data_blocks;
            let entry = match entry {
                QueuedEntry::Record { record, direct } => {
                    let commit = self.living(key, life).map_or(Lsn(0), |s| s.commit);
                    Entry::Record { record, commit, data_block, direct }
                }
                QueuedEntry::Seal(epoch) => Entry::Seal(epoch),
                QueuedEntry::Cut(lsn) => Entry::Cut(lsn),
                QueuedEntry::State(state) => Entry::State(state),
            };
            if !builder.push(key, &entry, limit) {
                let entry = match entry {
                    Entry::Record { record, direct, .. } => QueuedEntry::Record { record, direct },
                    Entry::Seal(epoch) => QueuedEntry::Seal(epoch),
                    Entry::Cut(lsn) | Entry::Mark(lsn) => QueuedEntry::Cut(lsn),
                    Entry::State(state) => QueuedEntry::State(state),
                };
                self.journal.normal.push_front(Queued { key, life, entry, done });
                return;
            }
            if let Entry::Record { record, direct, .. } = &entry {
                let (position, direct) = (record.position, *direct);
                if let (Some(at), RecordBody::Write(w)) = (direct, &record.body) {
                    builder.write_directly(at, w.data.clone());
                }
                builder.records.push(InFlightRecord { key, life, position, data_block, direct, copy: false });
            }
            builder.completions.extend(done);
        }
    }

    /// The batch in flight is durable.
    fn batch_done(&mut self, now: Time, out: &mut Vec<StoreOutput>) {
        let Some(batch) = self.journal.in_flight.take() else { return };
        let times = &mut self.journal.times;
        times.batches += 1;
        times.records += batch.records.len() as u64;
        let took = now.since(batch.ordered);
        times.flush = times.flush + took;
        self.pace.wrote(now, took, out);
        // The newest go: what is oldest is soon in place.
        let excess = self.log_memory.saturating_sub(self.config.log_memory_bytes as u64);
        let (mut freed, mut home, mut copied) = (0, BTreeMap::<_, Vec<_>>::new(), BTreeSet::new());
        for r in batch.records {
            let in_batch = batch.data_offset + u64::from(r.data_block) * BLOCK_BYTES as u64;
            let data = r.direct.unwrap_or(in_batch);
            let Some(s) = self.living(r.key, r.life) else { continue };
            let committed = r.position.lsn <= s.commit;
            let Some(entry) = s.entry_mut(r.position.lsn).filter(|e| e.record.position == r.position) else {
                continue;
            };
            copied.extend(r.copy.then_some(r.key));
            let comes_home = entry.direct.is_some() && r.direct.is_none();
            if r.copy && committed && !comes_home {
                // Committed meanwhile: its content may be read from where it was first.
                continue;
            }
            entry.place = Some(RecordPlace { batch: batch.place, data });
            entry.direct = r.direct;
            if comes_home {
                home.entry((r.key, r.life)).or_default().push(r.position);
                continue;
            }
            if freed < excess {
                freed += s.leave_to_journal(r.position.lsn, data);
            }
            if !r.copy {
                s.durable = s.durable.max(r.position.lsn);
            }
        }
        self.log_memory -= freed;
        for ((key, life), gone) in home {
            self.forget_pointers(key, life, |record| gone.contains(&record));
        }
        copied.into_iter().for_each(|key| self.way_is_clear(key));
        for completion in batch.completions {
            self.complete_entry(batch.place.sequence, completion, out);
        }
        if self.ring.told() > self.ring_target() {
            self.journal.relief_due = true;
        }
    }

    fn complete_entry(&mut self, sequence: u64, completion: Completion, out: &mut Vec<StoreOutput>) {
        match completion {
            Completion::Order { key, token, outcome } => {
                out.push(StoreOutput::Done { segment: key, token, outcome });
            }
            Completion::Cut { key, life, gone, hold } => {
                self.journal.release(hold);
                self.forget_pointers(key, life, |record| gone.contains(&record));
            }
            Completion::State { key, life, trim, hold } => {
                if let Some(s) = self.living(key, life) {
                    s.stated = Some(sequence);
                    s.state_queued = false;
                }
                self.journal.release(hold);
                self.forget_pointers(key, life, |record| record.lsn <= trim);
                self.unrecorded.retain(|of| (of.0, of.1) != (key, life) || of.2 > sequence);
                self.round_stated(key, sequence, out);
            }
            Completion::Mark { key, life, lsn } => {
                if let Some(s) = self.living(key, life) {
                    s.marked = s.marked.max(lsn);
                }
                self.round_marked(key, out);
            }
            Completion::Dropped { key, hold, extents, shadows } => {
                self.journal.release(hold);
                extents.iter().for_each(|entry| self.pages.release(entry.page));
                let places: Vec<u32> =
                    extents.into_iter().filter_map(|entry| entry.location).chain(shadows).collect();
                match self.round.as_mut().filter(|round| round.may_write_to(key)) {
                    Some(round) => round.dropped.extend(places),
                    None => places.into_iter().for_each(|location| self.extents.release(location)),
                }
                out.push(StoreOutput::Dropped { segment: key });
            }
        }
    }
}
