//! A node whose own record of the control plane is damaged or gone: the others let it in again, and its disks serve as
//! before.

use holdfast_tests::cluster::{Cluster, VOLUME};
use holdfast_tests::nbd::Client;
use holdfast_tests::pattern;
use holdfast_tests::until;
use holdfast_tests::writer::{Plan, Writer};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

const FILES: [&str; 2] = ["control.redb", "control.copy.redb"];

/// Both files of a node's control database.
fn files(cluster: &Cluster, node: usize) -> [PathBuf; 2] {
    FILES.map(|file| cluster.dir(node).join("control").join(file))
}

fn damage_both(cluster: &Cluster, node: usize, n: usize) {
    files(cluster, node).iter().for_each(|file| damage(file, n).expect("it can be damaged"));
}

fn damage(path: &Path, n: usize) -> std::io::Result<()> {
    match n {
        // As a file system leaves a file that was not flushed.
        0 => std::fs::metadata(path).and_then(|m| std::fs::write(path, vec![0; m.len() as usize])),
        1 => std::fs::write(path, ""),
        _ => std::fs::remove_file(path),
    }
}

#[test]
fn a_node_whose_control_database_is_damaged_or_gone_is_let_in_again_with_its_copies() {
    let mut cluster = Cluster::start(3);
    let writer = Writer::start(Plan::through(&cluster, 1));
    writer.wait_more(500, LIMIT);
    for (turn, node) in [2, 3, 2].into_iter().enumerate() {
        cluster.kill(node);
        damage_both(&cluster, node, turn);
        cluster.spawn(node);
        until("it was let in again", LIMIT, || cluster.events("let-in-again").len() > turn);
        cluster.wait_healthy();
        writer.wait_more(500, LIMIT);
    }
    cluster.wait_event("control-forgotten", "its disks and their copies are untouched", "kept as");
    cluster.wait_event("control-forgotten", "takes no part until", "not there, or empty");
    let kept = cluster.dir(2).join("control").join("control.redb.damaged-1");
    assert!(kept.exists(), "what was damaged is evidence");
    // Its disk is the one that it was, and none was made anew.
    assert!(cluster.events("disk-regressed").is_empty());
    // Each of the two has its vote: with the third one away there is a majority.
    for away in [2, 3] {
        cluster.kill(away);
        cluster.cli(1, &["volume", "create", &format!("v{away}"), "--size", "64M", "--copies", "1"]);
        cluster.start_node(away);
        cluster.wait_healthy();
    }
    let report = writer.stop();
    println!("longest stall of a write meanwhile: {:.3?}", report.longest_wait());
    report.assert_kept(&cluster, &[1, 2, 3]);
    cluster.assert_copies_equal();
}

/// Neither is a majority without the other: an operator says which of them goes on.
#[test]
fn of_two_nodes_the_one_that_has_forgotten_follows_the_other_when_it_is_told_so() {
    let mut cluster = Cluster::start(2);
    let writer = Writer::start(Plan::through_any(&cluster, &[1]));
    writer.wait_more(500, LIMIT);
    cluster.kill(2);
    damage_both(&cluster, 2, 0);
    cluster.start_node(2);
    until("it says what it lacks", LIMIT, || {
        let status = cluster.try_json(2, &["status"]).unwrap_or_default();
        status["problems"].to_string().contains("holdfast recover")
    });
    cluster.kill(2);
    assert!(cluster.cli(2, &["recover"]).contains("it is left at 0.0"));
    cluster.kill(1);
    assert!(cluster.refused(1, &["recover", "--survivor", "2=1.1"]).contains("a majority"));
    let dry = cluster.json(1, &["recover", "--survivor", "2=0.0", "--dry-run"]);
    assert_eq!(dry["losses"], serde_json::json!([]), "{dry}");
    let said = cluster.cli(1, &["recover", "--survivor", "2=0.0"]);
    let ticket = said.split_once("--follow ").expect("what the other one is told").1.lines().next();
    let ticket = ticket.expect("a ticket").to_owned();
    cluster.cli(2, &["recover", "--follow", &ticket]);
    cluster.start_node(1);
    cluster.start_node(2);
    cluster.wait_healthy_for(LIMIT);
    writer.wait_more(500, LIMIT);
    writer.stop().assert_kept(&cluster, &[1, 2]);
    assert!(cluster.events("disk-regressed").is_empty());
    cluster.assert_copies_equal();
}

