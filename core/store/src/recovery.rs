//! Opening a disk. From the batch that the superblock names on, batches are followed by their numbers; the first
//! one that is not whole ends the log. As only one batch is ever in flight, a batch with a higher number after that
//! one is proof that it was whole once, and is damaged now. Where the damage is in data of records that are known to
//! be committed, the log goes on behind it: their blocks are damaged, and other copies have them. Any other damage makes
//! the copies of the disk worthless. Then the pages are read, and what the log says is put on top.
//!
//! A page that does not pass its checksum was either being written when the last run ended, and the log has what it
//! was to say, or was durable and is damaged now, and nothing else knows where its blocks are (`twins.rs`). A torn page is
//! mended; one that is damaged makes its copy incomplete, which the owner mends like any other copy that lacks something.
//!
//! A block that cannot be read is a damaged one (`apart.rs`).
//!
//! Before the disk counts as open, an empty batch overwrites what a torn one left, and a superblock takes the
//! new boot nonce. Limit: damage to the very last batch cannot be told from a torn write; the replicas notice
//! that records are missing (replication.md H20).

use crate::apart::{Read, Reads, UNREADABLE_PAGES_MOST};
use crate::api::{DiskExpected, DiskIdentity, OpenError, OpenReport, StoreConfig, StoreOutput};
use crate::disk::Disk;
use crate::format::journal::{Batch, BatchHeader, decode_batch, encode_batch, is_whole};
use crate::format::superblock::{self, Superblock, SuperblockError};
use crate::layout::{BLOCK, PAGE_BYTES, layout};
use crate::replay::{Found, FoundPages, Replay};
use crate::ring::{Place, Ring};
use crate::select::ROUND_EXTENTS;
use crate::silence::Silence;
use crate::slot::ZEROS;
use crate::twins::{Mend, judge};
use alloc::{vec, vec::Vec};
use bytes::Bytes;
use holdfast_types::{BLOCK_BYTES, DiskDone, DiskFault, DiskOrder, DiskOrderKind, DiskToken, Time};

/// How much is read at once.
const CHUNK: u64 = 1 << 20;
/// How far behind the log's end a later batch is looked for: several times the longest batch.
const PROOF_WINDOW: u64 = 32 << 20;
/// Slots of pages that are mended with what the other slot has, at most: a round of writing back tears no more.
const COPIES_MOST: usize = 2 * ROUND_EXTENTS;

/// What is being done.
#[derive(Debug)]
enum Stage {
    Superblocks,
    /// Following the journal. `from_start`: the expected batch was not where the last one ended, and is looked
    /// for at the ring's start.
    Walk {
        from_start: bool,
    },
    /// Checking data of the last batch that lies outside it; the next piece.
    Verify {
        next: usize,
    },
    /// Looking for a later batch, from byte `at` of the window on.
    Prove {
        at: u64,
    },
    /// Reading pages from this one on.
    Pages {
        next: u32,
    },
    /// Mending slots of pages.
    Mend,
    /// Writing the empty batch.
    Batch,
    /// Writing superblocks; how many are left after this one.
    Superblock {
        left: u32,
    },
    Over,
}

/// What came of a step.
pub(crate) enum Progress {
    Going,
    Failed(OpenError),
    Open(alloc::boxed::Box<Disk>, OpenReport),
}

/// The state of following the journal before a batch.
#[derive(Debug)]
struct BeforeBatch {
    expected: Place,
    tail: u64,
    pages_durable: u64,
}

