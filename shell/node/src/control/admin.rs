//! The admin token of the API. Once it was replaced, the map has the hash of the one that counts, and each node takes
//! that one at once; the token itself goes from node to node, for the file that operators use, and is in no log.

use super::Shared;
use super::backend::{NodeAnswer, NodeBackend, NodeRequest};
use anyhow::Context;
use holdfast_api::token::AdminToken;
use holdfast_cluster::TokenHash;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Between questions for a token that this node does not have yet.
const AGAIN: Duration = Duration::from_secs(1);

/// This node's token, if it is the one that counts.
pub fn current(shared: &Shared) -> Option<AdminToken> {
    let token = shared.dir.load_admin_token().ok()?;
    let counts = shared.map().admin_token;
    counts.is_none_or(|hash| TokenHash(token.secret.hash()) == hash).then_some(token)
}

/// Follows the map for as long as this node runs.
pub async fn keep(shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut maps = shared.control.map();
    let mut settled = None;
    loop {
        let counts = maps.borrow_and_update().admin_token;
        if let Some(hash) = counts {
            shared.accepted.replace(hash.0);
        }
        if settled != counts && (current(&shared).is_some() || fetch(&shared).await) {
            settled = counts;
        }
        if settled == counts {
            maps.changed().await.context("consensus has ended")?;
        } else if let Ok(ended) = timeout(AGAIN, maps.changed()).await {
            ended.context("consensus has ended")?;
        }
    }
}

/// Asks the others for the token that counts. Whether this node has it now.
async fn fetch(shared: &Arc<Shared>) -> bool {
    let others: Vec<_> = shared.map().nodes.keys().copied().filter(|n| *n != shared.node).collect();
    for node in others {
        let answer = NodeBackend(shared.clone()).ask(node, &NodeRequest::AdminToken).await;
        let Ok(NodeAnswer::AdminToken(Some(text))) = answer else { continue };
        let Ok(token) = text.parse::<AdminToken>() else { continue };
        if Some(TokenHash(token.secret.hash())) != shared.map().admin_token {
            continue;
        }
        match shared.dir.save_admin_token(&token) {
            Ok(()) => return true,
            Err(error) => tracing::error!(%error, "the new admin token is not saved"),
        }
    }
    false
}
