//! The cluster map: all that control knows. A value; [`crate::apply`] is the only way to change it.

use crate::{FULL_FRACTION, ROOM_TOLD_FRACTION};
use alloc::{collections::BTreeMap, string::String, sync::Arc, vec::Vec};
use core::fmt;
use holdfast_types::{
    ChapSecret, ClusterId, DiskId, DiskIncarnation, Export, Exports, GatewayId, KeyHash, NodeId,
    ProcessIncarnation, ReplicaRef, SegmentId, SegmentInfo, SegmentKey, SessionId, VolumeId, write_quorum,
};
use serde::{Deserialize, Serialize};

/// Everything that control knows. Segments are shared between copies of the map, so that a copy costs a
/// reference count for each and not three allocations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMap {
    /// The cluster; zero before [`crate::Command::Bootstrap`].
    pub cluster: ClusterId,
    /// Its name.
    pub name: String,
    /// Counts the applied commands that changed the map.
    pub version: u64,
    /// Every node that was admitted and not removed.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Every disk that was added and not removed.
    pub disks: BTreeMap<DiskId, Disk>,
    /// Pools by name.
    pub pools: BTreeMap<String, Pool>,
    /// Volumes.
    pub volumes: BTreeMap<VolumeId, Volume>,
    /// Segments of these volumes.
    pub segments: BTreeMap<SegmentId, Arc<SegmentInfo>>,
    /// Copies that are to be freed: all those of a deleted segment, and those of a live one that were replaced.
    /// Absence from the map is never a reason to free (replication.md H19); presence here is.
    pub tombstones: BTreeMap<SegmentKey, Tombstone>,
    /// Join tokens by the SHA-256 of their secret.
    pub tokens: BTreeMap<TokenHash, Token>,
    /// Initiator sessions: through which gateway each nexus writes to each volume now.
    pub sessions: BTreeMap<SessionKey, Session>,
    /// The newest registration that was forgotten: a login that knew no later map may be older than it.
    pub sessions_forgotten: u64,
    /// When set, iSCSI logins must pass CHAP with it.
    pub chap: Option<Chap>,
    /// The number of the node that is admitted next. Never reused.
    pub next_node: u16,
    /// The number of the volume that is created next. Never reused.
    pub next_volume: u64,
    /// What the API's admin token hashes to, once it was replaced. None: it is the one that `init` made.
    pub admin_token: Option<TokenHash>,
}

/// Seconds since 1970 by the proposer's clock. Only for what people read and for the expiry of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnixSeconds(pub u64);

/// A host of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// Its name, unique in the cluster.
    pub name: String,
    /// Where it is reached: an IP address. Never its identity.
    pub address: String,
    /// The current run of its daemon; zero before the first.
    pub incarnation: ProcessIncarnation,
    /// What control thinks of it.
    pub state: NodeState,
    /// The random number that the current run gave at its start: a repeat of it is the same run.
    pub boot_nonce: u64,
    /// The highest run number that was given out, to the daemon or to its gateway.
    pub runs: u64,
    /// Its key: who shows a certificate for the node with another one is not the node.
    pub key: KeyHash,
}

/// What control thinks of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// It answers.
    Up,
    /// It does not, or never started.
    Down,
    /// It answers and is about to stop: it hands over what it owns and gets nothing new.
    Stopping,
    /// It does not answer, as it was asked to stop.
    Stopped,
}

impl NodeState {
    /// Whether it answers as far as control knows.
    pub fn answers(self) -> bool {
        match self {
            NodeState::Up | NodeState::Stopping => true,
            NodeState::Down | NodeState::Stopped => false,
        }
    }
}

/// A disk of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its id.
    pub id: DiskId,
    /// The node that carries it.
    pub node: NodeId,
    /// The generation of its content.
    pub incarnation: DiskIncarnation,
    /// Its state.
    pub state: DiskState,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes free, reported now and then.
    pub free: u64,
    /// The device or file on its node.
    pub path: String,
    /// The random number of its last opening: an older copy of the disk does not know it (replication.md H20).
    pub boot_nonce: u64,
    /// The pool it belongs to.
    pub pool: String,
    /// Its node says that it takes too long to answer. Ask [`ClusterMap::is_slow`].
    pub slow: bool,
}

impl Disk {
    /// Whether copies on it are written and read.
    pub fn serves(&self) -> bool {
        matches!(self.state, DiskState::Ok | DiskState::Full)
    }
    /// Whether a disk of its size takes no new segments with so much free.
    pub const fn is_nearly_full(&self, free: u64) -> bool {
        free < self.size / FULL_FRACTION
    }
    /// Whether control should hear that so much is free now: often enough to be useful, seldom enough not to fill the
    /// log of consensus.
    pub fn is_news(&self, free: u64) -> bool {
        let is_far = free.abs_diff(self.free) >= (self.size / ROOM_TOLD_FRACTION).max(1);
        is_far || (free == 0) != (self.free == 0)
    }
    /// What is free at least, by what control heard last.
    pub fn surely_free(&self) -> u64 {
        self.free.saturating_sub(self.size / ROOM_TOLD_FRACTION)
    }
}

/// The state of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskState {
    /// It serves.
    Ok,
    /// It serves and takes no new segments.
    Full,
    /// It failed; it returns only in a new incarnation (replication.md H21).
    Failed,
    /// Its node runs and does not find it.
    Missing,
    /// It owes its node answers and gives none. What it holds is there, and nobody can have it.
    Silent,
}

/// Disks that volumes are placed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
}

