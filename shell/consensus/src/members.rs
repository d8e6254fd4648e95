//! Who is a member of the group: nodes are let in and taken out by the leader, and one that was taken out is told so
//! when it asks. Nothing is sent to it any more, so that it would wait for a leader for ever.

use crate::Control;
use crate::control::{MAX_VOTERS, Verdict, stopped};
use crate::raft_types::{node_id, raft_id};
use crate::standing::Standing;
use crate::wire::{Fault, Request, Response};
use futures::future::{BoxFuture, FutureExt};
use holdfast_types::NodeId;
use openraft::error::{ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers};
use std::collections::BTreeSet;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a new member may take to catch up.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Why the group's membership was not changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MembershipError {
    /// There is no leader to ask.
    #[error("the cluster's control has no majority at present")]
    Unavailable,
    /// The node did not catch up, or another change was under way for too long.
    #[error("node {node} could not be made a member in time")]
    TimedOut {
        /// Which.
        node: NodeId,
    },
    /// The node keeps the log of a group that was given up, and would only be waited for.
    #[error("node {node} is of a control plane that was given up: it has to be told to follow this one")]
    OtherGroup {
        /// Which.
        node: NodeId,
    },
}

impl Control {
    /// Makes a started node a member of the group: it catches up as a learner first, then votes if there are
    /// fewer than seven voters. Safe to repeat.
    pub fn add_voter(&self, node: NodeId, address: String) -> BoxFuture<'_, Result<(), MembershipError>> {
        async move { self.change_members(node, Request::AddMember { node: raft_id(node), address }).await }
            .boxed()
    }

    /// Takes a node out of the group. Safe to repeat.
    pub fn remove_voter(&self, node: NodeId) -> BoxFuture<'_, Result<(), MembershipError>> {
        async move { self.change_members(node, Request::RemoveMember { node: raft_id(node) }).await }.boxed()
    }

    async fn change_members(&self, node: NodeId, request: Request) -> Result<(), MembershipError> {
        let mut tried = false;
        let answer =
            self.with_leader(JOIN_TIMEOUT + self.timings().propose, request, |response| match response {
                Some(Response::MemberChanged) => Verdict::Answer(Ok(())),
                Some(Response::Fault(Fault::OtherGroup { .. })) => {
                    Verdict::Answer(Err(MembershipError::OtherGroup { node }))
                }
                Some(Response::NotLeader) => Verdict::Again,
                _ => {
                    tried = true;
                    Verdict::Again
                }
            });
        match answer.await {
            Some(answer) => answer,
            None if tried => Err(MembershipError::TimedOut { node }),
            None => Err(MembershipError::Unavailable),
        }
    }

    /// What other nodes have said of this one: whether its control is of any use still.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.peers.group.standing()
    }

    /// Asks another member whether this node is one still; `turn` chooses whom. Nobody sends anything to a node that
    /// was removed, and one that only follows would never ask of itself.
    pub fn ask_whether_removed(&self, turn: usize) -> BoxFuture<'_, ()> {
        async move {
            let metrics = self.metrics();
            let others: Vec<NodeId> =
                metrics.voters.into_iter().chain(metrics.learners).filter(|n| *n != self.node()).collect();
            if others.is_empty() {
                return;
            }
            let to = others[turn % others.len()];
            let address = self.peers.address(to, &self.listed_address(to));
            // The answer that matters is noted where it arrives.
            let _ = self.peers.call(to, address, &Request::ReadIndex, self.timings().propose).await;
        }
        .boxed()
    }

    /// Waits until the node is no member of the group as this node knows it. False: it still is.
    pub fn has_left(&self, node: NodeId, wait: Duration) -> BoxFuture<'_, bool> {
        async move {
            let id = raft_id(node);
            let mut metrics = self.raft.metrics();
            let gone = metrics.wait_for(|m| m.membership_config.membership().get_node(&id).is_none());
            timeout(wait, gone).await.is_ok_and(|known| known.is_ok())
        }
        .boxed()
    }

    pub(crate) async fn lead_add_member(&self, node: u64, address: String) -> Response {
        timeout(JOIN_TIMEOUT, self.add_member(node, address)).await.unwrap_or(Response::Unknown)
    }

    pub(crate) async fn lead_remove_member(&self, node: u64) -> Response {
        let gone = BTreeSet::from([node]);
        let change = match self.is_voter(node) {
            true => ChangeMembers::RemoveVoters(gone),
            false => ChangeMembers::RemoveNodes(gone),
        };
        member_answer(self.raft.change_membership(change, false).await.map(|_| ()))
    }

    async fn add_member(&self, node: u64, address: String) -> Response {
        if self.is_voter(node) {
            return Response::MemberChanged;
        }
        // A question that any node of this group, or of none yet, takes.
        let asked =
            self.peers.call(node_id(node), address.clone(), &Request::ReadIndex, self.timings().propose);
        if let Ok(Response::Fault(other @ Fault::OtherGroup { .. })) = asked.await {
            return Response::Fault(other);
        }
        if let Err(e) = self.raft.add_learner(node, BasicNode::new(address), true).await {
            return member_answer(Err(e));
        }
        if self.metrics().voters.len() >= MAX_VOTERS {
            return Response::MemberChanged;
        }
        let voter = ChangeMembers::AddVoterIds(BTreeSet::from([node]));
        member_answer(self.raft.change_membership(voter, true).await.map(|_| ()))
    }

    fn is_voter(&self, node: u64) -> bool {
        let metrics = self.raft.metrics();
        let m = metrics.borrow();
        m.membership_config.membership().voter_ids().any(|id| id == node)
    }
}

fn member_answer(result: Result<(), RaftError<u64, ClientWriteError<u64, BasicNode>>>) -> Response {
    match result {
        Ok(()) => Response::MemberChanged,
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Response::NotLeader,
        Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(_))) => Response::Fault(Fault::Busy),
        Err(RaftError::Fatal(_)) => stopped(),
    }
}
