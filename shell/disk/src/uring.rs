//! Orders carried by one io_uring: everything that waits is handed over, and everything that is done taken
//! back, with one system call.
//!
//! The kernel wakes the eventfd when there is something to take. Where it can (Linux 6.1), completions are
//! finished by this thread when it asks for them (DEFER_TASKRUN) and never interrupt it; the ring then belongs
//! to the thread that made it, which is why `Disks` cannot be sent to another.

use crate::{
    event::Event,
    job::{Call, Job, Outcome},
};
use io_uring::{IoUring, opcode, types};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::{Duration, Instant},
};

/// What the ring takes at once; all of it fits the submission queue, so that one call hands everything over.
pub(crate) const IN_FLIGHT_MAX: usize = 1024;
/// How long a ring that is dropped waits for what the kernel still works on.
const DROP_WAIT: Duration = Duration::from_secs(5);
/// io_uring_enter(2): deliver what is done.
const ENTER_GETEVENTS: u32 = 1;

pub(crate) struct Uring {
    ring: IoUring,
    event: Event,
    /// Jobs by the number that their completion carries. A job stays here while the kernel uses its memory.
    jobs: Vec<Option<Job>>,
    free: Vec<usize>,
    /// The kernel took less than was handed over; hand the rest over again.
    unsent: bool,
}

/// Whether the kernel allows a ring with all that is needed here.
pub(crate) fn probe() -> io::Result<()> {
    build(8).map(drop)
}

fn build(entries: u32) -> io::Result<IoUring> {
    let deferred =
        IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().build(entries);
    match deferred {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => IoUring::new(entries),
        other => other,
    }
}

impl Uring {
    pub(crate) fn new() -> io::Result<Uring> {
        let ring = build(IN_FLIGHT_MAX as u32)?;
        let event = Event::new()?;
        ring.submitter().register_eventfd(event.as_fd().as_raw_fd())?;
        Ok(Uring { ring, event, jobs: Vec::new(), free: Vec::new(), unsent: false })
    }

    pub(crate) fn push(&mut self, job: Job) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.jobs.push(None);
            self.jobs.len() - 1
        });
        assert!(self.jobs.len() <= IN_FLIGHT_MAX, "the caller bounds what is in flight");
        self.jobs[index] = Some(job);
        self.push_call(index);
    }

    fn push_call(&mut self, index: usize) {
        let call = self.jobs[index].as_mut().expect("a job stays until it is done").call();
        let entry = match call {
            // RWF_DSYNC, and not a write linked to fdatasync: one request for two, no worker thread of the ring, FUA where the
            // device has it. By examples/raw.rs, ext4 on virtio without FUA, an idle machine of two cores: 69,416 against
            // 52,971 a second at depth 32; at depth 1 no difference (medians of four rounds 8,544 and 8,520).
            Call::Write { fd, pieces, count, offset, durable } => {
                let flags = if durable { libc::RWF_DSYNC } else { 0 };
                opcode::Writev::new(types::Fd(fd), pieces, count).offset(offset).rw_flags(flags).build()
            }
            Call::Read { fd, into, len, offset } => {
                opcode::Read::new(types::Fd(fd), into, len).offset(offset).build()
            }
            Call::Flush { fd } => {
                opcode::Fsync::new(types::Fd(fd)).flags(types::FsyncFlags::DATASYNC).build()
            }
        };
        let entry = entry.user_data(index as u64);
        // SAFETY: what the entry points to belongs to the job, which stays in `jobs` until its completion was
        // seen, and is leaked rather than freed when it never is (see `drop`).
        let pushed = unsafe { self.ring.submission().push(&entry) };
        assert!(pushed.is_ok(), "the queue holds every job there can be");
    }

    pub(crate) fn submit(&mut self) {
        while !self.ring.submission().is_empty() {
            match self.ring.submitter().submit() {
                Ok(_) => self.unsent = false,
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
                Err(_) => {
                    // The kernel lacks memory or room for completions. What it did not take stays in the queue
                    // and is handed over at the next poll.
                    self.unsent = true;
                    return;
                }
            }
        }
    }

    /// Has the kernel finish what waits for this thread to ask.
    fn run_deferred(&mut self) {
        if self.ring.submission().taskrun() {
            // SAFETY: no argument is passed. An error means that nothing was delivered: asked again later.
            let _ = unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 0, ENTER_GETEVENTS, None) };
        }
    }

    pub(crate) fn has_done(&mut self) -> bool {
        self.run_deferred();
        self.unsent || !self.ring.completion().is_empty()
    }

    pub(crate) fn reap(&mut self, out: &mut Vec<(Job, Outcome)>) {
        self.run_deferred();
        let mut again: Vec<usize> = Vec::new();
        let Self { ring, jobs, free, .. } = self;
        for done in ring.completion() {
            let index = done.user_data() as usize;
            let job = jobs[index].as_mut().expect("a completion belongs to a job in flight");
            match job.answered(i64::from(done.result())) {
                None => again.push(index),
                Some(outcome) => {
                    let job = jobs[index].take().expect("it was there a line ago");
                    free.push(index);
                    out.push((job, outcome));
                }
            }
        }
        let resubmit = self.unsent || !again.is_empty();
        for index in again {
            self.push_call(index);
        }
        if resubmit {
            self.submit();
        }
    }

    pub(crate) fn event_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    fn in_flight(&self) -> usize {
        self.jobs.len() - self.free.len()
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.submit();
        let deadline = Instant::now() + DROP_WAIT;
        let mut done = Vec::new();
        while self.in_flight() > 0 && Instant::now() < deadline {
            let pause = types::Timespec::from(Duration::from_millis(100));
            let args = types::SubmitArgs::new().timespec(&pause);
            // Whether it timed out or was interrupted, what is done is taken.
            let _ = self.ring.submitter().submit_with_args(1, &args);
            self.reap(&mut done);
        }
        // The kernel may still write to the memory of what is left: it must never be used again.
        for job in self.jobs.drain(..).flatten() {
            std::mem::forget(job);
        }
    }
}
