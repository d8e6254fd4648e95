//! The command as a process: what it prints, against a served API with a made-up cluster behind it, and what it
//! says to every kind of bad input.

use holdfast_api::events::{EventLog, NewEvent};
use holdfast_api::fake::Fake;
use holdfast_api::server::{Access, bind_unix, router, serve_tls, serve_unix};
use holdfast_api::token::Accepted;
use holdfast_net::Identity;
use holdfast_types::NodeId;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A served cluster and its data folder.
struct Cluster {
    folder: TempDir,
    fake: Arc<Fake>,
    events: EventLog,
    address: SocketAddr,
}

fn cluster() -> Cluster {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("run")).unwrap();
    let events = EventLog::open(&folder.path().join("events"), 1).unwrap();
    let socket_path = folder.path().join("run/api.sock");
    let (sender, receiver) = std::sync::mpsc::channel();
    let (events_there, identity_there) = (events.clone(), folder.path().to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let serve = async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fake = Arc::new(Fake::new(events_there, address));
        let identity = Identity::create(&identity_there, &fake.authority, NodeId(1)).unwrap();
        let socket = bind_unix(&socket_path).await.unwrap();
        let guarded = router(fake.clone(), Access::Token(Accepted::of(fake.admin_token)));
        let open = router(fake.clone(), Access::Socket);
        sender.send((fake, address)).unwrap();
        let tls = identity.api_acceptor().unwrap();
        tokio::join!(serve_unix(socket, open), serve_tls(listener, tls, guarded));
    };
    // It ends with the test process.
    std::thread::spawn(move || runtime.block_on(serve));
    let (fake, address) = receiver.recv().unwrap();
    std::fs::write(folder.path().join("admin.token"), fake.admin_token.to_string()).unwrap();
    Cluster { folder, fake, events, address }
}

fn command(dir: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.args(line.split_whitespace()).env("HOLDFAST_DIR", dir).stdin(Stdio::null());
    command
}

fn run(dir: &Path, line: &str) -> Output {
    command(dir, line).output().unwrap()
}

