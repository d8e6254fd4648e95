//! How control's values are written, on disk and between nodes: one byte of version, the crc32c of the rest,
//! then postcard. Postcard is not self-describing: enums only grow at their end, and any other change is a new
//! version here. Version 2 knew which of two logins of an initiator is the later one; version 4 knows each node's key.
//! Version 5 is a message between nodes of a group that was recovered: its generation, then the same; one of the first
//! group is as before.

use crate::recover::Generation;
use holdfast_checksum::crc32c;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// The version that is written, the only one that is read.
pub(crate) const VERSION: u8 = 4;
/// A message of a later group than the first.
const WITH_GENERATION: u8 = 5;
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
    encode_as(VERSION, value)
}

/// A message within the group of that generation.
pub(crate) fn encode_message<T: Serialize>(generation: Generation, value: &T) -> Result<Vec<u8>, CodecError> {
    match generation {
        Generation(0) => encode(value),
        Generation(later) => encode_as(WITH_GENERATION, &(later, value)),
    }
}

fn encode_as<T: Serialize>(version: u8, value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = postcard::to_extend(value, vec![0; HEAD_BYTES])?;
    let crc = crc32c(&bytes[HEAD_BYTES..]);
    bytes[0] = version;
    bytes[1..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_as(VERSION, bytes)
}

/// A message, and of which group it is.
pub(crate) fn decode_message<T: DeserializeOwned>(bytes: &[u8]) -> Result<(Generation, T), CodecError> {
    if bytes.first() == Some(&WITH_GENERATION) {
        let (generation, message) = decode_as(WITH_GENERATION, bytes)?;
        return Ok((Generation(generation), message));
    }
    Ok((Generation::default(), decode(bytes)?))
}

fn decode_as<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T, CodecError> {
    let Some((head, body)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Err(CodecError::Short(bytes.len()));
    };
    if head[0] != version {
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
    fn a_message_says_of_which_group_it_is_and_one_of_the_first_group_is_as_it_always_was() {
        let later = Generation(1 << 32 | 7);
        let bytes = encode_message(later, &7u8).expect("it can be written");
        assert_eq!(decode_message::<u8>(&bytes), Ok((later, 7)));
        assert_eq!(
            decode::<u8>(&bytes),
            Err(CodecError::Version { found: WITH_GENERATION }),
            "nothing on the disk is one"
        );
        let first = encode_message(Generation::default(), &7u8).expect("it can be written");
        assert_eq!(Ok(&first), encode(&7u8).as_ref());
        assert_eq!(decode_message::<u8>(&first), Ok((Generation::default(), 7)));
        assert!(decode_message::<u8>(&bytes[..4]).is_err() && decode_message::<u8>(&[]).is_err());
    }

    #[test]
    fn a_later_version_is_named() {
        let mut bytes = encode(&1u8).expect("it can be written");
        bytes[0] = 9;
        assert_eq!(decode::<u8>(&bytes), Err(CodecError::Version { found: 9 }));
    }
}
