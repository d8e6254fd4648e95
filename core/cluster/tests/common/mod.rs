//! A cluster of nodes with a disk each and one volume, and what stands in for its owners.
#![allow(dead_code, reason = "each test file uses its part")]

use holdfast_cluster::*;
use holdfast_types::*;

pub const DONE: SegmentCommandResult = SegmentCommandResult::Done;
pub const REFUSED: SegmentCommandResult = SegmentCommandResult::Refused;

pub fn disk_of(node: u16, nth: u16) -> DiskId {
    DiskId(u128::from(node) * 10 + u128::from(nth))
}

pub fn add_disk(map: &mut ClusterMap, node: u16, nth: u16) {
    let command = Command::AddDisk {
        disk: disk_of(node, nth),
        node: NodeId(node),
        size: 10 << 30,
        path: format!("/dev/sd{nth}"),
        pool: "default".into(),
        boot_nonce: 1,
    };
    apply(map, command).expect("a disk");
}

/// What is said of a node when it is admitted.
pub fn new_node(n: u16) -> NewNode {
    NewNode { name: format!("n{n}"), address: format!("n{n}"), key: KeyHash([n as u8; 32]) }
}

/// `nodes` nodes with one disk each and a volume of `segments` segments, all active.
pub fn cluster(nodes: u16, copies: u8, segments: u64) -> ClusterMap {
    let mut map = ClusterMap::default();
    let name = |n: u16| format!("n{n}");
    let first = Command::Bootstrap { cluster: ClusterId(7), name: "c".into(), first: new_node(1) };
    apply(&mut map, first).expect("a cluster");
    for n in 1..=nodes {
        if n > 1 {
            apply(&mut map, Command::AddNode(new_node(n))).expect("a node");
        }
        let started = Command::NodeStarted { node: NodeId(n), boot_nonce: 5, address: name(n) };
        apply(&mut map, started).expect("it runs");
    }
    for n in 1..=nodes {
        add_disk(&mut map, n, 0);
    }
    let create = Command::CreateVolume {
        name: "demo".into(),
        size: segments << 30,
        copies,
        pool: "default".into(),
        created: UnixSeconds(1),
    };
    apply(&mut map, create).expect("a volume");
    activate(&mut map);
    map
}

/// Stands in for the owners.
pub fn activate(map: &mut ClusterMap) {
    let segments: Vec<_> = map.segments.values().cloned().collect();
    for info in segments.iter().filter(|i| i.active.epoch != i.granted.epoch) {
        let epoch = info.granted.epoch;
        let tail = LogPosition::new(epoch, info.active.tail.lsn.next());
        segment(map, SegmentCommand::Activated { segment: info.key, epoch, tail });
    }
}

pub fn segment(map: &mut ClusterMap, command: SegmentCommand) -> SegmentCommandResult {
    propose(map, Single::Segment(command))
}

pub fn propose(map: &mut ClusterMap, command: Single) -> SegmentCommandResult {
    match apply(map, command).expect("it is a segment's command") {
        CommandResult::Segment(result) => result,
        other => panic!("{other:?}"),
    }
}

pub fn info(map: &ClusterMap, index: u32) -> SegmentInfo {
    (*map.segments[&SegmentId { volume: VolumeId(1), index }]).clone()
}

pub fn down(map: &mut ClusterMap, node: u16) {
    let command = Command::NodeDown { node: NodeId(node), incarnation: ProcessIncarnation(1) };
    apply(map, command).expect("it is down");
}
