//! Opening this node's disks, in agreement with control: every opening has a random nonce that control swaps in
//! by compare-and-set, thus an older copy of a disk is found out (replication.md H20). What was swapped last and
//! what is about to be is kept in the data folder, so that a crash between the two is not taken for an old copy.

use super::{Shared, refuse_disk};
use crate::config::LocalDisk;
use crate::data::{DataHandle, boot_time};
use anyhow::Context;
use holdfast_cluster::{Command, CommandResult};
use holdfast_engine::{DiskOpen, EngineEvent};
use holdfast_store::{DiskIdentity, OpenReport, SILENT_AFTER, StoreEvent};
use holdfast_types::{DiskId, DiskIncarnation, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Seek;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The nonces of a disk's openings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Openings {
    /// The last one that control is known to have taken.
    accepted: u64,
    /// Those since, that a store may have written; control may have taken one of them or none. No copy was used
    /// under them, so the disk's content is the same under each.
    tried: Vec<u64>,
}

/// Openings in a row without an answer of control's that are remembered.
const TRIED_MOST: usize = 1024;

impl Openings {
    /// The nonce that control is asked to swap for the new one: the one before on the disk, unless this node's own
    /// unfinished openings explain why control knows another.
    fn expected(&self, on_disk: u64, at_control: u64) -> u64 {
        let ours = |nonce| nonce == self.accepted || self.tried.contains(&nonce);
        if self.tried.contains(&on_disk) && ours(at_control) { at_control } else { on_disk }
    }
}

/// The disks of this node as the control thread knows them.
#[derive(Default)]
pub struct LocalDisks {
    disks: BTreeMap<DiskId, PathBuf>,
    openings: BTreeMap<String, Openings>,
}

/// A number that cannot be guessed, for an opening or a run.
pub(crate) fn fresh_nonce() -> u64 {
    let mut bytes = [0; 8];
    holdfast_net::pin::random(&mut bytes);
    // Zero means none.
    u64::from_le_bytes(bytes).max(1)
}

fn disk_size(path: &Path) -> anyhow::Result<u64> {
    let mut file = std::fs::File::open(path).with_context(|| format!("disk {}", path.display()))?;
    Ok(file.seek(std::io::SeekFrom::End(0))?)
}

fn openings_file(shared: &Shared) -> PathBuf {
    shared.dir.path().join("openings.json")
}

impl LocalDisks {
    /// Reads what is known of earlier openings.
    pub fn load(shared: &Shared) -> anyhow::Result<Self> {
        let openings = match holdfast_net::atomic::read_checked(&openings_file(shared)) {
            Ok(checked) => serde_json::from_str(&checked.content)?,
            Err(holdfast_net::atomic::CheckedError::Missing { .. }) => BTreeMap::new(),
            Err(error) => return Err(error.into()),
        };
        Ok(Self { disks: BTreeMap::new(), openings })
    }

    fn set(&mut self, shared: &Shared, disk: DiskId, openings: Openings) -> anyhow::Result<()> {
        self.openings.insert(disk.to_string(), openings);
        let text = serde_json::to_string_pretty(&self.openings)?;
        let file = openings_file(shared);
        holdfast_net::atomic::write_checked(&file, &text, holdfast_net::atomic::PRIVATE)
            .with_context(|| format!("{} cannot be replaced", file.display()))
    }

    fn of(&self, disk: DiskId) -> Openings {
        self.openings.get(&disk.to_string()).cloned().unwrap_or_default()
    }

    /// Opens a disk that was formatted earlier. One that hangs is waited for elsewhere: it holds up no other disk, nor this
    /// node.
    pub async fn attach(&mut self, shared: &Arc<Shared>, disk: &LocalDisk) -> anyhow::Result<()> {
        let nonce = fresh_nonce();
        let mut openings = self.of(disk.id);
        if openings.tried.len() == TRIED_MOST {
            openings.tried.remove(0);
        }
        openings.tried.push(nonce);
        self.set(shared, disk.id, openings)?;
        self.disks.insert(disk.id, disk.path.clone());
        let open = DiskOpen::Existing { boot_nonce: nonce };
        let (data, id, path) = (shared.data.clone(), disk.id, disk.path.clone());
        let since = boot_time();
        let mut opening = tokio::spawn(async move { data.attach(id, path, open).await });
        match timeout(Duration::from_nanos(SILENT_AFTER.0), &mut opening).await {
            Ok(opened) => opened?,
            Err(_) => {
                tokio::spawn(opens_late(shared.clone(), id, since, opening));
                Ok(())
            }
        }
    }

    /// Formats a disk in the incarnation that control gave it, and opens it.
    pub async fn format(
        &mut self,
        shared: &Shared,
        data: &DataHandle,
        disk: &LocalDisk,
        incarnation: DiskIncarnation,
        nonce: u64,
    ) -> anyhow::Result<()> {
        self.set(shared, disk.id, Openings { accepted: nonce, tried: Vec::new() })?;
        self.disks.insert(disk.id, disk.path.clone());
        let map = shared.map();
        let (cluster, node) = (map.cluster, shared.node);
        let identity = DiskIdentity { cluster, node, disk: disk.id, incarnation, boot_nonce: nonce };
        data.attach(disk.id, disk.path.clone(), DiskOpen::Format(identity)).await
    }

    /// What takes long of adding a new disk, and what fails for want of room: before control knows of the disk, and counts on it.
    pub async fn prewrite(&self, shared: &Shared, disk: &LocalDisk) -> anyhow::Result<()> {
        let layout = holdfast_store::layout(disk_size(&disk.path)?, &shared.engine.store)?;
        let (path, ranges) = (disk.path.clone(), layout.prewrite());
        Ok(tokio::task::spawn_blocking(move || holdfast_disk::prewrite(&path, &ranges, &mut |_| {}))
            .await??)
    }

