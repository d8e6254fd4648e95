//! One initiator's connection, which is its whole session.

use alloc::{string::String, vec::Vec};
use bytes::Bytes;
use core::fmt;
use holdfast_types::{BlockResult, CloseReason, Exports, SessionId, SessionOutput, Time};

/// What a session needs to know of where it runs.
#[derive(Clone)]
pub struct SessionConfig {
    /// The portal's address as the initiator sees it, such as "127.0.0.1:3260", for SendTargets.
    pub portal: String,
    /// Random bytes, fresh for every session: the source of CHAP challenges.
    pub entropy: [u8; 32],
}

impl fmt::Debug for SessionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionConfig").field("portal", &self.portal).finish_non_exhaustive()
    }
}

/// A session: bytes in; bytes and block requests out.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    id: SessionId,
    started: Time,
}

impl Session {
    /// A connection that was just accepted.
    pub fn new(now: Time, id: SessionId, config: SessionConfig) -> Self {
        Session { config, id, started: now }
    }
    /// Bytes arrived, cut anyhow.
    pub fn received(&mut self, _now: Time, _bytes: Bytes, _exports: &Exports, out: &mut Vec<SessionOutput>) {
        out.push(SessionOutput::Close(CloseReason::Protocol("login is refused")));
    }
    /// A submitted request has its result.
    pub fn completed(
        &mut self,
        _now: Time,
        _tag: u64,
        _result: BlockResult,
        _exports: &Exports,
        _out: &mut Vec<SessionOutput>,
    ) {
    }
    /// A volume was made, resized or deleted.
    pub fn exports_changed(&mut self, _now: Time, _exports: &Exports, _out: &mut Vec<SessionOutput>) {}
    /// A timer of [`Session::next_timer`] is due.
    pub fn timer(&mut self, _now: Time, _exports: &Exports, _out: &mut Vec<SessionOutput>) {}
    /// When [`Session::timer`] wants to be called.
    pub fn next_timer(&self) -> Option<Time> {
        None
    }
    /// Whether more bytes may be read from the peer.
    pub fn wants_input(&self) -> bool {
        true
    }
}
