//! Dialling a peer. A connection counts only when the peer's certificate names the node that was meant and the
//! peer said welcome; every other outcome is an error that says which it was, because "nobody listens there"
//! is a fact about a process while "no answer" is not.

use crate::hello::{ANSWER_BYTES, Answer, Hello, Purpose};
use crate::roster::{Membership, key_of};
use crate::stream::{Socket, between_nodes};
use crate::{Identity, NodeStream, name};
use holdfast_types::{KeyHash, NodeId, PeerPath, ProcessIncarnation};
use rustls::{AlertDescription, CertificateError};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long the TCP connection, and then the handshake, may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a connection to a node did not come about.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The host answered that nobody listens there: the process is gone.
    #[error("node {node} at {address}: nobody listens there")]
    Refused {
        /// The node that was meant.
        node: NodeId,
        /// Where.
        address: SocketAddr,
    },
    /// No answer in time; says nothing about the process.
    #[error("node {node} at {address}: no answer in time ({stage})")]
    TimedOut {
        /// The node that was meant.
        node: NodeId,
        /// Where.
        address: SocketAddr,
        /// What was waited for.
        stage: Stage,
    },
    /// The network said no.
    #[error("node {node} at {address}: {source}")]
    Network {
        /// The node that was meant.
        node: NodeId,
        /// Where.
        address: SocketAddr,
        /// What it said.
        source: io::Error,
    },
    /// What answers there is not the node that was meant.
    #[error("node {node} at {address}: {reason}")]
    NotThePeer {
        /// The node that was meant.
        node: NodeId,
        /// Where.
        address: SocketAddr,
        /// How it differs.
        reason: PeerMismatch,
    },
    /// The path to it is broken, and none of the nodes that were asked to relay reaches it.
    #[error("node {node} at {address}: it is not reached directly, and no other node relays to it")]
    NoRelay {
        /// The node that was meant.
        node: NodeId,
        /// Where.
        address: SocketAddr,
    },
    /// The peer does not take this node.
    #[error("node {node} at {address} refuses this node: {reason}")]
    PeerRefuses {
        /// The node that was meant.
        node: NodeId,
        /// Where.
        address: SocketAddr,
        /// Why.
        reason: Rejection,
    },
}

/// What was waited for when the time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Stage {
    /// The TCP connection.
    #[error("connecting")]
    Connect,
    /// TLS and the hello.
    #[error("handshake")]
    Handshake,
}

/// How the one that answered differs from the one that was meant.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum PeerMismatch {
    /// Its certificate is not of this cluster.
    #[error("its certificate is not of this cluster")]
    OtherCluster,
    /// Its certificate is of this cluster and names another node.
    #[error("its certificate names another node")]
    OtherNode,
    /// Its certificate names the node, and its key is not that node's.
    #[error("its key is not that of the node which its certificate names")]
    OtherKey,
    /// This node knows no member of that number.
    #[error("it is no member of this cluster")]
    NotAMember,
    /// Its certificate is past its end or before its start; the host's clock may be wrong.
    #[error("its certificate has expired or is not valid yet (check the clocks of both hosts)")]
    Expired,
    /// It does not speak our protocol.
    #[error("it does not speak this protocol: {0}")]
    NotHoldfast(rustls::Error),
}

/// Why the peer does not take this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Rejection {
    /// This node's certificate is of another cluster.
    #[error("this node's certificate is of another cluster")]
    OtherCluster,
    /// This node's certificate is not valid now.
    #[error("this node's certificate has expired or is not valid yet (check the clocks of both hosts)")]
    Expired,
    /// This node's certificate names another node than it says it is.
    #[error("this node's certificate names another node")]
    OtherNode,
    /// The peer knows no member of this node's number, or not with its key.
    #[error("this node is no member of the cluster there, or not with its key")]
    NotAMember,
    /// The peer speaks another version.
    #[error("it speaks version {0} of the protocol")]
    Version(u16),
    /// Some other reason of TLS.
    #[error("TLS alert {0:?}")]
    Alert(AlertDescription),
    /// It answered something that is not an answer.
    #[error("its answer is garbled")]
    Garbled,
}

/// Connects to node `to` at `address` for `purpose`, as run `incarnation` of this node.
pub async fn connect(
    identity: &Identity,
    to: NodeId,
    address: SocketAddr,
    purpose: Purpose,
    incarnation: ProcessIncarnation,
) -> Result<NodeStream, ConnectError> {
    let attempt = Attempt { node: to, address };
    let socket = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| attempt.timed_out(Stage::Connect))?
        .map_err(|e| attempt.network(e))?;
    let socket = between_nodes(socket).map_err(|e| attempt.network(e))?;
    let hello = Hello { purpose, node: identity.node(), incarnation, path: PeerPath::Direct };
    over(identity, to, address, socket, hello).await
}

