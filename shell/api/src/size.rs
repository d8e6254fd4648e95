//! Sizes as people write them: `4G`, `512MiB`, `4096`. K, M, G, T and P count in 1024s, with or without `iB`
//! behind; `KB`, `MB` … would be 1000s to some and 1024s to others and are refused. Whole numbers only.

use thiserror::Error;

/// Why a text is no size.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SizeError {
    /// No number in front.
    #[error("{0:?} is not a size: write a whole number and a unit, like 512MiB or 4G")]
    NotANumber(String),
    /// A unit that is none of ours.
    #[error("unknown unit {0:?}: use K, M, G, T or P (or KiB, MiB, GiB, TiB, PiB), or none for bytes")]
    Unit(String),
    /// More than any number here can hold.
    #[error("{0:?} is more than any volume can hold")]
    TooLarge(String),
}

const UNITS: [(char, u32); 5] = [('K', 10), ('M', 20), ('G', 30), ('T', 40), ('P', 50)];

/// Reads a size in bytes.
pub fn parse(text: &str) -> Result<u64, SizeError> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() || unit.starts_with(['.', ',']) {
        return Err(SizeError::NotANumber(text.into()));
    }
    let shift = shift_of(unit.trim()).ok_or_else(|| SizeError::Unit(unit.trim().into()))?;
    let too_large = || SizeError::TooLarge(text.into());
    let number: u64 = number.parse().map_err(|_| too_large())?;
    number.checked_mul(1 << shift).ok_or_else(too_large)
}

fn shift_of(unit: &str) -> Option<u32> {
    if unit.is_empty() || unit.eq_ignore_ascii_case("b") {
        return Some(0);
    }
    let mut chars = unit.chars();
    let letter = chars.next()?.to_ascii_uppercase();
    let rest = chars.as_str();
    let known = rest.is_empty() || rest.eq_ignore_ascii_case("ib");
    UNITS.iter().find(|(l, _)| *l == letter && known).map(|(_, shift)| *shift)
}

/// A size for people: the largest unit that leaves at least 1, two decimals when it is not whole.
pub fn show(bytes: u64) -> String {
    let unit = UNITS.iter().rev().find(|(_, shift)| bytes >> shift > 0);
    let Some((letter, shift)) = unit else {
        return format!("{bytes} B");
    };
    let one = 1u64 << shift;
    if bytes.is_multiple_of(one) {
        return format!("{} {letter}iB", bytes >> shift);
    }
    format!("{:.2} {letter}iB", bytes as f64 / one as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("4096", 4096),
            ("4G", 4 << 30),
            ("4g", 4 << 30),
            ("512MiB", 512 << 20),
            ("1 TiB", 1 << 40),
            ("1P", 1 << 50),
            ("0", 0),
            ("7B", 7),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_says_what_is_allowed() {
        assert_eq!(parse("4GB"), Err(SizeError::Unit("GB".into())));
        assert_eq!(parse("4X"), Err(SizeError::Unit("X".into())));
        assert_eq!(parse("1.5G"), Err(SizeError::NotANumber("1.5G".into())));
        assert_eq!(parse("-1"), Err(SizeError::NotANumber("-1".into())));
        assert_eq!(parse(""), Err(SizeError::NotANumber("".into())));
        assert_eq!(parse("99999999P"), Err(SizeError::TooLarge("99999999P".into())));
        assert_eq!(parse("99999999999999999999"), Err(SizeError::TooLarge("99999999999999999999".into())));
        assert_eq!(parse("４G"), Err(SizeError::NotANumber("４G".into())));
    }

    #[test]
    fn sizes_are_shown_in_the_largest_fitting_unit() {
        assert_eq!(show(0), "0 B");
        assert_eq!(show(1023), "1023 B");
        assert_eq!(show(4 << 30), "4 GiB");
        assert_eq!(show((4 << 30) + (512 << 20)), "4.50 GiB");
    }
}
