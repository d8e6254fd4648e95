//! Who enters S: a copy that control lists and that is not in S is brought up to date under live writes, compared,
//! and proposed (replication.md §1, "resync"). Each block carries the LSN of the record that gave it its state,
//! thus images and records may arrive in any order: the highest LSN wins.
//!
//! ```text
//! asked (Seal) ──log meets the owner's──> Tail ──caught up──┐
//!      └─────else: Learn──> Learning ──> Listing ──> Copying ┴─> Listing/Comparing ──equal──> Finishing ──> Proposed
//! ```
//!
//! A learner that was interrupted (it restarted, it was not reached, another node owns now) keeps what it installed:
//! its extents are compared first, and only what differs is copied.
//!
//! Images and comparisons give way to clients: while requests come to this node, one at a time, with a pause of some
//! write latencies; and of all resyncs of a node only so many go on at once, as they share its disks.

use super::{Owner, OwnerOutput, StoreUse};
use crate::event::ReplicationEvent;
use crate::message::{Body, SealState};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use holdfast_types::{
    BlockDigest, BlockIndex, Duration, ExtentIndex, GrantReason, LogPosition, Lsn, ReplicaRef, StoreOrder,
    StoreOutcome, Time,
};

/// Nothing went on for so long: the step is repeated. Each time it gets twice as long, as the learner's disk, or the own one,
/// may be slow: what is begun anew before it is done is never done.
const STEP_WITHIN: Duration = Duration::from_secs(2);
const STEP_WITHIN_MOST: Duration = Duration::from_secs(64);
/// The same at least while the learner acknowledges records: it may be slow, or the answer lost on its way.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Between attempts to begin.
const BEGIN_AGAIN: Duration = Duration::from_millis(500);
/// While a client's request came within this time, images give way.
const CLIENTS_RECENT: Duration = Duration::from_millis(100);
/// The most images and comparisons under way on a node, whatever the number of its resyncs: each is up to 1 MiB.
const UNDER_WAY_MOST: usize = 16;
/// The same while clients are active.
const UNDER_WAY_WITH_CLIENTS: usize = 4;
/// The pause between images while clients are active, in write latencies.
const PAUSE_LATENCIES: u64 = 2;
/// The longest such pause: a resync must end.
const PAUSE_MOST: Duration = Duration::from_millis(20);
/// Comparisons that found differences; then the resync begins anew.
const COMPARE_ROUNDS: u32 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Records alone bring it up to date.
    Tail,
    /// Its log is to begin anew.
    Learning,
    /// The extents that it misses are being listed.
    Listing,
    /// Images go over.
    Copying,
    /// Both sides are being compared.
    Comparing,
    /// It is to note that it is complete.
    Finishing,
    /// It is complete; control is to grant S with it.
    Proposing,
}

/// The resync of one learner.
#[derive(Debug)]
pub(crate) struct Resync {
    stage: Stage,
    base: LogPosition,
    since: Lsn,
    /// It was told to learn, and has to be told that it is complete.
    learned: bool,
    /// An earlier attempt may have copied some of it: what is equal by now is not copied again.
    resumed: bool,
    began: Time,
    changed: Vec<ExtentIndex>,
    to_copy: VecDeque<ExtentIndex>,
    reading: BTreeSet<ExtentIndex>,
    sent: BTreeMap<u64, ExtentIndex>,
    to_compare: VecDeque<ExtentIndex>,
    comparing: BTreeMap<ExtentIndex, Comparison>,
    rounds: u32,
    total: u32,
    done: u32,
    images: u64,
    bytes: u64,
    not_before: Time,
    /// The last answer of this step came then.
    answered: Time,
    step_until: Time,
    /// How long a step may take.
    patience: Duration,
    /// What it is to copy, as was said of this attempt or one before it.
    said: Option<(u32, Lsn)>,
}

