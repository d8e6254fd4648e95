//! All disks of one data thread, and the queues before them.

use crate::{
    backend::Backend,
    buffer::BufferPool,
    error::{DiskError, DiskErrorKind},
    job::{self, Job, Outcome},
    open::OpenDisk,
    threads::Threads,
    uring::{self, Uring},
};
use bytes::Bytes;
use holdfast_types::{DiskDone, DiskFault, DiskOrder};
use std::{
    collections::VecDeque,
    io,
    marker::PhantomData,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Orders that one disk works on at once; a device's own queue is seldom deeper.
const DISK_DEPTH_MAX: usize = 128;
/// Bytes that one disk moves at once; a single order may be larger when it goes alone.
const DISK_BYTES_MAX: usize = 32 << 20;

const _: () = assert!(DISK_DEPTH_MAX <= uring::IN_FLIGHT_MAX);

/// A disk's number, given in the order of opening and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskSlot(pub usize);

/// All disks of one data thread. Stays on the thread that made it: the ring belongs to that thread.
pub struct Disks {
    carrier: Carrier,
    disks: Vec<Disk>,
    pool: BufferPool,
    /// Answers that need no disk, refusals mostly.
    answered: Vec<(DiskSlot, DiskDone)>,
    /// Kept from call to call for its memory; empty between calls.
    reaped: Vec<(Job, Outcome)>,
    /// Orders in the hands of the carrier.
    carried: usize,
    /// Orders submitted and not yet handed out as done.
    in_flight: usize,
    /// The disk that is looked at first by the next kick, so that none starves.
    first: usize,
    event: Option<AsyncFd<OwnedFd>>,
    _stays_on_its_thread: PhantomData<*const ()>,
}

enum Carrier {
    Uring(Box<Uring>),
    Threads(Threads),
}

struct Disk {
    /// None: closed.
    open: Option<Arc<OpenDisk>>,
    waiting: VecDeque<DiskOrder>,
    carried: usize,
    carried_bytes: usize,
}

impl Carrier {
    fn push(&mut self, job: Job) {
        match self {
            Carrier::Uring(uring) => uring.push(job),
            Carrier::Threads(threads) => threads.push(job),
        }
    }
    fn submit(&mut self) {
        match self {
            Carrier::Uring(uring) => uring.submit(),
            Carrier::Threads(threads) => threads.submit(),
        }
    }
    fn has_done(&mut self) -> bool {
        match self {
            Carrier::Uring(uring) => uring.has_done(),
            Carrier::Threads(threads) => threads.has_done(),
        }
    }
    fn reap(&mut self, out: &mut Vec<(Job, Outcome)>) {
        match self {
            Carrier::Uring(uring) => uring.reap(out),
            Carrier::Threads(threads) => threads.reap(out),
        }
    }
    fn event_fd(&self) -> BorrowedFd<'_> {
        match self {
            Carrier::Uring(uring) => uring.event_fd(),
            Carrier::Threads(threads) => threads.event_fd(),
        }
    }
}

impl Disks {
    /// No disks yet, and the way to the kernel.
    pub fn new(backend: Backend) -> Result<Self, DiskError> {
        let nowhere = Path::new("");
        let carrier = match backend {
            Backend::Uring => {
                let uring = Uring::new().map_err(|e| DiskError::new(nowhere, DiskErrorKind::NoUring(e)))?;
                Carrier::Uring(Box::new(uring))
            }
            Backend::Threads => {
                Carrier::Threads(Threads::new().map_err(|e| DiskError::os(nowhere, "start a thread", e))?)
            }
        };
        Ok(Self {
            carrier,
            disks: Vec::new(),
            pool: BufferPool::default(),
            answered: Vec::new(),
            reaped: Vec::new(),
            carried: 0,
            in_flight: 0,
            first: 0,
            event: None,
            _stays_on_its_thread: PhantomData,
        })
    }

    /// Opens a disk and takes it.
    pub fn open(&mut self, path: &Path) -> Result<(DiskSlot, u64), DiskError> {
        Ok(self.add(OpenDisk::open(path)?))
    }

    /// Takes a disk that was opened. Gives its size.
    pub fn add(&mut self, open: OpenDisk) -> (DiskSlot, u64) {
        let size = open.size();
        let waiting = VecDeque::new();
        self.disks.push(Disk { open: Some(Arc::new(open)), waiting, carried: 0, carried_bytes: 0 });
        (DiskSlot(self.disks.len() - 1), size)
    }

    /// Lets go of a disk. What waits and what comes later is answered with ENODEV; what is under way is
    /// finished and answered, and the disk is free for others after that.
    pub fn close(&mut self, slot: DiskSlot) {
        let Some(disk) = self.disks.get_mut(slot.0) else { return };
        disk.open = None;
        for order in disk.waiting.drain(..) {
            let done = DiskDone { token: order.token, result: Err(DiskFault::Io(libc::ENODEV)) };
            self.answered.push((slot, done));
        }
    }

