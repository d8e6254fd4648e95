//! The data folder of a node and what lies in it. `holdfast.toml` is the operator's: small, read at the start,
//! every mistake answered with its line and what is allowed. `disks.json` and `bootstrap.json` are ours:
//! checksummed, replaced as a whole, the one before kept.
//!
//! Promises: nothing here changes a file that it did not write. Does not know what the control plane or the
//! disks hold.

mod file;

use holdfast_api::token::{AdminToken, from_hex, to_hex};
use holdfast_net::Roster;
use holdfast_net::atomic::{self, CheckedError};
use holdfast_replication::ReadCheck;
use holdfast_types::{ClusterId, DiskId, Duration, NodeId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use thiserror::Error;

pub use file::{EXPLANATION, render};

/// The data folder when none is named.
pub const DEFAULT_DIR: &str = "/var/lib/holdfast";
/// The pool that `init` makes.
pub const DEFAULT_POOL: &str = "default";
/// For how long the data thread polls before it sleeps when nothing else is set.
pub const BUSY_POLL: Duration = Duration::from_micros(100);
/// The longest name of a node, cluster, pool or volume.
pub const MAX_NAME: usize = 63;

/// The files of a data folder, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The data folder at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }
    /// The operator's configuration. It is written last: a folder with it is in use.
    pub fn config_file(&self) -> PathBuf {
        self.0.join("holdfast.toml")
    }
    /// Certificates and keys.
    pub fn identity(&self) -> PathBuf {
        self.0.join("identity")
    }
    /// The log and snapshots of consensus.
    pub fn control(&self) -> PathBuf {
        self.0.join("control")
    }
    /// The event log.
    pub fn events(&self) -> PathBuf {
        self.0.join("events")
    }
    /// What lives as long as the daemon.
    pub fn run(&self) -> PathBuf {
        self.0.join("run")
    }
    /// The socket of the API.
    pub fn api_socket(&self) -> PathBuf {
        self.run().join("api.sock")
    }
    /// The token of the API.
    pub fn admin_token_file(&self) -> PathBuf {
        self.0.join("admin.token")
    }
    /// Which disks this node carries.
    pub fn disks_file(&self) -> PathBuf {
        self.0.join("disks.json")
    }
    /// Up to when everything that was due to be scrubbed is.
    pub fn scrub_file(&self) -> PathBuf {
        self.0.join("scrub.json")
    }
    /// Whom this node took for members of its cluster when it last knew.
    pub fn members_file(&self) -> PathBuf {
        self.0.join("members.json")
    }
    /// What the first run is to do; gone once done.
    pub fn bootstrap_file(&self) -> PathBuf {
        self.0.join("bootstrap.json")
    }

    /// Reads and checks the operator's configuration.
    pub fn load_config(&self) -> Result<Config, ConfigError> {
        let path = self.config_file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(ConfigError::NotSetUp { dir: self.0.clone() });
            }
            Err(source) => return Err(ConfigError::Io { path, source }),
        };
        file::parse(&text).map_err(|(line, reason)| ConfigError::Invalid { path, line, reason })
    }

    /// Reads the token of the API.
    pub fn load_admin_token(&self) -> Result<AdminToken, ConfigError> {
        let path = self.admin_token_file();
        let text = fs::read_to_string(&path);
        let text = text.map_err(|source| ConfigError::Io { path: path.clone(), source })?;
        text.parse().map_err(|_| ConfigError::AdminToken { path })
    }

    /// Writes it.
    pub fn save_admin_token(&self, token: &AdminToken) -> Result<(), ConfigError> {
        let path = self.admin_token_file();
        let written = atomic::write(&path, format!("{token}\n").as_bytes(), atomic::PRIVATE);
        written.map_err(|source| ConfigError::Io { path, source })
    }

    /// Reads which disks this node carries; none when the file was never written.
    pub fn load_disks(&self) -> Result<Vec<LocalDisk>, ConfigError> {
        Ok(self.load(&self.disks_file())?.unwrap_or_default())
    }
    /// Writes which disks this node carries.
    pub fn save_disks(&self, disks: &[LocalDisk]) -> Result<(), ConfigError> {
        self.save(&self.disks_file(), &disks)
    }
    /// Reads up to when everything that was due to be scrubbed is; none before the first scrub.
    pub fn load_scrub(&self) -> Result<Option<ScrubState>, ConfigError> {
        self.load(&self.scrub_file())
    }
    /// Writes it.
    pub fn save_scrub(&self, state: ScrubState) -> Result<(), ConfigError> {
        self.save(&self.scrub_file(), &state)
    }
    /// Reads whom this node took for members when it last knew.
    pub fn load_members(&self) -> Result<Option<Roster>, ConfigError> {
        self.load(&self.members_file())
    }
    /// Writes it.
    pub fn save_members(&self, members: &Roster) -> Result<(), ConfigError> {
        self.save(&self.members_file(), members)
    }
    /// Reads what the first run is to do; none when it is done.
    pub fn load_bootstrap(&self) -> Result<Option<Bootstrap>, ConfigError> {
        self.load(&self.bootstrap_file())
    }
    /// Writes what the first run is to do.
    pub fn save_bootstrap(&self, bootstrap: &Bootstrap) -> Result<(), ConfigError> {
        self.save(&self.bootstrap_file(), bootstrap)
    }
    /// The first run is done: forgets what it was to do.
    pub fn remove_bootstrap(&self) -> Result<(), ConfigError> {
        let path = self.bootstrap_file();
        for path in [atomic::previous_path(&path), path] {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(ConfigError::Io { path, source });
                }
                _ => {}
            }
        }
        atomic::sync_folder(&self.0).map_err(|source| ConfigError::Io { path: self.0.clone(), source })
    }

    /// Takes the data folder for this process; a second daemon on it is refused. Held until dropped, and
    /// released by the kernel however the process ends.
    pub fn lock(&self) -> Result<DirLock, ConfigError> {
        let run = self.run();
        let path = run.join("lock");
        let io_error = |source| ConfigError::Io { path: path.clone(), source };
        fs::create_dir_all(&run).map_err(io_error)?;
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io_error)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(DirLock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(ConfigError::InUse { dir: self.0.clone() }),
            Err(e) => Err(io_error(e.into())),
        }
    }

    fn load<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, ConfigError> {
        let checked = match atomic::read_checked(path) {
            Ok(checked) => checked,
            Err(CheckedError::Missing { .. }) => return Ok(None),
            Err(e) => return Err(ConfigError::Checked(e)),
        };
        if let Some(damage) = checked.fell_back {
            tracing::warn!(path = %path.display(), %damage, "the file is unusable; the one before it is used");
        }
        let value = serde_json::from_str(&checked.content);
        value.map(Some).map_err(|source| ConfigError::Content { path: path.into(), source })
    }

    fn save<T: Serialize + ?Sized>(&self, path: &Path, value: &T) -> Result<(), ConfigError> {
        let text = serde_json::to_string_pretty(value);
        let text = text.map_err(|source| ConfigError::Content { path: path.into(), source })?;
        let written = atomic::write_checked(path, &text, atomic::PRIVATE);
        written.map_err(|source| ConfigError::Io { path: path.into(), source })
    }
}

