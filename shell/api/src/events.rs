//! The event log: what happened to the cluster as this node saw it, kept across restarts. Lines of
//! `<crc32c> <json>` in files of about a megabyte, of which the newest few are kept, so that its size is
//! bounded whatever happens.
//!
//! Promises: an event once appended has a number that no other event of this node has; a torn last line, left
//! by a crash, is cut; a line that fails its checksum is passed over and counted, never shown. Nobody waits for the disk: a
//! thread writes, at once, and events that matter (warning, error) are flushed then; others reach stable storage with the
//! next such event or file. What a disk that fails or hangs does not take is in memory, with the newest events.

mod files;
mod writer;

use crate::model::{Event, EventLevel, EventQuery};
use futures::stream::{self, BoxStream, StreamExt};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;
use thiserror::Error;
use tokio::sync::watch;

pub use files::{KEPT_FILES, MAX_FILE_BYTES};

/// The newest events, kept in memory for those who follow.
const RECENT: usize = 1024;
/// The longest text in an event; more is cut.
const MAX_TEXT: usize = 2048;
/// Events that one query answers at most.
pub const MAX_ANSWER: usize = 10_000;

/// Why the log could not be opened or written.
#[derive(Debug, Error)]
#[error("event log {path}: {source}")]
pub struct EventLogError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the file system said.
    pub source: io::Error,
}

/// What to log.
#[derive(Clone, Debug, Default)]
pub struct NewEvent {
    /// How much it matters.
    pub level: EventLevel,
    /// Who did it.
    pub who: String,
    /// What kind, for programs.
    pub kind: &'static str,
    /// What, for people.
    pub what: String,
    /// Why.
    pub why: String,
}

/// The log of one node. Cheap to clone.
#[derive(Clone)]
pub struct EventLog(Arc<Shared>);

struct Shared {
    node: u16,
    inner: Mutex<Inner>,
    last: watch::Sender<u64>,
    /// What was written before.
    written: files::Written,
    damaged: u64,
}

struct Inner {
    writer: writer::Writer,
    recent: VecDeque<Event>,
    next_seq: u64,
}

impl Inner {
    /// What is not in the files yet is kept for longer than the newest are.
    fn forget(&mut self) {
        let written = self.writer.written_to();
        while let Some(oldest) = self.recent.front().filter(|_| self.recent.len() > RECENT) {
            if oldest.seq > written && self.recent.len() <= RECENT + writer::WAITING_MOST {
                return;
            }
            self.recent.pop_front();
        }
    }
}

impl EventLog {
    /// Opens the log in `folder`, making it if needed.
    pub fn open(folder: &Path, node: u16) -> Result<Self, EventLogError> {
        let (files, newest) = files::Files::open(folder, RECENT)?;
        let next_seq = files.next_seq().max(newest.back().map_or(1, |e| e.seq + 1));
        let (last, _) = watch::channel(next_seq - 1);
        let (written, damaged) = (files.written(), files.damaged());
        let inner = Inner { writer: writer::Writer::start(files)?, recent: newest, next_seq };
        Ok(Self(Arc::new(Shared { node, inner: Mutex::new(inner), last, written, damaged })))
    }

    /// Logs an event now. Its number.
    pub fn append(&self, event: NewEvent) -> u64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.append_at(event, now.as_millis() as u64)
    }

    /// The same at a time of the caller's.
    pub fn append_at(&self, event: NewEvent, time_ms: u64) -> u64 {
        let mut inner = self.lock();
        let seq = inner.next_seq;
        inner.next_seq += 1;
        let event = Event {
            seq,
            time_ms,
            node: self.0.node,
            level: event.level,
            who: cut(event.who),
            kind: event.kind.to_owned(),
            what: cut(event.what),
            why: cut(event.why),
        };
        // In the order of their numbers: nobody else has one meanwhile.
        inner.writer.write(event.clone());
        inner.recent.push_back(event);
        inner.forget();
        drop(inner);
        // Two that append at once may arrive here in the other order; the number only rises.
        self.0.last.send_if_modified(|last| {
            let rises = seq > *last;
            *last = seq.max(*last);
            rises
        });
        seq
    }

    /// Waits, for a while, until what was appended is on stable storage. False: it is not, and may never be.
    pub fn flush(&self) -> bool {
        let flushed = self.lock().writer.flush();
        flushed.recv_timeout(writer::FLUSHED_WITHIN).is_ok()
    }

    /// Events that the query asks for, oldest first.
    pub fn tail(&self, query: EventQuery) -> Result<Vec<Event>, EventLogError> {
        let since = query.since.unwrap_or(0);
        let last = query.last.unwrap_or(MAX_ANSWER).min(MAX_ANSWER);
        let inner = self.lock();
        let oldest = inner.recent.front().map_or(inner.next_seq, |e| e.seq);
        let enough = since + 1 >= oldest || inner.recent.len() >= last;
        let newest: Vec<Event> = inner.recent.iter().filter(|e| e.seq > since).cloned().collect();
        drop(inner);
        // The newest may not be in the files yet.
        let mut events = if enough { Vec::new() } else { self.0.written.read(since)? };
        events.retain(|e| e.seq < oldest);
        events.extend(newest);
        let surplus = events.len().saturating_sub(last);
        events.drain(..surplus);
        Ok(events)
    }

    /// What the query asks for and then every event as it happens.
    pub fn follow(&self, query: EventQuery) -> Result<BoxStream<'static, Event>, EventLogError> {
        let watch = self.0.last.subscribe();
        let first = self.tail(query)?;
        let seen = first.last().map(|e| e.seq).unwrap_or_else(|| self.lock().next_seq - 1);
        let state = (self.clone(), watch, seen);
        let later = stream::unfold(state, |(log, mut watch, seen)| async move {
            loop {
                if *watch.borrow_and_update() <= seen {
                    watch.changed().await.ok()?;
                }
                let events = log.tail(EventQuery { since: Some(seen), last: None }).unwrap_or_default();
                if let Some(last) = events.last().map(|e| e.seq) {
                    return Some((stream::iter(events), (log, watch, last)));
                }
            }
        });
        Ok(stream::iter(first).chain(later.flatten()).boxed())
    }

    /// How many lines failed their checksum when the log was opened.
    pub fn damaged_lines(&self) -> u64 {
        self.0.damaged
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here is left half-done by a panic that matters more than the log going on.
        self.0.inner.lock().unwrap_or_else(|e| e.into_inner())
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests;
