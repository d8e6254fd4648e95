//! Cuts the stream of bytes into PDUs. A data segment stays in the pieces it arrived in; headers and digests
//! are gathered. Nothing longer than what was declared is gathered, so the memory is bounded by one PDU.
//!
//! Source: RFC 7143 11.1, 7.8.

use crate::pdu::{BHS_BYTES, DIGEST_BYTES, Digests, Header, Pdu, data_digest, digest};
use alloc::{collections::VecDeque, vec::Vec};
use bytes::{Buf, Bytes};

/// The stream cannot be cut any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// The header does not match its digest, so nothing tells where the next PDU begins.
    HeaderDigest,
    /// A data segment is longer than this target declared that it takes.
    TooLong,
}

/// Bytes that are not yet a whole PDU.
#[derive(Debug, Default)]
pub(crate) struct Framer {
    input: VecDeque<Bytes>,
    buffered: usize,
}

impl Framer {
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.buffered += bytes.len();
            self.input.push_back(bytes);
        }
    }

    /// How many bytes wait.
    pub(crate) fn buffered(&self) -> usize {
        self.buffered
    }

    /// The next PDU that is there as a whole.
    pub(crate) fn next(&mut self, digests: Digests, max_data: usize) -> Result<Option<Pdu>, FrameError> {
        if self.buffered < BHS_BYTES {
            return Ok(None);
        }
        let mut header = Header([0; BHS_BYTES]);
        self.peek(&mut header.0);
        let (ahs, data) = (header.ahs_bytes(), header.data_bytes());
        let header_digest = if digests.header { DIGEST_BYTES } else { 0 };
        let whole_header = BHS_BYTES + ahs + header_digest;
        if self.buffered < whole_header {
            return Ok(None);
        }
        if digests.header && !self.header_matches(BHS_BYTES + ahs) {
            return Err(FrameError::HeaderDigest);
        }
        if data > max_data {
            return Err(FrameError::TooLong);
        }
        let padding = data.next_multiple_of(4) - data;
        let data_digest_bytes = if digests.data && data > 0 { DIGEST_BYTES } else { 0 };
        if self.buffered < whole_header + data + padding + data_digest_bytes {
            return Ok(None);
        }
        self.take(whole_header);
        let pieces = self.take(data);
        let pad = self.take(padding);
        let given = self.take(data_digest_bytes).concat();
        let data_damaged = !given.is_empty() && {
            let mut padded = pieces.clone();
            padded.extend(pad);
            data_digest(&padded, 0)[..] != given[..]
        };
        Ok(Some(Pdu { header, data: pieces, data_damaged }))
    }

    /// Copies the first bytes without taking them; the caller knows that they are there.
    fn peek(&self, into: &mut [u8]) {
        let mut at = 0;
        for piece in &self.input {
            let len = piece.len().min(into.len() - at);
            into[at..at + len].copy_from_slice(&piece[..len]);
            at += len;
            if at == into.len() {
                return;
            }
        }
    }

    fn header_matches(&self, bytes: usize) -> bool {
        let mut head = alloc::vec![0; bytes + DIGEST_BYTES];
        self.peek(&mut head);
        digest(&head[..bytes])[..] == head[bytes..]
    }

    /// Takes the first `bytes`; the caller knows that they are there.
    fn take(&mut self, mut bytes: usize) -> Vec<Bytes> {
        self.buffered -= bytes;
        let mut taken = Vec::new();
        while bytes > 0 {
            let Some(first) = self.input.front_mut() else { break };
            if first.len() <= bytes {
                bytes -= first.len();
                taken.extend(self.input.pop_front());
            } else {
                taken.push(first.slice(..bytes));
                first.advance(bytes);
                bytes = 0;
            }
        }
        taken
    }
}
