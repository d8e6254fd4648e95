//! Where the evidence carries no cause, the report says which file would decide it: for every rule whose fact is an impact or an
//! error, alone on its host.

use crate::common::{put, read, syslog};
use holdfast_diagnose::decides::asks_why;
use holdfast_diagnose::facts::fits;
use holdfast_diagnose::knowledge::Knowledge;
use holdfast_diagnose::model::Report;
use holdfast_diagnose::rules::RuleSet;

fn report(files: &[(&str, &str)]) -> Report {
    let dir = tempfile::tempdir().expect("a folder");
    for (path, text) in files {
        put(dir.path(), &format!("n1/{path}"), text);
    }
    read(dir.path())
}

#[test]
fn no_fact_that_must_be_explained_stays_without_a_cause_and_without_a_file_that_would_decide() {
    let rules = RuleSet::builtin().expect("rules");
    let mut alone = 0;
    for rule in rules.rules.iter().filter(|r| r.path.is_none() && asks_why(r.severity, r.role)) {
        // Some facts need several lines.
        let lines = format!("{}\n", rule.example).repeat(rule.at_least_lines as usize);
        let report = report(&[("var/log/syslog", &lines)]);
        let found = report.facts.iter().find(|f| f.rule == rule.id);
        let fact = found.unwrap_or_else(|| panic!("{}: its example gives no fact", rule.id));
        let explained = !report.causes.is_empty();
        let named = report.missing_evidence.iter().any(|m| m.facts.contains(&fact.id));
        assert!(explained || named, "{}: {:?}", rule.id, report.missing_evidence);
        alone += usize::from(!explained);
        if !explained {
            assert!(
                report.missing_evidence.iter().all(|m| !m.how.is_empty() && !m.file.contains('{')),
                "{}",
                rule.id
            );
        }
    }
    assert!(alone > 20, "only {alone} rules carry no cause alone");
}

#[test]
fn every_such_rule_has_a_family_of_its_own() {
    let (rules, knowledge) = (RuleSet::builtin().expect("rules"), Knowledge::builtin().expect("knowledge"));
    let fallback = knowledge.families.len() - 1;
    for rule in rules.rules.iter().filter(|r| asks_why(r.severity, r.role)) {
        let family = knowledge.families.iter().position(|f| f.fits(&rule.id)).expect("the last fits all");
        assert_ne!(family, fallback, "{}", rule.id);
    }
    assert!(fits("*", "anything"));
}

#[test]
fn three_unclean_boots_ask_for_the_console_of_that_host() {
    let boot = |minute: u32| {
        format!(
            "Mar  3 10:{minute:02}:00 n1 systemd[1]: Started Session 4 of User root.\n\
             Mar  3 10:{minute:02}:30 n1 kernel: [    0.000000] Linux version 6.1.0-28-amd64 (x@y)\n\
             Mar  3 10:{minute:02}:32 n1 kernel: [    2.100000] a\n"
        )
    };
    let report = report(&[("var/log/syslog", &[boot(1), boot(6), boot(11)].concat())]);
    assert!(report.facts.iter().any(|f| f.rule == "host.boot-loop"), "{:?}", report.summary);
    assert!(report.causes.is_empty());
    let console = &report.missing_evidence[0];
    assert!(console.file.contains("console of n1") && console.how.contains("ipmitool"), "{console:?}");
    assert!(!console.facts.is_empty());
}

#[test]
fn only_the_first_of_a_chain_is_asked_for() {
    let report = report(&[(
        "var/log/syslog",
        "Mar  3 10:00:01 n1 kernel: [9.1] Kernel panic - not syncing: x\n\
         Mar  3 10:00:20 n1 kernel: [    0.000000] Linux version 6.1.0-28-amd64 (x@y)\n\
         Mar  3 10:00:22 n1 kernel: [    2.100000] a\n",
    )]);
    assert!(report.facts.iter().any(|f| f.rule == "host.reset"));
    let files: Vec<&str> = report.missing_evidence.iter().map(|m| &*m.file).collect();
    assert!(files.iter().any(|f| f.contains("vmcore-dmesg")), "{files:?}");
    assert!(files.iter().all(|f| !f.contains("minute before")), "{files:?}");
}

#[test]
fn a_path_of_a_disk_is_no_host_whose_logs_are_missing() {
    let report = report(&[(
        "var/log/syslog",
        "Mar  3 10:00:01 n1 multipathd[400]: sdb: directio checker reports path is down\n\
         Mar  3 10:00:01 n1 multipathd[400]: checker failed path 8:16 in map mpatha\n\
         Mar  3 10:00:05 n1 pacemaker-controld[88]:  notice: Peer n2 was terminated (reboot) by n1 on behalf of x: OK\n",
    )]);
    let peers =
        report.missing_evidence.iter().filter(|m| &*m.decides == "what that host saw at the same time");
    let logs: Vec<&str> = peers.filter_map(|m| m.file.strip_prefix("the logs of ")).collect();
    assert_eq!(logs, ["n2"]);
}

#[test]
fn what_rests_on_one_kind_of_line_alone_is_possible_and_says_so() {
    let expired = "Mar  3 10:00:00 n1 etcd: x509: certificate has expired or is not yet valid\n";
    let hang =
        "Mar  3 10:00:00 n1 kernel: [8.000001] e1000e 0000:00:1f.6 eno1: Detected Hardware Unit Hang:\n";
    let lost = "Mar  3 10:00:04 n1 corosync[900]:   [KNET  ] link: host: 2 link: 0 is down\n";
    for line in [expired, hang] {
        let alone = syslog(line);
        let cause = alone.causes.first().expect("a cause");
        assert!(cause.confidence == "possible" && cause.score < 0.5, "{} {}", cause.id, cause.score);
        let said = |r: &Report| r.contradictions.iter().any(|c| c.text.contains("of one kind alone"));
        assert!(said(&alone), "{:?}", alone.contradictions);
        let more = syslog(format!("{hang}{lost}"));
        let cause = more.causes.first().expect("a cause");
        assert!(cause.id == "nic-hang" && cause.confidence != "possible" && !said(&more), "{cause:?}");
    }
}
