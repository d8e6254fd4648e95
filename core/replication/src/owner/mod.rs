//! The owner of a segment: orders its writes, in one epoch, in one run of its node's daemon (replication.md §1).
//! Another epoch is another `Owner`.
//!
//! It promises: nothing is served before control recorded the epoch as active; nothing is acknowledged that w(S)
//! copies of S do not have on stable storage; a read shows committed state and is proved afterwards; a repeat is
//! answered and not applied again. It never waits for one slow copy of three, and never for control while w(S)
//! answer.
//!
//! This file routes. [`activation`]: from the grant to serving; [`stuck`]: when that does not go on. [`requests`] and
//! [`write`]: what waits, and how it becomes records. [`room`]: room for new data. [`streams`]: records to the copies.
//! [`commit`]: what w(S) have. [`read`] and [`lease`]: reads
//! and their proof. [`laggard`]: who leaves S. [`resync`]: who enters it. [`repair`]: damaged blocks. [`check`]:
//! all copies compared.

mod activation;
mod check;
mod commit;
mod copy;
mod laggard;
mod lease;
mod log;
mod read;
mod repair;
mod requests;
mod resync;
mod room;
mod status;
mod streams;
mod stuck;
mod write;

use crate::config::OwnerConfig;
use crate::event::ReplicationEvent;
use crate::message::{Body, Envelope, SegmentReply, SegmentRequest};
use crate::repeats::RepeatTable;
use activation::{Activation, Phase};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
pub use check::{CheckDifference, CheckReport, DifferenceKind};
use copy::Copy;
use holdfast_types::{
    ActiveConfig, Epoch, Lsn, NodeId, ProcessIncarnation, ReplicaRef, SegmentCommand, SegmentCommandResult,
    SegmentInfo, SegmentKey, StoreOrder, StoreOutcome, Time, seal_quorum, write_quorum,
};
use laggard::Proposals;
use lease::Leases;
use log::Log;
use read::{BlockRead, Reads};
use repair::Repairs;
use requests::{Fences, Requests};
use resync::Resync;
use room::Rooms;
use status::Counters;
pub use status::{CopyRole, CopyStatus, OwnerStatus, RecordTimes, ResyncStatus, WriteTimes};

/// What an owner orders.
#[derive(Clone, Debug, PartialEq)]
pub enum OwnerOutput {
    /// Send to a node, this one included.
    Send {
        /// Which.
        to: NodeId,
        /// What.
        message: Envelope,
    },
    /// Give to the store of the own copy.
    Store {
        /// Comes back with the outcome.
        number: u64,
        /// What.
        order: StoreOrder,
    },
    /// Answer a gateway.
    Reply {
        /// On which node.
        to: NodeId,
        /// What.
        reply: SegmentReply,
    },
    /// Propose to control.
    Propose {
        /// Comes back with control's answer.
        number: u64,
        /// What.
        command: SegmentCommand,
    },
    /// This node cannot activate or serve the segment and these can: have one of them granted it
    /// ([`Owner::propose_takeover`]).
    PassOn {
        /// Whose copies answered, or have everything.
        nodes: Vec<NodeId>,
    },
    /// The fence is committed.
    Fenced {
        /// As given to [`Owner::fence`].
        number: u64,
    },
    /// A check goes on.
    CheckProgress {
        /// Extents compared.
        done: u32,
        /// Of so many.
        total: u32,
    },
    /// A check ended.
    CheckDone(CheckReport),
    /// For the event log.
    Event(ReplicationEvent),
}

/// What an order to the own store was for.
#[derive(Debug)]
pub(crate) enum StoreUse {
    /// Older records for a copy that is behind.
    Load { copy: ReplicaRef, next: Lsn },
    /// Blocks for a request.
    Read(BlockRead),
    /// The list of extents that a learner misses.
    Changed(ReplicaRef),
    /// An image for a learner.
    Image { copy: ReplicaRef, extent: holdfast_types::ExtentIndex },
    /// The own side of a comparison with a learner.
    Digest { copy: ReplicaRef, extent: holdfast_types::ExtentIndex },
}

