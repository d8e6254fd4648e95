//! Stories in which one host fails and others show the damage, written and scored before any rule was changed for them;
//! docs/diagnose.md has that first score.
//!
//! Promise: every wording is taken from the program that prints it, named above each story, not from the rules. A fact that no
//! rule knew when a story was written has the name that a rule for it would have, so that it counts as missed.

use super::World;

/// The kernel of an NFS server stops in an oops and leaves a dump; its clients hang until it is back.
///
/// Linux 5.10 arch/x86/mm/fault.c, arch/x86/kernel/dumpstack.c, kernel/panic.c, kernel/hung_task.c and net/sunrpc/clnt.c
/// (a mount with timeo=600,retrans=2 speaks after 180 s); kexec-tools vmcore-dmesg.
pub(super) fn nfs_server_panics(w: &mut World) {
    let s = w.below(w.hosts.len() as u64) as usize;
    let cpu = w.below(16);
    let address = 0xffff_b2c8_c0a4_1000 + (w.below(256) << 12);
    let dump = [
        (format!("BUG: unable to handle page fault for address: {address:016x}"), "kernel.oops"),
        ("#PF: supervisor write access in kernel mode".to_owned(), ""),
        ("#PF: error_code(0x0002) - not-present page".to_owned(), ""),
        ("Oops: 0002 [#1] SMP NOPTI".to_owned(), "kernel.oops"),
        (format!("CPU: {cpu} PID: 2211 Comm: nfsd Not tainted 5.10.0-28-amd64 #1 Debian 5.10.209-2"), ""),
        ("RIP: 0010:nfsd_splice_actor+0x5a/0x120 [nfsd]".to_owned(), "kernel.stood-in"),
        ("Kernel panic - not syncing: Fatal exception".to_owned(), "kernel.panic"),
    ];
    w.crash_dump(s, 0, &dump);
    w.reset(s, 0, 420);
    for h in w.peers(s) {
        let pid = 2213 + w.below(4000);
        for (at, after) in [(124, 120), (245, 241)] {
            w.kernel(
                h,
                at,
                &format!("INFO: task qemu-system-x86:{pid} blocked for more than {after} seconds."),
                "kernel.hung-task",
            );
            w.kernel(h, at, "      Not tainted 5.10.0-28-amd64 #1 Debian 5.10.209-2", "");
        }
        let server = format!("nfs: server 10.30.0.{}", s + 1);
        w.kernel(h, 181, &format!("{server} not responding, still trying"), "nfs.no-reply");
        w.kernel(h, 433, &format!("{server} OK"), "");
    }
}

/// The RAID controller of an iSCSI target's host faults: once it is reset, then it is given up; the file systems of the
/// initiators stop.
///
/// Linux 5.10 drivers/scsi/megaraid/megaraid_sas_fusion.c, drivers/scsi/scsi_logging.c and constants.c, block/blk-core.c,
/// drivers/target/target_core_tmr.c and target_core_transport.c (a failed read of the backing disk is answered with "not
/// ready, logical unit communication failure"), fs/xfs/xfs_log.c and xfs_fsops.c.
pub(super) fn controller_faults(w: &mut World) {
    let t = w.below(w.hosts.len() as u64) as usize;
    let card = "megaraid_sas 0000:18:00.0";
    let fault = "hw.controller-fault";
    for (at, text, rule) in [
        (-1500, "Found FW in FAULT state, will reset adapter scsi0.", fault),
        (-1500, "resetting fusion adapter scsi0.", ""),
        (-1499, "Waiting for FW to come to ready state", ""),
        (-1462, "FW now in Ready state", ""),
        (-1460, "Reset successful for scsi0.", ""),
        (0, "Found FW in FAULT state, will reset adapter scsi0.", fault),
        (0, "resetting fusion adapter scsi0.", ""),
        (1, "Waiting for FW to come to ready state", ""),
        (61, "Reset failed, killing adapter scsi0.", fault),
    ] {
        w.kernel(t, at, &format!("{card}: {text}"), rule);
    }
    for n in 0..3u64 {
        let sector = 81_920 + 8 * w.below(100_000);
        let tag = 12 + n;
        w.kernel(t, 62, &format!("sd 0:2:1:0: [sdb] tag#{tag} FAILED Result: hostbyte=DID_BAD_TARGET driverbyte=DRIVER_OK cmd_age=62s"), "");
        w.kernel(t, 62, &format!("blk_update_request: I/O error, dev sdb, sector {sector} op 0x1:(WRITE) flags 0x8800 phys_seg 1 prio class 0"), "disk.io-error");
    }
    for h in w.peers(t) {
        let task = 90 + w.below(4000);
        w.kernel(t, 31, &format!("ABORT_TASK: Found referenced iSCSI task_tag: {task}"), "");
        for (text, rule) in [
            (
                "sd 3:0:0:0: [sdc] tag#7 FAILED Result: hostbyte=DID_OK driverbyte=DRIVER_SENSE cmd_age=63s",
                "",
            ),
            ("sd 3:0:0:0: [sdc] tag#7 Sense Key : Not Ready [current] ", ""),
            ("sd 3:0:0:0: [sdc] tag#7 Add. Sense: Logical unit communication failure", "scsi.target-error"),
            (
                "blk_update_request: I/O error, dev sdc, sector 31457664 op 0x1:(WRITE) flags 0x29800 phys_seg 1 prio class 0",
                "disk.io-error",
            ),
            ("XFS (sdc1): log I/O error -5", ""),
            (
                "XFS (sdc1): xfs_do_force_shutdown(0x2) called from line 1196 of file fs/xfs/xfs_log.c. Return address = 00000000a4f1c6d2",
                "",
            ),
            ("XFS (sdc1): Log I/O Error Detected. Shutting down filesystem", "fs.aborted"),
            ("XFS (sdc1): Please unmount the filesystem and rectify the problem(s)", ""),
        ] {
            w.kernel(h, 63, text, rule);
        }
    }
}
