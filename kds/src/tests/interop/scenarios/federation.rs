//! A global and zones, each of them ours or a plain one, behind one face.

use super::super::{
    plain::{PlainGlobal, PlainZone, Resources, name_of, resource},
    world::{
        CONFIG, Global, MESH, Plane, SECRET, SERVICE, TIMEOUT, Zone, hashed, timeout_of, until,
    },
};
use prost::Message as _;
use proto::kuma::{
    mesh::v1alpha1::KumaResource,
    system::v1alpha1::{Config, Secret},
};
use resource::{Kind, Labels, Peer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::{io::DuplexStream, sync::mpsc, task::JoinSet};

/// Who is with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pairing {
    Ours,
    PlainZones,
    PlainGlobal,
}

enum AnyGlobal {
    Ours(Global),
    Plain { global: PlainGlobal, connect: mpsc::Sender<DuplexStream> },
}

enum AnyZone {
    Ours(Zone),
    Plain(PlainZone),
}

/// See the module.
pub(super) struct Federation {
    pairing: Pairing,
    tasks: JoinSet<()>,
    global: AnyGlobal,
    zones: BTreeMap<&'static str, AnyZone>,
    /// The stores of zones of ours that are away.
    away: BTreeMap<&'static str, Plane>,
}

/// What no control plane takes.
pub(super) const BAD: &str = "-13s";

const OF_GLOBAL: (&str, &str) = ("kuma.io/origin", "global");

fn judge(kind: &str, resource: &KumaResource) -> Result<(), String> {
    let spec = &resource.spec.as_ref().unwrap().value;
    let bad = kind == "MeshTimeout" && String::from_utf8_lossy(spec).contains(BAD);
    if bad { Err("user error\nunlucky".into()) } else { Ok(()) }
}

/// A resource of global as it is in transit.
fn of_global(kind: Kind, name: &str, spec: (&str, &[u8])) -> KumaResource {
    let labels = [("kuma.io/display-name", name), OF_GLOBAL];
    match kind.name {
        "MeshTimeout" => resource(&hashed(name, None), "default", &labels, spec),
        "Secret" => resource(name, "default", &[OF_GLOBAL], spec),
        _ => resource(name, "", &[OF_GLOBAL], spec),
    }
}

/// The labels of a service of `zone`, from whomever it is got.
pub(super) fn labels_of(name: &str, zone: &str, origin: &str) -> Labels {
    Labels::from_iter([
        ("kuma.io/display-name", name),
        ("kuma.io/env", "universal"),
        ("kuma.io/mesh", "default"),
        ("kuma.io/origin", origin),
        ("kuma.io/zone", zone),
    ])
}

fn service(port: u16) -> Value {
    json!({ "state": "Available", "ports": [{ "port": port }] })
}

fn service_of(name: &str, zone: &str, origin: &str, port: u16) -> KumaResource {
    let labels = labels_of(name, zone, origin);
    let labels: Vec<(&str, &str)> = labels.iter().collect();
    let spec = service(port).to_string();
    resource(&hashed(name, Some(zone)), "default", &labels, ("", spec.as_bytes()))
}

fn insert(resources: &mut Resources, kind: Kind, one: KumaResource) {
    resources.entry(kind.name.into()).or_default().insert(name_of(&one), one);
}

/// Names without their mesh, and what is under them.
fn held(resources: &Resources, kind: Kind) -> BTreeMap<String, KumaResource> {
    let all = resources.get(kind.name).into_iter().flatten();
    all.map(|(name, one)| (name.rsplit_once('.').unwrap().0.to_owned(), one.clone())).collect()
}

fn specs(resources: &Resources, kind: Kind) -> BTreeMap<String, Value> {
    let spec = |one: KumaResource| kind.to_json(&one.spec.unwrap().value).unwrap();
    held(resources, kind).into_iter().map(|(name, one)| (name, spec(one))).collect()
}

fn port_of(spec: &Value) -> u64 {
    spec["ports"][0]["port"].as_u64().unwrap()
}

impl Federation {
    pub(super) async fn of(pairing: Pairing) -> Self {
        let mut tasks = JoinSet::new();
        let global = if pairing == Pairing::PlainGlobal {
            let mut offers = Resources::new();
            let id = Config { config: "c1".into() }.encode_to_vec();
            let id = of_global(CONFIG, "kuma-cluster-id", ("kuma.system.v1alpha1.Config", &id));
            insert(&mut offers, CONFIG, id);
            let mesh = of_global(MESH, "default", ("kuma.mesh.v1alpha1.Mesh", b""));
            insert(&mut offers, MESH, mesh);
            let global = PlainGlobal::new(offers, judge);
            let (connect, incoming) = mpsc::channel(8);
            tasks.spawn(global.clone().serve(incoming));
            AnyGlobal::Plain { global, connect }
        } else {
            AnyGlobal::Ours(Global::start(&mut tasks).await)
        };
        let (zones, away) = Default::default();
        Self { pairing, tasks, global, zones, away }
    }

