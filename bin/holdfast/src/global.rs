//! Options of every command, and the way to a node that they choose.

use crate::failure::Failure;
use clap::Args;
use holdfast_api::Client;
use holdfast_node::config::{DEFAULT_DIR, DataDir, Ports};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Options of every command.
#[derive(Args)]
pub struct Global {
    /// The data folder of a node on this host; its socket is asked
    #[arg(long, global = true, default_value = DEFAULT_DIR, env = "HOLDFAST_DIR", value_name = "DIR")]
    pub dir: PathBuf,
    /// Ask the node with this address instead, over TLS
    #[arg(long, global = true, value_name = "IP[:PORT]", value_parser = api_address)]
    pub node: Option<SocketAddr>,
    /// With --node: a copy of admin.token from the data folder of a node
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// What a command runs in.
pub struct Context {
    global: Global,
}

impl Context {
    /// From the options.
    pub fn new(global: Global) -> Self {
        Self { global }
    }
    /// Whether to print JSON.
    pub fn json(&self) -> bool {
        self.global.json
    }
    /// The data folder.
    pub fn dir(&self) -> DataDir {
        DataDir::new(self.global.dir.clone())
    }
    /// The client for the node that the options choose.
    pub fn client(&self) -> Result<Client, Failure> {
        let Some(address) = self.global.node else {
            return Ok(Client::unix(&self.dir().api_socket()));
        };
        let path = self.global.token_file.clone().ok_or(Failure::NoTokenFile)?;
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|source| Failure::File { path: path.clone(), source })?;
        let token = text.parse().map_err(|source| Failure::TokenFile { path, source })?;
        Ok(Client::tls(address, token))
    }
    /// Runs what asks a node.
    pub fn wait<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(Failure::Runtime)?.block_on(work)
    }
    /// Asks a node one thing.
    pub fn ask<T, F>(&self, question: impl FnOnce(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, holdfast_api::ApiError>>,
    {
        let client = self.client()?;
        self.wait(async { Ok(question(client).await?) })
    }
}

fn api_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, Ports::default().api));
    }
    text.parse()
        .map_err(|_| "not an IP address, alone or with a port, like 192.0.2.1 or [::1]:7402".to_owned())
}
