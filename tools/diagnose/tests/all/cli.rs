//! `diagnose` as a user calls it: exit codes, every kind of output, and what it says when there is nothing to say.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Bundle {
    dir: tempfile::TempDir,
}

impl Bundle {
    fn new() -> Bundle {
        Bundle { dir: tempfile::tempdir().expect("a folder") }
    }

    /// A story in the folder `b`.
    fn story(name: &str) -> Bundle {
        let bundle = Bundle::new();
        let made = bundle.run(&["synth", name, "-o", "b"]);
        assert_eq!(made.status.code(), Some(0), "{}", err(&made));
        bundle
    }

    fn with(path: &str, text: &str) -> Bundle {
        let bundle = Bundle::new();
        bundle.put(path, text);
        bundle
    }

    fn put(&self, path: &str, text: &str) {
        crate::common::put(self.dir.path(), path, text);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        run(self.dir.path(), args)
    }
}

fn run(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-diagnose"));
    command.current_dir(dir).args(args).output().expect("it runs")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("utf-8")
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const LOCKUP: &str =
    "Mar  3 10:00:01 n1 kernel: [9.1] watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [x:1]\n";

#[test]
fn the_exit_code_says_whether_a_cause_was_found() {
    assert_eq!(Bundle::story("switch-dies").run(&["b"]).status.code(), Some(0));
    let open = Bundle::with("b/syslog", LOCKUP).run(&["b"]);
    assert_eq!(open.status.code(), Some(1));
    assert!(out(&open).contains("does not carry a cause") && out(&open).contains("would decide more"));
    let empty = Bundle::new();
    std::fs::create_dir(empty.path("b")).expect("made");
    for (args, said) in [
        (&["b"][..], "holds no file"),
        (&["absent"], "absent"),
        (&[], "give a bundle"),
        (&["b", "--since", "yesterday"], "not a time"),
        (&["b", "--node", "192.0.2.1"], "asks none"),
    ] {
        let refused = empty.run(args);
        assert_eq!(refused.status.code(), Some(2), "{args:?}");
        assert!(err(&refused).contains(said) && err(&refused).lines().count() == 1, "{}", err(&refused));
    }
}

#[test]
fn json_has_the_fields_that_were_promised() {
    let output = Bundle::story("incident").run(&["b", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("json");
    for field in [
        "summary",
        "hosts",
        "timeline",
        "facts",
        "causes",
        "contradictions",
        "missing_evidence",
        "recommendations",
    ] {
        assert!(report.get(field).is_some(), "{field}");
    }
    for fact in report["facts"].as_array().expect("facts") {
        for line in fact["evidence"].as_array().expect("lines") {
            for field in ["file", "line", "offset", "text"] {
                assert!(!line[field].is_null(), "{field} of {}", fact["id"]);
            }
        }
    }
    assert_eq!(report["causes"][0]["id"], "malware-xorddos");
}

#[test]
fn every_kind_of_file_is_the_same_bytes_twice() {
    let bundle = Bundle::story("split-brain");
    for (name, starts) in
        [("r.html", "<!doctype html>"), ("r.pdf", "%PDF-1.4"), ("r.json", "{"), ("r.txt", "The hosts")]
    {
        let again = format!("again-{name}");
        for file in [name, &again] {
            let output = bundle.run(&["b", "-o", file]);
            assert_eq!(output.status.code(), Some(0), "{}", err(&output));
            assert!(out(&output).ends_with(&format!("report: {file}\n")));
            // The screen has the short form; the file has it all.
            assert!(!out(&output).contains("== facts"));
        }
        let bytes = std::fs::read(bundle.path(name)).expect("written");
        assert!(bytes.starts_with(starts.as_bytes()), "{name}");
        assert_eq!(bytes, std::fs::read(bundle.path(&again)).expect("written"), "{name}");
    }
    let refused = bundle.run(&["b", "-o", "absent/r.html"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(err(&refused).contains("cannot write absent/r.html"), "{}", err(&refused));
}

#[test]
fn a_pipe_gets_everything_and_brief_the_first_screen_of_it() {
    let bundle = Bundle::story("split-brain");
    let (all, brief) = (out(&bundle.run(&["b"])), out(&bundle.run(&["b", "--brief"])));
    assert!(all.starts_with(&brief) && all.contains("\n== facts\n") && !brief.contains("\n== "));
    assert_eq!(all, out(&bundle.run(&["b", "--details"])));
    assert_eq!(bundle.run(&["b", "--brief", "--details"]).status.code(), Some(2));
}

#[test]
fn a_host_that_is_not_there_is_refused_and_those_that_are_named() {
    let bundle = Bundle::story("switch-dies");
    let refused = bundle.run(&["b", "--host", "nosuch"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(err(&refused).contains("no host nosuch in this input; it has "), "{}", err(&refused));
    let name = err(&refused).trim_end().rsplit([' ', ',']).next().expect("a name").to_owned();
    let report: serde_json::Value =
        serde_json::from_slice(&bundle.run(&["b", "--json", "--host", &name]).stdout).expect("json");
    let hosts =
        report["facts"].as_array().expect("facts").iter().map(|f| f["host"].as_str().expect("a name"));
    assert!(hosts.clone().count() > 0 && hosts.into_iter().all(|h| h == name || h == "cluster"));
}

#[test]
fn nothing_is_called_healthy_over_nothing() {
    let healthy = "no sign of an incident";
    let logged: String = (0..30).map(|s| format!("2026-03-03T10:00:{s:02}+08:00 n1 app: x\n")).collect();
    let bundle = Bundle::with("b/syslog", &logged);
    assert!(out(&bundle.run(&["b"])).to_lowercase().contains(healthy));
    let later = out(&bundle.run(&["b", "--since", "2030-01-01"]));
    assert!(
        later.starts_with("No log line lies in that time: the logs reach from 2026-03-03T10:00:00+08:00"),
        "{later}"
    );
    for (name, text) in [("one", "one line"), ("csv", "a,b\n1,2\n"), ("year", "Feb 30 99:99:99 h a: x\n")] {
        let bundle = Bundle::with(name, text);
        let output = bundle.run(&[name]);
        assert!(out(&output).starts_with("No line of this input has a time"), "{name}: {}", out(&output));
        assert_eq!(output.status.code(), Some(1));
    }
    let bundle = Bundle::with("b/syslog", &format!("{LOCKUP}Mar  3 12:00:00 n1 app: x\n"));
    let after = out(&bundle.run(&["b", "--since", "2026-03-03T11:00:00"]));
    assert!(!after.to_lowercase().contains(healthy), "{after}");
    assert!(after.starts_with("No fact in what was asked for; 1 lie outside it"), "{after}");
}

#[test]
fn files_that_were_not_read_are_said_at_the_top() {
    let logged: String = (0..30).map(|s| format!("2026-03-03T10:00:{s:02}+08:00 n1 app: x\n")).collect();
    let bundle = Bundle::with("b/syslog", &logged);
    // A file that opens and does not read, for root too.
    let output = bundle.run(&["b", "/proc/self/mem", "--brief"]);
    let text = out(&output);
    let head = "No sign of an incident in what could be read; 1 files could not, or not whole\n";
    assert!(text.starts_with(head), "{text}");
    assert!(text.contains("\n1 files not read whole: mem: "), "{text}");
}

#[test]
fn a_time_without_a_zone_is_one_of_the_report() {
    let logged = format!(
        "2026-03-03T09:59:00+08:00 n1 app: x\n{}2026-03-03T10:30:00+08:00 n1 app: x\n",
        "2026-03-03T10:00:01+08:00 n1 kernel: [9.1] watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [x:1]\n"
    );
    let bundle = Bundle::with("b/syslog", &logged);
    let facts = |since: &str, until: &str| {
        let output = bundle.run(&["b", "--json", "--since", since, "--until", until]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("json");
        assert_eq!(report["summary"]["since"], "2026-03-03T10:00:00+08:00");
        report["facts"].as_array().expect("facts").len()
    };
    assert_eq!(facts("2026-03-03T10:00:00", "2026-03-03 10:10"), 1);
    assert_eq!(facts("2026-03-03T10:00:00+08:00", "2026-03-03T02:10:00Z"), 1);
}

#[test]
fn chinese_has_chinese_titles_and_headings() {
    let text = out(&Bundle::story("switch-dies").run(&["b", "--lang", "zh", "--brief"]));
    for word in ["交换机故障", "影响时间", "建议", "读取", "错过令牌的成员被移出", "检查这些端口共用的交换机"]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
    let data = out(&Bundle::story("switch-dies").run(&["b", "--lang", "zh", "--json"]));
    assert!(data.contains("look at the switch that these ports share"), "{data}");
    assert_eq!(Bundle::new().run(&["b", "--lang", "xx"]).status.code(), Some(2));
}

#[test]
fn every_id_that_the_rules_list_can_be_explained() {
    let bundle = Bundle::new();
    let listed = out(&bundle.run(&["rules", "ls"]));
    let ids: Vec<&str> = listed.lines().filter_map(|l| l.split_whitespace().next()).collect();
    for kind in ["critical", "computed", "cause"] {
        assert!(listed.lines().any(|l| l.split_whitespace().nth(1) == Some(kind)), "{kind}");
    }
    for id in ["malware-xorddos", "host.reset", "iscsi.refused", "disk-failure"] {
        assert!(ids.contains(&id), "{id}");
        let told = bundle.run(&["rules", "explain", id]);
        assert_eq!(told.status.code(), Some(0), "{id}");
        assert!(out(&told).starts_with(id) && out(&told).lines().count() > 3, "{}", out(&told));
    }
    assert!(out(&bundle.run(&["rules", "explain", "malware-xorddos"])).contains("malware.cron-run"));
    assert!(out(&bundle.run(&["rules", "explain", "host.reset"])).contains("refuted by a shutdown line"));
    let absent = bundle.run(&["rules", "explain", "nosuch"]);
    assert_eq!((absent.status.code(), err(&absent).contains("no rule and no cause nosuch")), (Some(2), true));
    assert_eq!(bundle.run(&["rules", "lint"]).status.code(), Some(0));
}

#[test]
fn help_states_the_exit_codes_and_what_is_translated() {
    let help = out(&Bundle::new().run(&["--help"]));
    for words in [
        "Exit: 0 a cause was found, 1 nothing conclusive, 2 the input is unusable",
        "stay English",
        "--details",
    ] {
        assert!(help.contains(words), "{words}: {help}");
    }
    assert!(!help.contains("--token-file") && !help.contains("--node"), "{help}");
}

#[test]
fn a_reader_that_closes_its_pipe_is_no_error() {
    use std::process::Stdio;
    let bundle = Bundle::story("switch-dies");
    let mut child = Command::new(env!("CARGO_BIN_EXE_holdfast-diagnose"))
        .current_dir(bundle.dir.path())
        .arg("b")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), err(&output)), (Some(0), String::new()));
}

#[test]
fn a_terminal_sees_how_much_was_read_and_a_pipe_does_not() {
    let bundle = Bundle::new();
    let line = "2026-03-03T10:00:00+08:00 n1 app: nothing to see here, as in every line of this log\n";
    bundle.put("b/syslog", &line.repeat(300_000));
    // `script` (bsdutils) gives a program a terminal of its own and copies what it writes there.
    let told = Command::new("script")
        .current_dir(bundle.dir.path())
        .args(["-qec", concat!(env!("CARGO_BIN_EXE_holdfast-diagnose"), " b"), "/dev/null"])
        .output()
        .expect("script runs");
    let screen = out(&told);
    assert!(screen.contains(" MiB of 24.03 MiB, "), "{screen}");
    assert!(screen.contains("No sign of an incident"), "{screen}");
    assert_eq!(err(&bundle.run(&["b"])), "");
}
