//! Bytes of any kind: no panic, and memory that stays bounded.

use super::*;
use crate::session::MAX_HELD_BYTES;
use proptest::{collection::vec as many, prelude::*};

fn feed(client: &mut Client, bytes: &[u8]) {
    let mut out = Vec::new();
    client.session.received(client.now, Bytes::copy_from_slice(bytes), &client.exports, &mut out);
    for output in out {
        match output {
            SessionOutput::Submit { tag, .. } => {
                client.submitted.push_back((tag, holdfast_types::BlockRequest::Flush))
            }
            SessionOutput::Close(reason) => client.closed = Some(reason),
            SessionOutput::Send(_) | SessionOutput::LoggedIn(_) => {}
        }
    }
    assert!(client.session.held_bytes() <= MAX_HELD_BYTES + (1 << 20));
}

proptest! {
    #[test]
    fn no_stream_of_bytes_makes_a_login_panic(bytes in many(any::<u8>(), 0..400), cut in 1usize..64) {
        let mut client = Client::connect(exports());
        for piece in bytes.chunks(cut) {
            feed(&mut client, piece);
        }
    }

    #[test]
    fn no_login_text_makes_it_panic(flags in any::<u8>(), text in "[A-Za-z0-9=,x\\x00]{0,300}") {
        let mut client = Client::connect(exports());
        client.login(flags, &[INITIATOR, TARGET, &text].concat());
        client.heard.clear();
        if client.closed.is_none() {
            client.login(flags, &text);
        }
    }

    #[test]
    fn no_pdu_of_any_content_makes_a_session_panic(
        pdus in many((any::<[u8; 48]>(), 0u8..0x11, 0u32..4, many(any::<u8>(), 0..64)), 1..40),
    ) {
        let mut client = Client::logged_in("InitialR2T=No\0");
        for (bytes, opcode, tag, data) in pdus {
            let mut header = Header(bytes);
            header.0[0] = (bytes[0] & 0x40) | opcode;
            header.0[4] = 0;
            header.set_u32(16, tag);
            if bytes[0] & 0x20 != 0 {
                header.set_u32(20, u32::from(bytes[20]));
            }
            header.set_u32(24, client.command_sn);
            header.set(8, &[0; 8]);
            if header.0[0] & 0x40 == 0 && !matches!(opcode, 5 | 3 | 0x10) && opcode < 7 {
                client.command_sn = client.command_sn.wrapping_add(1);
            }
            let bytes = encode(header, vec![Bytes::from(data)], Digests::default()).concat();
            feed(&mut client, &bytes);
            if client.submitted.len() > 3 {
                let (tag, _) = client.submitted.pop_front().expect("there are some");
                let mut out = Vec::new();
                let result = Ok(holdfast_types::BlockReply::Done);
                client.session.completed(client.now, tag, result, &client.exports, &mut out);
            }
        }
    }

    #[test]
    fn a_stream_means_the_same_however_it_is_cut(cuts in many(1usize..200, 1..40)) {
        let whole = conversation(&[usize::MAX]);
        prop_assert_eq!(conversation(&cuts), whole);
    }
}

/// What a target says to a login and a write, its input cut at those lengths.
fn conversation(cuts: &[usize]) -> Vec<u8> {
    let mut login = Header::new(request::LOGIN | 0x40);
    login.0[1] = NORMAL;
    let text = Bytes::from([INITIATOR, TARGET].concat());
    let mut input = encode(login, vec![text], Digests::default()).concat();
    for n in 0..3u32 {
        let mut command = Header::new(request::SCSI_COMMAND);
        command.0[1] = FINAL | W;
        command.set_u32(16, n);
        command.set_u32(20, 1024);
        command.set_u32(24, n);
        command.set(32, &write(0, 2));
        input.extend(encode(command, vec![Bytes::from(vec![5; 512])], Digests::default()).concat());
    }
    let mut client = Client::connect(exports());
    let (mut said, mut rest, mut turn) = (Vec::new(), &input[..], 0);
    while !rest.is_empty() {
        let len = cuts[turn % cuts.len()].min(rest.len());
        turn += 1;
        let mut out = Vec::new();
        client.session.received(client.now, Bytes::copy_from_slice(&rest[..len]), &client.exports, &mut out);
        for output in out {
            if let SessionOutput::Send(bytes) = output {
                said.extend_from_slice(&bytes);
            }
        }
        rest = &rest[len..];
    }
    said
}
