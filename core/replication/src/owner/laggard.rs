//! Who leaves S, and what is proposed to control. A drop is a grant: until it is activated the old S decides
//! (replication.md §1). A copy is dropped when it is away or stuck for too long, or cannot be caught up by records;
//! never so many that the rest could not seal the old S.

use super::{Owner, OwnerOutput};
use crate::config::OwnerConfig;
use crate::event::{DropReason, ReplicationEvent};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use holdfast_types::{
    Duration, GrantReason, NodeId, ProcessIncarnation, ReplicaRef, SegmentCommand, SegmentCommandResult,
    Time, seal_quorum,
};

/// Between attempts of a proposal that brought nothing.
const AGAIN: Duration = Duration::from_millis(200);
/// How long reads wait for control's answer to a hand-over before a stop. Control is asked for many at once.
const HAND_OVER_WAIT: Duration = Duration::from_secs(1);
/// The same when ownership follows the I/O: that is for speed, and control may be without a majority.
const FOLLOW_WAIT: Duration = Duration::from_millis(200);
/// Between looks at a drop that would leave too few to seal S.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A proposal without an answer for so long is made again. Each is a compare-and-set.
const UNANSWERED: Duration = Duration::from_secs(5);

/// Proposals under way.
#[derive(Debug, Default)]
pub(crate) struct Proposals {
    pending: BTreeMap<u64, (SegmentCommand, Time)>,
    /// To be made again at that time.
    again: Vec<(SegmentCommand, Time)>,
    /// A drop was due and not possible: not before then.
    next_look: Option<Time>,
    /// Copies that were said to leave, why, and since when that is so: control may be silent for long, and is asked
    /// again and again.
    said_leaving: BTreeMap<ReplicaRef, (DropReason, Option<Time>)>,
    /// Another node is proposed as the owner: leases are given up, and none is asked for until then or until
    /// control has refused.
    hand_over_until: Option<Time>,
}

impl Proposals {
    pub(super) fn hands_over(&self, now: Time) -> bool {
        self.hand_over_until.is_some_and(|until| now < until)
    }

    /// Control takes long: reads go on under new leases.
    pub(super) fn end_hand_over(&mut self, now: Time) {
        self.hand_over_until = self.hand_over_until.filter(|until| *until > now);
    }

    pub(super) fn hands_over_until(&self) -> Option<Time> {
        self.hand_over_until
    }

    pub(super) fn grant_pending(&self) -> bool {
        let pending = self.pending.values().chain(&self.again);
        pending.clone().any(|(c, _)| matches!(c, SegmentCommand::Grant { .. }))
    }
}

impl Owner {
    pub(super) fn propose(&mut self, now: Time, command: SegmentCommand, out: &mut Vec<OwnerOutput>) {
        let number = self.number();
        self.proposals.pending.insert(number, (command.clone(), now + UNANSWERED));
        out.push(OwnerOutput::Propose { number, command });
    }

    /// One grant at a time: the next one would follow another epoch.
    pub(super) fn propose_grant(
        &mut self,
        now: Time,
        owner: NodeId,
        owner_incarnation: ProcessIncarnation,
        set: Vec<ReplicaRef>,
        reason: GrantReason,
        out: &mut Vec<OwnerOutput>,
    ) {
        if self.proposals.grant_pending() {
            return;
        }
        let (segment, expect) = (self.key, self.epoch);
        self.propose(
            now,
            SegmentCommand::Grant { segment, expect, owner, owner_incarnation, set, reason },
            out,
        );
    }

    pub(super) fn proposed(
        &mut self,
        now: Time,
        number: u64,
        result: SegmentCommandResult,
        out: &mut Vec<OwnerOutput>,
    ) {
        let Some((command, _)) = self.proposals.pending.remove(&number) else { return };
        let recording = matches!(self.phase, super::Phase::Recording);
        match (&command, result) {
            (SegmentCommand::Activated { .. }, SegmentCommandResult::Done) if recording => {
                self.activated(now, out)
            }
            // Another grant came: the map says which, and ends this owner.
            (_, SegmentCommandResult::Done | SegmentCommandResult::Stale { .. }) => {}
            // Unknown: it may have been recorded. Nothing is served before that is known.
            (SegmentCommand::Activated { .. }, _) if recording => {
                self.proposals.again.push((command, now + AGAIN))
            }
            // A grant that brought nothing is considered anew from what is true then.
            (_, _) => {
                self.proposals.next_look = Some(now + AGAIN);
                self.proposals.hand_over_until = None;
                self.ask_leases(now, out);
            }
        }
    }

    /// Proposes to give the segment to another node, which must hold a copy of S. Writes go on until then; reads
    /// wait for control's answer, as the leases are given up for it, but no longer than a moment.
    pub fn propose_owner(
        &mut self,
        now: Time,
        node: NodeId,
        incarnation: ProcessIncarnation,
        reason: GrantReason,
        out: &mut Vec<OwnerOutput>,
    ) {
        let possible = self.active() && !self.proposals.grant_pending();
        if !possible || !self.set.iter().any(|r| r.node == node) {
            return;
        }
        // Speed is no reason to go where the copy cannot follow: it would come back at once.
        let lacks_room = |c: &super::Copy| c.full && c.matched < self.commit;
        let is_for_speed = matches!(reason, GrantReason::FollowIo | GrantReason::SlowDisk);
        if is_for_speed && self.copies.values().any(|c| c.replica.node == node && lacks_room(c)) {
            return;
        }
        let wait = if reason == GrantReason::Handover { HAND_OVER_WAIT } else { FOLLOW_WAIT };
        self.proposals.hand_over_until = Some(now + wait);
        self.release_leases(out);
        self.propose_grant(now, node, incarnation, self.set.clone(), reason, out);
    }

