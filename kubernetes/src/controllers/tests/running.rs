//! The whole of it against an API server in memory, in paused time.

use super::{namespace, pod, service, settings, with};
use crate::{
    controllers::{Events, Parts, run},
    fake::Fake,
};
use daemon::Clock;
use jiff::Timestamp;
use kinds::{
    dataplane::Dataplane,
    mesh_service::{MeshService, State, Status},
};
use proto::kuma::mesh::v1alpha1::dataplane::networking::inbound::State as InboundState;
use resource::{Kind, Labels, MeshName, Peer, Resource, ResourceKey, label};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use store::{
    Backend as _, Expected, Item, Kinds, Local, Memory,
    view::{Edit, KindId, Reader},
};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// So long something may take.
const PATIENCE: Duration = Duration::from_secs(120);

struct World {
    fake: Fake,
    kinds: Arc<Kinds>,
    store: Local,
    tasks: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
    metrics: daemon::Metrics,
}

impl World {
    /// A cluster with a namespace in the mesh, and controllers that run.
    async fn new() -> Self {
        let fake = Fake::new();
        fake.put(namespace("shop"));
        let mut world = Self::asleep(fake).await;
        world.wake();
        world
    }

    /// The same without controllers.
    async fn asleep(fake: Fake) -> Self {
        let kinds = Kinds { list: kinds::all().collect(), peer: Peer::Global };
        let clock = Clock::since(Timestamp::UNIX_EPOCH);
        let (store, writer) = store::open(Memory::new(1), kinds.clone(), clock).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { Ok(writer.run().await?) });
        let stop = CancellationToken::new();
        let world = Self {
            fake,
            kinds: Arc::new(kinds),
            store,
            tasks,
            stop,
            metrics: daemon::Metrics::default(),
        };
        world.put_mesh("default").await;
        world
    }

    fn wake(&mut self) {
        let client = self.fake.client();
        let clock = Clock::since(Timestamp::UNIX_EPOCH);
        let (events, writer) =
            Events::new(client.clone(), "zone-cp-0".into(), clock, &self.metrics);
        let (store, kinds) = (self.store.clone(), self.kinds.clone());
        let metrics = self.metrics.clone();
        let parts = Parts { client, store, kinds, settings: settings(), events, metrics };
        self.tasks.spawn(run(parts, self.stop.clone()));
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            writer.run(stop).await;
            Ok(())
        });
    }

    /// Ends the controllers and begins with others.
    fn sleep(&mut self) {
        std::mem::take(&mut self.stop).cancel();
    }

    fn id(&self, kind: Kind) -> KindId {
        self.kinds.id_of(kind.name).unwrap()
    }

    async fn put_mesh(&self, name: &str) {
        let spec = bytes::Bytes::new();
        let kind = kinds::mesh::KIND;
        let row = kind.resource(
            ResourceKey::global(name),
            Labels::default(),
            spec.clone(),
            spec,
            Peer::Global,
        );
        self.commit(kind, row.unwrap()).await;
    }

    async fn commit(&self, kind: Kind, row: Resource) {
        let (kind, edit) = (self.id(kind), Edit::Put(Arc::new(row)));
        let item = Item { kind, expected: Expected::Anything, edit };
        let committed = self.store.commit(vec![item]).await.unwrap();
        self.store.wait_for(committed.revision).await.unwrap();
    }

    fn get(&self, kind: Kind, name: &str) -> Option<Arc<Resource>> {
        self.store.reader().get(self.id(kind), &key(name))
    }

    /// Waits until `done` says so of the store.
    async fn until(&self, kind: Kind, mut done: impl FnMut(&Reader, KindId) -> bool) {
        let (reader, kind) = (self.store.reader(), self.id(kind));
        let mut watch = reader.watch([kind].into_iter().collect());
        let waiting = async {
            while !done(&reader, kind) {
                watch.dirty().await.unwrap();
            }
        };
        timeout(PATIENCE, waiting).await.expect("it never becomes so");
    }

    async fn until_dataplane(&self, name: &str, done: impl Fn(Option<&Dataplane>) -> bool) {
        let name = key(name);
        let read = |row: Arc<Resource>| kinds::read::<Dataplane>(&row).unwrap();
        let is = move |reader: &Reader, kind| done(reader.get(kind, &name).map(read).as_deref());
        self.until(kinds::dataplane::KIND, is).await;
    }

    async fn until_service(&self, name: &str, is_there: bool) {
        let name = key(name);
        let kind = kinds::mesh_service::KIND;
        self.until(kind, move |reader, kind| reader.get(kind, &name).is_some() == is_there).await;
    }

    /// Waits until nothing happens any more.
    async fn settle(&self) {
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn key(name: &str) -> ResourceKey {
    ResourceKey::in_mesh(&MeshName::new("default").unwrap(), name)
}

fn is_ready(dataplane: Option<&Dataplane>) -> bool {
    dataplane.is_some_and(|it| it.inbounds().iter().any(|it| it.state() == InboundState::Ready))
}

fn not_ready(pod: Value) -> Value {
    with(pod, [("/status/conditions", json!([{ "type": "Ready", "status": "False" }]))])
}

#[tokio::test(start_paused = true)]
async fn a_pod_becomes_a_dataplane_and_its_readiness_costs_one_write() {
    let world = World::new().await;
    world.fake.put(service("cart", "10.96.0.1"));
    world.fake.put(not_ready(pod("cart-1", "cart", "10.1.0.1")));
    world.until_service("cart.shop", true).await;
    world.until_dataplane("cart-1.shop", |it| it.is_some_and(|it| !is_ready(Some(it)))).await;
    world.settle().await;

    let before = world.store.reader().revision();
    world.fake.put(pod("cart-1", "cart", "10.1.0.1"));
    world.until_dataplane("cart-1.shop", is_ready).await;
    world.settle().await;
    assert_eq!(world.store.reader().revision().0, before.0 + 1);

    // What its proxy says of itself goes with it.
    let insight = kinds::dataplane_insight::KIND;
    let empty = || bytes::Bytes::new();
    let row =
        insight.resource(key("cart-1.shop"), Labels::default(), empty(), empty(), Peer::Global);
    world.commit(insight, row.unwrap()).await;
    world.fake.delete(&pod("cart-1", "cart", "10.1.0.1"));
    world.until_dataplane("cart-1.shop", |it| it.is_none()).await;
    world.settle().await;
    assert!(world.get(insight, "cart-1.shop").is_none());
    world.fake.delete(&service("cart", "10.96.0.1"));
    world.until_service("cart.shop", false).await;
}

#[tokio::test(start_paused = true)]
async fn idle_controllers_ask_nothing_but_what_changes() {
    let world = World::new().await;
    world.fake.put(service("cart", "10.96.0.1"));
    world.fake.put(pod("cart-1", "cart", "10.1.0.1"));
    world.until_dataplane("cart-1.shop", is_ready).await;
    world.settle().await;
    world.fake.take_requests();
    // Nothing that matters.
    world.fake.put(with(pod("cart-1", "cart", "10.1.0.1"), [("/status/message", json!("beat"))]));
    let before = world.store.reader().revision();
    tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_secs(3600)).await;
    let others = world.fake.take_requests();
    let others: Vec<_> = others.iter().filter(|it| !it.starts_with("WATCH ")).collect();
    assert_eq!((others, world.store.reader().revision()), (Vec::<&String>::new(), before));
}

