//! Journals of systemd as `journalctl -o export`, `-o json` and `-o json-pretty` write them.
//!
//! Promise: an entry is whole before it is judged, whatever the order of its fields (a journal sorts them by their place on the
//! disk); binary fields are read by their length; each value is bounded. Escapes of JSON are undone, so a message reads as it
//! was logged. Source: systemd, docs/JOURNAL_EXPORT_FORMATS.md, src/shared/logs-show.c.

use serde::Deserialize;

use super::{Record, number};
use crate::stamp::Stamp;

/// Longest value kept of a field.
const MAX_FIELD: usize = 16 * 1024;

/// What matters of an entry.
#[derive(Debug, Default, Clone)]
pub struct JournalEntry {
    realtime: Option<i64>,
    /// The kernel's own count, which only its own messages have.
    uptime: Option<i64>,
    host: Vec<u8>,
    identifier: Vec<u8>,
    command: Vec<u8>,
    pid: Option<u32>,
    message: Vec<u8>,
}

impl JournalEntry {
    /// Takes a field.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        let count = || std::str::from_utf8(value).ok().and_then(|t| t.parse().ok());
        match name {
            b"__REALTIME_TIMESTAMP" => self.realtime = count(),
            b"_SOURCE_MONOTONIC_TIMESTAMP" => self.uptime = count(),
            b"_HOSTNAME" => self.host = value.to_vec(),
            b"SYSLOG_IDENTIFIER" => self.identifier = value.to_vec(),
            b"_COMM" => self.command = value.to_vec(),
            b"_PID" => self.pid = number(value),
            b"MESSAGE" => self.message = value.to_vec(),
            _ => {}
        }
    }

    /// Whether a line is a field that only `journalctl -o json-pretty` writes so; used to recognise the file.
    pub fn is_pretty(line: &[u8]) -> bool {
        let field = line.strip_prefix(b"\t\"__").unwrap_or_default();
        field.starts_with(b"CURSOR\" : \"") || field.starts_with(b"REALTIME_TIMESTAMP\" : \"")
    }

    /// One line of `journalctl -o json`, or the lines of one entry of `-o json-pretty`; `None` for any other text.
    pub fn from_json(line: &[u8]) -> Option<JournalEntry> {
        memchr::memmem::find(line, b"\"__REALTIME_TIMESTAMP\"")?;
        let fields: JsonFields = serde_json::from_slice(line).ok()?;
        let mut entry = JournalEntry::default();
        for (name, value) in [
            (&b"__REALTIME_TIMESTAMP"[..], fields.realtime),
            (b"_SOURCE_MONOTONIC_TIMESTAMP", fields.monotonic),
            (b"_HOSTNAME", fields.host),
            (b"SYSLOG_IDENTIFIER", fields.identifier),
            (b"_COMM", fields.command),
            (b"_PID", fields.pid),
            (b"MESSAGE", fields.message),
        ] {
            if let Some(value) = value.and_then(JsonValue::bytes) {
                entry.set(name, &value[..value.len().min(MAX_FIELD)]);
            }
        }
        Some(entry)
    }

    fn program(&self) -> &[u8] {
        if self.identifier.is_empty() { &self.command } else { &self.identifier }
    }

    /// The entry as a record, if it has a time and a message.
    pub fn record(&self) -> Option<Record<'_>> {
        let stamp = Stamp::from_epoch_micros(self.realtime?);
        (!self.message.is_empty()).then_some(Record {
            stamp: Some(stamp),
            uptime: self.uptime.filter(|_| self.program() == b"kernel"),
            host: &self.host,
            program: self.program(),
            pid: self.pid,
            message: &self.message,
        })
    }

    /// `host program[pid]: message`: what stands behind the time where syslog writes the same.
    pub fn line(&self) -> Vec<u8> {
        let mut out = self.host.clone();
        if !out.is_empty() {
            out.push(b' ');
        }
        out.extend_from_slice(self.program());
        if let Some(pid) = self.pid {
            out.extend_from_slice(format!("[{pid}]").as_bytes());
        }
        out.extend_from_slice(b": ");
        if let Some(uptime) = self.record().and_then(|r| r.uptime) {
            out.extend_from_slice(
                format!("[{:5}.{:06}] ", uptime / 1_000_000, uptime % 1_000_000).as_bytes(),
            );
        }
        out.extend(self.message.iter().map(|b| if *b == b'\n' { b' ' } else { *b }));
        out
    }
}

/// A value as `journalctl -o json` writes it: text; bytes, where it is no printable text; several, where the field stands
/// more than once; nothing, where it is long.
#[derive(Deserialize)]
#[serde(untagged)]
enum JsonValue {
    Text(String),
    Bytes(Vec<u8>),
    Several(Vec<String>),
    Other(serde::de::IgnoredAny),
}

