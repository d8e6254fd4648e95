//! How a command fails: one line that says what and what next, and an exit code.

use clap::error::ErrorKind as ClapKind;
use holdfast_api::{ApiError, ErrorKind};
use holdfast_node::config::ConfigError;
use holdfast_node::recover::RecoverError;
use holdfast_node::setup::SetupError;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use thiserror::Error;

/// The longest word of an operator's that is repeated in full.
const MAX_WORD: usize = 80;

/// Why a command did not do what it was asked.
#[derive(Debug, Error)]
pub enum Failure {
    /// The cluster, or the way to it.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Setting up a node.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// Control without its majority.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The data folder.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The daemon did not start, or ended with an error.
    #[error("{0:#}")]
    Daemon(anyhow::Error),
    /// A filter of the log that is none.
    #[error(
        "HOLDFAST_LOG: {0}; write a level (error, warn, info, debug, trace) or target=level, with commas between"
    )]
    LogFilter(tracing_subscriber::filter::ParseError),
    /// A file that an option names.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// The file that --token-file names holds something else.
    #[error("{path}: {source}")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: holdfast_api::token::TokenError,
    },
    /// --node without --token-file.
    #[error("--node needs --token-file: a copy of admin.token from the data folder of a node")]
    NoTokenFile,
    /// A secret that is none.
    #[error("the secret has {len} characters; CHAP needs 12 to 255 printable ones, without spaces")]
    ChapSecret {
        /// Its length.
        len: usize,
    },
    /// The operator said no.
    #[error("nothing was changed; give --yes to go on without being asked")]
    NotConfirmed,
    /// A check that found something; it is printed already.
    #[error("{count} findings in volume {volume}; what has a good copy is healed when it is read")]
    Findings {
        /// The volume.
        volume: String,
        /// How many.
        count: usize,
    },
    /// A check without an end.
    #[error("the check ended before its report; run it again")]
    NoReport,
    /// Standard output.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    /// The runtime.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Failure::Api(e) => e.kind.exit_code(),
            Failure::Setup(e) => e.exit_code(),
            Failure::Recover(e) => e.exit_code(),
            Failure::Daemon(e) if matches!(e.downcast_ref(), Some(ConfigError::Invalid { .. })) => 2,
            Failure::Config(ConfigError::Invalid { .. })
            | Failure::LogFilter(_)
            | Failure::TokenFile { .. }
            | Failure::NoTokenFile
            | Failure::ChapSecret { .. } => 2,
            _ => 1,
        }
    }

    /// Says so on stderr.
    pub fn report(self, json: bool) -> ExitCode {
        if let Failure::Output(e) = &self
            && e.kind() == io::ErrorKind::BrokenPipe
        {
            // Whoever read the output has enough of it (`holdfast events | head`).
            return ExitCode::SUCCESS;
        }
        let code = self.exit_code();
        let line = match json {
            true => serde_json::to_string(&self.into_api_error()).unwrap_or_default(),
            false => format!("holdfast: {}", crate::output::printable(&self.to_string())),
        };
        say(&line);
        ExitCode::from(code)
    }

    fn into_api_error(self) -> ApiError {
        match self {
            Failure::Api(e) | Failure::Setup(SetupError::Refused(e)) => e,
            other => {
                let kind = if other.exit_code() == 2 { ErrorKind::Invalid } else { ErrorKind::Refused };
                ApiError::new(kind, other.to_string())
            }
        }
    }
}

/// Reports what is wrong with the command line, or prints the help that was asked for. A program that asked for JSON
/// is told in JSON of this too, thus by the words themselves: they could not be parsed.
pub fn usage(error: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|word| word == "--json");
    let text = error.render().to_string();
    match error.kind() {
        ClapKind::DisplayHelp | ClapKind::DisplayVersion => {
            // A reader that went away is no failure.
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        ClapKind::DisplayHelpOnMissingArgumentOrSubcommand if !json => {
            let _ = io::stderr().write_all(text.as_bytes());
            return ExitCode::from(2);
        }
        _ => {}
    }
    // clap explains in paragraphs; its first says what is wrong.
    let first = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<String> = first.trim_start_matches("error: ").split_whitespace().map(shorten).collect();
    let what = format!("{}; add --help to see what is allowed", words.join(" "));
    say(&match json {
        true => serde_json::to_string(&ApiError::new(ErrorKind::Invalid, what)).unwrap_or_default(),
        false => format!("holdfast: {}", crate::output::printable(&what)),
    });
    ExitCode::from(2)
}

/// A word as it is, or its start when it is absurdly long.
fn shorten(word: &str) -> String {
    match word.chars().count() > MAX_WORD {
        true => word.chars().take(MAX_WORD).chain(['…']).collect(),
        false => word.to_owned(),
    }
}

fn say(line: &str) {
    // Nothing is left to do when even stderr is closed.
    let _ = writeln!(io::stderr(), "{line}");
}
