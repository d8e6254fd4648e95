//! Lost copies are placed anew: what the planner proposes and when it does not, and what `apply` makes of it.

mod common;

use common::*;
use holdfast_cluster::*;
use holdfast_types::*;
use std::collections::BTreeSet;

/// The owner drops what does not answer, as it does by itself.
fn owners_drop(map: &mut ClusterMap) {
    let segments: Vec<_> = map.segments.values().cloned().collect();
    for info in segments {
        let set: Vec<_> = info.active.set.iter().filter(|r| map.reachable(r)).copied().collect();
        let owner_lives = set.iter().any(|r| r.node == info.granted.owner);
        let sealed = owner_lives && set.len() >= seal_quorum(info.active.set.len());
        if sealed && set.len() < info.active.set.len() {
            let grant = SegmentCommand::Grant {
                segment: info.key,
                expect: info.granted.epoch,
                owner: info.granted.owner,
                owner_incarnation: info.granted.owner_incarnation,
                set,
                reason: GrantReason::Drop,
            };
            assert_eq!(segment(map, grant), DONE);
        }
    }
    activate(map);
}

fn none() -> GivenUp {
    GivenUp::default()
}

fn nodes(nodes: impl IntoIterator<Item = NodeId>) -> GivenUp {
    GivenUp { nodes: nodes.into_iter().collect(), ..GivenUp::default() }
}

/// A node that owns nothing of segment 0 and has a copy of it, and one that has none.
fn follower_and_spare(map: &ClusterMap) -> (u16, u16) {
    let info = info(map, 0);
    let follower = info.members.iter().find(|m| m.node != info.granted.owner).expect("another copy");
    let spare = map.nodes.keys().find(|n| info.members.iter().all(|m| m.node != **n)).expect("a spare node");
    (follower.node.0, spare.0)
}

#[test]
fn a_node_that_stays_away_is_replaced_only_after_the_wait_and_only_out_of_the_set() {
    let mut map = cluster(4, 3, 1);
    let (lost, spare) = follower_and_spare(&map);
    down(&mut map, lost);
    assert_eq!(plan_replacements(&map, &none()), ReplacementPlan::default(), "it may come back");
    let away = nodes([NodeId(lost)]);
    let plan = plan_replacements(&map, &away);
    assert!(plan.drops.is_empty() && plan.replacements.is_empty(), "its owner has not dropped it: {plan:?}");
    owners_drop(&mut map);
    let plan = plan_replacements(&map, &away);
    assert_eq!(plan.replacements.len(), 1, "{plan:?}");
    let r = plan.replacements[0].clone();
    assert_eq!((r.from.disk, r.to.disk, r.reason), (disk_of(lost, 0), disk_of(spare, 0), Reason::Away));
    let before = info(&map, 0);
    assert_eq!(propose(&mut map, r.command.clone()), DONE);
    let after = info(&map, 0);
    assert_eq!((&before.active, &before.granted), (&after.active, &after.granted), "no S is touched");
    assert!(after.members.contains(&r.to) && !after.members.contains(&r.from));
    assert_eq!(map.tombstones[&r.segment].copies, vec![r.from]);
    // A repeat is one, and the plan is done.
    assert_eq!(propose(&mut map, r.command), DONE);
    assert_eq!(map.tombstones[&r.segment].copies, vec![r.from]);
    assert_eq!(plan_replacements(&map, &away), ReplacementPlan::default());
}

#[test]
fn a_failed_disk_is_dropped_and_replaced_at_once_by_its_nodes_other_disk() {
    let mut map = cluster(4, 3, 1);
    let (lost, _) = follower_and_spare(&map);
    add_disk(&mut map, lost, 1);
    let failed = Command::DiskFailed { disk: disk_of(lost, 0), incarnation: DiskIncarnation(1) };
    apply(&mut map, failed).expect("it fails");
    let plan = plan_replacements(&map, &none());
    assert_eq!((plan.drops.len(), plan.replacements.len()), (1, 0), "first it leaves S: {plan:?}");
    assert_eq!(propose(&mut map, plan.drops[0].clone()), DONE);
    assert_eq!(plan_replacements(&map, &none()), ReplacementPlan::default(), "the drop is not active yet");
    activate(&mut map);
    let plan = plan_replacements(&map, &none());
    let r = plan.replacements[0].clone();
    assert_eq!((r.to.disk, r.reason), (disk_of(lost, 1), Reason::Failed));
    assert_eq!(propose(&mut map, r.command), DONE);
}

