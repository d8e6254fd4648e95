//! Control's durable state: vote, log, snapshot. One redb database per node, in two files, written by one thread.
//!
//! The log that is not yet purged is held in memory as well (snapshots keep it short), so that reading it never
//! waits for the disk and an appended entry can be read before it is flushed, as openraft requires.

mod log;
mod pair;
mod rewrite;
mod writer;

pub(crate) use log::LogStore;
pub(crate) use pair::{Pair, open, put_both_aside};
pub(crate) use rewrite::{Rewritten, rewrite};
pub(crate) use writer::{Loaded, StoredSnapshot, Writer, Writing};

use holdfast_types::NodeId;
use std::path::PathBuf;
use thiserror::Error;

/// What became of a database file that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What was found.
    pub what: String,
    /// Where it is kept.
    pub kept: PathBuf,
}

/// Why control's database could not be opened.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("control's database {path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has it open.
    #[error("control's database {path} is in use: another daemon runs with this directory")]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// The bytes are not what was written.
    #[error(
        "control's database {path} is damaged ({what}); where other nodes are members, the daemon puts it aside when it \
         starts, and they let it in again"
    )]
    Corrupt {
        /// Where.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// It was written by another version of this program.
    #[error(
        "control's database {path} has format version {found}, this program knows {known}: use the version that wrote it"
    )]
    UnknownVersion {
        /// Where.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// It belongs to another node.
    #[error("control's database {path} belongs to node {found}, not to node {expected}")]
    OtherNode {
        /// Where.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who opens it.
        expected: NodeId,
    },
}

#[cfg(test)]
mod tests;
