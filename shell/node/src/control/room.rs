//! Tells control how this node's disks do, for placement, for `holdfast status` and for the event log: whether they answer and keep up,
//! as soon as that changes, and how much room they have for new data. That often enough to be useful, seldom enough not to fill the log of consensus: when a disk becomes full
//! or stops being so, and when a hundredth of it was taken or given back.

use super::Shared;
use holdfast_cluster::{Command, Disk, DiskState};
use holdfast_engine::route::disks::Phase;
use holdfast_store::Usage;
use holdfast_types::EXTENT_BYTES;
use std::sync::Arc;
use std::time::Duration;

/// Between looks at the disks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Runs until the data thread has ended.
pub async fn report(shared: Arc<Shared>) -> anyhow::Result<()> {
    loop {
        let _ = tokio::time::timeout(LOOK_EVERY, shared.disk_news.notified()).await;
        let Some(status) = shared.data.status().await else { std::future::pending().await };
        let map = shared.map();
        for (id, phase, usage) in &status.disks {
            let Some(disk) = map.disks.get(id).filter(|d| in_use(d, *phase)) else { continue };
            let incarnation = disk.incarnation;
            // That it answers is worth something once it is open.
            let is_open = *phase != Phase::Opening;
            if usage.is_silent != (disk.state == DiskState::Silent) && (is_open || usage.is_silent) {
                let command = Command::DiskSilent { disk: *id, incarnation, silent: usage.is_silent };
                tell(&shared, command).await;
                continue;
            }
            if usage.is_slow != disk.slow && is_open {
                tell(&shared, Command::DiskSlow { disk: *id, incarnation, slow: usage.is_slow }).await;
            }
            let Some(free) = news(disk, usage).filter(|_| is_open) else { continue };
            shared.events.disk_room(disk, free);
            let command = Command::DiskFree { disk: *id, size: disk.size, free };
            tell(&shared, command).await;
        }
    }
}

/// Without a majority it is told later, as it is then.
async fn tell(shared: &Shared, command: Command) {
    if let Err(error) = shared.control.propose(command).await {
        tracing::debug!(%error, "control does not know how a disk does");
    }
}

fn in_use(disk: &Disk, phase: Phase) -> bool {
    let is_there = match phase {
        Phase::Opened { incarnation, .. } => incarnation == disk.incarnation,
        Phase::Opening => true,
        Phase::Refused => false,
    };
    is_there && (disk.serves() || disk.state == DiskState::Silent)
}

/// What a disk has free now, if control should hear of it.
fn news(disk: &Disk, usage: &Usage) -> Option<u64> {
    let free = (usage.extents_for_new_data * EXTENT_BYTES as u64).min(disk.size);
    disk.is_news(free).then_some(free)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::{DiskId, DiskIncarnation, NodeId};

    fn disk(size: u64, free: u64) -> Disk {
        Disk {
            id: DiskId(1),
            node: NodeId(1),
            incarnation: DiskIncarnation(1),
            state: DiskState::Ok,
            size,
            free,
            path: "/d".into(),
            boot_nonce: 1,
            pool: "default".into(),
            slow: false,
        }
    }
    fn usage(extents: u64) -> Usage {
        Usage { extents_for_new_data: extents, ..Usage::default() }
    }

    #[test]
    fn control_hears_of_a_hundredth_and_of_the_last_extent() {
        let mib = EXTENT_BYTES as u64;
        let known = |free: u64| disk(1000 * mib, free * mib);
        assert_eq!(news(&known(500), &usage(500)), None);
        assert_eq!(news(&known(500), &usage(495)), None);
        assert_eq!(news(&known(500), &usage(490)), Some(490 * mib));
        assert_eq!(news(&known(500), &usage(510)), Some(510 * mib));
        assert_eq!(news(&known(5), &usage(0)), Some(0), "full is told at once");
        assert_eq!(news(&known(0), &usage(1)), Some(mib), "and that it is not any more");
        assert_eq!(news(&known(0), &usage(0)), None);
    }
}
