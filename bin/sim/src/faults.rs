//! Faults drawn from the seed, and their ends. What is fair:
//!
//! - Any number of nodes may lose power, be stopped or be cut off, at once and in any order: nothing acknowledged may
//!   be lost by it. A disk that loses power keeps what it said was on stable storage.
//! - The disks of one node of a run only are damaged, and then only that node has other faults: else the only good copy
//!   could be the one that left S, and losing it would be right.
//! - What a client left under way over a session of a port may happen until something was done over the next one.
//! - An operator may take one disk of a run for lost, and control refuses it where that would cost anything.
//! - One disk of a run fails, and only while every copy is in S.
//! - One node of a run, or one disk, is lost for ever, and only while every copy is in S: else it could be the only one
//!   that is, and the data would be lost by right.

use crate::disk::{Disk, disk_id, node_of};
use crate::event::Event;
use crate::failure::Failure;
use crate::options::FaultKind;
use crate::world::World;
use holdfast_cluster::DiskState;
use holdfast_store::testing::{Cut, Rng};
use holdfast_types::{DiskId, Duration, NodeId, ReplicaRef};
use std::collections::BTreeSet;

/// Between two faults at most.
const PAUSE_MOST_MS: u64 = 1500;
/// How long a fault lasts at most.
const LASTS_MOST_MS: u64 = 6000;
/// A slow disk is for longer, at most by so many times: it is known by what many seconds have in common.
const SLOW_LASTS: u64 = 5;

/// What ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Healing {
    /// The node starts.
    Start(NodeId),
    /// The daemon goes on.
    Resume(NodeId),
    /// The disk answers.
    Answer(DiskId),
    /// The disk keeps up.
    KeepUp(DiskId),
    /// The way is open.
    Mend(NodeId, NodeId),
    /// Control has a majority and is sure of itself.
    Control,
}

/// How faults are injected.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Whether they are.
    pub active: bool,
    /// The one node whose disks are damaged; the only one with faults then.
    pub victim: Option<NodeId>,
    /// Blocks that were damaged.
    pub damaged: u64,
    /// A disk hung or was slow, or a daemon was stopped, to which its disk is like one that hung.
    pub late: bool,
    /// What is lost for ever.
    pub gone: Option<Gone>,
    /// The disk that failed, or those that an operator took for lost.
    pub said_lost: BTreeSet<DiskId>,
}

/// What is lost for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The node with everything on it.
    Node(NodeId),
    /// The disk; its node's daemon runs without it.
    Disk(DiskId),
}

impl Faults {
    /// Whether something is lost, or said to be, already: one thing is in a run.
    pub fn has_lost_one(&self) -> bool {
        self.gone.is_some() || !self.said_lost.is_empty()
    }
}

impl World {
    /// Whether the copies on that disk are lost for ever, or until it begins anew.
    pub fn lost_copies(&self, disk: DiskId) -> bool {
        let is_failed = self.control.map.disks.get(&disk).is_some_and(|d| d.state == DiskState::Failed);
        let is_gone = match self.faults.gone {
            Some(Gone::Node(node)) => node == node_of(disk),
            Some(Gone::Disk(gone)) => gone == disk,
            None => false,
        };
        is_gone || self.faults.said_lost.contains(&disk) && is_failed
    }

    /// Begins to inject faults at random.
    pub fn inject_faults(&mut self) {
        if self.options.has_any(&[FaultKind::BitFlip, FaultKind::Unreadable]) {
            self.faults.victim = Some(NodeId(1 + self.rng.below(self.nodes.len() as u64) as u16));
        }
        self.faults.active = !self.options.faults.is_empty();
        let pause = Duration::from_millis(self.rng.below(PAUSE_MOST_MS));
        self.queue.after(pause, Event::Fault);
    }

    pub(crate) fn any_node(&mut self) -> NodeId {
        let any = NodeId(1 + self.rng.below(self.nodes.len() as u64) as u16);
        self.faults.victim.unwrap_or(any)
    }

