//! Secrets blanked out of text, of a journal's export, and of what is packed.
//!
//! Promise: nothing that follows a secret's name in a line goes into a bundle, whatever the text was packed with. A value is
//! blanked to the end of its line: too much rather than too little.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::OnceLock;

use aho_corasick::AhoCorasick;
use holdfast_evidence::format::{JournalExport, JournalPart};

/// Words after which a value is a secret.
const SECRET_WORDS: [&str; 7] =
    ["password", "passwd", "secret", "token=", "authorization:", "api_key", "apikey"];
/// Where a private key begins and ends.
const KEY: &str = "private key-----";
/// A longer line is blanked in parts of this length.
const MAX_LINE: u64 = 1 << 20;

/// The words in one automaton, the key's last; `None` never happens, since the words are fixed.
fn words() -> Option<&'static AhoCorasick> {
    static WORDS: OnceLock<Option<AhoCorasick>> = OnceLock::new();
    WORDS
        .get_or_init(|| {
            let words = SECRET_WORDS.iter().chain([&KEY]);
            AhoCorasick::builder().ascii_case_insensitive(true).build(words).ok()
        })
        .as_ref()
}

/// Lines without their secrets, one after the other.
#[derive(Default)]
struct Redactor {
    in_key: bool,
}

impl Redactor {
    fn line(&mut self, line: &[u8], out: &mut impl Write) -> io::Result<()> {
        let Some(words) = words() else { return Ok(()) };
        if !self.in_key && !words.is_match(line) {
            return out.write_all(line);
        }
        if words.find_iter(line).any(|m| m.pattern().as_usize() == SECRET_WORDS.len()) {
            self.in_key = memchr::memmem::find(&line.to_ascii_lowercase(), b"begin").is_some();
            return out.write_all(b"<private key removed>\n");
        }
        if self.in_key {
            return Ok(());
        }
        match words.find_iter(line).find_map(|m| value_from(line, m.end())) {
            Some(at) => {
                out.write_all(&line[..at])?;
                out.write_all(b" <redacted>\n")
            }
            None => out.write_all(line),
        }
    }
}

/// Where the value begins that belongs to a secret's name which ends at `at`. "Failed password for root" tells of an attack and
/// holds no secret: a value follows `=` or `:`.
fn value_from(line: &[u8], at: usize) -> Option<usize> {
    if matches!(line[at - 1], b'=' | b':') {
        return Some(at);
    }
    let rest = &line[at..];
    let sign =
        rest.iter().position(|b| !matches!(b, b' ' | b'"' | b'\'' | b'_') && !b.is_ascii_alphanumeric())?;
    (matches!(rest[sign], b'=' | b':') && sign < 24).then_some(at + sign + 1)
}

/// Copies text and blanks out the rest of a line after a secret's name, and whole private keys.
pub(super) fn redact_into(from: &mut dyn Read, out: &mut impl Write) -> io::Result<()> {
    let mut from = BufReader::with_capacity(256 * 1024, from);
    let (mut redactor, mut line) = (Redactor::default(), Vec::new());
    loop {
        line.clear();
        let read = from.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        redactor.line(&line, out)?;
        if read? == 0 {
            return Ok(());
        }
    }
}

/// The same for text in memory.
pub fn redact(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut redactor = Redactor::default();
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        // A Vec takes everything.
        let _ = redactor.line(line, &mut out);
    }
    out
}

/// A journal's export with its newest entry first (`journalctl -r`) in the order of time, without secrets and without an entry
/// that was cut. Values are cut to what the analysis reads: a core dump is none of it.
pub(super) fn journal(newest_first: &[u8]) -> Vec<u8> {
    let mut entries: Vec<Vec<u8>> = Vec::new();
    let mut entry = Vec::new();
    JournalExport::default().feed(newest_first, 0, 1, |part| match part {
        JournalPart::Field { name, value, .. } => {
            let clean = redact(&[name, b"=", value].concat());
            let clean = clean.strip_suffix(b"\n").unwrap_or(&clean);
            let value = &clean[(name.len() + 1).min(clean.len())..];
            entry.extend_from_slice(name);
            if value.iter().any(|b| *b < b' ' && *b != b'\t') {
                entry.push(b'\n');
                entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
            } else {
                entry.push(b'=');
            }
            entry.extend_from_slice(value);
            entry.push(b'\n');
        }
        JournalPart::End => {
            entry.push(b'\n');
            entries.push(std::mem::take(&mut entry));
        }
    });
    entries.into_iter().rev().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_blanked_and_attacks_are_kept() {
        let text = b"node.session.auth.password = hunter2\nsshd[1]: Failed password for root from 203.0.113.9 port 1 ssh2\nAPI_KEY: abc\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nx\n";
        let mut streamed = Vec::new();
        redact_into(&mut &text[..], &mut streamed).unwrap();
        for shown in [redact(text), streamed] {
            let shown = String::from_utf8(shown).unwrap();
            assert!(!shown.contains("hunter2") && !shown.contains("abc") && !shown.contains("MIIE"));
            assert!(shown.contains("Failed password for root from 203.0.113.9") && shown.ends_with("x\n"));
        }
        // The first word has no value here and the second one has.
        let two = redact(b"passwd changed for a; then secret=s3\n");
        assert_eq!(String::from_utf8(two).unwrap(), "passwd changed for a; then secret= <redacted>\n");
    }

    #[test]
    fn a_journal_that_was_cut_keeps_its_newest_entries_in_order_and_no_secret() {
        let entry = |n: u64, message: &str| {
            let mut out = format!("__CURSOR={n}\n__REALTIME_TIMESTAMP={n}\nMESSAGE\n").into_bytes();
            out.extend_from_slice(&(message.len() as u64).to_le_bytes());
            out.extend_from_slice(format!("{message}\n_PID=1\n\n").as_bytes());
            out
        };
        let cut = [entry(3, "new"), entry(2, "two\n\nlines: password=hunter2"), entry(1, "old")].concat();
        let kept = journal(&cut[..cut.len() - 3]);
        let mut seen = Vec::new();
        JournalExport::default().feed(&kept, 0, 1, |part| {
            if let JournalPart::Field { name: b"MESSAGE", value, .. } = part {
                seen.push(String::from_utf8_lossy(value).into_owned());
            }
        });
        assert_eq!(seen, ["two\n\nlines: password= <redacted>", "new"]);
    }
}
