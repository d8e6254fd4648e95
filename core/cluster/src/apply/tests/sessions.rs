//! Sessions of initiators: which of two logins is the later one, and what it has to fence (replication.md H13).

use super::*;

fn gateway_of(node: u16) -> GatewayId {
    GatewayId { node: NodeId(node), incarnation: ProcessIncarnation(1) }
}

const SESSION: SessionId = SessionId(4);

fn register(node: u16, seen: u64) -> Command {
    let (nexus, gateway) = ("iqn.x".into(), gateway_of(node));
    Command::RegisterSession { nexus, gateway, session: SESSION, volume: VolumeId(1), seen }
}

fn end(node: u16) -> Command {
    let (nexus, gateway) = ("iqn.x".into(), gateway_of(node));
    Command::EndSession { nexus, gateway, session: SESSION, volume: VolumeId(1) }
}

fn fenced(node: u16) -> Command {
    let (nexus, gateway) = ("iqn.x".into(), gateway_of(node));
    Command::SessionFenced { nexus, gateway, session: SESSION, volume: VolumeId(1) }
}

/// A login whose gateway knows the latest map.
fn log_in(map: &mut ClusterMap, node: u16) -> Vec<FenceTarget> {
    let seen = map.version;
    let CommandResult::Fence(targets) = ok(map, register(node, seen)) else {
        panic!("it says what to fence")
    };
    targets
}

fn target(node: u16) -> FenceTarget {
    FenceTarget { gateway: gateway_of(node), session: SESSION }
}

#[test]
fn a_session_is_told_to_fence_its_predecessors_until_it_says_that_it_did() {
    let mut map = cluster(2);
    ok(&mut map, create("demo", 1 << 30, 2));
    assert_eq!(log_in(&mut map, 1), []);
    assert_eq!(log_in(&mut map, 2), [target(1)]);
    assert!(refused(&mut map, fenced(1)).contains("is not the one registered"));
    ok(&mut map, end(2));
    assert_eq!(log_in(&mut map, 1), [target(1), target(2)], "what it did not fence, the next one must");
    ok(&mut map, fenced(1));
    ok(&mut map, end(1));
    assert_eq!(log_in(&mut map, 2), [], "it logged out with nothing under way");
}

#[test]
fn a_login_that_asks_late_does_not_take_the_place_of_a_later_one() {
    let mut map = cluster(2);
    ok(&mut map, create("demo", 1 << 30, 2));
    let seen = map.version;
    // Node 1 is frozen between the login and its registration; the initiator goes to node 2.
    assert_eq!(log_in(&mut map, 2), []);
    assert!(refused(&mut map, register(1, seen)).contains("is not the one registered"));
    // That it logged out there again, or was forgotten since, makes the first login no newer.
    ok(&mut map, end(2));
    assert!(refused(&mut map, register(1, seen)).contains("is not the one registered"));
    map.sessions_forgotten = map.sessions.pop_first().expect("there is one").1.registered;
    assert!(refused(&mut map, register(1, seen)).contains("is not the one registered"));
    assert_eq!(log_in(&mut map, 1), [], "an initiator that logs in anew is newer");
}

/// The session of node 1 under `nexus`, registered under number 1 of its gateway, goes on under number 2.
fn renew(nexus: &str) -> Command {
    let gateway = GatewayId { node: NodeId(1), incarnation: ProcessIncarnation(2) };
    let was = gateway_of(1);
    Command::RenewSession { nexus: nexus.into(), gateway, session: SESSION, volume: VolumeId(1), was }
}

fn log_in_as(map: &mut ClusterMap, nexus: &str, node: u16) {
    let (nexus, gateway, seen) = (nexus.into(), gateway_of(node), map.version);
    let volume = VolumeId(1);
    ok(map, Command::RegisterSession { nexus, gateway, session: SESSION, volume, seen });
}