/// A disk that is being opened or formatted.
#[derive(Debug)]
pub(crate) struct Recovery {
    size: u64,
    expect: Option<DiskExpected>,
    boot_nonce: u64,
    config: StoreConfig,
    stage: Stage,
    /// Of the one order that is under way, and whether that is a read.
    token: u64,
    is_read: bool,
    reads: Reads,
    page_reads: Reads,
    pub(crate) silence: Silence,
    superblock: Option<Superblock>,
    previous_boot_nonce: u64,
    expected: Place,
    ring: Option<Ring>,
    buffer_at: u64,
    buffer: Bytes,
    torn: bool,
    /// Batches, each with where its data starts.
    batches: Vec<(Place, u64, Batch)>,
    /// What was known before the last batch.
    before_last: Option<BeforeBatch>,
    /// The batch that ends the log, if it is only its data that is not whole.
    not_whole: Option<(BatchHeader, Batch)>,
    tail: u64,
    pages: FoundPages,
    /// Slots of pages that are to be mended: where, and with what.
    mends: Vec<(u64, Bytes)>,
    /// The device has grown: how much of it was used before.
    grown_from: Option<u64>,
    /// A superblock is not of the version that is written.
    is_renewed: bool,
}

impl Recovery {
    /// Begins to open.
    pub(crate) fn open(
        size: u64,
        expect: DiskExpected,
        boot_nonce: u64,
        config: StoreConfig,
        out: &mut Vec<StoreOutput>,
    ) -> Self {
        let mut r = Self::new(size, Some(expect), boot_nonce, config);
        r.read(0, 2 * BLOCK, out);
        r
    }

    /// Begins to format.
    pub(crate) fn format(
        size: u64,
        identity: DiskIdentity,
        config: StoreConfig,
        out: &mut Vec<StoreOutput>,
    ) -> Result<Self, OpenError> {
        let layout = layout(size, &config).map_err(OpenError::Format)?;
        let mut r = Self::new(size, None, identity.boot_nonce, config);
        let tail = Place { sequence: 1, offset: layout.journal.start };
        r.previous_boot_nonce = identity.boot_nonce;
        r.ring = Some(Ring::new(layout.journal.clone(), tail));
        r.superblock = Some(Superblock {
            generation: 0,
            identity,
            format_nonce: identity.boot_nonce,
            layout,
            page_limit: 0,
            tail,
            has_twins: true,
        });
        r.write_batch(out);
        Ok(r)
    }

    fn new(size: u64, expect: Option<DiskExpected>, boot_nonce: u64, config: StoreConfig) -> Self {
        Self {
            size,
            expect,
            boot_nonce,
            config,
            stage: Stage::Superblocks,
            token: 0,
            is_read: false,
            reads: Reads::new(1),
            page_reads: Reads::new(UNREADABLE_PAGES_MOST),
            silence: Silence::default(),
            superblock: None,
            previous_boot_nonce: 0,
            expected: Place { sequence: 0, offset: 0 },
            ring: None,
            buffer_at: 0,
            buffer: Bytes::new(),
            torn: false,
            batches: Vec::new(),
            before_last: None,
            not_whole: None,
            tail: 0,
            pages: FoundPages::default(),
            mends: Vec::new(),
            grown_from: None,
            is_renewed: false,
        }
    }

    /// Who the disk is, once that is known.
    pub(crate) fn identity(&self) -> Option<DiskIdentity> {
        self.superblock.as_ref().map(|s| s.identity)
    }

    fn order(&mut self, kind: DiskOrderKind, out: &mut Vec<StoreOutput>) {
        self.token += 1;
        self.is_read = matches!(kind, DiskOrderKind::Read { .. });
        self.silence.ordered(self.is_read);
        out.push(StoreOutput::Disk(DiskOrder { token: DiskToken(self.token), kind }));
    }
    fn read(&mut self, offset: u64, len: u64, out: &mut Vec<StoreOutput>) {
        self.buffer_at = offset;
        self.reads_now().begin(offset, len);
        self.order(DiskOrderKind::Read { offset, len: len as usize }, out);
    }

    /// Pages have a limit of their own: what cannot be read of them hides no batch of the journal.
    fn reads_now(&mut self) -> &mut Reads {
        match self.stage {
            Stage::Pages { .. } => &mut self.page_reads,
            _ => &mut self.reads,
        }
    }

