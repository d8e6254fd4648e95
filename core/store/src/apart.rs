//! Where a block of the superblocks, the journal or the pages cannot be read. What a power cut tore may be unreadable, as what
//! the medium lost: neither costs the disk. The range is read anew block by block, and the block that cannot be read is taken for
//! one that is damaged.
//!
//! While a disk is opened that holds for one block of the journal: it hides no more than one batch, as damage does that can
//! be read. It holds for a few of the pages, and later of the journal: other copies have their content. With more the disk has
//! failed: it may be that nothing can be read any more, and what is there is better left as it is.

use crate::api::StoreOutput;
use crate::disk::Disk;
use crate::layout::BLOCK;
use crate::overlay::{Content, OverlayBlock};
use crate::writeback::RoundOrder;
use alloc::vec::Vec;
use bytes::Bytes;
use holdfast_types::{BLOCK_BYTES, DiskFault, DiskOrderKind};

/// Taken for what cannot be read: neither blank nor anything of ours.
static UNREADABLE: [u8; BLOCK_BYTES] = [0xff; BLOCK_BYTES];

/// What Linux says of a block that the medium lost: EIO, ENODATA, EILSEQ.
const MEDIUM_ERRORS: [i32; 3] = [5, 61, 84];

/// Blocks of the journal that a run may find unreadable when their content is to be put in place.
const UNREADABLE_MOST: u32 = 16;
/// Slots of pages that an opening may find unreadable.
pub(crate) const UNREADABLE_PAGES_MOST: usize = 16;

fn is_of_medium(fault: DiskFault) -> bool {
    matches!(fault, DiskFault::Io(errno) if MEDIUM_ERRORS.contains(&errno))
}

/// A range that is read block by block.
#[derive(Debug)]
struct Apart {
    offset: u64,
    len: usize,
    data: Vec<u8>,
}

/// Reads of one opening, one after the other.
#[derive(Debug)]
pub(crate) struct Reads {
    most: usize,
    offset: u64,
    len: u64,
    apart: Option<Apart>,
    unreadable: Vec<(u64, DiskFault)>,
}

/// What came of a read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// All of it is there.
    Whole(Bytes),
    /// This is to be read next: first byte and length.
    Next(u64, u64),
}

impl Reads {
    /// At most so many blocks may be unreadable.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, offset: 0, len: 0, apart: None, unreadable: Vec::new() }
    }

    /// A range is about to be read.
    pub(crate) fn begin(&mut self, offset: u64, len: u64) {
        (self.offset, self.len) = (offset, len);
    }

    /// The blocks that could not be read: the first byte of each, and why.
    pub(crate) fn unreadable(&self) -> &[(u64, DiskFault)] {
        &self.unreadable
    }

    /// Takes what came of the range, or of a block of it.
    pub(crate) fn done(&mut self, result: Result<Bytes, DiskFault>) -> Result<Read, DiskFault> {
        let Some(mut apart) = self.apart.take() else {
            return match result {
                Err(fault) if is_of_medium(fault) => {
                    let (offset, len) = (self.offset, self.len as usize);
                    self.apart = Some(Apart { offset, len, data: Vec::with_capacity(len) });
                    Ok(Read::Next(offset, BLOCK))
                }
                result => result.map(Read::Whole),
            };
        };
        let at = apart.offset + apart.data.len() as u64;
        match result {
            Ok(block) => apart.data.extend_from_slice(&block),
            Err(fault) => {
                if !self.unreadable.iter().any(|(known, _)| *known == at) {
                    if self.unreadable.len() == self.most {
                        return Err(fault);
                    }
                    self.unreadable.push((at, fault));
                }
                apart.data.extend_from_slice(&UNREADABLE);
            }
        }
        if apart.data.len() >= apart.len {
            return Ok(Read::Whole(apart.data.into()));
        }
        let next = apart.offset + apart.data.len() as u64;
        self.apart = Some(apart);
        Ok(Read::Next(next, BLOCK))
    }
}

impl Disk {
    /// Whether a fault may be one of a few blocks, and not yet of the disk.
    pub(crate) fn is_of_a_block(&self, fault: DiskFault) -> bool {
        is_of_medium(fault) && self.unreadable < UNREADABLE_MOST
    }

    /// Some content that is only in the journal could not be read: it is read block by block, and a block that cannot be read is
    /// a damaged one.
    pub(crate) fn read_apart(
        &mut self,
        index: usize,
        first: usize,
        count: usize,
        cost: usize,
        out: &mut Vec<StoreOutput>,
    ) {
        if count == 1 {
            self.unreadable += 1;
            let order = RoundOrder::Journal { index, first, count };
            return self.round_done(order, cost, Ok(Bytes::from_static(&UNREADABLE)), out);
        }
        let Some(round) = &mut self.round else { return };
        round.outstanding -= cost;
        for n in first..first + count {
            let Some((_, OverlayBlock { content: Content::Journal(offset), .. })) =
                round.extents[index].blocks.get(n)
            else {
                continue;
            };
            let kind = DiskOrderKind::Read { offset: *offset, len: BLOCK_BYTES };
            round.queued.push_back((kind, RoundOrder::Journal { index, first: n, count: 1 }));
        }
        self.advance_round(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAULT: DiskFault = DiskFault::Io(5);

    fn block(byte: u8) -> Bytes {
        Bytes::from(alloc::vec![byte; BLOCK_BYTES])
    }

    #[test]
    fn one_block_may_be_unreadable_however_often_and_a_second_one_not() {
        let mut reads = Reads::new(1);
        for _ in 0..2 {
            reads.begin(3 * BLOCK, 3 * BLOCK);
            assert_eq!(reads.done(Err(FAULT)), Ok(Read::Next(3 * BLOCK, BLOCK)));
            assert_eq!(reads.done(Ok(block(1))), Ok(Read::Next(4 * BLOCK, BLOCK)));
            assert_eq!(reads.done(Err(FAULT)), Ok(Read::Next(5 * BLOCK, BLOCK)));
            let whole = [block(1), block(0xff), block(2)].concat();
            assert_eq!(reads.done(Ok(block(2))), Ok(Read::Whole(whole.into())));
            assert_eq!(reads.unreadable(), [(4 * BLOCK, FAULT)]);
        }
        reads.begin(0, 2 * BLOCK);
        assert_eq!(reads.done(Ok(block(3))), Ok(Read::Whole(block(3))));
        reads.begin(5 * BLOCK, BLOCK);
        assert_eq!(reads.done(Err(FAULT)), Ok(Read::Next(5 * BLOCK, BLOCK)));
        assert_eq!(reads.done(Err(FAULT)), Err(FAULT));
    }

    #[test]
    fn a_device_that_is_gone_or_short_is_not_read_apart() {
        for fault in [DiskFault::Io(19), DiskFault::Short] {
            let mut reads = Reads::new(1);
            reads.begin(0, 2 * BLOCK);
            assert_eq!(reads.done(Err(fault)), Err(fault));
            assert_eq!(reads.unreadable(), []);
        }
    }
}
