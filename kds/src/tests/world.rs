//! A global and its zones in one process.

use crate::{
    admin::{Answerer, NoProxies, Registry},
    dialect::{Introduction, own_features},
    global::{Admission, Admitted, Presented, Refused, Server, Settings},
    memory::Facts,
    metadata::{AUTHORIZATION, CLIENT_ID},
    observe::{Event, Observer, StreamId},
    quota::Quotas,
    testkinds::{CONFIG, MESH, kinds, zone},
    transit::hashed_name,
    zone::{Client, Handle, Pipe, Settings as ZoneSettings, State},
};
use bytes::Bytes;
use daemon::Clock;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use jiff::Timestamp;
use parking_lot::Mutex;
use resource::{
    Audience, Features, Kind, Labels, MeshName, Peer, Resource, ResourceKey, Scope, ZoneName, label,
};
use std::{collections::BTreeMap, io, sync::Arc, time::Duration};
use store::{
    Backend as _, Expected, Item, Kinds, Local, Memory, open,
    view::{Edit, KindId, KindSet, Revision},
};
use tokio::{
    io::DuplexStream,
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// How long a test waits in virtual time before it calls something impossible.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

pub(super) fn clock() -> Clock {
    Clock::since(Timestamp::UNIX_EPOCH)
}

/// The store of a control plane.
#[derive(Clone)]
pub(super) struct Plane {
    pub(super) store: Local,
    pub(super) kinds: Arc<Kinds>,
    zone: Option<ZoneName>,
}

pub(super) fn key(kind: Kind, name: &str) -> ResourceKey {
    // `mesh/name`, or the mesh `default`.
    let (mesh, name) = name.split_once('/').unwrap_or(("default", name));
    let mesh = (kind.scope == Scope::Mesh).then(|| MeshName::new(mesh).unwrap());
    ResourceKey { mesh, name: name.into() }
}

/// The name elsewhere of what is called `name` in the zone `zone`, or on global.
pub(super) fn away(kind: Kind, name: &str, zone: Option<&str>) -> String {
    let key = key(kind, name);
    let hashed = hashed_name(key.mesh.as_ref(), &key.name, [zone, None]);
    ResourceKey { name: hashed.into(), ..key }.to_string()
}

impl Plane {
    pub(super) fn new(tasks: &mut JoinSet<()>, zone: Option<&str>, epoch: u64) -> Self {
        let peer = if zone.is_some() { Peer::Global } else { Peer::Zone };
        let (store, writer) = open(Memory::new(epoch), kinds(peer), clock()).unwrap();
        tasks.spawn(async { writer.run().await.unwrap() });
        Self { store, kinds: Arc::new(kinds(peer)), zone: zone.map(crate::testkinds::zone) }
    }

    /// The same, whose writer is stuck while what is returned says so.
    pub(super) fn gated(
        tasks: &mut JoinSet<()>,
        zone: Option<&str>,
        epoch: u64,
    ) -> (Self, watch::Sender<bool>) {
        let peer = if zone.is_some() { Peer::Global } else { Peer::Zone };
        let (store, writer) = open(Memory::new(epoch), kinds(peer), clock()).unwrap();
        let (stuck, gate) = watch::channel(false);
        tasks.spawn(while_open(writer.run().map(Result::unwrap), gate));
        let plane =
            Self { store, kinds: Arc::new(kinds(peer)), zone: zone.map(crate::testkinds::zone) };
        (plane, stuck)
    }

    pub(super) fn id(&self, kind: Kind) -> KindId {
        self.kinds.id_of(kind.name).unwrap()
    }

    async fn commit(&self, kind: Kind, edit: Edit) {
        let item = Item { kind: self.id(kind), expected: Expected::Anything, edit };
        self.store.commit(vec![item]).await.unwrap();
    }

    pub(super) async fn write(&self, kind: Kind, name: &str, labels: Labels, text: [&str; 2]) {
        let [spec, status] = text.map(|text| Bytes::from(text.to_owned()));
        let row = kind.resource(key(kind, name), labels, spec, status, self.kinds.peer).unwrap();
        self.commit(kind, Edit::Put(Arc::new(row))).await;
    }

    /// As a user writes it here.
    pub(super) async fn put(&self, kind: Kind, name: &str, spec: &str) {
        self.write(kind, name, self.labels(), [spec, ""]).await;
    }

    /// As a program of another version might have written it.
    pub(super) async fn put_unchecked(&self, kind: Kind, name: &str, spec: &str) {
        let (spec, none) = (Bytes::from(spec.to_owned()), Bytes::new());
        let row = Resource::new(key(kind, name), self.labels(), spec, none, Audience::default());
        self.commit(kind, Edit::Put(Arc::new(row))).await;
    }

    pub(super) fn labels(&self) -> Labels {
        match &self.zone {
            None => Labels::default(),
            Some(zone) => {
                Labels::from_iter([(label::ORIGIN, "zone")]).with(label::ZONE, zone.as_str())
            }
        }
    }

    pub(super) async fn delete(&self, kind: Kind, name: &str) {
        self.commit(kind, Edit::Delete(key(kind, name))).await;
    }

    pub(super) fn get(&self, kind: Kind, name: &str) -> Option<Arc<Resource>> {
        self.store.reader().get(self.id(kind), &key(kind, name))
    }

    pub(super) fn spec(&self, kind: Kind, name: &str) -> String {
        let row = self.get(kind, name).unwrap_or_else(|| panic!("no {name}"));
        String::from_utf8(row.spec.to_vec()).unwrap()
    }

    /// All of a kind, as `mesh/name: spec`.
    pub(super) fn all(&self, kind: Kind) -> BTreeMap<String, String> {
        let (_, rows) = self.store.reader().rows(self.id(kind));
        let text = |row: &Arc<Resource>| {
            (row.head.key.to_string(), String::from_utf8(row.spec.to_vec()).unwrap())
        };
        rows.iter().map(text).collect()
    }

    /// Waits until there are exactly these names.
    pub(super) async fn until(&self, kind: Kind, names: &[String]) {
        let mut names = names.to_vec();
        names.sort();
        self.until_so(kind, |all| all.keys().eq(&names)).await;
    }

    pub(super) async fn until_so(
        &self,
        kind: Kind,
        so: impl Fn(&BTreeMap<String, String>) -> bool,
    ) {
        let mut watch = self.store.reader().watch(KindSet::default().with(self.id(kind)));
        let wait = async {
            while !so(&self.all(kind)) {
                watch.dirty().await.unwrap();
            }
        };
        let waited = timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "{:?} are still {:#?}", kind, self.all(kind));
    }
}

