//! SCSI commands between their arrival and their response.
//!
//! ```text
//! (arrived) --> Receiving --> Ready --> Running --> (responded)
//!      \______________________^  \________^ |
//!                                          \_/ next step
//! ```
//!
//! At most [`MAX_IN_FLIGHT_BYTES`] of data are asked for or worked on at once; what is above waits in the order
//! of arrival. When nothing is under way the first of those that wait goes on, however large it is, so there
//! is always progress.
//!
//! Tasks of every attribute are started as SIMPLE ones (SAM-5 8.6).
//!
//! Source: RFC 7143 11.3, SAM-5 5.

use crate::{
    data_out::Receiving,
    full_feature::{FullFeature, Reason},
    params::SessionKind,
    pdu::{FINAL, Pdu},
    sequence::QUEUE_DEPTH,
    session::MAX_IN_FLIGHT_BYTES,
};
use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};
use bytes::Bytes;
use holdfast_scsi::{Cdb, Code, Lun, Response, RunningTask, Sense, SenseKey, Step, execute};
use holdfast_types::{BlockRequest, BlockResult, Exports, SessionOutput};

/// How many immediate commands there may be besides those of the window.
const IMMEDIATE_COMMANDS: usize = 16;
/// What a request without data counts for, so that their number is bounded too.
const LEAST_BYTES: usize = 4096;
const READ: u8 = 0x40;
const WRITE: u8 = 0x20;

/// What is needed of a command to answer it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    pub(crate) lun: [u8; 8],
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    /// How much data the initiator expects to move.
    pub(crate) expected: u32,
    /// How much data from the initiator the CDB asks for.
    pub(crate) wanted: u32,
    /// How many R2Ts were sent.
    pub(crate) r2ts: u32,
}

/// Where a command is.
#[derive(Debug)]
pub(crate) enum State {
    /// Waits for the initiator's data.
    Receiving(Receiving),
    /// Waits for room.
    Ready { request: BlockRequest, task: RunningTask },
    /// Waits for the volume.
    Running { tag: u64, task: RunningTask },
}

#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) about: About,
    pub(crate) state: State,
    /// What of `Tasks::in_flight` is this task's.
    pub(crate) reserved: usize,
}

/// A request at the volume. Its command may be gone by now.
#[derive(Debug)]
struct Request {
    task_tag: Option<u32>,
    bytes: usize,
}

/// Every command of a session, by its initiator task tag.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    pub(crate) table: BTreeMap<u32, Task>,
    /// Those that wait for room.
    waiting: VecDeque<u32>,
    requests: BTreeMap<u64, Request>,
    last_tag: u64,
    /// Commands that were asked for solicited data.
    pub(crate) soliciting: usize,
    pub(crate) next_transfer_tag: u32,
    in_flight: usize,
    /// The initiator does not take what it was sent: nothing is started that would add to it.
    pub(crate) deaf: bool,
}

impl Tasks {
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
    pub(crate) fn held_bytes(&self) -> usize {
        self.in_flight
    }
    /// Counts bytes that are held for a task.
    pub(crate) fn reserve(&mut self, task: &mut Task, bytes: usize) {
        task.reserved += bytes;
        self.in_flight += bytes;
    }
    fn release(&mut self, bytes: usize) {
        assert!(bytes <= self.in_flight, "released more than was reserved");
        self.in_flight -= bytes;
    }
    /// Whether `bytes` more may be under way.
    fn admits(&self, bytes: usize) -> bool {
        let idle = self.requests.is_empty() && self.soliciting == 0;
        !self.deaf && (idle || self.in_flight + bytes <= MAX_IN_FLIGHT_BYTES)
    }
    pub(crate) fn wait(&mut self, tag: u32) {
        self.waiting.push_back(tag);
    }