/// A virtual disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its number.
    pub id: VolumeId,
    /// Its name, unique in the cluster.
    pub name: String,
    /// Its size in bytes, a multiple of a block.
    pub size: u64,
    /// The pool its copies are in.
    pub pool: String,
    /// How many copies of each segment.
    pub copies: u8,
    /// Changes never: the source of the SCSI serial number and NAA identifier.
    pub unique_id: u64,
    /// When it was created.
    pub created: UnixSeconds,
}

/// A deleted segment, or the replaced copies of a live one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// The copies that are not freed yet.
    pub copies: Vec<ReplicaRef>,
}

/// The SHA-256 of a token's secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TokenHash(pub [u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

/// A join token. Its secret is nowhere in the map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Not valid from this moment on.
    pub expires: UnixSeconds,
    /// The node that it admitted.
    pub used: Option<NodeId>,
}

/// An initiator's nexus and the volume that it writes to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionKey {
    /// What the initiator calls itself, the same over every gateway.
    pub nexus: String,
    /// The volume.
    pub volume: VolumeId,
}

/// Through which gateway a nexus writes, and which earlier ones are not fenced yet (replication.md H13).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The gateway.
    pub gateway: GatewayId,
    /// The session on it.
    pub session: SessionId,
    /// The version of the map that this registration made: a login that knew only an earlier one came before it.
    pub registered: u64,
    /// It logged out with nothing under way. What is kept of it is only that it came after others.
    pub ended: bool,
    /// Earlier sessions that must be in every touched segment's log as fenced before this one writes.
    pub unfenced: Vec<crate::FenceTarget>,
}

/// The CHAP account of the cluster. Its secret is never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chap {
    /// The name that the initiator gives.
    pub user: String,
    /// The secret.
    pub secret: String,
}

impl fmt::Debug for Chap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chap({})", self.user)
    }
}

impl ClusterMap {
    /// The volume of that name.
    pub fn volume_named(&self, name: &str) -> Option<&Volume> {
        self.volumes.values().find(|v| v.name == name)
    }
    /// The node of that name.
    pub fn node_named(&self, name: &str) -> Option<&Node> {
        self.nodes.values().find(|n| n.name == name)
    }
    /// The segments of a volume, in order.
    pub fn segments_of(&self, volume: VolumeId) -> impl Iterator<Item = &Arc<SegmentInfo>> {
        let first = SegmentId { volume, index: 0 };
        let last = SegmentId { volume, index: u32::MAX };
        self.segments.range(first..=last).map(|(_, info)| info)
    }
    /// Whether there was a node of that number once: it is not coming back under it.
    pub fn was_removed(&self, node: NodeId) -> bool {
        (1..self.next_node).contains(&node.0) && !self.nodes.contains_key(&node)
    }
    /// Every node that was removed.
    pub fn removed_nodes(&self) -> impl Iterator<Item = NodeId> {
        (1..self.next_node).map(NodeId).filter(|node| self.was_removed(*node))
    }
    /// The disks of a node.
    pub fn disks_of(&self, node: NodeId) -> impl Iterator<Item = &Disk> {
        self.disks.values().filter(move |d| d.node == node)
    }
    /// How many segments each node owns.
    pub fn owned_by_node(&self) -> BTreeMap<NodeId, u64> {
        let mut owned = BTreeMap::new();
        for info in self.segments.values() {
            *owned.entry(info.granted.owner).or_default() += 1;
        }
        owned
    }
    /// What every gateway serves.
    pub fn exports(&self) -> Exports {
        let export = |v: &Volume| Export { volume: v.id, size: v.size, unique_id: v.unique_id };
        Exports {
            volumes: self.volumes.values().map(|v| (v.name.clone(), export(v))).collect(),
            chap: self.chap.as_ref().map(|c| ChapSecret { user: c.user.clone(), secret: c.secret.clone() }),
            not_joined: false,
        }
    }
    /// Whether the copy can answer as far as control knows: its node is not down, its disk serves and is not silent, and in
    /// that incarnation.
    pub fn reachable(&self, copy: &ReplicaRef) -> bool {
        let node_up = self.nodes.get(&copy.node).is_some_and(|n| n.state.answers());
        let answers = self.disks.get(&copy.disk).is_some_and(|d| d.state != DiskState::Silent);
        node_up && answers && self.intact(copy)
    }
    /// Whether some segment's write quorum cannot do without this node although it could have another set.
    pub fn is_needed(&self, node: NodeId) -> bool {
        self.segments.values().any(|segment| {
            let set = &segment.active.set;
            let mine = set.iter().any(|r| r.node == node);
            let others = set.iter().filter(|r| r.node != node && self.reachable(r)).count();
            mine && others > 0 && others < write_quorum(set.len())
        })
    }
    /// Whether the disk serves and is slow where others are not, so that it is better owned elsewhere what it holds. Where
    /// most of a pool are slow, too much is asked of them, or they lie on the same device: there is no better place.
    pub fn is_slow(&self, disk: DiskId) -> bool {
        let Some(disk) = self.disks.get(&disk).filter(|d| d.slow && d.serves()) else { return false };
        let serving = || self.disks.values().filter(|d| d.serves() && d.pool == disk.pool);
        2 * serving().filter(|d| d.slow).count() <= serving().count()
    }
    /// Whether the copy exists, be its node up or down and its disk silent or not: its disk is not lost and in that
    /// incarnation.
    pub fn intact(&self, copy: &ReplicaRef) -> bool {
        self.disks.get(&copy.disk).is_some_and(|d| {
            d.node == copy.node
                && d.incarnation == copy.incarnation
                && matches!(d.state, DiskState::Ok | DiskState::Full | DiskState::Silent)
        })
    }
}