/// As after a power cut on a disk that flushes nothing, or when a host was put back to an earlier state.
#[test]
fn an_older_copy_of_a_control_database_catches_up_and_is_named_by_the_leader() {
    let mut cluster = Cluster::start(3);
    let node = cluster.leader() % 3 + 1;
    let older = FILES.map(|file| cluster.folder().join(file));
    let copy = |from: &[PathBuf; 2], to: &[PathBuf; 2]| {
        from.iter().zip(to).for_each(|(from, to)| _ = std::fs::copy(from, to).expect("a copy"));
    };
    cluster.kill(node);
    copy(&files(&cluster, node), &older);
    cluster.start_node(node);
    cluster.wait_healthy();
    let create = |c: &Cluster, name: &str| {
        c.cli(c.leader(), &["volume", "create", name, "--size", "64M", "--copies", "1"]);
    };
    (0..5).for_each(|n| create(&cluster, &format!("between-{n}")));
    cluster.wait_healthy();
    let leader = cluster.leader();
    cluster.kill(node);
    copy(&older, &files(&cluster, node));
    cluster.start_node(node);
    cluster.wait_healthy();
    create(&cluster, "after");
    until("it knows what there is", LIMIT, || {
        let volumes = cluster.try_json(node, &["volume", "ls"]).unwrap_or_default();
        volumes.as_array().is_some_and(|all| all.len() == 7)
    });
    assert_eq!(cluster.leader(), leader, "it is in nobody's way");
    let what = format!("node {node}'s record of the control plane is older");
    cluster.wait_event("control-reverted", &what, "its disk lost");
    // It votes as the others do.
    let third = (1..=3).find(|n| *n != node && *n != cluster.leader()).expect("three nodes");
    cluster.kill(third);
    create(&cluster, "without-the-third");
}

/// Nobody can let it in, and a cluster that waits without a word would help nobody.
#[test]
fn the_only_node_of_a_cluster_says_that_its_record_is_damaged_or_gone_and_ends() {
    let mut cluster = Cluster::start(1);
    let good = cluster.folder().join("good");
    cluster.kill(1);
    std::fs::copy(&files(&cluster, 1)[0], &good).expect("a copy");
    for (turn, why) in ["is damaged", "is gone or empty", "is gone or empty"].into_iter().enumerate() {
        damage_both(&cluster, 1, turn);
        let log = cluster.folder().join("node1.log");
        let before = std::fs::read_to_string(&log).expect("its log").len();
        cluster.spawn(1);
        cluster.wait_ended(1);
        let said = std::fs::read_to_string(&log).expect("its log")[before..].to_owned();
        assert!(said.contains("control's database") && said.contains(why), "{said}");
    }
    std::fs::copy(&good, &files(&cluster, 1)[0]).expect("it is put back");
    cluster.start_node(1);
    cluster.wait_healthy();
}

/// One file of two is enough, also where there is nobody to ask.
#[test]
fn a_node_whose_control_database_is_damaged_in_one_file_goes_on_with_the_other() {
    let mut cluster = Cluster::start(1);
    let connect = |c: &Cluster| Client::connect(c.address(1), VOLUME, LIMIT).expect("the export opens");
    for (turn, (damaged, what)) in [(0, 0), (1, 0), (0, 2), (1, 2)].into_iter().enumerate() {
        let content = pattern::content(turn as u64, 1);
        connect(&cluster).write(turn as u64 * content.len() as u64, &content).expect("a write");
        cluster.cli(1, &["volume", "create", &format!("v{turn}"), "--size", "64M"]);
        cluster.kill(1);
        damage(&files(&cluster, 1)[damaged], what).expect("it can be damaged");
        cluster.start_node(1);
        cluster.wait_healthy();
        let volumes = cluster.json(1, &["volume", "ls"]);
        assert_eq!(volumes.as_array().map(Vec::len), Some(turn + 2), "{volumes}");
        for turn in 0..=turn as u64 {
            let content = pattern::content(turn, 1);
            let read = connect(&cluster).read(turn * content.len() as u64, content.len()).expect("a read");
            assert_eq!(read, content);
        }
    }
    assert_eq!(cluster.events("control-mended").len(), 2);
    cluster.wait_event("control-mended", "from its second file", "control.copy.redb.damaged-1");
    assert!(cluster.events("disk-regressed").is_empty() && cluster.events("control-forgotten").is_empty());
}
