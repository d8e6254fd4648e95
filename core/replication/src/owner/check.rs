//! `volume check`: compares every copy of S, from its disk, extent by extent. A block is compared where all copies
//! show a state of at least its LSN; one that live writes have moved on is looked at again. Copies of one block at
//! one LSN must be equal: a copy with a wrong checksum is healed, a difference with good checksums is reported.
//! Between extents that hold something it leaves the disks to clients while this node has any, for some times as long as
//! the last one took, and for at least as long as the caller says: a scrub is in no hurry.

use super::{Owner, OwnerOutput, resync::is_recent};
use crate::message::Body;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use holdfast_types::{
    BLOCK_BYTES, BlockContent, BlockDigest, BlockIndex, Duration, ExtentIndex, Lsn, ReplicaRef,
    SEGMENT_EXTENTS, Time,
};

/// Rounds for blocks that move under live writes.
const ROUNDS_MOST: u32 = 50;
/// Between such rounds.
const ROUND_PAUSE: Duration = Duration::from_millis(20);
/// A copy that does not answer for so long is left out.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// It is asked again so often until then: the question or the answer was lost with a link, or its disk is not open yet.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// The pause between extents while clients are active, in the time that the last extent took.
const GIVE_WAY: u64 = 4;
/// The longest such pause.
const PAUSE_MOST: Duration = Duration::from_millis(100);
/// Differences that are listed; more are counted only.
pub const DIFFERENCES_MOST: usize = 1000;

/// How copies of a block differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DifferenceKind {
    /// A copy does not pass its checksum.
    WrongChecksum,
    /// All pass theirs, and yet they are not equal.
    Content,
}

/// A block whose copies are not equal.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckDifference {
    /// Which block.
    pub block: BlockIndex,
    /// How they differ.
    pub kind: DifferenceKind,
    /// What each copy holds.
    pub copies: Vec<(ReplicaRef, BlockDigest)>,
    /// The copies that were healed.
    pub healed: Vec<ReplicaRef>,
}

