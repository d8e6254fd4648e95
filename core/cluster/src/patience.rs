//! What control's leader has waited for long enough: nodes that stay away, disks that stay silent, and copies that cannot
//! be built because their disk is full. The map has no clock: every node counts, leading or not, and whoever leads goes by
//! what it saw itself. A daemon that starts gives everybody a full term.
//!
//! A copy waits for room while it is in no S and on a disk that takes no new segments. It is given up when that
//! lasted, and no copy of its disk got into S meanwhile: a host that is back with a full disk and many copies is not
//! to lose those that are merely at the end of the queue.

use crate::{ClusterMap, DiskState};
use alloc::collections::{BTreeMap, BTreeSet};
use holdfast_types::{DiskId, Duration, NodeId, ReplicaRef, SegmentInfo, SegmentKey, Time};

/// A copy, and of which segment.
pub type CopyOf = (SegmentKey, ReplicaRef);

/// What is not waited for any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// Nodes that do not answer.
    pub nodes: BTreeSet<NodeId>,
    /// Disks that do not, of nodes that do.
    pub disks: BTreeSet<DiskId>,
    /// Copies in no S, on disks that are full.
    pub copies: BTreeSet<CopyOf>,
}

impl GivenUp {
    /// These nodes, every disk that is silent and every copy that waits for room now: what there will be no place for, if
    /// nothing changes.
    pub fn at_once(map: &ClusterMap, nodes: BTreeSet<NodeId>) -> Self {
        Self { nodes, disks: silent_disks(map).collect(), copies: waiting_for_room(map) }
    }
}

/// Since when is waited for what.
#[derive(Clone, Debug, Default)]
pub struct Patience {
    nodes: BTreeMap<NodeId, Time>,
    disks: BTreeMap<DiskId, Time>,
    copies: BTreeMap<CopyOf, Time>,
}

impl Patience {
    /// Takes note of a map. To be called for each that comes.
    pub fn look(&mut self, now: Time, map: &ClusterMap) {
        let away = map.nodes.values().filter(|n| n.incarnation.0 > 0 && !n.state.answers());
        let nodes = away.map(|n| (n.id, self.nodes.get(&n.id).copied().unwrap_or(now))).collect();
        let disks = silent_disks(map).map(|d| (d, self.disks.get(&d).copied().unwrap_or(now))).collect();
        let got_there = |(key, copy): &&CopyOf| {
            map.segments.get(&key.segment).is_some_and(|info| info.key == *key && in_some_set(info, copy))
        };
        let moving: BTreeSet<DiskId> = self.copies.keys().filter(got_there).map(|(_, c)| c.disk).collect();
        let since = |of: &CopyOf| self.copies.get(of).filter(|_| !moving.contains(&of.1.disk));
        let copies =
            waiting_for_room(map).into_iter().map(|of| (of, since(&of).copied().unwrap_or(now))).collect();
        (self.nodes, self.disks, self.copies) = (nodes, disks, copies);
    }

    /// What was waited for that long.
    pub fn given_up(&self, now: Time, after: Duration) -> GivenUp {
        let late = |since: &Time| now.since(*since) >= after;
        GivenUp {
            nodes: self.nodes.iter().filter(|(_, since)| late(since)).map(|(node, _)| *node).collect(),
            disks: self.disks.iter().filter(|(_, since)| late(since)).map(|(disk, _)| *disk).collect(),
            copies: self.copies.iter().filter(|(_, since)| late(since)).map(|(copy, _)| *copy).collect(),
        }
    }
}

fn silent_disks(map: &ClusterMap) -> impl Iterator<Item = DiskId> {
    map.disks.values().filter(|d| d.state == DiskState::Silent).map(|d| d.id)
}

/// Copies in no S that can be reached, on disks that take no new segments.
fn waiting_for_room(map: &ClusterMap) -> BTreeSet<CopyOf> {
    let is_full = |disk: &DiskId| map.disks.get(disk).is_some_and(|d| d.state == DiskState::Full);
    if map.disks.values().all(|d| d.state != DiskState::Full) {
        return BTreeSet::new();
    }
    let waits =
        |info: &SegmentInfo, m: &ReplicaRef| is_full(&m.disk) && map.reachable(m) && !in_some_set(info, m);
    let of = |info: &SegmentInfo| {
        let waiting = info.members.iter().filter(|m| waits(info, m));
        waiting.map(|m| (info.key, *m)).collect::<alloc::vec::Vec<_>>()
    };
    map.segments.values().flat_map(|info| of(info)).collect()
}

/// Whether the copy counts, or does once what is granted is activated.
fn in_some_set(info: &SegmentInfo, copy: &ReplicaRef) -> bool {
    info.active.set.iter().chain(&info.granted.set).any(|r| r.disk == copy.disk)
}
