//! A node's data folder cannot be written: its file system is full, or its disk hangs. What control decides is not kept there
//! then. The daemon and its sessions live, its initiators' I/O goes on by what the others know, and everybody is told.

use holdfast_tests::cluster::{Cluster, Options};
use holdfast_tests::powered::Powered;
use holdfast_tests::preload::Flushes;
use holdfast_tests::small_fs::SmallFs;
use holdfast_tests::writer::{Plan, Report, Writer};
use holdfast_tests::{succeed, until};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// As for the loss of an owner's host; a test fails above three times that.
const GOAL: Duration = Duration::from_secs(3);
const TOLERANCE: u32 = 3;
const LIMIT: Duration = Duration::from_secs(60);
const TOLD: &str = "cannot write what control decides";

/// One through each node. A connection that breaks is an error.
fn writers(cluster: &Cluster, round: u64) -> [Writer; 3] {
    // Each has blocks of its own: it knows what they held before, nothing.
    [1, 2, 3]
        .map(|n| Writer::start(Plan { first: (3 * round + n as u64) << 14, ..Plan::through(cluster, n) }))
}

fn wait_more(writers: &[Writer], count: u64) {
    writers.iter().for_each(|w| w.wait_more(count, LIMIT));
}

/// No initiator saw an error; the longest wait since then.
fn judge(cluster: &Cluster, writers: [Writer; 3], since: Instant) -> Duration {
    let reports: [Report; 3] = writers.map(Writer::stop);
    reports.iter().for_each(|report| report.assert_kept(cluster, &[1, 2, 3]));
    reports.iter().map(|r| r.longest_wait_since(since)).max().expect("three")
}

fn is_told(cluster: &Cluster, asked: usize) -> bool {
    cluster.json(asked, &["status"])["problems"].to_string().contains(TOLD)
}

/// A node's data folder on a small file system of its own.
struct SmallFolder(SmallFs);

impl SmallFolder {
    /// Moves what is in `dir` there.
    fn over(dir: &Path) -> SmallFolder {
        let aside = dir.with_extension("aside");
        fs::rename(dir, &aside).expect("the folder can be moved");
        let small = SmallFs::mount(dir, 16);
        succeed("cp", &["-a", &aside.join(".").display().to_string(), &dir.display().to_string()]);
        SmallFolder(small)
    }

    /// Leaves no room.
    fn fill(&self) {
        let chunk = vec![1; 4096];
        let mut file = fs::File::create(self.0.path().join("fill")).expect("the file can be made");
        while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.path().join("fill")).expect("the file is there");
    }
}

#[test]
fn a_full_data_folder_ends_no_daemon_and_no_session_and_is_written_again_when_there_is_room() {
    let powered = Powered::new();
    let mut cluster = Cluster::with(powered.options());
    let leader = cluster.leader();
    let mut folders = Vec::new();
    for (round, victim) in [leader, leader % 3 + 1].into_iter().enumerate() {
        cluster.kill(victim);
        let folder = SmallFolder::over(cluster.dir(victim));
        cluster.start_node(victim);
        cluster.wait_healthy();
        let writers = writers(&cluster, round as u64);
        wait_more(&writers, 100);
        let (pid, moment) = (cluster.pid(victim), Instant::now());
        folder.fill();
        let asked = victim % 3 + 1;
        let mut changes = 0;
        until("what control decides finds no room", LIMIT, || {
            changes += 1;
            let name = format!("v{changes}");
            // The leader that finds no room may have to be replaced first.
            let made = cluster.try_cli(asked, &["volume", "create", &name, "--size", "64M"]);
            if made.is_ok() {
                let _ = cluster.try_cli(asked, &["volume", "rm", &name, "--yes"]);
            }
            is_told(&cluster, asked)
        });
        assert!(is_told(&cluster, victim), "it says so itself");
        wait_more(&writers, 500);
        until("a change is made without it", LIMIT, || {
            cluster.try_cli(asked, &["volume", "create", "without", "--size", "64M"]).is_ok()
                || cluster.json(asked, &["volume", "ls"]).to_string().contains("without")
        });
        folder.free();
        until("it is written again", LIMIT, || !is_told(&cluster, asked) && !is_told(&cluster, victim));
        cluster.wait_event("control-unwritten", "cannot be written", "No space left");
        until("the event log tells of it", LIMIT, || !cluster.events("control-written").is_empty());
        until("it knows what was decided", LIMIT, || {
            cluster.json(victim, &["volume", "ls"]).to_string().contains("without")
        });
        cluster.cli(asked, &["volume", "rm", "without", "--yes"]);
        cluster.wait_healthy();
        assert!(cluster.lives(victim) && cluster.pid(victim) == pid, "the daemon went on");
        let stall = judge(&cluster, writers, moment);
        println!("a full data folder after {changes} changes: the longest wait was {stall:.3?}");
        assert!(stall <= GOAL * TOLERANCE, "it took {stall:?}");
        folders.push(folder);
    }
    cluster.assert_copies_equal();
    cluster.kill_all();
    // Before the cluster's own folder is deleted.
    drop(folders);
}

/// One disk for everything, and it hangs: the host has its processor, its network and its machines, and nothing else.
#[test]
fn the_machines_of_a_host_whose_only_disk_hangs_go_on_with_the_others_copies() {
    let powered = Powered::new();
    let (flushes, environment) = Flushes::new(powered.folder());
    let mut cluster = Cluster::with(Options { alone: true, environment, ..powered.options() });
    let victim = cluster.leader();
    cluster.make_owner(victim);
    let writers = writers(&cluster, 0);
    wait_more(&writers, 500);
    let (pid, moment) = (cluster.pid(victim), Instant::now());
    flushes.hang(pid);
    let hung = powered.hang(victim);
    wait_more(&writers, 500);
    let asked = victim % 3 + 1;
    until("everybody is told", LIMIT, || is_told(&cluster, asked) && is_told(&cluster, victim));
    cluster.wait_behind(victim);
    assert_ne!(cluster.owner(0), victim);
    flushes.do_well(pid);
    drop(hung);
    until("it is written again", LIMIT, || !is_told(&cluster, asked) && !is_told(&cluster, victim));
    cluster.wait_healthy();
    wait_more(&writers, 300);
    assert!(cluster.lives(victim) && cluster.pid(victim) == pid, "the daemon went on");
    let stall = judge(&cluster, writers, moment);
    println!(
        "everything of a host but its processor and network hung: the longest wait, there too, was {stall:.3?}"
    );
    assert!(stall <= GOAL * TOLERANCE, "it took {stall:?}");
    cluster.assert_copies_equal();
}
