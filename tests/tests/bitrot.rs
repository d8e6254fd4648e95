//! A disk lies, shrinks, is another cluster's, or is full.

use holdfast_tests::cluster::{Cluster, Options, VOLUME};
use holdfast_tests::disk_image::DiskImage;
use holdfast_tests::nbd::Client;
use holdfast_tests::pattern::{BLOCK, content, run, version_of};
use holdfast_tests::powered::Powered;
use holdfast_tests::{succeed, until, wait_for};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// A write that is not answered so long waits for space.
const WAITS: Duration = Duration::from_secs(10);

fn stop_cleanly(cluster: &mut Cluster, node: usize) {
    cluster.cli(node, &["node", "stop"]);
    cluster.wait_ended(node);
}

/// The first 64 blocks are as they were written, and no read of them fails.
fn reads_what_was_written(client: &mut Client) {
    for b in 0..64 {
        let read = client.read(b * BLOCK as u64, BLOCK).expect("a read");
        assert_eq!(version_of(b, &read), Ok(1), "block {b}");
    }
}

#[test]
fn a_flipped_bit_on_the_owners_disk_is_found_on_read_answered_from_a_good_copy_healed_and_reported() {
    let mut cluster = Cluster::start(3);
    let block = 17;
    let mut client = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    (0..64).for_each(|b| client.write(b * BLOCK as u64, &content(b, 1)).expect("a write"));
    let node = cluster.owner(0);
    drop(client);
    let last = content(63, 1);
    until("the owner's disk holds what was written", LIMIT, || {
        DiskImage::open(cluster.disk(node)).holds(&last)
    });
    stop_cleanly(&mut cluster, node);
    DiskImage::open(cluster.disk(node)).flip_bit_of(&content(block, 1));
    cluster.start_node(node);
    cluster.wait_healthy();
    // Only the owner reads its disk for a client, and ownership went away with the stop.
    cluster.make_owner(node);
    assert!(cluster.replication_events(" healed from ").is_empty(), "it was found before it was read");
    let mut client = Client::connect(cluster.address(node), VOLUME, LIMIT).expect("the export opens");
    let read = client.read(block * BLOCK as u64, BLOCK).expect("a read");
    assert_eq!(version_of(block, &read), Ok(1), "answered with what the disk holds");
    until("the healed block is reported", LIMIT, || !cluster.replication_events(" healed from ").is_empty());
    println!("{}", cluster.replication_events(" healed from ").join("; "));
    assert_eq!(cluster.owner(0), node, "another node owns by now: who read?");
    cluster.assert_copies_equal();
    stop_cleanly(&mut cluster, node);
    let healed = DiskImage::open(cluster.disk(node)).holds(&content(block, 1));
    assert!(healed, "the disk still holds the flipped bit");
}

#[test]
fn a_flipped_bit_that_nobody_reads_is_found_by_the_scrub_healed_and_reported() {
    let mut options = Options::new(3);
    options.environment = vec![("HOLDFAST_SCRUB_EVERY".to_owned(), "4".to_owned())];
    let mut cluster = Cluster::with(options);
    let block = 17;
    let owner = cluster.owner(0);
    let mut client = Client::connect(cluster.address(owner), VOLUME, LIMIT).expect("the export opens");
    (0..64).for_each(|b| client.write(b * BLOCK as u64, &content(b, 1)).expect("a write"));
    drop(client);
    // No client's read ever goes there.
    let node = owner % 3 + 1;
    let last = content(63, 1);
    until("the copy's disk holds what was written", LIMIT, || {
        DiskImage::open(cluster.disk(node)).holds(&last)
    });
    stop_cleanly(&mut cluster, node);
    DiskImage::open(cluster.disk(node)).flip_bit_of(&content(block, 1));
    cluster.start_node(node);
    cluster.wait_event("scrub-found", &format!("node {node}"), "");
    let found = cluster.events("scrub-found");
    let what = found[0]["what"].to_string();
    println!("{what}");
    assert!(
        what.contains("volume demo, segment 0: 1 block of a copy")
            && what.contains("wrong checksum; 1 healed")
    );
    assert_eq!(found[0]["level"], "warning");
    let metrics: Vec<f64> = (1..=3).map(|n| cluster.metric(n, "holdfast_scrub_findings_total")).collect();
    assert!(metrics.iter().sum::<f64>() >= 1.0, "{metrics:?}");
    cluster.wait_healthy();
    cluster.assert_copies_equal();
    stop_cleanly(&mut cluster, node);
    let healed = DiskImage::open(cluster.disk(node)).holds(&content(block, 1));
    assert!(healed, "the disk still holds the flipped bit");
}

#[test]
fn a_bit_that_flipped_in_the_journal_costs_a_block_and_not_the_disk() {
    journal_is_damaged(&mut Cluster::start(3), |disk, _, block| {
        DiskImage::open(disk).flip_bit_in_journal(block);
    });
}

