//! Trust by hash: a client that knows only the SHA-256 of the cluster's authority (from a join token or an
//! admin token) checks the chain that a node shows against it. Any node of that cluster will do.

use crate::ca::dns_names;
use crate::identity::{anonymous_client, roots};
use crate::name;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use thiserror::Error as ThisError;

/// The SHA-256 of an authority's certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CaPin(pub [u8; 32]);

/// A text that is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[error("not a SHA-256 of 64 hexadecimal digits")]
pub struct NotAPin;

impl CaPin {
    /// The pin of that authority.
    pub fn of(authority: &CertificateDer<'_>) -> Self {
        Self(sha256(authority))
    }

    /// TLS towards a node of the cluster with this authority, showing no certificate of one's own.
    pub fn client(self) -> Result<Arc<ClientConfig>, Error> {
        Ok(Arc::new(anonymous_client(Arc::new(PinVerifier { pin: self }))?))
    }
}

/// The SHA-256 of `data`.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    let digest = ::ring::digest::digest(&::ring::digest::SHA256, data);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// Fills `out` with what cannot be guessed.
pub fn random(out: &mut [u8]) {
    use ::ring::rand::SecureRandom;
    // getrandom(2) with these arguments cannot fail on any kernel that the project runs on; to go on with a
    // guessable secret would be worse than to stop.
    ::ring::rand::SystemRandom::new().fill(out).expect("the kernel gives random bytes");
}

/// Whether two secrets are equal, in a time that does not depend on where they differ.
pub fn same_secret(a: &[u8], b: &[u8]) -> bool {
    let (a, b) = (sha256(a), sha256(b));
    a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

impl fmt::Display for CaPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
impl fmt::Debug for CaPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaPin({self})")
    }
}
impl FromStr for CaPin {
    type Err = NotAPin;
    fn from_str(s: &str) -> Result<Self, NotAPin> {
        holdfast_types::hash_from_hex(s).map(Self).ok_or(NotAPin)
    }
}

/// Finds the pinned authority in the chain and lets webpki verify the rest of it.
#[derive(Debug)]
struct PinVerifier {
    pin: CaPin,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _asked: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates
            .iter()
            .find(|c| CaPin::of(c) == self.pin)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let names = dns_names(end_entity);
        let api = names
            .into_iter()
            .find(|n| name::parse_api_name(n).is_some())
            .ok_or(Error::InvalidCertificate(CertificateError::NotValidForName))?;
        let provider = Arc::new(ring::default_provider());
        let roots = roots(&authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|e| Error::General(e.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], &name::server_name(api), ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // TLS 1.2 is not offered.
        Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
