//! Which group this node's control is of, and what the others say about that.

use crate::codec;
use crate::recover::Generation;
use crate::store::Writer;
use crate::wire::Fault;
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
    /// Held while a node that is in no group enters one.
    entering: tokio::sync::Mutex<()>,
    writer: Writer,
    standing: watch::Sender<Standing>,
}

impl Group {
    pub(crate) fn new(generation: Option<Generation>, writer: Writer) -> Self {
        let standing = watch::Sender::new(Standing::Member);
        let entering = tokio::sync::Mutex::default();
        Self(Arc::new(Inner { generation: Mutex::new(generation), entering, writer, standing }))
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

    /// Another node refuses this one, or would.
    pub(crate) fn refused(&self, fault: Fault) {
        let standing = match fault {
            Fault::Removed => Standing::Removed,
            Fault::OtherGroup { generation } if self.generation().gives_way_to(Generation(generation)) => {
                Standing::Superseded
            }
            _ => return,
        };
        self.0.standing.send_if_modified(|known| std::mem::replace(known, standing) != standing);
    }

    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.0.standing.subscribe()
    }
}
