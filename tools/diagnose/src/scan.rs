//! One file of the bundle, read once: episodes of rule matches, boots, gaps, clock steps, unknown lines.
//!
//! Promise: memory per file is bounded whatever the file's length; the result depends on the content only. Times stay as the
//! file gives them ([`At`]); years and zones are settled later, when all files are known.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use holdfast_evidence::civil::{DAY_SECONDS, MICROS, days_from_civil};
use holdfast_evidence::format::{JournalExport, Record, parse_line, repeat_count};
use holdfast_evidence::place::{FileKind, Place, kind_of, split_root};
use holdfast_evidence::read::{Block, NoticeKind, Source, for_each_block};
use holdfast_evidence::stamp::Stamp;
use holdfast_evidence::text::{Encoding, decode, printable};
use holdfast_evidence::zone::from_pair;
use holdfast_evidence::{NulMap, crontab, wtmp};

use crate::rules::RuleSet;

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
/// Small files kept whole, such as `/etc/hostname`.
const MAX_KEPT: usize = 64 * 1024;

/// A time as one file gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    /// An instant: microseconds since 1970 UTC.
    Utc(i64),
    /// Local time with a year, as if it were UTC.
    Local(i64),
    /// Local time without a year: microseconds from a nominal leap year, plus 366 days for each new year seen.
    Yearless(i64),
    /// Microseconds since the kernel started; the number tells boots of one file apart.
    Uptime(i64, u32),
    /// No time at all.
    None,
}

impl At {
    /// The number for differences within one file.
    pub fn micros(self) -> i64 {
        match self {
            At::Utc(m) | At::Local(m) | At::Yearless(m) | At::Uptime(m, _) => m,
            At::None => 0,
        }
    }
}

/// A line kept as evidence.
#[derive(Debug, Clone)]
pub struct Line {
    /// Where it stands.
    pub place: Place,
    /// When, as the file says.
    pub at: At,
    /// Its text, made printable.
    pub text: String,
}

/// Lines of one rule, host and key that belong together.
#[derive(Debug, Clone)]
pub struct Episode {
    /// Index of the rule.
    pub rule: usize,
    /// Host as the lines name it; empty when they do not.
    pub host: String,
    /// Captures of the first line.
    pub fields: BTreeMap<String, String>,
    /// First line.
    pub first: Line,
    /// Last line.
    pub last: Line,
    /// Lines, repeats expanded.
    pub count: u64,
    /// The line before the first one, for boots.
    pub before: Option<Line>,
}

/// A silence in one file.
#[derive(Debug, Clone, Copy)]
pub struct Gap {
    /// Last stamp before.
    pub from: At,
    /// First stamp after.
    pub to: At,
    /// Line number after the gap.
    pub line: u64,
    /// Its offset.
    pub offset: u64,
}

/// The wall clock moved against the kernel's own count.
#[derive(Debug, Clone)]
pub struct ClockStep {
    /// Seconds, positive for forward.
    pub seconds: f64,
    /// The first line after it.
    pub line: Line,
}

/// A shape of line that no rule knows.
#[derive(Debug, Clone)]
pub struct Shape {
    /// How often.
    pub count: u64,
    /// First line.
    pub first: Line,
}

/// Everything that one file gave.
#[derive(Debug, Clone)]
pub struct FileReport {
    /// Logical path.
    pub path: Arc<str>,
    /// The part of the path that belongs to the host's tree.
    pub root: String,
    /// Kind.
    pub kind: FileKind,
    /// Modification time.
    pub mtime: Option<i64>,
    /// Lines and decompressed bytes.
    pub lines: u64,
    /// Decompressed bytes.
    pub bytes: u64,
    /// Hosts that its lines name, with counts.
    pub hosts: BTreeMap<String, u64>,
    /// First and last time.
    pub span: Option<(At, At)>,
    /// Year of the first line that has one and no zone, for the record of evidence.
    pub zone_votes: BTreeMap<i32, (u64, Line)>,
    /// Matches.
    pub episodes: Vec<Episode>,
    /// Largest silences.
    pub gaps: Vec<Gap>,
    /// Clock steps.
    pub steps: Vec<ClockStep>,
    /// Boot instants in local time, from lines with both clocks: (At of a line, uptime then).
    pub uptimes: Vec<(At, i64)>,
    /// NUL runs.
    pub nul: NulMap,
    /// Shapes that no rule knows.
    pub shapes: HashMap<u64, Shape>,
    /// The crontab, when it is one.
    pub crontab: Option<crontab::Crontab>,
    /// Login records.
    pub wtmp: Vec<wtmp::WtmpRecord>,
    /// Content of a small configuration file.
    pub content: Option<Vec<u8>>,
    /// Whether any kept line was GBK.
    pub gbk: bool,
    /// Notices of the scan: kind and detail.
    pub notices: Vec<(NoticeKind, String)>,
    /// Hash of the first block, to see copies.
    pub fingerprint: u64,
}

