//! Starts a node: takes its data folder, binds every address, starts the data thread, and runs the control thread
//! until the node is to stop. A mistake in the configuration or an address in use is found before anything else
//! is touched.

use crate::config::DataDir;
use crate::control::{
    self, Shared,
    disks::{LocalDisks, fresh_nonce},
    events::Events,
    rpc::Caller,
    scrub::Scrubbed,
};
use crate::data::{self, DataOptions};
use anyhow::Context;
use holdfast_api::EventLog;
use holdfast_api::token::Accepted;
use holdfast_consensus::{Control, ControlConfig, Timings};
use holdfast_disk::Backend;
use holdfast_engine::{EngineConfig, FrontEndKind};
use holdfast_net::activation::Activated;
use holdfast_net::{Identity, Listener, Purpose, Refusals};
use holdfast_replication::{OwnerConfig, ReplicaConfig};
use holdfast_store::StoreConfig;
use holdfast_types::NodeId;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The data folder.
    pub dir: PathBuf,
    /// The copies of a node that has been away for so long are placed anew on others.
    pub replace_after: Duration,
    /// Every segment is read and compared once in so long; zero: never.
    pub scrub_every: Duration,
}

/// Runs a node until it is told to stop.
pub fn run(options: &RunOptions) -> anyhow::Result<()> {
    // Before any thread: the environment is read once.
    let mut activated = Activated::take();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run_node(options, &mut activated))
}

async fn run_node(options: &RunOptions, activated: &mut Activated) -> anyhow::Result<()> {
    let dir = DataDir::new(&options.dir);
    let config = dir.load_config()?;
    let _lock = dir.lock()?;
    let identity = Identity::load(&dir.identity())?;
    let node = identity.node();
    let accepted = Accepted::of(dir.load_admin_token()?);
    let events = Events::new(EventLog::open(&dir.events(), node.0)?);
    let mut front_ends = Vec::new();
    for (kind, name, address) in [
        (FrontEndKind::Iscsi, "iscsi", config.iscsi_address()),
        (FrontEndKind::Nbd, "nbd", config.nbd_address()),
    ] {
        front_ends.push((kind, listen(activated, name, address)?));
    }
    for left in activated.left_over() {
        tracing::warn!(left, "a socket that was handed over belongs to no address of the configuration");
    }
    let refusals = Refusals::default();
    let listener = Listener::bind(config.node_address(), &identity, &refusals).await?;
    let peer_address = data_address(config.node_address())?;
    let engine = EngineConfig {
        node,
        owner: OwnerConfig { reads: config.reads, ..OwnerConfig::default() },
        replica: ReplicaConfig::default(),
        store: StoreConfig::default(),
        iscsi_needs_chap: config.iscsi_needs_chap(),
    };
    let (backend, why) = Backend::from_env()?;
    tracing::info!(why, "disk input and output");
    let data_options = DataOptions {
        engine: engine.clone(),
        identity: identity.clone(),
        peer_address,
        refusals: refusals.clone(),
        front_ends,
        backend,
        busy_poll: config.busy_poll,
    };
    let (data, reports) = data::start(data_options)?;
    let caller = Caller::new(identity.clone());
    let control = start_control(&dir, node, &caller).await?;
    let heartbeats = control::heartbeat::Heartbeats::new(identity.clone(), events.clone());
    let shared = Arc::new(Shared {
        node,
        config,
        engine,
        identity,
        control,
        caller,
        heartbeats,
        refusals,
        data,
        events,
        checks: Mutex::default(),
        fences: Mutex::default(),
        disks: tokio::sync::Mutex::new(LocalDisks::default()),
        disk_news: Notify::new(),
        stop: Notify::new(),
        replace_after: options.replace_after,
        scrub_every: options.scrub_every,
        scrubbed: Scrubbed::default(),
        accepted,
        dir,
    });
    if shared.control.has_forgotten() {
        shared.events.control_forgotten(shared.control.damage());
    } else if let Some(damage) = shared.control.damage() {
        shared.events.control_mended(damage);
    }
    control::members::at_start(&shared)?;
    *shared.disks.lock().await = LocalDisks::load(&shared)?;
    control::run(shared, reports, listener).await
}

/// Starts this node's part in control.
async fn start_control(dir: &DataDir, node: NodeId, caller: &Caller) -> anyhow::Result<Control> {
    // One whose first run is done was let in before.
    let was_member = dir.load_bootstrap()?.is_none();
    // Who the others are when that cannot be read is a later question.
    let has_others = dir.load_members().ok().flatten().is_none_or(|m| m.members.len() > 1);
    let returning = (was_member && has_others).then(fresh_nonce);
    let config = ControlConfig { node, dir: dir.control(), timings: Timings::default(), returning };
    let control = Control::start(config, Arc::new(caller.clone())).await?;
    if was_member && !has_others && !control.has_joined().await {
        // It would wait for others to let it in, and there are none.
        anyhow::bail!(
            "control's database in {} is gone or empty, and this is the only node of its cluster: put back control.redb \
             from a backup of this host",
            dir.control().display()
        );
    }
    Ok(control)
}

fn listen(activated: &mut Activated, name: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = activated.listen(name, address).with_context(|| format!("cannot listen on {address}"))?;
    Ok(listener.into_std()?)
}

fn data_address(node: SocketAddr) -> anyhow::Result<SocketAddr> {
    Purpose::Data.address(node).context("the node port is too high: the next one is used too")
}
