//! Connections through a third node: real ends over TCP, in one process.

use holdfast_net::connect::{ConnectError, PeerMismatch};
use holdfast_net::{
    Authority, Dialled, FrameReader, FrameWriter, Identity, Listener, Purpose, Refusals, Roster, Route, dial,
    dial_relayed, outdated,
};
use holdfast_types::{ClusterId, NodeId, PeerPath};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tempfile::TempDir;

struct Node {
    identity: Identity,
    listener: Listener,
    _folder: TempDir,
}

/// Nodes of one cluster, each listening, of which each knows the others at these addresses.
async fn cluster(count: u16) -> Vec<Node> {
    let authority = Authority::create(ClusterId(5)).unwrap();
    let mut nodes = Vec::new();
    for n in 1..=count {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::create(folder.path(), &authority, NodeId(n)).unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(address, &identity, &Refusals::default()).await.unwrap();
        nodes.push(Node { identity, listener, _folder: folder });
    }
    let addresses = nodes.iter().map(|n| (n.identity.node(), n.listener.address())).collect();
    for node in &nodes {
        know(node, &nodes, &addresses);
    }
    nodes
}

/// What `node` knows of the others from now on.
fn know(node: &Node, nodes: &[Node], addresses: &BTreeMap<NodeId, SocketAddr>) {
    let member = |n: &Node| {
        let address = addresses.get(&n.identity.node())?.to_string();
        Some((n.identity.node(), holdfast_net::Member { address, key: n.identity.key() }))
    };
    let members = nodes.iter().filter_map(member).collect();
    node.identity.members().set(Roster { version: 1, next_node: 9, members });
}

