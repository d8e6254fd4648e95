//! `./x bench`: the raw file, one copy on one node, and three copies on three nodes, over NBD and iSCSI, in one run
//! on one disk, with ratios to the raw file. A command, never a timed test.
//!
//! Machines are noisy: each row stands between rounds on the raw file, and is compared with their median. It starts
//! clusters of its own, uses the command line as anybody would, and leaves nothing behind.

mod cluster;
mod command;
mod error;
mod interrupt;
mod load;
mod metrics;
mod report;
mod row;

use clap::Parser;
use cluster::Cluster;
use error::BenchError;
use holdfast_tests::libiscsi::Session;
use holdfast_tests::process::target_dir;
use indicatif::{ProgressBar, ProgressStyle};
use report::{Line, Section};
use row::{Measured, Row, Scale, median, spread};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "Examples:
  ./x bench                                  every row, some minutes
  ./x bench --quick                          a first impression
  ./x bench --only write-1 --only write-32   two rows
  ./x bench --nodes 5 --dir /mnt/nvme --json five nodes on another disk, for a program

Rows: write-1, write-32, read-1, read-32 (4 KiB, random), seq-write-8, seq-read-8 (128 KiB).";

/// Measures Holdfast against the raw file on the same disk.
#[derive(Debug, Parser)]
#[command(name = "bench", after_help = EXAMPLES)]
struct Arguments {
    /// Seconds for each row
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Only this row; may be given more than once
    #[arg(long, value_name = "ROW", value_parser = parse_row)]
    only: Vec<Row>,
    /// The folder, on the disk to be measured, in which a temporary one is made [default: the build's]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Nodes of the replicated setup
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=7))]
    nodes: u8,
    /// Two seconds for each row, over a quarter of the data
    #[arg(long, conflicts_with = "seconds")]
    quick: bool,
    /// JSON in place of the table
    #[arg(long)]
    json: bool,
}

