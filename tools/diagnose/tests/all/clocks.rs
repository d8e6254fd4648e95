//! Hosts whose clocks differ, put into one order by what both ends of a connection saw.

use crate::common::{put, read};
use holdfast_diagnose::model::Report;

const HALF_PAST: i64 = 10 * 3600 + 30 * 60;

fn stamp(seconds: i64) -> String {
    format!("Mar  3 {:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Two hosts: what each logs, seconds after half past ten, and how far the clock of the second one is ahead.
fn report(ahead: i64, a: &[(i64, String)], b: &[(i64, String)]) -> Report {
    let dir = tempfile::tempdir().expect("a folder");
    for (host, lines, ahead) in [("a", a, 0), ("b", b, ahead)] {
        let mut text = String::new();
        for (at, line) in lines {
            text += &format!("{} {host} {line}\n", stamp(HALF_PAST + at + ahead));
        }
        put(dir.path(), &format!("{host}/var/log/syslog"), text);
    }
    read(dir.path())
}

fn clock(report: &Report) -> &str {
    &report.hosts.iter().find(|h| h.name == "b").expect("it is there").clock
}

fn order(report: &Report) -> Vec<(&str, &str)> {
    let events = ["net.link-down", "disk.full"];
    let facts = report.facts.iter().filter(|f| events.contains(&f.rule.as_str()));
    facts.map(|f| (f.host.as_str(), f.rule.as_str())).collect()
}

const DOWN: &str = "kernel: [99.000001] ens1f0: NIC Link is Down";
const FULL: &str = "app: No space left on device";

/// Both ends of an o2net connection that comes up at these times.
fn o2net(times: &[i64]) -> [Vec<(i64, String)>; 2] {
    let of = |words: &str, peer: &str, number: u32| {
        let line =
            format!("kernel: [500.000001] o2net: {words} node {peer} (num {number}) at 10.0.0.{number}:7777");
        times.iter().map(|t| (*t, line.clone())).collect()
    };
    [of("Accepted connection from", "b", 1), of("Connected to", "a", 0)]
}

#[test]
fn both_ends_of_an_o2net_connection_fit_two_clocks() {
    for ahead in [300, -47, 0] {
        let [mut a, mut b] = o2net(&[0, 600, 900]);
        // The link of a fails first; by b's own clock its disk was full before that.
        a.push((1000, DOWN.into()));
        b.push((1020, FULL.into()));
        let report = report(ahead, &a, &b);
        let said = match ahead {
            0 => "agrees with a within 1 s (3 events)".to_owned(),
            _ => format!("{ahead:+}.0 s against a, from 3 events that both saw; corrected"),
        };
        assert_eq!(clock(&report), said);
        assert_eq!(order(&report), [("a", "net.link-down"), ("b", "disk.full")], "{ahead}");
    }
}

#[test]
fn both_ends_of_a_drbd_handshake_fit_two_clocks() {
    let handshake = |n: usize, swap: bool| {
        let (x, y) = (format!("{:016X}:{:016X}", 0xA0 + n, 4), format!("{:016X}:{:016X}", 0xB0 + n, 4));
        let (own, other) = if swap { (&y, &x) } else { (&x, &y) };
        let line = |who: &str, u: &str| {
            format!(
                "kernel: [77.000001] block drbd0: {who} {u}:0000000000000002:0000000000000001 bits:0 flags:0"
            )
        };
        [line("self", own), line("peer", other)]
    };
    let side = |swap: bool| -> Vec<(i64, String)> {
        (0..3).flat_map(|n| handshake(n, swap).map(|l| (n as i64 * 500, l))).collect()
    };
    let report = report(120, &side(false), &side(true));
    assert_eq!(clock(&report), "+120.0 s against a, from 6 events that both saw; corrected");
}

#[test]
fn ends_that_saw_not_as_many_connections_are_not_paired() {
    // The first one of b stood in a log that is not here: paired one by one, its clock would be 600 s off.
    let [a, _] = o2net(&[0, 600, 1200]);
    let [_, b] = o2net(&[600, 1200]);
    assert_eq!(clock(&report(0, &a, &b)), "not fitted: no event that two hosts saw");
}
