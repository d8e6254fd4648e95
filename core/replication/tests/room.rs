//! New data and the room for it: an owner against three copies that say what the test tells them to.

use bytes::Bytes;
use holdfast_replication::{
    Body, Envelope, Owner, OwnerConfig, OwnerOutput, SealState, SegmentOp, SegmentRequest, SegmentResult,
};
use holdfast_types::*;
use std::collections::{BTreeMap, BTreeSet};

const EXTENT: u64 = EXTENT_BYTES as u64;

/// What a copy says when it is asked for room.
#[derive(Clone, Copy, PartialEq)]
enum Says {
    Kept,
    Full,
    Later,
    Nothing,
}

struct Scene {
    owner: Owner,
    now: Time,
    says: BTreeMap<u16, Says>,
    /// The index of each copy's log.
    last: BTreeMap<u16, LogPosition>,
    records: Vec<Record>,
    replies: BTreeMap<u64, SegmentResult>,
    asked: Vec<u32>,
    /// Extents that every copy has left.
    spare: u64,
    seq: u64,
}

fn copy(node: u16) -> ReplicaRef {
    ReplicaRef { node: NodeId(node), disk: DiskId(node.into()), ..ReplicaRef::default() }
}

fn gateway() -> GatewayId {
    GatewayId { node: NodeId(1), incarnation: ProcessIncarnation(1) }
}

impl Scene {
    /// An owner on node 1 that serves.
    fn new() -> Self {
        let set: Vec<ReplicaRef> = (1..=3).map(copy).collect();
        let info = SegmentInfo {
            active: ActiveConfig { set: set.clone(), ..ActiveConfig::default() },
            granted: Grant {
                epoch: Epoch(1),
                owner: NodeId(1),
                owner_incarnation: ProcessIncarnation(1),
                set: set.clone(),
            },
            members: set,
            min_copies: 2,
            ..SegmentInfo::default()
        };
        let links: BTreeSet<NodeId> = (1..=3).map(NodeId).collect();
        let mut out = Vec::new();
        let owner = Owner::new(Time(0), NodeId(1), &info, &links, OwnerConfig::default(), &mut out);
        let mut scene = Self {
            owner,
            now: Time(0),
            says: (1..=3).map(|n| (n, Says::Kept)).collect(),
            last: (1..=3).map(|n| (n, LogPosition::ZERO)).collect(),
            records: Vec::new(),
            replies: BTreeMap::new(),
            asked: Vec::new(),
            spare: 2,
            seq: 0,
        };
        scene.carry(out);
        assert_eq!(scene.owner.status().phase, "active");
        scene
    }

    fn carry(&mut self, mut out: Vec<OwnerOutput>) {
        while !out.is_empty() {
            let mut next = Vec::new();
            for output in out {
                match output {
                    OwnerOutput::Send { to, message } => self.answer(to, message, &mut next),
                    OwnerOutput::Reply { reply, .. } => {
                        self.replies.insert(reply.id.seq, reply.result);
                    }
                    OwnerOutput::Propose { number, .. } => {
                        self.owner.control(self.now, number, SegmentCommandResult::Done, &mut next);
                    }
                    OwnerOutput::Store { number, order } => {
                        let StoreOrder::Read { range } = order else { panic!("{order:?}") };
                        let data = vec![Bytes::from(vec![0; range.bytes()])];
                        self.owner.stored(self.now, number, StoreOutcome::Read { data }, &mut next);
                    }
                    _ => {}
                }
            }
            if next.is_empty() {
                self.owner.pump(self.now, &mut next);
            }
            out = next;
        }
    }

