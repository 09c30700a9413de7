//! Control planes of ours with the real kinds, over pipes.

use super::plain::Resources;
use crate::{
    admin::NoProxies,
    dialect::{Introduction, own_features},
    global::{Server, Settings},
    observe::{Event, Observer, StreamId},
    tests::world::Doorkeeper,
    transit::hashed_name,
    zone::{Client, Handle, Pipe, Settings as ZoneSettings, State},
};
use bytes::Bytes;
use daemon::Clock;
use futures::{StreamExt as _, future::BoxFuture};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use proto::kuma::system::v1alpha1::KumaCpVersion;
use resource::{Audience, Kind, Labels, MeshName, Peer, Resource, ResourceKey, Scope, ZoneName};
use serde_json::{Value, json};
use std::{collections::BTreeMap, io, sync::Arc, time::Duration};
use store::{
    Backend as _, Expected, Item, Kinds, Local, Memory, open,
    view::{Edit, KindSet},
};
use tokio::{
    io::DuplexStream,
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

/// How long a test waits in virtual time before it calls something impossible.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) const MESH: Kind = kinds::mesh::KIND;
pub(crate) const TIMEOUT: Kind = kinds::mesh_timeout::KIND.kind;
pub(crate) const SERVICE: Kind = kinds::mesh_service::KIND;
pub(crate) const CONFIG: Kind = kinds::config::KIND;
pub(crate) const SECRET: Kind = kinds::secret::KIND;

/// The store of a control plane.
#[derive(Clone)]
pub(crate) struct Plane {
    pub(crate) store: Local,
    pub(crate) kinds: Arc<Kinds>,
}

pub(crate) fn key(kind: Kind, name: &str) -> ResourceKey {
    let mesh = (kind.scope == Scope::Mesh).then(|| MeshName::new("default").unwrap());
    ResourceKey { mesh, name: name.into() }
}

/// The name in transit of what is called `name` in the mesh `default` of `zone`, or of global.
pub(crate) fn hashed(name: &str, zone: Option<&str>) -> String {
    hashed_name(MeshName::new("default").ok().as_ref(), name, [zone, None])
}

/// A timeout of all requests in the mesh, as JSON.
pub(crate) fn timeout_of(idle: &str) -> Value {
    let to = json!({ "targetRef": { "kind": "Mesh" }, "default": { "idleTimeout": idle } });
    json!({ "targetRef": { "kind": "Mesh" }, "to": [to] })
}

impl Plane {
    pub(crate) fn new(tasks: &mut JoinSet<()>, peer: Peer) -> Self {
        let clock = Clock::since(Timestamp::UNIX_EPOCH);
        let kinds = Kinds { list: kinds::all().collect(), peer };
        let (store, writer) = open(Memory::new(1), kinds.clone(), clock).unwrap();
        tasks.spawn(async { writer.run().await.unwrap() });
        Self { store, kinds: Arc::new(kinds) }
    }

    async fn commit(&self, kind: Kind, edit: Edit) {
        let kind = self.kinds.id_of(kind.name).unwrap();
        let item = Item { kind, expected: Expected::Anything, edit };
        self.store.commit(vec![item]).await.unwrap();
    }

    pub(crate) async fn put(&self, kind: Kind, name: &str, labels: &[(&str, &str)], spec: Value) {
        let spec = kind.encode(&kind.from_json(spec).unwrap()).unwrap();
        let labels = labels.iter().copied().collect();
        let peer = self.kinds.peer;
        let row = kind.resource(key(kind, name), labels, spec, Bytes::new(), peer).unwrap();
        self.commit(kind, Edit::Put(Arc::new(row))).await;
    }

    /// As a program of another version might have written it.
    pub(crate) async fn put_unchecked(&self, kind: Kind, name: &str, spec: Value) {
        let (spec, none) = (Bytes::from(spec.to_string()), Bytes::new());
        let (labels, audience) = (Labels::default(), Audience::default());
        let row = Resource::new(key(kind, name), labels, spec, none, audience);
        self.commit(kind, Edit::Put(Arc::new(row))).await;
    }

    pub(crate) async fn delete(&self, kind: Kind, name: &str) {
        self.commit(kind, Edit::Delete(key(kind, name))).await;
    }

    pub(crate) fn labels(&self, kind: Kind, name: &str) -> Labels {
        let id = self.kinds.id_of(kind.name).unwrap();
        let row = self.store.reader().get(id, &key(kind, name));
        row.unwrap_or_else(|| panic!("no {name}")).head.labels.clone()
    }

    /// A spec as it is stored.
    pub(crate) fn spec(&self, kind: Kind, name: &str) -> Bytes {
        let id = self.kinds.id_of(kind.name).unwrap();
        let row = self.store.reader().get(id, &key(kind, name));
        row.unwrap_or_else(|| panic!("no {name}")).spec.clone()
    }

    /// All of a kind: name and spec.
    pub(crate) fn all(&self, kind: Kind) -> BTreeMap<String, Value> {
        let (_, rows) = self.store.reader().rows(self.kinds.id_of(kind.name).unwrap());
        let read = |spec: &[u8]| kind.to_json(spec).unwrap();
        rows.iter().map(|row| (row.head.key.name.to_string(), read(&row.spec))).collect()
    }

    pub(crate) fn names(&self, kind: Kind) -> Vec<String> {
        self.all(kind).into_keys().collect()
    }

    /// Waits until it is so.
    pub(crate) async fn until(&self, kind: Kind, so: impl Fn(&BTreeMap<String, Value>) -> bool) {
        let kinds = KindSet::default().with(self.kinds.id_of(kind.name).unwrap());
        let mut watch = self.store.reader().watch(kinds);
        let wait = async {
            while !so(&self.all(kind)) {
                watch.dirty().await.unwrap();
            }
        };
        let waited = timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "{kind:?} are still {:#?}", self.all(kind));
    }
}

