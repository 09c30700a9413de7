//! A machine with a disk, and on it, as long as it lives, a control plane: the parts of the real
//! program that need no port.

use super::{
    content::{WRITE, looked_at},
    fresh,
    truth::{Name, Node, Truth},
};
use crate::{
    Disk,
    network::{Network, sleep_for},
};
use anyhow::{Context as _, Result, bail};
use api::{About, author::Author, mesh_defaults, serve};
use axum::{Router, body::Body};
use daemon::{Clock, Metrics};
use fastrand::Rng;
use futures::{StreamExt as _, future::BoxFuture};
use http::{HeaderValue, Request, StatusCode, header, response};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use kds::{
    admin::NoProxies,
    dialect::{Introduction, own_features},
    metadata,
    zone::{Client, Handle, Pipe, Settings},
};
use kinds::{
    config::CLUSTER_ID,
    labels::{Env, Place},
    mesh,
};
use parking_lot::Mutex;
use resource::{Feature, Features, Kind, Peer, ResourceKey, Scope, ZoneName};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use store::{
    Backend as _, Embedded, Kinds, Local, open,
    view::{Feed, KindSet, Reader},
};
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// A machine.
pub(crate) struct Machine {
    pub(crate) node: Node,
    pub(crate) name: String,
    pub(crate) disk: Disk,
    pub(crate) kinds: Arc<Kinds>,
    /// What of ours its program has, if it is a zone: without any it is a plain one.
    pub(crate) features: Features,
    /// How far its clock is ahead, in milliseconds.
    pub(crate) skew: Arc<AtomicI64>,
    clock: Clock,
    truth: Arc<Mutex<Truth>>,
    network: Network,
    /// The part of it that does not go on, if one does not.
    pub(crate) stuck: watch::Sender<Option<&'static str>>,
    pub(crate) life: Option<Life>,
}

/// A control plane that runs.
pub(crate) struct Life {
    pub(crate) store: Local,
    pub(crate) handle: Option<Handle>,
    router: Router,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// What a user was told.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is done.
    Done,
    /// It is not done, and this is why.
    Refused(StatusCode, String),
    /// It may be done or not.
    Unknown,
}

impl Machine {
    pub(crate) fn new(node: Node, name: &str, truth: Arc<Mutex<Truth>>, network: Network) -> Self {
        let peer = if node == 0 { Peer::Zone } else { Peer::Global };
        let kinds = Arc::new(Kinds { list: kinds::all().collect(), peer });
        let (began, skew) = (Instant::now(), Arc::new(AtomicI64::new(0)));
        let start: Timestamp = "2026-11-24T12:00:00Z".parse().expect("a time");
        let ahead = skew.clone();
        let clock = Clock::of(move || {
            let ahead = jiff::SignedDuration::from_millis(ahead.load(Ordering::Relaxed));
            start + began.elapsed() + ahead
        });
        let (disk, life, name) = (Disk::default(), None, name.to_owned());
        let (features, stuck) = (metadata::own_features(), watch::Sender::new(None));
        Self { node, name, disk, kinds, features, skew, clock, truth, network, stuck, life }
    }

    pub(crate) fn road(&self) -> Option<usize> {
        self.node.checked_sub(1)
    }

    pub(crate) fn reader(&self) -> Option<Reader> {
        Some(self.life.as_ref()?.store.reader())
    }

    pub(crate) fn place(&self) -> Place {
        match self.road() {
            None => Place::Global,
            Some(_) => Place::Zone { name: self.zone(), env: Env::Universal },
        }
    }

    fn zone(&self) -> ZoneName {
        ZoneName::new(&self.name).expect("one of a list")
    }

    pub(crate) fn author(&self) -> Author {
        Author { kinds: self.kinds.clone(), place: self.place() }
    }

    /// The program starts.
    pub(crate) async fn start(&mut self) -> Result<()> {
        let journal = Embedded::open_on(self.disk.attach()).context("opening its store")?;
        let (store, writer) = open(journal, (*self.kinds).clone(), self.clock.clone())?;
        self.look_back(&store.reader());
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        let (truth, name) = (self.truth.clone(), self.name.clone());
        let writing = fresh::unless_stuck("store", writer.run(), self.stuck.subscribe());
        tasks.spawn(async move {
            if let Err(error) = writing.await {
                truth.lock().note(format_args!("{name} cannot write: {error}"));
            }
        });
        self.watch(&store.reader(), &mut tasks);
        self.network.back(self.road());
        let (router, handle) = match self.road() {
            None => (self.global(&store, &mut tasks, &stop).await?, None),
            Some(road) => {
                let (router, handle) = self.zone_of(&store, road, &mut tasks, &stop).await?;
                (router, Some(handle))
            }
        };
        self.truth.lock().note(format_args!("{} starts, {:?}", self.name, self.features));
        self.life = Some(Life { store, handle, router, stop, tasks });
        Ok(())
    }

