//! The log of a copy: seal, append with the prefix check, cut, commit (replication.md §1; after Raft §5.3).
//!
//! Orders to the store are given as messages come, without waiting for each other; a reply waits until every
//! order given before it is durable. When the store refuses an append, what was given after it is refused, too,
//! and the index goes back to where it stood.

use super::{Peer, Replica, ReplicaOutput};
use crate::event::ReplicationEvent;
use crate::index::LogIndex;
use crate::message::Body;
use crate::repeats::RepeatTable;
use alloc::vec::Vec;
use holdfast_types::{LogPosition, Lsn, Record, RepeatState, StoreOrder, StoreOutcome, StoreRefusal, Time};

/// An order that changes the log or the promise.
#[derive(Debug)]
pub(crate) struct LogOrder {
    pub(crate) peer: Peer,
    kind: LogOrderKind,
}

#[derive(Debug)]
enum LogOrderKind {
    Seal,
    Append {
        before: Before,
        records: u64,
        since: Time,
    },
    /// An append that the refusal of an earlier one has undone already; it is refused, too.
    Undone,
    Reset,
    Complete,
}

/// What to go back to when an append is refused.
#[derive(Debug)]
enum Before {
    End(Lsn),
    /// It also cut, so that the end alone does not tell.
    All(LogIndex, RepeatTable),
}

/// A reply that waits.
#[derive(Debug)]
pub(crate) enum Ack {
    Seal { peer: Peer, repeats: bool },
    Append { peer: Peer, matched: Lsn },
    Learn { peer: Peer, base: LogPosition },
    Finish { peer: Peer },
}

impl Replica {
    /// Promises the owner's epoch in memory. An older owner is refused from here on; replies wait for the disk.
    fn promise(&mut self, peer: Peer) {
        assert!(peer.epoch >= self.promised, "I5: a promise never falls");
        self.owner = Some(peer);
        if peer.epoch > self.promised {
            self.promised = peer.epoch;
            self.matched = Lsn(0);
            self.commit_heard = self.committed;
        }
    }

    fn log_order(&mut self, peer: Peer, kind: LogOrderKind, order: StoreOrder, out: &mut Vec<ReplicaOutput>) {
        let number = self.order(order, out);
        self.log_orders.insert(number, LogOrder { peer, kind });
    }

    /// Makes the promise durable unless an order under way does so already.
    fn order_promise(&mut self, peer: Peer, out: &mut Vec<ReplicaOutput>) {
        let under_way = self.log_orders.values().any(|o| o.peer.epoch == peer.epoch);
        if self.durable_promise < peer.epoch && !under_way {
            self.log_order(peer, LogOrderKind::Seal, StoreOrder::Seal { epoch: peer.epoch }, out);
        }
    }

    fn ack(&mut self, ack: Ack, now: Time, out: &mut Vec<ReplicaOutput>) {
        let after = self.log_orders.last_key_value().map_or(0, |(number, _)| *number);
        self.acks.push_back((after, ack));
        self.release(now, out);
    }

    pub(super) fn seal(&mut self, peer: Peer, repeats: bool, now: Time, out: &mut Vec<ReplicaOutput>) {
        self.promise(peer);
        self.order_promise(peer, out);
        self.ack(Ack::Seal { peer, repeats }, now, out);
    }

