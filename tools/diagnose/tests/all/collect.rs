//! `collect` as a user calls it: what it says when it is asked for something that is not there.

use std::path::Path;
use std::process::{Command, Output};

fn collect(dir: &Path, args: &[&str]) -> (Output, bool) {
    let bundle = dir.join("b.tar.gz");
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-diagnose"));
    command.current_dir(dir).args(["collect", "-o"]).arg(&bundle).args(args);
    (command.output().expect("it runs"), bundle.exists())
}

#[test]
fn a_folder_that_is_not_there_is_named_and_no_bundle_is_made() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("tree")).expect("made");
    for (args, said) in [
        (
            ["--root", "tree", "--dir", "absent"],
            "holdfast: cannot read --dir absent: No such file or directory (os error 2); it is the folder that `holdfast node run --dir` got\n",
        ),
        (
            ["--root", "absent", "--dir", "tree"],
            "holdfast: cannot read --root absent: No such file or directory (os error 2); it is the root of the tree to read\n",
        ),
    ] {
        let (output, made) = collect(dir.path(), &args);
        assert_eq!(String::from_utf8_lossy(&output.stderr), said);
        assert_eq!((output.status.code(), made), (Some(2), false), "{args:?}");
    }
}

#[test]
fn a_folder_without_a_nodes_events_is_named_and_the_rest_is_collected() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(dir.path().join("tree/etc")).expect("made");
    std::fs::write(dir.path().join("tree/etc/hostname"), "n7\n").expect("written");
    let (output, made) = collect(dir.path(), &["--root", "tree", "--dir", "tree/etc"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.ends_with("left out: tree/etc: no events of a node in it; is it a node's data folder?\n"),
        "{said}"
    );
    assert_eq!((output.status.code(), made), (Some(0), true));
    // Nothing is missed where nothing was asked for: most hosts run no node.
    std::fs::remove_file(dir.path().join("b.tar.gz")).expect("removed");
    let (output, _) = collect(dir.path(), &["--root", "tree"]);
    assert!(!String::from_utf8_lossy(&output.stdout).contains("left out"));
}
