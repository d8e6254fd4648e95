//! Files that daemons write themselves: lich, Ceph, libvirt, QEMU, Open vSwitch, audit, dmesg, and anything that starts with a
//! date and a year.
//!
//! Promise: the program is set when the format itself names it. Sources: OVS lib/vlog.c, libvirt src/util/virlog.c, Ceph
//! src/log/Entry.h, kernel printk and `dmesg -T`, lich lines as quoted in incident notes.

use super::{Record, holdfast, number, record, skip_spaces, syslog, word};
use crate::stamp;
use crate::zone::{Offset, from_suffix};

/// `[  12.345678] text`, `[Thu Jan  7 18:13:11 2016] text`, or journalctl's `[  12.345678] host tag: text`.
pub(super) fn bracketed(line: &[u8]) -> Option<Record<'_>> {
    if let Some((uptime, n)) = stamp::kernel_seconds(line) {
        let message = skip_spaces(&line[n..]);
        let mut out =
            Record { stamp: None, uptime: Some(uptime), host: b"", program: b"kernel", pid: None, message };
        let (first, after) = word(message);
        if !first.ends_with(b":") && (after.starts_with(b"kernel: ") || has_pid_tag(after)) {
            syslog::host_and_tag(&mut out, message);
        }
        return Some(out);
    }
    let close = memchr::memchr(b']', &line[..line.len().min(64)])?;
    let inner = &line[1..close];
    let rest = skip_spaces(&line[close + 1..]);
    if let Some((stamp, _)) = stamp::ctime(inner) {
        let mut out = record(stamp, rest);
        out.program = b"kernel";
        return Some(out);
    }
    let (stamp, _) = stamp::iso(inner)?;
    Some(record(stamp, rest))
}

/// A line that starts with a digit: ISO dates and epoch seconds.
pub(super) fn numeric(line: &[u8]) -> Option<Record<'_>> {
    if let Some((stamp, len)) = stamp::iso(line) {
        return Some(after_iso(stamp, &line[len..]));
    }
    let (stamp, len) = stamp::epoch(line)?;
    let body = skip_spaces(&line[len..]);
    let mut out = record(stamp, body);
    if looks_like_tag(word(body).1) {
        syslog::host_and_tag(&mut out, body);
    }
    Some(out)
}

/// `Tue 2026-03-03 10:00:00 CET host tag: text` of `journalctl -o short-full`. Only UTC says how far it is from UTC.
pub(super) fn weekday(line: &[u8]) -> Option<Record<'_>> {
    const DAYS: [&[u8]; 7] = [b"Mon ", b"Tue ", b"Wed ", b"Thu ", b"Fri ", b"Sat ", b"Sun "];
    if !DAYS.contains(&line.get(..4)?) {
        return None;
    }
    let (mut stamp, len) = stamp::iso(&line[4..])?;
    let (zone, body) = word(skip_spaces(&line[4 + len..]));
    stamp.offset = match zone {
        b"UTC" => Some(Offset::UTC),
        _ => from_suffix(zone).map(|(offset, _)| offset),
    };
    let mut out = record(stamp, body);
    syslog::host_and_tag(&mut out, body);
    Some(out)
}

/// `kern  :err   : [  12.345678] text` of `dmesg -x`.
pub(super) fn decoded(line: &[u8]) -> Option<Record<'_>> {
    let mut fields = line.get(..40).unwrap_or(line).splitn(3, |b| *b == b':');
    let (facility, level, rest) = (fields.next()?, fields.next()?, fields.next()?);
    let is_name = |f: &[u8]| !f.is_empty() && f.iter().all(|b| b.is_ascii_alphanumeric() || *b == b' ');
    if !is_name(facility) || !is_name(level) || !rest.starts_with(b" [") {
        return None;
    }
    bracketed(&line[facility.len() + level.len() + 3..])
}

/// `debug 2026-03-03T10:00:00.123+0000 7f0b4c7f8700 -1 osd.3 12 text`: Ceph in a container.
pub(super) fn debug(line: &[u8]) -> Option<Record<'_>> {
    numeric(line.strip_prefix(b"debug ")?)
}

