use super::*;
use crate::{
    apply::Names,
    observe::Unobserved,
    testkinds::{CONFIG, MESH, TIMEOUT, kinds, zone},
    transit::hashed_name,
};
use daemon::Clock;
use jiff::Timestamp;
use parking_lot::Mutex;
use prost_types::Any;
use proto::{
    envoy::service::discovery::v3::Resource,
    kuma::mesh::v1alpha1::{KumaResource, kuma_resource::Meta},
};
use resource::{Labels, Peer, ResourceKey, label};
use store::{
    Committed, Expected, Local, Memory as Nothing, StoreError, open,
    view::{Edit, Rows},
};
use tokio::task::JoinSet;

/// A store into which others write just before the next commit, as often as that is said.
struct Raced {
    store: Local,
    others: Mutex<Vec<Item>>,
}

impl Backend for Raced {
    async fn commit(&self, batch: Vec<Item>) -> Result<Committed, StoreError> {
        let other = self.others.lock().pop();
        if let Some(other) = other {
            self.store.commit(vec![other]).await?;
        }
        self.store.commit(batch).await
    }

    async fn wait_for(&self, revision: Revision) -> Result<(), StoreError> {
        self.store.wait_for(revision).await
    }

    fn reader(&self) -> Reader {
        self.store.reader()
    }

    fn epoch(&self) -> u64 {
        self.store.epoch()
    }
}

fn key(name: &str) -> ResourceKey {
    ResourceKey::in_mesh(&"default".parse().unwrap(), name)
}

