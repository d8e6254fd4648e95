//! A tiny NBD client: bytes in, answers out. It asks for one export by name and then sends commands; simple replies
//! only. Source: the NBD protocol document, "Newstyle negotiation" and "Transmission".

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;

const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const CLIENT_FLAGS: u32 = 1 | 2;
const OPTION_GO: u32 = 7;
const ANSWER_ACK: u32 = 1;
const ANSWER_ERROR: u32 = 1 << 31;
const GREETING_LEN: usize = 18;
const OPTION_REPLY_LEN: usize = 20;
const REPLY_LEN: usize = 16;

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Read.
    Read = 0,
    /// Write.
    Write = 1,
    /// Flush.
    Flush = 3,
    /// The range reads as zeros.
    WriteZeroes = 6,
}

/// What the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Commands may be sent.
    Ready,
    /// There is no such export (yet).
    NoExport,
    /// A command is answered.
    Reply {
        /// The command's number.
        cookie: u64,
        /// Zero: it succeeded.
        error: u32,
        /// What a read brought.
        data: Bytes,
    },
    /// What came is not the protocol.
    Nonsense,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Greeting,
    Option,
    Commands,
}

/// The client's side of a connection.
#[derive(Debug)]
pub struct Nbd {
    export: String,
    phase: Phase,
    input: BytesMut,
    /// Reads under way: how many bytes come with the answer.
    reads: BTreeMap<u64, usize>,
}

impl Nbd {
    /// A connection that was just made.
    pub fn new(export: impl Into<String>) -> Self {
        Self { export: export.into(), phase: Phase::Greeting, input: BytesMut::new(), reads: BTreeMap::new() }
    }

    /// The bytes of a command. `data` is a write's content.
    pub fn command(&mut self, verb: Verb, cookie: u64, offset: u64, len: u32, data: &[u8]) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u32(REQUEST_MAGIC);
        bytes.put_u16(0);
        bytes.put_u16(verb as u16);
        bytes.put_u64(cookie);
        bytes.put_u64(offset);
        bytes.put_u32(len);
        bytes.put_slice(data);
        if verb == Verb::Read {
            self.reads.insert(cookie, len as usize);
        }
        bytes.freeze()
    }

    /// Takes what the server sent; `send` gets what is to be sent back.
    pub fn received(&mut self, bytes: &[u8], send: &mut Vec<Bytes>) -> Vec<Said> {
        self.input.extend_from_slice(bytes);
        let mut said = Vec::new();
        while let Some(heard) = self.take(send) {
            said.extend(heard);
            if said.last() == Some(&Said::Nonsense) {
                break;
            }
        }
        said
    }

    fn take(&mut self, send: &mut Vec<Bytes>) -> Option<Option<Said>> {
        match self.phase {
            Phase::Greeting => self.take_greeting(send),
            Phase::Option => self.take_answer(),
            Phase::Commands => self.take_reply(),
        }
    }

    fn take_greeting(&mut self, send: &mut Vec<Bytes>) -> Option<Option<Said>> {
        if self.input.len() < GREETING_LEN {
            return None;
        }
        let mut greeting = self.input.split_to(GREETING_LEN);
        if greeting.get_u64() != INIT_MAGIC || greeting.get_u64() != OPTION_MAGIC {
            return Some(Some(Said::Nonsense));
        }
        let mut hello = BytesMut::new();
        hello.put_u32(CLIENT_FLAGS);
        hello.put_u64(OPTION_MAGIC);
        hello.put_u32(OPTION_GO);
        hello.put_u32(self.export.len() as u32 + 6);
        hello.put_u32(self.export.len() as u32);
        hello.put_slice(self.export.as_bytes());
        hello.put_u16(0);
        send.push(hello.freeze());
        self.phase = Phase::Option;
        Some(None)
    }

    fn take_answer(&mut self) -> Option<Option<Said>> {
        if self.input.len() < OPTION_REPLY_LEN {
            return None;
        }
        let mut head = &self.input[..OPTION_REPLY_LEN];
        let (magic, _option, kind, len) = (head.get_u64(), head.get_u32(), head.get_u32(), head.get_u32());
        if magic != OPTION_REPLY_MAGIC {
            return Some(Some(Said::Nonsense));
        }
        if self.input.len() < OPTION_REPLY_LEN + len as usize {
            return None;
        }
        self.input.advance(OPTION_REPLY_LEN + len as usize);
        Some(match kind {
            ANSWER_ACK => {
                self.phase = Phase::Commands;
                Some(Said::Ready)
            }
            error if error & ANSWER_ERROR != 0 => Some(Said::NoExport),
            _ => None,
        })
    }

    fn take_reply(&mut self) -> Option<Option<Said>> {
        if self.input.len() < REPLY_LEN {
            return None;
        }
        let mut head = &self.input[..REPLY_LEN];
        let (magic, error, cookie) = (head.get_u32(), head.get_u32(), head.get_u64());
        if magic != SIMPLE_REPLY_MAGIC {
            return Some(Some(Said::Nonsense));
        }
        let len = if error == 0 { self.reads.get(&cookie).copied().unwrap_or(0) } else { 0 };
        if self.input.len() < REPLY_LEN + len {
            return None;
        }
        self.reads.remove(&cookie);
        self.input.advance(REPLY_LEN);
        let data = self.input.split_to(len).freeze();
        Some(Some(Said::Reply { cookie, error, data }))
    }
}
