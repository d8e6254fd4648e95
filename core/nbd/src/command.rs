//! Commands: what a client asks of its volume, checked and turned into block requests, and what their results
//! look like to it ("Transmission phase").

use crate::{
    negotiate::Agreement,
    reply,
    wire::{self, NbdError, command_flag, request},
};
use alloc::{collections::BTreeMap, vec::Vec};
use bytes::{Buf, Bytes};
use holdfast_types::{
    BlockError, BlockReply, BlockRequest, BlockResult, CloseReason, Exports, SECTOR_BYTES, SessionOutput,
    VolumeId,
};

/// Bytes of reads and writes in flight above which nothing more is taken from the peer.
const IN_FLIGHT_BYTES_MAX: u64 = 8 << 20;
/// Commands in flight above which nothing more is taken from the peer.
const IN_FLIGHT_COMMANDS_MAX: usize = 1024;

/// The header of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) flags: u16,
    pub(crate) kind: u16,
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

impl Header {
    /// None where the magic number is wrong.
    pub(crate) fn parse(bytes: &[u8; wire::REQUEST_LEN]) -> Option<Header> {
        let mut bytes = bytes.as_slice();
        (bytes.get_u32() == wire::REQUEST_MAGIC).then(|| Header {
            flags: bytes.get_u16(),
            kind: bytes.get_u16(),
            cookie: bytes.get_u64(),
            offset: bytes.get_u64(),
            len: bytes.get_u32(),
        })
    }

    /// How many bytes of data follow the header.
    pub(crate) fn payload(&self) -> usize {
        if self.kind == request::WRITE { self.len as usize } else { 0 }
    }
}

/// A command whose result is awaited.
#[derive(Debug)]
struct Pending {
    header: Header,
    /// What it counts against the bound.
    bytes: u64,
}

/// A connection on its volume.
#[derive(Debug)]
pub(crate) struct Transmission {
    agreed: Agreement,
    pending: BTreeMap<u64, Pending>,
    pending_bytes: u64,
    last_tag: u64,
    /// The client said goodbye; what is in flight is still answered.
    leaving: bool,
    /// The client does not take what it was sent: nothing is started that would add to it.
    pub(crate) deaf: bool,
}

impl Transmission {
    pub(crate) fn new(agreed: Agreement) -> Self {
        Self { agreed, pending: BTreeMap::new(), pending_bytes: 0, last_tag: 0, leaving: false, deaf: false }
    }

    pub(crate) fn volume(&self) -> VolumeId {
        self.agreed.volume
    }

    /// Whether the next command may be taken now.
    pub(crate) fn has_room(&self) -> bool {
        !self.leaving
            && !self.deaf
            && self.pending_bytes < IN_FLIGHT_BYTES_MAX
            && self.pending.len() < IN_FLIGHT_COMMANDS_MAX
    }

    /// Why the connection is to end now, if it is.
    pub(crate) fn ended(&self, exports: &Exports) -> Option<CloseReason> {
        if !self.pending.is_empty() {
            None
        } else if self.leaving {
            Some(CloseReason::Logout)
        } else if exports.by_id(self.agreed.volume).is_none() {
            Some(CloseReason::VolumeGone)
        } else {
            None
        }
    }

    /// One command with its payload.
    pub(crate) fn command(
        &mut self,
        header: Header,
        data: Vec<Bytes>,
        exports: &Exports,
        out: &mut Vec<SessionOutput>,
    ) {
        if header.kind == request::DISC {
            self.leaving = true;
            return;
        }
        match self.check(&header, exports) {
            Err(error) => out.push(self.failure(&header, error)),
            // Reading ahead brings nothing that reading itself does not.
            Ok(()) if header.kind == request::CACHE => out.push(reply::simple(header.cookie, None)),
            Ok(()) => self.submit(header, data, out),
        }
    }

    fn submit(&mut self, header: Header, data: Vec<Bytes>, out: &mut Vec<SessionOutput>) {
        let (offset, len) = (header.offset, header.len);
        let request = match header.kind {
            request::READ => BlockRequest::Read { offset, len },
            request::WRITE => BlockRequest::Write { offset, data },
            request::TRIM | request::WRITE_ZEROES => BlockRequest::Zero { offset, len: u64::from(len) },
            request::BLOCK_STATUS => BlockRequest::Status { offset, len: u64::from(len) },
            _ => BlockRequest::Flush,
        };
        let bytes = match header.kind {
            request::READ | request::WRITE => u64::from(len),
            _ => 0,
        };
        self.last_tag += 1;
        self.pending_bytes += bytes;
        self.pending.insert(self.last_tag, Pending { header, bytes });
        out.push(SessionOutput::Submit { tag: self.last_tag, volume: self.agreed.volume, request });
    }

