//! Every command, with what it comes to, recorded; and CDBs of any kind.

mod stepwise;

use crate::{Attentions, Cdb, LogicalUnit, Lun, Response, Step, execute};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use holdfast_types::{BlockRequest, Export, VolumeId};
use proptest::prelude::*;

const SIZE: u64 = 64 << 20;

fn export() -> Export {
    Export { volume: VolumeId(1), size: SIZE, unique_id: 0xfedc_ba98_7654_3210 }
}

/// Begins a command at a unit of 131072 blocks.
fn begin(cdb: &[u8], lun: Lun, attentions: &mut Attentions) -> Step {
    let mut bytes = [0; 16];
    bytes[..cdb.len()].copy_from_slice(cdb);
    let export = export();
    let unit = LogicalUnit { export: &export, target_name: "iqn.2026-11.io.holdfast:demo", port: 1 };
    execute(&Cdb(bytes), lun, unit, attentions)
}

fn start(cdb: &[u8]) -> Step {
    begin(cdb, Lun::Zero, &mut Attentions::default())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn describe_response(response: &Response) -> String {
    match &response.sense {
        Some(sense) => {
            let field = sense.field.map_or(String::new(), |f| {
                let bit = f.bit.map_or(String::new(), |bit| format!(" bit {bit}"));
                format!(" at {} byte {}{bit}", if f.in_cdb { "CDB" } else { "list" }, f.byte)
            });
            let information = sense.information.map_or(String::new(), |i| format!(" information {i}"));
            format!("{:?} {:02x}/{:02x}{field}{information}", sense.key, sense.code.0, sense.code.1)
        }
        None if response.data.is_empty() => "good".to_string(),
        None => format!("good, {}", hex(&response.data.concat())),
    }
}

fn describe_request(request: &BlockRequest) -> String {
    match request {
        BlockRequest::Write { offset, data } => {
            let bytes: usize = data.iter().map(|piece| piece.len()).sum();
            format!("write {bytes} bytes at {offset}")
        }
        other => format!("{other:?}"),
    }
}

fn describe(step: &Step) -> String {
    match step {
        Step::Respond(response) => describe_response(response),
        Step::NeedData { bytes, .. } => format!("needs {bytes} bytes"),
        Step::Submit { request, .. } => describe_request(request),
    }
}

/// A CDB of that length: bytes at their places.
fn cdb(len: usize, set: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = alloc::vec![0; len];
    for (at, values) in set {
        bytes[*at..at + values.len()].copy_from_slice(values);
    }
    bytes
}

fn recorded(cases: &[(&str, Vec<u8>)]) -> String {
    let lines: Vec<String> = cases
        .iter()
        .map(|(name, cdb)| format!("{name}\n    {}\n    {}", hex(cdb), describe(&start(cdb))))
        .collect();
    lines.join("\n")
}

#[test]
fn what_says_who_the_unit_is_is_as_recorded() {
    let inquiry = |page: u8| cdb(6, &[(0, &[0x12, 1, page, 0, 0xff])]);
    insta::assert_snapshot!(recorded(&[
        ("INQUIRY", cdb(6, &[(0, &[0x12, 0, 0, 0, 0xff])])),
        ("INQUIRY, five bytes taken", cdb(6, &[(0, &[0x12, 0, 0, 0, 5])])),
        ("INQUIRY of a page without EVPD", cdb(6, &[(0, &[0x12, 0, 0x80, 0, 0xff])])),
        ("INQUIRY with CMDDT", cdb(6, &[(0, &[0x12, 2, 0, 0, 0xff])])),
        ("VPD 00", inquiry(0)),
        ("VPD 80", inquiry(0x80)),
        ("VPD 83", inquiry(0x83)),
        ("VPD B0", inquiry(0xb0)),
        ("VPD B1", inquiry(0xb1)),
        ("VPD B2", inquiry(0xb2)),
        ("VPD that is not there", inquiry(0x86)),
        ("READ CAPACITY (10)", cdb(10, &[(0, &[0x25])])),
        ("READ CAPACITY (10) with an address", cdb(10, &[(0, &[0x25, 0, 0, 0, 0, 1])])),
        ("READ CAPACITY (16)", cdb(16, &[(0, &[0x9e, 0x10]), (13, &[32])])),
        ("REPORT LUNS", cdb(12, &[(0, &[0xa0]), (9, &[16])])),
        ("REPORT LUNS, well known", cdb(12, &[(0, &[0xa0, 0, 1]), (9, &[16])])),
        ("REPORT LUNS of an odd kind", cdb(12, &[(0, &[0xa0, 0, 9]), (9, &[16])])),
        ("REQUEST SENSE", cdb(6, &[(0, &[0x03, 0, 0, 0, 0xff])])),
        ("REQUEST SENSE, descriptors", cdb(6, &[(0, &[0x03, 1, 0, 0, 0xff])])),
        ("MODE SENSE (6), all", cdb(6, &[(0, &[0x1a, 0, 0x3f, 0, 0xff])])),
        ("MODE SENSE (6), all, what may change", cdb(6, &[(0, &[0x1a, 8, 0x7f, 0, 0xff])])),
        ("MODE SENSE (6), caching", cdb(6, &[(0, &[0x1a, 8, 0x08, 0, 0xff])])),
        ("MODE SENSE (6), saved", cdb(6, &[(0, &[0x1a, 8, 0xc8, 0, 0xff])])),
        ("MODE SENSE (6) of a page that is not there", cdb(6, &[(0, &[0x1a, 8, 0x02, 0, 0xff])])),
        ("MODE SENSE (6) of a subpage that is not there", cdb(6, &[(0, &[0x1a, 8, 0x0a, 1, 0xff])])),
        ("MODE SENSE (10), long descriptor", cdb(10, &[(0, &[0x5a, 0x10, 0x0a]), (8, &[0xff])])),
        ("REPORT SUPPORTED OPERATION CODES", cdb(12, &[(0, &[0xa3, 0x0c, 0]), (8, &[0xff, 0xff])])),
        ("the same of UNMAP with timeouts", cdb(12, &[(0, &[0xa3, 0x0c, 0x81, 0x42]), (9, &[0xff])])),
        ("the same of GET LBA STATUS", cdb(12, &[(0, &[0xa3, 0x0c, 2, 0x9e, 0, 0x12]), (9, &[0xff])])),
        ("the same, an action without one", cdb(12, &[(0, &[0xa3, 0x0c, 2, 0x42]), (9, &[0xff])])),
        ("the same, one without its action", cdb(12, &[(0, &[0xa3, 0x0c, 1, 0x9e]), (9, &[0xff])])),
        ("the same of one that is not there", cdb(12, &[(0, &[0xa3, 0x0c, 1, 0x5f]), (9, &[0xff])])),
        ("REPORT SUPPORTED TASK MANAGEMENT", cdb(12, &[(0, &[0xa3, 0x0d, 0x80]), (9, &[0xff])])),
    ]));
}

#[test]
fn what_moves_data_is_as_recorded() {
    let last = [0, 1, 0xff, 0xff];
    let beyond = [0, 2, 0, 0];
    insta::assert_snapshot!(recorded(&[
        ("TEST UNIT READY", cdb(6, &[])),
        ("READ (6), 256 blocks", cdb(6, &[(0, &[0x08, 0x00, 1, 2, 0])])),
        ("READ (10)", cdb(10, &[(0, &[0x28, 0x18]), (2, &last), (8, &[1])])),
        ("READ (10), no blocks at the end", cdb(10, &[(0, &[0x28]), (2, &beyond)])),
        ("READ (10), beyond the end", cdb(10, &[(0, &[0x28]), (2, &last), (8, &[2])])),
        ("READ (10) with protection", cdb(10, &[(0, &[0x28, 0x20]), (8, &[1])])),
        ("READ (10) with NACA", cdb(10, &[(0, &[0x28]), (8, &[1, 4])])),
        ("READ (12)", cdb(12, &[(0, &[0xa8]), (5, &[8]), (9, &[8])])),
        ("READ (16)", cdb(16, &[(0, &[0x88]), (9, &[8]), (12, &[0x20, 0])])),
        ("READ (16), too long", cdb(16, &[(0, &[0x88]), (12, &[0x20, 1])])),
        ("READ (16), address at the end of numbers", cdb(16, &[(0, &[0x88]), (2, &[0xff; 12])])),
        ("WRITE (6)", cdb(6, &[(0, &[0x0a, 0, 0, 1, 2])])),
        ("WRITE (10)", cdb(10, &[(0, &[0x2a, 0x08]), (8, &[2])])),
        ("WRITE (12)", cdb(12, &[(0, &[0xaa]), (9, &[2])])),
        ("WRITE (16)", cdb(16, &[(0, &[0x8a]), (13, &[2])])),
        ("WRITE AND VERIFY (10)", cdb(10, &[(0, &[0x2e, 0x02]), (8, &[2])])),
        ("WRITE AND VERIFY (16), odd BYTCHK", cdb(16, &[(0, &[0x8e, 0x04]), (13, &[2])])),
        ("SYNCHRONIZE CACHE (10)", cdb(10, &[(0, &[0x35])])),
        ("SYNCHRONIZE CACHE (16), beyond the end", cdb(16, &[(0, &[0x91]), (2, &[1])])),
        ("VERIFY (10)", cdb(10, &[(0, &[0x2f]), (8, &[2])])),
        ("VERIFY (12), with data", cdb(12, &[(0, &[0xaf, 0x02]), (9, &[2])])),
        ("VERIFY (16), with one block", cdb(16, &[(0, &[0x8f, 0x06]), (13, &[2])])),
        ("VERIFY (10), odd BYTCHK", cdb(10, &[(0, &[0x2f, 0x04]), (8, &[2])])),
        ("WRITE SAME (10)", cdb(10, &[(0, &[0x41, 0x08]), (8, &[8])])),
        ("WRITE SAME (10) without data", cdb(10, &[(0, &[0x41, 0x01]), (8, &[8])])),
        ("WRITE SAME (16) without data", cdb(16, &[(0, &[0x93, 0x09]), (13, &[8])])),
        ("WRITE SAME (16), no blocks", cdb(16, &[(0, &[0x93])])),
        ("WRITE SAME (16) with ANCHOR", cdb(16, &[(0, &[0x93, 0x10]), (13, &[8])])),
        ("UNMAP", cdb(10, &[(0, &[0x42]), (8, &[24])])),
        ("UNMAP of nothing", cdb(10, &[(0, &[0x42])])),
        ("UNMAP, too short", cdb(10, &[(0, &[0x42]), (8, &[7])])),
        ("UNMAP with ANCHOR", cdb(10, &[(0, &[0x42, 1]), (8, &[24])])),
        ("COMPARE AND WRITE", cdb(16, &[(0, &[0x89]), (9, &[3]), (13, &[1])])),
        ("COMPARE AND WRITE, two blocks", cdb(16, &[(0, &[0x89]), (13, &[2])])),
        ("GET LBA STATUS", cdb(16, &[(0, &[0x9e, 0x12]), (9, &[8]), (13, &[40])])),
        ("GET LBA STATUS, beyond the end", cdb(16, &[(0, &[0x9e, 0x12]), (6, &beyond), (13, &[40])])),
        ("START STOP UNIT, stop", cdb(6, &[(0, &[0x1b])])),
        ("START STOP UNIT, eject", cdb(6, &[(0, &[0x1b, 0, 0, 0, 2])])),
        ("PREVENT ALLOW MEDIUM REMOVAL", cdb(6, &[(0, &[0x1e, 0, 0, 0, 1])])),
        ("MODE SELECT (6)", cdb(6, &[(0, &[0x15, 0x10, 0, 0, 24])])),
        ("MODE SELECT (6), to be saved", cdb(6, &[(0, &[0x15, 0x11, 0, 0, 24])])),
        ("PERSISTENT RESERVE IN", cdb(10, &[(0, &[0x5e])])),
        ("PERSISTENT RESERVE OUT", cdb(10, &[(0, &[0x5f])])),
        ("SERVICE ACTION IN (16), odd action", cdb(16, &[(0, &[0x9e, 0x11])])),
    ]));
}

#[test]
fn a_unit_attention_is_told_by_the_first_command_that_tells_them() {
    let mut attentions = Attentions::power_on();
    let quiet: [&[u8]; 2] = [&[0x12, 0, 0, 0, 36, 0], &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]];
    for cdb in quiet {
        assert!(describe(&begin(cdb, Lun::Zero, &mut attentions)).starts_with("good"), "{cdb:x?}");
    }
    assert_eq!(describe(&begin(&[0; 6], Lun::Zero, &mut attentions)), "UnitAttention 29/00");
    assert_eq!(describe(&begin(&[0; 6], Lun::Zero, &mut attentions)), "good");
    let mut attentions = Attentions::power_on();
    let sense = describe(&begin(&[3, 0, 0, 0, 18, 0], Lun::Zero, &mut attentions));
    assert_eq!(sense, "good, 70 00 06 00 00 00 00 0a 00 00 00 00 29 00 00 00 00 00");
    assert_eq!(describe(&begin(&[0; 6], Lun::Zero, &mut attentions)), "good");
}

