//! The report as data: what `--json` prints and what every other output is made from.
//!
//! Promise: the field names are a contract; the same bundle gives the same bytes (no clock, no hash order, no machine name).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::words::Said;

/// The whole report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What happened, in short.
    pub summary: Summary,
    /// Hosts.
    pub hosts: Vec<HostOut>,
    /// Facts in order of time, shortened for a lane chart.
    pub timeline: Vec<Moment>,
    /// All facts.
    pub facts: Vec<FactOut>,
    /// Ranked causes.
    pub causes: Vec<CauseOut>,
    /// What does not fit.
    pub contradictions: Vec<Contradiction>,
    /// What would decide what stays open.
    pub missing_evidence: Vec<Missing>,
    /// What to do.
    pub recommendations: Vec<RecommendOut>,
    /// What could not be read as it stands.
    pub notices: Vec<NoticeOut>,
    /// Kinds of line that no rule knows and that appear only near the incident.
    pub new_lines: Vec<NewLine>,
}

/// In short.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// `cause-found` or `nothing-conclusive`.
    pub verdict: &'static str,
    /// One sentence.
    pub headline: String,
    /// The sentence in Chinese.
    pub headline_zh: String,
    /// First impact.
    pub incident_start: Option<String>,
    /// Last impact.
    pub incident_end: Option<String>,
    /// The start of the time that was asked for.
    pub since: Option<String>,
    /// Its end.
    pub until: Option<String>,
    /// Files that might have spoken and could not be read, or not whole; `notices` names them.
    pub unread: u64,
    /// Files read.
    pub files: u64,
    /// Lines read.
    pub lines: u64,
    /// Bytes read, decompressed.
    pub bytes: u64,
}

/// A host.
#[derive(Debug, Clone, Serialize)]
pub struct HostOut {
    /// Name.
    pub name: String,
    /// `UTC+08:00`.
    pub zone: String,
    /// How the zone is known.
    pub zone_evidence: String,
    /// How the year is known.
    pub year_evidence: Vec<String>,
    /// How its clock compares.
    pub clock: String,
    /// Boots seen: when and whether orderly.
    pub boots: Vec<BootOut>,
}

/// A boot.
#[derive(Debug, Clone, Serialize)]
pub struct BootOut {
    /// When.
    pub at: String,
    /// `true`, `false`, or null when no log is left that would tell.
    pub clean: Option<bool>,
}

/// A point in the timeline.
#[derive(Debug, Clone, Serialize)]
pub struct Moment {
    /// Local time of the host with its offset.
    pub at: String,
    /// UTC microseconds.
    pub micros: i64,
    /// Host.
    pub host: String,
    /// Fact.
    pub fact: String,
    /// Text.
    pub text: String,
}

/// A fact.
#[derive(Debug, Clone, Serialize)]
pub struct FactOut {
    /// Id.
    pub id: String,
    /// Rule.
    pub rule: String,
    /// Host.
    pub host: String,
    /// Severity.
    pub severity: crate::rules::Severity,
    /// Role.
    pub role: crate::rules::Role,
    /// From.
    pub start: Option<String>,
    /// To.
    pub end: Option<String>,
    /// UTC microseconds of the start.
    pub start_micros: Option<i64>,
    /// UTC microseconds of the end.
    pub end_micros: Option<i64>,
    /// Lines.
    pub count: u64,
    /// One sentence.
    pub title: String,
    /// In Chinese.
    pub title_zh: String,
    /// Captured values.
    pub fields: BTreeMap<String, String>,
    /// Where the knowledge comes from.
    pub source: String,
    /// What would refute it.
    pub refuted_by: Said,
    /// Lines.
    pub evidence: Vec<EvidenceOut>,
}

/// A line.
#[derive(Debug, Clone, Serialize)]
pub struct EvidenceOut {
    /// File.
    pub file: String,
    /// Line number.
    pub line: u64,
    /// Byte offset.
    pub offset: u64,
    /// The line itself.
    pub text: String,
}

/// A cause.
#[derive(Debug, Clone, Serialize)]
pub struct CauseOut {
    /// Rank from 1.
    pub rank: usize,
    /// Id.
    pub id: String,
    /// One sentence.
    pub title: String,
    /// In Chinese.
    pub title_zh: String,
    /// 0 to 1.
    pub score: f64,
    /// In a word.
    pub confidence: &'static str,
    /// Facts that start it.
    pub roots: Vec<String>,
    /// Steps from root to impact.
    pub chain: Vec<EdgeOut>,
    /// Impacts explained.
    pub explains: Vec<String>,
    /// Impacts left open.
    pub leaves_open: Vec<String>,
    /// Facts that support it.
    pub supports: Vec<String>,
    /// Facts that contradict it.
    pub contradicts: Vec<String>,
    /// The cause that it follows from.
    pub consequence_of: Option<String>,
    /// Single points of failure on its way.
    pub single_points_of_failure: Vec<Said>,
    /// What would have prevented it.
    pub prevented_by: Said,
}

/// A step.
#[derive(Debug, Clone, Serialize)]
pub struct EdgeOut {
    /// Causing fact.
    pub from: String,
    /// Caused fact.
    pub to: String,
    /// Seconds between.
    pub delay_seconds: Option<f64>,
    /// How.
    pub mechanism: Said,
    /// What else could have.
    pub alternative: Said,
}

/// Something that does not fit.
#[derive(Debug, Clone, Serialize)]
pub struct Contradiction {
    /// What.
    pub text: Said,
    /// Facts.
    pub facts: Vec<String>,
}

/// Something missing.
#[derive(Debug, Clone, Serialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    /// Which file.
    pub file: Said,
    /// What it would decide.
    pub decides: Said,
    /// How to get it.
    pub how: Said,
    /// Facts that it would explain.
    pub facts: Vec<String>,
}

/// Something to do.
#[derive(Debug, Clone, Serialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecommendOut {
    /// `now`, `soon`, `later`.
    pub urgency: Said,
    /// Who.
    pub owner: Said,
    /// What.
    pub text: Said,
    /// For which cause.
    pub cause: String,
    /// Facts that call for it.
    pub facts: Vec<String>,
}

/// A word on reading.
#[derive(Debug, Clone, Serialize)]
pub struct NoticeOut {
    /// Path.
    pub path: String,
    /// Kind.
    pub kind: String,
    /// Detail.
    pub detail: String,
}

impl NoticeOut {
    /// Whether it is about a file that might have spoken and was not read, or not whole.
    pub fn is_unread(&self) -> bool {
        ["Unreadable", "Truncated", "Damaged", "Bomb", "Limit", "NeedsTool"].contains(&self.kind.as_str())
    }
}

/// A new kind of line.
#[derive(Debug, Clone, Serialize)]
pub struct NewLine {
    /// Host.
    pub host: String,
    /// Template with `<*>` for what varies.
    pub template: String,
    /// How often.
    pub count: u64,
    /// When first.
    pub first: String,
    /// An example.
    pub evidence: EvidenceOut,
}
