//! The data thread: one engine and everything that it talks to. A current-thread runtime holds the sockets of
//! initiators and peers and the disks; tasks put what arrives into one inbox, the loop here gives a burst of
//! it to the engine and carries out what the engine orders. Nothing is decided here, nothing is waited for:
//! whatever must come after something else is ordered by the engine when that something is done.
//!
//! The control thread talks to it through [`DataHandle`] and hears [`Report`]s.

mod clock;
mod inbox;
mod links;
mod polling;
mod sessions;

pub use clock::boot_time;
pub use polling::POLL_MOST;

use crate::data::inbox::Inbox;
use crate::data::links::Links;
use crate::data::polling::{CORE_TAKEN, Polling};
use crate::data::sessions::Listening;
use anyhow::Context;
use holdfast_disk::{Backend, DiskSlot, Disks, OpenDisk};
use holdfast_engine::status::EngineStatus;
use holdfast_engine::{
    DiskOpen, Engine, EngineConfig, EngineEvent, FrontEndKind, Input, Output, Registration,
};
use holdfast_net::{Identity, Listener, Refusals};
use holdfast_store::{OpenError, OpenReport};
use holdfast_types::{ConnectionId, DiskId, Duration, NodeId, SegmentCommand, SegmentKey, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use tokio::sync::{mpsc, oneshot};

/// What the control thread hears from the data thread.
#[derive(Debug)]
pub enum Report {
    /// An owner proposes something to control; the answer goes back as [`Input::Proposed`].
    Propose {
        /// Comes back.
        number: u64,
        /// What.
        command: SegmentCommand,
    },
    /// This node's gateway needs a new number.
    RenewGateway,
    /// A session is to be registered; answered by [`Input::SessionRegistered`] or [`Input::SessionMoved`].
    RegisterSession {
        /// Which.
        connection: ConnectionId,
        /// What.
        registration: Registration,
    },
    /// A session ended with nothing under way.
    EndSession(Registration),
    /// An [`Input::FenceSession`] is answered.
    SessionFenced {
        /// The request's number.
        number: u64,
        /// Whether the fence is committed.
        done: bool,
    },
    /// A deleted segment's copy is freed.
    Freed {
        /// Which.
        segment: SegmentKey,
        /// On which disk.
        disk: DiskId,
    },
    /// A disk was opened.
    DiskOpened {
        /// Which.
        disk: DiskId,
        /// What was found.
        report: OpenReport,
    },
    /// A disk was refused.
    DiskRefused {
        /// Which.
        disk: DiskId,
        /// Why.
        error: OpenError,
    },
    /// A check ended.
    Checked {
        /// The request's number.
        number: u64,
        /// None: another node owns the segment by now.
        report: Option<holdfast_replication::CheckReport>,
    },
    /// For the event log.
    Event(EngineEvent),
}

/// The other nodes, as the map has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// Where their data listeners are.
    pub addresses: BTreeMap<NodeId, SocketAddr>,
    /// Those that are none any more: nothing is taken from them.
    pub removed: BTreeSet<NodeId>,
}

/// What the control thread asks of the data thread.
pub enum Order {
    /// A fact for the engine.
    Input(Input),
    /// Give a disk to the engine.
    Attach {
        /// Which.
        disk: DiskId,
        /// The file or device.
        file: OpenDisk,
        /// What the engine is to do with it.
        open: DiskOpen,
    },
    /// Close a disk: what was ordered of it is not answered any more.
    Detach {
        /// Which.
        disk: DiskId,
        /// Answered when nothing is under way on it any more, and others may open it.
        answer: oneshot::Sender<()>,
    },
    /// Who the peers are.
    Peers(Peers),
    /// How the engine is.
    Status(oneshot::Sender<EngineStatus>),
    /// Answered when the engine has written back what was committed at [`Input::Checkpoint`].
    WhenCheckpointed(oneshot::Sender<()>),
}

/// The way to the data thread. The orders' queue is unbounded: there are few of them, and none carries data.
#[derive(Clone)]
pub struct DataHandle {
    orders: mpsc::UnboundedSender<Order>,
}

impl DataHandle {
    /// Gives an order. One to a thread that has ended is dropped: the process is about to end as well.
    pub fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }
    /// Gives the engine a fact.
    pub fn input(&self, input: Input) {
        self.order(Order::Input(input));
    }
    /// How the engine is.
    pub async fn status(&self) -> Option<EngineStatus> {
        let (answer, wait) = oneshot::channel();
        self.order(Order::Status(answer));
        wait.await.ok()
    }
    /// Opens a disk, on a thread that may wait for it, and gives it to the engine.
    pub async fn attach(&self, disk: DiskId, path: PathBuf, open: DiskOpen) -> anyhow::Result<()> {
        let open_it = move || OpenDisk::open(&path).with_context(|| format!("disk {}", path.display()));
        let file = tokio::task::spawn_blocking(open_it).await??;
        self.order(Order::Attach { disk, file, open });
        Ok(())
    }
    /// Closes a disk, and waits until others may open it.
    pub async fn detach(&self, disk: DiskId) {
        let (answer, wait) = oneshot::channel();
        self.order(Order::Detach { disk, answer });
        let _ = wait.await;
    }
    /// Writes back to the extents what is committed now.
    pub async fn checkpoint(&self) {
        let (answer, wait) = oneshot::channel();
        self.input(Input::Checkpoint);
        self.order(Order::WhenCheckpointed(answer));
        let _ = wait.await;
    }
}

