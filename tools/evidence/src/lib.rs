//! Log formats, time and configuration grammars read as evidence.
//!
//! Promise: bytes from strangers come in, typed records with their exact place (file, line, byte offset) go out.
//! Nothing here panics on bad input, follows a link, writes a file, or needs memory that grows with the input.
//! It does not decide what a line means for a cluster: that is the work of the crate that holds the rules.

pub mod civil;
pub mod crontab;
pub mod format;
pub mod nul;
pub mod place;
pub mod read;
pub mod stamp;
pub mod text;
pub mod wtmp;
pub mod zone;

pub use civil::Civil;
pub use format::{Record, parse_line};
pub use nul::{NulCause, NulMap, NulRun};
pub use place::{FileKind, Place};
pub use read::{Limits, Notice, NoticeKind, Source, SourceError};
pub use stamp::Stamp;
