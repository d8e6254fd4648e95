//! A command descriptor block and the fields in it. Every CDB of this target fits into 16 bytes, so reading a
//! field cannot fail; big-endian throughout (SPC-4 4.2).

use crate::Sense;

/// A command descriptor block, padded with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cdb(pub [u8; 16]);

impl Cdb {
    /// The operation code.
    pub fn opcode(&self) -> u8 {
        self.0[0]
    }
    /// The service action of a command that has one in byte 1.
    pub fn service_action(&self) -> u8 {
        self.0[1] & 0x1f
    }
    /// Whether any of the bits `mask` of a byte is set.
    pub fn bits(&self, byte: usize, mask: u8) -> bool {
        self.0[byte] & mask != 0
    }
    /// One byte.
    pub fn byte(&self, at: usize) -> u8 {
        self.0[at]
    }
    /// Two bytes from `at` on.
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }
    /// Four bytes from `at` on.
    pub fn u32(&self, at: usize) -> u32 {
        (u32::from(self.u16(at)) << 16) | u32::from(self.u16(at + 2))
    }
    /// Eight bytes from `at` on.
    pub fn u64(&self, at: usize) -> u64 {
        (u64::from(self.u32(at)) << 32) | u64::from(self.u32(at + 4))
    }
    /// Refuses the command when any of the bits `mask` of a byte is set.
    pub fn refuse(&self, byte: u16, mask: u8) -> Result<(), Sense> {
        let set = self.0[usize::from(byte)] & mask;
        if set == 0 {
            return Ok(());
        }
        let highest = 7 - set.leading_zeros() as u8;
        Err(Sense::cdb_field(byte, Some(highest)))
    }
}