/// See the module's text.
#[derive(Debug)]
pub struct Owner {
    config: OwnerConfig,
    node: NodeId,
    key: SegmentKey,
    epoch: Epoch,
    incarnation: ProcessIncarnation,
    /// The configuration that decides until this epoch is active.
    base: ActiveConfig,
    /// S of this epoch.
    set: Vec<ReplicaRef>,
    min_copies: usize,
    own: ReplicaRef,
    /// The own copy's disk does not answer.
    disk_is_silent: bool,
    links: BTreeSet<NodeId>,
    copies: BTreeMap<ReplicaRef, Copy>,
    phase: Phase,
    activation: Activation,
    log: Log,
    commit: Lsn,
    /// When some copy is to hear of the commit although no append carries it.
    commit_due: Option<Time>,
    repeats: RepeatTable,
    requests: Requests,
    rooms: Rooms,
    fences: Fences,
    reads: Reads,
    leases: Leases,
    repairs: Repairs,
    resyncs: BTreeMap<ReplicaRef, Resync>,
    check: Option<check::Check>,
    store_uses: BTreeMap<u64, StoreUse>,
    next_number: u64,
    proposals: Proposals,
    counters: Counters,
    /// The copies that control lists: those that are not in S are to be resynced.
    members: BTreeSet<ReplicaRef>,
    /// When to ask learners again that no resync is under way for.
    begin_at: Option<Time>,
    /// When a gateway's request came last, and how long a write took lately: resyncs give way to clients.
    last_request: Option<Time>,
    /// When a client asked something of this node last.
    clients_at: Option<Time>,
    write_latency: holdfast_types::Duration,
    /// What may be kept for copies that are behind now.
    retained_most: usize,
    /// Images and comparisons that the other owners on this node have under way.
    others_under_way: usize,
}

impl Owner {
    /// Begins to activate what control granted to this node. `links`: the nodes reachable now, this one included.
    pub fn new(
        now: Time,
        node: NodeId,
        info: &SegmentInfo,
        links: &BTreeSet<NodeId>,
        config: OwnerConfig,
        out: &mut Vec<OwnerOutput>,
    ) -> Self {
        let set = info.granted.set.clone();
        let own = set.iter().find(|r| r.node == node).copied().unwrap_or_default();
        assert_eq!(own.node, node, "S holds a copy on the owner's node");
        let mut owner = Self {
            node,
            key: info.key,
            epoch: info.granted.epoch,
            incarnation: info.granted.owner_incarnation,
            base: info.active.clone(),
            set,
            min_copies: usize::from(info.min_copies),
            own,
            disk_is_silent: false,
            links: links.clone(),
            copies: BTreeMap::new(),
            phase: Phase::Sealing,
            activation: Activation::new(now, config.activation_patience),
            log: Log::default(),
            commit: Lsn(0),
            commit_due: None,
            repeats: RepeatTable::default(),
            requests: Requests::default(),
            rooms: Rooms::default(),
            fences: Fences::default(),
            reads: Reads::default(),
            leases: Leases::new(config.lease, config.drift_per_mille),
            repairs: Repairs::default(),
            resyncs: BTreeMap::new(),
            check: None,
            store_uses: BTreeMap::new(),
            next_number: 1,
            proposals: Proposals::default(),
            counters: Counters::default(),
            members: BTreeSet::new(),
            begin_at: None,
            last_request: None,
            clients_at: None,
            write_latency: holdfast_types::Duration::ZERO,
            retained_most: config.retained_bytes,
            others_under_way: 0,
            config,
        };
        owner.links.insert(node);
        owner.set_members(now, info);
        owner.event(ReplicationEvent::Phase { epoch: owner.epoch, phase: "sealing" }, out);
        owner.seal_all(now, out);
        owner
    }

