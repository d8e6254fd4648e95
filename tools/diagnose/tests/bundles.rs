//! Whole bundles, as a user gives them: generated incidents and hostile input, through the public door.

use std::io::Write;
use std::path::Path;

use holdfast_diagnose::model::Report;
use holdfast_diagnose::synth::{story, write};
use holdfast_diagnose::{AnalyseError, Options, analyse, score};

fn report(folder: &Path) -> Report {
    analyse(&[folder.to_owned()], &Options::default(), &Default::default()).expect("the bundle is readable")
}

fn told(name: &str, seed: u64) -> Report {
    let dir = tempfile::tempdir().expect("a folder");
    write(story(name).expect("a known story"), seed, dir.path()).expect("a bundle");
    report(dir.path())
}

#[test]
fn the_incident_is_traced_from_malware_to_the_reset_of_every_host() {
    let report = told("incident", 1);
    assert_eq!(report.causes[0].id, "malware-xorddos");
    let rule = |id: &String| report.facts.iter().find(|f| f.id == *id).map(|f| f.rule.as_str()).unwrap_or("");
    let steps: Vec<(&str, &str)> =
        report.causes[0].chain.iter().map(|e| (rule(&e.from), rule(&e.to))).collect();
    assert!(steps.iter().any(|(f, t)| f.starts_with("malware.") && *t == "net.internal-raised"), "{steps:?}");
    assert!(steps.iter().any(|(_, t)| *t == "hosts.reset-together"), "{steps:?}");
    assert!(report.facts.iter().all(|f| !f.evidence.is_empty()), "no claim without a line");
}

#[test]
fn the_twin_without_malware_names_no_malware_and_says_what_would_decide() {
    let report = told("incident-clean", 1);
    assert_eq!(report.causes[0].id, "interface-raised");
    assert!(report.causes.iter().all(|c| !c.id.starts_with("malware")));
    assert!(report.missing_evidence.iter().any(|m| m.file.contains("crontab")));
}

#[test]
fn a_healthy_cluster_and_a_reset_without_a_word_get_no_cause() {
    assert!(told("healthy", 3).causes.is_empty());
    let silent = told("insufficient", 3);
    assert!(silent.causes.is_empty());
    assert!(silent.missing_evidence.iter().any(|m| m.how.contains("ipmitool")));
}

#[test]
fn every_story_gets_its_cause_on_one_seed() {
    let dir = tempfile::tempdir().expect("a folder");
    let scores = score::score(1, 77, dir.path()).expect("scored");
    for s in &scores {
        assert_eq!(s.cause_right, s.cases, "{}: {:?}", s.story, s.remarks);
    }
}

#[test]
fn the_same_bundle_gives_the_same_bytes() {
    let dir = tempfile::tempdir().expect("a folder");
    write(story("switch-dies").expect("known"), 5, dir.path()).expect("a bundle");
    let once = serde_json::to_string(&report(dir.path())).expect("json");
    assert_eq!(once, serde_json::to_string(&report(dir.path())).expect("json"));
}

#[test]
fn unusable_inputs_are_refused_with_a_word() {
    let dir = tempfile::tempdir().expect("a folder");
    let refusal = |path: &Path| match analyse(&[path.to_owned()], &Options::default(), &Default::default()) {
        Err(e @ (AnalyseError::Nothing { .. } | AnalyseError::Source(_))) => e.to_string(),
        other => panic!("{path:?} gave {:?}", other.map(|r| r.summary.headline)),
    };
    assert!(refusal(dir.path()).contains("no file"));
    assert!(refusal(&dir.path().join("absent")).contains("absent"));
    std::fs::write(dir.path().join("x.bin"), (0..9000u32).map(|i| (i * 37 % 251) as u8).collect::<Vec<u8>>())
        .expect("written");
    assert!(refusal(dir.path()).contains("not text"));
}

#[test]
fn poor_inputs_are_read_and_give_no_cause() {
    for (name, text) in [
        ("one", &b"one line"[..]),
        ("nul", &[0u8; 8192][..]),
        ("years", b"Feb 30 99:99:99 h a: x\n9999-99-99 10:00:00 x\n"),
        ("back", b"Mar  3 10:00:00 h a: x\nMar  3 09:00:00 h a: y\nMar  2 10:00:00 h a: z\n"),
        ("crlf", b"Mar  3 10:00:00 h a: x\r\nMar  3 10:00:01 h a: y\r\n"),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join(name), text).expect("written");
        let report = report(dir.path());
        assert!(report.causes.is_empty(), "{name}");
    }
}

#[test]
fn a_gbk_line_and_its_utf8_twin_read_alike() {
    // "Kernel panic - not syncing: " and then a Chinese word, once in each encoding.
    let head = b"Mar  3 10:02:00 h kernel: [128.000001] Kernel panic - not syncing: ";
    let texts: Vec<String> = [&[0xb4u8, 0xe6, 0xb4, 0xa2][..], "存储".as_bytes()]
        .iter()
        .map(|word| {
            let dir = tempfile::tempdir().expect("a folder");
            std::fs::write(dir.path().join("syslog"), [&head[..], word, b"\n"].concat()).expect("written");
            report(dir.path()).facts[0].evidence[0].text.clone()
        })
        .collect();
    assert_eq!(texts[0], texts[1]);
    assert!(texts[0].ends_with("存储"));
}

#[test]
fn two_machines_with_one_name_are_kept_apart() {
    let dir = tempfile::tempdir().expect("a folder");
    for (folder, text) in [("a", "x"), ("b", "y")] {
        let log = dir.path().join(folder).join("var/log");
        std::fs::create_dir_all(&log).expect("made");
        let lines: String = (0..30).map(|i| format!("Mar  3 10:00:{i:02} node1 app: {text}\n")).collect();
        std::fs::write(log.join("syslog"), lines).expect("written");
    }
    let names: Vec<String> = report(dir.path()).hosts.into_iter().map(|h| h.name).collect();
    assert_eq!(names, ["node1@a", "node1@b"]);
}

#[test]
fn half_an_archive_is_read_up_to_its_cut() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for i in 0..60_000u32 {
        writeln!(
            packer,
            "Mar  3 10:{:02}:{:02} h app: {}",
            i / 60 % 60,
            i % 60,
            i.wrapping_mul(2_654_435_761)
        )
        .expect("packed");
    }
    let packed = packer.finish().expect("packed");
    std::fs::write(dir.path().join("syslog.1.gz"), &packed[..packed.len() / 2]).expect("written");
    let report = report(dir.path());
    assert!(report.summary.lines > 10_000);
    assert!(report.notices.iter().any(|n| n.kind == "Truncated"));
}
