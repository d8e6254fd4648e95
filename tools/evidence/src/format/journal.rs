//! Journals of systemd as `journalctl -o export` and `-o json` write them.
//!
//! Promise: export entries are assembled field by field with a bound on each field; JSON lines are searched for the few
//! fields that matter without building a tree. Source: systemd, docs/JOURNAL_EXPORT_FORMATS.md.

use super::{Record, number};
use crate::stamp::Stamp;

/// Longest message kept from an export entry.
const MAX_FIELD: usize = 16 * 1024;

/// An entry of the export format that is being assembled.
#[derive(Debug, Default)]
pub struct JournalExport {
    realtime: Option<i64>,
    host: Vec<u8>,
    program: Vec<u8>,
    pid: Option<u32>,
    message: Vec<u8>,
}

impl JournalExport {
    /// Whether a line is a field that only an export file has; used to recognise the file.
    pub fn is_start(line: &[u8]) -> bool {
        line.starts_with(b"__CURSOR=") || line.starts_with(b"__REALTIME_TIMESTAMP=")
    }

    /// Takes one line; an empty line ends an entry.
    pub fn feed(&mut self, line: &[u8]) {
        let Some(eq) = memchr::memchr(b'=', line) else { return };
        let (name, value) = (&line[..eq], &line[eq + 1..]);
        let bounded = &value[..value.len().min(MAX_FIELD)];
        match name {
            b"__REALTIME_TIMESTAMP" => {
                self.realtime = std::str::from_utf8(value).ok().and_then(|t| t.parse().ok())
            }
            b"_HOSTNAME" => self.host = bounded.to_vec(),
            b"SYSLOG_IDENTIFIER" => self.program = bounded.to_vec(),
            b"_COMM" if self.program.is_empty() => self.program = bounded.to_vec(),
            b"_PID" => self.pid = number(value),
            b"MESSAGE" => self.message = bounded.to_vec(),
            _ => {}
        }
    }

    /// The finished entry, if it has a time and a message.
    pub fn record(&self) -> Option<Record<'_>> {
        let stamp = Stamp::from_epoch_micros(self.realtime?);
        (!self.message.is_empty()).then_some(Record {
            stamp: Some(stamp),
            uptime: None,
            host: &self.host,
            program: &self.program,
            pid: self.pid,
            message: &self.message,
        })
    }

    /// Forgets the entry.
    pub fn clear(&mut self) {
        *self = JournalExport::default();
    }
}

/// One line of `journalctl -o json`. Escapes in the message stay as they are written.
pub fn parse_json(line: &[u8]) -> Option<Record<'_>> {
    let micros: i64 = std::str::from_utf8(field(line, b"\"__REALTIME_TIMESTAMP\"")?).ok()?.parse().ok()?;
    let program = field(line, b"\"SYSLOG_IDENTIFIER\"").or_else(|| field(line, b"\"_COMM\"")).unwrap_or(b"");
    Some(Record {
        stamp: Some(Stamp::from_epoch_micros(micros)),
        uptime: None,
        host: field(line, b"\"_HOSTNAME\"").unwrap_or(b""),
        program,
        pid: field(line, b"\"_PID\"").and_then(number),
        message: field(line, b"\"MESSAGE\"")?,
    })
}

/// The text of a string field, or `None`.
fn field<'a>(line: &'a [u8], quoted_name: &[u8]) -> Option<&'a [u8]> {
    let at = memchr::memmem::find(line, quoted_name)? + quoted_name.len();
    let rest = &line[at..];
    let rest = &rest[rest.iter().position(|b| !matches!(b, b' ' | b':'))?..];
    let body = rest.strip_prefix(b"\"")?;
    let mut end = 0;
    while end < body.len() && body[end] != b'"' {
        end += 1 + usize::from(body[end] == b'\\');
    }
    body.get(..end)
}
