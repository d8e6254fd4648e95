//! A node's part in control: start, stop, serve, propose, membership.

use crate::codec;
use crate::machine::Machine;
use crate::network::{Peers, Transport};
use crate::raft_types::{Raft, node_id, raft_id};
use crate::recover::Generation;
use crate::standing::Group;
use crate::store::{Damage, Loaded, LogStore, StoreError, Writer, Writing, put_both_aside};
use crate::wire::{
    Fault, MAX_APPEND_ENTRIES, MAX_COMMAND_BYTES, MAX_MESSAGE_BYTES, Request, Response, SNAPSHOT_CHUNK_BYTES,
};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use holdfast_cluster::{ClusterMap, Command, CommandError, CommandResult};
use holdfast_types::NodeId;
use openraft::error::{InitializeError, InstallSnapshotError, RaftError};
use openraft::{BasicNode, Config, ServerState, SnapshotPolicy};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

/// Where control keeps its state, and its terms.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// This node.
    pub node: NodeId,
    /// The directory of its database.
    pub dir: PathBuf,
    /// The terms.
    pub timings: Timings,
    /// This node was in the group before: if its database is gone or damaged, it has forgotten what it promised, and
    /// waits until it is let in anew. The number is drawn for each start. None: an empty database is as it should be.
    pub returning: Option<u64>,
}

/// The terms of the group. A dead leader is replaced after `election_max` (its lease) and a random wait between
/// `election_min` and `election_max`.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// How often the leader says that it is there.
    pub heartbeat: Duration,
    /// The shortest wait before an election.
    pub election_min: Duration,
    /// The longest, and the length of a leader's lease.
    pub election_max: Duration,
    /// How long a proposal is tried.
    pub propose: Duration,
    /// A snapshot is made after so many commands, and half as many are kept for nodes that lag.
    pub snapshot_every: u64,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(350),
            election_max: Duration::from_millis(600),
            propose: Duration::from_secs(3),
            snapshot_every: 2000,
        }
    }
}

/// The most voters. More make a majority slower and no safer; further nodes only follow.
pub const MAX_VOTERS: usize = 7;
/// What takes longer to write than this is said not to be written.
const UNWRITTEN_AFTER: Duration = Duration::from_secs(2);
/// How long to wait before asking again who leads.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Why control could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Its database could not be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The timings contradict each other.
    #[error("the timings of control contradict each other: {0}")]
    Timings(#[from] openraft::ConfigError),
    /// The library failed while starting; its log or snapshot cannot be used.
    #[error("control could not start: {0}")]
    Library(#[from] openraft::error::Fatal<u64>),
}

/// Why a proposal brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// The cluster refused it.
    #[error(transparent)]
    Rejected(#[from] CommandError),
    /// There is no leader, or none that can reach a majority. Nothing was done.
    #[error("the cluster's control has no majority at present; nothing was changed")]
    Unavailable,
    /// It may have been done or not.
    #[error("the cluster's control did not answer in time; the change may have been made or not")]
    Unknown,
    /// It is too long.
    #[error("the command is {bytes} bytes long; at most {max} are possible")]
    TooLong {
        /// How long.
        bytes: usize,
        /// How long it may be.
        max: usize,
    },
}

/// Figures for status and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlMetrics {
    /// The election term.
    pub term: u64,
    /// The index of the last log entry.
    pub last_log: Option<u64>,
    /// The index of the last applied one.
    pub applied: Option<u64>,
    /// The index up to which the last snapshot goes.
    pub snapshot: Option<u64>,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// Whether this node leads.
    pub is_leader: bool,
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Who only follows.
    pub learners: Vec<NodeId>,
    /// Why it stopped by itself, when it did: its database failed.
    pub failed: Option<String>,
}

/// A node's part in control. Clones are the same part.
#[derive(Clone)]
pub struct Control {
    node: NodeId,
    pub(crate) raft: Raft,
    pub(crate) peers: Peers,
    timings: Timings,
    damage: Option<Damage>,
    pub(crate) writing: Writing,
    /// What `peers.map` shows.
    pub(crate) shown: watch::Sender<Arc<ClusterMap>>,
}

