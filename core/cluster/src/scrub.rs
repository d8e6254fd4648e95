//! When each segment is due to be scrubbed: at its own second of the period, which follows from its name. Nobody has to
//! remember when it was scrubbed last, the work is spread over the period, and a segment that changed its owner is due
//! at the same second there.

use crate::mix::mix;
use crate::{ClusterMap, UnixSeconds};
use alloc::vec::Vec;
use holdfast_types::{NodeId, SegmentId, SegmentKey};

/// The segments that the node owns and that became due after `after`, until `until`, in the order in which they did.
/// Each is due once in `every` seconds.
pub fn due_for_scrub(
    map: &ClusterMap,
    node: NodeId,
    after: UnixSeconds,
    until: UnixSeconds,
    every: u64,
) -> Vec<(UnixSeconds, SegmentKey)> {
    if every == 0 {
        return Vec::new();
    }
    let owned = map
        .segments
        .values()
        .filter(|info| info.granted.owner == node && info.active.epoch == info.granted.epoch);
    // Segments that follow each other are due far from each other.
    let slot = |id: SegmentId| mix(u64::from(id.index), id.volume.0) % every;
    let at = |id: SegmentId| {
        let first = after.0.saturating_add(1);
        UnixSeconds(first + (slot(id) + every - first % every) % every)
    };
    let mut due: Vec<_> = owned.map(|info| (at(info.key.segment), info.key)).collect();
    due.retain(|(at, _)| *at <= until);
    due.sort_unstable();
    due
}
