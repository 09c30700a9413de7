//! A zone `west` with one mesh `shop`, and short ways to fill it.

use super::super::{
    Certificates, Meshes, NotServed, ProxyKey, Traits,
    run::{Feed, inputs},
    written,
};
use crate::{
    generate::{Credentials, SpireAgent, Trust},
    identities::{Issued, Proof},
};
use daemon::Clock;
use delta::Item;
use identity::{Svid, TrustDomain};
use jiff::Timestamp;
use kinds::{
    config, dataplane, mesh, mesh_passthrough, mesh_service, mesh_timeout, mesh_traffic_permission,
    mesh_zone_address,
};
use parking_lot::Mutex;
use resource::{Kind, Kri, Labels, MeshName, Peer, Resource, ResourceKey, Scope, Times, ZoneName};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use store::{
    Kinds,
    view::{Edit, KindSet, Loaded, Reader, Writer},
};
use xds::{Changes, Source, Type};

pub(super) fn kinds() -> Kinds {
    Kinds { list: kinds::all().collect(), peer: Peer::Global }
}

pub(super) fn shop() -> MeshName {
    MeshName::new("shop").unwrap()
}

pub(super) fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

pub(super) fn identity() -> Kri {
    "kri_mid_shop___identity_".parse().unwrap()
}

/// Of a proxy that binds what it calls itself.
pub(super) const BINDS: Traits = Traits { binds_vips: true, has_agent: false };

pub(super) fn credentials() -> Credentials {
    Credentials::Zone(identity().into())
}

pub(super) fn issued(dataplane: &str, serial: u32) -> Issued {
    let workload = dataplane.rsplit_once('-').map_or(dataplane, |(workload, _)| workload);
    let svid = Svid {
        id: format!("spiffe://shop.west.mesh.local/workload/{workload}").parse().unwrap(),
        chain_pem: format!("chain of {dataplane}, {serial}"),
        key_pem: format!("key of {dataplane}, {serial}").into(),
        not_before: start(),
        not_after: start(),
    };
    Issued { identity: identity().into(), proof: Proof::Svid(svid) }
}

/// As [`issued`], but a SPIRE agent has it, for which Envoy waits so many seconds.
pub(super) fn by_agent(dataplane: &str, seconds: u64) -> Issued {
    let issued = issued(dataplane, 1);
    let id = issued.svid().unwrap().id.clone();
    let agent = SpireAgent { id, timeout: Duration::from_secs(seconds) };
    Issued { proof: Proof::Agent(agent), ..issued }
}

pub(super) fn trust(zones: &[&str]) -> Trust {
    let domain = |zone: &&str| {
        let domain = TrustDomain::new(&format!("shop.{zone}.mesh.local")).unwrap();
        (domain, [format!("CA of {zone}")].into())
    };
    Trust(zones.iter().map(domain).collect())
}

/// Certificates as the test says.
#[derive(Default)]
pub(super) struct Certified {
    pub(super) issued: Mutex<BTreeMap<String, Issued>>,
    pub(super) trust: Mutex<Trust>,
    pub(super) forgotten: Mutex<Vec<String>>,
}

impl Certificates for Certified {
    fn of(&self, proxy: &ResourceKey, _: &Labels, _: Traits) -> Option<Arc<Issued>> {
        self.issued.lock().get(&*proxy.name).cloned().map(Arc::new)
    }

    fn trust(&self, _mesh: &MeshName) -> Arc<Trust> {
        Arc::new(self.trust.lock().clone())
    }

    fn forget(&self, proxy: &ResourceKey) {
        self.forgotten.lock().push(proxy.name.to_string());
    }
}

/// A resource that is to be put.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) kind: Kind,
    pub(super) name: String,
    labels: BTreeMap<String, String>,
    pub(super) spec: Value,
    status: Value,
    created: i64,
}

pub(super) fn row(kind: Kind, name: &str, spec: Value) -> Row {
    let labels = BTreeMap::new();
    Row { kind, name: name.into(), labels, spec, status: Value::Null, created: 0 }
}

impl Row {
    pub(super) fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    pub(super) fn with(mut self, pointer: &str, value: Value) -> Self {
        *self.spec.pointer_mut(pointer).unwrap() = value;
        self
    }

