//! A segment's copy: keeps the promise of the highest epoch, journals what the owner of that epoch appends,
//! and tells its store what is committed (replication.md §1, "replica").
//!
//! It promises: no reply before what it says is durable; no record accepted without the one before it; nothing
//! applied that did not match in the owner's epoch; nothing applied is ever cut. It decides nothing else: it has
//! no timer and sends nothing unasked. This file routes; [`append`] is the log, [`lease`] the read lease,
//! [`serve`] everything that is only looked up in or put into the store.

mod append;
mod lease;
mod serve;

use crate::config::ReplicaConfig;
use crate::event::ReplicationEvent;
use crate::index::LogIndex;
use crate::message::{Body, Envelope, SealState};
use crate::owner::RecordTimes;
use crate::repeats::RepeatTable;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use append::{Ack, LogOrder};
use holdfast_types::{
    Epoch, LogPosition, Lsn, NodeId, ReplicaRef, ReplicaState, SegmentKey, StoreOrder, StoreOutcome,
    StoreRefusal, Time,
};
use lease::Lease;
use serve::Service;

/// What a replica orders.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplicaOutput {
    /// Send to a node.
    Send {
        /// Which.
        to: NodeId,
        /// What.
        message: Envelope,
    },
    /// Give to the store of this copy's disk.
    Store {
        /// Comes back with the outcome.
        number: u64,
        /// What.
        order: StoreOrder,
    },
    /// For the event log.
    Event(ReplicationEvent),
}

/// A copy as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaStatus {
    /// The highest epoch promised.
    pub sealed: Epoch,
    /// The log's end.
    pub last: LogPosition,
    /// Everything up to here was told to the store as committed.
    pub committed: Lsn,
    /// None: complete. Else an unfinished learner, and the LSN up to which it was complete.
    pub incomplete_since: Option<Lsn>,
    /// It refuses everything: it was told to cut what it applied, or its disk failed.
    pub halted: bool,
}

/// Where a reply goes, and in whose epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    node: NodeId,
    epoch: Epoch,
}

/// See the module's text.
#[derive(Debug)]
pub struct Replica {
    key: SegmentKey,
    me: ReplicaRef,
    lease: Lease,
    /// The highest epoch promised; durable once nothing of `log_orders` is older.
    promised: Epoch,
    durable_promise: Epoch,
    index: LogIndex,
    repeats: RepeatTable,
    /// Durable and equal to the owner's log, as verified in the promised epoch.
    matched: Lsn,
    /// As the owner of the promised epoch said.
    commit_heard: Lsn,
    /// As the store was told.
    committed: Lsn,
    incomplete_since: Option<Lsn>,
    /// It lost a part, or began as incomplete, and no owner has begun to mend it: each is told.
    lost: bool,
    /// The owner of the promised epoch, once it was heard.
    owner: Option<Peer>,
    next_number: u64,
    /// Orders that change the log or the promise, in the order given, which is the order of their outcomes.
    log_orders: BTreeMap<u64, LogOrder>,
    /// Replies that wait for every log order up to a number.
    acks: VecDeque<(u64, Ack)>,
    services: BTreeMap<u64, Service>,
    halted: bool,
    times: RecordTimes,
}

impl Replica {
    /// A copy as its store found it. No promise is younger than what the store says.
    pub fn new(
        now: Time,
        key: SegmentKey,
        me: ReplicaRef,
        state: ReplicaState,
        config: ReplicaConfig,
    ) -> Self {
        Self {
            key,
            me,
            lease: Lease::new(now, config.lease, state.sealed),
            promised: state.sealed,
            durable_promise: state.sealed,
            index: LogIndex::of(&state),
            repeats: RepeatTable::of(&state),
            matched: Lsn(0),
            commit_heard: state.applied,
            committed: state.applied,
            incomplete_since: state.incomplete_since,
            lost: state.incomplete_since.is_some(),
            owner: None,
            next_number: 1,
            log_orders: BTreeMap::new(),
            acks: VecDeque::new(),
            services: BTreeMap::new(),
            halted: false,
            times: RecordTimes::default(),
        }
    }

