//! The engine's door: what it is told ([`Input`], facts) and what it orders ([`Output`]). The shell turns
//! sockets, disks, timers and consensus into these and back, and decides nothing. The order of the outputs of
//! one call is the order in which they were decided; a send that must wait for a disk is ordered only after
//! the disk said so, thus a shell may carry all outputs out at once.

use alloc::{string::String, sync::Arc, vec::Vec};
use bytes::Bytes;
use holdfast_cluster::ClusterMap;
use holdfast_replication::wire::Frame;
use holdfast_replication::{CheckReport, ReplicationEvent};
use holdfast_store::{DiskIdentity, OpenError, OpenReport, StoreEvent};
use holdfast_types::{
    CloseReason, ConnectionId, DiskDone, DiskId, DiskOrder, Duration, GatewayId, NodeId, ProcessIncarnation,
    SegmentCommand, SegmentCommandResult, SegmentKey, SessionId, VolumeId,
};

/// A protocol that initiators speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontEndKind {
    /// iSCSI, RFC 7143.
    Iscsi,
    /// NBD, fixed newstyle.
    Nbd,
}

/// Whether a disk is to be opened or formatted first.
#[derive(Clone, Debug)]
pub enum DiskOpen {
    /// It holds a store of this cluster and node. The nonce names this opening.
    Existing {
        /// Drawn at random for each opening (replication.md H20).
        boot_nonce: u64,
    },
    /// It is new: everything on it is overwritten.
    Format(DiskIdentity),
}

/// A fact.
#[derive(Debug)]
pub enum Input {
    /// Control registered this run of the daemon.
    Started(ProcessIncarnation),
    /// Control gave this node's gateway a new number, as [`Output::RenewGateway`] asked.
    GatewayRenewed(ProcessIncarnation),
    /// This node was never let into its cluster: its control has no log.
    NotJoined,
    /// A newer cluster map.
    Map(Arc<ClusterMap>),
    /// What became of a proposal.
    Proposed {
        /// The number that it was given in [`Output::Propose`].
        number: u64,
        /// Control's answer.
        result: SegmentCommandResult,
    },
    /// A disk is there.
    DiskAttached {
        /// Which.
        disk: DiskId,
        /// Its size in bytes.
        size: u64,
        /// What to do with it.
        open: DiskOpen,
    },
    /// A disk did what was ordered.
    DiskDone {
        /// Which.
        disk: DiskId,
        /// What came of it.
        done: DiskDone,
    },
    /// Frames to a peer reach it from now on.
    LinkUp(NodeId),
    /// Frames to this peer that were sent before may be lost.
    LinkDown(NodeId),
    /// The peer's frames come over another connection from now on: those that it sent before may be lost.
    PeerUp(NodeId),
    /// A frame of a peer whose identity was verified.
    Frame {
        /// The peer.
        from: NodeId,
        /// See `wire::decode`.
        header: Bytes,
        /// See `wire::decode`.
        payload: Bytes,
    },
    /// An initiator connected.
    SessionOpened {
        /// The shell's name for it.
        connection: ConnectionId,
        /// How.
        opening: Opening,
    },
    /// An initiator sent bytes.
    SessionBytes {
        /// Which.
        connection: ConnectionId,
        /// Any piece of its stream.
        bytes: Bytes,
    },
    /// Whether an initiator takes what it is sent: false when too much waits for it, true when that is gone.
    SessionTakes {
        /// Which.
        connection: ConnectionId,
        /// Whether it does.
        takes: bool,
    },
    /// An initiator's connection is gone.
    SessionClosed(ConnectionId),
    /// Control knows of a session, and every earlier session of its nexus is fenced: it may write.
    SessionRegistered {
        /// Which.
        connection: ConnectionId,
        /// What was asked for.
        registration: Registration,
    },
    /// The session's nexus has logged in through another gateway meanwhile.
    SessionMoved(ConnectionId),
    /// Put a fence against a session into the log of a segment that this node owns.
    FenceSession {
        /// Comes back with the answer.
        number: u64,
        /// Which segment.
        segment: SegmentKey,
        /// Whose requests.
        gateway: GatewayId,
        /// Of which session.
        session: SessionId,
    },
    /// Give every segment that this node owns to another node that holds a copy.
    HandOver,
    /// Compare all copies of a segment that this node owns.
    Check {
        /// Comes back with the answer.
        number: u64,
        /// Which segment.
        segment: SegmentKey,
        /// The least time between extents: zero for somebody who waits.
        pace: Duration,
    },
    /// Write back to the extents what is committed now.
    Checkpoint,
    /// The time of `next_timer` has come.
    Timer,
}

