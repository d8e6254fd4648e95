//! What a store promises, one promise a test.

mod common;

use common::*;
use holdfast_store::layout::GROWTH_MIN_BYTES;
use holdfast_store::testing::{Cut, RIG_DISK};
use holdfast_store::{
    DiskActivity, DiskExpected, OpenError, SILENT_AFTER, Store, StoreConfig, StoreEvent, StoreOutput, Usage,
};
use holdfast_types::*;

#[test]
fn what_was_committed_is_read_before_and_after_it_is_in_place() {
    let mut rig = rig();
    put(&mut rig, write(1, 1, 250, 20));
    assert_eq!(
        joined(rig.run(key(0), read(248, 24))),
        [vec![0; 8192], content(250, 20, 1).to_vec(), vec![0; 8192]].concat()
    );
    rig.idle();
    assert_eq!(rig.store.usage().dirty_bytes, 0);
    assert_eq!(joined(rig.run(key(0), read(250, 20))), content(250, 20, 1));
    assert_eq!(rig.store.usage().extents_total - rig.store.usage().extents_free, 2);
}

#[test]
fn an_uncommitted_record_is_not_read_and_survives() {
    let mut rig = rig();
    assert!(matches!(rig.run(key(0), append(vec![write(1, 1, 0, 1)])), StoreOutcome::Appended { .. }));
    assert_eq!(joined(rig.run(key(0), read(0, 1))), [0; BLOCK_BYTES]);
    rig.restart(Cut::LoseAll);
    let state = rig.store.replica_state(key(0)).expect("the copy is there");
    assert_eq!((state.last, state.applied), (LogPosition::new(Epoch(1), Lsn(1)), Lsn(0)));
    assert_eq!(joined(rig.run(key(0), read(0, 1))), [0; BLOCK_BYTES]);
    rig.order(key(0), StoreOrder::Commit { lsn: Lsn(1) });
    assert_eq!(joined(rig.run(key(0), read(0, 1))), content(0, 1, 1));
}

#[test]
fn a_promise_survives_a_power_cut() {
    let mut rig = rig();
    assert_eq!(rig.run(key(0), StoreOrder::Seal { epoch: Epoch(9) }), StoreOutcome::Sealed);
    rig.restart(Cut::LoseAll);
    assert_eq!(rig.store.replica_state(key(0)).map(|s| s.sealed), Some(Epoch(9)));
}

#[test]
fn a_lone_block_costs_two_blocks_in_the_journal_and_one_flush() {
    let mut rig = rig();
    put(&mut rig, write(1, 1, 0, 1));
    rig.idle();
    let (bytes, flushes) = (rig.disk.bytes_written, rig.disk.flushes);
    assert!(matches!(rig.run(key(0), append(vec![write(1, 2, 0, 1)])), StoreOutcome::Appended { .. }));
    assert_eq!((rig.disk.bytes_written - bytes, rig.disk.flushes - flushes), (8192, 1));
    rig.order(key(0), StoreOrder::Commit { lsn: Lsn(2) });
    rig.idle();
    // The commit position, the block, the page; two flushes.
    assert_eq!((rig.disk.bytes_written - bytes, rig.disk.flushes - flushes), (8192 + 3 * 4096, 4));
}

#[test]
fn what_waits_together_shares_a_flush() {
    let mut rig = rig();
    rig.run(key(0), StoreOrder::Seal { epoch: Epoch(1) });
    let flushes = rig.disk.flushes;
    let orders: Vec<u64> = (1..=20).map(|lsn| rig.order(key(0), append(vec![write(1, lsn, 0, 1)]))).collect();
    rig.settle();
    assert!(orders.iter().all(|o| matches!(rig.outcomes[o], StoreOutcome::Appended { .. })));
    assert_eq!(rig.disk.flushes - flushes, 1);
}

