//! One log line as a record: who wrote it, when, and what it says.
//!
//! Promise: [`parse_line`] borrows from the line, allocates nothing on the hot path, and answers `None` only for a line that
//! carries no stamp of its own (a continuation or a plain text file). It tries formats by the first bytes of the line, so a
//! file that mixes them is read. Journals of systemd are no lines with a stamp: [`JournalEntry`] reads them. What a message
//! means is not decided here.

mod daemon;
mod holdfast;
mod journal;
mod syslog;

pub use holdfast::event_node;
pub use journal::{JournalEntry, JournalExport, Part as JournalPart};
pub use syslog::repeat_count;

use crate::stamp::{self, Stamp};

/// A parsed line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// When the line says it was written; `None` for kernel seconds alone.
    pub stamp: Option<Stamp>,
    /// Microseconds since the kernel started, when the line has them.
    pub uptime: Option<i64>,
    /// The host that the line names; empty when it names none.
    pub host: &'a [u8],
    /// Program; empty when the line names none.
    pub program: &'a [u8],
    /// Process id.
    pub pid: Option<u32>,
    /// The rest of the line.
    pub message: &'a [u8],
}

/// Parses one line without its newline.
pub fn parse_line(line: &[u8]) -> Option<Record<'_>> {
    let line = strip_leading_nuls(line);
    let first = *line.first()?;
    match first {
        b'<' => syslog::with_priority(line),
        b'[' => daemon::bracketed(line),
        b'0'..=b'9' => daemon::numeric(line).or_else(|| holdfast::event(line)).or_else(|| syslog::cjk(line)),
        b'A'..=b'Z' | b'a'..=b'z' => syslog::bsd(line)
            .or_else(|| holdfast::event(line))
            .or_else(|| daemon::ctime_line(line))
            .or_else(|| daemon::audit(line))
            .or_else(|| daemon::weekday(line))
            .or_else(|| daemon::decoded(line))
            .or_else(|| daemon::debug(line)),
        b'{' => holdfast::json(line),
        b' ' => syslog::cjk(line),
        _ => None,
    }
}

/// A log that was open at a crash often holds NULs before the next line.
fn strip_leading_nuls(line: &[u8]) -> &[u8] {
    let skip = line.iter().take_while(|b| **b == 0).count();
    &line[skip..]
}

pub(crate) fn record(stamp: Stamp, message: &[u8]) -> Record<'_> {
    Record { stamp: Some(stamp), uptime: None, host: b"", program: b"", pid: None, message }
}

pub(crate) fn skip_spaces(text: &[u8]) -> &[u8] {
    let skip = text.iter().take_while(|b| **b == b' ').count();
    &text[skip..]
}

/// Splits off the word up to a space.
pub(crate) fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(b' ', text).unwrap_or(text.len());
    (&text[..end], skip_spaces(&text[end..]))
}

pub(crate) fn number(text: &[u8]) -> Option<u32> {
    let (value, n) = stamp::digits(text);
    (n > 0 && n == text.len()).then_some(value)
}

#[cfg(test)]
mod tests;
