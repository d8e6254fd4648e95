//! The gateway: carries initiators' requests to the owners of the segments, and waits.
//!
//! A request to a volume is cut into parts, one to a segment ([`split`]). Each part has a [`RequestId`] that it
//! keeps through every repeat, so that it takes effect at most once (replication.md H12). A part is sent to the
//! segment's owner, and again whenever that owner may have lost it: another grant, a lost link, an answer
//! "not the owner". Nothing here gives up: with no owner to send to, parts wait (rule 1 of the project). What is
//! bounded is how much may wait: the sessions stop reading from their initiators at their limit.
//!
//! Parts for one segment are sent in the order in which they came. The numbers of writes are bounded to a span,
//! because owners remember them; reads are numbered apart, so that no write that waits holds them up.

pub mod flush;
pub mod split;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use flush::Flushes;
use holdfast_replication::{SegmentOp, SegmentReply, SegmentRequest, SegmentResult};
use holdfast_types::{
    BlockError, BlockRequest, BlockResult, Duration, Epoch, GatewayId, NodeId, ProcessIncarnation, RequestId,
    SegmentId, SegmentKey, SessionId, Time, VolumeId,
};

/// How long a part waits after "not the owner" or "busy" before it is sent again, unless the map changes first.
const RETRY_AFTER: Duration = Duration::from_millis(10);
/// How long a part may be unanswered before it is sent again although its owner did not change. A repeat of a
/// part that still waits at its owner does no harm.
const RESEND_AFTER: Duration = Duration::from_secs(5);
/// The widest span between the lowest unanswered number and the highest one sent, per segment. Owners keep no
/// more of a gateway's repeats than their window, which is wider.
const SPAN: u64 = 512;
/// Reads have numbers from here on. No owner remembers them.
const READS: u64 = 1 << 63;

/// Where a segment's requests go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The node that owns the segment, or is about to.
    pub owner: NodeId,
    /// In which epoch.
    pub epoch: Epoch,
}

/// What the gateway wants done.
#[derive(Debug)]
pub enum Action {
    /// Send to the owner.
    Send {
        /// The owner's node.
        to: NodeId,
        /// What.
        request: SegmentRequest,
    },
    /// Ask control for a new number: this one is fenced.
    Renew,
    /// The session's initiator goes on elsewhere, and what it still has here is fenced.
    Moved(SessionId),
    /// Answer the session.
    Complete {
        /// Which.
        session: SessionId,
        /// The tag that the session gave.
        tag: u64,
        /// The answer.
        result: BlockResult,
    },
}

/// See the module's text.
#[derive(Debug)]
pub struct Gateway {
    id: GatewayId,
    started: bool,
    links: BTreeSet<NodeId>,
    requests: BTreeMap<u64, Request>,
    next_request: u64,
    queues: BTreeMap<SegmentKey, Queue>,
    flushes: BTreeMap<SessionId, Flushes>,
    /// Sessions whose requests get no number yet: their earlier nexus is still being fenced.
    held: BTreeSet<SessionId>,
    /// When to look again at what was sent or refused; never later than needed.
    wake: Option<Time>,
}

#[derive(Debug)]
struct Request {
    session: SessionId,
    tag: u64,
    write: bool,
    /// By part; None: not answered.
    results: Vec<Option<BlockResult>>,
    left: usize,
}

#[derive(Debug, Default)]
struct Queue {
    route: Option<Route>,
    next_seq: u64,
    /// How many reads had a number of this run.
    reads: u64,
    /// Parts that have a number, sent or to be sent, in the order of their numbers.
    parts: BTreeMap<RequestId, Part>,
    /// Parts that wait for a number.
    waiting: VecDeque<Part>,
    /// Of `parts`, those that are to be sent (again).
    unsent: BTreeSet<RequestId>,
}

#[derive(Debug)]
struct Part {
    request: u64,
    index: usize,
    session: SessionId,
    op: SegmentOp,
    /// To whom and when it was sent last.
    sent: Option<(Route, Time)>,
    not_before: Time,
}

impl Queue {
    /// The next number for a part.
    fn number(&mut self, read: bool) -> u64 {
        let (base, count) = if read { (READS, &mut self.reads) } else { (0, &mut self.next_seq) };
        *count += 1;
        base + *count
    }
}

