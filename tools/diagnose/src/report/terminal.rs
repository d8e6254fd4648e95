//! The report on a terminal: one screen first, details after.
//!
//! Promise: plain text, no control codes, and every claim with the file and line it rests on.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Lang;
use crate::model::{CauseOut, FactOut, Report};
use crate::rules::Severity;

/// Steps of a chain shown on the first screen.
const FIRST_SCREEN_STEPS: usize = 10;

/// Renders the report; `details` adds everything after the first screen.
pub fn render(report: &Report, lang: Lang, details: bool) -> String {
    let mut out = String::new();
    let facts: BTreeMap<&str, &FactOut> = report.facts.iter().map(|f| (f.id.as_str(), f)).collect();
    let s = &report.summary;
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{}", lang.pick(&s.headline, &s.headline_zh).to_uppercase_first());
    if let (Some(a), Some(b)) = (&s.incident_start, &s.incident_end) {
        let _ = writeln!(out, "{} {a} .. {b}", lang.pick("impact:", "影响时间："));
    }
    let _ = writeln!(
        out,
        "{}",
        match lang {
            Lang::En => format!(
                "read: {} files, {} lines, {}{}",
                s.files,
                s.lines,
                bytes(s.bytes),
                hosts(report, " of ")
            ),
            Lang::Zh =>
                format!("读取：{} 个文件，{} 行，{}{}", s.files, s.lines, bytes(s.bytes), hosts(report, "，")),
        }
    );
    for cause in report.causes.iter().filter(|c| c.consequence_of.is_none()).take(3) {
        render_cause(&mut out, cause, &facts, lang);
    }
    section(
        &mut out,
        lang.pick("weak points on the way", "薄弱环节"),
        report.causes.iter().take(1).flat_map(|c| c.single_points_of_failure.iter().take(4).cloned()),
    );
    section(
        &mut out,
        lang.pick("does not fit", "矛盾"),
        report.contradictions.iter().take(4).map(|c| {
            format!("{} [{}]", c.text, c.facts.iter().take(8).cloned().collect::<Vec<_>>().join(" "))
        }),
    );
    section(
        &mut out,
        lang.pick("would decide more", "缺少的证据"),
        report.missing_evidence.iter().take(5).map(|m| format!("{}: {} ({})", m.file, m.decides, m.how)),
    );
    section(
        &mut out,
        lang.pick("to do", "建议"),
        report.recommendations.iter().take(6).map(|r| format!("[{}] {}: {}", r.urgency, r.owner, r.text)),
    );
    if details {
        render_details(&mut out, report, lang);
    }
    out
}

trait UppercaseFirst {
    fn to_uppercase_first(&self) -> String;
}

impl UppercaseFirst for str {
    fn to_uppercase_first(&self) -> String {
        let mut chars = self.chars();
        chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
    }
}

fn section(out: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let lines: Vec<String> = lines.collect();
    if !lines.is_empty() {
        let _ = writeln!(out, "\n{title}");
        for line in lines {
            let _ = writeln!(out, "  - {line}");
        }
    }
}

fn hosts(report: &Report, before: &str) -> String {
    if report.hosts.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = report.hosts.iter().map(|h| h.name.as_str()).take(8).collect();
    let more = report.hosts.len().saturating_sub(names.len());
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{before}{}{tail}", names.join(", "))
}

fn bytes(n: u64) -> String {
    match n {
        n if n >= 10 << 30 => format!("{} GiB", n >> 30),
        n if n >= 10 << 20 => format!("{} MiB", n >> 20),
        n if n >= 10 << 10 => format!("{} KiB", n >> 10),
        n => format!("{n} B"),
    }
}

