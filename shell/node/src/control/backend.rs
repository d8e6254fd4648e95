//! What the API can be asked, answered: from the map, by proposals, and by asking the nodes concerned. Any node
//! answers; proposals go to the leader by themselves.

use super::admin;
use super::check::{self, Checked};
use super::group;
use super::members;
use super::rpc::Kind;
use super::{Shared, unix_seconds, view};
use crate::config::LocalDisk;
use crate::setup::{DiskSpec, new_disk_id};
use bytes::Bytes;
use holdfast_api::backend::{Answer, CheckStream, EventStream};
use holdfast_api::server::{self, Access};
use holdfast_api::token::{self, AdminToken, JOIN_TOKEN_HOURS, JoinToken, Secret};
use holdfast_api::{ApiError, Backend, ErrorKind, model};
use holdfast_cluster::{
    Chap, Command, CommandError, CommandResult, Disk, FenceTarget, NewNode, Node, TokenHash, UnixSeconds,
};
use holdfast_consensus::ProposeError;
use holdfast_engine::{FrontEndKind, Input};
use holdfast_net::roster::key_hash;
use holdfast_net::{Authority, CaPin, Roster};
use holdfast_types::{Duration as Pace, GatewayId, Lsn, NodeId, SegmentKey, SessionId};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a removed node's vote is waited for.
const VOTE_GONE_WITHIN: Duration = Duration::from_secs(10);

/// What one node's API asks of another node. As JSON: both ends may be of different versions for a while.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum NodeRequest {
    /// Its sessions and resyncs.
    Report,
    /// To check a segment that it owns.
    Check(SegmentKey),
    /// To put a fence against a session into the log of a segment that it owns.
    Fence { segment: SegmentKey, gateway: GatewayId, session: SessionId },
    /// To hand over and stop.
    Stop,
    /// Whom it takes for members of the cluster.
    Members,
    /// The admin token that counts.
    AdminToken,
}

/// How long the report of another node is waited for; what it would say is left out then.
const REPORTED_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum NodeAnswer {
    Report(NodeReport),
    /// None: it does not own the segment.
    Checked(Option<Checked>),
    /// Whether the fence is committed.
    Fenced(bool),
    Stopping,
    Members(Roster),
    /// None: it does not have it.
    AdminToken(Option<String>),
    NotUnderstood,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct NodeReport {
    sessions: Vec<model::Session>,
    resyncs: Vec<Resync>,
}

/// A resync that a node's owner drives.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Resync {
    segment: SegmentKey,
    disk: String,
    progress: model::ResyncProgress,
}

/// The API's answers on this node.
#[derive(Clone)]
pub struct NodeBackend(pub(super) Arc<Shared>);

/// Serves the API on its socket and over TLS, and the metrics page.
pub async fn serve_api(shared: Arc<Shared>) -> anyhow::Result<()> {
    let backend: Arc<dyn Backend> = Arc::new(NodeBackend(shared.clone()));
    let unix = server::bind_unix(&shared.dir.api_socket()).await?;
    let tls = tokio::net::TcpListener::bind(shared.config.api_address()).await?;
    let page = tokio::net::TcpListener::bind(shared.config.metrics_address()).await?;
    let metrics = super::metrics::make(&shared);
    tokio::join!(
        server::serve_unix(unix, server::router(backend.clone(), Access::Socket)),
        server::serve_tls(
            tls,
            shared.identity.api_acceptor()?,
            server::router(backend, Access::Token(shared.accepted.clone()))
        ),
        server::serve_plain(page, server::metrics_router(metrics)),
    );
    Ok(())
}

/// Answers another node's API.
pub async fn answer_node(shared: &Arc<Shared>, request: Bytes) -> Bytes {
    let answer = match serde_json::from_slice(&request) {
        Ok(NodeRequest::Report) => NodeAnswer::Report(report(shared).await),
        Ok(NodeRequest::Check(segment)) => {
            NodeAnswer::Checked(check::check_here(shared, segment, Pace::ZERO).await)
        }
        Ok(NodeRequest::Fence { segment, gateway, session }) => {
            NodeAnswer::Fenced(fence_here(shared, segment, gateway, session).await)
        }
        Ok(NodeRequest::Stop) => {
            shared.stop.notify_one();
            NodeAnswer::Stopping
        }
        Ok(NodeRequest::AdminToken) => NodeAnswer::AdminToken(admin::current(shared).map(|t| t.to_string())),
        Ok(NodeRequest::Members) => NodeAnswer::Members(members::roster(&shared.map())),
        Err(_) => NodeAnswer::NotUnderstood,
    };
    serde_json::to_vec(&answer).unwrap_or_default().into()
}