#[derive(Debug, Default)]
struct Comparison {
    number: u64,
    own: Option<(Lsn, Vec<BlockDigest>)>,
    theirs: Option<(Lsn, Vec<BlockDigest>)>,
}

impl Resync {
    fn new(now: Time, stage: Stage, base: LogPosition, since: Lsn) -> Self {
        Self {
            stage,
            base,
            since,
            learned: stage == Stage::Learning,
            resumed: false,
            began: now,
            changed: Vec::new(),
            to_copy: VecDeque::new(),
            reading: BTreeSet::new(),
            sent: BTreeMap::new(),
            to_compare: VecDeque::new(),
            comparing: BTreeMap::new(),
            rounds: 0,
            total: 0,
            done: 0,
            images: 0,
            bytes: 0,
            not_before: now,
            answered: now,
            step_until: now + STEP_WITHIN,
            patience: STEP_WITHIN,
            said: None,
        }
    }
    pub(crate) fn status(&self) -> super::status::ResyncStatus {
        super::status::ResyncStatus {
            extents_done: self.done.min(self.total),
            extents_total: self.total,
            since: self.since,
        }
    }
    /// Whether the learner may hold images already, so that the next attempt is to go on from them.
    fn leaves_images(&self) -> bool {
        self.resumed || self.learned && self.stage != Stage::Learning
    }
    /// Images and comparisons.
    fn under_way(&self) -> usize {
        self.reading.len() + self.sent.len() + self.comparing.len()
    }
    fn step(&mut self, now: Time, stage: Stage) {
        self.stage = stage;
        self.went_on(now);
    }
    /// Whether the next image or comparison may begin. One that has to wait its turn is not late.
    fn may_go_on(&mut self, now: Time, window: usize, is_free: bool) -> bool {
        if !is_free && self.not_before <= now {
            self.not_before = now + PAUSE_MOST;
        }
        let waits = self.not_before > now;
        if waits && self.under_way() == 0 {
            self.went_on(now);
        }
        !waits && self.under_way() < window
    }
    fn went_on(&mut self, now: Time) {
        (self.answered, self.step_until) = (now, now + self.patience);
    }
    /// It takes records: what it was asked otherwise may take longer, but not for ever.
    fn takes_records(&mut self, now: Time) {
        let until = (now + STEP_WITHIN).min(self.answered + ANSWER_WITHIN.max(self.patience));
        self.step_until = self.step_until.max(until);
    }
}

impl Owner {
    /// Asks the learners that control lists where they stand.
    pub(super) fn begin_resyncs(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        if !self.active() {
            return;
        }
        let learners: Vec<ReplicaRef> = self
            .copies
            .values()
            .filter(|c| !c.counts && c.up && c.next.is_none() && c.ask_at.is_none())
            .map(|c| c.replica)
            .filter(|r| !self.resyncs.contains_key(r) && self.members.contains(r))
            .collect();
        for copy in learners {
            self.seal(now, copy, out);
        }
    }

    /// A learner said where it stands.
    pub(super) fn learner_sealed(
        &mut self,
        now: Time,
        copy: ReplicaRef,
        state: &SealState,
        out: &mut Vec<OwnerOutput>,
    ) {
        if !self.active() || self.resyncs.contains_key(&copy) || !self.members.contains(&copy) {
            return;
        }
        let common = self.log.index().common(&state.index).filter(|p| p.lsn <= self.commit);
        let tail = common.filter(|p| state.incomplete_since.is_none() && p.lsn >= state.applied);
        if let Some(position) = tail {
            let resync = Resync::new(now, Stage::Tail, position, state.applied);
            self.resyncs.insert(copy, resync);
            self.event(
                ReplicationEvent::ResyncStarted { replica: copy, extents: 0, since: state.applied },
                out,
            );
            return self.place(now, copy, &state.index, out);
        }
        self.learn(now, copy, state.incomplete_since.is_some(), out);
    }

