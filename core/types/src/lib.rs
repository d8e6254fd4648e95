//! The words of the project: ids, units, positions in a segment's log, records, block requests, time as a
//! value. Every other crate of the core speaks in these and nothing here depends on any of them.
//!
//! Nothing here touches the world, and nothing decides: a type here carries a meaning and checks its own
//! bounds.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod block;
pub mod export;
pub mod id;
pub mod order;
pub mod path;
pub mod position;
pub mod record;
pub mod segment;
pub mod session;
pub mod time;
pub mod unit;

pub use block::{BlockError, BlockReply, BlockRequest, BlockResult, StatusRange};
pub use export::{ChapSecret, Export, Exports, NOT_JOINED};
pub use id::*;
pub use order::*;
pub use path::{Packets, PeerPath};
pub use position::{Epoch, LogPosition, Lsn};
pub use record::{Record, RecordBody, RequestTag, WriteData};
pub use segment::*;
pub use session::*;
pub use time::{Duration, Time};
pub use unit::*;
