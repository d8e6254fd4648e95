//! Room for data that is to come: it is kept, used, given back, and refused by name.

mod common;

use common::*;
use holdfast_checksum::crc32c;
use holdfast_store::testing::{Cut, Rig};
use holdfast_store::{StoreConfig, layout};
use holdfast_types::*;

const FULL: StoreOutcome = StoreOutcome::Refused(StoreRefusal::Full);
const LATER: StoreOutcome = StoreOutcome::Refused(StoreRefusal::Later);

fn keep(extent: u32, after: u64) -> StoreOrder {
    StoreOrder::KeepRoom { extent: ExtentIndex(extent), after: Lsn(after) }
}

/// Fills the disk but for `left` extents; the log's end.
fn fill(rig: &mut Rig, left: u32) -> u64 {
    let count = rig.store.usage().extents_total as u32 - left;
    for extent in 0..count {
        put(rig, write(1, u64::from(extent) + 1, extent * EXTENT_BLOCKS, 1));
    }
    rig.idle();
    u64::from(count)
}

#[test]
fn what_is_kept_is_there_for_its_record_and_for_no_other() {
    let mut rig = rig();
    rig.call(|s, now, _| s.create_replica(now, key(1)));
    let lsn = fill(&mut rig, 1);
    assert_eq!(rig.store.usage().extents_for_new_data, 1);
    assert_eq!(rig.run(key(0), keep(100, lsn)), StoreOutcome::RoomKept { spare: 0 });
    assert_eq!(rig.store.usage().extents_for_new_data, 0);
    // Asked again it is the same room.
    assert_eq!(rig.run(key(0), keep(100, lsn)), StoreOutcome::RoomKept { spare: 0 });
    assert_eq!(rig.run(key(1), keep(0, 0)), FULL);
    assert_eq!(rig.run(key(1), append(vec![write(1, 1, 0, 1)])), FULL);
    put(&mut rig, write(1, lsn + 1, 100 * EXTENT_BLOCKS, 1));
    rig.idle();
    assert_eq!(rig.store.usage().extents_free, 0);
    // What is in place needs no room.
    assert_eq!(rig.run(key(0), keep(100, lsn + 1)), StoreOutcome::RoomKept { spare: 0 });
    assert_eq!(rig.run(key(0), keep(101, lsn + 1)), FULL);
}

#[test]
fn what_is_not_used_is_given_back() {
    let mut rig = rig();
    rig.call(|s, now, _| s.create_replica(now, key(1)));
    let lsn = fill(&mut rig, 1);
    assert_eq!(rig.run(key(0), keep(100, lsn)), StoreOutcome::RoomKept { spare: 0 });
    rig.now += Duration::from_secs(9);
    assert_eq!(rig.run(key(1), keep(0, 0)), FULL);
    rig.now += Duration::from_secs(2);
    assert_eq!(rig.run(key(1), keep(0, 0)), StoreOutcome::RoomKept { spare: 0 });
    // A copy's end gives back what is kept for it.
    rig.call(|s, now, out| s.drop_replica(now, key(1), out));
    rig.settle();
    assert_eq!(rig.store.usage().extents_for_new_data, 1);
}

#[test]
fn an_older_record_does_not_use_up_what_is_kept_for_a_newer_one() {
    let mut rig = rig();
    rig.call(|s, now, _| s.create_replica(now, key(1)));
    let lsn = fill(&mut rig, 1);
    // The owner has ordered a write, a discard, and asks for room to write again; this copy has none of them yet.
    assert_eq!(rig.run(key(0), keep(100, lsn + 2)), StoreOutcome::RoomKept { spare: 0 });
    put(&mut rig, write(1, lsn + 1, 100 * EXTENT_BLOCKS, 1));
    put(&mut rig, zero(1, lsn + 2, 100 * EXTENT_BLOCKS, EXTENT_BLOCKS));
    rig.idle();
    assert_eq!(rig.run(key(1), append(vec![write(1, 1, 0, 1)])), FULL);
    put(&mut rig, write(1, lsn + 3, 100 * EXTENT_BLOCKS, 1));
    rig.idle();
    assert_eq!(rig.store.usage().extents_free, 0);
}

#[test]
fn an_extent_emptied_while_room_was_kept_in_it_becomes_free_when_that_ends() {
    let mut rig = rig();
    let lsn = fill(&mut rig, 0);
    assert_eq!(rig.run(key(0), keep(0, lsn)), StoreOutcome::RoomKept { spare: 0 });
    put(&mut rig, zero(1, lsn + 1, 0, EXTENT_BLOCKS));
    rig.idle();
    assert_eq!(rig.run(key(0), keep(100, lsn + 1)), FULL);
    rig.now += Duration::from_secs(11);
    rig.settle();
    rig.idle();
    assert_eq!(rig.store.usage().extents_free, 1);
}

