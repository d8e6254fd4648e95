//! Writes that come late: a gateway is frozen while it holds a write that nobody acknowledged, its initiator goes on
//! over another node and writes the same block anew, and the gateway thaws. The old write must not land
//! (replication.md H13).

use holdfast_tests::cluster::{Cluster, VOLUME};
use holdfast_tests::libiscsi::Session;
use holdfast_tests::nbd::{Client, Command};
use holdfast_tests::pattern::{BLOCK, content, version_of};
use holdfast_tests::process::Signal;
use holdfast_tests::until;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);
const ISID: u32 = 0x00ab_cdef;
/// How long a write that may land late is given to do so.
const LATE: Duration = Duration::from_secs(3);

/// A cluster, the node whose gateway will freeze, and the node that its initiator goes to. Neither owns the
/// segment, so that what is frozen is a gateway and nothing else.
fn start() -> (Cluster, usize, usize) {
    let cluster = Cluster::start(3);
    let mut first = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    first.write(0, &content(0, 1)).expect("a write before");
    let owner = cluster.owner(0);
    (cluster, owner % 3 + 1, (owner + 1) % 3 + 1)
}

fn log_in(cluster: &Cluster, node: usize, isid: u32) -> Session {
    let portal = format!("{}:3260", cluster.address(node));
    let target = format!("iqn.2026-11.io.holdfast:{VOLUME}");
    Session::login_as(&portal, &target, isid).expect("the login succeeds")
}

