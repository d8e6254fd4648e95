//! Random commands, drawn so that many of them apply: no map breaks an invariant (`apply` asserts them in debug
//! builds), epochs and incarnations never fall, active S is only ever a set that was granted, and the planner's
//! grants are always accepted.

use holdfast_cluster::*;
use holdfast_types::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// One step of a history; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Start(u16, u64),
    Down(u16),
    Up(u16),
    Stopping(u16),
    Disk(u16),
    Open(u16, bool),
    Fail(u16),
    Wipe(u16),
    Full(u16, bool),
    Silent(u16, bool),
    Slow(u16, bool),
    Create(u8, u8),
    Grow(u8),
    Delete(u8),
    Grant { segment: u8, owner: u16, mask: u16, reason: u8, late: bool },
    Activate(u8),
    Freed(u8, u16),
    Plan,
    Replace(u8),
    RemoveNode(u16),
    RemoveDisk(u16),
    Session(u8, u16, u8),
    Lost(u16, bool),
    LostDisk(u16, bool),
    Salvage(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 1..=5u16;
    prop_oneof![
        1 => (node.clone(), any::<u64>()).prop_map(|(n, x)| Step::Start(n, x)),
        1 => node.clone().prop_map(Step::Down),
        1 => node.clone().prop_map(Step::Up),
        1 => node.clone().prop_map(Step::Stopping),
        1 => node.clone().prop_map(Step::Disk),
        1 => (node.clone(), any::<bool>()).prop_map(|(n, x)| Step::Open(n, x)),
        1 => node.clone().prop_map(Step::Fail),
        1 => node.clone().prop_map(Step::Wipe),
        1 => (node.clone(), any::<bool>()).prop_map(|(n, x)| Step::Full(n, x)),
        1 => (node.clone(), any::<bool>()).prop_map(|(n, x)| Step::Silent(n, x)),
        1 => (node.clone(), any::<bool>()).prop_map(|(n, x)| Step::Slow(n, x)),
        3 => (0..6u8, 0..6u8).prop_map(|(s, c)| Step::Create(s, c)),
        1 => (0..8u8).prop_map(Step::Grow),
        1 => (0..8u8).prop_map(Step::Delete),
        8 => (any::<u8>(), node.clone(), any::<u16>(), 0..6u8, prop::bool::weighted(0.1)).prop_map(
            |(segment, owner, mask, reason, late)| Step::Grant { segment, owner, mask, reason, late }
        ),
        8 => any::<u8>().prop_map(Step::Activate),
        1 => (any::<u8>(), node.clone()).prop_map(|(s, n)| Step::Freed(s, n)),
        4 => Just(Step::Plan),
        4 => any::<u8>().prop_map(Step::Replace),
        1 => node.clone().prop_map(Step::RemoveNode),
        1 => node.clone().prop_map(Step::RemoveDisk),
        1 => (0..3u8, node.clone(), any::<u8>()).prop_map(|(x, n, s)| Step::Session(x, n, s)),
        1 => (node.clone(), any::<bool>()).prop_map(|(n, accept)| Step::Lost(n, accept)),
        1 => (node, any::<bool>()).prop_map(|(n, accept)| Step::LostDisk(n, accept)),
        1 => (0..8u8).prop_map(Step::Salvage),
    ]
}

fn new_node(n: u16) -> NewNode {
    NewNode { name: format!("n{n}"), address: format!("a{n}"), key: KeyHash([n as u8; 32]) }
}

fn fresh() -> ClusterMap {
    let mut map = ClusterMap::default();
    let first = Single::Bootstrap { cluster: ClusterId(1), name: "c".into(), first: new_node(1) };
    apply(&mut map, first).expect("a new map");
    for n in 2..=5 {
        apply(&mut map, Single::AddNode(new_node(n))).expect("a node");
    }
    for n in 1..=5 {
        for command in [commands(&map, &Step::Start(n, 1)), commands(&map, &Step::Disk(n))].concat() {
            apply(&mut map, command).expect("a node and a disk");
        }
    }
    map
}

fn pick(map: &ClusterMap, n: u8) -> Option<SegmentInfo> {
    let count = map.segments.len();
    map.segments.values().nth(usize::from(n) % count.max(1)).map(|s| (**s).clone())
}

