//! The client of the API: over the Unix socket of a node on this host, or over TLS to any node, which it
//! knows by the hash of the cluster's authority. One connection per request; answers are bounded.

use crate::error::{ApiError, ErrorKind};
use crate::model::*;
use crate::token::AdminToken;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use holdfast_net::CaPin;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an answer may take: longer than the node itself waits for a leader or for a handover.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// The longest line of a stream.
const MAX_LINE_BYTES: usize = 4 << 20;

/// Where the API is asked.
#[derive(Clone, Debug)]
pub struct Client {
    to: Target,
}

#[derive(Clone, Debug)]
enum Target {
    Socket(PathBuf),
    Tls { address: SocketAddr, pin: CaPin, token: Option<AdminToken> },
}

impl Client {
    /// Over the socket at `path`.
    pub fn unix(path: &Path) -> Self {
        Self { to: Target::Socket(path.into()) }
    }
    /// Over TLS, as the holder of `token`.
    pub fn tls(address: SocketAddr, token: AdminToken) -> Self {
        Self { to: Target::Tls { address, pin: token.pin, token: Some(token) } }
    }
    /// Over TLS, with no right but to join.
    pub fn for_join(address: SocketAddr, pin: CaPin) -> Self {
        Self { to: Target::Tls { address, pin, token: None } }
    }

