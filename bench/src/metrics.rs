//! Where the time of a write goes, from the daemons' own metrics pages.

use crate::cluster::Cluster;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const PORT: u16 = 7403;
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest page that is read.
const PAGE_BYTES: u64 = 4 << 20;

/// Counters, summed over all daemons.
pub type Counters = BTreeMap<String, f64>;

/// The averages of the writes between two readings, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stages {
    /// Records that owners committed.
    pub writes: f64,
    /// Waiting at the owner, before sending and journalling.
    pub queue: f64,
    /// From there until the own copy was stable.
    pub own_journal: f64,
    /// From there until a write quorum was stable.
    pub quorum: f64,
}

impl Stages {
    /// What passed between two readings; None when nothing was written.
    pub fn between(before: &Counters, after: &Counters) -> Option<Stages> {
        let grown = |name: &str| after.get(name).unwrap_or(&0.0) - before.get(name).unwrap_or(&0.0);
        let writes = grown("holdfast_writes_total");
        let stage = |name: &str| grown(&format!("holdfast_write_{name}_seconds_total")) / writes * 1e6;
        (writes > 0.0).then(|| Stages {
            writes,
            queue: stage("queue"),
            own_journal: stage("own_journal"),
            quorum: stage("quorum"),
        })
    }
}

/// Reads every daemon's page.
pub fn read(cluster: &Cluster) -> Counters {
    let mut sums = Counters::new();
    for n in 1..=cluster.size() {
        // A page that does not come leaves its row without stages, and nothing else.
        add(&mut sums, &page(&cluster.address(n)).unwrap_or_default());
    }
    sums
}

fn add(sums: &mut Counters, page: &str) {
    for (name, value) in page.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.rsplit_once(' ')) {
        *sums.entry(name.to_owned()).or_insert(0.0) += value.trim().parse().unwrap_or(0.0);
    }
}

fn page(address: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect((address, PORT))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    write!(socket, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    socket.take(PAGE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_averages_of_what_was_written_between_two_readings() {
        let (mut before, mut after) = (Counters::new(), Counters::new());
        add(&mut before, "# HELP x\nholdfast_writes_total 10\nholdfast_write_queue_seconds_total 1.0\n");
        let later = "holdfast_writes_total 15\nholdfast_write_queue_seconds_total 1.001\n\
                     holdfast_write_own_journal_seconds_total 0.002\nholdfast_write_quorum_seconds_total 0.003\n";
        // Two daemons: one wrote, the other did not.
        add(&mut after, later);
        add(&mut after, "holdfast_writes_total 5\n");
        let s = Stages::between(&before, &after).expect("something was written");
        assert_eq!((s.writes, s.queue.round()), (10.0, 100.0));
        assert_eq!((s.own_journal.round(), s.quorum.round()), (200.0, 300.0));
        assert_eq!(Stages::between(&after, &after), None);
    }
}
