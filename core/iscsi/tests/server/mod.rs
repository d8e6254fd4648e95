//! A target for real initiators: this crate's sessions over std sockets, one thread a connection, and volumes
//! in memory behind them. Only what a test needs; nothing of it is in the product.

use bytes::Bytes;
use holdfast_iscsi::{Session, SessionConfig};
use holdfast_types::{
    BLOCK_BYTES, BlockError, BlockReply, BlockRequest, BlockResult, ChapSecret, Export, Exports, SessionId,
    SessionOutput, StatusRange, Time, VolumeId,
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, atomic::AtomicU64, atomic::Ordering},
    time::Instant,
};

/// A volume in memory.
pub struct Memory {
    bytes: Vec<u8>,
    allocated: Vec<bool>,
}

impl Memory {
    fn new(size: usize) -> Self {
        Self { bytes: vec![0; size], allocated: vec![false; size / BLOCK_BYTES] }
    }
    fn range(&self, offset: u64, len: u64) -> Result<std::ops::Range<usize>, BlockError> {
        let end = offset.checked_add(len).filter(|end| *end <= self.bytes.len() as u64);
        Ok(offset as usize..end.ok_or(BlockError::OutOfRange)? as usize)
    }
    fn put(&mut self, offset: u64, data: &[u8]) -> Result<(), BlockError> {
        let range = self.range(offset, data.len() as u64)?;
        self.allocated[range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES)].fill(true);
        self.bytes[range].copy_from_slice(data);
        Ok(())
    }
    /// Carries a request out.
    pub fn carry_out(&mut self, request: BlockRequest) -> BlockResult {
        match request {
            BlockRequest::Read { offset, len } => {
                let range = self.range(offset, u64::from(len))?;
                // In uneven pieces, as a volume over several segments answers.
                let data = Bytes::copy_from_slice(&self.bytes[range]);
                let cut = data.len() / 3;
                Ok(BlockReply::Data(vec![data.slice(..cut), data.slice(cut..)]))
            }
            BlockRequest::Write { offset, data } => {
                self.put(offset, &data.concat())?;
                Ok(BlockReply::Done)
            }
            BlockRequest::Zero { offset, len } => {
                let range = self.range(offset, len)?;
                self.bytes[range.clone()].fill(0);
                let whole = range.start.div_ceil(BLOCK_BYTES)..range.end / BLOCK_BYTES;
                if whole.start < whole.end {
                    self.allocated[whole].fill(false);
                }
                Ok(BlockReply::Done)
            }
            BlockRequest::CompareAndWrite { offset, compare, data } => {
                let range = self.range(offset, compare.len() as u64)?;
                if let Some(at) = self.bytes[range].iter().zip(&compare).position(|(a, b)| a != b) {
                    return Err(BlockError::Miscompare { at: at as u32 });
                }
                self.put(offset, &data)?;
                Ok(BlockReply::Done)
            }
            BlockRequest::Flush => Ok(BlockReply::Done),
            BlockRequest::Status { offset, len } => {
                let range = self.range(offset, len)?;
                let mut runs: Vec<StatusRange> = Vec::new();
                for at in range.step_by(512) {
                    let allocated = self.allocated[at / BLOCK_BYTES];
                    match runs.last_mut() {
                        Some(run) if run.allocated == allocated => run.len += 512,
                        _ => runs.push(StatusRange { len: 512, allocated }),
                    }
                }
                Ok(BlockReply::Status(runs))
            }
        }
    }
}

/// A target on a free loopback port, with a volume `demo`.
pub struct Server {
    pub address: SocketAddr,
}

impl Server {
    /// Starts it. It ends with the test's process.
    pub fn start(size: u64, chap: Option<ChapSecret>) -> Server {
        let mut exports = Exports { chap, ..Exports::default() };
        let export = Export { volume: VolumeId(1), size, unique_id: 0x1234_5678_9abc_def0 };
        exports.volumes.insert("demo".into(), export);
        let exports = Arc::new(exports);
        let memory = Arc::new(Mutex::new(Memory::new(size as usize)));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let sessions = AtomicU64::new(0);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (exports, memory) = (exports.clone(), memory.clone());
                let id = sessions.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || serve(socket, id, &exports, &memory, address));
            }
        });
        Server { address }
    }
    /// The URL of `demo`.
    pub fn url(&self) -> String {
        format!("iscsi://{}/iqn.2026-11.io.holdfast:demo/0", self.address)
    }
}

fn serve(mut socket: TcpStream, id: u64, exports: &Exports, memory: &Mutex<Memory>, address: SocketAddr) {
    let start = Instant::now();
    let now = || Time(start.elapsed().as_nanos() as u64);
    let _ = socket.set_nodelay(true);
    let config =
        SessionConfig { portal: address.to_string(), needs_chap: false, entropy: [id as u8 + 1; 32] };
    let mut session = Session::new(now(), SessionId(id), config);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let len = match socket.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(len) => len,
        };
        let mut out = Vec::new();
        session.received(now(), Bytes::copy_from_slice(&buffer[..len]), exports, &mut out);
        let mut bytes = Vec::new();
        let mut closing = false;
        while !out.is_empty() {
            for output in std::mem::take(&mut out) {
                match output {
                    SessionOutput::Send(piece) => bytes.extend_from_slice(&piece),
                    SessionOutput::Submit { tag, request, .. } => {
                        let result = memory.lock().expect("no panic holds it").carry_out(request);
                        session.completed(now(), tag, result, exports, &mut out);
                    }
                    SessionOutput::LoggedIn(_) => {}
                    SessionOutput::Close(_) => closing = true,
                }
            }
        }
        if socket.write_all(&bytes).is_err() || closing {
            return;
        }
    }
}
