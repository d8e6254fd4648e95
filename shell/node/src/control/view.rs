//! The cluster as the API shows it: made from the map, from consensus, and from what nodes say of their engines.

use super::{Shared, events::no_place, group, heartbeat::Heartbeats};
use crate::config::Ports;
use holdfast_api::model::{self, CopyState, Health};
use holdfast_cluster::{ClusterMap, DiskState, GivenUp, Loss, NodeState, losses, plan_replacements};
use holdfast_consensus::ControlMetrics;
use holdfast_types::{NodeId, Packets, ReplicaRef, SegmentInfo, write_quorum};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A node that was not heard for so long is silent. Ten heartbeats, as for the failure detector.
const SILENT_AFTER: Duration = Duration::from_secs(1);

fn node_state(state: NodeState) -> model::NodeState {
    match state {
        NodeState::Up => model::NodeState::Up,
        NodeState::Down => model::NodeState::Down,
        NodeState::Stopping => model::NodeState::Stopping,
        NodeState::Stopped => model::NodeState::Stopped,
    }
}

/// Every node.
pub fn nodes(map: &ClusterMap, leader: Option<NodeId>) -> Vec<model::Node> {
    map.nodes.values().map(|n| node(map, n, leader)).collect()
}

/// One node.
pub fn node(map: &ClusterMap, node: &holdfast_cluster::Node, leader: Option<NodeId>) -> model::Node {
    let owned = map.segments.values().filter(|s| s.granted.owner == node.id).count();
    let copies = map.segments.values().flat_map(|s| &s.members).filter(|r| r.node == node.id).count();
    model::Node {
        id: node.id.0,
        name: node.name.clone(),
        address: node.address.clone(),
        state: node_state(node.state),
        leader: leader == Some(node.id) && node.state.answers(),
        incarnation: node.incarnation.0,
        disks: map.disks_of(node.id).count() as u32,
        owned_segments: owned as u64,
        copies: copies as u64,
    }
}

/// One disk.
pub fn disk(map: &ClusterMap, disk: &holdfast_cluster::Disk) -> model::Disk {
    let copies = map.segments.values().flat_map(|s| &s.members).filter(|r| r.disk == disk.id).count();
    model::Disk {
        id: disk.id.to_string(),
        node: disk.node.0,
        path: disk.path.clone(),
        state: match disk.state {
            DiskState::Ok if disk.slow => model::DiskState::Slow,
            DiskState::Ok => model::DiskState::Ok,
            DiskState::Full if disk.free == 0 => model::DiskState::Full,
            DiskState::Full => model::DiskState::NearlyFull,
            DiskState::Failed => model::DiskState::Failed,
            DiskState::Missing => model::DiskState::Missing,
            DiskState::Silent => model::DiskState::Silent,
        },
        incarnation: disk.incarnation.0,
        pool: disk.pool.clone(),
        size: disk.size,
        free: disk.free,
        copies: copies as u64,
    }
}

/// Every pool.
pub fn pools(map: &ClusterMap) -> Vec<model::Pool> {
    let pool = |name: &String| {
        let disks = || map.disks.values().filter(|d| d.pool == *name);
        let volumes = || map.volumes.values().filter(|v| v.pool == *name);
        model::Pool {
            name: name.clone(),
            disks: disks().count() as u32,
            size: disks().map(|d| d.size).sum(),
            free: disks().map(|d| d.free).sum(),
            promised: volumes().map(|v| v.size * u64::from(v.copies)).sum(),
            volumes: volumes().count() as u32,
        }
    };
    map.pools.keys().map(pool).collect()
}

fn copy_state(map: &ClusterMap, info: &SegmentInfo, copy: &ReplicaRef) -> CopyState {
    let in_set = info.active.set.contains(copy);
    match (in_set, map.reachable(copy)) {
        (true, true) => CopyState::InSync,
        (true, false) => CopyState::Away,
        (false, true) => CopyState::Resyncing,
        (false, false) => CopyState::Behind,
    }
}

