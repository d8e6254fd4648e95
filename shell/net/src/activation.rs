//! Sockets that systemd holds for us (sd_listen_fds(3)): initiators that connect while the daemon restarts
//! wait in the kernel instead of being refused. To be taken once, at the start, before any thread runs; a
//! socket is then picked by its name (`FileDescriptorName=` of the unit) or by its address.

use listenfd::ListenFd;
use std::io;
use std::net::{SocketAddr, TcpListener};

/// The listening sockets that were handed to this process.
#[derive(Debug, Default)]
pub struct Activated {
    sockets: Vec<Socket>,
}

#[derive(Debug)]
struct Socket {
    name: String,
    listener: TcpListener,
}

impl Activated {
    /// Takes the sockets that the environment speaks of; none when it speaks of none or means another process.
    /// What is not a TCP listening socket is left alone, with a warning.
    pub fn take() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut handed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..handed.len() {
            let name = names.next().unwrap_or_default().to_owned();
            match handed.take_tcp_listener(index) {
                Ok(Some(listener)) => sockets.push(Socket { name, listener }),
                Ok(None) => {}
                Err(error) => tracing::warn!(index, name, %error, "a handed-over descriptor is not used"),
            }
        }
        Self { sockets }
    }

    /// The socket for `address`: one of that name, else one bound to the address, else one bound to the port
    /// on every address. Non-blocking, ready for an async runtime. A socket is given once.
    pub fn pick(&mut self, name: &str, address: SocketAddr) -> Option<TcpListener> {
        let bound = |s: &Socket| s.listener.local_addr().ok();
        let by_name = |s: &Socket| !name.is_empty() && s.name == name;
        let exact = |s: &Socket| bound(s) == Some(address);
        let wildcard =
            |s: &Socket| bound(s).is_some_and(|b| b.port() == address.port() && b.ip().is_unspecified());
        let index = self
            .sockets
            .iter()
            .position(by_name)
            .or_else(|| self.sockets.iter().position(exact))
            .or_else(|| self.sockets.iter().position(wildcard))?;
        let listener = self.sockets.swap_remove(index).listener;
        match listener.set_nonblocking(true) {
            Ok(()) => Some(listener),
            Err(error) => {
                tracing::warn!(%address, %error, "a handed-over socket cannot be used");
                None
            }
        }
    }

    /// The socket for `address` that was handed over, or a new one.
    pub fn listen(&mut self, name: &str, address: SocketAddr) -> io::Result<tokio::net::TcpListener> {
        if let Some(listener) = self.pick(name, address) {
            return tokio::net::TcpListener::from_std(listener);
        }
        let socket = match address {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    }

    /// What was handed over and not picked, for a line in the log.
    pub fn left_over(&self) -> Vec<String> {
        let name = |s: &Socket| match s.listener.local_addr() {
            Ok(address) => format!("{} ({address})", s.name),
            Err(_) => s.name.clone(),
        };
        self.sockets.iter().map(name).collect()
    }
}

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 1024;
