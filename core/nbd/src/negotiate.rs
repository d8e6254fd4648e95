//! Negotiation: what the client asks for before it is on a volume ("Newstyle negotiation", "Option types").

use crate::{
    input::Fields,
    reply::option_reply,
    wire::{self, answer, info, option},
};
use alloc::{string::String, vec::Vec};
use bytes::{BufMut, Bytes};
use holdfast_types::{CloseReason, Export, Exports, NOT_JOINED, SessionOutput, VolumeId};

/// What has been agreed so far.
#[derive(Debug, Default)]
pub(crate) struct Negotiation {
    no_zeroes: bool,
    structured: bool,
    /// The export for which `base:allocation` was chosen.
    allocation_of: Option<String>,
}

/// What was agreed when commands begin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Agreement {
    pub(crate) volume: VolumeId,
    pub(crate) structured: bool,
    pub(crate) allocation: bool,
}

/// Where an option leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// More options follow.
    Stay,
    /// Commands follow.
    Transmit(Agreement),
    /// The connection ends.
    Close(CloseReason),
}

/// An export by the name that the client gave; no name means the only one there is.
fn find<'a>(exports: &'a Exports, name: &[u8]) -> Option<(&'a str, &'a Export)> {
    let found = if name.is_empty() && exports.volumes.len() == 1 {
        exports.volumes.iter().next()
    } else {
        let name = core::str::from_utf8(name).ok()?;
        exports.volumes.get_key_value(name)
    };
    found.map(|(name, export)| (name.as_str(), export))
}

impl Negotiation {
    pub(crate) fn new(client_flags: u32) -> Option<Negotiation> {
        let known = u32::from(wire::FLAG_FIXED_NEWSTYLE | wire::FLAG_NO_ZEROES);
        let no_zeroes = client_flags & u32::from(wire::FLAG_NO_ZEROES) != 0;
        (client_flags & !known == 0).then_some(Negotiation { no_zeroes, ..Self::default() })
    }

