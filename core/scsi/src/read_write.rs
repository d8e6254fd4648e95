//! READ, WRITE, WRITE AND VERIFY and SYNCHRONIZE CACHE. FUA and DPO are accepted and change nothing: every
//! completed write is on stable storage.
//!
//! Source: SBC-4 5.15 to 5.18 (READ), 5.40 to 5.43 (WRITE), 5.44 to 5.47 (WRITE AND VERIFY), 5.33.

use crate::{
    Cdb, Context, Outcome, Sense, Step,
    extent::Extent,
    task::{DataTask, RunningTask, total},
    unit::{LOGICAL_BLOCK_BYTES, MAX_TRANSFER_BLOCKS},
    verify::{Expected, Verify},
};
use alloc::vec::Vec;
use bytes::Bytes;
use holdfast_types::BlockRequest;

/// How a family of CDBs spells the first block and the number of blocks.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// 6 bytes: 21 bits of address, 8 of length, and no protection field.
    Six,
    /// 10 bytes.
    Ten,
    /// 12 bytes.
    Twelve,
    /// 16 bytes.
    Sixteen,
}

impl Form {
    fn of(cdb: &Cdb) -> Form {
        match cdb.opcode() >> 5 {
            0 => Form::Six,
            4 => Form::Sixteen,
            5 => Form::Twelve,
            _ => Form::Ten,
        }
    }
    /// First block and number of blocks; for a 6-byte CDB, zero means 256.
    fn fields(self, cdb: &Cdb) -> (u64, u64) {
        match self {
            Form::Six => {
                let blocks = if cdb.byte(4) == 0 { 256 } else { u64::from(cdb.byte(4)) };
                (u64::from(cdb.u32(0) & 0x1f_ffff), blocks)
            }
            Form::Ten => (u64::from(cdb.u32(2)), u64::from(cdb.u16(7))),
            Form::Twelve => (u64::from(cdb.u32(2)), u64::from(cdb.u32(6))),
            Form::Sixteen => (cdb.u64(2), u64::from(cdb.u32(10))),
        }
    }
    fn length_byte(self) -> u16 {
        match self {
            Form::Six => 4,
            Form::Ten => 7,
            Form::Twelve => 6,
            Form::Sixteen => 10,
        }
    }
}

/// The run of blocks that a CDB of any form names.
pub(crate) fn extent(cdb: &Cdb, cx: &Context<'_>) -> Result<Extent, Sense> {
    let (lba, blocks) = Form::of(cdb).fields(cdb);
    Extent::checked(&cx.unit, lba, blocks)
}

/// The same for a command that moves the blocks themselves: refuses protection information, which this unit
/// has not, and more than MAXIMUM TRANSFER LENGTH.
pub(crate) fn transfer(cdb: &Cdb, cx: &Context<'_>) -> Result<Extent, Sense> {
    let form = Form::of(cdb);
    if !matches!(form, Form::Six) {
        cdb.refuse(1, 0xe0)?;
    }
    let extent = extent(cdb, cx)?;
    //= SBC-4 6.6.4
    if extent.blocks > u64::from(MAX_TRANSFER_BLOCKS) {
        return Err(Sense::cdb_field(form.length_byte(), None));
    }
    Ok(extent)
}

/// READ (6), (10), (12), (16)
pub(crate) fn read(cdb: &Cdb, cx: &mut Context<'_>) -> Outcome {
    let extent = transfer(cdb, cx)?;
    if extent.blocks == 0 {
        return Ok(Step::good());
    }
    let request = BlockRequest::Read { offset: extent.offset(), len: extent.bytes() as u32 };
    Ok(Step::Submit { request, task: RunningTask::Read(extent.bytes()) })
}

/// WRITE (6), (10), (12), (16)
pub(crate) fn write(cdb: &Cdb, cx: &mut Context<'_>) -> Outcome {
    Ok(need_data(transfer(cdb, cx)?, AfterWrite::Nothing))
}

/// WRITE AND VERIFY (10), (12), (16)
pub(crate) fn write_and_verify(cdb: &Cdb, cx: &mut Context<'_>) -> Outcome {
    let extent = transfer(cdb, cx)?;
    let after = match (cdb.byte(1) >> 1) & 0b11 {
        0b00 => AfterWrite::Read,
        0b01 => AfterWrite::Compare,
        _ => return Err(Sense::cdb_field(1, Some(2))),
    };
    Ok(need_data(extent, after))
}

fn need_data(extent: Extent, after: AfterWrite) -> Step {
    if extent.blocks == 0 {
        return Step::good();
    }
    Step::NeedData { bytes: extent.bytes() as u32, task: DataTask::Write(Write { extent, after }) }
}

/// What follows a write.
#[derive(Clone, Copy, Debug)]
enum AfterWrite {
    Nothing,
    /// The blocks are to be readable.
    Read,
    /// The blocks are to be what was written.
    Compare,
}

/// A write that waits for its data.
#[derive(Debug)]
pub struct Write {
    extent: Extent,
    after: AfterWrite,
}

impl Write {
    /// An initiator that offers fewer whole blocks than it names has those written; the transport reports the
    /// rest as a residual.
    pub(crate) fn data(mut self, data: Vec<Bytes>) -> Outcome {
        let given = total(&data);
        if given > self.extent.bytes() || !given.is_multiple_of(u64::from(LOGICAL_BLOCK_BYTES)) {
            return Err(Sense::wrong_length());
        }
        self.extent.blocks = given / u64::from(LOGICAL_BLOCK_BYTES);
        if self.extent.blocks == 0 {
            return Ok(Step::good());
        }
        let task = match self.after {
            AfterWrite::Nothing => RunningTask::Last,
            AfterWrite::Read => RunningTask::ThenVerify(Verify::new(self.extent, Expected::Anything)),
            AfterWrite::Compare => {
                RunningTask::ThenVerify(Verify::new(self.extent, Expected::Data(data.clone())))
            }
        };
        Ok(Step::Submit { request: BlockRequest::Write { offset: self.extent.offset(), data }, task })
    }
}

//= SBC-4 5.33
/// SYNCHRONIZE CACHE (10), (16). The range is checked; the flush is of every earlier write.
pub(crate) fn synchronize_cache(cdb: &Cdb, cx: &mut Context<'_>) -> Outcome {
    extent(cdb, cx)?;
    Ok(Step::Submit { request: BlockRequest::Flush, task: RunningTask::Last })
}
