//! Protocol data units: the basic header segment, its fields, and whole PDUs with digests on their way out.
//!
//! Source: RFC 7143 11.

use alloc::{vec, vec::Vec};
use bytes::Bytes;
use holdfast_checksum::crc32c;

/// Bytes in a basic header segment.
pub(crate) const BHS_BYTES: usize = 48;
/// Bytes in a digest.
pub(crate) const DIGEST_BYTES: usize = 4;
/// A tag that names nothing.
pub(crate) const NO_TAG: u32 = 0xffff_ffff;

//= RFC 7143 11.2.1.2
/// Operation codes of the initiator.
pub(crate) mod request {
    pub(crate) const NOP_OUT: u8 = 0x00;
    pub(crate) const SCSI_COMMAND: u8 = 0x01;
    pub(crate) const TASK_MANAGEMENT: u8 = 0x02;
    pub(crate) const LOGIN: u8 = 0x03;
    pub(crate) const TEXT: u8 = 0x04;
    pub(crate) const DATA_OUT: u8 = 0x05;
    pub(crate) const LOGOUT: u8 = 0x06;
    pub(crate) const SNACK: u8 = 0x10;
}

/// Operation codes of the target.
pub(crate) mod response {
    pub(crate) const NOP_IN: u8 = 0x20;
    pub(crate) const SCSI_RESPONSE: u8 = 0x21;
    pub(crate) const TASK_MANAGEMENT: u8 = 0x22;
    pub(crate) const LOGIN: u8 = 0x23;
    pub(crate) const TEXT: u8 = 0x24;
    pub(crate) const DATA_IN: u8 = 0x25;
    pub(crate) const LOGOUT: u8 = 0x26;
    pub(crate) const R2T: u8 = 0x31;
    pub(crate) const REJECT: u8 = 0x3f;
}

/// The F bit of byte 1.
pub(crate) const FINAL: u8 = 0x80;

/// A basic header segment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header(pub(crate) [u8; BHS_BYTES]);

impl Header {
    /// An empty one of that operation code, final.
    pub(crate) fn new(opcode: u8) -> Self {
        let mut bytes = [0; BHS_BYTES];
        bytes[0] = opcode;
        bytes[1] = FINAL;
        Self(bytes)
    }
    pub(crate) fn opcode(&self) -> u8 {
        self.0[0] & 0x3f
    }
    pub(crate) fn immediate(&self) -> bool {
        self.0[0] & 0x40 != 0
    }
    pub(crate) fn flags(&self) -> u8 {
        self.0[1]
    }
    pub(crate) fn is_final(&self) -> bool {
        self.0[1] & FINAL != 0
    }
    /// Additional header segments, in bytes.
    pub(crate) fn ahs_bytes(&self) -> usize {
        usize::from(self.0[4]) * 4
    }
    /// The data segment, in bytes, without its padding.
    pub(crate) fn data_bytes(&self) -> usize {
        (usize::from(self.0[5]) << 16) | (usize::from(self.0[6]) << 8) | usize::from(self.0[7])
    }
    pub(crate) fn lun(&self) -> [u8; 8] {
        let mut lun = [0; 8];
        lun.copy_from_slice(&self.0[8..16]);
        lun
    }
    /// The initiator task tag.
    pub(crate) fn task_tag(&self) -> u32 {
        self.u32(16)
    }
    /// The target transfer tag of those PDUs that have one.
    pub(crate) fn transfer_tag(&self) -> u32 {
        self.u32(20)
    }
    pub(crate) fn command_sn(&self) -> u32 {
        self.u32(24)
    }
    pub(crate) fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }
    pub(crate) fn u32(&self, at: usize) -> u32 {
        (u32::from(self.u16(at)) << 16) | u32::from(self.u16(at + 2))
    }
    pub(crate) fn set(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
    pub(crate) fn set_u32(&mut self, at: usize, value: u32) {
        self.set(at, &value.to_be_bytes());
    }
    pub(crate) fn set_data_bytes(&mut self, bytes: usize) {
        assert!(bytes < 1 << 24, "a data segment's length has three bytes");
        self.set(5, &(bytes as u32).to_be_bytes()[1..]);
    }
}

/// A PDU as it arrived. Additional header segments are checked and dropped: no command of ours needs one.
#[derive(Clone)]
pub(crate) struct Pdu {
    pub(crate) header: Header,
    /// The data segment, in pieces as they came from the socket, without padding.
    pub(crate) data: Vec<Bytes>,
    /// The data segment does not match its digest.
    pub(crate) data_damaged: bool,
}

impl Pdu {
    /// The data segment in one piece; for the short ones.
    pub(crate) fn text(&self) -> Vec<u8> {
        self.data.concat()
    }
}

//= RFC 7143 6.1, 13.1
/// Which digests both sides agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digests {
    pub(crate) header: bool,
    pub(crate) data: bool,
}

/// The digest's bytes on the wire.
pub(crate) fn digest(bytes: &[u8]) -> [u8; DIGEST_BYTES] {
    crc32c(bytes).to_le_bytes()
}

/// A PDU for the initiator, in pieces: header and padding of ours, the data as it is.
pub(crate) fn encode(mut header: Header, data: Vec<Bytes>, digests: Digests) -> Vec<Bytes> {
    let bytes: usize = data.iter().map(Bytes::len).sum();
    header.set_data_bytes(bytes);
    let mut head = header.0.to_vec();
    if digests.header {
        head.extend(digest(&header.0));
    }
    let padding = bytes.next_multiple_of(4) - bytes;
    let mut tail = vec![0; padding];
    if digests.data && bytes > 0 {
        tail.extend(data_digest(&data, padding));
    }
    let mut pieces = vec![Bytes::from(head)];
    pieces.extend(data);
    if !tail.is_empty() {
        pieces.push(Bytes::from(tail));
    }
    pieces
}

/// The digest of a data segment and its padding.
pub(crate) fn data_digest(data: &[Bytes], padding: usize) -> [u8; DIGEST_BYTES] {
    match data {
        [one] if padding == 0 => digest(one),
        _ => {
            let mut all = data.concat();
            all.resize(all.len() + padding, 0);
            digest(&all)
        }
    }
}
