//! Whole conversations, byte by byte as the protocol document has them.

use crate::{Session, SessionConfig};
use alloc::{string::ToString, vec, vec::Vec};
use bytes::{BufMut, Bytes};
use holdfast_types::{
    BlockError, BlockReply, BlockRequest, BlockResult, CloseReason, Duration, Export, Exports, SessionId,
    SessionOutput, StatusRange, Time, VolumeId,
};

mod limits;

const SIZE: u64 = 1 << 30;
const NOW: Time = Time(1_000);

fn exports(names: &[&str]) -> Exports {
    let mut exports = Exports::default();
    for (i, name) in names.iter().enumerate() {
        let volume = VolumeId(i as u64 + 1);
        exports.volumes.insert(name.to_string(), Export { volume, size: SIZE, unique_id: i as u64 });
    }
    exports
}

/// A client at the other end, in memory.
struct Client {
    session: Session,
    exports: Exports,
    /// What the session wants of the engine, in order.
    submitted: Vec<(u64, BlockRequest)>,
    closed: Option<CloseReason>,
    logged_in: Option<VolumeId>,
    received: Vec<u8>,
}

impl Client {
    fn new(exports: Exports) -> Client {
        let session = Session::new(NOW, SessionId(1), SessionConfig::default());
        let (submitted, received) = (Vec::new(), Vec::new());
        Client { session, exports, submitted, closed: None, logged_in: None, received }
    }

