//! How control's values are written, on disk and between nodes: one byte of version, the crc32c of the rest,
//! then postcard. Postcard is not self-describing: enums only grow at their end, and any other change is a new
//! version here. Version 2 knows which of two logins of an initiator is the later one.

use holdfast_checksum::crc32c;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// The version that is written, the only one that is read.
pub(crate) const VERSION: u8 = 2;
const HEAD_BYTES: usize = 5;

/// Why bytes could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum CodecError {
    /// Fewer bytes than the head.
    #[error("{0} bytes are too few")]
    Short(usize),
    /// Written by a version that this one does not know.
    #[error("format version {found} is not known here, only {VERSION}")]
    Version {
        /// What was found.
        found: u8,
    },
    /// The bytes are not what was written.
    #[error("the checksum does not match")]
    Checksum,
    /// The checksum matches and the content makes no sense.
    #[error("the content makes no sense: {0}")]
    Content(#[from] postcard::Error),
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = postcard::to_extend(value, vec![0; HEAD_BYTES])?;
    let crc = crc32c(&bytes[HEAD_BYTES..]);
    bytes[0] = VERSION;
    bytes[1..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let Some((head, body)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Err(CodecError::Short(bytes.len()));
    };
    if head[0] != VERSION {
        return Err(CodecError::Version { found: head[0] });
    }
    if head[1..] != crc32c(body).to_le_bytes() {
        return Err(CodecError::Checksum);
    }
    Ok(postcard::from_bytes(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_and_a_changed_bit_anywhere_is_noticed() {
        let bytes = encode(&("control", 7u64)).expect("it can be written");
        assert_eq!(decode::<(String, u64)>(&bytes), Ok(("control".into(), 7)));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<(String, u64)>(&bad).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(decode::<(String, u64)>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_later_version_is_named() {
        let mut bytes = encode(&1u8).expect("it can be written");
        bytes[0] = 9;
        assert_eq!(decode::<u8>(&bytes), Err(CodecError::Version { found: 9 }));
    }
}
