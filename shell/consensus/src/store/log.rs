//! openraft's log storage over the writer thread and the log in memory.

use super::writer::{Loaded, Writer};
use crate::codec;
use crate::raft_types::{Entry, LogId, StorageError, TypeConfig, Vote};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader, StorageIOError};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Debug, Default)]
struct Memory {
    log: BTreeMap<u64, Entry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

/// The log. Clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    writer: Writer,
    memory: Arc<Mutex<Memory>>,
}

impl LogStore {
    /// The log as it was loaded; its snapshot is the state machine's.
    pub(crate) fn new(writer: Writer, loaded: Loaded) -> Self {
        let Loaded { vote, committed, purged, log, snapshot: _, generation: _ } = loaded;
        Self { writer, memory: Arc::new(Mutex::new(Memory { log, purged, vote, committed })) }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Nothing panics while it is held, and a map is whole in any case.
        self.memory.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.memory().log.range(range).map(|(_, entry)| entry.clone()).collect())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let memory = self.memory();
        let last = memory.log.last_key_value().map(|(_, e)| e.log_id);
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: last.or(memory.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let bytes = codec::encode(vote).map_err(|e| StorageIOError::write_vote(&e))?;
        self.writer.put_vote(bytes).await.map_err(|e| StorageIOError::write_vote(&e))?;
        self.memory().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.memory().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.memory().committed = committed;
        let Some(committed) = committed else { return Ok(()) };
        let bytes = codec::encode(&committed).map_err(|e| StorageIOError::write(&e))?;
        self.writer.put_committed(bytes).map_err(|e| StorageIOError::write(&e))?;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let memory = self.memory();
        let last = memory.log.last_key_value().map(|(_, e)| e.log_id).or(memory.purged);
        Ok(memory.committed.min(last))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut rows = Vec::new();
        let mut memory = self.memory();
        for entry in entries {
            let log_id = entry.log_id;
            let bytes = codec::encode(&entry).map_err(|e| StorageIOError::write_log_entry(log_id, &e))?;
            rows.push((log_id.index, bytes));
            memory.log.insert(log_id.index, entry);
        }
        drop(memory);
        self.writer.append(rows, callback);
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.memory().log.split_off(&log_id.index);
        self.writer.truncate(log_id.index).await.map_err(|e| StorageIOError::write_logs(&e))?;
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let bytes = codec::encode(&log_id).map_err(|e| StorageIOError::write_logs(&e))?;
        {
            let mut memory = self.memory();
            memory.log = memory.log.split_off(&(log_id.index + 1));
            memory.purged = Some(log_id);
        }
        self.writer.purge(log_id.index, bytes).await.map_err(|e| StorageIOError::write_logs(&e))?;
        Ok(())
    }
}
