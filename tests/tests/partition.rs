//! The network between hosts breaks, each host with a network of its own: between two of them only, for large packets or
//! one port only, for one packet in ten, or around one. No packet is refused; they vanish, as on a wire.

use holdfast_tests::cluster::{Cluster, Options};
use holdfast_tests::hosts::{Cut, isolated};
use holdfast_tests::initiator::Protocol;
use holdfast_tests::until;
use holdfast_tests::writer::{Plan, Report, Writer};
use std::time::{Duration, Instant};

/// The goal for how long a write waits that had to find another way, as for the loss of an owner; a test fails above
/// three times that.
const GOAL: Duration = Duration::from_secs(3);
const TOLERANCE: u32 = 3;
const LIMIT: Duration = Duration::from_secs(60);
/// A packet that is lost costs 0.2 s and more, and one in ten is: where none is lost a write waits less, of so many. As the
/// goal for the loss of a replica, it fails above three times that.
const SMOOTH: Duration = Duration::from_millis(200);
const SMOOTH_WRITES: u64 = 3_000;
/// A host that is alone answers without asking anybody.
const SOON: Duration = Duration::from_secs(1);

fn start() -> Cluster {
    Cluster::with(Options { alone: true, hosts: true, ..Options::new(3) })
}

/// A writer through each node over NBD, and through these over iSCSI: none may see an error, and each has blocks of its
/// own.
fn writers(cluster: &Cluster, over_iscsi: &[usize]) -> Vec<(usize, Writer)> {
    let over = |protocol| {
        move |n: usize| {
            let mut plan = Plan::through(cluster, n);
            plan.first = (n as u64 * 2 + protocol as u64) << 14;
            plan.protocol = protocol;
            (n, Writer::start(plan))
        }
    };
    let over_nbd = (1..=cluster.size()).map(over(Protocol::Nbd));
    over_nbd.chain(over_iscsi.iter().copied().map(over(Protocol::Iscsi))).collect()
}

fn wait_more(writers: &[(usize, Writer)], count: u64) {
    writers.iter().for_each(|(_, w)| w.wait_more(count, LIMIT));
}

fn stop(writers: Vec<(usize, Writer)>) -> Vec<(usize, Report)> {
    writers.into_iter().map(|(n, writer)| (n, writer.stop())).collect()
}

/// Nothing was lost, seen through another node than it was written through, and every copy is the same.
fn assert_kept(cluster: &Cluster, reports: &[(usize, Report)]) {
    reports.iter().for_each(|(n, report)| report.assert_kept(cluster, &[n % cluster.size() + 1]));
    cluster.assert_copies_equal();
}

/// Every copy is in sync, and yet it is no time to stop the node that all goes through.
fn wait_in_sync(cluster: &Cluster) {
    until("every copy is in sync", LIMIT, || cluster.has("degraded"));
}

/// The owner of the segment and another node lose the way between them, as `cut` says. Everybody goes on: nobody is
/// down, and what the two say goes through the third.
fn two_lose_the_way(cut: Cut) {
    let mut cluster = start();
    let owner = cluster.owner(0);
    let other = owner % 3 + 1;
    let writers = writers(&cluster, &[1, 2, 3]);
    wait_more(&writers, 200);
    let directed = cluster.events("directed").len();
    let moment = Instant::now();
    cluster.hosts().cut(other, &[owner], cut);
    for (at, from) in [(owner, other), (other, owner)] {
        until(&format!("node {at} relays to node {from}"), LIMIT, || {
            cluster.metric(at, "holdfast_relayed_nodes") == 1.0
        });
    }
    wait_more(&writers, 200);
    let third = 6 - owner - other;
    assert!(cluster.metric(third, "holdfast_relays") > 0.0, "node {third} carries nothing");
    let (low, high) = (owner.min(other), owner.max(other));
    let line = format!("nodes {low} and {high} do not reach one another directly");
    let says = |p: &serde_json::Value| p.as_str().is_some_and(|p| p.starts_with(&line));
    until("the third node's status tells of the two", LIMIT, || {
        cluster.json(third, &["status"])["problems"].as_array().is_some_and(|p| p.iter().any(says))
    });
    wait_in_sync(&cluster);
    assert_eq!(cluster.events("directed").len(), directed, "a node that works was taken for dead");

    cluster.hosts().heal(other);
    for at in [owner, other] {
        until(&format!("node {at} is reached directly"), LIMIT, || {
            cluster.metric(at, "holdfast_relayed_nodes") == 0.0
        });
    }
    wait_more(&writers, 200);
    let reports = stop(writers);
    for (n, report) in &reports {
        let stall = report.longest_wait_since(moment);
        println!(
            "{cut:?} between nodes {low} and {high}, a writer through node {n}: longest stall {stall:.3?}"
        );
        assert!(stall <= GOAL * TOLERANCE, "{stall:?} through node {n}: {:?}", report.longest_waits(moment));
    }
    assert_kept(&cluster, &reports);

    // The same from the first moment of a daemon on.
    cluster.kill(other);
    cluster.hosts().cut(other, &[owner], cut);
    cluster.start_node(other);
    wait_in_sync(&cluster);
    let after = writers_through(&cluster, other);
    wait_more(&after, 200);
    assert_kept(&cluster, &stop(after));
}

fn writers_through(cluster: &Cluster, node: usize) -> Vec<(usize, Writer)> {
    let mut plan = Plan::through(cluster, node);
    plan.first = 8 << 14;
    vec![(node, Writer::start(plan))]
}

#[test]
fn two_hosts_that_do_not_reach_one_another_go_on_through_the_third() {
    isolated("two_hosts_that_do_not_reach_one_another_go_on_through_the_third", || {
        two_lose_the_way(Cut::All)
    });
}

