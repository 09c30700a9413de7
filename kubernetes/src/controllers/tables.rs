//! The objects of a cluster, and what must be looked at again because one of them changed.

use super::{
    cluster::{Id, Map, Namespace, Node, Outside, Phase, Pod, Reached, Service},
    complaint::Verdict,
    dataplane, mesh_service,
    settings::Settings,
    watch::{Change, Step},
    zone_address,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// An object of which resources are made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Owner {
    Pod(Id),
    Service(Id),
}

impl Owner {
    pub(super) const fn id(&self) -> &Id {
        match self {
            Self::Pod(id) | Self::Service(id) => id,
        }
    }
}

/// The objects of one kind while they are listed.
#[derive(Debug, Default)]
struct Listing {
    /// Those that were listed, if they are being listed.
    seen: Option<BTreeSet<Id>>,
    /// They were all listed once.
    complete: bool,
}

/// What there is in one namespace.
#[derive(Debug, Default)]
struct Space {
    namespace: Option<Namespace>,
    pods: BTreeMap<String, Pod>,
    services: BTreeMap<String, Service>,
}

impl Space {
    fn is_empty(&self) -> bool {
        self.namespace.is_none() && self.pods.is_empty() && self.services.is_empty()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Tables {
    settings: Settings,
    spaces: BTreeMap<String, Space>,
    nodes: BTreeMap<String, Node>,
    /// Of pods, services, namespaces and nodes.
    listings: [Listing; 4],
    dirty: BTreeSet<Owner>,
}

impl Tables {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            spaces: BTreeMap::new(),
            nodes: BTreeMap::new(),
            listings: Default::default(),
            dirty: BTreeSet::new(),
        }
    }

    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether every kind was listed once: before, what is not there may only be unknown.
    pub(super) fn is_complete(&self) -> bool {
        self.listings.iter().all(|listing| listing.complete)
    }

