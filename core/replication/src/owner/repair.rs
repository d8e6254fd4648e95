//! Damaged blocks: a good copy is read from another member of S at the committed state, and replaces the damaged
//! one where it still has the same LSN. Nothing is merged into a block before that (replication.md H17).
//!
//! A block is unreadable only when every copy of S said that it cannot give it. One that is not in reach, or has not
//! heard yet that the state is committed, says nothing: the repair waits for it, as all I/O does.

use super::read::BlockRead;
use super::{Owner, OwnerOutput};
use crate::event::ReplicationEvent;
use crate::message::Body;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use holdfast_types::{BlockIndex, Duration, ImageBlock, Lsn, ReplicaRef, Time};

/// When a source does not answer for so long, another one is asked.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Between looks for a source that is in reach and has what was committed.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A block that is being repaired.
#[derive(Debug)]
struct Repair {
    group: u64,
    bad: ReplicaRef,
    block: BlockIndex,
    /// What was committed when the damage was found. A source that has it has the block in that version or a later
    /// one.
    min: Lsn,
    /// The damaged copy, and those that cannot give the block.
    without: BTreeSet<ReplicaRef>,
    /// Who was asked last: a source, or the damaged copy itself when it is being healed.
    asked: Option<ReplicaRef>,
    healing_from: Option<ReplicaRef>,
    until: Time,
}

/// Blocks that were found damaged together.
#[derive(Debug)]
struct Group {
    read: Option<BlockRead>,
    left: usize,
    failed: bool,
}

/// The repairs of an owner, by the number of the question under way.
#[derive(Debug, Default)]
pub(crate) struct Repairs {
    by_number: BTreeMap<u64, Repair>,
    groups: BTreeMap<u64, Group>,
    next_group: u64,
}

impl Repairs {
    /// The reads that wait for a repair, when the owner ends.
    pub(crate) fn take_reads(&mut self) -> Vec<BlockRead> {
        self.groups.values_mut().filter_map(|group| group.read.take()).collect()
    }
}

impl Owner {
    /// Repairs blocks of a copy. The read that found them goes on afterwards.
    pub(super) fn repair(
        &mut self,
        now: Time,
        bad: ReplicaRef,
        blocks: Vec<BlockIndex>,
        read: Option<BlockRead>,
        out: &mut Vec<OwnerOutput>,
    ) {
        let group = self.repairs.next_group;
        self.repairs.next_group += 1;
        self.repairs.groups.insert(group, Group { read, left: blocks.len(), failed: false });
        for block in blocks {
            self.event(ReplicationEvent::BadBlock { replica: bad, block }, out);
            let (min, without) = (self.commit, BTreeSet::from([bad]));
            let repair =
                Repair { group, bad, block, min, without, asked: None, healing_from: None, until: now };
            self.ask_source(now, repair, out);
        }
    }

    fn ask_source(&mut self, now: Time, mut repair: Repair, out: &mut Vec<OwnerOutput>) {
        let left: Vec<ReplicaRef> =
            self.set.iter().filter(|r| !repair.without.contains(*r)).copied().collect();
        if left.is_empty() {
            self.event(ReplicationEvent::Unreadable { block: repair.block }, out);
            return self.repair_ended(now, repair.group, false, out);
        }
        repair.healing_from = None;
        let has_it = |r: &&ReplicaRef| self.copies.get(*r).is_some_and(|c| c.up && c.committed >= repair.min);
        let ready: Vec<ReplicaRef> = left.iter().filter(has_it).copied().collect();
        let other = ready.iter().find(|r| repair.asked != Some(**r)).or(ready.first());
        let Some(source) = other.copied() else {
            return self.await_source(now, left, repair, out);
        };
        repair.asked = Some(source);
        repair.until = now + ANSWER_WITHIN;
        let (number, block, min_lsn) = (self.number(), repair.block, repair.min);
        self.repairs.by_number.insert(number, repair);
        self.send(source, Body::Read { number, block, min_lsn }, out);
    }