impl Control {
    /// Opens the database and takes part. A node without a log waits to be bootstrapped or added.
    pub fn start(
        config: ControlConfig,
        transport: Arc<dyn Transport>,
    ) -> BoxFuture<'static, Result<Self, StartError>> {
        async move {
            let ControlConfig { node, dir, timings, returning } = config;
            let (writer, mut loaded, damage) = open(&dir, node, returning.is_some())?;
            let forgot = returning.filter(|_| loaded.is_empty());
            let snapshot = loaded.snapshot.take();
            let (machine, shown) = Machine::new(writer.clone(), snapshot)
                .map_err(|e| StoreError::Corrupt { path: dir, what: format!("snapshot: {e}") })?;
            let map = shown.subscribe();
            let group = Group::new(loaded.generation, forgot, writer.clone());
            let peers = Peers { transport, map, group };
            let writing = writer.writing();
            let log = LogStore::new(writer, loaded);
            let raft_config = Arc::new(raft_config(&timings).validate()?);
            let raft = Raft::new(raft_id(node), raft_config, peers.clone(), log, machine).await?;
            Ok(Self { node, raft, peers, timings, damage, writing, shown })
        }
        .boxed()
    }

    /// What was found damaged when this run began: the database, or one file of it, which was mended from the other one
    /// unless this node has forgotten.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// Why this node's part in control stands still, if its database has not been written for a while. It goes on when it
    /// is; to the others this node is slow until then.
    pub fn unwritten(&self) -> Option<String> {
        self.writing.trouble(UNWRITTEN_AFTER)
    }

    /// Whether it takes this node long to write what control decides: another one should lead.
    pub fn writes_slowly(&self) -> bool {
        self.writing.is_slow()
    }

    /// Whether this node has forgotten what it promised, and waits to be let in anew.
    pub fn has_forgotten(&self) -> bool {
        self.peers.group.forgot().is_some()
    }

    /// Makes this node a cluster of one and proposes `command`. Safe to repeat.
    pub fn bootstrap(&self, command: Command) -> BoxFuture<'_, Result<CommandResult, ProposeError>> {
        async move {
            let address = match &command {
                Command::Bootstrap { first, .. } => first.address.clone(),
                _ => String::new(),
            };
            let members = BTreeMap::from([(raft_id(self.node), BasicNode::new(address))]);
            match self.raft.initialize(members).await {
                // It was done before.
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                    self.propose(command).await
                }
                Err(_) => Err(ProposeError::Unavailable),
            }
        }
        .boxed()
    }

    /// The map as this node has it: every change, in order, a little late.
    pub fn map(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.peers.map.clone()
    }

    /// Who leads, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.raft.metrics().borrow().current_leader.map(node_id)
    }

    /// Whether this node leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.raft.metrics().borrow().state == ServerState::Leader
    }

    /// Asks for an election now, when the leader is known to be gone. Its lease is waited out all the same.
    pub(crate) async fn elect(&self) {
        // Only a stopped group refuses.
        let _ = self.raft.trigger().elect().await;
    }

    /// Whether this node was ever let into a group: whether it has a log.
    pub fn has_joined(&self) -> BoxFuture<'_, bool> {
        async move {
            // A group that has stopped had one.
            self.raft.is_initialized().await.unwrap_or(true)
        }
        .boxed()
    }

    /// The terms.
    pub(crate) fn timings(&self) -> &Timings {
        &self.timings
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Figures.
    pub fn metrics(&self) -> ControlMetrics {
        let metrics = self.raft.metrics();
        let m = metrics.borrow();
        let membership = m.membership_config.membership();
        ControlMetrics {
            term: m.current_term,
            last_log: m.last_log_index,
            applied: m.last_applied.map(|id| id.index),
            snapshot: m.snapshot.map(|id| id.index),
            leader: m.current_leader.map(node_id),
            is_leader: m.state == ServerState::Leader,
            voters: membership.voter_ids().map(node_id).collect(),
            learners: membership.learner_ids().map(node_id).collect(),
            failed: m.running_state.as_ref().err().map(ToString::to_string),
        }
    }

    /// Stops taking part. What was answered is on disk already.
    pub fn stop(&self) -> BoxFuture<'_, ()> {
        async move {
            // It fails only when it stopped before.
            let _ = self.raft.shutdown().await;
        }
        .boxed()
    }

    /// Proposes a command and waits until it is applied here or at the leader. Tried over leader changes while
    /// a repeat can do no harm.
    pub fn propose(&self, command: Command) -> BoxFuture<'_, Result<CommandResult, ProposeError>> {
        async move {
            let bytes = codec::encode(&command).map_or(0, |b| b.len());
            if bytes > MAX_COMMAND_BYTES {
                return Err(ProposeError::TooLong { bytes, max: MAX_COMMAND_BYTES });
            }
            let repeatable = command.is_repeatable();
            let mut maybe_done = false;
            let answer =
                self.with_leader(
                    self.timings.propose,
                    Request::Propose(command),
                    |response| match response {
                        Some(Response::Proposed(result)) => {
                            Verdict::Answer(result.map_err(ProposeError::Rejected))
                        }
                        Some(Response::NotLeader | Response::Fault(_)) => Verdict::Again,
                        _ if repeatable => {
                            maybe_done = true;
                            Verdict::Again
                        }
                        _ => Verdict::Answer(Err(ProposeError::Unknown)),
                    },
                );
            let answer = answer.await;
            answer.unwrap_or(Err(if maybe_done { ProposeError::Unknown } else { ProposeError::Unavailable }))
        }
        .boxed()
    }

    /// The map with everything in it that was answered before this was called. None when the leader cannot be
    /// reached, or cannot reach a majority.
    pub fn linearizable_map(&self) -> BoxFuture<'_, Option<Arc<ClusterMap>>> {
        async move {
            let wait = self.timings.propose;
            let index = self.with_leader(wait, Request::ReadIndex, |response| match response {
                Some(Response::ReadIndex(index)) => Verdict::Answer(index),
                _ => Verdict::Again,
            });
            let index = index.await?;
            if let Some(index) = index {
                let applied = self.raft.wait(Some(wait)).applied_index_at_least(Some(index), "read").await;
                applied.ok()?;
            }
            Some(self.peers.map.borrow().clone())
        }
        .boxed()
    }

    /// Gives a request to the leader, wherever it is, until `judge` is content or the time is over. `judge`
    /// gets None when nothing came back although the request may have arrived.
    pub(crate) async fn with_leader<T>(
        &self,
        wait: Duration,
        request: Request,
        mut judge: impl FnMut(Option<Response>) -> Verdict<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + wait;
        let mut request = request;
        for turn in 0.. {
            if let Some(leader) = self.whom_to_ask(turn) {
                let left = deadline.saturating_duration_since(Instant::now());
                let response = if leader == self.node {
                    let copy = copy_of(&request);
                    let served = timeout_at(deadline, self.lead(request)).await;
                    request = copy;
                    served.ok()
                } else {
                    let listed = self.listed_address(leader);
                    let address = self.peers.address(leader, &listed);
                    match self.peers.call(leader, address, &request, left).await {
                        Ok(response) => Some(response),
                        Err(e) if e.not_sent() => Some(Response::NotLeader),
                        Err(_) => None,
                    }
                };
                if let Verdict::Answer(answer) = judge(response) {
                    return Some(answer);
                }
            }
            self.leader_change(deadline).await?;
        }
        None
    }

    /// Waits a moment, or until another leader is known. None when the time is over.
    async fn leader_change(&self, deadline: Instant) -> Option<()> {
        let now = Instant::now();
        if now >= deadline {
            return None;
        }
        let mut metrics = self.raft.metrics();
        let before = metrics.borrow().current_leader;
        let other = metrics.wait_for(|m| m.current_leader != before && m.current_leader.is_some());
        // A leader that is back under the same number is not a change: ask again soon in any case.
        let _ = timeout(ASK_AGAIN.min(deadline - now), other).await;
        Some(())
    }

    pub(crate) fn listed_address(&self, node: NodeId) -> String {
        let metrics = self.raft.metrics();
        let m = metrics.borrow();
        let listed = m.membership_config.membership().get_node(&raft_id(node));
        listed.map(|n| n.addr.clone()).unwrap_or_default()
    }

    /// Answers a peer. `from` is its verified identity.
    pub fn serve(&self, from: NodeId, request: Bytes) -> BoxFuture<'_, Bytes> {
        async move {
            let readable = request.len() <= MAX_MESSAGE_BYTES;
            let response = match readable.then(|| codec::decode_message::<Request>(&request)) {
                Some(Ok((group, request))) => self.answer(from, group, request).await,
                Some(Err(_)) | None => Response::Fault(Fault::Malformed),
            };
            // An answer is made of what was read or of the map's own types: it can be written.
            codec::encode(&response).unwrap_or_default().into()
        }
        .boxed()
    }

    pub(crate) async fn answer(&self, from: NodeId, group: Generation, request: Request) -> Response {
        if self.peers.map.borrow().was_removed(from) {
            return Response::Fault(Fault::Removed);
        }
        if let Some(nonce) = self.peers.group.forgot().filter(|_| self.peers.group.may_enter(group)) {
            return self.answer_without_memory(from, group, nonce, request).await;
        }
        match self.peers.group.admits(group).await {
            Ok(true) => {}
            Ok(false) => {
                self.peers.group.refused(from, Fault::OtherGroup { generation: group.0 });
                let generation = self.peers.group.generation().0;
                return Response::Fault(Fault::OtherGroup { generation });
            }
            // Its database has failed, and with it all of its control.
            Err(_) => return stopped(),
        }
        if request.vote().is_some_and(|vote| vote.leader_id.node_id != raft_id(from)) {
            return Response::Fault(Fault::Impostor);
        }
        match request {
            Request::Append(rpc) => {
                self.raft.append_entries(rpc).await.map_or_else(|_| stopped(), Response::Append)
            }
            Request::Vote(rpc) => self.raft.vote(rpc).await.map_or_else(|_| stopped(), Response::Vote),
            Request::Snapshot(rpc) => match self.raft.install_snapshot(rpc).await {
                Ok(answer) => Response::Snapshot(answer),
                Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(m))) => {
                    Response::SnapshotMismatch(m)
                }
                Err(RaftError::Fatal(_)) => stopped(),
            },
            // It takes part already.
            Request::Readmit { .. } => Response::MemberChanged,
            Request::Elect => {
                // Whoever asks can only lose by it; what decides is the votes.
                self.elect().await;
                Response::Electing
            }
            for_leader => self.lead(for_leader).await,
        }
    }

    /// Does what only the leader can.
    async fn lead(&self, request: Request) -> Response {
        if !self.is_leader() || self.stands_still() {
            return Response::NotLeader;
        }
        tokio::select! {
            response = self.lead_on(request) => response,
            // Another node will lead, and may find what this one began.
            () = self.until_still() => Response::Unknown,
        }
    }

    async fn lead_on(&self, request: Request) -> Response {
        match request {
            Request::Propose(command) => match self.raft.client_write(command).await {
                Ok(written) => Response::Proposed(written.data),
                // It led when it took the command: the entry may survive.
                Err(_) => Response::Unknown,
            },
            Request::ReadIndex => match self.raft.ensure_linearizable().await {
                Ok(read) => Response::ReadIndex(read.map(|id| id.index)),
                Err(_) => Response::NotLeader,
            },
            Request::Map { than } => self.lead_map(than),
            Request::AddMember { node, address } => self.lead_add_member(node, address).await,
            Request::RemoveMember { node } => self.lead_remove_member(node).await,
            Request::Append(_)
            | Request::Vote(_)
            | Request::Snapshot(_)
            | Request::Elect
            | Request::Readmit { .. } => Response::Fault(Fault::Malformed),
        }
    }
}

