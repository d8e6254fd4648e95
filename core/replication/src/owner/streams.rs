//! Records on their way to the copies: one append per copy and burst, from memory where the records are still
//! there, else from the own store. A copy that came back, or whose answer is missing, is asked with an empty
//! append where its log ends; what it answers says what to send.

use super::{Owner, OwnerOutput, StoreUse};
use crate::event::ReplicationEvent;
use crate::index::LogIndex;
use crate::message::Body;
use alloc::vec::Vec;
use holdfast_types::{Lsn, ReplicaRef, StoreOrder, StoreOutcome, StoreRefusal, Time};

/// The most data in one append.
const APPEND_BYTES: usize = 4 << 20;
/// The most records in one append.
pub(super) const APPEND_RECORDS: usize = 1024;
/// How much is read from the own store at once for a copy that is behind.
const LOAD_BYTES: usize = 2 << 20;
/// A copy that this often in a row says that its log ends before what it acknowledged has lost it: one such answer
/// may have been overtaken on its way.
const REGRESSED_AFTER: u32 = 4;

impl Owner {
    /// Says where a copy's log meets the owner's, and sends from there on.
    pub(super) fn place(
        &mut self,
        now: Time,
        copy: ReplicaRef,
        index: &LogIndex,
        out: &mut Vec<OwnerOutput>,
    ) {
        let common = self.log.index().common(index);
        let Some(c) = self.copies.get_mut(&copy) else { return };
        match common {
            Some(position) => {
                // An index may be older than what was acknowledged since.
                c.send_from(Some(position.lsn.next().max(c.matched.next())));
                c.too_far = false;
                c.asked(now);
                self.probe_copy(now, copy, out);
            }
            None => {
                c.too_far = true;
                self.consider_drop(now, out);
            }
        }
    }

    /// Asks a copy what it has, with an empty append at the end of what was sent to it.
    pub(super) fn probe_copy(&mut self, now: Time, copy: ReplicaRef, out: &mut Vec<OwnerOutput>) {
        let Some(next) = self.copies.get(&copy).and_then(|c| c.next) else {
            return self.seal(now, copy, out);
        };
        let Some(prev) = self.log.index().position(Lsn(next.0 - 1)) else {
            // The index does not reach back that far any more.
            if let Some(c) = self.copies.get_mut(&copy) {
                c.send_from(None);
            }
            return self.seal(now, copy, out);
        };
        self.send_append(copy, prev, Vec::new(), out);
    }

    fn send_append(
        &mut self,
        copy: ReplicaRef,
        prev: holdfast_types::LogPosition,
        records: Vec<holdfast_types::Record>,
        out: &mut Vec<OwnerOutput>,
    ) {
        let commit = self.commit;
        if let Some(c) = self.copies.get_mut(&copy) {
            c.sent_commit = commit;
            c.in_flight.sent(&records);
        }
        self.send(copy, Body::Append { prev, records, commit }, out);
    }

    /// Sends a copy what it does not have yet.
    pub(super) fn stream(&mut self, now: Time, copy: ReplicaRef, out: &mut Vec<OwnerOutput>) {
        loop {
            let last = self.log.last().lsn;
            let Some(c) = self.copies.get_mut(&copy) else { return };
            let Some(next) = c.next.filter(|_| c.up && c.heard && c.refused.is_none() && !c.loading) else {
                return;
            };
            if next > last {
                // The own copy hears of a commit at once: reads wait for it.
                if copy == self.own && c.sent_commit < self.commit {
                    self.probe_copy(now, copy, out);
                }
                return;
            }
            if c.in_flight.bytes() >= self.config.copy_in_flight_bytes {
                return;
            }
            if next < self.log.first_kept() {
                return self.load(copy, next, out);
            }
            let Some(prev) = self.log.index().position(Lsn(next.0 - 1)) else {
                c.send_from(None);
                return self.seal(now, copy, out);
            };
            let records = self.log.batch(next, APPEND_BYTES, c.batch);
            c.next = Some(Lsn(next.0 + records.len() as u64));
            c.asked(now);
            self.send_append(copy, prev, records, out);
        }
    }

