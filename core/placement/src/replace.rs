//! Where a lost copy is placed anew: on another disk of its node if there is one, which keeps the copies spread as they
//! were; else on the disk that carries least for its size, on a node without a copy of the segment.

use crate::place::{Candidate, lighter};
use holdfast_types::{NodeId, ReplicaRef};

/// The disk that takes over from `lost`. `others`: the nodes of the segment's other copies. None: no node that is up
/// has room.
pub fn replacement(candidates: &[Candidate], lost: &ReplicaRef, others: &[NodeId]) -> Option<ReplicaRef> {
    let may = |c: &&Candidate| c.up && c.replica.disk != lost.disk && !others.contains(&c.replica.node);
    let mut best: Option<&Candidate> = None;
    for disk in candidates.iter().filter(may) {
        best = match best {
            Some(b) if !better(disk, b, lost.node) => Some(b),
            _ => Some(disk),
        };
    }
    best.map(|c| c.replica)
}

/// Whether `a` is to be preferred to `b`. Of equals the one with the lower number is taken, whatever their order.
fn better(a: &Candidate, b: &Candidate, home: NodeId) -> bool {
    let is_home = |c: &Candidate| c.replica.node == home && !c.slow;
    let (a_home, b_home) = (is_home(a), is_home(b));
    if a_home != b_home {
        return a_home;
    }
    lighter(a, b) || !lighter(b, a) && a.replica < b.replica
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use holdfast_types::{DiskId, DiskIncarnation};

    fn copy(node: u16, id: u128) -> ReplicaRef {
        ReplicaRef { node: NodeId(node), disk: DiskId(id), incarnation: DiskIncarnation(1) }
    }

    fn disk(node: u16, id: u128, copies: u64) -> Candidate {
        Candidate { replica: copy(node, id), size: 6 << 30, copies, up: true, slow: false }
    }

    #[test]
    fn the_same_nodes_other_disk_comes_first_then_the_lightest_on_a_node_without_a_copy() {
        let mut disks = vec![disk(4, 40, 3), disk(2, 20, 0), disk(5, 50, 1), disk(1, 11, 9)];
        let others = [NodeId(2), NodeId(3)];
        let lost = copy(1, 10);
        assert_eq!(replacement(&disks, &lost, &others), Some(copy(1, 11)));
        disks[3].up = false;
        assert_eq!(replacement(&disks, &lost, &others), Some(copy(5, 50)));
        disks.remove(2);
        assert_eq!(replacement(&disks, &lost, &others), Some(copy(4, 40)));
        disks.remove(0);
        assert_eq!(replacement(&disks, &lost, &others), None, "node 2 has a copy, node 1 is down");
    }

    #[test]
    fn a_disk_is_not_its_own_replacement_and_the_order_does_not_matter() {
        let lost = copy(1, 10);
        assert_eq!(replacement(&[disk(1, 10, 0)], &lost, &[]), None);
        let (a, b) = (disk(2, 20, 1), disk(3, 30, 1));
        assert_eq!(replacement(&[a, b], &lost, &[]), Some(copy(2, 20)));
        assert_eq!(replacement(&[b, a], &lost, &[]), Some(copy(2, 20)));
    }
}
