//! What to grant for a segment whose owner is gone, or whose write quorum is.
//!
//! The rule (replication.md §1): a takeover's S' is the reachable part of active.S and never adds; activation
//! seals r(active.S) of active.S whatever S' is. Two choices are left open and made here.
//!
//! With at least w(active.S) reachable, S' is all of active.S. "Reachable part" is there so that activation can
//! bring w(S') to the log; w(active.S) of the same set can. A grant that keeps a dead member is a grant of the
//! same S under a new epoch: it adds nothing, and every set of r(S') still meets every set of w(S'). So that
//! rule is kept, and a host that is back after a short restart takes the tail of the journal instead of a
//! resync; a host that stays away is dropped by the owner soon after. With fewer than w but at least
//! r(active.S) reachable (two copies, one gone) S' is the reachable part: waiting would stall writes. A copy
//! that is lost (wiped, failed, in an older incarnation) is never kept: it can never acknowledge, and in S' it
//! would only make the seal of the next takeover harder to reach.
//!
//! With fewer than r(active.S) reachable nothing can be activated, and nothing is granted.

use alloc::{collections::BTreeMap, vec::Vec};
use holdfast_types::{GrantReason, NodeId, ReplicaRef, seal_quorum, write_quorum};

/// A copy in S, and what control knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The copy.
    pub replica: ReplicaRef,
    /// Whether it exists: its disk is not lost, in that incarnation.
    pub intact: bool,
    /// Whether its node is up, besides.
    pub reachable: bool,
    /// Whether its node may own: up and not about to stop.
    pub may_own: bool,
    /// Whether its disk is slow, so that its node owns only if no other can.
    pub slow: bool,
}

/// Where a segment stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The copies of active.S.
    pub active: Vec<Copy>,
    /// The copies of the granted S.
    pub granted: Vec<ReplicaRef>,
    /// The granted owner.
    pub owner: NodeId,
    /// Whether the owner is still in the run of its daemon that the grant names, and that run is not down.
    pub owner_lives: bool,
    /// Whether the grant is the active configuration.
    pub activated: bool,
    /// Whether it was not activated for so long that another owner should try.
    pub stuck: bool,
}

/// What to grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextGrant {
    /// Nothing: the granted owner serves, or can activate.
    Keep,
    /// This.
    Grant {
        /// The new owner.
        owner: NodeId,
        /// S'.
        set: Vec<ReplicaRef>,
        /// Why.
        reason: GrantReason,
    },
    /// Too few copies of active.S are reachable to decide anything.
    Wait {
        /// How many are.
        reachable: usize,
        /// How many must be.
        need: usize,
    },
}

/// Plans the next grant of one segment. `owned` says how many segments each node owns; the caller counts on.
pub fn next_grant(segment: &Standing, owned: &BTreeMap<NodeId, u64>) -> NextGrant {
    let reachable: Vec<Copy> = segment.active.iter().copied().filter(|c| c.reachable).collect();
    let is_reachable = |r: &ReplicaRef| reachable.iter().any(|c| c.replica == *r);
    let owner_has_copy = segment.granted.iter().any(|r| r.node == segment.owner && is_reachable(r))
        // A copy that an unactivated grant adds is not in active.S; the owner's own always is.
        || (segment.activated && segment.active.iter().any(|c| c.replica.node == segment.owner && c.reachable));
    let owner_ok = segment.owner_lives && owner_has_copy;
    // What is not in active.S is being added by a living owner: taken as reachable, its owner knows better.
    let added = segment.granted.iter().filter(|r| !segment.active.iter().any(|c| c.replica == **r)).count();
    let granted_reach = segment.granted.iter().filter(|r| is_reachable(r)).count() + added;
    let quorum_ok = granted_reach >= write_quorum(segment.granted.len());
    if owner_ok && quorum_ok && (segment.activated || !segment.stuck) {
        return NextGrant::Keep;
    }
    let need = seal_quorum(segment.active.len());
    let mut owners: Vec<Copy> = reachable.iter().copied().filter(|c| c.may_own).collect();
    // After a stuck owner each gets a try, also a slow one.
    if !segment.stuck && owners.iter().any(|c| !c.slow) {
        owners.retain(|c| !c.slow);
    }
    let owners: Vec<NodeId> = owners.iter().map(|c| c.replica.node).collect();
    if reachable.len() < need || owners.is_empty() {
        return NextGrant::Wait { reachable: reachable.len(), need };
    }
    let set = next_set(&segment.active, &reachable);
    let owner = match owner_ok && !segment.stuck {
        true => segment.owner,
        false => choose_owner(segment, &owners, owned),
    };
    if owner_ok && owner == segment.owner && set == segment.granted {
        // The same again would only restart what is under way.
        return NextGrant::Keep;
    }
    let reason = if owner_ok && owner == segment.owner { GrantReason::Drop } else { GrantReason::Takeover };
    NextGrant::Grant { owner, set, reason }
}

/// S' out of active.S: all that is intact when that leaves a write quorum reachable, else what is reachable.
fn next_set(active: &[Copy], reachable: &[Copy]) -> Vec<ReplicaRef> {
    let intact: Vec<ReplicaRef> = active.iter().filter(|c| c.intact).map(|c| c.replica).collect();
    if reachable.len() >= write_quorum(active.len()) && reachable.len() >= write_quorum(intact.len()) {
        return intact;
    }
    reachable.iter().map(|c| c.replica).collect()
}

/// The node of the old owner when it may own again (its caches are warm, and clients talk to it), else the one
/// that owns least. After a stuck owner it is the next node's turn, round and round, so that each gets a try; the
/// stuck one is only taken again when it is the only one.
fn choose_owner(segment: &Standing, owners: &[NodeId], owned: &BTreeMap<NodeId, u64>) -> NodeId {
    if !segment.stuck && owners.contains(&segment.owner) {
        return segment.owner;
    }
    let share = |n: &NodeId| if segment.stuck { 0 } else { owned.get(n).copied().unwrap_or(0) };
    let later = |n: &NodeId| segment.stuck && *n > segment.owner;
    let key = |n: &&NodeId| (segment.stuck && **n == segment.owner, !later(n), share(n), **n);
    // The caller made sure that there is one.
    *owners.iter().min_by_key(key).expect("a node may own")
}

#[cfg(test)]
#[path = "takeover_tests.rs"]
mod tests;
