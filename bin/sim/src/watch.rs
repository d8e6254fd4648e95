//! What is judged as it happens: events that no fault explains, one owner to an epoch, memory, and that events come
//! to an end.

use crate::control::Then;
use crate::event::Event;
use crate::failure::{Checker, Failure};
use crate::faults::Healing;
use crate::world::World;
use holdfast_cluster::Command;
use holdfast_engine::EngineEvent;
use holdfast_replication::ReplicationEvent;
use holdfast_store::testing::Cut;
use holdfast_store::{OpenError, StoreEvent};
use holdfast_types::{DiskId, Duration, Epoch, NodeId, ProcessIncarnation, SegmentKey, Time};
use std::collections::BTreeMap;

/// Events in one simulated second; more means that something turns in circles.
const EVENTS_PER_SECOND_MOST: u64 = 400_000;
/// How long it takes to look after a disk that cannot be opened.
const AWAY_FOR_REPAIR: Duration = Duration::from_secs(1);
/// What an owner may hold beyond its limits, for the records of one burst.
const SLACK_BYTES: usize = 4 << 20;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Watch {
    /// Requests that clients may still send.
    pub requests_left: u64,
    /// Requests that were answered.
    pub answered: u64,
    /// Writes that were refused because a disk was full.
    pub refused: u64,
    /// How long a client waits between two looks at most, in microseconds.
    pub think_us: u64,
    /// The last value that was written.
    pub values: u64,
    /// Epochs that were activated.
    pub activations: u64,
    /// Resyncs that ended.
    pub resyncs: u64,
    /// Sectors that were compared, found equal and written.
    pub swapped: u64,
    /// Comparisons of copies that ended while everything went on.
    pub checks: u64,
    /// Copies that were placed anew.
    pub replaced: u64,
    /// Of these, copies that had no room where they were.
    pub moved_for_room: u64,
    /// Volumes that were made while everything went on.
    pub volumes: u64,
    /// Daemons that stopped as they were asked to.
    pub stopped: u64,
    /// Requests that were not answered before their initiator's next session ended what they could do.
    pub superseded: u64,
    activated: BTreeMap<(SegmentKey, Epoch), (NodeId, Option<ProcessIncarnation>)>,
    second: u64,
    events: u64,
}

impl Watch {
    /// One event more.
    pub(crate) fn event(&mut self, now: Time) -> Result<(), Failure> {
        let second = now.0 / 1_000_000_000;
        if second != self.second {
            (self.second, self.events) = (second, 0);
        }
        self.events += 1;
        match self.events {
            EVENTS_PER_SECOND_MOST => {
                Err(Failure::new(Checker::Progress, format!("{} events in one second", self.events)))
            }
            _ => Ok(()),
        }
    }
}

