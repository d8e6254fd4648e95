//! The first screen: what an operator needs at three in the morning, in 40 lines or so of 100 columns.
//!
//! Promise: every fact that a step names stands above it with its host and time, every claim has its file and line, and what
//! does not fit a line is in the details, never lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::Lang;
use super::wrap::{COLUMNS, cut, paragraph};
use crate::decides::{is_failure, is_sign};
use crate::model::{CauseOut, Contradiction, EdgeOut, FactOut, Report};
use crate::rules::Severity;

/// Steps of the chain shown.
const STEPS: usize = 11;
/// Kinds of fact shown that start the cause too, or support it.
const BESIDE: usize = 3;
/// Indent of what belongs to a step.
const HANG: usize = 6;

type Facts<'a> = BTreeMap<&'a str, &'a FactOut>;

/// Renders it.
pub fn render(report: &Report, lang: Lang) -> String {
    let facts: Facts = report.facts.iter().map(|f| (f.id.as_str(), f)).collect();
    let mut screen = Screen { out: String::new(), facts, lang, day: String::new() };
    screen.head(report);
    let mut causes = report.causes.iter().filter(|c| c.consequence_of.is_none());
    match causes.next() {
        Some(first) => screen.cause(first),
        None => screen.failed(report),
    }
    for cause in causes.take(2) {
        screen.other(cause);
    }
    let weak = report
        .causes
        .iter()
        .take(1)
        .flat_map(|c| c.single_points_of_failure.iter().take(2).map(ToString::to_string));
    screen.section(lang.pick("weak points on the way", "薄弱环节"), weak);
    let open: Vec<String> = report.contradictions.iter().take(3).map(|c| screen.contradiction(c)).collect();
    let open = open.into_iter();
    screen.section(lang.pick("does not fit", "矛盾"), open);
    let missing =
        report.missing_evidence.iter().take(3).map(|m| format!("{}: {} ({})", m.file, m.decides, m.how));
    screen.section(lang.pick("would decide more", "缺少的证据"), missing);
    // What can wait is in the details, unless it is all there is.
    let (urgent, later): (Vec<_>, Vec<_>) =
        report.recommendations.iter().partition(|r| &*r.urgency != "later");
    let urgent = if urgent.is_empty() { later } else { urgent };
    let todo = urgent.iter().take(4).map(|r| format!("[{}] {}: {}", r.urgency, r.owner, r.text));
    screen.section(lang.pick("to do", "建议"), todo);
    screen.out
}

/// A text with the facts it speaks of.
pub fn with_ids(text: &str, ids: &[String]) -> String {
    if ids.is_empty() {
        return text.to_owned();
    }
    let more = if ids.len() > 8 { " ..." } else { "" };
    format!("{text} [{}{more}]", ids.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(" "))
}

/// A sentence as a headline.
pub fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

fn bytes(n: u64) -> String {
    match n {
        n if n >= 10 << 30 => format!("{} GiB", n >> 30),
        n if n >= 10 << 20 => format!("{} MiB", n >> 20),
        n if n >= 10 << 10 => format!("{} KiB", n >> 10),
        n => format!("{n} B"),
    }
}

type Step<'a> = (&'a FactOut, Option<&'a EdgeOut>);

