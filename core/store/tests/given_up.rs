//! Copies that are given up while a round writes them back: their places go to others, and what the round has for them must
//! not land there.

mod common;

use common::*;
use holdfast_store::testing::Rig;
use holdfast_store::{layout, layout::Layout};
use holdfast_types::*;
use std::ops::Range;

/// Blocks of another copy's writes: bulk, which goes to a place at once.
const BULK: u32 = 64;
const SEEDS: u64 = 20;

/// A copy with one block in place, and a newer state of it that waits to be written back.
fn copy_that_waits(seed: u64) -> (Rig, Layout) {
    let mut rig = Rig::format(48 * MIB, small(), seed);
    rig.call(|s, now, _| s.create_replica(now, key(0)));
    put(&mut rig, write(1, 1, 0, 1));
    rig.idle();
    // From here on its page is on the disk only.
    rig.reopen();
    put(&mut rig, write(1, 2, 0, 1));
    let layout = layout(rig.disk.size(), &rig.config).expect("the disk has one");
    (rig, layout)
}

/// As far as it goes while the disk holds some orders.
fn go_on(rig: &mut Rig) {
    while rig.step() {}
}

/// Begins to write back; the disk does not do what concerns `held`.
fn begin_round(rig: &mut Rig, held: Range<u64>) {
    rig.disk.faults.held = held;
    rig.now = rig.store.next_timer().expect("it writes back after a while").max(rig.now);
    rig.call(|s, now, out| s.timer(now, out));
    go_on(rig);
    assert!(rig.disk.waiting() > 0, "the round waits for the disk");
}

/// Gives the copy up; then another one writes to the places that are free.
fn give_up_and_write_another(rig: &mut Rig) {
    rig.call(|s, now, out| s.drop_replica(now, key(0), out));
    go_on(rig);
    assert_eq!(rig.dropped, [key(0)], "the copy is gone");
    rig.call(|s, now, _| s.create_replica(now, key(1)));
    rig.order(key(1), append(vec![write(1, 1, 0, BULK)]));
    rig.order(key(1), StoreOrder::Commit { lsn: Lsn(1) });
    go_on(rig);
}

fn assert_is_whole(rig: &mut Rig) {
    rig.disk.faults.held = 0..0;
    rig.settle();
    assert!(joined(rig.run(key(1), read(0, BULK))) == content(0, BULK, 1), "another copy's data is whole");
    rig.idle();
    assert!(joined(rig.run(key(1), read(0, BULK))) == content(0, BULK, 1), "it is when it is in place, too");
    assert_eq!(rig.events, []);
    let usage = rig.store.usage();
    assert_eq!(usage.extents_total - usage.extents_free, 1, "the place of the copy that is gone is free");
}

#[test]
fn a_write_that_is_with_the_disk_does_not_land_on_what_another_copy_wrote_since() {
    for seed in 1..=SEEDS {
        let (mut rig, layout) = copy_that_waits(seed);
        begin_round(&mut rig, layout.extents);
        give_up_and_write_another(&mut rig);
        assert_is_whole(&mut rig);
    }
}

#[test]
fn a_round_that_has_not_begun_to_write_leaves_out_a_copy_that_is_gone() {
    for seed in 1..=SEEDS {
        let (mut rig, layout) = copy_that_waits(seed);
        begin_round(&mut rig, layout.metadata);
        give_up_and_write_another(&mut rig);
        assert_is_whole(&mut rig);
    }
}
