//! UNMAP: ranges that hold no data any more. They read as zeros afterwards (LBPRZ).
//!
//! Source: SBC-4 5.34.

use crate::{
    Cdb, Code, Context, Outcome, Sense, Step,
    extent::Extent,
    task::{DataTask, RunningTask, total},
    unit::{LogicalUnit, MAX_UNMAP_BLOCKS, MAX_UNMAP_DESCRIPTORS},
};
use alloc::{collections::VecDeque, vec::Vec};
use bytes::Bytes;
use holdfast_types::{BlockRequest, Export};

const HEADER_BYTES: usize = 8;
const DESCRIPTOR_BYTES: usize = 16;

/// An UNMAP that waits for its list of ranges.
#[derive(Debug)]
pub struct UnmapList {
    bytes: usize,
    export: Export,
}

/// UNMAP
pub(crate) fn unmap(cdb: &Cdb, cx: &mut Context<'_>) -> Outcome {
    // ANCHOR
    cdb.refuse(1, 0x01)?;
    let bytes = cdb.u16(7);
    if bytes == 0 {
        return Ok(Step::good());
    }
    if usize::from(bytes) < HEADER_BYTES {
        return Err(Sense::illegal(Code::PARAMETER_LIST_LENGTH_ERROR));
    }
    let task = UnmapList { bytes: usize::from(bytes), export: cx.unit.export.clone() };
    Ok(Step::NeedData { bytes: u32::from(bytes), task: DataTask::Unmap(task) })
}

impl UnmapList {
    pub(crate) fn data(self, data: Vec<Bytes>) -> Outcome {
        if total(&data) != self.bytes as u64 {
            return Err(Sense::wrong_length());
        }
        let list = data.concat();
        let unit = LogicalUnit { export: &self.export, target_name: "", port: 0 };
        Ok(Unmap { ranges: parse(&list, &unit)? }.next())
    }
}

/// The ranges of a parameter list, all checked before any takes effect.
fn parse(list: &[u8], unit: &LogicalUnit<'_>) -> Result<VecDeque<Extent>, Sense> {
    // The CDB's length was checked to cover the header.
    let named = usize::from(u16::from_be_bytes([list[2], list[3]]));
    let descriptors = named / DESCRIPTOR_BYTES;
    if HEADER_BYTES + descriptors * DESCRIPTOR_BYTES > list.len() {
        return Err(Sense::parameter_field(2));
    }
    if descriptors > MAX_UNMAP_DESCRIPTORS as usize {
        return Err(Sense::parameter_field(2));
    }
    let mut ranges = VecDeque::new();
    let mut blocks_total = 0u64;
    for (index, entry) in list[HEADER_BYTES..].chunks_exact(DESCRIPTOR_BYTES).take(descriptors).enumerate() {
        let lba = entry[..8].iter().fold(0u64, |n, byte| (n << 8) | u64::from(*byte));
        let blocks = entry[8..12].iter().fold(0u64, |n, byte| (n << 8) | u64::from(*byte));
        let extent = Extent::checked(unit, lba, blocks)?;
        blocks_total += blocks;
        if blocks_total > u64::from(MAX_UNMAP_BLOCKS) {
            return Err(Sense::parameter_field((HEADER_BYTES + index * DESCRIPTOR_BYTES + 8) as u16));
        }
        if blocks > 0 {
            ranges.push_back(extent);
        }
    }
    Ok(ranges)
}

/// Ranges that are being given back, one after the other.
#[derive(Debug)]
pub struct Unmap {
    ranges: VecDeque<Extent>,
}

impl Unmap {
    /// The next range, or the end.
    pub(crate) fn next(mut self) -> Step {
        match self.ranges.pop_front() {
            None => Step::good(),
            Some(range) => {
                let request = BlockRequest::Zero { offset: range.offset(), len: range.bytes() };
                Step::Submit { request, task: RunningTask::Unmap(self) }
            }
        }
    }
}
