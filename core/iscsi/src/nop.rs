//! NOP-Out and NOP-In: each side asks whether the other one is there.
//!
//! Source: RFC 7143 11.18, 11.19.

use crate::{
    full_feature::FullFeature,
    pdu::{Header, NO_TAG, Pdu, response},
    session::PING_AFTER,
};
use alloc::vec::Vec;
use bytes::Bytes;
use holdfast_types::{SessionOutput, Time};

/// The transfer tag of the target's own pings; one is under way at a time.
const PING_TAG: u32 = 1;

impl FullFeature {
    /// Answers a ping, with the data that came with it. A NOP-Out without a tag answers the target's own.
    pub(crate) fn nop_out(&mut self, pdu: Pdu, out: &mut Vec<SessionOutput>) {
        if pdu.header.task_tag() == NO_TAG {
            return;
        }
        let mut header = Header::new(response::NOP_IN);
        header.set(8, &pdu.header.lun());
        header.set(16, &pdu.header.0[16..20]);
        header.set_u32(20, NO_TAG);
        self.sequence.stamp(&mut header);
        let mut data: Vec<Bytes> = Vec::new();
        let mut room = self.params.initiator_receives as usize;
        for piece in pdu.data {
            let len = piece.len().min(room);
            room -= len;
            data.push(piece.slice(..len));
        }
        self.send(header, data, out);
    }

    /// When the target wants to ask.
    pub(crate) fn ping_at(&self) -> Option<Time> {
        (!self.ping_waits).then_some(self.last_heard + PING_AFTER)
    }

    /// Asks, after a long silence, once.
    pub(crate) fn ping_when_due(&mut self, now: Time, out: &mut Vec<SessionOutput>) {
        if self.ping_at().is_none_or(|due| now < due) {
            return;
        }
        self.ping_waits = true;
        let mut header = Header::new(response::NOP_IN);
        header.set_u32(16, NO_TAG);
        header.set_u32(20, PING_TAG);
        self.sequence.stamp_unnumbered(&mut header);
        self.send(header, Vec::new(), out);
    }
}
