//! Flushes of one session. Every completed write is on stable storage (WCE=0), so a flush has only to wait for
//! the writes of its session that came before it and are not complete.

use alloc::collections::{BTreeSet, VecDeque};

/// The writes and flushes of one session that are not complete, by their place in the order of requests.
#[derive(Debug, Default)]
pub struct Flushes {
    writes: BTreeSet<u64>,
    flushes: VecDeque<(u64, u64)>,
}

impl Flushes {
    /// A write with this number came.
    pub fn write_began(&mut self, number: u64) {
        self.writes.insert(number);
    }

    /// It is complete.
    pub fn write_ended(&mut self, number: u64) {
        self.writes.remove(&number);
    }

    /// A flush with this number and tag came.
    pub fn flush(&mut self, number: u64, tag: u64) {
        self.flushes.push_back((number, tag));
    }

    /// The tag of the oldest flush, if every write before it is complete.
    pub fn take_complete(&mut self) -> Option<u64> {
        let &(number, tag) = self.flushes.front()?;
        if self.writes.first().is_some_and(|&first| first < number) {
            return None;
        }
        self.flushes.pop_front();
        Some(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_waits_for_earlier_writes_only() {
        let mut f = Flushes::default();
        f.write_began(1);
        f.flush(2, 20);
        f.write_began(3);
        assert_eq!(f.take_complete(), None);
        f.write_ended(1);
        assert_eq!(f.take_complete(), Some(20));
        f.flush(4, 40);
        assert_eq!(f.take_complete(), None);
        f.write_ended(3);
        assert_eq!(f.take_complete(), Some(40));
    }
}
