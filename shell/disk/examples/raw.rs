//! What a disk gives by itself: the limit beside which every figure of the store is printed.
//!
//! ```text
//! cargo run --release -p holdfast-disk --example raw -- FILE [SECONDS]
//! ```
//!
//! FILE is made with 256 MiB when it is missing. Measures 4 KiB random durable writes and reads at depth 1 and
//! 32 through io_uring and through threads, and writes that are linked to fdatasync instead of carrying
//! RWF_DSYNC (why the crate uses the flag: see uring.rs).

use bytes::Bytes;
use holdfast_disk::{Backend, DiskError, DiskSlot, Disks, create_file, prewrite};
use holdfast_types::{DiskOrder, DiskOrderKind, DiskToken};
use io_uring::{IoUring, opcode, squeue::Flags, types};
use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    collections::BTreeMap,
    error::Error,
    fs::OpenOptions,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::Path,
    time::{Duration, Instant},
};

const BLOCK: u64 = 4096;
const FILE_BYTES: u64 = 256 << 20;

/// What is measured.
#[derive(Clone, Copy, Debug)]
enum Kind {
    DurableWrite,
    Read,
}

/// A row of the table.
struct Figure {
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

/// Random block numbers, the same in each run.
struct Blocks(u64);

impl Blocks {
    fn next(&mut self, count: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % count
    }
}

fn figure(mut latencies: Vec<Duration>, elapsed: Duration) -> Figure {
    latencies.sort();
    let at = |part: usize| latencies.get(latencies.len() * part / 100).copied().unwrap_or_default();
    Figure { per_second: latencies.len() as f64 / elapsed.as_secs_f64(), p50: at(50), p99: at(99) }
}

async fn measure(
    path: &Path,
    backend: Backend,
    kind: Kind,
    depth: u64,
    time: Duration,
) -> Result<Figure, DiskError> {
    let mut disks = Disks::new(backend)?;
    let (slot, size) = disks.open(path)?;
    let data = Bytes::from(vec![0x5a; BLOCK as usize]);
    let mut blocks = Blocks(0x9e37_79b9_7f4a_7c15);
    let mut order = |token: u64| {
        let offset = blocks.next(size / BLOCK) * BLOCK;
        let kind = match kind {
            Kind::DurableWrite => DiskOrderKind::Write { offset, data: vec![data.clone()], durable: true },
            Kind::Read => DiskOrderKind::Read { offset, len: BLOCK as usize },
        };
        DiskOrder { token: DiskToken(token), kind }
    };
    let start = Instant::now();
    let mut sent: BTreeMap<u64, Instant> = BTreeMap::new();
    let mut latencies = Vec::new();
    let mut done: Vec<(DiskSlot, _)> = Vec::new();
    let mut token = 0;
    loop {
        while (sent.len() as u64) < depth && start.elapsed() < time {
            token += 1;
            sent.insert(token, Instant::now());
            disks.submit(slot, order(token));
        }
        disks.kick();
        if sent.is_empty() {
            return Ok(figure(latencies, start.elapsed()));
        }
        disks.wait().await;
        disks.poll(&mut done);
        for (_, done) in done.drain(..) {
            assert!(done.result.is_ok(), "the disk answers {:?}", done.result);
            latencies.extend(sent.remove(&done.token.0).map(|at| at.elapsed()));
        }
    }
}

/// The other way to a durable write: without a flag, linked to fdatasync. One ring, blocking waits.
fn measure_linked(path: &Path, depth: u64, time: Duration) -> Result<Figure, Box<dyn Error>> {
    let file = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path)?;
    let mut ring = IoUring::new(256)?;
    let layout = Layout::from_size_align(BLOCK as usize, BLOCK as usize)?;
    // SAFETY: the layout has a positive size; the memory is freed below, after the last completion.
    let memory = unsafe { alloc_zeroed(layout) };
    assert!(!memory.is_null(), "a block of memory is there");
    let fd = types::Fd(file.as_raw_fd());
    let mut blocks = Blocks(0x9e37_79b9_7f4a_7c15);
    let start = Instant::now();
    let mut sent: BTreeMap<u64, Instant> = BTreeMap::new();
    let mut latencies = Vec::new();
    let mut token = 0;
    loop {
        while (sent.len() as u64) < depth && start.elapsed() < time {
            token += 1;
            sent.insert(token, Instant::now());
            let offset = blocks.next(FILE_BYTES / BLOCK) * BLOCK;
            let write = opcode::Write::new(fd, memory, BLOCK as u32).offset(offset).build();
            let sync = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
            let pair = [write.flags(Flags::IO_LINK).user_data(0), sync.user_data(token)];
            // SAFETY: the memory outlives every request, and the kernel only reads it.
            unsafe { ring.submission().push_multiple(&pair)? };
        }
        if sent.is_empty() {
            break;
        }
        ring.submit_and_wait(1)?;
        for done in ring.completion() {
            assert!(done.result() >= 0, "the disk answers {}", done.result());
            latencies.extend(sent.remove(&done.user_data()).map(|at| at.elapsed()));
        }
    }
    // SAFETY: allocated above with this layout; nothing is under way.
    unsafe { dealloc(memory, layout) };
    Ok(figure(latencies, start.elapsed()))
}

fn print(what: &str, depth: u64, figure: &Figure) {
    let Figure { per_second, p50, p99 } = figure;
    println!(
        "{what:34} depth {depth:2} {per_second:9.0}/s  p50 {:6} us  p99 {:6} us",
        p50.as_micros(),
        p99.as_micros()
    );
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: raw FILE [SECONDS]")?;
    let time = Duration::from_secs(arguments.next().map_or(Ok(3), |s| s.parse())?);
    let path = Path::new(&path);
    if !path.exists() {
        create_file(path, FILE_BYTES, &mut |_| {})?;
        prewrite(path, std::slice::from_ref(&(0..FILE_BYTES)), &mut |_| {})?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for depth in [1, 32] {
        for backend in [Backend::Uring, Backend::Threads] {
            for kind in [Kind::DurableWrite, Kind::Read] {
                let figure = runtime.block_on(measure(path, backend, kind, depth, time))?;
                print(&format!("{backend:?} {kind:?}"), depth, &figure);
            }
        }
        print("Uring write linked to fdatasync", depth, &measure_linked(path, depth, time)?);
    }
    Ok(())
}