impl CheckDifference {
    /// What more than half of the copies hold, if they pass their checksum.
    pub fn majority(&self) -> Option<BlockDigest> {
        let votes = |d: &BlockDigest| self.copies.iter().filter(|(_, other)| other.agrees(d)).count();
        let good = self.copies.iter().map(|(_, d)| *d).filter(|d| !matches!(d.content, BlockContent::Bad(_)));
        good.into_iter().find(|d| votes(d) * 2 > self.copies.len())
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckReport {
    /// Data compared, of one copy.
    pub bytes: u64,
    /// Blocks that kept moving under live writes.
    pub unsettled: u64,
    /// Copies that did not take part to the end.
    pub skipped: Vec<ReplicaRef>,
    /// What differs, the first [`DIFFERENCES_MOST`].
    pub differences: Vec<CheckDifference>,
    /// How many differ in all.
    pub differing: u64,
}

/// A check under way.
#[derive(Debug)]
pub(crate) struct Check {
    extent: ExtentIndex,
    copies: BTreeSet<ReplicaRef>,
    asked: BTreeMap<u64, ReplicaRef>,
    replies: BTreeMap<ReplicaRef, (Lsn, Vec<BlockDigest>)>,
    /// Blocks of this extent still to compare; None: all.
    wanted: Option<BTreeSet<BlockIndex>>,
    rounds: u32,
    /// When its first round began.
    began: Time,
    until: Time,
    /// Who has not answered is asked again then.
    again: Time,
    /// The next round, or extent, begins then.
    pause: Option<Time>,
    /// The least time between extents.
    pace: Duration,
    repairing: usize,
    report: CheckReport,
}

impl Check {
    /// The copy takes no part any more.
    fn leave_out(&mut self, copy: ReplicaRef) {
        self.asked.retain(|_, asked| *asked != copy);
        self.copies.remove(&copy);
        self.report.skipped.push(copy);
    }
}

impl Owner {
    /// Compares all copies of S, from the first extent to the last. A second call while one runs joins it, and the
    /// faster pace counts from then on.
    pub fn start_check(&mut self, now: Time, pace: Duration, out: &mut Vec<OwnerOutput>) {
        if let Some(check) = &mut self.check {
            check.pace = Duration(check.pace.0.min(pace.0));
            return;
        }
        if self.ended() {
            return;
        }
        let copies: BTreeSet<ReplicaRef> = self.set.iter().copied().collect();
        self.check = Some(Check {
            extent: ExtentIndex(0),
            copies,
            asked: BTreeMap::new(),
            replies: BTreeMap::new(),
            wanted: None,
            rounds: 0,
            began: now,
            until: now,
            again: now,
            pause: None,
            pace,
            repairing: 0,
            report: CheckReport::default(),
        });
        self.ask_digests(now, out);
    }

    fn ask_digests(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let reachable = |r: &ReplicaRef| self.copies.get(r).is_some_and(|c| c.up);
        let Some(check) = &mut self.check else { return };
        let gone: Vec<ReplicaRef> = check.copies.iter().filter(|r| !reachable(r)).copied().collect();
        gone.into_iter().for_each(|copy| check.leave_out(copy));
        check.asked.clear();
        check.replies.clear();
        if check.rounds == 0 {
            check.began = now;
        }
        check.rounds += 1;
        check.until = now + ANSWER_WITHIN;
        check.pause = None;
        for copy in check.copies.clone() {
            let number = self.number();
            if let Some(check) = &mut self.check {
                check.asked.insert(number, copy);
            }
        }
        self.ask_who_is_left(now, out);
    }

    /// Asks those of whom an answer is waited for. A second answer is ignored.
    fn ask_who_is_left(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let Some(check) = &mut self.check else { return };
        check.again = now + ASK_AGAIN;
        let (extent, asked) = (check.extent, check.asked.clone());
        for (number, copy) in asked {
            self.send(copy, Body::Digest { number, extent }, out);
        }
    }

    pub(super) fn check_digest(
        &mut self,
        now: Time,
        copy: ReplicaRef,
        number: u64,
        at: Lsn,
        blocks: &[BlockDigest],
        out: &mut Vec<OwnerOutput>,
    ) {
        let Some(check) = &mut self.check else { return };
        if check.asked.get(&number) != Some(&copy) {
            return;
        }
        check.asked.remove(&number);
        check.replies.insert(copy, (at, blocks.to_vec()));
        if check.asked.is_empty() {
            self.compare(now, out);
        }
    }

    fn compare(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let Some(check) = &mut self.check else { return };
        let settled = check.replies.values().map(|(at, _)| *at).min().unwrap_or_default();
        let tables: Vec<(ReplicaRef, BTreeMap<BlockIndex, BlockDigest>)> = check
            .replies
            .iter()
            .map(|(r, (_, blocks))| (*r, blocks.iter().map(|b| (b.block, *b)).collect()))
            .collect();
        let every: BTreeSet<BlockIndex> = tables.iter().flat_map(|(_, t)| t.keys().copied()).collect();
        let wanted = check.wanted.take();
        let mut moving = BTreeSet::new();
        let mut bad = Vec::new();
        for block in every.into_iter().filter(|b| wanted.as_ref().is_none_or(|w| w.contains(b))) {
            let absent = BlockDigest { block, lsn: Lsn(0), content: BlockContent::Absent };
            let copies: Vec<(ReplicaRef, BlockDigest)> =
                tables.iter().map(|(r, t)| (*r, t.get(&block).copied().unwrap_or(absent))).collect();
            if copies.iter().any(|(_, d)| d.lsn > settled) {
                moving.insert(block);
                continue;
            }
            check.report.bytes += BLOCK_BYTES as u64;
            let equal = copies.windows(2).all(|w| w[0].1.agrees(&w[1].1));
            let damaged: Vec<ReplicaRef> = copies
                .iter()
                .filter(|(_, d)| matches!(d.content, BlockContent::Bad(_)))
                .map(|(r, _)| *r)
                .collect();
            if equal && damaged.is_empty() {
                continue;
            }
            let kind =
                if damaged.is_empty() { DifferenceKind::Content } else { DifferenceKind::WrongChecksum };
            check.report.differing += 1;
            if check.report.differences.len() < DIFFERENCES_MOST {
                check.report.differences.push(CheckDifference { block, kind, copies, healed: Vec::new() });
            }
            bad.extend(damaged.into_iter().map(|r| (r, block)));
        }
        if !moving.is_empty() && check.rounds < ROUNDS_MOST {
            check.wanted = Some(moving);
            check.pause = Some(now + ROUND_PAUSE);
        } else {
            check.report.unsettled += moving.len() as u64;
        }
        check.repairing = bad.len();
        for (copy, block) in bad {
            self.repair(now, copy, alloc::vec![block], None, out);
        }
        self.next_extent(now, out);
    }

    /// Goes on once the extent is done.
    fn next_extent(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let Some(check) = &mut self.check else { return };
        if check.repairing > 0 || check.wanted.is_some() || !check.asked.is_empty() {
            return;
        }
        check.rounds = 0;
        check.extent = ExtentIndex(check.extent.0 + 1);
        let done = check.extent.0;
        if done == SEGMENT_EXTENTS || check.copies.is_empty() {
            if let Some(check) = self.check.take() {
                out.push(OwnerOutput::CheckDone(check.report));
            }
            return;
        }
        let read = check.replies.values().any(|(_, blocks)| !blocks.is_empty());
        if done.is_multiple_of(64) {
            out.push(OwnerOutput::CheckProgress { done, total: SEGMENT_EXTENTS });
        }
        let active = is_recent(self.clients_at.max(self.last_request), now);
        let share = if active { GIVE_WAY } else { 0 };
        let pause = (now.since(check.began).0 * share).min(PAUSE_MOST.0);
        let pause = Duration(pause.max(check.pace.0));
        if read && pause > Duration::ZERO {
            check.pause = Some(now + pause);
            return;
        }
        self.ask_digests(now, out);
    }

    pub(super) fn check_healed(&mut self, copy: ReplicaRef, block: BlockIndex) {
        let Some(check) = &mut self.check else { return };
        if let Some(difference) = check.report.differences.iter_mut().rev().find(|d| d.block == block) {
            difference.healed.push(copy);
        }
    }

    /// One of the check's repairs ended.
    pub(super) fn check_repaired(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let Some(check) = &mut self.check else { return };
        check.repairing = check.repairing.saturating_sub(1);
        self.next_extent(now, out);
    }

    /// The link to a copy is gone, and with it the answer that may be waited for.
    pub(super) fn check_without(&mut self, now: Time, copy: ReplicaRef, out: &mut Vec<OwnerOutput>) {
        let Some(check) = &mut self.check else { return };
        if !check.asked.values().any(|asked| *asked == copy) {
            return;
        }
        check.leave_out(copy);
        if check.asked.is_empty() {
            self.compare(now, out);
        }
    }

    pub(super) fn check_timer(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let Some(check) = &mut self.check else { return };
        if check.pause.is_some_and(|at| at <= now) && check.repairing == 0 {
            return self.ask_digests(now, out);
        }
        if check.until <= now && !check.asked.is_empty() {
            let silent: Vec<ReplicaRef> = check.asked.values().copied().collect();
            silent.into_iter().for_each(|copy| check.leave_out(copy));
            return self.compare(now, out);
        }
        if check.again <= now {
            self.ask_who_is_left(now, out);
        }
    }

    pub(super) fn check_timer_at(&self) -> Option<Time> {
        let check = self.check.as_ref()?;
        if check.repairing > 0 {
            return None;
        }
        check.pause.or_else(|| (!check.asked.is_empty()).then_some(check.until.min(check.again)))
    }
}
