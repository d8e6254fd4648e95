//! Control without its majority: what a stopped node's database holds, and how one node goes on alone from it.
//!
//! A group whose majority is lost for good elects nobody ever again. [`StoppedControl::recover`] makes one node's
//! database that of a new group, which has this node as its only member and the whole of its log as its past: an entry
//! that no majority had may have been answered all the same. [`holdfast_cluster::recover`] sees to it that nothing is
//! given out twice. Of several survivors it has to be the one whose log goes furthest ([`Position`]): by Raft's rule of
//! elections (§5.4.1) it has every entry that any of them knows to be answered. The others forget theirs and follow
//! ([`StoppedControl::follow`]): the new group lets them in as nodes that only joined.
//!
//! Each group has a generation. Messages of another one are not taken, so that a node that was taken for lost, and
//! runs, can neither be led by the new group nor lead it.

use crate::codec;
use crate::machine::State;
use crate::raft_types::{StoredMembership, node_id, raft_id};
use crate::store::{Pair, Rewritten, StoreError, StoredSnapshot, open, rewrite};
use holdfast_cluster::ClusterMap;
use holdfast_types::NodeId;
use openraft::{BasicNode, Membership};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use thiserror::Error;

/// Where a log ends. Of two logs the one with the greater position knows everything answered that the other does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The term of its last entry.
    pub term: u64,
    /// The index of its last entry.
    pub index: u64,
}

impl Position {
    /// Before the first entry: where an empty log ends.
    pub const NONE: Position = Position { term: 0, index: 0 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

impl FromStr for Position {
    type Err = NotOne;
    fn from_str(text: &str) -> Result<Self, NotOne> {
        let parts = text.split_once('.').ok_or(NotOne)?;
        let number = |part: &str| part.parse().map_err(|_| NotOne);
        Ok(Self { term: number(parts.0)?, index: number(parts.1)? })
    }
}

/// A group of control: the one that `init` made is zero, and each that was made of a survivor has a later one. The
/// upper half counts, the lower half is drawn: two groups made of the same one are not the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u64);

impl Generation {
    fn next(self, drawn: u32) -> Self {
        Self(((self.0 >> 32) + 1) << 32 | u64::from(drawn))
    }

    /// Whether whoever is of this generation has to give way to one of the other: to a later one, and of two of the
    /// same age to each other, for which of them is right only the operator knows.
    pub(crate) fn gives_way_to(self, other: Self) -> bool {
        self != other && self.0 >> 32 <= other.0 >> 32
    }
}

/// What a survivor has to know to follow the one that was recovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The node that was recovered.
    pub node: NodeId,
    /// Where its log ended.
    pub position: Position,
    /// The new group.
    pub generation: Generation,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{:016x}", self.node, self.position, self.generation.0)
    }
}

impl FromStr for Ticket {
    type Err = NotOne;
    fn from_str(text: &str) -> Result<Self, NotOne> {
        let mut parts = text.split('-');
        let mut part = || parts.next().ok_or(NotOne);
        let node = NodeId(part()?.parse().map_err(|_| NotOne)?);
        let position = part()?.parse()?;
        let generation = Generation(u64::from_str_radix(part()?, 16).map_err(|_| NotOne)?);
        if parts.next().is_some() || generation == Generation::default() {
            return Err(NotOne);
        }
        Ok(Self { node, position, generation })
    }
}

/// Text that is no position or ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("copy it as the command on the other node printed it")]
pub struct NotOne;

/// A node's control while its daemon does not run. Nobody else opens the database meanwhile.
pub struct StoppedControl {
    node: NodeId,
    dir: PathBuf,
    pair: Pair,
    generation: Generation,
    state: State,
}

