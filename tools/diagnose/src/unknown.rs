//! Lines that no rule knows: new kinds of line near the incident surface by themselves.
//!
//! Promise: shapes seen before the incident are the host's usual talk; only shapes that begin within ten minutes before the
//! first impact or five after it are shown, clustered by Drain into templates. It proves nothing and is never part of a chain.

use std::collections::BTreeMap;

use holdfast_evidence::civil::MICROS;

use crate::facts::Proof;
use crate::model::{EvidenceOut, NewLine};
use crate::scan::FileReport;
use crate::settle::Settled;

/// How long before the first impact a new kind of line counts.
const BEFORE: i64 = 600 * MICROS;
/// How long after.
const AFTER: i64 = 300 * MICROS;
/// History needed before the incident to call something new.
const HISTORY: i64 = 1800 * MICROS;
/// Templates shown.
const MAX_SHOWN: usize = 20;

/// New kinds of line near the first impact.
pub fn new_lines(
    files: &[FileReport],
    settled: &Settled,
    incident: Option<i64>,
    shown: impl Fn(&str, i64) -> String,
) -> Vec<NewLine> {
    let Some(incident) = incident else { return Vec::new() };
    let Ok(miner) = logdrain::Miner::builder().build() else { return Vec::new() };
    let mut found: BTreeMap<(String, u64), (u64, i64, Proof)> = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        let host = &settled.file_host[index];
        let began = file.span.and_then(|(a, _)| settled.instant(index, host, a));
        if began.is_none_or(|b| incident - b < HISTORY) {
            continue;
        }
        let mut shapes: Vec<_> = file.shapes.values().collect();
        shapes.sort_by(|a, b| a.first.place.cmp(&b.first.place));
        for shape in shapes {
            let Some(at) = settled.instant(index, host, shape.first.at) else { continue };
            if at < incident - BEFORE || at > incident + AFTER {
                continue;
            }
            let message = message_of(&shape.first.text);
            let cluster = miner.add(message).cluster_id;
            let entry =
                found.entry((host.clone(), cluster)).or_insert_with(|| (0, at, Proof::from(&shape.first)));
            entry.0 += shape.count;
        }
    }
    let templates: BTreeMap<u64, String> =
        miner.clusters().iter().map(|c| (c.id(), c.template().to_owned())).collect();
    let mut out: Vec<(i64, NewLine)> = found
        .into_iter()
        .map(|((host, cluster), (count, at, proof))| {
            let line = NewLine {
                template: templates.get(&cluster).cloned().unwrap_or_default(),
                count,
                first: shown(&host, at),
                host,
                evidence: EvidenceOut {
                    file: proof.file,
                    line: proof.line,
                    offset: proof.offset,
                    text: proof.text,
                },
            };
            (at, line)
        })
        .collect();
    out.sort_by(|a, b| (a.0, &a.1.host, &a.1.template).cmp(&(b.0, &b.1.host, &b.1.template)));
    out.into_iter().map(|(_, l)| l).take(MAX_SHOWN).collect()
}

/// The text after the header, so that stamps do not shape templates.
fn message_of(line: &str) -> &str {
    match holdfast_evidence::parse_line(line.as_bytes()) {
        Some(record) => {
            let from = line.len() - record.message.len().min(line.len());
            line.get(from..).unwrap_or(line)
        }
        None => line,
    }
}
