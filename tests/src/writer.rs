//! A verifying writer: several connections that write stamped blocks one after the other, read some of them back
//! at once, and remember every acknowledgement. At the end each block must hold its last acknowledged write, or
//! the one write that was still unanswered.
//!
//! Each block belongs to one connection, so a block that reads as anything older than its last acknowledged
//! write is a lost or a stale one.

use crate::cluster::{Cluster, VOLUME};
use crate::initiator::{Initiator, Protocol};
use crate::nbd::{Client, is_refusal};
use crate::pattern::{BLOCK, content, next, version_of};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections of one writer.
const WORKERS: u64 = 4;
/// Blocks that each connection writes to, over and over.
const BLOCKS_PER_WORKER: u64 = 1024;
/// One of so many requests is a read of an own block.
const READ_EVERY: u64 = 4;
/// One of so many writes of runs is of a single block.
const SINGLE_EVERY: u64 = 8;
/// How long one request may wait: quorum may be away, and no limit of the product ends it.
const PATIENCE: Duration = Duration::from_secs(120);
/// How soon a connection is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// Where and how to write.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Addresses of gateways. A connection that breaks is made again to the next one.
    pub addresses: Vec<String>,
    /// Whether a broken connection is made again. If not, it is an error that the initiator saw.
    pub reconnect: bool,
    /// The first block.
    pub first: u64,
    /// The distance between a worker's blocks: 1 packs them, more spreads them over the volume.
    pub stride: u64,
    /// Blocks of a write. With more than one, each worker writes through blocks that lie together, from their front again
    /// and again, and now and then a single one of them.
    pub run: u64,
    /// How it speaks to the gateways.
    pub protocol: Protocol,
}

impl Plan {
    /// Through one node; a broken connection is an error.
    pub fn through(cluster: &Cluster, node: usize) -> Plan {
        Plan {
            addresses: vec![cluster.address(node).to_owned()],
            reconnect: false,
            first: 0,
            stride: 1,
            run: 1,
            protocol: Protocol::Nbd,
        }
    }

    /// Through the nodes in that order, the next one whenever a connection breaks.
    pub fn through_any(cluster: &Cluster, nodes: &[usize]) -> Plan {
        let addresses = nodes.iter().map(|n| cluster.address(*n).to_owned()).collect();
        Plan { addresses, reconnect: true, first: 0, stride: 1, run: 1, protocol: Protocol::Nbd }
    }
}

/// What a block may hold.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    acknowledged: u64,
    sent: u64,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    done: AtomicU64,
    waits: Mutex<Vec<(Instant, Duration)>>,
    errors: Mutex<Vec<String>>,
}

/// A writer at work.
pub struct Writer {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<BTreeMap<u64, Known>>>,
    start: Instant,
}

/// What a writer saw.
pub struct Report {
    blocks: BTreeMap<u64, Known>,
    waits: Vec<(Instant, Duration)>,
    start: Instant,
    /// Errors that the initiator saw.
    pub errors: Vec<String>,
}

impl Writer {
    /// Starts to write.
    pub fn start(plan: Plan) -> Writer {
        let shared = Arc::new(Shared::default());
        let spawn = |w| {
            let (plan, shared) = (plan.clone(), shared.clone());
            std::thread::spawn(move || Worker::new(w, plan, shared).run())
        };
        Writer { workers: (0..WORKERS).map(spawn).collect(), shared, start: Instant::now() }
    }

    /// One through each of three nodes, with blocks of its own; one of them speaks iSCSI.
    pub fn through_each(cluster: &Cluster) -> [(usize, Writer); 3] {
        [1, 2, 3].map(|through| {
            let mut plan = Plan::through(cluster, through);
            plan.first = (through as u64) << 15;
            plan.protocol = if through == 2 { Protocol::Iscsi } else { Protocol::Nbd };
            (through, Writer::start(plan))
        })
    }

