//! The same promises over both ways to the kernel, on real files with O_DIRECT.

use bytes::Bytes;
use holdfast_disk::{Backend, DiskErrorKind, DiskSlot, Disks, create_file, prewrite};
use holdfast_types::{DiskDone, DiskFault, DiskOrder, DiskOrderKind, DiskToken};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

const BLOCK: u64 = 4096;

/// A folder on a disk: the target directory, where /tmp may be memory.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn new_disk(folder: &Path, name: &str, blocks: u64) -> PathBuf {
    let path = folder.join(name);
    create_file(&path, blocks * BLOCK, &mut |_| {}).unwrap();
    path
}

fn write(token: u64, block: u64, data: Vec<Bytes>, durable: bool) -> DiskOrder {
    DiskOrder { token: DiskToken(token), kind: DiskOrderKind::Write { offset: block * BLOCK, data, durable } }
}
fn read(token: u64, block: u64, blocks: u64) -> DiskOrder {
    let kind = DiskOrderKind::Read { offset: block * BLOCK, len: (blocks * BLOCK) as usize };
    DiskOrder { token: DiskToken(token), kind }
}
fn flush(token: u64) -> DiskOrder {
    DiskOrder { token: DiskToken(token), kind: DiskOrderKind::Flush }
}

/// Content that tells its block and its version, in memory that is not aligned.
fn content(block: u64, version: u64) -> Bytes {
    let mut bytes = vec![0u8];
    for word in 0..BLOCK / 8 {
        bytes.extend((block * 1_000_003 + version * 7 + word).to_le_bytes());
    }
    Bytes::from(bytes).slice(1..)
}

async fn finish(disks: &mut Disks) -> BTreeMap<u64, Result<Bytes, DiskFault>> {
    disks.kick();
    let mut done: Vec<(DiskSlot, DiskDone)> = Vec::new();
    while disks.in_flight() > 0 {
        tokio::time::timeout(Duration::from_secs(30), disks.wait()).await.expect("orders get done");
        disks.poll(&mut done);
    }
    let count = done.len();
    let by_token: BTreeMap<_, _> = done.into_iter().map(|(_, d)| (d.token.0, d.result)).collect();
    assert_eq!(by_token.len(), count, "each order is answered once");
    by_token
}

/// Runs a test over both backends.
fn over_both(test: impl AsyncFn(Backend)) {
    for backend in [Backend::Uring, Backend::Threads] {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test(backend));
    }
}

#[test]
fn what_was_written_is_read_back() {
    over_both(async |backend| {
        let folder = folder();
        let path = new_disk(folder.path(), "disk", 64);
        let mut disks = Disks::new(backend).unwrap();
        let (slot, size) = disks.open(&path).unwrap();
        assert_eq!(size, 64 * BLOCK);
        disks.submit(slot, write(1, 3, vec![content(3, 1), content(4, 1), content(5, 1)], true));
        assert_eq!(finish(&mut disks).await[&1], Ok(Bytes::new()));
        disks.submit(slot, read(2, 2, 4));
        let got = finish(&mut disks).await.remove(&2).unwrap().unwrap();
        let want = [Bytes::from(vec![0; 4096]), content(3, 1), content(4, 1), content(5, 1)].concat();
        assert_eq!(got, want);
        // The page cache has no part in it: what another descriptor reads is what is on the disk.
        assert_eq!(std::fs::read(&path).unwrap()[3 * 4096..4 * 4096], content(3, 1));
    });
}