#[test]
fn a_sector_of_the_journal_that_cannot_be_read_costs_a_block_and_not_the_disk() {
    let powered = Powered::new();
    let mut cluster = Cluster::with(powered.options());
    let node = journal_is_damaged(&mut cluster, |disk, node, block| {
        let place = DiskImage::open(&powered.backing(node, disk)).place_in_journal(block);
        powered.lose_sector(node, disk, place);
        let read = File::open(disk).and_then(|file| file.read_exact_at(&mut [0; BLOCK], place));
        assert_eq!(read.expect_err("the sector is lost").raw_os_error(), Some(5));
    });
    let opened = cluster.events("disk-opened");
    let told: Vec<_> =
        opened.iter().filter(|e| e["what"].to_string().contains("could not be read")).collect();
    println!("node {node}: {told:?}");
    assert!(matches!(told[..], [e] if e["level"] == "warning"), "{opened:?}");
}

/// A block that is in the journal of a node alone is damaged while its daemon does not run. Which node.
fn journal_is_damaged(cluster: &mut Cluster, damage: impl FnOnce(&Path, usize, &[u8])) -> usize {
    let block = 17;
    let node = cluster.owner(0);
    let mut client = Client::connect(cluster.address(node), VOLUME, LIMIT).expect("the export opens");
    (0..64).for_each(|b| client.write(b * BLOCK as u64, &content(b, 1)).expect("a write"));
    drop(client);
    // What was written a moment ago is in the journal alone, and known to be committed by what was written after it.
    cluster.kill(node);
    damage(cluster.disk(node), node, &content(block, 1));
    cluster.start_node(node);
    cluster.wait_healthy();
    until("the damage is found when what was in the journal alone is put in place", LIMIT, || {
        !cluster.events("store").is_empty()
    });
    let found: Vec<String> = cluster.events("store").iter().map(|e| e["what"].to_string()).collect();
    assert!(
        matches!(&found[..], [e] if e.contains("block 17 of segment") && e.contains("damaged in the journal")),
        "{found:?}"
    );
    cluster.make_owner(node);
    let mut client = Client::connect(cluster.address(node), VOLUME, LIMIT).expect("the export opens");
    reads_what_was_written(&mut client);
    assert_eq!(cluster.owner(0), node, "another node owns by now: who read?");
    until("the healed block is reported", LIMIT, || !cluster.replication_events(" healed from ").is_empty());
    println!("{}; {}", found.join("; "), cluster.replication_events(" healed from ").join("; "));
    cluster.assert_copies_equal();
    node
}

/// The page of the first extent is damaged on the disk of a node, and nothing of it is in memory. `running`: damaged only once
/// the daemon has opened the disk. A client of that node then reads all of the extent.
fn a_page_is_damaged(mut cluster: Cluster, running: bool, damage: impl Fn(&Path, usize)) -> Cluster {
    let node = cluster.owner(0);
    let mut client = Client::connect(cluster.address(node), VOLUME, LIMIT).expect("the export opens");
    (0..64).for_each(|b| client.write(b * BLOCK as u64, &content(b, 1)).expect("a write"));
    until("it is in place", LIMIT, || DiskImage::open(cluster.disk(node)).holds(&content(63, 1)));
    // The round of writing back that this is in begins with a batch which says that the first one's pages are durable.
    client.write(1000 * BLOCK as u64, &content(1000, 1)).expect("a write");
    until("the next round is done", LIMIT, || !DiskImage::open(cluster.disk(node)).newest_page(3).is_empty());
    drop(client);
    stop_cleanly(&mut cluster, node);
    if !running {
        damage(cluster.disk(node), node);
    }
    cluster.start_node(node);
    if running {
        cluster.wait_healthy();
        damage(cluster.disk(node), node);
        cluster.make_owner(node);
    }
    let mut client = Client::connect(cluster.address(node), VOLUME, LIMIT).expect("the export opens");
    reads_what_was_written(&mut client);
    until("the damage is reported", LIMIT, || !cluster.events("store").is_empty());
    let found: Vec<String> = cluster.events("store").iter().map(|e| e["what"].to_string()).collect();
    assert!(matches!(&found[..], [e] if e.contains("metadata page") && e.contains("extent 0")), "{found:?}");
    let dropped = cluster.replication_events("it lost a part of what it held");
    cluster.wait_healthy();
    println!("{}; {}", found.join("; "), dropped.join("; "));
    cluster.assert_copies_equal();
    // It serves again, from its own disk.
    cluster.make_owner(node);
    reads_what_was_written(&mut client);
    assert_eq!(cluster.owner(0), node, "another node owns by now: who read?");
    assert!(cluster.events("store").len() == found.len(), "it was mended for good");
    cluster
}

