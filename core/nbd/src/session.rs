//! A connection from its first byte to its last: which phase it is in, and what may be read in it.

use crate::{
    command::{Header, Transmission},
    input::Input,
    negotiate::{Negotiation, Step},
    wire,
};
use alloc::{string::String, vec::Vec};
use bytes::{Buf, BufMut, Bytes};
use holdfast_types::{
    BlockResult, CloseReason, Duration, Exports, SessionId, SessionLogin, SessionOutput, Time, VolumeId,
};

/// What may be set for sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// A client that is on no volume after this long is turned away.
    pub handshake_timeout: Duration,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self { handshake_timeout: Duration::from_secs(15) }
    }
}

/// The server's side of one NBD connection.
///
/// The server speaks first: [`Session::start`] gives its greeting. Where nobody calls that, [`Session::timer`]
/// does, for which [`Session::next_timer`] asks at once.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    opened: Time,
    deadline: Time,
    input: Input,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// The greeting is not sent.
    New,
    /// Waits for the client's flags.
    Greeted,
    Options(Negotiation),
    Commands(Transmission),
    Closed,
}

impl Session {
    /// A connection that was just accepted.
    pub fn new(now: Time, id: SessionId, config: SessionConfig) -> Self {
        let deadline = now + config.handshake_timeout;
        Self { id, opened: now, deadline, input: Input::default(), phase: Phase::New }
    }

    /// Its id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Greets the client, once.
    pub fn start(&mut self, out: &mut Vec<SessionOutput>) {
        if !matches!(self.phase, Phase::New) {
            return;
        }
        let mut greeting = Vec::with_capacity(18);
        greeting.put_u64(wire::INIT_MAGIC);
        greeting.put_u64(wire::OPTION_MAGIC);
        greeting.put_u16(wire::FLAG_FIXED_NEWSTYLE | wire::FLAG_NO_ZEROES);
        out.push(SessionOutput::Send(greeting.into()));
        self.phase = Phase::Greeted;
    }

    /// Bytes came from the peer.
    pub fn received(&mut self, _now: Time, bytes: Bytes, exports: &Exports, out: &mut Vec<SessionOutput>) {
        self.start(out);
        if let Phase::Closed = self.phase {
            return;
        }
        self.input.push(bytes);
        self.read(exports, out);
    }

    /// What a request came to. A tag that is not awaited is passed over.
    pub fn completed(
        &mut self,
        _now: Time,
        tag: u64,
        result: BlockResult,
        exports: &Exports,
        out: &mut Vec<SessionOutput>,
    ) {
        let Phase::Commands(transmission) = &mut self.phase else { return };
        if let Some(reason) = transmission.completed(tag, result, out) {
            return self.close(reason, out);
        }
        self.read(exports, out);
    }

    /// Whether the client takes what it is sent. While it does not, no further command is begun, so that what piles
    /// up for it is bounded.
    pub fn peer_takes(&mut self, takes: bool, exports: &Exports, out: &mut Vec<SessionOutput>) {
        if let Phase::Commands(transmission) = &mut self.phase {
            transmission.deaf = !takes;
            self.read(exports, out);
        }
    }

    /// Volumes came, went or changed their size. A client of a deleted one is sent away once nothing of it is
    /// in flight; a new size counts from the next command on.
    pub fn exports_changed(&mut self, _now: Time, exports: &Exports, out: &mut Vec<SessionOutput>) {
        self.end_if_due(exports, out);
    }

    /// The time that [`Session::next_timer`] gave has come.
    pub fn timer(&mut self, now: Time, _exports: &Exports, out: &mut Vec<SessionOutput>) {
        self.start(out);
        if matches!(self.phase, Phase::Greeted | Phase::Options(_)) && now >= self.deadline {
            self.close(CloseReason::Timeout, out);
        }
    }

    /// When [`Session::timer`] is to be called.
    pub fn next_timer(&self) -> Option<Time> {
        match self.phase {
            Phase::New => Some(self.opened),
            Phase::Greeted | Phase::Options(_) => Some(self.deadline),
            Phase::Commands(_) | Phase::Closed => None,
        }
    }

