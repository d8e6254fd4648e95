//! What an operator's tools read of a daemon: the page of metrics and the log as JSON.

use holdfast_tests::cluster::{Cluster, VOLUME};
use holdfast_tests::nbd::Client;
use holdfast_tests::process::binary;
use holdfast_tests::{succeed, until};
use std::collections::BTreeSet;
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);
const MANUAL: &str = include_str!("../../docs/operations.md");

/// The families of a page with this kind of comment: `# HELP name …`.
fn families(page: &str, kind: &str) -> BTreeSet<String> {
    let of = |line: &str| line.strip_prefix(&format!("# {kind} "))?.split(' ').next().map(str::to_owned);
    page.lines().filter_map(of).collect()
}

#[test]
fn every_metric_has_a_help_text_and_its_unit_and_those_of_the_manual_exist() {
    let cluster = Cluster::start(1);
    let mut client = Client::connect(cluster.address(1), VOLUME, LIMIT).expect("the export opens");
    client.write(0, &[7; 4096]).expect("a write");
    let page = cluster.metrics_page(1);
    let (types, helps, units) = (families(&page, "TYPE"), families(&page, "HELP"), families(&page, "UNIT"));
    assert!(types.len() > 10, "{page}");
    assert_eq!(types, helps);
    let named = |name: &&String| name.ends_with("_seconds") || name.ends_with("_bytes");
    assert_eq!(types.iter().filter(named).collect::<Vec<_>>(), units.iter().collect::<Vec<_>>());
    let documented: BTreeSet<&str> = MANUAL
        .split('`')
        .filter(|word| {
            word.starts_with("holdfast_") && word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        })
        .collect();
    assert!(documented.len() > 3, "{documented:?}");
    for name in documented {
        let values = page.lines().filter(|l| !l.starts_with('#') && l.split(['{', ' ']).next() == Some(name));
        assert!(values.count() > 0, "{name} is in the manual and not on the page:\n{page}");
    }
    assert_eq!(
        cluster.metric(1, "holdfast_writes_total"),
        2.0,
        "the record that began the epoch, and the write"
    );
}

#[test]
fn a_deleted_volume_leaves_nothing_behind_in_its_daemon() {
    let cluster = Cluster::start(1);
    let owned = || cluster.metric(1, "holdfast_segments_owned");
    let free = || cluster.metric(1, "holdfast_extents_free");
    let before = (owned(), free());
    cluster.cli(1, &["volume", "create", "second", "--size", "3G", "--copies", "1"]);
    let mut client = Client::connect(cluster.address(1), "second", LIMIT).expect("the export opens");
    (0..3).for_each(|gib| client.write(gib << 30, &[7; 4096]).expect("a write"));
    drop(client);
    until("the volume's extents are in use", LIMIT, || (owned(), free()) == (before.0 + 3.0, before.1 - 3.0));
    cluster.cli(1, &["volume", "rm", "second", "--yes"]);
    until("nothing of it is left", LIMIT, || (owned(), free()) == before);
}

#[test]
fn every_line_of_the_log_is_json_when_asked_for() {
    let mut cluster = Cluster::start(1);
    cluster.kill(1);
    let log = cluster.folder().join("log.json");
    let to = File::create(&log).expect("a file");
    let mut daemon = Command::new(binary())
        .args(["node", "run", "--log-format", "json", "--dir"])
        .arg(cluster.dir(1))
        .env("HOLDFAST_LOG", "debug")
        .stdin(Stdio::null())
        .stdout(to.try_clone().expect("a descriptor is left"))
        .stderr(to)
        .spawn()
        .expect("the daemon starts");
    until("it answers", LIMIT, || cluster.try_json(1, &["status"]).is_some());
    succeed("kill", &["-s", "TERM", &daemon.id().to_string()]);
    assert!(daemon.wait().expect("it ends").success());
    let text = std::fs::read_to_string(&log).expect("the log");
    assert!(text.lines().count() > 3, "{text}");
    for line in text.lines() {
        let value: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in a line of the log: {line}"));
        for field in ["timestamp", "level", "target"] {
            assert!(value[field].is_string(), "no {field} in {line}");
        }
    }
}
