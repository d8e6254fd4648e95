//! What the tests have in common.

use holdfast_sim::run::Summary;
use holdfast_sim::{Options, run_seed};

/// Nothing may fail.
pub fn run(options: &Options) -> Summary {
    match run_seed(options) {
        Ok(summary) => summary,
        Err(report) => panic!("{}\n{report}\n{options:?}", report.trace.join("\n")),
    }
}
