//! An open disk: its segments, and what is under way on it. Here orders come in; the journal ([`crate::batch`]),
//! reading ([`crate::read`]) and writing in place ([`crate::writeback`]) are beside it.
//!
//! An order changes the log in memory at once and queues what must become durable; its outcome follows when it
//! is. Thus orders for one segment take effect in the order given.

use crate::api::{DiskActivity, StoreConfig, StoreEvent, StoreOutput, Usage};
use crate::batch::{Completion, Journal, Queued, QueuedEntry};
use crate::format::superblock::Superblock;
use crate::pace::Pace;
use crate::pages::PageCache;
use crate::read::{Job, JobKind};
use crate::ring::{Place, Ring};
use crate::segment::Segment;
use crate::silence::Silence;
use crate::space::Slots;
use crate::writeback::Round;
use alloc::{collections::BTreeMap, collections::BTreeSet, vec::Vec};
use bytes::Bytes;
use holdfast_checksum::crc32c;
use holdfast_types::{
    BLOCK_BYTES, BlockIndex, DiskDone, DiskFault, DiskOrder, DiskOrderKind, DiskToken, ImageBlock, Lsn,
    OrderToken, SegmentKey, StoreOrder, StoreOutcome, StoreRefusal, Time,
};

/// What an order to the disk was for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// The journal batch in flight.
    Batch,
    /// A superblock.
    Superblock { hint: Place, page_limit: u32, ordered: Time },
    /// A page that jobs wait for.
    Page { key: SegmentKey, life: u64, extent: u32, sequence: u64 },
    /// Blocks for a job.
    Blocks { job: u64, read: u64 },
    /// Something of the round in progress, and what it counts there.
    Round { order: crate::writeback::RoundOrder, cost: usize },
}

/// An open disk.
#[derive(Debug)]
pub(crate) struct Disk {
    pub config: StoreConfig,
    /// As it was written last, or is being written.
    pub superblock: Superblock,
    /// Pages below this may be written: the durable superblock says so.
    pub page_limit: u32,
    pub superblock_in_flight: bool,
    pub superblock_wanted: bool,
    pub ring: Ring,
    pub journal: Journal,
    pub segments: BTreeMap<SegmentKey, Segment>,
    pub next_life: u64,
    pub extents: Slots,
    pub pages: Slots,
    /// Extents kept free for writes in the log, and for writes that are to come.
    pub promised: u64,
    /// When the first of what is kept for writes to come is given back.
    pub kept_until: Time,
    pub page_sequence: u64,
    /// Pages with a sequence up to this one are durable.
    pub pages_durable: u64,
    /// Copies, each with its life, of which it is not on the disk yet that they are incomplete since a page was lost, and the
    /// first batch that can say so. No round begins before: a later run would no more find what shows it.
    pub unrecorded: Vec<(SegmentKey, u64, u64)>,
    /// Pages that were lost when the disk was opened: they are in no use, and the next round erases what is left of them.
    pub lost_pages: Vec<u32>,
    pub cache: PageCache,
    /// What is under way, each with whether it is a read.
    pub purposes: BTreeMap<DiskToken, (Purpose, bool)>,
    pub silence: Silence,
    pub pace: Pace,
    pub next_token: u64,
    pub jobs: BTreeMap<u64, Job>,
    pub next_job: u64,
    /// Jobs that wait for an extent's page.
    pub page_waiters: BTreeMap<(SegmentKey, u32), Vec<u64>>,
    /// Jobs that wait for an extent to be written back.
    pub extent_waiters: BTreeMap<(SegmentKey, u32), Vec<u64>>,
    /// Those of them whose extent was left out of a round, until the next one that takes everything.
    pub postponed: BTreeMap<(SegmentKey, u32), Vec<u64>>,
    pub round: Option<Round>,
    /// Places that nothing needs any more, each with the copy whose records may point to it.
    pub leaving: Vec<(SegmentKey, u64, u32)>,
    /// Something was refused that such a place has room for.
    pub places_wanted: bool,
    /// Of a checkpoint: the copies, each with its life and how far it is to be in place, that are not yet.
    pub checkpoint: Vec<(SegmentKey, u64, Lsn)>,
    /// Write back: the timer fired.
    pub writeback_due: bool,
    pub last_commit: Time,
    /// Segments with something to write back.
    pub dirty: BTreeSet<SegmentKey>,
    /// The last extent that a round took.
    pub last_selected: Option<(SegmentKey, u32)>,
    /// Bytes of data in memory that logs hold.
    pub log_memory: u64,
    /// Journal bytes of records that are not committed.
    pub uncommitted: u64,
    /// Copies that had an append refused in this burst of inputs, and why.
    pub refusing: BTreeMap<SegmentKey, StoreRefusal>,
    /// Blocks of the journal that could not be read when their content was to be put in place.
    pub unreadable: u32,
    pub failed: bool,
}

