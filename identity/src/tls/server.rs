//! TLS of servers: certificates from files, loaded again when they change, or made by ourselves.

use super::{
    Alpn, Ending, Role, TlsError, VERSIONS,
    files::{Named, SelfMade, load, san},
    provider,
    reload::Reloaded,
    strangers::Strangers,
};
use crate::{
    ServerPair,
    authority::{certificates, not_after},
};
use daemon::{Clock, Metrics, config::Problems};
use jiff::Timestamp;
use parking_lot::Mutex;
use rustls::{
    RootCertStore, ServerConfig,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// How often files are looked at, if connections come in.
const LOOK: Duration = Duration::from_secs(1);

/// The TLS of a server, a section such as `kds.tls`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate, with those that lead to its root. Empty: the server makes one itself, whose
    /// authority is in the file `tls/ca.crt` of its data directory.
    pub cert_file: String,
    /// The private key of the certificate.
    pub key_file: String,
    /// Authorities of clients, which may then show who they are by a certificate.
    pub client_ca_file: String,
    /// More names and addresses for the certificate that the server makes itself.
    pub names: Vec<String>,
}

impl TlsConfig {
    /// Adds every broken rule.
    pub fn check(&self, problems: &mut Problems) {
        if self.cert_file.is_empty() && !self.key_file.is_empty() {
            problems.add("certFile", "must be set together with keyFile");
        }
        if self.key_file.is_empty() && !self.cert_file.is_empty() {
            problems.add("keyFile", "must be set together with certFile");
        }
        for (i, name) in self.names.iter().enumerate() {
            let named = rustls_pki_types::ServerName::try_from(name.as_str()).is_ok();
            if !named || san(name).is_none() {
                let reason = format_args!("{name:?} is not a host name or an address");
                problems.add(format_args!("names[{i}]"), reason);
            }
        }
    }
}

/// The TLS of a server, as its files are now, or as it was told.
#[derive(Debug)]
pub struct ServerTls {
    source: Source,
    clock: Clock,
    loaded: Mutex<Loaded>,
    strangers: Arc<Strangers>,
}

/// Where a certificate comes from.
#[derive(Debug)]
enum Source {
    Files(Box<Files>),
    /// What clients trust, and the setting that everything stands under.
    Told {
        setting: String,
        told: Mutex<ServerPair>,
    },
}

#[derive(Debug)]
struct Files {
    certificate: Named,
    key: Named,
    client_ca: Option<Named>,
    self_made: Option<SelfMade>,
}

#[derive(Debug)]
struct Loaded {
    /// For gRPC, and for HTTP.
    configs: Reloaded<[Arc<ServerConfig>; 2]>,
    look_at: Instant,
    /// When the certificate that we made is to be replaced.
    renew_at: Timestamp,
}

impl ServerTls {
    /// Loads, or makes, what the section `setting` says. Must be called within a runtime.
    pub fn open(
        setting: &str,
        config: &TlsConfig,
        data: &Path,
        clock: Clock,
    ) -> Result<Self, TlsError> {
        let file = |field, path| Named::new(format!("{setting}.{field}"), path);
        let client_ca = match config.client_ca_file.as_str() {
            "" => None,
            path => Some(file("clientCaFile", path)),
        };
        let (certificate, key, self_made) = if config.cert_file.is_empty() {
            let made = SelfMade::new(data, &config.names);
            (made.certificate.clone(), made.key.clone(), Some(made))
        } else {
            (file("certFile", &config.cert_file), file("keyFile", &config.key_file), None)
        };
        let renew_at = match &self_made {
            Some(made) => made.ensure(clock.now())?,
            None => Timestamp::MAX,
        };
        let files = Files { certificate, key, client_ca, self_made };
        let configs = Reloaded::new(&files.all(), || files.configs())?;
        Ok(Self::with(Source::Files(Box::new(files)), configs, renew_at, clock))
    }

    /// A server whose certificate is kept by somebody else, who says when it is another one.
    /// `setting` says where. Must be called within a runtime.
    pub fn told(setting: &str, pair: ServerPair, clock: Clock) -> Result<Self, TlsError> {
        let configs = Reloaded::new(&[], || pair.configs(setting))?;
        let source = Source::Told { setting: setting.to_owned(), told: Mutex::new(pair) };
        Ok(Self::with(source, configs, Timestamp::MAX, clock))
    }

    fn with(
        source: Source,
        configs: Reloaded<[Arc<ServerConfig>; 2]>,
        renew_at: Timestamp,
        clock: Clock,
    ) -> Self {
        let look_at = Instant::now() + LOOK;
        let loaded = Mutex::new(Loaded { configs, look_at, renew_at });
        Self { source, clock, loaded, strangers: Arc::default() }
    }

    /// Has the next connection get another certificate. One that cannot be used changes nothing. A
    /// server with files of its own has no use for it.
    pub fn tell(&self, pair: ServerPair) -> Result<(), TlsError> {
        let Source::Told { setting, told } = &self.source else { return Ok(()) };
        let configs = Reloaded::new(&[], || pair.configs(setting))?;
        self.loaded.lock().configs = configs;
        *told.lock() = pair;
        Ok(())
    }

