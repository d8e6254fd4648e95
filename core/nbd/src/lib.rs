//! NBD server sessions: bytes in, bytes and block requests out.
//!
//! A [`Session`] speaks the server's side of one NBD connection: fixed newstyle negotiation, then commands. It
//! promises that no input makes it panic or take unbounded memory, that each command is answered once, and that
//! a command waits as long as its volume does. It opens nothing, keeps no time and knows nothing of segments or
//! nodes: requests go out as [`SessionOutput`](holdfast_types::SessionOutput) and results come back by tag.
//!
//! Not offered: TLS, extended headers, resizing under a client, fast zeroes.
//!
//! Source: the NBD protocol document (NetworkBlockDevice/nbd, doc/proto.md), cited by section.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod command;
mod input;
mod negotiate;
mod reply;
mod session;
mod wire;

pub use session::{Session, SessionConfig};
pub use wire::{MAX_PAYLOAD_BYTES, MIN_BLOCK_BYTES, PREFERRED_BLOCK_BYTES};

#[cfg(test)]
mod tests;