    /// Whether a disk that was closed is free for others: what was under way on it is done.
    pub fn is_free(&self, slot: DiskSlot) -> bool {
        self.disks.get(slot.0).is_none_or(|disk| disk.open.is_none() && disk.carried == 0)
    }

    /// Queues an order. Nothing happens before [`Disks::kick`] or [`Disks::poll`].
    pub fn submit(&mut self, slot: DiskSlot, order: DiskOrder) {
        self.in_flight += 1;
        let Some(disk) = self.disks.get_mut(slot.0) else {
            return self.answer(slot, order, Err(DiskFault::Io(libc::ENODEV)));
        };
        let Some(open) = &disk.open else {
            return self.answer(slot, order, Err(DiskFault::Io(libc::ENODEV)));
        };
        match job::check(&order.kind, open.size()) {
            Err(fault) => self.answer(slot, order, Err(fault)),
            Ok(0) if !matches!(order.kind, holdfast_types::DiskOrderKind::Flush) => {
                self.answer(slot, order, Ok(Bytes::new()));
            }
            Ok(_) => disk.waiting.push_back(order),
        }
    }

    fn answer(&mut self, slot: DiskSlot, order: DiskOrder, result: Outcome) {
        self.answered.push((slot, DiskDone { token: order.token, result }));
    }

    /// Hands what waits to the kernel, as far as the bounds allow, with one system call.
    pub fn kick(&mut self) {
        let count = self.disks.len();
        for step in 0..count {
            let slot = (self.first + step) % count;
            let disk = &mut self.disks[slot];
            let Some(open) = &disk.open else { continue };
            while self.carried < uring::IN_FLIGHT_MAX && disk.carried < DISK_DEPTH_MAX {
                let Some(order) = disk.waiting.front() else { break };
                let bytes = job::check(&order.kind, open.size()).unwrap_or(0);
                if disk.carried_bytes > 0 && disk.carried_bytes + bytes > DISK_BYTES_MAX {
                    break;
                }
                let Some(order) = disk.waiting.pop_front() else { break };
                self.carrier.push(Job::new(slot, open, order, &self.pool));
                disk.carried += 1;
                disk.carried_bytes += bytes;
                self.carried += 1;
            }
        }
        self.first = if count == 0 { 0 } else { (self.first + 1) % count };
        self.carrier.submit();
    }

    /// Takes what is done, never waits, and says how much it was. Hands over what waited for a place.
    pub fn poll(&mut self, out: &mut Vec<(DiskSlot, DiskDone)>) -> usize {
        let before = out.len();
        out.append(&mut self.answered);
        let mut reaped = std::mem::take(&mut self.reaped);
        self.carrier.reap(&mut reaped);
        let freed = !reaped.is_empty();
        for (job, outcome) in reaped.drain(..) {
            let disk = &mut self.disks[job.slot];
            disk.carried -= 1;
            disk.carried_bytes -= job.bytes;
            self.carried -= 1;
            let (slot, token) = (DiskSlot(job.slot), job.token);
            out.push((slot, DiskDone { token, result: job.finish(outcome) }));
        }
        self.reaped = reaped;
        let taken = out.len() - before;
        self.in_flight -= taken;
        if freed && self.disks.iter().any(|disk| !disk.waiting.is_empty()) {
            self.kick();
        }
        taken
    }

    /// Whether [`Disks::poll`] has something to take.
    pub fn has_done(&mut self) -> bool {
        !self.answered.is_empty() || self.carrier.has_done()
    }

    /// Waits until [`Disks::poll`] has something to take. Dropping the future loses nothing. Needs tokio.
    pub async fn wait(&mut self) {
        while !self.has_done() {
            let event = match &self.event {
                Some(event) => event,
                None => match watch(self.carrier.event_fd()) {
                    Ok(event) => self.event.insert(event),
                    // No memory for another descriptor: look again and again rather than give up.
                    Err(_) => {
                        tokio::task::yield_now().await;
                        continue;
                    }
                },
            };
            // The poll is edge-triggered. Cleared before the next look, so an edge after it is not missed.
            let ready: io::Result<_> = event.readable().await;
            if let Ok(mut ready) = ready {
                ready.clear_ready();
            }
        }
    }

    /// How many orders were submitted and not yet handed out as done.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }
}

/// Has tokio watch a descriptor of its own of the carrier's eventfd.
fn watch(event: BorrowedFd<'_>) -> io::Result<AsyncFd<OwnedFd>> {
    let own = event.try_clone_to_owned()?;
    // SAFETY: an `OwnedFd` gives the same open descriptor for as long as it lives.
    let watched = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) };
    Ok(watched?)
}
