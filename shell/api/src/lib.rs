//! The HTTP API, its client, the metrics page and the event log: everything by which a person or a program
//! asks a node something, and nothing that answers it.
//!
//! What a node can be asked is the trait [`Backend`], which the node implements; what goes over the wire are
//! the types of [`model`], the same for the server, the client and `--json`. Promises: every request is
//! answered within its limits or refused with a typed error; nothing here changes state by itself. Does not
//! forward to another node (the backend does) and does not know what a volume is made of.
#![forbid(unsafe_code)]

pub mod backend;
pub mod client;
pub mod error;
pub mod events;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod metrics;
pub mod model;
pub mod server;
pub mod size;
pub mod token;

pub use backend::{Backend, CheckStream};
pub use client::Client;
pub use error::{ApiError, ErrorKind};
pub use events::EventLog;
pub use metrics::Metrics;