impl Gateway {
    /// A gateway that sends nothing until control has numbered its run.
    pub fn new(node: NodeId) -> Self {
        Self {
            id: GatewayId { node, incarnation: ProcessIncarnation(0) },
            started: false,
            links: BTreeSet::from([node]),
            requests: BTreeMap::new(),
            next_request: 1,
            queues: BTreeMap::new(),
            flushes: BTreeMap::new(),
            held: BTreeSet::new(),
            wake: None,
        }
    }

    /// Control numbered this run, or gave a fenced gateway a new number. Parts that were sent keep their ids: only
    /// the owner knows whether they took effect. Call `send_all` next.
    pub fn renew(&mut self, incarnation: ProcessIncarnation) {
        self.id.incarnation = incarnation;
        self.started = true;
        self.queues.values_mut().for_each(|q| (q.next_seq, q.reads) = (0, 0));
    }

    /// This run, and whether control has numbered it.
    pub fn id(&self) -> (GatewayId, bool) {
        (self.id, self.started)
    }

    /// This run's number is void: nothing more is sent under it.
    pub fn run_ended(&mut self, out: &mut Vec<Action>) {
        if core::mem::take(&mut self.started) {
            out.push(Action::Renew);
        }
    }

    /// Requests of this session that were not sent yet wait for `release`.
    pub fn hold(&mut self, session: SessionId) {
        self.held.insert(session);
    }

    /// They go on.
    pub fn release(&mut self, now: Time, session: SessionId, out: &mut Vec<Action>) {
        if self.held.remove(&session) {
            self.send_all(now, out);
        }
    }

    /// Whether the session has a request that is not answered.
    pub fn has_requests(&self, session: SessionId) -> bool {
        self.requests.values().any(|r| r.session == session)
    }

    /// Takes a request of a session. `size` is the volume's, None when it does not exist; `key` names its
    /// segments' incarnations.
    pub fn submit(
        &mut self,
        now: Time,
        from: (SessionId, u64),
        volume: (VolumeId, Option<u64>),
        request: BlockRequest,
        key: impl Fn(SegmentId) -> Option<SegmentKey>,
        out: &mut Vec<Action>,
    ) {
        let (session, tag) = from;
        let flush = request == BlockRequest::Flush;
        let write = !flush && !matches!(request, BlockRequest::Read { .. } | BlockRequest::Status { .. });
        let pieces = match volume.1.ok_or(BlockError::Gone).and_then(|size| split::split(request, size)) {
            Ok(pieces) => pieces,
            Err(error) => return out.push(Action::Complete { session, tag, result: Err(error) }),
        };
        let number = self.next_request;
        self.next_request += 1;
        let flushes = self.flushes.entry(session).or_default();
        if flush {
            flushes.flush(number, tag);
            return self.complete_flushes(session, out);
        }
        if write && !pieces.is_empty() {
            flushes.write_began(number);
        }
        if pieces.is_empty() {
            return out.push(Action::Complete { session, tag, result: split::join(Vec::new()) });
        }
        let left = pieces.len();
        self.requests.insert(number, Request { session, tag, write, results: alloc::vec![None; left], left });
        for (index, piece) in pieces.into_iter().enumerate() {
            match key(SegmentId { volume: volume.0, index: piece.segment }) {
                Some(key) => {
                    let part = Part {
                        request: number,
                        index,
                        session,
                        op: piece.op,
                        sent: None,
                        not_before: Time(0),
                    };
                    self.queues.entry(key).or_default().waiting.push_back(part);
                    self.send(now, key, out);
                }
                None => self.part_done(number, index, Err(BlockError::Gone), out),
            }
        }
    }

