//! One file of the bundle, read once: episodes of rule matches, boots, gaps, clock steps, unknown lines.
//!
//! Promise: memory per file is bounded whatever the file's length; the result depends on the content only. Times stay as the
//! file gives them ([`At`]); years and zones are settled later, when all files are known.

mod ahead;
mod found;
mod journal;
mod shape;
mod walk;

use std::collections::{BTreeMap, HashMap};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use holdfast_evidence::civil::MICROS;
use holdfast_evidence::format::{JournalEntry, JournalExport, parse_line, repeat_count};
use holdfast_evidence::place::{FileKind, Place, kind_of, split_root};
use holdfast_evidence::read::{Block, NoticeKind, Source, for_each_block};
use holdfast_evidence::text::{Encoding, decode, printable};
use holdfast_evidence::{NulMap, crontab, wtmp};

pub use found::{At, ClockStep, Episode, FileReport, Gap, Line, Shape};

use crate::collect;
use crate::literals::Candidate;
use crate::rules::RuleSet;
use ahead::Ahead;

/// Longest line text kept as evidence.
const MAX_TEXT: usize = 400;
/// Episodes of one rule kept per file; later lines extend the last one.
const MAX_EPISODES: usize = 400;
/// Distinct shapes of unknown lines kept per file.
const MAX_SHAPES: usize = 1024;
/// Largest gaps kept per file.
const MAX_GAPS: usize = 48;
/// Gaps shorter than this are not looked at.
const MIN_GAP: i64 = 60 * MICROS;
/// Lines remembered for a boot: the one before it and what a logger may put between.
const LINES_BEFORE: usize = 4;
/// What sysklogd (syslogd.c, klogd.c) and rsyslog (imklog.c, rsyslogd.c) say when they start.
const LOGGER_STARTS: [&str; 5] = [
    "log source = /proc/kmsg started",
    "syslogd startup succeeded",
    "klogd startup succeeded",
    ": restart.",
    "] start",
];
/// Small files kept whole, such as `/etc/hostname`.
const MAX_KEPT: usize = 64 * 1024;

/// Scans one source; with more than one thread, other cores search the blocks of a long one ahead of the walk over its lines.
pub fn scan(rules: &RuleSet, source: Source<'_>, threads: usize) -> FileReport {
    let kind = kind_of(&source.path);
    let mut scanner = Scanner::new(rules, &source, kind);
    if let Some(target) = &source.link {
        if source.path.contains("log") {
            scanner.notice(
                NoticeKind::Link,
                &format!("a link to {}; not followed", printable(target.as_bytes(), 200)),
            );
        }
        return scanner.report;
    }
    match kind {
        FileKind::Wtmp => scanner.read_wtmp(source.body),
        FileKind::BinaryJournal => scanner.notice(
            NoticeKind::NeedsTool,
            "a binary journal: run `journalctl --file FILE -o export > FILE.export` and add that",
        ),
        FileKind::MemoryImage => scanner.notice(
            NoticeKind::NeedsTool,
            "a memory image: run `makedumpfile --dump-dmesg` or add vmcore-dmesg.txt",
        ),
        _ => scanner.read_text(source.body, threads),
    }
    scanner.finish()
}

/// A line that was passed: its number, offset and time, and how it begins.
type Passed = (u64, u64, At, Vec<u8>);

struct Scanner<'r> {
    rules: &'r RuleSet,
    report: FileReport,
    /// Stamp and host part of the last line, to skip parsing the next one that starts alike.
    head: Vec<u8>,
    now: At,
    host: String,
    /// Lines of that host since it became the current one.
    host_lines: u64,
    wraps: i64,
    last_yearless: Option<i64>,
    boot_number: u32,
    last_uptime: Option<i64>,
    clock_base: Option<(i64, i64)>,
    last_both: Option<(i64, i64)>,
    backlog: bool,
    /// The last lines, the newest at `newest`.
    previous: [Option<Passed>; LINES_BEFORE],
    newest: usize,
    open: HashMap<(usize, String, String), usize>,
    per_rule: HashMap<usize, usize>,
    last_match: Option<usize>,
    export: Option<journal::Export>,
    pretty: Option<journal::Pretty>,
    kept: Vec<u8>,
    binary: bool,
    /// How often the time went back by more than a relay's delay, and the first line at which it did.
    went_back: Option<(u64, u64)>,
}

