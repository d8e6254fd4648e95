//! What goes over the wire of the API, as JSON: the answers of the server, the requests of the client, and
//! exactly what `--json` prints. Ids of clusters and disks are 32 hexadecimal digits; sizes are bytes; times
//! are milliseconds since 1970, UTC. A field may be added; none is renamed or given another meaning.

mod order;

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

pub use order::*;

/// How well the cluster does, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Every node is up, can write, and reaches all others; every segment has all its copies.
    #[default]
    Healthy,
    /// Everything is served; something is missing.
    Degraded,
    /// Some I/O waits.
    Stalled,
}

/// The state of the cluster as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The cluster's id.
    pub cluster: String,
    /// Its name.
    pub name: String,
    /// The node that answers.
    pub answered_by: u16,
    /// The version of the daemon that answers.
    pub version: String,
    /// The node that leads the control plane, when one does.
    pub leader: Option<u16>,
    /// Whether the control plane has a majority as far as this node knows. I/O goes on without.
    pub control_quorum: bool,
    /// How many commands the map has seen.
    pub map_version: u64,
    /// Without a majority: for how long no majority has been heard, in milliseconds. What else is said here is at
    /// least that old, except which nodes are silent. None with a majority, and when none was heard since this
    /// daemon started.
    pub map_age_ms: Option<u64>,
    /// Without a majority: the nodes that this node does not hear now.
    pub silent: Vec<u16>,
    /// In one word.
    pub health: Health,
    /// What is missing, one line each, the gravest first.
    pub problems: Vec<String>,
    /// Every node.
    pub nodes: Vec<Node>,
    /// Every pool.
    pub pools: Vec<Pool>,
    /// Every volume.
    pub volumes: Vec<Volume>,
    /// How many segments are in which state.
    pub segments: SegmentCounts,
}

/// How many segments are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentCounts {
    /// All.
    pub total: u64,
    /// With every copy in the write set and an active owner.
    pub healthy: u64,
    /// Served with copies missing.
    pub degraded: u64,
    /// With copies that are being brought up to date.
    pub resyncing: u64,
    /// Whose writes wait.
    pub stalled: u64,
}

/// State of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Answers.
    #[default]
    Up,
    /// Does not.
    Down,
    /// Hands over what it owns, to stop then.
    Stopping,
    /// It was stopped, as it was asked to be.
    Stopped,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its number.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Its state.
    pub state: NodeState,
    /// Whether it leads the control plane.
    pub leader: bool,
    /// The run of its daemon.
    pub incarnation: u64,
    /// How many disks it carries.
    pub disks: u32,
    /// How many segments it owns.
    pub owned_segments: u64,
    /// How many segments' copies it holds.
    pub copies: u64,
}

/// A node with its disks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDetail {
    /// The node.
    #[serde(flatten)]
    pub node: Node,
    /// Where its API listens.
    pub api: Option<SocketAddr>,
    /// Where it serves iSCSI.
    pub iscsi: Option<SocketAddr>,
    /// Where it serves NBD.
    pub nbd: Option<SocketAddr>,
    /// Its disks.
    pub attached: Vec<Disk>,
    /// Initiators that are logged in there.
    pub sessions: Vec<Session>,
}

/// An initiator's session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// `iscsi` or `nbd`.
    pub protocol: String,
    /// The initiator's name or address.
    pub initiator: String,
    /// The volume's name.
    pub volume: Option<String>,
    /// The node whose gateway it is.
    pub node: u16,
}

/// What helps against a full disk.
pub const FULL_HELP: &str = "writes of new data fail with \"no space\" and go on by themselves once data on it is discarded (fstrim in the guest, blkdiscard) or a volume with copies there is deleted";

/// What helps against a disk that does not answer.
pub const SILENT_HELP: &str = "its host's kernel log may say why; if it is not coming back, `holdfast disk lost` has its copies placed anew at once";

/// What helps against a slow disk.
pub const SLOW_HELP: &str = "and others own what it holds where they can: its SMART data and its host's kernel log may say why; `holdfast disk lost` has its copies placed anew at once";

/// What helps where most disks of a pool are slow.
pub const ALL_SLOW_HELP: &str = "too much is asked of them, or they lie on one device that is";

/// State of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskState {
    /// In use.
    #[default]
    Ok,
    /// In use, and without room for new data: it takes overwrites and discards.
    Full,
    /// In use, with little room left: it takes no new volumes.
    NearlyFull,
    /// A flush or its metadata failed; not in use.
    Failed,
    /// Not there, or its node is down.
    Missing,
    /// There, and it does not answer its node.
    Silent,
    /// In use, and it takes too long to answer.
    Slow,
}

/// A disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its id.
    pub id: String,
    /// The node that carries it.
    pub node: u16,
    /// Where, on that node.
    pub path: String,
    /// Its state.
    pub state: DiskState,
    /// The generation of its content.
    pub incarnation: u32,
    /// The pool that it belongs to.
    pub pool: String,
    /// Its size.
    pub size: u64,
    /// What is free, as last reported.
    pub free: u64,
    /// How many segments' copies it holds.
    pub copies: u64,
}

