//! A bundle of this host: logs, configuration and the answers of a few commands, bounded and without secrets.
//!
//! Promise: reads only, never more than [`MAX_TOTAL`] bytes, leaves out what holds keys, blanks out values of password-like
//! settings, and says in `COLLECT.txt` what it could not read or had to cut.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Bytes in all before compression.
pub const MAX_TOTAL: u64 = 1 << 30;
/// Bytes of one file; of a longer one the end is taken.
const MAX_FILE: u64 = 64 << 20;
/// Bytes of one command's answer.
const MAX_ANSWER: u64 = 32 << 20;
/// Time for one command.
const COMMAND_TIME: Duration = Duration::from_secs(20);
/// Depth of folders below a root.
const MAX_DEPTH: usize = 6;

const TREES: [&str; 16] = [
    "var/log",
    "etc/crontab",
    "etc/cron.d",
    "etc/cron.hourly",
    "etc/cron.daily",
    "var/spool/cron",
    "etc/init.d",
    "etc/rc3.d",
    "etc/hostname",
    "etc/timezone",
    "etc/machine-id",
    "etc/corosync",
    "etc/ocfs2",
    "etc/drbd.d",
    "etc/ld.so.preload",
    "etc/pve/corosync.conf",
];

const COMMANDS: [(&str, &[&str]); 9] = [
    ("dmesg", &["dmesg"]),
    ("journalctl", &["journalctl", "--no-pager", "-o", "export", "-n", "200000"]),
    ("ip_link", &["ip", "-d", "-s", "link"]),
    ("ip_addr", &["ip", "addr"]),
    ("timedatectl", &["timedatectl"]),
    ("last_x", &["last", "-x", "-F", "-n", "500"]),
    ("df", &["df", "-h"]),
    ("free", &["free", "-m"]),
    ("ps", &["ps", "-eo", "pid,ppid,lstart,user,comm"]),
];

/// The data folder of a node below the root, where nothing else is said.
const DATA_DIR: &str = "var/lib/holdfast";
/// What is taken of a data folder: never its tokens, its identity or the state of its control plane.
const DATA: [&str; 2] = ["events", "daemon.log"];

/// Names that are never taken.
const NEVER: [&str; 8] = ["shadow", "gshadow", "id_rsa", "id_ed25519", "authkey", ".pem", ".key", "private"];

/// What was done.
#[derive(Debug, Default)]
pub struct Collected {
    /// Files and answers in the bundle.
    pub taken: u64,
    /// Bytes before compression.
    pub bytes: u64,
    /// What was left out, and why.
    pub left_out: Vec<String>,
}

/// Writes a bundle of the host whose tree is at `root` to `out` (a tar.gz), with the events of the node whose data folder is
/// `data`, be its daemon there or not. Commands are asked only for the live root `/`.
pub fn collect(root: &Path, data: Option<&Path>, out: &Path) -> io::Result<Collected> {
    let file = File::options().write(true).create_new(true).open(out)?;
    let mut done = Collected::default();
    let name = ["etc/hostname", "proc/sys/kernel/hostname"]
        .iter()
        .find_map(|file| fs::read_to_string(root.join(file)).ok().filter(|name| !name.trim().is_empty()))
        .unwrap_or_default();
    let name = name.trim();
    let host = if name.is_empty() || name.contains('/') { "host" } else { name };
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
    let target = fs::canonicalize(out)?;
    for tree in TREES {
        take(&mut tar, root, &root.join(tree), host, &target, 0, &mut done)?;
    }
    let usual = root.join(DATA_DIR);
    let (folder, before) = (data.unwrap_or(&usual), (done.taken, done.left_out.len()));
    let below = format!("{host}/{DATA_DIR}");
    for part in DATA {
        take(&mut tar, folder, &folder.join(part), &below, &target, 0, &mut done)?;
    }
    if data.is_some() && before == (done.taken, done.left_out.len()) {
        done.left_out
            .push(format!("{}: no events of a node in it; is it a node's data folder?", folder.display()));
    }
    if root == Path::new("/") {
        for (name, command) in COMMANDS {
            match answer(command) {
                Ok(bytes) => {
                    append(&mut tar, &format!("{host}/commands/{name}"), &redact(&bytes), 0, &mut done)?
                }
                Err(e) => done.left_out.push(format!("{}: {e}", command.join(" "))),
            }
        }
    }
    let mut note = format!("files {}\nbytes {}\nleft out or cut:\n", done.taken, done.bytes);
    for line in &done.left_out {
        note.push_str(&format!("  {line}\n"));
    }
    append(&mut tar, &format!("{host}/COLLECT.txt"), note.as_bytes(), 0, &mut done)?;
    tar.into_inner()?.finish()?.sync_all()?;
    Ok(done)
}

