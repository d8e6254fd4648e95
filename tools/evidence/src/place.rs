//! Where a piece of evidence stands, and what sort of file it stands in.
//!
//! Promise: a [`Place`] names a file by its logical path (archive members included), a line and a byte offset in the
//! decompressed content, so that a person can find it again. The kind of a file is a guess from its path; content decides
//! what its lines are.

use std::sync::Arc;

/// A line in a file of the bundle.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Logical path, `/` between parts, archive members after their archive.
    pub file: Arc<str>,
    /// Line number from 1; 0 when the file as a whole is meant.
    pub line: u64,
    /// Offset of the line's first byte in the decompressed file.
    pub offset: u64,
}

/// What a file is, as far as its path says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A log of lines with stamps, or something that may be one.
    Log,
    /// A crontab with a user column (`/etc/crontab`, `/etc/cron.d/*`).
    SystemCrontab,
    /// A crontab without a user column (`/var/spool/cron/...`).
    UserCrontab,
    /// Any other configuration or script that is kept as text.
    Config,
    /// A login record file (`wtmp`).
    Wtmp,
    /// A binary journal of systemd, which only its own tool reads.
    BinaryJournal,
    /// A memory image (`vmcore`), which needs the kernel's debug data.
    MemoryImage,
}

/// Guesses the kind of a file from its logical path.
pub fn kind_of(path: &str) -> FileKind {
    let name = path.rsplit('/').next().unwrap_or(path);
    let has = |needle: &str| path.contains(needle);
    if name.starts_with("wtmp") && !name.ends_with(".txt") {
        return FileKind::Wtmp;
    }
    if name.ends_with(".journal") || name.ends_with(".journal~") {
        return FileKind::BinaryJournal;
    }
    if name == "vmcore" || name == "vmcore.flat" || name == "core" {
        return FileKind::MemoryImage;
    }
    if has("spool/cron/") {
        return FileKind::UserCrontab;
    }
    if name == "crontab" || has("/cron.d/") || path.starts_with("cron.d/") {
        return FileKind::SystemCrontab;
    }
    if has("/log/") || has("logdir/") || name.contains("log") {
        return FileKind::Log;
    }
    let config_folder = has("etc/") || has("/lib/udev") || has("/init.d/") || has("cron.");
    let config_name = [".conf", ".cfg", ".sh", ".service", ".ini", ".yaml", ".yml", ".toml", ".xml"]
        .iter()
        .any(|ext| name.ends_with(ext));
    if config_folder || config_name { FileKind::Config } else { FileKind::Log }
}

/// The path parts that end the part of a path which belongs to a host, longest first.
const HOST_TREE_MARKS: [&str; 14] = [
    "logdir/var/log/",
    "logdir/",
    "var/log/",
    "var/spool/",
    "var/crash/",
    "var/lib/",
    "etc/",
    "proc/",
    "sos_commands/",
    // The answers of commands in a bundle of `holdfast collect`.
    "commands/",
    "boot/",
    "lib/",
    "usr/",
    // A Holdfast node's event log: events/00000000000000000001.jsonl.
    "events/00000000",
];

/// Splits a logical path into the root of a host's tree and the path below it: `cas/cvk1/logdir/var/log/syslog` gives
/// `cas/cvk1/` and `logdir/var/log/syslog`. A path without a known folder keeps its last folder as the root, but for the folders
/// that programs make in `/var/log`: `n1/apt/history.log` belongs to the root of `n1/syslog`.
pub fn split_root(path: &str) -> (&str, &str) {
    let mut best: Option<usize> = None;
    for mark in HOST_TREE_MARKS {
        let mut from = 0;
        while let Some(at) = path[from..].find(mark) {
            let at = from + at;
            if at == 0 || path.as_bytes()[at - 1] == b'/' {
                best = Some(best.map_or(at, |b| b.min(at)));
                break;
            }
            from = at + 1;
        }
    }
    path.split_at(best.unwrap_or_else(|| {
        let mut cut = path.rfind('/').map_or(0, |at| at + 1);
        while let Some(folder) = path[..cut].strip_suffix('/') {
            let from = folder.rfind('/').map_or(0, |at| at + 1);
            if !LOG_FOLDERS.contains(&&folder[from..]) {
                break;
            }
            cut = from;
        }
        cut
    }))
}

/// Folders that programs make in `/var/log`. Those of services that may well be a host's name (`mysql`, `nginx`) are left out.
const LOG_FOLDERS: [&str; 18] = [
    "anaconda",
    "apt",
    "audit",
    "chrony",
    "containers",
    "corosync",
    "cups",
    "dist-upgrade",
    "installer",
    "journal",
    "libvirt",
    "openvswitch",
    "pacemaker",
    "pods",
    "qemu",
    "sysstat",
    "tuned",
    "unattended-upgrades",
];