#[test]
fn a_cut_record_does_not_come_back() {
    let mut rig = rig();
    rig.run(key(0), append(vec![write(1, 1, 0, 1), write(1, 2, 1, 1), write(1, 3, 2, 1)]));
    let order =
        StoreOrder::Append { cut_after: Some(Lsn(1)), records: vec![write(2, 2, 5, 1)], sealed: Epoch(2) };
    assert_eq!(rig.run(key(0), order), StoreOutcome::Appended { last: LogPosition::new(Epoch(2), Lsn(2)) });
    rig.restart(Cut::LoseAll);
    let state = rig.store.replica_state(key(0)).expect("the copy is there");
    assert_eq!(state.epochs, [(Lsn(1), Epoch(1)), (Lsn(2), Epoch(2))]);
    assert_eq!(state.last.lsn, Lsn(2));
    let log = rig.run(key(0), StoreOrder::ReadLog { after: Lsn(0), max_bytes: 1 << 20 });
    assert_eq!(log, StoreOutcome::Log { records: vec![write(1, 1, 0, 1), write(2, 2, 5, 1)] });
}

#[test]
fn a_discarded_extent_gives_its_space_back_and_leaves_a_tombstone() {
    let mut rig = rig();
    put(&mut rig, write(1, 1, 0, 256));
    rig.idle();
    let free = rig.store.usage().extents_free;
    put(&mut rig, zero(1, 2, 0, 256));
    assert_eq!(joined(rig.run(key(0), read(0, 2))), vec![0; 8192]);
    rig.idle();
    assert_eq!(rig.store.usage().extents_free, free + 1);
    rig.restart(Cut::LoseAll);
    rig.idle();
    assert_eq!(rig.store.usage().extents_free, free + 1);
    assert_eq!(joined(rig.run(key(0), read(0, 2))), vec![0; 8192]);
    let changed = rig.run(key(0), StoreOrder::Changed { since: Lsn(1) });
    assert_eq!(changed, StoreOutcome::Changed { extents: vec![ExtentIndex(0)] });
}

#[test]
fn presence_is_told_in_runs() {
    let mut rig = rig();
    put(&mut rig, write(1, 1, 10, 5));
    rig.idle();
    put(&mut rig, zero(1, 2, 12, 1));
    let range = BlockRange::new(BlockIndex(8), 1000);
    let runs = vec![(2, false), (2, true), (1, false), (2, true), (993, false)];
    assert_eq!(rig.run(key(0), StoreOrder::Status { range }), StoreOutcome::Status { runs });
}

#[test]
fn a_write_with_a_wrong_checksum_never_reaches_the_journal() {
    let mut rig = rig();
    let mut bad = write(1, 1, 4, 2);
    if let RecordBody::Write(w) = &mut bad.body {
        w.crcs = vec![w.crcs[0], 1].into();
    }
    let outcome = rig.run(key(0), append(vec![bad]));
    assert_eq!(outcome, StoreOutcome::Refused(StoreRefusal::Later));
    assert_eq!(rig.events, [StoreEvent::DamagedRecord { segment: key(0), lsn: Lsn(1) }]);
    assert_eq!(rig.store.replica_state(key(0)).map(|s| s.last), Some(LogPosition::ZERO));
}

#[test]
fn a_failed_flush_fails_the_disk_for_good_and_for_all() {
    let mut rig = rig();
    rig.call(|s, now, _| s.create_replica(now, key(1)));
    rig.run(key(1), StoreOrder::Seal { epoch: Epoch(1) });
    rig.disk.faults.flushes = true;
    let refused = StoreOutcome::Refused(StoreRefusal::Failed);
    assert_eq!(rig.run(key(0), append(vec![write(1, 1, 0, 1)])), refused);
    rig.disk.faults.flushes = false;
    assert_eq!(rig.run(key(1), StoreOrder::Seal { epoch: Epoch(2) }), refused);
    assert_eq!(rig.run(key(1), read(0, 1)), refused);
    let activity = DiskActivity::Journal;
    assert_eq!(rig.events, [StoreEvent::DiskFailed { activity, fault: Some(DiskFault::Io(5)) }]);
    assert!(!rig.store.is_open() && rig.store.is_checkpointed());
}

#[test]
fn a_segment_without_a_copy_is_unknown() {
    let mut rig = rig();
    let unknown = StoreOutcome::Refused(StoreRefusal::Unknown);
    assert_eq!(rig.run(key(5), append(vec![write(1, 1, 0, 1)])), unknown);
    assert_eq!(rig.run(key(5), read(0, 1)), unknown);
}

