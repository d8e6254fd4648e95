//! The copy against a scripted owner.

use crate::script::{at, copy, empty_record, key, milliseconds};
use bytes::Bytes;
use holdfast_checksum::crc32c;
use holdfast_replication::{Body, Envelope, Replica, ReplicaConfig, ReplicaOutput, ReplicationEvent};
use holdfast_types::*;

const OLD: NodeId = NodeId(1);
const NEW: NodeId = NodeId(3);

struct Copy {
    replica: Replica,
    now: Time,
}

impl Copy {
    fn with(state: ReplicaState) -> Self {
        let now = Time(1_000_000_000);
        Self { replica: Replica::new(now, key(), copy(2), state, ReplicaConfig::default()), now }
    }
    /// One that is past the lease that a fresh process reports.
    fn settled() -> Self {
        let mut copy = Self::with(ReplicaState::default());
        copy.now += milliseconds(2000);
        copy
    }
    fn send(&mut self, from: NodeId, message: Envelope) -> Vec<ReplicaOutput> {
        let mut out = Vec::new();
        self.replica.receive(self.now, from, message, &mut out);
        out
    }
    fn say(&mut self, from: NodeId, epoch: u64, body: Body) -> Vec<ReplicaOutput> {
        self.send(from, Envelope { segment: key(), epoch: Epoch(epoch), replica: copy(2), body })
    }
    fn stored(&mut self, number: u64, outcome: StoreOutcome) -> Vec<ReplicaOutput> {
        let mut out = Vec::new();
        self.replica.stored(self.now, number, outcome, &mut out);
        out
    }
    fn append(
        &mut self,
        from: NodeId,
        epoch: u64,
        prev: LogPosition,
        records: &[LogPosition],
        commit: u64,
    ) -> Vec<ReplicaOutput> {
        let records = records.iter().map(|p| empty_record(*p)).collect();
        self.say(from, epoch, Body::Append { prev, records, commit: Lsn(commit) })
    }
}

fn bodies(out: &[ReplicaOutput]) -> Vec<&Body> {
    let mut bodies = Vec::new();
    for output in out {
        if let ReplicaOutput::Send { message, .. } = output {
            bodies.push(&message.body);
        }
    }
    bodies
}

fn orders(out: &[ReplicaOutput]) -> Vec<&StoreOrder> {
    let mut orders = Vec::new();
    for output in out {
        if let ReplicaOutput::Store { order, .. } = output {
            orders.push(order);
        }
    }
    orders
}

/// H4, H5. An append of an epoch below the promised one is refused: its owner can commit nothing any more.
#[test]
fn a_sealed_copy_refuses_an_older_epoch() {
    let mut copy = Copy::settled();
    copy.say(NEW, 9, Body::Seal { repeats: false });
    copy.stored(1, StoreOutcome::Sealed);
    let out = copy.append(OLD, 8, LogPosition::ZERO, &[at(8, 1)], 1);
    assert_eq!(bodies(&out), [&Body::Rejected { sealed: Epoch(9) }]);
    assert!(orders(&out).is_empty());
}

/// H5. The promise is answered only when it is durable: one that was forgotten would be given twice.
#[test]
fn a_promise_is_answered_only_when_it_is_durable() {
    let mut copy = Copy::settled();
    let out = copy.say(NEW, 9, Body::Seal { repeats: false });
    assert_eq!(orders(&out), [&StoreOrder::Seal { epoch: Epoch(9) }]);
    assert!(bodies(&out).is_empty());
    let out = copy.stored(1, StoreOutcome::Sealed);
    assert!(matches!(bodies(&out)[..], [Body::SealReply(_)]), "{out:?}");
}

/// H8. "Everything up to 3 is committed" says nothing of records that were not compared in that epoch.
#[test]
fn a_commit_of_a_new_epoch_does_not_reach_a_tail_that_was_not_compared_in_it() {
    let mut copy = Copy::settled();
    copy.append(OLD, 8, LogPosition::ZERO, &[at(8, 1), at(8, 2), at(8, 3)], 1);
    copy.stored(1, StoreOutcome::Appended { last: at(8, 3) });
    // The new owner has another record 2; it compares up to 1 first, and tells of its commit.
    let out = copy.append(NEW, 9, at(8, 1), &[], 3);
    let number = out.iter().find_map(|o| match o {
        ReplicaOutput::Store { number, order: StoreOrder::Seal { .. } } => Some(*number),
        _ => None,
    });
    let out = copy.stored(number.expect("the new epoch is promised"), StoreOutcome::Sealed);
    let commits = orders(&out).iter().any(|o| matches!(o, StoreOrder::Commit { lsn } if *lsn > Lsn(1)));
    assert!(!commits, "records 2 and 3 of the old owner are not what is committed: {out:?}");
    assert_eq!(copy.replica.status().committed, Lsn(1));
}

