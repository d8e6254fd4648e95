//! The thread that writes the event log's files. Whoever logs something has more to do than to wait for a disk.

use super::EventLogError;
use super::files::Files;
use crate::model::Event;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Events that wait for the disk. More are only in memory.
pub(super) const WAITING_MOST: usize = 4096;
/// How long the end of a log, and whoever flushes it, waits for the rest to be written.
pub(super) const FLUSHED_WITHIN: Duration = Duration::from_secs(2);

enum Order {
    Write(Event),
    /// Everything before it is to be on stable storage. Dropped without a word if it cannot be.
    Flush(SyncSender<()>),
}

/// Gives events to the thread.
pub(super) struct Writer {
    /// None: the log ends.
    orders: Option<SyncSender<Order>>,
    ended: Receiver<()>,
    /// The number of the last event that is in the files.
    written: Arc<AtomicU64>,
    /// It was said that more came than the disk takes.
    is_behind: bool,
}

impl Writer {
    pub(super) fn start(files: Files) -> Result<Self, EventLogError> {
        let (orders, queue) = sync_channel(WAITING_MOST);
        // Closed when the thread ends.
        let (alive, ended) = sync_channel(0);
        let folder = files.folder().to_owned();
        let thread = std::thread::Builder::new().name("events".into());
        let written = Arc::new(AtomicU64::new(files.next_seq() - 1));
        let in_files = written.clone();
        let spawned = thread.spawn(move || {
            run(files, &queue, &in_files);
            drop(alive);
        });
        spawned.map_err(|source| EventLogError { path: folder, source })?;
        Ok(Self { orders: Some(orders), ended, written, is_behind: false })
    }

    pub(super) fn write(&mut self, event: Event) {
        let taken = self.orders.as_ref().is_some_and(|orders| orders.try_send(Order::Write(event)).is_ok());
        if !taken && !self.is_behind {
            tracing::error!("more events than the disk takes: the newest are in memory only");
        }
        self.is_behind = !taken;
    }

    pub(super) fn written_to(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Closed without a word: it could not be done.
    pub(super) fn flush(&self) -> Receiver<()> {
        let (done, flushed) = sync_channel(1);
        if let Some(orders) = &self.orders {
            // A queue that is full is not written soon either.
            let _ = orders.try_send(Order::Flush(done));
        }
        flushed
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.ended.recv_timeout(FLUSHED_WITHIN);
    }
}

fn run(mut files: Files, queue: &Receiver<Order>, written: &AtomicU64) {
    let mut fails = false;
    while let Ok(order) = queue.recv() {
        let result = match order {
            Order::Write(event) => files.append(&event).map(|()| written.store(event.seq, Ordering::Release)),
            Order::Flush(done) => files.flush().map(|()| {
                // Who waited may have given up.
                let _ = done.send(());
            }),
        };
        if let Err(error) = &result
            && !fails
        {
            tracing::error!(%error, "events are in memory only");
        }
        fails = result.is_err();
    }
}
