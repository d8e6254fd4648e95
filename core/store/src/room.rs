//! Room for data: which extents are spoken for. What a record will need is kept free from the moment it is in the
//! log, so that a commit never lacks space; and room can be kept for records that are to come, so that an owner
//! orders only what its copies can store.
//!
//! A few extents are a reserve: neither new data nor images are promised them. They are for records that were
//! ordered while there was room, when what was kept for them is forgotten: by a restart, or by their owner's end.

use crate::disk::Disk;
use crate::log::journal_cost;
use crate::segment::{Kept, LogEntry, Segment, written_extents};
use crate::writeback::Round;
use alloc::{collections::BTreeSet, vec::Vec};
use holdfast_types::{Duration, Lsn, Record, RecordBody, SegmentKey, StoreRefusal, Time};

/// Room that is not used for so long is given back. Its owner orders the record within moments of the last copy's
/// answer, or asks again.
const KEEP_FOR: Duration = Duration::from_secs(10);
/// The part of a disk that is the reserve, and the most of it.
const RESERVE_PART: u64 = 64;
const RESERVE_MOST: u64 = 16;

impl Disk {
    /// One more write waits to be put into the extent.
    pub(crate) fn pending_add(&mut self, key: SegmentKey, extent: u32) {
        let Some(s) = self.segments.get_mut(&key) else { return };
        if s.needs_place(extent) {
            self.promised += 1;
        }
        *s.pending.entry(extent).or_insert(0) += 1;
        s.hollow.remove(&extent);
    }

    /// A write of the extent is in place, or gone.
    pub(crate) fn pending_remove(&mut self, key: SegmentKey, extent: u32) {
        let Some(s) = self.segments.get_mut(&key) else { return };
        let Some(count) = s.pending.get_mut(&extent) else { return };
        *count -= 1;
        if *count == 0 {
            s.pending.remove(&extent);
            self.unclaimed(key, extent);
        }
    }

    /// A claim on the extent ended: without another one its promise ends with it, and a place without data is freed.
    fn unclaimed(&mut self, key: SegmentKey, extent: u32) {
        let Some(s) = self.segments.get_mut(&key).filter(|s| !s.claims(extent)) else { return };
        match s.extents.get(&extent) {
            Some(e) if e.location.is_some() => {
                if e.present == 0 {
                    s.hollow.insert(extent);
                    self.dirty.insert(key);
                }
            }
            _ => {
                let life = s.life;
                self.promise_ended(key, life, extent);
            }
        }
        self.retire_shadow(key, extent);
    }

    /// An extent that has no place will not need one.
    pub(crate) fn promise_ended(&mut self, key: SegmentKey, life: u64, extent: u32) {
        self.promised -= 1;
        if let Some(round) = &mut self.round {
            round.promise_ended(key, life, extent);
        }
    }

    /// Keeps room for records after `after` that put data into the extent. How many extents are left then.
    pub(crate) fn keep_room(
        &mut self,
        now: Time,
        key: SegmentKey,
        extent: u32,
        after: Lsn,
    ) -> Result<u64, StoreRefusal> {
        self.expire_kept(now);
        let (spare, unbacked) = (self.spare_extents(), self.has_unbacked_promises());
        let Some(s) = self.segments.get_mut(&key) else { return Err(StoreRefusal::Unknown) };
        let lacks_room = if s.needs_place(extent) { spare == 0 } else { unbacked && !s.has_place(extent) };
        if lacks_room {
            return Err(self.no_room());
        }
        if s.needs_place(extent) {
            self.promised += 1;
        }
        let until = now + KEEP_FOR;
        self.kept_until = self.kept_until.min(until);
        let kept = s.kept.entry(extent).or_insert(Kept { after, until });
        *kept = Kept { after: kept.after.max(after), until };
        s.hollow.remove(&extent);
        Ok(self.spare_extents())
    }

    /// A record that room may be kept for is in the log: from here on that speaks for it.
    pub(crate) fn use_kept(&mut self, key: SegmentKey, extent: u32, lsn: Lsn) {
        if let Some(s) = self.segments.get_mut(&key)
            && s.kept.get(&extent).is_some_and(|k| lsn > k.after)
        {
            s.kept.remove(&extent);
            self.unclaimed(key, extent);
        }
    }

