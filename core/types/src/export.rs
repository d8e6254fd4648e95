//! What a gateway serves: every volume of the cluster by name, and who may log in over iSCSI.

use crate::VolumeId;
use alloc::{collections::BTreeMap, string::String};
use core::fmt;

/// A volume as initiators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The volume.
    pub volume: VolumeId,
    /// Its size in bytes, a multiple of a block.
    pub size: u64,
    /// Changes never, same on every node: the source of the SCSI serial number and NAA identifier.
    pub unique_id: u64,
}

/// A CHAP secret (RFC 1994). Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ChapSecret {
    /// The name that the initiator gives.
    pub user: String,
    /// The secret, 12 to 255 bytes.
    pub secret: String,
}

impl fmt::Debug for ChapSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChapSecret({})", self.user)
    }
}

/// Everything that a gateway serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exports {
    /// Volumes by name.
    pub volumes: BTreeMap<String, Export>,
    /// When set, an iSCSI login must pass CHAP with it.
    pub chap: Option<ChapSecret>,
    /// The node was never let into its cluster: there is nothing to serve, which says nothing of any volume.
    pub not_joined: bool,
}

/// What an initiator is told by a node that was never let into its cluster.
pub const NOT_JOINED: &str = "this node has not joined its cluster yet; `holdfast status` on a node of the cluster says whether it can";

impl Exports {
    /// The volume of that id.
    pub fn by_id(&self, volume: VolumeId) -> Option<&Export> {
        self.volumes.values().find(|e| e.volume == volume)
    }
}
