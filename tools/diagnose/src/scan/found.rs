//! What a scan finds in one file, as plain data.
//!
//! Promise: every list is bounded by the scanner; times stay as the file gives them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use holdfast_evidence::place::{FileKind, Place};
use holdfast_evidence::read::NoticeKind;
use holdfast_evidence::{NulMap, crontab, wtmp};

/// A time as one file gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    /// An instant: microseconds since 1970 UTC.
    Utc(i64),
    /// Local time with a year, as if it were UTC.
    Local(i64),
    /// Local time without a year: microseconds from a nominal leap year, plus 366 days for each new year seen.
    Yearless(i64),
    /// Microseconds since the kernel started; the number tells boots of one file apart.
    Uptime(i64, u32),
    /// No time at all.
    None,
}

impl At {
    /// The number for differences within one file.
    pub fn micros(self) -> i64 {
        match self {
            At::Utc(m) | At::Local(m) | At::Yearless(m) | At::Uptime(m, _) => m,
            At::None => 0,
        }
    }
}

/// A line kept as evidence.
#[derive(Debug, Clone)]
pub struct Line {
    /// Where it stands.
    pub place: Place,
    /// When, as the file says.
    pub at: At,
    /// Its text, made printable.
    pub text: String,
}

/// Lines of one rule, host and key that belong together.
#[derive(Debug, Clone)]
pub struct Episode {
    /// Index of the rule.
    pub rule: usize,
    /// Host as the lines name it; empty when they do not.
    pub host: String,
    /// Captures of the first line.
    pub fields: BTreeMap<String, String>,
    /// First line.
    pub first: Line,
    /// Last line.
    pub last: Line,
    /// Lines, repeats expanded.
    pub count: u64,
    /// The line before the first one, for boots.
    pub before: Option<Line>,
}

/// A silence in one file.
#[derive(Debug, Clone, Copy)]
pub struct Gap {
    /// Last stamp before.
    pub from: At,
    /// First stamp after.
    pub to: At,
    /// Line number after the gap.
    pub line: u64,
    /// Its offset.
    pub offset: u64,
}

/// The wall clock moved against the kernel's own count.
#[derive(Debug, Clone)]
pub struct ClockStep {
    /// Seconds, positive for forward.
    pub seconds: f64,
    /// The first line after it.
    pub line: Line,
}

/// A shape of line that no rule knows.
#[derive(Debug, Clone)]
pub struct Shape {
    /// How often.
    pub count: u64,
    /// First line.
    pub first: Line,
}

/// Everything that one file gave.
#[derive(Debug, Clone)]
pub struct FileReport {
    /// Logical path.
    pub path: Arc<str>,
    /// The part of the path that belongs to the host's tree.
    pub root: String,
    /// Kind.
    pub kind: FileKind,
    /// Modification time.
    pub mtime: Option<i64>,
    /// Lines and decompressed bytes.
    pub lines: u64,
    /// Decompressed bytes.
    pub bytes: u64,
    /// Hosts that its lines name, with counts.
    pub hosts: BTreeMap<String, u64>,
    /// First and last time.
    pub span: Option<(At, At)>,
    /// Year of the first line that has one and no zone, for the record of evidence.
    pub zone_votes: BTreeMap<i32, (u64, Line)>,
    /// Matches.
    pub episodes: Vec<Episode>,
    /// Largest silences.
    pub gaps: Vec<Gap>,
    /// Clock steps.
    pub steps: Vec<ClockStep>,
    /// Boot instants in local time, from lines with both clocks: (At of a line, uptime then).
    pub uptimes: Vec<(At, i64)>,
    /// NUL runs.
    pub nul: NulMap,
    /// Shapes that no rule knows.
    pub shapes: HashMap<u64, Shape>,
    /// The crontab, when it is one.
    pub crontab: Option<crontab::Crontab>,
    /// Whether anything but the kernel writes into it.
    pub userspace: bool,
    /// The Holdfast node whose events these are.
    pub node: Option<u32>,
    /// Login records.
    pub wtmp: Vec<wtmp::WtmpRecord>,
    /// Content of a small configuration file.
    pub content: Option<Vec<u8>>,
    /// Whether any kept line was GBK.
    pub gbk: bool,
    /// Notices of the scan: kind and detail.
    pub notices: Vec<(NoticeKind, String)>,
    /// Hash of the first block, to see copies.
    pub fingerprint: u64,
}
