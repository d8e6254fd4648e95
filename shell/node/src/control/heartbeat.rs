//! Heartbeats over connections that nothing else uses, so that no bulk data can delay them: each node dials each
//! other one and sends its own beats there.

use super::events::Events;
use super::strangers::Unreachable;
use bytes::Bytes;
use futures::future::BoxFuture;
use holdfast_consensus::{HeartbeatFact, HeartbeatNetwork};
use holdfast_net::{ConnectError, FrameReader, FrameWriter, Identity, NodeStream, Purpose, connect};
use holdfast_types::{NodeId, ProcessIncarnation};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Facts that may wait for the director.
const FACTS: usize = 1024;
/// Beats that may wait for a peer: an older one is worth nothing.
const BEATS: usize = 2;

/// See the module's text.
pub struct Heartbeats {
    identity: Identity,
    unreachable: Arc<Unreachable>,
    peers: Mutex<BTreeMap<NodeId, (SocketAddr, mpsc::Sender<Bytes>)>>,
    facts: mpsc::Sender<HeartbeatFact>,
    received: tokio::sync::Mutex<mpsc::Receiver<HeartbeatFact>>,
    /// When each node's last beat came.
    heard: Mutex<BTreeMap<NodeId, Instant>>,
}

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
        })
    }

    /// When each node was heard last, of those that were in this run.
    pub fn heard(&self) -> BTreeMap<NodeId, Instant> {
        self.heard.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Takes the beats of a peer that dialled, until its connection ends.
    pub async fn serve(self: Arc<Self>, from: NodeId, stream: NodeStream) {
        let mut reader = FrameReader::new(stream);
        while let Ok(Some(frame)) = reader.read().await {
            self.heard.lock().unwrap_or_else(|e| e.into_inner()).insert(from, Instant::now());
            // With the director behind by so much, a beat more or less says nothing.
            let _ = self.facts.try_send(HeartbeatFact::Beat { from, beat: frame.payload });
        }
    }
}

impl HeartbeatNetwork for Heartbeats {
    fn send(&self, to: NodeId, address: &str, beat: Bytes) {
        let Ok(address) = address.parse::<SocketAddr>() else { return };
        let mut peers = self.peers.lock().unwrap_or_else(|e| e.into_inner());
        let alive = peers.get(&to).is_some_and(|(a, beats)| *a == address && !beats.is_closed());
        if !alive {
            let (beats, receive) = mpsc::channel(BEATS);
            let (identity, facts) = (self.identity.clone(), self.facts.clone());
            tokio::spawn(beat_to(identity, to, address, receive, facts, self.unreachable.clone()));
            peers.insert(to, (address, beats));
        }
        if let Some((_, beats)) = peers.get(&to) {
            let _ = beats.try_send(beat);
        }
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

/// One attempt to connect, and beats for as long as it lasts. The next beat makes the next attempt.
async fn beat_to(
    identity: Identity,
    to: NodeId,
    address: SocketAddr,
    mut beats: mpsc::Receiver<Bytes>,
    facts: mpsc::Sender<HeartbeatFact>,
    unreachable: Arc<Unreachable>,
) {
    let stream = match connect(&identity, to, address, Purpose::Heartbeat, ProcessIncarnation(0)).await {
        Ok(stream) => stream,
        Err(ConnectError::Refused { node, .. }) => {
            let _ = facts.try_send(HeartbeatFact::Refused { node });
            return;
        }
        Err(error) => {
            unreachable.tell(to, &error);
            return tracing::debug!(node = to.0, %error, "no heartbeat connection");
        }
    };
    let mut writer = FrameWriter::new(stream);
    while let Some(beat) = beats.recv().await {
        if writer.queue(Bytes::new(), vec![beat]).is_err() || writer.flush().await.is_err() {
            return;
        }
    }
}