/// Folder names that never name a host.
const NOT_HOSTS: [&str; 14] = [
    "log", "logs", "logdir", "var", "cas", "tmp", "home", "root", "bundle", "hosts", "data", "node", "nodes",
    "dump",
];

/// The host that a path suggests: the last folder of its root that is not a general word, without sosreport decoration.
pub fn host_from_path(path: &str) -> Option<String> {
    let (root, _) = split_root(path);
    for part in root.split('/').rev() {
        let part = strip_archive_suffix(part);
        if part.is_empty() || part == "." || NOT_HOSTS.contains(&part) {
            continue;
        }
        if let Some(rest) = part.strip_prefix("sosreport-") {
            // A host name may itself hold a dash and digits: cut before the four digits of the year or case number.
            let is_number = |p: &&str| p.len() >= 4 && p.bytes().all(|b| b.is_ascii_digit());
            let host = rest.split('-').take_while(|p| !is_number(p)).collect::<Vec<_>>().join("-");
            return Some(host);
        }
        return Some(part.to_owned());
    }
    None
}

fn strip_archive_suffix(name: &str) -> &str {
    let mut name = name;
    for suffix in [".gz", ".xz", ".zst", ".bz2", ".tgz", ".txz", ".tar", ".zip"] {
        name = name.strip_suffix(suffix).unwrap_or(name);
    }
    name.strip_suffix(".tar").unwrap_or(name)
}

/// The series and age of a rotated log: `syslog.4.gz` is (`syslog`, 4); `messages-20160108` is (`messages`, by date).
/// A larger age is older; the live file has age 0.
pub fn rotation(path: &str) -> (String, u64) {
    let (folder, name) = match path.rfind('/') {
        Some(at) => path.split_at(at + 1),
        None => ("", path),
    };
    let plain = strip_archive_suffix(name);
    if let Some((stem, tail)) = plain.rsplit_once('.')
        && !tail.is_empty()
        && tail.len() <= 4
        && let Ok(age) = tail.parse::<u64>()
    {
        return (format!("{folder}{stem}"), age);
    }
    if let Some((stem, tail)) = plain.rsplit_once('-')
        && tail.len() == 8
        && let Ok(date) = tail.parse::<u64>()
    {
        return (format!("{folder}{stem}"), 100_000_000u64.saturating_sub(date));
    }
    (format!("{folder}{plain}"), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_are_told_apart_and_ordered() {
        assert_eq!(rotation("a/syslog.4.gz"), ("a/syslog".into(), 4));
        assert_eq!(rotation("a/syslog"), ("a/syslog".into(), 0));
        let (series, newer) = rotation("messages-20160108");
        assert_eq!(series, "messages");
        assert!(newer < rotation("messages-20160101.gz").1);
        assert_eq!(rotation("ovs-vswitchd.log"), ("ovs-vswitchd.log".into(), 0));
    }

    #[test]
    fn a_path_names_its_host() {
        assert_eq!(host_from_path("cas/cvk1/logdir/var/log/syslog").as_deref(), Some("cvk1"));
        assert_eq!(host_from_path("b/node-2.tar.gz/var/log/messages").as_deref(), Some("node-2"));
        assert_eq!(
            host_from_path("sosreport-db-01-2024-02-03-abcd/var/log/messages").as_deref(),
            Some("db-01")
        );
        assert_eq!(host_from_path("node1/events/00000000000000000001.jsonl").as_deref(), Some("node1"));
        assert_eq!(host_from_path("syslog"), None);
        // No folder within a host's tree is a host, whatever part of the tree somebody packed.
        for file in [
            "commands/dmesg",
            "commands/ip_link",
            "COLLECT.txt",
            "var/lib/holdfast/events/00000000000000000001.jsonl",
            "var/lib/holdfast/daemon.log",
            "apt/history.log",
            "libvirt/qemu/vm7.log",
            "syslog.2.gz",
        ] {
            assert_eq!(split_root(&format!("a.tar.gz/n1/{file}")).0, "a.tar.gz/n1/", "{file}");
            assert_eq!(host_from_path(&format!("a.tar.gz/n1/{file}")).as_deref(), Some("n1"), "{file}");
        }
        assert_eq!(host_from_path("apt/history.log"), None);
    }

    #[test]
    fn kinds_follow_paths() {
        assert_eq!(kind_of("h/etc/crontab"), FileKind::SystemCrontab);
        assert_eq!(kind_of("h/var/spool/cron/crontabs/root"), FileKind::UserCrontab);
        assert_eq!(kind_of("h/var/log/syslog.1"), FileKind::Log);
        assert_eq!(kind_of("h/var/log/wtmp"), FileKind::Wtmp);
        assert_eq!(kind_of("h/etc/corosync/corosync.conf"), FileKind::Config);
    }
}
