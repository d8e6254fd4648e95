//! The control thread: this node's part in consensus, heartbeats, the disks' openings, the API, and what the data
//! thread's engine asks of control. One current-thread runtime; nothing here is on the way of an I/O.

pub mod admin;
pub mod backend;
pub mod check;
pub mod disks;
pub mod events;
pub mod group;
pub mod heartbeat;
pub mod members;
pub mod metrics;
pub mod proposals;
pub mod room;
pub mod rpc;
pub mod scrub;
pub mod sessions;
pub mod stop;
pub mod strangers;
pub mod view;

use crate::config::{Bootstrap, Config, DataDir, Start};
use crate::data::{DataHandle, Order, Peers, Report, boot_time};
use anyhow::Context;
use bytes::Bytes;
use disks::{LocalDisks, Opening, fresh_nonce};
use events::Events;
use futures::future::BoxFuture;
use heartbeat::Heartbeats;
use holdfast_api::token::Accepted;
use holdfast_cluster::{
    ClusterMap, Command, CommandResult, Disk, DiskState, NewNode, TokenHash, UnixSeconds,
};
use holdfast_consensus::{Control, Director, DirectorConfig, ProposeError};
use holdfast_engine::{EngineConfig, EngineEvent, Input};
use holdfast_net::{Identity, Listener, Purpose, Refusals};
use holdfast_store::StoreEvent;
use holdfast_types::{DiskId, NodeId, SegmentKey};
use rpc::{Caller, Kind};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};

/// How often a disk that cannot be opened is tried again, and how long between.
const ATTACH_TRIES: u32 = 10;
const ATTACH_AGAIN: Duration = Duration::from_millis(300);
/// Between attempts of what must succeed in the end.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// Directors' events that wait to be logged.
const DIRECTOR_EVENTS: usize = 256;
/// Between looks at the certificate.
const RENEWAL_EVERY: Duration = Duration::from_secs(24 * 3600);

/// What the tasks of the control thread share.
pub struct Shared {
    /// This node.
    pub node: NodeId,
    /// Its data folder.
    pub dir: DataDir,
    /// Its configuration.
    pub config: Config,
    /// The engine's.
    pub engine: EngineConfig,
    /// Its certificate.
    pub identity: Identity,
    /// Its part in consensus.
    pub control: Control,
    /// The way to other nodes.
    pub caller: Caller,
    /// Heartbeats to other nodes, and theirs.
    pub heartbeats: Arc<Heartbeats>,
    /// Whom its listeners did not let in.
    pub refusals: Refusals,
    /// The way to the engine.
    pub data: DataHandle,
    /// The event log.
    pub events: Events,
    /// Checks that the engine is carrying out.
    pub checks: Mutex<BTreeMap<u64, oneshot::Sender<Option<holdfast_replication::CheckReport>>>>,
    /// Fences that the engine is putting into logs.
    pub fences: Mutex<BTreeMap<u64, oneshot::Sender<bool>>>,
    /// The disks' openings.
    pub disks: tokio::sync::Mutex<LocalDisks>,
    /// A disk of this node's does not answer, or answers again.
    pub disk_news: Notify,
    /// This node was asked to stop.
    pub stop: Notify,
    /// The copies of a node that has been away for so long are placed anew.
    pub replace_after: Duration,
    /// Every segment is read and compared once in so long; zero: never.
    pub scrub_every: Duration,
    /// What that came to.
    pub scrubbed: scrub::Scrubbed,
    /// The admin token that the API takes.
    pub accepted: Accepted,
}

impl Shared {
    /// The map as this node knows it.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.control.map().borrow().clone()
    }

    /// The newest map there is, or, while control has no majority, the one that this node knows.
    pub async fn newest_map(&self) -> Arc<ClusterMap> {
        match self.control.linearizable_map().await {
            Some(map) => map,
            None => self.map(),
        }
    }

    /// The newest map there is, as soon as control has a majority.
    pub async fn newest_map_for_certain(&self) -> Arc<ClusterMap> {
        loop {
            match self.control.linearizable_map().await {
                Some(map) => return map,
                None => tokio::time::sleep(TRY_AGAIN).await,
            }
        }
    }

    /// Proposes until control has answered. What it refuses is an error; that there is no majority is not.
    pub async fn propose_until_done(&self, command: Command) -> anyhow::Result<CommandResult> {
        loop {
            match self.control.propose(command.clone()).await {
                Ok(result) => return Ok(result),
                Err(error @ (ProposeError::Rejected(_) | ProposeError::TooLong { .. })) => {
                    return Err(error.into());
                }
                Err(ProposeError::Unavailable | ProposeError::Unknown) => tokio::time::sleep(TRY_AGAIN).await,
            }
        }
    }
}

