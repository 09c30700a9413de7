//! TLS of clients.

use super::{Alpn, TlsError, VERSIONS, provider};
use crate::authority::certificates;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{PrivateKeyDer, ServerName, pem::PemObject as _};
use std::{io, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A client that trusts the authorities in `ca_pem` and nobody else. `identity` is the chain and
/// the key with which it shows who it is, as PEM.
pub fn client_config(
    ca_pem: &str,
    identity: Option<(&str, &str)>,
    alpn: Alpn,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for der in certificates(ca_pem).ok_or(TlsError::NoAuthority)? {
        roots.add(der)?;
    }
    if roots.is_empty() {
        return Err(TlsError::NoAuthority);
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&VERSIONS)?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = certificates(chain).ok_or(TlsError::Client)?;
            let key =
                PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| TlsError::Client)?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.alpn_protocols = alpn.protocols();
    Ok(Arc::new(config))
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
