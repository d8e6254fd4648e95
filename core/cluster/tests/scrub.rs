//! Every segment is due once in a period, wherever the looks at it fall, and the work is spread.

mod common;

use common::*;
use holdfast_cluster::*;
use holdfast_types::*;
use std::collections::BTreeMap;

const WEEK: u64 = 7 * 24 * 3600;

#[test]
fn every_segment_is_due_once_a_period_at_its_owner_and_the_work_is_spread() {
    let map = cluster(3, 1, 290);
    let start = 1_780_000_000;
    let mut seen: BTreeMap<SegmentKey, Vec<u64>> = BTreeMap::new();
    // Looks of many lengths that leave no gap.
    let (mut from, mut step) = (start, 1);
    let mut busiest = 0;
    while from < start + 2 * WEEK {
        let to = (from + step).min(start + 2 * WEEK);
        for node in map.nodes.keys() {
            let due = due_for_scrub(&map, *node, UnixSeconds(from), UnixSeconds(to), WEEK);
            assert!(due.is_sorted());
            busiest = busiest.max(if step >= 3600 { due.len() } else { 0 });
            for (at, segment) in due {
                assert!(at > UnixSeconds(from) && at <= UnixSeconds(to));
                assert_eq!(map.segments[&segment.segment].granted.owner, *node);
                seen.entry(segment).or_default().push(at.0);
            }
        }
        (from, step) = (to, if step > 7200 { 1 } else { step * 2 + 1 });
    }
    assert_eq!(seen.len(), 290);
    for (segment, times) in &seen {
        assert!(matches!(times[..], [a, b] if b - a == WEEK), "{segment:?}: {times:?}");
    }
    assert!(busiest < 15, "{busiest} of 290 in two hours");
}

#[test]
fn nothing_is_due_without_a_period_or_an_owner() {
    let mut map = cluster(3, 3, 4);
    let all = |map: &ClusterMap, every| -> usize {
        let due = |n: &NodeId| due_for_scrub(map, *n, UnixSeconds(0), UnixSeconds(every), every).len();
        map.nodes.keys().map(due).sum()
    };
    assert_eq!((all(&map, 0), all(&map, 1), all(&map, 60)), (0, 4, 4));
    // A takeover that is not activated yet.
    let owner = info(&map, 0).granted.owner.0;
    down(&mut map, owner);
    let grants = plan_grants(&map, &std::collections::BTreeSet::new()).grants;
    let count = grants.len();
    for grant in grants {
        assert_eq!(propose(&mut map, grant), DONE);
    }
    assert_eq!(all(&map, 60), 4 - count);
}
