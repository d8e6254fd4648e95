//! Real clients against a session: qemu-img, qemu-io, nbdinfo, nbdcopy and fio over a socket, with a volume in
//! memory behind it. A missing tool is a failure that names its package.

use bytes::Bytes;
use holdfast_nbd::{Session, SessionConfig};
use holdfast_types::{
    BlockReply, BlockRequest, BlockResult, Export, Exports, SessionId, SessionOutput, StatusRange, Time,
    VolumeId,
};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

const SIZE: usize = 32 << 20;
const BLOCK: usize = 4096;

/// A volume in memory: its bytes, and which blocks were written.
struct Memory {
    bytes: Vec<u8>,
    allocated: Vec<bool>,
}

impl Memory {
    fn carry_out(&mut self, request: BlockRequest) -> BlockResult {
        match request {
            BlockRequest::Read { offset, len } => {
                let range = offset as usize..offset as usize + len as usize;
                Ok(BlockReply::Data(vec![Bytes::copy_from_slice(&self.bytes[range])]))
            }
            BlockRequest::Write { offset, data } => {
                let data = data.concat();
                let start = offset as usize;
                self.bytes[start..start + data.len()].copy_from_slice(&data);
                self.allocated[start / BLOCK..(start + data.len()).div_ceil(BLOCK)].fill(true);
                Ok(BlockReply::Done)
            }
            BlockRequest::Zero { offset, len } => {
                let (start, end) = (offset as usize, (offset + len) as usize);
                self.bytes[start..end].fill(0);
                let (first, last) = (start.div_ceil(BLOCK), end / BLOCK);
                if first < last {
                    self.allocated[first..last].fill(false);
                }
                Ok(BlockReply::Done)
            }
            BlockRequest::Status { offset, len } => {
                let ends = (offset..offset + len).step_by(BLOCK).map(|at| StatusRange {
                    len: (BLOCK as u64).min(offset + len - at),
                    allocated: self.allocated[at as usize / BLOCK],
                });
                Ok(BlockReply::Status(ends.collect()))
            }
            BlockRequest::Flush => Ok(BlockReply::Done),
            BlockRequest::CompareAndWrite { .. } => Err(holdfast_types::BlockError::Invalid),
        }
    }
}

/// Serves one connection until it ends.
fn serve(mut stream: TcpStream, memory: &Mutex<Memory>, exports: &Exports) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut session = Session::new(Time(0), SessionId(1), SessionConfig::default());
    let mut out = Vec::new();
    session.start(&mut out);
    let mut buffer = vec![0; 256 << 10];
    loop {
        while !out.is_empty() {
            let mut next = Vec::new();
            for output in out.drain(..) {
                match output {
                    SessionOutput::Send(bytes) => stream.write_all(&bytes)?,
                    SessionOutput::Submit { tag, request, .. } => {
                        let result = memory.lock().unwrap().carry_out(request);
                        session.completed(Time(0), tag, result, exports, &mut next);
                    }
                    SessionOutput::LoggedIn(_) => {}
                    SessionOutput::Close(_) => return Ok(()),
                }
            }
            out = next;
        }
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        session.received(Time(0), Bytes::copy_from_slice(&buffer[..count]), exports, &mut out);
    }
}

/// A server with one volume, and its address.
fn server() -> (String, Arc<Mutex<Memory>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nbd://{}/demo", listener.local_addr().unwrap());
    let memory = Memory { bytes: vec![0; SIZE], allocated: vec![false; SIZE / BLOCK] };
    let memory = Arc::new(Mutex::new(memory));
    let mut exports = Exports::default();
    let export = Export { volume: VolumeId(7), size: SIZE as u64, unique_id: 7 };
    exports.volumes.insert("demo".into(), export);
    let shared = memory.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (memory, exports) = (shared.clone(), exports.clone());
            std::thread::spawn(move || serve(stream, &memory, &exports));
        }
    });
    (url, memory)
}

/// Runs a client and gives what it printed; `package` is where it comes from.
fn run(package: &str, program: &str, arguments: &[&str]) -> String {
    let output = Command::new("timeout")
        .args(["60", program])
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("timeout cannot be run: {e}; install the package coreutils"));
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_ne!(output.status.code(), Some(127), "{program} is missing; install the package {package}");
    assert!(output.status.success(), "{program} {arguments:?} failed: {text}");
    text
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is plain")
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 88172645463325252u64;
    let words = (0..len / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}

