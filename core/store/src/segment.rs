//! A segment's copy in memory: its log after the trim position, what of it is committed, and where its extents
//! lie. It changes at once with each order; what is durable follows with the journal.

use crate::format::journal::SegmentState;
use crate::overlay::{Content, Overlay, OverlayBlock};
use crate::ring::Place;
use crate::shadow::{Pointer, Shadow};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use holdfast_types::{
    BLOCK_BYTES, BlockIndex, BlockRange, EXTENT_BLOCKS, Epoch, ExtentIndex, LogPosition, Lsn, Record,
    RecordBody, RepeatState, ReplicaState, Time, WriteData,
};

/// Where a record lies in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordPlace {
    /// Its batch.
    pub batch: Place,
    /// Its data's first byte on the disk.
    pub data: u64,
}

/// A record in the log.
#[derive(Clone, Debug)]
pub(crate) struct LogEntry {
    /// The record; a write's data is empty when it is only in the journal.
    pub record: Record,
    /// None until its batch was ordered.
    pub place: Option<RecordPlace>,
    /// Where a write's data lies, if not in its batch.
    pub direct: Option<u64>,
}

/// Where an extent lies and what is known of it without its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExtentEntry {
    /// Its page.
    pub page: u32,
    /// Which of the page's slots counts.
    pub slot: bool,
    /// Which extent of the disk holds it.
    pub location: Option<u32>,
    /// The newest LSN of its blocks.
    pub newest: Lsn,
    /// How many of its blocks hold data.
    pub present: u32,
    /// The page's sequence: a page read back with another one is out of date.
    pub sequence: u64,
    /// Its page was lost in this run: the one that takes its place is written to both slots, as what the other one has is of no use.
    pub is_lost: bool,
}

/// Room that is kept for records to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// For those after this one.
    pub after: Lsn,
    /// Until then.
    pub until: Time,
}

/// A segment's copy.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    pub life: u64,
    pub sealed: Epoch,
    pub trim: LogPosition,
    pub commit: Lsn,
    /// Records up to here are durable.
    pub durable: Lsn,
    /// Records up to here are in place.
    pub settled: Lsn,
    /// A commit position known to be durable.
    pub marked: Lsn,
    pub incomplete_since: Option<Lsn>,
    pub floor: Lsn,
    pub repeats: RepeatState,
    pub log: VecDeque<LogEntry>,
    pub overlay: Overlay,
    pub extents: BTreeMap<u32, ExtentEntry>,
    /// For each extent, how many writes in the log or by images are not in place.
    pub pending: BTreeMap<u32, u32>,
    /// Extents for which room is kept, although no write waits for it yet.
    pub kept: BTreeMap<u32, Kept>,
    /// Where bulk is written to before its extents' pages name the place.
    pub shadows: BTreeMap<u32, Shadow>,
    /// What records of the log point to, by place.
    pub pointing: BTreeMap<u32, Vec<Pointer>>,
    /// Extents of which a round left blocks, as a record points to what they would be written over.
    pub held: BTreeSet<u32>,
    /// Extents that hold space for no block; freed by the next writeback.
    pub hollow: BTreeSet<u32>,
    /// The batch of its last durable state entry; None before the first.
    pub stated: Option<u64>,
    /// A state entry was queued and is not durable.
    pub state_queued: bool,
}

impl Segment {
    /// An empty copy.
    pub(crate) fn new(life: u64) -> Self {
        Self { life, ..Self::default() }
    }

    /// The last record's position.
    pub(crate) fn last(&self) -> LogPosition {
        self.log.back().map_or(self.trim, |e| e.record.position)
    }

    /// The entry of record `lsn`.
    pub(crate) fn entry(&self, lsn: Lsn) -> Option<&LogEntry> {
        self.log.get(self.index(lsn)?)
    }
    pub(crate) fn entry_mut(&mut self, lsn: Lsn) -> Option<&mut LogEntry> {
        let index = self.index(lsn)?;
        self.log.get_mut(index)
    }
    fn index(&self, lsn: Lsn) -> Option<usize> {
        usize::try_from(lsn.0.checked_sub(self.trim.lsn.0 + 1)?).ok()
    }

    /// Whether the extent has its place on the disk.
    pub(crate) fn has_place(&self, extent: u32) -> bool {
        self.extents.get(&extent).is_some_and(|e| e.location.is_some())
    }
    /// Whether data for the extent takes a place that nobody has been promised for it.
    pub(crate) fn needs_place(&self, extent: u32) -> bool {
        !self.claims(extent) && !self.has_place(extent)
    }
    /// Whether a place that the extent has, or is to get, must stay its.
    pub(crate) fn claims(&self, extent: u32) -> bool {
        self.pending.contains_key(&extent) || self.kept.contains_key(&extent)
    }

    /// What a state entry says now.
    pub(crate) fn state(&self, reset: bool) -> SegmentState {
        SegmentState {
            life: self.life,
            dropped: false,
            reset,
            sealed: self.sealed,
            trim: self.trim,
            commit: self.commit.min(self.last().lsn),
            incomplete_since: self.incomplete_since,
            floor: self.floor,
            repeats: self.repeats.clone(),
        }
    }

    /// The copy as replication sees it.
    pub(crate) fn replica_state(&self) -> ReplicaState {
        let mut state = ReplicaState {
            sealed: self.sealed,
            trim: self.trim,
            applied: self.commit,
            last: self.last(),
            incomplete_since: self.incomplete_since,
            repeats: self.repeats.clone(),
            ..ReplicaState::default()
        };
        for LogEntry { record, .. } in &self.log {
            let LogPosition { epoch, lsn } = record.position;
            if state.epochs.last().is_none_or(|(_, e)| *e != epoch) {
                state.epochs.push((lsn, epoch));
            }
            if let Some(tag) = record.request {
                state.tags.push((lsn, tag));
            }
            if let RecordBody::Fence { gateway, session } = record.body {
                state.fences.push((lsn, gateway, session));
            }
        }
        state
    }

