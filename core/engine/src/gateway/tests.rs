//! The gateway against a scripted owner.

use super::*;
use alloc::vec;
use bytes::Bytes;
use holdfast_types::{BlockReply, SegmentIncarnation};

const VOLUME: VolumeId = VolumeId(1);
const SESSION: SessionId = SessionId(1);

fn key(index: u32) -> SegmentKey {
    SegmentKey { segment: SegmentId { volume: VOLUME, index }, incarnation: SegmentIncarnation(0) }
}

fn route(node: u16, epoch: u64) -> Route {
    Route { owner: NodeId(node), epoch: Epoch(epoch) }
}

fn started() -> Gateway {
    let mut gateway = Gateway::new(NodeId(1));
    let mut out = Vec::new();
    gateway.renew(ProcessIncarnation(7));
    gateway.link(Time(0), NodeId(2), true, &mut out);
    gateway.link(Time(0), NodeId(3), true, &mut out);
    assert!(out.is_empty());
    gateway
}

fn submit(gateway: &mut Gateway, tag: u64, request: BlockRequest) -> Vec<Action> {
    let mut out = Vec::new();
    let find = |s: SegmentId| Some(key(s.index));
    gateway.submit(Time(0), (SESSION, tag), (VOLUME, Some(1 << 31)), request, find, &mut out);
    out
}

fn write(gateway: &mut Gateway, tag: u64) -> Vec<Action> {
    submit(gateway, tag, BlockRequest::Write { offset: 0, data: vec![Bytes::from_static(&[1; 512])] })
}

fn sent(actions: &[Action]) -> Vec<(u16, u64, u64)> {
    let one = |a: &Action| match a {
        Action::Send { to, request } => Some((to.0, request.id.seq, request.low)),
        Action::Complete { .. } | Action::Renew | Action::Moved(_) => None,
    };
    actions.iter().filter_map(one).collect()
}

fn answer(gateway: &mut Gateway, seq: u64, result: SegmentResult) -> Vec<Action> {
    let id = RequestId { gateway: gateway.id, seq };
    let mut out = Vec::new();
    let reply = SegmentReply { id, segment: key(0), epoch: Epoch(1), result };
    gateway.reply(Time(0), reply, &mut out);
    out
}

#[test]
fn a_request_without_an_owner_waits_and_then_goes() {
    let mut gateway = started();
    assert!(write(&mut gateway, 9).is_empty());
    let mut out = Vec::new();
    gateway.route(Time(1), key(0), route(2, 1), &mut out);
    assert_eq!(sent(&out), [(2, 1, 1)]);
    let out = answer(&mut gateway, 1, SegmentResult::Ok(BlockReply::Done));
    assert!(matches!(out[..], [Action::Complete { tag: 9, result: Ok(BlockReply::Done), .. }]));
}

#[test]
fn a_new_grant_sends_what_is_unanswered_again_under_the_same_number() {
    let mut gateway = started();
    gateway.route(Time(0), key(0), route(2, 1), &mut Vec::new());
    assert_eq!(sent(&write(&mut gateway, 1)), [(2, 1, 1)]);
    assert_eq!(sent(&write(&mut gateway, 2)), [(2, 2, 1)]);
    answer(&mut gateway, 1, SegmentResult::Ok(BlockReply::Done));
    let mut out = Vec::new();
    gateway.route(Time(1), key(0), route(3, 2), &mut out);
    assert_eq!(sent(&out), [(3, 2, 2)]);
}

#[test]
fn a_lost_link_sends_again_when_it_is_back() {
    let mut gateway = started();
    gateway.route(Time(0), key(0), route(2, 1), &mut Vec::new());
    write(&mut gateway, 1);
    let mut out = Vec::new();
    gateway.link(Time(1), NodeId(2), false, &mut out);
    assert!(out.is_empty());
    gateway.link(Time(2), NodeId(2), true, &mut out);
    assert_eq!(sent(&out), [(2, 1, 1)]);
}

