//! The full feature phase: routes each PDU to the file that knows it, and keeps what they share.
//!
//! Source: RFC 7143 4.2, 11.

use crate::{
    command::Tasks,
    login::Established,
    params::{Params, SessionKind},
    pdu::{DIGEST_BYTES, Header, NO_TAG, Pdu, encode, request, response},
    sequence::{Arrival, QUEUE_DEPTH, Sequence},
};
use alloc::{string::String, vec, vec::Vec};
use bytes::Bytes;
use holdfast_scsi::{Attentions, Code, LogicalUnit, Response, Sense};
use holdfast_types::{CloseReason, Exports, SessionOutput, Time, VolumeId};

const _: () = assert!(DIGEST_BYTES == 4, "digests fill whole words");

//= RFC 7143 11.17.1
/// Why a PDU is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    DataDigest = 0x02,
    Snack = 0x03,
    Protocol = 0x04,
    NotSupported = 0x05,
    TooManyImmediate = 0x06,
    TaskInProgress = 0x07,
    InvalidField = 0x09,
}

/// The volume of a session.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) volume: VolumeId,
    /// As the initiator last heard of it.
    size: u64,
    pub(crate) attentions: Attentions,
}

/// A session in full feature phase.
#[derive(Debug)]
pub(crate) struct FullFeature {
    pub(crate) params: Params,
    pub(crate) kind: SessionKind,
    pub(crate) sequence: Sequence,
    /// The longest data segment that the initiator may send.
    pub(crate) receives: u32,
    pub(crate) target: Option<Target>,
    pub(crate) tasks: Tasks,
    /// Text of a request that is not at its end, and of a response that is not.
    pub(crate) text_in: Vec<u8>,
    pub(crate) text_out: Bytes,
    pub(crate) last_heard: Time,
    pub(crate) ping_waits: bool,
}

impl FullFeature {
    pub(crate) fn new(now: Time, established: Established, exports: &Exports) -> Self {
        let target = established.target.map(|(name, volume)| Target {
            name,
            volume,
            size: exports.by_id(volume).map_or(0, |e| e.size),
            attentions: Attentions::power_on(),
        });
        Self {
            params: established.params,
            kind: established.kind,
            sequence: established.sequence,
            receives: established.receives,
            target,
            tasks: Tasks::default(),
            text_in: Vec::new(),
            text_out: Bytes::new(),
            last_heard: now,
            ping_waits: false,
        }
    }

    /// Data that is held or that the volume works on.
    pub(crate) fn held_bytes(&self) -> usize {
        self.tasks.held_bytes() + self.text_in.len() + self.text_out.len()
    }

    /// A PDU arrived. A reason says that the session is over.
    pub(crate) fn pdu(
        &mut self,
        now: Time,
        pdu: Pdu,
        portal: &str,
        exports: &Exports,
        out: &mut Vec<SessionOutput>,
    ) -> Option<CloseReason> {
        self.last_heard = now;
        self.ping_waits = false;
        let opcode = pdu.header.opcode();
        if pdu.data_damaged {
            return self.damaged(&pdu, exports, out);
        }
        let numbered = matches!(
            opcode,
            request::NOP_OUT
                | request::SCSI_COMMAND
                | request::TASK_MANAGEMENT
                | request::TEXT
                | request::LOGOUT
        );
        if numbered {
            match self.sequence.arrived(pdu.header.command_sn(), pdu.header.immediate()) {
                Arrival::InOrder => self.open_window(),
                //= RFC 7143 4.2.2.1
                Arrival::Outside => return None,
                Arrival::Gap => return Some(CloseReason::Protocol("a command is missing")),
            }
        }
        match opcode {
            request::NOP_OUT => self.nop_out(pdu, out),
            request::SCSI_COMMAND => self.command(pdu, exports, out),
            request::TASK_MANAGEMENT => self.task_management(&pdu, exports, out),
            request::TEXT => self.text(&pdu, portal, exports, out),
            request::DATA_OUT => self.data_out(pdu, exports, out),
            request::LOGOUT => return self.logout(&pdu, out),
            request::SNACK => self.reject(&pdu.header, Reason::Snack, out),
            request::LOGIN => self.reject(&pdu.header, Reason::Protocol, out),
            _ => self.reject(&pdu.header, Reason::NotSupported, out),
        }
        None
    }