/// What went wrong with the peers of a global, as it tells.
#[derive(Debug, Default)]
pub(crate) struct Wrong {
    /// Why streams ended, and of which zone they were.
    pub(crate) ended: watch::Sender<Vec<(String, &'static str)>>,
    /// Why calls were not let in.
    pub(crate) turned_away: watch::Sender<Vec<&'static str>>,
    /// What zones said when they refused something.
    pub(crate) refused: watch::Sender<Vec<String>>,
    /// The kinds of which a state is too large.
    pub(crate) too_large: watch::Sender<Vec<&'static str>>,
    /// How many responses were refused as a whole.
    pub(crate) declined: watch::Sender<usize>,
}

impl Observer for Wrong {
    fn observe(&self, _stream: StreamId, zone: &ZoneName, event: Event<'_>) {
        match event {
            Event::Ended(why) => {
                let ended = (zone.to_string(), why.reason());
                self.ended.send_modify(|all| all.push(ended));
            }
            Event::Refused { refusals, .. } => {
                self.refused.send_modify(|all| all.push(refusals.text.clone()));
            }
            Event::TooLarge { kind, .. } => self.too_large.send_modify(|all| all.push(kind)),
            Event::Declined { .. } => self.declined.send_modify(|all| *all += 1),
            Event::Opened { .. }
            | Event::Introduced(_)
            | Event::Sent { .. }
            | Event::Acked { .. }
            | Event::Begins { .. }
            | Event::Stands { .. }
            | Event::Applied { .. }
            | Event::Remembered
            | Event::Held(_)
            | Event::HealthChecked { .. }
            | Event::Closed => {}
        }
    }

    fn turned_away(&self, reason: &'static str) {
        self.turned_away.send_modify(|all| all.push(reason));
    }
}

/// A global of ours, with the mesh `default`.
pub(crate) struct Global {
    pub(crate) plane: Plane,
    pub(crate) wrong: Arc<Wrong>,
    pub(crate) connect: mpsc::Sender<DuplexStream>,
}

impl Global {
    pub(crate) async fn start(tasks: &mut JoinSet<()>) -> Self {
        Self::with_door(tasks, true).await
    }

