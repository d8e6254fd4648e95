//! An operator who makes volumes, grows them and deletes them while everything goes on. Clients of their own use the
//! one that there is: its cells are others than those of every volume before it, and hold zero at first, whatever was
//! on the disks.

use crate::client::Client;
use crate::disk::{Disk, disk_id};
use crate::event::Event;
use crate::failure::Failure;
use crate::options::FaultKind;
use crate::world::{POOL, VOLUME, VOLUME_BYTES, World};
use holdfast_cluster::{Command, CommandResult, UnixSeconds};
use holdfast_types::{DiskId, Duration, NodeId, VolumeId};
use std::collections::BTreeSet;

/// What it grows by.
const MORE_BYTES: u64 = 1 << 30;
/// Clients that use the operator's volumes.
pub(crate) const CLIENTS: usize = 2;

/// The operator's volumes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Operator {
    /// How many were made so far; zero is the volume of the other clients.
    made: u64,
    /// A disk was added.
    pub(crate) added: bool,
    /// The one that there is.
    has: Option<(u64, VolumeId)>,
}

impl Operator {
    /// The number of the volume that there is.
    pub(crate) fn volume(&self) -> Option<u64> {
        self.has.map(|(number, _)| number)
    }
}

/// The name of a volume by number.
pub(crate) fn name(number: u64) -> String {
    if number == 0 { VOLUME.to_owned() } else { format!("{VOLUME}{number}") }
}

impl World {
    /// The operator does something.
    pub(crate) fn operate(&mut self) {
        if self.control.away {
            return;
        }
        let Some((_, volume)) = self.operator.has else { return self.make_volume() };
        let command = match self.rng.one_in(3) {
            true => {
                let size = self.map().volumes.get(&volume).map_or(0, |v| v.size) + MORE_BYTES;
                Command::ResizeVolume { volume, size }
            }
            false => {
                self.operator.has = None;
                Command::DeleteVolume { volume }
            }
        };
        let result = self.control.apply(command.clone());
        self.note(|| format!("operator: {command:?} -> {result:?}"));
    }

    /// The operator takes a node, or a slow disk, for lost. Control refuses that where it would cost anything.
    pub(crate) fn say_lost(&mut self) {
        if self.control.away || self.faults.has_lost_one() {
            return;
        }
        let map = self.map();
        let nodes = map.nodes.values().filter(|n| !n.state.answers());
        let disks_of = |node: NodeId| self.nodes[&node].disks.keys().copied().collect();
        let nodes = nodes.map(|n| (disks_of(n.id), Command::NodeLost { node: n.id, accept_loss: false }));
        let disks = map.disks.values().filter(|d| d.slow);
        let disks =
            disks.map(|d| (BTreeSet::from([d.id]), Command::DiskLost { disk: d.id, accept_loss: false }));
        let lost: Vec<(BTreeSet<DiskId>, Command)> = nodes.chain(disks).collect();
        let which = self.rng.below(lost.len().max(1) as u64) as usize;
        let Some((disks, command)) = lost.into_iter().nth(which) else { return };
        let result = self.control.apply(command.clone());
        self.note(|| format!("operator: {command:?} -> {result:?}"));
        if result.is_ok() {
            self.faults.said_lost = disks;
        }
    }

    /// A node gets one disk more, of the size of its first, which is formatted at once if its daemon runs.
    pub(crate) fn add_disk(&mut self) -> Result<(), Failure> {
        let node = self.any_node();
        if !self.reaches_control(node) || self.operator.added {
            return Ok(());
        }
        self.operator.added = true;
        let first = self.map().disks.get(&disk_id(node, 0)).map_or(0, |d| d.size);
        let (identity, command) = self.blank_disk(disk_id(node, self.options.disks), first);
        let result = self.control.apply(command.clone());
        self.note(|| format!("operator: {command:?} -> {result:?}"));
        let (bytes, seed) = (self.disk(disk_id(node, 0)).size(), self.rng.draw());
        let this = self.node(node);
        this.disks.insert(identity.disk, Disk::new(bytes, seed, identity));
        match this.process.as_ref().and_then(|p| p.incarnation) {
            Some(_) => self.attach(node, identity.disk),
            None => Ok(()),
        }
    }

    /// A volume is made, if there is room for it.
    fn make_volume(&mut self) {
        // A lost disk, or a damaged block, is the end of what has one copy.
        let fragile = self.options.has_any(&[
            FaultKind::Gone,
            FaultKind::Lost,
            FaultKind::Fail,
            FaultKind::BitFlip,
            FaultKind::Unreadable,
        ]);
        let most = self.options.nodes.min(3) as u8;
        let copies = if fragile { most } else { 1 + self.rng.below(most.into()) as u8 };
        let number = self.operator.made + 1;
        let (name, pool) = (name(number), POOL.to_owned());
        let command =
            Command::CreateVolume { name, size: VOLUME_BYTES, copies, pool, created: UnixSeconds(0) };
        let result = self.control.apply(command.clone());
        self.note(|| format!("operator: {command:?} -> {result:?}"));
        if let Ok(CommandResult::Volume(volume)) = result {
            self.watch.volumes += 1;
            self.operator.made = number;
            self.operator.has = Some((number, volume));
        }
    }

    /// Whether there is a volume for a client.
    pub(crate) fn has_volume(&self, client: &Client) -> bool {
        !client.follows() || self.operator.volume().is_some()
    }

    /// Whether a client's volume was deleted.
    pub(crate) fn is_deleted(&self, client: usize) -> bool {
        let volume = self.clients[client].volume();
        volume != 0 && self.operator.volume() != Some(volume)
    }

    /// The clients that use the operator's volumes, if there is one.
    pub(crate) fn add_operators_clients(&mut self) {
        if self.options.faults.contains(&FaultKind::Volumes) {
            for _ in 0..CLIENTS {
                let client = self.add_client();
                self.clients[client].follows_operator();
                self.queue.after(Duration::ZERO, Event::Think { client });
            }
        }
    }
}
