//! Writes down what became of proxies: the one task that does.

use super::{
    desk::Desk,
    registry::{Registry, Work},
};
use api::keys::DATAPLANE_TOKENS;
use daemon::Metrics;
use prometheus_client::metrics::gauge::Gauge;
use std::sync::Arc;
use store::{
    Backend, StoreError,
    view::{Feed, KindSet, Update},
};
use tokio::time::{Instant, sleep_until};

/// What is published about proxies.
#[derive(Clone, Debug)]
pub(super) struct Numbers {
    connected: Gauge,
    away: Gauge,
    held: Gauge,
}

impl Numbers {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let gauge = |name, help| metrics.register(name, help, Gauge::default());
        Self {
            connected: gauge("dataplanes_connected", "Proxies that are connected"),
            away: gauge("dataplanes_away", "Proxies that are away and not withdrawn yet"),
            held: gauge(
                "dataplanes_held",
                "1 while no proxy is withdrawn, because most vanished together",
            ),
        }
    }

    fn show(&self, registry: &Registry) {
        let crowd = registry.crowd();
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.connected.set(number(crowd.here));
        self.away.set(number(crowd.away));
        self.held.set(i64::from(crowd.held));
    }
}

/// Runs until the desk's stop, and then writes down the last of it.
pub(super) async fn run<B: Backend>(
    desk: Arc<Desk>,
    store: B,
    numbers: Numbers,
) -> Result<(), StoreError> {
    let registry = &desk.registry;
    registry.remember();
    let ids = registry.shelf.ids;
    let kinds: KindSet = [ids.dataplane, ids.secret, ids.global_secret].into_iter().collect();
    let mut feed = Feed::of(&registry.shelf.reader, kinds);
    // Before proxies are let in they cannot come back, so none is missed.
    let mut opened = Box::pin(desk.meshes.opened());
    let mut open = false;
    loop {
        write(&desk, &store).await?;
        numbers.show(registry);
        tokio::select! {
            biased;
            () = desk.stop.cancelled() => return write(&desk, &store).await,
            () = &mut opened, if !open => {
                open = true;
                registry.opened();
            }
            () = registry.dirty.notified() => {}
            updates = feed.next() => {
                hear(&desk, &updates.map_err(|_| StoreError::Closed)?);
            }
            () = until(registry.deadline().filter(|_| open)) => {
                if let Some(held) = registry.look() {
                    tracing::error!(
                        away = held.away,
                        of = held.of,
                        "most proxies vanished together: none is withdrawn until they are back"
                    );
                }
            }
        }
    }
}

/// What others wrote.
fn hear(desk: &Desk, updates: &[Update]) {
    let dataplane = desk.registry.shelf.ids.dataplane;
    let (dataplanes, secrets): (Vec<_>, Vec<_>) =
        updates.iter().partition(|update| update.kind == dataplane);
    for gone in dataplanes.iter().filter(|update| update.now.is_none()) {
        desk.registry.deleted(&gone.key);
    }
    // Other secrets are no concern of tokens that are in use.
    if secrets.iter().any(|update| update.key.name.starts_with(DATAPLANE_TOKENS)) {
        desk.tokens.look_again();
    }
}

/// What several proxies said since the last time is one batch.
async fn write<B: Backend>(desk: &Desk, store: &B) -> Result<(), StoreError> {
    let Work { items, waiting, gone } = desk.registry.work();
    gone.iter().for_each(|key| desk.meshes.beacons().gone(key));
    if !items.is_empty() {
        let committed = store.commit(items).await?;
        store.wait_for(committed.revision).await?;
    }
    for waiting in waiting {
        // Who does not wait any more needs no answer.
        let _sent = waiting.send(());
    }
    Ok(())
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
