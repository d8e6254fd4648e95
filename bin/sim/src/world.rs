//! The cluster: nodes, network, control, clients and the clock, and the loop that lets one event happen after the
//! other.

use crate::client::Client;
use crate::control::{Control, Then};
use crate::disk::{Disk, disk_id, node_of};
use crate::event::{Event, Queue};
use crate::failure::{Checker, Failure, Trace};
use crate::faults::{Faults, Gone};
use crate::fencing::Fencing;
use crate::history::History;
use crate::layout::Layout;
use crate::net::Net;
use crate::node::{Clock, DRIFT_MOST_PPM, Node, Process};
use crate::operator::Operator;
use crate::options::{FaultKind, Options};
use crate::room::CLAIMED_EXTENT_BYTES;
use crate::watch::Watch;
use holdfast_cluster::{ClusterMap, Command, NewNode, UnixSeconds};
use holdfast_engine::{Engine, EngineConfig, FrontEndKind, Input, Opening};
use holdfast_replication::{OwnerConfig, ReplicaConfig};
use holdfast_store::testing::{Cut, Rng};
use holdfast_store::{DiskIdentity, StoreConfig};
use holdfast_types::{ClusterId, ConnectionId, DiskId, DiskIncarnation, Duration, KeyHash, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The volume that clients use.
pub const VOLUME: &str = "vol";
const CLUSTER: ClusterId = ClusterId(0x51);
const DISK_BYTES: u64 = 64 << 20;
pub(crate) const POOL: &str = "default";
/// One client in so many speaks iSCSI.
const ISCSI_ONE_IN: usize = 4;
pub(crate) const VOLUME_BYTES: u64 = 2 << 30;
/// How long the cluster may take to start.
const SET_UP_WITHIN: Duration = Duration::from_secs(10);
/// Clients for each node.
const CLIENTS_PER_NODE: usize = 2;

/// See the module's text.
pub struct World {
    /// What it was made with.
    pub options: Options,
    /// The clock.
    pub queue: Queue,
    /// Where everything that looks random comes from.
    pub rng: Rng,
    /// The nodes.
    pub nodes: BTreeMap<NodeId, Node>,
    /// The links.
    pub net: Net,
    /// Control.
    pub control: Control,
    /// The clients.
    pub clients: Vec<Client>,
    /// Where the cells are.
    pub layout: Layout,
    /// What clients saw.
    pub history: History,
    /// What is injected at random.
    pub faults: Faults,
    /// The last lines.
    pub trace: Trace,
    /// What is judged as it happens.
    pub watch: Watch,
    /// Open connections: the client's number and the node.
    pub connections: BTreeMap<ConnectionId, (usize, NodeId)>,
    /// The version of the map that each node's run was given.
    pub(crate) seen: BTreeMap<NodeId, u64>,
    /// When the last bytes of a connection arrive, by direction.
    pub(crate) last_bytes: BTreeMap<(ConnectionId, bool), Time>,
    /// Sessions that are to be fenced before others may write.
    pub(crate) fencing: Fencing,
    /// The volumes that come and go.
    pub(crate) operator: Operator,
    pub(crate) next_connection: u64,
    pub(crate) timers: u64,
}

impl World {
    /// A cluster that serves a volume, with clients that are idle.
    pub fn new(options: &Options) -> Result<World, Failure> {
        let mut world = World {
            queue: Queue::default(),
            rng: Rng(options.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            nodes: BTreeMap::new(),
            net: Net::default(),
            control: Control::default(),
            clients: Vec::new(),
            layout: Layout::default(),
            history: History::default(),
            faults: Faults::default(),
            trace: Trace::new(options.verbose),
            watch: Watch::default(),
            connections: BTreeMap::new(),
            seen: BTreeMap::new(),
            last_bytes: BTreeMap::new(),
            fencing: Fencing::default(),
            operator: Operator::default(),
            next_connection: 1,
            timers: 0,
            options: options.clone(),
        };
        world.bootstrap()?;
        world.set_up()?;
        if options.disks_lie {
            // Only now: a disk that lost its format is refused, and the checkers would have nothing to do.
            world.disks().for_each(|(_, disk)| disk.begin_to_lie());
        }
        Ok(world)
    }

    /// Makes the cluster at control, and its nodes.
    fn bootstrap(&mut self) -> Result<(), Failure> {
        let mut commands = Vec::new();
        // Shorter and longer than most faults last: copies of nodes that come back are replaced as well.
        self.control.replace_after = Duration::from_secs(2 + self.rng.below(8));
        // Shorter than a lease, too: a node that others do not reach may still read under one.
        self.control.down_after = Duration::from_millis(200 + self.rng.below(1000));
        let config = self.engine_config();
        let extents =
            |size: &u64| holdfast_store::layout(*size, &config.store).map_or(0, |l| l.extent_count());
        let holding = |count| (0..DISK_BYTES).step_by(1 << 20).find(|size| extents(size) == count);
        for n in 1..=self.options.nodes {
            let node = NodeId(n);
            let small = self.extents_of_small_disk(n).and_then(holding);
            let disk_bytes = small.unwrap_or(DISK_BYTES);
            let size = u64::from(extents(&disk_bytes)) * CLAIMED_EXTENT_BYTES;
            let (name, address) = (format!("node{n}"), format!("10.0.0.{n}:1"));
            let admitted = NewNode { name, address, key: KeyHash::default() };
            commands.push(match n {
                1 => Command::Bootstrap { cluster: CLUSTER, name: "sim".into(), first: admitted },
                _ => Command::AddNode(admitted),
            });
            let mut disks = BTreeMap::new();
            for number in 0..self.options.disks {
                let (identity, command) = self.blank_disk(disk_id(node, number), size);
                commands.push(command);
                disks.insert(identity.disk, Disk::new(disk_bytes, self.rng.draw(), identity));
            }
            self.nodes.insert(
                node,
                Node {
                    id: node,
                    config: EngineConfig { node, ..config.clone() },
                    disks,
                    process: None,
                    run: 0,
                    stopping: false,
                    paused: None,
                },
            );
        }
        for command in commands {
            let error = |e| Failure::new(Checker::NoError, format!("the cluster cannot be made: {e}"));
            self.control.apply(command).map_err(error)?;
        }
        Ok(())
    }

    /// What a disk is formatted as that holds so much, and how control hears of it.
    pub(crate) fn blank_disk(&mut self, disk: DiskId, size: u64) -> (DiskIdentity, Command) {
        let (node, incarnation, boot_nonce) = (node_of(disk), DiskIncarnation(1), self.rng.draw().max(1));
        let (path, pool) = (disk.to_string(), POOL.to_owned());
        let command = Command::AddDisk { disk, node, size, path, pool, boot_nonce };
        (DiskIdentity { cluster: CLUSTER, node, disk, incarnation, boot_nonce }, command)
    }

    /// Small limits, so that a short run meets them; some differ from seed to seed.
    fn engine_config(&mut self) -> EngineConfig {
        let owner = OwnerConfig {
            in_flight_bytes: 256 << 10,
            in_flight_records: 32,
            copy_in_flight_bytes: 128 << 10,
            retained_bytes: if self.rng.one_in(2) { 64 << 10 } else { 1 << 20 },
            drop_after: Duration::from_secs(1 + self.rng.below(4)),
            ..OwnerConfig::default()
        };
        let store = StoreConfig {
            journal_bytes: Some(16 << 20),
            dirty_limit_bytes: 256 << 10,
            page_cache_bytes: 1 << 20,
            log_memory_bytes: 256 << 10,
            log_retain_bytes: if self.rng.one_in(2) { 64 << 10 } else { 4 << 20 },
            direct_from_blocks: 1 + self.rng.below(4) as u32,
            idle_writeback: Duration::from_millis(50 + self.rng.below(1000)),
        };
        EngineConfig {
            node: NodeId(0),
            owner,
            replica: ReplicaConfig::default(),
            store,
            iscsi_needs_chap: false,
        }
    }

    fn set_up(&mut self) -> Result<(), Failure> {
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        nodes.iter().for_each(|n| self.start(*n));
        self.queue.after(Duration::from_millis(100), Event::Direct);
        let formatted =
            |w: &World| w.nodes.values().flat_map(|n| n.disks.values()).all(|d| d.format.is_none());
        self.run_until(SET_UP_WITHIN, "every disk is formatted", formatted)?;
        let spare = self.options.has_any(&[FaultKind::Gone, FaultKind::Lost, FaultKind::Fail]);
        let five = self.options.nodes == 5 && !spare && self.rng.one_in(2);
        let copies = if five { 5 } else { self.options.nodes.min(3) as u8 };
        let (name, pool) = (VOLUME.to_owned(), POOL.to_owned());
        let volume =
            Command::CreateVolume { name, size: VOLUME_BYTES, copies, pool, created: UnixSeconds(0) };
        let error = |e| Failure::new(Checker::NoError, format!("the volume cannot be made: {e}"));
        self.control.apply(volume).map_err(error)?;
        for _ in 0..nodes.len() * CLIENTS_PER_NODE {
            let client = self.add_client();
            self.queue.after(Duration::from_millis(self.rng.below(50)), Event::Think { client });
        }
        self.add_operators_clients();
        self.run_until(SET_UP_WITHIN, "every segment is active", World::all_copies_in_set)
    }

    /// One client more.
    pub(crate) fn add_client(&mut self) -> usize {
        let client = self.clients.len();
        let moves = self.options.faults.contains(&FaultKind::Move);
        let is_iscsi = moves || client.is_multiple_of(ISCSI_ONE_IN);
        let kind = if is_iscsi { FrontEndKind::Iscsi } else { FrontEndKind::Nbd };
        let home = NodeId((client % self.nodes.len()) as u16 + 1);
        self.clients.push(Client::new(home, kind, moves.then_some(client as u64)));
        client
    }

    /// Whether every segment is active with all its copies in S, and none of them is lost for ever.
    pub fn all_copies_in_set(&self) -> bool {
        let settled = |s: &holdfast_types::SegmentInfo| {
            let lost = s.members.iter().any(|m| self.lost_copies(m.disk));
            s.active.epoch == s.granted.epoch && s.active.set.len() == s.members.len() && !lost
        };
        let mut segments = self.control.map.segments.values();
        segments.all(|s| settled(s))
    }

    /// Adds a line to the trace.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.queue.now().0 as f64 / 1e9;
        self.trace.note(format!("{now:10.6} {}", line()));
    }

    pub(crate) fn node(&mut self, node: NodeId) -> &mut Node {
        // Nodes are made once and never removed.
        self.nodes.get_mut(&node).expect("every node is there from the start")
    }

    pub(crate) fn disk(&mut self, disk: DiskId) -> &mut Disk {
        // So are their disks.
        self.node(node_of(disk)).disks.get_mut(&disk).expect("every disk is there from the start")
    }

    /// Every disk there is.
    pub(crate) fn disks(&mut self) -> impl Iterator<Item = (DiskId, &mut Disk)> {
        self.nodes.values_mut().flat_map(|n| &mut n.disks).map(|(id, disk)| (*id, disk))
    }

    /// Starts a node's daemon, on a host whose clock starts anew.
    pub fn start(&mut self, node: NodeId) {
        let clock = Clock {
            started: self.queue.now(),
            showed: self.rng.below(1 << 40),
            pace: self.rng.below(2 * DRIFT_MOST_PPM),
        };
        let gone = self.faults.gone == Some(Gone::Node(node));
        let this = self.node(node);
        if gone || this.process.is_some() {
            return;
        }
        this.run += 1;
        // One that failed was changed for another one.
        this.disks.values_mut().for_each(|disk| disk.fail(false, false));
        let process = this.run;
        this.process = Some(Process {
            engine: Engine::new(this.config.clone()),
            clock,
            incarnation: None,
            timer: None,
            connections: BTreeSet::new(),
            checks: BTreeMap::new(),
        });
        self.seen.remove(&node);
        let boot_nonce = self.rng.draw().max(1);
        let address = format!("10.0.0.{node}:1");
        self.call(node, Command::NodeStarted { node, boot_nonce, address }, Then::Start);
        self.queue.after(Duration::from_millis(1), Event::Maps { node, process });
        let peers: Vec<NodeId> = self.nodes.keys().copied().filter(|n| *n != node).collect();
        for to in peers {
            self.dial_later(node, to);
        }
    }

    pub(crate) fn dial_later(&mut self, from: NodeId, to: NodeId) {
        let process = self.nodes[&from].run;
        let pause = Duration::from_millis(1 + self.rng.below(100));
        self.queue.after(pause, Event::Dial { from, process, to });
    }

    /// The daemon dies. With a power cut the disk loses what was not on stable storage, as `cut` says.
    pub fn crash(&mut self, node: NodeId, cut: Cut) {
        let this = self.node(node);
        this.paused = None;
        this.stopping = false;
        let Some(process) = this.process.take() else { return };
        this.disks.values_mut().for_each(|disk| disk.power_cut(cut));
        self.note(|| format!("fault: node {node} dies ({cut:?})"));
        self.net.died(&mut self.queue, &mut self.rng, node, cut != Cut::KeepAll);
        for connection in process.connections {
            self.queue.after(Duration::from_millis(1), Event::Hangup(connection));
        }
    }

    /// The daemon is stopped; what comes for it waits.
    pub fn pause(&mut self, node: NodeId) {
        if self.nodes[&node].is_running() {
            self.note(|| format!("fault: node {node} is stopped"));
            self.faults.late = true;
            self.node(node).paused = Some(Vec::new());
        }
    }

    /// It goes on.
    pub fn resume(&mut self, node: NodeId) {
        if let Some(held) = self.node(node).paused.take() {
            self.note(|| format!("node {node} goes on"));
            held.into_iter().for_each(|event| self.queue.at(Time(0), event));
        }
    }

    /// A disk does nothing that it is ordered to do, and says nothing.
    pub fn hang(&mut self, disk: DiskId) {
        self.note(|| format!("fault: disk {disk} hangs"));
        self.faults.late = true;
        self.disk(disk).hung.get_or_insert_default();
    }

    /// A disk takes long for everything from here on.
    pub fn slow_down(&mut self, disk: DiskId) {
        self.note(|| format!("fault: disk {disk} is slow"));
        self.faults.late = true;
        self.disk(disk).slow = true;
    }

    /// It does what it was ordered to do.
    pub fn disk_answers(&mut self, disk: DiskId) {
        if let Some(held) = self.disk(disk).hung.take() {
            self.note(|| format!("disk {disk} answers"));
            held.into_iter().for_each(|event| self.queue.at(Time(0), event));
        }
    }

    /// Lets events happen for so long.
    pub fn run_for(&mut self, duration: Duration) -> Result<(), Failure> {
        let until = self.queue.now() + duration;
        while let Some(event) = self.queue.next(until) {
            self.happen(event)?;
        }
        Ok(())
    }

    /// Lets events happen until something is so; it must be within `limit`.
    pub fn run_until(
        &mut self,
        limit: Duration,
        what: &str,
        is_so: impl Fn(&World) -> bool,
    ) -> Result<(), Failure> {
        let until = self.queue.now() + limit;
        while !is_so(self) {
            let Some(event) = self.queue.next(until) else {
                let waiting: usize = self.clients.iter().map(Client::outstanding).sum();
                let detail = format!(
                    "after {:.1} s it is not so that {what}; {waiting} requests wait; {}",
                    limit.as_secs_f64(),
                    self.describe()
                );
                return Err(Failure::new(Checker::Progress, detail));
            };
            self.happen(event)?;
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for info in self.control.map.segments.values() {
            text += &format!("\n  {info:?}");
        }
        for node in self.nodes.values() {
            text += &format!("\n  node {} paused {}", node.id, node.paused.is_some());
            if let Some(process) = &node.process {
                text += &format!(" {:?}", process.engine.status());
            }
        }
        text
    }

    /// A client connects to a node's gateway. None: nobody listens there.
    pub(crate) fn connect(&mut self, client: usize, node: NodeId) -> Result<Option<ConnectionId>, Failure> {
        if !self.nodes[&node].is_running() {
            return Ok(None);
        }
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.connections.insert(connection, (client, node));
        if let Some(process) = self.node(node).process.as_mut() {
            process.connections.insert(connection);
        }
        let kind = self.clients[client].kind();
        let opening = Opening { kind, portal: String::new(), entropy: [0; 32] };
        self.input(node, Input::SessionOpened { connection, opening })?;
        Ok(Some(connection))
    }

    /// The map that everybody agrees on.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.control.map.clone()
    }
}
