//! Stories that were written and scored before any rule was changed for them; docs/diagnose.md has that first score.
//!
//! Promise: every wording is taken from the program that prints it, not from the rules: Linux drivers/edac/edac_mc.c,
//! arch/x86/kernel/cpu/mce/core.c, drivers/acpi/apei/bert.c, drivers/scsi/scsi_transport_fc.c, drivers/md/dm-thin.c,
//! fs/ext4/inode.c; pacemaker daemons/fenced/fenced_commands.c, daemons/controld/controld_fencing.c and lib/pengine/unpack.c;
//! sanlock src/delta_lease.c, src/lockspace.c, src/main.c and wdmd/main.c; multipath-tools libmultipath/structs_vec.c;
//! corosync exec/totemsrp.c; LVM2 dmeventd. The second four name theirs above each story. A fact that no rule knew when a story
//! was written has the name that a rule for it would have, so that it counts as missed.

use super::World;

/// An ext4 whose journal cannot be written gives up.
fn ext4_aborts(w: &mut World, host: usize, at: i64, device: &str) {
    w.kernel(host, at, &format!("Aborting journal on device {device}-8."), "fs.aborted");
    w.kernel(host, at, &format!("EXT4-fs ({device}): Remounting filesystem read-only"), "fs.aborted");
}

/// The peers see a member leave and form a new membership.
fn member_left(w: &mut World, host: usize, at: i64) {
    for p in w.peers(host) {
        w.log(p, at, "corosync[1388]:   [TOTEM ] A processor failed, forming new configuration: token timed out (3650ms), waiting 4380ms for consensus.", "corosync.token-lost");
        let left = host + 1;
        w.log(
            p,
            at + 4,
            &format!("corosync[1388]:   [TOTEM ] Failed to receive the leave message. failed: {left}"),
            "corosync.membership-left",
        );
        w.log(
            p,
            at + 4,
            &format!(
                "corosync[1388]:   [TOTEM ] A new membership (1.2f{left}) was formed. Members left: {left}"
            ),
            "corosync.membership-left",
        );
        w.fact("corosync.membership", p);
    }
}

/// A memory module fails: corrected errors for hours, then an uncorrected one that the processor stops at.
pub(super) fn memory_dies(w: &mut World) {
    let h = w.below(w.hosts.len() as u64) as usize;
    let mut at = -5 * 3600;
    let mut step = 2400;
    while at < -20 {
        let page = 0x0095_0000 + w.below(4096);
        w.kernel(
            h,
            at,
            &format!("EDAC MC0: 1 CE memory read error on CPU_SrcID#0_Ha#0_Chan#1_DIMM#0 (channel:1 slot:0 page:0x{page:x} offset:0x40 grain:32 syndrome:0x0 - area:DRAM err_code:0001:0091 socket:0 ha:0 channel_mask:2 rank:1)"),
            "hw.memory-corrected",
        );
        at += step;
        step = (step * 3 / 4).max(90);
    }
    w.reset(h, 0, 190);
    let boot = 190;
    // The panic itself reaches no disk: the firmware hands its record to the next kernel.
    for (delay, text) in [
        (1, "BERT: Error records from previous boot:"),
        (1, "[Hardware Error]: event severity: fatal"),
        (1, "[Hardware Error]:  Error 0, type: fatal"),
        (1, "[Hardware Error]:   section_type: memory error"),
        (2, "mce: [Hardware Error]: Machine check events logged"),
        (2, "mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 7: fe00000000800090"),
        (2, "mce: [Hardware Error]: TSC 0 ADDR 9562dc000 MISC 1229440404003e8c "),
    ] {
        w.kernel(h, boot + delay, text, "kernel.mce");
    }
    member_left(w, h, 4);
    let peers = w.peers(h);
    let (victim, dc) = (w.hosts[h].clone(), peers[0]);
    let leader = w.hosts[dc].clone();
    w.log(dc, 9, &format!("pacemaker-schedulerd[1402]:  warning: Cluster node {victim} will be fenced: peer is no longer part of the cluster"), "pacemaker.node-lost");
    w.log(dc, 30, &format!("pacemaker-controld[1403]:  notice: Peer {victim} was terminated (reboot) by {leader} on behalf of pacemaker-controld.1403@{leader}: OK | event=5b1f8f0e"), "pacemaker.fenced");
}