fn flip_bit_in_page(disk: &Path, _: usize) {
    DiskImage::open(disk).flip_bit_in_page(0);
}

#[test]
fn a_bit_that_flipped_in_an_extents_page_while_its_node_was_down_is_mended_from_other_copies() {
    a_page_is_damaged(Cluster::start(3), false, flip_bit_in_page);
}

#[test]
fn a_sector_of_an_extents_page_that_cannot_be_read_while_its_disk_is_opened_costs_a_copy_and_not_the_disk() {
    let powered = Powered::new();
    let cluster = a_page_is_damaged(Cluster::with(powered.options()), false, |disk, node| {
        let newest = DiskImage::open(&powered.backing(node, disk)).newest_page(0);
        powered.lose_sector(node, disk, newest[0]);
    });
    let told: Vec<_> = cluster.events("disk-opened");
    let told: Vec<_> = told.iter().filter(|e| e["what"].to_string().contains("could not be read")).collect();
    assert!(matches!(told[..], [e] if e["level"] == "warning"), "{told:?}");
}

#[test]
fn a_bit_that_flips_in_an_extents_page_while_its_node_serves_is_mended_and_no_initiator_sees_an_error() {
    a_page_is_damaged(Cluster::start(3), true, flip_bit_in_page);
}

/// Starts a node whose disk is damaged; what its log says of that disk.
fn start_and_read_log(cluster: &mut Cluster, node: usize) -> String {
    cluster.spawn(node);
    let log = cluster.folder().join(format!("node{node}.log"));
    wait_for("the daemon says what is wrong with its disk", LIMIT, || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.lines().rfind(|l| l.contains("a disk is not used")).map(str::to_owned)
    })
}

fn refused(damage: impl Fn(&mut Cluster, usize), words: &[&str]) {
    let mut cluster = Cluster::start(3);
    let node = 3;
    let mut client = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    client.write(0, &content(0, 1)).expect("a write");
    stop_cleanly(&mut cluster, node);
    damage(&mut cluster, node);
    let said = start_and_read_log(&mut cluster, node);
    println!("{said}");
    // By name, and with what to do; the log, the event and `status`, which names the disk and leads to the event.
    let disk = cluster.json(node, &["disk", "ls"]);
    let disk = disk.as_array().and_then(|all| all.iter().find(|d| d["node"] == node)).expect("it has a disk");
    let id = disk["id"].as_str().expect("an id is text");
    assert!(said.contains(&format!("disk={}", &id[..8])), "the disk {id} is not named: {said}");
    let events = cluster.events("disk-refused");
    let event = events.last().map(|e| e["why"].as_str().unwrap_or("")).expect("it is an event");
    for word in words {
        assert!(said.contains(word), "'{word}' is not in the log: {said}");
        assert!(event.contains(word), "'{word}' is not in the event: {event}");
    }
    let path = cluster.disk(node).display().to_string();
    let status = cluster.cli(1, &["status"]);
    assert!(status.contains(&format!("disk {path} of node {node} is not found or was refused")), "{status}");
    // The others serve meanwhile.
    client.write(0, &content(0, 2)).expect("a write meanwhile");
    assert_eq!(version_of(0, &client.read(0, BLOCK).expect("a read meanwhile")), Ok(2));
}

#[test]
fn a_truncated_disk_is_refused_by_name() {
    refused(
        |c, n| DiskImage::open(c.disk(n)).truncate(512 << 20),
        &["its superblock says", "restore its size, or wipe it"],
    );
}

#[test]
fn a_disk_with_two_bad_superblocks_is_refused_by_name() {
    refused(
        |c, n| DiskImage::open(c.disk(n)).write(0, &[0xa5; 2 * BLOCK]),
        &["both superblocks are damaged", "replace the disk, or format it anew"],
    );
}

#[test]
fn a_disk_of_another_cluster_is_refused_by_name() {
    let other = {
        let mut other = Cluster::start(1);
        stop_cleanly(&mut other, 1);
        let kept = holdfast_tests::process::target_dir().join("clusters/other-disk");
        std::fs::copy(other.disk(1), &kept).expect("the disk can be copied");
        kept
    };
    refused(
        |c, n| {
            std::fs::copy(&other, c.disk(n)).expect("the disk can be copied");
        },
        &["belongs to cluster", "return it there, or wipe it"],
    );
    std::fs::remove_file(&other).expect("the copy is ours");
}

