//! Which epoch each record of a log belongs to, as runs. Two logs are equal up to an LSN at which both have the
//! same epoch (replication.md I4, after Raft §5.3), so that two indexes tell where two logs part without any
//! record being looked at.

use alloc::vec::Vec;
use holdfast_types::{Epoch, LogPosition, Lsn, ReplicaState};
use serde::{Deserialize, Serialize};

/// More runs than this are folded into the trim point, oldest first.
pub const MAX_RUNS: usize = 512;

/// A log's index: the point before its first record, and the runs of equal epochs after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogIndex {
    trim: LogPosition,
    /// First LSN of the run, and its epoch. Both rise.
    runs: Vec<(Lsn, Epoch)>,
    last: LogPosition,
}

impl LogIndex {
    /// An empty log after `trim`.
    pub fn starting_at(trim: LogPosition) -> Self {
        Self { trim, runs: Vec::new(), last: trim }
    }

    /// The index of a copy as its store found it.
    pub fn of(state: &ReplicaState) -> Self {
        Self { trim: state.trim, runs: state.epochs.clone(), last: state.last }
    }

    /// Whether runs, trim point and end agree with each other: what comes from the wire may not.
    pub fn is_valid(&self) -> bool {
        let mut before = (self.trim.lsn, Epoch(0));
        for (first, epoch) in &self.runs {
            let follows = if before.1 == Epoch(0) { first.0 == before.0.0 + 1 } else { first.0 > before.0.0 };
            if !follows || *epoch <= before.1 || *epoch < self.trim.epoch {
                return false;
            }
            before = (*first, *epoch);
        }
        match self.runs.last() {
            None => self.last == self.trim,
            Some((first, epoch)) => {
                self.last.epoch == *epoch && self.last.lsn >= *first && self.last.lsn.0 < u64::MAX
            }
        }
    }

    /// The position before the first record.
    pub fn trim(&self) -> LogPosition {
        self.trim
    }

    /// The last record's position.
    pub fn last(&self) -> LogPosition {
        self.last
    }

    /// The epoch at `lsn`: of its record, or of the trim point.
    pub fn epoch_at(&self, lsn: Lsn) -> Option<Epoch> {
        if lsn == self.trim.lsn {
            return Some(self.trim.epoch);
        }
        if lsn < self.trim.lsn || lsn > self.last.lsn {
            return None;
        }
        let after = self.runs.partition_point(|(first, _)| *first <= lsn);
        after.checked_sub(1).map(|i| self.runs[i].1)
    }

    /// The position at `lsn`.
    pub fn position(&self, lsn: Lsn) -> Option<LogPosition> {
        self.epoch_at(lsn).map(|epoch| LogPosition { epoch, lsn })
    }

    /// Whether the log has a record, or its trim point, at exactly this position.
    pub fn has(&self, position: LogPosition) -> bool {
        self.epoch_at(position.lsn) == Some(position.epoch)
    }

    /// Adds the next record.
    pub fn push(&mut self, position: LogPosition) {
        assert_eq!(position.lsn, self.last.lsn.next(), "a log has no gaps");
        assert!(position.epoch >= self.last.epoch, "epochs never fall along a log");
        if self.runs.last().is_none_or(|(_, epoch)| *epoch != position.epoch) {
            self.runs.push((position.lsn, position.epoch));
        }
        self.last = position;
    }

    /// Forgets everything after `lsn`.
    pub fn cut_after(&mut self, lsn: Lsn) {
        assert!(lsn >= self.trim.lsn, "what was trimmed cannot be cut");
        if lsn >= self.last.lsn {
            return;
        }
        self.runs.retain(|(first, _)| *first <= lsn);
        self.last = match self.runs.last() {
            Some((_, epoch)) => LogPosition { epoch: *epoch, lsn },
            None => self.trim,
        };
    }

    /// Folds the oldest runs into the trim point while there are too many; never above `committed`.
    pub fn fold(&mut self, committed: Lsn) {
        while self.runs.len() > MAX_RUNS && self.runs[1].0.0 - 1 <= committed.0 {
            let lsn = Lsn(self.runs[1].0.0 - 1);
            self.trim = LogPosition { epoch: self.runs[0].1, lsn };
            self.runs.remove(0);
        }
    }

    /// The last position up to which both logs are equal, as far as what both still know reaches.
    pub fn common(&self, other: &LogIndex) -> Option<LogPosition> {
        let low = self.trim.lsn.max(other.trim.lsn);
        let mut high = self.last.lsn.min(other.last.lsn);
        while high >= low {
            let (mine, theirs) = (self.epoch_at(high)?, other.epoch_at(high)?);
            if mine == theirs {
                return Some(LogPosition { epoch: mine, lsn: high });
            }
            // The log with the higher epoch here cannot agree before its run began.
            let start = if mine > theirs { self.run_start(high) } else { other.run_start(high) };
            high = Lsn(start.0.checked_sub(1)?);
        }
        None
    }

    fn run_start(&self, lsn: Lsn) -> Lsn {
        let after = self.runs.partition_point(|(first, _)| *first <= lsn);
        match after.checked_sub(1) {
            Some(i) if lsn > self.trim.lsn => self.runs[i].0,
            _ => self.trim.lsn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(trim: (u64, u64), epochs: &[u64]) -> LogIndex {
        let mut index = LogIndex::starting_at(LogPosition::new(Epoch(trim.0), Lsn(trim.1)));
        for epoch in epochs {
            index.push(LogPosition::new(Epoch(*epoch), index.last().lsn.next()));
        }
        assert!(index.is_valid());
        index
    }
    fn at(epoch: u64, lsn: u64) -> LogPosition {
        LogPosition::new(Epoch(epoch), Lsn(lsn))
    }

    #[test]
    fn the_common_prefix_ends_where_the_epochs_part() {
        let a = index((0, 0), &[1, 1, 1, 2, 2]);
        assert_eq!(a.common(&index((0, 0), &[1, 1, 1, 3])), Some(at(1, 3)));
        assert_eq!(a.common(&index((0, 0), &[1, 1, 1, 2])), Some(at(2, 4)));
        assert_eq!(a.common(&index((0, 0), &[])), Some(at(0, 0)));
        assert_eq!(a.common(&index((1, 2), &[4])), Some(at(1, 2)));
    }

    #[test]
    fn logs_that_do_not_meet_have_nothing_in_common() {
        assert_eq!(index((3, 10), &[3]).common(&index((0, 0), &[1, 1])), None);
        assert_eq!(index((0, 0), &[1, 1]).common(&index((3, 10), &[])), None);
    }

    #[test]
    fn a_cut_forgets_the_runs_after_it() {
        let mut a = index((0, 0), &[1, 1, 2, 3]);
        a.cut_after(Lsn(2));
        assert_eq!(a, index((0, 0), &[1, 1]));
        a.cut_after(Lsn(0));
        assert_eq!(a, index((0, 0), &[]));
    }

    #[test]
    fn an_index_that_contradicts_itself_is_not_valid() {
        let bad = LogIndex { trim: at(0, 0), runs: alloc::vec![(Lsn(2), Epoch(1))], last: at(1, 2) };
        assert!(!bad.is_valid());
        let bad = LogIndex {
            trim: at(0, 0),
            runs: alloc::vec![(Lsn(1), Epoch(2)), (Lsn(2), Epoch(1))],
            last: at(1, 2),
        };
        assert!(!bad.is_valid());
        let bad = LogIndex { trim: at(0, 0), runs: Vec::new(), last: at(1, 2) };
        assert!(!bad.is_valid());
    }
}
