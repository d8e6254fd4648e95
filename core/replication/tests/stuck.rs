//! An owner whose activation does not go on, and one that hands its segment over: each against copies of which some
//! are silent although their hosts answer. Messages and stores take no time; only waiting does.

#[allow(dead_code, reason = "the network of the other tests trims logs as well")]
#[path = "network/store.rs"]
mod store;

use holdfast_replication::*;
use holdfast_types::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use store::Store;

fn key() -> SegmentKey {
    SegmentKey { segment: SegmentId { volume: VolumeId(1), index: 0 }, incarnation: SegmentIncarnation(0) }
}
fn copy(node: u16) -> ReplicaRef {
    ReplicaRef { node: NodeId(node), disk: DiskId(node.into()), incarnation: DiskIncarnation(1) }
}
fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

struct Rig {
    now: Time,
    info: SegmentInfo,
    owner: Owner,
    copies: BTreeMap<NodeId, (Replica, Store)>,
    /// Nodes whose disk takes no order any more.
    hung: BTreeSet<NodeId>,
    /// A node whose disk refuses every order.
    failed: Option<NodeId>,
    /// No other node's copy hears anything.
    mute: bool,
    proposals: Vec<(u64, SegmentCommand)>,
    passed_on: Vec<NodeId>,
    replies: Vec<SegmentResult>,
    events: Vec<ReplicationEvent>,
}

impl Rig {
    /// Copies on nodes 1 to `count`, granted to node 1 for the first time.
    fn new(count: u16, hung: &[u16]) -> Rig {
        let members: Vec<ReplicaRef> = (1..=count).map(copy).collect();
        let (owner, owner_incarnation) = (NodeId(1), ProcessIncarnation(1));
        let granted = Grant { epoch: Epoch(1), owner, owner_incarnation, set: members.clone() };
        let active = ActiveConfig { set: members.clone(), ..ActiveConfig::default() };
        let info = SegmentInfo { key: key(), active, granted, members: members.clone(), min_copies: 1 };
        let new = |r: &ReplicaRef| {
            let store = Store::default();
            let replica = Replica::new(Time(1), key(), *r, store.state(), ReplicaConfig::default());
            (r.node, (replica, store))
        };
        let copies = members.iter().map(new).collect();
        let hung = hung.iter().map(|n| NodeId(*n)).collect();
        Rig::with(Time(1), info, copies, hung)
    }

    fn with(
        now: Time,
        info: SegmentInfo,
        copies: BTreeMap<NodeId, (Replica, Store)>,
        hung: BTreeSet<NodeId>,
    ) -> Rig {
        let links: BTreeSet<NodeId> = copies.keys().copied().collect();
        let mut out = Vec::new();
        let owner = Owner::new(now, info.granted.owner, &info, &links, OwnerConfig::default(), &mut out);
        let (proposals, passed_on, replies, events) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut rig = Rig {
            now,
            info,
            owner,
            copies,
            hung,
            failed: None,
            mute: false,
            proposals,
            passed_on,
            replies,
            events,
        };
        rig.carry_out(out);
        rig
    }

    /// The next owner, after control granted it what was proposed last.
    fn granted(mut self) -> Rig {
        let Some((_, SegmentCommand::Grant { expect, owner, owner_incarnation, set, .. })) =
            self.proposals.pop()
        else {
            panic!("no grant was proposed");
        };
        assert_eq!(expect, self.info.granted.epoch);
        self.info.granted = Grant { epoch: Epoch(expect.0 + 1), owner, owner_incarnation, set };
        Rig::with(self.now, self.info, self.copies, self.hung)
    }

    fn call(&mut self, call: impl FnOnce(&mut Owner, Time, &mut Vec<OwnerOutput>)) {
        let mut out = Vec::new();
        call(&mut self.owner, self.now, &mut out);
        self.owner.pump(self.now, &mut out);
        self.carry_out(out);
    }

