//! Which extents and pages of the disk are free. Derived from the pages when the disk is opened, so that
//! nothing can leak over a crash.

use alloc::{vec, vec::Vec};

/// Numbers from 0 on, each free or taken.
#[derive(Debug)]
pub(crate) struct Slots {
    /// A set bit is taken.
    words: Vec<u64>,
    total: u32,
    free: u32,
    /// No word before this one has a free slot.
    from: usize,
}

impl Slots {
    pub(crate) fn new(total: u32) -> Self {
        let mut words = vec![0; total.div_ceil(64) as usize];
        if let (Some(last), rest @ 1..) = (words.last_mut(), total % 64) {
            *last = u64::MAX << rest;
        }
        Self { words, total, free: total, from: 0 }
    }
    pub(crate) fn total(&self) -> u32 {
        self.total
    }
    pub(crate) fn free(&self) -> u32 {
        self.free
    }
    /// Takes the lowest free slot.
    pub(crate) fn take(&mut self) -> Option<u32> {
        while *self.words.get(self.from)? == u64::MAX {
            self.from += 1;
        }
        let bit = self.words[self.from].trailing_ones();
        self.words[self.from] |= 1 << bit;
        self.free -= 1;
        Some(self.from as u32 * 64 + bit)
    }
    /// Takes this slot. Whether it was free; a slot that is not on the disk is not.
    pub(crate) fn take_this(&mut self, slot: u32) -> bool {
        let (word, bit) = (slot as usize / 64, 1u64 << (slot % 64));
        if slot >= self.total || self.words[word] & bit != 0 {
            return false;
        }
        self.words[word] |= bit;
        self.free -= 1;
        true
    }
    pub(crate) fn release(&mut self, slot: u32) {
        let (word, bit) = (slot as usize / 64, 1u64 << (slot % 64));
        assert!(self.words[word] & bit != 0, "a slot is freed once");
        self.words[word] &= !bit;
        self.free += 1;
        self.from = self.from.min(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_slot_is_taken_until_none_is_left() {
        let mut s = Slots::new(70);
        assert!(s.take_this(1) && !s.take_this(1) && !s.take_this(70));
        let taken: Vec<u32> = core::iter::from_fn(|| s.take()).collect();
        assert_eq!(taken, (0..70).filter(|i| *i != 1).collect::<Vec<_>>());
        assert_eq!(s.free(), 0);
        s.release(65);
        s.release(3);
        assert_eq!((s.take(), s.take(), s.take()), (Some(3), Some(65), None));
    }
}
