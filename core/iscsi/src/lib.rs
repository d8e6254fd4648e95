//! iSCSI target sessions: bytes in; bytes and block requests out (RFC 7143, one connection a session, error
//! recovery level 0). One target for each volume, with the volume as its logical unit 0.
//!
//! A [`Session`] keeps no time, opens no socket and never waits: a command whose volume waits is a row in a
//! table, and everything else is answered meanwhile. What a peer can make it hold is bounded (see
//! [`session::MAX_HELD_BYTES`]), and no bytes of a peer make it panic.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

mod chap;
mod command;
mod data_in;
mod data_out;
mod framer;
mod full_feature;
mod login;
mod nop;
mod params;
mod pdu;
mod sequence;
pub mod session;
mod task_management;
mod text;

pub use session::{Session, SessionConfig};

/// What every target's name begins with; the volume's name follows.
pub const IQN_PREFIX: &str = "iqn.2026-11.io.holdfast:";
/// The one portal group of a gateway.
pub(crate) const PORTAL_GROUP: u16 = 1;

#[cfg(test)]
mod tests;
