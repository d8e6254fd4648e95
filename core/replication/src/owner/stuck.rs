//! An activation that does not go on. A copy whose host answers and whose disk does not is no news to the failure
//! detector; whoever owns notices first, and has control grant what can be activated: S' without the copy that is
//! silent, or another owner when it is the own copy. Until such a grant is activated `active.S` decides, as ever
//! (replication.md §1), and a grant that was never activated acknowledged nothing.

use super::activation::Phase;
use super::{Owner, OwnerOutput};
use crate::event::DropReason;
use alloc::vec::Vec;
use holdfast_types::{GrantReason, NodeId, ProcessIncarnation, ReplicaRef, Time, seal_quorum};

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
                if !sealed || self.activation.own_is_too_old() {
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
                let stay: Vec<ReplicaRef> = self.allowed().into_iter().filter(|r| !silent(r)).collect();
                self.leave_out(now, stay, out);
            }
            Phase::Leases | Phase::Recording | Phase::Active | Phase::Ended => {}
        }
    }

    pub(super) fn stuck_timer_at(&self) -> Option<Time> {
        let waits = matches!(self.phase, Phase::Sealing | Phase::Fetching(_) | Phase::Equalising);
        (waits && !self.proposals.grant_pending()).then_some(self.activation.look_at)
    }

    /// Proposes to grant the segment to another node while this one cannot activate it.
    pub fn propose_takeover(
        &mut self,
        now: Time,
        owner: NodeId,
        owner_incarnation: ProcessIncarnation,
        out: &mut Vec<OwnerOutput>,
    ) {
        let waits = self.stuck_timer_at().is_some();
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

    fn leave_out(&mut self, now: Time, stay: Vec<ReplicaRef>, out: &mut Vec<OwnerOutput>) {
        // So many that what stays could not seal S are never left out: with three copies two are waited for.
        if stay.len() < seal_quorum(self.set.len()) || stay.len() == self.set.len() {
            return;
        }
        let leave = self.set.iter().filter(|r| !stay.contains(r)).map(|r| (*r, DropReason::Stuck)).collect();
        self.propose_drop(now, leave, stay, out);
    }
}