    /// Reads older records from the own store, one piece at a time.
    fn load(&mut self, copy: ReplicaRef, next: Lsn, out: &mut Vec<OwnerOutput>) {
        let own_has = self.copies.get(&self.own).map_or(Lsn(0), |c| c.matched);
        let Some(c) = self.copies.get_mut(&copy) else { return };
        if copy == self.own || next > own_has {
            return;
        }
        c.loading = true;
        let order = StoreOrder::ReadLog { after: Lsn(next.0 - 1), max_bytes: LOAD_BYTES };
        self.store(StoreUse::Load { copy, next }, order, out);
    }

    pub(super) fn loaded(
        &mut self,
        now: Time,
        copy: ReplicaRef,
        next: Lsn,
        outcome: StoreOutcome,
        out: &mut Vec<OwnerOutput>,
    ) {
        let Some(c) = self.copies.get_mut(&copy) else { return };
        c.loading = false;
        if c.next != Some(next) {
            return;
        }
        let StoreOutcome::Log { mut records } = outcome else { return };
        records.truncate(c.batch);
        let index = self.log.index();
        let wanted = records.iter().take_while(|r| index.has(r.position)).count();
        let follows = records.first().is_some_and(|r| r.position.lsn == next);
        let Some(prev) = index.position(Lsn(next.0 - 1)).filter(|_| follows && wanted == records.len())
        else {
            c.too_far = true;
            return self.fell_behind(now, copy, out);
        };
        c.next = Some(Lsn(next.0 + wanted as u64));
        c.asked(now);
        self.send_append(copy, prev, records, out);
    }

    /// What the copy needs is in no log any more.
    fn fell_behind(&mut self, now: Time, copy: ReplicaRef, out: &mut Vec<OwnerOutput>) {
        if self.resyncs.contains_key(&copy) {
            return self.learner_fell_behind(now, copy, out);
        }
        self.consider_drop(now, out);
    }

    pub(super) fn appended(
        &mut self,
        now: Time,
        copy: ReplicaRef,
        matched: Lsn,
        committed: Lsn,
        out: &mut Vec<OwnerOutput>,
    ) {
        let (last, commit, step) = (self.log.last().lsn, self.commit, self.config.resend);
        let Some(c) = self.copies.get_mut(&copy) else { return };
        let Some(next) = c.next.filter(|_| matched <= last) else { return };
        // A reply may have been overtaken: nothing falls.
        let before = c.matched;
        c.matched = before.max(matched);
        c.in_flight.acknowledged(c.matched);
        if c.matched > before {
            c.batch = (c.batch * 2).min(APPEND_RECORDS);
        }
        c.committed = c.committed.max(committed.min(commit));
        if next <= c.matched {
            c.next = Some(c.matched.next());
        }
        // That it answers is no progress while it refuses what comes next.
        let all = c.next == Some(c.matched.next()) && c.refused.is_none();
        if c.matched > before || all {
            c.answered(now, all, step);
        }
        let after = c.matched;
        self.note_times(now, copy, before, after);
        self.equalised(now, out);
        self.recompute_commit(now, out);
        if copy == self.own {
            self.own_advanced(now, out);
        } else if after > before {
            self.release_log();
        }
        self.repairs_heard(now, out);
        self.learner_advanced(now, copy, out);
    }

    pub(super) fn needs(&mut self, now: Time, copy: ReplicaRef, index: LogIndex, out: &mut Vec<OwnerOutput>) {
        let common = self.log.index().common(&index);
        let Some(c) = self.copies.get_mut(&copy) else { return };
        if c.next.is_none() && !c.counts {
            // A learner is placed by its seal and its answer to Learn alone.
            return;
        }
        match common {
            Some(position) if position.lsn < c.matched => {
                c.regress_hints += 1;
                if c.regress_hints == REGRESSED_AFTER && c.counts {
                    let (acknowledged, last) = (c.matched, index.last());
                    self.event(ReplicationEvent::Regressed { replica: copy, acknowledged, last }, out);
                    self.consider_drop(now, out);
                } else if c.regress_hints >= REGRESSED_AFTER && !c.counts {
                    self.learner_regressed(now, copy, out);
                }
            }
            Some(position) => {
                c.send_from(Some(position.lsn.next()));
                c.asked(now);
            }
            None if c.counts => {
                c.too_far = true;
                self.consider_drop(now, out);
            }
            None => self.fell_behind(now, copy, out),
        }
    }

