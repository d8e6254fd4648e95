//! A cluster of real daemons, one loopback address each, in a temporary folder. One that is measured is alone on
//! this machine, as two on two cores would measure each other. The others live side by side.

use crate::hosts::{self, Hosts};
use crate::nbd::Client;
use crate::pattern::BLOCK;
use crate::process::{Daemon, Signal, Usage, binary, target_dir};
use crate::{command, until, wait_for};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// The size of a segment, of which each has an owner.
const SEGMENT: u64 = 1 << 30;
/// The volume that every cluster has.
pub const VOLUME: &str = "demo";
/// How long a daemon may take until it answers.
const READY: Duration = Duration::from_secs(30);
/// How long healing may take after a failure that needs no large copy.
pub const HEAL: Duration = Duration::from_secs(60);
/// Lines of each daemon's log that a failed test prints.
const LOG_LINES: usize = 25;

/// How a cluster is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes.
    pub nodes: usize,
    /// The size of each node's disk, as the command line takes it.
    pub disk: String,
    /// The size of the volume.
    pub volume: String,
    /// How many copies it has; min(3, nodes) when not given.
    pub copies: Option<usize>,
    /// Where the disks lie: one folder for each node, or the node's own when there is none.
    pub disk_dirs: Vec<PathBuf>,
    /// Environment of the daemons.
    pub environment: Vec<(String, String)>,
    /// Whether it is alone on this machine: how long its requests wait is measured, or it listens on every address. The
    /// test is to be one of those that `.config/nextest.toml` runs alone, else it waits here for its turn.
    pub alone: bool,
    /// Whether each node has a host of its own; the test is then to be isolated.
    pub hosts: bool,
}

impl Options {
    /// `nodes` nodes with disks of 1 GiB and a volume of 1 GiB.
    pub fn new(nodes: usize) -> Self {
        let text = |s: &str| s.to_owned();
        Options {
            nodes,
            disk: text("1G"),
            volume: text("1G"),
            copies: None,
            disk_dirs: Vec::new(),
            environment: Vec::new(),
            alone: false,
            hosts: false,
        }
    }
}

struct Node {
    dir: PathBuf,
    address: String,
    disk: PathBuf,
    daemon: Option<Daemon>,
}

/// A cluster. Nodes are numbered from 1, as the product does.
pub struct Cluster {
    nodes: Vec<Node>,
    environment: Vec<(String, String)>,
    net: String,
    /// Each node's own host.
    hosts: Option<Hosts>,
    init_token: Option<String>,
    folder: Option<TempDir>,
    _turn: File,
}

impl Cluster {
    /// Starts a cluster, with its volume, every copy in sync.
    pub fn start(nodes: usize) -> Cluster {
        Cluster::with(Options::new(nodes))
    }

    /// Starts a cluster that is alone on this machine.
    pub fn alone(nodes: usize) -> Cluster {
        Cluster::with(Options { alone: true, ..Options::new(nodes) })
    }

    /// Starts a cluster as the options say.
    pub fn with(options: Options) -> Cluster {
        let turn = take_turn(options.alone);
        let base = target_dir().join("clusters");
        std::fs::create_dir_all(&base).expect("the target folder can be written");
        let folder = TempDir::with_prefix_in("c", &base).expect("the target folder can be written");
        // Ports of a cluster that just ended may linger: addresses are not used again soon.
        let pid = std::process::id();
        let net = format!("127.{}.{}", 16 + pid / 250 % 200, 1 + pid % 250);
        let mut cluster = Cluster {
            nodes: Vec::new(),
            environment: options.environment.clone(),
            net,
            hosts: options.hosts.then(Hosts::default),
            init_token: None,
            folder: Some(folder),
            _turn: turn,
        };
        for i in 0..options.nodes {
            cluster.add_node(&options.disk, options.disk_dirs.get(i).map(PathBuf::as_path));
        }
        until("every disk is in the map", READY, || {
            cluster.json(1, &["disk", "ls"]).as_array().is_some_and(|disks| disks.len() == options.nodes)
        });
        let copies = options.copies.unwrap_or(options.nodes.min(3)).to_string();
        cluster.cli(1, &["volume", "create", VOLUME, "--size", &options.volume, "--copies", &copies]);
        cluster.wait_healthy();
        // Two copies of three make a healthy cluster that writes: the third disk may not have been formatted yet.
        until("every disk is open", READY, || {
            let opened = cluster.events("disk-opened");
            (1..=options.nodes).all(|n| opened.iter().any(|e| e["node"] == n))
        });
        cluster
    }

