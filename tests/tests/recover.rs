//! A majority of the control plane is lost for good. One node goes on from its log, with everything that was
//! acknowledged where that can be known, and says so first where it cannot; others follow it, and redundancy returns.

use holdfast_tests::cluster::{Cluster, Options, VOLUME};
use holdfast_tests::nbd::Client;
use holdfast_tests::pattern::{BLOCK, content, version_of};
use holdfast_tests::until;
use holdfast_tests::writer::{Plan, Writer};
use serde_json::Value;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// Takes a host away, with all that it had.
fn burn(cluster: &mut Cluster, node: usize) {
    cluster.kill(node);
    std::fs::remove_dir_all(cluster.dir(node)).expect("the data folder can be removed");
}

fn position(cluster: &Cluster, node: usize) -> (u64, u64) {
    let report = cluster.json(node, &["recover"]);
    assert_eq!(report["ticket"], Value::Null, "it only says: {report}");
    let text = report["position"].as_str().expect("a position").to_owned();
    let (term, index) = text.split_once('.').expect("term and index");
    (term.parse().expect("a number"), index.parse().expect("a number"))
}

fn problems(cluster: &Cluster, node: usize) -> String {
    cluster.try_json(node, &["status"]).unwrap_or_default()["problems"].to_string()
}

#[test]
fn of_two_hosts_one_burns_and_the_other_goes_on_alone_and_gets_a_new_partner() {
    let mut cluster = Cluster::start(2);
    let writer = Writer::start(Plan::through_any(&cluster, &[1]));
    writer.wait_more(1000, LIMIT);
    burn(&mut cluster, 2);
    until("it has no majority", LIMIT, || problems(&cluster, 1).contains("no majority"));
    let said = cluster.refused(1, &["recover", "--lost", "node-2"]);
    assert!(said.contains("daemon") && !said.contains("whole control plane"), "{said}");
    cluster.kill(1);
    let said = cluster.cli(1, &["recover"]);
    assert!(said.contains("Nothing was changed") && said.contains("--lost 2"), "{said}");
    for (wrong, why) in [
        (&["recover", "--lost", "nobody"][..], "no node \"nobody\""),
        (&["recover", "--lost", "1"], "this node"),
        (&["recover", "--lost", "2", "--survivor", "2=1.1"], "named twice"),
        (&["recover", "--survivor", "2=1.1"], "a majority"),
        (&["recover", "--survivor", "2=x"], "NODE=POSITION"),
        (&["recover", "--follow", "2-1.1"], "--follow"),
        (&["recover", "--lost", "2", "--follow", "2-1.1-0000000100000001"], "cannot be used with"),
    ] {
        let said = cluster.refused(1, wrong);
        assert!(said.contains(why) && said.matches("holdfast: ").count() == 1, "{wrong:?}: {said}");
    }
    let dry = cluster.json(1, &["recover", "--lost", "2", "--dry-run"]);
    assert_eq!((&dry["losses"], &dry["ticket"]), (&serde_json::json!([]), &Value::Null), "{dry}");
    let began = Instant::now();
    let done = cluster.json(1, &["recover", "--lost", "node-2"]);
    assert_eq!(done["lost"], serde_json::json!([2]));
    assert!(std::path::Path::new(done["kept"].as_str().expect("a path")).exists());
    cluster.start_node(1);
    writer.wait_more(1000, LIMIT);
    println!("from `recover` to 1,000 more answers to the writer: {:.1?}", began.elapsed());
    cluster.cli(1, &["volume", "create", "other", "--size", "64M", "--copies", "1"]);
    // The next host takes what the burnt one had, at once.
    cluster.add_node("1G", None);
    until("both copies are in sync, none of them on the burnt host", LIMIT, || {
        let (nodes, in_sync) = cluster.copies();
        in_sync && nodes.len() == 2 && !nodes.contains(&2)
    });
    cluster.cli(1, &["node", "rm", "node-2"]);
    cluster.wait_healthy();
    writer.wait_more(500, LIMIT);
    let report = writer.stop();
    report.assert_kept(&cluster, &[1, 3]);
    cluster.assert_copies_equal();
    let events = cluster.events("control-recovery");
    assert!(
        events.iter().any(|e| e["what"].as_str().is_some_and(|w| w.contains("without nodes 2"))),
        "{events:?}"
    );
    // All of it is on the disks.
    cluster.kill_all();
    cluster.spawn(1);
    cluster.spawn(3);
    cluster.wait_answers(1);
    cluster.wait_healthy();
    report.assert_kept(&cluster, &[1, 3]);
}