/// Stops a node's daemon, every thread of it: until the last one stands still it may take what is sent to it.
fn freeze(cluster: &mut Cluster, node: usize) {
    cluster.signal(node, Signal::Stop);
    let threads = format!("/proc/{}/task", cluster.pid(node));
    until("every thread stands still", LIMIT, || {
        let threads = std::fs::read_dir(&threads).expect("the daemon runs").flatten();
        let mut states = threads.flat_map(|t| std::fs::read_to_string(t.path().join("stat")));
        states.all(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
    });
}

/// A session whose node freezes under a write of version 3, and the one with which its initiator went elsewhere and
/// wrote version 4.
fn moved_session(cluster: &mut Cluster, frozen: usize, other: usize) -> (Session, Session) {
    let mut before = log_in(cluster, frozen, ISID);
    before.write(0, &content(0, 2), LIMIT).expect("a write before");
    freeze(cluster, frozen);
    before.begin_write(0, &content(0, 3)).expect("the socket takes the write");
    let mut after = log_in(cluster, other, ISID);
    after.write(0, &content(0, 4), LIMIT).expect("a write over the other node");
    (before, after)
}

fn node_is_down(cluster: &Cluster, asked: usize, node: usize) -> bool {
    let status = cluster.json(asked, &["node", "ls"]);
    status.as_array().is_some_and(|nodes| {
        nodes.iter().any(|n| n["id"].as_u64() == Some(node as u64) && n["state"] == "down")
    })
}

/// Block 0 is read over a node until the old write had its time to land.
fn assert_stays(cluster: &Cluster, node: usize, version: u64) {
    let mut reader = Client::connect(cluster.address(node), VOLUME, LIMIT).expect("the export opens");
    let end = std::time::Instant::now() + LATE;
    while std::time::Instant::now() < end {
        let data = reader.read(0, BLOCK).expect("a read");
        assert_eq!(version_of(0, &data), Ok(version), "the write of the frozen gateway landed late");
    }
}

#[test]
fn a_frozen_gateways_write_does_not_land_after_its_initiator_wrote_elsewhere() {
    let (mut cluster, frozen, other) = start();
    let (mut before, mut after) = moved_session(&mut cluster, frozen, other);
    cluster.signal(frozen, Signal::Cont);
    let ended = before.end(LIMIT);
    assert!(ended.is_err(), "the write of a session that was superseded was answered as good");
    assert_stays(&cluster, other, 4);
    after.write(0, &content(0, 5), LIMIT).expect("the new session goes on");
    cluster.wait_healthy();
}

#[test]
fn a_frozen_gateways_write_does_not_land_after_its_initiator_logged_out_elsewhere() {
    let (mut cluster, frozen, other) = start();
    let (mut before, after) = moved_session(&mut cluster, frozen, other);
    drop(after);
    until("the frozen node is declared down", LIMIT, || node_is_down(&cluster, other, frozen));
    cluster.signal(frozen, Signal::Cont);
    assert!(before.end(LIMIT).is_err(), "the write of a session that was superseded was answered as good");
    assert_stays(&cluster, other, 4);
    cluster.wait_healthy();
}

/// Two sessions of one initiator at once, as multipath has them: nothing tells control that it changed its path.
#[test]
fn a_frozen_gateways_write_does_not_land_once_its_node_was_declared_down() {
    let (mut cluster, frozen, other) = start();
    let mut before = log_in(&cluster, frozen, ISID);
    let mut path = log_in(&cluster, other, ISID + 1);
    before.write(0, &content(0, 2), LIMIT).expect("a write before");
    path.write(BLOCK as u64, &content(1, 1), LIMIT).expect("a write over the other path");
    freeze(&mut cluster, frozen);
    before.begin_write(0, &content(0, 3)).expect("the socket takes the write");
    until("the frozen node is declared down", LIMIT, || node_is_down(&cluster, other, frozen));
    path.write(0, &content(0, 4), LIMIT).expect("a write over the other path");
    cluster.signal(frozen, Signal::Cont);
    assert!(before.end(LIMIT).is_err(), "the write of a fenced gateway was answered as good");
    assert_stays(&cluster, other, 4);
    path.write(0, &content(0, 5), LIMIT).expect("the other path goes on");
    log_in(&cluster, frozen, ISID)
        .write(0, &content(0, 6), LIMIT)
        .expect("the thawed node serves a new login");
    cluster.wait_healthy();
}

#[test]
fn an_iscsi_initiator_that_stayed_with_a_frozen_node_keeps_its_session() {
    let (mut cluster, frozen, other) = start();
    let mut session = log_in(&cluster, frozen, ISID);
    session.write(0, &content(0, 2), LIMIT).expect("a write before");
    for version in [3, 4] {
        freeze(&mut cluster, frozen);
        session.begin_write(0, &content(0, version)).expect("the socket takes the write");
        until("the frozen node is declared down", LIMIT, || node_is_down(&cluster, other, frozen));
        cluster.signal(frozen, Signal::Cont);
        session.end(LIMIT).expect("the write is answered over the connection that was there before");
        assert_stays(&cluster, other, version);
        cluster.wait_healthy();
    }
    session.write(0, &content(0, 5), LIMIT).expect("the session goes on");
    assert_stays(&cluster, other, 5);
}

#[test]
fn an_nbd_client_that_hung_up_on_a_frozen_node_finds_nothing_of_it_later() {
    let (mut cluster, frozen, other) = start();
    let mut before = Client::connect(cluster.address(frozen), VOLUME, LIMIT).expect("the export opens");
    before.write(0, &content(0, 2)).expect("a write before");
    freeze(&mut cluster, frozen);
    before.send(Command::Write, 0, BLOCK as u32, &content(0, 3)).expect("the socket takes the write");
    drop(before);
    until("the frozen node is declared down", LIMIT, || node_is_down(&cluster, other, frozen));
    let mut after = Client::connect(cluster.address(other), VOLUME, LIMIT).expect("the export opens");
    after.write(0, &content(0, 4)).expect("a write over the other node");
    cluster.signal(frozen, Signal::Cont);
    until("the thawed node is up", LIMIT, || !node_is_down(&cluster, other, frozen));
    assert_stays(&cluster, other, 4);
    cluster.wait_healthy();
}

#[test]
fn an_nbd_client_that_stayed_with_a_frozen_node_gets_its_answer_when_it_thaws() {
    let (mut cluster, frozen, other) = start();
    let mut client = Client::connect(cluster.address(frozen), VOLUME, LIMIT).expect("the export opens");
    client.write(0, &content(0, 2)).expect("a write before");
    freeze(&mut cluster, frozen);
    let cookie =
        client.send(Command::Write, 0, BLOCK as u32, &content(0, 3)).expect("the socket takes the write");
    until("the frozen node is declared down", LIMIT, || node_is_down(&cluster, other, frozen));
    cluster.signal(frozen, Signal::Cont);
    client.reply(cookie, 0).expect("the write is answered");
    assert_eq!(version_of(0, &client.read(0, BLOCK).expect("a read")), Ok(3));
    cluster.wait_healthy();
}
