//! `volume check` over all segments of a volume: each is checked where it is owned. A copy that takes no part because
//! its node has only just come back is waited for, with a word to whoever asked; one that takes none in the end is
//! named, with what to do about it.

use super::Shared;
use super::backend::{NEXT_NUMBER, NodeAnswer, NodeBackend, NodeRequest};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use holdfast_api::{ApiError, ErrorKind, model};
use holdfast_cluster::{ClusterMap, NodeState, Volume};
use holdfast_engine::Input;
use holdfast_types::{BLOCK_BYTES, BlockContent, Duration as Pace, NodeId, SegmentInfo, SegmentKey};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

/// How long one check waits, in all, for copies that take no part although their nodes are up.
const WAIT_FOR_COPIES: Duration = Duration::from_secs(30);
/// Between attempts.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How often an owner that moves is followed, and how long between.
const FOLLOWED: u32 = 5;
const FOLLOW_AFTER: Duration = Duration::from_millis(200);

/// What the check of a segment found.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Checked {
    pub(super) bytes: u64,
    /// Nodes whose copies took no part.
    skipped: BTreeSet<NodeId>,
    pub(super) findings: Vec<model::CheckFinding>,
}

/// Checks a segment that this node owns, with at least that time between extents. None: it does not own it.
pub(super) async fn check_here(shared: &Shared, segment: SegmentKey, pace: Pace) -> Option<Checked> {
    let (answer, wait) = oneshot::channel();
    let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
    shared.checks.lock().unwrap_or_else(|e| e.into_inner()).insert(number, answer);
    shared.data.input(Input::Check { number, segment, pace });
    let report = wait.await.ok()??;
    let start = u64::from(segment.segment.index) * holdfast_types::SEGMENT_BYTES;
    let mut findings = Vec::new();
    for difference in &report.differences {
        let majority = difference.majority();
        for (replica, digest) in &difference.copies {
            let what = match digest.content {
                BlockContent::Bad(_) => "wrong checksum",
                _ if majority.is_some_and(|m| m != *digest) => "differs from the other copies",
                _ if majority.is_none() => "copies differ and none has a majority",
                _ => continue,
            };
            findings.push(model::CheckFinding {
                segment: segment.segment.index,
                offset: start + difference.block.byte_offset(),
                len: BLOCK_BYTES as u64,
                node: replica.node.0,
                disk: replica.disk.to_string(),
                what: what.into(),
                healed: difference.healed.contains(replica),
            });
        }
    }
    let skipped = report.skipped.iter().map(|r| r.node).collect();
    Some(Checked { bytes: report.bytes, skipped, findings })
}

/// A check under way.
struct Run {
    backend: NodeBackend,
    segments: VecDeque<Arc<SegmentInfo>>,
    /// None: it has ended.
    report: Option<model::CheckReport>,
    done: u32,
    skipped: BTreeSet<NodeId>,
    /// Until then copies are waited for, once one has to be.
    until: Option<Instant>,
    /// The last attempt lacked a copy: the next one is made a little later.
    again: bool,
}

/// Checks every segment of a volume, one after the other.
pub(super) fn steps(backend: NodeBackend, volume: Volume) -> BoxStream<'static, model::CheckStep> {
    let segments: VecDeque<_> = backend.0.map().segments_of(volume.id).cloned().collect();
    let total = segments.len() as u32;
    let report = Some(model::CheckReport { volume: volume.name, segments: total, ..Default::default() });
    let (skipped, until, again) = (BTreeSet::new(), None, false);
    let run = Run { backend, segments, report, done: 0, skipped, until, again };
    stream::unfold(run, |mut run| async move { run.step().await.map(|step| (step, run)) }).boxed()
}

