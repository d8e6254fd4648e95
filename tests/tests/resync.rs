//! A replica was away. It gets what it missed and nothing else, under live writes, and is equal afterwards.

use holdfast_tests::cluster::{Cluster, Options, VOLUME};
use holdfast_tests::disk_image::DiskImage;
use holdfast_tests::nbd::Client;
use holdfast_tests::pattern::{BLOCK, content, run};
use holdfast_tests::writer::{Plan, Writer};
use holdfast_tests::{succeed, until};
use std::time::Duration;

const MISSED: u64 = 512 << 20;
/// What was written before: a copy of everything is twice what was missed.
const FILLED: &str = "--size=1G";
/// What live writes, and the blocks of one extent that were written along with missed ones, may add.
const MOST: u64 = MISSED + MISSED / 4;
const LIMIT: Duration = Duration::from_secs(60);
/// More than the journal of a disk of 1 GiB holds, far from the blocks that are looked at.
const ROUND_BLOCKS: u64 = (160 << 20) / BLOCK as u64;
const FAR: u64 = (256 << 20) / BLOCK as u64;
const RESYNC: Duration = Duration::from_secs(120);

fn cluster() -> Cluster {
    let mut options = Options::new(3);
    (options.disk, options.volume) = ("3G".to_owned(), "2G".to_owned());
    Cluster::with(options)
}

/// Bytes that resyncs copied so far, as the events of their ends say: "done: 7 images, 4096 bytes, 0.1 s".
fn copied(cluster: &Cluster) -> u64 {
    let bytes =
        |what: &String| what.split(", ").find_map(|part| part.strip_suffix(" bytes")?.parse::<u64>().ok());
    cluster.replication_events(" done: ").iter().filter_map(bytes).sum()
}

/// Fills the volume's first GiB, lets one replica miss what `write` writes, and returns what was copied to it.
fn miss(cluster: &mut Cluster, write: impl Fn(&str)) -> u64 {
    let owner = cluster.owner(0);
    let away = owner % 3 + 1;
    let uri = format!("--uri={}", cluster.nbd(owner));
    let fill = ["--name=fill", "--ioengine=nbd", "--rw=write", "--bs=1M", "--iodepth=4", FILLED];
    succeed("fio", &[&fill[..], &[uri.as_str()]].concat());
    cluster.wait_healthy();
    cluster.kill(away);
    write(&uri);
    let before = copied(cluster);
    cluster.start_node(away);
    // Live writes go on meanwhile, until the resync has said that it is done.
    let mut plan = Plan::through(cluster, owner);
    plan.first = (1 << 30) / BLOCK as u64;
    let writer = Writer::start(plan);
    until("the resync is done", RESYNC, || copied(cluster) > before);
    cluster.wait_healthy_for(RESYNC);
    writer.wait_more(100, LIMIT);
    let report = writer.stop();
    report.assert_kept(cluster, &[1, 2, 3]);
    cluster.assert_copies_equal();
    copied(cluster).saturating_sub(before)
}

#[test]
fn a_replica_that_missed_contiguous_writes_gets_only_the_changed_extents() {
    let mut cluster = cluster();
    let bytes = miss(&mut cluster, |uri| {
        let job = [
            "--name=missed",
            "--ioengine=nbd",
            "--rw=write",
            "--bs=1M",
            "--iodepth=4",
            "--buffer_pattern=0x5a",
            "--size=512M",
        ];
        succeed("fio", &[&job[..], &[uri]].concat());
    });
    println!("missed {MISSED} bytes, contiguous: {bytes} bytes were copied");
    assert!((MISSED..=MOST).contains(&bytes), "{bytes} bytes were copied for {MISSED} missed");
}

#[test]
fn a_replica_that_missed_random_blocks_gets_only_the_changed_extents() {
    let mut cluster = cluster();
    let bytes = miss(&mut cluster, |uri| {
        let job = [
            "--name=missed",
            "--ioengine=nbd",
            "--rw=randwrite",
            "--bs=4k",
            "--iodepth=32",
            "--buffer_pattern=0x5a",
            FILLED,
            "--io_size=512M",
        ];
        succeed("fio", &[&job[..], &[uri]].concat());
    });
    println!("missed {MISSED} bytes, random 4 KiB: {bytes} bytes were copied");
    assert!((MISSED..=MOST).contains(&bytes), "{bytes} bytes were copied for {MISSED} missed");
}

#[test]
fn a_replica_whose_journal_meets_the_owners_gets_records_and_no_image() {
    let mut cluster = cluster();
    let owner = cluster.owner(0);
    let away = owner % 3 + 1;
    let named = format!("resync of the copy on node {away}");
    // Away shortly, it is in the set still and gets what is newer.
    let writer = Writer::start(Plan::through(&cluster, owner));
    writer.wait_more(500, LIMIT);
    cluster.kill(away);
    writer.wait_more(200, LIMIT);
    cluster.start_node(away);
    cluster.wait_healthy();
    writer.stop().assert_kept(&cluster, &[1, 2, 3]);
    assert_eq!(cluster.replication_events(&named), [""; 0]);
    // Away for longer, it left the set; the journal still has what it missed.
    cluster.kill(away);
    write_blocks(&cluster, owner, FAR..FAR + 64, 1);
    until("it left the set", LIMIT, || {
        !cluster.replication_events(&format!("copy on node {away} leaves the set")).is_empty()
    });
    let mut plan = Plan::through(&cluster, owner);
    plan.first = FAR + 64;
    let writer = Writer::start(plan);
    writer.wait_more(100, LIMIT);
    cluster.start_node(away);
    until("the resync is done", LIMIT, || cluster.replication_events(&named).len() >= 2);
    cluster.wait_healthy();
    writer.wait_more(100, LIMIT);
    writer.stop().assert_kept(&cluster, &[1, 2, 3]);
    let said = cluster.replication_events(&named);
    println!("{}", said.join("; "));
    // Of each segment.
    let (begun, done): (Vec<&String>, Vec<&String>) = said.iter().partition(|s| !s.contains(" done: "));
    assert!(begun.iter().all(|s| s.starts_with(&format!("{named}: 0 extents newer than "))), "{said:?}");
    assert!(done.iter().all(|s| s.starts_with(&format!("{named} done: 0 images, 0 bytes, "))), "{said:?}");
    cluster.assert_copies_equal();
}