/// Scans one source.
pub fn scan(rules: &RuleSet, source: Source<'_>) -> FileReport {
    let kind = kind_of(&source.path);
    let mut scanner = Scanner::new(rules, &source, kind);
    if let Some(target) = &source.link {
        scanner.path_rules(&format!("a link to {}", printable(target.as_bytes(), 200)));
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
        _ => scanner.read_text(source.body),
    }
    scanner.finish()
}

struct Scanner<'r> {
    rules: &'r RuleSet,
    report: FileReport,
    /// Stamp and host part of the last line, to skip parsing the next one that starts alike.
    head: Vec<u8>,
    now: At,
    host: String,
    wraps: i64,
    last_yearless: Option<i64>,
    boot_number: u32,
    last_uptime: Option<i64>,
    clock_base: Option<(i64, i64)>,
    previous: Option<(Place, At, Vec<u8>)>,
    open: HashMap<(usize, String, String), usize>,
    per_rule: HashMap<usize, usize>,
    last_match: Option<usize>,
    export: Option<JournalExport>,
    kept: Vec<u8>,
    binary: bool,
    offset_now: u64,
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
                wtmp: Vec::new(),
                content: None,
                gbk: false,
                notices: Vec::new(),
                fingerprint: 0,
            },
            head: Vec::new(),
            now: At::None,
            host: String::new(),
            wraps: 0,
            last_yearless: None,
            boot_number: 0,
            last_uptime: None,
            clock_base: None,
            previous: None,
            open: HashMap::new(),
            per_rule: HashMap::new(),
            last_match: None,
            export: None,
            kept: Vec::new(),
            binary: false,
            offset_now: 0,
        }
    }

    fn notice(&mut self, kind: NoticeKind, detail: &str) {
        self.report.notices.push((kind, detail.to_owned()));
    }

    fn path_rules(&mut self, text: &str) {
        let path = Arc::clone(&self.report.path);
        for (rule, fields) in self.rules.path_matches(&path) {
            let line = Line {
                place: Place { file: Arc::clone(&path), line: 0, offset: 0 },
                at: At::None,
                text: text.to_owned(),
            };
            self.report.episodes.push(Episode {
                rule,
                host: String::new(),
                fields,
                first: line.clone(),
                last: line,
                count: 1,
                before: None,
            });
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

    fn read_text(&mut self, body: &mut dyn std::io::Read) {
        let keep = self.report.kind != FileKind::Log || is_kept(&self.report.path);
        let mut first = true;
        let mut elf = false;
        let end = for_each_block(body, |block| {
            if first {
                first = false;
                elf = block.bytes.starts_with(b"\x7fELF");
                self.report.fingerprint = hash(&block.bytes[..block.bytes.len().min(4096)]);
                if elf || looks_binary(block.bytes) {
                    self.binary = true;
                    return ControlFlow::Break(());
                }
                if block.bytes.split(|b| *b == b'\n').take(3).any(JournalExport::is_start) {
                    self.export = Some(JournalExport::default());
                }
            }
            self.report.nul.feed(block.bytes);
            if keep && self.kept.len() < MAX_KEPT {
                let room = MAX_KEPT - self.kept.len();
                self.kept.extend_from_slice(&block.bytes[..block.bytes.len().min(room)]);
            }
            self.block(block);
            ControlFlow::Continue(())
        });
        self.report.bytes = end.bytes;
        self.path_rules(if elf { "an executable" } else { "a file" });
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
            if matches!(self.report.kind, FileKind::SystemCrontab | FileKind::UserCrontab) {
                self.report.crontab =
                    Some(crontab::parse(&kept, self.report.kind == FileKind::SystemCrontab));
            }
            self.report.content = Some(kept);
        }
    }

    fn block(&mut self, block: Block<'_>) {
        let rules = self.rules;
        let mut candidates = rules.candidates(block.bytes).peekable();
        let mut hits: Vec<usize> = Vec::new();
        let (mut start, mut number) = (0usize, block.first_line);
        while start < block.bytes.len() {
            let end = memchr::memchr(b'\n', &block.bytes[start..]).map_or(block.bytes.len(), |n| start + n);
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
            self.line(line, place, &hits, repeat);
            start = end + 1;
            number += 1;
        }
        self.report.lines = number - 1;
    }

    fn line(&mut self, line: &[u8], (number, offset): (u64, u64), hits: &[usize], repeat: bool) {
        self.offset_now = offset;
        if self.export.is_some() {
            return self.export_line(line, number, offset, hits);
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
        } else if let Some(n) = self.report.hosts.get_mut(&self.host) {
            *n += 1;
        }
        if repeat && self.expand_repeat(line, number, offset) {
            return;
        }
        let mut matched = false;
        for rule in hits {
            matched |= self.try_rule(*rule, line, number, offset);
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
        let place = Place { file: Arc::clone(&self.report.path), line: number, offset };
        let kept = &line[..line.len().min(MAX_TEXT)];
        match &mut self.previous {
            Some((p, at, text)) => {
                *p = place;
                *at = self.now;
                text.clear();
                text.extend_from_slice(kept);
            }
            None => self.previous = Some((place, self.now, kept.to_vec())),
        }
    }

    fn export_line(&mut self, line: &[u8], number: u64, offset: u64, hits: &[usize]) {
        let Some(mut export) = self.export.take() else { return };
        if line.is_empty() {
            export.clear();
        } else {
            export.feed(line);
            if line.starts_with(b"MESSAGE=") {
                if let Some(record) = export.record() {
                    self.take_record(&record, b"", number, offset);
                    let tag = if record.program.is_empty() {
                        String::new()
                    } else {
                        format!("{}: ", String::from_utf8_lossy(record.program))
                    };
                    let pid = record.pid.map_or(String::new(), |p| format!("[{p}]"));
                    let shown =
                        [tag.trim_end_matches(": ").as_bytes(), pid.as_bytes(), b": ", record.message]
                            .concat();
                    for rule in hits {
                        self.try_rule(*rule, &shown, number, offset);
                    }
                    self.remember(&shown, number, offset);
                }
            }
        }
        self.export = Some(export);
    }

    /// Takes time and host from a record.
    fn take_record(&mut self, record: &Record<'_>, line: &[u8], number: u64, offset: u64) {
        let at = match record.stamp {
            Some(stamp) => self.at_of(stamp),
            None => match record.uptime {
                Some(uptime) => self.kernel_only(uptime),
                None => At::None,
            },
        };
        if let Some(stamp) = record.stamp
            && let Some(epoch) = stamp.epoch
            && stamp.offset.is_none()
            && let Some(zone) = from_pair(stamp.civil.to_micros(), epoch)
        {
            let place = Place { file: Arc::clone(&self.report.path), line: number, offset };
            let vote = self
                .report
                .zone_votes
                .entry(zone.0)
                .or_insert_with(|| (0, Line { place, at, text: printable(line, MAX_TEXT) }));
            vote.0 += 1;
        } else if let Some(stamp) = record.stamp
            && let Some(zone) = stamp.offset
            && stamp.epoch.is_none()
            && (zone.0 != 0 || record.program == b"corosync")
        {
            let place = Place { file: Arc::clone(&self.report.path), line: number, offset };
            let vote = self
                .report
                .zone_votes
                .entry(zone.0)
                .or_insert_with(|| (0, Line { place, at, text: printable(line, MAX_TEXT) }));
            vote.0 += 1;
        }
        if !record.host.is_empty() && record.host.len() < 64 {
            if record.host != self.host.as_bytes() {
                self.host = printable(record.host, 64);
            }
            *self.report.hosts.entry(self.host.clone()).or_default() += 1;
        } else if record.host.is_empty() && record.program == b"lich" {
            self.host.clear();
        }
        self.watch_clock(at, record.uptime, line, number, offset);
        self.move_to(at, number, offset);
        self.head.clear();
        if !record.host.is_empty() && record.uptime.is_none() && matches!(at, At::Yearless(_)) {
            // Everything up to and with the host and its space: the next line that starts so has the same time and host.
            if let Some(from) = memchr::memmem::find(line, record.host) {
                let end = from + record.host.len();
                if line.get(end) == Some(&b' ') {
                    self.head.extend_from_slice(&line[..=end]);
                }
            }
        }
    }

    fn at_of(&mut self, stamp: Stamp) -> At {
        if let Some(epoch) = stamp.epoch {
            return At::Utc(epoch * MICROS + i64::from(stamp.civil.micro));
        }
        if let Some(offset) = stamp.offset {
            return At::Utc(stamp.civil.to_micros() - offset.micros());
        }
        if stamp.has_year() {
            return At::Local(stamp.civil.to_micros());
        }
        let days = days_from_civil(2000, stamp.civil.month, stamp.civil.day) - days_from_civil(2000, 1, 1);
        let civil = stamp.civil;
        let of_day = i64::from(civil.hour) * 3600 + i64::from(civil.minute) * 60 + i64::from(civil.second);
        let in_year = (days * DAY_SECONDS + of_day) * MICROS + i64::from(civil.micro);
        const YEAR: i64 = 366 * DAY_SECONDS * MICROS;
        if let Some(last) = self.last_yearless {
            // December to January is a new year; January to December is a clock that went back over one.
            if last - in_year > YEAR / 2 {
                self.wraps += 1;
            } else if in_year - last > YEAR / 2 && self.wraps > 0 {
                self.wraps -= 1;
            }
        }
        self.last_yearless = Some(in_year);
        At::Yearless(in_year + self.wraps * YEAR)
    }

    fn kernel_only(&mut self, uptime: i64) -> At {
        if self.last_uptime.is_some_and(|last| uptime + MICROS < last) {
            self.boot_number += 1;
        }
        self.last_uptime = Some(uptime);
        At::Uptime(uptime, self.boot_number)
    }

    /// Compares the wall clock with the kernel's own count, where a line has both.
    fn watch_clock(&mut self, at: At, uptime: Option<i64>, line: &[u8], number: u64, offset: u64) {
        const MAX_STEPS: usize = 64;
        let (Some(uptime), At::Yearless(_) | At::Local(_) | At::Utc(_)) = (uptime, at) else { return };
        let base = at.micros() - uptime;
        if let Some((last_base, last_uptime)) = self.clock_base {
            let moved = base - last_base;
            let same_boot = uptime >= last_uptime && uptime > 60 * MICROS;
            if same_boot && moved.abs() > 30 * MICROS && self.report.steps.len() < MAX_STEPS {
                let place = Place { file: Arc::clone(&self.report.path), line: number, offset };
                let line = Line { place, at, text: printable(line, MAX_TEXT) };
                self.report.steps.push(ClockStep { seconds: moved as f64 / MICROS as f64, line });
            }
        }
        if self.report.uptimes.len() < 256
            && self.clock_base.is_none_or(|(b, _)| (b - base).abs() > 5 * MICROS)
        {
            self.report.uptimes.push((at, uptime));
        }
        // The boot's own burst is logged late: only later lines fix the base.
        if uptime > 60 * MICROS || self.clock_base.is_some_and(|(_, u)| uptime < u) {
            self.clock_base = Some((base, uptime));
        }
    }

    fn move_to(&mut self, at: At, number: u64, offset: u64) {
        if at == At::None {
            return;
        }
        let before = self.now;
        if before != At::None && std::mem::discriminant(&before) == std::mem::discriminant(&at) {
            let silence = at.micros() - before.micros();
            if silence >= MIN_GAP {
                self.report.gaps.push(Gap { from: before, to: at, line: number, offset });
                if self.report.gaps.len() > 2 * MAX_GAPS {
                    self.trim_gaps();
                }
            }
        }
        self.now = at;
        self.report.span = match self.report.span {
            None => Some((at, at)),
            Some((first, _)) => Some((first, at)),
        };
    }

    fn trim_gaps(&mut self) {
        self.report.gaps.sort_by_key(|g| std::cmp::Reverse(g.to.micros() - g.from.micros()));
        self.report.gaps.truncate(MAX_GAPS);
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
        let (_, encoding) = decode(line);
        self.report.gbk |= encoding == Encoding::Gbk;
        let place = Place { file: Arc::clone(&self.report.path), line: number, offset };
        let first = Line { place, at: self.now, text: printable(line, MAX_TEXT) };
        let before = match (&self.previous, definition.boot) {
            (Some((place, at, text)), true) => {
                Some(Line { place: place.clone(), at: *at, text: printable(text, MAX_TEXT) })
            }
            _ => None,
        };
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

    /// Counts the shape of an unknown line: its letters, without digits.
    fn shape(&mut self, message: &[u8], line: &[u8], number: u64, offset: u64) {
        let mut state = 0xcbf2_9ce4_8422_2325u64;
        for byte in &message[..message.len().min(96)] {
            if !byte.is_ascii_digit() {
                state = (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        if let Some(shape) = self.report.shapes.get_mut(&state) {
            shape.count += 1;
        } else if self.report.shapes.len() < MAX_SHAPES {
            let place = Place { file: Arc::clone(&self.report.path), line: number, offset };
            let first = Line { place, at: self.now, text: printable(line, 200) };
            self.report.shapes.insert(state, Shape { count: 1, first });
        }
    }

    fn finish(mut self) -> FileReport {
        self.trim_gaps();
        self.report
    }
}

/// Small files that are looked at whole though they may lie among logs.
fn is_kept(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    matches!(name, "hostname" | "timezone" | "machine-id" | "date" | "timedatectl" | "uptime")
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
