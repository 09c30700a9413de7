//! From what changed to what must be written.

use super::{
    WORKLOADS,
    build::{Built, Start, build},
    config,
    deadlines::Deadlines,
    hostnames::Name,
    mesh::{Mesh, WorkloadName},
    plan::{Base, Generator, Plan, plan},
    proxy::{Proxy, count},
    vips::Vips,
};
use bytes::Bytes;
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use kinds::{
    hostname_generator::{self, HostnameGenerator},
    labels::{self, Env, Place},
    mesh_identity,
    mesh_service::{self, Address, GENERATED},
    mesh_trust,
    workload::{self, Workload},
};
use resource::{Kind, Labels, MeshName, Peer, RejectedSpec, Resource, ResourceKey, Spec, label};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};
use store::{
    Expected, Item, Kinds,
    view::{Edit, KindId, KindSet, Update},
};
use tracing::warn;

/// How services are made in a zone.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The zone.
    pub place: Place,
    /// Whether services are made of workloads; Kubernetes has services of its own.
    pub generate: bool,
    /// The addresses that services get.
    pub vips: IpNet,
    /// The names that the DNS server of this zone answers, with all below them.
    pub apexes: Vec<String>,
    /// How long a service without proxies is kept.
    pub grace: SignedDuration,
    /// The namespace of the control plane, if the zone is a cluster.
    pub system_namespace: Option<String>,
}

impl Settings {
    pub(super) fn zone(&self) -> &str {
        match &self.place {
            Place::Zone { name, .. } => name.as_str(),
            Place::Global => "",
        }
    }

    /// What lives in a namespace of its own has it in its name.
    fn workload_key(&self, WorkloadName { name, namespace }: &WorkloadName) -> String {
        match (namespace.as_deref(), self.system_namespace.as_deref()) {
            (Some(namespace), system) if system != Some(namespace) => format!("{name}.{namespace}"),
            _ => name.to_string(),
        }
    }

    fn identity_place<'a>(&'a self, mesh: &'a MeshName) -> mesh_identity::Place<'a> {
        let kubernetes = matches!(self.place, Place::Zone { env: Env::Kubernetes, .. });
        mesh_identity::Place { mesh: mesh.as_str(), zone: self.zone(), kubernetes }
    }

    /// The settings of the zone `place`.
    #[must_use]
    pub fn new(
        place: Place,
        services: &config::Generation,
        vips: &config::Vips,
        apexes: Vec<String>,
    ) -> Self {
        let cluster = matches!(place, Place::Zone { env: Env::Kubernetes, .. });
        Self {
            place,
            generate: services.generate && !cluster,
            vips: vips.mesh_service,
            apexes,
            system_namespace: None,
            grace: services.deletion_grace_period.try_into().unwrap_or(SignedDuration::MAX),
        }
    }
}

/// How long after a start proxies that are not back yet are not missed.
pub(super) const PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// The kinds that matter here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ids {
    dataplane: KindId,
    insight: KindId,
    service: KindId,
    workload: KindId,
    identity: KindId,
    trust: KindId,
    generator: KindId,
}

impl Ids {
    /// `None` if a kind is missing.
    pub(super) fn of(kinds: &Kinds) -> Option<Self> {
        let id = |kind: Kind| kinds.id_of(kind.name);
        Some(Self {
            dataplane: id(kinds::dataplane::KIND)?,
            insight: id(kinds::dataplane_insight::KIND)?,
            service: id(mesh_service::KIND)?,
            workload: id(workload::KIND)?,
            identity: id(mesh_identity::KIND)?,
            trust: id(mesh_trust::KIND)?,
            generator: id(hostname_generator::KIND)?,
        })
    }

    pub(super) fn set(self) -> KindSet {
        let Self { dataplane, insight, service, workload, identity, trust, generator } = self;
        [dataplane, insight, service, workload, identity, trust, generator].into_iter().collect()
    }
}

/// Everything that decides about services, and what follows from it.
#[derive(Debug)]
pub(super) struct Services {
    ids: Ids,
    settings: Settings,
    started: Timestamp,
    meshes: BTreeMap<MeshName, Mesh>,
    generators: BTreeMap<Name, Generator>,
    vips: Vips,
    deadlines: Deadlines,
    /// How often a service was looked at.
    #[cfg(test)]
    pub(super) planned: usize,
}

