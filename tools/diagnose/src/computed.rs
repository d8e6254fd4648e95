//! Facts that no single line states: unclean boots, resets at the same time, silences, clock steps, broken crontabs, closed
//! ports, configuration faults.
//!
//! Promise: computed from facts and scans only, with the lines they rest on.

mod config;
mod fencing;
pub mod known;

use std::collections::{BTreeMap, BTreeSet};

use holdfast_evidence::civil::MICROS;
use holdfast_evidence::place::rotation;
use holdfast_evidence::wtmp::WtmpKind;

use crate::facts::{Fact, Proof};
use crate::rules::{Role, Severity};
use crate::scan::{At, FileReport, Gap};
use crate::settle::Settled;
use crate::words::Said;

/// Boots closer together than this are one boot seen by several files.
const SAME_BOOT: i64 = 120 * MICROS;
/// A shutdown line within this time before a boot makes it a clean one.
const CLEAN_WINDOW: i64 = 900 * MICROS;
/// Hosts that reset within this time did so together.
const TOGETHER: i64 = 180 * MICROS;
/// A silence of a host that is worth a fact.
const SILENCE: i64 = 90 * MICROS;
/// A silence is told from a pause only by a log that is so many times as long.
const USUAL_TIMES: i64 = 8;
/// So many other pauses at least half as long make a silence an ordinary one.
const ALIKE: usize = 3;

struct Draft<'a> {
    rule: &'a str,
    host: &'a str,
    start: Option<i64>,
    end: Option<i64>,
    severity: Severity,
    role: Role,
    title: Said,
    evidence: Vec<Proof>,
    fields: BTreeMap<String, String>,
}

impl Draft<'_> {
    fn fact(self) -> Fact {
        let (source, refuted_by) = known::of(self.rule).map_or(("", ""), |k| (k.source, k.refuted_by));
        Fact {
            id: String::new(),
            rule: self.rule.to_owned(),
            host: self.host.to_owned(),
            start: self.start,
            end: self.end,
            count: 1,
            severity: self.severity,
            role: self.role,
            standing: self.start.is_none(),
            fields: self.fields,
            title: self.title.en,
            title_zh: self.title.zh,
            source: source.to_owned(),
            refuted_by: refuted_by.to_owned(),
            evidence: self.evidence,
        }
    }
}

/// A boot of one host.
#[derive(Debug, Clone)]
pub struct Boot {
    /// Host.
    pub host: String,
    /// When the kernel's first lines were logged.
    pub at: i64,
    /// The last line before, if one is known.
    pub before: Option<(i64, Proof)>,
    /// Whether a log that would hold the words of an orderly shutdown goes back to before it: one of the kernel alone does not.
    heard: bool,
    /// Whether the login records have an orderly shutdown before it.
    ordered: bool,
    /// Whether it followed an orderly shutdown; `None` when nothing that would say so is left.
    pub clean: Option<bool>,
    /// Line of the boot.
    pub proof: Proof,
}

