//! Nobody asks anything of the cluster: then it does next to nothing. What is left are heartbeats.

use holdfast_tests::cluster::{Cluster, VOLUME};
use holdfast_tests::nbd::Client;
use holdfast_tests::process::usage_of;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// Long enough that what follows a write (write-back, the trim of the journal, the end of leases) is over.
const SETTLE: Duration = Duration::from_secs(5);
const WATCHED: Duration = Duration::from_secs(30);
/// Processor time per second of an idle daemon, in an optimised build: heartbeats to two others and consensus.
const MOST: Duration = Duration::from_millis(10);

#[test]
fn an_idle_cluster_uses_hardly_any_processor_time() {
    let cluster = Cluster::alone(3);
    let mut client = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    client.write(0, &[7; 4096]).expect("a write");
    // The client stays connected, as a guest that does nothing.
    std::thread::sleep(SETTLE);
    let cpu = |n: usize| usage_of(cluster.pid(n)).expect("the daemon runs").cpu;
    let before: Vec<Duration> = (1..=3).map(cpu).collect();
    std::thread::sleep(WATCHED);
    let used: Vec<Duration> = (1..=3).map(|n| cpu(n) - before[n - 1]).collect();
    let a_second: Vec<f64> = used.iter().map(|u| u.as_secs_f64() * 1e3 / WATCHED.as_secs_f64()).collect();
    println!("idle for {WATCHED:?}: {a_second:.2?} ms of processor time a second per daemon");
    for (n, used) in used.iter().enumerate() {
        assert!(*used <= MOST * WATCHED.as_secs() as u32, "idle node {} used {used:?}", n + 1);
    }
}
