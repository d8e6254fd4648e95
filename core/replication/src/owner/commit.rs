//! What is committed: what w(S) copies of S have on stable storage, in this epoch, once control has recorded it as
//! active. Nothing is recorded per write; that every seal quorum meets every write quorum is what keeps it.

use super::{Owner, OwnerOutput};
use crate::message::SegmentResult;
use alloc::vec::Vec;
use holdfast_types::{BlockReply, Lsn, Time};

impl Owner {
    /// Looks how far w(S) copies agree.
    pub(super) fn recompute_commit(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        if !self.active() {
            return;
        }
        let mut matched: Vec<Lsn> = self.copies.values().filter(|c| c.counts).map(|c| c.matched).collect();
        matched.sort_unstable_by(|a, b| b.cmp(a));
        let Some(quorum) = matched.get(self.w() - 1).copied() else { return };
        if quorum > self.commit {
            self.commit_to(now, quorum, out);
            self.advance(now, out);
        }
    }

    /// Everything up to `lsn` is committed: answers what waited for it.
    pub(super) fn commit_to(&mut self, now: Time, lsn: Lsn, out: &mut Vec<OwnerOutput>) {
        assert!(lsn <= self.log.last().lsn, "I7: only what is in the log is committed");
        if lsn <= self.commit {
            return;
        }
        for committed in self.commit.0 + 1..=lsn.0 {
            if let Some(entry) = self.log.get(Lsn(committed)) {
                let took = now.since(entry.appended);
                self.counters.times.writes += 1;
                self.counters.times.quorum = self.counters.times.quorum + took;
                // A moving average over about eight writes.
                self.write_latency.0 -= self.write_latency.0 / 8;
                self.write_latency.0 += took.0 / 8;
            }
        }
        self.commit = lsn;
        for (to, id) in self.requests.take_committed(lsn) {
            self.reply(to, id, SegmentResult::Ok(BlockReply::Done), out);
        }
        for number in self.fences.take_committed(lsn) {
            out.push(OwnerOutput::Fenced { number });
        }
        if self.commit_due.is_none() {
            self.commit_due = Some(now + self.config.commit_heartbeat);
        }
        self.requests.progress(now);
        self.release_log();
    }

    /// Forgets records that no copy of this owner's needs from memory any more.
    pub(super) fn release_log(&mut self) {
        let everyone = self.copies.values().filter(|c| c.counts || c.next.is_some()).map(|c| c.matched).min();
        let own = self.copies.get(&self.own).map_or(Lsn(0), |c| c.committed);
        // The own copy serves reads and the loading of older records: what it lacks is kept whatever it costs, which
        // is bounded by what may be in flight.
        let allowed = self.commit.min(own);
        let needed = everyone.unwrap_or(Lsn(0)).min(allowed);
        self.log.release(needed, allowed, self.retained_most);
        self.log.fold(allowed);
    }

    /// The own copy's log or committed state went on: reads may go on, and the queue.
    pub(super) fn own_advanced(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        self.release_log();
        self.start_reads(now, out);
        self.advance(now, out);
    }
}