/// The chain as it is shown: facts in an order in which each stands after what led to it; and the worst that came of it.
fn steps<'a>(cause: &'a CauseOut, facts: &Facts<'a>) -> (Vec<Step<'a>>, Option<&'a str>) {
    let into: BTreeMap<&str, &EdgeOut> = cause.chain.iter().map(|e| (e.to.as_str(), e)).collect();
    let way = |end: &'a str| -> Vec<&'a str> {
        let mut way = vec![end];
        while let Some(edge) = way.last().and_then(|at| into.get(at))
            && !way.contains(&edge.from.as_str())
        {
            way.push(&edge.from);
        }
        way.reverse();
        way
    };
    // The worst that came of it first: all hosts before one, the longest way.
    let mut ends: Vec<(&FactOut, Vec<&str>)> = cause
        .chain
        .iter()
        .filter(|e| cause.explains.contains(&e.to) || !cause.chain.iter().any(|n| n.from == e.to))
        .filter_map(|e| Some((*facts.get(e.to.as_str())?, way(&e.to))))
        .collect();
    ends.sort_by_key(|(f, way)| {
        let explained = cause.explains.contains(&f.id);
        std::cmp::Reverse((explained, f.severity, f.host == "cluster", way.len()))
    });
    let worst = ends.first().map(|(f, _)| f.id.as_str());
    let mut shown: Vec<&str> = Vec::new();
    let mut kinds: BTreeSet<&str> = BTreeSet::new();
    loop {
        // Then, for each kind of end that is not there yet, the one that needs the fewest further steps.
        let news = |way: &[&str]| way.iter().filter(|id| !shown.contains(id)).count();
        let open = ends.iter().filter(|(f, _)| !kinds.contains(f.rule.as_str()));
        let next = if shown.is_empty() { open.into_iter().next() } else { open.min_by_key(|(_, w)| news(w)) };
        let Some((_, way)) = next else { break };
        if !shown.is_empty() && shown.len() + news(way) > STEPS {
            break;
        }
        for id in way {
            if !shown.contains(id) {
                shown.push(id);
            }
            kinds.extend(facts.get(id).map(|f| f.rule.as_str()));
        }
    }
    if shown.is_empty() {
        shown.extend(cause.roots.first().map(String::as_str));
    }
    let of = |id: &&'a str| Some((*facts.get(*id)?, into.get(*id).copied()));
    (shown.iter().filter_map(of).collect(), worst)
}

struct Screen<'a> {
    out: String,
    facts: Facts<'a>,
    lang: Lang,
    /// The day and zone of the last time shown.
    day: String,
}

impl<'a> Screen<'a> {
    // Writing to a String cannot fail.
    fn line(&mut self, text: &str) {
        let _ = writeln!(self.out, "{text}");
    }

    fn head(&mut self, report: &Report) {
        let (s, lang) = (&report.summary, self.lang);
        paragraph(&mut self.out, "", 2, &capital(lang.pick(&s.headline, &s.headline_zh)));
        if s.since.is_some() || s.until.is_some() {
            let of = |t: &Option<String>| t.clone().unwrap_or_default();
            self.line(&format!(
                "{} {} .. {}",
                lang.pick("asked for:", "所选时段："),
                of(&s.since),
                of(&s.until)
            ));
        }
        if let (Some(a), Some(b)) = (&s.incident_start, &s.incident_end) {
            self.line(&format!("{} {a} .. {b}", lang.pick("impact:", "影响时间：")));
        }
        let names: Vec<&str> = report.hosts.iter().map(|h| h.name.as_str()).take(8).collect();
        let more = report.hosts.len() - names.len();
        let mut hosts = names.join(", ");
        if more > 0 {
            hosts += &format!(" (+{more})");
        }
        let size = bytes(s.bytes);
        let mut read = match lang {
            Lang::En => format!("read: {} files, {} lines, {size}", s.files, s.lines),
            Lang::Zh => format!("读取：{} 个文件，{} 行，{size}", s.files, s.lines),
        };
        if !names.is_empty() {
            read += &format!("{}{hosts}", lang.pick(" of ", "，"));
        }
        paragraph(&mut self.out, "", 6, &read);
        if s.unread > 0 {
            let list: Vec<String> = report
                .notices
                .iter()
                .filter(|n| n.is_unread())
                .take(2)
                .map(|n| format!("{}: {}", n.path, n.detail))
                .collect();
            let more = s.unread as usize - list.len();
            let tail = if more > 0 { format!("; +{more}") } else { String::new() };
            let word = lang.pick("files not read whole", "个文件未完整读取");
            paragraph(&mut self.out, "", 6, &format!("{} {word}: {}{tail}", s.unread, list.join("; ")));
        }
    }

    fn cause(&mut self, cause: &'a CauseOut) {
        let lang = self.lang;
        self.line("");
        let head = format!("{}. {} [{}, {:.2}]", cause.rank, cause.id, cause.confidence, cause.score);
        self.line(&head);
        let (steps, worst) = steps(cause, &self.facts);
        let mut kinds: BTreeSet<&str> = steps.iter().map(|(f, _)| f.rule.as_str()).collect();
        // What started it is told in order of time; what has none, and what is too much, in one paragraph.
        let (mut begin, rest): (Vec<&FactOut>, Vec<&FactOut>) =
            self.one_of_each(&cause.roots, &mut kinds).into_iter().partition(|f| f.start.is_some());
        let late = begin.split_off(begin.len().min(BESIDE));
        let mut steps = steps.into_iter();
        let first = steps.next().map(|(f, _)| f);
        begin.extend(first);
        begin.sort_by_key(|f| f.start_micros);
        for fact in begin {
            self.step(fact, &cause.roots, None, first.is_some_and(|f| f.id == fact.id));
        }
        self.named(lang.pick("begins too with:", "同时始于："), &[late, rest].concat());
        for (fact, edge) in steps {
            self.step(fact, &cause.explains, edge, worst == Some(&fact.id) && fact.host != "cluster");
        }
        let supports = self.one_of_each(&cause.supports, &mut kinds);
        self.named(lang.pick("supported by:", "支持："), &supports);
        let against = self.one_of_each(&cause.contradicts, &mut BTreeSet::new());
        self.named(lang.pick("against it:", "反对："), &against);
    }

