//! Handing the lead over, before a planned stop or where this node's disk is slow. openraft 0.9 has no such message; it has the parts. Voters refuse
//! every candidate until the leader's lease has run out, counted from the leader's last append. So the leader sends
//! no more heartbeats, serves on, and once nothing was appended for the length of a lease asks the follower with the
//! longest log to stand: that one wins at once, where a lost leader costs the lease and a random wait besides, and
//! proposals are only refused for the moment of the election.

use crate::Control;
use crate::raft_types::node_id;
use crate::wire::Request;
use futures::future::{BoxFuture, FutureExt};
use holdfast_cluster::NodeState;
use holdfast_types::NodeId;
use openraft::ServerState;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// A lease that was not left alone for so long is not waited for any more.
const QUIET_WITHIN: Duration = Duration::from_secs(2);
/// How long the election may take.
const ELECTED_WITHIN: Duration = Duration::from_secs(1);
/// Voters measure the lease by their own clocks, from when an append arrives.
const MARGIN: Duration = Duration::from_millis(20);

impl Control {
    /// Hands the lead to another voter than these, if this node leads and there is one. Whether another node leads now.
    pub fn hand_over_lead<'a>(&'a self, not_to: &'a BTreeSet<NodeId>) -> BoxFuture<'a, bool> {
        async move {
            if !self.is_leader() || self.successor(not_to).is_none() {
                return false;
            }
            self.raft.runtime_config().heartbeat(false);
            let handed = self.quiet().await && self.succeeded(not_to).await;
            // Who goes on to lead has to say so.
            self.raft.runtime_config().heartbeat(true);
            handed
        }
        .boxed()
    }

    /// Waits until nothing was appended for the length of a lease. False: that does not come about in time.
    async fn quiet(&self) -> bool {
        let (lease, end) = (self.timings().election_max + MARGIN, Instant::now() + QUIET_WITHIN);
        let mut metrics = self.raft.metrics();
        while self.is_leader() && Instant::now() + lease <= end {
            let last = metrics.borrow_and_update().last_log_index;
            let other = metrics.wait_for(|m| m.last_log_index != last || m.state != ServerState::Leader);
            match timeout(lease, other).await {
                Err(_) => return true,
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return false,
            }
        }
        false
    }

    async fn succeeded(&self, not_to: &BTreeSet<NodeId>) -> bool {
        let Some(successor) = self.successor(not_to) else { return false };
        let address = self.peers.address(successor, &self.listed_address(successor));
        let asked = self.peers.call(successor, address, &Request::Elect, ELECTED_WITHIN).await;
        let me = self.node();
        let mut metrics = self.raft.metrics();
        let other = metrics.wait_for(|m| m.current_leader.is_some_and(|leader| node_id(leader) != me));
        asked.is_ok() && timeout(ELECTED_WITHIN, other).await.is_ok_and(|known| known.is_ok())
    }

    /// Of the other voters that are up, but for these, the one whose log is longest.
    fn successor(&self, not_to: &BTreeSet<NodeId>) -> Option<NodeId> {
        let map = self.map().borrow().clone();
        let up = |n: &NodeId| map.nodes.get(n).is_some_and(|node| node.state == NodeState::Up);
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let voters = metrics.membership_config.membership().voter_ids();
        let others = voters
            .map(|id| (id, node_id(id)))
            .filter(|(_, n)| *n != self.node() && up(n) && !not_to.contains(n));
        let log = |id: &u64| metrics.replication.as_ref().and_then(|r| r.get(id).copied().flatten());
        others.max_by_key(|(id, _)| log(id).map(|end| end.index)).map(|(_, node)| node)
    }
}