    /// Takes a message of a copy. One of another epoch, segment or copy is none of this owner's.
    pub fn receive(&mut self, now: Time, from: NodeId, message: Envelope, out: &mut Vec<OwnerOutput>) {
        let copy = message.replica;
        let mine = message.segment == self.key && message.epoch == self.epoch && copy.node == from;
        if !mine || self.ended() || !self.copies.contains_key(&copy) {
            return;
        }
        match message.body {
            Body::SealReply(state) => self.sealed(now, copy, state, out),
            Body::Appended { matched, committed } => self.appended(now, copy, matched, committed, out),
            Body::Need { index } => self.needs(now, copy, index, out),
            // A copy promised a higher epoch. Control says which; until then w(S) decide by themselves.
            Body::Rejected { .. } => {}
            Body::Refused { reason } => self.refused(now, copy, reason, out),
            Body::LeaseReply { number, granted } => self.lease_reply(now, copy, number, granted, out),
            Body::ProbeReply { number } => self.probe_reply(now, copy, number, out),
            Body::FetchReply { number, records } => self.fetched(now, copy, number, records, out),
            Body::ReadReply { number, block } => self.repair_read(now, copy, number, block, out),
            Body::HealReply { number, replaced } => self.repair_healed(now, copy, number, replaced, out),
            Body::LearnReply { base, since } => self.learning(now, copy, base, since, out),
            Body::ImageReply { number, installed } => self.image_installed(now, copy, number, installed, out),
            Body::DigestReply { number, at, blocks } => {
                self.check_digest(now, copy, number, at, &blocks, out);
                self.resync_digest(now, copy, number, at, blocks, out);
            }
            Body::RoomReply { number, refusal, spare } => {
                self.room_replied(now, copy, number, refusal, spare, out);
            }
            Body::FinishReply => self.resync_finished(now, copy, out),
            // Messages to copies; `is_for_owner` keeps them away.
            _ => {}
        }
        if let Some(c) = self.copies.get_mut(&copy) {
            c.heard = true;
        }
    }

    /// Takes a gateway's request.
    pub fn request(&mut self, now: Time, from: NodeId, request: SegmentRequest, out: &mut Vec<OwnerOutput>) {
        self.last_request = Some(now);
        self.take_request(now, from, request, out);
    }

    /// When a client asked something last of the node that this owner is on, of whatever segment.
    pub fn note_clients(&mut self, at: Option<Time>) {
        self.clients_at = at;
    }

    /// How much this owner may keep for copies that are behind: the node's limit less what its other owners keep.
    pub fn retain_at_most(&mut self, bytes: usize) {
        self.retained_most = bytes;
    }

    /// What it keeps for them: committed records, which the own copy has on its disk as well.
    pub fn retained_bytes(&self) -> usize {
        self.log.settled_bytes()
    }

    /// What came of an order to the own copy's store.
    pub fn stored(&mut self, now: Time, number: u64, outcome: StoreOutcome, out: &mut Vec<OwnerOutput>) {
        let Some(used) = self.store_uses.remove(&number) else { return };
        if self.ended() {
            return;
        }
        match used {
            StoreUse::Load { copy, next } => self.loaded(now, copy, next, outcome, out),
            StoreUse::Read(read) => self.read_done(now, read, outcome, out),
            StoreUse::Changed(copy) => self.resync_listed(now, copy, outcome, out),
            StoreUse::Image { copy, extent } => self.image_read(now, copy, extent, outcome, out),
            StoreUse::Digest { copy, extent } => self.own_digest(now, copy, extent, outcome, out),
        }
    }

    /// Control's answer to a proposal.
    pub fn control(
        &mut self,
        now: Time,
        number: u64,
        result: SegmentCommandResult,
        out: &mut Vec<OwnerOutput>,
    ) {
        if !self.ended() {
            self.proposed(now, number, result, out);
        }
    }

    /// Control's newest word on the segment. Another grant ends this owner: what waits goes back to its gateways.
    pub fn info_changed(&mut self, now: Time, info: &SegmentInfo, out: &mut Vec<OwnerOutput>) {
        if self.ended() {
            return;
        }
        if info.key != self.key || info.granted.epoch > self.epoch {
            return self.end(out);
        }
        if info.granted.epoch < self.epoch {
            // An old map of a follower's.
            return;
        }
        self.min_copies = usize::from(info.min_copies);
        self.set_members(now, info);
        if info.active.epoch == self.epoch && matches!(self.phase, Phase::Recording) {
            self.activated(now, out);
        }
        self.begin_resyncs(now, out);
    }

