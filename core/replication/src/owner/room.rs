//! Room for new data. A record that is in the log has to be stored by every copy before any later one can be, a
//! discard that would make room included. So nothing is ordered that would not fit: before the first write to an
//! extent, and again after a discard in it, the copies of S are asked to keep room for it. Meanwhile the write
//! stands aside, and everything else passes it.
//!
//! ```text
//! (nothing) ──write──> Asked ──w(S) keep room, none of S is full──> Kept ──ordered──> Used ──discard──> (nothing)
//!                        └──one of S is full──> (nothing), the writes fail with "no space"
//! ```
//!
//! One full copy of S is enough to refuse new data: a full disk is healthy, and what it holds is not given up for
//! what it cannot take (docs/decisions/0006). Copies that do not answer are not waited for, as ever.

use super::requests::Waiting;
use super::{Owner, OwnerOutput};
use crate::event::ReplicationEvent;
use crate::message::{Body, SegmentOp, SegmentResult};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use holdfast_types::{
    BlockError, BlockRange, Duration, ExtentIndex, RecordBody, ReplicaRef, SEGMENT_EXTENTS, StoreRefusal,
    Time,
};

/// A copy that has not answered for so long is not waited for while w(S) others keep room.
const GRACE: Duration = Duration::from_millis(50);
/// Room that is about to be given back is waited for so long; then the write fails.
pub(crate) const WAIT_FOR_ROOM: Duration = Duration::from_secs(2);
/// Room that was kept and not used so long is asked for anew: the copies give it back after twice this time.
const USE_WITHIN: Duration = Duration::from_secs(5);
/// Room is asked for ahead of its use only while every copy has more extents than this left.
const AHEAD_SPARE: u64 = 64;

/// Room that the copies keep.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Open {
    Kept { until: Time },
    Used,
}

/// Room that the copies are asked for.
#[derive(Debug)]
struct Ask {
    number: u64,
    answers: BTreeMap<ReplicaRef, Option<StoreRefusal>>,
    /// Copies that are silent are not waited for any more from then on. None: that time has come.
    grace: Option<Time>,
    /// Since when some copy expects to have room soon.
    later_since: Option<Time>,
    again_at: Time,
    step: Duration,
}

/// The room for new data, by extent: each is asked for, or open, or neither.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    asks: BTreeMap<ExtentIndex, Ask>,
    open: BTreeMap<ExtentIndex, Open>,
    /// Something that writes stand aside for was decided.
    decided: bool,
}

impl Rooms {
    fn is_open(&self, now: Time, extent: ExtentIndex) -> bool {
        match self.open.get(&extent) {
            Some(Open::Used) => true,
            Some(Open::Kept { until }) => now < *until,
            None => false,
        }
    }
    fn opened(&mut self, extent: ExtentIndex, open: Open) {
        self.decided |= self.asks.remove(&extent).is_some();
        self.open.insert(extent, open);
    }
    /// Takes note of what is ordered.
    pub(crate) fn ordered(&mut self, now: Time, body: &RecordBody) {
        match body {
            RecordBody::Write(w) => {
                for extent in w.range.extents() {
                    if self.open.get(&extent) != Some(&Open::Used) {
                        self.opened(extent, Open::Used);
                    }
                }
            }
            RecordBody::Zero(range) => {
                for extent in range.extents() {
                    // Its place may be given back from here on. What is asked for has to outlast this record.
                    self.open.remove(&extent);
                    if let Some(ask) = self.asks.get_mut(&extent) {
                        (ask.number, ask.again_at) = (0, now);
                        ask.answers.clear();
                    }
                }
            }
            RecordBody::Start | RecordBody::Fence { .. } => {}
        }
    }
}

/// The extents that a request puts new data into. A discard puts none: at its ragged edges it changes blocks that
/// have their place, or that are absent and stay so.
pub(super) fn needs(op: &SegmentOp) -> impl Iterator<Item = ExtentIndex> + use<> {
    let (offset, len) = match op {
        SegmentOp::Write { .. } | SegmentOp::CompareAndWrite { .. } => op.span(),
        SegmentOp::Zero { .. } | SegmentOp::Read { .. } | SegmentOp::Status { .. } => (0, 0),
    };
    BlockRange::covering(offset, len).extents()
}

impl Owner {
    /// Whether there is room in all of these extents. What is missing is asked for.
    pub(super) fn has_room(
        &mut self,
        now: Time,
        needed: impl Iterator<Item = ExtentIndex>,
        out: &mut Vec<OwnerOutput>,
    ) -> bool {
        let mut all = true;
        for extent in needed {
            if self.rooms.is_open(now, extent) {
                self.ask_ahead(now, extent, out);
            } else {
                all = false;
                self.want_room(now, extent, out);
            }
        }
        all
    }

    /// The first write to an extent is often followed by one to the next: that one is not to wait. Where room is
    /// short it is left to whoever needs it now.
    fn ask_ahead(&mut self, now: Time, extent: ExtentIndex, out: &mut Vec<OwnerOutput>) {
        let first = matches!(self.rooms.open.get(&extent), Some(Open::Kept { .. }));
        let next = ExtentIndex(extent.0 + 1);
        if first
            && next.0 < SEGMENT_EXTENTS
            && !self.rooms.open.contains_key(&next)
            && self.copies.values().all(|c| !c.counts || c.spare > AHEAD_SPARE)
        {
            self.want_room(now, next, out);
        }
    }

    fn want_room(&mut self, now: Time, extent: ExtentIndex, out: &mut Vec<OwnerOutput>) {
        if self.rooms.asks.contains_key(&extent) {
            return;
        }
        let ask = Ask {
            number: 0,
            answers: BTreeMap::new(),
            grace: Some(now + GRACE),
            later_since: None,
            again_at: now,
            step: self.config.resend,
        };
        self.rooms.open.remove(&extent);
        self.rooms.asks.insert(extent, ask);
        self.ask_room(now, extent, out);
    }

