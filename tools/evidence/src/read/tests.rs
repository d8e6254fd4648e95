//! Bundles as strangers make them: nested, cut, hostile.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::sync::Mutex;

use super::*;

fn read(path: &Path, limits: &Limits) -> (BTreeMap<String, Vec<u8>>, Vec<Notice>) {
    let got = Mutex::new(BTreeMap::new());
    let errors = Mutex::new(Vec::new());
    let mut notices = read_all(&[path.to_owned()], limits, &Progress::default(), &|source| {
        let mut all = Vec::new();
        let end = for_each_block(source.body, |b| {
            all.extend_from_slice(b.bytes);
            ControlFlow::Continue(())
        });
        if let Some(e) = end.error {
            let (kind, detail) = pool::classify(&e);
            errors.lock().unwrap().push(Notice { path: source.path.to_string(), kind, detail });
        }
        got.lock().unwrap().insert(source.path.to_string(), all);
    })
    .expect("the bundle opens");
    notices.extend(errors.into_inner().unwrap());
    (got.into_inner().unwrap(), notices)
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = ::tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = ::tar::Header::new_gnu();
        // set_path refuses hostile names, so the raw field is written.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mtime(1_452_161_591);
        header.set_cksum();
        out.append(&header, *bytes).unwrap();
    }
    out.into_inner().unwrap()
}

#[test]
fn archives_in_archives_in_every_format_give_the_same_lines() {
    let dir = tempfile::tempdir().unwrap();
    let text = b"one\ntwo\n".repeat(100);
    let xz = {
        let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
        out.write_all(&text).unwrap();
        out.finish().unwrap()
    };
    let bz = {
        let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        out.write_all(&text).unwrap();
        out.finish().unwrap()
    };
    let inner = tar_of(&[
        ("var/log/a.gz", &gz(&text)),
        ("var/log/b.xz", &xz),
        ("var/log/c.bz2", &bz),
        ("d.zst", &zstd::packed(&text)),
    ]);
    let outer = tar_of(&[("hosts/cvk1.tar.gz", &gz(&inner))]);
    std::fs::write(dir.path().join("all.tgz"), gz(&outer)).unwrap();
    let mut zip = ::zip::ZipWriter::new(std::fs::File::create(dir.path().join("z.zip")).unwrap());
    zip.start_file("var/log/e.log", ::zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(&text).unwrap();
    zip.finish().unwrap();
    let (got, notices) = read(dir.path(), &Limits::default());
    let names: Vec<&str> = got.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "all/hosts/cvk1/d",
            "all/hosts/cvk1/var/log/a",
            "all/hosts/cvk1/var/log/b",
            "all/hosts/cvk1/var/log/c",
            "z/var/log/e.log"
        ]
    );
    assert!(got.values().all(|v| *v == text));
    assert_eq!(notices, []);
}

#[test]
fn a_tar_with_absolute_and_climbing_names_is_read_under_safe_names() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("x.tar"), tar_of(&[("/etc/passwd", b"a\n"), ("../../out", b"b\n")]))
        .unwrap();
    let (got, notices) = read(dir.path(), &Limits::default());
    assert_eq!(got.keys().collect::<Vec<_>>(), ["x/etc/passwd", "x/out"]);
    assert_eq!(notices.iter().filter(|n| n.kind == NoticeKind::UnsafeName).count(), 2);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn half_a_gzip_is_read_up_to_the_cut_and_the_cut_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let text: Vec<u8> =
        (0..50_000).flat_map(|i| format!("line {i} {}\n", i * 7919 % 1000).into_bytes()).collect();
    let packed = gz(&text);
    std::fs::write(dir.path().join("syslog.4.gz"), &packed[..packed.len() / 2]).unwrap();
    let (got, notices) = read(dir.path(), &Limits::default());
    let part = &got["syslog.4"];
    assert!(part.len() > text.len() / 4 && text.starts_with(part));
    assert_eq!(notices[0].kind, NoticeKind::Truncated);
}

