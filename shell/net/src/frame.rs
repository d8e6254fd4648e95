//! Frames: `{header_len u32, payload_len u32, header, payload}`, lengths little-endian. The header is a message
//! of the core's codec, the payload the blocks that go with it.
//!
//! The reader hands out each payload in one buffer of exactly its size. The writer sends as many queued frames
//! with one system call as the socket takes, without copying a payload. Both keep their place in themselves,
//! so that a read or flush may be dropped at any point and taken up again. Neither knows what a frame says.

use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest header.
pub const MAX_HEADER_BYTES: usize = 1 << 20;
/// The longest payload.
pub const MAX_PAYLOAD_BYTES: usize = 8 << 20;
/// What a writer holds at most before its peer has to take some. Far above what the core has in flight.
pub const MAX_QUEUED_BYTES: usize = 64 << 20;
const LENGTHS: usize = 8;
/// What the memory of direct I/O is aligned to on most disks: the size of a sector.
const ALIGN: usize = 512;
/// Shorter payloads are gathered for the disk: copying them costs less than more pieces do.
const ALIGNED_FROM: usize = 16 << 10;
/// Slices given to one system call; IOV_MAX is 1024.
const MAX_SLICES: usize = 64;

const _: () = assert!(MAX_QUEUED_BYTES > MAX_HEADER_BYTES + MAX_PAYLOAD_BYTES);
const _: () = assert!(MAX_PAYLOAD_BYTES >= holdfast_types::MAX_RECORD_BYTES);

/// A frame as it was received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The message.
    pub header: Bytes,
    /// The data that goes with it.
    pub payload: Bytes,
}

/// Why a frame was not read or written.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The peer announces a header longer than any.
    #[error("a frame with a header of {announced} bytes, at most {MAX_HEADER_BYTES} are allowed")]
    HeaderTooLong {
        /// How long.
        announced: u64,
    },
    /// The peer announces a payload longer than any.
    #[error("a frame with a payload of {announced} bytes, at most {MAX_PAYLOAD_BYTES} are allowed")]
    PayloadTooLong {
        /// How long.
        announced: u64,
    },
    /// The peer went away in the middle of a frame.
    #[error("the connection ended inside a frame")]
    Truncated,
    /// More is queued than a peer that is alive would leave.
    #[error("{MAX_QUEUED_BYTES} bytes are queued already")]
    QueueFull,
    /// The stream failed.
    #[error("the connection failed: {0}")]
    Stream(#[from] io::Error),
}

/// Reads frames.
pub struct FrameReader<R> {
    stream: R,
    state: Reading,
}

enum Reading {
    Lengths { bytes: [u8; LENGTHS], have: usize },
    Header { buffer: BytesMut, header_len: usize, payload_len: usize },
    Payload { header: Bytes, buffer: BytesMut, payload_len: usize },
}

impl Reading {
    const START: Reading = Reading::Lengths { bytes: [0; LENGTHS], have: 0 };
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `stream`, which is at the start of a frame.
    pub fn new(stream: R) -> Self {
        Self { stream, state: Reading::START }
    }

    /// The next frame; none when the peer closed the connection between two. After an error the stream is of
    /// no more use. Safe to cancel.
    pub async fn read(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            match &mut self.state {
                Reading::Lengths { bytes, have } if *have < LENGTHS => {
                    let n = self.stream.read(&mut bytes[*have..]).await?;
                    match (n, *have) {
                        (0, 0) => return Ok(None),
                        (0, _) => return Err(FrameError::Truncated),
                        _ => *have += n,
                    }
                }
                Reading::Lengths { bytes, .. } => {
                    let (header_len, payload_len) = lengths(bytes)?;
                    let buffer = BytesMut::with_capacity(header_len);
                    self.state = Reading::Header { buffer, header_len, payload_len };
                }
                Reading::Header { buffer, header_len, .. } if buffer.len() < *header_len => {
                    fill(&mut self.stream, buffer, *header_len).await?;
                }
                Reading::Header { buffer, payload_len, .. } => {
                    let (header, payload_len) = (buffer.split().freeze(), *payload_len);
                    let buffer = payload_buffer(payload_len);
                    self.state = Reading::Payload { header, buffer, payload_len };
                }
                Reading::Payload { buffer, payload_len, .. } if buffer.len() < *payload_len => {
                    fill(&mut self.stream, buffer, *payload_len).await?;
                }
                Reading::Payload { header, buffer, .. } => {
                    let header = std::mem::take(header);
                    let payload = buffer.split().freeze();
                    self.state = Reading::START;
                    return Ok(Some(Frame { header, payload }));
                }
            }
        }
    }
}

