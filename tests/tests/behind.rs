//! What a copy that is away costs the others: what it has missed is kept for it in memory up to a limit, however many
//! segments there are.

use holdfast_tests::cluster::{Cluster, Options, VOLUME};
use holdfast_tests::nbd::Client;
use holdfast_tests::until;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const GIB: u64 = 1 << 30;
const SEGMENTS: u64 = 4;
const PIECE: usize = 1 << 20;
/// More than would be kept for one segment if it were alone.
const PIECES: u64 = 40;
/// What all of it may cost: `retained_bytes`, and the allocator's slack. What is written is three times as much.
const MEMORY_MOST: u64 = 56 << 20;

fn write_to_each(cluster: &Cluster, byte: u8) {
    let mut client = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    let data = vec![byte; PIECE];
    for piece in 0..PIECES {
        for segment in 0..SEGMENTS {
            client.write(segment * GIB + piece * PIECE as u64, &data).expect("a write");
        }
    }
}

/// Has a node own every segment: ownership follows the I/O.
fn own_all(cluster: &Cluster, node: usize) {
    let mut client = Client::connect(cluster.address(node), VOLUME, LIMIT).expect("the export opens");
    until("the node owns every segment", LIMIT, || {
        for at in (0..SEGMENTS).map(|segment| segment * GIB) {
            (0..10).for_each(|_| _ = client.read(at, 4096).expect("a read"));
        }
        (0..SEGMENTS as usize).all(|segment| cluster.owner(segment) == node)
    });
}

#[test]
fn a_copy_that_is_away_costs_little_however_many_segments_it_is_of() {
    let mut cluster = Cluster::with(Options { volume: format!("{SEGMENTS}G"), ..Options::new(3) });
    own_all(&cluster, 1);
    write_to_each(&cluster, 1);
    write_to_each(&cluster, 2);
    let before = cluster.usage().1;
    cluster.kill(3);
    write_to_each(&cluster, 3);
    let after = cluster.usage().1;
    println!("a copy of {SEGMENTS} segments is away: {} KiB", after.saturating_sub(before) >> 10);
    assert!(after <= before + MEMORY_MOST, "{} MiB are kept for it", (after - before) >> 20);
    cluster.start_node(3);
    cluster.wait_healthy();
    cluster.assert_copies_equal();
}
