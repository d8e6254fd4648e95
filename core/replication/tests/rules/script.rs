//! An owner on node 1 with copies that do what the test's script says. By itself a copy answers like an empty,
//! healthy one; what is sent to a silent one is kept.

use bytes::Bytes;
use holdfast_replication::index::LogIndex;
use holdfast_replication::*;
use holdfast_types::*;
use std::collections::{BTreeMap, BTreeSet};

/// The gateway whose requests these are; its node is none of the copies'.
pub const GATEWAY: GatewayId = GatewayId { node: NodeId(9), incarnation: ProcessIncarnation(1) };
pub const SESSION: SessionId = SessionId(5);

pub fn key() -> SegmentKey {
    SegmentKey { segment: SegmentId { volume: VolumeId(1), index: 0 }, incarnation: SegmentIncarnation(0) }
}
pub fn copy(node: u16) -> ReplicaRef {
    ReplicaRef { node: NodeId(node), disk: DiskId(node.into()), incarnation: DiskIncarnation(1) }
}
pub fn at(epoch: u64, lsn: u64) -> LogPosition {
    LogPosition::new(Epoch(epoch), Lsn(lsn))
}
pub fn milliseconds(n: u64) -> Duration {
    Duration::from_millis(n)
}
pub fn block(byte: u8) -> Bytes {
    Bytes::from(vec![byte; BLOCK_BYTES])
}
/// A log of START records at these positions.
pub fn log(positions: &[(u64, u64)]) -> LogIndex {
    let mut index = LogIndex::default();
    positions.iter().for_each(|(epoch, lsn)| index.push(at(*epoch, *lsn)));
    index
}
pub fn empty_record(position: LogPosition) -> Record {
    Record { position, body: RecordBody::Start, request: None }
}
pub fn request(seq: u64, op: SegmentOp) -> SegmentRequest {
    SegmentRequest { id: RequestId { gateway: GATEWAY, seq }, session: SESSION, low: 0, segment: key(), op }
}
pub fn write(seq: u64, byte: u8) -> SegmentRequest {
    request(seq, SegmentOp::Write { offset: 0, data: vec![block(byte)] })
}
pub fn read(seq: u64) -> SegmentRequest {
    request(seq, SegmentOp::Read { offset: 0, len: BLOCK_BYTES as u32 })
}

/// A copy as the script has it.
#[derive(Default)]
pub struct Fake {
    pub index: LogIndex,
    pub records: BTreeMap<Lsn, Record>,
    pub lease_left: Duration,
    pub incomplete_since: Option<Lsn>,
    /// It answers nothing.
    pub silent: bool,
    /// It answers appends, and says that it applied nothing of them.
    pub lags: bool,
    /// It does not answer when it is asked for a lease.
    pub keeps_leases: bool,
    /// What it was told.
    pub told: Vec<Body>,
}

impl Fake {
    /// What it says when it seals.
    pub fn sealed(&self) -> Body {
        Body::SealReply(SealState {
            index: self.index.clone(),
            applied: Lsn(0),
            lease_left: self.lease_left,
            incomplete_since: self.incomplete_since,
            repeats: Some(Default::default()),
        })
    }
}

/// See the module's text.
pub struct Script {
    pub owner: Owner,
    pub now: Time,
    pub epoch: u64,
    pub info: SegmentInfo,
    pub fakes: BTreeMap<u16, Fake>,
    /// Answers to the gateway, in order, with the request's number.
    pub replies: Vec<(u64, SegmentResult)>,
    /// Proposals to control that were not answered yet.
    pub proposals: Vec<(u64, SegmentCommand)>,
    /// Orders to the own store that were not answered yet.
    pub orders: Vec<(u64, StoreOrder)>,
    /// Fences that are committed.
    pub fenced: Vec<u64>,
    /// The nodes that the owner last said could serve in its place.
    pub passed_on: Vec<NodeId>,
    /// Checks that ended.
    pub checks: Vec<CheckReport>,
    pub events: Vec<ReplicationEvent>,
}