#[test]
fn an_owner_whose_answers_come_another_way_is_asked_again() {
    let mut gateway = started();
    gateway.route(Time(0), key(0), route(2, 1), &mut Vec::new());
    write(&mut gateway, 1);
    let mut out = Vec::new();
    gateway.peer_up(Time(1), NodeId(3), &mut out);
    assert!(out.is_empty());
    gateway.peer_up(Time(1), NodeId(2), &mut out);
    assert_eq!(sent(&out), [(2, 1, 1)]);
    // While nothing reaches it, that waits for the link.
    gateway.link(Time(2), NodeId(2), false, &mut Vec::new());
    out.clear();
    gateway.peer_up(Time(3), NodeId(2), &mut out);
    assert!(out.is_empty());
    gateway.link(Time(4), NodeId(2), true, &mut out);
    assert_eq!(sent(&out), [(2, 1, 1)]);
}

#[test]
fn not_the_owner_waits_a_moment_and_tries_again() {
    let mut gateway = started();
    gateway.route(Time(0), key(0), route(2, 1), &mut Vec::new());
    write(&mut gateway, 1);
    assert!(answer(&mut gateway, 1, SegmentResult::NotOwner).is_empty());
    let at = gateway.next_timer().unwrap();
    let mut out = Vec::new();
    gateway.timer(at, &mut out);
    assert_eq!(sent(&out), [(2, 1, 1)]);
}

#[test]
fn a_fenced_run_goes_on_under_its_new_id() {
    let mut gateway = started();
    gateway.route(Time(0), key(0), route(2, 1), &mut Vec::new());
    write(&mut gateway, 1);
    assert!(matches!(answer(&mut gateway, 1, SegmentResult::Fenced)[..], [Action::Renew]));
    let mut out = Vec::new();
    gateway.renew(ProcessIncarnation(8));
    gateway.send_all(Time(1), &mut out);
    let [Action::Send { request, .. }] = &out[..] else { panic!("{out:?}") };
    assert_eq!(request.id.gateway.incarnation, ProcessIncarnation(8));
}

#[test]
fn a_session_whose_initiator_went_elsewhere_ends_without_an_answer_and_the_run_goes_on() {
    let mut gateway = started();
    gateway.route(Time(0), key(0), route(2, 1), &mut Vec::new());
    write(&mut gateway, 1);
    let out = answer(&mut gateway, 1, SegmentResult::Failed(BlockError::Fenced));
    assert!(matches!(out[..], [Action::Moved(SESSION)]), "{out:?}");
    gateway.session_closed(Time(1), SESSION, &mut Vec::new());
    let mut out = Vec::new();
    let request = BlockRequest::Write { offset: 0, data: vec![Bytes::from_static(&[1; 512])] };
    let (other, find) = (SessionId(2), |s: SegmentId| Some(key(s.index)));
    gateway.submit(Time(1), (other, 1), (VOLUME, Some(1 << 31)), request, find, &mut out);
    assert_eq!(sent(&out), [(2, 2, 2)], "under the same run, and nothing of the old session");
}

#[test]
fn a_run_that_ended_sends_nothing_and_asks_for_another_number_once() {
    let mut gateway = started();
    gateway.route(Time(0), key(0), route(2, 1), &mut Vec::new());
    let mut out = Vec::new();
    gateway.run_ended(&mut out);
    gateway.run_ended(&mut out);
    assert!(matches!(out[..], [Action::Renew]), "{out:?}");
    assert!(write(&mut gateway, 1).is_empty());
}

#[test]
fn a_flush_is_answered_after_the_writes_before_it() {
    let mut gateway = started();
    gateway.route(Time(0), key(0), route(2, 1), &mut Vec::new());
    write(&mut gateway, 1);
    assert!(submit(&mut gateway, 2, BlockRequest::Flush).is_empty());
    let out = answer(&mut gateway, 1, SegmentResult::Ok(BlockReply::Done));
    let tags: Vec<u64> = out
        .iter()
        .map(|a| match a {
            Action::Complete { tag, .. } => *tag,
            Action::Send { .. } | Action::Renew | Action::Moved(_) => panic!("nothing to send"),
        })
        .collect();
    assert_eq!(tags, [1, 2]);
}