    fn answer(&mut self, to: NodeId, message: Envelope, out: &mut Vec<OwnerOutput>) {
        let reply = match message.body {
            Body::Seal { repeats } => Body::SealReply(SealState {
                index: Default::default(),
                applied: Lsn(0),
                lease_left: Duration::ZERO,
                incomplete_since: None,
                repeats: repeats.then(Default::default),
            }),
            Body::Append { records, commit, .. } => {
                if let Some(last) = records.last() {
                    self.last.insert(to.0, last.position);
                }
                if to == NodeId(1) {
                    self.records.extend(records);
                }
                Body::Appended { matched: self.last[&to.0].lsn, committed: commit }
            }
            Body::Lease { number } => Body::LeaseReply { number, granted: true },
            Body::Room { number, extent, .. } => {
                if to == NodeId(1) {
                    self.asked.push(extent.0);
                }
                let (refusal, spare) = match self.says[&to.0] {
                    Says::Kept => (None, self.spare),
                    Says::Full => (Some(StoreRefusal::Full), 0),
                    Says::Later => (Some(StoreRefusal::Later), 0),
                    Says::Nothing => return,
                };
                Body::RoomReply { number, refusal, spare }
            }
            body => panic!("{body:?}"),
        };
        self.owner.receive(self.now, to, Envelope { body: reply, ..message }, out);
    }

    fn request(&mut self, seq: u64, low: u64, op: SegmentOp) {
        let id = RequestId { gateway: gateway(), seq };
        let request = SegmentRequest { id, session: SessionId(1), low, segment: SegmentKey::default(), op };
        let mut out = Vec::new();
        self.owner.request(self.now, NodeId(1), request, &mut out);
        self.owner.pump(self.now, &mut out);
        self.carry(out);
    }

    /// A request under the next number.
    fn ask(&mut self, op: SegmentOp) -> u64 {
        self.seq += 1;
        self.request(self.seq, 1, op);
        self.seq
    }
    fn write(&mut self, extent: u64) -> u64 {
        self.ask(write(extent))
    }
    fn reply(&self, seq: u64) -> &'static str {
        match self.replies.get(&seq) {
            None => "waits",
            Some(SegmentResult::Ok(_)) => "done",
            Some(SegmentResult::Failed(BlockError::NoSpace)) => "no space",
            Some(other) => panic!("{other:?}"),
        }
    }
    /// Lets time go by, timer by timer.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.owner.next_timer().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let mut out = Vec::new();
            self.owner.timer(self.now, &mut out);
            self.carry(out);
            self.now += Duration::from_micros(1);
        }
        self.now = self.now.max(end);
    }
    /// How often a request is in the log.
    fn logged(&self, seq: u64) -> usize {
        self.records.iter().filter(|r| r.request.is_some_and(|t| t.seq == seq)).count()
    }
}

fn write(extent: u64) -> SegmentOp {
    SegmentOp::Write { offset: extent * EXTENT, data: vec![Bytes::from(vec![7; BLOCK_BYTES])] }
}

#[test]
fn room_is_asked_for_once_for_an_extent_and_again_after_a_discard_in_it() {
    let mut scene = Scene::new();
    for _ in 0..3 {
        let seq = scene.write(5);
        assert_eq!(scene.reply(seq), "done");
    }
    assert_eq!(scene.asked, [5]);
    scene.ask(SegmentOp::Zero { offset: 5 * EXTENT, len: EXTENT });
    scene.write(5);
    assert_eq!(scene.asked, [5, 5]);
    // Over two extents, both are needed.
    let across = SegmentOp::Write {
        offset: 8 * EXTENT - BLOCK_BYTES as u64,
        data: vec![Bytes::from(vec![7; 2 * BLOCK_BYTES])],
    };
    let seq = scene.ask(across);
    assert_eq!((scene.reply(seq), &scene.asked[2..]), ("done", &[7, 8][..]));
}

#[test]
fn the_next_extent_is_asked_for_ahead_while_there_is_plenty() {
    let mut scene = Scene::new();
    scene.spare = 1000;
    scene.write(5);
    scene.write(5);
    assert_eq!(scene.asked, [5, 6]);
    scene.spare = 10;
    scene.write(6);
    assert_eq!(scene.asked, [5, 6, 7], "the last answer said that there was plenty");
    scene.write(7);
    assert_eq!(scene.asked, [5, 6, 7]);
    // What was not used for long is asked for anew: the copies may have given it back.
    scene.wait(Duration::from_secs(6));
    scene.spare = 1000;
    scene.write(9);
    scene.wait(Duration::from_secs(6));
    scene.write(10);
    assert_eq!(scene.asked, [5, 6, 7, 9, 10, 10, 11]);
}

