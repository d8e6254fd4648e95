//! How the analysis does on logs that strangers published, each with the cause that they found themselves.
//!
//! Promise: three outcomes that are never mixed: the first cause is right, nothing was named where there was something to
//! name, or a wrong cause was named. The logs and what their owners found stand in an index beside them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use holdfast_evidence::read::Progress;
use serde::Deserialize;

use crate::{AnalyseError, Options, analyse};

/// One published log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealLog {
    /// Its folder.
    pub name: String,
    /// Where it was published.
    pub source: String,
    /// What the people there found.
    pub found: String,
    /// Causes that say the same; none where the lines carry none.
    pub expect: Vec<String>,
}

#[derive(Deserialize)]
struct Index {
    log: Vec<RealLog>,
}

/// What came of one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The first cause is one of those expected, or none is named where none is carried.
    Right,
    /// No cause named, although the people there found one.
    Nothing,
    /// Another cause named.
    Wrong,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Outcome::Right => "right",
            Outcome::Nothing => "nothing conclusive",
            Outcome::Wrong => "wrong",
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct RealScore {
    /// The log.
    pub name: String,
    /// Lines in it.
    pub lines: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// The first cause named.
    pub named: Option<String>,
}

/// The logs could not be scored.
#[derive(Debug, thiserror::Error)]
pub enum RealError {
    /// The index is not readable.
    #[error("{}: {source}", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The index is not what it should be.
    #[error("{}: {source}", path.display())]
    Syntax {
        /// The index.
        path: PathBuf,
        /// The parser's word.
        source: Box<toml::de::Error>,
    },
    /// A log is not readable.
    #[error("{name}: {source}")]
    Log {
        /// The log.
        name: String,
        /// Why.
        source: Box<AnalyseError>,
    },
}

/// Scores every log that `folder/index.toml` names.
pub fn score_real(folder: &Path) -> Result<Vec<RealScore>, RealError> {
    let path = folder.join("index.toml");
    let text =
        std::fs::read_to_string(&path).map_err(|source| RealError::Index { path: path.clone(), source })?;
    let index: Index =
        toml::from_str(&text).map_err(|source| RealError::Syntax { path, source: Box::new(source) })?;
    let mut out = Vec::new();
    for log in index.log {
        let report = match analyse(&[folder.join(&log.name)], &Options::default(), &Progress::default()) {
            Ok(report) => report,
            Err(source) => return Err(RealError::Log { name: log.name, source: Box::new(source) }),
        };
        let named = report.causes.first().map(|c| c.id.clone());
        let outcome = match &named {
            Some(id) if log.expect.contains(id) => Outcome::Right,
            None if log.expect.is_empty() => Outcome::Right,
            None => Outcome::Nothing,
            Some(_) => Outcome::Wrong,
        };
        out.push(RealScore { name: log.name, lines: report.summary.lines, outcome, named });
    }
    Ok(out)
}

/// The table.
pub fn render_real(scores: &[RealScore]) -> String {
    let mut out = String::from("log                  lines  first cause         named\n");
    for s in scores {
        let named = s.named.as_deref().unwrap_or("-");
        let _ = writeln!(out, "{:<20} {:>5}  {:<18}  {named}", s.name, s.lines, s.outcome.word());
    }
    let count = |o: Outcome| scores.iter().filter(|s| s.outcome == o).count();
    let _ = writeln!(
        out,
        "{} logs: {} right, {} nothing conclusive, {} wrong",
        scores.len(),
        count(Outcome::Right),
        count(Outcome::Nothing),
        count(Outcome::Wrong)
    );
    out
}
