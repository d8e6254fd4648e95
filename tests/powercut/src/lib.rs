//! A file system for tests whose power can be cut. SIGKILL of a daemon proves little about durability: the page
//! cache survives it. Here, what was written and not flushed lies in memory, and a cut drops it, keeps it or
//! tears it, by a seed, as the cache of a disk does.
//!
//! Promises: what a flush, a sync write or RWF_DSYNC was answered for is in the backing folder; of everything
//! else each write is kept, dropped or torn at sectors, the same way for the same seed and the same writes; after
//! the cut every call on the mount and on files opened before answers EIO.
//! It keeps metadata simple: one flat folder; creating, removing, renaming, cutting to size and reserving space
//! are durable at once, so an error in the order of those is not found here. The backing folder itself is not
//! synced: the host of the test keeps its power.
//!
//! Source: fuse(4); in the kernel, RWF_DSYNC reaches a FUSE server as O_DSYNC in the flags of the write.

mod control;
mod drive;
mod fs;
mod power;

pub use control::serve;
pub use drive::CutReport;
pub use power::{Hung, PowerCut, PowerError, Status};
