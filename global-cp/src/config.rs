//! What can be set.

use crate::AllowedTrust;
use daemon::{Log, admin, config::Problems, data};
use identity::tls::TlsConfig;
use kds::quota::{Quota, Quotas};
use resource::{Kind, ZoneName};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

/// The settings of the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// How it logs.
    pub log: Log,
    /// The folder of everything that must survive a restart.
    pub data_dir: PathBuf,
    /// How resources are kept.
    pub store: store::Config,
    /// The certificate with which the API and the zones' port show who they are.
    pub tls: TlsConfig,
    /// The REST API.
    pub api: api::Config,
    /// Where zones connect.
    pub kds: Kds,
    /// What there is from the first start on.
    pub defaults: Defaults,
    /// Trust domains that zones may have although no MeshIdentity gives them to them.
    pub allowed_trust: Vec<AllowedTrust>,
    /// Readiness and metrics.
    pub admin: admin::Config,
}

/// Where zones connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Kds {
    /// With TLS.
    pub listen: SocketAddr,
    /// The zones that need not show who they are, because they cannot: Kuma's have no token. `*`
    /// means all. Whoever reaches the port can then be any of them.
    pub plain_zones: Vec<String>,
    /// How much each zone may have in global.
    pub zone_quota: ZoneQuota,
}

/// How much a zone may have in global. What is over it is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ZoneQuota {
    /// Resources, of all kinds together.
    pub resources: u64,
    /// Bytes of their names, labels, specs and statuses.
    pub bytes: u64,
    /// Of some kinds no more than this besides, by the kind's name.
    pub kinds: BTreeMap<String, KindQuota>,
}

/// How much a zone may have of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KindQuota {
    /// Resources; unset: as many as of all kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<u64>,
    /// Bytes; unset: as many as of all kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

impl ZoneQuota {
    pub(crate) fn quotas(&self) -> Quotas {
        let of = |KindQuota { resources, bytes }: &KindQuota| Quota {
            resources: resources.unwrap_or(u64::MAX),
            bytes: bytes.unwrap_or(u64::MAX),
        };
        Quotas {
            all: Quota { resources: self.resources, bytes: self.bytes },
            kinds: self.kinds.iter().map(|(kind, quota)| (kind.clone(), of(quota))).collect(),
        }
    }

    fn check(&self, problems: &mut Problems) {
        let at_least_one = |problems: &mut Problems, field: &str, value| {
            if value == Some(0) {
                problems.add(field, "must be at least 1");
            }
        };
        at_least_one(problems, "resources", Some(self.resources));
        at_least_one(problems, "bytes", Some(self.bytes));
        for (name, quota) in &self.kinds {
            problems.at(format_args!("kinds.{name}"), |problems| {
                at_least_one(problems, "resources", quota.resources);
                at_least_one(problems, "bytes", quota.bytes);
            });
            let sent = |kind: &Kind| kind.name == name && kind.flow.requested_by_global();
            if !kinds::all().any(|kind| sent(&kind)) {
                let reason = format_args!("{name:?} is no kind that zones send");
                problems.add(format_args!("kinds.{name}"), reason);
            }
        }
    }
}

impl Default for ZoneQuota {
    fn default() -> Self {
        Self { resources: 200_000, bytes: 1024 * 1024 * 1024, kinds: BTreeMap::new() }
    }
}

/// What there is from the first start on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Defaults {
    /// Whether the mesh `default` is made.
    pub mesh: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log: Log::default(),
            data_dir: data::default_folder("global-cp"),
            store: store::Config::default(),
            tls: TlsConfig::default(),
            api: api::Config::default(),
            kds: Kds::default(),
            defaults: Defaults::default(),
            allowed_trust: Vec::new(),
            admin: admin::Config::default(),
        }
    }
}

impl Default for Kds {
    fn default() -> Self {
        let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5685));
        Self { listen, plain_zones: Vec::new(), zone_quota: ZoneQuota::default() }
    }
}

impl Default for Defaults {
    fn default() -> Self {
        Self { mesh: true }
    }
}

impl Kds {
    fn check(&self, problems: &mut Problems) {
        for (i, zone) in self.plain_zones.iter().enumerate().filter(|(_, zone)| *zone != "*") {
            if let Err(error) = ZoneName::new(zone) {
                problems.add(format_args!("plainZones[{i}]"), error);
            }
        }
        problems.at("zoneQuota", |problems| self.zone_quota.check(problems));
    }
}

impl daemon::Config for Config {
    fn check(&self, problems: &mut Problems) {
        problems.at("log", |problems| self.log.check(problems));
        if self.data_dir.as_os_str().is_empty() {
            problems.add("dataDir", "must be set");
        }
        problems.at("tls", |problems| self.tls.check(problems));
        problems.at("api", |problems| self.api.check(problems));
        problems.at("kds", |problems| self.kds.check(problems));
        for (i, allowed) in self.allowed_trust.iter().enumerate() {
            problems.at(format_args!("allowedTrust[{i}]"), |problems| allowed.check(problems));
        }
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
        let ports = [config.kds.listen.port(), config.admin.listen.port()];
        assert_eq!(ports, [5685, 5680]);
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let file = "
log: {level: 'loud=very'}
dataDir: ''
tls: {certFile: x}
api: {hosts: ['a b']}
kds:
  plainZones: [east, East, '*']
  zoneQuota:
    bytes: 0
    kinds: {Mesh: {bytes: 1}, Workload: {resources: 0}, MeshService: {bytes: 0}, Dataplane: {bytes: 9}}
allowedTrust: [{zone: West, mesh: shop, trustDomain: ''}]
";
        let error = load::<Config>(Some(file), []).unwrap_err().to_string();
        for path in [
            "log.level",
            "dataDir",
            "tls.keyFile",
            "api.hosts[0]",
            "kds.plainZones[1]",
            "kds.zoneQuota.bytes",
            "kds.zoneQuota.kinds.Mesh",
            "kds.zoneQuota.kinds.Workload.resources",
            "kds.zoneQuota.kinds.MeshService.bytes",
            "allowedTrust[0].zone",
            "allowedTrust[0].trustDomain",
        ] {
            assert!(error.contains(&format!("{path}: ")), "{path} in {error}");
        }
        assert!(!error.contains("plainZones[2]") && !error.contains("Dataplane"), "{error}");
    }

    #[test]
    fn a_quota_of_a_kind_bounds_what_it_names_and_nothing_else() {
        let file = "kds: {zoneQuota: {resources: 9, bytes: 99, kinds: {Workload: {resources: 5}}}}";
        let quotas = load::<Config>(Some(file), []).unwrap().kds.zone_quota.quotas();
        let workloads = Quota { resources: 5, bytes: u64::MAX };
        let kinds = [("Workload".to_owned(), workloads)].into();
        assert_eq!(quotas, Quotas { all: Quota { resources: 9, bytes: 99 }, kinds });
    }
}
