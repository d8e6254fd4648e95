//! What control's leader proposes for copies that are lost: the map in, commands out. A copy is lost when its node
//! runs without its disk, or when its node stays away, or its disk silent, for longer than the caller waits. It first
//! has to leave S: a node that is away is dropped by the segment's owner; a disk that is lost, or began anew, is dropped
//! by a grant from here, since an owner without writes does not notice: also where no other disk can take its place, as
//! S without it outlives the loss of one more. Then another disk takes its place among the members, and the owner
//! resyncs it as any learner.
//!
//! A copy that is in no S and cannot be built because its disk stays full is as good as lost. It goes only where a
//! whole segment has room, so that it does not fill one disk after the other; one at a time leaves a disk, for what
//! it gives back may be enough for the next. A copy of S is never moved for room.
//!
//! Bounded, so that a rebuild is never an avalanche: some drops and few copies at a time in the whole cluster, and none of
//! a node that is away while more than a third of the nodes are: then what is broken is something else than a host.

use crate::{ClusterMap, DiskState, GivenUp, NodeState, Single, candidates::candidates};
use alloc::{collections::BTreeMap, string::String, vec::Vec};
use holdfast_placement::{Candidate, replacement};
use holdfast_types::{
    DiskId, GrantReason, NodeId, ReplicaRef, SEGMENT_BYTES, SegmentCommand, SegmentInfo, SegmentKey,
    seal_quorum, write_quorum,
};

/// The most copies that are being brought up to date before another one is placed anew.
const IN_FLIGHT_MOST: usize = 4;
/// The most grants of one plan: each lets a segment's I/O wait for a moment.
const DROPS_MOST: usize = 32;

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
    /// Why it is lost.
    pub reason: Reason,
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
    /// Its disk stays silent.
    Silent,
    /// It is in no S, and its disk has no room to build it.
    NoRoom,
}

/// Plans for every lost copy of a segment that is active and whose owner answers.
pub fn plan_replacements(map: &ClusterMap, given_up: &GivenUp) -> ReplacementPlan {
    let mut plan = ReplacementPlan::default();
    let waits = too_many_away(map);
    let mut room = IN_FLIGHT_MOST.saturating_sub(in_flight(map));
    let mut pools: BTreeMap<&str, Vec<Candidate>> = BTreeMap::new();
    let mut building = building(map);
    for info in map.segments.values().filter(|info| is_served(map, info)) {
        let may_drop = plan.drops.len() < DROPS_MOST;
        let drop = if may_drop { drop_of_lost(map, info, given_up) } else { None };
        // What else is lost of this segment follows when that is active.
        let drops = drop.is_some();
        plan.drops.extend(drop);
        for from in &info.members {
            let Some(reason) = reason(map, info.key, from, given_up) else { continue };
            if reason == Reason::Away && waits {
                continue;
            }
            let Some(volume) = map.volumes.get(&info.key.segment.volume) else { continue };
            let disks = pools.entry(&volume.pool).or_insert_with(|| candidates(map, &volume.pool));
            let Some(to) = place(map, info, from, reason, disks, &building) else {
                let (segment, copy, pool) = (info.key, *from, volume.pool.clone());
                plan.unplaced.push(Unplaced { segment, copy, pool, reason });
                continue;
            };
            let is_in_set = info.active.set.iter().any(|r| r.disk == from.disk);
            if drops
                || is_in_set
                || room == 0
                || reason == Reason::NoRoom && is_giving_back(map, &plan, from.disk)
            {
                continue;
            }
            room -= 1;
            disks.iter_mut().filter(|d| d.replica == to).for_each(|d| d.copies += 1);
            *building.entry(to.disk).or_default() += 1;
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
fn reason(map: &ClusterMap, segment: SegmentKey, copy: &ReplicaRef, given_up: &GivenUp) -> Option<Reason> {
    let node = map.nodes.get(&copy.node)?;
    let disk = map.disks.get(&copy.disk)?;
    match disk.state {
        // For good, whether its node answers or not.
        DiskState::Failed => Some(Reason::Failed),
        _ if !node.state.answers() => given_up.nodes.contains(&copy.node).then_some(Reason::Away),
        DiskState::Missing => Some(Reason::Missing),
        DiskState::Silent => given_up.disks.contains(&copy.disk).then_some(Reason::Silent),
        DiskState::Full if disk.free == 0 && given_up.copies.contains(&(segment, *copy)) => {
            Some(Reason::NoRoom)
        }
        DiskState::Ok | DiskState::Full => None,
    }
}

/// Whether the disk is about to have room: copies on it are to be freed, or will be by this plan.
fn is_giving_back(map: &ClusterMap, plan: &ReplacementPlan, disk: DiskId) -> bool {
    map.tombstones.values().flat_map(|t| &t.copies).any(|c| c.disk == disk)
        || plan.replacements.iter().any(|r| r.from.disk == disk)
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

/// How many copies that are in no S yet, and may still grow to a whole segment, each disk carries.
fn building(map: &ClusterMap) -> BTreeMap<DiskId, u64> {
    let mut building: BTreeMap<DiskId, u64> = BTreeMap::new();
    for info in map.segments.values() {
        for copy in info.members.iter().filter(|m| !info.active.set.contains(m)) {
            *building.entry(copy.disk).or_default() += 1;
        }
    }
    building
}

/// Where the copy goes: where a whole segment has room, or else, if it is lost anyway, on any disk that is not full.
fn place(
    map: &ClusterMap,
    info: &SegmentInfo,
    from: &ReplicaRef,
    reason: Reason,
    disks: &[Candidate],
    building: &BTreeMap<DiskId, u64>,
) -> Option<ReplicaRef> {
    let others: Vec<NodeId> = info.members.iter().filter(|m| *m != from).map(|m| m.node).collect();
    let unfreed = map.tombstones.get(&info.key);
    let holds = |disk: DiskId| unfreed.is_some_and(|t| t.copies.iter().any(|c| c.disk == disk));
    let any: Vec<Candidate> = disks.iter().filter(|d| !holds(d.replica.disk)).copied().collect();
    let takes_whole = |disk: DiskId| {
        let copies = building.get(&disk).copied().unwrap_or_default() + 1;
        map.disks.get(&disk).is_some_and(|d| d.surely_free() / SEGMENT_BYTES >= copies)
    };
    let roomy: Vec<Candidate> = any.iter().filter(|d| takes_whole(d.replica.disk)).copied().collect();
    let fallback = || replacement(&any, from, &others).filter(|_| reason != Reason::NoRoom);
    replacement(&roomy, from, &others).or_else(fallback)
}

/// Drops a copy of S whose disk is lost, or has begun anew.
fn drop_of_lost(map: &ClusterMap, info: &SegmentInfo, given_up: &GivenUp) -> Option<Single> {
    let is_lost = |copy: &&ReplicaRef| {
        let began_anew = map.disks.get(&copy.disk).is_none_or(|d| d.incarnation != copy.incarnation);
        let reason = || reason(map, info.key, copy, given_up);
        began_anew || matches!(reason(), Some(Reason::Failed | Reason::Missing | Reason::Silent))
    };
    info.active.set.iter().filter(is_lost).find_map(|copy| drop_from_set(map, info, copy))
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