#[test]
fn a_full_disk_refuses_data_takes_discards_and_goes_on() {
    let mut rig = rig();
    let total = rig.store.usage().extents_total as u32;
    let mut lsn = 0;
    for extent in 0..total {
        lsn += 1;
        put(&mut rig, write(1, lsn, extent * EXTENT_BLOCKS, 1));
    }
    let full = StoreOutcome::Refused(StoreRefusal::Full);
    assert_eq!(rig.run(key(0), append(vec![write(1, lsn + 1, total * EXTENT_BLOCKS, 1)])), full);
    // An extent that is there takes more.
    put(&mut rig, write(1, lsn + 1, 7, 1));
    put(&mut rig, zero(1, lsn + 2, 0, EXTENT_BLOCKS));
    rig.idle();
    put(&mut rig, write(1, lsn + 3, total * EXTENT_BLOCKS, 1));
    rig.idle();
    rig.restart(Cut::LoseAll);
    assert_eq!(
        joined(rig.run(key(0), read(total * EXTENT_BLOCKS, 1))),
        content(total * EXTENT_BLOCKS, 1, lsn + 3)
    );
}

#[test]
fn appends_given_before_a_refusal_was_heard_of_are_refused_with_it() {
    let mut rig = rig();
    rig.run(key(0), append(vec![write(1, 1, 0, 1), write(1, 2, 0, 1)]));
    let mut bad = write(2, 2, 0, 1);
    if let RecordBody::Write(w) = &mut bad.body {
        w.crcs = vec![1].into();
    }
    let cut = StoreOrder::Append { cut_after: Some(Lsn(1)), records: vec![bad], sealed: Epoch(2) };
    let refused = StoreOutcome::Refused(StoreRefusal::Later);
    let orders = [cut, append(vec![write(2, 3, 0, 1)]), append(vec![write(2, 4, 0, 1)])];
    for order in orders {
        // The second one would follow record 1.2, which the first one was to cut.
        let number = rig.order(key(0), order);
        assert_eq!(rig.outcomes.get(&number), Some(&refused));
    }
    assert_eq!(rig.store.replica_state(key(0)).map(|s| s.last), Some(LogPosition::new(Epoch(1), Lsn(2))));
    rig.settle();
    assert_eq!(rig.run(key(0), append(vec![write(2, 5, 0, 1)])), refused, "it leaves a gap");
    assert!(matches!(rig.run(key(0), append(vec![write(2, 3, 0, 1)])), StoreOutcome::Appended { .. }));
}

#[test]
fn a_dropped_copy_is_gone_for_good_and_its_space_is_free() {
    let mut rig = rig();
    let before = rig.store.usage();
    put(&mut rig, write(1, 1, 0, 256));
    rig.idle();
    rig.call(|s, now, out| s.drop_replica(now, key(0), out));
    rig.settle();
    let usage = |u: Usage| (u.extents_free, u.pages_used);
    assert_eq!(usage(rig.store.usage()), usage(before));
    rig.restart(Cut::LoseAll);
    assert_eq!(rig.store.segments(), []);
    assert_eq!(usage(rig.store.usage()), usage(before));
    // Made anew, it is empty, also after what the first life left on the disk is read again.
    rig.call(|s, now, _| s.create_replica(now, key(0)));
    put(&mut rig, write(1, 1, 512, 1));
    rig.idle();
    rig.restart(Cut::LoseAll);
    assert_eq!(joined(rig.run(key(0), read(0, 1))), [0; BLOCK_BYTES]);
    assert_eq!(joined(rig.run(key(0), read(512, 1))), content(512, 1, 1));
}

#[test]
fn a_log_that_begins_anew_tells_what_of_the_committed_records_is_not_in_place() {
    let mut rig = rig();
    put(&mut rig, write(1, 1, 0, 1));
    rig.idle();
    put(&mut rig, write(1, 2, 1, 1));
    rig.order(key(0), StoreOrder::Commit { lsn: Lsn(2) });
    let base = LogPosition::new(Epoch(1), Lsn(10));
    // Record 2 is committed, and lies in the log alone, which is gone now.
    let reset = StoreOutcome::Reset { since: Lsn(1) };
    assert_eq!(rig.run(key(0), StoreOrder::Reset { base, sealed: Epoch(2) }), reset);
    assert_eq!(rig.store.replica_state(key(0)).and_then(|s| s.incomplete_since), Some(Lsn(1)));
}

