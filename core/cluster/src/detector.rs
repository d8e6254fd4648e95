//! The failure detector: heartbeats in, verdicts out.
//!
//! Every node sends a small message to every other at a short interval, over connections of their own. A node
//! that was not heard for a while is suspect, then dead. A refused connection says more than silence: the host
//! answers and nobody listens, so the process is gone; it is believed after a short time, because a restarting
//! process that keeps its socket is not refused. Nobody is declared dead by a node that was itself asleep: after
//! a gap in its own ticks, everyone gets a full term again. And what is thought of a node is about one run of its
//! daemon: that the earlier one is gone says nothing of the next.
//!
//! It does not decide anything: the leader of control acts on its own detector's verdicts.

use alloc::{collections::BTreeMap, vec::Vec};
use holdfast_types::{Duration, NodeId, ProcessIncarnation, Time};

/// The terms of the failure detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetectorConfig {
    /// How often a heartbeat is sent.
    pub interval: Duration,
    /// Unheard for so long: suspect. Five heartbeats.
    pub suspect_after: Duration,
    /// Unheard for so long: dead.
    pub dead_after: Duration,
    /// Refused, and unheard, for so long: dead.
    pub refused_after: Duration,
}

impl Default for DetectorConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(100),
            suspect_after: Duration::from_millis(500),
            dead_after: Duration::from_millis(1000),
            refused_after: Duration::from_millis(300),
        }
    }
}

/// What the detector thinks of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Liveness {
    /// Heard lately, or given a first term.
    Alive,
    /// Silent for some heartbeats.
    Suspect,
    /// Silent for too long, or its process is gone.
    Dead,
}

/// A change of mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// About this node.
    pub node: NodeId,
    /// What is thought of it now.
    pub liveness: Liveness,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    /// This run of it.
    run: ProcessIncarnation,
    heard: Time,
    /// Since when every attempt to connect was refused.
    refused: Option<Time>,
    liveness: Liveness,
}

/// Watches the other nodes.
#[derive(Clone, Debug)]
pub struct Detector {
    config: DetectorConfig,
    peers: BTreeMap<NodeId, Peer>,
    ticked: Time,
}

impl Detector {
    /// Watches nobody yet.
    pub fn new(now: Time, config: DetectorConfig) -> Self {
        assert!(config.interval.0 > 0, "heartbeats have an interval");
        assert!(config.refused_after >= config.interval, "a refusal is confirmed by the next attempt");
        assert!(config.suspect_after >= config.interval, "one late heartbeat is no suspicion");
        assert!(config.dead_after >= config.suspect_after, "suspect comes before dead");
        Self { config, peers: BTreeMap::new(), ticked: now }
    }

    /// Watches exactly these runs. A new one gets a full term before it is judged: it has just said that it is there.
    pub fn watch(
        &mut self,
        now: Time,
        nodes: impl IntoIterator<Item = (NodeId, ProcessIncarnation)>,
    ) -> Vec<Verdict> {
        let (mut kept, mut verdicts) = (BTreeMap::new(), Vec::new());
        for (node, run) in nodes {
            let fresh = Peer { run, heard: now, refused: None, liveness: Liveness::Alive };
            let known = self.peers.get(&node).copied();
            if known.is_some_and(|p| p.run != run && p.liveness != fresh.liveness) {
                verdicts.push(Verdict { node, liveness: fresh.liveness });
            }
            kept.insert(node, known.filter(|p| p.run == run).unwrap_or(fresh));
        }
        self.peers = kept;
        verdicts
    }

    /// A heartbeat arrived.
    pub fn heartbeat(&mut self, now: Time, from: NodeId) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.heard = peer.heard.max(now);
            peer.refused = None;
        }
    }

    /// A connection to the node was refused: its host answers, and nobody listens.
    pub fn refused(&mut self, now: Time, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.refused.get_or_insert(now);
        }
    }

    /// Looks at the clock, and says whom it thinks of differently now. To be called once per interval.
    pub fn tick(&mut self, now: Time) -> Vec<Verdict> {
        if now.since(self.ticked) >= self.config.suspect_after {
            self.forgive(now);
        }
        self.ticked = self.ticked.max(now);
        let config = self.config;
        let mut verdicts = Vec::new();
        for (node, peer) in &mut self.peers {
            let liveness = judge(&config, peer, now);
            if liveness != peer.liveness {
                peer.liveness = liveness;
                verdicts.push(Verdict { node: *node, liveness });
            }
        }
        verdicts
    }

    /// What it thought of the node at the last tick. Of a node that it does not watch: nothing.
    pub fn liveness(&self, node: NodeId) -> Option<Liveness> {
        self.peers.get(&node).map(|p| p.liveness)
    }

    /// This process did not run for a while; what it did not hear meanwhile means nothing. Whoever was dead
    /// before stays so until it is heard.
    fn forgive(&mut self, now: Time) {
        for peer in self.peers.values_mut().filter(|p| p.liveness != Liveness::Dead) {
            peer.heard = peer.heard.max(now);
            peer.refused = None;
        }
    }
}

