//! Runs the simulator.
//!
//! ```text
//! cargo run -p holdfast-sim -- --seed N [--steps M] [--nodes 1|3|5] [--disks 1..4] [--faults crash,partition,pause,hang,slow,bitflip,control,disconnect,gone,move,stop,volumes,lost,fail,unreadable,add|none]
//! cargo run -p holdfast-sim -- --seeds A..B ...
//! ```
//! `--verbose` prints the trace as it happens; `--disks-lie` makes disks that acknowledge before they flush, which
//! must fail; `--small-disks` makes disks that are full now and then; `--discards` has clients zero whole extents and
//! segments, too. The exit status is 1 when a run failed and 2 when the command line is wrong.
#![forbid(unsafe_code)]

use holdfast_sim::{Options, options, run_seed};
use std::process::ExitCode;

fn main() -> ExitCode {
    let line = match options::parse(std::env::args().skip(1)) {
        Ok(line) => line,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let (mut failed, mut total) = (0_u64, 0_u64);
    for seed in line.options.seed..line.end {
        total += 1;
        match run_seed(&Options { seed, ..line.options.clone() }) {
            Ok(summary) => println!("seed {seed}: {summary}"),
            Err(report) => {
                failed += 1;
                if !line.options.verbose {
                    report.trace.iter().for_each(|line| println!("{line}"));
                }
                println!("FAILED {report}");
            }
        }
    }
    println!("{total} runs, {failed} failed");
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