    fn carry_out(&mut self, out: Vec<OwnerOutput>) {
        let (now, me) = (self.now, self.info.granted.owner);
        let mut work: VecDeque<OwnerOutput> = out.into();
        while let Some(order) = work.pop_front() {
            let mut more = Vec::new();
            match order {
                OwnerOutput::Send { to, message } => {
                    for answer in self.say(me, to, message) {
                        self.owner.receive(now, to, answer, &mut more);
                    }
                }
                OwnerOutput::Store { number, .. } if self.failed == Some(me) => {
                    let failed = StoreOutcome::Refused(StoreRefusal::Failed);
                    self.owner.stored(now, number, failed, &mut more);
                }
                OwnerOutput::Store { number, order } if !self.hung.contains(&me) => {
                    let (_, store) = self.copies.get_mut(&me).expect("the owner has a copy");
                    if let Some(outcome) = store.order(order, &mut Vec::new()) {
                        self.owner.stored(now, number, outcome, &mut more);
                    }
                }
                OwnerOutput::Propose { number, command } => self.proposals.push((number, command)),
                OwnerOutput::Event(event) => self.events.push(event),
                OwnerOutput::PassOn { nodes } => self.passed_on = nodes,
                OwnerOutput::Reply { reply, .. } => self.replies.push(reply.result),
                _ => {}
            }
            self.owner.pump(now, &mut more);
            work.extend(more);
        }
    }

    /// A message to a copy, and what the copy answers.
    fn say(&mut self, from: NodeId, to: NodeId, message: Envelope) -> Vec<Envelope> {
        let (now, hung, failed) = (self.now, self.hung.contains(&to), self.failed == Some(to));
        if self.mute && to != from {
            return Vec::new();
        }
        let (replica, store) = self.copies.get_mut(&to).expect("only members are spoken to");
        let (mut out, mut answers) = (Vec::new(), Vec::new());
        replica.receive(now, from, message, &mut out);
        while !out.is_empty() {
            for order in std::mem::take(&mut out) {
                match order {
                    ReplicaOutput::Send { message, .. } => answers.push(message),
                    ReplicaOutput::Store { number, .. } if failed => {
                        replica.stored(now, number, StoreOutcome::Refused(StoreRefusal::Failed), &mut out);
                    }
                    ReplicaOutput::Store { number, order } if !hung => {
                        if let Some(outcome) = store.order(order, &mut Vec::new()) {
                            replica.stored(now, number, outcome, &mut out);
                        }
                    }
                    ReplicaOutput::Store { .. } | ReplicaOutput::Event(_) => {}
                }
            }
        }
        answers
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.owner.next_timer().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.call(|owner, now, out| owner.timer(now, out));
        }
        self.now = end;
    }

    /// Control records what was proposed last.
    fn activate(&mut self) {
        let (number, command) = self.proposals.pop().expect("an activation was proposed");
        let SegmentCommand::Activated { epoch, tail, .. } = command else { panic!("{command:?}") };
        self.info.active = ActiveConfig { epoch, set: self.info.granted.set.clone(), tail };
        self.call(|owner, now, out| owner.control(now, number, SegmentCommandResult::Done, out));
    }

    fn read(&mut self, seq: u64) {
        self.request(seq, SegmentOp::Read { offset: 0, len: BLOCK_BYTES as u32 });
    }

    fn write(&mut self, seq: u64) {
        self.request(seq, SegmentOp::Write { offset: 0, data: vec![vec![7; BLOCK_BYTES].into()] });
    }

    fn request(&mut self, seq: u64, op: SegmentOp) {
        let gateway = GatewayId { node: NodeId(9), incarnation: ProcessIncarnation(1) };
        let id = RequestId { gateway, seq };
        let request = SegmentRequest { id, session: SessionId(1), low: 0, segment: key(), op };
        self.call(|owner, now, out| owner.request(now, NodeId(9), request, out));
    }

    fn sets(&self) -> Vec<(NodeId, Vec<u16>)> {
        let of = |c: &SegmentCommand| match c {
            SegmentCommand::Grant { owner, set, .. } => {
                Some((*owner, set.iter().map(|r| r.node.0).collect()))
            }
            SegmentCommand::Activated { .. } => None,
        };
        self.proposals.iter().filter_map(|(_, c)| of(c)).collect()
    }
}

#[test]
fn of_two_copies_one_with_a_hung_disk_is_left_out_of_the_activation_in_under_a_second() {
    let mut rig = Rig::new(2, &[2]);
    rig.pass(ms(700));
    assert!(rig.proposals.is_empty(), "a slow disk gets its time");
    rig.pass(ms(200));
    assert_eq!(rig.sets(), [(NodeId(1), vec![1])]);
    let mut rig = rig.granted();
    rig.activate();
    rig.read(1);
    assert!(matches!(rig.replies[..], [SegmentResult::Ok(_)]), "{:?}", rig.replies);
}

