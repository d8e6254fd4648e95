//! A volume's request cut into requests to its segments, and their results put together again.
//!
//! A part never crosses a segment and never carries more than one record's data. The parts are independent:
//! SBC-4 promises no atomicity over several blocks, so the request is good when all of them are
//! (replication.md H18).

use alloc::vec::Vec;
use bytes::Bytes;
use holdfast_replication::SegmentOp;
use holdfast_types::{
    BLOCK_BYTES, BlockError, BlockReply, BlockRequest, BlockResult, MAX_RECORD_BYTES, SECTOR_BYTES,
    SEGMENT_BYTES, StatusRange,
};

/// A piece of a request: for which segment of the volume, and what to do there.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    /// The segment's index in the volume.
    pub segment: u32,
    /// Offsets in it are relative to its start.
    pub op: SegmentOp,
}

/// Checks `request` against the volume's size and cuts it. A flush has no pieces.
pub fn split(request: BlockRequest, volume_size: u64) -> Result<Vec<Piece>, BlockError> {
    let (offset, len) = extent_of(&request);
    let sector = SECTOR_BYTES as u64;
    if !offset.is_multiple_of(sector) || !len.is_multiple_of(sector) {
        return Err(BlockError::Invalid);
    }
    if offset > volume_size || len > volume_size - offset {
        return Err(BlockError::OutOfRange);
    }
    Ok(match request {
        BlockRequest::Read { offset, len } => spans(offset, u64::from(len), MAX_RECORD_BYTES as u64)
            .map(|(segment, offset, len)| Piece { segment, op: SegmentOp::Read { offset, len: len as u32 } })
            .collect(),
        BlockRequest::Write { offset, data } => {
            let mut data = Cursor { pieces: data, piece: 0, at: 0 };
            spans(offset, len, MAX_RECORD_BYTES as u64)
                .map(|(segment, offset, len)| {
                    let data = data.take(len as usize);
                    Piece { segment, op: SegmentOp::Write { offset, data } }
                })
                .collect()
        }
        BlockRequest::Zero { offset, len } => spans(offset, len, SEGMENT_BYTES)
            .map(|(segment, offset, len)| Piece { segment, op: SegmentOp::Zero { offset, len } })
            .collect(),
        BlockRequest::Status { offset, len } => spans(offset, len, SEGMENT_BYTES)
            .map(|(segment, offset, len)| Piece { segment, op: SegmentOp::Status { offset, len } })
            .collect(),
        BlockRequest::CompareAndWrite { offset, compare, data } => {
            let inside = offset % BLOCK_BYTES as u64 + len <= BLOCK_BYTES as u64;
            if compare.len() != data.len() || len == 0 || !inside {
                return Err(BlockError::Invalid);
            }
            let (segment, offset) = ((offset / SEGMENT_BYTES) as u32, offset % SEGMENT_BYTES);
            alloc::vec![Piece { segment, op: SegmentOp::CompareAndWrite { offset, compare, data } }]
        }
        BlockRequest::Flush => Vec::new(),
    })
}

fn extent_of(request: &BlockRequest) -> (u64, u64) {
    match request {
        BlockRequest::Read { offset, len } => (*offset, u64::from(*len)),
        BlockRequest::Write { offset, data } => (*offset, data.iter().map(|d| d.len() as u64).sum()),
        BlockRequest::Zero { offset, len } | BlockRequest::Status { offset, len } => (*offset, *len),
        BlockRequest::CompareAndWrite { offset, data, .. } => (*offset, data.len() as u64),
        BlockRequest::Flush => (0, 0),
    }
}

/// The range cut at segment borders and at multiples of `most` bytes: (segment, offset in it, length).
fn spans(offset: u64, len: u64, most: u64) -> impl Iterator<Item = (u32, u64, u64)> {
    let (mut at, end) = (offset, offset + len);
    core::iter::from_fn(move || {
        (at < end).then(|| {
            let next = (at / most + 1) * most;
            let segment_end = (at / SEGMENT_BYTES + 1) * SEGMENT_BYTES;
            let stop = next.min(segment_end).min(end);
            let span = ((at / SEGMENT_BYTES) as u32, at % SEGMENT_BYTES, stop - at);
            at = stop;
            span
        })
    })
}

/// Hands out pieces of a list of buffers without copying.
struct Cursor {
    pieces: Vec<Bytes>,
    piece: usize,
    at: usize,
}

