//! Hosts of their own: each node of a cluster in a network namespace with one interface, all of them on one bridge, so
//! that what a switch, a cable or a firewall does can be done to them.
//!
//! A test that has them runs once more as a process of its own in new namespaces of network and mounts, which the
//! kernel takes away with it, however it ends: the machine's own network is not touched. That needs root, or a kernel
//! that lets users have namespaces.
//!
//! Where a host is to be reached only from itself, its address names the namespace: `127.0.0.1%host2`. Who connects
//! there enters it first, the calling thread for good.

use crate::command::succeed;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;

/// Set in the process that runs the test itself.
const ISOLATED: &str = "HOLDFAST_TEST_ISOLATED";
const NETWORK: &str = "10.77.0";
const SWITCH: &str = "switch";

/// What is wrong between two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing passes.
    All,
    /// Small packets pass: something on the way has another idea of how large they may be.
    Large,
    /// All passes but what is for the port of data.
    DataPort,
    /// One packet in ten that comes in is lost, as on a bad cable. What goes out is not: the kernel would know.
    Loss,
}

/// Runs `test`, of that name, with a network of its own.
pub fn isolated(name: &str, test: impl FnOnce()) {
    if std::env::var_os(ISOLATED).is_some() {
        // `ip netns` keeps its names there.
        succeed("mount", &["-t", "tmpfs", "tmpfs", "/run"]);
        return test();
    }
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount"]);
    if succeed("id", &["-u"]).trim() != "0" {
        command.args(["--user", "--map-root-user"]);
    }
    let me = std::env::current_exe().expect("a process knows its file");
    command.arg("--").arg(me).args(["--exact", name, "--nocapture"]).env(ISOLATED, "1");
    let status = command.status().expect("unshare(1) of util-linux runs");
    assert!(
        status.success(),
        "{name} failed in its own network; without root it needs namespaces of users (on Ubuntu 24.04 \
         kernel.apparmor_restrict_unprivileged_userns=0)"
    );
}

/// Hosts on one switch, numbered from 1.
#[derive(Default)]
pub struct Hosts {
    count: usize,
}

impl Hosts {
    /// One more host, on the switch with the others.
    pub fn add(&mut self) -> usize {
        if self.count == 0 {
            succeed("ip", &["netns", "add", SWITCH]);
            succeed("ip", &["-n", SWITCH, "link", "add", "bridge", "type", "bridge"]);
            succeed("ip", &["-n", SWITCH, "link", "set", "bridge", "up"]);
        }
        self.count += 1;
        let (host, port) = (name(self.count), format!("port{}", self.count));
        succeed("ip", &["netns", "add", &host]);
        let peer = ["peer", "name", &port, "netns", SWITCH];
        succeed("ip", &[&["link", "add", "net", "netns", &host, "type", "veth"][..], &peer].concat());
        succeed("ip", &["-n", SWITCH, "link", "set", &port, "master", "bridge", "up"]);
        let address = format!("{}/24", address(self.count));
        succeed("ip", &["-n", &host, "address", "add", &address, "dev", "net"]);
        for link in ["lo", "net"] {
            succeed("ip", &["-n", &host, "link", "set", link, "up"]);
        }
        self.count
    }

    /// Does that between a host and the others given.
    pub fn cut(&self, host: usize, from: &[usize], cut: Cut) {
        let which = match cut {
            Cut::All => "",
            Cut::Large => "meta length > 1000",
            Cut::DataPort => "tcp dport 7401",
            Cut::Loss => "numgen random mod 10 == 0",
        };
        let hooks = [("input", "saddr"), ("output", "daddr")];
        let hooks = if cut == Cut::Loss { &hooks[..1] } else { &hooks[..] };
        let mut rules = String::from("table inet cut {");
        for (hook, what) in hooks {
            rules += &format!("chain {hook} {{ type filter hook {hook} priority 0;");
            for other in from {
                rules += &format!(" ip {what} {} {which} drop;", address(*other));
            }
            rules += " };";
        }
        succeed("ip", &["netns", "exec", &name(host), "nft", &(rules + " }")]);
    }

    /// Ends whatever was done at a host.
    pub fn heal(&self, host: usize) {
        succeed("ip", &["netns", "exec", &name(host), "nft", "flush ruleset"]);
    }
}

/// A host's namespace.
pub fn name(host: usize) -> String {
    format!("host{host}")
}

/// Where the other hosts reach it.
pub fn address(host: usize) -> String {
    format!("{NETWORK}.{host}")
}

/// Where it reaches itself.
pub fn loopback(host: usize) -> String {
    format!("127.0.0.1%{}", name(host))
}

/// The address to connect to, the calling thread in the namespace that it names.
pub fn enter(address: &str) -> &str {
    let Some((address, name)) = address.split_once('%') else { return address };
    let namespace = File::open(format!("/run/netns/{name}")).expect("the host was made");
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("who made a namespace may enter it");
    address
}
