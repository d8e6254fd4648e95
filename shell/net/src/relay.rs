//! Connections through a third node, for two that do not reach one another.
//!
//! Who dials opens a connection to the relay, asks it to go on to the node that is meant, and does its handshake with
//! that node inside: TLS within TLS, so that the relay is trusted with nothing but to carry. It carries for members
//! only, to members only, and always directly: there is no second relay on the way.
//!
//! Which way leads to a node is not decided here (`paths.rs` has what the heartbeats found). Only where they know of no
//! break and the direct way brings nothing all the same, for a daemon that has just started or a port that something
//! blocks, a connection makes a detour for itself.

use crate::connect::{CONNECT_TIMEOUT, ConnectError, connect, over};
use crate::hello::{ANSWER_BYTES, Answer, Hello, Purpose};
use crate::paths::Route;
use crate::stream::{configure, relayed};
use crate::{Identity, NodeStream};
use holdfast_types::{NodeId, PeerPath, ProcessIncarnation};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How many nodes are asked at once to relay; the first that gets through is taken.
const ASKED: usize = 3;
/// How long a relay tries to reach the node that is meant; less than it is waited for.
const REACH_TIMEOUT: Duration = Duration::from_millis(500);
/// When who makes a detour looks whether the direct way is free: soon, as for a daemon that has just started it is, and then after
/// pauses that double up to the most.
const TRY_DIRECTLY_FIRST: Duration = Duration::from_millis(250);
const TRY_DIRECTLY_MOST: Duration = Duration::from_secs(10);
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
    pub route: Route,
}

/// Connects to node `to` the way that leads there. `address` is its own, with the port for that purpose.
pub async fn dial(
    identity: &Identity,
    to: NodeId,
    address: SocketAddr,
    purpose: Purpose,
) -> Result<Dialled, ConnectError> {
    let known = identity.paths().get(to);
    if known == Some(PeerPath::Relayed) {
        return dial_relayed(identity, to, address, purpose).await;
    }
    let error = match connect(identity, to, address, purpose, ProcessIncarnation(0)).await {
        Ok(stream) => return Ok(Dialled { stream, route: Route::default() }),
        Err(error) => error,
    };
    let is_of_the_way = match &error {
        ConnectError::TimedOut { .. } | ConnectError::Network { .. } => true,
        // Its heartbeats come: not its process is gone, but something between refuses for it.
        ConnectError::Refused { .. } => known.is_some(),
        ConnectError::NotThePeer { .. } | ConnectError::PeerRefuses { .. } | ConnectError::NoRelay { .. } => {
            false
        }
    };
    if !is_of_the_way || !identity.paths().may_make_detour(to, purpose) {
        return Err(error);
    }
    let Ok(mut dialled) = dial_relayed(identity, to, address, purpose).await else { return Err(error) };
    dialled.route.is_detour = true;
    tracing::warn!(node = to.0, %purpose, %error, "nothing gets there directly: it makes a detour");
    Ok(dialled)
}

/// Returns once a connection is to be made anew: another way leads to the node, or its relay is lost. To be waited for as
/// long as the connection lasts. Safe to cancel.
pub async fn outdated(identity: &Identity, route: Route, to: NodeId, address: SocketAddr, purpose: Purpose) {
    let paths = identity.paths();
    let other_way = async {
        if !route.is_detour {
            return paths.other_than(route.path(), to).await;
        }
        let _detour = paths.detour(to);
        let mut pause = TRY_DIRECTLY_FIRST;
        loop {
            sleep(pause).await;
            pause = (pause * 2).min(TRY_DIRECTLY_MOST);
            if connect(identity, to, address, purpose, ProcessIncarnation(0)).await.is_ok() {
                return;
            }
        }
    };
    tokio::select! {
        () = other_way => {}
        () = paths.relay_lost(route) => {}
    }
}

/// Connects to node `to` through whichever node gets there first.
pub async fn dial_relayed(
    identity: &Identity,
    to: NodeId,
    address: SocketAddr,
    purpose: Purpose,
) -> Result<Dialled, ConnectError> {
    let mut attempts = JoinSet::new();
    for (relay, at) in relays(identity, to, purpose) {
        let identity = identity.clone();
        attempts.spawn(async move {
            let stream = through(&identity, (relay, at), to, address, purpose).await?;
            Ok(Dialled { stream, route: Route { relay: Some(relay), is_detour: false } })
        });
    }
    while let Some(ended) = attempts.join_next().await {
        match ended {
            Ok(Ok(dialled)) => return Ok(dialled),
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

/// Where to: only to another member that is reached directly, and to no port but those of nodes.
fn target(request: &[u8; REQUEST_BYTES], identity: &Identity) -> Option<SocketAddr> {
    let [code, zero, low, high] = *request;
    let node = NodeId(u16::from_le_bytes([low, high]));
    let purpose = Purpose::from_code(code).filter(|p| *p != Purpose::Relay && zero == 0)?;
    let roster = identity.members().roster()?;
    let is_broken = identity.paths().get(node) == Some(PeerPath::Relayed);
    let member = roster.members.get(&node).filter(|_| node != identity.node() && !is_broken)?;
    purpose.address(member.address.parse().ok()?)
}
