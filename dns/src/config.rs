//! The section `dns` of a configuration.

use daemon::config::Problems;
use hickory_proto::rr::{LowerName, Name};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

/// How names are answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// Where queries come in, by UDP and TCP.
    pub listen: SocketAddr,
    /// The mesh whose names are answered, as names do not say of which mesh they are.
    pub mesh: String,
    /// The names below these are answered here, and nowhere else.
    pub apexes: Vec<String>,
    /// Who is asked about all other names: addresses, with a port if it is not 53. If there are
    /// none, those of the system.
    pub upstreams: Vec<String>,
    /// How long one of them may take.
    #[serde(with = "daemon::duration")]
    pub upstream_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 5653)),
            mesh: "default".to_owned(),
            apexes: vec!["mesh.local".to_owned()],
            upstreams: Vec::new(),
            upstream_timeout: Duration::from_secs(2),
        }
    }
}

impl Config {
    /// Adds what is wrong.
    pub fn check(&self, problems: &mut Problems) {
        for (i, apex) in self.apexes.iter().enumerate() {
            if parse_apex(apex).is_none() {
                problems.add(format!("apexes[{i}]"), "must be a domain name");
            }
        }
        for (i, upstream) in self.upstreams.iter().enumerate() {
            if parse_upstream(upstream).is_none() {
                let reason = "must be an IP address, with a port if it is not 53";
                problems.add(format!("upstreams[{i}]"), reason);
            }
        }
        if self.upstream_timeout.is_zero() {
            problems.add("upstreamTimeout", "must be longer than nothing");
        }
    }
}

pub(crate) fn parse_apex(apex: &str) -> Option<LowerName> {
    let mut name = Name::from_ascii(apex).ok().filter(|name| !name.is_root())?;
    name.set_fqdn(true);
    Some(LowerName::new(&name))
}

pub(crate) fn parse_upstream(upstream: &str) -> Option<SocketAddr> {
    let address = upstream.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
    address.ok().or_else(|| upstream.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_has_port_53_unless_it_says_otherwise() {
        let parsed =
            ["10.0.0.2", "10.0.0.2:5300", "::1", "[::1]:5300", "dns.example", "", "10.0.0"]
                .map(|text| parse_upstream(text).map(|address| address.to_string()));
        let expected = ["10.0.0.2:53", "10.0.0.2:5300", "[::1]:53", "[::1]:5300"];
        assert_eq!(parsed[..4], expected.map(|text| Some(text.to_owned())));
        assert_eq!(parsed[4..], [None, None, None]);
    }

    #[test]
    fn every_mistake_is_named() {
        let config = Config {
            apexes: vec!["mesh.local".into(), ".".into(), "a..b".into()],
            upstreams: vec!["dns.example".into()],
            upstream_timeout: Duration::ZERO,
            ..Config::default()
        };
        let mut problems = Problems::default();
        config.check(&mut problems);
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            problems,
            [
                "apexes[1]: must be a domain name",
                "apexes[2]: must be a domain name",
                "upstreams[0]: must be an IP address, with a port if it is not 53",
                "upstreamTimeout: must be longer than nothing",
            ]
        );
    }
}
