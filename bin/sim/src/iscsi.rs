//! A tiny iSCSI initiator: bytes in, answers out. It logs in to one target, without digests, and then reads, writes, or
//! compares and writes one sector.
//! Source: RFC 7143 11 (PDUs), SBC-4 5.3 (COMPARE AND WRITE), SPC-4 4.5 (sense data).

use crate::client::NO_SPACE;
use crate::nbd::Said;
use bytes::{Buf, Bytes, BytesMut};
use holdfast_types::SECTOR_BYTES;
use std::collections::BTreeMap;

/// What [`Said::Reply`] says of a COMPARE AND WRITE that found something else.
pub const MISCOMPARE: u32 = u32::MAX;
/// What it says of a command that was not begun.
pub const NOT_BEGUN: u32 = u32::MAX - 1;

const HEADER_LEN: usize = 48;
const NO_TAG: u32 = u32::MAX;
/// The tag of the first command, which only hears that the unit was powered on.
const FIRST: u32 = u32::MAX - 1;
const FINAL: u8 = 0x80;
const READS: u8 = 0x40;
const WRITES: u8 = 0x20;
/// From the operational stage to the full feature phase.
const LOGIN_FLAGS: u8 = FINAL | 1 << 2 | 3;
const LOGIN: u8 = 0x43;
const SCSI_COMMAND: u8 = 0x01;
const NOP_OUT: u8 = 0x40;
const LOGIN_RESPONSE: u8 = 0x23;
const SCSI_RESPONSE: u8 = 0x21;
const DATA_IN: u8 = 0x25;
const NOP_IN: u8 = 0x20;
const ASYNC_MESSAGE: u8 = 0x32;
const READ_16: u8 = 0x88;
const COMPARE_AND_WRITE: u8 = 0x89;
const WRITE_16: u8 = 0x8a;
const CHECK_CONDITION: u8 = 0x02;
const BUSY: u8 = 0x08;
const TASK_SET_FULL: u8 = 0x28;

/// The initiator's side of a connection.
#[derive(Debug)]
pub struct Iscsi {
    input: BytesMut,
    command_sn: u32,
    heard_sn: u32,
    /// What came for each read so far.
    reads: BTreeMap<u32, BytesMut>,
}

impl Iscsi {
    /// A connection that was just made, and its login. It takes the place of an earlier one of the same `port`.
    pub fn login(target: &str, port: u64) -> (Self, Bytes) {
        let mut this = Self { input: BytesMut::new(), command_sn: 1, heard_sn: 0, reads: BTreeMap::new() };
        let text = format!("InitiatorName=iqn.2026-11.sim:a\0TargetName={target}\0SessionType=Normal\0");
        let mut header = [0; HEADER_LEN];
        (header[0], header[1]) = (LOGIN, LOGIN_FLAGS);
        header[8] = 0x80;
        header[9..14].copy_from_slice(&port.to_be_bytes()[3..]);
        let bytes = this.pdu(header, text.as_bytes());
        (this, bytes)
    }

