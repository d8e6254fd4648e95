//! Replies to options and commands, as bytes.

use crate::wire::{self, NbdError, chunk};
use alloc::vec::Vec;
use bytes::{BufMut, Bytes};
use holdfast_types::SessionOutput;

/// The most runs told in one reply of block status. The protocol lets a server tell fewer than asked for; the
/// client asks again for the rest.
const STATUS_RUNS_MAX: usize = 64 << 10;

/// A reply to an option.
pub(crate) fn option_reply(option: u32, kind: u32, data: &[u8]) -> SessionOutput {
    let mut out = Vec::with_capacity(20 + data.len());
    out.put_u64(wire::OPTION_REPLY_MAGIC);
    out.put_u32(option);
    out.put_u32(kind);
    out.put_u32(data.len() as u32);
    out.put_slice(data);
    SessionOutput::Send(out.into())
}

/// "Simple reply message". None: success.
pub(crate) fn simple(cookie: u64, error: Option<NbdError>) -> SessionOutput {
    let mut out = Vec::with_capacity(16);
    out.put_u32(wire::SIMPLE_REPLY_MAGIC);
    out.put_u32(error.map_or(0, |e| e as u32));
    out.put_u64(cookie);
    SessionOutput::Send(out.into())
}

fn chunk_header(kind: u16, cookie: u64, payload: usize, capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(20 + capacity);
    out.put_u32(wire::STRUCTURED_REPLY_MAGIC);
    out.put_u16(chunk::FLAG_DONE);
    out.put_u16(kind);
    out.put_u64(cookie);
    out.put_u32(payload as u32);
    out
}

/// A structured reply that is one error.
pub(crate) fn structured_error(cookie: u64, error: NbdError) -> SessionOutput {
    let mut out = chunk_header(chunk::ERROR, cookie, 6, 6);
    out.put_u32(error as u32);
    // The length of a message for people, which is left out: the number says it all.
    out.put_u16(0);
    SessionOutput::Send(out.into())
}

/// A structured reply with all the data of a read in one chunk, which also serves a client that set DF.
pub(crate) fn structured_data(cookie: u64, offset: u64, data: Vec<Bytes>, out: &mut Vec<SessionOutput>) {
    let len: usize = data.iter().map(Bytes::len).sum();
    let mut header = chunk_header(chunk::OFFSET_DATA, cookie, 8 + len, 8);
    header.put_u64(offset);
    out.push(SessionOutput::Send(header.into()));
    out.extend(data.into_iter().filter(|piece| !piece.is_empty()).map(SessionOutput::Send));
}

/// A structured reply with the runs of `base:allocation` over at most `len` bytes. `one`: only the first run.
/// None when the runs say nothing of the first byte.
pub(crate) fn block_status(
    cookie: u64,
    len: u32,
    one: bool,
    runs: &[holdfast_types::StatusRange],
) -> Option<SessionOutput> {
    let mut told: Vec<(u32, bool)> = Vec::new();
    let mut left = u64::from(len);
    for run in runs {
        let part = run.len.min(left) as u32;
        left -= u64::from(part);
        let full = told.len() == STATUS_RUNS_MAX;
        match told.last_mut() {
            _ if part == 0 => {}
            // No overflow: all parts together are at most `len`.
            Some((last, allocated)) if *allocated == run.allocated => *last += part,
            Some(_) if one || full => break,
            _ => told.push((part, run.allocated)),
        }
    }
    if told.is_empty() {
        return None;
    }
    let payload = 4 + told.len() * 8;
    let mut out = chunk_header(chunk::BLOCK_STATUS, cookie, payload, payload);
    out.put_u32(wire::ALLOCATION_ID);
    for (len, allocated) in told {
        out.put_u32(len);
        out.put_u32(if allocated { 0 } else { wire::STATE_HOLE_ZERO });
    }
    Some(SessionOutput::Send(out.into()))
}
