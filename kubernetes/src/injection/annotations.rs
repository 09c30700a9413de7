//! What a pod says about its sidecar, in annotations.

use super::{
    Config, Refusal,
    interception::{ForUsers, Network, PortRange, TransparentProxy},
};
use daemon::{config::Problems, duration};
use resource::label;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

use crate::controllers::DIRECT_ACCESS;
pub(super) use crate::controllers::GATEWAY;
const TRANSPARENT_PROXYING: &str = "kuma.io/transparent-proxying";
const INIT_FIRST: &str = "kuma.io/init-first";
pub(super) const CONTAINER_PATCHES: &str = "kuma.io/container-patches";
const ENV_VARS: &str = "kuma.io/sidecar-env-vars";
const CONCURRENCY: &str = "kuma.io/sidecar-concurrency";
const DRAIN_TIME: &str = "kuma.io/sidecar-drain-time";
pub(super) const TOKEN_VOLUME: &str = "kuma.io/service-account-token-volume";
const ADMIN_PORT: &str = "kuma.io/envoy-admin-port";
const PROBE_PORT: &str = "kuma.io/application-probe-proxy-port";
const REACHABLE: &str = "kuma.io/reachable-backends";
pub(super) const SPIRE: &str = "k8s.kuma.io/spire-support";
const TRAFFIC: &str = "traffic.kuma.io/";
const CONFIG: &str = "traffic.kuma.io/transparent-proxy-config";
const CONFIG_MAP: &str = "traffic.kuma.io/transparent-proxy-configmap-name";
const IN_PORTS: &str = "traffic.kuma.io/exclude-inbound-ports";
const IN_IPS: &str = "traffic.kuma.io/exclude-inbound-ips";
const OUT_PORTS: &str = "traffic.kuma.io/exclude-outbound-ports";
const OUT_IPS: &str = "traffic.kuma.io/exclude-outbound-ips";
const OUT_FOR_USERS: &str = "traffic.kuma.io/exclude-outbound-ports-for-uids";
const KNOWN_TRAFFIC: [&str; 7] =
    [CONFIG, CONFIG_MAP, IN_PORTS, IN_IPS, OUT_PORTS, OUT_IPS, OUT_FOR_USERS];

/// Others that are read of pods, or written there.
const KNOWN: [&str; 22] = [
    super::INJECTION,
    super::INJECTED,
    super::INBOUND_PORT,
    super::OUTBOUND_PORT,
    super::FAMILIES,
    crate::controllers::IGNORE,
    DIRECT_ACCESS,
    GATEWAY,
    TRANSPARENT_PROXYING,
    INIT_FIRST,
    CONTAINER_PATCHES,
    ENV_VARS,
    CONCURRENCY,
    DRAIN_TIME,
    TOKEN_VOLUME,
    ADMIN_PORT,
    PROBE_PORT,
    REACHABLE,
    SPIRE,
    label::MESH,
    label::WORKLOAD,
    label::DISPLAY_NAME,
];

/// What one pod gets, by the settings and by what it says.
#[derive(Clone, Debug)]
pub(super) struct Wishes {
    pub(super) transparent_proxy: TransparentProxy,
    pub(super) init_first: bool,
    pub(super) patches: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) concurrency: u32,
    pub(super) drain_time: Duration,
    /// The volume with the token, if it is not to be made.
    pub(super) token_volume: Option<String>,
    /// 0: kubelets ask the application themselves.
    pub(super) probe_port: u16,
    /// A SPIRE agent has its certificate.
    pub(super) spire: bool,
    pub(super) warnings: Vec<String>,
}

/// The texts of ConfigMaps of the system namespace.
pub(super) type ConfigMaps<'a> = &'a dyn Fn(&str) -> Option<String>;

struct Annotations<'a>(&'a BTreeMap<String, String>);