    /// A zone connects, for the first time or again.
    pub(super) async fn join(&mut self, name: &'static str) {
        let plain = self.pairing == Pairing::PlainZones;
        let zone = match &self.global {
            AnyGlobal::Ours(global) if plain => {
                let none = Resources::new();
                AnyZone::Plain(PlainZone::connect(name, global.channel().await, none, judge))
            }
            AnyGlobal::Ours(Global { connect, .. }) | AnyGlobal::Plain { connect, .. } => {
                let plane = self.away.remove(name);
                let plane = plane.unwrap_or_else(|| Plane::new(&mut self.tasks, Peer::Global));
                AnyZone::Ours(Zone::run(&mut self.tasks, name, connect, plane))
            }
        };
        self.zones.insert(name, zone);
    }

    /// It is disconnected. A zone of ours keeps what it has.
    pub(super) fn leave(&mut self, name: &'static str) {
        if let Some(AnyZone::Ours(zone)) = self.zones.remove(name) {
            zone.stop.cancel();
            self.away.insert(name, zone.plane);
        }
    }

    /// Global has a timeout.
    pub(super) async fn offer(&self, name: &str, idle: &str) {
        self.offer_spec(name, timeout_of(idle)).await;
    }

    pub(super) async fn offer_spec(&self, name: &str, spec: Value) {
        match &self.global {
            AnyGlobal::Ours(global) => global.plane.put_unchecked(TIMEOUT, name, spec).await,
            AnyGlobal::Plain { global, .. } => {
                let one = of_global(TIMEOUT, name, ("", spec.to_string().as_bytes()));
                global.offers.send_modify(|all| insert(all, TIMEOUT, one));
            }
        }
    }

    /// Global has a timeout no more.
    pub(super) async fn withdraw(&self, name: &str) {
        match &self.global {
            AnyGlobal::Ours(global) => global.plane.delete(TIMEOUT, name).await,
            AnyGlobal::Plain { global, .. } => global.offers.send_modify(|all| {
                let name = format!("{}.default", hashed(name, None));
                all.get_mut(TIMEOUT.name).unwrap().remove(&name);
            }),
        }
    }

    /// Global has a secret of so many bytes.
    pub(super) async fn offer_secret(&self, name: &str, size: usize) {
        match &self.global {
            AnyGlobal::Ours(global) => {
                // Three zero bytes each.
                let spec = json!({ "data": "AAAA".repeat(size / 3) });
                global.plane.put(SECRET, name, &[], spec).await;
            }
            AnyGlobal::Plain { global, .. } => {
                let data = Secret { data: Some(vec![0; size]) }.encode_to_vec();
                let one = of_global(SECRET, name, ("kuma.system.v1alpha1.Secret", &data));
                global.offers.send_modify(|all| insert(all, SECRET, one));
            }
        }
    }

    /// A zone has a service, or not any more.
    pub(super) async fn serve(&self, zone: &'static str, name: &str, port: Option<u16>) {
        match (&self.zones[zone], port) {
            (AnyZone::Ours(ours), Some(port)) => {
                let labels = labels_of(name, zone, "zone");
                let labels: Vec<(&str, &str)> = labels.iter().collect();
                ours.plane.put(SERVICE, name, &labels, service(port)).await;
            }
            (AnyZone::Ours(ours), None) => ours.plane.delete(SERVICE, name).await,
            (AnyZone::Plain(plain), port) => plain.offers.send_modify(|all| {
                let key = format!("{}.default", hashed(name, Some(zone)));
                match port {
                    Some(port) => insert(all, SERVICE, service_of(name, zone, "zone", port)),
                    None => drop(all.get_mut(SERVICE.name).unwrap().remove(&key)),
                }
            }),
        }
    }

    /// Global relays a service of a zone that this test does without: a plain one knows one zone.
    pub(super) async fn relay(&mut self, zone: &'static str, name: &str, port: Option<u16>) {
        if let AnyGlobal::Plain { global, .. } = &self.global {
            global.offers.send_modify(|all| match port {
                Some(port) => insert(all, SERVICE, service_of(name, zone, "global", port)),
                None => drop(all.remove(SERVICE.name)),
            });
            return;
        }
        if !self.zones.contains_key(zone) {
            self.join(zone).await;
        }
        self.serve(zone, name, port).await;
    }

