//! Carries the store's orders ([`DiskOrder`](holdfast_types::DiskOrder)) to disks, through io_uring or through
//! threads, always with O_DIRECT.
//!
//! Promises: each order is answered exactly once; a durable write and a flush are on stable storage when they
//! are answered with success; a disk is held by one process only; nothing reaches beyond the size that the disk
//! had when it was opened; memory in flight is bounded per disk. What is over the bound waits in the order
//! given, so the giver of orders bounds how much waits. It keeps no order between orders and decides nothing: a
//! failed order is reported once and never tried again, except where the kernel says that nothing was tried.
//!
//! Source: io_uring(7), open(2) on O_DIRECT, pwritev2(2) on RWF_DSYNC.

mod backend;
mod buffer;
mod create;
mod disks;
mod error;
mod event;
mod job;
mod open;
mod threads;
mod uring;

pub use backend::Backend;
pub use create::{create_file, prewrite};
pub use disks::{DiskSlot, Disks};
pub use error::{DiskError, DiskErrorKind};
pub use open::OpenDisk;
