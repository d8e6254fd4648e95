//! The file system mounted for real: what a cut takes and what it leaves. Needs /dev/fuse and the right to mount.

use bytes::Bytes;
use holdfast_disk::{Backend, Disks, create_file};
use holdfast_powercut::PowerCut;
use holdfast_types::{DiskDone, DiskFault, DiskOrder, DiskOrderKind, DiskToken};
use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    os::unix::{fs::FileExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

const BLOCK: usize = 4096;
const BLOCKS: u64 = 256;

struct Setup {
    power: PowerCut,
    mount: PathBuf,
    backing: PathBuf,
    _folder: tempfile::TempDir,
}

fn setup() -> Setup {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (mount, backing) = (folder.path().join("mount"), folder.path().join("backing"));
    std::fs::create_dir(&mount).unwrap();
    std::fs::create_dir(&backing).unwrap();
    let power = PowerCut::mount(&mount, &backing)
        .unwrap_or_else(|e| panic!("{e}: {}; the package fuse3 and the right to mount are needed", e.source));
    Setup { power, mount, backing, _folder: folder }
}

fn new_file(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap()
}

#[test]
fn what_was_not_flushed_is_gone_after_the_cut_and_what_was_is_there() {
    let s = setup();
    let file = new_file(&s.mount.join("f"));
    file.write_all_at(&[1; 2 * BLOCK], 0).unwrap();
    file.sync_data().unwrap();
    for block in 0..BLOCKS {
        file.write_all_at(&[2; BLOCK], (2 + block) * BLOCK as u64).unwrap();
    }
    assert_eq!(std::fs::read(s.mount.join("f")).unwrap()[2 * BLOCK..3 * BLOCK], [2; BLOCK], "readers see it");
    assert_eq!(s.power.status().cached_bytes, BLOCKS * BLOCK as u64);
    let report = s.power.cut(7).unwrap();
    assert!(report.dropped > 0 && report.torn > 0 && report.kept > 0, "{report:?}");
    let left = std::fs::read(s.backing.join("f")).unwrap();
    assert_eq!(left[..2 * BLOCK], [1; 2 * BLOCK]);
    let blocks: Vec<&[u8]> = left[2 * BLOCK..].chunks(BLOCK).collect();
    assert!(blocks.contains(&&[2; BLOCK][..]), "some writes were kept");
    assert!(blocks.contains(&&[0; BLOCK][..]), "some are gone");
    assert!(blocks.iter().any(|b| b.contains(&0) && b.contains(&2)), "some are torn");
}

#[test]
fn after_the_cut_everything_fails_and_new_power_serves_new_files_only() {
    let s = setup();
    let file = new_file(&s.mount.join("f"));
    file.write_all_at(&[1; BLOCK], 0).unwrap();
    file.sync_all().unwrap();
    s.power.cut(1).unwrap();
    let eio = |result: std::io::Result<()>| assert_eq!(result.unwrap_err().raw_os_error(), Some(5));
    eio(file.write_all_at(&[1; BLOCK], 0));
    eio(file.read_exact_at(&mut [0; BLOCK], 0));
    eio(file.sync_data());
    eio(File::open(s.mount.join("f")).map(drop));
    s.power.power_on();
    eio(file.write_all_at(&[1; BLOCK], 0));
    assert_eq!(std::fs::read(s.mount.join("f")).unwrap(), [1; BLOCK]);
}

#[test]
fn files_are_made_listed_renamed_reserved_and_removed() {
    let s = setup();
    let path = s.mount.join("disk");
    create_file(&path, 1 << 20, &mut |_| {}).unwrap();
    assert_eq!(path.metadata().unwrap().len(), 1 << 20);
    std::fs::rename(&path, s.mount.join("other")).unwrap();
    std::fs::write(s.mount.join("small"), b"text").unwrap();
    let mut names: Vec<_> = std::fs::read_dir(&s.mount).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["other", "small"]);
    assert_eq!(std::fs::read(s.mount.join("small")).unwrap(), b"text");
    std::fs::remove_file(s.mount.join("small")).unwrap();
    assert!(!s.backing.join("small").exists());
    let error = create_file(&s.mount.join("huge"), 1 << 60, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("bytes free"), "{error}");
}

fn write(token: u64, durable: bool) -> DiskOrder {
    let data = vec![Bytes::from(vec![token as u8 + 1; BLOCK])];
    DiskOrder {
        token: DiskToken(token),
        kind: DiskOrderKind::Write { offset: token * BLOCK as u64, data, durable },
    }
}

async fn finish(disks: &mut Disks) -> Vec<DiskDone> {
    disks.kick();
    let mut done = Vec::new();
    while disks.in_flight() > 0 {
        tokio::time::timeout(Duration::from_secs(30), disks.wait()).await.unwrap();
        disks.poll(&mut done);
    }
    done.into_iter().map(|(_, done)| done).collect()
}

