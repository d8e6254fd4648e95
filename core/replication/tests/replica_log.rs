//! A copy's acknowledgements after its log was cut or began anew in the same epoch.

use holdfast_replication::{Body, Envelope, Replica, ReplicaConfig, ReplicaOutput};
use holdfast_types::*;

const OWNER: NodeId = NodeId(1);

fn at(epoch: u64, lsn: u64) -> LogPosition {
    LogPosition::new(Epoch(epoch), Lsn(lsn))
}
fn record(position: LogPosition) -> Record {
    Record { position, body: RecordBody::Start, request: None }
}

struct Copy {
    replica: Replica,
    me: ReplicaRef,
    key: SegmentKey,
}

impl Copy {
    fn new() -> Self {
        let (key, me) = (SegmentKey::default(), ReplicaRef { node: NodeId(2), ..ReplicaRef::default() });
        let replica = Replica::new(Time(0), key, me, ReplicaState::default(), ReplicaConfig::default());
        Self { replica, me, key }
    }
    fn say(&mut self, body: Body) -> Vec<ReplicaOutput> {
        let message = Envelope { segment: self.key, epoch: Epoch(9), replica: self.me, body };
        let mut out = Vec::new();
        self.replica.receive(Time(1), OWNER, message, &mut out);
        out
    }
    fn stored(&mut self, number: u64, outcome: StoreOutcome) -> Vec<ReplicaOutput> {
        let mut out = Vec::new();
        self.replica.stored(Time(1), number, outcome, &mut out);
        out
    }
}

/// Every LSN that the copy acknowledges or tells its store to commit.
fn claims(out: &[ReplicaOutput]) -> Vec<Lsn> {
    let of = |o: &ReplicaOutput| match o {
        ReplicaOutput::Send { message: Envelope { body: Body::Appended { matched, .. }, .. }, .. } => {
            Some(*matched)
        }
        ReplicaOutput::Store { order: StoreOrder::Commit { lsn }, .. } => Some(*lsn),
        _ => None,
    };
    out.iter().filter_map(of).collect()
}

#[test]
fn a_log_that_began_anew_does_not_acknowledge_what_it_held_before() {
    let mut copy = Copy::new();
    let records = (1..=3).map(|lsn| record(at(9, lsn))).collect();
    copy.say(Body::Append { prev: LogPosition::ZERO, records, commit: Lsn(0) });
    copy.say(Body::Learn { base: at(9, 2) });
    copy.stored(1, StoreOutcome::Appended { last: at(9, 3) });
    copy.stored(2, StoreOutcome::Reset { since: Lsn(0) });
    let out = copy.say(Body::Append { prev: at(9, 2), records: Vec::new(), commit: Lsn(3) });
    assert!(claims(&out).iter().all(|lsn| *lsn <= Lsn(2)), "{:?}", claims(&out));
}

#[test]
fn a_log_that_was_cut_does_not_acknowledge_what_it_held_before() {
    let mut copy = Copy::new();
    let old = vec![record(at(1, 1)), record(at(2, 2)), record(at(2, 3)), record(at(2, 4))];
    copy.say(Body::Append { prev: LogPosition::ZERO, records: old, commit: Lsn(0) });
    copy.stored(1, StoreOutcome::Appended { last: at(2, 4) });
    // The owner of the same epoch has adopted another log meanwhile.
    copy.say(Body::Append { prev: at(1, 1), records: vec![record(at(3, 2))], commit: Lsn(0) });
    let out = copy.stored(2, StoreOutcome::Appended { last: at(3, 2) });
    assert!(claims(&out).iter().all(|lsn| *lsn <= Lsn(2)), "{:?}", claims(&out));
}

fn said(out: Vec<ReplicaOutput>) -> Vec<Body> {
    let of = |o| if let ReplicaOutput::Send { message, .. } = o { Some(message.body) } else { None };
    out.into_iter().filter_map(of).collect()
}

#[test]
fn a_copy_that_lost_a_part_says_so_until_it_is_mended_and_is_not_complete_before() {
    let incomplete = Body::Refused { reason: StoreRefusal::Incomplete };
    let mut copy = Copy::new();
    copy.say(Body::Append { prev: LogPosition::ZERO, records: Vec::new(), commit: Lsn(0) });
    let mut lost = Vec::new();
    copy.replica.lost_part(&mut lost);
    assert_eq!(said(lost), std::slice::from_ref(&incomplete));
    let out = said(copy.say(Body::Append { prev: LogPosition::ZERO, records: Vec::new(), commit: Lsn(0) }));
    assert!(out.contains(&incomplete), "that was not lost on the way: {out:?}");
    // It is mended, and loses another part just before it is told that all of it was compared.
    let base = at(9, 2);
    copy.say(Body::Learn { base });
    copy.stored(1, StoreOutcome::Sealed);
    copy.stored(2, StoreOutcome::Reset { since: Lsn(0) });
    assert!(
        !said(copy.say(Body::Append { prev: base, records: Vec::new(), commit: Lsn(2) }))
            .contains(&incomplete)
    );
    copy.replica.lost_part(&mut Vec::new());
    assert_eq!(said(copy.say(Body::Finish { repeats: RepeatState::default() })), [incomplete]);
    assert_eq!(copy.replica.status().incomplete_since, Some(Lsn(0)));
}

#[test]
fn a_learner_without_room_for_an_image_says_so() {
    let mut copy = Copy::new();
    copy.say(Body::Learn { base: at(9, 2) });
    copy.stored(1, StoreOutcome::Reset { since: Lsn(0) });
    copy.say(Body::Image { number: 7, blocks: Vec::new() });
    let out = copy.stored(2, StoreOutcome::Refused(StoreRefusal::Full));
    let said = said(out);
    let full = Body::Refused { reason: StoreRefusal::Full };
    assert_eq!(said, [full, Body::ImageReply { number: 7, installed: false }]);
}
