//! The quorum is gone. Nothing is refused, nothing ends: commands wait, and finish when it is back.

use holdfast_tests::cluster::{Cluster, Options, VOLUME};
use holdfast_tests::libiscsi::Session;
use holdfast_tests::nbd::{Client, Command};
use holdfast_tests::pattern::{BLOCK, content, version_of};
use holdfast_tests::process::Signal;
use holdfast_tests::qemu_io::QemuIo;
use holdfast_tests::writer::{Plan, Writer};
use holdfast_tests::{succeed, until};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// Longer than a copy may be away before its owner has it dropped from S.
const PAST_EVERY_TERM: Duration = Duration::from_secs(16);
/// What needs no quorum is answered within this.
const SOON: Duration = Duration::from_secs(2);
/// Long enough that every timeout inside of the product has fired.
const LONG: Duration = Duration::from_secs(8);

/// Stops two of three, sees that the third keeps everything and answers nothing, and lets them return.
fn two_of_three_stop(
    cluster: &mut Cluster,
    stop: impl Fn(&mut Cluster, usize),
    resume: impl Fn(&mut Cluster, usize),
) {
    let (third, gone) = (1, [2, 3]);
    let mut nbd = Client::connect(cluster.address(third), VOLUME, LIMIT).expect("the export opens");
    let mut iscsi = QemuIo::open(&cluster.iscsi(third));
    let portal = format!("{}:3260", cluster.address(third));
    let mut session = Session::login_as(&portal, &format!("iqn.2026-11.io.holdfast:{VOLUME}"), 1)
        .expect("the login succeeds");
    nbd.write(0, &content(0, 1)).expect("a write before");
    iscsi.run("write -P 0x61 64k 4k", LIMIT).expect("a write before");
    let pid = cluster.pid(third);
    gone.iter().for_each(|n| stop(cluster, *n));

    let cookie =
        nbd.send(Command::Write, 0, BLOCK as u32, &content(0, 2)).expect("the socket takes the write");
    iscsi.begin("write -P 0x62 64k 4k");
    let aborted = session.begin_write(128 << 10, &[0x63; BLOCK]).expect("the socket takes the write");
    let early = iscsi.end(LONG);
    assert!(early.is_err_and(|said| said.contains("says nothing")), "a write was answered without a quorum");
    assert!(cluster.lives(third) && cluster.pid(third) == pid, "the third node's process ended");
    // The session with a command that waits is answered all else; then with another one that waits.
    let waits = session.end(Duration::ZERO);
    assert_eq!(waits, Err("no answer within 0ns".to_owned()), "a write was answered without a quorum");
    session.nop(SOON).expect("a NOP is answered while a command waits");
    session.abort(aborted, SOON).expect("a command that waits is aborted");
    session.begin_write(132 << 10, &[0x64; BLOCK]).expect("the socket takes the write");
    session.nop(SOON).expect("a NOP is answered after an abort");
    session.logout(SOON).expect("a logout is answered while a command waits");
    // Ports are open, and what needs no quorum is answered: login, discovery, INQUIRY, logout.
    let listed = succeed("iscsi-ls", &[&format!("iscsi://{}:3260", cluster.address(third))]);
    assert!(listed.contains(VOLUME), "{listed}");
    succeed("iscsi-inq", &[&cluster.iscsi(third)]);
    assert!(succeed("nbdinfo", &["--size", &cluster.nbd(third)]).contains("1073741824"));

    resume(cluster, gone[0]);
    nbd.reply(cookie, 0).expect("the NBD write that waited ends well");
    iscsi.end(LIMIT).expect("the iSCSI write that waited ends well");
    assert_eq!(version_of(0, &nbd.read(0, BLOCK).expect("a read after")), Ok(2));
    iscsi.run("read -P 0x62 64k 4k", LIMIT).expect("a read after");
    resume(cluster, gone[1]);
    cluster.wait_healthy();
    cluster.assert_copies_equal();
}

#[test]
fn two_of_three_are_killed_and_commands_wait_on_the_third_until_one_returns() {
    let mut cluster = Cluster::start(3);
    two_of_three_stop(&mut cluster, |c, n| c.kill(n), |c, n| c.spawn(n));
}

#[test]
fn two_of_three_freeze_and_commands_wait_on_the_third_until_one_thaws() {
    let mut cluster = Cluster::start(3);
    two_of_three_stop(&mut cluster, |c, n| c.signal(n, Signal::Stop), |c, n| c.signal(n, Signal::Cont));
}

#[test]
fn an_owner_that_was_frozen_through_a_takeover_answers_nothing_stale_when_it_thaws() {
    let mut cluster = Cluster::start(3);
    let owner = cluster.owner(0);
    let other = owner % 3 + 1;
    let mut through_owner = Client::connect(cluster.address(owner), VOLUME, LIMIT).expect("the export opens");
    let mut through_other = Client::connect(cluster.address(other), VOLUME, LIMIT).expect("the export opens");
    through_owner.write(0, &content(0, 1)).expect("a write before");
    assert_eq!(version_of(0, &through_owner.read(0, BLOCK).expect("a read before")), Ok(1));
    cluster.signal(owner, Signal::Stop);
    // The read lies in the frozen owner's socket when the new owner takes a newer write.
    let cookie = through_owner.send(Command::Read, 0, BLOCK as u32, &[]).expect("the socket takes the read");
    through_other.write(0, &content(0, 2)).expect("the write ends after a takeover");
    assert_ne!(cluster_owner_through(&cluster, other), owner, "nobody took over");
    cluster.signal(owner, Signal::Cont);
    let read = through_owner.reply(cookie, BLOCK).expect("the read is answered by the thawed node");
    assert_eq!(version_of(0, &read), Ok(2), "the thawed owner answered from its past");
    cluster.wait_healthy();
}

