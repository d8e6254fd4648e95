//! Copies whose disk has no room for a record of the past: the segment held more then than it does now, and the discard
//! that says so stands behind that record.

use crate::script::*;
use holdfast_replication::{Body, SealState};
use holdfast_types::*;

const FULL: Body = Body::Refused { reason: StoreRefusal::Full };
/// Each refusal makes the next append smaller; after so many it holds one record.
const UNTIL_SINGLE: usize = 4;

fn learns(script: &Script, node: u16) -> bool {
    script.fakes[&node].told.iter().any(|b| matches!(b, Body::Learn { .. }))
}

/// Records cannot bring such a learner up to date, images of what is there now can.
#[test]
fn a_learner_that_has_no_room_for_the_next_record_learns_anew() {
    let mut setting = Setting::new(&[1, 2], &[1, 2]);
    setting.members.push(3);
    setting.fake(3).silent = true;
    let mut script = setting.active();
    let sealed = SealState {
        index: log(&[]),
        applied: Lsn(0),
        lease_left: Duration::ZERO,
        incomplete_since: None,
        repeats: None,
    };
    script.say(3, Body::SealReply(sealed));
    script.say(3, Body::Appended { matched: Lsn(0), committed: Lsn(0) });
    for _ in 0..UNTIL_SINGLE {
        script.say(3, FULL);
        assert!(!learns(&script, 3), "a discard among the records may make room yet");
    }
    script.say(3, FULL);
    assert!(learns(&script, 3), "{:?}", script.fakes[&3].told);
}

/// An owner with such a copy of its own would have every read wait for good.
#[test]
fn an_owner_whose_own_disk_has_no_room_for_what_is_committed_passes_the_segment_on() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).active();
    script.fakes.get_mut(&1).expect("it is there").silent = true;
    script.request(write(1, 7));
    assert!(script.done(1), "two of three have it");
    script.say(1, FULL);
    script.pass(milliseconds(700));
    assert_eq!(script.passed_on, [], "room may come at any moment");
    script.say(1, FULL);
    script.pass(milliseconds(700));
    assert_eq!(script.passed_on, [NodeId(2), NodeId(3)]);
    script.call(|o, now, out| o.propose_takeover(now, NodeId(3), ProcessIncarnation(1), out));
    let Some((_, SegmentCommand::Grant { owner, set, reason, .. })) = script.proposals.last() else {
        panic!("{:?}", script.proposals);
    };
    assert_eq!((*owner, *reason, set.len()), (NodeId(3), GrantReason::Takeover, 3), "S stays as it is");
}

/// The same when it does not answer at all, after the time that any copy of S has.
#[test]
fn an_owner_whose_own_disk_hangs_while_it_serves_passes_the_segment_on() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).active();
    script.fakes.get_mut(&1).expect("it is there").silent = true;
    script.request(write(1, 7));
    script.pass(milliseconds(9_000));
    assert_eq!(script.passed_on, []);
    script.pass(milliseconds(2_000));
    assert_eq!(script.passed_on, [NodeId(2), NodeId(3)]);
}

/// Neither does ownership follow the I/O to a copy that cannot follow: it would come back at once.
#[test]
fn ownership_does_not_follow_the_io_to_a_copy_that_lacks_room() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).active();
    script.fakes.get_mut(&3).expect("it is there").silent = true;
    script.request(write(1, 7));
    script.say(3, FULL);
    let follow = |script: &mut Script, node: u16| {
        script.call(|o, now, out| {
            o.propose_owner(now, NodeId(node), ProcessIncarnation(1), GrantReason::FollowIo, out);
        });
        script.proposals.len()
    };
    assert_eq!(follow(&mut script, 3), 0);
    assert_eq!(follow(&mut script, 2), 1);
}

/// A copy that refuses what comes next makes no progress by answering that it is there: it leaves S in time.
#[test]
fn a_copy_that_answers_and_refuses_leaves_the_set() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).active();
    script.fakes.get_mut(&3).expect("it is there").silent = true;
    script.request(write(1, 7));
    let matched = script.fakes[&3].index.last().lsn;
    for _ in 0..25 {
        script.say(3, FULL);
        script.say(3, Body::Appended { matched, committed: matched });
        script.pass(milliseconds(500));
    }
    let sets = script.proposals.iter().filter_map(|(_, c)| match c {
        SegmentCommand::Grant { set, .. } => Some(set.clone()),
        SegmentCommand::Activated { .. } => None,
    });
    assert_eq!(sets.collect::<Vec<_>>(), [vec![copy(1), copy(2)]]);
}

/// Copies may know of a discard by different records, or not at all: what they hold is the same.
#[test]
fn a_check_finds_no_difference_between_blocks_that_hold_nothing() {
    for (content, differing) in [(BlockContent::Absent, 0), (BlockContent::Good(5), 1)] {
        let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).active();
        script.call(|o, now, out| o.start_check(now, Duration::ZERO, out));
        for extent in 0..SEGMENT_EXTENTS {
            let first = ExtentIndex(extent).first_block();
            for node in 1..=3 {
                let told = script.fakes[&node].told.iter().rev();
                let number = told.clone().find_map(|b| match b {
                    Body::Digest { number, extent: of } if of.0 == extent => Some(*number),
                    _ => None,
                });
                let digest = BlockDigest { block: first, lsn: Lsn(u64::from(node) - 1), content };
                let blocks = if extent == 0 && node > 1 { vec![digest] } else { Vec::new() };
                let number = number.expect("every copy is asked");
                script.say(node, Body::DigestReply { number, at: Lsn(9), blocks });
            }
        }
        assert_eq!(script.checks.iter().map(|c| c.differing).collect::<Vec<_>>(), [differing]);
    }
}
