//! Where the copies of new segments go: each on another node, on the disks that carry least for their size,
//! the first copy (the owner's) on the node that owns least.

use alloc::{collections::BTreeMap, vec::Vec};
use holdfast_types::{NodeId, ReplicaRef, write_quorum};
use thiserror::Error;

/// A disk that may take a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The disk, in its incarnation.
    pub replica: ReplicaRef,
    /// Its size in bytes.
    pub size: u64,
    /// How many segments have a copy on it.
    pub copies: u64,
    /// Whether its node answers. One that does not may take a minority of a segment's copies.
    pub up: bool,
    /// Whether it is slow: it takes a copy only if no other disk can.
    pub slow: bool,
}

/// The copies of one segment; the owner's first.
pub type Placement = Vec<ReplicaRef>;

/// Too few nodes to place on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{need} nodes with room are needed and there are {have}; {up} are up and {need_up} must be")]
pub struct PlaceError {
    /// How many nodes it takes.
    pub need: usize,
    /// How many have a disk with room.
    pub have: usize,
    /// How many of these are up.
    pub up: usize,
    /// How many must be, so that the segment can be written to.
    pub need_up: usize,
}

/// Plans `count` segments of `copies` copies each. `owned` says how many segments each node owns already.
pub fn place_segments(
    candidates: &[Candidate],
    owned: &BTreeMap<NodeId, u64>,
    copies: usize,
    count: u32,
) -> Result<Vec<Placement>, PlaceError> {
    assert!(copies > 0, "a segment has at least one copy");
    let mut disks = candidates.to_vec();
    disks.sort_by_key(|c| c.replica);
    let nodes: BTreeMap<NodeId, bool> = disks.iter().map(|c| (c.replica.node, c.up)).collect();
    let up = nodes.values().filter(|up| **up).count();
    let need_up = write_quorum(copies);
    if nodes.len() < copies || up < need_up {
        return Err(PlaceError { need: copies, have: nodes.len(), up, need_up });
    }
    let mut owned = owned.clone();
    let mut plan = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let mut chosen: Placement = Vec::with_capacity(copies);
        for _ in 0..copies {
            let best = least_loaded(&disks, &chosen);
            disks[best].copies += 1;
            chosen.push(disks[best].replica);
        }
        let owner = least_owning(&chosen, &owned, &disks);
        chosen.swap(0, owner);
        *owned.entry(chosen[0].node).or_default() += 1;
        plan.push(chosen);
    }
    Ok(plan)
}

/// The disk on a node not chosen yet that has the fewest copies for its size; nodes that are up
/// come first, then disks that are not slow.
fn least_loaded(disks: &[Candidate], chosen: &[ReplicaRef]) -> usize {
    let free = |d: &Candidate| !chosen.iter().any(|c| c.node == d.replica.node);
    let mut best: Option<usize> = None;
    for (i, disk) in disks.iter().enumerate().filter(|(_, d)| free(d)) {
        best = match best {
            Some(b) if !lighter(disk, &disks[b]) => Some(b),
            _ => Some(i),
        };
    }
    // The caller counted at least as many nodes as copies, so a node that is not chosen is left.
    best.expect("a node is left")
}

/// Whether `a` is to be preferred to `b`: by state, then by (copies + 1) / size without a division.
pub(crate) fn lighter(a: &Candidate, b: &Candidate) -> bool {
    if (a.up, a.slow) != (b.up, b.slow) {
        return (a.up, !a.slow) > (b.up, !b.slow);
    }
    u128::from(a.copies + 1) * u128::from(b.size.max(1))
        < u128::from(b.copies + 1) * u128::from(a.size.max(1))
}

