//! A planned stop, in the order in which nobody waits for it: ownership goes to other nodes, without a wait for
//! leases; then the lead of the consensus group; then control is told that this node is gone, so that volumes with two
//! copies go on with the other one before it is; then, when no write waits for this node's disks any more, everything
//! is written back.
//!
//! What does not come about in time is left to failure detection, which loses nothing either.

use super::Shared;
use holdfast_cluster::{Command, NodeState};
use holdfast_engine::Input;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long a clean stop may take before it becomes an unclean one.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// How long ownership is handed over.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(3);
/// How long the others may take to do without this node's copies.
const LET_GO_WITHIN: Duration = Duration::from_secs(1);
/// Between looks at how much is still owned.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Hands over what this node owns, writes everything back, and leaves consensus in order.
pub async fn stop(shared: &Shared) {
    let clean = async {
        let began = Instant::now();
        let announced = announce(shared).await;
        if announced {
            hand_over(shared).await;
        }
        let owned = began.elapsed();
        shared.control.hand_over_lead(&BTreeSet::new()).await;
        let led = began.elapsed();
        if announced {
            let_go(shared).await;
        }
        let free = began.elapsed();
        shared.data.checkpoint().await;
        tracing::info!(?owned, ?led, ?free, written = ?began.elapsed(), "handed over");
        shared.events.stopped();
        shared.control.stop().await;
    };
    if timeout(STOP_WITHIN, clean).await.is_err() {
        tracing::warn!("the clean stop took too long; stopping as it is");
    }
}

/// Tells control that this node is about to stop. False: nobody is there to take over.
async fn announce(shared: &Shared) -> bool {
    let map = shared.map();
    let Some(node) = map.nodes.get(&shared.node) else { return false };
    let others = map.nodes.values().any(|n| n.id != shared.node && n.state == NodeState::Up);
    let command = Command::NodeStopping { node: shared.node, incarnation: node.incarnation };
    others && shared.control.propose(command).await.is_ok()
}

async fn hand_over(shared: &Shared) {
    let until = Instant::now() + HAND_OVER_WITHIN;
    let mut left = 0;
    while Instant::now() < until {
        let owned = shared.data.status().await.map_or(0, |s| s.owned.len());
        if owned == 0 {
            return;
        }
        // What was being activated, or had another grant under way, is asked for again.
        if owned >= left {
            shared.data.input(Input::HandOver);
        }
        left = owned;
        sleep(LOOK_AGAIN).await;
    }
}

/// Says that this run has ended while it still answers, and waits until no write needs a copy of this node's.
async fn let_go(shared: &Shared) {
    let map = shared.map();
    let Some(node) = map.nodes.get(&shared.node) else { return };
    let command = Command::NodeDown { node: shared.node, incarnation: node.incarnation };
    if shared.control.propose(command).await.is_err() {
        return;
    }
    let mut maps = shared.control.map();
    let gone = maps.wait_for(|map| !map.is_needed(shared.node));
    // Where it stays needed, as with one copy, nobody can do anything.
    let _ = timeout(LET_GO_WITHIN, gone).await;
}