/// What a node gets that is to be told nothing.
pub fn no_answer() -> Bytes {
    serde_json::to_vec(&NodeAnswer::NotUnderstood).unwrap_or_default().into()
}

async fn report(shared: &Shared) -> NodeReport {
    let Some(status) = shared.data.status().await else { return NodeReport::default() };
    let map = shared.map();
    let session = |s: &holdfast_engine::route::sessions::SessionStatus| model::Session {
        protocol: match s.kind {
            FrontEndKind::Iscsi => "iscsi".into(),
            FrontEndKind::Nbd => "nbd".into(),
        },
        initiator: s.initiator.clone(),
        volume: s.volume.and_then(|v| map.volumes.get(&v)).map(|v| v.name.clone()),
        node: shared.node.0,
    };
    let resyncs = status.owned.iter().flat_map(|(segment, owner)| {
        owner.copies.iter().filter_map(move |copy| {
            let resync = copy.resync.as_ref()?;
            let extent = holdfast_types::EXTENT_BYTES as u64;
            let progress = model::ResyncProgress {
                kind: match (resync.extents_total, resync.since) {
                    (0, _) => "journal".into(),
                    (_, Lsn(0)) => "full".into(),
                    _ => "changed-extents".into(),
                },
                done_bytes: u64::from(resync.extents_done) * extent,
                total_bytes: u64::from(resync.extents_total) * extent,
            };
            Some(Resync { segment: *segment, disk: copy.replica.disk.to_string(), progress })
        })
    });
    NodeReport { sessions: status.sessions.iter().map(session).collect(), resyncs: resyncs.collect() }
}

/// Has the owner of a segment fence a session. False: not done yet, ask again.
pub async fn fence(shared: &Arc<Shared>, owner: NodeId, segment: SegmentKey, target: FenceTarget) -> bool {
    let FenceTarget { gateway, session } = target;
    let answer =
        NodeBackend(shared.clone()).ask(owner, &NodeRequest::Fence { segment, gateway, session }).await;
    matches!(answer, Ok(NodeAnswer::Fenced(true)))
}

/// Whether a node's daemon runs and answers.
pub async fn answers(shared: &Arc<Shared>, node: NodeId) -> bool {
    NodeBackend(shared.clone()).report_of(node).await.is_some()
}

async fn fence_here(shared: &Shared, segment: SegmentKey, gateway: GatewayId, session: SessionId) -> bool {
    let (answer, wait) = oneshot::channel();
    let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
    shared.fences.lock().unwrap_or_else(|e| e.into_inner()).insert(number, answer);
    shared.data.input(Input::FenceSession { number, segment, gateway, session });
    wait.await.unwrap_or(false)
}

pub(super) static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

impl NodeBackend {
    async fn propose(&self, command: Command) -> Result<CommandResult, ApiError> {
        self.is_member()?;
        self.0.control.propose(command).await.map_err(api_error)
    }

    /// A node that has no place in the cluster any more changes nothing, and says why.
    fn is_member(&self) -> Result<(), ApiError> {
        match group::cast_out(*self.0.control.standing().borrow()) {
            Some(cast_out) => Err(ApiError::new(ErrorKind::Refused, cast_out.why)),
            None => Ok(()),
        }
    }

    pub(super) async fn ask(&self, node: NodeId, request: &NodeRequest) -> Result<NodeAnswer, ApiError> {
        let body: Bytes = serde_json::to_vec(request).unwrap_or_default().into();
        let answer = if node == self.0.node {
            answer_node(&self.0, body).await
        } else {
            let address = self.0.map().nodes.get(&node).map(|n| n.address.clone());
            let address = address.ok_or_else(|| ApiError::not_found("node", &node.to_string()))?;
            let answer = self.0.caller.ask(node, &address, Kind::Node, body).await;
            answer.map_err(|e| ApiError::new(ErrorKind::Unreachable, e.to_string()))?
        };
        serde_json::from_slice(&answer).map_err(|e| {
            ApiError::new(ErrorKind::Internal, format!("node {node} gave an unusable answer: {e}"))
        })
    }

