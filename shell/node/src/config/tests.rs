//! Tests of the data folder and the configuration.

use super::*;
use holdfast_net::Member;
use holdfast_types::KeyHash;

fn folder_with(text: &str) -> (tempfile::TempDir, DataDir) {
    let folder = tempfile::tempdir().unwrap();
    let dir = DataDir::new(folder.path());
    fs::write(dir.config_file(), text).unwrap();
    (folder, dir)
}

fn mistake(text: &str) -> String {
    let (folder, dir) = folder_with(text);
    let error = dir.load_config().unwrap_err().to_string();
    error.replace(&folder.path().display().to_string(), "DIR")
}

#[test]
fn what_init_writes_reads_back_the_same() {
    for (address, ports) in
        [("127.0.0.2", Ports::default()), ("192.0.2.9", Ports { api: 9, ..Ports::default() })]
    {
        let mut config = Config::new("alpha".into(), address.parse().unwrap());
        config.ports = ports;
        config.reads = ReadCheck::Quorum;
        config.busy_poll = Duration::ZERO;
        assert_eq!(file::parse(&render(&config)), Ok(config.clone()));
        config.iscsi = "192.0.2.9".parse().unwrap();
        assert_eq!(file::parse(&render(&config)), Ok(config));
    }
}

#[test]
fn the_explanation_is_itself_a_valid_configuration_of_defaults() {
    let config = file::parse(EXPLANATION).unwrap();
    assert_eq!(config, Config::new("alpha".into(), "192.0.2.1".parse().unwrap()));
}

#[test]
fn initiators_are_served_on_this_host_unless_told_otherwise() {
    let remote = Config::new("a".into(), "192.0.2.1".parse().unwrap());
    assert_eq!(remote.iscsi_address().to_string(), "127.0.0.1:3260");
    assert!(!remote.iscsi_needs_chap());
    let local = Config::new("a".into(), "127.0.0.3".parse().unwrap());
    assert_eq!(local.nbd_address().to_string(), "127.0.0.3:10809");
    let open = file::parse("name='a'\naddress='192.0.2.1'\n[listen]\niscsi='0.0.0.0'").unwrap();
    assert!(open.iscsi_needs_chap());
}

#[test]
fn every_mistake_is_named_with_its_line_and_what_is_allowed() {
    let head = "name = \"a\"\naddress = \"127.0.0.1\"\n";
    let mistakes: Vec<String> = [
        "address = \"127.0.0.1\"\n".to_owned(),
        "name = \"A b\"\naddress = \"127.0.0.1\"\n".to_owned(),
        "name = \"a\"\naddress = \"localhost\"\n".to_owned(),
        "name = \"a\"\naddress = \"0.0.0.0\"\n".to_owned(),
        format!("{head}reads = \"any\"\n"),
        format!("{head}busy_poll_us = 1001\n"),
        format!("{head}busy_poll_us = -1\n"),
        format!("{head}colour = \"red\"\n"),
        format!("{head}[ports]\nnode = 70000\n"),
        format!("{head}[ports]\nnode = 7402\n"),
        format!("{head}[ports]\nnode = 65535\n"),
        format!("{head}[ports]\nnbd = 7401\n"),
        format!("{head}[ports]\nssh = 22\n"),
        format!("{head}[listen]\nnbd = 7\n"),
        format!("{head}[ports\n"),
    ]
    .iter()
    .map(|text| mistake(text))
    .collect();
    insta::assert_snapshot!(mistakes.join("\n"));
}

#[test]
fn a_folder_without_configuration_says_how_to_make_one() {
    let folder = tempfile::tempdir().unwrap();
    let error = DataDir::new(folder.path()).load_config().unwrap_err();
    assert!(matches!(error, ConfigError::NotSetUp { .. }));
    assert!(error.to_string().contains("holdfast init"));
}

#[test]
fn a_damaged_disks_file_falls_back_to_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let dir = DataDir::new(folder.path());
    assert_eq!(dir.load_disks().unwrap(), []);
    let one = LocalDisk { path: "/dev/one".into(), id: DiskId(1) };
    let two = LocalDisk { path: "/dev/two".into(), id: DiskId(u128::MAX) };
    dir.save_disks(std::slice::from_ref(&one)).unwrap();
    dir.save_disks(&[one.clone(), two.clone()]).unwrap();
    assert_eq!(dir.load_disks().unwrap(), [one.clone(), two]);
    let text = fs::read_to_string(dir.disks_file()).unwrap();
    fs::write(dir.disks_file(), text.replace("/dev/two", "/dev/tvo")).unwrap();
    assert_eq!(dir.load_disks().unwrap(), [one]);
    fs::write(atomic::previous_path(&dir.disks_file()), "").unwrap();
    assert!(matches!(dir.load_disks(), Err(ConfigError::Checked(CheckedError::Corrupt { .. }))));
}

#[test]
fn bootstrap_reads_back_and_is_gone_once_done() {
    let folder = tempfile::tempdir().unwrap();
    let dir = DataDir::new(folder.path());
    let bootstrap = Bootstrap {
        cluster: ClusterId(77),
        cluster_name: "c".into(),
        node: NodeId(2),
        disks: vec![LocalDisk { path: "/d".into(), id: DiskId(3) }],
        pool: DEFAULT_POOL.into(),
        start: Start::Join,
    };
    dir.save_bootstrap(&bootstrap).unwrap();
    dir.save_bootstrap(&bootstrap).unwrap();
    assert_eq!(dir.load_bootstrap().unwrap(), Some(bootstrap));
    dir.remove_bootstrap().unwrap();
    assert_eq!(dir.load_bootstrap().unwrap(), None);
}

#[test]
fn members_read_back_and_a_key_that_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = DataDir::new(folder.path());
    assert_eq!(dir.load_members().unwrap(), None);
    let member = Member { address: "10.0.0.1:7400".into(), key: KeyHash([0xab; 32]) };
    let members = Roster { version: 3, next_node: 2, members: [(NodeId(1), member)].into() };
    dir.save_members(&members).unwrap();
    assert_eq!(dir.load_members().unwrap(), Some(members));
    let text = atomic::read_checked(&dir.members_file()).unwrap().content;
    let key = "ab".repeat(32);
    assert!(text.contains(&key), "{text}");
    for bad in ["", &key[1..], &key.replace("ab", "+b"), &key.replace("ab", "ä")] {
        let changed = text.replace(&key, bad);
        assert!(serde_json::from_str::<Roster>(&changed).is_err(), "{bad}");
    }
}

#[test]
fn a_second_daemon_on_the_same_folder_is_refused_until_the_first_ends() {
    let folder = tempfile::tempdir().unwrap();
    let dir = DataDir::new(folder.path());
    let lock = dir.lock().unwrap();
    assert!(matches!(dir.lock(), Err(ConfigError::InUse { .. })));
    drop(lock);
    dir.lock().unwrap();
}

#[test]
fn names_are_short_lower_case_words() {
    for good in ["a", "node-1", "0", &"x".repeat(MAX_NAME)] {
        assert!(is_name(good), "{good}");
    }
    for bad in ["", "-a", "a-", "A", "a.b", "ä", "a b", &"x".repeat(MAX_NAME + 1)] {
        assert!(!is_name(bad), "{bad}");
    }
}
