//! What becomes of a zone's resources in other zones while the zone comes and goes.

use super::{Global, PATIENCE, config};
use crate::config::{KindQuota, ZoneQuota};
use http::Method;
use kinds::{mesh_service, mesh_timeout, zone_insight::ZoneInsight};
use resource::{Kind, ResourceKey};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use store::{
    StoreKind,
    view::{KindSet, Reader},
};
use tokio::{task::JoinSet, time::timeout};

/// A zone, and what it has.
struct Neighbour {
    reader: Reader,
    _tasks: JoinSet<()>,
}

impl Neighbour {
    async fn join(global: &Global, name: &str, services: &[&'static str]) -> Self {
        let body = json!({"zone": name, "scope": ["cp"], "validFor": "1h"});
        let (_, token) = global.admin(Method::POST, "/tokens/zone", Some(body)).await;
        let spec = json!({"selector": {"dataplaneLabels": {"matchLabels": {"a": "b"}}}, "ports": [{"port": 80}]});
        let service = |name: &&'static str| (mesh_service::KIND, *name, spec.clone());
        let services: Vec<(Kind, &'static str, Value)> = services.iter().map(service).collect();
        let (reader, tasks) = global.zone_and_reader(name, Some(token), services);
        global.until("ZoneInsight", global.is_online(name)).await;
        Self { reader, _tasks: tasks }
    }

    /// Waits until these are the services of other zones that it has.
    async fn until(&self, global: &Global, expected: &[&str]) {
        self.until_of(mesh_service::KIND, global, expected).await;
    }

    async fn until_of(&self, kind: Kind, global: &Global, expected: &[&str]) {
        let kind = global.kinds.id_of(kind.name).unwrap();
        let mut watch = self.reader.watch(KindSet::from_iter([kind]));
        let waited = timeout(PATIENCE, async {
            while foreign(&self.reader.rows(kind).1) != expected {
                watch.dirty().await.unwrap();
            }
        });
        let waited = waited.await;
        assert!(waited.is_ok(), "{:?}, not {expected:?}", foreign(&self.reader.rows(kind).1));
    }
}

/// The display names of what came from elsewhere.
fn foreign(rows: &store::view::Rows) -> Vec<String> {
    let rows = rows.iter().filter(|row| row.head.labels.get("kuma.io/origin") == Some("global"));
    let mut names: Vec<String> =
        rows.map(|row| row.head.labels.get("kuma.io/display-name").unwrap().to_owned()).collect();
    names.sort();
    names
}

async fn started() -> (tempfile::TempDir, Global) {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(folder.path());
    settings.store.kind = StoreKind::Memory;
    let global = Global::start(settings).await;
    (folder, global)
}

async fn set(global: &Global, zone: &str, enabled: bool) {
    let body = json!({"type": "Zone", "name": zone, "enabled": enabled});
    let path = format!("/zones/{zone}");
    assert_eq!(global.admin(Method::PUT, &path, Some(body)).await.0, 200);
}

#[tokio::test]
async fn a_zone_that_is_disabled_is_seen_by_no_other_and_is_back_when_it_is_enabled() {
    let (_folder, global) = started().await;
    let east = Neighbour::join(&global, "east", &["cart", "web"]).await;
    let west = Neighbour::join(&global, "west", &["shop"]).await;
    west.until(&global, &["cart", "web"]).await;
    east.until(&global, &["shop"]).await;

    set(&global, "east", false).await;
    west.until(&global, &[]).await;
    // It goes on both ways itself, and global keeps what it wrote.
    assert_eq!(global.names("/meshes/default/meshservices").await.len(), 3);
    let online = global.is_online("east");
    assert!(online(&global.reader));
    let south = Neighbour::join(&global, "south", &["late"]).await;
    south.until(&global, &["shop"]).await;
    east.until(&global, &["late", "shop"]).await;

    set(&global, "east", true).await;
    west.until(&global, &["cart", "late", "web"]).await;
    south.until(&global, &["cart", "shop", "web"]).await;
    global.stop().await;
}

#[tokio::test]
async fn what_a_deleted_zone_wrote_goes_everywhere() {
    let (_folder, global) = started().await;
    let east = Neighbour::join(&global, "east", &["cart", "web"]).await;
    let west = Neighbour::join(&global, "west", &["shop"]).await;
    west.until(&global, &["cart", "web"]).await;
    drop(east);
    let online = global.is_online("east");
    global.until("ZoneInsight", |reader| !online(reader)).await;
    // Away is not gone.
    west.until(&global, &["cart", "web"]).await;
    assert_eq!(global.names("/meshes/default/meshservices").await.len(), 3);

    assert_eq!(global.admin(Method::DELETE, "/zones/east", None).await.0, 200);
    west.until(&global, &[]).await;
    assert_eq!(global.names("/meshes/default/meshservices").await.len(), 1);
    global.stop().await;
}

#[tokio::test]
async fn a_zone_has_no_more_in_global_than_the_settings_say() {
    let two = KindQuota { resources: Some(2), bytes: None };
    for (resources, kinds) in [(2, None), (9, Some((mesh_service::KIND.name.to_owned(), two)))] {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = config(folder.path());
        settings.store.kind = StoreKind::Memory;
        let kinds = kinds.into_iter().collect();
        settings.kds.zone_quota = ZoneQuota { resources, kinds, ..ZoneQuota::default() };
        let global = Global::start(settings).await;
        let _east = Neighbour::join(&global, "east", &["a", "b", "c"]).await;
        let id = global.kinds.id_of(mesh_service::KIND.name).unwrap();
        // They come together.
        global.until(mesh_service::KIND.name, |reader| !reader.rows(id).1.is_empty()).await;
        assert_eq!(global.reader.rows(id).1.len(), 2);
        global.stop().await;
    }
}

async fn labelled(global: &Global, zone: &str, stage: &str) {
    let body = json!({"type": "Zone", "name": zone, "labels": {"stage": stage}});
    let path = format!("/zones/{zone}");
    assert_eq!(global.admin(Method::PUT, &path, Some(body)).await.0, 200);
}

#[tokio::test]
async fn a_policy_goes_to_the_zones_that_are_labelled_for_it_and_to_no_others() {
    let (_folder, global) = started().await;
    let kind = mesh_timeout::KIND.kind;
    let [east, west] = [("east", "canary"), ("west", "late")].map(async |(zone, stage)| {
        let neighbour = Neighbour::join(&global, zone, &[]).await;
        labelled(&global, zone, stage).await;
        neighbour
    });
    let (east, west) = (east.await, west.await);
    let put = async |name: &str, seconds: u8, labels: Value| {
        let to = json!([{"targetRef": {"kind": "Mesh"},
            "default": {"connectionTimeout": format!("{seconds}s")}}]);
        let body = json!({"type": "MeshTimeout", "mesh": "default", "name": name,
            "labels": labels, "spec": {"targetRef": {"kind": "Mesh"}, "to": to}});
        let path = format!("/meshes/default/meshtimeouts/{name}");
        let (status, text) = global.admin(Method::PUT, &path, Some(body)).await;
        assert!(status < 300, "{text}");
    };
    let path = "/meshes/default/meshtimeouts?size=1000";
    for name in global.names(path).await {
        global.admin(Method::DELETE, &format!("/meshes/default/meshtimeouts/{name}"), None).await;
    }
    let canary = json!({"zones.atoll.io/stage": "canary"});
    put("tight", 1, canary.clone()).await;
    put("mark", 1, json!({})).await;
    east.until_of(kind, &global, &["mark", "tight"]).await;
    west.until_of(kind, &global, &["mark"]).await;
    let said = global.get("/meshes/default/meshtimeouts/tight/_propagation").await;
    let of = |name: &str| {
        let zones = said["zones"].as_array().unwrap().iter();
        zones.clone().find(|zone| zone["zone"] == name).unwrap().clone()
    };
    assert_eq!(of("west")["state"], "NotForThisZone");
    assert_eq!(of("west")["reason"], "it is for zones with the labels stage: canary");

    labelled(&global, "west", "canary").await;
    west.until_of(kind, &global, &["mark", "tight"]).await;
    labelled(&global, "east", "late").await;
    east.until_of(kind, &global, &["mark"]).await;
    put("tight", 1, json!({})).await;
    east.until_of(kind, &global, &["mark", "tight"]).await;
    global.stop().await;
}

#[tokio::test]
async fn what_goes_over_the_streams_of_a_zone_is_shown_with_it() {
    let (_folder, global) = started().await;
    let east = Neighbour::join(&global, "east", &["cart"]).await;
    let west = Neighbour::join(&global, "west", &["web"]).await;
    east.until(&global, &["web"]).await;
    let id = global.kinds.id_of("ZoneInsight").unwrap();
    let sent = |reader: &Reader| {
        let row = reader.get(id, &ResourceKey::global("east"))?;
        let all = kinds::read::<ZoneInsight>(&row).ok()?.0.subscriptions.clone();
        let stats = all.first()?.status.clone()?.stat.get(mesh_service::KIND.name).copied()?;
        Some((stats.responses_sent, stats.responses_acknowledged, stats.responses_rejected))
    };
    // The first response has nothing: its own service does not come back.
    global.until("ZoneInsight", |reader| sent(reader) == Some((2, 2, 0))).await;
    let overview = global.get("/zones/east/_overview").await;
    let subscription = &overview["zoneInsight"]["subscriptions"][0];
    assert_eq!(subscription["authTokenProvided"], true);
    assert_eq!(subscription["config"], r#"{"zone":"east"}"#);
    assert_eq!(subscription["zoneInstanceId"], "east-1");
    assert_eq!(subscription["version"]["kumaCp"]["version"], "1.2.3");
    assert!(subscription.get("disconnectTime").is_none(), "{subscription}");
    let streams = overview["zoneInsight"]["kdsStreams"].as_object().unwrap();
    let streams: BTreeSet<&str> = streams.keys().map(|call| &**call).collect();
    let all = ["clusters", "configDump", "globalToZone", "stats", "zoneToGlobal"];
    assert_eq!(streams, all.into());

    // Each connection is a subscription of its own.
    drop(east);
    let online = global.is_online("east");
    global.until("ZoneInsight", |reader| !online(reader)).await;
    let _east = Neighbour::join(&global, "east", &["cart"]).await;
    let overview = global.get("/zones/east/_overview").await;
    let subscriptions = overview["zoneInsight"]["subscriptions"].as_array().unwrap();
    let ended: Vec<bool> =
        subscriptions.iter().map(|one| one.get("disconnectTime").is_some()).collect();
    assert_eq!(ended, [true, false]);
    drop(west);
    global.stop().await;
}
