//! A journal batch: what is written with one order and one flush. Header blocks with the entries, then the
//! data blocks of the writes among them, in the same order.
//!
//! A batch is whole when its header passes its checksum and each data block passes the one that its entry
//! carries. It names the ring offset that it was written for, so that a copy of it in somebody's data is not
//! taken for it.

use super::{Put, Reader, has_magic, is_sealed, seal};
use crate::ring::Place;
use alloc::{sync::Arc, vec::Vec};
use bytes::Bytes;
use holdfast_types::{
    BLOCK_BYTES, BlockIndex, BlockRange, Epoch, GatewayId, LogPosition, Lsn, MAX_RECORD_BYTES, NodeId,
    ProcessIncarnation, Record, RecordBody, RepeatState, RequestTag, SegmentKey, SessionId, WriteData,
};
use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 8] = b"HFJOURNL";
/// Version 1 lacks the last field of the header, `pages`, which counts as zero then; version 2 knows of no data outside the batch.
const VERSIONS: [(u16, usize); 3] = [(1, 72), (2, BATCH_HEADER_BYTES), (VERSION, BATCH_HEADER_BYTES)];
const VERSION: u16 = 3;
/// Bytes before the entries.
pub const BATCH_HEADER_BYTES: usize = 80;
/// Bytes before an entry's own fields.
pub const ENTRY_HEADER_BYTES: usize = 24;
/// The most that the entries of one batch take.
pub const MAX_ENTRIES_BYTES: usize = 256 << 10;
/// The longest batch, whatever the ring.
pub const MAX_BATCH_BYTES: u64 = 4 << 20;
const MAX_RECORD_BLOCKS: u32 = (MAX_RECORD_BYTES / BLOCK_BYTES) as u32;

/// What an entry says of its segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A record of its log. `data_block` counts the data blocks of the batch before its own; the record's data
    /// is empty when it was read back.
    Record {
        /// The record.
        record: Record,
        /// The commit position that was known when it was written.
        commit: Lsn,
        /// Where its data starts in the batch's data.
        data_block: u32,
        /// Where its data lies on the disk, if not in the batch.
        direct: Option<u64>,
    },
    /// The epoch is promised.
    Seal(Epoch),
    /// Records after this one are gone.
    Cut(Lsn),
    /// Everything up to here is committed.
    Mark(Lsn),
    /// All that is not in the log.
    State(SegmentState),
}

/// All that a copy keeps besides its log and its extents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentState {
    /// Distinguishes a copy from one that was dropped before.
    pub life: u64,
    /// The copy was given up: nothing of this life counts any more.
    pub dropped: bool,
    /// The log starts anew after `trim`: records before this entry are gone.
    pub reset: bool,
    /// The highest epoch promised.
    pub sealed: Epoch,
    /// Records up to here are in the extents.
    pub trim: LogPosition,
    /// Records up to here are committed.
    pub commit: Lsn,
    /// See [`holdfast_types::ReplicaState`].
    pub incomplete_since: Option<Lsn>,
    /// Extents without a page count as changed here.
    pub floor: Lsn,
    /// Repeats as of `trim`.
    pub repeats: RepeatState,
}

const KIND_START: u8 = 1;
const KIND_WRITE: u8 = 2;
const KIND_ZERO: u8 = 3;
const KIND_FENCE: u8 = 4;
const KIND_SEAL: u8 = 16;
const KIND_CUT: u8 = 17;
const KIND_MARK: u8 = 18;
const KIND_STATE: u8 = 19;
const FLAG_TAGGED: u8 = 1;
const FLAG_SESSION: u8 = 2;
const FLAG_DIRECT: u8 = 4;