/// All boots of all hosts in order.
pub fn boots(
    facts: &[Fact],
    files: &[FileReport],
    settled: &Settled,
    rule_index: Option<usize>,
) -> Vec<Boot> {
    let mut found: Vec<Boot> = Vec::new();
    for (index, file) in files.iter().enumerate() {
        for episode in file.episodes.iter().filter(|e| Some(e.rule) == rule_index) {
            let host = settled.host_of(files, index, &episode.host);
            let Some(logged) = settled.instant(index, &host, episode.first.at) else { continue };
            // A logger that started late wrote the kernel's first lines down when it started.
            let started = file.uptimes.iter().find_map(|(at, uptime)| {
                settled.instant(index, &host, *at).filter(|at| *at >= logged).map(|at| at - uptime)
            });
            let at = started.filter(|s| *s < logged - SAME_BOOT).unwrap_or(logged);
            let before = episode.before.as_ref().and_then(|l| {
                settled
                    .instant(index, &host, l.at)
                    .filter(|b| *b <= at + 5 * MICROS)
                    .map(|b| (b, Proof::from(l)))
            });
            let heard = before.is_some() && file.userspace;
            found.push(Boot {
                host,
                at,
                before,
                heard,
                ordered: false,
                clean: None,
                proof: Proof::from(&episode.first),
            });
        }
        for (number, record) in file.wtmp.iter().enumerate().filter(|(_, r)| r.kind == WtmpKind::Boot) {
            // Between two boots of the records an orderly shutdown has one too; before the first they may not go back.
            let since = file.wtmp[..number].iter().rev().take_while(|r| r.kind != WtmpKind::Boot);
            let ordered = since.clone().any(|r| r.kind == WtmpKind::Shutdown);
            let heard = since.count() < number;
            let host = settled.file_host[index].clone();
            let proof = Proof {
                file: file.path.to_string(),
                line: 0,
                offset: 0,
                text: "wtmp: system boot".to_owned(),
            };
            let Some(at) = settled.instant(index, &host, At::Utc(record.seconds * MICROS)) else { continue };
            found.push(Boot { host, at, before: None, heard, ordered, clean: None, proof });
        }
    }
    found.sort_by(|a, b| (&a.host, a.at, &a.proof.file).cmp(&(&b.host, b.at, &b.proof.file)));
    let mut boots: Vec<Boot> = Vec::new();
    for boot in found {
        match boots.last_mut() {
            Some(last) if last.host == boot.host && boot.at - last.at < SAME_BOOT => {
                last.heard |= boot.heard;
                last.ordered |= boot.ordered;
                let later = boot.before.as_ref().map(|(t, _)| *t) > last.before.as_ref().map(|(t, _)| *t);
                // A file that logs the boot late has its own boot's lines before it; only lines before the boot count.
                if later && boot.before.as_ref().is_some_and(|(t, _)| *t < last.at - MICROS) {
                    last.before = boot.before;
                }
            }
            _ => boots.push(boot),
        }
    }
    for boot in &mut boots {
        let shutdown = boot.ordered
            || facts.iter().any(|f| {
                f.host == boot.host
                    && (f.rule == "boot.shutdown-mark" || f.rule == "admin.reboot")
                    && f.end.is_some_and(|e| e <= boot.at + MICROS && boot.at - e <= CLEAN_WINDOW)
            });
        let recovered = facts.iter().any(|f| {
            f.host == boot.host
                && f.rule == "fs.recovery"
                && f.start.is_some_and(|s| s >= boot.at - 5 * MICROS && s - boot.at < SAME_BOOT)
        });
        let crashed = facts.iter().any(|f| {
            f.host == boot.host
                && f.severity == Severity::Critical
                && f.end.is_some_and(|e| e <= boot.at + MICROS && boot.at - e <= CLEAN_WINDOW)
        });
        boot.clean = match shutdown {
            true => Some(true),
            false if boot.heard || recovered || crashed && boot.before.is_some() => Some(false),
            false => None,
        };
    }
    boots.sort_by(|a, b| (a.at, &a.host).cmp(&(b.at, &b.host)));
    boots
}

