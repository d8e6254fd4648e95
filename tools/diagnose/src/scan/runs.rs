//! Runs of lines that say nothing to any rule and start alike, counted on another core before the walk comes to them.
//!
//! Promise: a run is taken by the walk only where it would have taken each of its lines for one with the time and the host of
//! the line before ([`Run::head`] is what it must hold in hand), so a scan with runs gives what a scan without them gives. Whatever
//! fits no run is walked line by line. What is counted here depends on the bytes of one block alone.

use std::ops::Range;

use holdfast_evidence::read::Block;

use super::LINES_BEFORE;
use crate::rules::Candidate;

/// A shorter run is not worth its lists.
const LEAST_LINES: u64 = 2;
/// Width of `Jan  7 18:14:27 `, behind which the host stands.
const STAMP: usize = 16;
/// Bytes of a message that make its shape.
const SHAPE_BYTES: usize = 96;

/// Lines of a block, one behind the other. The line before them, which starts like them, is none of them: the walk takes it, and
/// with it the time and the host.
pub(super) struct Run {
    /// From the first byte of the first line to behind the newline of the last.
    pub(super) range: Range<usize>,
    /// Stamp and host of the line before them.
    head: Range<usize>,
    pub(super) lines: u64,
    /// Their shapes by first appearance: shape, lines of it, and the first of them with its number in the run.
    pub(super) shapes: Vec<(u64, u64, Range<usize>, u64)>,
    /// The last lines.
    pub(super) last: Vec<Range<usize>>,
}

impl Run {
    /// What every line of the run starts with.
    pub(super) fn head<'b>(&self, block: &'b [u8]) -> &'b [u8] {
        &block[self.head.clone()]
    }
}

/// The shape of a message: its letters, without digits.
pub(super) fn shape_of(message: &[u8]) -> u64 {
    message[..message.len().min(SHAPE_BYTES)]
        .iter()
        .filter(|byte| !byte.is_ascii_digit())
        .fold(0xcbf2_9ce4_8422_2325, |state, byte| (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The runs of a block in which `candidates` were found. A line with NULs is in none: they part lines of their own.
pub(super) fn runs(block: &Block<'_>, candidates: &[Candidate]) -> Vec<Run> {
    let bytes = block.bytes;
    let mut found = Vec::new();
    let any_nul = memchr::memchr(0, bytes).is_some();
    let mut candidates = candidates.iter().peekable();
    let mut open: Option<Run> = None;
    let mut start = 0;
    while start < bytes.len() {
        let newline = memchr::memchr(b'\n', &bytes[start..]).map_or(bytes.len(), |n| start + n);
        let torn = any_nul && memchr::memchr(0, &bytes[start..newline]).is_some();
        let mut known = torn;
        while candidates.next_if(|c| c.at < newline).is_some() {
            known = true;
        }
        let end = if newline > start && bytes[newline - 1] == b'\r' { newline - 1 } else { newline };
        let line = start..end;
        let next = (newline + 1).min(bytes.len());
        match open.as_mut().filter(|run| !known && goes_on(run, bytes, &line)) {
            Some(run) => take(run, bytes, line, next),
            None => {
                found.extend(open.take().filter(|run| run.lines >= LEAST_LINES));
                open = head_of(&bytes[line]).filter(|_| !torn).map(|head| Run {
                    range: next..next,
                    head: start..start + head,
                    lines: 0,
                    shapes: Vec::new(),
                    last: Vec::new(),
                });
            }
        }
        start = next;
    }
    found.extend(open.filter(|run| run.lines >= LEAST_LINES));
    found
}

/// The length of stamp and host of a line of syslog, as far as its form goes: the walk compares it with what it parsed.
fn head_of(line: &[u8]) -> Option<usize> {
    if !line.first()?.is_ascii_alphabetic() {
        return None;
    }
    let host = memchr::memchr(b' ', line.get(STAMP..)?)?;
    let head = STAMP + host + 1;
    (head < line.len()).then_some(head)
}

fn goes_on(run: &Run, bytes: &[u8], line: &Range<usize>) -> bool {
    line.len() > run.head.len() && bytes[line.clone()].starts_with(run.head(bytes))
}

fn take(run: &mut Run, bytes: &[u8], line: Range<usize>, next: usize) {
    let shape = shape_of(&bytes[line.start + run.head.len()..line.end]);
    match run.shapes.iter_mut().find(|(known, ..)| *known == shape) {
        Some((_, count, ..)) => *count += 1,
        None => run.shapes.push((shape, 1, line.clone(), run.lines)),
    }
    if run.last.len() == LINES_BEFORE {
        run.last.rotate_left(1);
        run.last.pop();
    }
    run.last.push(line);
    run.range.end = next;
    run.lines += 1;
}
