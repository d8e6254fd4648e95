//! The shape of a line that no rule knows: its first letters, without digits, as one number.
//!
//! Promise: lines that differ only in their digits, however many, have one shape; others differ but by the chance of 64 bits.

/// Bytes of a message that make its shape.
const BYTES: usize = 96;
const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = LOW << 7;

/// The shape of a message.
pub(super) fn of(message: &[u8]) -> u64 {
    let message = &message[..message.len().min(BYTES)];
    let mut letters = [0u8; BYTES];
    let mut len = 0;
    for word in message.chunks(8) {
        if let Ok(eight) = <[u8; 8]>::try_from(word)
            && !any_digit(u64::from_le_bytes(eight))
        {
            letters[len..len + 8].copy_from_slice(word);
            len += 8;
            continue;
        }
        for byte in word {
            letters[len] = *byte;
            len += usize::from(!byte.is_ascii_digit());
        }
    }
    letters[len..].fill(0);
    let words = letters[..len.next_multiple_of(8)].as_chunks::<8>().0;
    let mixed = words.iter().fold(len as u64, |state, word| {
        (state.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(0x517c_c1b7_2722_0a95)
    });
    mixed ^ (mixed >> 32)
}

/// Whether one of eight bytes is an ASCII digit: digits, and nothing else, become less than ten when their high bits are undone.
fn any_digit(eight: u64) -> bool {
    let undone = eight ^ (LOW * 0x30);
    undone.wrapping_sub(LOW * 10) & !undone & HIGH != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_alone_make_no_other_shape() {
        assert_eq!(of(b"guest 7 answered after 12 ms"), of(b"guest 12345 answered after 1 ms"));
        assert_eq!(of(b"abcdefgh1"), of(b"1abcdefgh"));
        assert_ne!(of(b"guest 7 answered"), of(b"guest 7 answers"));
        assert_ne!(of(b""), of(b"\0"));
    }

    #[test]
    fn only_what_begins_a_line_counts() {
        let line = [b'x'; 300];
        assert_eq!(of(&line), of(&line[..96]));
        assert_ne!(of(&line), of(&line[..95]));
    }

    #[test]
    fn a_digit_is_seen_in_every_place_and_nothing_else_is_one() {
        for byte in 0..=255u8 {
            for at in 0..8 {
                let mut eight = *b"abc /:zA";
                eight[at] = byte;
                assert_eq!(any_digit(u64::from_le_bytes(eight)), byte.is_ascii_digit(), "{byte} at {at}");
            }
        }
    }
}
