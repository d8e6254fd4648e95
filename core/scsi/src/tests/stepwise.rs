//! Commands that take several steps, to their end.

use super::*;
use crate::SenseKey;
use alloc::vec;
use bytes::Bytes;
use holdfast_types::{BlockError, BlockReply, BlockResult, StatusRange};

/// A blank volume's answer, after a check that the request lies in it.
pub(super) fn checked_answer(request: &BlockRequest) -> BlockResult {
    let (offset, bytes) = match request {
        BlockRequest::Read { offset, len } => (*offset, u64::from(*len)),
        BlockRequest::Write { offset, data } => (*offset, data.iter().map(|p| p.len() as u64).sum()),
        BlockRequest::Zero { offset, len } | BlockRequest::Status { offset, len } => (*offset, *len),
        BlockRequest::CompareAndWrite { offset, data, .. } => (*offset, data.len() as u64),
        BlockRequest::Flush => (0, 0),
    };
    assert!(offset + bytes <= SIZE && offset.is_multiple_of(512) && bytes.is_multiple_of(512), "{request:?}");
    Ok(match request {
        BlockRequest::Read { len, .. } => BlockReply::Data(vec![Bytes::from(vec![0; *len as usize])]),
        BlockRequest::Status { len, .. } => {
            BlockReply::Status(vec![StatusRange { len: *len, allocated: false }])
        }
        _ => BlockReply::Done,
    })
}

/// Runs a command with that data; returns the requests that it made, and its end.
fn run(
    cdb: &[u8],
    data: &[u8],
    mut answer: impl FnMut(&BlockRequest) -> BlockResult,
) -> (Vec<String>, Response) {
    let mut requests = Vec::new();
    let mut step = start(cdb);
    loop {
        step = match step {
            Step::Respond(response) => return (requests, response),
            Step::NeedData { task, .. } => {
                // In uneven pieces, as a transport hands them over.
                let cut = data.len() / 3;
                task.data(vec![Bytes::copy_from_slice(&data[..cut]), Bytes::copy_from_slice(&data[cut..])])
            }
            Step::Submit { request, task } => {
                requests.push(describe_request(&request));
                task.completed(answer(&request))
            }
        };
    }
}

#[test]
fn a_write_hands_its_pieces_on_without_a_copy() {
    let Step::NeedData { bytes: 1024, task } = start(&cdb(10, &[(0, &[0x2a]), (5, &[4]), (8, &[2])])) else {
        panic!("a write needs its data")
    };
    let piece = Bytes::from(vec![7; 1024]);
    let Step::Submit { request: BlockRequest::Write { offset: 2048, data }, task } =
        task.data(vec![piece.clone()])
    else {
        panic!("a write goes to the volume")
    };
    assert_eq!(data[0].as_ptr(), piece.as_ptr());
    assert_eq!(describe(&task.completed(Ok(BlockReply::Done))), "good");
}

#[test]
fn fewer_whole_blocks_than_named_are_written_and_a_torn_block_is_not() {
    let two = cdb(10, &[(0, &[0x2a]), (8, &[2])]);
    assert_eq!(run(&two, &[1; 512], checked_answer).0, ["write 512 bytes at 0"]);
    let (requests, response) = run(&two, &[1; 700], checked_answer);
    assert_eq!((requests.len(), describe_response(&response)), (0, "IllegalRequest 0e/03".into()));
}

#[test]
fn write_same_of_zeros_zeroes_and_of_a_pattern_writes_in_steps() {
    let same = cdb(16, &[(0, &[0x93, 0x08]), (9, &[1]), (11, &[0, 0x10, 0x01])]);
    assert_eq!(run(&same, &[0; 512], checked_answer).0, ["Zero { offset: 512, len: 2097664 }"]);
    let mut pattern = vec![0; 512];
    pattern[511] = 1;
    let mut content = Vec::new();
    let (requests, response) = run(&same, &pattern, |request| {
        if let BlockRequest::Write { data, .. } = request {
            content.extend(data.concat());
        }
        checked_answer(request)
    });
    assert_eq!(
        requests,
        ["write 1048576 bytes at 512", "write 1048576 bytes at 1049088", "write 512 bytes at 2097664"]
    );
    assert!(content.chunks(512).all(|block| block == pattern));
    assert_eq!(describe_response(&response), "good");
}

#[test]
fn a_verify_finds_the_first_byte_that_differs() {
    let mut stored = vec![5; 3 << 20];
    stored[(2 << 20) + 77] = 6;
    let answer = |request: &BlockRequest| match request {
        BlockRequest::Read { offset, len } => {
            let range = *offset as usize..*offset as usize + *len as usize;
            Ok(BlockReply::Data(vec![Bytes::copy_from_slice(&stored[range])]))
        }
        _ => Ok(BlockReply::Done),
    };
    let compare = cdb(10, &[(0, &[0x2f, 0x02]), (7, &[0x18, 0])]);
    let (requests, response) = run(&compare, &vec![5; 3 << 20], answer);
    assert_eq!(requests.len(), 3);
    assert_eq!(describe_response(&response), "Miscompare 1d/00 information 2097229");
    assert_eq!(describe_response(&run(&compare, &stored, answer).1), "good");
    let repeated = cdb(10, &[(0, &[0x2f, 0x06]), (7, &[0x18, 0])]);
    assert_eq!(
        describe_response(&run(&repeated, &[5; 512], answer).1),
        "Miscompare 1d/00 information 2097229"
    );
    let readable = cdb(10, &[(0, &[0x2f]), (7, &[0x18, 0])]);
    assert_eq!(describe_response(&run(&readable, &[], answer).1), "good");
    let write_and_verify = cdb(10, &[(0, &[0x2e, 0x02]), (7, &[0x18, 0])]);
    let (requests, response) = run(&write_and_verify, &vec![5; 3 << 20], answer);
    assert_eq!((requests.len(), response.sense.map(|s| s.key)), (4, Some(SenseKey::Miscompare)));
}

