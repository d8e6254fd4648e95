//! The owners and replicas of segments on this node: calling them, and carrying out what they order.

use crate::Engine;
use crate::Work;
use crate::gateway::{Action, Gateway};
use crate::io::{EngineEvent, Output, Outputs};
use crate::timers::Machine;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::RangeBounds;
use holdfast_cluster::NodeState;
use holdfast_replication::{Message, Owner, OwnerOutput, RecordTimes, Replica, ReplicaOutput, WriteTimes};
use holdfast_types::{
    DiskId, Duration, Epoch, GatewayId, GrantReason, NodeId, OrderSource, OrderToken, SegmentCommandResult,
    SegmentKey, SessionId, StoreOrder, StoreOutcome, Time,
};

/// The machines of this node's copies.
#[derive(Default)]
pub struct Copies {
    pub(crate) owners: BTreeMap<SegmentKey, Owned>,
    pub(crate) replicas: BTreeMap<(SegmentKey, DiskId), Replica>,
    /// Owners that were called since the last pump.
    pub(crate) touched: BTreeSet<SegmentKey>,
    /// What all owners keep for copies that are behind.
    retained_bytes: usize,
    /// What all of them have under way for their resyncs.
    under_way: usize,
    /// When something came last that a client waits for, of whatever segment.
    pub(crate) clients_at: Option<Time>,
    /// What those that are gone counted: counters never fall.
    past: CopyTimes,
    /// Replicas that are gone numbered their orders below this.
    pub(crate) ended_at: u64,
}

/// What the copies of this node counted since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CopyTimes {
    /// Where the time of the writes went that this node ordered.
    pub writes: WriteTimes,
    /// How long records took to become durable on this node, whoever ordered them.
    pub records: RecordTimes,
}

impl Copies {
    /// Ends the machines of copies; which these were.
    pub(crate) fn end_replicas(
        &mut self,
        among: impl RangeBounds<(SegmentKey, DiskId)>,
        which: impl Fn(&(SegmentKey, DiskId)) -> bool,
    ) -> Vec<(SegmentKey, DiskId)> {
        let ended = self.replicas.extract_if(among, |copy, _| which(copy));
        let note = |(copy, replica): (_, Replica)| {
            self.past.records.add(&replica.times());
            self.ended_at = self.ended_at.max(replica.next_number());
            copy
        };
        ended.map(note).collect()
    }

    /// Ends the machine of an owner.
    pub(crate) fn end_owner(&mut self, segment: SegmentKey) -> Option<Owned> {
        let owned = self.owners.remove(&segment)?;
        self.retained_bytes -= owned.owner.retained_bytes();
        self.under_way -= owned.owner.under_way();
        self.past.writes.add(&owned.owner.times());
        Some(owned)
    }

    /// See [`CopyTimes`].
    pub(crate) fn times(&self) -> CopyTimes {
        let mut times = self.past;
        self.owners.values().for_each(|o| times.writes.add(&o.owner.times()));
        self.replicas.values().for_each(|r| times.records.add(&r.times()));
        times
    }
}

/// A segment that this node owns.
pub(crate) struct Owned {
    pub(crate) owner: Owner,
    pub(crate) epoch: Epoch,
    /// The disk with this node's own copy.
    pub(crate) disk: DiskId,
    /// Checks that were asked for.
    pub(crate) checks: Vec<u64>,
    /// Fences against sessions that were asked for and are not committed.
    pub(crate) fences: BTreeSet<u64>,
    /// Gateways whose fence was asked for.
    pub(crate) fenced: BTreeSet<GatewayId>,
}

impl Engine {
    /// Calls a segment's owner, if it is on this node, and carries out what it orders.
    pub(crate) fn with_owner(
        &mut self,
        now: Time,
        segment: SegmentKey,
        out: &mut Outputs,
        call: impl FnOnce(&mut Owner, &mut Vec<OwnerOutput>),
    ) {
        let Some(owned) = self.copies.owners.get_mut(&segment) else { return };
        let mut orders = Vec::new();
        owned.owner.note_clients(self.copies.clients_at);
        let others = self.copies.retained_bytes - owned.owner.retained_bytes();
        owned.owner.retain_at_most(self.config.owner.retained_bytes.saturating_sub(others));
        let others_under_way = self.copies.under_way - owned.owner.under_way();
        owned.owner.note_under_way(others_under_way);
        call(&mut owned.owner, &mut orders);
        self.copies.retained_bytes = others + owned.owner.retained_bytes();
        self.copies.under_way = others_under_way + owned.owner.under_way();
        self.timers.set(Machine::Owner(segment), owned.owner.next_timer());
        self.copies.touched.insert(segment);
        for order in orders {
            self.owner_output(now, segment, order, out);
        }
    }