    /// Takes what came of the order.
    pub(crate) fn disk_done(&mut self, now: Time, done: DiskDone, out: &mut Vec<StoreOutput>) -> Progress {
        if done.token != DiskToken(self.token) {
            return Progress::Going;
        }
        self.silence.answered(now, self.is_read, out);
        let read =
            if self.is_read { self.reads_now().done(done.result) } else { done.result.map(Read::Whole) };
        let data = match read {
            Ok(Read::Whole(data)) => data,
            Ok(Read::Next(offset, len)) => {
                self.order(DiskOrderKind::Read { offset, len: len as usize }, out);
                return Progress::Going;
            }
            Err(fault) => return Progress::Failed(OpenError::Io(fault)),
        };
        let step = match self.stage {
            Stage::Superblocks => self.superblocks_read(&data, out),
            Stage::Walk { .. } => {
                self.buffer = data;
                self.walk(out)
            }
            Stage::Verify { next } => self.verified(next, &data, out),
            Stage::Prove { at } => self.prove(at, &data, out),
            Stage::Pages { next } => self.pages_read(next, &data, out),
            Stage::Mend => {
                self.mend(out);
                Ok(())
            }
            Stage::Batch => {
                self.write_superblocks(out);
                Ok(())
            }
            Stage::Superblock { left: 0 } => return self.finish(out),
            Stage::Superblock { left } => {
                self.write_superblock(left - 1, out);
                Ok(())
            }
            Stage::Over => Ok(()),
        };
        match step {
            Ok(()) => Progress::Going,
            Err(error) => Progress::Failed(error),
        }
    }

    fn superblocks_read(&mut self, data: &Bytes, out: &mut Vec<StoreOutput>) -> Result<(), OpenError> {
        let Some((a, b)) = data.split_at_checked(BLOCK_BYTES) else {
            return Err(OpenError::Io(DiskFault::Short));
        };
        let both = [Superblock::decode(a), Superblock::decode(b)];
        // Also when the other one is known: it is older.
        let newer = both.iter().find_map(|s| match s {
            Err(SuperblockError::Version(v)) => Some(*v),
            _ => None,
        });
        if let Some(found) = newer {
            return Err(OpenError::UnknownVersion { found, known: superblock::VERSION });
        }
        let best = both.iter().filter_map(|s| s.as_ref().ok()).max_by_key(|s| s.generation).cloned();
        let Some(mut superblock) = best else {
            if let Some((_, fault)) = self.reads.unreadable().first() {
                return Err(OpenError::Io(*fault));
            }
            let damaged = both.iter().any(|s| *s != Err(SuperblockError::Blank));
            return Err(OpenError::NotHoldfast { damaged });
        };
        self.is_renewed = ![a, b].into_iter().all(Superblock::is_current);
        let found = superblock.identity;
        if let Some(DiskExpected { cluster, node, disk }) = self.expect {
            if found.cluster != cluster {
                return Err(OpenError::OtherCluster { expected: cluster, found: found.cluster });
            }
            if found.node != node {
                return Err(OpenError::OtherNode { expected: node, found: found.node });
            }
            if found.disk != disk {
                return Err(OpenError::OtherDisk { expected: disk, found: found.disk });
            }
        }
        if self.size < superblock.layout.size {
            return Err(OpenError::Truncated { expected: superblock.layout.size, found: self.size });
        }
        // What is new is used only once both superblocks tell of it: from here to there nothing is placed.
        let used = superblock.layout.size;
        self.grown_from = superblock.layout.grow(self.size).then_some(used);
        self.expected = superblock.tail;
        self.ring = Some(Ring::new(superblock.layout.journal.clone(), superblock.tail));
        self.previous_boot_nonce = found.boot_nonce;
        self.superblock = Some(superblock);
        self.stage = Stage::Walk { from_start: false };
        self.walk(out)
    }

    /// The part of the buffer from byte `offset` of the disk on.
    fn buffered(&self, offset: u64, len: u64) -> Option<Bytes> {
        let at = usize::try_from(offset.checked_sub(self.buffer_at)?).ok()?;
        let end = at.checked_add(len as usize)?;
        (end <= self.buffer.len()).then(|| self.buffer.slice(at..end))
    }