    /// The connection to a peer came up or went down.
    pub fn link(&mut self, now: Time, node: NodeId, up: bool, out: &mut Vec<OwnerOutput>) {
        if node == self.node || self.ended() {
            return;
        }
        if up {
            self.links.insert(node);
        } else {
            self.links.remove(&node);
        }
        let of_node: Vec<ReplicaRef> = self.copies.keys().filter(|r| r.node == node).copied().collect();
        for copy in of_node {
            self.copy_link(now, copy, up, out);
            if !up {
                self.check_without(now, copy, out);
            }
        }
    }

    /// Ends a burst of inputs: what gathered goes out, one append to each copy.
    pub fn pump(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        if self.ended() {
            return;
        }
        self.advance(now, out);
        self.fetch_more(now, out);
        self.probe_reads(now, out);
        let copies: Vec<ReplicaRef> = self.copies.keys().copied().collect();
        for copy in copies {
            self.stream(now, copy, out);
        }
    }

    /// The time of `next_timer` has come.
    pub fn timer(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        if self.ended() {
            return;
        }
        self.activation_timer(now, out);
        self.stuck_timer(now, out);
        self.streams_timer(now, out);
        self.rooms_timer(now, out);
        self.reads_timer(now, out);
        self.repairs_timer(now, out);
        self.resyncs_timer(now, out);
        self.check_timer(now, out);
        self.stall_timer(now, out);
        self.consider_drop(now, out);
        self.proposals_timer(now, out);
        self.pump(now, out);
    }

    /// When `timer` is next to be called. None when nothing is outstanding.
    pub fn next_timer(&self) -> Option<Time> {
        if self.ended() {
            return None;
        }
        let times = [
            self.activation_timer_at(),
            self.stuck_timer_at(),
            self.streams_timer_at(),
            self.rooms_timer_at(),
            self.reads_timer_at(),
            self.repairs_timer_at(),
            self.resyncs_timer_at(),
            self.check_timer_at(),
            self.stall_timer_at(),
            self.drop_timer_at(),
            self.proposals_timer_at(),
        ];
        times.into_iter().flatten().min()
    }

    fn w(&self) -> usize {
        write_quorum(self.set.len())
    }
    fn r_base(&self) -> usize {
        seal_quorum(self.base.set.len().max(1))
    }
    fn active(&self) -> bool {
        matches!(self.phase, Phase::Active)
    }
    fn ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Brings the list of copies in line with what control lists.
    fn set_members(&mut self, now: Time, info: &SegmentInfo) {
        let listed: BTreeSet<ReplicaRef> =
            info.members.iter().chain(&self.set).chain(&self.base.set).copied().collect();
        self.members = info.members.iter().copied().collect();
        self.copies.retain(|r, _| listed.contains(r));
        self.resyncs.retain(|r, _| listed.contains(r));
        for replica in listed {
            let (counts, up) = (self.set.contains(&replica), self.links.contains(&replica.node));
            let step = self.config.resend;
            self.copies.entry(replica).or_insert_with(|| Copy::new(now, replica, counts, up, step));
        }
    }

    /// Another grant came. What waits is repeated by its gateway at the next owner.
    fn end(&mut self, out: &mut Vec<OwnerOutput>) {
        self.phase = Phase::Ended;
        self.event(ReplicationEvent::Superseded { epoch: self.epoch }, out);
        self.fail_all_requests(out);
    }

    fn send(&mut self, copy: ReplicaRef, body: Body, out: &mut Vec<OwnerOutput>) {
        let message = Envelope { segment: self.key, epoch: self.epoch, replica: copy, body };
        out.push(OwnerOutput::Send { to: copy.node, message });
    }

    fn store(&mut self, used: StoreUse, order: StoreOrder, out: &mut Vec<OwnerOutput>) {
        let number = self.number();
        self.store_uses.insert(number, used);
        out.push(OwnerOutput::Store { number, order });
    }

    fn number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    fn event(&self, event: ReplicationEvent, out: &mut Vec<OwnerOutput>) {
        out.push(OwnerOutput::Event(event));
    }
}