#[test]
fn a_full_disk_loses_nothing_and_goes_on_after_space_is_given_back() {
    let mut options = Options::new(1);
    options.volume = "2G".to_owned();
    let cluster = Cluster::with(options);
    let mut client = Client::connect(cluster.address(1), VOLUME, WAITS).expect("the export opens");
    let (written, full) = fill(&mut client);
    println!("full after {} MiB: {full}", written >> 20);
    assert!(written > 256 << 20, "a disk of 1 GiB was full after {written} bytes");
    // It is a state with a name, for people and for machines.
    let state = || cluster.json(1, &["disk", "ls"])[0]["state"].as_str().map(str::to_owned);
    until("`disk ls` says that it is full", LIMIT, || state().as_deref() == Some("full"));
    assert!(cluster.cli(1, &["status"]).contains("is full: writes of new data fail"));
    assert_eq!(cluster.events("disk-full").len(), 1);
    let freed: u32 = 128 << 20;
    // What was acknowledged is there, also while writes wait; and room that is given back is used.
    verify(&cluster, freed.into()..written);
    let mut client = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    client.trim(0, freed).expect("a discard needs no space");
    until("writes go on", LIMIT, || {
        let data = content(written / BLOCK as u64, 1);
        let tried = Client::connect(cluster.address(1), VOLUME, WAITS);
        tried.is_ok_and(|mut c| c.write(written, &data).is_ok())
    });
    assert_eq!(version_of(0, &client.read(0, BLOCK).expect("a read")), Ok(0));
    verify(&cluster, freed.into()..written);
    until("`disk ls` says that it has room", LIMIT, || state().as_deref() == Some("ok"));
}

/// What the tests here write at an offset: 256 blocks.
fn mebibyte(offset: u64) -> Vec<u8> {
    run(offset / BLOCK as u64, 256, 1)
}

/// Writes until it is refused or not answered; how much was acknowledged, and what ended it.
fn fill(client: &mut Client) -> (u64, std::io::Error) {
    let (mut written, step) = (0, 256 * BLOCK as u64);
    // Either the write is refused as "no space" or it waits; both end here with what was acknowledged known.
    let full = loop {
        match client.write(written, &mebibyte(written)) {
            Ok(()) => written += step,
            Err(error) => break error,
        }
        assert!(written < 2 << 30, "a disk of 1 GiB took 2 GiB");
    };
    (written, full)
}

#[test]
fn three_full_disks_lose_nothing_when_all_nodes_are_killed() {
    let mut options = Options::new(3);
    options.volume = "2G".to_owned();
    let mut cluster = Cluster::with(options);
    let mut client = Client::connect(cluster.address(1), VOLUME, WAITS).expect("the export opens");
    let (written, full) = fill(&mut client);
    println!("full after {} MiB: {full}", written >> 20);
    // Overwrites go on; one of every hundred blocks gets another version.
    for block in (0..written / BLOCK as u64).step_by(100) {
        client.write(block * BLOCK as u64, &content(block, 2)).expect("an overwrite needs no room");
    }
    drop(client);
    cluster.kill_all();
    (1..=3).for_each(|n| cluster.spawn(n));
    (1..=3).for_each(|n| cluster.wait_answers(n));
    cluster.wait_healthy();
    let mut client = Client::connect(cluster.address(2), VOLUME, LIMIT).expect("the export opens");
    for block in (0..written / BLOCK as u64).step_by(50) {
        let read = client.read(block * BLOCK as u64, BLOCK).expect("a read");
        assert_eq!(version_of(block, &read), Ok(if block % 100 == 0 { 2 } else { 1 }), "block {block}");
    }
    client.trim(0, 64 << 20).expect("a discard needs no room");
    let data = content(written / BLOCK as u64, 1);
    until("writes go on", LIMIT, || client.write(written, &data).is_ok());
    // Space is added, disk by disk, under a volume that stays in use.
    for n in 1..=3 {
        cluster.kill(n);
        succeed("fallocate", &["-l", "2G", &cluster.disk(n).to_string_lossy()]);
        cluster.start_node(n);
        let grown = |e: &serde_json::Value| {
            e["node"] == n && e["what"].as_str().is_some_and(|what| what.contains("has grown"))
        };
        until("the node says that its disk has grown", LIMIT, || {
            cluster.events("disk-opened").iter().any(grown)
        });
        cluster.wait_healthy();
    }
    let mut client = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    let more = written + (512 << 20);
    for offset in (written..more).step_by(1 << 20) {
        let data = mebibyte(offset);
        until("there is room", LIMIT, || client.write(offset, &data).is_ok());
    }
    verify(&cluster, written..more);
    cluster.assert_copies_equal();
}

/// Blocks spread over what was written and not discarded, from one byte to another.
fn verify(cluster: &Cluster, bytes: Range<u64>) {
    let mut client = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    for block in (bytes.start / BLOCK as u64..bytes.end / BLOCK as u64).step_by(97) {
        assert_eq!(version_of(block, &client.read(block * BLOCK as u64, BLOCK).expect("a read")), Ok(1));
    }
}