/// Which queue a frame to a peer waits in: bulk copies never delay client I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Client I/O and everything that it waits for.
    Io,
    /// Images and digests.
    Bulk,
}

/// A session as control knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// What the initiator calls itself, the same over every gateway.
    pub nexus: String,
    /// The volume.
    pub volume: VolumeId,
    /// This node's gateway.
    pub gateway: GatewayId,
    /// The session on it.
    pub session: SessionId,
    /// The version of the map that this node knew when the initiator logged in: what was registered later is not
    /// superseded by this.
    pub seen: u64,
    /// The number under which the session is registered already, and has to go on under `gateway`.
    pub renews: Option<GatewayId>,
}

/// How an initiator connected.
#[derive(Clone, Debug)]
pub struct Opening {
    /// What it speaks.
    pub kind: FrontEndKind,
    /// The address it connected to, for discovery.
    pub portal: String,
    /// Random bytes, for challenges.
    pub entropy: [u8; 32],
}

/// An order.
#[derive(Debug)]
pub enum Output {
    /// To a disk.
    Disk {
        /// Which.
        disk: DiskId,
        /// What.
        order: DiskOrder,
    },
    /// To a peer.
    Send {
        /// Which.
        to: NodeId,
        /// Through which queue.
        lane: Lane,
        /// What.
        frame: Frame,
    },
    /// To an initiator, in order.
    SessionSend {
        /// Which.
        connection: ConnectionId,
        /// What.
        bytes: Bytes,
    },
    /// End an initiator's connection after what was sent.
    SessionClose {
        /// Which.
        connection: ConnectionId,
        /// Why, for the log.
        reason: CloseReason,
    },
    /// To control. Answered by [`Input::Proposed`].
    Propose {
        /// Comes back.
        number: u64,
        /// What.
        command: SegmentCommand,
    },
    /// Register a session with control, or renew its registration, and have every earlier session of its nexus
    /// fenced, before it writes (replication.md R9). Answered by [`Input::SessionRegistered`] or [`Input::SessionMoved`].
    RegisterSession {
        /// The shell's name for it.
        connection: ConnectionId,
        /// What.
        registration: Registration,
    },
    /// The session ended with nothing under way: control may forget it.
    EndSession(Registration),
    /// An [`Input::FenceSession`] is answered.
    SessionFenced {
        /// The request's.
        number: u64,
        /// Whether the fence is committed; else this node does not own the segment (any more).
        done: bool,
    },
    /// This node's gateway was fenced while the node did not answer: it needs a new number from control. Answered
    /// by [`Input::GatewayRenewed`].
    RenewGateway,
    /// A segment that was deleted holds no space on this disk any more.
    Freed {
        /// Which.
        segment: SegmentKey,
        /// On which disk.
        disk: DiskId,
    },
    /// A disk is ready.
    DiskOpened {
        /// Which.
        disk: DiskId,
        /// What was found.
        report: OpenReport,
    },
    /// A disk was refused.
    DiskRefused {
        /// Which.
        disk: DiskId,
        /// Why, and what to do.
        error: OpenError,
    },
    /// A check ended.
    Checked {
        /// The request's.
        number: u64,
        /// None: this node does not own the segment.
        report: Option<CheckReport>,
    },
    /// For the event log.
    Event(EngineEvent),
}

/// Something that an operator may want to know of later.
#[derive(Debug)]
pub enum EngineEvent {
    /// Of a segment.
    Replication {
        /// Which.
        segment: SegmentKey,
        /// What.
        event: ReplicationEvent,
    },
    /// Of a disk.
    Store {
        /// Which.
        disk: DiskId,
        /// What.
        event: StoreEvent,
    },
    /// An initiator logged in.
    LoggedIn {
        /// Its session.
        session: SessionId,
        /// What it speaks.
        kind: FrontEndKind,
        /// Its name, if the protocol has one.
        initiator: String,
        /// The volume's name; None: discovery.
        volume: Option<String>,
    },
    /// A peer sent what cannot be decoded.
    BadFrame {
        /// Which.
        from: NodeId,
        /// Why.
        error: String,
    },
}

/// The orders of one call, in order.
pub type Outputs = Vec<Output>;
