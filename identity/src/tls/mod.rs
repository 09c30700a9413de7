//! TLS of servers and clients. Nobody connects without knowing whom.

mod accept;
mod client;
mod files;
mod fingerprint;
mod reload;
mod server;
mod strangers;
#[cfg(test)]
mod tests;

pub use self::{
    accept::{Peer, TlsListener, TlsStream},
    client::{ClientFiles, ClientTls, client_config, connect, connect_to, connect_unverified},
    fingerprint::{Fingerprint, NoFingerprint},
    server::{ServerTls, TlsConfig},
};

pub(crate) use self::files::{name, san};

use std::{io, path::PathBuf, sync::Arc};

/// A certificate in a file, and when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The setting that names the file.
    pub setting: String,
    /// What the certificate is for.
    pub role: Role,
    /// When it ends.
    pub not_after: jiff::Timestamp,
    /// Whether we made it, and make the next one before that.
    pub renewed: bool,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is shown to others.
    Own,
    /// The authority of what is shown, which we made.
    OwnAuthority,
    /// An authority of others.
    Authority,
}

/// What is spoken inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// gRPC: HTTP/2.
    Grpc,
    /// HTTP/2 and HTTP/1.1.
    Http,
}

impl Alpn {
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::Grpc => vec![b"h2".to_vec()],
            Self::Http => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        }
    }
}

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{setting}: cannot read {}", path.display())]
    Read {
        /// The setting that names the file.
        setting: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("{setting}: cannot write {}", path.display())]
    Write {
        /// The setting that names the folder.
        setting: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file has no certificate.
    #[error("{setting}: {} holds no certificate as PEM, or a damaged one", path.display())]
    NoCertificate {
        /// The setting that names the file.
        setting: String,
        /// The file.
        path: PathBuf,
    },
    /// A file has no private key.
    #[error("{setting}: {} holds no private key as PEM", path.display())]
    NoKey {
        /// The setting that names the file.
        setting: String,
        /// The file.
        path: PathBuf,
    },
    /// The key is another certificate's.
    #[error("{setting}: the key in {} does not belong to the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The setting that names the key.
        setting: String,
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        certificate: PathBuf,
    },
    /// A certificate that was told is of no use.
    #[error("{setting}: holds no certificate with its private key as PEM, or not of one another")]
    Told {
        /// What it stands under.
        setting: String,
    },
    /// The authority of the data directory is of no use.
    #[error("{setting}: the certificate authority in {} cannot be used", path.display())]
    Authority {
        /// The setting that names the folder.
        setting: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: crate::AuthorityError,
    },
    /// No authority was given to verify servers with.
    #[error("no CA certificate is given, and without one no connection is made")]
    NoAuthority,
    /// The certificate or the key that was given is of no use.
    #[error("the client certificate cannot be used")]
    Client,
    /// TLS cannot be set up with what was given.
    #[error("TLS cannot be configured")]
    Config(#[from] rustls::Error),
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The oldest version that anybody speaks; two of ours agree on the newest.
static VERSIONS: [&rustls::SupportedProtocolVersion; 2] =
    [&rustls::version::TLS13, &rustls::version::TLS12];
