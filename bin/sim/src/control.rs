//! A stand-in for control: one agreed map, changed by `holdfast_cluster::apply`. Calls reach it after a while if the
//! caller reaches a majority; answers may be lost; followers may be late; for a while there may be no majority at
//! all. Beside it the director, as the leader's node runs it: nodes that do not answer for a while are down, and
//! `plan_grants` says which grants follow, and `plan_replacements` which copies are placed anew.

use crate::disk::Openings;
use crate::event::Event;
use crate::failure::{Checker, Failure};
use crate::faults::Gone;
use crate::world::World;
use holdfast_cluster::{
    ClusterMap, Command, CommandOf, CommandResult, NodeState, Patience, Reason, Single, apply, plan_grants,
    plan_replacements,
};
use holdfast_engine::{DiskOpen, Input, Registration};
use holdfast_store::{DiskIdentity, OpenReport};
use holdfast_types::{ConnectionId, DiskId, Duration, Epoch, NodeId, SegmentCommandResult, SegmentId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A grant that is not activated for so long goes to another owner.
const STUCK_AFTER: Duration = Duration::from_secs(3);
/// Between looks of the director.
const DIRECT_EVERY: Duration = Duration::from_millis(100);
/// Before a call that found no majority is made again.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// What a node asks of control.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which node.
    pub node: NodeId,
    /// In which of its runs.
    pub process: u64,
    /// What is proposed.
    pub command: Command,
    /// What the answer is for.
    pub then: Then,
    /// It was made before, and no answer came.
    pub again: bool,
}

/// What an answer is for.
#[derive(Clone, Debug)]
pub enum Then {
    /// The run's number.
    Start,
    /// An owner's proposal.
    Proposed(u64),
    /// The gateway's new number.
    Renew,
    /// Whether a disk is the one that it was.
    Open(DiskIdentity),
    /// A disk is wiped and starts anew.
    Wipe(DiskId, u64),
    /// Whether a session may write.
    Register(ConnectionId, Registration),
    /// Control knows that the earlier sessions are fenced.
    Fenced(ConnectionId, Registration),
    /// Nobody waits.
    Nothing,
}

/// What control answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// This.
    Result(Result<CommandResult, holdfast_cluster::CommandError>),
    /// There is no majority, or the answer was lost.
    Unknown,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Control {
    /// The agreed map.
    pub map: Arc<ClusterMap>,
    /// There is no majority until it is back.
    pub away: bool,
    /// Followers are late, and answers get lost.
    pub unsure: bool,
    /// A node that does not answer for so long is down.
    pub down_after: Duration,
    /// The copies of a node that is down for so long are placed anew, and those that lacked room for so long.
    pub replace_after: Duration,
    answered: BTreeMap<NodeId, Time>,
    /// When the disks told last how much room they have.
    pub(crate) room_told: Time,
    patience: Patience,
    unactivated: BTreeMap<SegmentId, (Epoch, Time)>,
}

impl Control {
    /// Changes the map at once.
    pub fn apply<B: Into<Vec<Single>>>(
        &mut self,
        command: CommandOf<B>,
    ) -> Result<CommandResult, holdfast_cluster::CommandError> {
        apply(Arc::make_mut(&mut self.map), command)
    }

    fn stuck(&mut self, now: Time) -> BTreeSet<SegmentId> {
        let mut still = BTreeMap::new();
        for (id, info) in self.map.segments.iter().filter(|(_, i)| i.active.epoch != i.granted.epoch) {
            let since = match self.unactivated.get(id) {
                Some((epoch, since)) if *epoch == info.granted.epoch => *since,
                _ => now,
            };
            still.insert(*id, (info.granted.epoch, since));
        }
        let late = |since: &Time| now.since(*since) >= STUCK_AFTER;
        let stuck = still.iter().filter(|(_, (_, since))| late(since)).map(|(id, _)| *id).collect();
        self.unactivated = still;
        stuck
    }
}

impl World {
    /// Whether a node reaches control: it and those that it reaches are a majority.
    pub fn reaches_control(&self, node: NodeId) -> bool {
        let running = |n: &NodeId| self.nodes[n].is_running() && self.net.open(node, *n);
        let reached = self.nodes.keys().filter(|n| running(n)).count();
        !self.control.away && self.nodes[&node].is_running() && reached * 2 > self.nodes.len()
    }

    /// Makes a call.
    pub fn call(&mut self, node: NodeId, command: Command, then: Then) {
        let process = self.nodes[&node].run;
        let delay = Duration::from_micros(300 + self.rng.below(5000));
        self.queue.after(delay, Event::Call(Call { node, process, command, then, again: false }));
    }

