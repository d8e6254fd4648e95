//! libiscsi's conformance suite against a cluster, through two nodes as two paths to one volume.

use holdfast_tests::cluster::Cluster;
use holdfast_tests::output_of;
use std::collections::BTreeSet;

/// Tests of the suite that a volume fails, with the reason. Everything else is to pass.
const KNOWN_FAILURES: [(&str, &str); 5] = [
    (
        "CompareAndWrite, Simple",
        "asks for 256 blocks in a field of one byte, and takes 0 blocks for too many",
    ),
    (
        "CompareAndWrite, Miscompare",
        "asks for 256 blocks in a field of one byte, and takes 0 blocks for too many",
    ),
    ("GetLBAStatus, UnmapSingle", "expects another address in the first descriptor than it asked for"),
    (
        "MultipathIO, Reset",
        "expects a unit attention on the other path: a reset is told to the initiators of its own node only",
    ),
    ("WriteSame16, Unmap", "writes 32 MiB at once, above the MAXIMUM TRANSFER LENGTH of a volume"),
];

/// What the suite says when it leaves a check out: commands that a volume does not have, and what it is not.
const KNOWN_SKIPS: [&str; 19] = [
    "--allow-sanitize flag is not set. Skipping test.",
    "EXTENDEDCOPY is not implemented.",
    "Logical unit is not removable. Skipping test.",
    "Logical unit is not write-protected. Skipping test.",
    "Media is not removable.",
    "ORWRITE is not implemented.",
    "PERSISTENT RESERVE IN is not implemented.",
    "PREFETCH10 is not implemented.",
    "PREFETCH16 is not implemented.",
    "PROUT Not Supported",
    "READDEFECTDATA10 is not implemented.",
    "READDEFECTDATA12 is not implemented.",
    "RECEIVECOPYRESULT is not implemented.",
    "RECEIVE_COPY_RESULTS is not implemented.",
    "RESERVE6 is not implemented on target",
    "RESERVE6 is not implemented.",
    "WRITEATOMIC16 is not implemented.",
    "WRITESAME10 does not support 0-blocks.",
    "WRITESAME16 does not support 0-blocks.",
];

/// The suite's tests that failed, by suite and name.
fn failures(text: &str) -> BTreeSet<&str> {
    text.lines().filter_map(|l| l.strip_prefix("Suite ")?.strip_suffix(" had failures:")).collect()
}

fn skips(text: &str) -> BTreeSet<&str> {
    text.lines().filter_map(|l| l.split_once("[SKIPPED] ")).map(|(_, why)| why.trim_end()).collect()
}

#[test]
fn the_conformance_suite_of_libiscsi_fails_only_where_it_is_known_to() {
    let cluster = Cluster::start(3);
    let mut text = String::new();
    for family in ["SCSI.*.*", "iSCSI.*.*"] {
        let output =
            output_of("iscsi-test-cu", &["-d", "-n", "-t", family, &cluster.iscsi(1), &cluster.iscsi(2)]);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(said.contains("Run Summary"), "the suite did not come to its end:\n{said}");
        let summary = said.lines().find(|line| line.trim_start().starts_with("tests ")).unwrap_or_default();
        println!("{family}: tests, total, run, passed, failed, inactive: {summary}");
        text.push_str(&said);
    }
    let known: BTreeSet<String> =
        KNOWN_FAILURES.iter().map(|(test, _)| test.replace(", ", ", Test ")).collect();
    assert_eq!(failures(&text), known.iter().map(String::as_str).collect());
    assert_eq!(skips(&text), KNOWN_SKIPS.into());
    cluster.assert_copies_equal();
}
