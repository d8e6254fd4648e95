//! Random orders, power cuts at any moment, and a model: what was answered is there, reads are right, nothing
//! leaks, and no cut is taken for damage.

mod common;

use common::*;
use holdfast_store::layout::GROWTH_MIN_BYTES;
use holdfast_store::testing::{Cut, Rig, Rng};
use holdfast_store::{StoreConfig, StoreEvent};
use holdfast_types::*;
use std::collections::BTreeMap;

const SEGMENTS: u32 = 3;
const BLOCKS: u64 = 5 * EXTENT_BLOCKS as u64;

/// What one segment should hold.
#[derive(Default)]
struct Model {
    /// Record `i` has LSN `i + 1`.
    log: Vec<Record>,
    /// The log before a cut that was not answered yet.
    before_cut: Option<Vec<Record>>,
    epoch: u64,
    sealed_order: Option<(u64, u64)>,
    sealed: u64,
    durable: u64,
    commit: u64,
    appends: BTreeMap<u64, u64>,
    reads: BTreeMap<u64, (BlockRange, u64)>,
    /// Where a stream of long writes goes on.
    stream: u32,
}

/// The LSN whose data block holds at commit position `commit`; None: absent.
fn holder(log: &[Record], block: u32, commit: u64) -> Option<u64> {
    let touching = |r: &&Record| r.range().is_some_and(|g| (g.start.0..g.end().0).contains(&block));
    let last = log[..commit as usize].iter().rev().find(touching)?;
    matches!(last.body, RecordBody::Write(_)).then_some(last.position.lsn.0)
}

impl Model {
    fn check_read(&self, range: BlockRange, from: u64, data: &[u8]) {
        for (block, got) in range.blocks().zip(data.chunks_exact(BLOCK_BYTES)) {
            let fits = (from..=self.commit).any(|commit| match holder(&self.log, block.0, commit) {
                Some(lsn) => got == content(block.0, 1, lsn),
                None => got.iter().all(|b| *b == 0),
            });
            assert!(fits, "block {} at commit {from}..{}: {:?}", block.0, self.commit, &got[..8]);
        }
    }
}

