//! A group of control nodes in one process: each in a runtime of its own, so that dropping the runtime is a
//! kill; a network in memory that can be cut; a clock for the directors.
#![allow(dead_code, reason = "each test file uses its part")]

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use holdfast_cluster::{ClusterMap, Command, CommandResult, DetectorConfig, NewNode, PathConfig};
use holdfast_consensus::*;
use holdfast_types::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::mpsc;

type Beats = mpsc::UnboundedSender<HeartbeatFact>;

struct Line {
    control: Control,
    handle: Handle,
    beats: Beats,
}

/// Who can be reached, and which pairs are cut.
#[derive(Default)]
pub struct Net {
    lines: Mutex<BTreeMap<NodeId, Line>>,
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
}

impl Net {
    fn open(&self, a: NodeId, b: NodeId) -> bool {
        !self.cut.lock().unwrap().contains(&(a.min(b), a.max(b)))
    }
}

struct Wire {
    net: Arc<Net>,
    me: NodeId,
    heard: tokio::sync::Mutex<mpsc::UnboundedReceiver<HeartbeatFact>>,
    beats: Beats,
    /// The nodes of which a beat was believed since this was last emptied.
    believed: Mutex<BTreeSet<NodeId>>,
}

impl Transport for Wire {
    fn call(
        &self,
        to: NodeId,
        _: String,
        request: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (net, me) = (Arc::clone(&self.net), self.me);
        async move {
            let fault = |why: &str| TransportFault::NotSent { why: why.into() };
            if !net.open(me, to) {
                // A cut line swallows what is sent.
                std::future::pending::<()>().await;
            }
            let line = net.lines.lock().unwrap().get(&to).map(|l| (l.control.clone(), l.handle.clone()));
            let Some((control, handle)) = line else {
                return Err(TransportError { node: to, fault: fault("refused") });
            };
            // Served in the other node's runtime: it dies with that.
            let served = handle.spawn(async move { control.serve(me, request).await }).await;
            let lost = TransportFault::NoAnswer { why: "connection lost".into() };
            served.map_err(|_| TransportError { node: to, fault: lost })
        }
        .boxed()
    }
}

impl HeartbeatNetwork for Wire {
    fn send(&self, to: NodeId, _: &str, path: PeerPath, beat: Bytes) {
        // Nobody relays here.
        if path == PeerPath::Relayed || !self.net.open(self.me, to) {
            return;
        }
        let _ = match self.net.lines.lock().unwrap().get(&to) {
            Some(line) => line.beats.send(HeartbeatFact::Beat { from: self.me, path, beat }),
            None => self.beats.send(HeartbeatFact::Refused { node: to }),
        };
    }
    fn keep_paths(&self, _: &BTreeSet<NodeId>) {}
    fn use_path(&self, _: NodeId, _: Option<PeerPath>) {}
    fn broken(&self) -> Vec<NodeId> {
        Vec::new()
    }
    fn heard(&self, from: NodeId, _: Said) {
        self.believed.lock().unwrap().insert(from);
    }
    fn receive(&self) -> BoxFuture<'_, HeartbeatFact> {
        async {
            match self.heard.lock().await.recv().await {
                Some(fact) => fact,
                None => std::future::pending().await,
            }
        }
        .boxed()
    }
}

pub struct Node {
    pub control: Control,
    pub runtime: Runtime,
    wire: Arc<Wire>,
}

pub struct Cluster {
    pub net: Arc<Net>,
    pub dir: tempfile::TempDir,
    pub nodes: BTreeMap<NodeId, Node>,
    pub timings: Timings,
    /// Nodes that ran before.
    ran: BTreeSet<u16>,
}

/// The machine that runs the tests may be busy: the terms are longer than by default.
pub fn timings() -> Timings {
    Timings {
        heartbeat: Duration::from_millis(100),
        election_min: Duration::from_millis(400),
        election_max: Duration::from_millis(800),
        propose: Duration::from_secs(6),
        ..Timings::default()
    }
}

fn now() -> Time {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    Time(START.get_or_init(Instant::now).elapsed().as_nanos() as u64 + 1)
}

/// What is said of a node when it is admitted.
pub fn new_node(n: u16) -> NewNode {
    NewNode { name: format!("n{n}"), address: format!("10.0.0.{n}"), key: KeyHash([n as u8; 32]) }
}

impl Cluster {
    /// `count` nodes, all voters, with a disk each; node 1 was bootstrapped.
    pub fn new(count: u16, timings: Timings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster =
            Cluster { net: Arc::default(), dir, nodes: BTreeMap::new(), timings, ran: BTreeSet::new() };
        cluster.start(1);
        let command = Command::Bootstrap { cluster: ClusterId(7), name: "test".into(), first: new_node(1) };
        let first = &cluster.nodes[&NodeId(1)];
        let admitted = first.runtime.block_on(first.control.bootstrap(command));
        assert_eq!(admitted, Ok(CommandResult::Node(NodeId(1))));
        for n in 2..=count {
            let add = Command::AddNode(new_node(n));
            assert_eq!(cluster.propose(1, add), Ok(CommandResult::Node(NodeId(n))));
            cluster.start(n);
            let first = &cluster.nodes[&NodeId(1)];
            first.runtime.block_on(first.control.add_voter(NodeId(n), format!("10.0.0.{n}"))).unwrap();
        }
        cluster
    }

