//! Sessions driven PDU by PDU, by an initiator that can also misbehave.

mod commands;
mod garbage;
mod logins;

use crate::{
    Session, SessionConfig,
    pdu::{Digests, FINAL, Header, NO_TAG, Pdu, encode, request},
};
use alloc::{collections::VecDeque, string::String, vec, vec::Vec};
use bytes::Bytes;
use holdfast_types::{
    BlockResult, CloseReason, Duration, Export, Exports, SessionId, SessionLogin, SessionOutput, Time,
    VolumeId,
};

const TARGET: &str = "TargetName=iqn.2026-11.io.holdfast:demo\0";
const INITIATOR: &str = "InitiatorName=iqn.2026-11.test:a\0";
const NORMAL: u8 = FINAL | (1 << 2) | 3;

fn exports() -> Exports {
    let mut exports = Exports::default();
    let export = Export { volume: VolumeId(7), size: 64 << 20, unique_id: 0x1122_3344_5566_7788 };
    exports.volumes.insert("demo".into(), export);
    exports
}

/// An initiator and the session that it talks to.
struct Client {
    session: Session,
    exports: Exports,
    now: Time,
    digests: Digests,
    command_sn: u32,
    /// PDUs of the target that were not looked at yet.
    heard: VecDeque<Pdu>,
    submitted: VecDeque<(u64, holdfast_types::BlockRequest)>,
    login: Option<SessionLogin>,
    closed: Option<CloseReason>,
    bytes: Vec<u8>,
}

impl Client {
    fn connect(exports: Exports) -> Client {
        Client::connect_to(false, exports)
    }

    /// To a portal that may be one that other hosts reach.
    fn connect_to(needs_chap: bool, exports: Exports) -> Client {
        let config = SessionConfig { portal: "127.0.0.1:3260".into(), needs_chap, entropy: [9; 32] };
        Client {
            session: Session::new(Time(0), SessionId(4), config),
            exports,
            now: Time(0),
            digests: Digests::default(),
            command_sn: 1,
            heard: VecDeque::new(),
            submitted: VecDeque::new(),
            login: None,
            closed: None,
            bytes: Vec::new(),
        }
    }

    /// In full feature phase, with those operational keys, its power-on attention taken.
    fn logged_in(keys: &str) -> Client {
        let mut client = Client::connect(exports());
        let text = [INITIATOR, TARGET, keys].concat();
        client.login(NORMAL, &text);
        assert_eq!(client.hear().header.u16(36), 0, "the login is accepted");
        client.digests.header = keys.contains("HeaderDigest=CRC32C");
        client.digests.data = keys.contains("DataDigest=CRC32C");
        client.command(0, &[0; 6], 0, 0, &[]);
        assert_eq!(client.hear().header.0[3], 2, "the first command hears of the power-on");
        client
    }

    fn take(&mut self, out: Vec<SessionOutput>) {
        for output in out {
            match output {
                SessionOutput::Send(bytes) => self.bytes.extend_from_slice(&bytes),
                SessionOutput::Submit { tag, request, .. } => self.submitted.push_back((tag, request)),
                SessionOutput::LoggedIn(login) => self.login = Some(login),
                SessionOutput::Close(reason) => self.closed = Some(reason),
            }
        }
        let mut framer = crate::framer::Framer::default();
        framer.push(Bytes::from(core::mem::take(&mut self.bytes)));
        while let Some(pdu) = framer.next(self.digests, 1 << 24).expect("the target's digests match") {
            assert!(!pdu.data_damaged, "the target's data digest matches");
            self.heard.push_back(pdu);
        }
        assert_eq!(framer.buffered(), 0, "the target sends whole PDUs");
    }

    fn send_bytes(&mut self, bytes: &[u8]) {
        let mut out = Vec::new();
        self.session.received(self.now, Bytes::copy_from_slice(bytes), &self.exports, &mut out);
        self.take(out);
    }

    fn send(&mut self, header: Header, data: &[u8]) {
        let bytes = encode(header, vec![Bytes::copy_from_slice(data)], self.digests).concat();
        self.send_bytes(&bytes);
    }

    fn login(&mut self, flags: u8, text: &str) {
        let mut header = Header::new(request::LOGIN | 0x40);
        header.0[1] = flags;
        header.set(8, &[0x80, 1, 2, 3, 4, 5]);
        header.set_u32(24, self.command_sn);
        self.send(header, text.as_bytes());
    }

    /// A numbered PDU.
    fn numbered(&mut self, opcode: u8, tag: u32, edit: impl FnOnce(&mut Header), data: &[u8]) {
        let mut header = Header::new(opcode);
        header.set_u32(16, tag);
        header.set_u32(20, NO_TAG);
        header.set_u32(24, self.command_sn);
        edit(&mut header);
        if !header.immediate() {
            self.command_sn = self.command_sn.wrapping_add(1);
        }
        self.send(header, data);
    }

    /// A SCSI command; `direction` is the R or W bit.
    fn command(&mut self, tag: u32, cdb: &[u8], direction: u8, expected: u32, data: &[u8]) {
        let edit = |header: &mut Header| {
            header.0[1] = FINAL | direction;
            header.set_u32(20, expected);
            header.set(32, cdb);
        };
        self.numbered(request::SCSI_COMMAND, tag, edit, data);
    }

    fn data_out(&mut self, tag: u32, transfer: u32, (sn, offset, last): (u32, u32, bool), data: &[u8]) {
        let mut header = Header::new(request::DATA_OUT);
        header.0[1] = if last { FINAL } else { 0 };
        header.set_u32(16, tag);
        header.set_u32(20, transfer);
        header.set_u32(36, sn);
        header.set_u32(40, offset);
        self.send(header, data);
    }

    fn complete(&mut self, tag: u64, result: BlockResult) {
        let mut out = Vec::new();
        self.session.completed(self.now, tag, result, &self.exports, &mut out);
        self.take(out);
    }

    fn after(&mut self, wait: Duration) {
        self.now += wait;
        let mut out = Vec::new();
        self.session.timer(self.now, &self.exports, &mut out);
        self.take(out);
    }

    fn hear(&mut self) -> Pdu {
        self.heard.pop_front().expect("the target said something")
    }

    fn heard_text(&mut self) -> String {
        let pdu = self.hear();
        String::from_utf8(pdu.text()).expect("text").replace('\0', " ")
    }
}

/// WRITE (10)
fn write(lba: u8, blocks: u16) -> [u8; 10] {
    let [high, low] = blocks.to_be_bytes();
    [0x2a, 0, 0, 0, 0, lba, 0, high, low, 0]
}

/// READ (10)
fn read(lba: u8, blocks: u16) -> [u8; 10] {
    let mut cdb = write(lba, blocks);
    cdb[0] = 0x28;
    cdb
}

const R: u8 = 0x40;
const W: u8 = 0x20;
