//! A zone's store as a table, and short ways to fill it.

mod cluster;
mod hostnames;
mod identities;
mod lifecycle;
mod task;

use super::{
    Settings,
    config::{Generation, Vips},
    state::{Ids, Services},
};
use jiff::{SignedDuration, Timestamp};
use kinds::{
    dataplane, dataplane_insight,
    labels::{Env, Place},
    mesh_service, workload,
};
use resource::{Kind, Labels, MeshName, Peer, Resource, ResourceKey, Times, ZoneName};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use store::{
    Expected, Item, Kinds,
    view::{Edit, KindId, Update},
};

pub(super) fn kinds() -> Kinds {
    Kinds { list: kinds::all().collect(), peer: Peer::Global }
}

pub(super) fn settings() -> Settings {
    let (services, vips) = (Generation::default(), Vips::default());
    let zone = ZoneName::new("east").unwrap();
    let place = Place::Zone { name: zone, env: Env::Universal };
    Settings::new(place, &services, &vips, vec!["mesh.local".into()])
}

pub(super) fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

pub(super) fn key(kind: Kind, name: &str) -> ResourceKey {
    match kind.scope {
        resource::Scope::Global => ResourceKey::global(name),
        resource::Scope::Mesh => ResourceKey::in_mesh(&MeshName::new("shop").unwrap(), name),
    }
}

/// A resource as somebody writes it.
pub(super) fn row(kind: Kind, name: &str, labels: &[(&str, &str)], spec: Value) -> Resource {
    let spec = kind.encode(&kind.from_json(spec).unwrap()).unwrap();
    let labels: Labels = labels.iter().copied().collect();
    kind.resource(key(kind, name), labels, spec, "".into(), Peer::Global).unwrap()
}

/// A proxy of `workload` with one HTTP inbound.
pub(super) fn proxy(name: &str, workload: &str, port: u16) -> Resource {
    proxy_with(name, workload, json!([{ "name": "http", "port": port, "protocol": "http" }]))
}

pub(super) fn proxy_with(name: &str, workload: &str, inbounds: Value) -> Resource {
    let spec = json!({ "networking": { "address": "10.0.0.1", "inbound": inbounds } });
    row(dataplane::KIND, name, &[("kuma.io/workload", workload)], spec)
}

/// Says that a proxy is connected.
pub(super) fn online(name: &str) -> Resource {
    insight(name, json!({ "connectTime": "2026-01-01T00:00:00Z" }))
}

pub(super) fn offline(name: &str) -> Resource {
    let time = "2026-01-01T00:00:00Z";
    insight(name, json!({ "connectTime": time, "disconnectTime": time }))
}

fn insight(name: &str, subscription: Value) -> Resource {
    let spec = json!({ "subscriptions": [subscription] });
    row(dataplane_insight::KIND, name, &[], spec)
}

/// A service of another zone, as it arrives.
pub(super) fn copy(name: &str, display: &str, zone: &str) -> Resource {
    let labels = [
        ("kuma.io/display-name", display),
        ("kuma.io/env", "universal"),
        ("kuma.io/origin", "global"),
        ("kuma.io/zone", zone),
    ];
    row(
        mesh_service::KIND,
        name,
        &labels,
        json!({ "state": "Available", "ports": [{ "port": 80 }] }),
    )
}

pub(super) fn generator(name: &str, origin: &str, selected: Value, template: &str) -> Resource {
    let spec =
        json!({ "selector": { "meshService": { "matchLabels": selected } }, "template": template });
    row(kinds::hostname_generator::KIND, name, &[("kuma.io/origin", origin)], spec)
}

