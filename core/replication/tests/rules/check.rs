//! How fast a check goes: at once for somebody who waits and has the disks for himself, slowly for a scrub.

use crate::script::*;
use holdfast_replication::{Body, Owner, OwnerOutput};
use holdfast_types::*;

const PACE: Duration = Duration::from_millis(50);

fn start(script: &mut Script, pace: Duration) {
    script.call(|o: &mut Owner, now: Time, out: &mut Vec<OwnerOutput>| o.start_check(now, pace, out));
}

/// The number of the question about an extent that a copy was asked, if it was.
fn asked(script: &Script, node: u16, extent: u32) -> Option<u64> {
    script.fakes[&node].told.iter().rev().find_map(|b| match b {
        Body::Digest { number, extent: of } if of.0 == extent => Some(*number),
        _ => None,
    })
}

/// Every copy answers for an extent, with one block that is the same on each, or with none.
fn answer(script: &mut Script, extent: u32, holds: bool) {
    let block = ExtentIndex(extent).first_block();
    let digest = BlockDigest { block, lsn: Lsn(1), content: BlockContent::Good(5) };
    for node in 1..=3 {
        let number = asked(script, node, extent).expect("every copy is asked");
        let blocks = if holds { vec![digest] } else { Vec::new() };
        script.say(node, Body::DigestReply { number, at: Lsn(9), blocks });
    }
}

#[test]
fn a_scrub_waits_between_extents_that_hold_something_and_only_then() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).active();
    start(&mut script, PACE);
    answer(&mut script, 0, false);
    answer(&mut script, 1, true);
    assert_eq!(asked(&script, 1, 2), None);
    script.pass(milliseconds(49));
    assert_eq!(asked(&script, 1, 2), None);
    script.pass(milliseconds(1));
    answer(&mut script, 2, true);
    // Somebody who waits joins: the extent that is waited for is the last.
    start(&mut script, Duration::ZERO);
    script.pass(PACE);
    for extent in 3..SEGMENT_EXTENTS {
        answer(&mut script, extent, true);
    }
    assert_eq!(script.checks.len(), 1);
    assert_eq!((script.checks[0].bytes, script.checks[0].differing), (4096 * 1023, 0));
}

#[test]
fn a_check_gives_way_to_clients_of_its_segment_and_of_others_on_its_node() {
    for clients in ["none", "of this segment", "of another one"] {
        let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).active();
        // What came at activation is long ago.
        script.pass(milliseconds(200));
        match clients {
            "of this segment" => script.request(write(1, 7)),
            "of another one" => {
                script.call(|o: &mut Owner, now, _: &mut Vec<OwnerOutput>| o.note_clients(Some(now)))
            }
            _ => {}
        }
        start(&mut script, Duration::ZERO);
        script.pass(milliseconds(3));
        answer(&mut script, 0, true);
        if clients != "none" {
            script.pass(milliseconds(11));
            assert_eq!(asked(&script, 1, 1), None, "too early, clients: {clients}");
            script.pass(milliseconds(1));
        }
        assert!(asked(&script, 1, 1).is_some(), "clients: {clients}");
    }
}

#[test]
fn a_copy_whose_link_is_lost_is_not_waited_for() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).active();
    start(&mut script, Duration::ZERO);
    for node in [1, 2] {
        let number = asked(&script, node, 0).expect("every copy is asked");
        script.say(node, Body::DigestReply { number, at: Lsn(9), blocks: Vec::new() });
    }
    assert_eq!(asked(&script, 1, 1), None, "the third copy is waited for");
    script.call(|o: &mut Owner, now, out: &mut Vec<OwnerOutput>| o.link(now, NodeId(3), false, out));
    for extent in 1..SEGMENT_EXTENTS {
        assert_eq!(asked(&script, 3, extent), None);
        for node in [1, 2] {
            let number = asked(&script, node, extent).expect("the others are asked");
            script.say(node, Body::DigestReply { number, at: Lsn(9), blocks: Vec::new() });
        }
    }
    assert_eq!(script.checks.iter().map(|c| c.skipped.clone()).collect::<Vec<_>>(), [vec![copy(3)]]);
}

/// The question is lost with a disk that is not open yet, the answer with a link of the copy's own.
#[test]
fn a_copy_that_does_not_answer_is_asked_again_and_left_out_in_the_end() {
    let mut script = Setting::new(&[1, 2, 3], &[1, 2, 3]).active();
    start(&mut script, Duration::ZERO);
    for node in [1, 2] {
        let number = asked(&script, node, 0).expect("every copy is asked");
        script.say(node, Body::DigestReply { number, at: Lsn(9), blocks: Vec::new() });
    }
    let lost = asked(&script, 3, 0).expect("every copy is asked");
    let forget = |script: &mut Script| {
        script.fakes.values_mut().for_each(|fake| fake.told.clear());
    };
    forget(&mut script);
    script.pass(milliseconds(1999));
    assert_eq!(asked(&script, 3, 0), None, "too early");
    script.pass(milliseconds(1));
    assert_eq!(asked(&script, 3, 0), Some(lost));
    assert_eq!(asked(&script, 1, 0), None, "the first copy answered");
    script.say(3, Body::DigestReply { number: lost, at: Lsn(9), blocks: Vec::new() });
    // Nor does it answer for the next extent, however often it is asked.
    for node in [1, 2] {
        let number = asked(&script, node, 1).expect("every copy is asked");
        script.say(node, Body::DigestReply { number, at: Lsn(9), blocks: Vec::new() });
    }
    for _ in 0..14 {
        forget(&mut script);
        script.pass(milliseconds(2000));
        assert!(asked(&script, 3, 1).is_some());
    }
    script.pass(milliseconds(2000));
    assert!(asked(&script, 1, 2).is_some(), "the others go on");
    assert_eq!(asked(&script, 3, 2), None);
}