impl Cursor {
    fn take(&mut self, mut len: usize) -> Vec<Bytes> {
        let mut taken = Vec::new();
        while len > 0 {
            let piece = &self.pieces[self.piece];
            let n = len.min(piece.len() - self.at);
            taken.push(piece.slice(self.at..self.at + n));
            self.at += n;
            len -= n;
            if self.at == piece.len() {
                (self.piece, self.at) = (self.piece + 1, 0);
            }
        }
        taken
    }
}

/// Puts the results of a request's parts together: the first failure in the order of the range, or all data.
pub fn join(results: Vec<BlockResult>) -> BlockResult {
    let mut data = Vec::new();
    let mut status: Vec<StatusRange> = Vec::new();
    for result in results {
        match result? {
            BlockReply::Done => {}
            BlockReply::Data(mut pieces) => data.append(&mut pieces),
            BlockReply::Status(ranges) => {
                for range in ranges {
                    match status.last_mut() {
                        Some(last) if last.allocated == range.allocated => last.len += range.len,
                        _ => status.push(range),
                    }
                }
            }
        }
    }
    Ok(if !data.is_empty() {
        BlockReply::Data(data)
    } else if !status.is_empty() {
        BlockReply::Status(status)
    } else {
        BlockReply::Done
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_write_over_two_segments_becomes_two_without_copying() {
        let data = vec![Bytes::from(vec![1u8; 4096]), Bytes::from(vec![2u8; 8192])];
        let pieces =
            split(BlockRequest::Write { offset: SEGMENT_BYTES - 8192, data }, 2 * SEGMENT_BYTES).unwrap();
        assert_eq!(pieces.len(), 2);
        let SegmentOp::Write { offset, data } = &pieces[0].op else { panic!("not a write") };
        assert_eq!((pieces[0].segment, *offset), (0, SEGMENT_BYTES - 8192));
        assert_eq!(data.iter().map(|d| (d[0], d.len())).collect::<Vec<_>>(), [(1, 4096), (2, 4096)]);
        let SegmentOp::Write { offset, data } = &pieces[1].op else { panic!("not a write") };
        assert_eq!((pieces[1].segment, *offset), (1, 0));
        assert_eq!(data.iter().map(|d| (d[0], d.len())).collect::<Vec<_>>(), [(2, 4096)]);
    }

    #[test]
    fn a_long_read_is_cut_to_records() {
        let pieces = split(BlockRequest::Read { offset: 512, len: 3 << 20 }, SEGMENT_BYTES).unwrap();
        let lens: Vec<u32> = pieces
            .iter()
            .map(|p| match p.op {
                SegmentOp::Read { len, .. } => len,
                _ => panic!("not a read"),
            })
            .collect();
        assert_eq!(lens, [(1 << 20) - 512, 1 << 20, 1 << 20, 512]);
    }

    #[test]
    fn what_lies_outside_or_on_no_sector_is_refused() {
        let size = 1 << 20;
        assert_eq!(split(BlockRequest::Read { offset: size, len: 512 }, size), Err(BlockError::OutOfRange));
        assert_eq!(
            split(BlockRequest::Zero { offset: 0, len: size + 512 }, size),
            Err(BlockError::OutOfRange)
        );
        assert_eq!(
            split(BlockRequest::Read { offset: u64::MAX - 511, len: 512 }, size),
            Err(BlockError::OutOfRange)
        );
        assert_eq!(split(BlockRequest::Read { offset: 1, len: 512 }, size), Err(BlockError::Invalid));
    }

    #[test]
    fn compare_and_write_stays_inside_one_block() {
        let sectors = |n: usize| Bytes::from(vec![0u8; n * SECTOR_BYTES]);
        let cw = |offset, n| BlockRequest::CompareAndWrite { offset, compare: sectors(n), data: sectors(n) };
        assert!(split(cw(512, 7), 1 << 20).is_ok());
        assert_eq!(split(cw(512, 8), 1 << 20), Err(BlockError::Invalid));
    }

    #[test]
    fn the_first_failure_in_order_is_the_answer() {
        let results = vec![Ok(BlockReply::Done), Err(BlockError::NoSpace), Err(BlockError::Gone)];
        assert_eq!(join(results), Err(BlockError::NoSpace));
    }

    #[test]
    fn runs_of_status_are_merged_over_parts() {
        let run = |len, allocated| StatusRange { len, allocated };
        let parts = vec![
            Ok(BlockReply::Status(vec![run(1, true), run(2, false)])),
            Ok(BlockReply::Status(vec![run(3, false)])),
        ];
        assert_eq!(join(parts), Ok(BlockReply::Status(vec![run(1, true), run(5, false)])));
    }
}
