//! The stories. Wordings follow the programs' sources: Linux (ocfs2, iscsi, nvme, oom, bonding, openvswitch), open-iscsi,
//! corosync and kronosnet, pacemaker, DRBD, Proxmox, Ceph, chrony, systemd, cron, libvirt; lich as quoted in incident notes.

use super::{Story, World, across, heldback};

/// All stories.
pub const STORIES: [Story; 28] = [
    Story {
        name: "incident",
        cause: Some("malware-xorddos"),
        about: "malware raises an internal interface; the storage network floods; every host fences itself",
        tell: |w| incident(w, true),
    },
    Story {
        name: "incident-clean",
        cause: Some("interface-raised"),
        about: "the same without malware: nobody knows who raised the interface",
        tell: |w| incident(w, false),
    },
    Story {
        name: "disk-timeout",
        cause: Some("storage-path-lost"),
        about: "the array stops answering; OCFS2 hosts reset",
        tell: disk_timeout,
    },
    Story {
        name: "split-brain",
        cause: Some("network-partition-no-fencing"),
        about: "two sides promote DRBD; no fencing",
        tell: split_brain,
    },
    Story {
        name: "switch-dies",
        cause: Some("switch-failure"),
        about: "one switch takes the cluster links of all hosts",
        tell: switch_dies,
    },
    Story {
        name: "clock-step",
        cause: Some("clock-step"),
        about: "a clock is stepped by an hour",
        tell: clock_step,
    },
    Story {
        name: "nvme-death",
        cause: Some("nvme-off-bus"),
        about: "an NVMe controller dies",
        tell: nvme_death,
    },
    Story {
        name: "oom-storage",
        cause: Some("oom-storage-daemon"),
        about: "the kernel kills the storage daemon",
        tell: oom_storage,
    },
    Story {
        name: "ceph-flap",
        cause: Some("link-flap"),
        about: "one link flaps; OSDs go down and up",
        tell: ceph_flap,
    },
    Story {
        name: "mtu-mismatch",
        cause: Some("mtu-mismatch"),
        about: "maintenance leaves one host with a small MTU",
        tell: mtu_mismatch,
    },
    Story {
        name: "cert-expiry",
        cause: Some("certificate-expired"),
        about: "the migration certificate ends",
        tell: cert_expiry,
    },
    Story {
        name: "backup-starves",
        cause: Some("backup-starves-heartbeat"),
        about: "a backup starves corosync until the watchdog fires",
        tell: backup_starves,
    },
    Story {
        name: "crontab-torn",
        cause: Some("power-loss"),
        about: "power fails while the crontab is rewritten",
        tell: crontab_torn,
    },
    Story {
        name: "log-disk-full",
        cause: Some("disk-full"),
        about: "the log disk fills and guests stop",
        tell: log_disk_full,
    },
    Story {
        name: "admin-reboot",
        cause: Some("admin-reboot"),
        about: "an administrator reboots one host",
        tell: admin_reboot,
    },
    Story { name: "healthy", cause: None, about: "nothing happens", tell: |_| {} },
    Story {
        name: "insufficient",
        cause: None,
        about: "one host stops and nothing says why",
        tell: insufficient,
    },
    Story {
        name: "duplicate-address",
        cause: Some("duplicate-address"),
        about: "a new machine takes a storage address",
        tell: duplicate_address,
    },
    Story {
        name: "memory-dies",
        cause: Some("hardware-error"),
        about: "a memory module fails for hours, then stops its host",
        tell: heldback::memory_dies,
    },
    Story {
        name: "fabric-lost",
        cause: Some("storage-path-lost"),
        about: "the FC fabric goes; leases end and watchdogs reset every host",
        tell: heldback::fabric_lost,
    },
    Story {
        name: "thin-pool-full",
        cause: Some("disk-full"),
        about: "a thin pool has no space left; file systems on it go read-only",
        tell: heldback::thin_pool_full,
    },
    Story {
        name: "fencing-stuck",
        cause: Some("fencing-failed"),
        about: "a host dies and its fence device does not answer",
        tell: heldback::fencing_stuck,
    },
    Story {
        name: "raid-dies",
        cause: Some("disk-failure"),
        about: "one half of a RAID 1 is thrown out; hours later the other cannot be read",
        tell: heldback::raid_dies,
    },
    Story {
        name: "card-hangs",
        cause: Some("nic-hang"),
        about: "a network card hangs with its link up; the peers fence its host",
        tell: heldback::card_hangs,
    },
    Story {
        name: "ha-link-lost",
        cause: Some("link-flap"),
        about: "the cluster link of a Proxmox host goes down; its watchdog ends it",
        tell: heldback::ha_link_lost,
    },
    Story {
        name: "target-crashes",
        cause: Some("storage-daemon-death"),
        about: "an iSCSI target crashes until its supervisor gives up",
        tell: heldback::target_crashes,
    },
    Story {
        name: "nfs-server-panics",
        cause: Some("kernel-crash"),
        about: "the kernel of an NFS server panics; the clients on other hosts hang",
        tell: across::nfs_server_panics,
    },
    Story {
        name: "controller-faults",
        cause: Some("disk-controller-failed"),
        about: "the RAID controller behind an iSCSI target fails; the file systems of other hosts stop",
        tell: across::controller_faults,
    },
];

