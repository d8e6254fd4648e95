//! Links to peers. Each node dials every other one, twice: client I/O and bulk copies have a connection each, so
//! that neither the queue nor the socket of one delays the other. What was dialled carries only what this node
//! sends; what it receives comes over what the peers dialled. A link is up while both connections are, and is made anew
//! when the heartbeats find that another way leads to the peer.

use super::{Peers, inbox::Inbox};
use bytes::Bytes;
use holdfast_engine::{Input, Lane};
use holdfast_net::{
    Dialled, FrameReader, FrameWriter, Identity, Listener, NodeStream, Purpose, Route, dial, outdated,
};
use holdfast_replication::wire::Frame;
use holdfast_types::NodeId;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// The pause after a failed attempt, doubled up to [`RETRY_MOST`].
const RETRY_LEAST: Duration = Duration::from_millis(20);
const RETRY_MOST: Duration = Duration::from_millis(500);
/// Bytes that may wait for a peer before the link counts as lost. An owner bounds what it has under way to a copy;
/// this bounds a peer that takes nothing at all, such as a stopped process.
const QUEUE_MOST_BYTES: usize = 48 << 20;

/// The links that this node dials.
pub struct Links {
    identity: Identity,
    inbox: Rc<Inbox>,
    peers: BTreeMap<NodeId, Peer>,
    /// Nodes that were removed: the links that they dialled end at their next frame.
    removed: Rc<RefCell<BTreeSet<NodeId>>>,
}

struct Peer {
    address: SocketAddr,
    lanes: [Rc<LaneQueue>; 2],
    task: JoinHandle<()>,
}

#[derive(Default)]
struct LaneQueue {
    frames: RefCell<VecDeque<Frame>>,
    bytes: std::cell::Cell<usize>,
    up: std::cell::Cell<bool>,
    wake: Notify,
    overflow: Notify,
}

const PURPOSES: [Purpose; 2] = [Purpose::Data, Purpose::Bulk];

fn lane_index(lane: Lane) -> usize {
    match lane {
        Lane::Io => 0,
        Lane::Bulk => 1,
    }
}

impl Links {
    /// No links yet.
    pub fn new(identity: Identity, inbox: Rc<Inbox>) -> Self {
        Self { identity, inbox, peers: BTreeMap::new(), removed: Rc::default() }
    }

    /// Takes what peers send that dial `listener`, for as long as the thread lives.
    pub fn serve(&self, listener: Listener) {
        let (inbox, removed) = (self.inbox.clone(), self.removed.clone());
        tokio::task::spawn_local(async move {
            loop {
                let accepted = listener.accept().await;
                if !PURPOSES.contains(&accepted.purpose) {
                    continue;
                }
                let (inbox, removed) = (inbox.clone(), removed.clone());
                tokio::task::spawn_local(async move {
                    let mut reader = FrameReader::new(accepted.stream);
                    loop {
                        match reader.read().await {
                            Ok(Some(_)) if removed.borrow().contains(&accepted.node) => break,
                            // The first that comes over a connection.
                            Ok(Some(frame)) if frame.header.is_empty() => {
                                // Answers to initiators come over the other one.
                                if accepted.purpose == Purpose::Data {
                                    inbox.put(Input::PeerUp(accepted.node));
                                }
                            }
                            Ok(Some(frame)) => {
                                let (header, payload) = (frame.header, frame.payload);
                                inbox.put(Input::Frame { from: accepted.node, header, payload });
                            }
                            Ok(None) => break,
                            Err(error) => {
                                tracing::debug!(node = accepted.node.0, %error, "a peer's connection ended");
                                break;
                            }
                        }
                    }
                });
            }
        });
    }

    /// Dials new peers and those that moved, and lets go of those that left.
    pub fn set_peers(&mut self, peers: Peers) {
        self.removed.replace(peers.removed);
        let mut peers = peers.addresses;
        peers.remove(&self.identity.node());
        self.peers.retain(|node, peer| {
            let keep = peers.get(node) == Some(&peer.address);
            if !keep {
                peer.task.abort();
                if peer.lanes[0].up.get() {
                    self.inbox.put(Input::LinkDown(*node));
                }
            }
            keep
        });
        for (node, address) in peers {
            self.peers.entry(node).or_insert_with(|| {
                let lanes = [Rc::new(LaneQueue::default()), Rc::new(LaneQueue::default())];
                let dial = Dial {
                    identity: self.identity.clone(),
                    node,
                    address,
                    inbox: self.inbox.clone(),
                    lanes: lanes.clone(),
                };
                Peer { address, lanes, task: tokio::task::spawn_local(dial.run()) }
            });
        }
    }

