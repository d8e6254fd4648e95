//! Certificates, mutual TLS, frames and listeners: how bytes get from one node to another and nothing of what
//! they mean.
//!
//! Promises: a stream handed out by [`connect`] or [`Listener`] leads to a node of this cluster whose
//! certificate names it and whose key is the one that the [`Roster`] has of it; a frame arrives whole, in
//! order, or not at all; a stranger, a garbled or a silent connection costs a bounded amount for a bounded
//! time. Does not retry, does not keep connections alive beyond what TCP does, and does not know what a frame
//! says. (A node that was removed gets through to [`Purpose::Control`], where it is told so.)
#![deny(unsafe_code)]

pub mod activation;
pub mod atomic;
pub mod ca;
pub mod connect;
pub mod frame;
pub mod hello;
pub mod identity;
pub mod listen;
pub mod name;
pub mod paths;
pub mod pin;
pub mod refusals;
pub mod relay;
pub mod roster;
pub mod stream;
mod tcp_info;

pub use ca::{Authority, NodeKey, PkiError};
pub use connect::{ConnectError, connect};
pub use frame::{Frame, FrameError, FrameReader, FrameWriter};
pub use hello::Purpose;
pub use identity::{Identity, IdentityError};
pub use listen::{Accepted, ListenError, Listener};
pub use paths::{Paths, Route};
pub use pin::CaPin;
pub use refusals::{Refusal, Refusals, Refused};
pub use relay::{Dialled, dial, dial_relayed, outdated};
pub use roster::{Member, Members, Membership, Roster};
pub use stream::NodeStream;