fn volume(map: &ClusterMap, n: u8) -> VolumeId {
    let count = map.volumes.len().max(1);
    map.volumes.keys().nth(usize::from(n) % count).copied().unwrap_or(VolumeId(99))
}

fn commands(map: &ClusterMap, step: &Step) -> Vec<Single> {
    // A node that was removed is spoken of all the same: what comes late is refused.
    let run = |n: u16| map.nodes.get(&NodeId(n)).map_or(ProcessIncarnation(1), |n| n.incarnation);
    let disk = |n: u16| DiskId(u128::from(n));
    let generation = |n: u16| map.disks.get(&disk(n)).map_or(DiskIncarnation(0), |d| d.incarnation);
    let one = match *step {
        Step::Start(n, nonce) => {
            Single::NodeStarted { node: NodeId(n), boot_nonce: nonce, address: format!("a{n}") }
        }
        Step::Down(n) => Single::NodeDown { node: NodeId(n), incarnation: run(n) },
        Step::Up(n) => Single::NodeUp { node: NodeId(n), incarnation: run(n) },
        Step::Stopping(n) => Single::NodeStopping { node: NodeId(n), incarnation: run(n) },
        Step::Disk(n) => Single::AddDisk {
            disk: disk(n),
            node: NodeId(n),
            size: 10 << 30,
            path: "p".into(),
            pool: "default".into(),
            boot_nonce: 1,
        },
        Step::Open(n, knows) => {
            let nonce = map.disks.get(&disk(n)).map_or(0, |d| d.boot_nonce);
            let expect_nonce = if knows { nonce } else { nonce.wrapping_sub(1) };
            Single::DiskOpened { disk: disk(n), expect_nonce, new_nonce: nonce + 1 }
        }
        Step::Fail(n) => Single::DiskFailed { disk: disk(n), incarnation: generation(n) },
        Step::Wipe(n) => Single::NewDiskIncarnation { disk: disk(n), expect: generation(n), boot_nonce: 7 },
        Step::Full(n, full) => {
            Single::DiskFree { disk: disk(n), size: 10 << 30, free: if full { 0 } else { 9 << 30 } }
        }
        Step::Slow(n, slow) => Single::DiskSlow { disk: disk(n), incarnation: generation(n), slow },
        Step::Silent(n, silent) => Single::DiskSilent { disk: disk(n), incarnation: generation(n), silent },
        Step::Create(segments, copies) => Single::CreateVolume {
            name: format!("v{}", map.next_volume),
            size: u64::from(segments) << 30,
            copies,
            pool: "default".into(),
            created: UnixSeconds(0),
        },
        Step::Grow(n) => {
            let id = volume(map, n);
            let size = map.volumes.get(&id).map_or(4096, |v| v.size + (1 << 29));
            Single::ResizeVolume { volume: id, size }
        }
        Step::Delete(n) => Single::DeleteVolume { volume: volume(map, n) },
        Step::Grant { segment, owner, mask, reason, late } => {
            let Some(info) = pick(map, segment) else { return vec![] };
            let all: BTreeSet<_> = info.members.iter().chain(&info.active.set).copied().collect();
            let set =
                all.into_iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1).map(|(_, r)| r).collect();
            let reasons = [
                GrantReason::Takeover,
                GrantReason::Drop,
                GrantReason::Add,
                GrantReason::FollowIo,
                GrantReason::Handover,
                GrantReason::Create,
            ];
            Single::Segment(SegmentCommand::Grant {
                segment: info.key,
                expect: Epoch(info.granted.epoch.0 - u64::from(late)),
                owner: NodeId(owner),
                owner_incarnation: run(owner),
                set,
                reason: reasons[usize::from(reason)],
            })
        }
        Step::Activate(n) => {
            let Some(info) = pick(map, n) else { return vec![] };
            let epoch = info.granted.epoch;
            let tail = LogPosition::new(epoch, info.active.tail.lsn.next());
            Single::Segment(SegmentCommand::Activated { segment: info.key, epoch, tail })
        }
        Step::Freed(n, node) => {
            let count = map.tombstones.len().max(1);
            let Some(key) = map.tombstones.keys().nth(usize::from(n) % count) else { return vec![] };
            Single::SegmentFreed { segment: *key, disk: disk(node) }
        }
        Step::Plan => return plan_grants(map, &BTreeSet::new()).grants,
        // Each command of one plan is for another segment.
        Step::Replace(away) => {
            let away = (1..=5u16).filter(|n| away >> n & 1 == 1).map(NodeId).collect();
            let plan = plan_replacements(map, &GivenUp::at_once(map, away));
            return plan.drops.into_iter().chain(plan.replacements.into_iter().map(|r| r.command)).collect();
        }
        // One that may be registered under the number before.
        Step::RemoveNode(n) => Single::RemoveNode { node: NodeId(n) },
        Step::RemoveDisk(n) => Single::RemoveDisk { disk: disk(n) },
        Step::Lost(n, accept_loss) => Single::NodeLost { node: NodeId(n), accept_loss },
        Step::LostDisk(n, accept_loss) => Single::DiskLost { disk: disk(n), accept_loss },
        Step::Salvage(n) => Single::Salvage { volume: volume(map, n) },
        Step::Session(nexus, n, session) if session % 4 == 3 => {
            let (session, was) = (session - 1, GatewayId { node: NodeId(n), incarnation: run(n) });
            Single::RenewSession {
                nexus: format!("x{nexus}"),
                gateway: GatewayId { incarnation: ProcessIncarnation(was.incarnation.0 + 1), ..was },
                session: SessionId(u64::from(session)),
                volume: volume(map, session),
                was,
            }
        }
        Step::Session(nexus, n, session) => Single::RegisterSession {
            nexus: format!("x{nexus}"),
            gateway: GatewayId { node: NodeId(n), incarnation: run(n) },
            session: SessionId(u64::from(session)),
            volume: volume(map, session),
            seen: map.version.saturating_sub(u64::from(session) % 3),
        },
    };
    vec![one]
}

