//! What the program knows of causes: which fact may have caused which, what a cause looks like, and which file decides when no
//! cause is carried. The data stand in `rules/edges.toml`, `rules/causes.toml` and `rules/decides.toml`.
//!
//! Promise: every name in them is one that some rule or computation finds (`rules lint`); nothing here looks at a bundle.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Deserialize;

use crate::facts::{Fact, fits};
use crate::rules::RuleError;
use crate::words::chinese;

/// An edge of the knowledge.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeRule {
    pub(crate) from: Vec<String>,
    pub(crate) to: Vec<String>,
    pub(crate) scope: Scope,
    pub(crate) min_seconds: i64,
    pub(crate) max_seconds: i64,
    /// How the one causes the other.
    pub mechanism: String,
    /// What else could have.
    #[serde(default)]
    pub alternative: String,
    /// Only with one of these facts.
    #[serde(default)]
    pub(crate) needs: Vec<String>,
    /// Only without any of these facts: a longer way through them is the true one.
    #[serde(default)]
    pub(crate) unless: Vec<String>,
    /// Only without any of these facts on the host of the effect: they decided for another way.
    #[serde(default)]
    pub(crate) unless_here: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    Host,
    Any,
}

/// A cause of the knowledge.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CauseRule {
    /// Stable id.
    pub id: String,
    pub(crate) base: f64,
    /// One sentence.
    pub title: String,
    pub(crate) roots: Vec<String>,
    #[serde(default)]
    pub(crate) all: Vec<String>,
    #[serde(default)]
    pub(crate) supports: Vec<String>,
    #[serde(default)]
    pub(crate) contradicts: Vec<String>,
    #[serde(default)]
    pub(crate) standalone: bool,
    /// Facts that speak for themselves, without a way to an impact.
    #[serde(default)]
    pub(crate) alone: Vec<Alone>,
    /// Roots on so many hosts speak for themselves; 0 for never.
    #[serde(default)]
    pub(crate) alone_on_hosts: usize,
    #[serde(default)]
    pub(crate) min_hosts: usize,
    #[serde(default = "no_limit")]
    pub(crate) max_hosts: usize,
    #[serde(default)]
    pub(crate) within_seconds: i64,
    pub(crate) prevented_by: String,
    #[serde(default)]
    pub(crate) missing: Vec<MissingRule>,
    #[serde(default)]
    pub(crate) recommend: Vec<Recommend>,
}

/// A fact that needs no impact to be worth naming.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Alone {
    rule: String,
    /// Fields of which one must be a number as large as `at_least`, whatever its sign.
    #[serde(default)]
    fields: Vec<String>,
    #[serde(default)]
    at_least: f64,
    /// Only beside one of these facts.
    #[serde(default)]
    pub(crate) with: Vec<String>,
    /// Only with so many lines.
    #[serde(default)]
    lines: u64,
}

impl Alone {
    pub(crate) fn speaks(&self, fact: &Fact, facts: &[Fact]) -> bool {
        let beside = |p: &String| facts.iter().any(|f| fits(p, &f.rule));
        let large = |name: &String| {
            fact.fields
                .get(name)
                .and_then(|v| v.parse::<f64>().ok())
                .is_some_and(|v| v.abs() >= self.at_least)
        };
        fits(&self.rule, &fact.rule)
            && fact.count >= self.lines
            && (self.fields.is_empty() || self.fields.iter().any(large))
            && (self.with.is_empty() || self.with.iter().any(beside))
    }
}

fn no_limit() -> usize {
    usize::MAX
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MissingRule {
    pub(crate) unless: String,
    pub(crate) file: String,
    pub(crate) how: String,
}

/// Something to do.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(deny_unknown_fields)]
pub struct Recommend {
    /// `now`, `soon` or `later`.
    pub urgency: String,
    /// Who.
    pub owner: String,
    /// What.
    pub text: String,
    /// Only when one of these facts starts the cause; always when empty.
    #[serde(default)]
    pub when: Vec<String>,
}

/// Facts of one kind, and the file that decides why they came when nothing else says so. `{host}` and `{time}` are filled in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    pub(crate) facts: Vec<String>,
    pub(crate) file: String,
    pub(crate) decides: String,
    pub(crate) how: String,
}

impl Family {
    /// Whether it is for a fact of this rule.
    pub fn fits(&self, rule: &str) -> bool {
        self.facts.iter().any(|p| fits(p, rule))
    }
}

