//! Writing committed content in place, in rounds. A round takes a snapshot of what waits, and goes: the commit
//! position into the journal · pages and journaled content read · blocks written in place · flush · pages
//! written to their other slot · flush. Only then does the overlay let go of what was written, so that reads
//! are served from memory meanwhile; what was overwritten meanwhile stays for the next round.
//!
//! A round is work in the background: only a few of its orders are with the disk at a time, so that what clients
//! wait for (the journal, reads) never queues behind thousands of them.
//!
//! The commit position goes first so that after a crash in the middle, when a block is new and its page is
//! not, the journal brings the block back as committed.

use crate::api::{DiskActivity, StoreEvent, StoreOutput};
use crate::disk::{Disk, Purpose};
use crate::format::page::Page;
use crate::overlay::{Content, OverlayBlock};
use crate::segment::{ExtentEntry, Segment};
use crate::shadow::{Choice, Target};
use crate::slot::ZEROS;
use alloc::{boxed::Box, collections::BTreeMap, collections::BTreeSet, collections::VecDeque, vec, vec::Vec};
use bytes::Bytes;
use core::ops::Range;
use holdfast_checksum::crc32c;
use holdfast_types::{
    BLOCK_BYTES, BlockIndex, DiskFault, DiskOrderKind, EXTENT_BLOCKS, ExtentIndex, Lsn, SegmentKey,
};

/// Pages that the superblock admits at once, so that it is written seldom.
const PAGE_LIMIT_STEP: u32 = 1024;

/// How much of a round is with the disk at a time, in bytes: little, so that an order of a client that comes behind
/// it is not held up for long; more when what waits in memory is over its limit, as a writer is then faster.
const IN_FLIGHT: usize = 1 << 20;
const IN_FLIGHT_PRESSED: usize = 4 << 20;
/// What an order counts at least: sixteen small ones are as much work as a megabyte.
const ORDER_COST: usize = 64 << 10;
/// The longest write of a round.
const WRITE_BLOCKS: usize = 64;

/// An order to the disk that a round waits for.
#[derive(Debug)]
pub(crate) enum RoundOrder {
    Page { index: usize },
    Journal { index: usize, first: usize, count: usize },
    Write(DiskActivity),
    Flush,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    LoadingPages,
    LoadingContent,
    WritingData,
    FlushingData,
    WritingPages,
    FlushingPages,
}

/// An extent's part of a round.
#[derive(Debug)]
pub(crate) struct RoundExtent {
    pub key: SegmentKey,
    pub life: u64,
    pub extent: ExtentIndex,
    /// As it was before.
    pub old: Option<ExtentEntry>,
    pub whole: Option<Lsn>,
    pub blocks: Vec<(u32, OverlayBlock)>,
    /// What was taken from the overlay, as LSNs by place, to be removed from it.
    pub taken: Vec<(u32, Lsn, bool)>,
    pub page: Option<Box<Page>>,
    pub page_number: Option<u32>,
    /// The extent's shadow, if it is to be its place.
    pub shadow: Option<u32>,
    pub new_location: Option<u32>,
    /// The promise that the new location was taken for has ended meanwhile.
    pub unpromised: bool,
    pub freed_location: Option<u32>,
    /// The place that its shadow took over from.
    pub replaced: Option<u32>,
    /// Blocks were left for a later round.
    pub left_some: bool,
}

impl RoundExtent {
    /// The slot that its page is written to. None: both, as there is none yet, or was lost.
    fn next_slot(&self) -> Option<bool> {
        self.old.filter(|old| !old.is_lost).map(|old| !old.slot)
    }
    /// Leaves the extent out of this round, before anything was taken for it.
    fn postpone(&mut self) {
        self.page = None;
        self.blocks.clear();
    }
}

