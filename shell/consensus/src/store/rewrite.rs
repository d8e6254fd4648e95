//! A stopped node's database gets another content in one transaction. The file as it was is kept beside it first, so
//! that what an operator did by mistake can be undone.

use super::StoreError;
use super::pair::{FILE, Pair, open};
use super::writer::{
    COMMITTED, Failure, LOG, META, PURGED, SNAPSHOT, StoredSnapshot, VOTE, number_in, open_error, put_number,
};
use crate::raft_types::LogId;
use crate::{codec, recover::Generation};
use holdfast_types::NodeId;
use redb::Database;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What a file is copied by.
const PIECE_BYTES: usize = 4096;

/// What a database holds from now on.
pub(crate) enum Rewritten {
    /// This snapshot, up to `last`, and no log after it. What was promised to candidates stays.
    Alone { last: LogId, snapshot: StoredSnapshot, generation: Generation },
    /// Nothing but whose group it waits for.
    Empty { generation: Generation },
}

/// Does it, and says where the file as it was is kept.
pub(crate) fn rewrite(dir: &Path, pair: Pair, node: NodeId, state: Rewritten) -> Result<PathBuf, StoreError> {
    drop(pair);
    let path = &dir.join(FILE);
    let generation = match &state {
        Rewritten::Alone { generation, .. } | Rewritten::Empty { generation } => *generation,
    };
    let io = |source| StoreError::Io { path: path.into(), source };
    let kept = path.with_file_name(format!("{FILE}.before-{:016x}", generation.0));
    copy(path, &kept).map_err(io)?;
    let database = Database::open(path).map_err(|e| open_error(path, e))?;
    let bad = |what: String| StoreError::Corrupt { path: path.into(), what };
    let rows = rows(state).map_err(|e| bad(e.to_string()))?;
    write(&database, rows).map_err(|e| e.at(path))?;
    drop(database);
    // What the daemon will find is what was meant, and the other file has it too.
    open(dir, node).map(|_| kept)
}

/// Puts a file that cannot be used out of the way. Where it is kept is said; it is renamed, so that there is one file or
/// the other at any moment.
pub(super) fn put_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let io = |source| StoreError::Io { path: path.into(), source };
    let (dir, name) = (folder(path), path.file_name().unwrap_or_default().to_string_lossy());
    let free = |n: &u32| !dir.join(format!("{name}.damaged-{n}")).exists();
    let kept = dir.join(format!("{name}.damaged-{}", (1..u32::MAX).find(free).unwrap_or(u32::MAX)));
    fs::rename(path, &kept).map_err(io)?;
    File::open(dir).and_then(|d| d.sync_all()).map_err(io)?;
    Ok(kept)
}

/// Gives a file the content of a closed one, which may be itself: written anew then.
pub(super) fn replace(path: &Path, by: &Path) -> Result<(), StoreError> {
    copy(by, path).map_err(|source| StoreError::Io { path: path.into(), source })
}

/// The copy is there as a whole or not at all. It is written, and not shared with the original as a copy of the file system's
/// may be: what that lost is not lost in both. Where there is nothing there is none in the copy either, for the library
/// makes its files much longer than what is in them.
fn copy(path: &Path, to: &Path) -> io::Result<()> {
    let unfinished = to.with_extension("unfinished");
    let done = write_copy(&fs::read(path)?, &unfinished).and_then(|()| fs::rename(&unfinished, to));
    if done.is_err() {
        // It may be what takes the last of the room.
        let _ = fs::remove_file(&unfinished);
    }
    done?;
    File::open(folder(to))?.sync_all()
}

fn write_copy(content: &[u8], to: &Path) -> io::Result<()> {
    let file = File::create(to)?;
    file.set_len(content.len() as u64)?;
    for (n, piece) in content.chunks(PIECE_BYTES).enumerate() {
        if piece.iter().any(|b| *b != 0) {
            file.write_all_at(piece, (n * PIECE_BYTES) as u64)?;
        }
    }
    file.sync_all()
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

type Rows = Vec<(&'static str, Option<Vec<u8>>)>;

fn rows(state: Rewritten) -> Result<Rows, codec::CodecError> {
    use super::writer::GENERATION;
    Ok(match state {
        Rewritten::Alone { last, snapshot, generation } => vec![
            (SNAPSHOT, Some(codec::encode(&snapshot)?)),
            (PURGED, Some(codec::encode(&last)?)),
            (COMMITTED, Some(codec::encode(&last)?)),
            (GENERATION, Some(codec::encode(&generation.0)?)),
        ],
        Rewritten::Empty { generation } => vec![
            (SNAPSHOT, None),
            (PURGED, None),
            (COMMITTED, None),
            (VOTE, None),
            (GENERATION, Some(codec::encode(&generation.0)?)),
        ],
    })
}

fn write(database: &Database, rows: Rows) -> Result<(), Failure> {
    let transaction = database.begin_write()?;
    {
        transaction.open_table(LOG)?.retain(|_, _| false)?;
        let mut meta = transaction.open_table(META)?;
        let number = number_in(&meta)? + 1;
        put_number(&mut meta, number)?;
        for (key, value) in rows {
            match value {
                Some(value) => drop(meta.insert(key, value.as_slice())?),
                None => drop(meta.remove(key)?),
            }
        }
    }
    transaction.commit()?;
    Ok(())
}