    /// Moves records up to `lsn` into the overlay.
    pub(crate) fn commit_up_to(&mut self, lsn: Lsn) {
        let lsn = lsn.min(self.last().lsn);
        while self.commit < lsn {
            let next = self.commit.next();
            let entry = self.entry(next).map(|e| (e.record.body.clone(), e.place, e.direct));
            match entry {
                Some((RecordBody::Write(w), place, direct)) => {
                    self.overlay_write(next, &w, place.map_or(0, |p| p.data), direct);
                }
                Some((RecordBody::Zero(range), ..)) => self.overlay_zero(next, range),
                Some((RecordBody::Start | RecordBody::Fence { .. }, ..)) | None => {}
            }
            self.commit = next;
        }
    }

    /// Leaves the data of a durable record to the journal, `data` being its first byte there. How many bytes that frees.
    pub(crate) fn leave_to_journal(&mut self, lsn: Lsn, data: u64) -> u64 {
        let committed = lsn <= self.commit;
        let Some(entry) = self.entry_mut(lsn) else { return 0 };
        let RecordBody::Write(w) = &mut entry.record.body else { return 0 };
        let (range, freed) = (w.range, core::mem::take(&mut w.data).len() as u64);
        if committed && freed > 0 {
            // Content that others overwrote, or that is in place, is not in the overlay any more.
            for (i, block) in range.blocks().enumerate() {
                self.overlay.leave_to_journal(block, lsn, data + (i * BLOCK_BYTES) as u64);
            }
        }
        freed
    }

    fn overlay_write(&mut self, lsn: Lsn, w: &WriteData, journal: u64, direct: Option<u64>) {
        for (i, block) in w.range.blocks().enumerate() {
            let at = i * BLOCK_BYTES;
            let content = if w.data.is_empty() {
                Content::Journal(journal + at as u64)
            } else {
                Content::Memory(w.data.slice(at..at + BLOCK_BYTES))
            };
            let direct = direct.map(|start| start + at as u64);
            let block_state =
                OverlayBlock { lsn, crc: w.crcs[i], content, heal: false, image: false, direct };
            self.overlay.insert(block.extent(), block.in_extent(), block_state);
        }
    }

    /// A zero leaves a tombstone where something is or may yet come by an image; where a complete copy has
    /// nothing, every copy had nothing.
    fn overlay_zero(&mut self, lsn: Lsn, range: BlockRange) {
        for (extent, part) in by_extent(range) {
            let known = self.incomplete_since.is_some()
                || self.extents.contains_key(&extent.0)
                || self.overlay.extent(extent).is_some();
            if !known {
                continue;
            }
            if part.count == EXTENT_BLOCKS {
                self.overlay.clear_extent(extent, lsn);
                continue;
            }
            for block in part.blocks() {
                let content = Content::Absent;
                let state = OverlayBlock { lsn, crc: 0, content, heal: false, image: false, direct: None };
                self.overlay.insert(extent, block.in_extent(), state);
            }
        }
    }

    /// Adds what a record that is trimmed says of repeats.
    pub(crate) fn absorb(repeats: &mut RepeatState, record: &Record) {
        if let Some(tag) = record.request {
            let of = repeats.gateways.entry(tag.gateway).or_default();
            of.low = of.low.max(tag.low);
            of.done.insert(tag.seq, record.position.lsn);
            of.done = of.done.split_off(&of.low);
        }
        if let RecordBody::Fence { gateway, session } = &record.body {
            let of = repeats.gateways.entry(*gateway).or_default();
            match session {
                None => {
                    of.fenced = true;
                    of.fenced_sessions.clear();
                }
                Some(s) if !of.fenced && !of.fenced_sessions.contains(s) => of.fenced_sessions.push(*s),
                Some(_) => {}
            }
        }
    }

    /// Removes records up to `lsn`, which are in place, from the log.
    pub(crate) fn trim_to(&mut self, lsn: Lsn) {
        debug_assert!(lsn <= self.settled);
        while self.trim.lsn < lsn {
            let Some(entry) = self.log.pop_front() else { break };
            Self::absorb(&mut self.repeats, &entry.record);
            self.trim = entry.record.position;
        }
    }

    /// The oldest batch that holds a record of the log: not always the first record's, which may have been copied
    /// forward before the others.
    pub(crate) fn oldest_batch(&self) -> Option<u64> {
        self.log.iter().filter_map(|e| e.place).map(|p| p.batch.sequence).min()
    }
}

/// The parts of a range, extent by extent.
pub(crate) fn by_extent(range: BlockRange) -> impl Iterator<Item = (ExtentIndex, BlockRange)> {
    let end = range.end().0;
    let mut at = range.start.0;
    core::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let extent = BlockIndex(at).extent();
        let stop = end.min(extent.first_block().0 + EXTENT_BLOCKS);
        let part = BlockRange::new(BlockIndex(at), stop - at);
        at = stop;
        Some((extent, part))
    })
}

/// The extents that a record's data lies in.
pub(crate) fn written_extents(record: &Record) -> impl Iterator<Item = ExtentIndex> {
    let range = match &record.body {
        RecordBody::Write(w) => w.range,
        _ => BlockRange::new(BlockIndex(0), 0),
    };
    range.extents()
}
