//! The sockets are systemd's: they outlive the daemon, and nobody is refused while it restarts.

use holdfast_tests::cluster::{Cluster, VOLUME};
use holdfast_tests::nbd::Client;
use holdfast_tests::pattern::{BLOCK, content, version_of};
use holdfast_tests::process::binary;
use holdfast_tests::succeed;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging");

/// The daemon under systemd-socket-activate(1), which listens, and starts it at the first connection.
struct Activated(Child);

impl Activated {
    fn start(cluster: &Cluster) -> Activated {
        let mut command = Command::new("systemd-socket-activate");
        for port in [3260, 10809] {
            command.arg("-l").arg(format!("{}:{port}", cluster.address(1)));
        }
        command.arg(binary()).args(["node", "run", "--dir"]).arg(cluster.dir(1));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Activated(command.spawn().expect("systemd-socket-activate runs (package systemd)"))
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_daemon_takes_the_sockets_that_systemd_listens_on() {
    let mut cluster = Cluster::start(1);
    let mut client = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    client.write(0, &content(0, 1)).expect("a write");
    drop(client);
    cluster.kill(1);
    let _activated = Activated::start(&cluster);
    holdfast_tests::until("systemd listens", LIMIT, || {
        succeed("ss", &["-Hltn"]).contains(&format!("{}:10809", cluster.address(1)))
    });
    // This connection is there before the daemon is: it waits, and is served.
    let mut client = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    assert_eq!(version_of(0, &client.read(0, BLOCK).expect("a read")), Ok(1));
    succeed("iscsi-inq", &[&cluster.iscsi(1)]);
}

#[test]
fn clients_wait_for_a_restarted_node_without_a_majority_and_are_told_nothing_untrue() {
    let mut cluster = Cluster::start(3);
    (1..=3).for_each(|n| cluster.kill(n));
    cluster.spawn(1);
    holdfast_tests::until("it listens", LIMIT, || TcpStream::connect((cluster.address(1), 10809)).is_ok());
    let address = cluster.address(1).to_owned();
    let asked = Instant::now();
    let client =
        std::thread::spawn(move || Client::connect(&address, VOLUME, LIMIT).map(|_| asked.elapsed()));
    // Long after it read what it remembers from its disk.
    std::thread::sleep(Duration::from_secs(3));
    assert!(!client.is_finished(), "a node that cannot know answered: {:?}", client.join());
    cluster.spawn(2);
    let waited = client.join().expect("no panic").expect("it is served once there is a majority");
    println!("a client waited {waited:?} for the majority");
}

#[test]
fn the_socket_unit_listens_where_the_daemon_serves() {
    let unit = std::fs::read_to_string(format!("{UNITS}/holdfast.socket")).expect("the unit is there");
    for port in [3260, 10809] {
        assert!(unit.contains(&format!("ListenStream=127.0.0.1:{port}\n")), "port {port} is missing");
    }
    let service = std::fs::read_to_string(format!("{UNITS}/holdfast.service")).expect("the unit is there");
    assert!(service.contains("Sockets=holdfast.socket") && unit.contains("Service=holdfast.service"));
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = |name: &str| {
        let unit = std::fs::read_to_string(format!("{UNITS}/{name}")).expect("the unit is there");
        // systemd asks whether the program exists.
        let unit = unit.replace("/usr/bin/holdfast", &binary().to_string_lossy());
        let path = folder.path().join(name);
        std::fs::write(&path, unit).expect("the folder can be written");
        path.to_string_lossy().into_owned()
    };
    let (service, socket) = (copy("holdfast.service"), copy("holdfast.socket"));
    let output = holdfast_tests::output_of("systemd-analyze", &["verify", &service, &socket]);
    let said = String::from_utf8_lossy(&output.stderr);
    let ours = said.lines().filter(|l| l.contains("holdfast")).collect::<Vec<_>>();
    assert!(output.status.success() && ours.is_empty(), "{ours:?}");
}