fn incident(w: &mut World, malware: bool) {
    let all = w.hosts.len();
    let crontab = "# /etc/crontab: system-wide crontab\nSHELL=/bin/sh\nPATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin\n\n17 *\t* * *\troot    cd / && run-parts --report /etc/cron.hourly\n25 6\t* * *\troot\ttest -x /usr/sbin/anacron\n*/10 * * * * root /opt/fusionstack/lich/sbin/lich.node --recover\n";
    let source = w.below(all as u64) as usize;
    for h in 0..all {
        let mut tab = crontab.as_bytes().to_vec();
        if malware {
            tab.extend_from_slice(b"*/3 * * * * root /etc/cron.hourly/cron.sh\n");
            w.fact("malware.cron-line", h);
            let script = "#!/bin/sh\nPATH=/bin:/sbin:/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin:/usr/X11R6/bin\nfor i in `cat /proc/net/dev|grep :|awk -F: {'print $1'}`; do ifconfig $i up& done\ncp /lib/libudev.so /lib/libudev.so.6\n/lib/libudev.so.6\n";
            w.file(h, "etc/cron.hourly/cron.sh", script.as_bytes());
            w.fact("malware.raise-all", h);
            w.fact("malware.library", h);
            let mut at = -1200;
            while at < 0 {
                w.log(h, at, "CRON[2201]: (root) CMD (/etc/cron.hourly/cron.sh)", "malware.cron-run");
                at += 180;
            }
        }
        if h == source {
            tab.extend_from_slice(&[0; 64]);
            tab.push(b'\n');
            w.fact("config.nul-run", h);
            w.fact("config.crontab-broken", h);
        }
        w.file(h, "etc/crontab", &tab);
    }
    w.kernel(source, 2, "IPv6: ADDRCONF(NETDEV_UP): ovs-system: link is not ready", "");
    w.kernel(
        source,
        3,
        "IPv6: ADDRCONF(NETDEV_CHANGE): ovs-system: link becomes ready",
        "net.internal-raised",
    );
    w.kernel(
        source,
        20,
        "openvswitch: ovs-system: deferred action limit reached, drop recirc action",
        "net.ovs-loop",
    );
    for h in 0..all {
        for p in w.peers(h) {
            let peer = w.hosts[p].clone();
            w.daemon(h, 40 + h as i64, "lich", &format!("/sysy/yfs/lich/net/heartbeat.c:212 __hb_check [2994] [17] WARNING: heartbeat timeout to {peer}"), "lich.hb-loss");
        }
        w.daemon(
            h,
            55,
            "lich",
            "/sysy/yfs/lich/cluster/quorum.c:310 quorum_check [2994] [7] ERROR: need 3, min 2, got 1",
            "lich.quorum",
        );
        w.daemon(
            h,
            62,
            "lich",
            "/sysy/yfs/lich/main.c:500 main [7002] [1] INFO: lichd starting",
            "storage.daemon-start",
        );
        w.kernel(h, 57, " connection1:0: detected conn error (1020)", "iscsi.conn-closed");
        for s in (58..100).step_by(3) {
            w.log(h, s, "iscsid: connect to 127.0.0.1:3260 failed (Connection refused)", "iscsi.refused");
        }
        w.fact("config.single-local-portal", h);
        w.kernel(h, 117, "(kworker/1:2,771,1):o2hb_write_timeout:166 ERROR: Heartbeat write timeout to device sdb after 60000 milliseconds", "ocfs2.disk-timeout");
        w.kernel(
            h,
            117,
            "*** ocfs2 is very sorry to be fencing this system by restarting ***",
            "ocfs2.fence-reset",
        );
        w.reset(h, 121 + (h % 3) as i64, 180);
        if h == source {
            w.log(h, 420, "cron[1500]: Error: bad minute; while reading /etc/crontab", "cron.bad-entry");
        }
    }
    w.cluster_fact("hosts.reset-together");
}

