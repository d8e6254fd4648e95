//! What the journal's entries and the extent pages add up to: the segments as they were. No I/O.

use crate::api::{StoreConfig, StoreOutput};
use crate::batch::Journal;
use crate::disk::Disk;
use crate::format::journal::{Entry, SegmentState};
use crate::format::page::{Page, Remains};
use crate::format::superblock::Superblock;
use crate::log::journal_cost;
use crate::pace::Pace;
use crate::pages::PageCache;
use crate::ring::{Place, Ring};
use crate::segment::{ExtentEntry, LogEntry, RecordPlace, Segment, written_extents};
use crate::silence::Silence;
use crate::space::Slots;
use alloc::{collections::BTreeMap, collections::BTreeSet, collections::VecDeque, vec::Vec};
use holdfast_types::{BLOCK_BYTES, ExtentIndex, LogPosition, Lsn, SegmentKey, Time};

/// A page as it was found.
#[derive(Debug)]
pub(crate) struct Found {
    key: SegmentKey,
    life: u64,
    extent: u32,
    entry: ExtentEntry,
}

impl Found {
    pub(crate) fn new(number: u32, slot: bool, page: &Page) -> Self {
        let entry = ExtentEntry {
            page: number,
            slot,
            location: page.location,
            newest: page.newest(),
            present: page.present_count(),
            sequence: page.sequence,
            is_lost: false,
        };
        Self { key: page.key, life: page.life, extent: page.extent.0, entry }
    }
    pub(crate) fn is_of(&self, key: SegmentKey, life: u64, extent: ExtentIndex) -> bool {
        (self.key, self.life, self.extent) == (key, life, extent.0)
    }
    pub(crate) fn sequence(&self) -> u64 {
        self.entry.sequence
    }
}

/// All pages as they were found.
#[derive(Debug, Default)]
pub(crate) struct FoundPages {
    pub found: Vec<Found>,
    /// Pages up to this sequence were durable.
    pub durable: u64,
    /// The highest sequence of any page, sound or not.
    pub newest: u64,
    /// Pages that were durable and are damaged, with their numbers.
    pub lost: Vec<(u32, Remains)>,
}

#[derive(Debug, Default)]
struct Replayed {
    segment: Segment,
    log: BTreeMap<Lsn, LogEntry>,
    commit: Lsn,
}

/// Entries, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    segments: BTreeMap<SegmentKey, Replayed>,
    life: u64,
    /// Records seen.
    pub records: u64,
}

impl Replay {
    /// Adds a batch whose data starts at byte `data` of the disk.
    pub(crate) fn batch(&mut self, batch: Place, data: u64, entries: Vec<(SegmentKey, Entry)>) {
        for (key, entry) in entries {
            if let Entry::State(state) = entry {
                self.state(key, batch, state);
                continue;
            }
            let r = self.segments.entry(key).or_default();
            match entry {
                Entry::Record { record, commit, data_block, direct } => {
                    self.records += 1;
                    r.commit = r.commit.max(commit);
                    let in_batch = data + u64::from(data_block) * BLOCK_BYTES as u64;
                    let place = RecordPlace { batch, data: direct.unwrap_or(in_batch) };
                    r.log.insert(record.position.lsn, LogEntry { record, place: Some(place), direct });
                }
                Entry::Seal(epoch) => r.segment.sealed = r.segment.sealed.max(epoch),
                Entry::Cut(after) => drop(r.log.split_off(&after.next())),
                Entry::Mark(lsn) => r.commit = r.commit.max(lsn),
                Entry::State(_) => {}
            }
        }
    }

    fn state(&mut self, key: SegmentKey, batch: Place, state: SegmentState) {
        self.life = self.life.max(state.life);
        if state.dropped {
            self.segments.remove(&key);
            return;
        }
        let r = self.segments.entry(key).or_default();
        if r.segment.stated.is_some() && r.segment.life != state.life {
            *r = Replayed::default();
        }
        if state.reset {
            r.log.clear();
            r.commit = state.commit;
        }
        r.commit = r.commit.max(state.commit);
        let s = &mut r.segment;
        s.life = state.life;
        s.stated = Some(batch.sequence);
        s.sealed = s.sealed.max(state.sealed);
        s.trim = state.trim;
        s.incomplete_since = state.incomplete_since;
        s.floor = state.floor;
        s.repeats = state.repeats;
    }