#[test]
fn a_learner_merges_images_and_records_in_any_order() {
    let mut rig = rig();
    put(&mut rig, write(1, 1, 0, 2));
    rig.idle();
    let base = LogPosition::new(Epoch(1), Lsn(10));
    let reset = StoreOutcome::Reset { since: Lsn(1) };
    assert_eq!(rig.run(key(0), StoreOrder::Reset { base, sealed: Epoch(2) }), reset);
    put(&mut rig, write(2, 11, 0, 1));
    let image = |block, lsn| {
        let data = content(block, 1, lsn);
        let crc = holdfast_checksum::crc32c(&data);
        ImageBlock { block: BlockIndex(block), lsn: Lsn(lsn), crc, data: Some(data) }
    };
    let gone = ImageBlock { block: BlockIndex(2), lsn: Lsn(6), crc: 0, data: None };
    // Block 0 is older than the record, block 1 newer than what is in place, block 3 ahead of the log.
    let blocks = vec![image(0, 9), image(1, 5), gone, image(3, 12)];
    assert_eq!(rig.run(key(0), StoreOrder::InstallImage { blocks }), StoreOutcome::Installed);
    rig.restart(Cut::LoseAll);
    let state = rig.store.replica_state(key(0)).expect("the copy is there");
    assert_eq!((state.incomplete_since, state.last.lsn), (Some(Lsn(1)), Lsn(11)));
    rig.order(key(0), StoreOrder::Commit { lsn: Lsn(11) });
    put(&mut rig, write(2, 12, 3, 1));
    rig.run(key(0), StoreOrder::Complete { repeats: RepeatState::default() });
    rig.restart(Cut::LoseAll);
    assert_eq!(rig.store.replica_state(key(0)).map(|s| s.incomplete_since), Some(None));
    rig.order(key(0), StoreOrder::Commit { lsn: Lsn(12) });
    let expect = [content(0, 1, 11), content(1, 1, 5), content(2, 1, 0), content(3, 1, 12)];
    let got = joined(rig.run(key(0), read(0, 4)));
    assert_eq!(got[..8192], expect[..2].concat());
    assert_eq!(got[8192..12288], [0; BLOCK_BYTES]);
    assert_eq!(got[12288..], expect[3]);
    let StoreOutcome::Image { blocks, .. } =
        rig.run(key(0), StoreOrder::ReadImage { extent: ExtentIndex(0), since: Lsn(5) })
    else {
        panic!("no image")
    };
    let lsns: Vec<(u32, u64, bool)> = blocks.iter().map(|b| (b.block.0, b.lsn.0, b.data.is_some())).collect();
    assert_eq!(lsns, [(0, 11, true), (2, 6, false), (3, 12, true)]);
}

#[test]
fn the_ring_goes_round_many_times() {
    let mut rig = rig();
    for lsn in 1..=120 {
        put(&mut rig, write(1, lsn, (lsn as u32 * 37) % 1000, 64));
    }
    assert!(rig.disk.bytes_written > 20 * MIB);
    rig.restart(Cut::LoseAll);
    assert_eq!(rig.store.replica_state(key(0)).map(|s| s.last.lsn), Some(Lsn(120)));
    rig.order(key(0), StoreOrder::Commit { lsn: Lsn(120) });
    assert_eq!(joined(rig.run(key(0), read(120 * 37 % 1000, 64))), content(120 * 37 % 1000, 64, 120));
}

#[test]
fn uncommitted_records_do_not_pin_the_ring() {
    let mut rig = rig();
    rig.call(|s, now, _| s.create_replica(now, key(1)));
    // The owner of segment 1 is gone: its records stay uncommitted.
    assert!(matches!(
        rig.run(key(1), append((1..=20).map(|l| write(1, l, 0, 16)).collect())),
        StoreOutcome::Appended { .. }
    ));
    for lsn in 1..=240 {
        put(&mut rig, write(1, lsn, 0, 64));
        if lsn == 50 {
            rig.restart(Cut::LoseAll);
            rig.order(key(0), StoreOrder::Commit { lsn: Lsn(50) });
        }
    }
    rig.restart(Cut::Torn);
    let log = rig.run(key(1), StoreOrder::ReadLog { after: Lsn(0), max_bytes: 16 << 20 });
    assert_eq!(log, StoreOutcome::Log { records: (1..=20).map(|l| write(1, l, 0, 16)).collect() });
}

