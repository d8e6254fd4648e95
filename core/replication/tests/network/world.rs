//! Three nodes with real owners and replicas over stores in memory, a network that delays, loses, repeats and
//! reorders, crashes and takeovers by seed, a control that is one register, and one client. The checkers carry the
//! names of replication.md §2.

use crate::store::Store;
use bytes::Bytes;
use holdfast_replication::*;
use holdfast_types::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const CLIENT: NodeId = NodeId(9);
const BLOCKS: u32 = 6;

pub struct Rng(u64);

impl Rng {
    fn of(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }
    fn chance(&mut self, per_mille: u64) -> bool {
        self.of(1000) < per_mille
    }
}

enum Event {
    Message { from: NodeId, to: NodeId, message: Message },
    Store { node: usize, life: u64 },
    Info { node: usize, info: SegmentInfo },
    Proposed { node: usize, life: u64, epoch: Epoch, number: u64, result: SegmentCommandResult },
    Restart(usize),
    Tick,
}

struct Node {
    up: bool,
    life: u64,
    store: Store,
    replica: Option<Replica>,
    owner: Option<Owner>,
    info: SegmentInfo,
    orders: VecDeque<(bool, u64, Epoch, StoreOrder)>,
}

struct Pending {
    request: SegmentRequest,
    value: u64,
    sent: Time,
}

pub struct World {
    pub rng: Rng,
    now: Time,
    events: BTreeMap<(Time, u64), Event>,
    next_event: u64,
    nodes: Vec<Node>,
    info: SegmentInfo,
    pub faults: bool,
    // The client: at most one request per block, thus each read has exactly one right answer.
    pending: BTreeMap<u32, Pending>,
    values: BTreeMap<u32, u64>,
    next_seq: u64,
    pub acknowledged: u64,
    pub activations: u64,
    pub resyncs: u64,
    granted_at: Time,
    // Checkers.
    committed: BTreeMap<Lsn, (LogPosition, RecordBody)>,
    applied_requests: BTreeMap<(GatewayId, u64), Lsn>,
}

fn key() -> SegmentKey {
    SegmentKey { segment: SegmentId { volume: VolumeId(1), index: 0 }, incarnation: SegmentIncarnation(0) }
}
fn replica(node: usize) -> ReplicaRef {
    ReplicaRef {
        node: NodeId(node as u16 + 1),
        disk: DiskId(node as u128 + 1),
        incarnation: DiskIncarnation(1),
    }
}
fn content(value: u64) -> Bytes {
    Bytes::from(value.to_le_bytes().repeat(BLOCK_BYTES / 8))
}

impl World {
    pub fn new(seed: u64, copies: usize) -> Self {
        let members: Vec<ReplicaRef> = (0..copies).map(replica).collect();
        let granted = Grant {
            epoch: Epoch(1),
            owner: NodeId(1),
            owner_incarnation: ProcessIncarnation(0),
            set: members.clone(),
        };
        let active = ActiveConfig { epoch: Epoch(0), set: members.clone(), tail: LogPosition::ZERO };
        let info = SegmentInfo { key: key(), active, granted, members, min_copies: 1 };
        let node = || Node {
            up: false,
            life: 0,
            store: Store::default(),
            replica: None,
            owner: None,
            info: info.clone(),
            orders: VecDeque::new(),
        };
        let mut world = Self {
            rng: Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            now: Time(1),
            events: BTreeMap::new(),
            next_event: 0,
            nodes: (0..copies).map(|_| node()).collect(),
            info: info.clone(),
            faults: true,
            pending: BTreeMap::new(),
            values: BTreeMap::new(),
            next_seq: 1,
            acknowledged: 0,
            activations: 0,
            resyncs: 0,
            granted_at: Time(1),
            committed: BTreeMap::new(),
            applied_requests: BTreeMap::new(),
        };
        (0..copies).for_each(|n| world.start(n));
        world.at(Duration::from_millis(1), Event::Tick);
        world
    }

    fn at(&mut self, after: Duration, event: Event) {
        self.next_event += 1;
        self.events.insert((self.now + after, self.next_event), event);
    }

    fn start(&mut self, n: usize) {
        let now = self.now;
        let node = &mut self.nodes[n];
        (node.up, node.life, node.info) = (true, node.life + 1, self.info.clone());
        node.replica =
            Some(Replica::new(now, key(), replica(n), node.store.state(), ReplicaConfig::default()));
        self.links(n, true);
        let first =
            self.info.granted.epoch == Epoch(1) && self.info.active.epoch == Epoch(0) && self.now == Time(1);
        if first && n == 0 {
            self.info.granted.owner_incarnation = ProcessIncarnation(1);
        }
        self.learn(n);
    }

