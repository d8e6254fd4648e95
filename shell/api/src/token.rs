//! The two secrets of the API. A join token lets one host join, once, within a day: where the API is, the hash
//! of the cluster's authority, and a secret. An admin token lets its holder do everything, from anywhere: the
//! same hash and a secret. The hash is why neither host nor certificate needs to be trusted beforehand.

use holdfast_net::pin::{CaPin, random, same_secret, sha256};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::{Arc, RwLock};
use thiserror::Error;

/// How long a join token can be used.
pub const JOIN_TOKEN_HOURS: u64 = 24;
const PREFIX: &str = "hf1";

/// A secret of 128 bits that cannot be guessed. Never printed by `Debug`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret([u8; 16]);

impl Secret {
    /// A new one.
    pub fn generate() -> Self {
        let mut bytes = [0; 16];
        random(&mut bytes);
        Self(bytes)
    }
    /// From 32 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        Some(Self(from_hex(text)?.try_into().ok()?))
    }
    /// As 32 hexadecimal digits.
    pub fn to_hex(self) -> String {
        to_hex(&self.0)
    }
    /// What the cluster keeps of it: its SHA-256.
    pub fn hash(self) -> [u8; 32] {
        sha256(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It is something else.
    #[error("this is not a token of ours (it starts with {PREFIX} and has only digits and a-f after it)")]
    Shape,
    /// Some of it is missing or changed.
    #[error("the token is damaged: copy the whole of it")]
    Damaged,
    /// An admin token is two fields with a dot between.
    #[error("this is not an admin token (the content of admin.token in the data folder of a node)")]
    NotAdmin,
}

/// A join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// Where the API of a node of the cluster listens.
    pub address: SocketAddr,
    /// The hash of the cluster's authority.
    pub pin: CaPin,
    /// The secret.
    pub secret: Secret,
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(80);
        match self.address.ip() {
            IpAddr::V4(ip) => bytes.extend([&[4][..], &ip.octets()].concat()),
            IpAddr::V6(ip) => bytes.extend([&[6][..], &ip.octets()].concat()),
        }
        bytes.extend(self.address.port().to_le_bytes());
        bytes.extend(self.pin.0);
        bytes.extend(self.secret.0);
        bytes.extend(holdfast_checksum::crc32c(&bytes).to_le_bytes());
        write!(f, "{PREFIX}{}", to_hex(&bytes))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let digits = text.trim().strip_prefix(PREFIX).ok_or(TokenError::Shape)?;
        if digits.len() > 256 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(TokenError::Shape);
        }
        let bytes = from_hex(digits).ok_or(TokenError::Damaged)?;
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(TokenError::Damaged)?;
        if u32::from_le_bytes(*crc) != holdfast_checksum::crc32c(body) {
            return Err(TokenError::Damaged);
        }
        decode(body).ok_or(TokenError::Damaged)
    }
}

fn decode(body: &[u8]) -> Option<JoinToken> {
    let (family, rest) = body.split_first()?;
    let (ip, rest) = match family {
        4 => rest.split_first_chunk::<4>().map(|(o, r)| (IpAddr::V4(Ipv4Addr::from(*o)), r))?,
        6 => rest.split_first_chunk::<16>().map(|(o, r)| (IpAddr::V6(Ipv6Addr::from(*o)), r))?,
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let (pin, rest) = rest.split_first_chunk::<32>()?;
    let secret: [u8; 16] = rest.try_into().ok()?;
    let address = SocketAddr::new(ip, u16::from_le_bytes(*port));
    Some(JoinToken { address, pin: CaPin(*pin), secret: Secret(secret) })
}

/// The token of the API: the content of `admin.token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminToken {
    /// The hash of the cluster's authority.
    pub pin: CaPin,
    /// The secret.
    pub secret: Secret,
}

impl fmt::Display for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.pin, self.secret.to_hex())
    }
}

impl FromStr for AdminToken {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (pin, secret) = text.trim().split_once('.').ok_or(TokenError::NotAdmin)?;
        let pin = pin.parse().map_err(|_| TokenError::NotAdmin)?;
        Ok(Self { pin, secret: Secret::from_hex(secret).ok_or(TokenError::NotAdmin)? })
    }
}

/// The admin token that a server takes, by the hash of its secret. It may be replaced while the server runs. Cheap to
/// clone; the clones are one.
#[derive(Clone, Debug)]
pub struct Accepted(Arc<RwLock<[u8; 32]>>);

impl Accepted {
    /// That token.
    pub fn of(token: AdminToken) -> Self {
        Self(Arc::new(RwLock::new(token.secret.hash())))
    }
    /// Takes the one whose secret has that hash from now on, and the one before no more.
    pub fn replace(&self, hash: [u8; 32]) {
        // Nothing panics while holding it, and the value is whole at any moment.
        *self.0.write().unwrap_or_else(|e| e.into_inner()) = hash;
    }
    /// Whether `text` is it.
    pub fn takes(&self, text: &str) -> bool {
        let hash = *self.0.read().unwrap_or_else(|e| e.into_inner());
        text.parse().is_ok_and(|t: AdminToken| same_secret(&t.secret.hash(), &hash))
    }
}

/// Bytes as hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Hexadecimal digits as bytes.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(address: &str) -> JoinToken {
        JoinToken { address: address.parse().unwrap(), pin: CaPin([7; 32]), secret: Secret([9; 16]) }
    }

    #[test]
    fn a_join_token_reads_back_as_it_was_printed() {
        for address in ["127.0.0.1:7402", "[fe80::1]:1"] {
            assert_eq!(token(address).to_string().parse(), Ok(token(address)));
        }
    }

    #[test]
    fn a_join_token_that_was_cut_or_changed_is_refused_by_name() {
        let text = token("10.0.0.1:7402").to_string();
        assert_eq!(text[..text.len() - 2].parse::<JoinToken>(), Err(TokenError::Damaged));
        let changed = text.replacen("07", "08", 1);
        assert_eq!(changed.parse::<JoinToken>(), Err(TokenError::Damaged));
        assert_eq!("hello".parse::<JoinToken>(), Err(TokenError::Shape));
        assert_eq!("hf1zz".parse::<JoinToken>(), Err(TokenError::Shape));
        assert_eq!("hf1".parse::<JoinToken>(), Err(TokenError::Damaged));
    }

    #[test]
    fn an_admin_token_reads_back_and_shows_no_secret_in_debug() {
        let token = AdminToken { pin: CaPin([1; 32]), secret: Secret([0xab; 16]) };
        assert_eq!(token.to_string().parse(), Ok(token));
        assert!(!format!("{token:?}").contains("abab"));
        assert_eq!("x.y".parse::<AdminToken>(), Err(TokenError::NotAdmin));
        let accepted = Accepted::of(token);
        let other = AdminToken { secret: Secret([0xac; 16]), ..token };
        assert!(accepted.takes(&token.to_string()) && !accepted.takes(&other.to_string()));
        accepted.clone().replace(other.secret.hash());
        assert!(accepted.takes(&other.to_string()) && !accepted.takes(&token.to_string()));
        assert!(!accepted.takes("") && !accepted.takes(&other.secret.to_hex()));
    }
}
