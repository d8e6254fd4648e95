//! A node's identity: its certificate, its key and the authority that it trusts, read from the folder
//! `identity/` of the data directory. Node and cluster are what the certificate says; there is no second
//! place that could say otherwise.
//!
//! TLS 1.3 only, both sides show a certificate, no session is resumed: each connection is verified in full.

use crate::ca::{Authority, NodeKey, PkiError, dns_names, read_text, write};
use crate::paths::Paths;
use crate::roster::{Members, key_of};
use crate::{atomic, name};
use holdfast_types::{ClusterId, KeyHash, NodeId};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};
use thiserror::Error;

/// A certificate is renewed when less than this is left of its validity.
const RENEW_BEFORE: Duration = Duration::from_secs(crate::ca::NODE_DAYS as u64 * 24 * 3600 / 3);

/// Why an identity cannot be used.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// A file could not be read, written or understood.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The certificate does not name a node of a cluster.
    #[error("{path}: the certificate names no node of a cluster")]
    NoName {
        /// The certificate file.
        path: PathBuf,
    },
    /// The certificate is of one cluster and the authority of another.
    #[error("{path}: the certificate is of cluster {certificate}, the authority of {authority}")]
    OtherCluster {
        /// The certificate file.
        path: PathBuf,
        /// The cluster that the certificate says.
        certificate: ClusterId,
        /// The cluster that the authority says.
        authority: ClusterId,
    },
    /// TLS cannot be set up with these files.
    #[error("the identity in {folder} is not usable for TLS: {source}")]
    Tls {
        /// The identity folder.
        folder: PathBuf,
        /// What the library says.
        source: rustls::Error,
    },
}

/// Who this node is to its peers. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    cluster: ClusterId,
    node: NodeId,
    authority: CertificateDer<'static>,
    current: Arc<CurrentKey>,
    connector: Arc<ClientConfig>,
    acceptor: Arc<ServerConfig>,
    key: KeyHash,
    members: Members,
    paths: Paths,
}

impl Identity {
    /// Writes a new identity into `folder`: key, certificate, authority with its key.
    pub fn create(folder: &Path, authority: &Authority, node: NodeId) -> Result<Self, IdentityError> {
        let key = NodeKey::generate()?;
        let certificate = authority.issue(node, key.public())?;
        authority.save(folder)?;
        Self::store(folder, &key, &certificate)?;
        Self::load(folder)
    }

    /// Writes key and certificate into `folder`, where the authority already is.
    pub fn store(folder: &Path, key: &NodeKey, certificate_pem: &str) -> Result<(), IdentityError> {
        write(&folder.join("node.key"), &key.to_pem(), atomic::PRIVATE)?;
        write(&folder.join("node.pem"), certificate_pem, atomic::PUBLIC)?;
        Ok(())
    }

    /// Reads the identity in `folder`.
    pub fn load(folder: &Path) -> Result<Self, IdentityError> {
        let authority = read_certificate(&folder.join("ca.pem"))?;
        let (certificate, key) = read_pair(folder)?;
        let path = folder.join("node.pem");
        let names = dns_names(&certificate);
        let (cluster, node) = names
            .iter()
            .find_map(|n| name::parse_node_name(n))
            .ok_or_else(|| IdentityError::NoName { path: path.clone() })?;
        let of_authority = crate::ca::authority_cluster(&authority);
        if let Some(a) = of_authority.filter(|a| *a != cluster) {
            return Err(IdentityError::OtherCluster { path, certificate: cluster, authority: a });
        }
        let tls = |source| IdentityError::Tls { folder: folder.into(), source };
        let provider = Arc::new(peer_provider());
        let key_hash = key_of(&certificate);
        let certified = certified_key(&provider, certificate, &authority, &key).map_err(tls)?;
        let current = Arc::new(CurrentKey(RwLock::new(Arc::new(certified))));
        let connector = client_config(&provider, &authority, current.clone()).map_err(tls)?;
        let acceptor = peer_server_config(&provider, &authority, current.clone()).map_err(tls)?;
        Ok(Self(Arc::new(Inner {
            folder: folder.into(),
            cluster,
            node,
            authority,
            current,
            connector: Arc::new(connector),
            acceptor: Arc::new(acceptor),
            key: key_hash,
            members: Members::default(),
            paths: Paths::default(),
        })))
    }