/// A pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// How many disks it has.
    pub disks: u32,
    /// Their size.
    pub size: u64,
    /// What is free on them.
    pub free: u64,
    /// The sizes of its volumes times their copies: thin volumes may promise more than there is.
    pub promised: u64,
    /// How many volumes it holds.
    pub volumes: u32,
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its size.
    pub size: u64,
    /// What its copies hold on disks, as last reported, all copies together.
    pub allocated: Option<u64>,
    /// Its pool.
    pub pool: String,
    /// How many copies it keeps.
    pub copies: u8,
    /// How well it does.
    pub health: Health,
    /// When it was made.
    pub created_ms: u64,
    /// Its iSCSI name.
    pub iqn: String,
}

/// A volume with everything about its segments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeDetail {
    /// The volume.
    #[serde(flatten)]
    pub volume: Volume,
    /// URLs by which the initiators of each node's host reach it: node, `iscsi://…`, `nbd://…`.
    pub urls: Vec<VolumeUrls>,
    /// Its segments in order.
    pub segments: Vec<Segment>,
    /// Who is logged in.
    pub sessions: Vec<Session>,
}

/// Where a node serves a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeUrls {
    /// The node.
    pub node: u16,
    /// Over iSCSI.
    pub iscsi: String,
    /// Over NBD.
    pub nbd: String,
}

/// A segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its place in the volume.
    pub index: u32,
    /// The node that owns it by the last grant.
    pub owner: u16,
    /// The epoch that was granted last.
    pub granted_epoch: u64,
    /// The epoch that is active; I/O is served when it is the granted one.
    pub active_epoch: u64,
    /// Its copies.
    pub copies: Vec<SegmentCopy>,
}

/// State of a segment's copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyState {
    /// In the write set, and its node is up.
    #[default]
    InSync,
    /// In the write set, and its node or disk is away.
    Away,
    /// Being brought up to date.
    Resyncing,
    /// Not in the write set, and nothing happens.
    Behind,
}

/// A segment's copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentCopy {
    /// On this node.
    pub node: u16,
    /// On this disk.
    pub disk: String,
    /// Its state.
    pub state: CopyState,
    /// How far the resync is, while there is one.
    pub resync: Option<ResyncProgress>,
}

/// How far a resync is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResyncProgress {
    /// `journal`, `changed-extents` or `full`.
    pub kind: String,
    /// Bytes of the extents that are done: copied, or found equal.
    pub done_bytes: u64,
    /// Bytes of all extents that it may lack, as known now.
    pub total_bytes: u64,
}

/// A step of a check, one JSON line each; the last one is the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum CheckStep {
    /// So far.
    Progress {
        /// Segments that are done.
        segments_done: u32,
        /// Segments in all.
        segments_total: u32,
        /// Bytes compared.
        bytes: u64,
    },
    /// Copies on these nodes, which are up, take no part yet: they are asked again.
    Waiting {
        /// Their numbers.
        nodes: Vec<u16>,
    },
    /// All segments are done.
    Report(CheckReport),
    /// The check could not go on.
    Failed(crate::ApiError),
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// The volume.
    pub volume: String,
    /// Segments compared.
    pub segments: u32,
    /// Bytes compared, of one copy.
    pub bytes: u64,
    /// Copies that could not be compared, and why.
    pub skipped: Vec<String>,
    /// What differs.
    pub findings: Vec<CheckFinding>,
}

/// Blocks that are not as they should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckFinding {
    /// The segment.
    pub segment: u32,
    /// Where in the volume, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
    /// The node with the copy that differs.
    pub node: u16,
    /// Its disk.
    pub disk: String,
    /// What is wrong: `wrong checksum`, `differs from the other copies`, ….
    pub what: String,
    /// Whether it was healed.
    pub healed: bool,
}

/// What happened: who, what, when, why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up on each node; never used twice there.
    pub seq: u64,
    /// When, in milliseconds since 1970, UTC.
    pub time_ms: u64,
    /// The node that saw it.
    pub node: u16,
    /// How much it matters.
    pub level: EventLevel,
    /// Who did it: `operator`, `control`, `node 2`, `iqn.…`.
    pub who: String,
    /// What kind, for programs: `volume-created`, `node-down`.
    pub kind: String,
    /// What, for people, one line.
    pub what: String,
    /// Why, when something is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventLevel {
    /// As it should be.
    #[default]
    Info,
    /// Something is missing.
    Warning,
    /// Someone has to act.
    Error,
}

/// Which events are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventQuery {
    /// Only those with a greater number.
    #[serde(default)]
    pub since: Option<u64>,
    /// At most so many, the newest.
    #[serde(default)]
    pub last: Option<usize>,
}

/// An answer that says nothing but "done".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}
