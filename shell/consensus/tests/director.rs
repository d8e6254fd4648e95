//! The director: a killed owner's segments are granted to another node in time, a node that is back is up
//! again, a new run of a node takes over what its old run owned.

mod common;

use common::{Cluster, timings};
use holdfast_cluster::{Command, CommandResult, NodeState, TokenHash, UnixSeconds};
use holdfast_types::*;
use std::time::{Duration, Instant};

fn volume(cluster: &Cluster, copies: u8) {
    let create = Command::CreateVolume {
        name: "demo".into(),
        size: 6 << 30,
        copies,
        pool: "default".into(),
        created: UnixSeconds(1),
    };
    assert_eq!(cluster.propose(1, create), Ok(CommandResult::Volume(VolumeId(1))));
    activate_all(cluster);
}

/// Stands in for the owners.
fn activate_all(cluster: &Cluster) {
    let at = *cluster.nodes.keys().next().expect("a node");
    for info in cluster.map(at.0).segments.values() {
        let tail = LogPosition::new(info.granted.epoch, info.active.tail.lsn.next());
        let command = SegmentCommand::Activated { segment: info.key, epoch: info.granted.epoch, tail };
        cluster.propose(at.0, Command::Segment(command)).expect("activated");
    }
}

fn running(count: u16) -> Cluster {
    let mut cluster = Cluster::new(count, timings());
    for n in 1..=count {
        drop(cluster.run_node(n, 100 + u64::from(n)));
    }
    cluster
}

#[test]
fn a_killed_follower_is_down_and_its_segments_have_other_owners_within_three_seconds() {
    let mut cluster = running(3);
    volume(&cluster, 3);
    let leader = cluster.leader();
    let victim = if leader == 1 { 2 } else { 1 };
    let owned = cluster.map(leader).segments.values().filter(|s| s.granted.owner == NodeId(victim)).count();
    assert_eq!(owned, 2, "owners are spread");
    cluster.kill(victim);
    let started = Instant::now();
    cluster.wait("other owners", |c| {
        let map = c.map(leader);
        let gone = map.segments.values().all(|s| s.granted.owner != NodeId(victim));
        (gone && map.nodes[&NodeId(victim)].state == NodeState::Down).then_some(())
    });
    println!("a killed owner's segments were granted anew after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(3));
    let map = cluster.map(leader);
    let moved: Vec<_> = map.segments.values().filter(|s| s.granted.epoch == Epoch(2)).collect();
    assert_eq!(moved.len(), owned, "nothing else is granted anew");
    assert!(
        moved.iter().all(|s| s.granted.set.len() == 3),
        "the dead copy stays in S: two of three are there"
    );
}

#[test]
fn a_killed_leader_that_owned_segments_is_replaced_in_both() {
    let mut cluster = running(3);
    volume(&cluster, 3);
    let leader = cluster.leader();
    cluster.kill(leader);
    let started = Instant::now();
    let other = cluster.nodes.keys().next().expect("two are left").0;
    cluster.wait("other owners", |c| {
        c.map(other).segments.values().all(|s| s.granted.owner != NodeId(leader)).then_some(())
    });
    println!("a killed leader's segments were granted anew after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_two_copy_segment_drops_the_dead_copy() {
    let mut cluster = running(3);
    volume(&cluster, 2);
    let leader = cluster.leader();
    let victim = if leader == 1 { 2 } else { 1 };
    cluster.kill(victim);
    cluster.wait("sets without the dead copy", |c| {
        c.map(leader)
            .segments
            .values()
            .all(|s| s.granted.set.iter().all(|r| r.node != NodeId(victim)))
            .then_some(())
    });
    let map = cluster.map(leader);
    assert!(map.segments.values().all(|s| s.members.len() == 2), "it stays a member, to be resynced");
}

#[test]
fn a_new_run_of_a_node_is_granted_what_its_old_run_owned() {
    let mut cluster = running(3);
    volume(&cluster, 3);
    let leader = cluster.leader();
    let victim = if leader == 1 { 2 } else { 1 };
    let owned = |c: &Cluster, run: u64| {
        let map = c.map(leader);
        let of = |s: &&std::sync::Arc<SegmentInfo>| {
            s.granted.owner == NodeId(victim) && s.granted.owner_incarnation == ProcessIncarnation(run)
        };
        map.segments.values().filter(of).count()
    };
    let before = owned(&cluster, 1);
    assert_eq!(before, 2);
    cluster.kill(victim);
    cluster.start(victim);
    // Back before it is missed: its new run alone makes the grants.
    drop(cluster.run_node(victim, 999));
    cluster.wait("grants to the new run, or to others", |c| (owned(c, 1) == 0).then_some(()));
    cluster.wait("the node is up", |c| {
        (c.map(leader).nodes[&NodeId(victim)].state == NodeState::Up).then_some(())
    });
}

#[test]
fn the_next_run_of_a_dead_node_is_not_taken_for_the_dead_one() {
    let mut cluster = running(3);
    let leader = cluster.leader();
    let victim = if leader == 1 { 2 } else { 1 };
    cluster.kill(victim);
    cluster.wait("down", |c| (c.map(leader).nodes[&NodeId(victim)].state == NodeState::Down).then_some(()));
    cluster.start(victim);
    drop(cluster.run_node(victim, 999));
    // By then the director has acted on the map that has the new run.
    cluster.wait_beat(leader, victim);
    let token = Command::CreateToken { hash: TokenHash([1; 32]), expires: UnixSeconds(1) };
    cluster.propose(leader, token).expect("what the director proposed is decided");
    let node = cluster.map(leader).nodes[&NodeId(victim)].clone();
    assert_eq!(node.state, NodeState::Up);
    // One that is found dead loses the number of its gateway, and its sessions have to be registered anew.
    assert_eq!(node.incarnation.0, node.runs, "this run was taken for dead meanwhile");
}

#[test]
fn a_node_that_was_cut_off_is_up_again_when_it_is_heard() {
    let cluster = running(3);
    let leader = cluster.leader();
    let victim = if leader == 1 { 2 } else { 1 };
    let state = |c: &Cluster| c.map(leader).nodes[&NodeId(victim)].state;
    (1..=3).filter(|n| *n != victim).for_each(|n| cluster.cut(victim, n));
    cluster.wait("down", |c| (state(c) == NodeState::Down).then_some(()));
    cluster.heal();
    let anyone = |c: &Cluster| c.map(c.leader()).nodes[&NodeId(victim)].state;
    cluster.wait("up", |c| (anyone(c) == NodeState::Up).then_some(()));
}
