//! Bad input: what is said of each, and where a silence begins to count.

use crate::common::{read, syslog};
use holdfast_diagnose::model::Report;

fn remarks(report: &Report) -> Vec<String> {
    report.notices.iter().map(|n| format!("{} [{}] {}", n.path, n.kind, n.detail)).collect()
}

#[test]
fn nothing_but_nuls_is_a_file_whose_data_never_reached_the_disk() {
    let report = syslog([0; 8192]);
    assert_eq!(report.facts.len(), 1);
    assert_eq!(
        report.facts[0].title,
        "8192 NUL bytes at offset 0 (on a 4 KiB edge) in syslog: the whole file is zero: its size reached the disk, its data never did (written without fsync before a reset)"
    );
}

#[test]
fn a_clock_that_goes_back_is_said_with_the_line() {
    let lines =
        b"Mar  3 10:00:00 h a: x\nMar  3 09:00:00 h a: y\nMar  3 09:00:30 h a: y\nMar  2 10:00:00 h a: z\n";
    let said = "syslog [TimeGoesBack] the time goes back by a minute or more 2 times, first at line 2";
    assert_eq!(remarks(&syslog(lines)), [said]);
    // A relay's file has lines of many hosts, each with its own delay; a second back is nothing.
    for lines in [
        &b"Mar  3 10:00:00 h a: x\nMar  3 09:00:00 g a: y\n"[..],
        b"Mar  3 10:00:01 h a: x\nMar  3 10:00:00 h a: y\n",
        b"Dec 31 23:59:59 h a: x\nJan  1 00:00:01 h a: y\n",
    ] {
        assert_eq!(remarks(&syslog(lines)), Vec::<String>::new());
    }
}

#[test]
fn dates_that_are_none_date_nothing_and_hide_no_other_line() {
    let text = "Feb 30 99:99:99 h a: x\n9999-99-99 10:00:00 x\nMar  3 10:00:00 h kernel: [8.1] Kernel panic - not syncing: x\n";
    let report = syslog(text.as_bytes());
    assert_eq!(
        report.facts.iter().map(|f| (f.rule.as_str(), f.evidence[0].line)).collect::<Vec<_>>(),
        [("kernel.panic", 3)]
    );
    assert!(report.facts[0].start.as_deref().is_some_and(|s| s.contains("-03-03T10:00:00")));
}

#[test]
fn lines_of_windows_read_as_their_twins() {
    let text = "Mar  3 10:00:00 h kernel: [8.1] Kernel panic - not syncing: x\nMar  3 10:00:01 h app: No space left on device\n";
    let facts = |text: &str| -> Vec<(String, String)> {
        syslog(text.as_bytes()).facts.into_iter().map(|f| (f.title, f.evidence[0].text.clone())).collect()
    };
    assert_eq!(facts(&text.replace('\n', "\r\n")), facts(text));
    assert_eq!(facts(text).len(), 2);
}

#[test]
fn links_among_the_logs_are_named_with_where_they_lead() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = dir.path().join("h/var/log");
    std::fs::create_dir_all(&log).expect("made");
    for (link, target) in
        [("again", "../.."), ("a.log", "b.log"), ("b.log", "a.log"), ("out.log", "/etc/passwd")]
    {
        std::os::unix::fs::symlink(target, log.join(link)).expect("linked");
    }
    std::fs::write(log.join("syslog"), "Mar  3 10:00:00 h a: x\n").expect("written");
    assert_eq!(
        remarks(&read(dir.path())),
        [
            "h/var/log/a.log [Link] a link to b.log; not followed",
            "h/var/log/again [Link] a link to ../..; not followed",
            "h/var/log/b.log [Link] a link to a.log; not followed",
            "h/var/log/out.log [Link] a link to /etc/passwd; not followed",
        ]
    );
}

/// A log with a line each `every` seconds and one silence.
fn silent(every: u64, silence: u64) -> Vec<String> {
    let mut text = String::new();
    let mut at = 8 * 3600;
    for n in 0..600 {
        at += if n == 300 { silence } else { every };
        text += &format!("Mar  3 {:02}:{:02}:{:02} h app: a\n", at / 3600, at / 60 % 60, at % 60);
    }
    let report = syslog(text.as_bytes());
    report.facts.into_iter().filter(|f| f.rule == "host.silent").map(|f| f.title).collect()
}

#[test]
fn a_silence_counts_from_ninety_seconds_on_where_lines_are_dense_enough() {
    // 20 times the mean gap: 90 s are silence in a log with a line each 4 s, 95 s are none with a line each 5 s.
    assert_eq!(silent(4, 89), Vec::<String>::new());
    assert_eq!(
        silent(4, 90),
        ["no line for 90 s without a boot: the host hung, or its log could not be written"]
    );
    assert_eq!(silent(5, 95), Vec::<String>::new());
    assert_eq!(silent(5, 110).len(), 1);
    // A line a minute: a quarter of an hour is usual there.
    assert_eq!(silent(60, 900), Vec::<String>::new());
}

#[test]
fn what_only_resembles_a_fact_is_none() {
    let lines = [
        "systemd[1]: app.service: Main process exited, code=killed, status=15/TERM",
        "systemd[1]: app.service: Main process exited, code=exited, status=1/FAILURE",
        "kernel: [8.000001] XFS (dm-3): Mounting V5 Filesystem",
        "kernel: [8.000001] softdog: initialized. soft_noboot=0 soft_margin=60 sec",
        "kernel: [8.000001] o2net: No longer connected to node b (num 1) at 10.0.0.2:7777",
        "kernel: [8.000001] mce: CPU0: Thermal monitoring enabled (TM1)",
    ];
    let text: String = lines.iter().map(|l| format!("Mar  3 10:00:00 h {l}\n")).collect();
    assert_eq!(syslog(text.as_bytes()).facts.len(), 0);
    // An uncorrected one is the processor's fault, and no second fact beside it.
    let mce = "Mar  3 10:00:00 h kernel: [8.000001] mce: [Hardware Error]: CPU 1: Machine Check Exception: 4 Bank 0: f600000000010015\n";
    let facts = syslog(mce.as_bytes()).facts;
    assert_eq!(facts.iter().map(|f| f.rule.as_str()).collect::<Vec<_>>(), ["kernel.mce"]);
    // The storage's own processes have a rule of their own.
    let storage =
        "Mar  3 10:00:00 h systemd[1]: lichd.service: Main process exited, code=killed, status=9/KILL\n";
    let facts = syslog(storage.as_bytes()).facts;
    assert_eq!(facts.iter().map(|f| f.rule.as_str()).collect::<Vec<_>>(), ["storage.daemon-exit"]);
}
