//! Writes of an active owner.

use crate::script::*;
use bytes::Bytes;
use holdfast_replication::index::LogIndex;
use holdfast_replication::{Body, SegmentOp, SegmentRequest, SegmentResult};
use holdfast_types::*;

/// H6. A learner gets every write and its acknowledgement never counts.
#[test]
fn a_learners_acknowledgement_does_not_count() {
    let mut setting = Setting::new(&[1, 2], &[1, 2]);
    setting.members.push(3);
    setting.fake(3).incomplete_since = Some(Lsn(0));
    let mut script = setting.active();
    let learn = script.fakes[&3].told.iter().find_map(|body| match body {
        Body::Learn { base } => Some(*base),
        _ => None,
    });
    let base = learn.expect("its log is to start anew");
    script.fakes.get_mut(&3).expect("copy 3").index = LogIndex::starting_at(base);
    script.say(3, Body::LearnReply { base, since: Lsn(0) });
    script.fakes.get_mut(&2).expect("copy 2").silent = true;
    script.request(write(1, 7));
    assert_eq!(script.writes(3), [1], "it gets the write, and has acknowledged it");
    assert!(!script.done(1), "of the two copies of S one has it");
    script.say(2, Body::Appended { matched: Lsn(2), committed: Lsn(0) });
    assert!(script.done(1));
}

/// H12. A repeat is answered from the log, and is no second record.
#[test]
fn a_repeated_write_is_answered_and_not_applied_again() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).active();
    script.request(write(1, 7));
    script.request(write(2, 8));
    script.request(write(1, 7));
    assert_eq!(script.writes(2), [1, 2]);
    assert_eq!(script.replies.iter().filter(|(seq, _)| *seq == 1).count(), 2);
}

fn compare_and_write(seq: u64, compare: u8, data: u8) -> SegmentRequest {
    let sector = |byte| Bytes::from(vec![byte; SECTOR_BYTES]);
    request(seq, SegmentOp::CompareAndWrite { offset: 512, compare: sector(compare), data: sector(data) })
}

/// H12. One that had succeeded finds its own data when it is repeated; it must not be told that it failed.
#[test]
fn a_repeated_compare_and_write_that_had_succeeded_is_not_compared_again() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).active();
    script.request(compare_and_write(1, 7, 8));
    script.store_reads(7);
    assert!(script.done(1));
    script.replies.clear();
    script.request(compare_and_write(1, 7, 8));
    assert!(script.orders.is_empty(), "it is not read again");
    assert_eq!(script.replies, [(1, SegmentResult::Ok(BlockReply::Done))]);
}

/// H18. A compare sees what is committed: one that overlaps a write under way waits for it.
#[test]
fn a_compare_waits_for_the_write_before_it() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).active();
    for node in [2, 3] {
        script.fakes.get_mut(&node).expect("a copy").silent = true;
    }
    script.request(write(1, 7));
    script.request(compare_and_write(2, 7, 8));
    assert!(script.orders.is_empty(), "write 1 is not committed");
    script.say(2, Body::Appended { matched: Lsn(2), committed: Lsn(0) });
    script.say(1, Body::Appended { matched: Lsn(2), committed: Lsn(2) });
    assert!(script.done(1));
    assert_eq!(script.orders.len(), 1, "now it is read");
}

/// H12, H18. Another content is an answer only when no newer owner can have written what was expected.
#[test]
fn a_miscompare_is_answered_only_under_a_lease() {
    let mut setting = Setting::new(&[1, 2, 3], &[1, 2, 3]);
    setting.fakes.values_mut().for_each(|f| f.keeps_leases = true);
    let mut script = setting.active();
    script.request(compare_and_write(1, 9, 8));
    script.store_reads(7);
    assert!(!script.answered(1));
    script.fakes.values_mut().for_each(|f| f.keeps_leases = false);
    script.pass(milliseconds(200));
    assert_eq!(script.replies, [(1, SegmentResult::Failed(BlockError::Miscompare { at: 0 }))]);
    assert_eq!(script.writes(1), []);
}

