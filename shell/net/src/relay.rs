//! Connections through a third node, for two that do not reach one another.
//!
//! Who dials opens a connection to the relay, asks it to go on to the node that is meant, and does its handshake with
//! that node inside: TLS within TLS, so that the relay is trusted with nothing but to carry. It carries for members
//! only, to members only, and always directly: there is no second relay on the way.
//!
//! Which way leads to a node is not decided here (`paths.rs` has what the heartbeats found). Only where nothing is
//! known and the direct way brings nothing, as for a daemon that has just started, the other way is tried as well.

use crate::connect::{CONNECT_TIMEOUT, ConnectError, connect, over};
use crate::hello::{ANSWER_BYTES, Answer, Hello, Purpose};
use crate::stream::{configure, relayed};
use crate::{Identity, NodeStream};
use holdfast_types::{NodeId, PeerPath, ProcessIncarnation};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How many nodes are asked at once to relay; the first that gets through is taken.
const ASKED: usize = 3;
/// How long a relay tries to reach the node that is meant; less than it is waited for.
const REACH_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a relay waits to hear who is meant.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// What a relay holds of each direction.
const CARRY_BYTES: usize = 64 << 10;
/// Bytes of what a relay is asked.
const REQUEST_BYTES: usize = 4;

/// A connection, and which way it goes.
pub struct Dialled {
    /// The stream.
    pub stream: NodeStream,
    /// How it gets there.
    pub path: PeerPath,
}

/// Connects to node `to` the way that leads there. `address` is its own, with the port for that purpose.
pub async fn dial(
    identity: &Identity,
    to: NodeId,
    address: SocketAddr,
    purpose: Purpose,
) -> Result<Dialled, ConnectError> {
    let known = identity.paths().get(to);
    let through = async || {
        let stream = dial_relayed(identity, to, address, purpose).await?;
        Ok(Dialled { stream, path: PeerPath::Relayed })
    };
    if known == Some(PeerPath::Relayed) {
        return through().await;
    }
    match connect(identity, to, address, purpose, ProcessIncarnation(0)).await {
        Ok(stream) => Ok(Dialled { stream, path: PeerPath::Direct }),
        Err(error @ (ConnectError::TimedOut { .. } | ConnectError::Network { .. })) if known.is_none() => {
            through().await.map_err(|_| error)
        }
        Err(error) => Err(error),
    }
}

/// Connects to node `to` through whichever node gets there first.
pub async fn dial_relayed(
    identity: &Identity,
    to: NodeId,
    address: SocketAddr,
    purpose: Purpose,
) -> Result<NodeStream, ConnectError> {
    let mut attempts = JoinSet::new();
    for (relay, at) in relays(identity, to, purpose) {
        let identity = identity.clone();
        attempts.spawn(async move { through(&identity, (relay, at), to, address, purpose).await });
    }
    while let Some(ended) = attempts.join_next().await {
        match ended {
            Ok(Ok(stream)) => return Ok(stream),
            // Nobody else is there who could be the one that is meant.
            Ok(Err(error @ (ConnectError::NotThePeer { .. } | ConnectError::PeerRefuses { .. }))) => {
                return Err(error);
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Err(ConnectError::NoRelay { node: to, address })
}

/// Whom to ask to relay, and where: those that are reached directly first, each node beginning with another one.
fn relays(identity: &Identity, to: NodeId, purpose: Purpose) -> Vec<(NodeId, SocketAddr)> {
    let Some(roster) = identity.members().roster() else { return Vec::new() };
    let me = identity.node();
    let is_third = |node: &NodeId| *node != me && *node != to;
    let at = |address: &str| purpose.address(address.parse().ok()?);
    let mut third: Vec<(NodeId, SocketAddr)> = roster
        .members
        .iter()
        .filter(|(node, _)| is_third(node))
        .filter_map(|(node, member)| Some((*node, at(&member.address)?)))
        .collect();
    if !third.is_empty() {
        let first = usize::from(me.0.wrapping_add(to.0)) % third.len();
        third.rotate_left(first);
    }
    let rank = |node: &NodeId| match identity.paths().get(*node) {
        Some(PeerPath::Direct) => 0,
        None => 1,
        Some(PeerPath::Relayed) => 2,
    };
    third.sort_by_key(|(node, _)| rank(node));
    third.truncate(ASKED);
    third
}

async fn through(
    identity: &Identity,
    (relay, at): (NodeId, SocketAddr),
    to: NodeId,
    address: SocketAddr,
    purpose: Purpose,
) -> Result<NodeStream, ConnectError> {
    let mut stream = connect(identity, relay, at, Purpose::Relay, ProcessIncarnation(0)).await?;
    let no_relay = || ConnectError::NoRelay { node: to, address };
    let asked = async {
        stream.write_all(&request(to, purpose)).await?;
        stream.flush().await?;
        let mut answer = [0; ANSWER_BYTES];
        stream.read_exact(&mut answer).await?;
        std::io::Result::Ok(Answer::decode(&answer))
    };
    match timeout(CONNECT_TIMEOUT, asked).await {
        Ok(Ok(Some(Answer::Welcome))) => {}
        _ => return Err(no_relay()),
    }
    tracing::debug!(node = to.0, relay = relay.0, %purpose, "relayed");
    let hello =
        Hello { purpose, node: identity.node(), incarnation: ProcessIncarnation(0), path: PeerPath::Relayed };
    over(identity, to, address, relayed(stream), hello).await
}

fn request(to: NodeId, purpose: Purpose) -> [u8; REQUEST_BYTES] {
    let [low, high] = to.0.to_le_bytes();
    [purpose.code(), 0, low, high]
}

/// Carries on what a member sends that asked for it, until either side ends.
pub(crate) async fn carry(mut stream: NodeStream, identity: &Identity) -> std::io::Result<()> {
    let mut request = [0; REQUEST_BYTES];
    timeout(REQUEST_TIMEOUT, stream.read_exact(&mut request)).await??;
    let reached = match target(&request, identity) {
        Some(address) => timeout(REACH_TIMEOUT, TcpStream::connect(address)).await.ok().and_then(Result::ok),
        None => None,
    };
    let permit = identity.paths().relay();
    let Some((mut socket, _permit)) = reached.zip(permit) else {
        stream.write_all(&Answer::Unreachable.encode()).await?;
        return stream.shutdown().await;
    };
    configure(&socket)?;
    stream.write_all(&Answer::Welcome.encode()).await?;
    stream.flush().await?;
    copy_bidirectional_with_sizes(&mut stream, &mut socket, CARRY_BYTES, CARRY_BYTES).await?;
    Ok(())
}

/// Where to: only to another member, and to no port but those of nodes.
fn target(request: &[u8; REQUEST_BYTES], identity: &Identity) -> Option<SocketAddr> {
    let [code, zero, low, high] = *request;
    let node = NodeId(u16::from_le_bytes([low, high]));
    let purpose = Purpose::from_code(code).filter(|p| *p != Purpose::Relay && zero == 0)?;
    let roster = identity.members().roster()?;
    let member = roster.members.get(&node).filter(|_| node != identity.node())?;
    purpose.address(member.address.parse().ok()?)
}
