//! One file as a disk with a volatile cache: which writes are still in the cache, sector by sector, and what a
//! power cut leaves of them. Source: what ATA and NVMe promise of a write cache: nothing before a flush, whole
//! sectors ever.

use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::unix::fs::FileExt,
};

/// What a disk writes whole or not at all.
pub(crate) const SECTOR: u64 = 512;
/// A cache that holds more than this writes itself out, as those of disks do.
const CACHE_BYTES_MAX: u64 = 256 << 20;

/// What a cut did to the writes that were not flushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CutReport {
    /// Writes that reached the disk whole.
    pub kept: u64,
    /// Writes that are gone.
    pub dropped: u64,
    /// Writes of which some sectors reached the disk.
    pub torn: u64,
}

/// A sector's content as one write left it.
#[derive(Debug)]
struct Version {
    write: u64,
    data: Bytes,
}

/// What becomes of a write when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Keep,
    Drop,
    /// Each sector for itself.
    Tear,
}

#[derive(Debug)]
pub(crate) struct Drive {
    backing: File,
    /// What readers see; the backing file may be shorter.
    size: u64,
    /// Per sector what is in the cache, oldest first.
    cache: BTreeMap<u64, Vec<Version>>,
    cached_bytes: u64,
    writes: u64,
    /// Sectors that cannot be read until they are written.
    lost: BTreeSet<u64>,
}

impl Drive {
    pub(crate) fn new(backing: File) -> io::Result<Drive> {
        let size = backing.metadata()?.len();
        Ok(Drive { backing, size, cache: BTreeMap::new(), cached_bytes: 0, writes: 0, lost: BTreeSet::new() })
    }

