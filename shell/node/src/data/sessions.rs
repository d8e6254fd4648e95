//! Sockets of initiators: listeners, a reading task for each connection, and writing from the loop. A connection
//! is read only while its session wants input, so that what an initiator has under way is bounded; what it does
//! not take of our answers is bounded by that as well.

use super::inbox::Inbox;
use bytes::{Buf, Bytes, BytesMut};
use holdfast_engine::{FrontEndKind, Input, Opening};
use holdfast_net::{Refusal, Refusals};
use holdfast_types::{CloseReason, ConnectionId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::net::TcpListener;
use std::rc::Rc;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// A buffer for reading; several reads share one.
const READ_BYTES: usize = 128 << 10;
/// With less room left than this, the next read gets a new buffer.
const READ_LEAST_BYTES: usize = 16 << 10;
/// Connections on one listener; a further one is closed at once. Each costs a few KiB while it is silent.
const CONNECTIONS_MOST: usize = 4096;
/// Pieces handed to one write.
const WRITE_SLICES: usize = 64;
/// With more than this waiting for an initiator that does not take it, nothing more is read from it, and none of its
/// commands is started. What is under way by then is bounded by its session.
const QUEUED_MOST_BYTES: usize = 8 << 20;

/// The initiators' side of the data thread.
pub struct Listening {
    shared: Rc<Shared>,
    paused: Vec<ConnectionId>,
    refusals: Refusals,
}

struct Shared {
    inbox: Rc<Inbox>,
    connections: RefCell<BTreeMap<ConnectionId, Rc<Connection>>>,
    next: Cell<u64>,
    /// Connections with something to write since the last burst.
    dirty: RefCell<Vec<ConnectionId>>,
    /// Connections that were read from since the last burst.
    fed: RefCell<Vec<ConnectionId>>,
}

struct Connection {
    stream: TcpStream,
    queue: RefCell<VecDeque<Bytes>>,
    queued_bytes: Cell<usize>,
    /// A task waits until the socket takes more.
    writing: Cell<bool>,
    closing: Cell<bool>,
    /// The engine was told that the initiator takes nothing.
    deaf: Cell<bool>,
    paused: Cell<bool>,
    resume: Notify,
    reader: RefCell<Option<JoinHandle<()>>>,
}

impl Listening {
    /// Accepts on every listener.
    pub fn start(
        listeners: Vec<(FrontEndKind, TcpListener)>,
        inbox: Rc<Inbox>,
        refusals: Refusals,
    ) -> io::Result<Self> {
        let shared = Rc::new(Shared {
            inbox,
            connections: RefCell::default(),
            next: Cell::new(1),
            dirty: RefCell::default(),
            fed: RefCell::default(),
        });
        for (kind, listener) in listeners {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::task::spawn_local(accept(kind, listener, shared.clone()));
        }
        Ok(Self { shared, paused: Vec::new(), refusals })
    }

    /// Queues bytes for an initiator.
    pub fn send(&mut self, connection: ConnectionId, bytes: Bytes) {
        let connections = self.shared.connections.borrow();
        let Some(open) = connections.get(&connection) else { return };
        let mut queue = open.queue.borrow_mut();
        if queue.is_empty() {
            self.shared.dirty.borrow_mut().push(connection);
        }
        open.queued_bytes.set(open.queued_bytes.get() + bytes.len());
        queue.push_back(bytes);
        if open.queued_bytes.get() > QUEUED_MOST_BYTES && !open.deaf.replace(true) {
            self.shared.inbox.put(Input::SessionTakes { connection, takes: false });
        }
    }

    /// Closes a connection once what was queued for it is written.
    pub fn close(&mut self, connection: ConnectionId, reason: CloseReason) {
        let Some(open) = self.shared.connections.borrow().get(&connection).cloned() else { return };
        tracing::debug!(connection = connection.0, %reason, "session ended");
        let refusal = match reason {
            CloseReason::AuthenticationFailed => Some(Refusal::ChapFailed),
            CloseReason::NoSecret => Some(Refusal::ChapNotSet),
            _ => None,
        };
        if let (Some(refusal), Ok(from)) = (refusal, open.stream.peer_addr()) {
            self.refusals.count(refusal, from);
        }
        open.closing.set(true);
        if let Some(reader) = open.reader.take() {
            reader.abort();
        }
        self.shared.dirty.borrow_mut().push(connection);
    }

    /// Forgets the connections whose initiators have hung up, those included that are not read from just now.
    pub fn take_hung_up(&mut self) -> Vec<ConnectionId> {
        let hung_up = |open: &Connection| {
            let mut look = [PollFd::new(&open.stream, PollFlags::RDHUP)];
            poll(&mut look, Some(&Timespec::default())).is_ok_and(|found| found > 0)
        };
        let connections = self.shared.connections.borrow();
        let gone: Vec<_> = connections.iter().filter(|(_, open)| hung_up(open)).map(|(id, _)| *id).collect();
        drop(connections);
        gone.iter().for_each(|id| self.shared.forget(*id));
        gone
    }

    /// Writes what the burst queued, and pauses or resumes reading as the sessions want.
    pub fn end_of_burst(&mut self, wants_input: impl Fn(ConnectionId) -> bool) {
        for id in self.shared.dirty.take() {
            let open = self.shared.connections.borrow().get(&id).cloned();
            let Some(open) = open else { continue };
            if open.writing.get() {
                continue;
            }
            let written = open.write_some();
            self.shared.tell_room(id, &open);
            match written {
                Ok(true) if open.closing.get() => self.shared.forget(id),
                Ok(true) => {}
                Ok(false) => {
                    open.writing.set(true);
                    tokio::task::spawn_local(write_rest(id, open, self.shared.clone()));
                }
                Err(_) => self.shared.lost(id),
            }
        }
        let connections = self.shared.connections.borrow();
        self.paused.retain(|id| {
            let Some(open) = connections.get(id) else { return false };
            let go_on = wants_input(*id) && open.queued_bytes.get() <= QUEUED_MOST_BYTES;
            if go_on {
                open.paused.set(false);
                open.resume.notify_one();
            }
            !go_on
        });
        for id in self.shared.fed.take() {
            let Some(open) = connections.get(&id) else { continue };
            let go_on = wants_input(id) && open.queued_bytes.get() <= QUEUED_MOST_BYTES;
            if !open.paused.get() && !go_on {
                open.paused.set(true);
                self.paused.push(id);
            }
        }
    }
}

impl Shared {
    fn forget(&self, id: ConnectionId) {
        if let Some(open) = self.connections.borrow_mut().remove(&id)
            && let Some(reader) = open.reader.take()
        {
            reader.abort();
        }
    }

    /// Tells the engine when an initiator has taken enough of what waited for it.
    fn tell_room(&self, connection: ConnectionId, open: &Connection) {
        if open.queued_bytes.get() <= QUEUED_MOST_BYTES / 2 && open.deaf.replace(false) {
            self.inbox.put(Input::SessionTakes { connection, takes: true });
        }
    }

    /// The initiator is gone, and the engine does not know yet.
    fn lost(&self, id: ConnectionId) {
        self.forget(id);
        self.inbox.put(Input::SessionClosed(id));
    }
}

impl Connection {
    /// Writes as much as the socket takes. True: everything.
    fn write_some(&self) -> io::Result<bool> {
        let mut queue = self.queue.borrow_mut();
        while !queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
            let mut count = 0;
            for (slice, bytes) in slices.iter_mut().zip(queue.iter()) {
                *slice = IoSlice::new(bytes);
                count += 1;
            }
            let mut written = match self.stream.try_write_vectored(&slices[..count]) {
                Ok(written) => written,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            };
            self.queued_bytes.set(self.queued_bytes.get() - written);
            while let Some(front) = queue.front_mut() {
                if front.len() > written {
                    front.advance(written);
                    break;
                }
                written -= front.len();
                queue.pop_front();
            }
        }
        Ok(true)
    }
}

