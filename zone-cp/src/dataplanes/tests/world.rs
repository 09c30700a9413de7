//! A zone `west` with the meshes `shop` and `bank`, whose proxies come over pipes in paused time.

use super::super::{Dataplanes, NotReviewed, Parts, Pod, Review, Reviewed, server};
use crate::{
    identities::{Identities, Issuer},
    names::Names,
    reconcile::Meshes,
};
use api::{About, ApiState, Entry, NoHooks};
use daemon::{Clock, Metrics, Ready};
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use identity::token::{self, DataplaneClaims, KeySet, SigningKey};
use jiff::Timestamp;
use kinds::{
    config, dataplane,
    labels::{self, Env, Place},
    mesh, secret,
};
use proto::{
    atoll::proxy::v1::{
        Address, ControlPlane, FromProxy, Hello, Problems, State, ToProxy, Welcome, from_proxy,
        proxies_client::ProxiesClient, to_proxy,
    },
    envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use resource::{Kind, Labels, MeshName, Peer, Resource, ResourceKey};
use serde_json::{Value, json};
use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};
use store::{
    Backend, Expected, Item, Kinds, Local, Memory,
    view::{Edit, KindId, KindSet},
};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Status, Streaming,
    transport::{Channel, Endpoint},
};
use tower::ServiceExt as _;

/// No wait of a test is longer, in paused time.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn kinds() -> Kinds {
    Kinds { list: kinds::all().collect(), peer: Peer::Global }
}

pub(super) fn id(kind: Kind) -> KindId {
    kinds().id_of(kind.name).unwrap()
}

pub(super) fn key(name: &str) -> ResourceKey {
    ResourceKey::in_mesh(&MeshName::new("shop").unwrap(), name)
}

pub(super) fn place() -> Place {
    Place::Zone { name: "west".parse().unwrap(), env: Env::Universal }
}

fn signing_pem() -> &'static str {
    static PEM: OnceLock<String> = OnceLock::new();
    PEM.get_or_init(|| SigningKey::generate().unwrap().private_pem().to_owned())
}

/// The keys that sign in both meshes.
fn keys() -> KeySet {
    let mut keys = KeySet::default();
    keys.insert(1, signing_pem()).unwrap();
    keys
}

/// What a token says that is good for web-1.
pub(super) fn claims() -> DataplaneClaims {
    DataplaneClaims { mesh: "shop".into(), workload: "web".into(), ..DataplaneClaims::default() }
}

