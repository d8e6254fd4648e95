//! Commands: their data, their waiting, and being given up.

use super::*;
use crate::pdu::response;
use crate::session::{MAX_HELD_BYTES, MAX_IN_FLIGHT_BYTES};
use alloc::{format, string::ToString};
use holdfast_types::{BlockError, BlockReply, BlockRequest};

const ABORT_TASK: u8 = 1;
const LUN_RESET: u8 = 5;

fn manage(client: &mut Client, function: u8, referenced: u32) -> u8 {
    let edit = |header: &mut Header| {
        header.0[0] |= 0x40;
        header.0[1] = FINAL | function;
        header.set_u32(20, referenced);
    };
    client.numbered(request::TASK_MANAGEMENT, 0x99, edit, &[]);
    let answer = client.hear();
    assert_eq!(answer.header.opcode(), response::TASK_MANAGEMENT);
    answer.header.0[2]
}

/// Sense key, code and qualifier of a response.
fn sense(pdu: &Pdu) -> (u8, u8, u8) {
    assert_eq!((pdu.header.opcode(), pdu.header.0[3]), (response::SCSI_RESPONSE, 2));
    let text = pdu.text();
    (text[4] & 0xf, text[14], text[15])
}

#[test]
fn while_a_write_waits_everything_else_is_answered() {
    let mut client = Client::logged_in("");
    client.command(1, &write(0, 1), W, 512, &[7; 512]);
    let (tag, _) = client.submitted.pop_front().expect("the write is at the volume");
    client.after(Duration::from_secs(3600));
    assert_eq!(client.closed, None, "a session whose commands wait is never closed");
    assert_eq!(
        client.hear().header.opcode(),
        response::NOP_IN,
        "it only asks whether the initiator is there"
    );
    client.numbered(request::NOP_OUT, 2, |h| h.0[0] |= 0x40, b"ping");
    let pong = client.hear();
    assert_eq!((pong.header.opcode(), pong.text()), (response::NOP_IN, b"ping".to_vec()));
    assert_eq!(manage(&mut client, ABORT_TASK, 1), 0);
    client.complete(tag, Ok(BlockReply::Done));
    assert!(client.heard.is_empty(), "a command that was given up is not answered");
    assert_eq!(manage(&mut client, ABORT_TASK, 1), 1, "it does not exist any more");
    client.numbered(request::LOGOUT, 3, |_| {}, &[]);
    assert_eq!(client.hear().header.opcode(), response::LOGOUT);
    assert_eq!(client.closed, Some(CloseReason::Logout));
}

#[test]
fn a_late_result_is_not_taken_for_that_of_a_new_command_with_the_same_tag() {
    let mut client = Client::logged_in("");
    client.command(1, &write(0, 1), W, 512, &[7; 512]);
    let (old, _) = client.submitted.pop_front().expect("the write is at the volume");
    assert_eq!(manage(&mut client, ABORT_TASK, 1), 0);
    client.command(1, &write(8, 1), W, 512, &[8; 512]);
    let (new, _) = client.submitted.pop_front().expect("the new write is at the volume");
    client.complete(old, Ok(BlockReply::Done));
    assert!(client.heard.is_empty(), "the new write is not done yet");
    client.complete(new, Ok(BlockReply::Done));
    assert_eq!(client.hear().header.0[3], 0);
    assert_eq!(client.session.held_bytes(), 0);
}

#[test]
fn a_reset_gives_every_command_up_and_is_told_once() {
    let mut client = Client::logged_in("");
    client.command(1, &write(0, 1), W, 512, &[7; 512]);
    client.command(2, &read(0, 1), R, 512, &[]);
    client.command(3, &write(0, 8), W, 4096, &[]);
    assert_eq!(client.hear().header.opcode(), response::R2T);
    assert_eq!(manage(&mut client, LUN_RESET, NO_TAG), 0);
    while let Some((tag, _)) = client.submitted.pop_front() {
        client.complete(tag, Ok(BlockReply::Done));
    }
    assert!(client.heard.is_empty());
    assert_eq!(client.session.held_bytes(), 0);
    client.command(4, &[0; 6], 0, 0, &[]);
    assert_eq!(sense(&client.hear()), (6, 0x29, 3));
    client.command(5, &[0; 6], 0, 0, &[]);
    assert_eq!(client.hear().header.0[3], 0);
}

