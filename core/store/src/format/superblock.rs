//! The superblock: who the disk is, where things lie, and from which batch on the journal is to be read. Two
//! copies, written in turn, each durable before the next; the one with the higher generation that passes its
//! checksum counts.

use super::{Put, Reader, has_magic, is_sealed, seal};
use crate::api::DiskIdentity;
use crate::layout::{GROWTHS_MAX, Layout, Piece};
use crate::ring::Place;
use alloc::vec::Vec;
use holdfast_types::{BLOCK_BYTES, ClusterId, DiskId, DiskIncarnation, NodeId};

const MAGIC: &[u8; 8] = b"HOLDFAST";
/// Version 1 lists no pieces. Version 3 is laid out like 2: it keeps a disk whose journal has batches of version 3 from those who
/// would take them for the end of the log. Version 4 says whether pages are in both slots.
pub(crate) const VERSION: u16 = 4;
/// The flag for that, behind how many pieces there are.
const HAS_TWINS: u32 = 1;

/// A superblock's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Counts up with each write.
    pub generation: u64,
    /// Who the disk is.
    pub identity: DiskIdentity,
    /// Names this formatting in every page and batch, so that what an earlier one left is not taken for ours.
    pub format_nonce: u64,
    /// Where things lie.
    pub layout: Layout,
    /// Pages from here on were never written since formatting.
    pub page_limit: u32,
    /// A batch that is valid, and no later than the oldest one needed.
    pub tail: Place,
    /// A page is written to both of its slots the first time. Not on disks that were formatted before that was so.
    pub has_twins: bool,
}

/// Why a block is not a superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuperblockError {
    /// Zeros throughout.
    Blank,
    /// Something else, or one of ours that is damaged.
    Damaged,
    /// Ours, of a version that is not known.
    Version(u16),
}

impl Superblock {
    /// The block as it is on the disk.
    pub fn encode(&self) -> Vec<u8> {
        let mut b = Vec::with_capacity(BLOCK_BYTES);
        b.bytes(MAGIC);
        b.u32(0);
        b.u16(VERSION);
        b.u16(self.identity.node.0);
        b.u64(self.generation);
        b.u128(self.identity.cluster.0);
        b.u128(self.identity.disk.0);
        b.u32(self.identity.incarnation.0);
        b.u32(self.page_limit);
        b.u64(self.identity.boot_nonce);
        b.u64(self.format_nonce);
        b.u64(self.layout.size);
        for range in [&self.layout.journal, &self.layout.metadata, &self.layout.extents] {
            b.u64(range.start);
            b.u64(range.end);
        }
        b.u64(self.tail.sequence);
        b.u64(self.tail.offset);
        b.u32(self.layout.grown.len() as u32);
        b.u32(if self.has_twins { HAS_TWINS } else { 0 });
        for range in self.layout.grown.iter().flat_map(|p| [&p.metadata, &p.extents]) {
            b.u64(range.start);
            b.u64(range.end);
        }
        b.resize(BLOCK_BYTES, 0);
        seal(&mut b);
        b
    }

    /// Reads a block.
    pub fn decode(block: &[u8]) -> Result<Self, SuperblockError> {
        if block.iter().all(|b| *b == 0) {
            return Err(SuperblockError::Blank);
        }
        if block.len() != BLOCK_BYTES || !has_magic(block, MAGIC) || !is_sealed(block) {
            return Err(SuperblockError::Damaged);
        }
        let mut r = Reader::new(&block[12..]);
        let version = r.u16().ok_or(SuperblockError::Damaged)?;
        if !(1..=VERSION).contains(&version) {
            return Err(SuperblockError::Version(version));
        }
        Self::fields(&mut r, version).filter(Self::is_sound).ok_or(SuperblockError::Damaged)
    }

    /// Whether a sound superblock is of the version that is written.
    pub(crate) fn is_current(block: &[u8]) -> bool {
        block[12..14] == VERSION.to_le_bytes()
    }

    fn fields(r: &mut Reader<'_>, version: u16) -> Option<Self> {
        let node = NodeId(r.u16()?);
        let generation = r.u64()?;
        let cluster = ClusterId(r.u128()?);
        let disk = DiskId(r.u128()?);
        let incarnation = DiskIncarnation(r.u32()?);
        let page_limit = r.u32()?;
        let boot_nonce = r.u64()?;
        let format_nonce = r.u64()?;
        let size = r.u64()?;
        let journal = r.u64()?..r.u64()?;
        let metadata = r.u64()?..r.u64()?;
        let extents = r.u64()?..r.u64()?;
        let tail = Place { sequence: r.u64()?, offset: r.u64()? };
        let mut grown = Vec::new();
        let (pieces, flags) = (r.u32()?, r.u32()?);
        let pieces = if version > 1 { pieces as usize } else { 0 };
        for _ in 0..pieces.min(GROWTHS_MAX + 1) {
            grown.push(Piece { metadata: r.u64()?..r.u64()?, extents: r.u64()?..r.u64()? });
        }
        Some(Self {
            generation,
            identity: DiskIdentity { cluster, node, disk, incarnation, boot_nonce },
            format_nonce,
            layout: Layout { size, journal, metadata, extents, grown },
            page_limit,
            tail,
            has_twins: version > 3 && flags & HAS_TWINS != 0,
        })
    }