pub(super) fn ingress_claims() -> DataplaneClaims {
    DataplaneClaims { mesh: "shop".into(), r#type: "ingress".into(), ..DataplaneClaims::default() }
}

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// A cluster whose tokens say whose they are.
#[derive(Debug)]
struct Cluster;

impl Review for Cluster {
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Reviewed, NotReviewed>> {
        let reviewed = match token.split('/').collect::<Vec<_>>()[..] {
            ["away"] => Err(NotReviewed::Unavailable("no API server".into())),
            [namespace, service_account, name] => {
                let [namespace, service_account, name] =
                    [namespace, service_account, name].map(str::to_owned);
                let pod = Pod { namespace, service_account, name };
                let expires = start().saturating_add(jiff::SignedDuration::from_hours(1)).unwrap();
                Ok(Reviewed { pod, expires })
            }
            _ => Err(NotReviewed::Refused("no such token".into())),
        };
        Box::pin(std::future::ready(reviewed))
    }
}

/// A token that says `claims`.
pub(super) fn token(claims: &DataplaneClaims) -> String {
    token::mint(&keys(), claims, start(), Duration::from_secs(3600)).unwrap()
}

pub(super) struct World {
    pub(super) store: Local,
    pub(super) dataplanes: Dataplanes<Local>,
    pub(super) clock: Clock,
    stop: CancellationToken,
    tasks: JoinSet<&'static str>,
    connections: mpsc::Sender<tokio::io::DuplexStream>,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::made(None).await
    }

    /// One whose proxies may be pods.
    pub(super) async fn in_cluster() -> Self {
        Self::made(Some(Arc::new(Cluster))).await
    }

    async fn made(cluster: Option<Arc<dyn Review>>) -> Self {
        let clock = Clock::since(start());
        let memory = Memory::new(1);
        let (store, writer) = store::open(memory, kinds(), clock.clone()).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async {
            writer.run().await.unwrap();
            "store"
        });
        let mut rows = Vec::new();
        for mesh in ["shop", "bank"] {
            rows.push(row(mesh::KIND, ResourceKey::global(mesh), json!({})));
            let name = format!("dataplane-token-signing-key-{mesh}-1");
            let key = ResourceKey::in_mesh(&MeshName::new(mesh).unwrap(), &name);
            let spec = secret::Secret::of(signing_pem());
            let bytes = secret::KIND.encode(&(Arc::new(spec) as resource::AnySpec)).unwrap();
            let labels = Labels::default();
            let made = secret::KIND.resource(key, labels, bytes, "".into(), Peer::Global).unwrap();
            rows.push((secret::KIND, made));
        }
        for (kind, row) in rows {
            put(&store, kind, row).await;
        }
        Self::on(store, clock, tasks, cluster).await
    }

    /// A control plane on what is stored.
    async fn on(
        store: Local,
        clock: Clock,
        mut tasks: JoinSet<&'static str>,
        cluster: Option<Arc<dyn Review>>,
    ) -> Self {
        let (issuer, renewed) = Issuer::new(clock.clone());
        let (shelf, zone, to) = (store.clone(), "west".parse().unwrap(), issuer.clone());
        let identities =
            Identities::new(shelf, &kinds(), zone, Env::Universal, to, clock.clone()).unwrap();
        let meshes = Meshes::new(
            "west".parse().unwrap(),
            Arc::new(issuer.clone()),
            clock.clone(),
            store.reader(),
            id(config::KIND),
        );
        let stop = CancellationToken::new();
        let parts = Parts {
            store: store.clone(),
            kinds: Arc::new(kinds()),
            place: place(),
            instance: "cp-1".into(),
            meshes: meshes.clone(),
            issuer,
            names: Arc::new(Names::default()),
            cluster,
            metrics: Metrics::default(),
            clock: clock.clone(),
        };
        let dataplanes = Dataplanes::new(parts, stop.clone()).unwrap();
        meshes.open();
        let ends = stop.clone();
        tasks.spawn(async move {
            identities.run(ends).await.unwrap();
            "identities"
        });
        let (feeding, feed, ends) = (meshes, store.clone(), stop.clone());
        let guard = Ready::default().guard("xds");
        tasks.spawn(async move {
            feeding.run(&feed, &kinds(), renewed, guard, ends).await.unwrap();
            "reconcile"
        });
        let kept = dataplanes.clone().keep();
        tasks.spawn(async move {
            kept.await.unwrap();
            "keep"
        });
        let (connections, mut accepted) = mpsc::channel::<tokio::io::DuplexStream>(16);
        let (router, ends) = (server::router(dataplanes.desk.clone()), stop.clone());
        tasks.spawn(async move {
            let mut all = JoinSet::new();
            let peer = "127.0.0.1:1".parse().unwrap();
            while let Some(stream) = accepted.recv().await {
                all.spawn(server::connection(stream, peer, router.clone(), ends.clone()));
            }
            "server"
        });
        settle().await;
        Self { store, dataplanes, clock, stop, tasks, connections }
    }

    /// Another process of the control plane takes over what is stored.
    pub(super) async fn restart(mut self) -> Self {
        self.stop.cancel();
        drop(self.connections);
        let mut ended = Vec::new();
        while ended.len() < 4 {
            ended.push(self.tasks.join_next().await.unwrap().unwrap());
        }
        assert!(!ended.contains(&"store"), "{ended:?}");
        Self::on(self.store, self.clock, self.tasks, None).await
    }

    pub(super) async fn channel(&self) -> Channel {
        let (ours, theirs) = tokio::io::duplex(256 << 10);
        self.connections.send(theirs).await.unwrap();
        let mut once = Some(TokioIo::new(ours));
        let connector = tower::service_fn(move |_| {
            let stream = once.take().ok_or(io::ErrorKind::NotConnected);
            async move { Ok::<_, io::Error>(stream?) }
        });
        Endpoint::from_static("http://zone").connect_with_connector(connector).await.unwrap()
    }

    /// A session that said hello, or why it is none.
    pub(super) async fn session(&self, token: &str, hello: Hello) -> Result<Session, Status> {
        self.welcome(token, hello).await.map(|(session, _)| session)
    }

    /// A session, and what its proxy starts Envoy with.
    pub(super) async fn welcome(
        &self,
        token: &str,
        hello: Hello,
    ) -> Result<(Session, Welcome), Status> {
        let mut client = ProxiesClient::new(self.channel().await);
        let (to_zone, messages) = mpsc::channel(16);
        let hello = from_proxy::Message::Hello(hello);
        to_zone.send(FromProxy { message: Some(hello) }).await.unwrap();
        let request = with(token, ReceiverStream::new(messages));
        let stream = timeout(PATIENCE, client.session(request)).await.unwrap()?.into_inner();
        let mut session = Session { to_zone, stream };
        let first = session.next().await?;
        let to_proxy::Message::Welcome(welcome) = first else { panic!("{first:?}") };
        Ok((session, welcome))
    }

    /// Why a session is none.
    pub(super) async fn refusal(&self, token: &str, hello: Hello) -> (Code, String) {
        match self.session(token, hello).await {
            Ok(_) => panic!("it was let in"),
            Err(status) => (status.code(), status.message().to_owned()),
        }
    }

    pub(super) async fn envoy(
        &self,
        token: &str,
        first: DeltaDiscoveryRequest,
    ) -> Result<Envoy, Status> {
        let mut client = AggregatedDiscoveryServiceClient::new(self.channel().await);
        let (to_zone, requests) = mpsc::channel(16);
        to_zone.send(first).await.unwrap();
        let request = with(token, ReceiverStream::new(requests));
        let stream = client.delta_aggregated_resources(request).await?.into_inner();
        Ok(Envoy { to_zone, stream })
    }

    /// What the API of the zone answers an administrator.
    pub(super) async fn get(&self, path: &str) -> Value {
        let here = "127.0.0.1:5681".parse().unwrap();
        let router = api::router(ApiState {
            propagation: None,
            freshness: None,
            expiry: None,
            envoys: None,
            backend: self.store.clone(),
            kinds: Arc::new(kinds()),
            place: api::Place { here: place(), federated: true },
            clock: self.clock.clone(),
            about: About::default(),
            entry: Entry { localhost_is_admin: true, ..Entry::default() },
            config: Value::Null,
            hooks: Arc::new(NoHooks),
            global: None,
            shutdown: self.stop.clone(),
        });
        let request = axum::http::Request::get(path)
            .header("host", "localhost")
            .extension(api::serve::Connection { peer: here, local: here, tls: false })
            .body(axum::body::Body::empty());
        let response = router.oneshot(request.unwrap()).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    pub(super) async fn put(&self, kind: Kind, row: Resource) {
        put(&self.store, kind, row).await;
    }

    pub(super) fn row(&self, kind: Kind, name: &str) -> Option<Arc<Resource>> {
        self.store.reader().get(id(kind), &key(name))
    }

    /// The spec of a row, as REST has it.
    pub(super) fn spec(&self, kind: Kind, name: &str) -> Option<Value> {
        self.row(kind, name).map(|row| kind.to_json(&row.spec).unwrap())
    }

    /// The Dataplanes that there are.
    pub(super) fn dataplanes(&self) -> Vec<String> {
        let (_, rows) = self.store.reader().rows(id(dataplane::KIND));
        rows.iter().map(|row| row.head.key.name.to_string()).collect()
    }

    /// Waits until the store is as `wanted`.
    pub(super) async fn until(&self, wanted: impl Fn(&Self) -> bool) {
        let all: KindSet = kinds().iter().map(|(id, _)| id).collect();
        let mut watch = self.store.reader().watch(all);
        let reached = async {
            while !wanted(self) {
                watch.dirty().await.unwrap();
            }
        };
        timeout(PATIENCE, reached).await.expect("the store is never so");
    }
}

