//! The bounds of the cluster map. Each is one constant; docs/operations.md lists those that a user meets.

/// The longest name of a cluster, node, pool or volume, in characters.
pub const MAX_NAME_CHARS: usize = 63;
/// The largest volume: it bounds the segments that one command creates.
pub const MAX_VOLUME_BYTES: u64 = 64 << 40;
/// The most copies of a volume. Five survive two lost hosts without a stall.
pub const MAX_COPIES: u8 = 5;
/// How many times a pool's raw size, divided by the copies, the volumes in it may add up to. Volumes are thin;
/// beyond this a typing mistake is more likely than a plan.
pub const OVERCOMMIT: u64 = 10;
/// The most nodes ever admitted to a cluster.
pub const MAX_NODES: usize = 1024;
/// The most disks of a cluster.
pub const MAX_DISKS: usize = 16_384;
/// The most pools of a cluster.
pub const MAX_POOLS: usize = 256;
/// The most unexpired, unused join tokens.
pub const MAX_TOKENS: usize = 256;
/// The most initiator sessions that are registered at a time.
pub const MAX_SESSIONS: usize = 65_536;
/// The most sessions that ended and are remembered, so that a login that was delayed is told from a new one.
pub const MAX_ENDED_SESSIONS: usize = 256;
/// The most predecessors of a session that wait to be fenced.
pub const MAX_FENCES_PER_SESSION: usize = 64;
/// The longest name of an initiator's nexus, in bytes (an iSCSI name has at most 223, then the ISID).
pub const MAX_NEXUS_BYTES: usize = 256;
/// The longest address or path, in bytes.
pub const MAX_TEXT_BYTES: usize = 4096;
/// The most commands of a batch.
pub const MAX_BATCH: usize = 4096;
/// A disk with less than this part of its size free takes no new segments.
pub const FULL_FRACTION: u64 = 64;
/// Control hears of a disk's free room when such a part of the disk was taken or given back.
pub const ROOM_TOLD_FRACTION: u64 = 100;
/// RFC 3720 8.2.1 wants CHAP secrets of 96 bits and more.
pub const CHAP_SECRET_BYTES: core::ops::RangeInclusive<usize> = 12..=255;
