//! The content of a test's blocks: it tells which block it is and which of its writes, and every byte of it
//! follows from that.

use zerocopy::IntoBytes;

/// Bytes in a block of the writer.
pub const BLOCK: usize = 4096;

/// The content of `block` after its write number `version`; version 0 is never written and reads as zeros.
pub fn content(block: u64, version: u64) -> Vec<u8> {
    run(block, 1, version)
}

/// The content of `count` blocks from `first` on, each after its write number `version`. Tests make gigabytes of it, and
/// are not optimised: it is made by the word and copied by the block.
pub fn run(first: u64, count: u64, version: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count as usize * BLOCK);
    let mut words = [0; BLOCK / 8];
    let mut block = first;
    while block < first + count && version != 0 {
        let mut state = block.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ version.rotate_left(32) | 1;
        (words[0], words[1]) = (block.to_le(), version.to_le());
        let mut word = 2;
        while word < words.len() {
            state = next(state);
            words[word] = state.to_le();
            word += 1;
        }
        bytes.extend_from_slice(words.as_bytes());
        block += 1;
    }
    bytes.resize(count as usize * BLOCK, 0);
    bytes
}

/// Which write a block's content is of; an error says what is wrong with it.
pub fn version_of(block: u64, bytes: &[u8]) -> Result<u64, String> {
    let word = |i: usize| u64::from_le_bytes(bytes[i * 8..i * 8 + 8].try_into().expect("eight bytes"));
    let version = if bytes == [0; BLOCK] { 0 } else { word(1) };
    if bytes == content(block, version) {
        return Ok(version);
    }
    let wanted = content(block, version);
    let at = bytes.iter().zip(&wanted).position(|(a, b)| a != b).unwrap_or(0);
    Err(format!("block {block} says it is block {} write {version}, and is wrong from byte {at} on", word(0)))
}

/// The next number of a xorshift generator; `state` is not zero.
pub fn next(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_its_blocks_one_after_the_other() {
        assert_eq!(run(7, 3, 2), [content(7, 2), content(8, 2), content(9, 2)].concat());
        assert_eq!(run(7, 2, 0), [0; 2 * BLOCK]);
        assert_ne!(content(7, 2), content(7, 3));
    }

    #[test]
    fn a_changed_byte_a_torn_block_and_another_block_are_noticed() {
        let good = content(7, 3);
        assert_eq!(version_of(7, &good), Ok(3));
        assert_eq!(version_of(7, &[0; BLOCK]), Ok(0));
        let mut flipped = good.clone();
        flipped[4000] ^= 1;
        assert!(version_of(7, &flipped).is_err());
        let torn = [&content(7, 4)[..512], &good[512..]].concat();
        assert!(version_of(7, &torn).is_err());
        assert!(version_of(8, &good).is_err());
    }
}