    /// Takes a message of an owner.
    pub fn receive(&mut self, now: Time, from: NodeId, message: Envelope, out: &mut Vec<ReplicaOutput>) {
        if self.halted || message.segment != self.key || message.replica != self.me {
            return;
        }
        let peer = Peer { node: from, epoch: message.epoch };
        if message.epoch < self.promised {
            return self.send(peer, Body::Rejected { sealed: self.promised }, out);
        }
        match message.body {
            Body::Seal { repeats } => self.seal(peer, repeats, now, out),
            Body::Append { prev, records, commit } => self.append(peer, prev, records, commit, now, out),
            Body::Learn { base } => self.learn(peer, base, now, out),
            Body::Finish { repeats } => self.finish(peer, repeats, out),
            body => self.serve(peer, body, now, out),
        }
    }

    /// The store lost a part of the copy. It is as if the copy had never been complete: an owner compares all of it.
    pub fn lost_part(&mut self, out: &mut Vec<ReplicaOutput>) {
        (self.incomplete_since, self.lost) = (Some(Lsn(0)), true);
        if let Some(owner) = self.owner {
            self.tell_lost(owner, out);
        }
    }

    /// An owner that counts this copy in S must know that it lacks something.
    fn tell_lost(&self, peer: Peer, out: &mut Vec<ReplicaOutput>) {
        if self.lost {
            self.send(peer, Body::Refused { reason: StoreRefusal::Incomplete }, out);
        }
    }

    /// What came of an order to the store.
    pub fn stored(&mut self, now: Time, number: u64, outcome: StoreOutcome, out: &mut Vec<ReplicaOutput>) {
        if outcome == StoreOutcome::Refused(StoreRefusal::Failed) && !self.halted {
            self.halted = true;
            let reason = StoreRefusal::Failed;
            out.push(ReplicaOutput::Event(ReplicationEvent::StoreRefused { replica: self.me, reason }));
            // The owner learns of it at once instead of waiting for an answer that does not come.
            let log = self.log_orders.values().map(|o| o.peer);
            if let Some(peer) = log.chain(self.services.values().map(Service::peer)).max_by_key(|p| p.epoch) {
                self.send(peer, Body::Refused { reason }, out);
            }
        }
        if let Some(order) = self.log_orders.remove(&number) {
            self.log_done(now, number, order, outcome, out);
        } else if let Some(service) = self.services.remove(&number) {
            self.served(service, outcome, out);
        }
    }

    /// Its orders are numbered from there on. What an earlier machine of the same copy ordered may still be under way, and
    /// its outcomes are not for this one.
    pub fn numbered_from(self, next_number: u64) -> Self {
        Self { next_number, ..self }
    }

    /// The number of its next order.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Does nothing: a copy acts only when told.
    pub fn timer(&mut self, _now: Time, _out: &mut Vec<ReplicaOutput>) {}

    /// Never.
    pub fn next_timer(&self) -> Option<Time> {
        None
    }

    /// How it stands.
    pub fn status(&self) -> ReplicaStatus {
        ReplicaStatus {
            sealed: self.promised,
            last: self.index.last(),
            committed: self.committed,
            incomplete_since: self.incomplete_since,
            halted: self.halted,
        }
    }

    /// How long its records took to become durable.
    pub fn times(&self) -> RecordTimes {
        self.times
    }

    /// The copy that this is.
    pub fn me(&self) -> ReplicaRef {
        self.me
    }

    fn seal_state(&self, now: Time, node: NodeId, repeats: bool) -> SealState {
        SealState {
            index: self.index.clone(),
            applied: self.committed,
            lease_left: self.lease.left(now, node),
            incomplete_since: self.incomplete_since,
            repeats: repeats.then(|| self.repeats.clone()),
        }
    }

    fn send(&self, to: Peer, body: Body, out: &mut Vec<ReplicaOutput>) {
        let message = Envelope { segment: self.key, epoch: to.epoch, replica: self.me, body };
        out.push(ReplicaOutput::Send { to: to.node, message });
    }

    fn order(&mut self, order: StoreOrder, out: &mut Vec<ReplicaOutput>) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        out.push(ReplicaOutput::Store { number, order });
        number
    }
}
