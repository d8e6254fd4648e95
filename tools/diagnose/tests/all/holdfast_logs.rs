//! Holdfast's own logs and events, as real daemons wrote them: two of three nodes killed while a client writes, with the log as
//! text and as JSON, and a node that starts on a disk whose superblocks were overwritten.

use std::path::Path;

use crate::common::read;
use holdfast_diagnose::model::Report;

fn real(name: &str) -> Report {
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/holdfast").join(name))
}

fn rules_of(report: &Report, host: &str) -> Vec<String> {
    report.facts.iter().filter(|f| f.host == host).map(|f| f.rule.clone()).collect()
}

/// A field of every fact that a rule found on a host.
fn values<'a>(report: &'a Report, host: &str, rule: &str, field: &str) -> Vec<&'a str> {
    let found = report.facts.iter().filter(|f| f.host == host && f.rule == rule);
    found.map(|f| f.fields[field].as_str()).collect()
}

#[test]
fn two_nodes_away_explain_why_writes_and_control_wait() {
    let report = real("two-nodes-away");
    let seen = rules_of(&report, "node1");
    for rule in ["holdfast.node-dead", "holdfast.quorum-wait", "holdfast.no-majority", "holdfast.resumed"] {
        assert!(seen.iter().any(|r| r == rule), "{rule}: {seen:?}");
    }
    assert_eq!(report.causes.first().map(|c| c.id.as_str()), Some("holdfast-nodes-away"));
    let wait = report.facts.iter().find(|f| f.rule == "holdfast.quorum-wait").expect("a wait");
    // 1795559990043 ms, to the millisecond, from the event itself.
    assert_eq!(wait.start_micros, Some(1_795_559_990_043_000));
}

#[test]
fn a_refused_disk_explains_the_copy_that_left() {
    let report = real("disk-refused");
    assert_eq!(report.causes.first().map(|c| c.id.as_str()), Some("holdfast-disk-refused"));
    let refused = report.facts.iter().find(|f| f.rule == "holdfast.disk-refused").expect("a refusal");
    assert_eq!(refused.host, "node3");
    assert!(refused.title.contains("both superblocks are damaged"), "{}", refused.title);
    let dropped = report.facts.iter().find(|f| f.rule == "holdfast.copy-dropped").expect("a drop");
    assert_eq!((dropped.host.as_str(), dropped.fields["node"].as_str()), ("node1", "3"));
    assert!(rules_of(&report, "node1").iter().any(|r| r == "holdfast.epoch-over"));
}

#[test]
fn a_log_as_json_says_what_the_same_log_says_as_text() {
    // Logs alone, without events: what is found was found in them.
    let report = real("two-nodes-away-json");
    assert_eq!(values(&report, "node1", "holdfast.node-dead", "n3"), ["2", "3"]);
    let wait = report.facts.iter().find(|f| f.rule == "holdfast.no-majority").expect("no majority");
    // Its three lines are one episode; the first was written at 20:06:11.059317.
    assert_eq!((wait.count, wait.start_micros), (3, Some(1_795_637_171_059_317)));
    let runs = values(&report, "node2", "holdfast.started", "r3");
    assert_eq!(runs, ["1", "3"], "the run that was killed and the one after it");
}

#[test]
fn a_refused_disk_is_read_from_a_log_as_text_and_as_json() {
    for line in [
        r#"2026-11-24T23:01:41.314Z ERROR holdfast_node::control: a disk is not used disk=ed4f0a2b why="both superblocks are damaged""#,
        r#"{"timestamp":"2026-11-24T23:01:41.314Z","level":"ERROR","fields":{"message":"a disk is not used","disk":"ed4f0a2b","why":"both superblocks are damaged"},"target":"holdfast_node::control"}"#,
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("node3")).expect("made");
        std::fs::write(dir.path().join("node3/holdfast.log"), format!("{line}\n")).expect("written");
        let report = read(dir.path());
        assert_eq!(report.causes.first().map(|c| c.id.as_str()), Some("holdfast-disk-refused"), "{line}");
        let title = &report.facts.iter().find(|f| f.rule == "holdfast.disk-refused").expect("a fact").title;
        assert!(title.ends_with("both superblocks are damaged"), "{title}");
    }
}
