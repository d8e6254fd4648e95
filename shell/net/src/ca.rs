//! The cluster's certificate authority: one self-signed certificate made by `init`, and the certificates that
//! it issues to nodes. ECDSA P-256 throughout.
//!
//! Every node holds the authority's key, so that any node can admit another and renew its own certificate
//! while the rest is down. Whoever reads `ca.key` can therefore join the cluster; the file is as secret as the
//! disks themselves, which the same reader could open anyway.

use crate::roster::PUBLIC_KEY_BYTES;
use crate::{atomic, name};
use holdfast_types::{ClusterId, NodeId};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SignatureAlgorithm,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;
use time::{Duration, OffsetDateTime};

/// How long an authority's certificate is valid.
const AUTHORITY_DAYS: i64 = 3650;
/// How long a node's certificate is valid. Renewed when a third of it is left: `Identity::renew_if_due`.
pub const NODE_DAYS: i64 = 365;
/// Certificates are valid from this long before they are made: clocks of hosts differ.
const CLOCK_SKEW: Duration = Duration::DAY;

/// Why a certificate or key could not be made, read or written.
#[derive(Debug, Error)]
pub enum PkiError {
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A file does not hold what its name promises.
    #[error("{path}: not {expected}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
    },
    /// `ca.key` is not the key of `ca.pem`, or `node.key` not that of `node.pem`.
    #[error("{path}: this key belongs to another certificate")]
    KeyMismatch {
        /// The key file.
        path: PathBuf,
    },
    /// A public key is not an uncompressed P-256 point.
    #[error("the public key is not a P-256 point")]
    PublicKey,
    /// The library could not make the certificate.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub from: OffsetDateTime,
    /// The last moment.
    pub until: OffsetDateTime,
}

impl Validity {
    /// From now (a day ago, for clocks that differ) for `days`.
    pub fn days_from_now(days: i64) -> Self {
        let now = OffsetDateTime::now_utc();
        Self { from: now - CLOCK_SKEW, until: now + Duration::days(days) }
    }
}

/// A node's private key. It never leaves the node.
pub struct NodeKey(KeyPair);

impl NodeKey {
    /// A new key.
    pub fn generate() -> Result<Self, PkiError> {
        Ok(Self(KeyPair::generate()?))
    }
    /// The public half: what a joining node sends. It is no proof of possession, and needs none: a certificate
    /// for a key that one does not hold is of no use.
    pub fn public(&self) -> &[u8] {
        self.0.public_key_raw()
    }
    /// The private half as PEM.
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }
    /// Reads what [`NodeKey::to_pem`] made.
    pub fn load(path: &Path) -> Result<Self, PkiError> {
        let pem = read_text(path)?;
        let malformed = || PkiError::Malformed { path: path.into(), expected: "a private key in PEM" };
        Ok(Self(KeyPair::from_pem(&pem).map_err(|_| malformed())?))
    }
}

/// A public key of another node, as it came over the wire.
struct PublicPoint<'a>(&'a [u8]);

