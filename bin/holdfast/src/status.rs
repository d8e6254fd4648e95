//! `holdfast status`.

use crate::failure::Failure;
use crate::global::Context;
use crate::{node, output, pool, volume};
use clap::Args;
use holdfast_api::model;

/// Show how the cluster does
#[derive(Args)]
#[command(after_help = "Examples:
  holdfast status
  holdfast status --node 192.0.2.1 --token-file admin.token
  holdfast --json status | jq -r .health

The exit code is 0 when a node answered, whatever it said, and 1 when none did. Without a majority of control the
node that answers tells what it last knew, how old that is (map_age_ms) and which nodes it does not hear (silent).")]
pub struct Status {}

impl Status {
    /// Runs it.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let status = context.ask(|c| async move { c.status().await })?;
        if context.json() {
            return output::json(&status);
        }
        output::line(&text(&status))
    }
}

/// The state as people read it.
fn text(status: &model::Status) -> String {
    let leader = match status.leader {
        Some(node) => format!("led by node {node}"),
        None if status.control_quorum => "between two leaders".to_owned(),
        None => "without a majority; I/O goes on, changes wait".to_owned(),
    };
    let s = status.segments;
    let mut text = format!(
        "cluster   {} ({})\nhealth    {}\ncontrol   {leader}\nsegments  {}: {} healthy, {} degraded, {} resyncing, {} stalled\n",
        status.name,
        status.cluster,
        output::word(&status.health),
        s.total,
        s.healthy,
        s.degraded,
        s.resyncing,
        s.stalled,
    );
    status.problems.iter().for_each(|p| text.push_str(&format!("  ! {}\n", output::printable(p))));
    text.push_str(&format!("\n{}\n", output::table_text(node::HEAD, node::rows(&status.nodes))));
    text.push_str(&format!("\n{}\n", output::table_text(pool::HEAD, pool::rows(&status.pools))));
    if status.volumes.is_empty() {
        text.push_str("\nNo volumes; `holdfast volume create demo --size 4G` makes one.");
    } else {
        text.push_str(&format!("\n{}", output::table_text(volume::HEAD, volume::rows(&status.volumes))));
    }
    text
}
