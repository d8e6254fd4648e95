//! Civil dates as plain arithmetic: the part of a calendar that is hot in a log reader.
//!
//! Promise: exact over the proleptic Gregorian calendar, no allocation, no table of zones (see [`crate::zone`]).
//! Source: the days-from-civil algorithm as published by Howard Hinnant ("chrono-compatible low-level date algorithms").

/// Seconds in a day.
pub const DAY_SECONDS: i64 = 86_400;
/// Microseconds in a second: the unit of every instant in this crate.
pub const MICROS: i64 = 1_000_000;

/// A date and a time of day without a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Civil {
    /// Year, such as 2016.
    pub year: i32,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, 1 to 31.
    pub day: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
    /// Second, 0 to 60.
    pub second: u8,
    /// Microsecond, 0 to 999,999.
    pub micro: u32,
}

impl Civil {
    /// The civil time of a number of microseconds since 1970-01-01 00:00:00 in the same (unnamed) zone.
    pub fn from_micros(micros: i64) -> Civil {
        let seconds = micros.div_euclid(MICROS);
        let (year, month, day) = civil_from_days(seconds.div_euclid(DAY_SECONDS));
        let of_day = seconds.rem_euclid(DAY_SECONDS);
        Civil {
            year,
            month,
            day,
            hour: (of_day / 3600) as u8,
            minute: (of_day / 60 % 60) as u8,
            second: (of_day % 60) as u8,
            micro: micros.rem_euclid(MICROS) as u32,
        }
    }

    /// Microseconds since 1970-01-01 00:00:00, taken as if this civil time were UTC.
    pub fn to_micros(self) -> i64 {
        let days = days_from_civil(self.year, self.month, self.day);
        let of_day = i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        (days * DAY_SECONDS + of_day) * MICROS + i64::from(self.micro)
    }

    /// Whether every field is in range and the day exists in its month (a leap second counts as existing).
    pub fn is_valid(self) -> bool {
        (1..=12).contains(&self.month)
            && self.day >= 1
            && self.day <= days_in_month(self.year, self.month)
            && self.hour < 24
            && self.minute < 60
            && self.second <= 60
            && self.micro < 1_000_000
            && (0..=9999).contains(&self.year)
    }

    /// `2016-01-07 18:13:11`, with the fraction only when it is not zero and `fraction` is asked for.
    pub fn display(self, fraction: bool) -> String {
        let base = format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
            self.year, self.month, self.day, self.hour, self.minute, self.second
        );
        if fraction && self.micro != 0 { format!("{base}.{:06}", self.micro) } else { base }
    }
}

/// Days since 1970-01-01 of a civil date.
pub fn days_from_civil(year: i32, month: u8, day: u8) -> i64 {
    let y = i64::from(year) - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let month_shifted = (i64::from(month) + 9) % 12;
    let day_of_year = (153 * month_shifted + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The civil date of a number of days since 1970-01-01.
pub fn civil_from_days(days: i64) -> (i32, u8, u8) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_shifted + 2) / 5 + 1) as u8;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 } as u8;
    ((year_of_era + era * 400 + i64::from(month <= 2)) as i32, month, day)
}

/// Whether a year has a 29 February.
pub fn is_leap(year: i32) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days of a month; zero for a month that does not exist.
pub fn days_in_month(year: i32, month: u8) -> u8 {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 0,
    }
}

/// The month of an English three-letter name, in any case.
pub fn month_of(name: &[u8]) -> Option<u8> {
    let key = [name.first()? | 0x20, name.get(1)? | 0x20, name.get(2)? | 0x20];
    Some(match &key {
        b"jan" => 1,
        b"feb" => 2,
        b"mar" => 3,
        b"apr" => 4,
        b"may" => 5,
        b"jun" => 6,
        b"jul" => 7,
        b"aug" => 8,
        b"sep" => 9,
        b"oct" => 10,
        b"nov" => 11,
        b"dec" => 12,
        _ => return None,
    })
}

/// The English three-letter name of a month, as syslog prints it.
pub fn month_name(month: u8) -> &'static str {
    const NAMES: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    NAMES[usize::from(month.clamp(1, 12)) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_eight_centuries_goes_there_and_back() {
        for days in (-150_000..150_000).step_by(13) {
            let (y, m, d) = civil_from_days(days);
            assert_eq!(days_from_civil(y, m, d), days);
            assert!(d >= 1 && d <= days_in_month(y, m));
        }
    }

    #[test]
    fn the_epoch_in_a_lich_line_is_its_local_time_eight_hours_east() {
        let local = Civil { year: 2016, month: 1, day: 7, hour: 18, minute: 13, second: 11, micro: 0 };
        assert_eq!(local.to_micros() / MICROS - 1_452_161_591, 8 * 3600);
        assert_eq!(Civil::from_micros(local.to_micros()), local);
    }

    #[test]
    fn the_thirtieth_of_february_is_refused() {
        let bad = Civil { year: 2016, month: 2, day: 30, hour: 0, minute: 0, second: 0, micro: 0 };
        assert!(!bad.is_valid());
        assert!(Civil { day: 29, ..bad }.is_valid());
        assert!(!Civil { day: 29, year: 2015, ..bad }.is_valid());
    }
}
