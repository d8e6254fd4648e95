//! Requests to other nodes and their answers, over a control connection to each: consensus, forwarded
//! proposals, and what one node's API asks of another. A frame's header is the request's number and kind, its
//! payload the request or the answer.

use bytes::Bytes;
use futures::future::BoxFuture;
use holdfast_consensus::{Transport, TransportError, TransportFault};
use holdfast_net::{
    ConnectError, Dialled, FrameReader, FrameWriter, Identity, NodeStream, Purpose, dial, outdated,
};
use holdfast_types::NodeId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// How long an answer of consensus may take; it has shorter terms of its own.
const CONSENSUS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer of a node may take: the check of a segment reads all of it, on every copy.
const NODE_TIMEOUT: Duration = Duration::from_secs(600);
/// Requests of one peer that are answered at once; more wait in the socket.
const SERVED_AT_ONCE: usize = 256;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of the consensus library's adapter.
    Consensus,
    /// Of another node's API.
    Node,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Kind::Consensus => 1,
            Kind::Node => 2,
        }
    }
    fn from_code(code: u8) -> Option<Self> {
        [Kind::Consensus, Kind::Node].into_iter().find(|k| k.code() == code)
    }
}

/// Calls other nodes. Cheap to clone.
#[derive(Clone)]
pub struct Caller(Arc<Inner>);

struct Inner {
    identity: Identity,
    peers: Mutex<BTreeMap<NodeId, Peer>>,
}

struct Peer {
    address: SocketAddr,
    requests: mpsc::Sender<Request>,
}

/// Where an answer goes.
type Answer = oneshot::Sender<Result<Bytes, TransportFault>>;

struct Request {
    kind: Kind,
    payload: Bytes,
    answer: Answer,
}

impl Caller {
    /// A caller that has no connection yet.
    pub fn new(identity: Identity) -> Self {
        Self(Arc::new(Inner { identity, peers: Mutex::default() }))
    }

    /// Asks a node and waits for its answer.
    pub async fn ask(
        &self,
        to: NodeId,
        address: &str,
        kind: Kind,
        payload: Bytes,
    ) -> Result<Bytes, TransportError> {
        let fault = |fault| TransportError { node: to, fault };
        let address: SocketAddr = address.parse().map_err(|_| {
            fault(TransportFault::NotSent { why: format!("{address:?} is not an address with a port") })
        })?;
        let (answer, wait) = oneshot::channel();
        let requests = self.requests(to, address);
        let no_answer = || fault(TransportFault::NoAnswer { why: "the connection ended".into() });
        if requests.send(Request { kind, payload, answer }).await.is_err() {
            return Err(no_answer());
        }
        let limit = match kind {
            Kind::Consensus => CONSENSUS_TIMEOUT,
            Kind::Node => NODE_TIMEOUT,
        };
        match tokio::time::timeout(limit, wait).await {
            Ok(Ok(result)) => result.map_err(fault),
            Ok(Err(_)) => Err(no_answer()),
            Err(_) => Err(fault(TransportFault::NoAnswer { why: "no answer in time".into() })),
        }
    }

    fn requests(&self, to: NodeId, address: SocketAddr) -> mpsc::Sender<Request> {
        let mut peers = self.0.peers.lock().unwrap_or_else(|e| e.into_inner());
        match peers.get(&to) {
            Some(peer) if peer.address == address && !peer.requests.is_closed() => peer.requests.clone(),
            _ => {
                let (requests, receive) = mpsc::channel(SERVED_AT_ONCE);
                tokio::spawn(run_peer(self.0.identity.clone(), to, address, receive));
                peers.insert(to, Peer { address, requests: requests.clone() });
                requests
            }
        }
    }
}

impl Transport for Caller {
    fn call(
        &self,
        to: NodeId,
        address: String,
        request: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let caller = self.clone();
        Box::pin(async move { caller.ask(to, &address, Kind::Consensus, request).await })
    }
}

/// Connects when there is something to ask; ends when the connection does, or another way leads there, with what was
/// asked answered.
async fn run_peer(
    identity: Identity,
    to: NodeId,
    address: SocketAddr,
    mut requests: mpsc::Receiver<Request>,
) {
    let Some(first) = requests.recv().await else { return };
    let Dialled { stream, route } = match dial(&identity, to, address, Purpose::Control).await {
        Ok(dialled) => dialled,
        Err(error) => return refuse(first, requests, &error),
    };
    let waiting: Mutex<BTreeMap<u64, Answer>> = Mutex::default();
    let (read, write) = stream.into_split();
    let answers = async {
        let mut reader = FrameReader::new(read);
        while let Ok(Some(frame)) = reader.read().await {
            let Some(number) = frame.header.first_chunk::<8>() else { return };
            let number = u64::from_le_bytes(*number);
            let answer = waiting.lock().unwrap_or_else(|e| e.into_inner()).remove(&number);
            if let Some(answer) = answer {
                let _ = answer.send(Ok(frame.payload));
            }
        }
    };
    let asking = async {
        let mut writer = FrameWriter::new(write);
        let mut number = 0_u64;
        let mut next = Some(first);
        while let Some(request) = next {
            number += 1;
            {
                let mut waiting = waiting.lock().unwrap_or_else(|e| e.into_inner());
                // Those that gave up leave their place.
                waiting.retain(|_, answer| !answer.is_closed());
                waiting.insert(number, request.answer);
            }
            let header = [&number.to_le_bytes()[..], &[request.kind.code()]].concat();
            if writer.queue(header.into(), vec![request.payload]).is_err() || writer.flush().await.is_err() {
                return;
            }
            next = requests.recv().await;
        }
    };
    tokio::select! {
        () = answers => {}
        () = asking => {}
        () = outdated(&identity, route, to, address, Purpose::Control) => {}
    }
}

fn refuse(first: Request, mut requests: mpsc::Receiver<Request>, error: &ConnectError) {
    requests.close();
    let mut next = Some(first);
    while let Some(request) = next {
        let _ = request.answer.send(Err(TransportFault::NotSent { why: error.to_string() }));
        next = requests.try_recv().ok();
    }
}

/// Answers requests that arrive on a control connection, until it ends.
pub async fn serve<F>(from: NodeId, stream: NodeStream, answer: F)
where
    F: Fn(NodeId, Kind, Bytes) -> BoxFuture<'static, Bytes> + Send + Sync + 'static,
{
    let (read, write) = stream.into_split();
    let mut reader = FrameReader::new(read);
    let (answers, mut to_write) = mpsc::channel::<(Bytes, Bytes)>(SERVED_AT_ONCE);
    let permits = Arc::new(Semaphore::new(SERVED_AT_ONCE));
    let writing = tokio::spawn(async move {
        let mut writer = FrameWriter::new(write);
        while let Some((header, payload)) = to_write.recv().await {
            if writer.queue(header, vec![payload]).is_err() || writer.flush().await.is_err() {
                return;
            }
        }
    });
    while let Ok(Some(frame)) = reader.read().await {
        let Some((number, rest)) = frame.header.split_first_chunk::<8>() else { break };
        let Some(kind) = rest.first().and_then(|code| Kind::from_code(*code)) else { break };
        let Ok(permit) = permits.clone().acquire_owned().await else { break };
        let header = Bytes::copy_from_slice(number);
        let (reply, answers) = (answer(from, kind, frame.payload), answers.clone());
        tokio::spawn(async move {
            let payload = reply.await;
            // A peer that is gone wants no answer.
            let _ = answers.send((header, payload)).await;
            drop(permit);
        });
    }
    writing.abort();
}