#[test]
fn qemu_img_converts_in_and_out() {
    let (url, memory) = server();
    let folder = tempfile::tempdir().unwrap();
    let (source, back) = (folder.path().join("in"), folder.path().join("out"));
    let mut content = noise(SIZE);
    content[4 << 20..12 << 20].fill(0);
    std::fs::write(&source, &content).unwrap();
    run("qemu-utils", "qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", text(&source), &url]);
    assert!(memory.lock().unwrap().bytes == content);
    run("qemu-utils", "qemu-img", &["convert", "-f", "raw", "-O", "raw", &url, text(&back)]);
    assert!(std::fs::read(&back).unwrap() == content);
    assert!(
        run("qemu-utils", "qemu-img", &["compare", "-f", "raw", "-F", "raw", &url, text(&source)])
            .contains("identical")
    );
}

#[test]
fn qemu_io_patterns_are_read_back_and_discards_show_in_the_map() {
    let (url, _) = server();
    let script = [
        "-c",
        "write -P 0xab 1M 256k",
        "-c",
        "write -f -P 0xcd 512 512",
        "-c",
        "aio_write -P 0x11 8M 4k",
        "-c",
        "aio_flush",
        "-c",
        "read -P 0xab 1M 256k",
        "-c",
        "read -P 0xcd 512 512",
        "-c",
        "read -P 0x11 8M 4k",
        "-c",
        "write -z 1M 64k",
        "-c",
        "discard 1088k 64k",
        "-c",
        "read -P 0 1M 128k",
        "-c",
        "read -P 0xab 1152k 128k",
        "-c",
        "flush",
    ];
    let printed = run("qemu-utils", "qemu-io", &[&["-f", "raw", url.as_str()], &script[..]].concat());
    assert!(!printed.contains("verification failed"), "{printed}");
    let map = run("qemu-utils", "qemu-img", &["map", "--output=json", "-f", "raw", &url]);
    assert!(map.contains("\"start\": 1179648, \"length\": 131072"), "{map}");
}

#[test]
fn nbdinfo_sees_what_is_offered() {
    let (url, _) = server();
    let json = run("libnbd-bin", "nbdinfo", &["--json", &url]);
    for want in [
        "\"protocol\": \"newstyle-fixed\"",
        "\"structured\": true",
        "\"base:allocation\"",
        "\"export-size\": 33554432",
        "\"can_fua\": true",
        "\"can_flush\": true",
        "\"can_trim\": true",
        "\"can_zero\": true",
        "\"can_multi_conn\": true",
        "\"can_df\": true",
        "\"block_size_minimum\": 512",
        "\"block_size_preferred\": 4096",
        "\"block_size_maximum\": 33554432",
        "\"is_read_only\": false",
    ] {
        assert!(json.contains(want), "{want} is not in {json}");
    }
    let (server, _) = url.rsplit_once('/').expect("a URL has a slash");
    assert!(run("libnbd-bin", "nbdinfo", &["--list", server]).contains("demo"));
    assert!(run("libnbd-bin", "nbdinfo", &["--map", &url]).contains("hole,zero"));
}

#[test]
fn nbdcopy_over_several_connections_copies_in_and_out() {
    let (url, memory) = server();
    let folder = tempfile::tempdir().unwrap();
    let (source, back) = (folder.path().join("in"), folder.path().join("out"));
    let mut content = noise(SIZE);
    content[16 << 20..20 << 20].fill(0);
    std::fs::write(&source, &content).unwrap();
    run("libnbd-bin", "nbdcopy", &["--connections=4", "--flush", text(&source), &url]);
    assert!(memory.lock().unwrap().bytes == content);
    run("libnbd-bin", "nbdcopy", &["--connections=4", &url, text(&back)]);
    assert!(std::fs::read(&back).unwrap() == content);
}

#[test]
fn fio_verifies_what_it_wrote() {
    let (url, _) = server();
    let uri = format!("--uri={url}");
    let arguments = [
        "--name=verify",
        "--ioengine=nbd",
        &uri,
        "--rw=randwrite",
        "--bsrange=512-64k",
        "--blockalign=512",
        "--iodepth=16",
        "--size=16m",
        "--verify=crc32c",
        "--fsync=32",
        "--verify_fatal=1",
    ];
    let printed = run("fio", "fio", &arguments);
    assert!(printed.contains("err= 0"), "{printed}");
}
