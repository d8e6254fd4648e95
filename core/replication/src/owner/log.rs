//! The owner's log: the index of all of it, and the records at its end that some copy may still need.

use crate::index::LogIndex;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use holdfast_types::{BlockRange, LogPosition, Lsn, Record, Time};

/// What a record costs in memory beside its data.
const RECORD_OVERHEAD: usize = 256;

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) record: Record,
    pub(crate) appended: Time,
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    index: LogIndex,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Up to here only copies that are behind need the records, and this is what these cost.
    settled: Lsn,
    settled_bytes: usize,
}

pub(super) fn size(record: &Record) -> usize {
    record.data_bytes() + RECORD_OVERHEAD
}

impl Log {
    pub(crate) fn new(index: LogIndex) -> Self {
        let settled = index.last().lsn;
        Self { index, entries: VecDeque::new(), bytes: 0, settled, settled_bytes: 0 }
    }
    pub(crate) fn index(&self) -> &LogIndex {
        &self.index
    }
    pub(crate) fn last(&self) -> LogPosition {
        self.index.last()
    }
    /// The first LSN that is in memory; the one after the last when none is.
    pub(crate) fn first_kept(&self) -> Lsn {
        Lsn(self.last().lsn.0 + 1 - self.entries.len() as u64)
    }
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
    /// Bytes of what is kept for copies that are behind alone.
    pub(crate) fn settled_bytes(&self) -> usize {
        self.settled_bytes
    }
    pub(crate) fn push(&mut self, now: Time, record: Record) {
        self.index.push(record.position);
        self.bytes += size(&record);
        self.entries.push_back(Entry { record, appended: now });
    }
    pub(crate) fn get(&self, lsn: Lsn) -> Option<&Entry> {
        let at = lsn.0.checked_sub(self.first_kept().0)?;
        self.entries.get(at as usize)
    }
    fn after(&self, lsn: Lsn) -> impl Iterator<Item = &Entry> {
        let skip = (lsn.0 + 1).saturating_sub(self.first_kept().0);
        self.entries.range((skip as usize).min(self.entries.len())..)
    }
    /// Records from `from` on, at most about `max_bytes` but at least one.
    pub(crate) fn batch(&self, from: Lsn, max_bytes: usize, max_records: usize) -> Vec<Record> {
        assert!(from >= self.first_kept() && from.0 > 0);
        let mut bytes = 0;
        let mut records = Vec::new();
        for entry in self.after(Lsn(from.0 - 1)) {
            if !records.is_empty()
                && (bytes + entry.record.data_bytes() > max_bytes || records.len() == max_records)
            {
                break;
            }
            bytes += entry.record.data_bytes();
            records.push(entry.record.clone());
        }
        records
    }
    /// Bytes of what is kept after `lsn`.
    pub(crate) fn bytes_after(&self, lsn: Lsn) -> usize {
        self.after(lsn).map(|e| size(&e.record)).sum()
    }
    /// Whether a record after `lsn` changes a block of `range`.
    pub(crate) fn touches(&self, lsn: Lsn, range: BlockRange) -> bool {
        self.after(lsn).any(|e| e.record.range().is_some_and(|r| r.overlaps(range)))
    }
    /// Forgets records up to `needed`, and further ones up to `allowed` while more than `max_bytes` of those are kept.
    pub(crate) fn release(&mut self, needed: Lsn, allowed: Lsn, max_bytes: usize) {
        while self.settled < allowed {
            self.settled = self.settled.next();
            self.settled_bytes += self.get(self.settled).map_or(0, |e| size(&e.record));
        }
        while let Some(entry) = self.entries.front() {
            let lsn = entry.record.position.lsn;
            if lsn > self.settled || lsn > needed && self.settled_bytes <= max_bytes {
                break;
            }
            let bytes = size(&entry.record);
            self.bytes -= bytes;
            self.settled_bytes -= bytes;
            self.entries.pop_front();
        }
    }
    pub(crate) fn fold(&mut self, committed: Lsn) {
        self.index.fold(committed);
    }
}
