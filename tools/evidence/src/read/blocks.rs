//! A stream as blocks of whole lines.
//!
//! Promise: each block but the last ends in a newline, or in a NUL where a run of NULs has none for longer than the buffer (what a
//! crash leaves in a log). Offsets and line numbers are those of the stream, memory is one buffer. A line longer than the buffer
//! is given once, cut, and the rest of it is passed over.

use std::io::{ErrorKind, Read};
use std::ops::ControlFlow;

/// Size of the buffer and so of the longest line kept whole.
const BUFFER: usize = 256 * 1024;

/// Whole lines of a stream.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// Lines, each with its newline (but perhaps the last).
    pub bytes: &'a [u8],
    /// Offset of the first byte in the stream.
    pub offset: u64,
    /// Number of the first line, from 1.
    pub first_line: u64,
}

/// How a stream ended.
#[derive(Debug)]
pub struct BlockEnd {
    /// Bytes read.
    pub bytes: u64,
    /// Lines that were cut because they did not fit.
    pub cut_lines: u64,
    /// The error that ended the stream, if one did.
    pub error: Option<std::io::Error>,
}

/// Reads a stream and gives its blocks to `consume`, until it ends or `consume` breaks.
pub fn for_each_block(
    body: &mut dyn Read,
    mut consume: impl FnMut(Block<'_>) -> ControlFlow<()>,
) -> BlockEnd {
    let mut buffer = vec![0u8; BUFFER];
    let (mut filled, mut offset, mut line) = (0usize, 0u64, 1u64);
    let mut end = BlockEnd { bytes: 0, cut_lines: 0, error: None };
    let mut passing_over = false;
    loop {
        let n = match body.read(&mut buffer[filled..]) {
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => {
                end.error = Some(e);
                0
            }
        };
        end.bytes += n as u64;
        let fresh = filled;
        filled += n;
        if passing_over {
            // The rest of a cut line: drop up to and with its newline, or up to a NUL, behind which another line may begin.
            let cut = match memchr::memchr2(b'\n', 0, &buffer[..filled]) {
                Some(at) => {
                    let is_newline = buffer[at] == b'\n';
                    passing_over = false;
                    line += u64::from(is_newline);
                    at + usize::from(is_newline)
                }
                None => filled,
            };
            buffer.copy_within(cut..filled, 0);
            filled -= cut;
            offset += cut as u64;
            if n == 0 {
                break;
            }
            if filled == 0 {
                continue;
            }
        }
        let whole = memchr::memrchr(b'\n', &buffer[fresh..filled]).map_or(0, |at| fresh + at + 1);
        let ended = n == 0;
        let mut take = whole;
        if ended {
            take = filled;
        } else if whole == 0 && filled == BUFFER {
            let nul = memchr::memrchr(0, &buffer[..filled]);
            take = nul.map_or(filled, |at| at + 1);
            passing_over = nul.is_none();
            end.cut_lines += u64::from(passing_over);
        }
        if take > 0 {
            let bytes = &buffer[..take];
            if consume(Block { bytes, offset, first_line: line }).is_break() {
                break;
            }
            line += memchr::memchr_iter(b'\n', bytes).count() as u64;
            buffer.copy_within(take..filled, 0);
            filled -= take;
            offset += take as u64;
        }
        if ended {
            break;
        }
    }
    end
}
