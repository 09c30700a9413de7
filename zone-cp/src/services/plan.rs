//! What a service shall be: whether it exists, and what it is called.

use super::{
    GENERATOR,
    hostnames::{Claim, Name},
    mesh::{Mesh, Service},
    proxy::Proxy,
    state::Settings,
};
use jiff::Timestamp;
use kinds::{
    hostname_generator::{self, HostnameGenerator, NoHostname},
    labels,
    mesh_service::{self, Port, Selector},
};
use resource::{Kri, Labels, ResourceKey, label};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A generator of host names.
#[derive(Debug)]
pub(super) struct Generator {
    pub(super) spec: Arc<HostnameGenerator>,
    /// It was not written in this zone.
    pub(super) foreign: bool,
    pub(super) created: Timestamp,
}

/// What shall become of a service.
#[derive(Debug)]
pub(super) enum Plan {
    /// There is none, and there shall be none.
    Nothing,
    /// It has no proxies any more, and nobody waits for them.
    Delete,
    /// It shall be this.
    Keep(Box<Base>),
}

/// What a service is before anybody looked at its proxies.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) labels: Labels,
    pub(super) selector: Selector,
    pub(super) ports: Vec<Port>,
    pub(super) created: Timestamp,
    /// It was written elsewhere.
    pub(super) copy: bool,
    /// When it is deleted unless proxies return.
    pub(super) expires: Option<Timestamp>,
    /// What each generator makes of it, by the generator's name.
    pub(super) names: Vec<(Name, Result<String, NoHostname>)>,
}

/// Decides what shall become of the service `key`.
pub(super) fn plan(
    key: &ResourceKey,
    mesh: &Mesh,
    generators: &BTreeMap<Name, Generator>,
    settings: &Settings,
    now: Timestamp,
) -> Plan {
    let replicas = replicas(&key.name, mesh, settings);
    let mut base = match mesh.services.get(&key.name) {
        None if replicas.is_empty() => return Plan::Nothing,
        None => {
            let labels = generated_labels(key, settings);
            fresh(key, labels, ports(&replicas, None), now)
        }
        Some(stored) if !stored.is_own(&settings.place) => as_stored(stored, true),
        // Written by hand: what it is made of is not ours to decide.
        Some(stored) if !stored.is_generated() => as_stored(stored, false),
        Some(stored) if !replicas.is_empty() => {
            let labels = generated_labels(key, settings);
            let ports = ports(&replicas, Some(&stored.spec.ports));
            fresh(key, labels, ports, stored.row.head.times.created)
        }
        Some(stored) => match expiring(key, stored, settings, now) {
            Some(base) => base,
            None => return Plan::Delete,
        },
    };
    base.names = names(key, &base, generators, settings);
    Plan::Keep(Box::new(base))
}

/// The proxies of which the service `name` is made, if services are made here.
fn replicas<'a>(name: &str, mesh: &'a Mesh, settings: &Settings) -> Vec<(&'a Proxy, Vec<Port>)> {
    if !settings.generate {
        return Vec::new();
    }
    let selector = Selector::label(label::WORKLOAD, name);
    let names = mesh.selection.proxies(&selector).unwrap_or_default();
    let proxies = names.iter().filter_map(|name| mesh.proxies.get(name));
    let named = proxies.filter(|proxy| proxy.workload() == Some(name));
    named.map(|proxy| (proxy, proxy.ports())).filter(|(_, ports)| !ports.is_empty()).collect()
}

/// The ports that all replicas should have. Where they differ: those that are stored as long as one
/// replica has them, else those of the oldest replica.
fn ports(replicas: &[(&Proxy, Vec<Port>)], stored: Option<&[Port]>) -> Vec<Port> {
    if let Some(stored) = stored.filter(|it| replicas.iter().any(|(_, ports)| ports == it)) {
        return stored.to_vec();
    }
    let age = |proxy: &Proxy| (proxy.head.times.created, proxy.head.key.name.clone());
    let oldest = replicas.iter().min_by_key(|(proxy, _)| age(proxy));
    oldest.map(|(_, ports)| ports.clone()).unwrap_or_default()
}

fn generated_labels(key: &ResourceKey, settings: &Settings) -> Labels {
    let own = labels::own(mesh_service::KIND, key, &settings.place);
    own.with(label::MANAGED_BY, GENERATOR)
}

