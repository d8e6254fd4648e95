//! What control's leader proposes when owners are gone: the map in, commands out. The decision for one segment
//! is holdfast-placement's; this file tells it where each segment stands.

use crate::{ClusterMap, NodeState, Single};
use alloc::{collections::BTreeSet, vec::Vec};
use holdfast_placement::{Copy, NextGrant, Standing, next_grant};
use holdfast_types::{ReplicaRef, SegmentCommand, SegmentId, SegmentInfo, SegmentKey};

/// The grants to propose, and the segments that nothing can be done for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlPlan {
    /// To be proposed, each a compare-and-set.
    pub grants: Vec<Single>,
    /// Segments with too few copies in reach.
    pub waiting: Vec<Waiting>,
}

/// A segment with too few copies in reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which.
    pub segment: SegmentKey,
    /// How many of active.S can be reached.
    pub reachable: usize,
    /// How many must be.
    pub need: usize,
}

/// Plans grants for every segment whose owner, or whose write quorum, is gone. `stuck` names segments whose
/// grant was not activated for so long that another owner should try.
pub fn plan_grants(map: &ClusterMap, stuck: &BTreeSet<SegmentId>) -> ControlPlan {
    let mut owned = map.owned_by_node();
    let mut plan = ControlPlan::default();
    for (id, info) in &map.segments {
        match next_grant(&standing(map, info, stuck.contains(id)), &owned) {
            NextGrant::Keep => {}
            NextGrant::Wait { reachable, need } => {
                plan.waiting.push(Waiting { segment: info.key, reachable, need });
            }
            NextGrant::Grant { owner, set, reason } => {
                // A copy's node is in the map: nodes with copies are not removed.
                let Some(node) = map.nodes.get(&owner) else { continue };
                if let Some(count) = owned.get_mut(&info.granted.owner) {
                    *count -= 1;
                }
                *owned.entry(owner).or_default() += 1;
                plan.grants.push(Single::Segment(SegmentCommand::Grant {
                    segment: info.key,
                    expect: info.granted.epoch,
                    owner,
                    owner_incarnation: node.incarnation,
                    set,
                    reason,
                }));
            }
        }
    }
    plan
}

fn standing(map: &ClusterMap, info: &SegmentInfo, stuck: bool) -> Standing {
    let copy = |replica: &ReplicaRef| Copy {
        replica: *replica,
        intact: map.intact(replica),
        reachable: map.reachable(replica),
        may_own: map.nodes.get(&replica.node).is_some_and(|n| n.state == NodeState::Up),
        slow: map.is_slow(replica.disk),
    };
    let owner = map.nodes.get(&info.granted.owner);
    Standing {
        active: info.active.set.iter().map(copy).collect(),
        granted: info.granted.set.clone(),
        owner: info.granted.owner,
        owner_lives: owner
            .is_some_and(|n| n.state.answers() && n.incarnation == info.granted.owner_incarnation),
        activated: info.active.epoch == info.granted.epoch,
        stuck,
    }
}
