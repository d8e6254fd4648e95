//! The thread that writes control's database. Jobs that wait together go down in one transaction with one
//! flush, and are completed in the order in which they came: openraft counts an entry as stored when the
//! callback of a later one was called.
//!
//! A file system that is full, or a disk that fails, is no reason to end: what could not be written waits, and everything
//! after it, until it can be. To the group this node is slow meanwhile; as a leader it sends no heartbeats, and another one is
//! elected. What a failed write or flush left behind is not built upon, since the kernel may have taken pages for written
//! that are not: both files are made anew before it is tried again.

use super::pair::{Pair, open, open_anew};
use super::{Damage, StoreError};
use crate::raft_types::{Entry, LogId, SnapshotMeta, TypeConfig, Vote};
use crate::{codec, recover::Generation};
use holdfast_types::NodeId;
use openraft::storage::LogFlushed;
use redb::{Database, Durability, ReadableTable, Table, TableDefinition};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const IDENTITY: &str = "identity";
pub(super) const VOTE: &str = "vote";
pub(super) const COMMITTED: &str = "committed";
pub(super) const PURGED: &str = "purged";
pub(super) const SNAPSHOT: &str = "snapshot";
pub(super) const GENERATION: &str = "generation";
/// The number of the last transaction: which of the two files is newer.
const NUMBER: &str = "number";
/// The layout of the tables. Their values have versions of their own (codec.rs).
const LAYOUT_VERSION: u32 = 1;
/// How many jobs wait at most; the raft core waits for each flush, so that there are few.
const QUEUE: usize = 64;

/// A disk on which half of the last ten writes took so long is slow: an idle hard disk flushes in a tenth of it.
const SLOW_WRITE: Duration = Duration::from_millis(200);
const SLOW_WRITES: u32 = 5;
const LOOKED_AT: u32 = 10;
/// How long a slow disk is left alone.
const PROBE_AFTER: Duration = Duration::from_secs(2);

/// After a failure.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// A snapshot as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredSnapshot {
    pub(crate) meta: SnapshotMeta,
    pub(crate) data: Vec<u8>,
}

/// What the database held when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    pub(crate) log: BTreeMap<u64, Entry>,
    pub(crate) snapshot: Option<StoredSnapshot>,
    /// The group that this is of. None: it is of none yet, and will be of the first that speaks to it.
    pub(crate) generation: Option<Generation>,
}

impl Loaded {
    /// Whether nothing was ever promised by what it holds.
    pub(crate) fn is_empty(&self) -> bool {
        self.vote.is_none() && self.snapshot.is_none() && self.log.is_empty() && self.purged.is_none()
    }
}

/// Who is told that a job is done.
enum Done {
    Appended(LogFlushed<TypeConfig>),
    Waiter(oneshot::Sender<io::Result<()>>),
    Nobody,
}

enum Change {
    Append(Vec<(u64, Vec<u8>)>),
    Put(&'static str, Vec<u8>),
    Truncate(u64),
    Purge(u64, Vec<u8>),
    /// Only the flush, to see how long it takes.
    Nothing,
}

struct Job {
    change: Change,
    done: Done,
}

/// Gives jobs to the thread. The thread ends, and closes the database, when the last of these is dropped.
#[derive(Clone)]
pub(crate) struct Writer {
    jobs: SyncSender<Job>,
    progress: Writing,
}

/// How the writing goes. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writing(Arc<Mutex<Progress>>);

#[derive(Debug, Default)]
struct Progress {
    /// Since when something is being written.
    since: Option<Instant>,
    /// Why it failed last.
    failed: Option<String>,
    /// A bit for each of the last writes that were flushed, the newest lowest: whether it was slow.
    slow: u32,
}

impl Writing {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn begins(&self) {
        self.lock().since = Some(Instant::now());
    }

    fn ends(&self, is_flushed: bool) {
        let mut progress = self.lock();
        let took = progress.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        progress.failed = None;
        if is_flushed {
            progress.slow = (progress.slow << 1 | u32::from(took >= SLOW_WRITE)) & ((1 << LOOKED_AT) - 1);
        }
    }

    /// Whether it takes long.
    pub(crate) fn is_slow(&self) -> bool {
        self.lock().slow.count_ones() >= SLOW_WRITES
    }