#[test]
fn an_owner_whose_own_disk_hangs_passes_the_segment_on_to_a_node_that_answers() {
    let mut rig = Rig::new(3, &[1]);
    rig.pass(ms(900));
    assert_eq!(rig.passed_on, [NodeId(2), NodeId(3)]);
    rig.call(|owner, now, out| owner.propose_takeover(now, NodeId(2), ProcessIncarnation(1), out));
    assert_eq!(rig.sets(), [(NodeId(2), vec![1, 2, 3])]);
    let mut rig = rig.granted();
    rig.activate();
    rig.read(1);
    assert!(matches!(rig.replies[..], [SegmentResult::Ok(_)]), "{:?}", rig.replies);
}

#[test]
fn an_owner_whose_own_copy_lost_a_part_passes_on_and_the_next_one_has_it_mended() {
    let mut rig = Rig::new(3, &[]);
    rig.activate();
    // Node 1 starts again, and its store says that it may lack anything.
    let (_, mut store) = rig.copies.remove(&NodeId(1)).expect("it is there");
    store.order(StoreOrder::Reset { base: store.state().last, sealed: Epoch(1) }, &mut Vec::new());
    let replica = Replica::new(rig.now, key(), copy(1), store.state(), ReplicaConfig::default());
    rig.copies.insert(NodeId(1), (replica, store));
    let (owner, owner_incarnation) = (NodeId(1), ProcessIncarnation(2));
    rig.info.granted = Grant { epoch: Epoch(2), owner, owner_incarnation, set: rig.info.granted.set.clone() };
    let mut rig = Rig::with(rig.now, rig.info, rig.copies, rig.hung);
    rig.pass(ms(2000));
    assert!(rig.proposals.is_empty(), "it must not serve: {:?}", rig.proposals);
    assert!(rig.events.contains(&ReplicationEvent::OwnCopyIncomplete));
    assert_eq!(rig.passed_on, [NodeId(2), NodeId(3)]);
    rig.call(|owner, now, out| owner.propose_takeover(now, NodeId(2), ProcessIncarnation(1), out));
    let mut rig = rig.granted();
    rig.pass(ms(1500));
    rig.activate();
    rig.read(1);
    assert!(matches!(rig.replies[..], [SegmentResult::Ok(_)]), "{:?}", rig.replies);
    rig.pass(ms(100));
    assert_eq!(rig.sets(), [(NodeId(2), vec![2, 3])]);
}

#[test]
fn an_owner_whose_disk_failed_answers_no_read_with_an_error_and_passes_on() {
    let mut rig = Rig::new(3, &[]);
    rig.activate();
    rig.read(1);
    rig.failed = Some(NodeId(1));
    rig.read(2);
    assert_eq!(rig.replies.len(), 1, "{:?}", rig.replies);
    rig.pass(ms(1000));
    assert_eq!((rig.replies.len(), &rig.passed_on[..]), (1, &[NodeId(2), NodeId(3)][..]));
    rig.call(|owner, now, out| owner.propose_takeover(now, NodeId(2), ProcessIncarnation(1), out));
    let failed = rig.failed;
    let mut rig = rig.granted();
    rig.failed = failed;
    rig.pass(ms(1500));
    rig.activate();
    rig.read(2);
    assert!(matches!(rig.replies[..], [SegmentResult::Ok(_)]), "{:?}", rig.replies);
}

#[test]
fn an_owner_whose_disk_falls_silent_passes_on_without_leases_to_wait_for() {
    let mut rig = Rig::new(3, &[]);
    rig.activate();
    rig.read(1);
    rig.hung.insert(NodeId(1));
    rig.read(2);
    rig.pass(ms(1500));
    assert!(rig.passed_on.is_empty() && rig.replies.len() == 1, "nobody knows yet");
    rig.call(|owner, _, _| owner.disk_silent(true));
    rig.pass(ms(0));
    assert_eq!(rig.passed_on, [NodeId(2), NodeId(3)]);
    rig.call(|owner, now, out| owner.propose_takeover(now, NodeId(2), ProcessIncarnation(1), out));
    let mut rig = rig.granted();
    rig.activate();
    rig.read(2);
    assert!(matches!(rig.replies[..], [SegmentResult::Ok(_)]), "{:?}", rig.replies);
}

#[test]
fn an_owner_whose_disk_answers_again_in_time_keeps_the_segment() {
    let mut rig = Rig::new(3, &[]);
    rig.activate();
    rig.call(|owner, _, _| owner.disk_silent(true));
    rig.call(|owner, _, _| owner.disk_silent(false));
    rig.pass(ms(5000));
    assert!(rig.passed_on.is_empty());
}

