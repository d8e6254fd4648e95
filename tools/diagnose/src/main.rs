//! The analyser as a program of its own; the `holdfast` binary mounts the same commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    holdfast_diagnose::cli::main_with(std::env::args_os())
}
