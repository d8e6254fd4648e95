//! A command between its steps. One that waits for the initiator's data and one that waits for the volume are
//! different types, so that neither can be handed what the other waits for.
//!
//! A task has at most one request at the volume at a time.

use crate::{
    Code, Response, Sense, SenseKey, Step,
    compare_and_write::CompareAndWrite,
    lba_status::LbaStatus,
    mode::ModeSelect,
    read_write::Write,
    unmap::{Unmap, UnmapList},
    verify::Verify,
    write_same::{Fill, WriteSame},
};
use alloc::vec::Vec;
use bytes::Bytes;
use holdfast_types::{BlockError, BlockReply, BlockResult};

/// A command that waits for the initiator's data.
#[derive(Debug)]
pub enum DataTask {
    /// WRITE, WRITE AND VERIFY
    Write(Write),
    /// VERIFY with data to compare
    Verify(Verify),
    /// WRITE SAME
    WriteSame(WriteSame),
    /// UNMAP
    Unmap(UnmapList),
    /// COMPARE AND WRITE
    CompareAndWrite(CompareAndWrite),
    /// MODE SELECT
    ModeSelect(ModeSelect),
}

impl DataTask {
    /// Whether the initiator is to offer exactly what the CDB asks for. Of any other command it may offer more,
    /// which is left unread.
    pub fn takes_exactly(&self) -> bool {
        matches!(self, DataTask::WriteSame(_) | DataTask::CompareAndWrite(_))
    }
    /// The data arrived; pieces that follow each other. Its length was given with [`Step::NeedData`]; an
    /// initiator that sends less fails.
    pub fn data(self, data: Vec<Bytes>) -> Step {
        let step = match self {
            DataTask::Write(task) => task.data(data),
            DataTask::Verify(task) => task.data(data),
            DataTask::WriteSame(task) => task.data(data),
            DataTask::Unmap(task) => task.data(data),
            DataTask::CompareAndWrite(task) => task.data(data),
            DataTask::ModeSelect(task) => task.data(data),
        };
        step.unwrap_or_else(Step::check)
    }
}

/// A command that waits for the volume.
#[derive(Debug)]
pub enum RunningTask {
    /// READ of that many bytes
    Read(u64),
    /// Anything that is over when its one request is done
    Last,
    /// WRITE AND VERIFY: what follows the write
    ThenVerify(Verify),
    /// VERIFY
    Verify(Verify),
    /// WRITE SAME of another pattern than zeros
    Fill(Fill),
    /// UNMAP
    Unmap(Unmap),
    /// GET LBA STATUS
    LbaStatus(LbaStatus),
}

impl RunningTask {
    /// The request is answered.
    pub fn completed(self, result: BlockResult) -> Step {
        let reply = match result {
            Ok(reply) => reply,
            Err(error) => return Step::check(sense_of(error)),
        };
        let step = match (self, reply) {
            (RunningTask::Read(bytes), BlockReply::Data(data)) if total(&data) == bytes => {
                Ok(Step::Respond(Response::pieces(data)))
            }
            (RunningTask::Last, BlockReply::Done) => Ok(Step::good()),
            (RunningTask::ThenVerify(task), BlockReply::Done) => Ok(task.next()),
            (RunningTask::Verify(task), BlockReply::Data(data)) => task.read(&data),
            (RunningTask::Fill(task), BlockReply::Done) => Ok(task.next()),
            (RunningTask::Unmap(task), BlockReply::Done) => Ok(task.next()),
            (RunningTask::LbaStatus(task), BlockReply::Status(runs)) => Ok(task.status(&runs)),
            // The volume answered something else than was asked: a fault of ours, told rather than hidden.
            _ => Err(Sense::new(SenseKey::HardwareError, Code::INTERNAL_TARGET_FAILURE)),
        };
        step.unwrap_or_else(Step::check)
    }
}

/// How long the pieces are together.
pub(crate) fn total(pieces: &[Bytes]) -> u64 {
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

/// What a failed request means in SCSI's words.
pub fn sense_of(error: BlockError) -> Sense {
    match error {
        //= SBC-4 5.3
        BlockError::Miscompare { at } => {
            Sense::new(SenseKey::Miscompare, Code::MISCOMPARE_DURING_VERIFY).with_information(u64::from(at))
        }
        BlockError::OutOfRange => Sense::illegal(Code::LBA_OUT_OF_RANGE),
        //= SBC-4 4.7.3.6
        BlockError::NoSpace => Sense::new(SenseKey::DataProtect, Code::SPACE_ALLOCATION_FAILED),
        BlockError::Unreadable => Sense::new(SenseKey::MediumError, Code::UNRECOVERED_READ_ERROR),
        BlockError::Gone => Sense::illegal(Code::LOGICAL_UNIT_NOT_SUPPORTED),
        BlockError::Fenced => Sense::new(SenseKey::AbortedCommand, Code::COMMANDS_CLEARED_BY_DEVICE_SERVER),
        BlockError::Invalid => Sense::new(SenseKey::HardwareError, Code::INTERNAL_TARGET_FAILURE),
    }
}
