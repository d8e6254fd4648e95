//! The mount and its power switch.

use crate::{
    drive::{CutReport, Drive, mix},
    fs::PowerFs,
};
use fuser::{BackgroundSession, Config, MountOption};
use rustix::mount::{UnmountFlags, unmount};
use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{File, OpenOptions},
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use thiserror::Error;

/// Threads that answer the kernel.
const THREADS: usize = 2;
/// The folder's own inode number.
pub(crate) const ROOT: u64 = 1;

/// Why the file system cannot be mounted, or be cut.
#[derive(Debug, Error)]
#[error("cannot {doing} {}", path.display())]
pub struct PowerError {
    /// What was tried.
    pub doing: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

/// How the file system is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether it has power.
    pub powered: bool,
    /// Bytes that a cut would put at stake.
    pub cached_bytes: u64,
    /// Writes that asked to be on stable storage, since the mount.
    pub durable_writes: u64,
    /// Flushes, since the mount.
    pub flushes: u64,
}

/// A mounted file system whose power can be cut. Dropping it unmounts, without flushing.
pub struct PowerCut {
    session: Option<BackgroundSession>,
    mount: PathBuf,
    shared: Arc<Shared>,
}

/// A file system that answers nothing, as long as this is kept: whoever touches data waits for the switch.
pub struct Hung<'a> {
    _switch: RwLockWriteGuard<'a, State>,
}

/// Every file and the power switch. Calls hold the switch for reading while they touch data, so that a cut falls
/// between them.
pub(crate) struct Shared {
    pub(crate) backing: PathBuf,
    state: RwLock<State>,
    pub(crate) counters: Mutex<Counters>,
    /// Nanoseconds that each call on data takes besides.
    delay: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) durable_writes: u64,
    pub(crate) flushes: u64,
}

pub(crate) struct State {
    /// Counts the cuts: a file that was opened before one is dead for ever.
    pub(crate) life: u64,
    pub(crate) powered: bool,
    pub(crate) names: BTreeMap<OsString, u64>,
    pub(crate) files: BTreeMap<u64, Mutex<Drive>>,
    next_inode: u64,
}

