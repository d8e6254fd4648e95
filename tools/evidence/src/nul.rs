//! NUL runs in text files, and what their place and size say about how they came about.
//!
//! Promise: finds every run in a stream in one pass with bounded memory, and names a cause with its reason only when the
//! bytes carry one. A file system block is zero where it was allocated but never written (delayed allocation, then a reset);
//! an overwrite by a program has no reason to stop at a block's edge.

/// Runs kept for one file; further ones are only counted.
const MAX_RUNS: usize = 64;
/// The smallest block that a Linux file system allocates.
const BLOCK: u64 = 512;
/// The usual block and page size.
const PAGE: u64 = 4096;

/// One run of NUL bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NulRun {
    /// Offset of the first NUL.
    pub offset: u64,
    /// Number of NULs.
    pub len: u64,
}

/// All NUL runs of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NulMap {
    /// The first runs in order.
    pub runs: Vec<NulRun>,
    /// NUL bytes in all, those in unkept runs too.
    pub total: u64,
    /// Bytes in the file.
    pub file_len: u64,
}

/// How a NUL run probably came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NulCause {
    /// The whole file is zero: its size reached the disk, its data never did.
    WholeFile,
    /// Zero from a block's edge to the end of the file: the tail was not flushed before the host was reset.
    UnflushedTail,
    /// Zero from somewhere inside a block to the end of the file: an append was torn, the size came first.
    TornAppend,
    /// Zero from one block's edge to another: a hole left by a rewrite that did not reach the disk.
    BlockHole,
    /// Zero that respects no block's edge: a program wrote it, or two writers met.
    Overwrite,
}

impl NulCause {
    /// One sentence for a report.
    pub fn explain(self) -> &'static str {
        match self {
            NulCause::WholeFile => {
                "the whole file is zero: its size reached the disk, its data never did (written without fsync before a reset)"
            }
            NulCause::UnflushedTail => {
                "zero from a block's edge to the end: the last blocks were not flushed before a reset"
            }
            NulCause::TornAppend => {
                "zero from inside a block to the end: an append was torn by a reset, the new size was kept and the data was not"
            }
            NulCause::BlockHole => {
                "zero from one block's edge to another: a rewrite that did not reach the disk"
            }
            NulCause::Overwrite => {
                "zero that keeps to no block's edge: not what a lost flush leaves; a program wrote it or two writers met"
            }
        }
    }
}

impl NulMap {
    /// Adds the piece of the file at `base`; pieces come in order, and what is left out between them holds no NUL.
    pub fn feed(&mut self, base: u64, piece: &[u8]) {
        let mut at = 0;
        while let Some(found) = memchr::memchr(0, &piece[at..]) {
            let start = at + found;
            let len = piece[start..].iter().take_while(|b| **b == 0).count();
            self.add(base + start as u64, len as u64);
            at = start + len;
        }
        self.file_len = base + piece.len() as u64;
    }

    fn add(&mut self, offset: u64, len: u64) {
        self.total += len;
        if let Some(last) = self.runs.last_mut()
            && last.offset + last.len == offset
        {
            last.len += len;
        } else if self.runs.len() < MAX_RUNS {
            self.runs.push(NulRun { offset, len });
        }
    }

    /// Names the probable cause of a run of this map.
    pub fn cause(&self, run: NulRun) -> NulCause {
        let end = run.offset + run.len;
        let to_the_end = end >= self.file_len;
        if run.offset == 0 && to_the_end {
            return NulCause::WholeFile;
        }
        if to_the_end {
            return if run.offset.is_multiple_of(BLOCK) {
                NulCause::UnflushedTail
            } else {
                NulCause::TornAppend
            };
        }
        if run.offset.is_multiple_of(BLOCK) && end.is_multiple_of(BLOCK) {
            NulCause::BlockHole
        } else {
            NulCause::Overwrite
        }
    }

    /// `2048 NUL bytes at offset 4096 (4 KiB aligned)`.
    pub fn describe(run: NulRun) -> String {
        let aligned = if run.offset.is_multiple_of(PAGE) {
            " (on a 4 KiB edge)"
        } else if run.offset.is_multiple_of(BLOCK) {
            " (on a 512-byte edge)"
        } else {
            ""
        };
        format!("{} NUL bytes at offset {}{aligned}", run.len, run.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pieces: &[&[u8]]) -> NulMap {
        let mut map = NulMap::default();
        pieces.iter().for_each(|p| map.feed(map.file_len, p));
        map
    }

    #[test]
    fn a_run_over_two_pieces_is_one_run() {
        let map = map(&[b"ab\0\0", b"\0cd"]);
        assert_eq!(map.runs, [NulRun { offset: 2, len: 3 }]);
        assert_eq!((map.total, map.file_len), (3, 7));
    }

    #[test]
    fn the_size_and_place_of_a_run_say_how_it_came_about() {
        let text = vec![b'x'; 4096];
        let zero = vec![0u8; 4096];
        let cases: [(&[&[u8]], NulCause); 5] = [
            (&[&zero], NulCause::WholeFile),
            (&[&text, &zero], NulCause::UnflushedTail),
            (&[&text[..700], &zero[..99]], NulCause::TornAppend),
            (&[&text, &zero, &text], NulCause::BlockHole),
            (&[&text[..700], &zero[..99], &text], NulCause::Overwrite),
        ];
        for (pieces, expected) in cases {
            let map = map(pieces);
            assert_eq!(map.cause(map.runs[0]), expected);
        }
    }

    #[test]
    fn a_file_of_alternating_nuls_keeps_a_bounded_number_of_runs() {
        let map = map(&[&b"a\0".repeat(10_000)]);
        assert_eq!(map.runs.len(), MAX_RUNS);
        assert_eq!(map.total, 10_000);
    }
}
