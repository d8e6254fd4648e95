//! Real initiators against this crate's sessions: libiscsi's tools and QEMU's. (Its conformance suite runs against
//! a cluster: tests/tests/conformance.rs.)
//! A tool that is missing fails its test with the package that holds it.

mod server;

use holdfast_types::ChapSecret;
use server::Server;
use std::process::Command;

const MIB: u64 = 1 << 20;

/// Runs a tool and returns what it printed; fails when the tool does.
fn run(package: &str, tool: &str, arguments: &[&str]) -> String {
    let (ok, text) = attempt(package, tool, arguments);
    assert!(ok, "{tool} {arguments:?} failed:\n{text}");
    text
}

fn attempt(package: &str, tool: &str, arguments: &[&str]) -> (bool, String) {
    let output = match Command::new(tool).args(arguments).output() {
        Ok(output) => output,
        Err(error) => panic!("{tool} does not run ({error}): install the package {package}"),
    };
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn discovery_lists_the_volume_and_its_portal() {
    let server = Server::start(64 * MIB, None);
    let text = run("libiscsi-bin", "iscsi-ls", &["-s", &format!("iscsi://{}", server.address)]);
    assert!(
        text.contains(&format!("Target:iqn.2026-11.io.holdfast:demo Portal:{},1", server.address)),
        "{text}"
    );
    assert!(text.contains("Lun:0"), "{text}");
}

#[test]
fn inquiry_and_capacity_are_read_by_the_real_tools() {
    let server = Server::start(64 * MIB, None);
    let url = server.url();
    let text = run("libiscsi-bin", "iscsi-inq", &[&url]);
    assert!(text.contains("Vendor:HOLDFAST") && text.contains("Product:Volume"), "{text}");
    for page in ["0x00", "0x80", "0x83", "0xb0", "0xb1", "0xb2"] {
        run("libiscsi-bin", "iscsi-inq", &["-e", "1", "-c", page, &url]);
    }
    let text = run("libiscsi-bin", "iscsi-readcapacity16", &[&url]);
    assert!(text.contains("LBPME:1 LBPRZ:1"), "{text}");
    assert!(text.contains("Total size:67108864"), "{text}");
}

#[test]
fn qemu_writes_patterns_and_reads_them_back() {
    let server = Server::start(64 * MIB, None);
    let commands = [
        "write -P 0x11 0 4M",
        "write -P 0x22 512 512",
        "write -P 0x33 5M 3M",
        "write -z 6M 1M",
        "discard 7M 512k",
        "flush",
        "read -P 0x11 0 512",
        "read -P 0x22 512 512",
        "read -P 0x11 1024 4193280",
        "read -P 0x33 5M 1M",
        "read -P 0 6M 1536k",
        "read -P 0x33 7680k 512k",
        "read -P 0 60M 4M",
    ];
    let mut arguments = vec!["-f", "raw"];
    for command in &commands {
        arguments.extend(["-c", command]);
    }
    let url = server.url();
    arguments.push(&url);
    let text = run("qemu-utils and qemu-block-extra", "qemu-io", &arguments);
    assert!(!text.contains("Pattern verification failed"), "{text}");
}

#[test]
fn qemu_img_copies_an_image_in_and_out_unchanged() {
    let server = Server::start(16 * MIB, None);
    let directory = std::env::temp_dir().join(format!("holdfast-iscsi-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a temporary directory");
    let (image, copy) = (directory.join("in.raw"), directory.join("out.raw"));
    let mut state = 1u32;
    let content: Vec<u8> = (0..16 * MIB)
        .map(|at| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if (at / 65536) % 3 == 0 { 0 } else { (state >> 24) as u8 }
        })
        .collect();
    std::fs::write(&image, &content).expect("room for an image");
    let url = server.url();
    let package = "qemu-utils and qemu-block-extra";
    let (from, to) = (image.display().to_string(), copy.display().to_string());
    run(package, "qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", &from, &url]);
    run(package, "qemu-img", &["convert", "-f", "raw", "-O", "raw", &url, &to]);
    let same = std::fs::read(&copy).expect("the copy") == content;
    std::fs::remove_dir_all(&directory).expect("it is ours");
    assert!(same, "the copy differs");
}

#[test]
fn digests_are_used_when_the_initiator_asks_for_them() {
    let server = Server::start(16 * MIB, None);
    let image = format!(
        "driver=iscsi,transport=tcp,portal={},target=iqn.2026-11.io.holdfast:demo,lun=0,header-digest=crc32c",
        server.address
    );
    let arguments = ["--image-opts", "-c", "write -P 0x5a 4096 300k", "-c", "read -P 0x5a 4096 300k", &image];
    let text = run("qemu-utils and qemu-block-extra", "qemu-io", &arguments);
    assert!(!text.contains("Pattern verification failed"), "{text}");
}

#[test]
fn with_chap_only_the_secret_opens_the_volume() {
    let secret = ChapSecret { user: "alice".into(), secret: "correct-horse-1".into() };
    let server = Server::start(16 * MIB, Some(secret));
    let url = |user: &str| format!("iscsi://{user}{}/iqn.2026-11.io.holdfast:demo/0", server.address);
    let inquire = |user: &str| attempt("libiscsi-bin", "iscsi-inq", &[&url(user)]);
    assert!(inquire("alice%correct-horse-1@").0);
    assert!(!inquire("alice%correct-horse-2@").0);
    assert!(!inquire("bob%correct-horse-1@").0);
    assert!(!inquire("").0);
}
