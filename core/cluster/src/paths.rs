//! Which way leads to each other node: directly, or through a third one.
//!
//! A network may break between two hosts that both reach all others: one link of a bond, a rule of a firewall, a
//! switch that drops large packets. Each of the two would take the other for dead, and the cluster would lose a node
//! that works. So a node that hears nothing directly from another one sends its beats through a third as well, and
//! asks by them for the other's beats. What comes that way shows that the host lives and that its path is broken;
//! then everything that goes there is relayed, until beats have come directly again for a while.
//!
//! A path that loses packets is gone around as well, if there is a third node to which and from which none get lost:
//! where it is one host's own cable that loses them, every way there does, and the direct one is the shortest.
//!
//! A node that is really gone is asked for seldom: the pause between attempts doubles. After a gap in its own ticks
//! this node was asleep and everybody gets a full term, as in the failure detector.

use crate::packets::PacketLoss;
use alloc::{collections::BTreeMap, vec::Vec};
use holdfast_types::{Duration, NodeId, Packets, PeerPath, Time};

/// The terms by which paths are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathConfig {
    /// Not heard directly for so long: beats are relayed as well. Three heartbeats; less than makes a node suspect.
    pub doubt_after: Duration,
    /// Not heard directly for so long, but through a relay: the path is broken.
    pub broken_after: Duration,
    /// Heard directly for so long without a gap: the path is whole again.
    pub whole_after: Duration,
    /// Not heard at all for so long: no way is known any more.
    pub unknown_after: Duration,
    /// The pause between attempts to get through by a relay, doubled up to the most.
    pub retry: Duration,
    /// See `retry`.
    pub retry_most: Duration,
}

impl Default for PathConfig {
    fn default() -> Self {
        Self {
            doubt_after: Duration::from_millis(300),
            broken_after: Duration::from_millis(500),
            whole_after: Duration::from_secs(3),
            unknown_after: Duration::from_secs(1),
            retry: Duration::from_millis(500),
            retry_most: Duration::from_secs(10),
        }
    }
}

/// Another way than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathChange {
    /// To this node.
    pub node: NodeId,
    /// The way that led there before. None: none was known.
    pub was: Option<PeerPath>,
    /// The way that leads there now.
    pub path: Option<PeerPath>,
    /// What is wrong with the direct way, if another one is taken.
    pub fault: Option<PathFault>,
}

/// What is wrong with a direct way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFault {
    /// Nothing comes by it.
    Silent,
    /// Packets that are sent by it get lost.
    Lossy,
    /// The other end finds fault with it.
    SaidByPeer,
}

/// What there is to tell of the way to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathNews {
    /// Another one is taken.
    Changed(PathChange),
    /// The direct one loses packets now: so many of those lately sent.
    Lossy(NodeId, Packets),
    /// It does not any more.
    Clean(NodeId),
}

impl PathNews {
    /// That a node is reached directly from the first is nothing to tell, and that it is not heard is told elsewhere.
    pub fn is_worth_telling(&self) -> bool {
        match self {
            PathNews::Changed(PathChange { was, path, .. }) => {
                path.is_some() && [was, path].contains(&&Some(PeerPath::Relayed))
            }
            PathNews::Lossy(..) | PathNews::Clean(_) => true,
        }
    }
}

#[derive(Clone, Debug)]
struct Peer {
    direct: Time,
    /// Since when it was heard directly without a gap, and heard this node so.
    direct_since: Option<Time>,
    relayed: Option<Time>,
    /// It says that it does not hear this node directly: since when, and when it did so last.
    deaf: Option<(Time, Time)>,
    path: Option<PeerPath>,
    packets: PacketLoss,
    /// Its direct way loses packets, and a third node is on one that does not.
    gone_around: bool,
    /// The nodes that it reaches badly or not at all, as it says.
    poor: Vec<NodeId>,
    /// The next attempt to get through by a relay.
    retry_at: Time,
    pause: Duration,
}

