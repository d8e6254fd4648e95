//! Incidents in the words of the programs that print them, one small bundle each: what must be named first, and what must not.

use crate::common::report;
use holdfast_diagnose::model::Report;

fn first(report: &Report) -> Option<&str> {
    report.causes.first().map(|c| c.id.as_str())
}

fn rules(report: &Report) -> Vec<&str> {
    report.facts.iter().map(|f| f.rule.as_str()).collect()
}

/// Lines of `n1` from a syslog that has no year.
fn n1(lines: &[&str]) -> Report {
    report(&[("n1/var/log/syslog", stamped("n1", lines))])
}

fn stamped(host: &str, lines: &[&str]) -> String {
    lines.iter().map(|l| format!("Mar  3 {} {host} {}\n", &l[..8], &l[9..])).collect()
}

#[test]
fn what_one_host_prints_names_its_cause() {
    let cases: &[(&str, &[&str])] = &[
        (
            "kernel-crash",
            &[
                "09:00:01 kernel: [9000.1] BUG: unable to handle page fault for address: ffffb2c8c0a41000",
                "09:00:01 kernel: [9000.2] RIP: 0010:nfsd_splice_actor+0x5a/0x120 [nfsd]",
                "09:00:01 kernel: [9000.3] Kernel panic - not syncing: Fatal exception",
            ],
        ),
        (
            "disk-controller-failed",
            &[
                "09:00:01 kernel: [9000.1] megaraid_sas 0000:18:00.0: Found FW in FAULT state, will reset adapter scsi0.",
                "09:01:02 kernel: [9061.1] megaraid_sas 0000:18:00.0: Reset failed, killing adapter scsi0.",
                "09:01:03 kernel: [9062.1] XFS (sdb1): Log I/O Error Detected. Shutting down filesystem",
            ],
        ),
        (
            "nfs-server-silent",
            &[
                "10:00:01 kernel: [9000.1] nfs: server 10.0.0.9 not responding, still trying",
                "10:02:01 kernel: [9120.1] INFO: task kvm:2994 blocked for more than 120 seconds.",
            ],
        ),
        (
            "guest-process-crashed",
            &[
                "10:30:04 kernel: [9000.1] qemu-system-x86[2994]: segfault at 0 ip 00005581c7b1a6f2 sp 00007ffd1d1c7a60 error 4 in qemu-system-x86_64[5581c7000000+5f0000]",
            ],
        ),
        (
            "storage-path-lost",
            &[
                "10:00:01 multipathd[900]: mpatha: remaining active paths: 1",
                "10:00:02 multipathd[900]: mpatha: remaining active paths: 0",
                "10:00:32 kernel: [9032.1] blk_update_request: I/O error, dev dm-3, sector 2048 op 0x1:(WRITE)",
            ],
        ),
        (
            "link-flap",
            &[
                "08:03:14 kernel: [9000.1] mlx5_core 0000:81:00.0 ens1f0np0: Link down",
                "08:03:28 kernel: [9014.1]  connection1:0: ping timeout of 5 secs expired, recv timeout 5, last rx 1, last ping 2, now 3",
                "08:05:28 kernel: [9134.1]  session1: session recovery timed out after 120 secs",
            ],
        ),
        (
            "cluster-network-loss",
            &[
                "10:00:01 kernel: [9000.1] drbd r0 n2: PingAck did not arrive in time.",
                "10:00:01 kernel: [9000.2] drbd r0/0 drbd0: quorum( yes -> no )",
            ],
        ),
        (
            "resource-stop-failed",
            &[
                "10:00:01 pacemaker-controld[1403]:  error: Result of stop operation for fs_data on n2: Timed Out after 60s",
                "10:00:02 pacemaker-schedulerd[1402]:  warning: Cluster node n2 will be fenced: fs_data failed there",
                "10:00:22 pacemaker-controld[1403]:  notice: Peer n2 was terminated (reboot) by n1 on behalf of pacemaker-controld.1403@n1: OK",
            ],
        ),
        (
            "cluster-starved",
            &[
                "10:00:22 kernel: [9000.1] watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [kworker/3:1:99]",
                "10:00:24 corosync[900]:   [MAIN  ] Corosync main process was not scheduled (@1772532024123) for 23841.2 ms (threshold is 2400.0 ms).",
            ],
        ),
        (
            "corosync-crashed",
            &[
                "10:00:01 kernel: [9000.1] corosync[900]: segfault at 18 ip 000055d0c1b3a6f2 sp 00007ffd1d1c7a60 error 4 in corosync[55d0c1b1f000+3f000]",
                "10:00:01 pmxcfs[929]: [status] crit: cpg_send_message failed: CS_ERR_LIBRARY",
            ],
        ),
        (
            "pcie-error",
            &[
                "10:00:01 kernel: [9001.1] pcieport 0000:00:03.0: AER: Uncorrected (Fatal) error received: 0000:00:03.0",
            ],
        ),
        (
            "disk-failure",
            &[
                "09:00:01 smartd[600]: Device: /dev/sdb [SAT], Failed SMART usage Attribute: 5 Reallocated_Sector_Ct.",
            ],
        ),
    ];
    for (cause, lines) in cases {
        let report = n1(lines);
        assert_eq!(first(&report), Some(*cause), "{lines:?} {:?}", rules(&report));
    }
}

