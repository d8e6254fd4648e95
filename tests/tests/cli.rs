//! Bad input to every command: one line that says what is wrong and what next, exit code 1 or 2, no panic. Who may use
//! the commands from afar.

use holdfast_tests::cluster::Cluster;
use holdfast_tests::command::json;
use holdfast_tests::process::binary;
use holdfast_tests::{output_of, until};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

/// Runs a command that must fail as promised; what it said.
fn refused(arguments: &[&str]) -> String {
    let output = output_of(&binary().to_string_lossy(), arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code();
    assert!(matches!(code, Some(1 | 2)), "{arguments:?} ended with {code:?}: {said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{arguments:?} said more or less than one line: {said}");
    assert!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "{said}");
    said
}

#[test]
fn bad_input_to_a_running_cluster_is_refused_in_one_line() {
    let cluster = Cluster::start(1);
    let dir = cluster.dir(1).to_string_lossy().into_owned();
    let name_300 = "n".repeat(300);
    let cases: &[&[&str]] = &[
        &["volume", "show", "nothing"],
        &["volume", "check", "nothing"],
        &["volume", "rm", "nothing", "--yes"],
        &["volume", "resize", "nothing", "--size", "2G"],
        &["volume", "resize", "demo", "--size", "0"],
        &["volume", "resize", "demo", "--size", "1PiB"],
        &["volume", "create", "zero", "--size", "0"],
        &["volume", "create", "vast", "--size", "1PiB"],
        &["volume", "create", "unit", "--size", "4X"],
        &["volume", "create", "unit", "--size", "-4G"],
        &["volume", "create", "odd", "--size", "4097"],
        &["volume", "create", &name_300, "--size", "1G"],
        &["volume", "create", "", "--size", "1G"],
        &["volume", "create", "UPPER case/../", "--size", "1G"],
        &["volume", "create", "demo", "--size", "1G"],
        &["volume", "create", "many", "--size", "1G", "--copies", "3"],
        &["volume", "create", "many", "--size", "1G", "--copies", "0"],
        &["volume", "create", "lost", "--size", "1G", "--pool", "nothing"],
        &["node", "show", "nothing"],
        &["node", "show", &name_300],
        &["node", "stop", "nothing"],
        &["disk", "show", "nothing"],
        &["disk", "lost", "nothing"],
        &["node", "lost", "nothing"],
        &["node", "lost", "1"],
        &["volume", "salvage", "nothing", "--yes"],
        &["volume", "salvage", "demo", "--yes"],
        &["recover"],
        &["disk", "add", "/nonexistent/disk"],
        &["disk", "add", "/proc/nonexistent/disk:1G"],
        &["disk", "add", "/dev/null"],
        &["disk", "add", "./x:7Q"],
        &["chap", "set"],
        &["nonsense"],
        &["volume", "nonsense"],
        &["volume", "create"],
    ];
    for case in cases {
        let said = refused(&[case, &["--dir", &dir][..]].concat());
        println!("{case:.60?}: {}", said.trim_end());
    }
}

