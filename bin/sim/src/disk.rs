//! A disk of a node: the store's simulated one, and optionally one that lies about stable storage, which is what the
//! durability checker must catch. With it what its node's data folder says of it, and what is wrong with it.

use crate::event::Event;
use bytes::Bytes;
use holdfast_store::DiskIdentity;
use holdfast_store::testing::{Cut, Rng, SimDisk};
use holdfast_types::{BLOCK_BYTES, DiskDone, DiskId, DiskOrder, DiskOrderKind, NodeId};
use std::collections::VecDeque;

/// How an extent's page begins.
const PAGE_MAGIC: &[u8] = b"HFEXTENT";

/// The id of a node's disk by its number there.
pub fn disk_id(node: NodeId, number: u16) -> DiskId {
    DiskId(u128::from(node.0) << 96 | u128::from(number) << 16 | 0xD)
}

/// The node that a disk is in: disks do not move.
pub fn node_of(disk: DiskId) -> NodeId {
    NodeId((disk.0 >> 96) as u16)
}

/// What the data folder says of the disk's openings, as the daemon keeps it.
#[derive(Clone, Debug, Default)]
pub struct Openings {
    /// The last nonce that control is known to have taken.
    pub accepted: u64,
    /// Those since that a store may have written.
    pub tried: Vec<u64>,
}

impl Openings {
    /// The nonce that control is asked to swap for the new one.
    pub fn expected(&self, on_disk: u64, at_control: u64) -> u64 {
        let ours = |nonce| nonce == self.accepted || self.tried.contains(&nonce);
        if self.tried.contains(&on_disk) && ours(at_control) { at_control } else { on_disk }
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Disk {
    disk: SimDisk,
    lies: bool,
    /// Flushes that a lying disk has not answered yet.
    ignored: VecDeque<DiskDone>,
    /// Its openings.
    pub openings: Openings,
    /// Set while it is to be formatted: a crash before that is done starts it over.
    pub format: Option<DiskIdentity>,
    /// It hangs; what it is to do waits here.
    pub hung: Option<Vec<Event>>,
    /// It takes long for everything.
    pub slow: bool,
}

impl Disk {
    /// A blank disk that is to be formatted.
    pub fn new(size: u64, seed: u64, format: DiskIdentity) -> Self {
        Self {
            disk: SimDisk::new(size, seed),
            lies: false,
            ignored: VecDeque::new(),
            openings: Openings::default(),
            format: Some(format),
            hung: None,
            slow: false,
        }
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.disk.size()
    }

    /// Takes an order. Each is carried out by one `step`.
    pub fn order(&mut self, mut order: DiskOrder) {
        if let DiskOrderKind::Write { offset, data, .. } = &order.kind {
            // As a disk does that has sectors to spare.
            let bytes = data.iter().map(Bytes::len).sum::<usize>() as u64;
            let written = offset / BLOCK_BYTES as u64..(offset + bytes) / BLOCK_BYTES as u64;
            self.disk.faults.reads.retain(|block| !written.contains(block));
        }
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

    /// Flips a bit of a block that holds something, durably. Which block.
    pub fn flip_bit(&mut self, rng: &mut Rng) -> Option<u64> {
        let block = self.some_block(rng)?;
        let bit = rng.below(8 * BLOCK_BYTES as u64);
        self.disk.flip_bit(block * BLOCK_BYTES as u64 + bit / 8, (bit % 8) as u8);
        Some(block)
    }

    /// A block that holds something cannot be read any more until it is written. Which block.
    pub fn lose_block(&mut self, rng: &mut Rng) -> Option<u64> {
        let block = self.some_block(rng)?;
        self.disk.faults.reads.insert(block);
        Some(block)
    }

    /// A block that holds something: half of the time an extent's page, of which there are few.
    fn some_block(&self, rng: &mut Rng) -> Option<u64> {
        let blocks = self.disk.size() / BLOCK_BYTES as u64;
        let mut used: Vec<u64> = (0..blocks).filter(|n| self.disk.peek(*n).iter().any(|b| *b != 0)).collect();
        let pages: Vec<u64> =
            used.iter().copied().filter(|n| self.disk.peek(*n).starts_with(PAGE_MAGIC)).collect();
        if !pages.is_empty() && rng.one_in(2) {
            used = pages;
        }
        used.get(rng.below(used.len() as u64) as usize).copied()
    }
}