fn lengths(bytes: &[u8; LENGTHS]) -> Result<(usize, usize), FrameError> {
    let [a, b, c, d, e, f, g, h] = *bytes;
    let header = u32::from_le_bytes([a, b, c, d]) as usize;
    let payload = u32::from_le_bytes([e, f, g, h]) as usize;
    if header > MAX_HEADER_BYTES {
        return Err(FrameError::HeaderTooLong { announced: header as u64 });
    }
    if payload > MAX_PAYLOAD_BYTES {
        return Err(FrameError::PayloadTooLong { announced: payload as u64 });
    }
    Ok((header, payload))
}

/// An empty buffer with room for a payload. A long one is aligned as most disks want it for direct I/O: what is
/// received into it goes to the disk without another copy.
fn payload_buffer(len: usize) -> BytesMut {
    if len < ALIGNED_FROM {
        return BytesMut::with_capacity(len);
    }
    let mut buffer = BytesMut::with_capacity(len + ALIGN - 1);
    let pad = buffer.as_ptr().addr().wrapping_neg() % ALIGN;
    buffer.resize(pad, 0);
    buffer.advance(pad);
    buffer
}

/// Reads once towards `want` bytes in `buffer`, never more.
async fn fill<R: AsyncRead + Unpin>(
    stream: &mut R,
    buffer: &mut BytesMut,
    want: usize,
) -> Result<(), FrameError> {
    let missing = want - buffer.len();
    let mut limited = bytes::BufMut::limit(&mut *buffer, missing);
    match stream.read_buf(&mut limited).await? {
        0 => Err(FrameError::Truncated),
        _ => Ok(()),
    }
}

/// Writes frames.
pub struct FrameWriter<W> {
    stream: W,
    /// What is to be sent, in order; the first may be sent in part. None is empty.
    queue: VecDeque<Bytes>,
    queued_bytes: usize,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes to `stream`.
    pub fn new(stream: W) -> Self {
        Self { stream, queue: VecDeque::new(), queued_bytes: 0 }
    }

    /// What it writes to.
    pub fn get_ref(&self) -> &W {
        &self.stream
    }

    /// Queues a frame; the pieces of the payload follow each other. Nothing is sent before [`Self::flush`].
    /// A frame that is refused leaves the queue as it was.
    pub fn queue(&mut self, header: Bytes, payload: Vec<Bytes>) -> Result<(), FrameError> {
        let payload_len: usize = payload.iter().map(Bytes::len).sum();
        if header.len() > MAX_HEADER_BYTES {
            return Err(FrameError::HeaderTooLong { announced: header.len() as u64 });
        }
        if payload_len > MAX_PAYLOAD_BYTES {
            return Err(FrameError::PayloadTooLong { announced: payload_len as u64 });
        }
        let total = LENGTHS + header.len() + payload_len;
        if self.queued_bytes + total > MAX_QUEUED_BYTES {
            return Err(FrameError::QueueFull);
        }
        // Lengths and header go as one piece: one slice less, and headers are small.
        let mut first = BytesMut::with_capacity(LENGTHS + header.len());
        first.extend_from_slice(&(header.len() as u32).to_le_bytes());
        first.extend_from_slice(&(payload_len as u32).to_le_bytes());
        first.extend_from_slice(&header);
        self.queue.push_back(first.freeze());
        self.queue.extend(payload.into_iter().filter(|p| !p.is_empty()));
        self.queued_bytes += total;
        Ok(())
    }

    /// Bytes that are queued and not sent.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Sends everything that is queued. Safe to cancel: what was not sent stays queued.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        while !self.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(&self.queue) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            let sent = self.stream.write_vectored(&slices[..count]).await?;
            if sent == 0 {
                return Err(FrameError::Stream(io::ErrorKind::WriteZero.into()));
            }
            self.advance(sent);
        }
        Ok(self.stream.flush().await?)
    }

    /// Drops `sent` bytes from the front of the queue.
    fn advance(&mut self, mut sent: usize) {
        assert!(sent <= self.queued_bytes, "more was sent than was queued");
        self.queued_bytes -= sent;
        while sent > 0 {
            // The sum of the queue is `queued_bytes`, so it does not run out before `sent` does.
            let front = self.queue.front_mut().expect("the queue holds what was sent");
            let step = sent.min(front.len());
            front.advance(step);
            sent -= step;
            if front.is_empty() {
                self.queue.pop_front();
            }
        }
    }
}
