//! What a front end's session asks of the engine around it. iSCSI and NBD sessions speak in the same orders,
//! so that the engine and the shell carry both alike.
//!
//! A session names each request that it submits by a tag of its own, never used twice in the session; the
//! engine hands the result back under the same tag, once, however long that takes.

use crate::{BlockRequest, VolumeId};
use alloc::string::String;
use bytes::Bytes;
use core::fmt;

/// An order from a session. Orders take effect in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionOutput {
    /// Bytes for the peer.
    Send(Bytes),
    /// A request to a volume. Its result comes back under the same tag.
    Submit {
        /// The session's name for the request, never used twice in it.
        tag: u64,
        /// Which volume.
        volume: VolumeId,
        /// What to do.
        request: BlockRequest,
    },
    /// The peer has logged in: an older session of the same nexus is to be closed.
    LoggedIn(SessionLogin),
    /// Close the connection once everything before this was sent. The session is over.
    Close(CloseReason),
}

/// Who logged in, and to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionLogin {
    /// The initiator's name as it gave it; empty for NBD.
    pub initiator: String,
    /// The same for the same initiator port on every gateway: iSCSI initiator name and ISID; empty for NBD,
    /// which has no such notion.
    pub nexus: String,
    /// The volume of the session; none in a discovery session.
    pub volume: Option<VolumeId>,
}

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer said goodbye.
    Logout,
    /// The peer broke the protocol; what it did.
    Protocol(&'static str),
    /// The peer did not prove who it is.
    AuthenticationFailed,
    /// Peers must prove who they are, and there is no secret to prove it with.
    NoSecret,
    /// The peer asked for a volume that does not exist.
    NoSuchTarget,
    /// The node does not know yet what there is to serve.
    NotReady,
    /// The peer did not finish its login in time.
    Timeout,
    /// The volume was deleted.
    VolumeGone,
    /// The peer closed the connection.
    PeerClosed,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::Logout => f.write_str("logged out"),
            CloseReason::Protocol(what) => write!(f, "protocol error: {what}"),
            CloseReason::AuthenticationFailed => f.write_str("authentication failed"),
            CloseReason::NoSecret => f.write_str("CHAP is needed and no secret is set"),
            CloseReason::NoSuchTarget => f.write_str("no such target"),
            CloseReason::NotReady => f.write_str("this node does not know the volumes yet"),
            CloseReason::Timeout => f.write_str("login timed out"),
            CloseReason::VolumeGone => f.write_str("the volume was deleted"),
            CloseReason::PeerClosed => f.write_str("the peer closed the connection"),
        }
    }
}
