//! What is counted in meshes.

use super::{Cp, global, in_shop};
use crate::{author::Author, mesh_insights::MeshInsights};
use kinds::mesh_insight;
use resource::ResourceKey;
use serde_json::{Value, json};
use std::time::Duration;
use store::{
    Backend as _,
    view::{Feed, KindSet},
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

const HOUR: Duration = Duration::from_secs(3600);

/// A control plane that counts.
struct Counting {
    cp: Cp,
    author: Author,
    written: Feed,
    _tasks: JoinSet<()>,
}

impl Counting {
    async fn of(cp: Cp) -> Self {
        let author = Author { kinds: cp.kinds.clone(), place: kinds::labels::Place::Global };
        let reader = cp.store.reader();
        let mut written = Feed::of(&reader, KindSet::from_iter([author.id(mesh_insight::KIND)]));
        written.next().await.unwrap();
        let insights = MeshInsights::new(author.clone(), reader);
        let (store, stop) = (cp.store.clone(), cp.shutdown.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { insights.run(store, stop).await.unwrap() });
        Self { cp, author, written, _tasks: tasks }
    }

    /// After how long something is written, if within an hour.
    async fn write(&mut self) -> Option<Duration> {
        let began = Instant::now();
        let written = timeout(HOUR, self.written.next()).await;
        written.is_ok().then(|| began.elapsed())
    }

    async fn shown(&self, mesh: &str) -> Value {
        self.cp.get(&format!("/mesh-insights/{mesh}")).await.json()
    }

    async fn delete(&self, kind: resource::Kind, key: ResourceKey) {
        self.cp.store.commit(vec![self.author.delete(kind, key)]).await.unwrap();
    }

    async fn proxy(&self, name: &str, networking: Value, insight: Option<Value>) {
        let spec = json!({ "networking": networking });
        self.cp.store("Dataplane", in_shop(name), &[], spec).await;
        if let Some(insight) = insight {
            self.cp.store("DataplaneInsight", in_shop(name), &[], insight).await;
        }
    }
}

fn timeout_spec() -> Value {
    super::timeout("", &[])["spec"].clone()
}

fn insight(online: bool, envoy: &str) -> Value {
    let mut subscription = json!({
        "connectTime": "2026-11-24T10:00:00Z",
        "version": { "kumaDp": { "version": "0.2.0" }, "envoy": { "version": envoy } },
    });
    if !online {
        subscription["disconnectTime"] = json!("2026-11-24T11:00:00Z");
    }
    let mtls = json!({ "issuedBackend": "kri_mid", "supportedBackends": ["kri_a", "kri_b"] });
    json!({ "subscriptions": [subscription], "mTLS": mtls })
}

#[tokio::test(start_paused = true)]
async fn a_mesh_shows_how_many_of_everything_it_has_and_how_proxies_do() {
    let mut counting = Counting::of(Cp::at(global()).await).await;
    assert_eq!(counting.write().await, Some(Duration::ZERO), "of the mesh that there is");
    let half = json!({
        "address": "10.0.0.1",
        "inbound": [{ "port": 80, "state": "NotReady" }, { "port": 81 }],
    });
    let gateway = json!({ "address": "10.0.0.1", "gateway": { "tags": { "app": "edge" } } });
    let sidecar = json!({ "address": "10.0.0.1" });
    counting.proxy("half", half, Some(insight(true, "1.40.0"))).await;
    counting.proxy("edge", gateway, Some(insight(true, "1.40.0"))).await;
    counting.proxy("gone", sidecar.clone(), Some(insight(false, "1.39.0"))).await;
    counting.proxy("new", sidecar, None).await;
    for name in ["a", "b"] {
        counting.cp.store("MeshTimeout", in_shop(name), &[], timeout_spec()).await;
    }
    assert_eq!(counting.write().await, Some(Duration::from_secs(1)), "all of it together");
    let shown = counting.shown("shop").await;
    let mtls = json!({ "total": 3, "online": 1, "offline": 1, "partiallyDegraded": 1 });
    let expected = json!({
        "dataplanes": { "total": 4, "online": 1, "offline": 2, "partiallyDegraded": 1 },
        "dataplanesByType": {
            "standard": { "total": 3, "offline": 2, "partiallyDegraded": 1 },
            "gateway": { "total": 1, "online": 1 },
            "gatewayDelegated": { "total": 1, "online": 1 },
        },
        "dpVersions": {
            "kumaDp": { "0.2.0": mtls, "unknown": { "total": 1, "offline": 1 } },
            "envoy": {
                "1.40.0": { "total": 2, "online": 1, "partiallyDegraded": 1 },
                "1.39.0": { "total": 1, "offline": 1 },
                "unknown": { "total": 1, "offline": 1 },
            },
        },
        "mTLS": {
            "issuedBackends": { "kri_mid": mtls },
            "supportedBackends": { "kri_a": mtls, "kri_b": mtls },
        },
        "resources": { "Dataplane": { "total": 4 }, "MeshTimeout": { "total": 2 } },
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&shown[field], value, "{field}");
    }

    // What changes, and what goes.
    counting.proxy("gone", json!({ "address": "10.0.0.1" }), Some(insight(true, "1.40.0"))).await;
    counting.delete(kinds::dataplane::KIND, in_shop("half")).await;
    counting.delete(kinds::mesh_timeout::KIND.kind, in_shop("a")).await;
    assert!(counting.write().await.is_some());
    let shown = counting.shown("shop").await;
    let envoys = json!({
        "1.40.0": { "total": 2, "online": 2 }, "unknown": { "total": 1, "offline": 1 },
    });
    assert_eq!(shown["dpVersions"]["envoy"], envoys);
    assert_eq!(shown["dataplanes"], json!({ "total": 3, "online": 2, "offline": 1 }));
    let resources = json!({ "Dataplane": { "total": 3 }, "MeshTimeout": { "total": 1 } });
    assert_eq!(shown["resources"], resources);
    assert_eq!(counting.write().await, None, "nothing changes, so nothing is written");
}

#[tokio::test(start_paused = true)]
async fn what_changes_nothing_that_is_counted_is_not_written() {
    let mut counting = Counting::of(Cp::at(global()).await).await;
    assert!(counting.write().await.is_some(), "of the mesh that there is");
    counting.cp.store("MeshTimeout", in_shop("a"), &[], timeout_spec()).await;
    assert!(counting.write().await.is_some());
    counting.cp.store("MeshTimeout", in_shop("a"), &[("team", "b")], timeout_spec()).await;
    assert_eq!(counting.write().await, None);
}

#[tokio::test(start_paused = true)]
async fn the_insight_of_a_mesh_goes_with_it() {
    let mut counting = Counting::of(Cp::at(global()).await).await;
    assert!(counting.write().await.is_some());
    let key = ResourceKey::global("shop");
    counting.delete(kinds::mesh::KIND, key.clone()).await;
    assert!(counting.write().await.is_some());
    assert_eq!(counting.cp.get("/mesh-insights/shop").await.status, 404);

    // Also if the mesh went while nobody counted.
    let cp = Cp::at(global()).await;
    cp.store("MeshInsight", ResourceKey::global("old"), &[], json!({})).await;
    let mut counting = Counting::of(cp).await;
    while counting.cp.get("/mesh-insights/old").await.status != 404 {
        assert!(counting.write().await.is_some());
    }
}
