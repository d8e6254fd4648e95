//! From facts to causes: a graph of what may have caused what, and the roots that explain the damage.
//!
//! Promise: an edge needs its mechanism, the right hosts and a delay that the mechanism allows; a cause needs facts with lines
//! and, unless it speaks for itself, a way through the graph to an impact. What follows from another cause is ranked below it.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::{Fact, fits};
use crate::knowledge::{CauseRule, EdgeRule, Knowledge, Recommend, Scope};
use crate::rules::{Role, Severity};
use crate::words::chinese;

const MICROS: i64 = 1_000_000;
/// Causes below this score are not named.
const NAMED: f64 = 0.3;
/// How much of the damage a cause is taken to explain when the evidence shows no damage at all.
const UNSEEN: f64 = 0.5;
/// What rests on facts of one kind alone is possible, and no more than that: each wrong answer that a published log got, it got
/// from a line that other causes than the named one print too. Above this score little is added.
const THIN: f64 = 0.4;
/// Causing facts looked at for one effect, nearest first.
const MAX_PARENTS: usize = 12;

/// An edge between two facts.
#[derive(Debug, Clone)]
pub struct Edge {
    /// Index of the causing fact.
    pub from: usize,
    /// Index of the caused fact.
    pub to: usize,
    /// Index of the rule.
    pub rule: usize,
    /// Seconds between the two; `None` when one has no time.
    pub delay: Option<f64>,
}

/// A cause that the facts carry.
#[derive(Debug, Clone)]
pub struct Cause {
    /// Id of its rule.
    pub id: String,
    /// One sentence.
    pub title: String,
    /// In Chinese.
    pub title_zh: String,
    /// 0 to 1.
    pub score: f64,
    /// `strong`, `likely` or `possible`.
    pub confidence: &'static str,
    /// Facts that start it.
    pub roots: Vec<usize>,
    /// Edges from the roots to the impacts.
    pub chain: Vec<Edge>,
    /// Impacts explained.
    pub explains: Vec<usize>,
    /// Impacts that it does not explain.
    pub leaves: Vec<usize>,
    /// Facts that support it beside the chain.
    pub supports: Vec<usize>,
    /// Facts that contradict it.
    pub contradicts: Vec<usize>,
    /// All that speaks for it is facts of one kind.
    pub thin: bool,
    /// The cause that it follows from.
    pub consequence_of: Option<String>,
    /// What would have prevented it.
    pub prevented_by: String,
    /// What to do.
    pub recommend: Vec<Recommend>,
    /// What would decide it: file and how to get it.
    pub missing: Vec<(String, String)>,
}

/// Finds all edges between facts.
pub fn graph(knowledge: &Knowledge, facts: &[Fact], uncertainty: i64) -> Vec<Edge> {
    let mut edges = Vec::new();
    let present = |pattern: &String| facts.iter().any(|f| fits(pattern, &f.rule));
    for (index, rule) in knowledge.edges.iter().enumerate() {
        if !rule.needs.is_empty() && !rule.needs.iter().any(present) || rule.unless.iter().any(present) {
            continue;
        }
        let pick = |patterns: &[String]| -> Vec<usize> {
            (0..facts.len()).filter(|i| patterns.iter().any(|p| fits(p, &facts[*i].rule))).collect()
        };
        let (from, to) = (pick(&rule.from), pick(&rule.to));
        for effect in to {
            let mut near: Vec<(i64, Edge)> = from
                .iter()
                .filter(|cause| **cause != effect)
                .filter_map(|cause| edge(rule, index, facts, *cause, effect, uncertainty))
                .collect();
            near.sort_by_key(|(distance, e)| (*distance, e.from));
            edges.extend(near.into_iter().take(MAX_PARENTS).map(|(_, e)| e));
        }
    }
    edges
}

