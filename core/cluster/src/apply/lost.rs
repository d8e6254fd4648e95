//! What an operator says is gone for good: a node with its disks, a disk, and what only lost copies may have had.

use super::{Changed, Outcome};
use crate::loss::{Left, cut, disown, left};
use crate::{ClusterMap, CommandError, Disk, DiskState, SingleResult};
use alloc::{collections::BTreeSet, sync::Arc, vec::Vec};
use holdfast_types::{DiskId, NodeId, VolumeId};

pub(super) fn node(map: &mut ClusterMap, node: NodeId, accept_loss: bool) -> Outcome {
    let state = map.nodes.get(&node).ok_or(CommandError::NoSuchNode(node))?.state;
    if state.answers() {
        return Err(CommandError::NodeAnswers { node });
    }
    give_up(map, |disk| disk.node == node, accept_loss)
}

pub(super) fn disk(map: &mut ClusterMap, disk: DiskId, accept_loss: bool) -> Outcome {
    let d = map.disks.get(&disk).ok_or(CommandError::NoSuchDisk(disk))?;
    let serves = matches!(d.state, DiskState::Ok | DiskState::Full);
    if serves && map.nodes.get(&d.node).is_some_and(|n| n.state.answers()) {
        return Err(CommandError::DiskServes { disk });
    }
    give_up(map, |d| d.id == disk, accept_loss)
}

/// These disks have failed from now on, if that leaves enough of each S or it is accepted that it does not.
fn give_up(map: &mut ClusterMap, is_lost: impl Fn(&Disk) -> bool, accept_loss: bool) -> Outcome {
    let nobody = BTreeSet::new();
    let of_all = |map: &ClusterMap| map.segments.values().map(|info| left(map, info, &nobody)).collect();
    let before: Vec<Left> = of_all(map);
    let lost: Vec<(DiskId, DiskState)> =
        map.disks.values().filter(|d| is_lost(d)).map(|d| (d.id, d.state)).collect();
    let set = |map: &mut ClusterMap, disk: &DiskId, state: DiskState| {
        if let Some(disk) = map.disks.get_mut(disk) {
            disk.state = state;
        }
    };
    lost.iter().for_each(|(disk, _)| set(map, disk, DiskState::Failed));
    let after: Vec<Left> = of_all(map);
    let segments = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    if segments > 0 && !accept_loss {
        lost.iter().for_each(|(disk, state)| set(map, disk, *state));
        return Err(CommandError::WouldLose { segments });
    }
    let changed = lost.iter().any(|(_, state)| *state != DiskState::Failed);
    Ok((SingleResult::Done, if changed { Changed::Yes } else { Changed::No }))
}

pub(super) fn salvage(map: &mut ClusterMap, volume: VolumeId) -> Outcome {
    let name = map.volumes.get(&volume).ok_or(CommandError::NoSuchVolume(volume))?.name.clone();
    let nobody = BTreeSet::new();
    let states: Vec<_> =
        map.segments_of(volume).map(|info| (info.key.segment, left(map, info, &nobody))).collect();
    let of = |which: Left| states.iter().filter(move |(_, left)| *left == which).map(|(id, _)| *id);
    if of(Left::TooFew).count() == 0 {
        return Err(CommandError::NothingToSalvage { name, gone: of(Left::None).count() });
    }
    for id in of(Left::TooFew) {
        cut(map, id, &nobody);
        if let Some(info) = map.segments.get_mut(&id) {
            disown(Arc::make_mut(info), 1);
        }
    }
    Ok((SingleResult::Done, Changed::Yes))
}