#[test]
fn immediate_unsolicited_and_solicited_data_come_together_in_order() {
    let mut client =
        Client::logged_in("InitialR2T=No\0FirstBurstLength=1024\0MaxBurstLength=1024\0MaxOutstandingR2T=2\0");
    let edit = |header: &mut Header| {
        header.0[1] = W;
        header.set_u32(20, 4096);
        header.set(32, &write(0, 8));
    };
    client.numbered(request::SCSI_COMMAND, 1, edit, &[1; 512]);
    client.data_out(1, NO_TAG, (0, 512, true), &[2; 512]);
    let (first, second) = (client.hear(), client.hear());
    assert_eq!((first.header.u32(40), first.header.u32(44), first.header.u32(36)), (1024, 1024, 0));
    assert_eq!((second.header.u32(40), second.header.u32(44), second.header.u32(36)), (2048, 1024, 1));
    client.data_out(1, first.header.transfer_tag(), (0, 1024, false), &[3; 500]);
    client.data_out(1, first.header.transfer_tag(), (1, 1524, true), &[3; 524]);
    let third = client.hear();
    client.data_out(1, second.header.transfer_tag(), (0, 2048, true), &[4; 1024]);
    client.data_out(1, third.header.transfer_tag(), (0, 3072, true), &[5; 1024]);
    let Some((tag, BlockRequest::Write { offset: 0, data })) = client.submitted.pop_front() else {
        panic!("the write is at the volume")
    };
    let expected = [vec![1; 512], vec![2; 512], vec![3; 1024], vec![4; 1024], vec![5; 1024]].concat();
    assert_eq!(data.concat(), expected);
    client.complete(tag, Ok(BlockReply::Done));
    let done = client.hear();
    assert_eq!(
        (done.header.opcode(), done.header.0[3], done.header.u32(36)),
        (response::SCSI_RESPONSE, 0, 3)
    );
    assert_eq!(client.session.held_bytes(), 0);
}

#[test]
fn data_that_was_not_agreed_ends_its_command_only() {
    let cases = [
        ("out of order", 1, (5, 0, true), 512, (0xb, 0x47, 5)),
        ("another offset", 1, (0, 512, true), 512, (0xb, 0x47, 5)),
        ("too much", 1, (0, 0, true), 1024, (0xb, 0x0c, 0x0d)),
        ("not asked for", NO_TAG, (0, 0, true), 512, (0xb, 0x0c, 0x0c)),
    ];
    for (name, transfer, place, len, expected) in cases {
        let mut client = Client::logged_in("");
        client.command(1, &write(0, 1), W, 512, &[]);
        assert_eq!(client.hear().header.transfer_tag(), 1);
        client.data_out(1, transfer, place, &vec![0; len]);
        assert_eq!(sense(&client.hear()), expected, "{name}");
        client.data_out(1, 1, (0, 0, true), &[0; 512]);
        assert!(client.heard.is_empty() && client.submitted.is_empty(), "{name}: late data is dropped");
        assert_eq!((client.session.held_bytes(), client.closed), (0, None), "{name}");
    }
}

#[test]
fn a_read_comes_in_segments_with_its_status_in_the_last() {
    let mut client = Client::logged_in("MaxRecvDataSegmentLength=1024\0MaxBurstLength=2048\0");
    client.command(1, &read(0, 8), R, 8192, &[]);
    let (tag, request) = client.submitted.pop_front().expect("the read is at the volume");
    assert_eq!(request, BlockRequest::Read { offset: 0, len: 4096 });
    let data: Vec<u8> = (0..4096u32).map(|n| (n / 7) as u8).collect();
    let pieces = vec![Bytes::copy_from_slice(&data[..1500]), Bytes::copy_from_slice(&data[1500..])];
    client.complete(tag, Ok(BlockReply::Data(pieces)));
    let parts: Vec<Pdu> = core::mem::take(&mut client.heard).into();
    let flags: Vec<u8> = parts.iter().map(|p| p.header.flags()).collect();
    assert_eq!(
        flags,
        [0, 0x80, 0, 0x83],
        "a sequence ends with each burst; the last has status and underflow"
    );
    assert_eq!(parts.iter().flat_map(Pdu::text).collect::<Vec<_>>(), data);
    assert_eq!(parts[3].header.u32(44), 4096, "half of what was expected is missing");
}

#[test]
fn damaged_headers_end_the_session_and_damaged_data_its_command() {
    let keys = "HeaderDigest=CRC32C\0DataDigest=CRC32C\0";
    let mut client = Client::logged_in(keys);
    client.command(1, &write(0, 1), W, 512, &[]);
    let transfer = client.hear().header.transfer_tag();
    let mut header = Header::new(request::DATA_OUT);
    header.set_u32(16, 1);
    header.set_u32(20, transfer);
    let mut bytes = encode(header, vec![Bytes::from(vec![3; 512])], client.digests).concat();
    bytes[100] ^= 1;
    client.send_bytes(&bytes);
    let reject = client.hear();
    assert_eq!((reject.header.opcode(), reject.header.0[2]), (response::REJECT, 2));
    assert_eq!(reject.text(), header_with_length(header, 512));
    assert_eq!(sense(&client.hear()), (0xb, 0x47, 5));
    assert_eq!(client.closed, None);

    let mut bytes = encode(Header::new(request::NOP_OUT), Vec::new(), client.digests).concat();
    bytes[20] ^= 1;
    client.send_bytes(&bytes);
    assert!(matches!(client.closed, Some(CloseReason::Protocol(_))));
}

fn header_with_length(mut header: Header, bytes: usize) -> Vec<u8> {
    header.set_data_bytes(bytes);
    header.0.to_vec()
}