    /// The learner's log is to begin anew after what is committed now.
    fn learn(&mut self, now: Time, copy: ReplicaRef, resumed: bool, out: &mut Vec<OwnerOutput>) {
        let Some(base) = self.log.index().position(self.commit) else { return };
        if let Some(c) = self.copies.get_mut(&copy) {
            c.send_from(None);
            (c.matched, c.too_far, c.regress_hints) = (Lsn(0), false, 0);
        }
        let mut resync = Resync { resumed, ..Resync::new(now, Stage::Learning, base, Lsn(0)) };
        if let Some(before) = self.resyncs.get(&copy) {
            (resync.said, resync.began) = (before.said, before.began);
            if resumed {
                (resync.images, resync.bytes) = (before.images, before.bytes);
            }
            let is_late = before.step_until <= now;
            let times = if is_late { 2 } else { 1 };
            resync.patience = Duration((before.patience.0 * times).min(STEP_WITHIN_MOST.0));
        }
        resync.went_on(now);
        self.resyncs.insert(copy, resync);
        self.send(copy, Body::Learn { base }, out);
    }

    pub(super) fn learning(
        &mut self,
        now: Time,
        copy: ReplicaRef,
        base: LogPosition,
        since: Lsn,
        out: &mut Vec<OwnerOutput>,
    ) {
        let Some(resync) = self.resyncs.get_mut(&copy) else { return };
        if resync.stage != Stage::Learning || resync.base != base {
            return;
        }
        resync.since = since;
        resync.step(now, Stage::Listing);
        let step = self.config.resend;
        if let Some(c) = self.copies.get_mut(&copy) {
            c.send_from(Some(base.lsn.next()));
            c.matched = base.lsn;
            c.answered(now, true, step);
        }
        self.list(now, copy, out);
    }

    /// Lists what the learner misses, once the own copy's committed state holds everything up to the base.
    fn list(&mut self, now: Time, copy: ReplicaRef, out: &mut Vec<OwnerOutput>) {
        let own = self.copies.get(&self.own).map_or(Lsn(0), |c| c.committed);
        let Some(resync) = self.resyncs.get_mut(&copy) else { return };
        if own < resync.base.lsn {
            // Again from `own_advanced` by way of the timer.
            resync.not_before = now + self.config.resend;
            return;
        }
        resync.not_before = Time::NEVER;
        let since = resync.since;
        self.store(StoreUse::Changed(copy), StoreOrder::Changed { since }, out);
    }

    pub(super) fn resync_listed(
        &mut self,
        now: Time,
        copy: ReplicaRef,
        outcome: StoreOutcome,
        out: &mut Vec<OwnerOutput>,
    ) {
        let Some(resync) = self.resyncs.get_mut(&copy) else { return };
        let StoreOutcome::Changed { extents } = outcome else { return };
        if resync.stage != Stage::Listing {
            return;
        }
        let (total, since) = (extents.len() as u32, resync.since);
        resync.total = total;
        resync.changed = extents.clone();
        resync.not_before = now;
        if resync.learned && !resync.resumed {
            resync.to_copy = extents.into();
            resync.step(now, Stage::Copying);
        } else {
            resync.to_compare = extents.into();
            resync.step(now, Stage::Comparing);
        }
        if !resync.learned {
            resync.done = total;
        } else if resync.said.replace((total, since)) != Some((total, since)) {
            self.event(ReplicationEvent::ResyncStarted { replica: copy, extents: total, since }, out);
        }
        self.drive(now, copy, out);
    }

    /// How long images and comparisons of a resync wait for each other, how many of it may be under way, and how many of
    /// this owner's at all: clients come first.
    fn terms(&self, now: Time) -> (Duration, usize, usize) {
        if is_recent(self.clients_at.max(self.last_request), now) {
            let pause = Duration(self.write_latency.0 * PAUSE_LATENCIES);
            let most = UNDER_WAY_WITH_CLIENTS.saturating_sub(self.others_under_way);
            (Duration(pause.0.min(PAUSE_MOST.0)), 1, most)
        } else {
            let most = UNDER_WAY_MOST.saturating_sub(self.others_under_way);
            (Duration::ZERO, self.config.resync_window, most)
        }
    }

