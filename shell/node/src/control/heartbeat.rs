//! Heartbeats over connections that nothing else uses, so that no bulk data can delay them: each node dials each
//! other one and sends its own beats there; through a third node as well when the director says so.

use super::events::Events;
use super::strangers::Unreachable;
use bytes::Bytes;
use futures::future::BoxFuture;
use holdfast_consensus::{HeartbeatFact, HeartbeatNetwork, Said};
use holdfast_net::{
    ConnectError, Dialled, FrameReader, FrameWriter, Identity, NodeStream, Purpose, connect, dial_relayed,
};
use holdfast_types::{NodeId, Packets, PeerPath, ProcessIncarnation};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Facts that may wait for the director.
const FACTS: usize = 1024;
/// Beats that may wait for a peer: an older one is worth nothing.
const BEATS: usize = 2;
/// A connection without a beat for so long is not needed any more.
const IDLE: Duration = Duration::from_secs(2);
/// What a node said of its paths counts as long as it is heard.
const SAID_LATELY: Duration = Duration::from_secs(2);

/// See the module's text.
pub struct Heartbeats {
    identity: Identity,
    unreachable: Arc<Unreachable>,
    peers: Mutex<BTreeMap<(NodeId, PeerPath), Peer>>,
    facts: mpsc::Sender<HeartbeatFact>,
    received: tokio::sync::Mutex<mpsc::Receiver<HeartbeatFact>>,
    /// When each node's last beat came.
    heard: Mutex<BTreeMap<NodeId, Instant>>,
    /// What the nodes say of themselves, this one too.
    said: Mutex<BTreeMap<NodeId, Said>>,
    packets: Arc<Mutex<PacketTotals>>,
}

/// The packets that were sent directly to each node since the daemon started, and those of them that got lost.
pub type PacketTotals = BTreeMap<NodeId, (u64, u64)>;

/// Where a peer is, and the beats that go there.
type Peer = (SocketAddr, mpsc::Sender<Bytes>);

impl Heartbeats {
    /// No connections yet.
    pub fn new(identity: Identity, events: Events) -> Arc<Self> {
        let (facts, received) = mpsc::channel(FACTS);
        Arc::new(Self {
            identity,
            unreachable: Arc::new(Unreachable::new(events)),
            peers: Mutex::default(),
            facts,
            received: tokio::sync::Mutex::new(received),
            heard: Mutex::default(),
            said: Mutex::default(),
            packets: Arc::default(),
        })
    }