/// Appends an entry; what a write's data is stays with the caller.
pub fn encode_entry(out: &mut Vec<u8>, key: SegmentKey, entry: &Entry) {
    let start = out.len();
    let (kind, flags) = kind_and_flags(entry);
    out.u32(0);
    out.u8(kind);
    out.u8(flags);
    out.u16(0);
    out.key(key);
    match entry {
        Entry::Record { record, commit, data_block, direct } => {
            encode_record(out, record, *commit, *data_block, *direct);
        }
        Entry::Seal(epoch) => out.u64(epoch.0),
        Entry::Cut(lsn) | Entry::Mark(lsn) => out.u64(lsn.0),
        Entry::State(state) => match postcard::to_allocvec(state) {
            Ok(bytes) => out.bytes(&bytes),
            // Writing plain numbers and maps to a growing vector has nothing that can fail.
            Err(_) => unreachable!("a segment's state has no part that cannot be encoded"),
        },
    }
    let len = (out.len() - start - ENTRY_HEADER_BYTES) as u32;
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

fn kind_and_flags(entry: &Entry) -> (u8, u8) {
    let Entry::Record { record, direct, .. } = entry else {
        let kind = match entry {
            Entry::Seal(_) => KIND_SEAL,
            Entry::Cut(_) => KIND_CUT,
            Entry::Mark(_) => KIND_MARK,
            Entry::State(_) | Entry::Record { .. } => KIND_STATE,
        };
        return (kind, 0);
    };
    let tagged = if record.request.is_some() { FLAG_TAGGED } else { 0 };
    match &record.body {
        RecordBody::Start => (KIND_START, tagged),
        RecordBody::Write(_) => (KIND_WRITE, tagged | if direct.is_some() { FLAG_DIRECT } else { 0 }),
        RecordBody::Zero(_) => (KIND_ZERO, tagged),
        RecordBody::Fence { session, .. } => {
            (KIND_FENCE, tagged | if session.is_some() { FLAG_SESSION } else { 0 })
        }
    }
}

fn encode_record(out: &mut Vec<u8>, record: &Record, commit: Lsn, data_block: u32, direct: Option<u64>) {
    out.u64(record.position.epoch.0);
    out.u64(record.position.lsn.0);
    out.u64(commit.0);
    if let Some(tag) = &record.request {
        put_gateway(out, tag.gateway);
        out.u64(tag.session.0);
        out.u64(tag.seq);
        out.u64(tag.low);
    }
    match &record.body {
        RecordBody::Start => {}
        RecordBody::Write(w) => {
            out.u32(w.range.start.0);
            out.u32(w.range.count);
            match direct {
                Some(at) => out.u64(at),
                None => out.u32(data_block),
            }
            w.crcs.iter().for_each(|c| out.u32(*c));
        }
        RecordBody::Zero(range) => {
            out.u32(range.start.0);
            out.u32(range.count);
        }
        RecordBody::Fence { gateway, session } => {
            put_gateway(out, *gateway);
            if let Some(session) = session {
                out.u64(session.0);
            }
        }
    }
}

fn put_gateway(out: &mut Vec<u8>, gateway: GatewayId) {
    out.u16(gateway.node.0);
    out.u64(gateway.incarnation.0);
}

fn gateway(r: &mut Reader<'_>) -> Option<GatewayId> {
    Some(GatewayId { node: NodeId(r.u16()?), incarnation: ProcessIncarnation(r.u64()?) })
}

fn decode_entry(r: &mut Reader<'_>) -> Option<(SegmentKey, Entry)> {
    let len = r.u32()? as usize;
    let (kind, flags) = (r.u8()?, r.u8()?);
    r.u16()?;
    let key = r.key()?;
    let body = r.take(len)?;
    let mut r = Reader::new(body);
    let entry = match kind {
        KIND_START | KIND_WRITE | KIND_ZERO | KIND_FENCE => decode_record(&mut r, kind, flags)?,
        KIND_SEAL => Entry::Seal(Epoch(r.u64()?)),
        KIND_CUT => Entry::Cut(Lsn(r.u64()?)),
        KIND_MARK => Entry::Mark(Lsn(r.u64()?)),
        KIND_STATE => return Some((key, Entry::State(postcard::from_bytes(body).ok()?))),
        _ => return None,
    };
    r.is_empty().then_some((key, entry))
}

fn decode_record(r: &mut Reader<'_>, kind: u8, flags: u8) -> Option<Entry> {
    let position = LogPosition::new(Epoch(r.u64()?), Lsn(r.u64()?));
    let commit = Lsn(r.u64()?);
    let request = if flags & FLAG_TAGGED != 0 {
        let gateway = gateway(r)?;
        Some(RequestTag { gateway, session: SessionId(r.u64()?), seq: r.u64()?, low: r.u64()? })
    } else {
        None
    };
    let (mut data_block, mut direct) = (0, None);
    let body = match kind {
        KIND_START => RecordBody::Start,
        KIND_WRITE => {
            let range = range(r)?;
            if flags & FLAG_DIRECT != 0 {
                direct = Some(r.u64()?);
            } else {
                data_block = r.u32()?;
            }
            if range.count > MAX_RECORD_BLOCKS {
                return None;
            }
            let crcs: Option<Vec<u32>> = (0..range.count).map(|_| r.u32()).collect();
            RecordBody::Write(WriteData { range, data: Bytes::new(), crcs: Arc::from(crcs?) })
        }
        KIND_ZERO => RecordBody::Zero(range(r)?),
        _ => {
            let gateway = gateway(r)?;
            let session = if flags & FLAG_SESSION != 0 { Some(SessionId(r.u64()?)) } else { None };
            RecordBody::Fence { gateway, session }
        }
    };
    Some(Entry::Record { record: Record { position, body, request }, commit, data_block, direct })
}

fn range(r: &mut Reader<'_>) -> Option<BlockRange> {
    Some(BlockRange::new(BlockIndex(r.u32()?), r.u32()?)).filter(|r| r.in_segment())
}

/// What a batch says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Counts up by one from batch to batch.
    pub sequence: u64,
    /// Where it lies on the disk.
    pub offset: u64,
    /// The oldest batch needed when it was written.
    pub tail: Place,
    /// How many blocks the header and the entries take.
    pub header_blocks: u32,
    /// How many blocks of data follow.
    pub data_blocks: u32,
    /// How many entries there are.
    pub entries: u32,
    /// How many bytes the fixed header and the entries take.
    entries_end: u32,
    /// Extent pages with a sequence up to this one were durable when it was written.
    pub pages: u64,
    /// Where the entries begin.
    entries_at: usize,
}