#[test]
fn many_orders_go_on_at_once_over_two_disks() {
    over_both(async |backend| {
        let folder = folder();
        let mut disks = Disks::new(backend).unwrap();
        let mut slots = Vec::new();
        for name in ["a", "b"] {
            slots.push(disks.open(&new_disk(folder.path(), name, 2000)).unwrap().0);
        }
        for block in 0..2000 {
            let order = write(block, block, vec![content(block, block % 2)], block % 50 == 0);
            disks.submit(slots[block as usize % 2], order);
        }
        assert!(finish(&mut disks).await.values().all(Result::is_ok));
        for block in 0..2000 {
            disks.submit(slots[block as usize % 2], read(block, block, 1));
        }
        disks.submit(slots[0], flush(9999));
        let mut done = finish(&mut disks).await;
        assert_eq!(done.remove(&9999), Some(Ok(Bytes::new())));
        assert_eq!(done.len(), 2000);
        for (block, got) in done {
            assert_eq!(got.unwrap(), content(block, block % 2), "block {block}");
        }
    });
}

#[test]
fn aligned_and_unaligned_pieces_mix_in_one_write() {
    over_both(async |backend| {
        let folder = folder();
        let mut disks = Disks::new(backend).unwrap();
        let (slot, _) = disks.open(&new_disk(folder.path(), "disk", 32)).unwrap();
        disks.submit(slot, write(1, 0, vec![content(0, 0), content(1, 0)], false));
        finish(&mut disks).await;
        // What was read lies in aligned memory; it is written again between two pieces that do not.
        disks.submit(slot, read(2, 0, 2));
        let aligned = finish(&mut disks).await.remove(&2).unwrap().unwrap();
        let pieces =
            vec![content(8, 0), aligned.slice(4096..), aligned.clone(), content(9, 0), content(10, 0)];
        let want = pieces.concat();
        disks.submit(slot, write(3, 16, pieces, true));
        disks.submit(slot, read(4, 0, 1));
        finish(&mut disks).await;
        disks.submit(slot, read(5, 16, 6));
        assert_eq!(finish(&mut disks).await.remove(&5).unwrap().unwrap(), want);
    });
}

#[test]
fn large_orders_wait_for_their_place_and_all_get_done() {
    over_both(async |backend| {
        let folder = folder();
        let mut disks = Disks::new(backend).unwrap();
        let (slot, _) = disks.open(&new_disk(folder.path(), "disk", 16 * 1024)).unwrap();
        // 48 MiB in one order, more than the bound, and others behind it.
        let big: Vec<Bytes> = (0..12 * 1024).map(|block| content(block, 5)).collect();
        disks.submit(slot, write(1, 0, big, true));
        disks.submit(slot, write(2, 12 * 1024, vec![content(1, 6)], true));
        disks.submit(slot, read(3, 13 * 1024, 1024));
        assert!(finish(&mut disks).await.values().all(Result::is_ok));
        disks.submit(slot, read(4, 0, 12 * 1024));
        let got = finish(&mut disks).await.remove(&4).unwrap().unwrap();
        assert_eq!(got[5000 * 4096..5001 * 4096], content(5000, 5));
    });
}

#[test]
fn an_order_beyond_the_end_is_short_and_the_file_does_not_grow() {
    over_both(async |backend| {
        let folder = folder();
        let path = new_disk(folder.path(), "disk", 8);
        let mut disks = Disks::new(backend).unwrap();
        let (slot, _) = disks.open(&path).unwrap();
        disks.submit(slot, write(1, 7, vec![content(0, 0), content(1, 0)], true));
        disks.submit(slot, read(2, 8, 1));
        disks.submit(slot, read(3, u64::MAX / BLOCK, 1));
        assert!(finish(&mut disks).await.values().all(|r| *r == Err(DiskFault::Short)));
        assert_eq!(path.metadata().unwrap().len(), 8 * BLOCK);
    });
}

#[test]
fn a_file_that_was_cut_under_the_daemon_answers_short() {
    over_both(async |backend| {
        let folder = folder();
        let path = new_disk(folder.path(), "disk", 8);
        let mut disks = Disks::new(backend).unwrap();
        let (slot, _) = disks.open(&path).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4 * BLOCK).unwrap();
        disks.submit(slot, read(1, 2, 4));
        disks.submit(slot, read(2, 5, 1));
        disks.submit(slot, read(3, 0, 4));
        let done = finish(&mut disks).await;
        assert_eq!((&done[&1], &done[&2]), (&Err(DiskFault::Short), &Err(DiskFault::Short)));
        assert!(done[&3].is_ok());
    });
}