impl Annotations<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Those that look as if they said something to us. Others of [`TRAFFIC`] are refused.
    fn unknown(&self) -> impl Iterator<Item = &str> {
        let ours = |key: &&str| key.starts_with("kuma.io/") || key.starts_with("k8s.kuma.io/");
        self.0.keys().map(String::as_str).filter(ours).filter(|key| !KNOWN.contains(key))
    }

    fn read<T, E: std::fmt::Display>(
        &self,
        key: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Refusal> {
        self.get(key).map(|text| read(text).map_err(|error| refusal(key, error))).transpose()
    }

    fn switch(&self, key: &str) -> Result<Option<bool>, Refusal> {
        self.read(key, |text| match text {
            "enabled" | "true" => Ok(true),
            "disabled" | "false" => Ok(false),
            other => Err(format!("{other:?} is neither enabled nor disabled")),
        })
    }

    fn list<T>(
        &self,
        key: &str,
        separator: char,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Refusal> {
        let all = |text: &str| {
            let parts = text.split(separator).map(str::trim).filter(|part| !part.is_empty());
            parts.map(&read).collect::<Result<Vec<T>, String>>()
        };
        Ok(self.read(key, all)?.unwrap_or_default())
    }
}

pub(super) fn refusal(key: &str, reason: impl std::fmt::Display) -> Refusal {
    Refusal { field: format!("metadata.annotations[{key}]"), reason: reason.to_string() }
}

impl Wishes {
    /// `interceptable` is false for proxies that stand beside no application.
    pub(super) fn read(
        annotations: &BTreeMap<String, String>,
        settings: &Config,
        config_maps: ConfigMaps<'_>,
        interceptable: bool,
    ) -> Result<Self, Refusal> {
        let given = Annotations(annotations);
        let mut warnings = Vec::new();
        if given.read(ADMIN_PORT, |text| port(text, 1))?.is_some() {
            let what = "has no effect: the admin interface of Envoy is a socket in its container";
            warnings.push(format!("{ADMIN_PORT} {what}"));
        }
        warnings.extend(given.unknown().map(|key| format!("nobody reads the annotation {key}")));
        given
            .read(REACHABLE, |text| serde_json::from_str::<serde_json::Map<String, Value>>(text))?;
        let mut env = settings.env.clone();
        env.extend(given.list(ENV_VARS, ';', variable)?);
        let patches = match given.get(CONTAINER_PATCHES) {
            None => settings.container_patches.clone(),
            Some(_) => given.list(CONTAINER_PATCHES, ',', |name| Ok(name.to_owned()))?,
        };
        let drain_time = given.read(DRAIN_TIME, drain_time)?.unwrap_or(settings.drain_time);
        let concurrency = given.read(CONCURRENCY, number)?.unwrap_or(settings.concurrency);
        Ok(Self {
            transparent_proxy: transparent_proxy(&given, settings, config_maps, interceptable)?,
            init_first: given.switch(INIT_FIRST)?.unwrap_or(false),
            patches,
            env,
            concurrency,
            drain_time,
            token_volume: given.get(TOKEN_VOLUME).map(ToOwned::to_owned),
            spire: given.switch(SPIRE)?.unwrap_or(settings.spire.enabled),
            probe_port: given
                .read(PROBE_PORT, |text| port(text, 0))?
                .unwrap_or(settings.application_probe_port),
            warnings,
        })
    }
}

fn transparent_proxy(
    given: &Annotations<'_>,
    settings: &Config,
    config_maps: ConfigMaps<'_>,
    interceptable: bool,
) -> Result<TransparentProxy, Refusal> {
    let unknown = given
        .0
        .keys()
        .find(|key| key.starts_with(TRAFFIC) && !KNOWN_TRAFFIC.contains(&key.as_str()));
    if let Some(key) = unknown {
        return Err(refusal(key, "there is no such annotation"));
    }
    let mut wanted = settings.transparent_proxy.clone();
    let map = given.read(CONFIG_MAP, |name| {
        config_maps(name).ok_or_else(|| {
            format!("there is no ConfigMap {name:?} with config.yaml in the system namespace")
        })
    })?;
    for (key, text) in [(CONFIG_MAP, map.as_deref()), (CONFIG, given.get(CONFIG))] {
        if let Some(text) = text {
            wanted = overlaid(&wanted, text).map_err(|reason| refusal(key, reason))?;
        }
    }
    if let Some(enabled) = given.switch(TRANSPARENT_PROXYING)? {
        wanted.enabled = enabled;
    }
    if given.switch(GATEWAY)? == Some(true) {
        // What comes to a gateway comes from outside the mesh.
        wanted.redirect.inbound.enabled = false;
    }
    let (inbound, outbound) = (&mut wanted.redirect.inbound, &mut wanted.redirect.outbound);
    inbound.exclude_ports.extend(given.list(IN_PORTS, ',', PortRange::parse)?);
    inbound.exclude_networks.extend(given.list(IN_IPS, ',', Network::parse)?);
    outbound.exclude_ports.extend(given.list(OUT_PORTS, ',', PortRange::parse)?);
    outbound.exclude_networks.extend(given.list(OUT_IPS, ',', Network::parse)?);
    outbound.exclude_for_users.extend(given.list(OUT_FOR_USERS, ';', ForUsers::parse)?);
    wanted.enabled &= interceptable;
    Ok(wanted)
}

/// The settings with those of a document of YAML in their place.
fn overlaid(settings: &TransparentProxy, text: &str) -> Result<TransparentProxy, String> {
    let wanted: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    if !wanted.is_object() {
        return Err("is no map of settings".into());
    }
    let mut all = serde_json::to_value(settings).map_err(|error| error.to_string())?;
    json_patch::merge(&mut all, &wanted);
    let all: TransparentProxy = serde_json::from_value(all).map_err(|error| error.to_string())?;
    let mut problems = Problems::default();
    all.check(&mut problems);
    let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
    if found.is_empty() { Ok(all) } else { Err(found.join("; ")) }
}

fn port(text: &str, least: u16) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port >= least).ok_or_else(|| format!("{text:?} is no port"))
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text:?} is no number of threads"))
}

fn drain_time(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(3600);
    let time = duration::parse(text).map_err(|error| error.to_string())?;
    if time <= longest { Ok(time) } else { Err("must be at most 1h".into()) }
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} has no ="))?;
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let begins = name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if begins && name.bytes().all(good) {
        Ok((name.to_owned(), value.to_owned()))
    } else {
        Err(format!("{name:?} is no name of a variable"))
    }
}