/// Chooses the path to each other node.
#[derive(Clone, Debug)]
pub struct Paths {
    me: NodeId,
    config: PathConfig,
    peers: BTreeMap<NodeId, Peer>,
    ticked: Time,
}

impl Paths {
    /// Those of node `me`, which knows of nobody yet.
    pub fn new(now: Time, me: NodeId, config: PathConfig) -> Self {
        assert!(config.broken_after >= config.doubt_after, "no path is broken that is not in doubt");
        assert!(config.retry_most >= config.retry && config.retry.0 > 0, "attempts have a pause");
        Self { me, config, peers: BTreeMap::new(), ticked: now }
    }

    /// Watches exactly these. A new one gets a full term.
    pub fn watch(&mut self, now: Time, nodes: impl IntoIterator<Item = NodeId>) {
        let fresh = Peer {
            direct: now,
            direct_since: None,
            relayed: None,
            deaf: None,
            path: None,
            packets: PacketLoss::default(),
            gone_around: false,
            poor: Vec::new(),
            retry_at: now,
            pause: self.config.retry,
        };
        let mut before = core::mem::take(&mut self.peers);
        let kept = |node| (node, before.remove(&node).unwrap_or_else(|| fresh.clone()));
        self.peers = nodes.into_iter().map(kept).collect();
    }

    /// A beat came that way. `deaf`: it says that its sender does not take the direct way to this node for whole; `poor`:
    /// the nodes that it reaches badly or not at all.
    pub fn heard(&mut self, now: Time, from: NodeId, path: PeerPath, deaf: bool, poor: Vec<NodeId>) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.poor = poor;
        let deaf_since = peer.deaf.map_or(now, |(since, _)| since);
        peer.deaf = deaf.then_some((deaf_since, now));
        match path {
            PeerPath::Direct => {
                if now.since(peer.direct) >= self.config.doubt_after {
                    peer.direct_since = None;
                }
                peer.direct_since.get_or_insert(now);
                peer.direct = peer.direct.max(now);
                peer.pause = self.config.retry;
            }
            PeerPath::Relayed => peer.relayed = Some(now),
        }
        if deaf {
            peer.direct_since = None;
        }
    }

    /// So many packets were sent to the node directly since the last time.
    pub fn sent(&mut self, now: Time, to: NodeId, packets: Packets) {
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.packets.counted(now, packets);
        }
    }

    /// The nodes to which packets get lost, and how many of those lately sent.
    pub fn lossy(&self) -> Vec<(NodeId, Packets)> {
        self.peers.iter().filter_map(|(node, peer)| Some((*node, peer.packets.lossy()?))).collect()
    }

    /// Whether this node does not take the direct way to that one for whole, which its beats are to say.
    pub fn deaf_to(&self, now: Time, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|p| self.in_doubt(now, p) || p.gone_around)
    }

    /// Whether the beat that goes to the node now is to be relayed as well. To be asked once for each beat.
    pub fn relays_beat(&mut self, now: Time, node: NodeId) -> bool {
        let fresh = |at: Option<Time>| at.is_some_and(|at| now.since(at) < self.config.broken_after);
        let Some(peer) = self.peers.get(&node) else { return false };
        let in_doubt = self.in_doubt(now, peer);
        if peer.gone_around || fresh(peer.deaf.map(|(_, last)| last)) || in_doubt && fresh(peer.relayed) {
            return true;
        }
        if !in_doubt || now < peer.retry_at {
            return false;
        }
        let most = self.config.retry_most;
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.retry_at = now + peer.pause;
            peer.pause = Duration((peer.pause.0 * 2).min(most.0));
        }
        true
    }

    /// Looks at the clock, and says what there is to tell. To be called once for each beat.
    pub fn tick(&mut self, now: Time) -> Vec<PathNews> {
        let slept = now.since(self.ticked) >= self.config.doubt_after;
        self.ticked = self.ticked.max(now);
        let config = self.config;
        let mut news = Vec::new();
        for (node, peer) in &mut self.peers {
            if peer.packets.look(now) {
                let lossy = peer.packets.lossy().map(|packets| PathNews::Lossy(*node, packets));
                news.push(lossy.unwrap_or(PathNews::Clean(*node)));
            }
        }
        let clean: Vec<NodeId> =
            self.peers.keys().copied().filter(|node| self.has_clean_relay(now, *node)).collect();
        for (node, peer) in &mut self.peers {
            peer.gone_around = peer.packets.lossy().is_some() && clean.contains(node);
            if slept {
                peer.direct = peer.direct.max(now);
                peer.direct_since = None;
                continue;
            }
            let fault = fault_of(&config, peer, now);
            let path = path_of(&config, peer, fault, now);
            let was = core::mem::replace(&mut peer.path, path);
            if path != was {
                news.push(PathNews::Changed(PathChange { node: *node, was, path, fault }));
            }
        }
        news
    }

    /// Whether a third node is reached directly, and reaches both that one and this one so, and no packets get lost.
    fn has_clean_relay(&self, now: Time, to: NodeId) -> bool {
        let is_clean = |peer: &Peer| {
            let is_direct = peer.path == Some(PeerPath::Direct) && !self.in_doubt(now, peer);
            let finds_fault = [to, self.me].iter().any(|node| peer.poor.contains(node));
            is_direct && peer.packets.lossy().is_none() && !finds_fault
        };
        self.peers.iter().any(|(node, peer)| *node != to && is_clean(peer))
    }

    fn in_doubt(&self, now: Time, peer: &Peer) -> bool {
        now.since(peer.direct) >= self.config.doubt_after
    }
}

