//! What ends on one host and is felt on another, and what only looks so.

use crate::common::report;
use holdfast_diagnose::model::Report;

/// A target that crashes, its start the last word of that host's log.
const TARGET: &str =
    "Mar  3 10:00:00 n1 systemd[1]: tgt.service: Main process exited, code=dumped, status=11/SEGV\n";

fn initiator(portal: &str) -> String {
    let mut log =
        String::from("Mar  3 10:00:01 n2 kernel: [9000.000001]  connection1:0: detected conn error (1020)\n");
    for s in [3, 6, 9, 12] {
        log.push_str(&format!(
            "Mar  3 10:00:{s:02} n2 iscsid: connect to {portal}:3260 failed (Connection refused)\n"
        ));
    }
    log + "Mar  3 10:02:01 n2 kernel: [9120.000001] Aborting journal on device sdc1-8.\n"
}

fn causes(report: &Report) -> Vec<&str> {
    report.causes.iter().map(|c| c.id.as_str()).collect()
}

#[test]
fn a_target_that_ends_is_what_cuts_off_the_initiators_of_other_hosts() {
    let report =
        report(&[("n1/var/log/syslog", TARGET.to_owned()), ("n2/var/log/syslog", initiator("10.20.0.1"))]);
    assert_eq!(causes(&report).first(), Some(&"storage-daemon-death"), "{:?}", causes(&report));
    let fact =
        |rule: &str| report.facts.iter().find(|f| f.rule == rule).map(|f| f.id.clone()).expect("found");
    let (ended, aborted) = (fact("storage.daemon-exit"), fact("fs.aborted"));
    let first = &report.causes[0];
    assert_eq!(first.explains, [aborted]);
    assert!(first.chain.iter().any(|e| e.from == ended), "{:?}", first.chain);
}

#[test]
fn a_portal_of_the_host_itself_is_not_closed_by_a_process_elsewhere() {
    let report =
        report(&[("n1/var/log/syslog", TARGET.to_owned()), ("n2/var/log/syslog", initiator("127.0.0.1"))]);
    assert!(report.facts.iter().any(|f| f.rule == "config.single-local-portal"));
    assert!(!causes(&report).contains(&"storage-daemon-death"), "{:?}", causes(&report));
}

fn watchdog(reset_after: u32, last_words: &str) -> Report {
    let (minutes, seconds) = (reset_after / 60, reset_after % 60);
    report(&[(
        "n1/var/log/syslog",
        format!(
            "Mar  3 09:00:00 n1 systemd[1]: Started Session 1 of user a.\n\
             Mar  3 10:00:00 n1 kernel: [9000.000001] watchdog: watchdog0: watchdog did not stop!\n\
             {last_words}\
             Mar  3 10:{minutes:02}:{seconds:02} n1 kernel: [    0.000000] Linux version 5.10.0-28-amd64 (x@y) #1\n\
             Mar  3 10:{minutes:02}:{seconds:02} n1 systemd[1]: Started Session 2 of user a.\n"
        ),
    )])
}

#[test]
fn a_watchdog_that_was_left_armed_resets_its_host_within_its_time_and_not_an_hour_later() {
    assert_eq!(causes(&watchdog(150, "")), ["watchdog-unfed"]);
    let busy: String =
        (1..=55).map(|m| format!("Mar  3 10:{m:02}:00 n1 CRON[{m}]: (root) CMD (true)\n")).collect();
    let later = watchdog(59 * 60, &busy);
    assert!(later.facts.iter().any(|f| f.rule == "host.reset"));
    assert_eq!(causes(&later), [] as [&str; 0]);
}

#[test]
fn who_stopped_feeding_the_watchdog_is_above_the_watchdog() {
    let report = watchdog(150, "");
    assert_eq!(report.causes[0].explains.len(), 1);
    let fed = crate::common::told("ha-link-lost", 3);
    assert_eq!(causes(&fed).first(), Some(&"link-flap"));
    let below = fed.causes.iter().find(|c| c.id == "watchdog-unfed").expect("named below");
    assert!(below.consequence_of.is_some());
}

/// A host whose session is closed and comes back again and again, and its initiator's name.
fn reconnecting(host: &str, name: &str) -> [(String, String); 2] {
    let mut log = String::new();
    for s in 0..8 {
        log.push_str(&format!(
            "Mar  3 10:00:{:02} {host} kernel: [9000.1]  connection1:0: detected conn error (1020)\n\
             Mar  3 10:00:{:02} {host} iscsid: connection1:0 is operational after recovery (1 attempts)\n",
            s * 5,
            s * 5 + 2
        ));
    }
    [
        (format!("{host}/var/log/syslog"), log),
        (
            format!("{host}/etc/iscsi/initiatorname.iscsi"),
            format!("## made by an image\nInitiatorName={name}\n"),
        ),
    ]
}

fn two_initiators(first: &str, second: &str) -> Report {
    let files = [reconnecting("n1", first), reconnecting("n2", second)].concat();
    let files: Vec<(&str, String)> = files.iter().map(|(path, text)| (path.as_str(), text.clone())).collect();
    report(&files)
}

#[test]
fn one_initiator_name_on_two_hosts_is_what_ends_their_sessions_in_turn() {
    let name = "iqn.2016-04.com.open-iscsi:2f5b7c3a9d1";
    let shared = two_initiators(name, name);
    assert_eq!(causes(&shared).first(), Some(&"initiator-shared"), "{:?}", causes(&shared));
    for host in ["n1", "n2"] {
        let fact = shared.facts.iter().find(|f| f.rule == "iscsi.initiator-shared" && f.host == host);
        let fact = fact.expect("a fact on each of the two hosts");
        assert_eq!(fact.evidence.len(), 2, "the line of each host");
        assert!(fact.evidence.iter().all(|e| e.line == 2 && e.text.contains(name)), "{:?}", fact.evidence);
    }
    let apart = two_initiators(name, "iqn.2016-04.com.open-iscsi:9a0");
    assert!(apart.facts.iter().all(|f| f.rule != "iscsi.initiator-shared"));
    assert!(!causes(&apart).contains(&"initiator-shared"));
}
