//! The end of a run: everything heals, every request must be answered and every copy come back; then everything is
//! read through every gateway, the history is judged, and the copies are compared.

use crate::client::Client;
use crate::failure::{Checker, Failure};
use crate::nbd::Verb;
use crate::world::World;
use holdfast_engine::Input;
use holdfast_replication::{CheckReport, DifferenceKind};
use holdfast_types::{Duration, NodeId, SegmentKey};

/// Requests that waited must be answered so soon after everything healed.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);
/// Every copy must be back in S so soon.
const COMPLETE_WITHIN: Duration = Duration::from_secs(60);
const COMPLETE: &str = "every copy that some disk has room for is in its set, and what was replaced is freed";
/// Longer than a store waits until it writes back.
const WRITTEN_BACK_WITHIN: Duration = Duration::from_secs(2);
/// Longer than control waits until it places a copy anew that lacks room.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(12);
/// A comparison of all copies of a segment may take so long.
const CHECKED_WITHIN: Duration = Duration::from_secs(60);
/// Comparisons of a segment before it is a failure that a copy takes no part.
const ATTEMPTS: u64 = 6;
/// The number of comparisons that nobody waits for.
pub(crate) const UNDER_WAY: u64 = u64::MAX;
/// Longer than a link takes to break late and come back.
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);

impl World {
    /// See the module's text.
    pub fn finish(&mut self) -> Result<(), Failure> {
        self.watch.requests_left = 0;
        self.heal_all();
        let idle =
            |w: &World| w.clients.iter().all(|c| c.is_ready() && c.outstanding() == 0 || !w.has_volume(c));
        self.run_until(ANSWERED_WITHIN, "every request is answered", idle)?;
        // What was discarded last is given back: only then is it known what has no room.
        self.run_for(WRITTEN_BACK_WITHIN)?;
        let complete = |w: &World| w.all_that_can_be_in_set() && w.all_replaced_freed();
        self.run_until(COMPLETE_WITHIN, COMPLETE, complete)?;
        if self.without_room() > 0 {
            // What has no room now is not merely late: nothing changes any more, however long control is given.
            self.run_for(GIVEN_UP_WITHIN)?;
            self.run_until(COMPLETE_WITHIN, COMPLETE, complete)?;
        }
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

    /// Compares the copies of every segment, as an operator would: again when ownership moved meanwhile, or a copy was
    /// not reached because a link broke late.
    pub fn compare_copies(&mut self) -> Result<(), Failure> {
        let segments: Vec<SegmentKey> = self.map().segments.values().map(|s| s.key).collect();
        for key in segments {
            let mut attempt = 1;
            while let Err(failure) = self.compare(key, attempt)? {
                if attempt == ATTEMPTS {
                    return Err(failure);
                }
                self.note(|| format!("attempt {attempt}: {failure}"));
                attempt += 1;
                self.run_for(BETWEEN_ATTEMPTS)?;
                self.run_until(COMPLETE_WITHIN, COMPLETE, World::all_that_can_be_in_set)?;
            }
        }
        Ok(())
    }

    /// One attempt. The inner error is one that may pass.
    fn compare(&mut self, key: SegmentKey, number: u64) -> Result<Result<(), Failure>, Failure> {
        let owner = self.owner_of(key);
        self.input(owner, Input::Check { number, segment: key, pace: Duration::ZERO })?;
        let ended =
            |w: &World| w.nodes[&owner].process.as_ref().is_some_and(|p| p.checks.contains_key(&number));
        self.run_until(CHECKED_WITHIN, "the copies are compared", ended)?;
        let report = self.node(owner).process.as_mut().and_then(|p| p.checks.remove(&number)).flatten();
        let Some(report) = report else {
            return Ok(Err(Failure::new(Checker::EqualCopies, format!("node {owner} does not own {key:?}"))));
        };
        self.judge_check(&report)?;
        if !report.skipped.is_empty() {
            let detail = format!("segment {key:?}, owner {owner}: skipped {:?}", report.skipped);
            return Ok(Err(Failure::new(Checker::EqualCopies, detail)));
        }
        self.note(|| format!("segment {}: {} bytes are equal on all copies", key.segment, report.bytes));
        Ok(Ok(()))
    }

    /// Begins a comparison of the copies of a segment while everything goes on; whatever it finds is judged when it ends.
    /// It may end without an outcome, by the end of its owner.
    pub(crate) fn check_some_segment(&mut self) -> Result<(), Failure> {
        let segments: Vec<SegmentKey> = self.map().segments.values().map(|s| s.key).collect();
        let Some(key) = segments.get(self.rng.below(segments.len().max(1) as u64) as usize) else {
            return Ok(());
        };
        let owner = self.owner_of(*key);
        if self.nodes[&owner].paused.is_some() {
            return Ok(());
        }
        self.input(owner, Input::Check { number: UNDER_WAY, segment: *key, pace: Duration::ZERO })
    }

    /// Whether what a comparison found is explained: copies that pass their checksums never differ.
    pub(crate) fn judge_check(&self, report: &CheckReport) -> Result<(), Failure> {
        let right = |kind| kind == DifferenceKind::WrongChecksum && self.faults.damaged > 0;
        match report.differences.iter().find(|d| !right(d.kind)) {
            Some(bad) => Err(Failure::new(Checker::EqualCopies, format!("{bad:?}"))),
            None => Ok(()),
        }
    }

    /// Whether no copy that was placed anew is left on a disk, but for disks that are lost for ever.
    fn all_replaced_freed(&self) -> bool {
        let map = self.map();
        let mut unfreed = map.tombstones.values().flat_map(|t| &t.copies);
        unfreed.all(|c| self.lost_copies(c.disk))
    }

    /// The node that a segment is granted to.
    pub fn owner_of(&self, key: SegmentKey) -> NodeId {
        self.map().segments.get(&key.segment).map(|s| s.granted.owner).unwrap_or_default()
    }
}
