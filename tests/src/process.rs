//! One daemon as a process: started, signalled, waited for, and measured from /proc.

use crate::hosts;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// The daemon under test: `$HOLDFAST_BIN`, or the release build, which is brought up to date first.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("HOLDFAST_BIN") {
            return PathBuf::from(path);
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--release", "-q", "-p", "holdfast"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status();
        assert!(built.is_ok_and(|s| s.success()), "the daemon does not build");
        target_dir().join("release/holdfast")
    })
}

/// Where cargo builds to: the tests keep their files there, on a real disk and not in memory.
pub fn target_dir() -> PathBuf {
    let me = std::env::current_exe().expect("a process knows its file");
    // <target>/<profile>/deps/test, or <target>/<profile>/bench for the benchmark
    let profile = me.ancestors().skip(1).find(|p| !p.ends_with("deps")).expect("a build lies in a folder");
    profile.parent().expect("a profile lies in the target folder").to_path_buf()
}

/// A signal to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Term,
    /// SIGSTOP.
    Stop,
    /// SIGCONT.
    Cont,
}

/// A daemon that runs. Killed when dropped.
pub struct Daemon {
    child: Child,
}

/// What a process used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time, user and system.
    pub cpu: Duration,
    /// Resident bytes now.
    pub resident: u64,
}

impl Daemon {
    /// `holdfast node run` on a data folder, its log appended to a file; on a host of its own, if one is given.
    pub fn start(dir: &Path, log: &Path, environment: &[(String, String)], host: Option<usize>) -> Daemon {
        let log = File::options().create(true).append(true).open(log).expect("the log can be opened");
        let errors = log.try_clone().expect("a descriptor is left");
        let mut command = match host {
            // It becomes the daemon, under the same process id.
            Some(host) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &hosts::name(host)]).arg(binary());
                command
            }
            None => Command::new(binary()),
        };
        command.args(["node", "run", "--dir"]).arg(dir).stdin(Stdio::null()).stdout(log).stderr(errors);
        // The consensus library tells at every lost connection what it will do: too much to read a failure in.
        command.env("HOLDFAST_LOG", "info,openraft=off");
        command.envs(environment.iter().map(|(k, v)| (k, v)));
        Daemon { child: command.spawn().expect("the daemon starts") }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs.
    pub fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        let name = match signal {
            Signal::Kill => "KILL",
            Signal::Term => "TERM",
            Signal::Stop => "STOP",
            Signal::Cont => "CONT",
        };
        crate::succeed("kill", &["-s", name, &self.pid().to_string()]);
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What it used so far.
    pub fn usage(&self) -> Usage {
        usage_of(self.pid()).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a process used so far; None when it is gone. proc_pid_stat(5) and proc_pid_status(5): ticks are hundredths of
/// a second on Linux for every user program.
pub fn usage_of(pid: u32) -> Option<Usage> {
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u32 = after_name.get(11)?.parse::<u32>().ok()? + after_name.get(12)?.parse::<u32>().ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib: u64 =
        status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()?;
    Some(Usage { cpu: TICK * ticks, resident: kib << 10 })
}
