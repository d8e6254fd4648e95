//! A majority of control is lost for good: one node goes on alone from its log, others follow it, and those that were
//! taken for lost and run can neither lead it nor be led by it.

mod common;

use common::{Cluster, new_node, timings};
use holdfast_cluster::{Command, CommandResult};
use holdfast_consensus::*;
use holdfast_types::*;
use std::collections::BTreeSet;

fn pool(name: &str) -> Command {
    Command::CreatePool { name: name.into() }
}

/// The control of a node that was killed.
fn stopped(cluster: &Cluster, n: u16) -> StoppedControl {
    StoppedControl::open(&cluster.node_dir(n), NodeId(n)).expect("its database")
}

fn nodes(list: impl IntoIterator<Item = u16>) -> BTreeSet<NodeId> {
    list.into_iter().map(NodeId).collect()
}

fn recover(cluster: &Cluster, n: u16, lost: &[u16]) -> Ticket {
    let recovered = stopped(cluster, n).recover(&nodes(lost.iter().copied()), 0xfeed);
    let (ticket, kept) = recovered.expect("the database can be written").expect("it has a log");
    assert!(kept.exists(), "the database as it was is kept");
    ticket
}

fn wait_for_pool(cluster: &Cluster, n: u16, name: &str) {
    cluster.wait(name, |c| c.map(n).pools.contains_key(name).then_some(()));
}

#[test]
fn one_of_three_goes_on_alone_with_everything_that_was_answered() {
    let mut cluster = Cluster::new(3, timings());
    cluster.propose(2, pool("before")).expect("all are there");
    wait_for_pool(&cluster, 1, "before");
    cluster.kill(2);
    cluster.kill(3);
    let alone = cluster.propose(1, pool("alone"));
    assert!(matches!(alone, Err(ProposeError::Unavailable | ProposeError::Unknown)), "{alone:?}");
    cluster.kill(1);
    let before = stopped(&cluster, 1);
    assert_eq!(before.voters(), nodes([1, 2, 3]));
    assert!(before.map().pools.contains_key("before"));
    let (version, position) = (before.map().version, before.position().expect("a log"));
    drop(before);
    let ticket = recover(&cluster, 1, &[2, 3]);
    assert_eq!((ticket.node, ticket.position), (NodeId(1), position));
    cluster.start(1);
    assert_eq!(cluster.propose(1, pool("after")), Ok(CommandResult::Done));
    let map = cluster.map(1);
    assert!(map.pools.contains_key("before") && map.version > version + (1 << 31));
    assert_eq!(cluster.nodes[&NodeId(1)].control.metrics().voters, [NodeId(1)]);
    // From its disk once more, and as another generation if it has to be.
    cluster.kill(1);
    let after = stopped(&cluster, 1);
    assert_eq!((after.generation(), after.voters()), (ticket.generation, nodes([1])));
    assert!(after.position() > Some(position) && after.map().pools.contains_key("after"));
    drop(after);
    assert!(recover(&cluster, 1, &[2, 3]).generation > ticket.generation);
    cluster.start(1);
    assert_eq!(cluster.propose(1, pool("again")), Ok(CommandResult::Done));
}

#[test]
fn those_that_were_taken_for_lost_and_run_disturb_nothing_and_follow_when_told_to() {
    let mut cluster = Cluster::new(3, timings());
    cluster.propose(2, pool("before")).expect("all are there");
    wait_for_pool(&cluster, 1, "before");
    for n in 1..=3 {
        cluster.kill(n);
    }
    let ticket = recover(&cluster, 1, &[2, 3]);
    cluster.start(1);
    cluster.propose(1, pool("new-group")).expect("it leads itself");
    // The majority of before is alive after all, and agrees on things among itself.
    cluster.start(2);
    cluster.start(3);
    cluster.propose(2, pool("old-group")).expect("two of three");
    let standing = |n: u16| cluster.nodes[&NodeId(n)].control.standing();
    let (second, third) = (standing(2), standing(3));
    cluster.wait("one of them to hear that it was given up", |_| {
        [&second, &third].iter().any(|s| *s.borrow() == Standing::Superseded).then_some(())
    });
    let first = &cluster.nodes[&NodeId(1)];
    let refused = first.runtime.block_on(first.control.add_voter(NodeId(2), "10.0.0.2".into()));
    assert_eq!(refused, Err(MembershipError::OtherGroup { node: NodeId(2) }));
    cluster.propose(1, pool("undisturbed")).expect("it goes on");
    let metrics = first.control.metrics();
    assert_eq!((metrics.voters, metrics.leader), (vec![NodeId(1)], Some(NodeId(1))));
    assert!(metrics.learners.is_empty(), "nobody is waited for in vain");
    assert_eq!(*first.control.standing().borrow(), Standing::Member);
    assert!(!cluster.map(1).pools.contains_key("old-group"));
    // Told to follow, one of them forgets what it agreed on and gets everything from the new group.
    cluster.kill(2);
    stopped(&cluster, 2).follow(&ticket).expect("the database can be written");
    cluster.start(2);
    let first = &cluster.nodes[&NodeId(1)];
    first.runtime.block_on(first.control.add_voter(NodeId(2), "10.0.0.2".into())).expect("it is let in");
    wait_for_pool(&cluster, 2, "undisturbed");
    assert!(!cluster.map(2).pools.contains_key("old-group"));
    cluster.propose(2, pool("together")).expect("both are there");
    // The last one of the old group speaks to both; neither takes it for one of theirs, after a restart neither.
    for n in [1, 2] {
        cluster.kill(n);
        cluster.start(n);
    }
    cluster.propose(1, pool("after-restarts")).expect("both are there");
    wait_for_pool(&cluster, 2, "after-restarts");
    assert!(!cluster.map(3).pools.contains_key("together"));
}

#[test]
fn a_node_that_joins_after_it_is_of_the_new_group() {
    let mut cluster = Cluster::new(2, timings());
    for n in [1, 2] {
        cluster.kill(n);
    }
    recover(&cluster, 1, &[2]);
    cluster.start(1);
    let add = Command::AddNode(new_node(3));
    let Ok(CommandResult::Node(third)) = cluster.propose(1, add) else { panic!("it is not admitted") };
    cluster.start(third.0);
    let first = &cluster.nodes[&NodeId(1)];
    first.runtime.block_on(first.control.add_voter(third, "10.0.0.3".into())).expect("it is let in");
    cluster.propose(third.0, pool("from-the-third")).expect("both are there");
    cluster.kill(third.0);
    cluster.start(third.0);
    cluster.propose(third.0, pool("after-a-restart")).expect("it knows its group");
}

#[test]
fn a_node_without_a_log_has_nothing_to_go_on_from() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let control = StoppedControl::open(dir.path(), NodeId(4)).expect("a new database opens");
    assert_eq!(control.position(), None);
    assert_eq!(control.recover(&nodes([1]), 7).expect("nothing failed"), None);
}