    /// How many images and comparisons the other owners on this node have under way.
    pub fn note_under_way(&mut self, others: usize) {
        self.others_under_way = others;
    }

    /// How many this one has.
    pub fn under_way(&self) -> usize {
        self.resyncs.values().map(Resync::under_way).sum()
    }

    /// Does what comes next for a learner.
    fn drive(&mut self, now: Time, copy: ReplicaRef, out: &mut Vec<OwnerOutput>) {
        let (pause, window, most) = self.terms(now);
        loop {
            let is_free = self.under_way() < most;
            let Some(resync) = self.resyncs.get_mut(&copy) else { return };
            match resync.stage {
                Stage::Copying => {
                    if resync.to_copy.is_empty() && resync.reading.is_empty() && resync.sent.is_empty() {
                        resync.to_compare = resync.changed.iter().copied().collect();
                        resync.step(now, Stage::Comparing);
                        continue;
                    }
                    if !resync.may_go_on(now, window, is_free) {
                        return;
                    }
                    let Some(extent) = resync.to_copy.pop_front() else { return };
                    resync.reading.insert(extent);
                    resync.not_before = now + pause;
                    let since = resync.since;
                    self.store(
                        StoreUse::Image { copy, extent },
                        StoreOrder::ReadImage { extent, since },
                        out,
                    );
                }
                Stage::Comparing => {
                    if resync.to_compare.is_empty() && resync.comparing.is_empty() {
                        return self.compared(now, copy, out);
                    }
                    if !resync.may_go_on(now, window, is_free) {
                        return;
                    }
                    let Some(extent) = resync.to_compare.pop_front() else { return };
                    resync.not_before = now + pause;
                    let number = self.next_number;
                    self.next_number += 1;
                    resync.comparing.insert(extent, Comparison { number, ..Comparison::default() });
                    self.send(copy, Body::Digest { number, extent }, out);
                    self.store(StoreUse::Digest { copy, extent }, StoreOrder::Digest { extent }, out);
                }
                Stage::Tail | Stage::Learning | Stage::Listing | Stage::Finishing | Stage::Proposing => {
                    return;
                }
            }
        }
    }

    pub(super) fn image_read(
        &mut self,
        now: Time,
        copy: ReplicaRef,
        extent: ExtentIndex,
        outcome: StoreOutcome,
        out: &mut Vec<OwnerOutput>,
    ) {
        let number = self.next_number;
        let Some(resync) = self.resyncs.get_mut(&copy) else { return };
        if !resync.reading.remove(&extent) {
            return;
        }
        resync.went_on(now);
        match outcome {
            StoreOutcome::Image { at, blocks } if at >= resync.base.lsn => {
                if blocks.is_empty() {
                    resync.done += 1;
                } else {
                    self.next_number += 1;
                    resync.images += 1;
                    resync.bytes +=
                        blocks.iter().filter_map(|b| b.data.as_ref()).map(|d| d.len() as u64).sum::<u64>();
                    resync.sent.insert(number, extent);
                    self.send(copy, Body::Image { number, blocks }, out);
                }
            }
            StoreOutcome::BadBlocks { blocks } => {
                resync.to_copy.push_back(extent);
                resync.not_before = now + self.config.resend;
                return self.repair(now, self.own, blocks, None, out);
            }
            _ => {
                resync.to_copy.push_back(extent);
                resync.not_before = now + self.config.resend;
                return;
            }
        }
        self.drive(now, copy, out);
    }

