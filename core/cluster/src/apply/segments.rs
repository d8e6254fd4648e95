//! Grants and activations: compare-and-set on the epoch, and the rules of replication.md §1 that do not trust
//! the proposer. What is refused here is never a matter of timing (that is `Stale`) but of a rule.

use super::Changed;
use crate::{ClusterMap, SingleResult};
use alloc::{sync::Arc, vec::Vec};
use holdfast_types::{
    ActiveConfig, Epoch, Grant, GrantReason, NodeId, ReplicaRef, SegmentCommand, SegmentCommandResult,
    SegmentInfo,
};

pub(super) fn apply(map: &mut ClusterMap, command: SegmentCommand) -> (SingleResult, Changed) {
    let result = decide(map, &command);
    let result = match result {
        Decision::Already => return (SingleResult::Segment(SegmentCommandResult::Done), Changed::No),
        Decision::Refuse => SegmentCommandResult::Refused,
        Decision::Stale(granted) => SegmentCommandResult::Stale { granted },
        Decision::Accept => {
            carry_out(map, command);
            return (SingleResult::Segment(SegmentCommandResult::Done), Changed::Yes);
        }
    };
    (SingleResult::Segment(result), Changed::No)
}

enum Decision {
    Accept,
    Already,
    Stale(Epoch),
    Refuse,
}

fn decide(map: &ClusterMap, command: &SegmentCommand) -> Decision {
    let key = match command {
        SegmentCommand::Grant { segment, .. } | SegmentCommand::Activated { segment, .. } => segment,
    };
    let Some(info) = map.segments.get(&key.segment).filter(|info| info.key == *key) else {
        return Decision::Refuse;
    };
    match command {
        SegmentCommand::Grant { expect, owner, owner_incarnation, set, reason, .. } => {
            let next = Grant {
                epoch: Epoch(expect.0.saturating_add(1)),
                owner: *owner,
                owner_incarnation: *owner_incarnation,
                set: set.clone(),
            };
            if info.granted == next {
                // A repeat of the grant that stands. Two different proposers never make the same one by
                // chance and mean two epochs: both asked for exactly this.
                return Decision::Already;
            }
            if info.granted.epoch != *expect {
                return Decision::Stale(info.granted.epoch);
            }
            let owner_runs = map.nodes.get(owner).is_some_and(|n| n.incarnation == *owner_incarnation);
            match owner_runs && set_allowed(map, info, *owner, set, *reason) {
                true => Decision::Accept,
                false => Decision::Refuse,
            }
        }
        SegmentCommand::Activated { epoch, tail, .. } => {
            if info.granted.epoch != *epoch {
                return Decision::Stale(info.granted.epoch);
            }
            if info.active.epoch == *epoch {
                return if info.active.tail == *tail { Decision::Already } else { Decision::Refuse };
            }
            // The START record is of the epoch that it starts, and its LSN follows the one before.
            let follows = tail.epoch == *epoch && tail.lsn > info.active.tail.lsn;
            if follows { Decision::Accept } else { Decision::Refuse }
        }
    }
}

/// Whether S' may follow active.S: it never adds, except by the active owner, a member that was resynced and whose
/// disk nobody takes for lost; it holds a copy of the owner's; it names nobody twice.
fn set_allowed(
    map: &ClusterMap,
    info: &SegmentInfo,
    owner: NodeId,
    set: &[ReplicaRef],
    reason: GrantReason,
) -> bool {
    let distinct = |r: &ReplicaRef| set.iter().filter(|o| o.node == r.node || o.disk == r.disk).count() == 1;
    if set.is_empty() || !set.iter().all(distinct) || !set.iter().any(|r| r.node == owner) {
        return false;
    }
    let added: Vec<&ReplicaRef> = set.iter().filter(|r| !info.active.set.contains(r)).collect();
    match reason {
        GrantReason::Add => {
            // Only the active owner can have resynced a copy, and it stays the owner.
            info.granted.epoch == info.active.epoch
                && owner == info.granted.owner
                && !added.is_empty()
                && added.iter().all(|r| info.members.contains(r) && map.intact(r))
                && info.active.set.iter().all(|r| set.contains(r))
        }
        GrantReason::FollowIo | GrantReason::Handover | GrantReason::SlowDisk => {
            info.granted.epoch == info.active.epoch && added.is_empty() && set.len() == info.active.set.len()
        }
        GrantReason::Takeover | GrantReason::Drop => added.is_empty(),
        // The first grant is made with the segment.
        GrantReason::Create => false,
    }
}

fn carry_out(map: &mut ClusterMap, command: SegmentCommand) {
    match command {
        SegmentCommand::Grant { segment, owner, owner_incarnation, set, .. } => {
            // `decide` found the segment.
            let info = Arc::make_mut(map.segments.get_mut(&segment.segment).expect("the segment exists"));
            let epoch = Epoch(info.granted.epoch.0 + 1);
            info.granted = Grant { epoch, owner, owner_incarnation, set };
        }
        SegmentCommand::Activated { segment, epoch, tail } => {
            // `decide` found the segment.
            let info = Arc::make_mut(map.segments.get_mut(&segment.segment).expect("the segment exists"));
            assert_eq!(info.granted.epoch, epoch, "only the granted configuration is activated");
            info.active = ActiveConfig { epoch, set: info.granted.set.clone(), tail };
        }
    }
}