    pub fn start(&mut self, n: u16) {
        let node = NodeId(n);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (beats, heard) = mpsc::unbounded_channel();
        let net = Arc::clone(&self.net);
        let heard = tokio::sync::Mutex::new(heard);
        let wire = Arc::new(Wire { net, me: node, heard, beats: beats.clone(), believed: Mutex::default() });
        let dir = self.node_dir(n);
        let returning = (!self.ran.insert(n)).then(|| now().0);
        let config = ControlConfig { node, dir, timings: self.timings, returning };
        let control = runtime.block_on(Control::start(config, wire.clone()));
        let control = control.unwrap_or_else(|e| panic!("node {n}: {e}"));
        let line = Line { control: control.clone(), handle: runtime.handle().clone(), beats };
        self.net.lines.lock().unwrap().insert(node, line);
        self.nodes.insert(node, Node { control, runtime, wire });
    }

    /// Where a node keeps its database.
    pub fn node_dir(&self, n: u16) -> PathBuf {
        self.dir.path().join(format!("node{n}"))
    }

    /// The two files of its database, the one that is closed last first.
    pub fn database(&self, n: u16) -> [PathBuf; 2] {
        ["control.redb", "control.copy.redb"].map(|file| self.node_dir(n).join(file))
    }

    /// Ends the node's run without a word. Its database is closed then.
    pub fn kill(&mut self, n: u16) {
        self.net.lines.lock().unwrap().remove(&NodeId(n));
        let node = self.nodes.remove(&NodeId(n)).unwrap();
        drop(node.control);
        drop(node.wire);
        node.runtime.shutdown_timeout(Duration::from_secs(2));
        // The thread that writes it holds its lock until the last task of the run is dropped.
        File::open(&self.database(n)[0])
            .and_then(|file| file.lock())
            .expect("the database can be waited for");
    }

    /// Waits until node `n` has believed another beat of that one.
    pub fn wait_beat(&self, n: u16, from: u16) {
        let believed = &self.nodes[&NodeId(n)].wire.believed;
        believed.lock().unwrap().clear();
        self.wait("a beat", |_| believed.lock().unwrap().contains(&NodeId(from)).then_some(()));
    }

    pub fn cut(&self, a: u16, b: u16) {
        self.net.cut.lock().unwrap().insert((NodeId(a.min(b)), NodeId(a.max(b))));
    }

    pub fn heal(&self) {
        self.net.cut.lock().unwrap().clear();
    }

    pub fn propose(&self, n: u16, command: Command) -> Result<CommandResult, ProposeError> {
        let node = &self.nodes[&NodeId(n)];
        node.runtime.block_on(node.control.propose(command))
    }

    pub fn map(&self, n: u16) -> Arc<ClusterMap> {
        self.nodes[&NodeId(n)].control.map().borrow().clone()
    }

    /// Looks until `seen` says something.
    pub fn wait<T>(&self, what: &str, mut seen: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            if let Some(found) = seen(self) {
                return found;
            }
            if Instant::now() > deadline {
                let state = |n: &Node| format!("{:?}", n.control.metrics());
                panic!("{what} is not seen: {:#?}", self.nodes.values().map(state).collect::<Vec<_>>());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The leader that most nodes agree on, once there is one that is itself sure.
    pub fn leader(&self) -> u16 {
        self.wait("a leader", |c| {
            let sure = c.nodes.values().find(|n| n.control.is_leader())?;
            let node = sure.control.node();
            let agree = c.nodes.values().filter(|n| n.control.leader() == Some(node)).count();
            (agree * 2 > sure.control.metrics().voters.len()).then_some(node.0)
        })
    }

    /// A run of node `n` starts: with a director, and its disk.
    pub fn run_node(&mut self, n: u16, nonce: u64) -> mpsc::Receiver<DirectorEvent> {
        let node = NodeId(n);
        let started = Command::NodeStarted { node, boot_nonce: nonce, address: format!("10.0.0.{n}") };
        let Ok(CommandResult::Incarnation(incarnation)) = self.propose(n, started) else {
            panic!("node {n} is not started");
        };
        let disk = Command::AddDisk {
            disk: DiskId(u128::from(n)),
            node,
            size: 6 << 30,
            path: format!("/disks/{n}"),
            pool: "default".into(),
            boot_nonce: nonce,
        };
        self.propose(n, disk).unwrap();
        let (events, taken) = mpsc::channel(1024);
        let running = &self.nodes[&node];
        let config = DirectorConfig {
            detector: DetectorConfig::default(),
            paths: PathConfig::default(),
            incarnation,
            stuck_after: Duration::from_secs(2),
            replace_after: Duration::from_secs(600),
            now,
        };
        let director = Director::new(running.control.clone(), running.wire.clone(), config, events);
        running.runtime.spawn(director.run());
        taken
    }
}