    /// A copy whose log ends again and again before what it acknowledged has lost it (H20).
    pub(super) fn regressed(&self, copy: ReplicaRef) -> bool {
        self.copies.get(&copy).is_some_and(|c| c.regress_hints >= REGRESSED_AFTER)
    }

    pub(super) fn refused(
        &mut self,
        now: Time,
        copy: ReplicaRef,
        reason: StoreRefusal,
        out: &mut Vec<OwnerOutput>,
    ) {
        let max = self.config.resend_max;
        if reason == StoreRefusal::Full {
            self.note_full(copy, true, out);
        }
        let is_own = copy == self.own;
        let Some(c) = self.copies.get_mut(&copy) else { return };
        c.lost |=
            c.counts && (reason == StoreRefusal::Incomplete || (is_own && reason == StoreRefusal::Failed));
        if reason == StoreRefusal::Incomplete {
            // What it acknowledges is in its log all the same.
            return self.consider_drop(now, out);
        }
        // That it is full is told once, that it can take no more at this moment not at all.
        if c.refused != Some(reason) && matches!(reason, StoreRefusal::Failed | StoreRefusal::Unknown) {
            self.event(ReplicationEvent::StoreRefused { replica: copy, reason }, out);
        }
        let Some(c) = self.copies.get_mut(&copy) else { return };
        c.refused = Some(reason);
        let was_single = c.batch == 1;
        // An append is stored as a whole or not at all: in smaller ones a discard gets in that makes room for what
        // follows it.
        c.batch = (c.batch / 8).max(1);
        c.waiting_since.get_or_insert(now);
        c.send_from(c.next.map(|_| c.matched.next()));
        c.back_off(now, max);
        if reason == StoreRefusal::Full && was_single {
            self.learner_lacks_room(now, copy, out);
        }
    }

    pub(super) fn copy_link(&mut self, now: Time, copy: ReplicaRef, up: bool, out: &mut Vec<OwnerOutput>) {
        let (step, is_own) = (self.config.resend, copy == self.own);
        let Some(c) = self.copies.get_mut(&copy) else { return };
        c.up = up;
        c.heard = false;
        // Nothing of that arrives any more; it says where its log ends before more is sent.
        c.in_flight = Default::default();
        if !up {
            if !is_own {
                // A copy that was started anew has to hear again what is committed.
                c.committed = Lsn(0);
            }
            c.away_since.get_or_insert(now);
            c.ask_at = None;
            self.repairs_lost(now, copy, out);
            return self.learner_lost(copy);
        }
        c.away_since = None;
        c.waiting_since = None;
        c.ask_step = step;
        c.refused = None;
        c.asked(now);
        self.rooms_link(now);
        self.probe_copy(now, copy, out);
        self.begin_resyncs(now, out);
    }

    pub(super) fn streams_timer(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let max = self.config.resend_max;
        let due: Vec<ReplicaRef> = self
            .copies
            .values_mut()
            .filter(|c| c.up && c.ask_at.is_some_and(|at| at <= now))
            .map(|c| {
                c.back_off(now, max);
                c.refused = None;
                c.replica
            })
            .collect();
        for copy in due {
            self.probe_copy(now, copy, out);
        }
        if self.commit_due.is_some_and(|at| at <= now) {
            self.commit_due = None;
            let behind: Vec<ReplicaRef> = self
                .copies
                .values()
                .filter(|c| c.up && c.next.is_some() && c.sent_commit < self.commit)
                .map(|c| c.replica)
                .collect();
            for copy in behind {
                self.probe_copy(now, copy, out);
            }
        }
    }

    pub(super) fn streams_timer_at(&self) -> Option<Time> {
        let asks = self.copies.values().filter(|c| c.up).filter_map(|c| c.ask_at);
        asks.chain(self.commit_due).min()
    }
}
