//! What a store is given and what it says: its configuration, its outputs, its errors. Nothing here decides.

use crate::layout::FormatError;
use alloc::vec::Vec;
use core::fmt;
use holdfast_types::{
    BlockIndex, ClusterId, DiskFault, DiskId, DiskIncarnation, DiskOrder, Duration, ExtentIndex, Lsn, NodeId,
    OrderToken, SegmentKey, StoreOutcome, Time,
};
use thiserror::Error;

/// Who a disk is. An address or a path is never an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskIdentity {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The host that formatted it.
    pub node: NodeId,
    /// The disk.
    pub disk: DiskId,
    /// The generation of its content.
    pub incarnation: DiskIncarnation,
    /// Drawn at random at each start: an old image of the disk shows an old one.
    pub boot_nonce: u64,
}

/// Sizes and times of a store. The default is right for a disk of any size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// The journal ring's size when formatting; None: a sixteenth of the disk, within bounds.
    pub journal_bytes: Option<u64>,
    /// Committed data that may wait to be written in place before that is done with more of the disk's time; half of
    /// it has it begin.
    pub dirty_limit_bytes: usize,
    /// Memory for extent pages that are not being changed.
    pub page_cache_bytes: usize,
    /// Data of records, committed or not, kept in memory until it is in place; beyond it the journal's copy serves.
    pub log_memory_bytes: usize,
    /// Journal kept behind the newest record although its content is in place, so that a copy that was away for
    /// a moment is brought up by records.
    pub log_retain_bytes: u64,
    /// Data of a write of so many blocks goes to its extent's shadow at once where it can, and not through the journal.
    pub direct_from_blocks: u32,
    /// Committed data is written in place when nothing was committed for this long.
    pub idle_writeback: Duration,
}

/// Data of records that a disk's store keeps in memory.
pub const LOG_MEMORY_BYTES: usize = 64 << 20;
/// Pages of extents that it keeps in memory.
pub const PAGE_CACHE_BYTES: usize = 16 << 20;

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            journal_bytes: None,
            dirty_limit_bytes: 32 << 20,
            page_cache_bytes: PAGE_CACHE_BYTES,
            log_memory_bytes: LOG_MEMORY_BYTES,
            log_retain_bytes: 64 << 20,
            direct_from_blocks: 16,
            idle_writeback: Duration::from_secs(1),
        }
    }
}

/// What a store says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOutput {
    /// An order to the disk.
    Disk(DiskOrder),
    /// What came of an order.
    Done {
        /// Whose copy.
        segment: SegmentKey,
        /// The order's.
        token: OrderToken,
        /// What came of it.
        outcome: StoreOutcome,
    },
    /// The disk can be used.
    Opened(OpenReport),
    /// The disk cannot be used.
    OpenFailed(OpenError),
    /// A copy that was given up is gone, durably: no crash brings it back.
    Dropped {
        /// Whose.
        segment: SegmentKey,
    },
    /// Something that an operator should hear of.
    Event(StoreEvent),
}

/// What opening found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenReport {
    /// Who the disk is, with the new boot nonce.
    pub identity: DiskIdentity,
    /// The boot nonce of the run before; of a fresh disk, its own.
    pub previous_boot_nonce: u64,
    /// How many journal records were read back.
    pub records_replayed: u64,
    /// Whether a batch that was being written when the last run ended was found torn, and cut off. Nothing in it
    /// was acknowledged.
    pub torn_tail_cut: bool,
    /// The segments with a copy here.
    pub segments: Vec<SegmentKey>,
    /// The device has grown: how much of it was used before, in bytes.
    pub grown_from: Option<u64>,
    /// Blocks of the superblocks, the journal or the pages that could not be read: the first byte of each on the disk. What is
    /// needed of them is found elsewhere, or their damage is told of as any other.
    pub unreadable: Vec<u64>,
}

/// Whose disk is to be found at a place, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskExpected {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The disk.
    pub disk: DiskId,
}

/// Why a disk cannot be used. Each says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Neither superblock is one of ours.
    #[error("{}", if *.damaged { "both superblocks are damaged: replace the disk, or format it anew and let its copies be rebuilt" } else { "the disk is blank: format it with `holdfast disk add`" })]
    NotHoldfast {
        /// Something else than zeros is there.
        damaged: bool,
    },
    /// The disk belongs to another cluster.
    #[error(
        "the disk belongs to cluster {found}, not to {expected}: return it there, or wipe it before adding it here"
    )]
    OtherCluster {
        /// This cluster.
        expected: ClusterId,
        /// The disk's.
        found: ClusterId,
    },
    /// The disk belongs to another node.
    #[error(
        "the disk belongs to node {found}, not to node {expected}: return it there, or wipe it before adding it here"
    )]
    OtherNode {
        /// This node.
        expected: NodeId,
        /// The disk's.
        found: NodeId,
    },
    /// The disk is another one of this node's.
    #[error(
        "this is disk {found}, not {expected}: devices changed their names; use stable paths (/dev/disk/by-id)"
    )]
    OtherDisk {
        /// The one that was to be here.
        expected: DiskId,
        /// The one that is.
        found: DiskId,
    },
    /// The device is shorter than it was.
    #[error(
        "the device has {found} bytes, its superblock says {expected}: restore its size, or wipe it and let its copies be rebuilt"
    )]
    Truncated {
        /// As formatted.
        expected: u64,
        /// As it is.
        found: u64,
    },
    /// The disk was formatted by another version.
    #[error("format version {found} is unknown to this version (it knows {known}): upgrade this node")]
    UnknownVersion {
        /// The disk's.
        found: u16,
        /// The newest that is known.
        known: u16,
    },
    /// A journal batch is bad and later ones are good, so that this is no torn tail.
    #[error(
        "journal batch {sequence} at byte {offset} is damaged and later ones exist: wipe the disk and let its copies be rebuilt"
    )]
    JournalCorrupt {
        /// The damaged batch's number.
        sequence: u64,
        /// Where it should be on the disk.
        offset: u64,
    },
    /// The disk failed an order while it was opened.
    #[error(
        "{0} while opening: check the cabling and the kernel log, then restart the node or replace the disk"
    )]
    Io(DiskFault),
    /// The disk cannot be formatted.
    #[error(transparent)]
    Format(FormatError),
}

