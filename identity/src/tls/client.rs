//! TLS of clients.

use super::{
    Alpn, Ending, Role, TlsError, VERSIONS,
    files::{Named, load},
    provider,
    reload::Reloaded,
};
use crate::authority::certificates;
use parking_lot::Mutex;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _};
use std::{io, path::PathBuf, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A client that trusts the authorities in `ca_pem` and nobody else. `identity` is the chain and
/// the key with which it shows who it is, as PEM.
pub fn client_config(
    ca_pem: &str,
    identity: Option<(&str, &str)>,
    alpn: Alpn,
) -> Result<Arc<ClientConfig>, TlsError> {
    let authorities = certificates(ca_pem).filter(|all| !all.is_empty());
    let identity = match identity {
        None => None,
        Some((chain, key)) => {
            let chain = certificates(chain).ok_or(TlsError::Client)?;
            let key =
                PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| TlsError::Client)?;
            Some(Arc::new(CertifiedKey::from_der(chain, key, &provider())?))
        }
    };
    assemble(authorities.ok_or(TlsError::NoAuthority)?, identity, alpn)
}

/// A client that trusts these authorities, and shows that certificate.
fn assemble(
    authorities: Vec<CertificateDer<'static>>,
    identity: Option<Arc<CertifiedKey>>,
    alpn: Alpn,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for der in authorities {
        roots.add(der)?;
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&VERSIONS)?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(pair) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair))),
    };
    config.alpn_protocols = alpn.protocols();
    Ok(Arc::new(config))
}

/// The files of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// The authorities that servers must descend from.
    pub ca: PathBuf,
    /// The certificate chain with which the client shows who it is, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The TLS of a client, as its files are now.
#[derive(Debug)]
pub struct ClientTls {
    ca: Named,
    identity: Option<(Named, Named)>,
    alpn: Alpn,
    config: Mutex<Reloaded<Arc<ClientConfig>>>,
}

impl ClientTls {
    /// Loads the files, which the settings `caFile`, `certFile` and `keyFile` of `setting` name.
    pub fn open(setting: &str, files: &ClientFiles, alpn: Alpn) -> Result<Self, TlsError> {
        let named = |field, path: &PathBuf| Named::new(format!("{setting}.{field}"), path);
        let ca = named("caFile", &files.ca);
        let identity = files.identity.as_ref();
        let identity =
            identity.map(|(chain, key)| (named("certFile", chain), named("keyFile", key)));
        let config = Reloaded::new(&all(&ca, identity.as_ref()), || {
            from_files(&ca, identity.as_ref(), alpn)
        })?;
        Ok(Self { ca, identity, alpn, config: Mutex::new(config) })
    }

    /// When the certificates in its files end.
    #[must_use]
    pub fn endings(&self) -> Vec<Ending> {
        let own = self.identity.iter().flat_map(|(chain, _)| chain.endings(Role::Own, false));
        own.chain(self.ca.endings(Role::Authority, false)).collect()
    }

    /// What the next connection is made with. Files that changed are loaded; if they cannot be,
    /// what was good last stays.
    #[must_use]
    pub fn current(&self) -> Arc<ClientConfig> {
        let (ca, identity) = (&self.ca, self.identity.as_ref());
        let mut config = self.config.lock();
        config.look(&all(ca, identity), || from_files(ca, identity, self.alpn)).clone()
    }
}

fn all<'a>(ca: &'a Named, identity: Option<&'a (Named, Named)>) -> Vec<&'a Named> {
    let identity = identity.into_iter().flat_map(|(chain, key)| [chain, key]);
    [ca].into_iter().chain(identity).collect()
}

fn from_files(
    ca: &Named,
    identity: Option<&(Named, Named)>,
    alpn: Alpn,
) -> Result<Arc<ClientConfig>, TlsError> {
    let identity = identity.map(|(chain, key)| load(chain, key)).transpose()?;
    assemble(ca.certificates()?, identity, alpn)
}

/// Connects to a server, whose certificate must name `host`.
pub async fn connect(
    config: Arc<ClientConfig>,
    host: &str,
    port: u16,
) -> io::Result<TlsStream<TcpStream>> {
    connect_to(config, host, host, port).await
}

/// Connects to a server that is known by another name than that of its host. Its certificate must
/// have the name.
pub async fn connect_to(
    config: Arc<ClientConfig>,
    name: &str,
    host: &str,
    port: u16,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    TlsConnector::from(config).connect(name, tcp).await
}

/// Speaks TLS with the program at the other end of `tcp`, whoever it is: for who only wants to know
/// whether it answers, and trusts nothing that it says.
pub async fn connect_unverified(tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&VERSIONS)
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider())))
        .with_no_client_auth();
    let name = ServerName::from(std::net::IpAddr::from(std::net::Ipv4Addr::LOCALHOST));
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

/// Takes every certificate.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
