//! The grammar of `holdfast.toml`: its keys, what is allowed for each, and the text that `init` writes.

use super::{BUSY_POLL, Config, MAX_NAME, Ports, is_name, local_address};
use crate::data::POLL_MOST;
use holdfast_net::hello::DATA_PORT_OFFSET;
use holdfast_replication::ReadCheck;
use holdfast_types::Duration;
use serde::Deserialize;
use std::net::IpAddr;
use toml::Spanned;

/// Every key with its meaning: what `holdfast config explain` prints.
pub const EXPLANATION: &str = "\
# holdfast.toml, in the data folder of each node. Read when the daemon starts.

# The node's name: 1 to 63 of a-z, 0-9 and inner hyphens. Required.
name = \"alpha\"

# The IP address at which the other nodes reach this one. Required. To change it, stop the node, edit this
# line, start it: the node tells the others.
address = \"192.0.2.1\"

# How a read proves that no newer owner answers elsewhere; the same on every node. lease: by a lease, which costs
# nothing. quorum: by asking a write quorum of the copies, a round trip for each burst of reads; for hosts whose
# clock may stop, as that of a virtual machine that is paused.
reads = \"lease\"

# For how long, in microseconds, the thread that carries data polls before it sleeps, while I/O comes in quick
# succession and nobody else has use for its core: 0 (never) to 1000. It saves the time that a sleeping core takes
# to wake, and costs processor time.
busy_poll_us = 100

[ports]           # 1 to 65535, all different. The defaults:
node = 7400       # for the other nodes (mutual TLS); the next port, 7401, carries their I/O
api = 7402        # the API over TLS; needs the token in admin.token
metrics = 7403    # the metrics page, on this host only
iscsi = 3260      # iSCSI
nbd = 10809       # NBD

[listen]          # Where initiators are served. Default: this host only (the node's address when that is a
                  # loopback address, else 127.0.0.1).
iscsi = \"127.0.0.1\"   # Any other address of this host serves other hosts; iSCSI is then refused until
                      # `holdfast chap set` was done.
nbd = \"127.0.0.1\"     # NBD has no login: any other address serves everybody who reaches it.
";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileConfig {
    name: Spanned<String>,
    address: Spanned<String>,
    reads: Option<Spanned<String>>,
    busy_poll_us: Option<Spanned<i64>>,
    #[serde(default)]
    ports: FilePorts,
    #[serde(default)]
    listen: FileListen,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePorts {
    node: Option<Spanned<i64>>,
    api: Option<Spanned<i64>>,
    metrics: Option<Spanned<i64>>,
    iscsi: Option<Spanned<i64>>,
    nbd: Option<Spanned<i64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileListen {
    iscsi: Option<Spanned<String>>,
    nbd: Option<Spanned<String>>,
}

/// A line and what is wrong there.
type Mistake = (usize, String);

/// Reads the configuration.
pub(super) fn parse(text: &str) -> Result<Config, Mistake> {
    let file: FileConfig = toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(1, |span| line_of(text, span.start));
        (line, e.message().replace('\n', " "))
    })?;
    let at = |span: std::ops::Range<usize>, reason: String| (line_of(text, span.start), reason);
    let name = file.name.as_ref();
    if !is_name(name) {
        let reason = format!("name {name:?} is not 1 to {MAX_NAME} of a-z, 0-9 and inner hyphens");
        return Err(at(file.name.span(), reason));
    }
    let ip = |key: &str, value: &Spanned<String>| {
        let text = value.as_ref();
        let wrong =
            || at(value.span(), format!("{key} {text:?} is not an IP address, like 192.0.2.1 or ::1"));
        text.parse::<IpAddr>().map_err(|_| wrong())
    };
    let address = ip("address", &file.address)?;
    if address.is_unspecified() || address.is_multicast() {
        let reason = format!("address {address} is not one at which other nodes can reach this one");
        return Err(at(file.address.span(), reason));
    }
    let reads = match file.reads.as_ref().map(|value| (value.as_ref().as_str(), value.span())) {
        None | Some(("lease", _)) => ReadCheck::Lease,
        Some(("quorum", _)) => ReadCheck::Quorum,
        Some((other, span)) => {
            return Err(at(span, format!("reads {other:?} is neither \"lease\" nor \"quorum\"")));
        }
    };
    let busy_poll = match &file.busy_poll_us {
        None => BUSY_POLL,
        Some(given) => {
            let us = u64::try_from(*given.as_ref()).ok().filter(|us| *us <= POLL_MOST.as_micros());
            let most = POLL_MOST.as_micros();
            let wrong = || format!("busy_poll_us {} is not 0 to {most} microseconds", given.as_ref());
            Duration::from_micros(us.ok_or_else(|| at(given.span(), wrong()))?)
        }
    };
    let listen = |key: &str, value: &Option<Spanned<String>>| match value {
        Some(value) => ip(key, value),
        None => Ok(local_address(address)),
    };
    Ok(Config {
        name: name.clone(),
        address,
        reads,
        ports: ports(text, &file.ports)?,
        iscsi: listen("listen.iscsi", &file.listen.iscsi)?,
        nbd: listen("listen.nbd", &file.listen.nbd)?,
        busy_poll,
    })
}

