//! What `collect` and `--live` take of a host, what they leave out, and that they say so.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use holdfast_diagnose::collect::{Collected, collect};
use holdfast_diagnose::{Options, analyse};

/// Who has no right to anything.
const NOBODY: u32 = 65_534;

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).expect("packed");
    out.finish().expect("packed")
}

/// A host's tree with these files.
fn tree(dir: &Path, files: &[(&str, &[u8])]) -> PathBuf {
    let root = dir.join("tree");
    for (name, bytes) in [("etc/hostname", &b"n7\n"[..])].iter().chain(files) {
        crate::common::put(&root, name, bytes);
    }
    root
}

/// The members of a bundle: names, link targets, and what is in them when it is unpacked.
fn members(bundle: &Path) -> Vec<(String, String, Vec<u8>)> {
    let packed = flate2::read::GzDecoder::new(fs::File::open(bundle).expect("it is there"));
    let mut out = Vec::new();
    for entry in tar::Archive::new(packed).entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").to_string_lossy().into_owned();
        let link = entry.link_name().expect("a name").map(|l| l.to_string_lossy().into_owned());
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("read");
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut inside = Vec::new();
            flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut inside).expect("whole");
            bytes = inside;
        }
        out.push((name, link.unwrap_or_default(), bytes));
    }
    out
}

fn collected(files: &[(&str, &[u8])]) -> (Vec<(String, String, Vec<u8>)>, Collected) {
    let dir = tempfile::tempdir().expect("a folder");
    let root = tree(dir.path(), files);
    for (folder, link, target) in
        [("etc/rc3.d", "S20cron", "../init.d/cron"), ("etc/rc.d/rc5.d", "K01x", "../init.d/x")]
    {
        fs::create_dir_all(root.join(folder)).expect("made");
        std::os::unix::fs::symlink(target, root.join(folder).join(link)).expect("linked");
    }
    let out = dir.path().join("n7.tar.gz");
    let done = collect(&root, None, &out).expect("collected");
    (members(&out), done)
}

#[test]
fn no_secret_leaves_a_host_in_a_packed_log() {
    let line = b"Mar  3 10:00:00 n7 app: password=hunter2 for a\nMar  3 10:00:01 n7 app: kept\n";
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(line.len() as u64);
    header.set_cksum();
    tar.append_data(&mut header.clone(), "old/app.log", &line[..]).expect("packed");
    tar.append_data(&mut header, "private/app", &line[..]).expect("packed");
    let tar = tar.into_inner().expect("packed");
    let mut wtmp = vec![0u8; 384];
    wtmp[..10].copy_from_slice(b"password=x");
    let (members, done) = collected(&[
        ("var/log/syslog", line),
        ("var/log/syslog.2.gz", &gz(line)),
        ("var/log/twice.gz.gz", &gz(&gz(line))),
        ("var/log/archive.tar.gz", &gz(&tar)),
        ("var/log/plain.tar", &tar),
        ("var/log/wtmp.1.gz", &gz(&wtmp)),
        ("var/log/journal/x/system.journal", b"LPKSHHRH password=hunter2"),
        ("var/log/btmp", b"hunter2"),
    ]);
    let shown = |name: &str| {
        let found = members.iter().find(|m| m.0 == name);
        found.map(|m| String::from_utf8_lossy(&m.2).into_owned())
    };
    let clean = "Mar  3 10:00:00 n7 app: password= <redacted>\nMar  3 10:00:01 n7 app: kept\n";
    for name in ["syslog", "syslog.2.gz", "twice.gz", "archive/old/app.log.gz", "plain/old/app.log.gz"] {
        assert_eq!(shown(&format!("n7/var/log/{name}")).as_deref(), Some(clean), "{name}");
    }
    assert!(members.iter().all(|m| !String::from_utf8_lossy(&m.2).contains("hunter2")));
    let records = members.iter().find(|m| m.0 == "n7/var/log/wtmp.1.gz").expect("taken");
    assert_eq!(records.2, wtmp, "a login record is no text");
    assert_eq!(
        done.left_out,
        [
            "var/log/archive.tar.gz, archive/private/app: may hold secrets",
            "var/log/btmp: may hold secrets",
            "var/log/journal/x/system.journal: a binary journal, whose secrets cannot be blanked; `journalctl --file FILE -o export` reads it",
            "var/log/plain.tar, plain/private/app: may hold secrets"
        ]
    );
}

#[test]
fn a_packed_log_that_is_cut_is_taken_up_to_its_cut_and_that_is_said() {
    let lines: String = (0..50_000u32)
        .map(|i| format!("Mar  3 10:00:00 n7 app: {}\n", i.wrapping_mul(2_654_435_761)))
        .collect();
    let packed = gz(lines.as_bytes());
    let (members, done) = collected(&[("var/log/syslog.1.gz", &packed[..packed.len() / 2])]);
    let taken = &members.iter().find(|m| m.0.ends_with("syslog.1.gz")).expect("taken").2;
    assert!(taken.len() > lines.len() / 4 && lines.as_bytes().starts_with(taken), "{}", taken.len());
    assert_eq!(done.left_out.len(), 1, "{:?}", done.left_out);
    assert!(done.left_out[0].starts_with("var/log/syslog.1.gz: "), "{:?}", done.left_out);
}