    pub(super) fn image_installed(
        &mut self,
        now: Time,
        copy: ReplicaRef,
        number: u64,
        installed: bool,
        out: &mut Vec<OwnerOutput>,
    ) {
        let pause = self.config.resend_max;
        let Some(resync) = self.resyncs.get_mut(&copy) else { return };
        let Some(extent) = resync.sent.remove(&number) else { return };
        resync.went_on(now);
        if installed {
            resync.done += 1;
        } else {
            // Its disk is full, or failed: the store's event says which.
            resync.to_copy.push_back(extent);
            resync.not_before = now + pause;
        }
        self.drive(now, copy, out);
    }

    pub(super) fn own_digest(
        &mut self,
        now: Time,
        copy: ReplicaRef,
        extent: ExtentIndex,
        outcome: StoreOutcome,
        out: &mut Vec<OwnerOutput>,
    ) {
        let Some(resync) = self.resyncs.get_mut(&copy) else { return };
        let Some(comparison) = resync.comparing.get_mut(&extent) else { return };
        match outcome {
            StoreOutcome::Digest { at, blocks } => comparison.own = Some((at, blocks)),
            _ => {
                resync.comparing.remove(&extent);
                resync.to_compare.push_back(extent);
                resync.not_before = now + self.config.resend;
                return;
            }
        }
        self.compare_extent(now, copy, extent, out);
    }

    pub(super) fn resync_digest(
        &mut self,
        now: Time,
        copy: ReplicaRef,
        number: u64,
        at: Lsn,
        blocks: Vec<BlockDigest>,
        out: &mut Vec<OwnerOutput>,
    ) {
        let Some(resync) = self.resyncs.get_mut(&copy) else { return };
        let Some((extent, comparison)) = resync.comparing.iter_mut().find(|(_, c)| c.number == number) else {
            return;
        };
        comparison.theirs = Some((at, blocks));
        let extent = *extent;
        self.compare_extent(now, copy, extent, out);
    }

    fn compare_extent(
        &mut self,
        now: Time,
        copy: ReplicaRef,
        extent: ExtentIndex,
        out: &mut Vec<OwnerOutput>,
    ) {
        let Some(resync) = self.resyncs.get_mut(&copy) else { return };
        let ready = resync.comparing.get(&extent).is_some_and(|c| c.own.is_some() && c.theirs.is_some());
        if !ready {
            return;
        }
        resync.went_on(now);
        let Some(Comparison { own: Some(own), theirs: Some(theirs), .. }) = resync.comparing.remove(&extent)
        else {
            return;
        };
        let differing = differing(&own, &theirs);
        if differing.is_empty() {
            resync.done += u32::from(resync.resumed);
        } else {
            resync.to_copy.push_back(extent);
            let blocks = differing.len() as u32;
            let own_bad: Vec<BlockIndex> = damaged(&own.1, &differing);
            let mut their_bad: Vec<BlockIndex> = damaged(&theirs.1, &differing);
            // Of what is older there nothing is to be mended: an image replaces it. It may be damaged by right, where a
            // log that began anew forgot what was half in its place.
            let lsn =
                |digests: &[BlockDigest], block| digests.iter().find(|d| d.block == block).map(|d| d.lsn);
            their_bad.retain(|block| lsn(&own.1, *block) == lsn(&theirs.1, *block));
            // What was not copied yet is expected to differ.
            if !resync.resumed {
                self.event(ReplicationEvent::ResyncDiffers { replica: copy, blocks }, out);
            }
            for (bad, blocks) in [(self.own, own_bad), (copy, their_bad)] {
                if !blocks.is_empty() {
                    self.repair(now, bad, blocks, None, out);
                }
            }
        }
        self.drive(now, copy, out);
    }

