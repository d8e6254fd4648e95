//! `holdfast join`.

use crate::failure::Failure;
use crate::global::Context;
use crate::init::SetupArguments;
use crate::output;
use clap::Args;
use holdfast_api::model::JoinReport;
use holdfast_api::token::{JoinToken, TokenError};
use holdfast_node::setup;

/// Make this host a node of a running cluster
#[derive(Args)]
#[command(after_help = "Examples:
  holdfast join hf1… --addr 192.0.2.2 --disk /dev/sdb
  holdfast join hf1… --dir ./two --addr 127.0.0.2 --disk ./two/disk0:6G

The token is what `holdfast init` or `holdfast token create` printed; it is good for one node and one day.")]
pub struct Join {
    /// The token
    #[arg(value_parser = token)]
    token: JoinToken,
    #[command(flatten)]
    setup: SetupArguments,
}

fn token(text: &str) -> Result<JoinToken, String> {
    text.parse().map_err(|e: TokenError| e.to_string())
}

impl Join {
    /// Runs it.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let options = self.setup.options(context);
        let bar = output::progress(0, context.json());
        bar.set_message("reserving disk space");
        let done = context.wait(async {
            let mut hear = |done, total| {
                bar.set_length(total);
                bar.set_position(done);
            };
            Ok(setup::join(&options, &self.token, &mut hear).await?)
        });
        bar.finish_and_clear();
        let done = done?;
        let dir = options.dir.display().to_string();
        if context.json() {
            let (cluster, name) = (done.cluster.to_string(), done.cluster_name);
            return output::json(&JoinReport { cluster, name, node: done.node.0, dir });
        }
        output::line(&format!(
            "This host is node {} of cluster {}, {}.\n\nStart its daemon:\n  holdfast node run --dir {dir}",
            done.node, done.cluster_name, options.name
        ))
    }
}
