//! Archives and compression, recognised by their first bytes and opened layer by layer.
//!
//! Promise: streaming but for zip inside an archive (its index stands at the end; it is buffered up to a bound). Each layer
//! that shrinks its input is watched for its ratio.

use std::cell::Cell;
use std::io::{self, Cursor, Read, Seek};
use std::rc::Rc;
use std::sync::Arc;

use super::pool::Worker;
use super::{Limits, NoticeKind, Source, safe_name, zstd};

/// Bytes needed to recognise every format (tar's mark stands at 257).
const HEAD: usize = 512;
/// Largest zip held in memory when it comes out of another archive.
const MAX_NESTED_ZIP: u64 = 64 << 20;

/// A compressed or packed format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Gzip,
    Xz,
    Zstd,
    Bzip2,
    Zip,
    Tar,
    Plain,
}

fn recognise(head: &[u8]) -> Layer {
    match head {
        [0x1f, 0x8b, 8, ..] => Layer::Gzip,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Layer::Xz,
        // The second is a skippable frame, which `pzstd` writes first.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Layer::Zstd,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Layer::Bzip2,
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Layer::Zip,
        _ if head.len() >= 262 && &head[257..262] == b"ustar" => Layer::Tar,
        _ => Layer::Plain,
    }
}

/// A reader that counts what passes.
struct Counting<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        self.count.set(self.count.get() + n as u64);
        Ok(n)
    }
}

/// The message of the error that refuses a bomb; recognised by [`is_bomb`].
const BOMB: &str = "decompression bomb";

/// Whether an error is our own refusal.
pub(super) fn is_bomb(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other && error.to_string().starts_with(BOMB)
}

/// A decompressor that refuses to grow beyond the ratio.
struct Guarded<R> {
    inner: R,
    read_in: Rc<Cell<u64>>,
    out: u64,
    max_ratio: u64,
    grace: u64,
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.out > self.grace && self.out / self.read_in.get().max(1) > self.max_ratio {
            return Err(io::Error::other(format!(
                "{BOMB}: {} bytes came out of {} (more than {} to 1)",
                self.out,
                self.read_in.get(),
                self.max_ratio
            )));
        }
        let n = self.inner.read(out)?;
        self.out += n as u64;
        Ok(n)
    }
}

/// Reads up to `HEAD` bytes and gives them with a reader that begins with them.
fn peek<'a>(mut body: Box<dyn Read + 'a>) -> (Vec<u8>, Box<dyn Read + 'a>, Option<io::Error>) {
    let mut head = vec![0; HEAD];
    let mut filled = 0;
    let mut error = None;
    while filled < HEAD {
        match body.read(&mut head[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => {
                error = Some(e);
                break;
            }
        }
    }
    head.truncate(filled);
    let again = Cursor::new(head.clone());
    let body: Box<dyn Read + 'a> = match &error {
        None => Box::new(again.chain(body)),
        Some(_) => Box::new(again),
    };
    (head, body, error)
}

/// Opens layer after layer and gives the leaves to the worker's consumer.
pub(super) fn open(
    worker: &Worker<'_>,
    path: &str,
    mtime: Option<i64>,
    body: Box<dyn Read + '_>,
    depth: u32,
) {
    let (head, body, error) = peek(body);
    if let Some(e) = error {
        worker.stream_error(path, &e);
    }
    let layer = recognise(&head);
    if layer == Layer::Plain {
        return leaf(worker, path, mtime, &head, body);
    }
    if depth >= worker.limits().max_depth {
        worker.notice(
            path,
            NoticeKind::Limit,
            format!("more than {} archives in one another", worker.limits().max_depth),
        );
        return;
    }
    let inner_name = inner_name(path);
    match layer {
        Layer::Tar => tar(worker, path, body, depth),
        Layer::Zip => {
            let mut bytes = Vec::new();
            let got = body.take(MAX_NESTED_ZIP + 1).read_to_end(&mut bytes);
            if got.is_err() || bytes.len() as u64 > MAX_NESTED_ZIP {
                worker.notice(
                    path,
                    NoticeKind::Limit,
                    "a zip inside an archive is too large to hold or damaged".into(),
                );
            }
            zip(worker, path, Cursor::new(bytes), depth);
        }
        Layer::Gzip => {
            let header_time = gzip_mtime(&head).or(mtime);
            let guarded = guard(worker.limits(), body, |r| Box::new(flate2::read::MultiGzDecoder::new(r)));
            open(worker, &inner_name, header_time, guarded, depth + 1);
        }
        Layer::Xz => {
            let guarded =
                guard(worker.limits(), body, |r| Box::new(liblzma::read::XzDecoder::new_multi_decoder(r)));
            open(worker, &inner_name, mtime, guarded, depth + 1);
        }
        Layer::Bzip2 => {
            let guarded = guard(worker.limits(), body, |r| Box::new(bzip2::read::MultiBzDecoder::new(r)));
            open(worker, &inner_name, mtime, guarded, depth + 1);
        }
        Layer::Zstd => {
            let guarded = guard(worker.limits(), body, |r| Box::new(zstd::Frames::new(r)));
            open(worker, &inner_name, mtime, guarded, depth + 1);
        }
        Layer::Plain => {}
    }
}

fn guard<'a>(
    limits: &Limits,
    body: Box<dyn Read + 'a>,
    make: impl FnOnce(Counting<Box<dyn Read + 'a>>) -> Box<dyn Read + 'a>,
) -> Box<dyn Read + 'a> {
    let count = Rc::new(Cell::new(0));
    let counting = Counting { inner: body, count: Rc::clone(&count) };
    let inner = make(counting);
    Box::new(Guarded {
        inner,
        read_in: count,
        out: 0,
        max_ratio: limits.max_ratio,
        grace: limits.ratio_grace,
    })
}