    /// A Dataplane at another address.
    pub(super) fn at(mut self, address: &str) -> Self {
        self.spec["networking"]["address"] = address.into();
        self
    }

    /// Seconds after the start.
    pub(super) fn created(mut self, seconds: i64) -> Self {
        self.created = seconds;
        self
    }

    pub(super) fn vips(mut self, ips: &[&str]) -> Self {
        let vips: Vec<Value> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
        self.status = json!({ "vips": vips });
        self
    }

    pub(super) fn key(&self) -> ResourceKey {
        match self.kind.scope {
            Scope::Global => ResourceKey::global(&self.name),
            Scope::Mesh => ResourceKey::in_mesh(&shop(), &self.name),
        }
    }

    pub(super) fn resource(&self) -> Resource {
        let spec = self.kind.encode(&self.kind.from_json(self.spec.clone()).unwrap()).unwrap();
        let status = Some(&self.status).filter(|status| !status.is_null());
        let status = status.map(|it| serde_json::to_vec(it).unwrap()).unwrap_or_default();
        let labels: Labels = self.labels.iter().map(|(key, value)| (&**key, &**value)).collect();
        let created = Timestamp::from_second(start().as_second() + self.created).unwrap();
        let times = Times { created, modified: created };
        let resource =
            self.kind.resource(self.key(), labels, spec, status.into(), Peer::Global).unwrap();
        resource.written(times)
    }
}

/// A proxy of `workload`, called `workload-number`.
pub(super) fn sidecar(workload: &str, number: u8, inbounds: Value) -> Row {
    let spec = json!({
        "networking": { "address": format!("10.0.0.{number}"), "inbound": inbounds },
    });
    row(dataplane::KIND, &format!("{workload}-{number}"), spec)
        .label("kuma.io/workload", workload)
        .label("kuma.io/origin", "zone")
        .label("kuma.io/zone", "west")
}

pub(super) fn http(port: u16) -> Value {
    json!({ "name": "http", "port": port, "protocol": "http", "servicePort": port + 10_000 })
}

pub(super) fn tcp(port: u16) -> Value {
    json!({ "name": "tcp", "port": port, "protocol": "tcp", "servicePort": port + 10_000 })
}

pub(super) fn ingress(number: u8) -> Row {
    let address = format!("10.0.1.{number}");
    let listener =
        json!({ "type": "ZoneIngress", "name": "in", "address": address, "port": 10_001 });
    let spec = json!({ "networking": { "address": address, "listeners": [listener] } });
    row(dataplane::KIND, &format!("ingress-{number}"), spec).label("kuma.io/workload", "ingress")
}

/// A service of a workload of this zone with the port `http`, 80.
pub(super) fn local(workload: &str) -> Row {
    let port = json!({ "name": "http", "port": 80, "targetPort": "http", "appProtocol": "http" });
    let labels = json!({ "kuma.io/workload": workload });
    let id = format!("spiffe://shop.west.mesh.local/workload/{workload}");
    let spec = json!({
        "selector": { "dataplaneLabels": { "matchLabels": labels } },
        "ports": [port],
        "identities": [{ "type": "SpiffeID", "value": id }],
    });
    row(mesh_service::KIND, workload, spec)
        .label("kuma.io/display-name", workload)
        .label("kuma.io/origin", "zone")
        .label("kuma.io/zone", "west")
}

/// A service of another zone, as it arrives, with the port `http`, 80.
pub(super) fn remote(zone: &str, name: &str) -> Row {
    let port = json!({ "name": "http", "port": 80, "appProtocol": "http" });
    let id = format!("spiffe://shop.{zone}.mesh.local/workload/{name}");
    let spec = json!({
        "ports": [port],
        "identities": [{ "type": "SpiffeID", "value": id }],
    });
    row(mesh_service::KIND, &format!("{name}-of-{zone}"), spec)
        .label("kuma.io/display-name", name)
        .label("kuma.io/origin", "global")
        .label("kuma.io/zone", zone)
}

