//! What a command comes to: a status, with data for the initiator or sense, or a step that needs something
//! first.

use crate::{DataTask, RunningTask, Sense};
use alloc::{vec, vec::Vec};
use bytes::Bytes;
use holdfast_types::BlockRequest;

/// A status code (SAM-5 5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The command did what it says.
    Good = 0x00,
    /// It did not; the sense says why.
    CheckCondition = 0x02,
    /// No room for another command now.
    TaskSetFull = 0x28,
}

/// The end of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// How it ended.
    pub status: Status,
    /// Data for the initiator, in pieces that follow each other.
    pub data: Vec<Bytes>,
    /// Why it failed.
    pub sense: Option<Sense>,
}

impl Response {
    /// Done, nothing to hand over.
    pub fn good() -> Self {
        Self { status: Status::Good, data: Vec::new(), sense: None }
    }
    /// Done, with data.
    pub fn pieces(data: Vec<Bytes>) -> Self {
        Self { status: Status::Good, data, sense: None }
    }
    /// Done, with data, of which the initiator takes `allocation` bytes.
    pub fn data(mut data: Vec<u8>, allocation: usize) -> Self {
        data.truncate(allocation);
        Self::pieces(vec![Bytes::from(data)])
    }
    /// Failed.
    pub fn check(sense: Sense) -> Self {
        Self { status: Status::CheckCondition, data: Vec::new(), sense: Some(sense) }
    }
    /// How many bytes of data.
    pub fn data_bytes(&self) -> usize {
        self.data.iter().map(Bytes::len).sum()
    }
}

/// What a command needs next.
#[derive(Debug)]
pub enum Step {
    /// Nothing: this is its end.
    Respond(Response),
    /// The initiator's data, `bytes` of it; then [`DataTask::data`].
    NeedData {
        /// How many bytes the CDB asks for.
        bytes: u32,
        /// The command.
        task: DataTask,
    },
    /// A request to the volume; then [`RunningTask::completed`].
    Submit {
        /// The request.
        request: BlockRequest,
        /// The command.
        task: RunningTask,
    },
}

impl Step {
    /// The end, with sense.
    pub fn check(sense: Sense) -> Step {
        Step::Respond(Response::check(sense))
    }
    /// The end, with data of which the initiator takes `allocation` bytes.
    pub fn data(data: Vec<u8>, allocation: usize) -> Step {
        Step::Respond(Response::data(data, allocation))
    }
    /// The end, nothing to hand over.
    pub fn good() -> Step {
        Step::Respond(Response::good())
    }
}

/// A step, or the sense that ends the command: lets handlers use `?`.
pub type Outcome = Result<Step, Sense>;
