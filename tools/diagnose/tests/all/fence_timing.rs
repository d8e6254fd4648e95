//! OCFS2 resets a host for its disk or for quorum: told apart by order and by the two time limits, 2 x (T - 1) s and 2 x (T + 2) s.

use holdfast_diagnose::model::{FactOut, Report};

fn report(lines: &str) -> Report {
    crate::common::report(&[("n1/var/log/syslog", lines)])
}

fn decided(report: &Report) -> Option<&FactOut> {
    let mut found = report.facts.iter().filter(|f| f.rule.ends_with("-decided"));
    let first = found.next();
    assert!(found.next().is_none(), "one reset has one reason");
    first
}

const ALIVE: &str = "Mar  3 09:59:00 n1 systemd[1]: Started Session 4 of User root.\n";
const DISK_LOST: &str = "Mar  3 10:00:00 n1 iscsid: connect to 10.0.0.9:3260 failed (Connection refused)\n";
const BOOT: &str = "Mar  3 10:05:00 n1 kernel: [    0.000000] Linux version 6.1.0-28-amd64 (x@y)\n\
                    Mar  3 10:05:02 n1 kernel: [    2.100000] a\n";

fn peers_lost(at: &str) -> String {
    format!(
        "Mar  3 {at} n1 kernel: [9.0] o2net: Connection to node n2 (num 2) at 10.0.0.2:7100 has been idle for 30.72 secs, shutting it down.\n"
    )
}

fn disk_line(at: &str, ms: u32) -> String {
    format!(
        "Mar  3 {at} n1 kernel: [9.1] (kworker/0:1,1,0):o2hb_write_timeout:166 ERROR: Heartbeat write timeout to device sdb after {ms} milliseconds\n"
    )
}

fn quorum_line(at: &str) -> String {
    format!(
        "Mar  3 {at} n1 kernel: [9.2] (kworker/0:1,1,0):o2quo_make_decision:143 ERROR: fencing this node because it is only connected to 1 nodes and 3 is needed to make a quorum out of 5 heartbeating nodes\n"
    )
}

fn sorry(at: &str) -> String {
    format!(
        "Mar  3 {at} n1 kernel: [9.3] *** ocfs2 is very sorry to be fencing this system by restarting ***\n"
    )
}

/// The disk lost at ten, the peers half a minute later, and two lines of the fence.
fn fenced(first: &str, second: &str, sorry_at: &str) -> Report {
    report(&[ALIVE, DISK_LOST, &peers_lost("10:00:30"), first, second, &sorry(sorry_at), BOOT].concat())
}

#[test]
fn with_both_lines_the_first_decides_and_the_limits_agree() {
    let disk = fenced(&disk_line("10:01:00", 60_000), &quorum_line("10:01:01"), "10:01:01");
    let fact = decided(&disk).expect("decided");
    assert_eq!((fact.rule.as_str(), fact.fields["timing"].as_str()), ("ocfs2.disk-decided", "agrees"));
    assert!(
        fact.title.contains("2 x (31 - 1) = 60 s") && fact.title.contains("2 x (31 + 2) = 66 s"),
        "{}",
        fact.title
    );
    let quorum = report(
        &[
            ALIVE,
            &peers_lost("09:59:54"),
            &DISK_LOST.replace("10:00:00", "10:00:40"),
            &quorum_line("10:01:00"),
            &disk_line("10:01:00", 60_000),
            &sorry("10:01:00"),
            BOOT,
        ]
        .concat(),
    );
    // In one second the place in the file decides.
    assert_eq!(decided(&quorum).map(|f| f.rule.as_str()), Some("ocfs2.quorum-decided"));
    // The reason that did not decide leads to no reset.
    for (report, other) in [(&disk, "ocfs2.quorum-fence"), (&quorum, "ocfs2.disk-timeout")] {
        let id = report.facts.iter().find(|f| f.rule == other).map(|f| f.id.clone()).expect("the fact");
        assert!(report.causes.iter().all(|c| c.chain.iter().all(|e| e.from != id)), "{other}");
        assert!(report.contradictions.iter().all(|c| !c.text.contains("do not agree")));
    }
}

#[test]
fn lines_whose_order_goes_against_the_limits_are_a_contradiction() {
    let report = fenced(&quorum_line("10:01:00"), &disk_line("10:01:01", 60_000), "10:01:01");
    assert_eq!(decided(&report).map(|f| f.rule.as_str()), Some("ocfs2.quorum-decided"));
    assert!(
        report.contradictions.iter().any(|c| c.text.contains("do not agree")),
        "{:?}",
        report.contradictions
    );
}

#[test]
fn the_threshold_is_that_of_the_disks_line() {
    let report = fenced(&disk_line("10:02:00", 120_000), &quorum_line("10:02:01"), "10:02:01");
    let fact = decided(&report).expect("decided");
    assert!(fact.title.contains("2 x (61 - 1) = 120 s") && !fact.title.contains("assumed"), "{}", fact.title);
}

#[test]
fn without_a_line_of_the_fence_the_timer_that_fits_decides_and_the_threshold_is_called_assumed() {
    let last = |at: &str| format!("Mar  3 {at} n1 app: the last line\n");
    // Both lost; the disk's 60 s end at 10:01:00, quorum's 66 s at 10:01:36.
    let both = report(&[ALIVE, DISK_LOST, &peers_lost("10:00:30"), &last("10:00:58"), BOOT].concat());
    let fact = decided(&both).expect("decided");
    assert_eq!(fact.rule, "ocfs2.disk-decided");
    assert!(fact.title.contains("a threshold of 31 is assumed"), "{}", fact.title);
    // The host lived on after the disk's limit, so the disk had come back.
    let lived = report(&[ALIVE, DISK_LOST, &peers_lost("10:00:30"), &last("10:01:30"), BOOT].concat());
    assert_eq!(decided(&lived).map(|f| f.rule.as_str()), Some("ocfs2.quorum-decided"));
    let caused = lived.causes.iter().any(|c| {
        let rule = |id: &String| lived.facts.iter().find(|f| f.id == *id).map(|f| f.rule.as_str());
        c.chain.iter().any(|e| rule(&e.from) == Some("ocfs2.idle") && rule(&e.to) == Some("host.reset"))
    });
    assert!(caused, "{:?}", lived.causes.iter().map(|c| &c.id).collect::<Vec<_>>());
    // Past both limits neither decided.
    let past = report(&[ALIVE, DISK_LOST, &peers_lost("10:00:30"), &last("10:03:00"), BOOT].concat());
    assert!(decided(&past).is_none());
    // Peers that are heard: nothing to tell apart.
    assert!(decided(&report(&[ALIVE, DISK_LOST, &last("10:00:58"), BOOT].concat())).is_none());
}
