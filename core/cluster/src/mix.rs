//! Spreads numbers that lie close together over all numbers: the finalizer of MurmurHash3.

/// Mixes a number, and a second one that may be small and counted up.
pub(crate) fn mix(seed: u64, counted: u64) -> u64 {
    let mut x = seed ^ counted.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}
