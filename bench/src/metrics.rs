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
    /// One batch of a journal at the disk, over all copies.
    pub flush: f64,
    /// The other copies; None when there are none.
    pub others: Option<Others>,
}

/// How the other copies got a record, on average, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Others {
    /// There and back.
    pub network: f64,
    /// From the record's arrival until it was stable there.
    pub journal: f64,
}

impl Stages {
    /// What passed between two readings; None when nothing was written.
    pub fn between(before: &Counters, after: &Counters) -> Option<Stages> {
        let grown = |name: &str| after.get(name).unwrap_or(&0.0) - before.get(name).unwrap_or(&0.0);
        let writes = grown("holdfast_writes_total");
        let us = |name: &str| grown(&format!("holdfast_{name}_seconds_total")) * 1e6;
        (writes > 0.0).then(|| Stages {
            writes,
            queue: us("write_queue") / writes,
            own_journal: us("write_own_journal") / writes,
            quorum: us("write_quorum") / writes,
            flush: us("journal_flush") / grown("holdfast_journal_batches_total").max(1.0),
            others: Others::between(writes, us("write_own_journal"), grown),
        })
    }
}

impl Others {
    /// A copy's journal tells of all records, those of its own node's writes included: these are taken off.
    fn between(writes: f64, own_journal_us: f64, grown: impl Fn(&str) -> f64) -> Option<Others> {
        let acknowledged = grown("holdfast_write_acknowledgements_total");
        let (records, journal_us) =
            (grown("holdfast_records_total"), grown("holdfast_record_journal_seconds_total") * 1e6);
        if acknowledged <= 0.0 || records <= writes {
            return None;
        }
        let journal = ((journal_us - own_journal_us) / (records - writes)).max(0.0);
        let whole = grown("holdfast_write_acknowledgement_seconds_total") * 1e6 / acknowledged;
        Some(Others { network: (whole - journal).max(0.0), journal })
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
        assert_eq!((s.own_journal.round(), s.quorum.round(), s.others), (200.0, 300.0, None));
        assert_eq!(Stages::between(&after, &after), None);
    }

    #[test]
    fn the_network_is_what_an_acknowledgement_took_beside_the_journal_of_the_other_copy() {
        let mut after = Counters::new();
        let owner = "holdfast_writes_total 10\nholdfast_write_own_journal_seconds_total 0.001\n\
                     holdfast_write_acknowledgements_total 20\nholdfast_write_acknowledgement_seconds_total 0.008\n\
                     holdfast_records_total 10\nholdfast_record_journal_seconds_total 0.001\n\
                     holdfast_journal_batches_total 5\nholdfast_journal_flush_seconds_total 0.0004\n";
        let other = "holdfast_records_total 10\nholdfast_record_journal_seconds_total 0.003\n\
                     holdfast_journal_batches_total 5\nholdfast_journal_flush_seconds_total 0.0006\n";
        [owner, other, other].iter().for_each(|page| add(&mut after, page));
        let s = Stages::between(&Counters::new(), &after).expect("something was written");
        let others = s.others.expect("there are other copies");
        assert_eq!(
            (s.own_journal.round(), others.journal.round(), others.network.round()),
            (100.0, 300.0, 100.0)
        );
        assert_eq!(s.flush.round(), 107.0);
    }
}
