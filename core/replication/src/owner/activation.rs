//! From the grant to serving (replication.md §1, "activation", steps 2 to 6):
//!
//! ```text
//! Sealing ──r(base) seals, own copy's among them──> Fetching ──own log holds the best tail──> Equalising
//!    Equalising ──w(S') hold START──> Leases ──r(base) have no lease left──> Recording ──control: done──> Active
//!    any ──another grant──> Ended
//! ```
//!
//! Another owner reads under the leases of w(base) copies. A copy that sealed renews none, so once r(base) of the
//! copies that sealed have none left, fewer than w(base) leases run. One copy that reports a lease costs no pause
//! where the others are enough: one that has just started reports a full lease always, as it may have forgotten one.

use super::{Owner, OwnerOutput};
use crate::event::ReplicationEvent;
use crate::index::LogIndex;
use crate::message::{Body, SealState};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use holdfast_checksum::crc32c;
use holdfast_types::{
    BLOCK_BYTES, Duration, LogPosition, Record, RecordBody, ReplicaRef, SegmentCommand, Time,
};

/// How much of a log is asked for at once.
const FETCH_BYTES: u32 = 4 << 20;

/// See the module's text.
#[derive(Debug)]
pub(crate) enum Phase {
    Sealing,
    Fetching(Fetch),
    Equalising,
    Leases,
    Recording,
    Active,
    Ended,
}

impl Phase {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Phase::Sealing => "sealing",
            Phase::Fetching(_) => "fetching",
            Phase::Equalising => "equalising",
            Phase::Leases => "waiting for leases",
            Phase::Recording => "recording",
            Phase::Active => "active",
            Phase::Ended => "ended",
        }
    }
}

/// What is fetched from the copy with the best tail.
#[derive(Debug)]
pub(crate) struct Fetch {
    from: ReplicaRef,
    index: LogIndex,
    /// The question under way, and when it is asked again.
    asked: Option<(u64, Time)>,
}

impl Fetch {
    pub(super) fn source(&self) -> ReplicaRef {
        self.from
    }
}

#[derive(Debug)]
pub(crate) struct Activation {
    began: Time,
    seals: BTreeMap<ReplicaRef, SealState>,
    /// When the lease has passed that each copy of `base.S` reported when it sealed.
    leases: BTreeMap<ReplicaRef, Time>,
    /// The START record.
    pub(crate) start: LogPosition,
    /// Said once that the own copy cannot be served from.
    complained: bool,
    /// When to look whether this phase goes on.
    pub(super) look_at: Time,
    /// Copies that sealed and did not give their log: not fetched from again where the others suffice.
    pub(super) mute: BTreeSet<ReplicaRef>,
}

impl Activation {
    pub(crate) fn new(now: Time, patience: Duration) -> Self {
        Self {
            began: now,
            seals: BTreeMap::new(),
            leases: BTreeMap::new(),
            start: LogPosition::ZERO,
            complained: false,
            look_at: now + patience,
            mute: BTreeSet::new(),
        }
    }

    pub(super) fn has_sealed(&self, copy: ReplicaRef) -> bool {
        self.seals.contains_key(&copy)
    }

    pub(super) fn own_is_of_no_use(&self) -> bool {
        self.complained
    }
}

impl Owner {
    /// Step 2: seal `base.S` and S'.
    pub(super) fn seal_all(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let copies: Vec<ReplicaRef> = self.copies.keys().copied().collect();
        for copy in copies {
            self.seal(now, copy, out);
        }
    }

    /// Asks a copy for its promise and its log.
    pub(super) fn seal(&mut self, now: Time, copy: ReplicaRef, out: &mut Vec<OwnerOutput>) {
        let Some(c) = self.copies.get_mut(&copy) else { return };
        if c.up {
            c.asked(now);
            self.send(copy, Body::Seal { repeats: copy == self.own }, out);
        }
    }

    pub(super) fn sealed(
        &mut self,
        now: Time,
        copy: ReplicaRef,
        state: SealState,
        out: &mut Vec<OwnerOutput>,
    ) {
        let step = self.config.resend;
        self.note_lease(now, copy, state.lease_left);
        if let Phase::Leases = self.phase {
            self.equalised(now, out);
        }
        let Some(c) = self.copies.get_mut(&copy) else { return };
        c.index = Some(state.index.clone());
        c.lost = c.counts && state.incomplete_since.is_some();
        if let Phase::Sealing = self.phase {
            c.answered(now, true, step);
            self.activation.seals.insert(copy, state);
            return self.try_adopt(now, out);
        }
        if !c.counts {
            c.answered(now, true, step);
            return self.learner_sealed(now, copy, &state, out);
        }
        if c.next.is_none() && state.incomplete_since.is_none() {
            self.place(now, copy, &state.index, out);
        }
    }