impl Cluster {
    fn dir(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
    /// Runs a command that is to succeed, and returns what it prints.
    fn ok(&self, line: &str) -> String {
        let output = run(&self.dir(), line);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{line}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Runs a command that is to fail, and returns its code and its line.
fn fails(dir: &Path, line: &str) -> (i32, String) {
    let output = run(dir, line);
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.stdout, b"", "{line}");
    assert!(err.ends_with('\n') && err.matches('\n').count() == 1, "not one line: {line}: {err}");
    assert!(!err.contains("panicked"), "{line}: {err}");
    (output.status.code().unwrap(), err.trim_end().to_owned())
}

#[test]
fn tables_are_as_recorded() {
    let cluster = cluster();
    let mut text = String::new();
    for line in [
        "volume ls",
        "volume create demo --size 4G",
        "volume resize demo --size 8G",
        "volume show demo",
        "volume check demo",
        "status",
        "node ls",
        "node show",
        "disk ls",
        "disk show 3fa2",
        "disk add /srv/disk1:2G",
        "disk rm 3fa2",
        "node rm beta",
        "node lost beta",
        "disk lost 3fa2",
        "volume salvage demo --yes",
        "pool ls",
        "volume rm demo --yes",
    ] {
        text.push_str(&format!("$ holdfast {line}\n{}\n", cluster.ok(line)));
    }
    insta::assert_snapshot!(text.replace(&cluster.address.to_string(), "API"));
}

#[test]
fn json_is_what_the_api_says() {
    let cluster = cluster();
    cluster.ok("volume create demo --size 4G");
    let value = |line: &str| serde_json::from_str::<serde_json::Value>(&cluster.ok(line)).unwrap();
    assert_eq!(value("--json status")["leader"], 1);
    assert_eq!(value("node ls --json")[1]["state"], "down");
    assert_eq!(value("volume show demo --json")["segments"][0]["copies"][1]["state"], "resyncing");
    assert_eq!(value("volume check demo --json")["findings"], serde_json::json!([]));
    assert_eq!(value("volume rm demo --yes --json"), serde_json::json!({}));
    let output = run(&cluster.dir(), "volume show demo --json");
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((output.status.code(), &error["kind"]), (Some(1), &"not-found".into()));
    for line in ["volume create demo --size 5X --json", "--json nonsense", "volume --json"] {
        let output = run(&cluster.dir(), line);
        let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!((output.status.code(), &error["kind"]), (Some(2), &"invalid".into()), "{line}");
    }
}

#[test]
fn bad_input_is_answered_with_one_line_and_a_code() {
    let cluster = cluster();
    cluster.ok("volume create demo --size 4G");
    let long = "x".repeat(300);
    let mut text = String::new();
    for line in [
        "volume show nosuch",
        "volume create demo --size 4G",
        "volume create big --size 1P",
        "volume create zero --size 0",
        "volume create odd --size 5000",
        "volume create unit --size 4GB",
        "volume create half --size 1.5G",
        "volume create huge --size 99999999P",
        "volume create none",
        "volume create UPPER --size 1G",
        &format!("volume create {long} --size 1G"),
        "volume create many --size 1G --copies 9",
        "volume resize nosuch --size 1G",
        "volume rm nosuch --yes",
        "volume rm demo",
        "volume check nosuch",
        "node show 77",
        "node rm 77",
        "node rm alpha",
        "node rm",
        "node lost",
        "volume salvage demo",
        "recover --lost",
        "recover --follow nonsense",
        "recover --survivor 2",
        "recover --discard",
        "disk rm",
        "disk show ffff",
        "disk add /x:1Q",
        "join nonsense --addr 127.0.0.1",
        "join hf100 --addr 127.0.0.1",
        "init --addr localhost",
        "init --addr 127.0.0.1 --name Big!",
        "status --node 127.0.0.1",
        "status --node somewhere --token-file x",
        "status --node 127.0.0.1 --token-file /dev/null",
        "chap set --user u --secret-file /dev/null",
        "events --last many",
        "frobnicate",
        "volume frobnicate",
        "--colour status",
    ] {
        let (code, err) = fails(&cluster.dir(), line);
        assert!((1..=2).contains(&code), "{line}: {code}");
        text.push_str(&format!("$ holdfast {line}\n{err}\n[{code}]\n\n"));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn without_a_daemon_every_command_says_so() {
    let folder = tempfile::tempdir().unwrap();
    for line in [
        "status",
        "volume ls",
        "volume rm x --yes",
        "node stop",
        "events --follow",
        "token create",
        "chap clear",
    ] {
        let (code, err) = fails(folder.path(), line);
        assert_eq!(code, 1, "{line}");
        assert!(err.contains("no daemon answers at") && err.contains("holdfast node run"), "{line}: {err}");
    }
}

#[test]
fn a_daemon_that_cannot_start_says_why_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let (code, err) = fails(folder.path(), "node run");
    assert!(code == 1 && err.contains("make one with `holdfast init` or `holdfast join`"), "{code} {err}");
    std::fs::write(folder.path().join("holdfast.toml"), "name = 'a'\naddress = 'b'\n").unwrap();
    let (code, err) = fails(folder.path(), "node run --log-format json");
    assert!(
        code == 2 && err.contains("holdfast.toml, line 2: address \"b\" is not an IP address"),
        "{code} {err}"
    );
    let output = command(folder.path(), "node run").env("HOLDFAST_LOG", "=loud=").output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && err.starts_with("holdfast: HOLDFAST_LOG: "), "{err}");
}

#[test]
fn another_node_is_asked_over_tls_with_the_token() {
    let cluster = cluster();
    let token = cluster.folder.path().join("admin.token");
    let nowhere = tempfile::tempdir().unwrap();
    let options = format!("--node {} --token-file {}", cluster.address, token.display());
    let output = run(nowhere.path(), &format!("node ls {options}"));
    assert!(String::from_utf8_lossy(&output.stdout).contains("alpha"), "{output:?}");
    let other = holdfast_api::token::AdminToken {
        secret: holdfast_api::token::Secret::generate(),
        ..cluster.fake.admin_token
    };
    std::fs::write(&token, other.to_string()).unwrap();
    let (code, err) = fails(nowhere.path(), &format!("node ls {options}"));
    assert_eq!(code, 1);
    assert!(err.contains("this is not the token; it is in the file admin.token"), "{err}");
}

#[test]
fn a_check_with_findings_prints_them_and_fails() {
    let cluster = cluster();
    cluster.ok("volume create bad --size 4G");
    let output = run(&cluster.dir(), "volume check bad");
    assert_eq!(output.status.code(), Some(1));
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(out.contains("wrong checksum"), "{out}");
    assert!(err.starts_with("holdfast: 1 findings in volume bad"), "{err}");
}

#[test]
fn node_stop_without_a_name_stops_the_node_that_is_asked() {
    let cluster = cluster();
    cluster.ok("node stop");
    cluster.ok("node stop beta");
    assert_eq!(cluster.fake.stopped(), ["1", "beta"]);
}

#[test]
fn what_is_removed_is_what_was_named() {
    let cluster = cluster();
    cluster.ok("node rm beta");
    cluster.ok("disk rm /dev/disk/by-id/a:1");
    cluster.ok("node lost beta");
    cluster.ok("node lost beta --accept-loss");
    cluster.ok("disk lost 3fa2 --accept-loss");
    cluster.ok("volume salvage demo --yes");
    let removed = [
        "beta",
        "/dev/disk/by-id/a:1",
        "beta, accepting false",
        "beta, accepting true",
        "3fa2, accepting true",
        "demo",
    ];
    assert_eq!(cluster.fake.removed(), removed);
}

#[test]
fn a_chap_secret_comes_from_standard_input_and_is_never_printed() {
    let cluster = cluster();
    let mut child = command(&cluster.dir(), "chap set --user vmhost --secret-file -")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"correct-horse-battery\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(!String::from_utf8_lossy(&output.stdout).contains("horse"));
    assert_eq!(cluster.fake.chap().unwrap().secret, "correct-horse-battery");
    cluster.ok("chap clear");
    assert_eq!(cluster.fake.chap(), None);
}

fn log(cluster: &Cluster, what: &str) {
    let event = NewEvent { who: "operator".into(), kind: "test", what: what.into(), ..NewEvent::default() };
    cluster.events.append(event);
}

#[test]
fn events_are_followed_and_cannot_drive_the_terminal() {
    let cluster = cluster();
    log(&cluster, "one \u{1b}[2J");
    let mut child = command(&cluster.dir(), "events --follow").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains("operator: one \u{fffd}[2J"), "{first:?}");
    log(&cluster, "two");
    assert!(lines.next().unwrap().unwrap().ends_with("operator: two"));
    // The reader goes away: the command ends at its next line, without a word and with code 0.
    drop(lines);
    // Not at the first line for certain: a process that another test starts just now may hold the pipe until it
    // is itself.
    let deadline = Instant::now() + Duration::from_secs(10);
    let status = loop {
        log(&cluster, "more");
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "it goes on without a reader");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "{status}");
}

