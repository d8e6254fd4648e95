//! Files with the quirks that break log readers.

use super::*;

fn scan_text(path: &str, text: &[u8]) -> FileReport {
    let rules = RuleSet::builtin().unwrap();
    let mut body = text;
    scan(&rules, Source { path: path.into(), mtime: None, link: None, body: &mut body }, 1)
}

fn ids(report: &FileReport) -> Vec<(String, u64)> {
    let rules = RuleSet::builtin().unwrap();
    report.episodes.iter().map(|e| (rules.rules[e.rule].id.clone(), e.count)).collect()
}

#[test]
fn repeats_count_as_lines_of_the_rule_before_them() {
    let report = scan_text(
        "cvk1/var/log/syslog",
        b"Jan  7 18:14:27 cvk1 iscsid: connect to 127.0.0.1:3260 failed (Connection refused)\nJan  7 18:14:30  iscsid: last message repeated 3 times\n",
    );
    assert_eq!(ids(&report), [("iscsi.refused".to_owned(), 4)]);
    let episode = &report.episodes[0];
    assert_eq!((episode.last.at.micros() - episode.first.at.micros()) / MICROS, 3);
    assert_eq!(episode.first.place.line, 1);
    assert_eq!(episode.last.place.offset, 83);
}

#[test]
fn a_new_year_in_a_log_without_years_is_a_step_forward() {
    let report = scan_text(
        "h/var/log/syslog",
        b"Dec 31 23:59:59 h a: x\nJan  1 00:00:01 h a: y\nJan  1 00:10:01 h a: z\n",
    );
    let (first, last) = report.span.unwrap();
    assert_eq!((last.micros() - first.micros()) / MICROS, 602);
    assert_eq!(report.gaps.len(), 1);
}

#[test]
fn a_clock_step_shows_against_the_kernels_own_count() {
    let report = scan_text(
        "h/var/log/kern.log",
        b"Mar  3 10:00:00 h kernel: [  100.000000] a\nMar  3 11:00:01 h kernel: [  101.000000] b\nMar  3 11:00:02 h kernel: [  102.000000] c\n",
    );
    assert_eq!(report.steps.len(), 1);
    assert_eq!(report.steps[0].seconds.round() as i64, 3600);
}

#[test]
fn a_logger_that_starts_late_moves_no_clock() {
    // What the kernel said in 75 minutes, written at once; then lines as they come.
    let mut text = String::new();
    for (second, uptime) in
        [(0, 0), (0, 100), (0, 2000), (0, 2010), (1, 4537), (1, 4538), (40, 5040), (50, 5050)]
    {
        text += &format!("Mar  3 10:00:{second:02} h kernel: [{uptime}.000000] a\n");
    }
    let report = scan_text("h/var/log/kern.log", text.as_bytes());
    assert_eq!(report.steps.len(), 0);
    // 10:00:40 was 5040 seconds after the boot: nothing else is kept to date other lines by.
    let bases = report.uptimes.iter().map(|(at, up)| (at.micros() - up) / MICROS % 86_400);
    assert_eq!(bases.collect::<Vec<_>>(), [10 * 3600 + 40 - 5040]);
    // A kernel that goes on talking adds nothing to what is kept.
    for n in 1..=40 {
        text += &format!("Mar  3 10:01:{:02} h kernel: [{}.000000] a\n", 10 + n, 5070 + n);
    }
    assert_eq!(scan_text("h/var/log/kern.log", text.as_bytes()).uptimes.len(), 1);
    // After it a clock that is put back is still seen.
    text += "Mar  3 09:59:21 h kernel: [5111.000000] a\n";
    let report = scan_text("h/var/log/kern.log", text.as_bytes());
    assert_eq!(report.steps.iter().map(|s| s.seconds).collect::<Vec<_>>(), [-150.0]);
}

#[test]
fn the_line_before_a_boot_is_none_of_the_loggers_that_starts() {
    let report = scan_text(
        "combo/var/log/messages",
        b"Jul 27 10:59:53 combo ftpd[31985]: connection from 218.38.58.3\n\
          Jul 27 14:41:57 combo syslogd 1.4.1: restart.\n\
          Jul 27 14:41:57 combo syslog: syslogd startup succeeded\n\
          Jul 27 14:41:57 combo kernel: klogd 1.4.1, log source = /proc/kmsg started.\n\
          Jul 27 14:41:57 combo kernel: Linux version 2.6.5-1.358 (x@y) #1\n",
    );
    let before = report.episodes[0].before.as_ref().map(|l| (l.place.line, l.text.as_str()));
    assert_eq!(before, Some((1, "Jul 27 10:59:53 combo ftpd[31985]: connection from 218.38.58.3")));
}

#[test]
fn lines_that_start_alike_keep_their_host_and_time() {
    let report =
        scan_text("syslog", b"Mar  3 10:00:00 h a: x\nMar  3 10:00:00 h b: y\nMar  3 10:00:00 g b: y\n");
    assert_eq!(report.hosts, BTreeMap::from([("h".to_owned(), 2), ("g".to_owned(), 1)]));
    assert_eq!(report.lines, 3);
}

