//! Tests of the server and the client against each other, over both kinds of socket.

use super::*;
use crate::Client;
use crate::events::{EventLog, NewEvent};
use crate::fake::Fake;
use crate::model::*;
use crate::token::{Accepted, AdminToken, JoinToken, Secret};
use futures::StreamExt;
use holdfast_net::{CaPin, Identity};
use holdfast_types::NodeId;
use std::net::SocketAddr;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

/// A served fake cluster.
struct Served {
    folder: TempDir,
    fake: Arc<Fake>,
    events: EventLog,
    address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Served {
    fn unix(&self) -> Client {
        Client::unix(&self.folder.path().join("api.sock"))
    }
    fn tls(&self) -> Client {
        Client::tls(self.address, self.fake.admin_token)
    }
}

async fn serve() -> Served {
    let folder = tempfile::tempdir().unwrap();
    let events = EventLog::open(&folder.path().join("events"), 1).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let fake = Arc::new(Fake::new(events.clone(), address));
    let identity = Identity::create(folder.path(), &fake.authority, NodeId(1)).unwrap();
    let socket = bind_unix(&folder.path().join("api.sock")).await.unwrap();
    let open = router(fake.clone(), Access::Socket);
    let guarded = router(fake.clone(), Access::Token(Accepted::of(fake.admin_token)));
    let tls = identity.api_acceptor().unwrap();
    let tasks = vec![tokio::spawn(serve_unix(socket, open)), tokio::spawn(serve_tls(listener, tls, guarded))];
    Served { folder, fake, events, address, tasks }
}

fn create(name: &str, size: u64) -> CreateVolume {
    CreateVolume { name: name.into(), size, ..CreateVolume::default() }
}

#[tokio::test]
async fn every_call_answers_the_same_over_both_sockets() {
    let served = serve().await;
    for (client, name) in [(served.unix(), "one"), (served.tls(), "two")] {
        assert_eq!(client.status().await.unwrap().leader, Some(1));
        assert_eq!(client.nodes().await.unwrap().len(), 2);
        assert_eq!(client.node("beta").await.unwrap().node.id, 2);
        assert_eq!(client.disks().await.unwrap().len(), 1);
        // A path holds slashes, which are escaped on the way.
        assert_eq!(client.disk("/dev/sdb").await.unwrap().path, "/dev/sdb");
        assert_eq!(client.pools().await.unwrap()[0].name, "default");
        let volume = client.create_volume(&create(name, 4096)).await.unwrap();
        assert_eq!((volume.name.as_str(), volume.size), (name, 4096));
        assert_eq!(client.resize_volume(name, 8192).await.unwrap().size, 8192);
        assert_eq!(client.volume(name).await.unwrap().segments.len(), 1);
        let steps: Vec<_> = client.check_volume(name).await.unwrap().collect().await;
        assert!(matches!(steps.last(), Some(Ok(CheckStep::Report(r))) if r.volume == name));
        client.delete_volume(name).await.unwrap();
        assert!(client.volumes().await.unwrap().is_empty());
        let disk = AddDisk { path: "/srv/d".into(), ..AddDisk::default() };
        assert_eq!(client.add_disk(&disk).await.unwrap().path, "/srv/d");
        client.rotate_admin_token().await.unwrap();
        let chap = SetChap { user: "u".into(), secret: "s".repeat(12) };
        client.set_chap(&chap).await.unwrap();
        assert_eq!(served.fake.chap(), Some(chap));
        client.clear_chap().await.unwrap();
        assert_eq!(served.fake.chap(), None);
        client.stop_node("2").await.unwrap();
        assert_eq!(served.fake.stopped().last().map(String::as_str), Some("2"));
        client.remove_node("beta").await.unwrap();
        client.remove_disk("/dev/sdc").await.unwrap();
        client.lose_node("2", true).await.unwrap();
        client.lose_disk("/dev/sdd", false).await.unwrap();
        client.salvage_volume(name).await.unwrap();
        let removed =
            ["beta", "/dev/sdc", "2, accepting true", "/dev/sdd, accepting false", name].map(str::to_owned);
        assert!(served.fake.removed().ends_with(&removed));
    }
}

#[tokio::test]
async fn errors_keep_their_kind_message_and_hint_on_the_way() {
    let served = serve().await;
    let error = served.tls().volume("no/such?one").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert_eq!(error.message, "volume \"no/such?one\" does not exist");
    assert_eq!(error.hint.as_deref(), Some("`holdfast volume ls` lists what there is"));
    let error = served.unix().create_volume(&create("big", 1 << 50)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
}

#[tokio::test]
async fn without_the_token_nothing_but_join_is_answered() {
    let served = serve().await;
    let pin = served.fake.admin_token.pin;
    let nobody = Client::for_join(served.address, pin);
    assert_eq!(nobody.status().await.unwrap_err().kind, ErrorKind::Unauthorized);
    assert_eq!(nobody.create_token().await.unwrap_err().kind, ErrorKind::Unauthorized);
    let wrong = Client::tls(served.address, AdminToken { pin, secret: Secret::generate() });
    assert_eq!(wrong.status().await.unwrap_err().kind, ErrorKind::Unauthorized);
    let key = holdfast_net::NodeKey::generate().unwrap();
    let token: JoinToken = served.tls().create_token().await.unwrap().token.parse().unwrap();
    assert_eq!((token.address, token.pin), (served.address, pin));
    let request = JoinRequest {
        secret: token.secret.to_hex(),
        public_key: crate::token::to_hex(key.public()),
        ..JoinRequest::default()
    };
    assert_eq!(nobody.join(&request).await.unwrap().node, 2);
    assert_eq!(nobody.join(&request).await.unwrap_err().kind, ErrorKind::TokenUsed);
    let request = JoinRequest { secret: Secret::generate().to_hex(), ..request };
    assert_eq!(nobody.join(&request).await.unwrap_err().kind, ErrorKind::TokenExpired);
}

#[tokio::test]
async fn a_client_that_knows_another_cluster_gives_its_token_to_nobody_here() {
    let served = serve().await;
    let other = AdminToken { pin: CaPin([3; 32]), secret: Secret::generate() };
    let error = Client::tls(served.address, other).status().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.message.contains("another cluster"), "{error}");
}

#[tokio::test]
async fn nobody_at_the_socket_or_address_is_said_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let error = Client::unix(&folder.path().join("none")).status().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.to_string().contains("holdfast node run"), "{error}");
    let token = AdminToken { pin: CaPin([3; 32]), secret: Secret::generate() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = Client::tls(address, token).status().await.unwrap_err();
    assert!(error.message.contains("nobody listens there"), "{error}");
}

