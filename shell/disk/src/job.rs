//! An order on its way through the kernel, whichever way it goes: the system call that it needs next, and what
//! the call's answer means. Short transfers go on, interrupted calls are made again.

use crate::{
    buffer::{Buffer, BufferPool},
    open::OpenDisk,
};
use bytes::Bytes;
use holdfast_types::{BLOCK_BYTES, DiskFault, DiskOrder, DiskOrderKind, DiskToken};
use std::{os::fd::RawFd, sync::Arc};

/// How often a call that the kernel did not even try (EAGAIN, EINTR) is made again.
const RETRIES_MAX: u32 = 1000;
/// More pieces than this are gathered into one: the kernel takes no more (IOV_MAX).
const PIECES_MAX: usize = 1024;

/// What came of an order.
pub(crate) type Outcome = Result<Bytes, DiskFault>;

/// The system call that a job needs next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    /// pwritev2, with RWF_DSYNC when `durable`.
    Write { fd: RawFd, pieces: *const libc::iovec, count: u32, offset: u64, durable: bool },
    /// pread.
    Read { fd: RawFd, into: *mut u8, len: u32, offset: u64 },
    /// fdatasync.
    Flush { fd: RawFd },
}

/// An order with the memory that it works on. The memory stays where it is when the job moves.
#[derive(Debug)]
pub(crate) struct Job {
    /// The disk's number.
    pub(crate) slot: usize,
    /// The order's.
    pub(crate) token: DiskToken,
    /// What it counts against the disk's bound of bytes.
    pub(crate) bytes: usize,
    disk: Arc<OpenDisk>,
    work: Work,
    retries: u32,
}

// SAFETY: the pointers in `Work::Write` lead into memory that the job itself keeps alive (`kept`, `bounce`)
// and that nobody writes to.
unsafe impl Send for Job {}

#[derive(Debug)]
enum Work {
    Write {
        offset: u64,
        /// What is still to be written; points into `_kept` and `_bounce`.
        pieces: Vec<libc::iovec>,
        durable: bool,
        _kept: Vec<Bytes>,
        _bounce: Option<Buffer>,
    },
    Read {
        offset: u64,
        /// How much of the buffer is filled.
        done: usize,
        buffer: Buffer,
    },
    Flush,
}

/// How many bytes an order moves, or why the disk of that size refuses it.
pub(crate) fn check(order: &DiskOrderKind, disk_size: u64) -> Result<usize, DiskFault> {
    let (offset, len) = match order {
        DiskOrderKind::Write { offset, data, .. } => {
            if !data.iter().all(|piece| piece.len().is_multiple_of(BLOCK_BYTES)) {
                return Err(DiskFault::Io(libc::EINVAL));
            }
            (*offset, data.iter().map(Bytes::len).sum())
        }
        DiskOrderKind::Read { offset, len } => (*offset, *len),
        DiskOrderKind::Flush => return Ok(0),
    };
    if !offset.is_multiple_of(BLOCK_BYTES as u64) || !len.is_multiple_of(BLOCK_BYTES) {
        return Err(DiskFault::Io(libc::EINVAL));
    }
    // Checked here and not left to the kernel: it would make a file longer.
    match offset.checked_add(len as u64) {
        Some(end) if end <= disk_size => Ok(len),
        _ => Err(DiskFault::Short),
    }
}

impl Job {
    /// A job of an order that passed [`check`] and moves at least one block, or flushes.
    pub(crate) fn new(slot: usize, disk: &Arc<OpenDisk>, order: DiskOrder, pool: &BufferPool) -> Job {
        let (work, bytes) = match order.kind {
            DiskOrderKind::Flush => (Work::Flush, 0),
            DiskOrderKind::Read { offset, len } => {
                (Work::Read { offset, done: 0, buffer: pool.take(len) }, len)
            }
            DiskOrderKind::Write { offset, data, durable } => {
                let bytes = data.iter().map(Bytes::len).sum();
                (write_work(offset, data, durable, disk.memory_align(), pool), bytes)
            }
        };
        Job { slot, token: order.token, bytes, disk: disk.clone(), work, retries: 0 }
    }

