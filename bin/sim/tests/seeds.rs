//! Runs from seeds, and one test for each disaster by its name. A seed that fails is brought back with
//! `cargo run -p holdfast-sim -- --seed N` and the options of its test.

mod common;

use common::run;
use holdfast_sim::disk::disk_id;
use holdfast_sim::faults::{Gone, Healing};
use holdfast_sim::run::drive;
use holdfast_sim::{Checker, Failure, FaultKind, Options, World};
use holdfast_store::testing::Cut;
use holdfast_types::{Duration, NodeId, SegmentKey};
use std::collections::BTreeSet;

const BUSY: Duration = Duration::from_millis(400);
const THINK_US: u64 = 4000;

fn seeds(range: std::ops::Range<u64>, nodes: u16, faults: &[FaultKind]) {
    for seed in range {
        let faults: BTreeSet<FaultKind> = faults.iter().copied().collect();
        run(&Options { seed, nodes, faults, ..Options::default() });
    }
}

const FAIR: [FaultKind; 5] =
    [FaultKind::Crash, FaultKind::Partition, FaultKind::Pause, FaultKind::Control, FaultKind::Disconnect];

#[test]
fn three_nodes_keep_every_promise_under_random_faults() {
    seeds(1000..1050, 3, &FAIR);
}

#[test]
fn five_nodes_keep_every_promise_under_random_faults() {
    seeds(2000..2020, 5, &FAIR);
}

#[test]
fn a_node_or_a_disk_that_is_lost_for_ever_is_replaced_under_random_faults() {
    let mut replaced = 0;
    for seed in 8000..8040 {
        let faults = FAIR.into_iter().chain([FaultKind::Gone]).collect();
        // Long enough that what is lost is missed, dropped and placed anew while faults go on.
        let options = Options { seed, nodes: 5, steps: 1200, faults, ..Options::default() };
        replaced += run(&options).replaced;
    }
    assert!(replaced > 30, "hardly any copy was placed anew: {replaced}");
}

#[test]
fn one_node_keeps_every_promise_under_random_faults() {
    seeds(3000..3015, 1, &[FaultKind::Crash, FaultKind::Pause, FaultKind::Control, FaultKind::Disconnect]);
}

/// When an activation waits for no lease, nine of these runs show a stale read.
#[test]
fn an_owner_that_is_cut_off_reads_nothing_stale() {
    seeds(5000..5100, 3, &[FaultKind::Partition]);
}

/// Initiators go on over another session while their earlier gateway stands still. When a gateway that was given a new
/// number sends before it holds all of its sessions, two of these runs show a write of a session that was left.
#[test]
fn what_a_session_left_under_way_does_not_land_after_its_initiator_went_on() {
    let mut superseded = 0;
    for (range, faults) in [
        (9300..9380, [FaultKind::Move, FaultKind::Pause].as_slice()),
        (9400..9440, &[FaultKind::Move, FaultKind::Pause, FaultKind::Partition, FaultKind::Crash]),
    ] {
        for seed in range {
            let faults = faults.iter().copied().collect();
            let options = Options { seed, faults, ..Options::default() };
            superseded += run(&options).superseded;
        }
    }
    assert!(superseded > 2000, "hardly any session was left with something under way: {superseded}");
}

/// Daemons are asked to stop, volumes come and go, and clients zero whole segments, all under random faults.
#[test]
fn planned_stops_and_changes_of_volumes_lose_nothing() {
    let (mut stopped, mut volumes) = (0, 0);
    for seed in 9500..9540 {
        let faults = FAIR.into_iter().chain([FaultKind::Stop, FaultKind::Volumes]).collect();
        let options = Options { seed, faults, steps: 600, discards: true, ..Options::default() };
        let summary = run(&options);
        stopped += summary.stopped;
        volumes += summary.volumes;
    }
    assert!(stopped > 50, "hardly any daemon stopped as it was asked to: {stopped}");
    assert!(volumes > 50, "hardly any volume was made: {volumes}");
}

