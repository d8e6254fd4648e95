//! MODE SENSE and MODE SELECT. The pages say what cannot be changed: no volatile cache, commands may be
//! reordered, sense in fixed format. MODE SELECT accepts what changes nothing.
//!
//! Source: SPC-4 6.11 to 6.14, 7.5; SBC-4 6.5.

use crate::{
    Cdb, Code, Context, Outcome, Sense, Step,
    task::{DataTask, total},
    unit::LOGICAL_BLOCK_BYTES,
};
use alloc::{vec, vec::Vec};
use bytes::Bytes;

const CACHING: u8 = 0x08;
const CONTROL: u8 = 0x0a;
const INFORMATIONAL_EXCEPTIONS: u8 = 0x1c;
const ALL_PAGES: u8 = 0x3f;
const ALL_SUBPAGES: u8 = 0xff;
const PAGES: [u8; 3] = [CACHING, CONTROL, INFORMATIONAL_EXCEPTIONS];

const MODE_SENSE_6: u8 = 0x1a;
const MODE_SELECT_6: u8 = 0x15;
/// Device-specific parameter: DPOFUA, not write protected.
const DPOFUA: u8 = 0x10;
const HEADER_6_BYTES: usize = 4;
const HEADER_10_BYTES: usize = 8;
const SHORT_DESCRIPTOR_BYTES: usize = 8;
const LONG_DESCRIPTOR_BYTES: usize = 16;
/// Page control (SPC-4 table 171).
const CHANGEABLE: u8 = 1;
const SAVED: u8 = 3;

/// A page as it is, or the mask of what may be changed in it: nothing.
fn page(code: u8, control: u8) -> Vec<u8> {
    let mut page = match code {
        CACHING => vec![CACHING, 0x12],
        CONTROL => vec![CONTROL, 0x0a],
        _ => vec![INFORMATIONAL_EXCEPTIONS, 0x0a],
    };
    page.resize(2 + usize::from(page[1]), 0);
    if code == CONTROL && control != CHANGEABLE {
        page[3] = 0x10; // QUEUE ALGORITHM MODIFIER: reordering is not restricted
        page[8] = 0xff; // BUSY TIMEOUT PERIOD: without limit
        page[9] = 0xff;
    }
    page
}

fn descriptor(blocks: u64, long: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    if long {
        bytes.extend(blocks.to_be_bytes());
        bytes.extend([0; 4]);
    } else {
        bytes.extend(u32::try_from(blocks).unwrap_or(u32::MAX).to_be_bytes());
    }
    bytes.extend(LOGICAL_BLOCK_BYTES.to_be_bytes());
    bytes
}

/// MODE SENSE (6), (10)
pub(crate) fn mode_sense(cdb: &Cdb, cx: &mut Context<'_>) -> Outcome {
    let six = cdb.opcode() == MODE_SENSE_6;
    let (control, code, subpage) = (cdb.byte(2) >> 6, cdb.byte(2) & 0x3f, cdb.byte(3));
    if control == SAVED {
        return Err(Sense::illegal(Code::SAVING_NOT_SUPPORTED));
    }
    let codes: Vec<u8> = match (code, subpage) {
        (ALL_PAGES, 0 | ALL_SUBPAGES) => PAGES.to_vec(),
        (code, 0 | ALL_SUBPAGES) if PAGES.contains(&code) => vec![code],
        (code, _) if code == ALL_PAGES || PAGES.contains(&code) => return Err(Sense::cdb_field(3, None)),
        _ => return Err(Sense::cdb_field(2, Some(5))),
    };
    let long = !six && cdb.bits(1, 0x10);
    let block_descriptor = if cdb.bits(1, 0x08) { Vec::new() } else { descriptor(cx.unit.blocks(), long) };
    let pages: Vec<u8> = codes.into_iter().flat_map(|code| page(code, control)).collect();
    let following = block_descriptor.len() + pages.len();
    let mut data = if six {
        vec![(HEADER_6_BYTES - 1 + following) as u8, 0, DPOFUA, block_descriptor.len() as u8]
    } else {
        let [high, low] = ((HEADER_10_BYTES - 2 + following) as u16).to_be_bytes();
        vec![high, low, 0, DPOFUA, u8::from(long), 0, 0, block_descriptor.len() as u8]
    };
    data.extend(block_descriptor);
    data.extend(pages);
    let allocation = if six { usize::from(cdb.byte(4)) } else { usize::from(cdb.u16(7)) };
    Ok(Step::data(data, allocation))
}