/// H8. No gaps, and no append by number alone.
#[test]
fn an_append_that_follows_another_record_is_not_taken() {
    let mut copy = Copy::settled();
    copy.append(OLD, 8, LogPosition::ZERO, &[at(8, 1), at(8, 2)], 0);
    copy.stored(1, StoreOutcome::Appended { last: at(8, 2) });
    for prev in [at(8, 3), at(7, 2)] {
        let out = copy.append(OLD, 8, prev, &[at(8, prev.lsn.0 + 1)], 0);
        assert!(matches!(bodies(&out)[..], [Body::Need { .. }]), "after {prev}: {out:?}");
        assert!(orders(&out).is_empty());
    }
}

/// H9. A copy that restarted has forgotten whom it granted a lease: it reports a full one.
#[test]
fn a_fresh_process_reports_a_full_lease() {
    let mut copy = Copy::with(ReplicaState { sealed: Epoch(8), ..ReplicaState::default() });
    copy.now += milliseconds(100);
    copy.say(NEW, 9, Body::Seal { repeats: false });
    let out = copy.stored(1, StoreOutcome::Sealed);
    let [Body::SealReply(state)] = bodies(&out)[..] else { panic!("{out:?}") };
    assert!(state.lease_left >= milliseconds(900), "{:?}", state.lease_left);
}

/// H9. A seal fences writes at once and says what is left of the lease; the lease itself is not taken back.
#[test]
fn a_seal_reports_the_lease_that_another_owner_still_has() {
    let mut copy = Copy::settled();
    copy.say(OLD, 8, Body::Seal { repeats: false });
    copy.stored(1, StoreOutcome::Sealed);
    let out = copy.say(OLD, 8, Body::Lease { number: 1 });
    assert_eq!(bodies(&out), [&Body::LeaseReply { number: 1, granted: true }]);
    copy.now += milliseconds(400);
    copy.say(NEW, 9, Body::Seal { repeats: false });
    let out = copy.stored(2, StoreOutcome::Sealed);
    let [Body::SealReply(state)] = bodies(&out)[..] else { panic!("{out:?}") };
    assert_eq!(state.lease_left, milliseconds(600));
    let out = copy.say(NEW, 9, Body::Lease { number: 1 });
    assert_eq!(bodies(&out), [&Body::LeaseReply { number: 1, granted: false }], "not two at a time");
}

/// H16. The log of a learner starts anew, and it is complete only up to what its store says was in place.
#[test]
fn a_learner_is_complete_up_to_what_its_store_says_and_not_up_to_its_logs_end() {
    let mut copy = Copy::settled();
    copy.append(OLD, 8, LogPosition::ZERO, &[at(8, 1), at(8, 2), at(8, 3)], 3);
    copy.stored(1, StoreOutcome::Appended { last: at(8, 3) });
    let out = copy.say(OLD, 8, Body::Learn { base: at(8, 9) });
    let number = out.iter().find_map(|o| match o {
        ReplicaOutput::Store { number, order: StoreOrder::Reset { .. } } => Some(*number),
        _ => None,
    });
    let out = copy.stored(number.expect("the log starts anew"), StoreOutcome::Reset { since: Lsn(1) });
    assert_eq!(bodies(&out), [&Body::LearnReply { base: at(8, 9), since: Lsn(1) }]);
}

/// H6, H8. What was applied is never cut: a copy that is told to stops, and says so.
#[test]
fn a_copy_that_is_told_to_cut_what_it_applied_halts() {
    let mut copy = Copy::settled();
    copy.append(OLD, 8, LogPosition::ZERO, &[at(8, 1), at(8, 2)], 2);
    copy.stored(1, StoreOutcome::Appended { last: at(8, 2) });
    assert_eq!(copy.replica.status().committed, Lsn(2));
    let out = copy.append(NEW, 9, at(8, 1), &[at(9, 2)], 0);
    let diverged = |o: &ReplicaOutput| matches!(o, ReplicaOutput::Event(ReplicationEvent::Diverged { .. }));
    assert!(out.iter().any(diverged), "{out:?}");
    assert!(copy.replica.status().halted && orders(&out).is_empty());
}

