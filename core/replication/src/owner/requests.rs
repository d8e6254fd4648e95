//! Requests of gateways: repeats are answered, the rest waits in order of arrival until it may become records
//! ([`super::write`]) or be read ([`super::read`]). What waits is bounded; beyond that the gateway comes again.

use super::{BlockRead, Owner, OwnerOutput, StoreUse};
use crate::message::{SegmentReply, SegmentRequest, SegmentResult};
use crate::repeats::WINDOW;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use holdfast_types::{
    BlockError, BlockReply, GatewayId, LogPosition, Lsn, NodeId, Record, RecordBody, RequestId, SECTOR_BYTES,
    SEGMENT_BYTES, SessionId, Time,
};

/// A request that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) to: NodeId,
    pub(crate) request: SegmentRequest,
    pub(crate) since: Time,
}

/// Takes out everything that waits for a record up to `lsn`.
fn take_up_to<T>(waiting: &mut BTreeMap<Lsn, Vec<T>>, lsn: Lsn) -> Vec<T> {
    let later = waiting.split_off(&lsn.next());
    core::mem::replace(waiting, later).into_values().flatten().collect()
}

/// What waits at the owner.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    queue: VecDeque<Waiting>,
    /// Writes for which there is no room yet. Everything else passes them.
    aside: VecDeque<Waiting>,
    /// All of `queue` and `aside`.
    queued: BTreeSet<RequestId>,
    /// Writes that failed: for lack of room, by what they were compared with, for what could not be read. A repeat that is
    /// on its way must not take effect after that was said.
    failed: BTreeMap<GatewayId, BTreeMap<u64, BlockError>>,
    bytes: usize,
    /// Answered when the record is committed.
    pending: BTreeMap<Lsn, Vec<(NodeId, RequestId)>>,
    /// The blocks of the first write in the queue are being read for it.
    pub(crate) merge: Option<super::write::Merge>,
    /// Since when nothing was committed although something waits.
    since: Option<Time>,
    pub(crate) stalled: bool,
}

impl Requests {
    pub(crate) fn len(&self) -> usize {
        self.queue.len() + self.aside.len() + self.pending.values().map(Vec::len).sum::<usize>()
    }
    pub(crate) fn attach(&mut self, lsn: Lsn, to: NodeId, id: RequestId) {
        let waiting = self.pending.entry(lsn).or_default();
        if !waiting.contains(&(to, id)) {
            waiting.push((to, id));
        }
    }
    pub(crate) fn take_committed(&mut self, lsn: Lsn) -> Vec<(NodeId, RequestId)> {
        take_up_to(&mut self.pending, lsn)
    }
    pub(crate) fn front(&self) -> Option<&Waiting> {
        self.queue.front()
    }
    pub(crate) fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.queue.pop_front()?;
        self.left(&waiting);
        Some(waiting)
    }
    fn left(&mut self, waiting: &Waiting) {
        self.queued.remove(&waiting.request.id);
        self.bytes -= waiting.request.op.data_bytes();
    }
    /// The first write of the queue waits for room.
    fn set_aside(&mut self) {
        self.aside.extend(self.queue.pop_front());
    }
    /// Brings back, before all others, what has room now.
    pub(crate) fn readmit(&mut self, has_room: impl Fn(&Waiting) -> bool) {
        let (back, aside) = core::mem::take(&mut self.aside).into_iter().partition(has_room);
        self.aside = aside;
        let later = core::mem::replace(&mut self.queue, back);
        self.queue.extend(later);
    }
    /// Takes out what waits for room that does not come.
    pub(crate) fn take_aside(&mut self, gone: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let (gone, aside): (VecDeque<_>, _) = core::mem::take(&mut self.aside).into_iter().partition(gone);
        self.aside = aside;
        gone.iter().for_each(|w| self.left(w));
        gone.into()
    }
    /// The request is not in the log and will not be.
    pub(crate) fn note_failed(&mut self, id: RequestId, error: BlockError) {
        let failed = self.failed.entry(id.gateway).or_default();
        failed.insert(id.seq, error);
        if failed.len() as u64 > WINDOW {
            failed.pop_first();
        }
    }
    fn failed(&self, id: RequestId) -> Option<BlockError> {
        self.failed.get(&id.gateway)?.get(&id.seq).copied()
    }
    /// No request below `low` is repeated.
    fn forget_failed(&mut self, gateway: GatewayId, low: u64) {
        if let Some(failed) = self.failed.get_mut(&gateway) {
            *failed = failed.split_off(&low);
            if failed.is_empty() {
                self.failed.remove(&gateway);
            }
        }
    }
    fn push(&mut self, waiting: Waiting) {
        self.queued.insert(waiting.request.id);
        self.bytes += waiting.request.op.data_bytes();
        self.queue.push_back(waiting);
    }
    /// The request under that id, if it waits to be ordered.
    fn queued_mut(&mut self, id: RequestId) -> Option<&mut Waiting> {
        // The set answers for nearly every request; only a repeat is looked for.
        if !self.queued.contains(&id) {
            return None;
        }
        self.queue.iter_mut().chain(&mut self.aside).find(|w| w.request.id == id)
    }
    /// Something was committed, or nothing waits.
    pub(crate) fn progress(&mut self, now: Time) {
        self.since = (self.len() > 0).then_some(now);
    }
}

