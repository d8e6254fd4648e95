//! INQUIRY: standard data, and the way to the vital product data pages.
//!
//! Source: SPC-4 6.6.

use crate::{Cdb, Context, Outcome, Sense, Step, vpd};
use alloc::{vec, vec::Vec};

/// The vendor, as in SCSI identification: 8 characters.
pub(crate) const VENDOR: &[u8; 8] = b"HOLDFAST";
const PRODUCT: &[u8; 16] = b"Volume          ";
const REVISION: &[u8; 4] = b"0001";
const STANDARD_BYTES: usize = 74;
/// Peripheral qualifier 3, type 1Fh: no device can be here.
const NO_DEVICE: u8 = 0x7f;
/// SAM-5, SPC-4, SBC-3, iSCSI (SPC-4 table E).
const VERSION_DESCRIPTORS: [u16; 4] = [0x00a0, 0x0460, 0x04c0, 0x0960];

/// INQUIRY
pub(crate) fn inquiry(cdb: &Cdb, cx: &mut Context<'_>) -> Outcome {
    let allocation = usize::from(cdb.u16(3));
    // CMDDT, obsolete.
    cdb.refuse(1, 0x02)?;
    if cdb.bits(1, 0x01) {
        return Ok(Step::data(vpd::page(cdb.byte(2), cx)?, allocation));
    }
    if cdb.byte(2) != 0 {
        return Err(Sense::cdb_field(2, None));
    }
    Ok(Step::data(standard(0), allocation))
}

//= SPC-4 6.6.2
/// INQUIRY of a logical unit that does not exist.
pub(crate) fn absent_unit(cdb: &Cdb) -> Outcome {
    if cdb.bits(1, 0x03) || cdb.byte(2) != 0 {
        return Err(Sense::illegal(crate::Code::LOGICAL_UNIT_NOT_SUPPORTED));
    }
    Ok(Step::data(standard(NO_DEVICE), usize::from(cdb.u16(3))))
}

fn standard(peripheral: u8) -> Vec<u8> {
    let mut data = vec![0; STANDARD_BYTES];
    data[0] = peripheral;
    data[2] = 0x06; // SPC-4
    data[3] = 0x12; // HISUP, response data format 2
    data[4] = (STANDARD_BYTES - 5) as u8;
    data[7] = 0x02; // CMDQUE
    data[8..16].copy_from_slice(VENDOR);
    data[16..32].copy_from_slice(PRODUCT);
    data[32..36].copy_from_slice(REVISION);
    for (index, descriptor) in VERSION_DESCRIPTORS.iter().enumerate() {
        data[58 + 2 * index..60 + 2 * index].copy_from_slice(&descriptor.to_be_bytes());
    }
    data
}