impl BatchHeader {
    /// The whole batch's length.
    pub fn bytes(&self) -> u64 {
        (u64::from(self.header_blocks) + u64::from(self.data_blocks)) * BLOCK_BYTES as u64
    }

    /// The header of a block that looks like the start of a batch of this formatting. Nothing was verified yet
    /// but that its lengths are within bounds.
    pub fn peek(block: &[u8], format_nonce: u64) -> Option<Self> {
        if !has_magic(block, MAGIC) {
            return None;
        }
        let mut r = Reader::new(&block[12..]);
        let version = r.u16()?;
        let (_, entries_at) = VERSIONS.into_iter().find(|(known, _)| *known == version)?;
        r.u16()?;
        if r.u64()? != format_nonce {
            return None;
        }
        let mut header = Self {
            sequence: r.u64()?,
            offset: r.u64()?,
            tail: Place { sequence: r.u64()?, offset: r.u64()? },
            header_blocks: r.u32()?,
            data_blocks: r.u32()?,
            entries: r.u32()?,
            entries_end: r.u32()?,
            pages: 0,
            entries_at,
        };
        if version > 1 {
            header.pages = r.u64()?;
        }
        let header_bytes = u64::from(header.header_blocks) * BLOCK_BYTES as u64;
        let sound = header.bytes() <= MAX_BATCH_BYTES
            && (entries_at as u64..=header_bytes).contains(&u64::from(header.entries_end));
        sound.then_some(header)
    }

    /// Whether the header blocks pass their checksum.
    pub fn header_holds(&self, batch: &[u8]) -> bool {
        batch.get(..self.header_blocks as usize * BLOCK_BYTES).is_some_and(is_sealed)
    }
}

/// Makes the header blocks of a batch from its encoded entries.
pub fn encode_batch(
    format_nonce: u64,
    place: Place,
    tail: Place,
    pages: u64,
    entries: &[u8],
    count: u32,
    data_blocks: u32,
) -> Vec<u8> {
    let end = BATCH_HEADER_BYTES + entries.len();
    let blocks = end.div_ceil(BLOCK_BYTES);
    let mut b = Vec::with_capacity(blocks * BLOCK_BYTES);
    b.bytes(MAGIC);
    b.u32(0);
    b.u16(VERSION);
    b.u16(0);
    b.u64(format_nonce);
    for p in [place, tail] {
        b.u64(p.sequence);
        b.u64(p.offset);
    }
    b.u32(blocks as u32);
    b.u32(data_blocks);
    b.u32(count);
    b.u32(end as u32);
    b.u64(pages);
    debug_assert_eq!(b.len(), BATCH_HEADER_BYTES);
    b.bytes(entries);
    b.resize(blocks * BLOCK_BYTES, 0);
    seal(&mut b);
    b
}