    /// Issues a new certificate for the same key when the present one nears its end. To be called at start and
    /// once a day. Connections made from then on show the new one. Says whether it did.
    pub fn renew_if_due(&self, now: SystemTime) -> Result<bool, IdentityError> {
        if !self.0.current.due(now) {
            return Ok(false);
        }
        let folder = &self.0.folder;
        let authority = Authority::load(folder)?;
        let key = NodeKey::load(&folder.join("node.key"))?;
        let pem = authority.issue(self.0.node, key.public())?;
        write(&folder.join("node.pem"), &pem, atomic::PUBLIC)?;
        let (certificate, key) = read_pair(folder)?;
        let provider = Arc::new(ring::default_provider());
        let certified = certified_key(&provider, certificate, &self.0.authority, &key)
            .map_err(|source| IdentityError::Tls { folder: folder.clone(), source })?;
        self.0.current.replace(certified);
        Ok(true)
    }

    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.0.cluster
    }
    /// The node.
    pub fn node(&self) -> NodeId {
        self.0.node
    }
    /// The hash of this node's key.
    pub fn key(&self) -> KeyHash {
        self.0.key
    }
    /// Whom this node takes for members of its cluster.
    pub fn members(&self) -> &Members {
        &self.0.members
    }
    /// The ways to the other nodes.
    pub fn paths(&self) -> &Paths {
        &self.0.paths
    }
    /// The authority's certificate.
    pub fn authority(&self) -> &CertificateDer<'static> {
        &self.0.authority
    }
    /// TLS as one who connects to a peer.
    pub fn connector(&self) -> Arc<ClientConfig> {
        self.0.connector.clone()
    }
    /// TLS as one to whom peers connect: they must show a certificate of this cluster.
    pub fn acceptor(&self) -> Arc<ServerConfig> {
        self.0.acceptor.clone()
    }
    /// TLS for the API: the node shows its certificate, and the authority's with it so that a client that
    /// knows only its hash can check the chain; the client proves itself by a token.
    pub fn api_acceptor(&self) -> Result<Arc<ServerConfig>, IdentityError> {
        let tls = |source| IdentityError::Tls { folder: self.0.folder.clone(), source };
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls)?
            .with_no_client_auth()
            .with_cert_resolver(self.0.current.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// The certificate and key that are shown now; replaced by a renewal.
#[derive(Debug)]
struct CurrentKey(RwLock<Arc<CertifiedKey>>);

impl CurrentKey {
    fn get(&self) -> Arc<CertifiedKey> {
        // Nothing panics while holding it, and the value is whole at any moment.
        self.0.read().unwrap_or_else(|e| e.into_inner()).clone()
    }
    fn replace(&self, key: CertifiedKey) {
        *self.0.write().unwrap_or_else(|e| e.into_inner()) = Arc::new(key);
    }
    fn due(&self, now: SystemTime) -> bool {
        match self.get().cert.first().and_then(not_after) {
            Some(end) => end < now + RENEW_BEFORE,
            None => true,
        }
    }
}

impl ResolvesServerCert for CurrentKey {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

impl ResolvesClientCert for CurrentKey {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
    fn has_certs(&self) -> bool {
        true
    }
}

/// When a certificate ends. Read from the DER by hand: `webpki` checks validity but does not tell it, and a
/// parser of certificates for one field is a large dependency. The validity is the first SEQUENCE of exactly
/// two times in a certificate (RFC 5280 4.1); names before it hold no times.
fn not_after(certificate: &CertificateDer<'static>) -> Option<SystemTime> {
    let der = certificate.as_ref();
    let at = der.windows(2).enumerate().position(|(i, w)| w == [0x30, 0x1e] && is_utc_pair(&der[i + 2..]))?;
    let text = std::str::from_utf8(der.get(at + 2 + 15 + 2..at + 2 + 30)?).ok()?;
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u16>().ok();
    let year = number(0..2)?;
    // RFC 5280 4.1.2.5.1: two digits from 50 on are of the century before.
    let year = i32::from(year) + if year >= 50 { 1900 } else { 2000 };
    let month = time::Month::try_from(number(2..4)? as u8).ok()?;
    let date = time::Date::from_calendar_date(year, month, number(4..6)? as u8).ok()?;
    let clock =
        time::Time::from_hms(number(6..8)? as u8, number(8..10)? as u8, number(10..12)? as u8).ok()?;
    Some(time::PrimitiveDateTime::new(date, clock).assume_utc().into())
}

/// Whether two UTCTime values of 13 characters follow.
fn is_utc_pair(der: &[u8]) -> bool {
    let one = |d: &[u8]| d.starts_with(&[0x17, 13]) && d.get(14) == Some(&b'Z');
    one(der) && der.get(15..).is_some_and(one)
}

fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, PkiError> {
    let text = read_text(path)?;
    let malformed = |_| PkiError::Malformed { path: path.into(), expected: "a certificate in PEM" };
    CertificateDer::from_pem_slice(text.as_bytes()).map_err(malformed)
}

fn read_pair(folder: &Path) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), PkiError> {
    let certificate = read_certificate(&folder.join("node.pem"))?;
    let path = folder.join("node.key");
    if !NodeKey::load(&path)?.is_key_of(&certificate) {
        return Err(PkiError::KeyMismatch { path });
    }
    let text = read_text(&path)?;
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes());
    Ok((certificate, key.map_err(|_| PkiError::Malformed { path, expected: "a private key in PEM" })?))
}

fn certified_key(
    provider: &CryptoProvider,
    certificate: CertificateDer<'static>,
    authority: &CertificateDer<'static>,
    key: &PrivateKeyDer<'static>,
) -> Result<CertifiedKey, rustls::Error> {
    let signer = provider.key_provider.load_private_key(key.clone_key())?;
    Ok(CertifiedKey::new(vec![certificate, authority.clone()], signer))
}

pub(crate) fn roots(authority: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    Ok(Arc::new(roots))
}

/// The ciphers of the links between nodes: AES-128 first, which protects as well as anything and costs less than
/// AES-256 for each byte that is replicated.
fn peer_provider() -> CryptoProvider {
    use ring::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384};
    let cipher_suites = vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384];
    CryptoProvider { cipher_suites, ..ring::default_provider() }
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    authority: &CertificateDer<'static>,
    current: Arc<CurrentKey>,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(authority)?)
        .with_client_cert_resolver(current);
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// A client's TLS that shows no certificate and checks the server's by `verifier`.
pub(crate) fn anonymous_client(verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn peer_server_config(
    provider: &Arc<CryptoProvider>,
    authority: &CertificateDer<'static>,
    current: Arc<CurrentKey>,
) -> Result<ServerConfig, rustls::Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(authority)?, provider.clone())
        .build()
        .map_err(|e| rustls::Error::General(e.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(current);
    config.send_tls13_tickets = 0;
    Ok(config)
}
