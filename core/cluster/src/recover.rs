//! What becomes of the map when a majority of control is lost for good and one node's log is all that is left of it.
//!
//! That log may end before the last commands that were answered. So nothing that those may have given out is given out
//! again: epochs, runs, the numbers of nodes and volumes and the map's version leap. A copy that was sealed or written
//! to in an epoch that this map never heard of is below the next one all the same, and a gateway's number names one
//! gateway for ever (replication.md, H4, H12). Join tokens are forgotten: one of them may have been used.
//!
//! The disks of lost nodes count as failed: should one come back, then empty, in a new incarnation (H21), whatever was
//! written to it since by whoever thought to be the cluster. Where too few of S are left to seal it, what is left
//! becomes S: an acknowledged write may have been on the lost ones only. [`losses`] says of which volumes that is true;
//! the operator decides before. A segment with no copy of S left stays as it is and waits, for what else there is of
//! it was not in sync.

use crate::{ClusterMap, DiskState, NodeState};
use alloc::{collections::BTreeSet, string::String, sync::Arc, vec::Vec};
use holdfast_types::{
    Epoch, Grant, LogPosition, NodeId, ProcessIncarnation, ReplicaRef, SegmentInfo, seal_quorum,
};

/// By how much epochs, runs and the map's version leap: more than any cluster gives out.
const LEAP: u64 = 1 << 32;
/// By how much the numbers of volumes leap.
const VOLUME_LEAP: u64 = 1 << 20;
/// By how much those of nodes leap, of which there are not many: as many hosts may have joined in what was lost.
const NODE_LEAP: u16 = 16;

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

/// The volumes that lose something with these nodes.
pub fn losses(map: &ClusterMap, lost: &BTreeSet<NodeId>) -> Vec<Loss> {
    let loss = |volume: &crate::Volume| {
        let left: Vec<Left> = map.segments_of(volume.id).map(|info| left(map, info, lost)).collect();
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

/// Makes the map one that goes on without these nodes, and from which nothing is given out twice.
pub fn recover(map: &mut ClusterMap, lost: &BTreeSet<NodeId>) {
    map.version += LEAP;
    map.next_volume += VOLUME_LEAP;
    map.next_node = map.next_node.saturating_add(NODE_LEAP);
    map.tokens.clear();
    let segments: Vec<_> = map.segments.iter().map(|(id, info)| (*id, left(map, info, lost))).collect();
    for (id, left) in segments {
        // Listed a line above.
        let rest: Vec<ReplicaRef> = remaining(map, &map.segments[&id], lost).collect();
        let info = Arc::make_mut(map.segments.get_mut(&id).expect("the segment exists"));
        if left == Left::TooFew {
            info.active.set = rest;
            // A copy that lagged is behind the START record that a write quorum had.
            info.active.tail = LogPosition::ZERO;
        }
        // A grant to nobody that runs: the next one follows it as after any owner's death.
        let set = info.active.set.clone();
        let owner = set.first().map_or(info.granted.owner, |r| r.node);
        let epoch = Epoch(info.granted.epoch.0 + LEAP);
        info.granted = Grant { epoch, owner, owner_incarnation: ProcessIncarnation(0), set };
    }
    for node in map.nodes.values_mut().filter(|n| n.incarnation != ProcessIncarnation(0)) {
        node.runs += LEAP;
        node.incarnation = ProcessIncarnation(node.runs);
        node.state = NodeState::Down;
    }
    map.disks.values_mut().filter(|d| lost.contains(&d.node)).for_each(|d| d.state = DiskState::Failed);
    #[cfg(debug_assertions)]
    crate::apply::invariants::check(map);
}

/// How much of S is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// A seal quorum, which has every acknowledged write.
    Enough,
    TooFew,
    None,
}

fn left(map: &ClusterMap, info: &SegmentInfo, lost: &BTreeSet<NodeId>) -> Left {
    match remaining(map, info, lost).count() {
        0 => Left::None,
        rest if rest < seal_quorum(info.active.set.len()) => Left::TooFew,
        _ => Left::Enough,
    }
}

/// The copies of S on other nodes, unless their disk has failed or was emptied. One that is missing may be found.
fn remaining<'a>(
    map: &'a ClusterMap,
    info: &'a SegmentInfo,
    lost: &'a BTreeSet<NodeId>,
) -> impl Iterator<Item = ReplicaRef> + 'a {
    let has_content = |copy: &&ReplicaRef| {
        let disk = map.disks.get(&copy.disk);
        disk.is_some_and(|d| d.incarnation == copy.incarnation && d.state != DiskState::Failed)
    };
    info.active.set.iter().filter(|copy| !lost.contains(&copy.node)).filter(has_content).copied()
}