/// Facts about boots.
pub fn from_boots(boots: &[Boot]) -> Vec<Fact> {
    let mut out = Vec::new();
    for boot in boots.iter().filter(|b| b.clean == Some(false)) {
        let last = boot.before.as_ref().map_or(boot.at, |(t, _)| *t);
        let silent = (boot.at - last) / MICROS;
        let mut evidence: Vec<Proof> = boot.before.iter().map(|(_, p)| p.clone()).collect();
        evidence.push(boot.proof.clone());
        out.push(
            Draft {
                rule: "host.reset",
                host: &boot.host,
                start: Some(last),
                end: Some(boot.at),
                severity: Severity::Critical,
                role: Role::Impact,
                title: match boot.before {
                    Some(_) => Said::of("the host stopped without an orderly shutdown and was booting {silent} s after its last line", &[("silent", &silent)]),
                    None => Said::of("the host booted, and no orderly shutdown stands before that", &[]),
                },
                evidence,
                fields: BTreeMap::from([("silent".to_owned(), silent.to_string())]),
            }
            .fact(),
        );
    }
    out.extend(together(boots));
    out.extend(loops(boots));
    // Boots that were asked for are worth a fact: they explain silences and membership changes.
    let asked_for = |b: &Boot| {
        Draft {
            rule: "host.rebooted",
            host: &b.host,
            start: Some(b.at),
            end: Some(b.at),
            severity: Severity::Info,
            role: Role::Impact,
            title: Said::of("the host was rebooted in order", &[]),
            evidence: vec![b.proof.clone()],
            fields: BTreeMap::new(),
        }
        .fact()
    };
    out.extend(boots.iter().filter(|b| b.clean == Some(true)).map(asked_for));
    out
}

fn together(boots: &[Boot]) -> Vec<Fact> {
    let unclean: Vec<&Boot> = boots.iter().filter(|b| b.clean == Some(false)).collect();
    let stop = |b: &Boot| b.before.as_ref().map_or(b.at, |(t, _)| *t);
    let mut out: Vec<Fact> = Vec::new();
    let mut used = 0;
    for (i, first) in unclean.iter().enumerate() {
        if i < used {
            continue;
        }
        let group: Vec<&&Boot> =
            unclean[i..].iter().take_while(|b| stop(b) - stop(first) <= TOGETHER).collect();
        let hosts: BTreeSet<&str> = group.iter().map(|b| b.host.as_str()).collect();
        if hosts.len() < 2 {
            continue;
        }
        used = i + group.len();
        let from = group.iter().map(|b| stop(b)).min().unwrap_or(first.at);
        let to = group.iter().map(|b| stop(b)).max().unwrap_or(first.at);
        let names = hosts.iter().copied().collect::<Vec<_>>().join(", ");
        out.push(
            Draft {
                rule: "hosts.reset-together",
                host: "cluster",
                start: Some(from),
                end: Some(to),
                severity: Severity::Critical,
                role: Role::Impact,
                title: Said::of(
                    "{n} hosts stopped within {s} s of each other: {names}",
                    &[("n", &hosts.len()), ("s", &((to - from) / MICROS)), ("names", &names)],
                ),
                evidence: group
                    .iter()
                    .map(|b| b.before.as_ref().map_or(b.proof.clone(), |(_, p)| p.clone()))
                    .collect(),
                fields: BTreeMap::from([("hosts".to_owned(), names)]),
            }
            .fact(),
        );
    }
    out
}

fn loops(boots: &[Boot]) -> Vec<Fact> {
    const LOOP: usize = 3;
    const WITHIN: i64 = 1800 * MICROS;
    let mut by_host: BTreeMap<&str, Vec<&Boot>> = BTreeMap::new();
    for boot in boots.iter().filter(|b| b.clean == Some(false)) {
        by_host.entry(&boot.host).or_default().push(boot);
    }
    let mut out = Vec::new();
    for (host, list) in by_host {
        let Some(window) = list.windows(LOOP).find(|w| w[LOOP - 1].at - w[0].at <= WITHIN) else { continue };
        out.push(
            Draft {
                rule: "host.boot-loop",
                host,
                start: Some(window[0].at),
                end: list.last().map(|b| b.at),
                severity: Severity::Critical,
                role: Role::Impact,
                title: Said::of(
                    "a boot loop: {n} unclean boots, three of them within 30 minutes",
                    &[("n", &list.len())],
                ),
                evidence: list.iter().take(5).map(|b| b.proof.clone()).collect(),
                fields: BTreeMap::new(),
            }
            .fact(),
        );
    }
    out
}