/// What may never fall or be lost between two maps.
fn compare(before: &ClusterMap, after: &ClusterMap) {
    assert!(after.version >= before.version);
    assert!(after.next_volume >= before.next_volume && after.next_node >= before.next_node);
    for (id, old) in &before.segments {
        let Some(new) = after.segments.get(id) else {
            // I14: nothing is freed without a tombstone.
            assert!(after.tombstones.contains_key(&old.key), "{id} is gone without a tombstone");
            continue;
        };
        for copy in &old.members {
            // Nor is a single copy: it is a member, in whatever incarnation of its disk, or is to be freed.
            let stays = new.members.iter().any(|m| m.disk == copy.disk);
            let tombstone = after.tombstones.get(&old.key);
            let freed = tombstone.is_some_and(|t| t.copies.iter().any(|c| c.disk == copy.disk));
            assert!(stays || freed, "{id}: a copy is gone without a tombstone");
        }
        // I5, as far as control keeps it.
        assert!(new.granted.epoch >= old.granted.epoch, "{id}: the granted epoch fell");
        assert!(new.granted.epoch.0 <= old.granted.epoch.0 + 1, "{id}: an epoch was skipped");
        assert!(
            new.active.epoch >= old.active.epoch && new.active.tail >= old.active.tail,
            "{id}: active fell"
        );
        // I11, and nothing is active that was not granted.
        match new.granted.epoch == old.granted.epoch {
            true => assert_eq!(new.granted, old.granted, "{id}: a grant changed within its epoch"),
            false => assert_eq!(new.active, old.active, "{id}: granted and activated at once"),
        }
        if new.active.epoch != old.active.epoch {
            assert_eq!((new.active.epoch, &new.active.set), (old.granted.epoch, &old.granted.set), "{id}");
        } else {
            assert_eq!(new.active, old.active, "{id}: the active configuration changed within its epoch");
        }
    }
    let carries = |is_such: &dyn Fn(&ReplicaRef) -> bool| {
        let copies = before.segments.values().flat_map(|s| [&s.members, &s.active.set, &s.granted.set]);
        copies.flatten().any(is_such)
    };
    for (id, old) in &before.disks {
        match after.disks.get(id) {
            Some(new) => assert!(new.incarnation >= old.incarnation, "a disk's incarnation fell"),
            None => assert!(!carries(&|copy| copy.disk == *id), "a disk was removed with a copy"),
        }
    }
    for (id, old) in &before.nodes {
        match after.nodes.get(id) {
            Some(new) => assert!(new.incarnation >= old.incarnation, "a node's run fell"),
            None => {
                assert!(!old.state.answers(), "a node was removed that answers");
                assert!(!carries(&|copy| copy.node == *id), "a node was removed with a copy");
            }
        }
    }
}