/// A round of writing back.
#[derive(Debug)]
pub(crate) struct Round {
    pub stage: Stage,
    pub extents: Vec<RoundExtent>,
    /// Orders of this stage that are not with the disk yet.
    pub queued: VecDeque<(DiskOrderKind, RoundOrder)>,
    /// What those that are count together.
    pub outstanding: usize,
    pub marks: BTreeSet<SegmentKey>,
    /// Segments whose new state must be durable before pages are written or erased, with the first batch that can hold it.
    pub states: BTreeMap<SegmentKey, u64>,
    /// Pages of tombstones that went into a floor.
    pub erased: Vec<u32>,
    /// The jobs that wait for an extent of the round.
    pub waiters: BTreeMap<(SegmentKey, u32), Vec<u64>>,
    /// Places of copies that were given up since: what the round writes there may still be with the disk, and must not land
    /// on what somebody else puts there.
    pub dropped: Vec<u32>,
    /// Extents taken for promises that still count.
    pub allocated: u64,
    pub wrote_data: bool,
}

impl Round {
    pub(crate) fn allocated(&self) -> u64 {
        self.allocated
    }
    /// The promise of an extent ended. If a location was taken for it, that stands for no promise any more.
    pub(crate) fn promise_ended(&mut self, key: SegmentKey, life: u64, extent: u32) {
        let part = self.extents.iter_mut().find(|e| e.key == key && e.life == life && e.extent.0 == extent);
        let takes_a_promise =
            |e: &&mut RoundExtent| e.new_location.is_some() && e.replaced.is_none() && !e.unpromised;
        if let Some(part) = part.filter(takes_a_promise) {
            part.unpromised = true;
            self.allocated -= 1;
        }
    }
    /// Whether some of its writes are to places of that segment's.
    pub(crate) fn may_write_to(&self, key: SegmentKey) -> bool {
        let is_written = !matches!(self.stage, Stage::LoadingPages | Stage::LoadingContent);
        is_written && self.extents.iter().any(|e| e.key == key && e.page.is_some())
    }
    /// A segment is dropped: its commit position is not waited for.
    pub(crate) fn forget_segment(&mut self, key: SegmentKey) {
        self.marks.remove(&key);
        self.states.remove(&key);
    }
}

impl Disk {
    pub(crate) fn load_pages(&mut self) {
        let Some(mut round) = self.round.take() else { return };
        for (index, e) in round.extents.iter_mut().enumerate() {
            let Some(old) = e.old else {
                e.page = Some(Page::empty(e.key, e.life, e.extent));
                continue;
            };
            e.page_number = Some(old.page);
            if let Some(page) = self.cache.get(old.page) {
                e.page = Some(Box::new(page.clone()));
                continue;
            }
            let offset = self.superblock.layout.page_offset(old.page, old.slot);
            let kind = DiskOrderKind::Read { offset, len: BLOCK_BYTES };
            round.queued.push_back((kind, RoundOrder::Page { index }));
        }
        self.round = Some(round);
    }

    /// Hands the stage's next orders over, when half of what may be under way is done: fewer, larger bursts are
    /// cheaper.
    fn feed_round(&mut self, out: &mut Vec<StoreOutput>) {
        if self.round.as_ref().is_none_or(|r| r.queued.is_empty()) {
            return;
        }
        let pressed = self.dirty_bytes() > self.config.dirty_limit_bytes as u64;
        let limit = if pressed { IN_FLIGHT_PRESSED } else { IN_FLIGHT };
        let Some(round) = self.round.as_mut().filter(|r| r.outstanding <= limit / 2) else { return };
        let mut orders = Vec::new();
        while round.outstanding < limit
            && let Some((kind, order)) = round.queued.pop_front()
        {
            let cost = cost(&kind);
            round.outstanding += cost;
            orders.push((kind, Purpose::Round { order, cost }));
        }
        for (kind, purpose) in orders {
            self.begin(kind, purpose, out);
        }
    }

    /// A segment's commit position is durable.
    pub(crate) fn round_marked(&mut self, key: SegmentKey, out: &mut Vec<StoreOutput>) {
        if let Some(round) = &mut self.round {
            round.marks.remove(&key);
        }
        self.advance_round(out);
    }

    /// A segment's state is durable.
    pub(crate) fn round_stated(&mut self, key: SegmentKey, batch: u64, out: &mut Vec<StoreOutput>) {
        if let Some(round) = &mut self.round
            && round.states.get(&key).is_some_and(|first| *first <= batch)
        {
            round.states.remove(&key);
        }
        self.advance_round(out);
    }

