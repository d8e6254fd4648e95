//! The files of the event log: writing lines, turning to a new file, dropping the oldest, reading back.

use super::EventLogError;
use crate::model::{Event, EventLevel};
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// A file that has reached this is followed by a new one.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
/// How many files are kept.
pub const KEPT_FILES: usize = 8;
/// No file of ours is longer; more of a longer one is not read.
const MAX_READ_BYTES: u64 = 4 * MAX_FILE_BYTES;
const SUFFIX: &str = ".jsonl";

pub(super) struct Files {
    folder: PathBuf,
    /// First event number of each file, rising; the last one is written to.
    starts: Vec<u64>,
    current: Option<(File, u64)>,
    next_seq: u64,
    damaged: u64,
}

impl Files {
    /// Opens the folder; also returns the newest `keep` events.
    pub(super) fn open(folder: &Path, keep: usize) -> Result<(Self, VecDeque<Event>), EventLogError> {
        fs::create_dir_all(folder).map_err(|e| error(folder, e))?;
        let starts = starts(folder)?;
        let mut files = Self { folder: folder.into(), starts, current: None, next_seq: 1, damaged: 0 };
        let mut newest = VecDeque::new();
        for start in files.starts.clone() {
            let content = files.read_file(start)?;
            files.next_seq = files.next_seq.max(start);
            let (events, damaged) = parse(&content);
            files.damaged += damaged;
            newest.extend(events);
            let surplus = newest.len().saturating_sub(keep);
            newest.drain(..surplus);
        }
        if let Some(last) = newest.back() {
            files.next_seq = files.next_seq.max(last.seq + 1);
        }
        files.reopen_last()?;
        Ok((files, newest))
    }

    pub(super) fn next_seq(&self) -> u64 {
        self.next_seq
    }
    pub(super) fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Goes on with the last file, cutting a torn line at its end.
    fn reopen_last(&mut self) -> Result<(), EventLogError> {
        let Some(start) = self.starts.last().copied() else { return Ok(()) };
        let path = self.path(start);
        let content = self.read_file(start)?;
        let whole = content.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1) as u64;
        let file = OpenOptions::new().append(true).open(&path).map_err(|e| error(&path, e))?;
        file.set_len(whole).map_err(|e| error(&path, e))?;
        self.current = Some((file, whole));
        Ok(())
    }

    pub(super) fn append(&mut self, event: &Event) -> Result<(), EventLogError> {
        if self.current.as_ref().is_none_or(|(_, len)| *len >= MAX_FILE_BYTES) {
            self.turn(event.seq)?;
        }
        let path = self.path(self.starts.last().copied().unwrap_or(event.seq));
        let line = line(event).map_err(|e| error(&path, e))?;
        let Some((file, len)) = &mut self.current else { return Ok(()) };
        if let Err(e) = file.write_all(line.as_bytes()) {
            // Part of the line may be there: cut it, so that the next one starts at the start of a line.
            let _ = file.set_len(*len);
            return Err(error(&path, e));
        }
        *len += line.len() as u64;
        if event.level >= EventLevel::Warning {
            file.sync_data().map_err(|e| error(&path, e))?;
        }
        Ok(())
    }

    /// Starts a new file and drops the oldest.
    fn turn(&mut self, seq: u64) -> Result<(), EventLogError> {
        if let Some((file, _)) = self.current.take() {
            file.sync_data().map_err(|e| error(&self.folder, e))?;
        }
        let path = self.path(seq);
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|e| error(&path, e))?;
        holdfast_net::atomic::sync_folder(&self.folder).map_err(|e| error(&self.folder, e))?;
        self.current = Some((file, 0));
        self.starts.push(seq);
        while self.starts.len() > KEPT_FILES {
            let start = self.starts.remove(0);
            let oldest = self.path(start);
            fs::remove_file(&oldest).map_err(|e| error(&oldest, e))?;
        }
        Ok(())
    }

    /// Every good event with a number above `since`.
    pub(super) fn read(&self, since: u64) -> Result<Vec<Event>, EventLogError> {
        let mut out = Vec::new();
        for (i, start) in self.starts.iter().enumerate() {
            // The file after it starts below or at what is asked for: nothing in this one is.
            if self.starts.get(i + 1).is_some_and(|next| *next <= since + 1) {
                continue;
            }
            out.extend(parse(&self.read_file(*start)?).0.into_iter().filter(|e| e.seq > since));
        }
        Ok(out)
    }

    fn path(&self, start: u64) -> PathBuf {
        self.folder.join(format!("{start:020}{SUFFIX}"))
    }

    fn read_file(&self, start: u64) -> Result<Vec<u8>, EventLogError> {
        let path = self.path(start);
        let mut content = Vec::new();
        let read = File::open(&path).and_then(|f| f.take(MAX_READ_BYTES).read_to_end(&mut content));
        read.map_err(|e| error(&path, e))?;
        Ok(content)
    }
}

fn starts(folder: &Path) -> Result<Vec<u64>, EventLogError> {
    let mut starts = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| error(folder, e))? {
        let name = entry.map_err(|e| error(folder, e))?.file_name();
        let digits = name.to_str().and_then(|n| n.strip_suffix(SUFFIX)).filter(|d| d.len() == 20);
        starts.extend(digits.and_then(|d| d.parse::<u64>().ok()));
    }
    starts.sort_unstable();
    Ok(starts)
}

fn line(event: &Event) -> io::Result<String> {
    let json = serde_json::to_string(event)?;
    Ok(format!("{:08x} {json}\n", holdfast_checksum::crc32c(json.as_bytes())))
}

/// The good events of a file, and how many whole lines are not.
fn parse(content: &[u8]) -> (Vec<Event>, u64) {
    let mut events = Vec::new();
    let mut damaged = 0;
    for line in content.split_inclusive(|b| *b == b'\n') {
        match line.strip_suffix(b"\n").map(parse_line) {
            Some(Some(event)) => events.push(event),
            Some(None) => damaged += 1,
            // Torn: it never counted as written.
            None => {}
        }
    }
    (events, damaged)
}

fn parse_line(line: &[u8]) -> Option<Event> {
    let (crc, json) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let crc = u32::from_str_radix(crc, 16).ok()?;
    if crc != holdfast_checksum::crc32c(json.as_bytes()) {
        return None;
    }
    serde_json::from_str(json).ok()
}

fn error(path: &Path, source: io::Error) -> EventLogError {
    EventLogError { path: path.into(), source }
}