/// H12. Its gateway sent it twice, and the second arrives after the first was answered: what is there by then may be what it
/// expects, and must not be written over by a command that the initiator knows has failed.
#[test]
fn a_repeated_compare_and_write_that_had_found_another_content_is_not_compared_again() {
    let mut setting = Setting::new(&[1, 2, 3], &[1, 2, 3]);
    setting.fakes.values_mut().for_each(|f| f.keeps_leases = true);
    let mut script = setting.active();
    let miscompare = (1, SegmentResult::Failed(BlockError::Miscompare { at: 0 }));
    script.request(compare_and_write(1, 9, 8));
    script.store_reads(7);
    script.request(compare_and_write(1, 9, 8));
    assert!(script.orders.is_empty(), "it is not read again");
    assert!(!script.answered(1), "neither is proved");
    script.fakes.values_mut().for_each(|f| f.keeps_leases = false);
    script.pass(milliseconds(200));
    assert_eq!(script.replies, [miscompare.clone(), miscompare]);
    assert_eq!(script.writes(2), []);
}

/// H13. What comes of a session after its fence is in the log is refused, and is in no log.
#[test]
fn a_write_that_comes_after_its_sessions_fence_is_refused() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).active();
    script.call(|o, now, out| o.fence(now, GATEWAY, Some(SESSION), 44, out));
    assert_eq!(script.fenced, [44], "the fence is committed");
    script.request(write(1, 7));
    assert_eq!(script.replies, [(1, SegmentResult::Failed(BlockError::Fenced))]);
    let other = SegmentRequest { session: SessionId(6), ..write(2, 8) };
    script.request(other);
    assert!(script.done(2), "another session of that gateway goes on");
    assert_eq!(script.writes(2), [2]);
}

/// H13. What waits in the owner's queue when the fence comes must not follow it in the log.
#[test]
fn a_write_that_waits_when_its_gateway_is_fenced_is_refused() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).start();
    script.request(write(1, 7));
    assert_eq!(script.owner.unfenced(|g| g == GATEWAY).len(), 1, "it is known, for it waits");
    script.call(|o, now, out| o.fence(now, GATEWAY, None, 0, out));
    script.activate();
    assert_eq!(script.replies, [(1, SegmentResult::Fenced)]);
    assert_eq!(script.writes(2), []);
    assert!(script.owner.unfenced(|g| g == GATEWAY).is_empty(), "once is enough");
}

/// H13. A write whose blocks are being read for it when the fence comes is not ordered behind the fence.
#[test]
fn a_write_that_is_being_merged_when_its_session_is_fenced_is_refused() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).active();
    let sector = Bytes::from(vec![7; SECTOR_BYTES]);
    script.request(request(1, SegmentOp::Write { offset: 512, data: vec![sector] }));
    script.call(|o, now, out| o.fence(now, GATEWAY, Some(SESSION), 44, out));
    assert_eq!(script.fenced, [44]);
    script.store_reads(0);
    assert_eq!(script.replies, [(1, SegmentResult::Failed(BlockError::Fenced))]);
    assert_eq!(script.writes(2), []);
}

/// H17. What is merged was verified: a block that does not pass is replaced from another copy and read again.
#[test]
fn nothing_is_merged_into_a_damaged_block_before_it_is_healed() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).active();
    let sector = Bytes::from(vec![7; SECTOR_BYTES]);
    script.request(request(1, SegmentOp::Write { offset: 512, data: vec![sector] }));
    script.store(StoreOutcome::BadBlocks { blocks: vec![BlockIndex(0)] });
    assert_eq!(script.writes(1), [], "nothing is merged into it");
    let Some(Body::Read { number, .. }) = script.fakes[&2].told.last().cloned() else {
        panic!("another copy is asked: {:?}", script.fakes[&2].told)
    };
    let good = ImageBlock { block: BlockIndex(0), lsn: Lsn(1), crc: 0, data: Some(block(3)) };
    script.say(2, Body::ReadReply { number, block: Some(good) });
    let Some(Body::Heal { number, .. }) = script.fakes[&1].told.last().cloned() else {
        panic!("the own copy is healed: {:?}", script.fakes[&1].told)
    };
    script.say(1, Body::HealReply { number, replaced: true });
    script.store_reads(3);
    assert!(script.done(1));
    let RecordBody::Write(data) = &script.records(2).last().expect("the write").body else {
        panic!("a write")
    };
    assert!(data.data[..512].iter().all(|b| *b == 3) && data.data[512..1024].iter().all(|b| *b == 7));
}

