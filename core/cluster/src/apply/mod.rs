//! `apply`: the pure function that changes the map. This file routes; each family of commands has its own.
//!
//! A command either has its whole effect or none: each handler checks all that it needs before it changes
//! anything. Invariants, asserted after every command in debug builds and by the property tests: see
//! `invariants.rs`.

mod disks;
#[cfg(debug_assertions)]
pub(crate) mod invariants;
mod nodes;
mod segments;
mod sessions;
mod tokens;
mod volumes;

use crate::{
    ClusterMap, Command, CommandError, CommandResult, MAX_BATCH, MAX_NAME_CHARS, MAX_TEXT_BYTES, NameFault,
};
use alloc::{string::ToString, vec::Vec};
use holdfast_types::ClusterId;

/// What a handler answers, and whether it changed the map.
type Outcome = Result<(CommandResult, Changed), CommandError>;

/// Whether a handler changed the map.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Changed {
    Yes,
    No,
}

/// Applies one command. A refused command leaves the map as it was.
pub fn apply(map: &mut ClusterMap, command: Command) -> Result<CommandResult, CommandError> {
    let answer = match command {
        Command::Batch(commands) => apply_batch(map, commands),
        single => apply_single(map, single),
    };
    #[cfg(debug_assertions)]
    invariants::check(map);
    answer
}

fn apply_batch(map: &mut ClusterMap, commands: Vec<Command>) -> Result<CommandResult, CommandError> {
    if commands.len() > MAX_BATCH {
        return Err(CommandError::LimitReached { what: "commands to a batch".into(), limit: MAX_BATCH });
    }
    let each = |command| match command {
        Command::Batch(_) => Err(CommandError::NestedBatch),
        single => apply_single(map, single),
    };
    Ok(CommandResult::Batch(commands.into_iter().map(each).collect()))
}

fn apply_single(map: &mut ClusterMap, command: Command) -> Result<CommandResult, CommandError> {
    let first = matches!(command, Command::Bootstrap { .. });
    if !first && map.cluster == ClusterId::default() {
        return Err(CommandError::NotBootstrapped);
    }
    let (result, changed) = route(map, command)?;
    if changed == Changed::Yes {
        map.version += 1;
    }
    Ok(result)
}

fn route(map: &mut ClusterMap, command: Command) -> Outcome {
    match command {
        Command::Bootstrap { cluster, name, node_name, address } => {
            nodes::bootstrap(map, cluster, name, node_name, address)
        }
        Command::AddNode { name, address } => nodes::add(map, name, address),
        Command::NodeStarted { node, boot_nonce, address } => nodes::started(map, node, boot_nonce, address),
        Command::GatewayRenewed { node, incarnation } => nodes::gateway_renewed(map, node, incarnation),
        Command::NodeDown { node, incarnation } => nodes::down(map, node, incarnation),
        Command::NodeUp { node, incarnation } => nodes::up(map, node, incarnation),
        Command::NodeStopping { node, incarnation } => nodes::stopping(map, node, incarnation),
        Command::RemoveNode { node } => nodes::remove(map, node),
        Command::AddDisk { disk, node, size, path, pool, boot_nonce } => {
            disks::add(map, disks::NewDisk { disk, node, size, path, pool, boot_nonce })
        }
        Command::DiskOpened { disk, expect_nonce, new_nonce } => {
            disks::opened(map, disk, expect_nonce, new_nonce)
        }
        Command::DiskFailed { disk, incarnation } => disks::failed(map, disk, incarnation),
        Command::DiskMissing { disk, incarnation } => disks::missing(map, disk, incarnation),
        Command::NewDiskIncarnation { disk, expect, boot_nonce } => {
            disks::new_incarnation(map, disk, expect, boot_nonce)
        }
        Command::DiskFree { disk, size, free } => disks::free(map, disk, size, free),
        Command::CreatePool { name } => volumes::create_pool(map, name),
        Command::CreateVolume { name, size, copies, pool, created } => {
            volumes::create(map, volumes::NewVolume { name, size, copies, pool, created })
        }
        Command::ResizeVolume { volume, size } => volumes::resize(map, volume, size),
        Command::DeleteVolume { volume } => volumes::delete(map, volume),
        Command::SegmentFreed { segment, disk } => volumes::segment_freed(map, segment, disk),
        Command::Segment(command) => Ok(segments::apply(map, command)),
        Command::CreateToken { hash, expires } => tokens::create(map, hash, expires),
        Command::UseToken { hash, now, name, address } => tokens::spend(map, hash, now, name, address),
        Command::RegisterSession { nexus, gateway, session, volume } => {
            sessions::register(map, nexus, gateway, session, volume)
        }
        Command::SessionFenced { nexus, gateway, session, volume } => {
            sessions::fenced(map, nexus, gateway, session, volume)
        }
        Command::EndSession { nexus, gateway, session, volume } => {
            sessions::end(map, nexus, gateway, session, volume)
        }
        Command::SetChap { chap } => sessions::set_chap(map, chap),
        Command::Batch(_) => Err(CommandError::NestedBatch),
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
