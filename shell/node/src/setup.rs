//! `init` and `join`: everything between an empty folder and a node that can be started. They check all that
//! can be checked before they change anything, `holdfast.toml` is written last, and what the first run is to
//! do is left in `bootstrap.json`.
//!
//! Promises: a folder in use, a disk with data on it, and a file that exists with another size are refused,
//! never overwritten (a disk may be, with `wipe`). Neither starts the daemon nor formats a disk.

mod disk;

use crate::config::{
    Bootstrap, Config, ConfigError, DEFAULT_POOL, DataDir, LocalDisk, MAX_NAME, Ports, Start, is_name, render,
};
use holdfast_api::token::{AdminToken, JOIN_TOKEN_HOURS, JoinToken, Secret, to_hex};
use holdfast_api::{ApiError, Client, ErrorKind, model};
use holdfast_net::ca::FromPem;
use holdfast_net::{
    Authority, CaPin, Identity, IdentityError, Member, NodeKey, PkiError, Roster, atomic, pin,
};
use holdfast_types::{ClusterId, DiskId, NodeId};
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use thiserror::Error;

pub use disk::{DiskSpec, DiskSpecError};

/// What `init` and `join` need to know.
#[derive(Clone, Debug)]
pub struct SetupOptions {
    /// The data folder; made when it does not exist.
    pub dir: PathBuf,
    /// The address at which the other nodes reach this one.
    pub address: IpAddr,
    /// The node's name.
    pub name: String,
    /// Its ports.
    pub ports: Ports,
    /// Its disks.
    pub disks: Vec<DiskSpec>,
    /// Overwrite what is on the disks.
    pub wipe: bool,
}

/// What `init` did.
#[derive(Clone, Debug)]
pub struct Initialized {
    /// The new cluster.
    pub cluster: ClusterId,
    /// The first join token, good for one node within a day.
    pub token: JoinToken,
    /// Until when it can be used.
    pub token_expires_ms: u64,
}

/// What `join` did.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub cluster_name: String,
    /// The number of this node.
    pub node: NodeId,
}

/// Why a node could not be set up.
#[derive(Debug, Error)]
pub enum SetupError {
    /// A name that is none.
    #[error("{what} name {name:?} is not 1 to {MAX_NAME} of a-z, 0-9 and inner hyphens; choose another")]
    Name {
        /// Of what.
        what: &'static str,
        /// The name, cut when long.
        name: String,
    },
    /// An address that nobody can reach.
    #[error(
        "address {address} is not one at which other nodes can reach this one; name an address of this host"
    )]
    Address {
        /// The address.
        address: IpAddr,
    },
    /// The data folder belongs to a node.
    #[error("{dir} is the data folder of a node already; choose another with --dir")]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// A disk cannot be used.
    #[error(transparent)]
    Disk(#[from] disk::DiskRefused),
    /// The cluster does not admit this node.
    #[error(transparent)]
    Refused(ApiError),
    /// The cluster's answer makes no sense.
    #[error("the cluster's answer is not usable: {0}; command and daemon may be of different versions")]
    Answer(BadAnswer),
    /// Certificates could not be made or stored.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The new identity is not usable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A file of the data folder could not be written.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// What is wrong with the answer to a join.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadAnswer {
    /// The authority.
    #[error("{0}")]
    Authority(FromPem),
    /// The authority is another than the token says.
    #[error("its authority is not the one of the token")]
    OtherAuthority,
    /// A field.
    #[error("field {0} is garbled")]
    Field(&'static str),
}

impl SetupError {
    /// The exit code of a command that ends with it: 2 when the input was wrong, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            SetupError::Name { .. } | SetupError::Address { .. } => 2,
            SetupError::Refused(e) => e.kind.exit_code(),
            _ => 1,
        }
    }
}