#[test]
fn a_fault_in_the_kernel_says_in_which_function() {
    let report = n1(&[
        "09:00:01 kernel: [9000.1] BUG: kernel NULL pointer dereference, address: 0000000000000018",
        "09:00:01 kernel: [9000.2] RIP: 0010:nfsd_splice_actor+0x5a/0x120 [nfsd]",
        "09:00:01 kernel: [9000.3] Kernel panic - not syncing: Fatal exception",
    ]);
    let place = report.facts.iter().find(|f| f.rule == "kernel.stood-in").expect("the function");
    assert_eq!(place.title, "the kernel stood in nfsd_splice_actor [nfsd]");
    assert!(report.causes[0].supports.contains(&place.id));
}

#[test]
fn damage_on_one_host_is_led_back_to_the_host_that_failed() {
    let flap = [
        "10:00:01 kernel: [81213.1] ixgbe 0000:01:00.0 eth1: NIC Link is Down",
        "10:00:05 kernel: [81217.1] ixgbe 0000:01:00.0 eth1: NIC Link is Up 10 Gbps",
    ];
    let monitor = "2026-03-03T10:00:21.123456+0000 mon.a (mon.0) 812 : cluster [INF] osd.5 failed (root=default,host=n3) (2 reporters from different host after 20.000345 >= grace 20.000000)\n";
    let report = report(&[
        ("n3/var/log/syslog", stamped("n3", &flap)),
        ("n2/var/log/ceph/ceph.log", monitor.to_owned()),
    ]);
    assert_eq!(first(&report), Some("link-flap"), "{:?}", rules(&report));

    let crashed = [
        "10:00:01 kernel: [81213.1] tgtd[2210]: segfault at 18 ip 000055d0c1b3a6f2 sp 00007ffd1d1c7a60 error 4 in tgtd[55d0c1b1f000+3f000]",
    ];
    let initiator = [
        "10:00:01 kernel: [71213.1]  connection1:0: detected conn error (1020)",
        "10:02:02 kernel: [71334.1] EXT4-fs (sdc1): Remounting filesystem read-only",
    ];
    let files = [("n1/syslog", stamped("n1", &crashed)), ("n2/syslog", stamped("n2", &initiator))];
    let seen = crate::common::report(&files);
    assert_eq!(first(&seen), Some("storage-daemon-death"), "{:?}", rules(&seen));
    // Without the target's log the initiator still says on whom to call.
    let seen = crate::common::report(&files[1..]);
    assert_eq!(first(&seen), Some("storage-target-stopped"), "{:?}", rules(&seen));
}

