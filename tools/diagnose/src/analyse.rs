//! The whole way: bundle in, report out.
//!
//! Promise: deterministic; an input that cannot be opened is an error, anything less is a notice in the report.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;

use holdfast_evidence::Civil;
use holdfast_evidence::civil::MICROS;
use holdfast_evidence::read::{Limits, Notice, NoticeKind, Progress, SourceError, read_all};

use crate::causes::{Cause, Edge, graph, rank};
use crate::clocks;
use crate::computed::{self, Boot};
use crate::decides;
use crate::facts::{self, Fact, Proof};
use crate::knowledge::Knowledge;
use crate::model::*;
use crate::repairs::repairs;
use crate::rules::{Role, RuleError, RuleSet, Severity};
use crate::scan::{FileReport, scan};
use crate::settle::Settled;
use crate::unknown;
use crate::window::{When, Window, speaks};
use crate::words::Said;

/// What to look at.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only facts at or after this time.
    pub since: Option<When>,
    /// Only facts before this time.
    pub until: Option<When>,
    /// Only this host.
    pub host: Option<String>,
    /// Bounds of reading.
    pub limits: Limits,
}

/// The analysis could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AnalyseError {
    /// An input does not open.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The rules do not compile: a fault of the program.
    #[error(transparent)]
    Rules(#[from] RuleError),
    /// The host that was asked for is not in the input.
    #[error("no host {name} in this input; it has {hosts}")]
    NoSuchHost {
        /// The name asked for.
        name: String,
        /// The names that are there.
        hosts: String,
    },
    /// The input holds nothing that can be read as evidence.
    #[error("{detail}")]
    Nothing {
        /// In words.
        detail: String,
    },
}

/// Reads the bundles and makes the report.
pub fn analyse(bundles: &[PathBuf], options: &Options, progress: &Progress) -> Result<Report, AnalyseError> {
    let rules = RuleSet::builtin()?;
    let knowledge = Knowledge::builtin()?;
    let collected = Mutex::new(Vec::new());
    let mut notices = read_all(bundles, &options.limits, progress, &|source| {
        let report = scan(&rules, source, options.limits.threads);
        collected.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(report);
    })?;
    let mut files = collected.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    files.sort_by(|a, b| a.path.cmp(&b.path));
    drop_copies(&mut files, &mut notices);
    for file in &files {
        for (kind, detail) in &file.notices {
            notices.push(Notice { path: file.path.to_string(), kind: *kind, detail: detail.clone() });
        }
    }
    notices.sort();
    refuse_nothing(&files, &notices)?;
    let (settled, mut all, boots) = settle(&rules, &files);
    let window = Window::new(options, &files, &settled, &all)?;
    let before = all.len();
    all.retain(|f| window.holds(f));
    let outside = before - all.len();
    facts::number(&mut all);
    let uncertainty = settled.hosts.values().map(|h| h.uncertainty).max().unwrap_or(2 * MICROS);
    let edges = graph(&knowledge, &all, uncertainty);
    let causes = rank(&knowledge, &all, &edges);
    let builder = Builder {
        knowledge: &knowledge,
        files: &files,
        settled: &settled,
        facts: &all,
        boots: &boots,
        window,
        outside,
    };
    Ok(builder.report(&causes, &edges, &notices))
}

fn refuse_nothing(files: &[FileReport], notices: &[Notice]) -> Result<(), AnalyseError> {
    if files.iter().any(|f| f.lines > 0 || !f.episodes.is_empty() || !f.wtmp.is_empty()) {
        return Ok(());
    }
    let detail = if files.is_empty() && notices.is_empty() {
        "the input holds no file".to_owned()
    } else {
        let mut words: Vec<String> =
            notices.iter().take(5).map(|n| format!("{}: {}", n.path, n.detail)).collect();
        if words.is_empty() {
            words.push(format!("{} files, all empty", files.len()));
        }
        format!("nothing in the input can be read as a log: {}", words.join("; "))
    };
    Err(AnalyseError::Nothing { detail })
}