/// Seconds since 1970.
pub fn unix_seconds() -> UnixSeconds {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixSeconds(now.unwrap_or_default().as_secs())
}

/// Starts everything that is on the control thread and runs until this node is to stop.
pub async fn run(
    shared: Arc<Shared>,
    reports: mpsc::UnboundedReceiver<Report>,
    listener: Listener,
) -> anyhow::Result<()> {
    let heartbeats = shared.heartbeats.clone();
    // Before anybody can have let it in again.
    let had_forgotten = shared.control.has_forgotten();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(accept(shared.clone(), heartbeats.clone(), listener));
    // Bounded by what the owners have under way, as each has one grant or activation, and by the copies on this node.
    let (propose, to_propose) = mpsc::unbounded_channel();
    tasks.spawn(proposals::run(shared.clone(), to_propose));
    let (free, to_free) = mpsc::unbounded_channel();
    tasks.spawn(proposals::run_freed(shared.clone(), to_free));
    tasks.spawn(handle_reports(shared.clone(), reports, propose, free));
    tasks.spawn(pass_on_maps(shared.clone()));
    tasks.spawn(admin::keep(shared.clone()));
    tasks.spawn(members::follow_map(shared.clone()));
    tasks.spawn(members::learn(shared.clone()));
    tasks.spawn(group::keep(shared.clone()));
    tasks.spawn(group::notice_removal(shared.clone()));
    tasks.spawn(group::tell_reversions(shared.clone()));
    tasks.spawn(group::tell_unwritten(shared.clone()));
    let control = shared.control.clone();
    tasks.spawn(async move {
        control.follow_elsewhere().await;
        Ok(())
    });
    tasks.spawn(renew_certificate(shared.clone()));
    tasks.spawn(room::report(shared.clone()));
    tasks.spawn(strangers::report(shared.clone()));
    tasks.spawn(scrub::run(shared.clone()));
    tasks.spawn(backend::serve_api(shared.clone()));
    tasks.spawn(start_up(shared.clone(), heartbeats, had_forgotten));
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let result = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            () = shared.stop.notified() => break Ok(()),
            Some(ended) = tasks.join_next() => {
                // Losing peers or quorum ends none of these; what ends one is a fault of this node's own.
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => break Err(error),
                    Err(error) => break Err(error.into()),
                }
            }
        }
    };
    if result.is_ok() {
        stop::stop(&shared).await;
    }
    result
}

/// Registers this run, opens the disks, and then takes part in failure detection.
async fn start_up(
    shared: Arc<Shared>,
    heartbeats: Arc<Heartbeats>,
    had_forgotten: bool,
) -> anyhow::Result<()> {
    let bootstrap = shared.dir.load_bootstrap()?;
    match &bootstrap {
        Some(bootstrap) if matches!(bootstrap.start, Start::Init { .. }) => {
            first_run(&shared, bootstrap).await?
        }
        // One that was in the group and follows a recovered one has initiators, which wait.
        Some(_) if !shared.control.has_joined().await => shared.data.input(Input::NotJoined),
        _ => {}
    }
    let command = Command::NodeStarted {
        node: shared.node,
        boot_nonce: fresh_nonce(),
        address: shared.config.node_address().to_string(),
    };
    let CommandResult::Incarnation(incarnation) = shared.propose_until_done(command).await? else {
        anyhow::bail!("control answered something else than a run");
    };
    // The engine needs the cluster's id from the map to open a disk, and every volume that there is to serve: a map of
    // before would have it refuse one that was made meanwhile.
    let map = shared.newest_map_for_certain().await;
    shared.data.input(Input::Map(map.clone()));
    shared.data.input(Input::Started(incarnation));
    tracing::info!(node = shared.node.0, incarnation = incarnation.0, "started");
    shared.events.started(incarnation);
    if had_forgotten {
        shared.events.let_in_again();
    }
    open_disks(&shared, bootstrap.as_ref(), &map).await?;
    if bootstrap.is_some() {
        shared.dir.remove_bootstrap()?;
    }
    let (events, mut directed) = mpsc::channel(DIRECTOR_EVENTS);
    let config = DirectorConfig {
        detector: holdfast_cluster::DetectorConfig::default(),
        paths: holdfast_cluster::PathConfig::default(),
        incarnation,
        stuck_after: Duration::from_secs(3),
        replace_after: shared.replace_after,
        now: boot_time,
    };
    let director = Director::new(shared.control.clone(), heartbeats, config, events);
    let log = async {
        while let Some(event) = directed.recv().await {
            shared.events.director(&event);
        }
    };
    tokio::join!(director.run(), log);
    Ok(())
}

