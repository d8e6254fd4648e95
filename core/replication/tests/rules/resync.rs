//! What a resync copies: everything of a copy that begins, and of one that was interrupted only what it lacks.

use crate::script::*;
use holdfast_replication::index::LogIndex;
use holdfast_replication::{Body, Owner, OwnerOutput, ReplicationEvent, SealState};
use holdfast_types::*;

const EXTENTS: [ExtentIndex; 3] = [ExtentIndex(0), ExtentIndex(1), ExtentIndex(2)];

fn digest(extent: ExtentIndex, sum: u32) -> Vec<BlockDigest> {
    let block = BlockIndex(extent.0 * EXTENT_BLOCKS);
    vec![BlockDigest { block, lsn: Lsn(1), content: BlockContent::Good(sum) }]
}

/// A learner on node 3 that was asked where it stands and told to learn, and whose missing extents are listed.
fn learning(incomplete_since: Option<Lsn>) -> Script {
    let mut setting = Setting::new(&[1, 2], &[1, 2]);
    setting.members.push(3);
    setting.fake(3).silent = true;
    let mut script = setting.active();
    script.request(write(1, 7));
    script.orders.clear();
    let (index, applied) = (log(&[(7, 1)]), Lsn(1));
    let lease_left = Duration::ZERO;
    script.say(3, Body::SealReply(SealState { index, applied, lease_left, incomplete_since, repeats: None }));
    learns(&mut script, incomplete_since.unwrap_or(applied));
    script
}

/// The same, when they are.
fn listed(incomplete_since: Option<Lsn>) -> Script {
    let mut script = learning(incomplete_since);
    list(&mut script);
    script
}

fn list(script: &mut Script) {
    script.store(StoreOutcome::Changed { extents: EXTENTS.to_vec() });
}

/// It does what it was last told, and the own store is asked what it misses.
fn learns(script: &mut Script, since: Lsn) {
    let base = script.fakes[&3].told.iter().rev().find_map(|b| match b {
        Body::Learn { base } => Some(*base),
        _ => None,
    });
    let base = base.expect("it was told to learn");
    script.say(3, Body::LearnReply { base, since });
    script.pass(milliseconds(500));
    assert_eq!(script.orders.first().map(|(_, o)| o), Some(&StoreOrder::Changed { since }));
}

/// The images that the own store was asked for, and not yet answered.
fn read(script: &Script) -> Vec<ExtentIndex> {
    let image = |(_, o): &(u64, StoreOrder)| match o {
        StoreOrder::ReadImage { extent, .. } => Some(*extent),
        _ => None,
    };
    script.orders.iter().filter_map(image).collect()
}

/// The comparisons that both sides were asked for, answered: all extents are equal but those.
fn compare(script: &mut Script, lacking: &[ExtentIndex]) -> Vec<ExtentIndex> {
    let mut compared = Vec::new();
    let at = script.owner.status().commit;
    while let Some((_, StoreOrder::Digest { extent })) = script.orders.first() {
        let extent = *extent;
        let asked = script.fakes[&3].told.iter().rev().find_map(|b| match b {
            Body::Digest { number, extent: e } if *e == extent => Some(*number),
            _ => None,
        });
        let number = asked.expect("the learner is asked too");
        let theirs = if lacking.contains(&extent) { Vec::new() } else { digest(extent, 5) };
        script.say(3, Body::DigestReply { number, at, blocks: theirs });
        script.store(StoreOutcome::Digest { at, blocks: digest(extent, 5) });
        compared.push(extent);
    }
    compared
}

#[test]
fn a_copy_that_begins_is_copied_before_it_is_compared() {
    let script = listed(None);
    assert_eq!(read(&script), EXTENTS);
}

#[test]
fn a_copy_that_was_interrupted_is_compared_first_and_only_what_it_lacks_is_copied() {
    let mut script = listed(Some(Lsn(0)));
    assert_eq!(read(&script), []);
    assert_eq!(compare(&mut script, &EXTENTS[2..]), EXTENTS);
    assert_eq!(read(&script), EXTENTS[2..]);
    let differs = |e: &ReplicationEvent| matches!(e, ReplicationEvent::ResyncDiffers { .. });
    assert!(!script.events.iter().any(differs), "that something is missing yet is no finding");
    let resync = script.owner.status().copies.into_iter().find_map(|c| c.resync).expect("it goes on");
    assert_eq!((resync.extents_done, resync.extents_total), (2, 3));
}