/// One segment, without the progress of resyncs.
pub fn segment(map: &ClusterMap, info: &SegmentInfo) -> model::Segment {
    let copy = |r: &ReplicaRef| model::SegmentCopy {
        node: r.node.0,
        disk: r.disk.to_string(),
        state: copy_state(map, info, r),
        resync: None,
    };
    model::Segment {
        index: info.key.segment.index,
        owner: info.granted.owner.0,
        granted_epoch: info.granted.epoch.0,
        active_epoch: info.active.epoch.0,
        copies: info.members.iter().map(copy).collect(),
    }
}

/// How well a segment does.
pub fn segment_health(map: &ClusterMap, info: &SegmentInfo, copies: u8) -> Health {
    let set = &info.active.set;
    let reachable = set.iter().filter(|r| map.reachable(r)).count();
    let active = info.active.epoch == info.granted.epoch;
    let owner_up = map.nodes.get(&info.granted.owner).is_some_and(|n| n.state.answers());
    if reachable < write_quorum(set.len()) || set.len() < usize::from(info.min_copies) || !active || !owner_up
    {
        Health::Stalled
    } else if reachable < usize::from(copies) {
        Health::Degraded
    } else {
        Health::Healthy
    }
}

/// One volume.
pub fn volume(map: &ClusterMap, volume: &holdfast_cluster::Volume) -> model::Volume {
    let health = map
        .segments_of(volume.id)
        .map(|s| segment_health(map, s, volume.copies))
        .max_by_key(|h| rank(*h))
        .unwrap_or_default();
    model::Volume {
        id: volume.id.0,
        name: volume.name.clone(),
        size: volume.size,
        allocated: None,
        pool: volume.pool.clone(),
        copies: volume.copies,
        health,
        created_ms: volume.created.0 * 1000,
        iqn: format!("{}{}", holdfast_iscsi::IQN_PREFIX, volume.name),
    }
}

fn rank(health: Health) -> u8 {
    match health {
        Health::Healthy => 0,
        Health::Degraded => 1,
        Health::Stalled => 2,
    }
}

/// Where each node serves a volume. A node on another host serves on that host's loopback.
pub fn urls(map: &ClusterMap, name: &str, ports: Ports) -> Vec<model::VolumeUrls> {
    let host = |address: &str| {
        let ip = address.parse::<SocketAddr>().map(|a| a.ip()).ok();
        ip.filter(IpAddr::is_loopback).map_or_else(|| "127.0.0.1".to_owned(), |ip| ip.to_string())
    };
    let url = |n: &holdfast_cluster::Node| model::VolumeUrls {
        node: n.id.0,
        iscsi: format!("iscsi://{}:{}/{}{name}/0", host(&n.address), ports.iscsi, holdfast_iscsi::IQN_PREFIX),
        nbd: format!("nbd://{}:{}/{name}", host(&n.address), ports.nbd),
    };
    map.nodes.values().map(url).collect()
}

/// What a node knows that can reach no majority.
pub struct Alone {
    /// For how long it has heard none. None: never in this run.
    pub age: Option<Duration>,
    /// The nodes that it does not hear.
    pub silent: Vec<NodeId>,
    /// How many voters it hears, itself included, of how many.
    pub voters: (usize, usize),
}

/// The map as this node knows it, and, when it hears no majority of the voters any more, in it who is not heard now as
/// away: who is away cannot be recorded then, and that must not make it look well.
pub fn seen(shared: &Shared) -> Arc<ClusterMap> {
    let alone = Alone::now(shared);
    if alone.lost_majority() { Arc::new(mark_away(&shared.map(), &alone.silent)) } else { shared.map() }
}

/// The whole as a node sees it that can reach no majority.
pub fn without_majority(shared: &Shared) -> model::Status {
    let alone = Alone::now(shared);
    let map = mark_away(&shared.map(), &alone.silent);
    let mut status = status(&map, &shared.control.metrics(), Some(&alone), shared.node);
    if let Some(cast_out) = group::cast_out(*shared.control.standing().borrow()) {
        // In place of the first line, which without a majority is about that: there is none for this node any more.
        status.problems[0] = cast_out.why.into();
    } else if shared.control.has_forgotten() {
        status.problems[0] = group::FORGOT.into();
    }
    status
}

