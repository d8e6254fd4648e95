//! How messages look between nodes. A frame is a header and a payload. The header holds a version byte and the
//! small fields and lengths (postcard); the payload holds the bulk data, one piece after the other. The codec
//! never copies the data: encoding hands the pieces out, decoding slices what came.
//!
//! Everything that comes in is checked before it becomes a message: lengths against what there is and against
//! bounds, ranges against the segment, checksums' count against the blocks. The data's checksums are not
//! recomputed here: the copy that stores or the owner that adopts does that. No input makes it panic.

use crate::message::{Body, Envelope, Message, SegmentOp, SegmentReply, SegmentRequest, SegmentResult};
use alloc::{sync::Arc, vec::Vec};
use bytes::Bytes;
use holdfast_types::{
    BLOCK_BYTES, BlockError, BlockIndex, BlockRange, BlockReply, EXTENT_BLOCKS, Epoch, GatewayId, ImageBlock,
    LogPosition, Lsn, MAX_RECORD_BYTES, Record, RecordBody, ReplicaRef, RequestId, RequestTag, SECTOR_BYTES,
    SEGMENT_BLOCKS, SEGMENT_BYTES, SEGMENT_EXTENTS, SegmentKey, SessionId, StatusRange, WriteData,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of this format; a frame of another one is refused.
pub const VERSION: u8 = 1;
/// The most records that one message carries.
pub const MAX_RECORDS: usize = 4096;
/// The most data that a request or a reply carries.
pub const MAX_REQUEST_BYTES: usize = 64 << 20;

/// A message as it goes over a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Small fields and lengths.
    pub header: Bytes,
    /// The data, in pieces that follow each other.
    pub payload: Vec<Bytes>,
}