fn disk_timeout(w: &mut World) {
    for h in 0..w.hosts.len() {
        w.kernel(h, 0, " connection2:0: ping timeout of 5 secs expired, recv timeout 5, last rx 4312077, last ping 4313328, now 4314582", "iscsi.ping-timeout");
        w.kernel(h, 0, " connection2:0: detected conn error (1022)", "");
        for s in (3..50).step_by(6) {
            w.log(h, s, "iscsid: connect to 10.20.0.9:3260 failed (No route to host)", "iscsi.no-route");
        }
        w.kernel(h, 60, "(kworker/0:1,88,0):o2hb_write_timeout:166 ERROR: Heartbeat write timeout to device dm-3 after 60000 milliseconds", "ocfs2.disk-timeout");
        w.kernel(
            h,
            60,
            "*** ocfs2 is very sorry to be fencing this system by restarting ***",
            "ocfs2.fence-reset",
        );
        w.reset(h, 64, 200);
    }
    w.cluster_fact("hosts.reset-together");
}

fn split_brain(w: &mut World) {
    w.log(
        0,
        -20_000,
        "pengine[900]:   error: Resource start-up disabled since no STONITH resources have been defined",
        "pacemaker.no-stonith",
    );
    for h in 0..2 {
        w.kernel(h, 0, "d-con r0: PingAck did not arrive in time.", "drbd.conn-lost");
        w.log(
            h,
            1,
            "corosync[880]:   [TOTEM ] A processor failed, forming new configuration.",
            "corosync.token-lost",
        );
        w.log(
            h,
            3,
            "corosync[880]:   [TOTEM ] A new membership (10.0.0.1:964) was formed. Members left: 2",
            "corosync.membership-left",
        );
        w.fact("corosync.membership", h);
    }
    w.kernel(1, 30, "block drbd0: role( Secondary -> Primary )", "drbd.promoted");
    for h in 0..2 {
        w.kernel(
            h,
            900,
            "block drbd0: Split-Brain detected but unresolved, dropping connection!",
            "drbd.split-brain",
        );
    }
}

fn corosync_lost(w: &mut World, h: usize, at: i64) {
    for p in 1..w.hosts.len() {
        w.log(
            h,
            at,
            &format!("corosync[880]:   [KNET  ] link: host: {p} link: 0 is down"),
            "corosync.link-down",
        );
    }
    w.log(
        h,
        at + 2,
        "corosync[880]:   [TOTEM ] Token has not been received in 2737 ms",
        "corosync.token-lost",
    );
    w.log(h, at + 4, "corosync[880]:   [QUORUM] This node is within the non-primary component and will NOT provide any services.", "corosync.quorum-lost");
}

fn switch_dies(w: &mut World) {
    for h in 0..w.hosts.len() {
        w.kernel(h, 0, "ixgbe 0000:81:00.0 ens1f0: NIC Link is Down", "net.link-down");
        w.kernel(h, 0, "bond1: now running without any active interface!", "net.bond-no-active");
        corosync_lost(w, h, 1);
        w.kernel(
            h,
            1500,
            "ixgbe 0000:81:00.0 ens1f0: NIC Link is Up 10 Gbps, Flow Control: RX/TX",
            "net.link-up",
        );
    }
}