#[tokio::test]
async fn a_follower_of_events_gets_old_and_new_ones() {
    let served = serve().await;
    let log = |what: &str| {
        let event =
            NewEvent { who: "operator".into(), kind: "test", what: what.into(), ..NewEvent::default() };
        served.events.append(event);
    };
    log("old");
    let query = EventQuery { since: Some(0), last: Some(10) };
    let mut stream = served.tls().follow_events(query).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().what, "old");
    log("new");
    assert_eq!(stream.next().await.unwrap().unwrap().what, "new");
    let events = served.unix().events(EventQuery { since: Some(1), last: None }).await.unwrap();
    assert_eq!(events.iter().map(|e| e.what.as_str()).collect::<Vec<_>>(), ["new"]);
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_taken_over_only_from_the_dead() {
    let served = serve().await;
    let path = served.folder.path().join("api.sock");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(bind_unix(&path).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    let dead = served.folder.path().join("dead.sock");
    drop(bind_unix(&dead).await.unwrap());
    bind_unix(&dead).await.unwrap();
}

/// Sends bytes as they are and returns what comes back.
async fn raw(served: &Served, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(served.folder.path().join("api.sock")).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // The server may end it early; what it said counts.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn bad_requests_are_answered_with_an_error_and_the_server_goes_on() {
    let served = serve().await;
    let post = |body: &str| {
        format!(
            "POST /v1/volumes HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let answer = raw(&served, post("{\"name\":").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("\"kind\":\"invalid\""), "{answer}");
    let answer = raw(&served, post("{\"name\":\"a\",\"size\":1,\"colour\":1}").as_bytes()).await;
    assert!(answer.contains("unknown field"), "{answer}");
    let answer = raw(&served, post(&"x".repeat(MAX_BODY_BYTES + 1)).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413") || answer.is_empty(), "{answer}");
    let answer = raw(&served, b"GET /v2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("not-found"), "{answer}");
    let answer = raw(&served, &[0xff; 300]).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    served.unix().status().await.unwrap();
}

#[tokio::test]
async fn garbage_and_silent_connections_on_the_tls_port_keep_nobody_out() {
    let served = serve().await;
    let mut silent = Vec::new();
    for _ in 0..2 * MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    served.tls().status().await.unwrap();
}

#[tokio::test]
async fn the_metrics_page_is_served_in_plain_text() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(serve_plain(
        listener,
        metrics_router(Metrics::new("0.1.0", Arc::new(|| Box::pin(async {})))),
    ));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("content-type: application/openmetrics-text"), "{answer}");
    assert!(answer.contains("holdfast_build_info{version=\"0.1.0\"} 1"), "{answer}");
    task.abort();
}
