//! What this node's listeners did not let in, counted by reason. Every listener of a node counts into the same
//! table; whoever tells an operator waits for more.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use thiserror::Error;
use tokio::sync::Notify;

/// Why a connection was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum Refusal {
    /// Not TLS, or not as we speak it.
    #[error("it does not speak this protocol")]
    NotHoldfast,
    /// No certificate.
    #[error("it showed no certificate")]
    NoCertificate,
    /// A certificate of another cluster.
    #[error("its certificate is of another cluster")]
    OtherCluster,
    /// A certificate that is not valid now.
    #[error("its certificate has expired or is not valid yet")]
    Expired,
    /// A certificate that names another node than the hello.
    #[error("its certificate names another node than it says it is")]
    OtherNode,
    /// A certificate of this cluster, of a node that was removed or never admitted.
    #[error("it is no member of this cluster")]
    NotAMember,
    /// A certificate of this cluster that names a member, with another key than the member has.
    #[error("its key is not that of the node which its certificate names")]
    OtherKey,
    /// Another version of the protocol.
    #[error("it speaks another version of the protocol")]
    OtherVersion,
    /// Not through in time, or dropped for newer ones.
    #[error("it did not finish its handshake in time")]
    TooSlow,
    /// It hung up.
    #[error("it closed the connection")]
    Closed,
    /// An initiator without the right CHAP secret.
    #[error("the initiator did not prove that it has the CHAP secret")]
    ChapFailed,
    /// An initiator from another host, while no CHAP secret is set.
    #[error("initiators of other hosts need CHAP, and no secret is set")]
    ChapNotSet,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Refusal; 12] = [
        Refusal::NotHoldfast,
        Refusal::NoCertificate,
        Refusal::OtherCluster,
        Refusal::Expired,
        Refusal::OtherNode,
        Refusal::NotAMember,
        Refusal::OtherKey,
        Refusal::OtherVersion,
        Refusal::TooSlow,
        Refusal::Closed,
        Refusal::ChapFailed,
        Refusal::ChapNotSet,
    ];

    /// As a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Refusal::NotHoldfast => "not-holdfast",
            Refusal::NoCertificate => "no-certificate",
            Refusal::OtherCluster => "other-cluster",
            Refusal::Expired => "expired",
            Refusal::OtherNode => "other-node",
            Refusal::NotAMember => "not-a-member",
            Refusal::OtherKey => "other-key",
            Refusal::OtherVersion => "other-version",
            Refusal::TooSlow => "too-slow",
            Refusal::Closed => "closed",
            Refusal::ChapFailed => "chap-failed",
            Refusal::ChapNotSet => "chap-not-set",
        }
    }
}

/// The connections that were refused for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// How many, since the start.
    pub count: u64,
    /// Where the last one came from.
    pub last: SocketAddr,
}

/// See the module's text. Cheap to clone; the clones are one table.
#[derive(Clone, Default)]
pub struct Refusals(Arc<Table>);

#[derive(Default)]
struct Table {
    refused: Mutex<BTreeMap<Refusal, Refused>>,
    more: Notify,
}

impl Refusals {
    /// One more.
    pub fn count(&self, refusal: Refusal, from: SocketAddr) {
        tracing::debug!(%from, %refusal, "connection refused");
        let mut refused = self.0.refused.lock().unwrap_or_else(|e| e.into_inner());
        let entry = refused.entry(refusal).or_insert(Refused { count: 0, last: from });
        (entry.count, entry.last) = (entry.count + 1, from);
        self.0.more.notify_one();
    }

    /// What was refused since the start.
    pub fn seen(&self) -> BTreeMap<Refusal, Refused> {
        self.0.refused.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Returns once something was refused since the last call. One may wait at a time. Safe to cancel.
    pub async fn more(&self) {
        self.0.more.notified().await;
    }
}
