//! One event: whom it is for, what the engine makes of it, and how what the engine orders is carried out.

use crate::control::Then;
use crate::disk::node_of;
use crate::event::Event;
use crate::failure::Failure;
use crate::finish::UNDER_WAY;
use crate::stopping::Stop;
use crate::world::World;
use bytes::Bytes;
use holdfast_cluster::Command;
use holdfast_engine::{Input, Output, Registration};
use holdfast_types::{DiskOrderKind, Duration, NodeId};

/// What a slow disk takes more for each order, at least; at most twice as long, and for a sector that it reads again and again
/// so many times that.
const SLOW_DISK: Duration = Duration::from_millis(200);
const READ_AGAIN: u64 = 5;

impl World {
    /// Lets an event happen.
    pub(crate) fn happen(&mut self, event: Event) -> Result<(), Failure> {
        self.watch.event(self.queue.now())?;
        let Some(event) = self.hold_if_paused(event) else { return Ok(()) };
        match event {
            Event::Frame { from, to, generation, header, payload } => {
                match self.net.arrive(from, to, generation, (header, payload)) {
                    Some((header, payload)) => self.input(to, Input::Frame { from, header, payload }),
                    None => Ok(()),
                }
            }
            Event::LinkLost { from, to, generation } => {
                if !self.net.lost(from, to, generation) {
                    return Ok(());
                }
                self.note(|| format!("link {from} -> {to} lost"));
                self.dial_later(from, to);
                self.input(from, Input::LinkDown(to))
            }
            Event::Dial { from, process, to } => self.dial(from, process, to),
            Event::Disk { disk, process } if self.nodes[&node_of(disk)].run == process => {
                let node = node_of(disk);
                if self.nodes[&node].process.is_none() {
                    return Ok(());
                }
                match self.disk(disk).step() {
                    Some(done) => self.input(node, Input::DiskDone { disk, done }),
                    None => Ok(()),
                }
            }
            Event::Disk { .. } => Ok(()),
            Event::Timer { node, number } => self.timer(node, number),
            Event::Maps { node, process } => self.look_for_map(node, process),
            Event::Call(call) => {
                self.called(call);
                Ok(())
            }
            Event::Answer(call, answer) => self.called_back(call, answer),
            Event::Stopping(stop) => self.go_on_stopping(stop),
            Event::Checkpoint { node, process } if self.nodes[&node].run == process => {
                self.input(node, Input::Checkpoint)
            }
            Event::Checkpoint { .. } => Ok(()),
            Event::Fence(number) => self.fence(number),
            Event::Fenced { number, done } => self.fenced(number, done),
            Event::Direct => {
                self.direct();
                self.watch_engines()
            }
            Event::ToServer { connection, bytes } => match self.connections.get(&connection) {
                Some((_, node)) => self.input(*node, Input::SessionBytes { connection, bytes }),
                None => Ok(()),
            },
            Event::ToClient { connection, bytes } => self.client_bytes(connection, &bytes),
            Event::Hangup(connection) => {
                self.client_hangup(connection);
                Ok(())
            }
            Event::ClientGone(connection) => match self.connections.remove(&connection) {
                Some((_, node)) => self.input(node, Input::SessionClosed(connection)),
                None => Ok(()),
            },
            Event::Think { client } => self.think(client),
            Event::Fault => self.inject(),
            Event::Heal(healing) => {
                self.heal(healing);
                Ok(())
            }
        }
    }

    /// What comes for a daemon that is stopped waits, in order, and so does what a disk that hangs is to do.
    fn hold_if_paused(&mut self, event: Event) -> Option<Event> {
        let node = match &event {
            Event::Frame { to, .. } => *to,
            Event::LinkLost { from, .. } | Event::Dial { from, .. } => *from,
            Event::Disk { disk, .. } => node_of(*disk),
            Event::Timer { node, .. } | Event::Maps { node, .. } => *node,
            Event::Stopping(Stop { node, .. }) | Event::Checkpoint { node, .. } => *node,
            Event::Answer(call, _) => call.node,
            Event::ToServer { connection, .. } | Event::ClientGone(connection) => {
                self.connections.get(connection)?.1
            }
            _ => return Some(event),
        };
        let node = self.node(node);
        let hung = match &event {
            Event::Disk { disk, .. } => node.disks.get_mut(disk).and_then(|d| d.hung.as_mut()),
            _ => None,
        };
        match hung.or(node.paused.as_mut()) {
            Some(held) => {
                held.push(event);
                None
            }
            None => Some(event),
        }
    }

    fn dial(&mut self, from: NodeId, process: u64, to: NodeId) -> Result<(), Failure> {
        if self.nodes[&from].run != process || self.nodes[&from].process.is_none() {
            return Ok(());
        }
        if !self.net.open(from, to) || !self.nodes[&to].is_running() {
            self.dial_later(from, to);
            return Ok(());
        }
        self.net.connect(from, to);
        self.note(|| format!("link {from} -> {to} up"));
        self.input(from, Input::LinkUp(to))?;
        self.input(to, Input::PeerUp(from))
    }