    fn links(&mut self, n: usize, up: bool) {
        let (now, id) = (self.now, NodeId(n as u16 + 1));
        for other in 0..self.nodes.len() {
            if other != n && self.nodes[other].up {
                self.owner(other, |o, out| o.link(now, id, up, out));
            }
        }
    }

    fn crash(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if !node.up {
            return;
        }
        (node.up, node.replica, node.owner) = (false, None, None);
        node.orders.clear();
        self.links(n, false);
        let down = Duration::from_millis(50 + self.rng.of(6000));
        self.at(down, Event::Restart(n));
    }

    /// What a node knows of control reaches its owner.
    fn learn(&mut self, n: usize) {
        let info = self.info.clone();
        let after = Duration::from_micros(200 + self.rng.of(5000));
        self.at(after, Event::Info { node: n, info });
    }

    fn take_info(&mut self, n: usize, info: SegmentInfo) {
        let now = self.now;
        if !self.nodes[n].up || info.granted.epoch < self.nodes[n].info.granted.epoch {
            return;
        }
        let fresh = info.granted.epoch > self.nodes[n].info.granted.epoch || self.nodes[n].owner.is_none();
        self.nodes[n].info = info.clone();
        self.owner(n, |o, out| o.info_changed(now, &info, out));
        let id = NodeId(n as u16 + 1);
        let mine = info.granted.owner == id && info.granted.owner_incarnation.0 == self.nodes[n].life;
        if fresh {
            self.nodes[n].owner = None;
        }
        if mine && self.nodes[n].owner.is_none() {
            let up = |(i, node): (usize, &Node)| node.up.then_some(NodeId(i as u16 + 1));
            let links: BTreeSet<NodeId> = self.nodes.iter().enumerate().filter_map(up).collect();
            let mut out = Vec::new();
            let owner = Owner::new(now, id, &info, &links, OwnerConfig::default(), &mut out);
            self.nodes[n].owner = Some(owner);
            self.owner_out(n, out);
        }
    }

    fn owner(&mut self, n: usize, call: impl FnOnce(&mut Owner, &mut Vec<OwnerOutput>)) {
        let now = self.now;
        let Some(owner) = &mut self.nodes[n].owner else { return };
        let mut out = Vec::new();
        call(owner, &mut out);
        owner.pump(now, &mut out);
        self.owner_out(n, out);
    }

    fn owner_out(&mut self, n: usize, outputs: Vec<OwnerOutput>) {
        let id = NodeId(n as u16 + 1);
        let epoch = self.nodes[n].info.granted.epoch;
        for output in outputs {
            match output {
                OwnerOutput::Send { to, message } => self.send(id, to, Message::Replication(message)),
                OwnerOutput::Store { number, order } => self.store(n, (true, number, epoch, order)),
                OwnerOutput::Reply { to, reply } => self.send(id, to, Message::Reply(reply)),
                OwnerOutput::Propose { number, command } => self.propose(n, number, command),
                OwnerOutput::Event(ReplicationEvent::ResyncFinished { .. }) => self.resyncs += 1,
                OwnerOutput::Event(ReplicationEvent::Diverged { .. }) => panic!("I6: a copy diverged"),
                _ => {}
            }
        }
    }

    fn replica(&mut self, n: usize, call: impl FnOnce(&mut Replica, &mut Vec<ReplicaOutput>)) {
        let Some(replica) = &mut self.nodes[n].replica else { return };
        let mut out = Vec::new();
        call(replica, &mut out);
        for output in out {
            match output {
                ReplicaOutput::Send { to, message } => {
                    self.send(NodeId(n as u16 + 1), to, Message::Replication(message));
                }
                ReplicaOutput::Store { number, order } => self.store(n, (false, number, Epoch(0), order)),
                ReplicaOutput::Event(ReplicationEvent::Diverged { applied, at, .. }) => {
                    panic!("I6: node {} applied {applied} and is to cut after {at}", n + 1)
                }
                ReplicaOutput::Event(_) => {}
            }
        }
    }

    fn store(&mut self, n: usize, order: (bool, u64, Epoch, StoreOrder)) {
        self.nodes[n].orders.push_back(order);
        let (life, after) = (self.nodes[n].life, Duration::from_micros(100 + self.rng.of(2000)));
        self.at(after, Event::Store { node: n, life });
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        let local = from == to;
        if !local && self.faults && self.rng.chance(20) {
            return;
        }
        let times = if !local && self.faults && self.rng.chance(20) { 2 } else { 1 };
        for _ in 0..times {
            // Without faults, links keep their order, as TCP does.
            let spread = if local {
                0
            } else if self.faults {
                self.rng.of(4000)
            } else {
                100
            };
            let message = message.clone();
            self.at(Duration::from_micros(1 + spread), Event::Message { from, to, message });
        }
    }