struct Run {
    rig: Rig,
    rng: Rng,
    models: Vec<Model>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let config = StoreConfig {
            dirty_limit_bytes: (128 + rng.below(1024) as usize) << 10,
            log_memory_bytes: (rng.below(512) as usize) << 10,
            log_retain_bytes: rng.below(8) << 20,
            direct_from_blocks: 1 + rng.below(16) as u32,
            ..small()
        };
        let mut rig = Rig::format(48 * MIB, config, seed);
        for n in 0..SEGMENTS {
            rig.call(|s, now, _| s.create_replica(now, key(n)));
        }
        let models = (0..SEGMENTS).map(|_| Model { epoch: 1, ..Model::default() }).collect();
        Self { rig, rng, models }
    }

    fn random_record(&mut self, n: usize, lsn: u64) -> Record {
        let epoch = self.models[n].epoch;
        if self.rng.one_in(3) {
            return self.next_of_stream(n, lsn);
        }
        let most = if self.rng.one_in(6) { 256 } else { 8 };
        let count = 1 + self.rng.below(most) as u32;
        let block = self.rng.below(BLOCKS - u64::from(count)) as u32;
        match self.rng.below(12) {
            0 => record(epoch, lsn, RecordBody::Start),
            1 => zero(epoch, lsn, block, count),
            2 => zero(epoch, lsn, block / EXTENT_BLOCKS * EXTENT_BLOCKS, EXTENT_BLOCKS),
            _ => write(epoch, lsn, block, count),
        }
    }

    /// A write behind the last one, to the end of the extent at most; now and then the stream begins anew.
    fn next_of_stream(&mut self, n: usize, lsn: u64) -> Record {
        let at = self.models[n].stream;
        let is_new = at.is_multiple_of(EXTENT_BLOCKS) || self.rng.one_in(20);
        let extents = BLOCKS / u64::from(EXTENT_BLOCKS);
        let start = if is_new { self.rng.below(extents) as u32 * EXTENT_BLOCKS } else { at };
        let most = if self.rng.one_in(4) { EXTENT_BLOCKS } else { 64 };
        let left = EXTENT_BLOCKS - start % EXTENT_BLOCKS;
        let count = left.min(1 + self.rng.below(most.into()) as u32);
        self.models[n].stream = start + count;
        write(self.models[n].epoch, lsn, start, count)
    }

    fn append(&mut self, n: usize) {
        if self.models[n].before_cut.is_some() {
            return;
        }
        let mut cut_after = None;
        let (last, commit) = (self.models[n].log.len() as u64, self.models[n].commit);
        if last > commit && self.rng.one_in(15) && self.models[n].appends.is_empty() {
            let m = &mut self.models[n];
            let after = commit + self.rng.below(last - commit);
            m.epoch += 1;
            m.before_cut = Some(m.log.clone());
            m.log.truncate(after as usize);
            m.durable = m.durable.min(after);
            cut_after = Some(Lsn(after));
        }
        let from = self.models[n].log.len() as u64;
        let records: Vec<Record> =
            (1..=1 + self.rng.below(3)).map(|i| self.random_record(n, from + i)).collect();
        let m = &mut self.models[n];
        m.log.extend(records.iter().cloned());
        let order = StoreOrder::Append { cut_after, records, sealed: Epoch(m.epoch) };
        let number = self.rig.order(key(n as u32), order);
        let last = self.models[n].log.len() as u64;
        self.models[n].appends.insert(number, last);
        if let Some(StoreOutcome::Refused(refusal)) = self.rig.outcomes.get(&number) {
            // Nothing of it is in the log.
            assert_eq!(*refusal, StoreRefusal::Later);
            self.rig.outcomes.remove(&number);
            let m = &mut self.models[n];
            m.appends.remove(&number);
            match m.before_cut.take() {
                Some(log) => (m.durable, m.log) = (log.len() as u64, log),
                None => m.log.truncate(from as usize),
            }
        }
    }

    fn take_outcomes(&mut self) {
        for (n, m) in self.models.iter_mut().enumerate() {
            let done = |number: &u64| self.rig.outcomes.contains_key(number);
            let appended: Vec<u64> = m.appends.keys().copied().filter(done).collect();
            for number in appended {
                let last = m.appends.remove(&number).expect("listed just now");
                let outcome = self.rig.outcomes.remove(&number).expect("filtered just now");
                assert!(
                    matches!(outcome, StoreOutcome::Appended { last: l } if l.lsn.0 == last),
                    "{outcome:?}"
                );
                m.durable = m.durable.max(last);
                m.sealed = m.sealed.max(m.epoch);
                m.before_cut = None;
            }
            let read: Vec<u64> =
                m.reads.keys().copied().filter(|r| self.rig.outcomes.contains_key(r)).collect();
            for number in read {
                let (range, from) = m.reads.remove(&number).expect("listed just now");
                let outcome = self.rig.outcomes.remove(&number).expect("filtered just now");
                m.check_read(range, from, &joined(outcome));
            }
            if let Some((number, epoch)) = m.sealed_order
                && self.rig.outcomes.remove(&number).is_some()
            {
                m.sealed = m.sealed.max(epoch);
                m.sealed_order = None;
            }
            assert_eq!(
                self.rig.store.replica_state(key(n as u32)).map(|s| s.last.lsn.0),
                Some(m.log.len() as u64)
            );
        }
    }

    fn act(&mut self) {
        let n = self.rng.below(u64::from(SEGMENTS)) as usize;
        let k = key(n as u32);
        match self.rng.below(20) {
            0..7 => self.append(n),
            7..11 => {
                let m = &mut self.models[n];
                m.commit = m.commit.max(m.commit + self.rng.below(m.durable.saturating_sub(m.commit) + 1));
                let lsn = Lsn(m.commit);
                self.rig.order(k, StoreOrder::Commit { lsn });
            }
            11..14 => {
                let count = 1 + self.rng.below(40) as u32;
                let range = BlockRange::new(BlockIndex(self.rng.below(BLOCKS) as u32), count);
                let number = self.rig.order(k, StoreOrder::Read { range });
                let from = self.models[n].commit;
                self.models[n].reads.insert(number, (range, from));
            }
            14 if self.models[n].sealed_order.is_none() && self.models[n].appends.is_empty() => {
                self.models[n].epoch += 1;
                let epoch = self.models[n].epoch;
                let number = self.rig.order(k, StoreOrder::Seal { epoch: Epoch(epoch) });
                self.models[n].sealed_order = Some((number, epoch));
            }
            15 if self.rng.one_in(2) => {
                // Room that no record uses, or one that is on its way already: every count has to stay right.
                let extent = ExtentIndex((self.rng.below(BLOCKS) / u64::from(EXTENT_BLOCKS)) as u32);
                let after = Lsn((self.models[n].log.len() as u64 + 3).saturating_sub(self.rng.below(6)));
                let number = self.rig.order(k, StoreOrder::KeepRoom { extent, after });
                let outcome = self.rig.outcomes.remove(&number);
                assert!(matches!(outcome, Some(StoreOutcome::RoomKept { .. })), "{outcome:?}");
                self.rig.now += Duration::from_secs(self.rng.below(5));
            }
            15 => {
                if let Some(time) = self.rig.store.next_timer().filter(|_| self.rng.one_in(4)) {
                    self.rig.now = self.rig.now.max(time);
                    self.rig.call(|s, now, out| s.timer(now, out));
                }
            }
            _ => {
                for _ in 0..self.rng.below(12) {
                    self.rig.step();
                    self.take_outcomes();
                }
            }
        }
        self.take_outcomes();
    }

    fn power_cut(&mut self) {
        let cut = [Cut::LoseAll, Cut::Torn, Cut::KeepAll][self.rng.below(3) as usize];
        // The device may be a larger one when the host is back, and the power may go again before that is written down.
        if self.rng.one_in(8) {
            self.rig.disk.resize(self.rig.disk.size() + GROWTH_MIN_BYTES);
        }
        if self.rng.one_in(3) {
            self.rig.disk.power_cut(cut);
            self.rig.begin_opening();
            for _ in 0..self.rng.below(20) {
                self.rig.step();
            }
        }
        self.rig.restart(cut);
        match &self.rig.opened {
            Some(Ok(_)) => {}
            other => panic!("a power cut is not damage: {other:?}"),
        }
        for n in 0..SEGMENTS as usize {
            let k = key(n as u32);
            let m = &mut self.models[n];
            m.appends.clear();
            m.reads.clear();
            m.sealed_order = None;
            let Some(state) = self.rig.store.replica_state(k) else {
                assert!(m.durable == 0 && m.sealed == 0, "segment {n} is gone");
                *m = Model { epoch: m.epoch, ..Model::default() };
                self.rig.call(|s, now, _| s.create_replica(now, k));
                continue;
            };
            assert!(state.sealed.0 >= m.sealed, "a promise is gone");
            assert!(state.last.lsn.0 >= m.durable, "an answered record is gone");
            assert!(state.applied.0 <= m.commit, "applied beyond what was committed");
            // What is in place must be readable before anything is committed again.
            let range = BlockRange::new(BlockIndex(0), BLOCKS as u32);
            let outcome = self.rig.run(k, StoreOrder::Read { range });
            self.models[n].check_read(range, state.applied.0, &joined(outcome));
            let (state, records) = self.whole_log(k);
            assert_eq!(records.last().map_or(state.trim.lsn, |r| r.position.lsn), state.last.lsn);
            let first = state.trim.lsn.0 as usize;
            let end = state.last.lsn.0 as usize;
            let m = &mut self.models[n];
            let fits = |log: &Vec<Record>| log.len() >= end && log[first..end] == records[..];
            if !fits(&m.log) {
                let before = m.before_cut.take().filter(|log| fits(log));
                m.log = before.expect("the log is a beginning of what was ordered");
            }
            m.before_cut = None;
            m.log.truncate(end);
            m.durable = end as u64;
            m.epoch = m.epoch.max(state.sealed.0) + 1;
            let lsn = Lsn(m.commit);
            self.rig.order(k, StoreOrder::Commit { lsn });
        }
        self.check_all();
    }

    /// A segment's log. Records that are in place may leave it while it is read.
    fn whole_log(&mut self, k: SegmentKey) -> (ReplicaState, Vec<Record>) {
        loop {
            let state = self.rig.store.replica_state(k).expect("it is there");
            let order = StoreOrder::ReadLog { after: state.trim.lsn, max_bytes: 1 << 30 };
            let StoreOutcome::Log { records } = self.rig.run(k, order) else { panic!("no log") };
            if self.rig.store.replica_state(k).is_some_and(|s| s.trim == state.trim) {
                return (state, records);
            }
        }
    }

    fn check_all(&mut self) {
        for n in 0..SEGMENTS as usize {
            let range = BlockRange::new(BlockIndex(0), BLOCKS as u32);
            let outcome = self.rig.run(key(n as u32), StoreOrder::Read { range });
            let m = &self.models[n];
            m.check_read(range, m.commit, &joined(outcome));
        }
    }

    fn finish(&mut self) {
        self.rig.settle();
        self.take_outcomes();
        self.check_all();
        for n in 0..SEGMENTS {
            self.rig.call(|s, now, out| s.drop_replica(now, key(n), out));
        }
        self.rig.idle();
        let usage = self.rig.store.usage();
        assert_eq!((usage.extents_free, usage.pages_used), (usage.extents_total, 0), "space leaks");
        assert_eq!(usage.dirty_bytes, 0);
        self.rig.restart(Cut::Torn);
        assert!(self.rig.store.segments().is_empty());
        // Seconds pass here while orders are under way.
        let silence = |e: &StoreEvent| {
            matches!(
                e,
                StoreEvent::DiskSilent { .. }
                    | StoreEvent::DiskAnswers { .. }
                    | StoreEvent::DiskSlow { .. }
                    | StoreEvent::DiskKeepsUp { .. }
            )
        };
        self.rig.events.retain(|e| !silence(e));
        assert!(self.rig.events.is_empty(), "{:?}", self.rig.events);
    }
}

#[test]
fn what_was_answered_survives_power_cuts_at_any_moment() {
    let (from, to) = match std::env::var("HOLDFAST_SEED").ok().and_then(|s| s.parse::<u64>().ok()) {
        Some(seed) => (seed, seed + 1),
        None => (0, 24),
    };
    for seed in from..to {
        println!("HOLDFAST_SEED={seed}");
        let mut run = Run::new(seed);
        for _ in 0..4 {
            for _ in 0..150 {
                run.act();
            }
            run.power_cut();
        }
        run.finish();
    }
}