    /// An order of the round is done.
    pub(crate) fn round_done(
        &mut self,
        order: RoundOrder,
        cost: usize,
        result: Result<Bytes, DiskFault>,
        out: &mut Vec<StoreOutput>,
    ) {
        let activity = match &order {
            RoundOrder::Page { .. } | RoundOrder::Journal { .. } => DiskActivity::ReadBack,
            RoundOrder::Write(activity) => *activity,
            RoundOrder::Flush => DiskActivity::Flush,
        };
        let data = match (result, &order) {
            (Ok(data), _) => data,
            // No page either.
            (Err(_), RoundOrder::Page { .. }) => Bytes::new(),
            (Err(fault), RoundOrder::Journal { index, first, count }) if self.is_of_a_block(fault) => {
                return self.read_apart(*index, *first, *count, cost, out);
            }
            (Err(fault), _) => return self.fail(activity, Some(fault), out),
        };
        let nonce = self.superblock.format_nonce;
        let Some(round) = &mut self.round else { return };
        round.outstanding -= cost;
        let mut lost = None;
        let sound = match order {
            RoundOrder::Page { index } => {
                let e = &mut round.extents[index];
                let sequence = e.old.map_or(0, |o| o.sequence);
                e.page = Page::decode(&data, nonce).filter(|p| p.sequence == sequence);
                lost = e.page.is_none().then_some((index, e.key, e.life, e.extent));
                true
            }
            RoundOrder::Journal { index, first, count } => {
                let fits = data.len() == count * BLOCK_BYTES;
                if fits {
                    let e = &mut round.extents[index];
                    let segment = self.segments.get(&e.key).filter(|s| s.life == e.life);
                    take_content(e, segment, first..first + count, &data, out);
                }
                fits
            }
            RoundOrder::Write(_) | RoundOrder::Flush => true,
        };
        if !sound {
            return self.fail(activity, None, out);
        }
        if let Some((index, key, life, extent)) = lost {
            let empty = self.page_lost(key, life, extent, out);
            let first = self.unrecorded.iter().find(|of| (of.0, of.1) == (key, life)).map(|of| of.2);
            if let Some(round) = &mut self.round {
                let e = &mut round.extents[index];
                e.page = empty;
                e.old = e.old.map(|old| ExtentEntry { is_lost: true, ..old });
                round.states.extend(first.map(|first| (key, first)));
            }
        }
        self.advance_round(out);
    }

    /// Goes on with the round as far as nothing is outstanding.
    pub(crate) fn advance_round(&mut self, out: &mut Vec<StoreOutput>) {
        loop {
            self.feed_round(out);
            let Some(round) = self.round.as_mut().filter(|r| r.outstanding == 0) else { return };
            match round.stage {
                Stage::LoadingPages => {
                    round.stage = Stage::LoadingContent;
                    self.load_content(out);
                }
                Stage::LoadingContent if !round.marks.is_empty() || !round.states.is_empty() => return,
                Stage::LoadingContent => {
                    round.stage = Stage::WritingData;
                    self.write_data();
                }
                Stage::WritingData => {
                    round.stage = Stage::FlushingData;
                    if round.wrote_data {
                        round.queued.push_back((DiskOrderKind::Flush, RoundOrder::Flush));
                    }
                }
                Stage::FlushingData => {
                    let highest = round.extents.iter().filter_map(|e| e.page_number).max();
                    if highest.is_some_and(|p| p >= self.page_limit) {
                        return;
                    }
                    round.stage = Stage::WritingPages;
                    self.write_pages();
                }
                Stage::WritingPages => {
                    round.stage = Stage::FlushingPages;
                    round.queued.push_back((DiskOrderKind::Flush, RoundOrder::Flush));
                }
                Stage::FlushingPages => return self.finish_round(out),
            }
        }
    }

