//! Every host loses power at once. SIGKILL alone proves little, since the page cache survives it: one test puts
//! the disks on a file system that drops and tears what was not flushed.

use holdfast_tests::cluster::{Cluster, VOLUME};
use holdfast_tests::nbd::Client;
use holdfast_tests::pattern::{BLOCK, content, version_of};
use holdfast_tests::powered::Powered;
use holdfast_tests::preload;
use holdfast_tests::process::Signal;
use holdfast_tests::writer::{Plan, Report, Writer};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// The first block of bulk, behind those that are written here and there.
const BULK_FROM: u64 = 1 << 16;

/// Two writers whose connections all break, as they do when every node dies: one of blocks here and there, and one of bulk that is
/// written over soon, in part by single blocks.
fn write_until_all_die(cluster: &mut Cluster, die: impl FnOnce(&mut Cluster)) -> [Report; 2] {
    let plan = Plan::through_any(cluster, &[1, 2, 3]);
    let blocks = Writer::start(Plan { stride: 13, ..plan.clone() });
    let bulk = Writer::start(Plan { first: BULK_FROM, run: 32, ..plan });
    blocks.wait_more(3000, LIMIT);
    bulk.wait_more(600, LIMIT);
    die(cluster);
    let reports = [blocks.stop(), bulk.stop()];
    assert!(reports[0].answered() >= 3000 && reports[1].answered() >= 600);
    reports
}

#[test]
fn all_nodes_are_killed_at_once_and_every_acknowledged_write_is_there() {
    let mut cluster = Cluster::start(3);
    for round in 0..3 {
        let reports = write_until_all_die(&mut cluster, Cluster::kill_all);
        (1..=3).for_each(|n| cluster.spawn(n));
        (1..=3).for_each(|n| cluster.wait_answers(n));
        cluster.wait_healthy();
        reports.iter().for_each(|r| r.verify(cluster.address(1 + round)));
        cluster.assert_copies_equal();
        // The next round starts on blocks whose versions it knows: none.
        wipe(&cluster);
    }
}

/// Makes the volume read as zeros again.
fn wipe(cluster: &Cluster) {
    let mut client = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    let size = client.size();
    (0..size >> 28).for_each(|i| client.trim(i << 28, 1 << 28).expect("trim works"));
}

fn cut_and_return(powered: &Powered, cluster: &mut Cluster, seed: u64) {
    // A host without power sees no error of its disk: whoever sees one tells the others that the disk has failed.
    (1..=3).for_each(|n| cluster.signal(n, Signal::Stop));
    powered.cut(seed);
    cluster.kill_all();
    powered.on();
    (1..=3).for_each(|n| cluster.spawn(n));
    (1..=3).for_each(|n| cluster.wait_answers(n));
    cluster.wait_healthy();
}

fn power_cut_loses_nothing(backend: &str) {
    let powered = Powered::new();
    let mut options = powered.options();
    options.environment = vec![("HOLDFAST_IO".to_owned(), backend.to_owned())];
    let mut cluster = Cluster::with(options);
    for seed in 1..=2 {
        let reports = write_until_all_die(&mut cluster, |cluster| cut_and_return(&powered, cluster, seed));
        reports.iter().for_each(|r| r.verify(cluster.address(1)));
        cluster.assert_copies_equal();
        wipe(&cluster);
    }
    drop(cluster);
}

#[test]
fn the_power_of_all_nodes_is_cut_and_every_acknowledged_write_is_there() {
    power_cut_loses_nothing("auto");
}

#[test]
fn the_power_is_cut_under_the_thread_pool_and_every_acknowledged_write_is_there() {
    power_cut_loses_nothing("threads");
}

#[test]
fn a_daemon_that_acknowledges_before_the_flush_is_caught_by_the_power_cut() {
    let powered = Powered::new();
    let mut options = powered.options();
    options.environment =
        vec![("HOLDFAST_IO".to_owned(), "threads".to_owned()), preload::built("flush", powered.folder())];
    let mut cluster = Cluster::with(options);
    let mut client = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    let blocks = 400;
    (0..blocks)
        .for_each(|b| client.write(b * BLOCK as u64, &content(b, 1)).expect("the write is acknowledged"));
    drop(client);
    (1..=3).for_each(|n| cluster.signal(n, Signal::Stop));
    powered.cut(7);
    cluster.kill_all();
    powered.on();
    (1..=3).for_each(|n| cluster.spawn(n));
    // Such a cluster may not even come up again; if it does, blocks are missing.
    let kept =
        Client::connect(cluster.address(1), VOLUME, Duration::from_secs(10)).is_ok_and(|mut client| {
            (0..blocks).all(|b| {
                let read = client.read(b * BLOCK as u64, BLOCK);
                read.is_ok_and(|bytes| version_of(b, &bytes) == Ok(1))
            })
        });
    assert!(
        !kept,
        "a daemon that lies about its flushes lost nothing: this test does not test the power cut"
    );
}
