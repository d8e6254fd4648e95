//! The first words on a connection between nodes, after TLS: the dialler's hello says for what the connection
//! is and which run of which node speaks; the other side answers whether it takes it, and why not. 18 bytes
//! there, 8 back; the node id in the hello must be the one in the certificate.

use holdfast_types::{NodeId, PeerPath, ProcessIncarnation};
use std::fmt;
use std::net::SocketAddr;

/// Version of what nodes say to each other, frames included.
pub const WIRE_VERSION: u16 = 1;
const HELLO_MAGIC: [u8; 4] = *b"HFhi";
const ANSWER_MAGIC: [u8; 4] = *b"HFok";
/// A node's data listener has the port that follows its own.
pub const DATA_PORT_OFFSET: u16 = 1;
/// Bytes of a hello on the wire.
pub const HELLO_BYTES: usize = 18;
/// Bytes of the answer on the wire.
pub const ANSWER_BYTES: usize = 8;

/// For what a connection is. Each kind has its own, so that none waits behind another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// The I/O of initiators: appends, acknowledgements, forwarded requests.
    Data,
    /// Copies for resync.
    Bulk,
    /// Consensus and proposals.
    Control,
    /// Heartbeats, and nothing that could delay them.
    Heartbeat,
    /// A connection to a third node, which the one that accepts is to carry on.
    Relay,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Purpose; 5] =
        [Purpose::Data, Purpose::Bulk, Purpose::Control, Purpose::Heartbeat, Purpose::Relay];

    /// Where a node listens for such connections whose address is `node`: those with data have a port of their own.
    pub fn address(self, node: SocketAddr) -> Option<SocketAddr> {
        let offset = if matches!(self, Purpose::Data | Purpose::Bulk) { DATA_PORT_OFFSET } else { 0 };
        Some(SocketAddr::new(node.ip(), node.port().checked_add(offset)?))
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Purpose::Data => 1,
            Purpose::Bulk => 2,
            Purpose::Control => 3,
            Purpose::Heartbeat => 4,
            Purpose::Relay => 5,
        }
    }
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.code() == code)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Purpose::Data => "data",
            Purpose::Bulk => "bulk",
            Purpose::Control => "control",
            Purpose::Heartbeat => "heartbeat",
            Purpose::Relay => "relay",
        })
    }
}

/// What the dialler says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// For what the connection is.
    pub purpose: Purpose,
    /// Who speaks.
    pub node: NodeId,
    /// In which run of its daemon.
    pub incarnation: ProcessIncarnation,
    /// Which way it comes.
    pub path: PeerPath,
}

/// Why a hello is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHello {
    /// It is something else.
    Garbage,
    /// The peer speaks another version.
    Version(u16),
    /// A purpose of a later version.
    Purpose(u8),
}

impl Hello {
    /// The hello as bytes.
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut out = [0; HELLO_BYTES];
        out[0..4].copy_from_slice(&HELLO_MAGIC);
        out[4..6].copy_from_slice(&WIRE_VERSION.to_le_bytes());
        out[6] = self.purpose.code();
        out[7] = u8::from(self.path == PeerPath::Relayed);
        out[8..10].copy_from_slice(&self.node.0.to_le_bytes());
        out[10..18].copy_from_slice(&self.incarnation.0.to_le_bytes());
        out
    }

    /// Reads a hello.
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Self, BadHello> {
        let path = match bytes[7] {
            0 => PeerPath::Direct,
            1 => PeerPath::Relayed,
            _ => return Err(BadHello::Garbage),
        };
        if bytes[0..4] != HELLO_MAGIC {
            return Err(BadHello::Garbage);
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        if version != WIRE_VERSION {
            return Err(BadHello::Version(version));
        }
        let purpose = Purpose::from_code(bytes[6]).ok_or(BadHello::Purpose(bytes[6]))?;
        let mut incarnation = [0; 8];
        incarnation.copy_from_slice(&bytes[10..18]);
        Ok(Hello {
            purpose,
            node: NodeId(u16::from_le_bytes([bytes[8], bytes[9]])),
            incarnation: ProcessIncarnation(u64::from_le_bytes(incarnation)),
            path,
        })
    }
}

/// What the accepting side answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The connection stands.
    Welcome,
    /// The other side speaks this version.
    OtherVersion(u16),
    /// The certificate names another node than the hello.
    OtherNode,
    /// The hello was not understood otherwise.
    Garbage,
    /// Who speaks is no member of the cluster, or not with that key.
    NotAMember,
    /// Of one that is asked to relay: it does not reach the other node either.
    Unreachable,
}

impl Answer {
    /// The answer as bytes.
    pub fn encode(self) -> [u8; ANSWER_BYTES] {
        let (code, version) = match self {
            Answer::Welcome => (0u8, WIRE_VERSION),
            Answer::OtherVersion(v) => (1, v),
            Answer::OtherNode => (2, WIRE_VERSION),
            Answer::Garbage => (3, WIRE_VERSION),
            Answer::NotAMember => (4, WIRE_VERSION),
            Answer::Unreachable => (5, WIRE_VERSION),
        };
        let v = version.to_le_bytes();
        [ANSWER_MAGIC[0], ANSWER_MAGIC[1], ANSWER_MAGIC[2], ANSWER_MAGIC[3], v[0], v[1], code, 0]
    }

    /// Reads an answer; none when it is something else.
    pub fn decode(bytes: &[u8; ANSWER_BYTES]) -> Option<Self> {
        if bytes[0..4] != ANSWER_MAGIC || bytes[7] != 0 {
            return None;
        }
        match bytes[6] {
            0 => Some(Answer::Welcome),
            1 => Some(Answer::OtherVersion(u16::from_le_bytes([bytes[4], bytes[5]]))),
            2 => Some(Answer::OtherNode),
            3 => Some(Answer::Garbage),
            4 => Some(Answer::NotAMember),
            5 => Some(Answer::Unreachable),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_reads_back_as_it_was_said() {
        for purpose in Purpose::ALL {
            for path in [PeerPath::Direct, PeerPath::Relayed] {
                let hello =
                    Hello { purpose, node: NodeId(513), incarnation: ProcessIncarnation(1 << 40), path };
                assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
            }
        }
    }

    #[test]
    fn a_hello_of_another_version_or_shape_is_refused_by_name() {
        let hello = Hello {
            purpose: Purpose::Data,
            node: NodeId(1),
            incarnation: ProcessIncarnation(1),
            path: PeerPath::Direct,
        };
        let mut later = hello.encode();
        later[4] = 9;
        assert_eq!(Hello::decode(&later), Err(BadHello::Version(9)));
        let mut purpose = hello.encode();
        purpose[6] = 77;
        assert_eq!(Hello::decode(&purpose), Err(BadHello::Purpose(77)));
        let mut path = hello.encode();
        path[7] = 2;
        assert_eq!(Hello::decode(&path), Err(BadHello::Garbage));
        assert_eq!(Hello::decode(&[0x16; HELLO_BYTES]), Err(BadHello::Garbage));
    }

    #[test]
    fn an_answer_reads_back_as_it_was_given() {
        let all = [
            Answer::Welcome,
            Answer::OtherVersion(7),
            Answer::OtherNode,
            Answer::Garbage,
            Answer::NotAMember,
            Answer::Unreachable,
        ];
        for answer in all {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
        assert_eq!(Answer::decode(b"HTTP/1.1"), None);
    }
}