    pub(super) fn proposals_timer(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let mut due = Vec::new();
        self.proposals.again.retain(|(command, at)| {
            let is_due = *at <= now;
            if is_due {
                due.push(command.clone());
            }
            !is_due
        });
        let late: Vec<u64> = self
            .proposals
            .pending
            .iter()
            .filter(|(_, (_, at))| *at <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in late {
            due.extend(self.proposals.pending.remove(&number).map(|(command, _)| command));
        }
        for command in due {
            self.propose(now, command, out);
        }
    }

    pub(super) fn proposals_timer_at(&self) -> Option<Time> {
        self.proposals
            .again
            .iter()
            .map(|(_, at)| *at)
            .chain(self.proposals.pending.values().map(|(_, at)| *at))
            .min()
    }

    /// How long a copy may be away, and how long it may acknowledge nothing.
    fn drop_limits(&self, copy: &super::Copy) -> (Duration, Duration) {
        let OwnerConfig { drop_after, drop_after_blocking, stuck_after_blocking, .. } = self.config;
        match self.set.len() {
            ..=2 if copy.full => (drop_after_blocking, drop_after_blocking),
            ..=2 => (drop_after_blocking, stuck_after_blocking),
            _ => (drop_after, drop_after),
        }
    }

    /// How long a copy may acknowledge nothing.
    pub(super) fn stuck_limit(&self, copy: &super::Copy) -> Duration {
        self.drop_limits(copy).1
    }

    fn drop_reason(&self, now: Time, copy: &super::Copy) -> Option<DropReason> {
        let (away, stuck) = self.drop_limits(copy);
        let long = |since: Option<Time>, limit| since.is_some_and(|at| now.since(at) >= limit);
        if copy.lost {
            Some(DropReason::Incomplete)
        } else if self.regressed(copy.replica) {
            Some(DropReason::Regressed)
        } else if copy.too_far {
            Some(DropReason::TooFarBehind)
        } else if long(copy.away_since, away) {
            Some(DropReason::Unreachable)
        } else if long(copy.waiting_since, stuck) {
            Some(if copy.full { DropReason::Full } else { DropReason::Stuck })
        } else {
            None
        }
    }

    /// Proposes S without the copies that are to leave.
    pub(super) fn consider_drop(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let early = self.proposals.next_look.is_some_and(|at| at > now);
        if !self.active() || early || self.proposals.grant_pending() {
            return;
        }
        self.proposals.next_look = None;
        let leave: Vec<(ReplicaRef, DropReason)> = self
            .copies
            .values()
            .filter(|c| c.counts && c.replica != self.own)
            .filter_map(|c| Some((c.replica, self.drop_reason(now, c)?)))
            .collect();
        if leave.is_empty() {
            return;
        }
        let stay: Vec<ReplicaRef> =
            self.set.iter().filter(|r| !leave.iter().any(|(l, _)| l == *r)).copied().collect();
        if stay.len() < seal_quorum(self.set.len()) {
            // The rest could not seal S: nothing would be served. It is looked at again.
            self.proposals.next_look = Some(now + LOOK_AGAIN);
            return;
        }
        self.propose_drop(now, leave, stay, out);
    }

    pub(super) fn propose_drop(
        &mut self,
        now: Time,
        leave: Vec<(ReplicaRef, DropReason)>,
        stay: Vec<ReplicaRef>,
        out: &mut Vec<OwnerOutput>,
    ) {
        for (replica, why) in leave {
            let copy = self.copies.get(&replica);
            let since = copy.and_then(|c| match why {
                DropReason::Unreachable => c.away_since,
                DropReason::Stuck | DropReason::Full => c.waiting_since,
                DropReason::TooFarBehind | DropReason::Regressed | DropReason::Incomplete => None,
            });
            if self.proposals.said_leaving.insert(replica, (why, since)) == Some((why, since)) {
                continue;
            }
            let matched = copy.map(|c| c.matched).unwrap_or_default();
            let behind = self.log.last().lsn.0.saturating_sub(matched.0);
            self.event(ReplicationEvent::Dropping { replica, behind, why }, out);
        }
        let (node, incarnation) = (self.node, self.incarnation);
        self.propose_grant(now, node, incarnation, stay, GrantReason::Drop, out);
    }

    pub(super) fn drop_timer_at(&self) -> Option<Time> {
        if !self.active() || self.proposals.grant_pending() {
            return None;
        }
        let due = |c: &super::Copy| {
            let (away, stuck) = self.drop_limits(c);
            let now = (c.lost || c.too_far || self.regressed(c.replica)).then_some(Time(0));
            let away = c.away_since.map(|at| at + away);
            let stuck = c.waiting_since.map(|at| at + stuck);
            [now, away, stuck].into_iter().flatten().min()
        };
        let counted = self.copies.values().filter(|c| c.counts && c.replica != self.own);
        let at = counted.filter_map(due).min()?;
        Some(self.proposals.next_look.map_or(at, |look| at.max(look)))
    }
}