impl Run {
    async fn step(&mut self) -> Option<model::CheckStep> {
        self.report.as_ref()?;
        if std::mem::take(&mut self.again) {
            sleep(TRY_AGAIN).await;
        }
        let Some(info) = self.segments.front().cloned() else {
            let mut report = self.report.take()?;
            let map = self.backend.0.map();
            report.skipped = self.skipped.iter().map(|node| why_skipped(&map, *node)).collect();
            return Some(model::CheckStep::Report(report));
        };
        let checked = match check_segment(&self.backend, &info).await {
            Ok(checked) => checked,
            Err(error) => {
                self.report = None;
                return Some(model::CheckStep::Failed(error));
            }
        };
        // Of a node that is skipped for the first time: whoever asks may know from another one that it is up again.
        let map = match checked.skipped.is_subset(&self.skipped) {
            true => self.backend.0.map(),
            false => self.backend.0.newest_map().await,
        };
        let worth_waiting = worth_waiting(&map, &checked.skipped);
        if !worth_waiting.is_empty() && Instant::now() < self.deadline() {
            self.again = true;
            return Some(model::CheckStep::Waiting { nodes: worth_waiting });
        }
        self.segments.pop_front();
        self.done += 1;
        let report = self.report.as_mut()?;
        report.bytes += checked.bytes;
        report.findings.extend(checked.findings);
        self.skipped.extend(checked.skipped);
        let (segments_done, segments_total, bytes) = (self.done, report.segments, report.bytes);
        Some(model::CheckStep::Progress { segments_done, segments_total, bytes })
    }

    fn deadline(&mut self) -> Instant {
        *self.until.get_or_insert_with(|| Instant::now() + WAIT_FOR_COPIES)
    }
}

/// Checks one segment where it is owned. An owner that moves meanwhile is followed a few times.
async fn check_segment(backend: &NodeBackend, info: &SegmentInfo) -> Result<Checked, ApiError> {
    for _ in 0..FOLLOWED {
        let owner = backend.0.map().segments.get(&info.key.segment).map(|s| s.granted.owner);
        let owner =
            owner.ok_or_else(|| ApiError::new(ErrorKind::NotFound, "the volume was deleted meanwhile"))?;
        match backend.ask(owner, &NodeRequest::Check(info.key)).await? {
            NodeAnswer::Checked(Some(checked)) => return Ok(checked),
            _ => sleep(FOLLOW_AFTER).await,
        }
    }
    let what = format!("segment {} has no owner that can check it now", info.key.segment.index);
    Err(ApiError::new(ErrorKind::Unavailable, what).hint("`holdfast status` says what is missing"))
}

/// Those of the nodes that are up: their copies will be there in a moment.
fn worth_waiting(map: &ClusterMap, skipped: &BTreeSet<NodeId>) -> Vec<u16> {
    let up = |n: &&NodeId| map.nodes.get(n).is_some_and(|node| node.state == NodeState::Up);
    skipped.iter().filter(up).map(|n| n.0).collect()
}

fn why_skipped(map: &ClusterMap, node: NodeId) -> String {
    let Some(entry) = map.nodes.get(&node) else { return format!("node {node} was removed") };
    let who = format!("node {node} ({})", entry.name);
    match entry.state {
        NodeState::Down => format!("{who} does not answer; start its daemon and check again"),
        NodeState::Stopping | NodeState::Stopped => {
            format!("{who} is stopped; start its daemon and check again")
        }
        NodeState::Up => format!(
            "the copy on {who} did not answer for {} s; `holdfast node show {}` tells how its disks are, then check again",
            WAIT_FOR_COPIES.as_secs(),
            entry.name
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::{KeyHash, ProcessIncarnation};

    fn map(states: &[NodeState]) -> ClusterMap {
        let mut map = ClusterMap::default();
        for (i, state) in states.iter().enumerate() {
            let id = NodeId(i as u16 + 1);
            let node = holdfast_cluster::Node {
                id,
                name: format!("n{}", i + 1),
                address: String::new(),
                incarnation: ProcessIncarnation(1),
                state: *state,
                boot_nonce: 1,
                runs: 1,
                key: KeyHash::default(),
            };
            map.nodes.insert(id, node);
        }
        map
    }

    #[test]
    fn only_a_copy_whose_node_is_up_is_waited_for() {
        let map = map(&[NodeState::Up, NodeState::Down, NodeState::Stopping, NodeState::Stopped]);
        let all = map.nodes.keys().copied().collect();
        assert_eq!(worth_waiting(&map, &all), [1]);
    }

    #[test]
    fn a_copy_that_was_left_out_is_named_with_what_to_do() {
        let map = map(&[NodeState::Up, NodeState::Down, NodeState::Stopped]);
        let said = [1, 2, 3, 4].map(|n| why_skipped(&map, NodeId(n)));
        assert!(said[0].contains("n1") && said[0].contains("`holdfast node show n1`"), "{}", said[0]);
        assert_eq!(said[1], "node 2 (n2) does not answer; start its daemon and check again");
        assert_eq!(said[2], "node 3 (n3) is stopped; start its daemon and check again");
        assert_eq!(said[3], "node 4 was removed");
    }
}
