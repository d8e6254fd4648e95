//! Ids. Every id that names something durable is never reused; an address is never an identity.

use alloc::string::String;
use core::fmt;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// A cluster, drawn at random by `init`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ClusterId(pub u128);

/// A host, numbered from 1 in the order of joining, never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u16);

/// The SHA-256 of a node's public key: what tells the node from whoever else may show a certificate that names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct KeyHash(pub [u8; 32]);

/// A run of a node's daemon: control counts it up at each start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessIncarnation(pub u64);

/// A disk, drawn at random when it is formatted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct DiskId(pub u128);

/// A generation of a disk's content: a wiped, regressed or flush-failed disk gets the next one and is in no
/// write set until a grant lists it (replication.md H5, H20, H21).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DiskIncarnation(pub u32);

/// A volume, numbered by control from 1, never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VolumeId(pub u64);

/// A fixed slice of a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentId {
    /// The volume.
    pub volume: VolumeId,
    /// Its place in the volume: the segment holds bytes from `index` * SEGMENT_BYTES on.
    pub index: u32,
}

/// A generation of a segment's content: raised when a shrink cuts it, so that growing again shows no old data
/// (replication.md H19).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentIncarnation(pub u32);

/// A segment in one of its incarnations: what a store and a message name, never the bare id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentKey {
    /// Which segment.
    pub segment: SegmentId,
    /// Which incarnation of it.
    pub incarnation: SegmentIncarnation,
}

/// A segment's copy on one disk, in that disk's incarnation. An entry of S.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaRef {
    /// The host that carries the disk.
    pub node: NodeId,
    /// The disk.
    pub disk: DiskId,
    /// The disk's incarnation.
    pub incarnation: DiskIncarnation,
}

/// A run of a node's gateway: what a request's sequence numbers belong to, and what is fenced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GatewayId {
    /// The node whose gateway it is.
    pub node: NodeId,
    /// Its run. A gateway that was fenced takes a new one from control.
    pub incarnation: ProcessIncarnation,
}

/// An initiator's session on a gateway (an iSCSI nexus or an NBD connection). Unique within the gateway's run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// A connection of the shell's: an initiator's socket. Unique within the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Names a request to a segment through all its repeats: the answer to it is the same every time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// Who asks.
    pub gateway: GatewayId,
    /// The gateway's number for it, per segment, rising from 1.
    pub seq: u64,
}

macro_rules! hex_id {
    ($t:ident) => {
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:08x})", stringify!($t), self.0 >> 96)
            }
        }
    };
}
hex_id!(ClusterId);
hex_id!(DiskId);

/// A SHA-256 from its 64 hexadecimal digits.
pub fn hash_from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(hash)
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}
impl Serialize for KeyHash {
    /// 64 hexadecimal digits where people read, else the bytes.
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(self) } else { self.0.serialize(s) }
    }
}
impl<'d> Deserialize<'d> for KeyHash {
    fn deserialize<D: Deserializer<'d>>(d: D) -> Result<Self, D::Error> {
        if !d.is_human_readable() {
            return <[u8; 32]>::deserialize(d).map(Self);
        }
        let text = String::deserialize(d)?;
        let hash = hash_from_hex(&text);
        hash.map(Self).ok_or_else(|| D::Error::custom("not a SHA-256 of 64 hexadecimal digits"))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.volume, self.index)
    }
}
