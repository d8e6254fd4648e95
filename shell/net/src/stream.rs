//! A stream between two nodes: bytes over mutual TLS. Small frames leave at once (no Nagle), and a peer whose
//! host is gone is noticed by the kernel within seconds even when nothing is sent.
//!
//! The TLS library takes 4 KiB at a time from what it reads from, so the socket is read through a buffer: one
//! system call for what arrived, not one for each 4 KiB and one more to hear that there is nothing left.

use crate::tcp_info;
use holdfast_types::Packets;
use rustix::net::sockopt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// Unacknowledged bytes older than this break the connection. Failure detection is faster and has connections
/// of its own; this is for what it cannot see: one flow of packets that is lost while others pass.
const USER_TIMEOUT_MS: u32 = 2_000;
/// An idle connection is probed after this long, then every [`KEEPALIVE_INTERVAL`].
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
/// Between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// Unanswered probes that break the connection.
const KEEPALIVE_COUNT: u32 = 5;
/// What one system call takes from a socket at most.
const RECEIVE_BYTES: usize = 64 << 10;

/// What is below TLS between two nodes.
pub(crate) enum Wire {
    Tcp(TcpStream),
    /// A stream to a third node, which carries on what it is given. It sees no more of it than a wire does.
    Relayed(Box<NodeStream>),
}

/// The same, read through a buffer.
pub(crate) type Socket = BufReader<Wire>;

/// A verified stream to a node of this cluster.
pub struct NodeStream(TlsStream<Socket>);

impl NodeStream {
    pub(crate) fn new(stream: impl Into<TlsStream<Socket>>) -> Self {
        Self(stream.into())
    }

    /// The packets that were sent so far; none where a third node relays.
    pub fn packets(&self) -> Option<Packets> {
        match self.0.get_ref().0.get_ref() {
            Wire::Tcp(socket) => tcp_info::packets(socket).ok(),
            Wire::Relayed(_) => None,
        }
    }

    /// The two directions, to be used by two tasks.
    pub fn into_split(self) -> (ReadHalf<NodeStream>, WriteHalf<NodeStream>) {
        tokio::io::split(self)
    }
}

/// Sets what every socket of ours has set.
pub fn configure(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_COUNT)?;
    sockopt::set_tcp_user_timeout(socket, USER_TIMEOUT_MS)?;
    Ok(())
}

/// What TLS between nodes runs over.
pub(crate) fn between_nodes(socket: TcpStream) -> io::Result<Socket> {
    configure(&socket)?;
    Ok(BufReader::with_capacity(RECEIVE_BYTES, Wire::Tcp(socket)))
}

/// What TLS with a node runs over that a third one relays to.
pub(crate) fn relayed(stream: NodeStream) -> Socket {
    BufReader::with_capacity(RECEIVE_BYTES, Wire::Relayed(Box::new(stream)))
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Wire::Relayed(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            Wire::Relayed(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Wire::Relayed(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }
    fn is_write_vectored(&self) -> bool {
        match self {
            Wire::Tcp(socket) => socket.is_write_vectored(),
            Wire::Relayed(stream) => stream.is_write_vectored(),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Wire::Relayed(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Wire::Relayed(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for NodeStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for NodeStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