    //= SAM-5 7.2
    /// Forgets a command: it is never answered. A request that is at the volume cannot be recalled; what comes
    /// of it is dropped.
    pub(crate) fn remove(&mut self, tag: u32) -> Option<About> {
        let task = self.table.remove(&tag)?;
        self.waiting.retain(|waiting| *waiting != tag);
        self.release(task.reserved);
        match task.state {
            State::Running { tag, .. } => {
                if let Some(request) = self.requests.get_mut(&tag) {
                    request.task_tag = None;
                }
            }
            State::Receiving(receiving) if receiving.is_soliciting() => self.soliciting -= 1,
            State::Receiving(_) | State::Ready { .. } => {}
        }
        Some(task.about)
    }

    /// Forgets every command.
    pub(crate) fn drain(&mut self) -> Vec<(u32, About)> {
        let tags: Vec<u32> = self.table.keys().copied().collect();
        tags.into_iter().filter_map(|tag| Some((tag, self.remove(tag)?))).collect()
    }
}

/// What a request holds of the session's memory.
fn cost(request: &BlockRequest) -> usize {
    let bytes = match request {
        BlockRequest::Read { len, .. } => *len as usize,
        BlockRequest::Write { data, .. } => data.iter().map(Bytes::len).sum(),
        BlockRequest::CompareAndWrite { compare, data, .. } => compare.len() + data.len(),
        BlockRequest::Zero { .. } | BlockRequest::Flush | BlockRequest::Status { .. } => 0,
    };
    bytes.max(LEAST_BYTES)
}

impl FullFeature {
    /// A SCSI Command PDU.
    pub(crate) fn command(&mut self, pdu: Pdu, exports: &Exports, out: &mut Vec<SessionOutput>) {
        let tag = pdu.header.task_tag();
        if self.kind == SessionKind::Discovery {
            return self.reject(&pdu.header, Reason::NotSupported, out);
        }
        if self.tasks.table.contains_key(&tag) {
            return self.reject(&pdu.header, Reason::TaskInProgress, out);
        }
        if self.tasks.len() >= QUEUE_DEPTH as usize + IMMEDIATE_COMMANDS {
            return self.reject(&pdu.header, Reason::TooManyImmediate, out);
        }
        let flags = pdu.header.flags();
        let about = About {
            lun: pdu.header.lun(),
            reads: flags & READ != 0,
            writes: flags & WRITE != 0,
            expected: pdu.header.u32(20),
            wanted: 0,
            r2ts: 0,
        };
        if let Err(sense) = self.unsolicited_data_is_agreed(&pdu, about) {
            return self.respond(tag, about, Response::check(sense), out);
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&pdu.header.0[32..48]);
        let unit = self.target.as_mut().and_then(|target| FullFeature::unit(target, exports));
        let step = match unit {
            Some((unit, attentions)) => execute(&Cdb(bytes), Lun::from_bytes(about.lun), unit, attentions),
            None => Step::check(Sense::illegal(Code::LOGICAL_UNIT_NOT_SUPPORTED)),
        };
        let final_data = flags & FINAL != 0;
        match step {
            Step::NeedData { bytes, task } if task.takes_exactly() && about.expected != bytes => {
                self.respond(tag, about, Response::check(Sense::wrong_length()), out);
            }
            Step::NeedData { bytes, task } => {
                self.receive(
                    tag,
                    about,
                    Receiving::new(task, about, bytes, final_data),
                    pdu.data,
                    exports,
                    out,
                );
            }
            step => self.step(tag, about, 0, step, exports, out),
        }
        self.pump(exports, out);
    }

    //= RFC 7143 13.10, 13.11, 13.14
    fn unsolicited_data_is_agreed(&self, pdu: &Pdu, about: About) -> Result<(), Sense> {
        let immediate = pdu.header.data_bytes();
        let follows = about.writes && !pdu.header.is_final();
        let unexpected =
            (immediate > 0 && !self.params.immediate_data) || (follows && self.params.initial_r2t);
        if unexpected {
            return Err(Sense::new(SenseKey::AbortedCommand, Code::UNEXPECTED_UNSOLICITED_DATA));
        }
        let most = if about.writes { about.expected.min(self.params.first_burst) } else { 0 };
        if immediate > most as usize {
            return Err(Sense::new(SenseKey::AbortedCommand, Code::INCORRECT_AMOUNT_OF_DATA));
        }
        Ok(())
    }