    async fn reports(&self) -> Vec<NodeReport> {
        let map = view::seen(&self.0);
        // Who does not answer is not asked.
        let asked = map.nodes.values().filter(|n| n.state.answers()).map(|n| self.report_of(n.id));
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// Who has just stopped to answer is not waited for.
    async fn report_of(&self, node: NodeId) -> Option<NodeReport> {
        let answer = self.ask(node, &NodeRequest::Report);
        match tokio::time::timeout(REPORTED_WITHIN, answer).await {
            Ok(Ok(NodeAnswer::Report(report))) => Some(report),
            _ => None,
        }
    }

    fn find_node(&self, text: &str) -> Result<NodeId, ApiError> {
        let map = self.0.map();
        let by_id = text.parse().ok().map(NodeId).filter(|n| map.nodes.contains_key(n));
        by_id
            .or_else(|| map.node_named(text).map(|n| n.id))
            .ok_or_else(|| ApiError::not_found("node", text).hint("`holdfast node ls` lists them"))
    }

    fn find_volume(&self, name: &str) -> Result<holdfast_cluster::Volume, ApiError> {
        let map = self.0.map();
        map.volume_named(name)
            .cloned()
            .ok_or_else(|| ApiError::not_found("volume", name).hint("`holdfast volume ls` lists them"))
    }

    /// By the whole id or the start of one, or by path; of disks at one path those of this node come first.
    fn find_disk(&self, text: &str) -> Result<Disk, ApiError> {
        let map = self.0.map();
        let start = text.to_ascii_lowercase();
        let all =
            |is_meant: &dyn Fn(&Disk) -> bool| map.disks.values().filter(|d| is_meant(d)).collect::<Vec<_>>();
        let mut found = all(&|d| d.id.to_string().starts_with(&start));
        if found.is_empty() {
            found = all(&|d| d.path == text && d.node == self.0.node);
        }
        if found.is_empty() {
            found = all(&|d| d.path == text);
        }
        match found[..] {
            [] => Err(ApiError::not_found("disk", text).hint("`holdfast disk ls` lists them")),
            [disk] => Ok(disk.clone()),
            _ => {
                let each = found.iter().map(|d| format!("{} of node {}", d.id, d.node)).collect::<Vec<_>>();
                let what = format!("{text:?} may be each of {} disks: {}", found.len(), each.join(", "));
                Err(ApiError::new(ErrorKind::Invalid, what).hint("give more of the id"))
            }
        }
    }

    async fn take_node_out(&self, text: &str) -> Result<(), ApiError> {
        let shared = &self.0;
        let node = self.find_node(text)?;
        let name = shared.map().nodes.get(&node).map(|n| n.name.clone()).unwrap_or_default();
        self.propose(Command::RemoveNode { node }).await?;
        let what = format!("node {node} ({name}) was removed, and its disks with it");
        shared.events.operator("node-removed", what);
        if shared.control.has_left(node, VOTE_GONE_WITHIN).await {
            return Ok(());
        }
        let what = format!("node {node} is removed, but its vote in the control plane is not gone yet");
        Err(ApiError::new(ErrorKind::Unknown, what)
            .hint("the leader goes on trying; `holdfast status` says so for as long as it is there"))
    }

    async fn take_disk_out(&self, text: &str) -> Result<(), ApiError> {
        let Disk { id: disk, node, path, .. } = self.find_disk(text)?;
        self.propose(Command::RemoveDisk { disk }).await?;
        self.0.events.operator("disk-removed", format!("disk {disk} at {path} of node {node} was removed"));
        Ok(())
    }

    async fn join_node(&self, request: model::JoinRequest) -> Result<model::JoinAnswer, ApiError> {
        let shared = &self.0;
        let bad = |what: &str| {
            ApiError::new(ErrorKind::Invalid, format!("the join request's {what} is not usable"))
        };
        let secret = Secret::from_hex(&request.secret).ok_or_else(|| bad("secret"))?;
        let key = token::from_hex(&request.public_key).ok_or_else(|| bad("public key"))?;
        let ip: std::net::IpAddr = request.address.parse().map_err(|_| bad("address"))?;
        let address = std::net::SocketAddr::new(ip, request.node_port).to_string();
        let admin = admin::current(shared).ok_or_else(|| {
            let what = "this node does not have the cluster's admin token yet, which was just replaced";
            ApiError::new(ErrorKind::Unavailable, what).hint("try again in a moment")
        })?;
        let before = shared.map();
        let hash = TokenHash(secret.hash());
        let new = NewNode { name: request.name.clone(), address, key: key_hash(&key) };
        let command = Command::UseToken { hash, now: unix_seconds(), node: new };
        let CommandResult::Node(node) = self.propose(command).await? else { return Err(odd_answer()) };
        let internal = |e: &dyn std::fmt::Display| ApiError::new(ErrorKind::Internal, e.to_string());
        let authority = Authority::load(&shared.dir.identity()).map_err(|e| internal(&e))?;
        let certificate = authority.issue(node, &key).map_err(|e| internal(&e))?;
        shared.events.operator("node-joined", format!("node {node} ({}) was admitted", request.name));
        Ok(model::JoinAnswer {
            cluster: before.cluster.to_string(),
            cluster_name: before.name.clone(),
            node: node.0,
            certificate,
            authority: authority.certificate_pem().into(),
            authority_key: authority.key_pem(),
            admin_token: admin.to_string(),
            peers: before.nodes.values().map(|n| (n.id.0, peer(n))).collect(),
        })
    }

    async fn add_local_disk(&self, request: model::AddDisk) -> Result<model::Disk, ApiError> {
        self.is_member()?;
        let shared = &self.0;
        let pool = request.pool.unwrap_or_else(|| crate::config::DEFAULT_POOL.into());
        if !shared.map().pools.contains_key(&pool) {
            return Err(ApiError::not_found("pool", &pool).hint("`holdfast pool ls` lists them"));
        }
        let spec = DiskSpec { path: PathBuf::from(&request.path), size: request.size };
        let wipe = request.wipe;
        // First: a disk that is still being looked for at that path would be opened there as soon as a file is made.
        let mut disks = shared.disks.lock().await;
        let prepared = tokio::task::spawn_blocking(move || spec.prepare(wipe, &mut |_| {})).await;
        let refused = |e: &dyn std::fmt::Display| ApiError::new(ErrorKind::Refused, e.to_string());
        let path = prepared.map_err(|e| refused(&e))?.map_err(|e| refused(&e))?;
        let disk = LocalDisk { path, id: new_disk_id() };
        disks.prewrite(shared, &disk).await.map_err(|e| refused(&format!("{e:#}")))?;
        let added = async {
            disks.add(shared, &shared.data, &disk, &pool).await?;
            let mut listed = shared.dir.load_disks()?;
            // What was at that path before is not there any more.
            listed.retain(|d| d.path != disk.path);
            listed.push(disk.clone());
            anyhow::Ok(shared.dir.save_disks(&listed)?)
        };
        if let Err(error) = added.await {
            let why = format!("{error:#}");
            disks.give_up(shared, &disk, &why).await;
            return Err(refused(&why));
        }
        disks.supersede(shared, &disk).await;
        shared.events.operator("disk-added", format!("disk {} at {}", disk.id, disk.path.display()));
        let map = shared.newest_map().await;
        map.disks.get(&disk.id).map(|d| view::disk(&map, d)).ok_or_else(odd_answer)
    }
}

/// For the event log: whether it was accepted that acknowledged writes are lost.
fn accepted(request: &model::Lose) -> &'static str {
    if request.accept_loss { ", acknowledged writes or not" } else { "" }
}

