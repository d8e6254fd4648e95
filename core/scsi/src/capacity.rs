//! READ CAPACITY, REPORT LUNS, TEST UNIT READY, REQUEST SENSE and the commands that ask for nothing that a
//! volume does: START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL.
//!
//! Source: SBC-4 5.19, 5.20, 5.31; SPC-4 6.33, 6.39, 6.47.

use crate::{
    Cdb, Context, Outcome, Sense, Step,
    unit::{LOGICAL_BLOCK_BYTES, PHYSICAL_BLOCK_EXPONENT},
};
use alloc::{vec, vec::Vec};

/// READ CAPACITY (10)
pub(crate) fn read_capacity_10(cdb: &Cdb, cx: &mut Context<'_>) -> Outcome {
    // PMI and an address are obsolete; an address without PMI is an error.
    if cdb.u32(2) != 0 && !cdb.bits(8, 0x01) {
        return Err(Sense::cdb_field(2, None));
    }
    let last = u32::try_from(cx.unit.blocks().saturating_sub(1)).unwrap_or(u32::MAX);
    let mut data = last.to_be_bytes().to_vec();
    data.extend(LOGICAL_BLOCK_BYTES.to_be_bytes());
    Ok(Step::data(data, usize::MAX))
}

/// READ CAPACITY (16)
pub(crate) fn read_capacity_16(cdb: &Cdb, cx: &mut Context<'_>) -> Outcome {
    let mut data = vec![0; 32];
    data[..8].copy_from_slice(&cx.unit.blocks().saturating_sub(1).to_be_bytes());
    data[8..12].copy_from_slice(&LOGICAL_BLOCK_BYTES.to_be_bytes());
    data[13] = PHYSICAL_BLOCK_EXPONENT;
    data[14] = 0x80 | 0x40; // LBPME, LBPRZ
    Ok(Step::data(data, cdb.u32(10) as usize))
}

/// TEST UNIT READY
pub(crate) fn test_unit_ready(_cdb: &Cdb, _cx: &mut Context<'_>) -> Outcome {
    Ok(Step::good())
}

/// REPORT LUNS
pub(crate) fn report_luns(cdb: &Cdb, _cx: &mut Context<'_>) -> Outcome {
    let luns: &[u64] = match cdb.byte(2) {
        0x00 | 0x02 => &[0],
        0x01 => &[],
        _ => return Err(Sense::cdb_field(2, None)),
    };
    let mut data: Vec<u8> = ((luns.len() * 8) as u32).to_be_bytes().to_vec();
    data.extend([0; 4]);
    for lun in luns {
        data.extend(lun.to_be_bytes());
    }
    Ok(Step::data(data, cdb.u32(6) as usize))
}

/// REQUEST SENSE: hands over a unit attention that waits.
pub(crate) fn request_sense(cdb: &Cdb, cx: &mut Context<'_>) -> Outcome {
    let sense = cx.attentions.take().unwrap_or(Sense::NONE);
    Ok(sense_data(cdb, sense))
}

/// The answer to REQUEST SENSE with that sense.
pub(crate) fn sense_data(cdb: &Cdb, sense: Sense) -> Step {
    let data = if cdb.bits(1, 0x01) { sense.descriptor() } else { sense.fixed() };
    Step::data(data, usize::from(cdb.byte(4)))
}

/// START STOP UNIT. The volume is shared: starting and stopping it are accepted and change nothing. There is
/// nothing to eject and there are no power conditions.
pub(crate) fn start_stop_unit(cdb: &Cdb, _cx: &mut Context<'_>) -> Outcome {
    cdb.refuse(4, 0xf0)?;
    cdb.refuse(4, 0x02)?;
    Ok(Step::good())
}

/// PREVENT ALLOW MEDIUM REMOVAL. The medium is not removable.
pub(crate) fn prevent_allow(cdb: &Cdb, _cx: &mut Context<'_>) -> Outcome {
    cdb.refuse(4, 0x02)?;
    Ok(Step::good())
}