/// H19. Another incarnation of the segment, or of the disk, is none of this copy's business.
#[test]
fn a_message_for_another_incarnation_is_not_taken() {
    let mut here = Copy::settled();
    let other = SegmentKey { incarnation: SegmentIncarnation(1), ..key() };
    let body = Body::Seal { repeats: false };
    let message = Envelope { segment: other, epoch: Epoch(9), replica: copy(2), body: body.clone() };
    assert_eq!(here.send(NEW, message), []);
    let disk = ReplicaRef { incarnation: DiskIncarnation(2), ..copy(2) };
    let message = Envelope { segment: key(), epoch: Epoch(9), replica: disk, body };
    assert_eq!(here.send(NEW, message), []);
    assert_eq!(here.replica.status().sealed, Epoch(0));
}

/// H21. A disk that failed a flush is failed: nothing is acknowledged after it, be later orders carried out.
#[test]
fn after_a_failed_flush_a_copy_acknowledges_nothing_any_more() {
    let mut copy = Copy::settled();
    copy.append(OLD, 8, LogPosition::ZERO, &[at(8, 1)], 0);
    copy.append(OLD, 8, at(8, 1), &[at(8, 2)], 0);
    let out = copy.stored(1, StoreOutcome::Refused(StoreRefusal::Failed));
    assert!(matches!(bodies(&out)[..], [Body::Refused { reason: StoreRefusal::Failed }]), "{out:?}");
    let out = copy.stored(2, StoreOutcome::Appended { last: at(8, 2) });
    assert!(bodies(&out).is_empty(), "{out:?}");
    assert_eq!(copy.append(OLD, 8, LogPosition::ZERO, &[at(8, 1)], 0), []);
}

/// What a good copy gives for a block that another one lost: content and version belong together. A write that came in between
/// has it look again; "I do not have it" is said of damage only, as the block counts as lost when every copy says so.
#[test]
fn a_block_that_is_written_while_it_is_given_is_looked_at_again() {
    let (block, extent) = (BlockIndex(3), ExtentIndex(0));
    let content = |byte| Bytes::from(vec![byte; BLOCK_BYTES]);
    let listed = |lsn, byte| StoreOutcome::Digest {
        at: Lsn(5),
        blocks: vec![BlockDigest {
            block,
            lsn: Lsn(lsn),
            content: BlockContent::Good(crc32c(&content(byte))),
        }],
    };
    let ordered = |out: &[ReplicaOutput]| match out {
        [ReplicaOutput::Store { number, order }] => (*number, order.clone()),
        other => panic!("one order: {other:?}"),
    };
    let read = StoreOrder::Read { range: BlockRange::new(block, 1) };
    let mut copy = Copy::settled();
    copy.say(NEW, 9, Body::Seal { repeats: false });
    copy.stored(1, StoreOutcome::Sealed);
    let out = copy.say(NEW, 9, Body::Read { number: 7, block, min_lsn: Lsn(0) });
    let (number, order) = ordered(&out);
    assert_eq!(order, read);
    let out = copy.stored(number, StoreOutcome::Read { data: vec![content(1)] });
    let (number, order) = ordered(&out);
    assert_eq!(order, StoreOrder::Digest { extent });
    let out = copy.stored(number, listed(5, 2));
    let (number, order) = ordered(&out);
    assert_eq!(order, read, "it is another version by now");
    let (number, _) = ordered(&copy.stored(number, StoreOutcome::Read { data: vec![content(2)] }));
    let found = ImageBlock { block, lsn: Lsn(5), crc: crc32c(&content(2)), data: Some(content(2)) };
    let out = copy.stored(number, listed(5, 2));
    assert_eq!(bodies(&out), [&Body::ReadReply { number: 7, block: Some(found) }]);
    // One that was never written is in no list.
    let out = copy.say(NEW, 9, Body::Read { number: 8, block, min_lsn: Lsn(0) });
    let (number, _) = ordered(&out);
    let (number, _) = ordered(&copy.stored(number, StoreOutcome::Read { data: vec![content(0)] }));
    let out = copy.stored(number, StoreOutcome::Digest { at: Lsn(5), blocks: Vec::new() });
    let nothing = ImageBlock { block, lsn: Lsn(0), crc: 0, data: None };
    assert_eq!(bodies(&out), [&Body::ReadReply { number: 8, block: Some(nothing) }]);
}