    /// Waits until a zone has exactly these timeouts of global.
    pub(super) async fn until_has(&self, zone: &str, timeouts: &[(&str, &str)]) {
        let name = |name: &str| hashed(name, None);
        let all = timeouts.iter().map(|(n, idle)| (name(n), timeout_of(idle)));
        let all: BTreeMap<String, Value> = all.collect();
        match &self.zones[zone] {
            AnyZone::Ours(ours) => ours.plane.until(TIMEOUT, |has| *has == all).await,
            AnyZone::Plain(plain) => until(&plain.held, |has| specs(has, TIMEOUT) == all).await,
        }
    }

    /// Waits until a zone has so many of a kind.
    pub(super) async fn until_has_all(&self, zone: &str, kind: Kind, count: usize) {
        match &self.zones[zone] {
            AnyZone::Ours(ours) => ours.plane.until(kind, |has| has.len() == count).await,
            AnyZone::Plain(plain) => until(&plain.held, |has| held(has, kind).len() == count).await,
        }
    }

    /// The names of a kind in a zone.
    pub(super) fn names(&self, zone: &str, kind: Kind) -> Vec<String> {
        match &self.zones[zone] {
            AnyZone::Ours(ours) => ours.plane.names(kind),
            AnyZone::Plain(plain) => held(&plain.held.borrow(), kind).into_keys().collect(),
        }
    }

    /// The stored spec of a timeout of global in a zone.
    pub(super) fn spec(&self, zone: &str, name: &str) -> Value {
        let name = hashed(name, None);
        let spec = match &self.zones[zone] {
            AnyZone::Ours(ours) => ours.plane.spec(TIMEOUT, &name).to_vec(),
            AnyZone::Plain(plain) => {
                held(&plain.held.borrow(), TIMEOUT)[&name].spec.clone().unwrap().value
            }
        };
        serde_json::from_slice(&spec).unwrap()
    }

    /// Waits until global has exactly these services of `zone`, and returns their labels.
    pub(super) async fn until_global_has(
        &self,
        zone: &str,
        services: &[(&str, u64)],
    ) -> Vec<Labels> {
        let all = services.iter().map(|(name, port)| (hashed(name, Some(zone)), *port));
        let all: BTreeMap<String, u64> = all.collect();
        let is = |has: &BTreeMap<String, Value>| {
            has.iter().map(|(name, spec)| (name.clone(), port_of(spec))).eq(all.clone())
        };
        match &self.global {
            AnyGlobal::Ours(global) => {
                global.plane.until(SERVICE, is).await;
                all.keys().map(|name| global.plane.labels(SERVICE, name)).collect()
            }
            AnyGlobal::Plain { global, .. } => {
                until(&global.held, |has| is(&specs(has, SERVICE))).await;
                labels(&global.held.borrow(), all.keys())
            }
        }
    }

    /// Waits until a zone has a service of another one at this port, or not any more.
    pub(super) async fn until_relayed(
        &self,
        to: &str,
        (of, name, port): (&str, &str, Option<u64>),
    ) -> Option<Labels> {
        let name = hashed(name, Some(of));
        match &self.zones[to] {
            AnyZone::Ours(ours) => {
                ours.plane.until(SERVICE, |has| has.get(&name).map(port_of) == port).await;
                port.map(|_| ours.plane.labels(SERVICE, &name))
            }
            AnyZone::Plain(plain) => {
                let there = |has: &Resources| specs(has, SERVICE).get(&name).map(port_of) == port;
                until(&plain.held, there).await;
                port.and_then(|_| labels(&plain.held.borrow(), [&name]).pop())
            }
        }
    }

    /// Waits until global was told that something was refused, and says what it was told.
    pub(super) async fn until_refused(&self) -> String {
        match &self.global {
            AnyGlobal::Ours(global) => {
                until(&global.wrong.refused, |all| !all.is_empty()).await;
                global.wrong.refused.borrow()[0].clone()
            }
            AnyGlobal::Plain { global, .. } => {
                until(&global.nacks, |all| !all.is_empty()).await;
                global.nacks.borrow()[0].1.clone()
            }
        }
    }

    /// The kinds of which global could not send the state.
    pub(super) fn too_large(&self) -> Vec<&'static str> {
        match &self.global {
            AnyGlobal::Ours(global) => global.wrong.too_large.borrow().clone(),
            AnyGlobal::Plain { .. } => Vec::new(),
        }
    }
}

fn labels<'a>(resources: &Resources, names: impl IntoIterator<Item = &'a String>) -> Vec<Labels> {
    let held = held(resources, SERVICE);
    let of = |name: &String| held[name].meta.clone().unwrap().labels;
    let labels = names.into_iter().map(of);
    labels.map(|all| all.iter().map(|(key, value)| (&**key, &**value)).collect()).collect()
}