/// A node, as one that joins is told of it.
fn peer(node: &Node) -> model::Peer {
    model::Peer { address: node.address.clone(), key: node.key }
}

fn odd_answer() -> ApiError {
    ApiError::new(ErrorKind::Internal, "control answered something else than was asked")
}

fn api_error(error: ProposeError) -> ApiError {
    let kind = match &error {
        ProposeError::Unavailable => ErrorKind::Unavailable,
        ProposeError::Unknown => ErrorKind::Unknown,
        ProposeError::TooLong { .. } => ErrorKind::Invalid,
        ProposeError::Rejected(error) => match error {
            CommandError::BadName { .. }
            | CommandError::BadSize { .. }
            | CommandError::BadCopies { .. }
            | CommandError::BadChapSecret { .. }
            | CommandError::TooLong { .. } => ErrorKind::Invalid,
            CommandError::NameTaken { .. } | CommandError::DiskTaken { .. } => ErrorKind::Conflict,
            CommandError::NoSuchName { .. }
            | CommandError::NoSuchNode(_)
            | CommandError::NoSuchDisk(_)
            | CommandError::NoSuchVolume(_) => ErrorKind::NotFound,
            CommandError::NoSuchToken => ErrorKind::Unauthorized,
            CommandError::TokenUsed { .. } => ErrorKind::TokenUsed,
            CommandError::TokenExpired => ErrorKind::TokenExpired,
            _ => ErrorKind::Refused,
        },
    };
    let answer = ApiError::new(kind, error.to_string());
    match hint(&error) {
        Some(hint) => answer.hint(hint),
        None => answer,
    }
}

