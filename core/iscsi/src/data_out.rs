//! Data from the initiator: immediate, unsolicited, and what this target asks for with R2Ts. Gathered in the
//! pieces that it arrives in, without a copy.
//!
//! Source: RFC 7143 4.2.5, 11.7, 11.8.

use crate::{
    command::{About, State, Task},
    full_feature::FullFeature,
    pdu::{Header, NO_TAG, Pdu, response},
};
use alloc::{collections::VecDeque, vec::Vec};
use bytes::Bytes;
use holdfast_scsi::{Code, DataTask, Response, Sense, SenseKey};
use holdfast_types::{Exports, SessionOutput};

/// What one R2T asked for.
#[derive(Debug)]
struct Burst {
    transfer_tag: u32,
    end: u32,
    next_sn: u32,
}

/// A command whose data is under way.
#[derive(Debug)]
pub(crate) struct Receiving {
    task: DataTask,
    /// How much the CDB asks for.
    asked: u32,
    /// How much of that the initiator has.
    wanted: u32,
    pieces: Vec<Bytes>,
    /// How much arrived, surplus included.
    received: u32,
    /// Unsolicited data follows; the number of its next PDU.
    unsolicited: Option<u32>,
    /// R2Ts may be sent.
    soliciting: bool,
    /// How far R2Ts asked.
    solicited: u32,
    bursts: VecDeque<Burst>,
}

/// Data that is not what was agreed.
const WRONG_AMOUNT: Sense = Sense::new(SenseKey::AbortedCommand, Code::INCORRECT_AMOUNT_OF_DATA);
//= RFC 7143 7.9
/// Data out of its order: some of it was lost.
const OUT_OF_ORDER: Sense = Sense::new(SenseKey::AbortedCommand, Code::PROTOCOL_SERVICE_CRC_ERROR);

impl Receiving {
    pub(crate) fn new(task: DataTask, about: About, asked: u32, final_data: bool) -> Self {
        Self {
            task,
            asked,
            wanted: if about.writes { asked.min(about.expected) } else { 0 },
            pieces: Vec::new(),
            received: 0,
            unsolicited: if final_data { None } else { Some(0) },
            soliciting: false,
            solicited: 0,
            bursts: VecDeque::new(),
        }
    }
    pub(crate) fn is_soliciting(&self) -> bool {
        self.soliciting
    }
    /// R2Ts may be sent from now on.
    pub(crate) fn solicit(&mut self) {
        self.soliciting = true;
        self.solicited = self.received;
    }
    /// How much has yet to arrive.
    pub(crate) fn missing(&self) -> u32 {
        self.wanted.saturating_sub(self.received)
    }
    /// Keeps what arrived, except what is beyond what the CDB asks for. Returns how much was kept.
    fn keep(&mut self, data: Vec<Bytes>) -> usize {
        let mut kept = 0;
        for mut piece in data {
            let len = piece.len();
            piece.truncate(self.missing() as usize);
            self.received += len as u32;
            kept += piece.len();
            if !piece.is_empty() {
                self.pieces.push(piece);
            }
        }
        kept
    }

    /// Judges a Data-Out PDU and keeps its data. Returns how much was kept.
    fn data_out(&mut self, pdu: Pdu, most_unsolicited: u32) -> Result<usize, Sense> {
        let (sn, offset) = (pdu.header.u32(36), pdu.header.u32(40));
        let len = pdu.header.data_bytes() as u32;
        let last = pdu.header.is_final();
        if offset != self.received {
            return Err(OUT_OF_ORDER);
        }
        let end = self.received + len;
        if pdu.header.transfer_tag() == NO_TAG {
            match &mut self.unsolicited {
                Some(next) if *next == sn => *next += 1,
                Some(_) => return Err(OUT_OF_ORDER),
                None => return Err(Sense::new(SenseKey::AbortedCommand, Code::UNEXPECTED_UNSOLICITED_DATA)),
            }
            if end > most_unsolicited {
                return Err(WRONG_AMOUNT);
            }
            if last {
                self.unsolicited = None;
            }
            return Ok(self.keep(pdu.data));
        }
        let Some(burst) = self.bursts.front_mut() else { return Err(OUT_OF_ORDER) };
        if burst.transfer_tag != pdu.header.transfer_tag() || burst.next_sn != sn {
            return Err(OUT_OF_ORDER);
        }
        burst.next_sn += 1;
        //= RFC 7143 11.7.1
        if end > burst.end || last != (end == burst.end) {
            return Err(WRONG_AMOUNT);
        }
        if last {
            self.bursts.pop_front();
        }
        // What R2Ts ask for was reserved when they were sent.
        self.keep(pdu.data);
        Ok(0)
    }
}