fn after_iso(stamp: stamp::Stamp, rest: &[u8]) -> Record<'_> {
    if stamp.epoch.is_some() {
        let mut out = record(stamp, skip_spaces(rest));
        out.program = b"lich";
        out.pid = lich_pid(out.message);
        return out;
    }
    match rest.first() {
        Some(b'|') => ovs(stamp, &rest[1..]),
        Some(b':') => libvirt(stamp, skip_spaces(&rest[1..])),
        Some(b' ') => {
            let body = skip_spaces(rest);
            let (first, after) = word(body);
            if first.len() >= 8
                && first.iter().all(u8::is_ascii_hexdigit)
                && after.first().is_some_and(|b| b.is_ascii_digit() || *b == b'-')
            {
                return ceph(stamp, body, after);
            }
            if holdfast::is_text(first, after) {
                return holdfast::text(stamp, body);
            }
            let mut out = record(stamp, body);
            // A first word with a colon is the tag itself, as in QEMU's `2026-03-03T10:00:32.1Z qemu-kvm: text`.
            if looks_like_tag(body) {
                syslog::split_tag(&mut out, body);
            } else if looks_like_tag(after) {
                syslog::host_and_tag(&mut out, body);
            }
            out
        }
        _ => record(stamp, rest),
    }
}

/// Whether text starts with `program[12]:` or `program:`.
fn looks_like_tag(text: &[u8]) -> bool {
    let (tag, _) = word(text);
    let tag = match tag.strip_suffix(b":") {
        Some(tag) => tag,
        None => return false,
    };
    !tag.is_empty() && tag.iter().all(|b| b.is_ascii_alphanumeric() || b"-_./@[]()".contains(b))
}

/// Whether text starts with `program[12]: `.
fn has_pid_tag(text: &[u8]) -> bool {
    let (tag, _) = word(text);
    looks_like_tag(text) && tag.ends_with(b"]:") && tag.contains(&b'[')
}

/// The first bracketed number of a lich message is its process.
fn lich_pid(message: &[u8]) -> Option<u32> {
    let open = memchr::memchr(b'[', message)?;
    let close = memchr::memchr(b']', &message[open..])?;
    number(&message[open + 1..open + close])
}

/// `00012|bridge|INFO|text` after the stamp of Open vSwitch.
fn ovs(stamp: stamp::Stamp, rest: &[u8]) -> Record<'_> {
    let body = match memchr::memchr(b'|', rest) {
        Some(at) if number(&rest[..at]).is_some() => &rest[at + 1..],
        _ => rest,
    };
    let mut out = record(stamp, body);
    out.program = b"ovs";
    out
}

/// `1234: error : function:56 : text` after the stamp of libvirt and its QEMU logs.
fn libvirt(stamp: stamp::Stamp, rest: &[u8]) -> Record<'_> {
    let mut out = record(stamp, rest);
    if let Some(colon) = memchr::memchr(b':', rest)
        && let Some(pid) = number(&rest[..colon])
    {
        out.pid = Some(pid);
        out.program = b"libvirt";
        out.message = skip_spaces(&rest[colon + 1..]);
    } else {
        out.program = b"qemu";
    }
    out
}

/// `7f0b4c7f8700 -1 osd.3 12 text` or `mon.a (mon.0) 5 : cluster [WRN] text`.
fn ceph<'a>(stamp: stamp::Stamp, _body: &'a [u8], after: &'a [u8]) -> Record<'a> {
    let (_level, message) = word(after);
    let mut out = record(stamp, message);
    out.program = b"ceph";
    out
}

/// `Thu Jan  7 18:13:11 2016 text` or `...: text`.
pub(super) fn ctime_line(line: &[u8]) -> Option<Record<'_>> {
    let (stamp, len) = stamp::ctime(line)?;
    let rest = &line[len..];
    Some(record(stamp, skip_spaces(rest.strip_prefix(b":").unwrap_or(rest))))
}

/// `type=SYSTEM_BOOT msg=audit(1452161591.123:45): text`.
pub(super) fn audit(line: &[u8]) -> Option<Record<'_>> {
    const MARK: &[u8] = b"msg=audit(";
    let head = &line[..line.len().min(120)];
    if !head.starts_with(b"type=") && !head.starts_with(b"node=") {
        return None;
    }
    let at = head.windows(MARK.len()).position(|w| w == MARK)? + MARK.len();
    let (stamp, _) = stamp::epoch(&line[at..])?;
    let mut out = record(stamp, line);
    out.program = b"audit";
    Some(out)
}
