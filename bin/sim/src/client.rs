//! Clients: each speaks NBD or iSCSI to one gateway and keeps a few requests under way: over NBD reads, writes, zeroes
//! and flushes on the cells, over iSCSI reads, and writes of sectors under the condition that they hold what was read. A
//! client whose connection is lost connects again, to the same node or to another; what was under way stays open in the
//! history for good.
//!
//! Where initiators move, each has one port and writes without a condition, too. What it left under way over an earlier
//! session must not happen any more once something was done over the next one (replication.md R9).

use crate::event::Event;
use crate::failure::{Checker, Failure};
use crate::history::{Action, Ticket, Value};
use crate::iscsi::{Iscsi, MISCOMPARE, NOT_BEGUN};
use crate::nbd::{Nbd, Said, Verb};
use crate::operator;
use crate::world::{VOLUME, World};
use bytes::Bytes;
use holdfast_engine::FrontEndKind;
use holdfast_iscsi::IQN_PREFIX;
use holdfast_types::{ConnectionId, Duration, EXTENT_BYTES, NodeId, SECTOR_BYTES, Time};
use std::collections::BTreeMap;

/// Requests that a client has under way at most.
const DEPTH: usize = 3;
/// After one request in so many somebody compares the copies of a segment, whatever is going on.
const CHECK_ONE_IN: u64 = 40;
/// An initiator that waited longer goes on over another session, if initiators do; at most twice as long.
const PATIENCE: Duration = Duration::from_millis(300);
/// NBD's "no space left on device".
pub(crate) const NO_SPACE: u32 = 28;
/// A client that discards does so with one request in so many.
const DISCARD_ONE_IN: u64 = 12;
/// Cells of one request at most.
const RUN_MOST: u64 = 4;

#[derive(Debug)]
struct Request {
    tickets: Vec<Ticket>,
    sent: Time,
    /// It lies in one extent, so that it takes effect as a whole or not at all.
    whole: bool,
    size: usize,
    /// The cell that it reads alone, or compares and writes; what it writes then.
    cell: Option<(usize, Option<Value>)>,
}

#[derive(Debug)]
enum Protocol {
    Nbd(Nbd),
    Iscsi(Iscsi),
}

/// See the module's text.
#[derive(Debug)]
pub struct Client {
    home: NodeId,
    /// The initiator port that it always has, where initiators move.
    port: Option<u64>,
    connection: Option<ConnectionId>,
    kind: FrontEndKind,
    protocol: Protocol,
    /// What cells held when they were last looked at, over iSCSI.
    known: BTreeMap<usize, Value>,
    /// What was under way over earlier sessions of its port.
    left: Vec<Ticket>,
    /// The number of its volume, and whether that is the operator's.
    volume: u64,
    follows: bool,
    ready: bool,
    requests: BTreeMap<u64, Request>,
    next_cookie: u64,
}

impl Client {
    /// A client that uses this node's gateway as a rule, and over iSCSI this port each time, or another one each time.
    pub fn new(home: NodeId, kind: FrontEndKind, port: Option<u64>) -> Self {
        Self {
            home,
            port,
            connection: None,
            kind,
            protocol: Protocol::Nbd(Nbd::new(VOLUME)),
            known: BTreeMap::new(),
            left: Vec::new(),
            volume: 0,
            follows: false,
            ready: false,
            requests: BTreeMap::new(),
            next_cookie: 1,
        }
    }

    /// It uses what the operator has.
    pub(crate) fn follows_operator(&mut self) {
        self.follows = true;
    }

    /// Whether it does.
    pub(crate) fn follows(&self) -> bool {
        self.follows
    }

    /// The number of its volume.
    pub(crate) fn volume(&self) -> u64 {
        self.volume
    }

    /// What it speaks.
    pub fn kind(&self) -> FrontEndKind {
        self.kind
    }

    /// Requests under way.
    pub fn outstanding(&self) -> usize {
        self.requests.len()
    }

    /// Whether it can send requests.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// How long it has waited for an answer.
    fn waited(&self, now: Time) -> Duration {
        self.requests.values().map(|r| now.since(r.sent)).max().unwrap_or_default()
    }

    /// Forgets its connection, if it has one.
    fn disconnect(&mut self) -> Option<ConnectionId> {
        self.ready = false;
        let requests = core::mem::take(&mut self.requests).into_values();
        if self.port.is_some() {
            self.left.extend(requests.flat_map(|r| r.tickets));
        }
        self.connection.take()
    }
}

