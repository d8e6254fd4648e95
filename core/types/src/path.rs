//! How one node reaches another.

use serde::{Deserialize, Serialize};

/// Which way what is sent to a node goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerPath {
    /// From host to host.
    Direct,
    /// Through a third node, because the way between the two is broken.
    Relayed,
}

/// Packets that were sent to a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packets {
    /// Each as often as it was sent.
    pub sent: u32,
    /// Of these, that did not arrive.
    pub lost: u32,
}

impl Packets {
    /// These and those.
    pub fn and(self, other: Packets) -> Packets {
        Packets { sent: self.sent.saturating_add(other.sent), lost: self.lost.saturating_add(other.lost) }
    }

    /// What has come to these since they were `before`.
    pub fn since(self, before: Packets) -> Packets {
        Packets { sent: self.sent.saturating_sub(before.sent), lost: self.lost.saturating_sub(before.lost) }
    }
}