/// Puts a file, or what is in a folder, into the bundle: `path`, as it is named from `root`, stands below `below` there.
fn take<W: Write>(
    tar: &mut tar::Builder<W>,
    root: &Path,
    path: &Path,
    below: &str,
    own: &Path,
    depth: usize,
    done: &mut Collected,
) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) => {
            if e.kind() != io::ErrorKind::NotFound {
                done.left_out.push(format!("{}: {e}", path.display()));
            }
            return Ok(());
        }
    };
    let shown = path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if NEVER.iter().any(|n| name.contains(n)) {
        done.left_out.push(format!("{shown}: may hold secrets"));
        return Ok(());
    }
    if meta.is_dir() && depth < MAX_DEPTH {
        let Ok(entries) = fs::read_dir(path) else {
            done.left_out.push(format!("{shown}: not readable"));
            return Ok(());
        };
        let mut names: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
        names.sort();
        for entry in names {
            take(tar, root, &entry, below, own, depth + 1, done)?;
        }
        return Ok(());
    }
    if !meta.is_file() || fs::canonicalize(path).is_ok_and(|p| p == own) {
        return Ok(());
    }
    if done.bytes >= MAX_TOTAL {
        done.left_out.push(format!("{shown}: the bundle is full"));
        return Ok(());
    }
    match tail(path, meta.len()) {
        Ok(bytes) => {
            if meta.len() > MAX_FILE {
                done.left_out.push(format!("{shown}: only the last {MAX_FILE} of {} bytes", meta.len()));
            }
            let text = !name.ends_with(".gz") && !name.ends_with(".journal") && !name.starts_with("wtmp");
            let bytes = if text { redact(&bytes) } else { bytes };
            let mtime = meta
                .modified()
                .ok()
                .and_then(|m| m.duration_since(std::time::UNIX_EPOCH).ok())
                .map_or(0, |d| d.as_secs());
            append(tar, &format!("{below}/{shown}"), &bytes, mtime, done)
        }
        Err(e) => {
            done.left_out.push(format!("{shown}: {e}"));
            Ok(())
        }
    }
}

fn tail(path: &Path, len: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    if len > MAX_FILE {
        file.seek(SeekFrom::Start(len - MAX_FILE))?;
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    bytes: &[u8],
    mtime: u64,
    done: &mut Collected,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    header.set_mtime(mtime);
    done.taken += 1;
    done.bytes += bytes.len() as u64;
    tar.append_data(&mut header, name, bytes)
}

/// Runs a command with a bound on time and size.
fn answer(command: &[&str]) -> io::Result<Vec<u8>> {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let Some(stdout) = child.stdout.take() else { return Ok(Vec::new()) };
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.take(MAX_ANSWER).read_to_end(&mut bytes).map(|_| bytes)
    });
    let deadline = Instant::now() + COMMAND_TIME;
    while !reader.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    // An answer that is whole ends by itself; anything else is stopped here.
    child.kill().or_else(|e| if e.kind() == io::ErrorKind::InvalidInput { Ok(()) } else { Err(e) })?;
    child.wait()?;
    reader.join().unwrap_or_else(|_| Err(io::Error::other("the reader of its answer failed")))
}

/// Words after which a value is a secret.
const SECRET_WORDS: [&[u8]; 7] =
    [b"password", b"passwd", b"secret", b"token=", b"authorization:", b"api_key", b"apikey"];