    /// Without a cause: what failed, or else the signs of trouble; one fact of each kind, the worst of them in order of time.
    fn failed(&mut self, report: &'a Report) {
        let is_bad = |f: &FactOut| is_failure(f.severity, f.role);
        let calm = !report.facts.iter().any(is_bad);
        let bad = |f: &&FactOut| if calm { is_sign(f.severity, f.role) } else { is_bad(f) };
        let mut kinds = BTreeSet::new();
        let mut list: Vec<&FactOut> =
            report.facts.iter().filter(bad).filter(|f| kinds.insert(f.rule.as_str())).collect();
        if list.is_empty() {
            return;
        }
        let all: Vec<String> = report.facts.iter().filter(bad).map(|f| f.id.clone()).collect();
        list.sort_by_key(|f| (std::cmp::Reverse(f.severity), f.start_micros));
        let more = list.len().saturating_sub(STEPS);
        list.truncate(STEPS);
        list.sort_by_key(|f| (f.start_micros.is_none(), f.start_micros));
        self.line("");
        let heads = if calm { ("signs of trouble", "异常迹象") } else { ("what failed", "故障") };
        self.line(self.lang.pick(heads.0, heads.1));
        for fact in list {
            self.step(fact, &all, None, true);
        }
        if more > 0 {
            let text = format_more(more, self.lang);
            self.line(&format!("   {text}"));
        }
    }

    /// A contradiction with the first of its facts in words: its ids say nothing to who reads only this screen.
    fn contradiction(&self, open: &Contradiction) -> String {
        let Some(first) = open.facts.first().and_then(|id| self.facts.get(id.as_str())) else {
            return open.text.to_string();
        };
        let title = self.lang.pick(&first.title, &first.title_zh);
        let more = open.facts.len() - 1;
        let tail = if more > 0 { format!("; +{more}") } else { String::new() };
        format!("{}: {} {title} [{}]{tail}", open.text, first.host, place(first))
    }

