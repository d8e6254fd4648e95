//! The table of takeovers: who is there on the left, what is granted on the right.

use super::*;
use alloc::{format, string::String};
use holdfast_types::{DiskId, DiskIncarnation};

fn copy_of(node: u16) -> ReplicaRef {
    ReplicaRef { node: NodeId(node), disk: DiskId(u128::from(node)), incarnation: DiskIncarnation(1) }
}

/// Copies on nodes 1.. in the states of the letters: u(p), d(own), l(ost), s(topping), (slo)w.
fn copies(states: &str) -> Vec<Copy> {
    let copy = |(i, state): (usize, char)| Copy {
        replica: copy_of(i as u16 + 1),
        intact: state != 'l',
        reachable: matches!(state, 'u' | 's' | 'w'),
        may_own: matches!(state, 'u' | 'w'),
        slow: state == 'w',
    };
    states.chars().enumerate().map(copy).collect()
}

fn active(states: &str, owner: u16, owner_lives: bool) -> Standing {
    let active = copies(states);
    let granted = active.iter().map(|c| c.replica).collect();
    Standing { active, granted, owner: NodeId(owner), owner_lives, activated: true, stuck: false }
}

fn drawn(standing: &Standing) -> String {
    let owned = BTreeMap::from([(NodeId(1), 5), (NodeId(2), 3), (NodeId(3), 1)]);
    match next_grant(standing, &owned) {
        NextGrant::Keep => "keep".into(),
        NextGrant::Wait { reachable, need } => format!("wait {reachable}/{need}"),
        NextGrant::Grant { owner, set, reason } => {
            let set: Vec<String> = set.iter().map(|r| format!("{}", r.node)).collect();
            format!("{reason:?} {owner} {{{}}}", set.join(","))
        }
    }
}

#[test]
fn an_active_segment_is_granted_anew_only_when_its_owner_or_its_quorum_is_gone() {
    let table = [
        ("uuu", 1, true, "keep"),
        ("udu", 1, true, "keep"),
        ("suu", 1, true, "keep"),
        ("udd", 1, true, "wait 1/2"),
        ("duu", 1, false, "Takeover 3 {1,2,3}"),
        ("uuu", 1, false, "Takeover 1 {1,2,3}"),
        ("suu", 1, false, "Takeover 3 {1,2,3}"),
        ("luu", 1, true, "Takeover 3 {2,3}"),
        ("dul", 1, false, "wait 1/2"),
        ("uld", 1, false, "wait 1/2"),
        ("ddu", 1, false, "wait 1/2"),
        ("dus", 1, false, "Takeover 2 {1,2,3}"),
        ("dss", 1, false, "wait 2/2"),
        ("ud", 1, true, "Drop 1 {1}"),
        ("du", 1, false, "Takeover 2 {2}"),
        ("uu", 1, false, "Takeover 1 {1,2}"),
        ("ud", 1, false, "Takeover 1 {1}"),
        ("u", 1, true, "keep"),
        ("u", 1, false, "Takeover 1 {1}"),
        ("d", 1, false, "wait 0/1"),
        ("l", 1, false, "wait 0/1"),
        ("duudu", 1, false, "Takeover 5 {1,2,3,4,5}"),
        ("dudud", 1, false, "wait 2/3"),
        ("wuu", 1, true, "keep"),
        ("wuu", 1, false, "Takeover 3 {1,2,3}"),
        ("duw", 1, false, "Takeover 2 {1,2,3}"),
        ("dww", 1, false, "Takeover 3 {1,2,3}"),
        ("wsd", 1, false, "Takeover 1 {1,2,3}"),
    ];
    for (states, owner, lives, expected) in table {
        assert_eq!(drawn(&active(states, owner, lives)), expected, "{states}, owner {owner} lives {lives}");
    }
}

#[test]
fn a_grant_that_cannot_reach_its_write_quorum_is_replaced_by_one_that_can() {
    let mut standing = active("udu", 1, true);
    standing.activated = false;
    standing.granted = [1, 2].map(copy_of).to_vec();
    assert_eq!(drawn(&standing), "Drop 1 {1,2,3}");
}

#[test]
fn a_grant_that_can_be_activated_is_left_alone_until_it_is_stuck() {
    let mut standing = active("uuu", 1, true);
    standing.activated = false;
    assert_eq!(drawn(&standing), "keep");
    standing.stuck = true;
    assert_eq!(drawn(&standing), "Takeover 2 {1,2,3}");
}

#[test]
fn after_a_stuck_owner_every_node_gets_its_turn() {
    let stuck = |states: &str, owner| {
        let mut standing = active(states, owner, true);
        (standing.activated, standing.stuck) = (false, true);
        drawn(&standing)
    };
    assert_eq!(stuck("uuu", 1), "Takeover 2 {1,2,3}");
    assert_eq!(stuck("uuu", 2), "Takeover 3 {1,2,3}");
    assert_eq!(stuck("uuu", 3), "Takeover 1 {1,2,3}");
    assert_eq!(stuck("udu", 1), "Takeover 3 {1,2,3}");
    assert_eq!(stuck("udu", 3), "Takeover 1 {1,2,3}");
    assert_eq!(stuck("uwd", 1), "Takeover 2 {1,2,3}", "be its disk slow or not");
}

#[test]
fn a_stuck_owner_that_is_the_only_one_is_not_granted_the_same_again() {
    let mut standing = active("u", 1, true);
    standing.activated = false;
    standing.stuck = true;
    assert_eq!(drawn(&standing), "keep");
}

#[test]
fn a_grant_that_adds_a_copy_is_left_to_its_owner() {
    let mut standing = active("uu", 1, true);
    standing.activated = false;
    standing.granted.push(copy_of(3));
    assert_eq!(drawn(&standing), "keep");
}