/// S without it outlives the loss of one more, which S with it does not.
#[test]
fn a_failed_disk_leaves_the_set_although_no_other_one_can_take_its_place() {
    let mut map = cluster(3, 3, 40);
    let failed = Command::DiskFailed { disk: disk_of(3, 0), incarnation: DiskIncarnation(1) };
    apply(&mut map, failed).expect("it fails");
    let mut plans = 0;
    while map.segments.values().any(|s| s.active.set.iter().any(|r| r.node == NodeId(3))) {
        owners_take_over(&mut map);
        let plan = plan_replacements(&map, &none());
        assert!(plan.replacements.is_empty() && plan.unplaced.len() == 40, "{plan:?}");
        assert!(plan.drops.len() <= 32, "not all at once: {}", plan.drops.len());
        for drop in plan.drops {
            assert_eq!(propose(&mut map, drop), DONE);
        }
        activate(&mut map);
        plans += 1;
        assert!(plans < 5, "the copies do not leave");
    }
}

#[test]
fn a_copy_of_a_disk_that_began_anew_leaves_the_set() {
    let mut map = cluster(3, 3, 1);
    let owner = info(&map, 0).granted.owner;
    let anew = info(&map, 0).members.iter().find(|m| m.node != owner).expect("another copy").node.0;
    let begin =
        Command::NewDiskIncarnation { disk: disk_of(anew, 0), expect: DiskIncarnation(1), boot_nonce: 77 };
    apply(&mut map, begin).expect("it begins anew");
    let plan = plan_replacements(&map, &none());
    assert_eq!((plan.drops.len(), plan.replacements.len()), (1, 0), "{plan:?}");
    assert_eq!(propose(&mut map, plan.drops[0].clone()), DONE);
    activate(&mut map);
    assert!(info(&map, 0).active.set.iter().all(|r| r.node != NodeId(anew)));
    assert_eq!(plan_replacements(&map, &none()), ReplacementPlan::default());
}

#[test]
fn nothing_is_planned_for_nodes_when_more_than_a_third_is_away_but_for_disks_it_is() {
    let mut map = cluster(5, 3, 8);
    let away = nodes([NodeId(4), NodeId(5)]);
    down(&mut map, 5);
    owners_drop_and_take_over(&mut map);
    assert!(!plan_replacements(&map, &away).replacements.is_empty(), "one of five");
    down(&mut map, 4);
    owners_drop_and_take_over(&mut map);
    let plan = plan_replacements(&map, &away);
    assert_eq!(plan, ReplacementPlan::default(), "two of five: an outage, not a host");
    // A disk of a node that answers is known to be lost.
    let failed = Command::DiskFailed { disk: disk_of(1, 0), incarnation: DiskIncarnation(1) };
    apply(&mut map, failed).expect("it fails");
    add_disk(&mut map, 1, 1);
    owners_drop_and_take_over(&mut map);
    let plan = plan_replacements(&map, &away);
    let of_disk = |r: &Replacement| r.reason == Reason::Failed && r.to.disk == disk_of(1, 1);
    assert!(!plan.replacements.is_empty() && plan.replacements.iter().all(of_disk), "{plan:?}");
}

fn owners_drop_and_take_over(map: &mut ClusterMap) {
    owners_take_over(map);
    owners_drop(map);
}

fn owners_take_over(map: &mut ClusterMap) {
    for grant in plan_grants(map, &BTreeSet::new()).grants {
        assert_eq!(propose(map, grant), DONE);
    }
    activate(map);
}

