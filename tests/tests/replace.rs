//! A host is gone for good; a disk died. Redundancy returns by itself under writes, and what was left behind is freed.

use holdfast_tests::cluster::{Cluster, Options, VOLUME};
use holdfast_tests::process::Signal;
use holdfast_tests::small_fs::SmallFs;
use holdfast_tests::until;
use holdfast_tests::writer::{Plan, Writer};
use serde_json::Value;
use std::fs::File;
use std::time::{Duration, Instant};

const REPLACE_AFTER: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(60);

fn cluster(nodes: usize) -> Cluster {
    let mut options = Options::new(nodes);
    options.environment = vec![("HOLDFAST_REPLACE_AFTER".to_owned(), REPLACE_AFTER.as_secs().to_string())];
    Cluster::with(options)
}

fn disks(cluster: &Cluster, node: usize) -> Vec<Value> {
    let all = cluster.ask(&["disk", "ls"]).as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|d| d["node"] == node).collect()
}

#[test]
fn a_host_that_is_gone_for_good_is_replaced_under_writes_and_frees_its_copy_when_it_is_back_after_all() {
    let mut cluster = cluster(4);
    let (carriers, _) = cluster.copies();
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
        let (nodes, in_sync) = cluster.copies();
        in_sync && nodes.len() == 3 && !nodes.contains(&lost)
    });
    let took = killed.elapsed();
    println!("a lost host's copy was placed anew and in sync {took:.1?} after the SIGKILL");
    assert!(took >= REPLACE_AFTER, "it was not waited for");
    assert!(cluster.copies().0.contains(&spare), "the spare node took it over");
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
    until("every copy is in sync again", LIMIT, || cluster.copies().1 && state(&cluster, false).1 == Some(1));
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

#[test]
fn a_host_that_was_removed_has_no_vote_and_changes_nothing_when_it_is_back() {
    let mut cluster = cluster(4);
    let lost = cluster.owner(0);
    let others: Vec<usize> = (1..=4).filter(|n| *n != lost).collect();
    let name = lost.to_string();
    let writer = Writer::start(Plan::through(&cluster, others[0]));
    writer.wait_more(500, LIMIT);
    let said = cluster.refused(others[0], &["node", "rm", &name]);
    assert!(said.contains("answers") && said.contains("holdfast node stop"), "{said}");
    cluster.kill(lost);
    until("the node is down", LIMIT, || node(&cluster, lost).is_some_and(|n| n["state"] == "down"));
    let said = cluster.refused(others[1], &["node", "rm", &name]);
    assert!(said.contains("still carries 1 copies of segments"), "{said}");
    until("its copy has another place", LIMIT, || {
        let (nodes, in_sync) = cluster.copies();
        in_sync && !nodes.contains(&lost)
    });
    // Any node takes the order.
    cluster.cli(others[2], &["node", "rm", &name]);
    assert!(node(&cluster, lost).is_none() && disks(&cluster, lost).is_empty());
    assert_eq!(cluster.ask(&["status"])["health"], "healthy");
    assert_eq!(cluster.events("node-removed").len(), 1);
    // With its vote two of four would be too few.
    cluster.kill(others[2]);
    cluster.cli(others[0], &["volume", "create", "other", "--size", "64M", "--copies", "1"]);
    writer.wait_more(500, LIMIT);
    // It comes back: it is told, goes on running, and is in nobody's way.
    cluster.start_node(lost);
    until("the removed node says so itself", LIMIT, || {
        let status = cluster.json(lost, &["status"]);
        status["problems"][0].as_str().is_some_and(|p| p.contains("this node was removed from the cluster"))
    });
    let order = ["volume", "resize", VOLUME, "--size", "2G"];
    assert!(cluster.refused(lost, &order).contains("this node was removed from the cluster"));
    cluster.wait_event("connection-refused", "no member", "wipe its data folder");
    cluster.start_node(others[2]);
    let said_by = |n: usize| cluster.try_json(n, &["status"]).unwrap_or_default();
    until("the others are healthy", LIMIT, || others.iter().all(|n| said_by(*n)["health"] == "healthy"));
    assert_eq!(said_by(others[0])["nodes"].as_array().map(Vec::len), Some(3));
    assert!(cluster.lives(lost), "nothing ended the removed node's daemon");
    // The same when it does not know any more that it was in the control plane.
    cluster.kill(lost);
    std::fs::remove_dir_all(cluster.dir(lost).join("control")).expect("it can be removed");
    cluster.start_node(lost);
    until("it is told again", LIMIT, || {
        let status = cluster.try_json(lost, &["status"]).unwrap_or_default();
        status["problems"][0].as_str().is_some_and(|p| p.contains("this node was removed from the cluster"))
    });
    // Its host may be used again, as another node.
    cluster.kill(lost);
    writer.wait_more(500, LIMIT);
    let report = writer.stop();
    println!("longest stall of a write meanwhile: {:.3?}", report.longest_wait());
    report.assert_kept(&cluster, &others);
    let again = cluster.add_node("1G", None);
    until("the host that joined anew is up", LIMIT, || {
        node(&cluster, again).is_some_and(|n| n["state"] == "up")
    });
    cluster.assert_copies_equal();
}

