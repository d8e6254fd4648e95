//! A disk in memory that forgets at a power cut what was not flushed, tears writes, and fails on request. Orders
//! are done in an order drawn from a seed. It promises no more than a real disk does: a write that is not
//! durable may be kept or lost, sector by sector.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::{vec, vec::Vec};
use bytes::Bytes;
use core::ops::Range;
use holdfast_types::{BLOCK_BYTES, DiskDone, DiskFault, DiskOrder, DiskOrderKind, SECTOR_BYTES};

/// Numbers that look random and are the same for the same seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.draw() % n.max(1)
    }
    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What a power cut does to what was not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All of it is lost.
    LoseAll,
    /// Each sector is kept or lost by chance.
    Torn,
    /// All of it is kept, as when only the process dies.
    KeepAll,
}

/// What is to fail.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Reads of these blocks (by number on the disk).
    pub reads: BTreeSet<u64>,
    /// Every write.
    pub writes: bool,
    /// Every flush, and durable writes with it.
    pub flushes: bool,
    /// Orders to these bytes are not done, and do not fail either.
    pub held: Range<u64>,
}

const SECTORS: usize = BLOCK_BYTES / SECTOR_BYTES;
type Block = [u8; BLOCK_BYTES];

/// The disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    size: u64,
    /// What survives a power cut.
    durable: BTreeMap<u64, Block>,
    /// What was written since, oldest first.
    volatile: Vec<(u64, Block)>,
    /// What a reader sees.
    current: BTreeMap<u64, Block>,
    waiting: Vec<DiskOrder>,
    rng: Rng,
    /// What is to fail.
    pub faults: Faults,
    /// Bytes written so far.
    pub bytes_written: u64,
    /// Flushes and durable writes so far.
    pub flushes: u64,
}

