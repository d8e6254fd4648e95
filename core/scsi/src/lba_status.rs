//! GET LBA STATUS: which blocks hold data.
//!
//! Source: SBC-4 5.6.

use crate::{
    Cdb, Code, Context, Outcome, Sense, Step, extent::Extent, task::RunningTask, unit::LOGICAL_BLOCK_BYTES,
};
use alloc::{vec, vec::Vec};
use holdfast_types::{BlockRequest, StatusRange};

const HEADER_BYTES: usize = 8;
const DESCRIPTOR_BYTES: usize = 16;
/// How far one command looks, in blocks (1 GiB).
const MAX_BLOCKS: u64 = 1 << 21;
/// How many runs one command reports.
const MAX_DESCRIPTORS: usize = 256;
const MAPPED: u8 = 0;
const DEALLOCATED: u8 = 1;

/// A GET LBA STATUS that waits for the volume.
#[derive(Debug)]
pub struct LbaStatus {
    extent: Extent,
    allocation: usize,
}

/// GET LBA STATUS
pub(crate) fn get_lba_status(cdb: &Cdb, cx: &mut Context<'_>) -> Outcome {
    let lba = cdb.u64(2);
    // One block at least is to be there.
    Extent::checked(&cx.unit, lba, 1).map_err(|_| Sense::illegal(Code::LBA_OUT_OF_RANGE))?;
    let extent = Extent { lba, blocks: (cx.unit.blocks() - lba).min(MAX_BLOCKS) };
    let request = BlockRequest::Status { offset: extent.offset(), len: extent.bytes() };
    let task = RunningTask::LbaStatus(LbaStatus { extent, allocation: cdb.u32(10) as usize });
    Ok(Step::Submit { request, task })
}

impl LbaStatus {
    pub(crate) fn status(self, runs: &[StatusRange]) -> Step {
        let room = self.allocation.saturating_sub(HEADER_BYTES) / DESCRIPTOR_BYTES;
        let mut data = vec![0; HEADER_BYTES];
        let mut at = 0;
        for run in merged(runs, self.extent.bytes()).into_iter().take(room.clamp(1, MAX_DESCRIPTORS)) {
            let blocks = run.len / u64::from(LOGICAL_BLOCK_BYTES);
            data.extend((self.extent.lba + at).to_be_bytes());
            data.extend((blocks as u32).to_be_bytes());
            data.extend([if run.allocated { MAPPED } else { DEALLOCATED }, 0, 0, 0]);
            at += blocks;
        }
        let following = (data.len() - 4) as u32;
        data[..4].copy_from_slice(&following.to_be_bytes());
        Step::data(data, self.allocation)
    }
}

/// The runs, neighbours of one kind joined, none beyond the range and none empty.
fn merged(runs: &[StatusRange], bytes: u64) -> Vec<StatusRange> {
    let mut merged: Vec<StatusRange> = Vec::new();
    let mut left = bytes;
    for run in runs {
        let len = run.len.min(left);
        left -= len;
        match merged.last_mut() {
            _ if len == 0 => {}
            Some(last) if last.allocated == run.allocated => last.len += len,
            _ => merged.push(StatusRange { len, allocated: run.allocated }),
        }
    }
    if merged.is_empty() {
        merged.push(StatusRange { len: bytes, allocated: true });
    }
    merged
}
