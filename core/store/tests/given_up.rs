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
/// How many places it takes: all that the other one had.
const EXTENTS: u64 = 3;
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
    for lsn in 1..=EXTENTS {
        rig.order(key(1), append(vec![another(lsn)]));
        rig.order(key(1), StoreOrder::Commit { lsn: Lsn(lsn) });
    }
    go_on(rig);
}

/// What another copy writes: the front of an extent each.
fn another(lsn: u64) -> Record {
    write(1, lsn, front(lsn), BULK)
}

fn front(lsn: u64) -> u32 {
    lsn as u32 * EXTENT_BLOCKS
}

fn assert_reads(rig: &mut Rig) {
    for lsn in 1..=EXTENTS {
        let read = joined(rig.run(key(1), read(front(lsn), BULK)));
        assert!(read == content(front(lsn), BULK, lsn), "another copy's data is whole");
    }
}

fn assert_is_whole(rig: &mut Rig) {
    rig.disk.faults.held = 0..0;
    rig.settle();
    assert_reads(rig);
    rig.idle();
    assert_reads(rig);
    assert_eq!(rig.events, []);
    let usage = rig.store.usage();
    assert_eq!(
        usage.extents_total - usage.extents_free,
        EXTENTS,
        "the places of the copy that is gone are free"
    );
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

/// Bulk that replaces a part of an extent lies in a place of its own until it is written in place. Others get that place as
/// soon as the copy is gone, also while a round reads there.
#[test]
fn what_another_copy_wrote_is_not_taken_for_damage_of_one_that_is_gone() {
    for seed in 1..=SEEDS {
        let mut rig = Rig::format(48 * MIB, small(), seed);
        rig.call(|s, now, _| s.create_replica(now, key(0)));
        (0..4).for_each(|n| put(&mut rig, write(1, n + 1, n as u32 * BULK, BULK)));
        rig.idle();
        // Memory for records is short: the last one is on the disk only.
        (5..=8).for_each(|lsn| drop(rig.run(key(0), append(vec![write(1, lsn, EXTENT_BLOCKS + 1, BULK)]))));
        rig.run(key(0), append(vec![write(1, 9, 0, BULK)]));
        let layout = layout(rig.disk.size(), &rig.config).expect("the disk has one");
        rig.order(key(0), StoreOrder::Commit { lsn: Lsn(9) });
        begin_round(&mut rig, layout.extents.clone());
        let is_read = |o: &DiskOrder| matches!(o.kind, DiskOrderKind::Read { offset, .. } if layout.extents.contains(&offset));
        assert!(rig.disk.orders().iter().any(is_read), "a round reads what lies in its place");
        give_up_and_write_another(&mut rig);
        assert_is_whole(&mut rig);
    }
}
