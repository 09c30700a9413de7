//! The settings that all proxies have.

use crate::{ApplicationProbes, Dataplane, TransparentProxy};
use daemon::config::{Problems, check_socket};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

/// Where the control plane of the zone is, and whom it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Zone {
    /// Such as `https://zone.example:5678`.
    pub address: String,
    /// The certificates that its certificate must descend from, as PEM. There is no connection
    /// without.
    pub ca_file: String,
    /// These certificates themselves, if there is no file.
    pub ca: String,
    /// The name that its certificate must have; unset: the host of the address.
    pub server_name: Option<String>,
}

impl Default for Zone {
    fn default() -> Self {
        Self {
            address: "https://localhost:5678".into(),
            ca_file: String::new(),
            ca: String::new(),
            server_name: None,
        }
    }
}

const DEFAULT_PORT: u16 = 5678;

/// A control plane's address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) server_name: String,
}

impl Zone {
    pub(crate) fn target(&self) -> Result<Target, &'static str> {
        let uri: http::Uri = self.address.parse().map_err(|_| "is not a URL")?;
        if uri.scheme_str() != Some("https") {
            return Err("must begin with https://");
        }
        if !matches!(uri.path_and_query().map(http::uri::PathAndQuery::as_str), None | Some("/")) {
            return Err("must have no path");
        }
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let port = uri.port_u16().unwrap_or(DEFAULT_PORT);
        let server_name = self.server_name.clone().unwrap_or_else(|| host.to_owned());
        Ok(Target { host: host.to_owned(), port, server_name })
    }

    fn check(&self, problems: &mut Problems) {
        if let Err(reason) = self.target() {
            problems.add("address", format_args!("{:?} {reason}", self.address));
        }
        match (self.ca_file.is_empty(), self.ca.is_empty()) {
            (true, true) => {
                let reason = "must be set: without it anybody could be the control plane";
                problems.add("caFile", reason);
            }
            (false, false) => problems.add("ca", "must not be set together with caFile"),
            (true, false) | (false, true) => {}
        }
    }
}

/// How Envoy is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EnvoySettings {
    /// The program; looked up on PATH if it has no slash.
    pub path: String,
    /// How many threads serve; unset: as many as there are processors.
    pub concurrency: Option<u32>,
    /// `trace`, `debug`, `info`, `warning`, `error`, `critical` or `off`.
    pub log_level: String,
    /// Where its log goes; unset: where ours goes.
    pub log_file: Option<String>,
    /// What it has to lose its connections at the end.
    #[serde(with = "daemon::duration")]
    pub drain_time: Duration,
}

impl Default for EnvoySettings {
    fn default() -> Self {
        Self {
            path: "envoy".into(),
            concurrency: None,
            log_level: "warning".into(),
            log_file: None,
            drain_time: Duration::from_secs(10),
        }
    }
}

const LOG_LEVELS: [&str; 7] = ["trace", "debug", "info", "warning", "error", "critical", "off"];

impl EnvoySettings {
    fn check(&self, problems: &mut Problems) {
        if self.path.is_empty() {
            problems.add("path", "must be set");
        }
        if self.concurrency == Some(0) {
            problems.add("concurrency", "must be at least 1");
        }
        if !LOG_LEVELS.contains(&self.log_level.as_str()) {
            let levels = LOG_LEVELS.join(", ");
            problems.add("logLevel", format_args!("{:?} is none of {levels}", self.log_level));
        }
        // What the programs have to stop, less what Envoy has to end after its drain.
        if self.drain_time > Duration::from_secs(3600) {
            problems.add("drainTime", "must be at most 1h");
        }
    }
}

/// Where the process says whether it is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Readiness {
    /// Serves `/ready`, `/live` and `/metrics`.
    pub address: SocketAddr,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) }
    }
}

/// How the names of the mesh are answered beside the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Dns {
    /// Whether they are.
    pub enabled: bool,
    /// Where queries come in, by UDP and TCP.
    pub listen: SocketAddr,
    /// The names below these are answered here, and nowhere else.
    pub apexes: Vec<String>,
    /// Who is asked about all other names. If there is nobody, those whom the system asks.
    pub upstreams: Vec<String>,
    /// How long one of them may take.
    #[serde(with = "daemon::duration")]
    pub upstream_timeout: Duration,
}