/// The only FC fabric goes: paths, leases, and then the watchdog of every host that held a lease.
pub(super) fn fabric_lost(w: &mut World) {
    for h in 0..w.hosts.len() {
        let n = h % 4;
        w.kernel(
            h,
            0,
            &format!("qla2xxx [0000:83:00.{n}]-500b:7: LOOP DOWN detected (2 7 0 0)."),
            "fc.link-down",
        );
        w.kernel(h, 30, " rport-7:0-0: blocked FC remote port time out: removing rport", "fc.port-lost");
        for (s, dev, number, left) in [(31, "sdb", "8:16", 1), (33, "sdc", "8:32", 0)] {
            w.log(
                h,
                s,
                &format!("multipathd[903]: mpatha: {dev} - tur checker reports path is down"),
                "multipath.path-failed",
            );
            w.log(
                h,
                s,
                &format!("multipathd[903]: checker failed path {number} in map mpatha"),
                "multipath.path-failed",
            );
            w.kernel(
                h,
                s,
                &format!("device-mapper: multipath: Failing path {number}."),
                "multipath.path-failed",
            );
            let lost = if left == 0 { "multipath.all-paths-lost" } else { "" };
            w.log(h, s, &format!("multipathd[903]: mpatha: remaining active paths: {left}"), lost);
        }
        w.log(h, 34, "multipathd[903]: mpatha: Entering recovery mode: max_retries=12", "");
        w.log(
            h,
            41,
            "sanlock[1737]: 2366 [1737]: s1 delta_renew read timeout 10 sec offset 0 /dev/mapper/mpatha",
            "sanlock.renew-failed",
        );
        w.log(
            h,
            95,
            "sanlock[1737]: 2430 [1737]: s1 check_our_lease warning 64 last_success 2366",
            "sanlock.renew-failed",
        );
        w.log(h, 111, "sanlock[1737]: 2446 [1737]: s1 check_our_lease failed 80", "sanlock.lease-lost");
        w.log(h, 111, "sanlock[1737]: 2446 [1737]: s1 kill 1831 sig 15 count 1", "sanlock.lease-lost");
        w.log(h, 112, "wdmd[1750]: test failed rem 58 now 2447 ping 2434 close 2444 renewal 2366 expire 2446 client 1737 sanlock_LS:1", "watchdog.test-failed");
        w.reset(h, 171 + (h % 2) as i64, 210);
    }
    w.cluster_fact("hosts.reset-together");
}

/// A thin pool fills up: writes wait a minute, then fail, and the file systems on it go read-only.
pub(super) fn thin_pool_full(w: &mut World) {
    let h = w.below(w.hosts.len() as u64) as usize;
    for (at, percent) in [(-7200, "80.02"), (-4500, "85.01"), (-2400, "90.04"), (-900, "95.00")] {
        w.log(
            h,
            at,
            &format!("dmeventd[512]: WARNING: Thin pool vg0-pool0-tpool data is now {percent}% full."),
            "lvm.thin-filling",
        );
    }
    w.kernel(
        h,
        -880,
        "device-mapper: thin: 253:4: reached low water mark for data device: sending event.",
        "lvm.thin-filling",
    );
    w.kernel(
        h,
        0,
        "device-mapper: thin: 253:4: switching pool to out-of-data-space (queue IO) mode",
        "lvm.thin-full",
    );
    w.kernel(
        h,
        60,
        "device-mapper: thin: 253:4: switching pool to out-of-data-space (error IO) mode",
        "lvm.thin-full",
    );
    for block in 0..4 {
        w.kernel(
            h,
            61,
            &format!("Buffer I/O error on dev dm-7, logical block {}, lost async page write", 81_920 + block),
            "disk.io-error",
        );
    }
    w.kernel(h, 62, "EXT4-fs (dm-7): Delayed block allocation failed for inode 12 at logical offset 0 with max blocks 2048 with error 28", "");
    w.kernel(h, 62, "EXT4-fs (dm-7): This should not happen!! Data will be lost", "");
    ext4_aborts(w, h, 64, "dm-7");
    w.log(h, 70, "libvirtd[801]: domain vm12 is paused due to ioerror", "vm.crashed");
}

