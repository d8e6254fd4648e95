//! The map after a majority of control was lost for good: what is given out next is above all that was given out
//! before, what is left of each segment goes on, and who was lost comes back empty.

mod common;

use common::*;
use holdfast_cluster::*;
use holdfast_types::*;
use std::collections::BTreeSet;

fn lost(nodes: impl IntoIterator<Item = u16>) -> BTreeSet<NodeId> {
    nodes.into_iter().map(NodeId).collect()
}

fn start(map: &mut ClusterMap, node: u16, nonce: u64) -> ProcessIncarnation {
    let started = Command::NodeStarted { node: NodeId(node), boot_nonce: nonce, address: format!("n{node}") };
    match apply(map, started).expect("it runs") {
        CommandResult::Incarnation(run) => run,
        other => panic!("{other:?}"),
    }
}

/// What control's leader proposes for segments without an owner is accepted, and activated.
fn take_over(map: &mut ClusterMap) -> usize {
    let grants = plan_grants(map, &BTreeSet::new()).grants;
    for grant in &grants {
        assert_eq!(propose(map, grant.clone()), DONE);
    }
    activate(map);
    grants.len()
}

fn copies(set: &[ReplicaRef]) -> Vec<u16> {
    set.iter().map(|r| r.node.0).collect()
}

#[test]
fn of_two_nodes_the_one_that_is_left_has_everything_and_goes_on() {
    let mut map = cluster(2, 2, 3);
    assert_eq!(losses_without(&map, &lost([2])), []);
    let before = map.clone();
    recover(&mut map, &lost([2]));
    assert_eq!(plan_grants(&map, &BTreeSet::new()).grants, [], "nobody runs yet");
    let run = start(&mut map, 1, 77);
    assert!(run.0 > before.nodes[&NodeId(2)].runs + (1 << 31));
    assert_eq!(take_over(&mut map), 3);
    for (id, info) in &map.segments {
        assert_eq!(copies(&info.active.set), [1], "{id}");
        assert!(info.active.epoch.0 > before.segments[id].granted.epoch.0 + (1 << 31), "{id}");
    }
    // A third host takes what the second one had, at once: it is gone, not away.
    let CommandResult::Node(third) = apply(&mut map, Command::AddNode(new_node(3))).expect("it is admitted")
    else {
        panic!("no node")
    };
    assert!(third.0 > before.next_node, "a host may have joined in what was lost");
    start(&mut map, third.0, 5);
    add_disk(&mut map, third.0, 0);
    let plan = plan_replacements(&map, &GivenUp::default());
    assert_eq!(plan.replacements.len(), 3, "{plan:?}");
    for r in plan.replacements {
        assert_eq!((r.from.node, r.to.node, r.reason), (NodeId(2), third, Reason::Failed));
        assert_eq!(propose(&mut map, r.command), DONE);
    }
    apply(&mut map, Command::RemoveNode { node: NodeId(2) }).expect("nothing of it is needed");
}

#[test]
fn what_only_the_lost_ones_may_have_is_named_before_and_given_up_by_it() {
    let mut map = cluster(3, 3, 1);
    assert_eq!(losses_without(&map, &lost([3])), [], "two of three have every acknowledged write");
    let loss = Loss { volume: "demo".into(), segments: 1, in_doubt: 1, gone: 0 };
    assert_eq!(losses_without(&map, &lost([2, 3])), [loss]);
    // The copy that is left never had the START record.
    let tail = info(&map, 0).active.tail;
    assert!(tail.lsn > Lsn(0));
    recover(&mut map, &lost([2, 3]));
    start(&mut map, 1, 77);
    assert_eq!(plan_grants(&map, &BTreeSet::new()).grants.len(), 1);
    let grant = plan_grants(&map, &BTreeSet::new()).grants[0].clone();
    assert_eq!(propose(&mut map, grant), DONE);
    let key = info(&map, 0).key;
    let epoch = info(&map, 0).granted.epoch;
    let activated =
        SegmentCommand::Activated { segment: key, epoch, tail: LogPosition::new(epoch, tail.lsn) };
    assert_eq!(segment(&mut map, activated), DONE, "its log goes on where it ends");
    assert_eq!(copies(&info(&map, 0).active.set), [1]);
    assert_eq!(info(&map, 0).members.len(), 3, "the lost copies wait for a place");
}

