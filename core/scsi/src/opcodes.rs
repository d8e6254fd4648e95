//! The table of commands: what each is called by, which bits of its CDB mean something, and who carries it
//! out. Dispatch and REPORT SUPPORTED OPERATION CODES read the same table.
//!
//! Source: SPC-4 6.35, 6.36; the usage masks are those of each command's CDB.

use crate::{
    Cdb, Code, Context, Outcome, Sense, Step, capacity, compare_and_write, inquiry, lba_status, mode,
    read_write, unmap, verify, write_same,
};
use alloc::{vec, vec::Vec};

/// A command of this target.
pub(crate) struct Command {
    opcode: u8,
    action: Option<u8>,
    /// The CDB with a one for each bit that is looked at.
    usage: &'static [u8],
    /// Carries it out.
    pub(crate) run: fn(&Cdb, &mut Context<'_>) -> Outcome,
}

const fn plain(usage: &'static [u8], run: fn(&Cdb, &mut Context<'_>) -> Outcome) -> Command {
    Command { opcode: usage[0], action: None, usage, run }
}

const fn with_action(
    action: u8,
    usage: &'static [u8],
    run: fn(&Cdb, &mut Context<'_>) -> Outcome,
) -> Command {
    Command { opcode: usage[0], action: Some(action), usage, run }
}

/// The bits of an address and a length that fill their bytes.
const F: u8 = 0xff;
/// CONTROL: NACA is looked at.
const C: u8 = 0x04;

const COMMANDS: &[Command] = &[
    plain(&[0x00, 0, 0, 0, 0, C], capacity::test_unit_ready),
    plain(&[0x03, 1, 0, 0, F, C], capacity::request_sense),
    plain(&[0x08, 0x1f, F, F, F, C], read_write::read),
    plain(&[0x0a, 0x1f, F, F, F, C], read_write::write),
    plain(&[0x12, 3, F, F, F, C], inquiry::inquiry),
    plain(&[0x15, 0x11, 0, 0, F, C], mode::mode_select),
    plain(&[0x1a, 0x08, F, F, F, C], mode::mode_sense),
    plain(&[0x1b, 1, 0, 0x0f, 0xf7, C], capacity::start_stop_unit),
    plain(&[0x1e, 0, 0, 0, 3, C], capacity::prevent_allow),
    plain(&[0x25, 0, F, F, F, F, 0, 0, 1, C], capacity::read_capacity_10),
    plain(&[0x28, 0xf8, F, F, F, F, 0, F, F, C], read_write::read),
    plain(&[0x2a, 0xf8, F, F, F, F, 0, F, F, C], read_write::write),
    plain(&[0x2e, 0xf6, F, F, F, F, 0, F, F, C], read_write::write_and_verify),
    plain(&[0x2f, 0xf6, F, F, F, F, 0, F, F, C], verify::verify),
    plain(&[0x35, 0x02, F, F, F, F, 0, F, F, C], read_write::synchronize_cache),
    plain(&[0x41, 0xfe, F, F, F, F, 0, F, F, C], write_same::write_same),
    plain(&[0x42, 0x01, 0, 0, 0, 0, 0, F, F, C], unmap::unmap),
    plain(&[0x55, 0x11, 0, 0, 0, 0, 0, F, F, C], mode::mode_select),
    plain(&[0x5a, 0x18, F, F, 0, 0, 0, F, F, C], mode::mode_sense),
    plain(&[0x88, 0xf8, F, F, F, F, F, F, F, F, F, F, F, F, 0, C], read_write::read),
    plain(&[0x89, 0xf8, F, F, F, F, F, F, F, F, 0, 0, 0, F, 0, C], compare_and_write::compare_and_write),
    plain(&[0x8a, 0xf8, F, F, F, F, F, F, F, F, F, F, F, F, 0, C], read_write::write),
    plain(&[0x8e, 0xf6, F, F, F, F, F, F, F, F, F, F, F, F, 0, C], read_write::write_and_verify),
    plain(&[0x8f, 0xf6, F, F, F, F, F, F, F, F, F, F, F, F, 0, C], verify::verify),
    plain(&[0x91, 0x02, F, F, F, F, F, F, F, F, F, F, F, F, 0, C], read_write::synchronize_cache),
    plain(&[0x93, 0xff, F, F, F, F, F, F, F, F, F, F, F, F, 0, C], write_same::write_same),
    with_action(0x10, &[0x9e, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, F, F, F, F, 0, C], capacity::read_capacity_16),
    with_action(0x12, &[0x9e, 0x1f, F, F, F, F, F, F, F, F, F, F, F, F, 0, C], lba_status::get_lba_status),
    plain(&[0xa0, 0, F, 0, 0, 0, F, F, F, F, 0, C], capacity::report_luns),
    with_action(0x0c, &[0xa3, 0x1f, 0x87, F, F, F, F, F, F, F, 0, C], report_opcodes),
    with_action(0x0d, &[0xa3, 0x1f, 0x80, 0, 0, 0, F, F, F, F, 0, C], report_task_management),
    plain(&[0xa8, 0xf8, F, F, F, F, F, F, F, F, 0, C], read_write::read),
    plain(&[0xaa, 0xf8, F, F, F, F, F, F, F, F, 0, C], read_write::write),
    plain(&[0xae, 0xf6, F, F, F, F, F, F, F, F, 0, C], read_write::write_and_verify),
    plain(&[0xaf, 0xf6, F, F, F, F, F, F, F, F, 0, C], verify::verify),
];

/// The command that a CDB names.
pub(crate) fn find(cdb: &Cdb) -> Result<&'static Command, Sense> {
    let mut known = false;
    for command in COMMANDS.iter().filter(|c| c.opcode == cdb.opcode()) {
        known = true;
        if command.action.is_none_or(|action| action == cdb.service_action()) {
            //= SAM-5 5.2
            // NACA is not supported (NORMACA is zero).
            cdb.refuse(command.usage.len() as u16 - 1, C)?;
            return Ok(command);
        }
    }
    if known {
        return Err(Sense::cdb_field(1, Some(4)));
    }
    let mut sense = Sense::illegal(Code::INVALID_OPERATION_CODE);
    sense.field = Sense::cdb_field(0, None).field;
    Err(sense)
}