    /// Requests that were answered so far.
    pub fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// Waits until so many more requests were answered.
    pub fn wait_more(&self, count: u64, limit: Duration) {
        let goal = self.done() + count;
        crate::until(&format!("{count} more answers to the writer"), limit, || {
            let errors = self.shared.errors.lock().expect("no worker panicked");
            assert!(errors.is_empty(), "the writer saw errors: {errors:?}");
            self.done() >= goal
        });
    }

    /// Stops after the requests that are under way, and waits for their answers.
    pub fn stop(self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        let blocks =
            self.workers.into_iter().flat_map(|w| w.join().expect("a worker does not panic")).collect();
        let waits = std::mem::take(&mut *self.shared.waits.lock().expect("no worker panicked"));
        let errors = std::mem::take(&mut *self.shared.errors.lock().expect("no worker panicked"));
        Report { blocks, waits, start: self.start, errors }
    }
}

struct Worker {
    plan: Plan,
    shared: Arc<Shared>,
    number: u64,
    random: u64,
    /// Where the next run begins.
    at: u64,
    turn: usize,
    client: Option<Initiator>,
    blocks: BTreeMap<u64, Known>,
}

impl Worker {
    fn new(number: u64, plan: Plan, shared: Arc<Shared>) -> Worker {
        Worker {
            plan,
            shared,
            number,
            random: number * 7919 + 1,
            at: 0,
            turn: 0,
            client: None,
            blocks: BTreeMap::new(),
        }
    }

