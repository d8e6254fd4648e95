//! Orders that change a segment's log: promises, records, cuts, commits, and a copy's beginning and end. What an
//! extent will need is kept free from the moment a record is in the log, so that a commit never lacks space.

use crate::api::{StoreEvent, StoreOutput};
use crate::batch::{Completion, QueuedEntry};
use crate::disk::Disk;
use crate::format::journal::{SegmentState, is_whole};
use crate::segment::{LogEntry, Segment, written_extents};
use alloc::{collections::BTreeSet, vec::Vec};
use holdfast_types::{
    BLOCK_BYTES, Epoch, LogPosition, Lsn, MAX_RECORD_BYTES, OrderToken, Record, RecordBody, RepeatState,
    SegmentKey, StoreOutcome, StoreRefusal, Time,
};

impl Disk {
    pub(crate) fn seal(&mut self, key: SegmentKey, token: OrderToken, epoch: Epoch) {
        self.ensure_stated(key);
        let Some(s) = self.segments.get_mut(&key) else { return };
        s.sealed = s.sealed.max(epoch);
        let (life, epoch) = (s.life, s.sealed);
        let done = Completion::Order { key, token, outcome: StoreOutcome::Sealed };
        self.queue(key, life, QueuedEntry::Seal(epoch), Some(done));
    }