fn edge(
    rule: &EdgeRule,
    index: usize,
    facts: &[Fact],
    from: usize,
    to: usize,
    uncertainty: i64,
) -> Option<(i64, Edge)> {
    let (cause, effect) = (&facts[from], &facts[to]);
    if rule.scope == Scope::Host && cause.host != effect.host {
        return None;
    }
    let decided = |f: &Fact| f.host == effect.host && rule.unless_here.iter().any(|p| fits(p, &f.rule));
    if !rule.unless_here.is_empty() && facts.iter().any(decided) {
        return None;
    }
    if cause.standing || effect.standing {
        // What was there before its first line has no start; its last sign before the effect says something.
        let delay = match (cause.start, cause.end, effect.start) {
            (Some(c0), Some(c1), Some(e0)) if !effect.standing && c0 <= e0 => {
                Some((e0 - c1.min(e0)) as f64 / MICROS as f64)
            }
            _ => None,
        };
        return Some((0, Edge { from, to, rule: index, delay }));
    }
    let (Some(c0), Some(c1), Some(e0)) = (cause.start, cause.end, effect.start) else {
        return Some((0, Edge { from, to, rule: index, delay: None }));
    };
    // Between hosts an order finer than the clocks is no order.
    let slack = if cause.host == effect.host { 2 * MICROS } else { uncertainty.max(2 * MICROS) };
    // A host that stopped without a word did so at any time between its last line and its boot.
    let latest = if effect.rule == "host.reset" { effect.end.unwrap_or(e0) } else { e0 };
    let soon_enough = e0 <= c1 + rule.max_seconds * MICROS + slack;
    let late_enough = latest + slack >= c0 + rule.min_seconds * MICROS;
    (soon_enough && late_enough).then(|| {
        let delay = e0.max(c0.min(latest)) - c0;
        (delay.abs(), Edge { from, to, rule: index, delay: Some(delay as f64 / MICROS as f64) })
    })
}

fn weight(fact: &Fact) -> f64 {
    match fact.severity {
        Severity::Critical => 4.0,
        Severity::Error => 2.0,
        Severity::Warning => 1.0,
        Severity::Info => 0.5,
    }
}

/// Facts reachable from `roots`, and the edges of a tree that reaches each in as few steps as any does. Of several ways of one
/// length the tree keeps the closest: what merely stood there makes a thing possible and starts nothing.
fn reach(
    facts: &[Fact],
    edges: &BTreeMap<usize, Vec<&Edge>>,
    roots: &[usize],
) -> (BTreeSet<usize>, Vec<Edge>) {
    let mut seen: BTreeSet<usize> = roots.iter().copied().collect();
    let mut level: Vec<usize> = roots.to_vec();
    let mut used: Vec<Edge> = Vec::new();
    while !level.is_empty() {
        let mut next: BTreeMap<usize, &Edge> = BTreeMap::new();
        let mut order = Vec::new();
        for edge in level.iter().flat_map(|at| edges.get(at).into_iter().flatten()) {
            if seen.contains(&edge.to) {
                continue;
            }
            match next.get_mut(&edge.to) {
                None => {
                    order.push(edge.to);
                    next.insert(edge.to, edge);
                }
                Some(known) if is_closer(facts, edge, known) => *known = edge,
                Some(_) => {}
            }
        }
        used.extend(order.iter().map(|to| next[to].clone()));
        seen.extend(order.iter().copied());
        level = order;
    }
    (seen, used)
}

/// Whether one cause of an effect is closer to it than another: an event before a state, what came before it before what came
/// after, one on its own host before one elsewhere. Of several of one kind it is the latest; of several kinds the first, which
/// the others follow from.
fn is_closer(facts: &[Fact], edge: &Edge, known: &Edge) -> bool {
    let rank = |e: &Edge| {
        let (cause, effect) = (&facts[e.from], &facts[e.to]);
        (cause.role != Role::State, cause.start <= effect.start, cause.host == effect.host)
    };
    let (cause, other) = (&facts[edge.from], &facts[known.from]);
    rank(edge) > rank(known)
        || rank(edge) == rank(known) && cause.rule == other.rule && cause.start > other.start
}

/// Damage that is still there when the incident is over, such as a broken crontab.
pub fn stays(fact: &Fact) -> bool {
    fact.standing && fact.role == Role::Symptom && fact.severity >= Severity::Error
}

/// Keeps the edges that lie on a way to one of `ends`.
fn on_the_way(edges: &[Edge], ends: &[usize]) -> Vec<Edge> {
    let mut wanted: BTreeSet<usize> = ends.iter().copied().collect();
    let mut kept: Vec<Edge> = Vec::new();
    for edge in edges.iter().rev() {
        if wanted.contains(&edge.to) {
            wanted.insert(edge.from);
            kept.push(edge.clone());
        }
    }
    kept.reverse();
    kept
}

