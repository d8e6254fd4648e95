//! A store in memory that keeps the contract of `holdfast_types::order`: orders of one segment take effect in the
//! order given, what has an outcome is durable, what was only ordered is lost in a crash.

use bytes::Bytes;
use holdfast_checksum::crc32c;
use holdfast_types::*;
use std::collections::BTreeMap;

/// What a block holds, and the record that gave it that.
pub type Blocks = BTreeMap<u32, (Lsn, Option<Bytes>)>;

#[derive(Default)]
pub struct Store {
    pub sealed: Epoch,
    trim: LogPosition,
    pub log: Vec<Record>,
    pub committed: Lsn,
    pub blocks: Blocks,
    repeats: RepeatState,
    incomplete: Option<Lsn>,
}

impl Store {
    pub fn last(&self) -> LogPosition {
        self.log.last().map_or(self.trim, |r| r.position)
    }

    pub fn state(&self) -> ReplicaState {
        let mut epochs: Vec<(Lsn, Epoch)> = Vec::new();
        for r in &self.log {
            if epochs.last().is_none_or(|(_, e)| *e != r.position.epoch) {
                epochs.push((r.position.lsn, r.position.epoch));
            }
        }
        let fence = |r: &Record| match r.body {
            RecordBody::Fence { gateway, session } => Some((r.position.lsn, gateway, session)),
            _ => None,
        };
        ReplicaState {
            sealed: self.sealed,
            trim: self.trim,
            applied: self.committed,
            epochs,
            last: self.last(),
            incomplete_since: self.incomplete,
            repeats: self.repeats.clone(),
            tags: self.log.iter().filter_map(|r| Some((r.position.lsn, r.request?))).collect(),
            fences: self.log.iter().filter_map(fence).collect(),
        }
    }

    /// Forgets applied records, as writeback does.
    pub fn trim(&mut self) {
        while self.log.first().is_some_and(|r| r.position.lsn <= self.committed) {
            let record = self.log.remove(0);
            self.trim = record.position;
            if let Some(tag) = record.request {
                let gateway = self.repeats.gateways.entry(tag.gateway).or_default();
                gateway.low = gateway.low.max(tag.low);
                gateway.done.insert(tag.seq, record.position.lsn);
            }
        }
    }

    fn put(&mut self, block: u32, lsn: Lsn, data: Option<Bytes>) {
        let old = self.blocks.get(&block).map_or(Lsn(0), |b| b.0);
        if lsn > old {
            self.blocks.insert(block, (lsn, data));
        }
    }

    fn apply(&mut self, record: &Record) {
        let lsn = record.position.lsn;
        match &record.body {
            RecordBody::Write(w) => {
                for (i, block) in w.range.blocks().enumerate() {
                    let at = i * BLOCK_BYTES;
                    self.put(block.0, lsn, Some(w.data.slice(at..at + BLOCK_BYTES)));
                }
            }
            RecordBody::Zero(range) => range.blocks().for_each(|b| self.put(b.0, lsn, None)),
            RecordBody::Start | RecordBody::Fence { .. } => {}
        }
    }

    fn append(&mut self, cut_after: Option<Lsn>, records: Vec<Record>, sealed: Epoch) -> StoreOutcome {
        assert!(sealed >= self.sealed, "I5: the promise fell");
        self.sealed = sealed;
        if let Some(cut) = cut_after {
            assert!(cut >= self.committed, "I6: what was applied is cut");
            self.log.retain(|r| r.position.lsn <= cut);
        }
        for record in records {
            assert_eq!(record.position.lsn, self.last().lsn.next(), "a log has no gaps");
            self.log.push(record);
        }
        StoreOutcome::Appended { last: self.last() }
    }

    fn changed(&self, since: Lsn) -> Vec<ExtentIndex> {
        let newer = self.blocks.iter().filter(|(_, (lsn, _))| *lsn > since);
        let mut extents: Vec<ExtentIndex> = newer.map(|(b, _)| BlockIndex(*b).extent()).collect();
        extents.dedup();
        extents
    }

