//! Which of OCFS2's two reasons reset a host: its disk or its quorum. Both timers run on what may be one fault, so the words of
//! one of them do not settle it; the order and the times do.
//!
//! Promise: with T as the threshold, a host that cannot write its heartbeat is reset 2 x (T - 1) s after its last write, and one
//! that lost its peers 2 x (T + 2) s after it gave up their connection. What fires first has decided; where the evidence allows
//! neither, nothing is said. Source: Linux fs/ocfs2/cluster/heartbeat.h and tcp_internal.h.

use std::collections::BTreeMap;

use holdfast_evidence::civil::MICROS;

use super::Draft;
use crate::facts::{Fact, Proof, fits};
use crate::rules::{Role, Severity};
use crate::words::Said;

/// The threshold where no line tells another.
const THRESHOLD: i64 = 31;
/// What starts the timers lies at most so long before the reset: the longest threshold in use and some.
const BEFORE: i64 = 300 * MICROS;
/// Both lines of one reset stand within this time.
const NEAR: i64 = 120 * MICROS;
/// Stamps in whole seconds, a heartbeat every two.
const SLACK: i64 = 5 * MICROS;

/// The loss of the disk that carries the heartbeat.
const DISK_LOST: [&str; 6] = [
    "iscsi.refused",
    "iscsi.conn-closed",
    "iscsi.ping-timeout",
    "iscsi.no-route",
    "multipath.path-failed",
    "fc.port-lost",
];

/// What is known of one reset.
struct Reset<'a> {
    host: &'a str,
    /// From when on the host was silent, and until when at the latest it was reset.
    at: (i64, i64),
    disk_line: Option<&'a Fact>,
    quorum_line: Option<&'a Fact>,
    threshold: i64,
    disk_lost: Option<&'a Fact>,
    peers_lost: Option<&'a Fact>,
}

/// One fact for each reset of which the two reasons can be told apart.
pub(super) fn decided(facts: &[Fact]) -> Vec<Fact> {
    let fenced = |f: &&Fact| f.rule == "ocfs2.fence-reset";
    let reset = |f: &&Fact| {
        f.rule == "host.reset"
            && !facts.iter().filter(fenced).any(|o| o.host == f.host && near(o, f.start.unwrap_or(0)))
    };
    facts.iter().filter(|f| fenced(f) || reset(f)).filter_map(|f| Reset::of(facts, f)?.judge()).collect()
}

fn near(fact: &Fact, at: i64) -> bool {
    fact.start.is_some_and(|s| (s - at).abs() < NEAR)
}

