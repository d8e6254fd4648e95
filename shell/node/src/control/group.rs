//! The consensus group follows the map: the leader lets in nodes that joined, takes out those that were removed, lets
//! in anew those that have forgotten, and gives a vote that became free to one that only followed. A node that was
//! removed, or whose group was given up, finds out and says so, and so does one that cannot write what is decided.

use super::{Shared, backend};
use anyhow::Context;
use holdfast_cluster::ClusterMap;
use holdfast_consensus::{ControlMetrics, MAX_VOTERS, MembershipError, Standing};
use holdfast_types::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How often changes that could not be made are tried again, while there are any.
const AGAIN: Duration = Duration::from_millis(500);
/// Between looks at what this node cannot write.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between questions of a node that hears nobody, whether it is a member still.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// What has to change so that the group is as the map says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    admit: Vec<NodeId>,
    remove: Vec<NodeId>,
}

fn changes(map: &ClusterMap, group: &ControlMetrics, forgetful: &BTreeSet<NodeId>) -> Changes {
    let joined = |node: &NodeId| !group.voters.contains(node) && !group.learners.contains(node);
    // All that follow: the first of them may be away. Who comes when no vote is left goes on following.
    let may_vote = |node: &&NodeId| group.voters.len() < MAX_VOTERS && group.learners.contains(*node);
    let outside = map.nodes.keys().filter(|n| joined(n));
    let to_vote = map.nodes.keys().filter(may_vote);
    // Members still, and of no use as such.
    let again = forgetful.iter().filter(|n| map.nodes.contains_key(n) && !joined(n));
    let members = group.voters.iter().chain(&group.learners);
    Changes {
        admit: outside.chain(to_vote).chain(again).copied().collect(),
        remove: members.filter(|n| map.was_removed(**n)).copied().collect(),
    }
}

/// The leader keeps the group as the map says, for as long as this node runs.
pub async fn keep(shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut maps = shared.control.map();
    let mut forgetful = shared.control.forgetful();
    // Nodes that run with the control of a group that was given up.
    let mut strangers = BTreeSet::new();
    loop {
        let map = maps.borrow_and_update().clone();
        let group = shared.control.metrics();
        let changes = changes(&map, &group, &forgetful.borrow_and_update());
        if group.is_leader {
            // First: a dead member's vote is what a majority lacks.
            for node in &changes.remove {
                match shared.control.remove_voter(*node).await {
                    Ok(()) => tracing::info!(node = node.0, "a removed node has no vote any more"),
                    Err(error) => {
                        tracing::debug!(node = node.0, %error, "a removed node is in the group still")
                    }
                }
            }
            for node in &changes.admit {
                let Some(entry) = map.nodes.get(node) else { continue };
                // A voter that never ran would cost the others their majority.
                if !backend::answers(&shared, *node).await {
                    continue;
                }
                match shared.control.add_voter(*node, entry.address.clone()).await {
                    Ok(()) => drop(strangers.remove(node)),
                    Err(MembershipError::OtherGroup { .. }) => {
                        if strangers.insert(*node) {
                            shared.events.taken_for_lost(*node);
                        }
                    }
                    Err(error) => tracing::debug!(node = node.0, %error, "not in the group yet"),
                }
            }
        }
        let other = async {
            tokio::select! {
                map = maps.changed() => map,
                memory = forgetful.changed() => memory,
            }
        };
        if changes == Changes::default() {
            other.await.context("consensus has ended")?;
        } else {
            let _ = timeout(AGAIN, other).await;
        }
    }
}

/// Tells when this node cannot write what control decides, and when it can again.
pub async fn tell_unwritten(shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut since: Option<Instant> = None;
    loop {
        sleep(LOOK_EVERY).await;
        match (shared.control.unwritten(), since) {
            (Some(why), None) => {
                since = Some(Instant::now());
                shared.events.control_unwritten(&why);
            }
            (None, Some(began)) => {
                since = None;
                shared.events.control_written(began.elapsed());
            }
            _ => {}
        }
    }
}

/// Tells of nodes whose control knows less than it said that it does.
pub async fn tell_reversions(shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut reversions = shared.control.reversions();
    let mut told = BTreeMap::new();
    loop {
        let known = reversions.borrow_and_update().clone();
        known.iter().filter(|(node, times)| told.get(*node) != Some(*times)).for_each(|(node, _)| {
            shared.events.control_reverted(*node);
        });
        told = known;
        reversions.changed().await.context("consensus has ended")?;
    }
}

/// Notices that this node has no place in the cluster any more, and says so once. The daemon goes on: its initiators' I/O waits for as long as
/// the operator lets it.
pub async fn notice_removal(shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut standing = shared.control.standing();
    let asking = async {
        for turn in 0.. {
            sleep(ASK_EVERY).await;
            let heard = shared.heartbeats.heard();
            if heard.values().all(|at| at.elapsed() >= ASK_EVERY) {
                let roster = shared.identity.members().roster().unwrap_or_default();
                let known = roster.members.iter().map(|(node, member)| (*node, member.address.clone()));
                shared.control.ask_whether_removed(turn, known.collect()).await;
            }
        }
    };
    tokio::select! {
        told = standing.wait_for(|standing| cast_out(*standing).is_some()) => {
            drop(told.context("consensus has ended")?);
        }
        () = asking => {}
    }
    if let Some(cast_out) = cast_out(*standing.borrow()) {
        tracing::error!(node = shared.node.0, "{}", cast_out.why);
        shared.events.cast_out(&cast_out);
    }
    Ok(())
}

