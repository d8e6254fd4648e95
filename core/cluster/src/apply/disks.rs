//! Disks: added, opened, failed, missing, empty again, removed. A disk in a new incarnation stays a member of its
//! segments, as a copy to be resynced; it is in no S until a grant lists it (replication.md H5, H20, H21).

use super::nodes::{carried, forget_tombstones};
use super::{Changed, Outcome, check_limit, check_path};
use crate::{ClusterMap, CommandError, Disk, DiskState, MAX_DISKS, SingleResult};
use alloc::{string::String, sync::Arc};
use holdfast_types::{DiskId, DiskIncarnation, NodeId};

/// A disk that joins a pool.
pub(super) struct NewDisk {
    pub(super) disk: DiskId,
    pub(super) node: NodeId,
    pub(super) size: u64,
    pub(super) path: String,
    pub(super) pool: String,
    pub(super) boot_nonce: u64,
}

pub(super) fn add(map: &mut ClusterMap, new: NewDisk) -> Outcome {
    if let Some(have) = map.disks.get(&new.disk) {
        return match have.node == new.node {
            true => Ok((SingleResult::DiskIncarnation(have.incarnation), Changed::No)),
            false => Err(CommandError::DiskTaken { disk: new.disk, node: have.node }),
        };
    }
    check_path("path", &new.path)?;
    check_limit("disks", map.disks.len(), MAX_DISKS)?;
    if !map.nodes.contains_key(&new.node) {
        return Err(CommandError::NoSuchNode(new.node));
    }
    if !map.pools.contains_key(&new.pool) {
        return Err(CommandError::NoSuchName { what: "pool".into(), name: new.pool });
    }
    let incarnation = DiskIncarnation(1);
    let disk = Disk {
        id: new.disk,
        node: new.node,
        incarnation,
        state: DiskState::Ok,
        size: new.size,
        free: new.size,
        path: new.path,
        boot_nonce: new.boot_nonce,
        pool: new.pool,
        slow: false,
    };
    map.disks.insert(new.disk, disk);
    Ok((SingleResult::DiskIncarnation(incarnation), Changed::Yes))
}

pub(super) fn opened(map: &mut ClusterMap, disk: DiskId, expect_nonce: u64, new_nonce: u64) -> Outcome {
    let d = map.disks.get_mut(&disk).ok_or(CommandError::NoSuchDisk(disk))?;
    if d.boot_nonce == new_nonce {
        // A repeat. Whatever the first one decided is in the incarnation.
        return Ok((SingleResult::DiskIncarnation(d.incarnation), Changed::No));
    }
    // A failed disk does not come back by being opened (H21); an older copy not under its old name (H20).
    let as_it_was = d.boot_nonce == expect_nonce && d.state != DiskState::Failed;
    d.boot_nonce = new_nonce;
    if as_it_was {
        d.state = room_state(d);
    } else {
        start_anew(map, disk);
    }
    Ok((SingleResult::DiskIncarnation(map.disks[&disk].incarnation), Changed::Yes))
}

pub(super) fn new_incarnation(
    map: &mut ClusterMap,
    disk: DiskId,
    expect: DiskIncarnation,
    boot_nonce: u64,
) -> Outcome {
    let d = map.disks.get_mut(&disk).ok_or(CommandError::NoSuchDisk(disk))?;
    if d.incarnation != expect {
        let repeat = d.boot_nonce == boot_nonce && d.incarnation.0 == expect.0.wrapping_add(1);
        return match repeat {
            true => Ok((SingleResult::DiskIncarnation(d.incarnation), Changed::No)),
            false => Err(stale(d, expect)),
        };
    }
    d.boot_nonce = boot_nonce;
    start_anew(map, disk);
    Ok((SingleResult::DiskIncarnation(map.disks[&disk].incarnation), Changed::Yes))
}

pub(super) fn failed(map: &mut ClusterMap, disk: DiskId, incarnation: DiskIncarnation) -> Outcome {
    set_state(map, disk, incarnation, DiskState::Failed)
}

pub(super) fn missing(map: &mut ClusterMap, disk: DiskId, incarnation: DiskIncarnation) -> Outcome {
    set_state(map, disk, incarnation, DiskState::Missing)
}