    /// What it held before it ended and does not hold any more.
    fn look_back(&self, reader: &Reader) {
        let mut there = BTreeSet::<Name>::new();
        for (id, kind) in self.kinds.iter().filter(|(_, kind)| looked_at(kind)) {
            let (_, rows) = reader.rows(id);
            there.extend(rows.iter().map(|row| (kind.name, row.head.key.clone())));
        }
        let mut truth = self.truth.lock();
        for (kind, key) in truth.missed(self.node, &there) {
            let kind = self.kinds.iter().find(|(_, known)| known.name == kind);
            if let Some((_, kind)) = kind {
                truth.saw(self.node, kind, &key, None);
            }
        }
    }

    fn watch(&self, reader: &Reader, tasks: &mut JoinSet<()>) {
        let looked_at = self.kinds.iter().filter(|(_, kind)| looked_at(kind)).map(|(id, _)| id);
        let mut feed = Feed::of(reader, looked_at.collect::<KindSet>());
        let (node, kinds, truth) = (self.node, self.kinds.clone(), self.truth.clone());
        tasks.spawn(async move {
            while let Ok(updates) = feed.next().await {
                let mut truth = truth.lock();
                for update in updates {
                    let kind = kinds.iter().find(|(id, _)| *id == update.kind);
                    if let Some((_, kind)) = kind {
                        truth.saw(node, kind, &update.key, update.now.as_ref());
                    }
                }
            }
        });
    }

    fn run(
        &self,
        tasks: &mut JoinSet<()>,
        part: &'static str,
        task: BoxFuture<'static, Result<()>>,
    ) {
        let (truth, name) = (self.truth.clone(), self.name.clone());
        let task = fresh::unless_stuck(part, task, self.stuck.subscribe());
        tasks.spawn(async move {
            if let Err(error) = task.await {
                truth.lock().note(format_args!("{name}: {part} ended: {error:#}"));
            }
        });
    }

    async fn global(
        &self,
        store: &Local,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> Result<Router> {
        let mut config = global_cp::Config::default();
        config.kds.plain_zones = vec!["*".into()];
        config.api.localhost_is_admin = true;
        let about = About { instance_id: "global".into(), ..About::default() };
        let parts = global_cp::Parts {
            config,
            kinds: self.kinds.clone(),
            store: store.clone(),
            clock: self.clock.clone(),
            about,
            expiring: Vec::new(),
            metrics: Metrics::default(),
            stop: stop.clone(),
        };
        let author = self.author();
        if author.remembered(&store.reader(), CLUSTER_ID).is_none() {
            let batch = vec![
                author.create(mesh::KIND, ResourceKey::global("default"), json!({}))?,
                author.remember(CLUSTER_ID, "c1")?,
            ];
            store.commit(batch).await?;
        }
        let defaults = mesh_defaults::of_existing_meshes(&author, &store.reader())?;
        store.commit(defaults).await?;
        let core = parts.core().await?;
        for (name, task) in core.tasks {
            self.run(tasks, name, task);
        }
        let incoming = ReceiverStream::new(self.network.listen()).map(io::Result::Ok);
        let serving = core.zones.serve(incoming);
        self.run(tasks, "kds.serve", Box::pin(async { Ok(serving.await?) }));
        Ok(core.router)
    }

    async fn zone_of(
        &self,
        store: &Local,
        road: usize,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> Result<(Router, Handle)> {
        let mut config = zone_cp::Config::default();
        config.zone.name.clone_from(&self.name);
        config.api.localhost_is_admin = true;
        config.services.deletion_grace_period = Duration::from_secs(20);
        let parts = zone_cp::Parts {
            config,
            zone: self.zone(),
            place: self.place(),
            instance: self.name.clone(),
            home: None,
            alone: false,
            kinds: self.kinds.clone(),
            store: store.clone(),
            clock: self.clock.clone(),
            stop: stop.clone(),
        };
        parts.defaults().await?;
        self.run(tasks, "services", Box::pin(parts.services(Metrics::default())));
        for (name, task) in ["tables", "echo"].into_iter().zip(parts.line()?) {
            self.run(tasks, name, task);
        }
        let introduction = Introduction { features: own_features(), ..Introduction::default() };
        let mut settings = Settings::new(self.zone(), Arc::new(|| None), introduction);
        settings.features = self.features;
        let network = self.network.clone();
        let dial = move || -> BoxFuture<'static, io::Result<Box<dyn Pipe>>> {
            let dialled = network.clone().dial(road);
            Box::pin(async move { Ok(Box::new(dialled.await?) as Box<dyn Pipe>) })
        };
        let stored = (store.clone(), self.kinds.clone());
        let client = Client::new(stored, settings, dial, Arc::new(NoProxies), self.clock.clone())?;
        let (handle, stop) = (client.handle(), stop.clone());
        tasks.spawn(async move { client.run(stop).await });
        Ok((parts.api(About::default(), Some(handle.clone()), zone_cp::Told::default())?, handle))
    }

    /// The machine loses power. Of what was being written to the disk, anything may be there.
    pub(crate) fn crash(&mut self, random: &mut Rng) {
        self.truth.lock().note(format_args!("{} crashes", self.name));
        self.network.crash(self.road());
        self.disk.crash(|| random.bool());
        if let Some(mut life) = self.life.take() {
            life.tasks.abort_all();
        }
    }

    /// The program is told to end, and does.
    pub(crate) async fn stop(&mut self) {
        self.truth.lock().note(format_args!("{} stops", self.name));
        let Some(life) = self.life.take() else { return };
        let Life { store, router, stop, mut tasks, handle } = life;
        // Before it is told: tonic draws by lot whether it first says goodbye or sends what is due.
        self.network.leave(self.road());
        sleep_for(Duration::from_millis(2)).await;
        stop.cancel();
        drop((store, router, handle));
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(10), all).await.is_err() {
            self.truth.lock().note(format_args!("{} had to be killed", self.name));
        }
    }