#[test]
fn a_way_that_drops_large_packets_is_no_way() {
    isolated("a_way_that_drops_large_packets_is_no_way", || two_lose_the_way(Cut::Large));
}

#[test]
fn a_port_that_is_blocked_between_two_hosts_is_gone_around() {
    isolated("a_port_that_is_blocked_between_two_hosts_is_gone_around", || two_lose_the_way(Cut::DataPort));
}

/// The nodes that lose packets from one to another, by what `at` says of them.
fn lossy(cluster: &Cluster, at: usize, says: &str) -> usize {
    let status = cluster.json(at, &["status"]);
    let problems = status["problems"].as_array().expect("status lists problems");
    let is_one = |p: &&str| p.starts_with("packets from node") && p.contains(says);
    problems.iter().filter_map(|p| p.as_str()).filter(is_one).count()
}

#[test]
fn a_way_that_loses_packets_is_gone_around_where_another_one_does_not() {
    isolated("a_way_that_loses_packets_is_gone_around_where_another_one_does_not", || {
        let cluster = start();
        let owner = cluster.owner(0);
        let other = owner % 3 + 1;
        let third = 6 - owner - other;
        let writers = writers(&cluster, &[other]);
        wait_more(&writers, 200);
        let directed = cluster.events("directed").len();
        let moment = Instant::now();
        cluster.hosts().cut(owner, &[other], Cut::Loss);
        cluster.hosts().cut(other, &[owner], Cut::Loss);
        let relay = |n: f64| {
            for at in [owner, other] {
                until(&format!("node {at} relays to {n} nodes"), LIMIT, || {
                    cluster.metric(at, "holdfast_relayed_nodes") == n
                });
            }
        };
        relay(1.0);
        println!("loss between nodes {owner} and {other}: gone around after {:.3?}", moment.elapsed());
        wait_more(&writers, 200);
        let around = Instant::now();
        wait_more(&writers, SMOOTH_WRITES);
        let until_then = Instant::now();
        until("the third node's status tells of both directions", LIMIT, || {
            lossy(&cluster, third, "goes through another node") == 2
        });
        assert_eq!(cluster.events("path-lossy").len(), 2);
        assert_eq!(cluster.events("directed").len(), directed, "a node that works was taken for dead");

        // It is the other node's own cable: no way there is better than the direct one.
        let lossy_cable = Instant::now();
        cluster.hosts().cut(third, &[other], Cut::Loss);
        cluster.hosts().heal(other);
        cluster.hosts().cut(other, &[owner, third], Cut::Loss);
        relay(0.0);
        until("status says that there is no other way", LIMIT, || {
            lossy(&cluster, third, "no other node reaches both without loss") == 4
        });

        for host in [owner, other, third] {
            cluster.hosts().heal(host);
        }
        until("nobody loses packets", LIMIT, || lossy(&cluster, third, "") == 0);
        relay(0.0);
        wait_more(&writers, 200);
        cluster.wait_healthy();
        println!("taken for dead: {}", cluster.events("directed").len() - directed);
        let reports = stop(writers);
        for (n, report) in &reports {
            let smooth = report.longest_wait_between(around, until_then);
            let (before, after) =
                (report.longest_wait_between(moment, around), report.longest_wait_since(lossy_cable));
            println!(
                "a writer through node {n}: longest stall {before:.3?}, gone around {smooth:.3?}, with a bad cable {after:.3?}"
            );
            assert!(smooth <= SMOOTH * TOLERANCE, "{smooth:?} through node {n}");
        }
        assert_kept(&cluster, &reports);
    });
}

#[test]
fn a_host_without_a_network_keeps_its_initiators_and_the_others_go_on() {
    isolated("a_host_without_a_network_keeps_its_initiators_and_the_others_go_on", || {
        let cluster = start();
        let owner = cluster.owner(0);
        let others: Vec<usize> = (1..=3).filter(|n| *n != owner).collect();
        // Its name is known at no other host: one that is, logs in again (decision 0009).
        let writers = writers(&cluster, &[owner]);
        wait_more(&writers, 200);
        let moment = Instant::now();
        cluster.hosts().cut(owner, &others, Cut::All);
        for (_, writer) in writers.iter().filter(|(n, _)| *n != owner) {
            writer.wait_more(200, LIMIT);
        }
        until("control knows that the owner is away", LIMIT, || {
            cluster.json(others[0], &["status"])["nodes"][owner - 1]["state"] == "down"
        });
        // It says at once what it knows, and does not claim that all is well.
        until("the one that is alone notices", LIMIT, || {
            cluster.json(owner, &["status"])["control_quorum"] == false
        });
        let asked = Instant::now();
        let (status, nodes) = (cluster.json(owner, &["status"]), cluster.json(owner, &["node", "ls"]));
        assert!(asked.elapsed() < SOON, "{:?} for two answers", asked.elapsed());
        assert_eq!((&status["control_quorum"], &status["health"]), (&false.into(), &"stalled".into()));
        for other in &others {
            assert_eq!(nodes[other - 1]["state"], "down", "{nodes:#}");
        }

        let healed = Instant::now();
        cluster.hosts().heal(owner);
        wait_more(&writers, 200);
        cluster.wait_healthy();
        let reports = stop(writers);
        for (n, report) in &reports {
            // Who writes on the host that is alone waits until it is not; all others find the next owner.
            let waited = report.longest_wait_since(moment);
            let stall = if *n == owner { waited.saturating_sub(healed - moment) } else { waited };
            println!("node {owner} is alone, a writer through node {n}: longest stall {stall:.3?}");
            assert!(
                stall <= GOAL * TOLERANCE,
                "{stall:?} through node {n}: {:?}",
                report.longest_waits(moment)
            );
        }
        assert_kept(&cluster, &reports);
    });
}
