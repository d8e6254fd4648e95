//! Positions in a segment's log. A record is named by its LSN; two logs agree up to a record when the
//! (epoch, LSN) pair of that record is the same in both (replication.md I4).

use core::fmt;
use serde::{Deserialize, Serialize};

/// A generation of a segment's ownership and membership, granted by control, strictly increasing.
/// Zero is "before the first grant".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// A record's place in its segment's write order. The first record has LSN 1; zero is "nothing".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The LSN after this one.
    pub const fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }
}

/// A record's epoch and LSN. Ordered as the tail of a log is chosen: by epoch first, then by LSN
/// (replication.md §1, activation step 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogPosition {
    /// The epoch in which the record was ordered.
    pub epoch: Epoch,
    /// Its place in the order.
    pub lsn: Lsn,
}

impl LogPosition {
    /// The position before every record.
    pub const ZERO: LogPosition = LogPosition { epoch: Epoch(0), lsn: Lsn(0) };
    /// The position of record `lsn` of `epoch`.
    pub const fn new(epoch: Epoch, lsn: Lsn) -> Self {
        Self { epoch, lsn }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.lsn)
    }
}