/// The data folder, taken.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

/// Why a file of the data folder cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// There is no configuration.
    #[error("{dir} is not the data folder of a node; make one with `holdfast init` or `holdfast join`")]
    NotSetUp {
        /// The folder.
        dir: PathBuf,
    },
    /// Another daemon has the folder.
    #[error("{dir} is in use by another daemon; stop that one first")]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// A mistake in the configuration.
    #[error("{path}, line {line}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// `admin.token` holds something else.
    #[error("{path}: not an admin token; copy the file from another node")]
    AdminToken {
        /// The file.
        path: PathBuf,
    },
    /// A file of ours is damaged.
    #[error(transparent)]
    Checked(CheckedError),
    /// A file of ours has a good checksum and a content that this version does not understand.
    #[error("{path}: {source}; it was written by another version")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// The ports of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// For its peers.
    pub node: u16,
    /// For the API over TLS.
    pub api: u16,
    /// For the metrics page.
    pub metrics: u16,
    /// For iSCSI.
    pub iscsi: u16,
    /// For NBD.
    pub nbd: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { node: 7400, api: 7402, metrics: 7403, iscsi: 3260, nbd: 10809 }
    }
}

/// The configuration of a node, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's name.
    pub name: String,
    /// The address at which its peers reach it.
    pub address: IpAddr,
    /// How the owners on it check reads.
    pub reads: ReadCheck,
    /// Its ports.
    pub ports: Ports,
    /// Where it serves iSCSI.
    pub iscsi: IpAddr,
    /// Where it serves NBD.
    pub nbd: IpAddr,
    /// The longest that the data thread polls before it sleeps; zero: never.
    pub busy_poll: Duration,
}