/// The same over what leads there already.
pub(crate) async fn over(
    identity: &Identity,
    to: NodeId,
    address: SocketAddr,
    socket: Socket,
    hello: Hello,
) -> Result<NodeStream, ConnectError> {
    let attempt = Attempt { node: to, address };
    timeout(CONNECT_TIMEOUT, attempt.handshake(identity, socket, hello))
        .await
        .map_err(|_| attempt.timed_out(Stage::Handshake))?
}

/// Whom this is about, for every error on the way.
#[derive(Clone, Copy)]
struct Attempt {
    node: NodeId,
    address: SocketAddr,
}

impl Attempt {
    async fn handshake(
        self,
        identity: &Identity,
        socket: Socket,
        hello: Hello,
    ) -> Result<NodeStream, ConnectError> {
        let name = name::server_name(name::node_name(identity.cluster(), self.node));
        let connector = TlsConnector::from(identity.connector());
        let mut stream = connector.connect(name, socket).await.map_err(|e| self.tls(e))?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first());
        let key = certificate.map_or(KeyHash::default(), |c| key_of(c));
        match identity.members().judge(self.node, key).await {
            Membership::Member => {}
            Membership::OtherKey => return Err(self.mismatch(PeerMismatch::OtherKey)),
            Membership::Removed | Membership::Unknown => return Err(self.mismatch(PeerMismatch::NotAMember)),
        }
        stream.write_all(&hello.encode()).await.map_err(|e| self.tls(e))?;
        stream.flush().await.map_err(|e| self.tls(e))?;
        let mut answer = [0; ANSWER_BYTES];
        stream.read_exact(&mut answer).await.map_err(|e| self.tls(e))?;
        match Answer::decode(&answer) {
            Some(Answer::Welcome) => Ok(NodeStream::new(tokio_rustls::TlsStream::Client(stream))),
            Some(Answer::OtherVersion(v)) => Err(self.refused(Rejection::Version(v))),
            Some(Answer::OtherNode) => Err(self.refused(Rejection::OtherNode)),
            Some(Answer::NotAMember) => Err(self.refused(Rejection::NotAMember)),
            Some(Answer::Garbage | Answer::Unreachable) | None => Err(self.refused(Rejection::Garbled)),
        }
    }

    fn timed_out(self, stage: Stage) -> ConnectError {
        ConnectError::TimedOut { node: self.node, address: self.address, stage }
    }
    fn network(self, source: io::Error) -> ConnectError {
        let Attempt { node, address } = self;
        match source.kind() {
            io::ErrorKind::ConnectionRefused => ConnectError::Refused { node, address },
            io::ErrorKind::TimedOut => self.timed_out(Stage::Connect),
            _ => ConnectError::Network { node, address, source },
        }
    }
    fn refused(self, reason: Rejection) -> ConnectError {
        ConnectError::PeerRefuses { node: self.node, address: self.address, reason }
    }
    fn mismatch(self, reason: PeerMismatch) -> ConnectError {
        ConnectError::NotThePeer { node: self.node, address: self.address, reason }
    }

    /// An I/O error of a TLS stream, which may carry one of TLS.
    fn tls(self, error: io::Error) -> ConnectError {
        let Some(tls) = tls_error(&error) else {
            return ConnectError::Network { node: self.node, address: self.address, source: error };
        };
        match tls {
            rustls::Error::AlertReceived(alert) => self.refused(rejection(*alert)),
            rustls::Error::InvalidCertificate(e) => self.mismatch(mismatch(e)),
            other => self.mismatch(PeerMismatch::NotHoldfast(other.clone())),
        }
    }
}

/// The error of TLS inside an I/O error.
pub(crate) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn rejection(alert: AlertDescription) -> Rejection {
    match alert {
        // A certificate of another authority shows as either, by whether the authorities' names are the same.
        AlertDescription::UnknownCA | AlertDescription::DecryptError | AlertDescription::BadCertificate => {
            Rejection::OtherCluster
        }
        AlertDescription::CertificateExpired => Rejection::Expired,
        other => Rejection::Alert(other),
    }
}

/// What is wrong with a peer's certificate.
pub(crate) fn mismatch(error: &CertificateError) -> PeerMismatch {
    match error {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => PeerMismatch::Expired,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            PeerMismatch::OtherNode
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => PeerMismatch::OtherCluster,
        other => PeerMismatch::NotHoldfast(rustls::Error::InvalidCertificate(other.clone())),
    }
}
