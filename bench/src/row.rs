//! The rows of the benchmark, and what one round of a row came to.

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// As `--only` takes it.
    pub key: &'static str,
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

const fn row(
    key: &'static str,
    name: &'static str,
    write: bool,
    random: bool,
    kib: u32,
    depth: usize,
) -> Row {
    Row { key, name, write, random, kib, depth }
}

impl Row {
    /// Every row, in the order of the table.
    pub const ALL: [Row; 6] = [
        row("write-1", "4 KiB random write, depth 1", true, true, 4, 1),
        row("write-32", "4 KiB random write, depth 32", true, true, 4, 32),
        row("read-1", "4 KiB random read, depth 1", false, true, 4, 1),
        row("read-32", "4 KiB random read, depth 32", false, true, 4, 32),
        row("seq-write-8", "128 KiB seq. write, depth 8", true, false, 128, 8),
        row("seq-read-8", "128 KiB seq. read, depth 8", false, false, 128, 8),
    ];

    /// The row of a key.
    pub fn find(key: &str) -> Option<Row> {
        Row::ALL.into_iter().find(|r| r.key == key)
    }

    /// fio's name for its pattern.
    pub fn pattern(&self) -> &'static str {
        match (self.random, self.write) {
            (true, true) => "--rw=randwrite",
            (true, false) => "--rw=randread",
            (false, true) => "--rw=write",
            (false, false) => "--rw=read",
        }
    }
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Seconds for each row.
    pub seconds: u64,
    /// Seconds for each of the raw rounds around it.
    pub raw_seconds: u64,
    /// MiB that are written before anything is measured, and used by every row.
    pub span_mib: u64,
}

/// What one round came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Requests a second.
    pub iops: f64,
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// The average time of a request, in microseconds.
    pub mean_us: f64,
    /// Half of the requests took at most so long.
    pub p50_us: f64,
    /// Ninety-nine of a hundred.
    pub p99_us: f64,
    /// Requests in all.
    pub count: u64,
}

/// The round in the middle by requests a second.
pub fn median(mut rounds: Vec<Measured>) -> Measured {
    rounds.sort_by(|a, b| a.iops.total_cmp(&b.iops));
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}

/// How many times faster the fastest round was than the slowest: how noisy the machine is.
pub fn spread(rounds: &[Measured]) -> f64 {
    let iops = || rounds.iter().map(|r| r.iops);
    iops().fold(0.0, f64::max) / iops().fold(f64::INFINITY, f64::min).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_three_rounds_is_neither_the_fastest_nor_the_slowest() {
        let round = |iops| Measured { iops, ..Measured::default() };
        assert_eq!(median(vec![round(900.0), round(20.0), round(500.0)]).iops, 500.0);
        assert_eq!(median(vec![]), Measured::default());
    }

    #[test]
    fn the_spread_is_that_of_the_fastest_round_over_the_slowest() {
        let round = |iops| Measured { iops, ..Measured::default() };
        assert_eq!(spread(&[round(900.0), round(300.0), round(500.0)]), 3.0);
        assert_eq!(spread(&[]), 0.0);
    }

    #[test]
    fn every_row_is_found_by_its_key_and_no_other() {
        for row in Row::ALL {
            assert_eq!(Row::find(row.key), Some(row));
        }
        assert_eq!(Row::find("write"), None);
    }
}