#[test]
fn a_set_that_had_shrunk_to_those_that_are_left_loses_nothing() {
    let mut map = cluster(3, 3, 1);
    let owner = info(&map, 0).granted.owner.0;
    let others: Vec<u16> = (1..=3).filter(|n| *n != owner).collect();
    // One host fails, is dropped, and then a second one.
    down(&mut map, others[0]);
    let grant = SegmentCommand::Grant {
        segment: info(&map, 0).key,
        expect: info(&map, 0).granted.epoch,
        owner: NodeId(owner),
        owner_incarnation: ProcessIncarnation(1),
        set: info(&map, 0).active.set.iter().filter(|r| r.node.0 != others[0]).copied().collect(),
        reason: GrantReason::Drop,
    };
    assert_eq!(segment(&mut map, grant), DONE);
    activate(&mut map);
    for left in [owner, others[1]] {
        let gone: Vec<u16> = (1..=3).filter(|n| *n != left).collect();
        assert_eq!(losses_without(&map, &lost(gone.clone())), []);
        let mut map = map.clone();
        recover(&mut map, &lost(gone));
        start(&mut map, left, 77);
        take_over(&mut map);
        assert_eq!(copies(&info(&map, 0).active.set), [left]);
    }
    // The copy that was dropped is in no S: nothing is made of it.
    let gone = lost((1..=3).filter(|n| *n != others[0]));
    let loss = Loss { volume: "demo".into(), segments: 1, in_doubt: 0, gone: 1 };
    assert_eq!(losses_without(&map, &gone), [loss]);
    recover(&mut map, &gone);
    start(&mut map, others[0], 77);
    assert_eq!(take_over(&mut map), 0, "it waits");
}

#[test]
fn a_set_that_was_granted_may_have_been_activated_in_what_the_log_lacks() {
    let mut map = cluster(3, 3, 1);
    let owner = info(&map, 0).granted.owner.0;
    let others: Vec<u16> = (1..=3).filter(|n| *n != owner).collect();
    let all = info(&map, 0).active.set;
    let grant = |map: &ClusterMap, set: &[ReplicaRef], reason| SegmentCommand::Grant {
        segment: info(map, 0).key,
        expect: info(map, 0).granted.epoch,
        owner: NodeId(owner),
        owner_incarnation: ProcessIncarnation(1),
        set: set.to_vec(),
        reason,
    };
    let two: Vec<_> = all.iter().filter(|r| r.node.0 != others[0]).copied().collect();
    let drop = grant(&map, &two, GrantReason::Drop);
    assert_eq!(segment(&mut map, drop), DONE);
    activate(&mut map);
    assert_eq!(losses_without(&map, &lost([others[0], others[1]])), [], "the owner has everything");
    let add = grant(&map, &all, GrantReason::Add);
    assert_eq!(segment(&mut map, add), DONE);
    // Two of three may have acknowledged without the owner since.
    let loss = Loss { volume: "demo".into(), segments: 1, in_doubt: 1, gone: 0 };
    assert_eq!(losses_without(&map, &lost([others[0], others[1]])), [loss]);
    recover(&mut map, &lost([others[0], others[1]]));
    start(&mut map, owner, 77);
    assert_eq!(take_over(&mut map), 1);
    assert_eq!(copies(&info(&map, 0).active.set), [owner]);
}

#[test]
fn who_was_lost_and_is_found_comes_back_empty() {
    let mut map = cluster(3, 3, 1);
    let nonce = map.disks[&disk_of(3, 0)].boot_nonce;
    recover(&mut map, &lost([2, 3]));
    start(&mut map, 1, 77);
    take_over(&mut map);
    let beat_of_before = Command::NodeUp { node: NodeId(3), incarnation: ProcessIncarnation(1) };
    apply(&mut map, beat_of_before).expect_err("a run of before is not heard");
    start(&mut map, 3, 78);
    // With the very nonce that control knows: the content is given up nevertheless.
    let opened = Command::DiskOpened { disk: disk_of(3, 0), expect_nonce: nonce, new_nonce: 9 };
    let answer = apply(&mut map, opened).expect("it is opened");
    assert_eq!(answer, CommandResult::DiskIncarnation(DiskIncarnation(2)));
    let member = info(&map, 0).members.into_iter().find(|m| m.node == NodeId(3)).expect("a member still");
    assert_eq!(member.incarnation, DiskIncarnation(2));
    assert_eq!(copies(&info(&map, 0).active.set), [1], "and it counts only when it was resynced");
}

#[test]
fn survivors_keep_their_disks_and_tokens_are_forgotten() {
    let mut map = cluster(5, 3, 4);
    let token = Command::CreateToken { hash: TokenHash([7; 32]), expires: UnixSeconds(u64::MAX) };
    apply(&mut map, token).expect("a token");
    let nonce = map.disks[&disk_of(2, 0)].boot_nonce;
    recover(&mut map, &lost([3, 4, 5]));
    assert!(map.tokens.is_empty());
    for survivor in [1, 2] {
        start(&mut map, survivor, 77);
    }
    let opened = Command::DiskOpened { disk: disk_of(2, 0), expect_nonce: nonce, new_nonce: 9 };
    let answer = apply(&mut map, opened).expect("it is opened");
    assert_eq!(answer, CommandResult::DiskIncarnation(DiskIncarnation(1)), "its content counts");
    take_over(&mut map);
    for info in map.segments.values() {
        let left = copies(&info.members).into_iter().filter(|n| *n <= 2).count();
        let active = info.active.epoch == info.granted.epoch;
        // Two of three copies are a seal quorum; one alone became S; with none the segment waits.
        assert_eq!(active, left > 0, "{info:?}");
        assert!(!active || info.active.set.iter().all(|r| r.node.0 <= 2), "{info:?}");
    }
}
