//! A qemu-io that stays open: QEMU's block layer as an initiator, over NBD or over iSCSI (libiscsi), with its
//! own reconnect.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long nothing is heard before it is asked for.
const NUDGE: Duration = Duration::from_millis(100);

/// An open image.
pub struct QemuIo {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl QemuIo {
    /// Opens an image by its URL or by a `--image-opts` text.
    pub fn open(image: &str) -> QemuIo {
        let form: &[&str] = if image.contains("driver=") { &["--image-opts"] } else { &["-f", "raw"] };
        let mut command = Command::new("qemu-io");
        command.args(form).arg(image).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("qemu-io runs (package qemu-utils)");
        let (input, output, errors) = match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
            (Some(i), Some(o), Some(e)) => (i, o, e),
            _ => unreachable!("all three are piped"),
        };
        let (sender, lines) = channel();
        let other = sender.clone();
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).for_each(|l| drop(sender.send(l)))
        });
        std::thread::spawn(move || {
            BufReader::new(errors).lines().map_while(Result::ok).for_each(|l| drop(other.send(l)))
        });
        QemuIo { child, input, lines }
    }

    /// Gives a command without waiting for what comes of it.
    pub fn begin(&mut self, command: &str) {
        self.input.write_all(format!("{command}\n").as_bytes()).expect("qemu-io reads commands");
        self.input.flush().expect("qemu-io reads commands");
    }

    /// Waits for the end of a command begun before; an error is what qemu-io said.
    pub fn end(&mut self, limit: Duration) -> Result<(), String> {
        let end = Instant::now() + limit;
        loop {
            let line = match self.lines.recv_timeout(NUDGE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) if Instant::now() < end => {
                    self.nudge();
                    continue;
                }
                Err(e) => return Err(format!("qemu-io says nothing for {limit:?}: {e}")),
            };
            if line.contains("ops;") {
                return Ok(());
            }
            if ["failed", "error", "Pattern", "can't", "Invalid"].iter().any(|word| line.contains(word)) {
                return Err(line);
            }
        }
    }

    /// qemu-io keeps what asynchronous commands say, and the lines that it read along with another one, until there
    /// is a line to read: an empty one does nothing else.
    fn nudge(&mut self) {
        // One that has ended says so by its silence.
        let _ = self.input.write_all(b"\n").and_then(|()| self.input.flush());
    }

    /// Carries out one command.
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<(), String> {
        self.begin(command);
        self.end(limit)
    }
}

impl Drop for QemuIo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