/// The same file twice (a bundle inside a bundle) would count every line twice.
fn drop_copies(files: &mut Vec<FileReport>, notices: &mut Vec<Notice>) {
    let mut seen: BTreeMap<(u64, u64, u64), String> = BTreeMap::new();
    files.retain(|f| {
        let is_log = f.lines > 20 && f.kind == holdfast_evidence::FileKind::Log;
        if !is_log {
            return true;
        }
        match seen.get(&(f.fingerprint, f.bytes, f.lines)) {
            Some(first) => {
                let detail = format!("the same content as {first}; counted once");
                notices.push(Notice { path: f.path.to_string(), kind: NoticeKind::Duplicate, detail });
                false
            }
            None => {
                seen.insert((f.fingerprint, f.bytes, f.lines), f.path.to_string());
                true
            }
        }
    });
}

fn settle(rules: &RuleSet, files: &[FileReport]) -> (Settled, Vec<Fact>, Vec<Boot>) {
    let mut settled = Settled::new(files);
    let shared = clocks::shared_events(rules, files, &settled);
    clocks::fit(&mut settled.hosts, &shared);
    let mut all = facts::from_episodes(rules, files, &settled);
    let boots = computed::boots(&all, files, &settled, rules.index("boot.start"));
    all.extend(computed::from_boots(&boots));
    all.extend(computed::from_files(files, &settled, &boots));
    let more = computed::from_facts(&all);
    all.extend(more);
    (settled, all, boots)
}

struct Builder<'a> {
    knowledge: &'a Knowledge,
    files: &'a [FileReport],
    settled: &'a Settled,
    facts: &'a [Fact],
    boots: &'a [Boot],
    window: Window,
    /// Facts outside the window.
    outside: usize,
}

/// Facts shown in the timeline at most.
const MAX_MOMENTS: usize = 2000;
/// Missing evidence named at most.
const MAX_MISSING: usize = 40;

