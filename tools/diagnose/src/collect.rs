//! A bundle of this host: logs, configuration and the answers of a few commands, bounded and without secrets.
//!
//! Promise: reads only, never more than [`MAX_TOTAL`] bytes, leaves out what holds keys, blanks out values of password-like
//! settings (in packed logs too), and says in `COLLECT.txt` what it could not read or had to cut. Of a log or journal that is too
//! long the newest part is taken. A link is taken as a link.

mod answer;
mod redact;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use holdfast_evidence::read::{Limits, NoticeKind, Progress, Source, is_packed, read_all};

use redact::redact;

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

const TREES: [&str; 25] = [
    "var/log",
    "etc/crontab",
    "etc/cron.d",
    "etc/cron.hourly",
    "etc/cron.daily",
    "var/spool/cron",
    "etc/init.d",
    "etc/rc.d",
    "etc/rc0.d",
    "etc/rc1.d",
    "etc/rc2.d",
    "etc/rc3.d",
    "etc/rc4.d",
    "etc/rc5.d",
    "etc/rc6.d",
    "etc/rcS.d",
    "etc/hostname",
    "etc/timezone",
    "etc/machine-id",
    "etc/corosync",
    "etc/iscsi/initiatorname.iscsi",
    "etc/ocfs2",
    "etc/drbd.d",
    "etc/ld.so.preload",
    "etc/pve/corosync.conf",
];

const COMMANDS: [(&str, &[&str]); 9] = [
    ("dmesg", &["dmesg"]),
    // The newest entry first, so that what a bound cuts off is the oldest.
    (JOURNAL, &["journalctl", "--no-pager", "-r", "-o", "export", "-n", "200000"]),
    ("ip_link", &["ip", "-d", "-s", "link"]),
    ("ip_addr", &["ip", "addr"]),
    ("timedatectl", &["timedatectl"]),
    ("last_x", &["last", "-x", "-F", "-n", "500"]),
    ("df", &["df", "-h"]),
    ("free", &["free", "-m"]),
    ("ps", &["ps", "-eo", "pid,ppid,lstart,user,comm"]),
];

const JOURNAL: &str = "journalctl";

/// The data folder of a node below the root, where nothing else is said.
const DATA_DIR: &str = "var/lib/holdfast";
/// What is taken of a data folder: never its tokens, its identity or the state of its control plane.
const DATA: [&str; 2] = ["events", "daemon.log"];

/// Names that are never taken. Who types a password where the name is asked for has it in `btmp`.
const NEVER: [&str; 9] =
    ["shadow", "gshadow", "id_rsa", "id_ed25519", "authkey", ".pem", ".key", "private", "btmp"];

/// What was done.
#[derive(Debug, Default)]
pub struct Collected {
    /// Files and answers in the bundle.
    pub taken: u64,
    /// Bytes before compression.
    pub bytes: u64,
    /// What the system refused or a command failed at, and why.
    pub refused: Vec<String>,
    /// What was left out or cut on purpose, and why.
    pub left_out: Vec<String>,
}

impl Collected {
    /// How many things the bundle lacks.
    pub fn lacks(&self) -> usize {
        self.refused.len() + self.left_out.len()
    }
}

/// The file that says what a bundle lacks, and the lines below which it says so.
const NOTE: &str = "COLLECT.txt";
const REFUSED: &str = "could not be read:";
const LEFT_OUT: &str = "left out or cut:";