    /// One fact of each kind that is not among `kinds` yet.
    fn one_of_each(&self, ids: &[String], kinds: &mut BTreeSet<&'a str>) -> Vec<&'a FactOut> {
        let list = ids.iter().filter_map(|id| self.facts.get(id.as_str()).copied());
        list.filter(|f| kinds.insert(f.rule.as_str())).collect()
    }

    fn named(&mut self, word: &str, list: &[&FactOut]) {
        if list.is_empty() {
            return;
        }
        let lang = self.lang;
        let of = |f: &&FactOut| format!("{} ({} {})", lang.pick(&f.title, &f.title_zh), f.host, place(f));
        let mut text = list.iter().take(BESIDE).map(of).collect::<Vec<_>>().join("; ");
        if list.len() > BESIDE {
            text += &format!("; {}", format_more(list.len() - BESIDE, lang));
        }
        paragraph(&mut self.out, "   ", 5, &format!("{word} {text}"));
    }

    /// The day and the zone, when they differ from those of the last step.
    fn clock(&mut self, fact: &FactOut) -> Option<String> {
        let (day, rest) = fact.start.as_deref().and_then(|s| s.split_once('T'))?;
        let (time, zone) = rest.split_at(rest.find(['+', '-', 'Z']).unwrap_or(rest.len()));
        let day = format!("{day} UTC{zone}");
        if day != self.day {
            self.line(&format!("   {day}"));
            self.day = day;
        }
        Some(time.chars().take(8).collect())
    }

    /// `alike` are facts of which others of this kind are named by their hosts.
    fn step(&mut self, fact: &FactOut, alike: &[String], edge: Option<&EdgeOut>, with_line: bool) {
        let clock = self.clock(fact).unwrap_or_else(|| "--:--:--".to_owned());
        let lang = self.lang;
        let mut text = format!("{} {}", fact.host, lang.pick(&fact.title, &fact.title_zh));
        if fact.count > 1 {
            let last = fact.end.as_deref().and_then(|e| e.split_once('T')).map_or("", |(_, t)| t);
            let same = fact.end == fact.start || last.is_empty();
            let last: String = last.chars().take(8).collect();
            let tail =
                if same { String::new() } else { format!("{}{last}", lang.pick(", last ", "，最后 ")) };
            text += &format!(" (x{}{tail})", fact.count);
        }
        text += &format!(" [{}]", place(fact));
        let hosts: BTreeSet<&str> = alike
            .iter()
            .filter_map(|id| self.facts.get(id.as_str()))
            .filter(|f| f.rule == fact.rule && f.host != fact.host)
            .map(|f| f.host.as_str())
            .collect();
        if !hosts.is_empty() {
            let names: Vec<&str> = hosts.iter().copied().take(4).collect();
            let more = if hosts.len() > 4 { format!(" (+{})", hosts.len() - 4) } else { String::new() };
            text += &format!("; {} {}{more}", lang.pick("also", "另有"), names.join(", "));
        }
        paragraph(&mut self.out, &format!("   {clock:8} "), HANG, &text);
        // That hosts make up the cluster needs no word.
        if let Some(edge) = edge.filter(|_| fact.host != "cluster") {
            let why = format!("<- {}: {}", self.from(edge, fact), edge.mechanism);
            paragraph(&mut self.out, &format!("{:HANG$}", ""), HANG + 3, &why);
        }
        if with_line && let Some(e) = fact.evidence.first() {
            let line = format!("{:HANG$}| {}", "", e.text);
            self.line(&cut(&line, COLUMNS));
        }
    }

    /// What led to a fact: its id, its host when that is another, and the time between.
    fn from(&self, edge: &EdgeOut, to: &FactOut) -> String {
        let mut text = edge.from.clone();
        let Some(from) = self.facts.get(edge.from.as_str()) else { return text };
        if from.host != to.host && from.host != "cluster" && to.host != "cluster" {
            text += &format!("{}{}", self.lang.pick(" on ", " 于 "), from.host);
        }
        if let Some(delay) = edge.delay_seconds {
            let since_start = from.start_micros.zip(to.start_micros).map(|(a, b)| (b - a) as f64 / 1e6);
            let of_last = since_start.is_some_and(|s| (s - delay).abs() > 1.0);
            let word =
                if of_last { self.lang.pick(" after its last line", "（自其最后一行）") } else { "" };
            text += &format!(" {delay:+.0} s{word}");
        }
        text
    }

    fn other(&mut self, cause: &CauseOut) {
        let lang = self.lang;
        self.line("");
        let roots = cause.roots.first().and_then(|id| self.facts.get(id.as_str()));
        let at = roots.map_or(String::new(), |f| format!(" ({} {})", f.host, place(f)));
        let title = lang.pick(&cause.title, &cause.title_zh);
        let text =
            format!("{}. {} [{}, {:.2}] {title}{at}", cause.rank, cause.id, cause.confidence, cause.score);
        paragraph(&mut self.out, "", 3, &text);
    }

    fn section(&mut self, title: &str, lines: impl Iterator<Item = String>) {
        let lines: Vec<String> = lines.collect();
        if lines.is_empty() {
            return;
        }
        self.line("");
        self.line(title);
        for line in lines {
            paragraph(&mut self.out, "  - ", 4, &line);
        }
    }
}

fn format_more(n: usize, lang: Lang) -> String {
    match lang {
        Lang::En => format!("and {n} more kinds of fact"),
        Lang::Zh => format!("另有 {n} 类事实"),
    }
}

/// The fact and where its first line stands; the whole path is in the details.
fn place(fact: &FactOut) -> String {
    let at = fact.evidence.first().map(|e| {
        let name = e.file.rsplit('/').next().unwrap_or(&e.file);
        if e.line > 0 { format!(" {name}:{}", e.line) } else { format!(" {name} @{}", e.offset) }
    });
    format!("{}{}", fact.id, at.unwrap_or_default())
}

/// Whether a fact is told in the details: a flood of ordinary ones is not.
pub fn worth_details(fact: &FactOut) -> bool {
    fact.severity > Severity::Info || fact.count < 50
}
