//! The calls of the kernel, each turned into one on a drive.

use crate::{
    drive::Drive,
    power::{ROOT, Shared, State, lock, open_backing},
};
use bytes::Bytes;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{FallocateFlags, OFlags, statvfs};
use std::{
    ffi::OsStr,
    fs::Permissions,
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// The kernel keeps nothing: after a cut it must ask again.
const NO_CACHE: Duration = Duration::ZERO;
/// Requests that the kernel has under way at once.
const BACKGROUND_MAX: u16 = 128;
/// Every file bypasses the page cache, so that a write is here when it is answered; writes go on side by side.
const OPEN_FLAGS: FopenFlags = FopenFlags::FOPEN_DIRECT_IO.union(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);

pub(crate) struct PowerFs {
    shared: Arc<Shared>,
}

type Answer<T> = Result<T, Errno>;

fn powered(state: &State) -> Answer<()> {
    if state.powered { Ok(()) } else { Err(Errno::EIO) }
}

impl PowerFs {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn path(&self, name: &OsStr) -> PathBuf {
        self.shared.backing.join(name)
    }

    /// Runs a call on a file that was opened since the last cut.
    fn on_open<T>(
        &self,
        ino: INodeNo,
        handle: FileHandle,
        call: impl FnOnce(&mut Drive) -> io::Result<T>,
    ) -> Answer<T> {
        self.shared.take_time();
        let state = self.shared.state();
        powered(&state)?;
        if handle.0 != state.life {
            return Err(Errno::EIO);
        }
        let drive = state.files.get(&ino.0).ok_or(Errno::ENOENT)?;
        Ok(call(&mut lock(drive))?)
    }

    fn attributes(&self, state: &State, ino: u64) -> Answer<FileAttr> {
        powered(state)?;
        if ino == ROOT {
            let meta = std::fs::metadata(&self.shared.backing)?;
            return Ok(attributes(ROOT, FileType::Directory, 4096, &meta));
        }
        let drive = lock(state.files.get(&ino).ok_or(Errno::ENOENT)?);
        let meta = drive.backing().metadata()?;
        Ok(attributes(ino, FileType::RegularFile, drive.size(), &meta))
    }

    fn find(&self, name: &OsStr) -> Answer<FileAttr> {
        let state = self.shared.state();
        powered(&state)?;
        let ino = *state.names.get(name).ok_or(Errno::ENOENT)?;
        self.attributes(&state, ino)
    }

    fn make(&self, name: &OsStr, mode: u32) -> Answer<(FileAttr, u64)> {
        let mut state = self.shared.state_mut();
        powered(&state)?;
        let file = open_backing(&self.path(name), true)?;
        file.set_permissions(Permissions::from_mode(mode & 0o777))?;
        let ino = state.add(name, Drive::new(file)?);
        Ok((self.attributes(&state, ino)?, state.life))
    }

    fn remove(&self, name: &OsStr) -> Answer<()> {
        let mut state = self.shared.state_mut();
        powered(&state)?;
        std::fs::remove_file(self.path(name))?;
        // The drive stays for those who have the file open.
        state.names.remove(name);
        Ok(())
    }

    fn move_over(&self, from: &OsStr, to: &OsStr) -> Answer<()> {
        let mut state = self.shared.state_mut();
        powered(&state)?;
        std::fs::rename(self.path(from), self.path(to))?;
        if let Some(ino) = state.names.remove(from) {
            state.names.insert(to.to_os_string(), ino);
        }
        Ok(())
    }

    fn change(&self, ino: INodeNo, mode: Option<u32>, size: Option<u64>) -> Answer<FileAttr> {
        let state = self.shared.state();
        powered(&state)?;
        if let Some(drive) = state.files.get(&ino.0) {
            let mut drive = lock(drive);
            if let Some(mode) = mode {
                drive.backing().set_permissions(Permissions::from_mode(mode & 0o777))?;
            }
            if let Some(size) = size {
                drive.set_size(size)?;
            }
        }
        self.attributes(&state, ino.0)
    }

    fn reserve(&self, ino: INodeNo, handle: FileHandle, offset: u64, len: u64, mode: i32) -> Answer<()> {
        // Only reserving: punching holes would have to go through the cache.
        let flags = FallocateFlags::from_bits(mode as u32).ok_or(Errno::EOPNOTSUPP)?;
        if !(flags - FallocateFlags::KEEP_SIZE).is_empty() {
            return Err(Errno::EOPNOTSUPP);
        }
        self.on_open(ino, handle, |drive| {
            rustix::fs::fallocate(drive.backing(), flags, offset, len)?;
            if flags.is_empty() {
                drive.grown_to(offset + len);
            }
            Ok(())
        })
    }
}

fn attributes(ino: u64, kind: FileType, size: u64, meta: &std::fs::Metadata) -> FileAttr {
    let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: meta.blocks(),
        atime: modified,
        mtime: modified,
        ctime: modified,
        crtime: modified,
        kind,
        perm: (meta.mode() & 0o7777) as u16,
        nlink: 1,
        uid: meta.uid(),
        gid: meta.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for PowerFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // An old kernel that lacks one of these is slower, not wrong.
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, _req: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.find(name) {
            Ok(attr) => reply.entry(&NO_CACHE, &attr, Generation(0)),
            Err(e) => reply.error(e),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(&self.shared.state(), ino.0) {
            Ok(attr) => reply.attr(&NO_CACHE, &attr),
            Err(e) => reply.error(e),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.change(ino, mode, size) {
            Ok(attr) => reply.attr(&NO_CACHE, &attr),
            Err(e) => reply.error(e),
        }
    }

    fn create(
        &self,
        _req: &Request,
        _parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.make(name, mode & !umask) {
            Ok((attr, life)) => reply.created(&NO_CACHE, &attr, Generation(0), FileHandle(life), OPEN_FLAGS),
            Err(e) => reply.error(e),
        }
    }

    fn unlink(&self, _req: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        finish(self.remove(name), reply);
    }

    fn rename(
        &self,
        _req: &Request,
        _parent: INodeNo,
        name: &OsStr,
        _newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let done = if flags.is_empty() { self.move_over(name, newname) } else { Err(Errno::EINVAL) };
        finish(done, reply);
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let state = self.shared.state();
        match powered(&state) {
            Ok(()) => reply.opened(FileHandle(state.life), OPEN_FLAGS),
            Err(e) => reply.error(e),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.on_open(ino, fh, |drive| drive.read(offset, size as usize)) {
            Ok(data) => reply.data(&Bytes::from(data)),
            Err(e) => reply.error(e),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // O_DSYNC and O_SYNC of the open file, and RWF_DSYNC and RWF_SYNC of the single write, all arrive here.
        let durable = flags.0 & OFlags::DSYNC.bits() as i32 != 0;
        if durable {
            lock(&self.shared.counters).durable_writes += 1;
        }
        match self.on_open(ino, fh, |drive| drive.write(offset, data, durable)) {
            Ok(()) => reply.written(data.len() as u32),
            Err(e) => reply.error(e),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // That is close(2), which flushes nothing.
        reply.ok();
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        lock(&self.shared.counters).flushes += 1;
        finish(self.on_open(ino, fh, Drive::flush), reply);
    }

    fn fsyncdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        finish(powered(&self.shared.state()), reply);
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        finish(self.reserve(ino, fh, offset, length, mode), reply);
    }

    fn readdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let state = self.shared.state();
        if let Err(e) = powered(&state) {
            return reply.error(e);
        }
        let dots =
            [(ROOT, FileType::Directory, OsStr::new(".")), (ROOT, FileType::Directory, OsStr::new(".."))];
        let files = state.names.iter().map(|(name, ino)| (*ino, FileType::RegularFile, name.as_os_str()));
        for (at, (ino, kind, name)) in dots.into_iter().chain(files).enumerate().skip(offset as usize) {
            if reply.add(INodeNo(ino), at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match statvfs(&self.shared.backing) {
            Ok(s) => reply.statfs(
                s.f_blocks,
                s.f_bfree,
                s.f_bavail,
                s.f_files,
                s.f_ffree,
                s.f_bsize as u32,
                s.f_namemax as u32,
                s.f_frsize as u32,
            ),
            Err(e) => reply.error(io::Error::from(e).into()),
        }
    }
}

fn finish(done: Answer<()>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(e),
    }
}