    /// Whether the command is one that this server offered, on a range that there is.
    fn check(&self, header: &Header, exports: &Exports) -> Result<(), NbdError> {
        let allowed = match header.kind {
            request::READ if self.agreed.structured => command_flag::DF,
            request::WRITE_ZEROES => command_flag::NO_HOLE,
            request::BLOCK_STATUS if self.agreed.allocation => command_flag::REQ_ONE,
            request::BLOCK_STATUS => return Err(NbdError::Invalid),
            request::READ | request::WRITE | request::TRIM | request::CACHE => 0,
            request::FLUSH => 0,
            _ => return Err(NbdError::Invalid),
        };
        // FUA may stand on every command; every write is stable when it is answered anyway.
        if header.flags & !(allowed | command_flag::FUA) != 0 {
            return Err(NbdError::Invalid);
        }
        let size = exports.by_id(self.agreed.volume).ok_or(NbdError::Shutdown)?.size;
        if header.kind == request::FLUSH {
            return Ok(());
        }
        let len = u64::from(header.len);
        let sector = SECTOR_BYTES as u64;
        if len == 0 || !len.is_multiple_of(sector) || !header.offset.is_multiple_of(sector) {
            return Err(NbdError::Invalid);
        }
        if header.kind == request::READ && header.len > wire::MAX_PAYLOAD_BYTES {
            let whole = header.flags & command_flag::DF != 0;
            return Err(if whole { NbdError::Overflow } else { NbdError::Invalid });
        }
        match header.offset.checked_add(len) {
            Some(end) if end <= size => Ok(()),
            _ => Err(out_of_range(header.kind)),
        }
    }

    /// A command's result. A tag that is not awaited is passed over. Some: the connection ends at once.
    pub(crate) fn completed(
        &mut self,
        tag: u64,
        result: BlockResult,
        out: &mut Vec<SessionOutput>,
    ) -> Option<CloseReason> {
        let Pending { header, bytes } = self.pending.remove(&tag)?;
        self.pending_bytes -= bytes;
        match result {
            // Not answered: the client goes on over another gateway, where the command may still succeed.
            Err(BlockError::Fenced) => {
                return Some(CloseReason::Protocol("the session was taken over by another gateway"));
            }
            Err(error) => out.push(self.failure(&header, error_value(error, header.kind))),
            Ok(reply) => self.success(&header, reply, out),
        }
        None
    }

    fn success(&self, header: &Header, reply: BlockReply, out: &mut Vec<SessionOutput>) {
        match (header.kind, reply) {
            (request::READ, BlockReply::Data(data))
                if data.iter().map(Bytes::len).sum::<usize>() == header.len as usize =>
            {
                if self.agreed.structured {
                    reply::structured_data(header.cookie, header.offset, data, out);
                } else {
                    out.push(reply::simple(header.cookie, None));
                    out.extend(data.into_iter().filter(|d| !d.is_empty()).map(SessionOutput::Send));
                }
            }
            (request::BLOCK_STATUS, BlockReply::Status(runs)) => {
                let one = header.flags & command_flag::REQ_ONE != 0;
                let told = reply::block_status(header.cookie, header.len, one, &runs);
                out.push(told.unwrap_or_else(|| self.failure(header, NbdError::Io)));
            }
            // Something else than was asked for: wrong data is worse than none.
            (request::READ | request::BLOCK_STATUS, _) => out.push(self.failure(header, NbdError::Io)),
            _ => out.push(reply::simple(header.cookie, None)),
        }
    }

    /// With structured replies, a read must fail in one; block status exists only there.
    fn failure(&self, header: &Header, error: NbdError) -> SessionOutput {
        let structured = matches!(header.kind, request::READ | request::BLOCK_STATUS);
        if structured && self.agreed.structured {
            reply::structured_error(header.cookie, error)
        } else {
            reply::simple(header.cookie, Some(error))
        }
    }
}

/// "Error values": writing past the end is a lack of space, reading there is a mistake.
fn out_of_range(kind: u16) -> NbdError {
    match kind {
        request::WRITE | request::WRITE_ZEROES => NbdError::NoSpace,
        _ => NbdError::Invalid,
    }
}

fn error_value(error: BlockError, kind: u16) -> NbdError {
    match error {
        BlockError::NoSpace => NbdError::NoSpace,
        BlockError::OutOfRange => out_of_range(kind),
        BlockError::Unreadable => NbdError::Io,
        BlockError::Gone | BlockError::Fenced => NbdError::Shutdown,
        BlockError::Invalid | BlockError::Miscompare { .. } => NbdError::Invalid,
    }
}