/// An operator takes a node for lost that comes back, or that only its disk slows down.
#[test]
fn what_is_taken_for_lost_and_comes_back_does_no_harm() {
    let of_five: &[FaultKind] = &[FaultKind::Lost, FaultKind::Crash, FaultKind::Pause, FaultKind::Partition];
    let of_three: &[FaultKind] = &[FaultKind::Lost, FaultKind::Crash, FaultKind::Slow];
    let mut taken = 0;
    for (range, nodes, faults) in [(9600..9620, 5, of_five), (9630..9640, 3, of_three)] {
        for seed in range {
            let faults = faults.iter().copied().collect();
            let options = Options { seed, nodes, steps: 800, faults, ..Options::default() };
            taken += run(&options).said_lost;
        }
    }
    assert!(taken > 12, "hardly anything was taken for lost: {taken}");
}

/// A failed flush is the end of what is on that disk, for every copy on it.
#[test]
fn a_disk_that_fails_is_done_without() {
    let mut failed = 0;
    for (range, nodes) in [(9700..9715, 3), (9715..9730, 5)] {
        for seed in range {
            let faults = [FaultKind::Fail, FaultKind::Crash, FaultKind::Pause, FaultKind::Partition].into();
            let options = Options { seed, nodes, faults, ..Options::default() };
            failed += run(&options).said_lost;
        }
    }
    assert!(failed > 20, "hardly any disk failed: {failed}");
}

/// What a disk does late for a volume that was deleted must not land on what another one has there since.
#[test]
fn volumes_come_and_go_beside_disks_that_are_late() {
    seeds(9650..9680, 3, &[FaultKind::Volumes, FaultKind::Slow, FaultKind::Hang, FaultKind::Stop]);
}

#[test]
fn a_disk_that_flips_bits_serves_no_wrong_data() {
    seeds(4000..4015, 3, &[FaultKind::BitFlip, FaultKind::Crash, FaultKind::Pause]);
}

#[test]
fn full_disks_refuse_new_data_and_lose_nothing() {
    let (mut refused, mut swapped, mut checks) = (0, 0, 0);
    for seed in 7000..7250 {
        let options = Options { seed, small_disks: true, ..Options::default() };
        let summary = run(&options);
        refused += summary.refused;
        swapped += summary.swapped;
        checks += summary.checks;
    }
    assert!(refused > 300, "the disks were hardly ever full: {refused}");
    assert!(swapped > 300, "hardly anything was compared and written: {swapped}");
    assert!(checks > 300, "the copies were hardly ever compared: {checks}");
}

/// Five nodes with full disks: now and then a copy is left that is in no set, as its disk does not hold it. It goes to
/// another disk that has room for it, or waits if none has; both are seen within so many seeds.
#[test]
fn a_copy_that_its_full_disk_cannot_hold_goes_where_there_is_room_or_there_is_none() {
    let (mut moved, mut left) = (0, 0);
    for seed in 0..3000 {
        let options = Options { seed, nodes: 5, small_disks: true, ..Options::default() };
        let summary = run(&options);
        moved += summary.moved_for_room;
        left += summary.without_room;
        if moved > 0 && left >= 4 {
            return;
        }
    }
    panic!("{moved} copies went elsewhere, and {left} had nowhere to go");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let options = Options { seed: 7, ..Options::default() };
    let run = || {
        let mut world = World::new(&options).expect("it starts");
        busy(&mut world);
        world.inject_faults();
        world.run_for(Duration::from_secs(5)).expect("nothing fails");
        (world.trace.lines(), world.summary())
    };
    assert_eq!(run(), run());
}

fn world(seed: u64) -> World {
    let options = Options { seed, faults: BTreeSet::new(), ..Options::default() };
    World::new(&options).expect("a cluster without faults starts")
}

/// Clients write and read without a pause.
fn busy(world: &mut World) {
    world.watch.requests_left = u64::MAX;
    world.watch.think_us = THINK_US;
}

fn first_segment(world: &World) -> SegmentKey {
    world.map().segments.values().next().expect("the volume has segments").key
}

