//! The stamp at the start of a log line, in every form that the programs we read use.
//!
//! Promise: a stamp says which of its parts were written (year, zone, epoch) and invents none; an impossible date is no stamp.
//! Sources: RFC 3164 4.1.2, RFC 3339, printk, OVS vlog, libvirt and QEMU logs, Ceph, lich.

use crate::civil::{Civil, MICROS, month_of};
use crate::zone::{Offset, from_suffix};

/// When a line says it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The civil time as written; `year` is 0 when none was written.
    pub civil: Civil,
    /// The offset, when written (also when only an epoch was written: then UTC).
    pub offset: Option<Offset>,
    /// Epoch seconds written beside the local time.
    pub epoch: Option<i64>,
}

impl Stamp {
    /// Whether the year was written.
    pub fn has_year(&self) -> bool {
        self.civil.year != 0
    }

    /// A stamp that is an exact instant.
    pub fn from_epoch_micros(micros: i64) -> Stamp {
        Stamp {
            civil: Civil::from_micros(micros),
            offset: Some(Offset::UTC),
            epoch: Some(micros.div_euclid(MICROS)),
        }
    }
}

/// Reads a run of digits of at most nine places.
pub(crate) fn digits(text: &[u8]) -> (u32, usize) {
    let mut value = 0u32;
    let mut len = 0;
    while len < 9 && len < text.len() && text[len].is_ascii_digit() {
        value = value * 10 + u32::from(text[len] - b'0');
        len += 1;
    }
    (value, len)
}

#[inline]
fn two(text: &[u8], at: usize) -> Option<u8> {
    let (a, b) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
    (a <= 9 && b <= 9).then_some(a * 10 + b)
}

/// `hh:mm:ss` at the start, then an optional fraction after `.` or `,`; gives the fields and the length.
fn time_of_day(text: &[u8]) -> Option<(u8, u8, u8, u32, usize)> {
    if text.len() < 8 || text[2] != b':' || text[5] != b':' {
        return None;
    }
    let (hour, minute, second) = (two(text, 0)?, two(text, 3)?, two(text, 6)?);
    let mut len = 8;
    let mut micro = 0;
    if text.len() > 9 && matches!(text[8], b'.' | b',') && text[9].is_ascii_digit() {
        let (value, n) = digits(&text[9..]);
        micro = if n <= 6 { value * 10u32.pow(6 - n as u32) } else { value / 10u32.pow(n as u32 - 6) };
        len = 9 + n;
    }
    Some((hour, minute, second, micro, len))
}

/// `Jan  7 18:14:30`, also with a zero-padded or unpadded day, an optional fraction, and an optional year after the day.
pub fn bsd(text: &[u8]) -> Option<(Stamp, usize)> {
    if text.len() < 14 || text[3] != b' ' {
        return None;
    }
    let month = month_of(&text[..3])?;
    let mut at = 3 + text[3..].iter().take_while(|b| **b == b' ').count();
    let (day, n) = digits(text.get(at..)?);
    if n == 0 || n > 2 {
        return None;
    }
    at += n;
    if text.get(at) != Some(&b' ') {
        return None;
    }
    at += 1;
    let mut year = 0;
    // Cisco and some appliances write the year between the day and the time.
    if let (y, 4) = digits(text.get(at..)?)
        && text.get(at + 4) == Some(&b' ')
    {
        year = y as i32;
        at += 5;
    }
    let (hour, minute, second, micro, len) = time_of_day(text.get(at..)?)?;
    let civil = Civil { year, month, day: day as u8, hour, minute, second, micro };
    let check = if year == 0 { Civil { year: 2000, ..civil } } else { civil };
    check.is_valid().then_some((Stamp { civil, offset: None, epoch: None }, at + len))
}

/// `9月 16 19:31:41`, `9 月 16 日 19:31:41`: what journalctl writes in a Chinese or Japanese locale.
pub fn cjk(text: &[u8]) -> Option<(Stamp, usize)> {
    const MONTH: &[u8] = "月".as_bytes();
    const DAY: &[u8] = "日".as_bytes();
    let spaces = |at: usize| at + text[at..].iter().take_while(|b| **b == b' ').count();
    let start = spaces(0);
    let (month, n) = digits(text.get(start..)?);
    let at = spaces(start + n);
    if n == 0 || n > 2 || !text[at..].starts_with(MONTH) {
        return None;
    }
    let at = spaces(at + MONTH.len());
    let (day, n) = digits(&text[at..]);
    if n == 0 || n > 2 {
        return None;
    }
    let mut at = spaces(at + n);
    if text[at..].starts_with(DAY) {
        at = spaces(at + DAY.len());
    }
    let (hour, minute, second, micro, len) = time_of_day(&text[at..])?;
    let civil = Civil { year: 0, month: month as u8, day: day as u8, hour, minute, second, micro };
    let check = Civil { year: 2000, ..civil };
    check.is_valid().then_some((Stamp { civil, offset: None, epoch: None }, at + len))
}

/// `2016-01-07 18:13:11`, `2016-01-07T18:13:11.123456+08:00`, `2016/01/07 18:13:11`.
pub fn iso(text: &[u8]) -> Option<(Stamp, usize)> {
    if text.len() < 19
        || !matches!(text[4], b'-' | b'/')
        || text[7] != text[4]
        || !matches!(text[10], b' ' | b'T' | b'-' | b'.')
    {
        return None;
    }
    let (year, n) = digits(&text[..4]);
    if n != 4 || year < 1970 {
        return None;
    }
    let (month, day) = (two(text, 5)?, two(text, 8)?);
    let (hour, minute, second, micro, len) = time_of_day(&text[11..])?;
    let civil = Civil { year: year as i32, month, day, hour, minute, second, micro };
    if !civil.is_valid() {
        return None;
    }
    let mut end = 11 + len;
    let mut offset = None;
    let mut epoch = None;
    if let Some((found, n)) = text.get(end..).and_then(from_suffix) {
        offset = Some(found);
        end += n;
    } else if text.get(end) == Some(&b'[') {
        // lich: the epoch second follows in brackets.
        let rest = &text[end + 1..];
        let n = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if (9..=11).contains(&n) && rest.get(n) == Some(&b']') {
            epoch = std::str::from_utf8(&rest[..n]).ok().and_then(|t| t.parse().ok());
            end += n + 2;
        }
    }
    Some((Stamp { civil, offset, epoch }, end))
}