#[test]
fn unmap_checks_every_range_before_any_takes_effect() {
    let unmap = |bytes: u8| cdb(10, &[(0, &[0x42]), (8, &[bytes])]);
    let range = |lba: u64, blocks: u32| [&lba.to_be_bytes()[..], &blocks.to_be_bytes(), &[0; 4]].concat();
    let list = |named: u8, ranges: &[Vec<u8>]| [&[0, 0, 0, named, 0, 0, 0, 0], &ranges.concat()[..]].concat();
    let (requests, _) = run(&unmap(40), &list(32, &[range(8, 16), range(64, 8)]), checked_answer);
    assert_eq!(requests, ["Zero { offset: 4096, len: 8192 }", "Zero { offset: 32768, len: 4096 }"]);
    let (requests, response) = run(&unmap(40), &list(32, &[range(8, 16), range(131_072, 1)]), checked_answer);
    assert_eq!((requests.len(), describe_response(&response)), (0, "IllegalRequest 21/00".into()));
    let (_, response) = run(&unmap(24), &list(32, &[range(8, 16)]), checked_answer);
    assert_eq!(describe_response(&response), "IllegalRequest 26/00 at list byte 2");
}

#[test]
fn compare_and_write_is_one_request_and_tells_where_it_differs() {
    let command = cdb(16, &[(0, &[0x89]), (9, &[3]), (13, &[1])]);
    let data = [vec![1; 512], vec![2; 512]].concat();
    let (_, response) = run(&command, &data, |request| {
        let BlockRequest::CompareAndWrite { offset: 1536, compare, data } = request else {
            panic!("{request:?}")
        };
        assert_eq!((&compare[..], &data[..]), (&[1; 512][..], &[2; 512][..]));
        Err(BlockError::Miscompare { at: 17 })
    });
    assert_eq!(describe_response(&response), "Miscompare 1d/00 information 17");
}

#[test]
fn get_lba_status_joins_runs_and_fits_the_allocation() {
    let runs = [(4096, true), (4096, true), (8192, false), (1 << 20, true)];
    let answer = |_: &BlockRequest| {
        let runs = runs.iter().map(|(len, allocated)| StatusRange { len: *len, allocated: *allocated });
        Ok(BlockReply::Status(runs.collect()))
    };
    let (_, response) = run(&cdb(16, &[(0, &[0x9e, 0x12]), (9, &[8]), (13, &[40])]), &[], answer);
    let expected = "good, 00 00 00 24 00 00 00 00 \
                    00 00 00 00 00 00 00 08 00 00 00 10 00 00 00 00 \
                    00 00 00 00 00 00 00 18 00 00 00 10 01 00 00 00";
    assert_eq!(describe_response(&response), expected);
}

#[test]
fn mode_select_takes_what_changes_nothing_and_points_at_what_would() {
    let select = |bytes: u8| cdb(6, &[(0, &[0x15, 0x10, 0, 0, bytes])]);
    let control = [0x0a, 0x0a, 0, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0, 0];
    let list = [&[0; 4][..], &control].concat();
    assert_eq!(describe_response(&run(&select(16), &list, checked_answer).1), "good");
    let mut changed = list.clone();
    changed[6] = 0x04; // D_SENSE
    let response = run(&select(16), &changed, checked_answer).1;
    assert_eq!(describe_response(&response), "IllegalRequest 26/00 at list byte 6");
    let response = run(&select(10), &list[..10], checked_answer).1;
    assert_eq!(describe_response(&response), "IllegalRequest 1a/00");
    let mut descriptor = vec![0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0x10, 0];
    let response = run(&select(12), &descriptor, checked_answer).1;
    assert_eq!(describe_response(&response), "IllegalRequest 26/00 at list byte 4", "blocks of 4096");
    descriptor[10] = 2;
    assert_eq!(describe_response(&run(&select(12), &descriptor, checked_answer).1), "good");
}

#[test]
fn every_failure_of_the_volume_has_its_sense() {
    let cases = [
        (BlockError::OutOfRange, "IllegalRequest 21/00"),
        (BlockError::NoSpace, "DataProtect 27/07"),
        (BlockError::Unreadable, "MediumError 11/00"),
        (BlockError::Gone, "IllegalRequest 25/00"),
        (BlockError::Fenced, "AbortedCommand 2f/02"),
        (BlockError::Invalid, "HardwareError 44/00"),
    ];
    for (error, expected) in cases {
        let (_, response) = run(&cdb(10, &[(0, &[0x28]), (8, &[1])]), &[], |_| Err(error));
        assert_eq!(describe_response(&response), expected);
    }
}

#[test]
fn an_answer_that_does_not_fit_the_question_is_a_failure_and_not_data() {
    let short = |_: &BlockRequest| Ok(BlockReply::Data(vec![Bytes::from_static(&[1; 511])]));
    let (_, response) = run(&cdb(10, &[(0, &[0x28]), (8, &[1])]), &[], short);
    assert_eq!(describe_response(&response), "HardwareError 44/00");
}