    /// Every changed extent was compared once.
    fn compared(&mut self, now: Time, copy: ReplicaRef, out: &mut Vec<OwnerOutput>) {
        let repeats = self.repeats.state_at(self.commit);
        let Some(resync) = self.resyncs.get_mut(&copy) else { return };
        if !resync.to_copy.is_empty() {
            resync.changed = resync.to_copy.iter().copied().collect();
            if core::mem::take(&mut resync.resumed) {
                resync.step(now, Stage::Copying);
                return self.drive(now, copy, out);
            }
            resync.rounds += 1;
            if resync.rounds >= COMPARE_ROUNDS || !resync.learned {
                // Something else than late images is wrong with it: from the start.
                return self.learn(now, copy, false, out);
            }
            resync.not_before = now + self.config.resend;
            return resync.step(now, Stage::Copying);
        }
        if resync.learned {
            resync.step(now, Stage::Finishing);
            self.send(copy, Body::Finish { repeats }, out);
        } else {
            self.complete(now, copy, out);
        }
    }

    pub(super) fn resync_finished(&mut self, now: Time, copy: ReplicaRef, out: &mut Vec<OwnerOutput>) {
        if self.resyncs.get(&copy).is_some_and(|r| r.stage == Stage::Finishing) {
            self.complete(now, copy, out);
        }
    }

    fn complete(&mut self, now: Time, copy: ReplicaRef, out: &mut Vec<OwnerOutput>) {
        let Some(resync) = self.resyncs.get_mut(&copy) else { return };
        resync.step(now, Stage::Proposing);
        let (images, bytes, took) = (resync.images, resync.bytes, now.since(resync.began));
        self.event(ReplicationEvent::ResyncFinished { replica: copy, images, bytes, took }, out);
        self.event(ReplicationEvent::Adding { replica: copy }, out);
        self.propose_add(now, copy, out);
    }

    fn propose_add(&mut self, now: Time, copy: ReplicaRef, out: &mut Vec<OwnerOutput>) {
        if !self.active() {
            return;
        }
        let mut set = self.set.clone();
        set.push(copy);
        let (node, incarnation) = (self.node, self.incarnation);
        self.propose_grant(now, node, incarnation, set, GrantReason::Add, out);
    }

    /// A learner acknowledged records: one that needs nothing else may be there.
    pub(super) fn learner_advanced(&mut self, now: Time, copy: ReplicaRef, out: &mut Vec<OwnerOutput>) {
        let caught_up = self.copies.get(&copy).is_some_and(|c| c.matched >= self.commit);
        let Some(resync) = self.resyncs.get_mut(&copy) else { return };
        resync.takes_records(now);
        if resync.stage == Stage::Tail && caught_up {
            resync.base = LogPosition { lsn: self.commit, ..resync.base };
            resync.step(now, Stage::Listing);
            self.list(now, copy, out);
        }
    }

    /// Its node is not reached any more: it begins anew, from what it has, when it is back.
    pub(super) fn learner_lost(&mut self, copy: ReplicaRef) {
        if self.resyncs.remove(&copy).is_some()
            && let Some(c) = self.copies.get_mut(&copy)
        {
            c.send_from(None);
        }
    }

    /// The records that it needs next are in no log any more.
    pub(super) fn learner_fell_behind(&mut self, now: Time, copy: ReplicaRef, out: &mut Vec<OwnerOutput>) {
        let resumed = self.resyncs.get(&copy).is_some_and(Resync::leaves_images);
        self.learn(now, copy, resumed, out);
    }

    /// Its log ends before what it acknowledged: the copy that acknowledged was given up, and this one made in its place.
    pub(super) fn learner_regressed(&mut self, now: Time, copy: ReplicaRef, out: &mut Vec<OwnerOutput>) {
        if self.resyncs.contains_key(&copy) {
            self.learn(now, copy, false, out);
        }
    }

    /// Not even the next record alone fits. The segment may have held more at that record than it does now, and the
    /// discard that says so stands behind it: only images of what is there now can go in.
    pub(super) fn learner_lacks_room(&mut self, now: Time, copy: ReplicaRef, out: &mut Vec<OwnerOutput>) {
        if self.resyncs.get(&copy).is_some_and(|r| r.stage == Stage::Tail) {
            self.learn(now, copy, false, out);
        }
    }

