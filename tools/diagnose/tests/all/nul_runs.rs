//! Logs as a crash leaves them: a torn line, NULs of any number, and the first line after the boot with no newline between.

use crate::common::syslog;
use holdfast_diagnose::model::Report;

const BEFORE: &str = "Mar  3 09:58:00 h app: a\nMar  3 09:59:00 h app: torn li";
const BOOT: &str = "Mar  3 10:04:00 h kernel: [    0.000000] Linux version 5.10.0 (x@y) #1\n\
                    Mar  3 10:04:05 h kernel: [    5.000001] EXT4-fs (sda1): recovery complete\n\
                    Mar  3 10:09:00 h kernel: [  300.000001] Kernel panic - not syncing: x\n";

fn report(before: &str, nuls: usize, after: &str) -> Report {
    syslog([before.as_bytes(), &vec![0; nuls], after.as_bytes()].concat())
}

#[test]
fn the_boot_after_nuls_of_any_number_is_found_and_the_nuls_are_counted() {
    // Around the reader's buffer of 256 KiB, and far beyond it.
    for nuls in [5, 4096, 262_080, 262_144, 262_200, 300_000, 1_000_000] {
        for before in [BEFORE, ""] {
            let report = report(before, nuls, BOOT);
            let of = |rule: &str| report.facts.iter().find(|f| f.rule == rule);
            let run = of("log.nul-run").expect("the NULs are a fact");
            assert!(
                run.title.starts_with(&format!("{nuls} NUL bytes at offset {}", before.len())),
                "{}",
                run.title
            );
            if !before.is_empty() {
                let reset = of("host.reset").expect("the host was reset");
                assert_eq!(reset.fields["silent"], "300", "{nuls}");
                assert_eq!(reset.evidence[0].text, "Mar  3 09:59:00 h app: torn li");
            }
            let panic = of("kernel.panic").expect("a line far behind the NULs");
            let lines = before.matches('\n').count() as u64;
            assert_eq!(panic.evidence[0].line, lines + 3, "{nuls}");
            assert_eq!(
                panic.evidence[0].offset as usize,
                before.len() + nuls + BOOT.rfind("Mar").expect("it is there"),
                "{nuls}"
            );
            assert_eq!(report.summary.lines, lines + 3);
            assert!(report.notices.iter().all(|n| n.kind != "LongLine"), "{:?}", report.notices);
        }
    }
}

#[test]
fn nuls_behind_a_line_that_was_cut_are_counted_and_the_line_behind_them_is_read() {
    let long = "x".repeat(400_000);
    let report = report(&long, 500_000, BOOT);
    let of = |rule: &str| report.facts.iter().find(|f| f.rule == rule);
    let run = of("log.nul-run").expect("the NULs are a fact");
    assert!(run.title.starts_with("500000 NUL bytes at offset 400000"), "{}", run.title);
    assert_eq!(of("kernel.panic").map(|f| f.evidence[0].line), Some(3));
    assert_eq!(report.notices.iter().filter(|n| n.kind == "LongLine").count(), 1);
}

#[test]
fn a_file_that_ends_in_nuls_ends_there() {
    let report = report("Mar  3 09:58:00 h app: a\n", 700_000, "");
    let run = report.facts.iter().find(|f| f.rule == "log.nul-run").expect("the NULs are a fact");
    assert!(
        run.title.starts_with("700000 NUL bytes at offset 25 in syslog: zero from inside a block to the end"),
        "{}",
        run.title
    );
}