#[test]
fn a_token_is_good_once_and_a_wrong_one_never() {
    let mut cluster = Cluster::start(1);
    let token = cluster.json(1, &["token", "create"])["token"].as_str().expect("a token is text").to_owned();
    let new = |name: &str| cluster.folder().join(name).to_string_lossy().into_owned();
    let (first, second, third) = (new("first"), new("second"), new("third"));
    let disk = |dir: &str| format!("{dir}/disk.img:1G");
    let base = cluster.address(1).rsplit_once('.').expect("an address").0.to_owned();
    let address = |n: u8| format!("{base}.{n}");
    let join = |token: &str, dir: &str, n: u8| {
        ["join", token, "--dir", dir, "--addr", &address(n), "--disk", &disk(dir)].map(str::to_owned)
    };
    let bin = binary().to_string_lossy().into_owned();
    let args = join(&token, &first, 11);
    assert!(output_of(&bin, &args.iter().map(String::as_str).collect::<Vec<_>>()).status.success());
    let bad_tokens = [token.as_str(), "hf1nonsense", "", &token[..token.len() - 4], &format!("{token}00")]
        .map(str::to_owned);
    for (i, bad) in bad_tokens.iter().enumerate() {
        let args = join(bad, if i % 2 == 0 { &second } else { &third }, 12);
        println!("{}", refused(&args.iter().map(String::as_str).collect::<Vec<_>>()).trim_end());
    }
    cluster.kill(1);
    let args = join(&token, &third, 13);
    refused(&args.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn commands_without_a_daemon_or_with_a_wrong_address_say_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().to_string_lossy().into_owned();
    for command in [
        &["status"][..],
        &["volume", "ls"],
        &["events"],
        &["token", "create"],
        &["node", "stop"],
        &["node", "run"],
    ] {
        let said = refused(&[command, &["--dir", &dir]].concat());
        println!("{command:?}: {}", said.trim_end());
    }
    let spec = format!("{dir}/d.img:1G");
    for address in ["", "nonsense", "127.0.0.1:99999", "300.1.1.1"] {
        refused(&["init", "--dir", &dir, "--addr", address, "--disk", &spec]);
    }
    refused(&["init", "--dir", &dir, "--addr", "127.200.0.1", "--disk", &format!("{dir}/d.img:900T")]);
    refused(&["init", "--dir", &dir, "--addr", "127.200.0.1", "--disk", "/proc/nonexistent/d.img:1G"]);
    refused(&["status", "--node", "127.200.0.99", "--token-file", &spec]);
}

#[test]
fn every_command_answers_as_json_and_every_node_answers_for_the_cluster() {
    let cluster = Cluster::start(3);
    for node in 1..=3 {
        let status = cluster.json(node, &["status"]);
        assert_eq!(status["nodes"].as_array().map(Vec::len), Some(3));
        for command in [&["node", "ls"][..], &["disk", "ls"], &["pool", "ls"], &["volume", "ls"]] {
            let expected = if command[0] == "node" || command[0] == "disk" { 3 } else { 1 };
            assert_eq!(cluster.json(node, command).as_array().map(Vec::len), Some(expected), "{command:?}");
        }
        cluster.json(node, &["volume", "show", "demo"]);
        cluster.json(node, &["node", "show"]);
    }
    // A node that is not the leader takes orders too.
    let follower = cluster.leader() % 3 + 1;
    cluster.json(follower, &["volume", "create", "second", "--size", "64M"]);
    cluster.json(follower, &["volume", "resize", "second", "--size", "128M"]);
    assert_eq!(cluster.json(follower, &["volume", "show", "second"])["size"], 128 << 20);
    cluster.json(follower, &["volume", "rm", "second", "--yes"]);
    assert!(cluster.try_json(follower, &["volume", "show", "second"]).is_none());
}

#[test]
fn with_a_copy_of_the_token_every_node_is_asked_from_afar_over_tls_and_with_another_one_none() {
    // The token of another cluster, whole and well formed.
    let folder = tempfile::tempdir().expect("a folder");
    let foreign = folder.path().join("admin.token");
    std::fs::copy(Cluster::start(1).dir(1).join("admin.token"), &foreign).expect("a copy");
    let cluster = Cluster::start(3);
    let token = cluster.dir(1).join("admin.token");
    let file = token.to_string_lossy();
    let from_afar = |node: usize, rest: &[&str]| {
        json(&[rest, &["--node", cluster.address(node), "--token-file", &file]].concat())
    };
    for node in 1..=3 {
        assert_eq!(from_afar(node, &["status"])["nodes"].as_array().map(Vec::len), Some(3));
        let name = format!("afar{node}");
        from_afar(node, &["volume", "create", &name, "--size", "64M"]);
        assert_eq!(cluster.json(node % 3 + 1, &["volume", "show", &name])["size"], 64 << 20);
    }
    refused(&["status", "--node", cluster.address(1), "--token-file", &foreign.to_string_lossy()]);
}

#[test]
fn one_two_and_five_nodes_make_a_cluster() {
    for nodes in [1, 2, 5] {
        let cluster = Cluster::start(nodes);
        cluster.assert_copies_equal();
        let copies = cluster.json(1, &["volume", "show", "demo"])["copies"].as_u64();
        assert_eq!(copies, Some(nodes.min(3) as u64));
    }
}

#[test]
fn what_a_host_that_left_knows_of_tokens_is_void_once_they_are_rotated() {
    let mut cluster = Cluster::start(3);
    let token = |cluster: &Cluster, n| std::fs::read_to_string(cluster.dir(n).join("admin.token"));
    let token = |cluster: &Cluster, n| token(cluster, n).expect("its token");
    let kept = cluster.folder().join("kept");
    let old = token(&cluster, 3);
    std::fs::write(&kept, &old).expect("a copy");
    let made = cluster.json(1, &["token", "create"]);
    let kept = kept.to_string_lossy();
    json(&["status", "--node", cluster.address(1), "--token-file", &kept]);
    cluster.kill(3);
    assert!(cluster.cli(2, &["token", "rotate"]).contains("have to be made anew"));
    until("both have the new one", LIMIT, || {
        token(&cluster, 1) != old && token(&cluster, 1) == token(&cluster, 2)
    });
    let new = cluster.dir(1).join("admin.token");
    for n in [1, 2] {
        let said = refused(&["status", "--node", cluster.address(n), "--token-file", &kept]);
        assert!(said.contains("this is not the token"), "{said}");
        json(&["status", "--node", cluster.address(n), "--token-file", &new.to_string_lossy()]);
    }
    let join_token = made["token"].as_str().expect("a token is text");
    let dir = cluster.folder().join("late").to_string_lossy().into_owned();
    let disk = format!("{dir}/disk:1G");
    let said = refused(&["join", join_token, "--dir", &dir, "--addr", "127.200.0.98", "--disk", &disk]);
    assert!(said.contains("holdfast token create"), "{said}");
    // One that was away gets it when it is back.
    cluster.start_node(3);
    until("the third has it, too", LIMIT, || token(&cluster, 3) == token(&cluster, 2));
    assert_eq!(cluster.events("admin-token-rotated").len(), 1);
    let secret = token(&cluster, 1).trim().split('.').nth(1).expect("a secret").to_owned();
    let all = cluster.json(2, &["events", "--last", "1000"]).to_string();
    assert!(!all.contains(&secret), "a secret stands in the event log");
}