    /// When each node was heard last, of those that were in this run.
    pub fn heard(&self) -> BTreeMap<NodeId, Instant> {
        self.heard.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// What this node and those that are heard say of themselves.
    pub fn said(&self) -> BTreeMap<NodeId, Said> {
        let (heard, now, me) = (self.heard(), Instant::now(), self.identity.node());
        let is_current =
            |node: &NodeId| *node == me || heard.get(node).is_some_and(|at| now - *at < SAID_LATELY);
        let said = self.said.lock().unwrap_or_else(|e| e.into_inner());
        said.iter().filter(|(node, _)| is_current(node)).map(|(node, said)| (*node, said.clone())).collect()
    }

    /// The pairs of nodes that do not reach one another directly, as far as this node hears: the lower number first.
    pub fn broken_paths(&self) -> BTreeSet<(NodeId, NodeId)> {
        let said = self.said();
        let pairs = said.iter().flat_map(|(from, said)| said.broken.iter().map(|to| (*from, *to)));
        pairs.map(|(a, b)| (a.min(b), a.max(b))).collect()
    }

    /// Between which nodes packets get lost, as far as this node hears: from, to, and how many of those lately sent.
    pub fn lossy_paths(&self) -> Vec<(NodeId, NodeId, Packets)> {
        let said = self.said();
        let lossy = said.iter().flat_map(|(from, said)| said.lossy.iter().map(move |l| (*from, l)));
        lossy.map(|(from, (to, packets))| (from, *to, *packets)).collect()
    }

    /// The packets of heartbeats so far.
    pub fn packets(&self) -> PacketTotals {
        self.packets.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Takes the beats of a peer that dialled, until its connection ends.
    pub async fn serve(self: Arc<Self>, from: NodeId, path: PeerPath, stream: NodeStream) {
        let mut reader = FrameReader::new(stream);
        while let Ok(Some(frame)) = reader.read().await {
            self.heard.lock().unwrap_or_else(|e| e.into_inner()).insert(from, Instant::now());
            // With the director behind by so much, a beat more or less says nothing.
            let _ = self.facts.try_send(HeartbeatFact::Beat { from, path, beat: frame.payload });
        }
    }
}

impl HeartbeatNetwork for Heartbeats {
    fn send(&self, to: NodeId, address: &str, path: PeerPath, beat: Bytes) {
        let Ok(address) = address.parse::<SocketAddr>() else { return };
        let mut peers = self.peers.lock().unwrap_or_else(|e| e.into_inner());
        let alive = peers.get(&(to, path)).is_some_and(|(a, beats)| *a == address && !beats.is_closed());
        if !alive {
            let (beats, receive) = mpsc::channel(BEATS);
            let identity = self.identity.clone();
            match path {
                PeerPath::Direct => {
                    let tell = Tell {
                        to,
                        facts: self.facts.clone(),
                        packets: self.packets.clone(),
                        unreachable: self.unreachable.clone(),
                    };
                    tokio::spawn(beat_to(identity, address, receive, tell))
                }
                PeerPath::Relayed => tokio::spawn(relayed_beat_to(identity, to, address, receive)),
            };
            peers.insert((to, path), (address, beats));
        }
        if let Some((_, beats)) = peers.get(&(to, path)) {
            let _ = beats.try_send(beat);
        }
    }

    fn keep_paths(&self, nodes: &BTreeSet<NodeId>) {
        let me = self.identity.node();
        self.identity.paths().keep(nodes);
        self.packets.lock().unwrap_or_else(|e| e.into_inner()).retain(|node, _| nodes.contains(node));
        self.said
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .retain(|node, _| *node == me || nodes.contains(node));
    }

    fn use_path(&self, to: NodeId, path: Option<PeerPath>) {
        self.identity.paths().set(to, path);
    }

    fn broken(&self) -> Vec<NodeId> {
        self.identity.paths().relayed()
    }

    fn heard(&self, from: NodeId, said: Said) {
        self.said.lock().unwrap_or_else(|e| e.into_inner()).insert(from, said);
    }

    fn receive(&self) -> BoxFuture<'_, HeartbeatFact> {
        Box::pin(async move {
            match self.received.lock().await.recv().await {
                Some(fact) => fact,
                // `self` holds a sender.
                None => std::future::pending().await,
            }
        })
    }
}

/// To whom a connection's beats go, and who is told what becomes of it.
struct Tell {
    to: NodeId,
    facts: mpsc::Sender<HeartbeatFact>,
    packets: Arc<Mutex<PacketTotals>>,
    unreachable: Arc<Unreachable>,
}

impl Tell {
    fn sent(&self, packets: Packets) {
        let mut totals = self.packets.lock().unwrap_or_else(|e| e.into_inner());
        let (sent, lost) = totals.entry(self.to).or_default();
        *sent += u64::from(packets.sent);
        *lost += u64::from(packets.lost);
        // With the director behind by so much, a few packets more or less say nothing.
        let _ = self.facts.try_send(HeartbeatFact::Sent { to: self.to, packets });
    }
}

/// One attempt to connect, and beats for as long as it lasts. The next beat makes the next attempt.
async fn beat_to(identity: Identity, address: SocketAddr, mut beats: mpsc::Receiver<Bytes>, tell: Tell) {
    let stream = match connect(&identity, tell.to, address, Purpose::Heartbeat, ProcessIncarnation(0)).await {
        Ok(stream) => stream,
        Err(ConnectError::Refused { node, .. }) => {
            let _ = tell.facts.try_send(HeartbeatFact::Refused { node });
            return;
        }
        Err(error) => {
            tell.unreachable.tell(tell.to, &error);
            return tracing::debug!(node = tell.to.0, %error, "no heartbeat connection");
        }
    };
    send_beats(stream, &mut beats, |packets| tell.sent(packets)).await;
}

/// The same through a third node; ends when no beat has to go that way any more.
async fn relayed_beat_to(
    identity: Identity,
    to: NodeId,
    address: SocketAddr,
    mut beats: mpsc::Receiver<Bytes>,
) {
    match dial_relayed(&identity, to, address, Purpose::Heartbeat).await {
        Ok(Dialled { stream, route }) => {
            let paths = identity.paths();
            tokio::select! {
                () = send_beats(stream, &mut beats, |_| {}) => {}
                () = paths.relay_lost(route) => {}
            }
        }
        Err(error) => tracing::debug!(node = to.0, %error, "no relayed heartbeat connection"),
    }
}

async fn send_beats(stream: NodeStream, beats: &mut mpsc::Receiver<Bytes>, sent: impl Fn(Packets)) {
    let mut writer = FrameWriter::new(stream);
    let mut before = Packets::default();
    while let Ok(Some(beat)) = timeout(IDLE, beats.recv()).await {
        if writer.queue(Bytes::new(), vec![beat]).is_err() || writer.flush().await.is_err() {
            return;
        }
        if let Some(packets) = writer.get_ref().packets() {
            sent(packets.since(before));
            before = packets;
        }
    }
}
