//! A stranger's first minutes with `./x`: up, every printed client line, kill, start, down, up again, clean; and
//! bad input, which is one line and exit code 2.

use holdfast_tests::cluster::take_turn;
use holdfast_tests::command::json;
use holdfast_tests::process::target_dir;
use std::process::{Command, Output};

const X: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../x");
/// The programs whose lines `./x up` prints.
const CLIENTS: [&str; 6] = ["iscsi-ls ", "nbdinfo ", "qemu-io ", "qemu-img ", "nbdcopy ", "fio "];

/// `./x` as from a user's shell. What cargo tells a test about its package would make cargo build anew what asks for
/// it (`ring` does), and all that stands on it.
fn x(arguments: &[&str]) -> Output {
    let of_the_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    let mut command = Command::new(X);
    std::env::vars_os()
        .filter(|(name, _)| name.to_str().is_some_and(of_the_package))
        .for_each(|(name, _)| _ = command.env_remove(name));
    command.args(arguments).output().expect("./x runs (bash)")
}

fn works(arguments: &[&str]) -> String {
    let output = x(arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn bad_input_is_one_line_and_exit_code_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let foreign = folder.path().join("foreign");
    std::fs::create_dir(&foreign)
        .and_then(|()| std::fs::write(foreign.join("file"), "mine"))
        .expect("a folder");
    let foreign = foreign.to_string_lossy();
    let empty = folder.path().join("empty");
    let empty = empty.to_string_lossy();
    let cases: &[&[&str]] = &[
        &["nonsense"],
        &["up", "--nodes", "0"],
        &["up", "--nodes", "8"],
        &["up", "--nodes", "three"],
        &["up", "--nodes"],
        &["up", "--size", "6X"],
        &["up", "--size", "0"],
        &["up", "--size", "1M"],
        &["up", "--size", "1023M"],
        &["up", "--size", "900T", "--dir", &empty],
        &["up", "--nonsense"],
        &["up", "surplus"],
        &["up", "--dir", &foreign],
        &["clean", "--dir", &foreign],
        &["down", "--dir", &empty],
        &["kill", "--dir", &empty],
        &["kill", "9", "--dir", &empty],
        &["kill", "two"],
        &["start"],
        &["status", "--nodes", "3"],
        &["lint", "surplus"],
        &["test", "surplus"],
    ];
    for case in cases {
        let output = x(case);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{case:?}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{case:?}: {said}");
        assert!(said.starts_with("x: "), "{case:?}: {said}");
    }
    let too_large = x(&["up", "--size", "900T", "--dir", &empty]);
    let said = String::from_utf8_lossy(&too_large.stderr);
    let wanted = format!("{:.1} GiB", 3.0 * 900.0 * 1024.0);
    assert!(
        said.contains(&wanted) && said.matches("GiB").count() >= 2,
        "what is needed and what is there: {said}"
    );
    assert!(std::path::Path::new(&*foreign).join("file").exists(), "./x clean removed what is not its own");
    assert!(!std::path::Path::new(&*empty).exists(), "a refused ./x up left a folder behind");
}

/// Ends the cluster also when the test fails.
struct Cleaned(String);

impl Drop for Cleaned {
    fn drop(&mut self) {
        x(&["clean", "--dir", &self.0]);
    }
}

#[test]
fn up_use_it_break_it_down_up_again_clean() {
    let _turn = take_turn(true);
    let folder = tempfile::TempDir::with_prefix_in("x", target_dir()).expect("a folder");
    let dir = folder.path().join("cluster").to_string_lossy().into_owned();
    let cleaned = Cleaned(dir.clone());
    let said = works(&["up", "--detach", "--size", "1G", "--dir", &dir]);
    for node in 1..=3 {
        let iscsi = format!("iscsi://127.0.0.{node}:3260/iqn.2026-11.io.holdfast:demo/0");
        assert!(
            said.contains(&iscsi) && said.contains(&format!("nbd://127.0.0.{node}:10809/demo")),
            "{said}"
        );
    }
    use_it(&said, folder.path());
    works(&["kill", "2", "--dir", &dir]);
    use_it(&said.replace("127.0.0.2", "127.0.0.3"), folder.path());
    works(&["start", "2", "--dir", &dir]);
    let status = works(&["status", "--dir", &dir]);
    assert!(!status.contains("not running"), "{status}");
    works(&["up", "--detach", "--dir", &dir]);
    works(&["down", "--dir", &dir]);
    assert!(!x(&["status", "--dir", &dir]).status.success(), "a stopped cluster has a status");
    works(&["up", "--detach", "--dir", &dir]);
    let kept = "qemu-io -f raw -c 'read -P 0x5a 1M 64k' nbd://127.0.0.3:10809/demo";
    shell(kept, folder.path());
    drop(cleaned);
    assert!(!std::path::Path::new(&dir).exists(), "./x clean left something in {dir}");
}

#[test]
fn up_takes_one_node_and_seven_with_as_many_copies_as_it_says() {
    let _turn = take_turn(true);
    for (nodes, copies, lost) in [(1, 1, None), (7, 3, Some("5"))] {
        let folder = tempfile::TempDir::with_prefix_in("x", target_dir()).expect("a folder");
        let dir = folder.path().join("cluster").to_string_lossy().into_owned();
        let _cleaned = Cleaned(dir.clone());
        let said = works(&["up", "--detach", "--nodes", &nodes.to_string(), "--size", "1G", "--dir", &dir]);
        assert!(said.contains(&format!("nbd://127.0.0.{nodes}:10809/demo")), "{said}");
        assert!(!said.contains(&format!("nbd://127.0.0.{}:10809/demo", nodes + 1)), "{said}");
        let volume = json(&["volume", "show", "demo", "--dir", &format!("{dir}/node1")]);
        assert_eq!(volume["copies"], copies, "{volume}");
        shell(
            &format!("qemu-io -f raw -c 'write -P 0x37 1M 64k' nbd://127.0.0.{nodes}:10809/demo"),
            folder.path(),
        );
        if let Some(lost) = lost {
            works(&["kill", lost, "--dir", &dir]);
        }
        shell("qemu-io -f raw -c 'read -P 0x37 1M 64k' nbd://127.0.0.1:10809/demo", folder.path());
    }
}

/// Runs every client line that `./x up` printed. The line with the pattern comes last, so that it stays.
fn use_it(said: &str, folder: &std::path::Path) {
    let image = std::fs::File::create(folder.join("DISK.img")).expect("a file");
    image.set_len(4 << 20).expect("a size");
    let lines: Vec<&str> =
        said.lines().map(str::trim).filter(|l| CLIENTS.iter().any(|c| l.starts_with(c))).collect();
    assert_eq!(lines.len(), 7, "{said}");
    let (patterns, others): (Vec<&str>, Vec<&str>) = lines.into_iter().partition(|l| l.contains("0x5a"));
    for line in others.into_iter().chain(patterns) {
        shell(&line.replace("--runtime=10", "--runtime=2").replace("--size=1G", "--size=64M"), folder);
    }
    std::fs::remove_file(folder.join("copy.img")).expect("nbdcopy made it");
}

fn shell(line: &str, folder: &std::path::Path) {
    let output = Command::new("timeout").args(["120", "sh", "-c", line]).current_dir(folder).output();
    let output = output.expect("timeout(1) and sh run");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !said.contains("failed"), "{line}\n{said}");
}
