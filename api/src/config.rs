//! The section `api` of a control plane's configuration.

use super::Entry;
use daemon::config::Problems;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};

/// How the API is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// Without encryption; for this machine.
    pub http: Http,
    /// With TLS.
    pub https: Https,
    /// The names and addresses that requests may be sent to, besides those of this machine.
    pub hosts: Vec<String>,
    /// The origins whose web pages may use the API, such as `https://mesh.example.com`.
    pub origins: Vec<String>,
    /// Whether programs on this machine are the administrator without a token. For tools that
    /// cannot send one.
    pub localhost_is_admin: bool,
}

/// The plain port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Http {
    /// Whether it is open.
    pub enabled: bool,
    /// Where it listens.
    pub address: SocketAddr,
}

/// The encrypted port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Https {
    /// Whether it is open.
    pub enabled: bool,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Default for Http {
    fn default() -> Self {
        Self { enabled: true, address: SocketAddr::from((Ipv4Addr::LOCALHOST, 5681)) }
    }
}

impl Default for Https {
    fn default() -> Self {
        Self { enabled: true, address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5682)) }
    }
}

impl Config {
    /// Reports every broken rule.
    pub fn check(&self, problems: &mut Problems) {
        if !self.http.enabled && !self.https.enabled {
            problems.add("https.enabled", "must be true when http.enabled is false");
        }
        for (i, host) in self.hosts.iter().enumerate() {
            if host.is_empty()
                || (host.contains([':', '/', ' ']) && host.parse::<std::net::IpAddr>().is_err())
            {
                problems.add(
                    format_args!("hosts[{i}]"),
                    format_args!("{host:?} is not a name or an address without port"),
                );
            }
        }
        for (i, origin) in self.origins.iter().enumerate() {
            let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            if rest.is_none_or(|rest| rest.is_empty() || rest.contains(['/', '*', ' '])) {
                problems.add(
                    format_args!("origins[{i}]"),
                    format_args!("{origin:?} is not an origin such as https://mesh.example.com"),
                );
            }
        }
        if self.localhost_is_admin && self.http.enabled && !self.http.address.ip().is_loopback() {
            problems.add(
                "localhostIsAdmin",
                "must be false when http.address is not a loopback address",
            );
        }
    }

    /// Who gets in. `hostname` is that of the machine.
    #[must_use]
    pub fn entry(&self, hostname: &str) -> Entry {
        let mut hosts = self.hosts.clone();
        hosts.push(hostname.to_owned());
        Entry { hosts, origins: self.origins.clone(), localhost_is_admin: self.localhost_is_admin }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_wrong() {
        let mut config = Config {
            hosts: vec!["mesh.example.com".into(), "::1".into(), "x:80".into()],
            origins: vec!["https://gui.example.com".into(), "*".into()],
            localhost_is_admin: true,
            ..Config::default()
        };
        config.http.address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let mut problems = Problems::default();
        config.check(&mut problems);
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            problems,
            [
                r#"hosts[2]: "x:80" is not a name or an address without port"#,
                r#"origins[1]: "*" is not an origin such as https://mesh.example.com"#,
                "localhostIsAdmin: must be false when http.address is not a loopback address",
            ]
        );
    }
}