impl FullFeature {
    /// Begins to gather a command's data, of which some may have come with it.
    pub(crate) fn receive(
        &mut self,
        tag: u32,
        mut about: About,
        mut receiving: Receiving,
        immediate: Vec<Bytes>,
        exports: &Exports,
        out: &mut Vec<SessionOutput>,
    ) {
        about.wanted = receiving.asked;
        let kept = receiving.keep(immediate);
        let mut task = Task { about, state: State::Receiving(receiving), reserved: 0 };
        self.tasks.reserve(&mut task, kept);
        self.tasks.table.insert(tag, task);
        self.go_on_receiving(tag, exports, out);
    }

    /// A Data-Out PDU. One of a command that is not there is dropped: it was on its way when its command ended.
    pub(crate) fn data_out(&mut self, pdu: Pdu, exports: &Exports, out: &mut Vec<SessionOutput>) {
        let tag = pdu.header.task_tag();
        let Some(mut task) = self.tasks.table.remove(&tag) else { return };
        let most_unsolicited = task.about.expected.min(self.params.first_burst);
        let result = match &mut task.state {
            State::Receiving(receiving) => receiving.data_out(pdu, most_unsolicited),
            State::Ready { .. } | State::Running { .. } => Ok(0),
        };
        if let Ok(kept) = result {
            self.tasks.reserve(&mut task, kept);
        }
        let receives = matches!(task.state, State::Receiving(_));
        self.tasks.table.insert(tag, task);
        match result {
            Err(sense) => self.fail_receiving(tag, sense, exports, out),
            Ok(_) if receives => self.go_on_receiving(tag, exports, out),
            Ok(_) => {}
        }
        self.pump(exports, out);
    }

    /// Ends a command whose data is not what was agreed.
    pub(crate) fn fail_receiving(
        &mut self,
        tag: u32,
        sense: Sense,
        exports: &Exports,
        out: &mut Vec<SessionOutput>,
    ) {
        if matches!(self.tasks.table.get(&tag), Some(Task { state: State::Receiving(_), .. }))
            && let Some(about) = self.tasks.remove(tag)
        {
            self.respond(tag, about, Response::check(sense), out);
            self.pump(exports, out);
        }
    }

    /// Does what a command that gathers data needs next: hand the data over, ask for more, or wait.
    pub(crate) fn go_on_receiving(&mut self, tag: u32, exports: &Exports, out: &mut Vec<SessionOutput>) {
        let Some(Task { mut about, state: State::Receiving(mut receiving), reserved }) =
            self.tasks.table.remove(&tag)
        else {
            return;
        };
        if receiving.unsolicited.is_none() && receiving.missing() == 0 {
            if receiving.soliciting {
                self.tasks.soliciting -= 1;
            }
            let step = receiving.task.data(receiving.pieces);
            return self.step(tag, about, reserved, step, exports, out);
        }
        if receiving.soliciting {
            self.send_r2ts(tag, &mut about, &mut receiving, out);
        } else if receiving.unsolicited.is_none() {
            self.tasks.wait(tag);
        }
        self.tasks.table.insert(tag, Task { about, state: State::Receiving(receiving), reserved });
    }

    //= RFC 7143 11.8
    fn send_r2ts(
        &mut self,
        tag: u32,
        about: &mut About,
        receiving: &mut Receiving,
        out: &mut Vec<SessionOutput>,
    ) {
        while receiving.solicited < receiving.wanted && receiving.bursts.len() < self.params.max_r2ts as usize
        {
            let len = (receiving.wanted - receiving.solicited).min(self.params.max_burst);
            self.tasks.next_transfer_tag = (self.tasks.next_transfer_tag + 1) % NO_TAG;
            let transfer_tag = self.tasks.next_transfer_tag;
            let mut header = Header::new(response::R2T);
            header.set(8, &about.lun);
            header.set_u32(16, tag);
            header.set_u32(20, transfer_tag);
            self.sequence.stamp_unnumbered(&mut header);
            header.set_u32(36, about.r2ts);
            header.set_u32(40, receiving.solicited);
            header.set_u32(44, len);
            self.send(header, Vec::new(), out);
            about.r2ts += 1;
            receiving.solicited += len;
            receiving.bursts.push_back(Burst { transfer_tag, end: receiving.solicited, next_sn: 0 });
        }
    }
}
