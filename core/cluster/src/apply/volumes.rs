//! Pools and volumes: created, grown, deleted. Copies are placed here, by the map as it is when the command is
//! applied, so that every node places them alike.

use super::{Changed, Outcome, check_limit, check_name};
use crate::mix::mix;
use crate::{
    ClusterMap, CommandError, MAX_COPIES, MAX_POOLS, MAX_VOLUME_BYTES, OVERCOMMIT, Pool, SingleResult,
    Tombstone, UnixSeconds, Volume, candidates::candidates,
};
use alloc::{string::String, sync::Arc, vec::Vec};
use holdfast_placement::{Placement, place_segments};
use holdfast_types::{
    ActiveConfig, BLOCK_BYTES, ClusterId, DiskId, Epoch, Grant, LogPosition, SEGMENT_BYTES, SegmentId,
    SegmentIncarnation, SegmentInfo, SegmentKey, VolumeId,
};

/// A volume to be created.
pub(super) struct NewVolume {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) copies: u8,
    pub(super) pool: String,
    pub(super) created: UnixSeconds,
}

pub(super) fn create_pool(map: &mut ClusterMap, name: String) -> Outcome {
    check_name("pool", &name)?;
    if map.pools.contains_key(&name) {
        return Err(CommandError::NameTaken { what: "pool".into(), name });
    }
    check_limit("pools", map.pools.len(), MAX_POOLS)?;
    map.pools.insert(name.clone(), Pool { name });
    Ok((SingleResult::Done, Changed::Yes))
}

pub(super) fn create(map: &mut ClusterMap, new: NewVolume) -> Outcome {
    check_name("volume", &new.name)?;
    check_size(new.size)?;
    if new.copies == 0 || new.copies > MAX_COPIES {
        return Err(CommandError::BadCopies { copies: new.copies, max: MAX_COPIES });
    }
    if map.volume_named(&new.name).is_some() {
        return Err(CommandError::NameTaken { what: "volume".into(), name: new.name });
    }
    if !map.pools.contains_key(&new.pool) {
        return Err(CommandError::NoSuchName { what: "pool".into(), name: new.pool });
    }
    let id = VolumeId(map.next_volume);
    let plan = plan_segments(map, &new.pool, new.copies, segment_count(new.size))?;
    check_room(map, &new.pool, new.copies, new.size, None)?;
    map.next_volume += 1;
    let unique_id = unique_id(map.cluster, id);
    add_segments(map, id, new.copies, 0, plan);
    let NewVolume { name, size, copies, pool, created } = new;
    map.volumes.insert(id, Volume { id, name, size, pool, copies, unique_id, created });
    Ok((SingleResult::Volume(id), Changed::Yes))
}

pub(super) fn resize(map: &mut ClusterMap, volume: VolumeId, size: u64) -> Outcome {
    let v = map.volumes.get(&volume).ok_or(CommandError::NoSuchVolume(volume))?;
    check_size(size)?;
    if size < v.size {
        return Err(CommandError::CannotShrink { name: v.name.clone(), current: v.size, asked: size });
    }
    if size == v.size {
        return Ok((SingleResult::Done, Changed::No));
    }
    let have = segment_count(v.size);
    let copies = v.copies;
    let plan = plan_segments(map, &v.pool, copies, segment_count(size) - have)?;
    check_room(map, &v.pool, copies, size, Some(volume))?;
    add_segments(map, volume, copies, have, plan);
    if let Some(v) = map.volumes.get_mut(&volume) {
        v.size = size;
    }
    Ok((SingleResult::Done, Changed::Yes))
}

pub(super) fn delete(map: &mut ClusterMap, volume: VolumeId) -> Outcome {
    if map.volumes.remove(&volume).is_none() {
        return Err(CommandError::NoSuchVolume(volume));
    }
    let segments: Vec<Arc<SegmentInfo>> = map.segments_of(volume).cloned().collect();
    for info in segments {
        map.segments.remove(&info.key.segment);
        // Every disk that may hold something of it, by its current name: a copy that is in S only, in an
        // earlier incarnation of its disk, went with that.
        let copies = &info.members;
        if !copies.is_empty() {
            // Copies that were replaced may wait to be freed already.
            let tombstone =
                map.tombstones.entry(info.key).or_insert_with(|| Tombstone { copies: Vec::new() });
            tombstone.copies.extend(copies);
        }
    }
    map.sessions.retain(|key, _| key.volume != volume);
    Ok((SingleResult::Done, Changed::Yes))
}