/// The modification time in a gzip header; zero means none.
fn gzip_mtime(head: &[u8]) -> Option<i64> {
    let bytes: [u8; 4] = head.get(4..8)?.try_into().ok()?;
    let seconds = i64::from(u32::from_le_bytes(bytes));
    (seconds > 0).then_some(seconds)
}

/// `a.tar.gz` reads as `a.tar`; a name without a known suffix stays.
fn inner_name(path: &str) -> String {
    for (suffix, with) in
        [(".tgz", ".tar"), (".txz", ".tar"), (".gz", ""), (".xz", ""), (".zst", ""), (".bz2", "")]
    {
        if let Some(stem) = path.strip_suffix(suffix) {
            return format!("{stem}{with}");
        }
    }
    path.to_owned()
}

/// The folder that stands for an archive in logical paths.
fn archive_folder(path: &str) -> &str {
    path.strip_suffix(".tar").or_else(|| path.strip_suffix(".zip")).unwrap_or(path)
}

fn leaf(worker: &Worker<'_>, path: &str, mtime: Option<i64>, head: &[u8], body: Box<dyn Read + '_>) {
    let mut body: Box<dyn Read + '_> = match crate::text::utf16_decoder(head) {
        Some(decoder) => Box::new(Utf16 { inner: body, decoder, out: Vec::new(), at: 0, ended: false }),
        None => body,
    };
    worker.leaf(Source { path: Arc::from(path), mtime, link: None, body: &mut *body });
}

/// UTF-16 as UTF-8.
struct Utf16<R> {
    inner: R,
    decoder: encoding_rs::Decoder,
    out: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<R: Read> Read for Utf16<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.out.len() && !self.ended {
            let mut raw = [0u8; 8192];
            let n = self.inner.read(&mut raw)?;
            self.ended = n == 0;
            self.out.resize(8192 * 3 + 16, 0);
            let (_, _, written, _) = self.decoder.decode_to_utf8(&raw[..n], &mut self.out, self.ended);
            self.out.truncate(written);
            self.at = 0;
        }
        let n = into.len().min(self.out.len() - self.at);
        into[..n].copy_from_slice(&self.out[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

fn tar(worker: &Worker<'_>, path: &str, body: Box<dyn Read + '_>, depth: u32) {
    let folder = archive_folder(path).to_owned();
    let mut archive = ::tar::Archive::new(body);
    let entries = match archive.entries() {
        Ok(entries) => entries,
        Err(e) => return worker.stream_error(path, &e),
    };
    for entry in entries {
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(e) => return worker.stream_error(path, &e),
        };
        let raw = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = member_name(worker, &folder, &raw);
        let header = entry.header();
        let mtime = header.mtime().ok().map(|m| m as i64).filter(|m| *m > 0);
        let kind = header.entry_type();
        if !worker.count_file(&name) {
            return;
        }
        if kind.is_symlink() || kind.is_hard_link() {
            let target =
                entry.link_name_bytes().map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
            worker.link(&name, target);
        } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            let size = entry.header().size().unwrap_or(u64::MAX);
            if size <= worker.limits().buffer_member {
                let mut bytes = Vec::with_capacity(size as usize);
                let read = entry.read_to_end(&mut bytes);
                worker.hand_over(name.clone(), mtime, bytes, depth + 1);
                if let Err(e) = read {
                    return worker.stream_error(&name, &e);
                }
            } else {
                open(worker, &name, mtime, Box::new(&mut entry), depth + 1);
            }
        } else if !kind.is_dir() && !kind.is_pax_global_extensions() {
            worker.notice(&name, NoticeKind::Special, "not a regular file".into());
        }
    }
}

fn member_name(worker: &Worker<'_>, folder: &str, raw: &str) -> String {
    let (safe, had_unsafe) = safe_name(raw);
    let name = format!("{folder}/{safe}");
    if had_unsafe {
        worker.notice(
            &name,
            NoticeKind::UnsafeName,
            format!("the archive calls it {raw:?}; read under a safe name"),
        );
    }
    name
}

/// Opens a zip; its index says where each member stands.
pub(super) fn zip<R: Read + Seek>(worker: &Worker<'_>, path: &str, body: R, depth: u32) {
    let folder = archive_folder(path).to_owned();
    let mut archive = match ::zip::ZipArchive::new(body) {
        Ok(archive) => archive,
        Err(e) => return worker.notice(path, NoticeKind::Damaged, format!("zip: {e}")),
    };
    for index in 0..archive.len() {
        let entry = match archive.by_index(index) {
            Ok(entry) => entry,
            Err(e) => {
                worker.notice(path, NoticeKind::Damaged, format!("zip member {index}: {e}"));
                continue;
            }
        };
        let name = member_name(worker, &folder, entry.name());
        if !worker.count_file(&name) {
            return;
        }
        if entry.is_symlink() {
            worker.link(&name, String::new());
        } else if entry.is_file() {
            let compressed = Rc::new(Cell::new(entry.compressed_size().max(1)));
            let limits = worker.limits();
            let guarded = Guarded {
                inner: entry,
                read_in: compressed,
                out: 0,
                max_ratio: limits.max_ratio,
                grace: limits.ratio_grace,
            };
            open(worker, &name, None, Box::new(guarded), depth + 1);
        }
    }
}

/// Whether a file that begins so is compressed or an archive.
pub fn is_packed(head: &[u8]) -> bool {
    recognise(head) != Layer::Plain
}

/// Whether a file on disk is a zip (it is opened with its own seek).
pub(super) fn is_zip(head: &[u8]) -> bool {
    recognise(head) == Layer::Zip
}
