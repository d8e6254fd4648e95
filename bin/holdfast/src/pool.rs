//! `holdfast pool`.

use crate::failure::Failure;
use crate::global::Context;
use crate::output;
use clap::Subcommand;
use holdfast_api::model;
use holdfast_api::size::show;

/// Look at pools
#[derive(Subcommand)]
pub enum Pool {
    /// List pools
    #[command(after_help = "Examples:
  holdfast pool ls
  holdfast --json pool ls | jq '.[].free'")]
    Ls,
}

impl Pool {
    /// Runs it.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let Pool::Ls = self;
        let pools = context.ask(|c| async move { c.pools().await })?;
        if context.json() {
            return output::json(&pools);
        }
        output::table(HEAD, rows(&pools), "No pools.")
    }
}

/// Columns of the table.
pub const HEAD: [&str; 6] = ["POOL", "DISKS", "SIZE", "FREE", "PROMISED", "VOLUMES"];

/// Its rows.
pub fn rows(pools: &[model::Pool]) -> Vec<[String; 6]> {
    let row = |p: &model::Pool| {
        let sizes = [show(p.size), show(p.free), show(p.promised)];
        let [size, free, promised] = sizes;
        [p.name.clone(), p.disks.to_string(), size, free, promised, p.volumes.to_string()]
    };
    pools.iter().map(row).collect()
}