/// Why the direct way is not to be taken now.
fn fault_of(config: &PathConfig, peer: &Peer, now: Time) -> Option<PathFault> {
    let silent = now.since(peer.direct);
    let is_fresh = |at: Time| now.since(at) < config.broken_after;
    if silent >= config.broken_after && peer.relayed.is_some_and(is_fresh) {
        return Some(PathFault::Silent);
    }
    if peer.gone_around {
        return Some(PathFault::Lossy);
    }
    // The other one waited before it said so.
    let not_hearing =
        |(since, last)| is_fresh(last) && now.since(since) + config.doubt_after >= config.broken_after;
    peer.deaf.is_some_and(not_hearing).then_some(PathFault::SaidByPeer)
}

fn path_of(config: &PathConfig, peer: &Peer, fault: Option<PathFault>, now: Time) -> Option<PeerPath> {
    if fault.is_some() {
        return Some(PeerPath::Relayed);
    }
    let silent = now.since(peer.direct);
    let last = peer.relayed.map_or(peer.direct, |at| at.max(peer.direct));
    if now.since(last) >= config.unknown_after {
        return None;
    }
    let heard_for = |term: Duration| {
        silent < config.doubt_after && peer.direct_since.is_some_and(|since| now.since(since) >= term)
    };
    match peer.path {
        None if heard_for(Duration(0)) => Some(PeerPath::Direct),
        Some(PeerPath::Relayed) if heard_for(config.whole_after) => Some(PeerPath::Direct),
        as_before => as_before,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);

    fn ms(n: u64) -> Time {
        Time(n * 1_000_000)
    }

    fn watching() -> Paths {
        let mut paths = Paths::new(ms(0), A, PathConfig::default());
        paths.watch(ms(0), [B]);
        paths
    }

    /// What one node did in a span of time: the ticks (in ms) at which it relayed its beat, and its changes.
    type Seen = (Vec<u64>, Vec<(u64, Option<PeerPath>)>);

    /// Ticks every 100 ms; `heard` says which beats came just before.
    fn run(
        p: &mut Paths,
        span: core::ops::RangeInclusive<u64>,
        heard: impl Fn(u64) -> Vec<(PeerPath, bool)>,
    ) -> Seen {
        let (mut relayed, mut changes) = (vec![], vec![]);
        for t in span.step_by(100) {
            for (path, deaf) in heard(t) {
                p.heard(ms(t), B, path, deaf, vec![]);
            }
            changes.extend(changed(p.tick(ms(t))).map(|c| (t, c.path)));
            if p.relays_beat(ms(t), B) {
                relayed.push(t);
            }
        }
        (relayed, changes)
    }

    fn changed(news: Vec<PathNews>) -> impl Iterator<Item = PathChange> {
        news.into_iter().filter_map(|news| match news {
            PathNews::Changed(change) => Some(change),
            PathNews::Lossy(..) | PathNews::Clean(_) => None,
        })
    }

    fn direct(_: u64) -> Vec<(PeerPath, bool)> {
        vec![(PeerPath::Direct, false)]
    }

    #[test]
    fn what_is_heard_directly_goes_directly() {
        let mut p = watching();
        assert_eq!(run(&mut p, 0..=5000, direct), (vec![], vec![(0, Some(PeerPath::Direct))]));
    }

    #[test]
    fn a_broken_path_is_found_by_beats_that_came_another_way_and_is_whole_when_they_come_directly_again() {
        let mut p = watching();
        run(&mut p, 0..=1000, direct);
        // Both ends fall silent to one another; what each relays arrives a tick later.
        let (relayed, changes) =
            run(&mut p, 1100..=3000, |t| if t >= 1400 { vec![(PeerPath::Relayed, true)] } else { vec![] });
        assert_eq!(relayed, (1300..=3000).step_by(100).collect::<Vec<_>>());
        assert_eq!(changes, vec![(1500, Some(PeerPath::Relayed))]);
        // One beat that got through is no path.
        let (_, changes) = run(&mut p, 3100..=6000, |t| {
            let mut heard = vec![(PeerPath::Relayed, true)];
            if t == 4000 {
                heard.push((PeerPath::Direct, false));
            }
            heard
        });
        assert_eq!(changes, vec![]);
        let (relayed, changes) = run(&mut p, 6100..=9500, direct);
        assert_eq!(relayed, vec![]);
        assert_eq!(changes, vec![(9100, Some(PeerPath::Direct))]);
    }

    #[test]
    fn who_is_gone_is_asked_for_more_and_more_seldom() {
        let mut p = watching();
        run(&mut p, 0..=1000, direct);
        let (relayed, changes) = run(&mut p, 1100..=40_000, |_| vec![]);
        assert_eq!(relayed, vec![1300, 1800, 2800, 4800, 8800, 16_800, 26_800, 36_800]);
        // It may come back where only a relay reaches it.
        assert_eq!(changes, vec![(2000, None)]);
    }

    #[test]
    fn who_is_not_heard_by_the_other_relays_though_it_hears_all_of_its_beats() {
        let mut p = watching();
        let deaf = |t| vec![(PeerPath::Direct, (1000..2000).contains(&t))];
        let (relayed, changes) = run(&mut p, 0..=6000, deaf);
        assert_eq!(relayed, (1000..2000).step_by(100).collect::<Vec<_>>());
        let expected =
            [(0, Some(PeerPath::Direct)), (1200, Some(PeerPath::Relayed)), (5000, Some(PeerPath::Direct))];
        assert_eq!(changes, expected);
    }

    #[test]
    fn a_node_that_slept_doubts_nobody() {
        let mut p = watching();
        run(&mut p, 0..=1000, direct);
        p.heard(ms(60_900), B, PeerPath::Relayed, false, vec![]);
        assert_eq!(p.tick(ms(61_000)), vec![]);
        assert!(!p.relays_beat(ms(61_000), B) && !p.deaf_to(ms(61_000), B));
        let (relayed, changes) = run(&mut p, 61_100..=62_000, direct);
        assert_eq!((relayed, changes), (vec![], vec![]));
    }

    /// Beats of B and C every 100 ms, what C says of others with its own, and one packet of some that go to B, and to C,
    /// lost in each half second of `lossy`. What was told, and when.
    fn run_lossy(
        p: &mut Paths,
        span: core::ops::RangeInclusive<u64>,
        lossy: &[NodeId],
        poor: &[NodeId],
    ) -> Vec<(u64, PathNews)> {
        let mut told = vec![];
        for t in span.step_by(100) {
            p.heard(ms(t), B, PeerPath::Direct, false, vec![]);
            p.heard(ms(t), C, PeerPath::Direct, false, poor.to_vec());
            for to in [B, C] {
                let lost = u32::from(lossy.contains(&to) && t % 500 == 0);
                p.sent(ms(t), to, Packets { sent: 2, lost });
            }
            told.extend(p.tick(ms(t)).into_iter().map(|news| (t, news)));
        }
        told
    }

    fn three() -> Paths {
        let mut paths = watching();
        paths.watch(ms(0), [B, C]);
        run_lossy(&mut paths, 0..=10_000, &[], &[]);
        paths
    }

    fn relayed(node: NodeId) -> PathNews {
        let (was, path) = (Some(PeerPath::Direct), Some(PeerPath::Relayed));
        PathNews::Changed(PathChange { node, was, path, fault: Some(PathFault::Lossy) })
    }

    fn direct_again(node: NodeId) -> PathNews {
        let (was, path) = (Some(PeerPath::Relayed), Some(PeerPath::Direct));
        PathNews::Changed(PathChange { node, was, path, fault: None })
    }

    #[test]
    fn a_path_that_loses_packets_is_gone_around_until_it_does_not() {
        let mut p = three();
        let told = run_lossy(&mut p, 10_100..=20_000, &[B], &[]);
        let lost = Packets { sent: 2 * 126, lost: 5 };
        assert_eq!(told, vec![(12_500, PathNews::Lossy(B, lost)), (12_500, relayed(B))]);
        assert!(p.deaf_to(ms(20_000), B), "the other end is to go around it, too");
        assert!(p.relays_beat(ms(20_000), B), "beats that get lost are no sign of death");
        assert!(!p.relays_beat(ms(20_000), C) && !p.deaf_to(ms(20_000), C));
        let told = run_lossy(&mut p, 20_100..=60_000, &[], &[]);
        assert_eq!(told, vec![(49_500, PathNews::Clean(B)), (49_500, direct_again(B))]);
        assert!(!p.deaf_to(ms(60_000), B) && !p.relays_beat(ms(60_000), B));
    }

    #[test]
    fn a_path_that_loses_packets_is_taken_where_every_other_does_too() {
        // This node's own cable; the third's; the third hears this node badly.
        for (lossy, poor) in [(&[B, C][..], &[][..]), (&[B], &[B]), (&[B], &[A])] {
            let mut p = three();
            let told = run_lossy(&mut p, 10_100..=60_000, lossy, poor);
            let is_lossy = |(_, news): &(u64, PathNews)| matches!(news, PathNews::Lossy(..));
            assert!(!told.is_empty() && told.iter().all(is_lossy), "{lossy:?} {poor:?}: {told:?}");
            assert!(!p.relays_beat(ms(60_000), B) && !p.deaf_to(ms(60_000), B));
        }
    }

    #[test]
    fn who_goes_around_loss_goes_directly_when_the_third_node_loses_packets_too() {
        let mut p = three();
        run_lossy(&mut p, 10_100..=20_000, &[B], &[]);
        let told = run_lossy(&mut p, 20_100..=30_000, &[B, C], &[]);
        let (at, _) = told[0];
        assert!(matches!(told[0].1, PathNews::Lossy(C, _)), "{told:?}");
        assert_eq!(told[1..], [(at, direct_again(B))]);
    }
}
