//! Data and status for the initiator. A command that brings data and ends well has its status in the last
//! Data-In PDU; any other has a SCSI Response of its own.
//!
//! Source: RFC 7143 11.4, 11.7.

use crate::{
    command::About,
    full_feature::FullFeature,
    pdu::{FINAL, Header, NO_TAG, response},
};
use alloc::{vec, vec::Vec};
use bytes::{Buf, Bytes};
use holdfast_scsi::{Response, Status};
use holdfast_types::SessionOutput;

const STATUS: u8 = 0x01;
const UNDERFLOW: u8 = 0x02;
const OVERFLOW: u8 = 0x04;

//= RFC 7143 11.4.5
/// The residual count and its flag.
fn residual(about: About, response: &Response) -> (u8, u32) {
    let moved = if about.writes { u64::from(about.wanted) } else { response.data_bytes() as u64 };
    let expected = u64::from(about.expected);
    let flag = match moved.cmp(&expected) {
        core::cmp::Ordering::Less => UNDERFLOW,
        core::cmp::Ordering::Equal => 0,
        core::cmp::Ordering::Greater => OVERFLOW,
    };
    (flag, u32::try_from(moved.abs_diff(expected)).unwrap_or(u32::MAX))
}

impl FullFeature {
    /// Ends a command that is in no table any more.
    pub(crate) fn respond(
        &mut self,
        tag: u32,
        about: About,
        response: Response,
        out: &mut Vec<SessionOutput>,
    ) {
        self.open_window();
        let (flag, residual) = residual(about, &response);
        let sent = if about.reads { response.data_bytes().min(about.expected as usize) } else { 0 };
        let mut header;
        let mut data = Vec::new();
        if sent > 0 && response.status == Status::Good {
            return self.data_in(tag, about, response, (sent, flag, residual), out);
        }
        header = Header::new(response::SCSI_RESPONSE);
        header.0[1] |= flag;
        header.0[3] = response.status as u8;
        header.set_u32(16, tag);
        self.sequence.stamp(&mut header);
        header.set_u32(36, about.r2ts);
        header.set_u32(44, residual);
        if let Some(sense) = response.sense {
            let sense = sense.fixed();
            let mut segment = (sense.len() as u16).to_be_bytes().to_vec();
            segment.extend(sense);
            data.push(Bytes::from(segment));
        }
        self.send(header, data, out);
    }

    //= RFC 7143 11.7
    fn data_in(
        &mut self,
        tag: u32,
        about: About,
        response: Response,
        (total, flag, residual): (usize, u8, u32),
        out: &mut Vec<SessionOutput>,
    ) {
        let mut pieces = Pieces { rest: response.data.into_iter(), current: Bytes::new() };
        let (mut offset, mut sn) = (0, 0u32);
        let burst = self.params.max_burst as usize;
        while offset < total {
            // A sequence ends where a burst is full.
            let room = burst - offset % burst;
            let len = (total - offset).min(self.params.initiator_receives as usize).min(room);
            let last = offset + len == total;
            let mut header = Header::new(response::DATA_IN);
            header.0[1] = if last || len == room { FINAL } else { 0 };
            header.set(8, &about.lun);
            header.set_u32(16, tag);
            header.set_u32(20, NO_TAG);
            if last {
                header.0[1] |= STATUS | flag;
                header.0[3] = response.status as u8;
                self.sequence.stamp(&mut header);
                header.set_u32(44, residual);
            } else {
                self.sequence.stamp_without_status(&mut header);
            }
            header.set_u32(36, sn);
            header.set_u32(40, offset as u32);
            self.send(header, pieces.take(len), out);
            offset += len;
            sn = sn.wrapping_add(1);
        }
    }
}

/// Data that is cut into PDUs without a copy.
struct Pieces {
    rest: vec::IntoIter<Bytes>,
    current: Bytes,
}

impl Pieces {
    fn take(&mut self, mut bytes: usize) -> Vec<Bytes> {
        let mut taken = Vec::new();
        while bytes > 0 {
            if self.current.is_empty() {
                let Some(next) = self.rest.next() else { break };
                self.current = next;
                continue;
            }
            let len = bytes.min(self.current.len());
            taken.push(self.current.slice(..len));
            self.current.advance(len);
            bytes -= len;
        }
        taken
    }
}