#[test]
fn only_a_few_copies_are_under_way_at_a_time() {
    let mut map = cluster(4, 3, 40);
    let away = nodes([NodeId(4)]);
    down(&mut map, 4);
    owners_drop_and_take_over(&mut map);
    let plan = plan_replacements(&map, &away);
    assert_eq!(plan.replacements.len(), 4);
    for r in plan.replacements {
        assert_eq!(propose(&mut map, r.command), DONE);
    }
    assert!(plan_replacements(&map, &away).replacements.is_empty(), "four are being resynced");
    // One is there: the next may go.
    let learning = map
        .segments
        .values()
        .find(|s| s.active.set.len() < s.members.len() && { s.members.iter().all(|m| map.reachable(m)) });
    let s = learning.expect("one learns").clone();
    let add = SegmentCommand::Grant {
        segment: s.key,
        expect: s.granted.epoch,
        owner: s.granted.owner,
        owner_incarnation: s.granted.owner_incarnation,
        set: s.members.clone(),
        reason: GrantReason::Add,
    };
    assert_eq!(segment(&mut map, add), DONE);
    activate(&mut map);
    assert_eq!(plan_replacements(&map, &away).replacements.len(), 1);
}

#[test]
fn without_a_spare_disk_the_plan_says_where_room_is_missing() {
    let mut map = cluster(3, 3, 1);
    let info = info(&map, 0);
    let lost = *info.members.iter().find(|m| m.node != info.granted.owner).expect("another copy");
    down(&mut map, lost.node.0);
    owners_drop(&mut map);
    let plan = plan_replacements(&map, &nodes([lost.node]));
    let unplaced = Unplaced { segment: info.key, copy: lost, pool: "default".into(), reason: Reason::Away };
    assert_eq!((plan.replacements, plan.unplaced), (vec![], vec![unplaced]));
}

#[test]
fn what_breaks_a_rule_is_refused_and_what_is_late_is_stale() {
    let mut map = cluster(5, 3, 1);
    let (lost, spare) = follower_and_spare(&map);
    let copy = |node: u16| ReplicaRef {
        node: NodeId(node),
        disk: disk_of(node, 0),
        incarnation: DiskIncarnation(1),
    };
    let replace = |map: &ClusterMap, from, to| {
        let info = info(map, 0);
        Single::ReplaceCopy { segment: info.key, expect: info.granted.epoch, from, to }
    };
    let (from, to) = (copy(lost), copy(spare));
    let early = replace(&map, from, to);
    assert_eq!(propose(&mut map, early.clone()), REFUSED, "it is in S");
    down(&mut map, lost);
    owners_drop(&mut map);
    let granted = info(&map, 0).granted;
    assert_eq!(propose(&mut map, early), SegmentCommandResult::Stale { granted: granted.epoch });
    let owner = replace(&map, from, copy(granted.owner.0));
    assert_eq!(propose(&mut map, owner), REFUSED, "that node has a copy");
    let older = replace(&map, from, ReplicaRef { incarnation: DiskIncarnation(0), ..to });
    assert_eq!(propose(&mut map, older), REFUSED, "another incarnation of the disk");
    let itself = replace(&map, from, from);
    assert_eq!(propose(&mut map, itself), REFUSED, "its node is down, and it is the same disk");
    let full = Command::DiskFree { disk: to.disk, size: 10 << 30, free: 0 };
    apply(&mut map, full).expect("it is full");
    let no_room = replace(&map, from, to);
    assert_eq!(propose(&mut map, no_room.clone()), REFUSED, "no room");
    apply(&mut map, Command::DiskFree { disk: to.disk, size: 10 << 30, free: 9 << 30 }).expect("it has room");
    assert_eq!(propose(&mut map, no_room), DONE);
    // Granted and not yet active: S' counts as well.
    let s = info(&map, 0);
    let add = SegmentCommand::Grant {
        segment: s.key,
        expect: s.granted.epoch,
        owner: s.granted.owner,
        owner_incarnation: s.granted.owner_incarnation,
        set: s.members.clone(),
        reason: GrantReason::Add,
    };
    assert_eq!(segment(&mut map, add), DONE);
    let other = (1..=5).find(|n| s.members.iter().all(|m| m.node.0 != *n) && *n != lost).expect("a fifth");
    let added = replace(&map, to, copy(other));
    assert_eq!(propose(&mut map, added), REFUSED, "it is in the granted S");
}

