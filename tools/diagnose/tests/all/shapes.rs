//! What the rules tell apart that looks alike: each pair of bundles differs in the line that decides.

use holdfast_diagnose::model::Report;

fn report(lines: &str) -> Report {
    crate::common::report(&[("n1/var/log/syslog", lines)])
}

fn first(lines: &str) -> Option<String> {
    report(lines).causes.first().map(|c| c.id.clone())
}

#[test]
fn a_medium_error_of_a_unit_that_a_target_presents_is_no_failed_disk() {
    let of = |unit: &str| {
        first(&format!(
            "Mar  3 10:00:01 n1 kernel: [9.1] sd 4:0:0:{unit}: [sdc] tag#0 Sense Key : Medium Error [current]\n\
             Mar  3 10:00:01 n1 kernel: [9.2] sd 4:0:0:{unit}: [sdc] tag#0 Add. Sense: Unrecovered read error\n"
        ))
    };
    assert_eq!(of("0").as_deref(), Some("disk-failure"));
    assert_eq!(of("1").as_deref(), Some("volume-backend-failed"));
    assert_eq!(of("12").as_deref(), Some("volume-backend-failed"));
}

#[test]
fn medium_errors_are_known_in_every_form_that_the_kernel_prints() {
    for line in [
        "sd 4:0:4:0: [sdj] tag#229 Sense Key : 0x3 [current]",
        "ata4.00: error: { UNC }",
        "ata4.00: error: { ICRC UNC ABRT }",
        "blk_update_request: critical medium error, dev nvme0n1, sector 540 op 0x0:(READ)",
    ] {
        let cause = first(&format!("Mar  3 10:00:01 n1 kernel: [9.1] {line}\n"));
        assert_eq!(cause.as_deref(), Some("disk-failure"), "{line}");
    }
    // Not ready, aborted and illegal requests are other keys.
    for key in ["0x2", "0x5", "0xb", "Not Ready", "Illegal Request"] {
        let cause = first(&format!(
            "Mar  3 10:00:01 n1 kernel: [9.1] sd 4:0:4:0: [sdj] Sense Key : {key} [current]\n"
        ));
        assert_eq!(cause, None, "{key}");
    }
}

#[test]
fn a_disk_that_comes_back_after_its_reset_has_not_failed() {
    let reset = "Mar  3 10:00:01 n1 kernel: [9.1] ata5.00: exception Emask 0x0 SAct 0x0 SErr 0x0 action 0x6 frozen\n\
                 Mar  3 10:00:01 n1 kernel: [9.2] ata5: hard resetting link\n";
    let back = "Mar  3 10:00:03 n1 kernel: [11.1] ata5: SATA link up 6.0 Gbps (SStatus 133 SControl 300)\n";
    let lost = "Mar  3 10:01:03 n1 kernel: [71.1] ata5: reset failed, giving up\n\
                Mar  3 10:01:03 n1 kernel: [71.2] md/raid:md1: Disk failure on sdc, disabling device.\n";
    assert_eq!(first(&format!("{reset}{back}")), None);
    assert_eq!(first(&format!("{reset}{lost}")).as_deref(), Some("disk-failure"));
}

#[test]
fn retransmits_are_ordinary_until_a_node_gives_the_messages_up() {
    let again = "Mar  3 10:00:01 n1 corosync[9]:   [TOTEM ] Retransmit List: 6724 6725\n";
    let given_up = "Mar  3 10:00:02 n1 corosync[9]:   [TOTEM ] FAILED TO RECEIVE\n";
    assert_eq!(first(again), None);
    assert_eq!(first(&format!("{again}{given_up}")).as_deref(), Some("cluster-network-loss"));
}