impl World {
    /// A client does what it wants next.
    pub(crate) fn think(&mut self, client: usize) -> Result<(), Failure> {
        let again = Duration::from_micros(500 + self.rng.below(self.watch.think_us.max(1)));
        self.queue.after(again, Event::Think { client });
        if self.clients[client].port.is_some() {
            let patience = PATIENCE + Duration(self.rng.below(PATIENCE.0));
            if self.clients[client].waited(self.queue.now()) > patience {
                self.client_moves(client);
            }
        }
        if self.is_deleted(client) {
            self.client_leaves(client);
        }
        if self.clients[client].connection.is_none() && !self.picks_volume(client) {
            return Ok(());
        }
        let this = &self.clients[client];
        match this.connection {
            None => {
                let other = NodeId(1 + self.rng.below(self.nodes.len() as u64) as u16);
                let node = if self.rng.one_in(4) { other } else { self.clients[client].home };
                if let Some(connection) = self.connect(client, node)? {
                    let this = &mut self.clients[client];
                    this.connection = Some(connection);
                    this.ready = false;
                    if this.kind == FrontEndKind::Nbd {
                        this.protocol = Protocol::Nbd(Nbd::new(operator::name(this.volume)));
                    } else {
                        let target = format!("{IQN_PREFIX}{}", operator::name(this.volume));
                        // Ports that do not move are all different, so that none takes another one's place.
                        let port = this.port.unwrap_or(connection.0);
                        let (iscsi, login) = Iscsi::login(&target, port);
                        this.protocol = Protocol::Iscsi(iscsi);
                        self.send_to_server(connection, login);
                    }
                }
            }
            Some(_) if this.ready && this.requests.len() < DEPTH && self.watch.requests_left > 0 => {
                self.watch.requests_left -= 1;
                self.random_request(client);
                if self.rng.one_in(CHECK_ONE_IN) {
                    self.check_some_segment()?;
                }
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// A client that follows the operator uses the volume that there is. False: there is none.
    fn picks_volume(&mut self, client: usize) -> bool {
        let this = &mut self.clients[client];
        if this.follows {
            let Some(volume) = self.operator.volume() else { return false };
            if this.volume != volume {
                this.volume = volume;
                this.known.clear();
            }
        }
        true
    }

    /// The number under which the history knows a cell of a client's volume.
    fn name_of(&self, client: usize, cell: usize) -> usize {
        self.clients[client].volume as usize * self.layout.len() + cell
    }

    fn random_request(&mut self, client: usize) {
        let first = self.rng.below(self.layout.len() as u64) as usize;
        if self.clients[client].kind == FrontEndKind::Iscsi {
            if self.clients[client].port.is_some() && self.rng.one_in(2) {
                return self.request(client, Verb::Write, first, 1, false);
            }
            return match self.clients[client].known.get(&first).copied() {
                Some(expect) if self.layout.cell(first).1 == SECTOR_BYTES => {
                    self.compare_and_write(client, first, expect)
                }
                _ => self.request(client, Verb::Read, first, 1, false),
            };
        }
        if self.options.discards && self.rng.one_in(DISCARD_ONE_IN) {
            return self.discard(client, first);
        }
        let most = 1 + self.rng.below(RUN_MOST);
        let count = self.layout.run(first, most);
        let verb = match self.rng.below(20) {
            0 => Verb::Flush,
            1 | 2 => Verb::WriteZeroes,
            3..=9 => Verb::Read,
            _ => Verb::Write,
        };
        self.request(client, verb, first, count, false);
    }

    /// A client sends a request for `count` cells from `first` on. `last`: everything has healed.
    pub fn request(&mut self, client: usize, verb: Verb, first: usize, count: usize, last: bool) {
        let (offset, size) = self.layout.cell(first);
        let len = (count * size) as u32;
        let mut data = Vec::new();
        let mut tickets = Vec::new();
        for cell in first..first + count {
            let action = match verb {
                Verb::Flush => break,
                Verb::Read => Action::Read(None),
                Verb::WriteZeroes => Action::Write(0),
                Verb::Write => {
                    self.watch.values += 1;
                    let value: Value = self.watch.values;
                    data.extend(value.to_le_bytes().repeat(size / 8));
                    Action::Write(value)
                }
            };
            tickets.push(self.history.sent(client, self.name_of(client, cell), action, last));
        }
        let sent = self.queue.now();
        let this = &mut self.clients[client];
        let Some(connection) = this.connection else { return };
        let cookie = this.next_cookie;
        this.next_cookie += 1;
        let whole = is_in_one_extent(offset, len);
        let cell = (verb == Verb::Read && count == 1).then_some((first, None));
        this.requests.insert(cookie, Request { tickets, sent, whole, size, cell });
        let (offset, len) = if verb == Verb::Flush { (0, 0) } else { (offset, len) };
        let bytes = match &mut this.protocol {
            Protocol::Nbd(nbd) => nbd.command(verb, cookie, offset, len, &data),
            Protocol::Iscsi(iscsi) if verb == Verb::Write => iscsi.write(cookie, offset, &data),
            Protocol::Iscsi(iscsi) => iscsi.read(cookie, offset, len),
        };
        let value = self.watch.values;
        self.note(|| {
            format!("client {client} sends {cookie}: {verb:?} cells {first}+{count} (value to {value})")
        });
        self.send_to_server(connection, bytes);
    }

    /// A client zeroes everything from one cell to another.
    fn discard(&mut self, client: usize, one: usize) {
        let other = self.rng.below(self.layout.len() as u64) as usize;
        let (offset, len, cells) = self.layout.between(one, other);
        let sent = self.queue.now();
        let named: Vec<usize> = cells.iter().map(|cell| self.name_of(client, *cell)).collect();
        let this = &mut self.clients[client];
        let (Some(connection), Protocol::Nbd(nbd)) = (this.connection, &mut this.protocol) else { return };
        let cookie = this.next_cookie;
        this.next_cookie += 1;
        let bytes = nbd.command(Verb::WriteZeroes, cookie, offset, len, &[]);
        let whole = is_in_one_extent(offset, len);
        let ticket = |cell: &usize| self.history.sent(client, *cell, Action::Write(0), false);
        let tickets = named.iter().map(ticket).collect();
        this.requests.insert(cookie, Request { tickets, sent, whole, size: SECTOR_BYTES, cell: None });
        self.note(|| {
            format!("client {client} sends {cookie}: zeroes {len} bytes from {offset}, cells {cells:?}")
        });
        self.send_to_server(connection, bytes);
    }

    /// A client writes a sector if it holds what it expects.
    fn compare_and_write(&mut self, client: usize, cell: usize, expect: Value) {
        let (offset, size) = self.layout.cell(cell);
        self.watch.values += 1;
        let write = self.watch.values;
        let named = self.name_of(client, cell);
        let sent = self.queue.now();
        let this = &mut self.clients[client];
        let (Some(connection), Protocol::Iscsi(iscsi)) = (this.connection, &mut this.protocol) else {
            return;
        };
        let content = |value: Value| value.to_le_bytes().repeat(size / 8);
        let cookie = this.next_cookie;
        this.next_cookie += 1;
        let bytes = iscsi.compare_and_write(cookie, offset, &content(expect), &content(write));
        let action = Action::CompareAndWrite { expect, write, done: None };
        let tickets = vec![self.history.sent(client, named, action, false)];
        this.requests
            .insert(cookie, Request { tickets, sent, whole: true, size, cell: Some((cell, Some(write))) });
        self.note(|| format!("client {client} sends {cookie}: cell {cell} from {expect} to {write}"));
        self.send_to_server(connection, bytes);
    }

    fn byte_time(&mut self, connection: ConnectionId, send_to_client: bool) -> Time {
        let arrives = self.queue.now() + Duration::from_micros(10 + self.rng.below(100));
        let last = self.last_bytes.entry((connection, send_to_client)).or_default();
        *last = arrives.max(*last);
        *last
    }

    fn send_to_server(&mut self, connection: ConnectionId, bytes: Bytes) {
        let at = self.byte_time(connection, false);
        self.queue.at(at, Event::ToServer { connection, bytes });
    }

    /// A gateway's bytes are on their way to a client; None: the end of the connection.
    pub(crate) fn send_to_client(&mut self, connection: ConnectionId, bytes: Option<Bytes>) {
        let at = self.byte_time(connection, true);
        let event = bytes.map_or(Event::Hangup(connection), |bytes| Event::ToClient { connection, bytes });
        self.queue.at(at, event);
    }

    pub(crate) fn client_bytes(&mut self, connection: ConnectionId, bytes: &[u8]) -> Result<(), Failure> {
        let Some((client, node)) = self.connections.get(&connection).copied() else { return Ok(()) };
        if self.clients[client].connection != Some(connection) {
            return Ok(());
        }
        let mut send = Vec::new();
        let said = match &mut self.clients[client].protocol {
            Protocol::Nbd(nbd) => nbd.received(bytes, &mut send),
            Protocol::Iscsi(iscsi) => iscsi.received(bytes, &mut send),
        };
        send.into_iter().for_each(|bytes| self.send_to_server(connection, bytes));
        for said in said {
            match said {
                Said::Ready => self.clients[client].ready = true,
                Said::NoExport => self.client_leaves(client),
                Said::Reply { cookie, error, data } => self.replied(client, cookie, error, &data)?,
                Said::Nonsense => {
                    let detail = format!("node {node} does not speak client {client}'s protocol");
                    return Err(Failure::new(Checker::NoError, detail));
                }
            }
        }
        Ok(())
    }

    fn replied(&mut self, client: usize, cookie: u64, error: u32, data: &[u8]) -> Result<(), Failure> {
        let fail = |what: String| {
            Failure::new(Checker::NoError, format!("client {client}, request {cookie}: {what}"))
        };
        let Some(request) = self.clients[client].requests.remove(&cookie) else {
            return Err(fail("answered twice, or never sent".into()));
        };
        if let Some((cell, Some(write))) = request.cell
            && (error == 0 || error == MISCOMPARE)
        {
            return self.compared(client, &request, cell, (error == 0).then_some(write));
        }
        if error == NOT_BEGUN {
            request.tickets.into_iter().for_each(|ticket| self.history.refused(ticket));
            return Ok(());
        }
        if error != 0 && self.is_deleted(client) {
            return Ok(());
        }
        if error == NO_SPACE && self.options.small_disks {
            self.note(|| format!("client {client}: no space for {cookie}"));
            self.watch.refused += 1;
            // Of one that is not whole, a part may have taken effect: it stays open.
            let refused = if request.whole { request.tickets } else { Vec::new() };
            refused.into_iter().for_each(|ticket| self.history.refused(ticket));
            return Ok(());
        }
        if error != 0 {
            return Err(fail(format!("error {error}")));
        }
        let mut read = Vec::new();
        for cell in data.chunks_exact(request.size) {
            let words: Vec<Value> = cell
                .chunks_exact(8)
                .map(|w| w.iter().rev().fold(0, |v, b| v << 8 | Value::from(*b)))
                .collect();
            if words.iter().any(|w| *w != words[0]) {
                return Err(Failure::new(
                    Checker::Linearizability,
                    format!("client {client} read a torn cell: {words:?}"),
                ));
            }
            read.push(words[0]);
        }
        if let (Some((cell, None)), [value]) = (request.cell, &read[..]) {
            self.clients[client].known.insert(cell, *value);
        }
        self.note(|| format!("client {client} gets {cookie}: {read:?}"));
        self.watch.answered += 1;
        self.earlier_sessions_ended(client);
        for (n, ticket) in request.tickets.into_iter().enumerate() {
            self.history.answered(ticket, read.get(n).copied());
        }
        Ok(())
    }

    /// A compare and write is answered: with what it wrote, or that it found something else.
    fn compared(
        &mut self,
        client: usize,
        request: &Request,
        cell: usize,
        wrote: Option<Value>,
    ) -> Result<(), Failure> {
        self.note(|| format!("client {client} compared cell {cell}: {wrote:?}"));
        self.watch.answered += 1;
        self.earlier_sessions_ended(client);
        let known = &mut self.clients[client].known;
        match wrote {
            Some(value) => {
                self.watch.swapped += 1;
                known.insert(cell, value);
            }
            None => drop(known.remove(&cell)),
        }
        request.tickets.iter().for_each(|ticket| self.history.compared(*ticket, wrote.is_some()));
        Ok(())
    }

    /// Something was done over a client's session: what its earlier ones left under way happens no more.
    fn earlier_sessions_ended(&mut self, client: usize) {
        let left = core::mem::take(&mut self.clients[client].left);
        self.watch.superseded += left.len() as u64;
        left.into_iter().for_each(|ticket| self.history.superseded(ticket));
    }

    /// An initiator leaves its session as it is, to go on over another one.
    pub fn client_moves(&mut self, client: usize) {
        if let Some(connection) = self.clients[client].disconnect() {
            self.note(|| format!("client {client} goes on elsewhere than over connection {}", connection.0));
        }
    }

    /// The connection is gone. What was under way may have happened or not.
    pub(crate) fn client_hangup(&mut self, connection: ConnectionId) {
        let Some((client, _)) = self.connections.remove(&connection) else { return };
        if self.clients[client].connection == Some(connection) {
            self.clients[client].disconnect();
        }
    }

    /// A client leaves without a word.
    pub(crate) fn client_leaves(&mut self, client: usize) {
        let Some(connection) = self.clients[client].disconnect() else { return };
        self.note(|| format!("client {client} leaves connection {}", connection.0));
        let at = self.byte_time(connection, false);
        self.queue.at(at, Event::ClientGone(connection));
    }
}

fn is_in_one_extent(offset: u64, len: u32) -> bool {
    let last = offset + u64::from(len).saturating_sub(1);
    offset / EXTENT_BYTES as u64 == last / EXTENT_BYTES as u64
}
