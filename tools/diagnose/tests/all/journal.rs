//! Journals of systemd: what a rule finds in a syslog line it finds in the same entry of an export and of JSON, whatever the
//! order of the fields.

use crate::common::report;
use holdfast_diagnose::model::Report;
use holdfast_diagnose::rules::RuleSet;
use holdfast_diagnose::scan::scan;
use holdfast_evidence::Source;

fn rules_of(report: &Report) -> Vec<(&str, &str, u64)> {
    let mut found: Vec<_> =
        report.facts.iter().map(|f| (f.rule.as_str(), f.host.as_str(), f.count)).collect();
    found.sort_unstable();
    found
}

/// An entry in the three forms: a syslog line, an export, JSON. The message goes into the export as bytes where `binary` says so.
fn forms(at: &str, host: &str, program: &str, pid: Option<u32>, message: &str, binary: bool) -> [Vec<u8>; 3] {
    let micros = 1_772_532_000_000_000u64;
    let tag = pid.map_or(program.to_owned(), |p| format!("{program}[{p}]"));
    let text = format!("{at} {host} {tag}: {message}\n").into_bytes();
    // A kernel's message has its own count as a field, not in its text.
    let (uptime, message) = match message.strip_prefix('[').and_then(|m| m.split_once("] ")) {
        Some((seconds, rest)) if program == "kernel" => {
            let (whole, part) = seconds.trim().split_once('.').expect("seconds");
            (Some(format!("{whole}{part}")), rest)
        }
        _ => (None, message),
    };
    let mut fields = vec![
        ("__REALTIME_TIMESTAMP".to_owned(), micros.to_string()),
        ("_HOSTNAME".to_owned(), host.to_owned()),
        ("SYSLOG_IDENTIFIER".to_owned(), program.to_owned()),
        ("MESSAGE".to_owned(), message.to_owned()),
    ];
    fields.extend(pid.map(|p| ("_PID".to_owned(), p.to_string())));
    fields.extend(uptime.map(|u| ("_SOURCE_MONOTONIC_TIMESTAMP".to_owned(), u)));
    let mut export = b"__CURSOR=s\n".to_vec();
    for (name, value) in &fields {
        if name == "MESSAGE" && binary {
            export.extend_from_slice(b"MESSAGE\n");
            export.extend_from_slice(&(value.len() as u64).to_le_bytes());
            export.extend_from_slice(value.as_bytes());
            export.push(b'\n');
        } else {
            export.extend_from_slice(format!("{name}={value}\n").as_bytes());
        }
    }
    export.push(b'\n');
    let json: serde_json::Map<_, _> =
        fields.into_iter().map(|(n, v)| (n, serde_json::Value::String(v))).collect();
    [text, export, (serde_json::Value::Object(json).to_string() + "\n").into_bytes()]
}

/// The same as `journalctl -o json-pretty` writes it (systemd, src/libsystemd/sd-json/sd-json.c): a field a line, behind a tab.
fn pretty(json: &[u8]) -> Vec<u8> {
    let fields: std::collections::BTreeMap<String, String> = serde_json::from_slice(json).expect("JSON");
    let text = |s: &String| serde_json::to_string(s).expect("text");
    let lines: Vec<String> = fields.iter().map(|(n, v)| format!("\t{} : {}", text(n), text(v))).collect();
    format!("{{\n{}\n}}\n", lines.join(",\n")).into_bytes()
}

#[test]
fn entries_of_a_pretty_journal_are_cited_where_their_messages_stand_and_bytes_are_read() {
    let entry = |message: &str| {
        format!(
            "{{\n\t\"__CURSOR\" : \"s=1\",\n\t\"__REALTIME_TIMESTAMP\" : \"1452161591000000\",\n\t\"MESSAGE\" : {message},\n\t\"SYSLOG_IDENTIFIER\" : \"kernel\",\n\t\"_HOSTNAME\" : \"n1\"\n}}\n"
        )
    };
    let panic = "Kernel panic - not syncing: x";
    let bytes: Vec<String> = panic.bytes().map(|b| format!("\t\t{b}")).collect();
    let text = [
        entry("\"a \\\"quoted\\\" }\""),
        entry(&format!("\"{panic}\"")),
        entry(&format!("[\n{}\n\t]", bytes.join(",\n"))),
        // Cut in its middle.
        entry(&format!("\"{panic}\""))[..60].to_owned(),
    ]
    .concat();
    let report = report(&[("journal.json", &text)]);
    assert_eq!(rules_of(&report), [("kernel.panic", "n1", 2)]);
    let evidence = &report.facts[0].evidence[0];
    let place = text.find(&format!("\t\"MESSAGE\" : \"{panic}")).expect("it is there");
    assert_eq!(evidence.offset as usize, place);
    assert_eq!(evidence.line as usize, 1 + text[..place].matches('\n').count());
    assert_eq!(evidence.text, "n1 kernel: Kernel panic - not syncing: x");
}