    pub(super) fn append(
        &mut self,
        peer: Peer,
        prev: LogPosition,
        mut records: Vec<Record>,
        commit: Lsn,
        now: Time,
        out: &mut Vec<ReplicaOutput>,
    ) {
        self.promise(peer);
        self.tell_lost(peer, out);
        if !self.index.has(prev) {
            // No gaps, and no append by index alone (H8).
            self.order_promise(peer, out);
            return self.send(peer, Body::Need { index: self.index.clone() }, out);
        }
        let matched = records.last().map_or(prev.lsn, |r| r.position.lsn);
        let same = records.iter().take_while(|r| self.index.has(r.position)).count();
        let new = records.split_off(same);
        let Some(first) = new.first() else {
            self.order_promise(peer, out);
            self.heard(peer, matched, commit, now, out);
            return;
        };
        let keep = Lsn(first.position.lsn.0 - 1);
        if !self.admits(&new) {
            return self.send(peer, Body::Need { index: self.index.clone() }, out);
        }
        let cuts = keep < self.index.last().lsn;
        if cuts && keep < self.committed {
            self.halted = true;
            let event = ReplicationEvent::Diverged { replica: self.me, applied: self.committed, at: keep };
            return out.push(ReplicaOutput::Event(event));
        }
        let before = if cuts {
            let before = Before::All(self.index.clone(), self.repeats.clone());
            self.index.cut_after(keep);
            self.repeats.cut_after(keep);
            self.forget_matched(keep);
            before
        } else {
            Before::End(keep)
        };
        for record in &new {
            self.index.push(record.position);
            self.repeats.note(record);
        }
        self.index.fold(self.committed);
        let cut_after = cuts.then_some(keep);
        let kind = LogOrderKind::Append { before, records: new.len() as u64, since: now };
        let order = StoreOrder::Append { cut_after, records: new, sealed: peer.epoch };
        self.log_order(peer, kind, order, out);
        self.heard(peer, matched, commit, now, out);
    }

    /// The log was cut: nothing after `keep` counts as equal to the owner's any more, in replies on their way either.
    fn forget_matched(&mut self, keep: Lsn) {
        self.matched = self.matched.min(keep);
        for (_, ack) in &mut self.acks {
            if let Ack::Append { matched, .. } = ack {
                *matched = (*matched).min(keep);
            }
        }
    }

    /// Whether records follow each other, with epochs that do not fall and are not above the owner's.
    fn admits(&self, new: &[Record]) -> bool {
        let ordered = |a: &Record, b: &Record| {
            a.position.lsn.next() == b.position.lsn && a.position.epoch <= b.position.epoch
        };
        let floor = new.first().and_then(|r| self.index.epoch_at(Lsn(r.position.lsn.0 - 1)));
        new.windows(2).all(|w| ordered(&w[0], &w[1]))
            && new.first().is_some_and(|r| Some(r.position.epoch) >= floor)
            && new.last().is_some_and(|r| r.position.epoch <= self.promised)
    }

    fn heard(&mut self, peer: Peer, matched: Lsn, commit: Lsn, now: Time, out: &mut Vec<ReplicaOutput>) {
        self.commit_heard = self.commit_heard.max(commit);
        self.ack(Ack::Append { peer, matched }, now, out);
    }

    /// A learner's log starts anew (replication.md §1, "resync of learner X").
    pub(super) fn learn(&mut self, peer: Peer, base: LogPosition, now: Time, out: &mut Vec<ReplicaOutput>) {
        self.promise(peer);
        let again = self.incomplete_since.is_some() && self.index.has(base) && self.committed >= base.lsn;
        if !again {
            if base.lsn < self.committed {
                // What it applied is committed, thus the owner knows a later base. This one is out of date.
                return;
            }
            let since = self.incomplete_since.unwrap_or(self.committed);
            self.incomplete_since = Some(since);
            self.index = LogIndex::starting_at(base);
            self.repeats = RepeatTable::default();
            (self.committed, self.commit_heard) = (base.lsn, base.lsn);
            self.forget_matched(Lsn(0));
            let order = StoreOrder::Reset { base, sealed: peer.epoch };
            self.log_order(peer, LogOrderKind::Reset, order, out);
        }
        self.lost = false;
        self.ack(Ack::Learn { peer, base }, now, out);
    }

    /// The owner has compared every image.
    pub(super) fn finish(&mut self, peer: Peer, repeats: RepeatState, out: &mut Vec<ReplicaOutput>) {
        self.promise(peer);
        if self.lost {
            // What was compared is not what is there: it is compared again from the beginning.
            return self.tell_lost(peer, out);
        }
        if self.incomplete_since.is_none() {
            return self.send(peer, Body::FinishReply, out);
        }
        self.repeats.merge(&repeats);
        self.log_order(peer, LogOrderKind::Complete, StoreOrder::Complete { repeats }, out);
    }