/// Lets a disaster happen to a busy cluster, for some seeds; afterwards everything must hold.
fn disaster(seeds: std::ops::Range<u64>, happen: impl Fn(&mut World) -> Result<(), Failure>) {
    for seed in seeds {
        let mut world = world(seed);
        let result = drive(&mut world, |world| {
            busy(world);
            world.run_for(BUSY)?;
            happen(world)?;
            world.finish()
        });
        if let Err(failure) = result {
            panic!("{}\nseed {seed}: {failure}", world.trace.lines().join("\n"));
        }
        assert!(world.watch.answered > 200, "seed {seed}: the clients did next to nothing");
    }
}

#[test]
fn the_owner_crashes_under_writes() {
    disaster(1..6, |world| {
        let owner = world.owner_of(first_segment(world));
        world.crash(owner, Cut::Torn);
        let before = world.watch.answered;
        world.run_for(Duration::from_secs(6))?;
        assert_ne!(world.owner_of(first_segment(world)), owner, "another node takes over");
        assert!(world.watch.answered > before + 100, "the other clients go on without it");
        world.start(owner);
        world.run_for(Duration::from_secs(3))
    });
}

#[test]
fn all_three_lose_power_at_once() {
    for cut in [Cut::LoseAll, Cut::Torn] {
        disaster(10..14, |world| {
            let nodes: Vec<NodeId> = world.nodes.keys().copied().collect();
            nodes.iter().for_each(|n| world.crash(*n, cut));
            world.run_for(Duration::from_secs(2))?;
            nodes.iter().for_each(|n| world.start(*n));
            world.run_for(Duration::from_secs(5))
        });
    }
}

#[test]
fn two_of_three_are_away_and_come_back() {
    disaster(20..25, |world| {
        let away = [NodeId(2), NodeId(3)];
        away.iter().for_each(|n| world.crash(*n, Cut::LoseAll));
        world.run_for(Duration::from_secs(2))?;
        let before = world.watch.answered;
        world.run_for(Duration::from_secs(20))?;
        assert_eq!(world.watch.answered, before, "without a quorum nothing is answered, and nothing fails");
        away.iter().for_each(|n| world.start(*n));
        world.run_for(Duration::from_secs(3))
    });
}

#[test]
fn a_paused_owner_that_goes_on_after_a_takeover_reads_nothing_stale() {
    disaster(30..36, |world| {
        let owner = world.owner_of(first_segment(world));
        world.pause(owner);
        world.run_for(Duration::from_secs(8))?;
        assert_ne!(world.owner_of(first_segment(world)), owner, "another node takes over");
        world.resume(owner);
        world.run_for(BUSY)?;
        world.judge_history()
    });
}

/// Others own what that node did, and go on to, as its disk does no better.
fn others_serve(world: &mut World, owner: NodeId) -> Result<(), Failure> {
    assert_ne!(world.owner_of(first_segment(world)), owner, "another node takes over");
    let before = world.watch.answered;
    world.run_for(Duration::from_secs(8))?;
    let answered = world.watch.answered - before;
    assert!(answered > 1000, "hardly anything was answered: {answered}");
    assert_ne!(world.owner_of(first_segment(world)), owner, "it gets nothing back before its disk does well");
    Ok(())
}

#[test]
fn while_an_owners_disk_hangs_another_node_serves() {
    disaster(310..316, |world| {
        let owner = world.owner_of(first_segment(world));
        world.hang(disk_id(owner, 0));
        world.run_for(Duration::from_secs(4))?;
        others_serve(world, owner)?;
        world.disk_answers(disk_id(owner, 0));
        world.run_for(BUSY)?;
        world.judge_history()
    });
}

#[test]
fn disks_that_hang_lose_nothing_under_random_faults() {
    let faults: Vec<FaultKind> = FAIR.into_iter().chain([FaultKind::Hang]).collect();
    seeds(9000..9030, 3, &faults);
    seeds(9030..9045, 5, &faults);
    seeds(9045..9075, 3, &[FaultKind::Hang]);
}

