//! Our zone at a plain global.

use super::{
    plain::{GLOBAL_ASKS, PlainGlobal, Resources, ZONE_ASKS, name_of, resource},
    world::{
        MESH, PATIENCE, Plane, SECRET, SERVICE, TIMEOUT, Zone, hashed, names, timeout_of, until,
    },
};
use crate::memory::{Held, Identity};
use prost::Message as _;
use prost_types::{Value, value::Kind as Of};
use proto::kuma::{
    mesh::v1alpha1::KumaResource,
    system::v1alpha1::{Config, Secret},
};
use resource::{Labels, Peer};
use serde_json::json;
use std::{sync::atomic::Ordering, time::Duration};
use tokio::{
    io::DuplexStream,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};

const OF_GLOBAL: (&str, &str) = ("kuma.io/origin", "global");

fn takes_all(_kind: &str, _resource: &KumaResource) -> Result<(), String> {
    Ok(())
}

pub(super) fn mesh() -> KumaResource {
    resource("default", "", &[OF_GLOBAL], ("kuma.mesh.v1alpha1.Mesh", b""))
}

pub(super) fn id(id: &str) -> KumaResource {
    let config = Config { config: id.into() }.encode_to_vec();
    resource("kuma-cluster-id", "", &[OF_GLOBAL], ("kuma.system.v1alpha1.Config", &config))
}

pub(super) fn web(idle: &str) -> KumaResource {
    let labels = [("kuma.io/display-name", "web"), OF_GLOBAL];
    let spec = timeout_of(idle).to_string();
    resource(&hashed("web", None), "default", &labels, ("", spec.as_bytes()))
}