    pub(crate) fn pump_owner(&mut self, now: Time, segment: SegmentKey, out: &mut Outputs) {
        self.with_owner(now, segment, out, |owner, o| owner.pump(now, o));
        // Pumping is not being touched; what its orders bring about is.
        self.copies.touched.remove(&segment);
    }

    fn owner_output(&mut self, now: Time, segment: SegmentKey, order: OwnerOutput, out: &mut Outputs) {
        match order {
            OwnerOutput::Send { to, message } => self.send(to, Message::Replication(message), out),
            OwnerOutput::Reply { to, reply } => self.send(to, Message::Reply(reply), out),
            OwnerOutput::Store { number, order } => {
                let Some(owned) = self.copies.owners.get(&segment) else { return };
                let token = OrderToken { source: OrderSource::Owner(owned.epoch), number };
                self.store_order(now, (segment, owned.disk), token, order, out);
            }
            OwnerOutput::Propose { number, command } => {
                let Some(owned) = self.copies.owners.get(&segment) else { return };
                let proposal = self.next_proposal;
                self.next_proposal += 1;
                self.proposals.insert(proposal, (segment, owned.epoch, number));
                out.push(Output::Propose { number: proposal, command });
            }
            OwnerOutput::PassOn { nodes } => {
                let Some(info) = self.map.segments.get(&segment.segment) else { return };
                let may = self.may_own(info).filter(|n| nodes.contains(n));
                let to = may.min_by_key(|n| self.has_slow_disk(info, *n));
                let Some(node) = to.and_then(|n| self.map.nodes.get(&n)) else { return };
                let (id, incarnation) = (node.id, node.incarnation);
                self.with_owner(now, segment, out, |owner, o| {
                    owner.propose_takeover(now, id, incarnation, o)
                });
            }
            OwnerOutput::CheckProgress { .. } => {}
            OwnerOutput::Fenced { number } => {
                // Those against dead gateways have no number and nobody who waits.
                if self.copies.owners.get_mut(&segment).is_some_and(|o| o.fences.remove(&number)) {
                    out.push(Output::SessionFenced { number, done: true });
                }
            }
            OwnerOutput::CheckDone(report) => {
                let Some(owned) = self.copies.owners.get_mut(&segment) else { return };
                for number in owned.checks.drain(..) {
                    out.push(Output::Checked { number, report: Some(report.clone()) });
                }
            }
            OwnerOutput::Event(event) => {
                out.push(Output::Event(EngineEvent::Replication { segment, event }));
            }
        }
    }

    /// Calls a copy on this node, if it is here, and carries out what it orders.
    pub(crate) fn with_replica(
        &mut self,
        now: Time,
        copy: (SegmentKey, DiskId),
        out: &mut Outputs,
        call: impl FnOnce(&mut Replica, &mut Vec<ReplicaOutput>),
    ) {
        let Some(replica) = self.copies.replicas.get_mut(&copy) else { return };
        let mut orders = Vec::new();
        call(replica, &mut orders);
        self.timers.set(Machine::Replica(copy.0, copy.1), replica.next_timer());
        for order in orders {
            match order {
                ReplicaOutput::Send { to, message } => self.send(to, Message::Replication(message), out),
                ReplicaOutput::Store { number, order } => {
                    let token = OrderToken { source: OrderSource::Replica, number };
                    self.store_order(now, copy, token, order, out);
                }
                ReplicaOutput::Event(event) => {
                    out.push(Output::Event(EngineEvent::Replication { segment: copy.0, event }));
                }
            }
        }
    }

    fn store_order(
        &mut self,
        now: Time,
        copy: (SegmentKey, DiskId),
        token: OrderToken,
        order: StoreOrder,
        out: &mut Outputs,
    ) {
        self.with_store(now, copy.1, out, |store, o| store.order(now, copy.0, token, order, o));
    }

