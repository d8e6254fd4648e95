//! Control as a group: joins, forwarding, a leader that is killed, restarts from disk, partitions, a node that
//! lags behind the log.

mod common;

use common::{Cluster, new_node, timings};
use holdfast_cluster::{Command, CommandError, CommandResult};
use holdfast_consensus::{ProposeError, Standing, Timings};
use holdfast_types::*;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

fn pool(name: impl Into<String>) -> Command {
    Command::CreatePool { name: name.into() }
}

fn address(node: u16, n: u64) -> Command {
    // A change that may be repeated: each nonce is another run.
    Command::NodeStarted { node: NodeId(node), boot_nonce: n, address: format!("10.0.0.{node}") }
}

#[test]
fn three_nodes_agree_on_what_a_follower_proposed() {
    let cluster = Cluster::new(3, timings());
    let leader = cluster.leader();
    let follower = if leader == 1 { 2 } else { 1 };
    assert_eq!(cluster.propose(follower, pool("fast")), Ok(CommandResult::Done));
    let refused = CommandError::NameTaken { what: "pool".into(), name: "fast".into() };
    assert_eq!(cluster.propose(follower, pool("fast")), Err(ProposeError::Rejected(refused)));
    let version = cluster.map(leader).version;
    for n in 1..=3 {
        cluster.wait("the pool on every node", |c| {
            (c.map(n).version >= version && c.map(n).pools.contains_key("fast")).then_some(())
        });
        assert_eq!(cluster.map(n), cluster.map(leader));
    }
    let node = &cluster.nodes[&NodeId(follower)];
    let read = node.runtime.block_on(node.control.linearizable_map()).expect("a majority is there");
    assert!(read.version >= version);
    assert_eq!(node.control.metrics().voters, [1, 2, 3].map(NodeId));
}

#[test]
fn bootstrap_and_add_voter_may_be_repeated() {
    let cluster = Cluster::new(2, timings());
    let first = &cluster.nodes[&NodeId(1)];
    let command = |id| Command::Bootstrap { cluster: ClusterId(id), name: "test".into(), first: new_node(1) };
    assert_eq!(
        first.runtime.block_on(first.control.bootstrap(command(7))),
        Ok(CommandResult::Node(NodeId(1)))
    );
    let other = CommandError::AlreadyBootstrapped { have: ClusterId(7) };
    assert_eq!(
        first.runtime.block_on(first.control.bootstrap(command(8))),
        Err(ProposeError::Rejected(other))
    );
    first.runtime.block_on(first.control.add_voter(NodeId(2), "10.0.0.2".into())).expect("it votes already");
    first.runtime.block_on(first.control.remove_voter(NodeId(2))).expect("it can be removed");
    first.runtime.block_on(first.control.remove_voter(NodeId(2))).expect("and again");
    assert_eq!(first.control.metrics().voters, [NodeId(1)]);
}

#[test]
fn a_killed_leader_is_replaced_and_nothing_answered_is_lost() {
    let mut cluster = Cluster::new(3, timings());
    let leader = cluster.leader();
    for i in 0..20 {
        cluster.propose(leader, pool(format!("before-{i}"))).expect("a pool");
    }
    cluster.kill(leader);
    let started = Instant::now();
    let other = *cluster.nodes.keys().next().expect("two are left");
    cluster.propose(other.0, address(other.0, 77)).expect("the others elect a leader");
    println!("a killed leader cost {:?}", started.elapsed());
    // What was answered may have been applied at the leader alone.
    let node = &cluster.nodes[&other];
    let map = node.runtime.block_on(node.control.linearizable_map()).expect("two of three");
    assert!((0..20).all(|i| map.pools.contains_key(&format!("before-{i}"))));
    cluster.start(leader);
    let version = map.version;
    cluster.wait("the killed node catches up", |c| (c.map(leader).version >= version).then_some(()));
}

#[test]
fn a_leader_that_is_to_stop_hands_the_lead_over_and_changes_go_on_at_once() {
    let mut cluster = Cluster::new(3, timings());
    for n in 1..=3 {
        // The lead goes to a node that is up.
        cluster.propose(n, address(n, 7)).expect("a start");
    }
    let leader = cluster.leader();
    let node = &cluster.nodes[&NodeId(leader)];
    assert!(node.runtime.block_on(node.control.hand_over_lead(&BTreeSet::new())), "nobody took the lead");
    assert!(!node.control.is_leader());
    let other = if leader == 1 { 2 } else { 1 };
    cluster.kill(leader);
    let started = Instant::now();
    cluster.propose(other, address(other, 78)).expect("another node leads");
    let took = started.elapsed();
    println!("after the lead was handed over, a change took {took:?}");
    // A leader that is lost costs its lease at least.
    assert!(took < timings().election_max, "{took:?}");
}