/// What a log that began anew forgot may be half in its place: no checksum of it is right, and none is needed.
#[test]
fn of_a_block_that_is_older_than_its_image_it_is_no_matter_whether_it_is_damaged() {
    for (lsn, damaged) in [(0, 0), (1, 1)] {
        let mut script = listed(Some(Lsn(0)));
        script.events.clear();
        let block = EXTENTS[0].first_block();
        let number = script.fakes[&3].told.iter().find_map(|b| match b {
            Body::Digest { number, extent } if *extent == EXTENTS[0] => Some(*number),
            _ => None,
        });
        let at = script.owner.status().commit;
        let theirs = vec![BlockDigest { block, lsn: Lsn(lsn), content: BlockContent::Bad(9) }];
        script
            .say(3, Body::DigestReply { number: number.expect("the learner is asked"), at, blocks: theirs });
        script.store(StoreOutcome::Digest { at, blocks: digest(EXTENTS[0], 5) });
        let bad = |e: &&ReplicationEvent| matches!(e, ReplicationEvent::BadBlock { .. });
        assert_eq!(script.events.iter().filter(bad).count(), damaged, "{:?}", script.events);
        let others = &EXTENTS[1..];
        assert_eq!(compare(&mut script, others), others);
        assert_eq!(read(&script), EXTENTS, "it is copied anyway");
    }
}

#[test]
fn a_copy_whose_answers_are_late_goes_on_from_what_it_has() {
    let mut script = listed(None);
    script.orders.clear();
    script.pass(milliseconds(3000));
    learns(&mut script, Lsn(1));
    list(&mut script);
    assert_eq!(read(&script), [], "it may have installed what it did not acknowledge");
    assert_eq!(compare(&mut script, &[]), EXTENTS);
    let told = &script.fakes[&3].told;
    assert!(matches!(told.last(), Some(Body::Finish { .. })), "{told:?}");
}

/// A disk that takes seconds for an answer is waited for longer each time, or its copy would begin anew for ever; and it is
/// said once what there is to copy.
#[test]
fn a_copy_whose_answers_are_late_gets_more_time_each_time() {
    let mut script = listed(None);
    for seconds in [2, 4, 8, 16, 32, 64, 64] {
        script.orders.clear();
        let asked = told_to_learn(&script);
        script.pass(milliseconds(seconds * 1000 - 100));
        assert_eq!(told_to_learn(&script), asked, "{seconds} s are not over");
        script.pass(milliseconds(200));
        assert_eq!(told_to_learn(&script), asked + 1, "{seconds} s are over");
        learns(&mut script, Lsn(1));
        list(&mut script);
    }
    let started = |e: &&ReplicationEvent| matches!(e, ReplicationEvent::ResyncStarted { .. });
    assert_eq!(script.events.iter().filter(started).count(), 1, "{:?}", script.events);
    assert_eq!(compare(&mut script, &[]), EXTENTS);
    assert!(matches!(script.fakes[&3].told.last(), Some(Body::Finish { .. })), "it ends");
}

/// A write that the copy on node 2 acknowledges only after `latency`.
fn slow_write(script: &mut Script, seq: u64, latency: Duration) {
    script.request(write(seq, 7));
    script.pass(latency);
    let (matched, committed) = (script.owner.status().last, Lsn(0));
    script.say(2, Body::Appended { matched, committed });
    assert!(script.done(seq), "write {seq} is committed");
}

/// How long after an image that moved nothing the next one is asked for, while clients write that slowly.
fn pause_at(latency: Duration) -> Duration {
    let mut script = learning(None);
    script.fakes.get_mut(&2).expect("a copy").silent = true;
    (2..60).for_each(|seq| slow_write(&mut script, seq, latency));
    list(&mut script);
    assert_eq!(read(&script), EXTENTS[..1], "one image at a time while clients write");
    let (at, began) = (script.owner.status().commit, script.now);
    script.store(StoreOutcome::Image { at, blocks: Vec::new() });
    while read(&script).is_empty() {
        script.pass(Duration::from_micros(100));
        assert!(
            script.now.since(began) < milliseconds(100),
            "the resync goes on, however slow the disks are"
        );
    }
    script.now.since(began)
}

