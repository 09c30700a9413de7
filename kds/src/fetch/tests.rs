use super::*;
use crate::{
    apply::Names,
    observe::Unobserved,
    testkinds::{TIMEOUT, kinds, zone},
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
    let answer = settled.map(|(answer, _)| answer);
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
    let saying = |extent: &str| DeltaDiscoveryResponse {
        system_version_info: extent.into(),
        ..response("1", 1)
    };
    let taken = asking.take(saying("part"), &reader).unwrap();
    let Taken::Ready(ready) = taken else { panic!("{taken:?}") };
    let judged = asking.judge(&reader, &ready[0]);
    asking.applied(&ready[0], judged, Revision(1), &report);
    assert_eq!(asking.places(), Places::new(), "it is at no place");
    let broken = asking.take(saying("delta e/7"), &reader).unwrap_err();
    assert!(matches!(broken, StreamEnded::Broken(Broken::Parts)), "{broken:?}");
    let taken = asking.take(saying("complete e/7"), &reader).unwrap();
    assert!(matches!(taken, Taken::Ready(_)), "{taken:?}");
}