/// Ranks the causes that the facts carry.
pub fn rank(knowledge: &Knowledge, facts: &[Fact], edges: &[Edge]) -> Vec<Cause> {
    let mut out_of: BTreeMap<usize, Vec<&Edge>> = BTreeMap::new();
    for edge in edges {
        out_of.entry(edge.from).or_default().push(edge);
    }
    let (impacts, unfelt) = damage(facts);
    let mut found: Vec<(Cause, BTreeSet<usize>)> = Vec::new();
    for rule in &knowledge.causes {
        let Some(roots) = roots_of(rule, facts) else { continue };
        let (seen, tree) = reach(facts, &out_of, &roots);
        // An error that starts a cause is no damage that it does.
        let due = impacts.iter().copied().filter(|i| !(unfelt && roots.contains(i)));
        let total: f64 = due.clone().map(|i| weight(&facts[i])).sum();
        let explains: Vec<usize> = due.filter(|i| seen.contains(i)).collect();
        if explains.is_empty() && !speaks_for_itself(rule, &roots, facts) {
            continue;
        }
        // A root that leads to nothing while others do is a bystander.
        let covered: f64 = explains.iter().map(|i| weight(&facts[*i])).sum();
        let coverage = if total > 0.0 { covered / total } else { UNSEEN };
        let pick = |patterns: &[String]| -> Vec<usize> {
            (0..facts.len()).filter(|i| patterns.iter().any(|p| fits(p, &facts[*i].rule))).collect()
        };
        let (supports, contradicts) = (pick(&rule.supports), pick(&rule.contradicts));
        let kinds =
            |list: &[usize]| list.iter().map(|i| facts[*i].rule.as_str()).collect::<BTreeSet<_>>().len();
        let mut score = rule.base * (0.4 + 0.6 * coverage);
        score += 0.03 * kinds(&supports).min(3) as f64 - 0.2 * kinds(&contradicts) as f64;
        let steps = tree.iter().filter(|e| seen.contains(&e.to)).flat_map(|e| [e.from, e.to]);
        let rests_on: BTreeSet<usize> = roots.iter().chain(&supports).copied().chain(steps).collect();
        let thin = is_thin(&rests_on, facts);
        let score = score.clamp(0.0, 0.99);
        let score = if thin && score > THIN { THIN + (score - THIN) * 0.15 } else { score };
        let damage = seen.iter().copied().filter(|i| stays(&facts[*i]) && !roots.contains(i));
        let ends: Vec<usize> = explains.iter().copied().chain(damage).collect();
        let leaves = impacts.iter().copied().filter(|i| !seen.contains(i)).collect();
        let missing = rule
            .missing
            .iter()
            .filter(|m| !facts.iter().any(|f| fits(&m.unless, &f.rule)))
            .map(|m| (m.file.clone(), m.how.clone()))
            .collect();
        let recommend = rule.recommend.iter().filter(|r| applies(r, &roots, facts)).cloned().collect();
        let cause = Cause {
            id: rule.id.clone(),
            title: rule.title.clone(),
            title_zh: chinese(&rule.title).to_owned(),
            score,
            confidence: "",
            chain: on_the_way(&tree, &ends),
            roots,
            explains,
            leaves,
            supports,
            contradicts,
            thin,
            consequence_of: None,
            prevented_by: rule.prevented_by.clone(),
            recommend,
            missing,
        };
        found.push((cause, seen));
    }
    drop_second_names(&mut found, facts);
    order(found)
}

/// Whether all that speaks for a cause is facts of one kind, none of which says by itself that something was lost.
fn is_thin(rests_on: &BTreeSet<usize>, facts: &[Fact]) -> bool {
    let kinds: BTreeSet<&str> = rests_on.iter().map(|i| facts[*i].rule.as_str()).collect();
    kinds.len() < 2 && rests_on.iter().all(|i| facts[*i].severity < Severity::Critical)
}

/// What has to be explained: what users felt, or, where no line shows that, the errors on the way to it.
fn damage(facts: &[Fact]) -> (Vec<usize>, bool) {
    let of = |is: &dyn Fn(&Fact) -> bool| (0..facts.len()).filter(|i| is(&facts[*i])).collect::<Vec<_>>();
    let felt = of(&|f| f.role == Role::Impact);
    if felt.iter().any(|i| facts[*i].severity > Severity::Info) {
        return (felt, false);
    }
    let errors = of(&|f| f.role == Role::Symptom && f.severity >= Severity::Error);
    let unfelt = !errors.is_empty();
    (felt.into_iter().chain(errors).collect(), unfelt)
}

/// A cause whose facts rest on lines that carry a better one is the same thing under a vaguer name.
fn drop_second_names(found: &mut Vec<(Cause, BTreeSet<usize>)>, facts: &[Fact]) {
    let lines = |cause: &Cause| -> BTreeSet<(String, u64)> {
        let proofs = cause.roots.iter().filter_map(|i| facts[*i].evidence.first());
        proofs.filter(|p| p.line > 0).map(|p| (p.file.clone(), p.line)).collect()
    };
    let vaguer = |cause: &Cause| {
        let own = lines(cause);
        let better = |other: &Cause| {
            let shares = other.roots.iter().any(|r| cause.roots.contains(r));
            other.score > cause.score && !shares && own.is_subset(&lines(other))
        };
        !own.is_empty() && found.iter().any(|(other, _)| better(other))
    };
    let mut dropped = found.iter().map(|(cause, _)| vaguer(cause)).collect::<Vec<_>>().into_iter();
    found.retain(|_| !dropped.next().unwrap_or(false));
}