    /// None of those that may have the block can be asked now. They are told what is committed.
    fn await_source(
        &mut self,
        now: Time,
        left: Vec<ReplicaRef>,
        mut repair: Repair,
        out: &mut Vec<OwnerOutput>,
    ) {
        for copy in left {
            if self.copies.get(&copy).is_some_and(|c| c.up && c.next.is_some() && c.sent_commit < repair.min)
            {
                self.probe_copy(now, copy, out);
            }
        }
        repair.asked = None;
        repair.until = now + LOOK_AGAIN;
        let number = self.number();
        self.repairs.by_number.insert(number, repair);
    }

    pub(super) fn repair_read(
        &mut self,
        now: Time,
        copy: ReplicaRef,
        number: u64,
        block: Option<ImageBlock>,
        out: &mut Vec<OwnerOutput>,
    ) {
        if self
            .repairs
            .by_number
            .get(&number)
            .is_none_or(|r| r.asked != Some(copy) || r.healing_from.is_some())
        {
            return;
        }
        let Some(mut repair) = self.repairs.by_number.remove(&number) else { return };
        let Some(block) = block.filter(|b| b.block == repair.block) else {
            repair.without.insert(copy);
            return self.ask_source(now, repair, out);
        };
        repair.healing_from = Some(copy);
        repair.asked = Some(repair.bad);
        repair.until = now + ANSWER_WITHIN;
        let (bad, number) = (repair.bad, self.number());
        self.repairs.by_number.insert(number, repair);
        self.send(bad, Body::Heal { number, block }, out);
    }

    pub(super) fn repair_healed(
        &mut self,
        now: Time,
        copy: ReplicaRef,
        number: u64,
        replaced: bool,
        out: &mut Vec<OwnerOutput>,
    ) {
        if self.repairs.by_number.get(&number).is_none_or(|r| r.bad != copy) {
            return;
        }
        let Some(repair) = self.repairs.by_number.remove(&number) else { return };
        if replaced && let Some(from) = repair.healing_from {
            self.event(ReplicationEvent::Healed { replica: repair.bad, block: repair.block, from }, out);
            self.check_healed(repair.bad, repair.block);
        }
        // Not replaced: the block has moved on, which is as good.
        self.repair_ended(now, repair.group, true, out);
    }

    fn repair_ended(&mut self, now: Time, group: u64, good: bool, out: &mut Vec<OwnerOutput>) {
        let Some(entry) = self.repairs.groups.get_mut(&group) else { return };
        entry.left -= 1;
        entry.failed |= !good;
        if entry.left > 0 {
            return;
        }
        let Some(entry) = self.repairs.groups.remove(&group) else { return };
        match entry.read {
            Some(read) if entry.failed => self.read_failed(now, read, out),
            Some(read) => self.read_again(now, read, out),
            None => self.check_repaired(now, out),
        }
    }

    /// A copy's node is not reached any more: what it was asked is asked elsewhere.
    pub(super) fn repairs_lost(&mut self, now: Time, copy: ReplicaRef, out: &mut Vec<OwnerOutput>) {
        let asked = |r: &Repair| r.asked == Some(copy);
        self.repairs_again(now, asked, out);
    }

    /// A copy said how far it is: the repairs that wait for a source look again.
    pub(super) fn repairs_heard(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        if !self.repairs.by_number.is_empty() {
            self.repairs_again(now, |r| r.asked.is_none(), out);
        }
    }

    pub(super) fn repairs_timer(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        self.repairs_again(now, |r| r.until <= now, out);
    }

    fn repairs_again(&mut self, now: Time, which: impl Fn(&Repair) -> bool, out: &mut Vec<OwnerOutput>) {
        let numbers: Vec<u64> =
            self.repairs.by_number.iter().filter(|(_, r)| which(r)).map(|(number, _)| *number).collect();
        for number in numbers {
            if let Some(repair) = self.repairs.by_number.remove(&number) {
                if repair.healing_from.is_some() {
                    // The damaged copy does not answer; the next read finds the block again, or finds it healed.
                    self.repair_ended(now, repair.group, true, out);
                } else {
                    self.ask_source(now, repair, out);
                }
            }
        }
    }

    pub(super) fn repairs_timer_at(&self) -> Option<Time> {
        self.repairs.by_number.values().map(|r| r.until).min()
    }
}