/// What `init` left to do: make the cluster. A node that joined waits to be let into the group.
async fn first_run(shared: &Shared, bootstrap: &Bootstrap) -> anyhow::Result<()> {
    let Start::Init { token_hash, token_expires_ms } = &bootstrap.start else { return Ok(()) };
    let command = Command::Bootstrap {
        cluster: bootstrap.cluster,
        name: bootstrap.cluster_name.clone(),
        first: NewNode {
            name: shared.config.name.clone(),
            address: shared.config.node_address().to_string(),
            key: shared.identity.key(),
        },
    };
    shared.control.bootstrap(command).await.context("the cluster could not be made")?;
    let hash = holdfast_api::token::from_hex(token_hash).and_then(|h| h.try_into().ok());
    let hash = TokenHash(hash.context("bootstrap.json: the token's hash is not one")?);
    let expires = UnixSeconds(token_expires_ms / 1000);
    shared.propose_until_done(Command::CreateToken { hash, expires }).await?;
    Ok(())
}

/// `map` has every disk of the list, for each was made known to control before it was listed, unless it was removed
/// since: then it is not opened.
async fn open_disks(
    shared: &Arc<Shared>,
    bootstrap: Option<&Bootstrap>,
    map: &ClusterMap,
) -> anyhow::Result<()> {
    let mut disks = shared.disks.lock().await;
    let (mut listed, removed): (Vec<_>, Vec<_>) =
        shared.dir.load_disks()?.into_iter().partition(|d| map.disks.contains_key(&d.id));
    removed.iter().for_each(|disk| shared.events.disk_left_out(disk));
    // Of disks that were added at one path the last is there. Its content is not that of the others.
    let superseded = |n: usize| listed[n + 1..].iter().any(|later| later.path == listed[n].path);
    listed = (0..listed.len()).filter(|n| !superseded(*n)).map(|n| listed[n].clone()).collect();
    for disk in listed.clone() {
        // The lock of a process that was killed may outlive it for a moment.
        let mut tries = 0;
        while let Err(error) = disks.attach(shared, &disk).await {
            tries += 1;
            if tries > ATTACH_TRIES {
                refuse_disk(shared, disk.id, &format!("{error:#}")).await;
                break;
            }
            tokio::time::sleep(ATTACH_AGAIN).await;
        }
    }
    // One that control knows of and the list does not: the daemon ended while it was added, or another took its path.
    let first = bootstrap.map_or(&[][..], |b| &b.disks);
    let is_unknown = |d: &&Disk| !listed.iter().chain(first).any(|of| of.id == d.id);
    let serves = |d: &&Disk| !matches!(d.state, DiskState::Failed | DiskState::Missing);
    for disk in map.disks_of(shared.node).filter(is_unknown).filter(serves) {
        let why = format!("{} was not added to the end, or another disk was added at its path", disk.path);
        refuse_disk(shared, disk.id, &why).await;
    }
    let Some(bootstrap) = bootstrap else { return Ok(()) };
    for disk in &bootstrap.disks {
        if listed.iter().any(|d| d.id == disk.id) {
            continue;
        }
        disks.prewrite(shared, disk).await?;
        disks.add(shared, &shared.data, disk, &bootstrap.pool).await?;
        listed.push(disk.clone());
        shared.dir.save_disks(&listed)?;
    }
    Ok(())
}

pub(super) async fn refuse_disk(shared: &Shared, disk: DiskId, why: &str) {
    tracing::error!(%disk, why, "a disk is not used");
    shared.events.disk_refused(disk, why);
    if let Some(entry) = shared.map().disks.get(&disk) {
        let command = Command::DiskMissing { disk, incarnation: entry.incarnation };
        if let Err(error) = shared.propose_until_done(command).await {
            tracing::warn!(%error, "control does not know that the disk is missing");
        }
    }
}

/// Peers that dial: consensus and requests, and heartbeats.
async fn accept(shared: Arc<Shared>, heartbeats: Arc<Heartbeats>, listener: Listener) -> anyhow::Result<()> {
    loop {
        let accepted = listener.accept().await;
        match accepted.purpose {
            Purpose::Heartbeat => {
                drop(tokio::spawn(heartbeats.clone().serve(accepted.node, accepted.path, accepted.stream)))
            }
            Purpose::Control => {
                let shared = shared.clone();
                let answer = move |from, kind, request| -> BoxFuture<'static, Bytes> {
                    let shared = shared.clone();
                    Box::pin(async move {
                        match kind {
                            Kind::Consensus => shared.control.serve(from, request).await,
                            Kind::Node if shared.map().was_removed(from) => backend::no_answer(),
                            Kind::Node => backend::answer_node(&shared, request).await,
                        }
                    })
                };
                tokio::spawn(rpc::serve(accepted.node, accepted.stream, answer));
            }
            // Those belong to the data listener, and what is relayed to the one below this.
            Purpose::Data | Purpose::Bulk | Purpose::Relay => {}
        }
    }
}

