//! What may be proposed to control, and what it answers. Most commands are safe to propose twice: a repeat
//! finds its effect in the map and gets the same answer, or is a compare-and-set that the first one made stale;
//! [`Command::is_repeatable`] says which.
//! The order of variants is part of the format of the log: append, never insert.

use crate::{Chap, TokenHash, UnixSeconds};
use alloc::{string::String, vec::Vec};
use holdfast_types::{
    ClusterId, DiskId, DiskIncarnation, Epoch, GatewayId, KeyHash, NodeId, ProcessIncarnation, ReplicaRef,
    SegmentCommand, SegmentCommandResult, SegmentKey, SessionId, VolumeId,
};
use serde::{Deserialize, Serialize};

/// A change of the cluster map, or several at once.
pub type Command = CommandOf<Vec<Single>>;
/// One change of the cluster map: no batch. That a batch holds these is what bounds the depth of what is decoded.
pub type Single = CommandOf<NoBatch>;
/// What a command came to.
pub type CommandResult = ResultOf<Vec<Result<SingleResult, crate::CommandError>>>;
/// What a single command came to.
pub type SingleResult = ResultOf<NoBatch>;

/// Stands where a batch may not be: there is no value of it, and none is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoBatch {}

impl From<NoBatch> for Vec<Single> {
    fn from(never: NoBatch) -> Self {
        match never {}
    }
}

/// A node that is to be admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNode {
    /// Its name.
    pub name: String,
    /// Where it is reached.
    pub address: String,
    /// Its key.
    pub key: KeyHash,
}

/// The commands; `B` is what a batch is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "fields are named as in the map, where they are explained")]
pub enum CommandOf<B> {
    /// Names the cluster and admits its first node; makes the pool `default`. -> `Node`
    Bootstrap { cluster: ClusterId, name: String, first: NewNode },
    /// Admits a node without a token. A repeat with all that is said of a node gets that node. -> `Node`
    AddNode(NewNode),
    /// A run of a node's daemon started. A repeat of the nonce gets the same run. -> `Incarnation`
    NodeStarted { node: NodeId, boot_nonce: u64, address: String },
    /// The node's gateway was fenced and goes on under a new number. -> `Incarnation`
    GatewayRenewed { node: NodeId, incarnation: ProcessIncarnation },
    /// This run of the node does not answer, or says itself that it is about to end.
    NodeDown { node: NodeId, incarnation: ProcessIncarnation },
    /// This run of the node answers after all.
    NodeUp { node: NodeId, incarnation: ProcessIncarnation },
    /// This run of the node is about to stop.
    NodeStopping { node: NodeId, incarnation: ProcessIncarnation },
    /// The node is gone for good; refused while it answers or its disks carry copies. A repeat finds it removed.
    RemoveNode { node: NodeId },
    /// A formatted disk joins a pool. -> `DiskIncarnation`
    AddDisk { disk: DiskId, node: NodeId, size: u64, path: String, pool: String, boot_nonce: u64 },
    /// A disk was opened and found with `expect_nonce`. Another nonce than the last one is an older copy of the
    /// disk: it gets a new incarnation. -> `DiskIncarnation`
    DiskOpened { disk: DiskId, expect_nonce: u64, new_nonce: u64 },
    /// A flush or too much else failed.
    DiskFailed { disk: DiskId, incarnation: DiskIncarnation },
    /// Its node runs and does not find it.
    DiskMissing { disk: DiskId, incarnation: DiskIncarnation },
    /// It was wiped or found regressed, and starts empty. -> `DiskIncarnation`
    NewDiskIncarnation { disk: DiskId, expect: DiskIncarnation, boot_nonce: u64 },
    /// How much room it has.
    DiskFree { disk: DiskId, size: u64, free: u64 },
    /// Makes a pool.
    CreatePool { name: String },
    /// Makes a volume; its copies are placed by the map as it is when this is applied. -> `Volume`
    CreateVolume { name: String, size: u64, copies: u8, pool: String, created: UnixSeconds },
    /// Grows a volume.
    ResizeVolume { volume: VolumeId, size: u64 },
    /// Deletes a volume; leaves tombstones.
    DeleteVolume { volume: VolumeId },
    /// A deleted segment's copy on this disk is freed.
    SegmentFreed { segment: SegmentKey, disk: DiskId },
    /// A change of a segment's ownership or membership. -> `Segment`
    Segment(SegmentCommand),
    /// Makes a join token known.
    CreateToken { hash: TokenHash, expires: UnixSeconds },
    /// Admits a node by a token. A repeat with the same name and address gets the same node, until that node has
    /// started: a join that is tried again has another key. -> `Node`
    UseToken { hash: TokenHash, now: UnixSeconds, node: NewNode },
    /// A nexus that logged in when its gateway knew the map of version `seen` writes to a volume through this
    /// gateway from now on. -> `Fence`
    RegisterSession { nexus: String, gateway: GatewayId, session: SessionId, volume: VolumeId, seen: u64 },
    /// The earlier sessions that `RegisterSession` named are fenced in the logs.
    SessionFenced { nexus: String, gateway: GatewayId, session: SessionId, volume: VolumeId },
    /// The nexus logged out in good order.
    EndSession { nexus: String, gateway: GatewayId, session: SessionId, volume: VolumeId },
    /// Sets or clears the CHAP account.
    SetChap { chap: Option<Chap> },
    /// Several at once: each succeeds or is refused on its own. -> `Batch`
    Batch(B),
    /// A session that was registered under the gateway's number `was` goes on under a later one: its node was taken
    /// for dead, and its initiator stayed. -> `Fence`
    RenewSession { nexus: String, gateway: GatewayId, session: SessionId, volume: VolumeId, was: GatewayId },
    /// The copy `from`, which is in no S, is given up, and `to` is a member in its place: a learner, to be resynced.
    /// A compare-and-set on the granted epoch. -> `Segment`
    ReplaceCopy { segment: SegmentKey, expect: Epoch, from: ReplicaRef, to: ReplicaRef },
    /// The disk is gone for good; refused while it serves or carries copies.
    RemoveDisk { disk: DiskId },
    /// The node is gone for good with its disks, which count as failed. Refused while it answers, and, unless that is
    /// accepted, where it leaves too few copies of a segment's S. A repeat finds it so.
    NodeLost { node: NodeId, accept_loss: bool },
    /// Of the volume's segments of which too few copies of S are left, those that are left are S from now on:
    /// acknowledged writes may be lost.
    Salvage { volume: VolumeId },
    /// The disk is gone for good and counts as failed. Refused while it serves and is not slow; else as `NodeLost`.
    DiskLost { disk: DiskId, accept_loss: bool },
    /// The API's admin token has this hash from now on; join tokens that were not used are void.
    RotateAdminToken { hash: TokenHash },
    /// The disk owes its node answers and gives none, or gives some again.
    DiskSilent { disk: DiskId, incarnation: DiskIncarnation, silent: bool },
    /// The disk takes too long to answer, or keeps up again.
    DiskSlow { disk: DiskId, incarnation: DiskIncarnation, slow: bool },
}

