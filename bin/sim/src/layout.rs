//! Where the cells are on a volume: what clients read and write, and what the history is judged by.

use holdfast_types::{BLOCK_BYTES, EXTENT_BYTES, SECTOR_BYTES, SEGMENT_BYTES};

/// Where the cells are on the volume: runs of neighbours, of one size each.
#[derive(Clone, Debug)]
pub struct Layout {
    cells: Vec<(u64, usize)>,
}

impl Default for Layout {
    /// Blocks at the start, over a border of extents, in a far extent and over the border of segments; the sectors of
    /// one block, and those around a border of blocks, of extents, and of segments.
    fn default() -> Self {
        let block = BLOCK_BYTES as u64;
        let runs = [0, EXTENT_BYTES as u64 - 2 * block, 9 * EXTENT_BYTES as u64, SEGMENT_BYTES - 2 * block];
        let mut cells: Vec<(u64, usize)> =
            runs.iter().flat_map(|at| (0..4).map(move |n| (at + n * block, BLOCK_BYTES))).collect();
        let sector = SECTOR_BYTES as u64;
        let far = 5 * EXTENT_BYTES as u64;
        let borders = [far + 4 * block, far + EXTENT_BYTES as u64, SEGMENT_BYTES + 4 * block];
        let around = borders.iter().flat_map(|at| (0..4).map(move |n| at - 2 * sector + n * sector));
        cells.extend((0..8).map(|n| far + n * sector).chain(around).map(|at| (at, SECTOR_BYTES)));
        Self { cells }
    }
}

impl Layout {
    /// Where a cell begins, and how long it is.
    pub(crate) fn cell(&self, cell: usize) -> (u64, usize) {
        self.cells[cell]
    }

    /// How many cells there are.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// From the start of one of two cells to the end of the other, and the cells in there.
    pub(crate) fn between(&self, one: usize, other: usize) -> (u64, u32, Vec<usize>) {
        let ((a, a_size), (b, b_size)) = (self.cells[one], self.cells[other]);
        let (from, to) = (a.min(b), (a + a_size as u64).max(b + b_size as u64));
        let inside = |n: &usize| self.cells[*n].0 >= from && self.cells[*n].0 < to;
        (from, (to - from) as u32, (0..self.cells.len()).filter(inside).collect())
    }

    /// How many cells from this one on lie one after the other, at most `most`.
    pub(crate) fn run(&self, first: usize, most: u64) -> usize {
        let (at, size) = self.cells[first];
        let follows = |n: &usize| self.cells.get(first + n) == Some(&(at + (*n * size) as u64, size));
        (0..most as usize).take_while(follows).count()
    }
}
