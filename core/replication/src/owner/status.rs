//! What an owner tells of itself: plain values, and the sums from which metrics are made.

use super::Owner;
use alloc::vec::Vec;
use holdfast_types::{Duration, Epoch, Lsn, ReplicaRef, Time};

/// Records, and a time of each, summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordTimes {
    /// How many.
    pub records: u64,
    /// How long, in all.
    pub time: Duration,
}

impl RecordTimes {
    /// Adds so many records that took `each`.
    pub fn note(&mut self, records: u64, each: Duration) {
        self.records += records;
        self.time = self.time + Duration(each.0.saturating_mul(records));
    }

    /// Adds another's.
    pub fn add(&mut self, other: &RecordTimes) {
        self.records += other.records;
        self.time = self.time + other.time;
    }
}

/// Where the time of writes went, summed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WriteTimes {
    /// Records that were committed.
    pub writes: u64,
    /// From the request's arrival until its record was ordered.
    pub queue: Duration,
    /// From then until the own copy had it on stable storage.
    pub own_journal: Duration,
    /// From then on, counted from the ordering as well, until a write quorum had it.
    pub quorum: Duration,
    /// From the ordering until another copy had acknowledged, for each record and copy.
    pub others: RecordTimes,
}

impl WriteTimes {
    /// Adds another owner's.
    pub fn add(&mut self, other: &WriteTimes) {
        self.writes += other.writes;
        self.queue = self.queue + other.queue;
        self.own_journal = self.own_journal + other.own_journal;
        self.quorum = self.quorum + other.quorum;
        self.others.add(&other.others);
    }
}

/// What an owner counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) times: WriteTimes,
}

/// What a copy is to the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyRole {
    /// In S: its acknowledgements count.
    InSet,
    /// To be resynced.
    Learner,
}

/// How far a resync is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResyncStatus {
    /// Extents that are done.
    pub extents_done: u32,
    /// Extents in all.
    pub extents_total: u32,
    /// What it had when it began; zero: nothing.
    pub since: Lsn,
}

/// A copy as its owner sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct CopyStatus {
    /// Which.
    pub replica: ReplicaRef,
    /// What it is.
    pub role: CopyRole,
    /// Its log is durable and equal up to here.
    pub matched: Lsn,
    /// Whether its node is reached.
    pub up: bool,
    /// Whether its disk has no room for new data.
    pub full: bool,
    /// Its resync.
    pub resync: Option<ResyncStatus>,
}

/// An owner as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnerStatus {
    /// Where it is between grant and serving.
    pub phase: &'static str,
    /// Its epoch.
    pub epoch: Epoch,
    /// Everything up to here is committed.
    pub commit: Lsn,
    /// The log's end.
    pub last: Lsn,
    /// Bytes of records in memory.
    pub log_bytes: usize,
    /// Those of them that are there for copies that are behind.
    pub retained_bytes: usize,
    /// Requests that wait to be ordered.
    pub queued: usize,
    /// Every copy.
    pub copies: Vec<CopyStatus>,
}

impl Owner {
    /// How it stands.
    pub fn status(&self) -> OwnerStatus {
        let copy = |c: &super::Copy| CopyStatus {
            replica: c.replica,
            role: if c.counts { CopyRole::InSet } else { CopyRole::Learner },
            matched: c.matched,
            up: c.up,
            full: c.full,
            resync: self.resyncs.get(&c.replica).map(super::Resync::status),
        };
        OwnerStatus {
            phase: self.phase.name(),
            epoch: self.epoch,
            commit: self.commit,
            last: self.log.last().lsn,
            log_bytes: self.log.bytes(),
            retained_bytes: self.retained_bytes(),
            queued: self.requests.len(),
            copies: self.copies.values().map(copy).collect(),
        }
    }

    /// Where the time of its writes went.
    pub fn times(&self) -> WriteTimes {
        self.counters.times
    }

    /// Takes note of how long it took until a copy had records on stable storage.
    pub(super) fn note_times(&mut self, now: Time, copy: ReplicaRef, before: Lsn, after: Lsn) {
        if self.copies.get(&copy).is_none_or(|c| !c.counts) {
            // What a learner catches up with tells nothing of the way that writes take.
            return;
        }
        let times = &mut self.counters.times;
        for lsn in before.0 + 1..=after.0 {
            let Some(entry) = self.log.get(Lsn(lsn)) else { continue };
            let took = now.since(entry.appended);
            if copy == self.own {
                times.own_journal = times.own_journal + took;
            } else {
                times.others.note(1, took);
            }
        }
    }
}