fn node(cluster: &Cluster, number: usize) -> Option<Value> {
    let all = cluster.ask(&["node", "ls"]).as_array().cloned().unwrap_or_default();
    all.into_iter().find(|n| n["id"] == number)
}

#[test]
fn a_lost_disk_that_was_removed_is_not_opened_when_it_is_found_again() {
    let mut cluster = cluster(4);
    let (carriers, _) = cluster.copies();
    let lost = *carriers.iter().find(|n| **n != cluster.owner(0)).expect("three carriers, one owner");
    let (file, away) = (cluster.disk(lost).to_owned(), cluster.folder().join("pulled-out"));
    let id = disks(&cluster, lost)[0]["id"].as_str().unwrap_or_default().to_owned();
    let said = cluster.refused(lost, &["disk", "rm", &id]);
    assert!(said.contains("serves"), "{said}");
    cluster.kill(lost);
    std::fs::rename(&file, &away).expect("the disk can be taken away");
    cluster.start_node(lost);
    until("its copy has another place", LIMIT, || {
        let (nodes, in_sync) = cluster.copies();
        in_sync && !nodes.contains(&lost)
    });
    assert_eq!(cluster.json(lost, &["disk", "show", &id[..8]])["state"], "missing");
    cluster.cli(cluster.owner(0), &["disk", "rm", &id[..8]]);
    assert!(disks(&cluster, lost).is_empty());
    assert!(cluster.refused(lost, &["disk", "rm", &id]).contains("does not exist"));
    cluster.kill(lost);
    std::fs::rename(&away, &file).expect("the disk can be put back");
    cluster.start_node(lost);
    until("it is said that the disk is not opened", LIMIT, || !cluster.events("disk-left-out").is_empty());
    cluster.wait_healthy();
    assert!(disks(&cluster, lost).is_empty());
    // It is blank to nobody: only an operator's word makes a new disk of it.
    let path = file.display().to_string();
    assert!(cluster.refused(lost, &["disk", "add", &path]).contains("holds data already"));
    cluster.cli(lost, &["disk", "add", &path, "--wipe-disk"]);
    until("it is a disk again", LIMIT, || disks(&cluster, lost).iter().any(|d| d["state"] == "ok"));
    assert_ne!(disks(&cluster, lost)[0]["id"], id.as_str());
    cluster.assert_copies_equal();
}

