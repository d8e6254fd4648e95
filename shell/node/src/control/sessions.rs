//! Registers initiators' sessions with control and has the earlier ones of the same nexus fenced in the logs of
//! the volume's segments, before the new one writes (replication.md R9, H13). A session waits for this as for
//! anything else: without a limit.

use super::{Shared, TRY_AGAIN, backend};
use holdfast_cluster::{Command, CommandResult, FenceTarget};
use holdfast_engine::{Input, Registration};
use holdfast_types::{ConnectionId, SegmentKey};
use std::sync::Arc;

/// Registers a session, or renews its registration, then tells the engine that it may write, or that its initiator went elsewhere.
pub async fn register(shared: Arc<Shared>, connection: ConnectionId, registration: Registration) {
    let moved = || shared.data.input(Input::SessionMoved(connection));
    let Registration { nexus, volume, gateway, session, seen, renews } = registration.clone();
    let command = match renews {
        None => Command::RegisterSession { nexus: nexus.clone(), gateway, session, volume, seen },
        Some(was) => Command::RenewSession { nexus: nexus.clone(), gateway, session, volume, was },
    };
    let Ok(CommandResult::Fence(targets)) = shared.propose_until_done(command).await else { return moved() };
    if !targets.is_empty() {
        // What an earlier session left under way may be for any segment that there was when this one was registered.
        let map = shared.newest_map_for_certain().await;
        for target in &targets {
            fence_everywhere(&shared, map.segments_of(volume).map(|s| s.key), *target).await;
        }
        let done = Command::SessionFenced { nexus, gateway, session, volume };
        if shared.propose_until_done(done).await.is_err() {
            return moved();
        }
    }
    shared.data.input(Input::SessionRegistered { connection, registration });
}

async fn fence_everywhere(
    shared: &Arc<Shared>,
    segments: impl Iterator<Item = SegmentKey>,
    target: FenceTarget,
) {
    for segment in segments {
        loop {
            let map = shared.map();
            let Some(info) = map.segments.get(&segment.segment).filter(|s| s.key == segment) else { break };
            if backend::fence(shared, info.granted.owner, segment, target).await {
                break;
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }
}

/// Control may forget a session that ended with nothing under way.
pub async fn end(shared: Arc<Shared>, registration: Registration) {
    let Registration { nexus, volume, gateway, session, .. } = registration;
    let command = Command::EndSession { nexus, gateway, session, volume };
    // One that was superseded meanwhile is not forgotten, and need not be.
    let _ = shared.propose_until_done(command).await;
}