impl Disk {
    /// An order to the disk; what it is for comes back with it.
    pub(crate) fn begin(&mut self, kind: DiskOrderKind, purpose: Purpose, out: &mut Vec<StoreOutput>) {
        let token = DiskToken(self.next_token);
        self.next_token += 1;
        let is_read = matches!(kind, DiskOrderKind::Read { .. });
        self.silence.ordered(is_read);
        self.purposes.insert(token, (purpose, is_read));
        out.push(StoreOutput::Disk(DiskOrder { token, kind }));
    }

    /// The segment, in the life in which something was begun for it.
    pub(crate) fn living(&mut self, key: SegmentKey, life: u64) -> Option<&mut Segment> {
        self.segments.get_mut(&key).filter(|s| s.life == life)
    }

    /// Takes an order for a segment's copy.
    pub(crate) fn order(
        &mut self,
        now: Time,
        key: SegmentKey,
        token: OrderToken,
        order: StoreOrder,
        out: &mut Vec<StoreOutput>,
    ) {
        let refusal = if self.failed {
            Some(StoreRefusal::Failed)
        } else if !self.segments.contains_key(&key) {
            Some(StoreRefusal::Unknown)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            if !matches!(order, StoreOrder::Commit { .. }) {
                refuse(key, token, refusal, out);
            }
            return;
        }
        match order {
            StoreOrder::Seal { epoch } => self.seal(key, token, epoch),
            StoreOrder::Append { cut_after, records, sealed } => {
                if let Err(refusal) = self.append(key, token, cut_after, records, sealed, out) {
                    refuse(key, token, refusal, out);
                }
            }
            StoreOrder::Commit { lsn } => self.commit(now, key, lsn),
            StoreOrder::Reset { base, sealed } => self.reset(key, token, base, sealed),
            StoreOrder::Complete { repeats } => self.complete(key, token, repeats),
            StoreOrder::Changed { since } => {
                let extents = self.changed(key, since);
                out.push(StoreOutput::Done {
                    segment: key,
                    token,
                    outcome: StoreOutcome::Changed { extents },
                });
            }
            StoreOrder::InstallImage { blocks } => self.install(key, token, blocks, out),
            StoreOrder::KeepRoom { extent, after } => {
                let kept = self.keep_room(now, key, extent.0, after);
                let outcome = match kept {
                    Ok(spare) => StoreOutcome::RoomKept { spare },
                    Err(refusal) => StoreOutcome::Refused(refusal),
                };
                out.push(StoreOutput::Done { segment: key, token, outcome });
            }
            StoreOrder::Read { range } => self.start_job(key, token, JobKind::Read { range }, out),
            StoreOrder::Status { range } => self.start_job(key, token, JobKind::status(range), out),
            StoreOrder::ReadLog { after, max_bytes } => self.read_log(key, token, after, max_bytes, out),
            StoreOrder::ReadImage { extent, since } => {
                self.start_job(key, token, JobKind::Image { extent, since }, out);
            }
            StoreOrder::Digest { extent } => {
                self.start_job(key, token, JobKind::Digest { extent, forced: false }, out);
            }
            StoreOrder::Heal { block } => {
                self.start_job(key, token, JobKind::Heal { block, placed: false }, out)
            }
        }
    }

    /// A copy's first durable order is preceded by its state.
    pub(crate) fn ensure_stated(&mut self, key: SegmentKey) {
        let Some(s) = self.segments.get_mut(&key) else { return };
        if s.stated.is_none() && !s.state_queued {
            s.state_queued = true;
            let (life, state) = (s.life, s.state(false));
            let done = Completion::State { key, life, trim: Lsn(0), hold: None };
            self.queue(key, life, QueuedEntry::State(state), Some(done));
        }
    }

    pub(crate) fn queue(&mut self, key: SegmentKey, life: u64, entry: QueuedEntry, done: Option<Completion>) {
        self.journal.normal.push_back(Queued { key, life, entry, done });
    }

    /// Takes what came of an order to the disk.
    pub(crate) fn disk_done(&mut self, now: Time, done: DiskDone, out: &mut Vec<StoreOutput>) {
        let Some((purpose, is_read)) = self.purposes.remove(&done.token) else { return };
        if self.failed {
            return;
        }
        let waited = self.silence.answered(now, is_read, out);
        if is_read {
            self.pace.read(now, waited, out);
        }
        match purpose {
            Purpose::Batch => match done.result {
                Ok(_) => self.batch_step(now, out),
                Err(fault) => self.fail(DiskActivity::Journal, Some(fault), out),
            },
            Purpose::Superblock { hint, page_limit, ordered } => match done.result {
                Ok(_) => {
                    self.pace.wrote(now, now.since(ordered), out);
                    self.superblock_in_flight = false;
                    self.ring.advance_hint(hint);
                    self.page_limit = page_limit;
                    self.advance_round(out);
                }
                Err(fault) => self.fail(DiskActivity::Superblock, Some(fault), out),
            },
            Purpose::Page { key, life, extent, sequence } => {
                self.page_read(key, life, extent, sequence, done.result, out);
            }
            Purpose::Blocks { job, read } => self.blocks_read(job, read, done.result, out),
            Purpose::Round { order, cost } => self.round_done(order, cost, done.result, out),
        }
    }