#[test]
fn the_span_of_numbers_is_bounded() {
    let mut gateway = started();
    gateway.route(Time(0), key(0), route(2, 1), &mut Vec::new());
    let sent_now: usize = (0..SPAN + 50).map(|tag| write(&mut gateway, tag).len()).sum();
    assert_eq!(sent_now as u64, SPAN);
    let out = answer(&mut gateway, 1, SegmentResult::Ok(BlockReply::Done));
    assert_eq!(sent(&out).len(), 1);
}

#[test]
fn a_closed_session_leaves_nothing_behind() {
    let mut gateway = started();
    write(&mut gateway, 1);
    gateway.session_closed(Time(0), SESSION, &mut Vec::new());
    assert_eq!(gateway.in_flight(), 0);
    let mut out = Vec::new();
    gateway.route(Time(1), key(0), route(2, 1), &mut out);
    assert!(out.is_empty());
}

#[test]
fn a_deleted_volume_answers_gone() {
    let mut gateway = started();
    write(&mut gateway, 1);
    let mut out = Vec::new();
    gateway.gone(key(0), &mut out);
    assert!(matches!(out[..], [Action::Complete { tag: 1, result: Err(BlockError::Gone), .. }]));
}

#[test]
fn a_held_session_waits_and_lets_others_pass() {
    let mut gateway = started();
    gateway.route(Time(0), key(0), route(2, 1), &mut Vec::new());
    gateway.hold(SESSION);
    assert!(write(&mut gateway, 1).is_empty());
    let mut out = Vec::new();
    let request = BlockRequest::Read { offset: 0, len: 512 };
    gateway.submit(
        Time(0),
        (SessionId(2), 1),
        (VOLUME, Some(1 << 31)),
        request,
        |s| Some(key(s.index)),
        &mut out,
    );
    assert_eq!(sent(&out), [(2, READS + 1, 1)]);
    out.clear();
    gateway.release(Time(1), SESSION, &mut out);
    assert_eq!(sent(&out), [(2, 1, 1)]);
}

#[test]
fn reads_pass_any_number_of_writes_that_wait() {
    let mut gateway = started();
    gateway.route(Time(0), key(0), route(2, 1), &mut Vec::new());
    (0..SPAN + 50).for_each(|tag| drop(write(&mut gateway, tag)));
    let read = |gateway: &mut Gateway, tag| submit(gateway, tag, BlockRequest::Read { offset: 0, len: 512 });
    for n in 1..2 * SPAN {
        assert_eq!(sent(&read(&mut gateway, 1000 + n)), [(2, READS + n, 1)]);
        let out = answer(&mut gateway, READS + n, SegmentResult::Ok(BlockReply::Data(Vec::new())));
        assert_eq!(out.len(), 1, "{out:?}");
    }
}

#[test]
fn a_failure_counts_only_when_no_later_owner_was_asked_since() {
    let mut gateway = started();
    let no_space = || SegmentResult::Failed(BlockError::NoSpace);
    gateway.route(Time(0), key(0), route(2, 1), &mut Vec::new());
    write(&mut gateway, 1);
    gateway.route(Time(1), key(0), route(3, 2), &mut Vec::new());
    assert!(answer(&mut gateway, 1, no_space()).is_empty());
    assert_eq!(answer(&mut gateway, 1, SegmentResult::Ok(BlockReply::Done)).len(), 1);
    // The next request has the next number: the one that failed is not repeated.
    gateway.route(Time(2), key(0), route(2, 1), &mut Vec::new());
    write(&mut gateway, 2);
    let out = answer(&mut gateway, 2, no_space());
    assert!(
        matches!(out[..], [Action::Complete { tag: 2, result: Err(BlockError::NoSpace), .. }]),
        "{out:?}"
    );
    assert_eq!(sent(&write(&mut gateway, 3)), [(2, 3, 3)]);
}