fn ports(text: &str, file: &FilePorts) -> Result<Ports, Mistake> {
    let mut ports = Ports::default();
    let keys = [
        ("ports.node", &file.node, &mut ports.node),
        ("ports.api", &file.api, &mut ports.api),
        ("ports.metrics", &file.metrics, &mut ports.metrics),
        ("ports.iscsi", &file.iscsi, &mut ports.iscsi),
        ("ports.nbd", &file.nbd, &mut ports.nbd),
    ];
    let mut taken: Vec<(u16, &str, Option<usize>)> = Vec::new();
    for (key, given, slot) in keys {
        let line = given.as_ref().map(|g| line_of(text, g.span().start));
        if let Some(given) = given {
            let port = u16::try_from(*given.as_ref()).ok().filter(|p| *p > 0);
            let wrong = || (line.unwrap_or(1), format!("{key} {} is not a port, 1 to 65535", given.as_ref()));
            *slot = port.ok_or_else(wrong)?;
        }
        if let Some((port, other, at)) = taken.iter().find(|(port, ..)| port == slot) {
            // At most one of the two is a default, which has no line.
            let line = line.or(*at).unwrap_or(1);
            return Err((line, format!("{key} is {port}, and so is {other}: each needs its own")));
        }
        taken.push((*slot, key, line));
        if key == "ports.node" {
            let next = slot.checked_add(DATA_PORT_OFFSET);
            let none =
                || (line.unwrap_or(1), format!("{key} {slot} is too high: the next port is used, too"));
            taken.push((next.ok_or_else(none)?, "the port after ports.node", line));
        }
    }
    Ok(ports)
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|b| *b == b'\n').count()
}

/// The configuration as text, for `init` and `join`: only what differs from the defaults.
pub fn render(config: &Config) -> String {
    let mut text = String::from("# `holdfast config explain` says what can be set here.\n");
    text.push_str(&format!("name = \"{}\"\naddress = \"{}\"\n", config.name, config.address));
    if config.reads == ReadCheck::Quorum {
        text.push_str("reads = \"quorum\"\n");
    }
    if config.busy_poll != BUSY_POLL {
        text.push_str(&format!("busy_poll_us = {}\n", config.busy_poll.as_micros()));
    }
    let (ours, default) = (config.ports, Ports::default());
    let ports = [
        ("node", ours.node, default.node),
        ("api", ours.api, default.api),
        ("metrics", ours.metrics, default.metrics),
        ("iscsi", ours.iscsi, default.iscsi),
        ("nbd", ours.nbd, default.nbd),
    ];
    if ours != default {
        text.push_str("\n[ports]\n");
        let changed = ports.into_iter().filter(|(_, ours, default)| ours != default);
        changed.for_each(|(key, port, _)| text.push_str(&format!("{key} = {port}\n")));
    }
    let local = local_address(config.address);
    if config.iscsi != local || config.nbd != local {
        text.push_str(&format!("\n[listen]\niscsi = \"{}\"\nnbd = \"{}\"\n", config.iscsi, config.nbd));
    }
    text
}