/// What control knows of is counted on: room for volumes, and a place for copies.
#[test]
fn a_disk_that_cannot_be_added_to_the_end_is_not_counted_on() {
    let cluster = cluster(3);
    let node = cluster.owner(0);
    let ids = |c: &Cluster| disks(c, node).iter().map(|d| d["id"].to_string()).collect::<Vec<_>>();
    let before = ids(&cluster);
    // A sparse file, whose file system has no room even for the journal.
    let small = SmallFs::mount(&cluster.folder().join("small"), 64);
    let sparse = small.path().join("disk");
    File::create(&sparse).and_then(|f| f.set_len(4 << 30)).expect("the file can be made");
    let sparse = sparse.display().to_string();
    let why = cluster.refused(node, &["disk", "add", &sparse]);
    println!("{why}");
    assert!(why.contains(&sparse) && why.contains("bytes free"), "{why}");
    // Control knows of it, and then the node cannot note down that it does.
    let openings = cluster.dir(node).join("openings.json");
    let aside = openings.with_extension("aside");
    std::fs::rename(&openings, &aside)
        .and_then(|()| std::fs::create_dir(&openings))
        .expect("it can be moved");
    let path = cluster.folder().join("second").display().to_string();
    let why = cluster.refused(node, &["disk", "add", &format!("{path}:1G")]);
    println!("{why}");
    assert_eq!(ids(&cluster), before);
    let refused = cluster.events("disk-refused");
    assert!(matches!(&refused[..], [e] if e["why"].to_string().contains("openings.json")), "{refused:?}");
    std::fs::remove_dir(&openings)
        .and_then(|()| std::fs::rename(&aside, &openings))
        .expect("it can be put back");
    cluster.cli(node, &["disk", "add", &path]);
    let serves = |d: &Value| d["path"] == path.as_str() && d["state"] == "ok";
    until("the disk serves", LIMIT, || disks(&cluster, node).iter().any(serves));
    assert_eq!(disks(&cluster, node).len(), before.len() + 1);
}

/// Its daemon ended between telling control of it and noting it down.
#[test]
fn a_disk_that_control_knows_and_its_node_does_not_is_said_to_be_missing() {
    let mut cluster = cluster(3);
    let node = cluster.owner(0) % 3 + 1;
    let list = cluster.dir(node).join("disks.json");
    let before = std::fs::read(&list).expect("the node has its list");
    let path = cluster.folder().join("second").display().to_string();
    cluster.cli(node, &["disk", "add", &format!("{path}:1G")]);
    let state = |c: &Cluster| {
        disks(c, node).into_iter().find(|d| d["path"] == path.as_str()).map(|d| d["state"].clone())
    };
    until("the disk serves", LIMIT, || state(&cluster) == Some("ok".into()));
    cluster.kill(node);
    std::fs::write(&list, before).expect("the list can be what it was");
    cluster.start_node(node);
    until("the disk is found to be missing", LIMIT, || state(&cluster) == Some("missing".into()));
    let problems = cluster.ask(&["status"])["problems"].to_string();
    assert!(problems.contains(&format!("{path} of node {node} is not found or was refused")), "{problems}");
    let refused = cluster.events("disk-refused");
    assert!(
        refused.iter().any(|e| e["why"].as_str().is_some_and(|w| w.contains("was not added to the end"))),
        "{refused:?}"
    );
    let id =
        disks(&cluster, node).into_iter().find(|d| d["path"] == path.as_str()).expect("it is listed")["id"]
            .clone();
    cluster.cli(node, &["disk", "rm", id.as_str().expect("an id")]);
    cluster.wait_healthy();
    assert_eq!(state(&cluster), None);
}