impl Config {
    /// A configuration with every default.
    pub fn new(name: String, address: IpAddr) -> Self {
        let local = local_address(address);
        Self {
            name,
            address,
            reads: ReadCheck::Lease,
            ports: Ports::default(),
            iscsi: local,
            nbd: local,
            busy_poll: BUSY_POLL,
        }
    }
    /// Where peers reach this node.
    pub fn node_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.ports.node)
    }
    /// Where the API listens.
    pub fn api_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.ports.api)
    }
    /// Where the metrics page is: on this host only.
    pub fn metrics_address(&self) -> SocketAddr {
        SocketAddr::new(local_address(self.address), self.ports.metrics)
    }
    /// Where iSCSI is served.
    pub fn iscsi_address(&self) -> SocketAddr {
        SocketAddr::new(self.iscsi, self.ports.iscsi)
    }
    /// Where NBD is served.
    pub fn nbd_address(&self) -> SocketAddr {
        SocketAddr::new(self.nbd, self.ports.nbd)
    }
    /// Whether iSCSI can be reached from other hosts: then it must not be served without CHAP.
    pub fn iscsi_needs_chap(&self) -> bool {
        !self.iscsi.is_loopback()
    }
}

/// The address for what stays on this host: the node's own when that is a loopback address, so that several
/// nodes share a host.
fn local_address(address: IpAddr) -> IpAddr {
    if address.is_loopback() { address } else { IpAddr::V4(Ipv4Addr::LOCALHOST) }
}

/// Whether `name` can be the name of a node, cluster, pool or volume: 1 to 63 of a-z, 0-9 and inner hyphens.
pub fn is_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// How far this node's scrub is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScrubState {
    /// Everything that was due by then is done.
    pub through_unix_seconds: u64,
}

/// A disk of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalDisk {
    /// The block device or file.
    pub path: PathBuf,
    /// Its id, also in its superblocks.
    #[serde(with = "hex_disk")]
    pub id: DiskId,
}

/// What the first run of a node is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    /// The cluster.
    #[serde(with = "hex_cluster")]
    pub cluster: ClusterId,
    /// The cluster's name.
    pub cluster_name: String,
    /// This node.
    pub node: NodeId,
    /// Disks to format with these ids, and to list in `disks.json` then. A disk that already carries the id was
    /// formatted by a first run that did not finish.
    pub disks: Vec<LocalDisk>,
    /// The pool that they go to.
    pub pool: String,
    /// Whether this run makes a cluster or enters one.
    pub start: Start,
}

/// How a node starts its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Start {
    /// As the first of a new cluster.
    Init {
        /// The SHA-256 of the secret of the first join token, hexadecimal.
        token_hash: String,
        /// Until when it can be used.
        token_expires_ms: u64,
    },
    /// By joining others, which `members.json` lists.
    Join,
}

macro_rules! hex_serde {
    ($module:ident, $type:ident) => {
        mod $module {
            use super::*;
            pub(super) fn serialize<S: serde::Serializer>(id: &$type, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&to_hex(&id.0.to_be_bytes()))
            }
            pub(super) fn deserialize<'d, D: serde::Deserializer<'d>>(d: D) -> Result<$type, D::Error> {
                let text = String::deserialize(d)?;
                let bytes: Option<[u8; 16]> = from_hex(&text).and_then(|b| b.try_into().ok());
                let bytes =
                    bytes.ok_or_else(|| serde::de::Error::custom("not an id of 32 hexadecimal digits"))?;
                Ok($type(u128::from_be_bytes(bytes)))
            }
        }
    };
}
hex_serde!(hex_disk, DiskId);
hex_serde!(hex_cluster, ClusterId);

#[cfg(test)]
mod tests;
