//! Ownership leaves a slow disk: whoever owns reads from its own copy and writes to it, so that each request would take as
//! long as the disk. A node whose copy has everything and whose disk keeps up serves as well; the slow copy stays in S, and
//! what is acknowledged is on as many disks as before.

use crate::Engine;
use crate::io::Outputs;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use holdfast_types::{DiskId, GrantReason, NodeId, SegmentInfo, SegmentKey, Time};

impl Engine {
    /// Proposes another owner for what this node owns with a copy on a slow disk. Called with each map and each second
    /// in which something is asked for: where no other copy has everything yet, one may have it then.
    pub(crate) fn leave_slow_disks(&mut self, now: Time, out: &mut Outputs) {
        let slow: BTreeSet<DiskId> =
            self.map.disks_of(self.config.node).map(|d| d.id).filter(|d| self.map.is_slow(*d)).collect();
        if slow.is_empty() {
            return;
        }
        let owned = self.copies.owners.iter().filter(|(_, owned)| slow.contains(&owned.disk));
        let owned: Vec<SegmentKey> = owned.map(|(segment, _)| *segment).collect();
        if owned.is_empty() {
            return;
        }
        let mut load = self.map.owned_by_node();
        for segment in owned {
            let Some(info) = self.map.segments.get(&segment.segment) else { continue };
            let Some(owned) = self.copies.owners.get(&segment) else { continue };
            let follow = owned.owner.nodes_that_follow();
            let may = self.may_own(info).filter(|n| follow.contains(n) && !self.has_slow_disk(info, *n));
            let to = may.min_by_key(|n| (load.get(n).copied().unwrap_or(0), *n));
            let Some(node) = to.and_then(|n| self.map.nodes.get(&n)) else { continue };
            let (to, incarnation) = (node.id, node.incarnation);
            *load.entry(to).or_default() += 1;
            self.with_owner(now, segment, out, |owner, o| {
                owner.propose_owner(now, to, incarnation, GrantReason::SlowDisk, o);
            });
        }
    }

    /// Whether the node's copy of S lies on a slow disk.
    pub(crate) fn has_slow_disk(&self, info: &SegmentInfo, node: NodeId) -> bool {
        info.granted.set.iter().any(|r| r.node == node && self.map.is_slow(r.disk))
    }
}
