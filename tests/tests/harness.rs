//! The writer and its client, judged by QEMU's NBD server: they find nothing wrong with it, and notice a write
//! that was lost or changed behind its back.

use holdfast_tests::cluster::VOLUME;
use holdfast_tests::initiator::Protocol;
use holdfast_tests::libiscsi::Session;
use holdfast_tests::nbd::Client;
use holdfast_tests::pattern::{BLOCK, content};
use holdfast_tests::writer::{Plan, Writer};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

const SIZE: u64 = 64 << 20;
const LIMIT: Duration = Duration::from_secs(20);

struct QemuNbd(Child);

impl QemuNbd {
    fn serve(file: &Path, address: &str) -> QemuNbd {
        let mut command = Command::new("qemu-nbd");
        command
            .args(["-f", "raw", "-x", VOLUME, "-b", address, "-p", "10809", "-t", "--shared=16"])
            .arg(file);
        let server = QemuNbd(command.spawn().expect("qemu-nbd runs (package qemu-utils)"));
        holdfast_tests::until("qemu-nbd listens", LIMIT, || Client::connect(address, VOLUME, LIMIT).is_ok());
        server
    }
}

impl Drop for QemuNbd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_writer_finds_nothing_wrong_with_a_good_server_and_notices_a_lost_write() {
    let address = "127.240.7.1";
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(SIZE).expect("a size");
    let server = QemuNbd::serve(file.path(), address);
    let plan = Plan {
        addresses: vec![address.to_owned()],
        reconnect: false,
        first: 0,
        stride: 1,
        run: 1,
        protocol: Protocol::Nbd,
    };
    let writer = Writer::start(plan);
    writer.wait_more(10_000, LIMIT);
    let report = writer.stop();
    assert!(report.errors.is_empty() && report.answered() >= 10_000, "{:?}", report.errors);
    report.verify(address);
    assert!(report.longest_wait() > Duration::ZERO && report.rate_otherwise() > 0.0);
    // A block that goes back to its first write, while its last one was acknowledged.
    let mut client = Client::connect(address, VOLUME, LIMIT).expect("the export opens");
    assert_eq!(client.size(), SIZE);
    let version_of = |block: u64, client: &mut Client| {
        let bytes = client.read(block * BLOCK as u64, BLOCK).expect("a read");
        holdfast_tests::pattern::version_of(block, &bytes).expect("a whole block")
    };
    let rewritten = (0..4096).find(|b| version_of(*b, &mut client) > 1).expect("a block was written twice");
    drop(client);
    drop(server);
    file.as_file()
        .write_all_at(&content(rewritten, 1), rewritten * BLOCK as u64)
        .expect("the file can be written");
    let _server = QemuNbd::serve(file.path(), address);
    let verified = std::panic::catch_unwind(|| report.verify(address));
    assert!(verified.is_err(), "a lost write went unnoticed");
}

#[test]
fn an_unknown_export_is_a_refusal_and_not_a_lost_connection() {
    let address = "127.240.7.2";
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(SIZE).expect("a size");
    let _server = QemuNbd::serve(file.path(), address);
    let refused = Client::connect(address, "nothing", LIMIT).err().expect("it is refused");
    assert!(holdfast_tests::nbd::is_refusal(&refused), "{refused}");
}

#[test]
fn libiscsi_says_why_it_cannot_log_in() {
    let refused =
        Session::login("127.240.7.3:3260", "iqn.2026-11.io.holdfast:demo").err().expect("nobody listens");
    assert!(!refused.is_empty());
}