    fn digest(&self, extent: ExtentIndex) -> StoreOutcome {
        let first = extent.first_block().0;
        let of = |(b, (lsn, data)): (&u32, &(Lsn, Option<Bytes>))| BlockDigest {
            block: BlockIndex(*b),
            lsn: *lsn,
            content: data.as_ref().map_or(BlockContent::Absent, |d| BlockContent::Good(crc32c(d))),
        };
        let blocks = self.blocks.range(first..first + EXTENT_BLOCKS).map(of).collect();
        StoreOutcome::Digest { at: self.committed, blocks }
    }

    fn image(&self, extent: ExtentIndex, since: Lsn) -> StoreOutcome {
        let first = extent.first_block().0;
        let range = self.blocks.range(first..first + EXTENT_BLOCKS).filter(|(_, (lsn, _))| *lsn > since);
        let of = |(b, (lsn, data)): (&u32, &(Lsn, Option<Bytes>))| ImageBlock {
            block: BlockIndex(*b),
            lsn: *lsn,
            crc: data.as_ref().map_or(0, |d| crc32c(d)),
            data: data.clone(),
        };
        StoreOutcome::Image { at: self.committed, blocks: range.map(of).collect() }
    }

    fn read(&self, range: BlockRange) -> StoreOutcome {
        let zeros = Bytes::from_static(&[0; BLOCK_BYTES]);
        let of = |b: BlockIndex| self.blocks.get(&b.0).and_then(|b| b.1.clone()).unwrap_or(zeros.clone());
        StoreOutcome::Read { data: range.blocks().map(of).collect() }
    }

    /// Carries an order out. `commits` hears of each record when this copy first holds it as committed.
    pub fn order(&mut self, order: StoreOrder, commits: &mut Vec<Record>) -> Option<StoreOutcome> {
        Some(match order {
            StoreOrder::Seal { epoch } => {
                assert!(epoch >= self.sealed, "I5: the promise fell");
                self.sealed = epoch;
                StoreOutcome::Sealed
            }
            StoreOrder::Append { cut_after, records, sealed } => self.append(cut_after, records, sealed),
            StoreOrder::Commit { lsn } => {
                assert!(lsn <= self.last().lsn, "I6: the commit is beyond the log's end");
                let new: Vec<Record> = self
                    .log
                    .iter()
                    .filter(|r| r.position.lsn > self.committed && r.position.lsn <= lsn)
                    .cloned()
                    .collect();
                new.iter().for_each(|r| self.apply(r));
                self.committed = self.committed.max(lsn);
                commits.extend(new);
                return None;
            }
            StoreOrder::KeepRoom { .. } => StoreOutcome::RoomKept { spare: 1 },
            StoreOrder::Read { range } => self.read(range),
            StoreOrder::Status { range } => StoreOutcome::Status { runs: vec![(range.count, true)] },
            StoreOrder::ReadLog { after, .. } => {
                let next = self.log.iter().position(|r| r.position.lsn == after.next());
                let records = next.map_or(Vec::new(), |i| self.log[i..].iter().take(4).cloned().collect());
                StoreOutcome::Log { records }
            }
            StoreOrder::Changed { since } => StoreOutcome::Changed { extents: self.changed(since) },
            StoreOrder::ReadImage { extent, since } => self.image(extent, since),
            StoreOrder::InstallImage { blocks } => {
                assert!(self.incomplete.is_some(), "images are for learners");
                blocks.into_iter().for_each(|b| self.put(b.block.0, b.lsn, b.data));
                StoreOutcome::Installed
            }
            StoreOrder::Digest { extent } => self.digest(extent),
            StoreOrder::Heal { .. } => StoreOutcome::Healed { replaced: false },
            StoreOrder::Reset { base, sealed } => {
                assert!(sealed >= self.sealed && base.lsn >= self.committed);
                let since = self.incomplete.unwrap_or(self.committed);
                self.incomplete = Some(since);
                (self.sealed, self.trim, self.committed) = (sealed, base, base.lsn);
                self.log.clear();
                self.repeats = RepeatState::default();
                StoreOutcome::Reset { since }
            }
            StoreOrder::Complete { repeats } => {
                (self.repeats, self.incomplete) = (repeats, None);
                StoreOutcome::Completed
            }
        })
    }
}