impl Services {
    pub(super) fn new(ids: Ids, settings: Settings, started: Timestamp) -> Self {
        let vips = Vips::new(settings.vips);
        Self {
            ids,
            settings,
            started,
            meshes: BTreeMap::new(),
            generators: BTreeMap::new(),
            vips,
            deadlines: Deadlines::default(),
            #[cfg(test)]
            planned: 0,
        }
    }

    /// Takes in what changed, and says what must be written because of it. Costs what concerns the
    /// services that changed.
    pub(super) fn apply(&mut self, updates: Vec<Update>, now: Timestamp) -> Vec<Item> {
        for update in updates {
            let Update { kind, key, now: row, .. } = update;
            if let Err(error) = self.note(kind, &key, row.as_ref()) {
                // Nobody writes what cannot be read; a newer version of this program may have.
                warn!(key = %key, %error, "a resource cannot be read");
            }
        }
        self.expire(now);
        for (name, mesh) in &mut self.meshes {
            mesh.identify(self.settings.identity_place(name));
        }
        let mut items = self.services(now);
        items.extend(self.workloads());
        items
    }

    /// When something changes without anybody changing it.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        [self.deadlines.first(), self.vips.deadline()].into_iter().flatten().min()
    }

    /// How many virtual addresses are held, resting, and missing.
    pub(super) fn vip_counts(&self) -> [usize; 3] {
        self.vips.counts()
    }

    /// Looks at everything again.
    #[cfg(test)]
    pub(super) fn settle_again(&mut self, now: Timestamp) -> Vec<Item> {
        for mesh in self.meshes.values_mut() {
            mesh.mark_everything();
        }
        self.apply(Vec::new(), now)
    }

    fn note(
        &mut self,
        kind: KindId,
        key: &ResourceKey,
        row: Option<&Arc<Resource>>,
    ) -> Result<(), RejectedSpec> {
        if kind == self.ids.generator {
            return self.note_generator(&key.name, row);
        }
        let Some(mesh) = &key.mesh else { return Ok(()) };
        let place = self.settings.identity_place(mesh);
        let mesh = self.meshes.entry(mesh.clone()).or_default();
        let (name, ids) = (&key.name, self.ids);
        if kind == ids.dataplane {
            mesh.note_dataplane(name, row)
        } else if kind == ids.insight {
            mesh.note_insight(name, row)
        } else if kind == ids.service {
            mesh.note_service(name, row)
        } else if kind == ids.workload {
            mesh.note_workload(name, row);
            Ok(())
        } else if kind == ids.identity {
            mesh.note_identity(name, row, place)
        } else if kind == ids.trust {
            mesh.note_trust(name, row)
        } else {
            Ok(())
        }
    }

    fn note_generator(
        &mut self,
        name: &Name,
        row: Option<&Arc<Resource>>,
    ) -> Result<(), RejectedSpec> {
        self.generators.remove(name);
        self.meshes.values_mut().for_each(Mesh::mark_all);
        let Some(row) = row else { return Ok(()) };
        let spec = kinds::read::<HostnameGenerator>(row)?;
        let foreign = row.head.labels.get(label::ORIGIN) != Some(label::ORIGIN_ZONE);
        let generator = Generator { spec, foreign, created: row.head.times.created };
        self.generators.insert(name.clone(), generator);
        Ok(())
    }

    fn expire(&mut self, now: Timestamp) {
        let mut due = self.vips.released(now);
        due.extend(std::iter::from_fn(|| self.deadlines.pop(now)));
        for key in due {
            if let Some(mesh) = key.mesh.as_ref().and_then(|mesh| self.meshes.get_mut(mesh)) {
                mesh.dirty.services.insert(key.name);
            }
        }
    }

    fn services(&mut self, now: Timestamp) -> Vec<Item> {
        let plans = self.plans(now);
        #[cfg(test)]
        {
            self.planned += plans.len();
        }
        let mut items = Vec::new();
        // The older ones choose first. That those that have an address keep it is decided before
        // anybody gets a new one.
        let mut kept: Vec<(&ResourceKey, &Base)> = Vec::new();
        for (key, plan) in &plans {
            match plan {
                Plan::Keep(base) => kept.push((key, base)),
                Plan::Nothing => {
                    self.vips.take_back(key, now);
                    self.deadlines.set(key, None);
                }
                Plan::Delete => items.extend(self.delete_service(key)),
            }
        }
        kept.sort_by_key(|(key, base)| (base.created, *key));
        let held: Vec<_> = kept.iter().map(|(key, base)| self.held(key, base)).collect();
        for ((key, base), held) in kept.into_iter().zip(held) {
            let vips = if held.is_empty() && !base.is_of_cluster() {
                self.vips.give(key, &base.kri(key)).into_iter().collect()
            } else {
                held
            };
            items.extend(self.service(key, base, &vips, now));
        }
        items
    }

    /// What shall become of the services that must be looked at.
    fn plans(&mut self, now: Timestamp) -> BTreeMap<ResourceKey, Plan> {
        let mut plans = BTreeMap::new();
        for (mesh_name, mesh) in &mut self.meshes {
            let dirty = std::mem::take(&mut mesh.dirty.services);
            let key = |name: &Name| ResourceKey::in_mesh(mesh_name, name);
            let mut touched = BTreeSet::new();
            for name in &dirty {
                let key = key(name);
                let plan = plan(&key, mesh, &self.generators, &self.settings, now);
                let claims = match &plan {
                    Plan::Keep(base) => base.claims(&key, &self.generators),
                    Plan::Nothing | Plan::Delete => BTreeSet::new(),
                };
                let holds = holds(mesh, name);
                touched.extend(mesh.hostnames.replace(name, claims, holds));
                plans.insert(key, plan);
            }
            // Whoever asks for a name that may have changed hands is told who has it.
            let others: BTreeSet<Name> =
                touched.iter().flat_map(|name| mesh.hostnames.claimants(name)).cloned().collect();
            for name in others.difference(&dirty) {
                let key = key(name);
                let plan = plan(&key, mesh, &self.generators, &self.settings, now);
                plans.insert(key, plan);
            }
        }
        plans
    }

    /// The addresses that a service has already and may keep.
    fn held(&mut self, key: &ResourceKey, base: &Base) -> Vec<IpAddr> {
        let Some(stored) = stored(&self.meshes, key) else { return Vec::new() };
        let addresses = stored.status.vips.iter().filter_map(|vip| vip.ip.parse().ok());
        // The cluster gives them, and to another service as soon as one is gone.
        if base.is_of_cluster() {
            return addresses.collect();
        }
        let kri = base.kri(key);
        addresses.filter(|address| self.vips.hold(*address, key, &kri)).collect()
    }

    fn service(
        &mut self,
        key: &ResourceKey,
        base: &Base,
        vips: &[IpAddr],
        now: Timestamp,
    ) -> Option<Item> {
        let mesh = self.meshes.get(key.mesh.as_ref()?)?;
        let patience = self.started.saturating_add(PATIENCE).unwrap_or(Timestamp::MAX);
        let start = if now < patience { Start::Recent } else { Start::Over };
        let Built { spec, status, waiting } = build(key, base, vips, mesh, &self.settings, start);
        let waits = waiting.then_some(patience);
        self.deadlines.set(key, base.expires.into_iter().chain(waits).min());

        let stored = mesh.services.get(&key.name);
        let same = stored.is_some_and(|stored| {
            *stored.spec == spec && stored.status == status && stored.row.head.labels == base.labels
        });
        if same {
            return None;
        }
        let status = json(&status);
        let row = match stored {
            Some(stored) if base.copy => stored.row.with_status(status),
            _ => own(mesh_service::KIND, key, base.labels.clone(), &spec, status)?,
        };
        let expected = stored.map(|stored| &*stored.row);
        Some(put(self.ids.service, expected, row))
    }

    fn delete_service(&self, key: &ResourceKey) -> Option<Item> {
        let stored = stored(&self.meshes, key)?;
        Some(delete(self.ids.service, &stored.row))
    }

    fn workloads(&mut self) -> Vec<Item> {
        let mut items = Vec::new();
        for (mesh_name, mesh) in &mut self.meshes {
            for name in std::mem::take(&mut mesh.dirty.workloads) {
                let key = ResourceKey::in_mesh(mesh_name, &self.settings.workload_key(&name));
                let item = workload_item((&key, &name), mesh, &self.settings, self.ids.workload);
                items.extend(item);
            }
        }
        items
    }
}

