//! COMPARE AND WRITE: the initiators' lock. Decided at the volume, in the order of its writes.
//!
//! Source: SBC-4 5.3.

use crate::{
    Cdb, Context, Outcome, Sense, Step,
    extent::Extent,
    task::{DataTask, RunningTask, total},
    unit::MAX_COMPARE_AND_WRITE_BLOCKS,
};
use alloc::vec::Vec;
use bytes::Bytes;
use holdfast_types::BlockRequest;

/// A COMPARE AND WRITE that waits for both blocks.
#[derive(Debug)]
pub struct CompareAndWrite {
    extent: Extent,
}

/// COMPARE AND WRITE
pub(crate) fn compare_and_write(cdb: &Cdb, cx: &mut Context<'_>) -> Outcome {
    cdb.refuse(1, 0xe0)?;
    let blocks = cdb.byte(13);
    let extent = Extent::checked(&cx.unit, cdb.u64(2), u64::from(blocks))?;
    if blocks == 0 {
        return Ok(Step::good());
    }
    if blocks > MAX_COMPARE_AND_WRITE_BLOCKS {
        return Err(Sense::cdb_field(13, None));
    }
    let bytes = 2 * extent.bytes() as u32;
    Ok(Step::NeedData { bytes, task: DataTask::CompareAndWrite(CompareAndWrite { extent }) })
}

impl CompareAndWrite {
    pub(crate) fn data(self, data: Vec<Bytes>) -> Outcome {
        if total(&data) != 2 * self.extent.bytes() {
            return Err(Sense::wrong_length());
        }
        let mut compare = Bytes::from(data.concat());
        let data = compare.split_off(compare.len() / 2);
        let request = BlockRequest::CompareAndWrite { offset: self.extent.offset(), compare, data };
        Ok(Step::Submit { request, task: RunningTask::Last })
    }
}
