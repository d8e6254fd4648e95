//! What was received and not yet understood. Payloads leave as slices of what came in; only headers, and input
//! that drips in crumbs, are copied.

use alloc::{collections::VecDeque, vec::Vec};
use bytes::{Buf, Bytes};

/// Pieces smaller than this on average are gathered, so that a peer that sends single bytes costs no more
/// memory than one that sends whole buffers.
const CRUMB_BYTES: usize = 2048;
/// So many pieces may be crumbs.
const CRUMBS_MAX: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Input {
    pieces: VecDeque<Bytes>,
    len: usize,
}

impl Input {
    pub(crate) fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        self.len += piece.len();
        self.pieces.push_back(piece);
        if self.pieces.len() > CRUMBS_MAX + self.len / CRUMB_BYTES {
            let mut whole = Vec::with_capacity(self.len);
            for piece in self.pieces.drain(..) {
                whole.extend_from_slice(&piece);
            }
            self.pieces.push_back(Bytes::from(whole));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The first `N` bytes, left where they are.
    pub(crate) fn peek<const N: usize>(&self) -> Option<[u8; N]> {
        if self.len < N {
            return None;
        }
        let mut header = [0; N];
        let bytes = self.pieces.iter().flat_map(|piece| piece.iter());
        for (to, from) in header.iter_mut().zip(bytes) {
            *to = *from;
        }
        Some(header)
    }

    /// Drops the first `count` bytes, which are there.
    pub(crate) fn skip(&mut self, count: usize) {
        self.take(count);
    }

    /// The first `count` bytes, which are there, in pieces that follow each other.
    pub(crate) fn take(&mut self, mut count: usize) -> Vec<Bytes> {
        assert!(count <= self.len, "the caller looks at the length first");
        self.len -= count;
        let mut taken = Vec::new();
        while count > 0 {
            let Some(first) = self.pieces.front_mut() else { break };
            if first.len() > count {
                taken.push(first.split_to(count));
                break;
            }
            count -= first.len();
            taken.extend(self.pieces.pop_front());
        }
        taken
    }

    /// The first `count` bytes, which are there, in one piece.
    pub(crate) fn take_whole(&mut self, count: usize) -> Bytes {
        let mut pieces = self.take(count);
        if pieces.len() == 1 {
            return pieces.swap_remove(0);
        }
        Bytes::from(pieces.concat())
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Reads numbers and strings off the front of an option's data; None when it ends too early.
pub(crate) struct Fields(pub(crate) Bytes);

impl Fields {
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.0.try_get_u16().ok()
    }
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.0.try_get_u32().ok()
    }
    /// A string after its length.
    pub(crate) fn string(&mut self) -> Option<Bytes> {
        let len = self.u32()? as usize;
        (len <= self.0.len()).then(|| self.0.split_to(len))
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