    fn any_disk(&mut self) -> DiskId {
        let node = self.any_node();
        self.any_disk_of(node)
    }

    fn any_disk_of(&mut self, node: NodeId) -> DiskId {
        let count = self.nodes[&node].disks.len() as u64;
        disk_id(node, if count > 1 { self.rng.below(count) as u16 } else { 0 })
    }

    /// Injects one fault and plans the next.
    pub(crate) fn inject(&mut self) -> Result<(), Failure> {
        if !self.faults.active {
            return Ok(());
        }
        let pause = Duration::from_millis(self.rng.below(PAUSE_MOST_MS));
        self.queue.after(pause, Event::Fault);
        let kinds: Vec<FaultKind> = self.options.faults.iter().copied().collect();
        let lasts = Duration::from_millis(self.rng.below(LASTS_MOST_MS));
        match kinds[self.rng.below(kinds.len() as u64) as usize] {
            FaultKind::Crash => {
                let all = self.faults.victim.is_none() && self.rng.one_in(8);
                let nodes = if all { self.nodes.keys().copied().collect() } else { vec![self.any_node()] };
                for node in nodes {
                    let cut = [Cut::LoseAll, Cut::Torn, Cut::KeepAll][self.rng.below(3) as usize];
                    self.crash(node, cut);
                    let quick = if self.rng.one_in(3) { Duration::from_millis(5) } else { lasts };
                    self.queue.after(quick, Event::Heal(Healing::Start(node)));
                }
            }
            FaultKind::Pause => {
                let node = self.any_node();
                self.pause(node);
                self.queue.after(lasts, Event::Heal(Healing::Resume(node)));
            }
            FaultKind::Hang => {
                let disk = self.any_disk();
                self.hang(disk);
                self.queue.after(lasts, Event::Heal(Healing::Answer(disk)));
            }
            FaultKind::Slow => {
                let disk = self.any_disk();
                self.slow_down(disk);
                let lasts = Duration(lasts.0 * SLOW_LASTS);
                self.queue.after(lasts, Event::Heal(Healing::KeepUp(disk)));
            }
            FaultKind::Partition => self.partition(lasts),
            FaultKind::BitFlip => self.damage(Disk::flip_bit, "has a bit that flips"),
            FaultKind::Unreadable => self.damage(Disk::lose_block, "cannot be read"),
            FaultKind::Control => {
                let away = self.rng.one_in(2);
                self.note(|| format!("fault: control is {}", if away { "away" } else { "unsure" }));
                self.control.away |= away;
                self.control.unsure |= !away;
                self.queue.after(lasts, Event::Heal(Healing::Control));
            }
            FaultKind::Disconnect => {
                let client = self.rng.below(self.clients.len() as u64) as usize;
                self.client_leaves(client);
            }
            FaultKind::Gone => self.lose_something(),
            FaultKind::Volumes => self.operate(),
            FaultKind::Lost => self.say_lost(),
            FaultKind::Fail => self.fail_some_disk(),
            FaultKind::Add => self.add_disk()?,
            FaultKind::Stop => {
                let node = self.any_node();
                self.stop(node, lasts);
            }
            FaultKind::Move => {
                let client = self.rng.below(self.clients.len() as u64) as usize;
                self.client_moves(client);
            }
        }
        Ok(())
    }

    /// Cuts one node off from all, or from one other.
    fn partition(&mut self, lasts: Duration) {
        let node = self.any_node();
        let one = self.rng.one_in(2).then(|| NodeId(1 + self.rng.below(self.nodes.len() as u64) as u16));
        let others: Vec<NodeId> = self.nodes.keys().copied().collect();
        for other in others.into_iter().filter(|o| *o != node && one.is_none_or(|one| one == *o)) {
            self.cut(node, other);
            self.queue.after(lasts, Event::Heal(Healing::Mend(node, other)));
        }
    }

    /// Cuts the way between two nodes.
    pub fn cut(&mut self, a: NodeId, b: NodeId) {
        self.note(|| format!("fault: nodes {a} and {b} are cut off from each other"));
        self.net.cut(&mut self.queue, &mut self.rng, a, b);
    }