/// The knowledge about causes.
pub struct Knowledge {
    pub(crate) edges: Vec<EdgeRule>,
    /// Causes in file order.
    pub causes: Vec<CauseRule>,
    /// Families of facts in file order; the first that fits counts, and the last fits all.
    pub families: Vec<Family>,
}

#[derive(Deserialize)]
struct EdgeFile {
    edge: Vec<EdgeRule>,
}

#[derive(Deserialize)]
struct FamilyFile {
    family: Vec<Family>,
}

#[derive(Deserialize)]
struct CauseFile {
    cause: Vec<CauseRule>,
}

impl Knowledge {
    /// The knowledge that comes with the program.
    pub fn builtin() -> Result<Knowledge, RuleError> {
        let syntax = |file| move |source| RuleError::Syntax { file, source };
        let edges: EdgeFile =
            toml::from_str(include_str!("../rules/edges.toml")).map_err(syntax("edges.toml"))?;
        let causes: CauseFile =
            toml::from_str(include_str!("../rules/causes.toml")).map_err(syntax("causes.toml"))?;
        let families: FamilyFile =
            toml::from_str(include_str!("../rules/decides.toml")).map_err(syntax("decides.toml"))?;
        Ok(Knowledge { edges: edges.edge, causes: causes.cause, families: families.family })
    }

    /// Every text that a report may show.
    pub fn shown(&self) -> impl Iterator<Item = &str> {
        let edges = self.edges.iter().flat_map(|e| [&e.mechanism, &e.alternative]);
        let causes = self.causes.iter().flat_map(|c| {
            let missing = c.missing.iter().flat_map(|m| [&m.file, &m.how]);
            let advice = c.recommend.iter().flat_map(|r| [&r.urgency, &r.owner, &r.text]);
            [&c.title, &c.prevented_by].into_iter().chain(missing).chain(advice)
        });
        let families = self.families.iter().flat_map(|f| [&f.file, &f.decides, &f.how]);
        edges.chain(causes).chain(families).map(String::as_str).filter(|t| !t.is_empty())
    }

    /// Every pattern of fact ids that the knowledge names, for the linter.
    pub fn patterns(&self) -> BTreeSet<&str> {
        let mut out = BTreeSet::new();
        for edge in &self.edges {
            let lists = [&edge.from, &edge.to, &edge.needs, &edge.unless, &edge.unless_here];
            out.extend(lists.into_iter().flatten().map(String::as_str));
        }
        for cause in &self.causes {
            let lists = [&cause.roots, &cause.all, &cause.supports, &cause.contradicts];
            out.extend(lists.into_iter().flatten().map(String::as_str));
            out.extend(cause.alone.iter().flat_map(|a| a.with.iter().chain([&a.rule])).map(String::as_str));
            out.extend(cause.recommend.iter().flat_map(|r| &r.when).map(String::as_str));
        }
        out.extend(self.families.iter().flat_map(|f| &f.facts).map(String::as_str));
        out
    }
}

impl CauseRule {
    /// All about the cause, for `rules explain`.
    pub fn explain(&self) -> String {
        let mut out = format!("{} (a cause)\n  {}\n  {}\n", self.id, self.title, chinese(&self.title));
        let mut line = |name: &str, text: String| {
            if !text.is_empty() {
                // Writing to a String cannot fail.
                let _ = writeln!(out, "  {name:<13} {text}");
            }
        };
        line("begins with", self.roots.join(", "));
        line("needs", self.all.join(", "));
        line("supported by", self.supports.join(", "));
        line("against it", self.contradicts.join(", "));
        if self.min_hosts > 0 {
            line("on", format!("{} hosts or more, within {} s", self.min_hosts, self.within_seconds));
        }
        if self.max_hosts < usize::MAX {
            line("on", format!("{} host at most", self.max_hosts));
        }
        let alone = if self.standalone { "yes" } else { "no: it needs a way to an impact" };
        let some =
            if self.alone.is_empty() && self.alone_on_hosts == 0 { alone } else { "some of its facts" };
        line("alone", some.to_owned());
        line("prevented by", self.prevented_by.clone());
        for m in &self.missing {
            line("decided by", format!("{} ({})", m.file, m.how));
        }
        for r in &self.recommend {
            line("to do", format!("[{}] {}: {}", r.urgency, r.owner, r.text));
        }
        out
    }
}