/// Runs a task, but not while it is stuck.
async fn while_open(task: impl Future<Output = ()>, mut stuck: watch::Receiver<bool>) {
    let mut task = std::pin::pin!(task);
    loop {
        if stuck.wait_for(|stuck| !*stuck).await.is_err() {
            return;
        }
        tokio::select! {
            biased;
            changed = stuck.changed() => if changed.is_err() {
                return task.await;
            },
            () = &mut task => return,
        }
    }
}

/// Counts what happens, by kind.
#[derive(Default)]
pub(crate) struct Counts {
    events: Mutex<BTreeMap<(&'static str, &'static str), usize>>,
    /// Resources that were sent.
    pub(super) resources: Mutex<BTreeMap<&'static str, usize>>,
    /// Where the peer is with what was sent last.
    pub(super) places: Mutex<BTreeMap<&'static str, Option<Revision>>>,
    /// Resources that came.
    pub(super) received: Mutex<BTreeMap<&'static str, usize>>,
    /// Woken by each event.
    happened: Notify,
    pub(super) opened: watch::Sender<usize>,
    /// Why the zone takes nothing, as it said last.
    pub(super) held: watch::Sender<Option<String>>,
}

impl Counts {
    pub(crate) fn of(&self, what: &'static str, kind: Kind) -> usize {
        self.events.lock().get(&(what, kind.name)).copied().unwrap_or_default()
    }

