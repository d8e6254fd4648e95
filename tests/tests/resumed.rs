//! A resync is interrupted twice, by the death of the copy that it brings up to date and by that of the owner. It goes
//! on from what is there: no extent is copied twice.

use holdfast_tests::cluster::{Cluster, Options, VOLUME};
use holdfast_tests::{succeed, wait_for};
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// What the copy misses, all of the volume's extents but some.
const MISSED: u64 = 640;
const LIMIT: Duration = Duration::from_secs(120);
/// Extents that were installed, and not acknowledged or not looked at when the process died.
const UNDER_WAY: u64 = 64;

fn cluster() -> Cluster {
    let mut options = Options::new(3);
    (options.disk, options.volume) = ("2G".to_owned(), "1G".to_owned());
    Cluster::with(options)
}

/// Waits until the resync of a node's copy is that far, and says how far it is, of how much.
fn done(cluster: &Cluster, node: usize, at_least: u64) -> (u64, u64) {
    wait_for(&format!("the copy on node {node} has {at_least} extents"), LIMIT, || {
        let detail = cluster.ask(&["volume", "show", VOLUME]);
        let copies = detail["segments"][0]["copies"].as_array()?.clone();
        let copy = copies.into_iter().find(|c| c["node"] == node)?;
        let extents = |field: &str| Some(copy["resync"][field].as_u64()? / MIB);
        let (done, total) = (extents("done_bytes")?, extents("total_bytes")?);
        (total >= MISSED && done >= at_least).then_some((done, total))
    })
}

#[test]
fn a_resync_that_was_interrupted_goes_on_from_what_is_there() {
    let mut cluster = cluster();
    let owner = cluster.owner(0);
    let away = owner % 3 + 1;
    cluster.kill(away);
    let (uri, size) = (format!("--uri={}", cluster.nbd(owner)), format!("--size={MISSED}M"));
    let job = ["--name=missed", "--ioengine=nbd", "--rw=write", "--bs=1M", "--iodepth=4", &size, &uri];
    succeed("fio", &job);
    cluster.start_node(away);
    let (first, _) = done(&cluster, away, MISSED / 4);
    cluster.kill(away);
    cluster.start_node(away);
    let (second, total) = done(&cluster, away, MISSED / 2);
    cluster.kill(owner);
    let named = format!("resync of the copy on node {away} done");
    let said = wait_for("the resync ends under another owner", LIMIT, || {
        cluster.replication_events(&named).into_iter().next()
    });
    let bytes = said.split(", ").find_map(|part| part.strip_suffix(" bytes")?.parse::<u64>().ok());
    let bytes = bytes.expect("the event says how many bytes were copied");
    println!("killed at {first} and at {second} of {total} extents; the last attempt copied {bytes} bytes");
    assert!(second > first, "it began anew");
    assert!(bytes <= (total - second + UNDER_WAY) * MIB, "{said}");
    cluster.start_node(owner);
    cluster.wait_healthy_for(LIMIT);
    cluster.assert_copies_equal();
}