pub(super) fn segment_freed(map: &mut ClusterMap, segment: SegmentKey, disk: DiskId) -> Outcome {
    let Some(tombstone) = map.tombstones.get_mut(&segment) else {
        // Segment ids are never reused: what has no tombstone and no segment was freed everywhere, and so was a copy
        // that is not a member any more.
        let member = |s: &Arc<SegmentInfo>| s.key != segment || s.members.iter().any(|m| m.disk == disk);
        return match map.segments.get(&segment.segment).is_some_and(member) {
            true => Err(CommandError::NoSuchTombstone(segment)),
            false => Ok((SingleResult::Done, Changed::No)),
        };
    };
    let before = tombstone.copies.len();
    tombstone.copies.retain(|c| c.disk != disk);
    let changed = if tombstone.copies.len() == before { Changed::No } else { Changed::Yes };
    if tombstone.copies.is_empty() {
        map.tombstones.remove(&segment);
    }
    Ok((SingleResult::Done, changed))
}

fn check_size(size: u64) -> Result<(), CommandError> {
    let block = BLOCK_BYTES as u64;
    if size == 0 || !size.is_multiple_of(block) || size > MAX_VOLUME_BYTES {
        return Err(CommandError::BadSize { size, block, max: MAX_VOLUME_BYTES });
    }
    Ok(())
}

fn segment_count(size: u64) -> u32 {
    // MAX_VOLUME_BYTES keeps this far below u32::MAX.
    size.div_ceil(SEGMENT_BYTES) as u32
}

/// With fewer copies in S than this, writes wait: 2 of 3, 1 of 2, 1 of 1 (replication.md H22).
const fn min_copies(copies: u8) -> u8 {
    copies.div_ceil(2)
}

/// Volumes are thin, so a pool may promise more than it has, but not without a bound.
fn check_room(
    map: &ClusterMap,
    pool: &str,
    copies: u8,
    size: u64,
    instead_of: Option<VolumeId>,
) -> Result<(), CommandError> {
    let raw: u64 = map.disks.values().filter(|d| d.pool == pool).map(|d| d.size).fold(0, u64::saturating_add);
    let others = map.volumes.values().filter(|v| v.pool == pool && Some(v.id) != instead_of);
    // In bytes of disk, copies counted: volumes of one pool may differ in copies.
    let used_raw: u128 = others.map(|v| u128::from(v.size) * u128::from(v.copies)).sum();
    let asked_raw = u128::from(size) * u128::from(copies);
    let limit_raw = u128::from(raw) * u128::from(OVERCOMMIT);
    if used_raw + asked_raw <= limit_raw {
        return Ok(());
    }
    let per_copy = |raw: u128| u64::try_from(raw / u128::from(copies)).unwrap_or(u64::MAX);
    Err(CommandError::PoolTooSmall {
        pool: pool.into(),
        asked: size,
        used: per_copy(used_raw),
        limit: per_copy(limit_raw),
        raw,
        copies,
        overcommit: OVERCOMMIT,
    })
}

fn plan_segments(
    map: &ClusterMap,
    pool: &str,
    copies: u8,
    count: u32,
) -> Result<Vec<Placement>, CommandError> {
    let owned = map.owned_by_node();
    let candidates = candidates(map, pool);
    place_segments(&candidates, &owned, usize::from(copies), count).map_err(|e| {
        CommandError::NotEnoughDisks {
            pool: pool.into(),
            copies,
            need: e.need,
            have: e.have,
            up: e.up,
            need_up: e.need_up,
        }
    })
}

fn add_segments(map: &mut ClusterMap, volume: VolumeId, copies: u8, first: u32, plan: Vec<Placement>) {
    for (index, members) in (first..).zip(plan) {
        let segment = SegmentId { volume, index };
        let owner = members[0].node;
        // Copies are placed on nodes of the map only.
        let owner_incarnation = map.nodes[&owner].incarnation;
        let info = SegmentInfo {
            key: SegmentKey { segment, incarnation: SegmentIncarnation(1) },
            active: ActiveConfig { epoch: Epoch(0), set: members.clone(), tail: LogPosition::ZERO },
            granted: Grant { epoch: Epoch(1), owner, owner_incarnation, set: members.clone() },
            members,
            min_copies: min_copies(copies),
        };
        map.segments.insert(segment, Arc::new(info));
    }
}

/// Of cluster and volume: initiators tell volumes of two clusters apart by it.
fn unique_id(cluster: ClusterId, volume: VolumeId) -> u64 {
    mix((cluster.0 >> 64) as u64 ^ cluster.0 as u64, volume.0)
}
