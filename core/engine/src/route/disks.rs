//! This node's disks: a store for each, opened when the disk is attached and used once control accepted the
//! opening (replication.md H20).

use crate::Engine;
use crate::io::{DiskOpen, EngineEvent, Output, Outputs};
use crate::timers::Machine;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use holdfast_cluster::DiskState;
use holdfast_store::{DiskExpected, Store, StoreEvent, StoreOutput, Usage};
use holdfast_types::{DiskDone, DiskId, DiskIncarnation, SegmentKey, Time};

/// The disks that were attached.
#[derive(Default)]
pub struct Disks {
    pub(crate) slots: BTreeMap<DiskId, Slot>,
    /// Stores that were called since the last pump.
    touched: BTreeSet<DiskId>,
}

/// A disk.
pub(crate) struct Slot {
    pub(crate) store: Store,
    pub(crate) phase: Phase,
}

/// How far a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its store reads or writes its own metadata.
    Opening,
    /// Open; control has to accept this opening before its copies count.
    Opened {
        /// The content's generation.
        incarnation: DiskIncarnation,
        /// The nonce of this opening.
        boot_nonce: u64,
    },
    /// Refused when it was opened.
    Refused,
}

impl Engine {
    /// A disk is there: open it or format it.
    pub(crate) fn disk_attached(
        &mut self,
        now: Time,
        disk: DiskId,
        size: u64,
        open: DiskOpen,
        out: &mut Outputs,
    ) {
        let config = self.config.store;
        let mut orders = Vec::new();
        let store = match open {
            DiskOpen::Existing { boot_nonce } => {
                let expect = DiskExpected { cluster: self.map.cluster, node: self.config.node, disk };
                Store::open(now, size, expect, boot_nonce, config, &mut orders)
            }
            DiskOpen::Format(identity) => Store::format(now, size, identity, config, &mut orders),
        };
        self.copies.end_replicas(.., |(_, d)| *d == disk);
        self.disks.slots.insert(disk, Slot { store, phase: Phase::Opening });
        self.disks.touched.insert(disk);
        self.store_outputs(now, disk, orders, out);
    }

    /// A disk did what was ordered.
    pub(crate) fn disk_done(&mut self, now: Time, disk: DiskId, done: DiskDone, out: &mut Outputs) {
        self.with_store(now, disk, out, |store, o| store.disk_done(now, done, o));
    }

    /// Calls a disk's store and carries out what it orders.
    pub(crate) fn with_store(
        &mut self,
        now: Time,
        disk: DiskId,
        out: &mut Outputs,
        call: impl FnOnce(&mut Store, &mut Vec<StoreOutput>),
    ) {
        let Some(slot) = self.disks.slots.get_mut(&disk) else { return };
        let mut orders = Vec::new();
        call(&mut slot.store, &mut orders);
        self.timers.set(Machine::Store(disk), slot.store.next_timer());
        self.disks.touched.insert(disk);
        self.store_outputs(now, disk, orders, out);
    }

    fn store_outputs(&mut self, now: Time, disk: DiskId, orders: Vec<StoreOutput>, out: &mut Outputs) {
        for order in orders {
            match order {
                StoreOutput::Disk(order) => out.push(Output::Disk { disk, order }),
                StoreOutput::Done { segment, token, outcome } => {
                    self.stored(now, (segment, disk), token, outcome, out);
                }
                StoreOutput::Opened(report) => {
                    if let Some(slot) = self.disks.slots.get_mut(&disk) {
                        let identity = report.identity;
                        slot.phase = Phase::Opened {
                            incarnation: identity.incarnation,
                            boot_nonce: identity.boot_nonce,
                        };
                    }
                    out.push(Output::DiskOpened { disk, report });
                    self.refresh(now, out);
                }
                StoreOutput::OpenFailed(error) => {
                    if let Some(slot) = self.disks.slots.get_mut(&disk) {
                        slot.phase = Phase::Refused;
                    }
                    out.push(Output::DiskRefused { disk, error });
                }
                StoreOutput::Dropped { segment } => out.push(Output::Freed { segment, disk }),
                StoreOutput::Event(event) => {
                    match event {
                        StoreEvent::PageDamaged { segment, .. } => {
                            self.with_replica(now, (segment, disk), out, |replica, o| replica.lost_part(o));
                        }
                        StoreEvent::DiskSilent { .. } => self.disk_silent(now, disk, true, out),
                        StoreEvent::DiskAnswers { .. } => self.disk_silent(now, disk, false, out),
                        _ => {}
                    }
                    out.push(Output::Event(EngineEvent::Store { disk, event }));
                }
            }
        }
    }

    /// Others are to own what this node owns with a copy on that disk.
    fn disk_silent(&mut self, now: Time, disk: DiskId, silent: bool, out: &mut Outputs) {
        let owned = self.copies.owners.iter().filter(|(_, owned)| owned.disk == disk);
        for segment in owned.map(|(segment, _)| *segment).collect::<Vec<_>>() {
            self.with_owner(now, segment, out, |owner, _| owner.disk_silent(silent));
        }
    }

    /// Starts the next batch of every store that was called since the last pump.
    pub(crate) fn pump_disks(&mut self, now: Time, out: &mut Outputs) {
        while let Some(disk) = self.disks.touched.pop_first() {
            self.with_store(now, disk, out, |store, o| store.pump(now, o));
            self.disks.touched.remove(&disk);
        }
    }

    /// Writes back what is committed now, for a clean stop.
    pub(crate) fn checkpoint(&mut self, now: Time, out: &mut Outputs) {
        let disks: Vec<DiskId> = self.disks.slots.keys().copied().collect();
        for disk in disks {
            self.with_store(now, disk, out, |store, o| store.checkpoint(now, o));
        }
    }

    /// Whether every store has written back what was committed when [`crate::Input::Checkpoint`] came.
    pub fn is_checkpointed(&self) -> bool {
        self.disks.slots.values().all(|s| s.phase == Phase::Refused || s.store.is_checkpointed())
    }

    /// Whether the copies on this disk count: it is open, and control has accepted this opening of it and does not take it for
    /// lost.
    pub(crate) fn disk_in_use(&self, disk: DiskId) -> Option<DiskIncarnation> {
        let Phase::Opened { incarnation, boot_nonce } = self.disks.slots.get(&disk)?.phase else {
            return None;
        };
        let entry = self.map.disks.get(&disk)?;
        let is_it = entry.boot_nonce == boot_nonce && entry.incarnation == incarnation;
        // An operator may have said that it is lost while it serves: nobody counts on what it has any more.
        (is_it && entry.state != DiskState::Failed).then_some(incarnation)
    }

    /// Each disk with how far it is and what it holds.
    pub fn disk_usage(&self) -> Vec<(DiskId, Phase, Usage)> {
        self.disks.slots.iter().map(|(disk, s)| (*disk, s.phase, s.store.usage())).collect()
    }

    /// How many extents of the disk the segment's copy has.
    pub fn extents_of(&self, segment: SegmentKey, disk: DiskId) -> u64 {
        self.disks.slots.get(&disk).map_or(0, |s| s.store.extents_of(segment))
    }
}
