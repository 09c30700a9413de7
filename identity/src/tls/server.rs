//! TLS of servers: certificates from files, loaded again when they change, or made by ourselves.

use super::{
    Alpn, Ending, Role, TlsError, VERSIONS,
    files::{Named, SelfMade, load, san},
    provider,
    reload::Reloaded,
    strangers::Strangers,
};
use daemon::{Clock, Metrics, config::Problems};
use jiff::Timestamp;
use parking_lot::Mutex;
use rustls::{
    RootCertStore, ServerConfig,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
};
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

/// The TLS of a server, as its files are now.
#[derive(Debug)]
pub struct ServerTls {
    certificate: Named,
    key: Named,
    client_ca: Option<Named>,
    self_made: Option<SelfMade>,
    clock: Clock,
    loaded: Mutex<Loaded>,
    strangers: Arc<Strangers>,
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
        let files = files(&certificate, &key, client_ca.as_ref());
        let configs = Reloaded::new(&files, || configs(&certificate, &key, client_ca.as_ref()))?;
        let look_at = Instant::now() + LOOK;
        let loaded = Mutex::new(Loaded { configs, look_at, renew_at });
        let strangers = Arc::default();
        Ok(Self { certificate, key, client_ca, self_made, clock, loaded, strangers })
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
        self.self_made.as_ref().map(|made| made.authority.path.clone())
    }

    /// What clients shall trust, as PEM, if we made it.
    pub fn ca_pem(&self) -> Result<Option<String>, TlsError> {
        self.self_made.as_ref().map(|made| made.authority.read()).transpose()
    }

    /// When the certificates in its files end.
    #[must_use]
    pub fn endings(&self) -> Vec<Ending> {
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

    /// What the next connection gets. Files that changed are loaded; if they cannot be, what was
    /// good last stays.
    #[must_use]
    pub fn current(&self, alpn: Alpn) -> Arc<ServerConfig> {
        let mut loaded = self.loaded.lock();
        if loaded.look_at <= Instant::now() {
            loaded.look_at = Instant::now() + LOOK;
            self.look(&mut loaded);
        }
        let [grpc, http] = loaded.configs.value();
        Arc::clone(match alpn {
            Alpn::Grpc => grpc,
            Alpn::Http => http,
        })
    }

    fn look(&self, loaded: &mut Loaded) {
        if let Some(made) = &self.self_made
            && loaded.renew_at <= self.clock.now()
        {
            match made.ensure(self.clock.now()) {
                Ok(renew_at) => loaded.renew_at = renew_at,
                Err(error) => tracing::error!(
                    error = %anyhow::Error::new(error), "certificate cannot be renewed"
                ),
            }
        }
        let (certificate, key, client_ca) = (&self.certificate, &self.key, self.client_ca.as_ref());
        let files = files(certificate, key, client_ca);
        loaded.configs.look(&files, || configs(certificate, key, client_ca));
    }
}

fn files<'a>(
    certificate: &'a Named,
    key: &'a Named,
    client_ca: Option<&'a Named>,
) -> Vec<&'a Named> {
    [certificate, key].into_iter().chain(client_ca).collect()
}

fn configs(
    certificate: &Named,
    key: &Named,
    client_ca: Option<&Named>,
) -> Result<[Arc<ServerConfig>; 2], TlsError> {
    let pair = load(certificate, key)?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&VERSIONS)?
        .with_client_cert_verifier(client_verifier(client_ca)?)
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