#[test]
fn a_second_host_joins_with_the_printed_token() {
    let cluster = cluster();
    let token: serde_json::Value = serde_json::from_str(&cluster.ok("--json token create")).unwrap();
    let token = token["token"].as_str().unwrap();
    let two = cluster.folder.path().join("two");
    let output = run(&two, &format!("join {token} --addr 127.0.0.2"));
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.starts_with("This host is node 2 of cluster lab, node-2."), "{out}");
    let (code, err) = fails(&cluster.folder.path().join("three"), &format!("join {token} --addr 127.0.0.3"));
    assert_eq!(code, 1);
    assert!(err.contains("used already; make a new one with `holdfast token create`"), "{err}");
    let (code, err) = fails(&two, &format!("join {token} --addr 127.0.0.2"));
    assert!(code == 1 && err.contains("is the data folder of a node already"), "{err}");
    let checked = run(&two, "config check");
    assert_eq!(
        String::from_utf8(checked.stdout).unwrap().lines().skip(1).collect::<Vec<_>>(),
        ["name = \"node-2\"", "address = \"127.0.0.2\""]
    );
}

#[test]
fn completions_are_made_for_every_shell() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = run(folder.path(), &format!("completions {shell}"));
        assert!(output.status.success() && output.stdout.len() > 1000, "{shell}");
    }
    let (code, err) = fails(folder.path(), "completions tcsh");
    assert!(code == 2 && err.contains("possible values"), "{err}");
}

#[test]
fn the_help_says_what_the_exit_codes_mean() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), "--help");
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("Exit codes:\n  0  done\n"));
    let output = run(folder.path(), "volume");
    assert_eq!(output.status.code(), Some(2));
}
