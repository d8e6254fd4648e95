//! Orders carried by threads with plain system calls, for hosts that refuse io_uring. Threads are started as
//! they are needed, up to a bound, and end with the backend.

use crate::{
    event::Event,
    job::{Call, Job, Outcome},
};
use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// As many calls go on at once; a device's own queue is seldom deeper.
const THREADS_MAX: usize = 32;
/// A thread needs no more: it makes system calls and nothing else.
const STACK_BYTES: usize = 128 << 10;
/// How long a backend that is dropped waits for calls that go on. A device that hangs longer is left behind.
const DROP_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Job>,
    done: Vec<(Job, Outcome)>,
    threads: usize,
    idle: usize,
    stop: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    event: Event,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(crate) struct Threads {
    shared: Arc<Shared>,
    pushed: Vec<Job>,
}

impl Threads {
    pub(crate) fn new() -> io::Result<Threads> {
        let shared = Shared { state: Mutex::default(), wake: Condvar::new(), event: Event::new()? };
        let threads = Threads { shared: Arc::new(shared), pushed: Vec::new() };
        // One thread at least must run, or nothing would ever be done.
        threads.start_thread()?;
        Ok(threads)
    }

    pub(crate) fn push(&mut self, job: Job) {
        self.pushed.push(job);
    }

    pub(crate) fn submit(&mut self) {
        if self.pushed.is_empty() {
            return;
        }
        let mut state = self.shared.state();
        state.queue.extend(self.pushed.drain(..));
        let missing = state.queue.len().saturating_sub(state.idle);
        let start = missing.min(THREADS_MAX.saturating_sub(state.threads));
        let waiting = state.queue.len();
        drop(state);
        for _ in 0..start {
            // With fewer threads than wished the work still gets done.
            if self.start_thread().is_err() {
                break;
            }
        }
        for _ in 0..waiting.min(THREADS_MAX) {
            self.shared.wake.notify_one();
        }
    }

    fn start_thread(&self) -> io::Result<()> {
        let shared = self.shared.clone();
        self.shared.state().threads += 1;
        let started = std::thread::Builder::new()
            .name("holdfast-disk".into())
            .stack_size(STACK_BYTES)
            .spawn(move || run(&shared));
        if started.is_err() {
            self.shared.state().threads -= 1;
        }
        started.map(drop)
    }

    pub(crate) fn has_done(&mut self) -> bool {
        !self.shared.state().done.is_empty()
    }

    pub(crate) fn reap(&mut self, out: &mut Vec<(Job, Outcome)>) {
        out.append(&mut self.shared.state().done);
    }

    pub(crate) fn event_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.stop = true;
        state.queue.clear();
        self.shared.wake.notify_all();
        // Each thread owns its job and its share of the state, so one that hangs may be left behind.
        let waited = self.shared.wake.wait_timeout_while(state, DROP_WAIT, |state| state.threads > 0);
        // A thread that is just ending may hold the state longer than this; the disks are free now.
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.done.clear();
    }
}

fn run(shared: &Shared) {
    let mut state = shared.state();
    loop {
        if state.stop {
            break;
        }
        let Some(mut job) = state.queue.pop_front() else {
            state.idle += 1;
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
            continue;
        };
        drop(state);
        let outcome = loop {
            let answer = make(job.call());
            if let Some(outcome) = job.answered(answer) {
                break outcome;
            }
        };
        state = shared.state();
        state.done.push((job, outcome));
        shared.event.signal();
    }
    state.threads -= 1;
    drop(state);
    shared.wake.notify_all();
}

/// Makes the call and gives its count or its negative errno.
fn make(call: Call) -> i64 {
    let result = match call {
        Call::Write { fd, pieces, count, offset, durable } => {
            let flags = if durable { libc::RWF_DSYNC } else { 0 };
            // SAFETY: the job that gave the call is alive and keeps `count` pieces and their memory.
            unsafe { libc::pwritev2(fd, pieces, count as i32, offset as i64, flags) as i64 }
        }
        Call::Read { fd, into, len, offset } => {
            // SAFETY: the job that gave the call is alive, and `len` bytes from `into` on are its own.
            unsafe { libc::pread(fd, into.cast(), len as usize, offset as i64) as i64 }
        }
        // SAFETY: no memory is involved.
        Call::Flush { fd } => unsafe { libc::fdatasync(fd) as i64 },
    };
    if result < 0 {
        -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    } else {
        result
    }
}
