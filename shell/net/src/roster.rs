//! Whom a node takes for a member of its cluster: the roster. It has each member's address and the hash of its key, so
//! that a certificate of the cluster's authority alone lets nobody in: every node holds the authority's key, also a
//! host that was removed since.
//!
//! A roster may be late: a node that was away knows nothing of hosts that joined meanwhile. Who is not known yet is
//! kept waiting for a moment in which the roster's keeper may learn of it from members that are known.

use holdfast_types::{KeyHash, NodeId};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// How long who is not known is kept waiting; less than a handshake may take.
const KEPT_WAITING: Duration = Duration::from_millis(700);
/// An uncompressed P-256 point, with which the public key info of a certificate of ours ends.
pub(crate) const PUBLIC_KEY_BYTES: usize = 65;

/// The members of a cluster, at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roster {
    /// The version of the cluster map that this is of.
    pub version: u64,
    /// The number that the next node gets: who has this or a higher one is not known yet, not removed.
    pub next_node: u16,
    /// Every node that was admitted and not removed.
    pub members: BTreeMap<NodeId, Member>,
}

/// What is known of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Where its peers reach it, with the port.
    pub address: String,
    /// Its key.
    pub key: KeyHash,
}

/// What a roster says of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// A member.
    Member,
    /// It was one.
    Removed,
    /// It has the number of a member and another key.
    OtherKey,
    /// It has a number that was not given out yet.
    Unknown,
}

impl Roster {
    /// What it says of `node` with that key.
    pub fn judge(&self, node: NodeId, key: KeyHash) -> Membership {
        match self.members.get(&node) {
            Some(member) if member.key == key => Membership::Member,
            Some(_) => Membership::OtherKey,
            None if (1..self.next_node).contains(&node.0) => Membership::Removed,
            None => Membership::Unknown,
        }
    }
}

/// The hash of the key of a certificate.
pub fn key_of(certificate: &CertificateDer<'_>) -> KeyHash {
    let point = webpki::EndEntityCert::try_from(certificate).ok().and_then(|cert| {
        let info = cert.subject_public_key_info();
        let info: &[u8] = info.as_ref();
        Some(info[info.len().checked_sub(PUBLIC_KEY_BYTES)?..].to_vec())
    });
    // What is no such certificate has the key of nobody.
    point.map_or(KeyHash::default(), |point| key_hash(&point))
}

/// The hash of a public key, an uncompressed P-256 point.
pub fn key_hash(point: &[u8]) -> KeyHash {
    KeyHash(crate::pin::sha256(point))
}

/// The roster that is in force. Cheap to clone; the clones are one. Until there is one, everybody waits.
#[derive(Clone)]
pub struct Members(Arc<Inner>);

struct Inner {
    roster: watch::Sender<Option<Arc<Roster>>>,
    knocked: Notify,
}

impl Default for Members {
    fn default() -> Self {
        Self(Arc::new(Inner { roster: watch::channel(None).0, knocked: Notify::new() }))
    }
}

impl Members {
    /// Puts a roster in force.
    pub fn set(&self, roster: Roster) {
        self.0.roster.send_replace(Some(Arc::new(roster)));
    }

    /// The one in force.
    pub fn roster(&self) -> Option<Arc<Roster>> {
        self.0.roster.borrow().clone()
    }

    /// Returns once somebody came since the last call whom the roster does not know, or not with that key. One may wait
    /// at a time. Safe to cancel.
    pub async fn knocked(&self) {
        self.0.knocked.notified().await;
    }

    /// What is to be thought of `node` with that key, when the roster's keeper had its moment to learn more.
    pub(crate) async fn judge(&self, node: NodeId, key: KeyHash) -> Membership {
        let mut rosters = self.0.roster.subscribe();
        let mut judged = Membership::Unknown;
        let settled = async {
            loop {
                if let Some(roster) = rosters.borrow_and_update().as_ref() {
                    judged = roster.judge(node, key);
                    match judged {
                        Membership::Member | Membership::Removed => return,
                        Membership::OtherKey | Membership::Unknown => self.0.knocked.notify_one(),
                    }
                }
                // `self` holds the sender.
                let _ = rosters.changed().await;
            }
        };
        let _ = timeout(KEPT_WAITING, settled).await;
        judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roster_tells_members_from_those_that_left_changed_or_are_not_there_yet() {
        let member = |n| Member { address: format!("10.0.0.{n}:7400"), key: KeyHash([n; 32]) };
        let members = [(NodeId(1), member(1)), (NodeId(3), member(3))].into();
        let roster = Roster { version: 9, next_node: 4, members };
        let judge = |node, key| roster.judge(NodeId(node), KeyHash([key; 32]));
        assert_eq!(judge(1, 1), Membership::Member);
        assert_eq!(judge(3, 1), Membership::OtherKey);
        assert_eq!(judge(2, 2), Membership::Removed);
        assert_eq!((judge(4, 4), judge(0, 0)), (Membership::Unknown, Membership::Unknown));
        assert_eq!(key_of(&CertificateDer::from(vec![0x30, 0])), KeyHash::default());
    }
}
