//! A copy that is lost gives its place among the members to one on another disk. Neither S is touched: the old copy
//! has to be in none, and the new one is a learner, which counts only once a grant adds it after its resync
//! (replication.md §1). The old copy is listed in a tombstone: should its disk come back, it is freed there as that of
//! a deleted segment is, and until then no copy of the segment is placed on that disk again.

use super::Changed;
use crate::{ClusterMap, DiskState, NodeState, SingleResult, Tombstone};
use alloc::{sync::Arc, vec::Vec};
use holdfast_types::{Epoch, ReplicaRef, SegmentCommandResult, SegmentInfo, SegmentKey};

pub(super) fn replace(
    map: &mut ClusterMap,
    segment: SegmentKey,
    expect: Epoch,
    from: ReplicaRef,
    to: ReplicaRef,
) -> (SingleResult, Changed) {
    let answer = |result, changed| (SingleResult::Segment(result), changed);
    let Some(info) = map.segments.get(&segment.segment).filter(|info| info.key == segment) else {
        return answer(SegmentCommandResult::Refused, Changed::No);
    };
    if info.granted.epoch != expect {
        return answer(SegmentCommandResult::Stale { granted: info.granted.epoch }, Changed::No);
    }
    let replaced = info.members.contains(&to) && !info.members.iter().any(|m| m.disk == from.disk);
    if replaced {
        // A repeat of the replacement that stands.
        return answer(SegmentCommandResult::Done, Changed::No);
    }
    if !may_leave(info, &from) || !may_enter(map, info, &from, &to) {
        return answer(SegmentCommandResult::Refused, Changed::No);
    }
    // Found above.
    let info = map.segments.get_mut(&segment.segment).expect("the segment exists");
    let members = &mut Arc::make_mut(info).members;
    members.iter_mut().filter(|m| **m == from).for_each(|m| *m = to);
    let tombstone = map.tombstones.entry(segment).or_insert_with(|| Tombstone { copies: Vec::new() });
    tombstone.copies.push(from);
    answer(SegmentCommandResult::Done, Changed::Yes)
}

/// A member in no S: neither in the one that decides nor in the one granted, in whatever incarnation of its disk.
fn may_leave(info: &SegmentInfo, from: &ReplicaRef) -> bool {
    let in_set = info.active.set.iter().chain(&info.granted.set).any(|r| r.disk == from.disk);
    info.members.contains(from) && !in_set
}

/// A disk of the volume's pool that serves and has room, on a node that is up and has no other copy, and that holds
/// nothing of this segment that is yet to be freed.
fn may_enter(map: &ClusterMap, info: &SegmentInfo, from: &ReplicaRef, to: &ReplicaRef) -> bool {
    let Some(volume) = map.volumes.get(&info.key.segment.volume) else { return false };
    let disk = map.disks.get(&to.disk);
    let serves = disk.is_some_and(|d| {
        d.node == to.node
            && d.incarnation == to.incarnation
            && d.state == DiskState::Ok
            && d.pool == volume.pool
    });
    let up = map.nodes.get(&to.node).is_some_and(|n| n.incarnation.0 > 0 && n.state == NodeState::Up);
    let others = info.members.iter().filter(|m| *m != from);
    let apart = others.chain(&info.active.set).chain(&info.granted.set).all(|m| m.node != to.node);
    let unfreed = map.tombstones.get(&info.key).is_some_and(|t| t.copies.iter().any(|c| c.disk == to.disk));
    serves && up && apart && to.disk != from.disk && !unfreed
}
