//! Who is a member of the group: nodes are let in and taken out by the leader, and one that was taken out is told so
//! when it asks. Nothing is sent to it any more, so that it would wait for a leader for ever. One that has forgotten
//! (standing.rs) is taken out and let in again.

use crate::Control;
use crate::control::{MAX_VOTERS, Verdict, stopped};
use crate::raft_types::{node_id, raft_id};
use crate::recover::Generation;
use crate::standing::Standing;
use crate::wire::{Fault, Request, Response};
use futures::future::{BoxFuture, FutureExt};
use holdfast_types::NodeId;
use openraft::error::{ClientWriteError, RaftError};
use openraft::raft::AppendEntriesRequest;
use openraft::{BasicNode, ChangeMembers};
use std::collections::{BTreeMap, BTreeSet};
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
    /// fewer than seven voters. One that has forgotten what it promised is taken out of the group before. Safe to repeat.
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
    /// was removed, and one that only follows would never ask of itself. One that has forgotten the group asks those that
    /// the caller knows.
    pub fn ask_whether_removed(&self, turn: usize, known: Vec<(NodeId, String)>) -> BoxFuture<'_, ()> {
        async move {
            let metrics = self.metrics();
            let members = metrics.voters.into_iter().chain(metrics.learners);
            let listed: Vec<_> = members.map(|node| (node, self.listed_address(node))).collect();
            let mut others = if listed.is_empty() { known } else { listed };
            others.retain(|(node, _)| *node != self.node());
            if others.is_empty() {
                return;
            }
            let (to, listed) = others.swap_remove(turn % others.len());
            let address = self.peers.address(to, &listed);
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

    /// The nodes that have forgotten what they promised, as they say: the leader lets them in anew.
    pub fn forgetful(&self) -> watch::Receiver<BTreeSet<NodeId>> {
        self.peers.group.forgetful()
    }

    /// How often this node, while it led, found of another one that its log is shorter than it had said: its disk lost
    /// what was flushed, or an older copy was put back. What it lacks is sent to it again.
    pub fn reversions(&self) -> watch::Receiver<BTreeMap<NodeId, u64>> {
        self.peers.group.reversions()
    }

    async fn add_member(&self, node: u64, address: String) -> Response {
        let forgets = self.forgetful().borrow().contains(&node_id(node));
        if self.is_voter(node) && !forgets {
            return Response::MemberChanged;
        }
        // A question that any node of this group, or of none yet, takes.
        let asked =
            self.peers.call(node_id(node), address.clone(), &Request::ReadIndex, self.timings().propose);
        match asked.await {
            Ok(Response::Fault(other @ Fault::OtherGroup { .. })) => return Response::Fault(other),
            Ok(Response::Fault(Fault::Forgot { nonce })) => {
                match self.readmit(node, address.clone(), nonce).await {
                    Response::MemberChanged => {}
                    other => return other,
                }
            }
            Ok(_) => self.peers.group.remembers(node_id(node)),
            // Who cannot be asked has not said that it remembers.
            Err(_) if forgets => return Response::Unknown,
            Err(_) => {}
        }
        if self.is_voter(node) {
            return Response::MemberChanged;
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

    /// Takes a node that has forgotten out of the group, and lets that run of it take part in the next one. In this order:
    /// what it promised before was to a group of which it is no member when it promises anew.
    async fn readmit(&self, node: u64, address: String, nonce: u64) -> Response {
        if self.is_member(node) {
            match self.lead_remove_member(node).await {
                Response::MemberChanged => {}
                other => return other,
            }
        }
        // This node leads still, after that run began: whoever led since would have had to let the run in first.
        if self.raft.ensure_linearizable().await.is_err() || self.is_member(node) {
            return Response::NotLeader;
        }
        let vote = self.raft.metrics().borrow().vote;
        let request = Request::Readmit { nonce, vote };
        match self.peers.call(node_id(node), address, &request, self.timings().propose).await {
            Ok(Response::MemberChanged) => {
                self.peers.group.remembers(node_id(node));
                Response::MemberChanged
            }
            _ => Response::Unknown,
        }
    }

    /// Answers while this node has forgotten: nothing, until the leader has taken it out of the group.
    pub(crate) async fn answer_without_memory(
        &self,
        from: NodeId,
        group: Generation,
        nonce: u64,
        request: Request,
    ) -> Response {
        let vote = match request {
            Request::Readmit { nonce: to, vote } if to == nonce && vote.committed => vote,
            _ => return Response::Fault(Fault::Forgot { nonce }),
        };
        if vote.leader_id.node_id != raft_id(from) {
            return Response::Fault(Fault::Impostor);
        }
        // An append of nothing: after it the vote is on the disk, and this node votes for nobody else in that term.
        let append =
            AppendEntriesRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None };
        if !matches!(self.peers.group.admits(group).await, Ok(true))
            || self.raft.append_entries(append).await.is_err()
        {
            return stopped();
        }
        self.peers.group.takes_part_again();
        Response::MemberChanged
    }

    fn is_member(&self, node: u64) -> bool {
        let metrics = self.raft.metrics();
        let m = metrics.borrow();
        m.membership_config.membership().get_node(&node).is_some()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ControlConfig, Timings, Transport, TransportError, TransportFault};
    use bytes::Bytes;
    use openraft::Vote;
    use openraft::raft::VoteRequest;
    use std::path::Path;
    use std::sync::Arc;

    struct Nobody;

    impl Transport for Nobody {
        fn call(
            &self,
            node: NodeId,
            _: String,
            _: Bytes,
        ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
            let fault = TransportFault::NotSent { why: "there is nobody".into() };
            std::future::ready(Err(TransportError { node, fault })).boxed()
        }
    }

    async fn start(dir: &Path, returning: Option<u64>) -> Control {
        let timings = Timings::default();
        let config = ControlConfig { node: NodeId(2), dir: dir.into(), timings, returning };
        Control::start(config, Arc::new(Nobody)).await.expect("it starts")
    }

    #[tokio::test]
    async fn who_has_forgotten_takes_part_when_the_leader_says_so_to_this_run_and_not_before() {
        let dir = tempfile::tempdir().expect("a folder");
        let control = start(dir.path(), Some(9)).await;
        let ask = |from, request| control.answer(NodeId(from), Generation::default(), request);
        let candidate = |term, node| VoteRequest { vote: Vote::new(term, node), last_log_id: None };
        let readmit = |nonce, vote| Request::Readmit { nonce, vote };
        let forgot = Fault::Forgot { nonce: 9 };
        for (from, request, fault) in [
            (1, Request::ReadIndex, forgot),
            (1, Request::Vote(candidate(7, 1)), forgot),
            (1, readmit(8, Vote::new_committed(7, 1)), forgot),
            // A candidate does not lead.
            (1, readmit(9, Vote::new(7, 1)), forgot),
            (3, readmit(9, Vote::new_committed(7, 1)), Fault::Impostor),
        ] {
            let said = format!("{request:?}");
            let answer = ask(from, request).await;
            assert!(matches!(answer, Response::Fault(f) if f == fault), "{said}: {answer:?}");
            assert!(control.has_forgotten(), "{said}");
        }
        let answer = ask(1, readmit(9, Vote::new_committed(7, 1))).await;
        assert!(matches!(answer, Response::MemberChanged) && !control.has_forgotten(), "{answer:?}");
        // It may have voted for 3 in that term, or for 1, which leads: it votes for nobody else.
        let answer = ask(3, Request::Vote(candidate(7, 3))).await;
        assert!(matches!(&answer, Response::Vote(v) if !v.vote_granted), "{answer:?}");
        control.raft.shutdown().await.expect("it ends");
        drop(control);
        // That is on its disk.
        let file = std::fs::File::open(dir.path().join("control.redb")).expect("the database");
        // Not on this thread, which has tasks of its to drop.
        let closed = tokio::task::spawn_blocking(move || file.lock()).await.expect("no panic");
        closed.expect("its thread lets go of it");
        let opened = crate::store::open(dir.path(), NodeId(2)).expect("it opens");
        drop(opened.pair);
        assert_eq!(opened.loaded.vote, Some(Vote::new_committed(7, 1)));
        assert!(!start(dir.path(), Some(10)).await.has_forgotten());
    }

    #[tokio::test]
    async fn one_that_never_was_a_member_takes_what_comes() {
        let dir = tempfile::tempdir().expect("a folder");
        let control = start(dir.path(), None).await;
        let vote = VoteRequest { vote: Vote::new(7, 1), last_log_id: None };
        let answer = control.answer(NodeId(1), Generation::default(), Request::Vote(vote)).await;
        assert!(matches!(answer, Response::Vote(_)) && !control.has_forgotten(), "{answer:?}");
    }
}
