//! A made-up cluster of two nodes behind the API, for tests of the server, the client and the command. It keeps
//! volumes and tokens in memory, answers everything else with fixed values, and is wrong about nothing that a
//! test could not see.

use crate::backend::{Answer, Backend, CheckStream, EventStream};
use crate::error::{ApiError, ErrorKind};
use crate::events::EventLog;
use crate::model::*;
use crate::token::{AdminToken, JoinToken, Secret, from_hex};
use futures::future::{FutureExt, ready};
use futures::stream::{self, StreamExt};
use holdfast_net::{Authority, CaPin};
use holdfast_types::{ClusterId, KeyHash, NodeId};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};

/// What the fake pool has.
const POOL_BYTES: u64 = 10 << 30;
/// A moment that is the same in every run: 2026-01-02 03:04:05 UTC.
const MADE_MS: u64 = 1_767_323_045_000;

/// The made-up cluster.
pub struct Fake {
    /// Its authority.
    pub authority: Authority,
    /// The token of its API.
    pub admin_token: AdminToken,
    events: EventLog,
    api: SocketAddr,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    volumes: BTreeMap<String, Volume>,
    /// By hash of the secret: whether it was used.
    tokens: BTreeMap<[u8; 32], bool>,
    joined: u16,
    chap: Option<SetChap>,
    stopped: Vec<String>,
    removed: Vec<String>,
}

impl Fake {
    /// A cluster whose API is said to listen at `api`.
    pub fn new(events: EventLog, api: SocketAddr) -> Self {
        // The kernel's random bytes and the library's defaults do not fail.
        let authority = Authority::create(ClusterId(0xfa4e)).expect("an authority can be made");
        let admin_token = AdminToken { pin: CaPin::of(authority.certificate()), secret: Secret::generate() };
        Self { authority, admin_token, events, api, state: Mutex::default() }
    }

