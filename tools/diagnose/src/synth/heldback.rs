//! Stories that were written and scored before any rule was changed for them; docs/diagnose.md has that first score.
//!
//! Promise: every wording is taken from the program that prints it, not from the rules: Linux drivers/edac/edac_mc.c,
//! arch/x86/kernel/cpu/mce/core.c, drivers/acpi/apei/bert.c, drivers/scsi/scsi_transport_fc.c, drivers/md/dm-thin.c,
//! fs/ext4/inode.c; pacemaker daemons/fenced/fenced_commands.c, daemons/controld/controld_fencing.c and lib/pengine/unpack.c;
//! sanlock src/delta_lease.c, src/lockspace.c, src/main.c and wdmd/main.c; multipath-tools libmultipath/structs_vec.c;
//! corosync exec/totemsrp.c; LVM2 dmeventd. A fact that no rule knew when a story was written has the name that a rule for it
//! would have, so that it counts as missed.

use super::World;

fn others(w: &World, host: usize) -> Vec<usize> {
    (0..w.hosts.len()).filter(|h| *h != host).collect()
}

/// The peers see a member leave and form a new membership.
fn member_left(w: &mut World, host: usize, at: i64) {
    for p in others(w, host) {
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
    let peers = others(w, h);
    let (victim, dc) = (w.hosts[h].clone(), peers[0]);
    let leader = w.hosts[dc].clone();
    w.log(dc, 9, &format!("pacemaker-schedulerd[1402]:  warning: Cluster node {victim} will be fenced: peer is no longer part of the cluster"), "");
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
            w.log(h, s, &format!("multipathd[903]: mpatha: remaining active paths: {left}"), "");
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
            "",
        );
    }
    w.kernel(h, 62, "EXT4-fs (dm-7): Delayed block allocation failed for inode 12 at logical offset 0 with max blocks 2048 with error 28", "");
    w.kernel(h, 62, "EXT4-fs (dm-7): This should not happen!! Data will be lost", "");
    w.kernel(h, 64, "Aborting journal on device dm-7-8.", "fs.aborted");
    w.kernel(h, 64, "EXT4-fs (dm-7): Remounting filesystem read-only", "fs.aborted");
    w.log(h, 70, "libvirtd[801]: domain vm12 is paused due to ioerror", "vm.crashed");
}

/// A host dies silently and the only fence device does not answer: nothing is recovered.
pub(super) fn fencing_stuck(w: &mut World) {
    let h = w.below(w.hosts.len() as u64) as usize;
    let victim = w.hosts[h].clone();
    member_left(w, h, 4);
    let dc = others(w, h)[0];
    let leader = w.hosts[dc].clone();
    w.log(dc, 9, &format!("pacemaker-schedulerd[1402]:  warning: Cluster node {victim} will be fenced: peer is no longer part of the cluster"), "");
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