    /// The segments, each with its log gap-free after its trim position; None when one has a gap or no state,
    /// which a sound journal never leaves.
    pub(crate) fn finish(self) -> Option<Recovered> {
        let mut segments = BTreeMap::new();
        for (key, mut r) in self.segments {
            r.segment.stated?;
            let mut s = r.segment;
            let log = r.log.split_off(&s.trim.lsn.next());
            let mut expected = s.trim.lsn;
            for (lsn, entry) in log {
                expected = expected.next();
                if lsn != expected {
                    return None;
                }
                s.log.push_back(entry);
            }
            let last = s.last().lsn;
            (s.commit, s.settled, s.durable) = (s.trim.lsn, s.trim.lsn, last);
            s.marked = r.commit.min(last);
            segments.insert(key, s);
        }
        Some(Recovered { segments, life: self.life })
    }
}

/// The segments as the journal tells, their committed records not yet applied.
#[derive(Debug)]
pub(crate) struct Recovered {
    segments: BTreeMap<SegmentKey, Segment>,
    life: u64,
}

impl Recovered {
    /// Whether a record is in the log, lies in this batch and is not known to be committed: this copy may be one of those
    /// that it was acknowledged for.
    pub(crate) fn needs(&self, key: SegmentKey, position: LogPosition, batch: Place) -> bool {
        let Some(s) = self.segments.get(&key) else { return false };
        let lies_there =
            |e: &&LogEntry| e.record.position == position && e.place.is_some_and(|p| p.batch == batch);
        position.lsn > s.marked && s.entry(position.lsn).filter(lies_there).is_some()
    }
}

impl Disk {
    /// A disk from what was found on it.
    pub(crate) fn opened(
        config: StoreConfig,
        superblock: Superblock,
        ring: Ring,
        recovered: Recovered,
        pages: FoundPages,
        last_token: u64,
        out: &mut Vec<StoreOutput>,
    ) -> Disk {
        let FoundPages { mut found, durable, newest, lost } = pages;
        let life = found.iter().map(|f| f.life).max().unwrap_or(0).max(recovered.life);
        let mut disk = Disk {
            config,
            page_limit: superblock.page_limit,
            superblock_in_flight: false,
            superblock_wanted: false,
            ring,
            journal: Journal::default(),
            segments: recovered.segments,
            next_life: life + 1,
            extents: Slots::new(superblock.layout.extent_count()),
            pages: Slots::new(superblock.layout.pages()),
            promised: 0,
            kept_until: Time::NEVER,
            page_sequence: newest.max(durable),
            pages_durable: durable,
            unrecorded: Vec::new(),
            lost_pages: Vec::new(),
            cache: PageCache::new(config.page_cache_bytes),
            purposes: BTreeMap::new(),
            silence: Silence::default(),
            pace: Pace::new(Time(0)),
            next_token: last_token + 1,
            jobs: BTreeMap::new(),
            next_job: 0,
            page_waiters: BTreeMap::new(),
            extent_waiters: BTreeMap::new(),
            postponed: BTreeMap::new(),
            round: None,
            leaving: Vec::new(),
            places_wanted: false,
            checkpoint: Vec::new(),
            writeback_due: false,
            last_commit: Time::default(),
            dirty: BTreeSet::new(),
            last_selected: None,
            log_memory: 0,
            uncommitted: 0,
            refusing: BTreeMap::new(),
            unreadable: 0,
            failed: false,
            superblock,
        };
        for (page, remains) in lost {
            disk.page_lost_before(page, &remains, &mut found, out);
        }
        // The newest page first: of two that claim the same, the newer one is right.
        found.sort_by_key(|f| core::cmp::Reverse(f.entry.sequence));
        for f in found {
            disk.adopt_page(f);
        }
        disk.adopt_shadows();
        let keys: Vec<SegmentKey> = disk.segments.keys().copied().collect();
        for key in keys {
            disk.adopt_log(key);
        }
        disk
    }

    /// A page of no living copy is waste, and its slot free.
    fn adopt_page(&mut self, found: Found) {
        let Found { key, life, extent, mut entry } = found;
        let Some(s) = self.segments.get_mut(&key).filter(|s| s.life == life) else { return };
        if s.extents.contains_key(&extent) || !self.pages.take_this(entry.page) {
            return;
        }
        // Where the place cannot be right its blocks are bad, and healed one by one.
        entry.location = entry.location.filter(|l| self.extents.take_this(*l));
        if entry.present == 0 && entry.location.is_some() {
            s.hollow.insert(extent);
            self.dirty.insert(key);
        }
        s.extents.insert(extent, entry);
    }

    fn adopt_log(&mut self, key: SegmentKey) {
        let Some(s) = self.segments.get(&key) else { return };
        let log: &VecDeque<LogEntry> = &s.log;
        let mut extents = Vec::new();
        for entry in log {
            self.uncommitted += journal_cost(&entry.record);
            extents.extend(written_extents(&entry.record).map(|e| e.0));
        }
        let commit = s.marked;
        for extent in extents {
            self.pending_add(key, extent);
        }
        self.commit(Time::default(), key, commit);
    }
}