#[test]
fn room_that_is_about_to_be_given_back_is_said_to_come() {
    let mut rig = rig();
    let lsn = fill(&mut rig, 0);
    assert_eq!(rig.run(key(0), keep(100, lsn)), FULL);
    // Not committed yet, as at a copy that hears of the commit a moment later.
    rig.run(key(0), append(vec![zero(1, lsn + 1, 0, EXTENT_BLOCKS)]));
    assert_eq!(rig.run(key(0), keep(100, lsn + 1)), LATER);
    rig.order(key(0), StoreOrder::Commit { lsn: Lsn(lsn + 1) });
    assert_eq!(rig.run(key(0), keep(100, lsn + 1)), LATER);
    // Being asked for is a reason to write back: no timer is needed.
    rig.settle();
    assert_eq!(rig.run(key(0), keep(100, lsn + 1)), StoreOutcome::RoomKept { spare: 0 });
}

#[test]
fn a_copy_is_said_to_be_gone_when_no_crash_brings_it_back() {
    let mut rig = rig();
    put(&mut rig, write(1, 1, 0, 1));
    let drop_it = |rig: &mut Rig| rig.call(|s, now, out| s.drop_replica(now, key(0), out));
    drop_it(&mut rig);
    drop_it(&mut rig);
    assert_eq!(rig.dropped, [], "it is not on the disk yet");
    rig.restart(Cut::LoseAll);
    assert_eq!(rig.store.segments(), [key(0)]);
    assert_eq!(rig.dropped, []);
    drop_it(&mut rig);
    rig.settle();
    assert_eq!(rig.dropped, [key(0)]);
    rig.restart(Cut::LoseAll);
    assert_eq!(rig.store.segments(), []);
    // Who missed that asks again.
    drop_it(&mut rig);
    assert_eq!(rig.dropped, [key(0), key(0)]);
}

#[test]
fn a_log_that_begins_anew_while_it_is_written_back_takes_nobodys_place() {
    let mut rig = rig();
    for lsn in 1..=4 {
        put(&mut rig, write(1, lsn, (lsn as u32 - 1) * EXTENT_BLOCKS, 1));
    }
    rig.now = rig.store.next_timer().expect("there is something to write back");
    rig.call(|s, now, out| s.timer(now, out));
    // The round has begun and has no place for its four extents yet.
    let base = LogPosition::new(Epoch(1), Lsn(4));
    rig.order(key(0), StoreOrder::Reset { base, sealed: Epoch(2) });
    rig.call(|s, now, _| s.create_replica(now, key(1)));
    let all = rig.store.usage().extents_free as u32;
    let records: Vec<Record> = (0..all).map(|n| write(1, u64::from(n) + 1, n * EXTENT_BLOCKS, 1)).collect();
    rig.order(key(1), append(records));
    rig.settle();
    rig.order(key(1), StoreOrder::Commit { lsn: Lsn(u64::from(all)) });
    rig.idle();
    assert_eq!(rig.events, [], "the disk serves on");
    for n in 0..all {
        let block = n * EXTENT_BLOCKS;
        assert_eq!(joined(rig.run(key(1), read(block, 1))), content(block, 1, u64::from(n) + 1));
    }
}

/// A block with data, as an image brings it.
fn image_block(block: u32, lsn: u64) -> ImageBlock {
    let data = content(block, 1, lsn);
    ImageBlock { block: BlockIndex(block), lsn: Lsn(lsn), crc: crc32c(&data), data: Some(data) }
}

