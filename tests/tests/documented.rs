//! The lines for QEMU in docs/operations.md, as they stand there but for the address, in a QEMU: each is understood,
//! connects, and the machine's disk is that volume. The elements for libvirt, against libvirt's own schema.

use holdfast_tests::cluster::{Cluster, VOLUME};
use holdfast_tests::succeed;
use std::io::Write;
use std::process::{Command, Stdio};

const OPERATIONS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md"));
const PATTERN: &str = "0x5a";

/// The options of each machine that the page shows: a `-blockdev` line and the lines that follow it.
fn machines() -> Vec<Vec<String>> {
    let mut machines: Vec<Vec<String>> = Vec::new();
    for line in OPERATIONS.lines().filter_map(|l| l.strip_prefix("    -")) {
        let words = format!("-{line}").split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        match machines.last_mut() {
            Some(machine) if !line.starts_with("blockdev") => machine.extend(words),
            _ => machines.push(words),
        }
    }
    machines
}

/// Starts QEMU with these options, reads the pattern from its disk through it, and gives all that it said.
fn run_qemu(options: &[String]) -> String {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-machine", "q35,accel=tcg", "-m", "64", "-nodefaults", "-display", "none", "-S"]);
    command.args(["-monitor", "stdio"]).args(options);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut qemu = command.spawn().expect("qemu-system-x86_64 runs (package qemu-system-x86)");
    let asked = format!("info block\nqemu-io {VOLUME} \"read -P {PATTERN} 0 4k\"\nquit\n");
    // A QEMU that did not take its options has ended: what it said tells.
    let _ = qemu.stdin.take().expect("it is piped").write_all(asked.as_bytes());
    let output = qemu.wait_with_output().expect("QEMU ends when it is told to");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{options:?}: {said}");
    said
}

#[test]
fn qemu_takes_the_lines_of_the_manual_and_connects() {
    let cluster = Cluster::start(1);
    let write = format!("write -P {PATTERN} 0 4k");
    succeed("qemu-io", &["-f", "raw", "-c", &write, &cluster.nbd(1)]);
    let machines = machines();
    let protocols: Vec<&str> = ["driver=nbd", "driver=iscsi"]
        .into_iter()
        .filter(|p| machines.iter().any(|m| m.iter().any(|word| word.contains(p))))
        .collect();
    assert_eq!(protocols, ["driver=nbd", "driver=iscsi"], "the manual has a machine for each: {machines:?}");
    for machine in machines {
        let options: Vec<String> =
            machine.iter().map(|o| o.replace("127.0.0.1", cluster.address(1))).collect();
        let said = run_qemu(&options);
        assert!(said.contains("read 4096/4096 bytes"), "{options:?}: {said}");
        assert!(!said.contains("Pattern verification failed"), "{options:?}: {said}");
    }
}

#[test]
fn the_machines_of_the_manual_wait_for_a_daemon_that_is_away() {
    let nbd = OPERATIONS.lines().find(|l| l.contains("-blockdev driver=nbd")).expect("it is shown");
    assert!(nbd.contains("reconnect-delay="), "without it QEMU fails requests at once");
    assert!(OPERATIONS.contains("<reconnect delay='"), "and so does libvirt");
    for machine in machines() {
        let device = machine.iter().find(|o| o.contains("virtio-blk")).expect("each has a device");
        assert!(device.contains("rerror=stop") && device.contains("werror=stop"), "{device}");
    }
}

const SCHEMA: &str = "/usr/share/libvirt/schemas/domain.rng";
/// What libvirt asks of every machine.
const MACHINE: &str = "<name>vm</name><memory unit='MiB'>64</memory>\
    <os><type arch='x86_64' machine='q35'>hvm</type></os>";

/// The elements of this name that stand on the page as blocks of code.
fn elements(name: &str) -> Vec<String> {
    let (begin, end) = (format!("    <{name} "), format!("    </{name}>"));
    let mut lines = OPERATIONS.lines();
    let mut found = Vec::new();
    while let Some(first) = lines.find(|l| l.starts_with(&begin)) {
        let rest = lines.by_ref().take_while(|l| **l != end);
        found.push([&[first][..], &rest.collect::<Vec<_>>(), &[&end]].concat().join("\n"));
    }
    found
}

/// What libvirt's own schema has against a machine.
fn refused_by_libvirt(domain: &str) -> Option<String> {
    let mut command = Command::new("xmllint");
    command.args(["--noout", "--relaxng", SCHEMA, "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut xmllint = command.spawn().expect("xmllint runs (package libxml2-utils)");
    xmllint.stdin.take().expect("it is piped").write_all(domain.as_bytes()).expect("it reads");
    let output = xmllint.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // 3 and 4: it does not validate; others: there is no schema, or no XML.
    assert!(
        matches!(output.status.code(), Some(0 | 3 | 4)),
        "is libvirt-common (before Debian 13: libvirt0) installed? {said}"
    );
    (!output.status.success()).then_some(said)
}

#[test]
fn the_schema_of_libvirt_takes_the_elements_of_the_manual() {
    let machine =
        |devices: &str| format!("<domain type='kvm'>{MACHINE}<devices>{devices}</devices></domain>");
    let disks = elements("disk");
    assert_eq!(disks.len(), 2, "one over NBD, one over iSCSI: {disks:?}");
    for disk in disks {
        // As the page says, libvirt before 9.1 does not know this one.
        let without: String =
            disk.lines().filter(|l| !l.contains("<reconnect ")).map(|l| format!("{l}\n")).collect();
        assert_eq!(disk.contains("protocol='nbd'"), disk.contains("<reconnect delay='300'/>"), "{disk}");
        assert_eq!(refused_by_libvirt(&machine(&without)), None, "{disk}");
    }
    let domains = elements("domain");
    assert_eq!(domains.len(), 1, "{domains:?}");
    for domain in domains {
        assert_eq!(refused_by_libvirt(&domain.replace("...", MACHINE)), None, "{domain}");
    }
    // That it looks at all.
    let unknown = refused_by_libvirt(&machine("<disk type='network'><source protocol='nothing'/></disk>"));
    assert!(unknown.is_some_and(|said| said.contains("fails to validate")));
}
