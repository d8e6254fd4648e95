//! What would decide what stays open: for each impact or error that no named cause explains, the file that says why and the way
//! to get it.
//!
//! Promise: something failed and no cause is named, then something is missing and named; the first of a chain is asked for, not
//! each of its consequences.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_evidence::read::{Notice, NoticeKind};

use crate::causes::{Cause, Edge};
use crate::computed::Boot;
use crate::facts::Fact;
use crate::knowledge::Knowledge;
use crate::model::Missing;
use crate::rules::{Role, Severity};
use crate::words::Said;

/// Facts named for one missing file at most.
const MAX_FACTS: usize = 8;

/// What would confirm or refute the first cause.
pub fn for_first(causes: &[Cause], facts: &[Fact]) -> Vec<Missing> {
    let Some(first) = causes.first() else { return Vec::new() };
    let roots: Vec<String> = first.roots.iter().take(MAX_FACTS).map(|i| facts[*i].id.clone()).collect();
    let of = |(file, how): &(String, String)| Missing {
        file: Said::of(file, &[]),
        decides: Said::of("confirms or refutes {cause}", &[("cause", &first.id)]),
        how: Said::of(how, &[]),
        facts: roots.clone(),
    };
    first.missing.iter().map(of).collect()
}

/// Whether a fact is a failure. A state is what was so all along.
pub fn is_failure(severity: Severity, role: Role) -> bool {
    severity >= Severity::Error && role != Role::State
}

/// Whether a fact must be explained by something: it is a failure, or users felt it.
pub fn asks_why(severity: Severity, role: Role) -> bool {
    is_failure(severity, role) || role == Role::Impact && severity > Severity::Info
}

/// Whether a fact is a sign of trouble, though no failure: worth a look where nothing worse is seen.
pub fn is_sign(severity: Severity, role: Role) -> bool {
    severity == Severity::Warning && !matches!(role, Role::State | Role::Context)
}

/// What would say why the unexplained facts came, the worst first.
pub fn for_unexplained(
    knowledge: &Knowledge,
    facts: &[Fact],
    causes: &[Cause],
    edges: &[Edge],
    shown: impl Fn(&Fact, i64) -> String,
) -> Vec<Missing> {
    // One file answers for all facts of a family on a host.
    let mut groups: BTreeMap<(usize, &str), Vec<usize>> = BTreeMap::new();
    for head in heads(facts, causes, edges) {
        if let Some(family) = knowledge.families.iter().position(|f| f.fits(&facts[head].rule)) {
            groups.entry((family, &facts[head].host)).or_default().push(head);
        }
    }
    let mut groups: Vec<((usize, &str), Vec<usize>)> = groups.into_iter().collect();
    groups.sort_by_key(|(_, list)| {
        let worst = list.iter().map(|i| facts[*i].severity).max();
        (std::cmp::Reverse(worst), list.first().copied())
    });
    let of = |((family, host), list): ((usize, &str), Vec<usize>)| {
        let family = &knowledge.families[family];
        let first = &facts[list[0]];
        let time = first.start.map_or_else(|| "it".to_owned(), |m| shown(first, m));
        let put = |text: &str| Said::of(text, &[("host", &host), ("time", &time)]);
        let ids: Vec<String> = list.iter().take(MAX_FACTS).map(|i| facts[*i].id.clone()).collect();
        let mut decides = put(&family.decides);
        decides.en += &format!(" ({})", ids.join(" "));
        decides.zh += &format!(" ({})", ids.join(" "));
        Missing { file: put(&family.file), decides, how: put(&family.how), facts: ids }
    };
    groups.into_iter().map(of).collect()
}

