//! The programs of others, each with a limit of time. A program that is not installed is a failure that names
//! its package: nothing is skipped in silence.

use crate::process::binary;
use serde_json::Value;
use std::process::{Command, Output, Stdio};

/// The package of each program that the tests call.
const PACKAGES: &[(&str, &str)] = &[
    ("qemu-img", "qemu-utils"),
    ("qemu-io", "qemu-utils"),
    ("nbdinfo", "libnbd-bin"),
    ("nbdcopy", "libnbd-bin"),
    ("iscsi-ls", "libiscsi-bin"),
    ("iscsi-inq", "libiscsi-bin"),
    ("iscsi-readcapacity16", "libiscsi-bin"),
    ("fio", "fio"),
    ("iscsi-test-cu", "libiscsi-bin"),
    ("systemd-socket-activate", "systemd"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
];
/// Seconds that one command may take.
pub const LIMIT_SECONDS: u32 = 300;

/// Runs a program and returns what it said, whatever that is.
pub fn output_of(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["-k", "2", &LIMIT_SECONDS.to_string(), program]).args(arguments).stdin(Stdio::null());
    // proof: timeout(1) is in coreutils, without which no test of this tree runs.
    let output = command.output().expect("timeout(1) of coreutils runs");
    if output.status.code() == Some(127) {
        let package = PACKAGES.iter().find(|p| p.0 == program).map_or(program, |p| p.1);
        panic!("{program} is not installed; its package is {package}");
    }
    output
}

/// Runs a program; its standard output when it exits with 0, what it said otherwise.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = output_of(program, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let line = arguments.join(" ");
    Err(format!("{program} {line}: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// Runs a program that must exit with 0; its standard output.
pub fn succeed(program: &str, arguments: &[&str]) -> String {
    run(program, arguments).unwrap_or_else(|said| panic!("{said}"))
}

/// What was printed with `--json`.
pub fn parse_json(arguments: &[&str], text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("--json of {arguments:?} is no JSON: {e}\n{text}"))
}

/// What the command under test prints with `--json`; it must succeed.
pub fn json(arguments: &[&str]) -> Value {
    parse_json(arguments, &succeed(&binary().to_string_lossy(), &[arguments, &["--json"]].concat()))
}
