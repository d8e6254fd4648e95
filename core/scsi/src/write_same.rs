//! WRITE SAME: one block, repeated. Zeros, with or without UNMAP, become a request to zero the range, since
//! what is absent reads as zeros. Another pattern is written in steps, so that its memory does not grow with
//! the range.
//!
//! Source: SBC-4 5.52, 5.53.

use crate::{
    Cdb, Context, Outcome, Sense, Step,
    extent::Extent,
    read_write,
    task::{DataTask, RunningTask, total},
    unit::{LOGICAL_BLOCK_BYTES, MAX_WRITE_SAME_BLOCKS, STEP_BLOCKS},
};
use alloc::{vec, vec::Vec};
use bytes::Bytes;
use holdfast_types::BlockRequest;

const OPCODE_16: u8 = 0x93;
/// How many bytes of the repeated pattern are held in memory, shared by every piece of a step.
const PATTERN_BYTES: usize = 64 << 10;

/// A WRITE SAME that waits for its block.
#[derive(Debug)]
pub struct WriteSame {
    extent: Extent,
}

/// WRITE SAME (10), (16)
pub(crate) fn write_same(cdb: &Cdb, cx: &mut Context<'_>) -> Outcome {
    // WRPROTECT, ANCHOR and the obsolete PBDATA and LBDATA.
    cdb.refuse(1, 0xe0 | 0x10 | 0x06)?;
    let sixteen = cdb.opcode() == OPCODE_16;
    if !sixteen {
        cdb.refuse(1, 0x01)?;
    }
    let extent = read_write::extent(cdb, cx)?;
    //= SBC-4 6.6.4
    // WSNZ is set: zero blocks do not mean "to the end".
    if extent.blocks == 0 || extent.blocks > u64::from(MAX_WRITE_SAME_BLOCKS) {
        return Err(Sense::cdb_field(if sixteen { 10 } else { 7 }, None));
    }
    let no_data = sixteen && cdb.bits(1, 0x01);
    if no_data {
        return Ok(zero(extent));
    }
    Ok(Step::NeedData { bytes: LOGICAL_BLOCK_BYTES, task: DataTask::WriteSame(WriteSame { extent }) })
}

fn zero(extent: Extent) -> Step {
    let request = BlockRequest::Zero { offset: extent.offset(), len: extent.bytes() };
    Step::Submit { request, task: RunningTask::Last }
}

impl WriteSame {
    pub(crate) fn data(self, data: Vec<Bytes>) -> Outcome {
        if total(&data) != u64::from(LOGICAL_BLOCK_BYTES) {
            return Err(Sense::wrong_length());
        }
        let block = data.concat();
        if block.iter().all(|byte| *byte == 0) {
            return Ok(zero(self.extent));
        }
        let pattern = Bytes::from(block.repeat(PATTERN_BYTES / block.len()));
        Ok(Fill { rest: self.extent, pattern }.next())
    }
}

/// A range that is being filled with a pattern.
#[derive(Debug)]
pub struct Fill {
    rest: Extent,
    pattern: Bytes,
}

impl Fill {
    /// The next stretch to write, or the end.
    pub(crate) fn next(mut self) -> Step {
        let (now, rest) = self.rest.split(STEP_BLOCKS);
        if now.blocks == 0 {
            return Step::good();
        }
        let bytes = now.bytes() as usize;
        let mut data = vec![self.pattern.clone(); bytes / PATTERN_BYTES];
        if !bytes.is_multiple_of(PATTERN_BYTES) {
            data.push(self.pattern.slice(..bytes % PATTERN_BYTES));
        }
        self.rest = rest;
        let request = BlockRequest::Write { offset: now.offset(), data };
        Step::Submit { request, task: RunningTask::Fill(self) }
    }
}