#[test]
fn a_unit_that_is_not_there_says_so_in_each_command_s_way() {
    let other = Lun::from_bytes([0, 1, 0, 0, 0, 0, 0, 0]);
    let mut attentions = Attentions::power_on();
    let mut ask = |cdb: &[u8]| describe(&begin(cdb, other, &mut attentions));
    assert!(ask(&[0x12, 0, 0, 0, 36, 0]).starts_with("good, 7f 00 06"));
    assert_eq!(ask(&[0; 6]), "IllegalRequest 25/00");
    assert_eq!(ask(&[3, 0, 0, 0, 18, 0]), "good, 70 00 05 00 00 00 00 0a 00 00 00 00 25 00 00 00 00 00");
    assert_eq!(Lun::from_bytes([0x40, 0, 0, 0, 0, 0, 0, 0]), Lun::Zero);
    assert_eq!(Lun::from_bytes([0xc1, 1, 0, 0, 0, 0, 0, 0]), Lun::ReportLuns);
    assert_eq!(Lun::from_bytes([0, 0, 1, 0, 0, 0, 0, 0]), Lun::Other);
}

proptest! {
    #[test]
    fn no_cdb_panics_and_none_reaches_beyond_the_unit(
        mut cdb in any::<[u8; 16]>(), data in proptest::collection::vec(any::<u8>(), 0..4096), low in any::<bool>(),
    ) {
        if low {
            // Addresses that often lie in the unit.
            cdb[2..8].fill(0);
        }
        let mut step = start(&cdb);
        for _ in 0..64 {
            step = match step {
                Step::Respond(_) => return Ok(()),
                Step::NeedData { bytes, task } => {
                    let given = data.iter().copied().cycle().take((bytes as usize).min(data.len())).collect::<Vec<_>>();
                    task.data(alloc::vec![given.into()])
                }
                Step::Submit { request, task } => task.completed(stepwise::checked_answer(&request)),
            };
        }
    }
}