/// What a batch holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its entries.
    pub entries: Vec<(SegmentKey, Entry)>,
    /// The records whose data does not pass its checksums. None: the batch is whole.
    pub damaged: Vec<(SegmentKey, LogPosition)>,
}

impl Batch {
    /// The writes whose data lies outside the batch, each with its first byte on the disk.
    pub fn elsewhere(&self) -> impl Iterator<Item = (u64, &WriteData)> {
        self.entries.iter().filter_map(|(_, entry)| match entry {
            Entry::Record { record: Record { body: RecordBody::Write(w), .. }, direct: Some(at), .. } => {
                Some((*at, w))
            }
            _ => None,
        })
    }
}

/// Whether these bytes are all of a write's data, and pass its checksums.
pub fn is_whole(w: &WriteData, data: &[u8]) -> bool {
    let mut blocks = data.chunks_exact(BLOCK_BYTES).zip(w.crcs.iter());
    data.len() == w.range.bytes() && blocks.all(|(block, crc)| holdfast_checksum::crc32c(block) == *crc)
}

/// Reads the entries of a batch whose bytes are all there, and checks its data. None: the entries cannot be relied on.
pub fn decode_batch(header: &BatchHeader, batch: &[u8]) -> Option<Batch> {
    if batch.len() as u64 != header.bytes() || !header.header_holds(batch) {
        return None;
    }
    let (head, data) = batch.split_at_checked(header.header_blocks as usize * BLOCK_BYTES)?;
    let mut r = Reader::new(head.get(header.entries_at..header.entries_end as usize)?);
    let (mut entries, mut damaged) = (Vec::new(), Vec::new());
    for _ in 0..header.entries {
        let (key, entry) = decode_entry(&mut r)?;
        if let Entry::Record { record, data_block, direct: None, .. } = &entry
            && let RecordBody::Write(w) = &record.body
        {
            let start = *data_block as usize * BLOCK_BYTES;
            let data = data.get(start..start + w.range.bytes())?;
            if !is_whole(w, data) {
                damaged.push((key, record.position));
            }
        }
        entries.push((key, entry));
    }
    r.is_empty().then_some(Batch { entries, damaged })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;
    use holdfast_checksum::crc32c_blocks;
    use holdfast_types::{SegmentId, SegmentIncarnation, VolumeId};
    use std::vec;

    fn key() -> SegmentKey {
        SegmentKey {
            segment: SegmentId { volume: VolumeId(1), index: 2 },
            incarnation: SegmentIncarnation(3),
        }
    }

    fn records() -> Vec<Record> {
        let gateway = GatewayId { node: NodeId(4), incarnation: ProcessIncarnation(5) };
        let tag = RequestTag { gateway, session: SessionId(6), seq: 7, low: 8 };
        let data = Bytes::from(vec![9; BLOCK_BYTES]);
        let crcs = crc32c_blocks(&data, BLOCK_BYTES).into();
        let write = WriteData { range: BlockRange::new(BlockIndex(10), 1), data, crcs };
        let bodies = [
            RecordBody::Start,
            RecordBody::Write(write),
            RecordBody::Zero(BlockRange::new(BlockIndex(11), 12)),
            RecordBody::Fence { gateway, session: None },
            RecordBody::Fence { gateway, session: Some(SessionId(13)) },
        ];
        let record = |(i, body)| Record {
            position: LogPosition::new(Epoch(14), Lsn(i as u64 + 1)),
            body,
            request: (i % 2 == 1).then_some(tag),
        };
        bodies.into_iter().enumerate().map(record).collect()
    }

    /// A write of one block.
    fn write() -> Record {
        records().swap_remove(1)
    }

    /// A batch with every kind of entry, and what it decodes to.
    fn known() -> (Vec<u8>, Vec<(SegmentKey, Entry)>) {
        let state = SegmentState { life: 1, sealed: Epoch(2), commit: Lsn(3), ..SegmentState::default() };
        let control =
            [Entry::Seal(Epoch(15)), Entry::Cut(Lsn(16)), Entry::Mark(Lsn(17)), Entry::State(state)];
        let records = records().into_iter().map(|record| Entry::Record {
            record,
            commit: Lsn(1),
            data_block: 0,
            direct: None,
        });
        let elsewhere =
            [Entry::Record { record: write(), commit: Lsn(1), data_block: 0, direct: Some(0x77_0000) }];
        let mut bytes = Vec::new();
        let mut entries: Vec<_> = records.chain(control).chain(elsewhere).map(|e| (key(), e)).collect();
        entries.iter().for_each(|(k, e)| encode_entry(&mut bytes, *k, e));
        let place = Place { sequence: 20, offset: 0x20000 };
        let tail = Place { sequence: 18, offset: 0x10000 };
        let mut batch = encode_batch(0x55, place, tail, 7, &bytes, entries.len() as u32, 1);
        batch.extend_from_slice(&[9; BLOCK_BYTES]);
        for (_, entry) in &mut entries {
            if let Entry::Record { record: Record { body: RecordBody::Write(w), .. }, .. } = entry {
                w.data = Bytes::new();
            }
        }
        (batch, entries)
    }

    #[test]
    fn every_kind_of_entry_comes_back() {
        let (batch, entries) = known();
        let header = BatchHeader::peek(&batch[..BLOCK_BYTES], 0x55).expect("it is a batch");
        assert_eq!((header.sequence, header.tail.sequence, header.pages), (20, 18, 7));
        assert_eq!(header.bytes(), 2 * BLOCK_BYTES as u64);
        assert_eq!(decode_batch(&header, &batch), Some(Batch { entries, damaged: Vec::new() }));
        assert_eq!(BatchHeader::peek(&batch[..BLOCK_BYTES], 0x56), None, "another formatting's");
    }

    #[test]
    fn a_batch_of_version_1_tells_of_no_pages() {
        let (batch, entries) = known();
        let (head, data) = batch.split_at(BLOCK_BYTES);
        let mut old = [&head[..72], &head[80..]].concat();
        old.resize(BLOCK_BYTES, 0);
        old[12..14].copy_from_slice(&1u16.to_le_bytes());
        let end = u32::from_le_bytes([head[68], head[69], head[70], head[71]]) - 8;
        old[68..72].copy_from_slice(&end.to_le_bytes());
        seal(&mut old);
        let header = BatchHeader::peek(&old, 0x55).expect("it is a batch");
        assert_eq!((header.sequence, header.pages), (20, 0));
        let old = [&old, data].concat();
        assert_eq!(decode_batch(&header, &old), Some(Batch { entries, damaged: Vec::new() }));
    }

    #[test]
    fn the_bytes_of_a_known_batch_do_not_change() {
        let (batch, _) = known();
        assert_eq!(crate::format::testing::hex(&batch[..272]), GOLDEN);
        assert_eq!(holdfast_checksum::crc32c(&batch), GOLDEN_CRC);
    }
    const GOLDEN: &str = "\
        48464a4f55524e4c284107c1030000005500000000000000140000000000000000000200000000001200000000000000\
        000001000000000001000000010000000a000000a0020000070000000000000018000000010000000100000000000000\
        02000000030000000e00000000000000010000000000000001000000000000004a000000020100000100000000000000\
        02000000030000000e000000000000000200000000000000010000000000000004000500000000000000060000000000\
        0000070000000000000008000000000000000a0000000100000000000000e90a78892000000003000000010000000000\
        000002000000030000000e000000000000000300000000000000010000000000\
        ";
    const GOLDEN_CRC: u32 = 2_150_922_616;

    #[test]
    fn a_flipped_bit_in_the_entries_makes_them_worthless_and_one_in_the_data_is_of_its_record() {
        let (batch, entries) = known();
        let damaged = vec![(key(), records()[1].position)];
        for bit in (0..batch.len() * 8).step_by(101) {
            let mut bad = batch.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let found = BatchHeader::peek(&bad[..BLOCK_BYTES], 0x55).and_then(|h| decode_batch(&h, &bad));
            let of_data = Batch { entries: entries.clone(), damaged: damaged.clone() };
            assert_eq!(found, (bit / 8 >= batch.len() - BLOCK_BYTES).then_some(of_data), "bit {bit}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut rng = Rng(1);
        for _ in 0..3000 {
            // A header that passes its checksum over entries that are noise.
            let noise: Vec<u8> = (0..rng.below(400)).map(|_| (rng.draw() % 24) as u8).collect();
            let place = Place { sequence: 1, offset: 0 };
            let mut batch = encode_batch(1, place, place, 0, &noise, rng.below(9) as u32, 1);
            batch.resize(batch.len() + BLOCK_BYTES, 0);
            if let Some(header) = BatchHeader::peek(&batch[..BLOCK_BYTES], 1) {
                decode_batch(&header, &batch);
            }
        }
    }
}
