//! The end of a run: everything heals, every request must be answered and every copy come back; then everything is
//! read through every gateway, the history is judged, and the copies are compared.

use crate::client::Client;
use crate::failure::{Checker, Failure};
use crate::nbd::Verb;
use crate::world::World;
use holdfast_engine::Input;
use holdfast_replication::DifferenceKind;
use holdfast_types::{Duration, NodeId, SegmentKey};

/// Requests that waited must be answered so soon after everything healed.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);
/// Every copy must be back in S so soon.
const COMPLETE_WITHIN: Duration = Duration::from_secs(60);
/// A comparison of all copies of a segment may take so long.
const CHECKED_WITHIN: Duration = Duration::from_secs(60);

impl World {
    /// See the module's text.
    pub fn finish(&mut self) -> Result<(), Failure> {
        self.watch.requests_left = 0;
        self.heal_all();
        let idle = |w: &World| w.clients.iter().all(|c| c.is_ready() && c.outstanding() == 0);
        self.run_until(ANSWERED_WITHIN, "every request is answered", idle)?;
        self.run_until(COMPLETE_WITHIN, "every copy is in its set", World::all_copies_in_set)?;
        self.read_everything()?;
        self.judge_history()?;
        self.compare_copies()
    }

    /// Reads every cell through every client's gateway.
    fn read_everything(&mut self) -> Result<(), Failure> {
        for client in 0..self.clients.len() {
            for cell in 0..self.layout.len() {
                self.request(client, Verb::Read, cell, 1, true);
            }
        }
        let idle = |w: &World| w.clients.iter().map(Client::outstanding).sum::<usize>() == 0;
        self.run_until(ANSWERED_WITHIN, "every last read is answered", idle)
    }

    /// Whether the history so far is one of registers.
    pub fn judge_history(&self) -> Result<(), Failure> {
        self.history.check().map_err(|violation| {
            let checker = if violation.last { Checker::Durability } else { Checker::Linearizability };
            Failure::new(checker, format!("cell {}:\n  {}", violation.cell, violation.around.join("\n  ")))
        })
    }

    /// Compares the copies of every segment, as an operator would.
    pub fn compare_copies(&mut self) -> Result<(), Failure> {
        let segments: Vec<SegmentKey> = self.map().segments.values().map(|s| s.key).collect();
        for (number, key) in (1_u64..).zip(segments) {
            let owner = self.owner_of(key);
            self.input(owner, Input::Check { number, segment: key })?;
            let ended =
                |w: &World| w.nodes[&owner].process.as_ref().is_some_and(|p| p.checks.contains_key(&number));
            self.run_until(CHECKED_WITHIN, "the copies are compared", ended)?;
            let report = self.node(owner).process.as_mut().and_then(|p| p.checks.remove(&number)).flatten();
            let Some(report) = report else {
                return Err(Failure::new(Checker::EqualCopies, format!("node {owner} does not own {key:?}")));
            };
            let right = |kind| kind == DifferenceKind::WrongChecksum && self.faults.flipped > 0;
            let bad = report.differences.iter().find(|d| !right(d.kind));
            if bad.is_some() || !report.skipped.is_empty() {
                let detail = format!("segment {key:?}, owner {owner}: skipped {:?}, {bad:?}", report.skipped);
                return Err(Failure::new(Checker::EqualCopies, detail));
            }
            self.note(|| format!("segment {}: {} bytes are equal on all copies", key.segment, report.bytes));
        }
        Ok(())
    }

    /// The node that a segment is granted to.
    pub fn owner_of(&self, key: SegmentKey) -> NodeId {
        self.map().segments.get(&key.segment).map(|s| s.granted.owner).unwrap_or_default()
    }
}
