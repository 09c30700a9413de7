//! The services of a mesh and the destinations that they offer: what proxies call.

use super::calls::Reference;
use crate::generate::{Destination, IngressService};
use delta::Name;
use identity::SpiffeId;
use jiff::Timestamp;
use kinds::mesh_service::{self, MeshService, Port};
use resource::{Labels, RejectedSpec, Resource, label};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use xds::names::Sni;

/// A service, as this zone knows it.
#[derive(Clone, Debug)]
pub(super) struct Service {
    /// In this zone's store.
    pub(super) name: Name,
    pub(super) labels: Labels,
    /// The zone it is in, unless that is this one.
    pub(super) remote: Option<String>,
    /// What those call it who call its replicas at their own addresses. Nothing, if it is of another
    /// zone.
    pub(super) called: BTreeSet<String>,
    pub(super) spec: Arc<MeshService>,
    created: Timestamp,
    vips: BTreeSet<IpAddr>,
}

/// A port of a service.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) service: Arc<Service>,
    pub(super) port: Port,
    /// The number that callers use.
    pub(super) number: u16,
    pub(super) destination: Destination,
    /// Its virtual addresses.
    pub(super) vips: Arc<BTreeSet<SocketAddr>>,
    /// How ingresses of this zone offer it to others.
    pub(super) exposed: Option<IngressService>,
}

/// What became of a destination.
#[derive(Clone, Debug)]
pub(super) struct Changed {
    pub(super) name: Name,
    pub(super) before: Option<Arc<Entry>>,
    pub(super) now: Option<Arc<Entry>>,
}

/// Why a port of a service cannot be called, by its KRI.
pub(super) type Problems = BTreeMap<Name, String>;

/// The services of a mesh, by their names here, and the destinations, by their KRIs.
#[derive(Debug, Default)]
pub(super) struct Services {
    services: BTreeMap<Name, Known>,
    /// Two services cannot have one KRI; should it happen, the first by name has it.
    destinations: BTreeMap<Name, BTreeMap<Name, Arc<Entry>>>,
    /// Destinations by server name.
    exposed: BTreeMap<Name, Name>,
    by_zone: BTreeMap<String, BTreeSet<Name>>,
    /// What services of this zone are called, and how many of them.
    called: BTreeMap<String, usize>,
    /// Where replicas of this zone are, by destination.
    hosts: BTreeMap<Name, Arc<BTreeSet<SocketAddr>>>,
    nowhere: Arc<BTreeSet<SocketAddr>>,
}

#[derive(Debug)]
struct Known {
    service: Arc<Service>,
    destinations: BTreeSet<Name>,
}

impl Entry {
    /// Whether anybody can prove to be it. Without, nobody can call it.
    pub(super) fn is_callable(&self) -> bool {
        !self.destination.identities.is_empty()
    }
}

impl Service {
    pub(super) fn read(resource: &Resource) -> Result<Self, RejectedSpec> {
        let spec = kinds::read::<MeshService>(resource)?;
        let status = kinds::status::<MeshService>(resource)?;
        let labels = resource.head.labels.clone();
        let remote = (labels.get(label::ORIGIN) == Some(label::ORIGIN_GLOBAL))
            .then(|| labels.get(label::ZONE).unwrap_or_default().to_owned());
        let vips = status.vips.iter().filter_map(|vip| vip.ip.parse().ok()).collect();
        let name = resource.head.key.name.clone();
        let called = if remote.is_none() { called(&name, &labels) } else { BTreeSet::new() };
        let created = resource.head.times.created;
        Ok(Self { name, labels, remote, called, spec, created, vips })
    }
}

/// The names of a service: that of the store, the one it was given, and that of the Service of a
/// cluster that it was made of; these also with their namespace. Those of the pods behind one
/// headless Service have that one in common.
fn called(name: &str, labels: &Labels) -> BTreeSet<String> {
    let given = [label::DISPLAY_NAME, label::SERVICE_NAME].map(|key| labels.get(key));
    let given = given.into_iter().flatten();
    let namespace = labels.get(label::NAMESPACE);
    let within = given.clone().zip(std::iter::repeat(namespace));
    let within = within.filter_map(|(name, namespace)| Some(format!("{name}.{}", namespace?)));
    [name].into_iter().chain(given).map(str::to_owned).chain(within).collect()
}

