//! VERIFY: reads blocks and, when asked, compares them with data of the initiator's. Goes through a long
//! range in steps, so that its memory does not grow with the range.
//!
//! Source: SBC-4 5.35 to 5.37.

use crate::{
    Cdb, Code, Context, Outcome, Sense, SenseKey, Step,
    extent::Extent,
    read_write,
    task::{DataTask, RunningTask, total},
    unit::{LOGICAL_BLOCK_BYTES, STEP_BLOCKS},
};
use alloc::vec::Vec;
use bytes::{Buf, Bytes};
use holdfast_types::BlockRequest;

/// What the blocks are compared with.
#[derive(Debug)]
pub(crate) enum Expected {
    /// Nothing: they are to be readable.
    Anything,
    /// This, which follows itself through all the blocks.
    Data(Vec<Bytes>),
    /// Each with this block.
    Repeated(Bytes),
}

/// A range that is being verified.
#[derive(Debug)]
pub struct Verify {
    rest: Extent,
    /// Bytes verified so far.
    done: u64,
    expected: Expected,
}

/// VERIFY (10), (12), (16)
pub(crate) fn verify(cdb: &Cdb, cx: &mut Context<'_>) -> Outcome {
    cdb.refuse(1, 0xe0)?;
    match (cdb.byte(1) >> 1) & 0b11 {
        0b00 => Ok(Verify::new(read_write::extent(cdb, cx)?, Expected::Anything).next()),
        0b01 => {
            let extent = read_write::transfer(cdb, cx)?;
            Ok(need_data(extent, extent.bytes() as u32, Expected::Data(Vec::new())))
        }
        0b11 => {
            let extent = read_write::extent(cdb, cx)?;
            Ok(need_data(extent, LOGICAL_BLOCK_BYTES, Expected::Repeated(Bytes::new())))
        }
        _ => Err(Sense::cdb_field(1, Some(2))),
    }
}

fn need_data(extent: Extent, bytes: u32, expected: Expected) -> Step {
    if extent.blocks == 0 {
        return Step::good();
    }
    Step::NeedData { bytes, task: DataTask::Verify(Verify::new(extent, expected)) }
}

impl Verify {
    pub(crate) fn new(extent: Extent, expected: Expected) -> Self {
        Self { rest: extent, done: 0, expected }
    }

    pub(crate) fn data(mut self, data: Vec<Bytes>) -> Outcome {
        let wanted = match &self.expected {
            Expected::Repeated(_) => u64::from(LOGICAL_BLOCK_BYTES),
            Expected::Data(_) | Expected::Anything => self.rest.bytes(),
        };
        if total(&data) != wanted {
            return Err(Sense::wrong_length());
        }
        self.expected = match self.expected {
            Expected::Repeated(_) => Expected::Repeated(data.concat().into()),
            _ => Expected::Data(data),
        };
        Ok(self.next())
    }

    /// The next stretch to read, or the end.
    pub(crate) fn next(self) -> Step {
        let (now, _) = self.rest.split(STEP_BLOCKS);
        if now.blocks == 0 {
            return Step::good();
        }
        let request = BlockRequest::Read { offset: now.offset(), len: now.bytes() as u32 };
        Step::Submit { request, task: RunningTask::Verify(self) }
    }

    /// A stretch was read.
    pub(crate) fn read(mut self, data: &[Bytes]) -> Outcome {
        let (now, rest) = self.rest.split(STEP_BLOCKS);
        if total(data) != now.bytes() {
            return Err(Sense::new(SenseKey::HardwareError, Code::INTERNAL_TARGET_FAILURE));
        }
        if let Some(at) = self.first_difference(data) {
            let sense = Sense::new(SenseKey::Miscompare, Code::MISCOMPARE_DURING_VERIFY);
            return Err(sense.with_information(self.done + at));
        }
        self.done += now.bytes();
        self.rest = rest;
        Ok(self.next())
    }

    /// Compares a stretch, and drops what of the expected data is compared.
    fn first_difference(&mut self, data: &[Bytes]) -> Option<u64> {
        match &mut self.expected {
            Expected::Anything => None,
            Expected::Data(expected) => {
                let mut compared = 0;
                let mut pieces = core::mem::take(expected).into_iter();
                let mut want = Bytes::new();
                for have in data {
                    let mut have = &have[..];
                    while !have.is_empty() {
                        while want.is_empty() {
                            // The lengths were checked when the data arrived: pieces do not run out early.
                            want = pieces.next()?;
                        }
                        let len = have.len().min(want.len());
                        if let Some(at) = differing(&have[..len], &want[..len]) {
                            return Some(compared + at);
                        }
                        have = &have[len..];
                        want.advance(len);
                        compared += len as u64;
                    }
                }
                expected.push(want);
                expected.extend(pieces);
                None
            }
            Expected::Repeated(pattern) => {
                let mut compared = 0u64;
                for have in data {
                    for (at, byte) in have.iter().enumerate() {
                        let place = (compared as usize + at) % pattern.len();
                        if *byte != pattern[place] {
                            return Some(compared + at as u64);
                        }
                    }
                    compared += have.len() as u64;
                }
                None
            }
        }
    }
}

fn differing(a: &[u8], b: &[u8]) -> Option<u64> {
    if a == b {
        return None;
    }
    a.iter().zip(b).position(|(a, b)| a != b).map(|at| at as u64)
}