/// Silences, clock steps, crontabs and their like, from the scans.
pub fn from_files(files: &[FileReport], settled: &Settled, boots: &[Boot]) -> Vec<Fact> {
    let mut out = silences(files, settled, boots);
    for (index, file) in files.iter().enumerate() {
        let host = settled.file_host[index].as_str();
        for step in &file.steps {
            let at = settled.instant(index, host, step.line.at);
            out.push(
                Draft {
                    rule: "clock.step-kernel",
                    host,
                    start: at,
                    end: at,
                    severity: Severity::Warning,
                    role: Role::Trigger,
                    title: Said::of(
                        "the wall clock moved by {s} s against the kernel's own count",
                        &[("s", &format!("{:+.1}", step.seconds))],
                    ),
                    evidence: vec![Proof::from(&step.line)],
                    fields: BTreeMap::from([("s".to_owned(), format!("{:.1}", step.seconds))]),
                }
                .fact(),
            );
        }
        out.extend(config::nul_facts(file, host));
        out.extend(config::crontab_facts(file, host));
    }
    // The same step stands in syslog and kern.log.
    let mut seen = BTreeSet::new();
    out.retain(|f| {
        f.rule != "clock.step-kernel" || seen.insert((f.host.clone(), f.start.map(|s| s / (5 * MICROS))))
    });
    out
}

/// Whether a living host writes into a log all the time: the system's own, with lines that name the host. A package manager's
/// or an installer's has days between its lines, and so may a single daemon's.
fn never_rests(file: &FileReport) -> bool {
    let (series, _) = rotation(&file.path);
    let name = series.rsplit('/').next().unwrap_or(&series);
    !file.hosts.is_empty() && ["syslog", "messages", "journal"].iter().any(|n| name.starts_with(n))
}

/// A host is silent when every log of it that covers the time is.
fn silences(files: &[FileReport], settled: &Settled, boots: &[Boot]) -> Vec<Fact> {
    let mut spans: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        if file.lines > 200 && matches!(file.span, Some((At::Utc(_) | At::Local(_) | At::Yearless(_), _))) {
            spans.entry(&settled.file_host[index]).or_default().push(index);
        }
    }
    let mut out = Vec::new();
    for (host, indexes) in spans {
        let length = |i: usize| files[i].span.map_or(0, |(a, b)| b.micros() - a.micros());
        // The file that speaks most often decides what is unusual.
        let rate = |i: &usize| length(*i) / files[*i].lines.max(1) as i64;
        let talkers = indexes.iter().filter(|i| never_rests(&files[**i]));
        let Some(best) = talkers.min_by_key(|i| (rate(i), **i)) else { continue };
        let gaps: Vec<(&Gap, i64, i64)> = files[*best]
            .gaps
            .iter()
            .filter_map(|g| {
                let instant = |at| settled.instant(*best, host, at);
                Some((g, instant(g.from)?, instant(g.to)?))
            })
            .filter(|(_, from, to)| {
                !boots.iter().any(|b| b.host == host && b.at >= *from && b.at <= *to + SAME_BOOT)
            })
            .collect();
        for (gap, from, to) in &gaps {
            let (from, to, silence) = (*from, *to, *to - *from);
            // Cron's hourly line alone makes pauses of an hour usual; what came several times is usual too.
            let alike = gaps.iter().filter(|(_, f, t)| (t - f) * 2 > silence).count() - 1;
            let long = silence >= SILENCE
                && silence > 20 * rate(best)
                && silence < length(*best) / USUAL_TIMES
                && alike < ALIKE;
            let broken = indexes.iter().any(|i| i != best && covers(files, settled, *i, host, from, to));
            if !long || broken {
                continue;
            }
            let proof = Proof {
                file: files[*best].path.to_string(),
                line: gap.line,
                offset: gap.offset,
                text: format!("<first line after {} s of silence>", silence / MICROS),
            };
            out.push(
                Draft {
                    rule: "host.silent",
                    host,
                    start: Some(from),
                    end: Some(to),
                    severity: Severity::Warning,
                    role: Role::Symptom,
                    title: Said::of(
                        "no line for {s} s without a boot: the host hung, or its log could not be written",
                        &[("s", &(silence / MICROS))],
                    ),
                    evidence: vec![proof],
                    fields: BTreeMap::new(),
                }
                .fact(),
            );
        }
    }
    out
}

