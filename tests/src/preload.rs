//! Libraries that are loaded into daemons with LD_PRELOAD, for what a disk does that no file system of ours can.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Builds `tests/lies/NAME.c` in `folder`: what is to be in the daemons' environment.
pub fn built(name: &str, folder: &Path) -> (String, String) {
    let library = folder.join(name).with_extension("so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("lies").join(name).with_extension("c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
    assert!(built.is_ok_and(|s| s.success()), "the library {name} does not build");
    let path = library.to_str().expect("the target folder's name is text").to_owned();
    ("LD_PRELOAD".to_owned(), path)
}

/// What the C library flushes in daemons, which is what they keep in their data folders, and how that does.
pub struct Flushes(PathBuf);

impl Flushes {
    /// And what is to be in the daemons' environment.
    pub fn new(folder: &Path) -> (Flushes, Vec<(String, String)>) {
        let flag = folder.join("flushes");
        let path = flag.to_str().expect("the target folder's name is text").to_owned();
        let environment = vec![built("hang", folder), ("HOLDFAST_HANG".to_owned(), path)];
        (Flushes(flag), environment)
    }

    /// Of that process none comes back.
    pub fn hang(&self, pid: u32) {
        self.set(pid, "");
    }

    /// Of that process each takes so much longer.
    pub fn slow_down(&self, pid: u32, by: Duration) {
        self.set(pid, &by.as_millis().to_string());
    }

    /// They do as they did.
    pub fn do_well(&self, pid: u32) {
        fs::remove_file(self.flag(pid)).expect("the flag is set");
    }

    fn set(&self, pid: u32, how: &str) {
        fs::write(self.flag(pid), how).expect("the flag can be set");
    }

    fn flag(&self, pid: u32) -> PathBuf {
        self.0.with_extension(pid.to_string())
    }
}
