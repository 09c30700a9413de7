//! A global that lost what it had: the zone keeps all, says what would become of it, and waits.

use super::world::{Address, Global, PATIENCE, Plane, Zone, away};
use crate::{
    memory::Identity,
    metadata::of_zone,
    testkinds::{CONFIG, MESH, SERVICE, TIMEOUT, zone},
    zone::{Difference, Step, Unseen},
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::{
    Backend as _,
    view::{Feed, KindSet},
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tonic::{
    Code,
    client::Grpc,
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

const ONE: &str = r#"{"seconds":1}"#;
const TWO: &str = r#"{"seconds":2}"#;
const HOUR: Duration = Duration::from_secs(3600);

/// Lets virtual time pass.
async fn pass(time: Duration) {
    timeout(time, std::future::pending::<()>()).await.unwrap_err();
}

/// A global whose disk was lost.
async fn empty(tasks: &mut JoinSet<()>) -> Global {
    let plane = Plane::new(tasks, None, 2);
    plane.put(CONFIG, "kuma-cluster-id", r#"{"config":"c2"}"#).await;
    Global::serve(tasks, plane)
}

/// A zone whose global was lost and came back as another one, with so many timeouts.
async fn led_elsewhere(tasks: &mut JoinSet<()>, timeouts: usize) -> (Zone, Global) {
    let global = Global::start(tasks, "c1", 1).await;
    let address = Address::of(&global);
    let east = Zone::start(tasks, "east", &address);
    east.until_complete().await;
    global.stop.cancel();
    let empty = empty(tasks).await;
    for i in 0..timeouts {
        empty.plane.put(TIMEOUT, &format!("timeout-{i:04}"), ONE).await;
    }
    address.leads_to(&empty);
    (east, empty)
}

fn c2() -> Identity {
    Identity { id: "c2".into(), epoch: Some(2) }
}

/// What a zone would do, in order.
fn steps(difference: &Difference) -> Vec<(&str, String, Step)> {
    let steps = difference.steps.iter();
    steps.map(|((kind, key), step)| (*kind, key.to_string(), *step)).collect()
}

#[tokio::test(start_paused = true)]
async fn what_adopting_would_change_is_known_before_and_nothing_is_changed_by_it() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    for name in ["a", "b", "same"] {
        global.plane.put(TIMEOUT, name, ONE).await;
    }
    let address = Address::of(&global);
    let east = Zone::start(&mut tasks, "east", &address);
    east.plane.put(SERVICE, "own", r#"{"port":1}"#).await;
    east.until_complete().await;
    let at_once = east.handle.difference().await.unwrap();
    assert_eq!(steps(&at_once), [], "the zone has what its global has");

    global.stop.cancel();
    let empty = empty(&mut tasks).await;
    empty.plane.put(MESH, "shop", "{}").await;
    for (name, spec) in [("b", TWO), ("same", ONE), ("new", ONE)] {
        empty.plane.put(TIMEOUT, name, spec).await;
    }
    address.leads_to(&empty);
    east.until(|state| state.held.is_some()).await;
    let before = [MESH, TIMEOUT, SERVICE, CONFIG].map(|kind| east.plane.all(kind));
    let (opened, acked) = (*empty.counts.opened.borrow(), empty.counts.of("acked", TIMEOUT));
    let difference = east.handle.difference().await.unwrap();
    assert_eq!(difference.identity, Some(c2()));
    let timeout = |name| away(TIMEOUT, name, None);
    let expected = [
        ("Config", "kuma-cluster-id".into(), Step::Change),
        ("Mesh", "default".into(), Step::Delete),
        ("Mesh", "shop".into(), Step::Create),
        ("MeshTimeout", timeout("a"), Step::Delete),
        ("MeshTimeout", timeout("b"), Step::Change),
        ("MeshTimeout", timeout("new"), Step::Create),
    ];
    assert_eq!(steps(&difference), expected);
    let after = [MESH, TIMEOUT, SERVICE, CONFIG].map(|kind| east.plane.all(kind));
    assert_eq!(after, before, "nothing is changed by it");
    assert_eq!(*empty.counts.opened.borrow(), opened, "global shows no stream");
    assert_eq!(empty.counts.of("acked", TIMEOUT), acked, "and nothing that is taken");
    assert!(east.handle.state().borrow().held.is_some());

    east.handle.adopt(&c2()).unwrap();
    let names = ["b", "same", "new"].map(timeout);
    east.plane.until(TIMEOUT, &names).await;
    east.plane.until(MESH, &["shop".into()]).await;
    east.until_complete().await;
    let none = east.handle.difference().await.unwrap();
    assert_eq!(steps(&none), []);
}

#[tokio::test(start_paused = true)]
async fn a_state_in_many_parts_is_looked_at_to_its_end() {
    let mut tasks = JoinSet::new();
    let (east, _empty) = led_elsewhere(&mut tasks, 2500).await;
    east.until(|state| state.held.is_some()).await;
    // Two ask at once.
    let (one, other) = tokio::join!(east.handle.difference(), east.handle.difference());
    let created = |difference: &Difference| {
        let timeouts = difference.steps.iter().filter(|((kind, _), _)| *kind == TIMEOUT.name);
        timeouts.filter(|(_, step)| **step == Step::Create).count()
    };
    assert_eq!((created(&one.unwrap()), created(&other.unwrap())), (2500, 2500));
}

#[tokio::test(start_paused = true)]
async fn who_is_not_connected_cannot_look() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let east = Zone::start(&mut tasks, "east", &Address::of(&global));
    east.until_complete().await;
    global.stop.cancel();
    east.until(|state| state.connected_since.is_none()).await;
    let asked = Instant::now();
    assert_eq!(east.handle.difference().await, Err(Unseen::NotConnected));
    assert_eq!(asked.elapsed(), Duration::ZERO, "nobody waits for a connection");
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_applies_nothing_stays_connected() {
    let mut tasks = JoinSet::new();
    let (east, empty) = led_elsewhere(&mut tasks, 10).await;
    let state = east.until(|state| state.held.is_some() && state.connected_since.is_some()).await;
    empty.until_opened(5).await;
    pass(HOUR).await;
    assert_eq!(*empty.counts.opened.borrow(), 5, "none was opened anew");
    let now = east.handle.state().borrow().clone();
    assert_eq!(
        (now.connected_since, now.last_failure),
        (state.connected_since, state.last_failure)
    );
}

/// Notes what is deleted in a zone from now on.
async fn deletions(tasks: &mut JoinSet<()>, plane: &Plane) -> Arc<Mutex<Vec<String>>> {
    let ids = [MESH, TIMEOUT, CONFIG, SERVICE].map(|kind| plane.id(kind));
    let mut feed = Feed::of(&plane.store.reader(), KindSet::from_iter(ids));
    feed.next().await.unwrap();
    let noted = Arc::<Mutex<Vec<String>>>::default();
    let deleted = noted.clone();
    tasks.spawn(async move {
        while let Ok(updates) = feed.next().await {
            let gone = updates.iter().filter(|update| update.now.is_none());
            deleted.lock().extend(gone.map(|update| update.key.to_string()));
        }
    });
    noted
}

/// Somebody writes on global, on and on.
fn load(tasks: &mut JoinSet<()>, plane: Plane) {
    tasks.spawn(async move {
        for seconds in 1.. {
            let name = format!("load-{}", seconds % 7);
            plane.put(TIMEOUT, &name, &format!(r#"{{"seconds":{seconds}}}"#)).await;
            if seconds % 5 == 0 {
                plane.delete(TIMEOUT, &format!("load-{}", (seconds + 3) % 7)).await;
            }
            pass(Duration::from_millis(10)).await;
        }
    });
}

/// Zones of a global with some resources, and under load.
async fn under_load(tasks: &mut JoinSet<()>) -> (Global, Address, [Zone; 2]) {
    let global = Global::start(tasks, "c1", 1).await;
    for i in 0..20 {
        global.plane.put(TIMEOUT, &format!("kept-{i}"), ONE).await;
    }
    let address = Address::of(&global);
    let zones = ["west", "east"].map(|name| Zone::start(tasks, name, &address));
    for zone in &zones {
        zone.until_complete().await;
        zone.plane.put(SERVICE, "own", r#"{"port":1}"#).await;
    }
    load(tasks, global.plane.clone());
    pass(Duration::from_secs(5)).await;
    (global, address, zones)
}

/// The zones keep all they have from `global`, which took the place of theirs; one of them adopts
/// it and has what it has.
async fn kept_until_adopted(tasks: &mut JoinSet<()>, global: &Global, zones: &[Zone; 2]) {
    let mut noted = Vec::new();
    for zone in zones {
        zone.until(|state| state.held.is_some()).await;
        noted.push(deletions(tasks, &zone.plane).await);
    }
    let before = zones.each_ref().map(|zone| zone.plane.all(TIMEOUT));
    load(tasks, global.plane.clone());
    pass(HOUR / 60).await;
    assert_eq!(zones.each_ref().map(|zone| zone.plane.all(TIMEOUT)), before);
    assert_eq!(noted.iter().map(|noted| noted.lock().clone()).collect::<Vec<_>>(), [[""; 0]; 2]);

    let [west, east] = zones;
    let seen = west.handle.state().borrow().held.as_ref().unwrap().identity().unwrap().clone();
    west.handle.adopt(&seen).unwrap();
    west.until_complete().await;
    let adopted = || {
        let of_global = global.plane.all(TIMEOUT).into_iter();
        let of_global = of_global.map(|(key, spec)| {
            let name = key.strip_prefix("default/").unwrap().to_owned();
            (away(TIMEOUT, &name, None), spec)
        });
        of_global.collect::<BTreeMap<_, _>>()
    };
    let mut feed = west.plane.store.reader().watch(KindSet::from_iter([west.plane.id(TIMEOUT)]));
    let same = async {
        while west.plane.all(TIMEOUT) != adopted() {
            feed.dirty().await.unwrap();
        }
    };
    assert!(timeout(PATIENCE, same).await.is_ok(), "west has what global has");
    assert_eq!(west.plane.spec(SERVICE, "own"), r#"{"port":1}"#, "what is its own stays");
    assert_eq!(east.plane.all(TIMEOUT), before[1], "the other zone was not asked");
    assert_eq!(noted[1].lock().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn wiping_the_store_of_global_under_load_deletes_nothing_in_its_zones() {
    let mut tasks = JoinSet::new();
    let (global, address, zones) = under_load(&mut tasks).await;
    global.stop.cancel();
    let empty = empty(&mut tasks).await;
    empty.plane.put(MESH, "default", "{}").await;
    address.leads_to(&empty);
    kept_until_adopted(&mut tasks, &empty, &zones).await;
}

#[tokio::test(start_paused = true)]
async fn rolling_back_the_store_of_global_under_load_deletes_nothing_in_its_zones() {
    let mut tasks = JoinSet::new();
    let (global, address, zones) = under_load(&mut tasks).await;
    global.stop.cancel();
    // The same global, as it was before most of that.
    let old = Global::start(&mut tasks, "c1", 1).await;
    for i in 0..3 {
        old.plane.put(TIMEOUT, &format!("kept-{i}"), TWO).await;
    }
    address.leads_to(&old);
    kept_until_adopted(&mut tasks, &old, &zones).await;
}

/// A zone of which nothing is known but that its stream is open.
async fn opened(
    global: &Global,
    metadata: MetadataMap,
) -> tonic::Streaming<DeltaDiscoveryResponse> {
    let dial = Address::of(global);
    let connector = tower::service_fn(move |_: http::Uri| {
        let dialed = dial.dial();
        async move { dialed.await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://global");
    let channel: Channel = endpoint.connect_with_connector(connector).await.unwrap();
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let mut request = tonic::Request::new(futures::stream::pending::<DeltaDiscoveryRequest>());
    *request.metadata_mut() = metadata;
    let codec = ProstCodec::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>::default();
    let path = http::uri::PathAndQuery::from_static(crate::zone::GLOBAL_TO_ZONE);
    grpc.streaming(request, path, codec).await.unwrap().into_inner()
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_does_not_ask_for_global_any_more_is_let_go() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let mut stream = opened(&global, of_zone(&zone("east"), "1", Some("east-token"))).await;
    let began = Instant::now();
    let status = timeout(HOUR, stream.message()).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Cancelled);
    // Twice the interval of 30 s.
    assert_eq!(began.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_never_asks_for_global_may_stay() {
    let mut tasks = JoinSet::new();
    let global = Global::start(&mut tasks, "c1", 1).await;
    let mut metadata = of_zone(&zone("east"), "1", Some("east-token"));
    metadata.remove("features");
    let mut stream = opened(&global, metadata).await;
    assert!(timeout(HOUR, stream.message()).await.is_err());
}