    /// How often zones asked whether global is there.
    pub(super) fn checked(&self) -> usize {
        self.events.lock().get(&("checked", "")).copied().unwrap_or_default()
    }

    pub(super) fn clear(&self) {
        self.events.lock().clear();
        self.resources.lock().clear();
        self.received.lock().clear();
    }
}

impl Observer for Counts {
    fn observe(&self, _stream: StreamId, _zone: &ZoneName, event: Event<'_>) {
        let what = match event {
            Event::Sent { kind, resources, until } => {
                self.places.lock().insert(kind, until);
                if resources > 0 {
                    *self.resources.lock().entry(kind).or_default() += resources;
                }
                ("sent", kind)
            }
            Event::Acked { kind, .. } => ("acked", kind),
            Event::Refused { kind, .. } => ("refused", kind),
            Event::Applied { kind, resources, .. } => {
                *self.received.lock().entry(kind).or_default() += resources;
                ("applied", kind)
            }
            Event::TooLarge { kind, .. } => ("too large", kind),
            Event::Declined { .. } => ("declined", ""),
            Event::Opened { .. } => {
                self.opened.send_modify(|opened| *opened += 1);
                return;
            }
            Event::HealthChecked { held } => {
                *self.events.lock().entry(("checked", "")).or_default() += 1;
                self.held.send_if_modified(|told| {
                    let changed = told.as_deref() != held;
                    *told = held.map(str::to_owned);
                    changed
                });
                return;
            }
            Event::Introduced(_)
            | Event::Begins { .. }
            | Event::Stands { .. }
            | Event::Held(_)
            | Event::Remembered
            | Event::Ended(_)
            | Event::Closed => return,
        };
        *self.events.lock().entry(what).or_default() += 1;
        self.happened.notify_one();
    }
}

/// Lets in who has the token `<zone>-token`; and, where that is set, who has none.
pub(super) struct Doorkeeper {
    pub(super) plain: bool,
    pub(super) withdrawn: CancellationToken,
}

#[tonic::async_trait]
impl Admission for Doorkeeper {
    async fn admit(&self, presented: Presented<'_>) -> Result<Admitted, Refused> {
        let get = |key| presented.metadata.get(key).and_then(|value| value.to_str().ok());
        let name = match get(AUTHORIZATION) {
            None if self.plain => get(CLIENT_ID).unwrap_or_default(),
            None => return Err(Refused::Unauthenticated("no token".into())),
            Some(token) => {
                let token = token.strip_prefix("Bearer ").and_then(|t| t.strip_suffix("-token"));
                token.ok_or_else(|| Refused::Unauthenticated("not a token".into()))?
            }
        };
        let zone = ZoneName::new(name).map_err(|error| Refused::Denied(error.to_string()))?;
        Ok(Admitted { zone, withdrawn: self.withdrawn.clone() })
    }
}

/// A running global.
pub(super) struct Global {
    pub(super) plane: Plane,
    pub(super) counts: Arc<Counts>,
    pub(super) admin: Registry,
    pub(super) stop: CancellationToken,
    pub(super) withdrawn: CancellationToken,
    pub(super) connect: mpsc::Sender<DuplexStream>,
}

