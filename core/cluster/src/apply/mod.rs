//! `apply`: the pure function that changes the map. This file routes; each family of commands has its own.
//!
//! A command either has its whole effect or none: each handler checks all that it needs before it changes
//! anything. Invariants, asserted after every command in debug builds and by the property tests: see
//! `invariants.rs`.

mod disks;
#[cfg(debug_assertions)]
pub(crate) mod invariants;
mod lost;
mod members;
mod nodes;
mod segments;
mod sessions;
mod tokens;
mod volumes;

use crate::{
    ClusterMap, CommandError, CommandOf, CommandResult, FenceTarget, MAX_BATCH, MAX_NAME_CHARS,
    MAX_TEXT_BYTES, NameFault, SessionKey, Single, SingleResult,
};
use alloc::{string::ToString, vec::Vec};
use holdfast_types::ClusterId;

/// What a handler answers, and whether it changed the map.
type Outcome = Result<(SingleResult, Changed), CommandError>;

/// Whether a handler changed the map.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Changed {
    Yes,
    No,
}

/// Applies one command. A refused command leaves the map as it was.
pub fn apply<B: Into<Vec<Single>>>(
    map: &mut ClusterMap,
    command: CommandOf<B>,
) -> Result<CommandResult, CommandError> {
    let answer = match command {
        CommandOf::Batch(commands) => apply_batch(map, commands.into()),
        single => apply_single(map, single).map(CommandResult::from),
    };
    #[cfg(debug_assertions)]
    invariants::check(map);
    answer
}

fn apply_batch(map: &mut ClusterMap, commands: Vec<Single>) -> Result<CommandResult, CommandError> {
    if commands.len() > MAX_BATCH {
        return Err(CommandError::LimitReached { what: "commands to a batch".into(), limit: MAX_BATCH });
    }
    Ok(CommandResult::Batch(commands.into_iter().map(|single| apply_single(map, single)).collect()))
}

fn apply_single<B>(map: &mut ClusterMap, command: CommandOf<B>) -> Result<SingleResult, CommandError> {
    let first = matches!(command, CommandOf::Bootstrap { .. });
    if !first && map.cluster == ClusterId::default() {
        return Err(CommandError::NotBootstrapped);
    }
    let (result, changed) = route(map, command)?;
    if changed == Changed::Yes {
        map.version += 1;
    }
    Ok(result)
}

