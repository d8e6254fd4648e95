//! The subcommands that show and check what the program knows: rules, computed facts, causes.
//!
//! Promise: every id that a report prints can be explained here.

use std::process::ExitCode;

use clap::ArgMatches;

use super::{fail, print};
use crate::computed::known;
use crate::facts::fits;
use crate::knowledge::Knowledge;
use crate::rules::RuleSet;
use crate::words::chinese;

pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    let (rules, knowledge) = match (RuleSet::builtin(), Knowledge::builtin()) {
        (Ok(r), Ok(k)) => (r, k),
        (Err(e), _) | (_, Err(e)) => return fail(&e.to_string()),
    };
    match matches.subcommand() {
        Some(("ls", _)) => {
            for rule in &rules.rules {
                print(&format!(
                    "{:<28} {:<9} {}\n",
                    rule.id,
                    format!("{:?}", rule.severity).to_lowercase(),
                    rule.title
                ));
            }
            for k in &known::KNOWN {
                print(&format!("{:<28} computed  {}\n", k.id, k.about));
            }
            for cause in &knowledge.causes {
                print(&format!("{:<28} cause     {}\n", cause.id, cause.title));
            }
            ExitCode::SUCCESS
        }
        Some(("explain", sub)) => {
            explain(&rules, &knowledge, sub.get_one::<String>("id").map_or("", String::as_str))
        }
        _ => lint(&rules, &knowledge),
    }
}

/// What nothing finds: it marks evidence that is always worth having.
const MARK: &str = "log.none";

fn explain(rules: &RuleSet, knowledge: &Knowledge, id: &str) -> ExitCode {
    if let Some(index) = rules.index(id) {
        let r = &rules.rules[index];
        print(&format!(
            "{}\n  {}\n  {}\n  severity {:?}, role {:?}\n  {} {}\n  {} {}\n  source     {}\n  refuted by {}\n  example    {}\n",
            r.id,
            r.title,
            chinese(&r.title),
            r.severity,
            r.role,
            if r.path.is_some() { "path      " } else { "pattern   " },
            r.path.as_ref().unwrap_or(&r.pattern),
            if r.path.is_some() { "holds     " } else { "literals  " },
            if r.path.is_some() { &r.holds } else { &r.literals }.join(" | "),
            r.source,
            r.refuted_by,
            r.example
        ));
        return ExitCode::SUCCESS;
    }
    if let Some(k) = known::of(id) {
        print(&format!("{id}\n  {}\n  source     {}\n  refuted by {}\n", k.about, k.source, k.refuted_by));
        return ExitCode::SUCCESS;
    }
    match knowledge.causes.iter().find(|c| c.id == id) {
        Some(cause) => {
            print(&cause.explain());
            ExitCode::SUCCESS
        }
        None => fail(&format!("no rule and no cause {id}; `rules ls` lists them")),
    }
}

/// Names that the knowledge uses but nothing can produce, rules that miss their example, sources that nobody can look up.
pub fn lint_findings(rules: &RuleSet, knowledge: &Knowledge) -> Vec<String> {
    let mut out = Vec::new();
    for (index, rule) in rules.rules.iter().enumerate() {
        for line in rule.examples().filter(|_| rule.path.is_none()) {
            if rules.matches(index, line.as_bytes()).is_none() || !rules.reaches(index, line.as_bytes()) {
                out.push(format!("{} misses its example {line}", rule.id));
            }
        }
        if rule.path.is_some() && rules.file_matches(&rule.example, rule.example_text.as_bytes()).is_empty() {
            out.push(format!("{} misses its example, or decides by a name alone", rule.id));
        }
        if rule.refuted_by.trim().is_empty() || rule.refuted_by.starts_with("none") {
            out.push(format!("nothing is said that would refute {}", rule.id));
        }
        if !rule.source_can_be_read() {
            out.push(format!("the source of {} names no file and no address: {}", rule.id, rule.source));
        }
    }
    for pattern in knowledge.patterns() {
        let known = rules.rules.iter().any(|r| fits(pattern, &r.id))
            || known::KNOWN.iter().any(|k| fits(pattern, k.id))
            || fits(pattern, MARK);
        if !known {
            out.push(format!("{pattern} is named by a cause or edge but nothing finds it"));
        }
    }
    out
}

fn lint(rules: &RuleSet, knowledge: &Knowledge) -> ExitCode {
    let findings = lint_findings(rules, knowledge);
    for finding in &findings {
        print(&format!("{finding}\n"));
    }
    print(&format!(
        "{} rules, {} causes, {} findings\n",
        rules.rules.len(),
        knowledge.causes.len(),
        findings.len()
    ));
    if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
