//! Opening a disk: exclusively, with O_DIRECT, refused by name where it cannot serve.

use crate::{
    buffer::ALIGN,
    error::{DiskError, DiskErrorKind},
};
use holdfast_types::BLOCK_BYTES;
use std::{
    ffi::CString,
    fs::{File, OpenOptions, TryLockError},
    io::{Seek, SeekFrom},
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, RawFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, OpenOptionsExt},
        },
    },
    path::Path,
};

/// The least alignment of memory that is taken as it is: less would split blocks over many small segments.
const MEMORY_ALIGN_MIN: usize = 512;

/// A disk that this process holds. Dropping it gives the disk back.
#[derive(Debug)]
pub struct OpenDisk {
    file: File,
    size: u64,
    memory_align: usize,
}

impl OpenDisk {
    /// Opens a file or block device with O_DIRECT and holds it, so that no other daemon can. On a device that hangs this
    /// waits for as long as that does.
    pub fn open(path: &Path) -> Result<OpenDisk, DiskError> {
        let fail = |kind| DiskError::new(path, kind);
        let meta = std::fs::metadata(path).map_err(|e| DiskError::os(path, "look at it", e))?;
        let device = meta.file_type().is_block_device();
        if !device && !meta.is_file() {
            return Err(fail(DiskErrorKind::WrongType));
        }
        // Root may write what nobody may: whoever took the write permission away meant it.
        if meta.permissions().readonly() {
            return Err(fail(DiskErrorKind::ReadOnly));
        }
        let file = open_file(path, device)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(fail(DiskErrorKind::Busy)),
            Err(TryLockError::Error(e)) => return Err(DiskError::os(path, "lock it", e)),
        }
        // The end of a device, unlike its metadata, tells its size.
        let size = (&file).seek(SeekFrom::End(0)).map_err(|e| DiskError::os(path, "find its size", e))?;
        if size == 0 || !size.is_multiple_of(BLOCK_BYTES as u64) {
            return Err(fail(DiskErrorKind::BadSize { size }));
        }
        Ok(OpenDisk { file, size, memory_align: memory_align(path) })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Memory aligned so far is taken by the disk as it is.
    pub(crate) fn memory_align(&self) -> usize {
        self.memory_align
    }
}

impl Drop for OpenDisk {
    fn drop(&mut self) {
        // The kernel may hold the open file a little longer for requests just finished; the next owner need
        // not wait for that. Closing unlocks too, should this fail.
        let _ = self.file.unlock();
    }
}

fn open_file(path: &Path, device: bool) -> Result<File, DiskError> {
    // O_EXCL on a block device refuses one that is mounted or part of an array.
    let exclusive = if device { libc::O_EXCL } else { 0 };
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT | libc::O_CLOEXEC | exclusive)
        .open(path);
    opened.map_err(|e| match e.raw_os_error() {
        Some(libc::EINVAL) => DiskError::new(path, DiskErrorKind::NoDirect),
        // A write-protected device answers so even to root.
        Some(libc::EACCES | libc::EPERM) if device => DiskError::new(path, DiskErrorKind::ReadOnly),
        _ => DiskError::os(path, "open it", e),
    })
}

/// What statx(2) says of O_DIRECT on that file; a page where it says nothing.
fn memory_align(path: &Path) -> usize {
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else { return ALIGN };
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `name` ends in NUL and `answer` has room for the structure; both outlive the call.
    let result =
        unsafe { libc::statx(libc::AT_FDCWD, name.as_ptr(), 0, libc::STATX_DIOALIGN, answer.as_mut_ptr()) };
    // SAFETY: plain integers, all of them valid as zeros and filled in by the kernel on success.
    let answer = unsafe { answer.assume_init() };
    if result != 0 || answer.stx_mask & libc::STATX_DIOALIGN == 0 || answer.stx_dio_mem_align == 0 {
        return ALIGN;
    }
    (answer.stx_dio_mem_align as usize).clamp(MEMORY_ALIGN_MIN, ALIGN)
}