    /// Follows the batches as far as the buffer goes.
    fn walk(&mut self, out: &mut Vec<StoreOutput>) -> Result<(), OpenError> {
        loop {
            let Some(superblock) = &self.superblock else { return Ok(()) };
            let (journal, nonce) = (superblock.layout.journal.clone(), superblock.format_nonce);
            let from_start = matches!(self.stage, Stage::Walk { from_start: true });
            let at = if from_start { journal.start } else { self.expected.offset };
            let Some(block) = self.buffered(at, BLOCK) else {
                self.read(at, CHUNK.min(journal.end - at), out);
                return Ok(());
            };
            let header = BatchHeader::peek(&block, nonce).filter(|h| {
                h.sequence == self.expected.sequence && h.offset == at && h.bytes() <= journal.end - at
            });
            let mut batch = None;
            if let Some(h) = &header {
                let Some(bytes) = self.buffered(at, h.bytes()) else {
                    self.read(at, h.bytes().max(CHUNK).min(journal.end - at), out);
                    return Ok(());
                };
                batch = decode_batch(h, &bytes);
            }
            match (header, batch) {
                (Some(h), Some(batch)) if batch.damaged.is_empty() => {
                    self.take_batch(h, batch);
                    continue;
                }
                (Some(h), Some(batch)) => self.not_whole = Some((h, batch)),
                _ => {}
            }
            self.torn |= header.is_some();
            if !from_start && at != journal.start {
                self.stage = Stage::Walk { from_start: true };
            } else {
                return self.log_ends(out);
            }
        }
    }

    fn take_batch(&mut self, header: BatchHeader, batch: Batch) {
        let Some(ring) = &mut self.ring else { return };
        let place = Place { sequence: header.sequence, offset: header.offset };
        let (expected, tail, pages_durable) = (self.expected, self.tail, self.pages.durable);
        self.before_last = Some(BeforeBatch { expected, tail, pages_durable });
        ring.take(place, header.bytes());
        ring.tells_of(batch.elsewhere().map(|(_, w)| w.range.bytes() as u64).sum());
        self.expected = ring.next();
        self.tail = header.tail.sequence;
        self.pages.durable = self.pages.durable.max(header.pages);
        self.batches.push((place, place.offset + u64::from(header.header_blocks) * BLOCK, batch));
        (self.torn, self.not_whole) = (false, None);
        self.stage = Stage::Walk { from_start: false };
    }

    /// The batch that seemed to end the log was durable: what is not whole of it is damaged.
    fn is_damaged(&mut self, out: &mut Vec<StoreOutput>) -> Result<(), OpenError> {
        let Some((header, batch)) = self.not_whole.take() else { return Err(self.corrupt(self.expected)) };
        self.take_batch(header, batch);
        self.walk(out)
    }

    fn log_ends(&mut self, out: &mut Vec<StoreOutput>) -> Result<(), OpenError> {
        if self.batches.is_empty() {
            // The batch that the superblock names was durable before the superblock was.
            return self.is_damaged(out);
        }
        self.buffer = Bytes::new();
        // The next one is written only when this one is durable, with all of its data; and so is the superblock that names it.
        if self.torn || self.batches.len() == 1 { self.look_for_proof(out) } else { self.verify(0, out) }
    }

    /// Reads a piece of data that the last batch has elsewhere.
    fn verify(&mut self, next: usize, out: &mut Vec<StoreOutput>) -> Result<(), OpenError> {
        let piece = self.batches.last().and_then(|(.., batch)| batch.elsewhere().nth(next));
        let Some((at, w)) = piece else { return self.look_for_proof(out) };
        let len = w.range.bytes() as u64;
        self.stage = Stage::Verify { next };
        self.read(at, len, out);
        Ok(())
    }

    /// A piece was read. One that is not whole was being written, with its batch.
    fn verified(&mut self, next: usize, data: &Bytes, out: &mut Vec<StoreOutput>) -> Result<(), OpenError> {
        let piece = self.batches.last().and_then(|(.., batch)| batch.elsewhere().nth(next));
        if piece.is_some_and(|(_, w)| is_whole(w, data)) {
            return self.verify(next + 1, out);
        }
        if let (Some(before), Some(ring)) = (self.before_last.take(), &mut self.ring) {
            self.batches.pop();
            ring.give_back(before.expected);
            (self.expected, self.tail, self.pages.durable) =
                (before.expected, before.tail, before.pages_durable);
            self.torn = true;
        }
        self.look_for_proof(out)
    }

