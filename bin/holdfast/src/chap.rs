//! `holdfast chap`.

use crate::failure::Failure;
use crate::global::Context;
use crate::output;
use clap::Subcommand;
use holdfast_api::model::SetChap;
use std::io::Read;
use std::path::PathBuf;

/// Ask iSCSI initiators for a name and a secret
#[derive(Subcommand)]
pub enum Chap {
    /// Ask every iSCSI login for this name and secret (CHAP, RFC 1994)
    #[command(after_help = "Examples:
  holdfast chap set --user vmhost --secret-file secret.txt
  pwgen -s 16 1 | tee secret.txt | holdfast chap set --user vmhost --secret-file -")]
    Set {
        /// The name that initiators give
        #[arg(long, value_parser = user)]
        user: String,
        /// A file with the secret, 12 to 255 characters; - reads it from standard input
        #[arg(long, value_name = "FILE")]
        secret_file: PathBuf,
    },
    /// Ask for none. Nodes that serve iSCSI to other hosts then refuse every login
    #[command(after_help = "Examples:
  holdfast chap clear")]
    Clear,
}

fn user(text: &str) -> Result<String, String> {
    let good = (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if good { Ok(text.to_owned()) } else { Err("1 to 255 printable characters, without spaces".to_owned()) }
}

/// Longer than any secret: what is read of a file that is not one.
const MAX_READ: u64 = 4096;

impl Chap {
    /// Runs it.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let (done, text) = match self {
            Chap::Set { user, secret_file } => {
                let chap = SetChap { user, secret: secret(secret_file)? };
                let done = context.ask(|c| async move { c.set_chap(&chap).await })?;
                (done, "iSCSI logins are asked for CHAP from now on; sessions that are there stay.")
            }
            Chap::Clear => {
                let done = context.ask(|c| async move { c.clear_chap().await })?;
                (done, "iSCSI logins are not asked for CHAP any more.")
            }
        };
        if context.json() { output::json(&done) } else { output::line(text) }
    }
}

fn secret(path: PathBuf) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().take(MAX_READ).read_to_string(&mut text),
        false => std::fs::File::open(&path).and_then(|f| f.take(MAX_READ).read_to_string(&mut text)),
    };
    read.map_err(|source| Failure::File { path, source })?;
    let secret = text.trim_end_matches(['\r', '\n']).to_owned();
    let good = (12..=255).contains(&secret.len()) && secret.bytes().all(|b| b.is_ascii_graphic());
    if good { Ok(secret) } else { Err(Failure::ChapSecret { len: secret.chars().count() }) }
}
