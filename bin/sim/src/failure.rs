//! What the checkers find: the property that does not hold, by its name, with the seed and the last lines of the
//! trace.

use std::collections::VecDeque;
use std::fmt;
use thiserror::Error;

/// How many lines of the trace are kept.
const TRACE_LINES: usize = 200;

/// A property that every run must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checker {
    /// Each block is a register: a read returns what was written last, or what is being written.
    Linearizability,
    /// After everything healed, what was acknowledged is still there.
    Durability,
    /// After everything healed, every request is answered and every copy is back in S.
    Progress,
    /// At the end all copies hold the same.
    EqualCopies,
    /// What an engine keeps in memory stays within its limits.
    BoundedMemory,
    /// One owner activates an epoch (I3).
    OneOwner,
    /// No request fails, and nothing happens that only a fault which was not injected explains.
    NoError,
    /// The engine does not panic.
    NoPanic,
}

impl fmt::Display for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Checker::Linearizability => "linearizability",
            Checker::Durability => "durability",
            Checker::Progress => "progress",
            Checker::EqualCopies => "equal copies",
            Checker::BoundedMemory => "bounded memory",
            Checker::OneOwner => "one owner",
            Checker::NoError => "no error",
            Checker::NoPanic => "no panic",
        })
    }
}

/// A property that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{checker}: {detail}")]
pub struct Failure {
    /// Which.
    pub checker: Checker,
    /// What was seen, for people.
    pub detail: String,
}

impl Failure {
    /// A failure of this checker.
    pub fn new(checker: Checker, detail: impl Into<String>) -> Self {
        Self { checker, detail: detail.into() }
    }
}

/// A failure with what is needed to bring it back.
#[derive(Clone, Debug, Error)]
#[error("seed {seed}: {failure}")]
pub struct Report {
    /// The run's seed.
    pub seed: u64,
    /// What did not hold.
    #[source]
    pub failure: Failure,
    /// The last lines of the trace, oldest first.
    pub trace: Vec<String>,
}

/// The last lines of what happened.
#[derive(Debug)]
pub struct Trace {
    lines: VecDeque<String>,
    /// Print each line as well.
    pub echo: bool,
}

impl Trace {
    /// An empty trace.
    pub fn new(echo: bool) -> Self {
        Self { lines: VecDeque::new(), echo }
    }

    /// Adds a line.
    pub fn note(&mut self, line: String) {
        if self.echo {
            println!("{line}");
        }
        if self.lines.len() == TRACE_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The lines, oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}
