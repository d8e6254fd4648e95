//! What an operator gives up: a node with its disks, and what only lost copies may have had.

mod common;

use common::*;
use holdfast_cluster::*;
use holdfast_types::*;
use std::collections::BTreeSet;

fn lose(map: &mut ClusterMap, node: u16, accept_loss: bool) -> Result<CommandResult, CommandError> {
    apply(map, Command::NodeLost { node: NodeId(node), accept_loss })
}

fn salvage(map: &mut ClusterMap) -> Result<CommandResult, CommandError> {
    apply(map, Command::Salvage { volume: VolumeId(1) })
}

fn losses_now(map: &ClusterMap) -> Option<(usize, usize)> {
    losses(map).first().map(|l| (l.in_doubt, l.gone))
}

#[test]
fn a_node_that_is_lost_is_replaced_at_once_and_only_if_others_have_everything() {
    let mut map = cluster(5, 3, 1);
    let carriers: Vec<u16> = info(&map, 0).members.iter().map(|m| m.node.0).collect();
    assert_eq!(
        lose(&mut map, carriers[1], false),
        Err(CommandError::NodeAnswers { node: NodeId(carriers[1]) })
    );
    // More than a third of the nodes is away: what stays away is not replaced, what is lost is.
    down(&mut map, carriers[1]);
    down(&mut map, carriers[2]);
    lose(&mut map, carriers[1], false).expect("two of three are left, one of them away");
    let again = lose(&mut map, carriers[1], false);
    assert_eq!(again, Ok(CommandResult::Done), "a repeat finds it so");
    let would = CommandError::WouldLose { segments: 1 };
    let before = map.clone();
    assert_eq!(lose(&mut map, carriers[2], false), Err(would));
    assert_eq!(map, before);
    let nothing = CommandError::NothingToSalvage { name: "demo".into(), gone: 0 };
    assert_eq!(salvage(&mut map), Err(nothing), "who is away is waited for");
    lose(&mut map, carriers[2], true).expect("it is accepted");
    assert_eq!(losses_now(&map), Some((1, 0)));
    assert_eq!(plan_grants(&map, &BTreeSet::new()).grants, [], "nothing goes on by itself");
    salvage(&mut map).expect("one copy is left");
    assert_eq!(losses_now(&map), None);
    let grants = plan_grants(&map, &BTreeSet::new()).grants;
    assert_eq!(grants.len(), 1);
    assert_eq!(propose(&mut map, grants[0].clone()), DONE);
    activate(&mut map);
    let set: Vec<u16> = info(&map, 0).active.set.iter().map(|r| r.node.0).collect();
    assert_eq!(set, [carriers[0]]);
    for _ in 0..2 {
        let plan = plan_replacements(&map, &GivenUp::default());
        assert_eq!(plan.replacements[0].reason, Reason::Failed, "{plan:?}");
        assert_eq!(propose(&mut map, plan.replacements[0].command.clone()), DONE);
    }
    for lost in [carriers[1], carriers[2]] {
        apply(&mut map, Command::RemoveNode { node: NodeId(lost) }).expect("nothing of it is needed");
    }
}

#[test]
fn a_disk_that_is_not_found_is_waited_for_until_it_is_said_to_be_lost() {
    let mut map = cluster(3, 3, 1);
    let lose = |map: &mut ClusterMap, node: u16, accept_loss: bool| {
        apply(map, Command::DiskLost { disk: disk_of(node, 0), accept_loss })
    };
    assert_eq!(lose(&mut map, 1, true), Err(CommandError::DiskServes { disk: disk_of(1, 0) }));
    for node in [1, 2] {
        let missing = Command::DiskMissing { disk: disk_of(node, 0), incarnation: DiskIncarnation(1) };
        apply(&mut map, missing).expect("it is not found");
    }
    assert_eq!(losses_now(&map), None, "they may be found");
    lose(&mut map, 1, false).expect("the other one may be found");
    assert_eq!(lose(&mut map, 2, false), Err(CommandError::WouldLose { segments: 1 }));
    assert_eq!(map.disks[&disk_of(2, 0)].state, DiskState::Missing);
    lose(&mut map, 2, true).expect("it is accepted");
    assert_eq!(losses_now(&map), Some((1, 0)));
    // Found after all, it starts empty.
    let opened = Command::DiskOpened { disk: disk_of(2, 0), expect_nonce: 1, new_nonce: 2 };
    let answer = apply(&mut map, opened).expect("it is opened");
    assert_eq!(answer, CommandResult::DiskIncarnation(DiskIncarnation(2)));
}

#[test]
fn a_silent_disk_of_a_node_that_answers_may_be_given_up() {
    let mut map = cluster(3, 3, 1);
    let disk = disk_of(1, 0);
    let silent = Command::DiskSilent { disk, incarnation: DiskIncarnation(1), silent: true };
    apply(&mut map, silent).expect("control is told");
    assert_eq!(losses_now(&map), None, "it may answer again");
    apply(&mut map, Command::DiskLost { disk, accept_loss: false }).expect("two others are left");
    assert_eq!(map.disks[&disk].state, DiskState::Failed);
    let answers = Command::DiskSilent { disk, incarnation: DiskIncarnation(1), silent: false };
    apply(&mut map, answers).expect("control is told");
    assert_eq!(map.disks[&disk].state, DiskState::Failed, "for good");
}

#[test]
fn a_slow_disk_may_be_given_up_although_it_serves() {
    let mut map = cluster(3, 3, 1);
    let lose = |map: &mut ClusterMap, node: u16| {
        apply(map, Command::DiskLost { disk: disk_of(node, 0), accept_loss: false })
    };
    for node in 1..=3 {
        let incarnation = DiskIncarnation(1);
        let slow = Command::DiskSlow { disk: disk_of(node, 0), incarnation, slow: true };
        apply(&mut map, slow).expect("control is told");
    }
    lose(&mut map, 1).expect("two others are left");
    assert_eq!(map.disks[&disk_of(1, 0)].state, DiskState::Failed);
    assert_eq!(lose(&mut map, 2), Err(CommandError::WouldLose { segments: 1 }), "slow is not gone");
}

#[test]
fn two_failed_disks_of_three_need_an_operators_word_and_a_set_without_copies_has_none() {
    let mut map = cluster(3, 3, 2);
    let fail = |map: &mut ClusterMap, node: u16| {
        let failed = Command::DiskFailed { disk: disk_of(node, 0), incarnation: DiskIncarnation(1) };
        apply(map, failed).expect("it has failed");
    };
    fail(&mut map, 1);
    fail(&mut map, 2);
    assert_eq!(losses_now(&map), Some((2, 0)));
    // One that was emptied meanwhile counts no more than one that failed.
    let opened = Command::DiskOpened { disk: disk_of(1, 0), expect_nonce: 1, new_nonce: 2 };
    apply(&mut map, opened).expect("it is opened");
    assert_eq!(losses_now(&map), Some((2, 0)));
    let mut gone = map.clone();
    salvage(&mut map).expect("one copy is left");
    assert!(map.segments.values().all(|s| s.active.set.len() == 1 && s.active.set[0].node == NodeId(3)));
    let nothing = CommandError::NothingToSalvage { name: "demo".into(), gone: 0 };
    assert_eq!(salvage(&mut map), Err(nothing));
    fail(&mut gone, 3);
    let nothing = CommandError::NothingToSalvage { name: "demo".into(), gone: 2 };
    assert_eq!(salvage(&mut gone), Err(nothing));
    assert_eq!(losses_now(&gone), Some((0, 2)));
}
