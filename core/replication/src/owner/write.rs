//! How a request becomes records. A record changes whole blocks: what an initiator wrote in sectors is merged here
//! with the committed content of the first and last block, which is verified before it is merged (replication.md
//! H17). A request makes at most one record with its tag, the last; records before it only repeat what a repeat of
//! the request would write again, so that a request that was cut in between is carried out anew without harm.

use super::read::Purpose;
use super::requests::Waiting;
use super::{Owner, OwnerOutput};
use crate::message::{SegmentOp, SegmentResult};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};
use holdfast_checksum::crc32c_blocks;
use holdfast_types::{
    BLOCK_BYTES, BlockError, BlockIndex, BlockRange, RecordBody, RequestTag, Time, WriteData,
};

/// The blocks that the first write in the queue covers in part.
#[derive(Debug)]
pub(crate) struct Merge {
    blocks: BTreeMap<BlockIndex, Option<Bytes>>,
}

/// The blocks that a range covers only in part.
fn ragged(offset: u64, len: u64) -> Vec<BlockIndex> {
    let block = BLOCK_BYTES as u64;
    let (end, range) = (offset + len, BlockRange::covering(offset, len));
    let mut blocks = Vec::new();
    if !offset.is_multiple_of(block) {
        blocks.push(range.start);
    }
    let last = BlockIndex(range.end().0 - 1);
    if !end.is_multiple_of(block) && blocks.last() != Some(&last) {
        blocks.push(last);
    }
    blocks
}

impl Owner {
    /// Orders the first request of the queue. False: it waits.
    pub(super) fn order_front(&mut self, now: Time, out: &mut Vec<OwnerOutput>) -> bool {
        let Some(front) = self.requests.front() else { return false };
        let (offset, len) = front.request.op.span();
        let range = BlockRange::covering(offset, len);
        let compare = matches!(front.request.op, SegmentOp::CompareAndWrite { .. });
        let blocks = if compare { range.blocks().collect() } else { ragged(offset, len) };
        if blocks.is_empty() {
            if let Some(waiting) = self.requests.pop() {
                self.order(now, waiting, &BTreeMap::new());
            }
            return true;
        }
        // What is merged or compared is committed state.
        if self.log.touches(self.commit, range) {
            return false;
        }
        self.requests.merge = Some(Merge { blocks: blocks.iter().map(|b| (*b, None)).collect() });
        for block in blocks {
            self.read_blocks(now, BlockRange::new(block, 1), Purpose::Merge { block }, out);
        }
        false
    }

    /// A block that the first write in the queue needs was read; None: no copy of it is good.
    pub(super) fn merge_read(
        &mut self,
        now: Time,
        block: BlockIndex,
        data: Option<Bytes>,
        out: &mut Vec<OwnerOutput>,
    ) {
        let Some(merge) = &mut self.requests.merge else { return };
        let Some(data) = data else {
            self.requests.merge = None;
            if let Some(waiting) = self.requests.pop() {
                let failed = SegmentResult::Failed(BlockError::Unreadable);
                self.requests.note_failed(waiting.request.id, BlockError::Unreadable);
                self.reply(waiting.to, waiting.request.id, failed, out);
            }
            return self.advance(now, out);
        };
        if let Some(place) = merge.blocks.get_mut(&block) {
            *place = Some(data);
        }
        if merge.blocks.values().any(Option::is_none) {
            return;
        }
        let Some(merge) = self.requests.merge.take() else { return };
        let blocks: BTreeMap<BlockIndex, Bytes> =
            merge.blocks.into_iter().filter_map(|(block, data)| Some((block, data?))).collect();
        let fenced =
            |w: &Waiting| self.repeats.fenced(w.request.id.gateway, Some(w.request.session)).is_some();
        if self.requests.front().is_some_and(fenced) {
            // The fence came while its blocks were read, and is in the log before it.
            return self.advance(now, out);
        }
        let Some(waiting) = self.requests.pop() else { return };
        if let Some(at) = differs(&waiting.request.op, &blocks) {
            self.requests.note_failed(waiting.request.id, BlockError::Miscompare { at });
            // Proved like a read: no newer owner may have written what would have made it equal.
            self.prove_miscompare(now, waiting.to, waiting.request.id, at, out);
        } else {
            self.order(now, waiting, &blocks);
        }
        self.advance(now, out);
    }

    /// Makes the records of a request whose blocks are known.
    fn order(&mut self, now: Time, waiting: Waiting, blocks: &BTreeMap<BlockIndex, Bytes>) {
        let request = &waiting.request;
        let tag = RequestTag {
            gateway: request.id.gateway,
            session: request.session,
            seq: request.id.seq,
            low: request.low,
        };
        self.counters.times.queue = self.counters.times.queue + now.since(waiting.since);
        let bodies = match &request.op {
            SegmentOp::Write { offset, data } => alloc::vec![write_body(*offset, data, blocks)],
            SegmentOp::CompareAndWrite { offset, data, .. } => {
                alloc::vec![write_body(*offset, core::slice::from_ref(data), blocks)]
            }
            SegmentOp::Zero { offset, len } => zero_bodies(*offset, *len, blocks),
            SegmentOp::Read { .. } | SegmentOp::Status { .. } => Vec::new(),
        };
        let count = bodies.len();
        for (i, body) in bodies.into_iter().enumerate() {
            let lsn = self.append_record(now, body, (i + 1 == count).then_some(tag));
            if i + 1 == count {
                self.requests.attach(lsn, waiting.to, request.id);
            }
        }
    }
}