    /// Takes an owner's answer.
    pub fn reply(&mut self, now: Time, reply: SegmentReply, out: &mut Vec<Action>) {
        let Some(queue) = self.queues.get_mut(&reply.segment) else { return };
        let again = match reply.result {
            SegmentResult::Ok(ok) => Ok(Ok(ok)),
            SegmentResult::Failed(BlockError::Fenced) => {
                let moved = queue.parts.get(&reply.id).map(|part| part.session);
                return out.extend(moved.map(Action::Moved));
            }
            SegmentResult::Failed(error) => {
                // The part has gone to a later owner since, which may carry it out: its answer counts.
                let sent = queue.parts.get(&reply.id).and_then(|p| p.sent);
                if sent.is_some_and(|(route, _)| route.epoch > reply.epoch) {
                    return;
                }
                Ok(Err(error))
            }
            SegmentResult::NotOwner | SegmentResult::Busy => Err(now + RETRY_AFTER),
            SegmentResult::Fenced => {
                // It is not in the log and never will be under this id. It goes on under the new run's id once
                // control gave one, if its session is still there then.
                if let Some(mut part) = queue.parts.remove(&reply.id) {
                    (part.sent, part.not_before) = (None, Time(0));
                    queue.unsent.remove(&reply.id);
                    queue.waiting.push_back(part);
                }
                if reply.id.gateway == self.id {
                    self.run_ended(out);
                }
                return self.send(now, reply.segment, out);
            }
        };
        match again {
            Ok(result) => {
                let Some(part) = queue.parts.remove(&reply.id) else { return };
                queue.unsent.remove(&reply.id);
                self.part_done(part.request, part.index, result, out);
                self.send(now, reply.segment, out);
            }
            Err(not_before) => {
                if let Some(part) = queue.parts.get_mut(&reply.id) {
                    part.not_before = not_before;
                    queue.unsent.insert(reply.id);
                    self.wake_at(not_before);
                }
            }
        }
    }

    /// The segment's requests go another way from now on.
    pub fn route(&mut self, now: Time, segment: SegmentKey, route: Route, out: &mut Vec<Action>) {
        let queue = self.queues.entry(segment).or_default();
        if queue.route != Some(route) {
            queue.route = Some(route);
            queue.unsent.extend(queue.parts.keys());
            queue.parts.values_mut().for_each(|p| p.not_before = now);
            self.send(now, segment, out);
        }
    }

    /// The segment does not exist any more in that incarnation.
    pub fn gone(&mut self, segment: SegmentKey, out: &mut Vec<Action>) {
        let Some(queue) = self.queues.remove(&segment) else { return };
        for part in queue.parts.into_values().chain(queue.waiting) {
            self.part_done(part.request, part.index, Err(BlockError::Gone), out);
        }
    }

    /// The link to a node came up or went down. What was sent over a link that is lost is sent again.
    pub fn link(&mut self, now: Time, node: NodeId, up: bool, out: &mut Vec<Action>) {
        if up {
            self.links.insert(node);
        } else {
            self.links.remove(&node);
        }
        self.peer_up(now, node, out);
    }

    /// A node's answers come over another connection than before: what was sent to it may have been answered over that
    /// and be lost. It counts as not sent, and is sent again once it can be.
    pub fn peer_up(&mut self, now: Time, node: NodeId, out: &mut Vec<Action>) {
        for queue in self.queues.values_mut() {
            let lost = |p: &Part| p.sent.is_some_and(|(route, _)| route.owner == node);
            queue.unsent.extend(queue.parts.iter().filter(|(_, p)| lost(p)).map(|(id, _)| *id));
        }
        if self.links.contains(&node) {
            self.send_all(now, out);
        }
    }

    /// A session ended: its requests are not repeated and not answered any more. A write of it that an owner has
    /// already may still take effect, but never after a later request of this gateway to the same segment.
    pub fn session_closed(&mut self, now: Time, session: SessionId, out: &mut Vec<Action>) {
        self.flushes.remove(&session);
        self.held.remove(&session);
        self.requests.retain(|_, r| r.session != session);
        let keys: Vec<SegmentKey> = self.queues.keys().copied().collect();
        for key in keys {
            let Some(queue) = self.queues.get_mut(&key) else { continue };
            queue.parts.retain(|_, p| p.session != session);
            queue.unsent.retain(|id| queue.parts.contains_key(id));
            queue.waiting.retain(|p| p.session != session);
            self.send(now, key, out);
        }
    }

