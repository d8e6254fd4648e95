//! The logical unit behind a target, and what one initiator port has yet to be told about it.

use crate::{Code, Sense, SenseKey};
use alloc::collections::VecDeque;
use holdfast_types::{BLOCK_BYTES, Export, SECTOR_BYTES};

/// Bytes in a logical block.
pub const LOGICAL_BLOCK_BYTES: u32 = SECTOR_BYTES as u32;
/// Logical blocks in a physical one, as a power of two.
pub const PHYSICAL_BLOCK_EXPONENT: u8 = (BLOCK_BYTES / SECTOR_BYTES).trailing_zeros() as u8;
/// Logical blocks in a physical one.
pub const PHYSICAL_BLOCK_LENGTH: u16 = 1 << PHYSICAL_BLOCK_EXPONENT;
/// The longest READ or WRITE, in logical blocks (4 MiB): what one command may hold of the session's memory.
pub const MAX_TRANSFER_BLOCKS: u32 = 8192;
/// What is best to transfer at once, in logical blocks (1 MiB, one log record).
pub const OPTIMAL_TRANSFER_BLOCKS: u32 = 2048;
/// The most logical blocks that one UNMAP names (512 MiB).
pub const MAX_UNMAP_BLOCKS: u32 = 1 << 20;
/// The most ranges that one UNMAP names.
pub const MAX_UNMAP_DESCRIPTORS: u32 = 256;
/// The longest WRITE SAME, in logical blocks (2 GiB).
pub const MAX_WRITE_SAME_BLOCKS: u32 = 1 << 22;
/// The longest COMPARE AND WRITE, in logical blocks.
pub const MAX_COMPARE_AND_WRITE_BLOCKS: u8 = 1;
/// How much VERIFY and WRITE SAME have on their way at once, in logical blocks (1 MiB).
pub const STEP_BLOCKS: u64 = 2048;

/// Logical unit 0 of a target.
#[derive(Clone, Copy, Debug)]
pub struct LogicalUnit<'a> {
    /// The volume behind it.
    pub export: &'a Export,
    /// The target's name, such as "iqn.2026-11.io.holdfast:demo".
    pub target_name: &'a str,
    /// The target port's relative identifier, which is the iSCSI portal group's tag.
    pub port: u16,
}

impl LogicalUnit<'_> {
    /// How many logical blocks it has.
    pub fn blocks(&self) -> u64 {
        self.export.size / u64::from(LOGICAL_BLOCK_BYTES)
    }
}

/// How many unit attentions wait at most; further ones are covered by those that wait.
const MAX_ATTENTIONS: usize = 8;

//= SAM-5 5.14
/// What an initiator port has yet to be told: unit attention conditions, each reported once.
#[derive(Debug, Default)]
pub struct Attentions {
    waiting: VecDeque<Code>,
}

impl Attentions {
    /// Those of a new nexus.
    pub fn power_on() -> Self {
        Self { waiting: VecDeque::from([Code::POWER_ON]) }
    }
    /// Adds one, unless the same one waits already.
    pub fn raise(&mut self, code: Code) {
        if self.waiting.len() < MAX_ATTENTIONS && !self.waiting.contains(&code) {
            self.waiting.push_back(code);
        }
    }
    /// Takes the oldest.
    pub fn take(&mut self) -> Option<Sense> {
        self.waiting.pop_front().map(|code| Sense::new(SenseKey::UnitAttention, code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attention_waits_once_however_often_it_is_raised() {
        let mut attentions = Attentions::power_on();
        attentions.raise(Code::CAPACITY_CHANGED);
        attentions.raise(Code::CAPACITY_CHANGED);
        assert_eq!(attentions.take().map(|s| s.code), Some(Code::POWER_ON));
        assert_eq!(attentions.take().map(|s| s.code), Some(Code::CAPACITY_CHANGED));
        assert_eq!(attentions.take(), None);
    }
}
