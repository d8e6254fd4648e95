//! `holdfast config`.

use crate::failure::Failure;
use crate::global::Context;
use crate::output;
use clap::Subcommand;
use holdfast_node::config::{EXPLANATION, render};

/// Explain and check the configuration of a node
#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Print every option of holdfast.toml with its meaning and default
    #[command(after_help = "Examples:
  holdfast config explain")]
    Explain,
    /// Check holdfast.toml in the data folder, and print what it comes to
    #[command(after_help = "Examples:
  holdfast config check
  holdfast config check --dir ./one")]
    Check,
}

impl ConfigCommand {
    /// Runs it.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            ConfigCommand::Explain => output::raw(EXPLANATION.as_bytes()),
            ConfigCommand::Check => output::raw(render(&context.dir().load_config()?).as_bytes()),
        }
    }
}
