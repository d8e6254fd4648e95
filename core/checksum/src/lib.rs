//! crc32c (RFC 3720 appendix B.4, "CRC-32/ISCSI"), the one checksum of every format: journal, metadata
//! pages, data blocks and iSCSI digests.
//!
//! It stands in a crate of its own because the library behind it needs `std` (to ask the processor what it
//! can do) and the rest of the core does not.

/// The crc32c of `data`.
pub fn crc32c(data: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(data)
}

/// The crc32c of each `block` bytes of `data`, whose length must be a multiple of `block`.
pub fn crc32c_blocks(data: &[u8], block: usize) -> Vec<u32> {
    assert_eq!(data.len() % block, 0, "data is not whole blocks");
    data.chunks_exact(block).map(crc32c).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_test_vectors_hold() {
        // RFC 3720 B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xff; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn blocks_are_summed_one_by_one() {
        let data = [[1u8; 512], [2u8; 512]].concat();
        assert_eq!(crc32c_blocks(&data, 512), [crc32c(&data[..512]), crc32c(&data[512..])]);
    }
}
