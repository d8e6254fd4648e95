//! Reading a bundle: folders, archives in archives, compressed and rotated logs, on all cores, with bounded memory.
//!
//! Promise: every leaf file is given once to the consumer as a stream with its logical path. Nothing is written, no link is
//! followed, no name leads out of the bundle, a bomb is refused by its ratio, and whatever could not be read is a [`Notice`]
//! while the rest goes on. Memory is bounded by [`Limits`], not by the input.

mod archive;
mod blocks;
mod pool;
mod zstd;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use archive::is_packed;
pub use blocks::{Block, BlockEnd, for_each_block};
pub use pool::{Progress, error_kind, read_all};

/// Bounds of one reading.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Archives inside archives.
    pub max_depth: u32,
    /// Members and files in all.
    pub max_files: u64,
    /// Decompressed bytes per compressed byte, once `ratio_grace` bytes came out.
    pub max_ratio: u64,
    /// Decompressed bytes before the ratio counts.
    pub ratio_grace: u64,
    /// A member up to this size is buffered and handed to another core.
    pub buffer_member: u64,
    /// Worker threads.
    pub threads: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        Limits {
            max_depth: 6,
            max_files: 1_000_000,
            max_ratio: 400,
            ratio_grace: 64 << 20,
            buffer_member: 4 << 20,
            threads,
        }
    }
}

/// Why something was not read, or not read whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoticeKind {
    /// The operating system refused (permission, I/O error).
    Unreadable,
    /// The compressed data ended early; what came before was read.
    Truncated,
    /// The compressed data is damaged; what came before was read.
    Damaged,
    /// It grows beyond the ratio: a decompression bomb.
    Bomb,
    /// A name was absolute or led out of the bundle; it was read under a safe name.
    UnsafeName,
    /// A link; never followed.
    Link,
    /// A pipe, socket or device; never opened.
    Special,
    /// Too many archives in archives, or too many files.
    Limit,
    /// Not text.
    Binary,
    /// Lines longer than the buffer were cut.
    LongLine,
    /// A binary journal or memory image, which needs its own tool.
    NeedsTool,
    /// The same content was already read under another name.
    Duplicate,
    /// Whoever made the bundle left it out, or only a part of it is there.
    LeftOut,
    /// Its times go back.
    TimeGoesBack,
}

/// A word on something that was not read as it stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notice {
    /// Logical path.
    pub path: String,
    /// Kind.
    pub kind: NoticeKind,
    /// What happened, for a person.
    pub detail: String,
}

/// A leaf of the bundle, streamed.
pub struct Source<'a> {
    /// Logical path.
    pub path: Arc<str>,
    /// Modification time in epoch seconds, from the archive or the file system, or from the gzip header.
    pub mtime: Option<i64>,
    /// The target, when this is a link (then the body is empty).
    pub link: Option<String>,
    /// Decompressed content.
    pub body: &'a mut dyn Read,
}

/// Why an input could not be used at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It does not exist or may not be read.
    #[error("{path}: {source}")]
    Open {
        /// The path as given.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
}

/// Makes a member's name safe: no root, no `..`, forward slashes. The flag says whether anything had to go.
pub(crate) fn safe_name(raw: &str) -> (String, bool) {
    let mut unsafe_part = raw.starts_with('/') || raw.contains('\\');
    let mut parts = Vec::new();
    for part in raw.split(['/', '\\']) {
        match part {
            "" | "." => {}
            ".." => unsafe_part = true,
            part => parts.push(part),
        }
    }
    (parts.join("/"), unsafe_part)
}

/// The logical name of a bundle given on the command line.
pub(crate) fn bundle_name(path: &Path) -> String {
    path.file_name().map_or_else(|| "bundle".to_owned(), |n| n.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
