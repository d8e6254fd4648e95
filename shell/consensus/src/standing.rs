//! Which group this node's control is of, and what the others say about that; and who has forgotten.
//!
//! A node that was in the group and has an empty database has forgotten for whom it voted and what it acknowledged (its
//! database was damaged, or is gone). To the group it must be as one that is down, or an entry that a majority had could
//! be lost, and a term have two leaders: it answers nothing until the leader has taken it out of the group, and only then
//! is it let in, as one that joins.

use crate::codec;
use crate::recover::Generation;
use crate::store::Writer;
use crate::wire::Fault;
use holdfast_types::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// What other nodes say of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing against it.
    Member,
    /// It was removed from the cluster.
    Removed,
    /// They are of a later group, that was made because this one's majority was taken for lost.
    Superseded,
}

/// Shared by everything that speaks for this node.
#[derive(Clone)]
pub(crate) struct Group(Arc<Inner>);

struct Inner {
    /// None: this node was in no group yet.
    generation: Mutex<Option<Generation>>,
    /// Some: this node has forgotten; the number is drawn for this run, so that a word to an earlier run counts no more.
    forgot: Mutex<Option<u64>>,
    /// Others that have, as they said themselves.
    forgetful: watch::Sender<BTreeSet<NodeId>>,
    /// How often each of the others was found to have less than it had acknowledged.
    reverted: watch::Sender<BTreeMap<NodeId, u64>>,
    /// Held while a node that is in no group enters one.
    entering: tokio::sync::Mutex<()>,
    writer: Writer,
    standing: watch::Sender<Standing>,
}

impl Group {
    pub(crate) fn new(generation: Option<Generation>, forgot: Option<u64>, writer: Writer) -> Self {
        Self(Arc::new(Inner {
            generation: Mutex::new(generation),
            forgot: Mutex::new(forgot),
            forgetful: watch::Sender::default(),
            reverted: watch::Sender::default(),
            entering: tokio::sync::Mutex::default(),
            writer,
            standing: watch::Sender::new(Standing::Member),
        }))
    }

    /// The group that this node speaks for.
    pub(crate) fn generation(&self) -> Generation {
        self.known().unwrap_or_default()
    }

    fn known(&self) -> Option<Generation> {
        // Nothing panics while it is held.
        *self.0.generation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a message of that group is for this node. The first one that comes to a node without a group decides of
    /// which it is, and that is on the disk before anything else of it is.
    pub(crate) async fn admits(&self, theirs: Generation) -> io::Result<bool> {
        if self.known().is_none() {
            let _entering = self.0.entering.lock().await;
            if self.known().is_none() {
                let bytes = codec::encode(&theirs.0).map_err(io::Error::other)?;
                self.0.writer.put_generation(bytes).await?;
                *self.0.generation.lock().unwrap_or_else(PoisonError::into_inner) = Some(theirs);
            }
        }
        Ok(self.known() == Some(theirs))
    }

    /// Whether a message of that group is for this node, once it is in one.
    pub(crate) fn may_enter(&self, theirs: Generation) -> bool {
        self.known().is_none_or(|ours| ours == theirs)
    }

    /// The number under which this run has forgotten, if it has.
    pub(crate) fn forgot(&self) -> Option<u64> {
        *self.0.forgot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this node votes for and acknowledges from now on is on its disk.
    pub(crate) fn takes_part_again(&self) {
        *self.0.forgot.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The others that have forgotten.
    pub(crate) fn forgetful(&self) -> watch::Receiver<BTreeSet<NodeId>> {
        self.0.forgetful.subscribe()
    }

    /// Another node has not forgotten, or not any more.
    pub(crate) fn remembers(&self, node: NodeId) {
        self.0.forgetful.send_if_modified(|known| known.remove(&node));
    }

    /// Another node has less than it had acknowledged.
    pub(crate) fn reverted(&self, node: NodeId) {
        self.0.reverted.send_modify(|known| *known.entry(node).or_default() += 1);
    }

    /// How often that was found of each.
    pub(crate) fn reversions(&self) -> watch::Receiver<BTreeMap<NodeId, u64>> {
        self.0.reverted.subscribe()
    }

    /// What another node answers instead of doing what it was asked.
    pub(crate) fn refused(&self, by: NodeId, fault: Fault) {
        let standing = match fault {
            Fault::Removed => Standing::Removed,
            Fault::OtherGroup { generation } if self.generation().gives_way_to(Generation(generation)) => {
                Standing::Superseded
            }
            Fault::Forgot { .. } => {
                self.0.forgetful.send_if_modified(|known| known.insert(by));
                return;
            }
            _ => return,
        };
        self.0.standing.send_if_modified(|known| std::mem::replace(known, standing) != standing);
    }

    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.0.standing.subscribe()
    }
}
