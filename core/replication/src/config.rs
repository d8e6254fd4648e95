//! The limits and times of replication, each with its reason. The defaults are the product's.

use holdfast_types::Duration;

/// Bytes of records on their way to one copy.
const COPY_IN_FLIGHT_BYTES: usize = 8 << 20;
/// Bytes of records that a node keeps in memory for copies that are behind.
const RETAINED_BYTES: usize = 32 << 20;

/// How a read proves that no newer owner exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadCheck {
    /// Leases of w(S) copies. Costs nothing per read.
    Lease,
    /// A question to w(S) copies for each burst of reads: for hosts whose clock may stop (replication.md H10).
    Quorum,
}

/// Of every replica.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// How long a lease lasts, counted from when it is granted. The same on all nodes.
    pub lease: Duration,
}

impl Default for ReplicaConfig {
    fn default() -> Self {
        Self { lease: Duration::from_secs(1) }
    }
}

/// Of every owner.
#[derive(Clone, Debug)]
pub struct OwnerConfig {
    /// How long a lease lasts. The same on all nodes.
    pub lease: Duration,
    /// How far two hosts' clocks may drift apart, in thousandths: that much shorter is the lease at the owner.
    pub drift_per_mille: u64,
    /// How reads are checked.
    pub reads: ReadCheck,
    /// Bytes of records that are not committed, or not yet in the own copy. Above it requests queue.
    pub in_flight_bytes: usize,
    /// Records that are not committed.
    pub in_flight_records: usize,
    /// Requests that queue. Above it the gateway is told to come again.
    pub queued_requests: usize,
    /// Bytes of data that queue.
    pub queued_bytes: usize,
    /// Bytes of records on their way to one copy.
    pub copy_in_flight_bytes: usize,
    /// Bytes of committed records that all owners of a node together keep in memory for copies that are behind. Older
    /// ones come from the own copy's journal; a copy that needs what is not there any more leaves S.
    pub retained_bytes: usize,
    /// A copy that is away or stuck for longer leaves S.
    pub drop_after: Duration,
    /// The same where no quorum is possible without it: every write waits for that.
    pub drop_after_blocking: Duration,
    /// The same of one that is reached, has room and acknowledges nothing. A host that is gone, or its disk, is known sooner by
    /// other signs; on a network that is full the next packet may be the fourth attempt, three seconds later, and
    /// one copy alone is what a second loss would end.
    pub stuck_after_blocking: Duration,
    /// A phase of an activation that lasts for longer is stuck: a copy is left out, or another node is to own.
    pub activation_patience: Duration,
    /// What is unanswered is sent again after this, then at growing intervals.
    pub resend: Duration,
    /// The longest of those intervals.
    pub resend_max: Duration,
    /// A commit that no append carried on is told to the copies after this.
    pub commit_heartbeat: Duration,
    /// Requests that wait for longer without any commit are an event.
    pub stall: Duration,
    /// Extents of a resync that are under way at once.
    pub resync_window: usize,
}

impl Default for OwnerConfig {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(1),
            drift_per_mille: 10,
            reads: ReadCheck::Lease,
            in_flight_bytes: 32 << 20,
            in_flight_records: 1024,
            queued_requests: 4096,
            queued_bytes: 64 << 20,
            copy_in_flight_bytes: COPY_IN_FLIGHT_BYTES,
            retained_bytes: RETAINED_BYTES,
            drop_after: Duration::from_secs(10),
            drop_after_blocking: Duration::from_millis(1500),
            stuck_after_blocking: Duration::from_secs(4),
            activation_patience: Duration::from_millis(750),
            resend: Duration::from_millis(100),
            resend_max: Duration::from_secs(1),
            commit_heartbeat: Duration::from_millis(50),
            stall: Duration::from_secs(1),
            resync_window: 4,
        }
    }
}
