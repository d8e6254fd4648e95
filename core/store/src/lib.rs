//! One disk's store, as a state machine over block orders. It keeps the copies of all segments that are placed on
//! the disk: their logs in a shared journal ring, their applied content in extents, a checksum and an LSN for
//! each block in extent pages.
//!
//! It promises: what was answered `Appended`, `Sealed`, `Installed`, `Reset` or `Completed` is there after a
//! power cut; only committed records are written in place; every block that it hands out passed its checksum;
//! a failed write or flush fails the disk for good. It does not decide what to replicate or repair.
//!
//! What a lone write of one 4 KiB block costs: 8 KiB in one durable write to the journal (a header block and the
//! data); later 4 KiB in place and its share of one 4 KiB page, of two flushes and of one 4 KiB journal batch
//! that notes the commit position, all shared by what is written back in the same round. Bulk is written once (`shadow.rs`).
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(any(test, feature = "testing"))]
extern crate std;

mod apart;
pub mod api;
mod batch;
mod disk;
pub mod format;
mod image;
pub mod layout;
mod log;
mod lost;
mod overlay;
mod pace;
mod pages;
mod read;
mod read_log;
mod recovery;
mod relief;
mod replay;
mod ring;
mod room;
mod segment;
mod select;
mod shadow;
mod silence;
mod slot;
mod space;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod twins;
mod writeback;

pub use api::*;
pub use layout::{FormatError, Layout, layout};
pub use pace::{CLEAN_PERIODS, SLOW_FROM};
pub use ring::Place;
pub use silence::SILENT_AFTER;

use alloc::{boxed::Box, vec::Vec};
use disk::{Disk, refuse};
use holdfast_types::{DiskDone, OrderToken, ReplicaState, SegmentKey, StoreOrder, StoreRefusal, Time};
use pace::Pace;
use recovery::{Progress, Recovery};

/// One disk's store.
#[derive(Debug)]
pub struct Store {
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Opening(Box<Recovery>),
    Open(Box<Disk>),
    Refused,
}

impl Store {
    /// Formats a device of `size` bytes and opens it. The identity's boot nonce must be drawn at random: it also
    /// names this formatting.
    pub fn format(
        _now: Time,
        size: u64,
        identity: DiskIdentity,
        config: StoreConfig,
        out: &mut Vec<StoreOutput>,
    ) -> Store {
        let phase = match Recovery::format(size, identity, config, out) {
            Ok(recovery) => Phase::Opening(Box::new(recovery)),
            Err(error) => {
                out.push(StoreOutput::OpenFailed(error));
                Phase::Refused
            }
        };
        Store { phase }
    }

    /// Opens a device of `size` bytes.
    pub fn open(
        _now: Time,
        size: u64,
        expect: DiskExpected,
        new_boot_nonce: u64,
        config: StoreConfig,
        out: &mut Vec<StoreOutput>,
    ) -> Store {
        let recovery = Recovery::open(size, expect, new_boot_nonce, config, out);
        Store { phase: Phase::Opening(Box::new(recovery)) }
    }

    fn disk(&self) -> Option<&Disk> {
        match &self.phase {
            Phase::Open(disk) => Some(disk),
            Phase::Opening(_) | Phase::Refused => None,
        }
    }
    fn disk_mut(&mut self) -> Option<&mut Disk> {
        match &mut self.phase {
            Phase::Open(disk) => Some(disk),
            Phase::Opening(_) | Phase::Refused => None,
        }
    }

    /// Takes an order for a segment's copy. A disk that is not open refuses it as failed.
    pub fn order(
        &mut self,
        now: Time,
        segment: SegmentKey,
        token: OrderToken,
        order: StoreOrder,
        out: &mut Vec<StoreOutput>,
    ) {
        match self.disk_mut() {
            Some(disk) => disk.order(now, segment, token, order, out),
            None if matches!(order, StoreOrder::Commit { .. }) => {}
            None => refuse(segment, token, StoreRefusal::Failed, out),
        }
    }

    /// Takes what came of an order to the disk.
    pub fn disk_done(&mut self, now: Time, done: DiskDone, out: &mut Vec<StoreOutput>) {
        let progress = match &mut self.phase {
            Phase::Open(disk) => return disk.disk_done(now, done, out),
            Phase::Opening(recovery) => recovery.disk_done(now, done, out),
            Phase::Refused => return,
        };
        match progress {
            Progress::Going => {}
            Progress::Failed(error) => {
                self.phase = Phase::Refused;
                out.push(StoreOutput::OpenFailed(error));
            }
            Progress::Open(mut disk, report) => {
                (disk.last_commit, disk.pace) = (now, Pace::new(now));
                self.phase = Phase::Open(disk);
                out.push(StoreOutput::Opened(report));
            }
        }
    }

