//! `reads = "quorum"`: an owner answers a read only after a write quorum of the copies said that it still owns, and
//! rests on no clock for that.

use holdfast_tests::cluster::{Cluster, VOLUME};
use holdfast_tests::nbd::Client;
use holdfast_tests::pattern::{BLOCK, content};
use holdfast_tests::process::Signal;
use std::sync::mpsc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// A read that goes on by a lease is answered long before that.
const WAITS: Duration = Duration::from_millis(300);

#[test]
fn a_read_waits_for_a_write_quorum_although_the_lease_is_fresh() {
    let mut cluster = Cluster::start(3);
    cluster.kill_all();
    for n in 1..=3 {
        let config = cluster.dir(n).join("holdfast.toml");
        let text = std::fs::read_to_string(&config).expect("the configuration");
        std::fs::write(&config, text.replacen("\naddress", "\nreads = \"quorum\"\naddress", 1))
            .expect("written");
        cluster.spawn(n);
    }
    (1..=3).for_each(|n| cluster.wait_answers(n));
    cluster.wait_healthy();
    let owner = cluster.owner(0);
    let mut client = Client::connect(cluster.address(owner), VOLUME, LIMIT).expect("the export opens");
    client.write(0, &content(0, 1)).expect("a write");
    assert_eq!(client.read(0, BLOCK).expect("a read"), content(0, 1));
    let others: Vec<usize> = (1..=3).filter(|n| *n != owner).collect();
    others.iter().for_each(|n| cluster.signal(*n, Signal::Stop));
    let (answer, answered) = mpsc::channel();
    let reader = std::thread::spawn(move || answer.send(client.read(0, BLOCK)));
    assert!(answered.recv_timeout(WAITS).is_err(), "answered within {WAITS:?}, with both others frozen");
    others.iter().for_each(|n| cluster.signal(*n, Signal::Cont));
    let read = answered.recv_timeout(LIMIT).expect("an answer once they go on");
    assert_eq!(read.expect("a read"), content(0, 1));
    reader.join().expect("the reader ends").expect("its answer was taken");
}
