//! The report as plain text: the first screen, then the details.
//!
//! Promise: plain text, no control codes, and every claim with the file and line it rests on.

use std::fmt::Write as _;

use super::first::{with_ids, worth_details};
use super::{Lang, first};
use crate::model::{CauseOut, Report};

/// Renders the report; `details` adds everything after the first screen.
pub fn render(report: &Report, lang: Lang, details: bool) -> String {
    let mut out = first::render(report, lang);
    if details {
        render_details(&mut out, report, lang);
    }
    out
}

// Writing to a String cannot fail: what `writeln!` returns is dropped below.

fn section(out: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let lines: Vec<String> = lines.collect();
    if !lines.is_empty() {
        let _ = writeln!(out, "\n== {title}");
        for line in lines {
            let _ = writeln!(out, "- {line}");
        }
    }
}

fn render_details(out: &mut String, report: &Report, lang: Lang) {
    if !report.causes.is_empty() {
        let _ = writeln!(out, "\n== {}", lang.pick("causes", "原因"));
    }
    for cause in &report.causes {
        render_cause(out, cause, lang);
    }
    section(
        out,
        lang.pick("does not fit", "矛盾"),
        report.contradictions.iter().map(|c| with_ids(&c.text.to_string(), &c.facts)),
    );
    section(
        out,
        lang.pick("would decide more", "缺少的证据"),
        report.missing_evidence.iter().map(|m| format!("{}: {} ({})", m.file, m.decides, m.how)),
    );
    section(
        out,
        lang.pick("to do", "建议"),
        report
            .recommendations
            .iter()
            .map(|r| with_ids(&format!("[{}] {}: {} ({})", r.urgency, r.owner, r.text, r.cause), &r.facts)),
    );
    let _ = writeln!(out, "\n== {}", lang.pick("hosts", "主机"));
    for h in &report.hosts {
        let _ = writeln!(out, "{}: {} ({}); clock {}", h.name, h.zone, h.zone_evidence, h.clock);
        for y in &h.year_evidence {
            let _ = writeln!(out, "  year {y}");
        }
        for b in &h.boots {
            let word = match b.clean {
                Some(true) => lang.pick("after an orderly shutdown", "正常关机之后"),
                Some(false) => lang.pick("unclean", "非正常"),
                None => lang.pick("after what, no log is left that would tell", "没有日志可说明此前情况"),
            };
            let _ = writeln!(out, "  {} {} {word}", lang.pick("boot", "启动"), b.at);
        }
    }
    let _ = writeln!(out, "\n== {}", lang.pick("facts", "事实"));
    for f in report.facts.iter().filter(|f| worth_details(f)) {
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
        let _ = writeln!(out, "    {} {}", lang.pick("refuted by:", "可被推翻："), f.refuted_by);
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

/// All that was weighed for one cause, its consequences too.
fn render_cause(out: &mut String, cause: &CauseOut, lang: Lang) {
    let title = lang.pick(&cause.title, &cause.title_zh);
    let _ = writeln!(out, "{}. {} [{}, {:.2}] {title}", cause.rank, cause.id, cause.confidence, cause.score);
    if let Some(of) = &cause.consequence_of {
        let _ = writeln!(out, "   {} {of}", lang.pick("follows from", "源自"));
    }
    for (word, ids) in [
        (lang.pick("begins with", "始于"), &cause.roots),
        (lang.pick("explains", "解释"), &cause.explains),
        (lang.pick("supported by", "支持"), &cause.supports),
        (lang.pick("contradicted by", "反对"), &cause.contradicts),
        (lang.pick("leaves open", "未解释"), &cause.leaves_open),
    ] {
        if !ids.is_empty() {
            let more = if ids.len() > 40 { format!(" (+{})", ids.len() - 40) } else { String::new() };
            let ids = ids.iter().take(40).map(String::as_str).collect::<Vec<_>>().join(" ");
            let _ = writeln!(out, "   {word}: {ids}{more}");
        }
    }
    for edge in &cause.chain {
        let delay = edge.delay_seconds.map_or(String::new(), |d| format!(" {d:+.0} s"));
        let other = if edge.alternative.is_empty() {
            String::new()
        } else {
            format!("; {} {}", lang.pick("or:", "或："), edge.alternative)
        };
        let _ = writeln!(out, "   {} -> {}{delay}: {}{other}", edge.from, edge.to, edge.mechanism);
    }
    for point in &cause.single_points_of_failure {
        let _ = writeln!(out, "   {}: {point}", lang.pick("weak point", "薄弱环节"));
    }
    let _ = writeln!(out, "   {}: {}", lang.pick("prevented by", "本可由此避免"), cause.prevented_by);
}