    /// The disk is failed for good: everything that waits is refused.
    pub(crate) fn fail(
        &mut self,
        activity: DiskActivity,
        fault: Option<DiskFault>,
        out: &mut Vec<StoreOutput>,
    ) {
        if self.failed {
            return;
        }
        self.failed = true;
        self.silence = Silence::default();
        out.push(StoreOutput::Event(StoreEvent::DiskFailed { activity, fault }));
        for (key, token) in self.journal.waiting_orders() {
            refuse(key, token, StoreRefusal::Failed, out);
        }
        for job in core::mem::take(&mut self.jobs).into_values() {
            if let Some(token) = job.token {
                refuse(job.key, token, StoreRefusal::Failed, out);
            }
        }
        self.journal.clear();
        self.round = None;
        self.page_waiters.clear();
        self.extent_waiters.clear();
        self.postponed.clear();
    }

    /// Starts what gathered: a batch, a superblock, a round of writing back.
    pub(crate) fn pump(&mut self, now: Time, out: &mut Vec<StoreOutput>) {
        if self.failed {
            return;
        }
        self.expire_kept(now);
        self.advance_round(out);
        self.free_places(out);
        self.relieve(out);
        self.start_round(now, out);
        self.write_batch(now, out);
        self.write_superblock(now, out);
        self.silence.burst_ended(now);
    }

    fn write_superblock(&mut self, now: Time, out: &mut Vec<StoreOutput>) {
        if !self.superblock_wanted || self.superblock_in_flight {
            return;
        }
        (self.superblock_wanted, self.superblock_in_flight) = (false, true);
        self.superblock.generation += 1;
        self.superblock.tail = self.ring.tail();
        let offset = (self.superblock.generation % 2) * BLOCK_BYTES as u64;
        let data = Bytes::from(self.superblock.encode());
        let (hint, page_limit) = (self.superblock.tail, self.superblock.page_limit);
        let kind = DiskOrderKind::Write { offset, data: alloc::vec![data], durable: true };
        self.begin(kind, Purpose::Superblock { hint, page_limit, ordered: now }, out);
    }

    /// Bytes that wait in memory to be written in place.
    pub(crate) fn dirty_bytes(&self) -> u64 {
        self.dirty.iter().filter_map(|k| self.segments.get(k)).map(|s| s.overlay.bytes).sum()
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage {
            extents_total: self.extents.total().into(),
            extents_free: u64::from(self.extents.free()) + self.leaving.len() as u64,
            extents_for_new_data: self.spare_extents(),
            pages_used: u64::from(self.pages.total() - self.pages.free()),
            journal_bytes: self.ring.capacity(),
            journal_used: self.ring.used(),
            dirty_bytes: self.dirty_bytes(),
            cached_bytes: self.cache.bytes(),
            is_silent: self.silence.is_silent(),
            is_slow: self.pace.is_slow(),
            journal: self.journal.times,
        }
    }

    /// When it has been idle for long enough to write back what it has not.
    pub(crate) fn idle_until(&self) -> Option<Time> {
        let idle = !self.failed && self.round.is_none() && !self.writeback_due && !self.dirty.is_empty();
        idle.then(|| self.last_commit + self.config.idle_writeback)
    }

    /// When to write something so that a device which was slow is seen to keep up, although nobody asks for anything.
    pub(crate) fn probe_at(&self) -> Option<Time> {
        self.pace.probe_at().filter(|_| !self.failed && self.purposes.is_empty())
    }

    /// Begins a checkpoint of what is committed now: who goes on writing does not make it longer.
    pub(crate) fn begin_checkpoint(&mut self) {
        let dirty = self.dirty.iter().filter_map(|key| Some((*key, self.segments.get(key)?)));
        self.checkpoint = dirty.map(|(key, s)| (key, s.life, s.commit.min(s.durable))).collect();
    }

    /// Forgets what of the checkpoint is in place by now, and what cannot be: it has no room, or its copy is gone.
    pub(crate) fn advance_checkpoint(&mut self) {
        let (segments, postponed) = (&self.segments, &self.postponed);
        self.checkpoint.retain(|(key, life, target)| {
            segments.get(key).is_some_and(|s| s.life == *life && s.settled < *target)
                && !postponed.keys().any(|(k, e)| k == key && !segments[k].held.contains(e))
        });
    }
}

/// Says that an order is not carried out.
pub(crate) fn refuse(
    segment: SegmentKey,
    token: OrderToken,
    refusal: StoreRefusal,
    out: &mut Vec<StoreOutput>,
) {
    out.push(StoreOutput::Done { segment, token, outcome: StoreOutcome::Refused(refusal) });
}

/// Blocks of an image whose data does not pass the checksum that came with it.
pub(crate) fn bad_image_blocks(blocks: &[ImageBlock]) -> Vec<BlockIndex> {
    let is_bad =
        |b: &&ImageBlock| b.data.as_ref().is_some_and(|d| d.len() != BLOCK_BYTES || crc32c(d) != b.crc);
    blocks.iter().filter(is_bad).map(|b| b.block).collect()
}
