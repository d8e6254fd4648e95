//! What is on the disk, byte by byte. Each structure is defined once, in its own module, little-endian, with a
//! magic, a checksum and a version at the same place: bytes 0..8 magic, 8..12 crc32c of all that follows,
//! 12..14 version. A decoder takes any bytes and answers None or an error, never a panic.

pub mod journal;
pub mod page;
pub mod superblock;

use alloc::vec::Vec;
use holdfast_checksum::crc32c;
use holdfast_types::{SegmentId, SegmentIncarnation, SegmentKey, VolumeId};

/// Where the checksum lies, and where what it covers starts.
const CRC_AT: usize = 8;
const CRC_COVERS_FROM: usize = 12;

/// Puts the checksum of `bytes` where it belongs.
pub(crate) fn seal(bytes: &mut [u8]) {
    let crc = crc32c(&bytes[CRC_COVERS_FROM..]);
    bytes[CRC_AT..CRC_COVERS_FROM].copy_from_slice(&crc.to_le_bytes());
}

/// Whether `bytes` start with `magic`.
pub(crate) fn has_magic(bytes: &[u8], magic: &[u8; 8]) -> bool {
    bytes.len() > CRC_COVERS_FROM && bytes[..CRC_AT] == magic[..]
}

/// Whether the checksum holds.
pub(crate) fn is_sealed(bytes: &[u8]) -> bool {
    bytes.len() > CRC_COVERS_FROM
        && bytes[CRC_AT..CRC_COVERS_FROM] == crc32c(&bytes[CRC_COVERS_FROM..]).to_le_bytes()
}

/// Reads little-endian numbers off a slice.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
    pub(crate) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(head)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    pub(crate) fn u8(&mut self) -> Option<u8> {
        Some(self.array::<1>()?[0])
    }
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
    pub(crate) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }
    pub(crate) fn key(&mut self) -> Option<SegmentKey> {
        let segment = SegmentId { volume: VolumeId(self.u64()?), index: self.u32()? };
        Some(SegmentKey { segment, incarnation: SegmentIncarnation(self.u32()?) })
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Appends little-endian numbers.
pub(crate) trait Put {
    fn bytes(&mut self, bytes: &[u8]);
    fn u8(&mut self, v: u8) {
        self.bytes(&[v]);
    }
    fn u16(&mut self, v: u16) {
        self.bytes(&v.to_le_bytes());
    }
    fn u32(&mut self, v: u32) {
        self.bytes(&v.to_le_bytes());
    }
    fn u64(&mut self, v: u64) {
        self.bytes(&v.to_le_bytes());
    }
    fn u128(&mut self, v: u128) {
        self.bytes(&v.to_le_bytes());
    }
    fn key(&mut self, key: SegmentKey) {
        self.u64(key.segment.volume.0);
        self.u32(key.segment.index);
        self.u32(key.incarnation.0);
    }
}

impl Put for Vec<u8> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::{fmt::Write, string::String};

    /// Bytes as hex, for comparison with what they once were.
    pub(crate) fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |mut s, b| {
            write!(s, "{b:02x}").expect("a string takes everything");
            s
        })
    }
}