    /// A call reaches control, or finds no majority. One that is made again is not if its daemon died meanwhile.
    pub(crate) fn called(&mut self, call: Call) {
        let lives = self.nodes[&call.node].run == call.process && self.nodes[&call.node].process.is_some();
        if call.again && !lives {
            return;
        }
        let mut answer = Answer::Unknown;
        if self.reaches_control(call.node) {
            let grant = matches!(call.command, Command::Segment(_));
            let before = self.control.map.version;
            let result = self.control.apply(call.command.clone());
            if grant || self.control.map.version != before {
                self.note(|| format!("control: node {} {:?} -> {result:?}", call.node, call.command));
            }
            answer = Answer::Result(result);
            if self.control.unsure && self.rng.one_in(4) {
                answer = Answer::Unknown;
            }
        }
        let delay = Duration::from_micros(300 + self.rng.below(5000));
        self.queue.after(delay, Event::Answer(call, answer));
    }

    /// An answer reaches its caller.
    pub(crate) fn called_back(&mut self, call: Call, answer: Answer) -> Result<(), Failure> {
        let node = call.node;
        if self.nodes[&node].run != call.process || self.nodes[&node].process.is_none() {
            return Ok(());
        }
        let result = match (answer, &call.then) {
            (Answer::Unknown, Then::Proposed(number)) => {
                let input = Input::Proposed { number: *number, result: SegmentCommandResult::Unknown };
                return self.input(node, input);
            }
            (Answer::Unknown, _) => {
                self.queue.after(TRY_AGAIN, Event::Call(Call { again: true, ..call }));
                return Ok(());
            }
            (Answer::Result(result), _) => result,
        };
        match (call.then, result) {
            (Then::Proposed(number), Ok(CommandResult::Segment(result))) => {
                self.input(node, Input::Proposed { number, result })
            }
            (Then::Proposed(number), _) => {
                self.input(node, Input::Proposed { number, result: SegmentCommandResult::Refused })
            }
            (Then::Start, Ok(CommandResult::Incarnation(run))) => self.start_up(node, run),
            (Then::Renew, Ok(CommandResult::Incarnation(run))) => {
                self.input(node, Input::GatewayRenewed(run))
            }
            (Then::Open(identity), Ok(CommandResult::DiskIncarnation(incarnation))) => {
                if incarnation == identity.incarnation {
                    self.opened_as(identity.disk, identity.boot_nonce);
                    return Ok(());
                }
                self.note(|| format!("node {node}: disk {} is an older copy", identity.disk));
                self.format(node, DiskIdentity { incarnation, ..identity })
            }
            (Then::Wipe(disk, nonce), Ok(CommandResult::DiskIncarnation(incarnation))) => {
                let cluster = self.control.map.cluster;
                self.format(node, DiskIdentity { cluster, node, disk, incarnation, boot_nonce: nonce })
            }
            (Then::Register(connection, registration), Ok(CommandResult::Fence(targets))) => {
                self.registered(node, connection, registration, &targets)
            }
            (Then::Fenced(connection, registration), Ok(_)) => {
                self.input(node, Input::SessionRegistered { connection, registration })
            }
            (Then::Register(connection, _) | Then::Fenced(connection, _), Err(_)) => {
                self.input(node, Input::SessionMoved(connection))
            }
            (Then::Nothing, _) => Ok(()),
            (then, result) => Err(Failure::new(
                Checker::NoError,
                format!("control answered {result:?} to {then:?} of node {node}"),
            )),
        }
    }

    fn opened_as(&mut self, disk: DiskId, accepted: u64) {
        self.disk(disk).openings = Openings { accepted, tried: Vec::new() };
    }

    /// The run has a number: as the daemon does, the map first, then the number, then the disks.
    fn start_up(&mut self, node: NodeId, run: holdfast_types::ProcessIncarnation) -> Result<(), Failure> {
        self.note(|| format!("node {node} started as run {}", run.0));
        let map = self.control.map.clone();
        self.input(node, Input::Map(map))?;
        if let Some(process) = self.nodes.get_mut(&node).and_then(|n| n.process.as_mut()) {
            process.incarnation = Some(run);
        }
        self.input(node, Input::Started(run))?;
        let disks: Vec<DiskId> = self.nodes[&node].disks.keys().copied().collect();
        disks.into_iter().try_for_each(|disk| self.attach(node, disk))
    }

    pub(crate) fn attach(&mut self, node: NodeId, disk: DiskId) -> Result<(), Failure> {
        if self.faults.gone == Some(Gone::Disk(disk)) {
            let incarnation = self.control.map.disks.get(&disk).map(|d| d.incarnation).unwrap_or_default();
            self.call(node, Command::DiskMissing { disk, incarnation }, Then::Nothing);
            return Ok(());
        }
        if let Some(identity) = self.disk(disk).format {
            return self.format(node, identity);
        }
        let nonce = self.rng.draw().max(1);
        let this = self.disk(disk);
        this.openings.tried.push(nonce);
        let size = this.size();
        self.input(node, Input::DiskAttached { disk, size, open: DiskOpen::Existing { boot_nonce: nonce } })
    }

