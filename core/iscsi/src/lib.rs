//! iSCSI target sessions: bytes in, bytes and block requests out.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod session;

pub use session::{Session, SessionConfig};

/// What every target's name begins with; the volume's name follows.
pub const IQN_PREFIX: &str = "iqn.2026-11.io.holdfast:";
