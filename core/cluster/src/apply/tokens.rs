//! Join tokens: known by the hash of their secret, spent once.

use super::{Changed, Outcome, check_limit, nodes};
use crate::{ClusterMap, CommandError, MAX_TOKENS, SingleResult, Token, TokenHash, UnixSeconds};
use alloc::string::String;

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

pub(super) fn spend(
    map: &mut ClusterMap,
    hash: TokenHash,
    now: UnixSeconds,
    name: String,
    address: String,
) -> Outcome {
    let token = map.tokens.get(&hash).ok_or(CommandError::NoSuchToken)?;
    if let Some(by) = token.used {
        let repeat = map.nodes.get(&by).is_some_and(|n| n.name == name && n.address == address);
        return match repeat {
            true => Ok((SingleResult::Node(by), Changed::No)),
            false => Err(CommandError::TokenUsed { by }),
        };
    }
    if token.expires <= now {
        return Err(CommandError::TokenExpired);
    }
    nodes::check_new(map, &name, &address)?;
    let node = nodes::admit(map, name, address);
    // Expired tokens are of no use to anyone.
    map.tokens.retain(|h, t| *h == hash || t.expires > now);
    if let Some(token) = map.tokens.get_mut(&hash) {
        token.used = Some(node);
    }
    Ok((SingleResult::Node(node), Changed::Yes))
}