#[test]
fn orders_that_are_no_whole_blocks_are_refused() {
    over_both(async |backend| {
        let folder = folder();
        let mut disks = Disks::new(backend).unwrap();
        let (slot, _) = disks.open(&new_disk(folder.path(), "disk", 8)).unwrap();
        let half = DiskOrderKind::Read { offset: 512, len: 4096 };
        disks.submit(slot, DiskOrder { token: DiskToken(1), kind: half });
        disks.submit(slot, write(2, 0, vec![content(0, 0).slice(..512)], false));
        let done = finish(&mut disks).await;
        assert!(done.values().all(|r| *r == Err(DiskFault::Io(22))), "{done:?}");
    });
}

#[test]
fn a_closed_disk_answers_with_enodev_and_is_free_for_others() {
    over_both(async |backend| {
        let folder = folder();
        let path = new_disk(folder.path(), "disk", 8);
        let mut disks = Disks::new(backend).unwrap();
        let (slot, _) = disks.open(&path).unwrap();
        disks.submit(slot, write(1, 0, vec![content(0, 0)], true));
        disks.kick();
        disks.submit(slot, write(2, 1, vec![content(1, 0)], true));
        disks.close(slot);
        assert!(!disks.is_free(slot), "something is under way");
        disks.submit(slot, read(3, 0, 1));
        disks.submit(DiskSlot(77), flush(4));
        let done = finish(&mut disks).await;
        assert_eq!(done[&1], Ok(Bytes::new()), "what was under way is finished");
        for token in 2..=4 {
            assert_eq!(done[&token], Err(DiskFault::Io(19)), "order {token}");
        }
        assert!(disks.is_free(slot));
        disks.open(&path).unwrap();
    });
}

#[test]
fn a_disk_serves_one_daemon_only() {
    over_both(async |backend| {
        let folder = folder();
        let path = new_disk(folder.path(), "disk", 8);
        let mut first = Disks::new(backend).unwrap();
        first.open(&path).unwrap();
        let mut second = Disks::new(backend).unwrap();
        let error = second.open(&path).unwrap_err();
        assert!(matches!(error.kind, DiskErrorKind::Busy), "{error}");
        assert!(prewrite(&path, std::slice::from_ref(&(0..BLOCK)), &mut |_| {}).is_err());
        drop(first);
        second.open(&path).unwrap();
    });
}

#[test]
fn dropping_the_wait_loses_nothing() {
    over_both(async |backend| {
        let folder = folder();
        let mut disks = Disks::new(backend).unwrap();
        let (slot, _) = disks.open(&new_disk(folder.path(), "disk", 8)).unwrap();
        for token in 0..200 {
            disks.submit(slot, write(token, token % 8, vec![content(0, token)], token % 2 == 0));
            disks.kick();
            let mut done = Vec::new();
            while disks.in_flight() > 0 {
                tokio::select! {
                    biased;
                    () = disks.wait() => { disks.poll(&mut done); }
                    () = tokio::task::yield_now() => {}
                }
            }
            assert_eq!(done.len(), 1);
        }
    });
}

#[test]
fn dropping_everything_with_orders_under_way_is_safe() {
    over_both(async |backend| {
        let folder = folder();
        let path = new_disk(folder.path(), "disk", 512);
        for _ in 0..5 {
            let mut disks = Disks::new(backend).unwrap();
            let (slot, _) = disks.open(&path).unwrap();
            for block in 0..200 {
                disks.submit(slot, write(block, block, vec![content(block, 1)], true));
                disks.submit(slot, read(1000 + block, block, 8));
            }
            disks.kick();
        }
        Disks::new(backend).unwrap().open(&path).unwrap();
    });
}