#[test]
fn a_gzip_bomb_is_refused_by_its_ratio() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("bomb.gz"), gz(&vec![b'a'; 8 << 20])).unwrap();
    let limits = Limits { ratio_grace: 1 << 20, ..Limits::default() };
    let (got, notices) = read(dir.path(), &limits);
    assert!(got["bomb"].len() < 3 << 20);
    assert_eq!(notices[0].kind, NoticeKind::Bomb);
}

#[test]
fn a_bomb_of_every_format_is_refused_by_its_ratio() {
    let flat = vec![b'a'; 8 << 20];
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&flat).unwrap();
    let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    bz.write_all(&flat).unwrap();
    let mut zip = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("bomb", ::zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(&flat).unwrap();
    let zip = zip.finish().unwrap().into_inner();
    let limits = Limits { ratio_grace: 1 << 20, ..Limits::default() };
    for (name, leaf, bytes) in [
        ("bomb.xz", "bomb", xz.finish().unwrap()),
        ("bomb.bz2", "bomb", bz.finish().unwrap()),
        ("bomb.zst", "bomb", zstd::packed(&flat)),
        ("b.zip", "b/bomb", zip.clone()),
        // The zip inside an archive is opened from memory.
        ("t.tar", "t/b/bomb", tar_of(&[("b.zip", &zip)])),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), bytes).unwrap();
        let (got, notices) = read(dir.path(), &limits);
        assert!(got[leaf].len() < 3 << 20, "{name}: {}", got[leaf].len());
        let refused: Vec<_> = notices.iter().map(|n| (n.path.as_str(), n.kind)).collect();
        assert_eq!(refused, [(leaf, NoticeKind::Bomb)], "{name}");
        assert!(notices[0].detail.starts_with("decompression bomb: "), "{}", notices[0].detail);
    }
}

#[test]
fn links_are_named_and_never_followed() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("..", dir.path().join("loop")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("out")).unwrap();
    let (got, _) = read(dir.path(), &Limits::default());
    assert_eq!(got.len(), 2);
    assert!(got.values().all(Vec::is_empty));
}

#[test]
fn archives_nested_too_deep_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = b"x\n".to_vec();
    for _ in 0..9 {
        bytes = gz(&bytes);
    }
    std::fs::write(dir.path().join("deep.gz"), bytes).unwrap();
    let (got, notices) = read(dir.path(), &Limits::default());
    assert!(got.is_empty());
    assert_eq!(notices[0].kind, NoticeKind::Limit);
}

#[test]
fn utf16_text_becomes_utf8() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = vec![0xff, 0xfe];
    bytes.extend("日志 a\n".encode_utf16().flat_map(u16::to_le_bytes));
    std::fs::write(dir.path().join("u.log"), bytes).unwrap();
    assert_eq!(read(dir.path(), &Limits::default()).0["u.log"], "日志 a\n".as_bytes());
}

#[test]
fn a_line_longer_than_the_buffer_is_cut_and_the_next_one_keeps_its_number() {
    let mut text = vec![b'x'; 3 << 20];
    text.extend_from_slice(b"\nshort\nlast");
    let mut seen = Vec::new();
    let end = for_each_block(&mut &text[..], |b| {
        seen.push((b.offset, b.first_line, b.bytes.len(), b.bytes.ends_with(b"last")));
        ControlFlow::Continue(())
    });
    assert_eq!(end.cut_lines, 1);
    assert_eq!(seen[0], (0, 1, 256 * 1024, false));
    assert_eq!((seen[1].0, seen[1].1), ((3 << 20) + 1, 2));
    let short: usize = seen[1..].iter().map(|s| s.2).sum();
    assert_eq!(short, b"short\nlast".len());
}

#[test]
fn a_bundle_that_does_not_exist_is_an_error_with_its_name() {
    let error =
        read_all(&["/no/such/bundle".into()], &Limits::default(), &Progress::default(), &|_| {}).unwrap_err();
    assert!(error.to_string().contains("/no/such/bundle"));
}