/// What the note of a bundle says that it lacks, for whoever reads it elsewhere; with it, whether the host refused it.
pub fn lacks<'a>(path: &str, note: &'a str) -> impl Iterator<Item = (bool, &'a str)> {
    let is_note = path.rsplit('/').next() == Some(NOTE);
    let below = |head: &mut &'a str, line: &'a str| {
        let lack = line.strip_prefix("  ");
        if lack.is_none() {
            *head = line;
        }
        Some(lack.filter(|_| [REFUSED, LEFT_OUT].contains(head)).map(|lack| (*head == REFUSED, lack)))
    };
    note.lines().scan("", below).flatten().filter(move |_| is_note)
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
    let (folder, before) = (data.unwrap_or(&usual), (done.taken, done.lacks()));
    let below = format!("{host}/{DATA_DIR}");
    for part in DATA {
        take(&mut tar, folder, &folder.join(part), &below, &target, 0, &mut done)?;
    }
    if data.is_some() && before == (done.taken, done.lacks()) {
        done.left_out
            .push(format!("{}: no events of a node in it; is it a node's data folder?", folder.display()));
    }
    if root == Path::new("/") {
        for (name, command) in COMMANDS {
            let said = command.join(" ");
            match answer::ask(command, MAX_ANSWER, COMMAND_TIME) {
                Ok(answer) => {
                    done.refused.extend(answer.failed.iter().map(|why| format!("{said}: {why}")));
                    done.left_out.extend(answer.cut.iter().map(|why| format!("{said}: {why}")));
                    let clean =
                        if name == JOURNAL { redact::journal(&answer.bytes) } else { redact(&answer.bytes) };
                    if !clean.is_empty() || answer.failed.is_none() && answer.cut.is_none() {
                        append(&mut tar, &format!("{host}/commands/{name}"), &clean, 0, &mut done)?;
                    }
                }
                Err(e) => done.refused.push(format!("{said}: {e}")),
            }
        }
    }
    let mut note = format!("files {}\nbytes {}\n", done.taken, done.bytes);
    for (head, lines) in [(REFUSED, &done.refused), (LEFT_OUT, &done.left_out)] {
        note.push_str(&format!("{head}\n"));
        // One line each: a name may hold a newline, and must not make a heading.
        lines.iter().for_each(|line| note.push_str(&format!("  {}\n", line.replace('\n', " "))));
    }
    append(&mut tar, &format!("{host}/{NOTE}"), note.as_bytes(), 0, &mut done)?;
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
                done.refused.push(format!("{}: {e}", path.display()));
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
    if meta.is_dir() {
        if depth >= MAX_DEPTH {
            done.left_out.push(format!("{shown}: more than {MAX_DEPTH} folders in one another"));
            return Ok(());
        }
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(e) => {
                done.refused.push(format!("{shown}: {e}"));
                return Ok(());
            }
        };
        let mut names: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
        names.sort();
        for entry in names {
            take(tar, root, &entry, below, own, depth + 1, done)?;
        }
        return Ok(());
    }
    if done.bytes >= MAX_TOTAL {
        done.left_out.push(format!("{shown}: the bundle is full"));
        return Ok(());
    }
    let inside = format!("{below}/{shown}");
    if meta.is_symlink() {
        let Ok(target) = fs::read_link(path) else { return Ok(()) };
        let mut header = header(0, 0);
        header.set_entry_type(tar::EntryType::Symlink);
        done.taken += 1;
        return tar.append_link(&mut header, &inside, target);
    }
    if !meta.is_file() || fs::canonicalize(path).is_ok_and(|p| p == own) {
        return Ok(());
    }
    if is_journal(&name) {
        done.left_out.push(format!(
            "{shown}: a binary journal, whose secrets cannot be blanked; `journalctl --file FILE -o export` reads it"
        ));
        return Ok(());
    }
    let mtime = meta
        .modified()
        .ok()
        .and_then(|m| m.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or(0, |d| d.as_secs());
    let mut head = Vec::new();
    let opened = File::open(path).and_then(|f| f.take(512).read_to_end(&mut head));
    if opened.is_ok() && is_packed(&head) {
        let leaves = unpack(path, mtime, &shown, done);
        let folder = inside.rfind('/').map_or("", |at| &inside[..=at]);
        for (leaf, mtime, bytes) in leaves {
            append(tar, &format!("{folder}{leaf}.gz"), &bytes, mtime, done)?;
        }
        return Ok(());
    }
    match opened.and_then(|_| tail(path, meta.len())) {
        Ok(bytes) => {
            if meta.len() > MAX_FILE {
                done.left_out.push(format!("{shown}: only the last {MAX_FILE} of {} bytes", meta.len()));
            }
            let bytes = if is_login_record(&name) { bytes } else { redact(&bytes) };
            append(tar, &inside, &bytes, mtime, done)
        }
        Err(e) => {
            done.refused.push(format!("{shown}: {e}"));
            Ok(())
        }
    }
}

fn is_journal(name: &str) -> bool {
    name.ends_with(".journal") || name.ends_with(".journal~")
}

