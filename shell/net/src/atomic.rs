//! Files that are written whole or not at all. [`write`] is the one way by which this project puts a small
//! file in place: after a crash at any moment the old content or the new one is there, never a mixture and
//! never an empty file. [`write_checked`] adds a checksum and keeps the content before, for the formats that
//! are ours; a rotten file is then recognised and the one before it is used.
//!
//! Not for data on the I/O path: each write costs two flushes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use thiserror::Error;

/// Mode of a file that holds a secret.
pub const PRIVATE: u32 = 0o600;
/// Mode of a file that anybody may read.
pub const PUBLIC: u32 = 0o644;
/// The longest checked file that is read.
const MAX_CHECKED_BYTES: u64 = 16 << 20;

/// Two writers of the same path in one process do not share a temporary file.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Puts `content` at `path` with `mode`: temporary file beside it, fsync, rename, fsync of the folder.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = folder_of(path);
    let temporary = folder.join(temporary_name(path)?);
    let result = write_new(&temporary, content, mode).and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        // The temporary file is of no use to anybody; that it may not be there is no news.
        let _ = fs::remove_file(&temporary);
        return result;
    }
    sync_folder(&folder)
}

/// Makes entries of `folder` (creations, renames, removals) durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn temporary_name(path: &Path) -> io::Result<String> {
    let name =
        path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    Ok(format!(".{}.{}-{serial}.tmp", name.to_string_lossy(), std::process::id()))
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Why a checked file could not be read.
#[derive(Debug, Error)]
pub enum CheckedError {
    /// Neither the file nor the one before it exists.
    #[error("{path}: no such file")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The file and the one before it fail their checksums.
    #[error("{path}: {reason}, and no good copy of it at {previous}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the copy was looked for.
        previous: PathBuf,
        /// What is wrong with the file.
        reason: Damage,
    },
}

/// What is wrong with a checked file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Damage {
    /// It does not look like one.
    #[error("damaged (its first or last line is not as written)")]
    Shape,
    /// A later version wrote it.
    #[error("written in format {0}, which this version does not know")]
    Version(u32),
    /// The checksum is that of another content.
    #[error("damaged (checksum {found:08x}, its content has {computed:08x})")]
    Checksum {
        /// What the file says.
        found: u32,
        /// What its content has.
        computed: u32,
    },
    /// It is longer than any file of this kind.
    #[error("longer than {MAX_CHECKED_BYTES} bytes")]
    TooLong,
    /// Absent, while the one before it is there.
    #[error("missing")]
    Missing,
}

/// The content of a checked file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The JSON text that was given to [`write_checked`].
    pub content: String,
    /// When set, the file itself was unusable for this reason and the content is the one before.
    pub fell_back: Option<Damage>,
}

/// Version of the envelope that [`write_checked`] writes.
const ENVELOPE_VERSION: u32 = 1;

/// Where the content before the last write is kept.
pub fn previous_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".prev");
    PathBuf::from(name)
}

/// Puts JSON text at `path`, wrapped with its checksum so that the whole is JSON still; what was there before,
/// when it was good, stays as `<path>.prev`.
pub fn write_checked(path: &Path, content: &str, mode: u32) -> io::Result<()> {
    if let Ok(old) = fs::read(path)
        && unwrap(&old).is_ok()
    {
        write(&previous_path(path), &old, mode)?;
    }
    write(path, wrap(content).as_bytes(), mode)
}

/// Reads what [`write_checked`] wrote, or the content before it when the file is damaged.
pub fn read_checked(path: &Path) -> Result<Checked, CheckedError> {
    let damage = match read_one(path)? {
        Ok(content) => return Ok(Checked { content, fell_back: None }),
        Err(damage) => damage,
    };
    let previous = previous_path(path);
    match read_one(&previous)? {
        Ok(content) => Ok(Checked { content, fell_back: Some(damage) }),
        Err(Damage::Missing) if damage == Damage::Missing => Err(CheckedError::Missing { path: path.into() }),
        Err(_) => Err(CheckedError::Corrupt { path: path.into(), previous, reason: damage }),
    }
}

