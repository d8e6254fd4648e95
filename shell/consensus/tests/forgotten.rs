//! A node whose database is gone or damaged: to the group it is as one that is down, until it was let in anew.

mod common;

use common::{Cluster, timings};
use holdfast_cluster::{Command, CommandResult};
use holdfast_consensus::ProposeError;
use holdfast_types::*;
use std::path::PathBuf;

fn make_pool(cluster: &Cluster, n: u16, name: &str) -> Result<CommandResult, ProposeError> {
    cluster.propose(n, Command::CreatePool { name: name.into() })
}

/// The leader lets it in again.
fn let_in(cluster: &Cluster, leader: u16, n: u16) {
    let node = &cluster.nodes[&NodeId(leader)];
    let heard = node.control.forgetful();
    cluster.wait("that it has forgotten", |_| heard.borrow().contains(&NodeId(n)).then_some(()));
    node.runtime.block_on(node.control.add_voter(NodeId(n), format!("10.0.0.{n}"))).expect("it is let in");
    assert!(!heard.borrow().contains(&NodeId(n)));
}

#[test]
fn a_node_that_has_forgotten_is_let_in_anew_and_has_its_vote() {
    let mut cluster = Cluster::new(3, timings());
    type Damage = fn(&PathBuf) -> std::io::Result<()>;
    let damages: [(&str, bool, Damage); 3] = [
        ("gone", false, |path| std::fs::remove_file(path)),
        ("empty", false, |path| std::fs::write(path, "")),
        ("nul", true, |path| std::fs::write(path, [0; 65536])),
    ];
    for (what, is_damage, damage) in damages {
        let leader = cluster.leader();
        let (lost, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
        make_pool(&cluster, leader, &format!("before-{what}")).expect("a pool");
        cluster.kill(lost);
        cluster.database(lost).iter().for_each(|file| damage(file).expect(what));
        cluster.start(lost);
        let control = &cluster.nodes[&NodeId(lost)].control;
        assert!(control.has_forgotten(), "{what}");
        assert_eq!(control.damage().is_some(), is_damage, "{what}");
        assert!(control.damage().is_none_or(|d| d.kept.exists()), "{what}");
        let_in(&cluster, leader, lost);
        assert!(!cluster.nodes[&NodeId(lost)].control.has_forgotten(), "{what}");
        cluster.wait("the map", |c| c.map(lost).pools.contains_key(&format!("before-{what}")).then_some(()));
        // Without its vote the two that are left are no majority.
        cluster.kill(other);
        make_pool(&cluster, leader, &format!("after-{what}")).expect("a majority");
        cluster.start(other);
        assert!(!cluster.nodes[&NodeId(other)].control.has_forgotten(), "that one has its database");
        cluster.wait("the other one is back", |c| (c.map(other) == c.map(leader)).then_some(()));
    }
}

/// It may have voted for the one that is gone, and acknowledged what only that one has.
#[test]
fn with_one_that_has_forgotten_nobody_is_elected() {
    let mut cluster = Cluster::new(3, timings());
    let leader = cluster.leader();
    let (lost, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    // What the leader and the one that will forget have, and the other one has not.
    cluster.cut(leader, other);
    make_pool(&cluster, leader, "answered").expect("a majority");
    cluster.kill(leader);
    cluster.kill(lost);
    cluster.heal();
    cluster.database(lost).iter().for_each(|file| std::fs::remove_file(file).expect("it can be removed"));
    cluster.start(lost);
    let heard = cluster.nodes[&NodeId(other)].control.forgetful();
    cluster.wait("it was asked for its vote", |_| heard.borrow().contains(&NodeId(lost)).then_some(()));
    assert_eq!(make_pool(&cluster, other, "more"), Err(ProposeError::Unavailable));
    assert!(cluster.nodes[&NodeId(lost)].control.has_forgotten());
    // With the third there is a majority that knows, and whoever leads it lets the forgetful one in.
    cluster.start(leader);
    let leads = cluster.leader();
    assert_eq!(leads, leader, "the only one that has what was answered");
    let_in(&cluster, leads, lost);
    for n in [lost, other] {
        cluster.wait("what was answered", |c| c.map(n).pools.contains_key("answered").then_some(()));
    }
}