    fn is_sound(&self) -> bool {
        let l = &self.layout;
        l.is_sound() && self.page_limit <= l.pages() && l.journal.contains(&self.tail.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::StoreConfig;
    use crate::layout::layout;

    fn known() -> Superblock {
        Superblock {
            generation: 7,
            identity: DiskIdentity {
                cluster: ClusterId(0x0102_0304),
                node: NodeId(3),
                disk: DiskId(0x0a0b_0c0d),
                incarnation: DiskIncarnation(2),
                boot_nonce: 0x1111,
            },
            format_nonce: 0x2222,
            layout: layout(128 << 20, &StoreConfig::default()).expect("fits"),
            page_limit: 64,
            tail: Place { sequence: 9, offset: 0x2_0000 },
            has_twins: true,
        }
    }

    #[test]
    fn the_bytes_of_a_known_superblock_do_not_change() {
        let bytes = known().encode();
        assert_eq!(crate::format::testing::hex(&bytes[..192]), GOLDEN);
        assert!(bytes[192..].iter().all(|b| *b == 0));
        assert_eq!(Superblock::decode(&bytes), Ok(known()));
    }
    const GOLDEN: &str = "\
        484f4c444641535416171b33040003000700000000000000040302010000000000000000000000000d0c0b0a00000000\
        000000000000000002000000400000001111000000000000222200000000000000000008000000000000010000000000\
        0000010400000000000001040000000000a0110400000000000020040000000000000008000000000900000000000000\
        000002000000000000000000010000000000000000000000000000000000000000000000000000000000000000000000\
        ";

    #[test]
    fn earlier_versions_are_read() {
        let mut grown = known();
        assert!(grown.layout.grow(1 << 30));
        for (version, superblock) in [(1, known()), (2, grown.clone()), (3, grown)] {
            let mut bytes = superblock.encode();
            assert!(Superblock::is_current(&bytes));
            bytes[12] = version;
            seal(&mut bytes);
            assert!(!Superblock::is_current(&bytes));
            assert_eq!(Superblock::decode(&bytes), Ok(Superblock { has_twins: false, ..superblock }));
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_seen() {
        let bytes = known().encode();
        for at in (0..BLOCK_BYTES * 8).step_by(37) {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert_eq!(Superblock::decode(&bad), Err(SuperblockError::Damaged), "bit {at}");
        }
    }

    #[test]
    fn blank_damaged_and_newer_are_told_apart() {
        assert_eq!(Superblock::decode(&[0; BLOCK_BYTES]), Err(SuperblockError::Blank));
        assert_eq!(Superblock::decode(&[1; BLOCK_BYTES]), Err(SuperblockError::Damaged));
        let mut newer = known().encode();
        newer[12] = 5;
        seal(&mut newer);
        assert_eq!(Superblock::decode(&newer), Err(SuperblockError::Version(5)));
    }

    #[test]
    fn a_disk_that_has_grown_lists_its_pieces() {
        let mut grown = known();
        (1..=GROWTHS_MAX as u64).for_each(|n| assert!(grown.layout.grow((128 << 20) + (n << 30))));
        let bytes = grown.encode();
        assert_eq!((bytes.len(), bytes[152]), (BLOCK_BYTES, GROWTHS_MAX as u8));
        assert_eq!(bytes[160..168], grown.layout.grown[0].metadata.start.to_le_bytes());
        assert_eq!(Superblock::decode(&bytes), Ok(grown.clone()));
        // One that lists more, or none where it should, or pieces that lie on each other, is damaged.
        for (at, byte) in [(152, GROWTHS_MAX as u8 + 1), (152, 0xff), (160, 1), (160 + 32, 0)] {
            let mut bad = bytes.clone();
            bad[at] = byte;
            if at > 160 {
                bad[at..at + 8].fill(0);
            }
            seal(&mut bad);
            assert_eq!(Superblock::decode(&bad), Err(SuperblockError::Damaged), "byte {at}");
        }
    }
}