/// A host dies silently and the only fence device does not answer: nothing is recovered.
pub(super) fn fencing_stuck(w: &mut World) {
    let h = w.below(w.hosts.len() as u64) as usize;
    let victim = w.hosts[h].clone();
    member_left(w, h, 4);
    let dc = w.peers(h)[0];
    let leader = w.hosts[dc].clone();
    w.log(dc, 9, &format!("pacemaker-schedulerd[1402]:  warning: Cluster node {victim} will be fenced: peer is no longer part of the cluster"), "pacemaker.node-lost");
    for round in 0..6 {
        let at = 10 + round * 62;
        w.log(dc, at, &format!("pacemaker-controld[1403]:  notice: Requesting fencing (reboot) targeting node {victim} | action=4 timeout=60000"), "");
        w.log(
            dc,
            at + 60,
            &format!("fence_ipmilan[2{round}11]: Connection timed out"),
            "pacemaker.fence-failed",
        );
        w.log(dc, at + 60, &format!("pacemaker-fenced[1399]:  error: Operation 'reboot' [2{round}11] targeting {victim} using fence-{victim} returned 1 | call {} from pacemaker-controld.1403", 3 + round), "pacemaker.fence-failed");
        w.log(dc, at + 60, &format!("pacemaker-controld[1403]:  notice: Peer {victim} was not terminated (reboot) by {leader} on behalf of pacemaker-controld.1403@{leader}: Error | event=91c{round}"), "pacemaker.fence-failed");
    }
    w.reset(h, 0, 2400);
}

/// Both halves of a RAID 1 fail, hours apart: the first is thrown out and nobody replaces it.
///
/// Linux 5.10 drivers/ata/libata-eh.c, libata-core.c, drivers/scsi/sd.c and scsi_logging.c, block/blk-core.c,
/// drivers/md/raid1.c, fs/ext4/super.c and namei.c; mdadm 4.1 Monitor.c; smartmontools 7.2 smartd.cpp.
pub(super) fn raid_dies(w: &mut World) {
    let h = w.below(w.hosts.len() as u64) as usize;
    let sector = 19_501_240 + 8 * w.below(1000);
    let first = -5 * 3600;
    w.log(
        h,
        first - 3600,
        "smartd[702]: Device: /dev/sdb [SAT], 16 Currently unreadable (pending) sectors",
        "disk.smart-failing",
    );
    unreadable(w, h, first - 60, ("ata2", "1:0:0:0", "sdb"), sector);
    for (s, text, rule) in [
        (0, "ata2.00: exception Emask 0x0 SAct 0x0 SErr 0x0 action 0x6 frozen".to_owned(), ""),
        (0, "ata2.00: failed command: FLUSH CACHE EXT".to_owned(), ""),
        (1, "ata2: hard resetting link".to_owned(), ""),
        (6, "ata2: link is slow to respond, please be patient (ready=0)".to_owned(), ""),
        (11, "ata2: COMRESET failed (errno=-16)".to_owned(), ""),
        (56, "ata2: reset failed, giving up".to_owned(), "disk.ata-given-up"),
        (56, "ata2.00: disabled".to_owned(), ""),
        (
            57,
            "blk_update_request: I/O error, dev sdb, sector 2056 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 0"
                .to_owned(),
            "disk.io-error",
        ),
        (57, "md: super_written gets error=10".to_owned(), ""),
        (57, "md/raid1:md0: Disk failure on sdb1, disabling device.".to_owned(), "md.degraded"),
        (57, "md/raid1:md0: Operation continuing on 1 devices.".to_owned(), "md.degraded"),
    ] {
        w.kernel(h, first + s, &text, rule);
    }
    w.log(
        h,
        first + 58,
        "mdadm[655]: Fail event detected on md device /dev/md0, component device /dev/sdb1",
        "md.degraded",
    );
    for round in 0..3 {
        unreadable(w, h, round * 4, ("ata1", "0:0:0:0", "sda"), sector + 8 * round as u64);
        w.kernel(
            h,
            round * 4 + 1,
            &format!(
                "md/raid1:md0: sda1: unrecoverable I/O read error for block {}",
                sector - 2048 + 8 * round as u64
            ),
            "",
        );
    }
    w.kernel(h, 13, "EXT4-fs error (device dm-2): ext4_find_entry:1463: inode #1048577: comm qemu-img: reading directory lblock 0", "");
    ext4_aborts(w, h, 14, "dm-2");
}

