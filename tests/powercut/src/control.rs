//! The switch for other processes: a Unix socket that takes one command a line and answers each with one line.
//!
//! ```text
//! CUT [SEED]   the power goes            -> cut kept=N dropped=N torn=N
//! POWER        the power comes back      -> powered
//! STATUS                                 -> status powered=BOOL cached=BYTES durable_writes=N flushes=N
//! STOP         flush, unmount, end       -> stopped
//! ```

use crate::{PowerCut, PowerError};
use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
};

/// The longest command.
const LINE_BYTES_MAX: u64 = 256;

/// Serves the socket until STOP. Connections are served one after the other.
pub fn serve(power: &PowerCut, socket: &Path) -> Result<(), PowerError> {
    let fail = |doing, source| PowerError { doing, path: socket.to_path_buf(), source };
    if socket.exists() {
        std::fs::remove_file(socket).map_err(|e| fail("replace the socket", e))?;
    }
    let listener = UnixListener::bind(socket).map_err(|e| fail("listen on", e))?;
    loop {
        let (stream, _) = listener.accept().map_err(|e| fail("accept on", e))?;
        // A client that goes away in the middle is no reason to end.
        if let Ok(true) = converse(power, &stream) {
            let _ = std::fs::remove_file(socket);
            return Ok(());
        }
    }
}

/// Answers one client; true when it said STOP.
fn converse(power: &PowerCut, stream: &UnixStream) -> std::io::Result<bool> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)? == 0 {
            return Ok(false);
        }
        let stop = line.trim() == "STOP";
        let answer = obey(power, line.trim()).unwrap_or_else(|e| format!("error {e}: {}", e.source));
        let mut writer = stream;
        writeln!(writer, "{answer}")?;
        if stop {
            return Ok(true);
        }
    }
}

fn obey(power: &PowerCut, line: &str) -> Result<String, PowerError> {
    let (command, argument) = line.split_once(' ').unwrap_or((line, ""));
    Ok(match (command, argument) {
        ("CUT", seed) => match if seed.is_empty() { Ok(0) } else { seed.parse() } {
            Ok(seed) => {
                let report = power.cut(seed)?;
                format!("cut kept={} dropped={} torn={}", report.kept, report.dropped, report.torn)
            }
            Err(_) => "error the seed of CUT is a number".into(),
        },
        ("POWER", "") => {
            power.power_on();
            "powered".into()
        }
        ("STATUS", "") => {
            let s = power.status();
            format!(
                "status powered={} cached={} durable_writes={} flushes={}",
                s.powered, s.cached_bytes, s.durable_writes, s.flushes
            )
        }
        ("STOP", "") => {
            power.flush_all()?;
            "stopped".into()
        }
        _ => "error unknown command; there are CUT [SEED], POWER, STATUS and STOP".into(),
    })
}