#[test]
fn one_corrected_memory_error_is_possible_at_most_and_blamed_for_nothing_else() {
    let corrected = "Mar  3 09:00:01 n1 kernel: [9.1] EDAC MC1: 1 CE memory scrubbing error on CPU_SrcID#1_Ha#0_Chan#0_DIMM#0 (channel:0 slot:0 page:0xee30a0)\n";
    let alone = report(corrected);
    assert_eq!((alone.causes[0].id.as_str(), alone.causes[0].confidence), ("memory-failing", "possible"));
    // Beside damage that it does not explain, it is a fact and no cause.
    let crash = "Mar  3 10:00:02 n1 corosync[9]:   [QUORUM] This node is within the non-primary component and will NOT provide any services.\n";
    assert_eq!(first(&format!("{corrected}{crash}")), None);
    // Where an uncorrected error followed, that is the cause.
    let fatal = "Mar  3 10:00:02 n1 kernel: [99.1] mce: [Hardware Error]: CPU 1: Machine Check Exception: 4 Bank 0: f600000000010015\n";
    assert_eq!(first(&format!("{corrected}{fatal}")).as_deref(), Some("hardware-error"));
}

#[test]
fn a_split_brain_is_known_by_the_words_of_drbd_8_and_of_drbd_9() {
    let nine = "Mar  3 10:00:01 n1 kernel: [9.1] drbd r0/0 drbd1 n2: uuid_compare()=split-brain-disconnect by rule=both-off\n";
    let eight = "Mar  3 10:00:01 n1 kernel: [9.1] block drbd0: Split-Brain detected but unresolved, dropping connection!\n";
    let resync = "Mar  3 10:00:01 n1 kernel: [9.1] drbd r0/0 drbd1 n2: uuid_compare()=source-use-bitmap by rule=bitmap-self\n";
    assert_eq!(first(nine).as_deref(), Some("drbd-split-brain"));
    assert_eq!(first(eight).as_deref(), Some("drbd-split-brain"));
    assert_eq!(first(resync), None);
    // With the moment when they lost each other in the evidence, that is the cause, and the split brain its consequence.
    let apart = "Mar  3 09:00:01 n1 kernel: [5.1] drbd r0 n2: PingAck did not arrive in time.\n";
    assert_eq!(first(&format!("{apart}{nine}")).as_deref(), Some("network-partition-no-fencing"));
}

#[test]
fn an_expired_certificate_speaks_for_itself_and_less_so_after_a_step_of_the_clock() {
    for line in [
        "kubelet[7]: E0118 17:33:58.888700 7 bootstrap.go:265] part of the existing bootstrap client certificate is expired: 2020-12-06 18:55:55 +0000 UTC",
        "kubelet[7]: E0118 17:33:58.888700 7 bootstrap.go:265] part of the existing bootstrap client certificate in /etc/kubernetes/kubelet.conf is expired: 2020-12-06 18:55:55 +0000 UTC",
        "containerd[7]: error=\"x509: certificate has expired or is not yet valid\"",
    ] {
        let expired = format!("Mar  3 10:00:01 n1 {line}\n");
        assert_eq!(first(&expired).as_deref(), Some("certificate-expired"), "{line}");
        let step = "Mar  3 09:59:01 n1 chronyd[4]: System clock was stepped by 31536000.120334 seconds\n";
        assert_eq!(first(&format!("{step}{expired}")).as_deref(), Some("clock-step"), "{line}");
    }
    assert_eq!(first("Mar  3 10:00:01 n1 app[7]: the session token is expired: log in again\n"), None);
}

#[test]
fn a_slow_loop_of_the_ha_manager_is_known_in_its_old_and_its_new_words() {
    for words in ["loop take too long (47 seconds)", "loop took too long (47 seconds)"] {
        let seen = report(&format!("Mar  3 10:00:01 pve1 pve-ha-lrm[1200]: {words}\n"));
        assert!(seen.facts.iter().any(|f| f.rule == "pve.ha-lock-lost"), "{words}");
    }
    for words in [
        "client watchdog expired - disable watchdog updates",
        "client (PID 1307) watchdog expired - disable watchdog updates",
    ] {
        let seen = report(&format!("Mar  3 10:00:01 pve1 watchdog-mux[700]: {words}\n"));
        assert!(seen.facts.iter().any(|f| f.rule == "watchdog.expired"), "{words}");
    }
}
