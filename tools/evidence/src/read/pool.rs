//! The workers that read a bundle, and the queue between them.
//!
//! Promise: every file is read once; the order in which leaves reach the consumer is not fixed, so a consumer that wants
//! fixed results sorts by path. The queue holds a bounded number of buffered members; a worker that finds it full does the
//! work itself.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};

use super::{Limits, Notice, NoticeKind, Source, SourceError, archive, bundle_name};

/// Buffered members waiting for a core.
const MAX_BUFFERED: usize = 4;
/// Notices kept; a bundle of broken files must not fill memory.
const MAX_NOTICES: usize = 10_000;

enum Job {
    File { disk: PathBuf, logical: String },
    Member { logical: String, mtime: Option<i64>, bytes: Vec<u8>, depth: u32 },
}

#[derive(Default)]
struct Queue {
    files: VecDeque<Job>,
    members: VecDeque<Job>,
    busy: usize,
}

/// How far a reading is.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of files on disk in all.
    pub total: AtomicU64,
    /// Bytes of them read.
    pub done: AtomicU64,
    /// Leaves given to the consumer.
    pub leaves: AtomicU64,
}

struct Shared<'a> {
    limits: &'a Limits,
    queue: Mutex<Queue>,
    wake: Condvar,
    notices: Mutex<Vec<Notice>>,
    files: AtomicU64,
    progress: &'a Progress,
    consume: &'a (dyn Fn(Source<'_>) + Sync),
}

/// A poisoned lock only means that another worker panicked; its data are still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// What a reading thread can do.
pub(super) struct Worker<'a> {
    shared: &'a Shared<'a>,
}

impl Worker<'_> {
    pub(super) fn limits(&self) -> &Limits {
        self.shared.limits
    }

    pub(super) fn notice(&self, path: &str, kind: NoticeKind, detail: String) {
        let mut notices = lock(&self.shared.notices);
        if notices.len() < MAX_NOTICES {
            notices.push(Notice { path: path.to_owned(), kind, detail });
        }
    }

    pub(super) fn stream_error(&self, path: &str, error: &io::Error) {
        let (kind, detail) = classify(error);
        self.notice(path, kind, detail);
    }

    pub(super) fn leaf(&self, source: Source<'_>) {
        self.shared.progress.leaves.fetch_add(1, Ordering::Relaxed);
        (self.shared.consume)(source);
    }

    pub(super) fn link(&self, path: &str, target: String) {
        let mut empty = io::empty();
        self.leaf(Source { path: path.into(), mtime: None, link: Some(target), body: &mut empty });
    }

    /// Counts a file; `false` when the bundle has too many.
    pub(super) fn count_file(&self, path: &str) -> bool {
        let seen = self.shared.files.fetch_add(1, Ordering::Relaxed);
        if seen == self.limits().max_files {
            self.notice(
                path,
                NoticeKind::Limit,
                format!("more than {} files; the rest is not read", self.limits().max_files),
            );
        }
        seen < self.limits().max_files
    }

    /// Gives a buffered member to whichever core is free.
    pub(super) fn hand_over(&self, logical: String, mtime: Option<i64>, bytes: Vec<u8>, depth: u32) {
        let job = Job::Member { logical, mtime, bytes, depth };
        let mut queue = lock(&self.shared.queue);
        if queue.members.len() < MAX_BUFFERED && self.limits().threads > 1 {
            queue.members.push_back(job);
            drop(queue);
            self.shared.wake.notify_one();
        } else {
            drop(queue);
            self.run(job);
        }
    }

    fn run(&self, job: Job) {
        match job {
            Job::Member { logical, mtime, bytes, depth } => {
                archive::open(self, &logical, mtime, Box::new(Cursor::new(bytes)), depth);
            }
            Job::File { disk, logical } => self.open_file(&disk, &logical),
        }
    }

    fn open_file(&self, disk: &Path, logical: &str) {
        let opened = File::open(disk).and_then(|f| f.metadata().map(|m| (f, m)));
        let (mut file, meta) = match opened {
            Ok(pair) => pair,
            Err(e) => return self.notice(logical, NoticeKind::Unreadable, e.to_string()),
        };
        let mtime = meta
            .modified()
            .ok()
            .and_then(|m| m.duration_since(std::time::UNIX_EPOCH).ok())
            .map(|d| d.as_secs() as i64);
        let mut head = [0u8; 4];
        let is_zip = file.read_exact(&mut head).is_ok() && archive::is_zip(&head);
        if let Err(e) = io::Seek::rewind(&mut file) {
            return self.notice(logical, NoticeKind::Unreadable, e.to_string());
        }
        if is_zip {
            archive::zip(self, logical, file, 0);
            self.shared.progress.done.fetch_add(meta.len(), Ordering::Relaxed);
        } else {
            let counted = Metered { inner: file, done: &self.shared.progress.done };
            archive::open(self, logical, mtime, Box::new(counted), 0);
        }
    }
}

