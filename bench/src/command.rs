//! Programs that are run to their end, and ended when Ctrl-C asks for it.

use crate::error::BenchError;
use crate::interrupt;
use serde_json::Value;
use std::io::Read;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

/// How often a running program is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How much of an error is shown.
const SAID_CHARS: usize = 600;

/// Runs a program; its standard output.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, BenchError> {
    let start = |source| BenchError::Start { program: program.to_owned(), source };
    let mut command = interrupt::child(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(start)?;
    let (out, errors) = (child.stdout.take(), child.stderr.take());
    let (out, errors) = (thread::spawn(|| all(out)), thread::spawn(|| all(errors)));
    let status = loop {
        if let Some(status) = child.try_wait().map_err(start)? {
            break status;
        }
        if interrupt::asked() {
            let _ = child.kill();
            let _ = child.wait();
            return Err(BenchError::Interrupted);
        }
        thread::sleep(LOOK_EVERY);
    };
    let (out, errors) = (out.join().unwrap_or_default(), errors.join().unwrap_or_default());
    if status.success() {
        return Ok(out);
    }
    let said = if errors.trim().is_empty() { out } else { errors };
    let skipped = said.trim().chars().count().saturating_sub(SAID_CHARS);
    let said = said.trim().chars().skip(skipped).collect();
    Err(BenchError::Failed { program: format!("{program} {}", arguments.join(" ")), said })
}

fn all(from: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        // What could be read until then is what there is to show.
        let _ = from.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs a program that prints JSON, perhaps after notes.
pub fn json(program: &str, arguments: &[&str]) -> Result<Value, BenchError> {
    let text = run(program, arguments)?;
    let json = text.find('{').map_or("", |at| &text[at..]);
    serde_json::from_str(json).map_err(|_| BenchError::Output { program: program.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_quoted_and_one_that_lacks_is_named() {
        let failed = run("sh", &["-c", "echo broken >&2; exit 3"]).expect_err("it exits 3").to_string();
        assert!(failed.contains("broken"), "{failed}");
        let lacks = run("no-such-program-here", &[]).expect_err("there is none").to_string();
        assert!(lacks.contains("is it installed"), "{lacks}");
    }

    #[test]
    fn json_is_found_after_notes() {
        let value = json("sh", &["-c", "echo note; echo '{\"a\": 1}'"]).expect("it is JSON");
        assert_eq!(value["a"], 1);
        assert!(json("sh", &["-c", "echo nothing"]).is_err());
    }
}
