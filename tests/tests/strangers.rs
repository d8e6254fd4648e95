//! Who is let in from other hosts, and how an operator hears of who is not: certificates between nodes, CHAP for
//! initiators. What each listener does with each certificate is tested beside it (`shell/net/tests/strangers.rs`).

use holdfast_net::ca::Validity;
use holdfast_net::hello::{ANSWER_BYTES, Answer, Hello};
use holdfast_net::{Authority, Identity, NodeKey, Purpose};
use holdfast_tests::cluster::{Cluster, VOLUME, metric_in};
use holdfast_tests::command::output_of;
use holdfast_tests::nbd::Client;
use holdfast_tests::until;
use holdfast_types::{NodeId, PeerPath, ProcessIncarnation};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use time::OffsetDateTime;

const LIMIT: Duration = Duration::from_secs(30);
const IQN: &str = "iqn.2026-11.io.holdfast";
/// Node to node, and data.
const PORTS: [u16; 2] = [7400, 7401];

/// A certificate of node 3 that ended yesterday.
fn expired(authority: &Authority, key: &NodeKey) -> String {
    let now = OffsetDateTime::now_utc();
    let validity = Validity { from: now - time::Duration::days(9), until: now - time::Duration::days(1) };
    authority.issue_for(NodeId(3), key.public(), validity).expect("a certificate")
}

fn authority(cluster: &Cluster) -> Authority {
    Authority::load(&cluster.dir(1).join("identity")).expect("every node holds the authority")
}

/// What openssl is told when it dials with a certificate and says that.
fn dial(
    cluster: &Cluster,
    port: u16,
    folder: &Path,
    (key, certificate): (&NodeKey, &str),
    say: &[u8],
) -> Vec<u8> {
    let [cert, private, words] = ["cert.pem", "key.pem", "words"].map(|name| folder.join(name));
    std::fs::write(&cert, certificate)
        .and_then(|()| std::fs::write(&private, key.to_pem()))
        .and_then(|()| std::fs::write(&words, say))
        .expect("written");
    let script = format!(
        "(cat {}; sleep 1) | timeout 5 openssl s_client -connect {}:{port} -cert {} -key {} 2>&1",
        words.display(),
        cluster.address(1),
        cert.display(),
        private.display()
    );
    output_of("sh", &["-c", &script]).stdout
}

/// The same, of one that does not get as far as to say anything.
fn alert(cluster: &Cluster, port: u16, folder: &Path, who: (&NodeKey, &str)) -> String {
    String::from_utf8_lossy(&dial(cluster, port, folder, who, b"hello")).to_lowercase()
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
    let key = NodeKey::generate().expect("a key");
    let pem = expired(&authority(&cluster), &key);
    for port in PORTS {
        let said = alert(&cluster, port, folder.path(), (&key, &pem));
        assert!(said.contains("alert certificate expired"), "port {port}: {said}");
    }
    assert_eq!(refused(&cluster, "expired"), 2.0);
    cluster.wait_event("connection-refused", "its certificate has expired", "clocks");
    let foreign = Authority::create(holdfast_types::ClusterId(7)).expect("another cluster");
    let key = NodeKey::generate().expect("a key");
    let pem = foreign.issue(NodeId(1), key.public()).expect("a certificate");
    for port in PORTS {
        let said = alert(&cluster, port, folder.path(), (&key, &pem));
        assert!(said.contains("alert unknown ca"), "port {port}: {said}");
    }
    assert_eq!(refused(&cluster, "other-cluster"), 2.0);
    cluster.wait_event("connection-refused", "its certificate is of another cluster", "another cluster");
    // One event for each reason, however often it dials.
    assert_eq!(cluster.events("connection-refused").len(), 2);
}

/// What a host that was a member once can do for ever.
#[test]
fn who_has_the_authoritys_key_and_no_members_key_is_refused_on_every_port_and_reported() {
    let cluster = Cluster::start(3);
    let folder = tempfile::tempdir().expect("a folder");
    let authority = authority(&cluster);
    let as_node = |node, purpose, key: &NodeKey| {
        let pem = authority.issue(NodeId(node), key.public()).expect("a certificate");
        let path = PeerPath::Direct;
        let hello = Hello { purpose, node: NodeId(node), incarnation: ProcessIncarnation(1), path }.encode();
        let ports = match purpose {
            Purpose::Data | Purpose::Bulk => PORTS[1],
            Purpose::Control | Purpose::Heartbeat | Purpose::Relay => PORTS[0],
        };
        let said = dial(&cluster, ports, folder.path(), (key, &pem), &hello);
        let said = said.windows(ANSWER_BYTES).filter_map(|w| w.try_into().ok());
        said.filter_map(Answer::decode).next().expect("an answer")
    };
    // The same with the key of a member, which never leaves its host: it is what decides.
    let of_two = NodeKey::load(&cluster.dir(2).join("identity").join("node.key")).expect("its key");
    assert_eq!(as_node(2, Purpose::Control, &of_two), Answer::Welcome);
    let drawn = NodeKey::generate().expect("a key");
    for purpose in Purpose::ALL {
        assert_eq!(as_node(2, purpose, &drawn), Answer::NotAMember, "{purpose}");
        assert_eq!(as_node(9, purpose, &drawn), Answer::NotAMember, "{purpose}");
    }
    assert_eq!((refused(&cluster, "other-key"), refused(&cluster, "not-a-member")), (5.0, 5.0));
    cluster.wait_event("connection-refused", "its key is not that of the node", "made a certificate");
    cluster.wait_event("connection-refused", "it is no member", "holdfast node ls");
    cluster.wait_healthy();
}

/// Of the members that it knows one is left to ask.
#[test]
fn a_node_that_was_away_while_another_joined_lets_it_in_when_it_is_back() {
    let mut cluster = Cluster::start(3);
    cluster.kill(3);
    let joined = cluster.add_node("1G", None);
    let list = cluster.dir(3).join("members.json");
    let known = || std::fs::read_to_string(&list).expect("whom it knows");
    assert!(!known().contains("\"4\""), "{}", known());
    cluster.kill(1);
    cluster.start_node(3);
    let up = |n: &Value| n["state"].as_str().is_some_and(|s| s == "up");
    until("those that run know each other", LIMIT, || {
        let nodes = cluster.try_json(3, &["node", "ls"]).unwrap_or_default();
        nodes.as_array().is_some_and(|all| all.len() == 4 && all.iter().filter(|n| up(n)).count() == 3)
    });
    until("it has noted it down", LIMIT, || known().contains("\"4\""));
    let mut client = Client::connect(cluster.address(joined), VOLUME, LIMIT).expect("the export opens");
    client.write(0, &[7; 4096]).expect("a write through the one that joined");
}

#[test]
fn a_node_whose_certificate_ended_while_it_was_off_renews_it_and_takes_part_again() {
    let mut cluster = Cluster::start(3);
    cluster.kill(3);
    let identity = cluster.dir(3).join("identity");
    let key = NodeKey::load(&identity.join("node.key")).expect("its key");
    let pem = expired(&authority(&cluster), &key);
    Identity::store(&identity, &key, &pem).expect("stored");
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
