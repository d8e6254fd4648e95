//! This node's metrics: where the time of a write goes, how full disks and queues are, what consensus does. The
//! engine is looked at for each page and never else: a cluster that nobody asks anything of does nothing.

use super::{Shared, heartbeat::PacketTotals, scrub::Scrubbed};
use holdfast_api::{Metrics, metrics::Refresh};
use holdfast_cluster::DiskState;
use holdfast_engine::{route::copies::CopyTimes, route::disks::Phase, status::EngineStatus};
use holdfast_net::{Paths, Refusal, Refusals};
use holdfast_replication::{CopyRole, OwnerStatus};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A page waits so long for the engine, and shows what it said last time otherwise.
const LOOK_WITHIN: Duration = Duration::from_secs(1);

type Last = Arc<Mutex<Option<EngineStatus>>>;

/// The metrics of this node.
pub fn make(shared: &Arc<Shared>) -> Metrics {
    let last = Last::default();
    let (data, fresh) = (shared.data.clone(), last.clone());
    let refresh: Refresh = Arc::new(move || {
        let (data, fresh) = (data.clone(), fresh.clone());
        Box::pin(async move {
            if let Ok(Some(status)) = tokio::time::timeout(LOOK_WITHIN, data.status()).await {
                *fresh.lock().unwrap_or_else(|e| e.into_inner()) = Some(status);
            }
        })
    });
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), refresh);
    let collector = NodeMetrics { last, shared: shared.clone() };
    metrics.register(|registry| registry.register_collector(Box::new(collector)));
    metrics
}

struct NodeMetrics {
    last: Last,
    shared: Arc<Shared>,
}

impl fmt::Debug for NodeMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeMetrics")
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: u64,
) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(metric)
}

fn seconds(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
    ConstCounter::new(value).encode(metric)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    ConstCounter::new(value).encode(metric)
}

/// Whether disks answer and new data has room, for alarms.
fn encode_disks(e: &mut DescriptorEncoder<'_>, status: &EngineStatus, shared: &Shared) -> fmt::Result {
    let open = status.disks.iter().filter(|(_, phase, _)| matches!(phase, Phase::Opened { .. }));
    let left = open.clone().map(|(_, _, usage)| usage.extents_for_new_data).sum();
    let help = "Extents that new data may still take: at zero a disk is full";
    gauge(e, "extents_for_new_data", help, None, left)?;
    let full = open.filter(|(_, _, usage)| usage.extents_for_new_data == 0).count() as u64;
    gauge(e, "disks_full", "Disks of this node that take no new data", None, full)?;
    // One that hangs before it is open is known to control only.
    let map = shared.map();
    let known = map.disks_of(shared.node).filter(|d| d.state == DiskState::Silent).map(|d| d.id);
    let seen = status.disks.iter().filter(|(_, _, usage)| usage.is_silent).map(|(disk, _, _)| *disk);
    let silent = known.chain(seen).collect::<BTreeSet<_>>().len() as u64;
    gauge(e, "disks_silent", "Disks of this node that owe answers and give none", None, silent)?;
    let slow = status.disks.iter().filter(|(_, _, usage)| usage.is_slow).count() as u64;
    gauge(e, "disks_slow", "Disks of this node that answer, and take too long to", None, slow)?;
    let lacks = |o: &OwnerStatus| o.copies.iter().any(|c| c.full && c.role == CopyRole::InSet);
    let without = status.owned.iter().filter(|(_, o)| lacks(o)).count() as u64;
    let help = "Segments owned here that refuse new data because the disk of one of their copies is full";
    gauge(e, "segments_without_room", help, None, without)
}

/// Every reason is on the page from the start: an alarm on an increase needs the zero before it.
fn encode_refusals(e: &mut DescriptorEncoder<'_>, refusals: &Refusals) -> fmt::Result {
    let help = "Connections of other hosts that this node refused, by reason";
    let mut metric = e.encode_descriptor("connections_refused", help, None, MetricType::Counter)?;
    let seen = refusals.seen();
    for reason in Refusal::ALL {
        let count = seen.get(&reason).map_or(0, |r| r.count);
        ConstCounter::new(count).encode(metric.encode_family(&[("reason", reason.label())])?)?;
    }
    Ok(())
}

fn encode_paths(e: &mut DescriptorEncoder<'_>, paths: &Paths) -> fmt::Result {
    let help = "Other nodes that this one does not reach directly, but through a third";
    gauge(e, "relayed_nodes", help, None, paths.relayed().len() as u64)?;
    let help =
        "Connections between two other nodes that this one carries, because they do not reach one another";
    gauge(e, "relays", help, None, paths.relays() as u64)
}

fn encode_packets(e: &mut DescriptorEncoder<'_>, packets: &PacketTotals) -> fmt::Result {
    let mut each = |name, help, of: fn(&(u64, u64)) -> u64| {
        let mut metric = e.encode_descriptor(name, help, None, MetricType::Counter)?;
        packets.iter().try_for_each(|(node, totals)| {
            let labels = [("node", node.0.to_string())];
            ConstCounter::new(of(totals)).encode(metric.encode_family(&labels)?)
        })
    };
    let help = "Packets of heartbeats that were sent to each node, each as often as it was sent";
    each("heartbeat_packets_sent", help, |(sent, _)| *sent)?;
    let help = "Of these, packets that got lost on the way";
    each("heartbeat_packets_lost", help, |(_, lost)| *lost)
}