impl World {
    /// An engine has something for the event log.
    pub(crate) fn watch_event(&mut self, node: NodeId, event: &EngineEvent) -> Result<(), Failure> {
        let damaged = self.faults.damaged > 0;
        let fail = |checker, text: String| Err(Failure::new(checker, format!("node {node}: {text}")));
        match event {
            EngineEvent::Replication { segment, event } => {
                self.note(|| format!("node {node}, segment {}: {event}", segment.segment));
                match event {
                    ReplicationEvent::Activated { epoch, .. } => {
                        self.watch.activations += 1;
                        let run = self.nodes[&node].process.as_ref().and_then(|p| p.incarnation);
                        let first = *self.watch.activated.entry((*segment, *epoch)).or_insert((node, run));
                        if first != (node, run) {
                            return fail(Checker::OneOwner, format!("{event}, as before {first:?}"));
                        }
                    }
                    ReplicationEvent::ResyncFinished { .. } => self.watch.resyncs += 1,
                    ReplicationEvent::Diverged { .. } | ReplicationEvent::Regressed { .. } if !damaged => {
                        return fail(Checker::NoError, event.to_string());
                    }
                    ReplicationEvent::Unreadable { .. } => return fail(Checker::NoError, event.to_string()),
                    ReplicationEvent::StoreRefused { .. } if !self.faults.said_lost.is_empty() => {}
                    ReplicationEvent::BadBlock { .. } | ReplicationEvent::StoreRefused { .. } if !damaged => {
                        return fail(Checker::NoError, event.to_string());
                    }
                    _ => {}
                }
            }
            EngineEvent::Store { disk, event: StoreEvent::DiskFailed { .. } }
                if self.faults.said_lost.contains(disk) =>
            {
                self.note(|| format!("node {node}: {event:?}"));
                let known = self.control.map.disks.get(disk).map(|d| d.incarnation);
                let failed = known.map(|incarnation| Command::DiskFailed { disk: *disk, incarnation });
                failed.into_iter().for_each(|command| self.call(node, command, Then::Nothing));
            }
            EngineEvent::Store { event, .. } => {
                self.note(|| format!("node {node}: {event:?}"));
                let is_late = matches!(
                    event,
                    StoreEvent::DiskSilent { .. }
                        | StoreEvent::DiskAnswers { .. }
                        | StoreEvent::DiskSlow { .. }
                        | StoreEvent::DiskKeepsUp { .. }
                );
                if !(damaged || is_late && self.faults.late) {
                    return fail(Checker::NoError, format!("{event:?}"));
                }
            }
            EngineEvent::BadFrame { from, error } => {
                return fail(Checker::NoError, format!("a frame of node {from} is bad: {error}"));
            }
            EngineEvent::LoggedIn { .. } => {}
        }
        Ok(())
    }

    /// A disk cannot be used: right only if it was damaged, or if it fails.
    pub(crate) fn disk_refused(
        &mut self,
        node: NodeId,
        disk: DiskId,
        error: OpenError,
    ) -> Result<(), Failure> {
        if self.faults.victim == Some(node) && self.faults.damaged > 0 {
            self.note(|| format!("node {node} refuses disk {disk}: {error}"));
            self.wipe(node, disk);
            return Ok(());
        }
        if self.faults.said_lost.contains(&disk) && matches!(error, OpenError::Io(_)) {
            self.note(|| format!("node {node} cannot open disk {disk}: {error}"));
            // Its operator changes the cable and starts it again.
            self.crash(node, Cut::KeepAll);
            self.queue.after(AWAY_FOR_REPAIR, Event::Heal(Healing::Start(node)));
            return Ok(());
        }
        Err(Failure::new(Checker::NoError, format!("node {node} refuses disk {disk}: {error}")))
    }

    /// Whether every engine keeps its limits.
    pub(crate) fn watch_engines(&mut self) -> Result<(), Failure> {
        for node in self.nodes.values() {
            let Some(process) = &node.process else { continue };
            let status = process.engine.status();
            let limits = &node.config.owner;
            for (segment, owner) in &status.owned {
                let most = limits.in_flight_bytes + limits.retained_bytes + SLACK_BYTES;
                if owner.log_bytes > most || owner.queued > limits.queued_requests {
                    let detail = format!(
                        "node {}, segment {}: {} bytes of records, {} requests queue",
                        node.id, segment.segment, owner.log_bytes, owner.queued
                    );
                    return Err(Failure::new(Checker::BoundedMemory, detail));
                }
            }
            let retained: usize = status.owned.iter().map(|(_, owner)| owner.retained_bytes).sum();
            if retained > limits.retained_bytes {
                let detail = format!("node {}: its owners keep {retained} bytes for copies behind", node.id);
                return Err(Failure::new(Checker::BoundedMemory, detail));
            }
            for (_, _, usage) in &status.disks {
                let store = &node.config.store;
                let most = (store.dirty_limit_bytes + store.page_cache_bytes + SLACK_BYTES) as u64;
                if usage.dirty_bytes + usage.cached_bytes > 2 * most {
                    let detail = format!("node {}: {usage:?}", node.id);
                    return Err(Failure::new(Checker::BoundedMemory, detail));
                }
            }
        }
        Ok(())
    }
}
