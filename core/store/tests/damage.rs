//! What a store does with bits that flipped and blocks that cannot be read: found, told, healed, and never taken for content.

mod common;

use common::*;
use holdfast_store::testing::{Cut, Rig};
use holdfast_store::{DiskActivity, OpenError, StoreEvent};
use holdfast_types::*;

/// The place of the only extent's block `n`.
fn place(rig: &Rig, n: u64) -> u64 {
    let layout = holdfast_store::layout(rig.disk.size(), &small()).expect("it was formatted");
    layout.extents.start + n * BLOCK_BYTES as u64
}

#[test]
fn a_flipped_bit_is_found_told_and_healed() {
    let mut rig = rig();
    put(&mut rig, write(1, 1, 0, 8));
    rig.idle();
    let at = place(&rig, 3);
    rig.disk.flip_bit(at + 77, 2);
    let bad = StoreOutcome::BadBlocks { blocks: vec![BlockIndex(3)] };
    assert_eq!(rig.run(key(0), read(0, 8)), bad);
    assert_eq!(rig.run(key(0), StoreOrder::ReadImage { extent: ExtentIndex(0), since: Lsn(0) }), bad);
    let StoreOutcome::Digest { blocks, .. } = rig.run(key(0), StoreOrder::Digest { extent: ExtentIndex(0) })
    else {
        panic!("no digest")
    };
    assert_eq!(blocks.len(), 8);
    assert!(
        matches!(blocks[3].content, BlockContent::Bad(_))
            && matches!(blocks[2].content, BlockContent::Good(_))
    );
    let data = content(3, 1, 1);
    let crc = holdfast_checksum::crc32c(&data);
    let block = ImageBlock { block: BlockIndex(3), lsn: Lsn(1), crc, data: Some(data) };
    let older = ImageBlock { lsn: Lsn(7), ..block.clone() };
    assert_eq!(rig.run(key(0), StoreOrder::Heal { block: older }), StoreOutcome::Healed { replaced: false });
    assert_eq!(rig.run(key(0), StoreOrder::Heal { block }), StoreOutcome::Healed { replaced: true });
    rig.restart(Cut::LoseAll);
    assert_eq!(joined(rig.run(key(0), read(0, 8))), content(0, 8, 1));
}

#[test]
fn damage_in_the_journal_is_of_a_block_and_not_of_the_disk() {
    for unreadable in [false, true] {
        let mut rig = rig();
        put(&mut rig, write(1, 1, 0, 4));
        put(&mut rig, write(1, 2, 300, 1));
        // After a restart the journal alone has what was not in place.
        rig.restart(Cut::LoseAll);
        rig.order(key(0), StoreOrder::Commit { lsn: Lsn(2) });
        let places = places_of(&rig, &content(2, 1, 1));
        let [in_journal] = places[..] else { panic!("in the journal and nowhere else: {places:?}") };
        if unreadable {
            rig.disk.faults.reads.insert(in_journal);
        } else {
            rig.disk.flip_bit(in_journal * BLOCK_BYTES as u64 + 9, 3);
        }
        rig.idle();
        assert_eq!(rig.events, [StoreEvent::DamagedContent { segment: key(0), block: BlockIndex(2) }]);
        let data = content(2, 1, 1);
        for restarted in [false, true] {
            assert_eq!(rig.run(key(0), read(0, 4)), StoreOutcome::BadBlocks { blocks: vec![BlockIndex(2)] });
            assert_eq!(joined(rig.run(key(0), read(300, 1))), content(300, 1, 2));
            if !restarted {
                rig.restart(Cut::LoseAll);
                rig.idle();
            }
        }
        let block = ImageBlock {
            block: BlockIndex(2),
            lsn: Lsn(1),
            crc: holdfast_checksum::crc32c(&data),
            data: Some(data),
        };
        assert_eq!(rig.run(key(0), StoreOrder::Heal { block }), StoreOutcome::Healed { replaced: true });
        assert_eq!(joined(rig.run(key(0), read(0, 4))), content(0, 4, 1));
    }
}