#[test]
fn every_rule_finds_its_example_in_all_forms() {
    let rules = RuleSet::builtin().expect("the shipped rules compile");
    let mut compared = 0;
    for rule in rules.rules.iter().filter(|r| r.path.is_none()) {
        let Some(record) = holdfast_evidence::parse_line(rule.example.as_bytes()) else { continue };
        if record.host.is_empty() || record.program.is_empty() {
            continue;
        }
        let word = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (at, host, program) = (&rule.example[..15], word(record.host), word(record.program));
        let mut message = word(record.message);
        if let Some(uptime) = record.uptime {
            message = format!("[{:5}.{:06}] {message}", uptime / 1_000_000, uptime % 1_000_000);
        }
        let [text, export, json] = forms(at, &host, &program, record.pid, &message, compared % 2 == 0);
        let found = |name: &str, bytes: &[u8]| {
            let mut body = bytes;
            let source = Source { path: name.into(), mtime: None, link: None, body: &mut body };
            let scanned = scan(&rules, source, 1);
            scanned
                .episodes
                .iter()
                .map(|e| (rules.rules[e.rule].id.clone(), e.host.clone()))
                .collect::<Vec<_>>()
        };
        let text = found("syslog", &text);
        assert!(text.iter().any(|(id, _)| *id == rule.id), "{}: {}", rule.id, rule.example);
        assert_eq!(text, found("j.export", &export), "{}: export", rule.id);
        assert_eq!(text, found("j.json", &json), "{}: JSON", rule.id);
        assert_eq!(text, found("j.pretty", &pretty(&json)), "{}: pretty JSON", rule.id);
        compared += 1;
    }
    assert!(compared > 60, "{compared}");
}

#[test]
fn the_fields_of_an_export_may_stand_in_any_order() {
    let fields = [
        "__REALTIME_TIMESTAMP=1452161591000000",
        "_HOSTNAME=n1",
        "SYSLOG_IDENTIFIER=CRON",
        "_PID=7",
        "MESSAGE=(root) CMD (/etc/cron.hourly/cron.sh)",
    ];
    for turn in 0..2 * fields.len() {
        let mut order = [0, 1, 2, 3, 4];
        order.rotate_left(turn % fields.len());
        if turn >= fields.len() {
            order.reverse();
        }
        let body: String = order.iter().map(|i| format!("{}\n", fields[*i])).collect();
        // The last entry has no empty line after it.
        let text = format!("__CURSOR=a\n{body}\n__CURSOR=b\n{body}");
        let report = report(&[("journal.export", &text)]);
        assert_eq!(rules_of(&report), [("malware.cron-run", "n1", 2)], "{order:?}");
        let evidence = &report.facts[0].evidence;
        assert_eq!(evidence[0].text, "n1 CRON[7]: (root) CMD (/etc/cron.hourly/cron.sh)");
        let place = text.find("MESSAGE").expect("it is there");
        assert_eq!(evidence[0].offset as usize, place);
        assert_eq!(evidence[0].line as usize, 1 + text[..place].matches('\n').count());
        assert_eq!(report.summary.lines, 2, "entries are what a log has lines");
    }
}

#[test]
fn two_hosts_in_one_export_stay_two_and_a_long_binary_field_hides_nothing() {
    let entry = |host: &str, message: &str| {
        let mut out =
            format!("__CURSOR=s\n__REALTIME_TIMESTAMP=1452161591000000\nMESSAGE={message}\n").into_bytes();
        // A core dump in a journal: a megabyte without a newline, and the bytes of other lines in it.
        let dump =
            [b"_HOSTNAME=fake\n\nMESSAGE=Kernel panic - not syncing: fake\n\n".to_vec(), vec![0xc3; 1 << 20]]
                .concat();
        out.extend_from_slice(b"COREDUMP\n");
        out.extend_from_slice(&(dump.len() as u64).to_le_bytes());
        out.extend_from_slice(&dump);
        out.extend_from_slice(format!("\nSYSLOG_IDENTIFIER=kernel\n_HOSTNAME={host}\n\n").as_bytes());
        out
    };
    let panic = "Kernel panic - not syncing: x";
    let report = report(&[("journal.export", [entry("n1", panic), entry("n2", panic)].concat())]);
    assert_eq!(rules_of(&report), [("kernel.panic", "n1", 1), ("kernel.panic", "n2", 1)]);
    let names: Vec<&str> = report.hosts.iter().map(|h| h.name.as_str()).collect();
    assert_eq!(names, ["n1", "n2"]);
}
