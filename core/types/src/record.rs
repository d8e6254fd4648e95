//! Records: what a segment's log is made of. The owner makes them, the journal keeps them, every copy applies
//! them in LSN order once they are committed.
//!
//! A record's effect is on whole blocks: the owner merges what an initiator wrote in sectors. The state of a
//! block is thus decided by the highest LSN that touched it, which is what lets a resync mix images and
//! records in any order.

use crate::{BlockRange, GatewayId, LogPosition, SessionId};
use alloc::sync::Arc;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One entry of a segment's log. Cheap to clone: the data is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its epoch and LSN.
    pub position: LogPosition,
    /// What it does.
    pub body: RecordBody,
    /// The request that it answers, kept so that a repeat is answered and not applied again
    /// (replication.md H12). None for records of the owner's own.
    pub request: Option<RequestTag>,
}

/// What a record does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordBody {
    /// The first record of an epoch (replication.md H2).
    Start,
    /// New content for whole blocks.
    Write(WriteData),
    /// The blocks become absent: they read as zeros and hold no space where the whole extent is absent.
    /// Discard, write zeroes, and zeros written by WRITE SAME.
    Zero(BlockRange),
    /// Requests of this gateway (of one session, when given) that are not in the log are refused from here on.
    Fence {
        /// Whose requests.
        gateway: GatewayId,
        /// Of one session only.
        session: Option<SessionId>,
    },
}

/// New content for whole blocks, with the checksum of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteData {
    /// Which blocks.
    pub range: BlockRange,
    /// Their content, `range.bytes()` long.
    pub data: Bytes,
    /// crc32c of each block, `range.count` of them.
    pub crcs: Arc<[u32]>,
}

/// The request that a record answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestTag {
    /// Who asked.
    pub gateway: GatewayId,
    /// Through which session.
    pub session: SessionId,
    /// The gateway's number for the request, per segment.
    pub seq: u64,
    /// Every request of this gateway below this number has been answered to it and will not be repeated.
    pub low: u64,
}

impl Record {
    /// The blocks that the record changes, if any.
    pub fn range(&self) -> Option<BlockRange> {
        match &self.body {
            RecordBody::Write(w) => Some(w.range),
            RecordBody::Zero(range) => Some(*range),
            RecordBody::Start | RecordBody::Fence { .. } => None,
        }
    }
    /// How many bytes of data it carries.
    pub fn data_bytes(&self) -> usize {
        match &self.body {
            RecordBody::Write(w) => w.data.len(),
            _ => 0,
        }
    }
}