/// It may be the device and not the medium: what the journal has is worth more than what would be put in place.
#[test]
fn a_journal_of_which_much_cannot_be_read_is_the_end_of_its_disk() {
    let mut rig = rig();
    (1..=20).for_each(|lsn| put(&mut rig, write(1, lsn, lsn as u32, 1)));
    rig.restart(Cut::LoseAll);
    let places: Vec<u64> = (1..=20).flat_map(|n| places_of(&rig, &content(n as u32, 1, n))).collect();
    assert_eq!(places.len(), 20);
    rig.disk.faults.reads.extend(&places);
    rig.order(key(0), StoreOrder::Commit { lsn: Lsn(20) });
    rig.idle();
    let failed =
        |e: &StoreEvent| matches!(e, StoreEvent::DiskFailed { activity: DiskActivity::ReadBack, .. });
    assert!(rig.events.iter().any(failed), "{:?}", rig.events);
    // Nothing of it is lost.
    rig.disk.faults.reads.clear();
    rig.restart(Cut::LoseAll);
    rig.order(key(0), StoreOrder::Commit { lsn: Lsn(20) });
    for n in 1..=20 {
        assert_eq!(joined(rig.run(key(0), read(n as u32, 1))), content(n as u32, 1, n));
    }
}

/// The slots of the only page number in use, as blocks of the disk, the newer one first.
fn slots(rig: &Rig) -> [u64; 2] {
    let blocks = rig.disk.size() / BLOCK_BYTES as u64;
    let sequence = |n: &u64| u64::from_le_bytes(rig.disk.peek(*n)[24..32].try_into().expect("eight bytes"));
    let mut slots: Vec<u64> = (0..blocks).filter(|n| rig.disk.peek(*n).starts_with(b"HFEXTENT")).collect();
    slots.sort_by_key(|n| std::cmp::Reverse(sequence(n)));
    slots.try_into().expect("one page was written")
}

/// Flips a bit of a page's table, or of what says whose it is.
fn damage(rig: &mut Rig, slot: u64, at: u64) {
    rig.disk.flip_bit(slot * BLOCK_BYTES as u64 + at, 4);
}

#[test]
fn a_damaged_page_makes_its_copy_incomplete_and_never_an_extent_of_zeros_or_of_old_blocks() {
    // The second time there is an older page, which knows block 0 only and an old checksum of it. The third time the newer one
    // does not even say whose it is, the fourth time it cannot be read.
    for (rounds, at) in [(1, Some(1500)), (2, Some(1500)), (2, Some(50)), (2, None)] {
        let mut rig = rig();
        for lsn in 1..=rounds {
            put(&mut rig, write(1, lsn, 0, lsn as u32));
            rig.idle();
        }
        // A batch after the round says that its pages were durable.
        put(&mut rig, write(1, rounds + 1, 0, 1));
        let [newer, older] = slots(&rig);
        match at {
            Some(at) => damage(&mut rig, newer, at),
            None => drop(rig.disk.faults.reads.insert(newer)),
        }
        if rounds == 1 {
            // Both slots have it, and the other one serves.
            rig.restart(Cut::LoseAll);
            assert_eq!(rig.store.replica_state(key(0)).map(|s| s.incomplete_since), Some(None));
            assert!(rig.events.is_empty(), "{:?}", rig.events);
            damage(&mut rig, older, 1500);
        }
        for n in 0..3 {
            rig.restart(Cut::LoseAll);
            let state = rig.store.replica_state(key(0)).expect("the copy is there");
            assert_eq!(state.incomplete_since, Some(Lsn(0)), "round {rounds}, start {n}");
            let found = matches!(
                rig.events[..],
                [StoreEvent::PageDamaged { segment, extent: ExtentIndex(0), .. }] if segment == key(0)
            );
            assert_eq!(found, n == 0, "{:?}", rig.events);
            let unreadable: Vec<u64> = Vec::from_iter((at.is_none() && n == 0).then_some(newer));
            let report = rig.opened.clone().expect("it came to an end").expect("it opened");
            assert_eq!(
                report.unreadable,
                unreadable.iter().map(|n| n * BLOCK_BYTES as u64).collect::<Vec<_>>()
            );
            rig.events.clear();
            // It can be written; then it can be read again.
            rig.disk.faults.reads.clear();
            // What is in the log goes in place, perhaps over the damaged page; the copy stays what it is.
            rig.order(key(0), StoreOrder::Commit { lsn: state.last.lsn });
            rig.idle();
            assert_eq!(rig.run(key(0), read(0, 1)), StoreOutcome::Refused(StoreRefusal::Incomplete));
        }
        // The owner sends the extent, and says so.
        let base = LogPosition::new(Epoch(1), Lsn(rounds + 1));
        let reset = StoreOrder::Reset { base, sealed: Epoch(1) };
        assert_eq!(rig.run(key(0), reset), StoreOutcome::Reset { since: Lsn(0) });
        let image = |block: u32| {
            let (lsn, data) = (Lsn(rounds), content(block, 1, rounds));
            ImageBlock {
                block: BlockIndex(block),
                lsn,
                crc: holdfast_checksum::crc32c(&data),
                data: Some(data),
            }
        };
        let blocks: Vec<ImageBlock> = (1..rounds as u32).map(image).collect();
        rig.run(key(0), StoreOrder::InstallImage { blocks });
        assert_eq!(
            rig.run(key(0), StoreOrder::Complete { repeats: Default::default() }),
            StoreOutcome::Completed
        );
        rig.idle();
        rig.restart(Cut::LoseAll);
        assert_eq!(rig.store.replica_state(key(0)).map(|s| s.incomplete_since), Some(None));
        assert_eq!(joined(rig.run(key(0), read(0, 1))), content(0, 1, rounds + 1));
        assert_eq!(
            joined(rig.run(key(0), read(1, rounds as u32 - 1))),
            content(1, rounds as u32 - 1, rounds)
        );
        assert!(rig.events.is_empty(), "{:?}", rig.events);
    }
}