impl State {
    pub(crate) fn add(&mut self, name: &OsStr, drive: Drive) -> u64 {
        self.next_inode += 1;
        self.names.insert(name.to_os_string(), self.next_inode);
        self.files.insert(self.next_inode, Mutex::new(drive));
        self.next_inode
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the drive takes its time for: that is the fault, and nobody waits for anything else here. Calls take it side by
    /// side, as those of a disk's queue do.
    pub(crate) fn take_time(&self) {
        match self.delay.load(Ordering::Relaxed) {
            0 => {}
            delay => std::thread::sleep(Duration::from_nanos(delay)),
        }
    }

    pub(crate) fn cut(&self, seed: u64) -> io::Result<CutReport> {
        let mut state = self.state_mut();
        state.powered = false;
        state.life += 1;
        let mut total = CutReport::default();
        for (name, inode) in &state.names {
            if let Some(drive) = state.files.get(inode) {
                // Each file its own fates, whatever the order of files.
                let report = lock(drive).cut(seed ^ hash(name))?;
                total.kept += report.kept;
                total.dropped += report.dropped;
                total.torn += report.torn;
            }
        }
        let named: Vec<u64> = state.names.values().copied().collect();
        state.files.retain(|inode, _| named.contains(inode));
        Ok(total)
    }

    pub(crate) fn power_on(&self) {
        self.state_mut().powered = true;
    }

    pub(crate) fn flush_all(&self) -> io::Result<()> {
        self.state().files.values().try_for_each(|drive| lock(drive).flush())
    }

    pub(crate) fn status(&self) -> Status {
        let state = self.state();
        let counters = lock(&self.counters);
        Status {
            powered: state.powered,
            cached_bytes: state.files.values().map(|drive| lock(drive).cached_bytes()).sum(),
            durable_writes: counters.durable_writes,
            flushes: counters.flushes,
        }
    }
}

fn hash(name: &OsStr) -> u64 {
    name.as_bytes().iter().fold(0, |hash, byte| mix(hash ^ u64::from(*byte)))
}

/// Opens a file of the backing folder for the drive on it.
pub(crate) fn open_backing(path: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(create).open(path)
}

impl PowerCut {
    /// Mounts on `mount` what is in the folder `backing`, with its power on. A mount that a killed process left
    /// behind there is taken away first.
    pub fn mount(mount: &Path, backing: &Path) -> Result<PowerCut, PowerError> {
        let fail = |doing, path: &Path| {
            let path = path.to_path_buf();
            move |source| PowerError { doing, path, source }
        };
        let stale = std::fs::metadata(mount).err().and_then(|e| e.raw_os_error());
        if stale == Some(rustix::io::Errno::NOTCONN.raw_os_error()) {
            let gone = unmount(mount, UnmountFlags::DETACH).map_err(io::Error::from);
            gone.map_err(fail("take away the old mount on", mount))?;
        }
        let (names, files) = (BTreeMap::new(), BTreeMap::new());
        let mut state = State { life: 1, powered: true, names, files, next_inode: ROOT };
        for entry in std::fs::read_dir(backing).map_err(fail("read the folder", backing))? {
            let entry = entry.map_err(fail("read the folder", backing))?;
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                let drive = open_backing(&entry.path(), false).and_then(Drive::new);
                state.add(&entry.file_name(), drive.map_err(fail("open", &entry.path()))?);
            }
        }
        let state = RwLock::new(state);
        let backing = backing.to_path_buf();
        let shared =
            Arc::new(Shared { backing, state, counters: Mutex::default(), delay: AtomicU64::new(0) });
        let mut config = Config::default();
        config.mount_options =
            vec![MountOption::FSName("holdfast-powercut".into()), MountOption::NoSuid, MountOption::NoDev];
        config.n_threads = Some(THREADS);
        let session = fuser::spawn_mount(PowerFs::new(shared.clone()), mount, &config);
        let session = session.map_err(fail("mount on", mount))?;
        Ok(PowerCut { session: Some(session), mount: mount.to_path_buf(), shared })
    }

    /// Cuts the power: what was not flushed meets its fate, and everything answers EIO from here on.
    pub fn cut(&self, seed: u64) -> Result<CutReport, PowerError> {
        self.shared.cut(seed).map_err(|source| self.error("cut the power of", source))
    }

    /// Turns the power on again. Files that were open before the cut stay dead; new ones work.
    pub fn power_on(&self) {
        self.shared.power_on();
    }

    /// It answers nothing until what is given back is dropped, and then everything.
    pub fn hang(&self) -> Hung<'_> {
        Hung { _switch: self.shared.state_mut() }
    }

    /// From here on each read, write and flush takes so much longer. Zero: as long as it takes.
    pub fn slow_down(&self, by: Duration) {
        self.shared.delay.store(by.as_nanos() as u64, Ordering::Relaxed);
    }

    /// The sector at this byte of a file cannot be read until it is written, as one that the medium lost. Whether there is
    /// such a file.
    pub fn lose_sector(&self, file: &OsStr, offset: u64) -> bool {
        let state = self.shared.state();
        let drive = state.names.get(file).and_then(|inode| state.files.get(inode));
        drive.inspect(|drive| lock(drive).lose(offset)).is_some()
    }

    /// Everything goes to the disk, as when a machine is shut down.
    pub fn flush_all(&self) -> Result<(), PowerError> {
        self.shared.flush_all().map_err(|source| self.error("flush", source))
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    fn error(&self, doing: &'static str, source: io::Error) -> PowerError {
        PowerError { doing, path: self.mount.clone(), source }
    }
}

impl Drop for PowerCut {
    fn drop(&mut self) {
        // Detached first: files may still be open on it, and an unmount must not wait for those.
        let _ = unmount(&self.mount, UnmountFlags::DETACH);
        drop(self.session.take());
    }
}
