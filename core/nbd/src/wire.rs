//! The numbers of the protocol ("Values" in the protocol document), and the limits that are told to clients.

use holdfast_types::{BLOCK_BYTES, SECTOR_BYTES};

/// The smallest piece a client may address.
pub const MIN_BLOCK_BYTES: u32 = SECTOR_BYTES as u32;
/// What a client had better keep to: smaller writes are merged into blocks.
pub const PREFERRED_BLOCK_BYTES: u32 = BLOCK_BYTES as u32;
/// The longest read or write. Every known client keeps to it without being told.
pub const MAX_PAYLOAD_BYTES: u32 = 32 << 20;

/// "NBDMAGIC", the first word of a server.
pub(crate) const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// "IHAVEOPT", the second word of a server, the first of every option.
pub(crate) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
pub(crate) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
pub(crate) const REQUEST_MAGIC: u32 = 0x2560_9513;
pub(crate) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
pub(crate) const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Handshake flags, the same of both sides.
pub(crate) const FLAG_FIXED_NEWSTYLE: u16 = 1;
pub(crate) const FLAG_NO_ZEROES: u16 = 2;

pub(crate) const CLIENT_FLAGS_LEN: usize = 4;
pub(crate) const OPTION_HEADER_LEN: usize = 16;
pub(crate) const REQUEST_LEN: usize = 28;
/// The longest data of an option. A name has at most 4096 bytes; a few queries fit beside it.
pub(crate) const MAX_OPTION_BYTES: usize = 16 << 10;
/// Names are at most this long ("String values").
pub(crate) const MAX_NAME_BYTES: usize = 4096;

/// Options.
pub(crate) mod option {
    pub(crate) const EXPORT_NAME: u32 = 1;
    pub(crate) const ABORT: u32 = 2;
    pub(crate) const LIST: u32 = 3;
    pub(crate) const INFO: u32 = 6;
    pub(crate) const GO: u32 = 7;
    pub(crate) const STRUCTURED_REPLY: u32 = 8;
    pub(crate) const LIST_META_CONTEXT: u32 = 9;
    pub(crate) const SET_META_CONTEXT: u32 = 10;
}

/// Types of option replies. What is not known (TLS and extended headers among them) gets `ERR_UNSUP`.
pub(crate) mod answer {
    pub(crate) const ACK: u32 = 1;
    pub(crate) const SERVER: u32 = 2;
    pub(crate) const INFO: u32 = 3;
    pub(crate) const META_CONTEXT: u32 = 4;
    const ERROR: u32 = 1 << 31;
    pub(crate) const ERR_UNSUP: u32 = ERROR | 1;
    pub(crate) const ERR_INVALID: u32 = ERROR | 3;
    pub(crate) const ERR_POLICY: u32 = ERROR | 2;
    pub(crate) const ERR_UNKNOWN: u32 = ERROR | 6;
}

/// Types of information about an export.
pub(crate) mod info {
    pub(crate) const EXPORT: u16 = 0;
    pub(crate) const NAME: u16 = 1;
    pub(crate) const DESCRIPTION: u16 = 2;
    pub(crate) const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags.
pub(crate) mod transmission {
    const HAS_FLAGS: u16 = 1 << 0;
    const SEND_FLUSH: u16 = 1 << 2;
    const SEND_FUA: u16 = 1 << 3;
    const SEND_TRIM: u16 = 1 << 5;
    const SEND_WRITE_ZEROES: u16 = 1 << 6;
    const SEND_DF: u16 = 1 << 7;
    const CAN_MULTI_CONN: u16 = 1 << 8;
    const SEND_CACHE: u16 = 1 << 10;

    /// What every volume offers. A completed write is stable and seen by every reader, whatever connection and
    /// gateway it came through, which is more than FUA and multi-conn ask for.
    pub(crate) const fn flags(structured: bool) -> u16 {
        let df = if structured { SEND_DF } else { 0 };
        HAS_FLAGS | SEND_FLUSH | SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES | CAN_MULTI_CONN | SEND_CACHE | df
    }
}

/// Request types.
pub(crate) mod request {
    pub(crate) const READ: u16 = 0;
    pub(crate) const WRITE: u16 = 1;
    pub(crate) const DISC: u16 = 2;
    pub(crate) const FLUSH: u16 = 3;
    pub(crate) const TRIM: u16 = 4;
    pub(crate) const CACHE: u16 = 5;
    pub(crate) const WRITE_ZEROES: u16 = 6;
    pub(crate) const BLOCK_STATUS: u16 = 7;
}

/// Command flags.
pub(crate) mod command_flag {
    pub(crate) const FUA: u16 = 1 << 0;
    pub(crate) const NO_HOLE: u16 = 1 << 1;
    pub(crate) const DF: u16 = 1 << 2;
    pub(crate) const REQ_ONE: u16 = 1 << 3;
}

/// Types of chunks of structured replies.
pub(crate) mod chunk {
    pub(crate) const FLAG_DONE: u16 = 1;
    pub(crate) const OFFSET_DATA: u16 = 1;
    pub(crate) const BLOCK_STATUS: u16 = 5;
    pub(crate) const ERROR: u16 = (1 << 15) | 1;
}

/// What `base:allocation` says of a range that holds no data: a hole that reads as zeros.
pub(crate) const STATE_HOLE_ZERO: u32 = 1 | 2;
/// The only metadata context, and its number in replies.
pub(crate) const ALLOCATION_CONTEXT: &str = "base:allocation";
pub(crate) const ALLOCATION_ID: u32 = 1;

/// Error values of replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum NbdError {
    Io = 5,
    Invalid = 22,
    NoSpace = 28,
    Overflow = 75,
    Shutdown = 108,
}