    /// Adds a new disk to the cluster: control names its incarnation, then it is formatted.
    pub async fn add(
        &mut self,
        shared: &Shared,
        data: &DataHandle,
        disk: &LocalDisk,
        pool: &str,
    ) -> anyhow::Result<()> {
        let nonce = fresh_nonce();
        let size = disk_size(&disk.path)?;
        let path = disk.path.display().to_string();
        let command = Command::AddDisk {
            disk: disk.id,
            node: shared.node,
            size,
            path,
            pool: pool.into(),
            boot_nonce: nonce,
        };
        let CommandResult::DiskIncarnation(incarnation) = shared.propose_until_done(command).await? else {
            anyhow::bail!("control answered something else than an incarnation");
        };
        // A repeat after a crash finds the disk added under an earlier nonce: that one is what control knows.
        let known =
            shared.control.linearizable_map().await.and_then(|m| m.disks.get(&disk.id).map(|d| d.boot_nonce));
        self.format(shared, data, disk, incarnation, known.unwrap_or(nonce)).await
    }

    /// A new disk was not added to the end: nothing is to count on it.
    pub async fn give_up(&mut self, shared: &Shared, disk: &LocalDisk, why: &str) {
        self.disks.remove(&disk.id);
        shared.data.detach(disk.id).await;
        if !shared.newest_map_for_certain().await.disks.contains_key(&disk.id) {
            return;
        }
        refuse_disk(shared, disk.id, why).await;
        // Refused where copies were placed on it meanwhile: they get other places, and an operator removes it.
        if let Err(error) = shared.propose_until_done(Command::RemoveDisk { disk: disk.id }).await {
            tracing::warn!(%error, disk = %disk.id, "a disk that was not added to the end is not removed");
        }
    }

    /// A disk was added where others of this node were before: those are lost, and control is to know.
    pub async fn supersede(&mut self, shared: &Shared, new: &LocalDisk) {
        let path = new.path.display().to_string();
        let map = shared.map();
        let lost = map.disks_of(shared.node).filter(|d| d.path == path && d.id != new.id);
        for disk in lost {
            self.disks.remove(&disk.id);
            refuse_disk(shared, disk.id, &format!("disk {} was added at its path", new.id)).await;
        }
    }

    /// A store has opened its disk: control decides whether it is the one that it was.
    pub async fn opened(
        &mut self,
        shared: &Shared,
        data: &DataHandle,
        disk: DiskId,
        report: &OpenReport,
    ) -> anyhow::Result<Opening> {
        let identity = report.identity;
        let openings = self.of(disk);
        if identity.boot_nonce == openings.accepted {
            return Ok(Opening::Accepted);
        }
        let map = shared.newest_map().await;
        let known = map.disks.get(&disk).map(|d| d.boot_nonce).unwrap_or_default();
        let expect = openings.expected(report.previous_boot_nonce, known);
        let command = Command::DiskOpened { disk, expect_nonce: expect, new_nonce: identity.boot_nonce };
        let CommandResult::DiskIncarnation(incarnation) = shared.propose_until_done(command).await? else {
            anyhow::bail!("control answered something else than an incarnation");
        };
        if incarnation == identity.incarnation {
            self.set(shared, disk, Openings { accepted: identity.boot_nonce, tried: Vec::new() })?;
            return Ok(Opening::Accepted);
        }
        let path = self.disks.get(&disk).cloned().context("an unknown disk was opened")?;
        let local = LocalDisk { path, id: disk };
        let known =
            shared.control.linearizable_map().await.and_then(|m| m.disks.get(&disk).map(|d| d.boot_nonce));
        // What it was opened as gives way to what it is made.
        data.detach(disk).await;
        self.format(shared, data, &local, incarnation, known.unwrap_or(identity.boot_nonce)).await?;
        Ok(Opening::Regressed)
    }
}

/// A disk does not come to being opened: control is to know, as of one that hangs later.
async fn opens_late(shared: Arc<Shared>, disk: DiskId, since: Time, opening: JoinHandle<anyhow::Result<()>>) {
    shared.events.engine(&EngineEvent::Store { disk, event: StoreEvent::DiskSilent { since } });
    let told = async {
        let Some(incarnation) = shared.map().disks.get(&disk).map(|d| d.incarnation) else { return };
        let command = Command::DiskSilent { disk, incarnation, silent: true };
        if let Err(error) = shared.propose_until_done(command).await {
            tracing::warn!(%error, "control does not know that a disk does not answer");
        }
    };
    let ((), opened) = tokio::join!(told, opening);
    if let Err(error) = opened.map_err(anyhow::Error::from).flatten() {
        refuse_disk(&shared, disk, &format!("{error:#}")).await;
    }
}

/// What control made of an opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The disk is the one that it was.
    Accepted,
    /// It is an older copy: it starts empty, in a new incarnation.
    Regressed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_opening_of_ours_is_not_an_old_copy() {
        let openings = Openings { accepted: 5, tried: vec![6, 7] };
        assert_eq!(openings.expected(5, 5), 5);
        assert_eq!(openings.expected(6, 5), 5);
        assert_eq!(openings.expected(6, 6), 6);
        assert_eq!(openings.expected(7, 6), 6);
    }

    #[test]
    fn an_old_copy_is_presented_as_what_it_is() {
        let openings = Openings { accepted: 5, tried: vec![6] };
        assert_eq!(openings.expected(4, 5), 4);
        assert_eq!(openings.expected(6, 9), 6);
    }
}
