//! What moves the journal's tail. When the ring is fuller than wanted, records that are in place are trimmed, segments' states are
//! written anew, and when that is not enough, uncommitted records are copied forward.

use crate::api::StoreOutput;
use crate::batch::{Copy, Urgent};
use crate::disk::Disk;
use crate::read::JobKind;
use crate::read_log::is_missing;
use crate::segment::LogEntry;
use alloc::vec::Vec;
use holdfast_types::{Lsn, SegmentKey};

/// One in so many bytes of the ring may be neither free nor uncommitted records when these are copied no more.
pub(crate) const WASTE_SHARE: u64 = 8;

impl Disk {
    /// How much of the ring is kept in use when nothing presses.
    pub(crate) fn ring_target(&self) -> u64 {
        // Not less than what makes writing the states again rare.
        self.config.log_retain_bytes.clamp(self.ring.capacity() / 8, self.ring.capacity() / 2)
    }

    /// Lets the tail move where the ring is too full, and has the superblock follow.
    pub(crate) fn relieve(&mut self, out: &mut Vec<StoreOutput>) {
        // When an order waits for room, what is kept for convenience has to go.
        let blocked = self.journal.blocked;
        let target = if blocked { self.ring.capacity() / 8 } else { self.ring_target() };
        let written = self.ring.total() - self.journal.relieved_at;
        let due = blocked || (self.journal.relief_due && written >= target / 16);
        if !due {
            return;
        }
        self.journal.relief_due = false;
        self.journal.relieved_at = self.ring.total();
        if self.ring.told() > target {
            // Data that lies elsewhere counts: a copy that is behind finds as much in the log, and opening the disk takes no longer.
            let keep_from = self.ring.telling_of(target / 4 * 3);
            let keys: Vec<SegmentKey> = self.segments.keys().copied().collect();
            for key in &keys {
                self.relieve_segment(*key, keep_from);
            }
            self.advance_tail();
            // Copying helps only as long as something else than uncommitted records takes room.
            let pressed = blocked || self.ring.used() > self.ring.capacity() / 4 * 3;
            let waste = self.ring.used().saturating_sub(self.uncommitted);
            if pressed && waste > self.ring.capacity() / WASTE_SHARE && self.journal.copies.is_empty() {
                let oldest = self.ring.used().saturating_sub(self.max_batch());
                let before = self.ring.within(oldest);
                keys.into_iter().for_each(|key| self.copy_forward(key, before, out));
            }
        }
        let reclaimable = self.ring.reclaimable();
        if reclaimable > 0 && (blocked || reclaimable > self.ring.capacity() / 8) {
            self.superblock_wanted = true;
        }
    }

    fn advance_tail(&mut self) {
        let of_segments = self.segments.values().flat_map(|s| [s.stated, s.oldest_batch()]);
        let holds = self.journal.holds.values().copied().map(Some);
        let oldest = of_segments.chain(holds).flatten().min().unwrap_or(u64::MAX);
        // The superblock may come to name the tail: it has to be a batch that is durable.
        let durable = self.journal.writing().map_or(u64::MAX, |sequence| sequence - 1);
        self.ring.advance_tail(oldest.min(durable));
    }

    /// Has a segment need nothing before batch `keep_from`, as far as that goes.
    fn relieve_segment(&mut self, key: SegmentKey, keep_from: u64) {
        let Some(s) = self.segments.get_mut(&key) else { return };
        let is_old = |e: &&LogEntry| e.place.is_some_and(|p| p.batch.sequence < keep_from);
        if s.log
            .iter()
            .any(|e| is_old(&e) && e.record.position.lsn > s.settled && e.record.position.lsn <= s.commit)
        {
            self.writeback_due = true;
        }
        if s.stated.is_none() || s.state_queued {
            return;
        }
        // What was copied forward goes with what follows it.
        let settled = s.log.iter().rev().skip_while(|e| e.record.position.lsn > s.settled);
        let trim = settled.filter(is_old).map(|e| e.record.position.lsn).next();
        if trim.is_some() || s.stated.is_some_and(|b| b < keep_from) {
            self.state_anew(key, trim);
        }
    }

    /// Has a segment's state written, without the records up to `trim` in its log. What it needed before stays until then.
    pub(crate) fn state_anew(&mut self, key: SegmentKey, trim: Option<Lsn>) {
        let Some(s) = self.segments.get_mut(&key) else { return };
        let oldest = [s.oldest_batch(), s.stated].into_iter().flatten().min();
        trim.into_iter().for_each(|lsn| s.trim_to(lsn));
        s.state_queued = true;
        let life = s.life;
        let hold = oldest.map(|b| self.journal.hold(b));
        self.journal.urgent.push_back(Urgent::State { key, life, hold });
    }

    /// Writes uncommitted records again that lie before batch `before` (replication.md H14).
    fn copy_forward(&mut self, key: SegmentKey, before: u64, out: &mut Vec<StoreOutput>) {
        let Some(s) = self.segments.get(&key) else { return };
        let life = s.life;
        let is_old = |e: &&LogEntry| e.place.is_some_and(|p| p.batch.sequence < before);
        let mut missing = None;
        for entry in s.log.iter().filter(|e| e.record.position.lsn > s.commit).filter(is_old) {
            if is_missing(&entry.record) && entry.direct.is_none() {
                missing = missing.or(Some(entry.record.position.lsn));
            } else {
                self.journal.copies.push_back(Copy { key, life, record: entry.record.clone() });
            }
        }
        if let Some(lsn) = missing.filter(|_| !self.is_reading_copies(key)) {
            self.start_copy(key, Lsn(lsn.0 - 1), self.max_batch() as usize, out);
        }
    }

    fn is_reading_copies(&self, key: SegmentKey) -> bool {
        self.jobs.values().any(|j| j.key == key && matches!(j.kind, JobKind::Copy { .. }))
    }

    /// Whether records of a segment are about to be copied forward.
    pub(crate) fn is_copying(&self, key: SegmentKey) -> bool {
        self.is_reading_copies(key) || self.journal.copies.iter().any(|c| c.key == key)
    }
}
