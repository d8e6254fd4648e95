//! The metrics page: Prometheus text on a port of its own, for local scrapers. Every metric has a help text
//! and names its unit. The parts of the node register theirs; this module adds what is true of any process.

use futures::future::BoxFuture;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::{Arc, Mutex};

/// The content type of the page.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Brings what the metrics read up to date. Called for each page, so that nothing is done while nobody looks.
pub type Refresh = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Every metric of the process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    refresh: Refresh,
}

impl Metrics {
    /// The metrics of the process itself; names start with `holdfast_`.
    pub fn new(version: &str, refresh: Refresh) -> Self {
        let mut registry = Registry::with_prefix("holdfast");
        let info = Info::new(vec![("version", version.to_owned())]);
        registry.register("build", "The version of the daemon", info);
        registry.register_collector(Box::new(Process));
        Self { registry: Arc::new(Mutex::new(registry)), refresh }
    }

    /// Lets the caller register metrics.
    pub fn register<T>(&self, with: impl FnOnce(&mut Registry) -> T) -> T {
        with(&mut self.registry.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// The page, of now.
    pub async fn page(&self) -> Result<String, fmt::Error> {
        (self.refresh)().await;
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(|e| e.into_inner());
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// Memory, processor time and descriptors of the process, read when asked for.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if let Some(bytes) = resident_bytes() {
            let gauge = ConstGauge::new(bytes as i64);
            let help = "Memory of the process that is in RAM";
            let metric = encoder.encode_descriptor(
                "process_resident_memory",
                help,
                Some(&Unit::Bytes),
                prometheus_client::metrics::MetricType::Gauge,
            )?;
            gauge.encode(metric)?;
        }
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
        let metric = encoder.encode_descriptor(
            "process_cpu",
            "Processor time that the process has used, user and system",
            Some(&Unit::Seconds),
            prometheus_client::metrics::MetricType::Counter,
        )?;
        ConstCounter::new(seconds).encode(metric)?;
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            let gauge = ConstGauge::new(entries.count() as i64);
            let metric = encoder.encode_descriptor(
                "process_open_descriptors",
                "Files and sockets that the process has open",
                None,
                prometheus_client::metrics::MetricType::Gauge,
            )?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}

/// proc_pid_statm(5): the second number is resident pages.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[tokio::test]
    async fn the_page_is_brought_up_to_date_when_it_is_asked_for_and_has_help_and_unit() {
        let counter: Counter = Counter::default();
        let refreshed = counter.clone();
        let refresh: Refresh = Arc::new(move || {
            refreshed.inc_by(4096);
            Box::pin(async {})
        });
        let metrics = Metrics::new("0.1.0", refresh);
        metrics.register(|r| {
            r.register_with_unit("written", "Bytes that initiators wrote", Unit::Bytes, counter.clone());
        });
        assert_eq!(counter.get(), 0, "nothing is done before somebody looks");
        let page = metrics.page().await.unwrap();
        assert!(page.contains("# HELP holdfast_written_bytes Bytes that initiators wrote"), "{page}");
        assert!(page.contains("holdfast_written_bytes_total 4096"), "{page}");
        assert!(page.contains("# UNIT holdfast_process_resident_memory_bytes bytes"), "{page}");
        assert!(page.contains("holdfast_process_cpu_seconds_total "), "{page}");
        assert!(page.ends_with("# EOF\n"));
    }
}
