//! Holdfast's own logs and events, as real daemons wrote them in two tests of the cluster: two of three nodes killed while a
//! client writes, and a node that starts on a disk whose superblocks were overwritten.

use std::path::Path;

use holdfast_diagnose::model::Report;
use holdfast_diagnose::{Options, analyse};

fn real(name: &str) -> Report {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/holdfast").join(name);
    analyse(&[folder], &Options::default(), &Default::default()).expect("readable")
}

fn rules_of(report: &Report, host: &str) -> Vec<String> {
    report.facts.iter().filter(|f| f.host == host).map(|f| f.rule.clone()).collect()
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