/// The ports of a service, and why some cannot be called.
fn entries(service: &Arc<Service>, row: &Resource) -> (BTreeMap<Name, Arc<Entry>>, Problems) {
    let (mut entries, mut problems) = (BTreeMap::new(), Problems::new());
    let kri = mesh_service::KIND.kri(&row.head);
    let identities = match identities(&service.spec) {
        Ok(identities) => identities,
        Err(problem) => {
            problems.insert(kri.to_string().into(), problem);
            BTreeSet::new()
        }
    };
    for port in &service.spec.ports {
        let kri = kri.with_section(port.section());
        let name = Name::from(kri.to_string());
        let Ok(number) = u16::try_from(port.port) else { continue };
        let sni = match Sni::of(&kri) {
            Ok(sni) => sni,
            Err(error) => {
                problems.insert(name, format!("it has no server name: {error}"));
                continue;
            }
        };
        let shown = service.labels.get(label::SYNC) != Some(label::DISABLED);
        let exposed = (service.remote.is_none() && shown).then(|| IngressService {
            sni: sni.clone(),
            kri: kri.clone(),
            endpoints: kri.clone(),
        });
        let (protocol, identities) = (port.protocol(), identities.clone());
        let vips = service.vips.iter().map(|ip| SocketAddr::new(*ip, number)).collect();
        let entry = Entry {
            service: service.clone(),
            port: port.clone(),
            number,
            destination: Destination { kri, sni, protocol, identities },
            vips: Arc::new(vips),
            exposed,
        };
        // Of two ports that are called the same, the first one counts.
        entries.entry(name).or_insert_with(|| Arc::new(entry));
    }
    (entries, problems)
}

/// Who may answer. An empty list would admit everybody, so without one nobody is called.
fn identities(spec: &MeshService) -> Result<BTreeSet<SpiffeId>, String> {
    let ids = spec.identities.iter().map(|identity| identity.value.parse());
    let ids: BTreeSet<SpiffeId> =
        ids.collect::<Result<_, _>>().map_err(|error| format!("spec.identities: {error}"))?;
    if ids.is_empty() {
        return Err("spec.identities is empty: nobody can prove to be it".into());
    }
    Ok(ids)
}

impl Services {
    /// A service is this now, or is gone. Returns what became of its destinations, and what is
    /// wrong with them.
    pub(super) fn set(
        &mut self,
        name: &Name,
        service: Option<(Arc<Service>, &Resource)>,
    ) -> (Vec<Changed>, Problems) {
        let mut names = self.forget(name);
        let (mut new, mut problems) = (BTreeMap::new(), Problems::new());
        if let Some((service, row)) = service {
            (new, problems) = entries(&service, row);
            if let Some(zone) = &service.remote {
                self.by_zone.entry(zone.clone()).or_default().insert(name.clone());
            }
            for called in &service.called {
                *self.called.entry(called.clone()).or_default() += 1;
            }
            let destinations = new.keys().cloned().collect();
            self.services.insert(name.clone(), Known { service, destinations });
        }
        names.extend(new.keys().cloned());
        let changed = names.into_iter().map(|destination| {
            let entry = new.remove(&destination);
            self.replace(destination, name, entry)
        });
        (changed.collect(), problems)
    }

