//! The daemon's log: lines on standard error, as text or as JSON, as much as `HOLDFAST_LOG` says.

use crate::failure::Failure;
use clap::ValueEnum;
use std::io::{self, IsTerminal};
use tracing_subscriber::EnvFilter;

/// What says how much is logged.
const VARIABLE: &str = "HOLDFAST_LOG";
/// How much, when nothing says so. What the consensus library does is no news to an operator, nor is each attempt of it
/// to reach a peer that the failure detector says is dead; that it fails is.
const DEFAULT: &str = "info,openraft=error,openraft::replication=off";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// For programs: one JSON object per line
    Json,
}

/// Starts logging.
pub fn start(format: LogFormat) -> Result<(), Failure> {
    let text = std::env::var(VARIABLE).ok().filter(|t| !t.is_empty());
    let filter = EnvFilter::try_new(text.as_deref().unwrap_or(DEFAULT)).map_err(Failure::LogFilter)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}