/// A MODE SELECT that waits for its pages.
#[derive(Debug)]
pub struct ModeSelect {
    bytes: usize,
    six: bool,
    blocks: u64,
}

/// MODE SELECT (6), (10)
pub(crate) fn mode_select(cdb: &Cdb, cx: &mut Context<'_>) -> Outcome {
    // SP: nothing can be saved. Without PF the pages are of no known format.
    cdb.refuse(1, 0x01)?;
    if !cdb.bits(1, 0x10) {
        return Err(Sense::cdb_field(1, Some(4)));
    }
    let six = cdb.opcode() == MODE_SELECT_6;
    let bytes = if six { usize::from(cdb.byte(4)) } else { usize::from(cdb.u16(7)) };
    if bytes == 0 {
        return Ok(Step::good());
    }
    let task = ModeSelect { bytes, six, blocks: cx.unit.blocks() };
    Ok(Step::NeedData { bytes: bytes as u32, task: DataTask::ModeSelect(task) })
}

impl ModeSelect {
    pub(crate) fn data(self, data: Vec<Bytes>) -> Outcome {
        if total(&data) != self.bytes as u64 {
            return Err(Sense::wrong_length());
        }
        let list = data.concat();
        let too_short = Sense::illegal(Code::PARAMETER_LIST_LENGTH_ERROR);
        let header = if self.six { HEADER_6_BYTES } else { HEADER_10_BYTES };
        if list.len() < header {
            return Err(too_short);
        }
        let long = !self.six && list[4] & 1 != 0;
        let described = usize::from(list[header - 1]) + if self.six { 0 } else { usize::from(list[6]) << 8 };
        let pages = list.get(header + described..).ok_or(too_short)?;
        self.check_descriptor(&list[header..header + described], header, long)?;
        check_pages(pages, header + described)?;
        Ok(Step::good())
    }

    /// A block descriptor may only say what is so; zero blocks mean "as they are".
    fn check_descriptor(&self, given: &[u8], at: usize, long: bool) -> Result<(), Sense> {
        if given.is_empty() {
            return Ok(());
        }
        let expected = if long { LONG_DESCRIPTOR_BYTES } else { SHORT_DESCRIPTOR_BYTES };
        if given.len() != expected {
            return Err(Sense::parameter_field(at as u16 - 1));
        }
        let current = descriptor(self.blocks, long);
        let unchanged = descriptor(0, long);
        if given != current && given != unchanged {
            return Err(Sense::parameter_field(at as u16));
        }
        Ok(())
    }
}

/// Every page is to be one of ours, as it is.
fn check_pages(mut pages: &[u8], mut at: usize) -> Result<(), Sense> {
    while !pages.is_empty() {
        // PS is reserved here.
        let code = pages[0] & 0x7f;
        if !PAGES.contains(&code) {
            return Err(Sense::parameter_field(at as u16));
        }
        let current = page(code, 0);
        if pages.len() < current.len() {
            return Err(Sense::illegal(Code::PARAMETER_LIST_LENGTH_ERROR));
        }
        if let Some(byte) = (1..current.len()).find(|i| pages[*i] != current[*i]) {
            return Err(Sense::parameter_field((at + byte) as u16));
        }
        at += current.len();
        pages = &pages[current.len()..];
    }
    Ok(())
}