#[test]
fn uncommitted_data_beyond_the_ring_is_refused_for_now() {
    let mut rig = rig();
    let mut lsn = 0;
    let refused = (0..64).any(|_| {
        lsn += 1;
        rig.run(key(0), append(vec![write(1, lsn, 0, 64)])) == StoreOutcome::Refused(StoreRefusal::Later)
    });
    assert!(refused && lsn > 4);
    rig.order(key(0), StoreOrder::Commit { lsn: Lsn(lsn - 1) });
    put(&mut rig, write(1, lsn, 0, 64));
}

#[test]
fn a_disk_that_is_not_ours_is_refused_by_name() {
    let mut rig = rig();
    let open_disk = |rig: &mut holdfast_store::testing::Rig, cluster: u128, node: u16, disk: DiskId| {
        let mut out = Vec::new();
        let config = rig.config;
        rig.store = Store::open(
            rig.now,
            rig.disk.size(),
            DiskExpected { cluster: ClusterId(cluster), node: NodeId(node), disk },
            5,
            config,
            &mut out,
        );
        rig.call(|_, _, o| o.append(&mut out));
        rig.settle();
        rig.opened.take().expect("it came to an end")
    };
    let open = |rig: &mut holdfast_store::testing::Rig, cluster: u128, node: u16| {
        open_disk(rig, cluster, node, RIG_DISK)
    };
    let other = OpenError::OtherDisk { expected: DiskId(99), found: RIG_DISK };
    assert_eq!(open_disk(&mut rig, 7, 1, DiskId(99)), Err(other), "devices changed their names");
    let other = OpenError::OtherCluster { expected: ClusterId(8), found: ClusterId(7) };
    assert_eq!(open(&mut rig, 8, 1), Err(other));
    assert_eq!(open(&mut rig, 7, 2), Err(OpenError::OtherNode { expected: NodeId(2), found: NodeId(1) }));
    rig.disk.flip_bit(300, 1);
    assert!(open(&mut rig, 7, 1).is_ok(), "one superblock is enough");
    rig.disk.flip_bit(300, 1);
    rig.disk.flip_bit(100, 1);
    rig.disk.flip_bit(4096 + 100, 1);
    assert_eq!(open(&mut rig, 7, 1), Err(OpenError::NotHoldfast { damaged: true }));
    rig.disk = holdfast_store::testing::SimDisk::new(48 * MIB, 1);
    assert_eq!(open(&mut rig, 7, 1), Err(OpenError::NotHoldfast { damaged: false }));
}

#[test]
fn a_full_disk_takes_new_data_once_its_device_has_grown() {
    let mut rig = rig();
    let (mut lsn, mut extent, before) = (0, 0, rig.disk.size());
    for round in 0..3u64 {
        let size = before + round * GROWTH_MIN_BYTES;
        if round > 0 {
            rig.disk.resize(size);
            rig.restart(Cut::LoseAll);
            let report = rig.opened.clone().expect("it was opened").expect("it is ours");
            assert_eq!(report.grown_from, Some(size - GROWTH_MIN_BYTES));
        }
        while extent < rig.store.usage().extents_total as u32 {
            lsn += 1;
            put(&mut rig, write(1, lsn, extent * EXTENT_BLOCKS, 3));
            extent += 1;
        }
        let full = StoreOutcome::Refused(StoreRefusal::Full);
        assert_eq!(rig.run(key(0), append(vec![write(1, lsn + 1, extent * EXTENT_BLOCKS, 1)])), full);
        rig.idle();
    }
    assert!(u64::from(extent) > 2 * GROWTH_MIN_BYTES / EXTENT_BYTES as u64);
    // What lies in each part is found by one who knows the disk from its superblocks only, whichever of them is left.
    for lost in 0..2 {
        let mut disk = rig.disk.clone();
        disk.flip_bit(lost * BLOCK_BYTES as u64 + 40, 1);
        core::mem::swap(&mut rig.disk, &mut disk);
        rig.reopen();
        for e in 0..extent {
            let block = e * EXTENT_BLOCKS;
            assert_eq!(
                joined(rig.run(key(0), read(block, 3))),
                content(block, 3, u64::from(e) + 1),
                "extent {e}"
            );
        }
        rig.disk = disk;
    }
}