    /// Adds a node: init for the first, join for the others; then starts it.
    pub fn add_node(&mut self, size: &str, disk_dir: Option<&Path>) -> usize {
        let n = self.nodes.len() + 1;
        let dir = self.folder.as_ref().expect("taken in drop only").path().join(format!("node{n}"));
        let disk = disk_dir.unwrap_or(&dir).join(format!("disk{n}.img"));
        let (address, reached_at) = match &mut self.hosts {
            Some(hosts) => (hosts::loopback(hosts.add()), hosts::address(n)),
            None => (format!("{}.{n}", self.net), format!("{}.{n}", self.net)),
        };
        let spec = format!("{}:{size}", disk.display());
        // The second host joins with the token that `init` printed, as an operator's would.
        let token = (n > 1).then(|| match self.init_token.take() {
            Some(token) => token,
            None => text(&self.json(self.first_living(), &["token", "create"])["token"]),
        });
        let verb = match &token {
            None => vec!["init", "--name", "test"],
            Some(token) => vec!["join", token],
        };
        self.nodes.push(Node { dir, address, disk, daemon: None });
        let name = format!("node-{n}");
        let made = [&verb[..], &["--addr", &reached_at, "--disk", &spec, "--node-name", &name]].concat();
        let made = self.json(n, &made);
        if n == 1 {
            self.init_token = Some(text(&made["token"]["token"]));
        }
        self.start_node(n);
        n
    }