    /// A lease is measured from the reply on, longer by what the clocks may differ. What a copy said first holds: it
    /// renews nobody's lease after it sealed, and only forgets if it is started again.
    fn note_lease(&mut self, now: Time, copy: ReplicaRef, left: Duration) {
        if self.base.set.contains(&copy) {
            let until = now + left + Duration(left.0 / 1000 * self.config.drift_per_mille);
            let known = self.activation.leases.entry(copy).or_insert(until);
            *known = until.min(*known);
        }
    }

    /// When another owner can read no more; unknown until enough copies have sealed.
    fn leases_over_at(&self) -> Option<Time> {
        let mut ends: Vec<Time> = self.activation.leases.values().copied().collect();
        ends.sort_unstable();
        ends.get(self.r_base() - 1).copied()
    }

    /// Step 3: choose the log, among complete copies of `base.S` only; a learner's may be hollow.
    fn try_adopt(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let seals = &self.activation.seals;
        let complete = |r: &&ReplicaRef| seals.get(r).is_some_and(|s| s.incomplete_since.is_none());
        let mut counted: Vec<ReplicaRef> = self.base.set.iter().filter(complete).copied().collect();
        let heard = |r: &ReplicaRef| !self.activation.mute.contains(r);
        if counted.iter().filter(|r| heard(r)).count() >= self.r_base() {
            counted.retain(heard);
        }
        let Some(own) = seals.get(&self.own) else { return };
        if own.incomplete_since.is_some() {
            return self.complain(ReplicationEvent::OwnCopyIncomplete, out);
        }
        let Some(best) = counted.iter().copied().max_by_key(|r| seals.get(r).map(|s| s.index.last())) else {
            return;
        };
        let Some(best_index) = seals.get(&best).map(|s| s.index.clone()) else { return };
        if counted.len() < self.r_base() {
            return;
        }
        let Some(common) = own.index.common(&best_index) else {
            let event = ReplicationEvent::OwnCopyTooOld { last: own.index.last() };
            return self.complain(event, out);
        };
        let mut index = own.index.clone();
        self.repeats = own.repeats.clone().unwrap_or_default();
        if best_index.last() > index.last() {
            index.cut_after(common.lsn);
            self.repeats.cut_after(common.lsn);
        }
        self.log = super::Log::new(index);
        if best_index.last() <= self.log.last() {
            return self.start(now, out);
        }
        self.phase(now, Phase::Fetching(Fetch { from: best, index: best_index, asked: None }), out);
        // The own copy takes what is fetched at once.
        self.place_known(now, out);
        self.fetch_more(now, out);
    }

    /// The own copy cannot be served from: another node's is to be (`stuck.rs`).
    fn complain(&mut self, event: ReplicationEvent, out: &mut Vec<OwnerOutput>) {
        if !core::mem::replace(&mut self.activation.complained, true) {
            self.event(event, out);
        }
    }

    fn phase(&mut self, now: Time, phase: Phase, out: &mut Vec<OwnerOutput>) {
        self.phase = phase;
        self.activation.look_at = now + self.config.activation_patience;
        self.event(ReplicationEvent::Phase { epoch: self.epoch, phase: self.phase.name() }, out);
    }

    /// Finds where each sealed copy's log meets the adopted one.
    fn place_known(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let known: Vec<(ReplicaRef, LogIndex)> = self
            .activation
            .seals
            .iter()
            .filter(|(r, s)| self.set.contains(r) && s.incomplete_since.is_none())
            .map(|(r, s)| (*r, s.index.clone()))
            .collect();
        for (copy, index) in known {
            self.place(now, copy, &index, out);
        }
    }

    pub(super) fn fetch_more(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let own_matched = self.copies.get(&self.own).map_or(self.commit, |c| c.matched);
        let behind = self.log.bytes_after(own_matched);
        let (last, number) = (self.log.last().lsn, self.next_number);
        let Phase::Fetching(fetch) = &mut self.phase else { return };
        if behind > self.config.in_flight_bytes || fetch.asked.is_some() {
            return;
        }
        fetch.asked = Some((number, now + self.config.resend_max));
        let from = fetch.from;
        self.next_number += 1;
        self.send(from, Body::Fetch { number, after: last, max_bytes: FETCH_BYTES }, out);
    }

