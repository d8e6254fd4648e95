//! Join tokens: known by the hash of their secret, spent once. The admin token: known by its hash once it was replaced.

use super::{Changed, Outcome, check_limit, nodes};
use crate::{
    ClusterMap, CommandError, MAX_TOKENS, NewNode, Node, SingleResult, Token, TokenHash, UnixSeconds,
};
use holdfast_types::ProcessIncarnation;

pub(super) fn create(map: &mut ClusterMap, hash: TokenHash, expires: UnixSeconds) -> Outcome {
    if map.tokens.contains_key(&hash) {
        return Ok((SingleResult::Done, Changed::No));
    }
    if map.tokens.len() >= MAX_TOKENS {
        // A spent token is kept only to answer a repeat; the ones that end first make room.
        let spent = map.tokens.iter().filter(|(_, t)| t.used.is_some());
        if let Some(oldest) = spent.min_by_key(|(_, t)| t.expires).map(|(h, _)| *h) {
            map.tokens.remove(&oldest);
        }
    }
    check_limit("unused join tokens", map.tokens.len(), MAX_TOKENS)?;
    map.tokens.insert(hash, Token { expires, used: None });
    Ok((SingleResult::Done, Changed::Yes))
}

pub(super) fn spend(map: &mut ClusterMap, hash: TokenHash, now: UnixSeconds, new: NewNode) -> Outcome {
    let token = map.tokens.get(&hash).ok_or(CommandError::NoSuchToken)?;
    if let Some(by) = token.used {
        let is_repeat = |n: &&mut Node| (&n.name, &n.address) == (&new.name, &new.address);
        return match map.nodes.get_mut(&by).filter(is_repeat) {
            Some(node) if node.key == new.key => Ok((SingleResult::Node(by), Changed::No)),
            // Tried again before the node ever ran. From then on it is who it is.
            Some(node) if node.incarnation == ProcessIncarnation(0) => {
                node.key = new.key;
                Ok((SingleResult::Node(by), Changed::Yes))
            }
            _ => Err(CommandError::TokenUsed { by }),
        };
    }
    if token.expires <= now {
        return Err(CommandError::TokenExpired);
    }
    nodes::check_new(map, &new)?;
    let node = nodes::admit(map, new);
    // Expired tokens are of no use to anyone.
    map.tokens.retain(|h, t| *h == hash || t.expires > now);
    if let Some(token) = map.tokens.get_mut(&hash) {
        token.used = Some(node);
    }
    Ok((SingleResult::Node(node), Changed::Yes))
}

/// Whoever knew the token before may have made join tokens with it.
pub(super) fn rotate_admin(map: &mut ClusterMap, hash: TokenHash) -> Outcome {
    if map.admin_token == Some(hash) {
        return Ok((SingleResult::Done, Changed::No));
    }
    map.tokens.retain(|_, token| token.used.is_some());
    map.admin_token = Some(hash);
    Ok((SingleResult::Done, Changed::Yes))
}