    /// Sends again what waited long enough.
    pub fn timer(&mut self, now: Time, out: &mut Vec<Action>) {
        self.wake = None;
        let mut next: Option<Time> = None;
        for queue in self.queues.values_mut() {
            for (id, part) in &queue.parts {
                match part.sent {
                    Some((_, at)) if at + RESEND_AFTER <= now => {
                        queue.unsent.insert(*id);
                    }
                    Some((_, at)) => {
                        next = Some(next.map_or(at + RESEND_AFTER, |n| n.min(at + RESEND_AFTER)))
                    }
                    None => {}
                }
            }
        }
        if let Some(next) = next {
            self.wake_at(next);
        }
        self.send_all(now, out);
    }

    /// When `timer` is next to be called.
    pub fn next_timer(&self) -> Option<Time> {
        self.wake
    }

    /// How many requests wait for an answer.
    pub fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// Sends everything that is to be sent.
    pub fn send_all(&mut self, now: Time, out: &mut Vec<Action>) {
        let keys: Vec<SegmentKey> = self.queues.keys().copied().collect();
        for key in keys {
            self.send(now, key, out);
        }
    }

    /// Numbers what waits, as far as the span allows, and sends every part that is to be sent.
    fn send(&mut self, now: Time, key: SegmentKey, out: &mut Vec<Action>) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        if !self.started {
            return;
        }
        let id = self.id;
        let lowest = |queue: &Queue| {
            let first = queue.parts.range(RequestId { gateway: id, seq: 0 }..).next();
            first.filter(|(r, _)| r.gateway == id && r.seq < READS).map_or(queue.next_seq + 1, |(r, _)| r.seq)
        };
        while !queue.waiting.is_empty() {
            let in_span = queue.next_seq + 1 - lowest(queue).min(queue.next_seq + 1) < SPAN;
            // Parts of held sessions stay where they are; the others keep their order.
            let free = |p: &Part| self.held.is_empty() || !self.held.contains(&p.session);
            let goes = |p: &Part| free(p) && (in_span || p.op.is_read());
            let Some(next) = queue.waiting.iter().position(goes) else { break };
            if let Some(part) = queue.waiting.remove(next) {
                let request_id = RequestId { gateway: id, seq: queue.number(part.op.is_read()) };
                queue.parts.insert(request_id, part);
                queue.unsent.insert(request_id);
            }
        }
        let low = lowest(queue);
        let Some(route) = queue.route.filter(|r| self.links.contains(&r.owner)) else { return };
        let mut wake = None;
        queue.unsent.retain(|request_id| {
            let Some(part) = queue.parts.get_mut(request_id) else { return false };
            if part.not_before > now {
                wake = Some(part.not_before.min(wake.unwrap_or(Time::NEVER)));
                return true;
            }
            part.sent = Some((route, now));
            // Parts of an earlier run stand apart from this run's numbers: nothing below them is claimed.
            let low = if request_id.gateway == id { low } else { 0 };
            let request = SegmentRequest {
                id: *request_id,
                session: part.session,
                low,
                segment: key,
                op: part.op.clone(),
            };
            out.push(Action::Send { to: route.owner, request });
            wake = Some((now + RESEND_AFTER).min(wake.unwrap_or(Time::NEVER)));
            false
        });
        if let Some(at) = wake {
            self.wake_at(at);
        }
    }

    fn wake_at(&mut self, at: Time) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    fn part_done(&mut self, number: u64, index: usize, result: BlockResult, out: &mut Vec<Action>) {
        let Some(request) = self.requests.get_mut(&number) else { return };
        if request.results[index].replace(result).is_some() {
            return;
        }
        request.left -= 1;
        if request.left > 0 {
            return;
        }
        let Some(request) = self.requests.remove(&number) else { return };
        let result = split::join(request.results.into_iter().flatten().collect());
        out.push(Action::Complete { session: request.session, tag: request.tag, result });
        if request.write {
            if let Some(flushes) = self.flushes.get_mut(&request.session) {
                flushes.write_ended(number);
            }
            self.complete_flushes(request.session, out);
        }
    }

    fn complete_flushes(&mut self, session: SessionId, out: &mut Vec<Action>) {
        let Some(flushes) = self.flushes.get_mut(&session) else { return };
        while let Some(tag) = flushes.take_complete() {
            out.push(Action::Complete { session, tag, result: Ok(holdfast_types::BlockReply::Done) });
        }
    }
}

#[cfg(test)]
mod tests;