#[test]
fn a_node_that_does_not_lead_or_is_alone_hands_no_lead_over() {
    let cluster = Cluster::new(2, timings());
    let leader = cluster.leader();
    let hands_over = |n: u16| {
        let node = &cluster.nodes[&NodeId(n)];
        node.runtime.block_on(node.control.hand_over_lead(&BTreeSet::new()))
    };
    assert!(!hands_over(3 - leader));
    // The other one is not known to be up.
    assert!(!hands_over(leader));
    assert_eq!(cluster.propose(1, pool("after")), Ok(CommandResult::Done));
}

#[test]
fn all_nodes_killed_at_once_come_back_with_everything_answered() {
    let mut cluster = Cluster::new(3, timings());
    for i in 0..10 {
        cluster.propose(1, pool(format!("p{i}"))).expect("a pool");
    }
    for n in 1..=3 {
        cluster.kill(n);
    }
    for n in 1..=3 {
        cluster.start(n);
    }
    cluster.leader();
    for n in 1..=3 {
        cluster.wait("every pool", |c| {
            (0..10).all(|i| c.map(n).pools.contains_key(&format!("p{i}"))).then_some(())
        });
    }
    assert_eq!(cluster.propose(2, pool("after")), Ok(CommandResult::Done));
}

#[test]
fn a_node_killed_in_the_middle_of_proposals_starts_from_its_disk() {
    let mut cluster = Cluster::new(1, timings());
    let control = cluster.nodes[&NodeId(1)].control.clone();
    let answered = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (noted, runtime) = (answered.clone(), cluster.nodes[&NodeId(1)].runtime.handle().clone());
    let stream = runtime.spawn(async move {
        for i in 0.. {
            if control.propose(pool(format!("p{i}"))).await.is_ok() {
                noted.lock().expect("no panic").push(i);
            }
            if i > 5_000 {
                break;
            }
        }
    });
    cluster.wait("some answers", |_| (answered.lock().expect("no panic").len() > 50).then_some(()));
    drop(stream);
    cluster.kill(1);
    let answered = answered.lock().expect("no panic").clone();
    cluster.start(1);
    cluster.leader();
    cluster.propose(1, pool("after")).expect("it goes on");
    let map = cluster.map(1);
    assert!(answered.iter().all(|i| map.pools.contains_key(&format!("p{i}"))), "an answered pool is lost");
}

#[test]
fn a_minority_changes_nothing_and_the_majority_goes_on() {
    let short = Timings { propose: Duration::from_secs(3), ..timings() };
    let cluster = Cluster::new(3, short);
    let leader = cluster.leader();
    let others: Vec<u16> = (1..=3).filter(|n| *n != leader).collect();
    others.iter().for_each(|n| cluster.cut(leader, *n));
    let lonely = cluster.propose(leader, pool("minority"));
    assert!(matches!(lonely, Err(ProposeError::Unknown | ProposeError::Unavailable)), "{lonely:?}");
    let node = &cluster.nodes[&NodeId(leader)];
    assert!(node.runtime.block_on(node.control.linearizable_map()).is_none(), "a minority reads nothing");
    cluster.wait("the majority's leader", |c| {
        others.iter().any(|n| c.nodes[&NodeId(*n)].control.is_leader()).then_some(())
    });
    cluster.propose(others[0], pool("majority")).expect("the majority goes on");
    cluster.heal();
    cluster
        .wait("the cut-off node hears of it", |c| c.map(leader).pools.contains_key("majority").then_some(()));
    // What the old leader had in its log alone was answered to nobody and is cut.
    assert!(!cluster.map(leader).pools.contains_key("minority"));
}

