use super::*;

fn block_pieces(count: usize) -> Vec<Bytes> {
    // One allocation, cut at odd places of memory: some pieces are aligned by luck at most.
    let all = Bytes::from((0..count * BLOCK_BYTES + 1).map(|i| (i / 7) as u8).collect::<Vec<u8>>());
    (0..count).map(|i| all.slice(i * BLOCK_BYTES + 1..(i + 1) * BLOCK_BYTES + 1)).collect()
}

fn gathered(work: &Work) -> Vec<u8> {
    let Work::Write { pieces, .. } = work else { panic!("a write") };
    // SAFETY: the pieces point into memory that `work` keeps.
    let slice = |p: &libc::iovec| unsafe { std::slice::from_raw_parts(p.iov_base.cast::<u8>(), p.iov_len) };
    pieces.iter().flat_map(|p| slice(p).to_vec()).collect()
}

#[test]
fn unaligned_pieces_are_gathered_into_one() {
    let data = block_pieces(5);
    let want: Vec<u8> = data.iter().flat_map(|p| p.to_vec()).collect();
    let work = write_work(0, data, true, BLOCK_BYTES, &BufferPool::default());
    let Work::Write { pieces, .. } = &work else { panic!("a write") };
    assert_eq!(pieces.len(), 1);
    assert_eq!(gathered(&work), want);
}

#[test]
fn aligned_pieces_go_down_as_they_are() {
    let pool = BufferPool::default();
    let mut buffer = pool.take(2 * BLOCK_BYTES);
    buffer.as_mut_slice().fill(9);
    let aligned = Bytes::from_owner(buffer);
    let mut data = block_pieces(2);
    data.insert(1, aligned.clone());
    let want: Vec<u8> = data.iter().flat_map(|p| p.to_vec()).collect();
    let work = write_work(0, data, false, BLOCK_BYTES, &pool);
    let Work::Write { pieces, _kept, .. } = &work else { panic!("a write") };
    assert_eq!(pieces[1].iov_base.cast_const().cast(), aligned.as_ptr());
    assert_eq!(_kept.len(), 1, "only what is used in place is kept");
    assert_eq!(gathered(&work), want);
}

#[test]
fn more_pieces_than_the_kernel_takes_are_gathered() {
    let work = write_work(0, block_pieces(PIECES_MAX + 1), false, 1, &BufferPool::default());
    let Work::Write { pieces, .. } = &work else { panic!("a write") };
    assert_eq!(pieces.len(), 1);
}

#[test]
fn skipping_leaves_the_rest_in_order() {
    let data = block_pieces(4);
    let want: Vec<u8> = data.iter().flat_map(|p| p.to_vec()).collect();
    for cut in 0..=4 {
        let mut work = write_work(0, data.clone(), false, 1, &BufferPool::default());
        let Work::Write { pieces, .. } = &mut work else { panic!("a write") };
        skip(pieces, cut * BLOCK_BYTES + if cut < 4 { 512 } else { 0 });
        let from = if cut < 4 { cut * BLOCK_BYTES + 512 } else { 4 * BLOCK_BYTES };
        assert_eq!(gathered(&work), &want[from..]);
    }
}

fn file(blocks: usize) -> (tempfile::TempDir, Arc<OpenDisk>) {
    let folder = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
    let path = folder.path().join("disk");
    crate::create_file(&path, (blocks * BLOCK_BYTES) as u64, &mut |_| {}).unwrap();
    let disk = Arc::new(OpenDisk::open(&path).unwrap());
    (folder, disk)
}

fn job(disk: &Arc<OpenDisk>, kind: DiskOrderKind) -> Job {
    Job::new(0, disk, DiskOrder { token: DiskToken(1), kind }, &BufferPool::default())
}

#[test]
fn a_short_write_goes_on_where_it_stopped() {
    let (_folder, disk) = file(4);
    let mut job = job(&disk, DiskOrderKind::Write { offset: 4096, data: block_pieces(3), durable: true });
    assert_eq!(job.answered(4096 + 512), None, "half a block counts as not written");
    let Call::Write { offset, durable, .. } = job.call() else { panic!("a write") };
    assert_eq!((offset, durable), (2 * 4096, true));
    assert_eq!(job.answered(2 * 4096), Some(Ok(Bytes::new())));
}

#[test]
fn a_write_that_makes_no_progress_is_an_error() {
    let (_folder, disk) = file(1);
    let mut job = job(&disk, DiskOrderKind::Write { offset: 0, data: block_pieces(1), durable: false });
    assert_eq!(job.answered(0), Some(Err(DiskFault::Io(libc::EIO))));
}

#[test]
fn a_read_that_ends_early_is_short() {
    let (_folder, disk) = file(4);
    let mut job = job(&disk, DiskOrderKind::Read { offset: 0, len: 4 * 4096 });
    assert_eq!(job.answered(4096), None);
    let Call::Read { offset, len, .. } = job.call() else { panic!("a read") };
    assert_eq!((offset, len), (4096, 3 * 4096));
    assert_eq!(job.answered(0), Some(Err(DiskFault::Short)));
}

#[test]
fn an_interrupted_call_is_made_again_but_not_for_ever() {
    let (_folder, disk) = file(1);
    let mut job = job(&disk, DiskOrderKind::Flush);
    for _ in 0..RETRIES_MAX {
        assert_eq!(job.answered(-i64::from(libc::EINTR)), None);
    }
    assert_eq!(job.answered(-i64::from(libc::EAGAIN)), Some(Err(DiskFault::Io(libc::EAGAIN))));
}

#[test]
fn an_error_is_reported_with_its_number() {
    let (_folder, disk) = file(1);
    let mut job = job(&disk, DiskOrderKind::Flush);
    assert_eq!(job.answered(-i64::from(libc::EIO)), Some(Err(DiskFault::Io(libc::EIO))));
}
