//! What a session's two sides agree on: the keys of RFC 7143 13, their defaults, and how each is decided from
//! the initiator's offer and this target's limits.
//!
//! Source: RFC 7143 6.2, 13.

use crate::pdu::Digests;
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

/// The longest data segment that this target takes, in full feature phase.
pub(crate) const MAX_RECEIVE_BYTES: u32 = 256 << 10;
/// The longest data segment in login phase (RFC 7143 13.12: the default of either side).
pub(crate) const LOGIN_RECEIVE_BYTES: u32 = 8192;
/// The most data of a write that comes without being asked for.
const FIRST_BURST_BYTES: u32 = 64 << 10;
/// The most data that one R2T asks for.
const MAX_BURST_BYTES: u32 = 1 << 20;
const MAX_R2TS: u32 = 8;
/// What a length's value may be (RFC 7143 13.12 to 13.14).
const MIN_LENGTH: u32 = 512;
const MAX_LENGTH: u32 = (1 << 24) - 1;

/// Which kind of session it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionKind {
    Discovery,
    Normal,
}

/// What is agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Params {
    pub(crate) digests: Digests,
    pub(crate) initial_r2t: bool,
    pub(crate) immediate_data: bool,
    pub(crate) first_burst: u32,
    pub(crate) max_burst: u32,
    pub(crate) max_r2ts: u32,
    /// The longest data segment that the initiator takes.
    pub(crate) initiator_receives: u32,
}

impl Default for Params {
    //= RFC 7143 13.10 to 13.17
    fn default() -> Self {
        Self {
            digests: Digests::default(),
            initial_r2t: true,
            immediate_data: true,
            first_burst: 64 << 10,
            max_burst: 256 << 10,
            max_r2ts: 1,
            initiator_receives: LOGIN_RECEIVE_BYTES,
        }
    }
}

/// What is to be said to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// key=value
    Value(String),
    /// Nothing: the key declares.
    Silent,
    /// The value breaks the key's rules: the login fails.
    Invalid,
}

fn value(text: impl ToString) -> Answer {
    Answer::Value(text.to_string())
}

//= RFC 7143 6.2.2.3
/// The keys that only say something.
const DECLARED: [&str; 8] = [
    "InitiatorName",
    "InitiatorAlias",
    "TargetName",
    "TargetAlias",
    "TargetAddress",
    "SessionType",
    "TargetPortalGroupTag",
    "MaxRecvDataSegmentLength",
];

impl Params {
    /// Decides an operational key, and keeps what is decided.
    pub(crate) fn negotiate(&mut self, key: &str, offer: &str, kind: SessionKind) -> Answer {
        if offer == "NotUnderstood" || offer == "Reject" || offer == "Irrelevant" {
            return Answer::Silent;
        }
        match key {
            "HeaderDigest" => decide_digest(offer, &mut self.digests.header),
            "DataDigest" => decide_digest(offer, &mut self.digests.data),
            "MaxRecvDataSegmentLength" => match number(offer, MIN_LENGTH, MAX_LENGTH) {
                Some(n) => {
                    self.initiator_receives = n;
                    Answer::Silent
                }
                None => Answer::Invalid,
            },
            key if DECLARED.contains(&key) => Answer::Silent,
            //= RFC 7143 13.2 and others
            "MaxConnections"
            | "InitialR2T"
            | "ImmediateData"
            | "MaxBurstLength"
            | "FirstBurstLength"
            | "MaxOutstandingR2T"
            | "DataPDUInOrder"
            | "DataSequenceInOrder"
                if kind == SessionKind::Discovery =>
            {
                value("Irrelevant")
            }
            "InitialR2T" => decide_bool(offer, true, false, &mut self.initial_r2t),
            "ImmediateData" => decide_bool(offer, false, true, &mut self.immediate_data),
            "DataPDUInOrder" | "DataSequenceInOrder" => decide_bool(offer, true, true, &mut false),
            "MaxBurstLength" => {
                decide_min(offer, MIN_LENGTH, MAX_LENGTH, MAX_BURST_BYTES, &mut self.max_burst)
            }
            "FirstBurstLength" => {
                decide_min(offer, MIN_LENGTH, MAX_LENGTH, FIRST_BURST_BYTES, &mut self.first_burst)
            }
            "MaxOutstandingR2T" => decide_min(offer, 1, 65535, MAX_R2TS, &mut self.max_r2ts),
            "MaxConnections" => decide_min(offer, 1, 65535, 1, &mut 0),
            "ErrorRecoveryLevel" => decide_min(offer, 0, 2, 0, &mut 0),
            "DefaultTime2Wait" => match number(offer, 0, 3600) {
                Some(n) => value(n.max(2)),
                None => value("Reject"),
            },
            "DefaultTime2Retain" => decide_min(offer, 0, 3600, 0, &mut 0),
            //= RFC 7143 13.26, 13.7 (obsoleted markers)
            "TaskReporting" => decide_choice(offer, &["RFC3720"]),
            "IFMarker" | "OFMarker" => value("No"),
            "IFMarkInt" | "OFMarkInt" => value("Irrelevant"),
            "iSCSIProtocolLevel" => decide_min(offer, 0, 31, 1, &mut 0),
            _ => value("NotUnderstood"),
        }
    }

    /// Once all is said: the first burst is never longer than any burst.
    pub(crate) fn settle(&mut self) {
        //= RFC 7143 13.14
        self.first_burst = self.first_burst.min(self.max_burst);
    }
}

/// A number as RFC 7143 6.1 spells it: decimal or 0x hexadecimal.
fn number(text: &str, min: u32, max: u32) -> Option<u32> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16).ok()?,
        None => text.parse().ok()?,
    };
    (min..=max).contains(&parsed).then_some(parsed)
}

fn decide_min(offer: &str, min: u32, max: u32, ours: u32, keep: &mut u32) -> Answer {
    match number(offer, min, max) {
        Some(n) => {
            *keep = n.min(ours);
            value(*keep)
        }
        None => value("Reject"),
    }
}

/// A boolean key decided by OR (`or`) or AND with our value.
fn decide_bool(offer: &str, or: bool, ours: bool, keep: &mut bool) -> Answer {
    let offered = match offer {
        "Yes" => true,
        "No" => false,
        _ => return value("Reject"),
    };
    *keep = if or { offered || ours } else { offered && ours };
    value(if *keep { "Yes" } else { "No" })
}

//= RFC 7143 6.2.1
/// The first of the offered values that we have.
fn decide_choice(offer: &str, ours: &[&str]) -> Answer {
    match offer.split(',').find(|choice| ours.contains(choice)) {
        Some(choice) => value(choice),
        None => value("Reject"),
    }
}

fn decide_digest(offer: &str, keep: &mut bool) -> Answer {
    let answer = decide_choice(offer, &["CRC32C", "None"]);
    *keep = answer == value("CRC32C");
    answer
}

//= RFC 7143 6.1
/// The pairs of a text segment; `None` when one is no pair.
pub(crate) fn pairs(text: &[u8]) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for entry in text.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
        let (key, value) = core::str::from_utf8(entry).ok()?.split_once('=')?;
        if key.is_empty() || key.len() > 63 {
            return None;
        }
        pairs.push((key.to_string(), value.to_string()));
    }
    Some(pairs)
}

/// A pair as it goes on the wire.
pub(crate) fn push_pair(text: &mut Vec<u8>, key: &str, value: &str) {
    text.extend(format!("{key}={value}\0").into_bytes());
}
