//! Frames over pipes of every awkwardness: small buffers, cancelled reads and flushes, garbage.

use bytes::Bytes;
use holdfast_net::frame::{MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, MAX_QUEUED_BYTES};
use holdfast_net::{Frame, FrameError, FrameReader, FrameWriter};
use proptest::prelude::*;
use std::future::Future;
use std::task::{Context, Poll, Waker};

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn joined(pieces: &[Vec<u8>]) -> Vec<u8> {
    pieces.concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is queued comes out the same and in order, through a pipe of any width, although every read
    /// and flush is dropped and taken up again whenever it has to wait.
    #[test]
    fn frames_arrive_whole_and_in_order_through_any_pipe(
        frames in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..200),
             prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..5)),
            0..12),
        width in 1usize..400,
    ) {
        let (near, far) = tokio::io::duplex(width);
        let mut writer = FrameWriter::new(near);
        let mut reader = FrameReader::new(far);
        for (header, payload) in &frames {
            let payload = payload.iter().cloned().map(Bytes::from).collect();
            writer.queue(Bytes::from(header.clone()), payload).unwrap();
        }
        let mut got = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..1_000_000 {
            let flushed = matches!(Box::pin(writer.flush()).as_mut().poll(&mut cx), Poll::Ready(Ok(())));
            if let Poll::Ready(frame) = Box::pin(reader.read()).as_mut().poll(&mut cx) {
                got.push(frame.unwrap().unwrap());
            }
            if flushed && got.len() == frames.len() {
                break;
            }
        }
        prop_assert_eq!(writer.queued_bytes(), 0);
        let want: Vec<Frame> = frames
            .into_iter()
            .map(|(header, payload)| Frame { header: header.into(), payload: joined(&payload).into() })
            .collect();
        prop_assert_eq!(got, want);
    }

    /// Bytes from anywhere end in an error, in frames, or in the end: never in a panic or a huge buffer.
    #[test]
    fn garbage_is_refused_or_read_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        block_on(async {
            let mut reader = FrameReader::new(&bytes[..]);
            while let Ok(Some(_)) = reader.read().await {}
        });
    }
}

#[test]
fn a_frame_announced_too_long_is_refused_before_it_is_read() {
    block_on(async {
        let header = ((MAX_HEADER_BYTES + 1) as u32).to_le_bytes();
        let bytes = [header, [0; 4]].concat();
        let error = FrameReader::new(&bytes[..]).read().await.unwrap_err();
        assert!(
            matches!(error, FrameError::HeaderTooLong { announced } if announced == MAX_HEADER_BYTES as u64 + 1)
        );
        let bytes = [[0; 4], u32::MAX.to_le_bytes()].concat();
        let error = FrameReader::new(&bytes[..]).read().await.unwrap_err();
        assert!(matches!(error, FrameError::PayloadTooLong { .. }));
    });
}

#[test]
fn an_end_inside_a_frame_is_no_end_between_frames() {
    block_on(async {
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::new(&mut bytes);
        writer.queue(Bytes::from_static(b"abc"), vec![Bytes::from_static(b"defg")]).unwrap();
        writer.flush().await.unwrap();
        for cut in 1..bytes.len() {
            let error = FrameReader::new(&bytes[..cut]).read().await.unwrap_err();
            assert!(matches!(error, FrameError::Truncated), "cut at {cut}");
        }
        let mut reader = FrameReader::new(&bytes[..]);
        assert!(reader.read().await.unwrap().is_some());
        assert!(reader.read().await.unwrap().is_none());
    });
}

#[test]
fn what_no_peer_would_take_is_not_queued() {
    let mut writer = FrameWriter::new(tokio::io::sink());
    let long = Bytes::from(vec![0; MAX_PAYLOAD_BYTES]);
    let header = Bytes::from(vec![0; MAX_HEADER_BYTES + 1]);
    assert!(matches!(writer.queue(header, vec![]), Err(FrameError::HeaderTooLong { .. })));
    let more = vec![long.clone(), Bytes::from_static(b"x")];
    assert!(matches!(writer.queue(Bytes::new(), more), Err(FrameError::PayloadTooLong { .. })));
    assert_eq!(writer.queued_bytes(), 0);
    let mut queued = 0;
    while writer.queue(Bytes::new(), vec![long.clone()]).is_ok() {
        queued += MAX_PAYLOAD_BYTES;
    }
    assert!(
        writer.queued_bytes() <= MAX_QUEUED_BYTES && queued + MAX_PAYLOAD_BYTES + 16 > MAX_QUEUED_BYTES - 64
    );
    block_on(writer.flush()).unwrap();
    assert_eq!(writer.queued_bytes(), 0);
}

#[test]
fn many_small_frames_leave_in_few_writes() {
    /// Counts the calls that a socket would see.
    struct Counting(usize);
    impl tokio::io::AsyncWrite for Counting {
        fn poll_write(
            self: std::pin::Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<std::io::Result<usize>> {
            self.get_mut().0 += 1;
            Poll::Ready(Ok(buf.len()))
        }
        fn poll_write_vectored(
            self: std::pin::Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[std::io::IoSlice<'_>],
        ) -> Poll<std::io::Result<usize>> {
            self.get_mut().0 += 1;
            Poll::Ready(Ok(bufs.iter().map(|b| b.len()).sum()))
        }
        fn is_write_vectored(&self) -> bool {
            true
        }
        fn poll_flush(self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
    let mut counting = Counting(0);
    let mut writer = FrameWriter::new(&mut counting);
    for _ in 0..32 {
        writer.queue(Bytes::from_static(b"h"), vec![Bytes::from_static(b"p")]).unwrap();
    }
    block_on(writer.flush()).unwrap();
    drop(writer);
    assert_eq!(counting.0, 1);
}

#[test]
fn a_closed_peer_is_an_error_and_not_a_loop() {
    block_on(async {
        let (near, far) = tokio::io::duplex(8);
        drop(far);
        let mut writer = FrameWriter::new(near);
        writer.queue(Bytes::from_static(b"hello"), vec![]).unwrap();
        assert!(matches!(writer.flush().await, Err(FrameError::Stream(_))));
    });
}

#[test]
fn a_long_payload_is_aligned_for_direct_io() {
    block_on(async {
        let (near, far) = tokio::io::duplex(1 << 20);
        let mut writer = FrameWriter::new(near);
        let mut reader = FrameReader::new(far);
        // All of them are held, so that each has memory of its own.
        let mut held = Vec::new();
        for len in [16 << 10, 20 << 10, 128 << 10, 132 << 10] {
            let sent = Bytes::from((0..len).map(|i| (i % 251) as u8).collect::<Vec<_>>());
            writer.queue(Bytes::new(), vec![sent.clone()]).unwrap();
            writer.flush().await.unwrap();
            let frame = reader.read().await.unwrap().unwrap();
            assert_eq!(frame.payload, sent);
            assert_eq!(frame.payload.as_ptr().addr() % 512, 0, "a payload of {len} bytes");
            held.push(frame);
        }
    });
}
