//! Holdfast's own lines: the event log of a node, and what the daemon logs as text or as JSON.
//!
//! Promise: the program is `holdfast`; the message is what rules are written for. An event's message is its JSON as it stands,
//! with kind, what and why. Sources: shell/api/src/events/files.rs (a checksum of eight hex digits, a space, JSON),
//! tracing-subscriber's formats as bin/holdfast/src/log.rs sets them.

use super::{Record, record, word};
use crate::stamp::{self, Stamp};

const PROGRAM: &[u8] = b"holdfast";

/// `9a583239 {"seq":1,"time_ms":1795559988523,...}`.
pub(super) fn event(line: &[u8]) -> Option<Record<'_>> {
    let (sum, rest) = line.split_at_checked(8)?;
    let body = rest.strip_prefix(b" ")?;
    if !body.starts_with(b"{\"seq\":") || !sum.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    event_body(body)
}

fn event_body(body: &[u8]) -> Option<Record<'_>> {
    const MARK: &[u8] = b"\"time_ms\":";
    let at = memchr::memmem::find(body, MARK)? + MARK.len();
    let len = body[at..].iter().take(15).take_while(|b| b.is_ascii_digit()).count();
    let millis: i64 = std::str::from_utf8(&body[at..at + len]).ok()?.parse().ok()?;
    let mut out = record(Stamp::from_epoch_micros(millis * 1000), body);
    out.program = PROGRAM;
    Some(out)
}

/// The node that logged an event, from the event's JSON.
pub fn event_node(message: &[u8]) -> Option<u32> {
    const MARK: &[u8] = b",\"node\":";
    let rest = message.strip_prefix(b"{\"seq\":")?;
    let value = &rest[memchr::memmem::find(rest, MARK)? + MARK.len()..];
    let (node, digits) = stamp::digits(value);
    (digits > 0).then_some(node)
}

/// A log line as JSON, `{"timestamp":"...","level":"INFO","fields":{...},"target":"holdfast_node::control"}`, or an event as
/// the API gives it. A library in the daemon logs so too; then its crate is the program.
pub(super) fn json(line: &[u8]) -> Option<Record<'_>> {
    if line.starts_with(b"{\"seq\":") {
        return event_body(line);
    }
    const TARGET: &[u8] = b"\"target\":\"";
    let rest = line.strip_prefix(b"{\"timestamp\":\"")?;
    let (stamp, _) = stamp::iso(rest)?;
    // The message may quote anything; the target stands after it.
    let target = &line[memchr::memmem::rfind(line, TARGET)? + TARGET.len()..];
    let len = target.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
    let mut out = record(stamp, line);
    out.program = if target.starts_with(PROGRAM) { PROGRAM } else { &target[..len] };
    Some(out)
}

/// Whether `LEVEL holdfast_node::control: text` follows a stamp.
pub(super) fn is_text(level: &[u8], after: &[u8]) -> bool {
    matches!(level, b"TRACE" | b"DEBUG" | b"INFO" | b"WARN" | b"ERROR") && word(after).0.starts_with(PROGRAM)
}

/// The record of such a line.
pub(super) fn text(stamp: Stamp, body: &[u8]) -> Record<'_> {
    let mut out = record(stamp, body);
    out.program = PROGRAM;
    out
}