#[test]
fn of_two_copies_the_owners_on_a_silent_disk_is_gone_around() {
    let mut rig = Rig::new(2, &[]);
    rig.activate();
    rig.write(1);
    rig.hung.insert(NodeId(1));
    rig.write(2);
    assert_eq!(rig.replies.len(), 1, "both copies have it before it is acknowledged");
    rig.pass(ms(800));
    rig.call(|owner, _, _| owner.disk_silent(true));
    rig.pass(ms(0));
    assert_eq!(rig.passed_on, [NodeId(2)]);
    rig.call(|owner, now, out| owner.propose_takeover(now, NodeId(2), ProcessIncarnation(1), out));
    let mut rig = rig.granted();
    rig.pass(ms(900));
    assert_eq!(rig.sets(), [(NodeId(2), vec![2])]);
    let mut rig = rig.granted();
    rig.activate();
    rig.write(2);
    assert!(matches!(rig.replies[..], [SegmentResult::Ok(_)]), "{:?}", rig.replies);
}

#[test]
fn an_owner_on_a_silent_disk_stays_where_the_others_could_not_seal_without_it() {
    let mut rig = Rig::new(3, &[]);
    rig.activate();
    rig.write(1);
    rig.hung.extend([NodeId(1), NodeId(3)]);
    rig.call(|owner, now, out| owner.link(now, NodeId(3), false, out));
    rig.write(2);
    rig.call(|owner, _, _| owner.disk_silent(true));
    rig.pass(Duration::from_secs(9));
    assert_eq!((rig.passed_on.len(), rig.replies.len()), (0, 1));
}

#[test]
fn of_three_copies_no_two_are_left_out() {
    let mut rig = Rig::new(3, &[2, 3]);
    rig.pass(Duration::from_secs(10));
    assert!(rig.proposals.is_empty() && rig.passed_on.is_empty(), "{:?}", rig.proposals);
}

/// The owner died before it could drop a copy that its disk had held up. The one that is left has everything, and nobody can
/// bring the other up to date before a set is active.
#[test]
fn of_three_copies_one_that_no_record_brings_up_to_date_is_not_waited_for() {
    let mut rig = Rig::new(3, &[]);
    rig.activate();
    rig.hung = BTreeSet::from([NodeId(3)]);
    (1..=3).for_each(|seq| rig.write(seq));
    rig.pass(ms(500));
    assert_eq!(rig.replies.len(), 3, "two of three have it");
    // Node 1 owned, and is gone. Node 2's log begins behind what node 3 has.
    let mut copies = BTreeMap::new();
    for (node, (_, mut store)) in rig.copies {
        if node == NodeId(2) {
            store.trim();
        }
        let replica = Replica::new(rig.now, key(), copy(node.0), store.state(), ReplicaConfig::default());
        copies.insert(node, (replica, store));
    }
    let (owner, owner_incarnation) = (NodeId(2), ProcessIncarnation(1));
    rig.info.granted = Grant { epoch: Epoch(2), owner, owner_incarnation, set: rig.info.granted.set.clone() };
    let mut rig = Rig::with(rig.now, rig.info, copies, BTreeSet::from([NodeId(1)]));
    rig.pass(ms(900));
    assert_eq!(rig.sets(), [(NodeId(2), vec![2])]);
    let leaves = |e: &ReplicationEvent| match e {
        ReplicationEvent::Dropping { replica, why, .. } => Some((replica.node.0, *why)),
        _ => None,
    };
    let left: Vec<_> = rig.events.iter().filter_map(leaves).collect();
    assert_eq!(left, [(1, DropReason::Stuck), (3, DropReason::TooFarBehind)]);
    let mut rig = rig.granted();
    rig.pass(ms(1500));
    rig.activate();
    rig.read(9);
    assert!(matches!(rig.replies[..], [SegmentResult::Ok(_)]), "{:?}", rig.replies);
}

#[test]
fn one_silent_copy_of_three_keeps_nobody_waiting() {
    let mut rig = Rig::new(3, &[3]);
    assert_eq!(rig.now, Time(1));
    rig.activate();
    rig.read(1);
    assert!(matches!(rig.replies[..], [SegmentResult::Ok(_)]), "{:?}", rig.replies);
}

