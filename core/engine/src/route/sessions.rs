//! Initiators' sessions: their bytes go to the protocol's machine, its requests to the gateway, the answers back.
//! A session outlives every loss of peers and of quorum: its requests wait at the gateway.

use crate::io::{EngineEvent, FrontEndKind, Opening, Output, Outputs, Registration};
use crate::timers::Machine;
use crate::{Engine, gateway};
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use bytes::Bytes;
use holdfast_types::{
    BlockRequest, BlockResult, CloseReason, ConnectionId, Exports, GatewayId, SegmentKey, SessionId,
    SessionLogin, SessionOutput, Time, VolumeId,
};

/// The sessions of this node, by connection. A session's id is its connection's number.
#[derive(Default)]
pub struct Sessions {
    open: BTreeMap<ConnectionId, Session>,
}

struct Session {
    front: FrontEnd,
    kind: FrontEndKind,
    login: Option<SessionLogin>,
    /// The version of the map that was known at the login.
    seen: u64,
    /// As control knows it, or is about to.
    registration: Option<Registration>,
    /// The gateway's number under which control said that it is registered.
    registered: Option<GatewayId>,
    requests: u64,
}

/// A protocol's machine. Both speak alike to the engine.
enum FrontEnd {
    Iscsi(alloc::boxed::Box<holdfast_iscsi::Session>),
    Nbd(alloc::boxed::Box<holdfast_nbd::Session>),
}

impl FrontEnd {
    /// In NBD the server speaks first.
    fn start(&mut self, out: &mut Vec<SessionOutput>) {
        match self {
            FrontEnd::Iscsi(_) => {}
            FrontEnd::Nbd(s) => s.start(out),
        }
    }
    fn received(&mut self, now: Time, bytes: Bytes, exports: &Exports, out: &mut Vec<SessionOutput>) {
        match self {
            FrontEnd::Iscsi(s) => s.received(now, bytes, exports, out),
            FrontEnd::Nbd(s) => s.received(now, bytes, exports, out),
        }
    }
    fn completed(
        &mut self,
        now: Time,
        tag: u64,
        result: BlockResult,
        ex: &Exports,
        out: &mut Vec<SessionOutput>,
    ) {
        match self {
            FrontEnd::Iscsi(s) => s.completed(now, tag, result, ex, out),
            FrontEnd::Nbd(s) => s.completed(now, tag, result, ex, out),
        }
    }
    fn exports_changed(&mut self, now: Time, exports: &Exports, out: &mut Vec<SessionOutput>) {
        match self {
            FrontEnd::Iscsi(s) => s.exports_changed(now, exports, out),
            FrontEnd::Nbd(s) => s.exports_changed(now, exports, out),
        }
    }
    fn timer(&mut self, now: Time, exports: &Exports, out: &mut Vec<SessionOutput>) {
        match self {
            FrontEnd::Iscsi(s) => s.timer(now, exports, out),
            FrontEnd::Nbd(s) => s.timer(now, exports, out),
        }
    }
    fn next_timer(&self) -> Option<Time> {
        match self {
            FrontEnd::Iscsi(s) => s.next_timer(),
            FrontEnd::Nbd(s) => s.next_timer(),
        }
    }
    fn peer_takes(&mut self, takes: bool, exports: &Exports, out: &mut Vec<SessionOutput>) {
        match self {
            FrontEnd::Iscsi(s) => s.peer_takes(takes, exports, out),
            FrontEnd::Nbd(s) => s.peer_takes(takes, exports, out),
        }
    }
    fn wants_input(&self) -> bool {
        match self {
            FrontEnd::Iscsi(s) => s.wants_input(),
            FrontEnd::Nbd(s) => s.wants_input(),
        }
    }
}

/// A session as an operator sees it.
#[derive(Clone, Debug)]
pub struct SessionStatus {
    /// Its number on this node.
    pub session: SessionId,
    /// What it speaks.
    pub kind: FrontEndKind,
    /// The initiator's name, if it has one.
    pub initiator: String,
    /// The volume; None before the login and for discovery.
    pub volume: Option<VolumeId>,
    /// Requests so far.
    pub requests: u64,
}