    /// Drops what the pages already have, and reads what is only in the journal.
    fn load_content(&mut self, out: &mut Vec<StoreOutput>) {
        let Some(mut round) = self.round.take() else { return };
        let (mut reads, mut in_the_way) = (Vec::new(), BTreeMap::new());
        for (index, e) in round.extents.iter_mut().enumerate() {
            let Some(page) = &e.page else { continue };
            e.blocks.retain(|(i, b)| {
                b.lsn > page.lsns[*i as usize] || (b.heal && b.lsn == page.lsns[*i as usize])
            });
            let Some(s) = self.segments.get_mut(&e.key).filter(|s| s.life == e.life) else { continue };
            let Choice { target, in_place, later } = e.choose(s, &self.superblock.layout);
            if let Some(lsn) = in_place {
                let first = in_the_way.entry(e.key).or_insert(lsn);
                *first = lsn.min(*first);
            }
            self.writeback_due |= later;
            if e.left_some && e.taken.is_empty() && e.whole.is_none() {
                e.postpone();
                continue;
            }
            let mut run: Option<(u64, usize, usize)> = None;
            for (n, block) in e.blocks.iter().enumerate() {
                let Content::Journal(at) = block.1.content else { continue };
                if target.is_some_and(|t| t.has(block.0, &block.1)) {
                    continue;
                }
                match &mut run {
                    Some((start, first, count))
                        if *first + *count == n && *start + (*count * BLOCK_BYTES) as u64 == at =>
                    {
                        *count += 1;
                    }
                    _ => reads.extend(run.replace((at, n, 1)).map(|r| (index, r))),
                }
            }
            reads.extend(run.map(|r| (index, r)));
        }
        for (index, (offset, first, count)) in reads {
            let kind = DiskOrderKind::Read { offset, len: count * BLOCK_BYTES };
            round.queued.push_back((kind, RoundOrder::Journal { index, first, count }));
        }
        self.round = Some(round);
        in_the_way.into_iter().for_each(|(key, lsn)| self.clear_the_way(key, lsn, out));
    }

    /// Changes the pages in memory and writes the blocks.
    fn write_data(&mut self) {
        let Some(mut round) = self.round.take() else { return };
        let mut writes = Vec::new();
        for e in &mut round.extents {
            let Some(page) = &mut e.page else { continue };
            let has_data = e.blocks.iter().any(|(_, b)| !matches!(b.content, Content::Absent));
            // None: the copy was given up meanwhile, and its places may be somebody else's by now.
            let segment = self.segments.get(&e.key).filter(|s| s.life == e.life);
            let claimed = segment.map(|s| s.claims(e.extent.0));
            // It stays in memory and in the journal until tombstones have given a page back.
            let no_page = has_data && e.page_number.is_none() && self.pages.free() == 0;
            // A log that began anew, or ended, since the round began has taken its promises with it, and its shadows: what the
            // round took from it is wanted no more, and a place for it would be somebody else's.
            let unpromised = has_data && page.location.is_none() && claimed != Some(true);
            let shadow_is_gone =
                e.shadow.is_some() && segment.and_then(|s| s.shadow_of(e.extent)) != e.shadow;
            if segment.is_none() || no_page || unpromised || shadow_is_gone {
                e.postpone();
                continue;
            }
            if has_data && let Some(location) = e.shadow {
                e.replaced = page.location.replace(location);
                e.new_location = Some(location);
                round.allocated += u64::from(e.replaced.is_none());
                if let Some(s) = self.segments.get_mut(&e.key) {
                    s.shadows.remove(&e.extent.0);
                }
            } else if has_data && page.location.is_none() {
                let location = self.extents.take();
                debug_assert!(location.is_some(), "there is an extent where one was promised");
                if location.is_none() {
                    e.postpone();
                    continue;
                }
                (page.location, e.new_location) = (location, location);
                round.allocated += 1;
            }
            apply(page, e.whole, &e.blocks);
            if page.present_count() == 0 && claimed == Some(false) {
                e.freed_location = page.location.take();
            }
            if e.page_number.is_none() {
                // Each free extent may need a page yet; only what is beyond is for mere tombstones.
                let spare = has_data || self.pages.free() > self.extents.free();
                e.page_number = if spare { self.pages.take() } else { None };
            }
            if let Some(location) = page.location {
                let start = self.superblock.layout.extent_offset(location);
                let mut blocks = core::mem::take(&mut e.blocks);
                let target = Target { location, start };
                blocks.retain(|(i, b)| !target.has(*i, b));
                in_place_writes(start, blocks, &mut writes);
            }
        }
        let highest = round.extents.iter().filter_map(|e| e.page_number).max();
        if let Some(highest) = highest.filter(|p| *p >= self.superblock.page_limit) {
            let limit = (highest + 1).next_multiple_of(PAGE_LIMIT_STEP).min(self.pages.total());
            self.superblock.page_limit = limit;
            self.superblock_wanted = true;
        }
        round.wrote_data = !writes.is_empty();
        for (offset, data) in writes {
            let kind = DiskOrderKind::Write { offset, data, durable: false };
            round.queued.push_back((kind, RoundOrder::Write(DiskActivity::Data)));
        }
        self.round = Some(round);
    }

