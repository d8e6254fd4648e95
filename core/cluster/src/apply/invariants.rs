//! What holds of every map, whatever was proposed. Checked after each command in debug builds and by the
//! property tests; a release build trusts the checks of the handlers.

use crate::{ClusterMap, DiskState};
use holdfast_types::{ReplicaRef, SegmentInfo};

/// Panics when an invariant does not hold.
pub(crate) fn check(map: &ClusterMap) {
    for (id, info) in &map.segments {
        assert_eq!(*id, info.key.segment, "a segment is listed under its id");
        let volume = map.volumes.get(&id.volume);
        let volume = volume.unwrap_or_else(|| panic!("segment {id} belongs to a volume"));
        assert!(info.members.len() <= usize::from(volume.copies), "no more members than copies");
        check_segment(map, info);
    }
    for (key, tombstone) in &map.tombstones {
        assert!(!tombstone.copies.is_empty(), "a tombstone names copies to free");
        let live = map.segments.get(&key.segment).filter(|s| s.key == *key);
        let members = live.iter().flat_map(|s| &s.members);
        for member in members {
            let freed = tombstone.copies.iter().any(|c| c.disk == member.disk);
            assert!(!freed, "what is to be freed is no member");
        }
    }
    for disk in map.disks.values() {
        assert!(map.nodes.contains_key(&disk.node), "a disk belongs to a node");
        assert!(disk.state == DiskState::Failed || disk.incarnation.0 > 0, "incarnations count from one");
    }
    for node in map.nodes.values() {
        assert!(node.incarnation.0 <= node.runs, "no run that was not given out");
        assert!(node.id.0 < map.next_node, "numbers are never reused");
    }
}

fn check_segment(map: &ClusterMap, info: &SegmentInfo) {
    let id = info.key.segment;
    assert!(info.active.epoch <= info.granted.epoch, "{id}: active never overtakes granted");
    assert!(info.active.tail.epoch <= info.active.epoch, "{id}: the tail is of the active epoch or before");
    if info.active.epoch == info.granted.epoch {
        // I11: S changes only with the epoch.
        assert_eq!(info.active.set, info.granted.set, "{id}: one epoch has one S");
    }
    let owner_in_set = info.granted.set.iter().any(|r| r.node == info.granted.owner);
    assert!(owner_in_set, "{id}: the owner has a copy in its S");
    check_set(info, &info.active.set);
    check_set(info, &info.granted.set);
    for member in &info.members {
        let disk = map.disks.get(&member.disk);
        let current = disk.is_some_and(|d| d.node == member.node && d.incarnation == member.incarnation);
        assert!(current, "{id}: members are named by their disk's current incarnation");
        let alone =
            info.members.iter().filter(|o| o.node == member.node || o.disk == member.disk).count() == 1;
        assert!(alone, "{id}: no two members share a node");
    }
}

fn check_set(info: &SegmentInfo, set: &[ReplicaRef]) {
    let id = info.key.segment;
    assert!(!set.is_empty(), "{id}: S is never empty");
    for copy in set {
        let twice = set.iter().filter(|o| o.node == copy.node || o.disk == copy.disk).count();
        assert_eq!(twice, 1, "{id}: no node and no disk is in S twice");
        // I13: S is a part of the members; a copy in an older incarnation of its disk is lost and counts as
        // absent wherever S is used.
        let member = info.members.iter().find(|m| m.disk == copy.disk);
        assert!(
            member.is_some_and(|m| m.incarnation >= copy.incarnation),
            "{id}: S is a part of the members"
        );
    }
}