fn clock_step(w: &mut World) {
    let h = 1;
    w.log(h, 0, "chronyd[700]: System clock was stepped by 3600.120334 seconds", "clock.step");
    w.log(h, 1, "systemd[1]: Time has been changed", "clock.jump-seen");
    for p in w.peers(h) {
        w.daemon(p, 60, "ceph", "mon.a (mon.0) 812 : cluster [WRN] Health check failed: clock skew detected on mon.b (MON_CLOCK_SKEW)", "ceph.clock-skew");
    }
    w.log(
        h,
        3,
        "corosync[880]:   [TOTEM ] A processor failed, forming new configuration.",
        "corosync.token-lost",
    );
    w.log(h, 6, "corosync[880]:   [QUORUM] This node is within the non-primary component and will NOT provide any services.", "corosync.quorum-lost");
}

fn nvme_death(w: &mut World) {
    let h = w.below(w.hosts.len() as u64) as usize;
    w.kernel(
        h,
        0,
        "nvme nvme1: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0xffff",
        "disk.nvme-dead",
    );
    w.kernel(h, 12, "nvme nvme1: Removing after probe failure status: -19", "disk.nvme-dead");
    for s in 0..5 {
        w.kernel(
            h,
            13,
            &format!(
                "blk_update_request: I/O error, dev nvme1n1, sector {} op 0x1:(WRITE) flags 0x0",
                2048 * s
            ),
            "disk.io-error",
        );
    }
    w.kernel(h, 14, "EXT4-fs (nvme1n1p1): Remounting filesystem read-only", "fs.aborted");
}

fn oom_storage(w: &mut World) {
    let h = w.below(w.hosts.len() as u64) as usize;
    w.kernel(h, -1, "qemu-system-x86 invoked oom-killer: gfp_mask=0x100cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0", "");
    w.kernel(h, 0, "Out of memory: Killed process 2994 (lichd) total-vm:24117248kB, anon-rss:18874368kB, file-rss:0kB, shmem-rss:0kB", "mem.oom-storage");
    w.fact("mem.oom", h);
    w.kernel(h, 0, " connection1:0: detected conn error (1020)", "iscsi.conn-closed");
    for s in (1..30).step_by(3) {
        w.log(h, s, "iscsid: connect to 127.0.0.1:3260 failed (Connection refused)", "iscsi.refused");
    }
    w.fact("config.single-local-portal", h);
    w.log(
        h,
        2,
        "systemd[1]: lichd.service: Main process exited, code=killed, status=9/KILL",
        "storage.daemon-exit",
    );
    w.log(h, 40, "iscsid: connection1:0 is operational after recovery (12 attempts)", "iscsi.recovered");
    w.fact("storage.port-closed", h);
    w.kernel(h, 20, "EXT4-fs (sdb1): Remounting filesystem read-only", "fs.aborted");
}

fn ceph_flap(w: &mut World) {
    let h = 1;
    for round in 0..4 {
        let at = round * 240;
        w.kernel(h, at, "mlx5_core 0000:3b:00.0 ens2f0: Link down, NIC Link is Down", "net.link-down");
        w.kernel(h, at + 30, "ens2f0: NIC Link is Up", "net.link-up");
        for p in w.peers(h) {
            w.daemon(p, at + 22, "ceph", &format!("7f0b4c7f8700 -1 osd.{p} 812 heartbeat_check: no reply from 10.0.0.2:6804 osd.5 since back 2026"), "ceph.osd-no-reply");
        }
        w.daemon(0, at + 25, "ceph", "mon.a (mon.0) 812 : cluster [INF] osd.5 failed (root=default,host=x) (2 reporters from different host after 21.3 >= grace 20.0)", "ceph.osd-down");
    }
}

fn mtu_mismatch(w: &mut World) {
    let h = 2;
    w.log(
        h,
        -300,
        "sudo:    admin : TTY=pts/0 ; PWD=/root ; USER=root ; COMMAND=/sbin/ip link set dev bond0 mtu 1500",
        "net.mtu-changed",
    );
    for p in 0..w.hosts.len() {
        w.log(p, 0, "corosync[880]:   [KNET  ] pmtud: possible MTU misconfiguration detected. kernel is reporting MTU: 9000 bytes for host 3 link 0 but the other node is not acknowledging packets of this size.", "net.mtu-trouble");
        w.log(
            p,
            60,
            "corosync[880]:   [TOTEM ] Token has not been received in 2737 ms",
            "corosync.token-lost",
        );
    }
    w.log(h, 64, "corosync[880]:   [QUORUM] This node is within the non-primary component and will NOT provide any services.", "corosync.quorum-lost");
}