#[test]
fn a_check_compares_all_copies_while_writes_go_on() {
    let cluster = cluster();
    let writer = Writer::start(Plan::through(&cluster, 1));
    writer.wait_more(1000, LIMIT);
    for _ in 0..3 {
        cluster.assert_copies_equal();
    }
    writer.wait_more(100, LIMIT);
    writer.stop().assert_kept(&cluster, &[1]);
}

#[test]
fn a_check_finds_a_block_with_a_wrong_checksum_on_one_disk() {
    let mut cluster = Cluster::start(3);
    let (node, block) = (2, 11);
    write_blocks(&cluster, node, 0..32, 1);
    stop_cleanly(&mut cluster, node);
    DiskImage::open(cluster.disk(node)).flip_bit_of(&content(block, 1));
    cluster.start_node(node);
    cluster.wait_healthy();
    let found = finding_on(&cluster, node);
    assert_eq!(found["offset"], block * BLOCK as u64, "{found:#}");
    cluster.assert_copies_equal();
}

#[test]
fn a_check_finds_an_older_block_whose_checksum_matches() {
    let mut cluster = Cluster::start(3);
    let (node, block) = (3, 5);
    write_blocks(&cluster, node, 0..32, 1);
    stop_cleanly(&mut cluster, node);
    let before = DiskImage::open(cluster.disk(node)).snapshot();
    cluster.start_node(node);
    cluster.wait_healthy();
    write_blocks(&cluster, node, block..block + 1, 2);
    // The journal would bring the newer block up again: it has to go round once.
    let mut client = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    for block in (FAR..FAR + ROUND_BLOCKS).step_by(256) {
        client.write(block * BLOCK as u64, &run(block, 256, 1)).expect("the write ends well");
    }
    drop(client);
    write_blocks(&cluster, node, FAR..FAR + 1, 2);
    stop_cleanly(&mut cluster, node);
    // Data and metadata of the extent as they were: every checksum is right, the content is of the past.
    DiskImage::open(cluster.disk(node)).put_back_behind_the_journal(&before);
    cluster.start_node(node);
    cluster.wait_healthy();
    finding_on(&cluster, node);
}

/// What a check that leaves no copy out finds on a node.
fn finding_on(cluster: &Cluster, node: usize) -> serde_json::Value {
    let report = cluster.full_check();
    let found = report["findings"].as_array().expect("a list").iter().find(|f| f["node"] == node);
    found.unwrap_or_else(|| panic!("nothing was found on node {node}: {report:#}")).clone()
}

/// Writes blocks, and waits until the node's disk holds the last of them in its place.
fn write_blocks(cluster: &Cluster, node: usize, blocks: std::ops::Range<u64>, version: u64) {
    let mut client = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    for block in blocks.clone() {
        client.write(block * BLOCK as u64, &content(block, version)).expect("the write ends well");
    }
    let last = content(blocks.end - 1, version);
    until("the disk holds what was written", LIMIT, || DiskImage::open(cluster.disk(node)).holds(&last));
}

fn stop_cleanly(cluster: &mut Cluster, node: usize) {
    cluster.cli(node, &["node", "stop"]);
    cluster.wait_ended(node);
}

#[test]
fn a_check_right_after_a_node_came_back_waits_for_its_copy_and_one_that_is_away_is_named() {
    let mut cluster = Cluster::start(3);
    let mut client = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    (0..16).for_each(|b| client.write(b * BLOCK as u64, &content(b, 1)).expect("a write"));
    let away = cluster.owner(0) % 3 + 1;
    let asked = away % 3 + 1;
    cluster.kill(away);
    until("control knows that it is away", LIMIT, || {
        cluster.json(asked, &["node", "show", &away.to_string()])["state"] == "down"
    });
    let skipped = cluster.check()["skipped"].clone();
    let named = format!("node {away} ");
    let said =
        skipped.as_array().expect("a list").iter().map(|s| s.as_str().unwrap_or("")).collect::<Vec<_>>();
    assert!(
        matches!(said[..], [one] if one.starts_with(&named) && one.ends_with("start its daemon and check again")),
        "{said:?}"
    );
    cluster.spawn(away);
    until("it is up again", LIMIT, || {
        cluster.json(asked, &["node", "show", &away.to_string()])["state"] == "up"
    });
    // At this moment neither its disk nor the owner's link to it need be there.
    let report = cluster.check();
    assert_eq!(report["skipped"], serde_json::json!([]), "{report:#}");
    assert_eq!(report["findings"], serde_json::json!([]), "{report:#}");
}
