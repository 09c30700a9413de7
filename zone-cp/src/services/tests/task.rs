//! The task, on a store.

use super::*;
use daemon::{Clock, Metrics};
use std::time::Duration;
use store::{Backend, Local, Memory, open, view::Reader};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(5);

struct Zone {
    store: Local,
    tasks: JoinSet<()>,
}

impl Zone {
    fn start() -> Self {
        let clock = Clock::since(start());
        let (store, writer) = open(Memory::new(1), kinds(), clock.clone()).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async { writer.run().await.unwrap() });
        let (shutdown, metrics) = (CancellationToken::new(), Metrics::default());
        let services =
            super::super::run(store.clone(), kinds(), settings(), clock, metrics, shutdown);
        tasks.spawn(async { services.await.unwrap() });
        Self { store, tasks }
    }

    async fn commit(&self, kind: Kind, edit: Edit) {
        let kind = kinds().id_of(kind.name).unwrap();
        let item = Item { kind, expected: Expected::Anything, edit };
        self.store.commit(vec![item]).await.unwrap();
    }

    async fn put(&self, kind: Kind, row: Resource) {
        self.commit(kind, Edit::Put(Arc::new(row))).await;
    }

    /// Waits until the service `name` is as `wanted`.
    async fn until(&self, name: &str, wanted: impl Fn(Option<&Resource>) -> bool) {
        let id = kinds().id_of(mesh_service::KIND.name).unwrap();
        let reader: Reader = self.store.reader();
        let mut watch = reader.watch([id].into_iter().collect());
        let reached = async {
            while !wanted(reader.get(id, &key(mesh_service::KIND, name)).as_deref()) {
                watch.dirty().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(7200), reached).await.unwrap();
    }
}

fn is_available(row: Option<&Resource>) -> bool {
    row.is_some_and(|row| json_of(row).0["state"] == "Available")
}

#[tokio::test(start_paused = true)]
async fn services_follow_what_is_written() {
    let zone = Zone::start();
    zone.put(dataplane_insight::KIND, online("cart-1")).await;
    zone.put(dataplane::KIND, proxy("cart-1", "cart", 80)).await;
    let at_once = zone.until("cart", is_available);
    tokio::time::timeout(PATIENCE, at_once).await.unwrap();

    // Somebody else writes it meanwhile; its state is set right again.
    let by_hand = json!({ "selector": { "dataplaneRef": { "name": "cart-1" } }, "ports": [] });
    zone.put(mesh_service::KIND, row(mesh_service::KIND, "cart", &[], by_hand)).await;
    tokio::time::timeout(PATIENCE, zone.until("cart", is_available)).await.unwrap();
    drop(zone.tasks);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_nobody_serves_goes_when_its_time_has_come() {
    let zone = Zone::start();
    zone.put(dataplane::KIND, proxy("cart-1", "cart", 80)).await;
    zone.until("cart", |row| row.is_some()).await;
    zone.commit(dataplane::KIND, Edit::Delete(key(dataplane::KIND, "cart-1"))).await;
    let began = tokio::time::Instant::now();
    zone.until("cart", |row| row.is_none()).await;
    let waited = began.elapsed();
    assert!((Duration::from_secs(3599)..Duration::from_secs(3602)).contains(&waited), "{waited:?}");
    drop(zone.tasks);
}
