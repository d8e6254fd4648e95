//! An activation that does not go on. A copy whose host answers and whose disk does not is no news to the failure
//! detector; whoever owns notices first, and has control grant what can be activated: S' without the copy that is
//! silent, or another owner when it is the own copy. A copy that says that it cannot follow is not waited for (decision
//! 0027). Until such a grant is activated `active.S` decides, as ever (replication.md §1), and a grant that was never
//! activated acknowledged nothing.
//!
//! An owner that serves can be stuck, too: S commits without its own copy, which cannot follow because its disk has no
//! room for a record of the past, does not answer or has failed, or because it lost a part. Its reads would wait for good, so
//! it passes the segment on; the next owner drops that copy from S like any other that does not follow. A disk that hangs
//! is known by what it owes its whole node, and a segment that is only read is passed on from it, too.

use super::activation::Phase;
use super::{Owner, OwnerOutput};
use crate::event::DropReason;
use alloc::vec::Vec;
use holdfast_types::{
    Duration, GrantReason, NodeId, ProcessIncarnation, ReplicaRef, StoreRefusal, Time, seal_quorum,
};

/// Whether a copy that lacks the tail says that it cannot take it: no record brings it up to date, or its disk has taken none
/// for so long. An owner that serves would drop it; one that activates does not wait for it.
fn cannot_follow(copy: &super::Copy, now: Time, patience: Duration) -> bool {
    let refuses = copy.full
        || matches!(copy.refused, Some(StoreRefusal::Full | StoreRefusal::Failed | StoreRefusal::Later));
    let long = copy.waiting_since.is_some_and(|since| now.since(since) >= patience);
    copy.too_far || copy.lost || refuses && long
}

impl Owner {
    /// Looks at an activation whose phase has lasted for too long.
    pub(super) fn stuck_timer(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        if self.stuck_timer_at().is_none_or(|at| at > now) {
            return;
        }
        self.activation.look_at = now + self.config.activation_patience;
        match &self.phase {
            Phase::Sealing => {
                // r(active.S) must answer whatever is granted: only a missing own copy can be got round.
                let sealed = self.activation.has_sealed(self.own);
                if !sealed || self.activation.own_is_of_no_use() {
                    self.pass_on(out);
                }
            }
            Phase::Fetching(fetch) => {
                let from = fetch.source();
                self.activation.mute.insert(from);
                self.reseal(now, out);
                self.seal_all(now, out);
            }
            Phase::Equalising => {
                let start = self.activation.start.lsn;
                let silent = |r: &ReplicaRef| self.copies.get(r).is_none_or(|c| c.matched < start);
                if silent(&self.own) {
                    return self.pass_on(out);
                }
                let cannot = |c: &super::Copy| cannot_follow(c, now, self.config.activation_patience);
                let hopeless = |r: &&ReplicaRef| silent(r) && self.copies.get(*r).is_some_and(cannot);
                let useful = self.set.len() - self.set.iter().filter(hopeless).count();
                let stay = self.allowed().into_iter().filter(|r| !silent(r)).collect();
                self.leave_out(now, stay, useful, out);
            }
            Phase::Active => {
                let nodes = self.nodes_that_follow();
                // A silent disk cannot seal: it is not passed on to who could not either.
                let need = if self.disk_is_silent { seal_quorum(self.set.len()) } else { 1 };
                if nodes.len() >= need {
                    out.push(OwnerOutput::PassOn { nodes });
                }
            }
            Phase::Leases | Phase::Recording | Phase::Ended => {}
        }
    }

    /// When the own copy has lacked what S committed for so long that another node should serve: at once when it has lost
    /// something. A full disk says at once that it cannot follow; one that is merely slow gets as long as any other copy of S.
    fn own_is_stuck_at(&self) -> Option<Time> {
        let own = self.copies.get(&self.own).filter(|_| self.active())?;
        if own.lost || self.disk_is_silent {
            return Some(self.activation.look_at);
        }
        if own.matched >= self.commit {
            return None;
        }
        let limit = if own.full { self.config.activation_patience } else { self.stuck_limit(own) };
        Some((own.waiting_since? + limit).max(self.activation.look_at))
    }

    /// The other nodes whose copies of S have all that is committed.
    pub fn nodes_that_follow(&self) -> Vec<NodeId> {
        let follows = |r: &&ReplicaRef| {
            **r != self.own && self.copies.get(r).is_some_and(|c| c.up && c.matched >= self.commit)
        };
        self.set.iter().filter(follows).map(|r| r.node).collect()
    }

    /// The own copy's disk owes answers and gives none, or gives some again.
    pub fn disk_silent(&mut self, silent: bool) {
        self.disk_is_silent = silent;
    }

    pub(super) fn stuck_timer_at(&self) -> Option<Time> {
        if self.active() {
            return self.own_is_stuck_at().filter(|_| !self.proposals.grant_pending());
        }
        let waits = matches!(self.phase, Phase::Sealing | Phase::Fetching(_) | Phase::Equalising);
        (waits && !self.proposals.grant_pending()).then_some(self.activation.look_at)
    }

    /// Proposes to grant the segment to another node while this one cannot activate it, or not serve it.
    pub fn propose_takeover(
        &mut self,
        now: Time,
        owner: NodeId,
        owner_incarnation: ProcessIncarnation,
        out: &mut Vec<OwnerOutput>,
    ) {
        let waits = self.stuck_timer_at().is_some();
        if waits && self.active() {
            return self.propose_owner(now, owner, owner_incarnation, GrantReason::Takeover, out);
        }
        let set = self.allowed();
        if waits && set.iter().any(|r| r.node == owner) {
            self.propose_grant(now, owner, owner_incarnation, set, GrantReason::Takeover, out);
        }
    }

    /// What a grant in place of this one may hold: a copy that this one adds is in no activated set yet.
    fn allowed(&self) -> Vec<ReplicaRef> {
        self.set.iter().filter(|r| self.base.set.contains(r)).copied().collect()
    }

    /// To a node whose copy answered.
    fn pass_on(&mut self, out: &mut Vec<OwnerOutput>) {
        let answered = |r: &ReplicaRef| r.node != self.node && self.activation.has_sealed(*r);
        let nodes: Vec<NodeId> = self.allowed().into_iter().filter(answered).map(|r| r.node).collect();
        if !nodes.is_empty() {
            out.push(OwnerOutput::PassOn { nodes });
        }
    }

    fn leave_out(&mut self, now: Time, stay: Vec<ReplicaRef>, useful: usize, out: &mut Vec<OwnerOutput>) {
        // So many that what stays could not seal the useful ones are never left out: with three of them two are waited for.
        if stay.len() < seal_quorum(useful) || stay.len() == self.set.len() {
            return;
        }
        let why = |r: &ReplicaRef| match self.copies.get(r) {
            Some(c) if c.lost => DropReason::Incomplete,
            Some(c) if c.too_far => DropReason::TooFarBehind,
            Some(c) if c.full => DropReason::Full,
            _ => DropReason::Stuck,
        };
        let leave = self.set.iter().filter(|r| !stay.contains(r)).map(|r| (*r, why(r))).collect();
        self.propose_drop(now, leave, stay, out);
    }
}
