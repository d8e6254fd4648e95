//! What the benchmark prints: a table with ratios to the raw file, or the same as JSON; and where the time of
//! one write went, by the daemons' own metrics.

use crate::load::{Measured, Row};
use holdfast_tests::Cluster;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// One setup with all its rows.
pub struct Section {
    /// What was measured.
    pub name: String,
    /// Its rows.
    pub rows: Vec<(Row, Measured)>,
    /// Resident bytes of the largest daemon at the end of any row.
    pub resident: u64,
    /// Where the time of a write at depth 1 went: stage, and seconds on average.
    pub write_time: Vec<(String, f64)>,
}

/// Sums and counts of every daemon's metrics, by name and labels.
pub fn metrics(cluster: &Cluster) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for node in 1..=cluster.size() {
        for line in cluster.metrics_page(node).lines().filter(|l| !l.starts_with('#')) {
            if let Some((name, value)) = line.rsplit_once(' ') {
                *sums.entry(name.to_owned()).or_insert(0.0) += value.parse().unwrap_or(0.0);
            }
        }
    }
    sums
}

/// The average of each counter `holdfast_write_STAGE_seconds_total` over the writes between two readings.
pub fn where_time_went(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> Vec<(String, f64)> {
    let grown = |name: &str| after.get(name).unwrap_or(&0.0) - before.get(name).unwrap_or(&0.0);
    let writes = grown("holdfast_writes_total").max(1.0);
    let stage = |name: &String| {
        let stage = name.strip_suffix("_seconds_total")?.strip_prefix("holdfast_write_")?;
        Some((stage.replace('_', " "), grown(name) / writes))
    };
    after.keys().filter_map(stage).collect()
}

/// The table.
pub fn table(sections: &[Section]) -> String {
    let mut text = String::new();
    for section in sections {
        // Writing to a String has nothing that can fail.
        let _ = writeln!(text, "\n{}", section.name);
        let _ = writeln!(
            text,
            "  {:<35} {:>9} {:>8} {:>9} {:>9} {:>9} {:>7}",
            "", "IO/s", "MB/s", "p50 us", "p99 us", "CPU us/IO", "of raw"
        );
        for (i, (row, m)) in section.rows.iter().enumerate() {
            let raw = &sections[0].rows[i].1;
            let _ = writeln!(
                text,
                "  {:<35} {:>9.0} {:>8.1} {:>9.0} {:>9.0} {:>9.0} {:>7.2}",
                row.name,
                m.iops,
                m.bytes_per_second / 1e6,
                m.p50_us,
                m.p99_us,
                m.cpu_per_io * 1e6,
                m.iops / raw.iops.max(1.0)
            );
        }
        if section.resident > 0 {
            let _ = writeln!(text, "  resident, largest daemon: {:.0} MB", section.resident as f64 / 1e6);
        }
        if !section.write_time.is_empty() {
            let stages: Vec<String> =
                section.write_time.iter().map(|(s, t)| format!("{s} {:.0} us", t * 1e6)).collect();
            let _ = writeln!(text, "  one write at depth 1: {}", stages.join(", "));
        }
    }
    text.push_str(
        "\nRaw writes at depth 1 are flushed one by one, at greater depth not at all; ours always.",
    );
    text
}

/// The same as JSON.
pub fn json(sections: &[Section]) -> String {
    let row = |(row, m): &(Row, Measured), raw: &Measured| {
        json!({
            "name": row.name, "iops": m.iops, "bytes_per_second": m.bytes_per_second, "p50_us": m.p50_us,
            "p99_us": m.p99_us, "cpu_us_per_io": m.cpu_per_io * 1e6, "of_raw": m.iops / raw.iops.max(1.0),
        })
    };
    let section = |s: &Section| {
        let rows: Vec<Value> = s.rows.iter().zip(&sections[0].rows).map(|(r, raw)| row(r, &raw.1)).collect();
        let stages: BTreeMap<&str, f64> =
            s.write_time.iter().map(|(stage, t)| (stage.as_str(), t * 1e6)).collect();
        json!({ "name": s.name, "rows": rows, "resident_bytes": s.resident, "write_us": stages })
    };
    let all: Vec<Value> = sections.iter().map(section).collect();
    serde_json::to_string_pretty(&all).unwrap_or_else(|e| unreachable!("numbers and text encode: {e}"))
}