    fn write_pages(&mut self) {
        let Some(mut round) = self.round.take() else { return };
        let nonce = self.superblock.format_nonce;
        for e in &mut round.extents {
            let (Some(page), Some(number)) = (&mut e.page, e.page_number) else { continue };
            self.page_sequence += 1;
            page.sequence = self.page_sequence;
            let encoded = Bytes::from(page.encode(nonce));
            let (slot, data) = match e.next_slot() {
                Some(slot) => (slot, vec![encoded]),
                None => (false, vec![encoded.clone(), encoded]),
            };
            let offset = self.superblock.layout.page_offset(number, slot);
            let kind = DiskOrderKind::Write { offset, data, durable: false };
            round.queued.push_back((kind, RoundOrder::Write(DiskActivity::Metadata)));
        }
        for page in &round.erased {
            let data = vec![Bytes::from_static(&ZEROS[..2 * BLOCK_BYTES])];
            let offset = self.superblock.layout.page_offset(*page, false);
            let kind = DiskOrderKind::Write { offset, data, durable: false };
            round.queued.push_back((kind, RoundOrder::Write(DiskActivity::Metadata)));
        }
        self.round = Some(round);
    }

    /// Everything of the round is durable.
    fn finish_round(&mut self, out: &mut Vec<StoreOutput>) {
        let Some(round) = self.round.take() else { return };
        self.pages_durable = self.page_sequence;
        round.erased.into_iter().for_each(|page| self.pages.release(page));
        round.dropped.into_iter().for_each(|location| self.extents.release(location));
        let (mut keys, mut waiters) = (BTreeSet::new(), round.waiters);
        let mut progress = BTreeSet::new();
        for e in round.extents {
            keys.insert(e.key);
            if e.page.is_some() && (e.whole.is_some() || !e.taken.is_empty()) {
                progress.insert(e.key);
            }
            self.keep_waiting(&e, &mut waiters);
            self.finish_extent(e);
        }
        for key in keys {
            self.settle(key);
            if self.segments.get(&key).is_none_or(|s| s.overlay.is_empty() && s.hollow.is_empty()) {
                self.dirty.remove(&key);
            }
        }
        progress.into_iter().for_each(|key| self.way_is_clear(key));
        self.let_go();
        self.journal.relief_due = true;
        for id in waiters.into_values().flatten() {
            self.extent_written(id, out);
        }
    }

    /// Who waits for an extent that was left out of the round waits on, as long as there is something to write.
    fn keep_waiting(&mut self, e: &RoundExtent, waiters: &mut BTreeMap<(SegmentKey, u32), Vec<u64>>) {
        let segment = self.segments.get(&e.key).filter(|s| s.life == e.life);
        let is_left_out = (e.page.is_none() || e.left_some)
            && segment.is_some_and(|s| s.overlay.extent(e.extent).is_some());
        if is_left_out && let Some(jobs) = waiters.remove(&(e.key, e.extent.0)) {
            self.postponed.entry((e.key, e.extent.0)).or_default().extend(jobs);
        }
    }

