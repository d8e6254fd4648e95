//! Which requests the log holds, and who is fenced: the memory by which a repeat is answered and not applied
//! again (replication.md H12, after RIFL). It covers the whole log, what is not committed included, thus an entry
//! carries the LSN of its record and goes when that record is cut.
//!
//! Only success is in the log, so the answer to a request found here is always "done". A compare that found
//! another content leaves no record: its repeat is compared anew, which is as good as an answer that was delayed.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use holdfast_types::{
    GatewayId, GatewayRepeats, Lsn, Record, RecordBody, RepeatState, ReplicaState, RequestId, RequestTag,
    SessionId,
};
use serde::{Deserialize, Serialize};

/// How far a gateway's numbers may reach above its `low`.
pub const WINDOW: u64 = 1024;

/// A fence that the log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// Its record.
    pub lsn: Lsn,
    /// It is against everything of the gateway, not against one session.
    pub whole_gateway: bool,
}

/// The repeats of a whole log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepeatTable {
    gateways: BTreeMap<GatewayId, Entry>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    low: u64,
    done: BTreeMap<u64, Lsn>,
    fenced: Option<Lsn>,
    sessions: BTreeMap<SessionId, Lsn>,
}

impl RepeatTable {
    /// The table of a copy as its store found it.
    pub fn of(state: &ReplicaState) -> Self {
        let mut table = Self::default();
        table.merge(&state.repeats);
        for (lsn, tag) in &state.tags {
            table.note_tag(*lsn, tag);
        }
        for (lsn, gateway, session) in &state.fences {
            table.note_fence(*lsn, *gateway, *session);
        }
        table
    }

    /// Adds what was trimmed elsewhere.
    pub fn merge(&mut self, state: &RepeatState) {
        for (gateway, repeats) in &state.gateways {
            let entry = self.gateways.entry(*gateway).or_default();
            entry.low = entry.low.max(repeats.low);
            entry.done.extend(repeats.done.iter().map(|(seq, lsn)| (*seq, *lsn)));
            if repeats.fenced {
                entry.fenced.get_or_insert(Lsn(0));
            }
            for session in &repeats.fenced_sessions {
                entry.sessions.entry(*session).or_insert(Lsn(0));
            }
            entry.trim();
        }
    }

    /// Takes note of a record that is now in the log.
    pub fn note(&mut self, record: &Record) {
        if let Some(tag) = &record.request {
            self.note_tag(record.position.lsn, tag);
        }
        if let RecordBody::Fence { gateway, session } = &record.body {
            self.note_fence(record.position.lsn, *gateway, *session);
        }
    }

    fn note_tag(&mut self, lsn: Lsn, tag: &RequestTag) {
        let entry = self.gateways.entry(tag.gateway).or_default();
        entry.low = entry.low.max(tag.low);
        if tag.seq >= entry.low {
            entry.done.insert(tag.seq, lsn);
        }
        entry.trim();
    }

    fn note_fence(&mut self, lsn: Lsn, gateway: GatewayId, session: Option<SessionId>) {
        let entry = self.gateways.entry(gateway).or_default();
        match session {
            None => {
                entry.fenced.get_or_insert(lsn);
            }
            Some(session) => {
                entry.sessions.entry(session).or_insert(lsn);
            }
        }
    }

    /// Records after `lsn` were cut. What a gateway said of its answers stays: that was no record.
    pub fn cut_after(&mut self, lsn: Lsn) {
        for entry in self.gateways.values_mut() {
            entry.done.retain(|_, at| *at <= lsn);
            entry.sessions.retain(|_, at| *at <= lsn);
            entry.fenced = entry.fenced.filter(|at| *at <= lsn);
        }
    }

    /// The gateway said that everything below `low` was answered.
    pub fn raise_low(&mut self, gateway: GatewayId, low: u64) {
        if let Some(entry) = self.gateways.get_mut(&gateway) {
            entry.low = entry.low.max(low);
            entry.trim();
        }
    }

    /// The gateway's `low`.
    pub fn low(&self, gateway: GatewayId) -> u64 {
        self.gateways.get(&gateway).map_or(0, |e| e.low)
    }

    /// The record that carried the request out, if the log holds one.
    pub fn done(&self, id: RequestId) -> Option<Lsn> {
        self.gateways.get(&id.gateway)?.done.get(&id.seq).copied()
    }

    /// The record that fenced the session or its whole gateway. The session's own counts first: its initiator is
    /// known to go on elsewhere.
    pub fn fenced(&self, gateway: GatewayId, session: Option<SessionId>) -> Option<Fence> {
        let entry = self.gateways.get(&gateway)?;
        let own = session.and_then(|s| entry.sessions.get(&s)).map(|lsn| (*lsn, false));
        let (lsn, whole_gateway) = own.or(entry.fenced.map(|lsn| (lsn, true)))?;
        Some(Fence { lsn, whole_gateway })
    }

    /// Every gateway of which something is known.
    pub fn gateways(&self) -> impl Iterator<Item = GatewayId> {
        self.gateways.keys().copied()
    }

    /// The part up to `lsn`, as a store keeps it.
    pub fn state_at(&self, lsn: Lsn) -> RepeatState {
        let part = |e: &Entry| GatewayRepeats {
            low: e.low,
            done: e.done.iter().filter(|(_, at)| **at <= lsn).map(|(seq, at)| (*seq, *at)).collect(),
            fenced: e.fenced.is_some_and(|at| at <= lsn),
            fenced_sessions: e
                .sessions
                .iter()
                .filter(|(_, at)| **at <= lsn)
                .map(|(s, _)| *s)
                .collect::<Vec<_>>(),
        };
        RepeatState { gateways: self.gateways.iter().map(|(g, e)| (*g, part(e))).collect() }
    }
}

impl Entry {
    fn trim(&mut self) {
        self.done = self.done.split_off(&self.low);
    }
}
