//! A session is registered: the earlier ones of its initiator port are fenced in the log of each segment of the volume,
//! asked of one owner after the other until each has done it, as the daemon does (its `control/sessions.rs`); then
//! control hears of it, and only then may the session write.

use crate::control::Then;
use crate::event::Event;
use crate::failure::Failure;
use crate::world::World;
use holdfast_cluster::{Command, FenceTarget};
use holdfast_engine::{Input, Registration};
use holdfast_types::{ConnectionId, Duration, NodeId, SegmentKey};
use std::collections::BTreeMap;

/// An owner that does not answer for so long is asked again, or its successor.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// What was asked of owners, by number.
#[derive(Debug, Default)]
pub(crate) struct Fencing {
    asked: BTreeMap<u64, Asked>,
    next: u64,
}

#[derive(Debug)]
struct Asked {
    /// Who asks, in which of its runs.
    node: NodeId,
    process: u64,
    connection: ConnectionId,
    registration: Registration,
    /// What is left to be fenced; the last is next.
    left: Vec<(SegmentKey, FenceTarget)>,
}

impl World {
    /// Control took a registration, and says what is to be fenced before its session may write.
    pub(crate) fn registered(
        &mut self,
        node: NodeId,
        connection: ConnectionId,
        registration: Registration,
        targets: &[FenceTarget],
    ) -> Result<(), Failure> {
        if targets.is_empty() {
            return self.input(node, Input::SessionRegistered { connection, registration });
        }
        let map = self.map();
        let segments = map.segments_of(registration.volume).map(|s| s.key);
        let left = segments.flat_map(|key| targets.iter().map(move |target| (key, *target))).collect();
        let process = self.nodes[&node].run;
        self.ask(Asked { node, process, connection, registration, left });
        Ok(())
    }

    /// Asks the next owner, soon.
    fn ask(&mut self, asked: Asked) {
        self.fencing.next += 1;
        let number = self.fencing.next;
        self.fencing.asked.insert(number, asked);
        let delay = Duration::from_micros(300 + self.rng.below(2000));
        self.queue.after(delay, Event::Fence(number));
    }

    /// A question reaches an owner; it is asked again if no answer comes.
    pub(crate) fn fence(&mut self, number: u64) -> Result<(), Failure> {
        let Some(asked) = self.fencing.asked.get(&number) else { return Ok(()) };
        let (node, process) = (asked.node, asked.process);
        if self.nodes[&node].run != process || self.nodes[&node].process.is_none() {
            self.fencing.asked.remove(&number);
            return Ok(());
        }
        self.queue.after(TRY_AGAIN, Event::Fence(number));
        if !self.nodes[&node].is_running() {
            return Ok(());
        }
        let Some((segment, target)) = asked.left.last().copied() else { return self.all_fenced(number) };
        let map = self.map();
        let Some(info) = map.segments.get(&segment.segment).filter(|s| s.key == segment) else {
            // Its volume was deleted.
            return self.fenced(number, true);
        };
        let owner = info.granted.owner;
        if !self.nodes[&owner].is_running() || owner != node && !self.net.open(node, owner) {
            return Ok(());
        }
        let FenceTarget { gateway, session } = target;
        self.input(owner, Input::FenceSession { number, segment, gateway, session })
    }

    /// An owner answers.
    pub(crate) fn fence_answered(&mut self, owner: NodeId, number: u64, done: bool) {
        let Some(asked) = self.fencing.asked.get(&number) else { return };
        if owner == asked.node || self.net.open(owner, asked.node) {
            let delay = Duration::from_micros(300 + self.rng.below(2000));
            self.queue.after(delay, Event::Fenced { number, done });
        }
    }

    /// The answer reaches who asked. One that was not done is asked again in time.
    pub(crate) fn fenced(&mut self, number: u64, done: bool) -> Result<(), Failure> {
        if done && let Some(mut asked) = self.fencing.asked.remove(&number) {
            asked.left.pop();
            self.ask(asked);
        }
        Ok(())
    }

    fn all_fenced(&mut self, number: u64) -> Result<(), Failure> {
        if let Some(asked) = self.fencing.asked.remove(&number) {
            let Asked { node, connection, registration, .. } = asked;
            let Registration { nexus, volume, gateway, session, .. } = registration.clone();
            let done = Command::SessionFenced { nexus, gateway, session, volume };
            self.call(node, done, Then::Fenced(connection, registration));
        }
        Ok(())
    }
}
