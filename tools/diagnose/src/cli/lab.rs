//! The subcommands that try the analysis itself: generated incidents and the scores over them.
//!
//! Promise: cases lie in a folder of their own below the temporary one, which is removed whatever comes of them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ArgMatches;

use super::{fail, print};
use crate::{score, synth};

pub(super) fn run_synth(matches: &ArgMatches) -> ExitCode {
    let name = matches.get_one::<String>("story").map_or("ls", String::as_str);
    if name == "ls" {
        for s in &synth::STORIES {
            print(&format!("{:<18} {}\n", s.name, s.about));
        }
        return ExitCode::SUCCESS;
    }
    let seed = matches.get_one::<u64>("seed").copied().unwrap_or(1);
    let Some(folder) = matches.get_one::<PathBuf>("folder") else { return fail("synth needs -o DIR") };
    let number = |name| matches.get_one::<u32>(name).copied().unwrap_or(1);
    let stretch = (number("hours"), number("every"));
    let made = synth::story(name).and_then(|s| synth::write_stretched(s, seed, stretch, folder));
    match made {
        Ok(truth) => {
            print(&format!("{}: cause {}\n", folder.display(), truth.cause.as_deref().unwrap_or("none")));
            ExitCode::SUCCESS
        }
        Err(e) => fail(&e.to_string()),
    }
}

pub(super) fn run_score(matches: &ArgMatches) -> ExitCode {
    let cases = matches.get_one::<u32>("cases").copied().unwrap_or(1);
    let seed = matches.get_one::<u64>("seed").copied().unwrap_or(1);
    let remarks = matches.get_one::<usize>("remarks").copied().unwrap_or(0);
    let mut reached = true;
    if cases > 0 {
        let folder = std::env::temp_dir().join(format!("holdfast-score-{}", std::process::id()));
        let scored = score::score(cases, seed, &folder);
        let _ = std::fs::remove_dir_all(&folder);
        match scored {
            Ok(scores) => {
                print(&score::render(&scores, remarks));
                if let Some(missed) = score::below_target(&scores) {
                    print(&format!("below target: {missed}\n"));
                    reached = false;
                }
            }
            Err(e) => return fail(&e.to_string()),
        }
    }
    if let Some(folder) = matches.get_one::<PathBuf>("real") {
        match score::score_real(folder) {
            Ok(scores) => print(&score::render_real(&scores)),
            Err(e) => return fail(&e.to_string()),
        }
    }
    if reached { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
