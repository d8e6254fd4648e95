//! One segment's replication: the owner that orders its writes, the copies that keep them, and the messages
//! between them, exactly by replication.md. Each is a machine without I/O: facts in, orders out.
//!
//! It promises the invariants I1 to I15 of that document, as far as store and control keep their contracts
//! (`holdfast_types::order`, `holdfast_types::segment`). It does not know disks, connections, initiators or time
//! other than what it is told.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod config;
pub mod event;
pub mod index;
pub mod message;
pub mod owner;
pub mod repeats;
pub mod replica;
pub mod wire;

pub use config::{OwnerConfig, ReadCheck, ReplicaConfig};
pub use event::{DropReason, ReplicationEvent};
pub use message::{
    Body, Envelope, Message, SealState, SegmentOp, SegmentReply, SegmentRequest, SegmentResult,
};
pub use owner::{
    CheckDifference, CheckReport, CopyRole, CopyStatus, DifferenceKind, Owner, OwnerOutput, OwnerStatus,
    RecordTimes, ResyncStatus, WriteTimes,
};
pub use replica::{Replica, ReplicaOutput, ReplicaStatus};