/// Makes a cluster of one node. `progress` hears of bytes reserved for file disks, done and total.
pub fn init(
    options: &SetupOptions,
    cluster_name: &str,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Initialized, SetupError> {
    check_name("cluster", cluster_name)?;
    let dir = check(options)?;
    let disks = prepare(&dir, options, progress)?;
    let cluster = ClusterId(random_u128());
    let authority = Authority::create(cluster)?;
    let identity = Identity::create(&dir.identity(), &authority, NodeId(1))?;
    let pin = CaPin::of(identity.authority());
    let config = config(options);
    let token = JoinToken { address: config.api_address(), pin, secret: Secret::generate() };
    let token_expires_ms = now_ms() + Duration::from_secs(JOIN_TOKEN_HOURS * 3600).as_millis() as u64;
    let start = Start::Init { token_hash: to_hex(&token.secret.hash()), token_expires_ms };
    let bootstrap = Bootstrap {
        cluster,
        cluster_name: cluster_name.to_owned(),
        node: NodeId(1),
        disks,
        pool: DEFAULT_POOL.into(),
        start,
    };
    let first = Member { address: config.node_address().to_string(), key: identity.key() };
    let members = Roster { version: 0, next_node: 2, members: [(NodeId(1), first)].into() };
    finish(&dir, &config, &AdminToken { pin, secret: Secret::generate() }, &members, &bootstrap)?;
    Ok(Initialized { cluster, token, token_expires_ms })
}

/// Makes this host a node of the cluster that gave out `token`.
pub async fn join(
    options: &SetupOptions,
    token: &JoinToken,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Joined, SetupError> {
    let dir = check(options)?;
    let disks = prepare(&dir, options, progress)?;
    let key = NodeKey::generate()?;
    let request = model::JoinRequest {
        secret: token.secret.to_hex(),
        name: options.name.clone(),
        address: options.address.to_string(),
        node_port: options.ports.node,
        public_key: to_hex(key.public()),
    };
    let client = Client::for_join(token.address, token.pin);
    let answer = client.join(&request).await.map_err(|e| SetupError::Refused(explain(e)))?;
    let admitted = Admitted::read(&answer, token)?;
    let identity = dir.identity();
    admitted.authority.save(&identity)?;
    Identity::store(&identity, &key, &answer.certificate)?;
    let loaded = Identity::load(&identity)?;
    if loaded.node() != admitted.node || loaded.cluster() != admitted.authority.cluster() {
        return Err(SetupError::Answer(BadAnswer::Field("certificate")));
    }
    let bootstrap = Bootstrap {
        cluster: loaded.cluster(),
        cluster_name: answer.cluster_name.clone(),
        node: admitted.node,
        disks,
        pool: DEFAULT_POOL.into(),
        start: Start::Join,
    };
    let config = config(options);
    let this = Member { address: config.node_address().to_string(), key: loaded.key() };
    let mut members = admitted.members;
    members.insert(admitted.node, this);
    let next_node = members.keys().map(|n| n.0.saturating_add(1)).max().unwrap_or(1);
    let members = Roster { version: 0, next_node, members };
    finish(&dir, &config, &admitted.admin_token, &members, &bootstrap)?;
    Ok(Joined { cluster: loaded.cluster(), cluster_name: answer.cluster_name, node: admitted.node })
}

/// What the cluster answered, checked.
struct Admitted {
    node: NodeId,
    authority: Authority,
    admin_token: AdminToken,
    members: BTreeMap<NodeId, Member>,
}

impl Admitted {
    fn read(answer: &model::JoinAnswer, token: &JoinToken) -> Result<Self, SetupError> {
        let bad = SetupError::Answer;
        let authority = Authority::from_pem(&answer.authority, &answer.authority_key)
            .map_err(|e| bad(BadAnswer::Authority(e)))?;
        if CaPin::of(authority.certificate()) != token.pin {
            return Err(bad(BadAnswer::OtherAuthority));
        }
        let admin_token: AdminToken =
            answer.admin_token.parse().map_err(|_| bad(BadAnswer::Field("admin_token")))?;
        let mut members = BTreeMap::new();
        for (node, peer) in &answer.peers {
            let address: SocketAddr = peer.address.parse().map_err(|_| bad(BadAnswer::Field("peers")))?;
            members.insert(NodeId(*node), Member { address: address.to_string(), key: peer.key });
        }
        if answer.node == 0 || !is_name(&answer.cluster_name) {
            return Err(bad(BadAnswer::Field("node")));
        }
        Ok(Self { node: NodeId(answer.node), authority, admin_token, members })
    }
}

/// Tells what to do about a refusal, where the cluster cannot know.
fn explain(error: ApiError) -> ApiError {
    match error.kind {
        ErrorKind::TokenUsed | ErrorKind::TokenExpired if error.hint.is_none() => {
            error.hint("make a new one with `holdfast token create` on a node of the cluster")
        }
        _ => error,
    }
}

fn check_name(what: &'static str, name: &str) -> Result<(), SetupError> {
    if is_name(name) {
        return Ok(());
    }
    let shown = match name.chars().count() > MAX_NAME + 1 {
        true => name.chars().take(MAX_NAME).chain(['…']).collect(),
        false => name.to_owned(),
    };
    Err(SetupError::Name { what, name: shown })
}

/// Checks what can be checked without changing anything.
fn check(options: &SetupOptions) -> Result<DataDir, SetupError> {
    check_name("node", &options.name)?;
    if options.address.is_unspecified() || options.address.is_multicast() {
        return Err(SetupError::Address { address: options.address });
    }
    let path = std::path::absolute(&options.dir)
        .map_err(|source| SetupError::Io { path: options.dir.clone(), source })?;
    let dir = DataDir::new(path);
    if dir.config_file().exists() {
        return Err(SetupError::InUse { dir: dir.path().into() });
    }
    for spec in &options.disks {
        spec.check(options.wipe)?;
    }
    Ok(dir)
}

/// Makes the folders and the file disks, and draws the ids of all disks.
fn prepare(
    dir: &DataDir,
    options: &SetupOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<LocalDisk>, SetupError> {
    for folder in [dir.path(), &dir.identity(), &dir.control(), &dir.events(), &dir.run()] {
        make_private(folder)?;
    }
    let total: u64 = options.disks.iter().filter_map(|d| d.size).sum();
    let mut done = 0;
    let mut disks = Vec::new();
    for spec in &options.disks {
        let path = spec.prepare(options.wipe, &mut |bytes| progress(done + bytes, total))?;
        done += spec.size.unwrap_or(0);
        disks.push(LocalDisk { path, id: new_disk_id() });
    }
    Ok(disks)
}

/// An id that no other disk has.
pub fn new_disk_id() -> DiskId {
    DiskId(random_u128())
}

fn make_private(folder: &Path) -> Result<(), SetupError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| SetupError::Io { path: folder.into(), source })
}

fn config(options: &SetupOptions) -> Config {
    Config { ports: options.ports, ..Config::new(options.name.clone(), options.address) }
}

/// Writes what makes the folder that of a node, the configuration last.
fn finish(
    dir: &DataDir,
    config: &Config,
    admin_token: &AdminToken,
    members: &Roster,
    bootstrap: &Bootstrap,
) -> Result<(), SetupError> {
    let write = |path: PathBuf, text: String, mode| {
        atomic::write(&path, text.as_bytes(), mode).map_err(|source| SetupError::Io { path, source })
    };
    dir.save_admin_token(admin_token)?;
    dir.save_members(members)?;
    dir.save_bootstrap(bootstrap)?;
    write(dir.config_file(), render(config), atomic::PUBLIC)
}

fn random_u128() -> u128 {
    let mut bytes = [0; 16];
    pin::random(&mut bytes);
    // Zero is what an id is before it is one.
    u128::from_be_bytes(bytes).max(1)
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests;
