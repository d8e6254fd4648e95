//! What the owner knows of each copy: how far its log is equal, what was sent to it, since when it is behind.

use super::log::size;
use super::streams::APPEND_RECORDS;
use crate::index::LogIndex;
use alloc::collections::VecDeque;
use holdfast_types::{Duration, Lsn, Record, ReplicaRef, StoreRefusal, Time};

/// A copy, of S or a learner.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) replica: ReplicaRef,
    /// In S: its acknowledgements count. A learner's never do (H6).
    pub(crate) counts: bool,
    pub(crate) up: bool,
    /// It answered since its link is up. Before that its disk may still be closed, and what it is sent be lost.
    pub(crate) heard: bool,
    /// The next LSN to send. None: where its log meets the owner's is not known yet.
    pub(crate) next: Option<Lsn>,
    pub(crate) in_flight: InFlight,
    /// Durable and equal to the owner's log.
    pub(crate) matched: Lsn,
    /// Its store was told that everything up to here is committed.
    pub(crate) committed: Lsn,
    pub(crate) sent_commit: Lsn,
    /// Its log as it last said, for a learner the base of the decision how to resync it.
    pub(crate) index: Option<LogIndex>,
    /// A piece of the log is being read from the own store for it.
    pub(crate) loading: bool,
    /// What it has not acknowledged was first outstanding then; any progress starts it anew.
    pub(crate) waiting_since: Option<Time>,
    pub(crate) away_since: Option<Time>,
    pub(crate) ask_at: Option<Time>,
    pub(crate) ask_step: Duration,
    /// It said that its log ends before what it acknowledged, this often in a row.
    pub(crate) regress_hints: u32,
    pub(crate) refused: Option<StoreRefusal>,
    /// It lost a part of what it held, or all of it with its disk.
    pub(crate) lost: bool,
    /// What it needs is not in the log any more.
    pub(crate) too_far: bool,
    /// The most records in one append to it.
    pub(crate) batch: usize,
    /// Its disk has no room for new data.
    pub(crate) full: bool,
    /// How many extents its disk had left for new data when it was asked last.
    pub(crate) spare: u64,
    /// It did not answer in time whether it has room; until it does it is not waited for.
    pub(crate) silent: bool,
}

/// Appends that a copy did not acknowledge yet.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// The last LSN and the bytes of each, oldest first.
    appends: VecDeque<(Lsn, usize)>,
    bytes: usize,
}

impl InFlight {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
    pub(crate) fn sent(&mut self, records: &[Record]) {
        let Some(last) = records.last() else { return };
        let bytes = records.iter().map(size).sum();
        self.appends.push_back((last.position.lsn, bytes));
        self.bytes += bytes;
    }
    pub(crate) fn acknowledged(&mut self, matched: Lsn) {
        while let Some((_, bytes)) = self.appends.pop_front_if(|(last, _)| *last <= matched) {
            self.bytes -= bytes;
        }
    }
}

impl Copy {
    pub(crate) fn new(now: Time, replica: ReplicaRef, counts: bool, up: bool, step: Duration) -> Self {
        Self {
            replica,
            counts,
            up,
            heard: false,
            next: None,
            in_flight: InFlight::default(),
            matched: Lsn(0),
            committed: Lsn(0),
            sent_commit: Lsn(0),
            index: None,
            loading: false,
            waiting_since: None,
            away_since: (!up).then_some(now),
            ask_at: None,
            ask_step: step,
            regress_hints: 0,
            refused: None,
            lost: false,
            too_far: false,
            batch: APPEND_RECORDS,
            full: false,
            spare: 0,
            silent: false,
        }
    }

    /// What is on its way to it counts no more: from `next` on everything is sent, again if need be.
    pub(crate) fn send_from(&mut self, next: Option<Lsn>) {
        self.next = next;
        self.in_flight = InFlight::default();
    }

    /// Something was sent that it is to answer.
    pub(crate) fn asked(&mut self, now: Time) {
        self.waiting_since.get_or_insert(now);
        self.ask_at.get_or_insert(now + self.ask_step);
    }

    /// It answered; `all`: nothing is outstanding any more.
    pub(crate) fn answered(&mut self, now: Time, all: bool, step: Duration) {
        self.ask_step = step;
        self.refused = None;
        self.regress_hints = 0;
        self.waiting_since = (!all).then_some(now);
        self.ask_at = (!all).then_some(now + step);
    }

    /// The time to ask again has come: the next time is later, up to a limit.
    pub(crate) fn back_off(&mut self, now: Time, max: Duration) {
        self.ask_step = Duration((self.ask_step.0 * 2).min(max.0));
        self.ask_at = Some(now + self.ask_step);
    }
}