/// An operator's word is the only thing that cuts S: to what is left of it, where that cannot seal it.
fn compare_after(step: &Step, before: &ClusterMap, after: &ClusterMap) {
    if !matches!(step, Step::Salvage(_)) {
        return compare(before, after);
    }
    for (id, old) in &before.segments {
        let new = &after.segments[id];
        if **new == **old {
            continue;
        }
        assert_eq!(new.members, old.members, "{id}");
        assert_eq!(new.granted.epoch.0, old.granted.epoch.0 + 1, "{id}");
        assert!(new.active.set.len() < seal_quorum(old.active.set.len()), "{id}: cut without need");
        for copy in &old.active.set {
            let disk = after.disks.get(&copy.disk);
            let left =
                disk.is_some_and(|d| d.incarnation == copy.incarnation && d.state != DiskState::Failed);
            assert_eq!(new.active.set.contains(copy), left, "{id}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_history_of_commands_breaks_an_invariant(steps in prop::collection::vec(step(), 1..120)) {
        let mut map = fresh();
        for step in &steps {
            for command in commands(&map, step) {
                let before = map.clone();
                let answer = apply(&mut map, command.clone());
                if answer.is_err() {
                    prop_assert_eq!(&before, &map, "a refused command changed the map");
                }
                if matches!(step, Step::Plan | Step::Replace(_)) {
                    let done = CommandResult::Segment(SegmentCommandResult::Done);
                    prop_assert_eq!(answer, Ok(done), "a planned grant is refused: {:?}", command);
                }
                compare_after(step, &before, &map);
            }
            if matches!(step, Step::Plan) {
                // A plan that was carried out leaves nothing to plan.
                prop_assert_eq!(plan_grants(&map, &BTreeSet::new()).grants, vec![]);
            }
        }
    }

    #[test]
    fn a_map_that_was_recovered_goes_on_as_any_other_and_gives_nothing_out_twice(
        steps in prop::collection::vec(step(), 1..80),
        lost in any::<u8>(),
        later in prop::collection::vec(step(), 1..60),
    ) {
        let mut map = fresh();
        let run = |map: &mut ClusterMap, steps: &[Step]| {
            for step in steps {
                for command in commands(map, step) {
                    let before = map.clone();
                    let _ = apply(map, command);
                    compare_after(step, &before, map);
                }
            }
        };
        run(&mut map, &steps);
        let lost: BTreeSet<NodeId> = (1..=5u16).filter(|n| lost >> n & 1 == 1).map(NodeId).collect();
        let before = map.clone();
        recover(&mut map, &lost);
        for (id, old) in &before.segments {
            let new = &map.segments[id];
            prop_assert!(new.granted.epoch.0 > old.granted.epoch.0 + 1);
            prop_assert_eq!(&new.members, &old.members);
            prop_assert!(new.active.set.iter().all(|copy| old.active.set.contains(copy)));
            let cut = new.active.set.len() < old.active.set.len();
            prop_assert!(!cut || new.active.set.iter().all(|copy| !lost.contains(&copy.node)));
            prop_assert!(!cut || new.active.set.len() < seal_quorum(old.active.set.len()), "cut without need");
        }
        for (id, old) in before.nodes.iter().filter(|(_, n)| n.incarnation.0 > 0) {
            prop_assert!(map.nodes[id].incarnation.0 > old.runs);
        }
        run(&mut map, &later);
    }

    #[test]
    fn two_nodes_that_apply_the_same_commands_have_the_same_map(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let (mut a, mut b) = (fresh(), fresh());
        for step in &steps {
            for command in commands(&a, step) {
                prop_assert_eq!(apply(&mut a, command.clone()), apply(&mut b, command));
            }
        }
        let bytes = |m: &ClusterMap| postcard::to_allocvec(m).expect("it can be written");
        prop_assert_eq!(bytes(&a), bytes(&b));
    }
}
