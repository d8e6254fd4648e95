//! The content of a test's blocks: it tells which block it is and which of its writes, and every byte of it
//! follows from that.

/// Bytes in a block of the writer.
pub const BLOCK: usize = 4096;

/// The content of `block` after its write number `version`; version 0 is never written and reads as zeros.
pub fn content(block: u64, version: u64) -> Vec<u8> {
    if version == 0 {
        return vec![0; BLOCK];
    }
    let mut state = block.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ version.rotate_left(32) | 1;
    let mut bytes = Vec::with_capacity(BLOCK);
    bytes.extend_from_slice(&block.to_le_bytes());
    bytes.extend_from_slice(&version.to_le_bytes());
    while bytes.len() < BLOCK {
        state = next(state);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// Which write a block's content is of; an error says what is wrong with it.
pub fn version_of(block: u64, bytes: &[u8]) -> Result<u64, String> {
    let word = |i: usize| u64::from_le_bytes(bytes[i * 8..i * 8 + 8].try_into().expect("eight bytes"));
    let version = if bytes.iter().all(|b| *b == 0) { 0 } else { word(1) };
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
