//! What a copy that is behind costs its owner: how much is on its way to it, and how much is kept for it in memory. What
//! is not there any more comes from the own copy's journal.

use crate::script::*;
use holdfast_replication::{Body, Owner, OwnerOutput};
use holdfast_types::*;

const WRITES: u64 = 40;

fn setting() -> Setting {
    let mut setting = Setting::new(&[1, 2, 3], &[1, 2, 3]);
    setting.config.copy_in_flight_bytes = 40 << 10;
    setting.config.retained_bytes = 20 << 10;
    setting
}

/// A third copy takes and says nothing while the others write.
fn behind() -> Script {
    let mut script = setting().active();
    let third = script.fakes.get_mut(&3).expect("it is a copy");
    third.silent = true;
    third.told.clear();
    for seq in 1..=WRITES {
        script.request(write(seq, seq as u8));
        assert!(script.done(seq), "two of three are a quorum");
    }
    script
}

/// The data that a copy was sent.
fn sent_bytes(script: &Script, node: u16) -> usize {
    let records = script.fakes[&node].told.iter().filter_map(|body| match body {
        Body::Append { records, .. } => Some(records),
        _ => None,
    });
    records.flatten().map(Record::data_bytes).sum()
}

/// The own store gives the log that it is asked for, a little at a time.
fn load(script: &mut Script) {
    let Some((_, StoreOrder::ReadLog { after, .. })) = script.orders.first() else {
        panic!("the own store is asked for {:?}", script.orders)
    };
    let own = &script.fakes[&1].records;
    let records = own.range(after.next()..).take(7).map(|(_, r)| r.clone()).collect();
    script.store(StoreOutcome::Log { records });
}

#[test]
fn a_copy_that_does_not_answer_is_sent_so_much_and_costs_so_much() {
    let mut script = behind();
    let sent = sent_bytes(&script, 3);
    assert!((32 << 10..=40 << 10).contains(&sent), "{sent} bytes are on their way");
    assert!(script.owner.retained_bytes() <= 20 << 10);
    assert!(script.orders.is_empty(), "nothing is read for a copy that takes nothing");
    script.speak(3);
    for _ in 0..WRITES {
        if script.writes(3).len() as u64 == WRITES {
            break;
        }
        load(&mut script);
    }
    assert_eq!(script.writes(3), script.writes(1));
    assert_eq!(script.owner.retained_bytes(), 0);
    assert!(script.proposals.is_empty(), "it stays in S: {:?}", script.proposals);
}

#[test]
fn what_other_owners_keep_is_not_there_for_this_one() {
    let mut script = behind();
    assert!(script.owner.retained_bytes() > 12 << 10);
    script.call(|o: &mut Owner, _, _: &mut Vec<OwnerOutput>| o.retain_at_most(12 << 10));
    script.request(write(WRITES + 1, 1));
    assert!(script.done(WRITES + 1));
    let kept = script.owner.retained_bytes();
    assert!((1..=12 << 10).contains(&kept), "{kept} bytes are kept");
}

#[test]
fn what_was_on_its_way_over_a_lost_link_does_not_count() {
    let mut script = behind();
    for up in [false, true] {
        script.call(|o: &mut Owner, now, out: &mut Vec<OwnerOutput>| o.link(now, NodeId(3), up, out));
    }
    script.fakes.get_mut(&3).expect("it is a copy").told.clear();
    script.speak(3);
    load(&mut script);
    assert!(sent_bytes(&script, 3) > 0, "it is sent what it lacks");
}

/// With two copies each write waits for both. One whose node is not reached is soon done without; one that is reached and
/// acknowledges nothing may be behind a network that is full, and is waited for longer.
#[test]
fn of_two_copies_one_that_is_not_reached_leaves_sooner_than_one_that_is_late() {
    for (is_reached, stays_ms, leaves_ms) in [(false, 1400, 1600), (true, 3900, 4100)] {
        let mut script = Setting::new(&[1, 2], &[1, 2]).active();
        script.fakes.get_mut(&2).expect("a copy").silent = true;
        script.request(write(1, 1));
        if !is_reached {
            script.call(|o: &mut Owner, now, out: &mut Vec<OwnerOutput>| o.link(now, NodeId(2), false, out));
        }
        script.pass(milliseconds(stays_ms));
        assert!(script.proposals.is_empty(), "reached: {is_reached}: {:?}", script.proposals);
        script.pass(milliseconds(leaves_ms - stays_ms));
        let Some((_, SegmentCommand::Grant { set, reason, .. })) = script.proposals.first() else {
            panic!("reached: {is_reached}: {:?}", script.proposals);
        };
        assert_eq!((&set[..], *reason), (&[copy(1)][..], GrantReason::Drop));
    }
}
