//! Bulk is written once: data of long writes goes to shadows of their extents, and what holds for the journal holds for it.

mod common;

use bytes::Bytes;
use common::*;
use holdfast_store::StoreConfig;
use holdfast_store::testing::{Cut, Rig};
use holdfast_types::*;

/// Blocks of a write of the stream.
const STEP: u32 = 32;
const EXTENT_STEPS: u64 = (EXTENT_BLOCKS / STEP) as u64;

/// One write of the stream through the extents: record `lsn` begins where the one before ended.
fn step(lsn: u64) -> Record {
    write(1, lsn, (lsn as u32 - 1) * STEP, STEP)
}

/// The first extent, written by the stream and in place.
fn put_extent(rig: &mut Rig) {
    (1..=EXTENT_STEPS).for_each(|lsn| put(rig, step(lsn)));
    rig.idle();
}

fn free_extents(rig: &Rig) -> u64 {
    rig.store.usage().extents_free
}

/// Where the first block of a record lies on the disk, as block numbers.
fn places(rig: &Rig, block: u32, lsn: u64) -> Vec<u64> {
    places_of(rig, &content(block, 1, lsn))
}

#[test]
fn a_stream_lies_on_the_disk_once_and_is_read_before_and_after_it_is_in_place() {
    let mut rig = rig();
    let free = free_extents(&rig);
    for lsn in 1..=EXTENT_STEPS * 2 {
        put(&mut rig, step(lsn));
    }
    for step in 0..3 {
        for lsn in 1..=EXTENT_STEPS * 2 {
            let block = (lsn as u32 - 1) * STEP;
            assert_eq!(joined(rig.run(key(0), read(block, STEP))), content(block, STEP, lsn));
            assert_eq!(places(&rig, block, lsn).len(), 1, "record {lsn} lies there once");
        }
        if step == 0 { rig.idle() } else { rig.restart(Cut::LoseAll) }
    }
    rig.idle();
    assert_eq!(free_extents(&rig), free - 2);
}

#[test]
fn an_extent_that_is_overwritten_moves_and_its_old_place_is_free() {
    let mut rig = rig();
    let free = free_extents(&rig);
    put_extent(&mut rig);
    let mut before = places(&rig, 0, 1);
    for pass in 1..4 {
        for n in 0..EXTENT_STEPS {
            put(&mut rig, write(1, pass * EXTENT_STEPS + n + 1, n as u32 * STEP, STEP));
        }
        rig.idle();
        let now = places(&rig, 0, pass * EXTENT_STEPS + 1);
        assert_eq!(now.len(), 1);
        assert_ne!(now, before);
        before = now;
    }
    let lsn = 3 * EXTENT_STEPS + 1;
    assert_eq!(free_extents(&rig), free - 1, "one extent holds one extent's data");
    rig.restart(Cut::LoseAll);
    assert_eq!(joined(rig.run(key(0), read(0, STEP))), content(0, STEP, lsn));
    assert!(rig.events.is_empty(), "{:?}", rig.events);
}

#[test]
fn a_part_of_an_extent_is_written_over_the_old_one_and_its_shadow_is_free() {
    let mut rig = rig();
    let free = free_extents(&rig);
    put_extent(&mut rig);
    put(&mut rig, write(1, EXTENT_STEPS + 1, 0, STEP));
    rig.idle();
    put(&mut rig, record(1, EXTENT_STEPS + 2, RecordBody::Start));
    rig.idle();
    assert_eq!(free_extents(&rig), free - 1);
    let mut expected = content(0, STEP, EXTENT_STEPS + 1).to_vec();
    expected.extend_from_slice(&content(STEP, STEP, 2));
    assert_eq!(joined(rig.run(key(0), read(0, 2 * STEP))), expected);
}

#[test]
fn small_writes_into_a_stream_win_where_they_are_newer() {
    let mut rig = rig();
    put(&mut rig, step(1));
    put(&mut rig, write(1, 2, 5, 1));
    put(&mut rig, write(1, 3, STEP, STEP));
    put(&mut rig, write(1, 4, STEP * 2 + 3, 1));
    put(&mut rig, write(1, 5, STEP * 2, STEP));
    for step in 0..3 {
        let data = joined(rig.run(key(0), read(0, STEP * 3)));
        for (block, got) in (0..STEP * 3).zip(data.chunks_exact(BLOCK_BYTES)) {
            let lsn = match block {
                5 => 2,
                _ => [1, 3, 5][(block / STEP) as usize],
            };
            assert_eq!(got, &content(block, 1, lsn)[..], "block {block}");
        }
        if step == 0 { rig.idle() } else { rig.restart(Cut::LoseAll) }
    }
}