    /// The name and secret that were last set.
    pub fn chap(&self) -> Option<SetChap> {
        self.state().chap.clone()
    }
    /// The nodes that were stopped.
    pub fn stopped(&self) -> Vec<String> {
        self.state().stopped.clone()
    }
    /// The nodes and disks that were removed.
    pub fn removed(&self) -> Vec<String> {
        self.state().removed.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn some_nodes(&self) -> Vec<Node> {
        let node = |id: u16, name: &str, state, leader| Node {
            id,
            name: name.into(),
            address: format!("127.0.0.{id}"),
            state,
            leader,
            incarnation: 3,
            disks: 2 - u32::from(id),
            owned_segments: u64::from(leader) * 4,
            copies: 4,
        };
        vec![node(1, "alpha", NodeState::Up, true), node(2, "beta", NodeState::Down, false)]
    }

    fn some_disks(&self) -> Vec<Disk> {
        vec![Disk {
            id: "3fa2".repeat(8),
            node: 1,
            path: "/dev/sdb".into(),
            incarnation: 1,
            pool: "default".into(),
            size: POOL_BYTES,
            free: POOL_BYTES / 2,
            copies: 4,
            ..Disk::default()
        }]
    }

    fn some_pools(&self) -> Vec<Pool> {
        let volumes = self.state().volumes.len() as u32;
        let (size, free) = (POOL_BYTES, POOL_BYTES / 2);
        vec![Pool { name: "default".into(), disks: 1, size, free, promised: 0, volumes }]
    }

    fn a_volume(&self, name: &str) -> Result<Volume, ApiError> {
        self.state().volumes.get(name).cloned().ok_or_else(|| ApiError::not_found("volume", name))
    }

    fn room(size: u64) -> Result<(), ApiError> {
        if size <= 10 * POOL_BYTES {
            return Ok(());
        }
        let (want, have) = (crate::size::show(size), crate::size::show(10 * POOL_BYTES));
        Err(ApiError::new(
            ErrorKind::Refused,
            format!("a volume of {want} is more than pool default may promise, {have}"),
        )
        .hint("make it smaller or add disks"))
    }

    fn create(&self, request: CreateVolume) -> Result<Volume, ApiError> {
        Self::room(request.size)?;
        let mut state = self.state();
        if state.volumes.contains_key(&request.name) {
            let what = format!("volume {:?} exists already", request.name);
            return Err(ApiError::new(ErrorKind::Conflict, what).hint("choose another name"));
        }
        let volume = Volume {
            id: state.volumes.len() as u64 + 1,
            iqn: format!("iqn.2026-11.io.holdfast:{}", request.name),
            name: request.name.clone(),
            size: request.size,
            allocated: Some(0),
            pool: request.pool.unwrap_or_else(|| "default".into()),
            copies: request.copies.unwrap_or(2),
            health: Health::Degraded,
            created_ms: MADE_MS,
        };
        state.volumes.insert(request.name, volume.clone());
        Ok(volume)
    }

    fn detail(&self, name: &str) -> Result<VolumeDetail, ApiError> {
        let volume = self.a_volume(name)?;
        let url = |node: u16| VolumeUrls {
            node,
            iscsi: format!("iscsi://127.0.0.{node}:3260/{}/0", volume.iqn),
            nbd: format!("nbd://127.0.0.{node}:10809/{name}"),
        };
        let resync =
            ResyncProgress { kind: "changed-extents".into(), done_bytes: 256 << 20, total_bytes: 512 << 20 };
        let copies = vec![
            SegmentCopy { node: 1, disk: "3fa2".repeat(8), ..SegmentCopy::default() },
            SegmentCopy { node: 2, disk: "77".repeat(16), state: CopyState::Resyncing, resync: Some(resync) },
        ];
        let segment = Segment { index: 0, owner: 1, granted_epoch: 4, active_epoch: 3, copies };
        let session = Session {
            protocol: "iscsi".into(),
            initiator: "iqn.2004-01.example:\u{1b}[2Jhost".into(),
            volume: Some(name.into()),
            node: 1,
        };
        Ok(VolumeDetail {
            urls: vec![url(1), url(2)],
            segments: vec![segment],
            sessions: vec![session],
            volume,
        })
    }

    fn admit(&self, request: JoinRequest) -> Result<JoinAnswer, ApiError> {
        let invalid = |what: &str| ApiError::new(ErrorKind::Invalid, what);
        let secret = Secret::from_hex(&request.secret).ok_or_else(|| invalid("the secret is garbled"))?;
        let key = from_hex(&request.public_key).ok_or_else(|| invalid("the public key is garbled"))?;
        let mut state = self.state();
        match state.tokens.get_mut(&secret.hash()) {
            None => {
                let what = "this token was not given out by this cluster, or has expired";
                return Err(ApiError::new(ErrorKind::TokenExpired, what));
            }
            Some(true) => return Err(ApiError::new(ErrorKind::TokenUsed, "this token was used already")),
            Some(used) => *used = true,
        }
        state.joined += 1;
        let node = 1 + state.joined;
        let certificate = self.authority.issue(NodeId(node), &key).map_err(|e| invalid(&e.to_string()))?;
        Ok(JoinAnswer {
            cluster: self.authority.cluster().to_string(),
            cluster_name: "lab".into(),
            node,
            certificate,
            authority: self.authority.certificate_pem().into(),
            authority_key: self.authority.key_pem(),
            admin_token: self.admin_token.to_string(),
            peers: [(1, Peer { address: "127.0.0.1:7400".into(), key: KeyHash([7; 32]) })].into(),
        })
    }

    fn new_token(&self) -> Token {
        let secret = Secret::generate();
        self.state().tokens.insert(secret.hash(), false);
        let token = JoinToken { address: self.api, pin: self.admin_token.pin, secret }.to_string();
        Token {
            command: format!("holdfast join {token} --addr ADDRESS --disk PATH"),
            token,
            expires_ms: MADE_MS,
        }
    }
}

fn answer<T: Send + 'static>(result: Result<T, ApiError>) -> Answer<'static, T> {
    ready(result).boxed()
}

impl Backend for Fake {
    fn status(&self) -> Answer<'_, Status> {
        answer(Ok(Status {
            cluster: self.authority.cluster().to_string(),
            name: "lab".into(),
            answered_by: 1,
            version: "0.1.0".into(),
            leader: Some(1),
            control_quorum: true,
            map_version: 12,
            map_age_ms: None,
            silent: Vec::new(),
            health: Health::Degraded,
            problems: vec!["node 2 (beta) is down since 03:04:05".into()],
            nodes: self.some_nodes(),
            pools: self.some_pools(),
            volumes: self.state().volumes.values().cloned().collect(),
            segments: SegmentCounts { total: 4, healthy: 3, degraded: 1, resyncing: 0, stalled: 0 },
        }))
    }
    fn nodes(&self) -> Answer<'_, Vec<Node>> {
        answer(Ok(self.some_nodes()))
    }
    fn node(&self, node: String) -> Answer<'_, NodeDetail> {
        let found = self.some_nodes().into_iter().find(|n| n.name == node || n.id.to_string() == node);
        let detail = |n| NodeDetail {
            node: n,
            api: Some(self.api),
            attached: self.some_disks(),
            ..NodeDetail::default()
        };
        answer(found.map(detail).ok_or_else(|| ApiError::not_found("node", &node)))
    }
    fn disks(&self) -> Answer<'_, Vec<Disk>> {
        answer(Ok(self.some_disks()))
    }
    fn disk(&self, disk: String) -> Answer<'_, Disk> {
        let found = self.some_disks().into_iter().find(|d| d.id.starts_with(&disk) || d.path == disk);
        answer(found.ok_or_else(|| ApiError::not_found("disk", &disk)))
    }
    fn pools(&self) -> Answer<'_, Vec<Pool>> {
        answer(Ok(self.some_pools()))
    }
    fn volumes(&self) -> Answer<'_, Vec<Volume>> {
        answer(Ok(self.state().volumes.values().cloned().collect()))
    }
    fn volume(&self, name: String) -> Answer<'_, VolumeDetail> {
        answer(self.detail(&name))
    }
    fn create_volume(&self, request: CreateVolume) -> Answer<'_, Volume> {
        answer(self.create(request))
    }
    fn resize_volume(&self, name: String, request: ResizeVolume) -> Answer<'_, Volume> {
        answer(Self::room(request.size).and_then(|()| self.a_volume(&name)).map(|mut volume| {
            volume.size = request.size;
            self.state().volumes.insert(name, volume.clone());
            volume
        }))
    }
    fn delete_volume(&self, name: String) -> Answer<'_, ()> {
        answer(self.a_volume(&name).map(|_| drop(self.state().volumes.remove(&name))))
    }
    fn check_volume(&self, name: String) -> Answer<'_, CheckStream> {
        answer(self.a_volume(&name).map(|volume| {
            let finding = CheckFinding {
                offset: 8192,
                len: 4096,
                node: 2,
                disk: "77".repeat(16),
                what: "wrong checksum".into(),
                ..CheckFinding::default()
            };
            let findings = if volume.name == "bad" { vec![finding] } else { vec![] };
            let report =
                CheckReport { volume: volume.name, segments: 1, bytes: 1 << 20, skipped: vec![], findings };
            let progress = CheckStep::Progress { segments_done: 0, segments_total: 1, bytes: 4096 };
            stream::iter([progress, CheckStep::Report(report)]).boxed()
        }))
    }
    fn add_disk(&self, request: AddDisk) -> Answer<'_, Disk> {
        let size = request.size.unwrap_or(POOL_BYTES);
        answer(Ok(Disk {
            id: "88".repeat(16),
            node: 1,
            path: request.path,
            size,
            pool: "default".into(),
            ..Disk::default()
        }))
    }
    fn create_token(&self) -> Answer<'_, Token> {
        answer(Ok(self.new_token()))
    }
    fn rotate_admin_token(&self) -> Answer<'_, ()> {
        answer(Ok(()))
    }
    fn join(&self, request: JoinRequest) -> Answer<'_, JoinAnswer> {
        answer(self.admit(request))
    }
    fn stop_node(&self, node: String) -> Answer<'_, ()> {
        self.state().stopped.push(node);
        answer(Ok(()))
    }
    fn lose_node(&self, node: String, request: Lose) -> Answer<'_, ()> {
        self.state().removed.push(format!("{node}, accepting {}", request.accept_loss));
        answer(Ok(()))
    }
    fn lose_disk(&self, disk: String, request: Lose) -> Answer<'_, ()> {
        self.state().removed.push(format!("{disk}, accepting {}", request.accept_loss));
        answer(Ok(()))
    }
    fn salvage_volume(&self, name: String) -> Answer<'_, ()> {
        self.state().removed.push(name);
        answer(Ok(()))
    }
    fn remove_node(&self, node: String) -> Answer<'_, ()> {
        let found = self.some_nodes().into_iter().find(|n| n.name == node || n.id.to_string() == node);
        answer(match found.map(|n| n.state) {
            None => Err(ApiError::not_found("node", &node)),
            Some(NodeState::Down) => {
                self.state().removed.push(node);
                Ok(())
            }
            Some(_) => Err(ApiError::new(ErrorKind::Refused, format!("node {node} answers"))
                .hint(format!("stop it first: `holdfast node stop {node}`"))),
        })
    }
    fn remove_disk(&self, disk: String) -> Answer<'_, ()> {
        self.state().removed.push(disk);
        answer(Ok(()))
    }
    fn events(&self, query: EventQuery) -> Answer<'_, Vec<Event>> {
        answer(self.events.tail(query).map_err(|e| ApiError::new(ErrorKind::Internal, e.to_string())))
    }
    fn follow_events(&self, query: EventQuery) -> Answer<'_, EventStream> {
        answer(self.events.follow(query).map_err(|e| ApiError::new(ErrorKind::Internal, e.to_string())))
    }
    fn set_chap(&self, chap: Option<SetChap>) -> Answer<'_, ()> {
        self.state().chap = chap;
        answer(Ok(()))
    }
}