/// The store of a zone, and the services kept in it.
pub(super) struct World {
    pub(super) kinds: Kinds,
    pub(super) rows: BTreeMap<(KindId, ResourceKey), Arc<Resource>>,
    pub(super) services: Services,
    pub(super) now: Timestamp,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(settings())
    }

    pub(super) fn with(settings: Settings) -> Self {
        let kinds = kinds();
        let services = Services::new(Ids::of(&kinds).unwrap(), settings, start());
        Self { kinds, rows: BTreeMap::new(), services, now: start() }
    }

    pub(super) fn id(&self, kind: Kind) -> KindId {
        self.kinds.id_of(kind.name).unwrap()
    }

    pub(super) fn later(&mut self, by: SignedDuration) {
        self.now += by;
    }

    /// Writes a row; the kind is found by what can read it.
    fn write(&mut self, kind: Kind, row: Resource) -> Update {
        let id = self.id(kind);
        let key = row.head.key.clone();
        let before = self.rows.get(&(id, key.clone())).cloned();
        let created = before.as_ref().map_or(self.now, |row| row.head.times.created);
        let row = Arc::new(row.written(Times { created, modified: self.now }));
        self.rows.insert((id, key.clone()), row.clone());
        Update { kind: id, key, before: before.map(|row| row.head.clone()), now: Some(row) }
    }

    fn erase(&mut self, id: KindId, key: &ResourceKey) -> Update {
        let before = self.rows.remove(&(id, key.clone())).map(|row| row.head.clone());
        Update { kind: id, key: key.clone(), before, now: None }
    }

    /// Writes rows together and lets services follow. What was written comes back once more, and
    /// nothing must follow from it.
    pub(super) fn put(&mut self, rows: impl IntoIterator<Item = (Kind, Resource)>) -> usize {
        let updates = rows.into_iter().map(|(kind, row)| self.write(kind, row)).collect();
        self.follow(updates)
    }

    pub(super) fn delete(&mut self, kind: Kind, name: &str) -> usize {
        let update = self.erase(self.id(kind), &key(kind, name));
        self.follow(vec![update])
    }

    /// Lets time do what is due.
    pub(super) fn wait(&mut self, by: SignedDuration) -> usize {
        self.later(by);
        self.follow(Vec::new())
    }

    pub(super) fn follow(&mut self, updates: Vec<Update>) -> usize {
        let items = self.services.apply(updates, self.now);
        let written = items.len();
        let back = items.into_iter().map(|item| self.commit(item)).collect();
        let again = self.services.apply(back, self.now);
        assert!(again.is_empty(), "what was written leads to more: {again:?}");
        written
    }

    fn commit(&mut self, item: Item) -> Update {
        let kind = *self.kinds.iter().find(|(id, _)| *id == item.kind).unwrap().1;
        let id = item.kind;
        let check = |there: Option<&Arc<Resource>>| match item.expected {
            Expected::Anything => panic!("an unconditional write"),
            Expected::Nothing => assert!(there.is_none()),
            Expected::Version(version) => assert_eq!(there.unwrap().head.version, version),
        };
        match item.edit {
            Edit::Put(row) => {
                check(self.rows.get(&(id, row.head.key.clone())));
                self.write(kind, Arc::unwrap_or_clone(row))
            }
            Edit::Delete(key) => {
                check(self.rows.get(&(id, key.clone())));
                self.erase(id, &key)
            }
        }
    }

    pub(super) fn row(&self, kind: Kind, name: &str) -> Option<&Resource> {
        self.rows.get(&(self.id(kind), key(kind, name))).map(|row| &**row)
    }

    /// Spec and status of a service.
    pub(super) fn service(&self, name: &str) -> Option<(Value, Value)> {
        self.row(mesh_service::KIND, name).map(json_of)
    }

    pub(super) fn spec(&self, name: &str) -> Value {
        self.service(name).unwrap().0
    }

    pub(super) fn status(&self, name: &str) -> Value {
        self.service(name).unwrap().1
    }

    pub(super) fn vip(&self, name: &str) -> String {
        self.status(name)["vips"][0]["ip"].as_str().unwrap_or_default().into()
    }

    pub(super) fn workload(&self, name: &str) -> Option<Value> {
        self.row(workload::KIND, name).map(|row| json_of(row).1["dataplaneProxies"].clone())
    }

    pub(super) fn labels(&self, kind: Kind, name: &str) -> Vec<String> {
        let row = self.row(kind, name).unwrap();
        row.head.labels.iter().map(|(key, value)| format!("{key}={value}")).collect()
    }
}

pub(super) fn json_of(row: &Resource) -> (Value, Value) {
    let status = if row.status.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&row.status).unwrap()
    };
    (serde_json::from_slice(&row.spec).unwrap(), status)
}
