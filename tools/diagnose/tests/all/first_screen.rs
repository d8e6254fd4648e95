//! The first screen over the generated stories: it fits a screen, names only facts that it shows, and begins with what matters.

use std::collections::BTreeSet;

use crate::common::{syslog, told};
use holdfast_diagnose::model::Report;
use holdfast_diagnose::report::chinese;
use holdfast_diagnose::report::{Lang, terminal};
use holdfast_diagnose::synth::STORIES;

/// A story, and its first screen.
fn screen(name: &str, seed: u64) -> (Report, String) {
    let report = told(name, seed);
    let text = terminal::render(&report, Lang::En, false);
    (report, text)
}

/// Facts named after an arrow, and facts shown before it.
fn arrows_point_up(text: &str) {
    let mut shown: BTreeSet<String> = BTreeSet::new();
    for line in text.lines() {
        let arrow = line.trim_start().strip_prefix("<- ");
        if let Some(rest) = arrow {
            let id: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
            assert!(shown.contains(&id), "{id} is named and not shown:\n{text}");
        }
        let marks = line.split(['[', ' ', '(']).map(|t| t.trim_end_matches([']', ';', ')']));
        let is_id = |t: &&str| t.strip_prefix('F').is_some_and(|n| n.parse::<u32>().is_ok());
        shown.extend(marks.filter(is_id).filter(|_| arrow.is_none()).map(str::to_owned));
    }
}

#[test]
fn the_first_screen_of_every_story_fits_and_names_only_what_it_shows() {
    for s in &STORIES {
        let (_, text) = screen(s.name, 3);
        let lines: Vec<&str> = text.lines().collect();
        // The two longest chains have eleven steps on three hosts.
        let most = if s.name.starts_with("incident") { 54 } else { 36 };
        assert!(lines.len() <= most, "{}: {} lines\n{text}", s.name, lines.len());
        let widest = lines.iter().map(|l| l.chars().count()).max().unwrap_or(0);
        assert!(widest <= 100, "{}: {widest} columns\n{text}", s.name);
        arrows_point_up(&text);
    }
}

#[test]
fn a_step_on_another_host_says_so_and_a_delay_says_what_it_counts_from() {
    let (report, text) = screen("incident", 1);
    let chain = &report.causes[0].chain;
    let host = |id: &String| report.facts.iter().find(|f| f.id == *id).map(|f| f.host.as_str());
    assert!(chain.iter().any(|e| host(&e.from) != host(&e.to)));
    assert!(text.contains(" on kvm"), "{text}");
    assert!(text.contains("after its last line"), "{text}");
    // What the malware's own to-do asks for comes before the repair of a file.
    let (isolate, restore) = (text.find("isolate the infected"), text.find("restore the crontab"));
    assert!(isolate < restore && isolate.is_some(), "{text}");
}

#[test]
fn a_split_brain_begins_with_the_loss_of_the_peer_and_not_with_a_condition_hours_before() {
    let (report, text) = screen("split-brain", 1);
    let rule = |id: &String| report.facts.iter().find(|f| f.id == *id).map(|f| f.rule.as_str());
    let into =
        report.causes[0].chain.iter().find(|e| rule(&e.to) == Some("drbd.split-brain")).expect("a step");
    assert_eq!(rule(&into.from), Some("drbd.conn-lost"));
    for words in ["DRBD lost its peer", "corosync lost its token", "members left the corosync cluster"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn a_torn_crontab_is_on_the_first_screen_with_its_byte_and_its_nuls() {
    let (_, text) = screen("crontab-torn", 1);
    for words in ["NUL bytes at offset", "is refused whole by Debian's cron", "restore the crontab"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn one_line_is_one_cause_and_advice_is_for_what_failed() {
    let (report, _) = screen("oom-storage", 1);
    let own = report.causes.iter().filter(|c| c.consequence_of.is_none()).map(|c| c.id.as_str());
    assert_eq!(own.collect::<Vec<_>>(), ["oom-storage-daemon"]);
    let report = syslog(
        "Mar  3 10:00:01 n1 kernel: [9.1] sd 4:0:0:0: [sdc] tag#0 Sense Key : Medium Error [current]\n",
    );
    let todo: Vec<&str> = report.recommendations.iter().map(|r| &*r.text).collect();
    assert_eq!(todo, ["save the SMART data (smartctl -x DEV), then replace the device"]);
    assert!(report.recommendations.iter().all(|r| !r.facts.is_empty()));
}

#[test]
fn details_have_what_supports_and_what_contradicts_each_cause() {
    let report = syslog(
        "Mar  3 09:59:01 n1 chronyd[4]: System clock was stepped by 31536000.120334 seconds\n\
         Mar  3 10:00:01 n1 containerd[7]: error=\"x509: certificate has expired or is not yet valid\"\n",
    );
    let text = terminal::render(&report, Lang::En, true);
    let details = text.split("== causes").nth(1).expect("details");
    let of = |id: &str| {
        details.split(&format!(". {id} [")).nth(1).and_then(|t| t.split("\n== ").next()).expect("a cause")
    };
    assert!(of("certificate-expired").contains("contradicted by: F1"), "{details}");
    assert!(of("clock-step").contains("begins with: F1"), "{details}");
}

#[test]
fn without_a_cause_the_screen_says_what_failed_and_where() {
    let (report, text) = screen("insufficient", 3);
    assert!(report.causes.is_empty());
    let after = text.split("what failed\n").nth(1).expect("a list");
    assert!(after.contains("the host stopped without an orderly shutdown") && after.contains(" ["), "{text}");
    // A cause that leaves an impact open says which in words.
    let (_, text) = screen("fencing-stuck", 3);
    assert!(text.contains("no way leads from fencing-failed to these impacts: kvm01 "), "{text}");
}

#[test]
fn in_chinese_nothing_that_the_report_says_of_itself_is_english() {
    let is_chinese = |text: &str| text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
    let mut seen = 0;
    for name in ["incident", "split-brain", "insufficient", "crontab-torn", "healthy"] {
        let mut report = told(name, 5);
        chinese::speak(&mut report);
        let missing = report.missing_evidence.iter().flat_map(|m| [&m.file, &m.decides]);
        let causes = report.causes.iter();
        let said = causes.clone().flat_map(|c| c.single_points_of_failure.iter().chain([&c.prevented_by]));
        let steps = causes.flat_map(|c| &c.chain).map(|e| &e.mechanism);
        let todo = report.recommendations.iter().flat_map(|r| [&r.urgency, &r.owner, &r.text]);
        let open = report.contradictions.iter().map(|c| &c.text);
        let refuted = report.facts.iter().map(|f| &f.refuted_by);
        for text in missing.chain(said).chain(steps).chain(todo).chain(open).chain(refuted) {
            let text = text.to_string();
            assert!(is_chinese(&text), "{name}: {text}");
            seen += 1;
        }
        assert!(
            report.facts.iter().all(|f| is_chinese(&f.title_zh)) && is_chinese(&report.summary.headline_zh)
        );
    }
    assert!(seen > 100, "{seen}");
}