#[test]
fn the_links_of_every_runlevel_are_taken_as_links() {
    let (members, _) = collected(&[]);
    let links: Vec<(&str, &str)> =
        members.iter().filter(|m| !m.1.is_empty()).map(|m| (m.0.as_str(), m.1.as_str())).collect();
    assert_eq!(
        links,
        [("n7/etc/rc.d/rc5.d/K01x", "../init.d/x"), ("n7/etc/rc3.d/S20cron", "../init.d/cron")]
    );
}

#[test]
fn of_a_long_log_the_end_is_taken_from_the_start_of_a_line() {
    let first = format!("Mar  3 09:00:00 n7 app: password={}\n", "s3cret".repeat(20));
    let line = "Mar  3 10:00:00 n7 app: abcdefghijklmnopqrstuvwxyz 0123456789\n";
    // The cut falls into the value of the first line.
    let rest = (64usize << 20) - 40;
    let mut text = first.into_bytes();
    text.extend(line.bytes().cycle().take(rest - 1));
    text.push(b'\n');
    let (members, done) = collected(&[("var/log/syslog", &text)]);
    let taken = &members.iter().find(|m| m.0.ends_with("syslog")).expect("taken").2;
    assert!(taken.starts_with(b"Mar  3 10:00:00"), "{}", String::from_utf8_lossy(&taken[..60]));
    assert_eq!(taken.len(), rest);
    assert_eq!(
        done.left_out,
        [format!("var/log/syslog: only the last {} of {} bytes", 64 << 20, text.len())]
    );
}

#[test]
fn what_could_not_be_read_is_said_by_collect_and_by_whoever_reads_the_bundle() {
    let dir = tempfile::tempdir().expect("a folder");
    let root =
        tree(dir.path(), &[("var/log/syslog", b"Mar  3 10:00:00 n7 app: a\n"), ("var/log/kern.log", b"x\n")]);
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    mode(&root.join("var/log/kern.log"), 0o000);
    mode(dir.path(), 0o777);
    // The program lies where everybody may look, and runs without rights even where this test has them.
    let program = dir.path().join("holdfast-diagnose");
    fs::copy(env!("CARGO_BIN_EXE_holdfast-diagnose"), &program).expect("copied");
    let mut command = Command::new(&program);
    command.current_dir(dir.path()).args(["collect", "--root", "tree", "-o", "b.tar.gz"]);
    if fs::File::open(root.join("var/log/kern.log")).is_ok() {
        command.uid(NOBODY);
    }
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let refused = "var/log/kern.log: Permission denied (os error 13)";
    assert!(said.ends_with(&format!("not read: {refused}\n")), "{said} {output:?}");
    let report = analyse(&[dir.path().join("b.tar.gz")], &Options::default(), &Default::default());
    let remarks: Vec<String> = report
        .expect("readable")
        .notices
        .iter()
        .map(|n| format!("{} [{}] {}", n.path, n.kind, n.detail))
        .collect();
    assert_eq!(remarks, [format!("b/n7/COLLECT.txt [Unreadable] not in the bundle: {refused}")]);
}

fn live(args: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-diagnose"));
    command.args(args).env("TMPDIR", folder).env("PATH", folder.join("bin"));
    command.output().expect("it runs")
}

#[test]
fn a_look_at_this_host_takes_the_newest_of_the_journal_says_what_failed_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).expect("made");
    let entry = |second: u32, message: &str| {
        format!(
            "__CURSOR={second}\\n__REALTIME_TIMESTAMP=177253200{second}000000\\nMESSAGE={message}\\n_HOSTNAME=livehost\\nSYSLOG_IDENTIFIER=kernel\\n\\n"
        )
    };
    // As journalctl does with -r: the newest first; and far more than is taken.
    let journal = format!(
        "#!/bin/sh\nprintf '{}'\nwhile :; do printf '{}' || exit 1; done\n",
        entry(9, "Kernel panic - not syncing: live"),
        entry(1, &"old ".repeat(2000)),
    );
    for (name, script) in [
        ("journalctl", journal.as_str()),
        (
            "dmesg",
            "#!/bin/sh\necho 'dmesg: read kernel buffer failed: Operation not permitted' >&2\nexit 1\n",
        ),
    ] {
        fs::write(bin.join(name), script).expect("written");
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).expect("set");
    }
    let output = live(&["--live", "--json"], dir.path());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let facts = report["facts"].as_array().expect("a list");
    let panic = facts.iter().find(|f| f["title"] == "kernel panic: live").expect("the newest entry");
    assert_eq!(panic["evidence"][0]["text"], "livehost kernel: Kernel panic - not syncing: live");
    let remarks = report["notices"].to_string();
    for said in [
        "dmesg: exit status: 1: dmesg: read kernel buffer failed: Operation not permitted",
        "longer than 33554432 bytes; the rest was cut",
        "ip addr: No such file or directory",
    ] {
        assert!(remarks.contains(said), "{said}: {remarks}");
    }
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("things of this host could not be read or were left out")
    );

    // --live asks no node, so it takes no word about one.
    assert_eq!(live(&["--live", "--dir", "/nonexistent"], dir.path()).status.code(), Some(2));
    let left: Vec<PathBuf> =
        fs::read_dir(dir.path()).expect("listed").map(|e| e.expect("an entry").path()).collect();
    assert_eq!(left, [bin], "nothing is left behind");
}
