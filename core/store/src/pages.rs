//! The bounded cache of extent pages. It holds what is durable; a page that is being changed belongs to the
//! writeback until it is.

use crate::format::page::Page;
use alloc::{boxed::Box, collections::BTreeMap};
use holdfast_types::BLOCK_BYTES;

/// Pages by their number on the disk.
#[derive(Debug)]
pub(crate) struct PageCache {
    pages: BTreeMap<u32, (u64, Box<Page>)>,
    /// Pages by when they were last used.
    by_use: BTreeMap<u64, u32>,
    clock: u64,
    most: usize,
}

impl PageCache {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            pages: BTreeMap::new(),
            by_use: BTreeMap::new(),
            clock: 0,
            most: (bytes / BLOCK_BYTES).max(16),
        }
    }

    /// A page, if it is here.
    pub(crate) fn get(&mut self, number: u32) -> Option<&Page> {
        let (used, page) = self.pages.get_mut(&number)?;
        self.by_use.remove(used);
        self.clock += 1;
        *used = self.clock;
        self.by_use.insert(self.clock, number);
        Some(page)
    }

    /// Adds or replaces a page; the one that was not used for longest makes room.
    pub(crate) fn put(&mut self, number: u32, page: Box<Page>) {
        self.remove(number);
        while self.pages.len() >= self.most {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.pages.remove(&oldest);
        }
        self.clock += 1;
        self.pages.insert(number, (self.clock, page));
        self.by_use.insert(self.clock, number);
    }

    pub(crate) fn remove(&mut self, number: u32) {
        if let Some((used, _)) = self.pages.remove(&number) {
            self.by_use.remove(&used);
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        (self.pages.len() * BLOCK_BYTES) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::{ExtentIndex, SegmentKey};

    #[test]
    fn the_page_not_used_for_longest_makes_room() {
        let mut cache = PageCache::new(16 * BLOCK_BYTES);
        for n in 0..16 {
            cache.put(n, Page::empty(SegmentKey::default(), 1, ExtentIndex(n)));
        }
        assert!(cache.get(0).is_some());
        cache.put(16, Page::empty(SegmentKey::default(), 1, ExtentIndex(16)));
        assert!(cache.get(1).is_none() && cache.get(0).is_some() && cache.get(16).is_some());
        assert_eq!(cache.bytes(), 16 * BLOCK_BYTES as u64);
    }
}