#[test]
fn a_block_that_is_damaged_in_the_journal_is_healed_before_it_is_in_place() {
    let mut rig = rig();
    put(&mut rig, write(1, 1, 0, 4));
    rig.restart(Cut::LoseAll);
    rig.order(key(0), StoreOrder::Commit { lsn: Lsn(1) });
    let data = content(2, 1, 1);
    let places = places_of(&rig, &data);
    let [in_journal] = places[..] else { panic!("in the journal and nowhere else: {places:?}") };
    rig.disk.flip_bit(in_journal * BLOCK_BYTES as u64 + 9, 3);
    assert_eq!(rig.run(key(0), read(0, 4)), StoreOutcome::BadBlocks { blocks: vec![BlockIndex(2)] });
    let crc = holdfast_checksum::crc32c(&data);
    let block = ImageBlock { block: BlockIndex(2), lsn: Lsn(1), crc, data: Some(data) };
    assert_eq!(rig.run(key(0), StoreOrder::Heal { block }), StoreOutcome::Healed { replaced: true });
    assert_eq!(joined(rig.run(key(0), read(0, 4))), content(0, 4, 1));
    rig.idle();
    assert_eq!(joined(rig.run(key(0), read(0, 4))), content(0, 4, 1));
    assert!(rig.events.is_empty(), "{:?}", rig.events);
}

#[test]
fn a_page_that_is_found_damaged_later_costs_its_copy_and_not_the_disk() {
    // Found by a read, by a round of writing back, and by either where the device cannot read it at all.
    for (by_read, unreadable) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut rig = rig();
        rig.call(|s, now, _| s.create_replica(now, key(1)));
        put(&mut rig, write(1, 1, 0, 4));
        rig.idle();
        // No page is in memory then.
        rig.restart(Cut::LoseAll);
        for slot in slots(&rig) {
            if unreadable {
                rig.disk.faults.reads.insert(slot);
            } else {
                damage(&mut rig, slot, 1500);
            }
        }
        if by_read {
            assert_eq!(rig.run(key(0), read(0, 4)), StoreOutcome::Refused(StoreRefusal::Incomplete));
        }
        put(&mut rig, write(1, 2, 1, 1));
        rig.idle();
        rig.disk.faults.reads.clear();
        let lost =
            |e: &StoreEvent| matches!(e, StoreEvent::PageDamaged { segment, .. } if *segment == key(0));
        assert!(!rig.events.is_empty() && rig.events.iter().all(lost), "{:?}", rig.events);
        rig.events.clear();
        for n in 0..2 {
            assert_eq!(
                rig.run(key(0), read(0, 4)),
                StoreOutcome::Refused(StoreRefusal::Incomplete),
                "start {n}"
            );
            let digest = rig.run(key(0), StoreOrder::Digest { extent: ExtentIndex(0) });
            let StoreOutcome::Digest { blocks, .. } = digest else { panic!("{digest:?}") };
            // What the log has is there.
            let has = |b: &BlockDigest| matches!(b.content, BlockContent::Good(_));
            assert!(blocks.iter().all(has) && blocks.iter().any(|b| b.lsn == Lsn(2)), "{blocks:?}");
            rig.restart(Cut::LoseAll);
            let state = rig.store.replica_state(key(0)).expect("the copy is there");
            assert_eq!(state.incomplete_since, Some(Lsn(0)));
        }
        assert!(rig.events.is_empty(), "it was mended on the disk: {:?}", rig.events);
        assert_eq!(
            rig.run(key(0), append(vec![write(1, 3, 0, 1)])),
            StoreOutcome::Appended { last: LogPosition::new(Epoch(1), Lsn(3)) }
        );
    }
}

