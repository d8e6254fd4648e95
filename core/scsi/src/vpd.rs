//! The vital product data pages: who the unit is (80h, 83h), what is best to send to it (B0h), what it is made
//! of (B1h), and how thin it is (B2h).
//!
//! Source: SPC-4 7.8, SBC-4 6.6.

use crate::{
    Context, Sense,
    inquiry::VENDOR,
    unit::{
        LogicalUnit, MAX_COMPARE_AND_WRITE_BLOCKS, MAX_TRANSFER_BLOCKS, MAX_UNMAP_BLOCKS,
        MAX_UNMAP_DESCRIPTORS, MAX_WRITE_SAME_BLOCKS, OPTIMAL_TRANSFER_BLOCKS, PHYSICAL_BLOCK_LENGTH,
    },
};
use alloc::{format, string::String, vec, vec::Vec};

const SUPPORTED: u8 = 0x00;
const SERIAL_NUMBER: u8 = 0x80;
const IDENTIFICATION: u8 = 0x83;
const BLOCK_LIMITS: u8 = 0xb0;
const BLOCK_CHARACTERISTICS: u8 = 0xb1;
const LOGICAL_BLOCK_PROVISIONING: u8 = 0xb2;
const PAGES: [u8; 6] = [
    SUPPORTED,
    SERIAL_NUMBER,
    IDENTIFICATION,
    BLOCK_LIMITS,
    BLOCK_CHARACTERISTICS,
    LOGICAL_BLOCK_PROVISIONING,
];

/// The page of that code.
pub(crate) fn page(code: u8, cx: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let body = match code {
        SUPPORTED => PAGES.to_vec(),
        SERIAL_NUMBER => serial(&cx.unit).into_bytes(),
        IDENTIFICATION => identification(&cx.unit),
        BLOCK_LIMITS => block_limits(),
        BLOCK_CHARACTERISTICS => block_characteristics(),
        LOGICAL_BLOCK_PROVISIONING => provisioning(),
        _ => return Err(Sense::cdb_field(2, None)),
    };
    let mut page = vec![0, code];
    page.extend((body.len() as u16).to_be_bytes());
    page.extend(body);
    Ok(page)
}

fn serial(unit: &LogicalUnit<'_>) -> String {
    format!("{:016x}", unit.export.unique_id)
}

/// What a designator names (SPC-4 7.8.6.1).
#[derive(Clone, Copy)]
enum Association {
    Unit = 0,
    Port = 1,
    Device = 2,
}

const BINARY: u8 = 1;
const ASCII: u8 = 2;
const UTF8: u8 = 3;
const PROTOCOL_ISCSI: u8 = 0x5;

fn designator(code_set: u8, association: Association, kind: u8, body: &[u8]) -> Vec<u8> {
    // PIV and the protocol go with what belongs to a port or device of that protocol.
    let (protocol, valid) = match association {
        Association::Unit => (0, 0),
        Association::Port | Association::Device => (PROTOCOL_ISCSI << 4, 0x80),
    };
    let mut bytes = vec![protocol | code_set, valid | ((association as u8) << 4) | kind, 0, body.len() as u8];
    bytes.extend(body);
    bytes
}

/// A SCSI name string: ended by a null, padded to whole words.
fn name_string(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    // The longest iSCSI name has 223 bytes; a designator's length has one byte.
    bytes.truncate(248);
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

//= SPC-4 7.8.6
fn identification(unit: &LogicalUnit<'_>) -> Vec<u8> {
    let mut vendor = VENDOR.to_vec();
    vendor.extend(serial(unit).into_bytes());
    // NAA 3h: locally assigned. No registered company id is claimed.
    let naa = (0x3 << 60) | (unit.export.unique_id & (u64::MAX >> 4));
    let [port_high, port_low] = unit.port.to_be_bytes();
    let port_name = format!("{},t,0x{:04x}", unit.target_name, unit.port);
    [
        designator(BINARY, Association::Unit, 0x3, &naa.to_be_bytes()),
        designator(ASCII, Association::Unit, 0x1, &vendor),
        designator(BINARY, Association::Port, 0x4, &[0, 0, port_high, port_low]),
        designator(UTF8, Association::Port, 0x8, &name_string(&port_name)),
        designator(UTF8, Association::Device, 0x8, &name_string(unit.target_name)),
    ]
    .concat()
}

//= SBC-4 6.6.4
fn block_limits() -> Vec<u8> {
    let mut body = vec![0; 0x3c];
    body[0] = 0x01; // WSNZ
    body[1] = MAX_COMPARE_AND_WRITE_BLOCKS;
    body[2..4].copy_from_slice(&PHYSICAL_BLOCK_LENGTH.to_be_bytes());
    body[4..8].copy_from_slice(&MAX_TRANSFER_BLOCKS.to_be_bytes());
    body[8..12].copy_from_slice(&OPTIMAL_TRANSFER_BLOCKS.to_be_bytes());
    body[16..20].copy_from_slice(&MAX_UNMAP_BLOCKS.to_be_bytes());
    body[20..24].copy_from_slice(&MAX_UNMAP_DESCRIPTORS.to_be_bytes());
    body[24..28].copy_from_slice(&u32::from(PHYSICAL_BLOCK_LENGTH).to_be_bytes());
    body[28] = 0x80; // UGAVALID, alignment 0
    body[32..40].copy_from_slice(&u64::from(MAX_WRITE_SAME_BLOCKS).to_be_bytes());
    body
}

//= SBC-4 6.6.2
fn block_characteristics() -> Vec<u8> {
    let mut body = vec![0; 0x3c];
    body[1] = 1; // non-rotating
    body
}

//= SBC-4 6.6.6
fn provisioning() -> Vec<u8> {
    // LBPU, LBPWS, LBPWS10, LBPRZ; thin.
    vec![0, 0x80 | 0x40 | 0x20 | 0x04, 0x02, 0]
}
