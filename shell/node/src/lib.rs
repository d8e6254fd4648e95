//! One node: start, stop, configuration; the only place that knows every part.

pub mod config;
pub mod setup;
