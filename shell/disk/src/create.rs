//! Making the file that is to be a disk, and writing its journal once before it is used.

use crate::{
    buffer::BufferPool,
    error::{DiskError, DiskErrorKind},
    open::OpenDisk,
};
use holdfast_types::{BLOCK_BYTES, SECTOR_BYTES};
use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io,
    mem::MaybeUninit,
    ops::Range,
    os::{
        fd::AsRawFd,
        unix::ffi::OsStrExt,
        unix::fs::{FileExt, FileTypeExt, MetadataExt},
    },
    path::Path,
};

/// How much is reserved between two reports of progress.
const RESERVE_STEP: u64 = 256 << 20;
/// How much is written between two reports of progress.
const WRITE_STEP: u64 = 1 << 20;

/// Makes a file of `size` bytes with all its space reserved. Refuses when the file exists, when the size is not
/// a positive multiple of a block, and when the file system lacks room; leaves nothing behind when it fails.
/// `progress` hears how many bytes are reserved.
pub fn create_file(path: &Path, size: u64, progress: &mut dyn FnMut(u64)) -> Result<(), DiskError> {
    if size == 0 || !size.is_multiple_of(BLOCK_BYTES as u64) || i64::try_from(size).is_err() {
        return Err(DiskError::new(path, DiskErrorKind::BadSize { size }));
    }
    if path.exists() {
        return Err(DiskError::new(path, DiskErrorKind::Exists));
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let free = free_bytes(folder).map_err(|e| DiskError::os(folder, "ask for its free space", e))?;
    if size > free {
        return Err(DiskError::new(path, DiskErrorKind::NoRoom { need: size, free }));
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|e| DiskError::os(path, "make it", e))?;
    let made = reserve(&file, size, progress)
        .and_then(|()| file.sync_all())
        .and_then(|()| File::open(folder)?.sync_all());
    made.map_err(|e| {
        // Half a disk is of no use; that it cannot be removed changes nothing about the failure.
        let _ = std::fs::remove_file(path);
        match e.raw_os_error() {
            Some(libc::ENOSPC) => DiskError::new(path, DiskErrorKind::NoRoom { need: size, free }),
            _ => DiskError::os(path, "reserve its space", e),
        }
    })
}

fn reserve(file: &File, size: u64, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
    let mut done = 0;
    while done < size {
        let len = RESERVE_STEP.min(size - done);
        // SAFETY: no memory is involved.
        let result = unsafe { libc::fallocate(file.as_raw_fd(), 0, done as i64, len as i64) };
        if result != 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        done += len;
        progress(done);
    }
    Ok(())
}

fn free_bytes(folder: &Path) -> io::Result<u64> {
    let name = CString::new(folder.as_os_str().as_bytes())
        .map_err(|_| io::Error::from_raw_os_error(libc::ENOENT))?;
    let mut answer = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `name` ends in NUL and `answer` has room for the structure; both outlive the call.
    if unsafe { libc::statvfs(name.as_ptr(), answer.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: plain integers, zeroed first and filled in by the kernel.
    let answer = unsafe { answer.assume_init() };
    Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
}

/// Writes zeros to the ranges of a file, down to stable storage, so that later durable writes there change no metadata
/// of the file system and cost one flush. A device has none, and is left as it is. The disk must not be in use. Refuses when
/// the file has holes that its file system lacks room for. `progress` hears how many bytes of the ranges are written.
pub fn prewrite(path: &Path, ranges: &[Range<u64>], progress: &mut dyn FnMut(u64)) -> Result<(), DiskError> {
    let disk = OpenDisk::open(path)?;
    for range in ranges {
        let aligned = [range.start, range.end].iter().all(|at| at.is_multiple_of(BLOCK_BYTES as u64));
        if !aligned || range.end > disk.size() {
            return Err(DiskError::new(
                path,
                DiskErrorKind::OutOfRange { end: range.end, size: disk.size() },
            ));
        }
    }
    let meta = disk.file().metadata().map_err(|e| DiskError::os(path, "look at it", e))?;
    if meta.file_type().is_block_device() {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    let free = free_bytes(folder).map_err(|e| DiskError::os(folder, "ask for its free space", e))?;
    let need = ranges
        .iter()
        .map(|r| r.end - r.start)
        .sum::<u64>()
        .saturating_sub(meta.blocks() * SECTOR_BYTES as u64);
    if need > free {
        return Err(DiskError::new(path, DiskErrorKind::NoRoom { need, free }));
    }
    let mut zeros = BufferPool::default().take(WRITE_STEP as usize);
    zeros.as_mut_slice().fill(0);
    let mut done = 0;
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let len = WRITE_STEP.min(range.end - at);
            disk.file()
                .write_all_at(&zeros.as_ref()[..len as usize], at)
                .map_err(|e| DiskError::os(path, "write zeros to it", e))?;
            at += len;
            done += len;
            progress(done);
        }
    }
    disk.file().sync_all().map_err(|e| DiskError::os(path, "flush it", e))
}
