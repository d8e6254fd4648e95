//! Initiator sessions, so that a write sent late through an earlier gateway can be fenced (replication.md H13),
//! and the CHAP account.

use super::{Changed, Outcome, check_limit, check_text};
use crate::{
    CHAP_SECRET_BYTES, Chap, ClusterMap, CommandError, FenceTarget, MAX_ENDED_SESSIONS,
    MAX_FENCES_PER_SESSION, MAX_NEXUS_BYTES, MAX_SESSIONS, Session, SessionKey, SingleResult,
};
use alloc::{string::String, vec::Vec};
use holdfast_types::{GatewayId, SessionId, VolumeId};

/// A login takes its nexus' place only if its gateway knew of every earlier registration when the initiator logged
/// in. One that did not know the latest is the older of the two, however late it asks: the gateway was paused, and
/// what it holds must not be written any more. An initiator for which that is wrong logs in again.
pub(super) fn register(map: &mut ClusterMap, key: SessionKey, me: FenceTarget, seen: u64) -> Outcome {
    check_text("nexus name", &key.nexus, MAX_NEXUS_BYTES)?;
    if !map.volumes.contains_key(&key.volume) {
        return Err(CommandError::NoSuchVolume(key.volume));
    }
    let superseded = CommandError::NoSuchSession { node: me.gateway.node, session: me.session.0 };
    let FenceTarget { gateway, session } = me;
    // What this command makes is the next version.
    let registered = map.version + 1;
    let Some(have) = map.sessions.get_mut(&key) else {
        if seen < map.sessions_forgotten {
            return Err(superseded);
        }
        check_limit("initiator sessions", map.sessions.len(), MAX_SESSIONS)?;
        map.sessions
            .insert(key, Session { gateway, session, registered, ended: false, unfenced: Vec::new() });
        return Ok((SingleResult::Fence(Vec::new()), Changed::Yes));
    };
    let before = FenceTarget { gateway: have.gateway, session: have.session };
    if before == me && !have.ended {
        // A repeat: what it was told to fence, it is told again until it says that it did.
        return Ok((SingleResult::Fence(have.unfenced.clone()), Changed::No));
    }
    if seen < have.registered {
        return Err(superseded);
    }
    if !have.ended {
        check_limit("sessions that wait to be fenced", have.unfenced.len(), MAX_FENCES_PER_SESSION)?;
        have.unfenced.push(before);
    }
    (have.gateway, have.session, have.registered, have.ended) = (gateway, session, registered, false);
    Ok((SingleResult::Fence(have.unfenced.clone()), Changed::Yes))
}

/// A session goes on under its gateway's next number if its initiator cannot have gone on elsewhere meanwhile: no
/// later login took its nexus' place, and no session of the same initiator is, or was, on the volume over another
/// node. With several paths the initiator may have changed to another one without a word to anybody.
pub(super) fn renew(map: &mut ClusterMap, key: SessionKey, me: FenceTarget, was: GatewayId) -> Outcome {
    let superseded = CommandError::NoSuchSession { node: me.gateway.node, session: me.session.0 };
    let is_elsewhere = map.sessions.iter().any(|(k, s)| is_other_path((k, s), &key, me.gateway));
    let forgotten = map.sessions_forgotten;
    let Some(have) = map.sessions.get_mut(&key).filter(|s| !s.ended && s.session == me.session) else {
        return Err(superseded);
    };
    if have.gateway == me.gateway {
        return Ok((SingleResult::Fence(have.unfenced.clone()), Changed::No));
    }
    if have.gateway != was || is_elsewhere || have.registered < forgotten {
        return Err(superseded);
    }
    have.gateway = me.gateway;
    Ok((SingleResult::Fence(have.unfenced.clone()), Changed::Yes))
}

/// Whether a session is of the initiator of `key`, to the same volume, over another node than the gateway's.
fn is_other_path((other, session): (&SessionKey, &Session), key: &SessionKey, gateway: GatewayId) -> bool {
    other.volume == key.volume
        && session.gateway.node != gateway.node
        && initiator(&other.nexus) == initiator(&key.nexus)
}

/// The initiator's part of a nexus: `NAME,i,0xISID` (RFC 7143 4.2.7.1).
fn initiator(nexus: &str) -> &str {
    nexus.rsplit_once(",i,").map_or(nexus, |(name, _)| name)
}

/// Of the sessions that ended, the oldest beyond the limit are forgotten, and with each who came before it.
fn forget_old_ended(map: &mut ClusterMap) {
    let ended = map.sessions.iter().filter(|(_, s)| s.ended);
    if ended.clone().count() <= MAX_ENDED_SESSIONS {
        return;
    }
    let oldest = ended.min_by_key(|(_, s)| s.registered).map(|(key, s)| (key.clone(), s.registered));
    if let Some((key, registered)) = oldest
        && let Some(gone) = map.sessions.remove(&key)
    {
        // The initiator's other sessions are not renewed any more: that one may have written later than they did.
        let is_path = |(k, s): (&SessionKey, &Session)| is_other_path((k, s), &key, gone.gateway);
        let until = if map.sessions.iter().any(is_path) { map.version + 1 } else { registered };
        map.sessions_forgotten = map.sessions_forgotten.max(until);
    }
}

pub(super) fn fenced(
    map: &mut ClusterMap,
    nexus: String,
    gateway: GatewayId,
    session: SessionId,
    volume: VolumeId,
) -> Outcome {
    let have = map.sessions.get_mut(&SessionKey { nexus, volume });
    let have = have.filter(|s| s.gateway == gateway && s.session == session && !s.ended);
    let have = have.ok_or(CommandError::NoSuchSession { node: gateway.node, session: session.0 })?;
    let changed = if have.unfenced.is_empty() { Changed::No } else { Changed::Yes };
    have.unfenced.clear();
    Ok((SingleResult::Done, changed))
}

pub(super) fn end(
    map: &mut ClusterMap,
    nexus: String,
    gateway: GatewayId,
    session: SessionId,
    volume: VolumeId,
) -> Outcome {
    // What it did not fence, the next session of this nexus must.
    let own =
        |s: &&mut Session| s.gateway == gateway && s.session == session && s.unfenced.is_empty() && !s.ended;
    let Some(have) = map.sessions.get_mut(&SessionKey { nexus, volume }).filter(own) else {
        return Ok((SingleResult::Done, Changed::No));
    };
    have.ended = true;
    forget_old_ended(map);
    Ok((SingleResult::Done, Changed::Yes))
}

pub(super) fn set_chap(map: &mut ClusterMap, chap: Option<Chap>) -> Outcome {
    if let Some(chap) = &chap {
        check_text("CHAP user name", &chap.user, MAX_NEXUS_BYTES)?;
        let (min, max) = (*CHAP_SECRET_BYTES.start(), *CHAP_SECRET_BYTES.end());
        let bytes = chap.secret.len();
        if !CHAP_SECRET_BYTES.contains(&bytes) {
            return Err(CommandError::BadChapSecret { bytes, min, max });
        }
    }
    let changed = if map.chap == chap { Changed::No } else { Changed::Yes };
    map.chap = chap;
    Ok((SingleResult::Done, changed))
}
