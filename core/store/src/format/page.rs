//! An extent's page: for each of its blocks the checksum, the LSN of the record that gave it its state, and
//! whether it is present; and where the extent lies. One page for each extent that was ever touched.
//!
//! An absent block with an LSN is a tombstone: a resync ships it. Each page has two slots: both are written the first time, then one
//! after the other, so that a torn write leaves the one before, which the journal brings up again.
//!
//! Where a page says whose it is has a checksum of its own: a page that is damaged elsewhere still says so.

use super::{Put, Reader, has_magic, is_sealed, seal};
use alloc::{boxed::Box, vec::Vec};
use holdfast_checksum::crc32c;
use holdfast_types::{BLOCK_BYTES, EXTENT_BLOCKS, ExtentIndex, Lsn, SEGMENT_EXTENTS, SegmentKey};

const MAGIC: &[u8; 8] = b"HFEXTENT";
/// Version 1 has no checksum of the names.
const VERSION: u16 = 2;
/// The names, with all that is about the page and not about its blocks, and behind them their checksum.
const NAMES: core::ops::Range<usize> = 12..76;
const BLOCKS: usize = EXTENT_BLOCKS as usize;
/// Where the table of blocks starts; what is before it is the header and room for later.
const TABLE_AT: usize = 128;
const TABLE_BYTES: usize = BLOCKS / 8 + BLOCKS * 4 + BLOCKS * 8;
const _: () = assert!(TABLE_AT + TABLE_BYTES <= BLOCK_BYTES);
/// On the disk, "no place".
const NOWHERE: u32 = u32::MAX;

/// A page's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Whose extent.
    pub key: SegmentKey,
    /// Which life of the copy: a page of an earlier life is waste.
    pub life: u64,
    /// Which extent.
    pub extent: ExtentIndex,
    /// Counts up over the whole disk: of two slots the higher one counts.
    pub sequence: u64,
    /// Which extent of the disk holds the blocks that are present.
    pub location: Option<u32>,
    /// How many segments share the extent.
    pub references: u32,
    /// Which key the blocks are encrypted with; zero: none.
    pub key_id: u32,
    /// How the blocks are compressed; zero: not at all.
    pub compression: u32,
    /// One bit for each block.
    pub present: [u64; BLOCKS / 64],
    /// crc32c of each block that is present.
    pub crcs: [u32; BLOCKS],
    /// The record that gave each block its state; zero: never touched.
    pub lsns: [Lsn; BLOCKS],
}

impl Page {
    /// The page of an extent that was never touched.
    pub fn empty(key: SegmentKey, life: u64, extent: ExtentIndex) -> Box<Self> {
        Box::new(Self {
            key,
            life,
            extent,
            sequence: 0,
            location: None,
            references: 1,
            key_id: 0,
            compression: 0,
            present: [0; BLOCKS / 64],
            crcs: [0; BLOCKS],
            lsns: [Lsn(0); BLOCKS],
        })
    }

    /// Whether block `i` holds data.
    pub fn is_present(&self, i: u32) -> bool {
        self.present[i as usize / 64] >> (i % 64) & 1 == 1
    }
    /// How many blocks hold data.
    pub fn present_count(&self) -> u32 {
        self.present.iter().map(|w| w.count_ones()).sum()
    }
    /// The newest LSN of any block.
    pub fn newest(&self) -> Lsn {
        self.lsns.iter().copied().max().unwrap_or_default()
    }
    /// Notes block `i` as holding data with that checksum, or as absent.
    pub fn set(&mut self, i: u32, lsn: Lsn, crc: Option<u32>) {
        let bit = 1 << (i % 64);
        let word = &mut self.present[i as usize / 64];
        *word = if crc.is_some() { *word | bit } else { *word & !bit };
        self.crcs[i as usize] = crc.unwrap_or(0);
        self.lsns[i as usize] = lsn;
    }

    /// The block as it is on the disk.
    pub fn encode(&self, format_nonce: u64) -> Vec<u8> {
        let mut b = Vec::with_capacity(BLOCK_BYTES);
        b.bytes(MAGIC);
        b.u32(0);
        b.u16(VERSION);
        b.u16(0);
        b.u64(format_nonce);
        b.u64(self.sequence);
        b.key(self.key);
        b.u64(self.life);
        b.u32(self.extent.0);
        b.u32(self.location.unwrap_or(NOWHERE));
        b.u32(self.references);
        b.u32(self.key_id);
        b.u32(self.compression);
        b.u32(crc32c(&b[NAMES]));
        b.resize(TABLE_AT, 0);
        self.present.iter().for_each(|w| b.u64(*w));
        self.crcs.iter().for_each(|c| b.u32(*c));
        self.lsns.iter().for_each(|l| b.u64(l.0));
        b.resize(BLOCK_BYTES, 0);
        seal(&mut b);
        b
    }

    /// Reads a block; None when it is not a sound page of this formatting.
    pub fn decode(block: &[u8], format_nonce: u64) -> Option<Box<Self>> {
        if block.len() != BLOCK_BYTES || !has_magic(block, MAGIC) || !is_sealed(block) {
            return None;
        }
        Self::fields(block, format_nonce)
    }

