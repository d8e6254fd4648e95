//! Crontabs in the grammar of Debian's cron, with the line and the byte that break them.
//!
//! Promise: tells exactly what cron would refuse. Debian's cron drops the whole file on one bad entry, so each error matters
//! for all entries of its file. What only cronie understands (`0~59`, `-*/5`) is accepted: nothing in a crontab tells whose it is.
//! It does not run or expand anything. Source: cron 3.0pl1 (Debian), entry.c and crontab(5); cronie, src/entry.c.

/// Why an entry is refused, in the words that cron itself logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CronErrorKind {
    /// `bad minute`
    Minute,
    /// `bad hour`
    Hour,
    /// `bad day-of-month`
    DayOfMonth,
    /// `bad month`
    Month,
    /// `bad day-of-week`
    DayOfWeek,
    /// `bad command`
    Command,
    /// `bad time specifier`
    TimeSpecifier,
    /// `bad username`
    User,
    /// A NUL byte stands in the entry.
    Nul,
    /// The last line lacks its newline; cron ignores the file.
    MissingNewline,
}

impl CronErrorKind {
    /// The words of cron's own log.
    pub fn words(self) -> &'static str {
        match self {
            CronErrorKind::Minute => "bad minute",
            CronErrorKind::Hour => "bad hour",
            CronErrorKind::DayOfMonth => "bad day-of-month",
            CronErrorKind::Month => "bad month",
            CronErrorKind::DayOfWeek => "bad day-of-week",
            CronErrorKind::Command => "bad command",
            CronErrorKind::TimeSpecifier => "bad time specifier",
            CronErrorKind::User => "bad username",
            CronErrorKind::Nul => "NUL bytes in an entry (cron says: bad minute)",
            CronErrorKind::MissingNewline => "missing newline before EOF",
        }
    }
}

/// One refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CronError {
    /// What is wrong.
    pub kind: CronErrorKind,
    /// Line from 1.
    pub line: u64,
    /// Offset of the first byte that breaks the entry.
    pub offset: u64,
}

/// One accepted entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronEntry {
    /// Line from 1.
    pub line: u64,
    /// Offset of the line.
    pub offset: u64,
    /// The five fields or the `@word`, as written.
    pub schedule: String,
    /// User, in a system crontab.
    pub user: Option<String>,
    /// Command.
    pub command: String,
}

/// A crontab, read whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Crontab {
    /// Entries that cron would accept one by one.
    pub entries: Vec<CronEntry>,
    /// Refusals; one is enough for Debian's cron to drop all entries.
    pub errors: Vec<CronError>,
}

/// The largest crontab read; a real one is a few kilobytes.
pub const MAX_CRONTAB_BYTES: usize = 1 << 20;
/// Refusals kept.
const MAX_ERRORS: usize = 32;

/// Parses a crontab; `system` says that entries have a user column.
pub fn parse(bytes: &[u8], system: bool) -> Crontab {
    let bytes = &bytes[..bytes.len().min(MAX_CRONTAB_BYTES)];
    let mut tab = Crontab::default();
    let mut offset = 0;
    for (index, raw) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        let line = index as u64 + 1;
        let text = raw.strip_suffix(b"\n").unwrap_or(raw);
        match parse_line(text, system) {
            Ok(None) => {}
            Ok(Some((schedule, user, command))) => {
                tab.entries.push(CronEntry { line, offset, schedule, user, command });
                if !raw.ends_with(b"\n") {
                    tab.errors.push(CronError {
                        kind: CronErrorKind::MissingNewline,
                        line,
                        offset: bytes.len() as u64,
                    });
                }
            }
            Err((kind, at)) if tab.errors.len() < MAX_ERRORS => {
                tab.errors.push(CronError { kind, line, offset: offset + at as u64 });
            }
            Err(_) => {}
        }
        offset += raw.len() as u64;
    }
    tab
}

type Entry = (String, Option<String>, String);