/// Command timeouts descriptor: no timeout is stated (SPC-4 6.35.4).
const TIMEOUTS: [u8; 12] = [0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// REPORT SUPPORTED OPERATION CODES
fn report_opcodes(cdb: &Cdb, _cx: &mut Context<'_>) -> Outcome {
    let timeouts = cdb.bits(2, 0x80);
    let (opcode, action) = (cdb.byte(3), cdb.u16(4));
    let allocation = cdb.u32(6) as usize;
    let mut named = COMMANDS.iter().filter(|c| c.opcode == opcode).peekable();
    let has_actions = named.peek().is_some_and(|c| c.action.is_some());
    let matching = |c: &&Command| c.action.is_none_or(|a| u16::from(a) == action);
    let command = match cdb.byte(2) & 0x07 {
        0 => return Ok(Step::data(all_opcodes(timeouts), allocation)),
        1 if has_actions => return Err(Sense::cdb_field(2, Some(2))),
        1 => named.next(),
        2 if !has_actions && named.peek().is_some() => return Err(Sense::cdb_field(2, Some(2))),
        2 => named.find(matching),
        3 if has_actions => named.find(matching),
        3 if action == 0 => named.next(),
        3 => None,
        _ => return Err(Sense::cdb_field(2, Some(2))),
    };
    Ok(Step::data(one_opcode(command, timeouts), allocation))
}

fn all_opcodes(timeouts: bool) -> Vec<u8> {
    let mut list = Vec::new();
    for command in COMMANDS {
        let [high, low] = u16::from(command.action.unwrap_or(0)).to_be_bytes();
        let flags = (u8::from(timeouts) << 1) | u8::from(command.action.is_some());
        list.extend([command.opcode, 0, high, low, 0, flags, 0, command.usage.len() as u8]);
        if timeouts {
            list.extend(TIMEOUTS);
        }
    }
    let mut data = (list.len() as u32).to_be_bytes().to_vec();
    data.extend(list);
    data
}

fn one_opcode(command: Option<&Command>, timeouts: bool) -> Vec<u8> {
    let Some(command) = command else {
        return vec![0, 0x01, 0, 0];
    };
    let mut data = vec![0, 0x03 | (u8::from(timeouts) << 7), 0, command.usage.len() as u8];
    data.extend(command.usage);
    if let Some(action) = command.action {
        data[5] = (data[5] & 0xe0) | action;
    }
    if timeouts {
        data.extend(TIMEOUTS);
    }
    data
}

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
fn report_task_management(cdb: &Cdb, _cx: &mut Context<'_>) -> Outcome {
    // ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, TARGET RESET.
    let mut data = vec![0x80 | 0x40 | 0x10 | 0x08 | 0x02, 0, 0, 0];
    if cdb.bits(2, 0x80) {
        data[3] = 0x0c;
        data.resize(16, 0);
    }
    Ok(Step::data(data, cdb.u32(6) as usize))
}
