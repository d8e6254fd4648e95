//! Reading records back: for a copy that is behind, and for the store itself, to copy them forward.

use crate::api::StoreOutput;
use crate::disk::{Disk, Purpose};
use crate::format::journal::is_whole;
use crate::read::JobKind;
use alloc::{vec, vec::Vec};
use bytes::Bytes;
use holdfast_types::{DiskFault, DiskOrderKind, Lsn, OrderToken, Record, RecordBody, SegmentKey};

impl Disk {
    /// Collects records after `after`.
    pub(crate) fn read_log(
        &mut self,
        key: SegmentKey,
        token: OrderToken,
        after: Lsn,
        max_bytes: usize,
        out: &mut Vec<StoreOutput>,
    ) {
        let records = self.collect_records(key, after, max_bytes);
        let Some(id) = self.new_job(key, Some(token), JobKind::Log { records }) else { return };
        self.order_record_reads(id, out);
        self.job_step(id, out);
    }

    /// Has records read, to copy them forward: uncommitted ones that are only in the journal, or such as are in the way.
    pub(crate) fn start_copy(
        &mut self,
        key: SegmentKey,
        after: Lsn,
        max_bytes: usize,
        out: &mut Vec<StoreOutput>,
    ) {
        let records = self.collect_records(key, after, max_bytes);
        let Some(id) = self.new_job(key, None, JobKind::Copy { first: after.next(), records }) else {
            return;
        };
        self.order_record_reads(id, out);
        self.job_step(id, out);
    }

    pub(crate) fn collect_records(&self, key: SegmentKey, after: Lsn, max_bytes: usize) -> Vec<Record> {
        let mut records = Vec::new();
        let Some(s) = self.segments.get(&key) else { return records };
        let (mut at, mut bytes) = (after.next(), 0);
        while let Some(entry) = s.entry(at) {
            let size = match &entry.record.body {
                RecordBody::Write(w) => w.range.bytes(),
                _ => 0,
            };
            if !records.is_empty() && bytes + size > max_bytes {
                break;
            }
            bytes += size;
            records.push(entry.record.clone());
            at = at.next();
        }
        records
    }

    pub(crate) fn order_record_reads(&mut self, id: u64, out: &mut Vec<StoreOutput>) {
        let Some(job) = self.jobs.get(&id) else { return };
        let (JobKind::Log { records } | JobKind::Copy { records, .. }) = &job.kind else { return };
        let missing: Vec<usize> = (0..records.len()).filter(|i| is_missing(&records[*i])).collect();
        for index in missing {
            self.order_record_read(id, index, out);
        }
    }

    /// Orders the data of one of a job's records, or ends the job's list before it when it is gone.
    pub(crate) fn order_record_read(&mut self, id: u64, index: usize, out: &mut Vec<StoreOutput>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let (JobKind::Log { records } | JobKind::Copy { records, .. }) = &mut job.kind else { return };
        let Some(record) = records.get(index) else { return };
        let segment = self.segments.get(&job.key).filter(|s| s.life == job.life);
        let entry = segment.and_then(|s| s.entry(record.position.lsn));
        let place = entry.filter(|e| e.record.position == record.position).and_then(|e| e.place);
        let (Some(place), Some(range)) = (place, record.range()) else {
            records.truncate(index);
            return;
        };
        let read = job.next_read;
        job.next_read += 1;
        job.waiting += 1;
        job.reads.insert(read, vec![index]);
        let kind = DiskOrderKind::Read { offset: place.data, len: range.bytes() };
        self.begin(kind, Purpose::Blocks { job: id, read }, out);
    }

    pub(crate) fn record_read(&mut self, id: u64, index: usize, result: Result<Bytes, DiskFault>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let (JobKind::Log { records } | JobKind::Copy { records, .. }) = &mut job.kind else { return };
        let Some(Record { body: RecordBody::Write(w), .. }) = records.get_mut(index) else { return };
        let data = result.unwrap_or_default();
        if is_whole(w, &data) {
            w.data = data;
        } else {
            // Damaged, or trimmed and overwritten meanwhile: either way it is not in the log any more.
            records.truncate(index);
        }
    }
}

/// Whether a write's data must be read from the disk.
pub(crate) fn is_missing(record: &Record) -> bool {
    matches!(&record.body, RecordBody::Write(w) if w.data.is_empty() && w.range.count > 0)
}
