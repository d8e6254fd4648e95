//! Who is let in and who is not: two real ends over TCP, with every kind of wrong certificate.

use holdfast_net::ca::Validity;
use holdfast_net::connect::{PeerMismatch, Rejection, Stage};
use holdfast_net::listen::MAX_HANDSHAKES;
use holdfast_net::{
    Authority, ConnectError, FrameReader, FrameWriter, Identity, Listener, NodeKey, Purpose, Refusal,
    Refusals, Roster, connect,
};
use holdfast_types::{ClusterId, NodeId, ProcessIncarnation};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const RUN: ProcessIncarnation = ProcessIncarnation(7);

/// A node's folder and identity.
struct Member {
    folder: TempDir,
    identity: Identity,
}

fn member(authority: &Authority, node: u16) -> Member {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::create(folder.path(), authority, NodeId(node)).unwrap();
    Member { folder, identity }
}

fn member_valid(authority: &Authority, node: u16, validity: Validity) -> Member {
    let member = member(authority, node);
    let key = NodeKey::generate().unwrap();
    let pem = authority.issue_for(NodeId(node), key.public(), validity).unwrap();
    Identity::store(member.folder.path(), &key, &pem).unwrap();
    let identity = Identity::load(member.folder.path()).unwrap();
    Member { identity, ..member }
}

/// A roster of these, in which every number below `next_node` was given out.
fn roster(next_node: u16, members: &[&Member]) -> Roster {
    let entry = |m: &Member| holdfast_net::Member { address: String::new(), key: m.identity.key() };
    let members = members.iter().map(|m| (m.identity.node(), entry(m))).collect();
    Roster { version: 1, next_node, members }
}

/// All of them know all of them.
fn acquaint(members: &[&Member]) {
    let next = members.iter().map(|m| m.identity.node().0 + 1).max().unwrap_or(1);
    members.iter().for_each(|m| m.identity.members().set(roster(next, members)));
}

fn yesterday() -> Validity {
    let now = OffsetDateTime::now_utc();
    Validity { from: now - time::Duration::days(9), until: now - time::Duration::days(1) }
}

/// A listener, and what it refuses.
async fn listen(identity: &Identity) -> (Listener, Refusals) {
    let refusals = Refusals::default();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), identity, &refusals).await.unwrap();
    (listener, refusals)
}

async fn dial(from: &Member, to: u16, address: SocketAddr) -> Result<holdfast_net::NodeStream, ConnectError> {
    connect(&from.identity, NodeId(to), address, Purpose::Data, RUN).await
}