    /// A user writes, or deletes if there is no spec.
    pub(crate) async fn ask(
        &self,
        kind: &Kind,
        key: &ResourceKey,
        wanted: Option<(u64, Value)>,
    ) -> Answer {
        self.ask_if(kind, key, wanted, None).await
    }

    /// The same on the condition that the resource is still the one of that tag.
    pub(crate) async fn ask_if(
        &self,
        kind: &Kind,
        key: &ResourceKey,
        wanted: Option<(u64, Value)>,
        tag: Option<HeaderValue>,
    ) -> Answer {
        let mut request = request(&Self::path(kind, key));
        if let Some(tag) = tag {
            request = request.header(header::IF_MATCH, tag);
        }
        let request = match wanted {
            None => request.method("DELETE").body(Body::empty()),
            Some((n, spec)) => {
                let body = document(kind, key, n, spec).to_string();
                let request = request.header(header::CONTENT_TYPE, "application/json");
                request.method("PUT").body(Body::from(body))
            }
        };
        match self.answer(request.expect("a path of names")).await {
            Some((parts, _)) if parts.status.is_success() => Answer::Done,
            Some((parts, text)) if !parts.status.is_server_error() => {
                Answer::Refused(parts.status, text)
            }
            Some(_) | None => Answer::Unknown,
        }
    }

    /// The tag of a resource as it is now.
    pub(crate) async fn tag(&self, kind: &Kind, key: &ResourceKey) -> Option<HeaderValue> {
        let request = request(&Self::path(kind, key)).body(Body::empty()).expect("a path of names");
        let (parts, _) = self.answer(request).await?;
        parts.headers.get(header::ETAG).cloned()
    }

    /// A user reads.
    pub(crate) async fn get(&self, path: &str) -> Option<Value> {
        let request = request(path).body(Body::empty()).expect("a path of names");
        let (parts, text) = self.answer(request).await?;
        serde_json::from_str(&text).ok().filter(|_| parts.status.is_success())
    }

    /// Where the API has a resource.
    pub(crate) fn path(kind: &Kind, key: &ResourceKey) -> String {
        match (&key.mesh, kind.scope) {
            (Some(mesh), Scope::Mesh) => format!("/meshes/{mesh}/{}/{}", kind.path, key.name),
            _ => format!("/{}/{}", kind.path, key.name),
        }
    }

    async fn answer(&self, request: Request<Body>) -> Option<(response::Parts, String)> {
        let router = self.life.as_ref()?.router.clone();
        let response = match router.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let (parts, body) = response.into_parts();
        let text = body.collect().await.map(http_body_util::Collected::to_bytes);
        Some((parts, String::from_utf8_lossy(&text.unwrap_or_default()).into_owned()))
    }

    /// Another version of its program is installed, which its next start takes: any of ours, or one
    /// that has nothing of ours.
    pub(crate) fn install(&mut self, random: &mut Rng) {
        let ours = [Feature::Resume, Feature::Split, Feature::Beacon];
        self.features = match random.u32(..4) {
            0 => Features::default(),
            1 => {
                let some = ours.into_iter().filter(|_| random.bool());
                some.fold(Features::default(), Features::with)
            }
            _ => metadata::own_features(),
        };
    }

    /// Its store, or why there is none.
    pub(crate) fn store(&self) -> Result<&Local> {
        let Some(life) = &self.life else { bail!("{} is not there", self.name) };
        Ok(&life.store)
    }
}

/// A request of the operator of the machine.
fn request(path: &str) -> http::request::Builder {
    let end = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let request = Request::builder().uri(path).header(header::HOST, "localhost");
    request.extension(serve::Connection { peer: end, local: end, tls: false })
}

fn document(kind: &Kind, key: &ResourceKey, n: u64, spec: Value) -> Value {
    let head = json!({
        "type": kind.name,
        "name": *key.name,
        "labels": { WRITE: n.to_string() },
    });
    let mesh = key.mesh.as_ref().map(|mesh| json!({ "mesh": mesh.as_str() }));
    let spec = if kind.inline { spec } else { json!({ "spec": spec }) };
    let parts = [Some(head), mesh, Some(spec)].into_iter().flatten();
    let fields = parts.filter_map(|part| part.as_object().cloned()).flatten();
    Value::Object(fields.collect())
}