/// A copy that has not heard yet of the last commit has nothing to give at that state. That is no reason to call a block
/// unreadable: the copy is told, then asked.
#[test]
fn a_source_of_a_damaged_block_hears_of_the_commit_before_it_is_asked() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).active();
    script.request(write(1, 7));
    assert!(script.done(1));
    script.request(read(2));
    script.store(StoreOutcome::BadBlocks { blocks: vec![BlockIndex(0)] });
    script.pass(milliseconds(100));
    assert!(!script.answered(2), "{:?}", script.replies);
    let told = [2, 3].map(|n| script.fakes[&n].told.clone());
    let asked = told.iter().find_map(|told| {
        let at = told.iter().position(|b| matches!(b, Body::Read { .. }))?;
        Some((&told[..at], told[at].clone()))
    });
    let Some((before, Body::Read { min_lsn, .. })) = asked else { panic!("a copy is asked: {told:?}") };
    let heard = |b: &Body| matches!(b, Body::Append { commit, .. } if *commit >= min_lsn);
    assert!(min_lsn >= Lsn(2) && before.iter().any(heard), "{before:?}");
}

/// Copies that are out of reach do not make a block unreadable either: the read waits for them.
#[test]
fn a_damaged_block_waits_for_a_copy_that_is_out_of_reach() {
    let mut script = Setting::new(&[1, 2], &[1, 2]).active();
    script.request(read(1));
    script.call(|o, now, out| o.link(now, NodeId(2), false, out));
    script.store(StoreOutcome::BadBlocks { blocks: vec![BlockIndex(0)] });
    script.pass(milliseconds(100));
    assert!(!script.answered(1), "{:?}", script.replies);
    script.call(|o, now, out| o.link(now, NodeId(2), true, out));
    script.pass(milliseconds(100));
    let is_asked = script.fakes[&2].told.iter().any(|b| matches!(b, Body::Read { .. }));
    assert!(is_asked, "{:?}", script.fakes[&2].told);
}

/// H22. With fewer copies in S than min_copies reads go on and writes wait.
#[test]
fn below_min_copies_writes_wait_and_reads_go_on() {
    let mut setting = Setting::new(&[1, 2, 3], &[1]);
    setting.min_copies = 2;
    setting.members = vec![1, 2, 3];
    let mut script = setting.active();
    script.request(write(1, 7));
    script.request(read(2));
    assert!(!script.answered(1) && script.writes(1).is_empty());
    script.fakes.get_mut(&1).expect("own").keeps_leases = false;
    script.pass(milliseconds(100));
    assert!(!script.answered(1));
    let info = SegmentInfo { min_copies: 1, ..script.info.clone() };
    script.call(|o, now, out| o.info_changed(now, &info, out));
    script.pass(milliseconds(100));
    assert!(script.done(1), "an operator said that one is enough");
}

/// H23. Control answers nothing: what the owner proposes stays unanswered, and writes go on.
#[test]
fn writes_go_on_while_control_says_nothing() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).active();
    script.fakes.get_mut(&3).expect("copy 3").silent = true;
    for seq in 1..=20 {
        script.request(write(seq, seq as u8));
        assert!(script.done(seq));
        script.pass(milliseconds(1000));
    }
    assert!(!script.proposals.is_empty(), "it asked to drop the copy that is silent, and got no answer");
}

/// H24. Of three copies one is silent: no write waits for it, and it leaves S by a grant.
#[test]
fn one_silent_copy_of_three_stalls_nothing_and_is_dropped_by_a_grant() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).active();
    script.fakes.get_mut(&3).expect("copy 3").silent = true;
    script.request(write(1, 7));
    assert!(script.done(1), "before any time has passed");
    script.pass(milliseconds(11_000));
    let Some((_, SegmentCommand::Grant { expect, set, reason, owner_incarnation, .. })) =
        script.proposals.first()
    else {
        panic!("a drop is proposed: {:?}", script.proposals)
    };
    assert_eq!((*expect, *reason), (Epoch(9), GrantReason::Drop));
    assert_eq!(*set, [copy(1), copy(2)]);
    assert_eq!(*owner_incarnation, ProcessIncarnation(1), "H4: to this run of the process");
}