    pub(super) fn fetched(
        &mut self,
        now: Time,
        copy: ReplicaRef,
        number: u64,
        records: Vec<Record>,
        out: &mut Vec<OwnerOutput>,
    ) {
        let Phase::Fetching(fetch) = &mut self.phase else { return };
        if fetch.from != copy || fetch.asked.is_none_or(|(n, _)| n != number) {
            return;
        }
        fetch.asked = None;
        let mut last = self.log.last();
        for record in &records {
            let follows = record.position.lsn == last.lsn.next() && fetch.index.has(record.position);
            if !follows || !intact(record) {
                // It is asked for again; a copy whose log does not pass is no source (it is sealed anew).
                return self.reseal(now, out);
            }
            last = record.position;
        }
        let (empty, done) = (records.is_empty(), last == fetch.index.last());
        for record in records {
            self.repeats.note(&record);
            self.log.push(now, record);
        }
        if empty {
            return self.reseal(now, out);
        }
        self.activation.look_at = now + self.config.activation_patience;
        if done {
            self.start(now, out);
        }
    }

    /// Back to step 2: the copy whose log was to be adopted does not give it.
    pub(super) fn reseal(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        self.activation.seals.clear();
        for copy in self.copies.values_mut() {
            copy.send_from(None);
            copy.matched = holdfast_types::Lsn(0);
            copy.answered(now, true, self.config.resend_max);
            copy.ask_at = Some(now + self.config.resend_max);
        }
        self.phase(now, Phase::Sealing, out);
    }

    /// The START record: the tail of this epoch outranks every older one from here on (H2).
    fn start(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let position = LogPosition { epoch: self.epoch, lsn: self.log.last().lsn.next() };
        self.log.push(now, Record { position, body: RecordBody::Start, request: None });
        self.activation.start = position;
        self.phase(now, Phase::Equalising, out);
        self.place_known(now, out);
        // Who did not answer yet is asked on.
        let rest: Vec<ReplicaRef> =
            self.copies.values().filter(|c| c.counts && c.next.is_none()).map(|c| c.replica).collect();
        for copy in rest {
            self.seal(now, copy, out);
        }
        self.equalised(now, out);
    }

    /// Steps 4 and 5.
    pub(super) fn equalised(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        if let Phase::Equalising = self.phase {
            let start = self.activation.start.lsn;
            let have = self.copies.values().filter(|c| c.counts && c.matched >= start).count();
            if have < self.w() {
                return;
            }
            self.phase(now, Phase::Leases, out);
        }
        if let Phase::Leases = self.phase {
            if self.leases_over_at().is_none_or(|at| now < at) {
                return;
            }
            self.phase(now, Phase::Recording, out);
            self.propose_activated(now, out);
        }
    }

    /// Step 6.
    pub(super) fn propose_activated(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let command =
            SegmentCommand::Activated { segment: self.key, epoch: self.epoch, tail: self.activation.start };
        self.propose(now, command, out);
    }

    pub(super) fn activated(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        self.phase(now, Phase::Active, out);
        self.activation.seals.clear();
        let took = now.since(self.activation.began);
        self.event(ReplicationEvent::Activated { epoch: self.epoch, tail: self.activation.start, took }, out);
        if let [replica] = self.set[..]
            && self.copies.len() > 1
        {
            self.event(ReplicationEvent::OneCopyLeft { replica }, out);
        }
        // Before anything that waited is ordered: what is fenced must not be.
        self.begin_fences(now, out);
        self.commit_to(now, self.activation.start.lsn, out);
        self.recompute_commit(now, out);
        self.advance(now, out);
        self.begin_resyncs(now, out);
    }

    pub(super) fn activation_timer(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        self.equalised(now, out);
        if let Phase::Fetching(fetch) = &mut self.phase
            && fetch.asked.is_some_and(|(_, at)| at <= now)
        {
            if self.links.contains(&fetch.from.node) {
                fetch.asked = None;
            } else {
                self.reseal(now, out);
            }
        }
    }

    pub(super) fn activation_timer_at(&self) -> Option<Time> {
        match &self.phase {
            Phase::Leases => self.leases_over_at(),
            Phase::Fetching(fetch) => fetch.asked.map(|(_, at)| at),
            Phase::Sealing | Phase::Equalising | Phase::Recording | Phase::Active | Phase::Ended => None,
        }
    }
}

/// Whether a record's data passes its checksums: what is adopted becomes the truth.
fn intact(record: &Record) -> bool {
    match &record.body {
        RecordBody::Write(w) => {
            w.data.len() == w.range.bytes()
                && w.crcs.len() == w.range.count as usize
                && w.data
                    .chunks_exact(BLOCK_BYTES)
                    .zip(w.crcs.iter())
                    .all(|(block, crc)| crc32c(block) == *crc)
        }
        RecordBody::Start | RecordBody::Zero(_) | RecordBody::Fence { .. } => true,
    }
}