/// Which of the chosen copies is to be the owner's.
fn least_owning(chosen: &[ReplicaRef], owned: &BTreeMap<NodeId, u64>, disks: &[Candidate]) -> usize {
    let load = |c: &ReplicaRef| {
        let disk = disks.iter().find(|d| d.replica == *c).map(|d| (!d.up, d.slow));
        (disk, owned.get(&c.node).copied().unwrap_or(0), c.node)
    };
    let best = chosen.iter().enumerate().min_by_key(|(_, c)| load(c));
    // A placement holds at least one copy.
    best.expect("a copy was chosen").0
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, string::String, vec};
    use holdfast_types::{DiskId, DiskIncarnation};

    fn disk(node: u16, id: u128, gib: u64, copies: u64) -> Candidate {
        let replica = ReplicaRef { node: NodeId(node), disk: DiskId(id), incarnation: DiskIncarnation(1) };
        Candidate { replica, size: gib << 30, copies, up: true, slow: false }
    }

    fn drawn(plan: &[Placement]) -> String {
        let one = |p: &Placement| {
            p.iter().map(|c| format!("{}:{}", c.node, c.disk.0)).collect::<Vec<_>>().join(" ")
        };
        plan.iter().map(one).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn three_equal_nodes_get_equal_shares_of_copies_and_ownership() {
        let disks = vec![disk(1, 10, 6, 0), disk(2, 20, 6, 0), disk(3, 30, 6, 0)];
        let plan = place_segments(&disks, &BTreeMap::new(), 3, 4).expect("enough nodes");
        assert_eq!(drawn(&plan), "1:10 2:20 3:30\n2:20 1:10 3:30\n3:30 2:20 1:10\n1:10 2:20 3:30");
    }

    #[test]
    fn a_slow_disk_takes_copies_last_and_owns_last() {
        let mut disks = vec![disk(1, 10, 6, 0), disk(2, 20, 6, 0), disk(3, 30, 6, 5), disk(4, 40, 6, 5)];
        disks[0].slow = true;
        let plan = place_segments(&disks, &BTreeMap::new(), 3, 1).expect("enough nodes");
        assert_eq!(drawn(&plan), "2:20 3:30 4:40");
        let plan = place_segments(&disks[..3], &BTreeMap::from([(NodeId(2), 9), (NodeId(3), 8)]), 3, 1);
        assert_eq!(drawn(&plan.expect("enough nodes")), "3:30 2:20 1:10");
    }

    #[test]
    fn a_disk_twice_as_large_takes_twice_as_many_copies() {
        let disks = vec![disk(1, 10, 12, 0), disk(2, 20, 6, 0), disk(3, 30, 6, 0)];
        let plan = place_segments(&disks, &BTreeMap::new(), 1, 8).expect("enough nodes");
        let on = |id| plan.iter().flatten().filter(|c| c.disk == DiskId(id)).count();
        assert_eq!((on(10), on(20), on(30)), (4, 2, 2));
    }

    #[test]
    fn the_order_of_candidates_does_not_change_the_plan() {
        let mut disks = vec![disk(1, 10, 6, 3), disk(1, 11, 9, 0), disk(2, 20, 6, 1), disk(3, 30, 7, 0)];
        let plan = place_segments(&disks, &BTreeMap::new(), 2, 9);
        disks.reverse();
        assert_eq!(plan, place_segments(&disks, &BTreeMap::new(), 2, 9));
    }

    #[test]
    fn no_two_copies_share_a_node() {
        let disks = vec![disk(1, 10, 60, 0), disk(1, 11, 60, 0), disk(2, 20, 1, 0)];
        let plan = place_segments(&disks, &BTreeMap::new(), 2, 20).expect("enough nodes");
        assert!(plan.iter().all(|p| p[0].node != p[1].node));
    }

    #[test]
    fn a_node_that_is_down_takes_a_minority_and_owns_nothing() {
        let mut disks = vec![disk(1, 10, 6, 0), disk(2, 20, 6, 0), disk(3, 30, 6, 0)];
        disks[0].up = false;
        let plan = place_segments(&disks, &BTreeMap::new(), 3, 2).expect("two of three are up");
        assert_eq!(drawn(&plan), "2:20 3:30 1:10\n3:30 2:20 1:10");
        disks[1].up = false;
        let refused = PlaceError { need: 3, have: 3, up: 1, need_up: 2 };
        assert_eq!(place_segments(&disks, &BTreeMap::new(), 3, 2), Err(refused));
    }

    #[test]
    fn too_few_nodes_are_refused_with_their_number() {
        let disks = vec![disk(1, 10, 6, 0), disk(1, 11, 6, 0)];
        let refused = PlaceError { need: 2, have: 1, up: 1, need_up: 2 };
        assert_eq!(place_segments(&disks, &BTreeMap::new(), 2, 1), Err(refused));
    }
}