impl<'r> Scanner<'r> {
    fn new(rules: &'r RuleSet, source: &Source<'_>, kind: FileKind) -> Scanner<'r> {
        let (root, _) = split_root(&source.path);
        Scanner {
            rules,
            report: FileReport {
                path: Arc::clone(&source.path),
                root: root.to_owned(),
                kind,
                mtime: source.mtime,
                lines: 0,
                bytes: 0,
                hosts: BTreeMap::new(),
                span: None,
                zone_votes: BTreeMap::new(),
                episodes: Vec::new(),
                gaps: Vec::new(),
                steps: Vec::new(),
                uptimes: Vec::new(),
                nul: NulMap::default(),
                shapes: HashMap::new(),
                crontab: None,
                userspace: false,
                node: None,
                wtmp: Vec::new(),
                content: None,
                gbk: false,
                notices: Vec::new(),
                fingerprint: 0,
            },
            head: Vec::new(),
            now: At::None,
            host: String::new(),
            host_lines: 0,
            wraps: 0,
            last_yearless: None,
            boot_number: 0,
            last_uptime: None,
            clock_base: None,
            last_both: None,
            backlog: false,
            previous: [const { None }; LINES_BEFORE],
            newest: 0,
            open: HashMap::new(),
            per_rule: HashMap::new(),
            last_match: None,
            export: None,
            pretty: None,
            kept: Vec::new(),
            binary: false,
            went_back: None,
        }
    }

    fn notice(&mut self, kind: NoticeKind, detail: &str) {
        self.report.notices.push((kind, detail.to_owned()));
    }

    fn file_rules(&mut self, content: &[u8]) {
        for found in self.rules.file_matches(&self.report.path, content) {
            let line = |at: &Range<usize>| Line {
                place: Place {
                    file: Arc::clone(&self.report.path),
                    line: 1 + memchr::memchr_iter(b'\n', &content[..at.start]).count() as u64,
                    offset: at.start as u64,
                },
                at: At::None,
                text: printable(content[at.clone()].trim_ascii_end(), MAX_TEXT),
            };
            let (Some(first), Some(last)) = (found.lines.first(), found.lines.last()) else { continue };
            let (first, last) = (line(first), line(last));
            self.report.episodes.push(Episode {
                rule: found.rule,
                host: String::new(),
                fields: found.fields,
                first,
                last,
                count: 1,
                before: None,
            });
        }
    }

    /// What whoever collected the bundle could not read is missing here too.
    fn note_of_collect(&mut self, note: &[u8]) {
        const MOST: usize = 200;
        let note = String::from_utf8_lossy(note);
        let mut lacks = collect::lacks(&self.report.path, &note);
        for (refused, lack) in lacks.by_ref().take(MOST) {
            let kind = if refused { NoticeKind::Unreadable } else { NoticeKind::LeftOut };
            self.report
                .notices
                .push((kind, format!("not in the bundle: {}", printable(lack.as_bytes(), MAX_TEXT))));
        }
        let more = lacks.count();
        if more > 0 {
            self.notice(NoticeKind::LeftOut, &format!("{more} more things are not in the bundle"));
        }
    }

    fn read_wtmp(&mut self, body: &mut dyn std::io::Read) {
        const MAX_RECORDS: usize = 10_000;
        let mut carry = Vec::new();
        let mut raw = [0u8; 384 * 64];
        while let Ok(n) = body.read(&mut raw) {
            if n == 0 {
                break;
            }
            self.report.bytes += n as u64;
            carry.extend_from_slice(&raw[..n]);
            let whole = carry.len() / wtmp::RECORD_LEN * wtmp::RECORD_LEN;
            for record in carry[..whole].chunks_exact(wtmp::RECORD_LEN).filter_map(wtmp::parse_record) {
                if self.report.wtmp.len() < MAX_RECORDS {
                    self.report.wtmp.push(record);
                }
            }
            carry.drain(..whole);
        }
    }

    fn read_text(&mut self, body: &mut dyn std::io::Read, threads: usize) {
        let rules = self.rules;
        let path = &self.report.path;
        let keep = self.report.kind != FileKind::Log || is_kept(path) || rules.asks_for(path);
        let mut elf = false;
        let mut found = Vec::new();
        let end = std::thread::scope(|scope| {
            let mut ahead: Option<Ahead> = None;
            let end = for_each_block(body, |block| {
                if block.offset == 0 && self.is_binary(block.bytes, &mut elf) {
                    return ControlFlow::Break(());
                }
                if self.export.is_some() {
                    // Its binary fields have lengths, which hold NULs; its literals are searched in whole entries.
                    self.export_block(block);
                    return ControlFlow::Continue(());
                }
                self.report.nul.feed(block.offset, block.bytes);
                if keep && self.kept.len() < MAX_KEPT {
                    let room = MAX_KEPT - self.kept.len();
                    self.kept.extend_from_slice(&block.bytes[..block.bytes.len().min(room)]);
                }
                if threads > 1 && block.offset >= ahead::FROM_BYTES {
                    let ahead = ahead.get_or_insert_with(|| Ahead::start(scope, rules, threads - 1));
                    if let Some(searched) = ahead.push(block) {
                        self.block(searched.block(), searched.candidates());
                    }
                } else {
                    rules.candidates(block.bytes, &mut found);
                    self.block(block, &found);
                }
                ControlFlow::Continue(())
            });
            while let Some(searched) = ahead.as_mut().and_then(Ahead::next) {
                self.block(searched.block(), searched.candidates());
            }
            end
        });
        self.export_end();
        self.report.bytes = end.bytes;
        self.report.nul.file_len = end.bytes;
        if self.binary && !elf {
            self.notice(NoticeKind::Binary, "not text; not read as a log");
        }
        if end.cut_lines > 0 {
            self.notice(
                NoticeKind::LongLine,
                &format!("{} lines were longer than 256 KiB and were cut", end.cut_lines),
            );
        }
        if let Some(e) = end.error {
            let kind = holdfast_evidence::read::error_kind(&e);
            self.notice(kind, &format!("{e}; what came before it was read"));
        }
        if keep && !self.binary {
            let kept = std::mem::take(&mut self.kept);
            self.file_rules(&kept);
            self.note_of_collect(&kept);
            if matches!(self.report.kind, FileKind::SystemCrontab | FileKind::UserCrontab) {
                self.report.crontab =
                    Some(crontab::parse(&kept, self.report.kind == FileKind::SystemCrontab));
            }
            self.report.content = Some(kept);
        }
    }

    /// Looks at the first block: whether it is no text, and whether it is a journal export or a pretty journal.
    fn is_binary(&mut self, first: &[u8], elf: &mut bool) -> bool {
        *elf = first.starts_with(b"\x7fELF");
        self.report.fingerprint = hash(&first[..first.len().min(4096)]);
        if *elf || looks_binary(first) {
            self.binary = true;
            return true;
        }
        if first.split(|b| *b == b'\n').take(64).any(JournalExport::is_start) {
            self.export = Some(journal::Export::default());
        } else if first.split(|b| *b == b'\n').take(64).any(JournalEntry::is_pretty) {
            self.pretty = Some(journal::Pretty::default());
        }
        false
    }

    fn block(&mut self, block: Block<'_>, candidates: &[Candidate]) {
        let rules = self.rules;
        let mut candidates = candidates.iter().peekable();
        let mut hits: Vec<usize> = Vec::new();
        let (mut start, mut number) = (0usize, block.first_line);
        let any_nul = memchr::memchr(0, block.bytes).is_some();
        while start < block.bytes.len() {
            let newline =
                memchr::memchr(b'\n', &block.bytes[start..]).map_or(block.bytes.len(), |n| start + n);
            // A line that a crash tore, NULs, and the first line after the boot are two lines, though no newline parts them.
            let nul = if any_nul { memchr::memchr(0, &block.bytes[start..newline]) } else { None };
            let end = nul.map_or(newline, |n| start + n);
            hits.clear();
            let mut repeat = false;
            while let Some(c) = candidates.next_if(|c| c.at < end) {
                if RuleSet::is_repeat(c.literal) {
                    repeat = true;
                }
                for owner in rules.owners(c.literal) {
                    if !hits.contains(&usize::from(*owner)) {
                        hits.push(usize::from(*owner));
                    }
                }
            }
            let line = &block.bytes[start..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let place = (number, block.offset + start as u64);
            if nul.is_none() || !line.is_empty() {
                self.line(line, place, &hits, repeat);
            }
            let nuls = block.bytes[end..newline].iter().take_while(|b| **b == 0).count();
            start = end + nuls;
            if start == newline {
                start += 1;
                number += 1;
            }
        }
        self.report.lines = number - 1;
    }

    fn line(&mut self, line: &[u8], (number, offset): (u64, u64), hits: &[usize], repeat: bool) {
        if let Some(pretty) = self.pretty.take() {
            return self.pretty_line(pretty, line, (number, offset));
        }
        if line.first() == Some(&b'{')
            && let Some(entry) = JournalEntry::from_json(line)
        {
            self.head.clear();
            return self.journal_entry(&entry, (number, offset));
        }
        let alike = !self.head.is_empty() && line.len() > self.head.len() && line.starts_with(&self.head);
        let mut message_from = self.head.len();
        if !alike {
            match parse_line(line) {
                Some(record) => {
                    self.take_record(&record, line, number, offset);
                    message_from = line.len() - record.message.len().min(line.len());
                }
                None => {
                    self.head.clear();
                    message_from = 0;
                }
            }
        } else {
            self.host_lines += 1;
        }
        if repeat && self.expand_repeat(line, number, offset) {
            return;
        }
        self.judge(line, message_from, number, offset, hits);
    }

    /// Meets a line with the rules of which it holds a literal; what no rule knows is counted by its shape.
    fn judge(&mut self, line: &[u8], message_from: usize, number: u64, offset: u64, hits: &[usize]) {
        let mut matched = false;
        if !hits.is_empty() {
            // The patterns are over text: a GBK line is decoded first, or `.` would stop at its first character.
            let (text, encoding) = decode(line);
            self.report.gbk |= encoding == Encoding::Gbk;
            for rule in hits {
                matched |= self.try_rule(*rule, text.as_bytes(), number, offset);
            }
        }
        if !matched {
            self.last_match = None;
            if self.report.kind == FileKind::Log && self.now != At::None {
                self.shape(&line[message_from.min(line.len())..], line, number, offset);
            }
        }
        self.remember(line, number, offset);
    }

    fn remember(&mut self, line: &[u8], number: u64, offset: u64) {
        self.newest = (self.newest + 1) % LINES_BEFORE;
        let slot = &mut self.previous[self.newest];
        let mut text = slot.take().map_or_else(Vec::new, |(.., text)| text);
        text.clear();
        text.extend_from_slice(&line[..line.len().min(MAX_TEXT)]);
        *slot = Some((number, offset, self.now, text));
    }

    fn expand_repeat(&mut self, line: &[u8], number: u64, offset: u64) -> bool {
        let Some(count) = parse_line(line).and_then(|r| repeat_count(r.message)) else { return false };
        let Some(index) = self.last_match else { return true };
        let now = self.now;
        let text = printable(line, MAX_TEXT);
        let episode = &mut self.report.episodes[index];
        episode.count += u64::from(count);
        episode.last = Line {
            place: Place { file: Arc::clone(&self.report.path), line: number, offset },
            at: now,
            text,
        };
        true
    }

    fn try_rule(&mut self, rule: usize, line: &[u8], number: u64, offset: u64) -> bool {
        let Some(captures) = self.rules.matches(rule, line) else { return false };
        let definition = &self.rules.rules[rule];
        let key: String = definition
            .key
            .iter()
            .filter_map(|k| captures.name(k))
            .map(|m| String::from_utf8_lossy(m.as_bytes()).into_owned() + "\u{1}")
            .collect();
        let id = (rule, self.host.clone(), key);
        let gap = definition.gap_seconds * MICROS;
        if let Some(index) = self.open.get(&id).copied() {
            let crowded = self.per_rule.get(&rule).copied().unwrap_or(0) >= MAX_EPISODES;
            let episode = &mut self.report.episodes[index];
            let since = self.now.micros() - episode.last.at.micros();
            if crowded
                || (since.abs() <= gap
                    && std::mem::discriminant(&self.now) == std::mem::discriminant(&episode.last.at))
            {
                episode.count += 1;
                episode.last.at = self.now;
                episode.last.place = Place { file: Arc::clone(&self.report.path), line: number, offset };
                episode.last.text.clear();
                episode.last.text.push_str(&printable(line, MAX_TEXT));
                self.last_match = Some(index);
                return true;
            }
        }
        let place = Place { file: Arc::clone(&self.report.path), line: number, offset };
        let first = Line { place, at: self.now, text: printable(line, MAX_TEXT) };
        let before = if definition.boot { self.line_before() } else { None };
        let episode = Episode {
            rule,
            host: self.host.clone(),
            fields: self.rules.fields(rule, &captures),
            last: first.clone(),
            first,
            count: 1,
            before,
        };
        let index = self.report.episodes.len();
        self.report.episodes.push(episode);
        self.open.insert(id, index);
        *self.per_rule.entry(rule).or_default() += 1;
        self.last_match = Some(index);
        true
    }

    /// The newest line that is not the logger's own word on its start, which it writes before what it reads from the kernel.
    fn line_before(&self) -> Option<Line> {
        let newest_first = (0..LINES_BEFORE).map(|back| (self.newest + LINES_BEFORE - back) % LINES_BEFORE);
        let mut lines = newest_first.filter_map(|slot| self.previous[slot].as_ref());
        let (number, offset, at, text) = lines.find(|(.., text)| {
            !LOGGER_STARTS.iter().any(|start| memchr::memmem::find(text, start.as_bytes()).is_some())
        })?;
        let place = Place { file: Arc::clone(&self.report.path), line: *number, offset: *offset };
        Some(Line { place, at: *at, text: printable(text, MAX_TEXT) })
    }

    /// Counts the shape of an unknown line: its letters, without digits.
    fn shape(&mut self, message: &[u8], line: &[u8], number: u64, offset: u64) {
        let state = shape::of(message);
        if let Some(shape) = self.report.shapes.get_mut(&state) {
            shape.count += 1;
        } else if self.report.shapes.len() < MAX_SHAPES {
            let place = Place { file: Arc::clone(&self.report.path), line: number, offset };
            let first = Line { place, at: self.now, text: printable(line, 200) };
            self.report.shapes.insert(state, Shape { count: 1, first });
        }
    }

    fn finish(mut self) -> FileReport {
        self.count_host();
        self.trim_gaps();
        // Where several hosts log into one file, each has its own delay.
        if let Some((times, line)) = self.went_back.filter(|_| self.report.hosts.len() < 2) {
            self.notice(
                NoticeKind::TimeGoesBack,
                &format!("the time goes back by a minute or more {times} times, first at line {line}"),
            );
        }
        self.report
    }
}

/// Small files that are looked at whole though they may lie among logs.
fn is_kept(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    matches!(name, "hostname" | "timezone" | "machine-id" | "date" | "timedatectl" | "uptime" | "COLLECT.txt")
}

fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// Whether a first block is no text: many control bytes, NULs aside (a log after a crash has NUL runs).
fn looks_binary(block: &[u8]) -> bool {
    let head = &block[..block.len().min(4096)];
    let control = head.iter().filter(|b| matches!(**b, 1..=8 | 14..=26 | 28..=31 | 127)).count();
    let changes = head.windows(2).filter(|w| (w[0] == 0) != (w[1] == 0)).count();
    control * 20 > head.len() || changes * 8 > head.len()
}

#[cfg(test)]
mod tests;