#[test]
fn of_five_hosts_two_are_left_and_one_that_was_taken_for_lost_is_found_after_all() {
    let mut options = Options::new(5);
    options.copies = Some(3);
    let mut cluster = Cluster::with(options);
    let (carriers, _) = cluster.copies();
    // Two of three copies are left: every acknowledged write.
    let (left, found) = ([carriers[0], carriers[1]], carriers[2]);
    let lost: Vec<String> = (1..=5).filter(|n| !left.contains(n)).map(|n| n.to_string()).collect();
    let writer = Writer::start(Plan::through_any(&cluster, &left));
    writer.wait_more(1000, LIMIT);
    cluster.kill_all();
    let positions = left.map(|n| position(&cluster, n));
    let (best, other) = if positions[0] >= positions[1] { (0, 1) } else { (1, 0) };
    let (node, follower) = (left[best], left[other]);
    let lost = lost.join(",");
    let said = cluster.refused(node, &["recover", "--lost", &lost]);
    assert!(said.contains(&format!("nothing is said of node {follower}")), "{said}");
    let further = format!("{follower}={}.{}", positions[best].0, positions[best].1 + 1);
    let said = cluster.refused(node, &["recover", "--lost", &lost, "--survivor", &further]);
    assert!(said.contains(&format!("the log of node {follower} goes further")), "{said}");
    let survivor = format!("{follower}={}.{}", positions[other].0, positions[other].1);
    let done = cluster.json(node, &["recover", "--lost", &lost, "--survivor", &survivor]);
    let ticket = done["ticket"].as_str().expect("a ticket").to_owned();
    assert!(cluster.refused(node, &["recover", "--follow", &ticket]).contains("for the others"));
    cluster.cli(follower, &["recover", "--follow", &ticket]);
    assert!(cluster.refused(follower, &["recover", "--follow", &ticket]).contains("follows already"));
    cluster.spawn(node);
    cluster.spawn(follower);
    left.iter().for_each(|n| cluster.wait_answers(*n));
    writer.wait_more(1000, LIMIT);
    // One that was taken for lost starts with what it had: it is told, and is in nobody's way.
    cluster.start_node(found);
    until("it says so itself", LIMIT, || problems(&cluster, found).contains("recover --follow"));
    cluster.wait_event("node-taken-for-lost", &format!("node {found} runs"), "");
    let order = ["volume", "resize", VOLUME, "--size", "2G"];
    assert!(cluster.refused(found, &order).contains("recover --follow"));
    writer.wait_more(500, LIMIT);
    cluster.kill(found);
    // What it alone knows, if it does, is given up.
    cluster.cli(found, &["recover", "--follow", &ticket, "--discard"]);
    cluster.start_node(found);
    until("three copies are in sync again", LIMIT, || {
        let (nodes, in_sync) = cluster.copies();
        in_sync && nodes.len() == 3
    });
    for gone in lost.split(',').filter(|n| *n != found.to_string()) {
        cluster.cli(node, &["node", "rm", gone]);
    }
    cluster.wait_healthy();
    writer.wait_more(500, LIMIT);
    writer.stop().assert_kept(&cluster, &[node, follower, found]);
    cluster.assert_copies_equal();
    // All three vote: any two of them are a majority.
    cluster.kill(node);
    cluster.cli(found, &["volume", "create", "other", "--size", "64M", "--copies", "1"]);
}

#[test]
fn where_acknowledged_writes_may_be_lost_it_is_said_first_and_what_is_left_is_served() {
    let mut cluster = Cluster::start(3);
    let mut client = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    for block in 0..64 {
        client.write(block * BLOCK as u64, &content(block, 7)).expect("a write");
    }
    drop(client);
    // Every copy has these, which nobody can know of the last write of a cluster that dies.
    cluster.assert_copies_equal();
    cluster.kill_all();
    let dry = cluster.json(1, &["recover", "--lost", "2,3", "--dry-run"]);
    let loss = serde_json::json!([{ "volume": VOLUME, "segments": 1, "in_doubt": 1, "gone": 0 }]);
    assert_eq!(dry["losses"], loss);
    let said = cluster.refused(1, &["recover", "--lost", "2,3"]);
    assert!(said.contains("volume demo in 1 of its 1 segments") && said.contains("--accept-loss"), "{said}");
    assert_eq!(cluster.json(1, &["recover"])["ticket"], Value::Null, "nothing was changed");
    cluster.cli(1, &["recover", "--lost", "2,3", "--accept-loss"]);
    burn(&mut cluster, 2);
    burn(&mut cluster, 3);
    cluster.start_node(1);
    let mut client = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    for block in 0..64 {
        let read = client.read(block * BLOCK as u64, BLOCK).expect("what is left is read");
        assert_eq!(version_of(block, &read), Ok(7));
    }
    // Of three copies two have to take a write: it waits for the next host.
    let cookie = client.send(holdfast_tests::nbd::Command::Write, 0, BLOCK as u32, &content(0, 8));
    let cookie = cookie.expect("the socket takes the write");
    cluster.add_node("1G", None);
    client.reply(cookie, 0).expect("the write ends well");
    cluster.add_node("1G", None);
    until("three copies are in sync", LIMIT, || {
        let (nodes, in_sync) = cluster.copies();
        in_sync && nodes.len() == 3
    });
    cluster.cli(1, &["node", "rm", "2"]);
    cluster.cli(1, &["node", "rm", "3"]);
    cluster.wait_healthy();
    cluster.assert_copies_equal();
    assert_eq!(version_of(0, &client.read(0, BLOCK).expect("a read")), Ok(8));
}