impl<'a> Reset<'a> {
    fn of(facts: &'a [Fact], fact: &'a Fact) -> Option<Reset<'a>> {
        let start = fact.start?;
        let here = || facts.iter().filter(|f| f.host == fact.host);
        let line = |rule: &str| here().find(|f| f.rule == rule && near(f, start));
        let before = |f: &&Fact| f.start.is_some_and(|s| s <= start && start - s <= BEFORE);
        let disk_line = line("ocfs2.disk-timeout");
        let told = disk_line.and_then(|f| f.fields.get("ms")?.parse::<i64>().ok()).filter(|ms| *ms >= 4000);
        let lost = |f: &&Fact| DISK_LOST.iter().any(|r| fits(r, &f.rule));
        Some(Reset {
            host: &fact.host,
            at: (start, if fact.rule == "host.reset" { fact.end? } else { start }),
            disk_line,
            quorum_line: line("ocfs2.quorum-fence"),
            threshold: told.map_or(THRESHOLD, |ms| ms / 2000 + 1),
            disk_lost: here().filter(before).filter(lost).min_by_key(|f| f.start),
            peers_lost: here().filter(before).filter(|f| f.rule == "ocfs2.idle").min_by_key(|f| f.start),
        })
    }

    /// When the timer of the disk runs out.
    fn disk_due(&self) -> Option<i64> {
        Some(self.disk_lost?.start? + 2 * (self.threshold - 1) * MICROS)
    }

    /// When the decision about quorum comes.
    fn quorum_due(&self) -> Option<i64> {
        Some(self.peers_lost?.start? + 2 * (self.threshold + 2) * MICROS)
    }

    fn judge(&self) -> Option<Fact> {
        let due_first = match (self.disk_due(), self.quorum_due()) {
            (Some(d), Some(q)) if (d - q).abs() > SLACK => Some(d < q),
            _ => None,
        };
        if let (Some(disk), Some(quorum)) = (self.disk_line, self.quorum_line) {
            let by_line = is_first(disk, quorum)?;
            return Some(self.fact(
                by_line,
                "its line is the first of the two",
                due_first.map(|t| t == by_line),
            ));
        }
        if self.disk_line.is_some() || self.quorum_line.is_some() || self.peers_lost.is_none() {
            return None;
        }
        // No line of it reached the log: the timer that ran out first after the host's last line, if any did before its boot.
        let may = |due: Option<i64>| due.filter(|d| *d >= self.at.0 - SLACK && *d <= self.at.1);
        let by_time = match (may(self.disk_due()), may(self.quorum_due())) {
            (Some(_), Some(_)) => due_first?,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => return None,
        };
        Some(self.fact(
            by_time,
            "no line of it reached the log, and of the two timers only this one fits or is first",
            None,
        ))
    }

    /// `agrees` is what the times say of the order of the lines.
    fn fact(&self, disk: bool, why: &str, agrees: Option<bool>) -> Fact {
        let t = self.threshold;
        let after = |lost: Option<&Fact>, due: Option<i64>| -> Option<(i64, i64)> {
            Some(((self.at.0 - lost?.start?) / MICROS, (due? - lost?.start?) / MICROS))
        };
        let mut words = Vec::new();
        if let Some((lived, due)) = after(self.disk_lost, self.disk_due()) {
            words.push(format!("its disk was lost {lived} s before, the limit is 2 x ({t} - 1) = {due} s"));
        }
        if let Some((lived, due)) = after(self.peers_lost, self.quorum_due()) {
            words.push(format!(
                "its peers were given up {lived} s before, the limit is 2 x ({t} + 2) = {due} s"
            ));
        }
        if self.disk_line.is_none() {
            words.push(format!("a threshold of {t} is assumed"));
        }
        let tail = if words.is_empty() { String::new() } else { format!("; {}", words.join("; ")) };
        let mut evidence: Vec<Proof> = Vec::new();
        for fact in [self.disk_line, self.quorum_line, self.disk_lost, self.peers_lost].into_iter().flatten()
        {
            evidence.extend(fact.evidence.first().cloned());
        }
        let timing = agrees.map(|a| ("timing".to_owned(), if a { "agrees" } else { "disagrees" }.to_owned()));
        let fields: [(&str, &dyn std::fmt::Display); 3] = [("why", &why), ("tail", &tail), ("t", &t)];
        let title = if disk {
            Said::of("OCFS2 reset this host for its disk, not for quorum: {why}{tail}", &fields)
        } else {
            Said::of("OCFS2 reset this host for quorum, not for its disk: {why}{tail}", &fields)
        };
        Draft {
            rule: if disk { "ocfs2.disk-decided" } else { "ocfs2.quorum-decided" },
            host: self.host,
            start: Some(self.at.0),
            end: Some(self.at.0),
            severity: Severity::Info,
            role: Role::Context,
            title,
            evidence,
            fields: BTreeMap::from_iter(timing),
        }
        .fact()
    }
}

/// Whether one fact's line stands before another's: by time, and in the same second by their places in one file.
fn is_first(a: &Fact, b: &Fact) -> Option<bool> {
    if a.start != b.start {
        return Some(a.start < b.start);
    }
    let (a, b) = (a.evidence.first()?, b.evidence.first()?);
    (a.file == b.file && a.line != b.line).then_some(a.line < b.line)
}
