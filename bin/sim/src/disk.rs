//! A node's disk: the store's simulated one, and optionally one that lies about stable storage, which is what the
//! durability checker must catch.

use bytes::Bytes;
use holdfast_store::testing::{Cut, Rng, SimDisk};
use holdfast_types::{BLOCK_BYTES, DiskDone, DiskOrder, DiskOrderKind};
use std::collections::VecDeque;

/// How an extent's page begins.
const PAGE_MAGIC: &[u8] = b"HFEXTENT";

/// See the module's text.
#[derive(Debug)]
pub struct Disk {
    disk: SimDisk,
    lies: bool,
    /// Flushes that a lying disk has not answered yet.
    ignored: VecDeque<DiskDone>,
}

impl Disk {
    /// A blank disk.
    pub fn new(size: u64, seed: u64) -> Self {
        Self { disk: SimDisk::new(size, seed), lies: false, ignored: VecDeque::new() }
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.disk.size()
    }

    /// Takes an order. Each is carried out by one `step`.
    pub fn order(&mut self, mut order: DiskOrder) {
        if self.lies {
            match &mut order.kind {
                DiskOrderKind::Write { durable, .. } => *durable = false,
                DiskOrderKind::Flush => {
                    return self.ignored.push_back(DiskDone { token: order.token, result: Ok(Bytes::new()) });
                }
                DiskOrderKind::Read { .. } => {}
            }
        }
        self.disk.order(order);
    }

    /// Carries out one order.
    pub fn step(&mut self) -> Option<DiskDone> {
        self.disk.step().or_else(|| self.ignored.pop_front())
    }

    /// The power fails, or only the daemon dies (`Cut::KeepAll`).
    pub fn power_cut(&mut self, cut: Cut) {
        self.ignored.clear();
        self.disk.power_cut(cut);
    }

    /// From now on it fails writes, or flushes only, or neither.
    pub fn fail(&mut self, writes: bool, flushes: bool) {
        (self.disk.faults.writes, self.disk.faults.flushes) = (writes, flushes);
    }

    /// From now on it says "on stable storage" of what is only in its cache.
    pub fn begin_to_lie(&mut self) {
        self.lies = true;
    }

    /// Flips a bit of a block that holds something, durably: half of the time of an extent's page, of which there are few.
    /// Which block.
    pub fn flip_bit(&mut self, rng: &mut Rng) -> Option<u64> {
        let blocks = self.disk.size() / BLOCK_BYTES as u64;
        let mut used: Vec<u64> = (0..blocks).filter(|n| self.disk.peek(*n).iter().any(|b| *b != 0)).collect();
        let pages: Vec<u64> =
            used.iter().copied().filter(|n| self.disk.peek(*n).starts_with(PAGE_MAGIC)).collect();
        if !pages.is_empty() && rng.one_in(2) {
            used = pages;
        }
        let block = *used.get(rng.below(used.len() as u64) as usize)?;
        let bit = rng.below(8 * BLOCK_BYTES as u64);
        self.disk.flip_bit(block * BLOCK_BYTES as u64 + bit / 8, (bit % 8) as u8);
        Some(block)
    }
}
