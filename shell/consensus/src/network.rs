//! openraft's network over a [`Transport`] of the caller's.

use crate::codec;
use crate::raft_types::{LogId, TypeConfig, node_id};
use crate::standing::Group;
use crate::wire::{MAX_MESSAGE_BYTES, Request, Response};
use bytes::Bytes;
use futures::future::BoxFuture;
use holdfast_cluster::ClusterMap;
use holdfast_types::NodeId;
use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{AnyError, BasicNode};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::watch;

/// Carries control's requests to other nodes.
pub trait Transport: Send + Sync + 'static {
    /// Sends a request to the node, which is to be found at that address, and brings its answer. The node's
    /// [`crate::Control::serve`] gives the answer; `from` there must be a verified identity.
    fn call(
        &self,
        to: NodeId,
        address: String,
        request: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>>;
}

/// Why a request brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("node {node} {fault}")]
pub struct TransportError {
    /// The node that was asked.
    pub node: NodeId,
    /// What happened.
    pub fault: TransportFault,
}

/// What happened to a request without an answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransportFault {
    /// It was not sent: nobody listens there, or the host cannot be reached.
    #[error("cannot be reached: {why}")]
    NotSent {
        /// In words.
        why: String,
    },
    /// It was sent, perhaps, and nothing came back.
    #[error("did not answer: {why}")]
    NoAnswer {
        /// In words.
        why: String,
    },
}

/// Why a request came to nothing.
#[derive(Debug, Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("the message cannot be read or written: {0}")]
    Codec(#[from] codec::CodecError),
    #[error("the message is too long: {0} bytes")]
    TooLong(usize),
    #[error("the answer is not one to this question: {0:?}")]
    Unexpected(Box<Response>),
}

impl CallError {
    /// Whether the request certainly did not arrive.
    pub(crate) fn not_sent(&self) -> bool {
        match self {
            CallError::Transport(e) => matches!(e.fault, TransportFault::NotSent { .. }),
            CallError::TooLong(_) => true,
            _ => false,
        }
    }
}

/// Finds and calls the other nodes.
#[derive(Clone)]
pub(crate) struct Peers {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) map: watch::Receiver<Arc<ClusterMap>>,
    /// What this node speaks for. That it has no place any more it hears in no other way: nobody sends it a log.
    pub(crate) group: Group,
}

impl Peers {
    /// Where the node is: by the map when it is there, else as the group's membership says.
    pub(crate) fn address(&self, node: NodeId, otherwise: &str) -> String {
        self.map.borrow().nodes.get(&node).map_or_else(|| otherwise.to_owned(), |n| n.address.clone())
    }

    pub(crate) async fn call(
        &self,
        to: NodeId,
        address: String,
        request: &Request,
        timeout: Duration,
    ) -> Result<Response, CallError> {
        let bytes = codec::encode_message(self.group.generation(), request)?;
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(CallError::TooLong(bytes.len()));
        }
        let answer = self.transport.call(to, address, bytes.into());
        let answer =
            tokio::time::timeout(timeout, answer).await.map_err(|_| CallError::TimedOut(timeout))??;
        if answer.len() > MAX_MESSAGE_BYTES {
            return Err(CallError::TooLong(answer.len()));
        }
        let response = codec::decode(&answer)?;
        if let Response::Fault(fault) = response {
            self.group.refused(to, fault);
        }
        Ok(response)
    }
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        Peer { peers: self.clone(), target, listed: node.addr.clone(), acknowledged: None }
    }
}

/// One other node of the group.
pub(crate) struct Peer {
    peers: Peers,
    target: u64,
    listed: String,
    /// How far it said that its log goes.
    acknowledged: Option<LogId>,
}

/// How long to leave a node alone that could not be reached. Short: it may be back any moment.
const BACKOFF: Duration = Duration::from_millis(150);

impl Peer {
    async fn ask<E: std::error::Error>(
        &self,
        request: Request,
        option: &RPCOption,
    ) -> Result<Response, RPCError<u64, BasicNode, E>> {
        let to = node_id(self.target);
        let address = self.peers.address(to, &self.listed);
        let answer = self.peers.call(to, address, &request, option.hard_ttl()).await;
        answer.map_err(|e| RPCError::Unreachable(Unreachable::new(&e)))
    }
}

impl Peer {
    /// Compares what it says with what it said: for as long as one node leads, a follower's log only grows.
    fn note(&mut self, before: Option<LogId>, last: Option<LogId>, answer: &AppendEntriesResponse<u64>) {
        match answer {
            AppendEntriesResponse::Success => self.acknowledged = self.acknowledged.max(last),
            AppendEntriesResponse::PartialSuccess(upto) => self.acknowledged = self.acknowledged.max(*upto),
            AppendEntriesResponse::Conflict if before <= self.acknowledged => {
                self.peers.group.reverted(node_id(self.target));
                self.acknowledged = None;
            }
            AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => {}
        }
    }
}

fn unexpected<E: std::error::Error>(response: Response) -> RPCError<u64, BasicNode, E> {
    match response {
        // It is there and cannot serve now: to be left alone for a while.
        Response::Fault(fault) => {
            RPCError::Unreachable(Unreachable::new(&AnyError::error(format!("{fault:?}"))))
        }
        other => RPCError::Network(NetworkError::new(&CallError::Unexpected(Box::new(other)))),
    }
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        let (before, last) = (rpc.prev_log_id, rpc.entries.last().map(|entry| entry.log_id));
        match self.ask(Request::Append(rpc), &option).await? {
            Response::Append(answer) => {
                self.note(before, last.or(before), &answer);
                Ok(answer)
            }
            other => Err(unexpected(other)),
        }
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, RPCError<u64, BasicNode, RaftError<u64, InstallSnapshotError>>>
    {
        match self.ask(Request::Snapshot(rpc), &option).await? {
            Response::Snapshot(answer) => Ok(answer),
            Response::SnapshotMismatch(mismatch) => {
                let error = RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch));
                Err(RPCError::RemoteError(RemoteError::new(self.target, error)))
            }
            other => Err(unexpected(other)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        match self.ask(Request::Vote(rpc), &option).await? {
            Response::Vote(answer) => Ok(answer),
            other => Err(unexpected(other)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