/// What to do about it.
fn hint(error: &ProposeError) -> Option<String> {
    let text = match error {
        ProposeError::Unavailable => "`holdfast status` says which nodes are missing",
        ProposeError::Unknown => "look whether it was made before you repeat it",
        ProposeError::Rejected(CommandError::NodeAnswers { node }) => {
            return Some(format!("stop it first: `holdfast node stop {node}`"));
        }
        ProposeError::Rejected(CommandError::NameTaken { what, .. }) if what == "node" => {
            "hosts made from one image have one name: give this one another with --node-name"
        }
        ProposeError::Rejected(CommandError::WouldLose { .. }) => {
            "bring back its host, or put its disks and data folder into another one, if at all possible; else add --accept-loss"
        }
        ProposeError::Rejected(CommandError::NodeInUse { .. }) => {
            "they get another place once it has been away for a while; `holdfast status` says what that waits for"
        }
        ProposeError::Rejected(CommandError::DiskServes { .. }) => {
            "only a disk that is failed or missing, or whose node does not answer, is removed; given up also one that is slow"
        }
        ProposeError::Rejected(CommandError::DiskInUse { .. }) => {
            "they are placed anew by themselves; `holdfast status` says what that waits for"
        }
        ProposeError::Rejected(_) | ProposeError::TooLong { .. } => return None,
    };
    Some(text.to_owned())
}

