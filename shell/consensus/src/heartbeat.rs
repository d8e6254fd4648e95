//! What heartbeats say, and what carries them.

use bytes::Bytes;
use futures::future::BoxFuture;
use holdfast_types::{NodeId, Packets, PeerPath, ProcessIncarnation};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Carries heartbeats, on connections that nothing else uses.
pub trait HeartbeatNetwork: Send + Sync + 'static {
    /// Sends a few bytes to the node that way, or drops them. Never waits.
    fn send(&self, to: NodeId, address: &str, path: PeerPath, beat: Bytes);
    /// There are no other nodes than these.
    fn keep_paths(&self, nodes: &BTreeSet<NodeId>);
    /// This way leads to the node now, for all that goes there, or none does.
    fn use_path(&self, to: NodeId, path: Option<PeerPath>);
    /// The nodes that this one does not reach directly, or not for every purpose.
    fn broken(&self) -> Vec<NodeId>;
    /// That node says this of itself; so does this one, with each beat.
    fn heard(&self, from: NodeId, said: Said);
    /// The next fact. Safe to drop while waiting.
    fn receive(&self) -> BoxFuture<'_, HeartbeatFact>;
}

/// What a node says of itself with each beat, for whoever asks another node what is wrong.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Said {
    /// The nodes that it does not reach directly.
    pub broken: Vec<NodeId>,
    /// Those to which packets get lost, of those that it sent there lately.
    pub lossy: Vec<(NodeId, Packets)>,
    /// It cannot write what control decides.
    pub unwritten: bool,
    /// It takes long to.
    pub slow: bool,
}

/// What the heartbeats' network has to say.
#[derive(Clone, Debug)]
pub enum HeartbeatFact {
    /// A beat arrived from a node of verified identity.
    Beat {
        /// Who sent it.
        from: NodeId,
        /// Which way it came.
        path: PeerPath,
        /// What was sent.
        beat: Bytes,
    },
    /// So many packets were sent directly to a node since the last time.
    Sent {
        /// Which node.
        to: NodeId,
        /// How many.
        packets: Packets,
    },
    /// The node's host answers and nobody listens there.
    Refused {
        /// Which node.
        node: NodeId,
    },
}

/// What a beat says.
#[derive(Serialize, Deserialize)]
pub(crate) struct Beat {
    pub incarnation: ProcessIncarnation,
    /// Who sends it does not take the direct way to the other one for whole.
    pub deaf: bool,
    pub said: Said,
    /// See [`filler`].
    pub filler: Vec<u8>,
}

/// How much of it; more than a jumbo frame.
const FILLER_BYTES: usize = 9216;
/// One beat in so many has one.
const FILLED_EVERY: u64 = 5;

/// What fills up the beat of that number: nothing, but as much of it in some beats that they need packets as large as there
/// are. A network that drops those carries no data, and a node behind it is not alive for anybody.
pub(crate) fn filler(number: u64) -> Vec<u8> {
    vec![0; if number.is_multiple_of(FILLED_EVERY) { FILLER_BYTES } else { 0 }]
}