#[test]
fn bad_inputs_give_a_word_and_no_panic() {
    let binary: Vec<u8> = (0..9000u32).map(|i| (i * 37 % 251) as u8).collect();
    for (text, kind) in
        [(&binary[..], Some(NoticeKind::Binary)), (&[0u8; 9000][..], None), (b"", None), (b"one line", None)]
    {
        let report = scan_text("x.log", text);
        assert_eq!(report.notices.first().map(|n| n.0), kind);
    }
    assert_eq!(scan_text("etc/crontab", &[0u8; 512]).nul.total, 512);
}

#[test]
fn a_random_init_script_is_found_by_what_it_holds_and_never_by_its_name() {
    let of = |name: &str, chkconfig: &str, described: &str, run: &str, end: &str| {
        let lines =
            ["#!/bin/sh", chkconfig, &format!("# description: {described}"), "### BEGIN INIT INFO", run];
        scan_text(&format!("h/{name}"), lines.join(end).as_bytes())
    };
    let (theirs, binary) = ("# chkconfig: 12345 90 90", "\t/usr/bin/qwhzxkvbnm");
    for (name, end) in [
        ("etc/init.d/qwhzxkvbnm", "\n"),
        ("etc/rc.d/init.d/qwhzxkvbnm", "\n\n"),
        ("logdir/etc/init.d/qwhzxkvbnm", "\r\n"),
    ] {
        let report = of(name, theirs, "qwhzxkvbnm", binary, end);
        assert_eq!(ids(&report), [("malware.init-script".to_owned(), 1)], "{name}");
        let (first, last) = (&report.episodes[0].first, &report.episodes[0].last);
        assert_eq!((first.text.as_str(), last.text.as_str()), (theirs, " /usr/bin/qwhzxkvbnm"));
        assert_eq!((first.place.line, last.place.line), if end == "\n\n" { (3, 9) } else { (2, 5) });
    }
    for (name, chkconfig, described, run) in [
        ("etc/init.d/qwhzxkvbnm", "# chkconfig: 2345 64 36", "qwhzxkvbnm", binary),
        ("etc/init.d/qwhzxkvbnm", theirs, "the queue of work", binary),
        ("etc/init.d/qwhzxkvbnm", theirs, "qwhzxkvbnm", "\tdaemon /usr/bin/qwhzxkvbnm"),
        ("etc/init.d/qwhzxkvbnm", theirs, "postgresql", "\t/usr/bin/postgresql"),
        ("etc/init.d/postgres-x", theirs, "qwhzxkvbnm", binary),
        ("etc/default/qwhzxkvbnm", theirs, "qwhzxkvbnm", binary),
    ] {
        assert_eq!(
            ids(&of(name, chkconfig, described, run, "\n")),
            [],
            "{name} {chkconfig} {described} {run}"
        );
    }
    assert_eq!(ids(&scan_text("h/etc/init.d/qwhzxkvbnm", b"")), []);
}

#[test]
fn a_journal_export_is_read_entry_by_entry() {
    let report = scan_text(
        "h/journal.export",
        b"__CURSOR=s\n__REALTIME_TIMESTAMP=1452161591000000\n_HOSTNAME=n1\nSYSLOG_IDENTIFIER=chronyd\nMESSAGE=System clock was stepped by 60.0 seconds\n\n",
    );
    assert_eq!(ids(&report), [("clock.step".to_owned(), 1)]);
    assert_eq!(report.episodes[0].first.at, At::Utc(1_452_161_591_000_000));
    assert_eq!(report.episodes[0].host, "n1");
}

/// A line of four gibibytes, made as it is read, and then an ordinary one.
struct EndlessLine {
    left: u64,
    tail: &'static [u8],
}

impl std::io::Read for EndlessLine {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.left > 0 {
            let n = out.len().min(self.left as usize);
            out[..n].fill(b'x');
            self.left -= n as u64;
            return Ok(n);
        }
        let n = out.len().min(self.tail.len());
        out[..n].copy_from_slice(&self.tail[..n]);
        self.tail = &self.tail[n..];
        Ok(n)
    }
}

#[test]
fn a_line_of_four_gigabytes_is_cut_and_the_line_after_it_is_read() {
    let rules = RuleSet::builtin().unwrap();
    let mut body = EndlessLine {
        left: 4 << 30,
        tail: b"\nMar  3 10:00:00 h kernel: [8.000001] Kernel panic - not syncing: x\n",
    };
    let report =
        scan(&rules, Source { path: "h/syslog".into(), mtime: None, link: None, body: &mut body }, 2);
    assert_eq!(ids(&report), [("kernel.panic".to_owned(), 1)]);
    assert_eq!(
        (report.episodes[0].first.place.line, report.episodes[0].first.place.offset),
        (2, (4 << 30) + 1)
    );
    assert_eq!(report.notices.iter().map(|n| n.0).collect::<Vec<_>>(), [NoticeKind::LongLine]);
}