impl Engine {
    pub(crate) fn open_session(
        &mut self,
        now: Time,
        connection: ConnectionId,
        opening: Opening,
        out: &mut Outputs,
    ) {
        let Opening { kind, portal, entropy } = opening;
        let id = SessionId(connection.0);
        let front = match kind {
            FrontEndKind::Iscsi => {
                let config = holdfast_iscsi::SessionConfig {
                    portal,
                    needs_chap: self.config.iscsi_needs_chap,
                    entropy,
                };
                FrontEnd::Iscsi(alloc::boxed::Box::new(holdfast_iscsi::Session::new(now, id, config)))
            }
            FrontEndKind::Nbd => {
                let config = holdfast_nbd::SessionConfig::default();
                FrontEnd::Nbd(alloc::boxed::Box::new(holdfast_nbd::Session::new(now, id, config)))
            }
        };
        self.timers.set(Machine::Session(connection), front.next_timer());
        self.sessions.open.insert(
            connection,
            Session { front, kind, login: None, seen: 0, registration: None, registered: None, requests: 0 },
        );
        self.with_session(now, connection, out, |front, _, o| front.start(o));
    }

    pub(crate) fn session_bytes(
        &mut self,
        now: Time,
        connection: ConnectionId,
        bytes: Bytes,
        out: &mut Outputs,
    ) {
        if !self.early.keep(connection, &bytes) {
            self.with_session(now, connection, out, |front, exports, o| {
                front.received(now, bytes, exports, o)
            });
        }
    }

    pub(crate) fn session_takes(
        &mut self,
        now: Time,
        connection: ConnectionId,
        takes: bool,
        out: &mut Outputs,
    ) {
        self.with_session(now, connection, out, |front, exports, o| front.peer_takes(takes, exports, o));
    }

    pub(crate) fn session_timer(&mut self, now: Time, connection: ConnectionId, out: &mut Outputs) {
        self.with_session(now, connection, out, |front, exports, o| front.timer(now, exports, o));
    }

    pub(crate) fn session_completed(
        &mut self,
        now: Time,
        session: SessionId,
        tag: u64,
        result: BlockResult,
        out: &mut Outputs,
    ) {
        let connection = ConnectionId(session.0);
        self.with_session(now, connection, out, |front, exports, o| {
            front.completed(now, tag, result, exports, o)
        });
    }

    pub(crate) fn exports_changed(&mut self, now: Time, out: &mut Outputs) {
        let connections: Vec<ConnectionId> = self.sessions.open.keys().copied().collect();
        for connection in connections {
            self.with_session(now, connection, out, |front, exports, o| {
                front.exports_changed(now, exports, o)
            });
        }
    }

    /// The connection is gone, or is about to be.
    pub(crate) fn session_closed(&mut self, now: Time, connection: ConnectionId, out: &mut Outputs) {
        self.early.forget(connection);
        if let Some(closed) = self.sessions.open.remove(&connection) {
            self.timers.set(Machine::Session(connection), None);
            let session = SessionId(connection.0);
            if let Some(registration) = closed.registration
                && !self.gateway.has_requests(session)
            {
                out.push(Output::EndSession(registration));
            }
            self.with_gateway(out, |gateway, o| gateway.session_closed(now, session, o));
        }
    }

    fn with_session(
        &mut self,
        now: Time,
        connection: ConnectionId,
        out: &mut Outputs,
        call: impl FnOnce(&mut FrontEnd, &Exports, &mut Vec<SessionOutput>),
    ) {
        let Some(session) = self.sessions.open.get_mut(&connection) else { return };
        let mut orders = Vec::new();
        call(&mut session.front, &self.exports, &mut orders);
        self.timers.set(Machine::Session(connection), session.front.next_timer());
        for order in orders {
            match order {
                SessionOutput::Send(bytes) => out.push(Output::SessionSend { connection, bytes }),
                SessionOutput::Submit { tag, volume, request } => {
                    self.submit(now, connection, tag, volume, request, out);
                }
                SessionOutput::LoggedIn(login) => self.logged_in(now, connection, login, out),
                SessionOutput::Close(reason) => {
                    self.session_closed(now, connection, out);
                    out.push(Output::SessionClose { connection, reason });
                }
            }
        }
    }

    fn submit(
        &mut self,
        now: Time,
        connection: ConnectionId,
        tag: u64,
        volume: VolumeId,
        request: BlockRequest,
        out: &mut Outputs,
    ) {
        if let Some(session) = self.sessions.open.get_mut(&connection) {
            session.requests += 1;
        }
        let map = self.map.clone();
        let size = map.volumes.get(&volume).map(|v| v.size);
        let key = |segment| map.segments.get(&segment).map(|info| -> SegmentKey { info.key });
        let from = (SessionId(connection.0), tag);
        self.with_gateway(out, |gateway: &mut gateway::Gateway, o| {
            gateway.submit(now, from, (volume, size), request, key, o);
        });
    }

