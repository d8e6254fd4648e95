//! SCSI block commands: a CDB in; data, status and sense out, or a request to the volume and what to make of
//! its result. The device model of one logical unit (SAM-5, SPC-4, SBC-4), for any transport.
//!
//! Nothing here knows of iSCSI, keeps time or holds the data of more than one command. [`execute`] begins a
//! command; the [`Step`] that it returns says what is needed next, until one of them is [`Step::Respond`].
//! No CDB and no data of an initiator makes it panic.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

mod capacity;
mod cdb;
pub mod compare_and_write;
mod extent;
mod inquiry;
pub mod lba_status;
pub mod mode;
mod opcodes;
pub mod read_write;
pub mod response;
pub mod sense;
pub mod task;
pub mod unit;
pub mod unmap;
pub mod verify;
mod vpd;
pub mod write_same;

pub use cdb::Cdb;
pub use response::{Outcome, Response, Status, Step};
pub use sense::{Code, FieldPointer, Sense, SenseKey};
pub use task::{DataTask, RunningTask, sense_of};
pub use unit::{Attentions, LogicalUnit};

/// What a command is carried out in.
pub(crate) struct Context<'a> {
    pub(crate) unit: LogicalUnit<'a>,
    pub(crate) attentions: &'a mut Attentions,
}

/// The logical unit that a command is for (SAM-5 4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lun {
    /// Logical unit 0.
    Zero,
    /// The REPORT LUNS well known logical unit.
    ReportLuns,
    /// One that does not exist.
    Other,
}

impl Lun {
    //= SAM-5 4.6.4
    /// From the eight bytes that the transport carries: peripheral and flat addressing.
    pub fn from_bytes(bytes: [u8; 8]) -> Lun {
        match bytes {
            [0x00 | 0x40, 0, 0, 0, 0, 0, 0, 0] => Lun::Zero,
            [0xc1, 0x01, 0, 0, 0, 0, 0, 0] => Lun::ReportLuns,
            _ => Lun::Other,
        }
    }
}

const REQUEST_SENSE: u8 = 0x03;
const INQUIRY: u8 = 0x12;
const REPORT_LUNS: u8 = 0xa0;

/// Begins a command.
pub fn execute(cdb: &Cdb, lun: Lun, unit: LogicalUnit<'_>, attentions: &mut Attentions) -> Step {
    let mut cx = Context { unit, attentions };
    dispatch(cdb, lun, &mut cx).unwrap_or_else(Step::check)
}

fn dispatch(cdb: &Cdb, lun: Lun, cx: &mut Context<'_>) -> Outcome {
    match (lun, cdb.opcode()) {
        (Lun::Zero, _) | (Lun::ReportLuns, REPORT_LUNS) => {}
        (_, INQUIRY) => return inquiry::absent_unit(cdb),
        //= SPC-4 6.39
        (_, REQUEST_SENSE) => {
            return Ok(capacity::sense_data(cdb, Sense::illegal(Code::LOGICAL_UNIT_NOT_SUPPORTED)));
        }
        _ => return Err(Sense::illegal(Code::LOGICAL_UNIT_NOT_SUPPORTED)),
    }
    let command = opcodes::find(cdb);
    //= SAM-5 5.14
    let reports_attention = !matches!(cdb.opcode(), INQUIRY | REPORT_LUNS | REQUEST_SENSE);
    if reports_attention && let Some(attention) = cx.attentions.take() {
        return Err(attention);
    }
    (command?.run)(cdb, cx)
}

#[cfg(test)]
mod tests;
