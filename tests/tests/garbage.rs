//! Strangers on every port: garbage, silence, half of a login, and certificates that prove nothing.

use holdfast_tests::cluster::{Cluster, VOLUME};
use holdfast_tests::nbd::Client;
use holdfast_tests::pattern::{BLOCK, content, next, version_of};
use holdfast_tests::{output_of, succeed};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const PORTS: [u16; 6] = [3260, 10809, 7400, 7401, 7402, 7403];
const LIMIT: Duration = Duration::from_secs(60);
const SILENT: usize = 1000;
/// What a daemon may grow by under strangers.
const GROWTH_MAX: u64 = 64 << 20;

fn served(cluster: &Cluster, version: u64) {
    let mut client = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    client.write(0, &content(0, version)).expect("a write");
    assert_eq!(version_of(0, &client.read(0, BLOCK).expect("a read")), Ok(version));
    succeed("iscsi-inq", &[&cluster.iscsi(1)]);
}

#[test]
fn garbage_on_every_port_ends_that_connection_and_nothing_else() {
    let mut cluster = Cluster::start(3);
    let mut random = 88_172_645_463_325_252;
    for round in 0..40 {
        for port in PORTS {
            let Ok(mut stream) = TcpStream::connect((cluster.address(1), port)) else {
                panic!("port {port} refuses")
            };
            let _ = stream.set_write_timeout(Some(Duration::from_secs(2)));
            let mut bytes = Vec::new();
            // Half of the rounds open as the protocol does, so that the garbage gets further in.
            match (round % 2, port) {
                (1, 3260) => bytes.extend([0x43, 0x87, 0, 0]),
                (1, 10809) => bytes.extend([0, 0, 0, 3, b'I', b'H', b'A', b'V', b'E', b'O', b'P', b'T']),
                (1, 7400..=7402) => bytes.extend([0x16, 3, 1, 2, 0]),
                (1, _) => bytes.extend(b"GET / HTTP/1.1\r\n"),
                _ => {}
            }
            while bytes.len() < 20_000 {
                random = next(random);
                bytes.extend(random.to_le_bytes());
            }
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
            let _ = stream.read(&mut [0; 1024]);
        }
    }
    (1..=3).for_each(|n| assert!(cluster.lives(n), "garbage ended node {n}"));
    served(&cluster, 1);
}

#[test]
fn a_thousand_silent_connections_and_half_logins_stop_nobody_and_cost_little() {
    let mut cluster = Cluster::start(1);
    served(&cluster, 1);
    let before = cluster.usage().1;
    let mut held = Vec::new();
    for i in 0..SILENT {
        let port = PORTS[i % PORTS.len()];
        // A port may refuse or drop when it has enough of them; the daemon must go on.
        if let Ok(mut stream) = TcpStream::connect((cluster.address(1), port)) {
            if (i / PORTS.len()).is_multiple_of(3) {
                // The start of a login request, whose rest never comes.
                let _ = stream.write_all(&[0x43, 0x87, 0, 0, 0, 0, 1]);
            }
            held.push(stream);
        }
    }
    served(&cluster, 2);
    let after = cluster.usage().1;
    println!("{} connections held: resident {} -> {} KiB", held.len(), before >> 10, after >> 10);
    assert!(cluster.lives(1));
    assert!(after < before + GROWTH_MAX, "memory grew from {before} to {after}");
    drop(held);
    served(&cluster, 3);
}

#[test]
fn a_node_without_a_certificate_cannot_speak_to_the_others() {
    let cluster = Cluster::start(1);
    // openssl as a stranger: the answer to a handshake without a certificate is the alert for that.
    for port in [7400, 7401] {
        let address = format!("{}:{port}", cluster.address(1));
        let script = format!("printf 'hello\\n' | timeout 5 openssl s_client -quiet -connect {address} 2>&1");
        let said = String::from_utf8_lossy(&output_of("sh", &["-c", &script]).stdout).into_owned();
        assert!(said.contains("alert certificate required"), "a stranger was let in on {port}: {said}");
    }
    served(&cluster, 1);
}

#[test]
fn a_node_with_the_certificate_of_another_cluster_cannot_join_read_or_write() {
    let foreign = {
        // Its node 3: with another node's identity the daemon would not even start.
        let other = Cluster::start(3);
        let kept = tempfile::tempdir().expect("a folder");
        let to = kept.path().join("identity");
        succeed("cp", &["-r", &other.dir(3).join("identity").to_string_lossy(), &to.to_string_lossy()]);
        kept
    };
    let mut cluster = Cluster::start(3);
    served(&cluster, 1);
    cluster.kill(3);
    let identity = cluster.dir(3).join("identity");
    succeed("rm", &["-r", &identity.to_string_lossy()]);
    succeed("cp", &["-r", &foreign.path().join("identity").to_string_lossy(), &identity.to_string_lossy()]);
    cluster.spawn(3);
    // With that identity it is no node of this cluster: it never becomes healthy again, and the others serve.
    served(&cluster, 2);
    holdfast_tests::until("node 3 is down for the others", LIMIT, || {
        let status = cluster.json(1, &["status"]);
        status["nodes"].as_array().is_some_and(|n| n.iter().any(|n| n["id"] == 3 && n["state"] == "down"))
    });
    // It runs, and it is its certificate that they do not accept.
    cluster.wait_event("no-connection", "node 3", "not of this cluster");
    assert!(!cluster.is_healthy());
    served(&cluster, 3);
}