    /// Whether more should be read from the peer. While it is not, what is in flight is at its bound.
    pub fn wants_input(&self) -> bool {
        match &self.phase {
            Phase::New | Phase::Greeted | Phase::Options(_) => true,
            Phase::Commands(transmission) => transmission.has_room(),
            Phase::Closed => false,
        }
    }

    /// The volume that the client is on.
    pub fn volume(&self) -> Option<VolumeId> {
        match &self.phase {
            Phase::Commands(transmission) => Some(transmission.volume()),
            _ => None,
        }
    }

    /// Takes from the input what is complete, as far as there is room for it.
    fn read(&mut self, exports: &Exports, out: &mut Vec<SessionOutput>) {
        while self.read_one(exports, out) {}
        self.end_if_due(exports, out);
    }

    fn read_one(&mut self, exports: &Exports, out: &mut Vec<SessionOutput>) -> bool {
        match &mut self.phase {
            Phase::Greeted => self.read_client_flags(out),
            Phase::Options(_) => self.read_option(exports, out),
            Phase::Commands(_) => self.read_command(exports, out),
            Phase::New | Phase::Closed => false,
        }
    }

    fn read_client_flags(&mut self, out: &mut Vec<SessionOutput>) -> bool {
        let Some(flags) = self.input.peek::<{ wire::CLIENT_FLAGS_LEN }>() else { return false };
        self.input.skip(flags.len());
        match Negotiation::new(u32::from_be_bytes(flags)) {
            Some(negotiation) => self.phase = Phase::Options(negotiation),
            None => self.close(CloseReason::Protocol("unknown client flags"), out),
        }
        true
    }

    fn read_option(&mut self, exports: &Exports, out: &mut Vec<SessionOutput>) -> bool {
        let Some(header) = self.input.peek::<{ wire::OPTION_HEADER_LEN }>() else { return false };
        let mut header = header.as_slice();
        if header.get_u64() != wire::OPTION_MAGIC {
            self.close(CloseReason::Protocol("no option where one is due"), out);
            return false;
        }
        let (number, len) = (header.get_u32(), header.get_u32() as usize);
        if len > wire::MAX_OPTION_BYTES {
            self.close(CloseReason::Protocol("an option is too long"), out);
            return false;
        }
        if self.input.len() < wire::OPTION_HEADER_LEN + len {
            return false;
        }
        self.input.skip(wire::OPTION_HEADER_LEN);
        let data = self.input.take_whole(len);
        let Phase::Options(negotiation) = &mut self.phase else { return false };
        match negotiation.option(number, data, exports, out) {
            Step::Stay => {}
            Step::Close(reason) => self.close(reason, out),
            Step::Transmit(agreed) => {
                let (initiator, nexus) = (String::new(), String::new());
                let login = SessionLogin { initiator, nexus, volume: Some(agreed.volume) };
                out.push(SessionOutput::LoggedIn(login));
                self.phase = Phase::Commands(Transmission::new(agreed));
            }
        }
        true
    }

    fn read_command(&mut self, exports: &Exports, out: &mut Vec<SessionOutput>) -> bool {
        let Phase::Commands(transmission) = &mut self.phase else { return false };
        if !transmission.has_room() {
            return false;
        }
        let Some(header) = self.input.peek::<{ wire::REQUEST_LEN }>() else { return false };
        let Some(header) = Header::parse(&header) else {
            self.close(CloseReason::Protocol("no command where one is due"), out);
            return false;
        };
        if header.payload() > wire::MAX_PAYLOAD_BYTES as usize {
            self.close(CloseReason::Protocol("a write is too long"), out);
            return false;
        }
        if self.input.len() < wire::REQUEST_LEN + header.payload() {
            return false;
        }
        self.input.skip(wire::REQUEST_LEN);
        let data = self.input.take(header.payload());
        transmission.command(header, data, exports, out);
        true
    }

    fn end_if_due(&mut self, exports: &Exports, out: &mut Vec<SessionOutput>) {
        if let Phase::Commands(transmission) = &self.phase
            && let Some(reason) = transmission.ended(exports)
        {
            self.close(reason, out);
        }
    }

    fn close(&mut self, reason: CloseReason, out: &mut Vec<SessionOutput>) {
        self.phase = Phase::Closed;
        self.input.clear();
        out.push(SessionOutput::Close(reason));
    }
}
