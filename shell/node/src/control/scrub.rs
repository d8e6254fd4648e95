//! The scrub: every segment that this node owns is read from the disks of all its copies and compared once in a period,
//! so that a block that nobody reads does not rot on one copy until the others are gone. It is the same comparison as
//! `volume check`, one segment at a time and slowly; what it finds is healed where a copy is good, and is an event.
//!
//! What is kept over a restart is up to when all that was due is done. A node that was away catches up, one period at
//! most.

use super::{Shared, check::check_here, unix_seconds};
use crate::config::ScrubState;
use holdfast_cluster::{UnixSeconds, due_for_scrub};
use holdfast_types::Duration as Pace;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Between extents that hold something: 20 MiB a second of each disk at most.
const PACE: Pace = Pace::from_millis(50);
/// The same for a node that owns more than it can read so slowly, and is behind by a tenth of a period.
const PACE_BEHIND: Pace = Pace::from_millis(10);
/// The longest time between looks at what is due, and the shortest.
const LOOK_EVERY: Duration = Duration::from_secs(60);
const LOOK_EVERY_LEAST: Duration = Duration::from_millis(500);

/// What this node has scrubbed since it started.
#[derive(Debug, Default)]
pub struct Scrubbed {
    /// Segments.
    pub segments: AtomicU64,
    /// Bytes of one copy each.
    pub bytes: AtomicU64,
    /// Blocks of a copy that were not as they should be.
    pub findings: AtomicU64,
}

/// Runs for as long as this node does.
pub async fn run(shared: Arc<Shared>) -> anyhow::Result<()> {
    let every = shared.scrub_every.as_secs();
    if every == 0 {
        std::future::pending::<()>().await;
    }
    let look_every = (shared.scrub_every / 10).clamp(LOOK_EVERY_LEAST, LOOK_EVERY);
    let mut through = match shared.dir.load_scrub() {
        Ok(kept) => kept.map_or_else(unix_seconds, |kept| UnixSeconds(kept.through_unix_seconds)),
        Err(error) => {
            tracing::warn!(%error, "it is not known what was scrubbed; from now on it is");
            unix_seconds()
        }
    };
    loop {
        tokio::time::sleep(look_every).await;
        let now = unix_seconds();
        let earliest = UnixSeconds(now.0.saturating_sub(every));
        if through < earliest {
            shared.events.scrub_behind(earliest.0 - through.0);
        }
        // Not later than now, should the clock have been set back.
        through = through.clamp(earliest, now);
        let due = due_for_scrub(&shared.map(), shared.node, through, now, every);
        let any = !due.is_empty();
        for (at, segment) in due {
            // None: another node owns it by now, and scrubs it when it is due again.
            let behind = unix_seconds().0.saturating_sub(at.0) > every / 10;
            let pace = if behind { PACE_BEHIND } else { PACE };
            if let Some(checked) = check_here(&shared, segment, pace).await {
                let volume = shared.map().volumes.get(&segment.segment.volume).map(|v| v.name.clone());
                shared.events.scrubbed(&volume.unwrap_or_default(), &checked.findings);
                shared.scrubbed.segments.fetch_add(1, Ordering::Relaxed);
                shared.scrubbed.bytes.fetch_add(checked.bytes, Ordering::Relaxed);
                shared.scrubbed.findings.fetch_add(checked.findings.len() as u64, Ordering::Relaxed);
            }
            keep(&shared, at);
        }
        through = now;
        if any {
            keep(&shared, now);
        }
    }
}

/// What cannot be kept is scrubbed once more after a restart; no reason to end.
fn keep(shared: &Shared, through: UnixSeconds) {
    if let Err(error) = shared.dir.save_scrub(ScrubState { through_unix_seconds: through.0 }) {
        tracing::warn!(%error, "what was scrubbed cannot be kept");
    }
}