    pub(super) fn resyncs_timer(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let all: Vec<ReplicaRef> = self.resyncs.keys().copied().collect();
        for copy in all {
            let Some(resync) = self.resyncs.get_mut(&copy) else { continue };
            let late = resync.step_until <= now;
            match resync.stage {
                Stage::Listing if resync.not_before <= now => self.list(now, copy, out),
                Stage::Copying | Stage::Comparing if resync.not_before <= now && !late => {
                    self.drive(now, copy, out)
                }
                Stage::Proposing if late => {
                    resync.went_on(now);
                    self.propose_add(now, copy, out);
                }
                // An answer was lost: again, with what is there already.
                Stage::Learning | Stage::Copying | Stage::Comparing | Stage::Finishing if late => {
                    let resumed = resync.leaves_images();
                    self.learn(now, copy, resumed, out);
                }
                _ => {}
            }
        }
        if self.begin_at.is_some_and(|at| at <= now) {
            self.begin_at = None;
            self.begin_resyncs(now, out);
        }
        if self.begin_at.is_none() && self.has_idle_learner() {
            self.begin_at = Some(now + BEGIN_AGAIN);
        }
    }

    fn has_idle_learner(&self) -> bool {
        self.active()
            && self.copies.values().any(|c| {
                !c.counts
                    && c.up
                    && self.members.contains(&c.replica)
                    && !self.resyncs.contains_key(&c.replica)
            })
    }

    pub(super) fn resyncs_timer_at(&self) -> Option<Time> {
        let at = |r: &Resync| match r.stage {
            Stage::Listing => (r.not_before != Time::NEVER).then_some(r.not_before),
            Stage::Copying | Stage::Comparing if r.under_way() == 0 => Some(r.not_before.min(r.step_until)),
            Stage::Learning | Stage::Copying | Stage::Comparing | Stage::Finishing | Stage::Proposing => {
                Some(r.step_until)
            }
            Stage::Tail => None,
        };
        let begin =
            if self.begin_at.is_some() { self.begin_at } else { self.has_idle_learner().then_some(Time(0)) };
        self.resyncs.values().filter_map(at).chain(begin).min()
    }
}

/// Blocks that are not equal although both sides show a state of at least their LSN, or that do not pass their
/// checksum.
fn differing(own: &(Lsn, Vec<BlockDigest>), theirs: &(Lsn, Vec<BlockDigest>)) -> BTreeSet<BlockIndex> {
    let settled = own.0.min(theirs.0);
    let table = |blocks: &[BlockDigest]| -> BTreeMap<BlockIndex, BlockDigest> {
        blocks.iter().map(|b| (b.block, *b)).collect()
    };
    let (a, b) = (table(&own.1), table(&theirs.1));
    let every: BTreeSet<BlockIndex> = a.keys().chain(b.keys()).copied().collect();
    let differs = |block: &BlockIndex| match (a.get(block), b.get(block)) {
        (Some(x), Some(y)) if x.lsn > settled || y.lsn > settled => false,
        (Some(x), Some(y)) => !x.agrees(y) || matches!(x.content, holdfast_types::BlockContent::Bad(_)),
        (Some(x), None) | (None, Some(x)) => {
            x.lsn <= settled && x.content != holdfast_types::BlockContent::Absent
        }
        (None, None) => false,
    };
    every.into_iter().filter(differs).collect()
}

fn damaged(blocks: &[BlockDigest], among: &BTreeSet<BlockIndex>) -> Vec<BlockIndex> {
    let bad = |b: &&BlockDigest| {
        among.contains(&b.block) && matches!(b.content, holdfast_types::BlockContent::Bad(_))
    };
    blocks.iter().filter(bad).map(|b| b.block).collect()
}

/// Whether a client asked something a moment ago.
pub(super) fn is_recent(request: Option<Time>, now: Time) -> bool {
    request.is_some_and(|at| now.since(at) < CLIENTS_RECENT)
}