impl<B: Clone + Into<Vec<Single>>> CommandOf<B> {
    /// Whether a repeat, after an answer that was lost, brings the same answer or at least does no harm. The
    /// others would report their own first success as an error.
    pub fn is_repeatable(&self) -> bool {
        match self {
            CommandOf::RemoveDisk { .. }
            | CommandOf::Salvage { .. }
            | CommandOf::CreatePool { .. }
            | CommandOf::CreateVolume { .. }
            | CommandOf::DeleteVolume { .. } => false,
            CommandOf::Batch(commands) => commands.clone().into().iter().all(Single::is_repeatable),
            _ => true,
        }
    }
}

/// A session whose requests must be fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceTarget {
    /// Its gateway.
    pub gateway: GatewayId,
    /// The session on it.
    pub session: SessionId,
}

/// What commands came to; `B` is the answer to a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResultOf<B> {
    /// Done, or so already.
    Done,
    /// The node of that number was admitted.
    Node(NodeId),
    /// The run has this number.
    Incarnation(ProcessIncarnation),
    /// The disk is in this incarnation.
    DiskIncarnation(DiskIncarnation),
    /// The volume has this number.
    Volume(VolumeId),
    /// What became of a segment's command.
    Segment(SegmentCommandResult),
    /// These must be fenced before the session writes.
    Fence(Vec<FenceTarget>),
    /// What each command of a batch came to.
    Batch(B),
}

impl From<SingleResult> for CommandResult {
    fn from(result: SingleResult) -> Self {
        match result {
            SingleResult::Done => Self::Done,
            SingleResult::Node(node) => Self::Node(node),
            SingleResult::Incarnation(run) => Self::Incarnation(run),
            SingleResult::DiskIncarnation(incarnation) => Self::DiskIncarnation(incarnation),
            SingleResult::Volume(volume) => Self::Volume(volume),
            SingleResult::Segment(result) => Self::Segment(result),
            SingleResult::Fence(targets) => Self::Fence(targets),
            SingleResult::Batch(never) => match never {},
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_batch_in_a_batch_is_not_decoded_however_deep_it_claims_to_be() {
        let done = SingleResult::Done;
        let batch = Command::Batch(vec![Single::RemoveNode { node: NodeId(1) }]);
        let bytes = postcard::to_allocvec(&batch).expect("it can be written");
        assert_eq!(postcard::from_bytes::<Command>(&bytes), Ok(batch));
        // A batch of one batch of one batch ...: the number of the variant, then a length of one.
        let nested = bytes[..2].repeat(1 << 20);
        assert!(postcard::from_bytes::<Command>(&nested).is_err());
        let result = CommandResult::Batch(vec![Ok(done)]);
        let bytes = postcard::to_allocvec(&result).expect("it can be written");
        assert_eq!(postcard::from_bytes::<CommandResult>(&bytes), Ok(result));
        // Here each is also marked as a success.
        let nested = bytes[..3].repeat(1 << 20);
        assert!(postcard::from_bytes::<CommandResult>(&nested).is_err());
    }
}
