//! Accepting peers. Handshakes run side by side and are bounded in number and time; when there are too many,
//! the oldest is dropped, so that a thousand silent connections cannot keep out one that speaks. What is not
//! a node of this cluster gets nothing but a TLS alert or a one-word answer, and is counted (`refusals.rs`). What is
//! to be relayed is carried on here; nobody else hears of it.

use crate::ca::dns_names;
use crate::connect::{PeerMismatch, mismatch, tls_error};
use crate::hello::{Answer, BadHello, HELLO_BYTES, Hello, Purpose};
use crate::refusals::{Refusal, Refusals};
use crate::roster::{Membership, key_of};
use crate::stream::between_nodes;
use crate::{Identity, NodeStream, name, relay};
use holdfast_types::{NodeId, PeerPath, ProcessIncarnation};
use rustls_pki_types::CertificateDer;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// How many handshakes run at a time.
pub const MAX_HANDSHAKES: usize = 128;
/// How long one may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that are through and wait for [`Listener::accept`].
const ACCEPT_QUEUE: usize = 64;
/// Out of descriptors or memory: nothing but time helps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why no listening socket could be had.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    /// Where.
    pub address: SocketAddr,
    /// What the kernel said.
    pub source: io::Error,
}

/// A peer that is through.
pub struct Accepted {
    /// The node that its certificate names.
    pub node: NodeId,
    /// For what the connection is.
    pub purpose: Purpose,
    /// The run of its daemon, as it says.
    pub incarnation: ProcessIncarnation,
    /// Which way it comes.
    pub path: PeerPath,
    /// The stream.
    pub stream: NodeStream,
}

/// A listening socket for peers, with its running handshakes. Dropping it closes the socket.
pub struct Listener {
    address: SocketAddr,
    accepted: tokio::sync::Mutex<mpsc::Receiver<Accepted>>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Listens on `address` as `identity`, and counts what it does not let in. Must be called inside a runtime.
    pub async fn bind(
        address: SocketAddr,
        identity: &Identity,
        refusals: &Refusals,
    ) -> Result<Self, ListenError> {
        let error = |source| ListenError { address, source };
        let socket = TcpListener::bind(address).await.map_err(error)?;
        let address = socket.local_addr().map_err(error)?;
        let (sender, receiver) = mpsc::channel(ACCEPT_QUEUE);
        let task = tokio::spawn(accept_loop(socket, identity.clone(), sender, refusals.clone()));
        Ok(Self { address, accepted: tokio::sync::Mutex::new(receiver), task })
    }

    /// Where it listens, the port resolved.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next peer that is through. Safe to cancel.
    pub async fn accept(&self) -> Accepted {
        match self.accepted.lock().await.recv().await {
            Some(accepted) => accepted,
            // The task ends only by being aborted, in our own drop.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The handshakes that run, oldest first. They end with it.
struct Running(VecDeque<AbortHandle>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

async fn accept_loop(
    socket: TcpListener,
    identity: Identity,
    sender: mpsc::Sender<Accepted>,
    refusals: Refusals,
) {
    let mut running = Running(VecDeque::new());
    loop {
        let (stream, from) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections of peers");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        running.0.retain(|h| !h.is_finished());
        if running.0.len() >= MAX_HANDSHAKES
            && let Some(oldest) = running.0.pop_front()
        {
            oldest.abort();
            refusals.count(Refusal::TooSlow, from);
        }
        let (identity, sender, refusals) = (identity.clone(), sender.clone(), refusals.clone());
        let task = tokio::spawn(async move {
            let result = timeout(HANDSHAKE_TIMEOUT, async {
                let accepted = handshake(stream, &identity).await?;
                if accepted.purpose == Purpose::Relay {
                    let identity = identity.clone();
                    tokio::spawn(async move { relay::carry(accepted.stream, &identity).await });
                } else {
                    // Closed only when the listener is dropped; then nobody cares.
                    let _ = sender.send(accepted).await;
                }
                Ok(())
            });
            match result.await {
                Ok(Ok(())) => {}
                Ok(Err(refusal)) => refusals.count(refusal, from),
                Err(_) => refusals.count(Refusal::TooSlow, from),
            }
        });
        running.0.push_back(task.abort_handle());
    }
}

async fn handshake(socket: TcpStream, identity: &Identity) -> Result<Accepted, Refusal> {
    let socket = between_nodes(socket).map_err(|_| Refusal::Closed)?;
    let acceptor = TlsAcceptor::from(identity.acceptor());
    let mut stream = acceptor.accept(socket).await.map_err(|e| refusal(&e))?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first().cloned());
    let certificate = certificate.ok_or(Refusal::NoCertificate)?;
    let (cluster, node) =
        dns_names(&certificate).iter().find_map(|n| name::parse_node_name(n)).ok_or(Refusal::OtherNode)?;
    if cluster != identity.cluster() {
        return Err(Refusal::OtherCluster);
    }
    let mut bytes = [0; HELLO_BYTES];
    stream.read_exact(&mut bytes).await.map_err(|e| refusal(&e))?;
    let (answer, result) = match Hello::decode(&bytes) {
        Ok(hello) if hello.node == node => match not_a_member(identity, &certificate, &hello).await {
            None => (Answer::Welcome, Ok(hello)),
            Some(refusal) => (Answer::NotAMember, Err(refusal)),
        },
        Ok(_) => (Answer::OtherNode, Err(Refusal::OtherNode)),
        Err(BadHello::Version(_)) => {
            (Answer::OtherVersion(crate::hello::WIRE_VERSION), Err(Refusal::OtherVersion))
        }
        Err(BadHello::Garbage | BadHello::Purpose(_)) => (Answer::Garbage, Err(Refusal::NotHoldfast)),
    };
    stream.write_all(&answer.encode()).await.map_err(|e| refusal(&e))?;
    stream.flush().await.map_err(|e| refusal(&e))?;
    let hello = result?;
    let stream = NodeStream::new(tokio_rustls::TlsStream::Server(stream));
    let Hello { purpose, incarnation, path, .. } = hello;
    Ok(Accepted { node, purpose, incarnation, path, stream })
}

/// Why who says `hello` is not taken for the node that its certificate names.
async fn not_a_member(
    identity: &Identity,
    certificate: &CertificateDer<'_>,
    hello: &Hello,
) -> Option<Refusal> {
    match identity.members().judge(hello.node, key_of(certificate)).await {
        Membership::Member => None,
        // What it asks for is refused with a word that tells it so, which it needs.
        Membership::Removed if hello.purpose == Purpose::Control => None,
        Membership::Removed | Membership::Unknown => Some(Refusal::NotAMember),
        Membership::OtherKey => Some(Refusal::OtherKey),
    }
}

fn refusal(error: &io::Error) -> Refusal {
    match tls_error(error) {
        None => Refusal::Closed,
        Some(rustls::Error::NoCertificatesPresented) => Refusal::NoCertificate,
        Some(rustls::Error::InvalidCertificate(e)) => match mismatch(e) {
            PeerMismatch::OtherCluster => Refusal::OtherCluster,
            PeerMismatch::OtherNode => Refusal::OtherNode,
            PeerMismatch::OtherKey => Refusal::OtherKey,
            PeerMismatch::NotAMember => Refusal::NotAMember,
            PeerMismatch::Expired => Refusal::Expired,
            PeerMismatch::NotHoldfast(_) => Refusal::NotHoldfast,
        },
        Some(_) => Refusal::NotHoldfast,
    }
}
