//! openraft's state machine: the cluster map, `apply`, and snapshots of it. Whoever watches the map sees each
//! batch of applied commands as one change. It may see the leader's map before (elsewhere.rs), and never an older one after
//! a newer.

use crate::codec;
use crate::elsewhere::show;
use crate::raft_types::{Entry, LogId, SnapshotMeta, StorageError, StoredMembership, TypeConfig};
use crate::store::{StoredSnapshot, Writer};
use holdfast_cluster::{ClusterMap, CommandError, CommandResult};
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError};
use std::io::Cursor;
use std::sync::Arc;
use tokio::sync::watch;

/// What the log makes, up to some entry of it.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) map: Arc<ClusterMap>,
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: StoredMembership,
}

impl State {
    /// As of a snapshot, or of nothing.
    pub(crate) fn of(snapshot: Option<&StoredSnapshot>) -> Result<Self, codec::CodecError> {
        let Some(StoredSnapshot { meta, data }) = snapshot else { return Ok(Self::default()) };
        let map = Arc::new(codec::decode(data)?);
        Ok(Self { map, applied: meta.last_log_id, membership: meta.last_membership.clone() })
    }

    pub(crate) fn apply(&mut self, entry: Entry) -> Result<CommandResult, CommandError> {
        self.applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Ok(CommandResult::Done),
            EntryPayload::Normal(command) => holdfast_cluster::apply(Arc::make_mut(&mut self.map), command),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Ok(CommandResult::Done)
            }
        }
    }

    /// Of what a snapshot of it is.
    pub(crate) fn meta(&self) -> SnapshotMeta {
        let index = self.applied.map_or(0, |id| id.index);
        SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            // The same log position gives the same map, so that this names the content.
            snapshot_id: format!("{index}-{}", self.map.version),
        }
    }
}

/// The state machine.
pub(crate) struct Machine {
    writer: Writer,
    state: State,
    shown: watch::Sender<Arc<ClusterMap>>,
    snapshot: Arc<std::sync::Mutex<Option<StoredSnapshot>>>,
}

impl Machine {
    /// The state machine as of the stored snapshot; openraft applies the rest of the log.
    pub(crate) fn new(
        writer: Writer,
        snapshot: Option<StoredSnapshot>,
    ) -> Result<(Self, watch::Sender<Arc<ClusterMap>>), codec::CodecError> {
        let state = State::of(snapshot.as_ref())?;
        let (shown, _) = watch::channel(Arc::clone(&state.map));
        let snapshot = Arc::new(std::sync::Mutex::new(snapshot));
        Ok((Self { writer, state, shown: shown.clone(), snapshot }, shown))
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.state.applied, self.state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Result<CommandResult, CommandError>>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let replies = entries.into_iter().map(|entry| self.state.apply(entry)).collect();
        show(&self.shown, &self.state.map);
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            map: Arc::clone(&self.state.map),
            meta: self.state.meta(),
            writer: self.writer.clone(),
            current: Arc::clone(&self.snapshot),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let snapshot = StoredSnapshot { meta: meta.clone(), data: snapshot.into_inner() };
        let fault = |e: &codec::CodecError| StorageIOError::read_snapshot(Some(meta.signature()), e);
        let state = State::of(Some(&snapshot)).map_err(|e| fault(&e))?;
        store(&self.writer, &self.snapshot, snapshot).await?;
        self.state = state;
        show(&self.shown, &self.state.map);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        Ok(lock(&self.snapshot).clone().map(shipped))
    }
}

/// Writes a snapshot of the map as it was when this was made.
pub(crate) struct Builder {
    map: Arc<ClusterMap>,
    meta: SnapshotMeta,
    writer: Writer,
    current: Arc<std::sync::Mutex<Option<StoredSnapshot>>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let fault = |e: &codec::CodecError| StorageIOError::write_snapshot(Some(self.meta.signature()), e);
        let data = codec::encode(&*self.map).map_err(|e| fault(&e))?;
        let snapshot = StoredSnapshot { meta: self.meta.clone(), data };
        store(&self.writer, &self.current, snapshot.clone()).await?;
        Ok(shipped(snapshot))
    }
}

/// Flushes a snapshot, then shows it: the log is purged on the strength of it.
async fn store(
    writer: &Writer,
    current: &std::sync::Mutex<Option<StoredSnapshot>>,
    snapshot: StoredSnapshot,
) -> Result<(), StorageError> {
    // A snapshot that was being built when a later one arrived must not take its place.
    if lock(current).as_ref().is_some_and(|have| have.meta.last_log_id > snapshot.meta.last_log_id) {
        return Ok(());
    }
    let signature = Some(snapshot.meta.signature());
    let bytes =
        codec::encode(&snapshot).map_err(|e| StorageIOError::write_snapshot(signature.clone(), &e))?;
    writer.put_snapshot(bytes).await.map_err(|e| StorageIOError::write_snapshot(signature, &e))?;
    *lock(current) = Some(snapshot);
    Ok(())
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn shipped(snapshot: StoredSnapshot) -> Snapshot<TypeConfig> {
    Snapshot { meta: snapshot.meta, snapshot: Box::new(Cursor::new(snapshot.data)) }
}
