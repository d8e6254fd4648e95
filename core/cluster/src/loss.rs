//! What is left of a set when disks and nodes are gone for good, and the set that goes on with it. A copy is left while
//! its disk has not failed and was not emptied; one that is away or missing may come back. Where a seal quorum is left
//! nothing is lost: it has every acknowledged write. Where fewer are, an acknowledged write may have been on the others
//! only: to go on without it is for an operator to say, never for a plan.

use crate::{ClusterMap, Disk, DiskState};
use alloc::{collections::BTreeMap, collections::BTreeSet, string::String, vec::Vec};
use holdfast_types::{
    DiskId, Epoch, Grant, LogPosition, NodeId, ProcessIncarnation, ReplicaRef, SegmentInfo, seal_quorum,
};

/// Every disk that control knows.
type Disks = BTreeMap<DiskId, Disk>;

/// No disk is lost but those that have failed.
pub(crate) static NOTHING: BTreeSet<DiskId> = BTreeSet::new();

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

/// What is lost with the disks that have failed.
pub fn losses(map: &ClusterMap) -> Vec<Loss> {
    losses_by(map, |info| left(&map.disks, &info.active.set, &NOTHING))
}

/// What is lost with these nodes, by a map that may lack the last commands that were answered: that a set that it knows
/// to be granted was activated may be among these, so that what is left of that one counts as well.
pub fn losses_without(map: &ClusterMap, nodes: &BTreeSet<NodeId>) -> Vec<Loss> {
    let lost = map.disks.values().filter(|d| nodes.contains(&d.node)).map(|d| d.id).collect();
    losses_by(map, |info| {
        let pending = info.granted.epoch != info.active.epoch;
        match left(&map.disks, &info.active.set, &lost) {
            Left::Enough if pending && left(&map.disks, &info.granted.set, &lost) != Left::Enough => {
                Left::TooFew
            }
            left => left,
        }
    })
}

fn losses_by(map: &ClusterMap, left: impl Fn(&SegmentInfo) -> Left) -> Vec<Loss> {
    let loss = |volume: &crate::Volume| {
        let left: Vec<Left> = map.segments_of(volume.id).map(|info| left(info)).collect();
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

/// How much of a set is left without these disks.
pub(crate) fn left(disks: &Disks, set: &[ReplicaRef], lost: &BTreeSet<DiskId>) -> Left {
    match remaining(disks, set, lost).count() {
        0 => Left::None,
        rest if rest < seal_quorum(set.len()) => Left::TooFew,
        _ => Left::Enough,
    }
}

fn remaining<'a>(
    disks: &'a Disks,
    set: &'a [ReplicaRef],
    lost: &'a BTreeSet<DiskId>,
) -> impl Iterator<Item = ReplicaRef> + 'a {
    let has_content = |copy: &&ReplicaRef| {
        let disk = disks.get(&copy.disk).filter(|d| !lost.contains(&d.id));
        disk.is_some_and(|d| d.incarnation == copy.incarnation && d.state != DiskState::Failed)
    };
    set.iter().filter(has_content).copied()
}

/// What is left of S, which is something, is S from now on. The copies that are gone return only empty, so that none of
/// them meets a log that went on without what it had.
pub(crate) fn cut(disks: &Disks, info: &mut SegmentInfo) {
    info.active.set = remaining(disks, &info.active.set, &NOTHING).collect();
    assert!(!info.active.set.is_empty(), "S is never empty");
    // A copy that lagged is behind the START record that a write quorum had.
    info.active.tail = LogPosition::ZERO;
}

/// A grant of S, `after` the one that stands, to nobody that runs: the next one follows it as after any owner's death.
pub(crate) fn disown(info: &mut SegmentInfo, after: u64) {
    let set = info.active.set.clone();
    let owner = set.first().map_or(info.granted.owner, |r| r.node);
    let epoch = Epoch(info.granted.epoch.0 + after);
    info.granted = Grant { epoch, owner, owner_incarnation: ProcessIncarnation(0), set };
}
