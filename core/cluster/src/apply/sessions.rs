//! Initiator sessions, so that a write sent late through an earlier gateway can be fenced (replication.md H13),
//! and the CHAP account.

use super::{Changed, Outcome, check_limit, check_text};
use crate::{
    CHAP_SECRET_BYTES, Chap, ClusterMap, CommandError, CommandResult, FenceTarget, MAX_FENCES_PER_SESSION,
    MAX_NEXUS_BYTES, MAX_SESSIONS, Session, SessionKey,
};
use alloc::{string::String, vec::Vec};
use holdfast_types::{GatewayId, SessionId, VolumeId};

pub(super) fn register(
    map: &mut ClusterMap,
    nexus: String,
    gateway: GatewayId,
    session: SessionId,
    volume: VolumeId,
) -> Outcome {
    check_text("nexus name", &nexus, MAX_NEXUS_BYTES)?;
    if !map.volumes.contains_key(&volume) {
        return Err(CommandError::NoSuchVolume(volume));
    }
    let key = SessionKey { nexus, volume };
    let me = FenceTarget { gateway, session };
    let Some(have) = map.sessions.get_mut(&key) else {
        check_limit("initiator sessions", map.sessions.len(), MAX_SESSIONS)?;
        map.sessions.insert(key, Session { gateway, session, unfenced: Vec::new() });
        return Ok((CommandResult::Fence(Vec::new()), Changed::Yes));
    };
    let before = FenceTarget { gateway: have.gateway, session: have.session };
    if before == me {
        // A repeat: what it was told to fence, it is told again until it says that it did.
        return Ok((CommandResult::Fence(have.unfenced.clone()), Changed::No));
    }
    if have.unfenced.contains(&me) {
        // It was superseded, and asks late: the session that took over is the one that counts.
        return Err(CommandError::NoSuchSession { node: gateway.node, session: session.0 });
    }
    check_limit("sessions that wait to be fenced", have.unfenced.len(), MAX_FENCES_PER_SESSION)?;
    have.unfenced.push(before);
    have.gateway = gateway;
    have.session = session;
    Ok((CommandResult::Fence(have.unfenced.clone()), Changed::Yes))
}

pub(super) fn fenced(
    map: &mut ClusterMap,
    nexus: String,
    gateway: GatewayId,
    session: SessionId,
    volume: VolumeId,
) -> Outcome {
    let have = map.sessions.get_mut(&SessionKey { nexus, volume });
    let have = have.filter(|s| s.gateway == gateway && s.session == session);
    let have = have.ok_or(CommandError::NoSuchSession { node: gateway.node, session: session.0 })?;
    let changed = if have.unfenced.is_empty() { Changed::No } else { Changed::Yes };
    have.unfenced.clear();
    Ok((CommandResult::Done, changed))
}

pub(super) fn end(
    map: &mut ClusterMap,
    nexus: String,
    gateway: GatewayId,
    session: SessionId,
    volume: VolumeId,
) -> Outcome {
    let key = SessionKey { nexus, volume };
    // What it did not fence, the next session of this nexus must.
    let own = |s: &Session| s.gateway == gateway && s.session == session && s.unfenced.is_empty();
    if !map.sessions.get(&key).is_some_and(own) {
        return Ok((CommandResult::Done, Changed::No));
    }
    map.sessions.remove(&key);
    Ok((CommandResult::Done, Changed::Yes))
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
    Ok((CommandResult::Done, changed))
}
