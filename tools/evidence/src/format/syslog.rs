//! Syslog lines: RFC 3164 with its quirks and RFC 5424.
//!
//! Promise: reads lines without a host (`Jan  7 18:14:30  iscsid: ...`), with or without a PRI, with kernel seconds in the
//! message, and corosync's and pacemaker's own files, which look alike. Sources: RFC 3164, RFC 5424, sysklogd, rsyslog.

use super::{Record, number, record, skip_spaces, word};
use crate::stamp;

/// `<13>Jan  7 ...`, `<13>1 2016-...`, `<4>[   12.345678] ...`.
pub(super) fn with_priority(line: &[u8]) -> Option<Record<'_>> {
    let close = line.iter().take(6).position(|b| *b == b'>')?;
    let rest = &line[close + 1..];
    if let Some(after) = rest.strip_prefix(b"1 ")
        && let Some(record) = rfc5424(after)
    {
        return Some(record);
    }
    match rest.first()? {
        b'[' => super::daemon::bracketed(rest),
        b'0'..=b'9' => super::daemon::numeric(rest),
        _ => bsd(rest),
    }
}

/// The part of an RFC 5424 line after `<PRI>1 `.
fn rfc5424(text: &[u8]) -> Option<Record<'_>> {
    let (when, rest) = word(text);
    let (stamp, _) = stamp::iso(when)?;
    let (host, rest) = word(rest);
    let (program, rest) = word(rest);
    let (pid, rest) = word(rest);
    let (_message_id, rest) = word(rest);
    let message = skip_structured_data(rest);
    let nil = |field: &'_ [u8]| -> bool { field == b"-" };
    let mut out = record(stamp, message);
    out.host = if nil(host) { b"" } else { host };
    out.program = if nil(program) { b"" } else { program };
    out.pid = number(pid);
    out.uptime = stamp::kernel_seconds(message).map(|(uptime, n)| {
        out.message = skip_spaces(&message[n..]);
        uptime
    });
    Some(out)
}

/// Skips `-` or `[id key="value"]...`, minding escapes.
fn skip_structured_data(text: &[u8]) -> &[u8] {
    if let Some(rest) = text.strip_prefix(b"-") {
        return strip_bom(skip_spaces(rest));
    }
    let mut at = 0;
    let (mut inside, mut quoted) = (false, false);
    while at < text.len() {
        match text[at] {
            b'\\' if quoted => at += 1,
            b'"' if inside => quoted = !quoted,
            b'[' if !quoted => inside = true,
            b']' if !quoted => inside = false,
            b' ' if !inside => break,
            _ => {}
        }
        at += 1;
    }
    strip_bom(skip_spaces(&text[at.min(text.len())..]))
}

fn strip_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// An RFC 3164 line or one of the files that look like it.
pub(super) fn bsd(line: &[u8]) -> Option<Record<'_>> {
    let (mut stamp, mut len) = stamp::bsd(line)?;
    // Some templates write the year behind the time: `Jan  7 18:14:30 2016 host tag: text`.
    if let Some([b' ', digits @ .., b' ']) = line.get(len..len + 6)
        && let Some(year @ 1970..2100) = number(digits)
    {
        stamp.civil.year = year as i32;
        len += 5;
    }
    after_stamp(stamp, &line[len..])
}

/// The same with a month in Chinese or Japanese.
pub(super) fn cjk(line: &[u8]) -> Option<Record<'_>> {
    let (stamp, len) = stamp::cjk(line)?;
    after_stamp(stamp, &line[len..])
}

fn after_stamp(stamp: stamp::Stamp, rest: &[u8]) -> Option<Record<'_>> {
    let rest = rest.strip_prefix(b" ")?;
    let mut out = record(stamp, rest);
    if rest.first() == Some(&b' ') {
        // Two spaces: the line names no host (sysklogd's own repeats are written so by some relays).
        split_tag(&mut out, skip_spaces(rest));
        return Some(out);
    }
    if rest.first() == Some(&b'[') {
        // Corosync's old files: `Jan 07 18:13:11 [1234] host corosync notice  [TOTEM ] text`.
        let close = memchr::memchr(b']', rest)?;
        out.pid = number(&rest[1..close]);
        let (host, after) = word(skip_spaces(&rest[close + 1..]));
        let (program, after) = word(after);
        out.host = host;
        out.program = program.strip_suffix(b":").unwrap_or(program);
        out.message = after;
        return Some(out);
    }
    let (first, after) = word(rest);
    if first.ends_with(b":") || first == b"last" || first == b"message" {
        // No host: the first word is already the tag, or a relay's repeat line.
        split_tag(&mut out, rest);
        return Some(out);
    }
    out.host = first;
    split_tag(&mut out, after);
    Some(out)
}

/// A line whose stamp was read: `host tag: message` follows (high-precision rsyslog files).
pub(super) fn host_and_tag<'a>(out: &mut Record<'a>, rest: &'a [u8]) {
    let (host, after) = word(rest);
    out.host = host;
    split_tag(out, after);
}

/// Splits `program[pid]: message`; kernel seconds move to `uptime`.
pub(super) fn split_tag<'a>(out: &mut Record<'a>, text: &'a [u8]) {
    out.message = text;
    let limit = text.len().min(80);
    let mut end = 0;
    while end < limit && !matches!(text[end], b':' | b'[' | b' ') {
        end += 1;
    }
    match text.get(end) {
        Some(b':') => {
            out.program = &text[..end];
            out.message = skip_spaces(&text[end + 1..]);
        }
        Some(b'[') if end > 0 => {
            let Some(close) = memchr::memchr(b']', &text[end..]) else { return };
            out.program = &text[..end];
            out.pid = number(&text[end + 1..end + close]);
            let after = &text[end + close + 1..];
            out.message = skip_spaces(after.strip_prefix(b":").unwrap_or(after));
        }
        Some(b' ') => {
            // Pacemaker 2: `pacemaker-controld  [1234] (function) notice: text`.
            let after = skip_spaces(&text[end..]);
            if after.first() == Some(&b'[')
                && let Some(close) = memchr::memchr(b']', after)
                && let Some(pid) = number(&after[1..close])
            {
                out.program = &text[..end];
                out.pid = Some(pid);
                out.message = skip_spaces(&after[close + 1..]);
            }
        }
        _ => {}
    }
    if out.message.first() == Some(&b'[')
        && let Some((uptime, n)) = stamp::kernel_seconds(out.message)
    {
        out.uptime = Some(uptime);
        out.message = skip_spaces(&out.message[n..]);
        if out.program.is_empty() {
            out.program = b"kernel";
        }
    }
}

/// The count in `last message repeated 3 times` or rsyslog's `message repeated 3 times: [ ...]`.
pub fn repeat_count(message: &[u8]) -> Option<u32> {
    const MARK: &[u8] = b"message repeated ";
    let head = &message[..message.len().min(24)];
    let at = head.windows(MARK.len()).position(|w| w == MARK)?;
    let rest = &message[at + MARK.len()..];
    let (count, n) = stamp::digits(rest);
    (n > 0 && rest[n..].starts_with(b" time")).then_some(count)
}
