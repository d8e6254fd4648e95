//! A planned stop, step by step as the daemon takes it (its `control/stop.rs`): control hears of it, ownership is handed
//! over, control hears that the run ended while it still answers, everything is written back, and the process ends. What
//! does not come about in time is left as it is, and any other fault may come in between.

use crate::event::Event;
use crate::failure::Failure;
use crate::faults::Healing;
use crate::world::World;
use holdfast_cluster::{Command, NodeState};
use holdfast_engine::Input;
use holdfast_store::testing::Cut;
use holdfast_types::{Duration, NodeId, ProcessIncarnation, Time};

/// How long ownership is handed over.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(3);
/// How long the others may take to do without this node's copies.
const LET_GO_WITHIN: Duration = Duration::from_secs(1);
/// How long writing back may take.
const WRITTEN_BACK_WITHIN: Duration = Duration::from_secs(6);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Ownership is handed over.
    HandsOver {
        /// How many segments were owned at the last look.
        left: usize,
    },
    /// The others learn to do without its copies.
    LetsGo,
    /// Everything is written back.
    WritesBack,
}

/// A stop under way.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    /// Which node.
    pub node: NodeId,
    /// Which of its runs.
    pub process: u64,
    /// How far it has come.
    pub stage: Stage,
    /// Since when.
    pub since: Time,
    /// How long the node stays away then.
    pub away: Duration,
}

impl World {
    /// A node's daemon is asked to stop; it starts again after a while.
    pub fn stop(&mut self, node: NodeId, away: Duration) {
        if !self.nodes[&node].is_running() || self.nodes[&node].stopping {
            return;
        }
        self.note(|| format!("fault: node {node} is asked to stop"));
        let others = self.map().nodes.values().any(|n| n.id != node && n.state == NodeState::Up);
        let stopping = |node, incarnation| Command::NodeStopping { node, incarnation };
        let announced = others && self.tell(node, stopping);
        let stage = if announced { Stage::HandsOver { left: 0 } } else { Stage::WritesBack };
        let (process, since) = (self.nodes[&node].run, self.queue.now());
        self.node(node).stopping = true;
        self.enter(Stop { node, process, stage, since, away });
    }

    /// Tells control something of this run, if it reaches control and has a number.
    fn tell(&mut self, node: NodeId, command: impl Fn(NodeId, ProcessIncarnation) -> Command) -> bool {
        let run = self.nodes[&node].process.as_ref().and_then(|p| p.incarnation);
        let Some(incarnation) = run.filter(|_| self.reaches_control(node)) else { return false };
        let result = self.control.apply(command(node, incarnation));
        self.note(|| format!("control: node {node} is about to stop -> {result:?}"));
        result.is_ok()
    }

    fn enter(&mut self, stop: Stop) {
        if stop.stage == Stage::WritesBack {
            self.queue.after(Duration::ZERO, Event::Checkpoint { node: stop.node, process: stop.process });
        }
        self.queue.after(LOOK_AGAIN, Event::Stopping(stop));
    }

    /// A look at how far it has come.
    pub(crate) fn go_on_stopping(&mut self, stop: Stop) -> Result<(), Failure> {
        let Stop { node, process, stage, since, away } = stop;
        let now = self.queue.now();
        let this = &self.nodes[&node];
        let Some(running) = this.process.as_ref().filter(|_| this.run == process) else { return Ok(()) };
        let waited = now.since(since);
        match stage {
            Stage::HandsOver { left } => {
                let owned = running.engine.status().owned.len();
                if owned > 0 && waited < HAND_OVER_WITHIN {
                    self.enter(Stop { stage: Stage::HandsOver { left: owned }, ..stop });
                    return if owned >= left { self.input(node, Input::HandOver) } else { Ok(()) };
                }
                let stage = match self.tell(node, |node, incarnation| Command::NodeDown { node, incarnation })
                {
                    true => Stage::LetsGo,
                    false => Stage::WritesBack,
                };
                self.enter(Stop { stage, since: now, ..stop });
            }
            Stage::LetsGo if self.map().is_needed(node) && waited < LET_GO_WITHIN => self.enter(stop),
            Stage::LetsGo => self.enter(Stop { stage: Stage::WritesBack, since: now, ..stop }),
            Stage::WritesBack if !running.engine.is_checkpointed() && waited < WRITTEN_BACK_WITHIN => {
                self.queue.after(LOOK_AGAIN, Event::Stopping(stop));
            }
            Stage::WritesBack => {
                self.watch.stopped += 1;
                self.crash(node, Cut::KeepAll);
                self.queue.after(away, Event::Heal(Healing::Start(node)));
            }
        }
        Ok(())
    }
}