    /// See [`crate::Backend::status`]; the others likewise.
    pub async fn status(&self) -> Result<Status, ApiError> {
        self.get("/v1/status").await
    }
    /// Every node.
    pub async fn nodes(&self) -> Result<Vec<Node>, ApiError> {
        self.get("/v1/nodes").await
    }
    /// One node.
    pub async fn node(&self, node: &str) -> Result<NodeDetail, ApiError> {
        self.get(&format!("/v1/nodes/{}", escape(node))).await
    }
    /// Stops a node.
    pub async fn stop_node(&self, node: &str) -> Result<Done, ApiError> {
        self.post(&format!("/v1/nodes/{}/stop", escape(node)), &Done {}).await
    }
    /// Gives a node up.
    pub async fn lose_node(&self, node: &str, accept_loss: bool) -> Result<Done, ApiError> {
        self.post(&format!("/v1/nodes/{}/lost", escape(node)), &Lose { accept_loss }).await
    }
    /// Removes a node for good.
    pub async fn remove_node(&self, node: &str) -> Result<Done, ApiError> {
        self.call(Method::DELETE, &format!("/v1/nodes/{}", escape(node)), None::<&()>).await
    }
    /// Every disk.
    pub async fn disks(&self) -> Result<Vec<Disk>, ApiError> {
        self.get("/v1/disks").await
    }
    /// One disk.
    pub async fn disk(&self, disk: &str) -> Result<Disk, ApiError> {
        self.get(&format!("/v1/disks/{}", escape(disk))).await
    }
    /// Takes a disk into use.
    pub async fn add_disk(&self, request: &AddDisk) -> Result<Disk, ApiError> {
        self.post("/v1/disks", request).await
    }
    /// Gives a disk up.
    pub async fn lose_disk(&self, disk: &str, accept_loss: bool) -> Result<Done, ApiError> {
        self.post(&format!("/v1/disks/{}/lost", escape(disk)), &Lose { accept_loss }).await
    }
    /// Removes a disk for good.
    pub async fn remove_disk(&self, disk: &str) -> Result<Done, ApiError> {
        self.call(Method::DELETE, &format!("/v1/disks/{}", escape(disk)), None::<&()>).await
    }
    /// Every pool.
    pub async fn pools(&self) -> Result<Vec<Pool>, ApiError> {
        self.get("/v1/pools").await
    }
    /// Goes on with what is left of a volume.
    pub async fn salvage_volume(&self, name: &str) -> Result<Done, ApiError> {
        self.post(&format!("/v1/volumes/{}/salvage", escape(name)), &Done {}).await
    }
    /// Every volume.
    pub async fn volumes(&self) -> Result<Vec<Volume>, ApiError> {
        self.get("/v1/volumes").await
    }
    /// One volume.
    pub async fn volume(&self, name: &str) -> Result<VolumeDetail, ApiError> {
        self.get(&format!("/v1/volumes/{}", escape(name))).await
    }
    /// Makes a volume.
    pub async fn create_volume(&self, request: &CreateVolume) -> Result<Volume, ApiError> {
        self.post("/v1/volumes", request).await
    }
    /// Resizes a volume.
    pub async fn resize_volume(&self, name: &str, size: u64) -> Result<Volume, ApiError> {
        self.post(&format!("/v1/volumes/{}/resize", escape(name)), &ResizeVolume { size }).await
    }
    /// Deletes a volume.
    pub async fn delete_volume(&self, name: &str) -> Result<Done, ApiError> {
        self.call(Method::DELETE, &format!("/v1/volumes/{}", escape(name)), None::<&()>).await
    }
    /// Compares the copies of a volume.
    pub async fn check_volume(
        &self,
        name: &str,
    ) -> Result<BoxStream<'static, Result<CheckStep, ApiError>>, ApiError> {
        self.lines(Method::POST, &format!("/v1/volumes/{}/check", escape(name))).await
    }
    /// Makes a join token.
    pub async fn create_token(&self) -> Result<Token, ApiError> {
        self.post("/v1/tokens", &Done {}).await
    }
    /// Replaces the admin token on every node: this client's own is void if it has one.
    pub async fn rotate_admin_token(&self) -> Result<Done, ApiError> {
        self.post("/v1/tokens/admin", &Done {}).await
    }
    /// Joins.
    pub async fn join(&self, request: &JoinRequest) -> Result<JoinAnswer, ApiError> {
        self.post("/v1/join", request).await
    }
    /// Events so far.
    pub async fn events(&self, query: EventQuery) -> Result<Vec<Event>, ApiError> {
        self.get(&format!("/v1/events{}", query_text(query))).await
    }
    /// Events so far and from now on.
    pub async fn follow_events(
        &self,
        query: EventQuery,
    ) -> Result<BoxStream<'static, Result<Event, ApiError>>, ApiError> {
        self.lines(Method::GET, &format!("/v1/events/follow{}", query_text(query))).await
    }
    /// Asks every iSCSI login for CHAP.
    pub async fn set_chap(&self, chap: &SetChap) -> Result<Done, ApiError> {
        self.call(Method::PUT, "/v1/chap", Some(chap)).await
    }
    /// Asks no iSCSI login for CHAP.
    pub async fn clear_chap(&self) -> Result<Done, ApiError> {
        self.call(Method::DELETE, "/v1/chap", None::<&()>).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.call(Method::GET, path, None::<&()>).await
    }
    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ApiError> {
        self.call(Method::POST, path, Some(body)).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ApiError> {
        let answer = async {
            let (response, _connection) = self.send(method, path, body).await?;
            let bytes = collect(response.into_body()).await?;
            serde_json::from_slice(&bytes).map_err(|e| not_understood(&e))
        };
        timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| {
            ApiError::new(ErrorKind::Unknown, format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))
                .hint("the order may be carried out still: look before you repeat it")
        })?
    }

    async fn lines<T: DeserializeOwned + Send + 'static>(
        &self,
        method: Method,
        path: &str,
    ) -> Result<BoxStream<'static, Result<T, ApiError>>, ApiError> {
        let (response, connection) = self.send(method, path, None::<&()>).await?;
        let state = (response.into_body(), Vec::new(), connection);
        let stream = stream::unfold(Some(state), |state| async move {
            let (mut body, mut buffer, connection) = state?;
            match next_line(&mut body, &mut buffer).await {
                Ok(Some(line)) => {
                    let item = serde_json::from_slice(&line).map_err(|e| not_understood(&e));
                    Some((item, Some((body, buffer, connection))))
                }
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(stream.boxed())
    }

    /// Sends a request and returns the answer's head, or the error that the answer is.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<(Response<Incoming>, Connection), ApiError> {
        let internal = |e: String| ApiError::new(ErrorKind::Internal, e);
        let bytes = match body {
            Some(body) => serde_json::to_vec(body).map_err(|e| internal(e.to_string()))?,
            None => Vec::new(),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "holdfast")
            .header(header::CONTENT_TYPE, "application/json");
        if let Target::Tls { token: Some(token), .. } = &self.to {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(Bytes::from(bytes))).map_err(|e| internal(e.to_string()))?;
        let (mut sender, connection) = self.open().await?;
        let response = sender.send_request(request).await.map_err(|e| lost(&e))?;
        if response.status().is_success() {
            return Ok((response, connection));
        }
        let status = response.status();
        let bytes = collect(response.into_body()).await?;
        let unnamed =
            |_| ApiError::new(ErrorKind::Internal, format!("the node answered with HTTP status {status}"));
        Err(serde_json::from_slice::<ApiError>(&bytes).unwrap_or_else(unnamed))
    }

    async fn open(&self) -> Result<(SendRequest<Full<Bytes>>, Connection), ApiError> {
        let attempt = async {
            match &self.to {
                Target::Socket(path) => {
                    let stream = UnixStream::connect(path).await.map_err(|e| no_daemon(path, &e))?;
                    start(stream).await
                }
                Target::Tls { address, pin, .. } => {
                    let unreachable = |e: io::Error| unreachable(*address, &e);
                    let stream = TcpStream::connect(address).await.map_err(unreachable)?;
                    let config = pin.client();
                    let config = config.map_err(|e| ApiError::new(ErrorKind::Internal, e.to_string()))?;
                    let name = ServerName::IpAddress(address.ip().into());
                    start(TlsConnector::from(config).connect(name, stream).await.map_err(unreachable)?).await
                }
            }
        };
        timeout(CONNECT_TIMEOUT, attempt).await.map_err(|_| match &self.to {
            Target::Socket(path) => no_daemon(path, &io::ErrorKind::TimedOut.into()),
            Target::Tls { address, .. } => unreachable(*address, &io::ErrorKind::TimedOut.into()),
        })?
    }
}