/// Whether another file may have lines in the interval: it covers it and has no gap over it.
fn covers(files: &[FileReport], settled: &Settled, index: usize, host: &str, from: i64, to: i64) -> bool {
    let Some((a, b)) = files[index].span else { return false };
    let (Some(a), Some(b)) = (settled.instant(index, host, a), settled.instant(index, host, b)) else {
        return false;
    };
    let gapped = files[index].gaps.iter().any(|g| {
        let (f, t) = (settled.instant(index, host, g.from), settled.instant(index, host, g.to));
        f.is_some_and(|f| f <= from + 5 * MICROS) && t.is_some_and(|t| t >= to - 5 * MICROS)
    });
    a < from && b > to && !gapped && (b - a) / files[index].lines.max(1) as i64 <= (to - from) / 4
}

/// Facts that follow from other facts: closed ports, quorum below the majority, local portals, which fence decided.
pub fn from_facts(facts: &[Fact]) -> Vec<Fact> {
    let mut out = fencing::decided(facts);
    out.extend(config::shared_initiators(facts));
    let mut done = BTreeSet::new();
    for fact in facts.iter().filter(|f| f.rule == "lich.quorum") {
        let value = |k: &str| fact.fields.get(k).and_then(|v| v.parse::<u32>().ok());
        let (Some(need), Some(min)) = (value("need"), value("min")) else { continue };
        if min * 2 <= need && done.insert(fact.host.clone()) {
            out.push(
                Draft {
                    rule: "config.quorum-below-majority",
                    host: &fact.host,
                    start: None,
                    end: None,
                    severity: Severity::Error,
                    role: Role::State,
                    title: Said::of(
                        "the storage accepts {min} of {need} copies: less than a majority, so two sides can both go on",
                        &[("min", &min), ("need", &need)],
                    ),
                    evidence: fact.evidence.clone(),
                    fields: BTreeMap::new(),
                }
                .fact(),
            );
        }
    }
    let mut local = BTreeSet::new();
    for fact in facts.iter().filter(|f| f.rule == "iscsi.refused") {
        let back = facts
            .iter()
            .filter(|f| f.rule == "iscsi.recovered" && f.host == fact.host)
            .filter_map(|f| f.start.filter(|s| Some(*s) >= fact.start).map(|s| (s, f)))
            .min_by_key(|(s, _)| *s);
        if let (Some((until, recovered)), Some(start)) = (back, fact.start) {
            let mut evidence = fact.evidence.clone();
            evidence.extend(recovered.evidence.iter().take(1).cloned());
            out.push(
                Draft {
                    rule: "storage.port-closed",
                    host: &fact.host,
                    start: Some(start),
                    end: Some(until),
                    severity: Severity::Error,
                    role: Role::Symptom,
                    title: Said::of(
                        "the storage port stayed closed for at least {s} s",
                        &[("s", &((until - start) / MICROS))],
                    ),
                    evidence,
                    fields: BTreeMap::new(),
                }
                .fact(),
            );
        }
        let is_local = fact.fields.get("addr").is_some_and(|a| a.starts_with("127."));
        if is_local && local.insert(fact.host.clone()) {
            out.push(
                Draft {
                    rule: "config.single-local-portal",
                    host: &fact.host,
                    start: None,
                    end: None,
                    severity: Severity::Warning,
                    role: Role::State,
                    title: Said::of("the shared disk hangs on one portal of this host: a restart of the local storage process looks like a dead disk", &[]),
                    evidence: fact.evidence.iter().take(1).cloned().collect(),
                    fields: BTreeMap::new(),
                }
                .fact(),
            );
        }
    }
    out
}