#[test]
fn after_a_hand_over_the_next_owner_does_not_wait_for_leases() {
    let mut rig = Rig::new(3, &[]);
    rig.activate();
    rig.read(1);
    assert!(matches!(rig.replies[..], [SegmentResult::Ok(_)]), "{:?}", rig.replies);
    rig.call(|o, now, out| {
        o.propose_owner(now, NodeId(2), ProcessIncarnation(1), GrantReason::Handover, out)
    });
    // What is read from here on waits: there is no lease to read under.
    rig.read(2);
    assert_eq!(rig.replies.len(), 1);
    let mut rig = rig.granted();
    rig.activate();
    rig.read(2);
    assert!(matches!(rig.replies[..], [SegmentResult::Ok(_)]), "{:?}", rig.replies);
}

#[test]
fn a_takeover_without_a_hand_over_waits_for_the_leases() {
    let mut rig = Rig::new(3, &[]);
    rig.activate();
    rig.read(1);
    let (owner, owner_incarnation) = (NodeId(2), ProcessIncarnation(1));
    rig.info.granted = Grant { epoch: Epoch(2), owner, owner_incarnation, set: rig.info.granted.set.clone() };
    let mut rig = Rig::with(rig.now, rig.info, rig.copies, rig.hung);
    rig.pass(ms(900));
    assert!(rig.proposals.is_empty(), "the old owner may still read");
    rig.pass(ms(200));
    rig.activate();
}

#[test]
fn a_hand_over_that_control_does_not_answer_lets_reads_go_on() {
    let mut rig = Rig::new(3, &[]);
    rig.activate();
    rig.call(|o, now, out| {
        o.propose_owner(now, NodeId(2), ProcessIncarnation(1), GrantReason::FollowIo, out)
    });
    rig.read(1);
    assert!(rig.replies.is_empty());
    rig.pass(ms(250));
    assert!(matches!(rig.replies[..], [SegmentResult::Ok(_)]), "{:?}", rig.replies);
}

#[test]
fn a_hand_over_that_control_refuses_lets_reads_go_on_at_once() {
    let mut rig = Rig::new(3, &[]);
    rig.activate();
    rig.call(|o, now, out| {
        o.propose_owner(now, NodeId(2), ProcessIncarnation(1), GrantReason::Handover, out)
    });
    rig.read(1);
    let (number, _) = rig.proposals.pop().expect("a grant was proposed");
    rig.call(|owner, now, out| owner.control(now, number, SegmentCommandResult::Refused, out));
    assert!(matches!(rig.replies[..], [SegmentResult::Ok(_)]), "{:?}", rig.replies);
}

#[test]
fn a_copy_that_has_just_started_gives_no_lease_and_reads_go_on_all_the_same() {
    let mut rig = Rig::new(2, &[]);
    rig.activate();
    // The process on node 2 starts anew: it does not know what leases it gave, and gives none for a second.
    let (_, store) = rig.copies.remove(&NodeId(2)).expect("it is there");
    let replica = Replica::new(rig.now, key(), copy(2), store.state(), ReplicaConfig::default());
    rig.copies.insert(NodeId(2), (replica, store));
    rig.read(1);
    assert!(matches!(rig.replies[..], [SegmentResult::Ok(_)]), "{:?}", rig.replies);
    // Another read needs another answer: the first one says nothing of what came later.
    rig.mute = true;
    rig.pass(ms(100));
    rig.read(2);
    rig.pass(ms(100));
    assert_eq!(rig.replies.len(), 1, "an answer from before a read proves nothing for it");
    rig.mute = false;
    rig.pass(ms(100));
    assert_eq!(rig.replies.len(), 2);
}

#[test]
fn that_a_copy_leaves_is_said_once_however_often_control_has_to_be_asked() {
    let mut rig = Rig::new(3, &[]);
    rig.activate();
    let said = |rig: &Rig| {
        let leaves = |e: &&ReplicationEvent| matches!(e, ReplicationEvent::Dropping { .. });
        rig.events.iter().filter(leaves).count()
    };
    for times in 1..=2 {
        rig.call(|owner, now, out| owner.link(now, NodeId(3), false, out));
        let mut asked = 0;
        while asked < 20 {
            rig.pass(ms(100));
            for (number, _) in std::mem::take(&mut rig.proposals) {
                asked += 1;
                rig.call(|o, now, out| o.control(now, number, SegmentCommandResult::Unknown, out));
            }
        }
        assert_eq!(said(&rig), times);
        // It is back before control could record anything; the next time is another one.
        rig.call(|owner, now, out| owner.link(now, NodeId(3), true, out));
        rig.pass(ms(500));
        assert_eq!(said(&rig), times);
    }
}