/// Whether advice is for what starts the cause here.
fn applies(advice: &Recommend, roots: &[usize], facts: &[Fact]) -> bool {
    advice.when.is_empty() || roots.iter().any(|i| advice.when.iter().any(|p| fits(p, &facts[*i].rule)))
}

/// Whether a cause is worth naming though no way leads from it to an impact.
fn speaks_for_itself(rule: &CauseRule, roots: &[usize], facts: &[Fact]) -> bool {
    let hosts = roots.iter().map(|i| facts[*i].host.as_str()).collect::<BTreeSet<_>>().len();
    rule.standalone
        || rule.alone_on_hosts > 0 && hosts >= rule.alone_on_hosts
        || rule.alone.iter().any(|a| facts.iter().any(|f| a.speaks(f, facts)))
}

/// The facts that may start a cause, if its conditions hold.
fn roots_of(rule: &CauseRule, facts: &[Fact]) -> Option<Vec<usize>> {
    let mut roots: Vec<usize> =
        (0..facts.len()).filter(|i| rule.roots.iter().any(|p| fits(p, &facts[*i].rule))).collect();
    if roots.is_empty() || !rule.all.iter().all(|p| facts.iter().any(|f| fits(p, &f.rule))) {
        return None;
    }
    if rule.min_hosts > 0 {
        roots = widest_group(&roots, facts, rule.within_seconds * MICROS);
    }
    let hosts: BTreeSet<&str> = roots.iter().map(|i| facts[*i].host.as_str()).collect();
    (hosts.len() >= rule.min_hosts.max(1) && hosts.len() <= rule.max_hosts).then_some(roots)
}

/// The facts within one window that cover the most hosts.
fn widest_group(roots: &[usize], facts: &[Fact], within: i64) -> Vec<usize> {
    let mut best: (usize, Vec<usize>) = (0, Vec::new());
    for first in roots {
        let Some(start) = facts[*first].start else { continue };
        let group: Vec<usize> = roots
            .iter()
            .copied()
            .filter(|i| facts[*i].start.is_some_and(|s| s >= start && s - start <= within))
            .collect();
        let hosts = group.iter().map(|i| facts[*i].host.as_str()).collect::<BTreeSet<_>>().len();
        if hosts > best.0 {
            best = (hosts, group);
        }
    }
    best.1
}

/// Puts consequences below what they follow from, and names confidences.
fn order(mut found: Vec<(Cause, BTreeSet<usize>)>) -> Vec<Cause> {
    let count = found.len();
    for b in 0..count {
        let over = (0..count).filter(|a| *a != b).find(|a| {
            let (above, seen) = &found[*a];
            let (below, below_seen) = &found[b];
            // Above reaches a root of below, and below reaches none of above.
            let down = below.roots.iter().any(|r| seen.contains(r) && !above.roots.contains(r));
            let up = above.roots.iter().any(|r| below_seen.contains(r) && !below.roots.contains(r));
            let shares =
                below.roots.iter().all(|r| above.roots.contains(r)) && above.roots.len() > below.roots.len();
            above.score > NAMED
                // Where no damage shows, the way from one to the other still says which came first.
                && (!above.explains.is_empty() || below.explains.is_empty())
                && (down && !up || shares && above.score >= below.score)
        });
        if let Some(a) = over {
            found[b].0.consequence_of = Some(found[a].0.id.clone());
            found[b].0.score *= 0.5;
        }
    }
    let mut causes: Vec<Cause> = found
        .into_iter()
        .map(|(c, _)| c)
        .filter(|c| c.score >= NAMED || c.consequence_of.is_some() && c.score > 0.1)
        .collect();
    causes.sort_by(|a, b| {
        (a.consequence_of.is_some(), std::cmp::Reverse((a.score * 1000.0) as i64), &a.id).cmp(&(
            b.consequence_of.is_some(),
            std::cmp::Reverse((b.score * 1000.0) as i64),
            &b.id,
        ))
    });
    for cause in &mut causes {
        cause.confidence = match cause.score {
            s if s >= 0.75 => "strong",
            s if s >= 0.5 => "likely",
            _ => "possible",
        };
    }
    causes
}

impl Edge {
    /// The rule of this edge.
    pub fn rule<'k>(&self, knowledge: &'k Knowledge) -> &'k EdgeRule {
        &knowledge.edges[self.rule]
    }
}
