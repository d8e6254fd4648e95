//! The disks of a pool that may take a copy, as holdfast-placement wants them.

use crate::{ClusterMap, Disk, DiskState, NodeState};
use alloc::{collections::BTreeMap, vec::Vec};
use holdfast_placement::Candidate;
use holdfast_types::{DiskId, ReplicaRef};

/// Those that serve and have room, on nodes whose daemon ran at least once.
pub(crate) fn candidates(map: &ClusterMap, pool: &str) -> Vec<Candidate> {
    let mut on_disk: BTreeMap<DiskId, u64> = BTreeMap::new();
    for copy in map.segments.values().flat_map(|s| &s.members) {
        *on_disk.entry(copy.disk).or_default() += 1;
    }
    let candidate = |d: &Disk| {
        let node = map.nodes.get(&d.node).filter(|n| n.incarnation.0 > 0)?;
        Some(Candidate {
            replica: ReplicaRef { node: d.node, disk: d.id, incarnation: d.incarnation },
            size: d.size,
            copies: on_disk.get(&d.id).copied().unwrap_or(0),
            up: node.state == NodeState::Up,
            slow: map.is_slow(d.id),
        })
    };
    let usable = map.disks.values().filter(|d| d.pool == pool && d.state == DiskState::Ok);
    usable.filter_map(candidate).collect()
}