/// A sector that a SATA disk cannot read, as the layers of the kernel tell it.
fn unreadable(w: &mut World, h: usize, at: i64, (port, scsi, dev): (&str, &str, &str), sector: u64) {
    for (text, rule) in [
        (format!("{port}.00: exception Emask 0x0 SAct 0x40000 SErr 0x0 action 0x0"), ""),
        (format!("{port}.00: failed command: READ FPDMA QUEUED"), ""),
        (format!("{port}.00: status: {{ DRDY ERR }}"), ""),
        (format!("{port}.00: error: {{ UNC }}"), ""),
        (
            format!(
                "sd {scsi}: [{dev}] tag#18 FAILED Result: hostbyte=DID_OK driverbyte=DRIVER_SENSE cmd_age=3s"
            ),
            "",
        ),
        (format!("sd {scsi}: [{dev}] tag#18 Sense Key : Medium Error [current] "), ""),
        (
            format!("sd {scsi}: [{dev}] tag#18 Add. Sense: Unrecovered read error - auto reallocate failed"),
            "disk.medium-error",
        ),
        (
            format!(
                "blk_update_request: I/O error, dev {dev}, sector {sector} op 0x0:(READ) flags 0x0 phys_seg 1 prio class 0"
            ),
            "disk.io-error",
        ),
        (format!("md/raid1:md0: {dev}1: rescheduling sector {}", sector - 2048), ""),
    ] {
        w.kernel(h, at, &text, rule);
    }
}

/// The transmit unit of a card hangs with its link up: its host is alone, and its peers fence it.
///
/// Linux 5.10 net/sched/sch_generic.c and drivers/net/ethernet/intel/i40e/i40e_main.c; corosync 3.1 exec/totemsrp.c and
/// vsf_quorum.c; kronosnet libknet/links.c and host.c; pacemaker 2.1 as above.
pub(super) fn card_hangs(w: &mut World) {
    let h = w.below(w.hosts.len() as u64) as usize;
    let queue = w.below(8);
    for (s, level) in [(0, 1), (6, 2), (12, 3), (18, 4)] {
        if level == 1 {
            w.kernel(
                h,
                s,
                &format!("NETDEV WATCHDOG: ens1f0 (i40e): transmit queue {queue} timed out"),
                "net.nic-hang",
            );
        }
        w.kernel(h, s, &format!("i40e 0000:3b:00.0 ens1f0: tx_timeout: VSI_seid: 390, Q {queue}, NTC: 0x1d4, HWB: 0x1d4, NTU: 0x1d6, TAIL: 0x1d6, INT: 0x1"), "net.nic-hang");
        w.kernel(
            h,
            s,
            &format!("i40e 0000:3b:00.0 ens1f0: tx_timeout recovery level {level}, txqueue {queue}"),
            "",
        );
        if level == 4 {
            w.kernel(h, s, "i40e 0000:3b:00.0 ens1f0: tx_timeout recovery unsuccessful", "");
        }
    }
    alone(w, h, 2);
    let dc = w.peers(h)[0];
    let (victim, leader) = (w.hosts[h].clone(), w.hosts[dc].clone());
    w.log(dc, 12, &format!("pacemaker-schedulerd[1402]:  warning: Cluster node {victim} will be fenced: peer is no longer part of the cluster"), "pacemaker.node-lost");
    w.reset(h, 24, 150);
    w.log(dc, 26, &format!("pacemaker-controld[1403]:  notice: Peer {victim} was terminated (reboot) by {leader} on behalf of pacemaker-controld.1403@{leader}: OK | event=7d20"), "pacemaker.fenced");
}

