//! What a crash leaves beside the logs: a dump's messages, login records, and the report that a distribution's tool makes.

use crate::common::{put, read};

const DMESG: &str = "[    0.000000] Linux version 3.13.0-24-generic (x@y) #1\n\
                     [90000.000000] sd 2:0:0:0: rejecting I/O to offline device\n\
                     [90011.500000] Kernel panic - not syncing: ocfs2 fencing\n";

#[test]
fn the_messages_of_a_dump_are_dated_by_its_folder_and_their_own_count() {
    // The names of Debian's kdump-tools and of kexec-tools.
    for folder in ["201601071820", "127.0.0.1-2016-01-07-18:20:11"] {
        let dir = tempfile::tempdir().expect("a folder");
        put(dir.path(), &format!("n1/var/crash/{folder}/vmcore-dmesg.txt"), DMESG.as_bytes());
        put(dir.path(), "n1/etc/hostname", b"n1\n");
        put(dir.path(), "n1/etc/timezone", b"Asia/Shanghai\n");
        let report = read(dir.path());
        let panic = report.facts.iter().find(|f| f.rule == "kernel.panic").expect("the panic");
        let seconds = if folder.len() == 12 { "00" } else { "11" };
        assert_eq!(
            (panic.host.as_str(), panic.start.as_deref()),
            ("n1", Some(&*format!("2016-01-07T18:20:{seconds}+08:00")))
        );
        let boot = report.facts.iter().find(|f| f.rule == "boot.start").expect("the boot");
        assert_eq!(panic.start_micros.zip(boot.start_micros).map(|(p, b)| p - b), Some(90_011_500_000));
    }
}

#[test]
fn a_folder_that_only_looks_like_a_time_dates_nothing() {
    for folder in ["201613071820", "127.0.0.1-2016-01-07-99:20:11", "20160107", "notes"] {
        let dir = tempfile::tempdir().expect("a folder");
        put(dir.path(), &format!("n1/var/crash/{folder}/vmcore-dmesg.txt"), DMESG.as_bytes());
        let report = read(dir.path());
        let panic = report.facts.iter().find(|f| f.rule == "kernel.panic").expect("the panic");
        assert_eq!(panic.start, None, "{folder}");
    }
}

/// A login record of glibc's layout.
fn record(kind: u8, user: &str, seconds: i32) -> Vec<u8> {
    let mut raw = vec![0u8; 384];
    raw[0] = kind;
    raw[44..44 + user.len()].copy_from_slice(user.as_bytes());
    raw[340..344].copy_from_slice(&seconds.to_le_bytes());
    raw
}

const T: i32 = 1_452_161_591;

#[test]
fn boots_without_any_log_are_known_from_login_records() {
    let boot = |s| record(2, "reboot", T + s);
    let down = |s| record(1, "shutdown", T + s);
    let login = |s| record(7, "admin", T + s);
    let dir = tempfile::tempdir().expect("a folder");
    let wtmp = [boot(0), login(60), down(5000), boot(5100), login(5200), boot(9000), login(9100)].concat();
    put(dir.path(), "n1/var/log/wtmp", &wtmp[..wtmp.len() - 10]);
    put(dir.path(), "n1/etc/hostname", b"n1\n");
    let report = read(dir.path());
    let boots: Vec<(&str, Option<bool>)> =
        report.hosts[0].boots.iter().map(|b| (b.at.as_str(), b.clean)).collect();
    // Before the first one the records may not go back; after a shutdown; and without one.
    assert_eq!(
        boots,
        [
            ("2016-01-07T10:13:11+00:00", None),
            ("2016-01-07T11:38:11+00:00", Some(true)),
            ("2016-01-07T12:43:11+00:00", Some(false))
        ]
    );
    let reset = report.facts.iter().find(|f| f.rule == "host.reset").expect("the last one");
    assert_eq!(reset.title, "the host booted, and no orderly shutdown stands before that");
    assert_eq!(reset.evidence[0].text, "wtmp: system boot");
}

#[test]
fn a_log_and_the_login_records_tell_of_one_boot() {
    let dir = tempfile::tempdir().expect("a folder");
    let wtmp =
        [record(2, "reboot", T - 86_400), record(1, "shutdown", T - 60), record(2, "reboot", T)].concat();
    put(dir.path(), "n1/var/log/wtmp", &wtmp);
    // The log has lost the words of the shutdown; the records have them.
    put(
        dir.path(),
        "n1/var/log/syslog",
        b"2016-01-07T10:12:00+00:00 n1 app: a\n\
          2016-01-07T10:13:20+00:00 n1 kernel: [    0.000000] Linux version 3.13.0 (x@y) #1\n\
          2016-01-07T10:13:25+00:00 n1 app: b\n",
    );
    let report = read(dir.path());
    let boots: Vec<Option<bool>> = report.hosts[0].boots.iter().map(|b| b.clean).collect();
    assert_eq!(boots, [None, Some(true)]);
    assert!(report.facts.iter().all(|f| f.rule != "host.reset"));
}

#[test]
fn a_sosreport_is_one_host_with_its_logs_its_answers_and_its_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let base = "sosreport-db-01-2024-02-03-abcdefg";
    let files: [(&str, &str); 5] = [
        ("etc/hostname", "db-01\n"),
        (
            "var/log/messages",
            "Feb  3 10:00:00 db-01 kernel: [71.000001] XFS (dm-3): Corruption detected. Unmount and run xfs_repair\n",
        ),
        (
            "sos_commands/logs/journalctl_--no-pager_--boot",
            "-- Logs begin at Sat 2024-02-03 09:58:49 UTC, end at Sat 2024-02-03 10:20:00 UTC. --\nFeb 03 10:00:05 db-01 systemd[1]: mariadb.service: Main process exited, code=killed, status=9/KILL\n",
        ),
        (
            "sos_commands/kernel/dmesg",
            "[   71.000001] XFS (dm-3): Corruption detected. Unmount and run xfs_repair\n[   79.000001] softdog: Unexpected close, not stopping watchdog!\n",
        ),
        (
            "sos_commands/networking/ip_-d_address",
            "2: ens1: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc mq state UP\n",
        ),
    ];
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mtime(1_706_956_800);
        header.set_cksum();
        tar.append_data(&mut header, format!("{base}/{name}"), text.as_bytes()).expect("packed");
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, format!("{base}/dmesg"), "sos_commands/kernel/dmesg").expect("packed");
    let packed = tar.into_inner().and_then(|gz| gz.finish()).expect("packed");
    std::fs::write(dir.path().join(format!("{base}.tar.gz")), packed).expect("written");
    let report = read(dir.path());
    let names: Vec<&str> = report.hosts.iter().map(|h| h.name.as_str()).collect();
    assert_eq!(names, ["db-01"]);
    let found: Vec<(&str, u64, Option<&str>)> =
        report.facts.iter().map(|f| (f.rule.as_str(), f.count, f.start.as_deref())).collect();
    // What messages and dmesg both have is one fact; the kernel's count is tied to the time by the line that has both.
    assert_eq!(
        found,
        [
            ("fs.corrupt", 1, Some("2024-02-03T10:00:00+00:00")),
            ("service.killed", 1, Some("2024-02-03T10:00:05+00:00")),
            ("watchdog.left-armed", 1, Some("2024-02-03T10:00:08+00:00")),
        ]
    );
}