    fn finish_extent(&mut self, e: RoundExtent) {
        let slot = e.next_slot().unwrap_or(false);
        let Some(page) = e.page else { return };
        let Some(s) = self.segments.get_mut(&e.key).filter(|s| s.life == e.life) else {
            // Dropped meanwhile: what it had before is freed with it.
            if let (None, Some(number)) = (e.old, e.page_number) {
                self.pages.release(number);
            }
            e.new_location.into_iter().for_each(|l| self.extents.release(l));
            return;
        };
        let extent = e.extent;
        s.overlay.remove(extent, e.whole.unwrap_or_default(), |i, b| {
            e.taken.binary_search_by_key(&i, |t| t.0).is_ok_and(|n| {
                let (_, lsn, heal) = e.taken[n];
                b.lsn == lsn && (heal || !b.heal)
            })
        });
        let Some(number) = e.page_number else { return };
        let is_pending = s.claims(extent.0);
        let entry = ExtentEntry {
            page: number,
            slot,
            location: page.location,
            newest: page.newest(),
            present: page.present_count(),
            sequence: page.sequence,
            is_lost: false,
        };
        s.extents.insert(extent.0, entry);
        if entry.present == 0 && entry.location.is_some() && !is_pending {
            s.hollow.insert(extent.0);
        } else {
            s.hollow.remove(&extent.0);
        }
        self.cache.put(number, page);
        if e.new_location.is_some() && e.replaced.is_none() && is_pending {
            self.promised -= 1;
        }
        self.leaving.extend(e.replaced.map(|location| (e.key, e.life, location)));
        if let Some(location) = e.freed_location {
            self.leaving.push((e.key, e.life, location));
            self.promised += u64::from(is_pending);
        }
    }
}

/// What an order counts while it is with the disk.
fn cost(kind: &DiskOrderKind) -> usize {
    let bytes = match kind {
        DiskOrderKind::Read { len, .. } => *len,
        DiskOrderKind::Write { data, .. } => data.iter().map(Bytes::len).sum(),
        DiskOrderKind::Flush => 0,
    };
    bytes.max(ORDER_COST)
}

/// Takes what was only in the journal. Damage is of a block, not of the disk: put in place under the checksum that it
/// does not pass, it is like any other damaged block. A record that has left the log meanwhile, or its copy the disk, left
/// its place to others: that is no damage.
fn take_content(
    e: &mut RoundExtent,
    segment: Option<&Segment>,
    which: Range<usize>,
    data: &Bytes,
    out: &mut Vec<StoreOutput>,
) {
    for (n, (i, b)) in e.blocks[which].iter_mut().enumerate() {
        let content = data.slice(n * BLOCK_BYTES..(n + 1) * BLOCK_BYTES);
        if crc32c(&content) != b.crc && segment.is_some_and(|s| s.entry(b.lsn).is_some()) {
            let block = BlockIndex(e.extent.first_block().0 + *i);
            out.push(StoreOutput::Event(StoreEvent::DamagedContent { segment: e.key, block }));
        }
        b.content = Content::Memory(content);
    }
}

fn apply(page: &mut Page, whole: Option<Lsn>, blocks: &[(u32, OverlayBlock)]) {
    if let Some(lsn) = whole {
        for i in (0..EXTENT_BLOCKS).filter(|i| page.lsns[*i as usize] < lsn).collect::<Vec<_>>() {
            page.set(i, lsn, None);
        }
    }
    for (i, b) in blocks {
        let crc = if matches!(b.content, Content::Absent) { None } else { Some(b.crc) };
        page.set(*i, b.lsn, crc);
    }
}

/// One write for each run of adjacent blocks, up to the longest.
fn in_place_writes(start: u64, blocks: Vec<(u32, OverlayBlock)>, writes: &mut Vec<(u64, Vec<Bytes>)>) {
    let mut next = None;
    for (i, block) in blocks {
        let Content::Memory(data) = block.content else { continue };
        match writes.last_mut() {
            Some((_, run)) if next == Some(i) && run.len() < WRITE_BLOCKS => run.push(data),
            _ => writes.push((start + u64::from(i) * BLOCK_BYTES as u64, vec![data])),
        }
        next = Some(i + 1);
    }
}