    /// Why what is to be written is not: it failed, or takes longer than that.
    pub(crate) fn trouble(&self, patience: Duration) -> Option<String> {
        let progress = self.lock();
        let is_slow = progress.since.is_some_and(|since| since.elapsed() >= patience);
        let silent = || is_slow.then(|| "its disk does not answer".to_owned());
        progress.failed.clone().or_else(silent)
    }
}

impl Writer {
    /// Opens, or creates, the database of that node in `dir`; says what was mended.
    pub(crate) fn open(dir: &Path, node: NodeId) -> Result<(Writer, Loaded, Option<Damage>), StoreError> {
        let path = dir.to_owned();
        let (jobs, queue) = sync_channel(QUEUE);
        let (ready, opened) = sync_channel(1);
        let thread_dir = dir.to_owned();
        let progress = Writing::default();
        let thread_progress = progress.clone();
        let thread = std::thread::Builder::new().name("control-db".into());
        let spawned = thread.spawn(move || match open(&thread_dir, node) {
            Ok(opened) => {
                if ready.send(Ok((opened.loaded, opened.mended))).is_ok() {
                    let database = Files { dir: thread_dir, node, pair: Some(opened.pair) };
                    run(database, &queue, &thread_progress);
                }
            }
            Err(error) => {
                // Nobody waits only when the opener is gone.
                let _ = ready.send(Err(error));
            }
        });
        spawned.map_err(|source| StoreError::Io { path: path.clone(), source })?;
        let gave_up = || StoreError::Corrupt { path, what: "the database library gave up on it".into() };
        // The library panics on some kinds of damage; the thread is gone then, and says nothing.
        let (loaded, mended) = opened.recv().unwrap_or_else(|_| Err(gave_up()))?;
        Ok((Writer { jobs, progress }, loaded, mended))
    }

    /// How the writing goes.
    pub(crate) fn writing(&self) -> Writing {
        self.progress.clone()
    }

    /// Appends entries; `done` is called when they are flushed.
    pub(crate) fn append(&self, entries: Vec<(u64, Vec<u8>)>, done: LogFlushed<TypeConfig>) {
        let job = Job { change: Change::Append(entries), done: Done::Appended(done) };
        if let Err(gone) = self.jobs.send(job) {
            finish(gone.0.done, Err(writer_gone()));
        }
    }

    pub(crate) async fn put_vote(&self, bytes: Vec<u8>) -> io::Result<()> {
        self.wait(Change::Put(VOTE, bytes)).await
    }

    pub(crate) async fn put_snapshot(&self, bytes: Vec<u8>) -> io::Result<()> {
        self.wait(Change::Put(SNAPSHOT, bytes)).await
    }

    pub(crate) async fn put_generation(&self, bytes: Vec<u8>) -> io::Result<()> {
        self.wait(Change::Put(GENERATION, bytes)).await
    }

    /// Goes down with the next flush: it only saves the wait for a leader after a restart.
    pub(crate) fn put_committed(&self, bytes: Vec<u8>) -> io::Result<()> {
        let job = Job { change: Change::Put(COMMITTED, bytes), done: Done::Nobody };
        self.jobs.send(job).map_err(|_| writer_gone())
    }

    /// Removes entries from `from` on.
    pub(crate) async fn truncate(&self, from: u64) -> io::Result<()> {
        self.wait(Change::Truncate(from)).await
    }

    /// Removes entries up to `upto`, itself included.
    pub(crate) async fn purge(&self, upto: u64, purged: Vec<u8>) -> io::Result<()> {
        self.wait(Change::Purge(upto, purged)).await
    }

