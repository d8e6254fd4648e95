//! A node's disk, for damage on purpose. It knows of the format only that data and metadata lie behind the superblocks and
//! the journal, and what an extent's page begins with; it finds blocks by their content.

use crate::pattern::BLOCK;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The superblocks with their room, and the bounds of the journal's size, a sixteenth of the disk; docs/formats.md.
const HEADER: u64 = 64 << 10;
const JOURNAL_MIN: u64 = 64 << 20;
const JOURNAL_MAX: u64 = 4 << 30;
const STEP: u64 = 1 << 20;

/// The file of a disk.
pub struct DiskImage {
    file: File,
    size: u64,
}

/// Every block behind the journal that is not zero.
pub struct Snapshot(BTreeMap<u64, Vec<u8>>);

impl DiskImage {
    /// Opens a disk file; its daemon must not run, unless a method says that it may.
    pub fn open(path: &Path) -> DiskImage {
        let file = File::options().read(true).write(true).open(path).expect("the disk file can be opened");
        let size = file.metadata().expect("a file has a size").len();
        DiskImage { file, size }
    }

    fn journal_end(&self) -> u64 {
        HEADER + (self.size / 16).clamp(JOURNAL_MIN, JOURNAL_MAX)
    }

    /// Whether a block of this content is in its place, behind the journal. The daemon may run.
    pub fn holds(&self, content: &[u8]) -> bool {
        !self.places(self.journal_end(), content).is_empty()
    }

    /// Flips a bit in the last place that holds this content: the block itself, behind its journal record.
    pub fn flip_bit_of(&self, content: &[u8]) {
        let places = self.places(0, content);
        let offset = *places.last().expect("the disk holds the block");
        assert!(offset >= self.journal_end(), "the block lies in the journal only: it was not written back");
        self.flip_bit_at(offset, content);
    }

    /// Where this content is in the journal, where alone it is.
    pub fn place_in_journal(&self, content: &[u8]) -> u64 {
        let places = self.places(0, content);
        assert!(matches!(places[..], [at] if at < self.journal_end()), "it is at {places:?}");
        places[0]
    }

    /// Flips a bit of this content in the journal, where alone it is.
    pub fn flip_bit_in_journal(&self, content: &[u8]) {
        self.flip_bit_at(self.place_in_journal(content), content);
    }

    /// Flips a bit in the newest page of an extent of the first segment, wherever it is. The daemon may run, as long as it has no
    /// use for the page.
    pub fn flip_bit_in_page(&self, extent: u32) {
        let newest = self.newest_page(extent);
        assert!(!newest.is_empty(), "the extent has a page");
        for offset in newest {
            let mut block = [0; BLOCK];
            self.file.read_exact_at(&mut block, offset).expect("the page can be read");
            self.flip_bit_at(offset, &block);
        }
    }

    /// Where the newest page is of an extent of the first segment: in both of its slots if it was never written again. The
    /// daemon may run.
    pub fn newest_page(&self, extent: u32) -> Vec<u64> {
        let (mut newest, mut places) = (0, Vec::new());
        self.each_block(self.journal_end(), |offset, block| {
            let is_page = block.starts_with(b"HFEXTENT");
            let sequence = u64::from_le_bytes(block[24..32].try_into().expect("eight bytes"));
            if is_page && block[40..44] == [0; 4] && block[56..60] == extent.to_le_bytes() {
                if sequence > newest {
                    (newest, places) = (sequence, Vec::new());
                }
                if sequence == newest {
                    places.push(offset);
                }
            }
        });
        places
    }

    /// Where blocks of this content are, from byte `from` on.
    fn places(&self, from: u64, content: &[u8]) -> Vec<u64> {
        let mut places = Vec::new();
        self.each_block(from, |offset, block| {
            if block == content {
                places.push(offset);
            }
        });
        places
    }

    fn flip_bit_at(&self, offset: u64, content: &[u8]) {
        self.write(offset + 100, &[content[100] ^ 1]);
    }

    /// Everything behind the journal.
    pub fn snapshot(&self) -> Snapshot {
        let mut blocks = BTreeMap::new();
        self.each_block(self.journal_end(), |offset, block| {
            blocks.insert(offset, block.to_vec());
        });
        Snapshot(blocks)
    }

    /// Puts every block behind the journal back that differs from the snapshot.
    pub fn put_back_behind_the_journal(&self, snapshot: &Snapshot) {
        let mut changed = Vec::new();
        self.each_block(self.journal_end(), |offset, block| {
            match snapshot.0.get(&offset) {
                Some(old) if old == block => {}
                Some(old) => changed.push((offset, old.clone())),
                None => changed.push((offset, vec![0; BLOCK])),
            };
        });
        assert!(!changed.is_empty(), "nothing changed behind the journal");
        changed.iter().for_each(|(offset, block)| self.write(*offset, block));
    }

    /// Overwrites bytes.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        self.file
            .write_all_at(bytes, offset)
            .and_then(|()| self.file.sync_all())
            .expect("the disk file can be written");
    }

    /// Cuts the file.
    pub fn truncate(&self, size: u64) {
        self.file.set_len(size).expect("the disk file can be cut");
    }

    fn each_block(&self, from: u64, mut see: impl FnMut(u64, &[u8])) {
        let (mut buffer, zeros) = (vec![0; STEP as usize], [0; BLOCK]);
        for start in (from..self.size).step_by(STEP as usize) {
            let len = (self.size - start).min(STEP) as usize;
            self.file.read_exact_at(&mut buffer[..len], start).expect("the disk file can be read");
            for (i, block) in buffer[..len].chunks(BLOCK).enumerate() {
                // Compared as a whole: most of gigabytes are zeros, and the tests are not optimised.
                if block != &zeros[..block.len()] {
                    see(start + (i * BLOCK) as u64, block);
                }
            }
        }
    }
}