/// What a node that has no place in the cluster any more has to say of itself.
pub struct CastOut {
    /// The kind of the event.
    pub event: &'static str,
    /// Why, and what to do.
    pub why: &'static str,
}

/// What that is, if it has none.
pub fn cast_out(standing: Standing) -> Option<CastOut> {
    match standing {
        Standing::Member => None,
        Standing::Removed => Some(CastOut { event: "node-was-removed", why: REMOVED }),
        Standing::Superseded => Some(CastOut { event: "node-was-superseded", why: SUPERSEDED }),
    }
}

/// What a node has to say whose control was taken for lost.
const SUPERSEDED: &str = "the control plane that this node is of was given up and made anew on another one: stop \
                              this daemon, then run here the `holdfast recover --follow` line that was printed there \
                              (event control-recovery of that node)";
/// What a node has to say whose control's database is gone.
pub const FORGOT: &str = "this node's own record of the control plane was damaged or is gone: it takes no part until the \
                          others, a majority without it, have let it in again; its disks and their copies are untouched \
                          (of two nodes: `holdfast recover --help` on the other one)";
const REMOVED: &str = "this node was removed from the cluster: it serves nothing any more; stop its daemon, and let \
                           the host join anew with an empty data folder if it is to be used again";

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_cluster::{Command, NewNode, apply};
    use holdfast_types::{ClusterId, KeyHash, ProcessIncarnation};

    fn new_node(n: u16) -> NewNode {
        NewNode { name: format!("n{n}"), address: format!("a{n}"), key: KeyHash([n as u8; 32]) }
    }

    fn map(nodes: u16, removed: &[u16]) -> ClusterMap {
        let mut map = ClusterMap::default();
        let mut commands =
            vec![Command::Bootstrap { cluster: ClusterId(1), name: "c".into(), first: new_node(1) }];
        commands.extend((2..=nodes).map(|n| Command::AddNode(new_node(n))));
        commands.extend(removed.iter().map(|n| Command::RemoveNode { node: NodeId(*n) }));
        for command in commands {
            apply(&mut map, command).expect("it applies");
        }
        assert!(map.nodes.values().all(|n| n.incarnation == ProcessIncarnation(0)));
        map
    }

    fn group(voters: &[u16], learners: &[u16]) -> ControlMetrics {
        let ids = |list: &[u16]| list.iter().copied().map(NodeId).collect::<Vec<_>>();
        ControlMetrics {
            term: 1,
            last_log: None,
            applied: None,
            snapshot: None,
            leader: None,
            is_leader: true,
            voters: ids(voters),
            learners: ids(learners),
            failed: None,
        }
    }

    fn wanted(map: &ClusterMap, group: &ControlMetrics) -> (Vec<u16>, Vec<u16>) {
        wanted_with(map, group, &[])
    }

    fn wanted_with(map: &ClusterMap, group: &ControlMetrics, forgetful: &[u16]) -> (Vec<u16>, Vec<u16>) {
        let forgetful = forgetful.iter().copied().map(NodeId).collect();
        let Changes { admit, remove } = changes(map, group, &forgetful);
        let numbers = |list: Vec<NodeId>| list.into_iter().map(|n| n.0).collect();
        (numbers(admit), numbers(remove))
    }

    #[test]
    fn who_joined_is_let_in_and_who_was_removed_is_taken_out() {
        assert_eq!(wanted(&map(3, &[]), &group(&[1, 2, 3], &[])), (vec![], vec![]));
        assert_eq!(wanted(&map(4, &[2]), &group(&[1, 2, 3], &[])), (vec![4], vec![2]));
        // One that the map does not have yet, as this node's map may be late, was not removed.
        assert_eq!(wanted(&map(2, &[]), &group(&[1, 2, 3], &[])), (vec![], vec![]));
    }

    #[test]
    fn a_member_that_has_forgotten_is_let_in_again_unless_it_was_removed() {
        assert_eq!(wanted_with(&map(3, &[]), &group(&[1, 2, 3], &[]), &[3]), (vec![3], vec![]));
        assert_eq!(wanted_with(&map(3, &[3]), &group(&[1, 2, 3], &[]), &[3]), (vec![], vec![3]));
        // Once it is out, it is one that joins.
        assert_eq!(wanted_with(&map(3, &[]), &group(&[1, 2], &[]), &[3]), (vec![3], vec![]));
    }

    #[test]
    fn a_vote_that_became_free_is_offered_to_those_that_followed() {
        let all: Vec<u16> = (1..=7).collect();
        assert_eq!(wanted(&map(9, &[]), &group(&all, &[8, 9])), (vec![], vec![]));
        assert_eq!(wanted(&map(9, &[7]), &group(&all[..6], &[8, 9])), (vec![8, 9], vec![]));
    }
}