impl Alone {
    /// Whom this node hears now.
    pub fn now(shared: &Shared) -> Self {
        let (map, control) = (shared.map(), shared.control.metrics());
        let heard = shared.heartbeats.heard();
        let now = Instant::now();
        let hears = |n: &NodeId| {
            *n == shared.node || heard.get(n).is_some_and(|at| now.duration_since(*at) < SILENT_AFTER)
        };
        let silent: Vec<NodeId> = map.nodes.keys().filter(|n| !hears(n)).copied().collect();
        let voters = (control.voters.iter().filter(|n| hears(n)).count(), control.voters.len());
        let age = majority_heard(&control.voters, shared.node, &heard, now).map(|at| now.duration_since(at));
        Self { age, silent, voters }
    }

    /// Whether this node heard a majority of the voters and does not any more: it need not be asked.
    pub fn lost_majority(&self) -> bool {
        self.age.is_some_and(|age| age >= SILENT_AFTER)
    }
}

fn mark_away(map: &ClusterMap, silent: &[NodeId]) -> ClusterMap {
    let mut map = map.clone();
    for node in silent {
        if let Some(node) = map.nodes.get_mut(node).filter(|n| n.state.answers()) {
            node.state = NodeState::Down;
        }
    }
    map
}

/// When a majority of the voters was heard last.
fn majority_heard(
    voters: &[NodeId],
    me: NodeId,
    heard: &BTreeMap<NodeId, Instant>,
    now: Instant,
) -> Option<Instant> {
    let at = |n: &NodeId| if *n == me { Some(now) } else { heard.get(n).copied() };
    let mut times: Vec<Instant> = voters.iter().filter_map(at).collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    times.get(voters.len() / 2).copied()
}

/// The whole. `alone`: this node can reach no majority.
pub fn status(
    map: &ClusterMap,
    control: &ControlMetrics,
    alone: Option<&Alone>,
    answered_by: NodeId,
) -> model::Status {
    let quorum = alone.is_none();
    let mut segments = model::SegmentCounts::default();
    for info in map.segments.values() {
        let copies =
            map.volumes.get(&info.key.segment.volume).map_or(0, |v: &holdfast_cluster::Volume| v.copies);
        segments.total += 1;
        match segment_health(map, info, copies) {
            Health::Healthy => segments.healthy += 1,
            Health::Degraded => segments.degraded += 1,
            Health::Stalled => segments.stalled += 1,
        }
        let resyncing = info.members.iter().any(|r| copy_state(map, info, r) == CopyState::Resyncing);
        segments.resyncing += u64::from(resyncing);
    }
    let leader = control.leader.filter(|_| quorum);
    let all_well = map.nodes.values().all(|n| n.state == NodeState::Up)
        && map.disks.values().all(|d| !(d.serves() && d.slow));
    let health = match (segments.stalled, segments.degraded) {
        (1.., _) => Health::Stalled,
        (0, 0) if quorum && all_well => Health::Healthy,
        _ => Health::Degraded,
    };
    model::Status {
        cluster: map.cluster.to_string(),
        name: map.name.clone(),
        answered_by: answered_by.0,
        version: env!("CARGO_PKG_VERSION").into(),
        leader: leader.map(|n| n.0),
        control_quorum: quorum,
        map_version: map.version,
        map_age_ms: alone.and_then(|a| a.age).map(|age| age.as_millis() as u64),
        silent: alone.map_or_else(Vec::new, |a| a.silent.iter().map(|n| n.0).collect()),
        health,
        problems: problems(map, control, &segments, alone),
        nodes: nodes(map, leader),
        pools: pools(map),
        volumes: map.volumes.values().map(|v| volume(map, v)).collect(),
        segments,
    }
}

