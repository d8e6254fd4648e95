//! A node: a run of its daemon (engine, clock, what the shell remembers), its disk, and what is held back while the
//! daemon is stopped.

use crate::disk::Disk;
use crate::event::Event;
use holdfast_engine::{Engine, EngineConfig};
use holdfast_replication::CheckReport;
use holdfast_store::DiskIdentity;
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

/// What the data folder says of the disk's openings, as the daemon keeps it.
#[derive(Clone, Debug, Default)]
pub struct Openings {
    /// The last nonce that control is known to have taken.
    pub accepted: u64,
    /// Those since that a store may have written.
    pub tried: Vec<u64>,
}

impl Openings {
    /// The nonce that control is asked to swap for the new one.
    pub fn expected(&self, on_disk: u64, at_control: u64) -> u64 {
        let ours = |nonce| nonce == self.accepted || self.tried.contains(&nonce);
        if self.tried.contains(&on_disk) && ours(at_control) { at_control } else { on_disk }
    }
}

/// See the module's text.
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// Its engine's configuration.
    pub config: EngineConfig,
    /// Its disk.
    pub disk: Disk,
    /// The disk's id.
    pub disk_id: DiskId,
    /// The disk's openings.
    pub openings: Openings,
    /// Set while the disk is to be formatted: a crash before that is done starts it over.
    pub format: Option<DiskIdentity>,
    /// The daemon; None while it does not run.
    pub process: Option<Process>,
    /// Counts the runs.
    pub run: u64,
    /// The daemon was asked to stop and is about to.
    pub stopping: bool,
    /// The daemon is stopped; what comes for it waits here.
    pub paused: Option<Vec<Event>>,
    /// The disk hangs; what it is to do waits here.
    pub hung: Option<Vec<Event>>,
    /// The disk takes long for everything.
    pub slow: bool,
}

impl Node {
    /// Whether the daemon runs and is not stopped.
    pub fn is_running(&self) -> bool {
        self.process.is_some() && self.paused.is_none()
    }
}