impl Global {
    /// A global with the mesh `default`, whose store is called `epoch`.
    pub(super) async fn start(tasks: &mut JoinSet<()>, id: &str, epoch: u64) -> Self {
        let plane = Plane::new(tasks, None, epoch);
        plane.put(CONFIG, "kuma-cluster-id", &format!(r#"{{"config":"{id}"}}"#)).await;
        plane.put(MESH, "default", "{}").await;
        Self::serve(tasks, plane)
    }

    /// The same, where a zone may have no more than `quotas`.
    pub(super) async fn start_within(tasks: &mut JoinSet<()>, quotas: Quotas) -> Self {
        let plane = Plane::new(tasks, None, 1);
        plane.put(CONFIG, "kuma-cluster-id", r#"{"config":"c1"}"#).await;
        plane.put(MESH, "default", "{}").await;
        Self::serve_with(tasks, plane, Settings { quotas: Arc::new(quotas), ..Settings::default() })
    }

    /// The same global as another process.
    pub(super) fn restart(self, tasks: &mut JoinSet<()>, address: &Address) -> Self {
        self.stop.cancel();
        let again = Self::serve(tasks, self.plane);
        address.leads_to(&again);
        again
    }

    /// Waits until something happened so often.
    pub(super) async fn until(&self, what: &'static str, kind: Kind, times: usize) {
        let wait = async {
            while self.counts.of(what, kind) < times {
                self.counts.happened.notified().await;
            }
        };
        let waited = timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "{what} {kind:?}: {}", self.counts.of(what, kind));
    }

    /// Waits until so many streams were opened.
    pub(super) async fn until_opened(&self, streams: usize) {
        let mut opened = self.counts.opened.subscribe();
        let waited = timeout(PATIENCE, opened.wait_for(|opened| *opened >= streams)).await;
        assert!(waited.is_ok(), "{} streams were opened", *self.counts.opened.borrow());
    }

    /// Serves what `plane` holds.
    pub(super) fn serve(tasks: &mut JoinSet<()>, plane: Plane) -> Self {
        Self::serve_with(tasks, plane, Settings::default())
    }

    fn serve_with(tasks: &mut JoinSet<()>, plane: Plane, settings: Settings) -> Self {
        let (counts, stop) = (Arc::<Counts>::default(), CancellationToken::new());
        let withdrawn = CancellationToken::new();
        let door = Doorkeeper { plain: true, withdrawn: withdrawn.clone() };
        let server = Server::new(
            (plane.store.clone(), plane.kinds.clone()),
            settings,
            Arc::new(door),
            counts.clone(),
            stop.clone(),
        );
        let (connect, incoming) = mpsc::channel(8);
        let incoming = ReceiverStream::new(incoming).map(io::Result::Ok);
        let server = server.unwrap();
        let admin = server.admin();
        tasks.spawn(async move { server.serve(incoming).await.unwrap() });
        Self { plane, counts, admin, stop, withdrawn, connect }
    }
}

/// Where zones find global: another one can take its place.
#[derive(Clone)]
pub(super) struct Address(pub(super) Arc<Mutex<mpsc::Sender<DuplexStream>>>);

impl Address {
    pub(super) fn of(global: &Global) -> Self {
        Self(Arc::new(Mutex::new(global.connect.clone())))
    }

    pub(super) fn leads_to(&self, global: &Global) {
        *self.0.lock() = global.connect.clone();
    }

    pub(super) fn dial(&self) -> BoxFuture<'static, io::Result<Box<dyn Pipe>>> {
        let connect = self.0.lock().clone();
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let refused = |_| io::Error::from(io::ErrorKind::ConnectionRefused);
            connect.send(far).await.map_err(refused)?;
            Ok(Box::new(near) as Box<dyn Pipe>)
        })
    }
}

/// A running zone.
pub(super) struct Zone {
    pub(super) plane: Plane,
    pub(super) handle: Handle,
    pub(super) stop: CancellationToken,
}

impl Zone {
    pub(super) fn start(tasks: &mut JoinSet<()>, name: &str, address: &Address) -> Self {
        let plane = Plane::new(tasks, Some(name), 7);
        Self::run(tasks, name, address, plane)
    }

