//! Task management: commands that are given up. Answered at once, whatever the volume waits for: a command
//! that was given up is never answered, and what still comes of its request is dropped. A write that reached
//! the volume cannot be recalled and may yet take effect, as SAM-5 allows of an aborted task.
//!
//! A reset reaches the commands of this session only: other gateways' initiators are not disturbed.
//!
//! Source: RFC 7143 11.5, 11.6; SAM-5 7.

use crate::{
    full_feature::{FullFeature, Reason},
    params::SessionKind,
    pdu::{Header, Pdu, response},
};
use alloc::vec::Vec;
use holdfast_scsi::{Code, Lun};
use holdfast_types::{Exports, SessionOutput};

//= RFC 7143 11.5.1
const ABORT_TASK: u8 = 1;
const ABORT_TASK_SET: u8 = 2;
const CLEAR_TASK_SET: u8 = 4;
const LOGICAL_UNIT_RESET: u8 = 5;
const TARGET_WARM_RESET: u8 = 6;
const TASK_REASSIGN: u8 = 8;

//= RFC 7143 11.6.1
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Complete = 0,
    NoSuchTask = 1,
    NoSuchUnit = 2,
    ReassignNotSupported = 4,
    NotSupported = 5,
}

impl FullFeature {
    pub(crate) fn task_management(&mut self, pdu: &Pdu, exports: &Exports, out: &mut Vec<SessionOutput>) {
        if self.kind == SessionKind::Discovery {
            return self.reject(&pdu.header, Reason::NotSupported, out);
        }
        let outcome = self.manage(&pdu.header);
        self.open_window();
        let mut header = Header::new(response::TASK_MANAGEMENT);
        header.0[2] = outcome as u8;
        header.set(16, &pdu.header.0[16..20]);
        self.sequence.stamp(&mut header);
        self.send(header, Vec::new(), out);
        self.pump(exports, out);
    }

    fn manage(&mut self, header: &Header) -> Outcome {
        let function = header.flags() & 0x7f;
        let of_a_unit = matches!(function, ABORT_TASK_SET | CLEAR_TASK_SET | LOGICAL_UNIT_RESET);
        if of_a_unit && Lun::from_bytes(header.lun()) != Lun::Zero {
            return Outcome::NoSuchUnit;
        }
        match function {
            //= RFC 7143 11.5.5
            // On one ordered connection a command that is not here was answered before, or never sent.
            ABORT_TASK => match self.tasks.remove(header.transfer_tag()) {
                Some(_) => Outcome::Complete,
                None => Outcome::NoSuchTask,
            },
            ABORT_TASK_SET | CLEAR_TASK_SET => {
                self.tasks.drain();
                Outcome::Complete
            }
            LOGICAL_UNIT_RESET | TARGET_WARM_RESET => {
                self.tasks.drain();
                //= SAM-5 6.3.3
                if let Some(target) = &mut self.target {
                    target.attentions.raise(Code::DEVICE_RESET);
                }
                Outcome::Complete
            }
            TASK_REASSIGN => Outcome::ReassignNotSupported,
            _ => Outcome::NotSupported,
        }
    }
}