/// What the owner is made with: the active S, the granted S, both by node.
pub struct Setting {
    pub active: Vec<u16>,
    pub granted: Vec<u16>,
    pub members: Vec<u16>,
    pub min_copies: u8,
    pub config: OwnerConfig,
    pub fakes: BTreeMap<u16, Fake>,
}

impl Setting {
    pub fn new(active: &[u16], granted: &[u16]) -> Self {
        let members = active.to_vec();
        let fakes = members.iter().map(|n| (*n, Fake::default())).collect();
        let config = OwnerConfig::default();
        let (active, granted) = (active.to_vec(), granted.to_vec());
        Self { active, granted, members, min_copies: 1, config, fakes }
    }
    pub fn fake(&mut self, node: u16) -> &mut Fake {
        self.fakes.entry(node).or_default()
    }
    /// Epoch 8 is active, epoch 9 is granted to node 1.
    pub fn start(self) -> Script {
        let refs = |nodes: &[u16]| nodes.iter().map(|n| copy(*n)).collect::<Vec<_>>();
        let granted = Grant {
            epoch: Epoch(9),
            owner: NodeId(1),
            owner_incarnation: ProcessIncarnation(1),
            set: refs(&self.granted),
        };
        let active = ActiveConfig { epoch: Epoch(8), set: refs(&self.active), tail: LogPosition::ZERO };
        let (members, min_copies) = (refs(&self.members), self.min_copies);
        let info = SegmentInfo { key: key(), active, granted, members, min_copies };
        let (now, mut out) = (Time(1_000_000_000), Vec::new());
        let links: BTreeSet<NodeId> = self.fakes.keys().map(|n| NodeId(*n)).collect();
        let owner = Owner::new(now, NodeId(1), &info, &links, self.config, &mut out);
        let (replies, proposals, orders, fenced, events) = Default::default();
        let (passed_on, checks) = Default::default();
        let mut script = Script {
            owner,
            now,
            epoch: 9,
            info,
            fakes: self.fakes,
            replies,
            proposals,
            orders,
            fenced,
            passed_on,
            checks,
            events,
        };
        script.take(out);
        script
    }
    /// Started, and active.
    pub fn active(self) -> Script {
        let mut script = self.start();
        script.activate();
        script
    }
}

impl Script {
    /// Calls the owner, and lets the copies answer until nothing more happens.
    pub fn call(&mut self, call: impl FnOnce(&mut Owner, Time, &mut Vec<OwnerOutput>)) {
        let mut out = Vec::new();
        call(&mut self.owner, self.now, &mut out);
        self.owner.pump(self.now, &mut out);
        self.take(out);
    }

    fn take(&mut self, out: Vec<OwnerOutput>) {
        let mut answers = Vec::new();
        for output in out {
            match output {
                OwnerOutput::Send { to, message } => answers.extend(self.told(to, message)),
                OwnerOutput::Reply { reply, .. } => self.replies.push((reply.id.seq, reply.result)),
                OwnerOutput::Propose { number, command } => self.proposals.push((number, command)),
                OwnerOutput::Store { number, order } => self.orders.push((number, order)),
                OwnerOutput::Fenced { number } => self.fenced.push(number),
                OwnerOutput::Event(event) => self.events.push(event),
                OwnerOutput::PassOn { nodes } => self.passed_on = nodes,
                OwnerOutput::CheckDone(report) => self.checks.push(report),
                OwnerOutput::CheckProgress { .. } => {}
            }
        }
        for (from, body) in answers {
            self.say(from, body);
        }
    }