    /// A login by a nexus that has a session here already takes that one's place (RFC 7143 6.3.5).
    fn logged_in(&mut self, now: Time, connection: ConnectionId, login: SessionLogin, out: &mut Outputs) {
        let same = |s: &Session| {
            s.login.as_ref().is_some_and(|l| l.nexus == login.nexus && l.volume == login.volume)
        };
        let older: Vec<ConnectionId> = if login.nexus.is_empty() || login.volume.is_none() {
            Vec::new()
        } else {
            self.sessions.open.iter().filter(|(c, s)| **c != connection && same(s)).map(|(c, _)| *c).collect()
        };
        for old in older {
            self.session_closed(now, old, out);
            out.push(Output::SessionClose { connection: old, reason: CloseReason::Logout });
        }
        let Some(session) = self.sessions.open.get_mut(&connection) else { return };
        let volume = login.volume.and_then(|v| self.map.volumes.get(&v)).map(|v| v.name.clone());
        out.push(Output::Event(EngineEvent::LoggedIn {
            session: SessionId(connection.0),
            kind: session.kind,
            initiator: login.initiator.to_string(),
            volume,
        }));
        session.login = Some(login);
        session.seen = self.map.version;
        self.register(connection, out);
    }

    /// Has control know of a session of a nexus that can be told from others, before it writes. NBD knows no
    /// nexus: its clients are fenced with their node only.
    fn register(&mut self, connection: ConnectionId, out: &mut Outputs) {
        let (gateway, started) = self.gateway.id();
        let Some(open) = self.sessions.open.get_mut(&connection) else { return };
        let Some(login) = open.login.as_ref().filter(|l| !l.nexus.is_empty()) else { return };
        let Some(volume) = login.volume else { return };
        let session = SessionId(connection.0);
        self.gateway.hold(session);
        if started {
            let (nexus, seen) = (login.nexus.clone(), open.seen);
            let renews = open.registered;
            let registration = Registration { nexus, volume, gateway, session, seen, renews };
            open.registration = Some(registration.clone());
            out.push(Output::RegisterSession { connection, registration });
        }
    }

    /// The gateway has a number. Sessions that waited for one are registered under it. Those that are registered
    /// under an earlier one are renewed: this node was taken for dead, and control knows whether their initiators may
    /// have gone on elsewhere. One whose registration was still under way ends; its initiator logs in again. These end
    /// last: the gateway sends what it has when a session ends, and by then all others must be held.
    pub(crate) fn register_all(&mut self, now: Time, out: &mut Outputs) {
        let is_under_way = |s: &Session| s.registration.is_some() && s.registered.is_none();
        let open = self.sessions.open.iter();
        let (end, stay): (Vec<_>, Vec<_>) = open.map(|(c, s)| (*c, is_under_way(s))).partition(|(_, u)| *u);
        stay.into_iter().for_each(|(connection, _)| self.register(connection, out));
        end.into_iter().for_each(|(connection, _)| self.session_moved(now, connection, out));
    }

    /// The session may write, unless the gateway has yet another number by now. One that closed meanwhile sent
    /// nothing under this registration.
    pub(crate) fn session_registered(
        &mut self,
        now: Time,
        connection: ConnectionId,
        registration: Registration,
        out: &mut Outputs,
    ) {
        let Some(session) = self.sessions.open.get_mut(&connection) else {
            return out.push(Output::EndSession(registration));
        };
        if session.registration.as_ref() == Some(&registration) {
            session.registered = Some(registration.gateway);
            self.with_gateway(out, |gateway, o| gateway.release(now, SessionId(connection.0), o));
        }
    }

    /// The initiator goes on elsewhere, or may: what this session still has under way must not take effect any more.
    pub(crate) fn session_moved(&mut self, now: Time, connection: ConnectionId, out: &mut Outputs) {
        if let Some(session) = self.sessions.open.get_mut(&connection) {
            session.registration = None;
            self.session_closed(now, connection, out);
            out.push(Output::SessionClose { connection, reason: CloseReason::Logout });
        }
    }

    /// Whether the shell should read on from an initiator.
    pub fn wants_input(&self, connection: ConnectionId) -> bool {
        self.sessions.open.get(&connection).is_some_and(|s| s.front.wants_input())
    }

    /// Every open session.
    pub fn session_status(&self) -> Vec<SessionStatus> {
        let status = |(connection, s): (&ConnectionId, &Session)| SessionStatus {
            session: SessionId(connection.0),
            kind: s.kind,
            initiator: s.login.as_ref().map_or_else(String::new, |l| l.initiator.clone()),
            volume: s.login.as_ref().and_then(|l| l.volume),
            requests: s.requests,
        };
        self.sessions.open.iter().map(status).collect()
    }
}
