//! Keeps the roster of this node: from the map, and, when somebody comes whom the map does not know yet, from the members
//! that it knows. What was known last is in `members.json`, for a node that starts without a map: one that has just
//! joined, or that forgot its control to follow a recovered one.

use super::Shared;
use super::backend::{NodeAnswer, NodeRequest};
use super::rpc::Kind;
use anyhow::Context;
use futures::future::join_all;
use holdfast_cluster::ClusterMap;
use holdfast_net::{Member, Roster};
use holdfast_types::NodeId;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long members may take to say whom they know.
const ASKED_FOR: Duration = Duration::from_millis(500);
/// Between questions.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// The members that a map has.
pub fn roster(map: &ClusterMap) -> Roster {
    let member = |n: &holdfast_cluster::Node| Member { address: n.address.clone(), key: n.key };
    let members = map.nodes.values().map(|n| (n.id, member(n))).collect();
    Roster { version: map.version, next_node: map.next_node, members }
}

/// What is known before anything runs: the map's, or what was known last.
pub fn at_start(shared: &Shared) -> anyhow::Result<()> {
    let map = shared.map();
    let known = if map.nodes.is_empty() { shared.dir.load_members()? } else { Some(roster(&map)) };
    shared.identity.members().set(known.unwrap_or_default());
    Ok(())
}

/// Follows the map for as long as this node runs.
pub async fn follow_map(shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut maps = shared.control.map();
    // What cannot be read is written anew.
    let mut saved = shared.dir.load_members().ok().flatten().unwrap_or_default();
    loop {
        let map = maps.borrow_and_update().clone();
        let known = roster(&map);
        let changed = (known.next_node, &known.members) != (saved.next_node, &saved.members);
        if changed && !map.nodes.is_empty() {
            // In force first: that the file is late costs a question after the next start.
            shared.identity.members().set(known.clone());
            match shared.dir.save_members(&known) {
                Ok(()) => saved = known,
                Err(error) => tracing::warn!(%error, "whom this node takes for members is not saved"),
            }
        }
        maps.changed().await.context("consensus has ended")?;
    }
}

/// Asks the members that are known for those that are not, whenever one of these comes.
pub async fn learn(shared: Arc<Shared>) -> anyhow::Result<()> {
    let members = shared.identity.members();
    loop {
        members.knocked().await;
        let Some(known) = members.roster() else { continue };
        let others = known.members.iter().filter(|(node, _)| **node != shared.node);
        let asked = others.map(|(node, member)| ask(&shared, *node, &member.address));
        let newest = join_all(asked).await.into_iter().flatten().max_by_key(|r| r.version);
        // The map may have brought a later one meanwhile.
        let version = members.roster().map_or(0, |r| r.version);
        if let Some(newer) = newest.filter(|r| r.version > version) {
            members.set(newer);
        }
        sleep(ASK_EVERY).await;
    }
}

async fn ask(shared: &Shared, node: NodeId, address: &str) -> Option<Roster> {
    let request = serde_json::to_vec(&NodeRequest::Members).ok()?;
    let answer = timeout(ASKED_FOR, shared.caller.ask(node, address, Kind::Node, request.into())).await;
    match serde_json::from_slice(&answer.ok()?.ok()?) {
        Ok(NodeAnswer::Members(roster)) => Some(roster),
        _ => None,
    }
}