async fn write_rest(id: ConnectionId, open: Rc<Connection>, shared: Rc<Shared>) {
    let result = loop {
        if let Err(error) = open.stream.writable().await {
            break Err(error);
        }
        let written = open.write_some();
        shared.tell_room(id, &open);
        match written {
            Ok(false) => {}
            other => break other,
        }
    };
    open.writing.set(false);
    // Something may be paused for what is written now.
    shared.inbox.wake();
    match result {
        Ok(_) if open.closing.get() => shared.forget(id),
        Ok(_) => {}
        Err(_) => shared.lost(id),
    }
}

async fn accept(kind: FrontEndKind, listener: tokio::net::TcpListener, shared: Rc<Shared>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, mostly: others will be closed.
                tracing::warn!(%error, "cannot accept an initiator");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        if shared.connections.borrow().len() >= CONNECTIONS_MOST || stream.set_nodelay(true).is_err() {
            continue;
        }
        let portal = stream.local_addr().map(|a| a.to_string()).unwrap_or_default();
        let id = ConnectionId(shared.next.get());
        shared.next.set(id.0 + 1);
        let mut entropy = [0; 32];
        holdfast_net::pin::random(&mut entropy);
        let open = Rc::new(Connection {
            stream,
            queue: RefCell::default(),
            queued_bytes: Cell::new(0),
            writing: Cell::new(false),
            closing: Cell::new(false),
            deaf: Cell::new(false),
            paused: Cell::new(false),
            resume: Notify::new(),
            reader: RefCell::new(None),
        });
        shared.connections.borrow_mut().insert(id, open.clone());
        shared.inbox.put(Input::SessionOpened { connection: id, opening: Opening { kind, portal, entropy } });
        let reader = tokio::task::spawn_local(read(id, open.clone(), shared.clone()));
        open.reader.replace(Some(reader));
    }
}

async fn read(id: ConnectionId, open: Rc<Connection>, shared: Rc<Shared>) {
    // Who never says more than the beginning of something is not worth a whole buffer.
    let mut buffer = BytesMut::with_capacity(READ_LEAST_BYTES);
    loop {
        while open.paused.get() {
            open.resume.notified().await;
        }
        if open.stream.readable().await.is_err() {
            break;
        }
        if buffer.capacity() < READ_LEAST_BYTES {
            buffer.reserve(READ_BYTES);
        }
        match open.stream.try_read_buf(&mut buffer) {
            Ok(0) => break,
            Ok(_) => {
                shared.fed.borrow_mut().push(id);
                shared.inbox.put(Input::SessionBytes { connection: id, bytes: buffer.split().freeze() });
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => break,
        }
        // One buffer, then the loop's turn: it may say that this is enough.
        tokio::task::yield_now().await;
    }
    open.reader.take();
    shared.lost(id);
}
