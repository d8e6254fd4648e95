//! The rows of the benchmark, and who makes their load.

use crate::Scale;
use holdfast_tests::libiscsi::{Load, Session};
use holdfast_tests::run;
use serde_json::Value;
use std::time::Duration;

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// As the table shows it.
    pub name: &'static str,
    /// Write, or read.
    pub write: bool,
    /// At random places, or one after the other.
    pub random: bool,
    /// KiB of each request.
    pub kib: u32,
    /// Requests in flight.
    pub depth: usize,
}

impl Row {
    /// Every row, in the order of the table.
    pub const ALL: [Row; 6] = [
        Row { name: "4 KiB random write, depth 1", write: true, random: true, kib: 4, depth: 1 },
        Row { name: "4 KiB random write, depth 32", write: true, random: true, kib: 4, depth: 32 },
        Row { name: "4 KiB random read, depth 1", write: false, random: true, kib: 4, depth: 1 },
        Row { name: "4 KiB random read, depth 32", write: false, random: true, kib: 4, depth: 32 },
        Row { name: "128 KiB sequential write, depth 8", write: true, random: false, kib: 128, depth: 8 },
        Row { name: "128 KiB sequential read, depth 8", write: false, random: false, kib: 128, depth: 8 },
    ];

    fn pattern(&self) -> &'static str {
        match (self.random, self.write) {
            (true, true) => "--rw=randwrite",
            (true, false) => "--rw=randread",
            (false, true) => "--rw=write",
            (false, false) => "--rw=read",
        }
    }
}

/// What a row came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// Requests a second.
    pub iops: f64,
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// Half of the requests took at most so long, in microseconds.
    pub p50_us: f64,
    /// Ninety-nine of a hundred.
    pub p99_us: f64,
    /// Requests in all.
    pub count: u64,
    /// Processor seconds of all daemons for each request.
    pub cpu_per_io: f64,
}

/// Writes the span once over NBD.
pub fn fill(uri: &str, scale: Scale) -> Result<(), String> {
    let size = format!("--size={}M", scale.span_mib);
    run("fio", &["--name=fill", "--ioengine=nbd", uri, "--rw=write", "--bs=1M", "--iodepth=4", &size])
        .map(drop)
}

/// Writes the raw file once.
pub fn fill_raw(file: &str, scale: Scale) -> Result<(), String> {
    let size = format!("--size={}M", scale.span_mib);
    let job =
        ["--name=fill", "--ioengine=io_uring", file, "--rw=write", "--bs=1M", "--iodepth=4", "--direct=1"];
    run("fio", &[&job[..], &[&size, "--end_fsync=1"]].concat()).map(drop)
}

/// A row on the raw file.
pub fn raw(file: &str, row: Row, scale: Scale) -> Result<Measured, String> {
    let flushed: &[&str] = if row.write && row.depth == 1 { &["--fdatasync=1"] } else { &[] };
    fio(row, scale, &[&["--ioengine=io_uring", "--direct=1", file], flushed].concat())
}

/// A row over NBD.
pub fn nbd(url: &str, row: Row, scale: Scale) -> Result<Measured, String> {
    fio(row, scale, &["--ioengine=nbd", &format!("--uri={url}")])
}

fn fio(row: Row, scale: Scale, more: &[&str]) -> Result<Measured, String> {
    let (size, block) = (format!("--size={}M", scale.span_mib), format!("--bs={}k", row.kib));
    let (depth, time) = (format!("--iodepth={}", row.depth), format!("--runtime={}", scale.seconds));
    let job =
        ["--name=row", row.pattern(), &block, &depth, &size, &time, "--time_based", "--output-format=json"];
    let text = run("fio", &[&job[..], more].concat())?;
    // fio may print notes before its JSON.
    let json = text.find('{').map_or("", |at| &text[at..]);
    let value: Value = serde_json::from_str(json).map_err(|e| format!("fio printed no JSON: {e}"))?;
    let side = &value["jobs"][0][if row.write { "write" } else { "read" }];
    let number = |v: &Value| v.as_f64().unwrap_or(0.0);
    // A flushed write of the raw file takes its write and its flush.
    let mut measured = Measured {
        iops: number(&side["iops"]),
        bytes_per_second: number(&side["bw_bytes"]),
        p50_us: number(&side["clat_ns"]["percentile"]["50.000000"]) / 1e3,
        p99_us: number(&side["clat_ns"]["percentile"]["99.000000"]) / 1e3,
        count: number(&side["total_ios"]) as u64,
        cpu_per_io: 0.0,
    };
    let flush = &value["jobs"][0]["sync"]["lat_ns"]["percentile"];
    if more.contains(&"--fdatasync=1") {
        measured.p50_us += number(&flush["50.000000"]) / 1e3;
        measured.p99_us += number(&flush["99.000000"]) / 1e3;
    }
    Ok(measured)
}

/// A row over iSCSI.
pub fn iscsi(session: &mut Session, row: Row, scale: Scale) -> Result<Measured, String> {
    let load = Load {
        write: row.write,
        random: row.random,
        bytes: row.kib << 10,
        depth: row.depth,
        span: scale.span_mib << 20,
        time: Duration::from_secs(scale.seconds),
    };
    let mut times = session.run(load)?;
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).map_or(0.0, |t| t.as_secs_f64() * 1e6);
    let iops = times.len() as f64 / load.time.as_secs_f64();
    Ok(Measured {
        iops,
        bytes_per_second: iops * f64::from(load.bytes),
        p50_us: at(50),
        p99_us: at(99),
        count: times.len() as u64,
        cpu_per_io: 0.0,
    })
}