    /// Gives back what was kept and not used in time.
    pub(crate) fn expire_kept(&mut self, now: Time) {
        if now < self.kept_until {
            return;
        }
        let mut expired: Vec<(SegmentKey, u32)> = Vec::new();
        self.kept_until = Time::NEVER;
        for (key, s) in &mut self.segments {
            expired.extend(s.kept.iter().filter(|(_, k)| k.until <= now).map(|(e, _)| (*key, *e)));
            s.kept.retain(|_, k| k.until > now);
            let next = s.kept.values().map(|k| k.until).min().unwrap_or(Time::NEVER);
            self.kept_until = self.kept_until.min(next);
        }
        for (key, extent) in expired {
            self.unclaimed(key, extent);
        }
    }

    /// How to refuse what has no room. Extents that become free soon are freed now.
    pub(crate) fn no_room(&mut self) -> StoreRefusal {
        if !self.is_giving_back() {
            return StoreRefusal::Full;
        }
        (self.writeback_due, self.places_wanted) = (true, true);
        StoreRefusal::Later
    }

    /// Whether more is promised than there is. Only a disk that was opened lately is like that: its log tells of
    /// writes that were in place, discarded and their place given to others. They count as claims until the log is
    /// written back, which needs no new place for them; until then nobody may build on such a claim.
    pub(crate) fn has_unbacked_promises(&self) -> bool {
        self.promised > u64::from(self.extents.free()) + self.round.as_ref().map_or(0, Round::allocated)
    }

    /// Whether extents become free soon: data that is discarded and still in place or promised one, a copy whose end is being
    /// journaled or that a round still writes, or an extent with two places.
    fn is_giving_back(&self) -> bool {
        let holds = |s: &Segment, e: u32| s.has_place(e) || s.pending.contains_key(&e);
        let moves = |s: &Segment| s.shadows.keys().any(|e| s.has_place(*e));
        let frees = |s: &Segment| {
            let discard = |e: &LogEntry| matches!(e.record.body, RecordBody::Zero(_));
            !s.hollow.is_empty()
                || moves(s)
                || s.overlay.extents.iter().any(|(e, part)| holds(s, *e) && part.takes_data_away())
                || s.log.iter().rev().take_while(|e| e.record.position.lsn > s.commit).any(discard)
        };
        self.has_unbacked_promises()
            || !self.leaving.is_empty()
            || self.round.as_ref().is_some_and(|r| !r.dropped.is_empty())
            || self.journal.dropping().next().is_some()
            || self.segments.values().any(frees)
    }

    /// Extents that nobody holds and nobody was promised.
    pub(crate) fn available_extents(&self) -> u64 {
        let taken_for_promises = self.round.as_ref().map_or(0, Round::allocated);
        (u64::from(self.extents.free()) + taken_for_promises).saturating_sub(self.promised)
    }

    /// Extents of those that new data may take.
    pub(crate) fn spare_extents(&self) -> u64 {
        self.available_extents().saturating_sub(self.reserve())
    }

    /// Extents of those that only records may take.
    pub(crate) fn reserve(&self) -> u64 {
        (u64::from(self.extents.total()) / RESERVE_PART).min(RESERVE_MOST)
    }

    /// Whether these records can be taken into the log, and how many extents they are to be promised. Refused as full, it is for
    /// [`Disk::no_room`] to say how.
    pub(crate) fn fits(&self, key: SegmentKey, records: &[Record]) -> Result<u64, StoreRefusal> {
        let Some(s) = self.segments.get(&key) else { return Err(StoreRefusal::Unknown) };
        let placeless: BTreeSet<u32> =
            records.iter().flat_map(written_extents).map(|e| e.0).filter(|e| !s.has_place(*e)).collect();
        if !placeless.is_empty() && self.has_unbacked_promises() {
            return Err(StoreRefusal::Full);
        }
        let fresh = placeless.into_iter().filter(|e| s.needs_place(*e)).count() as u64;
        // What a learner gets was ordered without asking it.
        let reserve = if s.incomplete_since.is_some() { self.reserve() } else { 0 };
        if fresh > 0 && fresh > self.available_extents().saturating_sub(reserve) {
            return Err(StoreRefusal::Full);
        }
        // Uncommitted records may have to be copied forward while the ring is full, so they may never hold most
        // of it. Records without data go on longer: they are what frees space.
        let cost: u64 = records.iter().map(journal_cost).sum();
        let limit = self.uncommitted_limit();
        let is_small = records.iter().all(|r| r.data_bytes() == 0);
        let most = if is_small { limit + self.ring.capacity() / 16 } else { limit };
        if self.uncommitted + cost <= most { Ok(fresh) } else { Err(StoreRefusal::Later) }
    }
}