/// Fences that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Fences {
    /// Asked for before this owner served.
    wanted: Vec<(GatewayId, Option<SessionId>, u64)>,
    pending: BTreeMap<Lsn, Vec<u64>>,
}

impl Fences {
    pub(crate) fn take_committed(&mut self, lsn: Lsn) -> Vec<u64> {
        take_up_to(&mut self.pending, lsn)
    }
}

impl Owner {
    pub(super) fn reply(
        &mut self,
        to: NodeId,
        id: RequestId,
        result: SegmentResult,
        out: &mut Vec<OwnerOutput>,
    ) {
        let reply = SegmentReply { id, segment: self.key, epoch: self.epoch, result };
        out.push(OwnerOutput::Reply { to, reply });
    }

    pub(super) fn take_request(
        &mut self,
        now: Time,
        from: NodeId,
        request: SegmentRequest,
        out: &mut Vec<OwnerOutput>,
    ) {
        let id = request.id;
        if self.ended() || request.segment != self.key {
            return self.reply(from, id, SegmentResult::NotOwner, out);
        }
        let (offset, len) = request.op.span();
        let sector = SECTOR_BYTES as u64;
        let valid = offset.is_multiple_of(sector)
            && len.is_multiple_of(sector)
            && len > 0
            && offset <= SEGMENT_BYTES
            && len <= SEGMENT_BYTES - offset;
        if !valid {
            return self.reply(from, id, SegmentResult::Failed(BlockError::Invalid), out);
        }
        if let Some(waiting) = self.requests.queued_mut(id) {
            waiting.to = from;
            return;
        }
        match self.requests.failed(id) {
            // Said only once it is proved, as the first time.
            Some(BlockError::Miscompare { at }) => return self.prove_miscompare(now, from, id, at, out),
            Some(error) => return self.reply(from, id, SegmentResult::Failed(error), out),
            None => {}
        }
        let full = self.requests.queued.len() >= self.config.queued_requests
            || self.requests.bytes + request.op.data_bytes() > self.config.queued_bytes;
        if full {
            return self.reply(from, id, SegmentResult::Busy, out);
        }
        self.repeats.raise_low(id.gateway, request.low);
        self.requests.forget_failed(id.gateway, request.low);
        let waiting = Waiting { to: from, request, since: now };
        if waiting.request.op.is_read() && self.active() {
            return self.read_request(now, waiting, out);
        }
        self.requests.since.get_or_insert(now);
        self.requests.push(waiting);
        self.advance(now, out);
    }

    /// Turns what waits into records, in order, as far as it goes.
    pub(super) fn advance(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        while self.active() && self.requests.merge.is_none() {
            self.readmit();
            let Some(front) = self.requests.front() else { break };
            if front.request.op.is_read() {
                if let Some(waiting) = self.requests.pop() {
                    self.read_request(now, waiting, out);
                }
                continue;
            }
            let (id, session, to) = (front.request.id, front.request.session, front.to);
            if let Some(lsn) = self.repeats.done(id) {
                self.requests.pop();
                if lsn <= self.commit {
                    self.reply(to, id, SegmentResult::Ok(BlockReply::Done), out);
                } else {
                    self.requests.attach(lsn, to, id);
                }
                continue;
            }
            if let Some(fence) = self.repeats.fenced(id.gateway, Some(session)) {
                if fence.lsn > self.commit {
                    break;
                }
                self.requests.pop();
                let result = match fence.whole_gateway {
                    true => SegmentResult::Fenced,
                    false => SegmentResult::Failed(BlockError::Fenced),
                };
                self.reply(to, id, result, out);
                continue;
            }
            if id.seq < self.repeats.low(id.gateway) {
                // Its gateway has its answer, or has no use for one any more.
                self.requests.pop();
                continue;
            }
            let uncommitted = self.log.last().lsn.0 - self.commit.0;
            if self.set.len() < self.min_copies
                || uncommitted >= self.config.in_flight_records as u64
                || self.log.bytes_after(self.commit) >= self.config.in_flight_bytes
            {
                break;
            }
            let needed = super::room::needs(&front.request.op);
            if !self.has_room(now, needed, out) {
                self.requests.set_aside();
                continue;
            }
            if !self.order_front(now, out) {
                break;
            }
        }
        if self.requests.len() == 0 {
            self.requests.since = None;
        }
    }