fn route<B>(map: &mut ClusterMap, command: CommandOf<B>) -> Outcome {
    match command {
        CommandOf::Bootstrap { cluster, name, first } => nodes::bootstrap(map, cluster, name, first),
        CommandOf::AddNode(node) => nodes::add(map, node),
        CommandOf::NodeStarted { node, boot_nonce, address } => {
            nodes::started(map, node, boot_nonce, address)
        }
        CommandOf::GatewayRenewed { node, incarnation } => nodes::gateway_renewed(map, node, incarnation),
        CommandOf::NodeDown { node, incarnation } => nodes::down(map, node, incarnation),
        CommandOf::NodeUp { node, incarnation } => nodes::up(map, node, incarnation),
        CommandOf::NodeStopping { node, incarnation } => nodes::stopping(map, node, incarnation),
        CommandOf::RemoveNode { node } => nodes::remove(map, node),
        CommandOf::AddDisk { disk, node, size, path, pool, boot_nonce } => {
            disks::add(map, disks::NewDisk { disk, node, size, path, pool, boot_nonce })
        }
        CommandOf::DiskOpened { disk, expect_nonce, new_nonce } => {
            disks::opened(map, disk, expect_nonce, new_nonce)
        }
        CommandOf::DiskFailed { disk, incarnation } => disks::failed(map, disk, incarnation),
        CommandOf::DiskMissing { disk, incarnation } => disks::missing(map, disk, incarnation),
        CommandOf::NewDiskIncarnation { disk, expect, boot_nonce } => {
            disks::new_incarnation(map, disk, expect, boot_nonce)
        }
        CommandOf::DiskSilent { disk, incarnation, silent } => disks::silent(map, disk, incarnation, silent),
        CommandOf::DiskSlow { disk, incarnation, slow } => disks::slow(map, disk, incarnation, slow),
        CommandOf::DiskFree { disk, size, free } => disks::free(map, disk, size, free),
        CommandOf::RemoveDisk { disk } => disks::remove(map, disk),
        CommandOf::CreatePool { name } => volumes::create_pool(map, name),
        CommandOf::CreateVolume { name, size, copies, pool, created } => {
            volumes::create(map, volumes::NewVolume { name, size, copies, pool, created })
        }
        CommandOf::ResizeVolume { volume, size } => volumes::resize(map, volume, size),
        CommandOf::DeleteVolume { volume } => volumes::delete(map, volume),
        CommandOf::SegmentFreed { segment, disk } => volumes::segment_freed(map, segment, disk),
        CommandOf::Segment(command) => Ok(segments::apply(map, command)),
        CommandOf::CreateToken { hash, expires } => tokens::create(map, hash, expires),
        CommandOf::UseToken { hash, now, node } => tokens::spend(map, hash, now, node),
        CommandOf::RegisterSession { nexus, gateway, session, volume, seen } => {
            sessions::register(map, SessionKey { nexus, volume }, FenceTarget { gateway, session }, seen)
        }
        CommandOf::SessionFenced { nexus, gateway, session, volume } => {
            sessions::fenced(map, nexus, gateway, session, volume)
        }
        CommandOf::EndSession { nexus, gateway, session, volume } => {
            sessions::end(map, nexus, gateway, session, volume)
        }
        CommandOf::RotateAdminToken { hash } => tokens::rotate_admin(map, hash),
        CommandOf::SetChap { chap } => sessions::set_chap(map, chap),
        CommandOf::Batch(_) => Err(CommandError::NestedBatch),
        CommandOf::RenewSession { nexus, gateway, session, volume, was } => {
            sessions::renew(map, SessionKey { nexus, volume }, FenceTarget { gateway, session }, was)
        }
        CommandOf::ReplaceCopy { segment, expect, from, to } => {
            Ok(members::replace(map, segment, expect, from, to))
        }
        CommandOf::NodeLost { node, accept_loss } => lost::node(map, node, accept_loss),
        CommandOf::Salvage { volume } => lost::salvage(map, volume),
        CommandOf::DiskLost { disk, accept_loss } => lost::disk(map, disk, accept_loss),
    }
}

/// Names are 1 to 63 of a-z, 0-9 and '-': they appear in iSCSI names (RFC 3722) and in URLs.
fn check_name(what: &str, name: &str) -> Result<(), CommandError> {
    let chars = name.chars().count();
    let bad = name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-'));
    let fault = match (chars, bad) {
        (0, _) => NameFault::Empty,
        (n, _) if n > MAX_NAME_CHARS => NameFault::TooLong { chars: n },
        (_, Some(bad)) => NameFault::BadCharacter { bad },
        _ => return Ok(()),
    };
    // What is far too long is not repeated at full length.
    let shown = name.chars().take(MAX_NAME_CHARS + 1).collect();
    Err(CommandError::BadName { what: what.to_string(), name: shown, fault })
}

fn check_text(what: &str, text: &str, max: usize) -> Result<(), CommandError> {
    if text.len() > max {
        return Err(CommandError::TooLong { what: what.to_string(), bytes: text.len(), max });
    }
    Ok(())
}

fn check_path(what: &str, text: &str) -> Result<(), CommandError> {
    check_text(what, text, MAX_TEXT_BYTES)
}

fn check_limit(what: &str, have: usize, limit: usize) -> Result<(), CommandError> {
    if have >= limit {
        return Err(CommandError::LimitReached { what: what.to_string(), limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
