//! Libraries that are loaded into daemons with LD_PRELOAD, for what a disk does that no file system of ours can.

use std::path::Path;
use std::process::Command;

/// Builds `tests/lies/NAME.c` in `folder`: what is to be in the daemons' environment.
pub fn built(name: &str, folder: &Path) -> (String, String) {
    let library = folder.join(name).with_extension("so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("lies").join(name).with_extension("c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
    assert!(built.is_ok_and(|s| s.success()), "the library {name} does not build");
    let path = library.to_str().expect("the target folder's name is text").to_owned();
    ("LD_PRELOAD".to_owned(), path)
}
