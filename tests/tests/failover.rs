//! A host dies. Whoever writes through another node sees no error and a short stall; whoever wrote through the
//! dead one goes on when it is back, or through another one.

use holdfast_tests::cluster::Cluster;
use holdfast_tests::qemu_io::QemuIo;
use holdfast_tests::writer::{Plan, Writer};
use std::time::{Duration, Instant};

/// The goal for the loss of an owner, and of a replica; a test fails above three times that.
const OWNER_GOAL: Duration = Duration::from_secs(3);
const REPLICA_GOAL: Duration = Duration::from_millis(200);
const TOLERANCE: u32 = 3;
const RATE_MIN: f64 = 100.0;
const LIMIT: Duration = Duration::from_secs(60);

/// Kills `victim` under a writer through `through`, brings it back, and judges what the writer saw.
fn kill_under_writes(cluster: &mut Cluster, victim: usize, through: usize, role: &str, goal: Duration) {
    // Each writer has blocks of its own: it knows what they held before, nothing.
    let mut plan = Plan::through(cluster, through);
    plan.first = (victim as u64) << 16;
    let writer = Writer::start(plan);
    writer.wait_more(2000, LIMIT);
    let moment = Instant::now();
    cluster.kill(victim);
    writer.wait_more(2000, LIMIT);
    cluster.start_node(victim);
    cluster.wait_healthy();
    writer.wait_more(500, LIMIT);
    let report = writer.stop();
    let (stall, rate) = (report.longest_wait_since(moment), report.rate_otherwise());
    println!(
        "SIGKILL of {role}: longest stall {stall:.3?} (goal {goal:?}), {rate:.0} I/Os a second otherwise"
    );
    report.assert_kept(cluster, &[1, 2, 3]);
    assert!(stall <= goal * TOLERANCE, "the loss of {role} stalled writes for {stall:?}");
    assert!(rate >= RATE_MIN, "only {rate:.0} I/Os a second besides the stall");
    cluster.assert_copies_equal();
}

/// A node that is none of those.
fn another(not: &[usize]) -> usize {
    (1..=3).find(|n| !not.contains(n)).expect("three nodes, at most two taken")
}

#[test]
fn the_owners_node_is_killed_and_a_writer_through_another_node_stalls_shortly() {
    let mut cluster = Cluster::start(3);
    let owner = cluster.owner(0);
    kill_under_writes(&mut cluster, owner, another(&[owner]), "the owner's node", OWNER_GOAL);
}

#[test]
fn a_replicas_node_is_killed_and_a_writer_hardly_notices() {
    let mut cluster = Cluster::start(3);
    let (owner, leader) = (cluster.owner(0), cluster.leader());
    let victim = another(&[owner, leader]);
    kill_under_writes(&mut cluster, victim, another(&[victim]), "a replica's node", REPLICA_GOAL);
}

#[test]
fn the_control_leaders_node_is_killed_and_writes_go_on() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    // The leader may own the segment too; then its loss is also an owner's.
    let goal = if cluster.owner(0) == leader { OWNER_GOAL } else { REPLICA_GOAL };
    kill_under_writes(&mut cluster, leader, another(&[leader]), "the control leader's node", goal);
}

#[test]
fn every_node_is_killed_one_after_the_other_under_one_writer_each() {
    let mut cluster = Cluster::start(3);
    for victim in 1..=3 {
        kill_under_writes(&mut cluster, victim, another(&[victim]), &format!("node {victim}"), OWNER_GOAL);
    }
}

#[test]
fn a_client_with_both_nodes_addresses_goes_on_over_the_other_one() {
    let mut cluster = Cluster::start(3);
    let owner = cluster.owner(0);
    let other = another(&[owner]);
    let writer = Writer::start(Plan::through_any(&cluster, &[owner, other]));
    writer.wait_more(1000, LIMIT);
    let moment = Instant::now();
    cluster.kill(owner);
    writer.wait_more(1000, LIMIT);
    let report = writer.stop();
    let stall = report.longest_wait_since(moment);
    println!("SIGKILL of the client's own node, which owned: on the other node after {stall:.3?}");
    report.assert_kept(&cluster, &[other]);
    assert!(stall <= OWNER_GOAL * TOLERANCE, "it took {stall:?}");
}

/// Writes one pattern after the other through `io` while its node dies and comes back.
fn own_node_dies(cluster: &mut Cluster, node: usize, io: &mut QemuIo, check: &str) {
    for i in 0..20 {
        io.run(&format!("write -P {} {}k 4k", i + 1, i * 4), LIMIT).expect("a write before");
    }
    cluster.kill(node);
    io.begin("write -P 0x77 1M 64k");
    cluster.start_node(node);
    io.end(LIMIT).expect("the write that was under way ends well");
    for i in 20..40 {
        io.run(&format!("write -P {} {}k 4k", i + 1, i * 4), LIMIT).expect("a write after");
    }
    let mut other = QemuIo::open(check);
    other.run("read -P 0x77 1M 64k", LIMIT).expect("it is there");
    for i in 0..40 {
        other
            .run(&format!("read -P {} {}k 4k", i + 1, i * 4), LIMIT)
            .expect("everything acknowledged is there");
    }
}

#[test]
fn qemu_over_nbd_with_reconnect_delay_survives_the_death_of_its_own_node() {
    let mut cluster = Cluster::start(3);
    let node = cluster.owner(0);
    let image = format!(
        "driver=nbd,server.type=inet,server.host={},server.port=10809,export=demo,reconnect-delay=60",
        cluster.address(node)
    );
    let mut io = QemuIo::open(&image);
    let check = cluster.nbd(another(&[node]));
    own_node_dies(&mut cluster, node, &mut io, &check);
}

#[test]
fn libiscsi_with_its_reconnect_survives_the_death_of_its_own_node() {
    let mut cluster = Cluster::start(3);
    let node = cluster.owner(0);
    let mut io = QemuIo::open(&cluster.iscsi(node));
    let check = cluster.iscsi(another(&[node]));
    own_node_dies(&mut cluster, node, &mut io, &check);
}

#[test]
#[ignore = "known wrong: the stall was 0.77 s and 1.05 s in two runs: the hand-over is not fast enough yet"]
fn a_planned_stop_hands_over_first_and_stalls_nobody_for_more_than_a_second() {
    let mut cluster = Cluster::start(3);
    let owner = cluster.owner(0);
    let writer = Writer::start(Plan::through(&cluster, another(&[owner])));
    writer.wait_more(1000, LIMIT);
    let moment = Instant::now();
    cluster.cli(owner, &["node", "stop"]);
    cluster.wait_ended(owner);
    writer.wait_more(1000, LIMIT);
    cluster.start_node(owner);
    cluster.wait_healthy();
    let report = writer.stop();
    let stall = report.longest_wait_since(moment);
    println!("holdfast node stop of the owner: longest stall {stall:.3?} (goal 1 s)");
    report.assert_kept(&cluster, &[1, 2, 3]);
    assert!(stall <= Duration::from_secs(1), "a planned restart stalled writes for {stall:?}");
}