/// What the store was doing when the disk failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskActivity {
    /// Writing the journal.
    Journal,
    /// Writing a superblock.
    Superblock,
    /// Writing data in place.
    Data,
    /// Writing extent pages.
    Metadata,
    /// Flushing.
    Flush,
    /// Reading metadata or journal that cannot be done without.
    ReadBack,
}

/// Something that an operator should hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreEvent {
    /// The disk owes an answer and has given none for [`crate::SILENT_AFTER`]. It may come back.
    DiskSilent {
        /// Since when.
        since: Time,
    },
    /// It answers again.
    DiskAnswers {
        /// How long it was silent.
        after: Duration,
    },
    /// The disk answers, and took too long to on average ([`crate::SLOW_FROM`]) in half of the last seconds.
    DiskSlow {
        /// For a batch of the journal, in the last of them.
        journal: Duration,
        /// For a read.
        reads: Duration,
    },
    /// It was not slow for a while.
    DiskKeepsUp {
        /// For how long it was said to be.
        after: Duration,
    },
    /// The disk is failed for good, for all its segments.
    DiskFailed {
        /// What was being done.
        activity: DiskActivity,
        /// How the device failed it; None: what it returned did not pass its checksum.
        fault: Option<DiskFault>,
    },
    /// A record was given whose data does not pass the checksum that came with it. It was refused.
    DamagedRecord {
        /// Whose record.
        segment: SegmentKey,
        /// Which.
        lsn: Lsn,
    },
    /// What a record wrote was not in place yet and does not pass its checksum in the journal. It is put in place as it is,
    /// where a read finds it damaged.
    DamagedContent {
        /// Whose block.
        segment: SegmentKey,
        /// Which.
        block: BlockIndex,
    },
    /// An extent's page is damaged or unreadable: its copy is incomplete from now on, and an owner elsewhere mends it.
    PageDamaged {
        /// The page's number on the disk.
        page: u32,
        /// Whose page.
        segment: SegmentKey,
        /// Of which extent.
        extent: ExtentIndex,
    },
}

impl fmt::Display for DiskActivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DiskActivity::Journal => "writing the journal",
            DiskActivity::Superblock => "writing a superblock",
            DiskActivity::Data => "writing data in place",
            DiskActivity::Metadata => "writing metadata",
            DiskActivity::Flush => "flushing",
            DiskActivity::ReadBack => "reading back what it cannot do without",
        })
    }
}

impl fmt::Display for StoreEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreEvent::DiskSilent { .. } => f.write_str("does not answer: others serve what it holds"),
            StoreEvent::DiskAnswers { after } => {
                write!(f, "answers again, after {} ms", after.0 / 1_000_000)
            }
            StoreEvent::DiskSlow { journal, reads } => {
                let (journal, reads) = (journal.0 / 1_000_000, reads.0 / 1_000_000);
                write!(f, "is slow: a write of the journal takes {journal} ms, a read {reads} ms; ")?;
                f.write_str("others own what it holds")
            }
            StoreEvent::DiskKeepsUp { after } => {
                write!(f, "keeps up again, after {} s", after.0 / 1_000_000_000)
            }
            StoreEvent::DiskFailed { activity, fault } => {
                write!(f, "failed for good while {activity}: ")?;
                match fault {
                    Some(fault) => write!(f, "{fault}")?,
                    None => f.write_str("what it returned does not pass its checksum")?,
                }
                f.write_str("; its copies count no more: replace it")
            }
            StoreEvent::DamagedRecord { segment, lsn } => {
                write!(
                    f,
                    "record {lsn} of segment {} came with a wrong checksum and was refused",
                    segment.segment
                )
            }
            StoreEvent::DamagedContent { segment, block } => {
                write!(f, "block {} of segment {} is damaged in the journal; ", block.0, segment.segment)?;
                f.write_str("a read of it, or `holdfast volume check`, mends it from another copy")
            }
            StoreEvent::PageDamaged { page, segment, extent } => {
                write!(
                    f,
                    "metadata page {page} is damaged (extent {} of segment {}); ",
                    extent.0, segment.segment
                )?;
                f.write_str("the copy is incomplete until another one has mended it")
            }
        }
    }
}

/// How full a store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Extents on the disk.
    pub extents_total: u64,
    /// Extents that no segment holds.
    pub extents_free: u64,
    /// Extents that new data may still take; zero: the disk is full, and only what is there can be changed.
    pub extents_for_new_data: u64,
    /// Pages that are in use.
    pub pages_used: u64,
    /// The journal ring's size in bytes.
    pub journal_bytes: u64,
    /// How much of it is in use.
    pub journal_used: u64,
    /// Committed data in memory that is not in place yet.
    pub dirty_bytes: u64,
    /// Memory of cached pages.
    pub cached_bytes: u64,
    /// It owes answers and gives none.
    pub is_silent: bool,
    /// It answers, and takes too long to.
    pub is_slow: bool,
    /// What the journal wrote since the disk was opened.
    pub journal: JournalTimes,
}

/// What a journal wrote, and how long the disk took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalTimes {
    /// Batches, each one write that the disk had to make durable.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// From a batch's order until it was durable, summed over batches.
    pub flush: Duration,
}
