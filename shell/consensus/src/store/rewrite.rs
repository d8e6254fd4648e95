//! A stopped node's database gets another content in one transaction. The file as it was is kept beside it first, so
//! that what an operator did by mistake can be undone.

use super::StoreError;
use super::writer::{
    COMMITTED, FILE, Failure, LOG, META, PURGED, SNAPSHOT, StoredSnapshot, VOTE, load, open_error,
};
use crate::raft_types::LogId;
use crate::{codec, recover::Generation};
use holdfast_types::NodeId;
use redb::Database;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// What a database holds from now on.
pub(crate) enum Rewritten {
    /// This snapshot, up to `last`, and no log after it. What was promised to candidates stays.
    Alone { last: LogId, snapshot: StoredSnapshot, generation: Generation },
    /// Nothing but whose group it waits for.
    Empty { generation: Generation },
}

/// Does it, and says where the file as it was is kept.
pub(crate) fn rewrite(
    path: &Path,
    database: Database,
    node: NodeId,
    state: Rewritten,
) -> Result<PathBuf, StoreError> {
    drop(database);
    let generation = match &state {
        Rewritten::Alone { generation, .. } | Rewritten::Empty { generation } => *generation,
    };
    let io = |source| StoreError::Io { path: path.into(), source };
    let kept = path.with_file_name(format!("{FILE}.before-{:016x}", generation.0));
    keep(path, &kept).map_err(io)?;
    let database = Database::open(path).map_err(|e| open_error(path, e))?;
    let bad = |what: String| StoreError::Corrupt { path: path.into(), what };
    let rows = rows(state).map_err(|e| bad(e.to_string()))?;
    write(&database, rows).map_err(|e| bad(e.0.to_string()))?;
    drop(database);
    // What the daemon will find is what was meant.
    let dir = path.parent().unwrap_or(Path::new("."));
    load(dir, node).map(|_| kept)
}

/// Puts a database that cannot be used out of the way. Where it is kept is said; it is renamed, so that there is one
/// file or the other at any moment.
pub(crate) fn put_aside(dir: &Path) -> Result<PathBuf, StoreError> {
    let path = dir.join(FILE);
    let io = |source| StoreError::Io { path: path.clone(), source };
    let free = |n: &u32| !dir.join(format!("{FILE}.damaged-{n}")).exists();
    let kept = dir.join(format!("{FILE}.damaged-{}", (1..u32::MAX).find(free).unwrap_or(u32::MAX)));
    fs::rename(&path, &kept).map_err(io)?;
    File::open(dir).and_then(|d| d.sync_all()).map_err(io)?;
    Ok(kept)
}

/// The copy is there as a whole or not at all.
fn keep(path: &Path, kept: &Path) -> io::Result<()> {
    let unfinished = kept.with_extension("unfinished");
    fs::copy(path, &unfinished)?;
    File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, kept)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
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