pub(super) fn all(resources: impl IntoIterator<Item = (&'static str, KumaResource)>) -> Resources {
    let mut all = Resources::new();
    for (kind, resource) in resources {
        all.entry(kind.into()).or_default().insert(name_of(&resource), resource);
    }
    all
}

/// A running plain global and where it is found.
pub(super) fn start(
    tasks: &mut JoinSet<()>,
    resources: Resources,
) -> (PlainGlobal, mpsc::Sender<DuplexStream>) {
    let global = PlainGlobal::new(resources, takes_all);
    let (connect, incoming) = mpsc::channel(8);
    tasks.spawn(global.clone().serve(incoming));
    (global, connect)
}

#[tokio::test(start_paused = true)]
async fn our_zone_follows_a_plain_global() {
    let mut tasks = JoinSet::new();
    let at_first = all([("Mesh", mesh()), ("Config", id("c1")), ("MeshTimeout", web("1s"))]);
    let (global, connect) = start(&mut tasks, at_first);
    let zone = Zone::start(&mut tasks, "east", &connect);
    let state = zone.until_complete().await;
    assert!(state.complete_once);
    assert_eq!(zone.plane.names(MESH), ["default"]);
    let web_name = hashed("web", None);
    assert_eq!(zone.plane.all(TIMEOUT), [(web_name.clone(), timeout_of("1s"))].into());
    let labels = [("kuma.io/display-name", "web"), OF_GLOBAL];
    assert_eq!(zone.plane.labels(TIMEOUT, &web_name), Labels::from_iter(labels));

    global.offers.send_modify(|all| {
        let name = format!("{web_name}.default");
        all.get_mut("MeshTimeout").unwrap().insert(name, web("2s"));
    });
    zone.plane.until(TIMEOUT, |all| all[&web_name] == timeout_of("2s")).await;
    global.offers.send_modify(|all| drop(all.remove("MeshTimeout")));
    zone.plane.until(TIMEOUT, |all| all.is_empty()).await;
    assert_eq!(*global.nacks.borrow(), []);
}

#[tokio::test(start_paused = true)]
async fn our_zone_asks_for_what_a_plain_one_asks_for() {
    let mut tasks = JoinSet::new();
    let (global, connect) = start(&mut tasks, all([("Mesh", mesh()), ("Config", id("c1"))]));
    let zone = Zone::start(&mut tasks, "east", &connect);
    zone.until_complete().await;
    assert_eq!(*global.asked.borrow(), ZONE_ASKS.map(str::to_owned).into());
}

#[tokio::test(start_paused = true)]
async fn our_zone_says_who_it_is_with_each_call() {
    let mut tasks = JoinSet::new();
    let (global, connect) = start(&mut tasks, all([("Mesh", mesh()), ("Config", id("c1"))]));
    let zone = Zone::start(&mut tasks, "east", &connect);
    zone.until_complete().await;
    let calls = global.calls.borrow().clone();
    let mut names: Vec<&str> = calls.iter().map(|(call, _)| *call).collect();
    names.sort_unstable();
    let expected = [
        "GlobalToZoneSync",
        "HealthCheck",
        "StreamClusters",
        "StreamStats",
        "StreamXDSConfigs",
        "ZoneToGlobalSync",
    ];
    assert_eq!(names, expected);
    for (call, metadata) in calls {
        let get = |key: &str| -> Vec<String> {
            metadata.get_all(key).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(get("client-id"), ["east"], "{call}");
        assert_eq!(get("features"), ["zone-ping-health", "hash-suffix"], "{call}");
        assert_eq!(
            (get("kds-version"), get("zone-version")),
            (vec!["v3".into()], vec!["v3".into()])
        );
        assert_eq!(get("authorization"), ["Bearer east-token"], "{call}");
    }
}

#[tokio::test(start_paused = true)]
async fn our_zone_says_what_a_plain_global_shows_of_it() {
    let mut tasks = JoinSet::new();
    let (global, connect) = start(&mut tasks, all([("Mesh", mesh()), ("Config", id("c1"))]));
    let zone = Zone::start(&mut tasks, "east", &connect);
    zone.until_complete().await;
    let metadata = global.node.borrow().metadata.clone().unwrap_or_default().fields;
    let text = |value: &Value| match &value.kind {
        Some(Of::StringValue(text)) => text.clone(),
        other => panic!("{other:?} is no text"),
    };
    assert_eq!(text(&metadata["config"]), r#"{"zone":"x"}"#);
    assert_eq!(text(&metadata["control-plane-id"]), "east-1");
    let Some(Of::StructValue(version)) = &metadata["version"].kind else { panic!("a version") };
    let Some(Of::StructValue(of_cp)) = &version.fields["kumaCp"].kind else { panic!("of kumaCp") };
    assert_eq!(text(&of_cp.fields["version"]), "1.2.3");
}

#[tokio::test(start_paused = true)]
async fn our_zone_keeps_all_when_a_plain_global_deletes_it_and_is_back_when_it_is_let_in() {
    let mut tasks = JoinSet::new();
    let at_first = all([("Mesh", mesh()), ("Config", id("c1")), ("MeshTimeout", web("1s"))]);
    let (global, connect) = start(&mut tasks, at_first);
    let zone = Zone::start(&mut tasks, "east", &connect);
    zone.until_complete().await;
    global.refuses.store(true, Ordering::Relaxed);
    global.end_streams();
    // Every attempt is refused, and takes longer to come than the one before.
    let begun = Instant::now();
    let calls = || {
        let calls = global.calls.borrow();
        calls.iter().filter(|(call, _)| *call == "GlobalToZoneSync").count()
    };
    let before = calls();
    timeout(Duration::from_secs(600), std::future::pending::<()>()).await.unwrap_err();
    let attempts = calls() - before;
    assert!((10..60).contains(&attempts), "{attempts} in {:?}", begun.elapsed());
    let state = zone.handle.state().borrow().clone();
    let why = state.last_failure.unwrap_or_default();
    assert!(why.contains("PermissionDenied: zone was deleted"), "{why}");
    assert_eq!((state.connected_since, state.complete_once), (None, true));
    let web_name = hashed("web", None);
    assert_eq!(zone.plane.all(TIMEOUT), [(web_name.clone(), timeout_of("1s"))].into());

    global.refuses.store(false, Ordering::Relaxed);
    global.offers.send_modify(|all| {
        all.get_mut("MeshTimeout").unwrap().insert(format!("{web_name}.default"), web("2s"));
    });
    zone.plane.until(TIMEOUT, |all| all[&web_name] == timeout_of("2s")).await;
    zone.until_complete().await;
}

#[tokio::test(start_paused = true)]
async fn what_our_zone_owns_reaches_a_plain_global_and_leaves_it() {
    let mut tasks = JoinSet::new();
    let (global, connect) = start(&mut tasks, all([("Mesh", mesh()), ("Config", id("c1"))]));
    let zone = Zone::start(&mut tasks, "east", &connect);
    let own = [("kuma.io/origin", "zone"), ("kuma.io/zone", "east"), ("kuma.io/env", "universal")];
    let spec = json!({ "state": "Available", "ports": [{ "port": 80 }] });
    zone.plane.put(SERVICE, "cart", &own, spec).await;
    // A secret of a zone stays there.
    zone.plane.put(SECRET, "own", &own, json!({ "data": "c2VjcmV0" })).await;
    until(&global.held, |held| held.len() == GLOBAL_ASKS.len()).await;
    until(&global.held, |held| names(held, "MeshService").len() == 1).await;
    let name = hashed("cart", Some("east"));
    let held = global.held.borrow().clone();
    let cart = &held["MeshService"][&format!("{name}.default")];
    let labels = [
        ("kuma.io/display-name", "cart"),
        ("kuma.io/env", "universal"),
        ("kuma.io/origin", "zone"),
        ("kuma.io/zone", "east"),
    ];
    assert_eq!(cart.meta, resource(&name, "default", &labels, ("", b"")).meta);
    let status = cart.status.clone().unwrap().value;
    assert_eq!(String::from_utf8(status).unwrap(), r#"{"tls":{},"dataplaneProxies":{}}"#);
    zone.plane.delete(SERVICE, "cart").await;
    until(&global.held, |held| held["MeshService"].is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_plain_global_is_applied_before_it_says_which_one_it_is() {
    let mut tasks = JoinSet::new();
    let (global, connect) = start(&mut tasks, all([("Mesh", mesh()), ("MeshTimeout", web("1s"))]));
    let zone = Zone::start(&mut tasks, "east", &connect);
    let state = zone.until(|state| state.held.is_some()).await;
    assert_eq!(state.held, Some(Held::NoIdentity));
    assert_eq!(zone.plane.names(MESH), [""; 0]);
    // It has one now. The zone asks again by itself.
    global.offers.send_modify(|all| {
        all.entry("Config".into()).or_default().insert("kuma-cluster-id.".into(), id("c1"));
    });
    let state = zone.until_complete().await;
    assert_eq!(state.held, None);
    assert_eq!(zone.plane.names(MESH), ["default"]);
}

#[tokio::test(start_paused = true)]
async fn another_plain_global_takes_nothing_away() {
    let mut tasks = JoinSet::new();
    let at_first = all([("Mesh", mesh()), ("Config", id("c1")), ("MeshTimeout", web("1s"))]);
    let (_, connect) = start(&mut tasks, at_first);
    let zone = Zone::start(&mut tasks, "east", &connect);
    zone.until_complete().await;
    zone.stop.cancel();
    let (_other, connect) = start(&mut tasks, all([("Mesh", mesh()), ("Config", id("c2"))]));
    let zone = Zone::run(&mut tasks, "east", &connect, zone.plane);
    let state = zone.until(|state| state.held.is_some()).await;
    let identity = |id: &str| Identity { id: id.into(), epoch: None };
    assert_eq!(state.held, Some(Held::Other { remembered: identity("c1"), found: identity("c2") }));
    assert_eq!(zone.plane.names(TIMEOUT), [hashed("web", None)]);
    zone.handle.adopt(&identity("c2")).unwrap();
    zone.plane.until(TIMEOUT, |all| all.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_zone_owns_is_not_touched_by_a_global() {
    let mut tasks = JoinSet::new();
    let data = Secret { data: Some(b"of global".to_vec()) }.encode_to_vec();
    let secret = resource("own", "default", &[OF_GLOBAL], ("kuma.system.v1alpha1.Secret", &data));
    let mut unlabelled = web("1s");
    unlabelled.meta.as_mut().unwrap().labels.clear();
    let resources =
        [("Mesh", mesh()), ("Config", id("c1")), ("Secret", secret), ("MeshTimeout", unlabelled)];
    let (global, connect) = start(&mut tasks, all(resources));
    let plane = Plane::new(&mut tasks, Peer::Global);
    let own = [("kuma.io/origin", "zone"), ("kuma.io/zone", "east")];
    plane.put(SECRET, "own", &own, json!({ "data": "b3du" })).await;
    plane.put(TIMEOUT, "own", &own, timeout_of("9s")).await;
    let zone = Zone::run(&mut tasks, "east", &connect, plane);
    zone.until_complete().await;
    assert_eq!(zone.plane.all(SECRET), [("own".into(), json!({ "data": "b3du" }))].into());
    assert_eq!(zone.plane.names(TIMEOUT), ["own"]);
    until(&global.nacks, |nacks| nacks.len() == 2).await;
    let mut nacks = global.nacks.borrow().clone();
    nacks.sort();
    let web = format!("{}.default", hashed("web", None));
    let origin = r#"meta.labels["kuma.io/origin"]: is missing, must be "global""#;
    let expected = [
        ("MeshTimeout".to_owned(), format!("{web}: {origin}")),
        ("Secret".to_owned(), r#"own.default: meta.name: belongs to zone "east""#.to_owned()),
    ];
    assert_eq!(nacks, expected);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_cleanly_is_opened_again() {
    let mut tasks = JoinSet::new();
    let (global, connect) = start(&mut tasks, all([("Mesh", mesh()), ("Config", id("c1"))]));
    let zone = Zone::start(&mut tasks, "east", &connect);
    zone.until_complete().await;
    global.end_streams();
    let mut calls = global.calls.subscribe();
    let again = calls.wait_for(|calls| {
        calls.iter().filter(|(call, _)| *call == "ZoneToGlobalSync").count() == 2
    });
    assert!(timeout(PATIENCE, again).await.is_ok(), "a silent stream would never be noticed");
    zone.until_complete().await;
}

#[tokio::test(start_paused = true)]
async fn who_got_something_on_each_connection_is_back_soon_however_many_there_were() {
    let mut tasks = JoinSet::new();
    let (global, connect) = start(&mut tasks, all([("Mesh", mesh()), ("Config", id("c1"))]));
    let zone = Zone::start(&mut tasks, "east", &connect);
    zone.until_complete().await;
    for _ in 0..9 {
        let begun = Instant::now();
        global.end_streams();
        zone.until(|state| state.connected_since.is_none()).await;
        zone.until_complete().await;
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
}
