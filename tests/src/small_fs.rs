//! A small file system, to be filled. Needs root.

use crate::succeed;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Mounted until it is dropped.
pub struct SmallFs(PathBuf);

impl SmallFs {
    /// Mounts one of so many MiB over a folder, which is made where there is none.
    pub fn mount(at: &Path, mib: u32) -> SmallFs {
        std::fs::create_dir_all(at).expect("the folder can be made");
        let options = format!("size={mib}m,mode=700");
        succeed("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", &at.display().to_string()]);
        SmallFs(at.to_owned())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallFs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