impl Default for Dns {
    fn default() -> Self {
        let dns::Config { listen, apexes, upstreams, upstream_timeout, .. } =
            dns::Config::default();
        Self { enabled: false, listen, apexes, upstreams, upstream_timeout }
    }
}

impl Dns {
    /// As the server of names has it.
    pub(crate) fn of_mesh(&self, mesh: &str) -> dns::Config {
        dns::Config {
            listen: self.listen,
            mesh: mesh.to_owned(),
            apexes: self.apexes.clone(),
            upstreams: self.upstreams.clone(),
            upstream_timeout: self.upstream_timeout,
        }
    }

    fn check(&self, problems: &mut Problems) {
        // The Dataplane says which mesh it is.
        self.of_mesh("default").check(problems);
    }
}

/// Where other zones reach a zone ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Advertised {
    /// An IP address or a host name.
    pub address: String,
    /// Its port; 0: that of the Dataplane's listener.
    pub port: u16,
}

/// The SPIRE agent beside a proxy, which issues its certificates if its MeshIdentity says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Spire {
    /// Where it listens, such as `/tmp/spire-agent/public/api.sock`; empty: there is none.
    pub socket_path: String,
}

impl Spire {
    fn check(&self, problems: &mut Problems) {
        if let Err(error) = check_socket(&self.socket_path) {
            problems.add("socketPath", error);
        }
    }
}

/// Everything about one proxy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Its control plane.
    pub zone: Zone,
    /// The file of its token.
    pub token_file: String,
    /// The file of its Dataplane.
    pub dataplane: Option<String>,
    /// Its Dataplane, if there is no file.
    pub resource: Option<Value>,
    /// Its Dataplane, if the control plane has it already.
    pub existing: Existing,
    /// Whether Envoy binds a listener on each VIP.
    pub bind_vips: bool,
    /// What its machine redirects to it.
    pub transparent_proxy: TransparentProxy,
    /// Set for zone ingresses.
    pub advertised: Option<Advertised>,
    /// Its Envoy.
    pub envoy: EnvoySettings,
    /// Where Envoy runs; unset: a folder named after the Dataplane among the temporary ones.
    pub workdir: Option<String>,
    /// Where it says whether it is ready.
    pub readiness: Readiness,
    /// Its server of names.
    pub dns: Dns,
    /// What a kubelet asks the application through it.
    pub application_probes: ApplicationProbes,
    /// Its SPIRE agent.
    pub spire: Spire,
}

/// Names a Dataplane that somebody else keeps: a Kubernetes zone makes those of pods itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Existing {
    /// Its mesh.
    pub mesh: String,
    /// Its name.
    pub name: String,
}

impl Existing {
    /// Whether it names one.
    #[must_use]
    pub const fn is_set(&self) -> bool {
        !self.mesh.is_empty() || !self.name.is_empty()
    }
}

impl Settings {
    /// Adds every broken rule.
    pub fn check(&self, problems: &mut Problems) {
        problems.at("zone", |problems| self.zone.check(problems));
        if self.token_file.is_empty() {
            problems.add("tokenFile", "must be set");
        }
        self.check_dataplane(problems);
        match &self.advertised {
            Some(_) if self.existing.is_set() => {
                let reason = "must not be set together with name: the control plane knows it";
                problems.add("advertised", reason);
            }
            Some(advertised) if advertised.address.is_empty() => {
                problems.add("advertised.address", "must be set");
            }
            Some(_) | None => {}
        }
        if self.bind_vips && self.transparent_proxy.enabled {
            problems.add("bindVips", "must not be set together with transparentProxy.enabled");
        }
        problems.at("transparentProxy", |problems| self.transparent_proxy.check(problems));
        problems.at("envoy", |problems| self.envoy.check(problems));
        problems.at("dns", |problems| self.dns.check(problems));
        problems.at("applicationProbes", |problems| self.application_probes.check(problems));
        problems.at("spire", |problems| self.spire.check(problems));
    }