/// The data of the last batch may not have made it, and the batch with it; that of an earlier one has.
#[test]
fn data_that_is_not_whole_is_torn_in_the_last_batch_and_damaged_in_an_earlier_one() {
    for is_last in [true, false] {
        let mut rig = rig();
        put(&mut rig, write(1, 1, EXTENT_BLOCKS * 3, 1));
        assert!(matches!(rig.run(key(0), append(vec![write(1, 2, 0, STEP)])), StoreOutcome::Appended { .. }));
        if !is_last {
            let after = append(vec![record(1, 3, RecordBody::Start)]);
            assert!(matches!(rig.run(key(0), after), StoreOutcome::Appended { .. }));
        }
        let place = places(&rig, 7, 2)[0];
        rig.disk.flip_bit(place * BLOCK_BYTES as u64, 3);
        rig.restart(Cut::LoseAll);
        let Some(Ok(report)) = &rig.opened else { panic!("{:?}", rig.opened) };
        assert_eq!(report.torn_tail_cut, is_last);
        let last = rig.store.replica_state(key(0)).map(|s| s.last.lsn.0);
        assert_eq!(last, Some(if is_last { 1 } else { 3 }));
        if is_last {
            // What comes in its place is as good as ever.
            put(&mut rig, write(2, 2, 0, STEP));
            assert_eq!(joined(rig.run(key(0), read(0, STEP))), content(0, STEP, 2));
        } else {
            rig.order(key(0), StoreOrder::Commit { lsn: Lsn(3) });
            let outcome = rig.run(key(0), read(0, STEP));
            assert!(
                matches!(outcome, StoreOutcome::BadBlocks { ref blocks } if blocks[..] == [BlockIndex(7)])
            );
        }
    }
}

#[test]
fn records_that_were_cut_off_leave_no_space_taken() {
    let mut rig = rig();
    let free = free_extents(&rig);
    let bulk = append((1..=4).map(step).collect());
    assert!(matches!(rig.run(key(0), bulk), StoreOutcome::Appended { .. }));
    assert_eq!(free_extents(&rig), free - 1, "they have a shadow");
    let cut = StoreOrder::Append { cut_after: Some(Lsn(0)), records: Vec::new(), sealed: Epoch(2) };
    assert!(matches!(rig.run(key(0), cut), StoreOutcome::Appended { .. }));
    rig.idle();
    assert_eq!(free_extents(&rig), free);
    put(&mut rig, write(2, 1, 0, STEP));
    assert_eq!(joined(rig.run(key(0), read(0, STEP))), content(0, STEP, 1));
}

#[test]
fn a_disk_that_is_nearly_full_keeps_its_space_for_data() {
    let config = StoreConfig { journal_bytes: Some(64 * MIB), ..small() };
    let mut rig = Rig::format(96 * MIB, config, 1);
    rig.call(|s, now, _| s.create_replica(now, key(0)));
    let total = rig.store.usage().extents_total;
    let spare = rig.store.usage().extents_for_new_data;
    // One block in each extent, until there is none.
    for n in 0..spare {
        put(&mut rig, write(1, n + 1, n as u32 * EXTENT_BLOCKS + EXTENT_BLOCKS - 1, 1));
    }
    rig.idle();
    let free = free_extents(&rig);
    assert_eq!(free, total - spare);
    put(&mut rig, write(1, spare + 1, 0, STEP));
    assert_eq!(free_extents(&rig), free, "no shadow was taken");
    rig.idle();
    assert_eq!(joined(rig.run(key(0), read(0, STEP))), content(0, STEP, spare + 1));
}

