//! Time zones: offsets inferred from a file that has both epoch and local time, and offsets of named zones.
//!
//! Promise: an inferred offset is a multiple of 15 minutes within -12 h and +14 h, or there is none. It does not guess from
//! language or vendor. Names come from the IANA data that `jiff` carries.

use crate::civil::MICROS;

/// An offset east of UTC, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i32);

impl Offset {
    /// UTC itself.
    pub const UTC: Offset = Offset(0);

    /// `UTC+08:00`.
    pub fn display(self) -> String {
        let minutes = self.0.abs() / 60;
        let sign = if self.0 < 0 { '-' } else { '+' };
        format!("UTC{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }

    /// Microseconds to add to UTC.
    pub fn micros(self) -> i64 {
        i64::from(self.0) * MICROS
    }
}

/// The offset that a local time and an epoch second in one line fix, when they fix one.
pub fn from_pair(local_micros: i64, epoch_seconds: i64) -> Option<Offset> {
    const STEP: i64 = 15 * 60;
    let difference = local_micros.div_euclid(MICROS) - epoch_seconds;
    let rounded = (difference + STEP / 2).div_euclid(STEP) * STEP;
    let plausible = (difference - rounded).abs() <= 2 && (-12 * 3600..=14 * 3600).contains(&rounded);
    plausible.then_some(Offset(rounded as i32))
}

/// The offset of a named zone (`Asia/Shanghai`) at an instant; `None` for an unknown name.
pub fn from_name(name: &str, epoch_seconds: i64) -> Option<Offset> {
    let zone = jiff::tz::TimeZone::get(name).ok()?;
    let instant = jiff::Timestamp::from_second(epoch_seconds).ok()?;
    Some(Offset(zone.to_offset(instant).seconds()))
}

/// The offset of `+08:00`, `+0800`, `-05` or `Z`.
pub fn from_suffix(text: &[u8]) -> Option<(Offset, usize)> {
    match text.first()? {
        b'Z' | b'z' => return Some((Offset::UTC, 1)),
        b'+' | b'-' => {}
        _ => return None,
    }
    let digit = |at: usize| text.get(at).filter(|b| b.is_ascii_digit()).map(|b| i32::from(b - b'0'));
    let hours = digit(1)? * 10 + digit(2)?;
    let colon = usize::from(text.get(3) == Some(&b':'));
    let (minutes, len) = match (digit(3 + colon), digit(4 + colon)) {
        (Some(a), Some(b)) => (a * 10 + b, 5 + colon),
        _ => (0, 3),
    };
    if hours > 14 || minutes > 59 {
        return None;
    }
    let seconds = hours * 3600 + minutes * 60;
    Some((Offset(if text[0] == b'-' { -seconds } else { seconds }), len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_both_times_fixes_the_zone() {
        assert_eq!(from_pair((1_452_161_591 + 8 * 3600) * MICROS, 1_452_161_591), Some(Offset(28_800)));
        assert_eq!(from_pair((1_452_161_591 + 8 * 3600 + 100) * MICROS, 1_452_161_591), None);
    }

    #[test]
    fn suffixes_and_names_are_read() {
        assert_eq!(from_suffix(b"+08:00 x"), Some((Offset(28_800), 6)));
        assert_eq!(from_suffix(b"-0530"), Some((Offset(-19_800), 5)));
        assert_eq!(from_suffix(b"Z"), Some((Offset::UTC, 1)));
        assert_eq!(from_suffix(b"+99:00"), None);
        assert_eq!(from_name("Asia/Shanghai", 1_452_161_591), Some(Offset(28_800)));
        assert_eq!(from_name("Mars/Base", 0), None);
    }
}
