//! Initiators that send commands and read no answers: what piles up for them is bounded, and others are served.

use holdfast_tests::cluster::{Cluster, VOLUME};
use holdfast_tests::libiscsi::Session;
use holdfast_tests::nbd::{Client, Command};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const READ_BYTES: u32 = 4 << 20;
const READS: usize = 128;
/// What one of them may cost: what waits for it, what is under way, and the allocator's slack. All its answers
/// together are eight times as much.
const MEMORY_MOST: u64 = 64 << 20;

/// The resident memory once it has stopped to grow.
fn settled_memory(cluster: &Cluster) -> u64 {
    let (mut last, mut same) = (0, 0);
    holdfast_tests::wait_for("memory that does not grow any more", LIMIT, || {
        std::thread::sleep(Duration::from_millis(100));
        let now = cluster.usage().1;
        same = if now > last + (1 << 20) { 0 } else { same + 1 };
        last = last.max(now);
        (same >= 10).then_some(last)
    })
}

/// A volume whose first bytes are data on the disk: what is absent, or still in memory, costs nothing to answer.
fn start() -> (Cluster, Client) {
    let mut cluster = Cluster::start(1);
    let mut writer = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    let data = vec![0x5a; 1 << 20];
    for i in 0..u64::from(READ_BYTES) >> 20 {
        writer.write(i << 20, &data).expect("a write");
    }
    cluster.cli(1, &["node", "stop"]);
    cluster.wait_ended(1);
    cluster.start_node(1);
    cluster.wait_healthy();
    let mut other = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    other.read(0, 1 << 20).expect("a read");
    (cluster, other)
}

#[test]
fn an_iscsi_initiator_that_reads_nothing_costs_little_and_delays_nobody() {
    let (cluster, mut other) = start();
    let portal = format!("{}:3260", cluster.address(1));
    let target = format!("iqn.2026-11.io.holdfast:{VOLUME}");
    let mut deaf = Session::login_as(&portal, &target, 1).expect("the login succeeds");
    let before = cluster.usage().1;
    deaf.begin_reads(READS, READ_BYTES).expect("the socket takes the commands");
    let after = settled_memory(&cluster);
    println!("one deaf iSCSI initiator: {} KiB", after.saturating_sub(before) >> 10);
    assert!(after <= before + MEMORY_MOST, "{} MiB pile up for it", (after - before) >> 20);
    other.write(0, &[0x5a; 4096]).expect("another initiator is served");
    other.read(0, 4096).expect("another initiator is served");
    deaf.end_reads(LIMIT).expect("once it reads, it gets every answer");
}

#[test]
fn an_nbd_client_that_reads_nothing_costs_little_and_delays_nobody() {
    let (cluster, mut other) = start();
    let mut deaf = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    let before = cluster.usage().1;
    let cookies: Vec<u64> = (0..READS)
        .map(|_| deaf.send(Command::Read, 0, READ_BYTES, &[]).expect("the socket takes the commands"))
        .collect();
    let after = settled_memory(&cluster);
    println!("one deaf NBD client: {} KiB", after.saturating_sub(before) >> 10);
    assert!(after <= before + MEMORY_MOST, "{} MiB pile up for it", (after - before) >> 20);
    other.write(0, &[0x5a; 4096]).expect("another initiator is served");
    other.read(0, 4096).expect("another initiator is served");
    deaf.take_any(cookies.len(), READ_BYTES as usize).expect("once it reads, it gets every answer");
}