/// The task that drives a connection; it ends with its user.
struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn start<S>(stream: S) -> Result<(SendRequest<Full<Bytes>>, Connection), ApiError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(|e| lost(&e))?;
    let task = tokio::spawn(async move {
        // Its error shows at the request, too.
        let _ = connection.await;
    });
    Ok((sender, Connection(task.abort_handle())))
}

async fn collect(body: Incoming) -> Result<Bytes, ApiError> {
    let collected = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
    collected.map(|c| c.to_bytes()).map_err(|e| {
        if e.downcast_ref::<LengthLimitError>().is_some() {
            return ApiError::new(ErrorKind::Internal, "the answer of the node is too long");
        }
        lost(&*e)
    })
}

/// The next line, without its end.
async fn next_line(body: &mut Incoming, buffer: &mut Vec<u8>) -> Result<Option<Vec<u8>>, ApiError> {
    loop {
        if let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let mut line: Vec<u8> = buffer.drain(..=end).collect();
            line.pop();
            return Ok(Some(line));
        }
        if buffer.len() > MAX_LINE_BYTES {
            return Err(ApiError::new(ErrorKind::Internal, "a line of the answer is too long"));
        }
        match body.frame().await {
            Some(Ok(frame)) => buffer.extend_from_slice(frame.data_ref().map_or(&[], |d| d)),
            Some(Err(error)) => return Err(lost(&error)),
            None => return Ok(None),
        }
    }
}

fn no_daemon(socket: &Path, error: &io::Error) -> ApiError {
    let path = socket.display();
    let error = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ApiError::new(ErrorKind::Unreachable, format!("no daemon answers at {path}"))
        }
        _ => ApiError::new(ErrorKind::Unreachable, format!("cannot ask the daemon at {path}: {error}")),
    };
    error.hint("start it with `holdfast node run`, or name its data folder with --dir")
}

fn unreachable(address: SocketAddr, error: &io::Error) -> ApiError {
    let tls = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let (what, hint) = match (tls, error.kind()) {
        (Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)), _) => {
            ("it belongs to another cluster than the token".to_owned(), "use a token of that cluster")
        }
        (Some(tls), _) => (format!("it is not the API of a node ({tls})"), "the API listens on port 7402"),
        (None, io::ErrorKind::ConnectionRefused) => {
            ("nobody listens there".to_owned(), "check the address, and that the daemon runs there")
        }
        (None, io::ErrorKind::TimedOut) => ("no answer".to_owned(), "check the address and the firewall"),
        (None, _) => (error.to_string(), "check the address"),
    };
    ApiError::new(ErrorKind::Unreachable, format!("cannot reach the API at {address}: {what}")).hint(hint)
}

fn lost(error: &dyn std::error::Error) -> ApiError {
    ApiError::new(ErrorKind::Unknown, format!("the connection to the node was lost: {error}"))
        .hint("the order may be carried out still: look before you repeat it")
}

fn not_understood(error: &serde_json::Error) -> ApiError {
    ApiError::new(ErrorKind::Internal, format!("the answer of the node is not understood: {error}"))
        .hint("command and daemon may be of different versions")
}

fn query_text(query: EventQuery) -> String {
    let since = query.since.map(|n| format!("since={n}"));
    let last = query.last.map(|n| format!("last={n}"));
    let parts: Vec<String> = since.into_iter().chain(last).collect();
    if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
}

/// Text as one segment of a path (RFC 3986 2.1).
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
