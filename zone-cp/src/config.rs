//! What can be set.

use crate::services::config::{Generation, Vips};
use daemon::{Log, admin, config::Problems, data};
use identity::tls::TlsConfig;
use kinds::labels::Env;
use resource::{MeshName, ZoneName};
use serde::{Deserialize, Serialize};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};
use store::StoreKind;

/// The settings of the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// How it logs.
    pub log: Log,
    /// Which zone this is.
    pub zone: Zone,
    /// What it runs on: `universal` or `kubernetes`.
    pub environment: Environment,
    /// The cluster, if it runs on Kubernetes.
    pub kubernetes: kubernetes::Config,
    /// Where global is.
    pub global: Global,
    /// The folder of everything that must survive a restart.
    pub data_dir: PathBuf,
    /// How resources are kept.
    pub store: store::Config,
    /// The certificate with which the API and the proxies' port show who they are.
    pub tls: TlsConfig,
    /// The REST API.
    pub api: api::Config,
    /// Where proxies connect.
    pub proxies: Proxies,
    /// The DNS server.
    pub dns: dns::Config,
    /// How services are made of workloads.
    pub services: Generation,
    /// Which virtual addresses services get.
    pub vips: Vips,
    /// Readiness and metrics.
    pub admin: admin::Config,
}

/// What a zone runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Environment {
    /// Machines.
    #[default]
    Universal,
    /// A Kubernetes cluster.
    Kubernetes,
}

impl Environment {
    /// As labels have it.
    pub(crate) const fn env(self) -> Env {
        match self {
            Self::Universal => Env::Universal,
            Self::Kubernetes => Env::Kubernetes,
        }
    }
}

/// Which zone this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Zone {
    /// Its name, an RFC 1035 label.
    pub name: String,
}

/// Where global is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Global {
    /// Such as `https://global.example:5685`. Empty: the zone stands alone.
    pub address: String,
    /// The authorities that its certificate must descend from, as PEM. There is no connection
    /// without. This file and those below are read again when they change, for the next connection.
    pub ca_file: String,
    /// The zone token.
    pub token_file: String,
    /// The certificate chain with which this zone shows who it is, as PEM, instead of a token.
    pub cert_file: String,
    /// The key of `cert_file`.
    pub key_file: String,
}

/// Where proxies connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Proxies {
    /// Bootstrap, sessions and xDS, with TLS.
    pub listen: SocketAddr,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log: Log::default(),
            zone: Zone { name: "default".into() },
            environment: Environment::default(),
            kubernetes: kubernetes::Config::default(),
            global: Global::default(),
            data_dir: data::default_folder("zone-cp"),
            store: store::Config::default(),
            tls: TlsConfig::default(),
            api: api::Config::default(),
            proxies: Proxies::default(),
            dns: dns::Config::default(),
            services: Generation::default(),
            vips: Vips::default(),
            admin: admin::Config::default(),
        }
    }
}

impl Default for Zone {
    fn default() -> Self {
        Config::default().zone
    }
}

impl Default for Proxies {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5678)) }
    }
}

impl Global {
    /// Host and port; `None` if the zone stands alone.
    pub(crate) fn target(&self) -> Result<Option<(String, u16)>, &'static str> {
        if self.address.is_empty() {
            return Ok(None);
        }
        let uri: axum::http::Uri = self.address.parse().map_err(|_| "is not a URL")?;
        // `grpcs` is how Kuma writes it.
        if !matches!(uri.scheme_str(), Some("https" | "grpcs")) {
            return Err("must begin with https://");
        }
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        Ok(Some((host.to_owned(), uri.port_u16().unwrap_or(5685))))
    }

    fn check(&self, problems: &mut Problems) {
        match self.target() {
            Ok(None) => {}
            Err(reason) => problems.add("address", format_args!("{:?} {reason}", self.address)),
            Ok(Some(_)) => {
                if self.ca_file.is_empty() {
                    problems.add("caFile", "must be set: without it anybody could be global");
                }
                if self.token_file.is_empty() && self.cert_file.is_empty() {
                    problems.add("tokenFile", "must be set, or certFile and keyFile");
                }
            }
        }
        if self.cert_file.is_empty() != self.key_file.is_empty() {
            problems.add("keyFile", "must be set together with certFile");
        }
    }
}

impl daemon::Config for Config {
    fn check(&self, problems: &mut Problems) {
        problems.at("log", |problems| self.log.check(problems));
        problems.at("zone", |problems| {
            if let Err(error) = ZoneName::new(&self.zone.name) {
                problems.add("name", error);
            }
        });
        problems.at("kubernetes", |problems| self.kubernetes.check(problems));
        let cluster = self.environment == Environment::Kubernetes;
        if cluster != (self.store.kind == StoreKind::Kubernetes) {
            let reason = "must be kubernetes if environment is, and only then";
            problems.at("store", |problems| problems.add("type", reason));
        }
        problems.at("global", |problems| self.global.check(problems));
        if self.data_dir.as_os_str().is_empty() {
            problems.add("dataDir", "must be set");
        }
        problems.at("tls", |problems| self.tls.check(problems));
        problems.at("api", |problems| self.api.check(problems));
        problems.at("dns", |problems| {
            self.dns.check(problems);
            if let Err(error) = MeshName::new(&self.dns.mesh) {
                problems.add("mesh", error);
            }
        });
        problems.at("vips", |problems| self.vips.check(problems));
    }

    fn log(&self) -> Log {
        self.log.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemon::config::load;

    #[test]
    fn the_defaults_run_on_one_machine() {
        let config: Config = load(None, []).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.global.target(), Ok(None));
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let file = "
zone: {name: East}
global: {address: 'http://global:5685', keyFile: x}
dns: {mesh: '-'}
vips: {meshService: 10.0.0.0/32}
";
        let error = load::<Config>(Some(file), []).unwrap_err().to_string();
        let paths =
            ["zone.name", "global.address", "global.keyFile", "dns.mesh", "vips.meshService"];
        for path in paths {
            assert!(error.contains(&format!("{path}: ")), "{path} in {error}");
        }
    }

    #[test]
    fn a_zone_does_not_join_without_a_ca_and_a_credential() {
        let file = "global: {address: 'grpcs://[::1]'}";
        let error = load::<Config>(Some(file), []).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid configuration: global.caFile: must be set: without it anybody could be \
             global; global.tokenFile: must be set, or certFile and keyFile"
        );
        let global = Global { address: "grpcs://[::1]".into(), ..Global::default() };
        assert_eq!(global.target(), Ok(Some(("::1".into(), 5685))));
    }
}