    /// Queues a frame. One for a link that is down is dropped: the engine hears of it and sends again.
    pub fn send(&mut self, to: NodeId, lane: Lane, frame: Frame) {
        let Some(peer) = self.peers.get(&to) else { return };
        let queue = &peer.lanes[lane_index(lane)];
        if !queue.up.get() {
            return;
        }
        let bytes = frame.header.len() + frame.payload.iter().map(|p| p.len()).sum::<usize>();
        queue.bytes.set(queue.bytes.get() + bytes);
        if queue.bytes.get() > QUEUE_MOST_BYTES {
            queue.overflow.notify_one();
        }
        queue.frames.borrow_mut().push_back(frame);
    }

    /// Wakes the writers of what was queued in this burst; says whether there is any.
    pub fn flush(&self) -> bool {
        let mut any = false;
        for queue in self.peers.values().flat_map(|p| &p.lanes) {
            if !queue.frames.borrow().is_empty() {
                queue.wake.notify_one();
                any = true;
            }
        }
        any
    }
}

struct Dial {
    identity: Identity,
    node: NodeId,
    address: SocketAddr,
    inbox: Rc<Inbox>,
    lanes: [Rc<LaneQueue>; 2],
}

impl Dial {
    async fn run(self) {
        let mut pause = RETRY_LEAST;
        loop {
            match self.dial().await {
                Ok([data, bulk]) => {
                    pause = RETRY_LEAST;
                    self.set_up(true);
                    let [data_queue, bulk_queue] = &self.lanes;
                    tokio::select! {
                        () = write(data.stream, data_queue) => {}
                        () = write(bulk.stream, bulk_queue) => {}
                        () = self.outdated(data.route, Purpose::Data) => {}
                        () = self.outdated(bulk.route, Purpose::Bulk) => {}
                    }
                    self.set_up(false);
                }
                Err(error) => tracing::debug!(node = self.node.0, %error, "no link"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MOST);
        }
    }

    async fn dial(&self) -> Result<[Dialled; 2], holdfast_net::ConnectError> {
        let to = |purpose| dial(&self.identity, self.node, self.address, purpose);
        let [data, bulk] = PURPOSES.map(to);
        let (data, bulk) = tokio::try_join!(data, bulk)?;
        Ok([data, bulk])
    }

    async fn outdated(&self, route: Route, purpose: Purpose) {
        outdated(&self.identity, route, self.node, self.address, purpose).await;
    }

    fn set_up(&self, up: bool) {
        tracing::debug!(node = self.node.0, up, "link");
        for queue in &self.lanes {
            queue.up.set(up);
            queue.bytes.set(0);
            queue.frames.borrow_mut().clear();
        }
        self.inbox.put(if up { Input::LinkUp(self.node) } else { Input::LinkDown(self.node) });
    }
}

/// Writes what is queued until the connection or the queue's bound is broken.
async fn write(stream: NodeStream, queue: &LaneQueue) {
    let (mut read, write) = stream.into_split();
    let mut writer = FrameWriter::new(write);
    let writing = async {
        // Empty: it tells the peer that answers come this way from now on.
        if writer.queue(Bytes::new(), Vec::new()).is_err() || writer.flush().await.is_err() {
            return;
        }
        loop {
            let frames = queue.frames.take();
            if frames.is_empty() {
                queue.wake.notified().await;
                continue;
            }
            let mut bytes = 0;
            for frame in frames {
                bytes += frame.header.len() + frame.payload.iter().map(|p| p.len()).sum::<usize>();
                if writer.queue(frame.header, frame.payload).is_err() {
                    return;
                }
            }
            if writer.flush().await.is_err() {
                return;
            }
            queue.bytes.set(queue.bytes.get().saturating_sub(bytes));
        }
    };
    // The peer sends nothing on what we dialled: whatever this read brings is the end.
    let mut byte = [0];
    tokio::select! {
        () = writing => {}
        () = queue.overflow.notified() => {}
        _ = read.read(&mut byte) => {}
    }
}
