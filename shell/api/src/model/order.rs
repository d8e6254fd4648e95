//! What is asked of a cluster and what it gives for it: orders about volumes, disks and logins, and what a host
//! says and gets when it joins.

use super::{Deserialize, Serialize};
use holdfast_types::KeyHash;
use std::collections::BTreeMap;

/// The order to make a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    /// Its name: 1 to 63 of a-z, 0-9 and inner hyphens.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its pool; `default` when not given.
    #[serde(default)]
    pub pool: Option<String>,
    /// How many copies; min(3, nodes) when not given.
    #[serde(default)]
    pub copies: Option<u8>,
}

/// The order to resize a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResizeVolume {
    /// The new size in bytes.
    pub size: u64,
}

/// The order to give a node or disk up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lose {
    /// Also where acknowledged writes may be there only.
    #[serde(default)]
    pub accept_loss: bool,
}

/// The order to take a disk into use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddDisk {
    /// A block device or a file on the node that is asked.
    pub path: String,
    /// For a file that does not exist yet: how large to make it.
    #[serde(default)]
    pub size: Option<u64>,
    /// The pool; `default` when not given.
    #[serde(default)]
    pub pool: Option<String>,
    /// Overwrite what is on it.
    #[serde(default)]
    pub wipe: bool,
}

/// A join token as it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// What the joining host is given.
    pub token: String,
    /// Until when it can be used.
    pub expires_ms: u64,
    /// The command line that uses it.
    pub command: String,
}

/// What a joining node says. The secret is the proof that it may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The secret of the token, as 32 hexadecimal digits.
    pub secret: String,
    /// The name that the node wants.
    pub name: String,
    /// The address at which its peers reach it.
    pub address: String,
    /// The port for its peers.
    pub node_port: u16,
    /// Its public key: an uncompressed P-256 point, hexadecimal.
    pub public_key: String,
}

/// What an admitted node gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// The cluster.
    pub cluster: String,
    /// The cluster's name.
    pub cluster_name: String,
    /// The number that it has from now on.
    pub node: u16,
    /// Its certificate, PEM.
    pub certificate: String,
    /// The authority's certificate, PEM.
    pub authority: String,
    /// The authority's key, PEM: every node can admit others.
    pub authority_key: String,
    /// The token of the API, the same on every node.
    pub admin_token: String,
    /// The other nodes by number.
    pub peers: BTreeMap<u16, Peer>,
}

/// How a node is reached and known by its peers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its address with port.
    pub address: String,
    /// Its key: 64 hexadecimal digits.
    pub key: KeyHash,
}

/// The order that an iSCSI login must pass CHAP; the secret goes in and never out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetChap {
    /// The name that initiators give.
    pub user: String,
    /// 12 to 255 printable characters.
    pub secret: String,
}

impl std::fmt::Debug for SetChap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SetChap({})", self.user)
    }
}

/// What `init` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitReport {
    /// The new cluster's id.
    pub cluster: String,
    /// Its name.
    pub name: String,
    /// The data folder.
    pub dir: String,
    /// The first join token.
    pub token: Token,
}

/// What `join` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinReport {
    /// The cluster's id.
    pub cluster: String,
    /// Its name.
    pub name: String,
    /// The number of the new node.
    pub node: u16,
    /// The data folder.
    pub dir: String,
}

/// What `recover` found or did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoverReport {
    /// The cluster's id.
    pub cluster: String,
    /// Its name.
    pub name: String,
    /// This node.
    pub node: u16,
    /// Where its log ends, `TERM.INDEX`; none when it was never let into the control plane.
    pub position: Option<String>,
    /// The nodes that vote.
    pub voters: Vec<u16>,
    /// The nodes that are lost, as was said.
    pub lost: Vec<u16>,
    /// The volumes that may lose acknowledged writes with them.
    pub losses: Vec<VolumeLoss>,
    /// What the others need to follow this node; none when nothing was changed.
    pub ticket: Option<String>,
    /// Where control's database is kept as it was; none when nothing was changed.
    pub kept: Option<String>,
}

/// What a volume may lose with lost nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeLoss {
    /// Its name.
    pub volume: String,
    /// How many segments it has.
    pub segments: u64,
    /// Of how many acknowledged writes may be on the lost nodes only.
    pub in_doubt: u64,
    /// Of how many no copy is left that was in sync.
    pub gone: u64,
}

/// What `recover --follow` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowReport {
    /// This node.
    pub node: u16,
    /// The node that it follows.
    pub follows: u16,
    /// Where control's database is kept as it was.
    pub kept: String,
}