fn judge(config: &DetectorConfig, peer: &Peer, now: Time) -> Liveness {
    let silent = now.since(peer.heard);
    let refused = peer.refused.is_some_and(|since| now.since(since) >= config.refused_after);
    if silent >= config.dead_after || (refused && silent >= config.refused_after) {
        return Liveness::Dead;
    }
    if silent >= config.suspect_after { Liveness::Suspect } else { Liveness::Alive }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const A: NodeId = NodeId(2);
    const B: NodeId = NodeId(3);

    fn ms(n: u64) -> Time {
        Time(n * 1_000_000)
    }

    fn run_of(node: NodeId, run: u64) -> (NodeId, ProcessIncarnation) {
        (node, ProcessIncarnation(run))
    }

    fn watching(nodes: &[NodeId]) -> Detector {
        let mut detector = Detector::new(ms(0), DetectorConfig::default());
        detector.watch(ms(0), nodes.iter().map(|n| run_of(*n, 1)));
        detector
    }

    /// Ticks every 100 ms up to `until`, hearing `alive` each time; all verdicts with their time in ms.
    fn run(d: &mut Detector, from: u64, until: u64, alive: &[NodeId]) -> Vec<(u64, u16, Liveness)> {
        let mut all = Vec::new();
        for t in (from..=until).step_by(100) {
            alive.iter().for_each(|n| d.heartbeat(ms(t), *n));
            all.extend(d.tick(ms(t)).into_iter().map(|v| (t, v.node.0, v.liveness)));
        }
        all
    }

    #[test]
    fn a_silent_node_is_suspect_after_five_heartbeats_and_dead_after_a_second() {
        let mut d = watching(&[A, B]);
        assert_eq!(run(&mut d, 0, 1000, &[A, B]), vec![]);
        let seen = run(&mut d, 1100, 2500, &[A]);
        assert_eq!(seen, vec![(1500, 3, Liveness::Suspect), (2000, 3, Liveness::Dead)]);
    }

    #[test]
    fn a_refused_connection_is_believed_after_a_third_of_a_second() {
        let mut d = watching(&[A]);
        run(&mut d, 0, 1000, &[A]);
        for t in [1050, 1150, 1250] {
            d.refused(ms(t), A);
        }
        assert_eq!(run(&mut d, 1100, 1500, &[]), vec![(1400, 2, Liveness::Dead)]);
    }

    #[test]
    fn a_heartbeat_takes_a_refusal_back() {
        let mut d = watching(&[A]);
        d.refused(ms(50), A);
        assert_eq!(run(&mut d, 100, 1000, &[A]), vec![]);
    }

    #[test]
    fn a_node_that_is_heard_again_is_alive_again() {
        let mut d = watching(&[A]);
        run(&mut d, 0, 1200, &[]);
        assert_eq!(d.liveness(A), Some(Liveness::Dead));
        assert_eq!(run(&mut d, 1300, 1300, &[A]), vec![(1300, 2, Liveness::Alive)]);
    }

    #[test]
    fn a_detector_that_was_frozen_declares_nobody_dead_for_it() {
        let mut d = watching(&[A, B]);
        run(&mut d, 0, 1000, &[A, B]);
        // Thirty seconds pass without a tick.
        assert_eq!(run(&mut d, 31_000, 31_900, &[A]), vec![(31_500, 3, Liveness::Suspect)]);
        assert_eq!(run(&mut d, 32_000, 32_000, &[A]), vec![(32_000, 3, Liveness::Dead)]);
    }

    #[test]
    fn a_new_node_gets_a_full_term_and_an_old_one_keeps_its_own() {
        let mut d = watching(&[A]);
        run(&mut d, 0, 900, &[]);
        d.watch(ms(900), [run_of(A, 1), run_of(B, 1)]);
        assert_eq!(run(&mut d, 1000, 1300, &[]), vec![(1000, 2, Liveness::Dead)]);
        assert_eq!(d.liveness(B), Some(Liveness::Alive));
    }

    #[test]
    fn the_next_run_of_a_dead_node_is_not_dead_before_its_own_term_is_over() {
        let mut d = watching(&[A]);
        d.refused(ms(50), A);
        run(&mut d, 100, 900, &[]);
        assert_eq!(d.liveness(A), Some(Liveness::Dead));
        let alive = Verdict { node: A, liveness: Liveness::Alive };
        assert_eq!(d.watch(ms(950), [run_of(A, 2)]), vec![alive]);
        assert_eq!(d.liveness(A), Some(Liveness::Alive));
        assert_eq!(d.watch(ms(960), [run_of(A, 2)]), vec![]);
        let seen = run(&mut d, 1000, 2000, &[]);
        assert_eq!(seen, vec![(1500, 2, Liveness::Suspect), (2000, 2, Liveness::Dead)]);
    }

    #[test]
    fn a_node_that_is_not_watched_is_nobody() {
        let mut d = watching(&[A]);
        d.heartbeat(ms(10), B);
        d.refused(ms(10), B);
        assert_eq!(d.liveness(B), None);
        d.watch(ms(20), []);
        assert_eq!(run(&mut d, 100, 2000, &[]), vec![]);
    }
}
