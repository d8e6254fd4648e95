//! Literals of a long file searched on other cores, ahead of the walk over its lines.
//!
//! Promise: blocks come back in the order in which they were given, with exactly the candidates that a search in place would
//! find, so the result does not depend on the number of cores. A few blocks are in flight at most. The walk itself stays on
//! one core: it carries the time, the host and the open episodes from line to line.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use holdfast_evidence::read::Block;

use crate::literals::Candidate;
use crate::rules::RuleSet;

/// A file is worth a second core from here on.
pub(super) const FROM_BYTES: u64 = 1 << 20;
/// Blocks in flight for each helper.
const IN_FLIGHT: usize = 3;
/// More helpers than this wait for the walk.
const MAX_HELPERS: usize = 3;

/// A block and what was found in it.
pub(super) struct Searched {
    bytes: Vec<u8>,
    offset: u64,
    first_line: u64,
    candidates: Vec<Candidate>,
}

impl Searched {
    pub(super) fn block(&self) -> Block<'_> {
        Block { bytes: &self.bytes, offset: self.offset, first_line: self.first_line }
    }

    pub(super) fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }
}

/// The helpers of one file.
pub(super) struct Ahead {
    lanes: Vec<(SyncSender<Searched>, Receiver<Searched>)>,
    given: usize,
    taken: usize,
}

impl Ahead {
    /// Starts helpers that end with the scope's use of them.
    pub(super) fn start<'scope, 'env: 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        rules: &'env RuleSet,
        helpers: usize,
    ) -> Ahead {
        let lane = |_| {
            let (give, work) = sync_channel::<Searched>(IN_FLIGHT);
            let (done, take) = sync_channel(IN_FLIGHT);
            scope.spawn(move || {
                for mut searched in work {
                    rules.candidates(&searched.bytes, &mut searched.candidates);
                    if done.send(searched).is_err() {
                        return;
                    }
                }
            });
            (give, take)
        };
        Ahead { lanes: (0..helpers.clamp(1, MAX_HELPERS)).map(lane).collect(), given: 0, taken: 0 }
    }

    /// Gives a block to the helpers; gives back the oldest one when enough are in flight.
    pub(super) fn push(&mut self, block: Block<'_>) -> Option<Searched> {
        let searched = Searched {
            bytes: block.bytes.to_vec(),
            offset: block.offset,
            first_line: block.first_line,
            candidates: Vec::new(),
        };
        let oldest = if self.given - self.taken >= IN_FLIGHT * self.lanes.len() { self.next() } else { None };
        let lane = self.given % self.lanes.len();
        // A helper ends before its file only by a panic, which the scope passes on.
        if self.lanes[lane].0.send(searched).is_ok() {
            self.given += 1;
        }
        oldest
    }

    /// The oldest block in flight.
    pub(super) fn next(&mut self) -> Option<Searched> {
        if self.taken == self.given {
            return None;
        }
        let lane = self.taken % self.lanes.len();
        self.taken += 1;
        self.lanes[lane].1.recv().ok()
    }
}