/// What the data thread is started with. The listening sockets are bound by then, so that a mistake in an address
/// is found before anything runs.
pub struct DataOptions {
    /// The engine's configuration.
    pub engine: EngineConfig,
    /// This node's certificate.
    pub identity: Identity,
    /// Where peers connect for data.
    pub peer_address: SocketAddr,
    /// Counts whom the listeners do not let in.
    pub refusals: Refusals,
    /// Where initiators connect.
    pub front_ends: Vec<(FrontEndKind, std::net::TcpListener)>,
    /// How to reach the disks.
    pub backend: Backend,
    /// The longest to poll before sleeping; zero: never. At most [`POLL_MOST`].
    pub busy_poll: Duration,
}

/// Starts the data thread. The receiver of reports is bounded by what the engine has under way; events are few.
pub fn start(options: DataOptions) -> anyhow::Result<(DataHandle, mpsc::UnboundedReceiver<Report>)> {
    let (orders, receive_orders) = mpsc::unbounded_channel();
    let (reports, receive_reports) = mpsc::unbounded_channel();
    let (started, wait_started) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("data".into()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error.into()))),
        };
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            match DataThread::new(options, receive_orders, reports).await {
                Ok(thread) => {
                    let _ = started.send(Ok(()));
                    thread.run().await;
                }
                Err(error) => drop(started.send(Err(error))),
            }
        });
    })?;
    wait_started.recv()??;
    Ok((DataHandle { orders }, receive_reports))
}

struct DataThread {
    engine: Engine,
    disks: Disks,
    polling: Polling,
    slots: BTreeMap<DiskId, DiskSlot>,
    disk_of: BTreeMap<DiskSlot, DiskId>,
    inbox: Rc<Inbox>,
    listening: Listening,
    links: Links,
    orders: mpsc::UnboundedReceiver<Order>,
    reports: mpsc::UnboundedSender<Report>,
    checkpoints: Vec<oneshot::Sender<()>>,
    /// Disks that were let go of while something was under way on them, and who waits for its end.
    detaching: Vec<(DiskSlot, oneshot::Sender<()>)>,
}

impl DataThread {
    async fn new(
        options: DataOptions,
        orders: mpsc::UnboundedReceiver<Order>,
        reports: mpsc::UnboundedSender<Report>,
    ) -> anyhow::Result<Self> {
        let inbox = Rc::new(Inbox::default());
        let listener = Listener::bind(options.peer_address, &options.identity, &options.refusals).await?;
        let links = Links::new(options.identity, inbox.clone());
        links.serve(listener);
        let listening = Listening::start(options.front_ends, inbox.clone(), options.refusals)?;
        Ok(Self {
            engine: Engine::new(options.engine),
            disks: Disks::new(options.backend)?,
            polling: Polling::new(options.busy_poll),
            slots: BTreeMap::new(),
            disk_of: BTreeMap::new(),
            links,
            listening,
            inbox,
            orders,
            reports,
            checkpoints: Vec::new(),
            detaching: Vec::new(),
        })
    }

    /// Runs until the control thread lets go of its handle.
    async fn run(mut self) {
        let mut inputs = Vec::new();
        let mut outputs = Vec::new();
        let mut done = Vec::new();
        loop {
            self.inbox.take(&mut inputs);
            self.disks.poll(&mut done);
            for (slot, done) in done.drain(..) {
                if let Some(disk) = self.disk_of.get(&slot) {
                    inputs.push(Input::DiskDone { disk: *disk, done });
                }
            }
            for (_, answer) in self.detaching.extract_if(.., |(slot, _)| self.disks.is_free(*slot)) {
                let _ = answer.send(());
            }
            loop {
                match self.orders.try_recv() {
                    Ok(order) => self.order(order, &mut inputs),
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => return,
                }
            }
            let now = boot_time();
            if self.engine.next_timer().is_some_and(|at| at <= now) {
                inputs.push(Input::Timer);
            }
            if inputs.is_empty() && !self.inbox.take_woken() {
                self.wait(now).await;
                continue;
            }
            for input in inputs.drain(..) {
                self.engine.handle(now, input, &mut outputs);
            }
            self.engine.pump(now, &mut outputs);
            for output in outputs.drain(..) {
                self.carry_out(output);
            }
            // What goes to other nodes leaves first: it has the longer way to go. A copy that has only its journal to
            // write does that at once.
            if self.links.flush() {
                tokio::task::yield_now().await;
            }
            self.disks.kick();
            self.listening.end_of_burst(|connection| self.engine.wants_input(connection));
            if !self.checkpoints.is_empty() && self.engine.is_checkpointed() {
                for answer in self.checkpoints.drain(..) {
                    let _ = answer.send(());
                }
            }
            // Lets the tasks of sockets that are ready put what they have into the next burst.
            tokio::task::yield_now().await;
        }
    }