    fn check_dataplane(&self, problems: &mut Problems) {
        match (&self.dataplane, &self.resource) {
            (None, None) if self.existing.is_set() => {}
            (None, None) => problems.add("dataplane", "must be set, or resource"),
            (Some(_), Some(_)) => {
                problems.add("resource", "must not be set together with dataplane");
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        if !self.existing.is_set() {
            return;
        }
        if self.dataplane.is_some() || self.resource.is_some() {
            let reason = "must not be set together with dataplane or resource, which say it";
            problems.add("name", reason);
        } else if let Err(error) = Dataplane::existing(&self.existing) {
            problems.add("", error);
        }
    }

    /// Where questions for names come in, by UDP and TCP.
    pub(crate) fn names(&self) -> Vec<SocketAddr> {
        let mut addresses = self.transparent_proxy.names();
        let own = self.dns.enabled.then_some(self.dns.listen);
        addresses.extend(own.filter(|own| !addresses.contains(own)));
        addresses
    }

    /// How long the process may take to stop.
    #[must_use]
    pub fn stop_within(&self) -> Duration {
        self.envoy.drain_time.saturating_add(Duration::from_secs(15))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str) -> Result<(String, u16, String), &'static str> {
        let zone = Zone { address: address.into(), ..Zone::default() };
        zone.target().map(|target| (target.host, target.port, target.server_name))
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let found = |host: &str, port| Ok((host.to_owned(), port, host.to_owned()));
        assert_eq!(target("https://zone.example"), found("zone.example", 5678));
        assert_eq!(target("https://127.0.0.1:1234/"), found("127.0.0.1", 1234));
        assert_eq!(target("https://[::1]:1"), found("::1", 1));
        assert_eq!(target("http://zone.example:5678"), Err("must begin with https://"));
        assert_eq!(target("https://zone.example/x"), Err("must have no path"));
        assert_eq!(target("https://"), Err("is not a URL"));
    }

    #[test]
    fn names_are_answered_where_the_settings_say() {
        let mut settings = Settings::default();
        let names = |settings: &Settings| {
            settings.names().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names(&settings), [""; 0]);
        settings.dns.enabled = true;
        assert_eq!(names(&settings), ["127.0.0.1:5653"]);
        settings.transparent_proxy.enabled = true;
        assert_eq!(names(&settings), ["127.0.0.1:15053", "[::1]:15053", "127.0.0.1:5653"]);
        settings.dns.listen = "127.0.0.1:15053".parse().unwrap();
        assert_eq!(names(&settings), ["127.0.0.1:15053", "[::1]:15053"]);
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let envoy = EnvoySettings {
            path: String::new(),
            concurrency: Some(0),
            log_level: "loud".into(),
            drain_time: Duration::from_secs(7200),
            log_file: None,
        };
        let transparent_proxy = TransparentProxy {
            enabled: true,
            redirect_inbound_port: 15001,
            ..TransparentProxy::default()
        };
        let zone = Zone { address: "x".into(), ..Zone::default() };
        let advertised = Some(Advertised::default());
        let settings = Settings {
            zone,
            advertised,
            envoy,
            bind_vips: true,
            transparent_proxy,
            ..Settings::default()
        };
        let mut problems = Problems::default();
        settings.check(&mut problems);
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        let expected = [
            "zone.address",
            "zone.caFile",
            "tokenFile",
            "dataplane",
            "advertised.address",
            "bindVips",
            "transparentProxy.redirectInboundPort",
            "envoy.path",
            "envoy.concurrency",
            "envoy.logLevel",
            "envoy.drainTime",
        ];
        assert_eq!(paths, expected);
    }
    #[test]
    fn a_dataplane_is_said_in_one_way() {
        let said = |dataplane: Option<&str>, mesh: &str, name: &str, ca: &str| {
            let settings = Settings {
                zone: Zone { ca: ca.into(), ca_file: "ca.crt".into(), ..Zone::default() },
                token_file: "token".into(),
                dataplane: dataplane.map(Into::into),
                existing: Existing { mesh: mesh.into(), name: name.into() },
                ..Settings::default()
            };
            let mut problems = Problems::default();
            settings.check(&mut problems);
            problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(said(None, "shop", "cart-7f9c.shop", ""), "");
        let both = "name: must not be set together with dataplane or resource, which say it";
        assert_eq!(said(Some("web.yaml"), "shop", "cart", ""), both);
        let name = r#"name: "" is not a name: at most 253 of a-z, 0-9, '-' and '.'"#;
        assert_eq!(said(None, "shop", "", ""), name);
        let ca = "zone.ca: must not be set together with caFile";
        assert_eq!(said(Some("web.yaml"), "", "", "PEM"), ca);
    }
}