#[test]
fn a_shorter_device_is_refused_with_the_numbers() {
    let mut rig = rig();
    rig.disk.resize(16 * MIB);
    rig.reopen();
    assert_eq!(rig.opened, Some(Err(OpenError::Truncated { expected: 48 * MIB, found: 16 * MIB })));
}

#[test]
fn repeats_survive_the_trim_of_their_records() {
    let mut rig = rig();
    let gateway = GatewayId { node: NodeId(1), incarnation: ProcessIncarnation(4) };
    for lsn in 1..=60 {
        let mut r = write(1, lsn, 0, 32);
        r.request =
            Some(RequestTag { gateway, session: SessionId(1), seq: lsn, low: lsn.saturating_sub(40) });
        put(&mut rig, r);
    }
    let body = RecordBody::Fence { gateway, session: Some(SessionId(3)) };
    put(&mut rig, record(1, 61, body));
    for lsn in 62..=90 {
        put(&mut rig, write(1, lsn, 0, 32));
    }
    rig.idle();
    rig.restart(Cut::LoseAll);
    let state = rig.store.replica_state(key(0)).expect("the copy is there");
    assert!(state.trim.lsn > Lsn(20), "trimmed up to {:?}", state.trim);
    let of = &state.repeats.gateways[&gateway];
    let known: Vec<u64> = of.done.keys().copied().chain(state.tags.iter().map(|t| t.1.seq)).collect();
    assert!((20..=60).all(|s| known.contains(&s)));
    assert!(state.fences.len() + of.fenced_sessions.len() == 1);
}

#[test]
fn nothing_is_left_to_do_after_a_checkpoint() {
    let mut rig = rig();
    for lsn in 1..=10 {
        put(&mut rig, write(1, lsn, lsn as u32 * 300, 2));
    }
    rig.call(|s, now, out| s.checkpoint(now, out));
    rig.settle();
    assert!(rig.store.is_checkpointed());
    assert_eq!((rig.store.usage().dirty_bytes, rig.store.next_timer()), (0, None));
}

#[test]
fn a_checkpoint_ends_although_its_owner_goes_on_writing() {
    let mut rig = rig();
    for lsn in 1..=10 {
        put(&mut rig, write(1, lsn, lsn as u32 * 300, 2));
    }
    rig.call(|s, now, out| s.checkpoint(now, out));
    assert!(!rig.store.is_checkpointed());
    let mut lsn = 10;
    while !rig.store.is_checkpointed() {
        // A record is in the log, and committed, between any two answers of the disk.
        lsn += 1;
        rig.order(key(0), append(vec![write(1, lsn, lsn as u32 % 8 * 300, 1)]));
        rig.order(key(0), StoreOrder::Commit { lsn: Lsn(lsn - 1) });
        rig.step();
        assert!(lsn < 200, "the checkpoint goes on for ever");
    }
    let usage = rig.store.usage();
    assert!(usage.extents_total - usage.extents_free >= 10, "each of ten records has its extent");
    assert!(usage.dirty_bytes > 0, "the owner went on");
}

#[test]
fn tombstones_do_not_use_up_the_pages() {
    let mut rig = rig();
    // Three times as many extents as there are pages are written and discarded, a few at a time.
    let mut lsn = 0;
    for extent in 0..300 {
        put(&mut rig, write(1, lsn + 1, extent * EXTENT_BLOCKS, 1));
        rig.idle();
        put(&mut rig, zero(1, lsn + 2, extent * EXTENT_BLOCKS, EXTENT_BLOCKS));
        rig.idle();
        lsn += 2;
    }
    let usage = rig.store.usage();
    assert_eq!(usage.extents_free, usage.extents_total);
    put(&mut rig, write(1, lsn + 1, 5, 1));
    rig.idle();
    rig.restart(Cut::LoseAll);
    assert_eq!(joined(rig.run(key(0), read(5, 1))), content(5, 1, lsn + 1));
    // An extent whose tombstone was folded still counts as changed, and ships as absent.
    let StoreOutcome::Changed { extents } = rig.run(key(0), StoreOrder::Changed { since: Lsn(1) }) else {
        panic!("no list")
    };
    assert!(extents.contains(&ExtentIndex(3)));
    let StoreOutcome::Image { blocks, .. } =
        rig.run(key(0), StoreOrder::ReadImage { extent: ExtentIndex(3), since: Lsn(1) })
    else {
        panic!("no image")
    };
    assert_eq!(blocks.len(), EXTENT_BLOCKS as usize);
    assert!(blocks.iter().all(|b| b.data.is_none() && b.lsn > Lsn(1)));
}