    /// A copy is told something; its answer, if it has one.
    fn told(&mut self, to: NodeId, message: Envelope) -> Option<(u16, Body)> {
        let fake = self.fakes.get_mut(&to.0)?;
        fake.told.push(message.body.clone());
        // There is always room: what these scripts are about comes after that.
        if let Body::Room { number, .. } = message.body {
            return Some((to.0, Body::RoomReply { number, refusal: None, spare: 1 << 20 }));
        }
        if fake.silent {
            return None;
        }
        let answer = match message.body {
            Body::Seal { .. } => fake.sealed(),
            Body::Append { prev, records, commit } => {
                if !fake.index.has(prev) {
                    return Some((to.0, Body::Need { index: fake.index.clone() }));
                }
                let matched = records.last().map_or(prev.lsn, |r| r.position.lsn);
                for record in records {
                    if !fake.index.has(record.position) {
                        fake.index.cut_after(Lsn(record.position.lsn.0 - 1));
                        fake.index.push(record.position);
                        fake.records.insert(record.position.lsn, record);
                    }
                }
                let committed = if fake.lags { Lsn(0) } else { commit.min(matched) };
                Body::Appended { matched, committed }
            }
            Body::Lease { .. } if fake.keeps_leases => return None,
            Body::Lease { number } => Body::LeaseReply { number, granted: true },
            Body::Probe { number } => Body::ProbeReply { number },
            Body::Fetch { number, after, .. } => {
                let records = fake.records.range(after.next()..).map(|(_, r)| r.clone()).collect();
                Body::FetchReply { number, records }
            }
            _ => return None,
        };
        Some((to.0, answer))
    }

    /// A copy says something, in the owner's epoch.
    pub fn say(&mut self, from: u16, body: Body) {
        let message = Envelope { segment: key(), epoch: Epoch(self.epoch), replica: copy(from), body };
        self.call(|o, now, out| o.receive(now, NodeId(from), message, out));
    }

    /// A silent copy answers again; everything is asked again in time.
    pub fn speak(&mut self, node: u16) {
        self.fakes.get_mut(&node).expect("a copy of the script").silent = false;
        self.pass(milliseconds(1500));
    }

    /// Time goes by, with every timer on its way.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.owner.next_timer().filter(|at| *at <= end) {
            self.now = next.max(self.now + Duration(1));
            self.call(|o, now, out| o.timer(now, out));
        }
        self.now = end;
        self.call(|o, now, out| o.timer(now, out));
    }

    /// Control records what is proposed as activated.
    pub fn activate(&mut self) {
        assert!(self.asks_for_activation(), "the owner is {}", self.phase());
        let (number, _) = self.proposals.remove(0);
        self.call(|o, now, out| o.control(now, number, SegmentCommandResult::Done, out));
    }

    pub fn asks_for_activation(&self) -> bool {
        matches!(self.proposals.first(), Some((_, SegmentCommand::Activated { .. })))
    }

    pub fn phase(&self) -> String {
        let mut phases = self.events.iter().rev().filter_map(|e| match e {
            ReplicationEvent::Phase { phase, .. } => Some(*phase),
            _ => None,
        });
        phases.next().unwrap_or("nowhere").to_owned()
    }

    pub fn request(&mut self, request: SegmentRequest) {
        self.call(|o, now, out| o.request(now, GATEWAY.node, request, out));
    }

    /// The own store does what it was asked first.
    pub fn store(&mut self, outcome: StoreOutcome) {
        let (number, _) = self.orders.remove(0);
        self.call(|o, now, out| o.stored(now, number, outcome, out));
    }

    pub fn store_reads(&mut self, byte: u8) {
        assert!(matches!(self.orders.first(), Some((_, StoreOrder::Read { .. }))), "{:?}", self.orders);
        self.store(StoreOutcome::Read { data: vec![block(byte)] });
    }

    /// Every record that a copy was given.
    pub fn records(&self, node: u16) -> Vec<&Record> {
        self.fakes[&node].records.values().collect()
    }

    /// The writes among them, by the number of their request.
    pub fn writes(&self, node: u16) -> Vec<u64> {
        self.records(node).iter().filter_map(|r| r.request.map(|tag| tag.seq)).collect()
    }

    pub fn done(&self, seq: u64) -> bool {
        self.replies.contains(&(seq, SegmentResult::Ok(BlockReply::Done)))
    }

    pub fn answered(&self, seq: u64) -> bool {
        self.replies.iter().any(|(s, _)| *s == seq)
    }
}