/// The first byte at which a compare finds another content.
fn differs(op: &SegmentOp, blocks: &BTreeMap<BlockIndex, Bytes>) -> Option<u32> {
    let SegmentOp::CompareAndWrite { offset, compare, .. } = op else { return None };
    let range = BlockRange::covering(*offset, compare.len() as u64);
    let content = blocks.get(&range.start)?;
    let at = (*offset - range.start.byte_offset()) as usize;
    let found = content.get(at..at + compare.len())?;
    found.iter().zip(compare.iter()).position(|(a, b)| a != b).map(|at| at as u32)
}

/// The one copy of a write's data: gathered, merged and summed into a buffer of exactly its size, because the
/// pieces may hold on to much larger buffers of a socket.
fn write_body(offset: u64, pieces: &[Bytes], blocks: &BTreeMap<BlockIndex, Bytes>) -> RecordBody {
    let len: usize = pieces.iter().map(Bytes::len).sum();
    let range = BlockRange::covering(offset, len as u64);
    let mut buffer = BytesMut::with_capacity(range.bytes());
    let before = (offset - range.start.byte_offset()) as usize;
    if before > 0
        && let Some(block) = blocks.get(&range.start)
    {
        buffer.extend_from_slice(&block[..before]);
    }
    for piece in pieces {
        buffer.extend_from_slice(piece);
    }
    let last = BlockIndex(range.end().0 - 1);
    if buffer.len() < range.bytes()
        && let Some(block) = blocks.get(&last)
    {
        let missing = range.bytes() - buffer.len();
        buffer.extend_from_slice(&block[BLOCK_BYTES - missing..]);
    }
    assert_eq!(buffer.len(), range.bytes(), "every ragged block was read");
    write_data(range, buffer.freeze())
}

fn write_data(range: BlockRange, data: Bytes) -> RecordBody {
    let crcs = crc32c_blocks(&data, BLOCK_BYTES).into();
    RecordBody::Write(WriteData { range, data, crcs })
}

/// Whole blocks become absent; of the ragged ones a part becomes zeros.
fn zero_bodies(offset: u64, len: u64, blocks: &BTreeMap<BlockIndex, Bytes>) -> Vec<RecordBody> {
    let (end, covered) = (offset + len, BlockRange::covering(offset, len));
    let mut bodies = Vec::new();
    for (block, content) in blocks {
        let start = block.byte_offset();
        let from = offset.saturating_sub(start).min(BLOCK_BYTES as u64) as usize;
        let to = (end - start).min(BLOCK_BYTES as u64) as usize;
        let mut data = BytesMut::from(&content[..]);
        data[from..to].fill(0);
        let range = BlockRange::new(*block, 1);
        // What was absent stays so: a discard needs no room.
        let body = match data.iter().all(|b| *b == 0) {
            true => RecordBody::Zero(range),
            false => write_data(range, data.freeze()),
        };
        bodies.push(body);
    }
    let whole: Vec<BlockIndex> = covered.blocks().filter(|b| !blocks.contains_key(b)).take(1).collect();
    if let Some(first) = whole.first() {
        bodies.push(RecordBody::Zero(BlockRange::new(*first, covered.count - blocks.len() as u32)));
    }
    bodies
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(byte: u8) -> Bytes {
        Bytes::from(alloc::vec![byte; BLOCK_BYTES])
    }

    #[test]
    fn a_ragged_write_keeps_what_it_does_not_cover() {
        let blocks = BTreeMap::from([(BlockIndex(0), block(7)), (BlockIndex(2), block(9))]);
        let data = [Bytes::from(alloc::vec![1; 8192 - 512 + 512])];
        let RecordBody::Write(w) = write_body(512, &data, &blocks) else { panic!("a write") };
        assert_eq!(w.range, BlockRange::new(BlockIndex(0), 3));
        assert!(w.data[..512].iter().all(|b| *b == 7));
        assert!(w.data[512..512 + 8192].iter().all(|b| *b == 1));
        assert!(w.data[512 + 8192..].iter().all(|b| *b == 9));
    }

    #[test]
    fn a_ragged_zero_is_writes_at_the_edges_and_absence_between() {
        let blocks = BTreeMap::from([(BlockIndex(0), block(7)), (BlockIndex(3), block(9))]);
        let bodies = zero_bodies(512, 3 * 4096, &blocks);
        let [RecordBody::Write(head), RecordBody::Write(tail), RecordBody::Zero(middle)] = &bodies[..] else {
            panic!("{bodies:?}")
        };
        assert!(head.data[..512].iter().all(|b| *b == 7) && head.data[512..].iter().all(|b| *b == 0));
        assert!(tail.data[..512].iter().all(|b| *b == 0) && tail.data[512..].iter().all(|b| *b == 9));
        assert_eq!(*middle, BlockRange::new(BlockIndex(1), 2));
    }

    #[test]
    fn a_zero_inside_one_block_is_one_write() {
        let blocks = BTreeMap::from([(BlockIndex(0), block(7))]);
        assert_eq!(ragged(512, 512), [BlockIndex(0)]);
        assert_eq!(zero_bodies(512, 512, &blocks).len(), 1);
    }
}
