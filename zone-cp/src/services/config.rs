//! What can be set: the sections `services` and `vips` of a zone's configuration.

use daemon::config::Problems;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How services are made of workloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Generation {
    /// Whether they are.
    pub generate: bool,
    /// How long a service without proxies is kept.
    #[serde(with = "daemon::duration")]
    pub deletion_grace_period: Duration,
}

impl Default for Generation {
    fn default() -> Self {
        Self { generate: true, deletion_grace_period: Duration::from_hours(1) }
    }
}

/// Which virtual addresses are given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Vips {
    /// To services of a zone.
    pub mesh_service: IpNet,
}

impl Default for Vips {
    fn default() -> Self {
        let net = ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(241, 0, 0, 0), 8);
        Self { mesh_service: net.into() }
    }
}

impl Vips {
    /// Adds every broken rule.
    pub fn check(&self, problems: &mut Problems) {
        // The first address and the last one are not given.
        let bits = self.mesh_service.max_prefix_len() - self.mesh_service.prefix_len();
        if bits < 2 {
            problems
                .add("meshService", format_args!("{} has no address to give", self.mesh_service));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_addresses_to_give() {
        for (range, expected) in [
            ("241.0.0.0/8", ""),
            ("127.0.0.0/30", ""),
            ("fd00:1::/64", ""),
            ("10.0.0.0/31", "meshService: 10.0.0.0/31 has no address to give"),
            ("fd00::1/128", "meshService: fd00::1/128 has no address to give"),
        ] {
            let mut problems = Problems::default();
            Vips { mesh_service: range.parse().unwrap() }.check(&mut problems);
            let found: Vec<_> = problems.iter().map(ToString::to_string).collect();
            assert_eq!(found.concat(), expected, "{range}");
        }
    }
}