#[test]
fn a_switch_that_dies_hangs_what_waits_for_the_storage_behind_it() {
    let of = |h: &str| {
        stamped(
            h,
            &[
                "10:00:01 kernel: [81213.1] mlx5_core 0000:81:00.0 ens1f0np0: Link down",
                "10:00:21 ceph-osd[3000]: 2026-03-03T10:00:21.123+0000 7f0b4c7f8700 -1 osd.1 812 heartbeat_check: no reply from 10.0.0.2:6804 osd.5 since back",
                "10:02:40 kernel: [81372.1] INFO: task kvm:2994 blocked for more than 120 seconds.",
            ],
        )
    };
    let report = report(&[("pve1/var/log/syslog", of("pve1")), ("pve2/var/log/syslog", of("pve2"))]);
    assert_eq!(first(&report), Some("switch-failure"));
    let hung = |f: &&holdfast_diagnose::model::FactOut| f.rule == "kernel.hung-task";
    let hung: Vec<&String> = report.facts.iter().filter(hung).map(|f| &f.id).collect();
    assert_eq!(report.causes[0].explains.iter().collect::<Vec<_>>(), hung);
}

#[test]
fn a_dump_says_when_the_host_stopped_between_its_last_line_and_its_boot() {
    let log = "Mar  3 10:00:00 n1 app: [ 8700.000001] x\nMar  3 10:09:00 n1 kernel: Linux version 5.14.0-162.el9.x86_64\n";
    let report = report(&[
        ("n1/var/log/messages", log),
        (
            "n1/var/crash/127.0.0.1-2026-03-03-10:05:00/vmcore-dmesg.txt",
            "[  100.000001] Linux version 5.14.0-162.el9.x86_64\n[ 9000.000002] Kernel panic - not syncing: Fatal exception\n",
        ),
    ]);
    assert_eq!(first(&report), Some("kernel-crash"));
    let reset = report.facts.iter().find(|f| f.rule == "host.reset").expect("a reset");
    assert!(report.causes[0].explains.contains(&reset.id), "{:?}", report.contradictions);
}

#[test]
fn an_orderly_reboot_explains_what_its_peers_saw() {
    let rebooted = [
        "09:59:50 systemd-logind[700]: System is rebooting.",
        "09:59:59 systemd[1]: Reached target System Reboot.",
        "10:03:00 kernel: [    0.000000] Linux version 6.8.12-4-pve (build@proxmox)",
    ];
    let peer = [
        "09:59:57 corosync[1388]:   [TOTEM ] A new membership (2.30) was formed. Members left: 1",
        "09:59:57 corosync[1388]:   [KNET  ] link: host: 1 link: 0 is down",
    ];
    let report = report(&[("n1/syslog", stamped("n1", &rebooted)), ("n2/syslog", stamped("n2", &peer))]);
    assert_eq!(report.causes.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["admin-reboot"]);
    assert!(report.missing_evidence.is_empty(), "{:?}", report.missing_evidence);
}

#[test]
fn who_was_fenced_is_said_in_every_wording() {
    for line in [
        "pacemaker-controld[1403]:  notice: Peer n2 was terminated (reboot) by n1 on behalf of pacemaker-controld.1403@n1: OK",
        "pacemaker-fenced[1399]:  notice: Operation 'reboot' targeting n2 by n1 for pacemaker-controld.1403@n1: OK (complete)",
        "pacemaker-controld[1403]:  notice: Fence operation 4 for n2 passed",
        "fenced[11075]: fencing node \"n2\"",
    ] {
        let report = n1(&[&format!("10:00:24 {line}")]);
        let titles: Vec<&str> = report.facts.iter().map(|f| f.title.as_str()).collect();
        assert_eq!(titles, ["the cluster fences n2"], "{line}");
    }
}

#[test]
fn what_is_named_is_named_whole() {
    for (line, title) in [
        (
            "10:00:00 kernel: [9.1] IPv6: eth0: IPv6 duplicate address fe80::1 used by 52:54:00:12:34:56 detected!",
            "another machine uses address fe80::1",
        ),
        (
            "10:00:00 arpwatch: flip flop 10.0.0.2 52:54:00:12:34:56 (52:54:00:12:34:57) eth0",
            "another machine uses address 10.0.0.2",
        ),
        ("10:00:00 kernel: [9.1] I/O error, dev dm-3, sector 2048 op 0x0:(READ)", "I/O errors on dm-3"),
        (
            "10:00:00 ovs-vswitchd: ovs|00124|ofproto_dpif_xlate(handler12)|WARN|over max translation depth 64 on bridge br-int",
            "Open vSwitch drops packets in a loop (over max translation depth)",
        ),
    ] {
        let report = n1(&[line]);
        assert_eq!(report.facts.iter().map(|f| f.title.as_str()).collect::<Vec<_>>(), [title], "{line}");
    }
}