fn cluster_owner_through(cluster: &Cluster, node: usize) -> usize {
    cluster.json(node, &["volume", "show", VOLUME])["segments"][0]["owner"].as_u64().unwrap_or(0) as usize
}

fn numbers(list: &serde_json::Value) -> Vec<usize> {
    let list = list.as_array().expect("a list");
    list.iter().map(|n| n.as_u64().expect("a number") as usize).collect()
}

fn sorted(nodes: &[usize]) -> Vec<usize> {
    let mut nodes = nodes.to_vec();
    nodes.sort_unstable();
    nodes
}

#[test]
fn status_without_a_majority_names_who_is_silent_and_how_old_its_word_is() {
    let mut cluster = Cluster::start(3);
    assert_eq!(cluster.json(1, &["status"])["silent"], serde_json::json!([]));
    cluster.kill(2);
    cluster.signal(3, Signal::Stop);
    until("the control quorum is lost", LIMIT, || cluster.json(1, &["status"])["control_quorum"] == false);
    let status = cluster.json(1, &["status"]);
    assert_eq!(numbers(&status["silent"]), [2, 3], "{status:#}");
    assert_eq!(status["health"], "stalled", "one copy of three serves no write: {status:#}");
    assert_eq!(status["segments"]["healthy"], 0, "{status:#}");
    let states: Vec<&str> = status["nodes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|n| n["state"].as_str().unwrap_or(""))
        .collect();
    assert_eq!(states, ["up", "down", "down"]);
    let age = status["map_age_ms"].as_u64().expect("a majority was heard once");
    let text = cluster.cli(1, &["status"]);
    assert!(text.contains("no majority: 1 of its 3 members answer, too few for "), "{text}");
    assert!(text.contains("node 2 ") && text.contains("does not answer"), "{text}");
    let later = cluster.json(1, &["status"])["map_age_ms"].as_u64().expect("still");
    assert!(later > age, "it grows older: {age}, {later}");
    // A daemon that starts without a majority does not invent an age.
    cluster.kill(1);
    cluster.spawn(1);
    until("it answers", LIMIT, || cluster.try_json(1, &["status"]).is_some());
    let status = cluster.json(1, &["status"]);
    assert_eq!((&status["control_quorum"], &status["map_age_ms"]), (&false.into(), &serde_json::Value::Null));
    cluster.signal(3, Signal::Cont);
    cluster.start_node(2);
    cluster.wait_healthy();
    assert_eq!(cluster.json(1, &["status"])["silent"], serde_json::json!([]));
}

#[test]
fn five_nodes_lose_the_control_quorum_and_a_segment_with_its_own_quorum_never_stops() {
    let mut options = Options { alone: true, ..Options::new(5) };
    options.copies = Some(3);
    let mut cluster = Cluster::with(options);
    let (copies, _) = cluster.copies();
    let owner = cluster.owner(0);
    // Two nodes without a copy and one replica go: two of five are no control quorum, two of three copies live.
    let replica = copies.iter().copied().find(|n| *n != owner).expect("three copies");
    let gone: Vec<usize> = (1..=5).filter(|n| !copies.contains(n)).chain([replica]).collect();
    assert_eq!(gone.len(), 3);
    let writer = Writer::start(Plan::through(&cluster, owner));
    writer.wait_more(500, LIMIT);
    let moment = std::time::Instant::now();
    gone.iter().for_each(|n| cluster.kill(*n));
    until("the control quorum is lost", LIMIT, || {
        cluster.json(owner, &["status"])["control_quorum"] == false
    });
    // The dead copy is to leave S after some seconds, which control cannot record: that stalls nobody either.
    while moment.elapsed() < PAST_EVERY_TERM {
        writer.wait_more(200, LIMIT);
    }
    let status = cluster.json(owner, &["status"]);
    let report = writer.stop();
    let stall = report.longest_wait_since(moment);
    println!(
        "control quorum lost for {:.0?}: longest stall {stall:.3?} (goal 200 ms), {:.0} I/Os a second otherwise",
        moment.elapsed(),
        report.rate_otherwise()
    );
    report.assert_kept(&cluster, &[owner]);
    assert!(stall <= Duration::from_millis(600), "the loss of control stalled a segment for {stall:?}");
    assert!(report.rate_otherwise() >= 100.0, "only {:.0} I/Os a second", report.rate_otherwise());
    assert_eq!(numbers(&status["silent"]), sorted(&gone), "{status:#}");
    // With two nodes back there is a majority again, and then everything heals.
    gone.iter().for_each(|n| cluster.spawn(*n));
    gone.iter().for_each(|n| cluster.wait_answers(*n));
    cluster.wait_healthy();
    report.verify(cluster.address(replica));
    cluster.assert_copies_equal();
}