/// The store's own way to the disk, over both backends: this is how RWF_DSYNC is known to arrive.
#[test]
fn durable_orders_of_both_backends_survive_and_others_do_not() {
    for backend in [Backend::Uring, Backend::Threads] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let s = setup();
            let path = s.mount.join("disk");
            create_file(&path, BLOCKS * BLOCK as u64, &mut |_| {}).unwrap();
            let mut disks = Disks::new(backend).unwrap();
            let (slot, _) = disks.open(&path).unwrap();
            assert!(
                Disks::new(backend).unwrap().open(&path).is_err(),
                "the lock holds on this file system too"
            );
            (0..100).for_each(|token| disks.submit(slot, write(token, token % 2 == 0)));
            assert!(finish(&mut disks).await.iter().all(|d| d.result.is_ok()));
            assert_eq!(s.power.status().durable_writes, 50, "{backend:?}: each asked once, by its flag");
            disks.submit(
                slot,
                DiskOrder { token: DiskToken(0), kind: DiskOrderKind::Read { offset: 0, len: 8192 } },
            );
            let read = finish(&mut disks).await.remove(0).result.unwrap();
            assert_eq!(read, [[1; BLOCK], [2; BLOCK]].concat());

            let report = s.power.cut(3).unwrap();
            assert_eq!(report.kept + report.dropped + report.torn, 50);
            let left = std::fs::read(s.backing.join("disk")).unwrap();
            for token in (0..100).step_by(2) {
                assert_eq!(left[token * BLOCK..(token + 1) * BLOCK], [token as u8 + 1; BLOCK]);
            }
            disks.submit(slot, write(0, true));
            assert_eq!(finish(&mut disks).await[0].result, Err(DiskFault::Io(5)));
        });
    }
}

#[test]
fn a_flush_order_saves_what_was_written_before_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let s = setup();
        let path = s.mount.join("disk");
        create_file(&path, BLOCKS * BLOCK as u64, &mut |_| {}).unwrap();
        let mut disks = Disks::new(Backend::Uring).unwrap();
        let (slot, _) = disks.open(&path).unwrap();
        (0..100).for_each(|token| disks.submit(slot, write(token, false)));
        finish(&mut disks).await;
        disks.submit(slot, DiskOrder { token: DiskToken(0), kind: DiskOrderKind::Flush });
        assert!(finish(&mut disks).await[0].result.is_ok());
        assert_eq!(s.power.cut(9).unwrap(), Default::default(), "nothing is at stake");
        let left = std::fs::read(s.backing.join("disk")).unwrap();
        assert!((0..100).all(|token| left[token * BLOCK..(token + 1) * BLOCK] == [token as u8 + 1; BLOCK]));
    });
}

#[test]
fn it_is_fast_enough_to_carry_a_cluster() {
    let s = setup();
    let file = new_file(&s.mount.join("f"));
    file.set_len(BLOCKS * BLOCK as u64).unwrap();
    let start = Instant::now();
    for i in 0..1000 {
        file.write_all_at(&[i as u8; BLOCK], i % BLOCKS * BLOCK as u64).unwrap();
        file.sync_data().unwrap();
    }
    let per_second = 1000.0 / start.elapsed().as_secs_f64();
    let status = s.power.status();
    assert_eq!((status.flushes, status.cached_bytes), (1000, 0), "each flush came here and did its work");
    println!("{per_second:.0} flushed 4 KiB writes a second");
    assert!(per_second > 100.0, "{per_second}: a third of what a cluster's tests need");
}

/// A process that is ended with the test, and never left behind with its mount.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(mount: &Path, backing: &Path, socket: &Path) -> (Running, UnixStream) {
    let child = Command::new(env!("CARGO_BIN_EXE_holdfast-powercut"))
        .args([mount, backing, Path::new("--control"), socket])
        .spawn()
        .unwrap();
    let running = Running(child);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return (running, stream),
            Err(e) => assert!(Instant::now() < deadline, "no control socket: {e}"),
        }
        std::thread::yield_now();
    }
}

fn say(stream: &UnixStream, line: &str) -> String {
    let mut writer = stream;
    writeln!(writer, "{line}").unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    answer.trim().into()
}

#[test]
fn the_binary_obeys_its_socket_and_takes_over_from_a_killed_one() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (mount, backing) = (folder.path().join("mount"), folder.path().join("backing"));
    std::fs::create_dir(&mount).unwrap();
    std::fs::create_dir(&backing).unwrap();
    // The path of a socket is short, however long that of the target directory is.
    let short = tempfile::tempdir().unwrap();
    let socket = short.path().join("control");

    let (running, stream) = start(&mount, &backing, &socket);
    let file = new_file(&mount.join("f"));
    file.write_all_at(&[1; BLOCK], 0).unwrap();
    assert_eq!(say(&stream, "STATUS"), "status powered=true cached=4096 durable_writes=0 flushes=0");
    file.sync_data().unwrap();
    assert!(say(&stream, "JUMP").starts_with("error"));
    assert!(say(&stream, "CUT x").starts_with("error"));
    assert_eq!(say(&stream, "CUT 5"), "cut kept=0 dropped=0 torn=0");
    assert_eq!(say(&stream, "POWER"), "powered");
    drop((running, stream));

    std::fs::remove_file(&socket).unwrap();
    let (mut running, stream) = start(&mount, &backing, &socket);
    assert_eq!(std::fs::read(mount.join("f")).unwrap(), [1; BLOCK]);
    std::fs::write(mount.join("g"), b"late").unwrap();
    assert_eq!(say(&stream, "STOP"), "stopped");
    assert!(running.0.wait().unwrap().success());
    assert_eq!(std::fs::read(backing.join("g")).unwrap(), b"late");
    assert!(std::fs::read_dir(&mount).unwrap().next().is_none(), "it is unmounted");
}