/// Of which extent's page it is, if of any, nothing tells. On a disk with pages in both slots it was in no use, as the other one
/// is blank; on one of an earlier formatting it may be the only one that was written.
#[test]
fn an_unreadable_slot_beside_a_blank_one_costs_nothing_unless_the_disk_is_of_an_earlier_formatting() {
    for version in [4, 3] {
        let mut rig = rig();
        put(&mut rig, write(1, 1, 0, 4));
        rig.idle();
        let unused = slots(&rig).into_iter().max().expect("there are two") + 1;
        [0, 1].into_iter().for_each(|n| as_version(&mut rig, n, version));
        rig.disk.faults.reads.insert(unused);
        rig.restart(Cut::KeepAll);
        let opened = rig.opened.clone().expect("it came to an end");
        if version == 3 {
            assert_eq!(opened, Err(OpenError::Io(DiskFault::Io(61))));
            continue;
        }
        let unreadable = opened.map(|report| report.unreadable);
        assert_eq!(unreadable, Ok(vec![unused * BLOCK_BYTES as u64]));
        assert_eq!(joined(rig.run(key(0), read(0, 4))), content(0, 4, 1));
        assert!(rig.events.is_empty(), "{:?}", rig.events);
    }
}

#[test]
fn more_slots_than_a_few_that_cannot_be_read_refuse_the_disk() {
    for (count, opens) in [(16, true), (17, false)] {
        let mut rig = rig();
        put(&mut rig, write(1, 1, 0, 4));
        rig.idle();
        let first = slots(&rig).into_iter().max().expect("there are two") + 1;
        rig.disk.faults.reads.extend((0..count).map(|n| first + 2 * n));
        rig.restart(Cut::KeepAll);
        assert_eq!(matches!(rig.opened, Some(Ok(_))), opens, "{:?}", rig.opened);
    }
}

#[test]
fn an_unreadable_block_is_a_bad_block() {
    let mut rig = rig();
    put(&mut rig, write(1, 1, 0, 4));
    rig.idle();
    let at = place(&rig, 2) / BLOCK_BYTES as u64;
    rig.disk.faults.reads.insert(at);
    let StoreOutcome::BadBlocks { blocks } = rig.run(key(0), read(0, 4)) else { panic!("nothing bad") };
    assert!(blocks.contains(&BlockIndex(2)));
    assert_eq!(joined(rig.run(key(0), read(0, 2))), content(0, 2, 1));
}

#[test]
fn a_torn_tail_is_cut_and_damage_in_the_middle_is_refused() {
    let mut rig = rig();
    for lsn in 1..=5 {
        put(&mut rig, write(1, lsn, 0, 1));
    }
    let ring = holdfast_store::layout(48 * MIB, &small()).expect("it was formatted").journal;
    // Batches of the format, the segment's state with the first record, then four of two blocks.
    let third = ring.start + 4096 + 2 * 8192;
    rig.disk.flip_bit(third + 100, 0);
    rig.restart(Cut::LoseAll);
    assert_eq!(rig.opened, Some(Err(OpenError::JournalCorrupt { sequence: 4, offset: third })));
    rig.disk.flip_bit(third + 100, 0);
    let last = ring.start + 4096 + 4 * 8192;
    rig.disk.flip_bit(last + 4096 + 5, 0);
    rig.reopen();
    let report = rig.opened.clone().expect("it came to an end").expect("it opened");
    assert!(report.torn_tail_cut);
    assert_eq!(rig.store.replica_state(key(0)).map(|s| s.last.lsn), Some(Lsn(4)));
}