impl SimDisk {
    /// A blank disk.
    pub fn new(size: u64, seed: u64) -> Self {
        Self {
            size,
            durable: BTreeMap::new(),
            volatile: Vec::new(),
            current: BTreeMap::new(),
            waiting: Vec::new(),
            rng: Rng(seed),
            faults: Faults::default(),
            bytes_written: 0,
            flushes: 0,
        }
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
    /// Takes an order.
    pub fn order(&mut self, order: DiskOrder) {
        self.waiting.push(order);
    }
    /// The orders that wait.
    pub fn orders(&self) -> &[DiskOrder] {
        &self.waiting
    }
    /// How many orders wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Does one of the waiting orders, any of them.
    pub fn step(&mut self) -> Option<DiskDone> {
        let is_held = |order: &DiskOrder| match &order.kind {
            DiskOrderKind::Read { offset, .. } | DiskOrderKind::Write { offset, .. } => {
                self.faults.held.contains(offset)
            }
            DiskOrderKind::Flush => false,
        };
        let free: Vec<usize> = (0..self.waiting.len()).filter(|n| !is_held(&self.waiting[*n])).collect();
        if free.is_empty() {
            return None;
        }
        let order = self.waiting.swap_remove(free[self.rng.below(free.len() as u64) as usize]);
        Some(DiskDone { token: order.token, result: self.carry_out(order.kind) })
    }

    fn carry_out(&mut self, kind: DiskOrderKind) -> Result<Bytes, DiskFault> {
        match kind {
            DiskOrderKind::Read { offset, len } => self.read(offset, len),
            DiskOrderKind::Write { offset, data, durable } => {
                if self.faults.writes || (durable && self.faults.flushes) {
                    return Err(DiskFault::Io(5));
                }
                let touched = self.write(offset, &data)?;
                if durable {
                    self.flushes += 1;
                    self.volatile.retain(|(n, _)| !touched.contains(n));
                    touched.iter().for_each(|n| self.harden(*n));
                }
                Ok(Bytes::new())
            }
            DiskOrderKind::Flush => {
                if self.faults.flushes {
                    return Err(DiskFault::Io(5));
                }
                self.flushes += 1;
                let touched: BTreeSet<u64> = self.volatile.drain(..).map(|(n, _)| n).collect();
                touched.into_iter().for_each(|n| self.harden(n));
                Ok(Bytes::new())
            }
        }
    }

    fn harden(&mut self, block: u64) {
        if let Some(content) = self.current.get(&block) {
            self.durable.insert(block, *content);
        }
    }

    fn read(&self, offset: u64, len: usize) -> Result<Bytes, DiskFault> {
        assert!(
            offset.is_multiple_of(BLOCK_BYTES as u64) && len.is_multiple_of(BLOCK_BYTES),
            "reads are aligned"
        );
        if offset + len as u64 > self.size {
            return Err(DiskFault::Short);
        }
        let first = offset / BLOCK_BYTES as u64;
        let mut data = vec![0; len];
        for (n, block) in data.chunks_exact_mut(BLOCK_BYTES).enumerate() {
            if self.faults.reads.contains(&(first + n as u64)) {
                return Err(DiskFault::Io(61));
            }
            if let Some(content) = self.current.get(&(first + n as u64)) {
                block.copy_from_slice(content);
            }
        }
        Ok(Bytes::from(data))
    }

    fn write(&mut self, offset: u64, data: &[Bytes]) -> Result<BTreeSet<u64>, DiskFault> {
        assert!(offset.is_multiple_of(BLOCK_BYTES as u64), "writes are aligned");
        let len: usize = data.iter().map(Bytes::len).sum();
        if offset + len as u64 > self.size {
            return Err(DiskFault::Short);
        }
        self.bytes_written += len as u64;
        let mut block = offset / BLOCK_BYTES as u64;
        let mut touched = BTreeSet::new();
        for piece in data {
            assert!(piece.len().is_multiple_of(BLOCK_BYTES), "pieces are whole blocks");
            for chunk in piece.chunks_exact(BLOCK_BYTES) {
                let mut content = [0; BLOCK_BYTES];
                content.copy_from_slice(chunk);
                self.current.insert(block, content);
                self.volatile.push((block, content));
                touched.insert(block);
                block += 1;
            }
        }
        Ok(touched)
    }

    /// The power fails: orders that wait are done in part or not at all, and what was not flushed is lost as
    /// `cut` says.
    pub fn power_cut(&mut self, cut: Cut) {
        for order in core::mem::take(&mut self.waiting) {
            if let (DiskOrderKind::Write { offset, data, .. }, false) = (order.kind, cut == Cut::LoseAll)
                && !self.faults.writes
            {
                // It lies past the end: nothing of it is written.
                let _ = self.write(offset, &data);
            }
        }
        for (n, content) in core::mem::take(&mut self.volatile) {
            let durable = self.durable.entry(n).or_insert([0; BLOCK_BYTES]);
            let kept = match cut {
                Cut::LoseAll => 0,
                Cut::KeepAll => u64::MAX,
                Cut::Torn => match self.rng.below(3) {
                    0 => 0,
                    1 => u64::MAX,
                    _ => self.rng.draw(),
                },
            };
            for sector in (0..SECTORS).filter(|s| kept >> s & 1 == 1) {
                let at = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                durable[at.clone()].copy_from_slice(&content[at]);
            }
        }
        self.current = self.durable.clone();
    }

    /// Flips a bit, durably.
    pub fn flip_bit(&mut self, byte: u64, bit: u8) {
        let at = (byte % BLOCK_BYTES as u64) as usize;
        for content in [&mut self.current, &mut self.durable] {
            content.entry(byte / BLOCK_BYTES as u64).or_insert([0; BLOCK_BYTES])[at] ^= 1 << bit;
        }
    }

    /// What is there, as a reader sees it.
    pub fn peek(&self, block: u64) -> [u8; BLOCK_BYTES] {
        self.current.get(&block).copied().unwrap_or([0; BLOCK_BYTES])
    }

    /// Makes the device shorter or larger.
    pub fn resize(&mut self, size: u64) {
        self.size = size;
        let keep = |n: &u64| *n < size / BLOCK_BYTES as u64;
        self.current.retain(|n, _| keep(n));
        self.durable.retain(|n, _| keep(n));
        self.volatile.retain(|(n, _)| keep(n));
    }
}