#[test]
fn the_old_copy_is_freed_when_it_is_back_and_no_copy_is_placed_over_it_before() {
    let mut map = cluster(4, 3, 1);
    let (lost, spare) = follower_and_spare(&map);
    down(&mut map, lost);
    owners_drop(&mut map);
    let first = plan_replacements(&map, &nodes([NodeId(lost)])).replacements[0].clone();
    assert_eq!(propose(&mut map, first.command), DONE);
    // The old node is back, and the new disk fails before it was resynced.
    let started = Command::NodeStarted { node: NodeId(lost), boot_nonce: 9, address: "x".into() };
    apply(&mut map, started).expect("it is back");
    let failed = Command::DiskFailed { disk: disk_of(spare, 0), incarnation: DiskIncarnation(1) };
    apply(&mut map, failed).expect("it fails");
    let plan = plan_replacements(&map, &none());
    assert_eq!(
        (plan.replacements.len(), plan.unplaced.len()),
        (0, 1),
        "the old copy is not freed yet: {plan:?}"
    );
    let freed = Command::SegmentFreed { segment: first.segment, disk: disk_of(lost, 0) };
    for _ in 0..2 {
        assert_eq!(apply(&mut map, freed.clone()), Ok(CommandResult::Done), "and so is a repeat");
    }
    assert!(map.tombstones.is_empty());
    let again = plan_replacements(&map, &none()).replacements[0].clone();
    assert_eq!(again.to.disk, disk_of(lost, 0));
    assert_eq!(propose(&mut map, again.command), DONE);
    // What is said late of the copy that was there before means nothing to the one that is there now.
    let before = map.clone();
    let _ = apply(&mut map, freed);
    assert_eq!(map, before);
}

#[test]
fn a_deleted_volume_frees_its_copies_and_those_that_were_replaced() {
    let mut map = cluster(4, 3, 1);
    let (lost, _) = follower_and_spare(&map);
    down(&mut map, lost);
    owners_drop(&mut map);
    let r = plan_replacements(&map, &nodes([NodeId(lost)])).replacements[0].clone();
    assert_eq!(propose(&mut map, r.command), DONE);
    apply(&mut map, Command::DeleteVolume { volume: VolumeId(1) }).expect("it is deleted");
    assert_eq!(map.tombstones[&r.segment].copies.len(), 4);
}

fn at(seconds: u64) -> Time {
    Time(seconds * 1_000_000_000)
}

/// What is given up after ten seconds, by one who saw this map at that time.
fn given_up(patience: &mut Patience, seconds: u64, map: &ClusterMap) -> GivenUp {
    patience.look(at(seconds), map);
    patience.given_up(at(seconds), Duration::from_secs(10))
}

/// The owner grants S without the copy on that node, or with it.
fn grant_set(map: &mut ClusterMap, index: u32, reason: GrantReason, set: Vec<ReplicaRef>) {
    let s = info(map, index);
    let grant = SegmentCommand::Grant {
        segment: s.key,
        expect: s.granted.epoch,
        owner: s.granted.owner,
        owner_incarnation: s.granted.owner_incarnation,
        set,
        reason,
    };
    assert_eq!(segment(map, grant), DONE);
}

fn leave(map: &mut ClusterMap, index: u32, node: u16) {
    let set = info(map, index).active.set.into_iter().filter(|r| r.node.0 != node).collect();
    grant_set(map, index, GrantReason::Drop, set);
    activate(map);
}