    fn timer(&mut self, node: NodeId, number: u64) -> Result<(), Failure> {
        let Some(process) = self.node(node).process.as_mut() else { return Ok(()) };
        match process.timer {
            Some((_, planned)) if planned == number => process.timer = None,
            _ => return Ok(()),
        }
        self.input(node, Input::Timer)
    }

    /// Gives a node's engine a fact and carries out what it orders.
    pub fn input(&mut self, node: NodeId, input: Input) -> Result<(), Failure> {
        let now = self.queue.now();
        let Some(process) = self.node(node).process.as_mut() else { return Ok(()) };
        let local = process.clock.local(now);
        let mut outputs = Vec::new();
        process.engine.handle(local, input, &mut outputs);
        process.engine.pump(local, &mut outputs);
        for output in outputs {
            self.carry_out(node, output)?;
        }
        self.plan_timer(node);
        Ok(())
    }

    fn plan_timer(&mut self, node: NodeId) {
        let now = self.queue.now();
        let number = self.timers + 1;
        let Some(process) = self.node(node).process.as_mut() else { return };
        let Some(at) = process.engine.next_timer() else { return process.timer = None };
        let at = process.clock.global(at).max(now + Duration(1));
        if process.timer.is_none_or(|(planned, _)| planned != at) {
            process.timer = Some((at, number));
            self.timers = number;
            self.queue.at(at, Event::Timer { node, number });
        }
    }

    fn carry_out(&mut self, node: NodeId, output: Output) -> Result<(), Failure> {
        match output {
            Output::Disk { disk, order } => {
                let slow = if self.rng.one_in(100) { 10_000 } else { 0 };
                let mut delay = Duration::from_micros(10 + self.rng.below(150) + self.rng.below(slow + 1));
                if self.disk(disk).slow {
                    let is_read = matches!(order.kind, DiskOrderKind::Read { .. });
                    let times = if is_read && self.rng.one_in(4) { READ_AGAIN } else { 1 };
                    delay = delay + Duration((SLOW_DISK.0 + self.rng.below(SLOW_DISK.0)) * times);
                }
                self.disk(disk).order(order);
                let process = self.nodes[&node].run;
                self.queue.after(delay, Event::Disk { disk, process });
            }
            Output::Send { to, frame, .. } => {
                let payload: Bytes = frame.payload.concat().into();
                self.net.send(&mut self.queue, &mut self.rng, node, to, frame.header, payload);
            }
            Output::SessionSend { connection, bytes } => self.send_to_client(connection, Some(bytes)),
            Output::SessionClose { connection, reason } => {
                self.note(|| format!("node {node} closes connection {}: {reason}", connection.0));
                if let Some(process) = self.node(node).process.as_mut() {
                    process.connections.remove(&connection);
                }
                self.send_to_client(connection, None);
            }
            Output::Propose { number, command } => {
                self.call(node, Command::Segment(command), Then::Proposed(number))
            }
            Output::RenewGateway => {
                let incarnation =
                    self.control.map.nodes.get(&node).map(|n| n.incarnation).unwrap_or_default();
                self.call(node, Command::GatewayRenewed { node, incarnation }, Then::Renew);
            }
            Output::Freed { segment, disk } => {
                self.call(node, Command::SegmentFreed { segment, disk }, Then::Nothing);
            }
            Output::DiskOpened { report, .. } => self.disk_opened(node, &report),
            Output::DiskRefused { disk, error } => self.disk_refused(node, disk, error)?,
            Output::Checked { number: UNDER_WAY, report } => {
                if let Some(report) = report {
                    self.watch.checks += 1;
                    self.judge_check(&report)?;
                }
            }
            Output::Checked { number, report } => {
                if let Some(process) = self.node(node).process.as_mut() {
                    process.checks.insert(number, report);
                }
            }
            Output::Event(event) => self.watch_event(node, &event)?,
            Output::RegisterSession { connection, registration } => {
                let Registration { nexus, volume, gateway, session, seen, renews } = registration.clone();
                let command = match renews {
                    None => Command::RegisterSession { nexus, gateway, session, volume, seen },
                    Some(was) => Command::RenewSession { nexus, gateway, session, volume, was },
                };
                self.call(node, command, Then::Register(connection, registration));
            }
            Output::EndSession(registration) => {
                let Registration { nexus, volume, gateway, session, .. } = registration;
                self.call(node, Command::EndSession { nexus, gateway, session, volume }, Then::Nothing);
            }
            Output::SessionFenced { number, done } => self.fence_answered(node, number, done),
        }
        Ok(())
    }
}
