//! The file system as a process: `holdfast-powercut MOUNT BACKING --control SOCKET`. Ends on STOP.

use holdfast_powercut::{PowerCut, serve};
use std::{path::Path, process::ExitCode};

const USAGE: &str = "usage: holdfast-powercut MOUNT BACKING --control SOCKET";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [mount, backing, option, socket] = arguments.as_slice() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if option != "--control" {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    let served = PowerCut::mount(Path::new(mount), Path::new(backing))
        .and_then(|power| serve(&power, Path::new(socket)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("holdfast-powercut: {e}: {}", e.source);
            ExitCode::FAILURE
        }
    }
}