#[test]
fn one_full_copy_refuses_new_data_at_once_and_nothing_else() {
    let mut scene = Scene::new();
    scene.write(0);
    scene.says.insert(3, Says::Full);
    let seq = scene.write(1);
    assert_eq!((scene.reply(seq), scene.logged(seq)), ("no space", 0));
    assert!(scene.owner.status().copies[2].full);
    // What is there is changed, read and discarded.
    let overwrite = scene.write(0);
    let read = scene.ask(SegmentOp::Read { offset: EXTENT, len: 512 });
    let discard = scene.ask(SegmentOp::Zero { offset: 512, len: 2 * EXTENT });
    for seq in [overwrite, read, discard] {
        assert_eq!(scene.reply(seq), "done");
    }
    scene.says.insert(3, Says::Kept);
    let seq = scene.write(1);
    assert_eq!(scene.reply(seq), "done");
    assert!(!scene.owner.status().copies[2].full);
}

#[test]
fn what_comes_behind_a_write_that_waits_for_room_passes_it() {
    let mut scene = Scene::new();
    scene.write(0);
    scene.says.insert(2, Says::Later);
    let waits = scene.write(1);
    for op in [
        write(0),
        SegmentOp::Read { offset: EXTENT, len: 512 },
        SegmentOp::Zero { offset: 7 * EXTENT, len: EXTENT },
    ] {
        let seq = scene.ask(op);
        assert_eq!(scene.reply(seq), "done");
    }
    assert_eq!(scene.reply(waits), "waits");
    // The discard was committed, and the copy has room.
    scene.says.insert(2, Says::Kept);
    scene.wait(Duration::from_millis(200));
    assert_eq!(scene.reply(waits), "done");
}

#[test]
fn room_that_does_not_come_is_waited_for_for_two_seconds() {
    let mut scene = Scene::new();
    scene.says.insert(2, Says::Later);
    let seq = scene.write(1);
    scene.wait(Duration::from_millis(1900));
    assert_eq!(scene.reply(seq), "waits");
    scene.wait(Duration::from_millis(500));
    assert_eq!((scene.reply(seq), scene.logged(seq)), ("no space", 0));
}

#[test]
fn a_copy_that_does_not_answer_is_waited_for_briefly_and_once() {
    let mut scene = Scene::new();
    scene.says.insert(3, Says::Nothing);
    let first = scene.write(1);
    assert_eq!(scene.reply(first), "waits");
    scene.wait(Duration::from_millis(60));
    assert_eq!(scene.reply(first), "done");
    let second = scene.write(2);
    assert_eq!(scene.reply(second), "done");
    // Without a quorum it is waited for as long as it takes.
    scene.says.insert(2, Says::Nothing);
    let third = scene.write(3);
    scene.wait(Duration::from_secs(60));
    assert_eq!(scene.reply(third), "waits");
    scene.says.insert(2, Says::Kept);
    scene.wait(Duration::from_secs(1));
    assert_eq!(scene.reply(third), "done");
}

#[test]
fn a_request_that_failed_is_not_carried_out_by_a_late_repeat_and_its_retry_is_new() {
    let mut scene = Scene::new();
    scene.says.insert(3, Says::Full);
    let failed = scene.write(1);
    assert_eq!(scene.reply(failed), "no space");
    scene.says.insert(3, Says::Kept);
    // The gateway had sent it twice; the second one comes now.
    scene.replies.clear();
    scene.request(failed, 1, write(1));
    assert_eq!((scene.reply(failed), scene.logged(failed)), ("no space", 0));
    let retry = scene.write(1);
    assert_eq!((scene.reply(retry), scene.logged(retry)), ("done", 1));
    // A repeat of that one is answered from the log, and not applied again.
    scene.replies.clear();
    scene.request(retry, 1, write(1));
    assert_eq!((scene.reply(retry), scene.logged(retry)), ("done", 1));
}

#[test]
fn another_grant_sends_back_what_waits_for_room() {
    let mut scene = Scene::new();
    scene.says.insert(2, Says::Later);
    let seq = scene.write(1);
    let mut info = SegmentInfo::default();
    info.granted.epoch = Epoch(2);
    let mut out = Vec::new();
    scene.owner.info_changed(scene.now, &info, &mut out);
    scene.carry(out);
    assert_eq!(scene.replies.get(&seq), Some(&SegmentResult::NotOwner));
}
