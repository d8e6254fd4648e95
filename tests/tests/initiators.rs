//! Initiators of others against every node, over both protocols, each cross-checked through the other one.

use holdfast_tests::cluster::VOLUME;
use holdfast_tests::qemu_io::QemuIo;
use holdfast_tests::{Cluster, pattern, run, succeed};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SIZE: u64 = 1 << 30;
const IMAGE_BLOCKS: u64 = 4096;
const LIMIT: Duration = Duration::from_secs(30);

/// A file with content that differs from block to block.
fn image(folder: &Path, version: u64) -> PathBuf {
    let path = folder.join(format!("image{version}"));
    std::fs::write(&path, pattern::run(0, IMAGE_BLOCKS, version)).expect("the image can be written");
    path
}

#[test]
fn qemu_img_copies_in_through_one_protocol_and_compares_equal_through_the_other_on_every_node() {
    let cluster = Cluster::start(3);
    for node in 1..=3 {
        let image = image(cluster.folder(), node as u64);
        let image = image.to_string_lossy();
        let (to, from) = match node % 2 {
            0 => (cluster.iscsi(node), cluster.nbd(node % 3 + 1)),
            _ => (cluster.nbd(node), cluster.iscsi(node % 3 + 1)),
        };
        succeed("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", &image, &to]);
        succeed("qemu-img", &["compare", "-f", "raw", "-F", "raw", &image, &from]);
    }
    cluster.assert_copies_equal();
}

#[test]
fn qemu_io_patterns_written_over_nbd_read_over_iscsi_and_the_other_way_round() {
    let cluster = Cluster::start(3);
    for node in 1..=3 {
        let mut nbd = QemuIo::open(&cluster.nbd(node));
        let mut iscsi = QemuIo::open(&cluster.iscsi(node % 3 + 1));
        // Whole blocks, sectors inside of a block, and a range over the edges of blocks and extents.
        for (pattern, range) in [("0x11", "0 64k"), ("0x22", "70144 512"), ("0x33", "1045504 6656")] {
            nbd.run(&format!("write -P {pattern} {range}"), LIMIT).expect("NBD writes");
            iscsi.run(&format!("read -P {pattern} {range}"), LIMIT).expect("iSCSI reads what NBD wrote");
        }
        iscsi.run("write -P 0x44 2M 1M", LIMIT).expect("iSCSI writes");
        nbd.run("read -P 0x44 2M 1M", LIMIT).expect("NBD reads what iSCSI wrote");
        nbd.run("write -z 2M 512k", LIMIT).expect("NBD writes zeroes");
        iscsi.run("read -P 0 2M 512k", LIMIT).expect("iSCSI reads zeroes");
        iscsi.run("discard 2560k 512k", LIMIT).expect("iSCSI discards");
        nbd.run("read -P 0 2560k 512k", LIMIT).expect("what was discarded reads as zeroes");
        drop((nbd, iscsi));
        for image in [cluster.nbd(node), cluster.iscsi(node)] {
            succeed(
                "qemu-io",
                &[
                    "-f",
                    "raw",
                    "-c",
                    "write -P 0x55 4M 4k",
                    "-c",
                    "flush",
                    "-c",
                    "read -P 0x55 4M 4k",
                    &image,
                ],
            );
        }
    }
}

#[test]
fn iscsi_tools_find_the_volume_on_every_node_with_its_size() {
    let cluster = Cluster::start(3);
    let mut serials = Vec::new();
    for node in 1..=3 {
        let portal = format!("iscsi://{}:3260", cluster.address(node));
        let listed = succeed("iscsi-ls", &["-s", &portal]);
        assert!(listed.contains(&format!("iqn.2026-11.io.holdfast:{VOLUME}")), "{listed}");
        let capacity = succeed("iscsi-readcapacity16", &[&cluster.iscsi(node)]);
        assert!(capacity.contains(&SIZE.to_string()), "{capacity}");
        let inquiry = succeed("iscsi-inq", &[&cluster.iscsi(node)]);
        assert!(inquiry.to_lowercase().contains("holdfast"), "{inquiry}");
        serials.push(succeed("iscsi-inq", &["-e", "1", "-c", "0x83", &cluster.iscsi(node)]));
    }
    // Multipath joins paths by the identification page: it must be the same everywhere.
    let naa = |text: &String| {
        text.lines().filter(|l| l.contains("Designator:")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(serials.iter().all(|s| naa(s) == naa(&serials[0])), "identities differ: {serials:?}");
}

#[test]
fn nbdinfo_and_nbdcopy_work_against_every_node() {
    let cluster = Cluster::start(3);
    let image = image(cluster.folder(), 9);
    for node in 1..=3 {
        let info = succeed("nbdinfo", &[&cluster.nbd(node)]);
        assert!(info.contains(&SIZE.to_string()) && info.contains("can_multi_conn: true"), "{info}");
        let list = succeed("nbdinfo", &["--list", &format!("nbd://{}:10809", cluster.address(node))]);
        assert!(list.contains(VOLUME), "{list}");
        let copy = cluster.folder().join(format!("copy{node}"));
        succeed("nbdcopy", &[&image.to_string_lossy(), &cluster.nbd(node)]);
        succeed("nbdcopy", &[&cluster.nbd(node % 3 + 1), &copy.to_string_lossy()]);
        let (wrote, read) =
            (std::fs::read(&image).expect("readable"), std::fs::read(&copy).expect("readable"));
        assert_eq!(read.len() as u64, SIZE);
        assert!(read.starts_with(&wrote), "the copy through node {node} differs");
        std::fs::remove_file(&copy).expect("the copy is ours");
    }
    let map = succeed("nbdinfo", &["--map", &cluster.nbd(1)]);
    assert!(map.contains("hole"), "what was never written is a hole: {map}");
}

#[test]
fn fio_verifies_what_it_wrote_at_depth_against_every_node() {
    let cluster = Cluster::start(3);
    for node in 1..=3 {
        let (name, uri) = (format!("--name=node{node}"), format!("--uri={}", cluster.nbd(node)));
        let offset = format!("--offset={}M", node * 100);
        let job = [
            "--ioengine=nbd",
            "--rw=randrw",
            "--bssplit=4k/60:512/20:64k/20",
            "--iodepth=16",
            "--size=24M",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--do_verify=1",
            "--randrepeat=1",
            "--verify_state_save=0",
            "--output-format=terse",
        ];
        // An option of an engine comes after the engine.
        succeed("fio", &[&[name.as_str(), &offset], &job[..], &[uri.as_str()]].concat());
    }
    cluster.assert_copies_equal();
}

#[test]
fn a_volume_that_does_not_exist_is_refused_over_both_protocols() {
    let cluster = Cluster::start(1);
    let nbd = cluster.nbd(1).replace(VOLUME, "nothing");
    assert!(run("nbdinfo", &[&nbd]).is_err());
    let iscsi = cluster.iscsi(1).replace(VOLUME, "nothing");
    assert!(run("iscsi-inq", &[&iscsi]).is_err());
}