    fn look_for_proof(&mut self, out: &mut Vec<StoreOutput>) -> Result<(), OpenError> {
        self.stage = Stage::Prove { at: 0 };
        self.read_window(0, out)
    }

    fn corrupt(&self, at: Place) -> OpenError {
        OpenError::JournalCorrupt { sequence: at.sequence, offset: at.offset }
    }

    /// Reads the next part of the window behind the log's end, or goes on to the pages.
    fn read_window(&mut self, at: u64, out: &mut Vec<StoreOutput>) -> Result<(), OpenError> {
        let Some(superblock) = &self.superblock else { return Ok(()) };
        let journal = superblock.layout.journal.clone();
        let capacity = journal.end - journal.start;
        if at >= PROOF_WINDOW.min(capacity) {
            self.stage = Stage::Pages { next: 0 };
            return self.read_pages(0, out);
        }
        let offset = journal.start + (self.expected.offset - journal.start + at) % capacity;
        self.stage = Stage::Prove { at };
        self.read(offset, CHUNK.min(journal.end - offset), out);
        Ok(())
    }

    fn prove(&mut self, at: u64, data: &Bytes, out: &mut Vec<StoreOutput>) -> Result<(), OpenError> {
        let Some(superblock) = &self.superblock else { return Ok(()) };
        let nonce = superblock.format_nonce;
        for (n, block) in data.chunks_exact(BLOCK_BYTES).enumerate() {
            let offset = self.buffer_at + n as u64 * BLOCK;
            let later = BatchHeader::peek(block, nonce)
                .filter(|h| h.offset == offset && h.sequence > self.expected.sequence)
                .is_some_and(|h| h.header_holds(&data[n * BLOCK_BYTES..]));
            if later {
                return self.is_damaged(out);
            }
        }
        self.read_window(at + data.len() as u64, out)
    }

    fn read_pages(&mut self, next: u32, out: &mut Vec<StoreOutput>) -> Result<(), OpenError> {
        let Some(superblock) = &self.superblock else { return Ok(()) };
        if next >= superblock.page_limit {
            self.mend(out);
            return Ok(());
        }
        let (offset, run) = superblock.layout.page_place(next);
        let count = (CHUNK / PAGE_BYTES).min(u64::from(superblock.page_limit - next)).min(run);
        self.stage = Stage::Pages { next };
        self.read(offset, count * PAGE_BYTES, out);
        Ok(())
    }

    fn pages_read(&mut self, next: u32, data: &Bytes, out: &mut Vec<StoreOutput>) -> Result<(), OpenError> {
        let Some(superblock) = &self.superblock else { return Ok(()) };
        let (nonce, has_twins) = (superblock.format_nonce, superblock.has_twins);
        let mut number = next;
        for both in data.chunks_exact(PAGE_BYTES as usize) {
            let slots = both.split_at(BLOCK_BYTES);
            let place = |slot: bool| superblock.layout.page_offset(number, slot);
            let fault = |slot| self.page_reads.unreadable().iter().find(|(at, _)| *at == place(slot));
            let (first, second) = (fault(false), fault(true));
            let pair = [(slots.0, first.is_some()), (slots.1, second.is_some())];
            let judged = judge(pair, nonce, self.pages.durable, has_twins);
            if let (true, Some((_, fault))) = (judged.is_in_doubt, first.or(second)) {
                return Err(OpenError::Io(*fault));
            }
            self.pages.newest = self.pages.newest.max(judged.newest);
            self.pages.lost.extend(judged.lost.into_iter().map(|lost| (number, lost)));
            for (slot, mend) in judged.mends {
                let other = if slot { slots.0 } else { slots.1 };
                let content = match mend {
                    Mend::Copy if self.mends.len() < COPIES_MOST => Bytes::copy_from_slice(other),
                    Mend::Copy | Mend::Erase => Bytes::from_static(&ZEROS[..BLOCK_BYTES]),
                };
                self.mends.push((place(slot), content));
            }
            if let Some((slot, page)) = judged.found {
                self.pages.found.push(Found::new(number, slot, &page));
            }
            number += 1;
        }
        if number == next {
            return Err(OpenError::Io(DiskFault::Short));
        }
        self.read_pages(number, out)
    }