    fn propose(&mut self, n: usize, number: u64, command: SegmentCommand) {
        let granted = self.info.granted.epoch;
        let result = match command {
            SegmentCommand::Activated { epoch, tail, .. } if epoch == granted => {
                if self.info.active.epoch != epoch {
                    self.activations += 1;
                }
                self.info.active = ActiveConfig { epoch, set: self.info.granted.set.clone(), tail };
                SegmentCommandResult::Done
            }
            SegmentCommand::Grant { expect, owner, owner_incarnation, set, .. } if expect == granted => {
                self.info.granted = Grant { epoch: Epoch(expect.0 + 1), owner, owner_incarnation, set };
                self.granted_at = self.now;
                SegmentCommandResult::Done
            }
            _ => SegmentCommandResult::Stale { granted },
        };
        (0..self.nodes.len()).for_each(|n| self.learn(n));
        let result = if self.faults && self.rng.chance(100) { SegmentCommandResult::Unknown } else { result };
        let (life, epoch) = (self.nodes[n].life, self.nodes[n].info.granted.epoch);
        let after = Duration::from_micros(500 + self.rng.of(5000));
        self.at(after, Event::Proposed { node: n, life, epoch, number, result });
    }

    /// Control's detector: another owner when the granted one is gone, or, with faults, for no reason.
    fn takeover(&mut self) {
        let owner = usize::from(self.info.granted.owner.0) - 1;
        let dead = !self.nodes[owner].up || self.nodes[owner].life != self.info.granted.owner_incarnation.0;
        // As the director does: who does not activate in time is replaced by another.
        let late = self.now.since(self.granted_at) > Duration::from_secs(3);
        let stuck = late && self.info.active.epoch != self.info.granted.epoch;
        if !((dead || stuck) && self.rng.chance(30) || self.faults && self.rng.chance(1)) {
            return;
        }
        let up = |r: &&ReplicaRef| self.nodes[usize::from(r.node.0) - 1].up;
        let reachable: Vec<ReplicaRef> = self.info.active.set.iter().filter(up).copied().collect();
        if reachable.len() < seal_quorum(self.info.active.set.len()) {
            return;
        }
        self.granted_at = self.now;
        let whole = reachable.len() >= write_quorum(self.info.active.set.len());
        let owner = reachable[self.rng.of(reachable.len() as u64) as usize].node;
        self.info.granted = Grant {
            epoch: Epoch(self.info.granted.epoch.0 + 1),
            owner,
            owner_incarnation: ProcessIncarnation(self.nodes[usize::from(owner.0) - 1].life),
            set: if whole { self.info.active.set.clone() } else { reachable },
        };
        (0..self.nodes.len()).for_each(|n| self.learn(n));
    }

    /// An owner gives its segment, and its leases, to another node.
    fn hand_over(&mut self) {
        if !(self.faults && self.rng.chance(3)) {
            return;
        }
        let now = self.now;
        let (from, to) = (usize::from(self.info.granted.owner.0) - 1, self.rng.of(self.nodes.len() as u64));
        let run = ProcessIncarnation(self.nodes[to as usize].life);
        let to = NodeId(to as u16 + 1);
        self.owner(from, |o, out| o.propose_owner(now, to, run, GrantReason::Handover, out));
    }

    fn stored(&mut self, n: usize) {
        let now = self.now;
        let Some((own, number, epoch, order)) = self.nodes[n].orders.pop_front() else { return };
        let mut commits = Vec::new();
        let outcome = self.nodes[n].store.order(order, &mut commits);
        commits.into_iter().for_each(|record| self.check_commit(record));
        if self.rng.chance(20) {
            self.nodes[n].store.trim();
        }
        let Some(outcome) = outcome else { return };
        if !own {
            self.replica(n, |r, out| r.stored(now, number, outcome, out));
        } else if self.nodes[n].info.granted.epoch == epoch {
            self.owner(n, |o, out| o.stored(now, number, outcome, out));
        }
    }

    fn check_commit(&mut self, record: Record) {
        let lsn = record.position.lsn;
        let entry = (record.position, record.body);
        if let Some(before) = self.committed.get(&lsn) {
            assert_eq!(before.0, entry.0, "I1: committed record {lsn} changed");
            assert!(before.1 == entry.1, "I4: two records at {}", entry.0);
        }
        self.committed.insert(lsn, entry);
        if let Some(tag) = record.request {
            let at = *self.applied_requests.entry((tag.gateway, tag.seq)).or_insert(lsn);
            assert_eq!(at, lsn, "I9: request {} committed twice", tag.seq);
        }
    }