    /// How many nodes there are.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    fn node(&self, n: usize) -> &Node {
        &self.nodes[n - 1]
    }

    /// The hosts of the nodes, each its own.
    pub fn hosts(&self) -> &Hosts {
        self.hosts.as_ref().expect("the options asked for hosts")
    }

    /// The address at which initiators reach a node.
    pub fn address(&self, n: usize) -> &str {
        &self.node(n).address
    }

    /// A node's data folder.
    pub fn dir(&self, n: usize) -> &Path {
        &self.node(n).dir
    }

    /// The file that is a node's disk.
    pub fn disk(&self, n: usize) -> &Path {
        &self.node(n).disk
    }

    /// Where a node serves the volume over NBD.
    pub fn nbd(&self, n: usize) -> String {
        format!("nbd://{}:10809/{VOLUME}", self.address(n))
    }

    /// Where a node serves the volume over iSCSI.
    pub fn iscsi(&self, n: usize) -> String {
        format!("iscsi://{}:3260/iqn.2026-11.io.holdfast:{VOLUME}/0", self.address(n))
    }

    /// The folder of this test: for what it wants to keep until it ends.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("taken in drop only").path()
    }

    // ---- processes ------------------------------------------------------------------------------------

    fn log(&self, n: usize) -> PathBuf {
        self.folder().join(format!("node{n}.log"))
    }

    /// Starts a node's daemon and waits until it answers.
    pub fn start_node(&mut self, n: usize) {
        self.spawn(n);
        self.wait_answers(n);
    }

    /// Starts a node's daemon.
    pub fn spawn(&mut self, n: usize) {
        let host = self.hosts.as_ref().map(|_| n);
        let daemon = Daemon::start(self.dir(n), &self.log(n), &self.environment, host);
        self.nodes[n - 1].daemon = Some(daemon);
    }

    /// Waits until a node answers.
    pub fn wait_answers(&mut self, n: usize) {
        until(&format!("node {n} answers"), READY, || {
            assert!(self.lives(n), "node {n}'s daemon ended:\n{}", self.log_tail(n));
            self.try_json(n, &["status"]).is_some()
        });
    }

    /// Whether a node's daemon runs.
    pub fn lives(&mut self, n: usize) -> bool {
        self.nodes[n - 1].daemon.as_mut().is_some_and(Daemon::lives)
    }

    /// Waits until a node's daemon has ended by itself.
    pub fn wait_ended(&mut self, n: usize) {
        until(&format!("node {n}'s daemon ends"), READY, || !self.lives(n));
    }

    /// SIGKILLs a node's daemon.
    pub fn kill(&mut self, n: usize) {
        if let Some(mut daemon) = self.nodes[n - 1].daemon.take() {
            daemon.kill();
        }
    }

    /// SIGKILLs every daemon at once.
    pub fn kill_all(&mut self) {
        let living: Vec<String> =
            self.nodes.iter().flat_map(|n| &n.daemon).map(|d| d.pid().to_string()).collect();
        let pids: Vec<&str> = ["-s", "KILL"].into_iter().chain(living.iter().map(String::as_str)).collect();
        if !living.is_empty() {
            let _ = command::run("kill", &pids);
        }
        (1..=self.size()).for_each(|n| self.kill(n));
    }

    /// Sends a signal to a node's daemon, which must run.
    pub fn signal(&mut self, n: usize, signal: Signal) {
        self.nodes[n - 1].daemon.as_mut().expect("the daemon was started").signal(signal);
    }

    /// A daemon's process id.
    pub fn pid(&self, n: usize) -> u32 {
        self.node(n).daemon.as_ref().expect("the daemon was started").pid()
    }

    /// What all daemons used so far, together, and the resident memory of the largest.
    pub fn usage(&self) -> (Usage, u64) {
        let each: Vec<Usage> = self.nodes.iter().flat_map(|n| &n.daemon).map(Daemon::usage).collect();
        let sum =
            Usage { cpu: each.iter().map(|u| u.cpu).sum(), resident: each.iter().map(|u| u.resident).sum() };
        (sum, each.iter().map(|u| u.resident).max().unwrap_or(0))
    }

    // ---- the command line -----------------------------------------------------------------------------

    /// Runs `holdfast` against a node; its standard output, or what it said.
    pub fn try_cli(&self, n: usize, arguments: &[&str]) -> Result<String, String> {
        let dir = self.dir(n).to_string_lossy();
        let program = binary().to_string_lossy();
        let host = hosts::name(n);
        let of_host = ["ip", "netns", "exec", &host, &program];
        let line = if self.hosts.is_some() { &of_host[..] } else { &of_host[4..] };
        command::run(line[0], &[&line[1..], arguments, &["--dir", &dir]].concat())
    }

    /// Runs `holdfast` against a node; it must succeed.
    pub fn cli(&self, n: usize, arguments: &[&str]) -> String {
        self.try_cli(n, arguments).unwrap_or_else(|said| panic!("{said}"))
    }

    /// What the command says that is refused.
    pub fn refused(&self, n: usize, arguments: &[&str]) -> String {
        match self.try_cli(n, arguments) {
            Err(said) => said,
            Ok(said) => panic!("{arguments:?} is not refused: {said}"),
        }
    }

    /// Runs `holdfast --json` against a node, if it succeeds.
    pub fn try_json(&self, n: usize, arguments: &[&str]) -> Option<Value> {
        let said = self.try_cli(n, &[arguments, &["--json"]].concat()).ok()?;
        Some(command::parse_json(arguments, &said))
    }

    /// Runs `holdfast --json` against a node; it must succeed.
    pub fn json(&self, n: usize, arguments: &[&str]) -> Value {
        command::parse_json(arguments, &self.cli(n, &[arguments, &["--json"]].concat()))
    }

    /// The first node that answers a question.
    pub fn ask(&self, arguments: &[&str]) -> Value {
        wait_for(&format!("an answer to {arguments:?}"), READY, || {
            (1..=self.size())
                .filter(|n| self.node(*n).daemon.is_some())
                .find_map(|n| self.try_json(n, arguments))
        })
    }

    /// The node that owns a segment of the volume.
    pub fn owner(&self, segment: usize) -> usize {
        number(&self.ask(&["volume", "show", VOLUME])["segments"][segment]["owner"])
    }

    /// Has a node own the first segment: ownership follows the I/O, here reads of the volume's last block there.
    pub fn make_owner(&self, node: usize) {
        let mut client = Client::connect(self.address(node), VOLUME, READY).expect("the export opens");
        let last = SEGMENT.min(client.size()) - BLOCK as u64;
        until(&format!("node {node} owns"), HEAL, || {
            // More requests than it takes to count, and between them time for the owner to count.
            (0..10).for_each(|_| _ = client.read(last, BLOCK).expect("a read"));
            self.owner(0) == node
        });
    }

    /// Waits until the copy that a node has of the first segment is in its set no more.
    pub fn wait_behind(&self, node: usize) {
        until(&format!("the copy on node {node} has left its set"), HEAL, || {
            self.first_copies().iter().any(|c| c["node"] == node && c["state"] == "behind")
        });
    }

    /// The node that leads the control plane.
    pub fn leader(&self) -> usize {
        wait_for("a control leader", HEAL, || match number(&self.ask(&["status"])["leader"]) {
            0 => None,
            n => Some(n),
        })
    }

    fn first_copies(&self) -> Vec<Value> {
        let detail = self.ask(&["volume", "show", VOLUME]);
        detail["segments"][0]["copies"].as_array().cloned().unwrap_or_default()
    }

    /// The nodes with a copy of the volume's first segment, and whether all of these are in sync.
    pub fn copies(&self) -> (Vec<usize>, bool) {
        let copies = self.first_copies();
        let in_sync = copies.iter().all(|c| c["state"] == "in-sync");
        (copies.iter().map(|c| number(&c["node"])).collect(), in_sync)
    }

    /// Whether every node is up and every copy in sync, as the answering node sees it.
    pub fn is_healthy(&self) -> bool {
        self.has("healthy")
    }

    /// Whether it says this of its health, and every copy is in sync.
    pub fn has(&self, health: &str) -> bool {
        let status = self.ask(&["status"]);
        if status["health"] != health || status["control_quorum"] != true {
            return false;
        }
        let detail = self.ask(&["volume", "show", VOLUME]);
        let Some(segments) = detail["segments"].as_array() else { return false };
        segments.iter().all(|s| {
            s["active_epoch"] == s["granted_epoch"]
                && s["copies"].as_array().is_some_and(|c| c.iter().all(|c| c["state"] == "in-sync"))
        })
    }

    /// Waits until the cluster is healthy.
    pub fn wait_healthy(&self) {
        self.wait_healthy_for(HEAL);
    }

    /// Whether every node complains of that.
    pub fn all_complain(&self, of: &str) -> bool {
        (1..=self.size()).all(|n| self.json(n, &["status"])["problems"].to_string().contains(of))
    }

    /// Waits until the cluster is healthy, at most so long.
    pub fn wait_healthy_for(&self, limit: Duration) {
        until("the cluster is healthy", limit, || self.is_healthy());
    }

    /// Events of one kind that any node kept.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let living = (1..=self.size()).filter(|n| self.node(*n).daemon.is_some());
        let all = living.filter_map(|n| self.try_json(n, &["events", "--last", "1000"]));
        all.flat_map(|v| v.as_array().cloned().unwrap_or_default()).filter(|e| e["kind"] == kind).collect()
    }

    /// Waits until the event log tells of such an event: these words in what happened, and those in why.
    pub fn wait_event(&self, kind: &str, what: &str, why: &str) {
        until(&format!("an event {kind}: {what}: {why}"), READY, || {
            self.events(kind).iter().any(|e| {
                let says =
                    |field: &str, words: &str| e[field].as_str().is_some_and(|said| said.contains(words));
                says("what", what) && says("why", why)
            })
        });
    }

    /// Events of replication whose text holds these words, as any node kept them.
    pub fn replication_events(&self, words: &str) -> Vec<String> {
        let events =
            self.events("replication").into_iter().filter_map(|e| e["what"].as_str().map(str::to_owned));
        events.filter(|what| what.contains(words)).collect()
    }

    /// `volume check`: the report, whatever it found.
    pub fn check(&self) -> Value {
        let dir = self.dir(self.first_living()).to_string_lossy().into_owned();
        let bin = binary().to_string_lossy();
        let output = command::output_of(&bin, &["volume", "check", VOLUME, "--json", "--dir", &dir]);
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).unwrap_or_else(|e| {
            panic!("volume check printed no report: {e}\n{text}\n{}", String::from_utf8_lossy(&output.stderr))
        })
    }

    /// A check that leaves no copy out: one whose node just came back may not answer the first time.
    pub fn full_check(&self) -> Value {
        wait_for("a check that leaves no copy out", HEAL, || {
            let report = self.check();
            report["skipped"].as_array().is_some_and(Vec::is_empty).then_some(report)
        })
    }

    /// Every copy equals the others, every checksum is right, and no copy was left out.
    pub fn assert_copies_equal(&self) {
        let report = self.full_check();
        let findings = report["findings"].as_array().expect("findings are a list");
        assert!(findings.is_empty(), "copies differ in {} places, such as {:#}", findings.len(), findings[0]);
    }

    fn first_living(&self) -> usize {
        (1..=self.size()).find(|n| self.node(*n).daemon.is_some()).expect("a daemon runs")
    }

    /// A number of a daemon's metrics page, summed over labels.
    pub fn metric(&self, n: usize, name: &str) -> f64 {
        metric_in(&self.metrics_page(n), name)
    }

    /// A daemon's metrics page.
    pub fn metrics_page(&self, n: usize) -> String {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect((hosts::enter(self.address(n)), 7403))
            .expect("the metrics port listens");
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address(n));
        stream.write_all(request.as_bytes()).expect("a request can be sent");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("the page is text");
        page
    }

    fn log_tail(&self, n: usize) -> String {
        let text = std::fs::read_to_string(self.log(n)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

/// A number of a metrics page, summed over labels.
pub fn metric_in(page: &str, name: &str) -> f64 {
    let value = |line: &str| {
        let (key, value) = line.rsplit_once(' ')?;
        (key.split('{').next() == Some(name)).then(|| value.parse::<f64>().ok()).flatten()
    };
    page.lines().filter_map(value).sum()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap_or(0) as usize
}

/// Waits until no cluster lives on this machine that is to be alone; or, `alone`, none at all.
pub fn take_turn(alone: bool) -> File {
    let path = std::env::temp_dir().join("holdfast-tests.lock");
    // Another user may have made it: who only reads it takes part in the lock all the same.
    let make = |_| File::options().create(true).write(true).truncate(false).open(&path);
    let file = File::open(&path).or_else(make).expect("the lock can be opened");
    if alone { file.lock() } else { file.lock_shared() }.expect("the lock can be taken");
    file
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            for n in 1..=self.size() {
                eprintln!("---- the end of node {n}'s log ----\n{}", self.log_tail(n));
            }
        }
        self.nodes.iter_mut().for_each(|n| n.daemon = None);
        if let (true, Some(folder)) = (failed, self.folder.take()) {
            // The disks are large and sparse on information; the logs and the folders stay.
            for node in &self.nodes {
                let _ = std::fs::remove_file(&node.disk);
            }
            eprintln!("---- everything else of this cluster is kept in {} ----", folder.keep().display());
        }
    }
}
