//! The files of the event log: writing lines, turning to a new file, dropping the oldest, reading back.

use super::EventLogError;
use crate::model::{Event, EventLevel};
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// A file that has reached this is followed by a new one.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
/// How many files are kept.
pub const KEPT_FILES: usize = 8;
/// No file of ours is longer; more of a longer one is not read.
const MAX_READ_BYTES: u64 = 4 * MAX_FILE_BYTES;
const SUFFIX: &str = ".jsonl";

pub(super) struct Files {
    written: Written,
    current: Option<(File, u64)>,
    next_seq: u64,
    damaged: u64,
}

/// What is in the files, for who reads them while they are written.
#[derive(Clone)]
pub(super) struct Written {
    folder: PathBuf,
    /// First event number of each file, rising; the last one is written to.
    starts: Arc<Mutex<Vec<u64>>>,
}

impl Files {
    /// Opens the folder; also returns the newest `keep` events.
    pub(super) fn open(folder: &Path, keep: usize) -> Result<(Self, VecDeque<Event>), EventLogError> {
        fs::create_dir_all(folder).map_err(|e| error(folder, e))?;
        let starts = starts(folder)?;
        let written = Written { folder: folder.into(), starts: Arc::new(Mutex::new(starts.clone())) };
        let mut files = Self { written, current: None, next_seq: 1, damaged: 0 };
        let mut newest = VecDeque::new();
        for start in starts {
            let content = files.written.read_file(start)?;
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
    pub(super) fn folder(&self) -> &Path {
        &self.written.folder
    }
    pub(super) fn written(&self) -> Written {
        self.written.clone()
    }

    /// Goes on with the last file, cutting a torn line at its end.
    fn reopen_last(&mut self) -> Result<(), EventLogError> {
        let Some(start) = self.written.starts().last().copied() else { return Ok(()) };
        let path = self.written.path(start);
        let content = self.written.read_file(start)?;
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
        let path = self.written.path(self.written.starts().last().copied().unwrap_or(event.seq));
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

    /// What was appended is on stable storage from here on.
    pub(super) fn flush(&mut self) -> Result<(), EventLogError> {
        let flushed = self.current.as_ref().map_or(Ok(()), |(file, _)| file.sync_data());
        flushed.map_err(|e| error(self.folder(), e))
    }

    /// Starts a new file and drops the oldest.
    fn turn(&mut self, seq: u64) -> Result<(), EventLogError> {
        let flushed = self.flush();
        // One that cannot be flushed is not gone on with.
        self.current = None;
        flushed?;
        let path = self.written.path(seq);
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|e| error(&path, e))?;
        holdfast_net::atomic::sync_folder(self.folder()).map_err(|e| error(self.folder(), e))?;
        self.current = Some((file, 0));
        let mut starts = self.written.starts();
        starts.push(seq);
        let surplus = starts.len().saturating_sub(KEPT_FILES);
        let oldest: Vec<u64> = starts.drain(..surplus).collect();
        drop(starts);
        oldest
            .into_iter()
            .map(|start| self.written.path(start))
            .try_for_each(|path| fs::remove_file(&path).map_err(|e| error(&path, e)))
    }
}

impl Written {
    fn starts(&self) -> MutexGuard<'_, Vec<u64>> {
        // Nothing panics while it is held.
        self.starts.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Every good event with a number above `since`.
    pub(super) fn read(&self, since: u64) -> Result<Vec<Event>, EventLogError> {
        let mut out = Vec::new();
        let starts = self.starts().clone();
        for (i, start) in starts.iter().enumerate() {
            // The file after it starts below or at what is asked for: nothing in this one is.
            if starts.get(i + 1).is_some_and(|next| *next <= since + 1) {
                continue;
            }
            let content = match self.read_file(*start) {
                // It was the oldest, and is gone by now.
                Err(e) if e.source.kind() == io::ErrorKind::NotFound => continue,
                content => content?,
            };
            out.extend(parse(&content).0.into_iter().filter(|e| e.seq > since));
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
