//! Who makes the load of a row: fio on the raw file and over NBD, libiscsi over iSCSI.
//!
//! Raw writes at depth 1 are flushed one by one. At greater depth they are not flushed, which is the most that the
//! disk gives; what it gives with a flush after each write of as many writers is measured beside it.

use crate::command::{json, run};
use crate::error::BenchError;
use crate::row::{Measured, Row, Scale};
use holdfast_tests::libiscsi::{Load, Session};
use serde_json::Value;
use std::time::Duration;

/// Writes the span once, to the raw file.
pub fn fill_raw(file: &str, scale: Scale) -> Result<(), BenchError> {
    fill(&["--ioengine=io_uring", "--direct=1", "--end_fsync=1", &format!("--filename={file}")], scale)
}

/// Writes the span once over NBD.
pub fn fill_nbd(url: &str, scale: Scale) -> Result<(), BenchError> {
    fill(&["--ioengine=nbd", &format!("--uri={url}")], scale)
}

fn fill(more: &[&str], scale: Scale) -> Result<(), BenchError> {
    let size = format!("--size={}M", scale.span_mib);
    run("fio", &[&["--name=fill", "--rw=write", "--bs=1M", "--iodepth=4", &size], more].concat()).map(drop)
}

/// A round on the raw file.
pub fn raw(file: &str, row: Row, scale: Scale) -> Result<Measured, BenchError> {
    let file = format!("--filename={file}");
    let depth = format!("--iodepth={}", row.depth);
    let engine: &[&str] = match row.write && row.depth == 1 {
        true => &["--ioengine=psync", "--fdatasync=1", &file],
        false => &["--ioengine=io_uring", &depth, &file],
    };
    fio(row, scale.raw_seconds, scale, &[&["--direct=1"], engine].concat())
}

/// A round on the raw file by as many writers as the row is deep, each of which flushes after each write.
pub fn raw_flushed(file: &str, row: Row, scale: Scale) -> Result<Measured, BenchError> {
    let (file, jobs) = (format!("--filename={file}"), format!("--numjobs={}", row.depth));
    let more = ["--direct=1", "--ioengine=psync", "--fdatasync=1", "--group_reporting", &jobs, &file];
    fio(row, scale.raw_seconds, scale, &more)
}

/// A row over NBD.
pub fn nbd(url: &str, row: Row, scale: Scale) -> Result<Measured, BenchError> {
    let (uri, depth) = (format!("--uri={url}"), format!("--iodepth={}", row.depth));
    fio(row, scale.seconds, scale, &["--ioengine=nbd", &uri, &depth])
}

fn fio(row: Row, seconds: u64, scale: Scale, more: &[&str]) -> Result<Measured, BenchError> {
    let (size, block) = (format!("--size={}M", scale.span_mib), format!("--bs={}k", row.kib));
    let time = format!("--runtime={seconds}");
    let job = ["--name=row", row.pattern(), &block, &size, &time, "--time_based", "--output-format=json"];
    let report = json("fio", &[&job[..], more].concat())?;
    measured(&report, row.write, more.contains(&"--fdatasync=1"))
        .ok_or_else(|| BenchError::Output { program: "fio".to_owned() })
}

/// Reads fio's report. The time of a flushed write is that of the write and of its flush.
fn measured(report: &Value, write: bool, flushed: bool) -> Option<Measured> {
    let job = report["jobs"].get(0)?;
    let side = &job[if write { "write" } else { "read" }];
    let at = |times: &Value, share: &str| times["percentile"][share].as_f64().unwrap_or(0.0) / 1e3;
    let (done, flush) = (&side["clat_ns"], &job["sync"]["lat_ns"]);
    let flush_time = |of: f64| if flushed { of } else { 0.0 };
    let mean = |times: &Value| times["mean"].as_f64().unwrap_or(0.0) / 1e3;
    Some(Measured {
        iops: side["iops"].as_f64()?,
        bytes_per_second: side["bw_bytes"].as_f64()?,
        mean_us: mean(done) + flush_time(mean(flush)),
        p50_us: at(done, "50.000000") + flush_time(at(flush, "50.000000")),
        p99_us: at(done, "99.000000") + flush_time(at(flush, "99.000000")),
        count: side["total_ios"].as_u64()?,
    })
}

/// Logs in to a volume over iSCSI.
pub fn login(address: &str, volume: &str) -> Result<Session, BenchError> {
    Session::login(&format!("{address}:3260"), &format!("iqn.2026-11.io.holdfast:{volume}"))
        .map_err(|said| BenchError::Iscsi { said })
}

/// A row over iSCSI.
pub fn iscsi(session: &mut Session, row: Row, scale: Scale) -> Result<Measured, BenchError> {
    let load = Load {
        write: row.write,
        random: row.random,
        bytes: row.kib << 10,
        depth: row.depth,
        span: scale.span_mib << 20,
        time: Duration::from_secs(scale.seconds),
    };
    let times = session.run(load).map_err(|said| BenchError::Iscsi { said })?;
    Ok(summary(times, load.bytes, load.time))
}

fn summary(mut times: Vec<Duration>, bytes: u32, time: Duration) -> Measured {
    times.sort_unstable();
    let micros = |t: &Duration| t.as_secs_f64() * 1e6;
    let at = |share: usize| times.get(times.len() * share / 100).map_or(0.0, micros);
    let iops = times.len() as f64 / time.as_secs_f64();
    Measured {
        iops,
        bytes_per_second: iops * f64::from(bytes),
        mean_us: times.iter().map(micros).sum::<f64>() / times.len().max(1) as f64,
        p50_us: at(50),
        p99_us: at(99),
        count: times.len() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_flushed_write_takes_its_write_and_its_flush() {
        let times = |n: f64| json!({"mean": n, "percentile": {"50.000000": n, "99.000000": 2.0 * n}});
        let job = json!({
            "write": {"iops": 100.0, "bw_bytes": 409600, "total_ios": 200, "clat_ns": times(20e3)},
            "sync": {"lat_ns": times(80e3)},
        });
        let report = json!({ "jobs": [job] });
        let flushed = measured(&report, true, true).expect("it is a report");
        assert_eq!((flushed.mean_us, flushed.p50_us, flushed.p99_us), (100.0, 100.0, 200.0));
        assert_eq!(measured(&report, true, false).expect("it is a report").p50_us, 20.0);
        assert_eq!(measured(&report, false, false), None);
    }

    #[test]
    fn percentiles_come_from_the_sorted_times() {
        let times = (1..=200).rev().map(Duration::from_micros).collect();
        let m = summary(times, 4096, Duration::from_secs(2));
        assert_eq!((m.iops, m.count), (100.0, 200));
        assert_eq!((m.p50_us.round(), m.p99_us.round()), (101.0, 199.0));
    }

    #[test]
    fn the_raw_file_is_measured_with_and_without_flushes() {
        let dir = tempfile::tempdir_in(holdfast_tests::process::target_dir()).expect("it can be written");
        let file = dir.path().join("raw").to_string_lossy().into_owned();
        let scale = Scale { seconds: 1, raw_seconds: 1, span_mib: 8 };
        fill_raw(&file, scale).expect("fio writes");
        for row in Row::ALL.iter().filter(|r| r.kib == 4) {
            let m = raw(&file, *row, scale).expect("fio runs");
            assert!(m.iops > 0.0 && m.p50_us > 0.0 && m.p99_us >= m.p50_us, "{}: {m:?}", row.key);
        }
        let row = Row::find("write-32").expect("there is such a row");
        assert!(raw_flushed(&file, row, scale).expect("fio runs").iops > 0.0);
    }
}
