//! What an operator says is gone for good: a node with its disks, and what only lost copies may have had.

use super::{Changed, Outcome};
use crate::loss::{Left, cut, disown, left};
use crate::{ClusterMap, CommandError, DiskState, SingleResult};
use alloc::{collections::BTreeSet, sync::Arc, vec::Vec};
use holdfast_types::{NodeId, SegmentInfo, VolumeId};

pub(super) fn node(map: &mut ClusterMap, node: NodeId, accept_loss: bool) -> Outcome {
    let state = map.nodes.get(&node).ok_or(CommandError::NoSuchNode(node))?.state;
    if state.answers() {
        return Err(CommandError::NodeAnswers { node });
    }
    let (nobody, lost) = (BTreeSet::new(), BTreeSet::from([node]));
    let worse = |info: &&Arc<SegmentInfo>| {
        let without = left(map, info, &lost);
        without != Left::Enough && without != left(map, info, &nobody)
    };
    let segments = map.segments.values().filter(worse).count();
    if segments > 0 && !accept_loss {
        return Err(CommandError::WouldLose { node, segments });
    }
    let mut changed = Changed::No;
    for disk in map.disks.values_mut().filter(|d| d.node == node && d.state != DiskState::Failed) {
        disk.state = DiskState::Failed;
        changed = Changed::Yes;
    }
    Ok((SingleResult::Done, changed))
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