    pub(crate) async fn with_door(tasks: &mut JoinSet<()>, plain: bool) -> Self {
        let plane = Plane::new(tasks, Peer::Zone);
        plane.put(CONFIG, "kuma-cluster-id", &[], json!({ "config": "c1" })).await;
        plane.put(MESH, "default", &[], json!({})).await;
        let wrong = Arc::<Wrong>::default();
        let server = Server::new(
            (plane.store.clone(), plane.kinds.clone()),
            Settings::default(),
            Arc::new(Doorkeeper { plain, withdrawn: CancellationToken::new() }),
            wrong.clone(),
            CancellationToken::new(),
        )
        .unwrap();
        let (connect, incoming) = mpsc::channel(8);
        let incoming = ReceiverStream::new(incoming).map(io::Result::Ok);
        tasks.spawn(async move { server.serve(incoming).await.unwrap() });
        Self { plane, wrong, connect }
    }

    /// A connection for a plain zone.
    pub(crate) async fn channel(&self) -> Channel {
        let connect = self.connect.clone();
        let connector = tower::service_fn(move |_| {
            let connect = connect.clone();
            async move { pipe(connect).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://global").connect_with_connector(connector).await.unwrap()
    }
}

pub(crate) async fn pipe(connect: mpsc::Sender<DuplexStream>) -> io::Result<DuplexStream> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    connect.send(far).await.map_err(io::Error::other)?;
    Ok(near)
}

/// A zone of ours.
pub(crate) struct Zone {
    pub(crate) plane: Plane,
    pub(crate) handle: Handle,
    pub(crate) stop: CancellationToken,
}

impl Zone {
    pub(crate) fn start(
        tasks: &mut JoinSet<()>,
        name: &str,
        connect: &mpsc::Sender<DuplexStream>,
    ) -> Self {
        let plane = Plane::new(tasks, Peer::Global);
        Self::run(tasks, name, connect, plane)
    }

    pub(crate) fn run(
        tasks: &mut JoinSet<()>,
        name: &str,
        connect: &mpsc::Sender<DuplexStream>,
        plane: Plane,
    ) -> Self {
        let token = format!("{name}-token");
        let version = KumaCpVersion { version: "1.2.3".into(), ..KumaCpVersion::default() };
        let (config, instance) = (r#"{"zone":"x"}"#.into(), format!("{name}-1"));
        let introduction = Introduction { features: own_features(), version, config, instance };
        let name = ZoneName::new(name).unwrap();
        let settings = ZoneSettings::new(name, Arc::new(move || Some(token.clone())), introduction);
        let connect = connect.clone();
        let dial = move || -> BoxFuture<'static, io::Result<Box<dyn Pipe>>> {
            let connect = connect.clone();
            Box::pin(async move { Ok(Box::new(pipe(connect).await?) as Box<dyn Pipe>) })
        };
        let client = Client::new(
            (plane.store.clone(), plane.kinds.clone()),
            ZoneSettings { random: || 0.5, ..settings },
            dial,
            Arc::new(NoProxies),
            Clock::since(Timestamp::UNIX_EPOCH),
        )
        .unwrap();
        let (handle, stop) = (client.handle(), CancellationToken::new());
        tasks.spawn(client.run(stop.clone()));
        Self { plane, handle, stop }
    }

    /// Waits until the connection is so.
    pub(crate) async fn until(&self, so: impl FnMut(&State) -> bool) -> State {
        let mut state = self.handle.state();
        let waited = timeout(PATIENCE, state.wait_for(so)).await;
        match waited {
            Ok(state) => state.unwrap().clone(),
            Err(_) => panic!("the state is still {:#?}", self.handle.state().borrow()),
        }
    }

    pub(crate) async fn until_complete(&self) -> State {
        let all = self.plane.kinds.iter();
        let all = all.filter(|(_, kind)| kind.flow.requested_by_zones()).count();
        self.until(|state| state.connected_since.is_some() && state.complete.len() == all).await
    }
}

/// Waits until what a plain peer holds is so.
pub(crate) async fn until<T: std::fmt::Debug>(
    watched: &watch::Sender<T>,
    so: impl FnMut(&T) -> bool,
) {
    let mut receiver = watched.subscribe();
    let waited = timeout(PATIENCE, receiver.wait_for(so)).await.is_ok();
    assert!(waited, "it is still {:#?}", watched.borrow());
}

/// The names of a kind that a plain peer holds.
pub(crate) fn names(resources: &Resources, kind: &str) -> Vec<String> {
    resources.get(kind).into_iter().flatten().map(|(name, _)| name.clone()).collect()
}
