//! `./x bench`: the raw file, one copy on one node, three copies on three nodes, over NBD and iSCSI, in one run
//! on one disk, with ratios to the raw file. A command, never a timed test.
//!
//! NBD is driven by fio, iSCSI by libiscsi. Raw writes at depth 1 are flushed one by one (fdatasync); at greater
//! depth they are not flushed at all, which is the most that the disk gives. Holdfast flushes every write on a
//! write quorum before it acknowledges it, at every depth.

mod load;
mod report;

use holdfast_tests::cluster::{Cluster, Options, VOLUME};
use holdfast_tests::libiscsi::Session;
use load::{Measured, Row};
use report::Section;
use std::process::ExitCode;
use std::time::Duration;

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Seconds for each row.
    pub seconds: u64,
    /// MiB that are written before anything is measured, and used by every row.
    pub span_mib: u64,
}

const FULL: Scale = Scale { seconds: 10, span_mib: 1024 };
const QUICK: Scale = Scale { seconds: 2, span_mib: 256 };
const USAGE: &str = "usage: ./x bench [--quick] [--json]";

fn main() -> ExitCode {
    let (mut scale, mut json) = (FULL, false);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => scale = QUICK,
            "--json" => json = true,
            _ => {
                eprintln!("x: bench has no option '{argument}'; {USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    match measure(scale) {
        Ok(sections) => {
            println!("{}", if json { report::json(&sections) } else { report::table(&sections) });
            ExitCode::SUCCESS
        }
        Err(said) => {
            eprintln!("bench: {said}");
            ExitCode::FAILURE
        }
    }
}

fn measure(scale: Scale) -> Result<Vec<Section>, String> {
    let mut sections = vec![raw(scale)?];
    for (nodes, name) in [(1, "one copy, one node"), (3, "three copies, three nodes")] {
        let mut options = Options::new(nodes);
        options.disk = "4G".to_owned();
        options.volume = "1G".to_owned();
        let cluster = Cluster::with(options);
        eprintln!("{name}: filling {} MiB", scale.span_mib);
        load::fill(&format!("--uri={}", cluster.nbd(1)), scale)?;
        sections.push(over(&cluster, &format!("{name}, NBD"), |row| load::nbd(&cluster.nbd(1), row, scale))?);
        let target = format!("iqn.2026-11.io.holdfast:{VOLUME}");
        let portal = format!("{}:3260", cluster.address(1));
        let mut session = Session::login(&portal, &target)?;
        sections
            .push(over(&cluster, &format!("{name}, iSCSI"), |row| load::iscsi(&mut session, row, scale))?);
    }
    Ok(sections)
}

fn raw(scale: Scale) -> Result<Section, String> {
    let folder = holdfast_tests::process::target_dir();
    let file = tempfile::NamedTempFile::with_prefix_in("raw", folder).map_err(|e| e.to_string())?;
    let name = format!("--filename={}", file.path().display());
    eprintln!("raw file: filling {} MiB", scale.span_mib);
    load::fill_raw(&name, scale)?;
    let mut section = Section {
        name: "raw file, O_DIRECT".to_owned(),
        rows: Vec::new(),
        resident: 0,
        write_time: Vec::new(),
    };
    for row in Row::ALL {
        eprintln!("  {}", row.name);
        section.rows.push((row, load::raw(&name, row, scale)?));
    }
    Ok(section)
}

/// All rows against a cluster, with what its daemons used for them.
fn over(
    cluster: &Cluster,
    name: &str,
    mut run: impl FnMut(Row) -> Result<Measured, String>,
) -> Result<Section, String> {
    eprintln!("{name}");
    let mut section =
        Section { name: name.to_owned(), rows: Vec::new(), resident: 0, write_time: Vec::new() };
    for row in Row::ALL {
        eprintln!("  {}", row.name);
        let (used, page) = (cluster.usage().0.cpu, report::metrics(cluster));
        let mut measured = run(row)?;
        let spent: Duration = cluster.usage().0.cpu.saturating_sub(used);
        measured.cpu_per_io = spent.as_secs_f64() / measured.count.max(1) as f64;
        section.resident = section.resident.max(cluster.usage().1);
        if row.write && row.depth == 1 {
            section.write_time = report::where_time_went(&page, &report::metrics(cluster));
        }
        section.rows.push((row, measured));
    }
    Ok(section)
}