    async fn wait(&mut self, now: Time) {
        if !self.poll(now).await {
            self.sleep(now).await;
            self.polling.slept(boot_time().since(now));
        }
    }

    /// Looks for work without sleeping, for as long as that is likely to find some soon and nobody else has use for
    /// the core. True: there is something to do.
    async fn poll(&mut self, start: Time) -> bool {
        let until = start + self.polling.window();
        let until = self.engine.next_timer().map_or(until, |timer| timer.min(until));
        let mut now = start;
        while now < until {
            // Runs the tasks of sockets that are ready, and asks the kernel which are.
            tokio::task::yield_now().await;
            if !self.inbox.is_empty() || self.disks.has_done() || !self.orders.is_empty() {
                return true;
            }
            let before = boot_time();
            std::thread::yield_now();
            now = boot_time();
            if now.since(before) > CORE_TAKEN {
                return false;
            }
        }
        false
    }

    async fn sleep(&mut self, now: Time) {
        let timer = self.engine.next_timer().map(|at| std::time::Duration::from_nanos(at.since(now).0));
        let sleep = async {
            match timer {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        let order = tokio::select! {
            biased;
            () = self.inbox.filled() => None,
            () = self.disks.wait() => None,
            // None: the handle is gone, which the loop sees as well.
            order = self.orders.recv() => order,
            () = sleep => None,
        };
        if let Some(order) = order {
            let mut inputs = Vec::new();
            self.order(order, &mut inputs);
            inputs.into_iter().for_each(|input| self.inbox.put(input));
        }
    }

    fn order(&mut self, order: Order, inputs: &mut Vec<Input>) {
        match order {
            Order::Input(input) => {
                // What a client left behind while this node was taken for dead does not go on under the new number.
                if matches!(input, Input::GatewayRenewed(_)) {
                    inputs.extend(self.listening.take_hung_up().into_iter().map(Input::SessionClosed));
                }
                inputs.push(input);
            }
            Order::Detach { disk, answer } => {
                let slot = self.slots.get(&disk).copied();
                self.let_go(disk);
                match slot.filter(|slot| !self.disks.is_free(*slot)) {
                    Some(slot) => self.detaching.push((slot, answer)),
                    None => drop(answer.send(())),
                }
            }
            Order::Peers(peers) => self.links.set_peers(peers),
            Order::Status(answer) => drop(answer.send(self.engine.status())),
            Order::WhenCheckpointed(answer) => self.checkpoints.push(answer),
            Order::Attach { disk, file, open } => {
                self.let_go(disk);
                let (slot, size) = self.disks.add(file);
                self.slots.insert(disk, slot);
                self.disk_of.insert(slot, disk);
                inputs.push(Input::DiskAttached { disk, size, open });
            }
        }
    }

    fn let_go(&mut self, disk: DiskId) {
        if let Some(slot) = self.slots.remove(&disk) {
            self.disk_of.remove(&slot);
            self.disks.close(slot);
        }
    }

    fn carry_out(&mut self, output: Output) {
        let report = match output {
            Output::Disk { disk, order } => {
                if let Some(slot) = self.slots.get(&disk) {
                    self.disks.submit(*slot, order);
                }
                return;
            }
            Output::Send { to, lane, frame } => return self.links.send(to, lane, frame),
            Output::SessionSend { connection, bytes } => return self.listening.send(connection, bytes),
            Output::SessionClose { connection, reason } => return self.listening.close(connection, reason),
            Output::Propose { number, command } => Report::Propose { number, command },
            Output::RenewGateway => Report::RenewGateway,
            Output::RegisterSession { connection, registration } => {
                Report::RegisterSession { connection, registration }
            }
            Output::EndSession(registration) => Report::EndSession(registration),
            Output::SessionFenced { number, done } => Report::SessionFenced { number, done },
            Output::Freed { segment, disk } => Report::Freed { segment, disk },
            Output::DiskOpened { disk, report } => Report::DiskOpened { disk, report },
            Output::DiskRefused { disk, error } => {
                // An operator may add what is at that path now, as a new disk.
                self.let_go(disk);
                Report::DiskRefused { disk, error }
            }
            Output::Checked { number, report } => Report::Checked { number, report },
            Output::Event(event) => Report::Event(event),
        };
        // A control thread that has ended takes the process with it.
        let _ = self.reports.send(report);
    }
}
