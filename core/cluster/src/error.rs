//! Why a command was refused. All of these are the proposer's to correct; each says what is and what is
//! allowed, in words for people.

use alloc::string::String;
use holdfast_types::{ClusterId, DiskId, NodeId, SegmentKey, VolumeId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a command was refused. The map is as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[allow(missing_docs, reason = "the message of each variant says what its fields mean")]
pub enum CommandError {
    #[error("this is cluster {have}, it was set up already")]
    AlreadyBootstrapped { have: ClusterId },
    #[error("the cluster is not set up yet")]
    NotBootstrapped,
    #[error("the {what} name '{name}' is not allowed: {fault}")]
    BadName { what: String, name: String, fault: NameFault },
    #[error("there is a {what} named '{name}' already")]
    NameTaken { what: String, name: String },
    #[error("there is no {what} named '{name}'")]
    NoSuchName { what: String, name: String },
    #[error("there is no node {0}")]
    NoSuchNode(NodeId),
    #[error("there is no disk {0}")]
    NoSuchDisk(DiskId),
    #[error("there is no volume {0}")]
    NoSuchVolume(VolumeId),
    #[error("segment {}, incarnation {}, is not being deleted", .0.segment, .0.incarnation.0)]
    NoSuchTombstone(SegmentKey),
    #[error("node {node} is in run {current} of its daemon, not in run {given}")]
    StaleNode { node: NodeId, given: u64, current: u64 },
    #[error("disk {disk} is in incarnation {current}, not {given}")]
    StaleDisk { disk: DiskId, given: u32, current: u32 },
    #[error("disk {disk} belongs to node {node} already")]
    DiskTaken { disk: DiskId, node: NodeId },
    #[error("node {node} still carries {copies} copies of segments on its disks")]
    NodeInUse { node: NodeId, copies: usize },
    #[error("node {node} answers")]
    NodeAnswers { node: NodeId },
    #[error("disk {disk} still carries {copies} copies of segments")]
    DiskInUse { disk: DiskId, copies: usize },
    #[error("disk {disk} serves")]
    DiskServes { disk: DiskId },
    #[error(
        "the size {size} is not allowed: it must be a multiple of {block} bytes, more than 0 and at most {max}"
    )]
    BadSize { size: u64, block: u64, max: u64 },
    #[error("{copies} copies are not possible: choose 1 to {max}")]
    BadCopies { copies: u8, max: u8 },
    #[error(
        "{copies} copies need {need} nodes with a disk in pool '{pool}' that has room; there are {have} ({up} of them up, {need_up} must be)"
    )]
    NotEnoughDisks { pool: String, copies: u8, need: usize, have: usize, up: usize, need_up: usize },
    #[error(
        "too large for pool '{pool}': {asked} bytes asked, {used} in use, {limit} at most with {copies} copies ({overcommit} times the {raw} bytes of its disks, divided by the copies)"
    )]
    PoolTooSmall { pool: String, asked: u64, used: u64, limit: u64, raw: u64, copies: u8, overcommit: u64 },
    #[error("volume '{name}' has {current} bytes; it cannot shrink to {asked}, only grow")]
    CannotShrink { name: String, current: u64, asked: u64 },
    #[error("this join token is not known to the cluster; make another one with `holdfast token create`")]
    NoSuchToken,
    #[error("this join token was used already, by node {by}; make another one with `holdfast token create`")]
    TokenUsed { by: NodeId },
    #[error("this join token has expired; make another one with `holdfast token create`")]
    TokenExpired,
    #[error("the session {session} on node {node} is not the one registered")]
    NoSuchSession { node: NodeId, session: u64 },
    #[error("{bytes} bytes are not a CHAP secret: {min} to {max} are allowed")]
    BadChapSecret { bytes: usize, min: usize, max: usize },
    #[error("the {what} is {bytes} bytes long, at most {max} are allowed")]
    TooLong { what: String, bytes: usize, max: usize },
    #[error("no more {what} can be added: {limit} is the limit")]
    LimitReached { what: String, limit: usize },
    #[error("a batch may not hold another batch")]
    NestedBatch,
    #[error("acknowledged writes in {segments} segments may be nowhere else")]
    WouldLose { segments: usize },
    #[error(
        "nothing of volume '{name}' is to be salvaged: {gone} of its segments have no copy left that was in sync, the others have enough"
    )]
    NothingToSalvage { name: String, gone: usize },
}

/// What is wrong with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum NameFault {
    /// It has no characters.
    #[error("it is empty; 1 to 63 characters are allowed")]
    Empty,
    /// It has too many.
    #[error("it has {chars} characters; 1 to 63 are allowed")]
    TooLong {
        /// How many.
        chars: usize,
    },
    /// One of its characters is not allowed.
    #[error("'{bad}' is in it; a to z, 0 to 9 and '-' are allowed")]
    BadCharacter {
        /// The first of these.
        bad: char,
    },
}

const _: () = assert!(crate::MAX_NAME_CHARS == 63, "the messages above name this number");
