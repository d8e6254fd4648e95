//! A disk is slow: it answers, and takes a third of a second for everything. It fails nothing and is never silent; who is served
//! by it waits for it with each request. Others serve what it holds, and everybody is told which disk it is, until it keeps up.

use holdfast_tests::cluster::{Cluster, Options};
use holdfast_tests::powered::Powered;
use holdfast_tests::preload::Flushes;
use holdfast_tests::until;
use holdfast_tests::writer::Writer;
use std::time::{Duration, Instant};

/// What each read, write and flush takes more.
const BY: Duration = Duration::from_millis(300);
/// How soon it should be known; a test fails above three times that.
const NAMED_GOAL: Duration = Duration::from_secs(10);
const TOLERANCE: u32 = 3;
/// Requests of each writer of which it is watched that none waits for the disk any more.
const WATCHED: u64 = 20_000;
const LIMIT: Duration = Duration::from_secs(90);

/// Whether every node says that the disk of `victim` is slow.
fn is_named(cluster: &Cluster, victim: usize) -> bool {
    let line = format!("of node {victim} is slow");
    cluster.all_complain(&line)
}

#[test]
fn while_an_owners_disk_is_slow_other_nodes_serve() {
    let powered = Powered::new();
    let cluster = Cluster::with(Options { alone: true, ..powered.options() });
    let victim = cluster.owner(0);
    let writers = Writer::through_each(&cluster);
    let wait_more = |count| writers.iter().for_each(|(_, w)| w.wait_more(count, LIMIT));
    wait_more(500);
    let moment = Instant::now();
    powered.slow_down(victim, BY);
    until("every node names the disk", LIMIT, || is_named(&cluster, victim));
    let named = moment.elapsed();
    until("another node owns the segment", LIMIT, || cluster.owner(0) != victim);
    let (moved, begun) = (moment.elapsed(), Instant::now());
    let before = writers.each_ref().map(|(_, w)| w.done());
    wait_more(WATCHED);
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
    println!(
        "{:.0} requests a second were answered while the disk was slow",
        answered as f64 / ended.duration_since(begun).as_secs_f64()
    );
    assert!(named <= NAMED_GOAL * TOLERANCE, "it was known after {named:?}");
    cluster.wait_event("disk-slow", "a write of the journal takes", "SMART");
    assert_eq!(cluster.events("disk-keeps-up").len(), 1);
    cluster.assert_copies_equal();
}

/// One disk for everything, at the host that leads control, too: each change of what is decided would wait for it, and so would
/// who takes over from a host that is lost.
#[test]
fn a_leader_whose_data_folder_is_on_a_slow_disk_passes_the_lead_on() {
    let powered = Powered::new();
    let (flushes, environment) = Flushes::new(powered.folder());
    let cluster = Cluster::with(Options { alone: true, environment, ..powered.options() });
    let victim = cluster.leader();
    let asked = victim % 3 + 1;
    let pid = cluster.pid(victim);
    flushes.slow_down(pid, BY);
    let change = || {
        let moment = Instant::now();
        // It may come while nobody leads for a moment.
        let made = cluster.try_cli(asked, &["volume", "create", "other", "--size", "64M"]);
        let took = moment.elapsed();
        let _ = cluster.try_cli(asked, &["volume", "rm", "other", "--yes"]);
        (made.is_ok(), took)
    };
    let (mut changes, moment) = (0, Instant::now());
    let mut longest = Duration::ZERO;
    until("another node leads", LIMIT, || {
        longest = longest.max(change().1);
        changes += 1;
        cluster.leader() != victim
    });
    println!(
        "the leader's data folder takes {BY:?} more for each flush: another node led after {:.1?} and {changes} changes, \
         the longest {longest:.3?}",
        moment.elapsed()
    );
    let line = format!("node {victim} takes long to write what control decides");
    until("every node names it", LIMIT, || cluster.all_complain(&line));
    let mut times: Vec<Duration> = (0..9).map(|_| change()).filter(|c| c.0).map(|c| c.1).collect();
    times.sort_unstable();
    println!("since then a change takes {:.3?}", times[times.len() / 2]);
    assert!(times.len() > 5 && times[times.len() / 2] < BY, "{times:?}");
    assert_ne!(cluster.leader(), victim);
    flushes.do_well(pid);
    until("nobody complains any more", LIMIT, || {
        cluster.json(asked, &["status"])["problems"] == serde_json::json!([])
    });
    cluster.wait_event("lead-passed", "it passed the lead on", "slow");
}