    fn pdu(&mut self, mut header: [u8; HEADER_LEN], data: &[u8]) -> Bytes {
        header[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
        header[24..28].copy_from_slice(&self.command_sn.to_be_bytes());
        header[28..32].copy_from_slice(&self.heard_sn.wrapping_add(1).to_be_bytes());
        let mut bytes = BytesMut::from(&header[..]);
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.freeze()
    }

    fn command(&mut self, tag: u32, flags: u8, cdb: &[u8], expected: u32, data: &[u8]) -> Bytes {
        let mut header = [0; HEADER_LEN];
        (header[0], header[1]) = (SCSI_COMMAND, FINAL | flags | 1);
        header[16..20].copy_from_slice(&tag.to_be_bytes());
        header[20..24].copy_from_slice(&expected.to_be_bytes());
        header[32..32 + cdb.len()].copy_from_slice(cdb);
        let bytes = self.pdu(header, data);
        self.command_sn = self.command_sn.wrapping_add(1);
        bytes
    }

    /// READ (16)
    pub fn read(&mut self, tag: u64, offset: u64, len: u32) -> Bytes {
        self.reads.insert(tag as u32, BytesMut::new());
        self.command(tag as u32, READS, &cdb_16(READ_16, offset, len), len, &[])
    }

    /// WRITE (16), its data at once.
    pub fn write(&mut self, tag: u64, offset: u64, data: &[u8]) -> Bytes {
        let len = data.len() as u32;
        self.command(tag as u32, WRITES, &cdb_16(WRITE_16, offset, len), len, data)
    }

    /// COMPARE AND WRITE of one sector.
    pub fn compare_and_write(&mut self, tag: u64, offset: u64, compare: &[u8], write: &[u8]) -> Bytes {
        let mut cdb = [0; 16];
        (cdb[0], cdb[13]) = (COMPARE_AND_WRITE, 1);
        cdb[2..10].copy_from_slice(&(offset / SECTOR_BYTES as u64).to_be_bytes());
        let data = [compare, write].concat();
        self.command(tag as u32, WRITES, &cdb, data.len() as u32, &data)
    }

    /// Takes what the target sent; `send` gets what is to be sent back.
    pub fn received(&mut self, bytes: &[u8], send: &mut Vec<Bytes>) -> Vec<Said> {
        self.input.extend_from_slice(bytes);
        let mut said = Vec::new();
        while self.input.len() >= HEADER_LEN {
            let len = u32::from_be_bytes([0, self.input[5], self.input[6], self.input[7]]) as usize;
            let whole = HEADER_LEN + len.next_multiple_of(4);
            if self.input.len() < whole {
                break;
            }
            let mut pdu = self.input.split_to(whole).freeze();
            let header = pdu.split_to(HEADER_LEN);
            pdu.truncate(len);
            said.extend(self.heard(&header, &pdu, send));
        }
        said
    }

    fn heard(&mut self, header: &[u8], data: &Bytes, send: &mut Vec<Bytes>) -> Option<Said> {
        let word = |at: usize| (&header[at..at + 4]).get_u32();
        let (opcode, status, tag) = (header[0] & 0x3f, header[3], word(16));
        if opcode != NOP_IN || tag != NO_TAG {
            self.heard_sn = word(24);
        }
        match opcode {
            LOGIN_RESPONSE if header[36] != 0 => Some(Said::NoExport),
            LOGIN_RESPONSE => {
                send.push(self.command(FIRST, 0, &[0; 6], 0, &[]));
                None
            }
            SCSI_RESPONSE if tag == FIRST => Some(Said::Ready),
            SCSI_RESPONSE => Some(self.reply(tag, status, data)),
            DATA_IN => {
                self.reads.get_mut(&tag)?.extend_from_slice(data);
                (header[1] & 1 == 1).then(|| self.reply(tag, status, &Bytes::new()))
            }
            NOP_IN => {
                if word(20) != NO_TAG {
                    let mut answer = [0; HEADER_LEN];
                    (answer[0], answer[1]) = (NOP_OUT, FINAL);
                    answer[16..20].copy_from_slice(&NO_TAG.to_be_bytes());
                    answer[20..24].copy_from_slice(&header[20..24]);
                    send.push(self.pdu(answer, &[]));
                }
                None
            }
            ASYNC_MESSAGE => None,
            _ => Some(Said::Nonsense),
        }
    }

    fn reply(&mut self, tag: u32, status: u8, sense: &Bytes) -> Said {
        let data = self.reads.remove(&tag).unwrap_or_default().freeze();
        let sense = sense.get(2..).unwrap_or_default();
        let error = match (status, sense) {
            (0, _) => 0,
            (BUSY | TASK_SET_FULL, _) => NOT_BEGUN,
            (CHECK_CONDITION, [0x70 | 0xf0, _, key, ..]) if key & 0xf == 0xe => MISCOMPARE,
            (CHECK_CONDITION, [0x70 | 0xf0, _, key, ..]) if key & 0xf == 6 => NOT_BEGUN,
            (CHECK_CONDITION, [0x70 | 0xf0, _, 7, _, _, _, _, _, _, _, _, _, 0x27, 0x07, ..]) => NO_SPACE,
            _ => 0x1000 + u32::from(status) + sense.get(2).map_or(0, |k| u32::from(*k) << 16),
        };
        Said::Reply { cookie: tag.into(), error, data: if error == 0 { data } else { Bytes::new() } }
    }
}

fn cdb_16(code: u8, offset: u64, len: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = code;
    cdb[2..10].copy_from_slice(&(offset / SECTOR_BYTES as u64).to_be_bytes());
    cdb[10..14].copy_from_slice(&(len / SECTOR_BYTES as u32).to_be_bytes());
    cdb
}