/// A host cut off from its cluster, seen from both sides.
fn alone(w: &mut World, host: usize, at: i64) {
    for p in w.peers(host) {
        let (me, them) = (host + 1, p + 1);
        for (h, peer) in [(host, them), (p, me)] {
            w.log(
                h,
                at,
                &format!("corosync[1388]:   [KNET  ] link: host: {peer} link: 0 is down"),
                "corosync.link-down",
            );
            w.log(
                h,
                at,
                &format!("corosync[1388]:   [KNET  ] host: host: {peer} has no active links"),
                "corosync.link-down",
            );
        }
    }
    member_left(w, host, at + 2);
    w.log(
        host,
        at + 2,
        "corosync[1388]:   [TOTEM ] Token has not been received in 2737 ms ",
        "corosync.token-lost",
    );
    let left: String = w.peers(host).iter().map(|p| format!(" {}", p + 1)).collect();
    w.log(
        host,
        at + 6,
        &format!(
            "corosync[1388]:   [TOTEM ] A new membership ({}.30) was formed. Members left:{left}",
            host + 1
        ),
        "corosync.membership-left",
    );
    w.fact("corosync.membership", host);
    w.log(host, at + 6, "corosync[1388]:   [QUORUM] This node is within the non-primary component and will NOT provide any services.", "corosync.quorum-lost");
    w.log(host, at + 6, &format!("corosync[1388]:   [QUORUM] Members[1]: {}", host + 1), "");
}

/// The only cluster link of a Proxmox host with running HA services goes down; its watchdog ends it and the others take over.
///
/// Linux 5.10 drivers/net/ethernet/broadcom/tg3.c, net/bridge/br_stp.c and drivers/watchdog/watchdog_dev.c; pve-cluster 8
/// pmxcfs quorum.c and dcdb.c; pve-ha-manager 4 watchdog-mux.c, PVE/HA/LRM.pm, NodeStatus.pm and Manager.pm; corosync as above.
pub(super) fn ha_link_lost(w: &mut World) {
    let h = w.below(w.hosts.len() as u64) as usize;
    w.kernel(h, 0, "tg3 0000:02:00.0 eno1: Link is down", "net.link-down");
    w.kernel(h, 0, "vmbr0: port 1(eno1) entered disabled state", "");
    alone(w, h, 1);
    for (s, text, rule) in [
        (7, "pmxcfs[929]: [status] notice: node lost quorum", "corosync.quorum-lost"),
        (7, "pmxcfs[929]: [dcdb] crit: received write while not quorate - trigger resync", ""),
        (7, "pmxcfs[929]: [dcdb] crit: leaving CPG group", ""),
        (8, "pmxcfs[929]: [dcdb] notice: start cluster connection", ""),
        (8, "pmxcfs[929]: [dcdb] crit: cpg_join failed: CS_ERR_EXIST", "pve.cpg-failed"),
        (8, "pmxcfs[929]: [dcdb] crit: can't initialize service", ""),
    ] {
        w.log(h, s, text, rule);
    }
    let victim = w.hosts[h].clone();
    w.log(
        h,
        11,
        &format!(
            "pve-ha-lrm[1300]: lost lock 'ha_agent_{victim}_lock - cfs lock update failed - Permission denied"
        ),
        "pve.ha-lock-lost",
    );
    w.log(h, 16, "pve-ha-lrm[1300]: status change active => lost_agent_lock", "pve.ha-lock-lost");
    w.log(h, 56, "watchdog-mux[690]: client watchdog is about to expire", "");
    w.log(h, 66, "watchdog-mux[690]: client watchdog expired - disable watchdog updates", "watchdog.expired");
    w.log(h, 67, "watchdog-mux[690]: exit watchdog-mux with active connections", "");
    w.kernel(h, 67, "watchdog: watchdog0: watchdog did not stop!", "watchdog.left-armed");
    w.reset(h, 76, 160);
    w.kernel(h, 300, "tg3 0000:02:00.0 eno1: Link is up at 1000 Mbps, full duplex", "net.link-up");
    let (master, target) = (w.peers(h)[0], w.peers(h)[1]);
    let target = w.hosts[target].clone();
    for (s, text, rule) in [
        (20, format!("node '{victim}': state changed from 'online' => 'unknown'"), ""),
        (70, "service 'vm:104': state changed from 'started' to 'fence'".to_owned(), ""),
        (70, format!("node '{victim}': state changed from 'unknown' => 'fence'"), "pve.node-fenced"),
        (140, format!("successfully acquired lock 'ha_agent_{victim}_lock'"), ""),
        (140, format!("fencing: acknowledged - got agent lock for node '{victim}'"), "pve.node-fenced"),
        (140, "service 'vm:104': state changed from 'fence' to 'recovery'".to_owned(), ""),
        (140, format!("recover service 'vm:104' from fenced node '{victim}' to node '{target}'"), ""),
    ] {
        w.log(master, s, &format!("pve-ha-crm[1409]: {text}"), rule);
    }
}

