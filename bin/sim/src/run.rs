//! A run from a seed: set up, requests under faults, the end.

use crate::failure::{Checker, Failure, Report};
use crate::options::Options;
use crate::world::World;
use holdfast_types::Duration;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Requests under faults go on for so long at most; what then is not sent is not.
const FAULTS_MOST: Duration = Duration::from_secs(120);
/// How long clients wait between two looks at most: about this times the requests gives the time under faults.
const THINK_MOST_US: u64 = 200_000;

/// What a run that held everything amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Requests that were answered.
    pub answered: u64,
    /// Writes that were refused because a disk was full.
    pub refused: u64,
    /// Epochs that were activated.
    pub activations: u64,
    /// Copies that were resynced.
    pub resyncs: u64,
    /// Sectors that were compared, found equal and written.
    pub swapped: u64,
    /// Comparisons of copies that ended under faults.
    pub checks: u64,
    /// Disks that failed, or that an operator took for lost.
    pub said_lost: u64,
    /// Blocks that were damaged.
    pub damaged: u64,
    /// Disks that were added.
    pub added: u64,
    /// Volumes that were made under faults.
    pub volumes: u64,
    /// Daemons that stopped as they were asked to.
    pub stopped: u64,
    /// Requests whose initiator went on over another session before they were answered.
    pub superseded: u64,
    /// Copies that were placed anew.
    pub replaced: u64,
    /// Of these, copies that had no room where they were.
    pub moved_for_room: u64,
    /// Copies that no disk has room for in the end.
    pub without_room: u64,
    /// Simulated time, in milliseconds.
    pub simulated_ms: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { answered, refused, activations, resyncs, swapped, checks, superseded, .. } = self;
        let Summary {
            stopped,
            volumes,
            damaged,
            added,
            said_lost,
            replaced,
            moved_for_room,
            without_room,
            ..
        } = self;
        write!(
            f,
            "{answered} answers, {refused} refused, {activations} activations, {resyncs} resyncs, {swapped} compared and \
             written, {checks} checks, {superseded} superseded, {stopped} stopped, {volumes} volumes, {said_lost} taken for \
             lost, {damaged} blocks damaged, {added} disks added, {replaced} placed anew, {moved_for_room} of them for room, \
             {without_room} without room in {} ms",
            self.simulated_ms
        )
    }
}

/// Runs a seed.
pub fn run_seed(options: &Options) -> Result<Summary, Report> {
    let report = |failure, trace| Report { seed: options.seed, failure, trace };
    let mut world = match World::new(options) {
        Ok(world) => world,
        Err(failure) => return Err(report(failure, Vec::new())),
    };
    match drive(&mut world, World::under_faults) {
        Ok(()) => Ok(world.summary()),
        Err(failure) => Err(report(failure, world.trace.lines())),
    }
}

/// Does something with a world; a panic is a failure as any other.
pub fn drive(world: &mut World, run: impl FnOnce(&mut World) -> Result<(), Failure>) -> Result<(), Failure> {
    match catch_unwind(AssertUnwindSafe(|| run(world))) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            Err(Failure::new(Checker::NoPanic, text))
        }
    }
}

impl World {
    /// What the run amounts to so far.
    pub fn summary(&self) -> Summary {
        Summary {
            answered: self.watch.answered,
            refused: self.watch.refused,
            activations: self.watch.activations,
            resyncs: self.watch.resyncs,
            swapped: self.watch.swapped,
            checks: self.watch.checks,
            superseded: self.watch.superseded,
            said_lost: (!self.faults.said_lost.is_empty()).into(),
            damaged: self.faults.damaged,
            added: self.operator.added.into(),
            stopped: self.watch.stopped,
            volumes: self.watch.volumes,
            replaced: self.watch.replaced,
            moved_for_room: self.watch.moved_for_room,
            without_room: self.without_room() as u64,
            simulated_ms: self.queue.now().0 / 1_000_000,
        }
    }

    fn under_faults(&mut self) -> Result<(), Failure> {
        self.watch.requests_left = self.options.steps;
        self.watch.think_us = THINK_MOST_US;
        self.inject_faults();
        let until = self.queue.now() + FAULTS_MOST;
        while self.watch.requests_left > 0 && self.queue.now() < until {
            self.run_for(Duration::from_millis(50))?;
        }
        self.finish()
    }
}