/// `Thu Jan  7 18:13:11 2016`, as ctime(3) and `dmesg -T` print it.
pub fn ctime(text: &[u8]) -> Option<(Stamp, usize)> {
    if text.len() < 24 || text[3] != b' ' || !text[..3].iter().all(u8::is_ascii_alphabetic) {
        return None;
    }
    let (stamp, len) = bsd(&text[4..])?;
    let rest = &text[4 + len..];
    if rest.first() != Some(&b' ') {
        return None;
    }
    // A zone word may stand between the time and the year.
    let mut skip = 1;
    let word = rest[1..].iter().take_while(|b| b.is_ascii_uppercase()).count();
    if word > 0 && rest.get(1 + word) == Some(&b' ') {
        skip += word + 1;
    }
    let (year, n) = digits(rest.get(skip..)?);
    (n == 4).then(|| {
        let civil = Civil { year: year as i32, ..stamp.civil };
        (Stamp { civil, ..stamp }, 4 + len + skip + n)
    })
}

/// `1452161591.123456` (with a fraction) as an instant.
pub fn epoch(text: &[u8]) -> Option<(Stamp, usize)> {
    let whole = text.iter().take_while(|b| b.is_ascii_digit()).count();
    if !(9..=10).contains(&whole) || text.get(whole) != Some(&b'.') {
        return None;
    }
    let seconds: i64 = std::str::from_utf8(&text[..whole]).ok()?.parse().ok()?;
    let (fraction, n) = digits(&text[whole + 1..]);
    if n == 0 || n > 6 {
        return None;
    }
    let micros = seconds * MICROS + i64::from(fraction) * 10i64.pow(6 - n as u32);
    Some((Stamp::from_epoch_micros(micros), whole + 1 + n))
}

/// `[  123.456789]`: microseconds since the kernel started, and the length with the bracket.
pub fn kernel_seconds(text: &[u8]) -> Option<(i64, usize)> {
    if text.first() != Some(&b'[') {
        return None;
    }
    let spaces = text[1..].iter().take_while(|b| **b == b' ').count();
    let at = 1 + spaces;
    let (seconds, n) = digits(text.get(at..)?);
    let dot = at + n;
    if n == 0 || text.get(dot) != Some(&b'.') {
        return None;
    }
    let (fraction, places) = digits(text.get(dot + 1..)?);
    let end = dot + 1 + places;
    if places != 6 || text.get(end) != Some(&b']') {
        return None;
    }
    Some((i64::from(seconds) * MICROS + i64::from(fraction), end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(result: Option<(Stamp, usize)>) -> String {
        match result {
            Some((s, n)) => {
                format!("{} {:?} {:?} {n}", s.civil.display(true), s.offset.map(|o| o.0), s.epoch)
            }
            None => "none".into(),
        }
    }

    #[test]
    fn syslog_stamps_have_one_or_two_spaces_and_no_year() {
        assert_eq!(shown(bsd(b"Jan  7 18:14:30 cvk1")), "0000-01-07 18:14:30 None None 15");
        assert_eq!(shown(bsd(b"Jan 7 18:14:30 cvk1")), "0000-01-07 18:14:30 None None 14");
        assert_eq!(shown(bsd(b"Feb 29 00:00:00 x")), "0000-02-29 00:00:00 None None 15");
        assert_eq!(shown(bsd(b"Feb 30 00:00:00 x")), "none");
        assert_eq!(shown(bsd(b"Jan  7 25:14:30 cvk1")), "none");
    }

    #[test]
    fn a_lich_stamp_carries_its_epoch() {
        assert_eq!(
            shown(iso(b"2016-01-07 18:13:11[1452161591] x")),
            "2016-01-07 18:13:11 None Some(1452161591) 31"
        );
    }

    #[test]
    fn iso_stamps_keep_their_zone_and_fraction() {
        assert_eq!(
            shown(iso(b"2026-11-24T20:33:01.5+08:00 h")),
            "2026-11-24 20:33:01.500000 Some(28800) None 27"
        );
        assert_eq!(
            shown(iso(b"2026-11-24T20:33:01.123Z|00012|")),
            "2026-11-24 20:33:01.123000 Some(0) None 24"
        );
        assert_eq!(shown(iso(b"2026-13-24T20:33:01Z aaaaaaaa")), "none");
    }

    #[test]
    fn kernel_and_ctime_and_epoch_stamps_are_read() {
        assert_eq!(kernel_seconds(b"[   12.345678] x"), Some((12_345_678, 14)));
        assert_eq!(kernel_seconds(b"[12] x"), None);
        assert_eq!(shown(ctime(b"Thu Jan  7 18:13:11 2016] x")), "2016-01-07 18:13:11 None None 24");
        assert_eq!(shown(ctime(b"Thu Jan  7 18:13:11 CST 2016: x")), "2016-01-07 18:13:11 None None 28");
        assert_eq!(
            shown(epoch(b"1452161591.25 x")),
            "2016-01-07 10:13:11.250000 Some(0) Some(1452161591) 13"
        );
    }
}
