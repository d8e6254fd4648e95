//! A command's answer, bounded in time and size.
//!
//! Promise: what the answer lacks is said: a command that is not there, that failed (with its own word), that was stopped, or
//! that said more than was taken.

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use holdfast_evidence::text::printable;

/// What a command said.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The first bytes of its output.
    pub(super) bytes: Vec<u8>,
    /// Why it could not say all.
    pub(super) failed: Option<String>,
    /// Why that is not all that it said.
    pub(super) cut: Option<String>,
}

/// Runs a command for at most `time` and takes at most `most` bytes of its output.
pub(super) fn ask(command: &[&str], most: u64, time: Duration) -> io::Result<Answer> {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (said, complaint) = (child.stdout.take(), child.stderr.take());
    let (done, wait) = mpsc::channel();
    let output = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = said.map_or(Ok(0), |s| s.take(most + 1).read_to_end(&mut bytes));
        // Nobody waits any more only if the whole is given up.
        let _ = done.send(());
        read.map(|_| bytes)
    });
    let errors = std::thread::spawn(move || {
        const FIRST: u64 = 4096;
        let mut bytes = Vec::new();
        let mut complaint = complaint?;
        complaint.by_ref().take(FIRST).read_to_end(&mut bytes).ok()?;
        // The rest is read so that the command is not stopped by a full pipe.
        io::copy(&mut complaint, &mut io::sink()).ok()?;
        Some(bytes)
    });
    let failed = || io::Error::other("the reader of its answer failed");
    let mut answer = Answer::default();
    let late = wait.recv_timeout(time) == Err(mpsc::RecvTimeoutError::Timeout);
    if late {
        child.kill()?;
        answer.failed =
            Some(format!("stopped after {} s; what it had said by then was taken", time.as_secs()));
    }
    answer.bytes = output.join().map_err(|_| failed())??;
    let cut = answer.bytes.len() as u64 > most;
    if cut {
        answer.bytes.truncate(most as usize);
        answer.cut = Some(format!("longer than {most} bytes; the rest was cut"));
        child.kill()?;
    }
    let status = child.wait()?;
    let complaint = errors.join().map_err(|_| failed())?.unwrap_or_default();
    if !late && !cut && !status.success() {
        let word = complaint.split(|b| *b == b'\n').find(|l| !l.trim_ascii().is_empty()).unwrap_or_default();
        let word = printable(word.trim_ascii(), 200);
        answer.failed = Some(if word.is_empty() { status.to_string() } else { format!("{status}: {word}") });
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(script: &str, most: u64, time: Duration) -> (String, Vec<String>) {
        let answer = ask(&["sh", "-c", script], most, time).unwrap();
        (String::from_utf8(answer.bytes).unwrap(), answer.failed.into_iter().chain(answer.cut).collect())
    }

    #[test]
    fn what_an_answer_lacks_is_said() {
        let long = Duration::from_secs(60);
        assert_eq!(of("echo all", 100, long), ("all\n".into(), vec![]));
        assert_eq!(
            of("echo part; echo >&2; echo 'x: Operation not permitted' >&2; exit 1", 100, long),
            ("part\n".into(), vec!["exit status: 1: x: Operation not permitted".into()])
        );
        // More than a pipe holds, on both ends, from a command that would never end.
        assert_eq!(
            of("yes no | head -c 300000 >&2; exec yes", 7, long),
            ("y\ny\ny\ny".into(), vec!["longer than 7 bytes; the rest was cut".into()])
        );
        // It says something and then never ends.
        let (said, lacks) = of("echo first; exec sleep 1000", 100, Duration::from_secs(1));
        assert_eq!(lacks, ["stopped after 1 s; what it had said by then was taken"]);
        assert!(said == "first\n" || said.is_empty(), "{said}");
        assert!(ask(&["/no/such/program"], 1, long).is_err());
    }
}