    /// Called once after each burst of inputs, when every outcome has reached who gave the order: starts the next
    /// journal batch from all that waits.
    pub fn pump(&mut self, now: Time, out: &mut Vec<StoreOutput>) {
        match &mut self.phase {
            Phase::Open(disk) => {
                disk.refusing.clear();
                disk.pump(now, out);
            }
            Phase::Opening(recovery) => recovery.silence.burst_ended(now),
            Phase::Refused => {}
        }
    }

    /// The time that [`Store::next_timer`] named has come.
    pub fn timer(&mut self, now: Time, out: &mut Vec<StoreOutput>) {
        let disk = match &mut self.phase {
            Phase::Open(disk) => disk,
            Phase::Opening(recovery) => return recovery.silence.timer(now, out),
            Phase::Refused => return,
        };
        disk.silence.timer(now, out);
        let writes_back = disk.idle_until().is_some_and(|t| t <= now);
        let probes = disk.probe_at().is_some_and(|t| t <= now);
        disk.writeback_due |= writes_back;
        disk.superblock_wanted |= probes;
        if writes_back || probes {
            disk.pump(now, out);
        }
    }

    /// When to call [`Store::timer`]; None when there is nothing to do.
    pub fn next_timer(&self) -> Option<Time> {
        let disk = match &self.phase {
            Phase::Open(disk) => disk,
            Phase::Opening(recovery) => return recovery.silence.next_timer(),
            Phase::Refused => return None,
        };
        [disk.idle_until(), disk.probe_at(), disk.silence.next_timer()].into_iter().flatten().min()
    }

    /// Makes an empty copy of a segment, if there is none; durable with its first durable order.
    pub fn create_replica(&mut self, _now: Time, key: SegmentKey) {
        if let Some(disk) = self.disk_mut() {
            disk.create(key);
        }
    }

    /// Gives up a copy: durable soon, and its space is free then; [`StoreOutput::Dropped`] says so. Orders under way
    /// for it may come back as refused. Safe to repeat.
    pub fn drop_replica(&mut self, now: Time, key: SegmentKey, out: &mut Vec<StoreOutput>) {
        if let Some(disk) = self.disk_mut() {
            disk.drop_segment(key, out);
            disk.pump(now, out);
        }
    }

    /// A copy as it stands.
    pub fn replica_state(&self, key: SegmentKey) -> Option<ReplicaState> {
        Some(self.disk()?.segments.get(&key)?.replica_state())
    }

    /// The segments with a copy here.
    pub fn segments(&self) -> Vec<SegmentKey> {
        self.disk().map(|d| d.segments.keys().copied().collect()).unwrap_or_default()
    }

    /// Whether orders are carried out.
    pub fn is_open(&self) -> bool {
        self.disk().is_some_and(|d| !d.failed)
    }

    /// Who the disk is, once that is known.
    pub fn identity(&self) -> Option<DiskIdentity> {
        match &self.phase {
            Phase::Open(disk) => Some(disk.superblock.identity),
            Phase::Opening(recovery) => recovery.identity(),
            Phase::Refused => None,
        }
    }

    /// How full the disk is.
    pub fn usage(&self) -> Usage {
        match &self.phase {
            Phase::Open(disk) => disk.usage(),
            Phase::Opening(recovery) => Usage { is_silent: recovery.silence.is_silent(), ..Usage::default() },
            Phase::Refused => Usage::default(),
        }
    }

    /// How many extents of the disk the segment's copy has.
    pub fn extents_of(&self, segment: SegmentKey) -> u64 {
        let copy = self.disk().and_then(|d| d.segments.get(&segment));
        copy.map_or(0, |s| s.extents.values().filter(|e| e.location.is_some()).count() as u64)
    }

    /// Writes back what is committed now, for a clean stop: [`Store::is_checkpointed`] says when that is done.
    pub fn checkpoint(&mut self, now: Time, out: &mut Vec<StoreOutput>) {
        if let Some(disk) = self.disk_mut() {
            disk.begin_checkpoint();
            disk.pump(now, out);
        }
    }

    /// Whether all that was committed when [`Store::checkpoint`] was called is in place.
    pub fn is_checkpointed(&self) -> bool {
        self.disk().is_none_or(|d| d.failed || d.checkpoint.is_empty())
    }
}
