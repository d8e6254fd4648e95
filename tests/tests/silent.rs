//! A disk hangs: its host answers, and what the disk is ordered to do does not come back. It is no news to the network. Whoever
//! reads and writes goes on with the other copies, everybody is told which disk it is, and it is as before when it answers.

use holdfast_tests::cluster::{Cluster, Options, VOLUME};
use holdfast_tests::powered::Powered;
use holdfast_tests::until;
use holdfast_tests::writer::{Plan, Writer};
use std::time::{Duration, Instant};

/// As for the loss of an owner's host, and of a replica's; a test fails above three times that.
const OWNER_GOAL: Duration = Duration::from_secs(3);
const REPLICA_GOAL: Duration = Duration::from_millis(200);
const TOLERANCE: u32 = 3;
const LIMIT: Duration = Duration::from_secs(60);

/// Whether every node says that the disk of `victim` does not answer.
fn is_named(cluster: &Cluster, victim: usize) -> bool {
    let line = format!("of node {victim} does not answer");
    cluster.all_complain(&line)
}

/// The disk of `victim` hangs under writers through every node.
fn hang_under_writes(victim: usize, powered: &Powered, cluster: &Cluster, role: &str, goal: Duration) {
    let writers = Writer::through_each(cluster);
    let wait_more = |count| writers.iter().for_each(|(_, w)| w.wait_more(count, LIMIT));
    wait_more(500);
    let moment = Instant::now();
    let hung = powered.hang(victim);
    until("every node names the disk", LIMIT, || is_named(cluster, victim));
    println!("every node named the disk after {:.1?}", moment.elapsed());
    let disks = cluster.json(victim, &["disk", "ls"]);
    let states: Vec<_> =
        disks.as_array().expect("a list").iter().map(|d| (&d["node"], &d["state"])).collect();
    for (node, state) in &states {
        assert_eq!(*state == "silent", **node == victim, "{states:?}");
    }
    wait_more(500);
    cluster.wait_behind(victim);
    assert_ne!(cluster.owner(0), victim, "its copy is not to be read from");
    drop(hung);
    cluster.wait_healthy();
    wait_more(300);
    until("nobody complains any more", LIMIT, || {
        cluster.json(victim, &["status"])["problems"] == serde_json::json!([])
    });
    for (through, report) in writers.map(|(through, writer)| (through, writer.stop())) {
        let stall = report.longest_wait_since(moment);
        println!(
            "the disk of {role} hung, a writer through node {through}: longest stall {stall:.3?} (goal {goal:?})"
        );
        report.assert_kept(cluster, &[1, 2, 3]);
        assert!(stall <= goal * TOLERANCE, "a writer through node {through} waited for {stall:?}");
    }
    cluster.wait_event("disk-silent", "does not answer", "kernel's log");
    assert_eq!(cluster.events("disk-answers").len(), 1);
    cluster.assert_copies_equal();
}

fn powered() -> (Powered, Cluster) {
    let powered = Powered::new();
    let cluster = Cluster::with(Options { alone: true, ..powered.options() });
    (powered, cluster)
}

#[test]
fn while_an_owners_disk_hangs_other_nodes_serve() {
    let (powered, cluster) = powered();
    let owner = cluster.owner(0);
    hang_under_writes(owner, &powered, &cluster, "the owner", OWNER_GOAL);
}

#[test]
fn while_a_replicas_disk_hangs_nobody_waits() {
    let (powered, cluster) = powered();
    let replica = cluster.owner(0) % 3 + 1;
    hang_under_writes(replica, &powered, &cluster, "a replica", REPLICA_GOAL);
}

/// Nothing was written lately, so that no copy is behind: only a read that does not come back tells.
#[test]
fn a_read_of_a_disk_that_hangs_is_answered_by_another_node() {
    let (powered, cluster) = powered();
    let owner = cluster.owner(0);
    let mut client = holdfast_tests::nbd::Client::connect(cluster.address(owner), VOLUME, LIMIT)
        .expect("the export opens");
    let block = holdfast_tests::pattern::content(0, 1);
    client.write(0, &block).expect("a write");
    until("it is in its place", LIMIT, || {
        holdfast_tests::disk_image::DiskImage::open(cluster.disk(owner)).holds(&block)
    });
    let hung = powered.hang(owner);
    let moment = Instant::now();
    assert_eq!(client.read(0, block.len()).expect("it is read"), block);
    let waited = moment.elapsed();
    println!("a read of a disk that hangs was answered after {waited:.3?} (goal {OWNER_GOAL:?})");
    assert!(waited <= OWNER_GOAL * TOLERANCE && waited >= Duration::from_secs(1), "{waited:?}");
    drop(hung);
}

/// A node starts while its disk hangs: its initiators are served from the others' copies, and nothing of it waits for the
/// disk.
#[test]
fn a_node_that_starts_with_a_disk_that_hangs_serves_what_others_have() {
    let (powered, mut cluster) = powered();
    let victim = cluster.owner(0);
    let writer = Writer::start(Plan::through(&cluster, victim % 3 + 1));
    writer.wait_more(200, LIMIT);
    cluster.kill(victim);
    let hung = powered.hang(victim);
    let moment = Instant::now();
    cluster.start_node(victim);
    let mut plan = Plan::through(&cluster, victim);
    plan.first = 1 << 15;
    let own = Writer::start(plan);
    own.wait_more(200, LIMIT);
    let waited = moment.elapsed();
    println!(
        "a node started with a disk that hangs, and served 200 writes after {waited:.3?} (goal {OWNER_GOAL:?})"
    );
    assert!(waited <= OWNER_GOAL * TOLERANCE, "{waited:?}");
    until("every node names the disk", LIMIT, || is_named(&cluster, victim));
    assert_eq!(cluster.metric(victim, "holdfast_disks_silent"), 1.0);
    writer.wait_more(200, LIMIT);
    drop(hung);
    cluster.wait_healthy();
    for writer in [own, writer] {
        writer.wait_more(200, LIMIT);
        writer.stop().assert_kept(&cluster, &[1, 2, 3]);
    }
    until("nobody complains any more", LIMIT, || {
        cluster.json(victim, &["status"])["problems"] == serde_json::json!([])
    });
    cluster.assert_copies_equal();
}