    pub(crate) fn append(
        &mut self,
        key: SegmentKey,
        token: OrderToken,
        cut_after: Option<Lsn>,
        records: Vec<Record>,
        sealed: Epoch,
        out: &mut Vec<StoreOutput>,
    ) -> Result<(), StoreRefusal> {
        // Once one is refused, those that were given before the giver heard of it are refused with it: they follow
        // records that are not there, and could follow others by chance.
        let Some(s) = self.segments.get(&key) else { return Err(StoreRefusal::Unknown) };
        let end = cut_after.map_or(s.last().lsn, |after| after.min(s.last().lsn));
        let follows = (end.0 + 1..).zip(&records).all(|(lsn, r)| r.position.lsn.0 == lsn);
        if let Some(refusal) = self.refusing.get(&key) {
            return Err(*refusal);
        }
        if !follows {
            return Err(StoreRefusal::Later);
        }
        let fits = match damaged_record(&records) {
            Some(lsn) => {
                out.push(StoreOutput::Event(StoreEvent::DamagedRecord { segment: key, lsn }));
                Err(StoreRefusal::Later)
            }
            None => self.fits(key, &records),
        };
        let fresh = fits.map_err(|refusal| {
            let refusal = if refusal == StoreRefusal::Full { self.no_room() } else { refusal };
            self.refusing.insert(key, refusal);
            refusal
        })?;
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
            self.log_record(key, life, record, fresh);
        }
        let last = self.segments.get(&key).map(Segment::last).unwrap_or_default();
        if let Some(queued) = self.journal.normal.back_mut() {
            debug_assert!(queued.done.is_none());
            queued.done = Some(Completion::Order { key, token, outcome: StoreOutcome::Appended { last } });
        }
        Ok(())
    }

    /// `fresh`: how many extents its append is promised, whether counted yet or not.
    fn log_record(&mut self, key: SegmentKey, life: u64, record: Record, fresh: u64) {
        assert!(record.data_bytes() <= MAX_RECORD_BYTES, "a longer request is split by the gateway");
        assert!(record.range().is_none_or(|r| r.in_segment()), "a record lies in its segment");
        let direct = self.place_directly(key, &record, fresh);
        let Some(s) = self.segments.get_mut(&key) else { return };
        assert_eq!(record.position.lsn, s.last().lsn.next(), "records follow each other");
        self.log_memory += record.data_bytes() as u64;
        self.uncommitted += journal_cost(&record);
        s.log.push_back(LogEntry { record: record.clone(), place: None, direct });
        let lsn = record.position.lsn;
        for extent in written_extents(&record) {
            self.pending_add(key, extent.0);
            self.use_kept(key, extent.0, lsn);
        }
        self.queue(key, life, QueuedEntry::Record { record, direct }, None);
    }

    /// Removes records after `after` from the log.
    pub(crate) fn cut(&mut self, key: SegmentKey, after: Lsn) {
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
        let hold = oldest.map(|sequence| self.journal.hold(sequence));
        let pointing = pointing(&gone);
        self.queue(
            key,
            life,
            QueuedEntry::Cut(after),
            Some(Completion::Cut { key, life, gone: pointing, hold }),
        );
        self.forget_entries(key, &gone, Lsn(0), Lsn(0));
    }

    /// Takes entries that left the log out of every count.
    pub(crate) fn forget_entries(&mut self, key: SegmentKey, gone: &[LogEntry], commit: Lsn, settled: Lsn) {
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
                self.log_memory -= core::mem::take(&mut w.data).len() as u64;
            }
        }
        for extent in extents {
            self.pending_remove(key, extent);
        }
    }

    pub(crate) fn reset(&mut self, key: SegmentKey, token: OrderToken, base: LogPosition, sealed: Epoch) {
        let Some(s) = self.segments.get_mut(&key) else { return };
        let (life, commit, settled) = (s.life, s.commit, s.settled);
        let mut oldest = s.oldest_batch();
        if let (Some(stated), oldest) = (s.stated, &mut oldest) {
            *oldest = Some(oldest.map_or(stated, |o| o.min(stated)));
        }
        let gone: Vec<LogEntry> = s.log.drain(..).collect();
        s.sealed = s.sealed.max(sealed);
        let since = s.incomplete_since.unwrap_or(settled);
        s.incomplete_since = Some(since);
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
        let hold = oldest.map(|sequence| self.journal.hold(sequence));
        let pointing = pointing(&gone);
        let done = Completion::State { key, life, trim: Lsn(0), hold };
        self.queue(key, life, QueuedEntry::State(state), Some(done));
        if !pointing.is_empty() {
            let done = Completion::Cut { key, life, gone: pointing, hold: None };
            self.queue(key, life, QueuedEntry::Seal(sealed), Some(done));
        }
        self.forget_entries(key, &gone, commit, settled);
        let done = Completion::Order { key, token, outcome: StoreOutcome::Reset { since } };
        self.queue(key, life, QueuedEntry::Seal(sealed), Some(done));
    }

    pub(crate) fn complete(&mut self, key: SegmentKey, token: OrderToken, repeats: RepeatState) {
        let Some(s) = self.segments.get_mut(&key) else { return };
        s.incomplete_since = None;
        let since_base = core::mem::replace(&mut s.repeats, repeats);
        merge_repeats(&mut s.repeats, since_base);
        s.state_queued = true;
        let (life, state, sealed) = (s.life, s.state(false), s.sealed);
        let done = Completion::State { key, life, trim: Lsn(0), hold: None };
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

    /// Gives up a copy. Its space is free once that is durable, and it is said then.
    pub(crate) fn drop_segment(&mut self, key: SegmentKey, out: &mut Vec<StoreOutput>) {
        let Some(s) = self.segments.get_mut(&key) else {
            if !self.failed && !self.journal.dropping().any(|k| k == key) {
                out.push(StoreOutput::Dropped { segment: key });
            }
            return;
        };
        let (commit, settled) = (s.commit, s.settled);
        let mut oldest = s.oldest_batch();
        oldest = [oldest, s.stated].into_iter().flatten().min();
        let gone: Vec<LogEntry> = s.log.drain(..).collect();
        let life = s.life;
        let mut shadows: Vec<u32> =
            core::mem::take(&mut s.shadows).into_values().map(|s| s.location).collect();
        let is_of = |of: &&mut (SegmentKey, u64, u32)| (of.0, of.1) == (key, life);
        shadows.extend(self.leaving.extract_if(.., |of| is_of(&of)).map(|of| of.2));
        self.forget_entries(key, &gone, commit, settled);
        let Some(mut s) = self.segments.remove(&key) else { return };
        // Images that wait to be installed hold promises of their own.
        let claimed: BTreeSet<u32> = s.pending.keys().chain(s.kept.keys()).copied().collect();
        for extent in claimed.into_iter().filter(|e| !s.has_place(*e)) {
            self.promise_ended(key, s.life, extent);
        }
        self.dirty.remove(&key);
        // Who waits for its extents is to hear of it.
        self.writeback_due |= self.postponed.keys().any(|(k, _)| *k == key);
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
            let done = Completion::Dropped { key, hold, extents, shadows };
            self.queue(key, s.life, QueuedEntry::State(state), Some(done));
        } else {
            assert!(
                extents.is_empty() && shadows.is_empty(),
                "a copy without a durable state has nothing in place"
            );
            out.push(StoreOutput::Dropped { segment: key });
        }
    }
}

/// Those of records that have their data elsewhere.
fn pointing(records: &[LogEntry]) -> Vec<LogPosition> {
    records.iter().filter(|e| e.direct.is_some()).map(|e| e.record.position).collect()
}

/// The most that a record takes in the journal: a batch of its own.
pub(crate) fn journal_cost(record: &Record) -> u64 {
    let data = match &record.body {
        RecordBody::Write(w) => w.range.bytes(),
        _ => 0,
    };
    (data + BLOCK_BYTES) as u64
}

/// A record with data that does not pass the checksum that came with it. In the journal it would look like a
/// torn batch when the disk is opened.
fn damaged_record(records: &[Record]) -> Option<Lsn> {
    let is_damaged = |record: &&Record| {
        let RecordBody::Write(w) = &record.body else { return false };
        assert_eq!(w.data.len(), w.range.bytes(), "a write's data covers its range");
        assert_eq!(w.crcs.len(), w.range.count as usize, "a write has a checksum for each block");
        !is_whole(w, &w.data)
    };
    records.iter().find(is_damaged).map(|r| r.position.lsn)
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