    /// Formats a node's disk.
    fn format(&mut self, node: NodeId, identity: DiskIdentity) -> Result<(), Failure> {
        let disk = identity.disk;
        self.opened_as(disk, identity.boot_nonce);
        let this = self.disk(disk);
        this.format = Some(identity);
        let size = this.size();
        self.input(node, Input::DiskAttached { disk, size, open: DiskOpen::Format(identity) })
    }

    /// A store opened its disk.
    pub(crate) fn disk_opened(&mut self, node: NodeId, report: &OpenReport) {
        let identity = report.identity;
        let known = self.control.map.disks.get(&identity.disk).map(|d| d.boot_nonce).unwrap_or_default();
        let this = self.disk(identity.disk);
        this.format = None;
        if identity.boot_nonce == this.openings.accepted {
            return;
        }
        let expect_nonce = this.openings.expected(report.previous_boot_nonce, known);
        let command =
            Command::DiskOpened { disk: identity.disk, expect_nonce, new_nonce: identity.boot_nonce };
        self.call(node, command, Then::Open(identity));
    }

    /// A store refused its disk: an operator wipes it, after the copies of others.
    pub(crate) fn wipe(&mut self, node: NodeId, disk: DiskId) {
        let nonce = self.rng.draw().max(1);
        let Some(expect) = self.control.map.disks.get(&disk).map(|d| d.incarnation) else { return };
        self.call(
            node,
            Command::NewDiskIncarnation { disk, expect, boot_nonce: nonce },
            Then::Wipe(disk, nonce),
        );
    }

    /// What the leader's node does ten times a second.
    pub(crate) fn direct(&mut self) {
        self.queue.after(DIRECT_EVERY, Event::Direct);
        let now = self.queue.now();
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        let answers: Vec<NodeId> = nodes.iter().copied().filter(|n| self.reaches_control(*n)).collect();
        for node in &answers {
            self.control.answered.insert(*node, now);
        }
        if answers.is_empty() {
            // Nobody leads. The next leader gives everybody a full term.
            self.control.answered.extend(nodes.iter().map(|n| (*n, now)));
            return;
        }
        for node in nodes {
            let Some(entry) = self.control.map.nodes.get(&node) else { continue };
            let (state, incarnation) = (entry.state, entry.incarnation);
            let current = self.nodes[&node].process.as_ref().and_then(|p| p.incarnation) == Some(incarnation);
            let silent =
                self.control.answered.get(&node).is_none_or(|at| now.since(*at) >= self.control.down_after);
            let command = match state {
                NodeState::Up | NodeState::Stopping if silent => Command::NodeDown { node, incarnation },
                NodeState::Down if current && answers.contains(&node) => {
                    Command::NodeUp { node, incarnation }
                }
                _ => continue,
            };
            self.note(|| format!("director: {command:?}"));
            let _ = self.control.apply(command);
        }
        self.tell_room(&answers);
        let stuck = self.control.stuck(now);
        for grant in plan_grants(&self.control.map, &stuck).grants {
            let result = self.control.apply(grant.clone());
            self.note(|| format!("director: {grant:?} -> {result:?}"));
        }
        self.control.patience.look(now, &self.control.map);
        let given_up = self.control.patience.given_up(now, self.control.replace_after);
        let plan = plan_replacements(&self.control.map, &given_up);
        self.watch.replaced += plan.replacements.len() as u64;
        let for_room = plan.replacements.iter().filter(|r| r.reason == Reason::NoRoom);
        self.watch.moved_for_room += for_room.count() as u64;
        for command in plan.drops.into_iter().chain(plan.replacements.into_iter().map(|r| r.command)) {
            let result = self.control.apply(command.clone());
            self.note(|| format!("director: {command:?} -> {result:?}"));
        }
    }

    /// A node's follower looks for a newer map.
    pub(crate) fn look_for_map(&mut self, node: NodeId, process: u64) -> Result<(), Failure> {
        if self.nodes[&node].run != process {
            return Ok(());
        }
        let late = if self.control.unsure { 1500 } else { 30 };
        let again = Duration::from_millis(2 + self.rng.below(late));
        self.queue.after(again, Event::Maps { node, process });
        let map = self.control.map.clone();
        // Before it is registered a run knows no map worth having.
        let started = self.nodes[&node].process.as_ref().is_some_and(|p| p.incarnation.is_some());
        if started && self.reaches_control(node) && self.seen.insert(node, map.version) != Some(map.version) {
            return self.input(node, Input::Map(map));
        }
        Ok(())
    }
}