fn free(map: &mut ClusterMap, disk: DiskId, free: u64) {
    apply(map, Command::DiskFree { disk, size: 10 << 30, free }).expect("control is told");
}

#[test]
fn what_is_on_a_disk_that_stays_silent_is_placed_anew_after_the_wait() {
    let mut map = cluster(4, 3, 1);
    let (follower, spare) = follower_and_spare(&map);
    let (from, to) = (disk_of(follower, 0), disk_of(spare, 0));
    let silent = |silent| Command::DiskSilent { disk: from, incarnation: DiskIncarnation(1), silent };
    let mut patience = Patience::default();
    apply(&mut map, silent(true)).expect("control is told");
    given_up(&mut patience, 0, &map);
    let early = given_up(&mut patience, 9, &map);
    assert_eq!(plan_replacements(&map, &early), ReplacementPlan::default(), "it may answer again");
    apply(&mut map, silent(false)).expect("control is told");
    given_up(&mut patience, 10, &map);
    apply(&mut map, silent(true)).expect("control is told");
    given_up(&mut patience, 11, &map);
    assert_eq!(plan_replacements(&map, &given_up(&mut patience, 20, &map)), ReplacementPlan::default());
    let late = given_up(&mut patience, 21, &map);
    let plan = plan_replacements(&map, &late);
    assert_eq!((plan.drops.len(), plan.replacements.len()), (1, 0), "first it leaves S: {plan:?}");
    leave(&mut map, 0, follower);
    let r = plan_replacements(&map, &late).replacements.pop().expect("there is a spare node");
    assert_eq!((r.from.disk, r.to.disk, r.reason), (from, to, Reason::Silent));
}

#[test]
fn a_copy_that_lacks_room_moves_after_the_wait_to_a_disk_with_room_for_all_of_it() {
    let mut map = cluster(4, 3, 1);
    let (follower, spare) = follower_and_spare(&map);
    let (from, to) = (disk_of(follower, 0), disk_of(spare, 0));
    free(&mut map, from, 0);
    let mut patience = Patience::default();
    given_up(&mut patience, 0, &map);
    let all = given_up(&mut patience, 60, &map);
    assert_eq!(plan_replacements(&map, &all), ReplacementPlan::default(), "a copy of S stays where it is");
    leave(&mut map, 0, follower);
    given_up(&mut patience, 70, &map);
    let early = given_up(&mut patience, 79, &map);
    assert_eq!(plan_replacements(&map, &early), ReplacementPlan::default(), "there may be room again");
    let late = given_up(&mut patience, 80, &map);
    // A gibibyte and the hundredth of the disk that control may not have heard of.
    free(&mut map, to, 1 << 30);
    let plan = plan_replacements(&map, &late);
    let reasons: Vec<_> = plan.unplaced.iter().map(|u| (u.copy.disk, u.reason)).collect();
    assert_eq!(
        (reasons, plan.replacements),
        (vec![(from, Reason::NoRoom)], vec![]),
        "it would fill that, too"
    );
    free(&mut map, to, (1 << 30) + (10 << 30) / 100);
    let plan = plan_replacements(&map, &late);
    assert_eq!((plan.drops.len(), plan.unplaced.len(), plan.replacements.len()), (0, 0, 1), "{plan:?}");
    let r = plan.replacements[0].clone();
    assert_eq!((r.from.disk, r.to.disk, r.reason), (from, to, Reason::NoRoom));
    let before = info(&map, 0);
    assert_eq!(propose(&mut map, r.command), DONE);
    let after = info(&map, 0);
    assert_eq!((&before.active, &before.granted), (&after.active, &after.granted), "no S is touched");
    assert_eq!(map.tombstones[&r.segment].copies, vec![r.from]);
    let next = given_up(&mut patience, 200, &map);
    assert_eq!(plan_replacements(&map, &next), ReplacementPlan::default(), "and there it stays");
}

