//! Who is let in from other hosts, and how an operator hears of who is not: certificates between nodes, CHAP for
//! initiators. What each listener does with each certificate is tested beside it (`shell/net/tests/strangers.rs`).

use holdfast_net::ca::Validity;
use holdfast_net::{Authority, Identity, NodeKey};
use holdfast_tests::cluster::{Cluster, VOLUME, metric_in};
use holdfast_tests::command::output_of;
use holdfast_tests::nbd::Client;
use holdfast_types::NodeId;
use std::path::Path;
use std::time::Duration;
use time::OffsetDateTime;

const LIMIT: Duration = Duration::from_secs(30);
const IQN: &str = "iqn.2026-11.io.holdfast";
/// Node to node, and data.
const PORTS: [u16; 2] = [7400, 7401];

/// A certificate of node 3 that ended yesterday, and its key.
fn expired(authority: &Authority) -> (NodeKey, String) {
    let now = OffsetDateTime::now_utc();
    let validity = Validity { from: now - time::Duration::days(9), until: now - time::Duration::days(1) };
    let key = NodeKey::generate().expect("a key");
    let pem = authority.issue_for(NodeId(3), key.public(), validity).expect("a certificate");
    (key, pem)
}

fn authority(cluster: &Cluster) -> Authority {
    Authority::load(&cluster.dir(1).join("identity")).expect("every node holds the authority")
}

/// What openssl is told when it dials with a certificate.
fn dial(cluster: &Cluster, port: u16, folder: &Path, key: &NodeKey, certificate: &str) -> String {
    let (cert, private) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&cert, certificate)
        .and_then(|()| std::fs::write(&private, key.to_pem()))
        .expect("written");
    let script = format!(
        "(printf hello; sleep 1) | timeout 5 openssl s_client -connect {}:{port} -cert {} -key {} 2>&1",
        cluster.address(1),
        cert.display(),
        private.display()
    );
    String::from_utf8_lossy(&output_of("sh", &["-c", &script]).stdout).to_lowercase()
}

fn refused(cluster: &Cluster, reason: &str) -> f64 {
    let page = cluster.metrics_page(1);
    let lines: Vec<&str> = page.lines().filter(|l| l.contains(&format!("reason=\"{reason}\""))).collect();
    assert_eq!(lines.len(), 1, "{page}");
    metric_in(lines[0], "holdfast_connections_refused_total")
}

#[test]
fn a_stranger_with_an_expired_or_foreign_certificate_is_refused_counted_and_reported() {
    let cluster = Cluster::start(1);
    let folder = tempfile::tempdir().expect("a folder");
    let (key, pem) = expired(&authority(&cluster));
    for port in PORTS {
        let said = dial(&cluster, port, folder.path(), &key, &pem);
        assert!(said.contains("alert certificate expired"), "port {port}: {said}");
    }
    assert_eq!(refused(&cluster, "expired"), 2.0);
    cluster.wait_event("connection-refused", "its certificate has expired", "clocks");
    let foreign = Authority::create(holdfast_types::ClusterId(7)).expect("another cluster");
    let key = NodeKey::generate().expect("a key");
    let pem = foreign.issue(NodeId(1), key.public()).expect("a certificate");
    for port in PORTS {
        let said = dial(&cluster, port, folder.path(), &key, &pem);
        assert!(said.contains("alert unknown ca"), "port {port}: {said}");
    }
    assert_eq!(refused(&cluster, "other-cluster"), 2.0);
    cluster.wait_event("connection-refused", "its certificate is of another cluster", "another cluster");
    // One event for each reason, however often it dials.
    assert_eq!(cluster.events("connection-refused").len(), 2);
}

#[test]
fn a_node_whose_certificate_ended_while_it_was_off_renews_it_and_takes_part_again() {
    let mut cluster = Cluster::start(3);
    cluster.kill(3);
    let (key, pem) = expired(&authority(&cluster));
    Identity::store(&cluster.dir(3).join("identity"), &key, &pem).expect("stored");
    cluster.start_node(3);
    cluster.wait_healthy();
    let mut client = Client::connect(cluster.address(3), VOLUME, LIMIT).expect("the export opens");
    client.write(0, &[7; 4096]).expect("a write through it");
}

/// The address stands for one of another network: it is no loopback address, so that CHAP is needed.
#[test]
fn beyond_this_host_nobody_logs_in_without_the_chap_secret_and_the_operator_hears_of_it() {
    let mut cluster = Cluster::alone(1);
    cluster.kill(1);
    let config = cluster.dir(1).join("holdfast.toml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let listen = text.find("\n[listen]").unwrap_or(text.len());
    let everywhere =
        format!("{}\n[listen]\niscsi = \"0.0.0.0\"\nnbd = \"{}\"\n", &text[..listen], cluster.address(1));
    std::fs::write(&config, everywhere).expect("written");
    cluster.start_node(1);
    let size = |account: &str| {
        let url = format!("iscsi://{account}{}:3260/{IQN}:{VOLUME}/0", cluster.address(1));
        let output = output_of("iscsi-readcapacity16", &[&url]);
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let (passed, said) = size("");
    assert!(!passed && said.to_lowercase().contains("authorization failure"), "{said}");
    cluster.wait_event("connection-refused", "no secret is set", "holdfast chap set");
    let secret = cluster.folder().join("secret");
    std::fs::write(&secret, "correct-horse-1").expect("written");
    cluster.cli(1, &["chap", "set", "--user", "vmhost", "--secret-file", &secret.to_string_lossy()]);
    for wrong in ["", "vmhost%incorrect-horse@", "somebody%correct-horse-1@"] {
        let (passed, said) = size(wrong);
        assert!(!passed, "{wrong} was let in: {said}");
    }
    cluster.wait_event("connection-refused", "did not prove", "secret");
    let (passed, said) = size("vmhost%correct-horse-1@");
    assert!(passed, "{said}");
    let all = cluster.json(1, &["events", "--last", "1000"]).to_string();
    assert!(!all.contains("horse"), "a secret stands in the event log");
}