#[test]
fn an_extent_with_two_places_keeps_new_data_waiting_and_is_no_full_disk() {
    let config = StoreConfig { journal_bytes: Some(64 * MIB), dirty_limit_bytes: 8 << 20, ..small() };
    let mut rig = Rig::format(96 * MIB, config, 1);
    rig.call(|s, now, _| s.create_replica(now, key(0)));
    put_extent(&mut rig);
    put(&mut rig, write(1, EXTENT_STEPS + 1, 0, STEP));
    let mut lsn = EXTENT_STEPS + 2;
    let one = |lsn: u64| append(vec![write(1, lsn, (lsn - EXTENT_STEPS) as u32 * EXTENT_BLOCKS, 1)]);
    let refused = loop {
        match rig.run(key(0), one(lsn)) {
            StoreOutcome::Appended { .. } => lsn += 1,
            other => break other,
        }
    };
    assert_eq!(refused, StoreOutcome::Refused(StoreRefusal::Later));
    rig.order(key(0), StoreOrder::Commit { lsn: Lsn(lsn - 1) });
    rig.idle();
    assert!(matches!(rig.run(key(0), one(lsn)), StoreOutcome::Appended { .. }), "its shadow is free");
}

/// Records 1 to `last` as the log has them.
fn log(rig: &mut Rig, last: u64) -> Vec<Record> {
    match rig.run(key(0), StoreOrder::ReadLog { after: Lsn(0), max_bytes: 64 << 20 }) {
        StoreOutcome::Log { records } if records.len() as u64 == last => records,
        other => panic!("{other:?}"),
    }
}

/// What is written over what a record points to waits until the record's data is in the journal.
#[test]
fn the_log_has_bulk_that_was_written_over_in_place() {
    let mut rig = rig();
    let mut records: Vec<Record> = (1..=EXTENT_STEPS).map(step).collect();
    put_extent(&mut rig);
    let first = places(&rig, 5, 1);
    for (lsn, block) in [(EXTENT_STEPS + 1, 5), (EXTENT_STEPS + 2, STEP + 3)] {
        records.push(write(1, lsn, block, 1));
        put(&mut rig, records[lsn as usize - 1].clone());
    }
    rig.idle();
    assert_eq!(
        places(&rig, 5, EXTENT_STEPS + 1).iter().filter(|at| first.contains(at)).count(),
        1,
        "in place"
    );
    let second = places(&rig, 5, 1);
    assert!(second.len() == 1 && second != first, "in the journal: {second:?}");
    for _ in 0..2 {
        assert_eq!(log(&mut rig, EXTENT_STEPS + 2), records);
        assert_eq!(joined(rig.run(key(0), read(5, 1))), content(5, 1, EXTENT_STEPS + 1));
        assert_eq!(joined(rig.run(key(0), read(6, 1))), content(6, 1, 1));
        rig.restart(Cut::LoseAll);
    }
    assert!(rig.events.is_empty(), "{:?}", rig.events);
}

/// A journal that is slow holds up what is to be written over, and nothing is lost by a power cut then.
#[test]
fn what_is_copied_to_the_journal_is_written_over_once_it_is_durable() {
    let mut rig = rig();
    let mut records: Vec<Record> = (1..=EXTENT_STEPS).map(step).collect();
    records.push(write(1, EXTENT_STEPS + 1, 5, 1));
    put_extent(&mut rig);
    put(&mut rig, records[EXTENT_STEPS as usize].clone());
    rig.settle();
    let first = places(&rig, 5, 1);
    let journal = 64 << 10..(64 << 10) + 16 * MIB;
    let is_copy = |order: &DiskOrder| match &order.kind {
        DiskOrderKind::Write { offset, data, .. } => {
            journal.contains(offset)
                && data.iter().map(Bytes::len).sum::<usize>() > STEP as usize * BLOCK_BYTES
        }
        _ => false,
    };
    rig.now = rig.store.next_timer().expect("there is something to write");
    rig.call(|s, now, out| s.timer(now, out));
    loop {
        rig.call(|s, now, out| s.pump(now, out));
        if rig.disk.orders().iter().any(is_copy) {
            break;
        }
        assert!(rig.step(), "records are copied to the journal");
    }
    rig.disk.faults.held = journal.clone();
    while rig.step() {}
    assert_eq!(places(&rig, 5, 1), first, "it is where the record says");
    rig.disk.faults.held = 0..0;
    rig.restart(Cut::LoseAll);
    assert_eq!(log(&mut rig, EXTENT_STEPS + 1), records);
    rig.order(key(0), StoreOrder::Commit { lsn: Lsn(EXTENT_STEPS + 1) });
    rig.idle();
    assert_eq!(joined(rig.run(key(0), read(5, 1))), content(5, 1, EXTENT_STEPS + 1));
    assert_eq!(log(&mut rig, EXTENT_STEPS + 1), records);
}