/// Pairs of nodes between which packets get lost, or that are connected through a third one only.
pub fn broken_paths(heartbeats: &Heartbeats) -> Vec<String> {
    let (broken, lossy) = (heartbeats.broken_paths(), heartbeats.lossy_paths());
    let loss = |(from, to, packets): &(NodeId, NodeId, Packets)| {
        let goes = match broken.contains(&(*from.min(to), *from.max(to))) {
            true => "what the two say goes through another node",
            false => "no other node reaches both without loss",
        };
        format!(
            "packets from node {from} to node {to} get lost, {}: {goes}; look at the cables, transceivers and ports on \
             the way",
            share_lost(*packets)
        )
    };
    let is_lossy =
        |(a, b): &&(NodeId, NodeId)| lossy.iter().any(|(from, to, _)| (from.min(to), from.max(to)) == (a, b));
    let silent = broken.iter().filter(|pair| !is_lossy(pair)).map(|(a, b)| {
        format!(
            "nodes {a} and {b} do not reach one another directly, or not on every port: what they say goes through \
             another node; look at the network between these two"
        )
    });
    lossy.iter().map(loss).chain(silent).collect()
}

/// How many of them, in words.
pub fn share_lost(Packets { sent, lost }: Packets) -> String {
    format!("{:.1} % ({lost} of {sent})", f64::from(lost) * 100.0 / f64::from(sent.max(1)))
}

/// Nodes that cannot write what control decides, this one with the reason, and those that take long to.
pub fn unwritten(shared: &Shared) -> Vec<String> {
    let until = "it goes on by what the leader tells it, and counts for no majority of control until it can";
    let own = shared
        .control
        .unwritten()
        .map(|why| format!("this node ({}) cannot write what control decides ({why}); {until}", shared.node));
    let said = shared.heartbeats.said();
    let others = said.iter().filter(|(node, said)| said.unwritten && **node != shared.node).map(|(node, _)| {
        format!(
            "node {node} cannot write what control decides: its data folder is full, read-only or does not answer; {until}"
        )
    });
    let slow = said.iter().filter(|(_, said)| said.slow && !said.unwritten).map(|(node, _)| {
        format!(
            "node {node} takes long to write what control decides: the disk of its data folder is slow, and another node \
             leads if it can"
        )
    });
    own.into_iter().chain(others).chain(slow).collect()
}

fn no_majority(alone: &Alone) -> String {
    let (heard, of) = alone.voters;
    if heard * 2 > of {
        return format!(
            "the control plane did not answer in time, although {heard} of its {of} members do; what is said here is as \
             this node knows it"
        );
    }
    let age = match alone.age {
        Some(age) => format!("for {} s", age.as_secs()),
        None => "since this daemon started".to_owned(),
    };
    format!(
        "the control plane has no majority: {heard} of its {of} members answer, too few {age}; what is said here is as \
         of then; I/O goes on where enough copies answer, changes wait"
    )
}

/// Copies that are lost with their disk, or are if their node stays away, or that their disk has no room for, and that
/// no other disk can take over.
fn without_a_place(map: &ClusterMap) -> Vec<String> {
    let down = map.nodes.values().filter(|n| n.state == NodeState::Down).map(|n| n.id).collect();
    no_place(&plan_replacements(map, &GivenUp::at_once(map, down)).unplaced)
}

/// What of a volume is lost with disks that have failed: it waits for an operator.
fn lost(loss: &Loss) -> Vec<String> {
    let Loss { volume, segments, in_doubt, gone } = loss;
    let mut lines = Vec::new();
    if *in_doubt > 0 {
        lines.push(format!(
            "volume {volume}: acknowledged writes in {in_doubt} of its {segments} segments may be on failed disks only; \
             `holdfast volume salvage {volume}` goes on without"
        ));
    }
    if *gone > 0 {
        lines.push(format!(
            "volume {volume}: of {gone} of its {segments} segments no copy is left that was in sync; restore it"
        ));
    }
    lines
}

