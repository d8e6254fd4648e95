//! Tests of init and join, the latter against a served API with a made-up cluster behind it.

use super::*;
use holdfast_api::events::EventLog;
use holdfast_api::fake::Fake;
use holdfast_api::server::{Access, router, serve_tls};
use holdfast_api::token::Accepted;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use tempfile::TempDir;

fn options(dir: &Path, disks: &[&str]) -> SetupOptions {
    SetupOptions {
        dir: dir.into(),
        address: "127.0.0.1".parse().unwrap(),
        name: "alpha".into(),
        ports: Ports::default(),
        disks: disks.iter().map(|d| d.parse().unwrap()).collect(),
        wipe: false,
    }
}

fn sparse(path: &Path, size: u64) {
    fs::File::create(path).unwrap().set_len(size).unwrap();
}

fn init_in(options: &SetupOptions) -> Result<Initialized, SetupError> {
    init(options, "lab", &mut |_, _| {})
}

/// A served cluster, and a folder for who joins it.
async fn cluster() -> (TempDir, Arc<Fake>, SocketAddr, tokio::task::JoinHandle<()>) {
    let folder = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let events = EventLog::open(&folder.path().join("events"), 1).unwrap();
    let fake = Arc::new(Fake::new(events, address));
    let identity = Identity::create(folder.path(), &fake.authority, NodeId(1)).unwrap();
    let router = router(fake.clone(), Access::Token(Accepted::of(fake.admin_token)));
    let task = tokio::spawn(serve_tls(listener, identity.api_acceptor().unwrap(), router));
    (folder, fake, address, task)
}

async fn token_of(fake: &Fake) -> JoinToken {
    use holdfast_api::Backend;
    fake.create_token().await.unwrap().token.parse().unwrap()
}

async fn join_with(options: &SetupOptions, token: &JoinToken) -> Result<Joined, SetupError> {
    join(options, token, &mut |_, _| {}).await
}

#[test]
fn init_leaves_everything_that_the_first_run_needs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one");
    let disk = folder.path().join("disk");
    sparse(&disk, disk::MIN_DISK_BYTES);
    let done = init_in(&options(&path, &[disk.to_str().unwrap()])).unwrap();
    let dir = DataDir::new(&path);
    let config = dir.load_config().unwrap();
    assert_eq!(config, Config::new("alpha".into(), "127.0.0.1".parse().unwrap()));
    let identity = Identity::load(&dir.identity()).unwrap();
    assert_eq!((identity.node(), identity.cluster()), (NodeId(1), done.cluster));
    let pin = CaPin::of(identity.authority());
    assert_eq!(dir.load_admin_token().unwrap().pin, pin);
    assert_eq!((done.token.pin, done.token.address), (pin, config.api_address()));
    let bootstrap = dir.load_bootstrap().unwrap().unwrap();
    assert_eq!((bootstrap.cluster, bootstrap.cluster_name.as_str()), (done.cluster, "lab"));
    assert_eq!(bootstrap.disks.len(), 1);
    assert_eq!(bootstrap.disks[0].path, disk);
    let token_hash = to_hex(&done.token.secret.hash());
    assert_eq!(bootstrap.start, Start::Init { token_hash, token_expires_ms: done.token_expires_ms });
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(dir.admin_token_file()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_folder_of_a_node_is_not_set_up_twice() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), &[]);
    init_in(&options).unwrap();
    let before = fs::read(folder.path().join("identity/ca.pem")).unwrap();
    let error = init_in(&options).unwrap_err();
    assert!(matches!(error, SetupError::InUse { .. }), "{error}");
    assert_eq!(fs::read(folder.path().join("identity/ca.pem")).unwrap(), before);
}

#[test]
fn a_disk_with_data_is_refused_and_untouched_until_it_may_be_wiped() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    sparse(&disk, disk::MIN_DISK_BYTES);
    use std::os::unix::fs::FileExt;
    fs::File::options().write(true).open(&disk).unwrap().write_all_at(b"EFI PART", 512).unwrap();
    let mut options = options(&folder.path().join("one"), &[disk.to_str().unwrap()]);
    let error = init_in(&options).unwrap_err();
    assert!(error.to_string().contains("holds data already"), "{error}");
    assert!(error.to_string().contains("--wipe-disk"), "{error}");
    assert!(!options.dir.exists(), "nothing was made");
    let mut head = [0; 8];
    fs::File::open(&disk).unwrap().read_exact_at(&mut head, 512).unwrap();
    assert_eq!(&head, b"EFI PART");
    options.wipe = true;
    init_in(&options).unwrap();
    fs::File::open(&disk).unwrap().read_exact_at(&mut head, 512).unwrap();
    assert_eq!(head, [0; 8]);
}

