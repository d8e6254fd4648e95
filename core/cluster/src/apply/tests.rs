//! The table of commands: what each does, what it refuses, and that a repeat gets the same answer.

use crate::*;
use alloc::{format, string::String, vec, vec::Vec};
use holdfast_types::*;
use std::string::ToString;

mod sessions;

fn run(map: &mut ClusterMap, command: Command) -> Result<CommandResult, CommandError> {
    let before = map.clone();
    let answer = apply(map, command.clone());
    if answer.is_err() {
        assert_eq!(*map, before, "a refused command changes nothing: {command:?}");
    }
    if command.is_repeatable() && answer.is_ok() && !matches!(command, Command::GatewayRenewed { .. }) {
        let after = map.clone();
        assert_eq!(apply(map, command.clone()), answer, "a repeat gets the same answer: {command:?}");
        assert_eq!(*map, after, "a repeat changes nothing: {command:?}");
    }
    answer
}

fn ok(map: &mut ClusterMap, command: Command) -> CommandResult {
    run(map, command.clone()).unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

fn refused(map: &mut ClusterMap, command: Command) -> String {
    run(map, command.clone()).err().unwrap_or_else(|| panic!("{command:?} is not refused")).to_string()
}

fn bootstrap(id: u128) -> Command {
    Command::Bootstrap { cluster: ClusterId(id), name: "site".into(), first: new_node("n1", 1) }
}

fn new_node(name: &str, n: u8) -> NewNode {
    NewNode { name: name.into(), address: format!("10.0.0.{n}"), key: KeyHash([n; 32]) }
}

fn started(node: u16, boot_nonce: u64) -> Command {
    Command::NodeStarted { node: NodeId(node), boot_nonce, address: format!("10.0.0.{node}") }
}

fn add_disk(node: u16, gib: u64) -> Command {
    Command::AddDisk {
        disk: DiskId(u128::from(node)),
        node: NodeId(node),
        size: gib << 30,
        path: "/dev/sdb".into(),
        pool: "default".into(),
        boot_nonce: 1,
    }
}

fn create(name: &str, size: u64, copies: u8) -> Command {
    Command::CreateVolume { name: name.into(), size, copies, pool: "default".into(), created: UnixSeconds(5) }
}

/// `nodes` nodes that run, with a 10 GiB disk each.
fn cluster(nodes: u16) -> ClusterMap {
    let mut map = ClusterMap::default();
    ok(&mut map, bootstrap(7));
    for n in 2..=nodes {
        ok(&mut map, Command::AddNode(new_node(&format!("n{n}"), n as u8)));
    }
    for n in 1..=nodes {
        ok(&mut map, started(n, 100 + u64::from(n)));
        ok(&mut map, add_disk(n, 10));
    }
    map
}

fn info(map: &ClusterMap, index: u32) -> SegmentInfo {
    (*map.segments[&SegmentId { volume: VolumeId(1), index }]).clone()
}

fn grant(
    map: &mut ClusterMap,
    owner: u16,
    set: Vec<ReplicaRef>,
    reason: GrantReason,
) -> SegmentCommandResult {
    let info = info(map, 0);
    let command = SegmentCommand::Grant {
        segment: info.key,
        expect: info.granted.epoch,
        owner: NodeId(owner),
        owner_incarnation: map.nodes[&NodeId(owner)].incarnation,
        set,
        reason,
    };
    segment(map, command)
}

fn activate(map: &mut ClusterMap) -> SegmentCommandResult {
    let info = info(map, 0);
    let epoch = info.granted.epoch;
    let tail = LogPosition::new(epoch, info.active.tail.lsn.next());
    segment(map, SegmentCommand::Activated { segment: info.key, epoch, tail })
}

fn segment(map: &mut ClusterMap, command: SegmentCommand) -> SegmentCommandResult {
    match ok(map, Command::Segment(command)) {
        CommandResult::Segment(result) => result,
        other => panic!("{other:?}"),
    }
}

const DONE: SegmentCommandResult = SegmentCommandResult::Done;
const REFUSED: SegmentCommandResult = SegmentCommandResult::Refused;

#[test]
fn nothing_works_before_bootstrap_and_bootstrap_works_once() {
    let mut map = ClusterMap::default();
    assert_eq!(run(&mut map, started(1, 1)), Err(CommandError::NotBootstrapped));
    assert_eq!(ok(&mut map, bootstrap(7)), CommandResult::Node(NodeId(1)));
    assert_eq!(map.version, 1);
    assert_eq!(run(&mut map, bootstrap(8)), Err(CommandError::AlreadyBootstrapped { have: ClusterId(7) }));
    assert!(map.pools.contains_key("default"));
}

#[test]
fn names_are_checked_and_the_message_says_what_is_allowed() {
    let mut map = cluster(1);
    let long = "x".repeat(300);
    let table = [
        ("", "it is empty; 1 to 63 characters are allowed"),
        ("Demo", "'D' is in it; a to z, 0 to 9 and '-' are allowed"),
        ("a/b", "'/' is in it"),
        (long.as_str(), "it has 300 characters; 1 to 63 are allowed"),
    ];
    for (name, why) in table {
        let said = refused(&mut map, create(name, 4096, 1));
        assert!(said.contains(why), "{said}");
        assert!(said.len() < 200, "{said}");
    }
}

#[test]
fn each_start_of_a_node_is_a_new_run_and_a_late_word_about_an_old_one_is_void() {
    let mut map = cluster(1);
    let run_of = |n| CommandResult::Incarnation(ProcessIncarnation(n));
    assert_eq!(ok(&mut map, started(1, 9)), run_of(2));
    let late = Command::NodeDown { node: NodeId(1), incarnation: ProcessIncarnation(1) };
    assert!(refused(&mut map, late).contains("run 2"));
    assert_eq!(map.nodes[&NodeId(1)].state, NodeState::Up);
    let incarnation = ProcessIncarnation(2);
    ok(&mut map, Command::NodeStopping { node: NodeId(1), incarnation });
    ok(&mut map, Command::NodeUp { node: NodeId(1), incarnation });
    assert_eq!(map.nodes[&NodeId(1)].state, NodeState::Stopping, "answering is not staying");
    assert_eq!(ok(&mut map, Command::GatewayRenewed { node: NodeId(1), incarnation }), run_of(3));
    assert_eq!(ok(&mut map, started(1, 10)), run_of(4), "a gateway's number is not given to a daemon again");
}

#[test]
fn a_disk_that_does_not_know_its_last_opening_is_a_new_incarnation_and_in_no_set() {
    let mut map = cluster(3);
    ok(&mut map, create("demo", 1 << 30, 3));
    let disk = DiskId(2);
    let opened = |expect_nonce, new_nonce| Command::DiskOpened { disk, expect_nonce, new_nonce };
    let incarnation = |n| CommandResult::DiskIncarnation(DiskIncarnation(n));
    assert_eq!(ok(&mut map, opened(1, 50)), incarnation(1));
    // A copy of the disk from before that opening.
    assert_eq!(ok(&mut map, opened(1, 60)), incarnation(2));
    let info = info(&map, 0);
    let now = ReplicaRef { node: NodeId(2), disk, incarnation: DiskIncarnation(2) };
    assert!(info.members.contains(&now), "it is a member, to be resynced");
    assert!(!info.active.set.contains(&now) && !info.granted.set.contains(&now));
    assert!(info.active.set.iter().all(|r| r.disk != disk || !map.reachable(r)), "its old copy is lost");
}

#[test]
fn a_failed_disk_comes_back_only_in_a_new_incarnation() {
    let mut map = cluster(1);
    let (disk, incarnation) = (DiskId(1), DiskIncarnation(1));
    ok(&mut map, Command::DiskFailed { disk, incarnation });
    ok(&mut map, Command::DiskMissing { disk, incarnation });
    ok(&mut map, Command::DiskFree { disk, size: 10 << 30, free: 1 << 30 });
    assert_eq!(map.disks[&disk].state, DiskState::Failed);
    let opened = Command::DiskOpened { disk, expect_nonce: 1, new_nonce: 2 };
    assert_eq!(ok(&mut map, opened), CommandResult::DiskIncarnation(DiskIncarnation(2)));
    assert_eq!(map.disks[&disk].state, DiskState::Ok);
    let again = Command::NewDiskIncarnation { disk, expect: DiskIncarnation(2), boot_nonce: 3 };
    assert_eq!(ok(&mut map, again), CommandResult::DiskIncarnation(DiskIncarnation(3)));
    let stale = Command::NewDiskIncarnation { disk, expect: DiskIncarnation(1), boot_nonce: 4 };
    assert!(refused(&mut map, stale).contains("incarnation 3, not 1"));
}

#[test]
fn what_is_on_a_silent_disk_is_there_and_cannot_be_reached() {
    let mut map = cluster(3);
    ok(&mut map, create("demo", 1 << 30, 3));
    let (disk, incarnation) = (DiskId(1), DiskIncarnation(1));
    let says = |silent| Command::DiskSilent { disk, incarnation, silent };
    ok(&mut map, says(true));
    let copy = ReplicaRef { node: NodeId(1), disk, incarnation };
    assert!(map.intact(&copy) && !map.reachable(&copy));
    assert!(refused(&mut map, create("other", 1 << 30, 3)).contains("there are 2"));
    // How much room it has does not make it answer.
    ok(&mut map, Command::DiskFree { disk, size: 10 << 30, free: 0 });
    assert_eq!(map.disks[&disk].state, DiskState::Silent);
    ok(&mut map, says(false));
    assert_eq!(map.disks[&disk].state, DiskState::Full);
    assert!(map.reachable(&copy));
    ok(&mut map, Command::DiskMissing { disk, incarnation });
    ok(&mut map, says(true));
    ok(&mut map, says(false));
    assert_eq!(map.disks[&disk].state, DiskState::Missing, "that is another trouble");
}

#[test]
fn a_slow_disk_serves_and_counts_as_slow_where_others_are_not() {
    let mut map = cluster(3);
    let incarnation = DiskIncarnation(1);
    let says = |disk, slow| Command::DiskSlow { disk: DiskId(disk), incarnation, slow };
    let slow = |map: &ClusterMap| (1..=3).filter(|d| map.is_slow(DiskId(*d))).collect::<Vec<_>>();
    ok(&mut map, says(1, true));
    assert_eq!(slow(&map), [1]);
    ok(&mut map, create("demo", 1 << 30, 3));
    assert_eq!(info(&map, 0).granted.set.len(), 3);
    assert_ne!(info(&map, 0).granted.owner, NodeId(1));
    ok(&mut map, says(2, true));
    assert_eq!(slow(&map), [0u128; 0], "most are: no place is better");
    ok(&mut map, Command::DiskMissing { disk: DiskId(2), incarnation });
    assert_eq!(slow(&map), [1], "one of two that serve");
    ok(&mut map, says(1, false));
    ok(&mut map, says(2, true));
    assert_eq!(slow(&map), [0u128; 0], "it does not serve");
    ok(&mut map, Command::NewDiskIncarnation { disk: DiskId(2), expect: incarnation, boot_nonce: 3 });
    assert_eq!((slow(&map), map.disks[&DiskId(2)].slow), (vec![], false), "that was another device, perhaps");
    assert!(refused(&mut map, says(2, true)).contains("incarnation 2, not 1"));
}

#[test]
fn a_disk_that_runs_full_takes_no_new_segments() {
    let mut map = cluster(2);
    ok(&mut map, Command::DiskFree { disk: DiskId(1), size: 10 << 30, free: 1000 });
    assert_eq!(map.disks[&DiskId(1)].state, DiskState::Full);
    let said = refused(&mut map, create("demo", 1 << 30, 2));
    assert!(said.contains("2 copies need 2 nodes") && said.contains("there are 1"), "{said}");
    ok(&mut map, Command::DiskFree { disk: DiskId(1), size: 20 << 30, free: 10 << 30 });
    ok(&mut map, create("demo", 1 << 30, 2));
}

#[test]
fn a_volume_gets_segments_spread_over_disks_and_owners_in_the_first_epoch() {
    let mut map = cluster(3);
    assert_eq!(ok(&mut map, create("demo", 4 << 30, 3)), CommandResult::Volume(VolumeId(1)));
    let owners: Vec<u16> = map.segments.values().map(|s| s.granted.owner.0).collect();
    assert_eq!(owners, [1, 2, 3, 1]);
    let first = info(&map, 0);
    assert_eq!((first.active.epoch, first.granted.epoch), (Epoch(0), Epoch(1)));
    assert_eq!(first.active.set, first.members);
    assert_eq!(first.granted.set, first.members);
    assert_eq!(first.min_copies, 2);
    ok(&mut map, create("odd", (1 << 30) + 4096, 1));
    assert_eq!(map.segments_of(VolumeId(2)).count(), 2);
    assert_ne!(map.volumes[&VolumeId(1)].unique_id, map.volumes[&VolumeId(2)].unique_id);
    assert_eq!(map.exports().volumes["odd"].size, (1 << 30) + 4096);
}

#[test]
fn volumes_that_cannot_be_are_refused_with_the_numbers() {
    let mut map = cluster(3);
    ok(&mut map, create("demo", 1 << 30, 3));
    let table = [
        (create("demo", 4096, 1), "there is a volume named 'demo' already"),
        (create("v", 0, 1), "the size 0 is not allowed"),
        (create("v", 4095, 1), "a multiple of 4096 bytes"),
        (create("v", 1 << 60, 1), "at most 70368744177664"),
        (create("v", 4096, 0), "0 copies are not possible: choose 1 to 5"),
        (create("v", 4096, 9), "9 copies are not possible"),
        (
            create("v", 4096, 4),
            "4 copies need 4 nodes with a disk in pool 'default' that has room; there are 3",
        ),
        (
            create("v", 1 << 40, 3),
            "1099511627776 bytes asked, 1073741824 in use, 107374182400 at most with 3 copies",
        ),
    ];
    for (command, why) in table {
        let said = refused(&mut map, command);
        assert!(said.contains(why), "{said}");
    }
    let no_pool = Command::CreateVolume {
        name: "v".into(),
        size: 4096,
        copies: 1,
        pool: "x".into(),
        created: UnixSeconds(0),
    };
    assert_eq!(refused(&mut map, no_pool), "there is no pool named 'x'");
}

#[test]
fn a_volume_is_refused_while_a_write_quorum_of_its_nodes_is_down() {
    let mut map = cluster(3);
    ok(&mut map, Command::NodeDown { node: NodeId(2), incarnation: ProcessIncarnation(1) });
    ok(&mut map, create("demo", 1 << 30, 3));
    ok(&mut map, Command::NodeDown { node: NodeId(3), incarnation: ProcessIncarnation(1) });
    assert!(refused(&mut map, create("two", 1 << 30, 3)).contains("(1 of them up, 2 must be)"));
}

#[test]
fn a_volume_grows_and_does_not_shrink() {
    let mut map = cluster(3);
    ok(&mut map, create("demo", 1 << 30, 3));
    let resize = |size| Command::ResizeVolume { volume: VolumeId(1), size };
    ok(&mut map, resize(3 << 30));
    assert_eq!(map.segments_of(VolumeId(1)).map(|s| s.key.segment.index).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(refused(&mut map, resize(2 << 30)).contains("it cannot shrink to 2147483648"));
    assert!(refused(&mut map, resize(50 << 40)).contains("too large for pool 'default'"));
    assert!(
        refused(&mut map, Command::ResizeVolume { volume: VolumeId(9), size: 4096 }).contains("no volume 9")
    );
}

#[test]
fn a_deleted_volume_leaves_tombstones_until_every_copy_is_freed_and_its_id_is_not_reused() {
    let mut map = cluster(2);
    ok(&mut map, create("demo", 1 << 30, 2));
    let key = info(&map, 0).key;
    let freed = |disk| Command::SegmentFreed { segment: key, disk: DiskId(disk) };
    assert!(refused(&mut map, freed(1)).contains("is not being deleted"));
    ok(&mut map, Command::DeleteVolume { volume: VolumeId(1) });
    assert!(map.segments.is_empty());
    assert_eq!(map.tombstones[&key].copies.len(), 2);
    ok(&mut map, freed(1));
    assert_eq!(map.tombstones[&key].copies.len(), 1);
    ok(&mut map, freed(2));
    assert!(map.tombstones.is_empty());
    assert_eq!(ok(&mut map, create("demo", 1 << 30, 2)), CommandResult::Volume(VolumeId(2)));
}

#[test]
fn a_grant_is_a_compare_and_set_and_an_activation_too() {
    let mut map = cluster(3);
    ok(&mut map, create("demo", 1 << 30, 3));
    let all = info(&map, 0).members;
    assert_eq!(activate(&mut map), DONE);
    assert_eq!(info(&map, 0).active.epoch, Epoch(1));
    assert_eq!(grant(&mut map, 2, all.clone(), GrantReason::Takeover), DONE);
    let key = info(&map, 0).key;
    let stale = SegmentCommand::Grant {
        segment: key,
        expect: Epoch(1),
        owner: NodeId(3),
        owner_incarnation: ProcessIncarnation(1),
        set: all,
        reason: GrantReason::Takeover,
    };
    assert_eq!(segment(&mut map, stale), SegmentCommandResult::Stale { granted: Epoch(2) });
    let late = |epoch, lsn| SegmentCommand::Activated {
        segment: key,
        epoch: Epoch(epoch),
        tail: LogPosition::new(Epoch(epoch), Lsn(lsn)),
    };
    assert_eq!(segment(&mut map, late(1, 1)), SegmentCommandResult::Stale { granted: Epoch(2) });
    assert_eq!(segment(&mut map, late(2, 1)), REFUSED, "its START would overwrite the last one");
    assert_eq!(segment(&mut map, late(2, 2)), DONE);
    assert_eq!(segment(&mut map, late(2, 3)), REFUSED, "one epoch starts once");
}

#[test]
fn a_takeover_never_adds_and_only_the_active_owner_adds_a_resynced_member() {
    let mut map = cluster(3);
    ok(&mut map, create("demo", 1 << 30, 3));
    let all = info(&map, 0).members;
    let two = vec![all[0], all[1]];
    assert_eq!(activate(&mut map), DONE);
    let stranger = ReplicaRef { node: NodeId(3), disk: DiskId(99), incarnation: DiskIncarnation(1) };
    assert_eq!(grant(&mut map, 1, vec![], GrantReason::Takeover), REFUSED);
    assert_eq!(
        grant(&mut map, 3, two.clone(), GrantReason::Takeover),
        REFUSED,
        "the owner has no copy in it"
    );
    assert_eq!(grant(&mut map, 1, vec![all[0], all[0]], GrantReason::Takeover), REFUSED);
    assert_eq!(grant(&mut map, 1, vec![all[0], stranger], GrantReason::Add), REFUSED);
    assert_eq!(grant(&mut map, 1, two.clone(), GrantReason::Drop), DONE);
    assert_eq!(grant(&mut map, 1, all.clone(), GrantReason::Add), REFUSED, "all of it is in active.S still");
    assert_eq!(activate(&mut map), DONE);
    assert_eq!(grant(&mut map, 1, all.clone(), GrantReason::Takeover), REFUSED, "a takeover never adds");
    assert_eq!(grant(&mut map, 1, two.clone(), GrantReason::Takeover), DONE);
    assert_eq!(
        grant(&mut map, 1, all.clone(), GrantReason::Add),
        REFUSED,
        "only an active owner has resynced"
    );
    assert_eq!(activate(&mut map), DONE);
    assert_eq!(grant(&mut map, 2, all.clone(), GrantReason::Add), REFUSED, "the owner stays the owner");
    assert_eq!(grant(&mut map, 1, all.clone(), GrantReason::Add), DONE);
    assert_eq!(activate(&mut map), DONE);
    assert_eq!(grant(&mut map, 2, two, GrantReason::FollowIo), REFUSED, "following changes no set");
    assert_eq!(grant(&mut map, 2, all, GrantReason::FollowIo), DONE);
}

#[test]
fn a_grant_to_an_ended_run_of_a_daemon_is_refused() {
    let mut map = cluster(3);
    ok(&mut map, create("demo", 1 << 30, 3));
    ok(&mut map, started(2, 999));
    let info = info(&map, 0);
    let command = SegmentCommand::Grant {
        segment: info.key,
        expect: Epoch(1),
        owner: NodeId(2),
        owner_incarnation: ProcessIncarnation(1),
        set: info.members,
        reason: GrantReason::Takeover,
    };
    assert_eq!(segment(&mut map, command), REFUSED);
}

#[test]
fn a_token_admits_one_node_once() {
    let mut map = cluster(1);
    let hash = TokenHash([3; 32]);
    let spend = |now, name: &str| Command::UseToken { hash, now: UnixSeconds(now), node: new_node(name, 2) };
    assert_eq!(run(&mut map, spend(0, "n2")), Err(CommandError::NoSuchToken));
    ok(&mut map, Command::CreateToken { hash, expires: UnixSeconds(100) });
    assert_eq!(run(&mut map, spend(100, "n2")), Err(CommandError::TokenExpired));
    assert!(refused(&mut map, spend(99, "n1")).contains("there is a node named 'n1' already"));
    assert_eq!(ok(&mut map, spend(99, "n2")), CommandResult::Node(NodeId(2)));
    assert_eq!(run(&mut map, spend(99, "n3")), Err(CommandError::TokenUsed { by: NodeId(2) }));
    assert_eq!(ok(&mut map, spend(99, "n2")), CommandResult::Node(NodeId(2)), "the answer was lost");
    // A join that is tried again has a key of its own. A node that has run is not taken over that way.
    let again = |n| Command::UseToken {
        hash,
        now: UnixSeconds(99),
        node: NewNode { key: KeyHash([n; 32]), ..new_node("n2", 2) },
    };
    assert_eq!(ok(&mut map, again(10)), CommandResult::Node(NodeId(2)));
    assert_eq!(map.nodes[&NodeId(2)].key, KeyHash([10; 32]));
    ok(&mut map, started(2, 1));
    assert_eq!(ok(&mut map, again(10)), CommandResult::Node(NodeId(2)));
    assert_eq!(run(&mut map, again(11)), Err(CommandError::TokenUsed { by: NodeId(2) }));
    assert_eq!(map.nodes[&NodeId(2)].key, KeyHash([10; 32]));
}

#[test]
fn an_admin_token_that_is_replaced_takes_the_join_tokens_with_it_that_are_open() {
    let mut map = cluster(1);
    let [spent, open, admin] = [1, 2, 3].map(|n| TokenHash([n; 32]));
    for hash in [spent, open] {
        ok(&mut map, Command::CreateToken { hash, expires: UnixSeconds(100) });
    }
    let join = |hash, n| Command::UseToken { hash, now: UnixSeconds(1), node: new_node(&format!("n{n}"), n) };
    ok(&mut map, join(spent, 2));
    ok(&mut map, Command::RotateAdminToken { hash: admin });
    assert_eq!(map.admin_token, Some(admin));
    assert_eq!(run(&mut map, join(open, 3)), Err(CommandError::NoSuchToken));
    assert_eq!(ok(&mut map, join(spent, 2)), CommandResult::Node(NodeId(2)), "its answer may have been lost");
}

#[test]
fn a_batch_succeeds_command_by_command() {
    let mut map = cluster(1);
    let started =
        |node, boot_nonce| Single::NodeStarted { node: NodeId(node), boot_nonce, address: "10.0.0.1".into() };
    let batch = Command::Batch(vec![started(1, 5), started(9, 5)]);
    let CommandResult::Batch(results) = ok(&mut map, batch) else { panic!("a batch answers as one") };
    assert_eq!(results[0], Ok(SingleResult::Incarnation(ProcessIncarnation(2))));
    assert_eq!(results[1], Err(CommandError::NoSuchNode(NodeId(9))));
}

fn down(map: &mut ClusterMap, node: NodeId) {
    let incarnation = map.nodes[&node].incarnation;
    ok(map, Command::NodeDown { node, incarnation });
}

#[test]
fn a_node_that_answers_or_has_copies_stays_and_another_goes_with_its_disks_for_good() {
    let mut map = cluster(3);
    ok(&mut map, create("demo", 1 << 30, 2));
    let members = info(&map, 0).members;
    let busy = members[0].node;
    let idle =
        (1..=3).map(NodeId).find(|n| members.iter().all(|m| m.node != *n)).expect("three nodes, two copies");
    assert_eq!(
        run(&mut map, Command::RemoveNode { node: idle }),
        Err(CommandError::NodeAnswers { node: idle })
    );
    down(&mut map, busy);
    assert!(refused(&mut map, Command::RemoveNode { node: busy }).contains("still carries 1 copies"));
    down(&mut map, idle);
    assert!(!map.was_removed(idle));
    ok(&mut map, Command::RemoveNode { node: idle });
    assert!(map.was_removed(idle) && map.disks_of(idle).next().is_none());
    // Neither its daemon nor its disk comes back by itself, and its number is given to nobody.
    assert_eq!(run(&mut map, started(idle.0, 9)), Err(CommandError::NoSuchNode(idle)));
    let disk = DiskId(u128::from(idle.0));
    let opened = Command::DiskOpened { disk, expect_nonce: 1, new_nonce: 2 };
    assert_eq!(run(&mut map, opened), Err(CommandError::NoSuchDisk(disk)));
    assert_eq!(ok(&mut map, Command::AddNode(new_node("new", 9))), CommandResult::Node(NodeId(4)));
    let never = NodeId(5);
    assert_eq!(run(&mut map, Command::RemoveNode { node: never }), Err(CommandError::NoSuchNode(never)));
    assert!(!map.was_removed(never));
}

#[test]
fn a_disk_that_serves_or_has_copies_stays_and_a_lost_one_without_goes() {
    let mut map = cluster(3);
    ok(&mut map, create("demo", 1 << 30, 2));
    let members = info(&map, 0).members;
    let (busy, incarnation) = (members[1].disk, DiskIncarnation(1));
    let idle = (1..=3).map(DiskId).find(|d| members.iter().all(|m| m.disk != *d)).expect("it has no copy");
    let remove = |disk| Command::RemoveDisk { disk };
    assert_eq!(run(&mut map, remove(idle)), Err(CommandError::DiskServes { disk: idle }));
    ok(&mut map, Command::DiskMissing { disk: busy, incarnation });
    assert!(refused(&mut map, remove(busy)).contains("still carries 1 copies"));
    ok(&mut map, Command::DiskMissing { disk: idle, incarnation });
    ok(&mut map, remove(idle));
    assert_eq!(run(&mut map, remove(idle)), Err(CommandError::NoSuchDisk(idle)));
    // What a deleted volume left on a disk that is gone is not waited for.
    ok(&mut map, Command::DeleteVolume { volume: VolumeId(1) });
    assert!(map.tombstones.values().any(|t| t.copies.iter().any(|c| c.disk == busy)));
    ok(&mut map, remove(busy));
    assert!(!map.tombstones.values().any(|t| t.copies.iter().any(|c| c.disk == busy)));
    // The disk of a node that is away goes as well: it may be gone with its host.
    let last = DiskId(u128::from(members[0].node.0));
    down(&mut map, members[0].node);
    ok(&mut map, remove(last));
    assert!(map.disks.is_empty() && map.tombstones.is_empty());
}

#[test]
fn chap_secrets_are_bounded_and_never_printed() {
    let mut map = cluster(1);
    let chap =
        |secret: &str| Command::SetChap { chap: Some(Chap { user: "u".into(), secret: secret.into() }) };
    assert!(refused(&mut map, chap("short")).contains("12 to 255 are allowed"));
    ok(&mut map, chap("a-long-enough-secret"));
    assert!(!format!("{map:?}").contains("long-enough"));
}

#[test]
fn the_map_survives_being_written_and_read() {
    let mut map = cluster(3);
    ok(&mut map, create("demo", 4 << 30, 3));
    let bytes = postcard::to_allocvec(&map).expect("it can be written");
    assert_eq!(postcard::from_bytes::<ClusterMap>(&bytes), Ok(map));
}

#[test]
fn a_node_that_was_asked_to_stop_is_stopped_and_not_missing_until_it_starts_again() {
    let mut map = cluster(3);
    let incarnation = ProcessIncarnation(1);
    let node = NodeId(2);
    ok(&mut map, Command::NodeStopping { node, incarnation });
    ok(&mut map, Command::NodeDown { node, incarnation });
    assert_eq!(map.nodes[&node].state, NodeState::Stopped);
    // It still answers for a moment; the failure detector notices later that it does not.
    ok(&mut map, Command::NodeUp { node, incarnation });
    ok(&mut map, Command::NodeDown { node, incarnation });
    assert_eq!(map.nodes[&node].state, NodeState::Stopped);
    ok(&mut map, started(2, 77));
    assert_eq!(map.nodes[&node].state, NodeState::Up);
}