fn problems(
    map: &ClusterMap,
    control: &ControlMetrics,
    segments: &model::SegmentCounts,
    alone: Option<&Alone>,
) -> Vec<String> {
    let mut problems = Vec::new();
    problems.extend(alone.map(no_majority));
    for node in control.voters.iter().filter(|n| map.was_removed(**n)) {
        problems.push(format!(
            "node {node} was removed and has a vote in the control plane still; the leader takes it away"
        ));
    }
    if segments.stalled > 0 {
        problems.push(match segments.stalled {
            1 => "1 segment waits: too few of its copies are in reach".into(),
            n => format!("{n} segments wait: too few of their copies are in reach"),
        });
    }
    problems.extend(losses(map).iter().flat_map(lost));
    for node in map.nodes.values() {
        match node.state {
            NodeState::Down => problems.push(format!("node {} ({}) does not answer", node.id, node.name)),
            NodeState::Stopping => problems.push(format!("node {} ({}) is stopping", node.id, node.name)),
            NodeState::Stopped => {
                problems.push(format!("node {} ({}) is stopped, as it was asked to be", node.id, node.name));
            }
            NodeState::Up => {}
        }
    }
    for disk in map.disks.values() {
        let what = match disk.state {
            DiskState::Ok => continue,
            DiskState::Full if disk.free == 0 => format!("is full: {}", model::FULL_HELP),
            DiskState::Full => {
                let free = holdfast_api::size::show(disk.free);
                format!("is nearly full ({free} left): discard data before its writes fail")
            }
            DiskState::Failed => "has failed".into(),
            DiskState::Missing => "is not found or was refused".into(),
            DiskState::Silent => format!("does not answer: {}", model::SILENT_HELP),
        };
        problems.push(format!("disk {} of node {} {what}", disk.path, disk.node));
    }
    problems.extend(map.disks.values().filter(|d| d.serves() && d.slow).map(|disk| {
        let most = format!("as are most of pool '{}': {}", disk.pool, model::ALL_SLOW_HELP);
        let what = if map.is_slow(disk.id) { model::SLOW_HELP.to_owned() } else { most };
        format!("disk {} of node {} is slow, {what}", disk.path, disk.node)
    }));
    problems.extend(without_a_place(map));
    if segments.degraded > 0 {
        problems.push(match segments.degraded {
            1 => "1 segment has fewer copies than it should".into(),
            n => format!("{n} segments have fewer copies than they should"),
        });
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_was_last_heard_when_its_last_member_was() {
        let now = Instant::now();
        let ago = |s| now.checked_sub(Duration::from_secs(s)).expect("the machine runs for longer");
        let voters: Vec<NodeId> = (1..=5).map(NodeId).collect();
        let heard = BTreeMap::from([(2, 7), (3, 0), (4, 9)].map(|(n, s)| (NodeId(n), ago(s))));
        assert_eq!(majority_heard(&voters, NodeId(1), &heard, now), Some(ago(7)));
        // This node has no vote: three others are needed, and the third was heard nine seconds ago.
        assert_eq!(majority_heard(&voters, NodeId(9), &heard, now), Some(ago(9)));
        assert_eq!(majority_heard(&voters, NodeId(1), &BTreeMap::new(), now), None);
        assert_eq!(majority_heard(&[NodeId(1)], NodeId(1), &BTreeMap::new(), now), Some(now));
    }

    #[test]
    fn copies_without_a_place_are_told_apart_by_what_they_lack() {
        use holdfast_cluster::{Reason, Unplaced};
        use holdfast_types::{DiskId, DiskIncarnation, ReplicaRef, SegmentKey};
        let copy = ReplicaRef { node: NodeId(1), disk: DiskId(1), incarnation: DiskIncarnation(1) };
        let lacks =
            |pool: &str, reason| Unplaced { segment: SegmentKey::default(), copy, pool: pool.into(), reason };
        assert_eq!(no_place(&[]), Vec::<String>::new());
        let lines =
            no_place(&[lacks("a", Reason::NoRoom), lacks("b", Reason::Away), lacks("a", Reason::NoRoom)]);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[0].starts_with("1 copy that is gone has no other place: add a disk to pool 'b'"),
            "{lines:?}"
        );
        let short =
            "2 copies are not in sync, their disks are full, and no others have room for them: discard data";
        assert!(lines[1].starts_with(short) && lines[1].contains("pool 'a'"), "{lines:?}");
        assert_eq!(lines[1].matches("pool 'a'").count(), 1, "each pool once: {lines:?}");
    }

    #[test]
    fn without_a_majority_the_first_line_says_how_old_the_rest_is() {
        let alone = |age| Alone { age, silent: vec![NodeId(2)], voters: (1, 3) };
        let said = no_majority(&alone(Some(Duration::from_secs(12))));
        assert!(said.contains("1 of its 3 members answer, too few for 12 s"), "{said}");
        assert!(no_majority(&alone(None)).contains("since this daemon started"));
    }
}
