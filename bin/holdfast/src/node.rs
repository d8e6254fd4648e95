//! `holdfast node`.

use crate::failure::Failure;
use crate::global::Context;
use crate::log::{self, LogFormat};
use crate::{disk, output};
use clap::Subcommand;
use holdfast_api::model;
use holdfast_node::RunOptions;
use std::time::Duration;

/// Longer than a host takes to restart, its firmware included: a copy that comes back costs only what it missed.
const REPLACE_AFTER_SECONDS: u64 = 600;
const SCRUB_EVERY_SECONDS: u64 = 7 * 24 * 3600;

/// Run, stop, remove and look at nodes
#[derive(Subcommand)]
pub enum Node {
    /// Run the daemon of this host's node, in the foreground
    #[command(after_help = "Examples:
  holdfast node run
  holdfast node run --dir ./one
  HOLDFAST_LOG=debug holdfast node run --log-format json

It logs to standard error; HOLDFAST_LOG says how much (error, warn, info, debug, trace). SIGTERM stops it as
`holdfast node stop` does. systemd may hand over its sockets for iSCSI and NBD.")]
    Run {
        /// How log lines look
        #[arg(long, value_enum, default_value_t = LogFormat::Text)]
        log_format: LogFormat,
        /// After how many seconds copies are placed anew whose node stays away or whose disk stays full, while this node leads
        #[arg(long, value_name = "SECONDS", default_value_t = REPLACE_AFTER_SECONDS, env = "HOLDFAST_REPLACE_AFTER")]
        replace_after: u64,
        /// Every segment that this node owns is read from all copies' disks and compared once in so many seconds; 0: never
        #[arg(long, value_name = "SECONDS", default_value_t = SCRUB_EVERY_SECONDS, env = "HOLDFAST_SCRUB_EVERY")]
        scrub_every: u64,
    },
    /// Hand over what a node owns and leads, then stop its daemon; nobody waits for more than a second
    #[command(after_help = "Examples:
  holdfast node stop
  holdfast node stop beta --node 192.0.2.1 --token-file admin.token")]
    Stop {
        /// Its number or name [default: the node that is asked]
        name: Option<String>,
    },
    /// Say that a node that does not answer is gone for good: its copies are placed anew at once
    #[command(after_help = "Examples:
  holdfast node lost gamma
  holdfast node lost 3 --accept-loss

Be sure that it does not run: cut off from the others it may still take writes, and those would be lost. Its disks count as
failed from then on: should its host be found, they start empty. Where too few in-sync copies of a segment would be left
this is refused, for its last writes may be nowhere else; with --accept-loss it waits for `holdfast volume salvage`. With a
majority of the nodes gone see `holdfast recover`.")]
    Lost {
        /// Its number or name
        name: String,
        /// Also where acknowledged writes may be on this node only
        #[arg(long)]
        accept_loss: bool,
    },
    /// Remove a node that is gone for good, with its disks and its vote in the control plane
    #[command(after_help = "Examples:
  holdfast node rm gamma
  holdfast node rm 3

Only a node that does not answer and whose copies have another place is removed, so nothing is lost by it. Its daemon,
should it start again, is told so; its host joins anew with a token, as another node. What its host still has is the
admin token of the API: `holdfast token rotate` replaces it.")]
    Rm {
        /// Its number or name
        name: String,
    },
    /// List the nodes
    #[command(after_help = "Examples:
  holdfast node ls
  holdfast --json node ls | jq -r '.[] | select(.state == \"down\").name'")]
    Ls,
    /// Show one node with its disks and sessions
    #[command(after_help = "Examples:
  holdfast node show
  holdfast node show beta")]
    Show {
        /// Its number or name [default: the node that is asked]
        name: Option<String>,
    },
}

impl Node {
    /// Runs it.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Node::Run { log_format, replace_after, scrub_every } => {
                log::start(log_format)?;
                let options = RunOptions {
                    dir: context.dir().path().to_owned(),
                    replace_after: Duration::from_secs(replace_after),
                    scrub_every: Duration::from_secs(scrub_every),
                };
                holdfast_node::run(&options).map_err(Failure::Daemon)
            }
            Node::Stop { name } => {
                let name = name_or_asked(context, name)?;
                let asked = name.clone();
                let done = context.ask(|c| async move { c.stop_node(&asked).await })?;
                output::done(
                    context.json(),
                    &done,
                    &format!("Node {name} hands over what it owns, then stops."),
                )
            }
            Node::Lost { name, accept_loss } => {
                let asked = name.clone();
                let done = context.ask(|c| async move { c.lose_node(&asked, accept_loss).await })?;
                output::done(context.json(), &done, &format!("Node {name} is given up, with its disks."))
            }
            Node::Rm { name } => {
                let asked = name.clone();
                let done = context.ask(|c| async move { c.remove_node(&asked).await })?;
                let said = format!(
                    "Node {name} is removed. Its host still has the admin token; `holdfast token rotate` replaces it."
                );
                output::done(context.json(), &done, &said)
            }
            Node::Ls => {
                let nodes = context.ask(|c| async move { c.nodes().await })?;
                if context.json() {
                    return output::json(&nodes);
                }
                output::table(HEAD, rows(&nodes), "No nodes.")
            }
            Node::Show { name } => {
                let name = name_or_asked(context, name)?;
                let node = context.ask(|c| async move { c.node(&name).await })?;
                if context.json() {
                    return output::json(&node);
                }
                output::line(&text(&node))
            }
        }
    }
}

fn name_or_asked(context: &Context, name: Option<String>) -> Result<String, Failure> {
    match name {
        Some(name) => Ok(name),
        None => Ok(context.ask(|c| async move { c.status().await })?.answered_by.to_string()),
    }
}

/// Columns of the table.
pub const HEAD: [&str; 7] = ["NODE", "NAME", "ADDRESS", "STATE", "DISKS", "OWNED", "COPIES"];

/// Its rows.
pub fn rows(nodes: &[model::Node]) -> Vec<[String; 7]> {
    let row = |n: &model::Node| {
        let leads = if n.leader { ", leader" } else { "" };
        let state = format!("{}{leads}", output::word(&n.state));
        let counts = [n.disks.to_string(), n.owned_segments.to_string(), n.copies.to_string()];
        let [disks, owned, copies] = counts;
        [n.id.to_string(), n.name.clone(), n.address.clone(), state, disks, owned, copies]
    };
    nodes.iter().map(row).collect()
}

fn text(detail: &model::NodeDetail) -> String {
    let n = &detail.node;
    let mut text = format!(
        "node     {} ({})\nstate    {}\naddress  {}\napi      {}\niscsi    {}\nnbd      {}\nowned    {} segments\n",
        n.id,
        n.name,
        output::word(&n.state),
        n.address,
        output::or_dash(detail.api),
        output::or_dash(detail.iscsi),
        output::or_dash(detail.nbd),
        n.owned_segments
    );
    text.push_str(&format!("\n{}\n", output::table_text(disk::HEAD, disk::rows(&detail.attached))));
    text.push_str(&format!("\n{}", output::table_text(SESSION_HEAD, session_rows(&detail.sessions))));
    text
}

/// Columns of the table of sessions.
pub const SESSION_HEAD: [&str; 4] = ["SESSION", "NODE", "VOLUME", "INITIATOR"];

/// Its rows.
pub fn session_rows(sessions: &[model::Session]) -> Vec<[String; 4]> {
    let row = |s: &model::Session| {
        [s.protocol.clone(), s.node.to_string(), output::or_dash(s.volume.as_ref()), s.initiator.clone()]
    };
    sessions.iter().map(row).collect()
}