fn parse_row(key: &str) -> Result<Row, String> {
    let keys = || Row::ALL.map(|r| r.key).join(", ");
    Row::find(key).ok_or_else(|| format!("there is no such row; there are {}", keys()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    interrupt::listen();
    match measure(&arguments) {
        Ok(sections) => {
            println!("{}", if arguments.json { report::json(&sections) } else { report::table(&sections) });
            ExitCode::SUCCESS
        }
        Err(BenchError::Interrupted) => ExitCode::from(130),
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn binary() -> Result<PathBuf, BenchError> {
    let set = std::env::var_os("HOLDFAST_BIN").map(PathBuf::from);
    let path = set.unwrap_or_else(|| target_dir().join("release/holdfast"));
    if path.is_file() { Ok(path) } else { Err(BenchError::NoBinary { path }) }
}

/// What every row needs.
struct Run {
    rows: Vec<Row>,
    scale: Scale,
    raw: String,
    progress: ProgressBar,
}

fn measure(arguments: &Arguments) -> Result<Vec<Section>, BenchError> {
    let binary = binary()?;
    let base = arguments.dir.clone().unwrap_or_else(target_dir);
    let folder = tempfile::TempDir::with_prefix_in("holdfast-bench-", &base)
        .map_err(|source| BenchError::Io { path: base, source })?;
    let scale = match arguments.quick {
        true => Scale { seconds: 2, raw_seconds: 1, span_mib: 256 },
        false => {
            Scale { seconds: arguments.seconds, raw_seconds: (arguments.seconds / 3).max(1), span_mib: 1024 }
        }
    };
    let rows = if arguments.only.is_empty() { Row::ALL.to_vec() } else { arguments.only.clone() };
    let raw = folder.path().join("raw").to_string_lossy().into_owned();
    // Four sections, and the fill before each pair of them.
    let progress = ProgressBar::new(rows.len() as u64 * 4 + 3);
    let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len} {wide_msg}");
    progress.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let run = Run { rows, scale, raw, progress };
    run.step("raw file: filling");
    load::fill_raw(&run.raw, scale)?;
    let mut sections = Vec::new();
    for nodes in [1, usize::from(arguments.nodes)] {
        let place = folder.path().join(format!("cluster-of-{nodes}"));
        std::fs::create_dir(&place).map_err(|source| BenchError::Io { path: place.clone(), source })?;
        sections.extend(run.cluster(&binary, &place, nodes)?);
        // The next cluster needs the room.
        std::fs::remove_dir_all(&place).map_err(|source| BenchError::Io { path: place.clone(), source })?;
    }
    run.progress.finish_and_clear();
    Ok(sections)
}

impl Run {
    fn step(&self, what: &str) {
        self.progress.inc(1);
        self.progress.set_message(what.to_owned());
    }

    /// Every row over NBD and over iSCSI on one cluster.
    fn cluster(&self, binary: &Path, place: &Path, nodes: usize) -> Result<[Section; 2], BenchError> {
        let name = match nodes {
            1 => "one copy, one node".to_owned(),
            n => format!("{} copies, {n} nodes", n.min(3)),
        };
        self.step(&format!("{name}: starting and filling"));
        let mut cluster = Cluster::start(binary, place, nodes, self.scale.span_mib)?;
        load::fill_nbd(&cluster.nbd(1), self.scale)?;
        let mut session = load::login(&cluster.address(1), cluster::VOLUME)?;
        let section = |protocol: &str| Section {
            name: format!("{name}, {protocol}"),
            lines: Vec::new(),
            resident: vec![0; nodes],
        };
        let (mut nbd, mut iscsi) = (section("NBD"), section("iSCSI"));
        for row in &self.rows {
            self.row(*row, &mut cluster, &mut nbd, &mut iscsi, &mut session)?;
        }
        Ok([nbd, iscsi])
    }

    /// raw, NBD, raw, iSCSI, raw.
    fn row(
        &self,
        row: Row,
        cluster: &mut Cluster,
        nbd: &mut Section,
        iscsi: &mut Section,
        session: &mut Session,
    ) -> Result<(), BenchError> {
        let (scale, url) = (self.scale, cluster.nbd(1));
        let raw = || load::raw(&self.raw, row, scale);
        let mut around = vec![raw()?];
        self.one(row, cluster, nbd, || load::nbd(&url, row, scale))?;
        around.push(raw()?);
        self.one(row, cluster, iscsi, || load::iscsi(session, row, scale))?;
        around.push(raw()?);
        let flushed = match row.write && row.depth > 1 {
            true => Some(load::raw_flushed(&self.raw, row, scale)?),
            false => None,
        };
        for line in [nbd.lines.last_mut(), iscsi.lines.last_mut()].into_iter().flatten() {
            (line.raw, line.raw_flushed) = (median(around.clone()), flushed);
            line.raw_spread = spread(&around);
        }
        Ok(())
    }

    /// One row over one protocol, with what the daemons used for it.
    fn one(
        &self,
        row: Row,
        cluster: &mut Cluster,
        section: &mut Section,
        load: impl FnOnce() -> Result<Measured, BenchError>,
    ) -> Result<(), BenchError> {
        self.step(&format!("{}: {}", section.name, row.name));
        if interrupt::asked() {
            return Err(BenchError::Interrupted);
        }
        let (page, used) = (metrics::read(cluster), cluster.cpu());
        let measured = load().map_err(|error| cluster.check_alive().err().unwrap_or(error))?;
        let spent = cluster.cpu().saturating_sub(used);
        let stages = metrics::Stages::between(&page, &metrics::read(cluster)).filter(|_| row.write);
        for (most, now) in section.resident.iter_mut().zip(cluster.usage()) {
            *most = now.resident.max(*most);
        }
        let cpu_us = spent.as_secs_f64() * 1e6 / measured.count.max(1) as f64;
        let raw = Measured::default();
        section.lines.push(Line { row, measured, raw, raw_spread: 1.0, raw_flushed: None, cpu_us, stages });
        Ok(())
    }
}