    fn forget(&mut self, name: &Name) -> BTreeSet<Name> {
        let Some(Known { service, destinations }) = self.services.remove(name) else {
            return BTreeSet::new();
        };
        for called in &service.called {
            if let Some(count) = self.called.get_mut(called) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.called.remove(called);
                }
            }
        }
        if let Some(zone) = &service.remote
            && let Some(services) = self.by_zone.get_mut(zone)
        {
            services.remove(name);
            if services.is_empty() {
                self.by_zone.remove(zone);
            }
        }
        destinations
    }

    fn replace(&mut self, destination: Name, service: &Name, entry: Option<Arc<Entry>>) -> Changed {
        let owners = self.destinations.entry(destination.clone()).or_default();
        let first = |owners: &BTreeMap<Name, Arc<Entry>>| owners.values().next().cloned();
        let before = first(owners);
        match entry {
            Some(entry) => drop(owners.insert(service.clone(), entry)),
            None => drop(owners.remove(service)),
        }
        let now = first(owners);
        if owners.is_empty() {
            self.destinations.remove(&destination);
        }
        if let Some(sni) = before.as_ref().and_then(|entry| server_name(entry)) {
            self.exposed.remove(&sni);
        }
        if let Some(sni) = now.as_ref().and_then(|entry| server_name(entry)) {
            self.exposed.insert(sni, destination.clone());
        }
        Changed { name: destination, before, now }
    }

    pub(super) fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(name).map(|known| &known.service)
    }

    /// Whether a service of this zone is called so.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.called.contains_key(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.services.keys()
    }

    /// The services of another zone.
    pub(super) fn of_zone(&self, zone: &str) -> impl Iterator<Item = &Name> {
        self.by_zone.get(zone).into_iter().flatten()
    }

    /// The destinations of a service.
    pub(super) fn of_service(&self, name: &str) -> impl Iterator<Item = (&Name, &Arc<Entry>)> {
        let names = self.services.get(name).into_iter().flat_map(|known| &known.destinations);
        names.filter_map(|name| self.destination(name).map(|entry| (name, entry)))
    }

    pub(super) fn destination(&self, name: &str) -> Option<&Arc<Entry>> {
        self.destinations.get(name)?.values().next()
    }

    pub(super) fn destinations(&self) -> impl Iterator<Item = (&Name, &Arc<Entry>)> {
        self.destinations
            .iter()
            .filter_map(|(name, owners)| owners.values().next().map(|entry| (name, entry)))
    }

    /// Where the replicas of a destination are, if that is of this zone.
    pub(super) fn hosts(&self, destination: &str) -> &Arc<BTreeSet<SocketAddr>> {
        self.hosts.get(destination).unwrap_or(&self.nowhere)
    }

    /// They are here now. Returns whether they were somewhere else.
    pub(super) fn place(&mut self, destination: &Name, hosts: BTreeSet<SocketAddr>) -> bool {
        if **self.hosts(destination) == hosts {
            return false;
        }
        if hosts.is_empty() {
            self.hosts.remove(destination);
        } else {
            self.hosts.insert(destination.clone(), Arc::new(hosts));
        }
        true
    }

    /// The destination that is asked for by a server name.
    pub(super) fn exposed_as(&self, sni: &str) -> Option<(&Name, &Arc<Entry>)> {
        let name = self.exposed.get(sni)?;
        self.destination(name).map(|entry| (name, entry))
    }

    /// The server names of what ingresses expose.
    pub(super) fn exposed(&self) -> impl Iterator<Item = &Name> {
        self.exposed.keys()
    }

    /// Where a proxy listens for what it names.
    pub(super) fn resolve(
        &self,
        references: &[(Reference, SocketAddr)],
    ) -> BTreeMap<Name, BTreeSet<SocketAddr>> {
        let mut binds: BTreeMap<Name, BTreeSet<SocketAddr>> = BTreeMap::new();
        for (reference, bind) in references {
            let service = self.meant(reference).map(|service| service.name.clone());
            let ports = service.iter().flat_map(|name| self.of_service(name));
            if let Some((name, _)) = ports.into_iter().find(|(_, it)| reference.is_port(it.number))
            {
                binds.entry(name.clone()).or_default().insert(*bind);
            }
        }
        binds
    }

    fn meant(&self, reference: &Reference) -> Option<&Arc<Service>> {
        if let Some(name) = reference.name() {
            return self.service(name);
        }
        let services = self.services.values().map(|known| &known.service);
        let all = services.filter(|service| reference.selects(service));
        all.min_by_key(|service| (service.created, &service.name))
    }
}

/// The server name of a destination, as the name of a cluster.
pub(super) fn server_name(entry: &Entry) -> Option<Name> {
    entry.exposed.as_ref().map(|exposed| exposed.sni.as_str().into())
}