#[test]
fn data_outlives_the_disks_that_it_was_read_from() {
    over_both(async |backend| {
        let folder = folder();
        let path = new_disk(folder.path(), "disk", 8);
        let mut disks = Disks::new(backend).unwrap();
        let (slot, _) = disks.open(&path).unwrap();
        disks.submit(slot, write(1, 0, vec![content(0, 1)], true));
        finish(&mut disks).await;
        disks.submit(slot, read(2, 0, 1));
        let data = finish(&mut disks).await.remove(&2).unwrap().unwrap();
        drop(disks);
        assert_eq!(std::thread::spawn(move || data).join().unwrap(), content(0, 1));
    });
}

#[test]
fn disks_that_cannot_serve_are_refused_by_name() {
    let folder = folder();
    let mut disks = Disks::new(Backend::Threads).unwrap();
    let mut refuse = |path: &Path| disks.open(path).unwrap_err();

    assert!(matches!(refuse(&folder.path().join("none")).kind, DiskErrorKind::Missing));
    assert!(matches!(refuse(folder.path()).kind, DiskErrorKind::WrongType));
    assert!(matches!(refuse(Path::new("/dev/null")).kind, DiskErrorKind::WrongType));
    let odd = folder.path().join("odd");
    std::fs::write(&odd, vec![1; 5000]).unwrap();
    assert!(matches!(refuse(&odd).kind, DiskErrorKind::BadSize { size: 5000 }));
    let empty = folder.path().join("empty");
    std::fs::write(&empty, []).unwrap();
    assert!(matches!(refuse(&empty).kind, DiskErrorKind::BadSize { size: 0 }));
    let path = new_disk(folder.path(), "locked", 8);
    let mut permissions = path.metadata().unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&path, permissions).unwrap();
    let error = refuse(&path);
    assert!(matches!(error.kind, DiskErrorKind::ReadOnly));
    assert_eq!(error.to_string(), format!("{} is read-only", path.display()));
}

#[test]
fn a_new_file_is_reserved_and_reports_progress() {
    let folder = folder();
    let path = folder.path().join("disk");
    let mut reports = Vec::new();
    create_file(&path, 600 << 20, &mut |done| reports.push(done)).unwrap();
    assert_eq!(reports, [256 << 20, 512 << 20, 600 << 20]);
    let meta = path.metadata().unwrap();
    assert_eq!(meta.len(), 600 << 20);
    assert!(std::os::unix::fs::MetadataExt::blocks(&meta) * 512 >= 600 << 20, "its space is reserved");

    let mut reports = Vec::new();
    prewrite(&path, &[0..8192, (1 << 20)..(4 << 20)], &mut |done| reports.push(done)).unwrap();
    assert_eq!(reports.last(), Some(&(8192 + (3 << 20))));
    let error = prewrite(&path, std::slice::from_ref(&((600 << 20)..(601 << 20))), &mut |_| {}).unwrap_err();
    assert!(matches!(error.kind, DiskErrorKind::OutOfRange { .. }));
}

#[test]
fn a_file_that_exists_or_does_not_fit_is_not_made() {
    let folder = folder();
    let path = new_disk(folder.path(), "disk", 8);
    let error = create_file(&path, BLOCK, &mut |_| {}).unwrap_err();
    assert!(matches!(error.kind, DiskErrorKind::Exists));
    assert_eq!(path.metadata().unwrap().len(), 8 * BLOCK, "it stays as it was");

    let big = folder.path().join("big");
    let error = create_file(&big, 1 << 60, &mut |_| {}).unwrap_err();
    assert!(
        matches!(error.kind, DiskErrorKind::NoRoom { need, free } if need == 1 << 60 && free > 0),
        "{error}"
    );
    assert!(!big.exists());
    let error = create_file(&folder.path().join("no/such/folder"), BLOCK, &mut |_| {}).unwrap_err();
    assert!(matches!(error.kind, DiskErrorKind::Missing));
    assert!(matches!(create_file(&big, 5000, &mut |_| {}).unwrap_err().kind, DiskErrorKind::BadSize { .. }));
}
