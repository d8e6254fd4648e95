//! Disks as the operator names them, `PATH` or `PATH:SIZE`, and making sure that nothing is lost on them.

use holdfast_api::size::{self, SizeError};
use holdfast_types::BLOCK_BYTES;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use thiserror::Error;

/// How much of a disk's start is looked at, and cleared by wiping. Partition tables, file systems and our own
/// superblocks all show there.
const HEAD_BYTES: u64 = 1 << 20;
/// The smallest disk that is worth it: journal, metadata and some room.
pub const MIN_DISK_BYTES: u64 = 1 << 30;

/// A disk to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSpec {
    /// A block device or a file.
    pub path: PathBuf,
    /// How large to make the file when it does not exist.
    pub size: Option<u64>,
}

/// Why a text names no disk.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DiskSpecError {
    /// No path.
    #[error("a disk is named as PATH, or PATH:SIZE for a file that is to be made")]
    NoPath,
    /// No size after the colon.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// Too small to be of use.
    #[error("{0} is too small for a disk; the least is 1 GiB")]
    TooSmall(String),
}

impl FromStr for DiskSpec {
    type Err = DiskSpecError;
    fn from_str(text: &str) -> Result<Self, DiskSpecError> {
        // Paths of devices hold colons (/dev/disk/by-path/…): what exists is a path as a whole.
        let split =
            text.rsplit_once(':').filter(|(_, after)| !after.contains('/') && !Path::new(text).exists());
        let (path, size) = match split {
            Some((path, after)) => (path, Some(size::parse(after)?)),
            None => (text, None),
        };
        if path.is_empty() {
            return Err(DiskSpecError::NoPath);
        }
        if let Some(bytes) = size.filter(|s| *s < MIN_DISK_BYTES) {
            return Err(DiskSpecError::TooSmall(size::show(bytes)));
        }
        let size = size.map(|s| s / BLOCK_BYTES as u64 * BLOCK_BYTES as u64);
        Ok(Self { path: path.into(), size })
    }
}

/// Why a disk is not used.
#[derive(Debug, Error)]
#[error("disk {}: {reason}", path.display())]
pub struct DiskRefused {
    /// The disk.
    pub path: PathBuf,
    /// Why.
    pub reason: RefusedReason,
}

/// Why a disk is not used.
#[derive(Debug, Error)]
pub enum RefusedReason {
    /// It does not exist and no size was given.
    #[error("does not exist; name a device, or add the size of the file to make, like {example}:100G")]
    Missing {
        /// The path, for the example.
        example: String,
    },
    /// It is a folder, a terminal, ….
    #[error("is neither a block device nor a file; name one")]
    Kind,
    /// Something is on it.
    #[error("holds data already; use another one, or give --wipe-disk to destroy what is on it")]
    HoldsData,
    /// The file exists with another size.
    #[error("exists with {have}, not {want}; leave the size away to use it as it is")]
    OtherSize {
        /// Its size.
        have: String,
        /// The size that was asked for.
        want: String,
    },
    /// Too small to be of use.
    #[error("has {0}; the least for a disk is 1 GiB")]
    TooSmall(String),
    /// It could not be made.
    #[error("{0}")]
    Make(holdfast_disk::DiskErrorKind),
    /// It could not be read or written.
    #[error("{0}")]
    Io(io::Error),
}

impl DiskSpec {
    /// Refuses what cannot or must not be used; changes nothing.
    pub fn check(&self, wipe: bool) -> Result<(), DiskRefused> {
        self.refused(self.check_path(wipe))
    }

    /// Makes the file where there is none, clears the start where that is wanted. Returns the absolute path.
    pub fn prepare(&self, wipe: bool, progress: &mut dyn FnMut(u64)) -> Result<PathBuf, DiskRefused> {
        self.check(wipe)?;
        self.refused(self.make(wipe, progress))
    }

    fn refused<T>(&self, result: Result<T, RefusedReason>) -> Result<T, DiskRefused> {
        result.map_err(|reason| DiskRefused { path: self.path.clone(), reason })
    }

    fn check_path(&self, wipe: bool) -> Result<(), RefusedReason> {
        let kind = match fs::metadata(&self.path) {
            Ok(metadata) => metadata.file_type(),
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.size.is_some() => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(RefusedReason::Missing { example: self.path.display().to_string() });
            }
            Err(e) => return Err(RefusedReason::Io(e)),
        };
        if !kind.is_file() && !kind.is_block_device() {
            return Err(RefusedReason::Kind);
        }
        let mut file = File::open(&self.path).map_err(RefusedReason::Io)?;
        let have = file.seek(SeekFrom::End(0)).map_err(RefusedReason::Io)?;
        if let Some(want) = self.size.filter(|s| *s != have) {
            return Err(RefusedReason::OtherSize { have: size::show(have), want: size::show(want) });
        }
        if have < MIN_DISK_BYTES {
            return Err(RefusedReason::TooSmall(size::show(have)));
        }
        if !wipe && !is_blank(&mut file).map_err(RefusedReason::Io)? {
            return Err(RefusedReason::HoldsData);
        }
        Ok(())
    }

    fn make(&self, wipe: bool, progress: &mut dyn FnMut(u64)) -> Result<PathBuf, RefusedReason> {
        let path = std::path::absolute(&self.path).map_err(RefusedReason::Io)?;
        if let (Some(size), false) = (self.size, path.exists()) {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(RefusedReason::Io)?;
            }
            holdfast_disk::create_file(&path, size, progress).map_err(|e| RefusedReason::Make(e.kind))?;
        } else if wipe {
            clear_head(&path).map_err(RefusedReason::Io)?;
        }
        Ok(path)
    }
}

fn is_blank(file: &mut File) -> io::Result<bool> {
    file.seek(SeekFrom::Start(0))?;
    let mut head = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok(head.iter().all(|b| *b == 0))
}

fn clear_head(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(&vec![0; HEAD_BYTES as usize])?;
    file.sync_all()
}
