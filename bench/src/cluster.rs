//! A cluster of real daemons for one setup, on addresses of its own, made and asked through the command line only.
//! Its daemons end when it is dropped; its folder belongs to the caller.

use crate::command;
use crate::error::BenchError;
use crate::interrupt;
use holdfast_tests::process::{Usage, usage_of};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The volume that is measured.
pub const VOLUME: &str = "bench";
/// Node i has this network's address i: not the demo's.
const NETWORK: &str = "127.0.7";
/// How long anything of a fresh cluster may take.
const READY: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Lines of a daemon's log that are shown when it ended.
const LOG_LINES: usize = 8;

struct Node {
    dir: PathBuf,
    daemon: Child,
}

/// A cluster; nodes count from 1.
pub struct Cluster {
    binary: String,
    nodes: Vec<Node>,
}

impl Cluster {
    /// Starts one in a folder, with a volume of so many MiB and a copy on each node, up to three.
    pub fn start(binary: &Path, folder: &Path, nodes: usize, volume_mib: u64) -> Result<Cluster, BenchError> {
        let mut cluster = Cluster { binary: binary.to_string_lossy().into_owned(), nodes: Vec::new() };
        // Room for the volume, the journal, and the pages that describe them.
        let disk_mib = volume_mib * 5 / 4 + 1024;
        for _ in 0..nodes {
            cluster.add(folder, disk_mib)?;
        }
        let (size, copies) = (format!("{volume_mib}M"), nodes.min(3).to_string());
        cluster.wait("every node is up", |c| c.nodes_up() == nodes)?;
        cluster.cli(1, &["volume", "create", VOLUME, "--size", &size, "--copies", &copies])?;
        cluster.wait("every copy is in sync", Cluster::is_in_sync)?;
        Ok(cluster)
    }

    fn add(&mut self, folder: &Path, disk_mib: u64) -> Result<(), BenchError> {
        let n = self.nodes.len() + 1;
        let dir = folder.join(format!("node{n}"));
        let (address, dir_text) = (self.address(n), dir.to_string_lossy().into_owned());
        let disk = format!("{}:{disk_mib}M", folder.join(format!("disk{n}")).display());
        let more = ["--dir", &dir_text, "--addr", &address, "--disk", &disk];
        if n == 1 {
            command::run(&self.binary, &[&["init", "--name", VOLUME], &more[..]].concat())?;
        } else {
            let answer = self.json(1, &["token", "create"])?;
            let token = answer["token"].as_str().unwrap_or_default();
            command::run(&self.binary, &[&["join", token], &more[..]].concat())?;
        }
        let log = folder.join(format!("node{n}.log"));
        let io = |source| BenchError::Io { path: log.clone(), source };
        let out = File::create(&log).map_err(io)?;
        let mut daemon = interrupt::child(&self.binary);
        daemon.args(["node", "run", "--dir", &dir_text]).stdin(Stdio::null());
        daemon.stderr(out.try_clone().map_err(io)?).stdout(out);
        let daemon =
            daemon.spawn().map_err(|source| BenchError::Start { program: self.binary.clone(), source })?;
        self.nodes.push(Node { dir, daemon });
        self.wait(&format!("node {n} answers"), |c| c.json(n, &["status"]).is_ok())
    }

    /// How many nodes it has.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// A node's address.
    pub fn address(&self, n: usize) -> String {
        format!("{NETWORK}.{n}")
    }

    /// Where a node serves the volume over NBD.
    pub fn nbd(&self, n: usize) -> String {
        format!("nbd://{}:10809/{VOLUME}", self.address(n))
    }

    fn cli(&self, n: usize, arguments: &[&str]) -> Result<String, BenchError> {
        let dir = self.nodes[n - 1].dir.to_string_lossy().into_owned();
        command::run(&self.binary, &[arguments, &["--dir", &dir]].concat())
    }

    fn json(&self, n: usize, arguments: &[&str]) -> Result<Value, BenchError> {
        let text = self.cli(n, &[arguments, &["--json"]].concat())?;
        serde_json::from_str(&text).map_err(|_| BenchError::Output { program: self.binary.clone() })
    }

    fn nodes_up(&self) -> usize {
        let status = self.json(1, &["status"]).unwrap_or_default();
        status["nodes"].as_array().map_or(0, |all| all.iter().filter(|n| n["state"] == "up").count())
    }

    fn is_in_sync(&self) -> bool {
        let volume = self.json(1, &["volume", "show", VOLUME]).unwrap_or_default();
        let in_sync = |s: &Value| {
            s["active_epoch"] == s["granted_epoch"]
                && s["copies"].as_array().is_some_and(|c| c.iter().all(|c| c["state"] == "in-sync"))
        };
        volume["segments"].as_array().is_some_and(|all| !all.is_empty() && all.iter().all(in_sync))
    }

    fn wait(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) -> Result<(), BenchError> {
        let end = Instant::now() + READY;
        while !holds(self) {
            if interrupt::asked() {
                return Err(BenchError::Interrupted);
            }
            self.check_alive()?;
            if Instant::now() > end {
                return Err(BenchError::Late { what: what.to_owned(), seconds: READY.as_secs() });
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// An error with the end of its log when a daemon is no more.
    pub fn check_alive(&mut self) -> Result<(), BenchError> {
        for (i, node) in self.nodes.iter_mut().enumerate() {
            if let Ok(Some(status)) = node.daemon.try_wait() {
                let log = node.dir.with_file_name(format!("node{}.log", i + 1));
                let text = std::fs::read_to_string(log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let said = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
                return Err(BenchError::Failed {
                    program: format!("node {}'s daemon ({status})", i + 1),
                    said,
                });
            }
        }
        Ok(())
    }

    /// What each daemon used so far.
    pub fn usage(&self) -> Vec<Usage> {
        self.nodes.iter().map(|n| usage_of(n.daemon.id()).unwrap_or_default()).collect()
    }

    /// What all daemons used so far.
    pub fn cpu(&self) -> Duration {
        self.usage().iter().map(|u| u.cpu).sum()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // What is measured is over, and the folder is thrown away: nothing is worth an orderly stop.
            let _ = node.daemon.kill();
        }
        for node in &mut self.nodes {
            let _ = node.daemon.wait();
        }
    }
}