    /// Counts in `metrics` the connections whose peers speak something else.
    pub fn count(&self, metrics: &Metrics) {
        self.strangers.count(metrics);
    }

    pub(super) fn strangers(&self) -> Arc<Strangers> {
        self.strangers.clone()
    }

    /// The file that clients are given, if we made it.
    #[must_use]
    pub fn ca_file(&self) -> Option<PathBuf> {
        match &self.source {
            Source::Files(files) => {
                files.self_made.as_ref().map(|made| made.authority.path.clone())
            }
            Source::Told { .. } => None,
        }
    }

    /// What clients shall trust, as PEM, if we made it.
    pub fn ca_pem(&self) -> Result<Option<String>, TlsError> {
        match &self.source {
            Source::Files(files) => {
                files.self_made.as_ref().map(|made| made.authority.read()).transpose()
            }
            Source::Told { told, .. } => Ok(Some(told.lock().ca_pem.clone())),
        }
    }

    /// When its certificates end.
    #[must_use]
    pub fn endings(&self) -> Vec<Ending> {
        match &self.source {
            Source::Files(files) => files.endings(),
            Source::Told { setting, told } => told.lock().endings(setting),
        }
    }

    /// What the next connection gets. Files that changed are loaded; if they cannot be, what was
    /// good last stays.
    #[must_use]
    pub fn current(&self, alpn: Alpn) -> Arc<ServerConfig> {
        let mut loaded = self.loaded.lock();
        if let Source::Files(files) = &self.source
            && loaded.look_at <= Instant::now()
        {
            loaded.look_at = Instant::now() + LOOK;
            self.look(files, &mut loaded);
        }
        let [grpc, http] = loaded.configs.value();
        Arc::clone(match alpn {
            Alpn::Grpc => grpc,
            Alpn::Http => http,
        })
    }

    fn look(&self, files: &Files, loaded: &mut Loaded) {
        if let Some(made) = &files.self_made
            && loaded.renew_at <= self.clock.now()
        {
            match made.ensure(self.clock.now()) {
                Ok(renew_at) => loaded.renew_at = renew_at,
                Err(error) => tracing::error!(
                    error = %anyhow::Error::new(error), "certificate cannot be renewed"
                ),
            }
        }
        loaded.configs.look(&files.all(), || files.configs());
    }
}

impl Files {
    fn all(&self) -> Vec<&Named> {
        [&self.certificate, &self.key].into_iter().chain(&self.client_ca).collect()
    }

    fn configs(&self) -> Result<[Arc<ServerConfig>; 2], TlsError> {
        let pair = load(&self.certificate, &self.key)?;
        configs(pair, client_verifier(self.client_ca.as_ref())?)
    }

    fn endings(&self) -> Vec<Ending> {
        let made = self.self_made.as_ref();
        let own = self.certificate.endings(Role::Own, made.is_some());
        // Of a chain that we make, the authority is in a file of its own.
        let ours = made.map(|made| made.authority.endings(Role::OwnAuthority, false));
        let clients = self.client_ca.as_ref().map(|file| file.endings(Role::Authority, false));
        own.into_iter()
            .chain(ours.into_iter().flatten())
            .chain(clients.into_iter().flatten())
            .collect()
    }
}

impl ServerPair {
    fn configs(&self, setting: &str) -> Result<[Arc<ServerConfig>; 2], TlsError> {
        let unusable = || TlsError::Told { setting: setting.to_owned() };
        let chain = certificates(&self.chain_pem).filter(|chain| !chain.is_empty());
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes());
        let (chain, key) = (chain.ok_or_else(unusable)?, key.map_err(|_| unusable())?);
        let pair = CertifiedKey::from_der(chain, key, &provider()).map_err(|_| unusable())?;
        configs(Arc::new(pair), WebPkiClientVerifier::no_client_auth())
    }

    fn endings(&self, setting: &str) -> Vec<Ending> {
        let of = |pem: &str, role| {
            let ends = certificates(pem).unwrap_or_default();
            let ends = ends.iter().filter_map(not_after).collect::<Vec<_>>().into_iter();
            let setting = setting.to_owned();
            ends.map(move |not_after| Ending {
                setting: setting.clone(),
                role,
                not_after,
                renewed: true,
            })
        };
        of(&self.chain_pem, Role::Own).chain(of(&self.ca_pem, Role::OwnAuthority)).collect()
    }
}

fn configs(
    pair: Arc<CertifiedKey>,
    clients: Arc<dyn ClientCertVerifier>,
) -> Result<[Arc<ServerConfig>; 2], TlsError> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&VERSIONS)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    Ok([Alpn::Grpc, Alpn::Http].map(|alpn| {
        let mut config = config.clone();
        config.alpn_protocols = alpn.protocols();
        Arc::new(config)
    }))
}

/// A client needs no certificate; one that it shows must be its authority's.
fn client_verifier(client_ca: Option<&Named>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let Some(file) = client_ca else { return Ok(WebPkiClientVerifier::no_client_auth()) };
    let mut roots = RootCertStore::empty();
    for der in file.certificates()? {
        roots.add(der)?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|_| TlsError::NoCertificate {
            setting: file.setting.clone(),
            path: file.path.clone(),
        })
}