/// Waits until a refusal of that kind was counted.
async fn refused(refusals: &Refusals, refusal: Refusal) {
    let counted = async {
        while !refusals.seen().contains_key(&refusal) {
            refusals.more().await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(5), counted).await;
    assert!(in_time.is_ok(), "no {refusal:?} in {:?}", refusals.seen());
}

#[tokio::test]
async fn two_nodes_of_a_cluster_know_each_other_and_carry_frames() {
    let authority = Authority::create(ClusterId(5)).unwrap();
    let (one, two) = (member(&authority, 1), member(&authority, 2));
    acquaint(&[&one, &two]);
    let (listener, _) = listen(&two.identity).await;
    // What is to be relayed is carried on by the listener itself (`relayed.rs`).
    for purpose in Purpose::ALL.into_iter().filter(|p| *p != Purpose::Relay) {
        let dialled = connect(&one.identity, NodeId(2), listener.address(), purpose, RUN);
        let (dialled, accepted) = tokio::join!(dialled, listener.accept());
        assert_eq!((accepted.node, accepted.purpose, accepted.incarnation), (NodeId(1), purpose, RUN));
        let mut writer = FrameWriter::new(dialled.unwrap());
        let payload = bytes::Bytes::from(vec![7; 3 << 20]);
        let mut reader = FrameReader::new(accepted.stream);
        writer.queue(bytes::Bytes::from_static(b"head"), vec![payload.clone(), payload.clone()]).unwrap();
        writer.queue(bytes::Bytes::new(), vec![]).unwrap();
        let (flushed, first) = tokio::join!(writer.flush(), reader.read());
        flushed.unwrap();
        let first = first.unwrap().unwrap();
        assert_eq!((first.header.as_ref(), first.payload.len()), (&b"head"[..], 6 << 20));
        assert_eq!(reader.read().await.unwrap().unwrap(), holdfast_net::Frame::default());
    }
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_on_both_sides() {
    // The same cluster id, to be sure that it is the authority's key that counts.
    for other in [ClusterId(6), ClusterId(5)] {
        let two = member(&Authority::create(ClusterId(5)).unwrap(), 2);
        let stranger = member(&Authority::create(other).unwrap(), 1);
        let (listener, refusals) = listen(&two.identity).await;
        let error = dial(&stranger, 2, listener.address()).await.err().unwrap();
        let reason = PeerMismatch::OtherCluster;
        assert!(matches!(&error, ConnectError::NotThePeer { reason: r, .. } if *r == reason), "{error:?}");
        // A stranger that does not check whom it talks to gets no further.
        let trusting = trusting_stranger(&two, &stranger);
        acquaint(&[&two, &trusting]);
        let error = dial(&trusting, 2, listener.address()).await.err().unwrap();
        let refused_here = matches!(error, ConnectError::PeerRefuses { reason: Rejection::OtherCluster, .. });
        assert!(refused_here, "{error:?}");
        refused(&refusals, Refusal::OtherCluster).await;
    }
}

/// The certificate of `stranger` with the trust of `of`.
fn trusting_stranger(of: &Member, stranger: &Member) -> Member {
    let folder = tempfile::tempdir().unwrap();
    for (from, file) in [(of, "ca.pem"), (stranger, "node.pem"), (stranger, "node.key")] {
        std::fs::copy(from.folder.path().join(file), folder.path().join(file)).unwrap();
    }
    // The authority's cluster and the certificate's differ unless the ids are the same.
    match Identity::load(folder.path()) {
        Ok(identity) => Member { folder, identity },
        Err(holdfast_net::IdentityError::OtherCluster { .. }) => {
            let same = Authority::create(ClusterId(5)).unwrap();
            trusting_stranger(of, &member(&same, 1))
        }
        Err(e) => panic!("{e}"),
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused_on_both_sides() {
    let authority = Authority::create(ClusterId(5)).unwrap();
    let good = member(&authority, 1);
    let old = member_valid(&authority, 2, yesterday());
    acquaint(&[&good, &old]);
    let (listener, _) = listen(&old.identity).await;
    let error = dial(&good, 2, listener.address()).await.err().unwrap();
    assert!(matches!(error, ConnectError::NotThePeer { reason: PeerMismatch::Expired, .. }), "{error:?}");
    let (listener, refusals) = listen(&good.identity).await;
    let error = dial(&old, 1, listener.address()).await.err().unwrap();
    assert!(matches!(error, ConnectError::PeerRefuses { reason: Rejection::Expired, .. }), "{error:?}");
    refused(&refusals, Refusal::Expired).await;
}

#[tokio::test]
async fn a_certificate_of_another_node_is_not_the_peer() {
    let authority = Authority::create(ClusterId(5)).unwrap();
    let (one, three) = (member(&authority, 1), member(&authority, 3));
    let (listener, _) = listen(&three.identity).await;
    let error = dial(&one, 2, listener.address()).await.err().unwrap();
    assert!(matches!(error, ConnectError::NotThePeer { reason: PeerMismatch::OtherNode, .. }), "{error:?}");
}

#[tokio::test]
async fn a_hello_with_another_nodes_name_is_refused() {
    let authority = Authority::create(ClusterId(5)).unwrap();
    let (one, two) = (member(&authority, 1), member(&authority, 2));
    let (listener, refusals) = listen(&two.identity).await;
    // By hand: our own dialler says only what its certificate says.
    let connector = tokio_rustls::TlsConnector::from(one.identity.connector());
    let socket = TcpStream::connect(listener.address()).await.unwrap();
    let name = holdfast_net::name::node_name(ClusterId(5), NodeId(2)).try_into().unwrap();
    let mut stream = connector.connect(name, socket).await.unwrap();
    let hello = holdfast_net::hello::Hello {
        purpose: Purpose::Data,
        node: NodeId(3),
        incarnation: RUN,
        path: holdfast_types::PeerPath::Direct,
    };
    stream.write_all(&hello.encode()).await.unwrap();
    let mut answer = [0; holdfast_net::hello::ANSWER_BYTES];
    stream.read_exact(&mut answer).await.unwrap();
    let answer = holdfast_net::hello::Answer::decode(&answer);
    assert_eq!(answer, Some(holdfast_net::hello::Answer::OtherNode));
    refused(&refusals, Refusal::OtherNode).await;
}

#[tokio::test]
async fn who_makes_a_certificate_with_the_authoritys_key_is_no_member_by_that() {
    let authority = Authority::create(ClusterId(5)).unwrap();
    let (one, two) = (member(&authority, 1), member(&authority, 2));
    acquaint(&[&one, &two]);
    let (listener, refusals) = listen(&two.identity).await;
    // As a member, and as one whose number nobody has.
    for (node, refusal) in [(1, Refusal::OtherKey), (9, Refusal::NotAMember)] {
        let impostor = member(&authority, node);
        impostor.identity.members().set(roster(3, &[&one, &two]));
        for purpose in Purpose::ALL {
            let error = connect(&impostor.identity, NodeId(2), listener.address(), purpose, RUN).await;
            let error = error.err().unwrap();
            let is_told = matches!(error, ConnectError::PeerRefuses { reason: Rejection::NotAMember, .. });
            assert!(is_told, "{error:?}");
        }
        refused(&refusals, refusal).await;
        assert_eq!(refusals.seen()[&refusal].count, Purpose::ALL.len() as u64);
    }
    // Nor is it taken for the member that is dialled.
    let false_two = member(&authority, 2);
    false_two.identity.members().set(roster(3, &[&one, &false_two]));
    let (listener, _) = listen(&false_two.identity).await;
    let error = dial(&one, 2, listener.address()).await.err().unwrap();
    assert!(matches!(error, ConnectError::NotThePeer { reason: PeerMismatch::OtherKey, .. }), "{error:?}");
    dial(&two, 7, listener.address()).await.err().expect("its certificate names another");
}

#[tokio::test]
async fn a_node_that_was_removed_is_heard_only_where_it_can_be_told() {
    let authority = Authority::create(ClusterId(5)).unwrap();
    let (removed, two) = (member(&authority, 1), member(&authority, 2));
    removed.identity.members().set(roster(3, &[&removed, &two]));
    two.identity.members().set(roster(3, &[&two]));
    let (listener, refusals) = listen(&two.identity).await;
    for purpose in Purpose::ALL {
        let dialled = connect(&removed.identity, NodeId(2), listener.address(), purpose, RUN).await;
        assert_eq!(dialled.is_ok(), purpose == Purpose::Control, "{purpose}");
    }
    refused(&refusals, Refusal::NotAMember).await;
}

#[tokio::test]
async fn one_that_joined_while_a_node_was_away_is_let_in_once_that_node_has_asked_around() {
    let authority = Authority::create(ClusterId(5)).unwrap();
    let (two, joined) = (member(&authority, 2), member(&authority, 3));
    two.identity.members().set(roster(3, &[&two]));
    joined.identity.members().set(roster(4, &[&two, &joined]));
    let (listener, refusals) = listen(&two.identity).await;
    let keeper = async {
        two.identity.members().knocked().await;
        two.identity.members().set(roster(4, &[&two, &joined]));
    };
    let (dialled, accepted, ()) =
        tokio::join!(dial(&joined, 2, listener.address()), listener.accept(), keeper);
    dialled.unwrap();
    assert_eq!((accepted.node, refusals.seen().len()), (NodeId(3), 0));
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let authority = Authority::create(ClusterId(5)).unwrap();
    let two = member(&authority, 2);
    let (listener, refusals) = listen(&two.identity).await;
    let config = holdfast_net::CaPin::of(authority.certificate()).client().unwrap();
    let socket = TcpStream::connect(listener.address()).await.unwrap();
    let name = "anything.example".try_into().unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(config).connect(name, socket).await.unwrap();
    assert!(stream.read_u8().await.is_err(), "the server ends it");
    refused(&refusals, Refusal::NoCertificate).await;
}

#[tokio::test]
async fn garbage_and_silence_keep_nobody_out() {
    let authority = Authority::create(ClusterId(5)).unwrap();
    let (one, two) = (member(&authority, 1), member(&authority, 2));
    acquaint(&[&one, &two]);
    let (listener, refusals) = listen(&two.identity).await;
    let mut silent = Vec::new();
    for i in 0..MAX_HANDSHAKES * 2 {
        let mut socket = TcpStream::connect(listener.address()).await.unwrap();
        if i % 2 == 0 {
            socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        }
        silent.push(socket);
    }
    let (dialled, accepted) = tokio::join!(dial(&one, 2, listener.address()), listener.accept());
    dialled.unwrap();
    assert_eq!(accepted.node, NodeId(1));
    refused(&refusals, Refusal::NotHoldfast).await;
}

#[tokio::test]
async fn nobody_listening_and_nobody_answering_are_told_apart() {
    let authority = Authority::create(ClusterId(5)).unwrap();
    let one = member(&authority, 1);
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let error = dial(&one, 2, address).await.err().unwrap();
    assert!(matches!(error, ConnectError::TimedOut { stage: Stage::Handshake, .. }), "{error:?}");
    drop(socket);
    let error = dial(&one, 2, address).await.err().unwrap();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn a_certificate_is_renewed_in_its_last_third_without_a_restart() {
    let authority = Authority::create(ClusterId(5)).unwrap();
    let one = member(&authority, 1);
    let now = SystemTime::now();
    let day = Duration::from_secs(24 * 3600);
    assert!(!one.identity.renew_if_due(now).unwrap());
    assert!(!one.identity.renew_if_due(now + day * 200).unwrap());
    let before = std::fs::read(one.folder.path().join("node.pem")).unwrap();
    assert!(one.identity.renew_if_due(now + day * 300).unwrap());
    assert_ne!(std::fs::read(one.folder.path().join("node.pem")).unwrap(), before);
    // An expired one that is renewed is taken by peers at once.
    let old = member_valid(&authority, 2, yesterday());
    acquaint(&[&one, &old]);
    let (listener, _) = listen(&one.identity).await;
    assert!(dial(&old, 1, listener.address()).await.is_err());
    assert!(old.identity.renew_if_due(now).unwrap());
    dial(&old, 1, listener.address()).await.unwrap();
}

#[test]
fn an_identity_with_a_foreign_key_or_authority_is_refused_by_name() {
    let authority = Authority::create(ClusterId(5)).unwrap();
    let (one, two) = (member(&authority, 1), member(&authority, 2));
    std::fs::copy(two.folder.path().join("node.key"), one.folder.path().join("node.key")).unwrap();
    let error = Identity::load(one.folder.path()).err().unwrap().to_string();
    assert!(error.contains("node.key: this key belongs to another certificate"), "{error}");
    let other = Authority::create(ClusterId(6)).unwrap();
    other.save(two.folder.path()).unwrap();
    let error = Identity::load(two.folder.path()).err().unwrap();
    assert!(matches!(error, holdfast_net::IdentityError::OtherCluster { .. }), "{error}");
    std::fs::write(two.folder.path().join("ca.pem"), "hello").unwrap();
    assert!(Authority::load(two.folder.path()).is_err());
    assert!(Identity::load(two.folder.path()).is_err());
}

#[test]
fn keys_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let one = member(&Authority::create(ClusterId(5)).unwrap(), 1);
    for file in ["ca.key", "node.key"] {
        let mode = std::fs::metadata(one.folder.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn a_public_key_that_is_none_gets_no_certificate() {
    let authority = Authority::create(ClusterId(5)).unwrap();
    for bad in [&[][..], &[4; 64], &[2; 65]] {
        assert!(authority.issue(NodeId(2), bad).is_err());
    }
}