fn fresh(key: &ResourceKey, labels: Labels, ports: Vec<Port>, created: Timestamp) -> Base {
    let selector = Selector::label(label::WORKLOAD, &key.name);
    Base { labels, selector, ports, created, copy: false, expires: None, names: Vec::new() }
}

fn as_stored(stored: &Service, copy: bool) -> Base {
    let head = &stored.row.head;
    Base {
        labels: head.labels.clone(),
        selector: stored.spec.selector.clone(),
        ports: stored.spec.ports.clone(),
        created: head.times.created,
        copy,
        expires: None,
        names: Vec::new(),
    }
}

/// A generated service without replicas. `None` when it has been so for long enough.
fn expiring(
    key: &ResourceKey,
    stored: &Service,
    settings: &Settings,
    now: Timestamp,
) -> Option<Base> {
    let said = stored.row.head.labels.get(label::GRACE_PERIOD_STARTED);
    let started = said.and_then(|time| time.parse::<Timestamp>().ok());
    // In whole seconds, as it is written.
    let started = started.or_else(|| Timestamp::from_second(now.as_second()).ok())?;
    let expires = started.saturating_add(settings.grace).unwrap_or(Timestamp::MAX);
    if expires <= now {
        return None;
    }
    let labels = generated_labels(key, settings);
    let labels = labels.with(label::GRACE_PERIOD_STARTED, &started.to_string());
    Some(Base { labels, expires: Some(expires), ..as_stored(stored, false) })
}

fn names(
    key: &ResourceKey,
    base: &Base,
    generators: &BTreeMap<Name, Generator>,
    settings: &Settings,
) -> Vec<(Name, Result<String, NoHostname>)> {
    let of = |key| base.labels.get(key).filter(|value| !value.is_empty());
    let service = hostname_generator::Service {
        name: &key.name,
        display_name: of(label::DISPLAY_NAME).unwrap_or(&key.name),
        namespace: of(label::NAMESPACE).unwrap_or_default(),
        mesh: key.mesh.as_ref().map_or("", |mesh| mesh.as_str()),
        zone: of(label::ZONE).unwrap_or_else(|| settings.zone()),
    };
    // What other zones call a service is answered at home too, so that a name means the same
    // everywhere.
    let abroad = (!base.copy).then(|| base.labels.with(label::ORIGIN, label::ORIGIN_GLOBAL));
    let selected = |generator: &Generator| {
        let selector = generator.spec.selector.mesh_service.as_ref();
        let selector = selector.filter(|_| generator.spec.extension.is_none());
        selector.is_some_and(|it| {
            it.matches(&base.labels) || abroad.as_ref().is_some_and(|labels| it.matches(labels))
        })
    };
    let name =
        |generator: &Generator| generator.spec.hostname(&service, |key: &str| base.labels.get(key));
    let selected = generators.iter().filter(|(_, generator)| selected(generator));
    selected.map(|(key, generator)| (key.clone(), name(generator))).collect()
}

impl Base {
    /// Whether it is made of a service of the cluster, which has its address from there.
    pub(super) fn is_of_cluster(&self) -> bool {
        !self.copy && self.labels.get(label::MANAGED_BY) == Some(label::MANAGED_BY_CLUSTER)
    }

    /// What it asks for among host names.
    pub(super) fn claims(
        &self,
        key: &ResourceKey,
        generators: &BTreeMap<Name, Generator>,
    ) -> BTreeSet<(String, Claim)> {
        let claim = |(name, hostname): &(Name, Result<String, NoHostname>)| {
            let generator = generators.get(name)?;
            let claim = Claim {
                foreign: generator.foreign,
                generator_created: generator.created,
                generator: name.clone(),
                service_created: self.created,
                service: key.name.clone(),
            };
            Some((hostname.clone().ok()?, claim))
        };
        self.names.iter().filter_map(claim).collect()
    }

    /// What it is called in every zone.
    pub(super) fn kri(&self, key: &ResourceKey) -> Kri {
        let of = |key| self.labels.get(key).filter(|value| !value.is_empty());
        Kri {
            short: mesh_service::KIND.short.to_owned(),
            mesh: key.mesh.as_ref().map(ToString::to_string).unwrap_or_default(),
            zone: of(label::ZONE).unwrap_or_default().to_owned(),
            namespace: of(label::NAMESPACE).unwrap_or_default().to_owned(),
            name: of(label::DISPLAY_NAME).unwrap_or(&key.name).to_owned(),
            section: String::new(),
        }
    }
}