/// What an I/O error on a stream means for the reader of the report.
pub(super) fn classify(error: &io::Error) -> (NoticeKind, String) {
    if archive::is_bomb(error) {
        return (NoticeKind::Bomb, error.to_string());
    }
    let text = error.to_string();
    let kind = match error.kind() {
        io::ErrorKind::UnexpectedEof => NoticeKind::Truncated,
        io::ErrorKind::PermissionDenied => NoticeKind::Unreadable,
        _ if text.contains("EOF") || text.contains("incomplete") || text.contains("unexpected end") => {
            NoticeKind::Truncated
        }
        _ => NoticeKind::Damaged,
    };
    (kind, text)
}

struct Metered<'a, R> {
    inner: R,
    done: &'a AtomicU64,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        self.done.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// Reads all bundles and gives every leaf to `consume`, from several threads. Returns the notices in a fixed order.
pub fn read_all(
    bundles: &[PathBuf],
    limits: &Limits,
    progress: &Progress,
    consume: &(dyn Fn(Source<'_>) + Sync),
) -> Result<Vec<Notice>, SourceError> {
    let shared = Shared {
        limits,
        queue: Mutex::new(Queue::default()),
        wake: Condvar::new(),
        notices: Mutex::new(Vec::new()),
        files: AtomicU64::new(0),
        progress,
        consume,
    };
    let lister = Worker { shared: &shared };
    let mut files = Vec::new();
    for bundle in bundles {
        let meta =
            fs::metadata(bundle).map_err(|source| SourceError::Open { path: bundle.clone(), source })?;
        let name = bundle_name(&fs::canonicalize(bundle).unwrap_or_else(|_| bundle.clone()));
        if meta.is_dir() {
            let prefix = if bundles.len() > 1 { format!("{name}/") } else { String::new() };
            fs::read_dir(bundle).map_err(|source| SourceError::Open { path: bundle.clone(), source })?;
            list(&lister, bundle, &prefix, &mut files);
        } else {
            files.push((meta.len(), Job::File { disk: bundle.clone(), logical: name }));
        }
    }
    progress.total.store(files.iter().map(|(len, _)| len).sum(), Ordering::Relaxed);
    // Large files first, so that the last worker is not left alone with one.
    files.sort_by_key(|(len, _)| std::cmp::Reverse(*len));
    lock(&shared.queue).files = files.into_iter().map(|(_, job)| job).collect();
    std::thread::scope(|scope| {
        for _ in 1..limits.threads {
            scope.spawn(|| work(&shared));
        }
        work(&shared);
    });
    let mut notices = shared.notices.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    notices.sort();
    notices.dedup();
    Ok(notices)
}

fn work(shared: &Shared<'_>) {
    let worker = Worker { shared };
    loop {
        let mut queue = lock(&shared.queue);
        let job = loop {
            if let Some(job) = queue.members.pop_front().or_else(|| queue.files.pop_front()) {
                queue.busy += 1;
                break job;
            }
            if queue.busy == 0 {
                shared.wake.notify_all();
                return;
            }
            queue = shared.wake.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner());
        };
        drop(queue);
        worker.run(job);
        lock(&shared.queue).busy -= 1;
        shared.wake.notify_all();
    }
}

/// Lists a folder in name order without following links.
fn list(worker: &Worker<'_>, folder: &Path, prefix: &str, files: &mut Vec<(u64, Job)>) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) => return worker.notice(prefix, NoticeKind::Unreadable, e.to_string()),
    };
    let mut names: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    names.sort();
    for path in names {
        let logical = format!("{prefix}{}", bundle_name(&path));
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(e) => {
                worker.notice(&logical, NoticeKind::Unreadable, e.to_string());
                continue;
            }
        };
        if meta.file_type().is_symlink() {
            let target = fs::read_link(&path).map(|t| t.to_string_lossy().into_owned()).unwrap_or_default();
            worker.link(&logical, target);
        } else if meta.is_dir() {
            list(worker, &path, &format!("{logical}/"), files);
        } else if !meta.is_file() {
            worker.notice(&logical, NoticeKind::Special, "a pipe, socket or device; not opened".into());
        } else if worker.count_file(&logical) {
            files.push((meta.len(), Job::File { disk: path, logical }));
        } else {
            return;
        }
    }
}

/// The kind of notice that an error in the middle of a stream deserves.
pub fn error_kind(error: &io::Error) -> NoticeKind {
    classify(error).0
}