fn stored<'a>(
    meshes: &'a BTreeMap<MeshName, Mesh>,
    key: &ResourceKey,
) -> Option<&'a super::mesh::Service> {
    meshes.get(key.mesh.as_ref()?)?.services.get(&key.name)
}

/// The names that a service has, as its status says.
fn holds(mesh: &Mesh, name: &Name) -> BTreeSet<String> {
    let Some(stored) = mesh.services.get(name) else { return BTreeSet::new() };
    let generated = |address: &&Address| address.origin == GENERATED;
    let addresses = stored.status.addresses.iter().filter(generated);
    addresses.map(|address| address.hostname.clone()).collect()
}

/// What must become of the workload `key`.
fn workload_item(
    (key, name): (&ResourceKey, &WorkloadName),
    mesh: &Mesh,
    settings: &Settings,
    kind: KindId,
) -> Option<Item> {
    let stored = mesh.workloads.get(&key.name);
    if stored.is_some_and(|row| !settings.place.is_origin_of(&row.head.labels)) {
        return None;
    }
    let selector = mesh_service::Selector::label(label::WORKLOAD, &name.name);
    let namespace =
        |proxy: &&Proxy| proxy.head.labels.get(label::NAMESPACE) == name.namespace.as_deref();
    let proxies: Vec<&Proxy> = mesh.selected(&selector).filter(namespace).collect();
    let counts = count(proxies.iter().copied(), &mesh.online, Proxy::is_healthy);
    let managed =
        stored.is_none_or(|row| row.head.labels.get(label::MANAGED_BY) == Some(WORKLOADS));
    if managed && proxies.is_empty() {
        return stored.map(|row| delete(kind, row));
    }
    let status = json(&workload::Status { dataplane_proxies: Some(counts.into()) });
    let row = match stored {
        Some(row) => row.with_status(status),
        None => {
            let labels = labels::own(workload::KIND, key, &settings.place);
            let labels = labels.with(label::MANAGED_BY, WORKLOADS);
            let labels = match &name.namespace {
                Some(namespace) => {
                    labels.with(label::DISPLAY_NAME, &name.name).with(label::NAMESPACE, namespace)
                }
                None => labels,
            };
            own(workload::KIND, key, labels, &Workload {}, status)?
        }
    };
    let same = stored.is_some_and(|stored| stored.head.version == row.head.version);
    (!same).then(|| put(kind, stored.map(|row| &**row), row))
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("a status is plain JSON").into()
}

/// A resource of this zone.
fn own<S: Spec>(
    kind: Kind,
    key: &ResourceKey,
    labels: Labels,
    spec: &S,
    status: Bytes,
) -> Option<Resource> {
    let bytes = <S::Encoding as resource::Encoding<S>>::encode(spec);
    let bytes = bytes.expect("a spec is plain JSON").into();
    let made = kind.resource(key.clone(), labels, bytes, status, Peer::Global);
    // Made of what others wrote, so it can be as wrong as that.
    made.inspect_err(|error| warn!(key = %key, %error, "what was made of proxies is invalid")).ok()
}

fn put(kind: KindId, stored: Option<&Resource>, row: Resource) -> Item {
    let version = |row: &Resource| Expected::Version(row.head.version);
    let expected = stored.map_or(Expected::Nothing, version);
    Item { kind, expected, edit: Edit::Put(Arc::new(row)) }
}

fn delete(kind: KindId, stored: &Resource) -> Item {
    let expected = Expected::Version(stored.head.version);
    Item { kind, expected, edit: Edit::Delete(stored.head.key.clone()) }
}