    /// Takes in a change. Costs what it concerns.
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Pod(step) => self.step(0, step, Self::put_pod),
            Change::Service(step) => self.step(1, step, Self::put_service),
            Change::Namespace(step) => self.step(2, step, Self::put_namespace),
            Change::Node(step) => self.step(3, step, Self::put_node),
        }
    }

    fn step<T>(&mut self, kind: usize, step: Step<T>, put: fn(&mut Self, &Id, Option<T>)) {
        let Some(listing) = self.listings.get_mut(kind) else { return };
        match step {
            Step::Begin => listing.seen = Some(BTreeSet::new()),
            Step::Put(id, object) => {
                listing.seen.iter_mut().for_each(|seen| {
                    seen.insert(id.clone());
                });
                put(self, &id, Some(object));
            }
            Step::Gone(id) => put(self, &id, None),
            Step::Complete => {
                listing.complete = true;
                let seen = listing.seen.take().unwrap_or_default();
                let gone: Vec<Id> = self.ids(kind).filter(|id| !seen.contains(id)).collect();
                gone.iter().for_each(|id| put(self, id, None));
            }
        }
    }

    fn ids(&self, kind: usize) -> Box<dyn Iterator<Item = Id> + '_> {
        let id = |namespace: &str, name: &str| Id {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let spaces = self.spaces.iter();
        match kind {
            0 => Box::new(
                spaces.flat_map(move |(space, it)| it.pods.keys().map(move |name| id(space, name))),
            ),
            1 => {
                Box::new(spaces.flat_map(move |(space, it)| {
                    it.services.keys().map(move |name| id(space, name))
                }))
            }
            2 => Box::new(
                spaces.filter(|(_, it)| it.namespace.is_some()).map(move |(name, _)| id("", name)),
            ),
            _ => Box::new(self.nodes.keys().map(move |name| id("", name))),
        }
    }

    fn put_pod(&mut self, id: &Id, pod: Option<Pod>) {
        let space = self.spaces.entry(id.namespace.clone()).or_default();
        let before = match pod.clone() {
            Some(pod) => space.pods.insert(id.name.clone(), pod),
            None => space.pods.remove(&id.name),
        };
        if before != pod {
            self.dirty.insert(Owner::Pod(id.clone()));
            let both: Vec<Pod> = before.into_iter().chain(pod).collect();
            let depends = |service: &Service| {
                let selects = both.iter().any(|pod| service.selects(&pod.meta.labels));
                selects && depends_on_pods(service)
            };
            self.mark_services(&id.namespace, depends);
        }
        self.tidy(&id.namespace);
    }

    fn put_service(&mut self, id: &Id, service: Option<Service>) {
        let space = self.spaces.entry(id.namespace.clone()).or_default();
        let before = match service.clone() {
            Some(service) => space.services.insert(id.name.clone(), service),
            None => space.services.remove(&id.name),
        };
        if before != service {
            self.dirty.insert(Owner::Service(id.clone()));
            let both: Vec<Service> = before.into_iter().chain(service).collect();
            let selected = |pod: &Pod| both.iter().any(|it| it.selects(&pod.meta.labels));
            self.mark_pods(&id.namespace, selected);
            // Who is called at the address of a pod may be another one now.
            if both.iter().any(|service| service.reached == Reached::Headless) {
                self.mark_services(&id.namespace, |it| it.reached == Reached::Headless);
            }
        }
        self.tidy(&id.namespace);
    }

    fn put_namespace(&mut self, id: &Id, namespace: Option<Namespace>) {
        let space = self.spaces.entry(id.name.clone()).or_default();
        let before = std::mem::replace(&mut space.namespace, namespace);
        if before != space.namespace {
            self.mark_pods(&id.name, |_| true);
            self.mark_services(&id.name, |_| true);
        }
        self.tidy(&id.name);
    }

    fn put_node(&mut self, id: &Id, node: Option<Node>) {
        let before = match node.clone() {
            Some(node) => self.nodes.insert(id.name.clone(), node),
            None => self.nodes.remove(&id.name),
        };
        // The pods of a node that is gone are where they were, until they are gone too.
        if before == node || node.is_none() {
            return;
        }
        let namespaces: Vec<String> = self.spaces.keys().cloned().collect();
        for namespace in &namespaces {
            self.mark_pods(namespace, |pod| pod.node == id.name);
            self.mark_services(namespace, |it| it.outside == Some(Outside::NodePort));
        }
    }

    fn tidy(&mut self, namespace: &str) {
        if self.spaces.get(namespace).is_some_and(Space::is_empty) {
            self.spaces.remove(namespace);
        }
    }

    fn mark_pods(&mut self, namespace: &str, which: impl Fn(&Pod) -> bool) {
        let Some(space) = self.spaces.get(namespace).filter(|_| self.is_complete()) else { return };
        let marked = space.pods.values().filter(|pod| which(pod));
        self.dirty.extend(marked.map(|pod| Owner::Pod(pod.meta.id())));
    }

    fn mark_services(&mut self, namespace: &str, which: impl Fn(&Service) -> bool) {
        // What was listed is marked anyway, once all of it is there.
        let Some(space) = self.spaces.get(namespace).filter(|_| self.is_complete()) else { return };
        let marked = space.services.values().filter(|service| which(service));
        self.dirty.extend(marked.map(|service| Owner::Service(service.meta.id())));
    }

    /// Something that was made of `owner` changed, or of it was asked.
    pub(super) fn mark(&mut self, owner: Owner) {
        self.dirty.insert(owner);
    }

    /// Everything there is must be looked at.
    pub(super) fn mark_all(&mut self) {
        for space in self.spaces.values() {
            self.dirty.extend(space.pods.values().map(|pod| Owner::Pod(pod.meta.id())));
            let services = space.services.values();
            self.dirty.extend(services.map(|service| Owner::Service(service.meta.id())));
        }
    }

    /// How many are marked.
    pub(super) fn marked(&self) -> usize {
        self.dirty.len()
    }

    /// The next one that must be looked at, and is not among those that are `busy`.
    pub(super) fn next(&mut self, busy: &BTreeSet<Owner>) -> Option<Owner> {
        if !self.is_complete() {
            return None;
        }
        let owner = self.dirty.iter().find(|owner| !busy.contains(*owner))?.clone();
        self.dirty.remove(&owner);
        Some(owner)
    }

    /// Whether `namespace` is being deleted: nothing can be made in it any more.
    pub(super) fn is_leaving(&self, namespace: &str) -> bool {
        let namespace = self.spaces.get(namespace).and_then(|space| space.namespace.as_ref());
        namespace.is_none_or(|namespace| namespace.meta.leaving)
    }

    /// The identity of an object, while it is there.
    pub(super) fn uid(&self, owner: &Owner) -> Option<&str> {
        match owner {
            Owner::Pod(id) => self.pod(id).map(|pod| &*pod.meta.uid),
            Owner::Service(id) => self.service(id).map(|service| &*service.meta.uid),
        }
    }

    fn pod(&self, id: &Id) -> Option<&Pod> {
        self.spaces.get(&id.namespace)?.pods.get(&id.name)
    }

    fn service(&self, id: &Id) -> Option<&Service> {
        self.spaces.get(&id.namespace)?.services.get(&id.name)
    }

    /// What the pod `id` is in the mesh.
    pub(super) fn dataplane(&self, id: &Id) -> Verdict<dataplane::Made> {
        let (Some(pod), Some(space)) = (self.pod(id), self.spaces.get(&id.namespace)) else {
            return Verdict::nothing();
        };
        let selecting = space.services.values().filter(|it| it.selects(&pod.meta.labels));
        let mut services: Vec<&Service> = selecting.collect();
        services.sort_by_key(|service| (service.meta.created, &service.meta.name));
        let around = dataplane::Around {
            settings: &self.settings,
            namespace: space.namespace.as_ref(),
            node: self.nodes.get(&pod.node),
            services,
        };
        dataplane::dataplane(pod, &around)
    }

    /// What the Service `id` is in the mesh.
    pub(super) fn mesh_services(&self, id: &Id) -> Verdict<mesh_service::Made> {
        let (Some(service), Some(space)) = (self.service(id), self.spaces.get(&id.namespace))
        else {
            return Verdict::nothing();
        };
        let headless = service.reached == Reached::Headless;
        let around = mesh_service::Around {
            settings: &self.settings,
            namespace: space.namespace.as_ref(),
            pods: if headless { space.selected(&service.selector).collect() } else { Vec::new() },
            taken: if headless { space.taken(service) } else { BTreeSet::new() },
        };
        mesh_service::mesh_services(service, &around)
    }

    /// Where other zones come in by the Service `id`.
    pub(super) fn zone_addresses(&self, id: &Id) -> Verdict<zone_address::Made> {
        let (Some(service), Some(space)) = (self.service(id), self.spaces.get(&id.namespace))
        else {
            return Verdict::nothing();
        };
        let with_node = |pod: &'_ Pod| self.nodes.get(&pod.node);
        let around = zone_address::Around {
            settings: &self.settings,
            namespace: space.namespace.as_ref(),
            pods: space.selected(&service.selector).map(|pod| (pod, with_node(pod))).collect(),
        };
        zone_address::zone_address(service, &around)
    }
}

/// Whether what is made of a Service depends on the pods behind it.
fn depends_on_pods(service: &Service) -> bool {
    service.reached == Reached::Headless || service.zone_proxy().is_some()
}

impl Space {
    fn selected<'a>(&'a self, selector: &'a Map) -> impl Iterator<Item = &'a Pod> {
        let has =
            |pod: &Pod| selector.iter().all(|(key, value)| pod.meta.labels.get(key) == Some(value));
        self.pods.values().filter(move |pod| !selector.is_empty() && has(pod))
    }

    /// The addresses of pods of `service` at which older Services are called.
    fn taken(&self, service: &Service) -> BTreeSet<IpAddr> {
        let age = |service: &Service| (service.meta.created, service.meta.name.clone());
        let headless = self.services.values().filter(|it| it.reached == Reached::Headless);
        let older = headless.filter(|it| age(it) < age(service) && !it.ports.is_empty());
        let older: Vec<&Service> = older.collect();
        let pods = self.selected(&service.selector).filter(|pod| pod.phase == Phase::Alive);
        let called = pods.filter(|pod| older.iter().any(|it| it.selects(&pod.meta.labels)));
        called.flat_map(|pod| pod.ips.iter().copied()).collect()
    }
}