#[test]
fn a_discarded_write_that_the_log_still_tells_of_after_a_restart_is_no_claim_to_build_on() {
    let mut rig = rig();
    rig.call(|s, now, _| s.create_replica(now, key(1)));
    let lsn = fill(&mut rig, 1);
    let block = 100 * EXTENT_BLOCKS;
    put(&mut rig, write(1, lsn + 1, block, 1));
    rig.idle();
    put(&mut rig, zero(1, lsn + 2, block, EXTENT_BLOCKS));
    rig.idle();
    // Its place goes to another copy.
    assert!(matches!(rig.run(key(1), append(vec![write(1, 1, 0, 1)])), StoreOutcome::Appended { .. }));
    rig.order(key(1), StoreOrder::Commit { lsn: Lsn(1) });
    rig.idle();
    let image = StoreOrder::InstallImage { blocks: vec![image_block(block, lsn + 1)] };
    for wants in [keep(100, lsn + 2), append(vec![write(1, lsn + 3, block, 1)]), image] {
        rig.restart(Cut::LoseAll);
        assert_eq!(rig.run(key(0), wants.clone()), LATER, "{wants:?}");
        // What needs no place goes on.
        assert_eq!(joined(rig.run(key(0), read(0, 1))), content(0, 1, 1));
        assert_eq!(rig.run(key(0), wants.clone()), FULL, "written back, the log claims nothing: {wants:?}");
    }
    put(&mut rig, zero(1, lsn + 3, 0, EXTENT_BLOCKS));
    put(&mut rig, write(1, lsn + 4, EXTENT_BLOCKS, 1));
    rig.idle();
    put(&mut rig, write(1, lsn + 5, block, 1));
    rig.idle();
    rig.restart(Cut::LoseAll);
    assert_eq!(joined(rig.run(key(0), read(block, 1))), content(block, 1, lsn + 5));
    assert_eq!(joined(rig.run(key(1), read(0, 1))), content(0, 1, 1));
}

#[test]
fn room_that_was_promised_and_is_discarded_before_it_is_taken_is_said_to_come() {
    let mut rig = rig();
    let lsn = fill(&mut rig, 1);
    put(&mut rig, write(1, lsn + 1, 100 * EXTENT_BLOCKS, 1));
    put(&mut rig, zero(1, lsn + 2, 100 * EXTENT_BLOCKS, EXTENT_BLOCKS));
    assert_eq!(rig.run(key(0), keep(101, lsn + 2)), LATER);
    assert_eq!(rig.run(key(0), keep(101, lsn + 2)), StoreOutcome::RoomKept { spare: 0 });
}

#[test]
fn an_image_that_a_round_leaves_out_is_not_installed_before_it_is_in_place() {
    let mut rig = rig();
    let base = LogPosition::new(Epoch(1), Lsn(1));
    rig.run(key(0), StoreOrder::Reset { base, sealed: Epoch(1) });
    // Extents that hold nothing any more keep their pages, until there are fewer left than a round will want.
    let all = rig.store.usage().extents_total as u32;
    let pages = u64::from(layout(48 * MIB, &small()).expect("it was formatted so").pages());
    let (mut lsn, mut extent) = (1, 0);
    while rig.store.usage().pages_used + u64::from(all) <= pages {
        for e in extent..extent + all {
            lsn += 1;
            put(&mut rig, write(1, lsn, e * EXTENT_BLOCKS, 1));
        }
        rig.idle();
        for e in extent..extent + all {
            lsn += 1;
            put(&mut rig, zero(1, lsn, e * EXTENT_BLOCKS, EXTENT_BLOCKS));
        }
        rig.idle();
        extent += all;
    }
    let images = extent..extent + all;
    let orders: Vec<u64> = images
        .clone()
        .map(|e| {
            let blocks = vec![image_block(e * EXTENT_BLOCKS, 1)];
            rig.order(key(0), StoreOrder::InstallImage { blocks })
        })
        .collect();
    // The power fails when the first round has answered.
    while !orders.iter().any(|o| rig.outcomes.contains_key(o)) {
        if !rig.step() {
            rig.idle();
        }
    }
    let installed: Vec<u32> = images
        .zip(&orders)
        .filter(|(_, o)| rig.outcomes.get(o) == Some(&StoreOutcome::Installed))
        .map(|(e, _)| e)
        .collect();
    assert!(installed.len() < all as usize, "the round had pages for all of them");
    rig.restart(Cut::LoseAll);
    // Of an incomplete copy nothing is read for initiators.
    let complete = StoreOrder::Complete { repeats: RepeatState::default() };
    assert_eq!(rig.run(key(0), complete), StoreOutcome::Completed);
    for e in installed {
        assert_eq!(joined(rig.run(key(0), read(e * EXTENT_BLOCKS, 1))), content(e * EXTENT_BLOCKS, 1, 1));
    }
}

#[test]
fn an_incomplete_copy_whose_discards_hold_all_pages_goes_on() {
    let mut rig = rig();
    let base = LogPosition::new(Epoch(1), Lsn(1));
    rig.run(key(0), StoreOrder::Reset { base, sealed: Epoch(1) });
    let all = rig.store.usage().extents_total as u32;
    let mut lsn = 1;
    for extent in (0..8).map(|n| n * all) {
        for e in extent..extent + all {
            lsn += 1;
            put(&mut rig, write(1, lsn, e * EXTENT_BLOCKS, 1));
        }
        rig.idle();
        for e in extent..extent + all {
            lsn += 1;
            put(&mut rig, zero(1, lsn, e * EXTENT_BLOCKS, EXTENT_BLOCKS));
        }
        rig.idle();
    }
    let blocks = vec![image_block(9 * all * EXTENT_BLOCKS, 1)];
    let order = rig.order(key(0), StoreOrder::InstallImage { blocks });
    rig.idle();
    assert_eq!(rig.outcomes.get(&order), Some(&StoreOutcome::Installed));
    assert_eq!(rig.store.usage().dirty_bytes, 0);
}

