//! One disk's store, as a state machine over block orders. It keeps the copies of all segments that are placed on
//! the disk: their logs in a shared journal ring, their applied content in extents, a checksum and an LSN for
//! each block in extent pages.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod api;
pub mod layout;

pub use api::*;
pub use layout::{FormatError, Layout, layout};

use alloc::vec::Vec;
use holdfast_types::{
    ClusterId, DiskDone, NodeId, OrderToken, ReplicaState, SegmentKey, StoreOrder, StoreOutcome, StoreRefusal, Time,
};

/// One disk's store.
#[derive(Debug)]
pub struct Store {
    identity: Option<DiskIdentity>,
}

impl Store {
    /// Formats a device of `size` bytes and opens it.
    pub fn format(
        _now: Time,
        _size: u64,
        identity: DiskIdentity,
        _config: StoreConfig,
        _out: &mut Vec<StoreOutput>,
    ) -> Store {
        Store { identity: Some(identity) }
    }
    /// Opens a device of `size` bytes.
    pub fn open(
        _now: Time,
        _size: u64,
        _expect_cluster: ClusterId,
        _expect_node: NodeId,
        _new_boot_nonce: u64,
        _config: StoreConfig,
        _out: &mut Vec<StoreOutput>,
    ) -> Store {
        Store { identity: None }
    }
    /// Takes an order for a segment's copy.
    pub fn order(
        &mut self,
        _now: Time,
        segment: SegmentKey,
        token: OrderToken,
        _order: StoreOrder,
        out: &mut Vec<StoreOutput>,
    ) {
        out.push(StoreOutput::Done { segment, token, outcome: StoreOutcome::Refused(StoreRefusal::Failed) });
    }
    /// Takes what came of an order to the disk.
    pub fn disk_done(&mut self, _now: Time, _done: DiskDone, _out: &mut Vec<StoreOutput>) {}
    /// Called once after each burst of inputs: starts the next journal batch from all that waits.
    pub fn pump(&mut self, _now: Time, _out: &mut Vec<StoreOutput>) {}
    /// The time that [`Store::next_timer`] named has come.
    pub fn timer(&mut self, _now: Time, _out: &mut Vec<StoreOutput>) {}
    /// When to call [`Store::timer`]; None when there is nothing to do.
    pub fn next_timer(&self) -> Option<Time> {
        None
    }
    /// Makes an empty copy of a segment, if there is none; durable with its first durable order.
    pub fn create_replica(&mut self, _now: Time, _key: SegmentKey) {}
    /// Gives up a copy; its space is freed.
    pub fn drop_replica(&mut self, _now: Time, _key: SegmentKey, _out: &mut Vec<StoreOutput>) {}
    /// A copy as it stands.
    pub fn replica_state(&self, _key: SegmentKey) -> Option<ReplicaState> {
        None
    }
    /// The segments with a copy here.
    pub fn segments(&self) -> Vec<SegmentKey> {
        Vec::new()
    }
    /// Whether orders are carried out.
    pub fn is_open(&self) -> bool {
        false
    }
    /// Who the disk is, once that is known.
    pub fn identity(&self) -> Option<DiskIdentity> {
        self.identity
    }
    /// How full the disk is.
    pub fn usage(&self) -> Usage {
        Usage::default()
    }
    /// Writes everything back now, for a clean stop.
    pub fn checkpoint(&mut self, _now: Time, _out: &mut Vec<StoreOutput>) {}
    /// Whether nothing is under way and nothing is left to write back.
    pub fn is_quiescent(&self) -> bool {
        true
    }
}
