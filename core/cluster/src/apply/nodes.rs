//! Nodes: admitted, started, down, up, stopping, removed.

use super::{Changed, Outcome, check_limit, check_name, check_path};
use crate::{ClusterMap, CommandError, MAX_NODES, NewNode, Node, NodeState, Pool, SingleResult};
use alloc::string::String;
use alloc::sync::Arc;
use holdfast_types::{ClusterId, NodeId, ProcessIncarnation, ReplicaRef, SegmentInfo};

/// The pool that `init` makes.
const DEFAULT_POOL: &str = "default";

pub(super) fn bootstrap(map: &mut ClusterMap, cluster: ClusterId, name: String, first: NewNode) -> Outcome {
    let id = NodeId(1);
    if map.cluster != ClusterId::default() {
        let same = map.cluster == cluster && map.nodes.get(&id).is_some_and(|n| n.name == first.name);
        return match same {
            true => Ok((SingleResult::Node(id), Changed::No)),
            false => Err(CommandError::AlreadyBootstrapped { have: map.cluster }),
        };
    }
    if cluster == ClusterId::default() {
        return Err(CommandError::NotBootstrapped);
    }
    check_name("cluster", &name)?;
    check_name("node", &first.name)?;
    check_path("address", &first.address)?;
    *map = ClusterMap { cluster, name, next_node: 1, next_volume: 1, ..ClusterMap::default() };
    map.pools.insert(DEFAULT_POOL.into(), Pool { name: DEFAULT_POOL.into() });
    let admitted = admit(map, first);
    assert_eq!(admitted, id, "the first node has number 1");
    Ok((SingleResult::Node(id), Changed::Yes))
}

pub(super) fn add(map: &mut ClusterMap, new: NewNode) -> Outcome {
    if let Some(node) = map.node_named(&new.name)
        && (&node.address, node.key) == (&new.address, new.key)
    {
        return Ok((SingleResult::Node(node.id), Changed::No));
    }
    check_new(map, &new)?;
    let id = admit(map, new);
    Ok((SingleResult::Node(id), Changed::Yes))
}

/// Whether that node may be admitted.
pub(super) fn check_new(map: &ClusterMap, new: &NewNode) -> Result<(), CommandError> {
    check_name("node", &new.name)?;
    check_path("address", &new.address)?;
    // Numbers are never reused, so the numbers given out are what is limited.
    check_limit("nodes", usize::from(map.next_node) - 1, MAX_NODES)?;
    match map.node_named(&new.name) {
        Some(_) => Err(CommandError::NameTaken { what: "node".into(), name: new.name.clone() }),
        None => Ok(()),
    }
}

/// Admits a node that was checked.
pub(super) fn admit(map: &mut ClusterMap, NewNode { name, address, key }: NewNode) -> NodeId {
    let id = NodeId(map.next_node);
    map.next_node += 1;
    let incarnation = ProcessIncarnation(0);
    let node = Node { id, name, address, incarnation, state: NodeState::Down, boot_nonce: 0, runs: 0, key };
    map.nodes.insert(id, node);
    id
}

pub(super) fn started(map: &mut ClusterMap, node: NodeId, boot_nonce: u64, address: String) -> Outcome {
    check_path("address", &address)?;
    let n = map.nodes.get_mut(&node).ok_or(CommandError::NoSuchNode(node))?;
    if n.incarnation != ProcessIncarnation(0) && n.boot_nonce == boot_nonce {
        return Ok((SingleResult::Incarnation(n.incarnation), Changed::No));
    }
    n.runs += 1;
    n.incarnation = ProcessIncarnation(n.runs);
    n.boot_nonce = boot_nonce;
    n.state = NodeState::Up;
    n.address = address;
    Ok((SingleResult::Incarnation(n.incarnation), Changed::Yes))
}