    /// What came of an order goes back to whoever gave it.
    pub(crate) fn stored(
        &mut self,
        now: Time,
        copy: (SegmentKey, DiskId),
        token: OrderToken,
        outcome: StoreOutcome,
        out: &mut Outputs,
    ) {
        match token.source {
            OrderSource::Replica => {
                self.with_replica(now, copy, out, |replica, o| replica.stored(now, token.number, outcome, o));
            }
            OrderSource::Owner(epoch) => {
                if self.copies.owners.get(&copy.0).is_some_and(|owned| owned.epoch == epoch) {
                    self.with_owner(now, copy.0, out, |owner, o| owner.stored(now, token.number, outcome, o));
                }
            }
        }
    }

    /// Control's answer to a proposal goes back to the owner that made it, if it is still there.
    pub(crate) fn proposed(
        &mut self,
        now: Time,
        number: u64,
        result: SegmentCommandResult,
        out: &mut Outputs,
    ) {
        let Some((segment, epoch, number)) = self.proposals.remove(&number) else { return };
        if self.copies.owners.get(&segment).is_some_and(|owned| owned.epoch == epoch) {
            self.with_owner(now, segment, out, |owner, o| owner.control(now, number, result, o));
        }
    }

    /// Whether this node has told control that it ends.
    fn ends(&self) -> bool {
        self.map.nodes.get(&self.config.node).is_some_and(|n| n.state == NodeState::Stopped)
    }

    /// Calls the gateway and carries out what it wants.
    pub(crate) fn with_gateway(
        &mut self,
        out: &mut Outputs,
        call: impl FnOnce(&mut Gateway, &mut Vec<Action>),
    ) {
        let mut actions = Vec::new();
        call(&mut self.gateway, &mut actions);
        for action in actions {
            match action {
                // A node that is about to end is fenced for good: what it has still goes on at another one.
                Action::Renew if self.ends() => {}
                Action::Renew => out.push(Output::RenewGateway),
                Action::Moved(session) => self.work.push_back(Work::Moved(session)),
                Action::Send { to, request } => self.send(to, Message::Request(request), out),
                Action::Complete { session, tag, result } => {
                    self.work.push_back(Work::Complete { session, tag, result });
                }
            }
        }
    }

    /// Puts a fence into a segment's log, if this node owns it.
    pub(crate) fn fence_session(
        &mut self,
        now: Time,
        number: u64,
        segment: SegmentKey,
        whose: (GatewayId, SessionId),
        out: &mut Outputs,
    ) {
        let Some(owned) = self.copies.owners.get_mut(&segment) else {
            return out.push(Output::SessionFenced { number, done: false });
        };
        owned.fences.insert(number);
        self.with_owner(now, segment, out, |owner, o| owner.fence(now, whose.0, Some(whose.1), number, o));
    }

    /// Compares all copies of a segment, if this node owns it.
    pub(crate) fn check(
        &mut self,
        now: Time,
        number: u64,
        segment: SegmentKey,
        pace: Duration,
        out: &mut Outputs,
    ) {
        let Some(owned) = self.copies.owners.get_mut(&segment) else {
            return out.push(Output::Checked { number, report: None });
        };
        owned.checks.push(number);
        self.with_owner(now, segment, out, |owner, o| owner.start_check(now, pace, o));
    }

    /// Proposes another owner for everything that this node owns: of the live nodes that hold a copy of S, the one
    /// that owns least, if there is one whose disk is not slow.
    pub(crate) fn hand_over(&mut self, now: Time, out: &mut Outputs) {
        let owned: Vec<SegmentKey> = self.copies.owners.keys().copied().collect();
        let mut load = self.map.owned_by_node();
        for segment in owned {
            let Some(info) = self.map.segments.get(&segment.segment) else { continue };
            let key = |n: &NodeId| (self.has_slow_disk(info, *n), load.get(n).copied().unwrap_or(0), *n);
            let to = self.may_own(info).min_by_key(key);
            let Some(to) = to else { continue };
            let Some(incarnation) = self.map.nodes.get(&to).map(|n| n.incarnation) else { continue };
            *load.entry(to).or_default() += 1;
            self.with_owner(now, segment, out, |owner, o| {
                owner.propose_owner(now, to, incarnation, GrantReason::Handover, o);
            });
        }
    }
}