    /// Adds a record to the log.
    pub(super) fn append_record(
        &mut self,
        now: Time,
        body: RecordBody,
        request: Option<holdfast_types::RequestTag>,
    ) -> Lsn {
        let position = LogPosition { epoch: self.epoch, lsn: self.log.last().lsn.next() };
        let record = Record { position, body, request };
        self.repeats.note(&record);
        self.rooms.ordered(now, &record.body);
        self.log.push(now, record);
        position.lsn
    }

    /// The gateways for which `dead` holds and that have or may yet get something into this log.
    pub fn unfenced(&self, dead: impl Fn(GatewayId) -> bool) -> BTreeSet<GatewayId> {
        let queued = self.requests.queue.iter().chain(&self.requests.aside);
        let waiting = queued.map(|w| w.request.id.gateway);
        let known = waiting.chain(self.repeats.gateways());
        known.filter(|g| dead(*g) && self.repeats.fenced(*g, None).is_none()).collect()
    }

    /// Puts a fence into the log: of one session, or of a whole gateway. What it fences and is not in the log by
    /// then never will be.
    pub fn fence(
        &mut self,
        now: Time,
        gateway: GatewayId,
        session: Option<SessionId>,
        number: u64,
        out: &mut Vec<OwnerOutput>,
    ) {
        if self.ended() {
            return;
        }
        self.fences.wanted.push((gateway, session, number));
        if self.active() {
            self.begin_fences(now, out);
        }
    }

    pub(super) fn begin_fences(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        for (gateway, session, number) in core::mem::take(&mut self.fences.wanted) {
            let lsn = match self.repeats.fenced(gateway, session) {
                Some(fence) => fence.lsn,
                None => self.append_record(now, RecordBody::Fence { gateway, session }, None),
            };
            match lsn > self.commit {
                true => self.fences.pending.entry(lsn).or_default().push(number),
                false => out.push(OwnerOutput::Fenced { number }),
            }
        }
    }

    /// Another grant came: everything that waits is asked again at the next owner. Each gets a word, for its gateway may
    /// have known of the grant before this node did, and have sent it here after that.
    pub(super) fn fail_all_requests(&mut self, out: &mut Vec<OwnerOutput>) {
        let mut waiting: Vec<(NodeId, RequestId)> = Vec::new();
        while let Some(w) = self.requests.pop() {
            waiting.push((w.to, w.request.id));
        }
        waiting.extend(self.requests.take_aside(|_| true).iter().map(|w| (w.to, w.request.id)));
        waiting.extend(self.requests.take_committed(Lsn(u64::MAX - 1)));
        waiting.extend(self.reads.take_all());
        let at_the_store = self.store_uses.values().filter_map(|used| match used {
            StoreUse::Read(read) => read.asked_by(),
            _ => None,
        });
        waiting.extend(at_the_store);
        waiting.extend(self.repairs.take_reads().iter().filter_map(BlockRead::asked_by));
        self.requests.merge = None;
        for (to, id) in waiting {
            self.reply(to, id, SegmentResult::NotOwner, out);
        }
    }

    pub(super) fn stall_timer(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let Some(since) = self.requests.since else {
            if core::mem::take(&mut self.requests.stalled) {
                self.event(crate::event::ReplicationEvent::Resumed, out);
            }
            return;
        };
        let waited = now.since(since);
        if waited >= self.config.stall && !self.requests.stalled {
            self.requests.stalled = true;
            let requests = self.requests.len() as u64;
            self.event(crate::event::ReplicationEvent::Stalled { requests, since: waited }, out);
        } else if waited < self.config.stall && core::mem::take(&mut self.requests.stalled) {
            self.event(crate::event::ReplicationEvent::Resumed, out);
        }
    }

    pub(super) fn stall_timer_at(&self) -> Option<Time> {
        match (self.requests.since, self.requests.stalled) {
            (Some(since), false) => Some(since + self.config.stall),
            _ => None,
        }
    }
}
