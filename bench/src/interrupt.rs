//! Ctrl-C: the first one asks for an orderly end, which stops the daemons and removes their folder; a second one
//! ends the process at once. Daemons die with their parent either way.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn ask(signal: libc::c_int) {
    ASKED.store(true, Ordering::Relaxed);
    // SAFETY: signal() is async-signal-safe, and the default action is a valid one for both signals.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// From here on SIGINT and SIGTERM ask for an end.
pub fn listen() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let handler = ask as extern "C" fn(libc::c_int);
        // SAFETY: the handler only stores an atomic and calls signal(), both async-signal-safe.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// Whether the end was asked for.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// A child that Ctrl-C on the terminal does not reach, and that dies when this process does.
pub fn child(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.process_group(0);
    let die_with_parent = || {
        // SAFETY: prctl with this option takes one integer and touches no memory of ours.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec the closure makes one system call and reads errno; it allocates nothing.
    unsafe { command.pre_exec(die_with_parent) };
    command
}