/// Every newer map goes to the engine, and the peers' addresses to the links.
async fn pass_on_maps(shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut maps = shared.control.map();
    let mut known = Peers::default();
    loop {
        let map = maps.borrow_and_update().clone();
        let peers = Peers { addresses: data_addresses(&map), removed: map.removed_nodes().collect() };
        if peers != known {
            known = peers.clone();
            shared.data.order(Order::Peers(peers));
        }
        shared.data.input(Input::Map(map));
        maps.changed().await.context("consensus has ended")?;
    }
}

fn data_addresses(map: &ClusterMap) -> BTreeMap<NodeId, SocketAddr> {
    let data = |address: &str| Purpose::Data.address(address.parse().ok()?);
    map.nodes.values().filter_map(|n| Some((n.id, data(&n.address)?))).collect()
}

/// Renews this node's certificate before it ends.
async fn renew_certificate(shared: Arc<Shared>) -> anyhow::Result<()> {
    loop {
        match shared.identity.renew_if_due(std::time::SystemTime::now()) {
            Ok(true) => tracing::info!("this node's certificate was renewed"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "this node's certificate cannot be renewed"),
        }
        tokio::time::sleep(RENEWAL_EVERY).await;
    }
}

/// What the data thread's engine has to say.
async fn handle_reports(
    shared: Arc<Shared>,
    mut reports: mpsc::UnboundedReceiver<Report>,
    proposals: mpsc::UnboundedSender<proposals::Proposal>,
    freed: mpsc::UnboundedSender<(SegmentKey, DiskId)>,
) -> anyhow::Result<()> {
    while let Some(report) = reports.recv().await {
        match report {
            Report::Propose { number, command } => {
                // Its task runs for as long as this one.
                let _ = proposals.send((number, command));
            }
            Report::RenewGateway => drop(tokio::spawn(renew_gateway(shared.clone()))),
            Report::RegisterSession { connection, registration } => {
                drop(tokio::spawn(sessions::register(shared.clone(), connection, registration)))
            }
            Report::EndSession(registration) => {
                drop(tokio::spawn(sessions::end(shared.clone(), registration)))
            }
            Report::SessionFenced { number, done } => {
                let fence = shared.fences.lock().unwrap_or_else(|e| e.into_inner()).remove(&number);
                if let Some(fence) = fence {
                    let _ = fence.send(done);
                }
            }
            Report::Freed { segment, disk } => drop(freed.send((segment, disk))),
            Report::DiskOpened { disk, report } => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let mut disks = shared.disks.lock().await;
                    match disks.opened(&shared, &shared.data, disk, &report).await {
                        Ok(opening) => {
                            shared.events.disk_opened(disk, &report, opening == Opening::Regressed)
                        }
                        Err(error) => refuse_disk(&shared, disk, &format!("{error:#}")).await,
                    }
                });
            }
            Report::DiskRefused { disk, error } => {
                let shared = shared.clone();
                tokio::spawn(async move { refuse_disk(&shared, disk, &error.to_string()).await });
            }
            Report::Checked { number, report } => {
                let check = shared.checks.lock().unwrap_or_else(|e| e.into_inner()).remove(&number);
                if let Some(check) = check {
                    let _ = check.send(report);
                }
            }
            Report::Event(event) => {
                shared.events.engine(&event);
                match event {
                    EngineEvent::Store { disk, event: StoreEvent::DiskFailed { .. } } => {
                        tokio::spawn(disk_failed(shared.clone(), disk));
                    }
                    EngineEvent::Store {
                        event:
                            StoreEvent::DiskSilent { .. }
                            | StoreEvent::DiskAnswers { .. }
                            | StoreEvent::DiskSlow { .. }
                            | StoreEvent::DiskKeepsUp { .. },
                        ..
                    } => shared.disk_news.notify_one(),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

async fn renew_gateway(shared: Arc<Shared>) {
    let Some(incarnation) = shared.map().nodes.get(&shared.node).map(|n| n.incarnation) else { return };
    let command = Command::GatewayRenewed { node: shared.node, incarnation };
    match shared.propose_until_done(command).await {
        Ok(CommandResult::Incarnation(run)) => shared.data.input(Input::GatewayRenewed(run)),
        Ok(_) => tracing::error!("control answered something else than a run"),
        Err(error) => tracing::error!(%error, "this node's gateway has no number"),
    }
}

async fn disk_failed(shared: Arc<Shared>, disk: DiskId) {
    if let Some(entry) = shared.map().disks.get(&disk) {
        let command = Command::DiskFailed { disk, incarnation: entry.incarnation };
        if let Err(error) = shared.propose_until_done(command).await {
            tracing::warn!(%error, "control does not know that the disk has failed");
        }
    }
}