pub(super) fn zone_address(zone: &str, name: &str, address: &str, port: u16) -> Row {
    row(mesh_zone_address::KIND, name, json!({ "address": address, "port": port }))
        .label("kuma.io/origin", "global")
        .label("kuma.io/zone", zone)
}

/// A policy about how long requests may take.
pub(super) fn timeout(name: &str, to: Value, request: &str) -> Row {
    let conf = json!({ "http": { "requestTimeout": request } });
    let spec = json!({
        "targetRef": { "kind": "Mesh" },
        "to": [{ "targetRef": to, "default": conf }],
    });
    row(mesh_timeout::KIND.kind, name, spec)
        .label("kuma.io/display-name", name)
        .label("kuma.io/origin", "global")
}

pub(super) fn to_service(name: &str) -> Value {
    json!({ "kind": "MeshService", "labels": { "kuma.io/display-name": name } })
}

/// Lets callers with these identities in.
pub(super) fn permission(name: &str, allow: &[&str]) -> Row {
    let exact = |id: &&str| json!({ "spiffeID": { "type": "Exact", "value": id } });
    let allow: Vec<Value> = allow.iter().map(exact).collect();
    let spec = json!({ "rules": [{ "default": { "allow": allow } }] });
    row(mesh_traffic_permission::KIND.kind, name, spec)
        .label("kuma.io/display-name", name)
        .label("kuma.io/origin", "global")
}

/// What applications reach outside the mesh.
pub(super) fn passthrough(name: &str, conf: Value) -> Row {
    let spec = json!({ "targetRef": { "kind": "Mesh" }, "default": conf });
    row(mesh_passthrough::KIND.kind, name, spec)
        .label("kuma.io/display-name", name)
        .label("kuma.io/origin", "global")
}

/// The same proxy, to whom the kernel hands connections.
pub(super) fn redirected(mut sidecar: Row) -> Row {
    sidecar.spec["networking"]["transparentProxying"] =
        json!({ "redirectPortOutbound": 15001, "redirectPortInbound": 15006 });
    sidecar
}

/// The same, and it calls the replicas of these services at their own addresses.
pub(super) fn directly(sidecar: Row, services: &[&str]) -> Row {
    let mut row = redirected(sidecar);
    row.spec["networking"]["transparentProxying"]["directAccessServices"] = json!(services);
    row
}

/// The control plane of `west`, without its tasks.
pub(super) struct Zone {
    pub(super) meshes: Meshes,
    pub(super) certified: Arc<Certified>,
    pub(super) time: Arc<Mutex<Timestamp>>,
    feed: Feed,
    writer: Writer,
    reader: Reader,
}

impl Zone {
    pub(super) fn empty() -> Self {
        let (writer, reader) = store::view::view(kinds().iter().map(|_| Loaded::default()), 64);
        Self::on(writer, reader, Arc::new(Mutex::new(start())))
    }

    fn on(writer: Writer, reader: Reader, time: Arc<Mutex<Timestamp>>) -> Self {
        let certified = Arc::new(Certified::default());
        *certified.trust.lock() = trust(&["west"]);
        let config = kinds().id_of(config::KIND.name).unwrap();
        let shown = time.clone();
        let meshes = Meshes::new(
            ZoneName::new("west").unwrap(),
            certified.clone(),
            Clock::of(move || *shown.lock()),
            reader.clone(),
            config,
        );
        let mut feed = Feed::new(meshes.clone(), inputs(&kinds()).unwrap());
        feed.everything();
        Self { meshes, certified, time, feed, writer, reader }
    }

    /// A zone whose view is complete, with a mesh and these.
    pub(super) fn of(rows: &[Row]) -> Self {
        let mut zone = Self::empty();
        zone.put(&row(mesh::KIND, "shop", json!({})));
        rows.iter().for_each(|row| zone.put(row));
        zone.meshes.open();
        zone
    }

    /// The process starts again on the same store.
    pub(super) fn restarted(self) -> Self {
        let Self { writer, reader, time, .. } = self;
        let zone = Self::on(writer, reader, time);
        zone.meshes.open();
        zone
    }

    pub(super) fn batch(&mut self, edits: Vec<(Kind, Edit)>) {
        self.batch_unwritten(edits);
        self.settle();
    }