    async fn wait(&self, change: Change) -> io::Result<()> {
        let (done, waiter) = oneshot::channel();
        self.jobs.send(Job { change, done: Done::Waiter(done) }).map_err(|_| writer_gone())?;
        waiter.await.map_err(|_| writer_gone())?
    }
}

fn writer_gone() -> io::Error {
    io::Error::other("the thread that writes control's database is gone")
}

fn finish(done: Done, result: io::Result<()>) {
    match done {
        Done::Appended(flushed) => flushed.log_io_completed(result),
        Done::Waiter(waiter) => {
            // The one who waited may have been dropped with its runtime.
            let _ = waiter.send(result);
        }
        Done::Nobody => {}
    }
}

/// The database, and where it is.
struct Files {
    dir: PathBuf,
    node: NodeId,
    /// None: something failed, and it is to be opened anew.
    pair: Option<Pair>,
}

fn run(mut files: Files, queue: &Receiver<Job>, progress: &Writing) {
    while let Some(first) = next(queue, progress) {
        let mut jobs = vec![first];
        jobs.extend(queue.try_iter().take(QUEUE - 1));
        progress.begins();
        let written = write(&mut files, &mut jobs, queue, progress);
        progress.ends(is_flushed(&jobs));
        for job in jobs {
            let result = written.as_ref().map_err(|gone| io::Error::other(gone.to_string()));
            finish(job.done, result.copied());
        }
    }
}

/// The next job. A disk that was slow is tried now and then, or it would stay so where nothing changes. None: there are no more.
fn next(queue: &Receiver<Job>, progress: &Writing) -> Option<Job> {
    if !progress.is_slow() {
        return queue.recv().ok();
    }
    match queue.recv_timeout(PROBE_AFTER) {
        Ok(job) => Some(job),
        Err(RecvTimeoutError::Timeout) => Some(Job { change: Change::Nothing, done: Done::Nobody }),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}

/// Writes the jobs, and, once that has failed, what comes meanwhile, until it works or nobody waits for it any more. They
/// may be found written in part or as a whole: each may be done again after those behind it.
fn write(
    files: &mut Files,
    jobs: &mut Vec<Job>,
    queue: &Receiver<Job>,
    progress: &Writing,
) -> io::Result<()> {
    loop {
        let error = match try_write(files, jobs) {
            Ok(()) => return Ok(()),
            Err(error) => error.to_string(),
        };
        let is_news = progress.lock().failed.replace(error.clone()).as_ref() != Some(&error);
        if is_news {
            tracing::error!(%error, "control's database cannot be written; it is tried again");
        }
        if jobs.len() >= QUEUE {
            std::thread::sleep(TRY_AGAIN);
            continue;
        }
        match queue.recv_timeout(TRY_AGAIN) {
            Ok(job) => jobs.push(job),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other(error)),
        }
    }
}

fn try_write(files: &mut Files, jobs: &[Job]) -> Result<(), StoreError> {
    let pair = match &mut files.pair {
        Some(pair) => pair,
        None => files.pair.insert(open_anew(&files.dir, files.node)?),
    };
    let path = files.dir.clone();
    commit_to_both(pair, jobs).map_err(|failure| {
        files.pair = None;
        failure.at(&path)
    })
}

/// What the database library says, boxed: its errors are large.
pub(super) struct Failure(pub(super) Box<redb::Error>);

impl Failure {
    /// That the operating system refuses says nothing of what is in the file.
    pub(super) fn at(self, path: &Path) -> StoreError {
        let path = PathBuf::from(path);
        match *self.0 {
            redb::Error::Io(source) if source.kind() != io::ErrorKind::InvalidData => {
                StoreError::Io { path, source }
            }
            other => StoreError::Corrupt { path, what: other.to_string() },
        }
    }
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(e: E) -> Self {
        Failure(Box::new(e.into()))
    }
}

/// Whether somebody waits for these.
fn is_flushed(jobs: &[Job]) -> bool {
    jobs.iter().any(|j| !matches!(j.done, Done::Nobody) || matches!(j.change, Change::Nothing))
}

/// Neither file waits for the other's flush.
fn commit_to_both(pair: &mut Pair, jobs: &[Job]) -> Result<(), Failure> {
    pair.number += 1;
    let (main, copy, number) = (&pair.main, &pair.copy, pair.number);
    std::thread::scope(|threads| {
        let other = threads.spawn(move || commit(copy, jobs, number));
        let result = commit(main, jobs, number);
        result.and(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn commit(database: &Database, jobs: &[Job], number: u64) -> Result<(), Failure> {
    let mut transaction = database.begin_write()?;
    if !is_flushed(jobs) {
        transaction.set_durability(Durability::None);
    }
    {
        let mut log = transaction.open_table(LOG)?;
        let mut meta = transaction.open_table(META)?;
        for job in jobs {
            match &job.change {
                Change::Append(entries) => {
                    for (index, bytes) in entries {
                        log.insert(index, bytes.as_slice())?;
                    }
                }
                Change::Put(key, bytes) => {
                    meta.insert(*key, bytes.as_slice())?;
                }
                Change::Nothing => {}
                Change::Truncate(from) => log.retain_in(*from.., |_, _| false)?,
                Change::Purge(upto, purged) => {
                    log.retain_in(..=*upto, |_, _| false)?;
                    meta.insert(PURGED, purged.as_slice())?;
                }
            }
        }
        put_number(&mut meta, number)?;
    }
    transaction.commit()?;
    Ok(())
}

/// The number of the last transaction. A database that has none is of a time when there was one file.
pub(super) fn number_in(meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<u64, Failure> {
    let found = meta.get(NUMBER)?.map(|v| v.value().first_chunk::<8>().copied().unwrap_or_default());
    Ok(found.map_or(0, u64::from_le_bytes))
}

pub(super) fn put_number(
    meta: &mut Table<'_, &'static str, &'static [u8]>,
    number: u64,
) -> Result<(), Failure> {
    meta.insert(NUMBER, number.to_le_bytes().as_slice())?;
    Ok(())
}

/// One file, open, and what it held.
pub(super) struct Read {
    pub(super) database: Database,
    /// The number of its last transaction.
    pub(super) number: u64,
    pub(super) loaded: Loaded,
}

/// Opens, or creates, one file and reads all of it.
pub(super) fn read_file(path: &Path, node: NodeId) -> Result<Read, StoreError> {
    let database = Database::create(path).map_err(|e| open_error(path, e))?;
    check_identity(&database, path, node)?;
    let (number, loaded) = read_all(&database).map_err(|e| match e {
        ReadError::Database(e) => Failure(e).at(path),
        ReadError::Codec { what, source } => match source {
            codec::CodecError::Version { found } => StoreError::UnknownVersion {
                path: path.into(),
                found: u32::from(found),
                known: u32::from(codec::VERSION),
            },
            other => StoreError::Corrupt { path: path.into(), what: format!("{what}: {other}") },
        },
        ReadError::Gap { after, found } => {
            StoreError::Corrupt { path: path.into(), what: format!("the log goes from {after} to {found}") }
        }
    })?;
    Ok(Read { database, number, loaded })
}

pub(super) fn open_error(path: &Path, error: redb::DatabaseError) -> StoreError {
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path.into() },
        other => Failure::from(other).at(path),
    }
}

/// Layout version and node, as eight and two bytes that every version can read.
fn check_identity(database: &Database, path: &Path, node: NodeId) -> Result<(), StoreError> {
    let bad = |what: String| StoreError::Corrupt { path: path.into(), what };
    let Some(found) = read_identity(database).map_err(|e| e.at(path))? else {
        return write_identity(database, node).map_err(|e| e.at(path));
    };
    let Some((version, rest)) = found.split_first_chunk::<4>() else {
        return Err(bad("its identity is too short".into()));
    };
    let version = u32::from_le_bytes(*version);
    if version != LAYOUT_VERSION {
        return Err(StoreError::UnknownVersion { path: path.into(), found: version, known: LAYOUT_VERSION });
    }
    let owner = rest.first_chunk::<2>().map(|b| NodeId(u16::from_le_bytes(*b)));
    match owner {
        Some(owner) if owner == node => Ok(()),
        Some(found) => Err(StoreError::OtherNode { path: path.into(), found, expected: node }),
        None => Err(bad("its identity is too short".into())),
    }
}

/// None: the database is new.
fn read_identity(database: &Database) -> Result<Option<Vec<u8>>, Failure> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => Ok(meta.get(IDENTITY)?.map(|v| v.value().to_vec())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn write_identity(database: &Database, node: NodeId) -> Result<(), Failure> {
    let transaction = database.begin_write()?;
    transaction.open_table(LOG)?;
    let mut identity = LAYOUT_VERSION.to_le_bytes().to_vec();
    identity.extend(node.0.to_le_bytes());
    transaction.open_table(META)?.insert(IDENTITY, identity.as_slice())?;
    transaction.commit()?;
    Ok(())
}

enum ReadError {
    Database(Box<redb::Error>),
    Codec { what: String, source: codec::CodecError },
    Gap { after: u64, found: u64 },
}

impl<E: Into<redb::Error>> From<E> for ReadError {
    fn from(e: E) -> Self {
        ReadError::Database(Box::new(e.into()))
    }
}

fn read_all(database: &Database) -> Result<(u64, Loaded), ReadError> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let mut loaded = Loaded {
        vote: read_one(&meta, VOTE)?,
        committed: read_one(&meta, COMMITTED)?,
        purged: read_one(&meta, PURGED)?,
        snapshot: read_one(&meta, SNAPSHOT)?,
        generation: read_one(&meta, GENERATION)?.map(Generation),
        log: BTreeMap::new(),
    };
    let mut last = loaded.purged.map(|id| id.index);
    for entry in transaction.open_table(LOG)?.iter()? {
        let (index, bytes) = entry?;
        let index = index.value();
        if let Some(after) = last
            && index != after + 1
        {
            return Err(ReadError::Gap { after, found: index });
        }
        last = Some(index);
        let entry = codec::decode::<Entry>(bytes.value());
        let entry =
            entry.map_err(|source| ReadError::Codec { what: format!("log entry {index}"), source })?;
        loaded.log.insert(index, entry);
    }
    // Until there was more than one group, none was named.
    loaded.generation = loaded.generation.or((!loaded.is_empty()).then_some(Generation::default()));
    let number = number_in(&meta).map_err(|e| ReadError::Database(e.0))?;
    Ok((number, loaded))
}

fn read_one<T: serde::de::DeserializeOwned>(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &'static str,
) -> Result<Option<T>, ReadError> {
    let Some(value) = meta.get(key)? else { return Ok(None) };
    let value = codec::decode(value.value());
    value.map(Some).map_err(|source| ReadError::Codec { what: key.into(), source })
}