#[test]
fn two_of_three_hosts_that_are_lost_at_once_need_an_operators_word_and_the_third_one_goes_on() {
    let mut cluster = Cluster::start(5);
    let (carriers, _) = cluster.copies();
    let others: Vec<usize> = (1..=5).filter(|n| !carriers.contains(n)).collect();
    let writer = Writer::start(Plan::through(&cluster, others[0]));
    writer.wait_more(1000, LIMIT);
    let report = writer.stop();
    // Every copy has it all, which nobody can know of the last write of two hosts that die.
    cluster.assert_copies_equal();
    let (first, second) = (carriers[0].to_string(), carriers[1].to_string());
    let [a, b] = [cluster.pid(carriers[0]), cluster.pid(carriers[1])].map(|pid| pid.to_string());
    holdfast_tests::succeed("kill", &["-s", "KILL", &a, &b]);
    let asked = others[0];
    for n in [carriers[0], carriers[1]] {
        cluster.kill(n);
        until("the node is down", LIMIT, || node(&cluster, n).is_some_and(|n| n["state"] == "down"));
    }
    // Blocks that the first writer left alone.
    let waits = Writer::start(Plan { first: 1 << 16, ..Plan::through(&cluster, others[1]) });
    cluster.cli(asked, &["node", "lost", &first]);
    let said = cluster.refused(asked, &["node", "lost", &second]);
    assert!(said.contains("may be nowhere else") && said.contains("--accept-loss"), "{said}");
    let said = cluster.refused(asked, &["volume", "salvage", VOLUME, "--yes"]);
    assert!(said.contains("nothing of volume 'demo' is to be salvaged"), "{said}");
    cluster.cli(asked, &["node", "lost", &second, "--accept-loss"]);
    until("status says what to do", LIMIT, || {
        cluster.ask(&["status"])["problems"].to_string().contains("holdfast volume salvage demo")
    });
    assert!(cluster.refused(asked, &["volume", "salvage", VOLUME]).contains("--yes"));
    assert_eq!(waits.done(), 0, "nothing went on by itself");
    cluster.cli(asked, &["volume", "salvage", VOLUME, "--yes"]);
    let salvaged = Instant::now();
    waits.wait_more(500, LIMIT);
    println!("from `volume salvage` to 500 answers to a writer: {:.1?}", salvaged.elapsed());
    until("three copies are in sync, none of them on a lost host", LIMIT, || {
        let (nodes, in_sync) = cluster.copies();
        in_sync && nodes.len() == 3 && !nodes.contains(&carriers[0]) && !nodes.contains(&carriers[1])
    });
    // One of them is found after all: it starts empty, and in nobody's way.
    cluster.start_node(carriers[1]);
    until("its old copy is gone", LIMIT, || disks(&cluster, carriers[1])[0]["incarnation"] == 2);
    cluster.cli(asked, &["node", "rm", &first]);
    cluster.wait_healthy();
    let after = waits.stop();
    after.assert_kept(&cluster, &[others[0], others[1], carriers[2]]);
    report.assert_kept(&cluster, &[others[0], carriers[1], carriers[2]]);
    cluster.assert_copies_equal();
}

#[test]
fn two_of_three_disks_that_died_at_once_are_given_up_and_the_third_one_is_served() {
    let mut cluster = Cluster::start(3);
    let writer = Writer::start(Plan::through(&cluster, 1));
    writer.wait_more(1000, LIMIT);
    let report = writer.stop();
    cluster.assert_copies_equal();
    cluster.kill_all();
    for n in [2, 3] {
        std::fs::remove_file(cluster.disk(n)).expect("the disk can be taken away");
    }
    (1..=3).for_each(|n| cluster.spawn(n));
    (1..=3).for_each(|n| cluster.wait_answers(n));
    let missing = |c: &Cluster, n: usize| disks(c, n)[0]["state"] == "missing";
    until("both disks are found to be missing", LIMIT, || missing(&cluster, 2) && missing(&cluster, 3));
    let said = cluster.refused(1, &["volume", "salvage", VOLUME, "--yes"]);
    assert!(said.contains("nothing of volume 'demo' is to be salvaged"), "they may be found: {said}");
    let id = |c: &Cluster, n: usize| disks(c, n)[0]["id"].as_str().expect("an id").to_owned();
    let said = cluster.refused(1, &["disk", "lost", &id(&cluster, 1)]);
    assert!(said.contains("serves"), "{said}");
    cluster.cli(1, &["disk", "lost", &id(&cluster, 2)]);
    let said = cluster.refused(1, &["disk", "lost", &id(&cluster, 3)]);
    assert!(said.contains("may be nowhere else") && said.contains("--accept-loss"), "{said}");
    cluster.cli(1, &["disk", "lost", &id(&cluster, 3), "--accept-loss"]);
    cluster.cli(1, &["volume", "salvage", VOLUME, "--yes"]);
    // With one copy of three it is read; a write waits for a second one.
    report.verify(cluster.address(3));
    let writer = Writer::start(Plan { first: 1 << 16, ..Plan::through(&cluster, 1) });
    for n in [2, 3] {
        cluster.cli(n, &["disk", "add", &format!("{}:1G", cluster.disk(n).display())]);
    }
    until("three copies are in sync", LIMIT, || cluster.copies().1);
    writer.wait_more(500, LIMIT);
    writer.stop().assert_kept(&cluster, &[1, 2, 3]);
    report.assert_kept(&cluster, &[1, 2, 3]);
    cluster.assert_copies_equal();
}

