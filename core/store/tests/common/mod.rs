//! Shorthands for orders and records.
#![allow(dead_code, reason = "each test file uses some of them")]

use bytes::Bytes;
use holdfast_checksum::crc32c_blocks;
use holdfast_store::StoreConfig;
use holdfast_store::testing::Rig;
use holdfast_types::*;

pub const MIB: u64 = 1 << 20;

pub fn small() -> StoreConfig {
    StoreConfig {
        journal_bytes: Some(16 * MIB),
        dirty_limit_bytes: 512 << 10,
        page_cache_bytes: 64 << 10,
        log_memory_bytes: 256 << 10,
        log_retain_bytes: MIB,
        ..StoreConfig::default()
    }
}

pub fn key(n: u32) -> SegmentKey {
    SegmentKey { segment: SegmentId { volume: VolumeId(1), index: n }, incarnation: SegmentIncarnation(1) }
}

/// Content that names its block and LSN.
pub fn content(block: u32, count: u32, lsn: u64) -> Bytes {
    let mut data = Vec::with_capacity(count as usize * BLOCK_BYTES);
    for b in block..block + count {
        let word = (u64::from(b) << 40 | lsn).to_le_bytes();
        (0..BLOCK_BYTES / 8).for_each(|_| data.extend_from_slice(&word));
    }
    Bytes::from(data)
}

pub fn write(epoch: u64, lsn: u64, block: u32, count: u32) -> Record {
    let data = content(block, count, lsn);
    let crcs = crc32c_blocks(&data, BLOCK_BYTES).into();
    let range = BlockRange::new(BlockIndex(block), count);
    record(epoch, lsn, RecordBody::Write(WriteData { range, data, crcs }))
}

pub fn zero(epoch: u64, lsn: u64, block: u32, count: u32) -> Record {
    record(epoch, lsn, RecordBody::Zero(BlockRange::new(BlockIndex(block), count)))
}

pub fn record(epoch: u64, lsn: u64, body: RecordBody) -> Record {
    Record { position: LogPosition::new(Epoch(epoch), Lsn(lsn)), body, request: None }
}

pub fn append(records: Vec<Record>) -> StoreOrder {
    let sealed = records.last().map_or(Epoch(1), |r| r.position.epoch);
    StoreOrder::Append { cut_after: None, records, sealed }
}

pub fn read(block: u32, count: u32) -> StoreOrder {
    StoreOrder::Read { range: BlockRange::new(BlockIndex(block), count) }
}

pub fn joined(outcome: StoreOutcome) -> Vec<u8> {
    match outcome {
        StoreOutcome::Read { data } => data.concat(),
        other => panic!("no data: {other:?}"),
    }
}

/// A formatted disk with segment 0.
pub fn rig() -> Rig {
    let mut rig = Rig::format(48 * MIB, small(), 1);
    assert!(matches!(rig.opened, Some(Ok(_))), "{:?}", rig.opened);
    rig.call(|s, now, _| s.create_replica(now, key(0)));
    rig
}

/// Appends and commits.
pub fn put(rig: &mut Rig, record: Record) {
    let lsn = record.position.lsn;
    assert!(matches!(rig.run(key(0), append(vec![record])), StoreOutcome::Appended { .. }));
    rig.order(key(0), StoreOrder::Commit { lsn });
}

/// The blocks of the disk that hold this content.
pub fn places_of(rig: &Rig, content: &[u8]) -> Vec<u64> {
    (0..rig.disk.size() / BLOCK_BYTES as u64).filter(|n| rig.disk.peek(*n)[..] == *content).collect()
}

/// Makes a superblock one of another version.
pub fn as_version(rig: &mut Rig, superblock: u64, version: u8) {
    let mut block = rig.disk.peek(superblock);
    block[12] = version;
    let crc = holdfast_checksum::crc32c(&block[12..]).to_le_bytes();
    block[8..12].copy_from_slice(&crc);
    let old = rig.disk.peek(superblock);
    for (at, (old, new)) in old.into_iter().zip(block).enumerate() {
        for bit in (0..8).filter(|bit| (old ^ new) >> bit & 1 == 1) {
            rig.disk.flip_bit(superblock * BLOCK_BYTES as u64 + at as u64, bit);
        }
    }
}