impl Builder<'_> {
    fn report(&self, causes: &[Cause], edges: &[Edge], notices: &[Notice]) -> Report {
        let impacts: Vec<&Fact> =
            self.facts.iter().filter(|f| f.role == Role::Impact && f.start.is_some()).collect();
        let incident_start = impacts.iter().filter_map(|f| f.start).min();
        // A reboot in order makes many new lines and no incident.
        let hurt = impacts.iter().filter(|f| f.severity > Severity::Info).filter_map(|f| f.start).min();
        let incident_end = impacts.iter().filter_map(|f| f.end).max();
        let first = causes.first();
        let said: Vec<NoticeOut> = notices
            .iter()
            .map(|n| NoticeOut {
                path: n.path.clone(),
                kind: format!("{:?}", n.kind),
                detail: n.detail.clone(),
            })
            .collect();
        let unread = said.iter().filter(|n| n.is_unread()).count() as u64;
        let (verdict, headline) = self.headline(first, unread);
        Report {
            summary: Summary {
                verdict,
                headline: headline.en,
                headline_zh: headline.zh,
                incident_start: incident_start.map(|m| self.shown_any(m)),
                incident_end: incident_end.map(|m| self.shown_any(m)),
                since: self.window.since.map(|m| self.shown_any(m)),
                until: self.window.until.map(|m| self.shown_any(m)),
                unread,
                files: self.files.len() as u64,
                lines: self.files.iter().map(|f| f.lines).sum(),
                bytes: self.files.iter().map(|f| f.bytes).sum(),
            },
            hosts: self.hosts(),
            timeline: self.timeline(),
            facts: self.facts.iter().map(|f| self.fact(f)).collect(),
            causes: causes.iter().enumerate().map(|(i, c)| self.cause(i + 1, c)).collect(),
            contradictions: self.contradictions(causes),
            missing_evidence: self.missing(causes, edges, notices),
            recommendations: self.recommendations(causes),
            notices: said,
            new_lines: unknown::new_lines(self.files, self.settled, hurt, |host, m| self.shown(host, m)),
        }
    }

    fn headline(&self, first: Option<&Cause>, unread: u64) -> (&'static str, Said) {
        if let Some(cause) = first {
            return ("cause-found", Said::both(cause.title.clone(), cause.title_zh.clone()));
        }
        let worst = self.facts.iter().filter(|f| decides::is_failure(f.severity, f.role)).count();
        let text = if worst == 0 {
            let signs = self.facts.iter().filter(|f| decides::is_sign(f.severity, f.role)).count();
            self.window.quiet((self.facts.len(), signs), self.outside, unread, |m| self.shown_any(m))
        } else {
            Said::of("something failed, but this evidence does not carry a cause", &[])
        };
        ("nothing-conclusive", text)
    }

    /// By urgency; then what the likelier cause asks for, and repairs of what stays last.
    fn recommendations(&self, causes: &[Cause]) -> Vec<RecommendOut> {
        let mut out: Vec<RecommendOut> = Vec::new();
        for cause in causes.iter().filter(|c| c.consequence_of.is_none()).take(3) {
            out.extend(cause.recommend.iter().map(|r| RecommendOut {
                urgency: Said::of(&r.urgency, &[]),
                owner: Said::of(&r.owner, &[]),
                text: Said::of(&r.text, &[]),
                cause: cause.id.clone(),
                facts: self.ids(&cause.roots),
            }));
        }
        out.extend(repairs(self.facts));
        let rank = |u: &str| ["now", "soon", "later"].iter().position(|x| *x == u).unwrap_or(3);
        out.sort_by_key(|r| rank(&r.urgency));
        out
    }

    fn shown(&self, host: &str, micros: i64) -> String {
        let zone = self.settled.hosts.get(host).map_or(holdfast_evidence::zone::Offset::UTC, |h| h.zone);
        let local = Civil::from_micros(micros + zone.micros()).display(false);
        let suffix = zone.display();
        format!("{}{}", local.replace(' ', "T"), suffix.trim_start_matches("UTC"))
    }

    /// In the zone of the report: for times of the whole cluster.
    fn shown_any(&self, micros: i64) -> String {
        self.shown(&self.window.zone_of, micros)
    }

    fn shown_for(&self, fact: &Fact, micros: i64) -> String {
        if fact.host == "cluster" { self.shown_any(micros) } else { self.shown(&fact.host, micros) }
    }

    fn hosts(&self) -> Vec<HostOut> {
        let describe = |h: &crate::settle::Host| HostOut {
            name: h.name.clone(),
            zone: h.zone.display(),
            zone_evidence: h.zone_evidence.clone(),
            year_evidence: h.year_evidence.iter().cloned().collect(),
            clock: h.clock_evidence.clone(),
            boots: self
                .boots
                .iter()
                .filter(|b| b.host == h.name)
                .map(|b| BootOut { at: self.shown(&h.name, b.at), clean: b.clean })
                .collect(),
        };
        let known = |h: &&crate::settle::Host| speaks(self.files, self.settled, self.facts, &h.name);
        self.settled.hosts.values().filter(known).map(describe).collect()
    }

    fn timeline(&self) -> Vec<Moment> {
        let floor = if self.facts.len() > MAX_MOMENTS { Severity::Warning } else { Severity::Info };
        self.facts
            .iter()
            .filter(|f| f.severity >= floor)
            .filter_map(|f| {
                let micros = f.start?;
                Some(Moment {
                    at: self.shown_for(f, micros),
                    micros,
                    host: f.host.clone(),
                    fact: f.id.clone(),
                    text: f.title.clone(),
                })
            })
            .take(MAX_MOMENTS)
            .collect()
    }

    fn fact(&self, f: &Fact) -> FactOut {
        FactOut {
            id: f.id.clone(),
            rule: f.rule.clone(),
            host: f.host.clone(),
            severity: f.severity,
            role: f.role,
            start: f.start.map(|m| self.shown_for(f, m)),
            end: f.end.map(|m| self.shown_for(f, m)),
            start_micros: f.start,
            end_micros: f.end,
            count: f.count,
            title: f.title.clone(),
            title_zh: f.title_zh.clone(),
            fields: f.fields.clone(),
            source: f.source.clone(),
            refuted_by: Said::of(&f.refuted_by, &[]),
            evidence: f.evidence.iter().map(evidence).collect(),
        }
    }

    fn ids(&self, list: &[usize]) -> Vec<String> {
        list.iter().map(|i| self.facts[*i].id.clone()).collect()
    }

    fn cause(&self, rank: usize, c: &Cause) -> CauseOut {
        let chain = c
            .chain
            .iter()
            .map(|e| {
                let rule = e.rule(self.knowledge);
                EdgeOut {
                    from: self.facts[e.from].id.clone(),
                    to: self.facts[e.to].id.clone(),
                    delay_seconds: e.delay,
                    mechanism: Said::of(&rule.mechanism, &[]),
                    alternative: Said::of(&rule.alternative, &[]),
                }
            })
            .collect();
        let states = self.facts.iter().filter(|f| f.role == Role::State && !c.explains.is_empty());
        // The same weakness on several hosts is one.
        let mut single: BTreeMap<[&str; 2], [Vec<&str>; 2]> = BTreeMap::new();
        for f in states {
            let [hosts, ids] = single.entry([&f.title, &f.title_zh]).or_default();
            hosts.push(&f.host);
            ids.push(&f.id);
        }
        let single = single.iter().map(|([en, zh], [hosts, ids])| {
            let of = |title: &str| format!("{}: {title} ({})", hosts.join(", "), ids.join(" "));
            Said::both(of(en), of(zh))
        });
        CauseOut {
            rank,
            id: c.id.clone(),
            title: c.title.clone(),
            title_zh: c.title_zh.clone(),
            score: (c.score * 1000.0).round() / 1000.0,
            confidence: c.confidence,
            roots: self.ids(&c.roots),
            chain,
            explains: self.ids(&c.explains),
            leaves_open: self.ids(&c.leaves),
            supports: self.ids(&c.supports),
            contradicts: self.ids(&c.contradicts),
            consequence_of: c.consequence_of.clone(),
            single_points_of_failure: single.collect(),
            prevented_by: Said::of(&c.prevented_by, &[]),
        }
    }

    fn missing(&self, causes: &[Cause], edges: &[Edge], notices: &[Notice]) -> Vec<Missing> {
        let known: BTreeSet<&str> = self.settled.hosts.keys().map(String::as_str).collect();
        let mut out = decides::for_first(causes, self.facts);
        out.extend(decides::for_unexplained(self.knowledge, self.facts, causes, edges, |f, m| {
            self.shown_for(f, m)
        }));
        out.extend(decides::for_boots(self.boots, |host, m| self.shown(host, m)));
        out.extend(decides::for_peers(self.facts, &known));
        out.extend(decides::for_files(notices));
        let mut seen = BTreeSet::new();
        out.retain(|m| seen.insert((m.file.to_owned(), m.decides.to_owned())));
        out.truncate(MAX_MISSING);
        out
    }

    fn contradictions(&self, causes: &[Cause]) -> Vec<Contradiction> {
        let mut out = Vec::new();
        if let Some(text) = self.window.without_logs(|m| self.shown_any(m)).filter(|_| !self.facts.is_empty())
        {
            out.push(Contradiction { text, facts: vec![] });
        }
        if let Some(first) = causes.first() {
            if !first.contradicts.is_empty() {
                let text = Said::of("facts that speak against {cause}", &[("cause", &first.id)]);
                out.push(Contradiction { text, facts: self.ids(&first.contradicts) });
            }
            if !first.leaves.is_empty() {
                let text = Said::of("no way leads from {cause} to these impacts", &[("cause", &first.id)]);
                out.push(Contradiction { text, facts: self.ids(&first.leaves) });
            }
            if first.thin {
                let text = Said::of(
                    "{cause} rests on facts of one kind alone, and others than it may be behind them",
                    &[("cause", &first.id)],
                );
                out.push(Contradiction { text, facts: self.ids(&first.roots) });
            }
        }
        for f in self.facts.iter().filter(|f| f.fields.get("timing").is_some_and(|t| t == "disagrees")) {
            let text = Said::of(
                "on {host} the order of the fence's lines and the time limits do not agree",
                &[("host", &f.host)],
            );
            out.push(Contradiction { text, facts: vec![f.id.clone()] });
        }
        for name in &self.settled.twins {
            out.push(Contradiction {
                text: Said::of(
                    "two machines of the bundle call themselves {name}; they are kept apart by folder",
                    &[("name", name)],
                ),
                facts: vec![],
            });
        }
        out
    }
}

fn evidence(p: &Proof) -> EvidenceOut {
    EvidenceOut { file: p.file.clone(), line: p.line, offset: p.offset, text: p.text.clone() }
}