    /// Mends the next slot, or goes on to the batch.
    fn mend(&mut self, out: &mut Vec<StoreOutput>) {
        let Some((offset, content)) = self.mends.pop() else { return self.write_batch(out) };
        self.stage = Stage::Mend;
        self.order(DiskOrderKind::Write { offset, data: vec![content], durable: true }, out);
    }

    /// Writes an empty batch where the log ends.
    fn write_batch(&mut self, out: &mut Vec<StoreOutput>) {
        self.stage = Stage::Batch;
        let (Some(superblock), Some(ring)) = (&self.superblock, &mut self.ring) else { return };
        ring.advance_tail(self.tail);
        let Some(place) = ring.place(BLOCK) else {
            // A ring without room for a block has none for what a torn batch could have left.
            return self.write_superblocks(out);
        };
        let tail = if self.batches.is_empty() { place } else { ring.tail() };
        let batch = encode_batch(superblock.format_nonce, place, tail, self.pages.durable, &[], 0, 0);
        ring.take(place, BLOCK);
        let kind =
            DiskOrderKind::Write { offset: place.offset, data: vec![Bytes::from(batch)], durable: true };
        self.order(kind, out);
    }

    /// Both when the layout or the version is new: were one lost later, the other must know it too.
    fn write_superblocks(&mut self, out: &mut Vec<StoreOutput>) {
        let both = self.expect.is_none() || self.grown_from.is_some() || self.is_renewed;
        self.write_superblock(u32::from(both), out);
    }

    fn write_superblock(&mut self, left: u32, out: &mut Vec<StoreOutput>) {
        self.stage = Stage::Superblock { left };
        let (Some(superblock), Some(ring)) = (&mut self.superblock, &self.ring) else { return };
        superblock.generation += 1;
        superblock.identity.boot_nonce = self.boot_nonce;
        superblock.tail = ring.tail();
        let offset = (superblock.generation % 2) * BLOCK;
        let data = vec![Bytes::from(superblock.encode())];
        self.order(DiskOrderKind::Write { offset, data, durable: true }, out);
    }

    fn finish(&mut self, out: &mut Vec<StoreOutput>) -> Progress {
        self.stage = Stage::Over;
        let (Some(superblock), Some(mut ring)) = (self.superblock.take(), self.ring.take()) else {
            return Progress::Going;
        };
        ring.advance_hint(superblock.tail);
        let identity = superblock.identity;
        let mut replay = Replay::default();
        let mut damaged = Vec::new();
        for (place, data, batch) in core::mem::take(&mut self.batches) {
            if place.sequence >= self.tail {
                replay.batch(place, data, batch.entries);
                damaged.extend(batch.damaged.into_iter().map(|(key, position)| (key, position, place)));
            }
        }
        let records_replayed = replay.records;
        let Some(segments) = replay.finish() else { return Progress::Failed(self.corrupt(self.expected)) };
        if let Some((.., place)) =
            damaged.into_iter().find(|(key, at, place)| segments.needs(*key, *at, *place))
        {
            return Progress::Failed(self.corrupt(place));
        }
        let pages = core::mem::take(&mut self.pages);
        let unreadable = self.reads.unreadable().iter().chain(self.page_reads.unreadable());
        let unreadable = unreadable.map(|(at, _)| *at).collect();
        let disk = Disk::opened(self.config, superblock, ring, segments, pages, self.token, out);
        let report = OpenReport {
            identity,
            previous_boot_nonce: self.previous_boot_nonce,
            records_replayed,
            torn_tail_cut: self.torn,
            segments: disk.segments.keys().copied().collect(),
            grown_from: self.grown_from,
            unreadable,
        };
        Progress::Open(alloc::boxed::Box::new(disk), report)
    }
}
