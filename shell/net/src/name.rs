//! The names in certificates. A node's certificate says `node-<id>.<cluster>.holdfast` and
//! `api.<cluster>.holdfast`, the cluster as 32 hexadecimal digits: the first is who it is to its peers, the
//! second what a client of the API asks for, to whom every node is as good. Addresses are never in there.

use holdfast_types::{ClusterId, NodeId};
use rustls_pki_types::ServerName;

const SUFFIX: &str = "holdfast";

/// The name of a node to its peers.
pub fn node_name(cluster: ClusterId, node: NodeId) -> String {
    format!("node-{node}.{cluster}.{SUFFIX}")
}

/// The name that every node of the cluster answers to as the API.
pub fn api_name(cluster: ClusterId) -> String {
    format!("api.{cluster}.{SUFFIX}")
}

/// The node and the cluster that a certificate's name says.
pub fn parse_node_name(name: &str) -> Option<(ClusterId, NodeId)> {
    let (first, cluster) = split(name)?;
    let digits = first.strip_prefix("node-")?;
    let node = digits.parse::<u16>().ok().filter(|n| *n > 0 && n.to_string() == digits)?;
    Some((cluster, NodeId(node)))
}

/// The cluster that an API name says.
pub fn parse_api_name(name: &str) -> Option<ClusterId> {
    split(name).filter(|(first, _)| *first == "api").map(|(_, cluster)| cluster)
}

fn split(name: &str) -> Option<(&str, ClusterId)> {
    let mut parts = name.split('.');
    let (first, cluster, suffix) = (parts.next()?, parts.next()?, parts.next()?);
    let well_formed = cluster.len() == 32 && cluster.bytes().all(|b| b.is_ascii_hexdigit());
    if suffix != SUFFIX || parts.next().is_some() || !well_formed {
        return None;
    }
    Some((first, ClusterId(u128::from_str_radix(cluster, 16).ok()?)))
}

/// `name` as TLS wants it. Names made by this module are always valid DNS names.
pub(crate) fn server_name(name: String) -> ServerName<'static> {
    // Labels of letters, digits and inner hyphens, each at most 32 characters long: a DNS name.
    ServerName::try_from(name).expect("names of this module are DNS names")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_name_reads_back_as_it_was_made() {
        let cluster = ClusterId(0x00ab);
        assert_eq!(parse_node_name(&node_name(cluster, NodeId(7))), Some((cluster, NodeId(7))));
        assert_eq!(parse_api_name(&api_name(cluster)), Some(cluster));
        let _ = server_name(node_name(ClusterId(u128::MAX), NodeId(u16::MAX)));
    }

    #[test]
    fn names_that_are_not_ours_say_nothing() {
        let c = "000000000000000000000000000000ab";
        for bad in [
            format!("node-0.{c}.holdfast"),
            format!("node-07.{c}.holdfast"),
            format!("node-65536.{c}.holdfast"),
            format!("node-1.{c}.example"),
            format!("node-1.{c}.holdfast.example"),
            "node-1.ab.holdfast".into(),
            format!("node-1.+{}.holdfast", &c[1..]),
            String::new(),
        ] {
            assert_eq!(parse_node_name(&bad), None, "{bad}");
        }
    }
}