fn render_cause(out: &mut String, cause: &CauseOut, facts: &BTreeMap<&str, &FactOut>, lang: Lang) {
    let _ = writeln!(
        out,
        "\n{}. {} [{}, {:.2}] {}",
        cause.rank,
        cause.id,
        cause.confidence,
        cause.score,
        lang.pick(&cause.title, &cause.title_zh)
    );
    let mut shown = 0;
    let mut seen_rules: Vec<(&str, &str)> = Vec::new();
    for id in cause.roots.iter().take(1) {
        if let Some(f) = facts.get(id.as_str()) {
            step(out, f, "", lang);
        }
    }
    for edge in &cause.chain {
        let (Some(from), Some(to)) = (facts.get(edge.from.as_str()), facts.get(edge.to.as_str())) else {
            continue;
        };
        // One step per kind: five hosts with the same step are one line here and five in the details.
        if shown >= FIRST_SCREEN_STEPS || seen_rules.contains(&(&from.rule, &to.rule)) {
            continue;
        }
        seen_rules.push((&from.rule, &to.rule));
        shown += 1;
        let delay = edge.delay_seconds.map_or(String::new(), |d| format!(" {d:+.0} s"));
        step(out, to, &format!("{}{delay}: {}", edge.from, edge.mechanism), lang);
    }
    let _ = writeln!(out, "   {} {}", lang.pick("prevented by:", "本可由此避免："), cause.prevented_by);
}

fn step(out: &mut String, fact: &FactOut, why: &str, lang: Lang) {
    let at = fact.start.as_deref().unwrap_or("-");
    let times = if fact.count > 1 { format!(" (x{})", fact.count) } else { String::new() };
    let _ = writeln!(
        out,
        "   {at} {}: {}{times} [{}]",
        fact.host,
        lang.pick(&fact.title, &fact.title_zh),
        fact.id
    );
    if !why.is_empty() {
        let _ = writeln!(out, "       <- {why}");
    }
    if let Some(e) = fact.evidence.first() {
        let _ =
            writeln!(out, "       {}:{}: {}", e.file, e.line, e.text.chars().take(140).collect::<String>());
    }
}

fn render_details(out: &mut String, report: &Report, lang: Lang) {
    let _ = writeln!(out, "\n{}", lang.pick("== hosts", "== 主机"));
    for h in &report.hosts {
        let _ = writeln!(out, "{}: {} ({}); clock {}", h.name, h.zone, h.zone_evidence, h.clock);
        for y in &h.year_evidence {
            let _ = writeln!(out, "  year {y}");
        }
        for b in &h.boots {
            let word = match b.clean {
                Some(true) => "after an orderly shutdown",
                Some(false) => "unclean",
                None => "after what, no log is left that would tell",
            };
            let _ = writeln!(out, "  boot {} {word}", b.at);
        }
    }
    let _ = writeln!(out, "\n{}", lang.pick("== facts", "== 事实"));
    for f in report.facts.iter().filter(|f| f.severity > Severity::Info || f.count < 50) {
        let at = f.start.as_deref().unwrap_or("-");
        let until =
            if f.end != f.start { format!("..{}", f.end.as_deref().unwrap_or("")) } else { String::new() };
        let _ = writeln!(
            out,
            "{} {at}{until} {} [{:?}] {} (x{}) {}",
            f.id,
            f.host,
            f.severity,
            f.rule,
            f.count,
            lang.pick(&f.title, &f.title_zh)
        );
        for e in &f.evidence {
            let _ = writeln!(out, "    {}:{} @{}: {}", e.file, e.line, e.offset, e.text);
        }
        let _ = writeln!(out, "    refuted by: {}", f.refuted_by);
    }
    section(
        out,
        lang.pick("new kinds of line near the incident", "故障前后新出现的日志"),
        report.new_lines.iter().map(|n| format!("{} {} x{} {}", n.first, n.host, n.count, n.template)),
    );
    section(
        out,
        lang.pick("read with a remark", "读取说明"),
        report.notices.iter().take(50).map(|n| format!("{} [{}] {}", n.path, n.kind, n.detail)),
    );
}
