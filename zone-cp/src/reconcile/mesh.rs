//! The tables of one mesh, updated by what changed, never rebuilt.

use super::{
    calls::Calls,
    change::Input,
    effects::Effects,
    groups::{Groups, PolicyId, Replaced},
    marks::{Marks, ProxyId},
    proxies::{self, Connected},
    replicas::{self, Replica, Replicas},
    results::Results,
    services::{Entry, Service, Services, server_name},
    tcp::{Moment, Record},
};
use crate::{
    generate::{self, Endpoint, Trust},
    services::selection::Selection,
};
use delta::{Item, Name};
use kinds::{
    dataplane, mesh_service,
    mesh_zone_address::{self, MeshZoneAddress},
};
use resource::{MeshName, RejectedSpec, Resource, ZoneName, label};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use xds::{
    Type, names,
    policy::{Applied, PolicyKind, ProxyFacts},
};

/// Own replicas are called first, those behind ingresses of other zones when there are none.
const LOCAL: u32 = 0;
const REMOTE: u32 = 1;

/// Everything about a mesh.
#[derive(Debug)]
pub(super) struct Mesh {
    pub(super) name: MeshName,
    zone: ZoneName,
    /// The Mesh itself is there.
    pub(super) exists: bool,
    pub(super) replicas: Replicas,
    pub(super) services: Services,
    selection: Selection,
    zones: BTreeMap<String, BTreeMap<Name, SocketAddr>>,
    zone_of_address: BTreeMap<Name, String>,
    pub(super) endpoints: BTreeMap<Name, BTreeSet<Endpoint>>,
    pub(super) policies: BTreeMap<PolicyId, Arc<Applied>>,
    pub(super) trust: Arc<Trust>,
    /// The secret that says so, for every proxy.
    pub(super) trust_secret: Option<Item>,
    pub(super) proxies: BTreeMap<ProxyId, Connected>,
    pub(super) by_name: BTreeMap<Name, ProxyId>,
    pub(super) groups: Groups,
    pub(super) results: Results,
    pub(super) marks: Marks,
    pub(super) effects: Effects,
    /// Dataplanes of which something was found that is to be written down, by what is looked at now.
    pub(super) unwritten_now: BTreeSet<Name>,
    /// Whose certificates are to be asked for.
    pub(super) unidentified: BTreeSet<ProxyId>,
    /// What is to be written down, by Dataplane.
    pub(super) unwritten: BTreeMap<Name, Record>,
    /// Dataplanes by the services whose replicas they call at their own addresses.
    pub(super) asking: BTreeMap<String, BTreeSet<Name>>,
    /// Those of which it is open whether these services are there.
    pub(super) doubted: BTreeSet<Name>,
    problems: Problems,
    pub(super) moment: Moment,
}