    /// They reach each other again.
    pub fn mend(&mut self, a: NodeId, b: NodeId) {
        self.note(|| format!("nodes {a} and {b} reach each other"));
        self.net.mend(&mut self.queue, a, b);
    }

    /// Loses a node or a disk for ever, once in a run.
    fn lose_something(&mut self) {
        let copies = self.map().volumes.values().map(|v| usize::from(v.copies)).max().unwrap_or_default();
        let spare_node = self.nodes.len() > copies;
        let spare = copies > 1 && (spare_node || self.options.disks > 1);
        let free = !self.faults.has_lost_one() && self.faults.victim.is_none();
        if !spare || !free || !self.all_copies_in_set() {
            return;
        }
        // One that matters.
        let carries: Vec<ReplicaRef> = self.map().segments.values().flat_map(|s| s.members.clone()).collect();
        let copy = carries[self.rng.below(carries.len() as u64) as usize];
        let gone =
            if spare_node && self.rng.one_in(2) { Gone::Node(copy.node) } else { Gone::Disk(copy.disk) };
        self.lose(gone);
    }

    /// A disk fails, once in a run.
    fn fail_some_disk(&mut self) {
        let free = !self.faults.has_lost_one() && self.faults.victim.is_none();
        if !free || self.nodes.len() == 1 || !self.all_copies_in_set() {
            return;
        }
        let (disk, writes) = (self.any_disk(), self.rng.one_in(2));
        self.note(|| format!("fault: disk {disk} fails {}", if writes { "writes" } else { "flushes" }));
        self.faults.said_lost.insert(disk);
        self.disk(disk).fail(writes, true);
    }

    /// Loses a node or a disk for ever.
    pub fn lose(&mut self, gone: Gone) {
        self.note(|| format!("fault: {gone:?} is lost for ever"));
        self.faults.gone = Some(gone);
        let node = match gone {
            Gone::Node(node) => node,
            Gone::Disk(disk) => node_of(disk),
        };
        self.crash(node, Cut::LoseAll);
        // A node that is gone does not start.
        self.start(node);
    }

    fn damage(&mut self, how: fn(&mut Disk, &mut Rng) -> Option<u64>, what: &str) {
        // A copy that no other one can replace must not be damaged.
        let Some(victim) = self.faults.victim.filter(|_| self.nodes.len() > 1 && self.all_copies_in_set())
        else {
            return;
        };
        let disk = self.any_disk_of(victim);
        let mut rng = Rng(self.rng.draw());
        let block = how(self.disk(disk), &mut rng);
        self.faults.damaged += u64::from(block.is_some());
        self.note(|| format!("fault: block {block:?} of disk {disk} {what}"));
    }

    /// Something ends.
    pub fn heal(&mut self, healing: Healing) {
        match healing {
            Healing::Start(node) => self.start(node),
            Healing::Resume(node) => self.resume(node),
            Healing::Answer(disk) => self.disk_answers(disk),
            Healing::KeepUp(disk) => self.disk(disk).slow = false,
            Healing::Mend(a, b) => self.mend(a, b),
            Healing::Control => {
                self.control.away = false;
                self.control.unsure = false;
            }
        }
    }

    /// Every fault ends.
    pub fn heal_all(&mut self) {
        self.note(|| "everything heals".to_owned());
        self.faults.active = false;
        self.heal(Healing::Control);
        self.net.mend_all(&mut self.queue);
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for node in nodes {
            self.resume(node);
            let disks: Vec<DiskId> = self.nodes[&node].disks.keys().copied().collect();
            for disk in disks {
                self.disk_answers(disk);
                self.disk(disk).slow = false;
                self.disk(disk).fail(false, false);
            }
            if self.nodes[&node].stopping {
                // It would end later, and be missed.
                self.crash(node, Cut::KeepAll);
            }
            self.start(node);
        }
    }
}
