//! What control's leader proposes for copies that are lost: the map in, commands out. A copy is lost when its node
//! runs without its disk, or when its node stays away for longer than the caller waits. It first has to leave S: a
//! node that is away is dropped by the segment's owner; a disk that is lost under a node that answers is dropped by a
//! grant from here, since an owner without writes does not notice. Then another disk takes its place among the
//! members, and the owner resyncs it as any learner.
//!
//! Bounded, so that a rebuild is never an avalanche: few copies at a time in the whole cluster, and none of a node
//! that is away while more than a third of the nodes are: then what is broken is something else than a host.

use crate::{ClusterMap, DiskState, NodeState, Single, candidates::candidates};
use alloc::{collections::BTreeMap, collections::BTreeSet, string::String, vec::Vec};
use holdfast_placement::{Candidate, replacement};
use holdfast_types::{
    GrantReason, NodeId, ReplicaRef, SegmentCommand, SegmentInfo, SegmentKey, seal_quorum, write_quorum,
};

/// The most copies that are being brought up to date before another one is placed anew.
const IN_FLIGHT_MOST: usize = 4;

/// What to propose, and what there is no place for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplacementPlan {
    /// To be proposed, each a compare-and-set: drops of copies that are lost.
    pub drops: Vec<Single>,
    /// Copies that are placed anew.
    pub replacements: Vec<Replacement>,
    /// Lost copies that no disk can take over.
    pub unplaced: Vec<Unplaced>,
}

/// A copy that is placed anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// To be proposed; a compare-and-set.
    pub command: Single,
    /// Of which segment.
    pub segment: SegmentKey,
    /// The lost copy.
    pub from: ReplicaRef,
    /// What takes its place.
    pub to: ReplicaRef,
    /// Why.
    pub reason: Reason,
}

/// A lost copy that no disk can take over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unplaced {
    /// Of which segment.
    pub segment: SegmentKey,
    /// The lost copy.
    pub copy: ReplicaRef,
    /// In which pool room is missing.
    pub pool: String,
}

/// Why a copy is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its disk has failed.
    Failed,
    /// Its node runs and does not find its disk.
    Missing,
    /// Its node stays away.
    Away,
}

/// Plans for every lost copy of a segment that is active and whose owner answers. `away`: the nodes that have not
/// answered for so long that they are not waited for any more.
pub fn plan_replacements(map: &ClusterMap, away: &BTreeSet<NodeId>) -> ReplacementPlan {
    let mut plan = ReplacementPlan::default();
    let waits = too_many_away(map);
    let lost = |copy: &ReplicaRef| reason(map, copy, away).filter(|r| *r != Reason::Away || !waits);
    let mut room = IN_FLIGHT_MOST.saturating_sub(in_flight(map));
    let mut pools: BTreeMap<&str, Vec<Candidate>> = BTreeMap::new();
    for info in map.segments.values().filter(|info| is_served(map, info)) {
        for from in &info.members {
            let Some(reason) = lost(from) else { continue };
            let Some(volume) = map.volumes.get(&info.key.segment.volume) else { continue };
            let disks = pools.entry(&volume.pool).or_insert_with(|| candidates(map, &volume.pool));
            let Some(to) = place(map, info, from, disks) else {
                plan.unplaced.push(Unplaced { segment: info.key, copy: *from, pool: volume.pool.clone() });
                continue;
            };
            if room == 0 {
                continue;
            }
            if info.active.set.iter().any(|r| r.disk == from.disk) {
                // One grant to an epoch: what else is lost follows.
                if let Some(drop) = drop_from_set(map, info, from).filter(|_| reason != Reason::Away) {
                    plan.drops.push(drop);
                    room -= 1;
                    break;
                }
                continue;
            }
            room -= 1;
            disks.iter_mut().filter(|d| d.replica == to).for_each(|d| d.copies += 1);
            let (segment, expect) = (info.key, info.granted.epoch);
            let command = Single::ReplaceCopy { segment, expect, from: *from, to };
            plan.replacements.push(Replacement { command, segment, from: *from, to, reason });
            // The other lost copies of this segment wait for a map with this one in it: it may be on their node.
            break;
        }
    }
    plan
}

/// Why the copy is lost. None: it is not, or it may come back soon.
fn reason(map: &ClusterMap, copy: &ReplicaRef, away: &BTreeSet<NodeId>) -> Option<Reason> {
    let node = map.nodes.get(&copy.node)?;
    if !node.state.answers() {
        return away.contains(&copy.node).then_some(Reason::Away);
    }
    match map.disks.get(&copy.disk)?.state {
        DiskState::Failed => Some(Reason::Failed),
        DiskState::Missing => Some(Reason::Missing),
        DiskState::Ok | DiskState::Full => None,
    }
}

/// Whether more than a third of the nodes that ever ran do not answer.
fn too_many_away(map: &ClusterMap) -> bool {
    let ran = || map.nodes.values().filter(|n| n.incarnation.0 > 0);
    ran().filter(|n| !n.state.answers()).count() * 3 > ran().count()
}

/// Copies that can be resynced now and are not in S yet. One without room is not waited for.
fn in_flight(map: &ClusterMap) -> usize {
    let learns = |info: &SegmentInfo, r: &ReplicaRef| {
        let has_room = map.disks.get(&r.disk).is_some_and(|d| d.state == DiskState::Ok);
        !info.active.set.contains(r) && map.reachable(r) && has_room
    };
    map.segments.values().map(|info| info.members.iter().filter(|r| learns(info, r)).count()).sum()
}

/// Whether its granted owner answers and has activated the grant.
fn is_served(map: &ClusterMap, info: &SegmentInfo) -> bool {
    let owner = map.nodes.get(&info.granted.owner);
    info.active.epoch == info.granted.epoch
        && owner.is_some_and(|n| n.state == NodeState::Up && n.incarnation == info.granted.owner_incarnation)
}

fn place(map: &ClusterMap, info: &SegmentInfo, from: &ReplicaRef, disks: &[Candidate]) -> Option<ReplicaRef> {
    let others: Vec<NodeId> = info.members.iter().filter(|m| *m != from).map(|m| m.node).collect();
    let Some(unfreed) = map.tombstones.get(&info.key) else { return replacement(disks, from, &others) };
    let holds = |d: &&Candidate| unfreed.copies.iter().any(|c| c.disk == d.replica.disk);
    let free: Vec<Candidate> = disks.iter().filter(|d| !holds(d)).copied().collect();
    replacement(&free, from, &others)
}

/// A grant of S without the copy to the same owner, if the rest can seal S and be written to.
fn drop_from_set(map: &ClusterMap, info: &SegmentInfo, lost: &ReplicaRef) -> Option<Single> {
    let active = &info.active.set;
    let set: Vec<ReplicaRef> = active.iter().filter(|r| r.disk != lost.disk).copied().collect();
    let reachable = set.iter().filter(|r| map.reachable(r)).count();
    let owner = info.granted.owner;
    let has_owner = set.iter().any(|r| r.node == owner && map.reachable(r));
    if !has_owner || reachable < seal_quorum(active.len()) || reachable < write_quorum(set.len()) {
        return None;
    }
    Some(Single::Segment(SegmentCommand::Grant {
        segment: info.key,
        expect: info.granted.epoch,
        owner,
        owner_incarnation: info.granted.owner_incarnation,
        set,
        reason: GrantReason::Drop,
    }))
}
