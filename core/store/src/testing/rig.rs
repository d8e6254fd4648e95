//! A store on a simulated disk, with a clock of its own, driven order by order.

use super::{Cut, SimDisk};
use crate::{DiskExpected, DiskIdentity, OpenError, OpenReport, Store, StoreConfig, StoreEvent, StoreOutput};
use alloc::{collections::BTreeMap, vec::Vec};
use holdfast_types::{
    ClusterId, DiskId, DiskIncarnation, Duration, NodeId, OrderSource, OrderToken, SegmentKey, StoreOrder,
    StoreOutcome, Time,
};

/// The id of its disk.
pub const RIG_DISK: DiskId = DiskId(9);

/// The store, its disk, and what it said.
#[derive(Debug)]
pub struct Rig {
    /// The disk.
    pub disk: SimDisk,
    /// The store.
    pub store: Store,
    /// The time.
    pub now: Time,
    /// Its configuration.
    pub config: StoreConfig,
    /// Outcomes by the order's number, until they are taken.
    pub outcomes: BTreeMap<u64, StoreOutcome>,
    /// What was said to operators.
    pub events: Vec<StoreEvent>,
    /// Copies that it said are gone.
    pub dropped: Vec<SegmentKey>,
    /// What the last opening found.
    pub opened: Option<Result<OpenReport, OpenError>>,
    next: u64,
}

/// Whose disk the rig's is.
pub fn identity(boot_nonce: u64) -> DiskIdentity {
    DiskIdentity {
        cluster: ClusterId(7),
        node: NodeId(1),
        disk: RIG_DISK,
        incarnation: DiskIncarnation(1),
        boot_nonce,
    }
}

impl Rig {
    /// Formats a disk and opens it.
    pub fn format(size: u64, config: StoreConfig, seed: u64) -> Self {
        let mut out = Vec::new();
        let store = Store::format(Time(0), size, identity(seed + 1), config, &mut out);
        let mut rig = Self {
            disk: SimDisk::new(size, seed),
            store,
            now: Time(0),
            config,
            outcomes: BTreeMap::new(),
            events: Vec::new(),
            dropped: Vec::new(),
            opened: None,
            next: 0,
        };
        rig.take(out);
        rig.settle();
        rig
    }

    fn take(&mut self, out: Vec<StoreOutput>) {
        for output in out {
            match output {
                StoreOutput::Disk(order) => self.disk.order(order),
                StoreOutput::Done { token, outcome, .. } => {
                    let twice = self.outcomes.insert(token.number, outcome);
                    assert!(twice.is_none(), "an order has one outcome");
                }
                StoreOutput::Opened(report) => self.opened = Some(Ok(report)),
                StoreOutput::OpenFailed(error) => self.opened = Some(Err(error)),
                StoreOutput::Dropped { segment } => self.dropped.push(segment),
                StoreOutput::Event(event) => self.events.push(event),
            }
        }
    }

    /// Calls the store.
    pub fn call(&mut self, f: impl FnOnce(&mut Store, Time, &mut Vec<StoreOutput>)) {
        let mut out = Vec::new();
        f(&mut self.store, self.now, &mut out);
        self.take(out);
    }

    /// Gives an order and names it.
    pub fn order(&mut self, key: SegmentKey, order: StoreOrder) -> u64 {
        self.next += 1;
        let token = OrderToken { source: OrderSource::Replica, number: self.next };
        self.call(|s, now, out| s.order(now, key, token, order, out));
        self.next
    }

    /// One pump, and one disk order done. Whether there was one.
    pub fn step(&mut self) -> bool {
        self.call(|s, now, out| s.pump(now, out));
        self.now += Duration::from_micros(10);
        let Some(done) = self.disk.step() else { return false };
        self.call(|s, now, out| s.disk_done(now, done, out));
        true
    }

    /// Goes on until the disk has nothing to do.
    pub fn settle(&mut self) {
        let mut steps = 0;
        loop {
            while self.step() {
                steps += 1;
                assert!(steps < 1_000_000, "it does not come to an end");
            }
            self.call(|s, now, out| s.pump(now, out));
            if self.disk.waiting() == 0 {
                return;
            }
        }
    }

    /// Gives an order and waits for its outcome.
    pub fn run(&mut self, key: SegmentKey, order: StoreOrder) -> StoreOutcome {
        let number = self.order(key, order);
        self.settle();
        let outcome = self.outcomes.remove(&number);
        assert!(outcome.is_some(), "no outcome although nothing is under way: {:?}", self.store.usage());
        outcome.expect("just checked")
    }

    /// Lets the timers fire until there are none.
    pub fn idle(&mut self) {
        for _ in 0..100 {
            self.settle();
            let Some(time) = self.store.next_timer() else { return };
            self.now = self.now.max(time);
            self.call(|s, now, out| s.timer(now, out));
        }
        panic!("timers do not come to an end");
    }

    /// Cuts the power and opens the disk again.
    pub fn restart(&mut self, cut: Cut) {
        self.disk.power_cut(cut);
        self.reopen();
    }

    /// Opens the disk again as it is.
    pub fn reopen(&mut self) {
        self.begin_opening();
        self.settle();
    }

    /// Begins to open it: step by step from here.
    pub fn begin_opening(&mut self) {
        let (size, config, nonce) = (self.disk.size(), self.config, self.now.0 + 1000);
        let mut out = Vec::new();
        self.outcomes.clear();
        self.opened = None;
        let expect = DiskExpected { cluster: ClusterId(7), node: NodeId(1), disk: RIG_DISK };
        self.store = Store::open(self.now, size, expect, nonce, config, &mut out);
        self.take(out);
    }
}