/// Lets every task do what it can do now.
pub(super) async fn settle() {
    // Paused time moves only when nothing else does.
    let _late = timeout(Duration::from_micros(1), std::future::pending::<()>()).await;
}

fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

pub(super) async fn put(store: &Local, kind: Kind, row: Resource) {
    let edit = Edit::Put(Arc::new(row));
    let item = Item { kind: id(kind), expected: Expected::Anything, edit };
    store.commit(vec![item]).await.unwrap();
}

/// A row of this zone.
pub(super) fn row(kind: Kind, key: ResourceKey, spec: Value) -> (Kind, Resource) {
    let spec = kind.from_json(spec).unwrap();
    let labels = labels::own(kind, &key, &place());
    let bytes = kind.encode(&spec).unwrap();
    (kind, kind.resource(key, labels, bytes, "".into(), Peer::Global).unwrap())
}

/// A proxy's end of a session.
pub(super) struct Session {
    pub(super) to_zone: mpsc::Sender<FromProxy>,
    pub(super) stream: Streaming<ToProxy>,
}

impl Session {
    /// The next message, or why there is none.
    pub(super) async fn next(&mut self) -> Result<to_proxy::Message, Status> {
        let message = timeout(PATIENCE, self.stream.message()).await.expect("in time")?;
        Ok(message.ok_or_else(|| Status::ok("ended"))?.message.unwrap())
    }

