//! What an operator says is gone for good: a node with its disks, a disk, and what only lost copies may have had.

use super::{Changed, Outcome};
use crate::loss::{Left, NOTHING, cut, disown, left};
use crate::{ClusterMap, CommandError, DiskState, SingleResult};
use alloc::{collections::BTreeSet, sync::Arc};
use holdfast_types::{DiskId, NodeId, SegmentInfo, VolumeId};

pub(super) fn node(map: &mut ClusterMap, node: NodeId, accept_loss: bool) -> Outcome {
    let state = map.nodes.get(&node).ok_or(CommandError::NoSuchNode(node))?.state;
    if state.answers() {
        return Err(CommandError::NodeAnswers { node });
    }
    let disks = map.disks_of(node).map(|d| d.id).collect();
    give_up(map, &disks, accept_loss)
}

pub(super) fn disk(map: &mut ClusterMap, disk: DiskId, accept_loss: bool) -> Outcome {
    let d = map.disks.get(&disk).ok_or(CommandError::NoSuchDisk(disk))?;
    if d.serves() && !d.slow && map.nodes.get(&d.node).is_some_and(|n| n.state.answers()) {
        return Err(CommandError::DiskServes { disk });
    }
    give_up(map, &BTreeSet::from([disk]), accept_loss)
}

/// These disks have failed from now on, if that leaves enough of each S or it is accepted that it does not.
fn give_up(map: &mut ClusterMap, lost: &BTreeSet<DiskId>, accept_loss: bool) -> Outcome {
    let left = |info: &SegmentInfo, lost| left(&map.disks, &info.active.set, lost);
    let loses = |info: &&Arc<SegmentInfo>| left(info, lost) != left(info, &NOTHING);
    let segments = map.segments.values().filter(loses).count();
    if segments > 0 && !accept_loss {
        return Err(CommandError::WouldLose { segments });
    }
    let mut changed = Changed::No;
    for disk in map.disks.values_mut().filter(|d| lost.contains(&d.id) && d.state != DiskState::Failed) {
        disk.state = DiskState::Failed;
        changed = Changed::Yes;
    }
    Ok((SingleResult::Done, changed))
}

pub(super) fn salvage(map: &mut ClusterMap, volume: VolumeId) -> Outcome {
    let name = map.volumes.get(&volume).ok_or(CommandError::NoSuchVolume(volume))?.name.clone();
    let (mut changed, mut gone) = (Changed::No, 0);
    for info in map.segments.values_mut().filter(|info| info.key.segment.volume == volume) {
        match left(&map.disks, &info.active.set, &NOTHING) {
            Left::Enough => {}
            Left::None => gone += 1,
            Left::TooFew => {
                let info = Arc::make_mut(info);
                cut(&map.disks, info);
                disown(info, 1);
                changed = Changed::Yes;
            }
        }
    }
    match changed {
        Changed::No => Err(CommandError::NothingToSalvage { name, gone }),
        Changed::Yes => Ok((SingleResult::Done, changed)),
    }
}