    pub(super) fn log_done(
        &mut self,
        now: Time,
        number: u64,
        order: LogOrder,
        outcome: StoreOutcome,
        out: &mut Vec<ReplicaOutput>,
    ) {
        if self.halted {
            return;
        }
        if let StoreOutcome::Refused(reason) = outcome {
            return self.log_refused(now, number, order, reason, out);
        }
        self.durable_promise = self.durable_promise.max(order.peer.epoch);
        if let StoreOutcome::Reset { since } = outcome {
            // The store's word, which may be lower than what was committed: what was not in place is gone with the log.
            self.incomplete_since = Some(since);
        }
        match order.kind {
            // The store has said since then that it lost a part, and says that of the copy on its disk, too.
            LogOrderKind::Complete if self.lost => {}
            LogOrderKind::Complete => {
                self.incomplete_since = None;
                let after = self.log_orders.last_key_value().map_or(0, |(number, _)| *number);
                self.acks.push_back((after, Ack::Finish { peer: order.peer }));
            }
            LogOrderKind::Append { records, since, .. } => self.times.note(records, now.since(since)),
            LogOrderKind::Seal | LogOrderKind::Undone | LogOrderKind::Reset => {}
        }
        self.release(now, out);
    }

    fn log_refused(
        &mut self,
        now: Time,
        number: u64,
        order: LogOrder,
        reason: StoreRefusal,
        out: &mut Vec<ReplicaOutput>,
    ) {
        match order.kind {
            LogOrderKind::Append { before, .. } => {
                match before {
                    Before::End(end) => {
                        self.index.cut_after(end);
                        self.repeats.cut_after(end);
                    }
                    Before::All(index, repeats) => (self.index, self.repeats) = (index, repeats),
                }
                for later in self.log_orders.values_mut() {
                    if let LogOrderKind::Append { .. } = later.kind {
                        later.kind = LogOrderKind::Undone;
                    }
                }
                self.acks.retain(|(after, ack)| *after < number || !matches!(ack, Ack::Append { .. }));
            }
            LogOrderKind::Undone => {}
            LogOrderKind::Seal | LogOrderKind::Reset | LogOrderKind::Complete => {
                // Without it the replies after it would be untrue.
                self.acks.retain(|(after, _)| *after < number);
            }
        }
        if order.peer.epoch == self.promised {
            self.send(order.peer, Body::Refused { reason }, out);
        }
        self.release(now, out);
    }

    /// Sends the replies that nothing is missing for. Of several acks for one owner only the last one goes.
    fn release(&mut self, now: Time, out: &mut Vec<ReplicaOutput>) {
        let first = self.log_orders.first_key_value().map_or(u64::MAX, |(number, _)| *number);
        let mut appended = None;
        while self.acks.front().is_some_and(|(after, _)| *after < first) {
            let Some((_, ack)) = self.acks.pop_front() else { break };
            match ack {
                Ack::Append { peer, matched } if self.current(peer) => {
                    self.matched = self.matched.max(matched);
                    appended = Some(peer);
                }
                Ack::Seal { peer, repeats } if self.current(peer) => {
                    let state = self.seal_state(now, peer.node, repeats);
                    self.send(peer, Body::SealReply(state), out);
                }
                Ack::Learn { peer, base } if self.current(peer) => {
                    let since = self.incomplete_since.unwrap_or(Lsn(0));
                    self.send(peer, Body::LearnReply { base, since }, out);
                }
                Ack::Finish { peer } if self.current(peer) => self.send(peer, Body::FinishReply, out),
                Ack::Append { .. } | Ack::Seal { .. } | Ack::Learn { .. } | Ack::Finish { .. } => {}
            }
        }
        let Some(peer) = appended else { return };
        // H8: only what matched in this owner's epoch is applied.
        let commit = self.commit_heard.min(self.matched);
        if commit > self.committed {
            self.committed = commit;
            self.order(StoreOrder::Commit { lsn: commit }, out);
        }
        self.send(peer, Body::Appended { matched: self.matched, committed: self.committed }, out);
    }

    /// Whether a reply to this owner is still true and wanted.
    fn current(&self, peer: Peer) -> bool {
        peer.epoch == self.promised && self.durable_promise >= peer.epoch
    }
}
