//! A node: a run of its daemon (engine, clock, what the shell remembers), its disks, and what is held back while the
//! daemon is stopped.

use crate::disk::Disk;
use crate::event::Event;
use holdfast_engine::{Engine, EngineConfig};
use holdfast_replication::CheckReport;
use holdfast_types::{ConnectionId, DiskId, NodeId, ProcessIncarnation, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Clocks of hosts drift apart by at most so much, in millionths: less than the owners allow for.
pub const DRIFT_MOST_PPM: u64 = 4000;

/// A boot clock: its own zero and its own pace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// The true time at which it started.
    pub started: Time,
    /// What it showed then.
    pub showed: u64,
    /// How much it is fast, in millionths; [`DRIFT_MOST_PPM`] is right.
    pub pace: u64,
}

const MILLION: u64 = 1_000_000;

impl Clock {
    fn rate(&self) -> u128 {
        u128::from(MILLION - DRIFT_MOST_PPM + self.pace)
    }

    /// What it shows at a true time.
    pub fn local(&self, now: Time) -> Time {
        let passed = u128::from(now.since(self.started).0) * self.rate() / u128::from(MILLION);
        Time(self.showed + passed as u64)
    }

    /// The first true time at which it shows at least `local`.
    pub fn global(&self, local: Time) -> Time {
        let left = u128::from(local.0.saturating_sub(self.showed)) * u128::from(MILLION);
        Time(self.started.0.saturating_add(left.div_ceil(self.rate()) as u64))
    }
}

/// A run of the daemon.
pub struct Process {
    /// The engine.
    pub engine: Engine,
    /// Its host's clock.
    pub clock: Clock,
    /// The run's number at control, once it has one.
    pub incarnation: Option<ProcessIncarnation>,
    /// When the engine's timer is planned, and the number of that plan.
    pub timer: Option<(Time, u64)>,
    /// Clients that are connected.
    pub connections: BTreeSet<ConnectionId>,
    /// Checks that ended, by number.
    pub checks: BTreeMap<u64, Option<CheckReport>>,
}

/// See the module's text.
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// Its engine's configuration.
    pub config: EngineConfig,
    /// Its disks.
    pub disks: BTreeMap<DiskId, Disk>,
    /// The daemon; None while it does not run.
    pub process: Option<Process>,
    /// Counts the runs.
    pub run: u64,
    /// The daemon was asked to stop and is about to.
    pub stopping: bool,
    /// The daemon is stopped; what comes for it waits here.
    pub paused: Option<Vec<Event>>,
}

impl Node {
    /// Whether the daemon runs and is not stopped.
    pub fn is_running(&self) -> bool {
        self.process.is_some() && self.paused.is_none()
    }
}