#[test]
fn disks_that_cannot_be_used_say_why_and_what_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    sparse(Path::new(&path("small")), 4096);
    sparse(Path::new(&path("large")), 2 << 30);
    // Larger than any file system: reserved space is what the disk is about.
    let cases = [
        (path("none"), "does not exist; name a device, or add the size"),
        (path("small"), "the least for a disk is 1 GiB"),
        (folder.path().display().to_string(), "is neither a block device nor a file"),
        (format!("{}:4096T", path("huge")), "file system has only"),
    ];
    for (spec, says) in cases {
        let error = init_in(&options(&folder.path().join("one"), &[&spec])).unwrap_err();
        assert!(error.to_string().contains(says), "{spec}: {error}");
        assert_eq!(error.exit_code(), 1);
    }
    let spec = DiskSpec { path: path("large").into(), size: Some(3 << 30) };
    let error = spec.check(false).unwrap_err().to_string();
    assert!(error.contains("exists with 2 GiB, not 3 GiB"), "{error}");
    assert_eq!("x:1M".parse::<DiskSpec>(), Err(DiskSpecError::TooSmall("1 MiB".into())));
    assert!(matches!("x:1Z".parse::<DiskSpec>(), Err(DiskSpecError::Size(_))));
    assert_eq!(":1G".parse::<DiskSpec>(), Err(DiskSpecError::NoPath));
    let by_path: DiskSpec =
        "/dev/disk/by-path/pci-0000:00:1f.2".parse().unwrap_or(DiskSpec { path: "".into(), size: None });
    assert!(by_path.size.is_none());
}

#[test]
fn bad_names_and_addresses_are_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let good = options(&folder.path().join("one"), &[]);
    let long = SetupOptions { name: "x".repeat(300), ..good.clone() };
    let any = SetupOptions { address: "0.0.0.0".parse().unwrap(), ..good.clone() };
    for bad in [long, any] {
        let error = init_in(&bad).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.to_string().len() < 250, "{error}");
    }
    assert_eq!(init(&good, "Lab!", &mut |_, _| {}).unwrap_err().exit_code(), 2);
    assert!(!good.dir.exists());
}

#[tokio::test]
async fn a_host_joins_with_a_token_once() {
    let (folder, fake, _, task) = cluster().await;
    let token = token_of(&fake).await;
    let two = options(&folder.path().join("two"), &[]);
    let joined = join_with(&two, &token).await.unwrap();
    assert_eq!((joined.node, joined.cluster_name.as_str()), (NodeId(2), "lab"));
    let dir = DataDir::new(&two.dir);
    let identity = Identity::load(&dir.identity()).unwrap();
    assert_eq!((identity.node(), identity.cluster()), (NodeId(2), fake.authority.cluster()));
    // It holds the authority's key and can admit others.
    Authority::load(&dir.identity()).unwrap();
    assert_eq!(dir.load_admin_token().unwrap(), fake.admin_token);
    let start = dir.load_bootstrap().unwrap().unwrap().start;
    assert_eq!(start, Start::Join);
    // Whom it is to expect, itself among them.
    let members = dir.load_members().unwrap().unwrap();
    assert_eq!((members.next_node, members.members.len()), (3, 2));
    assert_eq!(members.members[&NodeId(1)].address, "127.0.0.1:7400");
    assert_eq!(members.members[&NodeId(2)].key, identity.key());
    let error = join_with(&options(&folder.path().join("three"), &[]), &token).await.unwrap_err();
    assert!(
        error.to_string().contains("used already; make a new one with `holdfast token create`"),
        "{error}"
    );
    task.abort();
}

#[tokio::test]
async fn a_join_that_cannot_be_says_why_and_leaves_no_node() {
    let (folder, fake, address, task) = cluster().await;
    let good = token_of(&fake).await;
    let free = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
    let cases = [
        (
            JoinToken { secret: Secret::generate(), ..good },
            "was not given out by this cluster, or has expired",
        ),
        (JoinToken { pin: CaPin([9; 32]), ..good }, "belongs to another cluster"),
        (JoinToken { address: free, ..good }, "nobody listens there"),
    ];
    let two = options(&folder.path().join("two"), &[]);
    for (token, says) in cases {
        let error = join_with(&two, &token).await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(error.exit_code(), 1);
        assert!(!DataDir::new(&two.dir).config_file().exists());
    }
    // What was refused locally does not use the token up.
    let error = join_with(&options(&two.dir, &["/none/at/all"]), &good).await.unwrap_err();
    assert!(matches!(error, SetupError::Disk(_)), "{error}");
    assert_eq!(good.address, address);
    join_with(&two, &good).await.unwrap();
    task.abort();
}