#[test]
fn what_a_peer_makes_the_session_hold_is_bounded_and_nothing_starves() {
    let mut client = Client::logged_in("MaxBurstLength=1048576\0");
    // Sixty-four reads of 1 MiB: eight go to the volume, the others wait their turn.
    for tag in 0..64 {
        client.command(tag, &read(0, 2048), R, 1 << 20, &[]);
    }
    assert_eq!(client.submitted.len(), MAX_IN_FLIGHT_BYTES >> 20);
    let block = Bytes::from(vec![0; 1 << 20]);
    let mut answered = 0;
    while let Some((tag, _)) = client.submitted.pop_front() {
        client.complete(tag, Ok(BlockReply::Data(vec![block.clone()])));
        client.heard.clear();
        answered += 1;
    }
    assert_eq!((answered, client.session.held_bytes()), (64, 0));
}

#[test]
fn aborting_and_writing_again_cannot_fill_the_memory() {
    let mut client = Client::logged_in("");
    let data = vec![1; 64 << 10];
    let mut sent = 0;
    while client.session.wants_input() {
        client.command(1, &write(0, 128), W, 64 << 10, &data);
        assert_eq!(manage(&mut client, ABORT_TASK, 1), 0);
        sent += data.len();
        assert!(sent <= MAX_HELD_BYTES + (1 << 20), "input is taken without end");
    }
    while let Some((tag, _)) = client.submitted.pop_front() {
        client.complete(tag, Ok(BlockReply::Done));
    }
    assert!(client.session.wants_input());
    assert_eq!(client.session.held_bytes(), 0);
}

#[test]
fn commands_outside_of_the_window_are_ignored_and_a_gap_ends_the_session() {
    let mut client = Client::logged_in("");
    client.command_sn += 1000;
    client.command(1, &[0; 6], 0, 0, &[]);
    assert!(client.heard.is_empty() && client.closed.is_none());
    client.command_sn -= 1000;
    client.command(2, &[0; 6], 0, 0, &[]);
    assert!(matches!(client.closed, Some(CloseReason::Protocol(_))));
}

#[test]
fn a_resize_is_told_once_and_a_deletion_ends_the_session() {
    let mut client = Client::logged_in("");
    let mut changed = exports();
    changed.volumes.get_mut("demo").expect("it is there").size *= 2;
    client.exports = changed;
    let mut out = Vec::new();
    client.session.exports_changed(client.now, &client.exports, &mut out);
    client.take(out);
    client.command(1, &[0; 6], 0, 0, &[]);
    assert_eq!(sense(&client.hear()), (6, 0x2a, 9));
    client.command(2, &write(0, 1), W, 512, &[7; 512]);
    client.exports.volumes.clear();
    let mut out = Vec::new();
    client.session.exports_changed(client.now, &client.exports, &mut out);
    client.take(out);
    assert_eq!(sense(&client.hear()), (5, 0x25, 0));
    assert_eq!(client.closed, Some(CloseReason::VolumeGone));
}

#[test]
fn a_failure_of_the_volume_is_told_as_sense() {
    let cases = [
        (BlockError::NoSpace, (7, 0x27, 7)),
        (BlockError::Unreadable, (3, 0x11, 0)),
        (BlockError::Gone, (5, 0x25, 0)),
        (BlockError::OutOfRange, (5, 0x21, 0)),
        (BlockError::Miscompare { at: 3 }, (0xe, 0x1d, 0)),
    ];
    for (error, expected) in cases {
        let mut client = Client::logged_in("");
        client.command(1, &write(0, 1), W, 512, &[7; 512]);
        let (tag, _) = client.submitted.pop_front().expect("the write is at the volume");
        client.complete(tag, Err(error));
        assert_eq!(sense(&client.hear()), expected);
    }
}

/// What each operation code comes to in a state: what is answered, and whether the session ends.
fn reaction(mut client: Client, opcode: u8) -> String {
    client.numbered(opcode, 0x55, |_| {}, &[]);
    let answer = client.heard.pop_front().map_or("nothing".to_string(), |pdu| match pdu.header.opcode() {
        response::REJECT => format!("reject {:02x}", pdu.header.0[2]),
        response::LOGIN => format!("login response {:04x}", pdu.header.u16(36)),
        other => format!("{other:02x}"),
    });
    match client.closed {
        Some(reason) => format!("{answer}, then closed: {reason}"),
        None => answer,
    }
}

#[test]
fn every_pdu_in_every_state_is_answered_as_recorded() {
    let opcodes = [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10, 0x1c, 0x20, 0x3f];
    let mut lines = Vec::new();
    for opcode in opcodes {
        let discovery = || {
            let mut client = Client::connect(exports());
            client.login(NORMAL, &format!("{INITIATOR}SessionType=Discovery\0"));
            client.hear();
            client
        };
        lines.push(format!("{opcode:02x} in login: {}", reaction(Client::connect(exports()), opcode)));
        lines.push(format!("{opcode:02x} in discovery: {}", reaction(discovery(), opcode)));
        lines.push(format!("{opcode:02x} in a normal session: {}", reaction(Client::logged_in(""), opcode)));
    }
    insta::assert_snapshot!(lines.join("\n"));
}