impl PublicKeyData for PublicPoint<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// The cluster's certificate authority, with its key.
pub struct Authority {
    cluster: ClusterId,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes the authority of a new cluster.
    pub fn create(cluster: ClusterId) -> Result<Self, PkiError> {
        let key = KeyPair::generate()?;
        let params = authority_params(cluster);
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            cluster,
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Reads `ca.pem` and `ca.key` from an identity folder.
    pub fn load(folder: &Path) -> Result<Self, PkiError> {
        let path = folder.join("ca.pem");
        let pem = read_text(&path)?;
        let key_path = folder.join("ca.key");
        let key_pem = read_text(&key_path)?;
        Self::from_pem(&pem, &key_pem).map_err(|e| match e {
            FromPem::Certificate => PkiError::Malformed { path, expected: "the certificate of an authority" },
            FromPem::Key => PkiError::Malformed { path: key_path, expected: "a private key in PEM" },
            FromPem::Mismatch => PkiError::KeyMismatch { path: key_path },
        })
    }

    /// The authority from its two files' content; how a joining node gets it.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, FromPem> {
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes());
        let certificate = certificate.map_err(|_| FromPem::Certificate)?.into_owned();
        let cluster = authority_cluster(&certificate).ok_or(FromPem::Certificate)?;
        let key = KeyPair::from_pem(key_pem).map_err(|_| FromPem::Key)?;
        if !certificate_has_key(&certificate, &key) {
            return Err(FromPem::Mismatch);
        }
        let issuer = Issuer::new(authority_params(cluster), key);
        Ok(Self { cluster, certificate, certificate_pem: certificate_pem.to_owned(), issuer })
    }

    /// Writes `ca.pem` and `ca.key` into an identity folder.
    pub fn save(&self, folder: &Path) -> Result<(), PkiError> {
        write(&folder.join("ca.key"), &self.key_pem(), atomic::PRIVATE)?;
        write(&folder.join("ca.pem"), &self.certificate_pem, atomic::PUBLIC)
    }

    /// Whose authority it is.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }
    /// Its certificate as PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }
    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }
    /// Its key as PEM: a secret.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for `node` with that public key ([`NodeKey::public`]), as PEM.
    pub fn issue(&self, node: NodeId, public_key: &[u8]) -> Result<String, PkiError> {
        self.issue_for(node, public_key, Validity::days_from_now(NODE_DAYS))
    }

    /// The same with a validity of the caller's.
    pub fn issue_for(&self, node: NodeId, public_key: &[u8], validity: Validity) -> Result<String, PkiError> {
        if public_key.len() != PUBLIC_KEY_BYTES || public_key[0] != 4 {
            return Err(PkiError::PublicKey);
        }
        let node_name = name::node_name(self.cluster, node);
        let mut params = CertificateParams::new([node_name.clone(), name::api_name(self.cluster)])?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, node_name);
        params.not_before = validity.from;
        params.not_after = validity.until;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Ok(params.signed_by(&PublicPoint(public_key), &self.issuer)?.pem())
    }
}

/// What is wrong with an authority given as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FromPem {
    /// The certificate.
    #[error("not the certificate of an authority")]
    Certificate,
    /// The key.
    #[error("not a private key in PEM")]
    Key,
    /// The key is not that of the certificate.
    #[error("the key belongs to another certificate")]
    Mismatch,
}

fn authority_params(cluster: ClusterId) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Holdfast cluster");
    params.distinguished_name.push(DnType::CommonName, cluster.to_string());
    params.subject_alt_names =
        vec![rcgen::SanType::DnsName(name::api_name(cluster).try_into().expect("a DNS name is ASCII"))];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let validity = Validity::days_from_now(AUTHORITY_DAYS);
    params.not_before = validity.from;
    params.not_after = validity.until;
    params
}

/// The cluster that an authority's certificate says.
pub(crate) fn authority_cluster(certificate: &CertificateDer<'_>) -> Option<ClusterId> {
    dns_names(certificate).iter().find_map(|n| name::parse_api_name(n))
}

/// The DNS names in a certificate; none when it is no certificate.
pub(crate) fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    match webpki::EndEntityCert::try_from(certificate) {
        Ok(cert) => cert.valid_dns_names().map(str::to_owned).collect(),
        Err(_) => Vec::new(),
    }
}

/// Whether the certificate's public key is that of `key`.
pub(crate) fn certificate_has_key(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    match webpki::EndEntityCert::try_from(certificate) {
        // The subject's public key info ends with the point itself.
        Ok(cert) => cert.subject_public_key_info().ends_with(key.public_key_raw()),
        Err(_) => false,
    }
}

impl NodeKey {
    /// Whether `certificate` is for this key.
    pub(crate) fn is_key_of(&self, certificate: &CertificateDer<'_>) -> bool {
        certificate_has_key(certificate, &self.0)
    }
}

pub(crate) fn read_text(path: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(path).map_err(|source| PkiError::Io { path: path.into(), source })
}

pub(crate) fn write(path: &Path, content: &str, mode: u32) -> Result<(), PkiError> {
    atomic::write(path, content.as_bytes(), mode).map_err(|source| PkiError::Io { path: path.into(), source })
}
