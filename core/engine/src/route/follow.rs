//! Ownership follows the I/O: a segment whose requests come nearly all through another node, which holds a
//! copy of it, is given to that node, so that its reads are local and its writes save a round trip.
//!
//! A pure measure: requests are counted by node in windows of a second; a move is proposed after two windows in
//! a row with the same answer, and not again for a while, so that machines that share a volume do not make it
//! wander.

use crate::Engine;
use crate::io::Outputs;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use holdfast_types::{Duration, GrantReason, NodeId, SegmentKey, Time};

const WINDOW: Duration = Duration::from_secs(1);
/// Fewer requests than this in a window say nothing.
const LEAST_REQUESTS: u64 = 16;
/// The share of requests, in percent, that must come from one node.
const SHARE_PERCENT: u64 = 90;
/// Windows in a row that must agree.
const WINDOWS_TO_MOVE: u32 = 2;
/// How long a segment stays after a proposed move.
const REST: Duration = Duration::from_secs(10);

/// Where the requests of each owned segment come from.
#[derive(Debug, Default)]
pub struct Follow {
    segments: BTreeMap<SegmentKey, Counts>,
    window_ends: Option<Time>,
}

#[derive(Debug, Default)]
struct Counts {
    by_node: BTreeMap<NodeId, u64>,
    candidate: Option<(NodeId, u32)>,
    rest_until: Time,
}

impl Follow {
    /// A request for a segment came from a node.
    pub fn note(&mut self, now: Time, segment: SegmentKey, from: NodeId) {
        *self.segments.entry(segment).or_default().by_node.entry(from).or_insert(0) += 1;
        self.window_ends.get_or_insert(now + WINDOW);
    }

    /// The segment is not owned here any more.
    pub fn forget(&mut self, segment: SegmentKey) {
        self.segments.remove(&segment);
    }

    /// When the window ends.
    pub fn next_timer(&self) -> Option<Time> {
        self.window_ends
    }

    /// Ends the window: which segments should move to which node.
    pub fn end_window(&mut self, now: Time) -> Vec<(SegmentKey, NodeId)> {
        let mut moves = Vec::new();
        let mut busy = false;
        for (segment, counts) in &mut self.segments {
            let total: u64 = counts.by_node.values().sum();
            let most = counts.by_node.iter().max_by_key(|(_, n)| **n).map(|(node, n)| (*node, *n));
            counts.by_node.clear();
            busy |= total > 0;
            let clear = most.filter(|(_, n)| total >= LEAST_REQUESTS && n * 100 >= total * SHARE_PERCENT);
            counts.candidate = clear.map(|(node, _)| match counts.candidate {
                Some((same, windows)) if same == node => (node, windows + 1),
                _ => (node, 1),
            });
            if let Some((node, windows)) = counts.candidate
                && windows >= WINDOWS_TO_MOVE
                && now >= counts.rest_until
            {
                counts.rest_until = now + REST;
                moves.push((*segment, node));
            }
        }
        self.window_ends = busy.then_some(now + WINDOW);
        moves
    }
}

impl Engine {
    pub(crate) fn follow_timer(&mut self, now: Time, out: &mut Outputs) {
        for (segment, node) in self.follow.end_window(now) {
            let Some(info) = self.map.segments.get(&segment.segment) else { continue };
            if !self.may_own(info).any(|n| n == node) || self.has_slow_disk(info, node) {
                continue;
            }
            let Some(incarnation) = self.map.nodes.get(&node).map(|n| n.incarnation) else { continue };
            self.with_owner(now, segment, out, |owner, o| {
                owner.propose_owner(now, node, incarnation, GrantReason::FollowIo, o);
            });
        }
        self.leave_slow_disks(now, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(follow: &mut Follow, at: u64, counts: &[(u16, u64)]) -> Vec<NodeId> {
        for (node, n) in counts {
            (0..*n).for_each(|_| follow.note(Time(at), SegmentKey::default(), NodeId(*node)));
        }
        follow.end_window(Time(at)).into_iter().map(|(_, node)| node).collect()
    }

    #[test]
    fn two_clear_windows_move_the_segment_once() {
        let mut follow = Follow::default();
        assert!(window(&mut follow, 1, &[(2, 100)]).is_empty());
        assert_eq!(window(&mut follow, 2, &[(2, 100), (3, 5)]), [NodeId(2)]);
        assert!(window(&mut follow, 3, &[(2, 100)]).is_empty());
    }

    #[test]
    fn a_shared_or_quiet_segment_stays() {
        let mut follow = Follow::default();
        for at in 1..5 {
            assert!(window(&mut follow, at, &[(2, 50), (3, 50)]).is_empty());
        }
        for at in 5..9 {
            assert!(window(&mut follow, at, &[(2, 3)]).is_empty());
        }
        assert_eq!(follow.next_timer(), Some(Time(8) + WINDOW));
        follow.end_window(Time(10));
        assert_eq!(follow.next_timer(), None);
    }
}
