//! A run of logical blocks that a CDB names, checked against the unit.

use crate::{Code, LogicalUnit, Sense, unit::LOGICAL_BLOCK_BYTES};

/// A run of logical blocks that lies in the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first block.
    pub lba: u64,
    /// How many.
    pub blocks: u64,
}

impl Extent {
    //= SBC-4 4.26
    /// The run, or LBA OUT OF RANGE.
    pub fn checked(unit: &LogicalUnit<'_>, lba: u64, blocks: u64) -> Result<Extent, Sense> {
        let end = lba.checked_add(blocks);
        if end.is_none_or(|end| end > unit.blocks()) {
            return Err(Sense::illegal(Code::LBA_OUT_OF_RANGE));
        }
        Ok(Extent { lba, blocks })
    }
    /// Where it starts, in bytes.
    pub fn offset(&self) -> u64 {
        self.lba * u64::from(LOGICAL_BLOCK_BYTES)
    }
    /// How long it is, in bytes.
    pub fn bytes(&self) -> u64 {
        self.blocks * u64::from(LOGICAL_BLOCK_BYTES)
    }
    /// The first `blocks` of it at most, and what is left.
    pub fn split(self, blocks: u64) -> (Extent, Extent) {
        let first = self.blocks.min(blocks);
        let rest = Extent { lba: self.lba + first, blocks: self.blocks - first };
        (Extent { lba: self.lba, blocks: first }, rest)
    }
}
