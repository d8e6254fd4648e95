//! Why a disk cannot be opened, made or served. One line for the operator each: what is wrong, and what next.
//! Faults of single orders are [`holdfast_types::DiskFault`], not these.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// What went wrong, and with which disk.
#[derive(Debug, Error)]
pub struct DiskError {
    /// The file or device; empty when it is none in particular.
    pub path: PathBuf,
    /// What went wrong. Part of this error's own text, thus not its source.
    pub kind: DiskErrorKind,
}

/// What went wrong with a disk.
#[derive(Debug, Error)]
pub enum DiskErrorKind {
    /// There is no such file.
    #[error("does not exist; check the path, or make it first")]
    Missing,
    /// Another process holds it.
    #[error("is in use by another process (a second daemon, or mounted); stop that one first")]
    Busy,
    /// The file system has no O_DIRECT.
    #[error(
        "lies on a file system without O_DIRECT (tmpfs, some network file systems); use ext4, xfs or a block device"
    )]
    NoDirect,
    /// It cannot be written.
    #[error("is read-only")]
    ReadOnly,
    /// This process may not open it.
    #[error("may not be opened by this user; run as root or give access")]
    Permission,
    /// It is neither a file nor a block device.
    #[error("is neither a regular file nor a block device")]
    WrongType,
    /// Its size is not a multiple of a block.
    #[error("has {size} bytes, which is not a positive multiple of 4096")]
    BadSize {
        /// What it has.
        size: u64,
    },
    /// A file is there already.
    #[error("exists already and is not overwritten; remove it or choose another path")]
    Exists,
    /// The file system lacks room for it.
    #[error("needs {need} bytes, but the file system has only {free} bytes free")]
    NoRoom {
        /// How many bytes the file needs.
        need: u64,
        /// How many are free.
        free: u64,
    },
    /// A range reaches beyond its end.
    #[error("has {size} bytes, but a range ends at byte {end}")]
    OutOfRange {
        /// Where the range ends.
        end: u64,
        /// Its size.
        size: u64,
    },
    /// io_uring was asked for and is refused.
    #[error("io_uring is refused by the kernel ({0}); set HOLDFAST_IO=threads")]
    NoUring(io::Error),
    /// HOLDFAST_IO has no known value.
    #[error("HOLDFAST_IO is {0:?}; it is one of auto, uring, threads")]
    BadSetting(String),
    /// The operating system refused.
    #[error("cannot {doing}: {source}")]
    Os {
        /// What was tried.
        doing: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.as_os_str().is_empty() {
            write!(f, "{}", self.kind)
        } else {
            write!(f, "{} {}", self.path.display(), self.kind)
        }
    }
}

impl DiskError {
    pub(crate) fn new(path: &Path, kind: DiskErrorKind) -> Self {
        Self { path: path.to_path_buf(), kind }
    }

    /// An answer of the operating system, by its meaning where it has one.
    pub(crate) fn os(path: &Path, doing: &'static str, source: io::Error) -> Self {
        let kind = match source.raw_os_error() {
            Some(libc::ENOENT) => DiskErrorKind::Missing,
            Some(libc::EBUSY) => DiskErrorKind::Busy,
            Some(libc::EROFS) => DiskErrorKind::ReadOnly,
            Some(libc::EACCES | libc::EPERM) => DiskErrorKind::Permission,
            Some(libc::EEXIST) => DiskErrorKind::Exists,
            Some(libc::EISDIR) => DiskErrorKind::WrongType,
            _ => DiskErrorKind::Os { doing, source },
        };
        Self::new(path, kind)
    }
}
