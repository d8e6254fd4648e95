//! From a grant to serving.

use crate::script::{Setting, at, copy, empty_record, log, milliseconds, write};
use holdfast_replication::index::LogIndex;
use holdfast_types::*;

/// H1. A write was acknowledged by 1 and 2 of {1, 2, 3}; then {1, 3} was granted. That 3 alone is enough of the
/// granted S is not enough: of the active one two have to answer.
#[test]
fn a_takeover_asks_a_seal_quorum_of_the_active_set_whatever_the_granted_one_is() {
    let mut setting = Setting::new(&[1, 2, 3], &[1]);
    setting.fake(2).silent = true;
    setting.fake(3).silent = true;
    let mut script = setting.start();
    script.pass(milliseconds(2000));
    assert_eq!(script.phase(), "sealing", "one of three is no seal quorum");
    script.speak(2);
    assert!(script.asks_for_activation(), "two of three are: {}", script.phase());
}

/// H2. The record of the later epoch is the one that may be committed, be the other log longer.
#[test]
fn the_log_whose_last_record_has_the_highest_epoch_is_adopted_and_not_the_longest() {
    let mut setting = Setting::new(&[1, 2, 3], &[1, 2, 3]);
    setting.fake(3).silent = true;
    setting.fake(1).index = log(&[(5, 1), (5, 2), (5, 3), (5, 4)]);
    setting.fake(2).index = log(&[(5, 1), (7, 2)]);
    let later = [at(5, 1), at(7, 2)].map(|p| (p.lsn, empty_record(p)));
    setting.fake(2).records = later.into();
    let script = setting.active();
    assert_eq!(script.fakes[&1].index, script.fakes[&2].index);
    assert!(script.fakes[&1].index.has(at(7, 2)), "{:?}", script.fakes[&1].index);
    assert_eq!(script.fakes[&1].index.last(), at(9, 3), "a record of the owner's epoch ends it");
}

/// H3. That the sealed copies are equal is not enough: a write quorum of the granted S must hold the START record.
#[test]
fn an_epoch_is_proposed_as_active_only_when_a_write_quorum_holds_its_start_record() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]);
    script.fake(2).silent = true;
    script.fake(3).silent = true;
    let mut script = script.start();
    script.say(2, script.fakes[&2].sealed());
    assert_eq!(script.phase(), "equalising");
    script.pass(milliseconds(500));
    assert!(!script.asks_for_activation(), "only the own copy holds it");
    script.speak(2);
    assert!(script.asks_for_activation(), "{}", script.phase());
}

/// H5. A disk that came back empty under the old identity is another incarnation: its word does not count.
#[test]
fn a_seal_of_another_incarnation_of_the_disk_does_not_count() {
    let mut setting = Setting::new(&[1, 2, 3], &[1, 2, 3]);
    setting.fake(2).silent = true;
    setting.fake(3).silent = true;
    let mut script = setting.start();
    let replica = ReplicaRef { incarnation: DiskIncarnation(2), ..copy(2) };
    let message = holdfast_replication::Envelope {
        segment: crate::script::key(),
        epoch: Epoch(9),
        replica,
        body: script.fakes[&2].sealed(),
    };
    script.call(|o, now, out| o.receive(now, NodeId(2), message, out));
    assert_eq!(script.phase(), "sealing");
    script.say(2, script.fakes[&2].sealed());
    assert_ne!(script.phase(), "sealing", "the incarnation that S lists counts");
}

/// H6. A learner's log may be hollow: it is neither adopted nor counted as a seal.
#[test]
fn an_unfinished_copy_is_no_part_of_a_seal_quorum() {
    let mut setting = Setting::new(&[1, 2, 3], &[1, 2, 3]);
    setting.fake(2).incomplete_since = Some(Lsn(0));
    setting.fake(2).index = LogIndex::starting_at(at(8, 7));
    setting.fake(3).silent = true;
    let mut script = setting.start();
    script.pass(milliseconds(2000));
    assert_eq!(script.phase(), "sealing");
    script.speak(3);
    assert!(script.asks_for_activation(), "{}", script.phase());
    assert_eq!(script.fakes[&1].index.last(), at(9, 1), "the hollow log was not adopted");
}

/// H7. Nothing is served before control recorded the epoch as active, and nothing at all when another grant came.
#[test]
fn nothing_is_acknowledged_before_control_recorded_the_epoch_and_an_unknown_outcome_is_asked_again() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).start();
    script.request(write(1, 7));
    assert!(script.asks_for_activation() && !script.answered(1));
    assert_eq!(script.writes(1), [], "it is not even ordered");
    let (number, first) = script.proposals.remove(0);
    script.call(|o, now, out| o.control(now, number, SegmentCommandResult::Unknown, out));
    script.pass(milliseconds(1000));
    assert!(!script.answered(1));
    assert_eq!(script.proposals[0].1, first, "the same compare-and-set again");
    script.activate();
    assert!(script.done(1));
}

/// H7. The compare-and-set failed: another owner was granted, and this one serves nothing.
#[test]
fn an_owner_whose_activation_came_too_late_serves_nothing() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).start();
    script.request(write(1, 7));
    let (number, _) = script.proposals.remove(0);
    let stale = SegmentCommandResult::Stale { granted: Epoch(10) };
    script.call(|o, now, out| o.control(now, number, stale, out));
    script.pass(milliseconds(5000));
    assert!(!script.answered(1) && script.writes(1).is_empty());
    let mut info = script.info.clone();
    (info.granted.epoch, info.granted.owner) = (Epoch(10), NodeId(2));
    script.call(|o, now, out| o.info_changed(now, &info, out));
    assert_eq!(script.replies, [(1, holdfast_replication::SegmentResult::NotOwner)]);
}

/// H9. The old owner may read under a lease of two copies until it has passed: only then does the new epoch count.
#[test]
fn an_activation_waits_until_no_more_leases_run_than_are_too_few_to_read_under() {
    let mut setting = Setting::new(&[1, 2, 3], &[1, 2, 3]);
    setting.fake(2).lease_left = milliseconds(700);
    setting.fake(3).lease_left = milliseconds(900);
    let mut script = setting.start();
    assert_eq!(script.phase(), "waiting for leases");
    script.pass(milliseconds(700));
    assert!(!script.asks_for_activation(), "the clocks may differ by the drift");
    script.pass(milliseconds(10));
    assert!(script.asks_for_activation(), "copies 1 and 2 have none left");
}

/// A copy that has just started reports a full lease, whatever it gave. That keeps nobody waiting where enough others
/// have none left, whichever answers first.
#[test]
fn a_copy_that_has_just_started_keeps_no_activation_waiting() {
    let mut setting = Setting::new(&[1, 2, 3], &[1, 2, 3]);
    setting.fake(2).lease_left = milliseconds(1000);
    setting.fake(3).silent = true;
    let mut script = setting.start();
    assert_eq!(script.phase(), "waiting for leases", "one copy without a lease is not enough");
    script.say(3, script.fakes[&3].sealed());
    assert!(script.asks_for_activation(), "{}", script.phase());
}