/// Opens the database. When both files are damaged and others have the group's log, they are put aside.
fn open(
    dir: &Path,
    node: NodeId,
    is_returning: bool,
) -> Result<(Writer, Loaded, Option<Damage>), StoreError> {
    match Writer::open(dir, node) {
        Err(StoreError::Corrupt { what, .. }) if is_returning => {
            let kept = put_both_aside(dir)?;
            let (writer, loaded, _) = Writer::open(dir, node)?;
            Ok((writer, loaded, Some(Damage { what, kept })))
        }
        other => other,
    }
}

/// What `with_leader` does with an answer.
pub(crate) enum Verdict<T> {
    Answer(T),
    Again,
}

pub(crate) fn stopped() -> Response {
    Response::Fault(Fault::Stopped)
}

/// Another copy of a request for the leader, to try again with.
fn copy_of(request: &Request) -> Request {
    match request {
        Request::Propose(command) => Request::Propose(command.clone()),
        Request::AddMember { node, address } => Request::AddMember { node: *node, address: address.clone() },
        Request::RemoveMember { node } => Request::RemoveMember { node: *node },
        Request::Map { than } => Request::Map { than: *than },
        // The others are not repeated; a read is the same each time.
        _ => Request::ReadIndex,
    }
}

fn raft_config(timings: &Timings) -> Config {
    let ms = |d: Duration| d.as_millis() as u64;
    Config {
        cluster_name: "holdfast".into(),
        heartbeat_interval: ms(timings.heartbeat),
        election_timeout_min: ms(timings.election_min),
        election_timeout_max: ms(timings.election_max),
        max_payload_entries: MAX_APPEND_ENTRIES,
        snapshot_max_chunk_size: SNAPSHOT_CHUNK_BYTES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(timings.snapshot_every),
        max_in_snapshot_log_to_keep: timings.snapshot_every / 2,
        replication_lag_threshold: timings.snapshot_every * 2,
        ..Config::default()
    }
}
