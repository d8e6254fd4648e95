//! Facts about configuration files: NUL runs and crontabs that cron refuses.
//!
//! Promise: each names the file, the line and the byte.

use std::collections::BTreeMap;

use holdfast_evidence::NulMap;

use super::Draft;
use crate::facts::{Fact, Proof};
use crate::rules::{Role, Severity};
use crate::scan::FileReport;

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
                title: format!("{what} in {}: {}", file.path, cause.explain()),
                title_zh: format!("{} 中有 {what}", file.path),
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
            title: format!(
                "{} is refused whole by Debian's cron: {} at line {}, byte {}; its {} good entries do not run",
                file.path,
                error.kind.words(),
                error.line,
                error.offset,
                tab.entries.len()
            ),
            title_zh: format!("{} 被 Debian cron 整体拒绝：第 {} 行 {}", file.path, error.line, error.kind.words()),
            evidence: vec![proof],
            fields: BTreeMap::new(),
        }
        .fact(),
    )
}