    pub(super) fn run(
        tasks: &mut JoinSet<()>,
        name: &str,
        address: &Address,
        plane: Plane,
    ) -> Self {
        Self::run_with(tasks, (name, address), plane, Arc::new(NoProxies))
    }

    /// A zone whose proxies are asked by `answerer`.
    pub(super) fn with_answerer(
        tasks: &mut JoinSet<()>,
        name: &str,
        address: &Address,
        answerer: Arc<dyn Answerer>,
    ) -> Self {
        let plane = Plane::new(tasks, Some(name), 7);
        Self::run_with(tasks, (name, address), plane, answerer)
    }

    /// The same, which announces no features of ours but these.
    pub(super) fn with_features(
        tasks: &mut JoinSet<()>,
        (name, address): (&str, &Address),
        features: Features,
        answerer: Arc<dyn Answerer>,
    ) -> Self {
        let plane = Plane::new(tasks, Some(name), 7);
        Self::run_as(tasks, (name, address), plane, (features, answerer))
    }

    /// The same, which says that it keeps `plane` at `home`.
    pub(super) fn living_at(
        tasks: &mut JoinSet<()>,
        (name, address): (&str, &Address),
        (plane, home): (Plane, &str),
    ) -> Self {
        let change = |settings| ZoneSettings { home: Some(home.to_owned()), ..settings };
        Self::run_so(tasks, (name, address), plane, (Arc::new(NoProxies), &change))
    }

    fn run_with(
        tasks: &mut JoinSet<()>,
        (name, address): (&str, &Address),
        plane: Plane,
        answerer: Arc<dyn Answerer>,
    ) -> Self {
        Self::run_so(tasks, (name, address), plane, (answerer, &|settings| settings))
    }

    fn run_as(
        tasks: &mut JoinSet<()>,
        (name, address): (&str, &Address),
        plane: Plane,
        (features, answerer): (Features, Arc<dyn Answerer>),
    ) -> Self {
        let change = |settings| ZoneSettings { features, ..settings };
        Self::run_so(tasks, (name, address), plane, (answerer, &change))
    }

    /// With other settings than usual.
    fn run_so(
        tasks: &mut JoinSet<()>,
        (name, address): (&str, &Address),
        plane: Plane,
        (answerer, change): (Arc<dyn Answerer>, &dyn Fn(ZoneSettings) -> ZoneSettings),
    ) -> Self {
        let (token, address) = (format!("{name}-token"), address.clone());
        let introduction = Introduction { features: own_features(), ..Introduction::default() };
        let token: Arc<dyn Fn() -> Option<String> + Send + Sync> =
            Arc::new(move || Some(token.clone()));
        let settings = ZoneSettings::new(zone(name), token, introduction);
        let client = Client::new(
            (plane.store.clone(), plane.kinds.clone()),
            change(ZoneSettings { random: || 0.5, ..settings }),
            move || address.dial(),
            answerer,
            clock(),
        )
        .unwrap();
        let (handle, stop) = (client.handle(), CancellationToken::new());
        tasks.spawn(client.run(stop.clone()));
        Self { plane, handle, stop }
    }

    /// Waits until the connection is so.
    pub(super) async fn until(&self, so: impl FnMut(&State) -> bool) -> State {
        let mut state = self.handle.state();
        let waited = timeout(PATIENCE, state.wait_for(so)).await;
        match waited {
            Ok(state) => state.unwrap().clone(),
            Err(_) => panic!("the state is still {:#?}", self.handle.state().borrow()),
        }
    }

    pub(super) async fn until_complete(&self) -> State {
        let all = self.plane.kinds.iter();
        let all = all.filter(|(_, kind)| kind.flow.requested_by_zones()).count();
        self.until(|state| state.connected_since.is_some() && state.complete.len() == all).await
    }

    pub(super) fn remembers(&self) -> Option<crate::memory::Memory> {
        Facts::of(&self.plane.kinds).unwrap().memory(&self.plane.store.reader())
    }
}