#[test]
fn writing_back_keeps_few_orders_at_the_disk() {
    let mut rig = rig();
    for lsn in 1..=60 {
        put(&mut rig, write(1, lsn, lsn as u32 * 2, 1));
    }
    let time = rig.store.next_timer().expect("there is something to write back");
    rig.now = time;
    rig.call(|s, now, out| s.timer(now, out));
    let (mut most, mut steps) = (0, 0);
    while rig.step() {
        most = most.max(rig.disk.waiting());
        steps += 1;
    }
    assert!(steps > 60, "{steps} steps write sixty blocks back");
    assert!((8..=17).contains(&most), "{most} orders were with the disk at once");
}

#[test]
fn a_digest_does_not_claim_a_later_state_because_one_block_was_looked_at_again() {
    let mut rig = rig();
    put(&mut rig, write(1, 1, 0, 1));
    put(&mut rig, write(1, 2, 1, 1));
    rig.idle();
    // The first look at block 0 fails, so that there is a second one.
    let places = places_of(&rig, &content(0, 1, 1));
    rig.disk.flip_bit(places.last().expect("it is in place") * BLOCK_BYTES as u64, 0);
    let digest = rig.order(key(0), StoreOrder::Digest { extent: ExtentIndex(0) });
    rig.order(key(0), append(vec![write(1, 3, 1, 1)]));
    rig.order(key(0), StoreOrder::Commit { lsn: Lsn(3) });
    rig.settle();
    let Some(StoreOutcome::Digest { at, blocks }) = rig.outcomes.remove(&digest) else { panic!("no digest") };
    assert_eq!((at, blocks[1].lsn), (Lsn(2), Lsn(2)), "{blocks:?}");
}

/// An earlier build, which would take a journal of today for shorter than it is, must find no superblock that it knows.
#[test]
fn a_disk_of_an_earlier_version_is_renewed_in_both_superblocks_when_it_is_opened() {
    let mut rig = rig();
    put(&mut rig, write(1, 1, 0, 1));
    rig.idle();
    [0, 1].into_iter().for_each(|n| as_version(&mut rig, n, 1));
    rig.restart(Cut::KeepAll);
    assert!(matches!(rig.opened, Some(Ok(_))), "{:?}", rig.opened);
    assert_eq!(joined(rig.run(key(0), read(0, 1))), content(0, 1, 1));
    assert_eq!([0, 1].map(|n| rig.disk.peek(n)[12]), [4, 4]);
    // One of a later version is enough: the other one is what was there before.
    as_version(&mut rig, 1, 5);
    rig.restart(Cut::KeepAll);
    assert!(
        matches!(rig.opened, Some(Err(OpenError::UnknownVersion { found: 5, known: 4 }))),
        "{:?}",
        rig.opened
    );
}

#[test]
fn a_device_that_hangs_while_it_is_opened_is_silent_until_it_answers() {
    let expect = DiskExpected { cluster: ClusterId(1), node: NodeId(1), disk: DiskId(1) };
    let mut out = Vec::new();
    let mut store = Store::open(Time(0), 1 << 30, expect, 7, StoreConfig::default(), &mut out);
    store.pump(Time(0), &mut out);
    let [StoreOutput::Disk(order)] = &out[..] else { panic!("{out:?}") };
    let token = order.token;
    assert_eq!(store.next_timer(), Some(Time(0) + SILENT_AFTER));
    out.clear();
    let late = Time(SILENT_AFTER.0);
    store.timer(late, &mut out);
    assert_eq!(out, [StoreOutput::Event(StoreEvent::DiskSilent { since: Time(0) })]);
    assert!(store.usage().is_silent && !store.is_open());
    out.clear();
    store.disk_done(late, DiskDone { token, result: Err(DiskFault::Short) }, &mut out);
    let answers = StoreOutput::Event(StoreEvent::DiskAnswers { after: SILENT_AFTER });
    assert!(matches!(&out[..], [first, StoreOutput::OpenFailed(_)] if *first == answers), "{out:?}");
    assert_eq!((store.next_timer(), store.usage().is_silent), (None, false));
}