    fn run(mut self) -> BTreeMap<u64, Known> {
        let mut count = 0u64;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let block = self.any_block();
            count += 1;
            let start = Instant::now();
            let worked = if count.is_multiple_of(READ_EVERY) {
                self.read(block)
            } else if self.plan.run == 1 || self.random.is_multiple_of(SINGLE_EVERY) {
                self.write(block, 1)
            } else {
                self.write_on()
            };
            if let Err(error) = worked {
                // After a stop is asked for, an unanswered write is allowed to stay unanswered.
                if !self.shared.stop.load(Ordering::Relaxed) {
                    self.shared
                        .errors
                        .lock()
                        .expect("no worker panicked")
                        .push(format!("block {block}: {error}"));
                }
                break;
            }
            self.shared.done.fetch_add(1, Ordering::Relaxed);
            self.shared.waits.lock().expect("no worker panicked").push((start, start.elapsed()));
        }
        self.blocks
    }

    /// One of the worker's blocks.
    fn any_block(&mut self) -> u64 {
        self.random = next(self.random);
        let slot = self.random / SINGLE_EVERY % BLOCKS_PER_WORKER;
        self.plan.first
            + match self.plan.run {
                1 => (slot * WORKERS + self.number) * self.plan.stride,
                _ => self.number * BLOCKS_PER_WORKER + slot,
            }
    }

    /// Writes the next run.
    fn write_on(&mut self) -> Result<(), String> {
        let first = self.plan.first + self.number * BLOCKS_PER_WORKER + self.at;
        self.at = (self.at + self.plan.run) % BLOCKS_PER_WORKER;
        self.write(first, self.plan.run)
    }

    fn write(&mut self, first: u64, count: u64) -> Result<(), String> {
        let mut data = Vec::with_capacity(count as usize * BLOCK);
        for block in first..first + count {
            let known = self.blocks.entry(block).or_default();
            known.sent += 1;
            data.extend(content(block, known.sent));
        }
        self.repeat(|client| client.write(first * BLOCK as u64, &data))?;
        for known in self.blocks.range_mut(first..first + count) {
            known.1.acknowledged = known.1.sent;
        }
        Ok(())
    }

    fn read(&mut self, block: u64) -> Result<(), String> {
        let bytes = self.repeat(|client| client.read(block * BLOCK as u64, BLOCK))?;
        judge(block, self.blocks.get(&block).copied().unwrap_or_default(), &bytes)
    }

    /// Carries out a request, on a new connection as often as the old one breaks, as an initiator does.
    fn repeat<T>(
        &mut self,
        mut request: impl FnMut(&mut Initiator) -> std::io::Result<T>,
    ) -> Result<T, String> {
        let start = Instant::now();
        loop {
            let tried = match self.client.take() {
                Some(client) => Ok(client),
                None => {
                    let address = &self.plan.addresses[self.turn % self.plan.addresses.len()];
                    Initiator::connect(self.plan.protocol, address, PATIENCE)
                }
            };
            let error = match tried.and_then(|mut client| request(&mut client).map(|answer| (client, answer)))
            {
                Ok((client, answer)) => {
                    self.client = Some(client);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let over = start.elapsed() > PATIENCE || self.shared.stop.load(Ordering::Relaxed);
            if is_refusal(&error) || !self.plan.reconnect || over {
                return Err(error.to_string());
            }
            self.turn += 1;
            std::thread::sleep(RETRY);
        }
    }
}

fn judge(block: u64, known: Known, bytes: &[u8]) -> Result<(), String> {
    let version = version_of(block, bytes)?;
    if (known.acknowledged..=known.sent).contains(&version) {
        return Ok(());
    }
    Err(format!("block {block} holds write {version}, but {} was acknowledged", known.acknowledged))
}

impl Report {
    /// Requests that were answered.
    pub fn answered(&self) -> usize {
        self.waits.len()
    }

    /// The longest that a request waited.
    pub fn longest_wait(&self) -> Duration {
        self.longest_wait_since(self.start)
    }

    /// The longest wait of a request that was answered after `moment`.
    pub fn longest_wait_since(&self, moment: Instant) -> Duration {
        let later = self.waits.iter().filter(|(start, wait)| *start + *wait >= moment);
        later.map(|(_, wait)| *wait).max().unwrap_or_default()
    }

    /// The longest wait of a request that was made between these moments.
    pub fn longest_wait_between(&self, from: Instant, to: Instant) -> Duration {
        let then = self.waits.iter().filter(|(start, _)| (from..to).contains(start));
        then.map(|(_, wait)| *wait).max().unwrap_or_default()
    }

    /// The ten longest waits of requests that were answered after `moment`, each with when it began after that.
    pub fn longest_waits(&self, moment: Instant) -> Vec<(Duration, Duration)> {
        let later = self.waits.iter().filter(|(start, wait)| *start + *wait >= moment);
        let mut waits: Vec<_> =
            later.map(|(start, wait)| (start.saturating_duration_since(moment), *wait)).collect();
        waits.sort_unstable_by_key(|(_, wait)| std::cmp::Reverse(*wait));
        waits.truncate(10);
        waits
    }

    /// Answers per second outside of the longest wait.
    pub fn rate_otherwise(&self) -> f64 {
        let end = self.waits.iter().map(|(start, wait)| *start + *wait).max().unwrap_or(self.start);
        let time = end.duration_since(self.start).saturating_sub(self.longest_wait());
        self.answered() as f64 / time.as_secs_f64().max(0.001)
    }

    /// Reads every block that was written through a node, and compares it with what was acknowledged.
    pub fn verify(&self, address: &str) {
        let mut client = Client::connect(address, VOLUME, PATIENCE).expect("the export can be opened");
        for (block, known) in &self.blocks {
            let bytes =
                client.read(block * BLOCK as u64, BLOCK).unwrap_or_else(|e| panic!("block {block}: {e}"));
            judge(*block, *known, &bytes).unwrap_or_else(|wrong| panic!("{wrong}"));
        }
    }

    /// No initiator saw an error; what was acknowledged is there, through every node given.
    pub fn assert_kept(&self, cluster: &Cluster, nodes: &[usize]) {
        assert!(self.errors.is_empty(), "an initiator saw errors: {:?}", self.errors);
        assert!(self.answered() > 0, "nothing was written");
        nodes.iter().for_each(|n| self.verify(cluster.address(*n)));
    }
}