    //= RFC 7143 7.8
    /// A data segment does not match its digest. At error recovery level 0 a lost command cannot be repeated;
    /// lost data ends its command.
    fn damaged(&mut self, pdu: &Pdu, exports: &Exports, out: &mut Vec<SessionOutput>) -> Option<CloseReason> {
        self.reject(&pdu.header, Reason::DataDigest, out);
        if pdu.header.opcode() != request::DATA_OUT {
            return Some(CloseReason::Protocol("data digest differs"));
        }
        let sense = Sense::new(holdfast_scsi::SenseKey::AbortedCommand, Code::PROTOCOL_SERVICE_CRC_ERROR);
        self.fail_receiving(pdu.header.task_tag(), sense, exports, out);
        None
    }

    pub(crate) fn send(&self, header: Header, data: Vec<Bytes>, out: &mut Vec<SessionOutput>) {
        out.extend(encode(header, data, self.params.digests).into_iter().map(SessionOutput::Send));
    }

    /// Lets in as many commands as there is room for.
    pub(crate) fn open_window(&mut self) {
        self.sequence.open(QUEUE_DEPTH.saturating_sub(self.tasks.len() as u32));
    }

    //= RFC 7143 11.17
    pub(crate) fn reject(&mut self, rejected: &Header, reason: Reason, out: &mut Vec<SessionOutput>) {
        let mut header = Header::new(response::REJECT);
        header.0[2] = reason as u8;
        header.set_u32(16, NO_TAG);
        self.sequence.stamp(&mut header);
        self.send(header, vec![Bytes::copy_from_slice(&rejected.0)], out);
    }

    //= RFC 7143 11.14, 11.15
    fn logout(&mut self, pdu: &Pdu, out: &mut Vec<SessionOutput>) -> Option<CloseReason> {
        const REMOVE_FOR_RECOVERY: u8 = 2;
        const RECOVERY_NOT_SUPPORTED: u8 = 2;
        let reason = pdu.header.flags() & 0x7f;
        if reason > REMOVE_FOR_RECOVERY {
            self.reject(&pdu.header, Reason::InvalidField, out);
            return None;
        }
        let mut header = Header::new(response::LOGOUT);
        header.set(16, &pdu.header.0[16..20]);
        if reason == REMOVE_FOR_RECOVERY {
            header.0[2] = RECOVERY_NOT_SUPPORTED;
        }
        self.sequence.stamp(&mut header);
        self.send(header, Vec::new(), out);
        (reason != REMOVE_FOR_RECOVERY).then_some(CloseReason::Logout)
    }

    /// The unit as it is now; none when the volume was deleted.
    pub(crate) fn unit<'a>(
        target: &'a mut Target,
        exports: &'a Exports,
    ) -> Option<(LogicalUnit<'a>, &'a mut Attentions)> {
        let export = exports.by_id(target.volume)?;
        let unit = LogicalUnit { export, target_name: &target.name, port: crate::PORTAL_GROUP };
        Some((unit, &mut target.attentions))
    }

    /// The volumes changed. A reason says that the session is over.
    pub(crate) fn exports_changed(
        &mut self,
        exports: &Exports,
        out: &mut Vec<SessionOutput>,
    ) -> Option<CloseReason> {
        let target = self.target.as_mut()?;
        match exports.by_id(target.volume) {
            Some(export) if export.size == target.size => None,
            Some(export) => {
                target.size = export.size;
                target.attentions.raise(Code::CAPACITY_CHANGED);
                None
            }
            None => {
                let gone = Response::check(Sense::illegal(Code::LOGICAL_UNIT_NOT_SUPPORTED));
                for (tag, about) in self.tasks.drain() {
                    self.respond(tag, about, gone.clone(), out);
                }
                Some(CloseReason::VolumeGone)
            }
        }
    }
}