#[test]
fn a_resync_gives_way_to_clients_by_their_latency_and_within_a_bound() {
    let idle = listed(None);
    assert_eq!(read(&idle), EXTENTS, "nobody writes: all at once");
    let around = |pause: Duration, wanted: u64| {
        (wanted * 9 / 10..=wanted * 11 / 10 + 100).contains(&pause.as_micros())
    };
    let [quick, slow, stuck] = [1, 5, 40].map(|ms| pause_at(milliseconds(ms)));
    assert!(around(quick, 2_000) && around(slow, 10_000), "twice what a write takes: {quick:?}, {slow:?}");
    assert!(around(stuck, 20_000), "a disk that is slow for itself does not stop a resync: {stuck:?}");
}

fn told_to_learn(script: &Script) -> usize {
    script.fakes[&3].told.iter().filter(|b| matches!(b, Body::Learn { .. })).count()
}

/// A record that the learner acknowledges, as the others do.
fn takes_a_record(script: &mut Script, seq: u64) {
    script.request(write(seq, 7));
    let matched = script.owner.status().last;
    script.say(3, Body::Appended { matched, committed: Lsn(0) });
}

#[test]
fn an_answer_that_is_lost_is_not_waited_for_as_long_as_clients_write() {
    let mut script = listed(None);
    script.orders.clear();
    let began = script.now;
    for seq in 2.. {
        takes_a_record(&mut script, seq);
        script.pass(milliseconds(500));
        if told_to_learn(&script) == 2 {
            break;
        }
        assert!(script.now.since(began) < Duration::from_secs(12), "it waits for ever");
    }
    assert!(script.now.since(began) > Duration::from_secs(8), "who takes records may be slow with the rest");
}

#[test]
fn a_learner_that_was_made_anew_under_its_old_name_begins_anew() {
    let mut script = listed(None);
    script.orders.clear();
    takes_a_record(&mut script, 2);
    for _ in 0..4 {
        assert_eq!(told_to_learn(&script), 1, "one such answer may have been overtaken");
        script.say(3, Body::Need { index: LogIndex::default() });
    }
    assert_eq!(told_to_learn(&script), 2);
    learns(&mut script, Lsn(0));
}

/// So many images and comparisons are under way at the other owners of this node.
fn others_have(script: &mut Script, under_way: usize) {
    script.call(|o: &mut Owner, _, _: &mut Vec<OwnerOutput>| o.note_under_way(under_way));
}

#[test]
fn the_resyncs_of_a_node_take_turns_and_who_waits_for_his_is_not_late() {
    for (clients, most) in [(true, 4), (false, 16)] {
        let mut script = learning(None);
        others_have(&mut script, most);
        if clients {
            script.request(write(2, 7));
        }
        list(&mut script);
        for seq in 3..63 {
            script.pass(milliseconds(50));
            if clients {
                script.request(write(seq, 7));
            }
        }
        assert_eq!(read(&script), [], "clients: {clients}");
        assert_eq!(told_to_learn(&script), 1, "clients: {clients}");
        others_have(&mut script, most - 1);
        script.pass(milliseconds(20));
        assert_eq!(read(&script), EXTENTS[..1], "clients: {clients}");
    }
}

#[test]
fn comparisons_give_way_to_clients_as_images_do() {
    let mut script = learning(Some(Lsn(0)));
    script.fakes.get_mut(&2).expect("a copy").silent = true;
    (2..60).for_each(|seq| slow_write(&mut script, seq, milliseconds(5)));
    list(&mut script);
    assert_eq!(compare(&mut script, &[]), EXTENTS[..1], "one at a time");
    script.pass(milliseconds(8));
    assert_eq!(compare(&mut script, &[]), []);
    script.pass(milliseconds(4));
    assert_eq!(compare(&mut script, &[]), EXTENTS[1..2], "after a pause of two write latencies");
}