fn parse_line(line: &[u8], system: bool) -> Result<Option<Entry>, (CronErrorKind, usize)> {
    let start = line.iter().position(|b| !matches!(b, b' ' | b'\t' | b'\r')).unwrap_or(line.len());
    if start == line.len() || line[start] == b'#' {
        return Ok(None);
    }
    if let Some(nul) = memchr::memchr(0, line) {
        return Err((CronErrorKind::Nul, nul));
    }
    if is_assignment(&line[start..]) {
        return Ok(None);
    }
    let mut cursor = Cursor { line, at: start };
    let schedule_from = start;
    // cronie: such an entry runs without a line in the log.
    if line[start] == b'-' {
        cursor.at += 1;
    }
    if line[cursor.at..].first() == Some(&b'@') {
        let (word, at) = cursor.word();
        let known: [&[u8]; 9] = [
            b"@reboot",
            b"@yearly",
            b"@annually",
            b"@monthly",
            b"@weekly",
            b"@daily",
            b"@midnight",
            b"@hourly",
            b"@every",
        ];
        if !known.contains(&word) {
            return Err((CronErrorKind::TimeSpecifier, at));
        }
    } else {
        const FIELDS: [(CronErrorKind, u32, u32, &[&str]); 5] = [
            (CronErrorKind::Minute, 0, 59, &[]),
            (CronErrorKind::Hour, 0, 23, &[]),
            (CronErrorKind::DayOfMonth, 1, 31, &[]),
            (
                CronErrorKind::Month,
                1,
                12,
                &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
            ),
            (CronErrorKind::DayOfWeek, 0, 7, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
        ];
        for (kind, low, high, names) in FIELDS {
            let (word, at) = cursor.word();
            check_field(word, low, high, names).map_err(|bad| (kind, at + bad))?;
        }
    }
    let schedule = text_of(&line[schedule_from..cursor.at]).trim().to_owned();
    let user = if system {
        let (word, at) = cursor.word();
        if word.is_empty() || !word.iter().all(|b| b.is_ascii_graphic()) {
            return Err((CronErrorKind::User, at));
        }
        Some(text_of(word))
    } else {
        None
    };
    let (_, command_at) = cursor.clone_word();
    let command = text_of(&line[command_at..]).trim().to_owned();
    if command.is_empty() {
        return Err((CronErrorKind::Command, command_at));
    }
    Ok(Some((schedule, user, command)))
}

struct Cursor<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn word(&mut self) -> (&'a [u8], usize) {
        let (word, start) = self.clone_word();
        self.at = start + word.len();
        (word, start)
    }

    fn clone_word(&self) -> (&'a [u8], usize) {
        let rest = &self.line[self.at..];
        let skip = rest.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        let len = rest[skip..].iter().take_while(|b| !matches!(b, b' ' | b'\t' | b'\r')).count();
        (&rest[skip..skip + len], self.at + skip)
    }
}

fn text_of(bytes: &[u8]) -> String {
    crate::text::printable(bytes.trim_ascii(), 1000)
}

