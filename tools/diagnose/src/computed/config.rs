//! Facts about configuration files: NUL runs, crontabs that cron refuses, one initiator name on two hosts.
//!
//! Promise: each names the file, the line and the byte.

use std::collections::BTreeMap;

use holdfast_evidence::NulMap;

use super::Draft;
use crate::facts::{Fact, Proof};
use crate::rules::{Role, Severity};
use crate::scan::FileReport;
use crate::words::Said;

pub(super) fn nul_facts(file: &FileReport, host: &str) -> Vec<Fact> {
    let is_config = file.kind != holdfast_evidence::FileKind::Log;
    let mut out = Vec::new();
    for run in file.nul.runs.iter().filter(|r| r.len >= 4).take(3) {
        let cause = file.nul.cause(*run);
        let what = NulMap::describe(*run);
        let proof =
            Proof { file: file.path.to_string(), line: 0, offset: run.offset, text: format!("<{what}>") };
        out.push(
            Draft {
                rule: if is_config { "config.nul-run" } else { "log.nul-run" },
                host,
                start: None,
                end: None,
                severity: if is_config { Severity::Error } else { Severity::Info },
                role: if is_config { Role::Symptom } else { Role::Context },
                title: Said::of(
                    "{what} in {file}: {why}",
                    &[("what", &what), ("file", &file.path), ("why", &cause.explain())],
                ),
                evidence: vec![proof],
                fields: BTreeMap::from([
                    ("file".to_owned(), file.path.to_string()),
                    ("cause".to_owned(), format!("{cause:?}")),
                ]),
            }
            .fact(),
        );
    }
    out
}

pub(super) fn crontab_facts(file: &FileReport, host: &str) -> Option<Fact> {
    let tab = file.crontab.as_ref()?;
    let error = tab.errors.first()?;
    let proof = Proof {
        file: file.path.to_string(),
        line: error.line,
        offset: error.offset,
        text: format!("<{}>", error.kind.words()),
    };
    Some(
        Draft {
            rule: "config.crontab-broken",
            host,
            start: None,
            end: None,
            severity: Severity::Error,
            role: Role::Symptom,
            title: Said::of(
                "{file} is refused whole by Debian's cron: {words} at line {line}, byte {offset}; its {good} good entries do not run",
                &[
                    ("file", &file.path),
                    ("words", &error.kind.words()),
                    ("line", &error.line),
                    ("offset", &error.offset),
                    ("good", &tab.entries.len()),
                ],
            ),
            evidence: vec![proof],
            fields: BTreeMap::new(),
        }
        .fact(),
    )
}

/// Hosts of one iSCSI initiator name: a fact on each of them.
pub(super) fn shared_initiators(facts: &[Fact]) -> Vec<Fact> {
    let named: Vec<(&str, &Fact)> = facts
        .iter()
        .filter(|f| f.rule == "iscsi.initiator-name")
        .filter_map(|f| Some((f.fields.get("name")?.as_str(), f)))
        .collect();
    let of = |(name, own): &(&str, &Fact)| {
        let others: Vec<&Fact> =
            named.iter().filter(|(n, f)| n == name && f.host != own.host).map(|(_, f)| *f).collect();
        let hosts = others.iter().map(|f| f.host.as_str()).collect::<Vec<_>>().join(", ");
        let proofs =
            [&[*own], others.as_slice()].concat().into_iter().flat_map(|f| f.evidence.iter().take(1));
        let draft = Draft {
            rule: "iscsi.initiator-shared",
            host: &own.host,
            start: None,
            end: None,
            severity: Severity::Warning,
            role: Role::Trigger,
            title: Said::of(
                "the iSCSI initiator name {name} is that of {hosts} too",
                &[("name", name), ("hosts", &hosts)],
            ),
            evidence: proofs.cloned().collect(),
            fields: BTreeMap::new(),
        };
        (!others.is_empty()).then(|| draft.fact())
    };
    named.iter().filter_map(of).collect()
}