#[test]
fn ownership_leaves_a_slow_disk_until_it_keeps_up() {
    disaster(320..323, |world| {
        let owner = world.owner_of(first_segment(world));
        world.slow_down(disk_id(owner, 0));
        world.run_for(Duration::from_secs(15))?;
        others_serve(world, owner)?;
        world.heal(Healing::KeepUp(disk_id(owner, 0)));
        let keeps_up = |w: &World| w.map().disks.values().all(|d| !d.slow);
        world.run_until(Duration::from_secs(60), "the disk keeps up", keeps_up)?;
        world.run_until(Duration::from_secs(30), "every copy is in S", World::all_copies_in_set)?;
        world.judge_history()
    });
}

#[test]
fn slow_disks_lose_nothing_under_random_faults() {
    let faults: Vec<FaultKind> = FAIR.into_iter().chain([FaultKind::Slow, FaultKind::Hang]).collect();
    seeds(9100..9110, 3, &faults);
    seeds(9110..9115, 5, &faults);
    seeds(9115..9120, 3, &[FaultKind::Slow]);
}

/// Epochs follow each other on one node while its disk has orders of the one before under way; each owner draws the same
/// numbers for its own. When it takes the outcome of such an order for its own, five of these runs
/// lose or confuse what was written.
#[test]
fn what_a_slow_disk_did_for_an_earlier_epoch_is_nobodys_answer() {
    seeds(40060..40130, 3, &[FaultKind::Slow, FaultKind::Partition]);
}

#[test]
fn a_replica_that_missed_writes_is_resynced() {
    disaster(48..52, |world| {
        let owner = world.owner_of(first_segment(world));
        let nodes: Vec<NodeId> = world.nodes.keys().copied().collect();
        let cut_off = nodes.iter().copied().find(|n| *n != owner).expect("there are three");
        nodes.iter().for_each(|n| world.cut(cut_off, *n));
        let left = |w: &World| w.map().segments.values().all(|s| s.active.set.len() == 2);
        world.run_until(Duration::from_secs(30), "the copy has left S", left)?;
        world.run_for(BUSY)?;
        nodes.iter().for_each(|n| world.mend(cut_off, *n));
        world.run_until(Duration::from_secs(30), "the copy is back in S", World::all_copies_in_set)?;
        assert!(world.watch.resyncs > 0, "it came back by a resync");
        Ok(())
    });
}

/// Five busy nodes and three copies; one of them is lost for ever.
fn lost_for_ever(seeds: std::ops::Range<u64>, gone: impl Fn(NodeId) -> Gone) {
    for seed in seeds {
        let options =
            Options { seed, nodes: 5, faults: BTreeSet::from([FaultKind::Gone]), ..Options::default() };
        let mut world = World::new(&options).expect("a cluster starts");
        let result = drive(&mut world, |world| {
            busy(world);
            world.run_for(BUSY)?;
            let info = world.map().segments.values().next().cloned().expect("the volume has segments");
            let lost = info.members[seed as usize % info.members.len()].node;
            world.lose(gone(lost));
            let replaced =
                |w: &World| w.map().segments.values().all(|s| s.members.iter().all(|m| m.node != lost));
            world.run_until(Duration::from_secs(30), "its copies are placed anew", replaced)?;
            world.run_until(Duration::from_secs(60), "every copy is in its set", World::all_copies_in_set)?;
            world.finish()
        });
        if let Err(failure) = result {
            panic!("{}\nseed {seed}: {failure}", world.trace.lines().join("\n"));
        }
    }
}

#[test]
fn a_host_that_is_gone_for_good_is_replaced() {
    lost_for_ever(80..89, Gone::Node);
}

#[test]
fn a_disk_that_died_is_replaced() {
    lost_for_ever(90..99, |node| Gone::Disk(disk_id(node, 0)));
}

#[test]
fn a_node_that_is_back_after_its_copies_were_placed_anew_frees_them() {
    for seed in 100..106 {
        let options =
            Options { seed, nodes: 5, faults: BTreeSet::from([FaultKind::Gone]), ..Options::default() };
        let mut world = World::new(&options).expect("a cluster starts");
        let result = drive(&mut world, |world| {
            busy(world);
            world.run_for(BUSY)?;
            let lost = world.owner_of(first_segment(world));
            world.crash(lost, Cut::Torn);
            let replaced =
                |w: &World| w.map().segments.values().all(|s| s.members.iter().all(|m| m.node != lost));
            world.run_until(Duration::from_secs(60), "its copies are placed anew", replaced)?;
            assert!(!world.map().tombstones.is_empty(), "they are to be freed");
            world.start(lost);
            world.finish()?;
            assert!(world.map().tombstones.is_empty(), "they are freed");
            Ok(())
        });
        if let Err(failure) = result {
            panic!("{}\nseed {seed}: {failure}", world.trace.lines().join("\n"));
        }
    }
}