pub(super) fn silent(
    map: &mut ClusterMap,
    disk: DiskId,
    incarnation: DiskIncarnation,
    silent: bool,
) -> Outcome {
    let d = map.disks.get(&disk).ok_or(CommandError::NoSuchDisk(disk))?;
    let state = match (d.state, silent) {
        (DiskState::Ok | DiskState::Full, true) => DiskState::Silent,
        (DiskState::Silent, false) => room_state(d),
        (other, _) => other,
    };
    set_state(map, disk, incarnation, state)
}

pub(super) fn slow(map: &mut ClusterMap, disk: DiskId, incarnation: DiskIncarnation, slow: bool) -> Outcome {
    let d = map.disks.get_mut(&disk).ok_or(CommandError::NoSuchDisk(disk))?;
    if d.incarnation != incarnation {
        return Err(stale(d, incarnation));
    }
    let changed = if d.slow == slow { Changed::No } else { Changed::Yes };
    d.slow = slow;
    Ok((SingleResult::Done, changed))
}

pub(super) fn free(map: &mut ClusterMap, disk: DiskId, size: u64, free: u64) -> Outcome {
    let d = map.disks.get_mut(&disk).ok_or(CommandError::NoSuchDisk(disk))?;
    let before = (d.size, d.free, d.state);
    d.size = size;
    d.free = free.min(size);
    if d.serves() {
        d.state = room_state(d);
    }
    let changed = if before == (d.size, d.free, d.state) { Changed::No } else { Changed::Yes };
    Ok((SingleResult::Done, changed))
}

/// One that is lost, or whose node is away, and that carries nothing any more. What is on it is nobody's: should it
/// be found again, it is a disk to be added.
pub(super) fn remove(map: &mut ClusterMap, disk: DiskId) -> Outcome {
    let d = map.disks.get(&disk).ok_or(CommandError::NoSuchDisk(disk))?;
    let lost = matches!(d.state, DiskState::Failed | DiskState::Missing);
    if !lost && map.nodes.get(&d.node).is_some_and(|n| n.state.answers()) {
        return Err(CommandError::DiskServes { disk });
    }
    match carried(map, |copy| copy.disk == disk) {
        0 => {}
        copies => return Err(CommandError::DiskInUse { disk, copies }),
    }
    map.disks.remove(&disk);
    forget_tombstones(map, |copy| copy.disk == disk);
    Ok((SingleResult::Done, Changed::Yes))
}

fn room_state(disk: &Disk) -> DiskState {
    if disk.is_nearly_full(disk.free) { DiskState::Full } else { DiskState::Ok }
}

fn stale(disk: &Disk, given: DiskIncarnation) -> CommandError {
    CommandError::StaleDisk { disk: disk.id, given: given.0, current: disk.incarnation.0 }
}

fn set_state(map: &mut ClusterMap, disk: DiskId, incarnation: DiskIncarnation, state: DiskState) -> Outcome {
    let d = map.disks.get_mut(&disk).ok_or(CommandError::NoSuchDisk(disk))?;
    if d.incarnation != incarnation {
        return Err(stale(d, incarnation));
    }
    // Failed is final for an incarnation.
    if d.state == state || d.state == DiskState::Failed {
        return Ok((SingleResult::Done, Changed::No));
    }
    d.state = state;
    Ok((SingleResult::Done, Changed::Yes))
}

/// The disk is in its next incarnation, empty: its copies are members again, in no S.
fn start_anew(map: &mut ClusterMap, disk: DiskId) {
    // The caller found the disk.
    let d = map.disks.get_mut(&disk).expect("the disk is in the map");
    d.incarnation.0 += 1;
    d.free = d.size;
    (d.state, d.slow) = (DiskState::Ok, false);
    let now = d.incarnation;
    for segment in map.segments.values_mut() {
        if segment.members.iter().any(|m| m.disk == disk) {
            let members = &mut Arc::make_mut(segment).members;
            members.iter_mut().filter(|m| m.disk == disk).for_each(|m| m.incarnation = now);
        }
    }
    // Nothing of a deleted segment is left on an empty disk.
    forget_tombstones(map, |copy| copy.disk == disk);
}