#[test]
fn a_node_that_missed_the_purged_log_gets_a_snapshot() {
    let mut cluster = Cluster::new(3, Timings { snapshot_every: 20, ..timings() });
    cluster.leader();
    cluster.kill(3);
    for i in 0..100 {
        cluster.propose(1, pool(format!("p{i}"))).expect("two of three are enough");
    }
    let leader = cluster.leader();
    let snapshot = cluster.wait("a snapshot", |c| {
        c.nodes[&NodeId(leader)].control.metrics().snapshot.filter(|index| *index > 60)
    });
    cluster.start(3);
    cluster.wait("everything", |c| (c.map(3).pools.len() == 101).then_some(()));
    let metrics = cluster.nodes[&NodeId(3)].control.metrics();
    assert!(metrics.snapshot >= Some(snapshot.min(60)), "it came by snapshot: {metrics:?}");
    // And from its own disk: snapshot first, then the log.
    cluster.kill(3);
    cluster.start(3);
    cluster.wait("everything again", |c| (c.map(3).pools.len() == 101).then_some(()));
}

/// A node is removed as the daemon does it: from the map, then from the group.
fn remove(cluster: &Cluster, by: u16, node: u16) {
    let run = cluster.map(by).nodes[&NodeId(node)].incarnation;
    cluster.propose(by, Command::NodeDown { node: NodeId(node), incarnation: run }).expect("it is down");
    cluster.propose(by, Command::RemoveNode { node: NodeId(node) }).expect("it is removed");
    let first = &cluster.nodes[&NodeId(by)];
    first.runtime.block_on(first.control.remove_voter(NodeId(node))).expect("its vote is gone");
    assert!(first.runtime.block_on(first.control.has_left(NodeId(node), Duration::from_secs(5))));
}

#[test]
fn a_dead_node_that_was_removed_has_no_vote_and_learns_of_it_when_it_is_back() {
    let mut cluster = Cluster::new(4, timings());
    cluster.kill(4);
    remove(&cluster, 1, 4);
    cluster.wait("three voters", |c| (c.nodes[&NodeId(1)].control.metrics().voters.len() == 3).then_some(()));
    // Two of the four are gone: with the dead one's vote there would be no majority.
    let leader = cluster.leader();
    cluster.kill(if leader == 3 { 2 } else { 3 });
    assert_eq!(cluster.propose(1, pool("without-it")), Ok(CommandResult::Done));
    cluster.start(4);
    let removed = cluster.nodes[&NodeId(4)].control.standing();
    cluster.wait("the removed node knows", |_| (*removed.borrow() == Standing::Removed).then_some(()));
    let answer = cluster.propose(4, pool("from-beyond"));
    assert_eq!(answer, Err(ProposeError::Unavailable), "nothing of it is taken");
    assert_eq!(cluster.propose(1, pool("after")), Ok(CommandResult::Done));
    assert!(!cluster.map(1).pools.contains_key("from-beyond"));
}

#[test]
fn a_removed_node_that_only_followed_is_told_when_it_asks() {
    let mut cluster = Cluster::new(8, timings());
    let followers = cluster.nodes[&NodeId(1)].control.metrics().learners;
    assert_eq!(followers, [NodeId(8)], "more than seven do not vote");
    cluster.wait("the follower has the group", |c| {
        (c.nodes[&NodeId(8)].control.metrics().learners == followers).then_some(())
    });
    cluster.kill(8);
    remove(&cluster, 1, 8);
    cluster.start(8);
    let node = &cluster.nodes[&NodeId(8)];
    let removed = node.control.standing();
    assert_eq!(*removed.borrow(), Standing::Member, "nobody has told it");
    let mut turn = 0;
    cluster.wait("somebody that was asked tells it", |_| {
        node.runtime.block_on(node.control.ask_whether_removed(turn, Vec::new()));
        turn += 1;
        (*removed.borrow() == Standing::Removed).then_some(())
    });
}

#[test]
fn garbage_and_impostors_are_answered_and_change_nothing() {
    let cluster = Cluster::new(1, timings());
    let node = &cluster.nodes[&NodeId(1)];
    // A leader's first entry may still be on its way after its election.
    let before = cluster.wait("all that was logged to be applied", |_| {
        let metrics = node.control.metrics();
        (metrics.is_leader && metrics.applied == metrics.last_log).then_some(metrics)
    });
    for garbage in [vec![], vec![1], vec![0xff; 100], vec![1; 9 << 20]] {
        let answer = node.runtime.block_on(node.control.serve(NodeId(9), garbage.into()));
        assert!(!answer.is_empty());
    }
    assert_eq!(node.control.metrics(), before);
}
