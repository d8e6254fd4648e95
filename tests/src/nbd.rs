//! A small NBD client: one request at a time, simple replies. Written from the protocol document and not from
//! the server of this tree, so that both can judge each other.

use crate::hosts;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const FIXED_NEWSTYLE_NO_ZEROES: u32 = 3;
/// The longest option reply that is read.
const OPTION_MAX: u32 = 1 << 16;

/// What an NBD server is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read.
    Read = 0,
    /// Write.
    Write = 1,
    /// Flush.
    Flush = 3,
    /// Trim.
    Trim = 4,
}

/// An error number that the server sent. Everything else that goes wrong is of the connection.
#[derive(Debug)]
pub struct Refused(pub u32);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the server answered with error {}", self.0)
    }
}
impl std::error::Error for Refused {}

/// Whether an error is the server's answer and not the loss of the connection.
pub fn is_refusal(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|e| e.is::<Refused>())
}

/// A connection to one export.
pub struct Client {
    stream: TcpStream,
    cookie: u64,
    size: u64,
}

impl Client {
    /// Connects to an export. An answer that takes longer than `limit` is an error.
    pub fn connect(address: &str, export: &str, limit: Duration) -> io::Result<Client> {
        let stream = TcpStream::connect((hosts::enter(address), 10809))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        let mut client = Client { stream, cookie: 0, size: 0 };
        client.negotiate(export)?;
        Ok(client)
    }

    fn negotiate(&mut self, export: &str) -> io::Result<()> {
        let mut greeting = [0; 18];
        self.stream.read_exact(&mut greeting)?;
        if greeting[..8] != MAGIC.to_be_bytes() || greeting[8..16] != OPTION_MAGIC.to_be_bytes() {
            return Err(io::Error::other("this is no NBD server of the newstyle"));
        }
        let mut go = FIXED_NEWSTYLE_NO_ZEROES.to_be_bytes().to_vec();
        go.extend(OPTION_MAGIC.to_be_bytes());
        go.extend(OPT_GO.to_be_bytes());
        go.extend((export.len() as u32 + 6).to_be_bytes());
        go.extend((export.len() as u32).to_be_bytes());
        go.extend(export.as_bytes());
        go.extend([0, 0]);
        self.stream.write_all(&go)?;
        loop {
            let mut head = [0; 20];
            self.stream.read_exact(&mut head)?;
            let (kind, len) = (be32(&head[12..]), be32(&head[16..]));
            if head[..8] != OPTION_REPLY_MAGIC.to_be_bytes() || len > OPTION_MAX {
                return Err(io::Error::other("an option reply is malformed"));
            }
            let mut data = vec![0; len as usize];
            self.stream.read_exact(&mut data)?;
            match kind {
                REP_ACK => return Ok(()),
                REP_INFO if data.len() == 12 && data[..2] == [0, 0] => {
                    self.size = u64::from_be_bytes(data[2..10].try_into().expect("eight bytes"));
                }
                REP_INFO => {}
                error => return Err(io::Error::other(Refused(error))),
            }
        }
    }

    /// The export's size.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Sends a request without waiting for its reply; returns its cookie.
    pub fn send(&mut self, command: Command, offset: u64, len: u32, data: &[u8]) -> io::Result<u64> {
        self.cookie += 1;
        let mut request = Vec::with_capacity(28 + data.len());
        request.extend(REQUEST_MAGIC.to_be_bytes());
        request.extend(0u16.to_be_bytes());
        request.extend((command as u16).to_be_bytes());
        request.extend(self.cookie.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(len.to_be_bytes());
        request.extend(data);
        self.stream.write_all(&request)?;
        Ok(self.cookie)
    }

    /// Waits for the reply to `cookie`, which must be the next one; reads `len` bytes with it.
    pub fn reply(&mut self, cookie: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head)?;
        if be32(&head) != REPLY_MAGIC || head[8..] != cookie.to_be_bytes() {
            return Err(io::Error::other("this is not the reply to the request"));
        }
        match be32(&head[4..]) {
            0 => {}
            error => return Err(io::Error::other(Refused(error))),
        }
        let mut data = vec![0; len];
        self.stream.read_exact(&mut data)?;
        Ok(data)
    }

    /// Takes the replies to so many reads of `len` bytes, in any order.
    pub fn take_any(&mut self, count: usize, len: usize) -> io::Result<()> {
        let mut data = vec![0; len];
        for _ in 0..count {
            let mut head = [0; 16];
            self.stream.read_exact(&mut head)?;
            match (be32(&head), be32(&head[4..])) {
                (REPLY_MAGIC, 0) => self.stream.read_exact(&mut data)?,
                (REPLY_MAGIC, error) => return Err(io::Error::other(Refused(error))),
                _ => return Err(io::Error::other("this is no reply")),
            }
        }
        Ok(())
    }

    /// Reads.
    pub fn read(&mut self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let cookie = self.send(Command::Read, offset, len as u32, &[])?;
        self.reply(cookie, len)
    }

    /// Writes.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let cookie = self.send(Command::Write, offset, data.len() as u32, data)?;
        self.reply(cookie, 0).map(drop)
    }

    /// Flushes.
    pub fn flush(&mut self) -> io::Result<()> {
        let cookie = self.send(Command::Flush, 0, 0, &[])?;
        self.reply(cookie, 0).map(drop)
    }

    /// Trims.
    pub fn trim(&mut self, offset: u64, len: u32) -> io::Result<()> {
        let cookie = self.send(Command::Trim, offset, len, &[])?;
        self.reply(cookie, 0).map(drop)
    }
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}