fn encode_scrubbed(e: &mut DescriptorEncoder<'_>, scrubbed: &Scrubbed) -> fmt::Result {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    counter(
        e,
        "scrubbed_segments",
        "Segments whose copies were read and compared by the scrub",
        read(&scrubbed.segments),
    )?;
    let help = "Data that the scrub compared, of one copy";
    let metric = e.encode_descriptor("scrubbed", help, Some(&Unit::Bytes), MetricType::Counter)?;
    ConstCounter::new(read(&scrubbed.bytes)).encode(metric)?;
    let help = "Blocks of a copy that the scrub found not to be as they should";
    counter(e, "scrub_findings", help, read(&scrubbed.findings))
}

impl Collector for NodeMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        encode_refusals(&mut encoder, &self.shared.refusals)?;
        encode_scrubbed(&mut encoder, &self.shared.scrubbed)?;
        encode_paths(&mut encoder, self.shared.identity.paths())?;
        encode_packets(&mut encoder, &self.shared.heartbeats.packets())?;
        let last = self.last.lock().unwrap_or_else(|e| e.into_inner());
        let Some(status) = last.as_ref() else { return Ok(()) };
        let e = &mut encoder;
        gauge(e, "sessions", "Initiators that are connected", None, status.sessions.len() as u64)?;
        gauge(
            e,
            "requests_waiting",
            "Requests of initiators that are not answered yet",
            None,
            status.waiting as u64,
        )?;
        let retained = status.owned.iter().map(|(_, o)| o.retained_bytes as u64).sum();
        let help = "Records kept in memory for copies that are behind or away";
        gauge(e, "retained", help, Some(&Unit::Bytes), retained)?;
        gauge(
            e,
            "segments_owned",
            "Segments that this node orders the writes of",
            None,
            status.owned.len() as u64,
        )?;
        gauge(
            e,
            "links",
            "Other nodes that this one has a data connection to",
            None,
            status.links.len() as u64,
        )?;
        let sum =
            |of: fn(&holdfast_store::Usage) -> u64| status.disks.iter().map(|(_, _, usage)| of(usage)).sum();
        let extent = holdfast_types::EXTENT_BYTES as u64;
        gauge(e, "extents_total", "Extents of 1 MiB on this node's disks", None, sum(|u| u.extents_total))?;
        gauge(e, "extents_free", "Extents that hold nothing", None, sum(|u| u.extents_free))?;
        encode_disks(e, status, &self.shared)?;
        let free: u64 = sum(|u| u.extents_free);
        gauge(e, "disk_free", "Room on this node's disks", Some(&Unit::Bytes), free * extent)?;
        gauge(e, "journal_used", "Journal that is in use", Some(&Unit::Bytes), sum(|u| u.journal_used))?;
        let help = "Committed data in memory that is not in its extents yet";
        gauge(e, "dirty", help, Some(&Unit::Bytes), sum(|u| u.dirty_bytes))?;
        encode_times(e, status)
    }
}

/// The way of a write in numbers: all counters, so that what passed between two readings is their difference.
fn encode_times(e: &mut DescriptorEncoder<'_>, status: &EngineStatus) -> fmt::Result {
    let CopyTimes { writes, records } = status.times;
    counter(e, "writes", "Records that owners on this node committed", writes.writes)?;
    let help = "Time that records waited at the owner before they were sent and journalled";
    seconds(e, "write_queue", help, writes.queue.as_secs_f64())?;
    let help = "Time from there until the own copy had the record on stable storage";
    seconds(e, "write_own_journal", help, writes.own_journal.as_secs_f64())?;
    let help = "Time from there until a write quorum had it on stable storage";
    seconds(e, "write_quorum", help, writes.quorum.as_secs_f64())?;
    let help = "Acknowledgements of records by the other copies that owners on this node write to";
    counter(e, "write_acknowledgements", help, writes.others.records)?;
    let help = "Time until these came: the network there and back, and the other copy's journal";
    seconds(e, "write_acknowledgement", help, writes.others.time.as_secs_f64())?;
    let help = "Records that copies on this node made durable, whichever node ordered them";
    counter(e, "records", help, records.records)?;
    let help = "Time from a record's arrival at its copy until it was durable: the wait for the batch before it, and the flush";
    seconds(e, "record_journal", help, records.time.as_secs_f64())?;
    let journals = || status.disks.iter().map(|(_, _, usage)| usage.journal);
    let help = "Batches that the journals of this node wrote, each one flush";
    counter(e, "journal_batches", help, journals().map(|j| j.batches).sum())?;
    let help = "Time that the disks took for them";
    seconds(e, "journal_flush", help, journals().map(|j| j.flush.as_secs_f64()).sum())
}