fn cert_expiry(w: &mut World) {
    for h in 0..2 {
        w.log(h, 0, "libvirtd[801]: The server certificate /etc/pki/libvirt/servercert.pem has expired", "");
        w.log(
            h,
            1,
            "libvirtd[801]: Certificate failed validation: The certificate has expired.",
            "cert.expired",
        );
        w.log(h, 2, "libvirtd[801]: authentication failed: TLS handshake failed", "tls.failed");
    }
}

fn backup_starves(w: &mut World) {
    let h = 0;
    w.log(
        h,
        -900,
        "pvescheduler[1200]: INFO: starting new backup job: vzdump --all 1 --mode snapshot --storage nfs",
        "backup.start",
    );
    w.log(h, 0, "corosync[880]:   [MAIN  ] Corosync main process was not scheduled (@1700000000) for 12841.2310 ms (threshold is 2400.0000 ms). Consider token timeout increase.", "corosync.not-scheduled");
    corosync_lost(w, h, 2);
    w.log(
        h,
        12,
        "pve-ha-lrm[1300]: lost lock 'ha_agent_lock - cfs lock update failed - Permission denied",
        "pve.ha-lock-lost",
    );
    w.log(h, 58, "watchdog-mux[690]: client watchdog expired - disable watchdog updates", "watchdog.expired");
    w.reset(h, 70, 150);
}

fn crontab_torn(w: &mut World) {
    for h in 0..w.hosts.len() {
        w.log(h, -12, "apcupsd[640]: Power failure.", "power.lost");
        w.reset(h, 0, 1200);
    }
    let mut tab = b"SHELL=/bin/sh\n17 * * * * root cd / && run-parts --report /etc/cron.hourly\n".to_vec();
    tab.extend_from_slice(&[0; 200]);
    w.file(0, "etc/crontab", &tab);
    w.fact("config.nul-run", 0);
    w.fact("config.crontab-broken", 0);
    w.log(0, 1260, "cron[812]: Error: bad minute; while reading /etc/crontab", "cron.bad-entry");
    w.cluster_fact("hosts.reset-together");
}

fn log_disk_full(w: &mut World) {
    let h = w.below(w.hosts.len() as u64) as usize;
    w.log(
        h,
        0,
        "libvirtd[801]: unable to write to /var/log/libvirt/qemu/vm7.log: No space left on device",
        "disk.full",
    );
    w.log(h, 30, "systemd-journald[400]: Failed to write entry: No space left on device", "");
    w.log(h, 60, "libvirtd[801]: domain vm7 is paused due to ioerror", "vm.crashed");
}

fn admin_reboot(w: &mut World) {
    let h = w.below(w.hosts.len() as u64) as usize;
    w.log(
        h,
        -30,
        "sudo:     anna : TTY=pts/1 ; PWD=/home/anna ; USER=root ; COMMAND=/usr/sbin/reboot",
        "admin.reboot",
    );
    w.log(h, -29, "systemd-logind[600]: System is rebooting.", "");
    w.reboot(h, 0, 120);
}

fn insufficient(w: &mut World) {
    let h = w.below(w.hosts.len() as u64) as usize;
    w.reset(h, 0, 240);
}

fn duplicate_address(w: &mut World) {
    let h = 0;
    w.kernel(h, 0, "IPv4: martian source 10.0.0.2 from 10.0.0.2, on dev eth1", "");
    w.log(
        h,
        1,
        "arpwatch[77]: duplicate IP address 10.0.0.2 52:54:00:aa:bb:cc eth1",
        "net.duplicate-address",
    );
    w.log(
        h,
        40,
        "corosync[880]:   [TOTEM ] A processor failed, forming new configuration.",
        "corosync.token-lost",
    );
    w.log(h, 44, "corosync[880]:   [QUORUM] This node is within the non-primary component and will NOT provide any services.", "corosync.quorum-lost");
}
