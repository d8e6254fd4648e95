//! The `holdfast` command: reads arguments, asks a node or sets one up, prints what came of it. It decides
//! nothing about the cluster. Whatever goes wrong ends as one line on stderr that says what and what next, and
//! exit code 1 (it failed) or 2 (the input was wrong).
#![forbid(unsafe_code)]

mod chap;
mod config;
mod disk;
mod events;
mod failure;
mod global;
mod init;
mod join;
mod log;
mod node;
mod output;
mod pool;
mod recover;
mod status;
mod token;
mod value;
mod volume;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use failure::Failure;
use global::{Context, Global};
use std::process::ExitCode;

/// Why: docs/decisions/0012.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the cluster refused or failed, or no daemon answers
  2  the input is wrong: a bad option, name, size or unit

Start here:
  holdfast init --addr 192.0.2.1 --disk /dev/sdb     a new cluster, on its first host
  holdfast node run                                  its daemon
  holdfast token create                              the line by which another host joins
  holdfast volume create demo --size 4G              a volume, served over iSCSI and NBD";

/// Replicated block storage for virtual machines
#[derive(Parser)]
#[command(name = "holdfast", version, after_help = EXIT_CODES, propagate_version = true)]
#[command(disable_help_subcommand = true)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Init(init::Init),
    Join(join::Join),
    #[command(subcommand)]
    Token(token::Token),
    Status(status::Status),
    #[command(subcommand)]
    Node(node::Node),
    #[command(subcommand)]
    Disk(disk::Disk),
    #[command(subcommand)]
    Pool(pool::Pool),
    #[command(subcommand)]
    Volume(volume::Volume),
    Events(events::Events),
    #[command(subcommand)]
    Chap(chap::Chap),
    #[command(subcommand)]
    Config(config::ConfigCommand),
    Recover(recover::Recover),
    /// Print completions for a shell
    #[command(after_help = "Examples:\n  holdfast completions bash > /etc/bash_completion.d/holdfast")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let matches = match grammar().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return failure::usage(&error),
    };
    // The analyser needs no daemon, and has exit codes of its own.
    match matches.subcommand() {
        Some(("diagnose", matches)) => return holdfast_diagnose::cli::run_diagnose(matches),
        Some(("collect", matches)) => return holdfast_diagnose::cli::run_collect(matches),
        _ => {}
    }
    let arguments = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => return failure::usage(&error),
    };
    let json = arguments.global.json;
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

/// Every command, those of the analyser included.
fn grammar() -> clap::Command {
    let analyser = [holdfast_diagnose::cli::diagnose_command(), holdfast_diagnose::cli::collect_command()];
    Arguments::command().subcommands(analyser)
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let context = Context::new(arguments.global);
    match arguments.command {
        Command::Init(c) => c.run(&context),
        Command::Join(c) => c.run(&context),
        Command::Token(c) => c.run(&context),
        Command::Status(c) => c.run(&context),
        Command::Node(c) => c.run(&context),
        Command::Disk(c) => c.run(&context),
        Command::Pool(c) => c.run(&context),
        Command::Volume(c) => c.run(&context),
        Command::Events(c) => c.run(&context),
        Command::Chap(c) => c.run(&context),
        Command::Config(c) => c.run(&context),
        Command::Recover(c) => c.run(&context),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut grammar(), "holdfast", &mut text);
            output::raw(&text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_of_the_command_line_is_consistent() {
        grammar().debug_assert();
    }

    #[test]
    fn every_command_has_an_example_in_its_help() {
        fn check(command: &clap::Command, path: &str) {
            let name = format!("{path} {}", command.get_name());
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            if command.get_subcommands().next().is_none() {
                assert!(text.contains(&format!("Examples:\n  {}", name.trim())), "{name}: {text}");
            }
            assert!(command.get_about().is_some(), "{name} has no description");
            command.get_subcommands().for_each(|c| check(c, &name));
        }
        check(&Arguments::command(), "");
    }
}