/// What is wrong, by what it is wrong with.
type Problems = BTreeMap<(&'static str, Name), BTreeMap<Name, String>>;

impl Mesh {
    pub(super) fn new(name: MeshName, zone: ZoneName, moment: Moment) -> Self {
        Self {
            name,
            zone,
            exists: false,
            replicas: Replicas::new(),
            services: Services::default(),
            selection: Selection::default(),
            zones: BTreeMap::new(),
            zone_of_address: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            policies: BTreeMap::new(),
            trust: Arc::default(),
            trust_secret: None,
            proxies: BTreeMap::new(),
            by_name: BTreeMap::new(),
            groups: Groups::default(),
            results: Results::default(),
            marks: Marks::default(),
            effects: Effects::default(),
            unwritten_now: BTreeSet::new(),
            unidentified: BTreeSet::new(),
            unwritten: BTreeMap::new(),
            asking: BTreeMap::new(),
            doubted: BTreeSet::new(),
            problems: Problems::new(),
            moment,
        }
    }

    /// Before anything is changed.
    pub(super) fn begin(&mut self, moment: Moment) {
        self.moment = moment;
        // What is marked already is because of something else.
        self.marks.last();
        self.unwritten_now.clear();
    }

    /// Tells the streams what changed. Still under the lock of the mesh: a stream that sees
    /// something new finds its mark.
    pub(super) fn tell(&mut self) {
        // Only now: what is looked at last may be what is named.
        self.complain();
        for (id, marks) in self.marks.take() {
            if let Some(proxy) = self.proxies.get(&id) {
                proxy.marker.mark_all(marks);
            }
        }
    }

    /// The proxy that is connected for the longest time.
    pub(super) fn eldest(&self) -> Option<(ProxyId, Name)> {
        self.proxies.iter().next().map(|(id, proxy)| (*id, proxy.name.clone()))
    }

    /// Sends a beacon to a proxy, if it is still there.
    pub(super) fn pass(&self, id: ProxyId, beacon: u64) {
        if let Some(proxy) = self.proxies.get(&id) {
            proxy.marker.beacon(beacon);
        }
    }

    // Inputs.

    /// A service is this now, or is gone.
    pub(super) fn set_service(&mut self, name: &Name, row: Option<&Resource>) {
        let service = match row.map(Service::read).transpose() {
            Ok(service) => service.map(Arc::new),
            // The last good one stays.
            Err(error) => return self.unreadable(mesh_service::KIND.name, name, &error),
        };
        let old = self.services.service(name).cloned();
        if let Some(old) = old.as_ref().filter(|old| old.remote.is_none()) {
            self.selection.remove_service(name, &old.spec.selector);
        }
        if let Some(new) = service.as_ref().filter(|new| new.remote.is_none()) {
            self.selection.add_service(name, &new.spec.selector);
        }
        let (changed, problems) = self.services.set(name, service.clone().zip(row));
        self.found_problems(mesh_service::KIND.name, name, problems);
        for changed in &changed {
            let (before, now) = (changed.before.as_ref(), changed.now.as_ref());
            let called = |entry: &Arc<Entry>| entry.destination.clone();
            let exposed = |entry: &Arc<Entry>| entry.exposed.clone();
            if before.map(called) != now.map(called) {
                self.results.changed(&changed.name);
            }
            if before.and_then(exposed) != now.and_then(exposed) {
                self.results.exposed_changed(&changed.name);
                self.expose(&changed.name, before, now);
            }
        }
        let touches = |calls: &Calls| {
            let both = || [&old, &service].into_iter().flatten();
            calls.explicit.iter().any(|(it, _)| both().any(|service| it.selects(service)))
        };
        self.groups.service_changed(&self.services, touches, &changed, &mut self.marks);
        for changed in changed {
            self.locate(&changed.name);
        }
        self.renamed(old.as_deref(), service.as_deref());
    }

    /// What ingresses offer as `name` changed.
    fn expose(&mut self, name: &Name, before: Option<&Arc<Entry>>, now: Option<&Arc<Entry>>) {
        let sni = |entry: Option<&Arc<Entry>>| entry.and_then(|entry| server_name(entry));
        let (old, new) = (sni(before), sni(now));
        let ingresses = self.proxies.iter().filter(|(_, proxy)| proxy.is_ingress());
        for (id, _) in ingresses {
            if old.is_some() != new.is_some() {
                self.marks.mark(*id, Type::Endpoint, name);
            }
            for sni in old.iter().chain(&new) {
                self.marks.mark(*id, Type::Cluster, sni);
            }
        }
    }

    /// A Dataplane of this zone is this now, or is gone.
    pub(super) fn set_dataplane(&mut self, name: &Name, row: Option<&Resource>) {
        let replica = match row.map(Replica::read).transpose() {
            Ok(replica) => replica.map(Arc::new),
            Err(error) => return self.unreadable(dataplane::KIND.name, name, &error),
        };
        let problem = replica.as_ref().and_then(|replica| replica.problem.clone());
        self.problem(dataplane::KIND.name, name, problem);
        let old = match &replica {
            Some(replica) => self.replicas.insert(name.clone(), replica.clone()),
            None => self.replicas.remove(name),
        };
        self.asks(name, old.as_deref(), replica.as_deref());
        let own = replica.as_ref().map(|replica| replica.own()).unwrap_or_default();
        let id = self.by_name.get(name).copied();
        let moving = id.map(|id| self.moving(id, own));
        let mut services = BTreeSet::new();
        if let Some(old) = &old {
            services.extend(self.selection.services(name, &old.labels));
            self.selection.remove_proxy(name, &old.labels);
        }
        if let Some(new) = &replica {
            services.extend(self.selection.services(name, &new.labels));
            self.selection.add_proxy(name, &new.labels);
        }
        for service in services {
            self.locate_service(&service);
        }
        if let Some(id) = id {
            let labels = |replica: &Arc<Replica>| replica.labels.clone();
            if old.as_ref().map(labels) != replica.as_ref().map(labels) {
                self.unidentified.insert(id);
                self.select(id);
            }
            self.regroup(id);
            self.open(id);
        }
        if let Some(moving) = moving {
            self.moved(moving);
        }
    }

    /// An ingress of some zone is there now, or is gone.
    pub(super) fn set_zone_address(&mut self, name: &Name, row: Option<&Resource>) {
        let (mut zones, mut problem) = (BTreeSet::new(), None);
        if let Some(zone) = self.zone_of_address.remove(name) {
            if let Some(addresses) = self.zones.get_mut(&zone) {
                addresses.remove(name);
            }
            zones.insert(zone);
        }
        if let Some(row) = row {
            match zone_address(row) {
                Ok((zone, address)) => {
                    self.zone_of_address.insert(name.clone(), zone.clone());
                    self.zones.entry(zone.clone()).or_default().insert(name.clone(), address);
                    zones.insert(zone);
                }
                Err(text) => problem = Some(text),
            }
        }
        self.problem(mesh_zone_address::KIND.name, name, problem);
        self.zones.retain(|_, addresses| !addresses.is_empty());
        for zone in zones {
            for service in self.services.of_zone(&zone).cloned().collect::<Vec<_>>() {
                self.locate_service(&service);
            }
        }
    }

    /// A policy says this now, or is gone.
    pub(super) fn set_policy(&mut self, kind: &PolicyKind, name: &Name, row: Option<&Resource>) {
        let id = (kind.kind.name, name.clone());
        let new = match row.map(|row| kind.read(row)).transpose() {
            Ok(new) => new.map(Arc::new),
            Err(error) => return self.unreadable(kind.kind.name, name, &error),
        };
        self.problem(kind.kind.name, name, None);
        let old = match &new {
            Some(new) => self.policies.insert(id.clone(), new.clone()),
            None => self.policies.remove(&id),
        };
        let replaced = Replaced { id: &id, old: old.as_ref(), new: new.as_ref() };
        let (mesh, proxies, replicas) = (&self.name, &self.proxies, &self.replicas);
        let selects = |policy: &Applied, id: ProxyId| {
            let replica = proxies.get(&id).and_then(|proxy| replicas.get(&proxy.name));
            replica.is_some_and(|it| policy.selects(&ProxyFacts { mesh, labels: &it.labels }))
        };
        let effect = self.groups.policy_changed(&replaced, selects, &mut self.marks);
        for name in &effect.reshaped {
            self.results.changed(name);
        }
        let shaping = |policy: &&Arc<Applied>| proxies::shapes(policy);
        let (old, new) = (old.as_ref().filter(shaping), new.as_ref().filter(shaping));
        let mut concerned = Vec::new();
        for (id, proxy) in &mut self.proxies {
            let Some(replica) = self.replicas.get(&proxy.name) else { continue };
            let facts = ProxyFacts { mesh: &self.name, labels: &replica.labels };
            if proxy.reselect(old, new.filter(|new| new.selects(&facts))) {
                concerned.push(*id);
            }
        }
        for (id, group) in effect.moved {
            if let Some(proxy) = self.proxies.get_mut(&id) {
                proxy.group = Some(group);
            }
        }
        for id in concerned {
            self.open(id);
        }
    }

    /// Other certificates count now.
    pub(super) fn set_trust(&mut self, trust: Arc<Trust>) {
        if *self.trust == *trust {
            return;
        }
        let bundle = Name::from(names::TRUST_BUNDLE);
        let secret = generate::trust_secret(&trust);
        self.trust_secret = secret.map(|secret| xds::item(Type::Secret, &bundle, &secret));
        self.results.made_for_one += 1;
        self.trust = trust;
        for (id, proxy) in &self.proxies {
            self.marks.mark(*id, Type::Secret, &bundle);
            let tcp = proxy.served().filter(|(_, open)| !open.is_http());
            tcp.for_each(|(name, _)| self.marks.mark(*id, Type::Secret, name));
        }
    }

    /// What of a kind is in the tables.
    pub(super) fn known(&self, input: Input) -> Vec<Name> {
        match input {
            Input::Mesh | Input::Beacon => Vec::new(),
            Input::Policy(kind) => {
                let of_kind = self.policies.keys().filter(|(name, _)| *name == kind.kind.name);
                of_kind.map(|(_, name)| name.clone()).collect()
            }
            Input::ZoneAddress => self.zone_of_address.keys().cloned().collect(),
            Input::Dataplane => self.replicas.keys().cloned().collect(),
            Input::Service => self.services.names().cloned().collect(),
        }
    }

    // Where destinations are.

    fn locate_service(&mut self, service: &Name) {
        let names: Vec<Name> =
            self.services.of_service(service).map(|(it, _)| it.clone()).collect();
        names.iter().for_each(|name| self.locate(name));
    }

    /// Works out anew where a destination is.
    fn locate(&mut self, name: &Name) {
        let Some(entry) = self.services.destination(name).cloned() else {
            self.endpoints.remove(name);
            self.results.moved(name);
            return self.place(name, BTreeSet::new());
        };
        let (endpoints, hosts) = self.replicas_of(&entry);
        self.place(name, hosts);
        if self.endpoints.get(name) == Some(&endpoints) {
            return;
        }
        self.endpoints.insert(name.clone(), endpoints);
        self.results.moved(name);
        for id in self.groups.callers(name) {
            self.marks.mark(id, Type::Endpoint, name);
        }
        if entry.exposed.is_some() {
            let ingresses = self.proxies.iter().filter(|(_, proxy)| proxy.is_ingress());
            ingresses.for_each(|(id, _)| self.marks.mark(*id, Type::Endpoint, name));
        }
    }

    /// Where it is called, and where its replicas are if they are of this zone.
    fn replicas_of(&self, entry: &Entry) -> (BTreeSet<Endpoint>, BTreeSet<SocketAddr>) {
        if let Some(zone) = &entry.service.remote {
            let addresses = self.zones.get(zone).into_iter().flat_map(BTreeMap::values);
            let at = |address: &SocketAddr| Endpoint {
                priority: REMOTE,
                zone: zone.clone(),
                address: *address,
            };
            return (addresses.map(at).collect(), BTreeSet::new());
        }
        let selector = &entry.service.spec.selector;
        let selected = self.selection.proxies(selector);
        let some: Vec<(&Name, &Arc<Replica>)> = match &selected {
            Some(names) => names.iter().filter_map(|it| self.replicas.get_key_value(it)).collect(),
            None => self.replicas.iter().collect(),
        };
        let some = some.into_iter().filter(|(name, it)| selector.matches(name, &it.labels));
        let some: Vec<&Replica> = some.map(|(_, replica)| &**replica).collect();
        let addresses = replicas::addresses(some.iter().copied(), &entry.port);
        let zone = self.zone.to_string();
        let at = |address| Endpoint { priority: LOCAL, zone: zone.clone(), address };
        (addresses.map(at).collect(), replicas::hosts(some.iter().copied(), &entry.port))
    }

    // Problems.

    fn unreadable(&mut self, kind: &'static str, name: &Name, error: &RejectedSpec) {
        self.problem(kind, name, Some(error.to_string()));
    }

    pub(super) fn problem(&mut self, kind: &'static str, name: &Name, text: Option<String>) {
        let problems = text.map(|text| (name.clone(), text)).into_iter().collect();
        self.found_problems(kind, name, problems);
    }

    fn found_problems(
        &mut self,
        kind: &'static str,
        name: &Name,
        problems: BTreeMap<Name, String>,
    ) {
        let before = self.problems.remove(&(kind, name.clone())).unwrap_or_default();
        for (name, text) in problems.iter().filter(|(name, text)| before.get(*name) != Some(*text))
        {
            tracing::info!(mesh = %self.name, kind, name = %name, problem = %text, "not served");
        }
        if !problems.is_empty() {
            self.problems.insert((kind, name.clone()), problems);
        }
    }

    /// What is wrong, by the name or KRI of what it is wrong with.
    pub(super) fn problems(&self) -> BTreeMap<Name, String> {
        let mut all: BTreeMap<Name, String> = BTreeMap::new();
        for (name, text) in self.problems.values().flatten() {
            let said = all.entry(name.clone()).or_default();
            *said = if said.is_empty() { text.clone() } else { format!("{said}; {text}") };
        }
        all
    }
}

fn zone_address(row: &Resource) -> Result<(String, SocketAddr), String> {
    let spec = kinds::read::<MeshZoneAddress>(row).map_err(|error| error.to_string())?;
    let ip: IpAddr = spec
        .address
        .parse()
        .map_err(|_| format!("spec.address: {:?} is not an IP address", spec.address))?;
    let port = u16::try_from(spec.port).map_err(|_| "spec.port: not a port".to_owned())?;
    let zone = row.head.labels.get(label::ZONE).unwrap_or_default().to_owned();
    Ok((zone, SocketAddr::new(ip, port)))
}
