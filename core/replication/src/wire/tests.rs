//! Every kind of message goes over the wire and comes back the same; no bytes make the decoder panic.

use super::*;
use crate::index::LogIndex;
use crate::message::SealState;
use crate::repeats::RepeatTable;
use alloc::vec;
use holdfast_types::{
    BlockContent, BlockDigest, DiskId, DiskIncarnation, Duration, ExtentIndex, NodeId, ProcessIncarnation,
    RepeatState, SegmentId, SegmentIncarnation, StoreRefusal, VolumeId,
};
use proptest::prelude::*;

fn key() -> SegmentKey {
    SegmentKey { segment: SegmentId { volume: VolumeId(3), index: 2 }, incarnation: SegmentIncarnation(1) }
}

fn replica() -> ReplicaRef {
    ReplicaRef { node: NodeId(2), disk: DiskId(77), incarnation: DiskIncarnation(1) }
}

fn gateway() -> GatewayId {
    GatewayId { node: NodeId(1), incarnation: ProcessIncarnation(4) }
}

fn round_trip(message: &Message) {
    let frame = encode(message);
    let payload: Vec<u8> = frame.payload.iter().flat_map(|p| p.iter().copied()).collect();
    assert_eq!(decode(&frame.header, Bytes::from(payload)).as_ref(), Ok(message));
}

fn records() -> Vec<Record> {
    let data = Bytes::from(vec![5u8; 2 * BLOCK_BYTES]);
    let crcs: Arc<[u32]> = Arc::from([1u32, 2].as_slice());
    let write = WriteData { range: BlockRange::new(BlockIndex(9), 2), data, crcs };
    let tag = RequestTag { gateway: gateway(), session: SessionId(8), seq: 5, low: 3 };
    let at = |lsn| LogPosition::new(Epoch(4), Lsn(lsn));
    vec![
        Record { position: at(7), body: RecordBody::Start, request: None },
        Record { position: at(8), body: RecordBody::Write(write), request: Some(tag) },
        Record {
            position: at(9),
            body: RecordBody::Zero(BlockRange::new(BlockIndex(0), 300)),
            request: Some(tag),
        },
        Record {
            position: at(10),
            body: RecordBody::Fence { gateway: gateway(), session: Some(SessionId(1)) },
            request: None,
        },
    ]
}

fn image() -> ImageBlock {
    ImageBlock { block: BlockIndex(3), lsn: Lsn(6), crc: 9, data: Some(Bytes::from(vec![1; BLOCK_BYTES])) }
}

fn bodies() -> Vec<Body> {
    let seal = SealState {
        index: LogIndex::starting_at(LogPosition::new(Epoch(1), Lsn(5))),
        applied: Lsn(5),
        lease_left: Duration(17),
        incomplete_since: Some(Lsn(2)),
        repeats: Some(RepeatTable::default()),
    };
    let digest = |block, content| BlockDigest { block: BlockIndex(block), lsn: Lsn(2), content };
    let absent = ImageBlock { block: BlockIndex(4), lsn: Lsn(6), crc: 0, data: None };
    vec![
        Body::Seal { repeats: true },
        Body::SealReply(seal.clone()),
        Body::Append { prev: LogPosition::new(Epoch(4), Lsn(6)), records: records(), commit: Lsn(6) },
        Body::Append { prev: LogPosition::ZERO, records: Vec::new(), commit: Lsn(0) },
        Body::Appended { matched: Lsn(8), committed: Lsn(7) },
        Body::Need { index: seal.index },
        Body::Rejected { sealed: Epoch(9) },
        Body::Refused { reason: StoreRefusal::Full },
        Body::Room { number: 5, extent: ExtentIndex(255), after: Lsn(9) },
        Body::RoomReply { number: 5, refusal: None, spare: 3 },
        Body::RoomReply { number: 5, refusal: Some(StoreRefusal::Later), spare: 0 },
        Body::Lease { number: 1 },
        Body::LeaseReply { number: 1, granted: true },
        Body::Probe { number: 2 },
        Body::ProbeReply { number: 2 },
        Body::Fetch { number: 3, after: Lsn(4), max_bytes: 5 },
        Body::FetchReply { number: 3, records: records() },
        Body::Read { number: 4, block: BlockIndex(5), min_lsn: Lsn(6) },
        Body::ReadReply { number: 4, block: Some(image()) },
        Body::ReadReply { number: 4, block: None },
        Body::Heal { number: 5, block: image() },
        Body::HealReply { number: 5, replaced: true },
        Body::Learn { base: LogPosition::new(Epoch(2), Lsn(3)) },
        Body::LearnReply { base: LogPosition::new(Epoch(2), Lsn(3)), since: Lsn(1) },
        Body::Image { number: 6, blocks: vec![image(), absent] },
        Body::ImageReply { number: 6, installed: false },
        Body::Digest { number: 7, extent: ExtentIndex(8) },
        Body::DigestReply {
            number: 7,
            at: Lsn(9),
            blocks: vec![
                digest(8 * EXTENT_BLOCKS, BlockContent::Absent),
                digest(8 * EXTENT_BLOCKS + 1, BlockContent::Good(3)),
                digest(8 * EXTENT_BLOCKS + 2, BlockContent::Bad(4)),
            ],
        },
        Body::Finish { repeats: RepeatState::default() },
        Body::FinishReply,
        Body::Release { number: 8 },
    ]
}