    fn client(&mut self) {
        let now = self.now;
        let gateway = GatewayId { node: CLIENT, incarnation: ProcessIncarnation(1) };
        let block = self.rng.of(u64::from(BLOCKS)) as u32;
        if !self.pending.contains_key(&block) && self.faults {
            let seq = self.next_seq;
            self.next_seq += 1;
            let offset = BlockIndex(block).byte_offset();
            let write = self.rng.chance(600);
            let op = if write {
                SegmentOp::Write { offset, data: vec![content(seq)] }
            } else {
                SegmentOp::Read { offset, len: BLOCK_BYTES as u32 }
            };
            let id = RequestId { gateway, seq };
            let request = SegmentRequest { id, session: SessionId(1), low: 0, segment: key(), op };
            let value = if write { seq } else { 0 };
            self.pending.insert(block, Pending { request, value, sent: Time(0) });
        }
        let low = self.pending.values().map(|p| p.request.id.seq).min().unwrap_or(self.next_seq);
        let (to, mut again) = (self.info.granted.owner, Vec::new());
        for p in self.pending.values_mut() {
            if p.sent == Time(0) || now.since(p.sent) > Duration::from_millis(100) {
                p.sent = now;
                p.request.low = low;
                again.push(p.request.clone());
            }
        }
        for request in again {
            self.send(CLIENT, to, Message::Request(request));
        }
    }

    fn reply(&mut self, reply: SegmentReply) {
        let mine = |(_, p): &(&u32, &Pending)| p.request.id == reply.id;
        let Some(block) = self.pending.iter().find(mine).map(|(b, _)| *b) else { return };
        match reply.result {
            SegmentResult::Ok(BlockReply::Data(data)) => {
                let expected = self.values.get(&block).copied().unwrap_or(0);
                assert!(
                    data.concat() == content(expected),
                    "block {block}: not what was acknowledged ({expected})"
                );
            }
            SegmentResult::Ok(_) => {
                self.values.insert(block, self.pending[&block].value);
            }
            SegmentResult::NotOwner | SegmentResult::Busy => return,
            other => panic!("a request failed: {other:?}"),
        }
        self.acknowledged += 1;
        self.pending.remove(&block);
    }

    fn tick(&mut self) {
        let now = self.now;
        for n in 0..self.nodes.len() {
            let due = |o: &Owner| o.next_timer().is_some_and(|at| at <= now);
            if self.nodes[n].owner.as_ref().is_some_and(due) {
                self.owner(n, |o, out| o.timer(now, out));
            }
        }
        self.takeover();
        self.hand_over();
        self.client();
        if self.faults && self.rng.chance(2) {
            let n = self.rng.of(self.nodes.len() as u64) as usize;
            self.crash(n);
        }
        self.at(Duration::from_millis(1), Event::Tick);
    }

    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            let Some(((at, _), event)) = self.events.pop_first() else { return };
            self.now = self.now.max(at);
            let now = self.now;
            match event {
                Event::Tick => self.tick(),
                Event::Restart(n) => self.start(n),
                Event::Info { node, info } => self.take_info(node, info),
                Event::Store { node, life } if self.nodes[node].life == life => self.stored(node),
                Event::Proposed { node, life, epoch, number, result }
                    if self.nodes[node].life == life && self.nodes[node].info.granted.epoch == epoch =>
                {
                    self.owner(node, |o, out| o.control(now, number, result, out));
                }
                Event::Message { to: CLIENT, message: Message::Reply(reply), .. } => self.reply(reply),
                Event::Message { from, to, message } => self.deliver(from, to, message),
                Event::Store { .. } | Event::Proposed { .. } => {}
            }
        }
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, message: Message) {
        let (now, n) = (self.now, usize::from(to.0) - 1);
        if !self.nodes[n].up {
            return;
        }
        match message {
            Message::Request(request) => self.owner(n, |o, out| o.request(now, from, request, out)),
            Message::Replication(e) if e.body.is_for_owner() => {
                self.owner(n, |o, out| o.receive(now, from, e, out))
            }
            Message::Replication(e) => self.replica(n, |r, out| r.receive(now, from, e, out)),
            Message::Reply(_) => {}
        }
    }

    /// After everything healed: nothing waits, and the copies of S hold the same.
    pub fn finish(&mut self) {
        self.faults = false;
        self.run(Duration::from_secs(40));
        let status = |n: &Node| n.owner.as_ref().map(Owner::status);
        assert!(
            self.pending.is_empty(),
            "no progress after healing: {} wait; {:?}; active {:?}, granted {:?}",
            self.pending.len(),
            self.nodes.iter().map(status).collect::<Vec<_>>(),
            self.info.active,
            self.info.granted
        );
        let all: Vec<&Node> =
            self.info.active.set.iter().map(|r| &self.nodes[usize::from(r.node.0) - 1]).collect();
        for node in &all[1..] {
            assert!(node.store.blocks == all[0].store.blocks, "I12: copies of S differ");
        }
        assert_eq!(all.len(), self.nodes.len(), "a copy did not come back into S");
    }
}
