//! A disk is slow: it answers, and takes a third of a second for everything. It fails nothing and is never silent; who is served
//! by it waits for it with each request. Others serve what it holds, and everybody is told which disk it is, until it keeps up.

use holdfast_tests::cluster::{Cluster, Options};
use holdfast_tests::initiator::Protocol;
use holdfast_tests::powered::Powered;
use holdfast_tests::until;
use holdfast_tests::writer::{Plan, Writer};
use std::time::{Duration, Instant};

/// What each read, write and flush takes more.
const BY: Duration = Duration::from_millis(300);
/// How soon it should be known; a test fails above three times that.
const NAMED_GOAL: Duration = Duration::from_secs(10);
const TOLERANCE: u32 = 3;
/// How long it is watched that nobody waits for the disk any more.
const WATCHED: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(90);

/// Whether every node says that the disk of `victim` is slow.
fn is_named(cluster: &Cluster, victim: usize) -> bool {
    let line = format!("of node {victim} is slow");
    (1..=3).all(|n| cluster.json(n, &["status"])["problems"].to_string().contains(&line))
}

#[test]
fn while_an_owners_disk_is_slow_other_nodes_serve() {
    let powered = Powered::new();
    let cluster = Cluster::with(Options { alone: true, ..powered.options() });
    let victim = cluster.owner(0);
    let writer = |through: usize| {
        let mut plan = Plan::through(&cluster, through);
        plan.first = (through as u64) << 15;
        plan.protocol = if through == 2 { Protocol::Iscsi } else { Protocol::Nbd };
        (through, Writer::start(plan))
    };
    let writers = [1, 2, 3].map(writer);
    let wait_more = |count| writers.iter().for_each(|(_, w)| w.wait_more(count, LIMIT));
    wait_more(500);
    let moment = Instant::now();
    powered.slow_down(victim, BY);
    until("every node names the disk", LIMIT, || is_named(&cluster, victim));
    let named = moment.elapsed();
    until("another node owns the segment", LIMIT, || cluster.owner(0) != victim);
    let (moved, begun) = (moment.elapsed(), Instant::now());
    let before = writers.each_ref().map(|(_, w)| w.done());
    // Time goes by while nobody may wait: what was asked for before has been answered by then.
    until("a while has gone by", LIMIT, || begun.elapsed() > WATCHED);
    let ended = Instant::now();
    let done = writers.each_ref().map(|(_, w)| w.done());
    let answered = done.iter().zip(before).map(|(after, before)| after - before).sum::<u64>();
    let disks = cluster.json(victim % 3 + 1, &["disk", "ls"]);
    for disk in disks.as_array().expect("a list") {
        let is_victims = disk["node"] == victim;
        assert_eq!(disk["state"] == "slow", is_victims, "{disks:#}");
    }
    let status = cluster.json(victim, &["status"]);
    assert_eq!(status["health"], "degraded", "{status:#}");
    assert_eq!(cluster.metric(victim, "holdfast_disks_slow"), 1.0);
    powered.slow_down(victim, Duration::ZERO);
    until("nobody complains any more", LIMIT, || {
        cluster.json(victim, &["status"])["problems"] == serde_json::json!([])
    });
    cluster.wait_healthy();
    wait_more(300);
    println!(
        "every node named the disk after {named:.1?} (goal {NAMED_GOAL:?}), another one owned after {moved:.1?}"
    );
    for (through, report) in writers.map(|(through, writer)| (through, writer.stop())) {
        // A request that was made before the move may have waited for the disk.
        let waited = report.longest_wait_between(begun + BY, ended);
        println!(
            "the owner's disk takes {BY:?} more for everything, a writer through node {through}: longest wait {:.3?} \
             before, {waited:.3?} after another node owned",
            report.longest_wait_between(moment, begun)
        );
        report.assert_kept(&cluster, &[1, 2, 3]);
        assert!(waited < BY, "a writer through node {through} waited for {waited:?}, as if for the disk");
    }
    println!("{} requests a second were answered while the disk was slow", answered / WATCHED.as_secs());
    assert!(named <= NAMED_GOAL * TOLERANCE, "it was known after {named:?}");
    cluster.wait_event("disk-slow", "a write of the journal takes", "SMART");
    assert_eq!(cluster.events("disk-keeps-up").len(), 1);
    cluster.assert_copies_equal();
}