#[test]
fn every_message_between_owner_and_copy_comes_back_the_same() {
    for body in bodies() {
        round_trip(&Message::Replication(Envelope {
            segment: key(),
            epoch: Epoch(4),
            replica: replica(),
            body,
        }));
    }
}

#[test]
fn every_request_and_reply_comes_back_the_same() {
    let id = RequestId { gateway: gateway(), seq: 12 };
    let data = Bytes::from(vec![7u8; 1024]);
    let ops = [
        SegmentOp::Read { offset: 512, len: 1024 },
        SegmentOp::Write { offset: 512, data: vec![data.clone()] },
        SegmentOp::Zero { offset: 0, len: SEGMENT_BYTES },
        SegmentOp::CompareAndWrite { offset: 4096, compare: data.slice(..512), data: data.slice(512..) },
        SegmentOp::Status { offset: 0, len: 4096 },
    ];
    for op in ops {
        let request = SegmentRequest { id, session: SessionId(3), low: 11, segment: key(), op };
        round_trip(&Message::Request(request));
    }
    let results = [
        SegmentResult::Ok(BlockReply::Done),
        SegmentResult::Ok(BlockReply::Data(vec![data])),
        SegmentResult::Ok(BlockReply::Status(vec![StatusRange { len: 4096, allocated: true }])),
        SegmentResult::Failed(BlockError::Miscompare { at: 5 }),
        SegmentResult::Failed(BlockError::NoSpace),
        SegmentResult::NotOwner,
        SegmentResult::Busy,
        SegmentResult::Fenced,
    ];
    for result in results {
        round_trip(&Message::Reply(SegmentReply { id, segment: key(), epoch: Epoch(6), result }));
    }
}

#[test]
fn a_frame_of_another_version_is_refused_by_name() {
    assert_eq!(decode(&[VERSION + 1, 0], Bytes::new()), Err(WireError::Version { found: VERSION + 1 }));
    assert_eq!(decode(&[], Bytes::new()), Err(WireError::Empty));
}

#[test]
fn missing_or_surplus_data_is_refused() {
    let segment = key();
    let body = Body::Append { prev: LogPosition::ZERO, records: records(), commit: Lsn(0) };
    let frame =
        encode(&Message::Replication(Envelope { segment, epoch: Epoch(4), replica: replica(), body }));
    let payload: Vec<u8> = frame.payload.iter().flat_map(|p| p.iter().copied()).collect();
    assert!(decode(&frame.header, Bytes::from(payload[..payload.len() - 1].to_vec())).is_err());
    assert!(decode(&frame.header, Bytes::from([payload, vec![0]].concat())).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(header in proptest::collection::vec(any::<u8>(), 0..200), payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut header = header;
        if let Some(first) = header.first_mut() {
            *first = VERSION;
        }
        let _ = decode(&header, Bytes::from(payload));
    }
}
