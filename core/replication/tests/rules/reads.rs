//! Reads of an active owner.

use crate::script::*;
use holdfast_replication::{Body, OwnerConfig, ReadCheck, SegmentResult};
use holdfast_types::*;

fn data(byte: u8) -> SegmentResult {
    SegmentResult::Ok(BlockReply::Data(vec![block(byte)]))
}

/// H9. One copy's lease is not enough: a newer owner may have sealed the two others.
#[test]
fn a_read_needs_the_leases_of_a_write_quorum() {
    let mut setting = Setting::new(&[1, 2, 3], &[1, 2, 3]);
    setting.fake(2).keeps_leases = true;
    setting.fake(3).keeps_leases = true;
    let mut script = setting.active();
    script.request(read(1));
    script.store_reads(7);
    script.pass(milliseconds(300));
    assert!(!script.answered(1), "only the own copy granted one");
    script.fakes.get_mut(&3).expect("copy 3").keeps_leases = false;
    script.pass(milliseconds(300));
    assert_eq!(script.replies, [(1, data(7))]);
}

/// H10. A lease counts from when it was asked for, and is looked at after the data was read: an owner that stood
/// still in between answers nothing from its past.
#[test]
fn data_that_comes_after_the_lease_has_passed_is_not_answered_under_it() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).active();
    script.request(read(1));
    script.store_reads(7);
    assert!(script.answered(1));
    script.request(read(2));
    script.fakes.values_mut().for_each(|f| f.silent = true);
    script.now += milliseconds(995);
    script.store_reads(7);
    assert!(!script.answered(2), "a second after they were asked for, less the drift, the leases are void");
}

/// H10. The reply to a question that was asked long ago grants nothing now.
#[test]
fn a_lease_that_is_granted_late_counts_from_when_it_was_asked_for() {
    let mut setting = Setting::new(&[1, 2, 3], &[1, 2, 3]);
    setting.fakes.values_mut().for_each(|f| f.keeps_leases = true);
    let mut script = setting.active();
    script.request(read(1));
    let Some(Body::Lease { number }) = script.fakes[&2].told.last().cloned() else {
        panic!("a lease is asked for")
    };
    script.now += milliseconds(995);
    script.request(read(2));
    for node in [1, 2, 3] {
        script.say(node, Body::LeaseReply { number, granted: true });
    }
    script.store_reads(7);
    script.store_reads(7);
    assert!(!script.answered(2), "that question was asked before this read came");
}

/// H10. Where clocks may stop, a read is proved by a question that was sent after it came.
#[test]
fn with_reads_quorum_an_answer_to_an_older_question_proves_nothing() {
    let mut setting = Setting::new(&[1, 2, 3], &[1, 2, 3]);
    setting.config = OwnerConfig { reads: ReadCheck::Quorum, ..OwnerConfig::default() };
    let mut script = setting.active();
    script.request(read(1));
    script.store_reads(7);
    assert_eq!(script.replies, [(1, data(7))]);
    script.fakes.values_mut().for_each(|f| f.silent = true);
    script.request(read(2));
    script.store_reads(7);
    script.pass(milliseconds(300));
    assert!(!script.answered(2));
    script.speak(2);
    assert!(!script.answered(2), "one of three");
    script.speak(3);
    assert!(script.answered(2));
}

/// H11. Two other copies made the quorum: the own one is not read before it has what was acknowledged.
#[test]
fn a_read_waits_until_the_own_copy_has_what_is_committed() {
    let mut setting = Setting::new(&[1, 2, 3], &[1, 2, 3]);
    setting.fake(1).lags = true;
    let mut script = setting.active();
    script.request(write(1, 7));
    assert!(script.done(1));
    script.request(read(2));
    assert!(script.orders.is_empty(), "the own copy would answer from before the write");
    script.say(1, Body::Appended { matched: Lsn(2), committed: Lsn(2) });
    script.store_reads(7);
    assert_eq!(script.replies.last(), Some(&(2, data(7))));
}

/// Its gateway may have known of the grant before this node, have sent the read here after that, and so have no reason to
/// send it again.
#[test]
fn a_read_that_is_at_the_store_when_another_grant_comes_is_sent_back() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).active();
    script.request(read(1));
    let mut info = script.info.clone();
    info.granted.epoch = Epoch(10);
    script.call(|o, now, out| o.info_changed(now, &info, out));
    assert_eq!(script.replies, [(1, SegmentResult::NotOwner)]);
    script.store_reads(7);
    assert_eq!(script.replies.len(), 1, "what comes of it after that is of an owner that has ended");
}