    /// Asks every copy of S that is reached, or asks it again.
    fn ask_room(&mut self, now: Time, extent: ExtentIndex, out: &mut Vec<OwnerOutput>) {
        let (number, after, max) = (self.number(), self.log.last().lsn, self.config.resend_max);
        let Some(ask) = self.rooms.asks.get_mut(&extent) else { return };
        ask.number = number;
        ask.again_at = now + ask.step;
        if ask.later_since.is_none() {
            ask.step = Duration((ask.step.0 * 2).min(max.0));
        }
        let copies: Vec<ReplicaRef> =
            self.copies.values().filter(|c| c.counts && c.up).map(|c| c.replica).collect();
        for copy in copies {
            self.send(copy, Body::Room { number, extent, after }, out);
        }
    }

    pub(super) fn room_replied(
        &mut self,
        now: Time,
        copy: ReplicaRef,
        number: u64,
        refusal: Option<StoreRefusal>,
        spare: u64,
        out: &mut Vec<OwnerOutput>,
    ) {
        if refusal == Some(StoreRefusal::Full) {
            self.note_full(copy, true, out);
        } else if refusal.is_none() && spare > 0 {
            self.note_full(copy, false, out);
        }
        if let Some(c) = self.copies.get_mut(&copy) {
            (c.silent, c.spare) = (false, spare);
        }
        let Some((extent, ask)) = self.rooms.asks.iter_mut().find(|(_, ask)| ask.number == number) else {
            return;
        };
        ask.answers.insert(copy, refusal);
        let extent = *extent;
        self.decide_room(now, extent, out);
        self.advance(now, out);
    }

    /// A copy's disk is full, or has room again.
    pub(super) fn note_full(&mut self, copy: ReplicaRef, full: bool, out: &mut Vec<OwnerOutput>) {
        let Some(c) = self.copies.get_mut(&copy).filter(|c| c.full != full) else { return };
        c.full = full;
        let event = match full {
            true => ReplicationEvent::NoRoom { replica: copy },
            false => ReplicationEvent::RoomAgain { replica: copy },
        };
        self.event(event, out);
    }

    fn decide_room(&mut self, now: Time, extent: ExtentIndex, out: &mut Vec<OwnerOutput>) {
        let w = self.w();
        let Some(ask) = self.rooms.asks.get_mut(&extent) else { return };
        let counted = self.copies.values().filter(|c| c.counts);
        let answers: Vec<StoreRefusal> = counted
            .clone()
            .filter(|c| c.up)
            .filter_map(|c| ask.answers.get(&c.replica).copied().flatten())
            .collect();
        if answers.contains(&StoreRefusal::Full) {
            return self.no_room(extent, out);
        }
        if answers.contains(&StoreRefusal::Later) {
            let since = *ask.later_since.get_or_insert(now);
            ask.step = self.config.resend;
            if now.since(since) >= WAIT_FOR_ROOM {
                self.no_room(extent, out);
            }
            return;
        }
        let keep = counted.clone().filter(|c| ask.answers.get(&c.replica) == Some(&None)).count();
        let answered = |c: &&super::Copy| ask.answers.contains_key(&c.replica);
        let awaited = counted.filter(|c| c.up && !c.silent && !answered(c)).count();
        if keep < w || (awaited > 0 && ask.grace.is_some_and(|at| now < at)) {
            return;
        }
        for c in self.copies.values_mut().filter(|c| c.counts && !ask.answers.contains_key(&c.replica)) {
            c.silent = true;
        }
        self.rooms.opened(extent, Open::Kept { until: now + USE_WITHIN });
    }

    /// The writes that wait for room in this extent fail. They are in no log.
    fn no_room(&mut self, extent: ExtentIndex, out: &mut Vec<OwnerOutput>) {
        self.rooms.asks.remove(&extent);
        let waits = |w: &Waiting| needs(&w.request.op).any(|e| e == extent);
        for waiting in self.requests.take_aside(waits) {
            self.requests.note_failed(waiting.request.id, BlockError::NoSpace);
            let failed = SegmentResult::Failed(BlockError::NoSpace);
            self.reply(waiting.to, waiting.request.id, failed, out);
        }
    }

    /// Brings back what no room is asked for any more, in the order in which it came.
    pub(super) fn readmit(&mut self) {
        let Self { rooms, requests, .. } = self;
        if core::mem::take(&mut rooms.decided) {
            requests.readmit(|w| !needs(&w.request.op).any(|e| rooms.asks.contains_key(&e)));
        }
    }

    /// A copy is reached again: it is asked what it was not asked.
    pub(super) fn rooms_link(&mut self, now: Time) {
        self.rooms.asks.values_mut().for_each(|ask| ask.again_at = now);
    }

    pub(super) fn rooms_timer(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let asked: Vec<ExtentIndex> = self.rooms.asks.keys().copied().collect();
        for extent in &asked {
            self.decide_room(now, *extent, out);
            let Some(ask) = self.rooms.asks.get_mut(extent) else { continue };
            ask.grace = ask.grace.filter(|at| now < *at);
            if ask.again_at <= now {
                self.ask_room(now, *extent, out);
            }
        }
        if !asked.is_empty() {
            self.advance(now, out);
        }
    }

    pub(super) fn rooms_timer_at(&self) -> Option<Time> {
        let at = |ask: &Ask| ask.grace.map_or(ask.again_at, |at| at.min(ask.again_at));
        self.rooms.asks.values().map(at).min()
    }
}