#[test]
fn room_for_a_copy_that_is_short_of_it_or_a_copy_that_got_into_its_set_begins_the_wait_anew() {
    let mut map = cluster(3, 3, 2);
    let node =
        (1..=3).find(|n| (0..2).all(|i| info(&map, i).granted.owner.0 != *n)).expect("it owns nothing");
    leave(&mut map, 0, node);
    leave(&mut map, 1, node);
    let full = disk_of(node, 0);
    let mut patience = Patience::default();
    free(&mut map, full, 0);
    assert!(given_up(&mut patience, 0, &map).copies.is_empty());
    // A little is no room: whoever is quicker takes it. But then it is not the moment to move a copy.
    free(&mut map, full, 1 << 20);
    let late = given_up(&mut patience, 10, &map);
    assert_eq!(late.copies.len(), 2);
    assert!(plan_replacements(&map, &late).unplaced.is_empty(), "there is some room");
    free(&mut map, full, 0);
    assert_eq!(plan_replacements(&map, &late).unplaced.len(), 2);
    // One is there: the other one may only have waited for it.
    let members = info(&map, 0).members;
    grant_set(&mut map, 0, GrantReason::Add, members);
    assert!(given_up(&mut patience, 11, &map).copies.is_empty(), "it is granted");
    activate(&mut map);
    assert!(given_up(&mut patience, 20, &map).copies.is_empty());
    assert_eq!(given_up(&mut patience, 21, &map).copies.len(), 1);
    free(&mut map, full, 1 << 30);
    assert!(given_up(&mut patience, 22, &map).copies.is_empty(), "the disk is not even nearly full any more");
    free(&mut map, full, 0);
    assert!(given_up(&mut patience, 31, &map).copies.is_empty());
    down(&mut map, node);
    given_up(&mut patience, 35, &map);
    let up = Command::NodeUp { node: NodeId(node), incarnation: ProcessIncarnation(1) };
    apply(&mut map, up).expect("it is back");
    assert!(given_up(&mut patience, 41, &map).copies.is_empty(), "it was away in between");
}

#[test]
fn one_copy_at_a_time_leaves_a_full_disk_and_a_target_is_not_promised_twice() {
    let mut map = cluster(5, 3, 10);
    let follows = |map: &ClusterMap, index: u32, node: u16| {
        let info = info(map, index);
        info.granted.owner.0 != node && info.members.iter().any(|m| m.node.0 == node)
    };
    let on = |map: &ClusterMap, node| (0..10).filter(|i| follows(map, *i, node)).collect::<Vec<u32>>();
    let node = (1..=5).max_by_key(|n| on(&map, *n).len()).expect("there are five");
    let on_it = on(&map, node);
    assert!(on_it.len() > 2, "{on_it:?}");
    on_it.iter().for_each(|i| leave(&mut map, *i, node));
    let full = disk_of(node, 0);
    free(&mut map, full, 0);
    // Room for one whole segment on each of the others.
    (1..=5).filter(|n| *n != node).for_each(|n| free(&mut map, disk_of(n, 0), 2 << 30));
    let all = GivenUp::at_once(&map, BTreeSet::new());
    assert_eq!(all.copies.len(), on_it.len());
    let mut taken = BTreeSet::new();
    loop {
        let plan = plan_replacements(&map, &all);
        assert!(plan.replacements.len() <= 1, "{plan:?}");
        let Some(r) = plan.replacements.first().cloned() else {
            assert!(!plan.unplaced.is_empty() || taken.len() == on_it.len(), "{plan:?}");
            break;
        };
        assert!(taken.insert(r.to.disk), "a disk with room for one is promised to two");
        assert_eq!(propose(&mut map, r.command), DONE);
        assert!(plan_replacements(&map, &all).replacements.is_empty(), "it is giving back room");
        let freed = Command::SegmentFreed { segment: r.segment, disk: full };
        apply(&mut map, freed).expect("it is freed");
    }
    assert!(taken.len() > 1, "{taken:?}");
}