    /// The call to make next. Its pointers are good until `answered` is called or the job is dropped.
    pub(crate) fn call(&mut self) -> Call {
        let fd = self.disk.fd();
        match &mut self.work {
            Work::Flush => Call::Flush { fd },
            Work::Write { offset, pieces, durable, .. } => Call::Write {
                fd,
                pieces: pieces.as_ptr(),
                count: pieces.len() as u32,
                offset: *offset,
                durable: *durable,
            },
            Work::Read { offset, done, buffer } => {
                let len = (buffer.len() - *done).min(1 << 30);
                // SAFETY: `done` is less than the buffer's length while the job is not finished.
                let into = unsafe { buffer.as_mut_ptr().add(*done) };
                Call::Read { fd, into, len: len as u32, offset: *offset + *done as u64 }
            }
        }
    }

    /// Takes the call's answer (a count, or a negative errno). None: there is another call to make.
    pub(crate) fn answered(&mut self, result: i64) -> Option<Outcome> {
        if result < 0 {
            let errno = result.unsigned_abs() as i32;
            if matches!(errno, libc::EINTR | libc::EAGAIN) && self.retries < RETRIES_MAX {
                self.retries += 1;
                return None;
            }
            return Some(Err(DiskFault::Io(errno)));
        }
        // O_DIRECT goes on only at whole sectors; what lies behind the last whole block is done once more.
        let moved = result as usize / BLOCK_BYTES * BLOCK_BYTES;
        match &mut self.work {
            Work::Flush => Some(Ok(Bytes::new())),
            Work::Write { offset, pieces, .. } => {
                if moved == 0 {
                    return Some(Err(DiskFault::Io(libc::EIO)));
                }
                *offset += moved as u64;
                skip(pieces, moved);
                pieces.is_empty().then(|| Ok(Bytes::new()))
            }
            Work::Read { done, buffer, .. } => {
                if moved == 0 {
                    return Some(Err(DiskFault::Short));
                }
                *done += moved;
                (*done >= buffer.len()).then(|| Ok(Bytes::new()))
            }
        }
    }

    /// What the finished job hands back: for a read that succeeded, its data.
    pub(crate) fn finish(self, outcome: Outcome) -> Outcome {
        match (outcome, self.work) {
            (Ok(_), Work::Read { buffer, .. }) => Ok(Bytes::from_owner(buffer)),
            (outcome, _) => outcome,
        }
    }
}

/// Aligned pieces go down as they are; runs of others are gathered, each byte copied once.
fn write_work(offset: u64, mut data: Vec<Bytes>, durable: bool, align: usize, pool: &BufferPool) -> Work {
    data.retain(|piece| !piece.is_empty());
    let gather_all = data.len() > PIECES_MAX;
    let as_is = |piece: &Bytes| !gather_all && piece.as_ptr().addr().is_multiple_of(align);
    let gathered: usize = data.iter().filter(|p| !as_is(p)).map(Bytes::len).sum();
    let mut bounce = (gathered > 0).then(|| pool.take(gathered));
    let mut pieces: Vec<libc::iovec> = Vec::with_capacity(data.len().min(PIECES_MAX));
    let mut filled = 0;
    let mut last_was_gathered = false;
    for piece in &data {
        let (start, is_gathered) = match &mut bounce {
            Some(bounce) if !as_is(piece) => {
                bounce.as_mut_slice()[filled..filled + piece.len()].copy_from_slice(piece);
                // SAFETY: the slice above was just indexed with the same bounds.
                let start = unsafe { bounce.as_mut_ptr().add(filled) };
                filled += piece.len();
                (start.cast_const(), true)
            }
            _ => (piece.as_ptr(), false),
        };
        match pieces.last_mut() {
            Some(last) if is_gathered && last_was_gathered => last.iov_len += piece.len(),
            _ => pieces.push(libc::iovec { iov_base: start.cast_mut().cast(), iov_len: piece.len() }),
        }
        last_was_gathered = is_gathered;
    }
    data.retain(|piece| as_is(piece));
    Work::Write { offset, pieces, durable, _kept: data, _bounce: bounce }
}

/// Takes `count` bytes off the front.
fn skip(pieces: &mut Vec<libc::iovec>, mut count: usize) {
    let whole = pieces
        .iter()
        .take_while(|piece| {
            let fits = piece.iov_len <= count;
            if fits {
                count -= piece.iov_len;
            }
            fits
        })
        .count();
    pieces.drain(..whole);
    if let Some(first) = pieces.first_mut()
        && count > 0
    {
        // SAFETY: `count` is less than the piece's length, so the pointer stays inside it.
        first.iov_base = unsafe { first.iov_base.cast::<u8>().add(count) }.cast();
        first.iov_len -= count;
    }
}

#[cfg(test)]
mod tests;