    /// One option with its data.
    pub(crate) fn option(
        &mut self,
        number: u32,
        data: Bytes,
        exports: &Exports,
        out: &mut Vec<SessionOutput>,
    ) -> Step {
        let mut answer = |kind| out.push(option_reply(number, kind, &[]));
        match number {
            option::EXPORT_NAME if exports.not_joined => return Step::Close(CloseReason::NotReady),
            option::LIST
            | option::INFO
            | option::GO
            | option::LIST_META_CONTEXT
            | option::SET_META_CONTEXT
                if exports.not_joined =>
            {
                // Not "unknown": of the export nothing is known here.
                out.push(option_reply(number, answer::ERR_POLICY, NOT_JOINED.as_bytes()));
            }
            option::EXPORT_NAME => return self.export_name(&data, exports, out),
            option::ABORT => {
                answer(answer::ACK);
                return Step::Close(CloseReason::Logout);
            }
            option::LIST if data.is_empty() => list(exports, out),
            option::STRUCTURED_REPLY if data.is_empty() => {
                self.structured = true;
                answer(answer::ACK);
            }
            option::LIST | option::STRUCTURED_REPLY => answer(answer::ERR_INVALID),
            option::INFO | option::GO => return self.info(number, Fields(data), exports, out),
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                let kind = self.meta_context(number, Fields(data), exports, out);
                out.push(option_reply(number, kind, &[]));
            }
            _ => answer(answer::ERR_UNSUP),
        }
        Step::Stay
    }

    fn agreement(&self, name: &str, export: &Export) -> Agreement {
        let allocation = self.structured && self.allocation_of.as_deref() == Some(name);
        Agreement { volume: export.volume, structured: self.structured, allocation }
    }

    /// The old way to begin: the answer has no room for a refusal.
    fn export_name(&mut self, name: &[u8], exports: &Exports, out: &mut Vec<SessionOutput>) -> Step {
        let Some((name, export)) = find(exports, name) else {
            return Step::Close(CloseReason::NoSuchTarget);
        };
        let mut reply = Vec::with_capacity(134);
        reply.put_u64(export.size);
        reply.put_u16(wire::transmission::flags(self.structured));
        if !self.no_zeroes {
            reply.put_bytes(0, 124);
        }
        out.push(SessionOutput::Send(reply.into()));
        Step::Transmit(self.agreement(name, export))
    }

    fn info(
        &mut self,
        number: u32,
        mut fields: Fields,
        exports: &Exports,
        out: &mut Vec<SessionOutput>,
    ) -> Step {
        let Some((name, wanted)) = info_request(&mut fields) else {
            out.push(option_reply(number, answer::ERR_INVALID, &[]));
            return Step::Stay;
        };
        let Some((name, export)) = find(exports, &name) else {
            out.push(option_reply(number, answer::ERR_UNKNOWN, &[]));
            return Step::Stay;
        };
        let mut tell = |kind: u16, content: &dyn Fn(&mut Vec<u8>)| {
            let mut data = Vec::with_capacity(16);
            data.put_u16(kind);
            content(&mut data);
            out.push(option_reply(number, answer::INFO, &data));
        };
        let structured = self.structured;
        tell(info::EXPORT, &|data| {
            data.put_u64(export.size);
            data.put_u16(wire::transmission::flags(structured));
        });
        // Told to everyone: requests that do not keep to it are refused.
        tell(info::BLOCK_SIZE, &|data| {
            data.put_u32(wire::MIN_BLOCK_BYTES);
            data.put_u32(wire::PREFERRED_BLOCK_BYTES);
            data.put_u32(wire::MAX_PAYLOAD_BYTES);
        });
        if wanted.contains(&info::NAME) {
            tell(info::NAME, &|data| data.put_slice(name.as_bytes()));
        }
        if wanted.contains(&info::DESCRIPTION) {
            tell(info::DESCRIPTION, &|data| data.put_slice(b"Holdfast volume"));
        }
        out.push(option_reply(number, answer::ACK, &[]));
        if number == option::GO { Step::Transmit(self.agreement(name, export)) } else { Step::Stay }
    }

    /// Lists or chooses metadata contexts; gives the type of the last reply.
    fn meta_context(
        &mut self,
        number: u32,
        mut fields: Fields,
        exports: &Exports,
        out: &mut Vec<SessionOutput>,
    ) -> u32 {
        let choose = number == option::SET_META_CONTEXT;
        if choose {
            // Whatever comes of this one, it replaces an earlier choice.
            self.allocation_of = None;
            if !self.structured {
                return answer::ERR_INVALID;
            }
        }
        let Some((name, queries)) = meta_request(&mut fields) else { return answer::ERR_INVALID };
        let Some((name, _)) = find(exports, &name) else { return answer::ERR_UNKNOWN };
        let whole = wire::ALLOCATION_CONTEXT.as_bytes();
        let found = match choose {
            true => queries.iter().any(|query| query == whole),
            // A list may be asked for everything, or for a namespace.
            false => queries.is_empty() || queries.iter().any(|query| query == whole || query == "base:"),
        };
        if found {
            let id = if choose { wire::ALLOCATION_ID } else { 0 };
            let mut data = Vec::with_capacity(4 + whole.len());
            data.put_u32(id);
            data.put_slice(whole);
            out.push(option_reply(number, answer::META_CONTEXT, &data));
        }
        if choose && found {
            self.allocation_of = Some(name.into());
        }
        answer::ACK
    }
}

fn list(exports: &Exports, out: &mut Vec<SessionOutput>) {
    for name in exports.volumes.keys() {
        let mut data = Vec::with_capacity(4 + name.len());
        data.put_u32(name.len() as u32);
        data.put_slice(name.as_bytes());
        out.push(option_reply(option::LIST, answer::SERVER, &data));
    }
    out.push(option_reply(option::LIST, answer::ACK, &[]));
}

/// The name and the types of information of NBD_OPT_INFO and NBD_OPT_GO.
fn info_request(fields: &mut Fields) -> Option<(Bytes, Vec<u16>)> {
    let name = fields.string().filter(|name| name.len() <= wire::MAX_NAME_BYTES)?;
    let count = fields.u16()?;
    let wanted = (0..count).map(|_| fields.u16()).collect::<Option<Vec<u16>>>()?;
    fields.is_empty().then_some((name, wanted))
}

/// The name and the queries of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT.
fn meta_request(fields: &mut Fields) -> Option<(Bytes, Vec<Bytes>)> {
    let name = fields.string().filter(|name| name.len() <= wire::MAX_NAME_BYTES)?;
    let count = fields.u32()?;
    let mut queries = Vec::new();
    // Each query takes bytes off the data, so a count that lies ends with the data.
    for _ in 0..count {
        queries.push(fields.string()?);
    }
    fields.is_empty().then_some((name, queries))
}
