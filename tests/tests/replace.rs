//! A host is gone for good; a disk died. Redundancy returns by itself under writes, and what was left behind is freed.

use holdfast_tests::cluster::{Cluster, Options, VOLUME};
use holdfast_tests::until;
use holdfast_tests::writer::{Plan, Writer};
use serde_json::Value;
use std::time::{Duration, Instant};

const REPLACE_AFTER: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(60);

fn cluster(nodes: usize) -> Cluster {
    let mut options = Options::new(nodes);
    options.environment = vec![("HOLDFAST_REPLACE_AFTER".to_owned(), REPLACE_AFTER.as_secs().to_string())];
    Cluster::with(options)
}

/// The nodes with a copy of the volume's only segment, and whether all of these are in sync.
fn copies(cluster: &Cluster) -> (Vec<usize>, bool) {
    let detail = cluster.ask(&["volume", "show", VOLUME]);
    let copies = detail["segments"][0]["copies"].as_array().cloned().unwrap_or_default();
    let node = |c: &Value| c["node"].as_u64().unwrap_or(0) as usize;
    (copies.iter().map(node).collect(), copies.iter().all(|c| c["state"] == "in-sync"))
}

fn disks(cluster: &Cluster, node: usize) -> Vec<Value> {
    let all = cluster.ask(&["disk", "ls"]).as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|d| d["node"] == node).collect()
}

#[test]
fn a_host_that_is_gone_for_good_is_replaced_under_writes_and_frees_its_copy_when_it_is_back_after_all() {
    let mut cluster = cluster(4);
    let (carriers, _) = copies(&cluster);
    let spare = (1..=4).find(|n| !carriers.contains(n)).expect("four nodes, three copies");
    let free = |c: &Cluster, n: usize| disks(c, n)[0]["free"].as_u64().unwrap_or(0);
    // What an empty disk has for data is less than its size. Control hears of every hundredth of a disk.
    let size = disks(&cluster, spare)[0]["size"].as_u64().unwrap_or(0);
    until("control knows how much room the spare node has", LIMIT, || free(&cluster, spare) < size);
    let empty = free(&cluster, spare) - free(&cluster, spare) / 50;
    // The owner's: its loss is the harder one.
    let lost = cluster.owner(0);
    let mut plan = Plan::through(&cluster, spare);
    plan.stride = 32;
    let writer = Writer::start(plan);
    writer.wait_more(2000, LIMIT);
    until("the copy that will be lost holds something", LIMIT, || free(&cluster, lost) < empty);
    let killed = Instant::now();
    cluster.kill(lost);
    until("three copies are in sync again, none of them on the lost node", LIMIT, || {
        let (nodes, in_sync) = copies(&cluster);
        in_sync && nodes.len() == 3 && !nodes.contains(&lost)
    });
    let took = killed.elapsed();
    println!("a lost host's copy was placed anew and in sync {took:.1?} after the SIGKILL");
    assert!(took >= REPLACE_AFTER, "it was not waited for");
    assert!(copies(&cluster).0.contains(&spare), "the spare node took it over");
    let events = cluster.events("copy-placed-anew");
    let why = format!("node {lost} stays away");
    assert!(events.iter().any(|e| e["why"] == why.as_str()), "no event says why: {events:?}");
    writer.wait_more(500, LIMIT);
    cluster.assert_copies_equal();
    // It comes back after all: its old copy is freed, and neither counts nor is served.
    cluster.start_node(lost);
    cluster.wait_healthy();
    until("its old copy is freed", LIMIT, || free(&cluster, lost) >= empty);
    assert_eq!(disks(&cluster, lost)[0]["copies"], 0);
    writer.wait_more(500, LIMIT);
    let report = writer.stop();
    println!("longest stall of a write meanwhile: {:.3?}", report.longest_wait());
    report.assert_kept(&cluster, &[1, 2, 3, 4]);
    cluster.assert_copies_equal();
}

#[test]
fn a_disk_that_died_is_replaced_by_the_one_added_at_its_path_under_writes() {
    let mut cluster = cluster(3);
    let (owner, path) = (cluster.owner(0), |c: &Cluster, n| c.disk(n).display().to_string());
    let lost = owner % 3 + 1;
    let writer = Writer::start(Plan::through(&cluster, owner));
    writer.wait_more(2000, LIMIT);
    cluster.kill(lost);
    std::fs::remove_file(cluster.disk(lost)).expect("the disk can be taken away");
    cluster.start_node(lost);
    let missing = |c: &Cluster| disks(c, lost)[0]["state"] == "missing";
    until("the disk is found to be missing", LIMIT, || missing(&cluster));
    let says = |c: &Cluster, words: &str| {
        let problems = c.ask(&["status"])["problems"].to_string();
        problems.contains(words)
    };
    until("status says what to add", LIMIT, || {
        says(&cluster, "1 copy that is gone has no other place: add a disk")
    });
    let old = disks(&cluster, lost)[0]["id"].clone();
    cluster.cli(lost, &["disk", "add", &format!("{}:1G", path(&cluster, lost))]);
    let added = Instant::now();
    let state = |c: &Cluster, is_old: bool| {
        let all = disks(c, lost);
        let disk = all.into_iter().find(|d| (d["id"] == old) == is_old).expect("both are listed");
        (disk["state"].as_str().map(str::to_owned), disk["copies"].as_u64())
    };
    until("every copy is in sync again", LIMIT, || copies(&cluster).1 && state(&cluster, false).1 == Some(1));
    println!("a dead disk's copy was in sync on the new disk {:.1?} after `disk add`", added.elapsed());
    assert_eq!(
        state(&cluster, true),
        (Some("missing".to_owned()), Some(0)),
        "the lost disk is shown as lost"
    );
    assert_eq!(state(&cluster, false).0.as_deref(), Some("ok"));
    writer.wait_more(500, LIMIT);
    cluster.assert_copies_equal();
    // The new disk is the one at that path from now on.
    cluster.kill(lost);
    cluster.start_node(lost);
    cluster.wait_healthy();
    assert_eq!(state(&cluster, true).0.as_deref(), Some("missing"));
    assert_eq!(cluster.events("disk-regressed"), Vec::<Value>::new(), "no disk was taken for another");
    writer.wait_more(500, LIMIT);
    writer.stop().assert_kept(&cluster, &[1, 2, 3]);
    cluster.assert_copies_equal();
}
