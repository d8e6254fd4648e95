//! One node's engine: a single deterministic machine made of pure parts. It routes between initiators'
//! sessions (iscsi, nbd), the gateway, the owners and replicas of segments (replication), and the stores of the
//! disks. Time and facts come in through [`Engine::handle`]; orders come out; the shell carries them.
//!
//! Nothing here waits, sleeps, draws a number or asks for the time, thus the simulator runs the very engine that
//! the daemon runs. A route is a file: [`route::sessions`] (initiators), [`route::early`] (those that
//! come before the map), [`route::messages`] (peers),
//! [`route::copies`] (owners, replicas), [`route::disks`] (stores), [`route::map`] (what control says),
//! [`route::follow`] (ownership follows the I/O).
//!
//! The way of a write: session → gateway → owner → its replicas' stores and peers → owner → gateway → session.
//! Each burst of inputs ends with [`Engine::pump`], which is where what gathered is sent in one append to each
//! copy and flushed in one batch on each disk.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod gateway;
pub mod io;
pub mod route;
pub mod status;
pub mod timers;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use gateway::Gateway;
use holdfast_cluster::ClusterMap;
use holdfast_replication::{Message, OwnerConfig, ReplicaConfig};
use holdfast_store::StoreConfig;
use holdfast_types::{
    BlockResult, ConnectionId, Epoch, Exports, NodeId, ProcessIncarnation, SegmentKey, SessionId, Time,
};
pub use io::{DiskOpen, EngineEvent, FrontEndKind, Input, Lane, Opening, Output, Outputs, Registration};
use route::copies::Copies;
use route::disks::Disks;
use route::early::Early;
use route::follow::Follow;
use route::sessions::Sessions;
use timers::{Machine, Timers};

/// What the engine is made with.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// This node.
    pub node: NodeId,
    /// Of every owner.
    pub owner: OwnerConfig,
    /// Of every replica.
    pub replica: ReplicaConfig,
    /// Of every store.
    pub store: StoreConfig,
    /// iSCSI can be reached from other hosts: nobody gets in while no CHAP account is set.
    pub iscsi_needs_chap: bool,
}

/// See the crate's text.
pub struct Engine {
    config: EngineConfig,
    incarnation: Option<ProcessIncarnation>,
    map: Arc<ClusterMap>,
    exports: Exports,
    links: BTreeSet<NodeId>,
    disks: Disks,
    copies: Copies,
    gateway: Gateway,
    sessions: Sessions,
    early: Early,
    follow: Follow,
    timers: Timers,
    /// What one part of this node has for another; empty between calls.
    work: VecDeque<Work>,
    /// Proposals under way: the owner's segment and epoch, and its own number.
    proposals: BTreeMap<u64, (SegmentKey, Epoch, u64)>,
    next_proposal: u64,
}

/// Something that one part of this node has for another.
#[derive(Debug)]
enum Work {
    /// A message from this node to itself.
    Message(Message),
    /// A session's initiator goes on elsewhere.
    Moved(SessionId),
    /// A request of a session is answered.
    Complete { session: SessionId, tag: u64, result: BlockResult },
}

impl Engine {
    /// An engine that knows nothing yet. Whoever connects waits until it does.
    pub fn new(config: EngineConfig) -> Self {
        Self {
            incarnation: None,
            map: Arc::new(ClusterMap::default()),
            exports: Exports::default(),
            links: BTreeSet::from([config.node]),
            disks: Disks::default(),
            copies: Copies::default(),
            gateway: Gateway::new(config.node),
            sessions: Sessions::default(),
            early: Early::default(),
            follow: Follow::default(),
            timers: Timers::default(),
            work: VecDeque::new(),
            proposals: BTreeMap::new(),
            next_proposal: 1,
            config,
        }
    }

    /// Takes one fact. Its orders are added to `out`. After the last fact of a burst, call [`Engine::pump`].
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Outputs) {
        match input {
            Input::Started(incarnation) => self.started(now, incarnation, out),
            Input::GatewayRenewed(run) => self.gateway_renewed(now, run, out),
            Input::NotJoined => self.not_joined(now, out),
            Input::Map(map) => self.map_changed(now, map, out),
            Input::Proposed { number, result } => self.proposed(now, number, result, out),
            Input::DiskAttached { disk, size, open } => self.disk_attached(now, disk, size, open, out),
            Input::DiskDone { disk, done } => self.disk_done(now, disk, done, out),
            Input::LinkUp(node) => self.link_changed(now, node, true, out),
            Input::LinkDown(node) => self.link_changed(now, node, false, out),
            Input::PeerUp(node) => self.with_gateway(out, |gateway, o| gateway.peer_up(now, node, o)),
            Input::Frame { from, header, payload } => self.frame(now, from, &header, payload, out),
            Input::SessionOpened { connection, opening } => {
                self.session_opened(now, connection, opening, out);
            }
            Input::SessionBytes { connection, bytes } => self.session_bytes(now, connection, bytes, out),
            Input::SessionTakes { connection, takes } => self.session_takes(now, connection, takes, out),
            Input::SessionClosed(connection) => self.session_closed(now, connection, out),
            Input::SessionRegistered { connection, registration } => {
                self.session_registered(now, connection, registration, out)
            }
            Input::SessionMoved(connection) => self.session_moved(now, connection, out),
            Input::FenceSession { number, segment, gateway, session } => {
                self.fence_session(now, number, segment, (gateway, session), out);
            }
            Input::HandOver => self.hand_over(now, out),
            Input::Check { number, segment, pace } => self.check(now, number, segment, pace, out),
            Input::Checkpoint => self.checkpoint(now, out),
            Input::Timer => self.timer(now, out),
        }
        self.settle(now, out);
    }

    /// Ends a burst of inputs: what gathered at the owners goes to the copies, and what gathered at the stores to
    /// the disks.
    pub fn pump(&mut self, now: Time, out: &mut Outputs) {
        loop {
            while let Some(segment) = self.copies.touched.pop_first() {
                self.pump_owner(now, segment, out);
            }
            self.settle(now, out);
            if self.copies.touched.is_empty() {
                break;
            }
        }
        self.pump_disks(now, out);
        self.settle(now, out);
        self.timers.set(Machine::Gateway, self.gateway.next_timer());
        self.timers.set(Machine::Follow, self.follow.next_timer());
    }

    /// When [`Input::Timer`] is next to be given.
    pub fn next_timer(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Does what the parts of this node have for each other until nothing is left.
    fn settle(&mut self, now: Time, out: &mut Outputs) {
        while let Some(work) = self.work.pop_front() {
            match work {
                Work::Message(message) => self.deliver(now, self.config.node, message, out),
                Work::Moved(session) => self.session_moved(now, ConnectionId(session.0), out),
                Work::Complete { session, tag, result } => {
                    self.session_completed(now, session, tag, result, out)
                }
            }
        }
    }

    fn timer(&mut self, now: Time, out: &mut Outputs) {
        for machine in self.timers.take_due(now) {
            match machine {
                Machine::Owner(segment) => self.with_owner(now, segment, out, |owner, o| owner.timer(now, o)),
                Machine::Replica(segment, disk) => {
                    self.with_replica(now, (segment, disk), out, |replica, o| replica.timer(now, o));
                }
                Machine::Store(disk) => self.with_store(now, disk, out, |store, o| store.timer(now, o)),
                Machine::Session(connection) => self.session_timer(now, connection, out),
                Machine::Gateway => self.with_gateway(out, |gateway, o| gateway.timer(now, o)),
                Machine::Follow => self.follow_timer(now, out),
            }
        }
    }
}