    /// What is told to be wrong next.
    pub(super) async fn problems(&mut self) -> Vec<String> {
        self.told().await.problems
    }

    /// The same, and which of them it is not ready by.
    pub(super) async fn told(&mut self) -> Problems {
        let message = self.next().await.unwrap();
        let to_proxy::Message::Problems(told) = message else { panic!("{message:?}") };
        told
    }

    pub(super) async fn say(&self, message: from_proxy::Message) {
        self.to_zone.send(FromProxy { message: Some(message) }).await.unwrap();
    }

    pub(super) async fn state(&self, ready: bool, inbounds: &[(&str, bool)]) {
        let inbounds = inbounds.iter().map(|(name, alive)| ((*name).to_owned(), *alive)).collect();
        self.say(from_proxy::Message::State(State { ready, inbounds })).await;
    }
}

/// An Envoy's end of a stream.
pub(super) struct Envoy {
    pub(super) to_zone: mpsc::Sender<DeltaDiscoveryRequest>,
    pub(super) stream: Streaming<DeltaDiscoveryResponse>,
}

impl Envoy {
    /// The next response, or why there is none.
    pub(super) async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        let response = timeout(PATIENCE, self.stream.message()).await.expect("in time")?;
        response.ok_or_else(|| Status::ok("ended"))
    }
}

pub(super) fn web(name: &str) -> Value {
    json!({
        "type": "Dataplane", "mesh": "shop", "name": name,
        "labels": {"kuma.io/workload": "web"},
        "networking": {
            "address": "127.1.0.5",
            "inbound": [
                {"name": "http", "port": 8080, "protocol": "http", "serviceProbe": {"tcp": {}}},
                {"name": "plain", "port": 9090},
            ],
        },
    })
}

pub(super) fn ingress() -> Value {
    json!({
        "type": "Dataplane", "mesh": "shop", "name": "ingress-1",
        "networking": {
            "address": "127.1.0.9",
            "listeners": [{"type": "ZoneIngress", "address": "127.1.0.9", "port": 10001}],
        },
    })
}

/// The hello of a ready proxy with this Dataplane.
pub(super) fn hello(dataplane: &Value) -> Hello {
    let text = |field: &str| dataplane[field].as_str().unwrap().to_owned();
    let state = State { ready: true, inbounds: [("http".to_owned(), true)].into() };
    Hello {
        mesh: text("mesh"),
        name: text("name"),
        dataplane: dataplane.to_string(),
        version: "0.1.0".into(),
        envoy_version: "1.40.0".into(),
        state: Some(state),
        instance: format!("process of {}", text("name")),
        control_plane: Some(ControlPlane {
            address: Some(Address { host: "127.0.0.1".into(), port: 5678 }),
            server_name: "zone".into(),
            ca: "CA".into(),
        }),
        ..Hello::default()
    }
}

pub(super) fn ingress_hello() -> Hello {
    let advertised = Some(Address { host: "203.0.113.10".into(), port: 0 });
    Hello { advertised, ..hello(&ingress()) }
}