#[test]
fn copies_that_hold_nothing_agree_whatever_they_know_of_the_discard() {
    let mut rig = rig();
    rig.call(|s, now, _| s.create_replica(now, key(1)));
    // One copy learns, so that it notes a discard of what it does not have; the other knows that nothing was there.
    let base = LogPosition::new(Epoch(1), Lsn(1));
    rig.run(key(1), StoreOrder::Reset { base, sealed: Epoch(1) });
    put(&mut rig, record(1, 1, RecordBody::Start));
    put(&mut rig, zero(1, 2, 0, 1));
    rig.run(key(1), append(vec![zero(1, 2, 0, 1)]));
    rig.order(key(1), StoreOrder::Commit { lsn: Lsn(2) });
    rig.idle();
    let digest = |rig: &mut Rig, n| match rig.run(key(n), StoreOrder::Digest { extent: ExtentIndex(0) }) {
        StoreOutcome::Digest { blocks, .. } => blocks.first().copied(),
        other => panic!("no digest: {other:?}"),
    };
    let nothing = BlockDigest { block: BlockIndex(0), lsn: Lsn(0), content: BlockContent::Absent };
    assert_eq!(digest(&mut rig, 0), None);
    let noted = digest(&mut rig, 1).expect("the discard is noted");
    assert!(noted != nothing && noted.agrees(&nothing), "{noted:?}");
    let data = BlockDigest { content: BlockContent::Good(1), ..noted };
    assert!(!data.agrees(&noted) && !data.agrees(&BlockDigest { lsn: Lsn(1), ..data }));
}

#[test]
fn a_writer_that_outruns_the_disk_does_not_fill_the_memory() {
    let block = |lsn: u64| (lsn as u32 * 16) % (16 * EXTENT_BLOCKS);
    // The others' quorum commits a record before the journal of this copy has it, or after.
    for early in [true, false] {
        let mut rig = rig();
        let mut highest = 0;
        for round in 0..48 {
            // Half a MiB at a time: one write to the journal, and eight in place.
            let records = (1..=8).map(|n| round * 8 + n).map(|n| write(1, n, block(n), 16)).collect();
            let appended = rig.order(key(0), append(records));
            if early {
                rig.order(key(0), StoreOrder::Commit { lsn: Lsn(round * 8 + 8) });
            }
            while !rig.outcomes.contains_key(&appended) {
                assert!(rig.step(), "{:?}", rig.store.usage());
            }
            rig.order(key(0), StoreOrder::Commit { lsn: Lsn(round * 8 + 8) });
            highest = highest.max(rig.store.usage().dirty_bytes);
        }
        let limit = rig.config.log_memory_bytes as u64;
        assert!(highest > limit / 2 && highest <= limit, "{highest} bytes of content in memory");
        // What is only in the journal is read from there, now, when it is in place and after a power cut.
        for step in 0..3 {
            for lsn in 129..=384 {
                assert_eq!(joined(rig.run(key(0), read(block(lsn), 16))), content(block(lsn), 16, lsn));
            }
            if step == 0 { rig.idle() } else { rig.restart(Cut::LoseAll) }
        }
    }
}

#[test]
fn no_extent_waits_for_others_that_are_written_all_the_time() {
    let config = StoreConfig { journal_bytes: Some(64 * MIB), direct_from_blocks: u32::MAX, ..small() };
    let mut rig = Rig::format(128 * MIB, config, 1);
    rig.call(|s, now, _| s.create_replica(now, key(0)));
    // More of thirty extents than a round takes is waiting whenever one begins.
    for round in 0.. {
        let write = |lsn| write(1, lsn, lsn as u32 % 30 * EXTENT_BLOCKS, EXTENT_BLOCKS);
        let lsn = 1 + round * 4;
        let appended = rig.order(key(0), append((lsn..lsn + 4).map(write).collect()));
        while !rig.outcomes.contains_key(&appended) {
            assert!(rig.step(), "{:?}", rig.store.usage());
        }
        rig.order(key(0), StoreOrder::Commit { lsn: Lsn(lsn + 3) });
        let usage = rig.store.usage();
        if usage.extents_total - usage.extents_free == 30 {
            break;
        }
        assert!(round < 20, "it waits: {usage:?}");
    }
}
