//! Two copies' digests of one extent, compared. Each is the state of committed LSN `at`. A block whose version is
//! above the lower of the two moved meanwhile, and says nothing; of every other both must hold the same.
//! Absent and never written are the same: both read as zeros.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use holdfast_types::{BlockContent, BlockDigest, BlockIndex, Lsn};

/// What a copy's disk holds of an extent.
#[derive(Clone, Debug)]
pub(crate) struct Digest {
    pub(crate) at: Lsn,
    pub(crate) blocks: BTreeMap<BlockIndex, BlockDigest>,
}

impl Digest {
    pub(crate) fn new(at: Lsn, blocks: Vec<BlockDigest>) -> Self {
        Self { at, blocks: blocks.into_iter().map(|b| (b.block, b)).collect() }
    }
    pub(crate) fn content(&self, block: BlockIndex) -> BlockContent {
        self.blocks.get(&block).map_or(BlockContent::Absent, |b| b.content)
    }
    pub(crate) fn lsn(&self, block: BlockIndex) -> Lsn {
        self.blocks.get(&block).map_or(Lsn(0), |b| b.lsn)
    }
}

/// How a block compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    Equal,
    /// It moved between the two digests.
    Moved,
    /// The same version with different content, or damaged on one side.
    SameVersion,
    /// Different versions.
    OtherVersion,
}

pub(crate) fn compare(block: BlockIndex, a: &Digest, b: &Digest) -> Compared {
    let (lsn_a, lsn_b) = (a.lsn(block), b.lsn(block));
    let (content_a, content_b) = (a.content(block), b.content(block));
    let bad = |c| matches!(c, BlockContent::Bad(_));
    if bad(content_a) || bad(content_b) {
        return if lsn_a == lsn_b { Compared::SameVersion } else { Compared::Moved };
    }
    if content_a == BlockContent::Absent && content_b == BlockContent::Absent {
        return Compared::Equal;
    }
    if lsn_a.max(lsn_b) > a.at.min(b.at) {
        return Compared::Moved;
    }
    match (lsn_a == lsn_b, content_a == content_b) {
        (true, true) => Compared::Equal,
        (true, false) => Compared::SameVersion,
        (false, _) => Compared::OtherVersion,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    fn digest(at: u64, lsn: u64, content: BlockContent) -> Digest {
        Digest::new(Lsn(at), alloc::vec![BlockDigest { block: BlockIndex(3), lsn: Lsn(lsn), content }])
    }

    #[test]
    fn a_block_that_moved_between_two_digests_says_nothing() {
        let (a, b) = (digest(10, 5, BlockContent::Good(1)), digest(12, 11, BlockContent::Good(2)));
        assert_eq!(compare(BlockIndex(3), &a, &b), Compared::Moved);
    }

    #[test]
    fn a_difference_at_one_version_is_found_with_matching_checksums_too() {
        let (a, b) = (digest(10, 5, BlockContent::Good(1)), digest(12, 5, BlockContent::Good(2)));
        assert_eq!(compare(BlockIndex(3), &a, &b), Compared::SameVersion);
        let b = digest(12, 4, BlockContent::Good(1));
        assert_eq!(compare(BlockIndex(3), &a, &b), Compared::OtherVersion);
    }

    #[test]
    fn a_tombstone_and_a_block_never_written_are_the_same() {
        let (a, b) = (digest(10, 5, BlockContent::Absent), Digest::new(Lsn(10), Vec::new()));
        assert_eq!(compare(BlockIndex(3), &a, &b), Compared::Equal);
    }
}