pub(super) fn gateway_renewed(
    map: &mut ClusterMap,
    node: NodeId,
    incarnation: ProcessIncarnation,
) -> Outcome {
    let n = current(map, node, incarnation)?;
    n.runs += 1;
    let given = ProcessIncarnation(n.runs);
    Ok((SingleResult::Incarnation(given), Changed::Yes))
}

/// Its initiators may go on elsewhere from now on: the number of its gateway ends here. A daemon that only was
/// frozen asks for another one (replication.md R9).
pub(super) fn down(map: &mut ClusterMap, node: NodeId, incarnation: ProcessIncarnation) -> Outcome {
    let n = current(map, node, incarnation)?;
    // One that was asked to stop, or that says itself that it has: nothing is wrong with it.
    let planned = matches!(n.state, NodeState::Stopping | NodeState::Stopped);
    if n.state.answers() {
        n.runs += 1;
    }
    set_state(map, node, incarnation, if planned { NodeState::Stopped } else { NodeState::Down })
}

pub(super) fn up(map: &mut ClusterMap, node: NodeId, incarnation: ProcessIncarnation) -> Outcome {
    let n = current(map, node, incarnation)?;
    // It answers; that does not take back its wish to stop.
    if matches!(n.state, NodeState::Stopping | NodeState::Stopped) {
        return Ok((SingleResult::Done, Changed::No));
    }
    set_state(map, node, incarnation, NodeState::Up)
}

pub(super) fn stopping(map: &mut ClusterMap, node: NodeId, incarnation: ProcessIncarnation) -> Outcome {
    set_state(map, node, incarnation, NodeState::Stopping)
}

/// One that answers may own segments and take part in decisions: it is stopped first.
pub(super) fn remove(map: &mut ClusterMap, node: NodeId) -> Outcome {
    if map.was_removed(node) {
        return Ok((SingleResult::Done, Changed::No));
    }
    let state = map.nodes.get(&node).ok_or(CommandError::NoSuchNode(node))?.state;
    if state.answers() {
        return Err(CommandError::NodeAnswers { node });
    }
    match carried(map, |copy| copy.node == node) {
        0 => {}
        copies => return Err(CommandError::NodeInUse { node, copies }),
    }
    map.nodes.remove(&node);
    map.disks.retain(|_, d| d.node != node);
    forget_tombstones(map, |copy| copy.node == node);
    Ok((SingleResult::Done, Changed::Yes))
}

/// How many segments have such a copy, be it a member or only in one of the two S.
pub(super) fn carried(map: &ClusterMap, is_such: impl Fn(&ReplicaRef) -> bool) -> usize {
    let has_one =
        |s: &&Arc<SegmentInfo>| s.members.iter().chain(&s.active.set).chain(&s.granted.set).any(&is_such);
    map.segments.values().filter(has_one).count()
}

/// What was left to free on a disk that is gone goes with it.
pub(super) fn forget_tombstones(map: &mut ClusterMap, is_gone: impl Fn(&ReplicaRef) -> bool) {
    for tombstone in map.tombstones.values_mut() {
        tombstone.copies.retain(|c| !is_gone(c));
    }
    map.tombstones.retain(|_, t| !t.copies.is_empty());
}

/// The node, if it is in that run: what is said of an earlier run is void.
fn current(
    map: &mut ClusterMap,
    node: NodeId,
    incarnation: ProcessIncarnation,
) -> Result<&mut Node, CommandError> {
    let n = map.nodes.get_mut(&node).ok_or(CommandError::NoSuchNode(node))?;
    if n.incarnation != incarnation {
        return Err(CommandError::StaleNode { node, given: incarnation.0, current: n.incarnation.0 });
    }
    Ok(n)
}

fn set_state(
    map: &mut ClusterMap,
    node: NodeId,
    incarnation: ProcessIncarnation,
    state: NodeState,
) -> Outcome {
    let n = current(map, node, incarnation)?;
    let changed = if n.state == state { Changed::No } else { Changed::Yes };
    n.state = state;
    Ok((SingleResult::Done, changed))
}
