//! How one node reaches another.

/// Which way what is sent to a node goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerPath {
    /// From host to host.
    Direct,
    /// Through a third node, because the way between the two is broken.
    Relayed,
}