    fn fields(block: &[u8], format_nonce: u64) -> Option<Box<Self>> {
        let mut r = Reader::new(&block[12..]);
        if !(1..=VERSION).contains(&r.u16()?) {
            return None;
        }
        r.u16()?;
        if r.u64()? != format_nonce {
            return None;
        }
        let sequence = r.u64()?;
        let (key, life, extent) = (r.key()?, r.u64()?, ExtentIndex(r.u32()?));
        if extent.0 >= SEGMENT_EXTENTS {
            return None;
        }
        let mut page = Self::empty(key, life, extent);
        page.sequence = sequence;
        page.location = Some(r.u32()?).filter(|l| *l != NOWHERE);
        (page.references, page.key_id, page.compression) = (r.u32()?, r.u32()?, r.u32()?);
        let mut r = Reader::new(&block[TABLE_AT..]);
        for word in &mut page.present {
            *word = r.u64()?;
        }
        for crc in &mut page.crcs {
            *crc = r.u32()?;
        }
        for lsn in &mut page.lsns {
            *lsn = Lsn(r.u64()?);
        }
        Some(page)
    }

    /// What a block that does not decode says of itself, if it looks like a page of this formatting that was torn or
    /// damaged, rather than one never written.
    pub fn remains(block: &[u8], format_nonce: u64) -> Option<Remains> {
        if block.len() != BLOCK_BYTES || !has_magic(block, MAGIC) {
            return None;
        }
        let sum = block[NAMES.end..].first_chunk().map(|sum| u32::from_le_bytes(*sum));
        let has_sum = block[NAMES.start..].first_chunk() != Some(&1u16.to_le_bytes());
        if has_sum && sum != Some(crc32c(&block[NAMES])) {
            return None;
        }
        Self::fields(block, format_nonce).map(|page| Remains::of(&page))
    }
}

/// What a page says of itself, also when it does not pass its checksum. All but `newest` lies in its first sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remains {
    /// Whose extent.
    pub key: SegmentKey,
    /// Which life of the copy.
    pub life: u64,
    /// Which extent.
    pub extent: ExtentIndex,
    /// Which of all pages.
    pub sequence: u64,
    /// It holds data, not only tombstones.
    pub has_blocks: bool,
    /// The newest LSN of any block.
    pub newest: Lsn,
}

impl Remains {
    pub(crate) fn of(page: &Page) -> Self {
        Self {
            key: page.key,
            life: page.life,
            extent: page.extent,
            sequence: page.sequence,
            has_blocks: page.present_count() > 0,
            newest: page.newest(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::{SegmentId, SegmentIncarnation, VolumeId};

    fn known() -> Box<Page> {
        let key = SegmentKey {
            segment: SegmentId { volume: VolumeId(5), index: 6 },
            incarnation: SegmentIncarnation(7),
        };
        let mut page = Page::empty(key, 8, ExtentIndex(9));
        page.sequence = 10;
        page.location = Some(11);
        page.set(0, Lsn(12), Some(0xdead_beef));
        page.set(1, Lsn(13), None);
        page.set(255, Lsn(14), Some(1));
        page
    }

    #[test]
    fn the_bytes_of_a_known_page_do_not_change() {
        let bytes = known().encode(0x55);
        assert_eq!(crate::format::testing::hex(&bytes[..168]), GOLDEN);
        assert_eq!(bytes[1180..1184], [1, 0, 0, 0]);
        assert_eq!(bytes[1184..1200], [12, 0, 0, 0, 0, 0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Page::decode(&bytes, 0x55), Some(known()));
    }
    const GOLDEN: &str = "\
        4846455854454e540e5a7b930200000055000000000000000a0000000000000005000000000000000600000007000000\
        0800000000000000090000000b00000001000000000000000000000071bd57a300000000000000000000000000000000\
        000000000000000000000000000000000000000000000000000000000000000001000000000000000000000000000000\
        00000000000000000000000000000080efbeadde00000000\
        ";

    #[test]
    fn a_page_of_another_formatting_or_a_damaged_one_is_none() {
        let bytes = known().encode(0x55);
        assert_eq!(Page::decode(&bytes, 0x56), None);
        let mut bad = bytes.clone();
        bad[2000] ^= 1;
        assert_eq!(Page::decode(&bad, 0x55), None);
        let remains = Page::remains(&bad, 0x55).expect("it looks like a page");
        assert_eq!((remains.extent, remains.sequence, remains.has_blocks), (ExtentIndex(9), 10, true));
        assert!(Page::remains(&bad, 0x56).is_none() && Page::remains(&[0; BLOCK_BYTES], 0x55).is_none());
    }

    #[test]
    fn a_page_counts_what_is_present_and_knows_its_newest() {
        let page = known();
        assert_eq!((page.present_count(), page.newest()), (2, Lsn(14)));
        assert!(page.is_present(0) && !page.is_present(1) && page.is_present(255));
    }
}