/// `NAME = value` with a name cron accepts.
fn is_assignment(line: &[u8]) -> bool {
    let Some(eq) = memchr::memchr(b'=', line) else { return false };
    let name: Vec<u8> =
        line[..eq].iter().copied().filter(|b| !matches!(b, b' ' | b'\t' | b'"' | b'\'')).collect();
    let first_is_letter = name.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
    first_is_letter && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

/// Checks a list of ranges; the error is the offset of the bad part in the field.
fn check_field(field: &[u8], low: u32, high: u32, names: &[&str]) -> Result<(), usize> {
    if field.is_empty() {
        return Err(0);
    }
    let mut at = 0;
    for part in field.split(|b| *b == b',') {
        let (range, step) = match memchr::memchr(b'/', part) {
            Some(slash) => (&part[..slash], Some(&part[slash + 1..])),
            None => (part, None),
        };
        if let Some(step) = step
            && number(step, &[]).is_none_or(|n| n < 1)
        {
            return Err(at + range.len());
        }
        if range != b"*" {
            // cronie: a minute by chance within the range, whose ends may be left out.
            let by_chance = memchr::memchr(b'~', range);
            let (from, to) = match by_chance.or(memchr::memchr(b'-', range)) {
                Some(dash) => (&range[..dash], Some(&range[dash + 1..])),
                None => (range, None),
            };
            let number = |text: &[u8], end: u32| match text {
                b"" if by_chance.is_some() => Some(end),
                text => number(text, names),
            };
            let from = number(from, low).filter(|n| (low..=high).contains(n)).ok_or(at)?;
            if let Some(to) = to {
                let to = number(to, high).filter(|n| (low..=high).contains(n)).ok_or(at)?;
                if to < from {
                    return Err(at);
                }
            }
        }
        at += part.len() + 1;
    }
    Ok(())
}

fn number(text: &[u8], names: &[&str]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    if !text.is_empty() && text.len() <= 3 && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok();
    }
    let lower = text.to_ascii_lowercase();
    // Months count from 1 and days from 0; the caller's low bound tells which list this is.
    let base = u32::from(names.len() == 12);
    names.iter().position(|n| *n == lower).map(|i| i as u32 + base)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOCK: &str = "# /etc/crontab\nSHELL=/bin/sh\nPATH=/usr/bin:/bin\n\n17 *\t* * *\troot    cd / && run-parts --report /etc/cron.hourly\n*/10 * * * * root /opt/fusionstack/lich/sbin/lich.node --recover\n1 */8 * jan-mar mon,wed root x\n";

    #[test]
    fn a_stock_crontab_is_accepted_whole() {
        let tab = parse(STOCK.as_bytes(), true);
        assert_eq!(tab.errors, []);
        assert_eq!(tab.entries.len(), 3);
        assert_eq!(tab.entries[1].schedule, "*/10 * * * *");
        assert_eq!(tab.entries[1].user.as_deref(), Some("root"));
    }

    #[test]
    fn nul_bytes_break_the_line_they_stand_in_and_the_byte_is_named() {
        let mut bytes = STOCK.as_bytes().to_vec();
        let clean = bytes.len() as u64;
        bytes.extend_from_slice(&[0; 40]);
        bytes.extend_from_slice(b"\n");
        let tab = parse(&bytes, true);
        assert_eq!(tab.errors, [CronError { kind: CronErrorKind::Nul, line: 8, offset: clean }]);
    }

    #[test]
    fn each_field_is_refused_in_the_words_of_cron() {
        for (line, words) in [
            ("60 * * * * root x\n", "bad minute"),
            ("* 24 * * * root x\n", "bad hour"),
            ("* * 0 * * root x\n", "bad day-of-month"),
            ("* * * foo * root x\n", "bad month"),
            ("* * * * 8 root x\n", "bad day-of-week"),
            ("* * * * *\n", "bad username"),
            ("* * * * * root\n", "bad command"),
            ("@never root x\n", "bad time specifier"),
            ("*/0 * * * * root x\n", "bad minute"),
            ("5-1 * * * * root x\n", "bad minute"),
            ("* * * * * root x", "missing newline before EOF"),
        ] {
            let tab = parse(line.as_bytes(), true);
            assert_eq!(tab.errors.first().map(|e| e.kind.words()), Some(words), "{line:?}");
        }
    }

    #[test]
    fn what_only_cronie_understands_is_not_called_broken() {
        for line in
            ["0~59 * * * * root x\n", "~ ~6 5~ * * root x\n", "-*/5 * * * * root x\n", "-@daily root x\n"]
        {
            let tab = parse(line.as_bytes(), true);
            assert_eq!((tab.errors.len(), tab.entries.len()), (0, 1), "{line:?}: {:?}", tab.errors);
        }
        for line in ["0~60 * * * * root x\n", "9~5 * * * * root x\n", "--1 * * * * root x\n", "- root x\n"] {
            assert_eq!(parse(line.as_bytes(), true).errors.len(), 1, "{line:?}");
        }
    }

    #[test]
    fn a_user_crontab_has_no_user_column() {
        let tab = parse(b"*/5 * * * * /bin/true\r\n", false);
        assert_eq!(tab.errors, []);
        assert_eq!(tab.entries[0].command, "/bin/true");
    }
}
