//! What control hears of the disks, as the daemon tells it: whether they answer, and how much room they have. And which
//! copies can have none at the end of a run. That is judged by the disks themselves and not by what control believes of them.

use crate::disk::node_of;
use crate::world::World;
use holdfast_cluster::{Command, DiskState};
use holdfast_engine::route::disks::Phase;
use holdfast_store::Usage;
use holdfast_types::{DiskId, Duration, NodeId, ReplicaRef, SEGMENT_BYTES, SegmentInfo, SegmentKey};
use std::sync::Arc;

/// Extents of a small disk. The cells lie in more; a segment never holds more, since each copy of S has room for all.
const SMALL_DISK_EXTENTS: u32 = 4;
/// What an extent counts for at control: a small disk that is empty has room for one whole segment and no more, also
/// when what control heard last is a little off.
pub(crate) const CLAIMED_EXTENT_BYTES: u64 = SEGMENT_BYTES / 3;
/// Between reports of a disk's room.
const TELL_EVERY: Duration = Duration::from_secs(1);

impl World {
    /// How many extents a node's disk has if disks are small. Of five nodes, which are more than a segment has copies, one
    /// has room for two segments in every other run: there is where a copy can go that has no room.
    pub(crate) fn extents_of_small_disk(&self, node: u16) -> Option<u32> {
        let roomy = node == 5 && !self.options.seed.is_multiple_of(2);
        let extents = if roomy { 2 * SMALL_DISK_EXTENTS } else { SMALL_DISK_EXTENTS };
        self.options.small_disks.then_some(extents)
    }

    /// The disks whose nodes reach control tell how much room they have, if that is news.
    pub(crate) fn tell_room(&mut self, answers: &[NodeId]) {
        let now = self.queue.now();
        if now.since(self.control.room_told) < TELL_EVERY {
            return;
        }
        self.control.room_told = now;
        let disks: Vec<DiskId> = answers.iter().flat_map(|n| self.nodes[n].disks.keys()).copied().collect();
        for disk in disks {
            let Some((incarnation, usage)) = self.usage(disk) else { continue };
            let known =
                |w: &World| w.map().disks.get(&disk).filter(|d| d.incarnation == incarnation).cloned();
            let silent = usage.is_silent;
            if known(self).is_some_and(|d| silent != (d.state == DiskState::Silent)) {
                let result = self.control.apply(Command::DiskSilent { disk, incarnation, silent });
                self.note(|| format!("control: disk {disk} is silent: {silent} -> {result:?}"));
            }
            let slow = usage.is_slow;
            if known(self).is_some_and(|d| slow != d.slow) {
                let result = self.control.apply(Command::DiskSlow { disk, incarnation, slow });
                self.note(|| format!("control: disk {disk} is slow: {slow} -> {result:?}"));
            }
            let free = usage.extents_for_new_data * CLAIMED_EXTENT_BYTES;
            let Some(size) = known(self).filter(|d| d.serves() && d.is_news(free)).map(|d| d.size) else {
                continue;
            };
            let result = self.control.apply(Command::DiskFree { disk, size, free });
            self.note(|| format!("control: disk {disk} has {free} bytes left -> {result:?}"));
        }
    }

    /// How full an open disk is.
    fn usage(&self, disk: DiskId) -> Option<(holdfast_types::DiskIncarnation, Usage)> {
        let process = self.nodes[&node_of(disk)].process.as_ref()?;
        process.engine.disk_usage().into_iter().find_map(|(id, phase, usage)| match phase {
            Phase::Opened { incarnation, .. } if id == disk => Some((incarnation, usage)),
            _ => None,
        })
    }

    /// Whether every segment is active with all its copies in S, none of them lost for ever, but for those that no
    /// disk has room for.
    pub fn all_that_can_be_in_set(&self) -> bool {
        let settled = |s: &SegmentInfo| {
            let is_settled = |m: &ReplicaRef| match s.active.set.contains(m) {
                true => !self.lost_copies(m.disk),
                false => self.has_no_room_anywhere(s, m),
            };
            s.active.epoch == s.granted.epoch && s.members.iter().all(is_settled)
        };
        self.control.map.segments.values().all(|s| settled(s))
    }

    /// How many copies have room nowhere.
    pub fn without_room(&self) -> usize {
        let lacks = |s: &Arc<SegmentInfo>| {
            s.members.iter().filter(|m| !s.active.set.contains(m) && self.has_no_room_anywhere(s, m)).count()
        };
        self.control.map.segments.values().map(lacks).sum()
    }

    /// Whether the copy's disk is lost or lacks room for what the segment holds, and no disk that may take the copy instead has
    /// room for a whole segment.
    fn has_no_room_anywhere(&self, info: &SegmentInfo, copy: &ReplicaRef) -> bool {
        let spare = |disk: DiskId| self.usage(disk).map(|(_, usage)| usage.extents_for_new_data);
        let is_lost = self.lost_copies(copy.disk);
        let own_spare = match spare(copy.disk) {
            Some(spare) => spare,
            None if is_lost => 0,
            None => return false,
        };
        let held = info.active.set.iter().map(|r| self.extents_of(info.key, r)).max().unwrap_or_default();
        let fits = !is_lost && held <= self.extents_of(info.key, copy) + own_spare;
        let takes_whole = |disk: &DiskId| {
            *disk != copy.disk
                && info.members.iter().all(|m| m == copy || m.node != node_of(*disk))
                && !self.lost_copies(*disk)
                && spare(*disk).is_none_or(|spare| spare >= u64::from(SMALL_DISK_EXTENTS))
        };
        !fits && !self.nodes.values().flat_map(|n| n.disks.keys()).any(takes_whole)
    }

    /// How many extents a copy has on its disk.
    fn extents_of(&self, segment: SegmentKey, copy: &ReplicaRef) -> u64 {
        let process = self.nodes[&copy.node].process.as_ref();
        process.map_or(0, |p| p.engine.extents_of(segment, copy.disk))
    }
}