#[test]
fn bulk_that_is_damaged_and_in_the_way_leaves_the_log() {
    let mut rig = rig();
    put_extent(&mut rig);
    let place = places(&rig, 7, 1)[0];
    rig.disk.flip_bit(place * BLOCK_BYTES as u64, 3);
    put(&mut rig, write(1, EXTENT_STEPS + 1, 7, 1));
    rig.idle();
    assert_eq!(places(&rig, 7, EXTENT_STEPS + 1).iter().filter(|at| **at == place).count(), 1, "in place");
    let trim = rig.store.replica_state(key(0)).map(|s| s.trim.lsn);
    assert_eq!(trim, Some(Lsn(1)));
    assert_eq!(joined(rig.run(key(0), read(7, 1))), content(7, 1, EXTENT_STEPS + 1));
}

/// As many bytes of data as when all of it is in the journal, neither more nor less.
#[test]
fn the_log_tells_of_as_much_bulk_as_the_ring_would_hold() {
    let mut rig = rig();
    for lsn in 1..=EXTENT_STEPS * 6 {
        put(&mut rig, step(lsn));
        rig.idle();
    }
    let state = rig.store.replica_state(key(0)).expect("the copy is there");
    let told = (state.last.lsn.0 - state.trim.lsn.0) * u64::from(STEP) * BLOCK_BYTES as u64;
    // An eighth of the ring is kept at least; when that is exceeded, three quarters of it stay.
    assert!((3 * MIB / 2 - MIB / 4..=2 * MIB + MIB / 4).contains(&told), "{told}");
}

/// Two places that only records keep are given back when another needs the room.
#[test]
fn places_that_only_the_log_needs_are_no_full_disk() {
    let config = StoreConfig { journal_bytes: Some(64 * MIB), log_retain_bytes: 32 * MIB, ..small() };
    let mut rig = Rig::format(96 * MIB, config, 1);
    rig.call(|s, now, _| s.create_replica(now, key(0)));
    let mut lsn = 0;
    let mut one = |rig: &mut Rig, block: u32, count: u32| {
        let record = write(1, lsn + 1, block, count);
        let outcome = rig.run(key(0), append(vec![record]));
        if matches!(outcome, StoreOutcome::Appended { .. }) {
            lsn += 1;
            rig.order(key(0), StoreOrder::Commit { lsn: Lsn(lsn) });
        }
        outcome
    };
    // The same extent again and again: each time it moves.
    for _ in 0..6 {
        for n in 0..EXTENT_STEPS {
            one(&mut rig, n as u32 * STEP, STEP);
        }
        rig.idle();
    }
    let mut extent = 1;
    let mut waited = 0;
    let outcome = loop {
        match one(&mut rig, extent * EXTENT_BLOCKS, 1) {
            StoreOutcome::Appended { .. } => extent += 1,
            StoreOutcome::Refused(StoreRefusal::Later) if waited < 20 => {
                waited += 1;
                rig.idle();
            }
            other => break other,
        }
    };
    assert_eq!(outcome, StoreOutcome::Refused(StoreRefusal::Full));
    assert!(waited > 0, "places were kept by records");
    assert_eq!(u64::from(extent), rig.store.usage().extents_total, "all of the disk is data");
    assert!(rig.store.replica_state(key(0)).is_some_and(|s| s.trim.lsn == Lsn(0)), "and the log is whole");
}

/// Bulk that may yet be cut off is not in the way of what is older.
#[test]
fn what_is_committed_goes_in_place_whatever_is_written_over_it_meanwhile() {
    let mut rig = rig();
    put(&mut rig, write(1, 1, 5, 1));
    assert!(matches!(rig.run(key(0), append(vec![write(1, 2, 0, STEP)])), StoreOutcome::Appended { .. }));
    rig.idle();
    assert_eq!(rig.store.usage().dirty_bytes, 0);
    assert_eq!(joined(rig.run(key(0), read(5, 1))), content(5, 1, 1));
    rig.order(key(0), StoreOrder::Commit { lsn: Lsn(2) });
    rig.idle();
    assert_eq!(rig.store.usage().dirty_bytes, 0);
    assert_eq!(joined(rig.run(key(0), read(0, STEP))), content(0, STEP, 2));
}
