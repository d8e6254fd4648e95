//! `holdfast init`.

use crate::failure::Failure;
use crate::global::Context;
use crate::{output, value};
use clap::Args;
use holdfast_api::model::{InitReport, Token};
use holdfast_api::token::{JOIN_TOKEN_HOURS, JoinToken};
use holdfast_node::config::Ports;
use holdfast_node::setup::{self, DiskSpec, SetupOptions};
use std::net::IpAddr;

/// Options that init and join have in common.
#[derive(Args)]
pub struct SetupArguments {
    /// The IP address of this host at which the other nodes reach it
    #[arg(long, value_name = "IP")]
    pub addr: IpAddr,
    /// A disk to use: a device, or a file with the size to make it with. Repeat it for more
    #[arg(long, value_name = "PATH[:SIZE]", value_parser = disk)]
    pub disk: Vec<DiskSpec>,
    /// Destroy what is on the disks
    #[arg(long)]
    pub wipe_disk: bool,
    /// The name of this node [default: the name of the host]
    #[arg(long, value_name = "NAME", value_parser = value::name)]
    pub node_name: Option<String>,
}

impl SetupArguments {
    /// As the node's crate wants them.
    pub fn options(&self, context: &Context) -> SetupOptions {
        SetupOptions {
            dir: context.dir().path().to_owned(),
            address: self.addr,
            name: self.node_name.clone().unwrap_or_else(|| default_name(self.addr)),
            ports: Ports::default(),
            disks: self.disk.clone(),
            wipe: self.wipe_disk,
        }
    }
}

fn disk(text: &str) -> Result<DiskSpec, String> {
    text.parse().map_err(|e: setup::DiskSpecError| e.to_string())
}

/// The host's name as far as it can be one of ours; on a loopback address, where several nodes share a host,
/// one by the address.
fn default_name(address: IpAddr) -> String {
    if let (true, IpAddr::V4(v4)) = (address.is_loopback(), address) {
        return format!("node-{}", v4.octets()[3]);
    }
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy().to_lowercase();
    let host: String = host.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').take(63).collect();
    match value::name(&host) {
        Ok(name) => name,
        Err(_) => "node".to_owned(),
    }
}

/// The line by which another host joins.
pub fn join_command(token: &JoinToken) -> String {
    format!("holdfast join {token} --addr ADDRESS --disk PATH")
}

/// Make a new cluster; this host becomes its first node
#[derive(Args)]
#[command(after_help = "Examples:
  holdfast init --addr 192.0.2.1 --disk /dev/sdb --name lab
  holdfast init --dir ./one --addr 127.0.0.1 --disk ./one/disk0:6G
  holdfast --json init --addr 192.0.2.1 --disk /dev/sdb | jq -r .token.command")]
pub struct Init {
    /// The name of the cluster
    #[arg(long, default_value = "holdfast", value_name = "CLUSTER", value_parser = value::name)]
    name: String,
    #[command(flatten)]
    setup: SetupArguments,
}

impl Init {
    /// Runs it.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let options = self.setup.options(context);
        let bar = output::progress(0, context.json());
        bar.set_message("reserving disk space");
        let done = setup::init(&options, &self.name, &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        let done = done?;
        let dir = options.dir.display().to_string();
        let command = join_command(&done.token);
        if context.json() {
            let token = Token { token: done.token.to_string(), expires_ms: done.token_expires_ms, command };
            return output::json(&InitReport {
                cluster: done.cluster.to_string(),
                name: self.name,
                dir,
                token,
            });
        }
        output::line(&format!(
            "Cluster {} is made; this host is its node 1, {}.\n\n\
             Start its daemon:\n  holdfast node run --dir {dir}\n\n\
             Then, on the next host (once, within {JOIN_TOKEN_HOURS} hours; `holdfast token create` makes another):\n  \
             {command}",
            self.name, options.name
        ))
    }
}