/// The first facts of the chains that end in something unexplained.
fn heads(facts: &[Fact], causes: &[Cause], edges: &[Edge]) -> BTreeSet<usize> {
    let mut down: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut up: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for edge in edges {
        down.entry(edge.from).or_default().push(edge.to);
        up.entry(edge.to).or_default().push(edge.from);
    }
    let named = causes.iter().flat_map(|c| {
        let steps = c.chain.iter().flat_map(|e| [e.from, e.to]);
        c.roots.iter().chain(&c.explains).chain(&c.supports).copied().chain(steps).collect::<Vec<_>>()
    });
    let mut explained = spread(named, &down);
    // Two facts of one line are one event under two names.
    let line = |i: usize| facts[i].evidence.first().filter(|p| p.line > 0).map(|p| (p.file.as_str(), p.line));
    let told: BTreeSet<_> = explained.iter().filter_map(|i| line(*i)).collect();
    explained.extend((0..facts.len()).filter(|i| line(*i).is_some_and(|l| told.contains(&l))));
    let calm = causes.is_empty() && !facts.iter().any(|f| asks_why(f.severity, f.role));
    let asks = |f: &Fact| asks_why(f.severity, f.role) || calm && is_sign(f.severity, f.role);
    let open: BTreeSet<usize> =
        (0..facts.len()).filter(|i| asks(&facts[*i]) && !explained.contains(i)).collect();
    let before = spread(open.iter().copied(), &up);
    let is_head = |i: &usize| {
        !up.contains_key(i)
            && !matches!(facts[*i].role, Role::State | Role::Context)
            && facts[*i].severity > Severity::Info
    };
    let mut heads: BTreeSet<usize> = before.into_iter().filter(is_head).collect();
    // What only a circle, or a standing condition, leads to is asked for itself.
    let mut reached = spread(heads.iter().copied(), &down);
    for i in open {
        if reached.insert(i) {
            heads.insert(i);
            reached.extend(spread([i].into_iter(), &down));
        }
    }
    heads
}

/// All that can be reached from a set.
fn spread(from: impl Iterator<Item = usize>, next: &BTreeMap<usize, Vec<usize>>) -> BTreeSet<usize> {
    let mut queue: Vec<usize> = from.collect();
    let mut seen: BTreeSet<usize> = queue.iter().copied().collect();
    while let Some(at) = queue.pop() {
        for to in next.get(&at).into_iter().flatten() {
            if seen.insert(*to) {
                queue.push(*to);
            }
        }
    }
    seen
}

/// Boots of which nothing says whether they were asked for.
pub fn for_boots(boots: &[Boot], shown: impl Fn(&str, i64) -> String) -> Vec<Missing> {
    let of = |boot: &Boot| Missing {
        file: Said::of(
            "the logs of {host} before its boot at {time}",
            &[("host", &boot.host), ("time", &shown(&boot.host, boot.at))],
        ),
        decides: Said::of("whether that boot followed an orderly shutdown", &[]),
        how: Said::of("the rotated files (.1, .2.gz), `last -x`, `journalctl -b -1`", &[]),
        facts: Vec::new(),
    };
    boots.iter().filter(|b| b.clean.is_none()).map(of).collect()
}

/// Hosts that lines speak of and that gave no log.
pub fn for_peers(facts: &[Fact], known: &BTreeSet<&str>) -> Vec<Missing> {
    let mut peers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for fact in facts {
        for name in ["peer", "p2", "p3"].iter().filter_map(|k| fact.fields.get(*k)) {
            let is_name = name.chars().any(|c| c.is_ascii_alphabetic()) && !name.contains('/');
            if is_name
                && !known.contains(name.as_str())
                && known.iter().all(|k| !k.starts_with(name.as_str()))
            {
                peers.entry(name).or_default().push(fact.id.clone());
            }
        }
    }
    let of = |(peer, mut facts): (&str, Vec<String>)| {
        facts.truncate(MAX_FACTS);
        Missing {
            file: Said::of("the logs of {host}", &[("host", &peer)]),
            decides: Said::of("what that host saw at the same time", &[]),
            how: Said::of("`holdfast collect` on that host", &[]),
            facts,
        }
    };
    peers.into_iter().take(64).map(of).collect()
}

/// Files of the bundle that need a tool, or that are cut.
pub fn for_files(notices: &[Notice]) -> Vec<Missing> {
    let of = |n: &Notice| Missing {
        file: Said::both(n.path.clone(), n.path.clone()),
        decides: Said::of("what it holds", &[]),
        how: Said::both(n.detail.clone(), n.detail.clone()),
        facts: Vec::new(),
    };
    notices
        .iter()
        .filter(|n| matches!(n.kind, NoticeKind::NeedsTool | NoticeKind::Truncated))
        .map(of)
        .collect()
}
