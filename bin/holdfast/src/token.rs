//! `holdfast token`.

use crate::failure::Failure;
use crate::global::Context;
use crate::output;
use clap::Subcommand;

/// Let other hosts join
#[derive(Subcommand)]
pub enum Token {
    /// Make a token: it lets one host join, once, within a day
    #[command(after_help = "Examples:
  holdfast token create
  holdfast --json token create | jq -r .token")]
    Create,
}

impl Token {
    /// Runs it.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let Token::Create = self;
        let token = context.ask(|c| async move { c.create_token().await })?;
        if context.json() {
            return output::json(&token);
        }
        output::line(&format!(
            "On the host that is to join (once, until {}):\n  {}",
            output::time(token.expires_ms),
            token.command
        ))
    }
}
