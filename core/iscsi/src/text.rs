//! Text requests in full feature phase: SendTargets, and the one key that may change during a session.
//!
//! Source: RFC 7143 11.10, 11.11, appendix C.

use crate::{
    IQN_PREFIX, PORTAL_GROUP,
    full_feature::{FullFeature, Reason},
    params::{Answer, SessionKind, pairs, push_pair},
    pdu::{FINAL, Header, NO_TAG, Pdu, response},
};
use alloc::{format, vec, vec::Vec};
use bytes::Bytes;
use holdfast_types::{Exports, SessionOutput};

/// How much text of one request may be spread over several PDUs.
const MAX_TEXT_BYTES: usize = 64 << 10;
const CONTINUE: u8 = 0x40;
/// The transfer tag of an exchange that goes on.
const EXCHANGE_TAG: u32 = 2;

impl FullFeature {
    pub(crate) fn text(&mut self, pdu: &Pdu, portal: &str, exports: &Exports, out: &mut Vec<SessionOutput>) {
        let more = pdu.header.flags() & CONTINUE != 0;
        if (more && pdu.header.is_final()) || self.text_in.len() + pdu.header.data_bytes() > MAX_TEXT_BYTES {
            self.text_in = Vec::new();
            return self.reject(&pdu.header, Reason::InvalidField, out);
        }
        if pdu.header.transfer_tag() == NO_TAG {
            // A new exchange ends an old one.
            self.text_in = Vec::new();
            self.text_out = Bytes::new();
        }
        let goes_on = pdu.header.data_bytes() == 0 && !self.text_out.is_empty();
        if !goes_on {
            self.text_in.extend(pdu.text());
        }
        if more {
            return self.send_text(pdu, true, out);
        }
        if !goes_on {
            let Some(pairs) = pairs(&core::mem::take(&mut self.text_in)) else {
                return self.reject(&pdu.header, Reason::InvalidField, out);
            };
            let mut answer = Vec::new();
            for (key, value) in pairs {
                self.answer(&key, &value, portal, exports, &mut answer);
            }
            self.text_out = Bytes::from(answer);
        }
        self.send_text(pdu, false, out);
    }

    fn answer(&mut self, key: &str, value: &str, portal: &str, exports: &Exports, answer: &mut Vec<u8>) {
        match key {
            "SendTargets" => self.send_targets(value, portal, exports, answer),
            //= RFC 7143 13.12
            "MaxRecvDataSegmentLength" => {
                if self.params.negotiate(key, value, self.kind) == Answer::Invalid {
                    push_pair(answer, key, "Reject");
                }
            }
            _ => push_pair(answer, key, "NotUnderstood"),
        }
    }

    //= RFC 7143 C
    fn send_targets(&self, which: &str, portal: &str, exports: &Exports, answer: &mut Vec<u8>) {
        let own = self.target.as_ref().map(|target| target.name.as_str());
        let all = which == "All" && self.kind == SessionKind::Discovery;
        for volume in exports.volumes.keys() {
            let name = format!("{IQN_PREFIX}{volume}");
            let wanted = all || which == name || (which.is_empty() && own == Some(name.as_str()));
            if wanted {
                push_pair(answer, "TargetName", &name);
                push_pair(answer, "TargetAddress", &format!("{portal},{PORTAL_GROUP}"));
            }
        }
        if which == "All" && !all {
            push_pair(answer, "SendTargets", "Reject");
        }
    }

    /// Sends as much text as the initiator takes; the rest waits for its next request.
    fn send_text(&mut self, pdu: &Pdu, request_goes_on: bool, out: &mut Vec<SessionOutput>) {
        let len = self.text_out.len().min(self.params.initiator_receives as usize);
        let data = self.text_out.split_to(len);
        let rest = !self.text_out.is_empty();
        let mut header = Header::new(response::TEXT);
        header.0[1] = match (rest, request_goes_on) {
            (true, _) => CONTINUE,
            (false, true) => 0,
            (false, false) => FINAL,
        };
        header.set(8, &pdu.header.lun());
        header.set(16, &pdu.header.0[16..20]);
        header.set_u32(20, if rest || request_goes_on { EXCHANGE_TAG } else { NO_TAG });
        self.sequence.stamp(&mut header);
        self.send(header, vec![data], out);
    }
}