#[test]
fn damage_to_the_data_of_a_record_is_refused_unless_it_is_known_to_be_committed() {
    for committed in [true, false] {
        let mut rig = rig();
        for lsn in 1..=4 {
            assert!(matches!(
                rig.run(key(0), append(vec![write(1, lsn, 0, 1)])),
                StoreOutcome::Appended { .. }
            ));
            let known = if committed { Lsn(lsn) } else { Lsn(lsn.min(2)) };
            rig.order(key(0), StoreOrder::Commit { lsn: known });
        }
        let ring = holdfast_store::layout(48 * MIB, &small()).expect("it was formatted").journal;
        let third = ring.start + 4096 + 2 * 8192;
        rig.disk.flip_bit(third + 4096 + 5, 0);
        rig.restart(Cut::LoseAll);
        if !committed {
            // It may have been acknowledged because of this copy.
            assert_eq!(rig.opened, Some(Err(OpenError::JournalCorrupt { sequence: 4, offset: third })));
            continue;
        }
        let report = rig.opened.clone().expect("it came to an end").expect("it opened");
        assert_eq!((report.records_replayed, report.torn_tail_cut), (4, false));
        let log = rig.run(key(0), StoreOrder::ReadLog { after: Lsn(0), max_bytes: 1 << 20 });
        assert_eq!(log, StoreOutcome::Log { records: (1..=2).map(|l| write(1, l, 0, 1)).collect() });
        rig.order(key(0), StoreOrder::Commit { lsn: Lsn(3) });
        assert_eq!(rig.run(key(0), read(0, 1)), StoreOutcome::BadBlocks { blocks: vec![BlockIndex(0)] });
        rig.order(key(0), StoreOrder::Commit { lsn: Lsn(4) });
        assert_eq!(joined(rig.run(key(0), read(0, 1))), content(0, 1, 4));
    }
}

/// What the power tore may be unreadable afterwards, and so may what the medium lost: a disk is not refused for less than a bit
/// that flipped there would cost.
#[test]
fn a_block_that_cannot_be_read_while_a_disk_is_opened_is_a_damaged_block() {
    let block = BLOCK_BYTES as u64;
    let start = holdfast_store::layout(48 * MIB, &small()).expect("it was formatted").journal.start / block;
    // Batches of the format, the segment's state with the first record, then three of two blocks.
    let (third, last) = (start + 1 + 4, start + 1 + 6);
    let lost = OpenError::Io(DiskFault::Io(61));
    let corrupt = OpenError::JournalCorrupt { sequence: 4, offset: third * block };
    let cases: [(&str, &[u64], Result<u64, OpenError>); 10] = [
        ("a superblock", &[0], Ok(4)),
        ("the other one", &[1], Ok(4)),
        ("both superblocks", &[0, 1], Err(lost)),
        ("the header of the last batch", &[last], Ok(3)),
        ("its data", &[last + 1], Ok(3)),
        ("what a next batch was torn to", &[last + 2], Ok(4)),
        ("what two next batches may be in", &[last + 2, last + 3], Err(lost)),
        ("a place behind the log's end", &[last + 500], Ok(4)),
        ("the header of a batch before the last", &[third], Err(corrupt)),
        ("the data of a record that is committed", &[third + 1], Ok(4)),
    ];
    for (what, unreadable, expected) in cases {
        let mut rig = rig();
        for lsn in 1..=4 {
            assert!(matches!(
                rig.run(key(0), append(vec![write(1, lsn, lsn as u32, 1)])),
                StoreOutcome::Appended { .. }
            ));
            rig.order(key(0), StoreOrder::Commit { lsn: Lsn(lsn) });
        }
        rig.disk.faults.reads.extend(unreadable);
        rig.restart(Cut::LoseAll);
        let expected = match (rig.opened.clone().expect("it came to an end"), expected) {
            (opened, Err(error)) => {
                assert_eq!(opened, Err(error), "{what}");
                continue;
            }
            (opened, Ok(last)) => {
                let found = opened.map(|report| report.unreadable);
                assert_eq!(found, Ok(vec![unreadable[0] * block]), "{what}");
                last
            }
        };
        assert_eq!(rig.store.replica_state(key(0)).map(|s| s.last.lsn), Some(Lsn(expected)), "{what}");
        rig.order(key(0), StoreOrder::Commit { lsn: Lsn(expected) });
        for lsn in 1..=expected {
            let holds = match lsn {
                3 if unreadable == [third + 1] => StoreOutcome::BadBlocks { blocks: vec![BlockIndex(3)] },
                _ => StoreOutcome::Read { data: vec![content(lsn as u32, 1, lsn)] },
            };
            assert!(rig.run(key(0), read(lsn as u32, 1)) == holds, "{what}: block {lsn}");
        }
    }
}