fn is_login_record(name: &str) -> bool {
    name.starts_with("wtmp")
}

/// A name, a modification time, and what was packed.
type Leaf = (String, u64, Vec<u8>);

/// What was found in a packed file.
struct Found {
    leaves: Vec<Leaf>,
    left_out: Vec<String>,
    /// Bytes that further leaves may take.
    room: usize,
}

/// What is in a packed file, each leaf without its secrets and packed again as gz.
fn unpack(path: &Path, mtime: u64, shown: &str, done: &mut Collected) -> Vec<Leaf> {
    let found = Mutex::new(Found { leaves: Vec::new(), left_out: Vec::new(), room: MAX_FILE as usize });
    let pack = |source: Source<'_>| {
        let mut found = found.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let name = source.path.rsplit('/').next().unwrap_or_default();
        if source.link.is_some() {
            return;
        }
        if is_journal(name) || NEVER.iter().any(|n| source.path.contains(n)) {
            found.left_out.push(format!("{shown}, {}: may hold secrets", source.path));
            return;
        }
        let mtime = source.mtime.and_then(|m| u64::try_from(m).ok()).unwrap_or(mtime);
        let into = Bounded { bytes: Vec::new(), room: found.room };
        let mut packer = flate2::GzBuilder::new()
            .mtime(u32::try_from(mtime).unwrap_or(0))
            .write(into, flate2::Compression::fast());
        let copied = if is_login_record(name) {
            io::copy(source.body, &mut packer).map(|_| ())
        } else {
            redact::redact_into(source.body, &mut packer)
        };
        let packed = packer.finish();
        if let Some(e) = copied.as_ref().err().or(packed.as_ref().err()) {
            found.left_out.push(format!("{shown}: {e}"));
        }
        // What came before an error is taken.
        if let Ok(packed) = packed {
            found.room -= packed.bytes.len();
            found.leaves.push((source.path.to_string(), mtime, packed.bytes));
        }
    };
    // One thread: the order of the leaves is the file's own.
    let limits = Limits { threads: 1, ..Limits::default() };
    let read = read_all(&[path.to_owned()], &limits, &Progress::default(), &pack);
    let found = found.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    done.left_out.extend(found.left_out);
    match read {
        Ok(notices) => {
            for n in &notices {
                let refused = n.kind == NoticeKind::Unreadable;
                let list = if refused { &mut done.refused } else { &mut done.left_out };
                list.push(format!("{shown}: {}", n.detail));
            }
        }
        Err(e) => done.refused.push(format!("{shown}: {e}")),
    }
    found.leaves
}

/// Memory for one packed leaf, of what all leaves of a file may take.
struct Bounded {
    bytes: Vec<u8>,
    room: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.room {
            return Err(io::Error::other(format!(
                "what is in it packs to more than {MAX_FILE} bytes; the rest is left out"
            )));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The end of a file, from the start of a line: half a line may hold a secret without its name.
fn tail(path: &Path, len: u64) -> io::Result<Vec<u8>> {
    let mut file = BufReader::new(File::open(path)?);
    let mut bytes = Vec::new();
    if len > MAX_FILE {
        file.seek(SeekFrom::Start(len - MAX_FILE))?;
        file.by_ref().take(MAX_FILE).read_until(b'\n', &mut bytes)?;
        bytes.clear();
    }
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn header(len: u64, mtime: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(len);
    header.set_mode(0o600);
    header.set_mtime(mtime);
    header
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    bytes: &[u8],
    mtime: u64,
    done: &mut Collected,
) -> io::Result<()> {
    let mut header = header(bytes.len() as u64, mtime);
    done.taken += 1;
    done.bytes += bytes.len() as u64;
    tar.append_data(&mut header, name, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn what_a_bundle_lacks_is_sorted_by_the_heading_it_stands_below_and_by_no_word_of_it() {
        let note = "files 1\nbytes 2\ncould not be read:\n  a: Permission denied\nleft out or cut:\n  b: access denied by policy\nmore:\n  c\n";
        let of = |path| lacks(path, note).collect::<Vec<_>>();
        assert_eq!(
            of("n7/COLLECT.txt"),
            [(true, "a: Permission denied"), (false, "b: access denied by policy")]
        );
        assert_eq!(of("n7/NOTES.txt"), []);
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
