//! Bytes of a log line as text a person can read.
//!
//! Promise: never fails; UTF-8 stays as it is, otherwise GBK (GB 18030) is tried, otherwise each bad byte is shown as
//! U+FFFD. NUL and other control bytes are shown as symbols, so that a report can be printed safely on a terminal.

use std::borrow::Cow;

use encoding_rs::{GB18030, UTF_16BE, UTF_16LE};

/// How a line was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Valid UTF-8 (ASCII included).
    Utf8,
    /// Valid GBK / GB 18030 but not UTF-8.
    Gbk,
    /// Neither; bad bytes were replaced.
    Unknown,
}

/// Decodes one line.
pub fn decode(bytes: &[u8]) -> (Cow<'_, str>, Encoding) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return (Cow::Borrowed(text), Encoding::Utf8);
    }
    if let Some(text) = GB18030.decode_without_bom_handling_and_without_replacement(bytes) {
        return (text, Encoding::Gbk);
    }
    (String::from_utf8_lossy(bytes), Encoding::Unknown)
}

/// Text for a report: decoded, control characters made visible, cut to `max` characters.
pub fn printable(bytes: &[u8], max: usize) -> String {
    let (text, _) = decode(bytes);
    let mut out = String::with_capacity(text.len().min(max + 3));
    let mut nuls = 0usize;
    let flush = |out: &mut String, nuls: &mut usize| {
        if *nuls > 0 {
            out.push_str(&format!("<NUL x{nuls}>"));
            *nuls = 0;
        }
    };
    for (count, c) in text.chars().enumerate() {
        if count >= max {
            flush(&mut out, &mut nuls);
            out.push('…');
            return out;
        }
        match c {
            '\0' => nuls += 1,
            '\t' => {
                flush(&mut out, &mut nuls);
                out.push(' ');
            }
            c if c.is_control() || is_bidi_control(c) => {
                flush(&mut out, &mut nuls);
                out.push('\u{00b7}');
            }
            c => {
                flush(&mut out, &mut nuls);
                out.push(c);
            }
        }
    }
    flush(&mut out, &mut nuls);
    out
}

/// Characters that reorder text on a screen: a log line must not be able to disguise itself.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

/// The decoder for a file that begins with a UTF-16 byte order mark, if it does.
pub fn utf16_decoder(head: &[u8]) -> Option<encoding_rs::Decoder> {
    match head {
        [0xff, 0xfe, ..] => Some(UTF_16LE.new_decoder_with_bom_removal()),
        [0xfe, 0xff, ..] => Some(UTF_16BE.new_decoder_with_bom_removal()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gbk_and_utf8_give_the_same_text() {
        let utf8 = "存储网络中断";
        let (gbk, _, _) = GB18030.encode(utf8);
        assert_eq!(decode(&gbk), (Cow::Borrowed(utf8), Encoding::Gbk));
        assert_eq!(decode(utf8.as_bytes()).1, Encoding::Utf8);
    }

    #[test]
    fn a_line_cannot_send_control_codes_to_the_terminal() {
        let shown = printable(b"a\x1b[31mred\0\0\x07", 80);
        assert_eq!(shown, "a\u{b7}[31mred<NUL x2>\u{b7}");
        assert_eq!(printable("\u{202e}txt".as_bytes(), 80), "\u{b7}txt");
    }

    #[test]
    fn a_long_line_is_cut_with_a_mark() {
        assert_eq!(printable(b"abcdef", 3), "abc…");
    }
}