    fn take(&mut self, out: Vec<SessionOutput>) {
        for output in out {
            assert!(self.closed.is_none(), "nothing follows a close: {output:?}");
            match output {
                SessionOutput::Send(bytes) => self.received.extend(bytes),
                SessionOutput::Submit { tag, volume, request } => {
                    assert_eq!(Some(volume), self.logged_in);
                    self.submitted.push((tag, request));
                }
                SessionOutput::LoggedIn(login) => self.logged_in = login.volume,
                SessionOutput::Close(reason) => self.closed = Some(reason),
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.session.received(NOW, Bytes::copy_from_slice(bytes), &self.exports, &mut out);
        self.take(out);
        core::mem::take(&mut self.received)
    }

    fn complete(&mut self, tag: u64, result: BlockResult) -> Vec<u8> {
        let mut out = Vec::new();
        self.session.completed(NOW, tag, result, &self.exports, &mut out);
        self.take(out);
        core::mem::take(&mut self.received)
    }

    /// Greeted, flags exchanged.
    fn greeted() -> Client {
        let mut client = Client::new(exports(&["demo", "other"]));
        let greeting = client.send(&[0, 0, 0, 3]);
        assert_eq!(greeting, b"NBDMAGICIHAVEOPT\0\x03");
        client
    }

    /// On the volume "demo".
    fn on_demo(structured: bool) -> Client {
        let mut client = Client::greeted();
        if structured {
            client.send(&option(8, &[]));
            client.send(&option(10, &meta_request("demo", &["base:allocation"])));
        }
        client.send(&option(7, &info_request("demo", &[])));
        assert_eq!(client.logged_in, Some(VolumeId(1)));
        client
    }

    fn only_submitted(&mut self) -> (u64, BlockRequest) {
        assert_eq!(self.submitted.len(), 1, "{:?}", self.submitted);
        self.submitted.remove(0)
    }
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.put_u32(number);
    bytes.put_u32(data.len() as u32);
    bytes.put_slice(data);
    bytes
}

fn option_answer(number: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_u64(0x0003_e889_0455_65a9);
    bytes.put_u32(number);
    bytes.put_u32(kind);
    bytes.put_u32(data.len() as u32);
    bytes.put_slice(data);
    bytes
}

fn string(bytes: &mut Vec<u8>, text: &str) {
    bytes.put_u32(text.len() as u32);
    bytes.put_slice(text.as_bytes());
}

fn info_request(name: &str, wanted: &[u16]) -> Vec<u8> {
    let mut data = Vec::new();
    string(&mut data, name);
    data.put_u16(wanted.len() as u16);
    wanted.iter().for_each(|w| data.put_u16(*w));
    data
}

fn meta_request(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = Vec::new();
    string(&mut data, name);
    data.put_u32(queries.len() as u32);
    queries.iter().for_each(|q| string(&mut data, q));
    data
}

fn command(flags: u16, kind: u16, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_u32(0x2560_9513);
    bytes.put_u16(flags);
    bytes.put_u16(kind);
    bytes.put_u64(cookie);
    bytes.put_u64(offset);
    bytes.put_u32(len);
    bytes
}

fn simple(error: u32, cookie: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_u32(0x6744_6698);
    bytes.put_u32(error);
    bytes.put_u64(cookie);
    bytes
}

fn chunk(kind: u16, cookie: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_u32(0x668e_33ef);
    bytes.put_u16(1);
    bytes.put_u16(kind);
    bytes.put_u64(cookie);
    bytes.put_u32(payload.len() as u32);
    bytes.put_slice(payload);
    bytes
}

const ERROR: u32 = 1 << 31;

#[test]
fn the_server_greets_first_when_its_timer_is_asked() {
    let mut session = Session::new(NOW, SessionId(1), SessionConfig::default());
    assert_eq!(session.next_timer(), Some(NOW));
    let mut out = Vec::new();
    session.timer(NOW, &exports(&["demo"]), &mut out);
    assert_eq!(out, [SessionOutput::Send(Bytes::from_static(b"NBDMAGICIHAVEOPT\0\x03"))]);
    assert_eq!(session.next_timer(), Some(NOW + Duration::from_secs(15)));
    session.start(&mut out);
    assert_eq!(out.len(), 1, "once only");
}

#[test]
fn a_client_that_never_finishes_the_handshake_is_turned_away() {
    let mut client = Client::greeted();
    let mut out = Vec::new();
    client.session.timer(NOW + Duration::from_secs(14), &client.exports, &mut out);
    assert!(out.is_empty());
    client.session.timer(NOW + Duration::from_secs(15), &client.exports, &mut out);
    assert_eq!(out, [SessionOutput::Close(CloseReason::Timeout)]);
    assert!(!client.session.wants_input());
    assert_eq!(Client::on_demo(true).session.next_timer(), None, "on a volume it may be silent for ever");
}

#[test]
fn export_name_answers_as_of_old() {
    let mut client = Client::greeted();
    let answer = client.send(&option(1, b"demo"));
    let mut want = Vec::new();
    want.put_u64(SIZE);
    want.put_u16(0x56d);
    assert_eq!(answer, want);
    assert_eq!(client.logged_in, Some(VolumeId(1)));

    let mut client = Client::new(exports(&["demo"]));
    client.send(&[0, 0, 0, 1]);
    assert_eq!(client.send(&option(1, b"")).len(), 134, "zeroes follow, and no name means the only volume");

    let mut client = Client::greeted();
    client.send(&option(1, b""));
    assert_eq!(client.closed, Some(CloseReason::NoSuchTarget), "two volumes: no name means none");
}

#[test]
fn list_names_every_volume() {
    let want = [
        option_answer(3, 2, b"\0\0\0\x04demo"),
        option_answer(3, 2, b"\0\0\0\x05other"),
        option_answer(3, 1, b""),
    ]
    .concat();
    assert_eq!(Client::greeted().send(&option(3, b"")), want);
    assert_eq!(Client::greeted().send(&option(3, b"x")), option_answer(3, ERROR | 3, b""));
}

#[test]
fn go_tells_size_flags_and_block_sizes() {
    let mut client = Client::greeted();
    let mut export = vec![0, 0];
    export.put_u64(SIZE);
    export.put_u16(0x56d);
    let mut sizes = vec![0, 3];
    [512, 4096, 32 << 20].iter().for_each(|n| sizes.put_u32(*n));
    let want = |number| {
        [
            option_answer(number, 3, &export),
            option_answer(number, 3, &sizes),
            option_answer(number, 3, b"\0\x01demo"),
            option_answer(number, 3, b"\0\x02Holdfast volume"),
            option_answer(number, 1, b""),
        ]
        .concat()
    };
    assert_eq!(client.send(&option(6, &info_request("demo", &[1, 2, 3]))), want(6));
    assert_eq!(client.logged_in, None, "information only");
    assert_eq!(client.send(&option(7, &info_request("demo", &[1, 2]))), want(7));
    assert_eq!(client.logged_in, Some(VolumeId(1)));
}

#[test]
fn options_that_are_not_offered_are_refused_and_others_follow() {
    let mut client = Client::greeted();
    for unsupported in [5, 11, 4, 77] {
        assert_eq!(client.send(&option(unsupported, b"")), option_answer(unsupported, ERROR | 1, b""));
    }
    let unknown = client.send(&option(7, &info_request("none", &[])));
    assert_eq!(unknown, option_answer(7, ERROR | 6, b""));
    let malformed = client.send(&option(7, b"\0\0\0\x09demo"));
    assert_eq!(malformed, option_answer(7, ERROR | 3, b""));
    let trailing = [info_request("demo", &[]), vec![0]].concat();
    assert_eq!(client.send(&option(6, &trailing)), option_answer(6, ERROR | 3, b""));
    assert_eq!(client.send(&option(2, b"")), option_answer(2, 1, b""));
    assert_eq!(client.closed, Some(CloseReason::Logout));
}

#[test]
fn what_is_no_negotiation_closes_the_connection() {
    let close = |bytes: &[u8]| {
        let mut client = Client::greeted();
        client.send(bytes);
        client.closed
    };
    assert!(matches!(close(b"GET / HTTP/1.1\r\n\r\n"), Some(CloseReason::Protocol(_))));
    let mut long = b"IHAVEOPT\0\0\0\x03".to_vec();
    long.put_u32(u32::MAX);
    assert!(matches!(close(&long), Some(CloseReason::Protocol(_))));
    let mut client = Client::new(exports(&["demo"]));
    client.send(&[0xff; 4]);
    assert!(matches!(client.closed, Some(CloseReason::Protocol(_))));
}

#[test]
fn meta_contexts_need_structured_replies_and_their_own_export() {
    let mut client = Client::greeted();
    let query = meta_request("demo", &["base:allocation"]);
    assert_eq!(client.send(&option(10, &query)), option_answer(10, ERROR | 3, b""));
    assert_eq!(client.send(&option(8, b"")), option_answer(8, 1, b""));
    let chosen = [option_answer(10, 4, b"\0\0\0\x01base:allocation"), option_answer(10, 1, b"")].concat();
    assert_eq!(client.send(&option(10, &query)), chosen);
    let listed = [option_answer(9, 4, b"\0\0\0\0base:allocation"), option_answer(9, 1, b"")].concat();
    for queries in [&[][..], &["base:"], &["base:allocation"]] {
        assert_eq!(client.send(&option(9, &meta_request("demo", queries))), listed);
    }
    assert_eq!(client.send(&option(9, &meta_request("demo", &["qemu:"]))), option_answer(9, 1, b""));
    assert_eq!(client.send(&option(9, &meta_request("none", &[]))), option_answer(9, ERROR | 6, b""));
    // Chosen for "demo"; on "other" it does not hold.
    client.send(&option(7, &info_request("other", &[])));
    assert_eq!(client.send(&command(0, 7, 5, 0, 4096)), simple_or_error(5, 22));
}

fn simple_or_error(cookie: u64, error: u32) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.put_u32(error);
    payload.put_u16(0);
    chunk(0x8001, cookie, &payload)
}

#[test]
fn a_read_is_answered_in_the_form_agreed_on() {
    let mut client = Client::on_demo(false);
    assert_eq!(client.send(&command(0, 0, 7, 512, 1024)), b"");
    let (tag, request) = client.only_submitted();
    assert_eq!(request, BlockRequest::Read { offset: 512, len: 1024 });
    let data = vec![Bytes::from(vec![1; 512]), Bytes::from(vec![2; 512])];
    let want = [simple(0, 7), vec![1; 512], vec![2; 512]].concat();
    assert_eq!(client.complete(tag, Ok(BlockReply::Data(data.clone()))), want);

    let mut client = Client::on_demo(true);
    client.send(&command(4, 0, 8, 512, 1024));
    let (tag, _) = client.only_submitted();
    let payload = [&512u64.to_be_bytes()[..], &[1; 512], &[2; 512]].concat();
    assert_eq!(client.complete(tag, Ok(BlockReply::Data(data))), chunk(1, 8, &payload));
    assert_eq!(client.complete(tag, Ok(BlockReply::Done)), b"", "answered once");
}

#[test]
fn a_read_that_brings_the_wrong_amount_fails() {
    let mut client = Client::on_demo(true);
    client.send(&command(0, 0, 7, 0, 1024));
    let (tag, _) = client.only_submitted();
    let short = BlockReply::Data(vec![Bytes::from(vec![1; 512])]);
    assert_eq!(client.complete(tag, Ok(short)), simple_or_error(7, 5));
}

#[test]
fn a_write_keeps_its_payload_as_slices_of_the_input() {
    let mut client = Client::on_demo(true);
    let payload: Vec<u8> = (0..4096).map(|i| (i % 251) as u8).collect();
    let input = Bytes::from([command(1, 1, 9, 8192, 4096), payload.clone()].concat());
    let (first, second) = (input.slice(..2000), input.slice(2000..));
    let mut out = Vec::new();
    client.session.received(NOW, first.clone(), &client.exports, &mut out);
    assert!(out.is_empty());
    client.session.received(NOW, second.clone(), &client.exports, &mut out);
    client.take(out);
    let (tag, request) = client.only_submitted();
    let BlockRequest::Write { offset: 8192, data } = request else { panic!("{request:?}") };
    assert_eq!(data.concat(), payload);
    assert_eq!(data.iter().map(|d| d.as_ptr()).collect::<Vec<_>>(), [first[28..].as_ptr(), second.as_ptr()]);
    assert_eq!(client.complete(tag, Ok(BlockReply::Done)), simple(0, 9));
}

#[test]
fn flush_trim_zeroes_and_cache_become_what_they_mean() {
    let mut client = Client::on_demo(true);
    for (bytes, want) in [
        (command(0, 3, 1, 0, 0), BlockRequest::Flush),
        (command(1, 4, 1, 4096, 1 << 20), BlockRequest::Zero { offset: 4096, len: 1 << 20 }),
        (command(2, 6, 1, 512, 512), BlockRequest::Zero { offset: 512, len: 512 }),
        (command(0, 6, 1, 0, 1 << 30), BlockRequest::Zero { offset: 0, len: 1 << 30 }),
    ] {
        assert_eq!(client.send(&bytes), b"");
        let (tag, request) = client.only_submitted();
        assert_eq!(request, want);
        assert_eq!(client.complete(tag, Ok(BlockReply::Done)), simple(0, 1));
    }
    assert_eq!(client.send(&command(0, 5, 2, 0, 1 << 20)), simple(0, 2), "cache asks nothing of anyone");
}

#[test]
fn block_status_tells_runs_and_only_one_when_asked() {
    let runs = vec![
        StatusRange { len: 4096, allocated: true },
        StatusRange { len: 4096, allocated: true },
        StatusRange { len: 1 << 20, allocated: false },
    ];
    let status = |flags: u16, want: &[u32]| {
        let mut client = Client::on_demo(true);
        client.send(&command(flags, 7, 3, 4096, 65536));
        let (tag, request) = client.only_submitted();
        assert_eq!(request, BlockRequest::Status { offset: 4096, len: 65536 });
        let mut payload = vec![0, 0, 0, 1];
        want.iter().for_each(|n| payload.put_u32(*n));
        assert_eq!(client.complete(tag, Ok(BlockReply::Status(runs.clone()))), chunk(5, 3, &payload));
    };
    status(0, &[8192, 0, 57344, 3]);
    status(8, &[8192, 0]);
}

#[test]
fn commands_that_are_not_offered_or_not_in_range_are_refused() {
    let mut client = Client::on_demo(true);
    for (bytes, error) in [
        (command(0, 1, 1, 100, 512), 22),
        (command(0, 4, 1, 0, 100), 22),
        (command(0, 4, 1, 0, 0), 22),
        (command(16, 6, 1, 0, 4096), 22),
        (command(0, 6, 1, SIZE, 4096), 28),
        (command(0, 4, 1, SIZE - 512, 1024), 22),
        (command(0, 4, 1, u64::MAX - 511, 1024), 22),
        (command(0, 1, 1, SIZE, 512), 28),
        (command(0, 99, 1, 0, 512), 22),
        (command(8, 3, 1, 0, 0), 22),
        (command(0, 5, 1, SIZE, 512), 22),
    ] {
        let payload = if bytes[7] == 1 { vec![0; 512] } else { vec![] };
        assert_eq!(client.send(&[bytes, payload].concat()), simple(error, 1));
    }
    assert_eq!(client.send(&command(0, 0, 1, SIZE, 512)), simple_or_error(1, 22));
    assert_eq!(client.send(&command(0, 0, 1, 0, 64 << 20)), simple_or_error(1, 22));
    assert_eq!(client.send(&command(4, 0, 1, 0, 64 << 20)), simple_or_error(1, 75));
    assert!(client.submitted.is_empty());
    let mut plain = Client::on_demo(false);
    assert_eq!(plain.send(&command(0, 7, 1, 0, 4096)), simple(22, 1), "status was not agreed on");
    assert_eq!(plain.send(&command(4, 0, 1, 0, 4096)), simple(22, 1), "nor was DF");
}

#[test]
fn block_errors_become_the_protocols_errors() {
    for (error, value) in [
        (BlockError::NoSpace, 28),
        (BlockError::OutOfRange, 28),
        (BlockError::Unreadable, 5),
        (BlockError::Gone, 108),
        (BlockError::Invalid, 22),
    ] {
        let mut client = Client::on_demo(true);
        client.send(&[command(0, 1, 4, 0, 512), vec![0; 512]].concat());
        let (tag, _) = client.only_submitted();
        assert_eq!(client.complete(tag, Err(error)), simple(value, 4));
    }
    let mut client = Client::on_demo(true);
    client.send(&command(0, 0, 4, 0, 512));
    let (tag, _) = client.only_submitted();
    assert_eq!(client.complete(tag, Err(BlockError::Unreadable)), simple_or_error(4, 5));
}

#[test]
fn a_fenced_session_closes_and_answers_nothing() {
    let mut client = Client::on_demo(true);
    client.send(&command(0, 3, 4, 0, 0));
    let (tag, _) = client.only_submitted();
    assert_eq!(client.complete(tag, Err(BlockError::Fenced)), b"");
    assert!(matches!(client.closed, Some(CloseReason::Protocol(_))));
}

#[test]
fn goodbye_waits_for_what_is_in_flight() {
    let mut client = Client::on_demo(true);
    client.send(&[command(0, 3, 1, 0, 0), command(0, 2, 2, 0, 0), command(0, 3, 3, 0, 0)].concat());
    let (tag, _) = client.only_submitted();
    assert_eq!(client.closed, None);
    assert_eq!(client.complete(tag, Ok(BlockReply::Done)), simple(0, 1));
    assert_eq!(client.closed, Some(CloseReason::Logout));
    assert!(client.submitted.is_empty(), "what follows a goodbye is not read");

    let mut idle = Client::on_demo(true);
    idle.send(&command(0, 2, 2, 0, 0));
    assert_eq!(idle.closed, Some(CloseReason::Logout));
}

#[test]
fn a_deleted_volume_sends_its_clients_away() {
    let mut client = Client::on_demo(true);
    client.send(&command(0, 3, 1, 0, 0));
    let (tag, _) = client.only_submitted();
    client.exports.volumes.remove("demo");
    let mut out = Vec::new();
    client.session.exports_changed(NOW, &client.exports, &mut out);
    assert!(out.is_empty(), "first what is in flight");
    assert_eq!(client.send(&command(0, 3, 2, 0, 0)), simple(108, 2));
    assert_eq!(client.complete(tag, Err(BlockError::Gone)), simple(108, 1));
    assert_eq!(client.closed, Some(CloseReason::VolumeGone));
}

#[test]
fn a_grown_volume_serves_its_new_end() {
    let mut client = Client::on_demo(true);
    assert_eq!(client.send(&command(0, 4, 1, SIZE, 512)), simple(22, 1));
    if let Some(export) = client.exports.volumes.get_mut("demo") {
        export.size = 2 * SIZE;
    }
    client.send(&command(0, 4, 1, SIZE, 512));
    client.only_submitted();
}