impl JsonValue {
    fn bytes(self) -> Option<Vec<u8>> {
        match self {
            JsonValue::Text(text) => Some(text.into_bytes()),
            JsonValue::Bytes(bytes) => Some(bytes),
            JsonValue::Several(texts) => texts.into_iter().next().map(String::into_bytes),
            JsonValue::Other(_) => None,
        }
    }
}

#[derive(Deserialize)]
struct JsonFields {
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    realtime: Option<JsonValue>,
    #[serde(rename = "_SOURCE_MONOTONIC_TIMESTAMP")]
    monotonic: Option<JsonValue>,
    #[serde(rename = "_HOSTNAME")]
    host: Option<JsonValue>,
    #[serde(rename = "SYSLOG_IDENTIFIER")]
    identifier: Option<JsonValue>,
    #[serde(rename = "_COMM")]
    command: Option<JsonValue>,
    #[serde(rename = "_PID")]
    pid: Option<JsonValue>,
    #[serde(rename = "MESSAGE")]
    message: Option<JsonValue>,
}

/// What the reader of an export meets.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A field of the entry, with the line and the offset at which it stands.
    Field {
        /// Its name.
        name: &'a [u8],
        /// Its value, cut to a bound.
        value: &'a [u8],
        /// Line of its name, from 1.
        line: u64,
        /// Offset of its name.
        offset: u64,
    },
    /// The entry ends.
    End,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Name,
    Length,
    Data,
    Newline,
}

/// Reads an export piece by piece.
#[derive(Debug, Default)]
pub struct JournalExport {
    state: State,
    /// Offset of the next byte that is expected.
    at: u64,
    name: Vec<u8>,
    value: Vec<u8>,
    place: (u64, u64),
    length: Vec<u8>,
    left: u64,
}

impl JournalExport {
    /// Whether a line is a field that only an export file has; used to recognise the file.
    pub fn is_start(line: &[u8]) -> bool {
        line.starts_with(b"__CURSOR=") || line.starts_with(b"__REALTIME_TIMESTAMP=")
    }

    /// Takes the piece of the file at `offset`, whose first byte is in line `line`. What was left out before it (a line too long
    /// to be kept) is taken for a part of the value that is being read.
    pub fn feed(&mut self, piece: &[u8], offset: u64, mut line: u64, mut on: impl FnMut(Part<'_>)) {
        let skipped = offset.saturating_sub(self.at);
        if skipped > 0 {
            match self.state {
                State::Data if self.left >= skipped => self.left -= skipped,
                _ => self.state = State::Name,
            }
        }
        let mut from = 0;
        while from < piece.len() {
            let rest = &piece[from..];
            from += match self.state {
                State::Name => {
                    let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                    self.place = (line, offset + from as u64);
                    line += 1;
                    self.line(&rest[..end], &mut on);
                    end + 1
                }
                State::Length => {
                    let n = rest.len().min(8 - self.length.len());
                    self.length.extend_from_slice(&rest[..n]);
                    line += memchr::memchr_iter(b'\n', &rest[..n]).count() as u64;
                    if let Ok(length) = <[u8; 8]>::try_from(&self.length[..]) {
                        self.left = u64::from_le_bytes(length);
                        self.state = State::Data;
                    }
                    n
                }
                State::Data => {
                    let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                    let room = MAX_FIELD - self.value.len();
                    self.value.extend_from_slice(&rest[..n.min(room)]);
                    line += memchr::memchr_iter(b'\n', &rest[..n]).count() as u64;
                    self.left -= n as u64;
                    if self.left == 0 {
                        let (line, offset) = self.place;
                        on(Part::Field { name: &self.name, value: &self.value, line, offset });
                        self.state = State::Newline;
                    }
                    n
                }
                State::Newline => {
                    // Anything else than the newline that must follow is no export any more: go on at the next line.
                    line += u64::from(rest[0] == b'\n');
                    self.state = State::Name;
                    usize::from(rest[0] == b'\n')
                }
            };
        }
        self.at = offset + piece.len() as u64;
    }

    fn line(&mut self, line: &[u8], on: &mut impl FnMut(Part<'_>)) {
        if line.is_empty() {
            return on(Part::End);
        }
        match memchr::memchr(b'=', line) {
            Some(eq) => {
                let value = &line[eq + 1..];
                let value = &value[..value.len().min(MAX_FIELD)];
                let (number, offset) = self.place;
                on(Part::Field { name: &line[..eq], value, line: number, offset });
            }
            None if line.iter().all(|b| matches!(b, b'A'..=b'Z' | b'0'..=b'9' | b'_')) => {
                self.name = line.to_vec();
                self.value.clear();
                self.length.clear();
                self.state = State::Length;
            }
            None => {}
        }
    }
}
