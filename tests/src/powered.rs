//! Three nodes, each disk on a file system of its own whose power can be cut, that hangs or is slow. Their mounts outlive the cluster.

use crate::cluster::Options;
use crate::process::target_dir;
use holdfast_powercut::{Hung, PowerCut};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// See the module's text.
pub struct Powered {
    powers: Vec<PowerCut>,
    folder: TempDir,
}

impl Powered {
    /// Mounts them.
    #[allow(clippy::new_without_default, reason = "it mounts file systems")]
    pub fn new() -> Powered {
        let base = target_dir().join("clusters");
        std::fs::create_dir_all(&base).expect("the target folder can be written");
        let folder = TempDir::with_prefix_in("power", base).expect("the target folder can be written");
        let power = |n: usize| {
            let (mount, backing) =
                (folder.path().join(format!("mount{n}")), folder.path().join(format!("backing{n}")));
            std::fs::create_dir(&mount)
                .and_then(|()| std::fs::create_dir(&backing))
                .expect("folders can be made");
            PowerCut::mount(&mount, &backing).expect("FUSE mounts (package fuse3, as root)")
        };
        Powered { powers: (1..=3).map(power).collect(), folder }
    }

    /// A folder that is there as long as this.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A cluster with its disks there.
    pub fn options(&self) -> Options {
        let mut options = Options::new(3);
        options.disk_dirs = (1..=3).map(|n| self.folder.path().join(format!("mount{n}"))).collect();
        options
    }

    /// All three lose their power.
    pub fn cut(&self, seed: u64) {
        let mut lost = 0;
        for (n, power) in self.powers.iter().enumerate() {
            let report = power.cut(seed * 3 + n as u64).expect("the power can be cut");
            println!("power cut: {} kept, {} dropped, {} torn", report.kept, report.dropped, report.torn);
            lost += report.dropped + report.torn;
        }
        println!("seed {seed}: {lost} writes that were not flushed are gone or torn");
    }

    /// They have power again.
    pub fn on(&self) {
        self.powers.iter().for_each(PowerCut::power_on);
    }

    /// Where what is on stable storage of node `n`'s disk lies.
    pub fn backing(&self, n: usize, disk: &Path) -> PathBuf {
        self.folder.path().join(format!("backing{n}")).join(disk.file_name().expect("a disk is a file"))
    }

    /// The sector at this byte of node `n`'s disk cannot be read until it is written.
    pub fn lose_sector(&self, n: usize, disk: &Path, offset: u64) {
        let name = disk.file_name().expect("a disk is a file");
        assert!(self.powers[n - 1].lose_sector(name, offset), "{} is not there", disk.display());
    }

    /// Each answer of node `n`'s disk takes so much longer from here on.
    pub fn slow_down(&self, n: usize, by: Duration) {
        self.powers[n - 1].slow_down(by);
    }

    /// Node `n`'s disk answers nothing until what is given back is dropped.
    pub fn hang(&self, n: usize) -> Hung<'_> {
        self.powers[n - 1].hang()
    }
}