impl Backend for NodeBackend {
    fn status(&self) -> Answer<'_, model::Status> {
        Box::pin(async move {
            let shared = &self.0;
            let unwritten = view::unwritten(shared);
            // Who hears no majority, or cannot write what it decides, need not wait for its answer.
            let fresh = match view::Alone::now(shared).lost_majority() {
                true => None,
                false if shared.control.unwritten().is_some() => Some(shared.map()),
                false => shared.control.linearizable_map().await,
            };
            let mut status = match fresh {
                Some(map) => view::status(&map, &shared.control.metrics(), None, shared.node),
                None => view::without_majority(shared),
            };
            let more = [unwritten, view::broken_paths(&shared.heartbeats)].concat();
            if status.health == model::Health::Healthy && !more.is_empty() {
                // Who restarts hosts in turn waits: the next one may be the one that all goes through.
                status.health = model::Health::Degraded;
            }
            status.problems.extend(more);
            Ok(status)
        })
    }
    fn nodes(&self) -> Answer<'_, Vec<model::Node>> {
        Box::pin(async move { Ok(view::nodes(&view::seen(&self.0), self.0.control.leader())) })
    }
    fn node(&self, node: String) -> Answer<'_, model::NodeDetail> {
        Box::pin(async move {
            let id = self.find_node(&node)?;
            let map = view::seen(&self.0);
            let entry = map.nodes.get(&id).ok_or_else(|| ApiError::not_found("node", &node))?;
            let report = if entry.state.answers() { self.report_of(id).await } else { None };
            let sessions = report.map(|r| r.sessions).unwrap_or_default();
            let here = (id == self.0.node).then_some(&self.0.config);
            Ok(model::NodeDetail {
                node: view::node(&map, entry, self.0.control.leader()),
                api: here.map(|c| c.api_address()),
                iscsi: here.map(|c| c.iscsi_address()),
                nbd: here.map(|c| c.nbd_address()),
                attached: map.disks_of(id).map(|d| view::disk(&map, d)).collect(),
                sessions,
            })
        })
    }
    fn disks(&self) -> Answer<'_, Vec<model::Disk>> {
        Box::pin(async move {
            let map = view::seen(&self.0);
            Ok(map.disks.values().map(|d| view::disk(&map, d)).collect())
        })
    }
    fn disk(&self, disk: String) -> Answer<'_, model::Disk> {
        Box::pin(async move { self.find_disk(&disk).map(|d| view::disk(&view::seen(&self.0), &d)) })
    }
    fn pools(&self) -> Answer<'_, Vec<model::Pool>> {
        Box::pin(async move { Ok(view::pools(&view::seen(&self.0))) })
    }
    fn volumes(&self) -> Answer<'_, Vec<model::Volume>> {
        Box::pin(async move {
            let map = view::seen(&self.0);
            Ok(map.volumes.values().map(|v| view::volume(&map, v)).collect())
        })
    }
    fn volume(&self, name: String) -> Answer<'_, model::VolumeDetail> {
        Box::pin(async move {
            let volume = self.find_volume(&name)?;
            let map = view::seen(&self.0);
            let reports = self.reports().await;
            let mut segments: Vec<_> = map.segments_of(volume.id).map(|s| view::segment(&map, s)).collect();
            for resync in reports.iter().flat_map(|r| &r.resyncs) {
                let index = resync.segment.segment.index as usize;
                if resync.segment.segment.volume == volume.id
                    && let Some(segment) = segments.get_mut(index)
                    && let Some(copy) = segment.copies.iter_mut().find(|c| c.disk == resync.disk)
                {
                    copy.resync = Some(resync.progress.clone());
                }
            }
            let to_it = |s: &model::Session| s.volume.as_deref() == Some(name.as_str());
            let sessions = reports.into_iter().flat_map(|r| r.sessions).filter(to_it).collect();
            Ok(model::VolumeDetail {
                volume: view::volume(&map, &volume),
                urls: view::urls(&map, &name, self.0.config.ports),
                segments,
                sessions,
            })
        })
    }
    fn create_volume(&self, request: model::CreateVolume) -> Answer<'_, model::Volume> {
        Box::pin(async move {
            let up = self.0.map().nodes.len().min(3) as u8;
            let command = Command::CreateVolume {
                name: request.name.clone(),
                size: request.size,
                copies: request.copies.unwrap_or(up.max(1)),
                pool: request.pool.unwrap_or_else(|| crate::config::DEFAULT_POOL.into()),
                created: unix_seconds(),
            };
            let CommandResult::Volume(id) = self.propose(command).await? else { return Err(odd_answer()) };
            let what = format!("volume {} of {} bytes created", request.name, request.size);
            self.0.events.operator("volume-created", what);
            let map = self.0.newest_map().await;
            map.volumes.get(&id).map(|v| view::volume(&map, v)).ok_or_else(odd_answer)
        })
    }
    fn resize_volume(&self, name: String, request: model::ResizeVolume) -> Answer<'_, model::Volume> {
        Box::pin(async move {
            let volume = self.find_volume(&name)?.id;
            self.propose(Command::ResizeVolume { volume, size: request.size }).await?;
            self.0.events.operator("volume-resized", format!("volume {name} has {} bytes now", request.size));
            let map = self.0.newest_map().await;
            map.volumes.get(&volume).map(|v| view::volume(&map, v)).ok_or_else(odd_answer)
        })
    }
    fn delete_volume(&self, name: String) -> Answer<'_, ()> {
        Box::pin(async move {
            let volume = self.find_volume(&name)?.id;
            self.propose(Command::DeleteVolume { volume }).await?;
            self.0.events.operator("volume-deleted", format!("volume {name} deleted"));
            // Who asks here next does not find it any more, whichever node leads.
            self.0.newest_map().await;
            Ok(())
        })
    }
    fn check_volume(&self, name: String) -> Answer<'_, CheckStream> {
        Box::pin(async move { Ok(check::steps(self.clone(), self.find_volume(&name)?)) })
    }
    fn add_disk(&self, request: model::AddDisk) -> Answer<'_, model::Disk> {
        Box::pin(self.add_local_disk(request))
    }
    fn create_token(&self) -> Answer<'_, model::Token> {
        Box::pin(async move {
            let secret = Secret::generate();
            let expires = UnixSeconds(unix_seconds().0 + JOIN_TOKEN_HOURS * 3600);
            self.propose(Command::CreateToken { hash: TokenHash(secret.hash()), expires }).await?;
            let pin = CaPin::of(self.0.identity.authority());
            let token = JoinToken { address: self.0.config.api_address(), pin, secret }.to_string();
            self.0.events.operator("token-created", "a join token was made".into());
            let command = format!("holdfast join {token} --addr ADDRESS --disk PATH");
            Ok(model::Token { token, expires_ms: expires.0 * 1000, command })
        })
    }
    fn rotate_admin_token(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let shared = &self.0;
            let pin = CaPin::of(shared.identity.authority());
            let token = AdminToken { pin, secret: Secret::generate() };
            self.propose(Command::RotateAdminToken { hash: TokenHash(token.secret.hash()) }).await?;
            shared.events.operator("admin-token-rotated", "the admin token was replaced".into());
            let map = shared.newest_map().await;
            // Another one may have been quicker: then this node gets that one, as the others do.
            if map.admin_token != Some(TokenHash(token.secret.hash())) {
                return Ok(());
            }
            let saved = shared.dir.save_admin_token(&token);
            saved.map_err(|e| {
                ApiError::new(ErrorKind::Internal, e.to_string())
                    .hint("no node has the new token: run it again, on another node")
            })
        })
    }
    fn join(&self, request: model::JoinRequest) -> Answer<'_, model::JoinAnswer> {
        Box::pin(self.join_node(request))
    }
    fn stop_node(&self, node: String) -> Answer<'_, ()> {
        Box::pin(async move {
            let id = self.find_node(&node)?;
            self.ask(id, &NodeRequest::Stop).await.map(drop)
        })
    }
    fn lose_node(&self, node: String, request: model::Lose) -> Answer<'_, ()> {
        Box::pin(async move {
            let (node, accept_loss) = (self.find_node(&node)?, request.accept_loss);
            self.propose(Command::NodeLost { node, accept_loss }).await?;
            let what = format!("node {node} is gone for good with its disks{}", accepted(&request));
            self.0.events.operator("node-lost", what);
            Ok(())
        })
    }
    fn lose_disk(&self, disk: String, request: model::Lose) -> Answer<'_, ()> {
        Box::pin(async move {
            let Disk { id: disk, node, path, .. } = self.find_disk(&disk)?;
            self.propose(Command::DiskLost { disk, accept_loss: request.accept_loss }).await?;
            let what = format!("disk {disk} at {path} of node {node} is gone for good{}", accepted(&request));
            self.0.events.operator("disk-lost", what);
            Ok(())
        })
    }
    fn salvage_volume(&self, name: String) -> Answer<'_, ()> {
        Box::pin(async move {
            let volume = self.find_volume(&name)?.id;
            self.propose(Command::Salvage { volume }).await?;
            let what = format!("volume {name} goes on with the copies that are left");
            self.0.events.operator("volume-salvaged", what);
            Ok(())
        })
    }
    fn remove_node(&self, node: String) -> Answer<'_, ()> {
        Box::pin(async move { self.take_node_out(&node).await })
    }
    fn remove_disk(&self, disk: String) -> Answer<'_, ()> {
        Box::pin(async move { self.take_disk_out(&disk).await })
    }
    fn events(&self, query: model::EventQuery) -> Answer<'_, Vec<model::Event>> {
        Box::pin(async move {
            let events = self.0.events.log().tail(query);
            events.map_err(|e| ApiError::new(ErrorKind::Internal, e.to_string()))
        })
    }
    fn follow_events(&self, query: model::EventQuery) -> Answer<'_, EventStream> {
        Box::pin(async move {
            let events = self.0.events.log().follow(query);
            events.map_err(|e| ApiError::new(ErrorKind::Internal, e.to_string()))
        })
    }
    fn set_chap(&self, chap: Option<model::SetChap>) -> Answer<'_, ()> {
        Box::pin(async move {
            let what = if chap.is_some() { "iSCSI logins need CHAP" } else { "iSCSI logins need no CHAP" };
            let chap = chap.map(|c| Chap { user: c.user, secret: c.secret });
            self.propose(Command::SetChap { chap }).await?;
            self.0.events.operator("chap-set", what.into());
            Ok(())
        })
    }
}
