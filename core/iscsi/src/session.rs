//! One initiator's connection, which is its whole session.
//!
//! ```text
//! Login --> FullFeature --> Closed
//!    \________________________^
//! ```
//!
//! This file takes the stream apart and hands each PDU to the phase that the session is in.

use crate::{
    framer::{FrameError, Framer},
    full_feature::FullFeature,
    login::{Login, Progress},
    params::LOGIN_RECEIVE_BYTES,
    pdu::{Digests, Pdu, encode, request},
};
use alloc::{boxed::Box, string::String, vec, vec::Vec};
use bytes::Bytes;
use core::fmt;
use holdfast_types::{BlockResult, CloseReason, Duration, Exports, SessionId, SessionOutput, Time};

/// How long a login may take.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(15);
/// After this much silence the target asks whether the initiator is there. Silence never ends a session: that
/// is for the connection's own keepalive.
pub const PING_AFTER: Duration = Duration::from_secs(30);
/// How much data of commands the session asks for or has the volume work on at once. Further commands wait in
/// the session.
pub const MAX_IN_FLIGHT_BYTES: usize = 8 << 20;
/// How much a session holds at all before it takes no more input: what is in flight, and a first burst of each
/// command that the window lets in. A peer that keeps to the window does not meet it.
pub const MAX_HELD_BYTES: usize = 24 << 20;

/// What a session needs to know of where it runs.
#[derive(Clone)]
pub struct SessionConfig {
    /// The portal's address as the initiator sees it, such as "127.0.0.1:3260", for SendTargets.
    pub portal: String,
    /// Whether nobody may log in without CHAP: the portal can be reached from other hosts.
    pub needs_chap: bool,
    /// Random bytes, fresh for every session: the source of CHAP challenges.
    pub entropy: [u8; 32],
}

impl fmt::Debug for SessionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionConfig").field("portal", &self.portal).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Phase {
    Login { login: Box<Login>, deadline: Time },
    FullFeature(Box<FullFeature>),
    Closed,
}

/// A session: bytes in; bytes and block requests out.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    framer: Framer,
    phase: Phase,
}

impl Session {
    /// A connection that was just accepted.
    pub fn new(now: Time, id: SessionId, config: SessionConfig) -> Self {
        // A session handle is never zero (RFC 7143 11.13.4); sessions of one gateway differ in it as far as its
        // two bytes go, and nothing is looked up by it.
        let tsih = (id.0 % u64::from(u16::MAX)) as u16 + 1;
        let login = Box::new(Login::new(config.entropy, tsih, config.needs_chap));
        Session {
            config,
            framer: Framer::default(),
            phase: Phase::Login { login, deadline: now + LOGIN_TIMEOUT },
        }
    }

    /// Bytes arrived, cut anyhow.
    pub fn received(&mut self, now: Time, bytes: Bytes, exports: &Exports, out: &mut Vec<SessionOutput>) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        self.framer.push(bytes);
        loop {
            let (digests, max_data) = match &self.phase {
                Phase::Login { .. } => (Digests::default(), LOGIN_RECEIVE_BYTES as usize),
                Phase::FullFeature(full) => (full.params.digests, full.receives as usize),
                Phase::Closed => return,
            };
            match self.framer.next(digests, max_data) {
                Ok(None) => return,
                Ok(Some(pdu)) => self.pdu(now, pdu, exports, out),
                Err(FrameError::HeaderDigest) => {
                    self.close(CloseReason::Protocol("header digest differs"), out)
                }
                Err(FrameError::TooLong) => {
                    self.close(CloseReason::Protocol("data segment is too long"), out)
                }
            }
        }
    }

    /// A submitted request has its result.
    pub fn completed(
        &mut self,
        _now: Time,
        tag: u64,
        result: BlockResult,
        exports: &Exports,
        out: &mut Vec<SessionOutput>,
    ) {
        if let Phase::FullFeature(full) = &mut self.phase {
            full.completed(tag, result, exports, out);
        }
    }

    /// Whether the initiator takes what it is sent. While it does not, commands that wait are not started, so that
    /// what piles up for it is bounded.
    pub fn peer_takes(&mut self, takes: bool, exports: &Exports, out: &mut Vec<SessionOutput>) {
        if let Phase::FullFeature(full) = &mut self.phase {
            full.tasks.deaf = !takes;
            full.pump(exports, out);
        }
    }

    /// A volume was made, resized or deleted.
    pub fn exports_changed(&mut self, _now: Time, exports: &Exports, out: &mut Vec<SessionOutput>) {
        if let Phase::FullFeature(full) = &mut self.phase
            && let Some(reason) = full.exports_changed(exports, out)
        {
            self.close(reason, out);
        }
    }

    /// A timer of [`Session::next_timer`] is due.
    pub fn timer(&mut self, now: Time, _exports: &Exports, out: &mut Vec<SessionOutput>) {
        match &mut self.phase {
            Phase::Login { deadline, .. } if now >= *deadline => self.close(CloseReason::Timeout, out),
            Phase::FullFeature(full) => full.ping_when_due(now, out),
            Phase::Login { .. } | Phase::Closed => {}
        }
    }

    /// When [`Session::timer`] wants to be called.
    pub fn next_timer(&self) -> Option<Time> {
        match &self.phase {
            Phase::Login { deadline, .. } => Some(*deadline),
            Phase::FullFeature(full) => full.ping_at(),
            Phase::Closed => None,
        }
    }

    /// Whether more bytes may be read from the peer.
    pub fn wants_input(&self) -> bool {
        match &self.phase {
            Phase::Login { .. } => true,
            Phase::FullFeature(full) => full.held_bytes() + self.framer.buffered() <= MAX_HELD_BYTES,
            Phase::Closed => false,
        }
    }

    /// How many bytes of data this session holds or has the volume work on: for metrics and tests.
    pub fn held_bytes(&self) -> usize {
        let held = match &self.phase {
            Phase::FullFeature(full) => full.held_bytes(),
            Phase::Login { .. } | Phase::Closed => 0,
        };
        held + self.framer.buffered()
    }

    fn pdu(&mut self, now: Time, pdu: Pdu, exports: &Exports, out: &mut Vec<SessionOutput>) {
        let closing = match &mut self.phase {
            Phase::Login { .. } => return self.login(now, &pdu, exports, out),
            Phase::FullFeature(full) => full.pdu(now, pdu, &self.config.portal, exports, out),
            Phase::Closed => None,
        };
        if let Some(reason) = closing {
            self.close(reason, out);
        }
    }

    fn login(&mut self, now: Time, pdu: &Pdu, exports: &Exports, out: &mut Vec<SessionOutput>) {
        let Phase::Login { login, .. } = &mut self.phase else { return };
        //= RFC 7143 6.3
        if pdu.header.opcode() != request::LOGIN {
            return self.close(CloseReason::Protocol("not a login request"), out);
        }
        let (header, text, progress) = login.request(pdu, exports);
        out.extend(
            encode(header, vec![Bytes::from(text)], Digests::default()).into_iter().map(SessionOutput::Send),
        );
        match progress {
            Progress::More => {}
            Progress::Refused(reason) => self.close(reason, out),
            Progress::Established(established) => {
                out.push(SessionOutput::LoggedIn(established.login.clone()));
                self.phase = Phase::FullFeature(Box::new(FullFeature::new(now, established, exports)));
            }
        }
    }

    fn close(&mut self, reason: CloseReason, out: &mut Vec<SessionOutput>) {
        self.phase = Phase::Closed;
        self.framer = Framer::default();
        out.push(SessionOutput::Close(reason));
    }
}