/// A lost copy was placed anew where no disk had room for all of it. The disk that comes back empty is taken by a copy
/// that lacks room: this one, or the one of the other segment that lacked it already.
#[test]
fn a_disk_that_is_empty_again_takes_a_copy_that_lacked_room() {
    let mut moved = 0;
    for seed in 285..305 {
        let faults = BTreeSet::from([FaultKind::Gone]);
        let options = Options { seed, nodes: 5, small_disks: true, faults, ..Options::default() };
        let mut world = World::new(&options).expect("a cluster starts");
        let result = drive(&mut world, |world| {
            (world.watch.requests_left, world.watch.think_us) = (200, 25 * THINK_US);
            world.run_for(Duration::from_secs(4))?;
            let (owner, key) = (world.owner_of(first_segment(world)), first_segment(world));
            let members: Vec<NodeId> =
                world.map().segments[&key.segment].members.iter().map(|m| m.node).collect();
            let others = |w: &World, node| {
                w.map().segments.values().filter(|s| s.members.iter().any(|m| m.node == node)).count()
            };
            let lost = members.iter().copied().find(|n| *n != owner && others(world, *n) == 1);
            let lost = lost.expect("one that carries nothing else");
            world.crash(lost, Cut::LoseAll);
            let replaced =
                |w: &World| w.map().segments.values().all(|s| s.members.iter().all(|m| m.node != lost));
            world.run_until(Duration::from_secs(60), "its copy is placed anew", replaced)?;
            world.start(lost);
            // It judges that no disk with room for all of it is left over.
            world.finish()
        });
        if let Err(failure) = result {
            panic!("{}\nseed {seed}: {failure}", world.trace.lines().join("\n"));
        }
        moved += world.watch.moved_for_room;
    }
    assert!(moved > 0, "hardly any copy lacked room: {moved}");
}

#[test]
fn a_gateway_whose_daemon_restarts_loses_nothing_that_it_acknowledged() {
    disaster(50..55, |world| {
        let owner = world.owner_of(first_segment(world));
        let gateway = world.nodes.keys().copied().find(|n| *n != owner).expect("there are three");
        for _ in 0..3 {
            world.crash(gateway, Cut::KeepAll);
            world.run_for(Duration::from_millis(50))?;
            world.start(gateway);
            world.run_for(Duration::from_secs(1))?;
        }
        Ok(())
    });
}

#[test]
fn acknowledging_before_the_flush_is_found_out_by_the_checker() {
    for seed in 60..66 {
        let options = Options { seed, faults: BTreeSet::new(), disks_lie: true, ..Options::default() };
        let mut world = World::new(&options).expect("a cluster without faults starts");
        let result = drive(&mut world, |world| {
            busy(world);
            world.run_for(BUSY)?;
            let nodes: Vec<NodeId> = world.nodes.keys().copied().collect();
            nodes.iter().for_each(|n| world.crash(*n, Cut::LoseAll));
            nodes.iter().for_each(|n| world.start(*n));
            world.run_for(Duration::from_secs(5))?;
            world.finish()
        });
        let checker = result.expect_err("acknowledged writes are lost").checker;
        let right = matches!(checker, Checker::Durability | Checker::Linearizability);
        assert!(right, "seed {seed}: found by {checker} only");
    }
}

#[test]
fn a_healing_that_is_not_due_changes_nothing() {
    let mut world = world(70);
    world.heal_all();
    assert!(world.nodes.values().all(|n| n.run == 1), "no node started twice: {:?}", Healing::Control);
    assert!(world.judge_history().is_ok(), "{}", Checker::Linearizability);
}