/// Blanks out the rest of a line after a secret's name, and whole private keys.
pub fn redact(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut in_key = false;
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        let lower = line.to_ascii_lowercase();
        if memchr::memmem::find(&lower, b"private key-----").is_some() {
            in_key = memchr::memmem::find(&lower, b"begin").is_some();
            out.extend_from_slice(b"<private key removed>\n");
            continue;
        }
        if in_key {
            continue;
        }
        let found =
            SECRET_WORDS.iter().filter_map(|w| memchr::memmem::find(&lower, w).map(|at| at + w.len())).min();
        // "Failed password for root" tells of an attack and holds no secret: a value follows `=` or `:`.
        let value = found.and_then(|at| {
            let rest = &line[at..];
            let sign = rest
                .iter()
                .position(|b| !matches!(b, b' ' | b'"' | b'\'' | b'_') && !b.is_ascii_alphanumeric());
            let named = lower[..at].ends_with(b"=") || lower[..at].ends_with(b":");
            match sign {
                _ if named => Some(at),
                Some(s) if matches!(rest[s], b'=' | b':') && s < 24 => Some(at + s + 1),
                _ => None,
            }
        });
        match value {
            Some(at) => {
                out.extend_from_slice(&line[..at]);
                out.extend_from_slice(b" <redacted>\n");
            }
            None => out.extend_from_slice(line),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_blanked_and_attacks_are_kept() {
        let text = b"node.session.auth.password = hunter2\nsshd[1]: Failed password for root from 203.0.113.9 port 1 ssh2\nAPI_KEY: abc\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nx\n";
        let shown = String::from_utf8(redact(text)).unwrap();
        assert!(!shown.contains("hunter2") && !shown.contains("abc") && !shown.contains("MIIE"));
        assert!(shown.contains("Failed password for root from 203.0.113.9") && shown.ends_with("x\n"));
    }

    /// The root of a host's tree that has a name and no logs yet.
    fn host(dir: &Path) -> PathBuf {
        let root = dir.join("tree");
        for folder in ["etc", "var/log"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("etc/hostname"), "n7\n").unwrap();
        root
    }

    #[test]
    fn a_bundle_of_a_tree_is_read_back_by_the_analysis() {
        let dir = tempfile::tempdir().unwrap();
        let root = host(dir.path());
        fs::write(root.join("etc/shadow"), "root:x\n").unwrap();
        fs::write(
            root.join("var/log/syslog"),
            "Mar  3 10:00:00 n7 kernel: [128.000001] Kernel panic - not syncing: x\n",
        )
        .unwrap();
        let out = dir.path().join("n7.tar.gz");
        let done = collect(&root, None, &out).unwrap();
        assert_eq!(done.taken, 3);
        let report = crate::analyse(&[out], &crate::Options::default(), &Default::default()).unwrap();
        assert!(report.facts.iter().any(|f| f.rule == "kernel.panic" && f.host == "n7"));
        assert!(
            collect(&root, None, &dir.path().join("n7.tar.gz")).is_err(),
            "an existing file is not overwritten"
        );
    }

    /// A data folder as a daemon leaves it that was killed: its last event torn, its socket and lock still there.
    fn killed(data: &Path, node: u32) {
        for folder in ["events", "run", "control"] {
            fs::create_dir_all(data.join(folder)).unwrap();
        }
        let events = concat!(
            r#"133035a9 {"seq":13,"time_ms":1795637168058,"node":1,"level":"warning","who":"failure detector","kind":"liveness","what":"node 2 is dead","why":"heartbeats"}"#,
            "\n",
            r#"f5a0da37 {"seq":15,"time_ms":1795637168059,"node":1,"level":"error","who":"control","kind":"segments-wait","what":"1 segments have too few copies in reach","why":"node 1 leads"}"#,
            "\n",
            r#"79da09b1 {"seq":16,"time_ms":17956371684"#,
        );
        let events = events.replace("\"node\":1", &format!("\"node\":{node}"));
        fs::write(data.join("events/00000000000000000001.jsonl"), events).unwrap();
        std::os::unix::net::UnixListener::bind(data.join("run/api.sock")).unwrap();
        for secret in ["admin.token", "identity", "control/vote"] {
            fs::write(data.join(secret), "hf1-do-not-tell").unwrap();
        }
    }

    #[test]
    fn the_events_of_a_killed_node_are_in_the_bundle_and_nothing_else_of_its_data_folder() {
        let dir = tempfile::tempdir().unwrap();
        let root = host(dir.path());
        let (usual, other) = (root.join("var/lib/holdfast"), dir.path().join("one"));
        for (data, given) in [(&usual, None), (&other, Some(other.as_path()))] {
            fs::remove_dir_all(&usual).ok();
            killed(data, 1);
            let out = dir.path().join(format!("{}.tar.gz", given.is_some()));
            let done = collect(&root, given, &out).unwrap();
            assert_eq!(done.left_out, Vec::<String>::new());
            let mut names = Vec::new();
            let mut text = String::new();
            let packed = flate2::read::GzDecoder::new(File::open(&out).unwrap());
            for entry in tar::Archive::new(packed).entries().unwrap() {
                let mut entry = entry.unwrap();
                names.push(entry.path().unwrap().to_string_lossy().into_owned());
                entry.read_to_string(&mut text).unwrap();
            }
            let expected = [
                "n7/etc/hostname",
                "n7/var/lib/holdfast/events/00000000000000000001.jsonl",
                "n7/COLLECT.txt",
            ];
            assert_eq!(names, expected);
            assert!(!text.contains("do-not-tell"));
            let report = crate::analyse(&[out], &crate::Options::default(), &Default::default()).unwrap();
            for rule in ["holdfast.node-dead", "holdfast.quorum-wait"] {
                assert!(report.facts.iter().any(|f| f.rule == rule && f.host == "n7"), "{rule}");
            }
            assert_eq!(report.causes.first().map(|c| c.id.as_str()), Some("holdfast-nodes-away"));
        }
    }

    #[test]
    fn bundles_of_several_nodes_on_one_machine_are_one_host_and_a_name_for_each_node() {
        let dir = tempfile::tempdir().unwrap();
        let root = host(dir.path());
        fs::write(root.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
        let mut bundles = Vec::new();
        for node in [1, 2] {
            // The machine goes on logging between the two collections.
            let again = "Mar  3 10:00:00 n7 kernel: [128.000001] Kernel panic - not syncing: x\n";
            fs::write(
                root.join("var/log/syslog"),
                again.to_owned() + &"Mar  3 10:09:00 n7 a: b\n".repeat(node),
            )
            .unwrap();
            let data = dir.path().join(format!("data{node}"));
            killed(&data, node as u32);
            bundles.push(dir.path().join(format!("{node}.tar.gz")));
            collect(&root, Some(&data), &bundles[node - 1]).unwrap();
        }
        let report = crate::analyse(&bundles, &crate::Options::default(), &Default::default()).unwrap();
        let names: Vec<&str> = report.hosts.iter().map(|h| h.name.as_str()).collect();
        assert_eq!(names, ["n7", "n7/node1", "n7/node2"]);
        let of = |rule: &str| -> Vec<&str> {
            report.facts.iter().filter(|f| f.rule == rule).map(|f| f.host.as_str()).collect()
        };
        assert_eq!(of("kernel.panic"), ["n7"]);
        assert_eq!(of("holdfast.node-dead"), ["n7/node1", "n7/node2"]);
        assert!(
            report.contradictions.iter().all(|c| !c.text.contains("machines")),
            "{:?}",
            report.contradictions
        );

        // Another id is another machine, whatever it calls itself.
        fs::write(root.join("etc/machine-id"), "fedcba9876543210fedcba9876543210\n").unwrap();
        let other = dir.path().join("other.tar.gz");
        collect(&root, Some(&dir.path().join("data1")), &other).unwrap();
        let report =
            crate::analyse(&[bundles[0].clone(), other], &crate::Options::default(), &Default::default())
                .unwrap();
        assert_eq!(report.hosts.len(), 2, "{:?}", report.hosts);
        assert!(report.hosts.iter().all(|h| h.name.starts_with("n7@")), "{:?}", report.hosts);
    }
}