impl StoppedControl {
    /// Opens the database of that node in `dir` and reads all of it.
    pub fn open(dir: &Path, node: NodeId) -> Result<Self, StoreError> {
        let opened = open(dir, node)?;
        let (dir, pair, loaded) = (dir.to_owned(), opened.pair, opened.loaded);
        let mut state = State::of(loaded.snapshot.as_ref())
            .map_err(|e| StoreError::Corrupt { path: dir.clone(), what: format!("snapshot: {e}") })?;
        let generation = loaded.generation.unwrap_or_default();
        let from = state.applied;
        for entry in loaded.log.into_values().filter(|entry| Some(entry.log_id) > from) {
            // What a command came to was for whoever proposed it.
            let _ = state.apply(entry);
        }
        Ok(Self { node, dir, pair, generation, state })
    }

    /// The map as the whole log makes it.
    pub fn map(&self) -> &ClusterMap {
        &self.state.map
    }

    /// Where the log ends. None: this node was never let into a group.
    pub fn position(&self) -> Option<Position> {
        self.state.applied.map(|id| Position { term: id.leader_id.term, index: id.index })
    }

    /// Who votes.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.state.membership.voter_ids().map(node_id).collect()
    }

    /// The group.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Makes a group of this node alone, without those that are lost. The database as it was is kept beside it; where,
    /// is said with the ticket. None: this node has no log to go on from.
    pub fn recover(
        mut self,
        lost: &BTreeSet<NodeId>,
        drawn: u32,
    ) -> Result<Option<(Ticket, PathBuf)>, StoreError> {
        let (Some(last), Some(position)) = (self.state.applied, self.position()) else { return Ok(None) };
        let map = Arc::make_mut(&mut self.state.map);
        holdfast_cluster::recover(map, lost);
        let generation = self.generation.next(drawn);
        let id = raft_id(self.node);
        let address = map.nodes.get(&self.node).map(|n| n.address.clone()).unwrap_or_default();
        let members = BTreeMap::from([(id, BasicNode::new(address))]);
        let alone = Membership::new(vec![BTreeSet::from([id])], members);
        self.state.membership = StoredMembership::new(Some(last), alone);
        let data = codec::encode(&*self.state.map)
            .map_err(|e| StoreError::Corrupt { path: self.dir.clone(), what: e.to_string() })?;
        let snapshot = StoredSnapshot { meta: self.state.meta(), data };
        let state = Rewritten::Alone { last, snapshot, generation };
        let kept = rewrite(&self.dir, self.pair, self.node, state)?;
        Ok(Some((Ticket { node: self.node, position, generation }, kept)))
    }

    /// Forgets this node's log, to be let into the group of the ticket. Where the database as it was is kept.
    pub fn follow(self, ticket: &Ticket) -> Result<PathBuf, StoreError> {
        let state = Rewritten::Empty { generation: ticket.generation };
        rewrite(&self.dir, self.pair, self.node, state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_and_a_position_come_back_from_their_text_and_nothing_else_does() {
        let position = Position { term: 7, index: 1234 };
        let ticket = Ticket { node: NodeId(3), position, generation: Generation(1 << 32 | 0xbeef) };
        assert_eq!(ticket.to_string(), "3-7.1234-000000010000beef");
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
        assert_eq!("7.1234".parse(), Ok(position));
        for bad in ["", "7", "7.", ".7", "7.x", "-1.2", "7.1.2"] {
            assert_eq!(bad.parse::<Position>(), Err(NotOne), "{bad}");
        }
        for bad in ["", "3", "3-7.1", "3-7.1-", "3-7.1-0", "3-7.1-xyz", "3-7.1-1-1", "70000-7.1-1"] {
            assert_eq!(bad.parse::<Ticket>(), Err(NotOne), "{bad}");
        }
        assert!(position < Position { term: 8, index: 1 } && position > Position { term: 7, index: 1233 });
    }

    #[test]
    fn a_group_gives_way_to_a_later_one_and_twins_to_each_other() {
        let (first, other) = (Generation::default().next(5), Generation::default().next(6));
        assert!(Generation::default().gives_way_to(first) && !first.gives_way_to(Generation::default()));
        assert!(first.gives_way_to(other) && other.gives_way_to(first) && !first.gives_way_to(first));
        assert!(other.gives_way_to(first.next(0)) && !first.next(0).gives_way_to(other));
    }
}
