//! What is new in a map. A cluster has tens of thousands of segments, and when a host fails or comes back control changes them a few
//! hundred at a time: with each map only what changed is acted upon, and everything only where that depends on more than the
//! segments themselves.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::iter;
use holdfast_cluster::{ClusterMap, Disk};
use holdfast_types::{NodeId, ReplicaRef, SegmentInfo, SegmentKey};

/// What of a map is to be acted upon.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    /// All there is: copies that are not listed in it are ended.
    pub(crate) is_everything: bool,
    pub(crate) infos: Vec<Arc<SegmentInfo>>,
    /// Segments that do not exist any more in that incarnation.
    pub(crate) gone: Vec<SegmentKey>,
    /// Segments of which copies on this node are to be freed.
    pub(crate) freed: Vec<SegmentKey>,
}

impl Changed {
    pub(crate) fn everything(map: &ClusterMap, gone: Vec<SegmentKey>) -> Self {
        let infos = map.segments.values().cloned().collect();
        Self { is_everything: true, infos, gone, freed: map.tombstones.keys().copied().collect() }
    }

    /// What is in `map` and was not in `before`.
    pub(crate) fn since(before: &ClusterMap, map: &ClusterMap, node: NodeId) -> Self {
        let mut changed = Changed::default();
        let mut old = before.segments.iter().peekable();
        for (id, info) in &map.segments {
            changed.gone.extend(iter::from_fn(|| old.next_if(|(o, _)| *o < id)).map(|(_, was)| was.key));
            match old.next_if(|(o, _)| *o == id) {
                Some((_, was)) if Arc::ptr_eq(was, info) || was == info => continue,
                Some((_, was)) if was.key != info.key => changed.gone.push(was.key),
                _ => {}
            }
            changed.infos.push(info.clone());
        }
        changed.gone.extend(old.map(|(_, was)| was.key));
        let mut old = before.tombstones.iter().peekable();
        for (key, tombstone) in &map.tombstones {
            while old.next_if(|(o, _)| *o < key).is_some() {}
            let was = old.next_if(|(o, _)| *o == key).map(|(_, was)| was);
            let is_new = |copy: &ReplicaRef| was.is_none_or(|was| !was.copies.contains(copy));
            if tombstone.copies.iter().any(|copy| copy.node == node && is_new(copy)) {
                changed.freed.push(*key);
            }
        }
        // Whether a copy of this node's counts, and where requests may go, is told by these.
        let of_disk = |d: &Disk| (d.id, d.incarnation, d.boot_nonce, d.state);
        let disks = |map: &ClusterMap| map.disks_of(node).map(of_disk).collect::<Vec<_>>();
        match before.nodes == map.nodes && disks(before) == disks(map) {
            true => changed,
            false => Self::everything(map, changed.gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use holdfast_cluster::{DiskState, Node, NodeState, Tombstone};
    use holdfast_types::{
        DiskId, DiskIncarnation, Epoch, KeyHash, ProcessIncarnation, SegmentId, SegmentIncarnation, VolumeId,
    };

    const ME: NodeId = NodeId(1);

    fn key(index: u32, incarnation: u32) -> SegmentKey {
        let segment = SegmentId { volume: VolumeId(1), index };
        SegmentKey { segment, incarnation: SegmentIncarnation(incarnation) }
    }

    fn put(map: &mut ClusterMap, index: u32, incarnation: u32, epoch: u64) {
        let key = key(index, incarnation);
        let mut info = SegmentInfo { key, ..SegmentInfo::default() };
        info.granted.epoch = Epoch(epoch);
        map.segments.insert(key.segment, Arc::new(info));
    }

    fn disk(node: NodeId, free: u64) -> Disk {
        Disk {
            id: DiskId(u128::from(node.0)),
            node,
            incarnation: DiskIncarnation(1),
            state: DiskState::Ok,
            size: 100,
            free,
            path: "/d".into(),
            boot_nonce: 1,
            pool: "default".into(),
            slow: false,
        }
    }

    fn map() -> ClusterMap {
        let mut map = ClusterMap::default();
        (0..5).for_each(|index| put(&mut map, index, 1, 1));
        for node in [ME, NodeId(2)] {
            map.disks.insert(DiskId(u128::from(node.0)), disk(node, 50));
        }
        map
    }

    fn changed(before: &ClusterMap, after: &ClusterMap) -> (Vec<u32>, Vec<SegmentKey>, Vec<SegmentKey>) {
        let changed = Changed::since(before, after, ME);
        assert!(!changed.is_everything);
        let infos = changed.infos.iter().map(|info| info.key.segment.index).collect();
        (infos, changed.gone, changed.freed)
    }

    #[test]
    fn only_segments_that_are_new_or_differ_are_listed_and_those_that_are_gone() {
        let before = map();
        let mut after = before.clone();
        assert_eq!(changed(&before, &after), (vec![], vec![], vec![]));
        put(&mut after, 1, 1, 2);
        put(&mut after, 2, 1, 1);
        put(&mut after, 3, 2, 1);
        put(&mut after, 7, 1, 1);
        after.segments.remove(&key(0, 1).segment);
        after.segments.remove(&key(4, 1).segment);
        let copy =
            |node| ReplicaRef { node, disk: DiskId(u128::from(node.0)), incarnation: DiskIncarnation(1) };
        let of = |nodes: &[NodeId]| Tombstone { copies: nodes.iter().copied().map(copy).collect() };
        after.tombstones.insert(key(0, 1), of(&[ME, NodeId(2)]));
        after.tombstones.insert(key(4, 1), of(&[NodeId(2)]));
        let gone = vec![key(0, 1), key(3, 1), key(4, 1)];
        assert_eq!(changed(&before, &after), (vec![1, 3, 7], gone, vec![key(0, 1)]));
        // What was to be freed already is not said again, also when others have freed theirs.
        let mut later = after.clone();
        later.tombstones.insert(key(0, 1), of(&[ME]));
        assert_eq!(changed(&after, &later), (vec![], vec![], vec![]));
    }

    #[test]
    fn everything_is_looked_at_when_a_node_or_an_own_disk_changes() {
        let before = map();
        let everything = |change: &dyn Fn(&mut ClusterMap)| {
            let mut after = before.clone();
            change(&mut after);
            let changed = Changed::since(&before, &after, ME);
            assert_eq!(changed.infos.len(), if changed.is_everything { 5 } else { 0 });
            changed.is_everything
        };
        let set = |of: NodeId, change: &dyn Fn(&mut Disk)| {
            everything(&|map| map.disks.values_mut().filter(|d| d.node == of).for_each(change))
        };
        assert!(set(ME, &|d| d.state = DiskState::Failed) && set(ME, &|d| d.boot_nonce = 2));
        assert!(!set(ME, &|d| d.free = 49) && !set(NodeId(2), &|d| d.state = DiskState::Failed));
        let node = Node {
            id: NodeId(3),
            name: "n".into(),
            address: "127.0.0.3".into(),
            incarnation: ProcessIncarnation(1),
            state: NodeState::Up,
            boot_nonce: 1,
            runs: 1,
            key: KeyHash([0; 32]),
        };
        assert!(everything(&|map| drop(map.nodes.insert(node.id, node.clone()))));
    }
}