    /// Does what a command needs next. `reserved` bytes are held for it.
    pub(crate) fn step(
        &mut self,
        tag: u32,
        about: About,
        reserved: usize,
        step: Step,
        exports: &Exports,
        out: &mut Vec<SessionOutput>,
    ) {
        match step {
            Step::Respond(response) => {
                self.tasks.release(reserved);
                self.respond(tag, about, response, out);
            }
            Step::NeedData { bytes, task } => {
                self.tasks.release(reserved);
                let receiving = Receiving::new(task, about, bytes, true);
                self.receive(tag, about, receiving, Vec::new(), exports, out);
            }
            Step::Submit { request, task } => {
                let more = cost(&request).saturating_sub(reserved);
                let mut entry = Task { about, state: State::Ready { request, task }, reserved };
                // Data that is here already waits for nothing: it holds its memory either way.
                let admitted = reserved > 0 || self.tasks.admits(more);
                if admitted {
                    self.tasks.reserve(&mut entry, more);
                }
                self.tasks.table.insert(tag, entry);
                if admitted {
                    self.submit(tag, out);
                } else {
                    self.tasks.wait(tag);
                }
            }
        }
    }

    /// Hands a ready task's request to the volume.
    fn submit(&mut self, tag: u32, out: &mut Vec<SessionOutput>) {
        let Some(target) = &self.target else { return };
        let Some(Task { about, state: State::Ready { request, task }, reserved }) =
            self.tasks.table.remove(&tag)
        else {
            return;
        };
        self.tasks.last_tag += 1;
        let request_tag = self.tasks.last_tag;
        self.tasks.requests.insert(request_tag, Request { task_tag: Some(tag), bytes: reserved });
        let state = State::Running { tag: request_tag, task };
        self.tasks.table.insert(tag, Task { about, state, reserved: 0 });
        out.push(SessionOutput::Submit { tag: request_tag, volume: target.volume, request });
    }

    /// Starts what waits, as far as there is room.
    pub(crate) fn pump(&mut self, exports: &Exports, out: &mut Vec<SessionOutput>) {
        while let Some(&tag) = self.tasks.waiting.front() {
            let Some(mut task) = self.tasks.table.remove(&tag) else {
                self.tasks.waiting.pop_front();
                continue;
            };
            let more = match &task.state {
                State::Ready { request, .. } => cost(request).saturating_sub(task.reserved),
                State::Receiving(receiving) => receiving.missing() as usize,
                State::Running { .. } => 0,
            };
            if !self.tasks.admits(more) {
                self.tasks.table.insert(tag, task);
                return;
            }
            self.tasks.waiting.pop_front();
            self.tasks.reserve(&mut task, more);
            let solicits = match &mut task.state {
                State::Receiving(receiving) => {
                    receiving.solicit();
                    self.tasks.soliciting += 1;
                    true
                }
                State::Ready { .. } | State::Running { .. } => false,
            };
            self.tasks.table.insert(tag, task);
            if solicits {
                self.go_on_receiving(tag, exports, out);
            } else {
                self.submit(tag, out);
            }
        }
    }

    /// The volume answered.
    pub(crate) fn completed(
        &mut self,
        request_tag: u64,
        result: BlockResult,
        exports: &Exports,
        out: &mut Vec<SessionOutput>,
    ) {
        let Some(request) = self.tasks.requests.remove(&request_tag) else { return };
        let task = request.task_tag.and_then(|tag| Some((tag, self.tasks.table.remove(&tag)?)));
        match task {
            Some((tag, Task { about, state: State::Running { task, .. }, .. })) => {
                // What the request held is held for the next step, or released by the last.
                self.step(tag, about, request.bytes, task.completed(result), exports, out);
            }
            _ => self.tasks.release(request.bytes),
        }
        self.open_window();
        self.pump(exports, out);
    }
}
