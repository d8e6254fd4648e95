//! What becomes of the map when a majority of control is lost for good and one node's log is all that is left of it.
//!
//! That log may end before the last commands that were answered. So nothing that those may have given out is given out
//! again: epochs, runs, the numbers of nodes and volumes and the map's version leap. A copy that was sealed or written
//! to in an epoch that this map never heard of is below the next one all the same, and a gateway's number names one
//! gateway for ever (replication.md, H4, H12). Join tokens are forgotten: one of them may have been used.
//!
//! The disks of lost nodes count as failed: should one come back, then empty, in a new incarnation (H21), whatever was
//! written to it since by whoever thought to be the cluster. Where too few of S are left to seal it, what is left
//! becomes S: an acknowledged write may have been on the lost ones only. [`crate::losses_without`] says of which volumes that is true;
//! the operator decides before. A segment with no copy of S left stays as it is and waits, for what else there is of
//! it was not in sync.

use crate::loss::{Left, NOTHING, cut, disown, left};
use crate::{ClusterMap, DiskState, NodeState};
use alloc::{collections::BTreeSet, sync::Arc};
use holdfast_types::{NodeId, ProcessIncarnation};

/// By how much epochs, runs and the map's version leap: more than any cluster gives out.
const LEAP: u64 = 1 << 32;
/// By how much the numbers of volumes leap.
const VOLUME_LEAP: u64 = 1 << 20;
/// By how much those of nodes leap, of which there are not many: as many hosts may have joined in what was lost.
const NODE_LEAP: u16 = 16;

/// Makes the map one that goes on without these nodes, and from which nothing is given out twice.
pub fn recover(map: &mut ClusterMap, lost: &BTreeSet<NodeId>) {
    map.version += LEAP;
    map.next_volume += VOLUME_LEAP;
    map.next_node = map.next_node.saturating_add(NODE_LEAP);
    map.tokens.clear();
    map.disks.values_mut().filter(|d| lost.contains(&d.node)).for_each(|d| d.state = DiskState::Failed);
    for info in map.segments.values_mut() {
        let info = Arc::make_mut(info);
        if left(&map.disks, &info.active.set, &NOTHING) == Left::TooFew {
            cut(&map.disks, info);
        }
        disown(info, LEAP);
    }
    for node in map.nodes.values_mut().filter(|n| n.incarnation != ProcessIncarnation(0)) {
        node.runs += LEAP;
        node.incarnation = ProcessIncarnation(node.runs);
        node.state = NodeState::Down;
    }
    #[cfg(debug_assertions)]
    crate::apply::invariants::check(map);
}
