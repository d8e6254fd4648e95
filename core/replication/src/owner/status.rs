//! What an owner tells of itself: plain values, and the sums from which metrics are made.

use super::Owner;
use alloc::vec::Vec;
use holdfast_types::{Duration, Epoch, Lsn, ReplicaRef, Time};

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
}

impl WriteTimes {
    /// Adds another owner's.
    pub fn add(&mut self, other: &WriteTimes) {
        self.writes += other.writes;
        self.queue = self.queue + other.queue;
        self.own_journal = self.own_journal + other.own_journal;
        self.quorum = self.quorum + other.quorum;
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
    /// Data that it does not have yet, as far as it is in memory.
    pub behind_bytes: usize,
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
    /// Requests that wait to be ordered.
    pub queued: usize,
    /// Every copy.
    pub copies: Vec<CopyStatus>,
    /// Where the time of writes went.
    pub times: WriteTimes,
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
            behind_bytes: self.log.bytes_after(c.matched),
            resync: self.resyncs.get(&c.replica).map(super::Resync::status),
        };
        OwnerStatus {
            phase: self.phase.name(),
            epoch: self.epoch,
            commit: self.commit,
            last: self.log.last().lsn,
            log_bytes: self.log.bytes(),
            queued: self.requests.len(),
            copies: self.copies.values().map(copy).collect(),
            times: self.counters.times,
        }
    }

    /// Takes note of when the own copy had records on stable storage.
    pub(super) fn note_times(&mut self, now: Time, copy: ReplicaRef, before: Lsn, after: Lsn) {
        if copy != self.own {
            return;
        }
        for lsn in before.0 + 1..=after.0 {
            if let Some(entry) = self.log.get(Lsn(lsn)) {
                self.counters.times.own_journal = self.counters.times.own_journal + now.since(entry.appended);
            }
        }
    }
}