fn put(kinds: &Kinds, zone: &str, seconds: u8) -> Item {
    let labels = Labels::from_iter([(label::ORIGIN, "zone"), (label::ZONE, zone)]);
    let spec = format!(r#"{{"seconds":{seconds}}}"#).into();
    let row = TIMEOUT.resource(key("web"), labels, spec, "".into(), Peer::Zone).unwrap();
    let kind = kinds.id_of(TIMEOUT.name).unwrap();
    Item { kind, expected: Expected::Anything, edit: Edit::Put(Arc::new(row)) }
}

fn response(nonce: &str, seconds: u8) -> DeltaDiscoveryResponse {
    let spec = format!(r#"{{"seconds":{seconds}}}"#).into_bytes();
    let meta = Meta { name: "web".into(), mesh: "default".into(), ..Meta::default() };
    let spec = Some(Any { type_url: String::new(), value: spec });
    let resource = KumaResource { meta: Some(meta), spec, status: None };
    let resource = Resource {
        name: "web.default".into(),
        resource: Some(proto::pack(&resource)),
        ..Resource::default()
    };
    DeltaDiscoveryResponse {
        type_url: TIMEOUT.name.into(),
        nonce: nonce.into(),
        resources: vec![resource],
        ..DeltaDiscoveryResponse::default()
    }
}

/// Global gets one response of east, while others write; returns its answer and its rows.
async fn race(
    others: impl FnOnce(&Kinds) -> Vec<Item>,
) -> (Result<DeltaDiscoveryRequest, StreamEnded>, Rows) {
    let mut tasks = JoinSet::new();
    let kinds = Arc::new(kinds(Peer::Zone));
    let clock = Clock::since(Timestamp::UNIX_EPOCH);
    let (local, writer) = open(Nothing::new(1), (*kinds).clone(), clock).unwrap();
    tasks.spawn(async { writer.run().await.unwrap() });
    let store = Raced { store: local, others: Mutex::new(others(&kinds)) };
    let who = Who::Zone { name: zone("east"), visibility: Visibility::Shown, names: Names::Hashed };
    let sender = Sender { who, dialect: Dialect::Plain };
    let mut asking = Asking::of_zone(kinds.clone(), sender, &zone("east"), &Places::new());
    let report = Report::new(Arc::new(Unobserved), zone("east"));
    let taken = asking.take(response("1", 1), &store.reader()).unwrap();
    let Taken::Ready(mut ready) = taken else { panic!("{taken:?}") };
    let settled = asking.settle(&store, ready.remove(0), &report).await;
    let answer = settled.map(|settled| settled.answer);
    let (_, rows) = store.reader().rows(kinds.id_of(TIMEOUT.name).unwrap());
    (answer, rows)
}

fn spec(rows: &Rows) -> &[u8] {
    &rows.get(&key("web")).unwrap().spec
}

#[tokio::test(start_paused = true)]
async fn what_others_wrote_meanwhile_is_judged_again() {
    let (answered, rows) = race(|kinds| vec![put(kinds, "east", 9)]).await;
    assert_eq!(answered.unwrap(), answer(&zone("east"), TIMEOUT.name, "1", &[]));
    assert_eq!(spec(&rows), br#"{"seconds":1}"#);

    // It is somebody else's now.
    let (answered, rows) = race(|kinds| vec![put(kinds, "west", 9)]).await;
    let error = answered.unwrap().error_detail.unwrap();
    assert_eq!(error.message, r#"web.default: meta.name: belongs to zone "west""#);
    assert_eq!(spec(&rows), br#"{"seconds":9}"#);
}

/// A store that does not take what is called `bad`.
struct Picky(Local);

impl Backend for Picky {
    async fn commit(&self, batch: Vec<Item>) -> Result<Committed, StoreError> {
        let is_bad =
            |item: &Item| matches!(&item.edit, Edit::Put(row) if *row.head.key.name == *"bad");
        let bad: Vec<bool> = batch.iter().map(is_bad).collect();
        let good = batch.into_iter().filter(|item| !is_bad(item)).collect();
        let mut committed = self.0.commit(good).await?;
        for at in bad.iter().enumerate().filter_map(|(at, bad)| bad.then_some(at)) {
            let refused = Outcome::Refused { reason: "exceeded quota".into() };
            committed.outcomes.insert(at, refused);
        }
        Ok(committed)
    }

    async fn wait_for(&self, revision: Revision) -> Result<(), StoreError> {
        self.0.wait_for(revision).await
    }

    fn reader(&self) -> Reader {
        self.0.reader()
    }

    fn epoch(&self) -> u64 {
        self.0.epoch()
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_store_does_not_take_is_refused_by_name_and_the_rest_is_there() {
    let mut tasks = JoinSet::new();
    let kinds = Arc::new(kinds(Peer::Zone));
    let clock = Clock::since(Timestamp::UNIX_EPOCH);
    let (local, writer) = open(Nothing::new(1), (*kinds).clone(), clock).unwrap();
    tasks.spawn(async { writer.run().await.unwrap() });
    let store = Picky(local);
    let who = Who::Zone { name: zone("east"), visibility: Visibility::Shown, names: Names::Hashed };
    let sender = Sender { who, dialect: Dialect::Plain };
    let mut asking = Asking::of_zone(kinds.clone(), sender, &zone("east"), &Places::new());
    let report = Report::new(Arc::new(Unobserved), zone("east"));
    let mut both = response("1", 1);
    let mut bad = response("1", 2).resources.remove(0);
    let spec = Some(Any { type_url: String::new(), value: br#"{"seconds":2}"#.to_vec() });
    let meta = Meta { name: "bad".into(), mesh: "default".into(), ..Meta::default() };
    bad.name = "bad.default".into();
    bad.resource = Some(proto::pack(&KumaResource { meta: Some(meta), spec, status: None }));
    both.resources.insert(0, bad);
    let taken = asking.take(both, &store.reader()).unwrap();
    let Taken::Ready(mut ready) = taken else { panic!("{taken:?}") };
    let settled = asking.settle(&store, ready.remove(0), &report).await.unwrap();
    assert_eq!(settled.answer.error_detail.unwrap().message, "bad.default: exceeded quota");
    let (_, rows) = store.reader().rows(kinds.id_of(TIMEOUT.name).unwrap());
    assert!(rows.get(&key("web")).is_some() && rows.get(&key("bad")).is_none());
}

#[tokio::test(start_paused = true)]
async fn who_is_overtaken_all_the_time_starts_over() {
    let writes = |kinds: &Kinds| (0..90).map(|seconds| put(kinds, "east", seconds)).collect();
    let (answered, _) = race(writes).await;
    assert!(matches!(answered, Err(StreamEnded::Contended)), "{answered:?}");
}

#[test]
fn a_state_that_comes_in_parts_is_not_interrupted() {
    let kinds = Arc::new(kinds(Peer::Zone));
    let (_, reader) = store::view::view(kinds.iter().map(|_| Default::default()), 4);
    let who = Who::Zone { name: zone("east"), visibility: Visibility::Shown, names: Names::Hashed };
    let dialect = Dialect::Ours(crate::metadata::own_features());
    let sender = Sender { who, dialect };
    let mut asking = Asking::of_zone(kinds, sender, &zone("east"), &Places::new());
    let report = Report::new(Arc::new(Unobserved), zone("east"));
    let saying = |nonce: &str, extent: &str| DeltaDiscoveryResponse {
        system_version_info: extent.into(),
        ..response(nonce, 1)
    };
    let taken = asking.take(saying("1", "part"), &reader).unwrap();
    let Taken::Ready(ready) = taken else { panic!("{taken:?}") };
    let judged = asking.judge(&reader, &ready[0]);
    asking.applied(&ready[0], judged, Revision(1), &report);
    assert_eq!(asking.places(), Places::new(), "it is at no place");
    let broken = asking.take(saying("2", "delta e/7"), &reader).unwrap_err();
    assert!(matches!(broken, StreamEnded::Broken(Broken::Parts)), "{broken:?}");
    let taken = asking.take(saying("3", "complete e/7"), &reader).unwrap();
    assert!(matches!(taken, Taken::Ready(_)), "{taken:?}");
}

/// What others change later is looked for from then on, not from the beginning, where nothing is.
#[test]
fn a_stream_that_brings_nothing_leaves_places_as_they_were() {
    let kinds = Arc::new(kinds(Peer::Zone));
    let who = Who::Zone { name: zone("east"), visibility: Visibility::Shown, names: Names::Hashed };
    let sender = Sender { who, dialect: Dialect::Ours(crate::metadata::own_features()) };
    let (id, _) = kinds.iter().find(|(_, kind)| kind.flow.goes_up()).unwrap();
    let cursor = Some(delta::Cursor { epoch: 7, revision: 3 });
    let places = Places::from([(id, (Place { cursor, ..Place::default() }, Revision(9)))]);
    let asking = Asking::of_zone(kinds, sender, &zone("east"), &places);
    assert_eq!(asking.places(), places);
}

/// A timeout of east as it comes from one of ours.
fn own(number: usize, seconds: usize) -> Resource {
    let display = format!("web-{number}");
    let mesh = "default".parse().unwrap();
    let name = hashed_name(Some(&mesh), &display, [Some("east"), None]);
    let labels = [(label::ORIGIN, "zone"), (label::ZONE, "east"), (label::DISPLAY_NAME, &*display)];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let meta = Meta { name: name.clone(), mesh: "default".into(), labels, ..Meta::default() };
    let spec = format!(r#"{{"seconds":{seconds}}}"#).into_bytes();
    let spec = Some(Any { type_url: String::new(), value: spec });
    Resource {
        name: format!("{name}.default"),
        version: format!("{seconds:032x}"),
        resource: Some(proto::pack(&KumaResource { meta: Some(meta), spec, status: None })),
        ..Resource::default()
    }
}

/// So many responses, one after the other.
fn responses(
    count: usize,
    make: impl Fn(usize) -> (&'static str, Vec<Resource>),
) -> Vec<DeltaDiscoveryResponse> {
    let response = |number: usize| {
        let (extent, resources) = make(number);
        DeltaDiscoveryResponse {
            system_version_info: extent.into(),
            nonce: number.to_string(),
            resources,
            ..response("", 1)
        }
    };
    (1..=count).map(response).collect()
}

/// What becomes of a stream of east on which all these come, and where east is then.
async fn run(all: Vec<DeltaDiscoveryResponse>) -> (StreamEnded, Places) {
    let mut tasks = JoinSet::new();
    let kinds = Arc::new(kinds(Peer::Zone));
    let clock = Clock::since(Timestamp::UNIX_EPOCH);
    let (store, writer) = open(Nothing::new(1), (*kinds).clone(), clock).unwrap();
    tasks.spawn(async { writer.run().await.unwrap() });
    let who = Who::Zone { name: zone("east"), visibility: Visibility::Shown, names: Names::Hashed };
    let dialect = Dialect::Ours(crate::metadata::own_features());
    let mut asking = Asking::of_zone(kinds, Sender { who, dialect }, &zone("east"), &Places::new());
    let report = Report::new(Arc::new(Unobserved), zone("east"));
    let (requests, _answers) = mpsc::channel(all.len());
    let all = futures::stream::iter(all.into_iter().map(Ok));
    let ended = asking.run(&store, all, requests, &report, || Visibility::Shown).await;
    (ended, asking.places())
}

const MORE: usize = limit::IDLE as usize + 100;

#[tokio::test(start_paused = true)]
async fn a_long_state_that_is_known_already_is_taken_to_its_end() {
    let all = responses(MORE + 1, |number| match number {
        1 => ("complete 1/1", (2..=MORE + 1).map(|number| own(number, 1)).collect()),
        last if last > MORE => ("complete 1/2", vec![own(last, 1)]),
        number => ("part", vec![own(number, 1)]),
    });
    let (ended, places) = run(all).await;
    assert!(matches!(ended, StreamEnded::ByPeer), "{ended:?}");
    assert_eq!(places.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_same_part_without_end_is_not() {
    let (ended, _) = run(responses(MORE, |_| ("part", vec![own(1, 1)]))).await;
    assert!(matches!(ended, StreamEnded::Broken(Broken::Idle)), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn new_refusals_are_no_reason_to_end_and_the_same_ones_are() {
    let bad = |seconds: fn(usize) -> usize| {
        responses(MORE, move |number| ("delta 1/1", vec![own(1, 100 + seconds(number))]))
    };
    let (ended, _) = run(bad(|number| number)).await;
    assert!(matches!(ended, StreamEnded::ByPeer), "{ended:?}");
    let (ended, _) = run(bad(|_| 0)).await;
    assert!(matches!(ended, StreamEnded::Broken(Broken::Idle)), "{ended:?}");
    // Nor is it one that nobody remembers what was refused before.
    let many = |number| match number {
        1 => ("complete 1/1", (0..=limit::REFUSED).map(|number| own(number, 100)).collect()),
        _ => ("delta 1/1", vec![own(1, 100)]),
    };
    let (ended, _) = run(responses(MORE, many)).await;
    assert!(matches!(ended, StreamEnded::Broken(Broken::Idle)), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn who_refused_more_than_is_remembered_is_at_no_place_until_all_is_said_anew() {
    let bad = |count: usize| (0..count).map(|number| own(number, 100)).collect::<Vec<_>>();
    let refused = |count: usize, then: Vec<(&'static str, Vec<Resource>)>| {
        responses(1 + then.len(), move |number| match number {
            1 => ("complete 1/1", bad(count)),
            number => then[number - 2].clone(),
        })
    };
    let at = |places: &Places| places.values().next().map(|(place, _)| place.refused.len());
    let (_, places) = run(refused(limit::REFUSED, vec![])).await;
    assert_eq!(at(&places), Some(limit::REFUSED));
    let change = || ("delta 1/2", vec![own(0, 1)]);
    let (_, places) = run(refused(limit::REFUSED + 1, vec![change()])).await;
    assert_eq!(at(&places), None, "it would seem to have taken the others");
    let all = ("complete 1/3", vec![own(0, 1)]);
    let (_, places) = run(refused(limit::REFUSED + 1, vec![change(), all])).await;
    assert_eq!(at(&places), Some(0));
}

/// A zone of ours that remembers nothing, and asks a global for everything.
fn of_global(kinds: &Arc<Kinds>) -> (Facts, Asking) {
    let facts = Facts::of(kinds).unwrap();
    (facts, Asking::of_global(kinds.clone(), &zone("east"), (facts, None), None))
}

#[tokio::test(start_paused = true)]
async fn what_came_last_on_a_stream_is_remembered_when_it_ends() {
    let mut tasks = JoinSet::new();
    let kinds = Arc::new(kinds(Peer::Global));
    let clock = Clock::since(Timestamp::UNIX_EPOCH);
    let (store, writer) = open(Nothing::new(1), (*kinds).clone(), clock).unwrap();
    tasks.spawn(async { writer.run().await.unwrap() });
    let (facts, mut asking) = of_global(&kinds);
    let identity = Identity { id: "c1".into(), epoch: Some(1) };
    let presented = Presented { identity, revision: 7 };
    let ours = Dialect::Ours(crate::metadata::own_features());
    asking.met(ours, Some(presented.clone())).unwrap();
    let meshes = DeltaDiscoveryResponse {
        type_url: MESH.name.into(),
        nonce: "1".into(),
        system_version_info: "complete 1/7".into(),
        ..DeltaDiscoveryResponse::default()
    };
    let report = Report::new(Arc::new(Unobserved), zone("east"));
    let (requests, _answers) = mpsc::channel(9);
    // It ends before there was time for anything else.
    let all = futures::stream::iter([Ok(meshes)]);
    let ended = asking.run(&store, all, requests, &report, || Visibility::Shown).await;
    assert!(matches!(ended, StreamEnded::ByPeer), "{ended:?}");
    let memory = facts.memory(&store.reader()).unwrap();
    assert_eq!((&memory.identity, memory.revision), (&presented.identity, 7));
    assert_eq!(memory.places.into_keys().collect::<Vec<_>>(), [MESH.name]);
}

#[test]
fn a_global_says_each_kind_once_before_it_says_who_it_is() {
    let kinds = Arc::new(kinds(Peer::Global));
    let (_, reader) = store::view::view(kinds.iter().map(|_| Default::default()), 4);
    let (_, mut asking) = of_global(&kinds);
    let taken = asking.take(response("1", 1), &reader).unwrap();
    let Taken::Ready(ready) = taken else { panic!("{taken:?}") };
    assert!(ready.is_empty(), "it is kept back");
    let ended = asking.take(response("2", 1), &reader).unwrap_err();
    assert!(matches!(ended, StreamEnded::Broken(Broken::Flood)), "{ended:?}");
}

/// It said so before it was known who it is.
#[test]
fn a_global_that_has_no_meshes_takes_none_away_whatever_it_says_first() {
    let kinds = Arc::new(kinds(Peer::Global));
    let (writer, reader) = store::view::view(kinds.iter().map(|_| Default::default()), 4);
    let own = ResourceKey::global("own");
    let row = MESH.resource(own, Labels::default(), "{}".into(), "".into(), Peer::Global).unwrap();
    writer.apply([(kinds.id_of(MESH.name).unwrap(), Edit::Put(Arc::new(row)))]);
    let (_, mut asking) = of_global(&kinds);
    let meshes = DeltaDiscoveryResponse {
        type_url: MESH.name.into(),
        resources: Vec::new(),
        ..response("1", 1)
    };
    let taken = asking.take(meshes, &reader).unwrap();
    assert!(matches!(&taken, Taken::Ready(ready) if ready.is_empty()), "{taken:?}");
    let id = Any { value: br#"{"config":"c1"}"#.into(), ..Any::default() };
    let meta = Meta { name: "kuma-cluster-id".into(), ..Meta::default() };
    let id = KumaResource { meta: Some(meta), spec: Some(id), status: None };
    let id = Resource {
        name: "kuma-cluster-id.".into(),
        resource: Some(proto::pack(&id)),
        ..Resource::default()
    };
    let who = DeltaDiscoveryResponse {
        type_url: CONFIG.name.into(),
        resources: vec![id],
        ..response("2", 1)
    };
    let taken = asking.take(who, &reader).unwrap();
    assert!(matches!(&taken, Taken::Held(Held::RemovesAll { kind: "Mesh", .. })), "{taken:?}");
}

#[test]
fn a_place_that_a_global_does_not_know_is_asked_of_it_no_more() {
    let kinds = Arc::new(kinds(Peer::Global));
    let cursor = Some(delta::Cursor { epoch: 1, revision: 7 });
    let place = Place { cursor, ..Place::default() };
    let identity = Identity { id: "c1".into(), epoch: None };
    let places = [(TIMEOUT.name.to_owned(), place)].into();
    let memory = Memory { identity, revision: 7, places };
    let asking = |memory| {
        let facts = Facts::of(&kinds).unwrap();
        Asking::of_global(kinds.clone(), &zone("east"), (facts, memory), None)
    };
    let ours = Dialect::Ours(crate::metadata::own_features());
    assert_eq!(asking(Some(memory.clone())).met(ours, None), Ok(()));
    assert_eq!(asking(Some(memory)).met(Dialect::Plain, None), Err(Forgotten));
    assert_eq!(asking(None).met(Dialect::Plain, None), Ok(()));
}
