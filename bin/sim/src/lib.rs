//! A whole cluster in one thread: the very engine that the daemon runs, over simulated disks, network, clock and
//! control, under faults drawn from a seed.
//!
//! It promises that a run is a function of its options: the same seed gives the same events, and a failure names
//! the seed that brings it back. It checks what clients see and what the copies hold ([`failure::Checker`] names
//! each property). It does not simulate consensus, sockets or TLS: control is one agreed map ([`control`]) that may
//! be late, away or unsure, and a link is a queue in order that loses everything in flight when it breaks.
//!
//! Which faults are fair is written in [`faults`]: a run must not lose more than the rules of replication allow.
#![forbid(unsafe_code)]

pub mod client;
pub mod control;
pub mod disk;
pub mod event;
pub mod failure;
pub mod faults;
mod fencing;
pub mod finish;
pub mod history;
pub mod iscsi;
pub mod layout;
pub mod nbd;
pub mod net;
pub mod node;
mod operator;
pub mod options;
pub mod room;
pub mod run;
pub mod step;
pub mod stopping;
pub mod watch;
pub mod world;

pub use failure::{Checker, Failure, Report};
pub use options::{FaultKind, Options};
pub use run::{Summary, run_seed};
pub use world::World;