#[tokio::test(start_paused = true)]
async fn what_went_while_nobody_worked_is_gone_afterwards() {
    let mut world = World::new().await;
    let (cart, web) = (pod("cart-1", "cart", "10.1.0.1"), pod("web-1", "web", "10.1.0.2"));
    for object in
        [cart.clone(), web.clone(), service("cart", "10.96.0.1"), service("web", "10.96.0.2")]
    {
        world.fake.put(object);
    }
    world.until_dataplane("cart-1.shop", is_ready).await;
    world.until_dataplane("web-1.shop", is_ready).await;
    world.until_service("cart.shop", true).await;
    world.sleep();
    world.settle().await;
    world.fake.delete(&cart);
    world.fake.delete(&service("cart", "10.96.0.1"));
    world.settle().await;
    assert!(world.get(kinds::dataplane::KIND, "cart-1.shop").is_some());
    world.wake();
    world.until_dataplane("cart-1.shop", |it| it.is_none()).await;
    world.until_service("cart.shop", false).await;
    assert!(world.get(kinds::dataplane::KIND, "web-1.shop").is_some());
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_while_the_api_server_is_away_and_what_was_missed_is_found() {
    let world = World::new().await;
    let cart = pod("cart-1", "cart", "10.1.0.1");
    world.fake.put(cart.clone());
    world.fake.put(service("cart", "10.96.0.1"));
    world.until_dataplane("cart-1.shop", is_ready).await;
    let before = world.store.reader().revision();
    world.fake.set_down(true);
    tokio::time::advance(Duration::from_secs(60)).await;
    world.settle().await;
    assert_eq!(world.store.reader().revision(), before);
    // It forgets what happened meanwhile, so all of it is listed anew.
    world.fake.delete(&cart);
    world.fake.put(pod("cart-2", "cart", "10.1.0.2"));
    world.fake.compact();
    world.fake.set_down(false);
    world.until_dataplane("cart-2.shop", is_ready).await;
    world.until_dataplane("cart-1.shop", |it| it.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_zone_says_about_a_service_stays() {
    let world = World::new().await;
    world.fake.put(service("cart", "10.96.0.1"));
    world.until_service("cart.shop", true).await;
    let kind = kinds::mesh_service::KIND;
    let row = world.get(kind, "cart.shop").unwrap();
    let spec = kinds::read::<MeshService>(&row).unwrap();
    let spec = MeshService { state: State::Available, ..(*spec).clone() };
    let mut status = kinds::status::<MeshService>(&row).unwrap();
    assert_eq!(status.vips[0].ip, "10.96.0.1");
    status.dataplane_proxies.total = 7;
    let bytes = kind.encode(&(Arc::new(spec.clone()) as resource::AnySpec)).unwrap();
    // As an API server may write it.
    let json = serde_json::to_vec_pretty(&status).unwrap();
    let row = kind.resource(
        row.head.key.clone(),
        row.head.labels.clone(),
        bytes,
        json.clone().into(),
        Peer::Global,
    );
    world.commit(kind, row.unwrap()).await;
    world.settle().await;
    let kept = world.get(kind, "cart.shop").unwrap().status.clone();
    assert!(kept == json, "there was nothing to write");

    world.fake.put(with(service("cart", "10.96.0.1"), [("/spec/ports/0/port", json!(8080))]));
    let changed = |reader: &Reader, kind| {
        let row = reader.get(kind, &key("cart.shop")).unwrap();
        kinds::read::<MeshService>(&row).unwrap().ports[0].port == 8080
    };
    world.until(kind, changed).await;
    let row = world.get(kind, "cart.shop").unwrap();
    let status: Status = kinds::status::<MeshService>(&row).unwrap();
    assert_eq!(kinds::read::<MeshService>(&row).unwrap().state, State::Available);
    assert_eq!((status.dataplane_proxies.total, &*status.vips[0].ip), (7, "10.96.0.1"));
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_wrote_is_left_alone_and_its_pod_is_told() {
    let world = World::asleep(Fake::new()).await;
    let mut world = world;
    let kind = kinds::dataplane::KIND;
    let json = json!({ "networking": { "address": "192.0.2.1" } });
    let bytes = kind.encode(&kind.from_json(json).unwrap()).unwrap();
    let labels = [(label::NAMESPACE, "shop"), (label::DISPLAY_NAME, "cart-1")];
    let labels = labels.into_iter().collect();
    let row = kind.resource(key("cart-1.shop"), labels, bytes, "".into(), Peer::Global);
    world.commit(kind, row.unwrap()).await;
    world.fake.put(namespace("shop"));
    world.fake.put(pod("cart-1", "cart", "10.1.0.1"));
    world.fake.put(pod("cart-2", "cart", "10.1.0.2"));
    world.wake();
    world.until_dataplane("cart-2.shop", |it| it.is_some()).await;
    world.settle().await;
    let row = world.get(kind, "cart-1.shop").unwrap();
    assert_eq!(row.head.labels.get(label::MANAGED_BY), None);
    let events = told(&world.fake);
    let about = ["Pod", "cart-1", "NameTaken"].map(str::to_owned);
    assert!(events.contains(&about), "{events:?}");
}

/// Kind, name and reason of the events that were told.
fn told(fake: &Fake) -> Vec<[String; 3]> {
    let text = |event: &Value, pointer: &str| {
        event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let events = fake.objects("/events/").into_iter();
    let pointers = ["/regarding/kind", "/regarding/name", "/reason"];
    events.map(|event| pointers.map(|pointer| text(&event, pointer))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_its_mesh() {
    let world = World::new().await;
    world.fake.put(with(namespace("shop"), [("/metadata/labels/kuma.io~1mesh", json!("late"))]));
    world.fake.put(pod("cart-1", "cart", "10.1.0.1"));
    world.settle().await;
    world.settle().await;
    let no_mesh = ["Pod", "cart-1", "NoMesh"].map(str::to_owned);
    assert!(told(&world.fake).contains(&no_mesh), "{:?}", told(&world.fake));
    world.put_mesh("late").await;
    let late = ResourceKey::in_mesh(&MeshName::new("late").unwrap(), "cart-1.shop");
    world.until(kinds::dataplane::KIND, |reader, kind| reader.get(kind, &late).is_some()).await;
    // It moves to another mesh.
    world.fake.put(namespace("shop"));
    world.until_dataplane("cart-1.shop", |it| it.is_some()).await;
    world.until(kinds::dataplane::KIND, |reader, kind| reader.get(kind, &late).is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_made_in_a_namespace_that_goes() {
    let world = World::new().await;
    world.fake.put(pod("cart-1", "cart", "10.1.0.1"));
    world.until_dataplane("cart-1.shop", |it| it.is_some()).await;
    world.fake.put(with(namespace("shop"), [("/status", json!({ "phase": "Terminating" }))]));
    world.settle().await;
    let before = world.store.reader().revision();
    world.fake.put(service("cart", "10.96.0.1"));
    world.fake.put(pod("cart-2", "cart", "10.1.0.2"));
    world.settle().await;
    assert!(world.get(kinds::dataplane::KIND, "cart-2.shop").is_none());
    assert!(world.get(kinds::mesh_service::KIND, "cart.shop").is_none());
    assert!(world.store.reader().revision() >= before);
    // Somebody takes away what was made there: it does not come back.
    let (kind, edit) = (world.id(kinds::dataplane::KIND), Edit::Delete(key("cart-1.shop")));
    let item = Item { kind, expected: Expected::Anything, edit };
    world.store.commit(vec![item]).await.unwrap();
    world.settle().await;
    assert!(world.get(kinds::dataplane::KIND, "cart-1.shop").is_none());
}

#[tokio::test(start_paused = true)]
async fn an_ingress_is_advertised_while_it_is_ready() {
    let world = World::new().await;
    let labels = json!({ "app": "in", "k8s.kuma.io/zone-proxy-type": "ingress" });
    let ingress = with(pod("in-1", "in", "10.1.0.3"), [("/metadata/labels", labels.clone())]);
    world.fake.put(with(
        service("in", "10.96.0.3"),
        [("/metadata/labels", labels), ("/spec/externalIPs", json!(["203.0.113.9"]))],
    ));
    world.fake.put(not_ready(ingress.clone()));
    world.until_dataplane("in-1.shop", |it| it.is_some()).await;
    world.settle().await;
    let kind = kinds::mesh_zone_address::KIND;
    assert!(world.get(kind, "in.shop").is_none());
    let is =
        |there| move |reader: &Reader, kind| reader.get(kind, &key("in.shop")).is_some() == there;
    world.fake.put(ingress.clone());
    world.until(kind, is(true)).await;
    world.fake.put(not_ready(ingress));
    world.until(kind, is(false)).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_odd_is_told_about_and_the_rest_goes_on() {
    let world = World::new().await;
    let long = "x".repeat(253);
    let most = "v".repeat(63);
    world.fake.put(pod(&long, "cart", "10.1.0.1"));
    world.fake.put(with(
        pod("bad", "cart", "10.1.0.2"),
        [(
            "/metadata/annotations/kuma.io~1reachable-backends",
            json!(r#"{"refs":[{"kind":"Service","name":"x"}]}"#),
        )],
    ));
    world.fake.put(with(pod("no-ip", "cart", ""), [("/status", json!({ "phase": "Pending" }))]));
    world.fake.put(with(service("no-port", "10.96.0.1"), [("/spec/ports", json!([]))]));
    let headless =
        [("/spec/clusterIPs", json!(["None"])), ("/spec/selector", json!({ "app": "cart" }))];
    world.fake.put(with(service("each", "None"), headless));
    let full = [("/metadata/labels/full", json!(most))];
    world.fake.put(with(pod("cart-1", "cart", "10.1.0.3"), full));
    world.until_dataplane("cart-1.shop", |it| it.is_some()).await;
    world.settle().await;
    world.settle().await;
    let mut told = told(&world.fake);
    told.sort();
    let expected = [
        ["Pod", "bad", "Invalid"],
        ["Pod", &long, "NameTooLong"],
        ["Service", "no-port", "NoPort"],
    ];
    assert_eq!(told, expected.map(|event| event.map(str::to_owned)));
    let row = world.get(kinds::dataplane::KIND, "cart-1.shop").unwrap();
    assert_eq!(row.head.labels.get("full"), Some(&*most));
    let (_, services) = world.store.reader().rows(world.id(kinds::mesh_service::KIND));
    assert_eq!(services.len(), 3, "one for each pod that has an address");
}