#[tokio::test]
async fn a_third_node_carries_what_two_say_to_one_another() {
    let nodes = cluster(3).await;
    let [one, two, three] = &nodes[..] else { unreachable!() };
    let dialled = dial_relayed(&one.identity, NodeId(2), two.listener.address(), Purpose::Control);
    let (dialled, accepted) = tokio::join!(dialled, two.listener.accept());
    assert_eq!((accepted.node, accepted.purpose), (NodeId(1), Purpose::Control));
    assert_eq!(accepted.path, PeerPath::Relayed);
    assert_eq!((one.identity.paths().relays(), three.identity.paths().relays()), (0, 1));
    // Both ways, and more than any buffer on the way holds.
    let payload = bytes::Bytes::from((0..3 << 20).map(|i| ((i * 7) >> 3) as u8).collect::<Vec<u8>>());
    let dialled = dialled.unwrap();
    assert_eq!(dialled.route.relay, Some(NodeId(3)));
    let (read_one, write_one) = dialled.stream.into_split();
    let (read_two, write_two) = accepted.stream.into_split();
    let say = async |write| {
        let mut writer = FrameWriter::new(write);
        writer.queue(bytes::Bytes::from_static(b"head"), vec![payload.clone()]).unwrap();
        writer.flush().await.unwrap();
        writer
    };
    let hear = async |read| FrameReader::new(read).read().await.unwrap().unwrap();
    let (w1, w2, at_one, at_two) =
        tokio::join!(say(write_one), say(write_two), hear(read_one), hear(read_two));
    assert_eq!((at_one.payload, at_two.payload), (payload.clone(), payload.clone()));
    drop((w1, w2));
    let ended = async {
        while three.identity.paths().relays() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("what ended is not carried any more");
}

#[tokio::test]
async fn a_relay_goes_to_members_only() {
    let nodes = cluster(3).await;
    let [one, two, three] = &nodes[..] else { unreachable!() };
    // The relay knows no node 2.
    let addresses = [one, three].map(|n| (n.identity.node(), n.listener.address())).into();
    know(three, &nodes, &addresses);
    let refused = dial_relayed(&one.identity, NodeId(2), two.listener.address(), Purpose::Control).await;
    assert!(matches!(refused.err().unwrap(), ConnectError::NoRelay { node: NodeId(2), .. }));
    assert_eq!(three.identity.paths().relays(), 0);
}

#[tokio::test]
async fn who_is_reached_through_a_relay_proves_that_it_is_the_one_that_was_meant() {
    let nodes = cluster(4).await;
    let [one, two, three, four] = &nodes[..] else { unreachable!() };
    // The relays, or whoever has the addresses of the network, lead to another member.
    let mut addresses: BTreeMap<NodeId, SocketAddr> =
        nodes.iter().map(|n| (n.identity.node(), n.listener.address())).collect();
    addresses.insert(NodeId(2), four.listener.address());
    know(three, &nodes, &addresses);
    know(four, &nodes, &addresses);
    let result = dial_relayed(&one.identity, NodeId(2), two.listener.address(), Purpose::Control).await;
    let error = result.err().unwrap();
    let reason = PeerMismatch::OtherNode;
    assert!(matches!(&error, ConnectError::NotThePeer { reason: r, .. } if *r == reason), "{error:?}");
}

async fn still_waits(future: &mut (impl Future<Output = ()> + Unpin)) -> bool {
    tokio::time::timeout(Duration::from_millis(50), future).await.is_err()
}

#[tokio::test]
async fn the_way_that_is_known_is_taken_and_another_one_where_that_brings_nothing() {
    let nodes = cluster(3).await;
    let [one, two, _] = &nodes[..] else { unreachable!() };
    let paths = one.identity.paths();
    let at = two.listener.address();
    let taken = async |address: SocketAddr| {
        let Dialled { route, .. } = dial(&one.identity, NodeId(2), address, Purpose::Control).await.unwrap();
        route.path()
    };
    // Somebody takes them.
    let accept = async {
        loop {
            drop(two.listener.accept().await);
        }
    };
    let test = async {
        assert_eq!(taken(at).await, PeerPath::Direct);
        paths.set(NodeId(2), Some(PeerPath::Relayed));
        assert_eq!(taken(at).await, PeerPath::Relayed);
        assert_eq!(paths.relayed(), [NodeId(2)]);
        // Whoever dialled otherwise hears of it.
        let is_outdated = |route| outdated(&one.identity, route, NodeId(2), at, Purpose::Control);
        is_outdated(Route::default()).await;
        // So does who goes through a relay that is not reached any more.
        let mut relayed = std::pin::pin!(is_outdated(Route { relay: Some(NodeId(3)), is_detour: false }));
        assert!(still_waits(&mut relayed).await);
        paths.set(NodeId(3), Some(PeerPath::Direct));
        assert!(still_waits(&mut relayed).await);
        paths.set(NodeId(3), None);
        relayed.await;
        // The kernel takes the connection, and nobody ever says a word.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let nowhere = silent.local_addr().unwrap();
        paths.set(NodeId(2), Some(PeerPath::Direct));
        // It makes a detour, and is counted for as long as it does.
        let dialled = dial(&one.identity, NodeId(2), nowhere, Purpose::Control).await.unwrap();
        assert!(dialled.route.is_detour && dialled.route.path() == PeerPath::Relayed);
        assert!(paths.relayed().is_empty());
        {
            let mut detour = std::pin::pin!(is_outdated(dialled.route));
            assert!(still_waits(&mut detour).await);
            assert_eq!(paths.relayed(), [NodeId(2)]);
        }
        assert!(paths.relayed().is_empty());
        // Where the direct way is free by now, as to a daemon that has just started, it ends soon.
        let detour = is_outdated(Route { relay: Some(NodeId(3)), is_detour: true });
        tokio::time::timeout(Duration::from_secs(1), detour).await.expect("it looks soon");
        // Who is not heard is looked for so as well, and seldom.
        paths.set(NodeId(2), None);
        assert_eq!(taken(nowhere).await, PeerPath::Relayed);
        let again = dial(&one.identity, NodeId(2), nowhere, Purpose::Control).await.err().unwrap();
        assert!(matches!(again, ConnectError::TimedOut { .. }), "{again:?}");
    };
    tokio::select! {
        () = test => {}
        () = accept => {}
    }
}
