//! One-way CHAP: the initiator proves that it knows the secret. The secret and the digest of it are compared
//! in constant time and never printed.
//!
//! Source: RFC 7143 12.1, RFC 1994.

use alloc::{format, string::String, vec::Vec};
use core::fmt;
use holdfast_types::ChapSecret;
use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

/// CHAP_A of MD5.
pub(crate) const MD5_ALGORITHM: &str = "5";
const CHALLENGE_BYTES: usize = 16;
const RESPONSE_BYTES: usize = 16;

/// A challenge that was sent.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    id: u8,
    bytes: [u8; CHALLENGE_BYTES],
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Challenge({})", self.id)
    }
}

impl Challenge {
    /// From the session's entropy; one session makes one challenge.
    pub(crate) fn new(entropy: &[u8; 32]) -> Self {
        // The entropy is not sent as it is: what else is derived from it must not be seen.
        let mut hash = Md5::new();
        hash.update(entropy);
        Self { id: entropy[0], bytes: hash.finalize().into() }
    }
    /// CHAP_I
    pub(crate) fn id(&self) -> String {
        format!("{}", self.id)
    }
    /// CHAP_C
    pub(crate) fn text(&self) -> String {
        self.bytes.iter().fold(String::from("0x"), |text, byte| format!("{text}{byte:02x}"))
    }
    //= RFC 1994 4.1
    /// Whether a name and an answer prove knowledge of the secret.
    pub(crate) fn proves(&self, name: &str, answer: &str, secret: &ChapSecret) -> bool {
        let mut hash = Md5::new();
        hash.update([self.id]);
        hash.update(secret.secret.as_bytes());
        hash.update(self.bytes);
        let expected = hash.finalize();
        let Some(answer) = binary(answer) else { return false };
        // Both are compared whatever the other one says.
        let proves = expected.as_slice().ct_eq(&answer) & name.as_bytes().ct_eq(secret.user.as_bytes());
        bool::from(proves)
    }
}

//= RFC 7143 6.1
/// A binary value: hexadecimal or base64, of a response's length.
fn binary(text: &str) -> Option<Vec<u8>> {
    let bytes = if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        from_hex(hex)?
    } else {
        from_base64(text.strip_prefix("0b").or_else(|| text.strip_prefix("0B"))?)?
    };
    (bytes.len() == RESPONSE_BYTES).then_some(bytes)
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 2 * RESPONSE_BYTES {
        return None;
    }
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    Some(digits?.chunks_exact(2).map(|pair| (pair[0] << 4) | pair[1]).collect())
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    if text.len() > 2 * RESPONSE_BYTES {
        return None;
    }
    let (mut bits, mut count, mut bytes) = (0u32, 0, Vec::new());
    for c in text.bytes() {
        let digit = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> ChapSecret {
        ChapSecret { user: "alice".into(), secret: "correct horse b".into() }
    }

    fn answer(challenge: &Challenge, secret: &str) -> String {
        let mut hash = Md5::new();
        hash.update([challenge.id]);
        hash.update(secret);
        hash.update(challenge.bytes);
        hash.finalize().iter().fold("0x".into(), |text, byte| format!("{text}{byte:02x}"))
    }

    #[test]
    fn only_the_right_name_with_the_right_secret_proves_anything() {
        let challenge = Challenge::new(&[7; 32]);
        let right = answer(&challenge, "correct horse b");
        assert!(challenge.proves("alice", &right, &secret()));
        assert!(!challenge.proves("bob", &right, &secret()));
        assert!(!challenge.proves("alice", &answer(&challenge, "wrong"), &secret()));
        assert!(!challenge.proves("alice", "0x00", &secret()));
        assert!(!challenge.proves("alice", "", &secret()));
    }

    #[test]
    fn a_response_in_base64_is_understood() {
        assert_eq!(from_base64("AAECAw=="), Some(alloc::vec![0, 1, 2, 3]));
        assert_eq!(from_base64("A*"), None);
    }

    #[test]
    fn neither_the_challenge_nor_the_secret_is_printed() {
        let printed = format!("{:?} {:?}", Challenge::new(&[7; 32]), secret());
        assert_eq!(printed, "Challenge(7) ChapSecret(alice)");
    }
}