/// The operator is wrong: the host stood still, and goes on with its disk open. What was said of it stands until its daemon
/// starts anew; then its disk begins anew.
#[test]
fn a_host_that_was_taken_for_lost_and_goes_on_is_not_counted_on() {
    let mut cluster = Cluster::start(3);
    let owner = cluster.owner(0);
    let (lost, asked) = (owner % 3 + 1, (owner + 1) % 3 + 1);
    let writer = Writer::start(Plan::through(&cluster, asked));
    writer.wait_more(1000, LIMIT);
    let first = writer.stop();
    cluster.signal(lost, Signal::Stop);
    let number = lost.to_string();
    until("it is taken for lost", LIMIT, || cluster.try_cli(asked, &["node", "lost", &number]).is_ok());
    // Nobody writes, so that no owner misses it.
    let segment = |c: &Cluster| c.json(asked, &["volume", "show", VOLUME])["segments"][0].clone();
    let epoch = |c: &Cluster| segment(c)["granted_epoch"].as_u64().expect("an epoch");
    until("its copy leaves the set", LIMIT, || epoch(&cluster) > 1);
    cluster.signal(lost, Signal::Cont);
    until("it is up", LIMIT, || node(&cluster, lost).is_some_and(|n| n["state"] == "up"));
    let before = epoch(&cluster);
    // Blocks that the first writer left alone.
    let writer = Writer::start(Plan { first: 1 << 16, ..Plan::through(&cluster, asked) });
    writer.wait_more(5000, LIMIT);
    let epochs = epoch(&cluster) - before;
    assert!(epochs <= 2, "{epochs} epochs: its copy enters the set and leaves it again");
    assert_eq!(disks(&cluster, lost)[0]["state"], "failed");
    let report = writer.stop();
    cluster.kill(lost);
    cluster.start_node(lost);
    cluster.wait_healthy();
    assert_eq!(disks(&cluster, lost)[0]["incarnation"], 2);
    for report in [first, report] {
        report.assert_kept(&cluster, &[1, 2, 3]);
    }
    cluster.assert_copies_equal();
}

#[test]
fn an_older_image_of_a_disk_that_is_put_back_is_found_out_and_built_anew() {
    let mut cluster = cluster(3);
    let owner = cluster.owner(0);
    let node = owner % 3 + 1;
    let writer = Writer::start(Plan::through(&cluster, owner));
    writer.wait_more(1000, LIMIT);
    cluster.kill(node);
    let image = cluster.folder().join("older.img");
    std::fs::copy(cluster.disk(node), &image).expect("the image can be kept");
    cluster.start_node(node);
    until("it is in sync", LIMIT, || cluster.copies().1);
    writer.wait_more(1000, LIMIT);
    cluster.kill(node);
    std::fs::copy(&image, cluster.disk(node)).expect("the image can be put back");
    cluster.start_node(node);
    until("it is found out", LIMIT, || cluster.events("disk-regressed").len() == 1);
    until("it is built anew", LIMIT, || cluster.copies().1 && disks(&cluster, node)[0]["state"] == "ok");
    assert_eq!(disks(&cluster, node)[0]["incarnation"], 2);
    writer.wait_more(500, LIMIT);
    writer.stop().assert_kept(&cluster, &[1, 2, 3]);
    cluster.assert_copies_equal();
    // It is a disk as any other from now on.
    cluster.kill(node);
    cluster.start_node(node);
    cluster.wait_healthy();
    assert_eq!(cluster.events("disk-regressed").len(), 1);
}