fn read_one(path: &Path) -> Result<Result<String, Damage>, CheckedError> {
    let io_error = |source| CheckedError::Io { path: path.into(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Err(Damage::Missing)),
        Err(e) => return Err(io_error(e)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_CHECKED_BYTES + 1).read_to_end(&mut bytes).map_err(io_error)?;
    if bytes.len() as u64 > MAX_CHECKED_BYTES {
        return Ok(Err(Damage::TooLong));
    }
    Ok(unwrap(&bytes))
}

fn wrap(content: &str) -> String {
    let crc = holdfast_checksum::crc32c(content.as_bytes());
    format!("{{\"format\":{ENVELOPE_VERSION},\"crc32c\":\"{crc:08x}\",\"content\":\n{content}\n}}\n")
}

fn unwrap(bytes: &[u8]) -> Result<String, Damage> {
    let text = std::str::from_utf8(bytes).map_err(|_| Damage::Shape)?;
    let (head, rest) = text.split_once('\n').ok_or(Damage::Shape)?;
    let content = rest.strip_suffix("\n}\n").ok_or(Damage::Shape)?;
    let head = head.strip_prefix("{\"format\":").ok_or(Damage::Shape)?;
    let (version, head) = head.split_once(',').ok_or(Damage::Shape)?;
    let version: u32 = version.parse().map_err(|_| Damage::Shape)?;
    if version != ENVELOPE_VERSION {
        return Err(Damage::Version(version));
    }
    let crc = head.strip_prefix("\"crc32c\":\"").and_then(|h| h.strip_suffix("\",\"content\":"));
    let found = u32::from_str_radix(crc.ok_or(Damage::Shape)?, 16).map_err(|_| Damage::Shape)?;
    let computed = holdfast_checksum::crc32c(content.as_bytes());
    if found != computed {
        return Err(Damage::Checksum { found, computed });
    }
    Ok(content.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_write_replaces_the_whole_file_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write(&path, b"a long first content", PUBLIC).unwrap();
        write(&path, b"second", PRIVATE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_content_and_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        // A folder in the place of the file: the rename fails after the content was written.
        let path = folder.path().join("file");
        fs::create_dir(&path).unwrap();
        assert!(write(&path, b"x", PUBLIC).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write(&folder.path().join("none/file"), b"x", PUBLIC).is_err());
    }

    #[test]
    fn every_flipped_bit_of_a_checked_file_is_noticed_and_the_one_before_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.json");
        write_checked(&path, "{\"n\": 1}", PUBLIC).unwrap();
        write_checked(&path, "{\"n\": 2}", PUBLIC).unwrap();
        let good = fs::read(&path).unwrap();
        assert_eq!(read_checked(&path).unwrap().content, "{\"n\": 2}");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 7);
            fs::write(&path, &bad).unwrap();
            let checked = read_checked(&path).unwrap();
            // A hexadecimal digit may change its case and stay the same digit.
            let harmless = checked.fell_back.is_none() && checked.content == "{\"n\": 2}";
            assert!(harmless || checked.content == "{\"n\": 1}", "byte {at}");
        }
        for len in 0..good.len() {
            fs::write(&path, &good[..len]).unwrap();
            assert_eq!(read_checked(&path).unwrap().content, "{\"n\": 1}", "cut at {len}");
        }
    }

    #[test]
    fn a_damaged_file_is_not_kept_as_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.json");
        write_checked(&path, "1", PUBLIC).unwrap();
        write_checked(&path, "2", PUBLIC).unwrap();
        fs::write(&path, "rotten").unwrap();
        write_checked(&path, "3", PUBLIC).unwrap();
        fs::write(&path, "rotten again").unwrap();
        assert_eq!(
            read_checked(&path).unwrap(),
            Checked { content: "1".into(), fell_back: Some(Damage::Shape) }
        );
        fs::remove_file(previous_path(&path)).unwrap();
        assert!(matches!(read_checked(&path), Err(CheckedError::Corrupt { .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(read_checked(&path), Err(CheckedError::Missing { .. })));
    }
}