#[test]
fn a_session_whose_initiator_stayed_goes_on_under_its_gateways_next_number() {
    let mut map = cluster(2);
    ok(&mut map, create("demo", 1 << 30, 2));
    assert!(refused(&mut map, renew("iqn.a,i,0x1")).contains("is not the one registered"));
    log_in_as(&mut map, "iqn.a,i,0x1", 1);
    log_in_as(&mut map, "iqn.b,i,0x1", 2);
    log_in_as(&mut map, "iqn.a,i,0x2", 1);
    assert_eq!(ok(&mut map, renew("iqn.a,i,0x1")), CommandResult::Fence(vec![]));
    let version = map.version;
    assert_eq!(ok(&mut map, renew("iqn.a,i,0x1")), CommandResult::Fence(vec![]), "a repeat");
    assert_eq!(map.version, version);
    // A later login of the nexus fences it under the number that it has now.
    let seen = map.version;
    let (nexus, gateway, volume) = ("iqn.a,i,0x1".into(), gateway_of(2), VolumeId(1));
    let later = Command::RegisterSession { nexus, gateway, session: SESSION, volume, seen };
    let gateway = GatewayId { node: NodeId(1), incarnation: ProcessIncarnation(2) };
    assert_eq!(ok(&mut map, later), CommandResult::Fence(vec![FenceTarget { gateway, session: SESSION }]));
    assert!(refused(&mut map, renew("iqn.a,i,0x1")).contains("is not the one registered"));
}

#[test]
fn a_session_is_not_renewed_once_its_initiator_had_another_path() {
    for ends in [false, true] {
        let mut map = cluster(2);
        ok(&mut map, create("demo", 1 << 30, 2));
        log_in_as(&mut map, "iqn.a,i,0x2", 2);
        log_in_as(&mut map, "iqn.a,i,0x1", 1);
        if ends {
            let (nexus, gateway) = ("iqn.a,i,0x2".into(), gateway_of(2));
            let end = Command::EndSession { nexus, gateway, session: SESSION, volume: VolumeId(1) };
            ok(&mut map, end);
            // So many come and go that the other path is forgotten.
            for n in 0..MAX_ENDED_SESSIONS {
                let nexus = format!("iqn.{n}");
                log_in_as(&mut map, &nexus, 2);
                let (gateway, session, volume) = (gateway_of(2), SESSION, VolumeId(1));
                ok(&mut map, Command::EndSession { nexus, gateway, session, volume });
            }
            assert!(!map.sessions.keys().any(|k| k.nexus == "iqn.a,i,0x2"));
        }
        assert!(refused(&mut map, renew("iqn.a,i,0x1")).contains("is not the one registered"), "{ends}");
    }
}

#[test]
fn a_registration_that_is_repeated_after_it_was_superseded_and_fenced_is_refused() {
    let mut map = cluster(2);
    ok(&mut map, create("demo", 1 << 30, 2));
    let seen = map.version;
    ok(&mut map, register(1, seen));
    assert_eq!(log_in(&mut map, 2), [target(1)]);
    ok(&mut map, fenced(2));
    assert!(refused(&mut map, register(1, seen)).contains("is not the one registered"));
}

#[test]
fn sessions_that_ended_are_remembered_up_to_a_bound() {
    let mut map = cluster(1);
    ok(&mut map, create("demo", 1 << 30, 1));
    let first = map.version + 1;
    for n in 0..MAX_ENDED_SESSIONS + 1 {
        let (nexus, gateway, session, volume) = (format!("iqn.{n}"), gateway_of(1), SESSION, VolumeId(1));
        let seen = map.version;
        ok(&mut map, Command::RegisterSession { nexus: nexus.clone(), gateway, session, volume, seen });
        ok(&mut map, Command::EndSession { nexus, gateway, session, volume });
    }
    assert_eq!(map.sessions.len(), MAX_ENDED_SESSIONS);
    assert_eq!(map.sessions_forgotten, first, "the oldest one");
}

#[test]
fn a_node_that_is_declared_down_loses_its_gateways_number() {
    let mut map = cluster(1);
    let (node, incarnation) = (NodeId(1), ProcessIncarnation(1));
    assert_eq!(map.nodes[&node].runs, 1);
    ok(&mut map, Command::NodeDown { node, incarnation });
    assert_eq!(map.nodes[&node].runs, 2, "a request under number 1 is known to be an old one");
    ok(&mut map, Command::NodeUp { node, incarnation });
    let renewed = ok(&mut map, Command::GatewayRenewed { node, incarnation });
    assert_eq!(renewed, CommandResult::Incarnation(ProcessIncarnation(3)));
}
