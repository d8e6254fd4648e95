//! The server: HTTP/1.1 on a Unix socket, whose mode lets only root in and which asks for no token; over TLS on
//! a port, where every request but `join` needs the admin token; and the metrics page on a port of its own.
//!
//! Connections are bounded in number, requests in size and in the time that their head may take. A dropped
//! server ends its connections.

mod routes;

use crate::backend::Backend;
use crate::error::{ApiError, ErrorKind};
use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::token::Accepted;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Connections that one listener serves at a time.
pub const MAX_CONNECTIONS: usize = 128;
/// How long the head of a request, or TLS, may take.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest body of a request.
pub const MAX_BODY_BYTES: usize = 1 << 20;
/// Out of descriptors or memory: nothing but time helps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who may ask.
#[derive(Clone, Debug)]
pub enum Access {
    /// Whoever can open the socket.
    Socket,
    /// Whoever has the token.
    Token(Accepted),
}

/// The routes of the API, answered by `backend`.
pub fn router(backend: Arc<dyn Backend>, access: Access) -> Router {
    let guarded = routes::guarded().layer(middleware::from_fn_with_state(access, check_token));
    let open = routes::open();
    guarded
        .merge(open)
        .fallback(|| async { no_such_path() })
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(backend)
}

/// The metrics page, at `/metrics`.
pub fn metrics_router(metrics: Metrics) -> Router {
    let page = |State(metrics): State<Metrics>| async move {
        match metrics.page().await {
            Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    };
    Router::new().route("/metrics", get(page)).fallback(|| async { no_such_path() }).with_state(metrics)
}

fn no_such_path() -> ApiError {
    ApiError::new(ErrorKind::NotFound, "this path is not one of the API's")
}

async fn check_token(State(access): State<Access>, request: Request, next: Next) -> Response {
    if let Access::Token(accepted) = access {
        let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let given = given.and_then(|v| v.strip_prefix("Bearer ")).unwrap_or_default();
        if !accepted.takes(given) {
            let what = if given.is_empty() { "no token was given" } else { "this is not the token" };
            return ApiError::new(ErrorKind::Unauthorized, what)
                .hint("it is in the file admin.token in the data folder of each node")
                .into_response();
        }
    }
    next.run(request).await
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, axum::Json(self)).into_response()
    }
}

/// Makes the Unix socket at `path`, for its owner only. A socket that a dead daemon left is replaced; one that
/// is answered is not.
pub async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if path.exists() {
        if tokio::net::UnixStream::connect(path).await.is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another daemon serves this data folder"));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves `router` on the Unix socket until dropped.
pub async fn serve_unix(listener: UnixListener, router: Router) {
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => connections.start(&router, |router| serve_connection(stream, router)),
            Err(error) => pause(error).await,
        }
    }
}

/// Serves `router` over TLS until dropped.
pub async fn serve_tls(listener: TcpListener, tls: Arc<ServerConfig>, router: Router) {
    let acceptor = TlsAcceptor::from(tls);
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let acceptor = acceptor.clone();
                connections.start(&router, |router| async move {
                    // A socket that refuses its options fails at the next step, too.
                    let _ = holdfast_net::stream::configure(&stream);
                    if let Ok(Ok(stream)) = timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await {
                        serve_connection(stream, router).await;
                    }
                });
            }
            Err(error) => pause(error).await,
        }
    }
}

/// Serves `router` without TLS until dropped: for the metrics page on a local address.
pub async fn serve_plain(listener: TcpListener, router: Router) {
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => connections.start(&router, |router| serve_connection(stream, router)),
            Err(error) => pause(error).await,
        }
    }
}

/// The connections of one listener, oldest first; they end with it.
#[derive(Default)]
struct Connections(VecDeque<Connection>);

struct Connection {
    task: AbortHandle,
    /// Whether a request has come over it.
    spoke: Arc<AtomicBool>,
}

impl Connections {
    /// Serves one more. When there are too many, the oldest that has said nothing makes room, so that silent
    /// ones keep nobody out; when all are in use, the new one is dropped.
    fn start<F>(&mut self, router: &Router, serve: impl FnOnce(Router) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.retain(|c| !c.task.is_finished());
        if self.0.len() >= MAX_CONNECTIONS {
            let silent = self.0.iter().position(|c| !c.spoke.load(Ordering::Relaxed));
            match silent.and_then(|index| self.0.remove(index)) {
                Some(oldest) => oldest.task.abort(),
                None => return,
            }
        }
        let spoke = Arc::new(AtomicBool::new(false));
        let mark = spoke.clone();
        let router = router.clone().layer(middleware::from_fn(move |request: Request, next: Next| {
            mark.store(true, Ordering::Relaxed);
            next.run(request)
        }));
        let task = tokio::spawn(serve(router)).abort_handle();
        self.0.push_back(Connection { task, spoke });
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.0.iter().for_each(|c| c.task.abort());
    }
}

async fn pause(error: io::Error) {
    tracing::warn!(%error, "cannot accept connections to the API");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

async fn serve_connection<S>(stream: S, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let result = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = result {
        tracing::debug!(%error, "a connection to the API ended");
    }
}

#[cfg(test)]
mod tests;
