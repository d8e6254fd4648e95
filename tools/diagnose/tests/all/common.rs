//! A bundle in a folder, and the report on it.

use std::path::Path;

use holdfast_diagnose::model::Report;
use holdfast_diagnose::synth::{story, write};
use holdfast_diagnose::{Options, analyse};

/// Writes a file below a folder.
pub fn put(folder: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().expect("a file in a folder")).expect("made");
    std::fs::write(path, content).expect("written");
}

/// The report on a bundle.
pub fn read(bundle: &Path) -> Report {
    analyse(&[bundle.to_owned()], &Options::default(), &Default::default()).expect("the bundle is readable")
}

/// The report on a bundle of these files.
pub fn report<C: AsRef<[u8]>>(files: &[(&str, C)]) -> Report {
    let dir = tempfile::tempdir().expect("a folder");
    files.iter().for_each(|(path, content)| put(dir.path(), path, content));
    read(dir.path())
}

/// The report on one log.
pub fn syslog(content: impl AsRef<[u8]>) -> Report {
    report(&[("syslog", content)])
}

/// The report on a generated story.
pub fn told(name: &str, seed: u64) -> Report {
    let dir = tempfile::tempdir().expect("a folder");
    write(story(name).expect("a known story"), seed, dir.path()).expect("a bundle");
    read(dir.path())
}
