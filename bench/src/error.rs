//! Why a benchmark ended early.

use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a benchmark ended early.
#[derive(Debug, Error)]
pub enum BenchError {
    /// Ctrl-C.
    #[error("stopped")]
    Interrupted,
    /// There is no daemon to measure.
    #[error("{} is not there; build it (cargo build --release -p holdfast) or set HOLDFAST_BIN", path.display())]
    NoBinary {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A program could not be started.
    #[error("{program} cannot be started: {source}; is it installed?")]
    Start {
        /// Which.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program failed.
    #[error("{program} failed: {said}")]
    Failed {
        /// Which, with what it was to do.
        program: String,
        /// The end of what it said.
        said: String,
    },
    /// A program's output is not what it should be.
    #[error("{program} printed no usable JSON")]
    Output {
        /// Which.
        program: String,
    },
    /// The cluster did not get there in time.
    #[error("{what}: not within {seconds} s")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// The iSCSI session failed.
    #[error("iSCSI: {said}")]
    Iscsi {
        /// libiscsi's words.
        said: String,
    },
    /// The file system said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}