    fn batch_unwritten(&mut self, edits: Vec<(Kind, Edit)>) {
        let id = |kind: &Kind| kinds().id_of(kind.name).unwrap();
        let touched: KindSet = edits.iter().map(|(kind, _)| id(kind)).collect();
        self.writer.apply(edits.into_iter().map(|(kind, edit)| (id(&kind), edit)));
        self.feed.look(touched);
    }

    /// What follows for TCP inbounds is not written down yet.
    pub(super) fn put_unwritten(&mut self, row: &Row) {
        self.batch_unwritten(vec![(row.kind, Edit::Put(Arc::new(row.resource())))]);
    }

    /// What the task does beside the tables: asks for certificates, writes records.
    pub(super) fn settle(&mut self) {
        self.meshes.identify();
        self.write();
    }

    fn write(&mut self) {
        for (key, record) in self.meshes.unwritten() {
            let (config, zone) = (self.meshes.config(), self.meshes.zone());
            let item = written::item(&self.reader, config, zone, &key, &record).unwrap();
            let Edit::Put(row) = item.edit else { panic!("a record is put") };
            let now = *self.time.lock();
            let row = Arc::unwrap_or_clone(row).written(Times { created: now, modified: now });
            self.writer.apply([(item.kind, Edit::Put(Arc::new(row)))]);
            self.meshes.written(&key, record);
        }
        for item in self.feed.outlived() {
            self.writer.apply([(item.kind, item.edit)]);
        }
    }

    /// How many proxies something is written down about.
    pub(super) fn written(&self) -> usize {
        written::all(&self.reader, self.meshes.config()).len()
    }

    pub(super) fn put(&mut self, row: &Row) {
        self.batch(vec![(row.kind, Edit::Put(Arc::new(row.resource())))]);
    }

    pub(super) fn delete(&mut self, row: &Row) {
        self.batch(vec![(row.kind, Edit::Delete(row.key()))]);
    }

    /// A proxy with a certificate connects.
    pub(super) fn connect(&mut self, name: &str) -> Stream {
        self.certified.issued.lock().insert(name.into(), issued(name, 1));
        self.connect_as(name, BINDS).unwrap()
    }

    pub(super) fn connect_as(&mut self, name: &str, traits: Traits) -> Result<Stream, NotServed> {
        let key = ProxyKey { mesh: shop(), name: name.into() };
        let (source, changes) = self.meshes.connect(&key, traits)?;
        self.settle();
        let mut stream = Stream { source, changes };
        stream.marks();
        Ok(stream)
    }

    pub(super) fn made(&self) -> usize {
        self.meshes.made(&shop())
    }

    pub(super) fn problems(&self) -> Vec<(String, String)> {
        let problems = self.meshes.problems(&shop()).into_iter();
        problems.map(|(name, text)| (name.to_string(), text)).collect()
    }
}

/// What a connected proxy gets, and hears.
pub(super) struct Stream {
    pub(super) source: Arc<dyn Source>,
    pub(super) changes: Changes,
}

impl Stream {
    pub(super) fn get(&self, kind: Type, name: &str) -> Option<Item> {
        self.source.get(kind, name)
    }

    pub(super) fn names(&self, kind: Type) -> Vec<String> {
        self.source.names(kind).iter().map(ToString::to_string).collect()
    }

    /// What changed since the last call.
    pub(super) fn marks(&mut self) -> BTreeSet<(Type, String)> {
        let marks = self.changes.take().into_iter();
        let all = marks.flat_map(|(kind, names)| names.into_iter().map(move |name| (kind, name)));
        all.map(|(kind, name)| (kind, name.to_string())).collect()
    }

    /// Everything there is.
    pub(super) fn everything(&self) -> BTreeMap<(Type, String), Item> {
        let all = Type::ALL
            .into_iter()
            .flat_map(|kind| self.source.names(kind).into_iter().map(move |name| (kind, name)));
        all.map(|(kind, name)| {
            let item = self.source.get(kind, &name).expect("what is named is there");
            ((kind, name.to_string()), item)
        })
        .collect()
    }
}
