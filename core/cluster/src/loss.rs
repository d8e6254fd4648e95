//! What is left of a set when disks and nodes are gone for good, and the set that goes on with it. A copy is left while
//! its disk has not failed and was not emptied; one that is away or missing may come back. Where a seal quorum is left
//! nothing is lost: it has every acknowledged write. Where fewer are, an acknowledged write may have been on the others
//! only: to go on without it is for an operator to say, never for a plan.

use crate::{ClusterMap, DiskState};
use alloc::{collections::BTreeSet, string::String, sync::Arc, vec::Vec};
use holdfast_types::{
    Epoch, Grant, LogPosition, NodeId, ProcessIncarnation, ReplicaRef, SegmentId, SegmentInfo, seal_quorum,
};

/// What the loss of nodes does to a volume, as far as the map knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Its name.
    pub volume: String,
    /// How many segments it has.
    pub segments: usize,
    /// Of how many so few in-sync copies are left that acknowledged writes may be lost.
    pub in_doubt: usize,
    /// Of how many no in-sync copy is left.
    pub gone: usize,
}

/// The volumes that lose something with these nodes, which only a map that may lack the last commands is asked; or,
/// without any, with the disks that have failed.
pub fn losses(map: &ClusterMap, lost: &BTreeSet<NodeId>) -> Vec<Loss> {
    let loss = |volume: &crate::Volume| {
        let how = if lost.is_empty() { left } else { worst };
        let left: Vec<Left> = map.segments_of(volume.id).map(|info| how(map, info, lost)).collect();
        let count = |which| left.iter().filter(|l| **l == which).count();
        Loss {
            volume: volume.name.clone(),
            segments: left.len(),
            in_doubt: count(Left::TooFew),
            gone: count(Left::None),
        }
    };
    map.volumes.values().map(loss).filter(|l| l.in_doubt + l.gone > 0).collect()
}

/// How much of S is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// A seal quorum, which has every acknowledged write.
    Enough,
    /// Fewer.
    TooFew,
    /// No copy that was in sync.
    None,
}

/// How much of S is left without these nodes.
pub(crate) fn left(map: &ClusterMap, info: &SegmentInfo, lost: &BTreeSet<NodeId>) -> Left {
    left_of(map, &info.active.set, lost)
}

/// The same, and no better than what is left of a set that was granted: that it was activated as well may be among the
/// commands that a survivor's log lacks.
fn worst(map: &ClusterMap, info: &SegmentInfo, lost: &BTreeSet<NodeId>) -> Left {
    let pending = info.granted.epoch != info.active.epoch;
    match left(map, info, lost) {
        Left::Enough if pending && left_of(map, &info.granted.set, lost) != Left::Enough => Left::TooFew,
        left => left,
    }
}

fn left_of(map: &ClusterMap, set: &[ReplicaRef], lost: &BTreeSet<NodeId>) -> Left {
    match remaining(map, set, lost).count() {
        0 => Left::None,
        rest if rest < seal_quorum(set.len()) => Left::TooFew,
        _ => Left::Enough,
    }
}

/// What is left of a set.
fn remaining<'a>(
    map: &'a ClusterMap,
    set: &'a [ReplicaRef],
    lost: &'a BTreeSet<NodeId>,
) -> impl Iterator<Item = ReplicaRef> + 'a {
    let has_content = |copy: &&ReplicaRef| {
        let disk = map.disks.get(&copy.disk);
        disk.is_some_and(|d| d.incarnation == copy.incarnation && d.state != DiskState::Failed)
    };
    set.iter().filter(|copy| !lost.contains(&copy.node)).filter(has_content).copied()
}

/// What is left of S is S from now on. The copies that are gone return only empty, so that none of them meets a log
/// that went on without what it had.
pub(crate) fn cut(map: &mut ClusterMap, id: SegmentId, lost: &BTreeSet<NodeId>) {
    let Some(rest) =
        map.segments.get(&id).map(|info| remaining(map, &info.active.set, lost).collect::<Vec<_>>())
    else {
        return;
    };
    assert!(!rest.is_empty(), "S is never empty");
    if let Some(info) = map.segments.get_mut(&id) {
        let active = &mut Arc::make_mut(info).active;
        active.set = rest;
        // A copy that lagged is behind the START record that a write quorum had.
        active.tail = LogPosition::ZERO;
    }
}

/// A grant of S, `after` the one that stands, to nobody that runs: the next one follows it as after any owner's death.
pub(crate) fn disown(info: &mut SegmentInfo, after: u64) {
    let set = info.active.set.clone();
    let owner = set.first().map_or(info.granted.owner, |r| r.node);
    let epoch = Epoch(info.granted.epoch.0 + after);
    info.granted = Grant { epoch, owner, owner_incarnation: ProcessIncarnation(0), set };
}