    pub(crate) fn backing(&self) -> &File {
        &self.backing
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn cached_bytes(&self) -> u64 {
        self.cached_bytes
    }

    /// What a reader sees, the cache included; shorter at the end of the file.
    pub(crate) fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let len = (self.size.saturating_sub(offset)).min(len as u64) as usize;
        let sectors = offset / SECTOR..(offset + len as u64).div_ceil(SECTOR);
        if len > 0 && self.lost.range(sectors.clone()).next().is_some() {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()));
        }
        let mut content = self.read_sectors(sectors.start, sectors.end)?;
        content.drain(..(offset % SECTOR) as usize);
        content.truncate(len);
        Ok(content)
    }

    /// Whole sectors; zeros beyond the end.
    fn read_sectors(&self, first: u64, end: u64) -> io::Result<Vec<u8>> {
        let mut content = vec![0; ((end.saturating_sub(first)) * SECTOR) as usize];
        let mut filled = 0;
        while filled < content.len() {
            match self.backing.read_at(&mut content[filled..], first * SECTOR + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if first < end {
            for (sector, versions) in self.cache.range(first..end) {
                if let Some(last) = versions.last() {
                    let at = ((sector - first) * SECTOR) as usize;
                    content[at..at + SECTOR as usize].copy_from_slice(&last.data);
                }
            }
        }
        Ok(content)
    }

    /// A write into the cache, or through it when `durable`: this write then, and no other.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8], durable: bool) -> io::Result<()> {
        let end = offset + data.len() as u64;
        let (first, last) = (offset / SECTOR, end.div_ceil(SECTOR));
        let aligned = offset.is_multiple_of(SECTOR) && end.is_multiple_of(SECTOR);
        let whole = if aligned {
            Bytes::copy_from_slice(data)
        } else {
            // A disk knows whole sectors only: what is around the data is written with it.
            let mut whole = self.read_sectors(first, last)?;
            let at = (offset - first * SECTOR) as usize;
            whole[at..at + data.len()].copy_from_slice(data);
            Bytes::from(whole)
        };
        self.size = self.size.max(end);
        self.writes += 1;
        for sector in first..last {
            let at = ((sector - first) * SECTOR) as usize;
            let data = whole.slice(at..at + SECTOR as usize);
            self.lost.remove(&sector);
            if durable {
                self.forget(sector);
            } else {
                self.cached_bytes += SECTOR;
                self.cache.entry(sector).or_default().push(Version { write: self.writes, data });
            }
        }
        if durable {
            self.store(first, &whole)?;
        } else if self.cached_bytes > CACHE_BYTES_MAX {
            self.flush()?;
        }
        Ok(())
    }

    /// Drops what the cache holds of a sector: something newer is on the disk.
    fn forget(&mut self, sector: u64) {
        if let Some(versions) = self.cache.remove(&sector) {
            self.cached_bytes -= versions.len() as u64 * SECTOR;
        }
    }

    /// Puts sectors on the disk, none of it beyond the end of the file.
    fn store(&self, first: u64, content: &[u8]) -> io::Result<()> {
        let room = self.size.saturating_sub(first * SECTOR).min(content.len() as u64) as usize;
        self.backing.write_all_at(&content[..room], first * SECTOR)
    }

    /// Everything that is in the cache goes to the disk.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let cache = std::mem::take(&mut self.cache);
        self.cached_bytes = 0;
        let newest = cache.into_iter().filter_map(|(sector, mut v)| v.pop().map(|v| (sector, v.data)));
        self.store_runs(newest)?;
        if self.backing.metadata()?.len() < self.size {
            self.backing.set_len(self.size)?;
        }
        Ok(())
    }

    /// Puts sectors in rising order on the disk, neighbours in one write.
    fn store_runs(&self, sectors: impl Iterator<Item = (u64, Bytes)>) -> io::Result<()> {
        let mut run: Vec<u8> = Vec::new();
        let mut first = 0;
        for (sector, data) in sectors {
            if sector != first + run.len() as u64 / SECTOR || run.len() >= 1 << 20 {
                self.store(first, &run)?;
                run.clear();
                first = sector;
            }
            run.extend_from_slice(&data);
        }
        self.store(first, &run)
    }

    /// The power goes: each write in the cache meets its fate. Between a write that was kept and an older one of
    /// the same sector the newer wins; the file ends where what was kept ends.
    pub(crate) fn cut(&mut self, seed: u64) -> io::Result<CutReport> {
        let cache = std::mem::take(&mut self.cache);
        self.cached_bytes = 0;
        let mut report = CutReport::default();
        let mut fates: BTreeMap<u64, Fate> = BTreeMap::new();
        for write in cache.values().flatten().map(|version| version.write) {
            fates.entry(write).or_insert_with(|| fate(seed, write));
        }
        for fate in fates.values() {
            match fate {
                Fate::Keep => report.kept += 1,
                Fate::Drop => report.dropped += 1,
                Fate::Tear => report.torn += 1,
            }
        }
        let survives = |sector: u64, write: u64| match fates.get(&write) {
            Some(Fate::Keep) => true,
            Some(Fate::Tear) => mix(seed ^ mix(write) ^ mix(sector.rotate_left(32))) & 1 == 1,
            Some(Fate::Drop) | None => false,
        };
        let kept = cache.into_iter().filter_map(|(sector, versions)| {
            let newest = versions.into_iter().rfind(|version| survives(sector, version.write))?;
            Some((sector, newest.data))
        });
        self.store_runs(kept)?;
        self.size = self.backing.metadata()?.len();
        Ok(report)
    }

    /// The medium lost a sector.
    pub(crate) fn lose(&mut self, offset: u64) {
        self.lost.insert(offset / SECTOR);
    }

    /// Makes the file shorter or longer, durably at once.
    pub(crate) fn set_size(&mut self, size: u64) -> io::Result<()> {
        if size < self.size {
            let gone: Vec<u64> =
                self.cache.range(size.div_ceil(SECTOR)..).map(|(sector, _)| *sector).collect();
            for sector in gone {
                self.forget(sector);
            }
            // What lies behind the new end in its last sector must read as zeros if the file grows again.
            if let Some(versions) = self.cache.get_mut(&(size / SECTOR)) {
                for version in versions {
                    let mut data = version.data.to_vec();
                    data[(size % SECTOR) as usize..].fill(0);
                    version.data = data.into();
                }
            }
        }
        self.backing.set_len(size)?;
        self.size = size;
        Ok(())
    }

    /// The file was reserved up to there in the backing folder.
    pub(crate) fn grown_to(&mut self, end: u64) {
        self.size = self.size.max(end);
    }
}

/// A third of the writes each.
fn fate(seed: u64, write: u64) -> Fate {
    match mix(seed ^ mix(write)) % 3 {
        0 => Fate::Keep,
        1 => Fate::Drop,
        _ => Fate::Tear,
    }
}

/// splitmix64: spreads any number over all 64 bits.
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