/// An iSCSI target crashes at each start until its supervisor gives up; the initiators wait two minutes and lose their disks.
///
/// Linux 5.10 arch/x86/mm/fault.c, drivers/scsi/scsi_transport_iscsi.c and scsi_lib.c, fs/ext4/super.c; systemd 247
/// src/core/service.c and job.c; tgt 1.0.79 scripts/tgtd.service; open-iscsi 2.1 usr/initiator.c and usr/io.c.
pub(super) fn target_crashes(w: &mut World) {
    let t = w.below(w.hosts.len() as u64) as usize;
    for round in 0..3i64 {
        let (at, pid) = (round * 3, 2210 + round);
        w.kernel(t, at, &format!("tgtd[{pid}]: segfault at 18 ip 000055d0c1b3a6f2 sp 00007ffd1d1c7a60 error 4 in tgtd[55d0c1b1f000+3f000]"), "storage.daemon-exit");
        for text in [
            "tgt.service: Main process exited, code=dumped, status=11/SEGV",
            "tgt.service: Failed with result 'core-dump'.",
        ] {
            w.log(t, at, &format!("systemd[1]: {text}"), "storage.daemon-exit");
        }
        let again = round + 1;
        for text in [
            &format!("tgt.service: Scheduled restart job, restart counter is at {again}."),
            "Stopped (i)SCSI target daemon.",
        ] {
            w.log(t, at + 1, &format!("systemd[1]: {text}"), "");
        }
        if round < 2 {
            w.log(t, at + 2, "systemd[1]: Started (i)SCSI target daemon.", "");
        }
    }
    for text in [
        "tgt.service: Start request repeated too quickly.",
        "tgt.service: Failed with result 'core-dump'.",
        "Failed to start (i)SCSI target daemon.",
    ] {
        w.log(t, 8, &format!("systemd[1]: {text}"), "");
    }
    w.log(t, 300, "systemd[1]: Started (i)SCSI target daemon.", "");
    for h in w.peers(t) {
        w.kernel(h, 0, " connection1:0: detected conn error (1020)", "iscsi.conn-closed");
        w.log(h, 1, "iscsid: Kernel reported iSCSI connection 1:0 error (1020 - ISCSI_ERR_TCP_CONN_CLOSE: TCP connection closed) state (3)", "iscsi.conn-closed");
        for s in (4..300).step_by(6) {
            w.log(
                h,
                s,
                &format!("iscsid: connect to 10.20.0.{}:3260 failed (Connection refused)", t + 1),
                "iscsi.refused",
            );
        }
        w.kernel(h, 120, " session1: session recovery timed out after 120 secs", "iscsi.session-recovery");
        w.kernel(h, 121, "sd 3:0:0:1: rejecting I/O to offline device", "scsi.offline");
        w.kernel(h, 121, "blk_update_request: I/O error, dev sdc, sector 2312 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 0", "disk.io-error");
        ext4_aborts(w, h, 122, "sdc1");
        w.log(h, 304, "iscsid: connection1:0 is operational after recovery (51 attempts)", "iscsi.recovered");
        w.fact("storage.port-closed", h);
    }
}