#[test]
fn a_long_file_gives_the_same_on_one_core_and_on_several() {
    let rules = RuleSet::builtin().unwrap();
    let mut text = Vec::new();
    for i in 0..120_000u32 {
        let (m, s) = (i / 60 % 60, i % 60);
        let body = match i % 977 {
            0 => "kernel: [8.000001] nvme nvme0: controller is down; will reset: CSTS=0xffffffff".to_owned(),
            1 => "iscsid: connect to 127.0.0.1:3260 failed (Connection refused)".to_owned(),
            2 => "last message repeated 3 times".to_owned(),
            // One literal to the line and many of them in each block: one that gets lost is missed in the count.
            n if n % 5 == 3 => "kernel: INFO: task jbd2:7 blocked for more than 120 seconds.".to_owned(),
            n => format!("app[{i}]: request {n} took {} ms", i.wrapping_mul(2_654_435_761) % 1000),
        };
        text.extend_from_slice(format!("Mar  3 {:02}:{m:02}:{s:02} h {body}\n", 10 + i / 36_000).as_bytes());
    }
    let run = |threads| {
        let mut body = &text[..];
        let source = Source { path: "h/syslog".into(), mtime: None, link: None, body: &mut body };
        let mut report = scan(&rules, source, threads);
        let mut shapes: Vec<_> =
            std::mem::take(&mut report.shapes).into_iter().map(|(k, s)| (k, s.count, s.first.text)).collect();
        shapes.sort();
        format!("{report:?} {shapes:?}")
    };
    let one = run(1);
    assert!(one.len() > 10_000);
    assert_eq!(one, run(2));
    assert_eq!(one, run(9));
}

/// A long log with what makes a walk hard: bursts and lone lines, a rotation's new year, kernel seconds with a reboot, repeats,
/// runs of NULs inside and between lines, CRLF, GBK, a line over two blocks and one longer than a block, and hosts that alternate.
fn long_log() -> Vec<u8> {
    let mut text = Vec::new();
    let mut seed = 7u64;
    let mut below = |n: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % n
    };
    let (mut at, mut line) = (0u64, 0u64);
    while text.len() < 6 << 20 {
        let (day, month) = (1 + at / 86_400 % 28, ["Nov", "Dec", "Jan"][(at / 86_400 / 28 % 3) as usize]);
        let host = if below(400) == 0 { "n2" } else { "n1" };
        let mut head =
            format!("{month} {day:2} {:02}:{:02}:{:02} {host} ", at / 3600 % 24, at / 60 % 60, at % 60);
        let kind = below(3000);
        let body: Vec<u8> = match kind {
            0 => b"iscsid: connect to 127.0.0.1:3260 failed (Connection refused)".to_vec(),
            1 => b"last message repeated 3 times".to_vec(),
            2 => {
                text.extend_from_slice(&[0; 300]);
                b"kernel: [    0.000000] Linux version 5.10.0 (x@y) #1".to_vec()
            }
            3 => [&b"sshd[9]: torn"[..], &[0; 70], b" away\r"].concat(),
            4 => b"cups[4]: \xd6\xd0\xce\xc4\xb4\xed\xce\xf3".to_vec(),
            5 => {
                head.clear();
                b"    a continuation without a stamp".to_vec()
            }
            6 => vec![b'x'; 9000],
            7 => b"IPv4: duplicate address 10.0.0.2".to_vec(),
            8..=30 => format!(
                "kernel: [{:5}.000001] device vnet{} entered promiscuous mode",
                at % 70_000,
                line % 40
            )
            .into_bytes(),
            31..=500 => b"CRON[77]: (root) CMD (true)\r".to_vec(),
            _ => format!("snmpd[650]: Connection from UDP: [10.0.9.5]:{}", below(60_000)).into_bytes(),
        };
        text.extend_from_slice(head.as_bytes());
        text.extend_from_slice(&body);
        text.push(b'\n');
        if line == 20_000 {
            text.extend(vec![b'y'; 700_000]);
            text.push(b'\n');
        }
        line += 1;
        // Bursts, and now and then a step of hours or back.
        at = match below(40) {
            0..=3 => at + below(30),
            4 if below(200) == 0 => at + 40_000,
            5 if below(400) == 0 => at.saturating_sub(500),
            _ => at,
        };
    }
    text
}

#[test]
fn what_is_searched_on_other_cores_changes_no_byte_of_what_is_found() {
    let text = long_log();
    let rules = RuleSet::builtin().unwrap();
    // The order in which a hash map lists its shapes is none of the result.
    let of = |threads| {
        let mut body = &text[..];
        let source = Source { path: "n1/var/log/syslog".into(), mtime: Some(1), link: None, body: &mut body };
        let mut report = scan(&rules, source, threads);
        let shapes: BTreeMap<u64, Shape> = std::mem::take(&mut report.shapes).into_iter().collect();
        format!("{report:#?}\n{shapes:#?}")
    };
    let one = of(1);
    for what in ["Connection refused", "duplicate address", "were longer than 256 KiB", "len: 300"] {
        assert!(one.contains(what), "{what}");
    }
    for threads in [2, 3, 5] {
        let several = of(threads);
        let differs = one.lines().zip(several.lines()).find(|(a, b)| a != b);
        assert_eq!(differs, None, "with {threads} threads");
        assert!(one == several, "with {threads} threads");
    }
}