#[test]
fn what_only_looks_like_an_incident_names_no_cause() {
    for lines in [
        // A member that leaves in order takes no token with it.
        &[
            "10:00:08 corosync[1388]:   [TOTEM ] A new membership (1.2f) was formed. Members left: 2",
            "10:00:08 pacemaker-controld[1403]:  notice: Node n2 state is now lost",
            "10:00:08 corosync[1388]:   [KNET  ] link: host: 2 link: 0 is down",
        ][..],
        // A target that was silent for a moment, and nothing came of it.
        &["10:00:08 kernel: [9.1]  connection1:0: detected conn error (1011)"],
        // Somebody's program.
        &[
            "10:00:08 kernel: [9.1] python3[2210]: segfault at 18 ip 000055d0c1b3a6f2 sp 00007ffd1d1c7a60 error 4 in python3.11",
        ],
        // A second of a long poll.
        &["10:00:08 ovs-vswitchd: ovs|00123|timeval|WARN|Unreasonably long 1213ms poll interval"],
    ] {
        let report = n1(lines);
        assert_eq!(first(&report), None, "{lines:?}");
    }
}

#[test]
fn signs_of_trouble_are_not_called_no_sign_and_say_what_would_decide() {
    let report = n1(&["08:03:14 kernel: [9000.1] igb 0000:01:00.0 eth1: igb: eth1 NIC Link is Down"]);
    assert_eq!(report.summary.headline, "signs of trouble, but no failure that this evidence shows");
    assert!(
        report.missing_evidence.iter().any(|m| m.how.contains("ethtool")),
        "{:?}",
        report.missing_evidence
    );
    let quiet = n1(&["08:03:14 kernel: [9000.1] igb 0000:01:00.0 eth1: igb: eth1 NIC Link is Up 1000 Mbps"]);
    assert_eq!(quiet.summary.headline, "no sign of an incident in this evidence");
}

#[test]
fn a_new_kind_of_line_near_the_incident_surfaces_and_the_usual_ones_do_not() {
    let mut log = String::new();
    for minute in 0..60 {
        log.push_str(&format!(
            "Mar  3 09:{minute:02}:00 n1 systemd[1]: Started Session {minute} of user a.\n\
             Mar  3 09:{minute:02}:20 n1 backupd[7]: 12 files of pool tank kept\n"
        ));
        if minute >= 57 {
            log.push_str(&format!("Mar  3 09:{minute:02}:40 n1 frobd[9]: widget {minute} lost its flange\n"));
        }
    }
    log.push_str("Mar  3 10:00:00 n1 kernel: [9000.1] Kernel panic - not syncing: Fatal exception\n");
    let seen = report(&[("n1/var/log/syslog", log)]);
    let new: Vec<(&str, u64)> = seen.new_lines.iter().map(|n| (n.template.as_str(), n.count)).collect();
    let flange = new.iter().find(|(t, _)| t.contains("lost its flange")).expect("the new kind of line");
    assert_eq!(flange.1, 3, "{new:?}");
    assert!(!new.iter().any(|(t, _)| t.contains("Session") || t.contains("pool tank")), "{new:?}");
}

#[test]
fn a_storage_that_accepts_less_than_a_majority_is_a_fault_of_its_configuration() {
    let line = |need: u32, min: u32| {
        format!("Mar  3 10:00:00 n1 lichd: quorum not satisfied, need {need}, min {min}, got 0\n")
    };
    let called_out = |need, min| {
        let seen = report(&[("n1/var/log/syslog", line(need, min))]);
        assert!(seen.facts.iter().any(|f| f.rule == "lich.quorum"), "{:?}", seen.facts);
        seen.facts.iter().any(|f| f.rule == "config.quorum-below-majority")
    };
    assert!(called_out(2, 1) && called_out(3, 1));
    assert!(!called_out(2, 2) && !called_out(3, 2));
}
