//! One node: start, stop, configuration; the only place that knows every part.
//!
//! Two threads: `data` holds the engine, the disks and every connection that carries I/O; `control` holds
//! consensus, heartbeats and the API. They exchange facts and orders through queues and share nothing else.

pub mod config;
pub mod control;
pub mod data;
pub mod recover;
pub mod run;
pub mod setup;

pub use run::{RunOptions, run};
