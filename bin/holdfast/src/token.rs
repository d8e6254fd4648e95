//! `holdfast token`.

use crate::failure::Failure;
use crate::global::Context;
use crate::output;
use clap::Subcommand;

/// Let other hosts join, and shut out those that left
#[derive(Subcommand)]
pub enum Token {
    /// Make a token: it lets one host join, once, within a day
    #[command(after_help = "Examples:
  holdfast token create
  holdfast --json token create | jq -r .token")]
    Create,
    /// Replace the admin token on every node, and void the join tokens that were not used
    #[command(after_help = "Examples:
  holdfast token rotate

Every host that was a member, and whoever has a copy of admin.token, can ask the API for anything: to be done after a
host was removed or a copy got lost. The new token is in the file admin.token of each node; a node that is away gets it
when it is back.")]
    Rotate,
}

impl Token {
    /// Runs it.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Token::Create => {
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
            Token::Rotate => {
                let done = context.ask(|c| async move { c.rotate_admin_token().await })?;
                let said = "The admin token is another one. Copies of admin.token have to be made anew.";
                output::done(context.json(), &done, said)
            }
        }
    }
}
