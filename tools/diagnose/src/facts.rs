//! Facts: what happened on which host from when to when, each with its lines.
//!
//! Promise: a fact has at least one line of evidence; the same event in two files is one fact; counts are of one file series,
//! never added over copies. Ids are given in order of time, so they are stable for one bundle.

use std::collections::BTreeMap;

use holdfast_evidence::place::rotation;

use crate::rules::{Role, RuleSet, Severity, fill};
use crate::scan::{At, FileReport, Line};
use crate::settle::Settled;
use crate::words::chinese;

/// A line that proves something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Logical file.
    pub file: String,
    /// Line number, 0 for the file as a whole.
    pub line: u64,
    /// Byte offset.
    pub offset: u64,
    /// The line itself.
    pub text: String,
}

impl From<&Line> for Proof {
    fn from(line: &Line) -> Proof {
        Proof {
            file: line.place.file.to_string(),
            line: line.place.line,
            offset: line.place.offset,
            text: line.text.clone(),
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone)]
pub struct Fact {
    /// Id in the report (`F1`...), given last.
    pub id: String,
    /// The rule or computation that found it.
    pub rule: String,
    /// Host.
    pub host: String,
    /// First instant, UTC microseconds; `None` when its file has no times.
    pub start: Option<i64>,
    /// Last instant.
    pub end: Option<i64>,
    /// Lines.
    pub count: u64,
    /// How bad.
    pub severity: Severity,
    /// Its part in a chain.
    pub role: Role,
    /// A condition rather than an event.
    pub standing: bool,
    /// Captured values.
    pub fields: BTreeMap<String, String>,
    /// One sentence.
    pub title: String,
    /// The sentence in Chinese.
    pub title_zh: String,
    /// Source of the knowledge.
    pub source: String,
    /// What would refute it.
    pub refuted_by: String,
    /// Lines.
    pub evidence: Vec<Proof>,
}

/// Turns the episodes of all files into facts.
pub fn from_episodes(rules: &RuleSet, files: &[FileReport], settled: &Settled) -> Vec<Fact> {
    let mut groups: BTreeMap<(usize, String, String), Vec<(String, Fact)>> = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        let (series, _) = rotation(&file.path);
        for episode in &file.episodes {
            let rule = &rules.rules[episode.rule];
            let host = settled.host_of(files, index, &episode.host);
            let start = settled.instant(index, &host, episode.first.at);
            let end = settled.instant(index, &host, episode.last.at);
            let key: String = rule
                .key
                .iter()
                .filter_map(|k| episode.fields.get(k))
                .cloned()
                .collect::<Vec<_>>()
                .join("\u{1}");
            let mut evidence = vec![Proof::from(&episode.first)];
            if episode.last.place != episode.first.place {
                evidence.push(Proof::from(&episode.last));
            }
            let fact = Fact {
                id: String::new(),
                rule: rule.id.clone(),
                host: host.clone(),
                start,
                end: end.max(start),
                count: episode.count,
                severity: rule.severity,
                role: rule.role,
                standing: rule.standing
                    || episode.first.at == At::None && file.kind != holdfast_evidence::FileKind::Log,
                fields: episode.fields.clone(),
                title: fill(&rule.title, &episode.fields),
                title_zh: fill(chinese(&rule.title), &episode.fields),
                source: rule.source.clone(),
                refuted_by: rule.refuted_by.clone(),
                evidence,
            };
            groups.entry((episode.rule, host, key)).or_default().push((series.clone(), fact));
        }
    }
    let mut out = Vec::new();
    for ((rule, _, _), mut facts) in groups {
        facts.sort_by(|a, b| (a.1.start, &a.1.evidence[0].file).cmp(&(b.1.start, &b.1.evidence[0].file)));
        let gap = rules.rules[rule].gap_seconds * 1_000_000;
        let mut merged: Vec<(String, Fact)> = Vec::new();
        for (series, fact) in facts {
            match merged.last_mut() {
                Some((owner, last)) if joins(last, &fact, gap) => {
                    if *owner == series {
                        last.count += fact.count;
                    } else {
                        last.count = last.count.max(fact.count);
                    }
                    last.end = last.end.max(fact.end);
                    if last.evidence.len() < 4 {
                        last.evidence.extend(fact.evidence.into_iter().take(1));
                    }
                }
                _ => merged.push((series, fact)),
            }
        }
        let enough = rules.rules[rule].at_least_lines;
        out.extend(merged.into_iter().map(|(_, f)| f).filter(|f| f.count >= enough));
    }
    out
}

fn joins(last: &Fact, next: &Fact, gap: i64) -> bool {
    match (last.end, next.start) {
        (Some(end), Some(start)) => start - end <= gap,
        (None, None) => true,
        _ => false,
    }
}

/// Gives ids in order of time, host and rule.
pub fn number(facts: &mut [Fact]) {
    facts.sort_by(|a, b| {
        (a.start.is_none(), a.start, &a.host, &a.rule, &a.title).cmp(&(
            b.start.is_none(),
            b.start,
            &b.host,
            &b.rule,
            &b.title,
        ))
    });
    for (index, fact) in facts.iter_mut().enumerate() {
        fact.id = format!("F{}", index + 1);
    }
}

/// Whether a rule id fits a pattern such as `malware.*`.
pub fn fits(pattern: &str, id: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => id.starts_with(prefix),
        None => pattern == id,
    }
}
