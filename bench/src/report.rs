//! What the benchmark prints: a table with ratios to the raw file, or the same as JSON.

use crate::metrics::{Others, Stages};
use crate::row::{Measured, Row};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};
use std::fmt::Write;

/// One row of one setup.
#[derive(Clone, Debug)]
pub struct Line {
    /// Which row.
    pub row: Row,
    /// What came of it.
    pub measured: Measured,
    /// The raw file around it.
    pub raw: Measured,
    /// How many times faster the fastest raw round was than the slowest.
    pub raw_spread: f64,
    /// The raw file with a flush after each write, where the row's own raw rounds have none.
    pub raw_flushed: Option<Measured>,
    /// Processor time of all daemons for each request, in microseconds.
    pub cpu_us: f64,
    /// Where the time of a write went.
    pub stages: Option<Stages>,
}

impl Line {
    /// Requests a second as a part of the raw file's.
    fn of_raw(&self) -> f64 {
        self.measured.iops / self.raw.iops.max(1.0)
    }
}

/// One setup over one protocol.
#[derive(Clone, Debug)]
pub struct Section {
    /// What was measured.
    pub name: String,
    /// Its rows.
    pub lines: Vec<Line>,
    /// The most resident bytes that each daemon had at the end of any row.
    pub resident: Vec<u64>,
}

/// Raw rounds that differ by more than this make a ratio to them doubtful.
const SPREAD_MOST: f64 = 1.5;

const NOTE: &str = "of raw: against the median of three rounds on the raw file (O_DIRECT) before and after the row; \
its writes are flushed one by one at depth 1 and not at all at greater depth. Holdfast's are always flushed on a \
write quorum.";

/// The table.
pub fn table(sections: &[Section]) -> String {
    let mut text = String::new();
    for section in sections {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header([
            "",
            "IO/s",
            "MB/s",
            "p50 us",
            "p99 us",
            "CPU us/IO",
            "raw IO/s",
            "raw flushed",
            "of raw",
        ]);
        for line in &section.lines {
            table.add_row(cells(line));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let resident: Vec<String> =
            section.resident.iter().map(|r| format!("{:.0}", *r as f64 / 1e6)).collect();
        // Writing to a String has nothing that can fail.
        let _ = writeln!(text, "{}\n{table}", section.name);
        let _ = writeln!(text, " resident, each daemon: {} MB", resident.join(", "));
        for line in section.lines.iter().filter(|l| l.raw_spread > SPREAD_MOST) {
            let _ = writeln!(
                text,
                " {}: raw rounds differ by a factor of {:.1}; the machine was busy, the ratio is doubtful",
                line.row.name, line.raw_spread
            );
        }
        for line in section.lines.iter() {
            if let Some(s) = line.stages {
                let _ = writeln!(text, " {}", where_time_went(line, s));
            }
        }
        text.push('\n');
    }
    text.push_str(NOTE);
    text
}

fn cells(line: &Line) -> [String; 9] {
    let m = &line.measured;
    [
        line.row.name.to_owned(),
        format!("{:.0}", m.iops),
        format!("{:.1}", m.bytes_per_second / 1e6),
        format!("{:.0}", m.p50_us),
        format!("{:.0}", m.p99_us),
        format!("{:.1}", line.cpu_us),
        format!("{:.0}", line.raw.iops),
        line.raw_flushed.map_or_else(String::new, |r| format!("{:.0}", r.iops)),
        format!("{:.2}", line.of_raw()),
    ]
}

/// The rest is the client, its sockets, and the way from the gateway to the owner and back.
fn where_time_went(line: &Line, s: Stages) -> String {
    let mean = line.measured.mean_us;
    let rest = mean - s.queue - s.quorum;
    let mut text = format!(
        "{} took {mean:.0} us on average: client and gateway {rest:.0}, owner's queue {:.0}, until the quorum {:.0}; the \
         own copy {:.0}",
        line.row.name, s.queue, s.quorum, s.own_journal
    );
    // Writing to a String has nothing that can fail.
    if let Some(Others { network, journal }) = s.others {
        let _ =
            write!(text, ", another {:.0} (network {network:.0}, journal {journal:.0})", network + journal);
    }
    let _ = write!(text, "; one flush {:.0}", s.flush);
    text
}

/// The same as JSON.
pub fn json(sections: &[Section]) -> String {
    let round = |m: &Measured| {
        json!({
            "iops": m.iops, "bytes_per_second": m.bytes_per_second, "mean_us": m.mean_us, "p50_us": m.p50_us,
            "p99_us": m.p99_us, "count": m.count,
        })
    };
    let stages = |s: Stages| {
        json!({
            "writes": s.writes, "queue_us": s.queue, "own_journal_us": s.own_journal, "quorum_us": s.quorum,
            "flush_us": s.flush, "network_us": s.others.map(|o| o.network), "other_journal_us": s.others.map(|o| o.journal),
        })
    };
    let line = |l: &Line| {
        json!({
            "row": l.row.key, "name": l.row.name, "measured": round(&l.measured), "raw": round(&l.raw), "raw_spread": l.raw_spread,
            "raw_flushed": l.raw_flushed.as_ref().map(round), "of_raw": l.of_raw(), "cpu_us_per_io": l.cpu_us,
            "write_time": l.stages.map(stages),
        })
    };
    let section = |s: &Section| {
        let lines: Vec<Value> = s.lines.iter().map(line).collect();
        json!({ "name": s.name, "rows": lines, "resident_bytes": s.resident })
    };
    let all: Vec<Value> = sections.iter().map(section).collect();
    format!("{:#}", Value::from(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Section {
        let m = |iops| Measured { iops, mean_us: 400.0, ..Measured::default() };
        let stages = Stages {
            writes: 9.0,
            queue: 5.0,
            own_journal: 150.0,
            quorum: 250.0,
            flush: 120.0,
            others: Some(Others { network: 90.0, journal: 140.0 }),
        };
        let line = Line {
            row: Row::ALL[0],
            measured: m(2500.0),
            raw: m(5000.0),
            raw_spread: 2.5,
            raw_flushed: None,
            cpu_us: 70.0,
            stages: Some(stages),
        };
        Section { name: "three copies, NBD".to_owned(), lines: vec![line], resident: vec![90_000_000; 3] }
    }

    #[test]
    fn the_table_has_the_ratio_the_memory_and_where_the_time_went() {
        let text = table(&[example()]);
        for part in [
            "0.50",
            "90, 90, 90 MB",
            "queue 5",
            "quorum 250",
            "gateway 145",
            "factor of 2.5",
            "network 90",
            "flush 120",
        ] {
            assert!(text.contains(part), "{part} lacks:\n{text}");
        }
    }

    #[test]
    fn json_says_the_same() {
        let value: Value = serde_json::from_str(&json(&[example()])).expect("it is JSON");
        let row = &value[0]["rows"][0];
        assert_eq!((row["of_raw"].as_f64(), row["row"].as_str()), (Some(0.5), Some("write-1")));
        assert_eq!(
            (&row["write_time"]["quorum_us"], &row["write_time"]["network_us"]),
            (&json!(250.0), &json!(90.0))
        );
    }
}
