//! Control's database twice. Each transaction is flushed in `control.redb` and in `control.copy.redb` before anything of it
//! is answered, so that when one of the files cannot be read the other has all that this node promised, to the last vote:
//! nothing is forgotten, and nobody is asked. Each transaction has a number; of two good files the one with the higher
//! number counts (a crash fell between the two flushes, or somebody put an older file back).

use super::rewrite::{put_aside, replace};
use super::writer::{Loaded, Read, read_file};
use super::{Damage, StoreError};
use holdfast_types::NodeId;
use redb::Database;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

pub(super) const FILE: &str = "control.redb";
pub(super) const COPY: &str = "control.copy.redb";

/// Both files, open, with the same content. The main one is closed last: who gets its lock can have both.
pub(crate) struct Pair {
    pub(super) copy: Database,
    pub(super) main: Database,
    /// The number of the last transaction.
    pub(super) number: u64,
}

/// What was found.
pub(crate) struct Opened {
    pub(crate) pair: Pair,
    pub(crate) loaded: Loaded,
    /// One file was damaged, and was replaced by a copy of the other one.
    pub(crate) mended: Option<Damage>,
}

/// One of the files, as it was found.
enum Found {
    /// There is none, or an empty one.
    Nothing,
    /// It was read, and is open.
    Good(Box<Read>),
    Damaged(String),
}

/// Opens, or creates, the database of that node in `dir`, and reads all of it.
pub(crate) fn open(dir: &Path, node: NodeId) -> Result<Opened, StoreError> {
    let (main, copy) = (dir.join(FILE), dir.join(COPY));
    std::fs::create_dir_all(dir).map_err(|source| StoreError::Io { path: dir.into(), source })?;
    let mut mended = None;
    // Which file is made anew, and from which.
    let (from, to) = match (look(&main, node)?, look(&copy, node)?) {
        (Found::Good(a), Found::Good(b)) if a.number == b.number => return Ok(opened(*a, *b, None)),
        (Found::Good(a), Found::Good(b)) if a.number < b.number => (&copy, &main),
        (Found::Good(_), Found::Damaged(what)) => {
            mended = Some(what);
            (&main, &copy)
        }
        (Found::Damaged(what), Found::Good(_)) => {
            mended = Some(what);
            (&copy, &main)
        }
        (Found::Good(_), _) => (&main, &copy),
        (Found::Nothing, Found::Good(_)) => (&copy, &main),
        (Found::Nothing, Found::Nothing) => {
            drop(read_file(&main, node)?);
            (&main, &copy)
        }
        (Found::Damaged(what), _) => return Err(StoreError::Corrupt { path: main, what }),
        (_, Found::Damaged(what)) => return Err(StoreError::Corrupt { path: copy, what }),
    };
    // Both files are closed by now.
    let mended = mended.map(|what| put_aside(to).map(|kept| Damage { what, kept })).transpose()?;
    replace(to, from)?;
    // A new file is there after a power cut only when its directory is flushed.
    let flushed = File::open(dir).and_then(|d| d.sync_all());
    flushed.map_err(|source| StoreError::Io { path: dir.into(), source })?;
    Ok(opened(read_file(&main, node)?, read_file(&copy, node)?, mended))
}

/// Opens the database after a write or a flush of it failed. What the kernel holds of its files need not be on the disk,
/// although a flush may say so from now on: both are made anew of what can be read, and are whole before they take the place
/// of the old ones.
pub(crate) fn open_anew(dir: &Path, node: NodeId) -> Result<Pair, StoreError> {
    drop(open(dir, node)?);
    let (main, copy) = (dir.join(FILE), dir.join(COPY));
    replace(&main, &main)?;
    replace(&copy, &copy)?;
    open(dir, node).map(|opened| opened.pair)
}

fn opened(main: Read, copy: Read, mended: Option<Damage>) -> Opened {
    let Read { database, number, loaded } = main;
    Opened { pair: Pair { copy: copy.database, main: database, number }, loaded, mended }
}

/// Puts what is there of the database out of the way: both files are of no use. Where the first is kept.
pub(crate) fn put_both_aside(dir: &Path) -> Result<PathBuf, StoreError> {
    let there: Vec<PathBuf> = [FILE, COPY].map(|f| dir.join(f)).into_iter().filter(|p| p.exists()).collect();
    let kept = there.iter().map(|path| put_aside(path)).collect::<Result<Vec<_>, _>>()?;
    Ok(kept.into_iter().next().unwrap_or_else(|| dir.join(FILE)))
}

fn look(path: &Path, node: NodeId) -> Result<Found, StoreError> {
    if path.metadata().map_or(true, |m| m.len() == 0) {
        return Ok(Found::Nothing);
    }
    // The library panics on some kinds of damage.
    match catch_unwind(AssertUnwindSafe(|| read_file(path, node))) {
        Ok(Ok(read)) => Ok(Found::Good(Box::new(read))),
        Ok(Err(StoreError::Corrupt { what, .. })) => Ok(Found::Damaged(what)),
        // What is of another node, of another version or in use is not mended.
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(Found::Damaged("the database library gave up on it".into())),
    }
}