/// Why a frame is not a message. The peer's fault, always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// Nothing at all.
    #[error("the header is empty")]
    Empty,
    /// Another version.
    #[error("wire version {found}, this node speaks {VERSION}")]
    Version {
        /// Which.
        found: u8,
    },
    /// The header cannot be read.
    #[error("the header is malformed")]
    Header,
    /// There is less data than the header says, or more.
    #[error("the header announces {announced} bytes of data, {found} came")]
    Length {
        /// What the header says.
        announced: u64,
        /// What came.
        found: u64,
    },
    /// A field is out of its bounds.
    #[error("{field} is out of bounds")]
    Bounds {
        /// Which.
        field: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
enum Head {
    Replication { segment: SegmentKey, epoch: Epoch, replica: ReplicaRef, body: BodyHead },
    Request { id: RequestId, session: SessionId, low: u64, segment: SegmentKey, op: OpHead },
    Reply { id: RequestId, segment: SegmentKey, epoch: Epoch, result: ResultHead },
}

#[derive(Serialize, Deserialize)]
enum BodyHead {
    /// Everything that carries no data.
    Plain(Body),
    Append {
        prev: LogPosition,
        records: Vec<RecordHead>,
        commit: Lsn,
    },
    FetchReply {
        number: u64,
        records: Vec<RecordHead>,
    },
    ReadReply {
        number: u64,
        block: Option<BlockHead>,
    },
    Heal {
        number: u64,
        block: BlockHead,
    },
    Image {
        number: u64,
        blocks: Vec<BlockHead>,
    },
}

#[derive(Serialize, Deserialize)]
struct RecordHead {
    position: LogPosition,
    kind: KindHead,
    request: Option<RequestTag>,
}

#[derive(Serialize, Deserialize)]
enum KindHead {
    Start,
    Write { range: BlockRange, crcs: Arc<[u32]> },
    Zero(BlockRange),
    Fence { gateway: GatewayId, session: Option<SessionId> },
}

#[derive(Serialize, Deserialize)]
struct BlockHead {
    block: BlockIndex,
    lsn: Lsn,
    crc: u32,
    data: bool,
}

#[derive(Serialize, Deserialize)]
enum OpHead {
    Read { offset: u64, len: u32 },
    Write { offset: u64, len: u32 },
    Zero { offset: u64, len: u64 },
    CompareAndWrite { offset: u64, len: u32 },
    Status { offset: u64, len: u64 },
}

#[derive(Serialize, Deserialize)]
enum ResultHead {
    Done,
    Data(u32),
    Status(Vec<(u64, bool)>),
    Miscompare(u32),
    OutOfRange,
    NoSpace,
    Unreadable,
    Gone,
    FencedInitiator,
    Invalid,
    NotOwner,
    Busy,
    Fenced,
}

/// A message as it goes over a connection.
pub fn encode(message: &Message) -> Frame {
    let mut payload = Vec::new();
    let head = match message {
        Message::Replication(e) => {
            let body = body_head(&e.body, &mut payload);
            Head::Replication { segment: e.segment, epoch: e.epoch, replica: e.replica, body }
        }
        Message::Request(r) => {
            let op = op_head(&r.op, &mut payload);
            Head::Request { id: r.id, session: r.session, low: r.low, segment: r.segment, op }
        }
        Message::Reply(r) => {
            let result = result_head(&r.result, &mut payload);
            Head::Reply { id: r.id, segment: r.segment, epoch: r.epoch, result }
        }
    };
    let mut header = alloc::vec![VERSION];
    match postcard::to_allocvec(&head) {
        Ok(bytes) => header.extend_from_slice(&bytes),
        // Into memory, nothing but a type without an encoding fails, and `body_head` gives no such type.
        Err(error) => unreachable!("a header that cannot be encoded: {error}"),
    }
    Frame { header: Bytes::from(header), payload }
}

fn body_head(body: &Body, payload: &mut Vec<Bytes>) -> BodyHead {
    match body {
        Body::Append { prev, records, commit } => {
            BodyHead::Append { prev: *prev, records: record_heads(records, payload), commit: *commit }
        }
        Body::FetchReply { number, records } => {
            BodyHead::FetchReply { number: *number, records: record_heads(records, payload) }
        }
        Body::ReadReply { number, block } => {
            BodyHead::ReadReply { number: *number, block: block.as_ref().map(|b| block_head(b, payload)) }
        }
        Body::Heal { number, block } => BodyHead::Heal { number: *number, block: block_head(block, payload) },
        Body::Image { number, blocks } => BodyHead::Image {
            number: *number,
            blocks: blocks.iter().map(|b| block_head(b, payload)).collect(),
        },
        plain => BodyHead::Plain(plain.clone()),
    }
}

fn record_heads(records: &[Record], payload: &mut Vec<Bytes>) -> Vec<RecordHead> {
    let kind = |body: &RecordBody, payload: &mut Vec<Bytes>| match body {
        RecordBody::Start => KindHead::Start,
        RecordBody::Write(w) => {
            payload.push(w.data.clone());
            KindHead::Write { range: w.range, crcs: w.crcs.clone() }
        }
        RecordBody::Zero(range) => KindHead::Zero(*range),
        RecordBody::Fence { gateway, session } => KindHead::Fence { gateway: *gateway, session: *session },
    };
    let head =
        |r: &Record| RecordHead { position: r.position, kind: kind(&r.body, payload), request: r.request };
    records.iter().map(head).collect()
}

fn block_head(block: &ImageBlock, payload: &mut Vec<Bytes>) -> BlockHead {
    payload.extend(block.data.clone());
    BlockHead { block: block.block, lsn: block.lsn, crc: block.crc, data: block.data.is_some() }
}

fn op_head(op: &SegmentOp, payload: &mut Vec<Bytes>) -> OpHead {
    match op {
        SegmentOp::Read { offset, len } => OpHead::Read { offset: *offset, len: *len },
        SegmentOp::Write { offset, data } => {
            payload.extend(data.iter().cloned());
            OpHead::Write { offset: *offset, len: op.data_bytes() as u32 }
        }
        SegmentOp::Zero { offset, len } => OpHead::Zero { offset: *offset, len: *len },
        SegmentOp::CompareAndWrite { offset, compare, data } => {
            payload.extend([compare.clone(), data.clone()]);
            OpHead::CompareAndWrite { offset: *offset, len: data.len() as u32 }
        }
        SegmentOp::Status { offset, len } => OpHead::Status { offset: *offset, len: *len },
    }
}

fn result_head(result: &SegmentResult, payload: &mut Vec<Bytes>) -> ResultHead {
    match result {
        SegmentResult::Ok(BlockReply::Done) => ResultHead::Done,
        SegmentResult::Ok(BlockReply::Data(data)) => {
            payload.extend(data.iter().cloned());
            ResultHead::Data(data.iter().map(Bytes::len).sum::<usize>() as u32)
        }
        SegmentResult::Ok(BlockReply::Status(runs)) => {
            ResultHead::Status(runs.iter().map(|r| (r.len, r.allocated)).collect())
        }
        SegmentResult::Failed(error) => match error {
            BlockError::Miscompare { at } => ResultHead::Miscompare(*at),
            BlockError::OutOfRange => ResultHead::OutOfRange,
            BlockError::NoSpace => ResultHead::NoSpace,
            BlockError::Unreadable => ResultHead::Unreadable,
            BlockError::Gone => ResultHead::Gone,
            BlockError::Fenced => ResultHead::FencedInitiator,
            BlockError::Invalid => ResultHead::Invalid,
        },
        SegmentResult::NotOwner => ResultHead::NotOwner,
        SegmentResult::Busy => ResultHead::Busy,
        SegmentResult::Fenced => ResultHead::Fenced,
    }
}

/// The message of a frame.
pub fn decode(header: &[u8], payload: Bytes) -> Result<Message, WireError> {
    let (version, head) = header.split_first().ok_or(WireError::Empty)?;
    if *version != VERSION {
        return Err(WireError::Version { found: *version });
    }
    let (head, rest) = postcard::take_from_bytes::<Head>(head).map_err(|_| WireError::Header)?;
    if !rest.is_empty() {
        return Err(WireError::Header);
    }
    let mut data = Data { payload, at: 0 };
    let message = match head {
        Head::Replication { segment, epoch, replica, body } => {
            Message::Replication(Envelope { segment, epoch, replica, body: body_of(body, &mut data)? })
        }
        Head::Request { id, session, low, segment, op } => {
            let op = op_of(op, &mut data)?;
            Message::Request(SegmentRequest { id, session, low, segment, op })
        }
        Head::Reply { id, segment, epoch, result } => {
            Message::Reply(SegmentReply { id, segment, epoch, result: result_of(result, &mut data)? })
        }
    };
    data.finish()?;
    Ok(message)
}

/// Hands out the payload piece by piece.
struct Data {
    payload: Bytes,
    at: usize,
}

impl Data {
    fn take(&mut self, len: usize) -> Result<Bytes, WireError> {
        let end = self.at.saturating_add(len);
        if end > self.payload.len() {
            return Err(WireError::Length { announced: end as u64, found: self.payload.len() as u64 });
        }
        let piece = self.payload.slice(self.at..end);
        self.at = end;
        Ok(piece)
    }
    fn finish(self) -> Result<(), WireError> {
        let (announced, found) = (self.at as u64, self.payload.len() as u64);
        if announced == found { Ok(()) } else { Err(WireError::Length { announced, found }) }
    }
}

fn ensure(holds: bool, field: &'static str) -> Result<(), WireError> {
    if holds { Ok(()) } else { Err(WireError::Bounds { field }) }
}

fn body_of(head: BodyHead, data: &mut Data) -> Result<Body, WireError> {
    Ok(match head {
        BodyHead::Plain(body) => {
            plain_holds(&body)?;
            body
        }
        BodyHead::Append { prev, records, commit } => {
            let records = records_of(records, data)?;
            let follows = records.first().is_none_or(|r| Some(r.position.lsn.0) == prev.lsn.0.checked_add(1));
            ensure(follows && records.first().is_none_or(|r| r.position.epoch >= prev.epoch), "prev")?;
            Body::Append { prev, records, commit }
        }
        BodyHead::FetchReply { number, records } => {
            Body::FetchReply { number, records: records_of(records, data)? }
        }
        BodyHead::ReadReply { number, block } => {
            Body::ReadReply { number, block: block.map(|b| block_of(b, data)).transpose()? }
        }
        BodyHead::Heal { number, block } => Body::Heal { number, block: block_of(block, data)? },
        BodyHead::Image { number, blocks } => {
            ensure(blocks.len() <= EXTENT_BLOCKS as usize, "blocks")?;
            let blocks = blocks.into_iter().map(|b| block_of(b, data)).collect::<Result<Vec<_>, _>>()?;
            let one = blocks
                .windows(2)
                .all(|w| w[0].block < w[1].block && w[0].block.extent() == w[1].block.extent());
            ensure(one, "blocks")?;
            Body::Image { number, blocks }
        }
    })
}

fn plain_holds(body: &Body) -> Result<(), WireError> {
    match body {
        Body::SealReply(state) => ensure(state.index.is_valid(), "index"),
        Body::Need { index } => ensure(index.is_valid(), "index"),
        Body::Read { block, .. } => ensure(block.0 < SEGMENT_BLOCKS, "block"),
        Body::Digest { extent, .. } | Body::Room { extent, .. } => {
            ensure(extent.0 < SEGMENT_EXTENTS, "extent")
        }
        Body::DigestReply { blocks, .. } => {
            let rising = blocks.windows(2).all(|w| w[0].block < w[1].block);
            let inside = blocks.last().is_none_or(|b| b.block.0 < SEGMENT_BLOCKS);
            ensure(rising && inside && blocks.len() <= EXTENT_BLOCKS as usize, "blocks")
        }
        _ => Ok(()),
    }
}

fn records_of(heads: Vec<RecordHead>, data: &mut Data) -> Result<Vec<Record>, WireError> {
    ensure(heads.len() <= MAX_RECORDS, "records")?;
    let mut records: Vec<Record> = Vec::with_capacity(heads.len());
    for head in heads {
        let position = head.position;
        ensure(position.lsn.0 > 0 && position.lsn.0 < u64::MAX, "position")?;
        if let Some(before) = records.last().map(|r| r.position) {
            ensure(before.lsn.next() == position.lsn && before.epoch <= position.epoch, "position")?;
        }
        let body = match head.kind {
            KindHead::Start => RecordBody::Start,
            KindHead::Zero(range) => {
                range_holds(range)?;
                RecordBody::Zero(range)
            }
            KindHead::Write { range, crcs } => {
                range_holds(range)?;
                ensure(range.bytes() <= MAX_RECORD_BYTES, "range")?;
                ensure(crcs.len() == range.count as usize, "checksums")?;
                RecordBody::Write(WriteData { range, data: data.take(range.bytes())?, crcs })
            }
            KindHead::Fence { gateway, session } => RecordBody::Fence { gateway, session },
        };
        records.push(Record { position, body, request: head.request });
    }
    Ok(records)
}

fn range_holds(range: BlockRange) -> Result<(), WireError> {
    ensure(range.count > 0 && range.in_segment(), "range")
}

fn block_of(head: BlockHead, data: &mut Data) -> Result<ImageBlock, WireError> {
    ensure(head.block.0 < SEGMENT_BLOCKS, "block")?;
    let content = if head.data { Some(data.take(BLOCK_BYTES)?) } else { None };
    Ok(ImageBlock { block: head.block, lsn: head.lsn, crc: head.crc, data: content })
}

fn op_of(head: OpHead, data: &mut Data) -> Result<SegmentOp, WireError> {
    let op = match head {
        OpHead::Read { offset, len } => SegmentOp::Read { offset, len },
        OpHead::Write { offset, len } => {
            SegmentOp::Write { offset, data: alloc::vec![data.take(len as usize)?] }
        }
        OpHead::Zero { offset, len } => SegmentOp::Zero { offset, len },
        OpHead::CompareAndWrite { offset, len } => {
            let (compare, data) = (data.take(len as usize)?, data.take(len as usize)?);
            SegmentOp::CompareAndWrite { offset, compare, data }
        }
        OpHead::Status { offset, len } => SegmentOp::Status { offset, len },
    };
    ensure(op_holds(&op), "request")?;
    Ok(op)
}

/// Whether a request's range lies in a segment, in whole sectors, and carries no more than it may.
pub(crate) fn op_holds(op: &SegmentOp) -> bool {
    let (offset, len) = op.span();
    let sectors = |x: u64| x.is_multiple_of(SECTOR_BYTES as u64);
    let inside = offset <= SEGMENT_BYTES && len <= SEGMENT_BYTES - offset;
    let fits = match op {
        SegmentOp::Read { len, .. } => *len as usize <= MAX_REQUEST_BYTES,
        SegmentOp::Write { .. } => op.data_bytes() <= MAX_REQUEST_BYTES,
        SegmentOp::CompareAndWrite { compare, data, .. } => {
            let block = BLOCK_BYTES as u64;
            compare.len() == data.len() && len <= block && offset % block + len <= block
        }
        SegmentOp::Zero { .. } | SegmentOp::Status { .. } => true,
    };
    len > 0 && sectors(offset) && sectors(len) && inside && fits
}

fn result_of(head: ResultHead, data: &mut Data) -> Result<SegmentResult, WireError> {
    let failed = SegmentResult::Failed;
    Ok(match head {
        ResultHead::Done => SegmentResult::Ok(BlockReply::Done),
        ResultHead::Data(len) => {
            ensure(len as usize <= MAX_REQUEST_BYTES, "reply")?;
            SegmentResult::Ok(BlockReply::Data(alloc::vec![data.take(len as usize)?]))
        }
        ResultHead::Status(runs) => {
            let total = runs.iter().try_fold(0u64, |sum, (len, _)| sum.checked_add(*len));
            ensure(total.is_some_and(|t| t <= SEGMENT_BYTES), "reply")?;
            let run = |(len, allocated)| StatusRange { len, allocated };
            SegmentResult::Ok(BlockReply::Status(runs.into_iter().map(run).collect()))
        }
        ResultHead::Miscompare(at) => failed(BlockError::Miscompare { at }),
        ResultHead::OutOfRange => failed(BlockError::OutOfRange),
        ResultHead::NoSpace => failed(BlockError::NoSpace),
        ResultHead::Unreadable => failed(BlockError::Unreadable),
        ResultHead::Gone => failed(BlockError::Gone),
        ResultHead::FencedInitiator => failed(BlockError::Fenced),
        ResultHead::Invalid => failed(BlockError::Invalid),
        ResultHead::NotOwner => SegmentResult::NotOwner,
        ResultHead::Busy => SegmentResult::Busy,
        ResultHead::Fenced => SegmentResult::Fenced,
    })
}

#[cfg(test)]
mod tests;
